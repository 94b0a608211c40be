"""The benchmark protocol does not change unnoticed."""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from walking_figure import H36M, STATURE, walking_piece

from experiments import benchmark_lifter, cleaning_benchmark, convert_mocap, train_lifter
from experiments.protocol import (
    CAMERA,
    CAMERAS,
    HARD_SUBJECTS,
    IMAGE_SIZE,
    NOISE,
    VIEWS,
    View,
    benchmark_pieces,
    training_pieces,
    views,
)
from experiments.train_lifter import quick_scores
from lifting.checkpoints import file_hash, load_weights
from lifting.datasets.mocap import DEFAULT_PATH, write_mocap
from lifting.models.lifter import Lift
from lifting.skeletons import get_skeleton

INPUT = get_skeleton("lift17")
SOURCES = [H36M.index("neck_nose" if name == "nose" else name) for name in INPUT.joints[:13]]
# Where joints are missing (exact), then the 2D points: their sum and a sum with weights, in pixels.
GOLDEN = {"standard": (2258468306, 3736771.337, 3859.204), "hard": (1107590408, 3753221.763, -6386.574)}


def all_views(kind: str, count: int = 4, frames: int = 300) -> list[View]:
    return list(views([walking_piece(f"walk_{i}", frames, phase=i) for i in range(count)], kind))


def projected(view: View) -> np.ndarray:
    """Exact pixels (T, 13, 2) of the true joints, by hand."""
    points = view.truth.absolute[:, SOURCES].astype(np.float64)
    focal = IMAGE_SIZE[0] / 2 / np.tan(np.radians(30))
    return points[..., :2] / points[..., 2:] * focal + np.array(IMAGE_SIZE) / 2


@pytest.mark.parametrize("kind", GOLDEN)
def test_views_are_the_ones_that_were_fixed(kind):
    xy = np.stack([view.keypoints.xy for view in views([walking_piece("golden", 50)], kind)]).astype(np.float64)
    pixels = np.round(np.nan_to_num(xy), 3)
    weights = np.cos(np.arange(pixels.size)).reshape(pixels.shape)
    mask, total, weighted = GOLDEN[kind]
    assert zlib.crc32(np.packbits(np.isnan(xy[..., 0])).tobytes()) == mask
    # Sums instead of a hash: whether a digit rounds up may differ from one numpy to the next, what it adds does not.
    assert pixels.sum() == pytest.approx(total, abs=0.5)
    assert (weights * pixels).sum() == pytest.approx(weighted, abs=0.1)


def test_ranges_and_noise_are_the_published_ones():
    ranges = {kind: (c.field_of_view, c.distance, c.pitch, c.roll) for kind, c in CAMERAS.items()}
    assert ranges["standard"] == ((60, 60), (3, 6), (-5, 25), (0, 0))
    assert ranges["hard"] == ((35, 90), (3, 6), (-20, 60), (-25, 25))
    assert (NOISE.bias, NOISE.jitter, NOISE.swap_share, NOISE.swap_run) == (0.015, (0.008, 0.008), 0.03, (1, 20))
    assert (NOISE.dropout_share, NOISE.legs_only, NOISE.gap_share, NOISE.blackout_share) == (0.03, 0, 0, 0)
    assert (NOISE.definition, NOISE.drift, NOISE.truncation, NOISE.feet, NOISE.held_rate) == (0, (0, 0), 0, 0, 0)
    assert not NOISE.scores and NOISE.burst_share == 0 and VIEWS == 4


@pytest.mark.parametrize("kind", GOLDEN)
def test_every_piece_has_four_views_of_its_own(kind):
    seen = all_views(kind, count=2, frames=20)
    assert [view.name for view in seen] == [f"walk_{i}/{k}" for i in range(2) for k in range(4)]
    for view in seen:
        assert view.keypoints.skeleton.name == "lift17" and view.truth.skeleton.name == "h36m17"
        assert view.keypoints.image_size == IMAGE_SIZE and view.keypoints.fps == view.truth.fps == 50
        assert len(view.keypoints) == len(view.truth) == 20 and view.camera is CAMERA
        assert not view.keypoints.seen[:, 13:].any() and set(np.unique(view.keypoints.score)) <= {0.0, 1.0}
    assert len({view.truth.trajectory[0].tobytes() for view in seen}) == 8


