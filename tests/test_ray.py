"""The Ray engine on a cluster of this machine: nothing is lost when a worker is killed half way."""

from __future__ import annotations

import os
import sys
from functools import partial

import pytest
from filmed_walker import filmed
from worked_items import Doubler, fail_to_start

from lifting.batch import FAILED, LIFTED, SKIPPED, plan_jobs, run_batch
from lifting.detectors.files import write_keypoints
from lifting.workers import WorkerDied, map_on_ray

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster():
    """A local cluster of two cores, whose workers are not deferential: Ray's are by default."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_worker_niceness", "0")
    patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of its workers
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()
    patch.undo()


def test_a_ray_worker_killed_half_way_loses_nothing(cluster, tmp_path):
    found = dict(map_on_ray(partial(Doubler, tmp_path, deadly=3), range(8)))
    assert found == {number: 2 * number for number in range(8)}
    assert (tmp_path / "died").exists()
    assert ray.is_initialized()  # it was not ours to end


def test_on_ray_a_deadly_item_is_named_and_the_others_are_done(cluster, tmp_path):
    found = dict(map_on_ray(partial(Doubler, tmp_path, deadly=1, always=True), range(4)))
    died = found.pop(1)
    assert isinstance(died, WorkerDied) and "lost 2 times" in str(died)
    assert found == {0: 0, 2: 4, 3: 6}


def test_on_ray_an_error_of_the_start_is_raised_as_it_was(cluster):
    with pytest.raises(ValueError, match="^got no weights, expected some; give them$"):
        list(map_on_ray(fail_to_start, [1]))


def test_files_are_lifted_resumed_and_fail_on_their_own(cluster, tmp_path, tiny_weights):
    for number in range(3):
        write_keypoints(tmp_path / f"walk{number}.npz", filmed(12))
    (tmp_path / "broken.csv").write_text("no keypoints")
    jobs, options = plan_jobs(keypoints=tmp_path, output=[f"{tmp_path}/out/{{name}}.npz"]), {"weights": tiny_weights}
    found = {outcome.job.name: outcome.status for outcome in run_batch(jobs, options, engine="ray")}
    assert found == {"walk0": LIFTED, "walk1": LIFTED, "walk2": LIFTED, "broken": FAILED}
    assert [outcome.status for outcome in run_batch(jobs[1:], options, engine="ray")] == [SKIPPED] * 3
