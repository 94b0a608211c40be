"""What the 2D keypoints are worth: trained on true or detected ones, tested on either.

    python -m experiments.sources_2d [--data data/mocap/mocap17.h5] [--detected noisy]

Paper with 243 frames on Human3.6M with flip, trained and tested on the same, Protocol 1 / 2: true 37.2 / 27.2 mm,
fine-tuned CPN 46.8 / 36.5 mm. The keypoints decide more than anything else. Two trainings of 27 frames. For the motion
capture, "detected" is the noise of `lifting.datasets.mocap_rig`. Writes ``runs/paper/sources_2d.json`` and ``.md``.
"""

from __future__ import annotations

from experiments.paper_runs import DETECTED, P1, P2, VELOCITY, Experiment, Row, command

PAPER = {"gt": {P1: 37.2, P2: 27.2}, DETECTED: {P1: 46.8, P2: 36.5}}


def make_row(trained: str, tested: str) -> Row:
    """The row of one training and one test."""
    return Row(f"trained on {trained}, tested on {tested}", keypoints=trained, tested_on=tested, flip=True,
               training=f"trained on {trained}", paper=PAPER[trained] if trained == tested else {})


EXPERIMENT = Experiment("sources_2d", "True and detected 2D keypoints in training and at test",
                        tuple(make_row(trained, tested) for trained in PAPER for tested in PAPER), (P1, P2, VELOCITY))
main = command(EXPERIMENT)

if __name__ == "__main__":
    main()
