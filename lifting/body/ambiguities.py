"""Choices that no single frame can make, made over time: the twist of straight limbs, exchanged left and right."""

from __future__ import annotations

import numpy as np

from lifting.rotations import rotvec_to_matrix

TWIST_STATES = 36
TWIST_INERTIA = 2.0  # a half turn within one frame costs twice this; a limb bent by 90 degrees weighs up to 2
NEUTRAL = 0.005  # how much a twist of zero is preferred where nothing speaks
BEND_NOISE = 0.15  # sine of a knee's or elbow's bend below which its plane is mostly noise
TURNED_COST = 0.4  # of a frame taken as turned: exchanges of up to some 20 frames are undone


def viterbi(unary: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """The path of least cost through T steps of N states, for many chains at once (Viterbi 1967).

    unary: (T, ..., N) cost of each state; transition: (N, N), or one for each step, (T - 1, ..., N, N): cost of going
    from row to column. Returns (T, ...) state numbers. Raises ValueError when the shapes do not fit together.
    """
    unary, transition = np.asarray(unary, dtype=np.float64), np.asarray(transition, dtype=np.float64)
    if unary.ndim < 2 or not len(unary):
        raise ValueError(f"unary has shape {unary.shape}, expected (T, ..., states) with at least one step.")
    steps, states = len(unary), unary.shape[-1]
    tables = (steps - 1, *unary.shape[1:-1], states, states)
    if transition.shape not in ((states, states), tables):
        raise ValueError(f"transition has shape {transition.shape}, expected {(states, states)} or {tables}.")
    cost, origins = unary[0], np.empty((steps - 1, *unary.shape[1:]), dtype=np.intp)
    for step, table in enumerate(np.broadcast_to(transition, tables)):
        total = cost[..., :, None] + table
        origins[step] = total.argmin(axis=-2)
        cost = total.min(axis=-2) + unary[step + 1]
    path = np.empty(unary.shape[:-1], dtype=np.intp)
    path[-1] = cost.argmin(axis=-1)
    for step in range(steps - 2, -1, -1):
        path[step] = np.take_along_axis(origins[step], path[step + 1][..., None], axis=-1)[..., 0]
    return path


def resolve_twists(evidence: np.ndarray) -> np.ndarray:
    """Twist angles (T, L) in radians of L limbs that agree with the evidence where there is some and hold elsewhere.

    evidence: complex (T, L): the angle is the twist that a frame asks for, the size how clearly: the sine of the bend.
    A Viterbi path over TWIST_STATES angles bridges what is unclear; around it, clear evidence is followed exactly.
    """
    trust, wanted = np.abs(evidence) ** 2, np.angle(evidence)
    states = 2 * np.pi * np.arange(TWIST_STATES) / TWIST_STATES
    unary = trust[..., None] * (1 - np.cos(states - wanted[..., None])) + NEUTRAL * (1 - np.cos(states))
    path = states[viterbi(unary, TWIST_INERTIA * (1 - np.cos(states[:, None] - states)))]
    off = wanted - path
    angle = path + np.arctan2(trust * np.sin(off), np.maximum(trust * np.cos(off), 0) + BEND_NOISE**2)
    return (angle + np.pi) % (2 * np.pi) - np.pi


def find_turned(trunk: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Frames (T,) in which a trunk (T, 3, 3) faces the other way for a short while: left and right are exchanged.

    up: (3,) the trunk's own upward axis. Chosen by Viterbi between each frame's rotation and its half turn about `up`.
    """
    candidates = np.stack([trunk, trunk @ rotvec_to_matrix(np.pi * np.asarray(up))], axis=1)
    traces = np.einsum("tiab,tjab->tij", candidates[:-1], candidates[1:])  # 1 + 2 cos(angle between them)
    return viterbi(np.tile([0.0, TURNED_COST], (len(trunk), 1)), 3 - traces).astype(bool)
