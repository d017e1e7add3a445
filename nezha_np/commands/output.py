"""Standard output and standard error: what a console cannot show is written in ASCII; a closed reader is no error.

A reader that has closed standard output, as ``head`` does, has seen enough; a full disk is an error. What other
programs read is UTF-8, whatever encoding the console has.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable

from nezha_np.checks import printable

# For consoles whose encoding lacks these characters, as cp936 and cp1252 lack some; each as wide as what it stands for.
SUBSTITUTES = {"✓": "+", "✗": "x", "×": "x", "·": ".", "−": "-", "–": "-", "—": "-", "…": "."}
IN_ASCII = "nezha_np.in_ascii"  # the name of the error handler of encodings


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    refused = error.object[error.start : error.end]
    codes = (SUBSTITUTES.get(char) or char.encode("ascii", "backslashreplace").decode() for char in refused)
    return "".join(codes), error.end


codecs.register_error(IN_ASCII, _in_ascii)


def showable(text: str, encoding: str | None) -> str:
    """Return a text that a stream takes and a terminal shows: controls, and what its encoding lacks, are codes.

    Names in files may hold control characters, which would clear a screen or hide a line.

    Parameters
    ----------
    text : str
        Any text.
    encoding : str or None
        The encoding of the stream; None: UTF-8.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> showable("✓ 干 ×", "cp1252"), showable("✓ 干 ×", "cp936")
    ('+ \\\\u5e72 ×', '+ 干 ×')
    """
    encoding = encoding or "utf-8"
    text = "\n".join(printable(line) for line in text.split("\n"))
    return text.encode(encoding, IN_ASCII).decode(encoding)


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
    text = showable("\n".join(lines), getattr(sys.stdout, "encoding", None))
    _written(lambda: print(text, flush=True))


def print_message(message: str) -> None:
    """Print a line on standard error, if it can be printed.

    Parameters
    ----------
    message : str
        The line.
    """
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(showable(message, getattr(sys.stderr, "encoding", None)), file=sys.stderr, flush=True)


def write_bytes(data: bytes) -> bool:
    """Write bytes to standard output and flush them; nothing is written where it is closed from the beginning.

    Parameters
    ----------
    data : bytes
        What to write; it is UTF-8 where it is text.

    Returns
    -------
    bool
        False where the reader has closed the pipe, so that nobody reads what would follow.

    Raises
    ------
    OSError
        If standard output takes no more for another reason.

    Examples
    --------
    >>> write_bytes("干\\n".encode())
    干
    True
    """
    if sys.stdout is None:
        return False
    if not hasattr(sys.stdout, "buffer"):  # a notebook's
        return _written(lambda: print(data.decode(), end="", flush=True))

    def write() -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    return _written(write)


def write_text(text: str) -> None:
    """Write what another program reads, as UTF-8, to standard output, with a line end.

    Parameters
    ----------
    text : str
        The text, without the last line end.

    Raises
    ------
    OSError
        If standard output takes no more, except where its reader has closed it.

    Examples
    --------
    >>> write_text('{"token": "干"}')
    {"token": "干"}
    """
    write_bytes(f"{text}\n".encode("utf-8", "backslashreplace"))


def _written(write: Callable[[], object]) -> bool:
    try:
        write()
    except OSError as error:
        _discard_output()
        # Windows has no error of its own for a pipe that is closed.
        if isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL):
            return False
        raise
    return True


def _discard_output() -> None:
    """Send what could not be written to the null device: Python flushes once more at its end, and would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
