"""The embedding: the row of a table for each id (transformers: torch.nn.Embedding).

y_n = W[id_n]        dW[v] = Σ_{n : id_n = v} dy_n
"""

from __future__ import annotations

import math

from nezha_np.arrays import Array, detached, in_statistics_dtype, namespace, sum_rows
from nezha_np.layers.linear import flat_rows
from nezha_np.mechanism import gradient_of, primitive


@primitive
def embedding(ids: Array, weight: Array, *, padding_idx: int | None = None) -> Array:
    """Look up the vector of each id.

    Parameters
    ----------
    ids : (B, L) array of int
        Ids from 0 to ``V - 1``.
    weight : (V, H) float array
        The table.
    padding_idx : int, optional
        The id whose row gets no gradient from look-ups; None: every row gets one.

    Returns
    -------
    (B, L, H) float array
        The vectors.

    Examples
    --------
    >>> import numpy as np
    >>> embedding(np.array([[1, 0]]), np.array([[0.0, 0.0], [1.0, 2.0]]))
    array([[[1., 2.],
            [0., 0.]]])
    """
    xp = namespace(weight)
    flat = xp.reshape(ids, (math.prod(ids.shape),))
    rows = xp.take(weight, flat, axis=0)  # (B·L, H)
    if padding_idx is not None and (fixed := detached(rows)) is not rows:
        # Where the library's own autograd differentiates this definition, it too must leave out the padding id.
        rows = xp.where((flat == padding_idx)[:, None], fixed, rows)
    return xp.reshape(rows, (*ids.shape, weight.shape[1]))  # (B, L, H)


@gradient_of(embedding)
def embedding_gradient(
    dy: Array, y: Array, ids: Array, weight: Array, *, padding_idx: int | None = None
) -> tuple[None, Array]:
    """dweight[v] is the sum of the rows of dy whose id is v; look-ups of the padding id are left out.

    Parameters
    ----------
    dy : (B, L, H) float array
        The gradient of the loss with respect to `y`.
    y, ids, weight, padding_idx
        The result and the arguments of `embedding`.

    Returns
    -------
    None
        Ids have no gradient.
    dweight : (V, H) float array
        The gradient with respect to `weight`.
    """
    xp = namespace(weight)
    flat = xp.reshape(ids, (math.prod(ids.shape),))
    rows = in_statistics_dtype(flat_rows(dy))  # (B·L, H)
    if padding_idx is not None:
        rows = xp.where((flat == padding_idx)[:, None], xp.zeros_like(rows), rows)
    return None, xp.astype(sum_rows(flat, rows, weight.shape[0]), weight.dtype, copy=False)
