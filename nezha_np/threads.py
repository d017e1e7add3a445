"""Threads for kernels, with one thread of BLAS each.

BLAS's own threads divide each product. While a single thread computes what lies between two products they wait by
spinning, and occupy their cores. So a large pass holds BLAS to one thread and divides all of the work itself:
`share_out` runs a part of it in each thread. The threads are started by the first work that needs them and wait for
more until the pass ends: to start a thread takes several times as long as to wake one, and a pass divides hundreds of
layers.

How many threads BLAS may use is one number for the whole process. Two changes that overlap would restore it in the
wrong order and leave BLAS at one thread for good: so passes that overlap share one change, and the last to leave undoes
it. The number is read and set by threadpoolctl; without it, or where it does not know the BLAS, nothing is divided.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

_free: ContextVar[int] = ContextVar("nezha_np_free_threads", default=1)  # that this thread may divide its work among


class Workers:
    """Threads that take work until they are closed.

    Examples
    --------
    >>> workers = Workers()
    >>> done = []
    >>> ended = workers.run(lambda: done.append("work"))
    >>> ended.get()
    >>> done
    ['work']
    >>> workers.close()
    """

    def __init__(self) -> None:
        self.process = os.getpid()  # a forked process has none of these threads
        self.idle: list[SimpleQueue[Any]] = []  # where a thread waits that has nothing to do
        self.started: list[tuple[SimpleQueue[Any], threading.Thread]] = []

    def run(self, work: Callable[[], None]) -> SimpleQueue[None]:
        """Have a thread do some work.

        Parameters
        ----------
        work : callable
            The work; it raises nothing.

        Returns
        -------
        SimpleQueue
            Gets None when the work has ended.

        Raises
        ------
        RuntimeError
            If no thread waits and none can be started.
        """
        try:
            tasks = self.idle.pop()
        except IndexError:
            tasks = SimpleQueue()
            thread = threading.Thread(target=self._wait_for_work, args=(tasks,), daemon=True)
            self.started.append((tasks, thread))  # first: an interruption must not hide a thread that is to end
            thread.start()
        ended: SimpleQueue[None] = SimpleQueue()
        tasks.put((work, ended))
        return ended

    def _wait_for_work(self, tasks: SimpleQueue[Any]) -> None:
        while (task := tasks.get()) is not None:
            work, ended = task
            work()
            del task, work  # and the arrays that it holds
            self.idle.append(tasks)
            ended.put(None)

    def close(self) -> None:
        """End all threads, each after the work that it does; what was interrupted can be done again."""
        for tasks, _ in self.started:
            tasks.put(None)
        for _, thread in self.started:
            with suppress(RuntimeError):  # it was not started, or was interrupted while it was
                thread.join()


_workers: ContextVar[Workers | None] = ContextVar("nezha_np_workers", default=None)  # of the pass that is under way


class BlasThreads:
    """The one change of BLAS's threads that all passes share.

    A pass may be interrupted at any moment: by Ctrl-C, which Python answers wherever the main thread calls or enters a
    function. So what undoes a change is noted before the change and dropped after it is undone, and may be done twice.
    A pass that an interruption has kept from leaving counts no more once nothing refers to it, and the next one undoes
    what it has left.

    Examples
    --------
    >>> threads = BlasThreads()
    >>> with threads.held_to_one() as count:  # BLAS has one thread here, and work may be divided among `count`
    ...     count >= 1
    True
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._passes: weakref.WeakSet[_Pass] = weakref.WeakSet()  # that are under way
        self._before: list[tuple[Any, int]] = []  # the libraries that are held, and their threads before

    def held_to_one(self) -> AbstractContextManager[int]:
        """Hold BLAS to one thread, if that can be done; the value is the caller's share of the threads that it had."""
        return _Pass(self)

    def held_in_a_pass(self) -> AbstractContextManager[object]:
        """Hold BLAS to one thread for a single product; in a pass, which has seen to it, change nothing."""
        return self.held_to_one() if _workers.get() is None else nullcontext()

    def enter(self, this: _Pass) -> int:
        """Count a pass, hold BLAS to one thread if it is the first, and return its share of the threads."""
        with self.lock:
            if not self._passes:
                self._restore()  # what an interrupted pass has left
                self._hold()
            self._passes.add(this)
            threads = min((count for _, count in self._before), default=1)
            return max(1, threads // len(self._passes))

    def leave(self, this: _Pass) -> None:
        """Count a pass no more, and give BLAS its threads back if it was the last; twice is as good as once."""
        with self.lock:
            self._passes.discard(this)
            if not self._passes:
                self._restore()

    def _hold(self) -> None:
        """Hold all libraries to one thread, where it can be done."""
        self._before = _counts()
        if min((count for _, count in self._before), default=1) > 1:
            _set_threads([(library, 1) for library, _ in self._before])
            if any(library.num_threads != 1 for library, _ in self._before):  # another owner has them
                self._restore()

    def _restore(self) -> None:
        _set_threads(self._before)
        self._before = []  # now, so that what was interrupted is done again

    def start_anew(self) -> None:
        """Undo the change in a forked process: the threads whose passes are under way do not exist there."""
        self.lock, self._passes = threading.Lock(), weakref.WeakSet()
        self._restore()


class _Pass(AbstractContextManager[int]):
    """A pass of `BlasThreads.held_to_one`. What is interrupted while it enters or leaves is undone all the same."""

    def __init__(self, blas: BlasThreads) -> None:
        self.blas, self.workers = blas, Workers()
        self.outside = _free.get(), _workers.get()

    def __enter__(self) -> int:
        try:
            share = self.blas.enter(self)
            _free.set(share)
            _workers.set(self.workers)
            return share
        except BaseException:
            self._leave()
            raise

    def __exit__(self, *error: object) -> None:
        try:
            self._leave()
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        ended = {self.workers, _workers.get()}  # a forked process has others
        free, workers = self.outside
        self.blas.leave(self)
        _free.set(free)
        _workers.set(workers)
        for one in ended - {workers, None}:  # last: it waits, and may be interrupted
            if one is not None and one.process == os.getpid():
                one.close()


@functools.cache
def _blas() -> Any:
    """Find the BLAS libraries of this process, NumPy's among them."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def _counts() -> list[tuple[Any, int]]:
    """Return all libraries with their threads, or nothing where those cannot be changed."""
    libraries = [] if _blas() is None else _blas().lib_controllers
    counts = [(library, library.num_threads) for library in libraries]
    # OpenMP's number is each thread's own: it would not hold in the threads that are started.
    if any(count is None or getattr(library, "threading_layer", "") == "openmp" for library, count in counts):
        return []
    return counts


def _set_threads(counts: list[tuple[Any, int]]) -> None:
    """Set the threads of libraries where they differ.

    Since threadpoolctl 3.8 the first thread to set them owns them for as long as it lives, and what others set is
    ignored: also where a program once set a limit in its main thread. A pass keeps to that limit, gives it back, and
    must own nothing afterwards: so it goes past the owner.
    """
    for library, count in counts:
        if library.num_threads != count:
            getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


BLAS_THREADS = BlasThreads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: BLAS_THREADS.lock.acquire(),
        after_in_parent=lambda: BLAS_THREADS.lock.release(),
        after_in_child=BLAS_THREADS.start_anew,
    )


def share_out(most: int, run: Callable[[int, int], Result]) -> list[Result]:
    """Divide work among the threads that are free here, into `most` parts at most.

    Parameters
    ----------
    most : int
        How many parts are worth a thread.
    run : callable
        ``run(part, parts)`` does one of them: the first one in this thread, the others in other threads and copies
        of its context (np.errstate is in it), or in this one too where no thread can be started.

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
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def work(part: int) -> None:
        try:
            results[part] = run(part, parts)
        except BaseException as error:
            errors.append(error)

    workers = _workers.get()
    if workers is None or workers.process != os.getpid():
        workers = Workers()
        _workers.set(workers)
    token = _free.set(_free.get() // parts)
    try:
        ended, here = [], [0]
        for part in range(1, parts):
            try:
                ended.append(workers.run(functools.partial(contextvars.copy_context().run, work, part)))
            except RuntimeError:  # a limit of threads, or an interpreter that is about to end
                here.append(part)
        for part in here:
            work(part)
        for queue in ended:
            queue.get()
    finally:
        _free.reset(token)
    if errors:
        raise errors[0]
    return [results[part] for part in range(parts)]


def part_of(length: int, part: int, parts: int) -> slice:
    """Return a part of an axis that is cut into parts of nearly the same size.

    Parameters
    ----------
    length : int
        The size of the axis.
    part, parts : int
        Which part, from 0, and how many there are.

    Returns
    -------
    slice
        The part.

    Examples
    --------
    >>> [part_of(7, part, 3) for part in range(3)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """
    return slice(length * part // parts, length * (part + 1) // parts)
