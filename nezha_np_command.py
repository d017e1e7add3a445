"""The entry of the command ``nezha-np``: signals are answered before the package and NumPy are imported.

It stands beside the package, because whatever stands in it is imported after it.
"""

import os
import signal

# Until there is a handler, Ctrl-C ends in a traceback: so `typing`, which takes longer than this, is not imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

_waiting: "dict[int, Any]" = {}  # the handlers to give the signals back to


def answer_signals() -> None:
    """Answer each signal that asks to stop with one line, at once, until `main` runs the command line."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is None or number in _waiting:
            continue
        handler = signal.getsignal(number)
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)
            _waiting[number] = handler


def main() -> int:
    """Run the command line; a signal that comes while it is imported ends it with one line, as a later one does.

    Returns
    -------
    int
        The exit status, as `nezha_np.cli.main` returns it.
    """
    answer_signals()
    from nezha_np.cli import main as run

    waiting = dict(_waiting)
    _waiting.clear()
    for number, handler in waiting.items():
        signal.signal(number, handler)
    try:
        status = run()
        if status > 128:
            _end_quietly(*waiting)
    except KeyboardInterrupt:  # a second Ctrl-C, while the first was answered
        status = 128 + signal.SIGINT
        _end_quietly(*waiting)
    return status


def _end_quietly(*numbers: int) -> None:
    """After an interruption, let no further signal raise while Python ends."""
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: "FrameType | None") -> "NoReturn":
    """Exit at once: there is nothing yet that must be undone."""
    try:
        os.write(2, b"nezha-np: interrupted\n")
    finally:
        os._exit(128 + number)
