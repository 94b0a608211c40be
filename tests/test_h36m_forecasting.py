"""Human3.6M's forecasting protocol on generated files, with forward kinematics of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.spatial.transform import Rotation

from experiments.h36m_forecasting import constant_velocity, main, repeat_last_frame, score, through_17_joints
from lifting.datasets.h36m_expmap import (
    ACTIONS,
    COPIED,
    FIXED,
    H36M32,
    PREDICTED,
    complete_prediction,
    expmap_joints,
    read_expmaps,
    read_test_windows,
    rest_joints,
    window_starts,
)
from lifting.forecasters import Constant, ConstantVelocity
from lifting.metrics import joint_errors
from lifting.skeletons import get_skeleton

# As the evaluations of the literature number them, counted from 0.
USED = [2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19, 21, 22, 25, 26, 27, 29, 30]
IGNORED, EQUAL = [16, 20, 23, 24, 28, 31], [13, 19, 22, 13, 27, 30]


def smooth_angles(frames: int, seed: int) -> np.ndarray:
    """(T, 99) numbers of a file: slow, smooth motion of every joint, the global ones included."""
    rng = np.random.default_rng(seed)
    phase, speed, size = rng.uniform(0, 6, 99), rng.uniform(0.01, 0.05, 99), rng.uniform(0.1, 0.8, 99)
    return size * np.sin(phase + speed * np.arange(frames)[:, None])


def write_takes(folder, actions=ACTIONS, frames: int = 340) -> None:
    (folder / "S5").mkdir(exist_ok=True)
    for n, action in enumerate(actions):
        for take in (1, 2):
            values = smooth_angles(frames + 20 * take, 10 * n + take)
            np.savetxt(folder / "S5" / f"{action}_{take}.txt", values, delimiter=",", fmt="%.4f")


def independent_joints(values: np.ndarray) -> np.ndarray:
    """Slow twin: one frame (99,), row vectors and matrices multiplied from the child up, as the files are meant."""
    turns = [Rotation.from_rotvec(values[3 + 3 * k : 6 + 3 * k]).as_matrix() for k in range(32)]
    turns[0] = np.eye(3)
    rest, joints = rest_joints(), np.zeros((32, 3))
    for k in range(1, 32):
        child = k
        while (parent := H36M32.parents[child]) >= 0:
            bone, above = rest[child] - rest[parent], parent
            while above >= 0:
                bone, above = bone @ turns[above], H36M32.parents[above]
            joints[k], child = joints[k] + bone, parent
    return joints


def test_joints_are_those_of_independent_kinematics(tmp_path):
    values = smooth_angles(3, 0)
    np.savetxt(tmp_path / "walking_1.txt", values, delimiter=",")
    joints = expmap_joints(read_expmaps(tmp_path / "walking_1.txt"))
    np.testing.assert_allclose(joints, [independent_joints(frame) for frame in values], atol=1e-12)


def test_the_global_motion_does_not_count():
    values = smooth_angles(4, 1)
    moved = values.copy()
    moved[:, :6] += 1.7
    first, second = (expmap_joints(v[:, 3:].reshape(-1, 32, 3)) for v in (values, moved))
    np.testing.assert_array_equal(first, second)


def test_a_knee_that_bends_by_a_right_angle():
    """Row vectors: +90 degrees about x turns the shin from straight down to straight ahead of the thigh's end."""
    rotations = np.zeros((1, 32, 3))
    rotations[0, H36M32.index("right_knee"), 0] = np.pi / 2
    joints = expmap_joints(rotations)[0]
    shin = joints[H36M32.index("right_ankle")] - joints[H36M32.index("right_knee")]
    np.testing.assert_allclose(shin, [0, 0, 0.454206447], atol=1e-12)


def test_the_skeleton_is_that_of_subject_one():
    lengths = np.linalg.norm(rest_joints() - rest_joints()[list(H36M32.parents)], axis=-1)[1:]
    thigh, shin = (lengths[H36M32.index(f"left_{joint}") - 1] for joint in ("knee", "ankle"))
    assert thigh == pytest.approx(0.442894413) and shin == pytest.approx(0.45420659)
    assert lengths.max() < 0.46 and rest_joints()[0].tolist() == [0, 0, 0]
    # Left is +x, up +y, ahead +z.
    left, head, toe = (rest_joints()[H36M32.index(joint)] for joint in ("left_hip", "head", "left_toe_end"))
    assert left[0] > 0.1 and head[1] > 0.7 and toe[2] > 0.2


