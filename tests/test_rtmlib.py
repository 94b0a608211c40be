"""RTMPose and RTMO: rtmlib itself on small ONNX models in their documented layout, and a stand-in of rtmlib."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from lifting.detectors import create_detector, rtmlib_pose

FRAME = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
PEAKS_X, PEAKS_Y = 20 + 18 * np.arange(17), 30 + 26 * np.arange(17)  # cells of RTMPose's two rows per joint
POSE_SIZE, SQUARE = (192, 256), 64
BOX = np.array([8.0, 6.0, 40.0, 46.0])  # in the person detector's input


# --- small models -----------------------------------------------------------------------------------------------------


def write_model(path, size, outputs):
    """An ONNX model for images of (width, height) that always returns `outputs`, {name: array}."""
    onnx = pytest.importorskip("onnx", exc_type=ImportError)  # or it wants another protobuf than mediapipe
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes, values = [], []
    for name, array in outputs.items():
        kind = kinds.INT64 if array.dtype == np.int64 else kinds.FLOAT
        constant = helper.make_tensor(f"{name}_value", kind, array.shape, array.ravel())
        nodes.append(helper.make_node("Constant", [], [name], value=constant))
        values.append(helper.make_tensor_value_info(name, kind, array.shape))
    image = helper.make_tensor_value_info("input", kinds.FLOAT, (1, 3, size[1], size[0]))
    graph = helper.make_graph(nodes, "small", [image], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def write_rtmpose(path, joints=17):
    rows_x, rows_y = np.zeros((1, joints, 384), np.float32), np.zeros((1, joints, 512), np.float32)
    for joint in range(joints):
        rows_x[0, joint, PEAKS_X[joint % 17]] = 0.9
        rows_y[0, joint, PEAKS_Y[joint % 17] % 512] = 0.7
    return write_model(path, POSE_SIZE, {"simcc_x": rows_x, "simcc_y": rows_y})


def write_yolox(path, score=0.9):
    boxes = np.array([[[*BOX, score], [0, 0, 5, 5, 0.01]]], np.float32)
    return write_model(path, (SQUARE, SQUARE), {"dets": boxes, "labels": np.zeros((1, 2), np.int64)})


def write_rtmo(path, score=0.9):
    people = np.random.default_rng(1).uniform(0, SQUARE, (1, 2, 17, 3)).astype(np.float32)
    people[..., 2] = 0.8
    boxes = np.array([[[1, 1, 20, 30, score], [0, 0, 5, 5, 0.01]]], np.float32)
    return write_model(path, (SQUARE, SQUARE), {"dets": boxes, "keypoints": people}), people[0, 0, :, :2]


@pytest.fixture
def real():
    """Skips where rtmlib or ONNX Runtime is missing."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("rtmlib")


def test_rtmpose_behind_a_person_detector(real, tmp_path):
    write_yolox(tmp_path / "yolox_tiny.onnx"), write_rtmpose(tmp_path / "rtmpose-s.onnx")
    detector = create_detector("rtmlib", model_dir=tmp_path)
    (people,) = detector.detect([FRAME])
    assert detector.skeleton.name == "coco17" and len(people) == 1
    corners = BOX.reshape(2, 2) * (320 / SQUARE)  # the longer side fills the detector's input
    center, size = corners.mean(0), 1.25 * (corners[1] - corners[0])
    size = np.array([max(size[0], size[1] * 0.75), max(size[1], size[0] / 0.75)])  # as wide to high as the input
    expected = center - size / 2 + np.stack([PEAKS_X, PEAKS_Y], 1) / 2 / POSE_SIZE * size
    np.testing.assert_allclose(people[0].xy, expected, atol=0.02)
    np.testing.assert_allclose(people[0].score, 0.8, rtol=1e-6)


def test_nobody_is_not_the_whole_frame(real, tmp_path):
    write_yolox(tmp_path / "yolox_tiny.onnx", score=0.1), write_rtmpose(tmp_path / "rtmpose-s.onnx")
    assert list(create_detector("rtmlib", model_dir=tmp_path).detect([FRAME, FRAME])) == [[], []]


def test_rtmo_finds_people_at_once(real, tmp_path, capsys):
    path, points = write_rtmo(tmp_path / "rtmo-s.onnx")
    (people,) = create_detector("rtmlib", model_dir=path).detect([FRAME])
    assert len(people) == 1
    np.testing.assert_allclose(people[0].xy, points * (320 / SQUARE), rtol=1e-5)
    assert capsys.readouterr().out == ""  # rtmlib announces what it loads
    path, _ = write_rtmo(tmp_path / "unsure.onnx", score=0.2)
    assert list(create_detector("rtmlib", model_dir=path).detect([FRAME])) == [[]]


