"""BlazePose through ai-edge-litert: several people, offline, on a CPU.

The two graphs lie inside the mediapipe==0.10.21 wheel; they are read from there (mediapipe itself is not imported) or
from a folder the user names. A detector proposes people in the frame every few frames; a landmark network follows each
of them from frame to frame in a crop that is placed by two auxiliary landmarks of the frame before. The detector is
made for people who fill much of its view, so small, far ones are searched for in tiles of the frame besides.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lifting.detectors import INSTALL_HINT
from lifting.detectors import blazepose_geometry as geometry
from lifting.detectors.blazepose_geometry import Candidates, Region
from lifting.detectors.blazepose_search import Demand, SearchSchedule, TileSchedule
from lifting.detectors.checks import check_frame, check_limits
from lifting.keypoints import Detection
from lifting.skeletons import get_skeleton

DETECTOR_FILE = "pose_detection.tflite"
LANDMARK_FILE = "pose_landmark_full.tflite"
MODEL_FILES = {
    DETECTOR_FILE: ("pose_detection", "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"),
    LANDMARK_FILE: ("pose_landmark", "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"),
}
"""File name: folder below mediapipe/modules, sha256 of the file this code was written for."""
TASK_MEMBERS = {DETECTOR_FILE: "pose_detector.tflite", LANDMARK_FILE: "pose_landmarks_detector.tflite"}

DUPLICATE_SIMILARITY = 0.5
OUTSIDE_FACTOR = 0.2  # points the network places beyond the image border are guesses
MIN_REGION_PIXELS = 16.0


@dataclass(frozen=True)
class Sighting:
    """One person in one frame, as the landmark network sees them.

    Attributes:
        xy: (33, 2) pixels.
        score: (33,) visibility times presence, in [0, 1].
        confidence: probability that the crop holds a person at all.
        region: where to look for the same person in the next frame.
    """

    xy: np.ndarray
    score: np.ndarray
    confidence: float
    region: Region

    @property
    def quality(self) -> float:
        """Confidence times the mean score of the joints: who survives when two sightings show one person."""
        return self.confidence * float(self.score.mean())


class BlazePose:
    """Finds and follows people with the two BlazePose graphs (33 landmarks each).

    Args:
        max_people: at most this many people are followed at once.
        min_confidence: smallest probability, of the detector and of the landmark network, to report a person.
        detect_every: frames between two searches for further people, one window of the frame at a time; every frame is
            searched while nobody is followed and just after somebody was lost.
        zoom: whether to search tiles of large frames for small people too, all in the first frame, then one by one.
        model_dir: folder that holds pose_detection.tflite and pose_landmark_full.tflite, a mediapipe ``modules``
            folder, or a pose landmarker's ``.task`` file; None reads them from the installed mediapipe package.
        num_threads: threads of the networks; None takes all cores.

    Raises:
        ValueError: an option is out of its range.
        ImportError: ai-edge-litert, Pillow or the package with the model files is missing.
        FileNotFoundError: a model file is not in ``model_dir``.

    An instance can serve one video after another, but only one at a time.
    """

    name = "blazepose"

    def __init__(
        self,
        *,
        max_people: int = 5,
        min_confidence: float = 0.5,
        detect_every: int = 6,
        zoom: bool = True,
        model_dir: str | os.PathLike[str] | None = None,
        num_threads: int | None = None,
    ) -> None:
        check_limits(max_people, min_confidence)
        if detect_every < 1:
            raise ValueError(f"detect_every is {detect_every}: expected 1 frame or more.")
        self.skeleton = get_skeleton("mediapipe33")
        self.max_people = max_people
        self.min_confidence = min_confidence
        self.detect_every = detect_every
        self.zoom = zoom
        threads = num_threads or available_cores()
        if model_dir is not None and os.fspath(model_dir).lower().endswith(".task"):
            graphs = read_task(model_dir)
        else:
            graphs = {name: path.read_bytes() for name, path in find_model_files(model_dir).items()}
        source = str(model_dir or "mediapipe")
        self._detector = _Graph(graphs[DETECTOR_FILE], source, threads, geometry.DETECTOR_SIZE, (12, 1))
        self._landmarker = _Graph(graphs[LANDMARK_FILE], source, threads, geometry.LANDMARK_SIZE, (195, 1, 39))
        self._anchors = geometry.anchor_centers()

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[list[Detection]]:
        """Yield the people of each frame.

        Args:
            frames: successive frames of one video, (H, W, 3) uint8 RGB.

        Yields:
            One list per frame, at most ``max_people`` detections in layout mediapipe33: xy (33, 2) pixels, score (33,).

        Raises:
            ValueError: a frame is not (H, W, 3) uint8.
        """
        followed: list[Sighting] = []
        schedule = SearchSchedule(self.detect_every)
        tiles = TileSchedule() if self.zoom else None
        anywhere, in_tile = Demand(self.min_confidence, self.min_confidence), Demand.in_tile(self.min_confidence)
        for frame in frames:
            check_frame(frame)
            before = len(followed)
            followed = self._follow(frame, followed)
            height, width = frame.shape[:2]
            windows = schedule.next_windows(width, height, bool(followed), len(followed) < before)
            followed = self._add_new_people(frame, followed, windows, anywhere)
            if tiles is not None:
                followed = self._add_new_people(frame, followed, tiles.next_tiles(width, height), in_tile)
            yield [Detection(xy=person.xy, score=person.score) for person in followed]

    def _follow(self, frame: np.ndarray, people: list[Sighting]) -> list[Sighting]:
        """See the people of the frame before again; who is lost or merged with somebody else is left out."""
        found = []
        for person in people:
            again = self._look(frame, person.region)
            if again is not None:
                found.append(replace(again, region=again.region.steadied(person.region)))
        return without_duplicates(found)

    def _add_new_people(
        self, frame: np.ndarray, followed: list[Sighting], windows: list[Region], demand: Demand
    ) -> list[Sighting]:
        """The followed people and those found in some windows, as long as there is room."""
        if not windows or len(followed) >= self.max_people:
            return followed
        people = list(followed)
        for region in self._search(frame, windows, demand):
            if len(people) >= self.max_people:
                break
            if any(_same_place(region, person.region) for person in people):
                continue
            person = self._look(frame, region)
            if person is None or person.confidence < demand.confidence:
                continue
            if not any(_is_duplicate(person, other) for other in people):
                people.append(person)
        return people

    def _search(self, frame: np.ndarray, windows: list[Region], demand: Demand) -> list[Region]:
        """Regions where people may be, best first, from the detector's view of some windows."""
        proposals = Candidates.joined([self._propose(frame, window, demand) for window in windows])
        points = geometry.merge_overlapping(proposals).points
        regions = [Region.from_points(hip_center, scale_point) for hip_center, scale_point in points[:, :2]]
        return [region for region in regions if region.size >= MIN_REGION_PIXELS]

    def _propose(self, frame: np.ndarray, window: Region, demand: Demand) -> Candidates:
        """People the detector proposes in one square window, in image pixels, best first."""
        pixels = geometry.crop(frame, window, geometry.DETECTOR_SIZE)
        values, logits = self._detector(pixels.astype(np.float32) * (2 / 255) - 1)
        candidates = geometry.merge_overlapping(
            geometry.decode_candidates(values[0], logits[0], self._anchors, demand.score)
        )
        radius = np.hypot(*(candidates.points[:, 1] - candidates.points[:, 0]).T)
        fitting = candidates.kept(2 * geometry.ROI_MARGIN * radius <= demand.size)
        return fitting.transformed(window.size, window.to_image(np.zeros(2)))

    def _look(self, frame: np.ndarray, region: Region) -> Sighting | None:
        """Run the landmark network on a region; None where it sees no person."""
        pixels = geometry.crop(frame, region, geometry.LANDMARK_SIZE)
        values, presence, heatmap = self._landmarker(pixels.astype(np.float32) * (1 / 255))
        confidence = float(presence.reshape(-1)[0])
        if not confidence >= self.min_confidence:
            return None
        landmarks = values.reshape(39, 5)
        points = geometry.refine_landmarks(landmarks[:, :2] / geometry.LANDMARK_SIZE, heatmap[0])
        xy = region.to_image(points)
        score = np.prod(geometry.sigmoid(landmarks[: geometry.NUM_LANDMARKS, 3:5]), axis=1)
        return _sighting(xy, score, confidence, frame.shape[1], frame.shape[0])


