"""How much NumPy's kernels take at once.

A sweep over numbers that lie in a core's second-level cache takes a tenth of a nanosecond each, over memory eight
times that; and a call of NumPy takes a microsecond, several where two threads pass the interpreter to and fro. So a
block is as large as that cache allows. Tiles of rows are larger, for the sake of the products: the third-level cache
holds them.
"""

from __future__ import annotations

BLOCK = 65536  # numbers: 256 KiB of float32, three of which fit into a second-level cache of 1 MiB
SCORES = 131072  # scores in a block of several heads, with as many distances; one head may have more
QUERIES = 128  # the most queries in a block: many enough for fast products, few enough for few distances
ROWS = 512  # rows in a tile: with fewer, products are slow
TOKENS = 256  # the fewest tokens that a thread is started for


def blocks(rows: int, width: int) -> list[slice]:
    """Cut rows of `width` numbers into blocks.

    Parameters
    ----------
    rows, width : int
        The shape of an array.

    Returns
    -------
    list of slice
        The blocks, of whole rows.

    Examples
    --------
    >>> blocks(3, BLOCK // 2)
    [slice(0, 2, None), slice(2, 4, None)]
    """
    step = max(1, BLOCK // max(1, width))
    return [slice(start, start + step) for start in range(0, rows, step)]
