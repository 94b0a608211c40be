"""What unlabelled video is worth: the paper's figure 5, supervised against semi-supervised on small label budgets.

    python -m experiments.semi_supervised [--data data/mocap/mocap17.h5] [--only "gt 1%"] [--shard 1/2]

Labels are a share of subject S1's frames (`lifting.datasets.budgets`), all other training subjects are unlabelled. The
receptive field is the paper's for each budget: 1 frame at 0.1 %, 9 at 1 %, else 27; warm-up 20 of 200 epochs, for all
of S1 one. Paper, Protocol 1 on Human3.6M at 50 fps, mm, read off figure 5 b and c:

| labels | detected 2D: supervised | semi | true 2D: supervised | semi |
|---|---|---|---|---|
| 0.1% S1 | 114.4 | 102.2 | 106.2 | 90.8 |
| 1% S1 | 106.0 | 91.3 | 100.7 | 78.1 (without bone term 91.3) |
| 5% S1 | 96.6 | 84.5 | 89.7 | 72.5 |
| 10% S1 | 88.3 | 78.1 | 80.7 | 65.2 |
| 50% S1 | 73.2 | 67.3 | 63.0 | 53.9 |
| S1 | 67.6 | 64.7 | 55.7 | 49.7 |
| all five | 49.0 | | 39.0 | |

Writes ``runs/paper/semi_supervised.json`` and ``.md``. 41 trainings. "Bones of each frame" is ours: `--bones each`.
"""

from __future__ import annotations

from collections.abc import Mapping

from experiments.fit_table import Row as Line
from experiments.fit_table import Target
from experiments.paper_runs import DETECTED, P1, REDUCED, Experiment, Fields, Row, Scores, command
from lifting.training.config import WIDTHS, Terms

SCHEDULE: Fields = dict(epochs=200, decay=0.98)
RECIPES = {"reduced": {**SCHEDULE, **REDUCED}, "paper": {**SCHEDULE, "batch": 64}}
BUDGETS = ("0.1%S1", "1%S1", "5%S1", "10%S1", "50%S1", "S1")
FRAMES = {"0.1%S1": 1, "1%S1": 9}
PAPER = {
    "gt": {"0.1%S1": (106.2, 90.8), "1%S1": (100.7, 78.1), "5%S1": (89.7, 72.5), "10%S1": (80.7, 65.2),
           "50%S1": (63.0, 53.9), "S1": (55.7, 49.7)},
    DETECTED: {"0.1%S1": (114.4, 102.2), "1%S1": (106.0, 91.3), "5%S1": (96.6, 84.5), "10%S1": (88.3, 78.1),
               "50%S1": (73.2, 67.3), "S1": (67.6, 64.7)},
}  # fmt: skip
PAPER_ALL = {"gt": 39.0, DETECTED: 49.0}
PAPER_WITHOUT_BONES = 91.3  # at 1 % of S1, true 2D
SUPERVISED, SEMI, NO_BONES, NO_PROJECTION = "supervised", "semi", "semi without bones", "semi without projection"
EACH_BONE = "semi, bones of each frame"


def name_of(keypoints: str, budget: str, method: str) -> str:
    """The name of a row, such as ``gt 1%S1 semi``."""
    return f"{keypoints} {budget} {method}"


def methods_of(keypoints: str, budget: str) -> tuple[str, ...]:
    """What is compared at a budget: the terms of the loss mostly with true keypoints, each alone at 1 % of S1."""
    if budget == "1%S1":
        return (SUPERVISED, SEMI, EACH_BONE, NO_BONES, NO_PROJECTION)
    each = (EACH_BONE,) if budget in ("5%S1", "10%S1") else ()
    return (SUPERVISED, SEMI, *each, NO_BONES) if keypoints == "gt" else (SUPERVISED, SEMI, *each)


def make_row(keypoints: str, budget: str, method: str) -> Row:
    """The row of a method at a label budget."""
    changes = {
        "widths": WIDTHS[FRAMES.get(budget, 27)], "warmup": 20 if "%" in budget else 1,
        "trajectory": method != SUPERVISED,
        "terms": Terms(projection=method != NO_PROJECTION, bones=method != NO_BONES,
                       bone_norm="each" if method == EACH_BONE else "absolute"),
    }  # fmt: skip
    paper = paper_error(keypoints, budget, method)
    return Row(name_of(keypoints, budget, method), changes, budget, method != SUPERVISED, keypoints,
               paper={} if paper is None else {P1: paper})


