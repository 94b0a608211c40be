"""What a body fit does to lifts of the lifters' own benchmark: real joints of val subjects in their own bodies.

Every so many views of `experiments.protocol`, set ``standard``, are lifted by the default weights with the known camera
and fitted. The 2D points are the capture's own joints, so that they are given to the fit in the layout ``h36m17``. Here
truth is the capture's joints; stature is that of `lifting.anatomy.stature`, from bone lengths, on both sides.
"""

from __future__ import annotations

import numpy as np
from tqdm import tqdm

from experiments.fit_table import Row, Target
from experiments.protocol import CAMERA, benchmark_pieces, views
from lifting.anatomy import H36M, stature
from lifting.body import BodyModel
from lifting.body.fit import fit_body
from lifting.keypoints import Keypoints2D
from lifting.metrics import acceleration_error_m_s2, mpjpe, mpjve, p_mpjpe, root_error_share_of_depth
from lifting.motion import Motion
from lifting.predict import default_lifter

FRAMES = (60, 400)  # shorter pieces are left out, longer ones cut
STEP = 7  # coprime to the four views of a piece


def protocol_lifts(mocap: str, body: BodyModel, every: int = 1) -> list[Row]:
    """Rows of the lift and its fits, without and with contacts and known stature; means over views."""
    least, most = FRAMES
    chosen = [view for view in list(views(benchmark_pieces(mocap, "standard"), "standard"))[:: STEP * every]
              if len(view.keypoints) >= least]  # fmt: skip
    scores: dict[tuple[str, str], list[dict[str, float]]] = {}
    for view in tqdm(chosen, desc="protocol", disable=None):
        keypoints, truth = view.keypoints.slice(0, most), view.truth.slice(0, most)
        for height in (None, stature(truth.joints)):
            lift = default_lifter().predict(keypoints, CAMERA, height=height)
            stages = {"lift": lift}
            for contacts in (False, True):
                found = fit_body(lift, keypoints=as_h36m(keypoints), camera=CAMERA, body=body, height=height,
                                 contacts=contacts)  # fmt: skip
                stages["fit with contacts" if contacts else "fit"] = found.joints
            for stage, motion in stages.items():
                known = "no" if height is None else "yes"
                scores.setdefault((stage, known), []).append(_score(truth, motion))
    means = {case: {name: float(np.mean([score[name] for score in found])) for name in found[0]}
             for case, found in scores.items()}  # fmt: skip
    return [_row(stage, known, len(scores[stage, known]), values, means["lift", known])
            for (stage, known), values in means.items()]  # fmt: skip


def _row(stage: str, known: str, count: int, values: dict[str, float], lift: dict[str, float]) -> Row:
    targets = {}
    if stage != "lift":  # the fit must not cost accuracy
        targets = {name: Target(lift[name]) for name in ("MPJPE mm", "acceleration m/s^2")}
        targets |= {"stature mm": Target(40.0)}
    return Row({"stage": stage, "height known": known, "views": count} | values, targets)


def as_h36m(keypoints: Keypoints2D) -> Keypoints2D:
    """The protocol's thirteen joints in the layout ``h36m17``, whose joints they are: its ``nose`` is ``neck_nose``."""
    xy = np.full((len(keypoints), H36M.num_joints, 2), np.nan)
    score = np.zeros((len(keypoints), H36M.num_joints))
    for column, name in enumerate(keypoints.skeleton.joints):
        name = "neck_nose" if name == "nose" else name
        if name in H36M.joints:
            xy[:, H36M.index(name)], score[:, H36M.index(name)] = keypoints.xy[:, column], keypoints.score[:, column]
    return Keypoints2D(xy, score, H36M, keypoints.image_size, keypoints.fps)


def _score(truth: Motion, motion: Motion) -> dict[str, float]:
    return {
        "MPJPE mm": 1000 * mpjpe(motion.joints, truth.joints),
        "P-MPJPE mm": 1000 * p_mpjpe(motion.joints, truth.joints),
        "MPJVE mm/frame": 1000 * mpjve(motion.joints, truth.joints),
        "acceleration m/s^2": acceleration_error_m_s2(motion.absolute, truth.absolute, truth.fps),
        "root %": 100 * root_error_share_of_depth(motion.trajectory, truth.trajectory),
        "stature mm": 1000 * abs(stature(motion.joints) - stature(truth.joints)),
    }
