"""Pieces of seen motion: what belongs together, cuts, and the mirror image as a mirrored camera sees it."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lifting.seen_motion import SeenMotion
from lifting.skeletons import get_skeleton

H36M, LIFT17 = get_skeleton("h36m17"), get_skeleton("lift17")
NAMES = [field.name for field in fields(SeenMotion)]
EVIDENCE = ["rays", "scores", "view", "root_in_camera"]
MIRROR = np.diag([-1.0, 1.0, 1.0])


def seen_motion(pieces: int = 3, frames: int = 5, seed: int = 0) -> SeenMotion:
    """Random motion before static cameras; the points of the 2D layout that are joints lie where the joints do."""
    rng = np.random.default_rng(seed)
    joints, root = rng.normal(0, 0.4, (pieces, frames, 17, 3)), rng.normal(0, 1, (pieces, frames, 3))
    view = Rotation.random(pieces, random_state=seed).as_matrix()
    place = np.array([0.3, -0.2, 6.0])
    root_in_camera = np.einsum("nij,ntj->nti", view, root) + place
    points = rng.normal(0, 0.3, (pieces, frames, 17, 3)) + root_in_camera[:, :, None]
    common = [name for name in LIFT17.joints if name in H36M.joints]
    turned = np.einsum("nij,ntkj->ntki", view, joints) + root_in_camera[:, :, None]
    points[:, :, list(LIFT17.indices(common))] = turned[:, :, list(H36M.indices(common))]
    scores, sigma = rng.uniform(size=(pieces, frames, 17)), rng.uniform(0.01, 0.2, (pieces, frames, 17))
    return SeenMotion(joints, root, sigma, points[..., :2] / points[..., 2:], scores, view, root_in_camera)


def rays_of_joints(seen: SeenMotion) -> np.ndarray:
    """Where the camera of a piece must see the joints that both layouts have."""
    turned = np.einsum("nij,ntkj->ntki", seen.view, seen.joints) + seen.root_in_camera[:, :, None]
    return turned[..., :2] / turned[..., 2:]


def check_projection(seen: SeenMotion) -> None:
    common = [name for name in LIFT17.joints if name in H36M.joints]
    assert len(common) >= 12
    expected = rays_of_joints(seen)[:, :, list(H36M.indices(common))]
    np.testing.assert_allclose(seen.rays[:, :, list(LIFT17.indices(common))], expected, atol=1e-9)


def test_the_2d_evidence_of_the_mirror_image_is_that_of_its_joints():
    seen = seen_motion()
    check_projection(seen)
    check_projection(seen.mirrored())


def test_a_mirrored_camera_still_turns_and_its_way_is_the_roots():
    seen, mirrored = seen_motion(), seen_motion().mirrored()
    np.testing.assert_allclose(np.linalg.det(mirrored.view), 1)
    np.testing.assert_allclose(mirrored.view @ np.swapaxes(mirrored.view, 1, 2), np.broadcast_to(np.eye(3), (3, 3, 3)),
                               atol=1e-12)  # fmt: skip
    np.testing.assert_allclose(mirrored.view, MIRROR @ seen.view @ MIRROR)
    way = np.einsum("nij,ntj->nti", mirrored.view, np.diff(mirrored.root, axis=1))
    np.testing.assert_allclose(way, np.diff(mirrored.root_in_camera, axis=1), atol=1e-12)


def test_left_and_right_change_places_in_the_mirror():
    seen, mirrored = seen_motion(), seen_motion().mirrored()
    left, right = H36M.index("left_wrist"), H36M.index("right_wrist")
    np.testing.assert_allclose(mirrored.joints[:, :, left], seen.joints[:, :, right] @ MIRROR)
    np.testing.assert_array_equal(mirrored.sigma[:, :, left], seen.sigma[:, :, right])
    head = H36M.index("head")
    np.testing.assert_allclose(mirrored.joints[:, :, head], seen.joints[:, :, head] @ MIRROR)
    left, right = LIFT17.index("left_ankle"), LIFT17.index("right_ankle")
    np.testing.assert_array_equal(mirrored.scores[:, :, right], seen.scores[:, :, left])
    np.testing.assert_array_equal(mirrored.rays[:, :, left], seen.rays[:, :, right] * [-1, 1])


@pytest.mark.parametrize("evidence", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mirrored_twice_is_the_same_and_of_the_same_type(evidence, dtype):
    seen = seen_motion()
    names = NAMES if evidence else NAMES[:3]
    seen = SeenMotion(**{name: getattr(seen, name).astype(dtype) for name in names})
    for name in names:
        again = getattr(seen.mirrored().mirrored(), name)
        np.testing.assert_array_equal(again, getattr(seen, name))
        assert getattr(seen.mirrored(), name).dtype == dtype
    assert seen.has_evidence == seen.mirrored().has_evidence == evidence


@pytest.mark.parametrize("part", [slice(2), slice(-3, None), slice(1, 4), slice(None, None, 2)])
def test_a_cut_keeps_some_frames_of_everything_but_the_camera(part):
    seen = seen_motion()
    cut = seen.cut(part)
    assert len(cut) == 3 and cut.frames == len(range(5)[part])
    for name in NAMES:
        expected = getattr(seen, name) if name == "view" else getattr(seen, name)[:, part]
        np.testing.assert_array_equal(getattr(cut, name), expected)
    alone = SeenMotion(seen.joints, seen.root, seen.sigma).cut(part)
    assert alone.frames == cut.frames and alone.view is None and not alone.has_evidence


def test_cutting_and_mirroring_change_places():
    one, other = seen_motion().cut(slice(1, 4)).mirrored(), seen_motion().mirrored().cut(slice(1, 4))
    for name in NAMES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


SHAPES = [("root", (3, 4, 3)), ("root", (3, 5, 2)), ("sigma", (3, 5)), ("rays", (3, 5, 17, 3)), ("scores", (2, 5, 17)),
          ("view", (3, 5, 3, 3)), ("root_in_camera", (3, 3)), ("joints", (3, 5, 16, 3))]  # fmt: skip


@pytest.mark.parametrize(("name", "shape"), SHAPES)
def test_arrays_that_do_not_belong_together_are_refused(name, shape):
    with pytest.raises(ValueError, match=f"got {name} of shape"):
        replace(seen_motion(), **{name: np.zeros(shape)})


@pytest.mark.parametrize("shape", [(5, 17, 3), (17, 3), ()])
def test_joints_without_an_axis_of_pieces_are_refused(shape):
    with pytest.raises(ValueError, match="got joints of shape"):
        SeenMotion(np.zeros(shape), np.zeros((1, 5, 3)), np.zeros((1, 5, 17)))


@pytest.mark.parametrize("name", EVIDENCE)
def test_evidence_comes_whole_or_not_at_all(name):
    seen = seen_motion()
    with pytest.raises(ValueError, match="2D evidence in parts"):
        replace(seen, **{name: None})
    with pytest.raises(ValueError, match="2D evidence in parts"):
        SeenMotion(seen.joints, seen.root, seen.sigma, **{name: getattr(seen, name)})
