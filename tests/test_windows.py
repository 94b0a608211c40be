"""Windows: what a batch holds, that an epoch holds everything once, and that nothing depends on how it is made."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_clips import CAMERAS, random_clip, random_clips

from lifting.cameras import Camera
from lifting.datasets.clips import ClipList
from lifting.datasets.frame_store import windows_to_blocks
from lifting.datasets.windows import Batch, WindowConfig, Windows, mirror, screen_coordinates
from lifting.skeletons import get_skeleton

H36M = get_skeleton("h36m17")
ARRAYS = [field.name for field in dataclasses.fields(Batch)]


class CountingClips(ClipList):
    """Clips in memory that remember which frames of which were asked for."""

    def __init__(self, clips):
        super().__init__(clips)
        self.asked = []

    def _read(self, index, start, stop):
        self.asked.append((index, start, stop))
        return super()._read(index, start, stop)


def assert_equal(first, second):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name, strict=True)


def joined(batches):
    """One batch of several."""
    def join(name):
        values = [getattr(batch, name) for batch in batches]
        return None if values[0] is None else np.concatenate(values)

    return Batch(**{name: join(name) for name in ARRAYS})


def ordered(batch):
    """The same samples, sorted by clip, frame and twin."""
    order = np.lexsort((batch.flipped, batch.frames[:, -1], batch.frames[:, 0], batch.clips))
    return batch.map(lambda array: array[order])


def epoch_of(windows, epoch=0):
    return joined([windows.batch(epoch, step) for step in range(windows.steps_per_epoch)])


@st.composite
def plans(draw):
    """Lengths of clips, ranges within some of them, and a configuration."""
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    ranges = {}
    for index in draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1)):
        start = draw(st.integers(0, lengths[index] - 1))
        ranges[index] = (start, draw(st.integers(start + 1, lengths[index])))
    chunk = draw(st.integers(1, 6))
    config = WindowConfig(before=draw(st.integers(0, 5)), after=draw(st.integers(0, 5)), chunk=chunk,
                          batch=draw(st.integers(chunk, 40)), downsample=draw(st.integers(1, 3)),
                          flip=draw(st.booleans()), seed=draw(st.integers(0, 5)), scores=draw(st.booleans()))
    return lengths, draw(st.sampled_from([None, ranges])), config


@given(plans())
def test_an_epoch_predicts_each_frame_once_per_twin(plan):
    lengths, ranges, config = plan
    windows = Windows(random_clips(lengths), config, ranges)
    batch = epoch_of(windows)
    clips = np.broadcast_to(batch.clips[:, None], batch.frames.shape)[batch.valid]
    twins = np.broadcast_to(batch.flipped[:, None], batch.frames.shape)[batch.valid]
    predicted = sorted(zip(clips.tolist(), batch.frames[batch.valid].tolist(), twins.tolist(), strict=True))
    ranges = ranges or {index: (0, frames) for index, frames in enumerate(lengths)}
    expected = [(index, frame, twin) for index, (start, stop) in ranges.items()
                for frame in range(start, stop, config.downsample) for twin in {False, config.flip}]
    assert predicted == sorted(expected)
    assert len(batch) == windows.samples


def slow_sample(clips, config, ranges, clip, first_row, flipped):
    """One sample, frame by frame, from the clip's own mirror image where it is flipped."""
    whole = clips.read(clip)
    keypoints = whole.keypoints.flipped() if flipped else whole.keypoints
    start, stop = ranges[clip]
    numbers = range(start, stop, config.downsample)
    sample = {"keypoints": [], "pixels": [], "joints": [], "root": []}
    for row in range(first_row - config.before, first_row + config.chunk + config.after):
        number = numbers[min(max(row, 0), len(numbers) - 1)]
        xy, score = keypoints.xy[number], keypoints.score[number]
        width, height = keypoints.image_size
        screen = np.stack([(xy[:, 0] - width / 2) / (width / 2), (xy[:, 1] - height / 2) / (width / 2)], axis=-1)
        screen[score == 0] = 0 if config.scores else np.nan
        sample["keypoints"].append(np.concatenate([screen, score[:, None]], axis=-1)[:, : 3 if config.scores else 2])
        if first_row <= row < first_row + config.chunk:
            sign = [-1, 1, 1] if flipped else [1, 1, 1]
            joints = whole.motion.joints[number] * sign
            sample["pixels"].append(xy if 0 <= row < len(numbers) else np.full_like(xy, np.nan))
            sample["joints"].append(joints[list(H36M.flip)] if flipped else joints)
            sample["root"].append(whole.motion.trajectory[number] * sign)
    if not config.scores:
        sample["keypoints"] = interpolated(np.array(sample["keypoints"]))
    return sample


