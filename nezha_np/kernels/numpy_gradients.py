"""NumPy's kernels for training: primitives that a tape records, and their gradients, block by block.

A block stays in a core's cache between the sweeps over it; a definition sends each sweep through memory. Blocks are
divided among threads. Dimension letters as in `nezha_np.model.model`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nezha_np.arrays import same_dtype, sum_rows
from nezha_np.kernels.numpy_blocks import blocks_within, multiply_part, parts_of_product, share_rows
from nezha_np.kernels.numpy_room import empty_gradient
from nezha_np.kernels.numpy_rows import rows_of_any
from nezha_np.layers.linear import flat_rows
from nezha_np.layers.losses import IGNORE_INDEX
from nezha_np.mechanism.gradient_sums import RowSums
from nezha_np.randomness import stream
from nezha_np.threads import part_of, share_out

# ------------------------------------------------------------------------------------------------------- linear, sums


def linear_gradient_kernel(
    dy: np.ndarray, y: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None
) -> Any:
    """Divide both products and the sum among threads.

    Parameters
    ----------
    dy, y, x, weight, bias
        As for `linear_gradient`.

    Returns
    -------
    tuple of array, or NotImplemented
        dx, dweight and, where there is a bias, dbias. Declined where dtypes differ.
    """
    if not same_dtype(dy, x, weight, bias):
        return NotImplemented
    rows_dy, rows_x = np.asarray(flat_rows(dy)), np.asarray(flat_rows(x))
    dx, dweight = np.empty(rows_x.shape, x.dtype), empty_gradient(weight)
    dbias = None if bias is None else np.empty(bias.shape, x.dtype)

    def run(part: int, parts: int) -> None:
        multiply_part(rows_dy, weight, dx, part, parts)
        multiply_part(rows_dy.T, rows_x, dweight, part, parts)
        if dbias is not None:
            own = part_of(len(dbias), part, parts)
            rows_dy[:, own].sum(axis=0, out=dbias[own])

    share_out(parts_of_product(len(rows_x), *weight.shape), run)
    return (dx.reshape(x.shape), dweight) if dbias is None else (dx.reshape(x.shape), dweight, dbias)


def grouped_linear_kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Any:
    """Divide the product of each group among threads.

    Parameters
    ----------
    x, weight, bias
        As for `grouped_linear`.

    Returns
    -------
    (…, O) array, or NotImplemented
        The mapped vectors. Declined where dtypes differ.
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    rows = np.asarray(flat_rows(x))
    y = np.empty((len(rows), len(bias)), x.dtype)
    groups = columns_of_groups(weight)

    def run(part: int, parts: int) -> None:
        for matrix, ins, outs in groups:
            own, columns = multiply_part(rows[:, ins], matrix, y[:, outs], part, parts)
            y[:, outs][own, columns] += bias[outs][columns]

    share_out(parts_of_product(len(rows), weight.shape[1], len(bias)), run)
    return y.reshape(*x.shape[:-1], len(bias))


