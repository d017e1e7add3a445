"""NumPy's kernels for training: primitives that a tape records, and their gradients, block by block.

A block stays in a core's cache between the sweeps over it; a definition sends each sweep through memory. Blocks are
divided among threads. Dimension letters as in `nezha_np.model.model`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nezha_np.arrays import same_dtype
from nezha_np.kernels.numpy_blocks import blocks
from nezha_np.layers.linear import flat_rows
from nezha_np.layers.losses import IGNORE_INDEX
from nezha_np.randomness import random_integers

# ------------------------------------------------------------------------------------------------------------- softmax


def softmax_in_place(x: np.ndarray) -> None:
    """Apply softmax to the rows of a block."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)


def blocks_of_heads(shape: tuple[int, ...]) -> list[slice]:
    """Cut the heads of a text into blocks of whole heads; the shape is (B, N, Q, S)."""
    _, heads, queries, keys = shape
    return blocks(heads, queries * keys)


def attention_probs_kernel(scores: np.ndarray, mask: np.ndarray | None = None, *, scale: float) -> Any:
    """Scale, mask and softmax in one visit of each block of heads.

    Parameters
    ----------
    scores, mask, scale
        As for `attention_probs`.

    Returns
    -------
    (B, N, Q, S) array, or NotImplemented
        The probabilities. Declined where dtypes differ.
    """
    if mask is not None and not same_dtype(scores, mask):
        return NotImplemented
    y = np.empty(scores.shape, scores.dtype)
    for text in range(len(scores)):
        for heads in blocks_of_heads(scores.shape):
            block = y[text, heads]  # (heads, Q, S)
            np.multiply(scores[text, heads], scale, out=block)
            if mask is not None:
                block += mask[text if len(mask) > 1 else 0]
            softmax_in_place(block)
    return y


def attention_probs_gradient_kernel(
    dy: np.ndarray, y: np.ndarray, scores: np.ndarray, mask: np.ndarray | None = None, *, scale: float
) -> Any:
    """y (dy − Σ y dy) scale, block by block.

    Parameters
    ----------
    dy, y, scores, mask, scale
        As for `attention_probs_gradient`.

    Returns
    -------
    (B, N, Q, S) array, or NotImplemented
        The gradient. Declined where dtypes differ.
    """
    if not same_dtype(dy, y):
        return NotImplemented
    dx = np.empty(y.shape, y.dtype)
    for text in range(len(y)):
        for heads in blocks_of_heads(y.shape):
            block, probs = dx[text, heads], y[text, heads]
            np.subtract(dy[text, heads], np.vecdot(dy[text, heads], probs)[..., None], out=block)
            block *= probs
            block *= scale
    return dx


# ---------------------------------------------------------------------------------------------------------------- gelu

SMALL = 1e-30  # below it y / x has lost digits to the smallest numbers; there Φ(x) is ½


def gelu_gradient_kernel(dy: np.ndarray, y: np.ndarray, x: np.ndarray) -> Any:
    """Φ(x) + x φ(x), where Φ(x) is y / x: the result has it already.

    Parameters
    ----------
    dy, y, x
        As for `gelu_gradient`.

    Returns
    -------
    float32 array of the shape of x, or NotImplemented
        The gradient. Declined where dtypes differ.
    """
    if not same_dtype(dy, y, x):
        return NotImplemented
    dx = np.empty(x.shape, x.dtype)
    rows: Any = [flat_rows(array) if array.ndim > 1 else array.reshape(-1, 1) for array in (dy, y, x, dx)]
    pieces = blocks(*rows[3].shape)
    room: Any = np.empty(rows[3][pieces[0]].shape, x.dtype) if pieces else None
    for piece in pieces:
        block_dy, block_y, block_x, out = (array[piece] for array in rows)
        density = room[: len(out)]
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            np.multiply(block_x, block_x, out=density)
            density *= -0.5
            np.exp(density, out=density)
            density *= block_x
            density *= 1.0 / math.sqrt(2.0 * math.pi)
            np.divide(block_y, block_x, out=out)
        small = np.abs(block_x) < SMALL
        if small.any():
            out[small] = 0.5
        out += density
        out *= block_dy
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
    rows: Any = [flat_rows(array) for array in (dy, x, dx)]
    rows_dy, rows_x, rows_dx = rows
    size = x.shape[-1]
    dweight, dbias = np.zeros(size, x.dtype), np.zeros(size, x.dtype)
    for piece in blocks(*rows_x.shape):
        block_dy, normalised = rows_dy[piece], rows_x[piece] - rows_x[piece].mean(axis=-1, keepdims=True)
        deviation = np.sqrt(np.vecdot(normalised, normalised)[:, None] / size + eps)
        normalised /= deviation
        dbias += block_dy.sum(axis=0)
        g = block_dy * normalised
        dweight += g.sum(axis=0)
        np.multiply(block_dy, weight, out=g)
        along = np.vecdot(g, normalised)[:, None] / size
        out = rows_dx[piece]
        normalised *= along
        np.subtract(g, g.mean(axis=-1, keepdims=True), out=out)
        out -= normalised
        out /= deviation
    return dx, dweight, dbias


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
    for piece in blocks(*rows.shape):
        block = out[piece]
        np.subtract(rows[piece], rows[piece].max(axis=-1, keepdims=True), out=block)
        np.exp(block, out=block)
        block *= share[piece] / block.sum(axis=-1, keepdims=True)
    right = np.flatnonzero(counts)
    out[right, flat[right]] -= share[right, 0]
    return dlogits


