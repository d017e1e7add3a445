"""NumPy's kernels for attention while training: what a tape records of it, and the gradients, block by block.

`numpy_attention` keeps no probabilities; a tape needs them. So each layer has a kernel of its own here, which goes
through blocks of some heads and queries of one text, divided among threads. Dimension letters as in
`nezha_np.model.model`; G the heads of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.arrays import same_dtype
from nezha_np.kernels import numpy_blocks
from nezha_np.kernels.numpy_attention import Room, add_position_context, add_position_scores
from nezha_np.threads import part_of, share_out

# ------------------------------------------------------------------------------------------------------------- blocks

Heads = tuple[int, slice]  # some heads of a text


def blocks_of_heads(batch: int, heads: int, together: int) -> list[Heads]:
    """Cut the heads of all texts into blocks of so many heads."""
    starts = range(0, heads, together)
    return [(text, slice(start, min(start + together, heads))) for text in range(batch) for start in starts]


def share_heads(shape: tuple[int, ...], run: Callable[[list[Heads]], None]) -> None:
    """Divide the heads of all texts among threads, in blocks that stay in cache.

    Parameters
    ----------
    shape : (B, N, Q, S)
        The shape of the scores.
    run : callable
        ``run(pieces)`` works through some of the blocks.

    Examples
    --------
    >>> share_heads((2, 3, 1, 1), print)
    [(0, slice(0, 3, None)), (1, slice(0, 3, None))]
    """
    batch, heads, queries, keys = shape
    step = max(1, numpy_blocks.BLOCK // max(1, queries * keys))
    pieces = blocks_of_heads(batch, heads, step)
    most = min(len(pieces), math.prod(shape) // numpy_blocks.NUMBERS)
    share_out(most, lambda part, parts: run(pieces[part_of(len(pieces), part, parts)]))


def product_of_heads(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multiply the matrices of each head, some heads in each thread: (B, N, I, J), (B, N, J, K) -> (B, N, I, K)."""
    out = np.empty((*a.shape[:3], b.shape[3]), a.dtype)

    def run(pieces: list[Heads]) -> None:
        for piece in pieces:
            np.matmul(a[piece], b[piece], out=out[piece])

    share_heads((*a.shape[:2], *sorted((*a.shape[2:], b.shape[3]))[1:]), run)  # the largest of the three matrices
    return out


# ----------------------------------------------------------------------------------------------------------- products


def content_scores_kernel(q: np.ndarray, k: np.ndarray) -> Any:
    """Score each key by its content, some heads in each thread.

    Parameters
    ----------
    q, k
        As for `content_scores`.

    Returns
    -------
    (B, N, Q, S) array, or NotImplemented
        The scores. Declined where dtypes or heads differ.
    """
    return product_of_heads(q, np.matrix_transpose(k)) if alike(q, k) else NotImplemented


def content_scores_gradient_kernel(dy: np.ndarray, y: np.ndarray, q: np.ndarray, k: np.ndarray) -> Any:
    """dq = dy k, dk = dyᵀ q, some heads in each thread.

    Parameters
    ----------
    dy, y, q, k
        As for `content_scores_gradient`.

    Returns
    -------
    tuple of array, or NotImplemented
        dq and dk. Declined where dtypes or heads differ.
    """
    if not alike(dy, q, k):
        return NotImplemented
    return product_of_heads(dy, k), product_of_heads(np.matrix_transpose(dy), q)


def content_context_kernel(probs: np.ndarray, v: np.ndarray) -> Any:
    """Average the values, some heads in each thread.

    Parameters
    ----------
    probs, v
        As for `content_context`.

    Returns
    -------
    (B, N, Q, D) array, or NotImplemented
        The context. Declined where dtypes or heads differ.
    """
    return product_of_heads(probs, v) if alike(probs, v) else NotImplemented


def content_context_gradient_kernel(dy: np.ndarray, y: np.ndarray, probs: np.ndarray, v: np.ndarray) -> Any:
    """dprobs = dy vᵀ, dv = probsᵀ dy, some heads in each thread.

    Parameters
    ----------
    dy, y, probs, v
        As for `content_context_gradient`.

    Returns
    -------
    tuple of array, or NotImplemented
        dprobs and dv. Declined where dtypes or heads differ.
    """
    if not alike(dy, probs, v):
        return NotImplemented
    return product_of_heads(dy, np.matrix_transpose(v)), product_of_heads(np.matrix_transpose(probs), dy)


def alike(*arrays: np.ndarray) -> bool:
    """Say whether arrays have one dtype, and the same texts and heads."""
    return same_dtype(*arrays) and len({array.shape[:2] for array in arrays}) == 1


# ------------------------------------------------------------------------------------------------------------ softmax


