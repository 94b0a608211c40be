"""Levenberg-Marquardt for many clips at once in torch, for a GPU or for many people: `solver.solve` in a batch.

The same steps as the numpy solver, clip by clip, with the clips' arithmetic side by side. The Jacobian of rows that
touch one frame comes by forward-mode differentiation: frames do not see each other, so that one pass through all frames
gives one column for every frame.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from lifting.body.energy import State, Term
from lifting.body.model import BodyModel
from lifting.body.point_terms import Points2D, Points3D
from lifting.body.prior_terms import PosePriorTerm, StaturePrior, TwistPrior
from lifting.body.smoothness import RotationSmoothness, TranslationSmoothness
from lifting.body.solver import ROBUST_FACTORS, STAGE_TOLERANCE, Solution, evaluate
from lifting.body.torch_banded import BatchEquations
from lifting.body.torch_energy import TorchState, matrix_to_rotvec, robust_cost, root_weight, squared_scale, whitened
from lifting.body.torch_model import TorchBody, rotvec_to_matrix
from lifting.cameras import Camera

_FRAME_TERMS = (Points3D, Points2D, PosePriorTerm, TwistPrior)
_STACKED = {Points3D: ("target", "sigma"), Points2D: ("target", "sigma"), StaturePrior: ("height",)}
_COLUMNS_AT_ONCE = 24  # columns of the Jacobian that are computed side by side: bounds the memory


def solve_batch(terms: Sequence[Sequence[Term]], states: Sequence[State], *, body: BodyModel, max_iterations: int = 20,
                robust_factors: Sequence[float] = ROBUST_FACTORS, tolerance: float = 1e-4,
                free: Sequence[str] = ("shape",), device: str | torch.device = "cpu",
                dtype: torch.dtype = torch.float64) -> list[Solution]:
    """Minimise the energies of N clips of equal length; arguments as of `solver.solve`, terms and start of each clip.

    The clips' terms must agree, one by one, in everything but targets, their deviations and known heights. Returns N
    solutions, equal to the numpy solver's to 1e-6 in float64. Raises ValueError for clips of different lengths, terms
    that do not agree, terms without a form in torch, or a start that is not finite.
    """
    search = _BatchSearch(_stacked(terms), states, TorchBody(body, dtype=dtype, device=device), tuple(free))
    with torch.no_grad():
        for index, factor in enumerate(robust_factors):
            last = index == len(robust_factors) - 1
            search.run_stage(factor, tolerance if last else max(tolerance, STAGE_TOLERANCE),
                             max_iterations - (len(robust_factors) - 1 - index))
    solutions = []
    for index, (clip_terms, state) in enumerate(zip(terms, search.to_numpy(), strict=True)):
        costs = evaluate(body, clip_terms, state)
        solutions.append(Solution(body, tuple(clip_terms), state, sum(costs.values()), costs,
                                  int(search.iterations[index]), bool(search.converged[index]), tuple(free)))
    return solutions


def _stacked(terms: Sequence[Sequence[Term]]) -> list[Term]:
    """Return one clip's terms with the arrays of all clips stacked in them."""
    if len({tuple(type(term) for term in clip) for clip in terms}) != 1:
        raise ValueError("The clips have different terms, expected the same ones in the same order; sort them.")
    return [_stack(same) for same in zip(*terms, strict=True)]


def _stack(terms: Sequence[Term]) -> Term:
    first, stacked = terms[0], _STACKED.get(type(terms[0]), ())
    if is_dataclass(first):
        for name in (field.name for field in fields(first) if field.name not in stacked):
            if not all(_same(getattr(first, name), getattr(other, name)) for other in terms[1:]):
                raise ValueError(f"The clips' terms {first.name!r} differ in {name}, expected them to agree; solve "
                                 "such clips apart.")
    if not stacked:
        return first
    values = {name: np.stack([np.asarray(getattr(term, name), float) for term in terms]) for name in stacked}
    if isinstance(first, StaturePrior):
        values["height"] = values["height"][:, None]
    copy = object.__new__(type(first))
    for field in fields(first):
        object.__setattr__(copy, field.name, values.get(field.name, getattr(first, field.name)))
    return copy


