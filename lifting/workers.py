"""Maps a function over items in several processes, of this machine or of a Ray cluster, with start-up once in each.

Both maps take `start`, a picklable function without arguments that loads what is needed and returns the function to
map. A process that dies (out of memory, killed by an administrator) takes nothing with it: its item is given once more
to a fresh one, and comes back as a `WorkerDied` only if that dies too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar
from uuid import uuid4

Item, Result = TypeVar("Item"), TypeVar("Result")
Start = Callable[[], Callable[[Any], Any]]

TRIES = 2  # how often an item is given to a process before it counts as what kills them
SUBMITTED = 1000  # tasks that a cluster knows of at a time
STOP_SECONDS = 10.0  # that a process has to tidy up


class WorkerDied(Exception):
    """A process ended while it worked on an item; the text says how."""


def map_in_processes(start: Start, items: Sequence[Item], workers: int) -> Iterator[tuple[Item, Result | WorkerDied]]:
    """Yields each item with its result, in the order in which they are done, from `workers` processes.

    The cores are shared out among the processes unless OMP_NUM_THREADS is set. An error in `start` is raised; one in
    the function as well. When the iteration ends early (Ctrl-C), the processes are told to stop, undo what they have
    begun, and are waited for.
    """
    workers = min(workers, len(items)) or 1
    threads = max(1, available_cores() // workers)
    waiting, tries, team = deque(items), Counter(), []
    try:
        while waiting or any(worker.busy for worker in team):
            while waiting and len(team) < workers:
                team.append(_Worker(start, threads))
            for worker in team:
                if waiting and not worker.busy:
                    worker.give(waiting.popleft())
            for worker in _ready(team):
                item = worker.item
                try:
                    yield item, worker.take()
                except WorkerDied as died:
                    team.remove(worker)
                    tries[id(item)] += 1
                    if tries[id(item)] < TRIES:
                        waiting.appendleft(item)
                    else:
                        yield item, died
    finally:
        for worker in team:
            worker.tell_to_stop()
        for worker in team:
            worker.wait_until_gone()


def _ready(team: Sequence[_Worker]) -> list[_Worker]:
    """The busy workers that have an answer, or are dead; waits for the first."""
    answered = wait([worker.connection for worker in team if worker.busy])
    return [worker for worker in team if worker.connection in answered]


class _Worker:
    """A process that takes one item at a time through a pipe."""

    def __init__(self, start: Start, threads: int) -> None:
        context = multiprocessing.get_context("spawn")  # torch and its threads do not survive a fork
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, start), daemon=True)
        self.item, self.busy = None, False
        with _default_environment(OMP_NUM_THREADS=str(threads)), _no_interrupts():
            self._process.start()
        theirs.close()

    def give(self, item: object) -> None:
        self.item, self.busy = item, True
        with suppress(OSError):  # a process that is gone shows when its answer is taken
            self.connection.send(item)

    def take(self) -> object:
        """The result for the item; WorkerDied when the process is gone, and its own error if it could not work."""
        try:
            error, result = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise WorkerDied(f"the process that worked on it {_how_it_ended(self._process.exitcode)}") from None
        self.item, self.busy = None, False
        if error is not None:
            raise error
        return result

    def tell_to_stop(self) -> None:
        self.connection.close()
        if self.busy:
            self._process.terminate()

    def wait_until_gone(self) -> None:
        self._process.join(STOP_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was ended by {name}, perhaps for want of memory"
    return f"ended with exit code {code}"


@contextmanager
def _default_environment(**values: str) -> Iterator[None]:
    """Sets variables that are not set, for the processes that the block starts."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Lets processes started in the block be deaf to Ctrl-C, which a terminal sends to all: the parent stops them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, start: Start) -> None:
    """Works on items until the pipe is closed. Ended by SIGTERM it still runs the clean-up of what it is in."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    work = None
    with suppress(EOFError, OSError):  # the parent is gone, or needs no more
        while True:
            item = connection.recv()
            try:
                work = work or start()
                answer = None, work(item)
            except Exception as error:
                answer = error, None
            connection.send(answer)


def map_on_ray(start: Start, items: Sequence[Item]) -> Iterator[tuple[Item, Result | WorkerDied]]:
    """As `map_in_processes`, by the workers of a Ray cluster, one core each, which must see the same files.

    The cluster is the one that is connected to, that RAY_ADDRESS names or that runs on this machine, else one is
    started here for as long as the iteration lasts. Raises ImportError without Ray, ConnectionError without a cluster.
    """
    try:
        import ray
    except ImportError:
        raise ImportError("the engine 'ray' needs Ray: pip install '.[ray]' in a clone of lift") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(logging_level="error", log_to_driver=False, include_dashboard=False)
    call = ray.remote(num_cpus=1, max_retries=TRIES - 1)(_call)
    token, start, rest, pending = uuid4().hex, ray.put(start), iter(items), {}
    try:
        while True:
            for item in islice(rest, SUBMITTED - len(pending)):
                pending[call.remote(token, start, item)] = item
            if not pending:
                return
            (reference,), _ = ray.wait(list(pending), num_returns=1)
            yield pending.pop(reference), _result_of(reference)
    finally:
        for reference in pending:
            ray.cancel(reference)
        if ours:
            ray.shutdown()


def _result_of(reference: object) -> object:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RaySystemError as error:
        reason = " ".join(str(error).split(" traceback:")[0].split())
        raise OSError(f"the Ray cluster's workers cannot run lift ({reason}); install it on all machines") from None
    except ray.exceptions.RayError as error:
        return WorkerDied(f"the Ray worker was lost {TRIES} times: {str(error).splitlines()[0]}")


_STARTED: dict[str, Callable] = {}


def _call(token: str, start: Start, item: object) -> object:
    """Works on an item in a Ray worker, which keeps what `start` loaded for its next items."""
    if token not in _STARTED:
        _STARTED.clear()
        _STARTED[token] = start()
    return _STARTED[token](item)


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
