"""One's own footage: a folder of videos and keypoint files becomes unlabelled clips.

What lies in the folder (nothing below it but what counts as one file):

* videos, in which people are detected and tracked, unless a keypoint file of the same name lies beside them;
* keypoint files of any tool (`lifting.detectors.files`), or folders of one JSON file a frame (of several with one name
  the last by suffix counts);
* folders of images, which are videos;
* cameras: ``walk.camera.json`` (or ``.yaml``, ``.yml``, ``.toml``; anything `read_camera` knows) is the camera of the
  video or keypoint file called ``walk``, ``camera.json`` that of all the others.

Files that cannot be used are left out and reported; other suffixes are none of our business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lifting.cameras import Camera, estimate_focal, read_camera
from lifting.datasets.clips import Clip, ClipList
from lifting.evidence import Evidence, Progress, detect_people, read_evidence
from lifting.skeletons import Skeleton, get_skeleton
from lifting.video import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from lifting.detectors import Detector
    from lifting.predict import Lifter
    from lifting.training.adapt import AdaptReport

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".gif")
KEYPOINT_SUFFIXES = (".npz", ".npy", ".json", ".csv", ".h5", ".pkl")
CAMERA_SUFFIXES = (".json", ".yaml", ".yml", ".toml")
CAMERA_STEM = "camera"
SHORTEST_SECONDS = 0.5  # people seen for less say nothing about bones that keep their lengths
_UNREADABLE = (ValueError, OSError, ImportError)
_NO_CAMERA = "its focal length is not known; a camera file beside it would tell"
_OPTION = "; pass --"  # begins the advice of sentences that were made for `lift run`


@dataclass(frozen=True)
class Footage:
    """What a folder held.

    clips: one unlabelled clip for each person of each file; ``subject`` is the file's name, ``action`` the person,
    ``camera`` None where nothing states one. skipped: (file name, reason in one sentence). notes: (file name, what was
    assumed or is doubtful).
    """

    clips: ClipList
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Source:
    """One video, with or without keypoints of its own, or keypoints alone; and the camera file that goes with it."""

    name: str
    video: Path | None
    keypoints: Path | None
    camera: Path | None

    @property
    def file_name(self) -> str:
        return (self.keypoints or self.video).name


def read_footage(
    folder: str | Path,
    *,
    skeleton: Skeleton | str = "lift17",
    detector: str | Detector = "auto",
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> Footage:
    """Reads every usable file of a folder of one's own footage; see the module for what may lie there.

    Args:
        folder: where the files are.
        skeleton: layout that all keypoints are brought into.
        detector: finds people in videos without keypoints.
        progress: shows the progress within a video.
        report: is told, in one sentence each, which files are left out and why, and what is assumed of the others.

    Raises FileNotFoundError for a folder that does not exist, ValueError when nothing in it can be used, and
    KeyboardInterrupt after Ctrl-C, also where the detection would end with what it has.
    """
    folder, skeleton = Path(folder).expanduser(), get_skeleton(skeleton)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at '{folder}'; give a folder of your own videos or keypoint files")
    clips, skipped, notes = [], [], []
    for source in find_sources(folder):
        try:
            found, said = _read_source(source, skeleton, detector, progress)
        except _UNREADABLE as error:
            reason = " ".join(str(error).split())
            skipped.append((source.file_name, reason))
            if report:
                report(f"'{source.file_name}' is left out: {reason}")
            continue
        clips += found
        notes += [(source.file_name, sentence) for sentence in said]
        if report:
            for sentence in said:
                report(f"'{source.file_name}': {sentence}")
    if not clips:
        raise ValueError(_nothing_usable(folder, skipped))
    return Footage(ClipList(clips, folder.name), tuple(skipped), tuple(notes))


def _nothing_usable(folder: Path, skipped: list[tuple[str, str]]) -> str:
    if not skipped:
        return (f"'{folder}' holds neither videos ({', '.join(VIDEO_SUFFIXES[:5])} ...) nor keypoint files "
                f"({', '.join(KEYPOINT_SUFFIXES)}); give a folder that does")  # fmt: skip
    name, reason = skipped[0]
    return f"none of the {len(skipped)} files in '{folder}' can be used; the first, '{name}': {reason}"


def find_sources(folder: Path) -> list[_Source]:
    """The footage of a folder in the order of the names: videos, keypoint files, and what belongs together."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    cameras = {path.stem: path for path in entries if _is_camera(path)}
    videos = {path.stem: path for path in entries if _is_video(path)}
    keypoints = {path.stem: path for path in entries if _is_keypoints(path) and not _is_camera(path)}
    return [
        _Source(name, videos.get(name), keypoints.get(name),
                cameras.get(f"{name}.{CAMERA_STEM}", cameras.get(CAMERA_STEM)))
        for name in sorted(videos.keys() | keypoints.keys())
    ]  # fmt: skip