def _same(first, second) -> bool:
    if first is second:
        return True
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    return first == second if isinstance(first, (int, float, str, Camera)) else False


class _BatchSearch:
    """The searches of all clips, carried through their stages."""

    def __init__(self, terms: list[Term], states: Sequence[State], body: TorchBody, free: tuple[str, ...]):
        shapes = {state.rotations.shape for state in states} | {states[0].rotations.shape}
        if len(shapes) != 1 or len({state.offsets.shape for state in states}) != 1:
            raise ValueError(f"The clips' rotations have the shapes {sorted(shapes)}, expected one; solve clips of one "
                             "length together.")
        self.original_terms, self.terms, self.body, self.starts = terms, terms, body, states
        self.layout = states[0].layout(free)
        values = {name: np.stack([getattr(state, name) for state in states])
                  for name in ("rotations", "trajectory", "shape", "offsets", "log_focal")}
        self.state = SimpleNamespace(**{name: body.template.new_tensor(value) for name, value in values.items()})
        clips = len(states)
        self.damping, self.growth = body.template.new_full((clips,), 1e-4), body.template.new_full((clips,), 2.0)
        self.iterations = torch.zeros(clips, dtype=torch.long, device=body.template.device)
        self.converged = torch.zeros_like(self.iterations, dtype=torch.bool)

    def run_stage(self, factor: float, tolerance: float, max_iterations: int) -> None:
        """Take steps until every clip's cost has settled or it has taken `max_iterations`."""
        self.terms = [term.annealed(factor) if squared_scale(term, self.damping) is None else _annealed(term, factor)
                      for term in self.original_terms]
        cost = self._cost(self.state)
        if not torch.isfinite(cost).all():
            raise ValueError("The energy at the start is not finite, expected a start without NaN; fill its gaps.")
        self.converged = torch.zeros_like(self.converged)
        while (active := ~self.converged & (self.iterations < max_iterations)).any():
            new_cost = self._step(cost, active)
            settled = cost - new_cost <= tolerance * cost.abs() + 1e-12
            self.converged = self.converged | (active & settled)
            cost = new_cost

    def _step(self, cost: Tensor, active: Tensor) -> Tensor:
        """Linearise, then raise each active clip's damping until its cost falls; return the costs then reached."""
        equations, waiting = self._linearise(), active.clone()
        while waiting.any():
            self.iterations += waiting
            step, shared_step, good = equations.solve(self.damping)
            candidate = self._retract(step, shared_step)
            new_cost = torch.where(good, self._cost(candidate), torch.inf)
            accepted = waiting & (new_cost <= cost)
            gain = (cost - new_cost) / equations.predicted_decrease(step, shared_step, self.damping).clamp(min=1e-300)
            self._update(candidate, accepted, waiting & ~accepted, gain)
            cost = torch.where(accepted, new_cost, cost)
            hopeless = waiting & (self.damping >= 1e10)
            self.damping[hopeless], self.growth[hopeless] = 1e-4, 2.0
            waiting = waiting & ~accepted & ~hopeless
        return cost

    def _update(self, candidate: SimpleNamespace, accepted: Tensor, refused: Tensor, gain: Tensor) -> None:
        for name, new in vars(candidate).items():
            choose = accepted.reshape(-1, *[1] * (new.dim() - 1))
            setattr(self.state, name, torch.where(choose, new, getattr(self.state, name)))
        fall = (1 - (2 * gain.clamp(max=1.0) - 1) ** 3).clamp(min=1 / 10)
        lowered = (self.damping * fall).clamp(min=1e-12)
        self.damping = torch.where(accepted, lowered, torch.where(refused, self.damping * self.growth, self.damping))
        self.growth = torch.where(accepted, 2.0, torch.where(refused, self.growth * 2.0, self.growth))

    def _retract(self, step: Tensor, shared_step: Tensor) -> SimpleNamespace:
        """Return the batch after the steps (N, T, D) and (N, G)."""
        turns = rotvec_to_matrix(step[..., :-3].unflatten(-1, (-1, 3)))
        moved = dict(vars(self.state), rotations=self.state.rotations @ turns,
                     trajectory=self.state.trajectory + step[..., -3:])
        layout = self.layout
        if layout.num_shape:
            moved["shape"] = self.state.shape + shared_step[:, layout.shape]
        if layout.num_offsets:
            moved["offsets"] = self.state.offsets + shared_step[:, layout.offsets].unflatten(-1, (-1, 3))
        if layout.num_focal:
            moved["log_focal"] = self.state.log_focal + shared_step[:, layout.focal][:, 0]
        return SimpleNamespace(**moved)

    def _posed(self, state: SimpleNamespace) -> TorchState:
        bones = self.body(state.rotations, state.trajectory, state.shape[:, None])
        return TorchState(self.body, bones, state.offsets, state.log_focal)

    def _cost(self, state: SimpleNamespace) -> Tensor:
        """Return each clip's cost (N,)."""
        posed = self._posed(state)
        return sum(robust_cost(term, whitened(term, posed)).flatten(1).sum(dim=1) for term in self.terms)

    def _linearise(self) -> BatchEquations:
        clips, frames, bones = self.state.rotations.shape[:3]
        equations = BatchEquations.zeros(clips, frames, 3 * bones + 3, self.layout.size, self.damping)
        posed = self._posed(self.state)
        self._add_frames(equations, [term for term in self.terms if isinstance(term, _FRAME_TERMS)], posed)
        others = [term for term in self.terms if not isinstance(term, _FRAME_TERMS)]
        self._add_shared(equations, [term for term in others if not hasattr(term, "fps")])
        for term in others:
            if isinstance(term, RotationSmoothness):
                _add_rotation_smoothness(equations, term, posed)
            elif isinstance(term, TranslationSmoothness):
                _add_translation_smoothness(equations, term, posed)
        return equations

    def _add_frames(self, equations: BatchEquations, terms: list[Term], posed: TorchState) -> None:
        """Add the rows of terms on single frames, weighted for their robust costs."""
        if not terms:
            return
        clips, frames, size = equations.gradient.shape
        weights = []
        for term in terms:
            residual = whitened(term, posed)
            weights.append(root_weight(term, residual).expand_as(residual).flatten(2))
        weights = torch.cat(weights, dim=-1)

        def residuals(step: Tensor, shared_step: Tensor) -> Tensor:
            state = self._posed(self._retract(step, shared_step))
            return torch.cat([whitened(term, state).flatten(2) for term in terms], dim=-1)

        jacobian = self._columns(residuals, equations, range(size + self.layout.size)).movedim(0, -1)
        still = (equations.gradient.new_zeros(clips, frames, size), equations.global_gradient)
        equations.add_frames(weights[..., None] * jacobian, weights * residuals(still[0], torch.zeros_like(still[1])))

    def _add_shared(self, equations: BatchEquations, terms: list[Term]) -> None:
        """Add the rows of terms on shared unknowns."""
        if not terms or not self.layout.size:
            return
        size = equations.gradient.shape[-1]

        def residuals(step: Tensor, shared_step: Tensor) -> Tensor:
            moved = self._retract(step, shared_step)
            bones = SimpleNamespace(shape=moved.shape[:, None])
            state = SimpleNamespace(body=self.body, bones=bones, offsets=moved.offsets, log_focal=moved.log_focal,
                                    tensor=lambda array: torch.tensor(np.asarray(array)).to(self.damping))
            return torch.cat([whitened(term, state).flatten(1) for term in terms], dim=-1)

        jacobian = self._columns(residuals, equations, range(size, size + self.layout.size)).movedim(0, -1)
        residual = residuals(torch.zeros_like(equations.gradient), torch.zeros_like(equations.global_gradient))
        equations.corner += jacobian.transpose(-1, -2) @ jacobian
        equations.global_gradient += (jacobian.transpose(-1, -2) @ residual[..., None])[..., 0]

    def _columns(self, function, equations: BatchEquations, columns: range) -> Tensor:
        """Return the derivatives (columns, ...) of `function`, each by one unknown of all frames and clips at once."""
        at = (torch.zeros_like(equations.gradient), torch.zeros_like(equations.global_gradient))
        size = at[0].shape[-1]
        basis = torch.eye(size + at[1].shape[-1], dtype=at[0].dtype, device=at[0].device)[columns.start:columns.stop]

        def column(direction: Tensor) -> Tensor:
            tangents = (direction[:size].expand_as(at[0]), direction[size:].expand_as(at[1]))
            return torch.func.jvp(function, at, tangents)[1]

        with warnings.catch_warnings():  # torch's own jvp warns of its own use of torch.jit
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.func.vmap(column, chunk_size=_COLUMNS_AT_ONCE)(basis)

    def to_numpy(self) -> list[State]:
        """Return the clips' states."""
        arrays = {name: value.cpu().numpy() for name, value in vars(self.state).items()}
        return [State(*(arrays[name][index] for name in ("rotations", "trajectory", "shape", "offsets")),
                      float(arrays["log_focal"][index])) for index in range(len(self.starts))]


