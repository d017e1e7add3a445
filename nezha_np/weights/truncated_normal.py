"""The numbers of a new tensor: a normal distribution truncated at 2σ, with the same bits on every machine.

σ is ``config.initializer_range``, the standard deviation before truncation; the numbers themselves have 0.88 σ. This is
how the authors of BERT initialise, and those of NEZHA and ConvBERT after them (``create_initializer`` in their
modeling.py: ``tf.truncated_normal_initializer(stddev=initializer_range)``, which truncates at 2σ). The reference,
transformers, does not truncate.
"""

from __future__ import annotations

import numpy as np

from nezha_np.families.config import Config
from nezha_np.layers.activations import polynomial
from nezha_np.randomness import uniform

# The quantile function of the normal distribution between −2σ and 2σ: x = q P(q²)/Q(q²) with q = p − ½. P and Q are
# given by their coefficients, highest power first. It is a rational fit, within 7e-11 of the exact function. It needs
# no logarithm, whose last bit differs from machine to machine.
QUANTILE = (
    (67.67033939311035, -509.38402658773265, 862.4381479441645, -615.9060796288474, 216.72311866411707,
     -37.264715056121425, 2.506628274712097),
    (105.0283098113521, -409.1223243673617, 528.6209338336848, -320.89407134003426, 100.82185978424863,
     -15.913667936228807, 1.0),
)  # fmt: skip
WITHIN_TWO_SIGMA = 0.9544997361036416  # the probability of a normal number to be between −2σ and 2σ


def truncated_normal(uniform_numbers: np.ndarray) -> np.ndarray:
    """Map uniform numbers to numbers of the normal distribution with σ = 1, truncated at 2σ.

    Parameters
    ----------
    uniform_numbers : float64 array
        Numbers from 0 to 1.

    Returns
    -------
    float64 array
        Numbers from −2 to 2, by + − × ÷ in float64.

    Examples
    --------
    >>> truncated_normal(np.array([0.0, 0.5, 0.75])).round(4)
    array([-2.    ,  0.    ,  0.6391])
    """
    q = (uniform_numbers - 0.5) * WITHIN_TWO_SIGMA
    square = q * q
    numerator, denominator = QUANTILE
    return np.asarray(q * (polynomial(square, numerator) / polynomial(square, denominator)))


def new_tensor(name: str, shape: tuple[int, ...], config: Config, seed: int) -> np.ndarray:
    """Make a new tensor: matrices from the truncated normal distribution, biases 0, norms 1, the padding row 0.

    Parameters
    ----------
    name : str
        The name of the tensor. It says what the tensor is, and is a part of the key of its random stream.
    shape : tuple of int
        Its shape.
    config : Config
        The configuration; σ is its `initializer_range`.
    seed : int
        The other part of the key.

    Returns
    -------
    float64 array
        The numbers.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> new_tensor("pooler.dense.bias", (3,), NezhaConfig(), 0)
    array([0., 0., 0.])
    """
    if name.endswith("LayerNorm.weight"):
        return np.ones(shape)
    if name.endswith("bias"):
        return np.zeros(shape)
    numbers = truncated_normal(uniform(int(np.prod(shape)), seed, name))
    values: np.ndarray = (numbers * config.initializer_range).reshape(shape)
    if name == "embeddings.word_embeddings.weight" and config.pad_token_id is not None:
        values[config.pad_token_id] = 0.0
    return values