def test_joints_by_name_are_those_of_the_literature_by_number():
    assert list(H36M32.indices(PREDICTED)) == USED
    pairs = sorted(zip(H36M32.indices(COPIED), H36M32.indices(COPIED.values()), strict=True))
    assert pairs == sorted(zip(IGNORED, EQUAL, strict=True))
    assert list(H36M32.indices(FIXED)) == [0, 1, 6, 11]


def test_copies_lie_where_they_are_copied_from_and_fixed_joints_stay():
    joints = expmap_joints(smooth_angles(9, 2)[:, 3:].reshape(-1, 32, 3))
    np.testing.assert_allclose(joints[:, IGNORED], joints[:, EQUAL], atol=1e-12)
    fixed = list(H36M32.indices(FIXED))
    np.testing.assert_array_equal(joints[:, fixed], np.broadcast_to(joints[:1, fixed], (9, 4, 3)))
    moving = [joint for joint in range(32) if joint not in fixed]
    assert (np.ptp(joints[:, moving], axis=0).max(-1) > 1e-3).all()


def test_ignored_joints_err_like_their_neighbours_and_fixed_ones_do_not():
    truth = expmap_joints(smooth_angles(6, 3)[:, 3:].reshape(-1, 32, 3))
    prediction = truth + np.arange(32)[:, None] * np.array([0.0, 0.003, 0.004])
    errors = joint_errors(complete_prediction(prediction, truth), truth)
    expected = 0.005 * np.arange(32.0)
    expected[[0, 1, 6, 11]], expected[IGNORED] = 0, expected[EQUAL]
    np.testing.assert_allclose(errors, np.broadcast_to(expected, (6, 32)), atol=1e-9)
    np.testing.assert_array_equal(prediction[:, 16], truth[:, 16] + 16 * np.array([0.0, 0.003, 0.004]))  # left alone


def test_windows_take_turns_between_the_takes():
    """What the seed of the protocol gives, drawn here one after another; 8 windows are the first of 256."""
    rng = np.random.RandomState(1234567890)
    expected = [(rng.randint(16, 1234 - 150), rng.randint(16, 987 - 150)) for _ in range(128)]
    first, second = window_starts([1234, 987])
    np.testing.assert_array_equal(np.stack([first, second], -1), expected)
    np.testing.assert_array_equal(window_starts([1234, 987], 8), [first[:4], second[:4]])
    assert first.min() >= 16 and first.max() + 75 <= 1234


@pytest.mark.parametrize(("frames", "count"), [([166, 400], 8), ([400, 400], 7), ([400, 400], 0), ([400], 8)])
def test_takes_too_short_and_odd_counts_are_refused(frames, count):
    with pytest.raises(ValueError, match="expected an even number of two takes of more than 166 frames"):
        window_starts(frames, count)


def test_windows_are_every_second_frame_from_their_start(tmp_path):
    write_takes(tmp_path, ["eating"])
    windows = read_test_windows(tmp_path, "eating", 8)
    assert windows.shape == (8, 75, 32, 3)
    starts = window_starts([180, 190], 8)
    values = np.round(smooth_angles(380, 2), 4)
    for window, start in zip(windows[4:], starts[1], strict=True):
        np.testing.assert_allclose(window[50], independent_joints(values[2 * (start + 50)]), atol=1e-12)


BAD = [("1,2,3\n", "has 3 numbers a line"), ("1,b\n", "cannot be read as numbers"), ("1,2\n3\n", "cannot be read"),
       ("", "has 0 numbers a line"), (",".join(["nan"] * 99), "99 of all are not finite")]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD)
def test_bad_files_are_refused(tmp_path, content, message):
    (tmp_path / "walking_1.txt").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_expmaps(tmp_path / "walking_1.txt")
    assert "\n" not in str(caught.value)


