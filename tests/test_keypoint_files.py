"""Keypoint files of other tools and our own, written here in their published layouts and read back."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifting.detectors.files import FORMATS, read_keypoints, write_keypoints
from lifting.keypoints import Keypoints2D
from lifting.skeletons import Skeleton, get_skeleton, joint_map

SIZE = (1280, 720)


def pose(joints: int, seed: float = 0) -> np.ndarray:
    """(J, 3) x, y, confidence: distinct values, exact in float32."""
    numbers = np.arange(joints, dtype=np.float64)
    return np.stack([100 + 4 * numbers + 16 * seed, 50 + 8 * numbers, 0.25 + numbers / 512], axis=1)


def flat(joints: int, seed: float = 0) -> list[float]:
    return pose(joints, seed).ravel().tolist()


def write_json(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data))
    return path


def save_objects(path: Path, **values: object) -> Path:
    """An npz of ragged lists as older numpy saved them: object arrays, pickled."""
    arrays = {}
    for name, value in values.items():
        arrays[name] = np.empty((len(value), *([2] if name in ("boxes", "keypoints") else [])), object) \
            if isinstance(value, list) else np.array(value, object)
        for index, item in enumerate(value if isinstance(value, list) else []):
            arrays[name][index] = item if arrays[name].ndim == 1 else None
            for part in range(arrays[name].ndim > 1 and 2 or 0):
                arrays[name][index, part] = item[part]
    np.savez_compressed(path, **arrays)
    return path


def assert_pose(detection, expected: np.ndarray) -> None:
    np.testing.assert_allclose(detection.xy, expected[:, :2], rtol=1e-6)
    np.testing.assert_allclose(detection.score, expected[:, 2], rtol=1e-6)


def counts(file) -> list[int]:
    return [len(frame) for frame in file.frames]


# ---- VideoPose3D


def detectron(path: Path, people: list[int], logit: float = 0.0, rows: int = 4) -> Path:
    keypoints, boxes = [], []
    for frame, number in enumerate(people):
        found = np.stack([np.insert(pose(17, frame + 10 * one).T, 2, logit, axis=0) for one in range(number)]) \
            if number else []
        found = found[:, [0, 1, 3]] if number and rows == 3 else found
        keypoints.append([[], np.float32(found) if number else []])
        boxes.append([[], np.float32([[0, 0, 9, 9, 0.9]] * number) if number else []])
    return save_objects(
        path, boxes=boxes, keypoints=keypoints, segments=[None] * len(people), metadata={"w": 1280, "h": 720}
    )


@pytest.mark.parametrize("rows", [3, 4])
def test_detectron_detections_keep_gaps_and_people(tmp_path, rows):
    file = read_keypoints(detectron(tmp_path / "clip.mp4.npz", [2, 0, 1], logit=12.0, rows=rows))
    assert (file.format, file.skeleton.name, file.image_size, file.ids) == ("videopose3d", "coco17", SIZE, None)
    assert counts(file) == [2, 0, 1]
    np.testing.assert_allclose(file.frames[0][1].xy, pose(17, 10)[:, :2])
    # Confidences (up to 0.28) are shares of a heat map, the logit row is not used.
    p = pose(17)[:, 2]
    np.testing.assert_allclose(file.frames[0][0].score, p / (p + 0.05), rtol=1e-6)
    assert any("heat map" in note for note in file.notes)


def test_detectron_probabilities_that_are_sure_stay_as_they_are(tmp_path):
    rows = pose(17).T
    rows[2] = np.linspace(0.6, 0.95, 17)
    keypoints = [[[], np.insert(rows, 2, 9.0, axis=0)[None]]]
    boxes = [[[], np.ones((1, 5))]]
    path = save_objects(tmp_path / "a.npz", boxes=boxes, keypoints=keypoints, metadata={"w": 9, "h": 8})
    np.testing.assert_allclose(read_keypoints(path).frames[0][0].score, rows[2], rtol=1e-6)


def test_detections_of_frames_and_boxes_must_match(tmp_path):
    keypoints = [[[], pose(17).T[None]]] * 2
    path = save_objects(tmp_path / "a.npz", boxes=[[[], np.ones((1, 5))]], keypoints=keypoints)
    with pytest.raises(ValueError, match="boxes.*expected one per frame"):
        read_keypoints(path)
    path = save_objects(tmp_path / "b.npz", boxes=[[[], np.ones((2, 5))]], keypoints=keypoints[:1])
    with pytest.raises(ValueError, match="1 people but 2 boxes"):
        read_keypoints(path)


SYMMETRY = {
    "coco17": [list(range(1, 17, 2)), list(range(2, 17, 2))],
    "h36m17": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]],
    "humaneva15": [[2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13]],
    "mpii16": [[3, 4, 5, 13, 14, 15], [0, 1, 2, 10, 11, 12]],
}


@pytest.mark.parametrize("layout", SYMMETRY)
@pytest.mark.parametrize("named", [True, False])
def test_positions_2d_take_their_layout_from_the_metadata(tmp_path, layout, named):
    joints = get_skeleton(layout).num_joints
    positions = np.float32([pose(joints, t)[:, :2] for t in range(4)])
    metadata = {"num_joints": joints, "keypoints_symmetry": SYMMETRY[layout]}
    if named:
        metadata["layout_name"] = {"coco17": "coco", "h36m17": "h36m", "mpii16": "mpii"}.get(layout, layout)
    metadata["video_metadata"] = {"clip.mp4": {"w": 1280, "h": 720}}
    path = tmp_path / "data_2d_custom_clip.npz"
    np.savez_compressed(path, positions_2d={"clip.mp4": {"custom": [positions]}}, metadata=metadata)
    file = read_keypoints(path)
    assert (file.skeleton.name, file.image_size, file.fps, file.person_ids) == (layout, SIZE, None, (1,))
    np.testing.assert_array_equal(file.person(1, fps=25).xy, positions)


def test_one_of_several_sequences_is_picked_by_name(tmp_path):
    path = tmp_path / "data_2d_h36m_cpn.npz"
    cameras = [np.float32([pose(17, camera)[:, :2]] * (camera + 1)) for camera in range(4)]
    metadata = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": SYMMETRY["h36m17"]}
    positions = {"S1": {"Walking 1": cameras}, "S5": {"Eating": cameras[:1]}}
    np.savez_compressed(path, positions_2d=positions, metadata=metadata)
    assert read_keypoints(path, sequence="S1/Walking 1/2").num_frames == 3
    assert read_keypoints(path, sequence="S5").num_frames == 1
    for wanted, words in [(None, "5 sequences.*'S1/Walking 1/0'"), ("S1", "4 of them fit"), ("S9", "0 of them fit")]:
        with pytest.raises(ValueError, match=words):
            read_keypoints(path, sequence=wanted)


def test_positions_may_have_a_probability_and_gaps(tmp_path):
    values = np.float32([pose(17, t) for t in range(3)])
    values[..., 2] = 0.75
    values[1] = np.nan
    np.savez(tmp_path / "a.npz", positions_2d={"v": {"custom": [values]}}, metadata={"layout_name": "coco"})
    file = read_keypoints(tmp_path / "a.npz")
    assert counts(file) == [1, 0, 1]
    assert (file.frames[2][0].score == 0.75).all()


class Hostile:
    """A pickle that would run a command."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_hostile_pickles_are_refused_and_not_run(tmp_path):
    trap = tmp_path / "trap"
    np.savez(tmp_path / "a.npz", positions_2d=np.array({"a": Hostile(trap)}, object))
    with pytest.raises(ValueError, match="mkdir"):
        read_keypoints(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.array([Hostile(trap)], object))
    with pytest.raises(ValueError, match="plain array"):
        read_keypoints(tmp_path / "a.npy")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Hostile(trap)))
    with pytest.raises(ValueError):
        read_keypoints(tmp_path / "a.pkl")
    assert not trap.exists()


