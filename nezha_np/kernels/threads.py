"""Threads for kernels, each with one thread of BLAS.

BLAS's own threads divide each product, and wait for the next one while a single thread does all that lies between.
Where a batch can be divided instead, each thread does a part of all of it, with BLAS held to one thread each.

How many threads BLAS may use is one number for the whole process. Two changes that overlap would restore it in the
wrong order and leave BLAS at one thread for good: so passes that overlap share one change, and the last to leave undoes
it. The number is read and set by threadpoolctl; without it, or where it does not know the BLAS, nothing is divided.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")


class BlasThreads:
    """The one change of BLAS's threads that all passes share.

    Examples
    --------
    >>> threads = BlasThreads()
    >>> with threads.held_to_one() as count:  # BLAS has one thread here, and `count` threads may be started
    ...     count >= 1
    True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passes = 0  # that are under way
        self._threads = 1  # that BLAS had before the first of them
        self._change: Any = None  # what undoes it

    @contextmanager
    def held_to_one(self) -> Iterator[int]:
        """Hold BLAS to one thread; the value is the caller's share of the threads that it had."""
        with self._lock:
            if not self._passes:
                self._hold()
            self._passes += 1
            share = max(1, self._threads // self._passes)
        try:
            yield share
        finally:
            with self._lock:
                self._passes -= 1
                if not self._passes and self._change is not None:
                    self._change.restore_original_limits()
                    self._change = None

    def _hold(self) -> None:
        libraries = _blas()
        counts = [] if libraries is None else [library.num_threads for library in libraries.lib_controllers]
        self._threads = min(counts, default=1)
        if self._threads > 1:
            self._change = libraries.limit(limits=1)

    def forget(self) -> None:
        """Start anew in a forked process, where the threads that had a pass under way do not exist."""
        change = self._change
        self.__init__()  # type: ignore[misc]
        if change is not None:
            change.restore_original_limits()


@functools.cache
def _blas() -> Any:
    """Find the BLAS libraries of this process, NumPy's among them."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


BLAS_THREADS = BlasThreads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BLAS_THREADS.forget)


def run_together(tasks: list[Callable[[], Result]]) -> list[Result]:
    """Run functions at the same time, the first one in this thread; what one raises is raised when all have ended.

    Examples
    --------
    >>> run_together([lambda: 1, lambda: 2])
    [1, 2]
    """
    from concurrent.futures import ThreadPoolExecutor  # here: a short pass does without, and its import takes 10 ms

    first, *others = tasks
    with ThreadPoolExecutor(
        len(others)
    ) as executor:  # each runs in a copy of the caller's context: np.errstate is in it
        futures = [executor.submit(contextvars.copy_context().run, task) for task in others]
        return [first(), *(future.result() for future in futures)]
