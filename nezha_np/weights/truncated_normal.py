"""The distribution that new weights are drawn from: a normal one cut off at 2σ, the same bits on every machine."""

from __future__ import annotations

import numpy as np

from nezha_np.families.config import Config
from nezha_np.layers.activations import polynomial
from nezha_np.randomness import uniform

# -------------------------------------------------------------------------------------------------------------- drawing

# The inverse of the normal distribution's function between −2σ and 2σ: x = q P(q²)/Q(q²), q = p − ½, highest power
# first. A rational fit, within 7e-11 of it, so that a draw needs no logarithm, whose last bit differs from machine to
# machine.
QUANTILE = (
    (67.67033939311035, -509.38402658773265, 862.4381479441645, -615.9060796288474, 216.72311866411707,
     -37.264715056121425, 2.506628274712097),
    (105.0283098113521, -409.1223243673617, 528.6209338336848, -320.89407134003426, 100.82185978424863,
     -15.913667936228807, 1.0),
)  # fmt: skip


WITHIN_TWO_SIGMA = 0.9544997361036416


def draw(name: str, shape: tuple[int, ...], config: Config, seed: int) -> np.ndarray:
    """Draw a new tensor: a matrix from the truncated normal distribution, biases 0, norms 1, the padding row 0.

    Parameters
    ----------
    name : str
        The name of the tensor, which keys its random stream, and says what it is.
    shape : tuple of int
        Its shape.
    config : Config
        The configuration: σ is its `initializer_range`.
    seed : int
        The seed of the stream.

    Returns
    -------
    float64 array
        The numbers.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> draw("pooler.dense.bias", (3,), NezhaConfig(), 0)
    array([0., 0., 0.])
    """
    if name.endswith("LayerNorm.weight"):
        return np.ones(shape)
    if name.endswith("bias"):
        return np.zeros(shape)
    q = (uniform(int(np.prod(shape)), seed, name) - 0.5) * WITHIN_TWO_SIGMA
    square = q * q
    normal = q * (polynomial(square, QUANTILE[0]) / polynomial(square, QUANTILE[1]))
    values = (normal * config.initializer_range).reshape(shape)
    if name == "embeddings.word_embeddings.weight" and config.pad_token_id is not None:
        values[config.pad_token_id] = 0.0
    return values
