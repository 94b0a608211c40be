"""The embedded body: its file, its symmetry, its keypoints, and rotations of motion capture in it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from experiments.body_keypoints import convex_weights, thin_row
from experiments.build_body import bone_owners, order_vertices
from lifting.body.body_file import BODIES, load_body
from lifting.body.phenotypes import mesh_volume, shape_from_description
from lifting.body.retarget import (
    OFFSETS_KEY,
    body_rotations_from_mocap,
    geometric_rest_offsets,
    mocap_rest_offsets,
    trajectory_from_hips,
)
from lifting.motion import BodyMotion
from lifting.rotations import rotvec_to_matrix
from lifting.skeletons import get_skeleton, mirror_name
from tests.small_body import small_body

SMPL = get_skeleton("smpl24")
LAYOUTS = ("coco17", "coco17_feet", "lift17", "halpe26", "body25", "openpose18", "mpii16", "mediapipe33", "smpl24",
           "h36m17")  # fmt: skip
STEP = 1e-4  # metres: twice the rounding of the file


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


def at_rest(body, layout, shape=None):
    """Points of a layout at rest by name."""
    points = body.points(layout, np.zeros((1, body.num_joints, 3)), np.zeros((1, 3)), shape)[0]
    return dict(zip(get_skeleton(layout).joints, points, strict=True))


def vertex_mirror(body):
    """Number of the vertex on the other side, found without the order in the file."""
    from scipy.spatial import cKDTree

    distance, other = cKDTree(body.template).query(body.template * [-1, 1, 1])
    assert distance.max() < STEP
    return other


# ---- the file


def test_the_file_is_small_and_the_tree_is_that_of_smpl(body):
    assert BODIES["lite"].stat().st_size < 1_100_000
    assert (body.num_vertices, body.num_joints, body.num_shape) == (13718, 22, 10)
    assert body.joints == SMPL.joints[:22]
    assert body.parents == SMPL.parents[:22]
    assert "CC0" in body.licence and "Apache-2.0" in body.licence


def test_left_is_plus_x_up_is_y_and_toes_point_to_z(body):
    for layout in LAYOUTS:
        for name, place in at_rest(body, layout).items():
            if name.startswith("left_"):
                assert place[0] > 0.01, (layout, name)
    joints = dict(zip(body.joints, body.rest_joints(), strict=True))
    assert joints["head"][1] > joints["pelvis"][1] > joints["left_knee"][1] > joints["left_ankle"][1]
    feet = at_rest(body, "coco17_feet")
    assert feet["left_big_toe"][2] - feet["left_heel"][2] > 0.15
    assert feet["left_small_toe"][0] > feet["left_big_toe"][0]


def test_the_pelvis_is_the_origin_for_every_shape(body):
    np.testing.assert_allclose(body.joint_template[0], 0, atol=1e-9)
    np.testing.assert_allclose(body.joint_directions[0], 0, atol=1e-9)


def test_mesh_directions_and_weights_are_mirror_symmetric(body):
    other = vertex_mirror(body)
    flipped = body.shape_directions[other] * np.array([-1, 1, 1])[:, None]
    np.testing.assert_allclose(body.shape_directions, flipped, atol=STEP)
    swap = [body.joint(mirror_name(name)) for name in body.joints]
    np.testing.assert_allclose(body.joint_template, body.joint_template[swap] * [-1, 1, 1], atol=1e-6)
    weights = body.skin_weights.toarray()
    assert np.abs(weights - weights[other][:, swap]).max() < 0.02


def test_skin_weights_and_regressors_are_convex(body):
    assert set(LAYOUTS) <= set(body.regressors)
    for matrix in (body.skin_weights, *body.regressors.values()):
        assert matrix.data.min() >= 0
        np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), 1, atol=1e-5)


def test_all_meshes_are_closed_and_face_outwards(body):
    vertices = body.rest_vertices()
    full = mesh_volume(vertices, body.faces)
    assert 0.055 < full < 0.080  # 55 to 80 kg
    meshes = [(np.arange(body.num_vertices), body.faces), *((p.vertex_ids, p.faces) for p in body.previews.values())]
    for ids, faces in meshes:
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
        assert abs(mesh_volume(vertices[ids], faces) / full - 1) < 0.1
        assert abs(np.ptp(vertices[ids, 1]) - body.stature()) < 0.02


def test_previews_have_the_promised_sizes(body):
    sizes = {level: len(preview.vertex_ids) for level, preview in body.previews.items()}
    assert 1000 <= sizes["1k"] <= 1300 and 450 <= sizes["500"] <= 650


def test_the_children_s_body_has_the_same_mesh_and_points(body):
    children = load_body(BODIES["lite"].with_name("body_children.npz"))
    assert children.joints == body.joints and np.array_equal(children.faces, body.faces)
    assert (children.regressors["h36m17"] != body.regressors["h36m17"]).nnz == 0
    np.testing.assert_array_equal(mocap_rest_offsets(children), mocap_rest_offsets(body))
    toddler, teenager = (children.stature(shape_from_description(children, age=age)) for age in (3, 16))
    assert 0.85 < toddler < 1.05 and 1.55 < teenager < 1.80


def test_adults_come_out_of_the_shape_space(body):
    rng = np.random.default_rng(0)
    statures = [body.stature(shape) for shape in rng.normal(size=(300, 10))]
    assert 1.64 < np.mean(statures) < 1.76 and 0.09 < np.std(statures) < 0.15


# ---- keypoints


def test_limb_points_of_h36m_lie_at_joint_centres(body):
    points, joints = at_rest(body, "h36m17"), dict(zip(body.joints, body.rest_joints(), strict=True))
    for name in ("left_knee", "right_ankle", "left_elbow", "right_wrist", "left_shoulder", "right_hip"):
        assert np.linalg.norm(points[name] - joints[name]) < 0.045, name
    np.testing.assert_allclose(points["hip"], (points["left_hip"] + points["right_hip"]) / 2, atol=1e-6)
    heights = [points[name][1] for name in ("hip", "spine", "thorax", "neck_nose", "head")]
    assert heights == sorted(heights)


def test_common_points_agree_between_layouts(body):
    coco = at_rest(body, "coco17_feet")
    for layout in ("coco17", "lift17", "halpe26", "body25", "mediapipe33"):
        for name, place in at_rest(body, layout).items():
            if name in coco:
                np.testing.assert_allclose(place, coco[name], atol=1e-7, err_msg=f"{layout} {name}")


def test_points_follow_their_limb_only(body):
    rotations = np.zeros((1, 22, 3))
    rotations[0, body.joint("left_elbow")] = [0, -1.0, 0.3]
    for layout in LAYOUTS:
        moved = body.points(layout, rotations, np.zeros((1, 3)))[0]
        for name, place in at_rest(body, layout).items():
            distance = np.linalg.norm(moved[get_skeleton(layout).index(name)] - place)
            if name in ("left_wrist", "left_hand", "left_index", "left_pinky", "left_thumb"):
                assert distance > 0.1
            elif name != "left_elbow":
                assert distance < 1e-3, (layout, name)


def test_points_are_the_regressor_times_vertices_and_joints(body):
    rng = np.random.default_rng(1)
    rotations, trajectory = rng.normal(0, 0.3, (2, 22, 3)), rng.normal(size=(2, 3))
    shape = rng.normal(size=10)
    vertices = body.vertices(rotations, trajectory, shape)
    joints = body.kinematics(rotations, trajectory, shape).joints
    both = np.concatenate([vertices, joints], axis=1)
    for layout in ("h36m17", "mediapipe33"):
        expected = np.stack([body.regressors[layout] @ frame for frame in both])
        np.testing.assert_allclose(body.points(layout, rotations, trajectory, shape), expected, atol=1e-9)


def test_a_preview_is_part_of_the_full_mesh(body):
    rng = np.random.default_rng(2)
    motion = BodyMotion(rng.normal(0, 0.3, (3, 22, 3)), rng.normal(size=(3, 3)), np.zeros(10), "lite", 50.0)
    full = body.skinned(motion).vertices()
    np.testing.assert_allclose(body.skinned(motion, "500").vertices(), full[:, body.previews["500"].vertex_ids],
                               atol=1e-5)


# ---- rotations of motion capture


def test_the_t_pose_has_straight_arms_and_legs(body):
    rotations = body_rotations_from_mocap(body, np.zeros((1, 24, 3)))
    kinematics = body.kinematics(rotations, np.zeros((1, 3)))
    joints = dict(zip(body.joints, kinematics.joints[0], strict=True))
    points = dict(zip(get_skeleton("h36m17").joints, body.points("h36m17", rotations, np.zeros((1, 3)))[0],
                      strict=True))
    for side, sign in (("left", 1), ("right", -1)):
        for start, end in (("shoulder", "elbow"), ("elbow", "wrist")):
            bone = joints[f"{side}_{end}"] - joints[f"{side}_{start}"]
            np.testing.assert_allclose(bone / np.linalg.norm(bone), [sign, 0, 0], atol=0.03)
        for start, end in (("hip", "knee"), ("knee", "ankle")):
            bone = points[f"{side}_{end}"] - points[f"{side}_{start}"]
            np.testing.assert_allclose(bone / np.linalg.norm(bone), [0, -1, 0], atol=0.03)


def test_an_elbow_that_flexes_in_the_capture_bends_the_arm_at_its_own_hinge(body):
    pose = np.zeros((1, 24, 3))
    pose[0, SMPL.index("left_elbow")] = 1.2 * np.array([0, -0.866, 0.5])
    rotations = body_rotations_from_mocap(body, pose)
    joints = dict(zip(body.joints, body.kinematics(rotations, np.zeros((1, 3))).joints[0], strict=True))
    upper, fore = joints["left_elbow"] - joints["left_shoulder"], joints["left_wrist"] - joints["left_elbow"]
    angle = np.arccos(upper @ fore / np.linalg.norm(upper) / np.linalg.norm(fore))
    assert angle == pytest.approx(1.2, abs=0.01)
    assert fore[2] > 0.1 and fore[1] > 0.05  # forwards and up
    rest = body.rest_joints()
    upper, fore = (rest[body.joint(f"left_{a}")] - rest[body.joint(f"left_{b}")]
                   for a, b in (("elbow", "shoulder"), ("wrist", "elbow")))
    hinge = np.cross(upper, fore) / np.linalg.norm(np.cross(upper, fore))
    local = rotations[0, body.joint("left_elbow")]
    assert np.linalg.norm(np.cross(local, hinge)) < 0.02  # no twist: pure bending about the mesh's own axis


def test_global_rotations_are_those_of_the_capture_times_the_offsets(body):
    pose = np.random.default_rng(3).normal(0, 0.5, (4, 24, 3))
    turned = rotvec_to_matrix(pose)
    for joint in range(1, 24):
        turned[:, joint] = turned[:, SMPL.parents[joint]] @ turned[:, joint]
    expected = turned[:, :22] @ rotvec_to_matrix(mocap_rest_offsets(body))
    found = body.kinematics(body_rotations_from_mocap(body, pose), np.zeros((4, 3))).global_rotations
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_offsets_are_stored_symmetric_and_keep_the_trunk_upright(body):
    offsets = np.asarray(body.extras[OFFSETS_KEY])
    for name, vector in zip(body.joints, offsets, strict=True):
        np.testing.assert_allclose(vector, offsets[body.joint(mirror_name(name))] * [1, -1, -1], atol=1e-6)
    trunk = [offsets[body.joint(name)] for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")]
    assert np.degrees(np.linalg.norm(trunk, axis=1)).max() < 20


def test_the_hips_follow_the_path_given(body):
    rng = np.random.default_rng(4)
    rotations, hips, shape = rng.normal(0, 0.4, (5, 22, 3)), rng.normal(size=(5, 3)), rng.normal(size=10)
    trajectory = trajectory_from_hips(body, rotations, hips, shape)
    joints = body.kinematics(rotations, trajectory, shape).joints
    middle = (joints[:, body.joint("left_hip")] + joints[:, body.joint("right_hip")]) / 2
    np.testing.assert_allclose(middle, hips, atol=1e-9)


def test_a_body_without_stored_offsets_gets_straight_limbs():
    body = small_body()
    offsets = rotvec_to_matrix(geometric_rest_offsets(body))
    shin = body.rest_joints()[body.joint("right_ankle")] - body.rest_joints()[body.joint("right_knee")]
    straight = offsets[body.joint("right_knee")] @ shin / np.linalg.norm(shin)
    np.testing.assert_allclose(straight, [0, -1, 0], atol=1e-9)
    np.testing.assert_array_equal(mocap_rest_offsets(body), geometric_rest_offsets(body))


@pytest.mark.parametrize("shape", [(24, 3), (2, 22, 3), (2, 24, 3, 3)])
def test_rotations_of_another_shape_are_refused(body, shape):
    with pytest.raises(ValueError, match="expected \\(T, 24, 3\\)"):
        body_rotations_from_mocap(body, np.zeros(shape))


def test_other_axes_and_wrong_offsets_are_refused(body):
    with pytest.raises(ValueError, match="expected 'y' and 'z'"):
        body_rotations_from_mocap(small_body().replace(up="z", forward="-y"), np.zeros((1, 24, 3)))
    with pytest.raises(ValueError, match="rebuild the body file"):
        mocap_rest_offsets(small_body().replace(extras={OFFSETS_KEY: np.zeros((3, 3))}))


# ---- how it is built


def test_convex_weights_find_a_mixture():
    rng = np.random.default_rng(5)
    points = rng.normal(size=(8, 30))
    weights = np.array([0, 0.2, 0, 0.5, 0, 0, 0.3, 0])
    np.testing.assert_allclose(convex_weights(points, weights @ points), weights, atol=1e-6)


def test_convex_weights_stay_convex_where_the_target_is_outside():
    weights = convex_weights(np.array([[0.0], [1.0]]), np.array([3.0]))
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert weights[1] == pytest.approx(1)


def test_a_thinned_regressor_means_the_same_in_every_pose(body):
    rng = np.random.default_rng(6)
    distance = np.linalg.norm(body.template - body.rest_joints()[body.joint("left_knee")], axis=1)
    dense = np.exp(-((distance / 0.05) ** 2)) * (distance < 0.15)
    dense /= dense.sum()
    people = np.stack([body.rest_vertices(), *(body.rest_vertices(shape) for shape in rng.normal(size=(5, 10)))])
    thin = thin_row(dense, people, body.skin_weights.toarray())
    assert np.count_nonzero(thin) < np.count_nonzero(dense) / 3
    rows = sparse.csr_matrix(np.pad(np.stack([dense, thin]), ((0, 0), (0, body.num_joints))))
    points = body.points(rows, rng.normal(0, 0.5, (6, 22, 3)), np.zeros((6, 3)), rng.normal(size=10))
    assert np.linalg.norm(points[:, 0] - points[:, 1], axis=-1).max() < 0.002


def test_vertices_are_ordered_as_middle_left_right():
    template = np.array([[1.0, 0, 0], [0, 1, 0], [-2, 5, 0], [-1, 0, 0], [2, 5, 0]])
    order, mirror = order_vertices(template)
    assert order.tolist() == [1, 0, 4, 3, 2]
    np.testing.assert_array_equal(template[order][mirror], template[order] * [-1, 1, 1])
    with pytest.raises(ValueError, match="not mirror symmetric"):
        order_vertices(template + [0.1, 0, 0])


def test_bones_without_a_joint_move_with_their_nearest_ancestor():
    labels, parents = ["root", "spine05", "spine04", "spine03", "upperleg01.L", "upperleg02.L"], [-1, 0, 1, 2, 0, 4]
    owners = bone_owners(labels, parents, SMPL.joints[:22])
    assert [SMPL.joints[owner] for owner in owners] == ["pelvis", "pelvis", "spine1", "spine1", "left_hip", "left_hip"]
