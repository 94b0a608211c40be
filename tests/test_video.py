"""Videos made on the fly: time, rotation, damage, images, and the writer."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest

from lifting import video

av = pytest.importorskip("av")
SIZE = (64, 48)
QUARTERS = {"top left": (255, 40, 40), "top right": (40, 255, 40), "bottom left": (40, 40, 255)}


def quartered(index=0, size=SIZE):
    """A picture whose corners tell which way is up, and whose fourth corner tells the frame's number."""
    width, height = size
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[: height // 2, : width // 2] = QUARTERS["top left"]
    image[: height // 2, width // 2:] = QUARTERS["top right"]
    image[height // 2:, : width // 2] = QUARTERS["bottom left"]
    image[height // 2:, width // 2:] = 20 + 10 * (index % 23)
    return image


def make_video(path, frames=8, fps=25, size=SIZE, stamps=None, codec="libx264", pix_fmt="yuv420p", gop=4, **options):
    """Encode with bare PyAV, so that reader and writer are tested apart; `stamps` are milliseconds."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(quartered(index, size), format="rgb24")
            frame.pts = round(1000 * index / fps) if stamps is None else stamps[index]
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def number_of(rgb):
    """The frame's number, read from its fourth quarter."""
    height, width = rgb.shape[:2]
    return round((float(np.median(rgb[height // 2 + 4:, width // 2 + 4:])) - 20) / 10)


def set_display_matrix(path, a, b, c, d):
    """Write a rotation into the track header of an mp4, as phones do."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of times, ids and volume before the matrix
    assert struct.unpack(">9i", content[place:place + 36])[0] == 1 << 16
    one = 1 << 16
    content[place:place + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def test_reads_every_frame_with_its_time(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    with video.open_video(path) as reader:
        assert reader.image_size == SIZE and reader.fps == 25 and reader.num_frames == 8
        for _ in range(2):  # a reader can be gone through again
            frames = list(reader)
            assert [number_of(frame.rgb) for frame in frames] == list(range(8))
            assert [frame.index for frame in frames] == list(range(8))
            np.testing.assert_allclose([frame.time_seconds for frame in frames], np.arange(8) / 25, atol=1e-3)
    assert frames[0].rgb.shape == (48, 64, 3) and frames[0].rgb.dtype == np.uint8
    for corner, place in (("top left", (8, 8)), ("top right", (8, 56)), ("bottom left", (40, 8))):
        np.testing.assert_allclose(frames[0].rgb[place], QUARTERS[corner], atol=40)
    assert not reader.variable_rate and not reader.truncated and not reader.warnings and not reader.assumed


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    ],
)
def test_rotation_metadata_is_applied(tmp_path, matrix, turn):
    path = make_video(tmp_path / "turned.mp4", frames=2)
    with video.open_video(path) as reader:
        stored = next(iter(reader)).rgb
    set_display_matrix(path, *matrix)
    with video.open_video(path) as reader:
        expected = turn(stored)
        assert reader.image_size == expected.shape[1::-1]
        np.testing.assert_array_equal(next(iter(reader)).rgb, expected)


def test_rotation_has_the_sign_that_pyav_reports(tmp_path):
    path = make_video(tmp_path / "turned.mp4", frames=2)
    set_display_matrix(path, 0, 1, -1, 0)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == -90  # counter-clockwise, so a quarter turn clockwise
        expected = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    with video.open_video(path) as reader:
        np.testing.assert_array_equal(next(iter(reader)).rgb, expected)


def test_start_and_end_choose_frames_by_time(tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=20, gop=7)
    with video.open_video(path, start=0.4, end=0.6) as reader:
        frames = list(reader)
    assert [number_of(frame.rgb) for frame in frames] == [10, 11, 12, 13, 14]
    assert frames[0].index == 0 and frames[0].time_seconds == pytest.approx(0.4)
    assert reader.num_frames == 5 and not reader.truncated


def test_variable_rate_keeps_frames_and_true_times(tmp_path):
    stamps = [0, 33, 67, 100, 300, 333, 367, 400]
    with video.open_video(make_video(tmp_path / "a.mkv", stamps=stamps, fps=30)) as reader:
        frames = list(reader)
    assert reader.variable_rate
    np.testing.assert_allclose([frame.time_seconds for frame in frames], np.array(stamps) / 1000, atol=1e-3)
    assert [number_of(frame.rgb) for frame in frames] == list(range(8))


def test_millisecond_rounding_is_no_variable_rate(tmp_path):
    with video.open_video(make_video(tmp_path / "a.mkv", frames=12, fps=60)) as reader:
        assert sum(1 for _ in reader) == 12
    assert not reader.variable_rate


def test_uneven_and_even_grids():
    assert not video.is_uneven([]) and not video.is_uneven([0, 5])
    assert not video.is_uneven(np.round(np.arange(500) / 119.88, 3))
    assert video.is_uneven(np.delete(np.arange(500) / 30, 250))
    assert video.is_uneven(np.cumsum(np.tile([0.02, 0.04], 50)))


def test_to_constant_rate_is_exact_for_motion_at_constant_speed():
    times = np.array([0.0, 0.03, 0.11, 0.2, 0.4])
    values = np.stack([2 * times + 1, -times], axis=-1)
    moved = video.to_constant_rate(values, times, fps=10)
    np.testing.assert_allclose(video.uniform_times(times, 10), [0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(moved, [[1, 0], [1.2, -0.1], [1.4, -0.2], [1.6, -0.3], [1.8, -0.4]], atol=1e-6)
    values[3] = np.nan
    moved = video.to_constant_rate(values, times, fps=10)
    assert np.isfinite(moved[[0, 1, 4]]).all() and np.isnan(moved[[2, 3]]).all()
    with pytest.raises(ValueError, match="one length"):
        video.to_constant_rate(values, times[:2], 10)


def test_cut_off_file_gives_what_decodes(tmp_path):
    whole = make_video(tmp_path / "whole.mp4", frames=40, gop=5, movflags="+faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    with video.open_video(cut) as reader:
        frames = list(reader)
    assert 3 <= len(frames) < 37
    assert [number_of(frame.rgb) for frame in frames[:3]] == [0, 1, 2]
    assert reader.truncated and any("truncated" in warning for warning in reader.warnings)


def test_file_whose_index_is_cut_off_is_refused(tmp_path):
    whole = make_video(tmp_path / "whole.mp4")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    with pytest.raises(ValueError, match="cut off"):
        video.open_video(cut)


@pytest.mark.parametrize("content", [b"", b"this is no video\n" * 50, bytes(range(256)) * 40, b"#EXTM3U\nhttp://a/b\n"])
@pytest.mark.parametrize("name", ["a.mp4", "a.txt"])
def test_files_that_are_no_video_are_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="a\\.(mp4|txt)"):
        video.open_video(tmp_path / name)


@pytest.mark.parametrize("name", ["a b%03d.mp4", "http:evil?x=1.mp4", "-i.mp4", "żółw 龟 'quoted\".mp4"])
def test_odd_file_names_are_only_names(tmp_path, name):
    path = tmp_path / name
    with video.VideoWriter(path, SIZE, 25) as writer:
        writer.write(quartered())
    with video.open_video(path) as reader:
        assert len(list(reader)) == 1


def test_missing_file_and_bad_numbers(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    with pytest.raises(FileNotFoundError, match="check the path"):
        video.open_video(tmp_path / "none.mp4")
    for arguments in ({"start": -1}, {"start": 2, "end": 1}, {"end": float("nan")}, {"start": 100}, {"fps": 30}):
        with pytest.raises(ValueError):
            video.open_video(path, **arguments)
    with pytest.raises(ValueError, match="no frame"), video.open_video(path, start=0.1, end=0.11) as reader:
        list(reader)


def test_raw_stream_without_timestamps_counts_frames(tmp_path):
    path = make_video(tmp_path / "raw.h264")
    with video.open_video(path) as reader:
        frames = list(reader)
    assert len(frames) == 8
    np.testing.assert_allclose(np.diff([frame.time_seconds for frame in frames]), 1 / reader.fps, rtol=1e-6)


def test_ten_bits_odd_size_and_wide_pixels(tmp_path):
    deep = make_video(tmp_path / "deep.mkv", codec="ffv1", pix_fmt="yuv444p10le", size=(33, 21), frames=2)
    with video.open_video(deep) as reader:
        rgb = next(iter(reader)).rgb
    assert reader.image_size == (33, 21) and rgb.dtype == np.uint8
    np.testing.assert_allclose(rgb[2, 2], QUARTERS["top left"], atol=6)
    wide = tmp_path / "wide.mp4"
    with av.open(str(wide), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(quartered(), format="rgb24")))
        container.mux(stream.encode(None))
    with video.open_video(wide) as reader:
        assert reader.image_size == (96, 48) and next(iter(reader)).rgb.shape == (48, 96, 3)


def test_a_pass_can_be_left_early(tmp_path):
    path = make_video(tmp_path / "a.mp4", frames=30)
    with video.open_video(path) as reader:
        frames = iter(reader)
        assert number_of(next(frames).rgb) == 0
    assert next(frames, None) is None  # closed with the block


def save_images(folder, names, size=SIZE):
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(quartered(index, size)).save(folder / name)
    return folder


def test_folder_of_images_in_natural_order(tmp_path):
    folder = save_images(tmp_path / "f", ["f1.png", "f2.png", "f9.png", "f10.png"])
    (folder / "notes.txt").write_text("not an image")
    with video.open_video(folder, fps=10) as reader:
        frames = list(reader)
    assert [number_of(frame.rgb) for frame in frames] == [0, 1, 2, 3]
    assert reader.fps == 10 and reader.num_frames == 4 and reader.image_size == SIZE and not reader.assumed
    np.testing.assert_array_equal(frames[2].rgb, quartered(2))
    with video.open_video(folder, start=0.1, end=0.3, fps=10) as reader:
        assert [number_of(frame.rgb) for frame in reader] == [1, 2] and reader.num_frames == 2
    with video.open_video(folder) as reader:
        assert reader.fps == 30 and "30" in reader.assumed[0]


def test_bad_folders_of_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images"):
        video.open_video(tmp_path / "empty")
    mixed = save_images(tmp_path / "mixed", ["a.png"])
    save_images(mixed, ["b.png"], size=(32, 48))
    with pytest.raises(ValueError, match="b.png.*32x48.*64x48"):
        video.open_video(mixed)
    broken = save_images(tmp_path / "broken", ["a.png", "b.png"])
    (broken / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="a.png"):
        video.open_video(broken)
    cut = save_images(tmp_path / "cut", ["a.png"])
    (cut / "a.png").write_bytes((cut / "a.png").read_bytes()[:-60])
    with pytest.raises(ValueError, match="a.png"), video.open_video(cut) as reader:
        list(reader)


def test_single_image_and_sixteen_bit_grey(tmp_path):
    from PIL import Image

    values = (np.arange(48 * 64, dtype=np.uint16) * 20).reshape(48, 64)
    Image.fromarray(values).save(tmp_path / "grey.png")
    with video.open_video(tmp_path / "grey.png") as reader:
        (frame,) = reader
    np.testing.assert_array_equal(frame.rgb[..., 1], values >> 8)


def test_images_turned_by_exif(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(quartered()).save(tmp_path / "a.png", exif=exif)
    with video.open_video(tmp_path / "a.png") as reader:
        assert reader.image_size == (48, 64)
        np.testing.assert_array_equal(next(iter(reader)).rgb, np.rot90(quartered(), -1))


def test_writer_round_trip(tmp_path):
    path = tmp_path / "new" / "out.mp4"
    with video.VideoWriter(path, SIZE, 30000 / 1001) as writer:
        for index in range(6):
            writer.write(quartered(index))
        assert not path.exists()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
    with video.open_video(path) as reader:
        frames = list(reader)
    assert reader.fps == pytest.approx(30000 / 1001) and not reader.variable_rate
    assert [number_of(frame.rgb) for frame in frames] == list(range(6))
    np.testing.assert_allclose(frames[0].rgb[8, 8], QUARTERS["top left"], atol=16)
    assert [file.name for file in path.parent.iterdir()] == ["out.mp4"]


def test_writer_makes_odd_sizes_even_and_keeps_given_times(tmp_path):
    times = [0.0, 0.1, 0.4, 0.45]
    with video.VideoWriter(tmp_path / "odd.mp4", (33, 21), 10) as writer:
        for index, time in enumerate(times):
            writer.write(quartered(index, (33, 21)), time)
    with video.open_video(tmp_path / "odd.mp4") as reader:
        np.testing.assert_allclose([frame.time_seconds for frame in reader], times, atol=1e-3)
    assert reader.image_size == (34, 22)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_writer_leaves_nothing(tmp_path, error):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"older result")
    with pytest.raises(error), video.VideoWriter(path, SIZE, 25) as writer:
        writer.write(quartered())
        raise error()
    assert path.read_bytes() == b"older result"
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_writer_refuses_bad_input(tmp_path):
    for size, fps in (((0, 4), 25), (SIZE, 0), (SIZE, float("nan"))):
        with pytest.raises(ValueError):
            video.VideoWriter(tmp_path / "a.mp4", size, fps)
    with pytest.raises(ValueError, match="no frame"), video.VideoWriter(tmp_path / "a.mp4", SIZE, 25):
        pass
    with pytest.raises(ValueError, match="expected uint8"), video.VideoWriter(tmp_path / "a.mp4", SIZE, 25) as writer:
        writer.write(np.zeros((48, 64, 3)))
    with pytest.raises(ValueError, match="suffix"), video.VideoWriter(tmp_path / "a.xyz", SIZE, 25) as writer:
        writer.write(quartered())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("turned", [False, True])
def test_frames_resized_while_decoded(tmp_path, turned, monkeypatch):
    from lifting.video import file_reader

    path = tmp_path / "halves.mp4"
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, 48:] = 200  # dark left half, bright right half
    with video.VideoWriter(path, (96, 64), 10) as writer:
        writer.write(picture)
    if turned:
        monkeypatch.setattr(file_reader, "_orientation", lambda frame: (True, False, False))
    with video.open_video(path) as reader:
        reader.frame_size = (16, 24) if turned else (24, 16)
        rgb = next(iter(reader)).rgb
    halves = (rgb[:10], rgb[14:]) if turned else (rgb[:, :10], rgb[:, 14:])
    assert rgb.shape == ((24, 16, 3) if turned else (16, 24, 3))
    assert halves[0].max() < 12 and halves[1].min() > 188


def test_images_resized_as_they_are_read(tmp_path):
    from PIL import Image

    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(picture).save(tmp_path / "1.png")
    with video.open_video(tmp_path) as reader:
        reader.frame_size = (3, 2)
        rgb = next(iter(reader)).rgb
    np.testing.assert_allclose(rgb, picture.reshape(2, 2, 3, 2, 3).mean((1, 3)), atol=0.51)
