"""Standard output: a reader that has closed it, as ``head`` does, is no error; a full disk is one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, once all of them are made: a command that fails has printed nothing.

    Parameters
    ----------
    lines : iterable of str
        The lines, without line ends.

    Raises
    ------
    OSError
        If standard output takes no more, except where its reader has closed it.

    Examples
    --------
    >>> print_lines(["one", "two"])
    one
    two
    """
    lines = list(lines)
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        _discard_output()
    except OSError:
        _discard_output()
        raise


def write_bytes(data: bytes) -> bool:
    """Write bytes and flush them.

    Parameters
    ----------
    data : bytes
        What to write.

    Returns
    -------
    bool
        False where the reader has closed the pipe, so that nobody reads what would follow.

    Raises
    ------
    OSError
        If standard output takes no more for another reason.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _discard_output()
        return False
    except OSError:
        _discard_output()
        raise
    return True


def _discard_output() -> None:
    """Send what could not be written to the null device: Python flushes once more at its end, and would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
