"""Attention masks: which query may attend to which key (transformers: get_extended_attention_mask).

    mask(i, j) = (1 − attended(i, j)) · minimum of the dtype,        attended = padding mask × causal mask

The two masks are multiplied first, and the product is made additive: the sum of two minima would overflow, and a row
with everything masked would be NaN instead of uniform.

Dimension letters: B batch, Q query length, S key length.
"""

from __future__ import annotations

from nezha_np.arrays import Array, device_of, namespace, statistics_dtype
from nezha_np.mechanism import constant


@constant
def additive_mask(weight: Array, attended: Array | None, *, queries: int, keys: int, causal: bool) -> Array:
    """Make the mask that is added to the scores.

    Parameters
    ----------
    weight : array
        Any float weight: it gives library, device and dtype.
    attended : (B, S) or (B, Q, S) array, optional
        1 for a key that may be attended to, 0 for one that may not, or a number between; None: all may be attended to.
    queries, keys : int
        Q and S; the last query stands at the last key.
    causal : bool
        Whether a query attends only to its own position and those before it. A (B, Q, S) mask replaces this rule.

    Returns
    -------
    (B or 1, 1, Q or 1, S) float array
        0 where a key is attended to, the dtype's minimum where not; in float32 at least.

    Examples
    --------
    >>> import numpy as np
    >>> additive_mask(np.zeros(1, "float32"), None, queries=2, keys=2, causal=True) < 0
    array([[[[False,  True],
             [False, False]]]])
    """
    xp = namespace(weight)
    dtype = statistics_dtype(weight)
    if attended is None:
        attended = xp.ones((1, keys), dtype=dtype, device=device_of(weight))
    attended = xp.astype(attended, dtype)
    if attended.ndim == 3:
        attended = attended[:, None, :, :]  # (B, 1, Q, S)
    else:
        attended = attended[:, None, None, :]  # (B, 1, 1, S)
        if causal:
            key = xp.arange(keys, device=device_of(weight))
            query = xp.arange(queries, device=device_of(weight)) + (keys - queries)
            before = xp.astype(key[None, :] <= query[:, None], dtype)  # (Q, S)
            attended = attended * before[None, None, :, :]  # (B, 1, Q, S)
    return (1.0 - attended) * float(xp.finfo(dtype).min)


@constant
def as_constant(array: Array) -> Array:
    """Register an input array: a cache, embeddings, encoder states, a head mask, float labels.

    A tape refuses float arrays that no layer made; this layer makes an input known to it, as a constant.

    Parameters
    ----------
    array : float array
        The input.

    Returns
    -------
    float array
        The same array.

    Examples
    --------
    >>> import numpy as np
    >>> as_constant(np.zeros(2))
    array([0., 0.])
    """
    return array
