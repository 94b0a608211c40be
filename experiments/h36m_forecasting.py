"""Human3.6M's short and long term forecasting: standing still, constant velocity and a forecaster of ours.

    python -m experiments.h36m_forecasting --data data/h36m_expmap [--forecaster dct_mlp] [--windows 8]

Needs the files `S5/walking_1.txt` to `S5/walkingtogether_2.txt` (`lifting.datasets.h36m_expmap` tells of them and of
the protocol), which ask for a registration with Human3.6M; without them it ends with one sentence and exit code 2. Not
run on the real files so far. MPJPE AT each horizon, mm, mean over 15 actions of 256 windows (Guo et al., WACV 2023; at
560 ms and later by other sources than the paper's text):

    ms                    80   160   320   400   560   720   880  1000
    repeat last frame   23.8  44.4  76.1  88.2 107.4 121.6 131.6 136.6
    siMLPe               9.6  21.7  46.3  57.3  75.7  90.1 101.8 109.4

The first row is a check of the protocol: what prints something else reads the files in another way. Our forecasters
have not been trained on Human3.6M and know 17 joints of people who turn and lean; here the root does not turn. Feet and
hands beyond ankle and wrist keep their last place relative to these. Writes ``runs/future/h36m.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from experiments.protocol import write_json
from lifting.datasets.h36m_expmap import (
    ACTIONS,
    FUTURE,
    H36M32,
    PAST,
    PROTOCOL_FPS,
    complete_prediction,
    read_test_windows,
)
from lifting.datasets.mocap import Z_UP_FROM_Y_UP
from lifting.forecast_metrics import HORIZONS_MS, mpjpe_at
from lifting.forecasters import load_forecaster
from lifting.seen_motion import SeenMotion
from lifting.skeletons import get_skeleton, joint_map

PAPER = {
    "repeat last frame": (23.8, 44.4, 76.1, 88.2, 107.4, 121.6, 131.6, 136.6),
    "siMLPe": (9.6, 21.7, 46.3, 57.3, 75.7, 90.1, 101.8, 109.4),
}
SIGMA = 0.01  # metres: what is said of joints that were not lifted
