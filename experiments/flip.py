"""What mirroring is worth: in training, at test, both and neither.

    python -m experiments.flip [--data data/mocap/mocap17.h5]

Two trainings of 27 frames on true 2D keypoints, each tested with and without the average over the mirrored input. Paper
with 243 frames and true 2D keypoints of Human3.6M: 37.8 mm without and 37.2 mm with the average, trained on both.
Writes ``runs/paper/flip.json`` and ``.md``.
"""

from __future__ import annotations

from experiments.paper_runs import P1, P2, VELOCITY, Experiment, Row, command

PAPER = {False: {P1: 37.8}, True: {P1: 37.2}}


def make_row(trained: bool, tested: bool) -> Row:
    """The row of one training and one test."""
    return Row(f"training {'mirrored, too' if trained else 'as filmed'}, test {'averaged' if tested else 'plain'}",
               {"flip": trained}, flip=tested, training="mirrored" if trained else "as filmed",
               paper=PAPER[tested] if trained else {})


EXPERIMENT = Experiment("flip", "Mirrored clips in training and at test",
                        tuple(make_row(trained, tested) for trained in (False, True) for tested in (False, True)),
                        (P1, P2, VELOCITY))
main = command(EXPERIMENT)

if __name__ == "__main__":
    main()
