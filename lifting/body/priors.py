"""What poses people take: a pose prior, joint limits and twist statistics, fitted on free motion capture.

Everything is stored in one *reference convention*, that of `mocap_rot24.h5`: local rotations of SMPL's tree whose rest
pose is a T-pose, world-aligned axes, Y up, facing +Z, +X to the person's left. A body with another rest pose is tied to
it by the constant *rest offsets* O_k of `lifting.body.retarget`: ``R_reference = O_parent R_body O_k^T``. SMPL's own
rest pose is nearly that T-pose: its offsets are small.

The features of a pose are the rotation vectors of its joints relative to each joint's mean rotation C_k, in radians:
``x_k = log(C_k^T R_reference)``. Relative to the mean they stay far from the jump of the logarithm at pi. A prior is
one Gaussian over them, or a max-mixture (Olson and Agarwal, RSS 2012; as in SMPLify, Bogo et al., ECCV 2016): per frame
the cheapest component counts, its normaliser included.

Measured on held-out people, a mixture of 8 is 2 to 10 nats per frame likelier than the Gaussian; the Gaussian is the
default all the same: its cost is nearly quadratic, has one minimum and does not jump between components.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from lifting.body.retarget import mocap_rest_offsets
from lifting.body.so3 import inverse_right_jacobian
from lifting.files import atomic_write, load_npz
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix

__all__ = ["BodyPriors", "PosePrior", "load_priors", "save_priors"]

PRIORS_FILE = Path(__file__).resolve().parent.parent / "weights" / "body_priors.npz"
KINDS = ("gaussian", "mixture")

# ---- the pose prior, tied to a body


@dataclass(frozen=True, eq=False)
class PosePrior:
    """Negative log density of poses of one body, up to a constant, in the form a least-squares solver wants.

    Attributes:
        columns: (J,) joint numbers of the body that the prior speaks about.
        before, after: (J, 3, 3) with ``before R after = C^T R_reference`` for the body's local rotation R.
        means: (M, 3J) means of the components' features, radians.
        whiteners: (M, 3J, 3J) W with W^T W the inverse covariance: the residual is W (x - mean).
        constants: (M,) costs of choosing a component, the least of them 0.

    Raises ValueError when the shapes do not fit together.
    """

    columns: np.ndarray
    before: np.ndarray
    after: np.ndarray
    means: np.ndarray
    whiteners: np.ndarray
    constants: np.ndarray

    def __post_init__(self) -> None:
        """Check the shapes."""
        joints, parts = len(self.columns), len(self.means)
        expected = {"before": (joints, 3, 3), "after": (joints, 3, 3), "means": (parts, 3 * joints),
                    "whiteners": (parts, 3 * joints, 3 * joints), "constants": (parts,)}  # fmt: skip
        for name, shape in expected.items():
            if (found := np.shape(getattr(self, name))) != shape:
                raise ValueError(f"{name} of a pose prior has shape {found}, expected {shape} for {joints} joints "
                                 f"and {parts} components.")

    @classmethod
    def from_mixture(cls, weights, means, covariances, columns, centres=None, before=None, after=None) -> PosePrior:
        """Build from a mixture of Gaussians over rotation vectors: weights (M,), means (M, 3J), covariances.

        With `centres`, `before` and `after` left out (identity), these are the plain local rotation vectors of the
        body, as in the mixtures of SMPLify. Raises ValueError when a covariance is not positive definite.
        """
        weights, means = np.asarray(weights, dtype=np.float64), np.asarray(means, dtype=np.float64)
        covariances = np.asarray(covariances, dtype=np.float64)
        try:
            factors = np.linalg.cholesky(covariances)
        except np.linalg.LinAlgError as error:
            raise ValueError("a covariance of the pose prior is not positive definite; add a floor to its "
                             "diagonal.") from error
        whiteners = np.linalg.solve(factors, np.broadcast_to(np.eye(means.shape[1]), factors.shape))
        constants = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1) - np.log(weights)
        still = np.tile(np.eye(3), (len(columns), 1, 1))
        before, after, centres = (still if part is None else np.asarray(part) for part in (before, after, centres))
        return cls(np.asarray(columns), np.swapaxes(centres, -1, -2) @ before, after, means, whiteners,
                   constants - constants.min())  # fmt: skip

    def features(self, rotations: np.ndarray) -> np.ndarray:
        """Rotation vectors (T, J, 3) relative to the mean, of local rotations (T, K, 3, 3) of the body."""
        return matrix_to_rotvec(self.before @ rotations[:, self.columns] @ self.after)

    def choose(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Best component (T,) of each frame for features (T, J, 3), its residual (T, 3J) and cost (T,)."""
        flat = features.reshape(len(features), -1)
        residuals = np.stack([(flat - mean) @ w.T for mean, w in zip(self.means, self.whiteners, strict=True)])
        costs = 0.5 * np.sum(residuals**2, axis=-1) + self.constants[:, None]
        best = costs.argmin(axis=0)
        frames = np.arange(len(flat))
        return best, residuals[best, frames], costs[best, frames]

    def frame_costs(self, rotations: np.ndarray) -> np.ndarray:
        """Cost (T,) of each frame: half the squared residual plus the constant of the chosen component."""
        return self.choose(self.features(rotations))[2]

    def cost(self, rotations: np.ndarray) -> float:
        """Sum of `frame_costs` for local rotations (T, K, 3, 3)."""
        return float(self.frame_costs(rotations).sum())

    def linearise(self, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual (T, m) and Jacobian (T, m, 3K) by right perturbations R_k exp([w_k]x), of rotations (T, K, 3, 3).

        m = 3J for one Gaussian. A mixture gives those of each frame's cheapest component, and one row more, the root
        of twice its constant, which moves with nothing: half the squared residual is the cost in either case.
        """
        features = self.features(rotations)
        best, residual, _ = self.choose(features)
        if len(self.means) > 1:
            residual = np.column_stack([residual, np.sqrt(2 * self.constants[best])])
        frames, joints = features.shape[:2]
        slopes = np.zeros((frames, joints, 3, rotations.shape[1], 3))
        turned = inverse_right_jacobian(features) @ np.swapaxes(self.after, -1, -2)
        slopes[:, np.arange(joints), :, self.columns] = np.swapaxes(turned, 0, 1)
        jacobian = np.zeros((*residual.shape, 3 * rotations.shape[1]))
        whiteners = self.whiteners[0] if len(self.means) == 1 else self.whiteners[best]
        np.matmul(whiteners, slopes.reshape(frames, 3 * joints, -1), out=jacobian[:, :3 * joints])
        return residual, jacobian

    def mean_rotations(self, num_joints: int) -> np.ndarray:
        """Local rotations (K, 3, 3) of the prior's most usual pose, identity for joints it says nothing about."""
        rotations = np.tile(np.eye(3), (num_joints, 1, 1))
        mean = rotvec_to_matrix(self.means[self.constants.argmin()].reshape(-1, 3))
        rotations[self.columns] = np.swapaxes(self.before, -1, -2) @ mean @ np.swapaxes(self.after, -1, -2)
        return rotations


# ---- the file


@dataclass(frozen=True, eq=False)
class BodyPriors:
    """Statistics of poses in the reference convention, for any body with the 22 joints of SMPL's names.

    Attributes:
        joints: J names, every joint of the tree but the root.
        centres: (J, 3, 3) mean rotations C.
        mean, covariance: (3J,) and (3J, 3J) of one Gaussian over the features.
        mixture_weights, mixture_means, mixture_covariances: (M,), (M, 3J), (M, 3J, 3J).
        axes: (J, 3, 3) right-handed rows: the bone at rest, then the axes of the swing. For knees and elbows the
            second is the hinge, about which flexion is positive.
        limit_low, limit_high: (J, 3) radians: least and largest (twist, swing, swing) that a person reaches, with
            R = S T, T the twist about the bone, log(S) the swing vector in the second and third axis: the angles of
            `lifting.body.limits.swing_twist_angles` of ``axes R_reference axes^T``.
        twist_mean, twist_sigma, twist_sigma_given_swing: (J,) radians, of the twist angle.
        metadata: where it comes from: data, licence, margins, floors, held-out likelihoods.

    Raises ValueError when the shapes do not fit together, naming the field.
    """

    joints: tuple[str, ...]
    centres: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    mixture_weights: np.ndarray
    mixture_means: np.ndarray
    mixture_covariances: np.ndarray
    axes: np.ndarray
    limit_low: np.ndarray
    limit_high: np.ndarray
    twist_mean: np.ndarray
    twist_sigma: np.ndarray
    twist_sigma_given_swing: np.ndarray
    metadata: Mapping

    def __post_init__(self) -> None:
        """Check the shapes and turn everything into float64."""
        object.__setattr__(self, "joints", tuple(str(name) for name in self.joints))
        joints, parts = len(self.joints), len(self.mixture_weights)
        size = 3 * joints
        shapes = {"centres": (joints, 3, 3), "mean": (size,), "covariance": (size, size), "mixture_weights": (parts,),
                  "mixture_means": (parts, size), "mixture_covariances": (parts, size, size), "axes": (joints, 3, 3),
                  "limit_low": (joints, 3), "limit_high": (joints, 3), "twist_mean": (joints,),
                  "twist_sigma": (joints,), "twist_sigma_given_swing": (joints,)}  # fmt: skip
        for name, shape in shapes.items():
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape != shape or not np.isfinite(values).all():
                raise ValueError(f"{name} of the body priors has shape {values.shape}, expected {shape} finite "
                                 f"numbers for {joints} joints; fit them with `python -m experiments.fit_pose_prior`.")
            object.__setattr__(self, name, values)
        if (self.limit_low > self.limit_high).any():
            raise ValueError("limit_low of the body priors lies above limit_high for a joint; swap them.")

    def pose_prior(self, body, kind: str = "gaussian", offsets: np.ndarray | None = None) -> PosePrior:
        """The prior of one body: ``"gaussian"`` or ``"mixture"``.

        body: a `BodyModel` with the joints of these priors; offsets: (K, 3) its rest offsets, rotation vectors, by
        default those of `lifting.body.retarget`.
        Raises ValueError for another kind, missing joints or offsets of another shape.
        """
        if kind not in KINDS:
            raise ValueError(f"kind of pose prior is {kind!r}, expected one of {', '.join(KINDS)}.")
        columns = self.columns(body)
        before, after = self.conversion(body, offsets)
        mixture = (self.mixture_weights, self.mixture_means, self.mixture_covariances)
        single = (np.ones(1), self.mean[None], self.covariance[None])
        parts = single if kind == "gaussian" else mixture
        return PosePrior.from_mixture(*parts, columns, self.centres, before, after)

    def columns(self, body) -> np.ndarray:
        """Numbers (J,) of these joints in a body; ValueError naming those that it lacks."""
        if missing := [name for name in self.joints if name not in body.joints]:
            raise ValueError(f"body {body.name!r} has no joint {', '.join(missing)}; the priors need the 22 joints of "
                             "SMPL's names: rename the model's joints.")
        return np.array([body.joints.index(name) for name in self.joints])

    def conversion(self, body, offsets: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Matrices before, after (J, 3, 3) with ``R_reference = before R_body after``."""
        columns = self.columns(body)
        offsets = mocap_rest_offsets(body) if offsets is None else np.asarray(offsets, dtype=np.float64)
        if offsets.shape != (len(body.joints), 3):
            raise ValueError(f"rest offsets have shape {offsets.shape}, expected ({len(body.joints)}, 3): a rotation "
                             "vector for each joint of the body.")
        turns = rotvec_to_matrix(offsets)
        return turns[np.array(body.parents)[columns]], np.swapaxes(turns[columns], -1, -2)

    def to_dict(self) -> dict[str, np.ndarray]:
        """Plain arrays for a file: float32 numbers, names, metadata as JSON text."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        numbers = {name: values.astype(np.float32) for name, values in data.items() if isinstance(values, np.ndarray)}
        return numbers | {"joints": np.array(self.joints), "metadata": np.array(json.dumps(dict(self.metadata)))}

    @classmethod
    def from_dict(cls, data: Mapping) -> BodyPriors:
        """Build from the arrays of `to_dict`; ValueError when one is absent or has another shape."""
        if missing := sorted(set(cls.__dataclass_fields__) - set(data)):
            raise ValueError(f"body priors lack {', '.join(missing)}; fit them with "
                             "`python -m experiments.fit_pose_prior`.")
        try:
            metadata = json.loads(str(np.asarray(data["metadata"])))
        except ValueError as error:
            raise ValueError(f"metadata of the body priors are not JSON ({error}); write the file again.") from error
        fields = {name: data[name] for name in cls.__dataclass_fields__}
        return cls(**fields | {"joints": tuple(np.asarray(data["joints"]).tolist()), "metadata": metadata})


def load_priors(path: str | PathLike[str] = PRIORS_FILE) -> BodyPriors:
    """Read the priors that come with the package, or others written by `save_priors`; runs no code from the file.

    Raises FileNotFoundError, and ValueError when the file holds something else.
    """
    try:
        return BodyPriors.from_dict(load_npz(path))
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from error


def save_priors(priors: BodyPriors, path: str | PathLike[str]) -> None:
    """Write priors as plain arrays, whole or not at all; OSError when the place cannot be written."""
    with atomic_write(path) as file:
        np.savez_compressed(file, **priors.to_dict())