def interpolated(points):
    """Points (T, J, 2) with holes filled joint by joint and axis by axis."""
    filled, frames = points.copy(), np.arange(len(points))
    seen = ~np.isnan(points[..., 0])
    for joint in np.flatnonzero(seen.any(0)):
        known = seen[:, joint]
        for axis in range(2):
            filled[:, joint, axis] = np.interp(frames, frames[known], points[known, joint, axis])
    never = np.flatnonzero(~seen.any(0))
    filled[:, never] = filled[:, seen.any(0)].mean(1, keepdims=True) if seen.any() else 0
    return filled


@given(plans())
def test_samples_are_what_a_slow_twin_cuts(plan):
    lengths, ranges, config = plan
    clips = random_clips(lengths)
    windows = Windows(clips, config, ranges)
    ranges = ranges or {index: (0, frames) for index, frames in enumerate(lengths)}
    batch = windows.batch(3, windows.steps_per_epoch - 1)
    assert batch.keypoints.shape[1:] == (config.frames, 17, 3 if config.scores else 2)
    for number, clip in enumerate(batch.clips):
        start, stop = ranges[clip]
        rows = len(range(start, stop, config.downsample))
        lead = (math.ceil(rows / config.chunk) * config.chunk - rows) // 2
        inside = int(np.argmax(batch.valid[number]))
        first_row = (batch.frames[number, inside] - start) // config.downsample - inside
        assert (first_row + lead) % config.chunk == 0
        expected = slow_sample(clips, config, ranges, clip, first_row, batch.flipped[number])
        for name, tolerance in {"keypoints": 1e-6, "pixels": 1e-3, "joints": 1e-6, "root": 1e-6}.items():
            np.testing.assert_allclose(getattr(batch, name)[number], expected[name], atol=tolerance, rtol=0)


@given(plans(), st.integers(0, 3), st.integers(1, 4))
def test_the_ranks_parts_are_the_single_process_batch(plan, epoch, world):
    lengths, ranges, config = plan
    windows = Windows(random_clips(lengths), config, ranges)
    for step in range(windows.steps_per_epoch):
        whole = windows.batch(epoch, step)
        if len(whole) < world:
            with pytest.raises(ValueError, match=f"{len(whole)} samples for {world} processes"):
                windows.batch(epoch, step, 0, world)
            continue
        parts = [windows.batch(epoch, step, rank, world) for rank in range(world)]
        sizes = {len(part) for part in parts}
        assert max(sizes) - min(sizes) <= 1
        assert_equal(ordered(joined(parts)), ordered(whole))


@given(plans())
def test_reading_each_batch_gives_the_numbers_of_the_memory(plan):
    lengths, ranges, config = plan
    clips = random_clips(lengths)
    kept, read = Windows(clips, config, ranges), Windows(clips, config, ranges, memory=0)
    assert (kept.in_memory, read.in_memory) == (True, False)
    for step in range(kept.steps_per_epoch):
        assert_equal(kept.batch(1, step), read.batch(1, step))


@given(plans(), st.integers(0, 100))
def test_batches_are_a_pure_function_of_their_number(plan, position):
    lengths, ranges, config = plan
    clips = random_clips(lengths)
    windows, other = Windows(clips, config, ranges), pickle.loads(pickle.dumps(Windows(clips, config, ranges)))
    for before in (0, 7, position + 1):
        other.batch_at(before)
    assert_equal(windows.batch_at(position), other.batch_at(position))
    assert_equal(windows.batch_at(position), windows.batch(*divmod(position, windows.steps_per_epoch)))


@given(plans())
def test_sizes_of_batches_differ_by_one_at_most(plan):
    lengths, ranges, config = plan
    windows = Windows(random_clips(lengths), config, ranges)
    sizes = [len(windows.batch(0, step)) for step in range(windows.steps_per_epoch)]
    assert sum(sizes) == windows.samples
    assert max(sizes) <= config.samples
    assert max(sizes) - min(sizes) <= 1
    assert windows.steps_per_epoch == math.ceil(windows.samples / config.samples)


