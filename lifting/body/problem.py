"""One person's fit as an optimisation problem: which terms hold the body to its evidence, and how strong they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from lifting.body.capsules import SelfIntersection
from lifting.body.contact_terms import (
    ContactPoints,
    GroundContact,
    NoSlip,
    Penetration,
    sole_points,
    standing_clearances,
)
from lifting.body.energy import State
from lifting.body.evidence import MEDIAN_OF_NORMAL, Observations, error_memory, noise_factor
from lifting.body.initial import CHAIN, initial_state
from lifting.body.limits import JointLimits
from lifting.body.model import BodyModel
from lifting.body.point_terms import Points2D, Points3D
from lifting.body.points import PointSet
from lifting.body.prior_terms import FocalPrior, OffsetPrior, PosePriorTerm, ShapePrior, StaturePrior
from lifting.body.priors import BodyPriors, PosePrior
from lifting.body.smoothness import RotationSmoothness, TranslationSmoothness
from lifting.body.solver import Solution, solve, solve_chunked
from lifting.contacts import contact_probabilities, foot_points
from lifting.ground import Ground, estimate_ground
from lifting.motion import RADIUS_68

FEET_LAYOUTS = ("coco17_feet", "h36m17")
WORLD_UP = (0.0, 0.0, 1.0)
LOW_FEET = 5.0  # percent of the feet's heights over their clearance: where the floor of a world is, whatever its zero
OFFSET_RANGE = (0.002, 0.03)  # metres
FIRST_PACE = 3.0  # in the solve that tells how lively a clip is, which smoothness must not hide
CALM = 7.5  # rad/s^2: angular accelerations of a calm clip in that solve, in those of the trunk; third quartile
MOST_PACE = 5.0
OVERFIT = 1.5  # errors of 2D points over their residuals: a body has about two unknowns for three of their numbers
LEAST_STATURE, MOST_STATURE = 0.3, 3.0  # metres
MOST_FOOT_SIGMA = 0.03  # metres on each axis: the fit has smoothed what is worse
PENETRATION_SIGMA = 0.003  # metres
SMALL_ERROR = 0.002  # metres: bones are told from joints that err by no more, however long they do
MOST_SLIP = 10.0  # deviations of `NoSlip`: lifted feet slide in depth at up to half a metre a second, and yet stand
FLOOR_SIGMA = 0.015  # metres: unevenness of a floor and of soles
CONTACT_SECONDS = 0.5  # of standing that count as one measurement of the floor
DOUBTFUL_FLOOR = 8.0  # degrees of doubt about the direction of gravity
FIXED_POINT = re.compile(r"eye_|mouth|^(left|right)_(pinky|index|thumb)$")  # more such points would only cost time
# Angular accelerations relative to the trunk's, by part of the joint's name: rounded, from the free motion capture.
AGILE = {"shoulder": 2.0, "elbow": 1.5, "wrist": 3.0, "hip": 1.5, "knee": 1.5, "ankle": 2.0, "foot": 3.0, "head": 1.5}


@dataclass(frozen=True)
class FitConfig:
    """Strengths of the energy's terms. Deviations are of the Gaussians that the terms stand for.

    rotation_acceleration: rad/s^2, and what it is multiplied by for the joints of `agile`; translation_acceleration:
    m/s^2, both of a calm clip; heavy_tails: scale of their Student's t, in deviations, None for Gaussian. pose_memory:
    seconds that a pose lasts, so that the prior of a clip counts once per pose and not once per frame. offset: metres
    between a detector's point and the body's, as a first guess. focal: relative deviation of the camera's focal length,
    which is then found, too; None keeps it. shape: least share of the deviation among people that the prior of the
    shape has, since what all frames err by alike would else make odd bodies; errors that change from frame to frame
    give it more. height, measured_height: metres, of a stature that is given, and of the one that the bones of the
    motion tell. robust: scale of Geman-McClure's cost of the evidence, in deviations; wide, narrow: what it is
    multiplied by, in turn, in the first solve and in the later ones. iterations, standing_iterations: most steps of a
    solve, without and with feet that stand. tolerance: relative fall of the cost at which it ends. chunk: frames of a
    window, for clips that are longer.
    """

    rotation_acceleration: float = 8.0
    agile: Mapping[str, float] = field(default_factory=lambda: AGILE)
    translation_acceleration: float = 1.2
    heavy_tails: float | None = 2.0
    pose_memory: float = 1.0
    offset: float = 0.008
    focal: float | None = None
    shape: float = 0.08
    height: float = 0.005
    measured_height: float = 0.02
    robust: float = 3.0
    wide: tuple[float, ...] = (5.0,)
    narrow: tuple[float, ...] = (1.0,)
    iterations: int = 6
    standing_iterations: int = 12
    tolerance: float = 1e-3
    chunk: int = 2000


@dataclass(frozen=True, eq=False)
class Standing:
    """Feet on the floor.

    names (F,) of the foot points, the points, and places (T, F, 3) metres where they were; clearance (F,) metres over
    the floor at which they stand; probability (T, F) that they do; ground: the floor in the motion's frame.
    """

    names: tuple[str, ...]
    points: PointSet
    places: np.ndarray
    clearance: np.ndarray
    probability: np.ndarray
    ground: Ground

    def height_sigma(self, fps: float) -> float:
        """Metres: how far standing points may be off the floor in one frame, so that a contact of many counts as one.

        Heights are as good as the floor: its tilt is in doubt, and more so the farther from the middle of the contacts.
        """
        middle = np.average(self.places.reshape(-1, 3), axis=0, weights=self.probability.reshape(-1) + 1e-9)
        away = np.linalg.norm(self.places - middle, axis=-1)
        reach = np.sqrt(np.average(away**2, weights=self.probability + 1e-9))
        tilt = reach * np.radians(self.ground.sigma_degrees)
        return float(np.hypot(FLOOR_SIGMA, tilt) * np.sqrt(max(CONTACT_SECONDS * fps, 1.0)))

    @property
    def floor_known(self) -> bool:
        """Whether the floor is known well enough to stand on, or only that feet rest."""
        return self.ground.source != "camera" and self.ground.sigma_degrees < DOUBTFUL_FLOOR


@dataclass(frozen=True, eq=False)
class Problem:
    """One person's evidence and body: what the stages of the fit share.

    pace: how lively the clip is, which both smoothness terms are multiplied by; `FIRST_PACE` in the first solve, which
    then tells it, like the deviations of the evidence. With one pace for all, running and jumping are flattened, and
    what evidence then contradicts is taken for its error.
    """

    body: BodyModel
    seen: Observations
    height: float | None
    priors: BodyPriors | None
    prior: PosePrior | None
    config: FitConfig
    offset_sigma: float | None = None
    first_guess: Observations | None = None
    measured: float | None = None
    memory: float = np.inf
    pace: float = FIRST_PACE

    def start(self) -> State:
        """The closed-form start."""
        weights = np.where(np.isfinite(self.seen.joints).all(-1), (self.seen.sigma.min() / self.seen.sigma) ** 2, 0.0)
        state = initial_state(self.body, self.seen.skeleton, self.seen.joints, weights, self.height, self.prior)
        stature = self.body.stature(state.shape)
        if not LEAST_STATURE <= stature <= MOST_STATURE:
            raise ValueError(f"the joints suggest a person of {stature:.3g} m, expected {LEAST_STATURE} to "
                             f"{MOST_STATURE}; give joints in metres.")
        return replace(state, offsets=np.zeros((self.offset_rows.max(initial=-1) + 1, 3)))

    @cached_property
    def offset_rows(self) -> np.ndarray:
        """(P,) which of the state's offsets moves each 2D point, -1 for points that have none."""
        if self.seen.pixels is None:
            return np.zeros(0, int)
        free = np.array([not FIXED_POINT.search(name) for name in self.seen.keypoint_skeleton.joints])
        return np.where(free, np.cumsum(free) - 1, -1)

    def terms(self) -> list:
        """The energy without contacts."""
        seen, config, fps = self.seen, self.config, self.seen.fps
        terms = [
            self.joint_term(),
            ShapePrior(self.shape_share * self.body.shape_sigma),
            RotationSmoothness(fps, self.pace * config.rotation_acceleration * self._agility(), config.heavy_tails),
            TranslationSmoothness(fps, self.pace * config.translation_acceleration, config.heavy_tails),
        ]
        if seen.pixels is not None:
            terms += [self.pixel_term(), OffsetPrior(self.offset_sigma or config.offset)]
            if config.focal is not None:
                terms.append(FocalPrior(config.focal))
        if self.prior is not None:
            terms.append(PosePriorTerm(self.prior, 1.0 / max(config.pose_memory * fps, 1.0)))
        if self.height is not None:
            terms.append(StaturePrior(self.body, self.height, config.height))
        elif self.measured is not None:
            terms.append(StaturePrior(self.body, self.measured, config.measured_height))
        return terms

    @property
    def shape_share(self) -> float:
        """Deviation of the shape's prior, of that among people: the longer errors last, the less frames average them.

        `memory` is for how many frames they do. The errors of lifts are in part those of the whole clip, and a shape
        that is free takes them for the person's; those of markers are too small to matter.
        """
        sigma = np.median(self.seen.sigma[np.isfinite(self.seen.sigma)])
        return float(min(max(self.config.shape, 1.0 / self.memory, SMALL_ERROR / sigma), 1.0))

    def joint_term(self) -> Points3D:
        """The term of the 3D joints."""
        points = self.body.point_set(self.seen.skeleton)
        return Points3D(points, self.seen.joints, self.seen.sigma, self.config.robust)

    def pixel_term(self) -> Points2D:
        """The term of the 2D points, each with a free offset."""
        seen = self.seen
        points = self.body.point_set(seen.keypoint_skeleton)
        return Points2D(points, seen.pixels, seen.sigma_px, self.config.robust, self.offset_rows, seen.camera)

    def _agility(self) -> np.ndarray:
        """Angular accelerations (K,) of the joints, in those of the trunk."""
        agile = self.config.agile.items()
        return np.array([next((f for part, f in agile if part in name), 1.0) for name in self.body.joints])

    def _pace_of(self, state: State) -> float:
        """How many times as large accelerations are as in a calm clip, judged by the solution with `FIRST_PACE`.

        Kept between 1 and `MOST_PACE`; the square, since smoothing has taken the more the livelier a clip is.
        """
        joints = [self.body.joint(name) for name in CHAIN]  # fingers, jaw and eyes have no evidence, like unseen frames
        known = np.isfinite(self.seen.joints).all(axis=-1).any(axis=-1)
        told = known[:-2] & known[1:-1] & known[2:]
        turns = RotationSmoothness(self.seen.fps, 1.0).residuals(state, None)[told][:, joints]
        if not len(turns):
            return 1.0
        lively = np.percentile(np.linalg.norm(turns, axis=-1) / self._agility()[joints], 75)
        return float(np.clip((lively / CALM) ** 2, 1.0, MOST_PACE))

    def solve(
        self, state: State, terms: list, scales: tuple[float, ...], free: tuple[str, ...] = ("shape", "offsets"),
        iterations: int | None = None,
    ) -> Solution:  # fmt: skip
        """Minimises the energy of some terms, robust scales multiplied by one factor after the other.

        free: which of the unknowns that all frames share move. iterations: most steps; None: the configured ones.
        """
        config = self.config
        free = tuple(name for name in free if name != "offsets" or len(state.offsets))
        if config.focal is not None and self.seen.pixels is not None:
            free = (*free, "focal")
        options = dict(body=self.body, robust_factors=scales, max_iterations=iterations or config.iterations,
                       tolerance=config.tolerance, free=free)  # fmt: skip
        if len(self.seen) <= config.chunk:
            return solve(terms, state, **options)
        return solve_chunked(terms, state, chunk=config.chunk, **options)

    def reweighed(self, solution: Solution) -> Problem:
        """The same with deviations of the evidence as the residuals of a solution show them."""
        state, seen = solution.state, self.seen
        kinematics = self.body.kinematics(state.rotations, state.trajectory, state.shape)
        first = self.first_guess or seen
        apart = self.joint_term().residuals(state, kinematics)
        joints, memory = (measure(apart, first.sigma, seen.fps) for measure in (noise_factor, error_memory))
        pixels = None
        if seen.pixels is not None:
            pixels = OVERFIT * noise_factor(self.pixel_term().residuals(state, kinematics), first.sigma_px, seen.fps)
        offset = None
        if state.offsets.any():
            offset = float(np.clip(np.median(np.abs(state.offsets)) / MEDIAN_OF_NORMAL, *OFFSET_RANGE))
        pace = self.pace if self.first_guess else self._pace_of(state)
        return replace(self, seen=first.rescaled(joints, pixels), first_guess=first, offset_sigma=offset,
                       memory=memory, pace=pace)  # fmt: skip

    def standing(self, state: State) -> Standing:
        """Which feet stand where, judged by the fitted body."""
        kinematics = self.body.kinematics(state.rotations, state.trajectory, state.shape)
        names, points = self.feet()
        feet = points.evaluate(kinematics, state.shape)
        heights = standing_clearances(self.body, points, state.shape)
        if self.seen.frame == "world":
            low = np.percentile(feet[..., 2] - heights, LOW_FEET)
            ground = Ground(WORLD_UP, float(low), source="world frame")
        else:
            joints = self.body.point_set("h36m17").evaluate(kinematics, state.shape)
            ground = estimate_ground(joints, "h36m17", self.seen.fps, feet=feet, clearance=heights)
        sigma = np.full(feet.shape[:2], self.foot_sigma(feet))
        raised = feet - heights[:, None] * ground.up
        probability = contact_probabilities(raised, self.seen.fps, up=ground.up, sigma=sigma)
        return Standing(names, points, feet, heights, probability, ground)

    def foot_sigma(self, feet: np.ndarray) -> float:
        """Radius in metres that holds 68 % of the errors of fitted feet (T, F, 3), from those of the evidence."""
        sigma = float(np.median(self.seen.sigma[np.isfinite(self.seen.sigma)]))
        if self.seen.pixels is not None:
            seen = self.seen.sigma_px[np.isfinite(self.seen.sigma_px)]
            away = np.median(np.linalg.norm(feet, axis=-1)) if self.seen.frame == "camera" else np.inf
            sigma = min(sigma, float(np.median(seen)) * away / float(np.min(self.seen.camera.focal)))
        return RADIUS_68 * min(sigma, MOST_FOOT_SIGMA)

    @property
    def camera_moves(self) -> bool:
        """Whether the motion is in the axes of a camera that moves: no floor stands still there."""
        return self.seen.frame == "camera" and self.seen.camera_moves

    @property
    def can_stand(self) -> bool:
        """Whether the body knows points of its feet, and those that tell of its balance."""
        return "h36m17" in self.body.layouts

    def feet(self) -> tuple[tuple[str, ...], PointSet]:
        """The body's points that can stand: names (F,) and the points."""
        layout = next(layout for layout in FEET_LAYOUTS if layout in self.body.layouts)
        points = self.body.point_set(layout)
        names = foot_points(layout)
        return names, points.subset([points.names.index(name) for name in names])

    def contact_terms(self, standing: Standing) -> list:
        """Floor, slip, penetration, joint limits and limbs inside each other."""
        feet = ContactPoints(standing.points)
        terms: list = [NoSlip(feet, standing.probability, self.seen.fps, robust=MOST_SLIP)]
        if standing.floor_known:
            sigma = standing.height_sigma(self.seen.fps)
            terms.append(GroundContact(feet, standing.probability, standing.ground, standing.clearance, sigma))
            terms.append(Penetration(ContactPoints(sole_points(self.body)), standing.ground, sigma=PENETRATION_SIGMA))
        if self.priors is not None:
            terms.append(JointLimits.from_priors(self.priors, self.body))
        return [*terms, SelfIntersection(self.body)]
