"""The future of motions: values that can be worked out by hand, what must not change them, and bad input."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from filmed_walker import CAMERA, FPS, SIZE, filmed, walk_in_camera
from fitted_walker import QuickFit
from lifted_takes import lifted_take, walking_person
from walking_figure import H36M, walker

import lift
from lifting.body import fit as body_fit
from lifting.continuation import continued, fit_with_future, until
from lifting.forecasters import FORECASTERS, Constant, Forecast
from lifting.future import DEFAULT_PREDICTOR, FADED_SECONDS
from lifting.motion import Motion, Person, Take
from lifting.predict import AssumptionWarning
from lifting.rotations import rotvec_to_matrix
from lifting.world import place_in_world, presented


class Swinging:
    """A forecaster whose poses are the last one in bones of other lengths, whose path is a curve, and which samples."""

    name, context, longest = "swinging", 10, 12

    def __call__(self, seen, frames):
        k = np.arange(1, frames + 1) / 25
        joints = seen.joints[:, -1:] * (1 + k[None, :, None, None])
        joints = joints + 0.2 * np.sin(3 * k)[None, :, None, None] * (seen.joints[:, -1:] - seen.joints[:, -3:-2])
        ahead = seen.joints[:, -1:, 1] - seen.joints[:, -1:, 4]  # a direction that turns with the person
        root = seen.root[:, -1:] + ahead * np.sin(2 * k)[None, :, None]
        return Forecast(joints, root, np.repeat(seen.sigma[:, -1:], frames, 1) + k[None, :, None])

    def samples(self, seen, frames, count, rng):
        one = self(seen, frames)
        shift = rng.normal(size=(len(seen), count, 1, 3))
        return Forecast(np.repeat(one.joints[:, None], count, 1), one.root[:, None] + shift, one.sigma)


UP = np.array([0.0, 0.0, 1.0])


def moving(frames: int = 60, fps: float = 50.0, speed: float = 1.2) -> Motion:
    """A stiff pose that moves evenly through the world."""
    joints = np.repeat(walker(1), frames, axis=0).astype(np.float64)
    joints += (np.arange(frames) / fps)[:, None, None] * np.array([0.3, speed, 0.0])
    return Motion(joints - joints[:, :1], joints[:, 0], np.full((frames, 17), 0.02), H36M, fps, "world")


def walking(frames: int = 80, fps: float = 50.0, **options) -> Motion:
    joints = walker(frames, fps=fps, **options).astype(np.float64)
    return Motion(joints - joints[:, :1], joints[:, 0], np.full((frames, 17), 0.03), H36M, fps, "world")


def turned(motion: Motion, angle: float, shift: tuple[float, float, float]) -> Motion:
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return motion.replace(joints=motion.joints @ rotation.T, trajectory=motion.trajectory @ rotation.T + shift)


def seen_by_camera(motion: Motion) -> Motion:
    """The same motion in the axes of a level camera behind, whose floor is 1.4 m below."""
    rotation = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    path = motion.trajectory @ rotation.T + [0, 1.4, 4]
    return motion.replace(joints=motion.joints @ rotation.T, trajectory=path, frame="camera")


def bone_lengths(joints: np.ndarray) -> np.ndarray:
    return np.stack([np.linalg.norm(joints[:, b] - joints[:, a], axis=-1) for a, b in H36M.bones], -1)


# ---- values


@pytest.mark.parametrize("fps", [12.5, 24.0, 25.0, 30.0, 50.0, 59.94, 120.0])
def test_even_motion_goes_on_exactly_at_any_rate(fps):
    whole = moving(round(3 * fps), fps)
    past = whole.slice(0, round(2 * fps))
    ahead = lift.future(past, 0.8, predictor="constant_velocity")
    assert len(ahead) == round(0.8 * fps) and ahead.fps == fps and ahead.frame == "world"
    truth = whole.absolute[len(past) : len(past) + len(ahead)]
    np.testing.assert_allclose(ahead.absolute, truth, atol=2e-5)


def test_bones_have_the_median_lengths_of_the_past():
    past = walking()
    rng = np.random.default_rng(3)
    shaky = past.replace(joints=past.joints * (1 + 0.05 * rng.standard_normal((len(past), 1, 1))))
    ahead = lift.future(shaky, 0.48, predictor=Swinging())  # whose poses grow by half
    lengths = bone_lengths(ahead.joints.astype(np.float64))
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), atol=1e-6)
    np.testing.assert_allclose(lengths[0], np.median(bone_lengths(shaky.joints.astype(np.float64)), axis=0), atol=1e-6)


class Doubting(Swinging):
    """Corrects the last seen pose and place, as networks do: by 5 cm from the first frame on."""

    def __call__(self, seen, frames):
        said = FORECASTERS["constant_velocity"]()(seen, frames)
        shift = 0.05 * (np.arange(17) == H36M.index("head"))[:, None] * np.array([1.0, 0.0, 0.0])
        return Forecast(said.joints + shift, said.root + 0.05 * UP, said.sigma)


def test_a_correction_comes_gradually():
    past = moving(60, 25.0)
    ahead = lift.future(past, 0.4, predictor=Doubting())
    even = lift.future(past, 0.4, predictor="constant_velocity")
    k = np.arange(1, 11) / 25
    rise = ahead.trajectory[:, 2] - even.trajectory[:, 2]
    np.testing.assert_allclose(rise, 0.05 * (1 - np.exp(-k / FADED_SECONDS)), atol=1e-5)
    head = (ahead.joints - even.joints)[:, H36M.index("head"), 0]
    assert head[0] < 0.45 * head[-1] and 0.04 < head[-1] < 0.06


def test_nothing_jumps_at_the_seam():
    past = walking(100)
    steps = np.linalg.norm(np.diff(past.absolute, axis=0), axis=-1).max()
    for predictor in ("constant_velocity", Swinging()):
        ahead = lift.future(past, 0.4, predictor=predictor)
        seam = np.linalg.norm(ahead.absolute[0] - past.absolute[-1], axis=-1).max()
        assert seam < 1.2 * steps, (predictor, seam, steps)
    still = lift.future(past, 0.4, predictor="constant")
    assert np.linalg.norm(still.absolute - past.absolute[-1], axis=-1).max() < 1e-6


@pytest.mark.filterwarnings("ignore::lifting.predict.AssumptionWarning")
@pytest.mark.parametrize("predictor", ["constant_velocity", Swinging()], ids=["velocity", "swinging"])
def test_where_somebody_stands_and_faces_does_not_matter(predictor):
    past = walking()
    moved = turned(past, 2.3, (5.0, -3.0, 0.0))
    expected = turned(lift.future(past, 1.0, predictor=predictor), 2.3, (5.0, -3.0, 0.0))
    found = lift.future(moved, 1.0, predictor=predictor)
    np.testing.assert_allclose(found.absolute, expected.absolute, atol=1e-5)
    np.testing.assert_allclose(found.sigma, expected.sigma, atol=1e-6)


def test_the_frame_rate_does_not_matter():
    slow, fast = walking(60, 25.0), walking(240, 100.0)
    fast = fast.slice(0, 4 * 59 + 1)  # both end at the same moment
    at_25, at_100 = (lift.future(past, 0.8, predictor=Constant()) for past in (slow, fast))
    np.testing.assert_allclose(at_100.absolute[3::4], at_25.absolute, atol=1e-4)
    at_25, at_100 = (lift.future(past, 0.4, predictor=Swinging()) for past in (slow, fast))
    np.testing.assert_allclose(at_100.absolute[3::4], at_25.absolute, atol=2e-3)


def test_in_camera_axes_the_same_is_said_as_in_the_world():
    past = walking(120)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        found = lift.future(seen_by_camera(past), 0.4, predictor=Swinging())
    expected = seen_by_camera(lift.future(past, 0.4, predictor=Swinging()))
    assert found.frame == "camera"
    np.testing.assert_allclose(found.absolute, expected.absolute, atol=1e-5)


def test_sigma_is_that_of_the_forecast():
    past = walking()
    ahead = lift.future(past, 0.4, predictor=Swinging())
    np.testing.assert_allclose(ahead.sigma[:, 5], 0.03 + np.arange(1, 21) / 50, atol=1e-5)


def test_no_trajectory_stays_none():
    past = walking().replace(trajectory=None)
    ahead = lift.future(past, 0.4, predictor="constant")
    assert ahead.trajectory is None
    np.testing.assert_allclose(ahead.joints, np.broadcast_to(past.joints[-1], ahead.joints.shape), atol=1e-6)


# ---- what is stated


def stated(source, *arguments, **options) -> tuple[object, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = lift.future(source, *arguments, **options)
    assert all(warning.category is AssumptionWarning for warning in caught)
    return found, [str(warning.message) for warning in caught]


def test_a_short_past_is_said():
    whole = moving(60, 25.0)
    _, said = stated(whole.slice(0, 4), 0.4, predictor=Swinging())
    assert said == ["the past has 4 frames at 25/s, the predictor wants 10: the first one was repeated before it"]
    ahead, said = stated(whole.slice(0, 1), 0.4, predictor="constant_velocity")
    assert "the past has 1 frame at" in said[0]
    np.testing.assert_allclose(ahead.absolute - whole.absolute[0], 0, atol=1e-6)


def test_a_far_future_is_rolled_on_and_said():
    ahead, said = stated(walking(), 2.0, predictor=Swinging())
    assert len(ahead) == 100 and np.isfinite(ahead.absolute).all()
    assert len(said) == 1 and said[0].startswith("the predictor swinging says 0.48 s at once")
    assert (np.diff(ahead.sigma[:, 3]) > -1e-6).all()


def test_gaps_are_bridged_and_said():
    whole = moving(60, 25.0)
    joints, path = whole.joints.copy(), whole.trajectory.copy()
    joints[50:53], path[50:53] = np.nan, np.nan
    ahead, said = stated(whole.replace(joints=joints, trajectory=path), 0.4, predictor="constant_velocity")
    assert said == ["3 frames without a pose in the last second were bridged by straight lines"]
    np.testing.assert_allclose(ahead.absolute, moving(70, 25.0).absolute[60:], atol=1e-5)


def test_who_has_left_goes_on_from_where_they_were_last_seen():
    whole = moving(75, 25.0)
    joints, path = whole.joints.copy(), whole.trajectory.copy()
    joints[50:65], path[50:65] = np.nan, np.nan
    ahead, said = stated(whole.replace(joints=joints, trajectory=path).slice(0, 65), 0.4, predictor="constant_velocity")
    assert said == ["last seen 15 frames before the end: the future goes on from there"]
    np.testing.assert_allclose(ahead.absolute, whole.absolute[65:75], atol=1e-5)


def test_an_unknown_camera_is_assumed_level_and_said():
    past = seen_by_camera(walking(3))
    _, said = stated(past, 0.2, predictor="constant")
    assert any("taken to be about level" in sentence for sentence in said)


# ---- samples


@pytest.mark.filterwarnings("ignore::lifting.predict.AssumptionWarning")
def test_samples_are_a_list_and_the_seed_repeats_them():
    past = walking()
    first, again = (lift.future(past, 1.0, predictor=Swinging(), samples=3, seed=5) for _ in range(2))
    other = lift.future(past, 1.0, predictor=Swinging(), samples=3, seed=6)
    assert len(first) == 3 and first == again and first[0] != first[1] and first[0] != other[0]
    lengths = bone_lengths(first[2].joints.astype(np.float64))
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), atol=1e-6)


# ---- people and takes


def filmed_take(frames: int = 60, people: int = 1) -> Take:
    joints = walk_in_camera(frames)
    motion = Motion(joints - joints[:, :1], joints[:, 0], np.full(joints.shape[:2], 0.04), H36M, FPS)
    everybody = tuple(Person(k, filmed(frames), motion) for k in range(1, people + 1))
    return Take("walk", SIZE, FPS, np.arange(frames) / FPS, CAMERA, everybody, (), {"detector": "test"})


@pytest.fixture(scope="module")
def placed() -> Take:
    return place_in_world(filmed_take(people=2))


def test_a_take_comes_back_with_everybodys_future(placed):
    found = lift.future(placed, 0.4, predictor="constant_velocity")
    assert found.metadata["future"] == {"predictor": "constant_velocity", "weights": None, "seconds": 0.4, "frames": 10,
                                        "warnings": []}
    for before, person in zip(placed.people, found.people, strict=True):
        assert dataclasses.replace(person, future=None) == before
        assert person.future.frame == "world"
        assert person.future == lift.future(before.world, 0.4, predictor="constant_velocity")
        assert lift.future(before, 0.4, predictor="constant_velocity").future == person.future


@pytest.mark.parametrize("suffix", [".npz", ".json", ".h5"])
def test_results_bring_the_future_back(placed, tmp_path, suffix):
    found = lift.future(placed, 0.4, predictor="constant_velocity")
    assert lift.load(lift.save(found, tmp_path / f"walk{suffix}")) == found


def test_a_table_leaves_the_future_out(placed, tmp_path):
    found = lift.future(placed, 0.4, predictor="constant_velocity")
    back = lift.load(lift.save(found, tmp_path / "walk.csv"))
    assert all(person.future is None for person in back.people)


def test_somebody_gone_has_none_and_the_rest_goes_on():
    gone = walking_person(2, "world", absent=(0, 0), frames=160)
    joints, path = gone.motion.joints.copy(), gone.motion.trajectory.copy()
    joints[40:], path[40:] = np.nan, np.nan
    gone = dataclasses.replace(gone, motion=gone.motion.replace(joints=joints, trajectory=path))
    take = lifted_take(walking_person(1, "world", frames=160), gone)
    found = lift.future(take, 0.2, predictor="constant")
    assert found.people[0].future is not None and found.people[1].future is None
    (sentence,) = found.metadata["future"]["warnings"]
    assert sentence.startswith("person 2: no future: last seen 2.4 s before the end, expected at most 1 s; predict")
    assert "from frame 39" in sentence
    with pytest.raises(ValueError, match="last seen 2.4 s before the end"):
        lift.future(gone, 0.2, predictor="constant")


def test_continued_is_one_time_line(placed):
    found = lift.future(placed, 0.4, predictor="constant_velocity")
    whole = continued(presented(found))
    assert len(whole) == 70 and np.allclose(np.diff(whole.times), 1 / FPS)
    np.testing.assert_array_equal(whole.people[1].motion.joints[60:], found.people[1].future.joints)
    np.testing.assert_array_equal(whole.people[1].motion.joints[:60], found.people[1].world.joints)
    assert not whole.people[0].keypoints.seen[60:].any()
    assert continued(placed) is placed


def test_other_programs_get_past_and_future(placed, tmp_path):
    found = lift.future(placed, 0.4, predictor="constant_velocity")
    lift.save(found, tmp_path / "walk.bvh")
    text = (tmp_path / "walk.bvh").read_text()
    assert "Frames: 70" in text
    (tmp_path / "plain").mkdir()
    lift.save(placed, tmp_path / "plain" / "walk.bvh")
    lines, plain = text.splitlines(), (tmp_path / "plain" / "walk.bvh").read_text().splitlines()
    assert len(lines) == len(plain) + 10


def test_until_forgets_what_came_later(placed):
    early = until(placed, 29)
    assert len(early) == 30 and early.people[0].world == placed.people[0].world.slice(0, 30)
    found = lift.future(early, 0.4, predictor="constant_velocity")
    whole = lift.future(placed, 0.4, predictor="constant_velocity")
    assert found.people[0].future != whole.people[0].future
    assert until(whole, 59).people[0].future is None
    for frame in (-1, 60):
        with pytest.raises(ValueError, match=f"got the frame {frame}, expected 0 to 59"):
            until(placed, frame)


# ---- bodies


@pytest.fixture
def quick_fit(monkeypatch):
    fake = QuickFit()
    monkeypatch.setattr(body_fit, "fit_body", fake)
    return fake


def test_past_and_future_get_one_body(placed, quick_fit):
    from lifting.body import load_body

    found = lift.future(placed, 0.4, predictor="constant_velocity")
    fitted = fit_with_future(found, body=load_body("lite"))
    person = fitted.people[0]
    assert person.body.frame == "camera" and person.future_body.frame == "world"
    assert len(person.body) == 60 and len(person.future_body) == 10
    np.testing.assert_array_equal(person.body.shape, person.future_body.shape)
    np.testing.assert_allclose(person.future_body.trajectory, person.future.trajectory, atol=1e-6)
    shown = presented(fitted).people[0]
    np.testing.assert_allclose(shown.body.trajectory, person.world.trajectory, atol=1e-5)
    root = rotvec_to_matrix(continued(presented(fitted)).people[0].body.rotations[:, 0])
    np.testing.assert_allclose(root, np.broadcast_to(root[0], root.shape), atol=1e-5)


@pytest.mark.parametrize("suffix", [".npz", ".json", ".h5"])
def test_results_bring_bodies_of_the_future_back(placed, quick_fit, tmp_path, suffix):
    from lifting.body import load_body

    found = fit_with_future(lift.future(placed, 0.4, predictor="constant"), body=load_body("lite"))
    assert lift.load(lift.save(found, tmp_path / f"walk{suffix}")) == found


def test_a_motion_with_a_body_becomes_a_person():
    found = lift.future(walking(16, 25.0), 0.2, predictor="constant", body=True)
    assert isinstance(found, Person) and len(found.future_body) == len(found.future) == 5
    assert len(found.body) == 16 and found.body.frame == found.future_body.frame == "world"
    seam = found.future_body.trajectory[0] - found.body.trajectory[-1]
    assert np.linalg.norm(seam) < 0.05


def test_a_person_of_the_world_alone_is_refused_a_body(placed):
    with pytest.raises(ValueError, match="pass the take to fit bodies"):
        lift.future(placed.people[0], 0.4, predictor="constant", body=True)


# ---- bad input


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 10.1, True, "1"])
def test_absurd_horizons_are_refused(seconds):
    with pytest.raises(ValueError, match="got a future of .* s, expected more than 0 and at most 10"):
        lift.future(walking(), seconds, predictor="constant")


def test_wrong_input_is_one_sentence():
    past = walking(30)
    nobody = past.replace(joints=np.full_like(past.joints, np.nan))
    other = Motion(np.zeros((3, 17, 3)), np.zeros((3, 3)), None, "coco17", 25.0)
    bare = lifted_take(dataclasses.replace(walking_person(), motion=None))
    for source, options, part in [
        (nobody, {}, "nobody is seen in any frame"),
        (other, {}, "layout 'coco17', expected 'h36m17'"),
        (bare, {}, "nobody in 'walk' has a 3D motion"),
        ("walk.npz", {}, "expected the path of a result, a Take"),
        (past, {"predictor": "oracle"}, "got the predictor 'oracle', expected one of constant"),
        (past, {"samples": -1}, "got -1 samples"),
        (past, {"samples": 1.5}, "got 1.5 samples"),
        (past, {"samples": 2}, "constant knows one future only, got 2 samples"),
    ]:
        with pytest.raises(ValueError, match=part) as caught:
            lift.future(source, 0.4, **{"predictor": "constant", **options})
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        lift.future(past, 0.4, predictor="none.safetensors")


def test_parts_of_a_future_must_fit_together(placed):
    person = lift.future(placed, 0.4, predictor="constant").people[0]
    with pytest.raises(ValueError, match="a future at 25; resample|a future at 50"):
        dataclasses.replace(person, future=person.future.replace(fps=50.0))
    body = QuickFit.stand(person.future, lift.load_body("lite"))
    with pytest.raises(ValueError, match="future of 10 frames .* future body of 5"):
        dataclasses.replace(person, future_body=body.slice(0, 5))
    short = dataclasses.replace(person, future=person.future.slice(0, 5))
    with pytest.raises(ValueError, match="span of their futures"):
        placed.replace(people=(short, dataclasses.replace(person, id=2)))


def test_the_default_predictor_is_one_of_the_table():
    assert DEFAULT_PREDICTOR in FORECASTERS
