"""A body for every frame of a clip: the SMPLify-style fit over the whole clip at once.

The evidence is 3D joints and, where there is a camera, the 2D points behind them. The fit starts in closed form
(`lifting.body.initial`) and minimises one energy over all frames by Levenberg-Marquardt (`lifting.body.solver`):

1. joints, points, pose prior, smooth rotations and path, usual shape; Geman-McClure's scale narrows step by step;
2. the same once residuals have told how far evidence is to be trusted (`lifting.body.evidence`), and how lively it is;
3. with feet that stand: the floor, no slip, nothing below it, joint limits, no limb inside another.

Sources: Bogo et al., "Keep it SMPL", ECCV 2016 (terms, stages); Pavlakos et al., "SMPLify-X", CVPR 2019 (robust cost);
Zheng et al., "Deep multi-view / EasyMocap" (one shape and smoothness for a clip); Blake and Zisserman 1987 (annealing).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from lifting.anatomy import check_height
from lifting.body.body_file import BODIES, load_body
from lifting.body.evidence import Observations, observe
from lifting.body.model import BodyModel
from lifting.body.priors import PosePrior, load_priors
from lifting.body.problem import FitConfig, Problem
from lifting.body.report import BodyFit, describe_fit
from lifting.cameras import Camera, estimate_focal
from lifting.cleaning import clean
from lifting.keypoints import Keypoints2D
from lifting.motion import Motion, Person, Take

if TYPE_CHECKING:
    from lifting.meshes import SkinnedMesh

SAME_SIZE = 0.03
MODES = ("whole", "smplify")


def fit_body(
    source: Motion | Person | Take,
    *,
    keypoints: Keypoints2D | None = None,
    camera: Camera | None = None,
    body: str | BodyModel = "lite",
    height: float | None = None,
    contacts: bool = True,
    mode: str = "whole",
    prior: object = None,
    config: FitConfig | None = None,
    progress: Callable | None = None,
) -> BodyFit | Take:
    """Fits a body to a motion and the 2D points behind it.

    Args:
        source: a `Motion` of any layout that the body knows; a `Person`, whose keypoints count, too (without `camera`,
            of a motion in camera axes, a focal length is assumed and said among the report's warnings); or a `Take`, of
            which everybody with a motion is fitted with the take's own camera.
        keypoints, camera: 2D evidence for a `Motion`, in the frames of the motion. In a world frame the camera's
            rotation and translation lead from there to it.
        body: name of an embedded body, path of a body file, or a model.
        height: stature in metres; of a take, of its main person.
        contacts: estimate the floor and let standing feet stand.
        mode: ``whole`` clip at once, or ``smplify`` frame by frame with the published terms: from the 2D points alone,
            without height, contacts and config.
        prior: for ``smplify``: a mixture of Gaussians, or the path of its file. For ``whole``: a `PosePrior`.
        config: strengths of the terms.
        progress: ``progress(iterable, total, title)`` wraps the loop over people, for ``smplify`` that over frames.

    Returns:
        a `BodyFit`; for a take, the take with `Person.body` set to this fit's, a report in ``metadata["body"]`` and
        joints, parents and licence by the body's name in ``metadata["bodies"]``. Somebody who cannot be fitted has no
        body and a warning in the report; if nobody can be, the first error is raised.

    Raises ValueError for evidence that is too poor or does not fit together and for unknown names, FileNotFoundError
    for a body or prior that is not there.
    """
    if mode not in MODES:
        raise ValueError(f"got the mode {mode!r}, expected one of {', '.join(MODES)}.")
    check_height(height)
    if mode == "smplify" and height is not None:
        raise ValueError(f"got a height of {height:g} m for the mode 'smplify', which has no term for it; "
                         "leave it out, or use the mode 'whole'.")
    model, config = load_body(body), config or FitConfig()
    if isinstance(source, Take):
        return _fit_take(source, model, height, contacts, mode, prior, config, progress)
    assumed: list[str] = []
    if isinstance(source, Person):
        source, keypoints, camera, assumed = _evidence_of(source, keypoints, camera)
    if not isinstance(source, Motion):
        raise ValueError(f"got a {type(source).__name__}, expected a Motion, a Person or a Take.")
    if mode == "smplify":
        from lifting.body.smplify_fit import fit_smplify

        fit = fit_smplify(source, keypoints, camera, model, prior, progress)
    else:
        fit = fit_motion(source, keypoints, camera, model, height, contacts, prior, config)
    return replace(fit, report={**fit.report, "warnings": [*fit.report["warnings"], *assumed]})


def _evidence_of(
    person: Person, keypoints: Keypoints2D | None, camera: Camera | None
) -> tuple[Motion, Keypoints2D | None, Camera | None, list[str]]:
    """Motion, keypoints and camera of a person, and what was assumed of the camera if nobody knows it."""
    if person.motion is None:
        raise ValueError(f"person {person.id} has no motion, expected one; lift the person first.")
    if keypoints is None:
        keypoints = person.keypoints
    if camera is not None or person.motion.frame != "camera":
        return person.motion, None if camera is None else keypoints, camera, []
    focal, sentence = estimate_focal(keypoints.image_size)
    return person.motion, keypoints, Camera.from_focal(focal, keypoints.image_size), [sentence]


def _fit_take(take, model, height, contacts, mode, prior, config, progress) -> Take:
    lifted = [person for person in take.people if person.motion is not None]
    if not lifted:
        raise ValueError(f"nobody in the take {take.name!r} has a motion, expected at least one; lift it first.")
    fitted, reports, failures = {}, [], {}
    slow = mode == "smplify"  # shows its own progress
    for person in progress(lifted, len(lifted), "fitting bodies") if progress and not slow else lifted:
        tall = height if person is take.people[0] else None
        try:
            fit = fit_body(person, camera=take.camera, body=model, height=tall, contacts=contacts, mode=mode,
                           prior=prior, config=config, progress=progress)  # fmt: skip
        except ValueError as error:
            failures[person.id] = error
            continue
        fitted[person.id] = fit.motion
        reports.append({"id": person.id, **fit.report})
    if not fitted:
        raise next(iter(failures.values()))
    people = tuple(replace(person, body=fitted.get(person.id)) for person in take.people)
    warnings = [f"person {number} has no body: {error}" for number, error in failures.items()]
    about = {"name": model.name, "mode": mode, "people": reports, "warnings": warnings}
    bodies = {model.name: {"joints": model.joints, "parents": model.parents, "licence": model.licence}}
    return take.replace(people=people, metadata={**take.metadata, "body": about, "bodies": bodies})


def fit_motion(
    motion: Motion,
    keypoints: Keypoints2D | None,
    camera: Camera | None,
    body: BodyModel,
    height: float | None,
    contacts: bool,
    prior: PosePrior | str | PathLike[str] | None,
    config: FitConfig,
) -> BodyFit:
    """Fits one person over the whole clip; arguments as of `fit_body`."""
    began = time.perf_counter()
    if keypoints is not None:
        keypoints = clean(in_known_layout(keypoints, body)).keypoints
    prior = as_pose_prior(prior, body)
    seen = observe(motion, keypoints, camera)
    if height is not None and motion.sigma is not None and motion.frame == "camera":
        seen = seen.scaled(scale_to(height, body, seen, prior))
    problem = pose_problem(body, seen, height, prior, config)
    start = problem.start()
    # Size and distance go together in an image: what bone lengths say of the size is kept.
    problem = replace(problem, measured=body.stature(start.shape))
    solution = problem.solve(start, problem.terms(), config.wide, free=("shape",))
    problem = problem.reweighed(solution)
    solution = problem.solve(solution.state, problem.terms(), config.narrow)
    problem, standing = problem.reweighed(solution), None
    solution = problem.solve(solution.state, problem.terms(), config.narrow)
    if contacts and problem.can_stand and not problem.camera_moves:
        standing = problem.standing(solution.state)
        # The shape is held: a smaller body would slip less.
        terms = problem.terms() + problem.contact_terms(standing)
        free = solution.free
        held = problem.solve(solution.state, terms, config.narrow, (), config.standing_iterations)
        solution = replace(held, free=free)  # held is not known
    return describe_fit(motion, problem, solution, standing, time.perf_counter() - began)


def scale_to(height: float, body: BodyModel, seen: Observations, prior: PosePrior | None) -> float:
    """What a lift is to be multiplied by for a person of that height; 1 where it differs by less than `SAME_SIZE`.

    The size of a lifted person is the network's guess, and in camera axes size and distance change together.
    """
    scale = height / body.stature(pose_problem(body, seen, None, prior, FitConfig()).start().shape)
    return scale if abs(scale - 1) > SAME_SIZE else 1.0


def in_known_layout(keypoints: Keypoints2D, body: BodyModel) -> Keypoints2D:
    """The keypoints, in the layout `lift17` when the body has no points of their own layout."""
    return keypoints if keypoints.skeleton.name in body.layouts else keypoints.to("lift17")


def as_pose_prior(prior: PosePrior | str | PathLike[str] | None, body: BodyModel) -> PosePrior | None:
    """A prior of the whole-clip fit, read from a file where a path is given; ValueError for anything else."""
    if prior is None or hasattr(prior, "linearise"):
        return prior
    if isinstance(prior, (str, PathLike)) and Path(prior).suffix.lower() == ".npz":
        return load_priors(prior).pose_prior(body)
    raise ValueError(f"got {prior!r} as prior, expected a PosePrior or the .npz file of one; mixtures such as "
                     "gmm_08.pkl are for the mode 'smplify'.")


def pose_problem(
    body: BodyModel, seen: Observations, height: float | None, prior: PosePrior | None, config: FitConfig
) -> Problem:
    """The problem of one person, with the priors of the package where the body has their joints."""
    priors = load_priors()
    if not set(priors.joints) <= set(body.joints):
        return Problem(body, seen, height, None, prior, config)
    return Problem(body, seen, height, priors, prior or priors.pose_prior(body), config)


def take_meshes(take: Take, body: str | BodyModel | None = None, level: str = "full") -> list[SkinnedMesh]:
    """The skinned meshes of everybody in a take who has a body, as plain arrays for export and view.

    body: the model that was fitted; default: the embedded one of the name in the result. level: ``full`` or a preview's
    name. Raises ValueError when nobody has a body, or the body is a user's own file and none is given.
    """
    bodies = [(person.id, person.body) for person in take.people if person.body is not None]
    if not bodies:
        raise ValueError(f"nobody in the take {take.name!r} has a body, expected at least one; run lift fit first.")
    models: dict[str, BodyModel] = {}
    for _, motion in bodies:
        if motion.body not in models:
            models[motion.body] = _model_of(motion.body, body)
    return [models[motion.body].skinned(motion, level, person_id) for person_id, motion in bodies]


def _model_of(name: str, body: str | BodyModel | None) -> BodyModel:
    if body is None and name not in BODIES:
        raise ValueError(f"the body {name!r} comes from a file of the user's, which the result does not hold; give it "
                         "as body=FILE, or with --body FILE.")
    model = load_body(name if body is None else body)
    if model.name != name:
        raise ValueError(f"got the body {model.name!r} for a fit of {name!r}; give the body that was fitted.")
    return model