# ------------------------------------------------------------------------------------------------------------- dropout


def dropout_mask_kernel(x: np.ndarray, *, rate: float, key: tuple[object, ...], start: int = 0) -> np.ndarray:
    """Compare the integers that the uniform numbers are made of: the same mask, without making them.

    Parameters
    ----------
    x, rate, key, start
        As for `dropout_mask`.

    Returns
    -------
    array of the shape of x
        The mask, the same bits as the definition's.
    """
    keep = random_integers(math.prod(x.shape), *key, start=start) >= np.uint64(math.ceil(rate * 2.0**53))
    mask = keep.reshape(x.shape).astype(x.dtype)
    mask *= x.dtype.type(1.0 / (1.0 - rate))
    return mask


# -------------------------------------------------------------------------------------------------- relative positions


def collect_rows(by_key: np.ndarray, *, rows: int, past: int) -> np.ndarray:
    """Add up the numbers of all keys at the same distance, as `collect` does.

    The numbers of query i are written i places to the left of those of query 0, into zeros: then each distance is a
    column. `collect` makes the same by joining and folding arrays.
    """
    batch, heads, queries, keys = by_key.shape
    width, reach = queries + keys - 1, rows // 2
    by_distance = np.zeros((batch, heads, queries, width), by_key.dtype)
    size = by_key.dtype.itemsize
    shifted = np.lib.stride_tricks.as_strided(
        by_distance[..., queries - 1 :],
        by_key.shape,
        (*by_distance.strides[:2], (width - 1) * size, size),
    )
    shifted[...] = by_key
    shift = queries - 1 + past - reach  # column c belongs to row c − shift
    y = np.zeros((batch, heads, queries, rows), by_key.dtype)
    first, last = min(max(shift + 1, 0), width), min(max(shift + rows - 1, 0), width)
    last = max(first, last)
    y[..., 0] = by_distance[..., :first].sum(axis=-1)
    y[..., first - shift : last - shift] = by_distance[..., first:last]
    y[..., -1] += by_distance[..., last:].sum(axis=-1)
    return y


def position_context_kernel(probs: np.ndarray, table: np.ndarray, *, past: int = 0) -> Any:
    """Collect the probabilities by distance, and multiply.

    Parameters
    ----------
    probs, table, past
        As for `position_context`.

    Returns
    -------
    (B, N, Q, D) array, or NotImplemented
        The position term. Declined where dtypes differ, and for a table of one row.
    """
    if not same_dtype(probs, table) or len(table) == 1:
        return NotImplemented
    return np.matmul(collect_rows(probs, rows=len(table), past=past), table)


def position_scores_gradient_kernel(
    dy: np.ndarray, y: np.ndarray, q: np.ndarray, table: np.ndarray, *, keys: int, past: int = 0
) -> Any:
    """Collect the gradient by distance, and multiply.

    Parameters
    ----------
    dy, y, q, table, keys, past
        As for `position_scores_gradient`.

    Returns
    -------
    (B, N, Q, D) array, or NotImplemented
        The gradient. Declined where dtypes differ, and for a table of one row.
    """
    if not same_dtype(dy, table) or len(table) == 1:
        return NotImplemented
    return np.matmul(collect_rows(dy, rows=len(table), past=past), table)
