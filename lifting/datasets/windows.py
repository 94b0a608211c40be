"""Training batches: chunks of frames and the frames around them, drawn from all clips in random order.

The sampler of Pavllo et al., "3D human pose estimation in video with temporal convolutions and semi-supervised
training", CVPR 2019, section 5: every sample predicts `chunk` frames and comes from a place of its own, so that the
samples of a batch are not correlated; every clip is there a second time, mirrored.

Every batch is a pure function of (seed, epoch, step, rank, world): resuming a run takes one number, and any process can
make any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from lifting.cameras import Camera
from lifting.datasets.clips import ClipSet
from lifting.datasets.frame_store import MEMORY, FrameStore, Span, fill_unseen, screen_coordinates
from lifting.skeletons import Skeleton

__all__ = ["Batch", "WindowConfig", "Windows", "fill_unseen", "intrinsic_numbers", "mirror", "screen_coordinates"]


@dataclass(frozen=True)
class WindowConfig:
    """How batches are cut from clips.

    Attributes:
        before, after: frames of context around a chunk; together the receptive field less one.
        chunk: frames that a sample predicts, side by side.
        batch: frames that a step predicts, in batch // chunk samples.
        downsample: use every so many frames.
        flip: have every clip a second time, mirrored.
        seed: of the order in which samples are drawn.
        scores: give the confidence of each keypoint as a third number, and do not interpolate unseen ones.

    Raises ValueError for numbers below 0 (context, seed) or 1 (all else) and for a batch smaller than a chunk.
    """

    before: int
    after: int
    chunk: int = 1
    batch: int = 1024
    downsample: int = 1
    flip: bool = True
    seed: int = 0
    scores: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        for name, least in (("before", 0), ("after", 0), ("seed", 0), ("chunk", 1), ("batch", 1), ("downsample", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}; correct it.")
        if self.batch < self.chunk:
            raise ValueError(f"a batch of {self.batch} frames holds no chunk of {self.chunk}; "
                             "make the batch larger or the chunk (stride) smaller.")

    @property
    def samples(self) -> int:
        """Samples of a step: batch // chunk."""
        return self.batch // self.chunk

    @property
    def frames(self) -> int:
        """Frames of a sample: before + chunk + after."""
        return self.before + self.chunk + self.after


@dataclass
class Batch:
    """N samples; numpy float32 (or, after `map`, torch tensors). Predicted frames are the chunk's.

    Attributes:
        keypoints: (N, before + chunk + after, J, 2|3) screen coordinates, interpolated where unseen (`fill_unseen`) or,
            with scores, all 0 there.
        pixels: (N, chunk, J, 2) px of the predicted frames; NaN where unseen and in repeated frames.
        joints: (N, chunk, J_out, 3) metres relative to the root, camera frame; 0 where not valid. None: unlabelled.
        root: (N, chunk, 3) metres, camera frame; 0 where not valid. None: no trajectory known.
        intrinsics: (N, 9) fx fy cx cy px, then OpenCV's k1 k2 p1 p2 k3; NaN rows where unknown. None: all unknown.
        image_size: (N, 2) width, height px.
        valid: (N, chunk) bool: a frame that counts. Not valid are frames whose label is missing, and those that fill
            a chunk beyond the end of a clip, which would count its end frame again.
        clips: (N,) int64, which clip of the set; frames: (N, chunk) int64, which of its frames.
        flipped: (N,) bool: the mirrored twin. Mirrored are keypoints, pixels, joints, root and intrinsics.
    """

    keypoints: Any
    pixels: Any
    joints: Any | None
    root: Any | None
    intrinsics: Any | None
    image_size: Any
    valid: Any
    clips: Any
    frames: Any
    flipped: Any

    def __len__(self) -> int:
        """N."""
        return len(self.keypoints)

    def map(self, function: Callable[[Any], Any]) -> Batch:
        """The batch with every array, but not None, replaced by what the function makes of it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(value) for name, value in values.items() if value is not None})


def intrinsic_numbers(camera: Camera | None) -> np.ndarray:
    """(9,) float32 fx fy cx cy px, k1 k2 p1 p2 k3 in OpenCV's order and meaning; NaN for an unknown camera."""
    if camera is None:
        return np.full(9, np.nan, np.float32)
    return np.concatenate([camera.focal, camera.center, camera.distortion]).astype(np.float32)


