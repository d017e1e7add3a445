"""Attention rollout: from which tokens the vectors of each layer are mixed, if attention were all that mixes them.

A layer adds what its attention fetched to what was there. With P̄ the mean of the heads' probabilities, half of each
vector is taken to stay as it was:

    A_l = ½ P̄_l + ½ I,    R_l = A_l R_{l−1},    R_0 = I

R_l(i, j) is the part of token j in the vector of token i after layer l (Abnar & Zuidema 2020, "Quantifying attention
flow in transformers", https://arxiv.org/abs/2005.00928). Neither values nor feed-forward networks are seen by it.

Dimension letters: B batch, L length, N heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nezha_np.arrays import Array, to_numpy


def attention_rollout(attentions: Sequence[Array], *, residual: float = 0.5) -> np.ndarray:
    """Multiply the attention of all layers.

    Parameters
    ----------
    attentions : sequence of (B, N, L, L) float array
        The attention probabilities of each layer, the first one first: ``out.attentions``.
    residual : float, optional
        Which part of a vector stays as it was, from 0 to 1.

    Returns
    -------
    (layers, B, L, L) float64 array
        What each layer's vectors (rows) are mixed of; the sum of a row is 1.

    Raises
    ------
    ValueError
        If there are no attentions, they are not square, or `residual` is not from 0 to 1.

    Examples
    --------
    >>> import nezha_np as nz
    >>> out = nz.forward(nz.load(), [[2, 318, 3]], output_attentions=True)
    >>> rollout = nz.inside.attention_rollout(out.attentions)
    >>> rollout.shape, float(rollout[-1, 0, 0].sum().round(6))
    ((4, 1, 3, 3), 1.0)
    """
    if not attentions or any(array.ndim != 4 or array.shape[2] != array.shape[3] for array in attentions):
        shapes = [tuple(array.shape) for array in attentions or ()]
        raise ValueError(f"attentions: expected arrays of shape (B, N, L, L), one for each layer, got {shapes}")
    if not 0.0 <= residual <= 1.0:
        raise ValueError(f"residual: expected a number from 0 to 1, got {residual!r}")
    eye = np.eye(attentions[0].shape[-1])
    found = [np.broadcast_to(eye, (attentions[0].shape[0], *eye.shape))]
    for probs in attentions:
        mixed = (1.0 - residual) * to_numpy(probs).astype(np.float64).mean(axis=1) + residual * eye  # (B, L, L)
        found.append(mixed @ found[-1])
    return np.stack(found[1:])
