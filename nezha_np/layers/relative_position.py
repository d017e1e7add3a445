"""NEZHA's one idea: functional relative positions (Wei et al. 2019, section 2.2; transformers NezhaSelfAttention).

Attention alone does not depend on the positions of the tokens. NEZHA adds how far apart two tokens are: a query at
position i and a key at position j are at distance j − i. Clipped to −K … K and counted from 0, the distance is the
number of a row in a fixed table of sines and cosines

    row(i, j)    = clip(j − i, −K, K) + K                     from 0 to 2K
    T[r, 2m]     = sin(r / 10000^(2m/D))
    T[r, 2m + 1] = cos(r / 10000^(2m/D))

and this row, t_ij = T[row(i, j)], is added to the key **and** to the value:

    score(i, j)  = q_i · (k_j + t_ij) / √D            = (q_i · k_j + q_i · t_ij) / √D
    context(i)   = Σ_j prob(i, j) · (v_j + t_ij)      = Σ_j prob(i, j) · v_j + Σ_j prob(i, j) · t_ij

T is not trained and stands in no checkpoint. Beyond K all distances of one side share one row, so a text may have any
length. (The
paper's formula has the sine and cosine of j − i itself. The authors' code, with which the checkpoints were trained,
clips it and counts it from 0, and so does this package.) The terms with t_ij alone are the two layers of this file,
`position_scores` and `position_context`; `nezha_np.families.nezha` puts them into the attention.

There are only 2K + 1 different distances, so no (L, L, D) array is ever built. `position_scores` takes the product of
each query with the 2K + 1 rows and spreads it over the keys; `position_context` collects the probabilities into 2K + 1
buckets, one for each distance, and takes one product with the rows. `spread` and `collect` are linear maps, and each is
the transpose of the other, so each layer's gradient uses the other one's map.

They rearrange the same numbers, from one layout to another, shown here for Q = S = 3:

    by key: column j           by distance: column c stands for j − i = c − (Q − 1)
      a b c                       . . a b c .
      d e f                       . d e f . .
      g h i                       g h i . . .

Read row after row, the right layout without its first Q − 1 and its last cell has the rows of the left one, each
followed by Q − 1 cells that are not used: a reshape turns one into the other. Its width is W = Q + S.

Dimension letters: B batch, N heads, Q query length, S key length, D head size, K max relative position, W = Q + S.
"""

from __future__ import annotations

import numpy as np

from nezha_np.arrays import Array, asarray_like, device_of, namespace
from nezha_np.mechanism import gradient_of, primitive


def relative_position_table(weight: Array, *, head_size: int, max_relative_position: int) -> Array:
    """Make the table T of functional relative positions.

    It is computed on the host in float64, as NEZHA's authors do, then cast to the dtype of `weight` and moved to its
    device. (transformers 4.37.2 computes it in float32, which is up to 9e-6 away at D = 64, K = 127.)

    Parameters
    ----------
    weight : array
        Any float weight: it gives library, device and dtype.
    head_size : int
        D, an even number.
    max_relative_position : int
        K.

    Returns
    -------
    (2K + 1, D) array
        Row p + K is the vector of the distance p.

    Examples
    --------
    >>> import numpy as np
    >>> relative_position_table(np.zeros(1), head_size=4, max_relative_position=1).round(2)
    array([[ 0.  ,  1.  ,  0.  ,  1.  ],
           [ 0.84,  0.54,  0.01,  1.  ],
           [ 0.91, -0.42,  0.02,  1.  ]])
    """
    row = np.arange(2 * max_relative_position + 1, dtype=np.float64)[:, None]  # (2K+1, 1)
    frequency = 10000.0 ** (-np.arange(0, head_size, 2, dtype=np.float64) / head_size)  # (D/2)
    angle = row * frequency  # (2K+1, D/2)
    table = np.stack([np.sin(angle), np.cos(angle)], axis=-1)  # (2K+1, D/2, 2): each sine beside its cosine
    return asarray_like(weight, table.reshape(-1, head_size))  # (2K+1, D)


