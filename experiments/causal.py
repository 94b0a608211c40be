"""What not knowing the future costs: causal against symmetric convolutions (the paper's table 1).

    python -m experiments.causal [--data data/mocap/mocap17.h5]

Paper, 243 frames, fine-tuned CPN on Human3.6M with flip, Protocol 1 / 2: symmetric 46.8 / 36.5 mm, causal
49.0 / 38.1 mm. Six trainings; 243 frames take an hour each on one CPU core, ``--only 27 --only 81`` leaves them out.
Writes ``runs/paper/causal.json`` and ``.md``.
"""

from __future__ import annotations

from experiments.paper_runs import DETECTED, P1, P2, VELOCITY, Experiment, Row, command
from lifting.training.config import WIDTHS

PAPER = {False: {P1: 46.8, P2: 36.5}, True: {P1: 49.0, P2: 38.1}}


def make_row(frames: int, causal: bool) -> Row:
    """The row of a receptive field."""
    return Row(f"{'causal' if causal else 'symmetric'} {frames} frames", {"widths": WIDTHS[frames], "causal": causal},
               keypoints=DETECTED, flip=True, paper=PAPER[causal] if frames == 243 else {})


EXPERIMENT = Experiment("causal", "Causal against symmetric convolutions",
                        tuple(make_row(frames, causal) for frames in (27, 81, 243) for causal in (False, True)),
                        (P1, P2, VELOCITY))
main = command(EXPERIMENT)

if __name__ == "__main__":
    main()