class _Graph:
    """A TFLite graph with one image input; calling it returns outputs picked by the length of their last axis.

    Raises ImportError without ai-edge-litert, ValueError where the file is no such graph.
    """

    def __init__(self, content: bytes, source: str, num_threads: int, size: int, last_axes: tuple[int, ...]) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(
                f"The detector 'blazepose' needs ai-edge-litert ({error}): {INSTALL_HINT}, "
                "or choose the detector 'mediapipe'."
            ) from error
        try:
            with _native_messages_hidden():
                self._interpreter = Interpreter(model_content=content, num_threads=num_threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"{source} holds what is not a usable TFLite model ({error}): take it from mediapipe==0.10.21."
            ) from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [(d["index"], tuple(d["shape"])) for d in self._interpreter.get_output_details()]
        self._check(source, self._interpreter.get_input_details(), size, last_axes)
        self._indices = [self._index(length) for length in last_axes]

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Run on pixels (H, W, 3) float32 and return one output for each length in ``last_axes``."""
        self._interpreter.set_tensor(self._input, pixels[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._indices]

    def _check(self, source: str, inputs: list[dict], size: int, last_axes: tuple[int, ...]) -> None:
        """ValueError unless the graph takes one square image and has the outputs asked for."""
        taken = [tuple(details["shape"]) for details in inputs]
        lengths = {shape[-1] for _, shape in self._outputs if shape}
        if not (all(length in lengths for length in last_axes) and [t[-3:] for t in taken] == [(size, size, 3)]):
            raise ValueError(
                f"{source} holds a graph that takes {taken} and returns {[shape for _, shape in self._outputs]}: "
                f"expected one of BlazePose for images of {size} pixels; take it from mediapipe==0.10.21."
            )

    def _index(self, length: int) -> int:
        # The landmark graph has two outputs that end in 1, presence and a segmentation mask; the smaller one is meant.
        matches = [(np.prod(shape), index) for index, shape in self._outputs if shape[-1] == length]
        return min(matches)[1]


@contextmanager
def _native_messages_hidden() -> Iterator[None]:
    """Send what C++ writes to stderr nowhere: TFLite announces its delegate there and has no switch for it."""
    try:
        kept = os.dup(2)
    except OSError:  # no stderr, nothing to hide
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def available_cores() -> int:
    """Number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_model_files(model_dir: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """Paths of the two graphs by file name.

    Args:
        model_dir: folder with the two files, or a mediapipe ``modules`` folder; None means the installed mediapipe.

    Raises:
        ImportError: ``model_dir`` is None and mediapipe is not installed.
        FileNotFoundError: a file is missing.

    Warns:
        UserWarning: a file is not the one this code was written for.
    """
    folder = Path(model_dir) if model_dir is not None else _installed_modules()
    files = {name: _find_model_file(folder, name) for name in MODEL_FILES}
    for path in files.values():
        _warn_if_unknown(path)
    return files


def read_task(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """The two graphs, by the names they have in mediapipe's wheel, of a pose landmarker's ``.task`` file, a zip.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no pose landmarker.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file at {path}: expected a pose landmarker's .task file.")
    try:
        with zipfile.ZipFile(path) as bundle:
            return {name: bundle.read(member) for name, member in TASK_MEMBERS.items()}
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(
            f"{path} is no pose landmarker ({error}): expected MediaPipe's pose_landmarker_full.task or one like it."
        ) from error


def _installed_modules() -> Path:
    package = find_spec("mediapipe")  # looks the folder up without importing the package
    if package is None or not package.submodule_search_locations:
        raise ImportError(
            f"The BlazePose model files lie in mediapipe==0.10.21, which is not installed: {INSTALL_HINT}, "
            "or name a folder that holds them with model_dir."
        )
    return Path(next(iter(package.submodule_search_locations))) / "modules"


def _find_model_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / MODEL_FILES[name][0] / name):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"No {name} in {folder}: expected the folder mediapipe/modules of mediapipe==0.10.21 "
        f"(later versions have no pose model) or a folder with {' and '.join(MODEL_FILES)}."
    )


def _warn_if_unknown(path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != MODEL_FILES[path.name][1]:
        warnings.warn(
            f"The detector's model file {path} is another one than in mediapipe==0.10.21 (its sha256 starts with "
            f"{digest[:12]}, expected {MODEL_FILES[path.name][1][:12]}), so keypoints may be wrong: use the file of "
            "that version.",
            stacklevel=4,
        )


def without_duplicates(people: list[Sighting]) -> list[Sighting]:
    """Keep the better of any two sightings that show the same person; the order of the others stays."""
    kept: list[Sighting] = []
    for person in sorted(people, key=lambda one: -one.quality):
        if not any(_is_duplicate(person, other) for other in kept):
            kept.append(person)
    return [person for person in people if any(person is other for other in kept)]


def _is_duplicate(person: Sighting, other: Sighting) -> bool:
    weights = np.sqrt(person.score * other.score) + 0.05
    return geometry.keypoint_similarity(person.xy, other.xy, weights) > DUPLICATE_SIMILARITY


def _same_place(region: Region, other: Region) -> bool:
    """True where a proposal is so near to a followed person that looking again cannot show anybody else."""
    distance = np.hypot(*(region.center - other.center))
    return distance < 0.1 * other.size and 0.6 < region.size / other.size < 1.7


def _sighting(xy: np.ndarray, score: np.ndarray, confidence: float, width: int, height: int) -> Sighting | None:
    """Build a sighting from the 39 points of the network; None where they are no sensible region to go on with."""
    region = Region.from_points(xy[geometry.HIP_CENTER], xy[geometry.SCALE_POINT])
    body = xy[: geometry.NUM_LANDMARKS]
    outside = (body < 0).any(1) | (body[:, 0] > width) | (body[:, 1] > height)
    if outside.all() or not MIN_REGION_PIXELS <= region.size <= 8 * max(width, height):
        return None
    score = np.where(outside, OUTSIDE_FACTOR * score, score)
    return Sighting(body.astype(np.float32), score.astype(np.float32), confidence, region)
