"""Learned relative positions for BERT: an option of transformers, after Shaw et al. 2018 and Huang et al. 2020.

BERT as published (Devlin et al. 2019) has absolute positions only. `relative_key` is the keys' half of Shaw et al.
2018, section 3.2, without clipping; `relative_key_query` is method 4 of Huang et al. 2020.

Where NEZHA's table is a fixed function of the distance, here each distance has a vector that is learned: E of 2M − 1
rows, for the distances i − j from −(M − 1) to M − 1 of a query at i and a key at j (transformers BertSelfAttention,
``distance_embedding``). It enters the scores alone:

    relative_key          score(i, j) = (q_i · k_j + q_i · E[i − j + M − 1]) / √D
    relative_key_query    score(i, j) = (q_i · k_j + q_i · E[i − j + M − 1] + k_j · E[i − j + M − 1]) / √D

A distance of M or more has no row, so such a model reads at most M tokens. As for NEZHA, no (L, L, D) array is built:
each query (or key) is multiplied by the rows, and `spread` moves the products to their places. It counts distances from
query to key, j − i: so the rows are flipped for the queries, but not for the keys, whose distance is i − j.

Dimension letters: B batch, N heads, Q query length, S key length, D head size, M max position embeddings.
"""

from __future__ import annotations

from nezha_np.arrays import Array, device_of, in_statistics_dtype, namespace
from nezha_np.layers.relative_position import collect, spread
from nezha_np.mechanism import gradient_of, primitive


@primitive
def query_distance_scores(q: Array, weight: Array, *, keys: int, past: int = 0) -> Array:
    """Score each key by its distance from the query: q_i · E[i − j + M − 1].

    Parameters
    ----------
    q : (B, N, Q, D) float array
        The queries; the first stands at position `past`.
    weight : (2M - 1, D) float array
        E.
    keys : int
        S, the number of keys, M at most; the first stands at position 0, and the last query at the last key.
    past : int
        The number of keys before the first query.

    Returns
    -------
    (B, N, Q, S) float array
        The query's position term of the scores, not yet divided by √D.

    Examples
    --------
    >>> import numpy as np
    >>> query_distance_scores(np.ones((1, 1, 2, 1)), np.array([[-1.0], [0.0], [1.0]]), keys=2)  # i − j itself
    array([[[[ 0., -1.],
             [ 1.,  0.]]]])
    """
    xp = namespace(q)
    rows = xp.flip(_rows_within(weight, keys), axis=0)  # (2S-1, D): of j − i from −(S−1) to S−1
    return spread(xp.matmul(q, xp.matrix_transpose(rows)), keys=keys, past=past)  # (B, N, Q, S)


@gradient_of(query_distance_scores, reads=("q", "weight"))
def query_distance_scores_gradient(
    dy: Array, y: Array, q: Array, weight: Array, *, keys: int, past: int = 0
) -> tuple[Array, Array]:
    """dq = collect(dy) E and dE = Σ collect(dy)ᵀ q, with the rows in the order of `collect`.

    Parameters
    ----------
    dy : (B, N, Q, S) float array
        The gradient of the loss with respect to `y`.
    y, q, weight, keys, past
        The result and the arguments of `query_distance_scores`.

    Returns
    -------
    dq : (B, N, Q, D) float array
        The gradient with respect to `q`.
    dweight : (2M - 1, D) float array
        The gradient with respect to `weight`.
    """
    xp = namespace(dy)
    rows = xp.flip(_rows_within(weight, keys), axis=0)
    by_row = collect(dy, rows=2 * keys - 1, past=past)  # (B, N, Q, 2S-1)
    return xp.matmul(by_row, rows), _rows_back(xp.flip(_sum_of_products(by_row, q), axis=0), weight)


@primitive
def key_distance_scores(k: Array, weight: Array, *, queries: int, past: int = 0) -> Array:
    """Score each key by its own product with the vector of the distance: k_j · E[i − j + M − 1].

    Parameters
    ----------
    k : (B, N, S, D) float array
        The keys; the first stands at position 0.
    weight : (2M - 1, D) float array
        E.
    queries : int
        Q; the first query stands at position `past`, the last one at the last key.
    past : int
        The number of keys before the first query.

    Returns
    -------
    (B, N, Q, S) float array
        The key's position term of the scores, not yet divided by √D.

    Examples
    --------
    >>> import numpy as np
    >>> key_distance_scores(np.array([[[[1.0], [10.0]]]]), np.array([[-1.0], [0.0], [1.0]]), queries=2)
    array([[[[  0., -10.],
             [  1.,   0.]]]])
    """
    xp = namespace(k)
    by_row = xp.matmul(k, xp.matrix_transpose(_rows_within(weight, k.shape[2])))  # (B, N, S, 2S-1)
    return xp.matrix_transpose(spread(by_row, keys=queries, past=-past))  # (B, N, S, Q) -> (B, N, Q, S)


@gradient_of(key_distance_scores, reads=("k", "weight"))
def key_distance_scores_gradient(
    dy: Array, y: Array, k: Array, weight: Array, *, queries: int, past: int = 0
) -> tuple[Array, Array]:
    """dk = collect(dyᵀ) E and dE = Σ collect(dyᵀ)ᵀ k: as for the queries, with queries and keys exchanged.

    Parameters
    ----------
    dy : (B, N, Q, S) float array
        The gradient of the loss with respect to `y`.
    y, k, weight, queries, past
        The result and the arguments of `key_distance_scores`.

    Returns
    -------
    dk : (B, N, S, D) float array
        The gradient with respect to `k`.
    dweight : (2M - 1, D) float array
        The gradient with respect to `weight`.
    """
    xp = namespace(dy)
    keys = k.shape[2]
    by_row = collect(xp.matrix_transpose(dy), rows=2 * keys - 1, past=-past)  # (B, N, S, 2S-1)
    return xp.matmul(by_row, _rows_within(weight, keys)), _rows_back(_sum_of_products(by_row, k), weight)


def _rows_within(weight: Array, keys: int) -> Array:
    """Take the rows of the distances that S keys can have: (2M - 1, D) -> (2S - 1, D)."""
    middle = weight.shape[0] // 2
    return weight[middle - keys + 1 : middle + keys, :]


def _rows_back(rows: Array, weight: Array) -> Array:
    """Put rows back among zeros: (2S - 1, D) -> (2M - 1, D)."""
    xp = namespace(rows)
    missing = (weight.shape[0] - rows.shape[0]) // 2
    zeros = xp.zeros((missing, rows.shape[1]), dtype=rows.dtype, device=device_of(rows))
    return xp.concat([zeros, rows, zeros], axis=0)


def _sum_of_products(by_row: Array, x: Array) -> Array:
    """Σ over batch, heads and tokens: (B, N, L, R), (B, N, L, D) -> (R, D)."""
    xp = namespace(x)
    total = xp.sum(in_statistics_dtype(xp.matmul(xp.matrix_transpose(by_row), x)), axis=(0, 1))
    return xp.astype(total, x.dtype, copy=False)
