"""Bodies whose mesh is skinned linearly to a tree of joints: SMPL's family, our "lite" body and others of that kind.

The mesh of a shape s at rest is ``template + shape_directions s``, its joints ``joint_template + joint_directions s``;
a pose turns the joints (forward kinematics) and carries every vertex with a weighted mean of the bones' motions (linear
blend skinning), to which pose blendshapes may add a correction of the rest mesh that is linear in the rotations
(Loper et al., "SMPL: a skinned multi-person linear model", SIGGRAPH Asia 2015). All numbers are float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from lifting.body.checks import as_floats, as_numbers, as_skin_weights, as_sparse, check_range
from lifting.body.points import Kinematics, PointSet, build_points
from lifting.body.retarget import smpl_rest_offsets
from lifting.keypoints import set_fields
from lifting.meshes import (
    SkinnedMesh,
    bone_transforms,
    forward_kinematics,
    joint_levels,
    pose_correction,
    skin,
    skinning_matrix,
)
from lifting.motion import BodyMotion, plain_json
from lifting.rotations import rotvec_to_matrix
from lifting.skeletons import Skeleton, get_skeleton

__all__ = ["OWN_JOINTS", "BodyModel", "Kinematics", "Preview"]

OWN_JOINTS = "joints"  # the layout of the body's own joint centres
_CHUNK_VALUES = 4_000_000  # numbers in the largest working array of one chunk of frames: 32 MB
# Layouts that define points of the same name alike: one that a body lacks is taken from another.
_DETECTOR_LAYOUTS = ("halpe26", "coco17_feet", "coco17", "lift17")


@dataclass(frozen=True, eq=False)
class Preview:
    """A decimated mesh: some of a body's vertices with faces of their own.

    Attributes:
        vertex_ids: (N,) numbers of the body's vertices.
        faces: (F, 3) int32 numbers within `vertex_ids`.
    """

    vertex_ids: np.ndarray
    faces: np.ndarray

    def __post_init__(self) -> None:
        """Convert the fields and check the faces."""
        set_fields(self, vertex_ids=as_numbers(self.vertex_ids, "vertex_ids of a preview", (None,)),
                   faces=as_numbers(self.faces, "faces of a preview", (None, 3)).astype(np.int32))
        check_range(self.faces, len(self.vertex_ids), "faces of a preview")


@dataclass(frozen=True, eq=False, repr=False)
class BodyModel:
    """A linear-blend-skinned body of V vertices, K joints and S shape coefficients.

    Attributes:
        name: what the body is called in files and results.
        joints: K unique names; joint 0 is the root.
        parents: K joint numbers, -1 for joint 0.
        template: (V, 3) metres, the rest mesh of the mean shape in the body's own axes.
        shape_directions: (V, 3, S) metres per shape coefficient.
        joint_template: (K, 3) metres, the joints of the mean shape.
        joint_directions: (K, 3, S) metres per shape coefficient.
        skin_weights: (V, K) sparse or dense, not negative, rows that sum to 1.
        faces: (F, 3) int32 vertex numbers, counter-clockwise from outside.
        pose_directions: (V, 3, 9 (K - 1)) metres per entry of ``R_k - I`` of joints 1.., row-major; or None.
        regressors: by layout, sparse (J, V + K) matrices from vertices and then joint centres to the layout's points.
        shape_sigma: (S,) standard deviations of the shape coefficients among people; None means 1.
        up, forward: the body's axes that point up and forward when it stands at rest: x, y, z, -x, -y or -z.
        previews: decimated meshes by name.
        licence: terms of the body's data, in words.
        metadata: JSON-able facts about the body.
        extras: further arrays by name, meant for whoever made the file.

    Raises ValueError for arrays that do not fit together, values that are not finite, and parents that form no tree.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    template: np.ndarray
    shape_directions: np.ndarray
    joint_template: np.ndarray
    joint_directions: np.ndarray
    skin_weights: sparse.csr_matrix
    faces: np.ndarray
    pose_directions: np.ndarray | None = None
    regressors: Mapping[str, sparse.csr_matrix] = field(default_factory=dict)
    shape_sigma: np.ndarray | None = None
    up: str = "y"
    forward: str = "z"
    previews: Mapping[str, Preview] = field(default_factory=dict)
    licence: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check and convert the fields."""
        set_fields(self, name=str(self.name), joints=tuple(map(str, self.joints)), licence=str(self.licence))
        bones = len(self.joints)
        if not bones or len(set(self.joints)) != bones:
            raise ValueError(f"the body {self.name!r} needs joints with unique names, got {list(self.joints)}.")
        set_fields(self, parents=tuple(as_numbers(self.parents, "parents", (bones,)).tolist()))
        joint_levels(self.parents)
        self._convert_mesh()
        self._convert_extras()
        set_fields(self, _point_sets={})

    def _convert_mesh(self) -> None:
        template = as_floats(self.template, "template", (None, 3))
        directions = as_floats(self.shape_directions, "shape_directions", (*template.shape, None))
        vertices, bones, size = len(template), len(self.joints), directions.shape[2]
        if not vertices:
            raise ValueError(f"the body {self.name!r} has no vertices, expected a mesh.")
        sigma = np.ones(size) if self.shape_sigma is None else as_floats(self.shape_sigma, "shape_sigma", (size,))
        if (sigma <= 0).any():
            raise ValueError(f"shape_sigma must be positive, got {sigma.min():g}.")
        pose = self.pose_directions
        if pose is not None:
            pose = as_floats(pose, "pose_directions", (vertices, 3, 9 * (bones - 1)))
        faces = as_numbers(self.faces, "faces", (None, 3)).astype(np.int32)
        check_range(faces, vertices, "faces")
        set_fields(self, template=template, shape_directions=directions, shape_sigma=sigma, pose_directions=pose,
                   joint_template=as_floats(self.joint_template, "joint_template", (bones, 3)),
                   joint_directions=as_floats(self.joint_directions, "joint_directions", (bones, 3, size)),
                   skin_weights=as_skin_weights(self.skin_weights, (vertices, bones)), faces=faces)

    def _convert_extras(self) -> None:
        columns = self.num_vertices + self.num_joints
        regressors = {layout: as_sparse(matrix, f"the regressor of {layout!r}", (None, columns))
                      for layout, matrix in self.regressors.items()}
        for layout, matrix in regressors.items():
            names = self._names_of(layout, matrix)
            if matrix.shape[0] != len(names):
                raise ValueError(f"the regressor of {layout!r} has {matrix.shape[0]} rows, expected {len(names)}; "
                                 "one for each joint of the layout.")
        for level, preview in self.previews.items():
            check_range(preview.vertex_ids, self.num_vertices, f"vertex_ids of the preview {level!r}")
        for name in ("up", "forward"):
            _axis(getattr(self, name), name)
        if self.up[-1] == self.forward[-1]:
            raise ValueError(f"up is {self.up!r} and forward {self.forward!r}, expected two axes at right angles.")
        set_fields(self, regressors=regressors, previews=dict(self.previews),
                   metadata=plain_json(self.metadata, "body"),
                   extras={str(name): np.asarray(array) for name, array in self.extras.items()})

    def __repr__(self) -> str:
        """Name and sizes: the arrays themselves tell nobody anything."""
        return (f"BodyModel({self.name!r}, {self.num_joints} joints, {self.num_vertices} vertices, "
                f"{self.num_shape} shape coefficients)")

    # ---- sizes and shapes

    @property
    def num_vertices(self) -> int:
        """V."""
        return len(self.template)

    @property
    def num_joints(self) -> int:
        """K."""
        return len(self.joints)

    @property
    def num_shape(self) -> int:
        """S."""
        return self.shape_directions.shape[2]

    def joint(self, name: str) -> int:
        """Number of the joint called `name`; ValueError with the known names otherwise."""
        if name not in self.joints:
            raise ValueError(f"the body {self.name!r} has no joint {name!r}; it has {', '.join(self.joints)}.")
        return self.joints.index(name)

    def shape_of(self, shape: np.ndarray | None) -> np.ndarray:
        """Shape coefficients (S,) float64: fewer are filled up with zeros, None is the mean shape.

        Raises ValueError for more coefficients than the body has and values that are not finite.
        """
        given = np.zeros(0) if shape is None else np.asarray(shape, np.float64)
        if given.ndim != 1 or len(given) > self.num_shape or not np.isfinite(given).all():
            raise ValueError(f"got shape coefficients {np.shape(given)}, expected up to {self.num_shape} finite "
                             f"numbers for the body {self.name!r}.")
        return np.pad(given, (0, self.num_shape - len(given)))

    def rest_joints(self, shape: np.ndarray | None = None) -> np.ndarray:
        """Joints (K, 3) in metres of a shape (S,) at rest, in the body's own axes."""
        return self.joint_template + self.joint_directions @ self.shape_of(shape)

    def rest_vertices(self, shape: np.ndarray | None = None, subset: np.ndarray | None = None) -> np.ndarray:
        """Vertices (V, 3) in metres of a shape (S,) at rest, in the body's own axes; or those numbered in `subset`."""
        chosen = slice(None) if subset is None else np.asarray(subset)
        return self.template[chosen] + self.shape_directions[chosen] @ self.shape_of(shape)

    def stature(self, shape: np.ndarray | None = None) -> float:
        """Height in metres: the extent of the rest mesh along `up`.

        The rest poses in use (A, T) stand upright on the floor, so that this is the standing height without shoes; feet
        that point down at rest add the centimetre or two by which the toes reach below the soles.
        """
        axis, _ = _axis(self.up, "up")
        heights = self.template[:, axis] + self.shape_directions[:, axis] @ self.shape_of(shape)
        return float(np.ptp(heights))

    def axes(self) -> np.ndarray:
        """(3, 3) rotation from (left, up, forward) of the person to the body's own axes: its columns are these."""
        columns = []
        for axis, sign in (_axis(self.up, "up"), _axis(self.forward, "forward")):
            columns.append(sign * np.eye(3)[axis])
        up, forward = columns
        return np.stack([np.cross(up, forward), up, forward], axis=1)

    # ---- posed

    def kinematics(self, rotations: np.ndarray, trajectory: np.ndarray, shape: np.ndarray | None = None) -> Kinematics:
        """Forward kinematics.

        Args:
            rotations: (T, K, 3, 3) local rotation matrices or (T, K, 3) rotation vectors, joint 0 in the frame.
            trajectory: (T, 3) metres, position of joint 0 in the frame.
            shape: (S,); None is the mean shape.

        NaN stays in its frame. Raises ValueError for other shapes.
        """
        rotations, trajectory = self._pose_of(rotations, trajectory)
        rest = self.rest_joints(shape)
        return Kinematics(rotations, *forward_kinematics(rotations, trajectory, rest, self.parents), rest)

    def _pose_of(self, rotations: object, trajectory: object) -> tuple[np.ndarray, np.ndarray]:
        rotations, trajectory = np.asarray(rotations, np.float64), np.asarray(trajectory, np.float64)
        if rotations.ndim == 3 and rotations.shape[1:] == (self.num_joints, 3):
            rotations = rotvec_to_matrix(rotations)
        if rotations.ndim != 4 or rotations.shape[1:] != (self.num_joints, 3, 3):
            raise ValueError(f"got rotations {rotations.shape}, expected (frames, {self.num_joints}, 3, 3) matrices or "
                             f"(frames, {self.num_joints}, 3) rotation vectors for the body {self.name!r}.")
        if trajectory.shape != (len(rotations), 3):
            raise ValueError(f"got a trajectory {trajectory.shape}, expected ({len(rotations)}, 3), one position for "
                             "each frame of rotations.")
        return rotations, trajectory

    def vertices(self, rotations: np.ndarray, trajectory: np.ndarray, shape: np.ndarray | None = None,
                 subset: np.ndarray | None = None, dtype: type = np.float64) -> np.ndarray:
        """Skinned vertices (T, V, 3) in metres in the frame; arguments as of `kinematics`.

        `subset` (V',) are the numbers of the vertices wanted, None is all. float32 takes half the time and memory, for
        errors of a micrometre. See `vertex_chunks` where T V 3 numbers are too many.
        """
        count = self.num_vertices if subset is None else len(subset)
        vertices, start = np.empty((len(trajectory), count, 3), dtype), 0
        for chunk in self.vertex_chunks(rotations, trajectory, shape, subset, dtype):
            vertices[start : start + len(chunk)] = chunk
            start += len(chunk)
        return vertices

    def vertex_chunks(self, rotations: np.ndarray, trajectory: np.ndarray, shape: np.ndarray | None = None,
                      subset: np.ndarray | None = None, dtype: type = np.float64) -> Iterator[np.ndarray]:
        """Yield what `vertices` returns in runs of frames, with memory that does not grow with T."""
        kinematics = self.kinematics(rotations, trajectory, shape)
        rest, weights = self.rest_vertices(shape, subset), self._dense_weights(subset)
        matrix = skinning_matrix(rest, weights).astype(dtype)
        correction = None if self.pose_directions is None else self._pose_correction(subset, weights, dtype)
        step = max(1, _CHUNK_VALUES // max(1, len(rest) * (9 if correction else 3)))
        for start in range(0, len(kinematics), step):
            part = slice(start, start + step)
            turned, joints = kinematics.global_rotations[part], kinematics.joints[part]
            origin = joints[:, :1]  # float32 keeps its precision relative to the root
            transforms = bone_transforms(turned, joints - origin, kinematics.rest_joints)
            skinned = skin(transforms.astype(dtype), matrix)
            if correction:
                skinned += correction(turned, kinematics.pose_features[part])
            skinned += origin.astype(dtype)
            yield skinned

    def _dense_weights(self, subset: np.ndarray | None) -> np.ndarray:
        weights = self.skin_weights if subset is None else self.skin_weights[np.asarray(subset)]
        return weights.toarray()

    def _pose_correction(self, subset: np.ndarray | None, weights: np.ndarray,
                         dtype: type) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        chosen = self.pose_directions if subset is None else self.pose_directions[np.asarray(subset)]
        return pose_correction(chosen, weights, dtype)

    # ---- keypoints

    @property
    def layouts(self) -> tuple[str, ...]:
        """Names of the layouts that `point_set` knows, the body's own joints included."""
        derived = [name for name in _DETECTOR_LAYOUTS if name not in self.regressors and self._donor(name)]
        return (*self.regressors, *derived, OWN_JOINTS)

    def point_set(self, layout: str | Skeleton | sparse.spmatrix | np.ndarray) -> PointSet:
        """The points of a layout as linear forms of the bones.

        `layout` is the name of a layout the body has a regressor for, its Skeleton, ``joints`` for the body's own joint
        centres, or a regressor (J, V + K) of your own. Point sets of layouts are made once and kept.
        Raises ValueError with the known layouts for another.
        """
        if not isinstance(layout, (str, Skeleton)):
            matrix = as_sparse(layout, "the regressor", (None, self.num_vertices + self.num_joints))
            return build_points(self, matrix, [f"point{i}" for i in range(matrix.shape[0])])
        name = self._layout_name(layout)
        if name not in self._point_sets:
            matrix = self.regressor(name)
            self._point_sets[name] = build_points(self, matrix, self._names_of(name, matrix))
        return self._point_sets[name]

    def regressor(self, layout: str | Skeleton) -> sparse.csr_matrix:
        """The matrix (J, V + K) from vertices and then joint centres to a layout; ValueError with the known ones."""
        name = self._layout_name(layout)
        if name in self.regressors:
            return self.regressors[name]
        if name == OWN_JOINTS:
            blank = sparse.csr_matrix((self.num_joints, self.num_vertices))
            return sparse.hstack([blank, sparse.identity(self.num_joints)]).tocsr()
        donor = self._donor(name)
        if donor is None:
            raise ValueError(f"the body {self.name!r} has no regressor for {name!r}; it has {', '.join(self.layouts)}.")
        return self.regressors[donor][list(get_skeleton(donor).indices(get_skeleton(name).joints))]

    def points(self, layout: str | Skeleton | sparse.spmatrix, rotations: np.ndarray, trajectory: np.ndarray,
               shape: np.ndarray | None = None) -> np.ndarray:
        """The points (T, J, 3) of a layout in metres in the frame, without skinning; arguments as of `kinematics`."""
        kinematics = self.kinematics(rotations, trajectory, shape)
        return self.point_set(layout).evaluate(kinematics, self.shape_of(shape))

    def _layout_name(self, layout: str | Skeleton) -> str:
        if isinstance(layout, Skeleton):
            return layout.name
        if layout in self.regressors or layout == OWN_JOINTS:
            return layout
        try:
            return get_skeleton(layout).name
        except ValueError:
            return layout

    def _donor(self, name: str) -> str | None:
        """A layout with a regressor that has all points of the layout `name`, if both are of the detectors'."""
        if name not in _DETECTOR_LAYOUTS:
            return None
        wanted = set(get_skeleton(name).joints)
        donors = (other for other in _DETECTOR_LAYOUTS if other in self.regressors)
        return next((other for other in donors if wanted <= set(get_skeleton(other).joints)), None)

    def _names_of(self, layout: str, matrix: sparse.spmatrix) -> tuple[str, ...]:
        if layout == OWN_JOINTS:
            return self.joints
        try:
            return get_skeleton(layout).joints
        except ValueError:  # points of the maker's own, such as those of the soles
            return tuple(f"{layout}{i}" for i in range(matrix.shape[0]))

    # ---- out

    def skinned(self, motion: BodyMotion, level: str = "full", person_id: int = 0) -> SkinnedMesh:
        """The mesh of a motion as plain arrays for export and view.

        `level` is ``full`` or the name of a preview. Raises ValueError for a motion of another body, an unknown level.
        """
        if motion.rotations.shape[1] != self.num_joints:
            raise ValueError(f"got a motion of {motion.rotations.shape[1]} joints of the body {motion.body!r}, "
                             f"expected {self.num_joints} of {self.name!r}; load the body that the motion names.")
        if level != "full" and level not in self.previews:
            raise ValueError(f"the body {self.name!r} has no mesh {level!r}; it has "
                             f"{', '.join(['full', *self.previews])}.")
        subset = None if level == "full" else self.previews[level].vertex_ids
        chosen = slice(None) if subset is None else subset
        indices, weights = _padded_weights(self.skin_weights[chosen])
        return SkinnedMesh(
            name=self.name, joints=self.joints, parents=self.parents, rest_joints=self.rest_joints(motion.shape),
            rest_vertices=self.rest_vertices(motion.shape, subset),
            faces=self.faces if level == "full" else self.previews[level].faces, bone_indices=indices,
            bone_weights=weights, rotations=motion.rotations, trajectory=motion.trajectory, fps=motion.fps,
            frame=motion.frame, person_id=person_id, smpl_offsets=smpl_rest_offsets(self),
            pose_directions=None if self.pose_directions is None else self.pose_directions[chosen],
            gender=str(self.metadata.get("gender", "neutral")))

    def replace(self, **changes: object) -> BodyModel:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)


def _padded_weights(weights: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Sparse weights (V, K) as bone numbers (V, B) and weights (V, B), largest first; B is the most a vertex has."""
    dense = weights.toarray()
    most = max(1, int(np.diff(weights.indptr).max(initial=1)))
    order = np.argsort(-dense, axis=1, kind="stable")[:, :most]
    values = np.take_along_axis(dense, order, axis=1)
    return np.where(values > 0, order, 0).astype(np.int32), values


def _axis(text: str, what: str) -> tuple[int, int]:
    """Number and sign of an axis such as ``-z``."""
    if text not in ("x", "y", "z", "-x", "-y", "-z"):
        raise ValueError(f"{what} must be x, y, z, -x, -y or -z, got {text!r}.")
    return "xyz".index(text[-1]), -1 if text.startswith("-") else 1
