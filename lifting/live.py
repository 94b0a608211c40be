"""Live: frames from a camera, one person detected and lifted in each, poses out, measured as it goes.

Frames are read on a thread of their own, which keeps only the newest: whoever is slower than the camera misses frames,
which are counted, and never falls behind. Each frame is lifted on a third thread while people are looked for in the
next one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lifting.cameras import Camera, estimate_focal
from lifting.keypoints import Detection
from lifting.live_sinks import PoseSink
from lifting.live_sources import FrameSource, LiveFrame
from lifting.streaming import Pose, PoseStream
from lifting.tracks import MIN_SIMILARITY, REIDENTIFY_SECONDS, TOLERANCE, TOLERANCE_GROWTH, pose_similarity

if TYPE_CHECKING:
    from lifting.detectors import Detector

PATIENCE_SECONDS = 3.0  # without a frame, after which a source counts as stalled
FIRST_PATIENCE_SECONDS = 15.0  # cameras take a while to start
WARM_UP_FRAMES = 5  # of somebody made up, beyond the look-ahead
MEASURED_FRAMES = 10_000  # that the times of a report are taken over, the last ones


class SourceError(OSError):
    """A source failed, or gives no more frames though it should."""


class NewestFrame:
    """The newest frame of a source, which is read on a thread.

    Iterate for frames. One that nobody took before the next came is dropped, and counted in `dropped`. Raises
    SourceError when the source fails or gives no frame for so long that it must have stalled.
    """

    def __init__(
        self, source: FrameSource, patience: float = PATIENCE_SECONDS, first_patience: float = FIRST_PATIENCE_SECONDS
    ) -> None:
        self._source, self._patience, self._first_patience = source, patience, first_patience
        self._change = threading.Condition()
        self._waiting: LiveFrame | None = None
        self._error: Exception | None = None
        self._ended = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._read, name="lift frames", daemon=True)

    def __iter__(self) -> Iterator[LiveFrame]:
        """Start reading; each frame is the newest at that moment."""
        self._thread.start()
        patience = self._first_patience
        while True:
            with self._change:
                came = self._change.wait_for(lambda: self._waiting is not None or self._ended, patience)
                frame, self._waiting = self._waiting, None
            if frame is None:
                if self._error is not None:
                    raise self._error
                if came:
                    return
                raise SourceError(f"{self._source.name} has stalled: no frame for {patience:g} s; check that it is "
                                  "plugged in, or that what sends the frames still runs")  # fmt: skip
            yield frame
            patience = self._patience

    def close(self) -> None:
        """Stop reading and release the source; a read that hangs is left behind."""
        with self._change:
            self._ended = True
        self._thread.join(timeout=1.0) if self._thread.is_alive() else None
        if not self._thread.is_alive():
            self._source.close()

    def _read(self) -> None:
        try:
            while not self._ended:
                frame = self._source.read()
                if frame is None:
                    break
                with self._change:
                    self.dropped += self._waiting is not None
                    self._waiting = frame
                    self._change.notify()
        except OSError as error:
            self._error = SourceError(*error.args)
        except Exception as error:  # handed to the thread that waits
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify()


class MainPerson:
    """Picks the same person in every frame: at first the one who looks largest, then the most similar."""

    def __init__(self) -> None:
        self._last: Detection | None = None
        self._time = 0.0

    def choose(self, people: Sequence[Detection], time: float) -> Detection | None:
        """The main person among the people of the next frame, at a time in seconds; None where they are not seen.

        After a second without them anybody may be it.
        """
        if self._last is None or time - self._time > REIDENTIFY_SECONDS:
            chosen = max(people, key=_visible_area, default=None)
        else:
            chosen = self._same(people, TOLERANCE + TOLERANCE_GROWTH * (time - self._time))
        if chosen is not None:
            self._last, self._time = chosen, time
        return chosen

    def _same(self, people: Sequence[Detection], tolerance: float) -> Detection | None:
        last = self._last
        similarity = [pose_similarity(last.xy, one.xy, np.sqrt(last.score * one.score), tolerance) for one in people]
        best = int(np.argmax(similarity)) if similarity else -1
        return people[best] if similarity and similarity[best] >= MIN_SIMILARITY else None


def _visible_area(person: Detection) -> float:
    x0, y0, x1, y1 = person.box
    area = (x1 - x0) * (y1 - y0) * person.mean_score
    return area if np.isfinite(area) else 0.0


@dataclass(frozen=True)
class LiveReport:
    """What a live run was like.

    frames: that were looked at. dropped: that came while an earlier one was still in work. seen: in which the person
    was found. poses: that were passed on. seconds: that it took. latency_ms: from when a frame came to when its pose
    was passed on, the wait for the look-ahead included, median and 95 %. detector_ms, lifter_ms: medians. problem:
    what ended it early, None for a source that came to its end or was stopped.
    """

    frames: int
    dropped: int
    seen: int
    poses: int
    seconds: float
    latency_ms: tuple[float, float]
    detector_ms: float
    lifter_ms: float
    problem: str | None = None

    @property
    def rate(self) -> float:
        """Frames looked at per second."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def sentence(self) -> str:
        """The report in a line."""
        median, most = self.latency_ms
        return (f"{self.frames} frames at {self.rate:.1f} frames/s, {self.dropped} dropped, person seen in "
                f"{self.seen}, latency {median:.0f} ms (95 %: {most:.0f} ms), detector {self.detector_ms:.1f} ms, "
                f"lifter {self.lifter_ms:.1f} ms")  # fmt: skip


