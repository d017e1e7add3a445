"""The process of a worker: it computes the shards that it is asked for, until nobody asks any more.

It is asked by lines of JSON on standard input, and answers so on standard output: for each window how many lines are
done, and at the end of a shard that it is done, or why not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from nezha_np.jobs.compute import compute_shard
from nezha_np.jobs.manifest import NAME, Manifest, make_manifest, read_manifest
from nezha_np.jobs.tasks import Task, open_task
from nezha_np.signals import OF_SIGNALS, sent_again

REPORTED = (OSError, TypeError, ValueError, MemoryError, ImportError)


def main() -> None:
    """Compute shards until standard input ends. Its first line says of which job they are."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C comes to all processes, and the first one ends the others
    signal.signal(signal.SIGTERM, _end)
    if hasattr(signal, "SIGTTOU"):
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # what it prints comes from behind the terminal's own group
    warnings.simplefilter("ignore")  # the first process has warned of the same model
    answers = os.dup(1)
    os.dup2(2, 1)  # what is printed by mistake is no answer

    def answer(**said: Any) -> None:
        try:
            os.write(answers, (json.dumps(said) + "\n").encode())
        except OSError:  # who asked is gone: what it has left undone is removed on the way out
            sys.exit(1)

    try:
        with sent_again():
            _answer_all(answer)
    finally:
        # Nothing is left to be removed; while the interpreter ends, an exception of `_end` would be printed.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _answer_all(answer: Callable[..., None]) -> None:
    """Compute the shards whose numbers come, and say so."""
    job = json.loads(sys.stdin.readline())
    opened: tuple[Task, Manifest] | None = None
    for line in iter(sys.stdin.readline, ""):
        number = int(line)
        try:
            if opened is None:
                opened = open_job(job)
            compute_shard(
                opened[0],
                Path(job["source"]),
                Path(job["out"]),
                opened[1],
                number,
                record=job["record"],
                report=lambda lines, cut: answer(lines=lines, cut=cut),
            )
            answer(done=number)
        except Exception as error:
            answer(**describe_error(error))


def describe_error(error: Exception) -> dict[str, Any]:
    """Say what went wrong with a shard, in words that another process understands.

    Parameters
    ----------
    error : Exception
        The error. The traceback of one that is a mistake of this package is printed, to find its place.

    Returns
    -------
    dict
        "error", the name of a class, and "message".

    Examples
    --------
    >>> describe_error(ValueError("line 7: expected UTF-8"))
    {'error': 'ValueError', 'message': 'line 7: expected UTF-8'}
    """
    if not isinstance(error, REPORTED):
        traceback.print_exception(error)
    kind = next((kind for kind in REPORTED if isinstance(error, kind)), RuntimeError)
    return {"error": kind.__name__, "message": str(error) or type(error).__name__}


def open_job(job: dict[str, Any]) -> tuple[Task, Manifest]:
    """Load the model of a job, and check that it is the one that the job was begun with.

    Parameters
    ----------
    job : dict
        "task", "model", "input_format", "output_format", "options" and "out", as `nezha_np.run_corpus` takes them;
        "shared", as `nezha_np.jobs.tasks.open_task` takes it.

    Returns
    -------
    task : Task
        What is done.
    manifest : Manifest
        The job.

    Raises
    ------
    OSError, TypeError, ValueError, ImportError
        If the model cannot be loaded, or is another one.
    """
    out = Path(job["out"])
    manifest = read_manifest(out)
    if manifest is None:
        raise FileNotFoundError(f"{out / NAME}: expected the manifest of the job, found none")
    task = open_task(
        job["task"],
        job["model"],
        input_format=job["input_format"],
        output_format=job["output_format"],
        options=job["options"],
        shared=job["shared"],
    )
    made_with = make_manifest(task, manifest.shard_lines, manifest.shards).made_with
    if wrong := [key for key in made_with if made_with[key] != manifest.made_with.get(key)]:
        raise ValueError(
            f"{wrong[0]}: expected {manifest.made_with.get(wrong[0])!r}, which the job was begun with, "
            f"got {made_with[wrong[0]]!r} in a worker"
        )
    return task, manifest


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(OF_SIGNALS + number)  # what it has left undone is removed on the way out
