"""CuPy's kernels for gradients: one launch each, and more for sums over tokens.

They write over no argument but where they are asked to, and return new arrays, into which the walk back may write.
Every sum has an order that depends on shapes and ids alone: on the same GPU its bits are the same on each run.
Dimension letters as in `nezha_np.model.model`.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from nezha_np.arrays import same_dtype
from nezha_np.kernels.cuda import NUMBERS, count_rows, launch
from nezha_np.kernels.cupy_attention import position_context_kernel, position_scores_kernel
from nezha_np.layers.losses import IGNORE_INDEX

TOKENS = 64  # in a part: so many tokens a block adds up, before the sums of all parts are added up


def place_for(dy: Any, out: Any) -> Any:
    """Return where to write a gradient of the shape of dy: `out`, where a kernel can write there, or a new array."""
    return out if out is not None and out.flags.c_contiguous else cupy.empty(dy.shape, dy.dtype)


def gelu_gradient_kernel(dy: Any, y: Any, x: Any, *, out: Any = None) -> Any:
    """Compute dy (Φ(x) + x φ(x)) in one launch.

    Parameters
    ----------
    dy, y, x
        As for `gelu_gradient`.
    out : array of the shape of x, optional
        Gets the gradient, where its rows follow each other in memory; it may be `dy`.

    Returns
    -------
    array of the shape of x, or NotImplemented
        The gradient. Declined where dtypes differ.
    """
    if not same_dtype(dy, x):
        return NotImplemented
    dx = place_for(dy, out)
    rows, width = (count_rows(x), x.shape[-1]) if x.ndim else (1, 1)
    launch("gelu_gradient", (dx, dy, x), rows=rows, width=width)
    return dx


def layer_norm_gradient_kernel(dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """Compute dx in one launch, and the sums over all tokens in two.

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
    tokens, size = count_rows(x), x.shape[-1]
    dx, statistics = cupy.empty(x.shape, x.dtype), cupy.empty((tokens, 2), np.float32)  # mean, 1 / deviation
    launch("normalise_gradient", (dx, statistics, dy, x, weight), float(eps), rows=tokens, width=size)

    count, columns = -(-tokens // TOKENS), -(-size // 32)  # parts, and blocks for the columns of one
    parts, arrays = cupy.empty((count, 2, size), np.float32), (dy, x, statistics)
    launch("normalise_sums", (parts, *arrays), tokens, TOKENS, rows=count * columns, width=size, dtype=x.dtype)
    both = cupy.empty((2, size), x.dtype)
    launch("sum_parts", (both, parts), count, rows=-(-2 * size // 32), width=2 * size)
    return dx, both[0], both[1]


def embedding_gradient_kernel(dy: Any, y: Any, ids: Any, weight: Any, *, padding_idx: int | None = None) -> Any:
    """Sort the tokens by id, and add up those of one id; CuPy's ``add.at`` would add them in any order.

    Parameters
    ----------
    dy, y, ids, weight, padding_idx
        As for `embedding_gradient`.

    Returns
    -------
    tuple of (None, array), or NotImplemented
        dweight. Declined where dtypes differ.
    """
    if not same_dtype(dy, weight):
        return NotImplemented
    count, size = weight.shape
    tokens = count_rows(dy)
    flat = cupy.asarray(ids.reshape(tokens), dtype=np.int64) % count  # CuPy's take wraps ids that are out of range too
    order = cupy.argsort(flat)  # CuPy's is stable
    ordered, sums = flat[order], cupy.empty((tokens, size), np.float32)
    launch("embedding_sums", (sums, dy, order, ordered), TOKENS, rows=tokens, width=size, dtype=dy.dtype)
    dweight, padding = cupy.zeros(weight.shape, weight.dtype), -1 if padding_idx is None else padding_idx
    launch("embedding_rows", (dweight, sums, ordered), padding, TOKENS, rows=tokens, width=size)
    return None, dweight


def attention_probs_gradient_kernel(
    dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float, out: Any = None
) -> Any:
    """Compute scale · y (dy − Σ y dy) in one launch.

    Parameters
    ----------
    dy, y, scores, mask, scale
        As for `attention_probs_gradient`.
    out : (B, N, Q, S) array, optional
        Gets the gradient, where its rows follow each other in memory; it may be `dy`.

    Returns
    -------
    (B, N, Q, S) array, or NotImplemented
        The gradient. Declined where dtypes differ.
    """
    if not same_dtype(dy, y, scores):
        return NotImplemented
    dscores = place_for(dy, out)
    launch("softmax_gradient", (dscores, dy, y), float(scale), rows=count_rows(y), width=y.shape[-1])
    return dscores


def position_scores_gradient_kernel(dy: Any, y: Any, q: Any, table: Any, *, keys: int, past: int = 0) -> Any:
    """dq = collect(dy) T: what `position_context` computes.

    Parameters
    ----------
    dy, y, q, table, keys, past
        As for `position_scores_gradient`.

    Returns
    -------
    (B, N, Q, D) array, or NotImplemented
        The gradient. Declined where dtypes differ.
    """
    return position_context_kernel(dy, table, past=past)


def position_context_gradient_kernel(dy: Any, y: Any, probs: Any, table: Any, *, past: int = 0) -> Any:
    """dprobs = spread(dy Tᵀ): what `position_scores` computes.

    Parameters
    ----------
    dy, y, probs, table, past
        As for `position_context_gradient`.

    Returns
    -------
    (B, N, Q, S) array, or NotImplemented
        The gradient. Declined where dtypes differ.
    """
    return position_scores_kernel(dy, table, keys=probs.shape[-1], past=past)


def cross_entropy_gradient_kernel(
    dloss: Any, loss: Any, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX
) -> Any:
    """Compute softmax(z) − [c = y] in one launch, where the definition makes several arrays of the size of the logits.

    Parameters
    ----------
    dloss, loss, logits, labels, ignore_index
        As for `cross_entropy_gradient`.

    Returns
    -------
    array of the shape of logits, or NotImplemented
        The gradient. Declined for logits in float64.
    """
    if logits.dtype not in NUMBERS:
        return NotImplemented
    rows, classes = count_rows(logits), logits.shape[-1]
    flat = cupy.asarray(labels.reshape(rows), dtype=np.int64)
    share = cupy.asarray(dloss / cupy.maximum(cupy.sum(flat != ignore_index), 1), dtype=np.float32)
    dlogits = cupy.empty(logits.shape, logits.dtype)
    launch("cross_entropy_gradient", (dlogits, logits, flat, share), ignore_index, rows=rows, width=classes)
    return dlogits