def softmax_in_place(x: np.ndarray) -> None:
    """Apply softmax to the rows of a block."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)


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

    def run(pieces: list[Heads]) -> None:
        for text, heads in pieces:
            block = y[text, heads]  # (G, Q, S)
            np.multiply(scores[text, heads], scale, out=block)
            if mask is not None:
                block += mask[text if len(mask) > 1 else 0]
            softmax_in_place(block)

    share_heads(scores.shape, run)
    return y


def attention_probs_gradient_kernel(
    dy: np.ndarray,
    y: np.ndarray,
    scores: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    scale: float,
    out: np.ndarray | None = None,
) -> Any:
    """y (dy − Σ y dy) scale, block by block.

    Parameters
    ----------
    dy, y, scores, mask, scale
        As for `attention_probs_gradient`.
    out : (B, N, Q, S) array, optional
        Gets the gradient; it may be `dy`.

    Returns
    -------
    (B, N, Q, S) array, or NotImplemented
        The gradient. Declined where dtypes differ.
    """
    if not same_dtype(dy, y):
        return NotImplemented
    dx = np.empty(y.shape, y.dtype) if out is None else out

    def run(pieces: list[Heads]) -> None:
        for piece in pieces:
            block, probs = dx[piece], y[piece]
            np.subtract(dy[piece], np.vecdot(dy[piece], probs)[..., None], out=block)
            block *= probs
            block *= scale

    share_heads(y.shape, run)
    return dx


# -------------------------------------------------------------------------------------------------- relative positions

Blocks = Callable[[Any, Room], None]  # of the indices of a block, and room for its distances


def share_distances(shape: tuple[int, ...], table: np.ndarray, past: int, run: Blocks) -> None:
    """Go through blocks of heads and queries, each with room for the numbers of its distances.

    Parameters
    ----------
    shape : (B, N, Q, S)
        The shape of the scores.
    table : (2K + 1, D) array
        The rows of the distances.
    past : int
        Where the first query stands.
    run : callable
        ``run(block, room)`` works on the heads and queries ``[block]``.
    """
    batch, heads, queries, keys = shape
    step = max(1, min(queries, numpy_blocks.QUERIES))
    together = min(heads, max(1, numpy_blocks.BLOCK // max(1, step * keys)))  # G
    groups = blocks_of_heads(batch, heads, together)

    def work(part: int, parts: int) -> None:
        for start in range(0, queries, step):
            own = slice(start, min(start + step, queries))
            room = Room.of(together, own.stop - start, keys, past + start, table, table.dtype)
            for text, group in groups[part_of(len(groups), part, parts)]:
                run((text, group, own), room)

    share_out(min(len(groups), math.prod(shape) // numpy_blocks.NUMBERS), work)


def position_scores_kernel(q: np.ndarray, table: np.ndarray, *, keys: int, past: int = 0) -> Any:
    """Multiply each query with the rows, and write the products to the keys, block by block.

    Parameters
    ----------
    q, table, keys, past
        As for `position_scores`.

    Returns
    -------
    (B, N, Q, S) array, or NotImplemented
        The position term. Declined where dtypes differ, and for a table of one row.
    """
    if not same_dtype(q, table) or len(table) == 1:
        return NotImplemented
    y = np.empty((*q.shape[:3], keys), q.dtype)

    def run(block: Any, room: Room) -> None:
        y[block] = 0.0
        add_position_scores(y[block], q[block], table, room)

    share_distances(y.shape, table, past, run)
    return y


def position_context_kernel(probs: np.ndarray, table: np.ndarray, *, past: int = 0) -> Any:
    """Collect the probabilities by distance, and multiply with the rows, block by block.

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
    y = np.zeros((*probs.shape[:3], table.shape[1]), probs.dtype)

    def run(block: Any, room: Room) -> None:
        add_position_context(y[block], probs[block], table, room)

    share_distances(probs.shape, table, past, run)
    return y


def position_scores_gradient_kernel(
    dy: np.ndarray, y: np.ndarray, q: np.ndarray, table: np.ndarray, *, keys: int, past: int = 0
) -> Any:
    """dq = collect(dy) T: what `position_context` computes.

    Parameters
    ----------
    dy, y, q, table, keys, past
        As for `position_scores_gradient`.

    Returns
    -------
    (B, N, Q, D) array, or NotImplemented
        The gradient. Declined where dtypes differ, and for a table of one row.
    """
    return position_context_kernel(dy, table, past=past)


def position_context_gradient_kernel(
    dy: np.ndarray, y: np.ndarray, probs: np.ndarray, table: np.ndarray, *, past: int = 0
) -> Any:
    """dprobs = spread(dy Tᵀ): what `position_scores` computes.

    Parameters
    ----------
    dy, y, probs, table, past
        As for `position_context_gradient`.

    Returns
    -------
    (B, N, Q, S) array, or NotImplemented
        The gradient. Declined where dtypes differ, and for a table of one row.
    """
    return position_scores_kernel(dy, table, keys=probs.shape[-1], past=past)
