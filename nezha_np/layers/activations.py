"""The activations, by the names that a configuration gives them (transformers: ACT2FN).

    gelu(x)      = x Φ(x) = ½ x (1 + erf(x / √2))                          (Hendrycks and Gimpel 2016)
    gelu_new(x)  = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))                (the same, section 2)
    relu(x)      = max(x, 0)
    silu(x)      = x sigmoid(x), also called swish
    selu(x)      = λ x for x > 0, λ α (eˣ − 1) otherwise                   (Klambauer et al. 2017)
    tanh(x)

The standard has no erf: `erf` is Cody's rational approximation, written in its operations.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import cast

from nezha_np.arrays import Array, in_statistics_dtype, namespace
from nezha_np.mechanism import ArrayLayer, gradient_of, primitive

# Numerators and denominators of Cody 1969, highest power first: erf(x) = x P(x²)/Q(x²) up to SPLIT, and beyond it
# erf(x) = 1 − exp(−x²) P(x)/Q(x).
SPLIT = 0.46875
INNER = (
    (
        1.85777706184603153e-1,
        3.16112374387056560e0,
        1.13864154151050156e2,
        3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
OUTER = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
    2.98635138197400131e2,
     8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip


def polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Evaluate a polynomial by Horner's rule.

    Parameters
    ----------
    x : float array
        Where to evaluate it.
    coefficients : tuple of float
        Its coefficients, highest power first; two of them at least.

    Returns
    -------
    float array
        The values, of the shape of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> polynomial(np.array([2.0]), (1.0, 0.0, 3.0))  # x² + 3
    array([7.])
    """
    value = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def erf(x: Array) -> Array:
    """Compute the error function, 2/√π ∫₀ˣ exp(−t²) dt, to 1e-15 in float64 (Cody 1969, Math. Comp. 23, 631).

    Parameters
    ----------
    x : float array
        Where to compute it.

    Returns
    -------
    float array
        Values from -1 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> erf(np.array([-8.0, 0.0, 0.5])).round(6)
    array([-1.    ,  0.    ,  0.5205])
    """
    xp = namespace(x)
    size = xp.abs(x)
    # Each branch is clipped to where it is finite: `where` would pass an overflow of the unused one on to gradients.
    near = xp.clip(x, -SPLIT, SPLIT)
    square = near * near
    inner = near * (polynomial(square, INNER[0]) / polynomial(square, INNER[1]))
    far = xp.clip(size, SPLIT, 6.0)  # at 6 erf is 1 to the last bit
    outer = 1.0 - xp.exp(-far * far) * (polynomial(far, OUTER[0]) / polynomial(far, OUTER[1]))
    return xp.where(size <= SPLIT, inner, xp.where(x < 0, -outer, outer))


@primitive
def gelu(x: Array) -> Array:
    """Weight x by the probability that a standard normal variable lies below it: x Φ(x), the exact erf form.

    Parameters
    ----------
    x : float array
        Any array.

    Returns
    -------
    float array
        The activation of each element.

    Examples
    --------
    >>> import numpy as np
    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """
    wide = in_statistics_dtype(x)
    return namespace(x).astype(wide * _normal_cdf(wide), x.dtype, copy=False)


def _normal_cdf(x: Array) -> Array:
    return 0.5 * (1.0 + erf(x * math.sqrt(0.5)))


@gradient_of(gelu)
def gelu_gradient(dy: Array, y: Array, x: Array) -> Array:
    """(x Φ(x))' = Φ(x) + x φ(x), with the normal density φ(x) = exp(−x²/2) / √(2π).

    Parameters
    ----------
    dy : float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `gelu`.

    Returns
    -------
    dx : float array
        The gradient with respect to `x`, of its shape.
    """
    xp = namespace(x)
    wide = in_statistics_dtype(x)
    density = xp.exp(-0.5 * wide * wide) * (1.0 / math.sqrt(2.0 * math.pi))
    return xp.astype(dy * (_normal_cdf(wide) + wide * density), x.dtype, copy=False)


@primitive
def gelu_new(x: Array) -> Array:
    """Approximate gelu by a tanh, as GPT-2 does.

    Parameters
    ----------
    x : float array
        Any array.

    Returns
    -------
    float array
        The activation of each element.

    Examples
    --------
    >>> import numpy as np
    >>> gelu_new(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1588,  0.    ,  0.8412])
    """
    xp, wide = namespace(x), in_statistics_dtype(x)
    return xp.astype(0.5 * wide * (1.0 + xp.tanh(_gelu_new_inner(wide))), x.dtype, copy=False)


def _gelu_new_inner(x: Array) -> Array:
    return math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))


@gradient_of(gelu_new)
def gelu_new_gradient(dy: Array, y: Array, x: Array) -> Array:
    """With t = tanh(u(x)): ½ (1 + t) + ½ x (1 − t²) u'(x), u'(x) = √(2/π) (1 + 3 · 0.044715 x²).

    Parameters
    ----------
    dy : float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `gelu_new`.

    Returns
    -------
    dx : float array
        The gradient with respect to `x`, of its shape.
    """
    xp, wide = namespace(x), in_statistics_dtype(x)
    t = xp.tanh(_gelu_new_inner(wide))
    slope = math.sqrt(2.0 / math.pi) * (1.0 + 3.0 * 0.044715 * (wide * wide))
    return xp.astype(dy * (0.5 * (1.0 + t) + 0.5 * wide * (1.0 - t * t) * slope), x.dtype, copy=False)


