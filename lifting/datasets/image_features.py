"""Features of image backbones, one vector per frame, from `.h5`: what HMMR, PHD and TCMR see of a person.

Those papers read the 2048 numbers that the last pooling layer of a ResNet-50 gives for the crop around a person,
computed beforehand. A file holds the dataset ``features`` (T, F), and beside it, if any frame is missing, ``times``
(T,) in seconds or ``frames`` (T,) whole numbers at ``fps``; ``fps`` is a dataset or an attribute. With several people
each has a group of their own with these datasets. Other datasets are left alone.

A model over movie strips (`lifting.models.strips`) takes a number of features per frame, at 25 frames per second, and
does not ask what they mean: image features alone, ``image.at(25.0).features``, or after those of a lift along the last
axis, ``np.concatenate([features of the lift, image.sampled(times of the lift).features], axis=-1)``. Features of a
backbone have another scale than metres; normalise them by the training set's mean and deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import h5py

FEATURES = "features"


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """features: (T, F) float32, finite. times: (T,) float64 seconds, increasing."""

    features: np.ndarray
    times: np.ndarray

    def __post_init__(self) -> None:
        """Check the fields; ValueError for shapes that do not fit, missing numbers and times that do not increase."""
        features, times = np.asarray(self.features, np.float32), np.asarray(self.times, np.float64)
        if features.ndim != 2 or not features.size or times.shape != features.shape[:1]:
            raise ValueError(f"got features of shape {features.shape} at times of shape {times.shape}, expected (frames"
                             ", numbers per frame) and (frames,), one person at a time.")
        if not np.isfinite(features).all():
            raise ValueError(f"got features that are not finite in {np.sum(~np.isfinite(features).all(1))} of "
                             f"{len(features)} frames, expected numbers; leave these frames out and give the times of "
                             "the others.")
        if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise ValueError("got times or frames that do not increase, expected each frame once and in order.")
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "times", times)

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.features)

    def at(self, fps: float) -> ImageFeatures:
        """The features every 1 / fps seconds from the first frame on, as `sampled`; ValueError unless fps > 0."""
        if not (np.isfinite(fps) and fps > 0):
            raise ValueError(f"got {fps} frames/s, expected a positive number.")
        # A frame that is due at the very end must not be lost to rounding.
        count = int((self.times[-1] - self.times[0]) * fps + 1e-6) + 1
        return self.sampled(self.times[0] + np.arange(count) / fps)

    def sampled(self, times: np.ndarray) -> ImageFeatures:
        """The features at such times (n,) in seconds, each blended from those of the two frames around it.

        Gaps are bridged in the same way; up to one frame beyond the ends the outermost frame stands. Raises ValueError
        for times further out.
        """
        times = np.asarray(times, np.float64)
        reach = np.median(np.diff(self.times)) if len(self) > 1 else 0.0
        first, last = self.times[0] - reach - 1e-6, self.times[-1] + reach + 1e-6
        if times.size and not (first <= times.min() and times.max() <= last):
            raise ValueError(f"got times from {times.min():.3f} to {times.max():.3f} s, expected them within those of "
                             f"the features, {self.times[0]:.3f} to {self.times[-1]:.3f} s; cut the motion.")
        after = np.clip(np.searchsorted(self.times, times), min(1, len(self) - 1), len(self) - 1)
        before = np.maximum(after - 1, 0)
        step = np.where(after > before, self.times[after] - self.times[before], 1.0)
        share = np.clip((times - self.times[before]) / step, 0.0, 1.0)[:, None].astype(np.float32)
        return ImageFeatures((1 - share) * self.features[before] + share * self.features[after], times)


def read_image_features(path: str | PathLike[str], person: str | int | None = None, fps: float | None = None,
                        ) -> ImageFeatures:
    """The features of one person from an `.h5`.

    person: name of their group, needed where the file has groups. fps: frames per second where the file does not say.
    Raises FileNotFoundError, and ValueError for a file of another kind, a person it does not have, no frame rate and
    features that `ImageFeatures` refuses; the message lists what the file holds.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}, expected an .h5 with a dataset {FEATURES!r} (frames, 2048).")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is no HDF5 file, expected an .h5 with a dataset {FEATURES!r} (frames, 2048).")
    try:
        with h5py.File(path, "r") as file:
            group = _group_of(file, person)
            features = _numbers(group, FEATURES)
            return ImageFeatures(features, _times_of(group, file, fps, features.shape[:1]))
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _group_of(file: h5py.File, person: str | int | None) -> h5py.Group:
    """Where the features lie: the file itself, or a person's group."""
    import h5py

    if person is None and isinstance(file.get(FEATURES), h5py.Dataset):
        return file
    people = [name for name in file if isinstance(file.get(f"{name}/{FEATURES}"), h5py.Dataset)]
    if person is None and len(people) == 1:
        return file[people[0]]
    if person is not None and str(person) in people:
        return file[str(person)]
    wanted = f"no dataset {FEATURES!r}" if person is None else f"no features of the person {person!r}"
    held = f"features of the people {', '.join(people)}; name one" if people else f"{', '.join(file) or 'nothing'}"
    raise ValueError(f"it has {wanted}, but {held}.")


def _times_of(group: h5py.Group, file: h5py.File, fps: float | None, shape: tuple[int, ...]) -> np.ndarray:
    if "times" in group and fps is None:
        return _numbers(group, "times")
    rate = fps if fps is not None else _rate_of(group, file)
    if rate is None or not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"the frame rate is {rate}, expected a positive number; pass fps, or write it, or times, into "
                         "the file.")
    return (_numbers(group, "frames") if "frames" in group else np.arange(*shape)) / float(rate)


def _rate_of(group: h5py.Group, file: h5py.File) -> float | None:
    for place in (group[FEATURES].attrs, group.attrs, group, file.attrs, file):
        value = np.asarray(place["fps"]) if "fps" in place else np.empty(0)
        if value.size == 1 and value.dtype.kind in "fiu":
            return float(value.item())
    return None


def _numbers(group: h5py.Group, name: str) -> np.ndarray:
    values = group[name]
    kind = getattr(getattr(values, "dtype", None), "kind", "group")
    if kind not in ("f", "i", "u") or not values.shape:
        raise ValueError(f"its {name!r} holds no array of numbers, expected one.")
    return values[()]
