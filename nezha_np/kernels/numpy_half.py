"""NumPy's kernels for float16: a processor has no float16 to compute with, so they compute in float32 and round once.

NumPy converts every number of every step, 15 to 30 times slower than float32. Here a tensor is converted when a layer
needs it, and given up when the next one does: so the memory stays that of float16. What the layers compute in between
stays float32, and only results are rounded, so they are nearer to the exact ones than those of the definitions.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nezha_np.arrays import same_dtype
from nezha_np.families.family import family_of
from nezha_np.kernels import numpy_blocks
from nezha_np.kernels.known import CONTEXTS, SCORES
from nezha_np.layers.activations import gelu
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.mechanism import View
from nezha_np.model import model
from nezha_np.model.arguments import Call

HALF = np.dtype(np.float16)
SMALL = 4096  # numbers that NumPy's own conversion is as fast for
PART = 2**20  # numbers of a matrix that are converted at once: a vocabulary's is too large to be there in float32
SIGN_AND_REST = np.int32(-0x70002000)  # 0x8fffe000: the bits of float32 that those of float16 are moved to
REBIAS = np.float32(2.0**112)  # exponents are counted from 127, and not from 15


def widened(x: np.ndarray) -> np.ndarray:
    """Convert float16 to float32, three times as fast as NumPy.

    The bits are moved to their places in float32, whose exponent is then too small by 112.

    Parameters
    ----------
    x : float16 array
        Any shape.

    Returns
    -------
    float32 array
        The same numbers.

    Examples
    --------
    >>> widened(np.array([0.5, -2.0], "float16"))
    array([ 0.5, -2. ], dtype=float32)
    """
    if x.size < SMALL:
        return x.astype(np.float32, order="C")
    y = np.empty(x.shape, np.float32)
    source, flat = np.ascontiguousarray(x).view(np.int16).reshape(-1), y.reshape(-1)
    for start in range(0, x.size, numpy_blocks.BLOCK):
        block = flat[start : start + numpy_blocks.BLOCK]
        bits = block.view(np.int32)
        np.left_shift(source[start : start + numpy_blocks.BLOCK], 13, out=bits, dtype=np.int32)
        bits &= SIGN_AND_REST
        block *= REBIAS
        if block.max() > 65504 or block.min() < -65504:  # infinity or NaN: no number has that exponent
            return x.astype(np.float32, order="C")
    return y


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
    """Weights in float16 that are read in float32: a tensor is converted when it is asked for."""

    def __init__(self, weights: Any) -> None:
        self.weights, self.config = weights, weights.config
        self._last: tuple[str, np.ndarray] | None = None  # a kernel may ask twice, for a matrix and for its dtype

    def __getitem__(self, name: str) -> np.ndarray:
        last = self._last
        if last is None or last[0] != name:
            last = self._last = (name, widened(self.weights[name]))
        return last[1]


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
    """Multiply in float32, with some rows of the matrix after the others.

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
    outputs, features = weight.shape
    y = np.empty((*x.shape[:-1], outputs), HALF)
    step, wide = max(1, PART // max(1, features)), widened(x)
    for start in range(0, outputs, step):
        rows = slice(start, start + step)
        y[..., rows] = linear(wide, widened(weight[rows]), None if bias is None else widened(bias[rows]))
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
