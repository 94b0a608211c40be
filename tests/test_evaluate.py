"""Evaluation: numbers in closed form, the field's averages, both conventions, tables read back."""

from __future__ import annotations

import json
import weakref
from dataclasses import dataclass, replace

import numpy as np
import pytest

from lifting import metrics
from lifting.cameras import Camera
from lifting.datasets.clips import Clip, ClipList, ClipSet, camera_motion
from lifting.keypoints import Keypoints2D
from lifting.models import build
from lifting.models.temporal import TemporalConfig
from lifting.models.temporal_file import describe_temporal
from lifting.motion import Motion, Person, Take
from lifting.predict_temporal import TemporalLifter
from lifting.skeletons import get_skeleton
from lifting.training.evaluate import CONVENTIONS, METRICS, evaluate, shared_joints
from lifting.training.evaluate_result import Truth, evaluate_result, read_truth
from lifting.training.evaluate_tables import to_json, to_latex, to_markdown, write_table

CAMERA = Camera.from_focal(900.0, (1000, 800))
H36M = get_skeleton("h36m17")
FRAMES = {("S9", "Walking"): 12, ("S9", "Walking 1"): 20, ("S9", "Eating"): 8, ("S11", "Walking"): 10,
          ("S11", "Sitting 1"): 2}  # fmt: skip


def person(frames: int, seed: int, skeleton=H36M) -> Motion:
    """A smooth random motion a few metres from the camera."""
    generator = np.random.default_rng(seed)
    pose = generator.normal(0, 0.3, (skeleton.num_joints, 3))
    move = generator.normal(0, 0.02, (skeleton.num_joints, 3)) * np.arange(frames)[:, None, None]
    return camera_motion(pose + move + [0, 0, 4 + 0.3 * seed % 2], skeleton, 50.0)


def clip(subject: str, action: str, frames: int, seed: int, view: str = "a", camera=CAMERA, motion=None) -> Clip:
    motion = motion or person(frames, seed)
    keypoints = Keypoints2D(CAMERA.project(motion.absolute), None, motion.skeleton, CAMERA.image_size, 50.0)
    return Clip(subject, action, view, keypoints, motion, camera)


CLIPS = ClipList([clip(*name, frames, seed) for seed, (name, frames) in enumerate(FRAMES.items())], "five takes")


@dataclass
class Oracle:
    """A lifter that knows the truth of clips and spoils it."""

    clips: list
    spoil: object
    source = "oracle 1"

    def lift(self, keypoints, camera, *, repair, flip):
        assert repair is False and camera.image_size == keypoints.image_size
        self.flip = flip
        truth = next(c.motion for c in self.clips if c.keypoints == keypoints)
        return replace_motion(self.spoil(truth))


def replace_motion(motion: Motion):
    return type("Lifted", (), {"motion": motion})


def noisy(motion: Motion) -> Motion:
    generator = np.random.default_rng(len(motion))
    joints = motion.joints + generator.normal(0, 0.05, motion.joints.shape)
    return motion.replace(joints=joints, trajectory=motion.trajectory + generator.normal(0, 0.1, (len(motion), 3)))


def test_rows_are_the_metrics_over_all_clips_of_an_action():
    found = evaluate(Oracle(CLIPS.clips, noisy), CLIPS)
    rows = {row.name: row for row in found.table.rows}
    assert list(rows) == ["Eating", "Sitting", "Walking"]
    assert {name: row.frames for name, row in rows.items()} == {"Eating": 8, "Sitting": 2, "Walking": 42}
    walks = [(noisy(c.motion), c.motion) for c in CLIPS.clips if c.action.startswith("Walking")]
    prediction, truth = (np.concatenate([pair[side].joints for pair in walks]) for side in (0, 1))
    scores = rows["Walking"].scores
    assert scores["mpjpe_mm"] == pytest.approx(1000 * metrics.mpjpe(prediction, truth))
    assert scores["p_mpjpe_mm"] == pytest.approx(1000 * metrics.p_mpjpe(prediction, truth))
    assert scores["n_mpjpe_mm"] == pytest.approx(1000 * metrics.n_mpjpe(prediction, truth))
    assert scores["pck150_percent"] == pytest.approx(100 * metrics.pck(prediction, truth))
    assert scores["auc_percent"] == pytest.approx(100 * metrics.auc(prediction, truth))
    # Differences over time never cross from one clip to the next.
    steps = [np.linalg.norm(np.diff(p.joints - t.joints, axis=0), axis=-1) for p, t in walks]
    assert scores["mpjve_mm_frame"] == pytest.approx(1000 * np.concatenate(steps).mean(), rel=1e-5)
    bends = [np.linalg.norm(np.diff(p.joints - t.joints, 2, axis=0), axis=-1) for p, t in walks]
    assert scores["acceleration_mm_frame2"] == pytest.approx(1000 * np.concatenate(bends).mean(), rel=1e-5)
    roots = np.concatenate([np.linalg.norm(p.trajectory - t.trajectory, axis=-1) for p, t in walks])
    depths = np.concatenate([t.trajectory[:, 2] for _, t in walks])
    assert scores["root_mm"] == pytest.approx(1000 * roots.mean(), rel=1e-5)
    assert scores["root_depth_percent"] == pytest.approx(100 * (roots / depths).mean(), rel=1e-5)
    assert "acceleration_mm_frame2" not in rows["Sitting"].scores  # two frames


