"""ONNX files of the lifters, checked against PyTorch before they get their name.

A file needs nothing beside it: what each input and output is, in which unit, layout and axes, the joints' names and the
weights' own header are in its metadata, as JSON under the key ``lift``. Numpy and ONNX Runtime are enough to use it::

    import json, numpy as np, onnxruntime

    session = onnxruntime.InferenceSession("lifter.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["lift"])
    rays = (pixels - (cx, cy)) / (fx, fy)              # (1, T, 17, 2) float32, joints as about["joints_in"], NaN unseen
    joints, root, sigma = session.run(None, {"rays": rays, "scores": scores})
    world = joints + root[:, :, None]                  # (1, T, 17, 3) metres, camera axes: x right, y down, z ahead

and with a file for streams, one frame at a time::

    state = np.zeros((1, about["state_size"]), np.float32)
    for rays, scores in frames:                        # (1, 17, 2) and (1, 17)
        joints, root, sigma, state = session.run(None, {"rays": rays, "scores": scores, "state": state})
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lifting.checkpoints import KEY, Header
from lifting.files import atomic_path
from lifting.models.lifter import LiftNet
from lifting.models.onnx_graphs import BatchLifter, StreamingLifter, TemporalLifts
from lifting.models.temporal import TemporalModel, lift_sequence
from lifting.skeletons import get_skeleton

LARGEST_DIFFERENCE = 1e-4
"""Metres by which ONNX Runtime and PyTorch may differ; a file that differs more is not written."""
_LENGTHS = (1, 40, 130)  # frames of the clips that are compared
_AXES = "metres, camera axes (x right, y down, z ahead)"
_RAYS = "((x - cx) / fx, (y - cy) / fy) of each joint's pixel without lens distortion, NaN where it is not seen"
_SCORES = "confidences 0..1, 0 where the joint is not seen"
_SIGMA = "metres: the radius that holds 68 % of each joint's errors"


@dataclass(frozen=True)
class OnnxFile:
    """What was written: the file, what is in it, and by how many metres it differs from PyTorch in float32 at most."""

    path: Path
    contents: str
    difference: float


@dataclass(frozen=True)
class _Graph:
    """A module with the names and meanings of its inputs and outputs, and inputs to trace it with."""

    module: nn.Module
    contents: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    examples: tuple[Tensor, ...]
    axes: tuple[str, ...]  # the leading ones, which may have any length
    facts: dict[str, object]  # more entries of the metadata


def write_lifter(
    path: str | Path, network: LiftNet, header: Header, *, lookahead: int = 0, streaming: bool = False
) -> OnnxFile:
    """Write a default lifter: whole sequences, or one frame and a state at a time.

    Args:
        path: file to write, by convention ``.onnx``; whole or not at all.
        network, header: the network in eval mode on the CPU and what its weight file says; go into the metadata.
        lookahead: frames that an output may look ahead, one of the network's.
        streaming: write the form that takes one frame; only for causal networks.

    Raises ValueError for a look-ahead that the network does not have, for a stream of a symmetric network and when the
    file would not give what PyTorch gives, ImportError without onnx, onnxscript and onnxruntime, OSError when the place
    cannot be written.
    """
    graph = (_streaming_graph if streaming else _batch_graph)(network.eval(), lookahead)
    answer = _stream_answer if streaming else _batch_answer

    def compare(session, frames: int) -> float:  # noqa: ANN001  onnxruntime's session
        rays, scores = random_rays(2, frames)
        with torch.inference_mode():
            lift = network.lift(torch.from_numpy(rays), torch.from_numpy(scores), lookahead)
        wanted = lift.joints, lift.root, lift.log_sigma.exp()[..., 1:]
        joints, root, sigma = answer(session, rays, scores)
        kept = frames - lookahead if streaming else frames
        return _largest_difference((joints, root, sigma[..., 1:]), [values[:, :kept].numpy() for values in wanted])

    return _write(path, graph, header, compare)


def write_temporal(
    path: str | Path, pose: TemporalModel, trajectory: TemporalModel | None, header: Header
) -> OnnxFile:
    """Write the reference network, with the trajectory net where there is one; errors as `write_lifter`."""
    graph = _temporal_graph(pose.eval(), trajectory.eval() if trajectory is not None else None, header)

    def compare(session, frames: int) -> float:  # noqa: ANN001  onnxruntime's session
        points = random_points(2, frames, pose.config.joints_in, pose.config.features_in)
        nets = [pose] if trajectory is None else [pose, trajectory]
        joints, *root = (lift_sequence(net, torch.from_numpy(points), exact=True).numpy() for net in nets)
        joints[:, :, get_skeleton(header.skeleton_out).root] = 0
        wanted = [joints, *(values[:, :, 0] for values in root)]
        return _largest_difference(session.run(None, {"keypoints": points}), wanted)

    return _write(path, graph, header, compare)


def _batch_graph(network: LiftNet, lookahead: int) -> _Graph:
    rays, scores = random_rays(2, 40)
    return _Graph(
        BatchLifter(network, lookahead),
        f"lifter for whole sequences, {_kind(network, lookahead)}",
        {"rays": f"(batch, time, 17, 2): {_RAYS}", "scores": f"(batch, time, 17): {_SCORES}"},
        {"joints": f"(batch, time, 17, 3): {_AXES}, relative to the root", "root": f"(batch, time, 3): {_AXES}",
         "sigma": f"(batch, time, 17): {_SIGMA}"},
        (torch.from_numpy(rays), torch.from_numpy(scores)), ("batch", "time"), {"lookahead": lookahead},
    )  # fmt: skip


def _streaming_graph(network: LiftNet, lookahead: int) -> _Graph:
    module = StreamingLifter(network, lookahead)
    rays, scores = random_rays(2, 1)
    size = module.state_size
    return _Graph(
        module,
        f"lifter for streams, {_kind(network, lookahead)}",
        {"rays": f"(batch, 17, 2): {_RAYS}", "scores": f"(batch, 17): {_SCORES}",
         "state": f"(batch, {size}): next_state of the frame before, zeros for the first"},
        {"joints": f"(batch, 17, 3): {_AXES}, relative to the root, of the frame {lookahead} frames back; NaN as long "
                   "as there is none", "root": f"(batch, 3): {_AXES}", "sigma": f"(batch, 17): {_SIGMA}",
         "next_state": f"(batch, {size}): state for the next frame"},
        (torch.from_numpy(rays[:, 0]), torch.from_numpy(scores[:, 0]), torch.zeros(2, size)), ("batch",),
        {"lookahead": lookahead, "state_size": size},
    )  # fmt: skip


def _temporal_graph(pose: TemporalModel, trajectory: TemporalModel | None, header: Header) -> _Graph:
    config = pose.config
    points = random_points(2, 40, config.joints_in, config.features_in)
    outputs = {"joints": f"(batch, time, {config.joints_out}, 3): {_AXES}, relative to the root"}
    if trajectory is not None:
        outputs["root"] = f"(batch, time, 3): {_AXES}"
    meaning = "every joint in every frame, x / width * 2 - 1, y / width * 2 - height / width"
    return _Graph(
        TemporalLifts(pose, trajectory, get_skeleton(header.skeleton_out).root),
        f"temporal lifter, {config.receptive_field} frames, {'causal' if config.causal else 'symmetric'}, "
        f"with{'out' if trajectory is None else ''} trajectory",
        {"keypoints": f"(batch, time, {config.joints_in}, {config.features_in}): {meaning}"
                      f"{', confidence' if config.features_in == 3 else ''}"},
        outputs, (torch.from_numpy(points),), ("batch", "time"), {"receptive_field": config.receptive_field},
    )  # fmt: skip


def _kind(network: LiftNet, lookahead: int) -> str:
    causal = all(block.pad[1] == 0 for block in network.blocks)
    return f"causal, look-ahead {lookahead} frames" if causal else "symmetric"


def _write(path: str | Path, graph: _Graph, header: Header, compare) -> OnnxFile:  # noqa: ANN001
    onnxruntime = _import_onnxruntime()
    program = _trace(graph)
    _describe(program.model, graph, header)
    with atomic_path(path) as temporary:
        program.save(str(temporary))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(temporary), options, providers=["CPUExecutionProvider"])
        difference = max(compare(session, frames) for frames in _LENGTHS)
        if not difference <= LARGEST_DIFFERENCE:
            raise ValueError(f"the ONNX graph gives joints {difference:.1e} m from PyTorch's, expected at most "
                             f"{LARGEST_DIFFERENCE:g} m, so nothing was written; try other releases of torch or "
                             "onnxruntime")
    return OnnxFile(Path(path), graph.contents, difference)


def _import_onnxruntime():
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"writing ONNX files needs onnx, onnxscript and onnxruntime, but {error.name} is missing: "
                          "pip install '.[onnx]' in a clone of lift") from error
    return onnxruntime


def _trace(graph: _Graph):
    """The module as torch's ONNXProgram, all weights inside."""
    from torch.export import Dim

    dynamic = {number: Dim(name, min=1) for number, name in enumerate(graph.axes)}
    with torch.no_grad(), _quiet():
        return torch.onnx.export(
            graph.module.eval(), graph.examples, dynamo=True, verbose=False, input_names=list(graph.inputs),
            output_names=list(graph.outputs), dynamic_shapes=(dynamic,) * len(graph.inputs),
        )  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of itself and of packages that it would like to see from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _describe(model, graph: _Graph, header: Header) -> None:  # noqa: ANN001  onnx_ir's model
    """Replace the tracer's notes, which hold paths of this machine, by what a user of the file needs to know."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    layouts = {name: list(get_skeleton(getattr(header, f"skeleton_{name[7:]}")).joints)
               for name in ("joints_in", "joints_out")}  # fmt: skip
    about = {**asdict(header), **layouts, "contents": graph.contents, **graph.facts, "inputs": graph.inputs,
             "outputs": graph.outputs}  # fmt: skip
    model.metadata_props[KEY] = json.dumps(about)
    model.doc_string = f"lift: {graph.contents}"
    for values, meanings in ((model.graph.inputs, graph.inputs), (model.graph.outputs, graph.outputs)):
        for value in values:
            value.doc_string = meanings[value.name]


def _batch_answer(session, rays: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:  # noqa: ANN001
    return session.run(None, {"rays": rays, "scores": scores})


def _stream_answer(session, rays: np.ndarray, scores: np.ndarray) -> list[np.ndarray]:  # noqa: ANN001
    """What the frames' answers are one after the other, those left out that say nothing yet."""
    state = np.zeros((len(rays), session.get_inputs()[2].shape[1]), np.float32)
    answers = []
    for frame in range(rays.shape[1]):
        *pose, state = session.run(None, {"rays": rays[:, frame], "scores": scores[:, frame], "state": state})
        answers.append(pose)
    lookahead = json.loads(session.get_modelmeta().custom_metadata_map[KEY])["lookahead"]
    return [np.stack(values, 1)[:, lookahead:] for values in zip(*answers, strict=True)]


def _largest_difference(given: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """In metres; infinite when something is not finite."""
    gaps = [np.abs(a - b).max(initial=0) for a, b in zip(given, wanted, strict=True)]
    return float(max(gaps)) if np.isfinite(gaps).all() else float("inf")


def random_points(count: int, frames: int, joints: int, features: int) -> np.ndarray:
    """Points (count, frames, joints, features) float32 in units of about the picture that move as a person's do."""
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.15, (count, 1, joints, features))
    path = rng.normal(0, 0.01, (count, frames, 1, features)).cumsum(1)
    return (pose + path + rng.normal(0, 0.005, (count, frames, joints, features))).astype(np.float32)


def random_rays(count: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Rays (count, frames, 17, 2) and scores (count, frames, 17) with joints unseen here and there."""
    rays, rng = random_points(count, frames, 17, 2), np.random.default_rng(1)
    scores = rng.uniform(0.2, 1, rays.shape[:3]).astype(np.float32)
    unseen = rng.uniform(size=scores.shape) < 0.1
    rays[unseen], scores[unseen] = np.nan, 0
    return rays, scores
