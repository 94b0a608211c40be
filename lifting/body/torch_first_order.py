"""The fit's energy minimised by Adam or L-BFGS: slower than Levenberg-Marquardt, for any term torch can differentiate.

The unknowns are rotation vectors relative to the start (R = R_start exp([w]x)), the trajectory and the shared ones.
User terms are functions of a `TorchState` that return a scalar tensor, for instance of
``state.body.vertices(state.bones)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lifting.body.energy import FREE, State, Term
from lifting.body.model import BodyModel
from lifting.body.normal_equations import NormalEquations
from lifting.body.solver import ROBUST_FACTORS, Solution, evaluate, linearise
from lifting.body.torch_energy import TorchState, UserTerm, torch_cost
from lifting.body.torch_model import TorchBody, rotvec_to_matrix

METHODS = ("lbfgs", "adam")


def minimise_first_order(terms: Sequence[Term], state: State, *, body: BodyModel, method: str = "lbfgs",
                         user_terms: Sequence[UserTerm] = (), max_iterations: int = 200, learning_rate: float = 0.02,
                         robust_factors: Sequence[float] = ROBUST_FACTORS, free: Sequence[str] = FREE,
                         device: str | torch.device = "cpu", dtype: torch.dtype = torch.float64,
                         progress: Callable[[int, float], None] | None = None) -> Solution:
    """Minimise the terms' sum, like `solver.solve`.

    max_iterations are shared out equally among the robust stages. learning_rate is Adam's, in radians and metres a
    step; it falls to zero along a cosine in each stage. L-BFGS scales every unknown by its Gauss-Newton curvature at
    the start. The solution's costs hold the user terms as "user terms". Raises ValueError for an unknown method, a term
    without a form in torch, or a start that is not finite.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}.")
    state.layout(free)
    unknowns = _Unknowns(state, TorchBody(body, dtype=dtype, device=device), free)
    if method == "lbfgs":
        unknowns.scale_by(linearise(body, terms, state))
    history, iterations = [], 0
    for factor in robust_factors:
        annealed = [term.annealed(factor) for term in terms]
        minimise = _minimise_adam if method == "adam" else _minimise_lbfgs
        costs = minimise(unknowns, lambda now=annealed: energy(now, unknowns.state(), user_terms),
                         max(1, max_iterations // len(robust_factors)), learning_rate)
        history.append(tuple(costs))
        iterations += len(costs) - 1
        if progress is not None:
            progress(iterations, costs[-1])
    found = unknowns.to_numpy()
    costs = evaluate(body, terms, found)
    if user_terms:
        costs["user terms"] = float(sum(term(unknowns.state()) for term in user_terms).detach())
    settled = history[-1][-2] - history[-1][-1] <= 1e-4 * abs(history[-1][-1])
    return Solution(body, tuple(terms), found, sum(costs.values()), costs, iterations, settled, tuple(free),
                    tuple(history))


def energy(terms: Sequence[Term], state: TorchState, user_terms: Sequence[UserTerm] = ()) -> Tensor:
    """Return the sum of the terms' costs, a scalar tensor."""
    parts = [torch_cost(term, state) for term in terms] + [term(state) for term in user_terms]
    return torch.stack([part.reshape(()) for part in parts]).sum()


def torch_state(state: State, body: TorchBody) -> TorchState:
    """Return a numpy state with its kinematics in torch, without gradients, in the body's precision, on its device."""
    with torch.no_grad():
        return _Unknowns(state, body, ()).state()


class _Unknowns:
    """What is optimised: steps away from a start, in units of `scales`, and the state they stand for."""

    def __init__(self, start: State, body: TorchBody, free: Sequence[str]):
        self.start, self.body = start, body
        self.options = dict(dtype=body.template.dtype, device=body.template.device)
        self.rotations = torch.tensor(start.rotations, **self.options)
        self.origin = {name: torch.tensor(getattr(start, name), **self.options)
                       for name in ("trajectory", "shape", "offsets", "log_focal")}
        self.steps = {"turns": torch.zeros(start.rotations.shape[:3], **self.options)}
        self.steps |= {name: torch.zeros_like(values) for name, values in self.origin.items()}
        self.scales: dict[str, float | Tensor] = dict.fromkeys(self.steps, 1.0)
        held = {"shape": "shape", "offsets": "offsets", "log_focal": "focal"}
        moving = [name for name in self.steps if held.get(name, name) in free or name not in held]
        self.parameters = [self.steps[name].requires_grad_() for name in moving]

    def scale_by(self, system: NormalEquations) -> None:
        """Measure steps by the curvatures of a linearised energy with all shared unknowns free."""
        frames = 1.0 / np.sqrt(np.maximum(np.einsum("tii->ti", system.diagonal), 1.0))
        shared = 1.0 / np.sqrt(np.maximum(np.diag(system.corner), 1.0))
        layout = system.layout
        parts = {"turns": frames[:, :-3], "trajectory": frames[:, -3:], "shape": shared[layout.shape],
                 "offsets": shared[layout.offsets], "log_focal": shared[layout.focal]}
        self.scales = {name: torch.tensor(part, **self.options).reshape(self.steps[name].shape)
                       for name, part in parts.items()}

    def _moved(self) -> dict[str, Tensor]:
        """Return the trajectory, shape, offsets and log focal where the steps lead."""
        return {name: values + self.scales[name] * self.steps[name] for name, values in self.origin.items()}

    def _turned(self) -> Tensor:
        return self.rotations @ rotvec_to_matrix(self.scales["turns"] * self.steps["turns"])

    def state(self) -> TorchState:
        """Return the state that the steps lead to."""
        moved = self._moved()
        bones = self.body(self._turned(), moved["trajectory"], moved["shape"])
        return TorchState(self.body, bones, moved["offsets"], moved["log_focal"])

    def to_numpy(self) -> State:
        """Return that state as arrays."""
        with torch.no_grad():
            arrays = {name: values.cpu().numpy() for name, values in self._moved().items()}
            arrays["log_focal"] = float(arrays["log_focal"])
            return replace(self.start, rotations=self._turned().cpu().numpy(), **arrays)


def _minimise_adam(unknowns: _Unknowns, cost: Callable[[], Tensor], steps: int, learning_rate: float) -> list[float]:
    """Take Adam steps; return the cost before each and at the end."""
    optimiser = torch.optim.Adam(unknowns.parameters, lr=learning_rate)
    costs = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.5 * learning_rate * (1 + np.cos(np.pi * step / steps))
        optimiser.zero_grad()
        loss = _finite(cost())
        loss.backward()
        optimiser.step()
        costs.append(float(loss.detach()))
    return [*costs, float(cost().detach())]


def _minimise_lbfgs(unknowns: _Unknowns, cost: Callable[[], Tensor], steps: int, _: float) -> list[float]:
    """Take L-BFGS steps with a strong Wolfe line search; return the cost before and after every ten of them."""
    optimiser = torch.optim.LBFGS(unknowns.parameters, max_iter=10, history_size=20, tolerance_grad=1e-9,
                                  tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = cost()
        loss.backward()
        return loss

    costs = [float(_finite(cost()).detach())]
    for _ in range(max(1, steps // 10)):
        optimiser.step(closure)
        costs.append(float(cost().detach()))
        if costs[-2] - costs[-1] <= 1e-6 * abs(costs[-1]):
            break
    return costs


def _finite(loss: Tensor) -> Tensor:
    if not torch.isfinite(loss):
        raise ValueError("The energy is not finite, expected numbers; check the start for NaN or lower learning_rate.")
    return loss
