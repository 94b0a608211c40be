"""HumanEva-I, trained on one action or on three together.

    python -m experiments.humaneva --data data/humaneva [--detected detectron_pt_coco]

Needs the files `data_2d_humaneva15_*.npz` and `data_3d_humaneva15.npz` with the cameras (a registration;
`lifting.datasets.opening` says how to get them); without them it ends with one sentence and exit code 2. Protocol 2
over the actions Walking, Jog and Box of the subjects S1, S2 and S3, with flip. The released model, trained on all
three, reaches 33.0 mm with Mask R-CNN keypoints. Writes ``runs/paper/humaneva.json`` and ``.md``.
"""

from __future__ import annotations

from experiments.paper_runs import DETECTED, P1, P2, REDUCED, Experiment, Row, command

ACTIONS = ("Walk", "Jog", "Box")
LONG = dict(epochs=1000, decay=0.996, batch=128, trajectory=False)
RECIPES = {"reduced": {**LONG, **REDUCED}, "paper": LONG}
PAPER = {P2: 33.0}

EXPERIMENT = Experiment(
    "humaneva", "HumanEva-I: one action or three",
    (*(Row(f"{action} alone", actions=(action,), keypoints=DETECTED, flip=True) for action in ACTIONS),
     Row("all three", actions=ACTIONS, keypoints=DETECTED, flip=True, paper=PAPER)),
    (P1, P2), RECIPES)  # fmt: skip
main = command(EXPERIMENT, data="data/humaneva", detected="detectron_pt_coco")

if __name__ == "__main__":
    main()
