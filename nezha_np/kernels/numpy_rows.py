"""NumPy's kernels for layers that compute each token by itself: linear, activation, norm, feed-forward.

Dimension letters as in `nezha_np.model.model`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nezha_np.arrays import same_dtype
from nezha_np.kernels import numpy_blocks
from nezha_np.kernels.numpy_blocks import (
    blocks_within,
    by_feature,
    multiply_part,
    parts_of_product,
    rows_like,
    share_rows,
)
from nezha_np.layers.activations import activation, gelu
from nezha_np.layers.linear import flat_rows
from nezha_np.mechanism import Layer, View
from nezha_np.threads import part_of, share_out

# ------------------------------------------------------------------------------------------------- linear, activation


def linear_kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> Any:
    """Multiply, and add the bias in place.

    Parameters
    ----------
    x, weight, bias
        As for `linear`.

    Returns
    -------
    (…, O) array, or NotImplemented
        ``x @ weight.T + bias``. Declined where dtypes differ.

    Examples
    --------
    >>> linear_kernel(np.ones((1, 2)), np.ones((3, 2)), np.arange(3.0))
    array([[2., 3., 4.]])
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    source: Any = flat_rows(x)
    y = rows_like(source, len(weight))

    def run(part: int, parts: int) -> None:
        own = multiply_part(source, weight.T, y, part, parts)
        if bias is not None:
            y[own] += bias[own[1]]

    share_out(parts_of_product(len(source), weight.shape[1], len(weight)), run)
    return y.reshape(*x.shape[:-1], len(weight))


# 2 Φ(x) = 1 + tanh(x p(x²)) with p(s) = P₀ + P₁ s + P₂ / (s + P₃ + P₄ / (s + P₅)), fitted to the erf form: the fit is
# within 1.2e-7 of gelu. For s ≥ 0 this p has no pole, and it grows with s, so that nothing has to be cut off.
P = (
    1.2425251660700045, 0.0172844326533398, -4.544546328533287, -7.177766768322406, 538.3195537073351,
    30.940479502142306,
)  # fmt: skip


def gelu_in_place(x: np.ndarray, s: np.ndarray, p: np.ndarray) -> None:
    """Apply gelu in place to a block of float32; `s` and `p` are scratch blocks of the same shape."""
    with np.errstate(over="ignore"):  # of x² and of x p(x²), where tanh is ±1
        np.multiply(x, x, out=s)
        np.add(s, P[5], out=p)
        np.divide(P[4], p, out=p)
        p += s
        p += P[3]
        np.divide(P[2], p, out=p)
        s *= P[1]
        p += s
        p += P[0]
        p *= x
        np.tanh(p, out=p)
        p += 1.0
        x *= 0.5
        x *= p


def activate_in_place(x: np.ndarray, bias: Any, function: Layer) -> None:
    """Add a bias, if there is one, to (rows, F) and apply an activation, block by block."""
    fast = function is gelu and x.dtype == np.float32
    if by_feature(x):
        x, bias = x.T, None if bias is None else bias[:, None]
    else:
        bias = None if bias is None else bias[None, :]
    pieces = blocks_within(slice(0, len(x)), x.shape[1])
    room = np.empty((2, *x[pieces[0]].shape), x.dtype) if fast and pieces else None
    for rows in pieces:
        block = x[rows]
        if bias is not None:
            block += bias if len(bias) == 1 else bias[rows]
        if room is None:
            block[...] = function(block)
        else:
            gelu_in_place(block, *room[:, : len(block)])


def gelu_kernel(x: np.ndarray) -> np.ndarray:
    """Compute gelu in float32 as a tanh of a rational function.

    Parameters
    ----------
    x : float32 array
        Any shape.

    Returns
    -------
    float32 array
        x Φ(x), but for an error of the fit of 1.2e-7, and rounding.

    Examples
    --------
    >>> gelu_kernel(np.array([-1.0, 0.0, 1.0], "float32")).round(4)
    array([-0.1587,  0.    ,  0.8413], dtype=float32)
    """
    y = np.empty(x.shape, x.dtype)
    source, flat = (rows_of_any(array) for array in (x, y))

    def run(own: slice) -> None:
        pieces = blocks_within(own, flat.shape[1])
        room: Any = np.empty((2, *flat[pieces[0]].shape), x.dtype) if pieces else None
        for rows in pieces:
            flat[rows] = source[rows]
            gelu_in_place(flat[rows], *room[:, : rows.stop - rows.start])

    share_rows(flat.shape, run)
    return y


def rows_of_any(x: np.ndarray) -> np.ndarray:
    """View an array as rows, a vector as rows of one number each."""
    rows: Any = flat_rows(x) if x.ndim > 1 else x.reshape(-1, 1)
    return np.asarray(rows)


# ---------------------------------------------------------------------------------- norm, residual output, feed-forward


