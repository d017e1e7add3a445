"""The workers of a job on many machines: those of a Dask scheduler that is running.

Each is asked for one shard at a time, by its number and a few paths: texts, weights and results go through the storage
that all machines share, and not through the scheduler. A shard whose worker is killed is given to another one by Dask.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import importlib
import logging
import os
import queue
import socket
import threading
import time
import urllib.parse
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nezha_np.jobs.compute import compute_shard
from nezha_np.jobs.manifest import Manifest
from nezha_np.jobs.processes import Hear
from nezha_np.jobs.tasks import Task
from nezha_np.jobs.worker import describe_error, open_job
from nezha_np.text.defaults import load_tokenizer_once

SCHEMES = ("tcp", "tls")
CONNECT_SECONDS = 10.0  # for a scheduler to answer
ASKED = 2  # shards that are asked for, for each thread of the workers: one is computed, one waits for its turn
REPORT_SECONDS = 1.0  # between two reports of a shard
KEPT = 2  # jobs whose model a worker keeps
# What a worker is asked. A function of this package would be imported while the message is read, by the scheduler too;
# and a worker that cannot read a message dies of it, and so does the next one.
BY_NAME = "__import__('nezha_np.jobs.cluster', fromlist=['']).compute_on_worker(job, number)"

_lock = threading.Lock()
_opened: dict[str, tuple[Task, Manifest]] = {}  # in a worker: the last jobs


# ------------------------------------------------------------------------------------------------------- in the driver


def check_address(address: str) -> None:
    """Check that a scheduler answers at an address.

    Parameters
    ----------
    address : str
        Such as ``"tcp://host:8786"``.

    Raises
    ------
    ModuleNotFoundError
        If Dask is missing.
    OSError
        If none answers.
    ValueError
        If it is no address.
    """
    _distributed()
    parts = urllib.parse.urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number
        host = port = None
    if parts.scheme not in SCHEMES or not host or not port:
        raise ValueError(f"cluster: expected the address of a Dask scheduler, such as tcp://host:8786, got {address!r}")
    try:
        with socket.create_connection((host, port), CONNECT_SECONDS) as connection:
            # A scheduler speaks first. Dask would wait for a server that does not without an end.
            if parts.scheme == "tcp" and not connection.recv(1):
                raise ConnectionError("what is there says nothing")
    except OSError as error:
        raise _no_scheduler(address, error) from None


def run_on_cluster(numbers: Sequence[int], job: dict[str, Any], address: str, hear: Hear) -> None:
    """Have the workers of a Dask scheduler compute shards.

    Parameters
    ----------
    numbers : sequence of int
        The shards.
    job : dict
        What each worker is told with each shard; "run" is a name that no other run of a job has.
    address : str
        The scheduler.
    hear : callable
        Is called with the number of a shard and what a worker says of it, in this thread. If it raises, what was asked
        for and not begun is cancelled; a shard that was begun is computed to its end.

    Raises
    ------
    OSError
        If the scheduler cannot be reached, or is lost.
    """
    said: queue.SimpleQueue[tuple[int, dict[str, Any] | None]] = queue.SimpleQueue()
    waiting, asked = collections.deque(numbers), dict[int, Any]()
    with _connected(address) as client:
        client.subscribe_topic(_topic(job), lambda event: said.put(event[1]))
        if not client.nthreads():
            warnings.warn(f"{address}: this scheduler has no workers yet: the job waits for them", stacklevel=4)
        try:
            while waiting or asked:
                most = ASKED * max(sum(client.nthreads().values()), 1) if waiting else 0
                while waiting and len(asked) < most:
                    number = waiting.popleft()
                    asked[number] = client.submit(
                        eval, BY_NAME, {"job": job, "number": number}, key=f"nezha_np-{job['run']}-{number}", pure=False
                    )
                    asked[number].add_done_callback(lambda _, number=number: said.put((number, None)))
                for number, what in _heard(said):
                    if number not in asked:  # a report that was overtaken by the end of its shard
                        continue
                    if what is not None:
                        hear(number, what)
                        continue
                    for one in _results(asked.pop(number)):
                        hear(number, one)
                if client.status != "running":
                    raise ConnectionError("the connection to it is lost")
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be what is gone
                client.cancel(list(asked.values()))


def _heard(said: queue.SimpleQueue[Any]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield what was said since, if anything was within a second."""
    with contextlib.suppress(queue.Empty):
        yield said.get(timeout=1.0)
        while True:
            yield said.get_nowait()


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to a scheduler; what goes wrong with it is an OSError that names it."""
    distributed = _distributed()
    log = logging.getLogger("distributed.client")
    before = log.level
    log.setLevel(logging.CRITICAL)  # an error here says what is wrong, in one line
    try:
        with distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="nezha_np") as client:
            yield client
    except (TimeoutError, ConnectionError, distributed.core.CommClosedError) as error:
        raise _no_scheduler(address, error) from None
    finally:
        log.setLevel(before)


def _no_scheduler(address: str, error: OSError) -> ConnectionError:
    what = error.strerror or str(error) or type(error).__name__
    return ConnectionError(f"cluster: expected a Dask scheduler that answers at {address}, got none: {what}")


def _results(future: Any) -> list[dict[str, Any]]:
    """Return what the task of a shard said at its end; what Dask says of it, if it had none."""
    distributed = _distributed()
    try:
        return list(future.result())
    except distributed.scheduler.KilledWorker as error:
        return [{"died": None, "tries": error.allowed_failures + 1, "last": True}]
    except (concurrent.futures.CancelledError, distributed.client.FutureCancelledError):
        raise ConnectionError("it has cancelled the job") from None
    except (ImportError, AttributeError) as error:
        what = "cluster: expected nezha_np on each worker, as it is here, got one that lacks it"
        return [{"error": "ImportError", "message": f"{what}: {error}"}]


def _topic(job: dict[str, Any]) -> str:
    return f"nezha_np-{job['run']}"


def _distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('cluster: needs Dask: pip install "nezha-np[cluster]"', name="distributed") from error


# --------------------------------------------------------------------------------------------------------- in a worker


def compute_on_worker(job: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Compute a shard in a worker of Dask; what goes wrong is returned and not raised, so that Dask keeps no traceback.

    Parameters
    ----------
    job : dict
        As `run_on_cluster` takes it.
    number : int
        Which shard.

    Returns
    -------
    list of dict
        What is said of it at its end, as `nezha_np.jobs.worker` says it.
    """
    reports = _Reports(_distributed().get_worker(), _topic(job), number)
    try:
        task, manifest = _open_once(job, reports.worker.address)
        compute_shard(
            task,
            Path(job["source"]),
            Path(job["out"]),
            manifest,
            number,
            named=job["named"],
            record=job["record"],
            report=reports.add,
        )
        return [{"lines": reports.lines, "cut": reports.cut}, {"done": number}]
    except Exception as error:
        return [describe_error(error)]


