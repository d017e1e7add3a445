"""How close a trial of the doctor comes to their numbers: the size of what is left, and whether rounding explains it.

The largest of many differences says little of the others. A mistake that makes their numbers leaves differences of the
size of roundings everywhere, and one that only looks like it leaves more: so their root mean square is asked too.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from nezha_np.oracle.differences import difference, in_float64, largest

LIKE_ROUNDING = 2.5  # times the root mean square of measured roundings: no more than other orders of sums make of it
FAR_ABOVE = 5.0  # what is left may be so many times that, where it was much more before
MUCH_MORE = 20.0


@dataclasses.dataclass(frozen=True)
class Apart:
    """How far two arrays are apart.

    Attributes
    ----------
    most : float
        The largest difference, infinite where only one is NaN or the shapes differ.
    typical : float
        The root mean square of the differences.
    """

    most: float
    typical: float


def apart(name: str, right: np.ndarray | None, theirs: np.ndarray | None) -> Apart:
    """Measure how far two arrays of a name are apart.

    Examples
    --------
    >>> apart("loss", np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    Apart(most=1.0, typical=0.7071067811865476)
    >>> apart("loss", np.zeros(2), np.zeros(3)).most
    inf
    """
    if right is None or theirs is None or np.shape(right) != np.shape(theirs):
        return Apart(float("inf"), float("inf"))
    differences = difference(name, right, theirs)
    return Apart(largest(differences), root_mean_square(differences))


def root_mean_square(values: np.ndarray) -> float:
    """Return the root of the mean square, 0 of no numbers.

    Examples
    --------
    >>> root_mean_square(np.array([3.0, -3.0])), root_mean_square(np.zeros(0))
    (3.0, 0.0)
    """
    if not values.size:
        return 0.0
    most = float(np.abs(values).max())
    if most == 0.0 or not np.isfinite(most):
        return most
    scaled = np.ravel(values) / most
    return most * float(np.sqrt(scaled @ scaled / scaled.size))


def is_rounding(left: Apart, before: Apart, noise: float) -> bool:
    """Whether what is left is of the size of roundings, `noise`, whose root mean square was measured.

    Examples
    --------
    >>> is_rounding(Apart(1e-6, 2e-7), Apart(1e-5, 3e-6), noise=1e-7)
    True
    >>> is_rounding(Apart(1e-6, 4e-7), Apart(1e-5, 3e-6), noise=1e-7)
    False
    """
    if left.typical <= LIKE_ROUNDING * noise:
        return left.typical < before.typical / 2.0
    return left.typical <= FAR_ABOVE * noise and left.typical * MUCH_MORE <= before.typical


def alike(name: str, changed: np.ndarray | None, right: np.ndarray, theirs: np.ndarray) -> float:
    """Return the cosine between what a mistake changes and what differs; 1 where it cannot be said.

    Examples
    --------
    >>> alike("loss", np.array([2.0, 0.0]), np.zeros(2), np.array([1.0, 0.0]))
    1.0
    """
    if changed is None or np.shape(changed) != np.shape(right) or np.shape(theirs) != np.shape(right):
        return 1.0
    right = in_float64(name, right)
    made, seen = (in_float64(name, values) - right for values in (changed, theirs))
    if not (np.isfinite(made).all() and np.isfinite(seen).all()):
        return 1.0
    sizes = float(np.linalg.norm(made)) * float(np.linalg.norm(seen))
    return float((made * seen).sum()) / sizes if sizes > 0.0 else 0.0
