"""Mistakes in activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import activations
from nezha_np.oracle.mistakes.mistake import Mistake
from nezha_np.oracle.replay import Changes


def other_activation(definition: Callable[[Any], Any]) -> Changes:
    """Another function in place of every activation but tanh."""
    bent = (activations.gelu, activations.gelu_new, activations.relu, activations.silu, activations.selu)
    return dict.fromkeys(bent, lambda step, x: definition(x))


def quick_gelu(x: Any) -> Any:
    """x sigmoid(1.702 x)."""
    return x * activations.sigmoid(1.702 * x)


def gelu_without_root(x: Any) -> Any:
    """GELU with x in place of x/√2 inside the error function."""
    wide = np.asarray(x, np.float64)  # erf's polynomials overflow in float16
    return (0.5 * wide * (1.0 + activations.erf(wide))).astype(x.dtype)


ACTIVATIONS = (
    Mistake(
        "tanh GELU for erf",
        "GELU is computed by its tanh approximation (gelu_new); right is this model's exact one, x/2 · (1 + erf(x/√2))",
        {"": {activations.gelu: lambda step, x: activations.gelu_new.definition(x)}},
    ),
    Mistake(
        "another activation",
        "the feed-forward or a head applies another function; right is the configuration's hidden_act",
        {
            "gelu": other_activation(activations.gelu.definition),
            "relu": other_activation(activations.relu.definition),
            "silu": other_activation(activations.silu.definition),
            "tanh": other_activation(np.tanh),
            "quick gelu, x · sigmoid(1.702 x)": other_activation(quick_gelu),
            "GELU without √2, x/2 · (1 + erf(x))": other_activation(gelu_without_root),
            "none": other_activation(lambda x: x),
        },
    ),
)
