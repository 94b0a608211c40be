"""The walker seen by a camera, a tiny lifter, a detector that knows the answer and plain videos: up to the CLI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from walking_figure import H36M, walker

from lifting.cameras import Camera
from lifting.keypoints import Detection, Keypoints2D
from lifting.skeletons import get_skeleton

SIZE, FPS, RATE = (640, 480), 25.0, 50.0  # of the footage; RATE is the tiny lifter's own
CAMERA = Camera.from_focal(600.0, SIZE)
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_FACE_OFFSET = np.float32([[0, 0, 0], [-0.03, -0.03, 0.01], [0.03, -0.03, 0.01], [-0.07, 0, 0.1], [0.07, 0, 0.1]])


def walk_in_camera(frames: int = 40, fps: float = FPS, distance: float = 4.0, across: float = 0.4) -> np.ndarray:
    """Joints (T, 17, 3) metres, camera axes: the walker goes away from the camera and slowly to its right."""
    joints = walker(frames, fps=fps)[..., [0, 2, 1]] * np.float32([1, -1, 1])
    drift = across * (np.arange(frames) / fps - 0.5)
    return joints + np.stack([drift, np.full(frames, 1.0), np.full(frames, distance)], -1)[:, None].astype(np.float32)


def film(joints: np.ndarray, layout: str = "coco17", fps: float = FPS, camera: Camera = CAMERA) -> Keypoints2D:
    """What a perfect detector with that layout says of joints (T, 17, 3); points of no H36M joint lie at the neck."""
    points = {name: joints[:, H36M.index(name)] for name in H36M.joints}
    face = joints[:, H36M.index("neck_nose"), None] + _FACE_OFFSET
    points.update({name: face[:, k] for k, name in enumerate(_FACE)})
    skeleton = get_skeleton(layout)
    chosen = [points.get(name, points["thorax"]) for name in skeleton.joints]
    xy = camera.project(np.stack(chosen, axis=1))
    return Keypoints2D(xy, None, skeleton, camera.image_size, fps)


def filmed(frames: int = 40, layout: str = "coco17", fps: float = FPS, **options) -> Keypoints2D:
    """The walk as keypoints; options are those of `walk_in_camera`."""
    return film(walk_in_camera(frames, fps, **options), layout, fps)


def write_tiny_weights(path: Path, **changes) -> Path:
    """A lifter with random weights, for tests in which accuracy does not matter; changes go to the header."""
    import torch

    from lifting.checkpoints import Header, save_weights
    from lifting.models.lifter import LifterConfig, LiftNet

    torch.manual_seed(1)
    config = LifterConfig(channels=12, dilations=(1, 3))
    network = LiftNet(**vars(config))
    fields = dict(kind="lifter", config=vars(config), skeleton_in="lift17", skeleton_out="h36m17", fps=RATE,
                  input="rays", licence="none", training="none", version="0", metrics={})
    save_weights(path, network.state_dict(), Header(**{**fields, **changes}), half=False)
    return path


class KnownDetector:
    """A detector (the protocol of `lifting.detectors`) that gives what it was told; Ctrl-C at frame ``stop_at``."""

    name = "known"

    def __init__(self, *people: Keypoints2D, stop_at: int | None = None) -> None:
        self.skeleton = people[0].skeleton if people else get_skeleton("coco17")
        self.people, self.stop_at = people, stop_at

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[list[Detection]]:
        for index, frame in enumerate(frames):
            assert frame.dtype == np.uint8 and frame.shape[2] == 3
            if index == self.stop_at:
                raise KeyboardInterrupt
            yield [Detection(one.xy[index], one.score[index]) for one in self.people if one.seen[index].any()]


def write_video(path: Path, frames: int = 40, fps: float = FPS, size=SIZE, stamps=None) -> Path:
    """A plain grey video; ``stamps`` are the frames' times in milliseconds."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        grey = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 120, np.uint8), format="rgb24")
        for index in range(frames):
            grey.pts = round(1000 * index / fps) if stamps is None else stamps[index]
            grey.time_base = Fraction(1, 1000)
            container.mux(stream.encode(grey))
        container.mux(stream.encode(None))
    return path
