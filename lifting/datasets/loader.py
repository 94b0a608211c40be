"""Batches made ahead of their use, in order, by threads or processes."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from lifting.datasets.windows import Batch, Windows

if TYPE_CHECKING:
    import torch

AHEAD = 2
"""Batches that wait for their use, beside those that the workers are making."""

_windows: Windows | None = None  # of a worker process


def prefetch(windows: Windows, positions: Iterable[int], *, workers: int = 1, rank: int = 0, world: int = 1,
             device: str | torch.device | None = None) -> Generator[Batch, None, None]:
    """Yield `windows.batch_at(position, rank, world)` for each position, in order, made ahead by `workers`.

    The workers are threads where the frames are in memory (numpy copies them without holding up Python), else processes
    (HDF5 reads one range at a time in each). At most workers + 2 batches exist before they are asked for; 0 workers
    make each when it is. `positions` may be endless and begin anywhere: a run resumes with ``count(position)``.

    `device` gives torch tensors there instead of numpy arrays; copies to a GPU come from pinned memory and do not
    wait. The workers start with the first batch and end with the generator: when it is used up, closed or raises, and
    on Ctrl-C.

    Raises what `Windows.batch_at` does, when that batch's turn comes; OSError when a worker process died; ValueError
    for a negative number of workers.
    """
    if workers < 0:
        raise ValueError(f"got {workers} workers, expected 0 or more; 1 is enough for most models.")
    if device is None:
        return _batches(windows, positions, workers, rank, world, None)
    device = _numbered(device)
    return _moved(_batches(windows, positions, workers, rank, world, device), device)


def _batches(windows: Windows, positions: Iterable[int], workers: int, rank: int, world: int,
             device: torch.device | None) -> Generator[Batch, None, None]:
    """The batches, by the workers that suit the windows; those of threads are prepared for the device."""
    make = partial(_make, windows, rank, world, device)
    if workers == 0:
        yield from map(make, positions)
    elif windows.in_memory:
        yield from _in_order(ThreadPoolExecutor(workers, "batches"), make, positions, workers)
    else:
        spawn = get_context("spawn")  # fork is not safe beside threads and CUDA
        processes = ProcessPoolExecutor(workers, spawn, _start_process, (windows,))
        yield from _in_order(processes, partial(_make_in_process, rank, world), positions, workers)


def _make(windows: Windows, rank: int, world: int, device: torch.device | None, position: int) -> Batch:
    batch = windows.batch_at(position, rank, world)
    return batch if device is None else batch.map(partial(_as_tensor, device))


def _start_process(windows: Windows) -> None:
    global _windows
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    _windows = windows


def _make_in_process(rank: int, world: int, position: int) -> Batch:
    return _windows.batch_at(position, rank, world)


def _in_order(executor: Executor, make: Callable[[int], Batch], positions: Iterable[int],
              workers: int) -> Generator[Batch, None, None]:
    waiting: deque[Future[Batch]] = deque()
    try:
        for position in positions:
            waiting.append(executor.submit(make, position))
            if len(waiting) == workers + AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenExecutor:
        raise OSError("a process that reads training data died, perhaps for want of memory; use fewer workers or "
                      "smaller batches.") from None
    finally:
        executor.shutdown(cancel_futures=True)


def _numbered(name: str | torch.device) -> torch.device:
    """The device, a GPU by its number: threads do not share which one is current."""
    import torch

    device = torch.device(name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return device


def _as_tensor(device: torch.device, array: Any) -> torch.Tensor:
    """An array as a CPU tensor without a copy or, for a GPU, in pinned memory; tensors pass through."""
    import torch

    if isinstance(array, torch.Tensor):
        return array
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor
    with torch.cuda.device(device):
        return tensor.pin_memory()


def _moved(batches: Generator[Batch, None, None], device: torch.device) -> Generator[Batch, None, None]:
    def move(array: Any) -> torch.Tensor:
        return _as_tensor(device, array).to(device, non_blocking=True)

    with closing(batches):
        for batch in batches:
            yield batch.map(move)
