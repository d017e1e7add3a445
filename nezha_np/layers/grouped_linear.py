"""The grouped linear layer of ConvBERT's feed-forward (Jiang et al. 2020, section 3.3; transformers GroupedLinear).

    y = [x¹ W¹, …, x^G W^G] + b,    x = [x¹, …, x^G]

The features are cut into G groups, and each group has a small matrix of its own: 1/G of a linear layer's parameters.
Unlike a linear layer's, these matrices are (in, out).

Dimension letters: G groups, I in, O out; ``…`` any leading axes.
"""

from __future__ import annotations

from nezha_np.arrays import Array, in_statistics_dtype, namespace
from nezha_np.layers.linear import flat_rows
from nezha_np.mechanism import gradient_of, primitive


@primitive
def grouped_linear(x: Array, weight: Array, bias: Array) -> Array:
    """Map each group of features by a matrix of its own.

    Parameters
    ----------
    x : (…, I) float array
        The vectors.
    weight : (G, I / G, O / G) float array
        A matrix for each group.
    bias : (O,) float array
        The bias.

    Returns
    -------
    (…, O) float array
        The mapped vectors.

    Examples
    --------
    >>> import numpy as np
    >>> grouped_linear(np.array([[1.0, 2.0]]), np.array([[[10.0]], [[100.0]]]), np.array([0.0, 1.0]))
    array([[ 10., 201.]])
    """
    xp = namespace(x)
    y = _join_groups(xp.matmul(_split_groups(x, weight.shape[0]), weight))  # (G, rows, O/G) -> (rows, O)
    return xp.reshape(y + bias, (*x.shape[:-1], bias.shape[0]))  # (…, O)


@gradient_of(grouped_linear, reads=("x", "weight", "bias"))
def grouped_linear_gradient(dy: Array, y: Array, x: Array, weight: Array, bias: Array) -> tuple[Array, Array, Array]:
    """For each group as for a linear layer: dx = dy Wᵀ, dW = xᵀ dy; db = Σ dy.

    Parameters
    ----------
    dy : (…, O) float array
        The gradient of the loss with respect to `y`.
    y, x, weight, bias
        The result and the arguments of `grouped_linear`.

    Returns
    -------
    dx : (…, I) float array
        The gradient with respect to `x`.
    dweight : (G, I / G, O / G) float array
        The gradient with respect to `weight`.
    dbias : (O,) float array
        The gradient with respect to `bias`.
    """
    xp = namespace(dy)
    by_group = _split_groups(dy, weight.shape[0])  # (G, rows, O/G)
    dx = _join_groups(xp.matmul(by_group, xp.matrix_transpose(weight)))  # (rows, I)
    dweight = xp.matmul(xp.matrix_transpose(_split_groups(x, weight.shape[0])), by_group)  # (G, I/G, O/G)
    dbias = xp.astype(xp.sum(in_statistics_dtype(flat_rows(dy)), axis=0), dy.dtype, copy=False)
    return xp.reshape(dx, x.shape), dweight, dbias


def _split_groups(x: Array, groups: int) -> Array:
    """Cut the features into groups: (…, I) -> (G, rows, I / G), and likewise O for I."""
    xp = namespace(x)
    rows = flat_rows(x)
    return xp.permute_dims(xp.reshape(rows, (rows.shape[0], groups, rows.shape[1] // groups)), (1, 0, 2))


def _join_groups(x: Array) -> Array:
    """Concatenate the groups: (G, rows, I / G) -> (rows, I), and likewise O for I."""
    xp = namespace(x)
    groups, rows, features = x.shape
    return xp.reshape(xp.permute_dims(x, (1, 0, 2)), (rows, groups * features))
