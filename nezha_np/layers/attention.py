"""Multi-head attention, its content part (Vaswani et al. 2017, section 3.2; transformers NezhaSelfAttention).

    head(x)   = softmax(q kᵀ / √D + mask) v,    q, k, v = three linear maps of x, cut into N heads of D features

NEZHA's position part is in `nezha_np.layers.relative_position`; `nezha_np.families.nezha` puts the two together.

Dimension letters: B batch, L length, N heads, Q query length, S key length, D head size.
"""

from __future__ import annotations

from nezha_np.arrays import Array, in_statistics_dtype, namespace
from nezha_np.layers.softmax import softmax, softmax_gradient
from nezha_np.mechanism import gradient_of, primitive


@primitive
def split_heads(x: Array, *, head_size: int) -> Array:
    """Cut the features of each token into heads.

    Parameters
    ----------
    x : (B, L, N·D) float array
        Queries, keys or values.
    head_size : int
        D.

    Returns
    -------
    (B, N, L, D) float array
        The same numbers, ordered by head.

    Examples
    --------
    >>> import numpy as np
    >>> split_heads(np.zeros((1, 5, 12)), head_size=4).shape
    (1, 3, 5, 4)
    """
    xp = namespace(x)
    batch, length, features = x.shape
    return xp.permute_dims(xp.reshape(x, (batch, length, features // head_size, head_size)), (0, 2, 1, 3))


@primitive
def merge_heads(x: Array) -> Array:
    """Concatenate the heads of each token: the inverse of `split_heads`.

    Parameters
    ----------
    x : (B, N, L, D) float array
        The context of each head.

    Returns
    -------
    (B, L, N·D) float array
        The same numbers, ordered by token.

    Examples
    --------
    >>> import numpy as np
    >>> merge_heads(np.zeros((1, 3, 5, 4))).shape
    (1, 5, 12)
    """
    xp = namespace(x)
    batch, heads, length, head_size = x.shape
    return xp.reshape(xp.permute_dims(x, (0, 2, 1, 3)), (batch, length, heads * head_size))


@gradient_of(split_heads, reads=())
def split_heads_gradient(dy: Array, y: Array, x: Array, *, head_size: int) -> Array:
    """dx = dy in the order of x: `merge_heads`.

    Parameters
    ----------
    dy : (B, N, L, D) float array
        The gradient of the loss with respect to `y`.
    y, x, head_size
        The result and the arguments of `split_heads`.

    Returns
    -------
    dx : (B, L, N·D) float array
        The gradient with respect to `x`.
    """
    return merge_heads.definition(dy)


@gradient_of(merge_heads, reads=())
def merge_heads_gradient(dy: Array, y: Array, x: Array) -> Array:
    """dx = dy in the order of x: `split_heads`.

    Parameters
    ----------
    dy : (B, L, N·D) float array
        The gradient of the loss with respect to `y`.
    y, x
        The result and the argument of `merge_heads`.

    Returns
    -------
    dx : (B, N, L, D) float array
        The gradient with respect to `x`.
    """
    return split_heads.definition(dy, head_size=x.shape[-1])


@primitive
def append_keys(past: Array, new: Array) -> Array:
    """Append new keys (or values) to those of a cache.

    Parameters
    ----------
    past : (B, N, P, D) float array
        The keys of the cache.
    new : (B, N, L, D) float array
        The keys of this call's tokens.

    Returns
    -------
    (B, N, P + L, D) float array
        All keys.

    Examples
    --------
    >>> import numpy as np
    >>> append_keys(np.zeros((1, 3, 5, 4)), np.zeros((1, 3, 2, 4))).shape
    (1, 3, 7, 4)
    """
    return namespace(new).concat([past, new], axis=2)


@gradient_of(append_keys, reads=())
def append_keys_gradient(dy: Array, y: Array, past: Array, new: Array) -> tuple[Array, Array]:
    """dpast and dnew are the two parts of dy.

    Parameters
    ----------
    dy : (B, N, P + L, D) float array
        The gradient of the loss with respect to `y`.
    y, past, new
        The result and the arguments of `append_keys`.

    Returns
    -------
    dpast : (B, N, P, D) float array
        The gradient with respect to `past`.
    dnew : (B, N, L, D) float array
        The gradient with respect to `new`.
    """
    before = past.shape[2]
    return dy[:, :, :before, :], dy[:, :, before:, :]


@primitive
def content_scores(q: Array, k: Array) -> Array:
    """Score each key by its content: q · k.

    Parameters
    ----------
    q : (B, N, Q, D) float array
        The queries.
    k : (B, N, S, D) float array
        The keys.

    Returns
    -------
    (B, N, Q, S) float array
        The content term of the scores, not yet divided by √D.

    Examples
    --------
    >>> import numpy as np
    >>> content_scores(np.array([[[[1.0, 2.0]]]]), np.array([[[[1.0, 0.0], [0.0, 1.0]]]]))
    array([[[[1., 2.]]]])
    """
    xp = namespace(q)
    return xp.matmul(q, xp.matrix_transpose(k))


@gradient_of(content_scores, reads=("q", "k"))
def content_scores_gradient(dy: Array, y: Array, q: Array, k: Array) -> tuple[Array, Array]:
    """dq = dy k, dk = dyᵀ q.

    Parameters
    ----------
    dy : (B, N, Q, S) float array
        The gradient of the loss with respect to `y`.
    y, q, k
        The result and the arguments of `content_scores`.

    Returns
    -------
    dq : (B, N, Q, D) float array
        The gradient with respect to `q`.
    dk : (B, N, S, D) float array
        The gradient with respect to `k`.
    """
    xp = namespace(q)
    return xp.matmul(dy, k), xp.matmul(xp.matrix_transpose(dy), q)


@primitive
def attention_probs(scores: Array, mask: Array | None = None, *, scale: float) -> Array:
    """Turn scores into probabilities: softmax(scale · scores + mask) over the keys.

    Parameters
    ----------
    scores : (B, N, Q, S) float array
        Content and position term together.
    mask : (B or 1, 1, Q or 1, S) float array, optional
        The additive mask: 0 where a key is attended to, the dtype's minimum where not.
    scale : float
        1/√D.

    Returns
    -------
    (B, N, Q, S) float array
        Each row sums to 1; computed in float32 at least. A row with everything masked is uniform.

    Examples
    --------
    >>> import numpy as np
    >>> attention_probs(np.array([[[[0.0, 0.0, 5.0]]]]), np.array([[[[0.0, 0.0, -1e300]]]]), scale=1.0)
    array([[[[0.5, 0.5, 0. ]]]])
    """
    logits = in_statistics_dtype(scores) * scale
    if mask is not None:
        logits = logits + mask
    return namespace(scores).astype(softmax(logits), scores.dtype, copy=False)


@gradient_of(attention_probs, reads=("y", "mask"))
def attention_probs_gradient(dy: Array, y: Array, scores: Array, mask: Array | None = None, *, scale: float) -> Array:
    """With y = softmax(z), z = scale · scores + mask: dscores = scale · dz.

    Parameters
    ----------
    dy : (B, N, Q, S) float array
        The gradient of the loss with respect to `y`.
    y, scores, mask, scale
        The result and the arguments of `attention_probs`.

    Returns
    -------
    dscores : (B, N, Q, S) float array
        The gradient with respect to `scores`; the mask is a constant.
    """
    dlogits = softmax_gradient(in_statistics_dtype(dy), in_statistics_dtype(y))
    return namespace(y).astype(dlogits * scale, scores.dtype, copy=False)


@primitive
def mask_heads(probs: Array, head_mask: Array) -> Array:
    """Weight each head's probabilities: 0 switches a head off, 1 leaves it as it is.

    Parameters
    ----------
    probs : (B, N, Q, S) float array
        The attention probabilities.
    head_mask : (N,) float array
        A factor for each head.

    Returns
    -------
    (B, N, Q, S) float array
        The weighted probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> mask_heads(np.ones((1, 2, 1, 1)), np.array([1.0, 0.0])).ravel()
    array([1., 0.])
    """
    return probs * head_mask[:, None, None]


@gradient_of(mask_heads, reads=("probs", "head_mask"))
def mask_heads_gradient(dy: Array, y: Array, probs: Array, head_mask: Array) -> tuple[Array, Array]:
    """dprobs = dy · mask; the mask's own gradient measures how much a head matters (Michel et al. 2019).

    Parameters
    ----------
    dy : (B, N, Q, S) float array
        The gradient of the loss with respect to `y`.
    y, probs, head_mask
        The result and the arguments of `mask_heads`.

    Returns
    -------
    dprobs : (B, N, Q, S) float array
        The gradient with respect to `probs`.
    dmask : (N,) float array
        The gradient with respect to `head_mask`.
    """
    xp = namespace(dy)
    dmask = xp.sum(in_statistics_dtype(dy) * in_statistics_dtype(probs), axis=(0, 2, 3))  # (N)
    return dy * head_mask[:, None, None], xp.astype(dmask, head_mask.dtype, copy=False)


@primitive
def content_context(probs: Array, v: Array) -> Array:
    """Average the values by the attention probabilities: Σ_j prob(i, j) · v_j.

    Parameters
    ----------
    probs : (B, N, Q, S) float array
        The attention probabilities.
    v : (B, N, S, D) float array
        The values.

    Returns
    -------
    (B, N, Q, D) float array
        The content term of the context.

    Examples
    --------
    >>> import numpy as np
    >>> content_context(np.array([[[[0.25, 0.75]]]]), np.array([[[[4.0], [8.0]]]]))
    array([[[[7.]]]])
    """
    return namespace(probs).matmul(probs, v)


@gradient_of(content_context, reads=("probs", "v"))
def content_context_gradient(dy: Array, y: Array, probs: Array, v: Array) -> tuple[Array, Array]:
    """dprobs = dy vᵀ, dv = probsᵀ dy.

    Parameters
    ----------
    dy : (B, N, Q, D) float array
        The gradient of the loss with respect to `y`.
    y, probs, v
        The result and the arguments of `content_context`.

    Returns
    -------
    dprobs : (B, N, Q, S) float array
        The gradient with respect to `probs`.
    dv : (B, N, S, D) float array
        The gradient with respect to `v`.
    """
    xp = namespace(probs)
    return xp.matmul(dy, xp.matrix_transpose(v)), xp.matmul(xp.matrix_transpose(probs), dy)
