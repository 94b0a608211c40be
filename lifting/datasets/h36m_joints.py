"""From the bones of CMU's skeletons to the 17 joints of Human3.6M.

Where CMU's markers and Human3.6M's differ, points are placed along or beside bones so that the lengths become those of
Human3.6M; shared by every reader of CMU motion, so that all of them agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lifting.datasets.feet import FEET, place_foot
from lifting.datasets.mocap import JOINTS, Z_UP_FROM_Y_UP

ENDS = (
    "lowerback upperback thorax upperneck head lhipjoint lfemur ltibia ltoes rhipjoint rfemur rtibia rtoes "
    "lclavicle lhumerus lradius lwrist rclavicle rhumerus rradius rwrist"
).split()
"""CMU bones whose end points are used."""
TURNS = ("thorax", "head", "lfoot", "ltoes", "rfoot", "rtoes")
"""CMU bones whose rotations are used."""

WRIST_ALONG_TWIST_BONE = 0.6
SPINE_ALONG_UPPERBACK = 0.15
THORAX_ALONG_LOWERNECK = 0.75
NOSE_UP_FORWARD = (0.1, 0.7)  # in lengths of the head bone
HEAD_BEYOND_END = 0.15


@dataclass(frozen=True, eq=False)
class BoneMotion:
    """The bones of one CMU subject over time: Y up, metres; in the rest pose the subject faces +Z.

    Attributes:
        ends: bone name -> (T, 3) end point, at least of `ENDS`.
        rotations: bone name -> (T, 3, 3) rotation from the rest pose to the world, at least of `TURNS`.
        rest: bone name -> (3,) vector from start to end in the rest pose, at least of `lowerneck`, `ltibia`, `rtibia`.
        fps: frames per second.
    """

    ends: dict[str, np.ndarray]
    rotations: dict[str, np.ndarray]
    rest: dict[str, np.ndarray]
    fps: float

    @property
    def num_frames(self) -> int:
        """Count the frames."""
        return len(next(iter(self.ends.values())))


def missing_bones(names: set[str]) -> list[str]:
    """List the bones that the 17 joints need and `names` lacks."""
    return sorted({*ENDS, *TURNS, "lowerneck"} - set(names))


def build_joints(bones: BoneMotion) -> np.ndarray:
    """Build the 17 joints.

    Returns:
        (T, 17, 3) float64 metres, skeleton `h36m17`, Z up; the height of the floor is not touched.
    """
    points = {**_trunk(bones), **_limbs(bones, "l"), **_limbs(bones, "r")}
    points["Hip"] = (points["LHip"] + points["RHip"]) / 2  # CMU's own root lies some 10 cm higher
    return np.stack([points[name] for name in JOINTS], axis=1) @ Z_UP_FROM_Y_UP.T.astype(float)


def _limbs(bones: BoneMotion, side: str) -> dict[str, np.ndarray]:
    ends = {name[1:]: end for name, end in bones.ends.items() if name[0] == side}
    prefix = side.upper()
    return {
        f"{prefix}Hip": ends["hipjoint"],
        f"{prefix}Knee": ends["femur"],
        f"{prefix}Foot": ends["tibia"],
        f"{prefix}Shoulder": ends["clavicle"],
        f"{prefix}Elbow": ends["humerus"],
        f"{prefix}Wrist": ends["radius"] + WRIST_ALONG_TWIST_BONE * (ends["wrist"] - ends["radius"]),
    }


def _trunk(bones: BoneMotion) -> dict[str, np.ndarray]:
    ends, head_turn = bones.ends, bones.rotations["head"]
    skull = ends["upperneck"]
    head = ends["head"] - skull
    up, forward = NOSE_UP_FORWARD
    length = np.linalg.norm(head, axis=-1, keepdims=True)
    return {
        "Spine": ends["lowerback"] + SPINE_ALONG_UPPERBACK * (ends["upperback"] - ends["lowerback"]),
        # Rigid with the chest: the neck's own turning must not move the thorax.
        "Thorax": ends["thorax"] + THORAX_ALONG_LOWERNECK * (bones.rotations["thorax"] @ bones.rest["lowerneck"]),
        "Nose": skull + length * (head_turn @ np.array([0.0, up, forward])),
        "Head": skull + (1 + HEAD_BEYOND_END) * head,
    }


def build_feet(bones: BoneMotion) -> np.ndarray:
    """Place toes and heels, (T, 4, 3) float64 metres in the order of `FEET`, Z up."""
    feet = np.empty((bones.num_frames, len(FEET), 3))
    for column, side in enumerate(("left", "right")):
        shin = bones.rest[f"{side[0]}tibia"]
        splay = float(np.arctan2(abs(shin[0]), abs(shin[1])))
        turns = (bones.rotations[f"{side[0]}{bone}"] for bone in ("foot", "toes"))
        points = place_foot(bones.ends[f"{side[0]}tibia"], float(np.linalg.norm(shin)), *turns, side, splay)
        feet[:, column], feet[:, column + 2] = points
    return feet @ Z_UP_FROM_Y_UP.T.astype(float)


def lowest_toe(bones: BoneMotion) -> float:
    """Find how low the ends of the toes come, metres: the floor, for motion on level ground."""
    return float(min(bones.ends[name][:, 1].min() for name in ("ltoes", "rtoes")))
