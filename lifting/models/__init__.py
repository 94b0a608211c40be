"""Networks: built from a frozen config dataclass; the modules themselves take plain values.

Importing this package imports no torch; `build` does.
"""

from __future__ import annotations

from importlib import import_module

BUILDERS = {
    "LifterConfig": ("lifting.models.lifter", "build_lifter"),
    "TemporalConfig": ("lifting.models.temporal", "build_temporal"),
}


def build(config):
    """Build the freshly initialised network that `config` describes.

    Raises ValueError for a config of an unknown kind, naming the known ones.
    """
    kind = type(config).__name__
    if kind not in BUILDERS:
        raise ValueError(f"The config is a {kind}, expected one of {', '.join(sorted(BUILDERS))}; pass one of these.")
    module, function = BUILDERS[kind]
    return getattr(import_module(module), function)(config)
