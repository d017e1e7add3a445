"""How much NumPy's kernels take at once.

A sweep over numbers that lie in a core's second-level cache takes a tenth of a nanosecond each, over memory eight
times that; and a call of NumPy takes a microsecond, several where two threads pass the interpreter to and fro. So a
block is as large as that cache allows. Tiles of rows are larger, for the sake of the products: the third-level cache
holds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from nezha_np.mechanism.layer import written
from nezha_np.threads import Result, part_of, share_out

BLOCK = 65536  # numbers: 256 KiB of float32, three of which fit into a second-level cache of 1 MiB
SCORES = 131072  # scores in a block of several heads, with as many distances; one head may have more
SCORES_OF_TEXTS = 32768  # scores in a block of several texts, which are short
QUERIES = 128  # the most queries in a block: many enough for fast products, few enough for few distances
ROWS = 512  # rows in a tile: with fewer, products are slow
TOKENS = 256  # the fewest tokens that a thread is started for
NUMBERS = 131072  # the fewest numbers of a sweep that a thread is started for
PRODUCTS = 2**25  # the fewest multiplications of a matrix product that a thread is started for
FEW = 128  # the most rows that are kept feature by feature
TURNED = 64  # the most rows of a product that is made column by column, and turned: for more, turning takes too long
TURNED_NUMBERS = 2**19  # numbers of a product that are turned at once, out of cache


def by_feature(x: np.ndarray) -> bool:
    """Say whether a matrix of few rows lies in memory feature by feature, and not row by row.

    BLAS multiplies few rows faster as W xᵀ, whose result lies so, than as x Wᵀ. Kernels keep the order of their
    argument.

    Parameters
    ----------
    x : (rows, H) array
        The rows.

    Returns
    -------
    bool
        Whether the numbers of a column follow one another.

    Examples
    --------
    >>> by_feature(np.ones((2, 3))), by_feature(np.ones((3, 2)).T)
    (False, True)
    """
    return bool(x.flags.f_contiguous and not x.flags.c_contiguous)


def rows_like(x: np.ndarray, columns: int) -> np.ndarray:
    """Return a matrix that is not filled yet, with as many rows as another one, and in its order.

    Parameters
    ----------
    x : (rows, H) array
        The other matrix.
    columns : int
        How many columns it is to have.

    Returns
    -------
    (rows, columns) array
        The matrix. A product of `x` that is written into it is computed by BLAS in the order that suits it.

    Examples
    --------
    >>> rows_like(np.ones((3, 2)).T, 5).flags.f_contiguous
    True
    """
    return np.empty((len(x), columns), x.dtype, order="F" if by_feature(x) else "C")


def blocks_within(own: slice, width: int) -> list[slice]:
    """Cut some of the rows of an array into blocks.

    Parameters
    ----------
    own : slice
        The rows.
    width : int
        How many numbers a row has.

    Returns
    -------
    list of slice
        The blocks, of whole rows.

    Examples
    --------
    >>> blocks_within(slice(3, 6), BLOCK // 2)
    [slice(3, 5, None), slice(5, 6, None)]
    """
    step = max(1, BLOCK // max(1, width))
    return [slice(start, min(start + step, own.stop)) for start in range(own.start, own.stop, step)]


def share_rows(shape: tuple[int, ...], run: Callable[[slice], Result]) -> list[Result]:
    """Divide rows among the threads that are free, where there are numbers enough for several.

    Parameters
    ----------
    shape : (rows, …)
        The shape of an array.
    run : callable
        ``run(own)`` sweeps over some of the rows.

    Returns
    -------
    list
        What each thread returned.

    Examples
    --------
    >>> share_rows((3, 2), lambda own: own)  # too few for two threads
    [slice(0, 3, None)]
    """
    most = min(shape[0], math.prod(shape) // NUMBERS)
    return share_out(most, lambda part, parts: run(part_of(shape[0], part, parts)))


def sweep_blocks(
    function: Callable[..., tuple[np.ndarray, ...]],
    *arrays: np.ndarray,
    out: Sequence[np.ndarray | None] | None = None,
) -> tuple[np.ndarray, ...]:
    """Apply a function of elements block by block, the blocks divided among threads.

    Parameters
    ----------
    function, *arrays, out
        As for `nezha_np.mechanism.layer.sweep`.

    Returns
    -------
    tuple of array
        What ``function(*arrays)`` returns.

    Examples
    --------
    >>> sweep_blocks(lambda x: (x + x,), np.ones(2))
    (array([2., 2.]),)
    """
    shape = arrays[0].shape
    if math.prod(shape) <= BLOCK or any(array.shape != shape for array in arrays):
        return written(function(*arrays), out)
    flat = [array.reshape(-1) for array in arrays]
    few = function(*(array[:1] for array in flat))
    targets = [None] * len(few) if out is None else out
    made = [
        np.empty(shape, one.dtype) if target is None or not target.flags.c_contiguous else target
        for one, target in zip(few, targets, strict=True)
    ]
    rows = [array.reshape(-1) for array in made]  # views: all of them are contiguous

    def run(own: slice) -> None:
        for piece in blocks_within(own, 1):
            for row, block in zip(rows, function(*(array[piece] for array in flat)), strict=True):
                row[piece] = block

    share_rows(flat[0].shape, run)
    return written(tuple(made), out)


def parts_of_product(rows: int, inner: int, columns: int) -> int:
    """Say into how many parts a matrix product may be divided.

    Parameters
    ----------
    rows, inner, columns : int
        Of a (rows, inner) and an (inner, columns) matrix.

    Returns
    -------
    int
        How many parts are worth a thread.

    Examples
    --------
    >>> parts_of_product(10, 10, 10), parts_of_product(1024, 768, 768) > 1
    (0, True)
    """
    return min(max(rows, columns), rows * inner * columns // PRODUCTS)


def multiply_part(a: np.ndarray, b: np.ndarray, out: np.ndarray, part: int, parts: int) -> tuple[slice, slice]:
    """Compute a part of the product of two matrices: some of its rows, or of its columns where it has more of these.

    Parameters
    ----------
    a, b : (rows, inner) and (inner, columns) array
        The matrices.
    out : (rows, columns) array
        Gets the part.
    part, parts : int
        Which part, from 0, and how many there are.

    Returns
    -------
    tuple of slice
        Where the part stands in `out`.

    Examples
    --------
    >>> out = np.zeros((2, 1))
    >>> multiply_part(np.ones((2, 3)), np.ones((3, 1)), out, 0, 2), out.tolist()
    ((slice(0, 1, None), slice(None, None, None)), [[3.0], [0.0]])
    """
    rows, columns = out.shape
    if rows >= columns:
        own = part_of(rows, part, parts)
        np.matmul(a[own], b, out=out[own])
        return own, slice(None)
    own = part_of(columns, part, parts)
    if 1 < rows <= TURNED and not by_feature(out):
        multiply_few(a, b[:, own], out[:, own])
    else:
        np.matmul(a, b[:, own], out=out[:, own])
    return slice(None), own


def multiply_few(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Multiply a matrix of few rows: BLAS is faster at (a b)ᵀ = bᵀ aᵀ, which is then turned in cache.

    Parameters
    ----------
    a, b : (rows, inner) and (inner, columns) array
        The matrices.
    out : (rows, columns) array
        Gets the product.

    Examples
    --------
    >>> out = np.zeros((2, 1))
    >>> multiply_few(np.ones((2, 3)), np.ones((3, 1)), out)
    >>> out.tolist()
    [[3.0], [3.0]]
    """
    rows, columns = out.shape
    step = max(1, TURNED_NUMBERS // rows)
    for start in range(0, columns, step):
        own = slice(start, start + step)
        out[:, own] = (b[:, own].T @ a.T).T
