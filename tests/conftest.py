"""Settings of all tests."""

import pytest
from filmed_walker import write_tiny_weights
from hypothesis import settings

# A busy machine must not fail a property by its clock; derandomised so that every run tests the same examples.
settings.register_profile("lift", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("lift")


@pytest.fixture(scope="module")
def one_thread():
    """Threads of tiny operations wait for each other: on a busy machine, two take a hundred times longer than one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """A weight file of a lifter that is quick and knows nothing."""
    return write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def tiny_lifter(tiny_weights):
    """That lifter, loaded."""
    from lifting.predict import Lifter

    return Lifter.load(tiny_weights)
