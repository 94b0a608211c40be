"""Fits the pose prior, joint limits and twist statistics of the body fit on free motion capture.

    python -m experiments.fit_pose_prior [--rotations data/mocap/mocap_rot24.h5] [--output FILE]

Split `train`, every fifth frame (10 Hz) and its mirror image; subjects 05, 09 and 10 (split `val`) are held out for the
table. Rotations are kept in the file's own convention, T-pose at rest (see `lifting.body.priors`). One minute on a CPU.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import click
import numpy as np

from lifting.body.limits import swing_twist_angles
from lifting.body.priors import PRIORS_FILE, BodyPriors, PosePrior, save_priors
from lifting.datasets.mocap import ACKNOWLEDGEMENT
from lifting.files import atomic_write
from lifting.rotations import matrix_to_rotvec, rotvec_to_matrix
from lifting.skeletons import get_skeleton, mirror_name

JOINTS = get_skeleton("smpl24").joints[1:22]  # all but the root and the hands
HELD_OUT = ("05", "09", "10")
STEP = 5
COMPONENTS = 8
RANKS = (8, 16, 32)
# Share of the block-diagonal covariance (joints independent) in every covariance, chosen by cross-validation over five
# groups of training subjects: of 0, 0.3, 0.6, 1, best for the mixture, level with 0 for the Gaussian.
SHRINKAGE = 0.3

# Standard deviations in radians added to what the data show: their own error, the variation between bodies' rest poses,
# and what the data cannot show (CMU's collars do not move; its knees and elbows are hinges about one fixed axis).
FLOOR = 0.1
FLOORS = {"collar": 0.2, "elbow": 0.25, "knee": 0.15, "foot": 0.15}
# Limits: percentiles of the training poses, widened.
PERCENTILES = (0.1, 99.9)
MARGIN = np.deg2rad(15)
# Least half-widths of the limits (twist, swing, swing) around the mean where the data hold a joint still.
LEAST_WIDTHS = {"collar": (20, 30, 30), "elbow": (90, 0, 25), "knee": (25, 0, 15), "foot": (10, 30, 10)}  # degrees
# Largest angles to either side of the T-pose, where the data's extremes are errors of the capture (degrees).
CAPS = {"wrist": (100, 85, 85), "ankle": (60, 85, 60)}


@dataclass(frozen=True, eq=False)
class Poses:
    """Local rotations (N, 21, 3, 3) of the joints JOINTS."""

    train: np.ndarray
    held_out: np.ndarray


def read_poses(path: str | PathLike[str]) -> Poses:
    """Read every STEPth frame and its mirror image; FileNotFoundError or ValueError when it is no rotation file."""
    import h5py

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no {str(path)!r}; give the path of mocap_rot24.h5 with --rotations.")
    parts: dict[bool, list[np.ndarray]] = {True: [], False: []}
    with h5py.File(path) as file:
        names = [name.replace("l_", "left_").replace("r_", "right_") for name in map(_text, file.attrs["joints"])]
        if missing := sorted(set(JOINTS) - set(names)):
            raise ValueError(f"{str(path)!r} has no joints {', '.join(missing)}; give mocap_rot24.h5.")
        columns = [names.index(joint) for joint in JOINTS]
        for piece in file.values():
            vectors = piece["rotvec"][::STEP][:, columns] * float(piece.attrs["scale"])
            parts[_text(piece.attrs["subject"]) in HELD_OUT].append(vectors)
    train, held_out = (rotvec_to_matrix(with_mirror(np.concatenate(parts[kind]))) for kind in (False, True))
    return Poses(train, held_out)


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def mirrored_joints() -> list[str]:
    """JOINTS with left and right exchanged."""
    return [mirror_name(joint) for joint in JOINTS]


def with_mirror(rotvecs: np.ndarray) -> np.ndarray:
    """Append to rotation vectors (N, 21, 3) their mirror images in the plane x = 0."""
    other = [JOINTS.index(joint) for joint in mirrored_joints()]
    return np.concatenate([rotvecs, rotvecs[:, other] * [1, -1, -1]])


def mean_rotation(rotations: np.ndarray) -> np.ndarray:
    """The chordal means (J, 3, 3) of rotations (N, J, 3, 3)."""
    u, _, vt = np.linalg.svd(rotations.mean(axis=0))
    u[..., 2] *= np.linalg.det(u @ vt)[..., None]
    return u @ vt


def entry_of(table: dict, joint: str, default):
    """The entry for a joint, found by its name without the side."""
    return table.get(joint.split("_")[-1], default)


def floors() -> np.ndarray:
    """Variances (63,) added to the diagonal of every covariance."""
    return np.repeat([entry_of(FLOORS, joint, FLOOR) for joint in JOINTS], 3) ** 2


# ---- densities


def fit_gaussian(x: np.ndarray, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) of x (N, D), floors added."""
    mean = np.average(x, axis=0, weights=weight)
    weight = np.full(len(x), 1 / len(x)) if weight is None else weight / weight.sum()
    centred = (x - mean) * np.sqrt(weight)[:, None]
    return mean, centred.T @ centred + np.diag(floors())


