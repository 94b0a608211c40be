"""Detectron2's keypoint R-CNN: the adapter against stand-ins of its documented modules and Instances."""

from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from lifting.detectors import create_detector
from lifting.detectors.detectron2_rcnn import CONFIG

FRAME = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
URL = "https://dl.fbaipublicfiles.com/detectron2/"


class Instances:
    """Detectron2's container: fields of N entries, ``has``, ``to`` and attribute access."""

    def __init__(self, **fields):
        self._fields = fields

    def has(self, name):
        return name in self._fields

    def to(self, device):
        assert device == "cpu"
        return self

    def __getattr__(self, name):
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(name)
        return self._fields[name]


def people(scores=(0.9, 0.97), joints=17):
    random = np.random.default_rng(0)
    keypoints = random.uniform(0, 60, (len(scores), joints, 3))
    keypoints[..., 2] = random.uniform(0.01, 0.4, keypoints.shape[:2])
    return Instances(scores=torch.tensor(scores), pred_classes=torch.zeros(len(scores)),
                     pred_keypoints=torch.tensor(keypoints, dtype=torch.float32))  # fmt: skip


class Settings(SimpleNamespace):
    """Of Detectron2's CfgNode what the adapter touches."""

    def merge_from_file(self, path):
        if "keypoint" not in path and "local" not in path:
            raise KeyError(f"Non-existent config key: {path}")
        self.merged = path


def pretend_detectron2(monkeypatch, found=None, joints=17, failure=None, warning=None):
    """Stand-ins of detectron2.config, .model_zoo and .engine; returns the list of (settings, frames) made."""
    made = []

    class DefaultPredictor:
        def __init__(self, settings):
            if failure is not None:
                raise failure
            if warning is not None:
                logging.getLogger("fvcore.common.checkpoint").warning(warning)
            self.frames = []
            made.append((settings, self.frames))

        def __call__(self, frame):
            self.frames.append(frame)
            return {"instances": found or people()}

    def get_cfg():
        heads = SimpleNamespace(SCORE_THRESH_TEST=0.05)
        model = SimpleNamespace(WEIGHTS="", DEVICE="cuda", KEYPOINT_ON=joints > 0, ROI_HEADS=heads,
                                ROI_KEYPOINT_HEAD=SimpleNamespace(NUM_KEYPOINTS=joints))  # fmt: skip
        return Settings(MODEL=model)

    def get_config_file(name):
        if not name.startswith("COCO"):
            raise RuntimeError(f"{name} not available in Model Zoo!")
        return f"/zoo/{name}"

    modules = {name: ModuleType(name) for name in ("detectron2", "detectron2.config", "detectron2.engine",
                                                   "detectron2.model_zoo")}  # fmt: skip
    modules["detectron2.config"].get_cfg = get_cfg
    modules["detectron2.engine"].DefaultPredictor = DefaultPredictor
    modules["detectron2.model_zoo"].get_config_file = get_config_file
    modules["detectron2.model_zoo"].get_checkpoint_url = lambda name: f"{URL}{name}/model_final.pkl"
    modules["detectron2"].model_zoo = modules["detectron2.model_zoo"]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_people_of_the_documented_output(monkeypatch):
    made = pretend_detectron2(monkeypatch)
    detector = create_detector("detectron2", min_confidence=0.6, device="cpu")
    (found,) = detector.detect([FRAME])
    ((settings, frames),) = made
    assert settings.merged == f"/zoo/{CONFIG}" and settings.MODEL.WEIGHTS.startswith(URL)
    assert settings.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.6 and settings.MODEL.DEVICE == "cpu"
    np.testing.assert_array_equal(frames[0], FRAME[..., ::-1])
    expected = people().pred_keypoints.numpy()
    assert detector.skeleton.name == "coco17" and len(found) == 2
    for person, row in zip(found, (1, 0), strict=True):  # the surer one first
        np.testing.assert_allclose(person.xy, expected[row, :, :2])
        share = expected[row, :, 2]
        np.testing.assert_allclose(person.score, share / (share + 0.05), rtol=1e-5)


