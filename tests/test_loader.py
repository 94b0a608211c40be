"""Prefetching: the same batches in the same order whoever makes them, and workers that end."""

import itertools
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from random_clips import random_clip, random_clips

from lifting.datasets.clip_file import ClipFile, write_clips
from lifting.datasets.clips import ClipList
from lifting.datasets.loader import AHEAD, prefetch
from lifting.datasets.windows import WindowConfig, Windows

CONFIG = WindowConfig(2, 2, chunk=2, batch=16)


class FailingClips(ClipList):
    """Clips that cannot be read from a frame on; `deadly` ends the process that tries."""

    def __init__(self, clips, from_frame, deadly=False):
        super().__init__(clips)
        self.from_frame, self.deadly = from_frame, deadly

    def _read(self, index, start, stop):
        if stop > self.from_frame and self.deadly:
            os._exit(1)
        if stop > self.from_frame:
            raise OSError("the disk is gone")
        return super()._read(index, start, stop)


@pytest.fixture(scope="module")
def windows():
    return Windows(random_clips([30, 17]), CONFIG)


def loading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def assert_batches(batches, windows, positions, **part):
    for position, batch in zip(positions, batches, strict=True):
        expected = windows.batch_at(position, **part)
        np.testing.assert_array_equal(batch.keypoints, expected.keypoints)
        np.testing.assert_array_equal(batch.frames, expected.frames)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order(windows, workers):
    assert_batches(prefetch(windows, range(5, 25), workers=workers, rank=1, world=2), windows, range(5, 25),
                   rank=1, world=2)
    assert not loading_threads()


def test_processes_give_the_same_batches(windows, tmp_path):
    write_clips(tmp_path / "clips.h5", windows.clips, name="two")
    streamed = Windows(ClipFile(tmp_path / "clips.h5"), CONFIG, memory=0)
    assert_batches(prefetch(streamed, range(3, 12), workers=1), windows, range(3, 12))


def test_positions_may_be_endless(windows):
    first = windows.steps_per_epoch - 1
    batches = prefetch(windows, itertools.count(first), workers=2)
    assert_batches(itertools.islice(batches, 4), windows, range(first, first + 4))
    assert len(loading_threads()) == 2
    batches.close()
    assert not loading_threads()


def test_few_batches_exist_ahead(windows):
    asked = []
    batches = prefetch(windows, (asked.append(position) or position for position in itertools.count()), workers=2)
    assert not asked
    for taken in range(1, 4):
        next(batches)
        assert len(asked) == taken - 1 + 2 + AHEAD
    batches.close()


def test_an_error_comes_in_its_turn_and_ends_the_workers(windows):
    last = windows.steps_per_epoch

    class Bad(Windows):
        def batch_at(self, position, rank=0, world=1):
            return self.batch(0, position, rank, world)

    batches = prefetch(Bad(windows.clips, CONFIG), range(100), workers=3)
    assert len(list(itertools.islice(batches, last))) == last
    with pytest.raises(ValueError, match=f"step {last}"):
        next(batches)
    assert not loading_threads()


def test_an_error_of_the_data_reaches_the_trainer_from_processes():
    clips = FailingClips([random_clip(60)], 40)
    batches = prefetch(Windows(clips, CONFIG, memory=0), range(10), workers=1)
    with pytest.raises(OSError, match="the disk is gone"):
        list(batches)


def test_a_dead_process_is_an_error_of_one_sentence():
    clips = FailingClips([random_clip(60)], 40, deadly=True)
    batches = prefetch(Windows(clips, CONFIG, memory=0), range(10), workers=1)
    with pytest.raises(OSError, match="a process that reads training data died"):
        list(batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_tensors_on_a_device(windows, workers):
    import torch

    batches = list(prefetch(windows, range(3), workers=workers, device="cpu"))
    for position, batch in enumerate(batches):
        expected = windows.batch_at(position)
        assert isinstance(batch.keypoints, torch.Tensor)
        assert batch.keypoints.dtype == torch.float32
        np.testing.assert_array_equal(batch.joints.numpy(), expected.joints)
        np.testing.assert_array_equal(batch.flipped.numpy(), expected.flipped)


def test_what_is_none_stays_none():
    windows = Windows(random_clips([9], labelled=False), CONFIG)
    (batch,) = prefetch(windows, [0], device="cpu")
    assert batch.joints is None


def test_workers_are_counted_from_zero(windows):
    with pytest.raises(ValueError, match="-1 workers"):
        prefetch(windows, range(3), workers=-1)


INTERRUPTED = """
import sys
sys.path[:0] = ["tests"]
from random_clips import random_clips
from lifting.datasets.loader import prefetch
from lifting.datasets.windows import WindowConfig, Windows
if __name__ == "__main__":
    windows = Windows(random_clips([30]), WindowConfig(2, 2, batch=16), memory=int(sys.argv[1]))
    for number, batch in enumerate(prefetch(windows, iter(int, 1), workers=1)):
        if number == 2:
            print("going", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_ctrl_c_ends_threads_and_processes_alike(memory, tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": "."}
    process = subprocess.Popen([sys.executable, script, str(memory)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, start_new_session=True, env=environment)
    with process:
        assert process.stdout.readline() == "going\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
        _, errors = process.communicate(timeout=60)  # the pipe ends when the last process that holds it does
    assert process.returncode in (-signal.SIGINT, 130)
    assert errors.count("KeyboardInterrupt") == 1
    assert "Process SpawnProcess" not in errors


def test_the_benchmarks_table_says_how_often_a_loader_feeds_a_model(monkeypatch):
    from experiments import benchmark_loader

    monkeypatch.setattr(benchmark_loader, "WINDOWS", WindowConfig(4, 4, batch=8))
    rate = benchmark_loader.loader_rate(benchmark_loader.random_data(2, 30), 1, 1 << 20, "cpu", 0.0)
    assert rate > 0
    models = {"big": 100.0, "small": 1500.0}
    rows = benchmark_loader.table({"loaders": {"threads": 3000.0}, "models": models}).splitlines()
    assert rows[0] == "| loader | samples/s | x big (100/s) | x small (1,500/s) |"
    assert rows[2] == "| threads | 3,000 | 30.0 | 2.0 |"