@primitive
def position_scores(q: Array, table: Array, *, keys: int, past: int = 0) -> Array:
    """Score each key by its distance from the query alone: q_i · t_ij.

    Parameters
    ----------
    q : (B, N, Q, D) float array
        The queries; the first stands at position `past`.
    table : (2K + 1, D) float array
        `relative_position_table`.
    keys : int
        S, the number of keys; the first stands at position 0.
    past : int
        The position of the first query: the number of keys in the cache.

    Returns
    -------
    (B, N, Q, S) float array
        The position term of the scores, not yet divided by √D.

    Examples
    --------
    >>> import numpy as np
    >>> table = relative_position_table(np.zeros(1), head_size=2, max_relative_position=1)
    >>> position_scores(np.ones((1, 1, 3, 2)), table, keys=3).round(2)  # one number a diagonal
    array([[[[1.38, 0.49, 0.49],
             [1.  , 1.38, 0.49],
             [1.  , 1.  , 1.38]]]])
    """
    xp = namespace(q)
    by_row = xp.matmul(q, xp.matrix_transpose(table))  # (B, N, Q, 2K+1)
    return spread(by_row, keys=keys, past=past)  # (B, N, Q, S)


@gradient_of(position_scores, reads=("table",))
def position_scores_gradient(dy: Array, y: Array, q: Array, table: Array, *, keys: int, past: int = 0) -> Array:
    """dq = collect(dy) T: `spread` is linear, and `collect` is its transpose. T is fixed and has no gradient.

    Parameters
    ----------
    dy : (B, N, Q, S) float array
        The gradient of the loss with respect to `y`.
    y, q, table, keys, past
        The result and the arguments of `position_scores`.

    Returns
    -------
    dq : (B, N, Q, D) float array
        The gradient with respect to `q`.
    """
    return namespace(dy).matmul(collect(dy, rows=table.shape[0], past=past), table)  # (B, N, Q, D)


@primitive
def position_context(probs: Array, table: Array, *, past: int = 0) -> Array:
    """Average the rows of the table by the attention probabilities: Σ_j prob(i, j) · t_ij.

    Parameters
    ----------
    probs : (B, N, Q, S) float array
        The attention probabilities.
    table : (2K + 1, D) float array
        `relative_position_table`.
    past : int
        The position of the first query.

    Returns
    -------
    (B, N, Q, D) float array
        The position term of the context.

    Examples
    --------
    >>> import numpy as np
    >>> table = relative_position_table(np.zeros(1), head_size=2, max_relative_position=1)
    >>> position_context(np.array([[[[0.0, 1.0]]]]), table).round(2)  # all attention one step to the right
    array([[[[ 0.91, -0.42]]]])
    """
    by_row = collect(probs, rows=table.shape[0], past=past)  # (B, N, Q, 2K+1)
    return namespace(probs).matmul(by_row, table)  # (B, N, Q, D)


@gradient_of(position_context, reads=("table",))
def position_context_gradient(dy: Array, y: Array, probs: Array, table: Array, *, past: int = 0) -> Array:
    """dprobs = spread(dy Tᵀ): the transpose of collecting is spreading.

    Parameters
    ----------
    dy : (B, N, Q, D) float array
        The gradient of the loss with respect to `y`.
    y, probs, table, past
        The result and the arguments of `position_context`.

    Returns
    -------
    dprobs : (B, N, Q, S) float array
        The gradient with respect to `probs`.
    """
    xp = namespace(dy)
    return spread(xp.matmul(dy, xp.matrix_transpose(table)), keys=probs.shape[-1], past=past)  # (B, N, Q, S)