# ---- COCO


def result(image: object, seed: float = 0, joints: int = 17, score: float = 0.9, **more: object) -> dict:
    return {"image_id": image, "category_id": 1, "keypoints": flat(joints, seed), "score": score, **more}


def test_coco_results_keep_time_and_people_apart(tmp_path):
    entries = [result(7, 2), result(3, 0), result(3, 1), result(4, 5)]  # out of order, frames 5 and 6 missing
    file = read_keypoints(write_json(tmp_path / "results.json", entries))
    assert (file.format, file.start, counts(file), file.ids) == ("coco", 3, [2, 1, 0, 0, 1], None)
    assert_pose(file.frames[0][1], pose(17, 1))
    assert_pose(file.frames[4][0], pose(17, 2))
    assert any("first image_id, 3" in note for note in file.notes)


@pytest.mark.parametrize(
    ("joints", "name", "used"),
    [(16, "mpii16", 16), (17, "coco17", 17), (18, "openpose18", 18), (25, "body25", 25), (26, "halpe26", 26),
     (33, "mediapipe33", 33), (133, "coco17_feet", 23), (136, "halpe26", 26)],
)  # fmt: skip
def test_the_number_of_joints_decides_the_layout(tmp_path, joints, name, used):
    file = read_keypoints(write_json(tmp_path / "r.json", [result(0, joints=joints)]))
    assert file.skeleton.name == name
    assert_pose(file.frames[0][0], pose(joints)[:used])
    assert any(name in note for note in file.notes)