def _annealed(term: Term, factor: float) -> Term:
    """Return a stacked term with another robust scale; its constructor would refuse the stacked arrays."""
    copy = object.__new__(type(term))
    for field in fields(term):
        object.__setattr__(copy, field.name, getattr(term, field.name))
    object.__setattr__(copy, "robust", term.robust * factor)
    return copy


def _add_rotation_smoothness(equations: BatchEquations, term: RotationSmoothness, posed: TorchState) -> None:
    """Add the rows of `RotationSmoothness` with its closed-form Jacobians."""
    rotations = posed.bones.rotations
    turns = matrix_to_rotvec(rotations[:, :-1].transpose(-1, -2) @ rotations[:, 1:])
    weight = posed.tensor(np.broadcast_to(term.fps**2 / np.asarray(term.sigma, float), rotations.shape[2]))
    later = _inverse_right_jacobian(turns) * weight[:, None, None]
    earlier = later.transpose(-1, -2)
    residual = (turns[:, 1:] - turns[:, :-1]) * weight[:, None]
    root = root_weight(term, residual)
    jacobians = [earlier[:, :-1], -later[:, :-1] - earlier[:, 1:], later[:, 1:]]
    equations.add_chains([root[..., None] * jacobian for jacobian in jacobians], root * residual, 0)


def _add_translation_smoothness(equations: BatchEquations, term: TranslationSmoothness, posed: TorchState) -> None:
    """Add the rows of `TranslationSmoothness`."""
    residual = whitened(term, posed)
    weight = posed.tensor(np.broadcast_to(term.fps**2 / np.asarray(term.sigma, float), 3))
    root = root_weight(term, residual)
    block = root[..., None] * torch.diag(weight)
    equations.add_chains([block, -2 * block, block], root * residual, equations.gradient.shape[-1] // 3 - 1)


def _inverse_right_jacobian(rotvec: Tensor) -> Tensor:
    """Return what `so3.inverse_right_jacobian` returns, (..., 3, 3) for (..., 3)."""
    square = (rotvec * rotvec).sum(dim=-1)[..., None, None]
    small = square < 1e-6
    half = torch.where(small, 1.0, square).sqrt() / 2
    factor = torch.where(small, 1 / 12 + square / 720, (1 - half / half.tan()) / torch.where(small, 1.0, square))
    x, y, z = rotvec.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=rotvec.dtype, device=rotvec.device) + 0.5 * cross + factor * (cross @ cross)
