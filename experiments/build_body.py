"""Build `lifting/weights/body_lite.npz`, the embedded body, and that of children, from the free body model `anny`.

One result: a body of the SMPL kind (mean mesh, linear shape directions, 22 joints, linear blend skinning) that may be
redistributed and loads in milliseconds. It is a linear reduction of anny (code Apache-2.0, MakeHuman/MPFB2 assets CC0):

1.  104 bones become 22 joints with the names and parents of SMPL's first 22. Skin weights of merged bones are summed,
    which is exact for every pose in which merged bones do not move against each other.
2.  1500 people are drawn from anny's own distribution of phenotypes (calibrated to the statistics of the WHO), both
    sexes, ages 18 to 80 (children: 2 to 17), and 300 more are held out.
3.  Principal components of vertices and joints together give ten directions, scaled so that coefficients have unit
    standard deviation. Mesh and directions are exactly mirror symmetric.
4.  Keypoints are convex combinations of vertices and joint centres (anny's own for COCO); H36M-17 is approximate here
    and fitted to motion capture by `experiments.fit_body_regressors`, which is to be run next.

To re-make it (2 minutes; the first use of anny adds 2 minutes and 830 MB of cache, by default in ~/.cache/anny), in an
environment of its own because anny is needed to build the body only, not to use it::

    python3 -m venv venv_anny && venv_anny/bin/pip install torch==2.13.0 anny==0.6.2 scipy h5py click
    venv_anny/bin/python -m experiments.build_body
    venv_anny/bin/python -m experiments.fit_body_regressors
    venv_anny/bin/python -m experiments.build_body --name children --ages 2 17 --fitted-on lite

Only anny's default rig and topology are used; its "smpl" and "smplx" topologies are not free and never touched.

Axes of the result: right-handed, metres, Y up, +Z forward, +X to the person's left, origin at the pelvis joint for
every shape (so that the trajectory of a motion is the path of the pelvis). Rest pose: anny's A-pose, elbows bent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from experiments.body_keypoints import Rows, build_regressors, convex_weights, landmark_vertices, thin_row
from lifting.body.body_file import load_body, save_body
from lifting.body.model import BodyModel, Preview
from lifting.body.phenotypes import describe_features
from lifting.body.retarget import OFFSETS_KEY
from lifting.skeletons import get_skeleton

WEIGHTS = Path(__file__).resolve().parent.parent / "lifting" / "weights"
ANNY_VERSION = "0.6.2"
LICENCE = (
    "Derived from anny 0.6.2 (code Apache-2.0, Copyright (c) 2025 NAVER Corp.; MakeHuman/MPFB2 assets CC0 1.0) by "
    "experiments/build_body.py; Apache-2.0 as the rest of this project."
)

# Joint -> bones of anny whose head it is (several are averaged). Other bones move with their nearest named ancestor.
LEFT_BONES = {
    "left_hip": ("upperleg01.L",),
    "left_knee": ("lowerleg01.L",),
    "left_ankle": ("foot.L",),
    "left_foot": tuple(f"toe{number}-1.L" for number in range(1, 6)),
    "left_collar": ("clavicle.L",),
    "left_shoulder": ("upperarm01.L",),
    "left_elbow": ("lowerarm01.L",),
    "left_wrist": ("wrist.L",),
}
BONES = {
    "pelvis": ("root",),
    "spine1": ("spine04",),
    "spine2": ("spine02",),
    "spine3": ("spine01",),
    "neck": ("neck01",),
    "head": ("head",),
    **LEFT_BONES,
    **{joint.replace("left", "right"): tuple(bone[:-1] + "R" for bone in bones) for joint, bones in LEFT_BONES.items()},
}
NUM_JOINTS = 22  # SMPL's 24 without the hands
Y_UP_FROM_ANNY = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # anny: Z up, faces -y, +x is the person's left
PREVIEWS = {"1k": "notoes_collapse10pc", "500": "notoes_collapse5pc"}
KNUCKLES = {
    "left_hand": ("finger3-1.L",),
    "left_thumb": ("finger1-2.L",),
    "left_index": ("finger2-1.L",),
    "left_pinky": ("finger5-1.L",),
}
"""Points of the hands -> bones of anny whose heads they are."""
JOINT_SHARE = 0.005  # weight of one joint in the principal components, as a part of that of all vertices


@dataclass(frozen=True, eq=False)
class People:
    """Sampled people at rest: metres, body axes, origin at the pelvis joint."""

    vertices: np.ndarray  # (N, V, 3)
    joints: np.ndarray  # (N, K, 3)
    heads: np.ndarray  # (N, B, 3) heads of anny's bones
    female: np.ndarray  # (N,) 0 or 1
    age: np.ndarray  # (N,) years

    @property
    def points(self) -> np.ndarray:
        """(N, V+K, 3) vertices, then joints."""
        return np.concatenate([self.vertices, self.joints], axis=1)


@dataclass(frozen=True, eq=False)
class Source:
    """What is taken of anny, in its own bones; vertices reordered to middle, left half, right half."""

    model: object
    order: np.ndarray  # (V,) anny's vertex number of each of ours
    mirror: np.ndarray  # (V,) number of the vertex on the other side
    faces: np.ndarray  # (F, 3)
    joint_heads: np.ndarray  # (K, B) rows sum to 1: joint centres from bone heads
    skin_weights: np.ndarray  # (V, K)

    @classmethod
    def load(cls) -> Source:
        """Load anny's default body and merge its bones."""
        import anny

        if anny.__version__ != ANNY_VERSION:
            raise ValueError(f"anny is {anny.__version__}, expected {ANNY_VERSION}; the body must be reproducible.")
        model = anny.Anny(skinning_method="lbs")
        order, mirror = order_vertices(model.template_vertices.double().numpy())
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        joints = get_skeleton("smpl24").joints[:NUM_JOINTS]
        owners = bone_owners(model.bone_labels, model.bone_parents, joints)
        heads = np.array([[1 / len(BONES[j]) if bone in BONES[j] else 0 for bone in model.bone_labels] for j in joints])
        weights = model.dense_vertex_bone_weights.double().numpy()[order]
        merged = weights @ np.eye(NUM_JOINTS)[owners]
        return cls(model, order, mirror, back[model.faces.numpy()], heads, merged / merged.sum(1, keepdims=True))


