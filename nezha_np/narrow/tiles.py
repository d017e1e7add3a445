"""Tiles of rows that are widened one after the other, so that what lies between is read again from cache."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TILE = 2**16  # numbers: 256 KB of float32
Widen = Callable[[np.ndarray, np.ndarray], None]  # widen(kept, out) writes numbers in 16 bits into an array of float32


def tiles(shape: tuple[int, ...], numbers: int, first: int = 0) -> list[slice]:
    """Cut rows into tiles.

    Parameters
    ----------
    shape : (rows, …)
        The shape of an array.
    numbers : int
        The most numbers in a tile of several rows.
    first : int
        The number of the first row.

    Returns
    -------
    list of slice
        The tiles.

    Examples
    --------
    >>> tiles((5, 10), 20, first=3)
    [slice(3, 5, None), slice(5, 7, None), slice(7, 8, None)]
    """
    step = max(1, numbers // max(1, *shape[1:], 1))
    stop = first + shape[0]
    return [slice(start, min(start + step, stop)) for start in range(first, stop, step)]


def widened_by(widen: Widen, kept: np.ndarray) -> np.ndarray:
    """Return numbers in float32.

    Parameters
    ----------
    widen : callable
        Of the format that they are kept in.
    kept : array
        The numbers in 16 bits, of any shape.

    Returns
    -------
    float32 array
        The same numbers, rows one after the other.

    Examples
    --------
    >>> widened_by(lambda kept, out: np.copyto(out, kept), np.array([1, 2], "int16"))
    array([1., 2.], dtype=float32)
    """
    numbers = np.empty(kept.shape, np.float32)
    source, flat = np.reshape(kept, -1), numbers.reshape(-1)
    for part in tiles(flat.shape, TILE):
        widen(source[part], flat[part])
    return numbers
