"""Keypoints to try `lift` on: somebody walks, turns and waves, as the default detector saw the rendered sample clip."""

from __future__ import annotations

from pathlib import Path

KEYPOINTS = Path(__file__).with_name("demo_keypoints.npz")
"""4.5 seconds of 33 BlazePose points with confidences, 960 x 720 pixels at 30 frames/s (`experiments.make_sample`)."""
FOCAL = 900.0
"""Pixels: the focal length that the clip was rendered with."""
