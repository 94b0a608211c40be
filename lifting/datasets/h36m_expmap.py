"""Human3.6M as exponential maps, and the protocol by which its short and long term forecasting is measured.

The files that the forecasting literature shares since Jain et al. (Structural-RNN, CVPR 2016): `S5/walking_1.txt`, one
frame a line at 50 frames per second, 99 numbers: the root's place and then the rotation vectors of 32 joints, of which
the first is the root's. The skeleton is that of subject 1 for everybody.

The protocol (Mao et al., ICCV 2019; siMLPe, Guo et al., WACV 2023): global rotation and translation set to zero, every
second frame, 50 frames seen and 25 predicted, random windows of subject 5 from either take of 15 actions, mean distance
of all 32 joints AT each horizon (`lifting.forecast_metrics.HORIZONS_MS`). Only 22 joints are predicted: six others lie
where a neighbour lies and are copied from it, four never move; all ten are counted. Skeleton, conventions and the seed
of the windows are as the public evaluations have them, written down without the files at hand to check them with.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lifting.meshes import forward_kinematics
from lifting.rotations import rotvec_to_matrix
from lifting.skeletons import get_skeleton

H36M32 = get_skeleton("h36m32")
FILE_FPS, PROTOCOL_FPS = 50.0, 25.0
PAST, FUTURE = 50, 25  # frames at `PROTOCOL_FPS`
TEST_SUBJECT = "S5"
ACTIONS = tuple(
    "walking eating smoking discussion directions greeting phoning posing purchases sitting sittingdown takingphoto "
    "waiting walkingdog walkingtogether".split()
)
TAKES = (1, 2)
WINDOWS_SEED = 1234567890  # of the Structural-RNN evaluation, kept by all that followed
_FIRST_FRAME, _FRAMES_AFTER = 16, 150  # windows start within [16, frames - 150)

COPIED = {
    "left_collar": "thorax", "right_collar": "thorax", "left_thumb_base": "left_wrist",
    "right_thumb_base": "right_wrist", "left_hand_end": "left_hand_base", "right_hand_end": "right_hand_base",
}  # fmt: skip
"""Joints that are not predicted -> those in whose place they lie."""
FIXED = ("hip", "right_hip", "left_hip", "spine_base")
"""Joints that do not move without the global rotation."""
PREDICTED = tuple(joint for joint in H36M32.joints if joint not in COPIED and joint not in FIXED)

# From the parent, millimetres, in the rest pose: +x to the person's left, +y up, +z ahead.
_OFFSETS = {
    "right_hip": (-132.948591, 0, 0), "right_knee": (0, -442.894612, 0), "right_ankle": (0, -454.206447, 0),
    "right_toe_base": (0, 0, 162.767078), "right_toe_end": (0, 0, 74.999437),
    "left_hip": (132.948826, 0, 0), "left_knee": (0, -442.894413, 0), "left_ankle": (0, -454.206590, 0),
    "left_toe_base": (0, 0, 162.767426), "left_toe_end": (0, 0, 74.999948),
    "spine_base": (0, 0.1, 0), "spine": (0, 233.383263, 0), "thorax": (0, 257.077681, 0),
    "neck_nose": (0, 121.134938, 0), "head": (0, 115.002227, 0),
    "left_collar": (0, 257.077681, 0), "left_shoulder": (0, 151.034226, 0), "left_elbow": (0, 278.882773, 0),
    "left_wrist": (0, 251.733451, 0), "left_thumb_end": (0, 0, 99.999627), "left_hand_base": (0, 100.000188, 0),
    "right_collar": (0, 257.077681, 0), "right_shoulder": (0, 151.031437, 0), "right_elbow": (0, 278.892924, 0),
    "right_wrist": (0, 251.728680, 0), "right_thumb_end": (0, 0, 99.999888), "right_hand_base": (0, 137.499922, 0),
}  # fmt: skip


def read_expmaps(path: str | Path) -> np.ndarray:
    """The rotation vectors (T, 32, 3) in radians of one file, at 50 frames per second; the root's place is left out.

    Raises FileNotFoundError, and ValueError for a file that is not lines of 99 finite numbers between commas.
    """
    path, width = Path(path), 3 + 3 * H36M32.num_joints
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}, expected Human3.6M exponential maps such as S5/walking_1.txt"
                                "; they are shared with the code of forecasting papers.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file, which is refused below
            values = np.atleast_2d(np.loadtxt(path, delimiter=",", dtype=np.float64))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as numbers between commas: {str(error).rstrip('.')}; expected "
                         f"{width} of them a line.") from error
    if values.shape[1] != width or not np.isfinite(values).all():
        raise ValueError(f"{path} has {values.shape[1]} numbers a line, {np.sum(~np.isfinite(values))} of all are not "
                         f"finite, expected {width} a line: the root's place and {H36M32.num_joints} rotation vectors.")
    return values[:, 3:].reshape(len(values), -1, 3)


def rest_joints() -> np.ndarray:
    """The joints (32, 3) of the skeleton at rest in metres, the root at the origin, +y up."""
    joints = np.zeros((H36M32.num_joints, 3))
    for k, (joint, parent) in enumerate(zip(H36M32.joints, H36M32.parents, strict=True)):
        if parent >= 0:
            joints[k] = joints[parent] + np.array(_OFFSETS.get(joint, (0, 0, 0))) / 1000.0
    return joints


def expmap_joints(rotations: np.ndarray) -> np.ndarray:
    """The joints (T, 32, 3) in metres of rotation vectors (T, 32, 3), with the root's rotation and place set to zero.

    The files' rotations act on row vectors: as everywhere else here they are those of the negated vectors.
    """
    local = rotvec_to_matrix(-np.asarray(rotations, dtype=np.float64))
    local[:, 0] = np.eye(3)
    return forward_kinematics(local, np.zeros((len(local), 3)), rest_joints(), H36M32.parents)[1]


def window_starts(frames: Sequence[int], count: int = 256) -> list[np.ndarray]:
    """First frames of the protocol's windows in the two takes of an action, (count / 2,) each.

    frames: of the takes at 25 frames per second. Draws take turns, from numpy's old generator with the seed that is
    used since Structural-RNN; the windows of 8 are the first of those of 256. Raises ValueError for an odd count and
    takes that are too short.
    """
    if count < 2 or count % 2 or len(frames) != 2 or min(frames) <= _FIRST_FRAME + _FRAMES_AFTER:
        raise ValueError(f"got {count} windows of takes with {', '.join(map(str, frames))} frames, expected an even "
                         f"number of two takes of more than {_FIRST_FRAME + _FRAMES_AFTER} frames each at 25 frames/s.")
    rng = np.random.RandomState(WINDOWS_SEED)
    starts = [[rng.randint(_FIRST_FRAME, n - _FRAMES_AFTER) for n in frames] for _ in range(count // 2)]
    return list(np.array(starts).T)


def read_test_windows(folder: str | Path, action: str, count: int = 256) -> np.ndarray:
    """The windows (count, 75, 32, 3) of an action of the test subject in metres, half of them from either take.

    folder: the one with `S5/walking_1.txt`. The first 50 frames are seen, the last 25 are to be predicted. Raises
    FileNotFoundError and ValueError as `read_expmaps` and `window_starts`.
    """
    step = round(FILE_FPS / PROTOCOL_FPS)
    paths = [Path(folder) / TEST_SUBJECT / f"{action}_{take}.txt" for take in TAKES]
    takes = [expmap_joints(read_expmaps(path)[::step]) for path in paths]
    starts = window_starts([len(take) for take in takes], count)
    windows = [take[start : start + PAST + FUTURE] for take, some in zip(takes, starts, strict=True) for start in some]
    return np.stack(windows)


def complete_prediction(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A prediction (..., 32, 3) with what the protocol does not predict: copies of neighbours, and fixed joints."""
    columns, sources, fixed = (list(H36M32.indices(names)) for names in (COPIED, COPIED.values(), FIXED))
    completed = np.array(prediction, dtype=np.float64)
    completed[..., columns, :] = completed[..., sources, :]
    completed[..., fixed, :] = np.asarray(truth)[..., fixed, :]
    return completed
