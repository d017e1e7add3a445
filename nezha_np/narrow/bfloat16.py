"""bfloat16: the upper half of the bits of a float32, which are sign, exponent and 7 of 23 bits of the fraction.

NumPy does not have it, so its bits are kept as integers.
"""

from __future__ import annotations

import numpy as np

from nezha_np.narrow.tiles import TILE, tiles, widened_by

NAME = "bfloat16"


def round_to_bits(values: np.ndarray) -> np.ndarray:
    """Round floats to bfloat16, to the nearest, ties to even.

    Parameters
    ----------
    values : float array
        Any shape.

    Returns
    -------
    uint16 array
        The bits. NaN stays NaN, and what is beyond the largest number becomes infinite.

    Examples
    --------
    >>> widened(round_to_bits(np.array([1.0, 1.005, -2.0])))
    array([ 1.       ,  1.0078125, -2.       ], dtype=float32)
    """
    found = np.empty(np.shape(values), np.uint16)
    source, flat = np.reshape(values, -1), found.reshape(-1)
    for part in tiles(flat.shape, TILE):  # all at once would take the memory of float64
        flat[part] = _rounded(source[part])
    return found


def _rounded(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # of float64
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rest, upper = bits & np.uint32(0xFFFF), (bits >> np.uint32(16)).astype(np.uint16)
    up = (rest > 0x8000) | ((rest == 0x8000) & (upper & np.uint16(1) != 0))
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(is_nan, upper | np.uint16(0x40), upper + up)  # a carry goes from the fraction into the exponent


def widened(bits: np.ndarray) -> np.ndarray:
    """Return the numbers that bits of bfloat16 stand for.

    Parameters
    ----------
    bits : uint16 array
        Any shape.

    Returns
    -------
    float32 array
        The same numbers, rows one after the other.

    Examples
    --------
    >>> widened(np.array([0x3F80, 0xC000], "uint16"))
    array([ 1., -2.], dtype=float32)
    """
    return widened_by(widen, bits)


def widen(bits: np.ndarray, out: np.ndarray) -> None:
    """Write the numbers of some bits into an array.

    To copy, and then to shift in place, takes two thirds of the time of one shift that converts on the way.

    Parameters
    ----------
    bits : uint16 array
        Any shape.
    out : float32 array
        Of the same shape; it gets the numbers.

    Examples
    --------
    >>> out = np.empty(2, "float32")
    >>> widen(np.array([0x3F80, 0xC000], "uint16"), out)
    >>> out
    array([ 1., -2.], dtype=float32)
    """
    wide = out.view(np.uint32)
    np.copyto(wide, bits)
    np.left_shift(wide, np.uint32(16), out=wide)
