"""NumPy's kernels for float16: a processor has no float16 to compute with, so they compute in float32 and round once.

NumPy converts every number of every step, 15 to 30 times slower than float32. Here matrices are converted tile by tile
where they are multiplied (`nezha_np.narrow`), so the memory stays that of float16. What the layers compute in between
stays float32, and only results are rounded, so they are nearer to the exact ones than those of the definitions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nezha_np.arrays import same_dtype
from nezha_np.families.family import family_of
from nezha_np.kernels.known import CONTEXTS, SCORES
from nezha_np.layers.activations import gelu
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.mechanism import View
from nezha_np.model import model
from nezha_np.model.arguments import Call
from nezha_np.narrow.float16 import widened
from nezha_np.narrow.matrix import FLOAT16, NarrowMatrix

HALF = np.dtype(np.float16)


def each(convert: Any, dtype: Any, value: Any) -> Any:
    """Convert the arrays of one dtype in nested tuples and lists; all else stays as it is."""
    if isinstance(value, (tuple, list)):
        return type(value)(each(convert, dtype, item) for item in value)
    return convert(value) if isinstance(value, np.ndarray) and value.dtype == dtype else value


def in_float32(value: Any) -> Any:
    """Convert the arrays of float16 in nested tuples and lists to float32."""
    return each(widened, HALF, value)


def in_float16(value: Any) -> Any:
    """Round the arrays of float32 in nested tuples and lists to float16."""
    return each(lambda array: array.astype(HALF), np.float32, value)


class Widened:
    """Weights in float16 that are read in float32: matrices tile by tile where they are multiplied."""

    def __init__(self, weights: Any) -> None:
        self.weights, self.config = weights, weights.config

    def __getitem__(self, name: str) -> Any:
        array = self.weights[name]
        return NarrowMatrix(array, FLOAT16) if array.ndim == 2 else widened(array)


def encoder_kernel(x: np.ndarray, w: View, *, table: np.ndarray | None, call: Call) -> Any:
    """Run all layers in float32, and round what they return.

    Parameters
    ----------
    x, w, table, call
        As for `nezha_np.model.model.encoder`.

    Returns
    -------
    tuple, or NotImplemented
        What the definition returns. Declined for functions of the caller, which get the dtype of the weights: an
        activation, and those of a family that the kernels do not know.
    """
    family = family_of(w.config)
    if callable(w.config.hidden_act) or family.scores not in SCORES or family.context not in CONTEXTS:
        return NotImplemented
    names = ("mask", "states", "states_mask", "head_masks", "caches")
    call = dataclasses.replace(call, **{name: in_float32(getattr(call, name)) for name in names})
    wide = View(Widened(w.weights), w.prefix)
    return in_float16(model.encoder(widened(x), wide, table=in_float32(table), call=call))


def linear_kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> Any:
    """Multiply in float32, the matrix tile by tile.

    Parameters
    ----------
    x, weight, bias
        As for `nezha_np.layers.linear.linear`.

    Returns
    -------
    (…, O) float16 array, or NotImplemented
        ``x @ weight.T + bias``, rounded once. Declined where dtypes differ.

    Examples
    --------
    >>> linear_kernel(np.ones((1, 2), "float16"), np.ones((3, 2), "float16"))
    array([[2., 2., 2.]], dtype=float16)
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    y: np.ndarray = in_float16(
        linear(widened(x), NarrowMatrix(weight, FLOAT16), None if bias is None else widened(bias))
    )
    return y


def layer_norm_kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float) -> Any:
    """Normalise in float32.

    Parameters
    ----------
    x, weight, bias, eps
        As for `nezha_np.layers.layer_norm.layer_norm`.

    Returns
    -------
    (…, H) float16 array, or NotImplemented
        The normalised tokens. Declined where dtypes differ.

    Examples
    --------
    >>> one = np.ones(2, "float16")
    >>> layer_norm_kernel(np.array([[1.0, 3.0]], "float16"), one, 0 * one, eps=1e-12)
    array([[-1.,  1.]], dtype=float16)
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    return in_float16(layer_norm(widened(x), widened(weight), widened(bias), eps=eps))


def gelu_kernel(x: np.ndarray) -> np.ndarray:
    """Compute gelu in float32.

    Parameters
    ----------
    x : float16 array
        Any shape.

    Returns
    -------
    float16 array
        x Φ(x), rounded once.

    Examples
    --------
    >>> gelu_kernel(np.array([0.0, 1.0], "float16"))
    array([0.    , 0.8413], dtype=float16)
    """
    y: np.ndarray = in_float16(gelu(widened(x)))
    return y
