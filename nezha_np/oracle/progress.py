"""How far a long computation is: a function of the caller's is told, and shows it as it likes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

Progress: TypeAlias = Callable[[int, int], object]  # of the steps that are done and of all steps

T = TypeVar("T")


def check_progress(progress: Any) -> None:
    """Check an argument `progress`.

    Examples
    --------
    >>> check_progress(True)
    Traceback (most recent call last):
    ...
    TypeError: progress: expected a function of two integers, such as print, or None, got bool
    """
    if progress is not None and not callable(progress):
        kind = type(progress).__name__
        raise TypeError(f"progress: expected a function of two integers, such as print, or None, got {kind}")


class Count:
    """How many steps are done and how many are known of: a step may turn out to consist of others.

    Parameters
    ----------
    progress : callable or None
        Is called with the number of steps that are done, and of all, whenever one changes; None: nobody is told.

    Examples
    --------
    >>> count = Count(print)
    >>> for letter in count.each(["a", "b"]):
    ...     for digit in count.each([1]):
    ...         pass
    0 2
    0 3
    1 3
    2 3
    2 4
    3 4
    4 4
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._done, self._all = progress, 0, 0

    def each(self, steps: Sequence[T]) -> Iterator[T]:
        """Yield the steps; their list may grow meanwhile, and those that are left at the end count as done.

        Parameters
        ----------
        steps : sequence
            What is to be done.

        Yields
        ------
        object
            Each step.
        """
        known = done = 0
        try:
            while True:
                if known < len(steps):
                    self._tell(more=len(steps) - known)
                    known = len(steps)
                if done == known:
                    return
                yield steps[done]
                done += 1
                self._tell(done=1)
        finally:
            if done < known:
                self._tell(done=known - done)

    def _tell(self, *, done: int = 0, more: int = 0) -> None:
        self._done += done
        self._all += more
        if self._progress is not None:
            self._progress(self._done, self._all)
