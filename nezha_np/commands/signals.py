"""Signals that ask a command to stop: they raise an exception, so that nothing half made is left behind."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

# Besides SIGINT, for which Python itself raises KeyboardInterrupt. SIGHUP: the terminal was closed. SIGBREAK:
# Ctrl-Break on Windows, which has no SIGHUP.
NAMES = ("SIGTERM", "SIGHUP", "SIGBREAK")


class Signalled(KeyboardInterrupt):
    """A signal that asks to stop, which is answered as Ctrl-C is.

    Parameters
    ----------
    number : int
        The signal's number.

    Examples
    --------
    >>> Signalled(15).number
    15
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Signalled(number)


def _numbers(*names: str) -> list[int]:
    """List the numbers of the signals that this system has."""
    return [int(getattr(signal, name)) for name in names if hasattr(signal, name)]


@contextlib.contextmanager
def _handled(handlers: dict[int, Any]) -> Iterator[None]:
    """Install handlers and restore those before; only the main thread may do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed by Python


@contextlib.contextmanager
def raised_signals() -> Iterator[None]:
    """Raise `Signalled` for each signal that asks to stop, unless it is ignored, as SIGHUP is under ``nohup``.

    Examples
    --------
    >>> try:
    ...     with raised_signals():
    ...         signal.raise_signal(signal.SIGTERM)
    ... except Signalled as signalled:
    ...     print(signalled.number)
    15
    """
    with _handled({number: _raise for number in _numbers(*NAMES) if signal.getsignal(number) == signal.SIG_DFL}):
        yield


@contextlib.contextmanager
def ignored_signals() -> Iterator[None]:
    """Ignore these signals and SIGINT for a moment, while files are moved into place.

    Examples
    --------
    >>> with ignored_signals():
    ...     signal.raise_signal(signal.SIGINT)
    """
    with _handled(dict.fromkeys(_numbers("SIGINT", *NAMES), signal.SIG_IGN)):
        yield
