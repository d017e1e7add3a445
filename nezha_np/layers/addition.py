"""The sum of two arrays of one shape: residual connections, sums of embeddings, of scores, of losses.

It is a layer, because a trace and a tape do not record bare arithmetic between arrays.
"""

from __future__ import annotations

from nezha_np.arrays import Array, as_array
from nezha_np.mechanism import gradient_of, primitive


@primitive
def add(x: Array, y: Array) -> Array:
    """Add two arrays of the same shape.

    Parameters
    ----------
    x, y : float array
        The summands.

    Returns
    -------
    float array
        ``x + y``.

    Examples
    --------
    >>> import numpy as np
    >>> add(np.array([1.0, 2.0]), np.array([10.0, 20.0]))
    array([11., 22.])
    """
    return as_array(x + y)


@gradient_of(add, reads=())
def add_gradient(dz: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """dx = dz, dy = dz.

    Parameters
    ----------
    dz : float array
        The gradient of the loss with respect to `z`.
    z, x, y
        The result and the arguments of `add`.

    Returns
    -------
    dx, dy : float array
        The gradients with respect to `x` and `y`: `dz` itself.
    """
    return dz, dz