class _Looked(NamedTuple):
    """A frame in which people were looked for, and when that began and ended."""

    people: Sequence[Detection]
    frame: LiveFrame
    taken: float
    detected: float


class LiveRun:
    """A live run: `run` goes on until the source ends or fails, the time is up, or it is interrupted.

    Args:
        source: of the frames.
        detector: of the people.
        stream: lifts the main person.
        sinks: take the poses.
        seconds: after which to stop.
        patience: seconds without a frame after which the source counts as stalled.
    """

    def __init__(
        self,
        source: FrameSource,
        detector: Detector,
        stream: PoseStream,
        sinks: Sequence[PoseSink] = (),
        *,
        seconds: float | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._frames = NewestFrame(source, patience)
        self._detector, self._stream, self._sinks, self._seconds = detector, stream, sinks, seconds
        self._person = MainPerson()
        self._arrivals: deque[tuple[float, float]] = deque()  # (time, arrived) of frames whose pose is to come
        self._latency, self._detecting, self._lifting = (deque[float](maxlen=MEASURED_FRAMES) for _ in range(3))
        self._count = self._seen = self._poses = 0
        self._begun = self._last = 0.0
        self._frame: LiveFrame | None = None
        self._taken = 0.0  # when it was

    def run(self) -> LiveReport:
        """Lift until the end. Raises OSError when a sink fails; a source that fails is in the report."""
        problem = None
        warm_up(self._detector, self._stream)
        lifting = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lift poses", initializer=_take_one_core)
        last = None
        self._begun = self._last = time.monotonic()
        try:
            for looked in self._looked():
                _wait_for(last)
                last = lifting.submit(self._lift, looked)
        except SourceError as error:
            problem = str(error)
        except KeyboardInterrupt:
            pass  # how a live run is usually ended
        finally:
            self._frames.close()
            lifting.shutdown()
        _wait_for(last)
        self._pass_on(self._stream.flush())
        return self.report(problem)

    def report(self, problem: str | None = None) -> LiveReport:
        """What it was like up to now."""
        latency = np.percentile(self._latency, [50, 95]) if self._latency else (0.0, 0.0)
        return LiveReport(self._count, self._frames.dropped, self._seen, self._poses, self._last - self._begun,
                          (1000 * float(latency[0]), 1000 * float(latency[1])), _median_ms(self._detecting),
                          _median_ms(self._lifting), problem)  # fmt: skip

    def _looked(self) -> Iterator[_Looked]:
        """The frames, with the people in them."""
        with closing(self._pixels()) as pixels:
            for people in self._detector.detect(pixels):
                yield _Looked(people, self._frame, self._taken, time.monotonic())

    def _pixels(self) -> Iterator[np.ndarray]:
        """The frames' pixels for the detector; `_frame` is the one in work."""
        for frame in self._frames:
            if self._seconds is not None and time.monotonic() - self._begun >= self._seconds:
                return
            self._frame, self._taken = frame, time.monotonic()
            yield frame.rgb

    def _lift(self, looked: _Looked) -> None:
        begun, frame = time.monotonic(), looked.frame
        person = self._person.choose(looked.people, frame.time)
        self._arrivals.append((frame.time, frame.arrived))
        poses = self._stream.feed(*(None, None) if person is None else (person.xy, person.score), frame.time)
        self._detecting.append(looked.detected - looked.taken)
        self._lifting.append(time.monotonic() - begun)
        self._count, self._seen = self._count + 1, self._seen + (person is not None)
        self._pass_on(poses)

    def _pass_on(self, poses: Sequence[Pose]) -> None:
        for pose in poses:
            for sink in self._sinks:
                sink.write(pose)
            self._last = time.monotonic()
            while self._arrivals and self._arrivals[0][0] <= pose.time:
                moment, arrived = self._arrivals.popleft()
                if moment == pose.time:
                    self._latency.append(self._last - arrived)
        self._poses += len(poses)
        self._last = time.monotonic()


def warm_up(detector: Detector, stream: PoseStream) -> None:
    """Run both on made-up input, so that the first real frame takes no longer than others. The stream is as new."""
    width, height = stream.image_size
    for _ in detector.detect(iter([np.full((height, width, 3), 128, np.uint8)])):
        pass
    somebody = np.random.default_rng(0).uniform(0.3, 0.7, (stream.skeleton.num_joints, 2)) * stream.image_size
    for _ in range(stream.lookahead + WARM_UP_FRAMES):
        stream.feed(somebody)
    stream.flush()


def _wait_for(work: Future | None) -> None:
    """Raises what went wrong in it."""
    if work is not None:
        work.result()


def _median_ms(values: Sequence[float]) -> float:
    return 1000 * float(np.median(values)) if values else 0.0


def create_live_detector(name: str = "auto", models: str | None = None) -> Detector:
    """A detector that follows one person, where it can be told so. Raises as `lifting.detectors.create_detector`."""
    from lifting.detectors import create_detector

    options = {} if models is None else {"model_dir": models}
    try:
        return create_detector(name, max_people=1, **options)
    except TypeError:  # a detector without that option
        return create_detector(name, **options)


def choose_live_camera(
    source: FrameSource, camera: str | None = None, focal: float | None = None, fov: float | None = None
) -> tuple[Camera, str | None]:
    """The intrinsics of a source, from a file, a focal length in pixels or a horizontal field of view in degrees.

    Without any of them the focal length is what the source says, else the image's diagonal, and a sentence says so.
    Raises ValueError for more than one of them, and as `read_camera`.
    """
    given = [name for name, value in (("--camera", camera), ("--focal", focal), ("--fov", fov)) if value is not None]
    if len(given) > 1:
        raise ValueError(f"got {' and '.join(given)}, expected at most one of them")
    if camera is not None:
        from lifting.cameras import read_camera

        return read_camera(camera, source.image_size).resized(source.image_size), None
    if fov is not None:
        return Camera.from_fov(fov, source.image_size), None
    sentence = None
    if focal is None:
        focal, sentence = estimate_focal(source.image_size, source.focal_metadata)
    return Camera.from_focal(focal, source.image_size), sentence


def _take_one_core() -> None:
    """One frame is too little to share, and the detector needs the other core; torch keeps this thread by thread."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)  # numpy's products are small, too