def mirror(batch: Batch, which: slice, skeleton_in: Skeleton, skeleton_out: Skeleton | None) -> None:
    """Mirror some samples of a numpy batch, in place: x is reversed, left and right joints change places.

    The camera is mirrored, too: cx becomes width - cx and p2 becomes -p2 (that term alone is even in x), so that
    mirrored joints project onto mirrored pixels. Mirrored twice, a sample is itself again.
    """
    width = batch.image_size[which, 0]
    _mirror_points(batch.keypoints[which], skeleton_in.flip)
    _mirror_points(batch.pixels[which], skeleton_in.flip, width[:, None, None])
    if batch.joints is not None:
        _mirror_points(batch.joints[which], skeleton_out.flip)
    if batch.root is not None:
        _mirror_points(batch.root[which, :, None], (0,))
    if batch.intrinsics is not None:
        batch.intrinsics[which, 2] = width - batch.intrinsics[which, 2]
        batch.intrinsics[which, 7] *= -1
    batch.flipped[which] ^= True


def _mirror_points(points: np.ndarray, flip: tuple[int, ...], width: np.ndarray | float = 0.0) -> None:
    """Replace x of points (N, T, J, 2|3) by width - x and permute the joints, in place."""
    permuted = points.take(flip, axis=2)
    np.subtract(width, permuted[..., 0], out=points[..., 0])
    points[..., 1:] = permuted[..., 1:]


