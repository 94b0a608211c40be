"""A take for pages and plots, and a page taken apart again without the code that made it."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import numpy as np
from walking_figure import walker

from lifting.cameras import Camera
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Person, Take

FPS, SIZE = 50.0, (640, 480)
CAMERA = Camera.from_fov(60, SIZE)
TYPES = {"f4": np.float32, "i2": np.int16, "u1": np.uint8, "u2": np.uint16, "u4": np.uint32}


def walking_motion(frames: int = 60, frame: str = "world", **options: float) -> Motion:
    """The walker in the world, or 4 m in front of a camera that looks at their right side."""
    points = walker(frames, fps=FPS, **options).astype(np.float64)
    if frame == "camera":
        points = points @ np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]]).T + [0, 0.9, 4]
    sigma = np.linspace(0.02, 0.2, frames * 17).reshape(frames, 17)
    return Motion(points - points[:, :1], points[:, 0], sigma, "h36m17", FPS, frame)


def viewed_take(*motions: Motion, name: str = "walk", **changes: object) -> Take:
    """A take of these motions, of people 1, 2, ..., whose keypoints say nothing."""
    frames = len(motions[0])
    keypoints = Keypoints2D(np.full((frames, 17, 2), 100.0), None, "h36m17", SIZE, FPS)
    people = tuple(Person(number, keypoints, motion) for number, motion in enumerate(motions, 1))
    return Take(name, SIZE, FPS, np.arange(frames) / FPS, CAMERA, people, **changes)


class Page(HTMLParser):
    """A page: its `tags`, what is between them by id or tag, its `scene`, and arrays by `read`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: dict[str, str] = {}
        self._open = ""
        self.feed(text)
        self.scene = json.loads(self.text["scene"])
        self._numbers = base64.b64decode(self.text["numbers"], validate=True)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.text[self._open] = self.text.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def read(self, reference: dict) -> np.ndarray:
        """The array as float64 in its unit, -32768 of 16 bits and 255 of bytes as NaN."""
        kind, shape = TYPES[reference["type"]], reference["shape"]
        stored = np.frombuffer(self._numbers, kind, int(np.prod(shape)), reference["at"]).reshape(shape)
        values = stored * float(reference["scale"])
        unknown = {np.int16: -32768, np.uint8: 255}.get(kind)
        return values if unknown is None else np.where(stored == unknown, np.nan, values)

    def people(self, layer: int = 0) -> list[dict]:
        return self.scene["layers"][layer]["people"]

    def points(self, person: dict) -> np.ndarray:
        """(T, J, 3) metres, absolute."""
        return self.read(person["joints"]) + self.read(person["path"])[:, None]