def test_a_layout_can_be_given(tmp_path):
    path = write_json(tmp_path / "r.json", [result(0)])
    assert read_keypoints(path, skeleton="h36m17").skeleton.name == "h36m17"
    whole = write_json(tmp_path / "w.json", [result(0, joints=133)])
    assert_pose(read_keypoints(whole, skeleton="coco17").frames[0][0], pose(133)[:17])
    own = Skeleton("own5", ("head", "left_hip", "right_hip", "left_hand", "right_hand"), (-1, 0, 0, 0, 0))
    five = write_json(tmp_path / "f.json", [result(0, joints=5)])
    assert read_keypoints(five, skeleton=own).skeleton == own
    for skeleton, words in [(None, "5 joints are no layout"), ("body25", "5 joints, but skeleton 'body25' has 25")]:
        with pytest.raises(ValueError, match=words):
            read_keypoints(five, skeleton=skeleton)
    with pytest.raises(ValueError, match="unknown skeleton"):
        read_keypoints(path, skeleton="nonsense")


def test_openpose18_reaches_the_lifter():
    assert joint_map("openpose18", "lift17").missing == ("left_big_toe", "right_big_toe", "left_heel", "right_heel")


def coco_names() -> list[str]:
    return list(get_skeleton("coco17").joints)


def annotations(names: list[str], **image: object) -> dict:
    size = {"width": 640, "height": 360}
    images = [{"id": 40 + n, "file_name": f"frames/clip_{n:04d}.jpg", **size, **image} for n in (2, 5, 6)]
    people = [result(45, 1, track_id=8), result(42, 0, track_id=8), result(45, 4, track_id=2)]
    categories = [{"id": 1, "name": "person", "keypoints": names}]
    return {"images": images, "annotations": people, "categories": categories}


def test_coco_annotations_give_sizes_frames_and_ids(tmp_path):
    file = read_keypoints(write_json(tmp_path / "a.json", annotations(coco_names())))
    assert (file.image_size, file.start, counts(file)) == ((640, 360), 2, [1, 0, 0, 2, 0])
    assert file.ids == ((8,), (), (), (8, 2), ())
    person = file.person(8, fps=30)
    np.testing.assert_allclose(person.xy[3], pose(17, 1)[:, :2])
    assert np.isnan(person.xy[1]).all()
    assert not any("taken as coco17" in note for note in file.notes)
    with pytest.raises(ValueError, match="no person 5"):
        file.person(5)
    with pytest.raises(ValueError, match="fps="):
        file.person(8)


def test_coco_flags_are_confidences_and_feet_are_joined(tmp_path):
    data = annotations(coco_names())
    for entry in data["annotations"]:
        entry["keypoints"][2::3] = [2, 1, 0] + [2] * 14
        entry["foot_kpts"] = flat(6, 3)
        entry["foot_kpts"][2::3] = [2] * 6
    data["categories"] = []
    file = read_keypoints(write_json(tmp_path / "a.json", data))
    assert file.skeleton.name == "coco17_feet"
    np.testing.assert_array_equal(file.frames[0][0].score[:4], [1, 0.5, 0, 1])
    assert np.isnan(file.frames[0][0].xy[2]).all()
    np.testing.assert_allclose(file.frames[0][0].xy[17:], pose(6, 3)[:, :2])


def test_names_of_another_layout_are_not_overruled_by_their_number(tmp_path):
    names = list(get_skeleton("h36m17").joints)
    assert read_keypoints(write_json(tmp_path / "a.json", annotations(names))).skeleton.name == "h36m17"
    strange = write_json(tmp_path / "b.json", annotations([f"marker {n}" for n in range(17)]))
    with pytest.raises(ValueError, match="named 'marker 0'"):
        read_keypoints(strange)
    assert read_keypoints(strange, skeleton="coco17").skeleton.name == "coco17"


def test_annotations_of_several_videos_or_sizes_are_refused(tmp_path):
    data = annotations(coco_names())
    data["images"][1]["file_name"] = "other/clip_0005.jpg"
    with pytest.raises(ValueError, match="several videos"):
        read_keypoints(write_json(tmp_path / "a.json", data))
    data = annotations(coco_names())
    data["images"][1]["width"] = 200
    with pytest.raises(ValueError, match="sizes"):
        read_keypoints(write_json(tmp_path / "b.json", data))
    assert read_keypoints(tmp_path / "b.json", image_size=SIZE).image_size == SIZE
    data = annotations(coco_names())
    data["annotations"][0]["image_id"] = 3
    with pytest.raises(ValueError, match="image 3, which is not among the images"):
        read_keypoints(write_json(tmp_path / "c.json", data))


