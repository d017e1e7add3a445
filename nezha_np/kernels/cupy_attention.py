"""CuPy's kernels for attention: products by cuBLAS, and one launch for what lies between them.

Dimension letters as in `nezha_np.model.model`; R = 2K + 1 rows by distance.
"""

from __future__ import annotations

import math
from typing import Any

import cupy
import numpy as np

from nezha_np.arrays import same_dtype
from nezha_np.families.family import family_of
from nezha_np.kernels.cuda import contiguous, count_rows, flat_rows, launch
from nezha_np.kernels.cupy_rows import product
from nezha_np.kernels.known import added_rows
from nezha_np.layers.linear import linear
from nezha_np.layers.span_convolution import join_features
from nezha_np.mechanism import View


def by_head(x: Any, bias: Any, shape: tuple[int, int, int], *, turned: bool = False) -> Any:
    """Add the bias of a product, and put it head by head.

    Parameters
    ----------
    x : (B·L, N·D) array
        A product.
    bias : (N·D,) array or None
        Its bias; None: it is in it already.
    shape : (B, L, D)
        What its two axes are made of.
    turned : bool
        Put the features before the tokens. Keys are multiplied so, and CuPy would copy them to turn them.

    Returns
    -------
    (B, N, L, D) array, or (B, N, D, L)
        The heads.
    """
    (batch, length, size), width = shape, x.shape[1]
    axes, by_token, by_feature = ((size, length), 1, length) if turned else ((length, size), size, 1)
    y = cupy.empty((batch, width // size, *axes), x.dtype)
    strides = length * size, by_token, by_feature
    launch("split_heads", (y, x, bias), length, size, *strides, rows=batch * length, width=width)
    return y


def by_token(x: Any, more: Any) -> Any:
    """Merge the context of the heads, of two parts or one: (B, N, L, D) + (B, N, L, D) -> (B, L, N·D)."""
    batch, heads, length, size = x.shape
    y = cupy.empty((batch, length, heads * size), x.dtype)
    launch("merge_heads", (y, x, more), length, size, rows=batch * length, width=heads * size)
    return y


def fits(mask: Any, scores: Any) -> bool:
    """Say whether the kernel can read a mask: (B or 1, 1, Q or 1, S) in float32, or none."""
    if mask is None:
        return True
    batch, _, queries, keys = scores.shape
    shapes = [(texts, 1, rows, keys) for texts in (1, batch) for rows in (1, queries)]
    return mask.shape in shapes and mask.dtype == np.float32


def softmax(
    scores: Any,
    mask: Any,
    *,
    scale: float,
    out: Any,
    by_row: Any = None,
    buckets: Any = None,
    of_head: Any = None,
    past: int = 0,
) -> None:
    """Turn scores into probabilities, and sum these by distance, in one launch.

    Parameters
    ----------
    scores : (B, N, Q, S) array
        The content term.
    mask : (B or 1, 1, Q or 1, S) float32 array or None
        The additive mask.
    scale : float
        1/√D.
    out : (B, N, Q, S) array
        Gets the probabilities; it may be `scores`.
    by_row : (B·N·Q, R) array or None
        The position term: for each query a number for each row of the table.
    buckets : (B·N·Q, R) array or None
        Gets the sums of the probabilities by distance.
    of_head : (N,) array or None
        A factor for each head.
    past : int
        The position of the first query.
    """
    batch, heads, queries, keys = scores.shape
    reach = next((array.shape[1] // 2 for array in (by_row, buckets) if array is not None), 0)
    if mask is None:
        by_text = by_query = 0
    else:
        by_query = keys if mask.shape[2] > 1 else 0
        by_text = mask.shape[2] * keys if mask.shape[0] > 1 else 0
    arrays = out, buckets, scores, by_row, mask, of_head
    places = by_text, by_query, heads, queries, past, reach
    launch("softmax", arrays, float(scale), *places, rows=batch * heads * queries, width=keys)


def attention_probs_kernel(scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Scale, mask and softmax in one launch.

    Parameters
    ----------
    scores, mask, scale
        As for `attention_probs`.

    Returns
    -------
    (B, N, Q, S) array
        The probabilities.
    """
    if not fits(mask, scores):
        return NotImplemented  # a mask in float64 would be cut
    probs = cupy.empty(scores.shape, scores.dtype)
    softmax(scores, mask, scale=scale, out=probs)
    return probs


def position_context_kernel(probs: Any, table: Any, *, past: int = 0) -> Any:
    """Sum by distance in one launch, then one product.

    Parameters
    ----------
    probs, table, past
        As for `position_context`.

    Returns
    -------
    (B, N, Q, D) array
        The position term of the context.
    """
    if not same_dtype(probs, table):
        return NotImplemented
    batch, heads, queries, keys = probs.shape
    rows = batch * heads * queries
    buckets = cupy.empty((rows, table.shape[0]), probs.dtype)
    launch("collect", (buckets, probs), queries, past, table.shape[0] // 2, rows=rows, width=keys)
    return cupy.dot(buckets, table).reshape(batch, heads, queries, table.shape[1])


def position_scores_kernel(q: Any, table: Any, *, keys: int, past: int = 0) -> Any:
    """Multiply each query with the rows of the table, then put the products to the keys in one launch.

    Parameters
    ----------
    q, table, keys, past
        As for `position_scores`.

    Returns
    -------
    (B, N, Q, S) array, or NotImplemented
        The position term of the scores. Declined where dtypes differ.
    """
    if not same_dtype(q, table):
        return NotImplemented
    queries, count = q.shape[2], table.shape[0]
    scores = cupy.empty((*q.shape[:3], keys), q.dtype)
    by_row = cupy.dot(flat_rows(q), table.T)  # (B·N·Q, R)
    launch("spread", (scores, by_row), queries, past, count // 2, rows=count_rows(q), width=keys)
    return scores


def self_attention_kernel(
    x: Any,
    w: View,
    *,
    table: Any,
    mask: Any = None,
    head_mask: Any = None,
    states: Any = None,
    past: tuple[Any, Any] | None = None,
    position: int = 0,
    returns_probs: bool = True,
) -> Any:
    """Attend with one launch between the products.

    Parameters
    ----------
    x, w, table, mask, head_mask, states, past, position, returns_probs
        As for `nezha_np.model.model.self_attention`.

    Returns
    -------
    tuple, or NotImplemented
        Context, probabilities or None, and keys and values. Declined where `known` does not know how the family
        attends, where dtypes differ, and for a mask of another shape or dtype than the model's.
    """
    rows = added_rows(w, table=table, cross=states is not None)
    if rows is None or not same_dtype(x, w["query.weight"], *rows, head_mask, states, *(past or ())):
        return NotImplemented
    beside_heads = family_of(w.config).beside_heads
    size, (batch, queries, _) = w.config.head_size, x.shape

    if beside_heads is None:
        query, bias = product(x, w["query.weight"]), w["query.bias"]
    else:  # what stands beside the heads gets it with its bias, token by token
        query, bias = flat_rows(linear(x, w["query.weight"], w["query.bias"])), None
    q = by_head(query, bias, (batch, queries, size))  # (B, N, Q, D)
    if states is not None and past is not None:
        keys, v = past[0].swapaxes(2, 3), past[1]  # (B, N, D, S), (B, N, S, D)
    else:
        source = x if states is None else states
        shape = batch, source.shape[1], size
        keys = by_head(product(source, w["key.weight"]), w["key.bias"], shape, turned=True)
        v = by_head(product(source, w["value.weight"]), w["value.bias"], shape)
        if past is not None:
            keys = cupy.concatenate([past[0].swapaxes(2, 3), keys], axis=3)
            v = cupy.concatenate([past[1], v], axis=2)

    probs = contiguous(cupy.matmul(q, keys))  # (B, N, Q, S), still the scores
    if not fits(mask, probs):
        return NotImplemented
    to_keys: Any
    to_values: Any
    to_keys, to_values = rows
    if to_keys is not None and to_values is None:  # nothing is summed by distance: distances that occur are enough
        middle, furthest = to_keys.shape[0] // 2, max(keys.shape[3] - 1, position + queries - 1)
        to_keys = to_keys[max(middle - furthest, 0) : middle + furthest + 1]
    by_row = None if to_keys is None else contiguous(cupy.dot(flat_rows(q), to_keys.T))  # (B·N·Q, R)
    buckets = None if to_values is None else cupy.empty((count_rows(q), to_values.shape[0]), x.dtype)
    scale = 1.0 / math.sqrt(size)
    softmax(probs, mask, scale=scale, out=probs, by_row=by_row, buckets=buckets, of_head=head_mask, past=position)

    content = contiguous(cupy.matmul(probs, v))  # (B, N, Q, D)
    context = by_token(content, None if buckets is None else cupy.dot(buckets, to_values))
    if beside_heads is not None:
        context = join_features(context, beside_heads(x, query.reshape(batch, queries, -1), w))
    return context, probs if returns_probs else None, (keys.swapaxes(2, 3), v)
