"""Progress on standard error, as a bar of tqdm; nothing that goes wrong with it stops a run."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, TextIO

QUIET_SECONDS = 2.0  # a run that is over sooner shows no bar
TERMINAL_SECONDS, LOG_SECONDS = 0.5, 10.0  # between two states of the bar: in place on a terminal, or lines of a log


class Progress:
    """How far a run has come: on a terminal once it has become a long run, in a log only if it is wanted.

    The bar measures how many bytes of the input are read, which says when the run will end, and counts its lines. Where
    the size of the input is unknown, as of a pipe, it counts lines alone. tqdm is imported only where a bar may be
    shown.

    Parameters
    ----------
    stream : binary file
        The input; what an earlier run has done of it is read already.
    wanted : bool
        Whether to show progress also where standard error is no terminal, and also of a short run.
    lines : int
        How many lines an earlier run has done.

    Examples
    --------
    >>> import io
    >>> with Progress(io.BytesIO(b"one"), wanted=False) as progress:
    ...     progress.add(1)
    """

    def __init__(self, stream: BinaryIO, *, wanted: bool, lines: int = 0) -> None:
        self._stream, self._wanted, self._lines = stream, wanted, lines
        self._size = _size(stream)
        self._bar: Any = None
        if sys.stderr is not None and (wanted or sys.stderr.isatty()):
            self._bar = self._make_bar(sys.stderr)

    def _make_bar(self, stderr: TextIO) -> Any:
        measured = {"unit": " lines"} if self._size is None else {"unit": "B", "unit_scale": True}
        return _bar(stderr, initial=self._position(), total=self._size, **measured)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is None:
            return
        if self._wanted:
            self._bar.delay = 0.0  # the last state is shown, however soon it comes
        if kind is None:
            self._move()
        self._bar.close()

    def add(self, lines: int) -> None:
        """Count lines that are done.

        Parameters
        ----------
        lines : int
            How many, besides those before.
        """
        self._lines += lines
        if self._bar is not None:
            self._move()

    def _move(self) -> None:
        if self._size is not None:
            self._bar.set_postfix_str(f"{self._lines:,} lines", refresh=False)
        self._bar.update(self._position() - self._bar.n)

    def _position(self) -> int:
        return self._lines if self._size is None else self._stream.tell()


@contextlib.contextmanager
def shown_steps(unit: str, *, wanted: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """Show on a terminal how many steps of a long run are done, and take the bar away at its end.

    Parameters
    ----------
    unit : str
        What a step is.
    wanted : bool
        Whether to show them also where standard error is no terminal.

    Yields
    ------
    callable or None
        Is to be called with the number of steps that are done, and of all; None where nothing is shown.

    Examples
    --------
    >>> with shown_steps("passes") as progress:
    ...     if progress is not None:
    ...         progress(1, 26)
    """
    if sys.stderr is None or not (wanted or sys.stderr.isatty()):
        yield None
        return
    bar = _bar(sys.stderr, unit=f" {unit}", leave=False)

    def progress(done: int, steps: int) -> None:
        bar.total = steps
        bar.update(done - bar.n)

    try:
        yield progress
    finally:
        bar.close()


def _bar(stderr: TextIO, **options: Any) -> Any:
    """Make a bar of tqdm, which is imported only here."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        monitor_interval = 0  # no thread that refreshes the bar: `update` does it

    terminal = stderr.isatty()
    return Bar(
        file=_SafeStderr(stderr, terminal=terminal),
        delay=QUIET_SECONDS,
        mininterval=TERMINAL_SECONDS if terminal else LOG_SECONDS,
        miniters=1,
        dynamic_ncols=terminal,
        **options,
    )


class _SafeStderr:
    """Standard error for tqdm: what cannot be written is dropped, and in a log each state is a line of its own."""

    def __init__(self, stderr: TextIO, *, terminal: bool) -> None:
        self._stderr, self._terminal = stderr, terminal

    def write(self, text: str) -> None:
        """Write what tqdm writes: a state of the bar after a carriage return, or the line end after the last one."""
        if not self._terminal:
            text = text.strip()
            if not text:
                return
            text += "\n"
        with contextlib.suppress(OSError):
            self._stderr.write(text)

    def flush(self) -> None:
        """Flush what is written."""
        with contextlib.suppress(OSError):
            self._stderr.flush()

    def __getattr__(self, name: str) -> Any:  # the encoding, and the descriptor whose width is asked for
        return getattr(self._stderr, name)


def _size(stream: BinaryIO) -> int | None:
    """How many bytes there are to read; None where that is unknown, or there are none."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # not a file, but something in memory
        return None
    return (status.st_size or None) if stat.S_ISREG(status.st_mode) else None
