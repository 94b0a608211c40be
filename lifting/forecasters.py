"""Forecasters: what was seen of a motion in, the frames that follow out.

Inside everything runs at 25 frames per second, in world axes (+z up), metres, H36M-17. A forecaster is any object with

* ``name``: what it is called in tables and files;
* ``context``: frames of the past it wants; a shorter past is continued to the left by its first frame by the caller,
  of a longer one it reads the last frames;
* ``longest``: frames it can say at once (`roll_on` goes further);
* ``forecaster(seen, frames) -> Forecast``, and where it can ``forecaster.samples(seen, frames, count, rng)``, a
  `Forecast` with an axis of samples after that of the pieces.

`load_forecaster` makes those that are named in `FORECASTERS`, or one from a file of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lifting.anatomy import H36M
from lifting.datasets.future_windows import decode_future, encode_context
from lifting.headings import heading_of
from lifting.seen_motion import FPS, SeenMotion

if TYPE_CHECKING:
    from lifting.checkpoints import Header

WEIGHTS = Path(__file__).parent / "weights"
KIND = "future"
ANY_LENGTH = 25 * 60  # frames that forecasters without a network say at once: a minute
_PARENTS, _CHILDREN = np.array(H36M.bones).T


@dataclass(frozen=True, eq=False)
class Forecast:
    """The frames after the last seen one, world axes, metres, 25 frames per second.

    Attributes:
        joints: (N, Tf, 17, 3) relative to the root; of samples (N, K, Tf, 17, 3).
        root: (N, Tf, 3), going on from the last seen place; of samples (N, K, Tf, 3).
        sigma: (N, Tf, 17) the radius around a joint that holds 68 % of its errors; that of the root is the error of its
            way since the last seen frame.
    """

    joints: np.ndarray
    root: np.ndarray
    sigma: np.ndarray

    def __len__(self) -> int:
        """Count the pieces."""
        return len(self.joints)


class Constant:
    """The last seen pose, which stays where it is (PHD's baseline "Constant")."""

    name, context, longest = "constant", 1, ANY_LENGTH

    def __call__(self, seen: SeenMotion, frames: int) -> Forecast:
        """Stands still; the sigma is that of motion capture of other people than `experiments.benchmark_future`'s."""
        joints = np.repeat(seen.joints[:, -1:], frames, 1)
        grown = 0.22 * (1 - np.exp(-_seconds(frames) / 0.4))
        return Forecast(joints, np.repeat(seen.root[:, -1:], frames, 1), _grown(seen, grown, 0.8 * _seconds(frames)))


class ConstantVelocity:
    """Every joint and the root go on as between the last two seen frames.

    On lifted motion the last two frames err less, up to a second ahead, than a line through more of them.
    """

    name, context, longest = "constant_velocity", 2, ANY_LENGTH

    def __call__(self, seen: SeenMotion, frames: int) -> Forecast:
        """Goes on straight ahead; a single seen frame stands still."""
        steps, before = np.arange(1, frames + 1, dtype=np.float32), max(seen.frames - 2, 0)
        joints = [seen.joints[:, -1], seen.joints[:, -1] - seen.joints[:, before]]
        root = [seen.root[:, -1], seen.root[:, -1] - seen.root[:, before]]
        grown = _grown(seen, 0.43 * _seconds(frames), 0.44 * _seconds(frames))
        return Forecast(joints[0][:, None] + steps[:, None, None] * joints[1][:, None],
                        root[0][:, None] + steps[:, None] * root[1][:, None], grown)  # fmt: skip


class NearestNeighbour:
    """The future of that motion in a bank whose past looks most alike (PHD, section 5.1, the baseline "NN").

    Alike: least Euclidean distance of the joints over the past, seen from the person in its last frame, in a body of
    unit size. The future is turned and scaled to the person's own.
    """

    name = "nearest_neighbour"

    def __init__(self, joints: np.ndarray, root: np.ndarray, context: int, every: int = 3) -> None:
        """joints: (n, context + longest, 17, 3), root: (n, context + longest, 3) of the bank, world axes.

        every: frames of the past that are compared. Raises ValueError for windows without a future.
        """
        self.context, self.longest, self._every = context, np.shape(joints)[1] - context, every
        if self.longest < 1 or not len(joints):
            raise ValueError(f"got a bank of shape {np.shape(joints)} for a past of {context} frames, expected windows "
                             "with at least one frame more.")
        heading = heading_of(joints[:, context - 1], root[:, context - 1])
        self._keys = self._key(joints[:, :context], heading.rotation)
        self._powers = np.square(self._keys).sum(-1)
        size, origin = _body_size(joints[:, :context]), root[:, context - 1 : context]
        self._futures = _turned(joints[:, context:], heading.rotation) / size[:, None, None, None]
        self._ways = _turned(root[:, context:] - origin, heading.rotation) / size[:, None, None]

    def __call__(self, seen: SeenMotion, frames: int) -> Forecast:
        """The neighbour's future. Raises ValueError for a shorter past and for more than `longest` frames."""
        _check_lengths(self, seen, frames)
        past = seen.joints[:, -self.context :]
        heading = heading_of(past[:, -1], seen.root[:, -1])
        keys, size = self._key(past, heading.rotation), _body_size(past)
        nearest = np.concatenate([(self._powers - 2 * part @ self._keys.T).argmin(1)
                                  for part in np.array_split(keys, len(keys) // 256 + 1)])  # fmt: skip
        back = np.swapaxes(heading.rotation, 1, 2)
        joints = _turned(self._futures[nearest, :frames], back) * size[:, None, None, None]
        way = _turned(self._ways[nearest, :frames], back) * size[:, None, None]
        grown = _grown(seen, np.full(frames, 0.2), 0.6 * _seconds(frames))
        return Forecast(joints, seen.root[:, -1:] + way, grown)

    def _key(self, past: np.ndarray, turn: np.ndarray) -> np.ndarray:
        some = _turned(past[:, :: -self._every], turn) / _body_size(past)[:, None, None, None]
        return some.reshape(len(some), -1).astype(np.float32)


class NetworkForecaster:
    """A network of `lifting.models.future` with what is known of its errors.

    factor: (Tf, 17), by which its sigma has to be multiplied to hold 68 % of the errors on people it does not know.
    errors: (R, Tf, 17, 3), patterns of errors in units of sigma, seen from the person, the root's first: errors are a
    sum of all patterns, each times a standard normal number.
    """

    def __init__(self, network: Any, context: int, factor: np.ndarray, errors: np.ndarray, name: str) -> None:
        from lifting.models.future import WithMirrorImage

        self._network, self._factor, self._errors = WithMirrorImage(network).eval(), factor, errors
        self.name, self.context, self.longest = name, context, len(factor)

    @classmethod
    def load(cls, path: str | Path) -> NetworkForecaster:
        """From a file that `experiments.train_future` wrote.

        Raises FileNotFoundError for a missing file and ValueError for weights of anything else.
        """
        from lifting.checkpoints import load_weights
        from lifting.models.future import FutureConfig, build_future

        tensors, header = load_weights(path)
        _check_header(path, header)
        config = FutureConfig(**header.config)
        factor, errors = (tensors.pop(key).numpy() for key in ("sigma_factor", "error_patterns"))
        network = build_future(config)
        network.load_state_dict(tensors)
        return cls(network, config.context, factor, errors, config.kind)

    def __call__(self, seen: SeenMotion, frames: int) -> Forecast:
        """The mean future. Raises ValueError for a shorter past and for more than `longest` frames."""
        return self._predict(seen, frames)[0]

    def samples(self, seen: SeenMotion, frames: int, count: int, rng: np.random.Generator) -> Forecast:
        """Futures that differ as the network's errors do: `count` for every piece. Raises as the forecast."""
        mean, heading = self._predict(seen, frames)
        normal = rng.normal(size=(len(seen), count, len(self._errors))).astype(np.float32)
        errors = np.tensordot(normal, self._errors[:, :frames], 1) * mean.sigma[:, None, ..., None]
        errors = _turned(errors, np.swapaxes(heading.rotation, 1, 2))
        joints = mean.joints[:, None] + errors
        joints[..., 0, :] = 0
        return Forecast(joints, mean.root[:, None] + errors[..., 0, :], mean.sigma)

    def _predict(self, seen: SeenMotion, frames: int) -> tuple[Forecast, Any]:
        import torch

        _check_lengths(self, seen, frames)
        seen = seen.cut(slice(-self.context, None))
        features, heading = encode_context(seen.joints, seen.root, seen.sigma)
        with torch.inference_mode():
            values, log_sigma = (part.numpy()[:, :frames] for part in self._network(torch.from_numpy(features)))
        joints, root = decode_future(values, features, seen.root[:, -1], heading)
        sigma = np.exp(log_sigma) * self._factor[:frames]
        # Nothing becomes more certain by lying further ahead; a network may say so.
        return Forecast(joints, root, np.maximum.accumulate(sigma, 1)), heading


def _check_lengths(forecaster: Any, seen: SeenMotion, frames: int) -> None:
    if seen.frames < forecaster.context:
        raise ValueError(f"got a past of {seen.frames} frames, expected {forecaster.context} for {forecaster.name}; "
                         "continue it to the left by its first frame.")
    if not 1 <= frames <= forecaster.longest:
        raise ValueError(f"got {frames} frames to foresee, expected 1 to {forecaster.longest} at once for "
                         f"{forecaster.name}; roll_on goes further.")


def _check_header(path: str | Path, header: Header) -> None:
    if header.kind != KIND:
        raise ValueError(f"{path} holds weights of the kind {header.kind!r}, expected {KIND!r}; pass those of a "
                         "predictor of the future.")


def _seconds(frames: int) -> np.ndarray:
    return np.arange(1, frames + 1, dtype=np.float32) / np.float32(FPS)


def _grown(seen: SeenMotion, joints: np.ndarray, root: np.ndarray) -> np.ndarray:
    """(N, Tf, 17) metres: sigma of the last seen pose plus, as independent errors, growth (Tf,) of joints and root."""
    sigma = np.hypot(seen.sigma[:, None, -1], joints[:, None])
    sigma[..., 0] = root
    return sigma.astype(np.float32)


def _turned(points: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Points (N, ..., 3) as rows, turned by rotations (N, 3, 3)."""
    flat = points.reshape(len(points), -1, 3) @ np.swapaxes(rotation, 1, 2).astype(points.dtype)
    return flat.reshape(points.shape)


def _body_size(joints: np.ndarray) -> np.ndarray:
    """(N,) metres: mean distance of the joints (N, T, 17, 3) to their neighbours on the skeleton."""
    return np.linalg.norm(joints[:, :, _CHILDREN] - joints[:, :, _PARENTS], axis=-1).mean((1, 2))


def roll_on(forecaster: Any, seen: SeenMotion, frames: int) -> Forecast:
    """A forecast of any length: what a forecaster says is shown to it as if it had been seen, and so on.

    The longer the less it is worth: sigma grows on from what it was as it grew in the first stretch.
    """
    parts, done = [], 0
    while done < frames:
        part = forecaster(seen, min(frames - done, forecaster.longest))
        if parts:
            part = replace(part, sigma=_grown_on(parts[-1].sigma, part.sigma))
        parts, done = [*parts, part], done + part.joints.shape[1]
        seen = _gone_on(seen, part)
    return Forecast(*(np.concatenate([getattr(p, f) for p in parts], 1) for f in ("joints", "root", "sigma")))


def roll_on_samples(forecaster: Any, seen: SeenMotion, frames: int, count: int, rng: np.random.Generator) -> Forecast:
    """`roll_on` of samples: every sample goes its own way."""
    part = forecaster.samples(seen, min(frames, forecaster.longest), count, rng)
    done = part.joints.shape[2]
    if done == frames:
        return part
    many = SeenMotion(*(np.repeat(array, count, 0) for array in (seen.joints, seen.root, seen.sigma)))
    flat = Forecast(part.joints.reshape(-1, *part.joints.shape[2:]), part.root.reshape(-1, done, 3),
                    np.repeat(part.sigma, count, 0))  # fmt: skip
    following = roll_on_samples(forecaster, _gone_on(many, flat), frames - done, 1, rng)
    shape = (len(seen), count)
    sigma = following.sigma.reshape(*shape, frames - done, -1).max(1)
    return Forecast(np.concatenate([part.joints, following.joints.reshape(*shape, frames - done, -1, 3)], 2),
                    np.concatenate([part.root, following.root.reshape(*shape, frames - done, 3)], 2),
                    np.concatenate([part.sigma, _grown_on(part.sigma, sigma)], 1))  # fmt: skip


def _grown_on(before: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Sigma (N, Tf, 17) that begins where `before` ends and grows by what is added to its first frame."""
    growth = np.maximum(np.square(sigma) - np.square(sigma[:, :1]), 0.0)
    return np.sqrt(np.square(before[:, -1:]) + growth).astype(np.float32)


def _gone_on(seen: SeenMotion, forecast: Forecast) -> SeenMotion:
    """The seen frames and after them the forecast ones, without 2D evidence, which a forecast has not."""
    pairs = ((seen.joints, forecast.joints), (seen.root, forecast.root), (seen.sigma, forecast.sigma))
    return SeenMotion(*(np.concatenate(pair, 1) for pair in pairs))


def _from_weights(name: str) -> Callable[[], NetworkForecaster]:
    return lambda: NetworkForecaster.load(WEIGHTS / f"future_{name}.safetensors")


def _phd(*path: str | Path) -> Any:
    from lifting.strips_forecaster import PhdForecaster

    return PhdForecaster.load(*path)


FORECASTERS: dict[str, Callable[[], Any]] = {
    "constant": Constant,
    "constant_velocity": ConstantVelocity,
    "dct_mlp": _from_weights("dct_mlp"),
    "gru": _from_weights("gru"),
    "phd": _phd,
}
"""How to make the forecasters that are known by name."""


def load_forecaster(name_or_path: str | Path) -> Any:
    """A forecaster by its name in `FORECASTERS`, or from a file of weights (``.safetensors``).

    Raises ValueError for an unknown name, and FileNotFoundError and ValueError as `NetworkForecaster.load`.
    """
    if str(name_or_path) in FORECASTERS:
        return FORECASTERS[str(name_or_path)]()
    if Path(name_or_path).suffix == ".safetensors":
        from lifting.checkpoints import load_weights

        kind = load_weights(name_or_path)[1].kind
        return _phd(name_or_path) if kind == "phd" else NetworkForecaster.load(name_or_path)
    raise ValueError(f"got the predictor {str(name_or_path)!r}, expected one of {', '.join(FORECASTERS)}, or a file of "
                     "weights (.safetensors).")


__all__ = ["FORECASTERS", "Constant", "ConstantVelocity", "Forecast", "NearestNeighbour", "NetworkForecaster",
           "load_forecaster", "roll_on", "roll_on_samples"]  # fmt: skip