def independent(covariance: np.ndarray, share: float = 1.0) -> np.ndarray:
    """Scale what lies off the 3x3 blocks of the diagonal by 1 - `share`; with 1, joints are independent."""
    blocks = np.kron(np.eye(len(JOINTS)), np.ones((3, 3)))
    return covariance * (1 - share + share * blocks)


def low_rank(covariance: np.ndarray, rank: int) -> np.ndarray:
    """Keep `rank` principal directions of the covariance whitened by the floors, average the rest.

    Probabilistic PCA: Tipping and Bishop, "Probabilistic principal component analysis", 1999.
    """
    scale = np.sqrt(floors())
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    values[:-rank] = values[:-rank].mean()
    return (vectors * values @ vectors.T) * np.outer(scale, scale)


def log_densities(x: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Log densities (M, N) of x (N, D) under M Gaussians."""
    rows = []
    for mean, covariance in zip(means, covariances, strict=True):
        factor = np.linalg.cholesky(covariance)
        white = np.linalg.solve(factor, (x - mean).T)
        log_det = np.log(np.diag(factor)).sum()
        rows.append(-0.5 * (white**2).sum(axis=0) - log_det - 0.5 * x.shape[1] * np.log(2 * np.pi))
    return np.array(rows)


def fit_mixture(x: np.ndarray, parts: int, rounds: int = 40, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Weights, means and covariances of a mixture of Gaussians by expectation maximisation from k-means."""
    from scipy.cluster.vq import kmeans2

    _, label = kmeans2(x, parts, minit="++", seed=seed)
    share = np.eye(parts)[label].T
    for _ in range(rounds):
        weights = share.mean(axis=1)
        means, covariances = map(np.array, zip(*(fit_gaussian(x, row + 1e-12) for row in share), strict=True))
        scores = log_densities(x, means, covariances) + np.log(weights)[:, None]
        share = np.exp(scores - np.logaddexp.reduce(scores, axis=0))
    return weights, means, covariances


def mixture_density(x: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Log density (N,) of x under the mixture."""
    return np.logaddexp.reduce(log_densities(x, means, covariances) + np.log(weights)[:, None], axis=0)


# ---- limits and twist


def bone_axes() -> np.ndarray:
    """Rows (21, 3, 3) of `BodyPriors.axes`: the bone in the T-pose, then the axes of flexion and of what is left."""
    return np.array([_axes_of(joint) for joint in JOINTS])


def _axes_of(joint: str) -> np.ndarray:
    x, y, z = np.eye(3)
    sign = -1.0 if joint.startswith("right") else 1.0
    kind = joint.split("_")[-1]
    if kind in ("hip", "knee"):
        bone, flexion = -y, x
    elif kind in ("ankle", "foot"):
        bone, flexion = z, x
    elif kind in ("collar", "shoulder", "wrist"):
        bone, flexion = sign * x, -sign * y
    elif kind == "elbow":  # CMU's hinge: the forearm goes forward and up
        bone, flexion = sign * x, sign * (np.sin(np.pi / 6) * z - np.cos(np.pi / 6) * y)
    else:
        bone, flexion = y, x
    return np.stack([bone, flexion, np.cross(bone, flexion)])


def fit_limits(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest (21, 3) twist and swing angles: percentiles and a margin, opened where the data are blind."""
    low, high = np.percentile(angles, PERCENTILES, axis=0)
    centre = np.median(angles, axis=0)
    least = np.deg2rad([entry_of(LEAST_WIDTHS, joint, (0, 0, 0)) for joint in JOINTS])
    caps = np.deg2rad([entry_of(CAPS, joint, (180, 180, 180)) for joint in JOINTS])
    low, high = np.minimum(low - MARGIN, centre - least), np.maximum(high + MARGIN, centre + least)
    return np.maximum(low, -caps), np.minimum(high, caps)


def within(angles: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which angles (N, 21, 3) lie within the limits."""
    return (angles >= low) & (angles <= high)


def twist_statistics(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and deviation (21,) of the twist, and its deviation given the two swing angles (linear regression)."""
    floor = np.array([entry_of(FLOORS, joint, FLOOR) for joint in JOINTS])
    mean, sigma = angles[..., 0].mean(axis=0), angles[..., 0].std(axis=0)
    given = []
    for joint in range(angles.shape[1]):
        swing = np.column_stack([np.ones(len(angles)), angles[:, joint, 1:]])
        left = angles[:, joint, 0] - swing @ np.linalg.lstsq(swing, angles[:, joint, 0], rcond=None)[0]
        given.append(left.std())
    return mean, np.hypot(sigma, floor), np.hypot(given, floor)


# ---- the whole


def fit(poses: Poses, seed: int = 0) -> tuple[BodyPriors, dict]:
    """Fit everything on the training poses; return it with the held-out table."""
    centres = mean_rotation(poses.train)
    x, test = (matrix_to_rotvec(np.swapaxes(centres, -1, -2) @ r).reshape(len(r), -1)
               for r in (poses.train, poses.held_out))  # fmt: skip
    mean, full = fit_gaussian(x)
    covariance = independent(full, SHRINKAGE)
    weights, means, covariances = fit_mixture(x, COMPONENTS, seed=seed)
    mixture = weights, means, independent(covariances, SHRINKAGE)
    axes = bone_axes()
    angles, test_angles = (swing_twist_angles(axes @ r @ np.swapaxes(axes, -1, -2))[0]
                           for r in (poses.train, poses.held_out))  # fmt: skip
    low, high = fit_limits(angles)
    table = held_out_table(x, test, mean, full, mixture)
    inside = [within(a, low, high) for a in (angles, test_angles)]
    report = {
        "frames": [len(x), len(test)],
        "nll_train_heldout": table,
        "frames_within_limits_train_heldout": [float(part.all(axis=(1, 2)).mean()) for part in inside],
        "angles_within_limits_train_heldout": [float(part.mean()) for part in inside],
    }
    metadata = {
        "data": "CMU motion capture (mocap_rot24), train split, mirrored; held out: " + ", ".join(HELD_OUT),
        "acknowledgement": ACKNOWLEDGEMENT, "licence": "Apache-2.0", "report": report,
        "floor_rad": FLOOR, "floors_rad": FLOORS, "limit_percentiles": PERCENTILES, "limit_margin_rad": float(MARGIN),
        "convention": "local rotations of SMPL's tree, T-pose at rest, Y up, facing +Z; see lifting/body/priors.py",
    }  # fmt: skip
    twist = twist_statistics(angles)
    return BodyPriors(JOINTS, centres, mean, covariance, *mixture, axes, low, high, *twist, metadata), report


def held_out_table(x: np.ndarray, test: np.ndarray, mean: np.ndarray, full: np.ndarray, mixture: tuple) -> dict:
    """Negative log likelihood per frame, [train, held out], of every density tried."""
    gaussians = {"independent Gaussian per joint": independent(full)}
    gaussians |= {f"low-rank Gaussian, rank {rank}": low_rank(full, rank) for rank in RANKS}
    gaussians |= {"full Gaussian": full, f"full Gaussian, shrunk {SHRINKAGE}": independent(full, SHRINKAGE)}
    table = {name: _nll(x, test, mean, covariance) for name, covariance in gaussians.items()}
    name = f"mixture of {COMPONENTS}, shrunk {SHRINKAGE}"
    return table | {name: [-float(mixture_density(data, *mixture).mean()) for data in (x, test)]}


def _nll(x: np.ndarray, test: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> list[float]:
    return [-float(log_densities(data, mean[None], covariance[None]).mean()) for data in (x, test)]


def best_component_share(priors: BodyPriors, poses: Poses) -> list[float]:
    """How often the max-mixture picks each component on the held-out poses."""
    prior = PosePrior.from_mixture(priors.mixture_weights, priors.mixture_means, priors.mixture_covariances,
                                   np.arange(len(JOINTS)), priors.centres)  # fmt: skip
    best = prior.choose(prior.features(poses.held_out))[0]
    return (np.bincount(best, minlength=COMPONENTS) / len(best)).round(3).tolist()


@click.command()
@click.option("--rotations", default="data/mocap/mocap_rot24.h5", show_default=True)
@click.option("--output", default=str(PRIORS_FILE), show_default="the package's file")
@click.option("--report", "report_path", default="runs/fit_pose_prior.json", show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(rotations: str, output: str, report_path: str, seed: int) -> None:
    """Fit the pose prior and print the held-out table."""
    poses = read_poses(rotations)
    priors, report = fit(poses, seed)
    save_priors(priors, output)
    report["component_share_heldout"] = best_component_share(priors, poses)
    with atomic_write(report_path, "w") as file:
        json.dump(report, file, indent=1)
    print("| density | NLL per frame, train | held out |\n|---|---|---|")
    for name, (train, test) in report["nll_train_heldout"].items():
        print(f"| {name} | {train:.2f} | {test:.2f} |")
    print()
    for what in ("frames", "angles"):
        train, test = (100 * share for share in report[f"{what}_within_limits_train_heldout"])
        print(f"{what} within the limits: train {train:.2f} %, held out {test:.2f} %")
    print(f"Components chosen on held-out frames: {report['component_share_heldout']}")
    print(f"Wrote {output} ({Path(output).stat().st_size / 1024:.0f} KB) and {report_path}.")


if __name__ == "__main__":
    main()
