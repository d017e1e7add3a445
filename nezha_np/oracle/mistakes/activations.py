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


ACTIVATIONS = (
    Mistake(
        "tanh GELU for erf",
        "GELU is computed by its tanh approximation (gelu_new); this model's is the exact one, x/2 · (1 + erf(x/√2))",
        {"": {activations.gelu: lambda step, x: activations.gelu_new.definition(x)}},
    ),
    Mistake(
        "another activation",
        "the feed-forward or a head bends by another function than hidden_act",
        {
            "gelu": other_activation(activations.gelu.definition),
            "relu": other_activation(activations.relu.definition),
            "silu": other_activation(activations.silu.definition),
            "tanh": other_activation(np.tanh),
            "quick gelu, x · sigmoid(1.702 x)": other_activation(quick_gelu),
            "none": other_activation(lambda x: x),
        },
    ),
)
