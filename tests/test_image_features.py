"""Features of image backbones from files as users have them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from lifting.datasets.image_features import ImageFeatures, read_image_features


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write(path, datasets: dict, attributes: dict | None = None):
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
        file.attrs.update(attributes or {})
    return path


def test_one_person_with_a_frame_rate(tmp_path):
    features = random(6, 2048).astype(np.float16)
    image = read_image_features(write(tmp_path / "a.h5", {"features": features, "bbox": random(6, 4)}, {"fps": 30}))
    assert image.features.dtype == np.float32 and len(image) == 6
    np.testing.assert_array_equal(image.features, features)
    np.testing.assert_allclose(image.times, np.arange(6) / 30)


RATES = [("attribute of the file", {"fps": 50.0}, {}), ("dataset", {}, {"fps": np.array([50])}),
         ("scalar dataset", {}, {"fps": 50})]  # fmt: skip


@pytest.mark.parametrize(("attributes", "datasets"), [rate[1:] for rate in RATES], ids=[rate[0] for rate in RATES])
def test_frames_that_are_missing(tmp_path, attributes, datasets):
    path = write(tmp_path / "a.h5", {"features": random(3, 5), "frames": [4, 5, 9], **datasets}, attributes)
    np.testing.assert_allclose(read_image_features(path).times, [0.08, 0.1, 0.18])
    np.testing.assert_allclose(read_image_features(path, fps=10).times, [0.4, 0.5, 0.9])


def test_an_attribute_of_the_features_and_times_come_first(tmp_path):
    path = write(tmp_path / "a.h5", {"features": random(3, 5)}, {"fps": 10})
    with h5py.File(path, "a") as file:
        file["features"].attrs["fps"] = 20
    np.testing.assert_allclose(read_image_features(path).times, [0, 0.05, 0.1])
    with h5py.File(path, "a") as file:
        file["times"] = [1.0, 2.0, 4.0]
    np.testing.assert_allclose(read_image_features(path).times, [1, 2, 4])


def test_people_are_groups(tmp_path):
    people = {"1/features": random(3, 5), "2/features": random(4, 5, seed=1), "2/frames": [1, 2, 3, 8]}
    path = write(tmp_path / "a.h5", people, {"fps": 25})
    for person, rows in (("1", 3), (2, 4)):
        image = read_image_features(path, person)
        np.testing.assert_array_equal(image.features, people[f"{person}/features"])
        assert len(image) == rows
    with pytest.raises(ValueError, match="a.h5: it has no dataset 'features', but features of the people 1, 2; name "):
        read_image_features(path)
    with pytest.raises(ValueError, match="no features of the person '3', but features of the people 1, 2"):
        read_image_features(path, "3")
    one = write(tmp_path / "b.h5", {"somebody/features": random(3, 5)})
    assert len(read_image_features(one, fps=25)) == 3


BAD = [
    ({"phi": np.zeros((3, 4)), "boxes": [1]}, "no dataset 'features', but boxes, phi."),
    ({}, "no dataset 'features', but nothing."),
    ({"features": np.zeros((3, 4, 5))}, r"shape \(3, 4, 5\)"),
    ({"features": np.zeros(3)}, r"shape \(3,\)"),
    ({"features": 1.0}, "'features' holds no array of numbers"),
    ({"features": np.zeros((0, 4))}, r"shape \(0, 4\)"),
    ({"features": ["a", "b"]}, "'features' holds no array of numbers"),
    ({"features": np.full((3, 4), np.nan)}, "not finite in 3 of 3 frames"),
    ({"features": np.zeros((3, 4)), "frames": [1, 2]}, r"times of shape \(2,\)"),
    ({"features": np.zeros((3, 4)), "frames": [1, 1, 2]}, "do not increase"),
    ({"features": np.zeros((3, 4)), "times": [0, np.nan, 2]}, "do not increase"),
    ({"features": np.zeros((3, 4)), "times/x": [0, 1, 2]}, "'times' holds no array"),
]


@pytest.mark.parametrize(("datasets", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_files_are_refused_in_one_sentence(tmp_path, datasets, message):
    path = write(tmp_path / "a.h5", datasets, {"fps": 25})
    with pytest.raises(ValueError, match=message) as caught:
        read_image_features(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("attributes", [{}, {"fps": 0}, {"fps": np.nan}, {"fps": "25 Hz"}, {"fps": [25, 30]}])
def test_a_frame_rate_is_needed(tmp_path, attributes):
    path = write(tmp_path / "a.h5", {"features": random(3, 4)}, attributes)
    with pytest.raises(ValueError, match="expected a positive number; pass fps"):
        read_image_features(path)


def test_files_of_another_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an .h5"):
        read_image_features(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="is no HDF5 file"):
        read_image_features(tmp_path / "a.h5")
    whole = write(tmp_path / "b.h5", {"features": random(300, 64)}, {"fps": 25}).read_bytes()
    (tmp_path / "b.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="b.h5"):
        read_image_features(tmp_path / "b.h5")


@pytest.mark.parametrize("fps", [10.0, 25.0, 29.97, 60.0])
def test_resampling_is_linear_in_time_also_over_gaps(fps):
    times = np.array([0.2, 0.24, 0.4, 0.44, 1.2])
    image = ImageFeatures(random(5, 7), times).at(fps)
    np.testing.assert_allclose(np.diff(image.times), 1 / fps)
    assert image.times[0] == 0.2 and 1.2 - 1 / fps - 1e-9 < image.times[-1] <= 1.2 + 1e-9
    expected = np.stack([np.interp(image.times, times, column) for column in random(5, 7).T], -1)
    np.testing.assert_allclose(image.features, expected, atol=1e-5)


def test_resampling_to_their_own_rate_changes_nothing():
    image = ImageFeatures(random(40, 3), np.arange(40) / 25.0)
    again = image.at(25.0)
    assert len(again) == 40
    np.testing.assert_allclose(again.features, image.features, atol=1e-6)
    np.testing.assert_array_equal(ImageFeatures(random(1, 3), [2.0]).at(25.0).features, random(1, 3))
    with pytest.raises(ValueError, match="got 0 frames/s"):
        image.at(0)


def test_features_at_the_times_of_a_lift_stand_beside_its_own():
    image = ImageFeatures(random(10, 3), 1 + np.arange(10) / 30)
    times = np.array([1 - 0.03, 1.0, 1.05, 1.3, 1.3 + 0.03])
    lifted = random(5, 4, seed=1)
    joined = np.concatenate([lifted, image.sampled(times).features], axis=-1)
    assert joined.shape == (5, 7)
    np.testing.assert_allclose(joined[[0, 1, 3, 4], 4:], image.features[[0, 0, 9, 9]], atol=1e-6)
    np.testing.assert_allclose(joined[2, 4:], image.features[[1, 2]].mean(0), atol=1e-6)
    for wrong in ([0.9, 1.1], [1.1, 1.4]):
        with pytest.raises(ValueError, match="expected them within those of the features, 1.000 to 1.300 s"):
            image.sampled(np.array(wrong))
