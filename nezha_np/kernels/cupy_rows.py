"""CuPy's kernels for layers that compute each token by itself: linear, activation, norm, residual output."""

from __future__ import annotations

from typing import Any

import cupy

from nezha_np.arrays import same_dtype
from nezha_np.kernels.cuda import contiguous, count_rows, flat_rows, launch
from nezha_np.layers.activations import activation, gelu
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.mechanism import View


def product(x: Any, weight: Any) -> Any:
    """Multiply all rows by a matrix, by cuBLAS: (…, I), (O, I) -> (rows, O), a new contiguous array."""
    return contiguous(cupy.dot(flat_rows(x), weight.T))


def linear_kernel(x: Any, weight: Any, bias: Any = None) -> Any:
    """Multiply by cuBLAS, and add the bias in place.

    Parameters
    ----------
    x, weight, bias : array
        As for `linear`.

    Returns
    -------
    (…, O) array, or NotImplemented
        ``x @ weight.T + bias``. Declined where dtypes differ.
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    y = product(x, weight)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


def gelu_kernel(x: Any) -> Any:
    """Compute gelu in one launch.

    Parameters
    ----------
    x : array
        Any shape.

    Returns
    -------
    array
        x Φ(x), by the erf of the device.
    """
    y = cupy.empty(x.shape, x.dtype)
    rows, width = (count_rows(x), x.shape[-1]) if x.ndim else (1, 1)
    launch("bias_gelu", (y, x, None), rows=rows, width=width)
    return y


def layer_norm_kernel(x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """Normalise in one launch.

    Parameters
    ----------
    x, weight, bias, eps
        As for `layer_norm`.

    Returns
    -------
    (…, H) array, or NotImplemented
        The normalised tokens. Declined where dtypes differ.
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    y = cupy.empty(x.shape, x.dtype)
    launch("normalise", (y, x, None, None, weight, bias), float(eps), rows=count_rows(x), width=x.shape[-1])
    return y


def dense(x: Any, w: View) -> tuple[Any, Any]:
    """Apply a linear layer without its bias, which a later launch adds.

    Parameters
    ----------
    x : (…, I) array
        The tokens.
    w : View
        Of ``dense.weight``, in groups or not, and ``dense.bias``.

    Returns
    -------
    y : (rows, O) array
        New and contiguous: it may be written to.
    bias : (O,) array or None
        None where it is in y already.
    """
    weight, bias = w["dense.weight"], w["dense.bias"]
    if weight.ndim == 3:
        y = grouped_linear(x, weight, bias)
        return contiguous(flat_rows(y)), None
    return product(x, weight), bias


def residual_output_kernel(x: Any, residual: Any, w: View) -> Any:
    """Multiply, then bias, residual and norm in one launch.

    Parameters
    ----------
    x, residual, w
        As for `nezha_np.model.model.residual_output`.

    Returns
    -------
    (B, L, H) array, or NotImplemented
        The output of the block. Declined where dtypes differ.
    """
    if not same_dtype(x, residual, w["dense.weight"]):
        return NotImplemented
    y, bias = dense(x, w)
    norm = w["LayerNorm.weight"], w["LayerNorm.bias"]
    rows, width = y.shape
    launch("normalise", (y, y, bias, residual, *norm), float(w.config.layer_norm_eps), rows=rows, width=width)
    return y.reshape(residual.shape)


def intermediate_kernel(x: Any, w: View) -> Any:
    """Multiply, then bias and gelu in one launch.

    Parameters
    ----------
    x, w
        As for `nezha_np.model.model.intermediate`.

    Returns
    -------
    (B, L, F) array, or NotImplemented
        The intermediate of the feed-forward. Declined for other activations than gelu, and where dtypes differ.
    """
    if activation(w.config.hidden_act) is not gelu or not same_dtype(x, w["dense.weight"]):
        return NotImplemented
    y, bias = dense(x, w)
    rows, width = y.shape
    launch("bias_gelu", (y, y, bias), rows=rows, width=width)
    return y.reshape(*x.shape[:-1], width)
