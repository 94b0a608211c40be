"""Weight files: what is written comes back, explains itself, and nothing foreign is taken for ours."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lifting.checkpoints import KEY, Header, file_hash, load_weights, save_weights
from lifting.models.lifter import LifterConfig, LiftNet

CONFIG = LifterConfig(channels=4, dilations=(1, 2))
HEADER = Header(
    "lifter", asdict(CONFIG), "lift17", "h36m17", 50.0, "camera rays", "Apache-2.0", "a walk", "0.1", {"mm": 1}
)
TENSORS = {
    "weight": torch.tensor([[1.0, -2.5], [1 / 3, 1e-4]]),
    "double": torch.tensor([0.1], dtype=torch.float64),
    "count": torch.tensor(2**40 + 1),
    "mask": torch.tensor([True, False]),
}


def mini_parser(path: Path) -> tuple[dict, dict, bytes]:
    """Tensor entries, metadata and bytes of a safetensors file, read by hand."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8 : 8 + size])
    return entries, entries.pop("__metadata__", {}), data[8 + size :]


def test_rows_of_int8_err_by_less_than_half_a_step_of_their_own_row(tmp_path):
    matrix = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 1, 6)[:, None]
    matrix[2] = 0
    tensors = {"matrix": matrix, "bias": torch.tensor([0.5, -2.0]), "count": torch.tensor([[3, 4]])}
    path = tmp_path / "w.safetensors"
    save_weights(path, tensors, HEADER, int8=True)
    entries, _, _ = mini_parser(path)
    assert (entries["matrix"]["dtype"], entries["matrix/scale"]["dtype"], entries["bias"]["dtype"]) == (
        "I8", "F16", "F16")  # fmt: skip
    read, _ = load_weights(path)
    assert set(read) == set(tensors) and read["matrix"].dtype == torch.float32
    step = matrix.abs().amax(1, keepdim=True) / 127
    # float16 rounds the scale by up to 1/2048, or half of its least number, 127 of which make up the largest value.
    assert ((read["matrix"] - matrix).abs() <= step / 2 + 127 * torch.maximum(step / 2048, torch.tensor(3e-8))).all()
    assert (read["matrix"][2] == 0).all() and torch.equal(read["count"], tensors["count"])
    torch.testing.assert_close(read["bias"], tensors["bias"])


def test_rows_of_int8_that_are_not_finite_are_refused(tmp_path):
    for broken in (float("nan"), float("inf"), 1e9):
        with pytest.raises(ValueError, match="not finite"):
            save_weights(tmp_path / "w.safetensors", {"m": torch.tensor([[1.0, broken]])}, HEADER, int8=True)
    assert not list(tmp_path.iterdir())


def test_full_precision_comes_back_as_it_was(tmp_path):
    save_weights(tmp_path / "w.safetensors", TENSORS, HEADER, half=False)
    tensors, header = load_weights(tmp_path / "w.safetensors")
    assert tensors.keys() == TENSORS.keys()
    for name, values in tensors.items():
        expected = TENSORS[name].float() if TENSORS[name].is_floating_point() else TENSORS[name]
        assert values.dtype == expected.dtype and torch.equal(values, expected)
    assert LifterConfig(**header.config) == CONFIG
    assert replace(header, config={}) == replace(HEADER, config={})


def test_half_precision_halves_the_file_and_keeps_three_digits(tmp_path):
    large = {"large": torch.randn(100, 1000)}
    for name, half in (("half", True), ("full", False)):
        save_weights(tmp_path / f"{name}.safetensors", TENSORS | large, HEADER, half=half)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.01)
    tensors, _ = load_weights(tmp_path / "half.safetensors")
    assert tensors["weight"].dtype == torch.float32
    assert torch.equal(tensors["weight"], TENSORS["weight"].half().float())
    assert torch.equal(tensors["count"], TENSORS["count"]) and torch.equal(tensors["mask"], TENSORS["mask"])


