"""The linear layer in 8-bit integers, as engines for inference compute it: dynamic quantisation.

A number is stored as an integer q, with a scale s and a zero point z that many numbers share:

    q = clip(round(x / s) + z, low, high)          x ≈ x̂ = s (q − z)

Weights are quantised once, activations whenever the layer runs (therefore *dynamic*). All products are of integers, and
their sum is exact:

    y_no = s_x s_w,o Σ_i (q_x,ni − z_x) (q_w,oi − z_w,o) + b_o

so the result is that of `linear` with x̂ and Ŵ in place of x and W. ``round`` goes to the nearest integer, of two to the
even one. What shares a scale, and where zero stands, is the engine's choice (`ENGINES`):

    ONNX Runtime, DynamicQuantizeLinear        activations: one scale for the tensor, asymmetric, 0 … 255
        s = (max(x, 0) − min(x, 0)) / 255,     z = clip(round(−min(x, 0) / s), 0, 255)
    ONNX Runtime, quantize_dynamic             weights: one scale for the tensor, or (per_channel) one for each row of
        s = max |w| / 127,                     z = 0                                       W; symmetric, −127 … 127
    CTranslate2, int8                          activations: a scale for each vector; weights: one for each row of W;
        s = max |x| / 127,                     z = 0                                              both symmetric

Sources: the ONNX operators DynamicQuantizeLinear and MatMulInteger; onnxruntime.quantization; CTranslate2's
documentation of quantisation. There is no gradient: these layers do not train. Dimension letters: I in, O out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from nezha_np.arrays import Array, namespace
from nezha_np.layers.linear import linear


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How an array is quantised.

    Attributes
    ----------
    shared : str
        "tensor": one scale for all; "row": one for each vector along the last axis.
    symmetric : bool
        Whether zero is the integer 0 and the integers are −127 … 127; else they are 0 … 255 and zero is one of them.

    Examples
    --------
    >>> ENGINES["ctranslate2"][0]
    Quantization(shared='row', symmetric=True)
    """

    shared: str
    symmetric: bool


# For each engine, how activations and weights are quantised.
ENGINES: Mapping[str, tuple[Quantization, Quantization]] = {
    "onnxruntime": (Quantization("tensor", False), Quantization("tensor", True)),
    "onnxruntime, per channel": (Quantization("tensor", False), Quantization("row", True)),
    "ctranslate2": (Quantization("row", True), Quantization("row", True)),
}


def quantize(x: Array, how: Quantization) -> tuple[Array, Array, Array]:
    """Write numbers as 8-bit integers.

    Parameters
    ----------
    x : (…, I) float array
        The numbers.
    how : Quantization
        What shares a scale, and where zero stands.

    Returns
    -------
    q : (…, I) float array
        The integers, as floats, which hold them exactly.
    scale, zero_point : (…, 1) or scalar float arrays
        One for all, or one for each vector.

    Examples
    --------
    >>> import numpy as np
    >>> q, scale, zero_point = quantize(np.array([-1.0, 0.0, 1.54]), Quantization("tensor", symmetric=False))
    >>> q, round(float(scale), 4), float(zero_point)
    (array([  0., 100., 255.]), 0.01, 100.0)
    >>> quantize(np.array([-2.0, 1.0]), Quantization("row", symmetric=True))[0]
    array([-127.,   64.])
    """
    xp = namespace(x)
    axis = -1 if how.shared == "row" else None
    keepdims = how.shared == "row"
    if how.symmetric:
        low, high = -127.0, 127.0
        scale = xp.max(xp.abs(x), axis=axis, keepdims=keepdims) / high
    else:
        low, high = 0.0, 255.0
        least = xp.max(-x, axis=axis, keepdims=keepdims)
        least = -xp.where(least > 0.0, least, xp.zeros_like(least))  # min(x, 0)
        most = xp.max(x, axis=axis, keepdims=keepdims)
        most = xp.where(most > 0.0, most, xp.zeros_like(most))  # max(x, 0)
        scale = (most - least) / high
    scale = xp.where(scale == 0.0, xp.ones_like(scale), scale)  # nothing but zeros
    zero_point = xp.zeros_like(scale) if how.symmetric else xp.clip(xp.round(-least / scale), low, high)
    return xp.clip(xp.round(x / scale) + zero_point, low, high), scale, zero_point


def dequantized(x: Array, how: Quantization) -> Array:
    """Return what 8-bit integers say of numbers, x̂ = s (q − z).

    Parameters
    ----------
    x : (…, I) float array
        The numbers.
    how : Quantization
        What shares a scale, and where zero stands.

    Returns
    -------
    (…, I) float array
        The numbers that the integers stand for.

    Examples
    --------
    >>> import numpy as np
    >>> dequantized(np.array([-127.0, 0.4, 63.6]), Quantization("tensor", symmetric=True))
    array([-127.,    0.,   64.])
    """
    q, scale, zero_point = quantize(x, how)
    return scale * (q - zero_point)


def int8_linear(x: Array, weight: Array, bias: Array | None = None, *, engine: str) -> Array:
    """Map each vector of `x` by a matrix and a bias, in 8-bit integers.

    Parameters
    ----------
    x : (…, I) float array
        The vectors: a tensor, where one scale is for the tensor.
    weight : (O, I) float array
        The matrix.
    bias : (O,) float array, optional
        The bias, which is not quantised.
    engine : str
        One of `ENGINES`.

    Returns
    -------
    (…, O) float array
        The result of the integers' products, scaled. In float64 it is exact but for one rounding of each scaling.

    Raises
    ------
    ValueError
        If there is no such engine.

    Examples
    --------
    >>> import numpy as np
    >>> int8_linear(np.array([[1.0, 2.0]]), np.array([[127.0, 1.4]]), engine="ctranslate2")
    array([[130.]])
    >>> (64 * 127 + 127 * 1) * (2 / 127) * 1  # 1.0 is 64 steps of 2 / 127, 1.4 one step of 1
    130.0
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    of_activations, of_weights = ENGINES[engine]
    xp = namespace(x)
    q, scale, zero_point = quantize(x, of_activations)
    q_weight, scale_weight, zero_weight = quantize(weight, of_weights)
    y = linear.definition(q - zero_point, q_weight - zero_weight)  # (…, O), of integers
    if of_weights.shared == "row":
        scale_weight = xp.reshape(scale_weight, (-1,))  # (O,)
    y = scale * scale_weight * y
    return y if bias is None else y + bias
