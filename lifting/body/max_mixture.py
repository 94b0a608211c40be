"""The pose prior of SMPLify, a mixture of Gaussians over rotation vectors, from the file that the user has.

The file, ``gmm_08.pkl``, comes with SMPLify after registration and may not be passed on; nothing is downloaded. This
library's own mixture, fitted on free motion capture, can take its place.

Source: Bogo et al., "Keep it SMPL", ECCV 2016, section 3.2 (after Olson and Agarwal, RSS 2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lifting.body.smplify_terms import right_jacobian
from lifting.files import load_npz, restricted_load
from lifting.rotations import rotvec_to_matrix

if TYPE_CHECKING:
    from lifting.body.priors import PosePrior


class PoseCost(Protocol):
    """A prior on poses: cost (n,) and gradient (n, K, 3) of rotation vectors (n, K, 3)."""

    def __call__(self, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cost and gradient."""
        ...


@dataclass(frozen=True, eq=False)
class MaxMixture:
    """SMPLify's pose prior: of a mixture of Gaussians over joints 1.., the component that fits a pose best.

    cost = min_m [ 0.5 (x - mean_m)^T P_m (x - mean_m) - log(weight_m / (c sqrt|C_m| / min sqrt|C|)) ], where x are the
    rotation vectors of the joints, P = C^-1 and c = (2 pi)^(dimensions / 2).

    Attributes:
        weights: (M,) that sum to 1.
        means: (M, D) radians, D = 3 times the joints after the root that the mixture speaks about.
        covariances: (M, D, D).

    Raises ValueError for arrays that do not belong together, negative weights, and covariances that are none.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def __post_init__(self) -> None:
        """Check the arrays and invert the covariances."""
        weights, means, covariances = (np.asarray(v, np.float64) for v in (self.weights, self.means, self.covariances))
        weights = weights.ravel()
        if means.ndim != 2 or covariances.shape != (*means.shape, means.shape[1]) or len(weights) != len(means):
            raise ValueError(f"a mixture has weights {weights.shape}, means {means.shape} and covariances "
                             f"{covariances.shape}, expected (M,), (M, D) and (M, D, D).")
        if means.shape[1] % 3 or not all(np.isfinite(v).all() for v in (weights, means, covariances)):
            raise ValueError(f"the means of a mixture have {means.shape[1]} columns, expected 3 finite per joint.")
        sign, log_determinants = np.linalg.slogdet(covariances)
        if (weights <= 0).any() or (sign <= 0).any():
            raise ValueError("a mixture needs positive weights and covariances that are positive definite.")
        half = 0.5 * log_determinants
        constants = half - half.min() + 0.5 * means.shape[1] * np.log(2 * np.pi) - np.log(weights)
        for name, value in (("weights", weights), ("means", means), ("covariances", covariances),
                            ("_precisions", np.linalg.inv(covariances)), ("_constants", constants)):
            object.__setattr__(self, name, value)

    def first_joints(self, count: int) -> MaxMixture:
        """The mixture of the first `count` joints after the root: the others are integrated out."""
        size = 3 * count
        return self if size >= self.means.shape[1] else MaxMixture(
            self.weights, self.means[:, :size], self.covariances[:, :size, :size])

    @property
    def mean_pose(self) -> np.ndarray:
        """(D,) weighted mean of the components, where SMPLify starts."""
        return self.weights @ self.means / self.weights.sum()

    def __call__(self, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cost (n,) and gradient (n, K, 3) of rotation vectors (n, K, 3)."""
        size = self.means.shape[1]
        away = rotations.reshape(len(rotations), -1)[:, 3 : 3 + size] - self.means[:, None]  # (M, n, D)
        weighted = away @ self._precisions
        costs = 0.5 * np.einsum("mnd,mnd->mn", away, weighted) + self._constants[:, None]
        best, every = costs.argmin(axis=0), np.arange(len(rotations))
        gradient = np.zeros((len(rotations), rotations.shape[1] * 3))
        gradient[:, 3 : 3 + size] = weighted[best, every]
        return costs[best, every], gradient.reshape(rotations.shape)


def read_mixture(path: str | PathLike[str]) -> MaxMixture:
    """Read SMPLify's mixture (``gmm_08.pkl``) or the same arrays as npz: ``means``, ``covars``, ``weights``.

    Raises FileNotFoundError, and ValueError for a file that is damaged, hostile or holds something else.
    """
    path, names = Path(path), ("weights", "means", "covars")
    try:
        if path.suffix.lower() == ".npz":
            found = load_npz(path, only=names)
        else:
            with path.open("rb") as file:
                found = restricted_load(file)
        missing = [name for name in names if not isinstance(found, dict) or name not in found]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return MaxMixture(*(found[name] for name in names))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file at {str(path)!r}: expected the mixture of a pose prior.") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is no pose prior of SMPLify: {error}") from error


@dataclass(frozen=True, eq=False)
class FittedPrior:
    """A `PosePrior` of this library (lifting.body.priors) in the place of SMPLify's mixture."""

    prior: PosePrior

    def __call__(self, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cost (n,) and gradient (n, K, 3) of rotation vectors (n, K, 3)."""
        matrices = rotvec_to_matrix(rotations)
        residual, jacobian = self.prior.linearise(matrices)
        turning = np.einsum("nr,nrd->nd", residual, jacobian).reshape(rotations.shape)
        return self.prior.frame_costs(matrices), np.einsum("nkba,nkb->nka", right_jacobian(rotations), turning)