def test_scores_read_as_in_files_of_its_detections(monkeypatch, tmp_path):
    from lifting.detectors.files import read_keypoints

    pretend_detectron2(monkeypatch)
    (found,) = create_detector("detectron2", device="cpu").detect([FRAME])
    keypoints = people().pred_keypoints.numpy()
    rows = np.stack([keypoints[..., 0], keypoints[..., 1], np.zeros((2, 17)), keypoints[..., 2]], axis=1)
    boxes = np.array([[[0, 0, 9, 9, 0.9], [0, 0, 9, 9, 0.97]]])
    as_objects = [np.empty((1, 2), object), np.empty((1, 2), object)]
    for array, value in zip(as_objects, (boxes[0], rows), strict=True):
        array[0, 0], array[0, 1] = [], value
    np.savez(tmp_path / "clip.mp4.npz", boxes=as_objects[0], keypoints=as_objects[1], segments=np.zeros(1),
             metadata=np.array({"w": 96, "h": 64}, object))  # fmt: skip
    read = read_keypoints(tmp_path / "clip.mp4.npz").frames[0]
    for person, other in zip(found, read[::-1], strict=True):
        np.testing.assert_allclose(person.score, other.score, atol=1e-5)


def test_nobody_and_too_many(monkeypatch):
    pretend_detectron2(monkeypatch, people(()))
    assert list(create_detector("detectron2").detect([FRAME])) == [[]]
    pretend_detectron2(monkeypatch)
    assert [len(found) for found in create_detector("detectron2", max_people=1).detect([FRAME])] == [1]


def test_local_weights_and_config(monkeypatch, tmp_path):
    made = pretend_detectron2(monkeypatch)
    (tmp_path / "model_final.pkl").write_bytes(b"")
    create_detector("detectron2", model_dir=tmp_path)
    assert made[-1][0].MODEL.WEIGHTS == str(tmp_path / "model_final.pkl") and made[-1][0].merged == f"/zoo/{CONFIG}"
    (tmp_path / "local.yaml").write_text("")
    create_detector("detectron2", model_dir=tmp_path)
    assert made[-1][0].merged == str(tmp_path / "local.yaml")
    (tmp_path / "other.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 files of weights \(model_final.pkl, other.pth\)"):
        create_detector("detectron2", model_dir=tmp_path)


@pytest.mark.parametrize(
    ("config", "joints", "says"),
    [("nonsense", 17, "nonsense is no config that Detectron2 knows.*not available in Model Zoo"),
     ("COCO-Detection/faster_rcnn.yaml", 17, "is no config that Detectron2 knows"),
     (CONFIG, 0, "a model with 0 keypoints: expected COCO's 17"), (CONFIG, 12, "a model with 12 keypoints")],
)  # fmt: skip
def test_wrong_configs(monkeypatch, config, joints, says):
    pretend_detectron2(monkeypatch, joints=joints)
    with pytest.raises(ValueError, match=says):
        create_detector("detectron2", config=config)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [({"failure": OSError("no route")}, OSError, "could not get the weights https:.*no route.*--detector-models"),
     ({"failure": KeyError("model")}, ValueError, "cannot use the weights .*KeyError"),
     ({"warning": "Some model parameters or buffers are not found in the checkpoint:\nroi_heads"}, ValueError,
      "do not fit Detectron2's config .Some model parameters.*same line of its model zoo"),
     ({"warning": "Skip loading parameter 'a' due to incompatible shapes: (17,) and (12,)"}, ValueError, "do not fit")],
)  # fmt: skip
def test_wrong_weights(monkeypatch, options, error, says):
    pretend_detectron2(monkeypatch, **options)
    with pytest.raises(error, match=says) as caught:
        create_detector("detectron2")
    assert "\n" not in str(caught.value)
    assert not logging.getLogger("fvcore.common.checkpoint").handlers


@pytest.mark.parametrize(
    ("found", "says"),
    [(people(joints=12), r"keypoints of shape \(2, 12, 3\): expected .people, 17, 3"),
     (Instances(scores=torch.zeros(1)), "returns no keypoints")],
)  # fmt: skip
def test_wrong_results(monkeypatch, found, says):
    pretend_detectron2(monkeypatch, found)
    with pytest.raises(ValueError, match=says):
        list(create_detector("detectron2").detect([FRAME]))


def test_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(ImportError, match="needs Detectron2 .*not on PyPI.*pip install .*detectron2"):
        create_detector("detectron2")


def test_missing_files_and_bad_options(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected .pkl or .pth"):
        create_detector("detectron2", model_dir=tmp_path)
    with pytest.raises(ValueError, match="min_confidence is 2"):
        create_detector("detectron2", min_confidence=2)