def test_views_do_not_depend_on_the_other_pieces():
    first, second = walking_piece("a", 20), walking_piece("b", 30)
    alone, together = list(views([second], "hard")), list(views([first, second], "hard"))[4:]
    for one, two in zip(alone, together, strict=True):
        assert one.name == two.name and one.keypoints == two.keypoints and one.truth == two.truth
    assert list(views([second], "standard"))[0].keypoints != alone[0].keypoints


@pytest.mark.parametrize("kind", GOLDEN)
def test_noise_is_as_announced(kind):
    missing, swapped, bias, jitter = [], [], [], []
    for view in all_views(kind):
        exact, seen = projected(view), view.keypoints.seen[:, :13]
        xy = view.keypoints.xy[:, :13].astype(np.float64)
        errors = [np.nansum((xy - other) ** 2, axis=(1, 2)) for other in (exact, exact[:, list(INPUT.flip[:13])])]
        kept = errors[0] < errors[1]
        unit = STATURE * CAMERA.focal[0] / view.truth.trajectory[:, 2]  # the stature in pixels
        shares = ((xy - exact) / unit[:, None, None])[kept]
        missing.append(1 - seen.mean())
        swapped.append(1 - kept.mean())
        bias.append(np.nanmean(shares, axis=0))
        jitter.append(np.nanstd(shares, axis=0).mean())
    assert np.mean(missing) == pytest.approx(0.03, abs=0.004)
    assert np.mean(swapped) == pytest.approx(0.03, abs=0.015)
    assert np.std(bias) == pytest.approx(0.015, rel=0.12)
    assert np.mean(jitter) == pytest.approx(0.008, rel=0.1)


def test_hard_cameras_look_steeper_than_standard_ones():
    """Pitch and roll from the images of the upright walker alone."""
    lean = {}
    for kind in GOLDEN:
        up = np.stack([v.truth.joints[:, H36M.index("spine")].mean(0) for v in all_views(kind, count=15, frames=3)])
        up /= np.linalg.norm(up, axis=-1, keepdims=True)
        pitch, roll = np.degrees(np.arcsin(-up[:, 2])), np.degrees(np.arctan2(up[:, 0], -up[:, 1]))
        lean[kind] = (pitch.min(), pitch.max(), np.abs(roll).max())
    assert -5.1 < lean["standard"][0] < 0 and 20 < lean["standard"][1] < 25.1 and lean["standard"][2] < 0.1
    assert -20.1 < lean["hard"][0] < -5 and 45 < lean["hard"][1] < 60.1 and 15 < lean["hard"][2] < 25.1


def test_splits_keep_the_benchmark_out_of_training(tmp_path):
    labels = [("1", "train"), ("2", "val"), ("unknown", "train"), ("unknown", "val")]
    labels += [(subject, "train") for subject in HARD_SUBJECTS] + [("43", "val")]
    pieces = [replace(walking_piece(f"{subject}_{split}", 5, feet=False), subject=subject, split=split)
              for subject, split in labels]
    path = str(tmp_path / "mocap17.h5")
    write_mocap(path, pieces)
    train = {piece.name for piece in training_pieces(path, None)}
    standard, hard = ({piece.name for piece in benchmark_pieces(path, kind)} for kind in ("standard", "hard"))
    assert train == {"1_train"} and standard == {"2_val", "43_val"}
    assert hard == standard | {f"{subject}_train" for subject in HARD_SUBJECTS}


class Oracle(torch.nn.Module):
    """Answers with the truth, a little farther away."""

    def __init__(self, seen: list[View]) -> None:
        super().__init__()
        self.truths = iter([view.truth for view in seen])

    def lift(self, rays: torch.Tensor, scores: torch.Tensor, lookahead: int) -> Lift:
        assert lookahead == 0
        truth = next(self.truths)
        assert torch.equal(torch.isnan(rays).any(-1)[0], scores[0] == 0)
        return Lift(torch.from_numpy(truth.joints * 1.1)[None], torch.from_numpy(truth.trajectory * 1.02)[None], scores)