def _is_camera(path: Path) -> bool:
    return path.suffix.lower() in CAMERA_SUFFIXES and path.stem.split(".")[-1] == CAMERA_STEM


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES or _holds(path, IMAGE_SUFFIXES)


def _is_keypoints(path: Path) -> bool:
    return path.suffix.lower() in KEYPOINT_SUFFIXES or _holds(path, (".json",))


def _holds(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the path is a folder with files of these suffixes."""
    return path.is_dir() and any(file.suffix.lower() in suffixes for file in path.iterdir())


def _read_source(
    source: _Source, skeleton: Skeleton, detector: str | Detector, progress: Progress | None
) -> tuple[list[Clip], list[str]]:
    """The clips of one source and the sentences about it; ValueError when nobody is seen for long enough."""
    if source.keypoints is not None:
        evidence = read_evidence(source.keypoints, video=source.video, camera=source.camera)
    else:
        evidence = detect_people(source.video, detector, progress=progress)
        if evidence.interrupted:
            raise KeyboardInterrupt
    camera = _camera_of(evidence, source.camera)
    clips = []
    for number, keypoints in evidence.people:
        keypoints = keypoints.to(skeleton)
        seen = np.flatnonzero(keypoints.seen.any(1))
        if len(seen) >= SHORTEST_SECONDS * evidence.fps:
            keypoints = keypoints.slice(int(seen[0]), int(seen[-1]) + 1)
            clips.append(Clip(source.name, f"person {number}", "own", keypoints, None, camera))
    if not clips:
        raise ValueError(f"it shows nobody for at least {SHORTEST_SECONDS} s; give longer footage")
    said = [sentence.partition(_OPTION)[0] for sentence in evidence.assumed + evidence.warnings]
    return clips, said + [_NO_CAMERA] * (camera is None)


def _camera_of(evidence: Evidence, path: Path | None) -> Camera | None:
    """The camera of the file beside the footage, else what the footage itself states, else None: unknown.

    Only the intrinsics are kept: footage is lifted in the camera's own axes.
    """
    if path is not None:
        camera = read_camera(path, evidence.image_size)
    elif evidence.camera is not None:
        camera = evidence.camera
    elif evidence.focal_metadata:
        camera = Camera.from_focal(estimate_focal(evidence.image_size, evidence.focal_metadata)[0], evidence.image_size)
    else:
        return None
    return Camera(camera.focal, camera.center, camera.image_size, camera.distortion)


def adapt_folder(
    folder: str | Path,
    output: str | Path,
    *,
    lifter: Lifter | None = None,
    steps: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    detector: str | Detector = "auto",
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> AdaptReport:
    """Adapts one lifter to all footage of a folder and writes it to ``output`` as weights that `Lifter.load` reads.

    Args:
        folder, detector, progress, report: as in `read_footage`; the progress shows the steps as well.
        output: a ``.safetensors`` file.
        lifter: where to start from; the default weights without.
        steps: of training, `AdaptConfig`'s without.
        device: where torch computes. seed: of the order in which footage is seen.

    Raises FileNotFoundError, ValueError as `read_footage`, and FloatingPointError when a loss is not finite.
    """
    from lifting.predict import Lifter
    from lifting.training.adapt import AdaptConfig, adapt, save_adapted

    lifter = lifter or Lifter.load(device=device)
    config = AdaptConfig(seed=seed, **({} if steps is None else {"steps": steps}))
    footage = read_footage(folder, detector=detector, progress=progress, report=report)
    done = adapt(lifter, footage.clips, config, progress=progress)
    save_adapted(done, output)
    return done