def test_echoes_of_the_detector_are_left_out(tmp_path):
    entries = [result(0, 0, score=2.9), result(0, 1, score=0.01), result(1, 2, score=2.0)]
    file = read_keypoints(write_json(tmp_path / "r.json", entries))
    assert counts(file) == [1, 1]
    assert any("1 detections" in note for note in file.notes)


def test_logits_become_confidences(tmp_path):
    entry = result(0)
    entry["keypoints"][2::3] = [0, -3.0, 8.0] + [2.5] * 14
    file = read_keypoints(write_json(tmp_path / "r.json", [entry]))
    expected = [0, 1 / (1 + np.exp(3)), 1 / (1 + np.exp(-8)), 1 / (1 + np.exp(-2.5))]
    np.testing.assert_allclose(file.frames[0][0].score[:4], expected, rtol=1e-6)
    assert any("logits" in note for note in file.notes)


# ---- OpenPose


def openpose(folder: Path, frames: dict[int, int], joints: int = 25, name: str = "clip", **person: object) -> Path:
    folder.mkdir(exist_ok=True)
    for frame, number in frames.items():
        people = [{"person_id": [-1], "pose_keypoints_2d": flat(joints, frame + one), "face_keypoints_2d": [], **person}
                  for one in range(number)]
        write_json(folder / f"{name}_{frame:012d}_keypoints.json", {"version": 1.3, "people": people})
    return folder


@pytest.mark.parametrize(("joints", "layout"), [(25, "body25"), (18, "openpose18")])
def test_openpose_folder(tmp_path, joints, layout):
    file = read_keypoints(openpose(tmp_path / "json", {0: 0, 1: 2, 2: 1, 5: 1, 6: 0}, joints))
    assert (file.format, file.skeleton.name, file.ids) == ("openpose", layout, None)
    assert counts(file) == [0, 2, 1, 0, 0, 1, 0]
    assert_pose(file.frames[5][0], pose(joints, 5))


def test_openpose_zeros_are_not_seen_and_ids_are_kept(tmp_path):
    values = flat(25)
    values[:3] = [0, 0, 0]
    file = read_keypoints(openpose(tmp_path / "json", {3: 1, 4: 1}, pose_keypoints_2d=values, person_id=[4]))
    assert (file.start, file.ids) == (3, ((4,), (4,)))
    assert np.isnan(file.frames[0][0].xy[0]).all() and file.frames[0][0].score[0] == 0
    single = next((tmp_path / "json").iterdir())
    assert counts(read_keypoints(single)) == [1]


def test_openpose_of_two_videos_is_refused(tmp_path):
    openpose(tmp_path / "json", {0: 1}, name="first")
    with pytest.raises(ValueError, match="several videos"):
        read_keypoints(openpose(tmp_path / "json", {0: 1}, name="second"))


def test_openpose_without_anybody(tmp_path):
    with pytest.raises(ValueError, match="no person in any frame"):
        read_keypoints(openpose(tmp_path / "json", {0: 0, 1: 0}))


def test_openpose_scaled_to_the_image(tmp_path):
    values = pose(25) / [1280, 720, 1]
    folder = openpose(tmp_path / "json", {0: 1}, pose_keypoints_2d=values.ravel().tolist())
    np.testing.assert_allclose(read_keypoints(folder, image_size=SIZE).frames[0][0].xy, pose(25)[:, :2], rtol=1e-6)
    with pytest.raises(ValueError, match="normalised"):
        read_keypoints(folder)


def test_a_damaged_file_in_a_folder_is_named(tmp_path):
    folder = openpose(tmp_path / "json", {0: 1, 1: 1})
    (folder / "clip_000000000001_keypoints.json").write_text('{"people": [')
    with pytest.raises(ValueError, match="clip_000000000001_keypoints.json.*cut short"):
        read_keypoints(folder)


# ---- AlphaPose


@pytest.mark.parametrize(("joints", "layout"), [(17, "coco17"), (26, "halpe26"), (136, "halpe26")])
def test_alphapose_results(tmp_path, joints, layout):
    entries = [
        {"image_id": f"{n}.jpg", "category_id": 1, "keypoints": flat(joints, n + idx), "score": 2.9,
         "box": [1.0, 2.0, 3.0, 4.0], "idx": [float(idx)]} for n, idx in [(2, 1), (10, 1), (10, 2)]
    ]  # fmt: skip
    file = read_keypoints(write_json(tmp_path / "alphapose-results.json", entries))
    assert (file.format, file.skeleton.name, file.start) == ("alphapose", layout, 0)
    assert counts(file) == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert file.ids[10] == (1, 2)
    np.testing.assert_allclose(file.frames[10][1].xy, pose(joints, 12)[: file.skeleton.num_joints, :2])


