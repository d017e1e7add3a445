"""Threads for kernels, with one thread of BLAS each.

BLAS's own threads divide each product, and wait for the next one while a single thread does all that lies between; and
they wait by spinning, so that no other thread has their core. Large passes hold BLAS to one thread instead, and divide
all of the work: `share_out` runs a part of it in each thread.

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
from contextvars import ContextVar
from typing import Any, TypeVar

Result = TypeVar("Result")

_free: ContextVar[int] = ContextVar("nezha_np_free_threads", default=1)  # that this thread may divide its work among


class BlasThreads:
    """The one change of BLAS's threads that all passes share.

    Examples
    --------
    >>> threads = BlasThreads()
    >>> with threads.held_to_one() as count:  # BLAS has one thread here, and work may be divided among `count`
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
        token = _free.set(share)
        try:
            yield share
        finally:
            _free.reset(token)
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


def share_out(most: int, run: Callable[[int, int], Result]) -> list[Result]:
    """Divide work among the threads that are free here, into `most` parts at most.

    Parameters
    ----------
    most : int
        How many parts are worth a thread.
    run : callable
        ``run(part, parts)`` does one of them. Each runs in a copy of the caller's context (np.errstate is in it), the
        first one in this thread.

    Returns
    -------
    list
        What each part returned. What one raises is raised when all have ended.

    Examples
    --------
    >>> share_out(4, lambda part, parts: (part, parts))  # nothing is free outside of `BlasThreads.held_to_one`
    [(0, 1)]
    """
    parts = min(_free.get(), most)
    if parts < 2:
        return [run(0, 1)]
    from concurrent.futures import ThreadPoolExecutor  # here: a short pass does without, and its import takes 10 ms

    token = _free.set(_free.get() // parts)
    try:
        with ThreadPoolExecutor(parts - 1) as executor:
            others = [executor.submit(contextvars.copy_context().run, run, part, parts) for part in range(1, parts)]
            return [run(0, parts), *(other.result() for other in others)]
    finally:
        _free.reset(token)


def part_of(length: int, part: int, parts: int) -> slice:
    """Return the part of an axis.

    Examples
    --------
    >>> [part_of(7, part, 3) for part in range(3)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """
    return slice(length * part // parts, length * (part + 1) // parts)