def normalise_in_place(x: np.ndarray, weight: Any, bias: Any, eps: float) -> None:
    """Normalise a block of rows, (rows, H)."""
    if by_feature(x):
        x -= sum_of_features(x.T)[:, None] / x.shape[1]
        variance = sum_of_features(np.square(x.T))[:, None] / x.shape[1]
    else:
        x -= x.mean(axis=-1, keepdims=True)  # (rows, 1)
        variance = np.vecdot(x, x)[:, None] / x.shape[1]
    x /= np.sqrt(variance + eps)
    x *= weight
    x += bias


def sum_of_features(x: np.ndarray) -> np.ndarray:
    """Sum the first axis, (H, rows) -> (rows,), by halves: one after the other the features would lose digits."""
    while (half := len(x) // 2) > 4:
        halves = x[:half] + x[half : 2 * half]
        if len(x) % 2:
            halves[0] += x[-1]
        x = halves
    total: np.ndarray = x.sum(axis=0)
    return total


def layer_norm_kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float) -> Any:
    """Normalise block by block.

    Parameters
    ----------
    x, weight, bias, eps
        As for `layer_norm`.

    Returns
    -------
    (…, H) array, or NotImplemented
        The normalised tokens. Declined where dtypes differ.

    Examples
    --------
    >>> layer_norm_kernel(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), eps=1e-12)
    array([[-1.,  1.]])
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    y = np.empty(x.shape, x.dtype)
    source, flat = (np.asarray(flat_rows(array)) for array in (x, y))

    def run(own: slice) -> None:
        for rows in blocks_within(own, x.shape[-1]):
            flat[rows] = source[rows]
            normalise_in_place(flat[rows], weight, bias, eps)

    share_rows(flat.shape, run)
    return y


def finish_in_place(y: np.ndarray, residual: np.ndarray, w: View) -> None:
    """Finish a residual output, of which `y` (rows, H) is the product: add bias and residual, and normalise."""
    whole = slice(0, len(y))
    for rows in [whole] if by_feature(y) else blocks_within(whole, y.shape[1]):
        block = y[rows]
        block += w["dense.bias"]
        block += residual[rows]
        normalise_in_place(block, w["LayerNorm.weight"], w["LayerNorm.bias"], w.config.layer_norm_eps)


def residual_output_kernel(x: np.ndarray, residual: np.ndarray, w: View) -> Any:
    """Multiply, then bias, residual and norm in one sweep.

    Parameters
    ----------
    x, residual, w
        As for `nezha_np.model.model.residual_output`.

    Returns
    -------
    (B, L, H) array, or NotImplemented
        The output of the block. Declined where the linear layer has groups or dtypes differ.
    """
    weight: Any = w["dense.weight"]
    if weight.ndim != 2 or not same_dtype(x, residual, weight):
        return NotImplemented
    source: Any = flat_rows(x)
    residual_rows: Any = flat_rows(residual)
    y = rows_like(source, len(weight))

    def run(part: int, parts: int) -> None:
        rows = part_of(len(source), part, parts)
        np.matmul(source[rows], weight.T, out=y[rows])
        finish_in_place(y[rows], residual_rows[rows], w)

    share_out(len(source) // numpy_blocks.TOKENS, run)
    return y.reshape(residual.shape)


def feed_forward_kernel(x: np.ndarray, w: View) -> Any:
    """Work through tiles of rows, so that the F features of the intermediate are made and used in cache.

    Parameters
    ----------
    x, w
        As for `nezha_np.model.model.feed_forward`.

    Returns
    -------
    (B, L, H) array, or NotImplemented
        The output of the block. Declined where a linear layer has groups, where dtypes differ, and for a user-supplied
        activation, which gets (B, L, F) in one call and no tiles of it.
    """
    wide: Any = w["intermediate.dense.weight"]
    narrow: Any = w["output.dense.weight"]
    grouped = wide.ndim != 2 or narrow.ndim != 2
    if grouped or not same_dtype(x, wide) or callable(w.config.hidden_act):
        return NotImplemented
    source: Any = flat_rows(x)
    function = activation(w.config.hidden_act)
    y = rows_like(source, len(narrow))

    def run(part: int, parts: int) -> None:
        own = part_of(len(source), part, parts)
        middle = rows_like(source[: min(numpy_blocks.ROWS, own.stop - own.start)], len(wide))
        for start in range(own.start, own.stop, numpy_blocks.ROWS):
            tile = slice(start, min(start + numpy_blocks.ROWS, own.stop))
            inner = middle[: tile.stop - start]  # (rows, F)
            np.matmul(source[tile], wide.T, out=inner)
            activate_in_place(inner, w["intermediate.dense.bias"], function)
            np.matmul(inner, narrow.T, out=y[tile])
            finish_in_place(y[tile], source[tile], w.at("output"))

    share_out(len(source) // numpy_blocks.TOKENS, run)
    return y.reshape(x.shape)