class Windows:
    """All samples of a clip set, in an order of its own in each epoch.

    Used are the frames of each clip's range in `ranges`, index -> (start, stop); None: of all clips, whole. They are
    cut into chunks side by side, so that each is predicted once an epoch, and once more by the mirrored twin. Where
    they are no multiple of `chunk`, the chunks lie centred and reach beyond both ends of the range. What lies beyond
    is the end frame repeated, as in the paper: a label budget hides the frames around it.

    The samples of an epoch are shared evenly among its steps (sizes differ by one at most), so that no small batch at
    the end spoils the batch norms. Within a batch, the mirrored ones come last.

    Attributes:
        samples: samples of an epoch.
        steps_per_epoch: steps of an epoch, at least one.
        in_memory: whether all frames were read at once, since they take at most `memory` bytes; else each batch reads
            its own. The numbers are the same.

    Raises ValueError for a range outside its clip, no clips at all, and clips of which only some have labels or a
    trajectory; what `ClipSet.read` raises.
    """

    def __init__(self, clips: ClipSet, config: WindowConfig, ranges: Mapping[int, tuple[int, int]] | None = None,
                 memory: int = MEMORY) -> None:
        self.clips, self.config = clips, config
        spans = _spans(clips, ranges, config.downsample)
        self._store = FrameStore(clips, spans, config.scores, memory)
        self._index, self._start = np.array([span[:2] for span in spans], np.int64).T
        self._sizes = np.array([clips.infos[span.index].image_size for span in spans], np.float32)
        cameras = np.stack([intrinsic_numbers(clips.infos[span.index].camera) for span in spans])
        self._intrinsics = None if np.isnan(cameras).all() else cameras
        chunks = -(-self._store.rows // config.chunk)
        self._lead = (chunks * config.chunk - self._store.rows) // 2  # rows by which the first chunk begins early
        self._first_chunk = np.concatenate([[0], np.cumsum(chunks)])
        self._chunks = int(self._first_chunk[-1])
        self._orders: dict[int, np.ndarray] = {}
        self.samples = self._chunks * (2 if config.flip else 1)
        self.steps_per_epoch = -(-self.samples // config.samples)

    @property
    def in_memory(self) -> bool:
        """Whether all frames are in memory."""
        return self._store.in_memory

    def batch_at(self, position: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch of a running number, which counts the steps of all epochs from 0."""
        return self.batch(*divmod(position, self.steps_per_epoch), rank, world)

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch of one step, or the part of it that process `rank` of `world` takes; all parts together are it.

        Raises ValueError for a step or rank that does not exist and when a process would get no sample; what
        `ClipSet.read` raises.
        """
        numbers = self._draw(epoch, step, rank, world)
        flipped, chunk = numbers >= self._chunks, numbers % self._chunks
        span = np.searchsorted(self._first_chunk, chunk, side="right") - 1
        batch = self._cut(span, (chunk - self._first_chunk[span]) * self.config.chunk - self._lead[span])
        mirror(batch, slice(int(np.count_nonzero(~flipped)), None), self.clips.skeleton_in, self.clips.skeleton_out)
        return batch

    def _draw(self, epoch: int, step: int, rank: int, world: int) -> np.ndarray:
        """The sample numbers of one process's part of a step, sorted; from `_chunks` on they are mirrored twins."""
        if epoch < 0 or not 0 <= step < self.steps_per_epoch or not 0 <= rank < world:
            raise ValueError(f"got epoch {epoch}, step {step}, rank {rank} of {world}; expected an epoch from 0, a "
                             f"step within 0..{self.steps_per_epoch - 1} and a rank below the number of processes.")
        low, high = (self.samples * number // self.steps_per_epoch for number in (step, step + 1))
        if high - low < world:
            raise ValueError(f"a step has {high - low} samples for {world} processes, expected at least one each; "
                             "use fewer processes, larger batches or more data.")
        return np.sort(self._order(epoch)[low + rank : high : world]).astype(np.int64)

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch; two are kept, for batches that are made across the border of epochs."""
        if (order := self._orders.get(epoch)) is None:
            order = np.arange(self.samples, dtype=np.int32 if self.samples < 2**31 else np.int64)
            np.random.Generator(np.random.PCG64([self.config.seed, epoch])).shuffle(order)
            self._orders = {**dict(list(self._orders.items())[-1:]), epoch: order}  # a new dict: threads read the old
        return order

    def _cut(self, span: np.ndarray, first: np.ndarray) -> Batch:
        """The samples whose chunks begin at rows `first` (N,) of the spans (N,), none of them mirrored."""
        config, rows = self.config, self._store.rows[span][:, None]
        wanted = first[:, None] + np.arange(-config.before, config.chunk + config.after)
        existing = np.clip(wanted, 0, rows - 1)
        chunk = slice(config.before, config.before + config.chunk)
        beyond = (wanted != existing)[:, chunk]
        table = self._store.gather(span, existing, chunk)
        if not config.scores:
            holed = np.isnan(table["keypoints"]).any((1, 2, 3))
            table["keypoints"][holed] = fill_unseen(table["keypoints"][holed])
        table["valid"][beyond], table["pixels"][beyond] = False, np.nan
        intrinsics = None if self._intrinsics is None else self._intrinsics[span]
        frames = self._start[span][:, None] + existing[:, chunk] * config.downsample
        return Batch(**{"joints": None, "root": None, **table}, intrinsics=intrinsics, image_size=self._sizes[span],
                     clips=self._index[span], frames=frames, flipped=np.zeros(len(span), bool))


def _spans(clips: ClipSet, ranges: Mapping[int, tuple[int, int]] | None, step: int) -> list[Span]:
    """The used frames of each clip, checked."""
    if ranges is None:
        ranges = {index: (0, info.frames) for index, info in enumerate(clips.infos)}
    if not ranges:
        raise ValueError(f"no clip of {clips.name} was chosen, expected at least one; choose other subjects.")
    for index, (start, stop) in ranges.items():
        frames = clips.infos[index].frames if 0 <= index < len(clips) else 0
        if not 0 <= start < stop <= frames:
            raise ValueError(f"got the range {start}..{stop} of clip {index}, which has {frames} frames; choose at "
                             "least one frame that exists.")
    return [Span(index, start, stop, step) for index, (start, stop) in sorted(ranges.items())]
