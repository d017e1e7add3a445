"""Layer normalisation (Ba, Kiros and Hinton 2016; transformers: torch.nn.LayerNorm).

    μ = mean(x)    σ² = mean((x − μ)²)    x̂ = (x − μ) / √(σ² + ε)    y = γ x̂ + β

over the features of each token. The variance divides by H, not H − 1; NEZHA's ε is 1e-12.
"""

from __future__ import annotations

from nezha_np.arrays import Array, in_statistics_dtype, namespace
from nezha_np.layers.linear import flat_rows
from nezha_np.mechanism import gradient_of, primitive


@primitive
def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float) -> Array:
    """Normalise each token's features to mean 0 and variance 1, then scale and shift them.

    Parameters
    ----------
    x : (…, H) float array
        The tokens.
    weight, bias : (H,) float array
        γ and β.
    eps : float
        ε, added to the variance.

    Returns
    -------
    (…, H) float array
        The normalised tokens, in the dtype of `x`; mean and variance are computed in float32 at least.

    Examples
    --------
    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), eps=1e-12)
    array([[-1.,  1.]])
    """
    normalised, _ = _normalise(x, eps)
    return namespace(x).astype(normalised * weight + bias, x.dtype, copy=False)


def _normalise(x: Array, eps: float) -> tuple[Array, Array]:
    xp = namespace(x)
    centred = in_statistics_dtype(x)
    centred = centred - xp.mean(centred, axis=-1, keepdims=True)
    variance = xp.mean(centred * centred, axis=-1, keepdims=True)  # (…, 1)
    deviation = xp.sqrt(variance + eps)
    return centred / deviation, deviation


@gradient_of(layer_norm, reads=("x", "weight", "bias"))
def layer_norm_gradient(
    dy: Array, y: Array, x: Array, weight: Array, bias: Array, *, eps: float
) -> tuple[Array, Array, Array]:
    """dγ = Σ dy x̂ and dβ = Σ dy over all tokens. For one token, with g = γ dy,

        dx = (g − mean(g) − x̂ mean(g x̂)) / √(σ² + ε):

    μ passes back the mean of g, σ² passes back the part of g that lies along x̂.

    Parameters
    ----------
    dy : (…, H) float array
        The gradient of the loss with respect to `y`.
    y, x, weight, bias, eps
        The result and the arguments of `layer_norm`.

    Returns
    -------
    dx : (…, H) float array
        The gradient with respect to `x`.
    dweight, dbias : (H,) float array
        The gradients with respect to `weight` and `bias`.
    """
    xp = namespace(x)
    normalised, deviation = _normalise(x, eps)
    dy = xp.astype(dy, normalised.dtype, copy=False)
    g = dy * weight
    along = xp.mean(g * normalised, axis=-1, keepdims=True)  # (…, 1)
    dx = (g - xp.mean(g, axis=-1, keepdims=True) - normalised * along) / deviation
    dweight = xp.sum(flat_rows(dy * normalised), axis=0)  # (H)
    dbias = xp.sum(flat_rows(dy), axis=0)  # (H)
    return xp.astype(dx, x.dtype), xp.astype(dweight, weight.dtype), xp.astype(dbias, bias.dtype)
