"""Toes and heels of motion capture that has ankles and joint rotations, but no such points.

Sizes are anatomical, in shin lengths. Over the 98,532 standing feet of the CMU files, toe tips lie -2.3..4.4 cm and
heels -2.9..4.3 cm (5..95 %) above the floor. Most of that spread is the ankles' own: 3.3..9.7 cm, by subject.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

FEET = ("left_big_toe", "right_big_toe", "left_heel", "right_heel")
"""Order of the foot points in every `feet` array."""

# Trap: CMU's rest pose spreads the legs by 20 degrees, and rotations of the feet are relative to it even in files that
# straighten thighs and shins: there, "down" of a foot flat on the floor leans outwards, by 17 degrees in the median.
FOOT_SPLAY = float(np.radians(17.0))

# Rest offsets in a foot flat on the floor (outward, up, forward), in shin lengths. A shin of 0.43 m gets: ball 0.135 m
# ahead of the ankle and 0.058 m below it, toe tip 0.055 m further on, heel 0.055 m behind the ankle and 0.058 m below.
ANKLE_TO_BALL = (0.0, -0.135, 0.314)
BALL_TO_TOE = (0.0, -0.005, 0.128)
ANKLE_TO_HEEL = (0.0, -0.135, -0.128)


def place_foot(
    ankle: np.ndarray, shin: float, foot: np.ndarray, toe: np.ndarray, side: str, splay: float = FOOT_SPLAY
) -> tuple[np.ndarray, np.ndarray]:
    """Place the tip of the big toe and the heel of one foot.

    The toe joint bends the last third of the foot only; at push-off that lifts the tip by about 1 cm, out of the floor.

    Args:
        ankle: (T, 3) metres.
        shin: length of the shin, metres.
        foot: (T, 3, 3) rotation of the foot from its rest pose (Y up, toes to +Z, the subject's left is +X), into the
            frame of `ankle`.
        toe: (T, 3, 3) the same of the toes.
        side: `left` or `right`.
        splay: how far "down" of a flat foot leans outwards in the rest pose, radians.

    Returns:
        toe tip and heel, each (T, 3) metres.
    """
    ball, tip, heel = (shin * _turn_out(offset, side, splay) for offset in (ANKLE_TO_BALL, BALL_TO_TOE, ANKLE_TO_HEEL))
    return ankle + foot @ ball + toe @ tip, ankle + foot @ heel


def _turn_out(offset: Iterable[float], side: str, splay: float) -> np.ndarray:
    outward, up, forward = offset
    cos, sin = np.cos(splay), np.sin(splay)
    sign = 1.0 if side == "left" else -1.0
    return np.array([sign * (cos * outward - sin * up), sin * outward + cos * up, forward], dtype=np.float32)