def test_alphapose_without_tracking_has_no_ids(tmp_path):
    entries = [result("0.jpg", seed, idx=[0.0]) for seed in (0, 9)] + [result("1.jpg", idx=[0.0])]
    file = read_keypoints(write_json(tmp_path / "a.json", entries))
    assert file.ids is None and any("share an id" in note for note in file.notes)


def test_alphapose_image_names(tmp_path):
    file = read_keypoints(write_json(tmp_path / "a.json", [result("img_0007.png"), result("img_0009.png")]))
    assert (file.start, counts(file)) == (7, [1, 0, 1])
    file = read_keypoints(write_json(tmp_path / "b.json", [result("one.png"), result("two.png"), result("one.png", 3)]))
    assert counts(file) == [2, 1] and any("no number" in note for note in file.notes)
    with pytest.raises(ValueError, match="several videos"):
        read_keypoints(write_json(tmp_path / "c.json", [result("a_1.png"), result("b_2.png")]))
    with pytest.raises(ValueError, match="image_id of entry 1 is a int"):
        read_keypoints(write_json(tmp_path / "d.json", [result("1.png"), result(2)]))


# ---- MMPose


def instance(seed: float = 0, joints: int = 17, **more: object) -> dict:
    values = pose(joints, seed)
    return {"keypoints": values[:, :2].tolist(), "keypoint_scores": values[:, 2].tolist(),
            "bbox": [[0.0, 0.0, 9.0, 9.0]], "bbox_score": 0.9, **more}  # fmt: skip


def test_mmpose_inferencer_video(tmp_path):
    frames = [{"frame_id": n, "instances": [instance(n + 5 * one) for one in range(people)]}
              for n, people in [(0, 1), (1, 0), (4, 2)]]
    file = read_keypoints(write_json(tmp_path / "clip.json", frames))
    assert (file.format, counts(file), file.ids) == ("mmpose", [1, 0, 0, 0, 2], None)
    assert_pose(file.frames[4][1], pose(17, 9))


