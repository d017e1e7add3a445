"""A command in several processes has one voice: process 0 prints, and of those that fail the first says why."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence

from nezha_np.commands.exit_status import ERROR

TRAINING = ("pretrain", "finetune")
WAIT = 0.5  # seconds in which process 0 may say first what is wrong in all of them
LONGEST = 60.0  # seconds until a process ends by itself which the one that says why should have ended

# Of several processes, whether this is the first that fails, and what is called when none can fail any more.
_is_first: Callable[[], bool] | None = None
_free: Callable[[], object] | None = None
_place = ""


def begin_together(words: Sequence[str]) -> int | None:
    """Prepare a training command that ``mpiexec`` has started in several processes: all but process 0 print nothing.

    Parameters
    ----------
    words : sequence of str
        The words of the command line.

    Returns
    -------
    int or None
        The exit status of a process that has nothing to do: process 0 says what is wrong with the start.

    Raises
    ------
    ImportError, ValueError
        In process 0, if the processes cannot train together.

    Examples
    --------
    >>> begin_together(["pretrain", "news.txt"])  # in one process there is nothing to prepare
    """
    global _is_first, _free, _place
    if not words or words[0] not in TRAINING:
        return None
    from nezha_np.training.mpi import check_start, first_caller, launched

    rank, size = launched()
    if size == 1:
        return None
    try:
        check_start()
    except (ImportError, ValueError):
        if rank == 0:
            raise
        return ERROR
    _is_first, _free = first_caller()
    if rank:
        _place = f"process {rank} of {size}, on {socket.gethostname()}: "
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8", newline="")  # noqa: SIM115  # for good
    return None


def end_together() -> None:
    """End what `begin_together` prepared; all processes call it, when the command has done its work.

    Examples
    --------
    >>> end_together()
    """
    global _is_first, _free
    if _free is not None:
        _free()
    _is_first = _free = None


def take_the_word(status: int) -> str:
    """Return in the process that is to say why all of them end, and in no other.

    The others are ended by the launcher, once this one has.

    Parameters
    ----------
    status : int
        The exit status of this process.

    Returns
    -------
    str
        Where this process is, for the beginning of its message; empty in process 0, and in one that is alone.

    Examples
    --------
    >>> take_the_word(2)
    ''
    """
    global _is_first
    if _is_first is not None:
        if _place:
            time.sleep(WAIT)
        if not _is_first():
            time.sleep(LONGEST)
            os._exit(status)
        _is_first, sys.stderr = None, sys.__stderr__
    return _place
