"""Kernels for NumPy: work in blocks that stay in cache, in place, and touch memory once."""

from __future__ import annotations

import numpy as np

from nezha_np.layers import activations
from nezha_np.mechanism import Kernel, Layer

BLOCK = 16384  # elements: 64 KiB of float32, three of which fit into a core's second-level cache

# Φ(x) = ½ (1 + tanh(x p(x²))), highest power first. Fitted to the erf form: gelu is within 7e-8 of it. Beyond REACH
# tanh is ±1 in float32.
GELU = (
    1.8056384375673432e-09, -1.3344745470968787e-07, 3.969127648031163e-06, -5.524030363803009e-05,
    -3.31294517967756e-05, 0.03633428266535418, 0.7978842165041892,
)  # fmt: skip
REACH = 5.7


def gelu(x: np.ndarray) -> np.ndarray:
    """Compute gelu in float32 by a tanh whose argument is a polynomial: a third of the definition's passes.

    Examples
    --------
    >>> gelu(np.array([-1.0, 0.0, 1.0], "float32")).round(4)
    array([-0.1587,  0.    ,  0.8413], dtype=float32)
    """
    y = np.empty(x.shape, np.float32)
    source, result = x.reshape(-1), y.reshape(-1)  # the source is copied if it is not contiguous
    clipped, square = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(0, source.size, BLOCK):
        block, out = source[start : start + BLOCK], result[start : start + BLOCK]
        c, s = clipped[: block.size], square[: block.size]
        np.clip(block, -REACH, REACH, out=c)
        np.multiply(c, c, out=s)
        np.multiply(s, GELU[0], out=out)
        for coefficient in GELU[1:-1]:
            out += coefficient
            out *= s
        out += GELU[-1]
        out *= c
        np.tanh(out, out=out)
        out += 1.0
        out *= block
        out *= 0.5
    return y


KERNELS: dict[Layer, Kernel] = {
    activations.gelu: (gelu, (np.dtype(np.float32),)),
}
