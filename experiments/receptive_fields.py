"""How much time context helps: receptive fields from 1 to 243 frames (the paper's table 5).

    python -m experiments.receptive_fields [--data data/mocap/mocap17.h5]

True and detected 2D keypoints. Paper on Human3.6M, Protocol 1 / 2, mm: true 2D without flip 40.6 (27 frames), 38.7
(81), 37.8 (243); fine-tuned CPN with flip 51.8 / 40.0 (1 frame), 48.8 / 38.0 (27), 47.7 / 37.2 (81), 46.8 / 36.5
(243). Writes ``runs/paper/receptive_fields.json`` and ``.md``. Ten trainings.
"""

from __future__ import annotations

from experiments.paper_runs import DETECTED, P1, P2, VELOCITY, Experiment, Row, command
from lifting.training.config import WIDTHS

FRAMES = (1, 9, 27, 81, 243)
PAPER = {
    "gt": {27: {P1: 40.6}, 81: {P1: 38.7}, 243: {P1: 37.8}},
    DETECTED: {1: {P1: 51.8, P2: 40.0}, 27: {P1: 48.8, P2: 38.0}, 81: {P1: 47.7, P2: 37.2}, 243: {P1: 46.8, P2: 36.5}},
}


def rows_of(keypoints: str) -> list[Row]:
    """A row for every receptive field; flip at test as the paper's numbers have it."""
    return [Row(f"{keypoints} {frames} frames", {"widths": WIDTHS[frames]}, keypoints=keypoints,
                flip=keypoints == DETECTED, paper=PAPER[keypoints].get(frames, {})) for frames in FRAMES]


EXPERIMENT = Experiment("receptive_fields", "Receptive fields from 1 to 243 frames",
                        (*rows_of("gt"), *rows_of(DETECTED)), (P1, P2, VELOCITY))
main = command(EXPERIMENT)

if __name__ == "__main__":
    main()