def test_both_averages():
    table = evaluate(Oracle(CLIPS.clips, noisy), CLIPS).table
    errors = [row.scores["mpjpe_mm"] for row in table.rows]
    assert table.over_rows.name == "Mean over actions" and table.over_rows.frames == 52
    assert table.over_rows.scores["mpjpe_mm"] == pytest.approx(np.mean(errors))
    weights = [row.frames for row in table.rows]
    assert table.over_frames.scores["mpjpe_mm"] == pytest.approx(np.average(errors, weights=weights))
    assert errors[0] != pytest.approx(errors[1], rel=1e-3)


def test_tables_by_subject():
    whole = evaluate(Oracle(CLIPS.clips, noisy), CLIPS, by_subject=True)
    assert list(whole.subjects) == ["S9", "S11"] and whole.table == evaluate(Oracle(CLIPS.clips, noisy), CLIPS).table
    for subject, table in whole.subjects.items():
        alone = evaluate(Oracle(CLIPS.clips, noisy), CLIPS.select([subject])).table
        assert table == alone


def test_rescaling_gives_the_scale_away_and_says_so():
    def too_large(motion: Motion) -> Motion:
        return motion.replace(joints=motion.joints * 1.25, trajectory=motion.trajectory * 1.25)

    plain, rescaled = (evaluate(Oracle(CLIPS.clips, too_large), CLIPS, convention=name) for name in CONVENTIONS)
    lengths = np.concatenate([np.linalg.norm(c.motion.joints, axis=-1) for c in CLIPS.clips])
    assert plain.table.over_frames.scores["mpjpe_mm"] == pytest.approx(250 * lengths.mean(), rel=1e-4)
    assert rescaled.table.over_frames.scores["mpjpe_mm"] == pytest.approx(0, abs=1e-3)
    assert rescaled.table.over_frames.scores["root_depth_percent"] > 20  # the root itself is as predicted
    assert plain.notes[0].startswith("metric") and rescaled.notes[0].startswith("rescaled by ground truth")
    # A pose that is wrong at the right depth is not helped.
    wrong = [evaluate(Oracle(CLIPS.clips, lambda m: m.replace(joints=m.joints * 1.25)), CLIPS, convention=name)
             for name in CONVENTIONS]  # fmt: skip
    assert wrong[0].table == wrong[1].table


def test_flip_reaches_the_lifter_and_the_notes():
    for flip in (True, False):
        oracle = Oracle(CLIPS.clips, noisy)
        notes = " ".join(evaluate(oracle, CLIPS, flip=flip).notes)
        assert oracle.flip is flip and f"{'with' if flip else 'without'} flip" in notes