def test_epochs_and_seeds_differ_and_batches_are_mixed():
    clips = random_clips([200, 300])
    windows = Windows(clips, WindowConfig(0, 0, batch=50))
    first = windows.batch(0, 0)
    assert 0.2 < first.clips.mean() < 0.9
    assert 0.2 < first.flipped.mean() < 0.8
    for other in (windows.batch(1, 0), Windows(clips, WindowConfig(0, 0, batch=50, seed=1)).batch(0, 0)):
        assert len(set(first.frames[:, 0]) & set(other.frames[:, 0])) < 40


def test_a_sample_number_takes_four_bytes():
    windows = Windows(random_clips([40]), WindowConfig(0, 0))
    assert windows._order(0).dtype == np.int32
    np.testing.assert_array_equal(np.sort(windows._order(5)), np.arange(80))


def small_batch():
    windows = Windows(random_clips([9, 14]),
                      WindowConfig(2, 1, chunk=3, batch=60, scores=True, flip=False))
    return windows.batch(0, 0)


@given(st.integers(0, 4), st.integers(4, 8))
def test_mirrored_twice_is_the_sample_itself(first, last):
    batch, untouched = small_batch(), small_batch()
    mirror(batch, slice(first, last), H36M, H36M)
    for name in ("keypoints", "joints", "pixels", "root", "intrinsics", "flipped"):
        mirrored, original = (getattr(of, name)[first:last] for of in (batch, untouched))
        assert first == last or not np.array_equal(mirrored, original, equal_nan=True)
    mirror(batch, slice(first, last), H36M, H36M)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(batch, name), getattr(untouched, name), atol=1e-4, rtol=0)


def camera_of(numbers, image_size):
    return Camera(numbers[:2], numbers[2:4], image_size.astype(int), numbers[4:])


@given(st.integers(0, 20), st.booleans())
def test_mirrored_camera_projects_mirrored_joints_onto_mirrored_pixels(seed, flipped):
    clips = ClipList([random_clip(12, camera, seed=seed, action=str(number)) for number, camera in enumerate(CAMERAS)])
    batch = epoch_of(Windows(clips, WindowConfig(1, 1, chunk=4)))
    for number in np.flatnonzero(batch.flipped == flipped):
        camera = camera_of(batch.intrinsics[number], batch.image_size[number])
        projected = camera.project(batch.joints[number] + batch.root[number, :, None])
        seen = np.isfinite(batch.pixels[number])
        np.testing.assert_allclose(projected[seen], batch.pixels[number][seen], atol=2e-3, rtol=0)
        assert seen.mean() > 0.8


def test_unseen_keypoints_are_zero_in_the_input_and_nan_in_pixels():
    windows = Windows(ClipList([random_clip(50, unseen=0.4)]), WindowConfig(0, 0, batch=100, scores=True))
    batch = windows.batch(0, 0)
    unseen = np.isnan(batch.pixels[..., 0])
    assert 0.3 < unseen.mean() < 0.5
    assert not batch.keypoints[unseen].any()
    assert (batch.keypoints[~unseen][:, 2] > 0).all()
    assert all(getattr(batch, name).dtype == np.float32 for name in ARRAYS[:6])


def test_frames_without_a_label_are_not_valid():
    clip = random_clip(6)
    joints, root = clip.motion.joints.copy(), clip.motion.trajectory.copy()
    joints[2, 5, 1] = root[4, 0] = np.nan
    clip = dataclasses.replace(clip, motion=clip.motion.replace(joints=joints, trajectory=root))
    batch = Windows(ClipList([clip]), WindowConfig(0, 0, flip=False)).batch(0, 0)
    assert batch.valid[:, 0].tolist() == [True, True, False, True, False, True]
    assert not batch.joints[~batch.valid].any()
    assert not batch.root[~batch.valid].any()
    np.testing.assert_array_equal(batch.joints[batch.valid], clip.motion.joints[[0, 1, 3, 5]])


def test_what_is_not_known_is_none():
    bare = Windows(ClipList([dataclasses.replace(random_clip(5), motion=None, camera=None)]), WindowConfig(1, 1))
    batch = bare.batch(0, 0)
    assert (batch.joints, batch.root, batch.intrinsics) == (None, None, None)
    assert batch.valid.all()
    still = dataclasses.replace(random_clip(5), motion=random_clip(5).motion.replace(trajectory=None))
    batch = Windows(ClipList([still]), WindowConfig(1, 1)).batch(0, 0)
    assert batch.root is None
    assert batch.joints.shape == (10, 1, 17, 3)


