"""Random numbers that are the same on every machine: each key has a stream of its own.

The bits come from Philox (Salmon et al. 2011), whose key is a hash of a seed and a name; everything after them is
+ − × ÷ in float64, which IEEE 754 fixes to the last bit. As the key is hashed, a seed may be any integer, also a
negative one.
"""

from __future__ import annotations

import hashlib

import numpy as np


def uniform(count: int, *key: object, start: int = 0) -> np.ndarray:
    """Draw uniform numbers from 0 to 1.

    Parameters
    ----------
    count : int
        How many.
    *key : str or int
        What the stream depends on: a seed, a step, a name.
    start : int
        How many numbers of the stream to leave out.

    Returns
    -------
    (count,) float64 array
        Multiples of 2⁻⁵³, 1 not among them.

    Examples
    --------
    >>> uniform(2, 0, "encoder.layer.0.output.dense.weight").round(4)
    array([0.4109, 0.8848])
    """
    return random_integers(count, *key, start=start).astype(np.float64) * 2.0**-53


def random_integers(count: int, *key: object, start: int = 0) -> np.ndarray:
    """Draw integers from 0 to 2⁵³ − 1: the uniform numbers of the same key, times 2⁵³.

    Parameters
    ----------
    count : int
        How many.
    *key : str or int
        What the stream depends on.
    start : int
        How many integers of the stream to leave out; that takes no time.

    Returns
    -------
    (count,) uint64 array
        The integers.

    Examples
    --------
    >>> (random_integers(2, 0, "x") * 2.0**-53 == uniform(2, 0, "x")).all()
    np.True_
    >>> (random_integers(5, 0, "x", start=95) == random_integers(100, 0, "x")[95:]).all()
    np.True_
    """
    integers: np.ndarray = stream(*key, start=start).random_raw(count) >> np.uint64(11)
    return integers


def stream(*key: object, start: int = 0) -> np.random.Philox:
    """Return the stream of a key: the numbers of 64 bits, whose upper 53 are the integers.

    Parameters
    ----------
    *key : str or int
        What the stream depends on.
    start : int
        How many numbers of the stream to leave out; that takes no time.

    Returns
    -------
    Philox
        Its ``random_raw(count)`` draws the next numbers.

    Examples
    --------
    >>> (stream(0, "x").random_raw(2) >> np.uint64(11) == random_integers(2, 0, "x")).all()
    np.True_
    """
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    blocks, left = divmod(start, 4)  # Philox makes four numbers at a time, each block by its number alone
    generator = np.random.Philox(key=int.from_bytes(digest[:16], "little"), counter=blocks)
    generator.random_raw(left, output=False)
    return generator
