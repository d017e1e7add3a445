"""The exit statuses of ``nezha-np``, and the error that brings its own."""

from __future__ import annotations

SUCCESS = 0
DIFFERENT = 1  # a comparison found a difference
ERROR = 2  # also what argparse returns for wrong arguments
INTERRUPTED = 130  # 128 + SIGINT, as shells report a process that a signal ended
TERMINATED = 143  # 128 + SIGTERM


class Stopped(Exception):
    """A run that stopped before its end and can be resumed; the message says how.

    Parameters
    ----------
    message : str
        What happened, and how to resume.
    status : int
        The exit status: `ERROR`, `INTERRUPTED` or `TERMINATED`.

    Examples
    --------
    >>> Stopped("interrupted; 8 lines are done", INTERRUPTED).status
    130
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
