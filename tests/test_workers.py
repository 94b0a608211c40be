"""Maps over items in several processes: what is lost when one dies (nothing), and what is left when all are stopped."""

from __future__ import annotations

import multiprocessing
import os
import sys
from functools import partial

import pytest
from worked_items import Doubler, fail_to_start, start_to_fail

from lifting.workers import WorkerDied, map_in_processes, map_on_ray

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


def started(folder) -> int:
    return len(list(folder.glob("started-*")))


def test_every_item_once_and_start_once_per_process(tmp_path):
    found = dict(map_in_processes(partial(Doubler, tmp_path), range(40), 2))
    assert found == {number: 2 * number for number in range(40)}
    assert started(tmp_path) == 2 and multiprocessing.active_children() == []


def test_no_more_processes_than_items(tmp_path):
    assert list(map_in_processes(partial(Doubler, tmp_path), [7], 5)) == [(7, 14)]
    assert started(tmp_path) == 1
    assert list(map_in_processes(partial(Doubler, tmp_path), [], 5)) == []


def test_a_killed_process_loses_nothing(tmp_path):
    found = dict(map_in_processes(partial(Doubler, tmp_path, deadly=3), range(6), 2))
    assert found == {number: 2 * number for number in range(6)}
    assert (tmp_path / "died").exists() and started(tmp_path) in (2, 3)


def test_an_item_that_kills_every_process_is_named_and_the_others_are_done(tmp_path):
    found = dict(map_in_processes(partial(Doubler, tmp_path, deadly=1, always=True), range(4), 1))
    died = found.pop(1)
    assert isinstance(died, WorkerDied) and "ended by SIGKILL" in str(died)
    assert found == {0: 0, 2: 4, 3: 6} and started(tmp_path) == 3  # one, and one more for each death


def test_an_error_of_the_start_is_raised_as_it_was():
    with pytest.raises(ValueError, match="got no weights, expected some"):
        list(map_in_processes(fail_to_start, [1, 2], 1))


def test_an_error_of_the_work_is_raised():
    with pytest.raises(ZeroDivisionError, match="ours at 1"):
        list(map_in_processes(start_to_fail, [1], 1))


def test_stopping_early_lets_processes_tidy_up(tmp_path):
    results = map_in_processes(partial(Doubler, tmp_path, slow=2), [1, 2], 1)
    assert next(results) == (1, 2)
    with pytest.raises(TimeoutError):  # asks for the slow one, as Ctrl-C would find the map
        interrupt_when(tmp_path / "begun", results)
    assert (tmp_path / "tidied").exists() and multiprocessing.active_children() == []


def interrupt_when(marker, results) -> None:
    import signal

    def check(*_):
        if marker.exists():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise TimeoutError

    before = signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        next(results)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_processes_share_the_cores_and_keep_what_the_user_set(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    share = max(1, len(os.sched_getaffinity(0)) // 2) if hasattr(os, "sched_getaffinity") else None
    found = dict(map_in_processes(partial(partial, os.getenv), ["OMP_NUM_THREADS", "HOME"], 2))
    assert share is None or found["OMP_NUM_THREADS"] == str(share)
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert dict(map_in_processes(partial(partial, os.getenv), ["OMP_NUM_THREADS", "A"], 2))["OMP_NUM_THREADS"] == "3"


def test_without_ray_the_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[ray\]'"):
        next(map_on_ray(fail_to_start, [1]))
