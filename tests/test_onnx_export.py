"""ONNX files against PyTorch's own networks: whole sequences, streams, the reference network, and what they say."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lifting.checkpoints import Header, save_weights
from lifting.cli_convert import convert
from lifting.models import build
from lifting.models.lifter import LifterConfig
from lifting.models.onnx_export import random_rays, write_lifter
from lifting.models.onnx_graphs import BatchLifter, StreamingLifter, TemporalLifts
from lifting.models.temporal import TemporalConfig, lift_sequence, trajectory_config
from lifting.models.temporal_file import save_temporal
from lifting.skeletons import get_skeleton

CAUSAL = LifterConfig(channels=8, dilations=(1, 2), causal=True, lookaheads=(0, 3))
SYMMETRIC = LifterConfig(channels=8, dilations=(1, 3))
WRITTEN = LifterConfig(channels=8, dilations=(2,), causal=True, lookaheads=(0, 3))  # tracing takes its time
METRICS = {"mpjpe_mm": 1}


def make_lifter(config: LifterConfig, seed: int = 0):
    torch.manual_seed(seed)
    return build(config).eval()


def describe(config: LifterConfig) -> Header:
    return Header("lifter", asdict(config), "lift17", "h36m17", 30.0, "rays", "Apache-2.0", "none", "1", METRICS)


def lift(network, rays: np.ndarray, scores: np.ndarray, lookahead: int) -> list[np.ndarray]:
    """Joints, root and sigma of the joints but the root, by the network itself."""
    with torch.no_grad():
        joints, root, log_sigma = network.lift(torch.from_numpy(rays), torch.from_numpy(scores), lookahead)
    return [joints.numpy(), root.numpy(), log_sigma.exp().numpy()[..., 1:]]


def gap(given, wanted) -> float:
    pairs = zip(given, wanted, strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def open_session(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def about(session) -> dict:
    return json.loads(session.get_modelmeta().custom_metadata_map["lift"])


@pytest.mark.parametrize("frames", [1, 2, 4, 30])
@pytest.mark.parametrize(("config", "lookahead"), [(SYMMETRIC, 0), (CAUSAL, 0), (CAUSAL, 3)])
def test_batch_graph_is_the_network(config, lookahead, frames):
    network = make_lifter(config)
    rays, scores = random_rays(2, frames)
    joints, root, sigma = BatchLifter(network, lookahead)(torch.from_numpy(rays), torch.from_numpy(scores))
    given = [values.detach().numpy() for values in (joints, root, sigma)]
    assert gap([*given[:2], given[2][..., 1:]], lift(network, rays, scores, lookahead)) < 1e-5
    hips = get_skeleton("h36m17").indices(["left_hip", "right_hip"])
    np.testing.assert_allclose(given[2][..., 0], given[2][..., list(hips)].mean(-1), rtol=1e-6)


@pytest.mark.parametrize("lookahead", [0, 3])
def test_streaming_graph_is_the_batch_network(lookahead):
    network, (rays, scores) = make_lifter(CAUSAL), random_rays(2, 25)
    graph, answers = StreamingLifter(network, lookahead), []
    state = torch.zeros(2, graph.state_size)
    with torch.no_grad():
        for frame in range(25):
            *pose, state = graph(torch.from_numpy(rays[:, frame]), torch.from_numpy(scores[:, frame]), state)
            answers.append(pose)
    joints, root, sigma = (torch.stack(values, 1).numpy() for values in zip(*answers, strict=True))
    for early in (joints, root, sigma):
        assert np.isnan(early[:, :lookahead]).all() and np.isfinite(early[:, lookahead:]).all()
    wanted = [values[:, : 25 - lookahead] for values in lift(network, rays, scores, lookahead)]
    assert gap((joints[:, lookahead:], root[:, lookahead:], sigma[:, lookahead:, 1:]), wanted) < 1e-5


def test_only_causal_networks_stream():
    with pytest.raises(ValueError, match="expected a causal one to stream"):
        StreamingLifter(make_lifter(SYMMETRIC))
    with pytest.raises(ValueError, match=r"got a look-ahead of 2 frames, expected one of \(0, 3\)"):
        StreamingLifter(make_lifter(CAUSAL), 2)


@pytest.mark.parametrize("causal", [False, True])
def test_temporal_graph_repeats_the_edges(causal):
    torch.manual_seed(0)
    config = TemporalConfig(channels=8, widths=(3, 3), causal=causal)
    pose, trajectory = build(config).eval(), build(trajectory_config(config)).eval()
    x = torch.randn(2, 5, 17, 2)
    joints, root = TemporalLifts(pose, trajectory, 4)(x)
    wanted = lift_sequence(pose, x)
    wanted[:, :, 4] = 0
    assert gap((joints.detach(), root.detach()), (wanted, lift_sequence(trajectory, x)[:, :, 0])) < 1e-6


def test_files_of_a_causal_lifter(tmp_path):
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    network, weights, path = make_lifter(WRITTEN), tmp_path / "causal.safetensors", tmp_path / "stream.onnx"
    save_weights(weights, network.state_dict(), describe(WRITTEN), half=False)
    arguments = ["onnx", str(weights), "-o", str(path), "--streaming", "--lookahead", "3"]
    result = CliRunner().invoke(convert, arguments)
    assert result.exit_code == 0, result.output
    assert "lifter for streams, causal, look-ahead 3 frames" in result.output and "(limit 0.0001 m)" in result.output
    session = open_session(path)
    state, answers, (rays, scores) = np.zeros((2, about(session)["state_size"]), np.float32), [], random_rays(2, 20)
    for frame in range(20):
        *pose, state = session.run(None, {"rays": rays[:, frame], "scores": scores[:, frame], "state": state})
        answers.append(pose)
    joints, root, sigma = (np.stack(values, 1)[:, 3:] for values in zip(*answers, strict=True))
    wanted = [values[:, :17] for values in lift(network, rays, scores, 3)]
    assert gap((joints, root, sigma[..., 1:]), wanted) < 1e-5
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert str(tmp_path).encode() not in path.read_bytes() and b"site-packages" not in path.read_bytes()
    assert about(session)["outputs"]["joints"].endswith("of the frame 3 frames back; NaN as long as there is none")
    assert "zeros for the first" in model.graph.input[2].doc_string


def test_file_for_whole_sequences_takes_any_length(tmp_path):
    pytest.importorskip("onnxscript")
    network = make_lifter(WRITTEN)
    written = write_lifter(tmp_path / "batch.onnx", network, describe(WRITTEN), lookahead=3)
    assert written.difference <= 1e-5 and written.contents == "lifter for whole sequences, causal, look-ahead 3 frames"
    session = open_session(written.path)
    for count, frames in ((1, 1), (3, 2), (1, 64)):
        rays, scores = random_rays(count, frames)
        joints, root, sigma = session.run(None, {"rays": rays, "scores": scores})
        assert gap((joints, root, sigma[..., 1:]), lift(network, rays, scores, 3)) < 1e-5
    said = about(session)
    assert said["joints_in"] == list(get_skeleton("lift17").joints) and said["fps"] == 30 and said["licence"]
    assert said["metrics"] == METRICS and said["lookahead"] == 3 and set(said["inputs"]) == {"rays", "scores"}
    assert "x right, y down, z ahead" in said["outputs"]["root"]


def test_file_of_the_reference_network(tmp_path):
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    config = TemporalConfig(channels=8, widths=(3,), features_in=3)
    nets = build(config).eval(), build(trajectory_config(config)).eval()
    save_temporal(tmp_path / "own.safetensors", *nets, skeleton_in="coco17", skeleton_out="h36m17", fps=50.0,
                  training="", licence="", metrics={})  # fmt: skip
    arguments = ["onnx", str(tmp_path / "own.safetensors"), "-o", str(tmp_path / "own.onnx")]
    result = CliRunner().invoke(convert, arguments)
    assert result.exit_code == 0 and "3 frames, symmetric, with trajectory" in result.output, result.output
    session = open_session(tmp_path / "own.onnx")
    for frames in (1, 12):
        x = np.random.default_rng(0).normal(size=(1, frames, 17, 3)).astype(np.float32)
        wanted = [lift_sequence(net, torch.from_numpy(x)).numpy() for net in nets]
        wanted[0][:, :, 0] = 0
        assert gap(session.run(None, {"keypoints": x}), (wanted[0], wanted[1][:, :, 0])) < 1e-5
    assert about(session)["joints_in"][0] == "nose" and about(session)["skeleton_in"] == "coco17"
    refused = CliRunner().invoke(convert, [*arguments, "--streaming"])
    assert refused.exit_code == 2 and "leave --lookahead and --streaming out" in refused.stderr


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from lifting.models import onnx_export

    monkeypatch.setattr(onnx_export, "LARGEST_DIFFERENCE", -1.0)
    pose = build(TemporalConfig(channels=2, widths=(1,))).eval()
    with pytest.raises(ValueError, match="so nothing was written"):
        onnx_export.write_temporal(tmp_path / "x.onnx", pose, None, describe(SYMMETRIC))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_sentence(tmp_path, monkeypatch, package):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with pytest.raises(ImportError, match=rf"but {package} is missing: pip install '.\[onnx\]'"):
        write_lifter(tmp_path / "x.onnx", make_lifter(SYMMETRIC), describe(SYMMETRIC))
    assert not list(tmp_path.iterdir())


def test_the_name_must_end_in_onnx(tmp_path):
    result = CliRunner().invoke(convert, ["onnx", "-o", str(tmp_path / "x.pt")])
    assert result.exit_code == 2 and "expected a name that ends in .onnx" in result.stderr
