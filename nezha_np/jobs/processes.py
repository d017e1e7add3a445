"""The workers of a job on one machine: processes that compute one shard after the other.

Each is a new interpreter, which imports NumPy with one thread of BLAS. It is asked for one shard at a time, so nothing
waits in a queue. One that is killed is replaced, and its shard is computed again: this is why the processes are started
here and not by `multiprocessing`, whose pool breaks then.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

TRIES = 3  # how often a shard is begun whose worker is killed
PATIENCE = 5.0  # seconds in which a worker that is asked to end may do it
# A process for each core, with one thread each.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "RAYON_NUM_THREADS",
    ),
    "1",
)
# The first line is where modules are found: a notebook or a test may have changed it.
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); from nezha_np.jobs.worker import main; main()"
)
Hear = Callable[[int, dict[str, Any]], object]


def run_in_processes(numbers: Sequence[int], job: dict[str, Any], workers: int, hear: Hear) -> None:
    """Have workers compute shards.

    Parameters
    ----------
    numbers : sequence of int
        The shards.
    job : dict
        What each worker is told first.
    workers : int
        How many processes.
    hear : callable
        Is called with the number of a shard and what a worker says of it, in this thread. If it raises, all workers
        are ended. A worker that has died says ``{"died": status, "tries": count, "last": whether none is left}``.

    Raises
    ------
    OSError
        If no process can be started.
    """
    pool = _Pool(collections.deque(numbers), job)
    threads = [threading.Thread(target=pool.drive, daemon=True) for _ in range(min(workers, len(numbers)))]
    try:
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            try:
                said = pool.said.get(timeout=1.0)  # Windows answers Ctrl-C only between two waits
            except queue.Empty:
                continue
            if said is None:
                left -= 1
            else:
                hear(*said)
    finally:
        pool.end()
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join(PATIENCE)


class _Pool:
    """What the threads of a job share, each of which drives one worker."""

    def __init__(self, waiting: collections.deque[int], job: dict[str, Any]) -> None:
        self.waiting, self.job = waiting, job
        self.said: queue.SimpleQueue[tuple[int, dict[str, Any]] | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ended = False

    def drive(self) -> None:
        """Ask a worker for one shard after the other; replace it if it dies."""
        process: subprocess.Popen[bytes] | None = None
        try:
            while (number := self._next()) is not None:
                for tries in range(1, TRIES + 1):
                    process = process or self.begin(number)
                    if process is None:
                        return
                    if self.ask(process, number):
                        break
                    self.said.put((number, {"died": process.wait(), "tries": tries, "last": tries == TRIES}))
                    process = None
        finally:
            if process is not None:
                _close(process)
            self.said.put(None)

    def _next(self) -> int | None:
        try:
            return self.waiting.popleft()
        except IndexError:
            return None

    def begin(self, number: int) -> subprocess.Popen[bytes] | None:
        """Start a worker, unless the job has ended."""
        with self.lock:
            if self.ended:
                return None
            try:
                process = start_worker()
            except OSError as error:
                self.said.put((number, {"error": "OSError", "message": f"workers: none can be started: {error}"}))
                return None
            self.processes.append(process)
        with contextlib.suppress(OSError):  # it has died: the first question finds out
            _tell(process, [str(place) for place in sys.path])
            _tell(process, self.job)
        return process

    def ask(self, process: subprocess.Popen[bytes], number: int) -> bool:
        """Have a worker compute a shard; return whether it came to an end of it, good or bad."""
        assert process.stdout is not None
        try:
            _tell(process, number)
            for line in process.stdout:
                said = json.loads(line)
                self.said.put((number, said))
                if "done" in said or "error" in said:
                    return True
        except (OSError, ValueError):  # a line that is cut where the worker was killed
            pass
        _close(process)
        return False

    def end(self) -> None:
        """End all workers: those that have nothing to do are gone already."""
        with self.lock:
            self.ended = True
            self.waiting.clear()
        alive = [process for process in self.processes if process.poll() is None]
        for process in alive:
            process.terminate()
        for process in alive:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_worker() -> subprocess.Popen[bytes]:
    """Start the process of a worker, which waits to be asked.

    Returns
    -------
    Popen
        The process. It is not in the group of this one where Ctrl-C reaches a whole group.
    """
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | ONE_THREAD,
        process_group=0,  # not a new session: Linux may share out a busy machine by sessions, and a worker would starve
    )


def _tell(process: subprocess.Popen[bytes], what: Any) -> None:
    assert process.stdin is not None
    process.stdin.write((json.dumps(what) + "\n").encode())
    process.stdin.flush()


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes of a worker, which ends it, and wait for it."""
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what it was told last could not be written
            if pipe is not None:
                pipe.close()
    process.wait()
