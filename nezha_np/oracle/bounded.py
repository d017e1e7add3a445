"""Numbers with a bound of their error: where the roundings of a computation may have led, element by element.

Adam divides a mean of gradients by the root of a mean of their squares. An element whose gradient is near 0 comes out
as near 1 or −1 as every other, and its sign is that of a rounding: one tolerance for a whole tensor would be as wide as
the tensor's numbers, and say nothing of the others. So each element carries the largest error that it may have,
through every operation (Higham 2002, section 3.3, running error analysis):

    x + y : e_x + e_y                         √x : √x − √(x − e_x)
    x · y : |x| e_y + |y| e_x + e_x e_y       x / y : (e_x + |x / y| e_y) / (|y| − e_y)

and each operation adds a unit of its own result, and the smallest normal number of the dtype, below which results are
0 on some machines. A constant that a dtype cannot hold, such as 0.999, has the error of
its rounding: in float32 it is a hundred-thousandth of 1 − 0.999.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

SINGLE = 2.0**-23  # ε of float32
SMALLEST = 2.0**-126  # its smallest normal number: the square of a gradient of 1e-20 is less


@dataclasses.dataclass(frozen=True, eq=False)
class Bounded:
    """An array, and for each element a bound of how far another implementation's may be from it.

    Attributes
    ----------
    value : array or float
        The numbers.
    error : array or float
        The bounds, in the shape of the numbers or for all of them.
    unit : float
        ε of the dtype that others compute it in.

    Examples
    --------
    >>> x, y = Bounded(np.array([1.0, 1e-9]), 1e-8, 0.0), Bounded(np.array([1.0, 1e-9]), 1e-8, 0.0)
    >>> (x / (y + 1e-6)).error.round(4)  # 0.001 ± 0.0101
    array([0.    , 0.0101])
    """

    value: Any
    error: Any
    unit: float

    def _made(self, value: Any, error: Any) -> Bounded:
        tiny = SMALLEST if self.unit >= SINGLE else 0.0
        return Bounded(value, error + (self.unit * np.abs(value) + tiny), self.unit)

    def constant(self, number: float) -> Bounded:
        """Give a number that the formula names, with the error of its rounding."""
        return constant(number, self.unit)

    def _other(self, other: Bounded | float) -> Bounded:
        return other if isinstance(other, Bounded) else self.constant(other)

    def __add__(self, other: Bounded | float) -> Bounded:
        """x + y."""
        other = self._other(other)
        return self._made(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Bounded | float) -> Bounded:
        """x − y."""
        other = self._other(other)
        return self._made(self.value - other.value, self.error + other.error)

    def __rsub__(self, other: float) -> Bounded:
        """c − x."""
        return self.constant(other) - self

    def __mul__(self, other: Bounded | float) -> Bounded:
        """x · y."""
        other = self._other(other)
        error = np.abs(self.value) * other.error + np.abs(other.value) * self.error + self.error * other.error
        return self._made(self.value * other.value, error)

    def __truediv__(self, other: Bounded | float) -> Bounded:
        """x / y; where y may be 0 there is no bound."""
        other = self._other(other)
        quotient = self.value / other.value
        least = np.abs(other.value) - other.error
        error = (self.error + np.abs(quotient) * other.error) / np.where(least > 0, least, 1.0)
        exact = (self.error == 0) & (other.error == 0)
        return self._made(quotient, np.where(least > 0, error, np.where(exact, 0.0, np.inf)))

    def sqrt(self) -> Bounded:
        """√x."""
        root = np.sqrt(self.value)
        return self._made(root, root - np.sqrt(np.maximum(self.value - self.error, 0.0)))

    def of_size(self, most: float) -> Bounded:
        """Give x, of which it is known that |x| is at most a number: it is off by that and |x| at most."""
        return Bounded(self.value, np.minimum(self.error, np.abs(self.value) + most), self.unit)

    def at_most(self, most: float) -> Bounded:
        """The smaller of x and a number."""
        return Bounded(np.minimum(self.value, most), self.error, self.unit)

    def norm(self) -> Bounded:
        """‖x‖: a loop over n squares rounds by about √n units."""
        value, size = np.sqrt(np.sum(self.value * self.value)), np.size(self.value)
        error = np.sqrt(np.sum(np.square(self.error + np.zeros_like(self.value))))
        # In float32 the squares of numbers below 1e-19 are 0; those of zeros are so rightly.
        if self.unit >= SINGLE and np.any(self.value):
            error = error + (np.sqrt(np.square(value, dtype=np.float64) + size * SMALLEST) - value)
        return self._made(value, error + self.unit * np.sqrt(size) * value)


def constant(number: float, unit: float) -> Bounded:
    """Give a number that a formula names, with the error of its rounding in a dtype.

    Parameters
    ----------
    number : float
        The number.
    unit : float
        ε of the dtype.

    Examples
    --------
    >>> constant(0.5, SINGLE).error, constant(0.999, SINGLE).error < 2e-8
    (0.0, True)
    """
    return Bounded(number, abs(float(np.float32(number)) - number) if unit >= SINGLE else 0.0, unit)


def power(base: float, exponent: int, unit: float) -> Bounded:
    """Give βᵗ: the error of β grows with t, and from the second power on the result is rounded.

    Examples
    --------
    >>> power(0.9, 2, 2.0**-52).value
    0.81
    """
    number = base**exponent
    of_base = constant(base, unit).error * exponent
    return Bounded(number, of_base + (unit * abs(number) if exponent > 1 else 0.0), unit)


def norm_of_all(values: Iterable[Bounded]) -> Bounded:
    """Give the norm of several arrays together.

    Examples
    --------
    >>> float(norm_of_all([Bounded(np.array([3.0]), 0.0, 0.0), Bounded(np.array([4.0]), 0.0, 0.0)]).value)
    5.0
    """
    norms = [value.norm() for value in values]
    together = Bounded(
        np.array([norm.value for norm in norms]), np.array([norm.error for norm in norms]), norms[0].unit
    )
    return together.norm()