def some_windows(count: int = 3) -> np.ndarray:
    return np.stack([expmap_joints(smooth_angles(75, seed)[:, 3:].reshape(-1, 32, 3)) for seed in range(count)])


def test_standing_still_errs_by_what_moves_until_the_horizon():
    windows = some_windows()
    frames = np.array([2, 4, 8, 10, 14, 18, 22, 25]) + 49
    expected = 1000 * joint_errors(windows[:, frames], np.repeat(windows[:, 49:50], 8, 1)).mean((0, 2))
    np.testing.assert_allclose(score(repeat_last_frame, windows), expected)


def test_even_motion_is_foretold_exactly():
    steps = np.arange(75)[:, None, None]
    windows = some_windows()[:, :1] + 0.001 * steps * np.random.default_rng(0).normal(size=(3, 1, 32, 3))
    # Copies move with their neighbours and fixed joints not at all, as in any real motion.
    windows = complete_prediction(windows, windows[:, :1])
    assert score(constant_velocity, windows).max() < 1e-9 < 1 < score(repeat_last_frame, windows).min()


def test_a_forecaster_of_17_joints_carries_the_others_along():
    windows = some_windows()
    np.testing.assert_allclose(score(through_17_joints(Constant()), windows), score(repeat_last_frame, windows),
                               rtol=1e-4)  # fmt: skip
    prediction = through_17_joints(ConstantVelocity())(windows[:, :50])
    expected = constant_velocity(windows[:, :50])
    wrist, hand = (H36M32.index(f"left_{joint}") for joint in ("wrist", "hand_base"))
    np.testing.assert_allclose(prediction[:, :, wrist], expected[:, :, wrist], atol=1e-4)
    apart = prediction[:, :, hand] - prediction[:, :, wrist]
    last = windows[:, 49, hand] - windows[:, 49, wrist]
    np.testing.assert_allclose(apart, np.repeat(last[:, None], 25, 1), atol=1e-4)


def test_forecasters_see_an_upright_person_who_is_not_mirrored():
    class Witness(Constant):
        def __call__(self, seen, frames):
            self.seen = seen
            return super().__call__(seen, frames)

    witness, windows = Witness(), np.broadcast_to(rest_joints(), (1, 75, 32, 3))
    through_17_joints(witness)(windows[:, :50])
    joints, skeleton = witness.seen.joints[0, -1], get_skeleton("h36m17")
    left, right, ankle, head = joints[list(skeleton.indices(["left_hip", "right_hip", "left_ankle", "head"]))]
    assert head[2] > 0.7 and ankle[2] < -0.8  # up is +z
    # At rest the toes point to where somebody faces whose left and up these are, and not behind them.
    np.testing.assert_allclose(np.cross(left - right, [0, 0, 1]), [0, -0.265897, 0], atol=1e-6)
    ahead = rest_joints()[H36M32.index("left_toe_end")] - rest_joints()[H36M32.index("left_ankle")]
    np.testing.assert_allclose([ahead[0], -ahead[2], ahead[1]], [0, -0.237767, 0], atol=1e-6)


def test_the_experiment_prints_ours_beside_the_papers(tmp_path):
    write_takes(tmp_path)
    path = tmp_path / "out.json"
    arguments = ["--data", str(tmp_path), "--windows", "2", "--forecaster", "constant_velocity", "--output", str(path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[1].startswith("repeat last frame") and lines[-1].split()[-4:] == ["9.6", "21.7", "46.3", "57.3"]
    found = json.loads(path.read_text())
    still = found["rows"]["repeat last frame"]
    assert set(still["actions"]) == set(ACTIONS)
    np.testing.assert_allclose(still["mean"], np.mean([*still["actions"].values()], 0))
    expected = score(repeat_last_frame, read_test_windows(tmp_path, "phoning", 2))
    np.testing.assert_allclose(still["actions"]["phoning"], expected)


def test_without_the_files_it_ends_with_one_sentence(tmp_path):
    result = CliRunner().invoke(main, ["--data", str(tmp_path)])
    assert result.exit_code == 2 and "there is no file" in result.output
    assert len(result.output.strip().splitlines()) == 1
