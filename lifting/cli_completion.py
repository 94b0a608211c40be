"""`lift completion`: lets the shell complete commands and options."""

from __future__ import annotations

import click

from lifting.console import one_sentence_errors, say

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
@one_sentence_errors
def completion(context: click.Context, shell: str) -> None:
    """Print what the SHELL has to run to complete `lift`; for bash: eval "$(lift completion bash)" in ~/.bashrc."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)(context.find_root().command, {}, "lift", "_LIFT_COMPLETE")
    # Not `made.source()`, which starts a bash to look at its version.
    say(made.source_template % made.source_vars())
