"""How near the body fit comes to the truth, for every kind of evidence of `experiments.fit_truth`.

Every case fits all windows of the val subjects. Means are over windows of equal length; meshes are compared in every
`MESH_STEP`-th frame. What was observed is scored too, where it was observed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from experiments.fit_table import Row, Target
from experiments.fit_truth import CAMERA, DETECTOR_LAYOUT, Evidence, Truth, evidence, place, read_windows
from lifting.body import BodyModel
from lifting.body.fit import fit_body
from lifting.body.report import BodyFit
from lifting.metrics import acceleration_error_m_s2, mpjpe, mpvpe, unposed_mesh_error

FRAMES = 243
MESH_STEP = 8
MOST_GROSS = 2.6  # times the error of white noise alone; 2 is aimed at
Window = tuple[str, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One row: a kind of evidence, the layout of its 2D points (None: no 2D), contacts or not, and its targets."""

    kind: str
    layout: str | None = DETECTOR_LAYOUT
    contacts: bool = False
    targets: Mapping[str, Target] = field(default_factory=dict)


EXACT = {"MPJPE mm": Target(0.5), "MPVPE mm": Target(6.5)}
WHITE = {"MPJPE mm": Target(6.0), "MPVPE mm": Target(16.0), "acceleration m/s^2": Target(5.0)}
CASES = (
    Case("exact", targets=EXACT),
    Case("exact", "coco17_feet", targets=EXACT),
    Case("white", targets=WHITE),
    Case("white", "coco17_feet", targets=WHITE),
    Case("white", contacts=True, targets=WHITE),
    Case("correlated", targets={"reduced %": Target(70.0, at_most=False)}),
    Case("correlated", None, targets={"reduced %": Target(45.0, at_most=False)}),
    Case("gross", targets={"MPJPE / white's": Target(MOST_GROSS), "seconds": Target(3.0)}),
)


def sample_windows(path: str, every: int = 1) -> list[Window]:
    """Every so-many-th window of `FRAMES` frames of the val subjects."""
    return list(read_windows(path, FRAMES))[::every]


def accuracy(windows: Sequence[Window], body: BodyModel, cases: Sequence[Case] = CASES) -> list[Row]:
    """One row for each case. The ratio of the gross case needs the white one before it."""
    rows, clean = [], None
    for case in cases:
        scores = [_score_window(window, body, case) for window in tqdm(windows, desc=case.kind, disable=None)]
        values = {name: _mean([score[name] for score in scores]) for name in scores[0] if name != "window"}
        if case.kind == "correlated":
            values["reduced %"] = 100 * (1 - values["MPJPE mm"] / values["observed mm"])
        if case.kind == "white" and clean is None:
            clean = values["MPJPE mm"]
        if case.kind == "gross" and clean is not None:
            values["MPJPE / white's"] = values["MPJPE mm"] / clean
        names = {"evidence": case.kind, "2D": case.layout or "none", "contacts": case.contacts}
        targets = {name: target for name, target in case.targets.items() if name in values}
        rows.append(Row(names | values, targets, scores))
    return rows


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _score_window(window: Window, body: BodyModel, case: Case) -> dict[str, float | str]:
    truth = place(window[0], body, *window[1:], layout=case.layout or DETECTOR_LAYOUT)
    given = evidence(truth, case.kind, case.layout is not None)
    began = time.perf_counter()
    fit = fit_truth_evidence(given, body, case.contacts)
    seconds = time.perf_counter() - began
    observed = given.motion.absolute
    return {
        "window": truth.name,
        "observed mm": 1000 * mpjpe(observed, truth.joints, missing="skip"),
        "observed relative mm": 1000 * mpjpe(from_root(observed), from_root(truth.joints), missing="skip"),
        **errors(truth, fit),
        "seconds": seconds,
    }


def fit_truth_evidence(given: Evidence, body: BodyModel, contacts: bool, **options: object) -> BodyFit:
    """The fit of made evidence, with the truth's camera where there are 2D points."""
    camera = None if given.keypoints is None else CAMERA
    return fit_body(given.motion, keypoints=given.keypoints, camera=camera, body=body, contacts=contacts, **options)


def errors(truth: Truth, fit: BodyFit) -> dict[str, float]:
    """Errors of a fitted body against the truth, by column: joints, meshes, acceleration, stature."""
    found, true, body = fit.motion, truth.body_motion, truth.body
    joints = fit.joints.absolute
    mesh = body.vertices(found.rotations[::MESH_STEP], found.trajectory[::MESH_STEP], found.shape)
    unposed = unposed_mesh_error(body.rest_vertices(found.shape), body.rest_vertices(true.shape))
    return {
        "MPJPE mm": 1000 * mpjpe(joints, truth.joints),
        "relative mm": 1000 * mpjpe(from_root(joints), from_root(truth.joints)),
        "MPVPE mm": 1000 * mpvpe(mesh, truth.vertices(MESH_STEP)),
        "unposed mm": 1000 * unposed,
        "acceleration m/s^2": acceleration_error_m_s2(joints, truth.joints, found.fps),
        "stature mm": 1000 * abs(body.stature(found.shape) - body.stature(true.shape)),
    }


def from_root(joints: np.ndarray) -> np.ndarray:
    """Joints (T, J, 3) relative to the first of them."""
    return joints - joints[:, :1]
