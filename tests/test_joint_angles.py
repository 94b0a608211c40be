"""Joint angles of figures posed by hand, against Euler angles of scipy, and of bodies against their joints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifted_takes import TO_CAMERA, motion_of, walking_joints
from scipy.spatial.transform import Rotation

from lifting.joint_angles import ANGLES, DECOMPOSE, UNOBSERVED, body_angles, joint_angles
from lifting.meshes import SkinnedMesh
from lifting.motion import Motion
from lifting.skeletons import get_skeleton

H36M = get_skeleton("h36m17")
LEFT, FORWARD, UP = np.array([-1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, 0, 1.0])  # of the walker


def standing() -> np.ndarray:
    """(1, 17, 3) somebody who stands straight, arms down, and faces +Y."""
    joints = walking_joints(frames=1)
    for side in ("left", "right"):
        for start, chain in (("hip", ("knee", "ankle")), ("shoulder", ("elbow", "wrist"))):
            above = joints[0, H36M.index(f"{side}_{start}")]
            for number, name in enumerate(chain, 1):
                joints[0, H36M.index(f"{side}_{name}")] = above - [0, 0, 0.4 * number]
    joints[0, H36M.index("head")] = joints[0, H36M.index("thorax")] + [0, 0, 0.25]
    return joints


def posed(**directions: tuple) -> np.ndarray:
    """Somebody who stands, but for bones that end in the named joints and point elsewhere, the chain carried along."""
    joints = standing()
    for name, direction in directions.items():
        joint = H36M.index(name)
        move = joints[0, H36M.parents[joint]] + 0.4 * np.array(direction) / np.linalg.norm(direction) - joints[0, joint]
        for child in carried(joint):
            joints[0, child] += move
    return joints


def carried(joint: int) -> list[int]:
    return [joint, *(below for child, parent in enumerate(H36M.parents) if parent == joint for below in carried(child))]


def degrees(joints: np.ndarray, name: str, opensim: bool = False) -> float:
    return float(np.degrees(joint_angles(motion_of(joints), opensim=opensim)[name][0]))


def test_standing_straight_all_angles_are_zero():
    angles = joint_angles(motion_of(standing()))
    for name in angles.names:
        if "plane" in name or "axial" in name or name == "pelvis_rotation":
            continue  # no plane of elevation for an arm that hangs; the rotation counts from +X
        assert np.degrees(angles[name][0]) == pytest.approx(0, abs=1e-3), name
    assert np.degrees(angles["pelvis_rotation"][0]) == pytest.approx(90)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("joint", "direction", "angle", "expected"), [
    ("knee", FORWARD - UP, "hip_flexion", 45), ("knee", -FORWARD - 3**0.5 * UP, "hip_flexion", -30),
    ("knee", "outwards", "hip_adduction", -45), ("ankle", -FORWARD - UP, "knee_flexion", 45),
    ("ankle", -FORWARD, "knee_flexion", 90), ("wrist", FORWARD, "elbow_flexion", 90),
    ("elbow", "outwards", "shoulder_elevation", 45), ("elbow", "outwards", "shoulder_plane_of_elevation", 0),
    ("elbow", FORWARD, "shoulder_elevation", 90), ("elbow", FORWARD, "shoulder_plane_of_elevation", 90),
    ("elbow", -FORWARD - UP, "shoulder_plane_of_elevation", -90), ("elbow", UP + 1e-3 * FORWARD, "shoulder_elevation",
                                                                   180),
])
def test_one_bone_moved_gives_the_angle_of_the_textbook(side, joint, direction, angle, expected):
    if isinstance(direction, str):
        direction = (LEFT if side == "left" else -LEFT) - UP
    assert degrees(posed(**{f"{side}_{joint}": direction}), f"{side}_{angle}") == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("side", ["left", "right"])
def test_turning_a_bent_leg_or_arm_inwards_is_internal_rotation(side):
    inwards = -LEFT if side == "left" else LEFT
    # Shank to the back and outwards: the thigh is turned inwards.
    knee = posed(**{f"{side}_ankle": -FORWARD - np.tan(np.radians(20)) * inwards})
    assert degrees(knee, f"{side}_hip_internal_rotation") == pytest.approx(20, abs=0.1)
    assert degrees(knee, f"hip_rotation_{side[0]}", opensim=True) == pytest.approx(20, abs=0.1)
    arm = posed(**{f"{side}_wrist": FORWARD + np.tan(np.radians(25)) * inwards})
    assert degrees(arm, f"arm_rot_{side[0]}", opensim=True) == pytest.approx(25, abs=0.1)


def test_axial_rotation_is_unknown_while_the_limb_is_straight():
    straight, bent = posed(left_ankle=-0.3 * FORWARD - UP), posed(left_ankle=-0.5 * FORWARD - UP)  # 16.7, 26.6 degrees
    both = np.concatenate([straight, bent])
    angles = joint_angles(motion_of(both))["left_hip_internal_rotation"]
    assert np.isnan(angles[0]) and angles[1] == pytest.approx(0, abs=1e-6)
    assert "left_hip_internal_rotation" not in joint_angles(motion_of(standing())).names


def test_trunk_and_neck():
    lean = Rotation.from_euler("X", -30, degrees=True)  # about the person's right-left axis, forward
    joints = standing()
    spine = joints[0, H36M.index("spine")]
    upper = carried(H36M.index("thorax"))
    joints[0, upper] = spine + lean.apply(joints[0, upper] - spine)
    assert degrees(joints, "trunk_flexion") == pytest.approx(30, abs=0.01)
    assert degrees(joints, "lumbar_extension", opensim=True) == pytest.approx(-30, abs=0.01)
    assert degrees(joints, "trunk_rotation") == pytest.approx(0, abs=0.01)
    nod = posed(head=UP)
    nod[0, H36M.index("head")] = nod[0, H36M.index("thorax")] + [0.0, 0.1, 0.1]
    assert degrees(nod, "neck_flexion") == pytest.approx(45, abs=0.01)


@settings(max_examples=10, deadline=None)
@given(st.tuples(*[st.floats(-170, 170)] * 2, st.floats(-80, 80)))
def test_the_pelvis_turns_as_scipy_says(angles):
    joints = standing()
    root = joints[:, :1]
    turn = Rotation.from_euler("ZXY", [angles[0], angles[2], 10], degrees=True)
    joints = root + turn.apply((joints - root)[0])[None]
    # Columns of the pelvis's axes in the frame: x forward, y up, z right; the frame turned to y up.
    upright = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    axes = upright @ turn.as_matrix() @ np.stack([FORWARD, UP, -LEFT], axis=-1)
    motion = motion_of(joints)
    expected = Rotation.from_matrix(axes).as_euler("YXZ")
    for value, name in zip(expected, ("pelvis_rotation", "pelvis_obliquity", "pelvis_tilt"), strict=True):
        assert joint_angles(motion)[name][0] == pytest.approx(value, abs=1e-5)
    expected = Rotation.from_matrix(axes).as_euler("ZXY")
    for value, name in zip(expected, ("pelvis_tilt", "pelvis_list", "pelvis_rotation"), strict=True):
        assert joint_angles(motion, opensim=True)[name][0] == pytest.approx(value, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["ZXY", "YXZ", "YXY"]), st.tuples(*[st.floats(-3, 3)] * 3))
def test_decompositions_give_the_rotation_back(sequence, angles):
    matrix = Rotation.from_euler(sequence, angles).as_matrix()
    found = np.stack(DECOMPOSE[sequence](matrix[None]), axis=-1)
    np.testing.assert_allclose(Rotation.from_euler(sequence, found[0]).as_matrix(), matrix, atol=1e-7)


def test_frames_do_not_change_angles_between_segments():
    joints = walking_joints(frames=20)
    world = joint_angles(motion_of(joints))
    camera = joint_angles(motion_of((joints - [0, 0, 1.5]) @ TO_CAMERA.T, "camera"))
    assert world.names == camera.names
    np.testing.assert_allclose(world.values[:, 3:], camera.values[:, 3:], atol=1e-4)


def test_turning_round_does_not_jump():
    time = np.linspace(0, 4 * np.pi, 200)
    joints = np.stack([Rotation.from_euler("Z", angle).apply(standing()[0]) for angle in time])
    rotation = joint_angles(motion_of(joints))["pelvis_rotation"]
    np.testing.assert_allclose(rotation - rotation[0], time, atol=1e-5)


def test_absence_is_nan_and_the_rest_is_not():
    joints = np.concatenate([np.full((2, 17, 3), np.nan), walking_joints(frames=5)])
    angles = joint_angles(motion_of(joints))
    assert np.isnan(angles.values[:2]).all()
    assert np.isfinite(angles["right_knee_flexion"][2:]).all()


def test_names_and_layouts_are_checked():
    angles = joint_angles(motion_of(standing()))
    with pytest.raises(ValueError, match="no joint angle 'wing'; known are pelvis_rotation"):
        angles["wing"]
    with pytest.raises(ValueError, match="'humaneva15', expected 'h36m17'"):
        joint_angles(Motion(np.zeros((2, 15, 3)), None, None, "humaneva15", 50))
    assert "wrist" in UNOBSERVED
    for opensim in (False, True):
        names = [angle.name for angle in ANGLES if angle.opensim == opensim]
        assert len(set(names)) == len(names)


# ---- bodies


def body_at(pose: dict[str, list[float]], frames: int = 1) -> SkinnedMesh:
    """A body in a T-pose at rest with smpl24's tree, joints turned by rotation vectors in degrees."""
    tree = get_skeleton("smpl24")
    rest = {"pelvis": [0, 0, 0], "spine1": [0, 0.1, 0], "spine2": [0, 0.2, 0], "spine3": [0, 0.3, 0],
            "neck": [0, 0.5, 0], "head": [0, 0.6, 0]}
    for side, sign in (("left", 1), ("right", -1)):
        limbs = {"hip": [0.1, -0.05, 0], "knee": [0.1, -0.45, 0], "ankle": [0.1, -0.85, 0], "foot": [0.1, -0.9, 0.1],
                 "collar": [0.05, 0.45, 0], "shoulder": [0.2, 0.45, 0], "elbow": [0.5, 0.45, 0],
                 "wrist": [0.75, 0.45, 0], "hand": [0.85, 0.45, 0]}
        rest |= {f"{side}_{name}": [sign * place[0], *place[1:]] for name, place in limbs.items()}
    rotations = np.zeros((frames, 24, 3))
    for name, turn in pose.items():
        rotations[:, tree.index(name)] = np.radians(turn)
    rotations[:, 0] = Rotation.from_matrix([[-1, 0, 0], [0, 0, 1], [0, 1, 0]]).as_rotvec()  # upright, facing +Y
    nothing = np.zeros((0, 1))
    return SkinnedMesh("lite", tree.joints, tree.parents, [rest[name] for name in tree.joints], np.zeros((0, 3)),
                       np.zeros((0, 3)), nothing, nothing, rotations, np.zeros((frames, 3)), 50.0, "world")


