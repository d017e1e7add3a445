"""Numbers that tell arrays apart, without holding them: `id` gives the number of an array that is gone to a new one."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any


class Identities:
    """A number for each array that was added. It is never another array's, also when the array is gone.

    Examples
    --------
    >>> import numpy as np
    >>> numbers, x = Identities(), np.ones(2)
    >>> numbers.add(x), numbers.add(x), numbers.find(x), numbers.find(np.ones(2))
    (0, 0, 0, None)
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Callable[[], Any], int]] = {}
        self._numbers = itertools.count()

    def add(self, array: Any) -> int:
        """Return the number of an array, a new one where it has none.

        Parameters
        ----------
        array : array
            The array.

        Returns
        -------
        int
            Its number.
        """
        number = self.find(array)
        if number is None:
            number = next(self._numbers)
            self._known[id(array)] = reference(array), number
        return number

    def find(self, array: Any) -> int | None:
        """Return the number of an array.

        Parameters
        ----------
        array : array
            The array, or any other value.

        Returns
        -------
        int or None
            Its number; None where it was not added.
        """
        found = self._known.get(id(array))
        return found[1] if found is not None and found[0]() is array else None


def reference(array: Any) -> Callable[[], Any]:
    """Refer to an array without holding it.

    Parameters
    ----------
    array : array
        The array.

    Returns
    -------
    callable
        Returns the array; None where it is gone.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones(2)
    >>> reference(x)() is x
    True
    """
    try:
        return weakref.ref(array)
    except TypeError:  # NumPy's scalars, for example, have no weak references: they are held
        return lambda: array
