"""Mistakes in activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import activations
from nezha_np.oracle.mistakes.mistake import Mistake, mistake
from nezha_np.oracle.replay import Changes, Step

ACTIVATIONS: list[Mistake] = []

tanh_gelu = mistake(
    ACTIVATIONS,
    "tanh GELU for erf",
    does="GELU is computed by its tanh approximation (gelu_new)",
    right="this model's exact one, x/2 · (1 + erf(x/√2))",
)


@tanh_gelu.way("", activations.gelu)
def by_tanh(step: Step, x: Any) -> Any:
    """GELU's tanh approximation."""
    return activations.gelu_new.definition(x)


another_activation = mistake(
    ACTIVATIONS,
    "another activation",
    does="the feed-forward network or a task head applies another function",
    right="the configuration's hidden_act",
)


def other_activation(definition: Callable[[Any], Any]) -> Changes:
    """Another function in place of every activation but tanh."""
    replaced = (activations.gelu, activations.gelu_new, activations.relu, activations.silu, activations.selu)
    return dict.fromkeys(replaced, lambda step, x: definition(x))


def quick_gelu(x: Any) -> Any:
    """x sigmoid(1.702 x)."""
    return x * activations.sigmoid(1.702 * x)


def gelu_without_root(x: Any) -> Any:
    """GELU with x in place of x/√2 inside the error function."""
    wide = np.asarray(x, np.float64)  # erf's polynomials overflow in float16
    return np.asarray(0.5 * wide * (1.0 + activations.erf(wide)), x.dtype)


for way, function in (
    ("gelu", activations.gelu.definition),
    ("relu", activations.relu.definition),
    ("silu", activations.silu.definition),
    ("tanh", np.tanh),
    ("quick gelu, x · sigmoid(1.702 x)", quick_gelu),
    ("GELU without √2, x/2 · (1 + erf(x))", gelu_without_root),
    ("none", lambda x: x),
):
    another_activation.add_way(way, other_activation(function))