def spread(by_row: Array, *, keys: int, past: int = 0) -> Array:
    """Spread a number for each row of the table over the keys: ``y[i, j] = by_row[i, clip(j − i − past, −K, K) + K]``.

    Parameters
    ----------
    by_row : (B, N, Q, 2K + 1) array
        For each query a number for each row of the table.
    keys : int
        S, the number of keys.
    past : int
        The position of the first query.

    Returns
    -------
    (B, N, Q, S) array
        For each query a number for each key.

    Examples
    --------
    >>> import numpy as np
    >>> spread(np.array([[[[1, 2, 3], [4, 5, 6]]]]), keys=3)  # the first query is at 0, the second at 1
    array([[[[2, 3, 3],
             [4, 5, 6]]]])
    """
    xp = namespace(by_row)
    batch, heads, queries, rows = by_row.shape
    width, reach = queries + keys, rows // 2  # W, K
    distance = xp.arange(width, device=device_of(by_row)) - (queries - 1) - past  # (W)
    by_distance = xp.take(by_row, xp.clip(distance, -reach, reach) + reach, axis=-1)  # (B, N, Q, W)
    flat = xp.reshape(by_distance, (batch, heads, queries * width))  # (B, N, Q·W)
    shifted = flat[:, :, queries - 1 : queries * width - 1]  # (B, N, Q·(W-1))
    return xp.reshape(shifted, (batch, heads, queries, width - 1))[:, :, :, :keys]  # (B, N, Q, S)


def collect(by_key: Array, *, rows: int, past: int = 0) -> Array:
    """Add up the numbers of all keys at the same distance: the transpose of `spread`.

    Parameters
    ----------
    by_key : (B, N, Q, S) array
        For each query a number for each key.
    rows : int
        2K + 1, the number of rows of the table.
    past : int
        The position of the first query.

    Returns
    -------
    (B, N, Q, 2K + 1) array
        ``y[i, r]`` is the sum of ``by_key[i, j]`` over the keys j with clip(j − i − past, −K, K) + K = r.

    Examples
    --------
    >>> import numpy as np
    >>> collect(np.array([[[[1, 10, 100], [1, 10, 100]]]]), rows=3)
    array([[[[  0,   1, 110],
             [  1,  10, 100]]]])
    """
    xp = namespace(by_key)
    if rows == 1:  # K = 0: all distances are the same
        return xp.sum(by_key, axis=-1, keepdims=True)
    batch, heads, queries, keys = by_key.shape
    width, reach = queries + keys, rows // 2  # W, K

    def zeros(*shape: int) -> Array:
        return xp.zeros(shape, dtype=by_key.dtype, device=device_of(by_key))

    # The reshape of `spread`, backwards: fill the cells that are not used, and each distance is a column again.
    rows_filled = xp.concat([by_key, zeros(batch, heads, queries, queries - 1)], axis=-1)  # (B, N, Q, W-1)
    flat = xp.reshape(rows_filled, (batch, heads, queries * (width - 1)))  # (B, N, Q·(W-1))
    flat = xp.concat([zeros(batch, heads, queries - 1), flat, zeros(batch, heads, 1)], axis=-1)  # (B, N, Q·W)
    by_distance = xp.reshape(flat, (batch, heads, queries, width))  # (B, N, Q, W)

    # Column c belongs to row c − shift; all that lie beyond the first and the last row are summed into them. With
    # Q = S = 4, K = 1 and no past, shift is 2: columns 0 to 2 go to row 0, column 3 to row 1, columns 4 to 7 to row 2.
    # Where the keys reach less far than K, rows that no column belongs to are filled with zeros.
    shift = queries - 1 + past - reach
    first = min(max(shift + 1, 0), width)  # the columns before it belong to row 0
    last = min(max(shift + rows - 1, first), width)  # the columns from it on belong to row 2K
    left = xp.sum(by_distance[..., :first], axis=-1, keepdims=True)
    right = xp.sum(by_distance[..., last:], axis=-1, keepdims=True)
    middle = by_distance[..., first:last]
    missing_left = min(max(first - shift - 1, 0), rows - 2)
    missing_right = rows - 2 - missing_left - (last - first)
    gap_left, gap_right = zeros(batch, heads, queries, missing_left), zeros(batch, heads, queries, missing_right)
    return xp.concat([left, gap_left, middle, gap_right, right], axis=-1)  # (B, N, Q, 2K+1)
