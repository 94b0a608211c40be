"""How much smoother a temporal model is: errors of velocity, single-frame against temporal (the paper's table 2).

    python -m experiments.velocity [--data data/mocap/mocap17.h5]

MPJVE is the mean error of the joints' velocities in mm per frame. Paper on Human3.6M, fine-tuned CPN: single-frame
11.6, temporal (243 frames) 2.8 mm per frame. Four trainings; 243 frames take an hour on one CPU core, ``--only single
--only "27 frames"`` leaves them out. Writes ``runs/paper/velocity.json`` and ``.md``.
"""

from __future__ import annotations

from collections.abc import Mapping

from experiments.fit_table import Row as Line
from experiments.paper_runs import DETECTED, P1, VELOCITY, Experiment, Row, Scores, command
from lifting.training.config import WIDTHS

PAPER = {1: {VELOCITY: 11.6}, 243: {VELOCITY: 2.8}}
FRAMES = (1, 27, 81, 243)


def name_of(frames: int) -> str:
    """The name of a row."""
    return "single frame" if frames == 1 else f"temporal, {frames} frames"


def claims(scores: Mapping[str, Scores]) -> list[Line]:
    """How many times the single-frame model's velocity error each temporal one's is lower."""
    single = scores.get(name_of(1))
    return [Line({"claim": f"single-frame MPJVE over that of {frames} frames",
                  "ours": single[VELOCITY] / scores[name_of(frames)][VELOCITY],
                  "paper": 11.6 / 2.8 if frames == 243 else None})
            for frames in FRAMES[1:] if single and name_of(frames) in scores]


EXPERIMENT = Experiment(
    "velocity", "Velocity error of single-frame and temporal models",
    tuple(Row(name_of(frames), {"widths": WIDTHS[frames]}, keypoints=DETECTED, flip=True, paper=PAPER.get(frames, {}))
          for frames in FRAMES), (P1, VELOCITY), claims=claims)  # fmt: skip
main = command(EXPERIMENT)

if __name__ == "__main__":
    main()