@primitive
def relu(x: Array) -> Array:
    """Set negative elements to 0: max(x, 0).

    Parameters
    ----------
    x : float array
        Any array.

    Returns
    -------
    float array
        The activation of each element.

    Examples
    --------
    >>> import numpy as np
    >>> relu(np.array([-1.0, 0.0, 1.0]))
    array([0., 0., 1.])
    """
    xp = namespace(x)
    return xp.where(x < 0, xp.zeros_like(x), x)


@gradient_of(relu)
def relu_gradient(dy: Array, y: Array, x: Array) -> Array:
    """1 where x > 0; 0 elsewhere, at 0 too, as in the reference.

    Parameters
    ----------
    dy : float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `relu`.

    Returns
    -------
    dx : float array
        The gradient with respect to `x`, of its shape.
    """
    xp = namespace(x)
    return xp.where(x > 0, dy, xp.zeros_like(dy))


@primitive
def silu(x: Array) -> Array:
    """Weight x by its own sigmoid; also called swish.

    Parameters
    ----------
    x : float array
        Any array.

    Returns
    -------
    float array
        The activation of each element.

    Examples
    --------
    >>> import numpy as np
    >>> silu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.2689,  0.    ,  0.7311])
    """
    wide = in_statistics_dtype(x)
    return namespace(x).astype(wide * sigmoid(wide), x.dtype, copy=False)


def sigmoid(x: Array) -> Array:
    """Compute 1 / (1 + exp(−x)), by a tanh, which does not overflow.

    Parameters
    ----------
    x : float array
        Any array.

    Returns
    -------
    float array
        Values from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.array([-1e4, 0.0, 1e4]))
    array([0. , 0.5, 1. ])
    """
    return 0.5 * (1.0 + namespace(x).tanh(0.5 * x))


@gradient_of(silu)
def silu_gradient(dy: Array, y: Array, x: Array) -> Array:
    """With s = sigmoid(x), s' = s (1 − s): (x s)' = s (1 + x (1 − s)).

    Parameters
    ----------
    dy : float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `silu`.

    Returns
    -------
    dx : float array
        The gradient with respect to `x`, of its shape.
    """
    wide = in_statistics_dtype(x)
    s = sigmoid(wide)
    return namespace(x).astype(dy * (s * (1.0 + wide * (1.0 - s))), x.dtype, copy=False)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


@primitive
def selu(x: Array) -> Array:
    """Scale so that normalised activations stay normalised from layer to layer.

    Parameters
    ----------
    x : float array
        Any array.

    Returns
    -------
    float array
        The activation of each element.

    Examples
    --------
    >>> import numpy as np
    >>> selu(np.array([-1.0, 0.0, 1.0])).round(4)
    array([-1.1113,  0.    ,  1.0507])
    """
    xp = namespace(x)
    negative = SELU_ALPHA * xp.expm1(
        xp.where(x > 0, xp.zeros_like(x), x)
    )  # the unused branch at 0, so that it cannot overflow
    return SELU_SCALE * xp.where(x > 0, x, negative)


@gradient_of(selu)
def selu_gradient(dy: Array, y: Array, x: Array) -> Array:
    """λ for x > 0, otherwise λ α eˣ.

    Parameters
    ----------
    dy : float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `selu`.

    Returns
    -------
    dx : float array
        The gradient with respect to `x`, of its shape.
    """
    xp = namespace(x)
    negative = SELU_ALPHA * xp.exp(xp.where(x > 0, xp.zeros_like(x), x))
    return dy * (SELU_SCALE * xp.where(x > 0, xp.ones_like(x), negative))


@primitive
def tanh(x: Array) -> Array:
    """Compute the hyperbolic tangent, an activation, which the pooler uses too.

    Parameters
    ----------
    x : float array
        Any array.

    Returns
    -------
    float array
        The activation of each element.

    Examples
    --------
    >>> import numpy as np
    >>> tanh(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.7616])
    """
    return namespace(x).tanh(x)


@gradient_of(tanh)
def tanh_gradient(dy: Array, y: Array, x: Array) -> Array:
    """dx = (1 − y²) dy, computed from the result.

    Parameters
    ----------
    dy : float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `tanh`.

    Returns
    -------
    dx : float array
        The gradient with respect to `x`, of its shape.
    """
    return dy * (1.0 - y * y)


ACTIVATIONS: dict[str, ArrayLayer] = {
    "gelu": gelu,
    "gelu_new": gelu_new,
    "relu": relu,
    "selu": selu,
    "silu": silu,
    "swish": silu,
    "tanh": tanh,
}


@functools.cache
def activation(hidden_act: str | Callable[[Array], Array]) -> ArrayLayer:
    """Find the activation that a configuration names.

    Parameters
    ----------
    hidden_act : str or callable
        A name of `ACTIVATIONS`, a layer, or a function of one array, which becomes a layer without a gradient.

    Returns
    -------
    ArrayLayer
        The activation.

    Raises
    ------
    KeyError
        If there is no activation of that name; a configuration checks it before.

    Examples
    --------
    >>> activation("swish") is silu
    True
    """
    if isinstance(hidden_act, str):
        return ACTIVATIONS[hidden_act]
    return cast(ArrayLayer, hidden_act) if hasattr(hidden_act, "definition") else primitive(hidden_act)