def test_file_is_plain_safetensors_with_a_json_header(tmp_path):
    save_weights(tmp_path / "w.safetensors", TENSORS, HEADER)
    entries, metadata, data = mini_parser(tmp_path / "w.safetensors")
    assert entries["weight"]["dtype"] == "F16" and entries["weight"]["shape"] == [2, 2]
    start, stop = entries["weight"]["data_offsets"]
    assert struct.unpack("<4e", data[start:stop])[:2] == (1.0, -2.5)
    described = json.loads(metadata[KEY])
    assert described.pop("format") == 1 and described["config"]["dilations"] == [1, 2]
    assert described.keys() == asdict(HEADER).keys()


def test_network_is_rebuilt_from_the_file_alone(tmp_path):
    network = LiftNet(**asdict(CONFIG)).eval()
    save_weights(tmp_path / "w.safetensors", network.state_dict(), HEADER, half=False)
    tensors, header = load_weights(str(tmp_path / "w.safetensors"))
    rebuilt = LiftNet(**asdict(LifterConfig(**header.config))).eval()
    rebuilt.load_state_dict(tensors)
    features = torch.randn(1, 9, 72)
    assert all(torch.equal(a, b) for a, b in zip(network(features), rebuilt(features), strict=True))


def test_trained_parameters_and_views_of_tensors_can_be_saved(tmp_path):
    values = torch.arange(6.0).reshape(2, 3).requires_grad_()
    save_weights(tmp_path / "w.safetensors", {"turned": values.T}, HEADER)
    assert torch.equal(load_weights(tmp_path / "w.safetensors")[0]["turned"], values.detach().T)


def test_hash_is_the_start_of_sha256(tmp_path):
    (tmp_path / "w").write_bytes(b"weights")
    assert file_hash(tmp_path / "w") == hashlib.sha256(b"weights").hexdigest()[:16]


@pytest.mark.parametrize(("value", "half"), [(float("nan"), False), (float("inf"), True), (1e6, True)])
def test_broken_weights_are_not_written(tmp_path, value, half):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"the last good one")
    with pytest.raises(ValueError, match="'bad' is not finite"):
        save_weights(path, {"good": torch.ones(2), "bad": torch.tensor([1.0, value])}, HEADER, half=half)
    assert path.read_bytes() == b"the last good one" and len(list(tmp_path.iterdir())) == 1


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        save_weights(tmp_path / "file" / "w.safetensors", TENSORS, HEADER)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*none.safetensors; expected"):
        load_weights(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_weights(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_truncated_file(tmp_path, keep):
    save_weights(tmp_path / "w.safetensors", TENSORS, HEADER)
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data[:keep])
    with pytest.raises(ValueError, match="no readable safetensors file .*pass weights written by lift"):
        load_weights(tmp_path / "w.safetensors")


def test_pickled_checkpoint_is_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "foreign.bin")
    with pytest.raises(ValueError, match="no readable safetensors file"):
        load_weights(tmp_path / "foreign.bin")


@pytest.mark.parametrize(("metadata", "reason"), [
    (None, "no entry 'lift'"),
    ({"format": "pt"}, "no entry 'lift'"),
    ({KEY: "not json"}, "Expecting value"),
    ({KEY: '"text"'}, "no attribute"),
    ({KEY: "[1]"}, ""),
    ({KEY: "[" * 100_000}, ""),
    ({KEY: "{}"}, "no entry 'format'"),
    ({KEY: json.dumps({"format": 2, **asdict(HEADER)})}, "format number is not 1"),
    ({KEY: json.dumps({"format": 1, "kind": "lifter"})}, "missing .* required"),
    ({KEY: json.dumps({"format": 1, **asdict(HEADER), "extra": 0})}, "unexpected keyword"),
    ({KEY: json.dumps({"format": 1, **asdict(HEADER), "fps": "fifty"})}, "fps is 'fifty'; expected a number"),
    ({KEY: json.dumps({"format": 1, **asdict(HEADER), "config": None})}, "config is None; expected a dictionary"),
])
def test_foreign_safetensors_are_refused_in_a_sentence(tmp_path, metadata, reason):
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match=rf"without lift's header \(.*{reason}.*\); convert") as caught:
        load_weights(tmp_path / "w.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [
    {"fps": 0.0}, {"fps": float("nan")}, {"fps": float("inf")}, {"fps": True}, {"kind": 3}, {"metrics": []}])
def test_headers_are_checked(changes):
    with pytest.raises(ValueError, match="the header's"):
        replace(HEADER, **changes)