def test_other_layouts_are_compared_by_name_about_the_hips():
    smpl = get_skeleton("smpl24")
    truth = person(10, 3, smpl)
    names = shared_joints(H36M, smpl)
    assert set(names) == {f"{side}_{part}" for side in ("left", "right")
                          for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")}  # fmt: skip
    assert "head" in H36M.joints and "head" in smpl.joints  # the same name for another point

    def as_h36m(motion: Motion) -> Motion:
        joints = np.zeros((len(motion), 17, 3))
        joints[:, H36M.indices(names)] = motion.joints[:, smpl.indices(names)] + [0.1, 0, 0]
        return Motion(joints, motion.trajectory - [0.1, 0, 0], None, H36M, motion.fps)

    one = clip("S1", "Run", 10, 3, motion=truth)
    found = evaluate(Oracle([one], as_h36m), ClipList([one]))
    assert found.joints == names and "relative to the middle of the hips" in found.notes[2]
    scores = found.table.rows[0].scores
    assert scores["mpjpe_mm"] == pytest.approx(0, abs=1e-3) and scores["root_mm"] == pytest.approx(0, abs=1e-3)
    with pytest.raises(ValueError, match="share no joint"):
        shared_joints(H36M, replace(smpl, name="other", joints=tuple(str(k) for k in range(24))))


def test_frames_without_truth_are_left_out():
    motion = person(10, 0)
    joints, root = motion.joints.copy(), motion.trajectory.copy()
    joints[:4], root[:4] = np.nan, np.nan
    one = clip("S1", "Run", 10, 0)
    one = replace(one, motion=motion.replace(joints=joints, trajectory=root))
    found = evaluate(Oracle([one], lambda _: noisy(motion)), ClipList([one]))
    assert found.table.rows[0].frames == 6
    expected = metrics.mpjpe(noisy(motion).joints[4:], motion.joints[4:])
    assert found.table.rows[0].scores["mpjpe_mm"] == pytest.approx(1000 * expected)


def test_clips_without_a_camera_have_no_root_error():
    bare = ClipList([replace(one, camera=None) for one in CLIPS.clips])
    scores = evaluate(Oracle(bare.clips, noisy), bare).table.over_frames.scores
    assert "root_mm" not in scores and "mpjpe_mm" in scores
    with pytest.raises(ValueError, match="clip S9/Walking/a has no camera.*use 'metric'"):
        evaluate(Oracle(bare.clips, noisy), bare, convention="rescaled")


def test_a_real_model_from_its_weights():
    config = TemporalConfig(channels=8, widths=(3,))
    weights = describe_temporal(build(config).eval(), None, skeleton_in="h36m17", skeleton_out="h36m17", fps=50.0,
                                training="", licence="", metrics={})  # fmt: skip
    with_flip, without = (evaluate(weights, CLIPS, flip=flip) for flip in (True, False))
    assert with_flip.weights == "memory" and with_flip.data == "five takes"
    assert with_flip.table != without.table
    lifter = TemporalLifter(weights)
    one = CLIPS.clips[2]
    expected = metrics.mpjpe(lifter.predict(one.keypoints, CAMERA, repair=False, flip=False).joints, one.motion.joints)
    assert without.table.rows[0].scores["mpjpe_mm"] == pytest.approx(1000 * expected)


class Counting(ClipSet):
    """Clips made when read; counts how many live."""

    name, skeleton_in, skeleton_out = "counting", H36M, H36M

    def __init__(self):
        self.infos = tuple(clip("S1", f"Run {k}", 5, k).info for k in range(12))
        self.alive, self.most = [], 0

    def _read(self, index, start, stop):
        made = clip("S1", f"Run {index}", 5, index)
        self.alive.append(1)
        weakref.finalize(made, self.alive.pop)
        self.most = max(self.most, len(self.alive))
        return made


def test_one_clip_at_a_time_is_in_memory():
    clips, gone = Counting(), []
    oracle = Oracle([clip("S1", "Run", 5, k) for k in range(12)], noisy)

    def progress(indices, total, title):
        gone.append((total, title))
        return indices

    evaluate(oracle, clips, progress=progress)
    assert gone == [(12, "evaluating")] and clips.most == 1


def test_bad_input():
    with pytest.raises(ValueError, match="expected one of metric, rescaled"):
        evaluate(Oracle([], noisy), CLIPS, convention="both")
    with pytest.raises(ValueError, match="none of the 5 clips of five takes has a true motion"):
        evaluate(Oracle([], noisy), CLIPS.without_labels())

    def fail(_):
        raise ValueError("none of the 12 frames has a visible joint")

    with pytest.raises(ValueError, match="clip S9/Walking/a cannot be lifted: none of the 12"):
        evaluate(Oracle(CLIPS.clips, fail), CLIPS)


# ---- tables


def found_by_subject():
    return evaluate(replace_name(Oracle(CLIPS.clips, noisy), "own_net 50% & more"), CLIPS, by_subject=True)


def replace_name(oracle, name):
    oracle.source = name
    return oracle


def test_markdown_holds_every_number():
    found = found_by_subject()
    text = to_markdown(found)
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    lines = [[cell.strip() for cell in line] for line in lines]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 7 + 2 + 4 + 6
    header, walking = lines[0], next(line for line in lines if line[0] == "Walking")
    scores = found.table.rows[2].scores
    for metric in METRICS:
        printed = float(walking[header.index(metric.title)])
        assert printed == pytest.approx(scores[metric.key], abs=0.51 * 10**-metric.digits)
    assert "### S11" in text and all(f"- {note}" in text for note in found.notes)


def test_latex_is_well_formed():
    text = to_latex(found_by_subject())
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {len(METRICS) + 1}
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert "²" not in body and r"PCK@150 \%" in body
    assert r"{\footnotesize metric: predictions are scored in metres" in body  # printed, as under every other table
    assert body.count("%") == body.count(r"\%")


def test_json_comes_back(tmp_path):
    found = found_by_subject()
    data = json.loads(to_json(found))
    assert data["table"]["rows"][2]["scores"] == found.table.rows[2].scores
    assert data["subjects"]["S9"]["over_rows"]["name"] == "Mean over actions" and data["joints"] == list(H36M.joints)
    for name in ("t.json", "t.md", "t.tex"):
        write_table(tmp_path / name, found)
    assert json.loads((tmp_path / "t.json").read_text("utf-8")) == data
    assert (tmp_path / "t.md").read_text("utf-8") == to_markdown(found)
    with pytest.raises(ValueError, match="ends in .json, .md, .tex"):
        write_table(tmp_path / "t.html", found)


# ---- a result beside the truth


def take(motions: dict, frames: int, frame_times=None) -> Take:
    times = np.arange(frames) / 50 if frame_times is None else frame_times
    keypoints = Keypoints2D(np.ones((frames, 17, 2)), None, H36M, CAMERA.image_size, 50.0)
    people = tuple(Person(number, keypoints, motion) for number, motion in motions.items())
    return Take("clip", CAMERA.image_size, 50.0, times, CAMERA, people, metadata={"weights": "w 1"})


def truth_of(motion: Motion) -> Truth:
    return Truth(motion.absolute.astype(np.float64), np.arange(len(motion)) / 50, motion.skeleton, "truth.npz")


def test_each_person_of_a_result_beside_the_truth():
    motion = person(30, 1)
    other = motion.replace(trajectory=motion.trajectory + [1, 0, 0])
    late = motion.replace(joints=np.where(np.arange(30)[:, None, None] < 10, np.nan, motion.joints),
                          trajectory=np.where(np.arange(30)[:, None] < 10, np.nan, motion.trajectory))  # fmt: skip
    found = evaluate_result(take({1: noisy(motion), 2: other, 5: late, 7: None}, 30), truth_of(motion))
    rows = {row.name: row for row in found.table.rows}
    assert {name: row.frames for name, row in rows.items()} == {"person 1": 30, "person 2": 30, "person 5": 20}
    scores, pair = rows["person 1"].scores, (noisy(motion).joints, motion.joints)
    assert scores["mpjpe_mm"] == pytest.approx(1000 * metrics.mpjpe(*pair), rel=1e-4)
    assert scores["mpjve_mm_frame"] == pytest.approx(1000 * metrics.mpjve(*pair), rel=1e-4)
    assert rows["person 2"].scores["root_mm"] == pytest.approx(1000, rel=1e-5)
    assert rows["person 5"].scores["mpjpe_mm"] == pytest.approx(0, abs=1e-3)
    assert found.data == "truth.npz" and found.weights == "w 1"


def test_results_at_other_times_and_in_the_world():
    motion = person(41, 2)  # moves evenly, so that interpolating is exact
    rotation = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    camera = replace(CAMERA, rotation=rotation, translation=np.array([0.1, 0.2, 1.0]))
    times = np.arange(20) / 25 + 0.01
    truth = truth_of(motion)
    seen = truth.at(times, 25.0)
    world = camera.to_world(seen.absolute)
    moved = Motion(world - world[:, :1], world[:, 0], None, H36M, 50.0, "world")
    result = take({1: moved}, 20, times).replace(camera=camera)
    scores = evaluate_result(result, truth).table.rows[0].scores
    assert scores["mpjpe_mm"] == pytest.approx(0, abs=1e-3) and scores["root_mm"] == pytest.approx(0, abs=2e-3)


def test_truth_beyond_the_result_and_nobody():
    motion = person(10, 1)
    with pytest.raises(ValueError, match="in which the result 'clip' has nobody"):
        evaluate_result(take({1: motion}, 10, 100 + np.arange(10) / 50), truth_of(motion))
    with pytest.raises(ValueError, match="nobody with a lifted motion"):
        evaluate_result(take({1: None}, 10), truth_of(motion))


def test_truth_files(tmp_path):
    motion = person(10, 1)
    layout = json.dumps({"skeletons": {"joints": "h36m17"}})
    np.savez(tmp_path / "a.npz", joints=motion.absolute, fps=25.0, metadata=layout)
    truth = read_truth(tmp_path / "a.npz")
    assert truth.skeleton == H36M and truth.times[1] == pytest.approx(0.04)
    np.testing.assert_allclose(truth.points, motion.absolute)
    np.savez(tmp_path / "b.npz", joints=motion.absolute[:, :15], times=np.arange(10.0))
    assert read_truth(tmp_path / "b.npz").skeleton.name == "humaneva15"
    for arrays, message in (({"points": motion.absolute}, "expected joints"),
                            ({"joints": motion.absolute, "times": np.zeros(10)}, "increasing"),
                            ({"joints": motion.absolute[:, :5], "fps": 5}, "unknown skeleton"),
                            ({"joints": motion.absolute[:, :5], "fps": 5,
                              "metadata": json.dumps({"skeletons": {"joints": "coco17"}})}, "names the layout coco17")):
        np.savez(tmp_path / "c.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            read_truth(tmp_path / "c.npz")
    with pytest.raises(FileNotFoundError):
        read_truth(tmp_path / "none.npz")
