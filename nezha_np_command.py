"""The entry of the command ``nezha-np``: signals are answered before the package and NumPy are imported.

It stands beside the package, because whatever stands in it is imported after it.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn


def main() -> int:
    """Run the command line; a signal that comes while it is imported ends it with one line, as a later one does.

    Returns
    -------
    int
        The exit status, as `nezha_np.cli.main` returns it.
    """
    waiting = {
        number: handler
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
        if (number := getattr(signal, name, None)) is not None
        and (handler := signal.getsignal(number)) in (signal.SIG_DFL, signal.default_int_handler)
    }
    for number in waiting:
        signal.signal(number, _stop)
    from nezha_np.cli import main as run

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


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Exit at once: there is nothing yet that must be undone."""
    try:
        os.write(2, b"nezha-np: interrupted\n")
    finally:
        os._exit(128 + number)