def test_one_unknown_camera_is_nan_beside_known_ones():
    clips = ClipList([random_clip(5), dataclasses.replace(random_clip(5, action="other"), camera=None)])
    batch = epoch_of(Windows(clips, WindowConfig(0, 0)))
    np.testing.assert_array_equal(np.isnan(batch.intrinsics).all(axis=1), batch.clips == 1)
    np.testing.assert_array_equal(np.isnan(batch.intrinsics).any(axis=1), batch.clips == 1)


def test_screen_coordinates():
    corners = np.array([[0, 0], [1280, 720], [640, 360], [320, 360]], np.float32)
    np.testing.assert_allclose(screen_coordinates(corners, (1280, 720)),
                               [[-1, -0.5625], [1, 0.5625], [0, 0], [-0.5, 0]], atol=1e-7)


def test_only_frames_of_the_windows_are_read_and_each_once():
    clips = CountingClips([random_clip(1000), random_clip(1000, action="b")])
    windows = Windows(clips, WindowConfig(4, 4, batch=6), memory=0)
    clips.asked.clear()
    batch = windows.batch(0, 0)
    wanted = {(clip, frame) for clip, middle in zip(batch.clips, batch.frames[:, 0], strict=True)
              for frame in range(max(middle - 4, 0), min(middle + 5, 1000))}
    asked = [(index, frame) for index, start, stop in clips.asked for frame in range(start, stop)]
    assert len(asked) == len(set(asked))
    assert set(asked) == wanted


@given(st.data())
def test_blocks_hold_every_window(data):
    count, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 6))
    spans = np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    first = np.array(data.draw(st.lists(st.integers(0, 20), min_size=count, max_size=count)))
    rows = first[:, None] + np.arange(width)
    blocks, places = windows_to_blocks(spans, rows)
    read = [(block.span, row) for block in blocks for row in range(block.start, block.stop)]
    assert len(set(read)) == len(read)
    for window in range(count):
        found = [read[place] for place in places[window] + rows[window]]
        assert found == [(spans[window], row) for row in rows[window]]


@pytest.mark.parametrize(("options", "message"), [
    ({"before": -1}, "before is -1"), ({"chunk": 0}, "chunk is 0"), ({"seed": -1}, "seed is -1"),
    ({"chunk": 9, "batch": 8}, "a batch of 8 frames holds no chunk of 9"),
])  # fmt: skip
def test_bad_configurations_say_what_to_do(options, message):
    with pytest.raises(ValueError, match=message):
        WindowConfig(**{"before": 1, "after": 1, **options})


@pytest.mark.parametrize(("ranges", "message"), [
    ({}, "no clip of memory was chosen"), ({0: (3, 3)}, r"range 3\.\.3 of clip 0, which has 5"),
    ({0: (0, 6)}, r"0\.\.6"), ({4: (0, 1)}, "clip 4, which has 0"), ({0: (-1, 2)}, r"-1\.\.2"),
])  # fmt: skip
def test_bad_ranges_are_refused(ranges, message):
    with pytest.raises(ValueError, match=message):
        Windows(random_clips([5]), WindowConfig(0, 0), ranges)


def test_mixtures_are_refused():
    bare = random_clip(5, labelled=False, action="bare")
    with pytest.raises(ValueError, match="clip S1/Walking/a has labels and S1/bare/a has none"):
        Windows(ClipList([bare, random_clip(5)]), WindowConfig(0, 0))
    still = random_clip(5, action="still")
    still = dataclasses.replace(still, motion=still.motion.replace(trajectory=None))
    with pytest.raises(ValueError, match="S1/Walking/a and S1/still/a only one has a trajectory"):
        Windows(ClipList([random_clip(5), still]), WindowConfig(0, 0))
    Windows(ClipList([bare, random_clip(5)]), WindowConfig(0, 0), {1: (0, 5)})


@pytest.mark.parametrize("where", [(-1, 0, 0, 1), (0, 1, 0, 1), (0, -1, 0, 1), (0, 0, 1, 1), (0, 0, -1, 2)])
def test_steps_and_ranks_that_do_not_exist_are_refused(where):
    with pytest.raises(ValueError, match="expected an epoch from 0"):
        Windows(random_clips([5]), WindowConfig(0, 0)).batch(*where)
