"""A folder of images, or one image, read like a video."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lifting.video.reader import ASSUMED_FPS, VideoReader

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_EXIF_IFD, _EXIF_FOCAL_35MM = 0x8769, 0xA405


class ImageReader(VideoReader):
    """A folder of images of one size in natural order (2 before 10), or a single image."""

    def __init__(self, path: Path, start: float | None = None, end: float | None = None, fps: float | None = None):
        super().__init__(path, start, end)
        self._files = _image_files(path)
        self.fps = ASSUMED_FPS if fps is None else float(fps)
        if fps is None and len(self._files) > 1:
            self.assumed = (f"images carry no frame rate: {ASSUMED_FPS:g} frames/s assumed, give fps to change it",)
        self.image_size, self.focal_metadata = _image_header(self._files[0])
        for file in self._files[1:]:
            self._check_size(file, _image_header(file)[0])
        self.num_frames = self._limit(len(self._files))
        if not self.num_frames:
            raise ValueError(
                f"start is {start} s, but the {len(self._files)} images in '{path.name}' last "
                f"{len(self._files) / self.fps:.2f} s at {self.fps:g} frames/s"
            )

    def _check_size(self, file: Path, size: tuple[int, int]) -> None:
        if size != self.image_size:
            raise ValueError(
                f"image '{file.name}' is {size[0]}x{size[1]}, but '{self._files[0].name}' is "
                f"{self.image_size[0]}x{self.image_size[1]}: all images of a folder must have one size"
            )

    def _decode(self) -> Iterator[tuple[float, np.ndarray]]:
        first = 0 if self.start is None else max(0, math.floor(self.start * self.fps) - 1)
        for index in range(first, len(self._files)):
            yield index / self.fps, _resize(_read_image(self._files[index]), self.frame_size)


def _natural_key(path: Path) -> list:
    pieces = re.split(r"([0-9]+)", path.name.lower())
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def _image_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
    if not files:
        raise ValueError(f"folder '{path.name}' holds no images: expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return sorted(files, key=_natural_key)


def _image_header(path: Path) -> tuple[tuple[int, int], dict | None]:
    """Return the upright size (width, height) and what the image says about its lens, without decoding it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            exif = image.getexif()
            turned = exif.get(0x0112, 1) >= 5  # EXIF orientations 5-8 swap the sides
            size = image.size[::-1] if turned else image.size
            focal = exif.get_ifd(_EXIF_IFD).get(_EXIF_FOCAL_35MM)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image '{path.name}' cannot be read: is it a complete image file?") from error
    return size, {"focal_length_35mm": float(focal)} if focal else None


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16-bit grey: PIL would clip instead of scaling
                grey = np.asarray(image, dtype=np.int64)
                return np.repeat((grey >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"image '{path.name}' is damaged and cannot be decoded: replace or remove it") from error


def _resize(rgb: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    from PIL import Image

    if size is None or rgb.shape[1::-1] == tuple(size):
        return rgb
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
