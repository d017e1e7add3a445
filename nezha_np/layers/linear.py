"""The linear layer: y = x Wᵀ + b (transformers: torch.nn.Linear).

Weights are stored as in the reference, (out, in). Dimension letters: I in, O out; ``…`` any leading axes.
"""

from __future__ import annotations

import math

from nezha_np.arrays import Array, in_statistics_dtype, namespace
from nezha_np.mechanism import gradient_of, primitive


@primitive
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Map each vector of `x` by a matrix and a bias.

    Parameters
    ----------
    x : (…, I) float array
        The vectors.
    weight : (O, I) float array
        The matrix.
    bias : (O,) float array, optional
        The bias.

    Returns
    -------
    (…, O) float array
        ``x @ weight.T + bias``.

    Examples
    --------
    >>> import numpy as np
    >>> linear(np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([0.0, 0.0, 10.0]))
    array([[ 1.,  2., 13.]])
    """
    xp = namespace(x)
    y = xp.matmul(flat_rows(x), xp.matrix_transpose(weight))  # one product for all rows, (…, I) -> (rows, O)
    if bias is not None:
        y = y + bias
    return xp.reshape(y, (*x.shape[:-1], weight.shape[0]))  # (…, O)


@gradient_of(linear, reads=("x", "weight", "bias"))
def linear_gradient(dy: Array, y: Array, x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, ...]:
    """With y_no = Σ_i x_ni W_oi + b_o: dx = dy W, dW = dyᵀ x, db = Σ_n dy_n.

    Parameters
    ----------
    dy : (…, O) float array
        The gradient of the loss with respect to `y`.
    y, x, weight, bias
        The result and the arguments of `linear`.

    Returns
    -------
    dx : (…, I) float array
        The gradient with respect to `x`.
    dweight : (O, I) float array
        The gradient with respect to `weight`.
    dbias : (O,) float array
        The gradient with respect to `bias`; left out where there is no bias.
    """
    xp = namespace(dy)
    rows = flat_rows(dy)  # (rows, O)
    dx = xp.reshape(xp.matmul(rows, weight), x.shape)
    dweight = xp.matmul(xp.matrix_transpose(rows), flat_rows(x))  # (O, I)
    if bias is None:
        return dx, dweight
    return dx, dweight, xp.astype(xp.sum(in_statistics_dtype(rows), axis=0), dy.dtype, copy=False)


def flat_rows(x: Array) -> Array:
    """Fold all axes but the last into one.

    Parameters
    ----------
    x : (…, I) array
        The vectors.

    Returns
    -------
    (rows, I) array
        The same vectors, one below the other.

    Examples
    --------
    >>> import numpy as np
    >>> flat_rows(np.zeros((2, 3, 4))).shape
    (6, 4)
    """
    return namespace(x).reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
