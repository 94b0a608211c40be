"""How many threads the linear algebra of the fit may use."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext


def one_blas_thread() -> AbstractContextManager:
    """Return a context in which BLAS uses one thread, where threadpoolctl is installed; else one that does nothing.

    The matrices of the fit are small: a second thread gains nothing, and on a busy machine it waits for a processor
    that others use, which makes the fit several times slower.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return nullcontext()
    return threadpool_limits(limits=1, user_api="blas")