def test_quick_scores_of_an_oracle():
    seen = all_views("standard", count=1, frames=10)
    scores = quick_scores(Oracle(seen), "standard", seen)
    distance = np.mean([np.linalg.norm(view.truth.joints, axis=-1).mean() for view in seen])
    ratio = np.mean([np.linalg.norm(v.truth.trajectory, axis=-1) / v.truth.trajectory[:, 2] for v in seen])
    speed = np.mean([np.linalg.norm(np.diff(view.truth.joints, axis=0), axis=-1).mean() for view in seen])
    expected = {"standard_mpjpe_mm": 100 * distance, "standard_p_mpjpe_mm": 0.0, "standard_mpjve_mm": 100 * speed,
                "standard_root_percent": 2 * ratio}  # fmt: skip
    assert scores == pytest.approx(expected, abs=0.01)


def test_a_row_of_the_benchmark_weighs_views_by_their_frames():
    inside = np.zeros((4, 16), bool)
    inside[:, 0], inside[:2] = True, True
    views_of = [(np.array([100.0, 50, 5]), np.array([1.0]), inside[:1]),
                (np.array([40.0, 20, 2]), np.array([2.0, 3, 6]), inside[1:])]  # fmt: skip
    row = benchmark_lifter.summary([benchmark_lifter.Score(*values) for values in views_of])
    expected = (55.0, 27.5, 2.75, 3.0, 2.5, 100 * (16 + 16 + 1 + 1) / 64, 50.0, 100.0)
    assert row == dict(zip(benchmark_lifter.COLUMNS, (round(value, 2) for value in expected), strict=True))


@pytest.mark.parametrize("program", [benchmark_lifter, cleaning_benchmark, convert_mocap, train_lifter])
def test_every_experiment_looks_for_the_motion_in_one_place(program):
    defaults = {option.name: option.default for option in program.main.params}
    assert str(defaults["output" if program is convert_mocap else "mocap"]) == DEFAULT_PATH
    assert defaults.get("rotations") is None


# ---- figures in the header of a weight file


def test_stamp_changes_the_metrics_and_nothing_else(tiny_weights, tmp_path):
    path = Path(shutil.copy(tiny_weights, tmp_path))
    metrics = {"standard": {"MPJPE mm": 87.51}, "hard": {"MPJPE mm": 91.82}}
    assert benchmark_lifter.stamp(path, metrics) == file_hash(path) != file_hash(tiny_weights)
    header = load_weights(path)[1]
    assert header == replace(load_weights(tiny_weights)[1], metrics=metrics)
    with safe_open(tiny_weights, "pt") as before, safe_open(path, "pt") as after:
        assert set(before.keys()) == set(after.keys())
        for name in before.keys():
            one, two = before.get_tensor(name), after.get_tensor(name)
            assert one.dtype == two.dtype and one.numpy().tobytes() == two.numpy().tobytes()


@pytest.mark.parametrize("options", [["--every", "4"], ["--stage", "network"]])
def test_stamp_refuses_part_of_the_benchmark(tiny_weights, options):
    before = file_hash(tiny_weights)
    shown = CliRunner().invoke(benchmark_lifter.main, ["--stamp", "--weights", str(tiny_weights), *options])
    assert shown.exit_code == 2 and "--stamp needs every view" in shown.output
    assert file_hash(tiny_weights) == before


def test_benchmark_stamps_the_rows_of_predict(tiny_weights, tmp_path, one_thread):
    weights, mocap = Path(shutil.copy(tiny_weights, tmp_path)), tmp_path / "mocap17.h5"
    pieces = [replace(walking_piece(name, 20), subject=name, split=split) for name, split in
              [("2", "val"), *((subject, "train") for subject in HARD_SUBJECTS)]]  # fmt: skip
    write_mocap(mocap, pieces)
    options = {"--weights": weights, "--mocap": mocap, "--output": tmp_path / "rows.json",
               "--stage": benchmark_lifter.PREDICT}  # fmt: skip
    done = CliRunner().invoke(benchmark_lifter.main, ["--stamp", *(str(x) for pair in options.items() for x in pair)])
    assert done.exit_code == 0, done.output
    facts = json.loads((tmp_path / "rows.json").read_text("utf-8"))
    rows = {kind: stages[benchmark_lifter.PREDICT] for kind, stages in facts["results"].items()}
    assert load_weights(weights)[1].metrics == rows and set(rows["hard"]) == set(benchmark_lifter.COLUMNS)
    assert facts["weights"] == f"{weights.name} {file_hash(weights)}"
