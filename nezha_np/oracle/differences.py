"""How far two arrays are apart."""

from __future__ import annotations

import numpy as np

NEVER = -5e4  # an additive mask below this means never, in every dtype and whatever its minimum is


def is_additive_mask(name: str) -> bool:
    """Whether an intermediate is a mask that is added to the scores.

    Examples
    --------
    >>> is_additive_mask("encoder_attention_mask"), is_additive_mask("head_mask")
    (True, False)
    """
    return name.endswith("attention_mask")


def in_float64(name: str, values: np.ndarray) -> np.ndarray:
    """Bring an array to float64, an additive mask with everything that means never as one number; it may be the same.

    Examples
    --------
    >>> in_float64("attention_mask", np.array([0.0, -1e4, -1e9, -np.inf]))
    array([     0., -10000., -50000., -50000.])
    """
    values = np.asarray(values).astype(np.float64, copy=False)
    return np.maximum(values, NEVER) if is_additive_mask(name) else values


def difference(name: str, golden: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Subtract two arrays of one shape, number by number: absolute differences, 0 where both are NaN or the same.

    Where only one is NaN the difference is infinite.

    Examples
    --------
    >>> difference("loss", np.array([1.0, np.nan, np.inf, 2.0]), np.array([1.5, np.nan, np.inf, np.nan]))
    array([0.5, 0. , 0. , inf])
    """
    golden, theirs = in_float64(name, golden), in_float64(name, theirs)
    with np.errstate(all="ignore"):
        apart = np.asarray(np.abs(theirs - golden))  # of numbers too
        if not np.isnan(apart.sum()):  # neither NaN nor ∞ − ∞ among them
            return apart
    same = (golden == theirs) | (np.isnan(golden) & np.isnan(theirs))
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def magnitude(name: str, values: np.ndarray) -> np.ndarray:
    """Take absolute values, 0 where there is no number.

    Examples
    --------
    >>> magnitude("loss", np.array([-2.0, np.nan]))
    array([2., 0.])
    """
    values = np.abs(in_float64(name, values))
    return np.where(np.isfinite(values), values, 0.0)


def largest(values: np.ndarray) -> float:
    """Return the largest number, 0 where there is none.

    Examples
    --------
    >>> largest(np.zeros((0, 3)))
    0.0
    """
    return float(values.max()) if values.size else 0.0


def largest_difference(name: str, right: np.ndarray | None, theirs: np.ndarray | None) -> float:
    """Return the largest difference of two arrays, infinite where their shapes differ or one is not there.

    Examples
    --------
    >>> largest_difference("loss", np.array([1.0, 2.0]), np.array([1.0, 2.5]))
    0.5
    """
    if right is None or theirs is None or np.shape(right) != np.shape(theirs):
        return float("inf")
    return largest(difference(name, right, theirs))


def worst_place(apart: np.ndarray, allowed: float | np.ndarray) -> int:
    """Return where, in the flat order, a difference is largest; with a tolerance of each element, over its own.

    Examples
    --------
    >>> worst_place(np.array([1.0, 2.0]), 0.5), worst_place(np.array([1.0, 2.0]), np.array([0.1, 9.0]))
    (1, 0)
    """
    if not apart.size:
        return 0
    if isinstance(allowed, np.ndarray):
        with np.errstate(all="ignore"):
            part = np.where(apart == 0.0, 0.0, apart / allowed)
        apart = np.where(np.isnan(part), np.where(np.isinf(allowed), 0.0, np.inf), part)
    return int(apart.argmax())