def paper_error(keypoints: str, budget: str, method: str) -> float | None:
    """Protocol 1 in mm as the paper has it."""
    if (keypoints, budget, method) == ("gt", "1%S1", NO_BONES):
        return PAPER_WITHOUT_BONES
    if budget == "all":
        return PAPER_ALL[keypoints]
    return dict(zip((SUPERVISED, SEMI), PAPER[keypoints][budget], strict=True)).get(method)


def rows_of(keypoints: str) -> list[Row]:
    """All rows with one kind of 2D keypoints."""
    rows = [make_row(keypoints, budget, method) for budget in BUDGETS for method in methods_of(keypoints, budget)]
    return [*rows, make_row(keypoints, "all", SUPERVISED)]


def reductions(scores: Mapping[str, Scores]) -> list[Line]:
    """By how much semi-supervised training lowers the error, in percent, where both rows are there."""
    lines = []
    for keypoints, targets in (("gt", {"1%S1": 22.0}), (DETECTED, {"1%S1": 10.0, "5%S1": 10.0, "10%S1": 10.0})):
        for budget in BUDGETS:
            errors = [scores.get(name_of(keypoints, budget, method)) for method in (SUPERVISED, SEMI)]
            if None in errors:
                continue
            supervised, semi = (error[P1] for error in errors)
            theirs, target = PAPER[keypoints][budget], targets.get(budget, None if budget == "S1" else 0.0)
            each = scores.get(name_of(keypoints, budget, EACH_BONE))
            if each is not None:
                lines.append(Line({"claim": f"{keypoints} {budget}: {EACH_BONE}, below supervised by %",
                                   "ours": 100 * (1 - each[P1] / supervised), "paper": None}, {}))
            lines.append(Line({"claim": f"{keypoints} {budget}: semi below supervised by %",
                               "ours": 100 * (1 - semi / supervised), "paper": 100 * (1 - theirs[1] / theirs[0])},
                              {} if target is None else {"ours": Target(target, at_most=False)}))
    return lines


def falls_with_budget(scores: Mapping[str, Scores]) -> list[Line]:
    """The least step in mm by which the error falls from one of 1, 5, 10, 100 % to the next, where all are there."""
    lines = []
    for keypoints in PAPER:
        for column, method in enumerate((SUPERVISED, SEMI)):
            budgets = [b for b in BUDGETS if b not in ("0.1%S1", "50%S1")]
            errors = [scores.get(name_of(keypoints, budget, method)) for budget in budgets]
            if None in errors:
                continue
            theirs = [PAPER[keypoints][budget][column] for budget in budgets]
            lines.append(Line({"claim": f"{keypoints} {method}: error falls from budget to budget by at least mm",
                               "ours": _least_fall([error[P1] for error in errors]), "paper": _least_fall(theirs)},
                              {"ours": Target(0.0, at_most=False)}))
    return lines


def without_terms(scores: Mapping[str, Scores]) -> list[Line]:
    """By how much the error at 1 % of S1 with true 2D grows without a term, in percent."""
    full, lines = scores.get(name_of("gt", "1%S1", SEMI)), []
    for method, theirs in ((NO_BONES, 100 * (PAPER_WITHOUT_BONES / 78.1 - 1)), (NO_PROJECTION, None)):
        less = scores.get(name_of("gt", "1%S1", method))
        if full is not None and less is not None:
            lines.append(Line({"claim": f"gt 1%S1: {method} is worse than semi by %",
                               "ours": 100 * (less[P1] / full[P1] - 1), "paper": theirs},
                              {"ours": Target(0.0, at_most=False)}))
    return lines


def claims(scores: Mapping[str, Scores]) -> list[Line]:
    """All that the finished rows can say, with targets."""
    return [*reductions(scores), *falls_with_budget(scores), *without_terms(scores)]


def _least_fall(errors: list[float]) -> float:
    return min(before - after for before, after in zip(errors, errors[1:], strict=False))


EXPERIMENT = Experiment(
    "semi_supervised", "Semi-supervised training on small label budgets (the paper's figure 5)",
    (*rows_of("gt"), *rows_of(DETECTED)), recipes=RECIPES, claims=claims)  # fmt: skip
main = command(EXPERIMENT)

if __name__ == "__main__":
    main()
