"""Signals that ask a process to stop: they raise an exception, so that nothing half made is left behind."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

# Besides SIGINT, for which Python itself raises KeyboardInterrupt. SIGHUP: the terminal was closed. SIGBREAK:
# Ctrl-Break on Windows, which has no SIGHUP.
NAMES = ("SIGTERM", "SIGHUP", "SIGBREAK")
OF_SIGNALS = 128  # and the signal's number, as shells report a process that a signal ended: 130 SIGINT, 143 SIGTERM
SOON = 0.01  # seconds


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
    handlers = {number: _raise for number in _numbers(*NAMES) if signal.getsignal(number) == signal.SIG_DFL}
    with sent_again(), _handled(handlers):
        yield


@contextlib.contextmanager
def sent_again() -> Iterator[None]:
    """Send a signal again whose exception ended nothing, because Python had called a handler in a callback.

    Python calls a handler wherever the main thread is, also in the callback of a weak reference and in ``__del__``. An
    exception there is printed and forgotten. Here it is not printed, and the signal comes again a little later.

    Examples
    --------
    >>> import time, weakref
    >>> class Thing: pass
    >>> thing = Thing()
    >>> reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    >>> try:
    ...     with sent_again():
    ...         del thing
    ...         time.sleep(10)
    ... except KeyboardInterrupt:
    ...     print("interrupted")
    interrupted
    """
    before = sys.unraisablehook

    def answer(forgotten: sys.UnraisableHookArgs) -> None:
        number = number_of(forgotten.exc_value)
        if number is None:
            before(forgotten)
            return
        later = threading.Timer(SOON, _send_to_main_thread, (number,))
        later.daemon = True
        later.start()

    sys.unraisablehook = answer
    try:
        yield
    finally:
        sys.unraisablehook = before


def number_of(error: BaseException | None) -> int | None:
    """Return the number of the signal that an exception answers.

    Parameters
    ----------
    error : BaseException or None
        The exception.

    Returns
    -------
    int or None
        None where it answers no signal.

    Examples
    --------
    >>> number_of(KeyboardInterrupt()), number_of(Signalled(15)), number_of(SystemExit(143)), number_of(OSError())
    (2, 15, 15, None)
    """
    if isinstance(error, KeyboardInterrupt):
        return int(getattr(error, "number", signal.SIGINT))
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > OF_SIGNALS:
        return error.code - OF_SIGNALS
    return None


def _send_to_main_thread(number: int) -> None:
    """Send a signal to the main thread, so that what it waits for is interrupted; Windows has no such function."""
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)


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