def grouped_linear_gradient_kernel(
    dy: np.ndarray, y: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> Any:
    """Divide the products of each group, and the sum, among threads.

    Parameters
    ----------
    dy, y, x, weight, bias
        As for `grouped_linear_gradient`.

    Returns
    -------
    tuple of array, or NotImplemented
        dx, dweight and dbias. Declined where dtypes differ.
    """
    if not same_dtype(dy, x, weight, bias):
        return NotImplemented
    rows_dy, rows_x = np.asarray(flat_rows(dy)), np.asarray(flat_rows(x))
    dx, dweight, dbias = np.empty(rows_x.shape, x.dtype), empty_gradient(weight), np.empty(bias.shape, x.dtype)
    groups = columns_of_groups(weight)

    def run(part: int, parts: int) -> None:
        for group, (matrix, ins, outs) in enumerate(groups):
            multiply_part(rows_dy[:, outs], matrix.T, dx[:, ins], part, parts)
            multiply_part(rows_x[:, ins].T, rows_dy[:, outs], dweight[group], part, parts)
        own = part_of(len(dbias), part, parts)
        rows_dy[:, own].sum(axis=0, out=dbias[own])

    share_out(parts_of_product(len(rows_x), weight.shape[1], len(bias)), run)
    return dx.reshape(x.shape), dweight, dbias


def columns_of_groups(weight: np.ndarray) -> list[tuple[np.ndarray, slice, slice]]:
    """List each group's matrix, and the features that go into it and come out of it."""
    _, ins, outs = weight.shape
    return [
        (matrix, slice(group * ins, (group + 1) * ins), slice(group * outs, (group + 1) * outs))
        for group, matrix in enumerate(weight)
    ]


def add_kernel(x: np.ndarray, y: np.ndarray) -> Any:
    """Divide the sweep among threads.

    Parameters
    ----------
    x, y
        As for `add`.

    Returns
    -------
    array of the shape of x, or NotImplemented
        ``x + y``. Declined where dtypes or shapes differ.
    """
    return sweep(np.add, x, y) if same_dtype(x, y) and x.shape == y.shape else NotImplemented


def rescale_kernel(x: np.ndarray, factor: np.ndarray) -> Any:
    """Divide the sweep among threads.

    Parameters
    ----------
    x, factor
        As for `rescale`.

    Returns
    -------
    array of the shape of x, or NotImplemented
        ``x * factor``. Declined where dtypes or shapes differ.
    """
    return sweep(np.multiply, x, factor) if same_dtype(x, factor) and x.shape == factor.shape else NotImplemented


def rescale_gradient_kernel(
    dy: np.ndarray, y: np.ndarray, x: np.ndarray, factor: np.ndarray, *, out: np.ndarray | None = None
) -> Any:
    """Divide the sweep among threads.

    Parameters
    ----------
    dy, y, x, factor
        As for `rescale_gradient`.
    out : array of the shape of x, optional
        Gets the gradient; it may be `dy`.

    Returns
    -------
    array of the shape of x, or NotImplemented
        ``dy * factor``. Declined where dtypes or shapes differ.
    """
    return (
        sweep(np.multiply, dy, factor, out) if same_dtype(dy, factor) and dy.shape == factor.shape else NotImplemented
    )


def sweep(function: np.ufunc, x: np.ndarray, y: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Apply a function of two numbers to arrays of one shape, some rows in each thread.

    A ufunc writes into its result itself: `sweep_blocks`, for any function, copies each block once more.
    """
    out = np.empty(x.shape, x.dtype) if out is None else out
    if not x.ndim:
        return np.asarray(function(x, y, out=out))

    def run(own: slice) -> None:
        function(x[own], y[own], out=out[own])

    share_rows(x.shape, run)
    return out


# ---------------------------------------------------------------------------------------------------------------- gelu

SMALL = 1e-30  # below it y / x has lost digits to the smallest numbers; there Φ(x) is ½


def gelu_gradient_kernel(dy: np.ndarray, y: np.ndarray, x: np.ndarray, *, out: np.ndarray | None = None) -> Any:
    """Φ(x) + x φ(x), where Φ(x) is y / x: the result has it already.

    Parameters
    ----------
    dy, y, x
        As for `gelu_gradient`.
    out : array of the shape of x, optional
        Gets the gradient; it may be `dy`.

    Returns
    -------
    float32 array of the shape of x, or NotImplemented
        The gradient. Declined where dtypes differ.
    """
    if not same_dtype(dy, y, x):
        return NotImplemented
    dx = np.empty(x.shape, x.dtype) if out is None else out
    rows = [rows_of_any(array) for array in (dy, y, x, dx)]

    def run(own: slice) -> None:
        pieces = blocks_within(own, rows[3].shape[1])
        room: Any = np.empty((2, *rows[3][pieces[0]].shape), x.dtype) if pieces else None
        for piece in pieces:
            block_dy, block_y, block_x, block = (array[piece] for array in rows)
            density, factor = room[:, : len(block)]
            with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
                np.multiply(block_x, block_x, out=density)
                density *= -0.5
                np.exp(density, out=density)
                density *= block_x
                density *= 1.0 / math.sqrt(2.0 * math.pi)
                np.divide(block_y, block_x, out=factor)
            small = np.abs(block_x) < SMALL
            if small.any():
                factor[small] = 0.5
            factor += density
            np.multiply(factor, block_dy, out=block)

    share_rows(rows[3].shape, run)
    return dx


# ---------------------------------------------------------------------------------------------------------------- norm


def layer_norm_gradient_kernel(
    dy: np.ndarray, y: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float
) -> Any:
    """The gradients of a norm, block by block.

    Parameters
    ----------
    dy, y, x, weight, bias, eps
        As for `layer_norm_gradient`.

    Returns
    -------
    tuple of array, or NotImplemented
        dx, dweight and dbias. Declined where dtypes differ.
    """
    if not same_dtype(dy, x, weight, bias):
        return NotImplemented
    dx = np.empty(x.shape, x.dtype)
    rows = [np.asarray(flat_rows(array)) for array in (dy, x, dx)]
    size = x.shape[-1]

    def run(own: slice) -> tuple[np.ndarray, np.ndarray]:
        dweight, dbias = np.zeros(size, x.dtype), np.zeros(size, x.dtype)
        for piece in blocks_within(own, size):
            block_dy, block_x, out = (array[piece] for array in rows)
            ones = np.ones(len(out), x.dtype)
            normalised = block_x - block_x.mean(axis=-1, keepdims=True)
            scale = 1.0 / np.sqrt(np.vecdot(normalised, normalised)[:, None] / size + eps)  # 1 / deviation
            normalised *= scale
            np.multiply(block_dy, normalised, out=out)
            dbias += ones @ block_dy  # sums by BLAS
            dweight += ones @ out
            along = (out @ weight)[:, None] / size
            np.multiply(block_dy, weight, out=out)
            out -= (block_dy @ weight)[:, None] / size
            normalised *= along
            out -= normalised
            out *= scale
        return dweight, dbias

    parts = share_rows(rows[2].shape, run)
    dweight, dbias = (sum(sums[1:], start=sums[0]) for sums in zip(*parts, strict=True))
    return dx, dweight, dbias


# ----------------------------------------------------------------------------------------------------------- embedding


def embedding_gradient_kernel(
    dy: np.ndarray, y: np.ndarray, ids: np.ndarray, weight: np.ndarray, *, padding_idx: int | None = None
) -> Any:
    """Add up the rows of the ids that are there, and make no array of the size of the table.

    Parameters
    ----------
    dy, y, ids, weight, padding_idx
        As for `embedding_gradient`.

    Returns
    -------
    tuple of (None, RowSums), or NotImplemented
        The sums, the same bits as the definition's. Declined where dtypes differ.
    """
    if not same_dtype(dy, weight):
        return NotImplemented
    flat, rows = ids.reshape(-1), np.asarray(flat_rows(dy))
    if padding_idx is not None:
        counts = flat != padding_idx
        flat, rows = flat[counts], rows[counts]
    numbers, places = np.unique(flat, return_inverse=True)
    return None, RowSums(numbers, sum_rows(places, rows, len(numbers)), len(weight))


# ---------------------------------------------------------------------------------------------------------------- loss


def cross_entropy_gradient_kernel(
    dloss: np.ndarray, loss: np.ndarray, logits: np.ndarray, labels: np.ndarray, *, ignore_index: int = IGNORE_INDEX
) -> Any:
    """softmax(z) − [c = y] over the rows that count, block by block.

    Parameters
    ----------
    dloss, loss, logits, labels, ignore_index
        As for `cross_entropy_gradient`.

    Returns
    -------
    array of the shape of logits, or NotImplemented
        The gradient. Declined where dtypes differ.
    """
    if not same_dtype(dloss, logits):
        return NotImplemented
    flat = labels.reshape(-1)
    counts = flat != ignore_index
    share = (counts * (dloss / max(1, int(counts.sum())))).astype(logits.dtype)[:, None]  # (n, 1)
    dlogits = np.empty(logits.shape, logits.dtype)
    rows: Any = flat_rows(logits)
    out: Any = flat_rows(dlogits)

    def run(own: slice) -> None:
        for piece in blocks_within(own, rows.shape[1]):
            block = out[piece]
            np.subtract(rows[piece], rows[piece].max(axis=-1, keepdims=True), out=block)
            np.exp(block, out=block)
            block *= share[piece] / block.sum(axis=-1, keepdims=True)

    share_rows(rows.shape, run)
    right = np.flatnonzero(counts)
    out[right, flat[right]] -= share[right, 0]
    return dlogits


# ------------------------------------------------------------------------------------------------------------- dropout


def dropout_mask_kernel(x: np.ndarray, *, rate: float, key: tuple[object, ...], start: int = 0) -> np.ndarray:
    """Compare the bits that the uniform numbers are made of, block by block: a thread begins anywhere in the stream.

    Parameters
    ----------
    x, rate, key, start
        As for `dropout_mask`.

    Returns
    -------
    array of the shape of x
        The mask, the same bits as the definition's.
    """
    mask = np.empty(math.prod(x.shape), x.dtype)
    least = np.uint64(math.ceil(rate * 2.0**53) << 11)  # the integers are the upper 53 of 64 bits
    factor = x.dtype.type(1.0 / (1.0 - rate))

    def run(own: slice) -> None:
        numbers = stream(*key, start=start + own.start)
        for piece in blocks_within(own, 1):
            np.multiply(numbers.random_raw(piece.stop - piece.start) >= least, factor, out=mask[piece])

    share_rows(mask.shape, run)
    return mask.reshape(x.shape)
