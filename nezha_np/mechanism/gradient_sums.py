"""The gradients that a walk back has come to: the parts of each are added up, in place where nobody else can see it."""

from __future__ import annotations

import dataclasses
from typing import Any

from nezha_np.arrays import Array, device_of, namespace
from nezha_np.mechanism.layer import sweep, sweeps_in_blocks
from nezha_np.mechanism.recorder import nothing_recorded


@dataclasses.dataclass(frozen=True)
class RowSums:
    """Some rows of an array whose other rows are 0: what a kernel returns for a table of which few rows were read.

    Attributes
    ----------
    numbers : (n,) array of int
        The numbers of the rows, each once.
    rows : (n, H) array
        The rows.
    count : int
        How many rows the whole array has.

    Examples
    --------
    >>> import numpy as np
    >>> part = RowSums(np.array([2]), np.array([[1.0, 2.0]]), 3)
    >>> part.dense()
    array([[0., 0.],
           [0., 0.],
           [1., 2.]])
    >>> part.add_to(np.ones((3, 2)))
    array([[1., 1.],
           [1., 1.],
           [2., 3.]])
    """

    numbers: Any
    rows: Any
    count: int

    def dense(self) -> Array:
        """Make the whole array.

        Returns
        -------
        (count, H) array
            Zeros, but for the rows.
        """
        shape = (self.count, self.rows.shape[1])
        return self.add_to(namespace(self.rows).zeros(shape, dtype=self.rows.dtype, device=device_of(self.rows)))

    def add_to(self, total: Any) -> Array:
        """Add the rows to those of an array, in place.

        Parameters
        ----------
        total : (count, H) array
            The array, which changes.

        Returns
        -------
        (count, H) array
            The same array.
        """
        total[self.numbers] += self.rows
        changed: Array = total
        return changed


class GradientSums:
    """Gradients by the numbers of the arrays that they belong to.

    What a kernel returns is new: so it is the walk's own, and a sum may be written into it. What a definition returns
    may be an array that something else holds, or one of a library whose arrays never change.

    Parameters
    ----------
    number, gradient
        The first one, of the loss.
    keeps : bool
        Whether a gradient is still held when the walk has gone on from it.

    Examples
    --------
    >>> import numpy as np
    >>> gradients, part = GradientSums(0, np.array(1.0), keeps=False), np.ones(2)
    >>> gradients.add(1, part, new=True)
    >>> gradients.add(1, np.ones(2), new=False)
    >>> found, own = gradients.take(1)
    >>> found, own, found is part
    (array([2., 2.]), True, True)
    """

    def __init__(self, number: int, gradient: Array, *, keeps: bool) -> None:
        self.found: dict[int, Array] = {number: gradient}
        self.keeps = keeps
        self._own: set[int] = set()

    def take(self, number: int) -> tuple[Array | None, bool]:
        """Return a gradient that is complete, to go on from it.

        Parameters
        ----------
        number : int
            That of its array.

        Returns
        -------
        gradient : array or None
            The gradient; None where the loss does not depend on the array.
        own : bool
            Whether nothing else holds it, so that it may be written over.
        """
        if self.keeps:
            return self.found.get(number), False
        own = number in self._own
        self._own.discard(number)
        return self.found.pop(number, None), own

    def rename(self, number: int, new_number: int) -> None:
        """Give a gradient, where there is one, to another array.

        Parameters
        ----------
        number, new_number : int
            Those of the arrays.
        """
        gradient, own = self.take(number)
        if gradient is not None:
            self.add(new_number, gradient, new=own)

    def add(self, number: int, part: Array | RowSums, *, new: bool) -> None:
        """Add a part to a gradient.

        Parameters
        ----------
        number : int
            That of its array.
        part : array or RowSums
            The part.
        new : bool
            Whether a kernel has just made it, and nothing else holds it.
        """
        total, own = self.found.get(number), number in self._own
        if isinstance(part, RowSums):
            if total is not None and own:
                part.add_to(total)
                return
            part = part.dense()
        if total is None:
            self.found[number] = part
        elif (own or new) and sweeps_in_blocks(total):
            with nothing_recorded():  # so that the kernels' sweep does it
                self.found[number] = sweep(lambda x, y: (x + y,), total, part, out=[total if own else part])[0]
        else:
            self.found[number] = total + part
        if new:
            self._own.add(number)
