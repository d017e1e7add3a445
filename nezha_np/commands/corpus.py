"""The options of the commands that run over a corpus shard by shard, in several processes, and what they do."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from nezha_np.commands.exit_status import SUCCESS, Stopped, status_of

SUFFIXES = (".npy", ".safetensors", ".jsonl")  # of a file, where a folder is expected


def add_job_options(parser: argparse.ArgumentParser, *, restart: bool = True) -> None:
    """Add the options of a job; `restart`: also that, which a command may have already."""
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="compute in N processes, with one thread each; OUT is a folder then, of a file for each shard of FILE",
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="compute on the workers of the Dask scheduler at ADDRESS, such as tcp://host:8786; OUT is a folder then",
    )
    parser.add_argument(
        "--shard-lines", type=int, metavar="N", help="lines of a shard, where OUT is a folder (65536, in whole windows)"
    )
    parser.add_argument(
        "--on-error",
        choices=("stop", "record"),
        help="where OUT is a folder, what to do with a line that gives an error: stop, or note it in OUT/errors.jsonl "
        "and go on (stop)",
    )
    if restart:
        parser.add_argument(
            "--restart", action="store_true", help="begin anew, and throw away the job in the folder OUT"
        )


def is_job(options: argparse.Namespace, *, restart: bool = True) -> bool:
    """Say whether the output is the folder of a job; check that the options of jobs stand where they mean something.

    Parameters
    ----------
    options : argparse.Namespace
        The options of the command.
    restart : bool
        Whether ``--restart`` is one of them.

    Returns
    -------
    bool
        Whether it is.

    Raises
    ------
    ValueError
        If an option of a job is there without one.

    Examples
    --------
    >>> options = {"workers": None, "cluster": None, "shard_lines": None, "on_error": None, "restart": False}
    >>> [is_job(argparse.Namespace(**options, output=output)) for output in ("vectors.npy", "vectors/")]
    [False, True]
    """
    if options.workers is not None or options.cluster is not None or (options.output or "").endswith(("/", os.sep)):
        return True
    for name in ("shard_lines", "on_error", *(["restart"] if restart else [])):
        if getattr(options, name):
            raise ValueError(f"{name}: expected --workers, --cluster or an output that ends in / with it, got none")
    return False


def run_job(task: str, options: argparse.Namespace, *, output_format: str | None, **arguments: Any) -> int:
    """Run a job.

    Parameters
    ----------
    task : str
        What is done.
    options : argparse.Namespace
        The options of the command.
    output_format : str or None
        The format of the output.
    **arguments
        The options of the task.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    OSError, TypeError, ValueError, ImportError
        If something goes wrong.
    Stopped
        If it is interrupted.
    """
    from nezha_np.commands.progress import shown_steps
    from nezha_np.jobs.run_corpus import SHARD_LINES, run_corpus

    needs = "--cluster" if options.cluster is not None else "--workers"
    if options.output in (None, "-"):
        raise ValueError(f"output: expected a folder, which {needs} needs, got standard output")
    if Path(options.output).suffix.lower() in SUFFIXES and not Path(options.output).is_dir():
        raise ValueError(
            f"output: expected a folder, which {needs} needs, got {options.output}; nezha-np join makes one file of it"
        )
    if options.file in (None, "-"):
        raise ValueError("input: expected a file, which can be cut into shards, got standard input")
    if options.force:
        raise ValueError("force: expected --restart, which throws away the job in a folder, got this one")
    try:
        with shown_steps("lines", wanted=options.progress) as progress:
            run_corpus(
                task,
                options.file,
                options.output,
                model=options.model,
                workers=options.workers,
                cluster=options.cluster,
                shard_lines=SHARD_LINES if options.shard_lines is None else options.shard_lines,
                on_error=options.on_error or "stop",
                restart=options.restart,
                input_format=options.input_format,
                output_format=output_format,
                progress=progress,
                **arguments,
            )
    except KeyboardInterrupt as interrupt:
        raise Stopped(
            f"interrupted: the same command goes on with the shards that {options.output} lacks", status_of(interrupt)
        ) from None
    return SUCCESS
