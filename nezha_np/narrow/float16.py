"""float16 to float32: NumPy converts number by number, and this moves the bits of many at once.

float16 has 5 bits of exponent, counted from 15, and 10 of the fraction; float32 has 8, counted from 127, and 23. So the
bits of a number are moved to their places, and the result, whose exponent is too small by 112, is multiplied by 2¹¹².
That is exact. Infinity and NaN, which have an exponent of ones, are left to NumPy, and so are many numbers below 2⁻¹⁴,
whose exponent is 0: float32 has the moved bits as subnormal numbers, which a processor multiplies one by one. (A thread
that takes subnormal numbers for 0, as after ``torch.set_flush_denormal(True)``, takes few of them for 0 here too.)
"""

from __future__ import annotations

import numpy as np

from nezha_np.narrow.tiles import widened_by

SMALL = 4096  # numbers that NumPy's own conversion is as fast for
FEW = 1 / 16  # of the numbers
EXPONENT = np.int16(0x7C00)
SIGN_AND_REST = np.int32(-0x70002000)  # 0x8fffe000: the bits of float32 that those of float16 are moved to
REBIAS = np.float32(2.0**112)


def widened(x: np.ndarray) -> np.ndarray:
    """Convert float16 to float32, several times as fast as NumPy.

    Parameters
    ----------
    x : float16 array
        Any shape.

    Returns
    -------
    float32 array
        The same numbers, rows one after the other.

    Examples
    --------
    >>> widened(np.array([0.5, -2.0], "float16"))
    array([ 0.5, -2. ], dtype=float32)
    """
    if x.size < SMALL:
        return x.astype(np.float32, order="C")
    return widened_by(widen, x)


def widen(x: np.ndarray, out: np.ndarray) -> None:
    """Write numbers in float16 into an array of float32.

    Parameters
    ----------
    x : float16 array
        Any shape.
    out : float32 array
        Of the same shape; it gets the numbers.

    Examples
    --------
    >>> out = np.empty(3, "float32")
    >>> widen(np.array([0.5, -2.0, np.inf], "float16"), out)
    >>> out
    array([ 0.5, -2. ,  inf], dtype=float32)
    """
    bits = x.view(np.int16)
    exponents = bits & EXPONENT
    if exponents.max(initial=0) == EXPONENT or np.count_nonzero(exponents) < (1 - FEW) * bits.size:
        np.copyto(out, x)
        return
    wide = out.view(np.int32)
    np.copyto(wide, bits)  # with as many copies of the sign before it
    np.left_shift(wide, np.int32(13), out=wide)
    np.bitwise_and(wide, SIGN_AND_REST, out=wide)
    np.multiply(out, REBIAS, out=out)