@pytest.mark.parametrize(
    ("dataset", "joints", "layout"),
    [("coco", 17, "coco17"), ("h36m", 17, "h36m17"), ("halpe26", 26, "halpe26"), ("mpii", 16, "mpii16"),
     ("coco_wholebody", 133, "coco17_feet"), ("unheard of", 26, "halpe26")],
)  # fmt: skip
def test_mmpose_demo_output(tmp_path, dataset, joints, layout):
    meta = {"dataset_name": dataset, "num_keypoints": joints}
    info = [{"frame_id": n, "instances": [instance(n, joints, track_id=n // 3)]} for n in (1, 2, 4)]
    file = read_keypoints(write_json(tmp_path / "results_clip.json", {"meta_info": meta, "instance_info": info}))
    assert (file.skeleton.name, file.start, file.ids) == (layout, 1, ((0,), (0,), (), (1,)))


def test_mmpose_names_decide_when_the_data_set_is_unknown(tmp_path):
    names = get_skeleton("h36m17").joints
    meta = {"dataset_name": "mine", "keypoint_id2name": {str(n): name for n, name in enumerate(names)}}
    data = {"meta_info": meta, "instance_info": [instance()]}
    assert read_keypoints(write_json(tmp_path / "a.json", data)).skeleton.name == "h36m17"


def test_mmpose_folder_of_images(tmp_path):
    for number, people in [(3, 1), (4, 0), (6, 2)]:
        write_json(tmp_path / f"img_{number:03d}.json", [instance(one) for one in range(people)])
    file = read_keypoints(tmp_path)
    assert (file.format, file.start, counts(file)) == ("mmpose", 3, [1, 0, 0, 2])
    assert counts(read_keypoints(tmp_path / "img_006.json")) == [2]


def test_mmpose_bad_instances(tmp_path):
    bad = {
        "lifter's output": instance() | {"keypoints": pose(17).tolist()},
        r"keypoint_scores \(16,\)": instance() | {"keypoint_scores": [1.0] * 16},
        "different lengths": instance() | {"keypoints": [[1, 2], [3]]},
        "holds text": instance() | {"keypoints": [["1", "2"]]},
        "track_id.*whole": instance() | {"track_id": "x"},
    }
    for words, one in bad.items():
        with pytest.raises(ValueError, match=words):
            read_keypoints(write_json(tmp_path / "a.json", [{"frame_id": 0, "instances": [one]}]))
    with pytest.raises(ValueError, match="same frame_id"):
        read_keypoints(write_json(tmp_path / "a.json", [{"frame_id": 0, "instances": [instance()]}] * 2))


# ---- ours


@st.composite
def takes(draw):
    """{id: Keypoints2D} of one to three people over the same frames, gaps included, somebody seen."""
    count, frames = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    skeleton = get_skeleton(draw(st.sampled_from(["coco17", "h36m17", "lift17", "body25"])))
    if draw(st.booleans()):
        skeleton = Skeleton("odd, \"one\"", ("top\nhead", "left_é,", "right_é,"), (-1, 0, 0))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    people = {}
    for person in draw(st.lists(st.integers(0, 2**40), min_size=count, max_size=count, unique=True)):
        score = rng.random((frames, skeleton.num_joints)) * (rng.random((frames, 1)) > 0.4)
        score[frames // 2, 0] = 1
        xy = rng.normal(0, 500, (*score.shape, 2)) * draw(st.sampled_from([1, 1e-4]))
        people[person] = Keypoints2D(xy, score, skeleton, SIZE, draw(st.sampled_from([29.97])))
    return people


@pytest.mark.parametrize("suffix", [".npz", ".json", ".csv"])
@given(people=takes())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_our_files_come_back_equal(tmp_path, suffix, people):
    file = read_keypoints(write_keypoints(tmp_path / f"k{suffix}", people))
    assert (file.format, file.start, file.image_size, file.fps) == ("lift", 0, SIZE, 29.97)
    assert set(file.person_ids) == set(people)
    assert file.notes == ()
    for person, keypoints in people.items():
        assert file.person(person) == keypoints


def test_one_person_is_written_as_number_one(tmp_path):
    keypoints = Keypoints2D(np.ones((3, 17, 2)) * 5, None, "coco17", SIZE, 25)
    file = read_keypoints(write_keypoints(tmp_path / "new" / "k.npz", keypoints))
    assert file.person(1) == keypoints


def test_a_cut_table_is_noticed(tmp_path):
    path = write_keypoints(tmp_path / "k.csv", Keypoints2D(np.ones((3, 17, 2)) * 5, None, "coco17", SIZE, 25))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(ValueError, match="48 rows, but 51 were written"):
        read_keypoints(path)


@pytest.mark.parametrize("shape", [(4, 17, 2), (4, 17, 3), (2, 4, 17, 2), (2, 4, 17, 3)])
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".json", "list.json"])
def test_plain_arrays(tmp_path, shape, suffix):
    values = np.random.default_rng(0).uniform(0.1, 1, shape) * ([100, 100, 1][: shape[-1]])
    values[..., 1, :, :] = np.nan
    path = tmp_path / f"k{suffix}"
    nested = np.where(np.isnan(values), None, values.astype(object)).tolist()
    if suffix == ".npz":
        np.savez(path, keypoints=values, fps=25, image_size=np.array(SIZE))
    elif suffix == ".npy":
        np.save(path, values)
    else:
        write_json(path, nested if suffix == "list.json" else {"keypoints": nested, "fps": 25, "image_size": SIZE})
    file = read_keypoints(path, **({} if suffix in (".npz", ".json") else {"fps": 25, "image_size": SIZE}))
    people = len(values) if len(shape) == 4 else 1
    assert counts(file) == [people, 0, people, people]
    expected = values[-1] if len(shape) == 4 else values
    person = file.person(people)
    np.testing.assert_allclose(person.xy, expected[..., :2], rtol=1e-6)
    score = expected[..., 2] if shape[-1] == 3 else np.ones((4, 17))
    np.testing.assert_allclose(person.score, np.where(np.isnan(expected[..., 0]), 0, score), rtol=1e-6)


def test_positions_without_confidence_at_the_origin_are_not_seen(tmp_path):
    values = np.full((2, 17, 2), 30.0)
    values[0, 4] = 0
    np.savez(tmp_path / "k.npz", keypoints=values)
    file = read_keypoints(tmp_path / "k.npz")
    assert file.frames[0][0].seen.sum() == 16 and any("(0, 0)" in note for note in file.notes)


def test_arrays_of_the_wrong_form(tmp_path):
    good = np.full((3, 17, 2), 20.0)
    bad = {
        r"shape \(3, 17\)": {"keypoints": good[..., 0]},
        r"shape \(0, 17, 2\)": {"keypoints": good[:0]},
        r"scores have the shape \(2, 17\)": {"keypoints": good, "scores": good[:2, :, 0]},
        "ids are": {"keypoints": np.stack([good, good]), "ids": [3, 3]},
        "image_size must": {"keypoints": good, "image_size": [-640, 480]},
        "fps must": {"keypoints": good, "fps": 0},
        "unknown skeleton": {"keypoints": good, "skeleton": "nonsense"},
        "names skeleton 'body25'": {"keypoints": good, "skeleton": "body25"},
        "metadata is no JSON": {"keypoints": good, "metadata": "{"},
        "expected numbers": {"keypoints": good.astype(str)},
        "normalised": {"keypoints": good / 1000 - 0.9},
        "no joint of any person|no person": {"keypoints": good * np.nan},
        "confidence is 255": {"keypoints": good, "scores": good[..., 0] * 0 + 255},
        "beyond": {"keypoints": good * 1e9},
        "times have": {"keypoints": good, "times": [0.0, 0.1]},
        "times do not grow": {"keypoints": good, "times": [0.0, 0.0, 0.0]},
    }
    for words, arrays in bad.items():
        np.savez(tmp_path / "k.npz", **arrays)
        with pytest.raises(ValueError, match=words) as caught:
            read_keypoints(tmp_path / "k.npz")
        assert "'k.npz'" in str(caught.value) and "\n" not in str(caught.value)


def test_times_give_the_rate(tmp_path):
    np.savez(tmp_path / "k.npz", keypoints=np.full((5, 17, 2), 20.0), times=np.arange(5) / 40)
    assert read_keypoints(tmp_path / "k.npz").fps == 40


def test_a_plain_table(tmp_path):
    path = tmp_path / "k.csv"
    path.write_text("joint,frame,x,y\r\nnose,2,10,20\r\nleft_eye,2,11,19\r\nnose,5,,\r\nnose,4,12,22\r\n")
    file = read_keypoints(path)
    assert (file.skeleton.name, counts(file)) == ("lift17", [0, 0, 1, 0, 1, 0]) or file.skeleton.name == "coco17"
    np.testing.assert_array_equal(file.frames[2][0].xy[file.skeleton.index("left_eye")], [11, 19])
    assert file.frames[2][0].seen.sum() == 2 and file.person_ids == (1,)
    numbers = "\n".join(f"0,7,{joint},{joint + 5},9,0.5" for joint in range(17))
    path.write_text(f"# {{\"fps\": 24}}\nframe,person,joint,x,y,score\n{numbers}\n")
    file = read_keypoints(path)
    assert (file.fps, file.person_ids, file.skeleton.name) == (24, (7,), "coco17")
    bad = {
        "2 fields": "frame,joint,x,y\n0,nose,1,2\n1,no",
        "no number": "frame,joint,x,y\n0,nose,left,2",
        "whole number": "frame,joint,x,y\n-1,nose,1,2",
        "twice": "frame,joint,x,y\n0,nose,10,20\n0,nose,10,20",
        "no known layout": "frame,joint,x,y\n0,wing,10,20",
        "no person": "frame,joint,x,y\n",
        "no video": "frame,joint,x,y\n0,nose,10,20\n1000000000000,nose,10,20",
    }
    for words, text in bad.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_keypoints(path)


@pytest.mark.parametrize("suffix", [".npz", ".json", ".csv"])
def test_a_result_can_be_the_input_again(tmp_path, suffix):
    from lifting.cameras import Camera
    from lifting.export import save
    from lifting.motion import Motion, Person, Take

    rng = np.random.default_rng(1)
    people = []
    for person in (4, 2):
        xy = rng.uniform(50, 600, (6, 23, 2))
        xy[2 + person // 2 :] = np.nan
        keypoints = Keypoints2D(xy, None, "coco17_feet", SIZE, 50)
        people.append(Person(person, keypoints, Motion(rng.normal(size=(6, 17, 3)), None, None, "h36m17", 50)))
    take = Take("clip", SIZE, 50, np.arange(6) / 50, Camera.from_fov(60, SIZE), tuple(people))
    save(take, tmp_path / f"result{suffix}")
    file = read_keypoints(tmp_path / f"result{suffix}")
    assert (file.skeleton.name, file.fps, file.image_size, file.num_frames) == ("coco17_feet", 50, SIZE, 6)
    for person in people:
        assert file.person(person.id) == person.keypoints


def test_writing_what_cannot_be_written(tmp_path):
    one = Keypoints2D(np.ones((3, 17, 2)), None, "coco17", SIZE, 25)
    with pytest.raises(ValueError, match=".npz, .json, .csv"):
        write_keypoints(tmp_path / "k.txt", one)
    with pytest.raises(ValueError, match="no people"):
        write_keypoints(tmp_path / "k.npz", {})
    with pytest.raises(ValueError, match="differ"):
        write_keypoints(tmp_path / "k.npz", {1: one, 2: one.slice(0, 2)})
    (tmp_path / "file.npz").touch()
    with pytest.raises(OSError):
        write_keypoints(tmp_path / "file.npz" / "k.npz", one)
    assert [path.name for path in tmp_path.iterdir()] == ["file.npz"]


# ---- any file


def test_what_the_caller_says_wins(tmp_path):
    np.savez(tmp_path / "k.npz", keypoints=np.full((2, 17, 2), 9.0), fps=25, image_size=(64, 48), skeleton="coco17")
    file = read_keypoints(tmp_path / "k.npz", fps=30, image_size=SIZE, skeleton="h36m17")
    assert (file.fps, file.image_size, file.skeleton.name) == (30, SIZE, "h36m17")
    assert sum("given was used" in note for note in file.notes) == 2
    for bad in ({"fps": -1}, {"fps": float("nan")}, {"image_size": (0, 5)}, {"image_size": 5}, {"format": "xyz"},
                {"format": "coco"}, {"sequence": "a"}):
        with pytest.raises(ValueError):
            read_keypoints(tmp_path / "k.npz", **bad)
    assert read_keypoints(tmp_path / "k.npz", format="lift").num_frames == 2


def test_suffixes_do_not_decide(tmp_path):
    path = write_json(tmp_path / "keypoints.txt", [result(0)])
    assert read_keypoints(path).format == "coco"
    np.savez(tmp_path / "k.npz", keypoints=np.full((2, 17, 2), 9.0))
    (tmp_path / "k.npz").rename(tmp_path / "k.json")
    assert read_keypoints(tmp_path / "k.json").format == "lift"


def test_a_file_of_no_known_format_says_what_was_looked_for(tmp_path):
    cases = {"{}": "nothing", '{"a": 1}': "'a'", "[]": "empty JSON list", "[1]": "JSON list", "hello": "text",
             '[{"b": 1}]': "objects with 'b'"}
    for text, found in cases.items():
        (tmp_path / "k.json").write_text(text)
        with pytest.raises(ValueError, match=found) as caught:
            read_keypoints(tmp_path / "k.json")
        assert all(name in str(caught.value) for name in FORMATS) and "\n" not in str(caught.value)
    np.savez(tmp_path / "k.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match="arrays named 'other'"):
        read_keypoints(tmp_path / "k.npz")


def test_unreadable_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="check the path"):
        read_keypoints(tmp_path / "missing.json")
    path = tmp_path / "k.json"
    for content, words in [
        (b"", "empty"), (b" \n", "empty"), (b'[{"image_id": 1, "keyp', "cut short"), (b"\0\1\2video", "binary"),
        (b"\xff\xfe\xfa", "UTF-8"), (b"[" * 100_000, "nested|cut short"), (b"PK\x03\x04broken", "npz"),
        (b"\x93NUMPY\x01\x00", "plain array"), (b"[1" + b"0" * 5000 + b"]", "JSON|keypoint format"),
    ]:  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            read_keypoints(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="no JSON files"):
        read_keypoints(tmp_path / "folder")


BAD_ENTRIES = {
    "no video": [result(0), result(10**12)],
    "expected a whole number": [result(0), result("x")],
    "entry 1 .*str": [result(0), "person"],
    "17 joints with 3 values and 26 joints": [result(0), result(1, joints=26)],
    "negative": [result(-3)],
    "holds text": [result(0) | {"keypoints": ["a"] * 51}],
    "expected x, y, score": [result(0) | {"keypoints": [1.0] * 50}],
    "expected numbers": [result(0) | {"keypoints": [True] * 51}],
    r"shape \(\)": [result(0) | {"keypoints": None}],
    "huge numbers": [result(0) | {"keypoints": [10**400] * 51}],
    "beyond": [result(0) | {"keypoints": [float("inf")] * 51}],
    "no joint of any person": [result(0) | {"keypoints": [float("nan")] * 51}],
}


@pytest.mark.parametrize("words", BAD_ENTRIES)
def test_bad_entries(tmp_path, words):
    path = write_json(tmp_path / "r.json", BAD_ENTRIES[words])
    with pytest.raises(ValueError, match=words) as caught:
        read_keypoints(path)
    assert "'r.json'" in str(caught.value) and "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "0.jpg", "12"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["image_id", "keypoints", "annotations", "images", "people", "instances", "instance_info",
                         "keypoint_scores", "meta_info", "frame_id", "idx", "fps", "image_size", "skeleton", "scores",
                         "ids", "metadata", "id", "file_name", "width", "height", "score", "categories", "track_id",
                         "pose_keypoints_2d", "times", "category_id"]), inner, max_size=5),
    max_leaves=25,
)  # fmt: skip


@given(data=JSON)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_json_raises_anything_but_a_sentence(tmp_path, data):
    path = write_json(tmp_path / "any.json", data)
    try:
        read_keypoints(path)
    except ValueError as error:
        assert type(error) is ValueError and "\n" not in str(error) and "any.json" in str(error)