def order_vertices(template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order vertices (V, 3) as middle, left half, right half; return the order and each ordered vertex's mirror.

    The halves follow each other in one order, so that a file of ours compresses well. ValueError if not symmetric.
    """
    distance, other = cKDTree(template).query(template * [-1, 1, 1])
    if distance.max() > 1e-6 or not np.array_equal(other[other], np.arange(len(template))):
        raise ValueError(f"the mesh is not mirror symmetric ({distance.max():.2g} m); use anny's default topology.")
    middle = np.flatnonzero(other == np.arange(len(template)))
    left = np.flatnonzero(template[:, 0] > 0)
    left = left[other[left] != left]
    order = np.concatenate([middle, left, other[left]])
    half, first = len(left), len(middle)
    mirror = np.concatenate([np.arange(first), first + half + np.arange(half), first + np.arange(half)])
    return order, mirror


def bone_owners(labels: list[str], parents: list[int], joints: tuple[str, ...]) -> np.ndarray:
    """Return (B,) the joint that moves each bone: its own, or that of the nearest ancestor that has one."""
    own = {bone: joints.index(joint) for joint, bones in BONES.items() for bone in bones}
    owners = []
    for label, parent in zip(labels, parents, strict=True):  # parents come before their children
        owners.append(own[label] if label in own else owners[parent])
    return np.array(owners)


def sample_people(source: Source, number: int, seed: int, ages: tuple[float, float] = (18.0, 80.0)) -> People:
    """Draw people from anny's distribution of phenotypes; the pelvis joint is the origin."""
    import torch
    from anny.shape_distribution import SimpleShapeDistribution

    torch.manual_seed(seed)
    years = torch.distributions.Uniform(*(torch.tensor(age, dtype=torch.float64) for age in ages))
    sexes = torch.distributions.Bernoulli(torch.tensor(0.5, dtype=torch.float64))
    age, phenotypes = SimpleShapeDistribution(source.model, years, sexes).sample(number)
    parts = [_rest(source, {name: values[first:first + 50] for name, values in phenotypes.items()})
             for first in range(0, number, 50)]
    arrays = (np.concatenate(part) for part in zip(*parts, strict=True))
    return People(*arrays, phenotypes["gender"].numpy(), age.numpy())


def _rest(source: Source, phenotypes: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, joints and bone heads of one batch."""
    import torch

    number = len(phenotypes["age"])
    identity = torch.eye(4, dtype=torch.float64).expand(number, source.model.bone_count, 4, 4)
    with torch.no_grad():
        rest = source.model(pose_parameters=identity, phenotype_kwargs=phenotypes)
    vertices = rest["rest_vertices"].double().numpy()[:, source.order] @ Y_UP_FROM_ANNY.T
    heads = rest["rest_bone_heads"].double().numpy() @ Y_UP_FROM_ANNY.T
    joints = symmetrise(source.joint_heads @ heads, joint_mirror())
    pelvis = joints[:, :1]
    return symmetrise(vertices, source.mirror) - pelvis, joints - pelvis, heads - pelvis


def joint_mirror() -> np.ndarray:
    """Return (K,) the joint on the other side."""
    return np.array(get_skeleton("smpl24").flip[:NUM_JOINTS])


def symmetrise(points: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Average points (..., P, 3) with their mirror image; removes rounding errors only, anny is symmetric."""
    return (points + points[..., mirror, :] * [-1, 1, 1]) / 2


@dataclass(frozen=True, eq=False)
class Components:
    """A linear model of people: mean (P, 3) and directions (P, 3, S) of vertices and joints, for unit coefficients."""

    mean: np.ndarray
    directions: np.ndarray
    root_weights: np.ndarray  # (P,)

    @classmethod
    def fit(cls, people: People, number: int) -> Components:
        """Principal components of the weighted, centred data, by way of the (N, N) products of people."""
        points = people.points
        mean = points.mean(0)
        split = people.vertices.shape[1]
        root = np.sqrt(np.where(np.arange(len(mean)) < split, 1 / split, JOINT_SHARE))
        data = ((points - mean) * root[:, None]).reshape(len(points), -1)
        left = np.linalg.eigh(data @ data.T)[1][:, :-number - 1:-1]
        scaled = left.T @ data / np.sqrt(len(points) - 1)
        directions = np.moveaxis(scaled.reshape(number, -1, 3) / root[:, None], 0, -1)
        return cls(mean, directions * np.sign(directions[:, 1].sum(0)), root)

    def coefficients(self, people: People) -> np.ndarray:
        """(N, S) of people, by weighted least squares."""
        points = people.points - self.mean
        basis = (self.directions * self.root_weights[:, None, None]).reshape(-1, self.directions.shape[-1])
        data = (points * self.root_weights[:, None]).reshape(len(points), -1)
        return np.linalg.lstsq(basis, data.T, rcond=None)[0].T

    def errors(self, people: People) -> tuple[np.ndarray, np.ndarray]:
        """Distances between people and the model's best: vertices (N, V) and joints (N, K), metres."""
        fitted = self.mean + np.einsum("pcs,ns->npc", self.directions, self.coefficients(people), optimize=True)
        distance = np.linalg.norm(people.points - fitted, axis=-1)
        split = people.vertices.shape[1]
        return distance[:, :split], distance[:, split:]


def build_previews(source: Source) -> dict[str, Preview]:
    """Turn the coarse meshes of anny's wheel into triangles between vertices of ours, each the nearest one."""
    from anny.paths import get_anny_root_dir

    template = source.model.template_vertices.double().numpy()[source.order] @ Y_UP_FROM_ANNY.T
    outer = largest_component(source.faces, len(template))
    folder = Path(get_anny_root_dir()) / "data" / "topology"
    previews = {}
    for level, name in PREVIEWS.items():
        points, faces = read_obj(folder / f"{name}.obj")
        nearest = outer[cKDTree(template[outer]).query(points)[1]]
        used, corners = np.unique(nearest[faces], return_inverse=True)
        corners = corners.reshape(faces.shape)
        solid = (corners != np.roll(corners, 1, axis=1)).all(1)
        previews[level] = Preview(used, corners[solid].astype(np.int32))
    return previews


def largest_component(faces: np.ndarray, number: int) -> np.ndarray:
    """Vertex numbers of the largest connected piece of a mesh: the skin, without eyeballs and teeth."""
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(number, number))
    labels = sparse.csgraph.connected_components(graph, directed=False)[1]
    return np.flatnonzero(labels == np.bincount(labels).argmax())


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read vertices and faces of a Wavefront file; polygons become fans of triangles."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    points = np.array([[float(x) for x in words[1:4]] for words in lines if words[:1] == ["v"]])
    polygons = [[int(word.split("/")[0]) - 1 for word in words[1:]] for words in lines if words[:1] == ["f"]]
    triangles = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return points, np.array(triangles)


def describe_people(people: People, coefficients: np.ndarray, ages: tuple[float, float]) -> dict:
    """Mean and covariance of the shape given sex and age, for `lifting.body.phenotypes`."""
    years = (people.age - sum(ages) / 2) / (ages[1] - ages[0])
    features = describe_features(people.female, years)
    mean = np.linalg.lstsq(features, coefficients, rcond=None)[0]
    rest = coefficients - features @ mean
    covariance = rest.T @ rest / (len(rest) - features.shape[1])
    return {"ages": list(ages), "mean": np.round(mean, 5).tolist(), "covariance": np.round(covariance, 6).tolist()}


def keypoint_rows(source: Source, people: People, skin: np.ndarray) -> Rows:
    """Collect the named points: anny's COCO regressors thinned, knuckles and toes by bones, single vertices."""
    rows = Rows(source.mirror, get_skeleton("smpl24").joints[:NUM_JOINTS], joint_mirror())
    mean = people.vertices.mean(0)
    few = np.concatenate([mean[None], people.vertices[:25]])
    dense = anny_coco(source)
    for name, weights in dense.items():
        if not name.startswith("right_"):
            rows.add(name, pad(thin_row(weights, few, source.skin_weights)))
    landmarks = landmark_vertices(mean, skin, {name: weights @ mean for name, weights in dense.items()})
    for name, vertex in landmarks.items():
        rows.add(name, rows.unit(vertex))
    for name, bones in KNUCKLES.items():
        heads = people.heads.mean(0)[[source.model.bone_labels.index(bone) for bone in bones]]
        rows.add(name, pad(surface_around(mean, heads.mean(0))))
    rows.add("left_foot_index", rows.rows["left_big_toe"])
    return rows


def anny_coco(source: Source) -> dict[str, np.ndarray]:
    """Anny's COCO and foot regressors: name -> (V,) convex weights, in our order of vertices."""
    import anny

    regressor = anny.KeypointsRegressor.coco(source.model)
    weights = regressor.regression_weights.double().numpy()[:, source.order].clip(0)
    return dict(zip(regressor.labels, weights / weights.sum(1, keepdims=True), strict=True))


def pad(weights: np.ndarray) -> np.ndarray:
    """Weights (V,) over vertices as a row (V+K,) over vertices and joints."""
    return np.concatenate([weights, np.zeros(NUM_JOINTS)])


def surface_around(vertices: np.ndarray, place: np.ndarray, number: int = 24) -> np.ndarray:
    """Weights (V,) of some of the `number` vertices nearest to a place (3,) inside the body, whose middle it is."""
    near = cKDTree(vertices).query(place, k=number)[1]
    weights = np.zeros(len(vertices))
    weights[near] = convex_weights(vertices[near], place)
    return weights


def build(
    source: Source, people: People, number: int, name: str, ages: tuple[float, float]
) -> tuple[BodyModel, Components]:
    """Build the body of `number` shape coefficients from sampled people."""
    components = Components.fit(people, number)
    split = len(source.mirror)
    skin = largest_component(source.faces, split)
    rows = keypoint_rows(source, people, skin)
    tree = get_skeleton("smpl24")
    model = BodyModel(
        name=name,
        joints=tree.joints[:NUM_JOINTS],
        parents=tree.parents[:NUM_JOINTS],
        template=components.mean[:split],
        shape_directions=components.directions[:split],
        joint_template=components.mean[split:],
        joint_directions=components.directions[split:],
        skin_weights=sparse.csr_matrix(source.skin_weights),
        faces=source.faces.astype(np.int32),
        pose_directions=None,
        regressors=build_regressors(rows),
        shape_sigma=np.ones(number),
        up="y",
        forward="z",
        previews=build_previews(source),
        licence=LICENCE,
        metadata={
            "source": f"anny {ANNY_VERSION}",
            "phenotypes": describe_people(people, components.coefficients(people), ages),
        },
    )
    return model, components


def take_fitted(body: BodyModel, other: BodyModel) -> BodyModel:
    """Take over what `experiments.fit_body_regressors` fitted to a body of the same vertices and joints."""
    regressors = {**body.regressors, "h36m17": other.regressors["h36m17"]}
    return body.replace(regressors=regressors, extras={OFFSETS_KEY: other.extras[OFFSETS_KEY]})


@click.command()
@click.option("--name", default="lite", show_default=True, help="Name of the body; the file is body_NAME.npz.")
@click.option("--ages", default=(18.0, 80.0), show_default=True, type=(float, float), help="Years, least and most.")
@click.option("--people", default=1500, show_default=True, help="How many are drawn to build the shape directions.")
@click.option("--shapes", default=10, show_default=True, help="How many shape coefficients to keep.")
@click.option("--seed", default=0, show_default=True)
@click.option("--fitted-on", default=None, help="Body of this kind whose fitted regressor and rest offsets to take.")
@click.option("--folder", default=str(WEIGHTS), show_default=True, type=click.Path(file_okay=False))
def main(
    name: str, ages: tuple[float, float], people: int, shapes: int, seed: int, fitted_on: str | None, folder: str
) -> None:
    """Build an embedded body and print its errors on people held out."""
    source, path = Source.load(), Path(folder) / f"body_{name}.npz"
    body, components = build(source, sample_people(source, people, seed, ages), shapes, name, ages)
    save_body(body if fitted_on is None else take_fitted(body, load_body(fitted_on)), path)
    others = sample_people(source, max(people // 5, 1), seed + 1, ages)
    height, size = np.ptp(others.vertices[..., 1], axis=1), path.stat().st_size / 1e6
    click.echo(f"{path.name}: {size:.2f} MB, stature {height.mean():.2f} +- {height.std():.2f} m")
    for what, error in zip(("vertices", "joints"), components.errors(others), strict=True):
        click.echo(f"held-out {what}: {1000 * error.mean():.2f} mm mean, {1000 * np.percentile(error, 95):.2f} 95 %")


if __name__ == "__main__":
    main()
