"""What a body fit costs in time, whether it gives the same bits again, and whether cutting a clip changes it.

All fits are of evidence with white noise, in this process, with one thread for linear algebra, as the solver itself
asks for. Best of several rounds: the machine may be shared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np

from experiments.fit_accuracy import FRAMES, fit_truth_evidence
from experiments.fit_table import Row, Target
from experiments.fit_truth import CAMERA, SUBJECTS, Evidence, evidence, place, read_windows
from lifting.body import BodyModel
from lifting.body.evidence import observe
from lifting.body.fit import pose_problem
from lifting.body.problem import FitConfig, Problem
from lifting.body.report import BodyFit

BASE_SCALES = (5.0, 1.0)
LONG = 2000
LONG_SUBJECTS = ("14",)  # no val subject has so long a piece; for times and for cuts any motion will do
CUT_LONG, CHUNK, NEVER_CUT = 1000, 300, 10**9
FIRST_MESH = """
import json, sys, time
began = time.perf_counter()
from lifting.body import load_body
import numpy as np
body = load_body("lite")
mesh = body.vertices(np.zeros((1, body.num_joints, 3)), np.zeros((1, 3)))
print(json.dumps({"seconds": time.perf_counter() - began, "torch": "torch" in sys.modules, "mesh": mesh.shape}))
"""


def read_evidence(path: str, body: BodyModel, frames: int) -> Evidence:
    """White evidence on the first window of so many frames."""
    window = next(read_windows(path, frames, SUBJECTS if frames <= FRAMES else LONG_SUBJECTS))
    return evidence(place(window[0], body, *window[1:]), "white")


def speed(path: str, body: BodyModel, rounds: int = 5) -> list[Row]:
    """Seconds of the base energy, of `fit_body` and of its parts, for a usual and for a long clip.

    The base energy is the issue's: 3D, 2D, pose prior and smoothness from the closed-form start, one solve. `fit_body`
    weighs the evidence anew and finds offsets, which makes three solves, and says how sure it is.
    """
    rows = []
    fast = {"base energy frames/s": Target(250.0, at_most=False)}
    for frames, targets in ((FRAMES, {"base energy s": Target(1.0)}), (LONG, fast)):
        given = read_evidence(path, body, frames)
        alone = min(base_energy(given, body) for _ in range(rounds))
        base = _best(rounds, lambda given=given: fit_truth_evidence(given, body, contacts=False))
        standing = _best(rounds, lambda given=given: fit_truth_evidence(given, body, contacts=True))
        values = {
            "frames": frames, "base energy s": alone, "base energy frames/s": frames / alone,
            "fit_body s": base["seconds"],
            "start s": base["start"], "solver s": base["solve"], "with contacts s": standing["seconds"],
            "contacts / base": standing["seconds"] / base["seconds"],
        }  # fmt: skip
        rows.append(Row(values, targets | {"contacts / base": Target(2.0)}))
    return rows


def base_energy(given: Evidence, body: BodyModel) -> float:
    """Seconds of the closed-form start and one solve of the base energy, shape and all frames free."""
    seen = observe(given.motion, given.keypoints, CAMERA)
    problem = pose_problem(body, seen, None, None, FitConfig())
    began = time.perf_counter()
    problem.solve(problem.start(), problem.terms(), BASE_SCALES, free=("shape",))
    return time.perf_counter() - began


def _best(rounds: int, function: Callable[[], object]) -> Counter:
    """The split of the fastest of some calls."""
    splits = []
    for _ in range(rounds):
        with _stopwatch("start", "solve") as split:
            began = time.perf_counter()
            function()
            split["seconds"] = time.perf_counter() - began
        splits.append(split)
    return min(splits, key=lambda split: split["seconds"])


@contextmanager
def _stopwatch(*names: str) -> Iterator[Counter]:
    """Adds up the seconds spent in methods of `Problem`, by name."""
    split: Counter = Counter()

    def timed(name: str, method: Callable) -> Callable:
        def call(*arguments, **options):
            began = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                split[name] += time.perf_counter() - began

        return call

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(Problem, name, timed(name, getattr(Problem, name))))
        yield split


def startup(rounds: int = 5) -> list[Row]:
    """From the body file to the first mesh in a fresh process: inside it, and with Python's own start."""
    inside, whole, facts = [], [], {}
    for _ in range(rounds):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", FIRST_MESH], capture_output=True, text=True, check=True)
        whole.append(time.perf_counter() - began)
        facts = json.loads(done.stdout)
        inside.append(facts["seconds"])
    values = {"seconds": min(inside), "with Python s": min(whole), "torch imported": facts["torch"]}
    return [Row(values, {"with Python s": Target(1.0), "torch imported": Target(False)})]


def determinism(path: str, body: BodyModel) -> list[Row]:
    """Whether two fits of one clip are equal bit for bit, without and with contacts."""
    given = read_evidence(path, body, FRAMES)
    rows = []
    for contacts in (False, True):
        first, second = (fit_truth_evidence(given, body, contacts).motion for _ in range(2))
        values = {"frames": FRAMES, "contacts": contacts, "equal bit for bit": bool(first == second)}
        rows.append(Row(values, {"equal bit for bit": Target(True, at_most=False)}))
    return rows


def chunks(path: str, body: BodyModel) -> list[Row]:
    """How far the joints of a long clip that was fitted in windows lie from those of one fitted whole."""
    given = read_evidence(path, body, CUT_LONG)
    rows = []
    for contacts in (False, True):
        cut, whole = (fit_truth_evidence(given, body, contacts, config=FitConfig(**options)) for options in
                      ({"chunk": CHUNK}, {"chunk": NEVER_CUT}))  # fmt: skip
        difference = _differences(body, cut, whole)
        values = {"frames": CUT_LONG, "window": CHUNK, "contacts": contacts, "mean mm": float(difference.mean()),
                  "99 % mm": float(np.quantile(difference, 0.99)), "largest mm": float(difference.max()),
                  "cut s": cut.report["seconds"], "whole s": whole.report["seconds"]}  # fmt: skip
        rows.append(Row(values, {"largest mm": Target(1.0)}))
    return rows


def _differences(body: BodyModel, first: BodyFit, second: BodyFit) -> np.ndarray:
    """Distances (T, K) in mm between the joints of two fits."""
    one, other = (body.points("joints", fit.motion.rotations, fit.motion.trajectory, fit.motion.shape)
                  for fit in (first, second))  # fmt: skip
    return 1000 * np.linalg.norm(one - other, axis=-1)
