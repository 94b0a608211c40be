"""torchvision's keypoint R-CNN: the adapter on its documented output, and the network itself where it loads."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from lifting.detectors import create_detector

FRAME = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)


class Network(torch.nn.Module):
    """Returns what torchvision documents: a dict of tensors for each image, boxes in falling order of their score."""

    def __init__(self, labels=(1, 1, 1), scores=(0.9, 0.95, 0.8), joints=17):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        people = len(labels)
        random = np.random.default_rng(0)
        keypoints = random.uniform(0, 60, (people, joints, 3))
        keypoints[..., 2] = 1  # torchvision's constant visibility
        self.found = {
            "boxes": torch.zeros(people, 4), "labels": torch.tensor(labels, dtype=torch.int64).reshape(people),
            "scores": torch.tensor(scores[:people]), "keypoints": torch.tensor(keypoints, dtype=torch.float32),
            "keypoints_scores": torch.tensor(random.normal(2, 4, (people, joints)), dtype=torch.float32),
        }  # fmt: skip
        self.images = []

    def forward(self, images):
        self.images += images
        return [self.found]


class Weights:
    url = "https://host/keypointrcnn.pth"


def pretend_torchvision(monkeypatch, network):
    """A stand-in of torchvision with one builder; returns what it was called with."""
    calls = []

    def build(**options):
        calls.append(options)
        if isinstance(network, Exception):
            raise network
        return network

    detection = ModuleType("torchvision.models.detection")
    detection.keypointrcnn_resnet50_fpn = build
    detection.KeypointRCNN_ResNet50_FPN_Weights = SimpleNamespace(DEFAULT=Weights)
    models = ModuleType("torchvision.models")
    models.detection = detection
    root = ModuleType("torchvision")
    root.models = models
    for module in (root, models, detection):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_people_of_the_documented_output(monkeypatch):
    network = Network(labels=(1, 1, 2))
    calls = pretend_torchvision(monkeypatch, network)
    detector = create_detector("torchvision", min_confidence=0.6, device="cpu")
    (people,) = detector.detect([FRAME])
    assert calls == [{"weights": Weights, "box_score_thresh": 0.6}] and not network.training
    assert detector.skeleton.name == "coco17" and len(people) == 2  # label 2 is no person
    found = network.found
    for person, row in zip(people, (1, 0), strict=True):  # the surer one first
        np.testing.assert_allclose(person.xy, found["keypoints"][row, :, :2])
        np.testing.assert_allclose(person.score, torch.sigmoid(found["keypoints_scores"][row] - 2), rtol=1e-5)
    (image,) = network.images
    np.testing.assert_allclose(image, FRAME.transpose(2, 0, 1) / np.float32(255))


def test_nobody_and_too_many(monkeypatch):
    pretend_torchvision(monkeypatch, Network(labels=(), scores=()))
    assert list(create_detector("torchvision").detect([FRAME])) == [[]]
    pretend_torchvision(monkeypatch, Network())
    assert [len(people) for people in create_detector("torchvision", max_people=1).detect([FRAME])] == [1]


def test_another_number_of_joints_is_refused(monkeypatch):
    pretend_torchvision(monkeypatch, Network(joints=12))
    with pytest.raises(ValueError, match=r"torchvision returned .*shape \(3, 12, 2\).*expected .people, 17, 2"):
        list(create_detector("torchvision").detect([FRAME]))


def test_local_weights(monkeypatch, tmp_path):
    network = Network()
    calls = pretend_torchvision(monkeypatch, network)
    torch.save({"weight": torch.full((1,), 7.0)}, tmp_path / "weights.pth")
    create_detector("torchvision", model_dir=tmp_path)
    assert network.weight.item() == 7 and calls[0]["weights"] is None and calls[0]["weights_backbone"] is None
    torch.save({"bias": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="weights.pth does not fit torchvision's keypoint R-CNN"):
        create_detector("torchvision", model_dir=tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="weights.pth is no file of weights") as caught:
        create_detector("torchvision", model_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_failed_download_names_the_address(monkeypatch):
    pretend_torchvision(monkeypatch, OSError("no route to host"))
    with pytest.raises(OSError, match="https://host/keypointrcnn.pth.*no route.*--detector-models"):
        create_detector("torchvision")


@pytest.mark.parametrize("broken", [None, "operator torchvision::nms does not exist"])
def test_missing_or_unfit_package_is_one_sentence(monkeypatch, broken):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision":
                raise RuntimeError(broken)

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    if broken is None:
        monkeypatch.setitem(sys.modules, "torchvision", None)
    else:
        monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ImportError, match="needs a working torchvision.*pip install torch torchvision --index-url"):
        create_detector("torchvision")


def test_bad_options(tmp_path):
    with pytest.raises(ValueError, match="max_people is 0"):
        create_detector("torchvision", max_people=0)
    with pytest.raises(FileNotFoundError, match="expected .pth or .pt"):
        create_detector("torchvision", model_dir=tmp_path)


@pytest.fixture
def real():
    """Skips where torchvision is missing, or is not the build for this torch."""
    try:
        from torchvision.models import detection
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs a working torchvision ({error})")
    return detection


@pytest.mark.slow
def test_the_network_itself(real, tmp_path):
    torch.manual_seed(0)
    network = real.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), tmp_path / "keypointrcnn.pth")
    detector = create_detector("torchvision", model_dir=tmp_path, min_confidence=0.05, max_people=3, device="cpu")
    (people,) = detector.detect([FRAME])  # random weights see people anywhere or nowhere
    assert all(person.xy.shape == (17, 2) for person in people) and len(people) <= 3
    narrow = real.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_keypoints=12)
    torch.save(narrow.state_dict(), tmp_path / "keypointrcnn.pth")
    with pytest.raises(ValueError, match="expected the weights of keypointrcnn_resnet50_fpn with 17 keypoints"):
        create_detector("torchvision", model_dir=tmp_path)
