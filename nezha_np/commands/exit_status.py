"""The exit statuses of ``nezha-np``, and the error that brings its own."""

from __future__ import annotations

from nezha_np.signals import OF_SIGNALS, number_of

SUCCESS = 0
DIFFERENT = 1  # a comparison found a difference, and nothing else
ERROR = 2  # bad input, or a fault such as a full disk; also what argparse returns for wrong arguments


class Stopped(Exception):
    """A run that stopped before its end and can be resumed; the message says how.

    Parameters
    ----------
    message : str
        What happened, and how to resume.
    status : int
        The exit status: `ERROR`, or that of a signal.

    Examples
    --------
    >>> Stopped("interrupted; 8 lines are done", OF_SIGNALS + 2).status
    130
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: BaseException) -> int:
    """Return the exit status of a command that ends with an error.

    Parameters
    ----------
    error : BaseException
        What ended it.

    Returns
    -------
    int
        130 for an interruption by the keyboard, 128 and its number for another signal, else `ERROR`.

    Examples
    --------
    >>> status_of(KeyboardInterrupt()), status_of(OSError())
    (130, 2)
    """
    if isinstance(error, Stopped):
        return error.status
    number = number_of(error)
    return ERROR if number is None else OF_SIGNALS + number