def test_26_joints_are_halpes_and_odd_numbers_refused(real, tmp_path):
    write_yolox(tmp_path / "rtmdet_nano.onnx"), write_rtmpose(tmp_path / "pose.onnx", 26)
    assert create_detector("rtmlib", model_dir=tmp_path).skeleton.name == "halpe26"
    write_rtmpose(tmp_path / "pose.onnx", 21)
    with pytest.raises(ValueError, match="rtmdet_nano.onnx and pose.onnx cannot be used.*21 joints"):
        create_detector("rtmlib", model_dir=tmp_path)


def test_what_is_missing_or_too_much_is_named(real, tmp_path):
    write_rtmpose(tmp_path / "pose.onnx")
    with pytest.raises(ValueError, match=r"pose.onnx \(RTMPose\).*person detector beside it"):
        create_detector("rtmlib", model_dir=tmp_path)
    write_yolox(tmp_path / "a.onnx"), write_yolox(tmp_path / "b.onnx")
    with pytest.raises(ValueError, match=r"2 files of a person detector \(a.onnx, b.onnx\)"):
        create_detector("rtmlib", model_dir=tmp_path)


def test_wrong_files(real, tmp_path):
    (tmp_path / "garbage.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="garbage.onnx is no usable ONNX model") as caught:
        create_detector("rtmlib", model_dir=tmp_path / "garbage.onnx")
    assert "\n" not in str(caught.value)
    other = write_model(tmp_path / "other.onnx", (8, 8), {"classes": np.zeros((1, 1000), np.float32)})
    with pytest.raises(ValueError, match="other.onnx takes .*expected RTMPose, RTMO"):
        create_detector("rtmlib", model_dir=other)


# --- without the library ----------------------------------------------------------------------------------------------


def test_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "rtmlib", None)
    with pytest.raises(ImportError, match=r'needs rtmlib.*pip install "\.\[rtmlib\]"'):
        create_detector("rtmlib")


@pytest.mark.parametrize(
    ("options", "says"),
    [({"mode": "best"}, "mode is 'best'"), ({"max_people": 0}, "max_people is 0"),
     ({"min_confidence": 1.0}, "min_confidence is 1.0")],
)  # fmt: skip
def test_bad_options(options, says):
    with pytest.raises(ValueError, match=says):
        create_detector("rtmlib", **options)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model file or folder at .*nowhere"):
        create_detector("rtmlib", model_dir=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="No model file in .*expected .onnx"):
        create_detector("rtmlib", model_dir=tmp_path)
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="model.pth is no model file .*expected .onnx"):
        create_detector("rtmlib", model_dir=tmp_path / "model.pth")


def pretend_rtmlib(monkeypatch, finder, pose):
    """A stand-in of rtmlib whose tools are the given functions; returns what its tools were built with."""
    module, built = ModuleType("rtmlib"), []

    def tool(call):
        def build(source, **options):
            built.append((source, options))
            return call
        return build

    module.YOLOX = module.RTMDet = tool(finder)
    module.RTMPose = module.RTMO = tool(pose)
    listed = {"det": "https://host/yolox.zip", "det_input_size": (640, 640), "pose": "https://host/rtmpose.zip",
              "pose_input_size": (192, 256)}  # fmt: skip
    module.Body = SimpleNamespace(MODE={"balanced": listed})
    monkeypatch.setitem(sys.modules, "rtmlib", module)
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    return built


def test_downloads_what_rtmlib_lists_and_passes_bgr(monkeypatch):
    seen = []

    def pose(frame, bboxes=()):
        seen.append(frame)
        people = max(len(bboxes), 1)
        return np.full((people, 17, 2), 5.0), np.full((people, 17), 1.2)  # RTMPose's scores overshoot a little

    built = pretend_rtmlib(monkeypatch, lambda frame: np.array([[0, 0, 9, 9.0], [5, 5, 9, 9]]), pose)
    detector = create_detector("rtmlib", max_people=1)
    (people,) = detector.detect([FRAME])
    assert [source for source, _ in built] == ["https://host/yolox.zip", "https://host/rtmpose.zip"]
    assert built[1][1]["model_input_size"] == (192, 256) and built[0][1]["score_thr"] == 0.5
    assert len(people) == 1 and people[0].score.max() == 1
    np.testing.assert_array_equal(seen[-1], FRAME[..., ::-1])


def test_a_failed_download_names_the_address(monkeypatch):
    built = pretend_rtmlib(monkeypatch, None, None)

    def refuse(source, **options):
        raise OSError("no route to host")

    sys.modules["rtmlib"].YOLOX = refuse
    with pytest.raises(OSError, match="https://host/yolox.zip.*no route to host.*--detector-models"):
        create_detector("rtmlib")
    assert not built


def test_input_size_from_the_model_then_its_name_then_the_usual(tmp_path):
    size = rtmlib_pose._input_size
    assert size((1, 3, 256, 192), tmp_path / "a.onnx", rtmlib_pose.POSE) == (192, 256)
    assert size(("b", 3, "h", "w"), tmp_path / "rtmpose-x-384x288.onnx", rtmlib_pose.POSE) == (288, 384)
    assert size((1, 3, None, None), tmp_path / "a.onnx", rtmlib_pose.BOXES) == (640, 640)
