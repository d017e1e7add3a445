"""Dropout (Srivastava et al. 2014): y = x · keep / (1 − p), where keep is 0 with probability p and 1 otherwise.

It is the identity, unless the pass is recorded by a tape with a seed (`nezha_np.value_and_grad`). A mask depends on
the seed, the step and the full name of the layer, and on nothing else: no random generator is passed through the model.
A pass over some rows of a batch draws those numbers of the mask that belong to its rows, so a batch that is divided
has the masks of the whole.
"""

from __future__ import annotations

import math

from nezha_np.arrays import Array, asarray_like
from nezha_np.mechanism import constant, dropout_key, dropout_start, gradient_of, primitive
from nezha_np.randomness import uniform


def dropout(x: Array, *, rate: float, name: str = "dropout") -> Array:
    """Drop elements of `x` at random while training.

    Parameters
    ----------
    x : float array
        Any array.
    rate : float
        p, the probability of an element to be dropped.
    name : str
        The name of the layer in its scope.

    Returns
    -------
    float array
        `x` itself where there is no dropout; otherwise ``x * keep / (1 - rate)``.

    Examples
    --------
    >>> import numpy as np
    >>> dropout(np.ones(3), rate=0.5)
    array([1., 1., 1.])
    """
    key = dropout_key(name)
    if key is None or rate == 0.0:
        return unchanged(x, name=name)
    start = dropout_start(math.prod(x.shape))
    return rescale(x, dropout_mask(x, rate=rate, key=key, start=start, name=f"{name}.mask"), name=name)


@primitive
def unchanged(x: Array) -> Array:
    """Return `x` as it is, so that a trace has the dropout layer although it drops nothing.

    Parameters
    ----------
    x : float array
        Any array.

    Returns
    -------
    float array
        `x` itself.

    Examples
    --------
    >>> import numpy as np
    >>> unchanged(np.array([1.0, 2.0]))
    array([1., 2.])
    """
    return x


@constant
def dropout_mask(x: Array, *, rate: float, key: tuple[object, ...], start: int = 0) -> Array:
    """Sample a dropout mask.

    Parameters
    ----------
    x : float array
        The array to be masked, which gives shape, dtype, library and device.
    rate : float
        p.
    key : tuple
        Seed, step and full name of the layer (`nezha_np.mechanism.dropout_key`): the key of the random stream.
    start : int
        How many numbers of the stream belong to the rows of the batch before those of `x`.

    Returns
    -------
    float array
        0 with probability `rate`, 1 / (1 − rate) otherwise; the same numbers on every machine.

    Examples
    --------
    >>> import numpy as np
    >>> dropout_mask(np.ones((2, 4)), rate=0.5, key=(0, 0, "embeddings.dropout"))
    array([[0., 2., 0., 2.],
           [2., 0., 0., 2.]])
    """
    keep = uniform(math.prod(x.shape), *key, start=start) >= rate
    return asarray_like(x, keep.reshape(x.shape) / (1.0 - rate))


@primitive
def rescale(x: Array, factor: Array) -> Array:
    """Multiply by a constant array.

    Parameters
    ----------
    x : float array
        Any array.
    factor : float array
        The mask of `dropout_mask`, of the same shape.

    Returns
    -------
    float array
        ``x * factor``.

    Examples
    --------
    >>> import numpy as np
    >>> rescale(np.array([1.0, 2.0]), np.array([0.0, 2.0]))
    array([0., 4.])
    """
    return x * factor


@gradient_of(rescale, reads=("factor",))
def rescale_gradient(dy: Array, y: Array, x: Array, factor: Array) -> Array:
    """dx = dy · factor; the mask is a constant.

    Parameters
    ----------
    dy : float array
        The gradient of the loss with respect to `y`.
    y, x, factor
        The result and the arguments of `rescale`.

    Returns
    -------
    dx : float array
        The gradient with respect to `x`.
    """
    return dy * factor