def _open_once(job: dict[str, Any], address: str) -> tuple[Task, Manifest]:
    """Open a job, unless this process has it open: its model is loaded once."""
    with _lock, _at(address):
        if job["run"] not in _opened:
            for what in ("source", "out", "model", "shared"):
                if job[what] is not None and not os.path.exists(job[what]):
                    raise FileNotFoundError(
                        f"{job[what]}: expected the {what} of the job, under the same path on every machine, found none"
                    )
            _check_threads()
            load_tokenizer_once.cache_clear()  # an earlier job may have read another one, under the same path
            found = open_job(job)
            while len(_opened) >= KEPT:
                del _opened[next(iter(_opened))]
            _opened[job["run"]] = found
        return _opened[job["run"]]


@contextlib.contextmanager
def _at(address: str) -> Iterator[None]:
    """Have an error name the worker: it is of its machine, and of none of the lines."""
    try:
        yield
    except (OSError, ImportError, ValueError) as error:
        kind = next(kind for kind in (FileNotFoundError, OSError, ImportError, ValueError) if isinstance(error, kind))
        raise kind(f"worker {address}: {error}") from error


def _check_threads() -> None:
    """Check that BLAS has one thread: with more it may add up in another order, and the results would differ."""
    with contextlib.suppress(ImportError):
        import threadpoolctl

        counts = [
            library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"
        ]
        if any(count != 1 for count in counts):
            raise ValueError(
                f"expected one thread of BLAS, so that all workers compute the same bits, got {max(counts)}: set "
                "OMP_NUM_THREADS=1 and OPENBLAS_NUM_THREADS=1 before the worker starts"
            )


class _Reports:
    """The lines that are done since the last report, which is sent through the scheduler at most once a second."""

    def __init__(self, worker: Any, topic: str, number: int) -> None:
        self.worker, self.topic, self.number = worker, topic, number
        self.lines, self.last = 0, time.monotonic()
        self.cut: str | None = None
        self._say({"begun": number})  # it may have been begun before, by a worker that was killed

    def add(self, lines: int, cut: str | None) -> None:
        self.lines, self.cut = self.lines + lines, self.cut or cut
        if time.monotonic() - self.last >= REPORT_SECONDS:
            self._say({"lines": self.lines, "cut": self.cut})
            self.lines, self.cut, self.last = 0, None, time.monotonic()

    def _say(self, what: dict[str, Any]) -> None:
        self.worker.log_event(self.topic, (self.number, what))