@pytest.mark.parametrize(("joint", "turn", "angle", "expected"), [
    ("left_hip", [-40, 0, 0], "left_hip_flexion", 40), ("right_hip", [0, 0, 25], "right_hip_adduction", 25),
    ("left_hip", [0, 0, -25], "left_hip_adduction", 25), ("right_hip", [0, 30, 0], "right_hip_internal_rotation", 30),
    ("left_hip", [0, -30, 0], "left_hip_internal_rotation", 30), ("right_knee", [50, 0, 0], "right_knee_flexion", 50),
    ("left_ankle", [-15, 0, 0], "left_ankle_dorsiflexion", 15), ("left_elbow", [0, -70, 0], "left_elbow_flexion", 70),
    ("head", [0, 35, 0], "neck_rotation", 35), ("spine3", [20, 0, 0], "trunk_flexion", 20),
    ("left_shoulder", [0, 0, -60], "left_shoulder_elevation", 30),
    ("right_shoulder", [0, 0, 90], "right_shoulder_elevation", 0),
    ("left_knee", [0, 0, 0], "left_shoulder_elevation", 90),
])
def test_a_turned_joint_of_a_body_gives_its_angle(joint, turn, angle, expected):
    assert np.degrees(body_angles(body_at({joint: turn}))[angle][0]) == pytest.approx(expected, abs=0.05)


def test_a_body_tells_what_joints_do_not():
    names = set(body_angles(body_at({})).names) - set(joint_angles(motion_of(standing())).names)
    assert {"neck_rotation", "left_ankle_dorsiflexion", "right_hip_internal_rotation"} <= names
    assert body_angles(body_at({})).source == "lite"
    bare = body_at({})
    bare = bare.replace(joints=("hips", *[f"j{number}" for number in range(23)]))
    with pytest.raises(ValueError, match="no joint 'left_hip', expected the joints of smpl24"):
        body_angles(bare)
