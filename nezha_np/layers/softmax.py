"""The softmax: softmax(z)_c = exp(z_c) / Σ_c exp(z_c).

A plain function, not a layer, and its gradient: attention probabilities, convolution kernels and the gradient of the
cross-entropy are made with them.
"""

from __future__ import annotations

from nezha_np.arrays import Array, namespace


def softmax(z: Array) -> Array:
    """Turn the numbers along the last axis into probabilities; the largest is subtracted, so that none overflows.

    Parameters
    ----------
    z : (…, C) float array
        Scores, in the dtype to compute in.

    Returns
    -------
    (…, C) float array
        Each row sums to 1.

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.array([1e4, 1e4, -1e4]))
    array([0.5, 0.5, 0. ])
    """
    xp = namespace(z)
    exponentials = xp.exp(z - xp.max(z, axis=-1, keepdims=True))
    return exponentials / xp.sum(exponentials, axis=-1, keepdims=True)


def softmax_gradient(dy: Array, y: Array) -> Array:
    """With ∂y_j/∂z_l = y_j (δ_jl − y_l): dz = y (dy − Σ_j y_j dy_j).

    Parameters
    ----------
    dy : (…, C) float array
        The gradient of the loss with respect to `y`.
    y : (…, C) float array
        The result of `softmax`.

    Returns
    -------
    dz : (…, C) float array
        The gradient with respect to the scores.
    """
    return y * (dy - namespace(y).sum(y * dy, axis=-1, keepdims=True))
