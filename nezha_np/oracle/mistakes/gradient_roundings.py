"""Gradients that are made of rounded numbers: dy, what the pass has saved, or a term between, in half precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.arrays import has_kind, is_array
from nezha_np.layers.activations import gelu, gelu_new, relu, selu, silu, tanh
from nezha_np.layers.attention import attention_probs, content_context, content_scores, mask_heads
from nezha_np.layers.embedding import embedding
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.losses import cross_entropy
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.layers.relative_position import position_context, position_scores
from nezha_np.layers.span_convolution import (
    convolution_kernels,
    dynamic_convolution,
    multiply,
    separable_convolution,
)
from nezha_np.mechanism import Layer
from nezha_np.oracle.mistakes.gradient_terms import loss_of, over
from nezha_np.oracle.mistakes.mistake import Mistake, mistake
from nezha_np.oracle.mistakes.narrowing import HALF, narrow
from nezha_np.oracle.replay import Change, Step

GRADIENT_ROUNDINGS: list[Mistake] = []
ACTIVATIONS = (gelu, gelu_new, relu, selu, silu, tanh)
LINEAR = (linear, grouped_linear)
WITH_PARAMETERS = (
    *LINEAR,
    layer_norm,
    separable_convolution,
    query_distance_scores,
    key_distance_scores,
    embedding,
)
WITHOUT = (
    *ACTIVATIONS,
    attention_probs,
    content_context,
    content_scores,
    mask_heads,
    position_context,
    position_scores,
    convolution_kernels,
    dynamic_convolution,
    multiply,
)

rounded_factors = mistake(
    GRADIENT_ROUNDINGS,
    "gradient of rounded numbers",
    does="a gradient is made of numbers that were rounded to a narrower dtype: of dy, or of what the pass has saved",
    right="the port's dtype",
    of_rounding=True,
)


def tf32(x: Any) -> Any:
    """Round to the 10 bits that TF32 multiplies."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0xFFF + ((bits >> np.uint64(13)) & np.uint64(1))) & np.uint64(0xFFFFE000)
    return bits.astype(np.uint32).view(np.float32).astype(np.asarray(x).dtype)


NARROW: dict[str, Callable[[Any], Any]] = {
    **{dtype: functools.partial(narrow, dtype=dtype) for dtype in HALF},
    "TF32": tf32,
}


def rounded_if_float(value: Any, make: Callable[[Any], Any]) -> Any:
    """Round an array of floats, and nothing else."""
    return make(value) if is_array(value) and has_kind(value, "real floating") else value


def of_rounded(make: Callable[[Any], Any], *, dy_too: bool, saved_too: bool, made_too: bool) -> Change:
    """The gradient made of a rounded dy, of rounded arrays that were saved, or of both, or rounded when it is made."""

    def change(step: Step, dy: Any, y: Any, *arguments: Any, **options: Any) -> Any:
        used = [rounded_if_float(value, make) if saved_too else value for value in (y, *arguments)]
        made = step.right(make(dy) if dy_too else dy, *used, **options)
        if not made_too:
            return made
        return tuple(rounded_if_float(part, make) for part in (made if isinstance(made, tuple) else (made,)))

    return change


def at_places(change: Change, places: slice) -> Change:
    """A change of the gradients of some arguments alone."""

    def of_some(step: Step, dy: Any, y: Any, *arguments: Any, **options: Any) -> Any:
        parts = list(step.right(dy, y, *arguments, **options))
        parts[places] = change(step, dy, y, *arguments, **options)[places]
        return tuple(parts)

    return of_some


ALL, INPUT, MATRIX, PARAMETERS = slice(None), slice(0, 1), slice(1, 2), slice(1, None)
WHERE: dict[str, tuple[tuple[Layer, ...], slice]] = {
    "": ((*WITH_PARAMETERS, *WITHOUT), ALL),
    ", in linear layers": (LINEAR, ALL),
    ", in linear layers, the inputs' gradients": (LINEAR, INPUT),
    ", in linear layers, the matrices' gradients": (LINEAR, MATRIX),
    ", in linear layers, the gradients of matrix and bias": (LINEAR, PARAMETERS),
    ", in norms": ((layer_norm,), ALL),
    ", in norms, the inputs' gradients": ((layer_norm,), INPUT),
    ", in norms, the gradients of weight and bias": ((layer_norm,), PARAMETERS),
}
ROUNDED = {
    "dy": {"dy_too": True, "saved_too": False, "made_too": False},
    "what was saved": {"dy_too": False, "saved_too": True, "made_too": False},
    "both factors": {"dy_too": True, "saved_too": True, "made_too": False},
    "the gradient itself": {"dy_too": False, "saved_too": False, "made_too": True},
}
for name, make in NARROW.items():
    for what, which in ROUNDED.items():
        of_all = of_rounded(make, **which)
        for where, (layers, places) in WHERE.items():
            change = of_all if places == ALL else at_places(of_all, places)
            rounded_factors.add_way(f"{what} in {name}{where}", dict.fromkeys(layers, change))

rounded_term = mistake(
    GRADIENT_ROUNDINGS,
    "gradient with a rounded term",
    does="a term of a gradient's formula is rounded to a narrower dtype: a probability, a slope, the normalised number",
    right="the port's dtype",
    of_rounding=True,
)


def norm_with_rounded(make: Callable[[Any], Any], *, means_too: bool) -> Change:
    """The gradient of layer_norm with a rounded x̂, and with means that are rounded."""

    def change(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        _, dweight, dbias = step.right(dy, y, x, weight, bias, eps=eps)
        deviation = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
        normalised, scaled = make((x - x.mean(axis=-1, keepdims=True)) / deviation), dy * weight
        along, mean = (scaled * normalised).mean(axis=-1, keepdims=True), scaled.mean(axis=-1, keepdims=True)
        along = make(along) if means_too else along
        return (scaled - mean - normalised * along) / deviation, dweight, dbias

    return change


def p_rounded(make: Callable[[Any], Any], *, less_label: bool) -> Callable[[Any, Any, Any, int], Any]:
    """The gradient of the loss with a rounded p, or a rounded p less the label."""
    return lambda p, hot, counts, C: (make(p - hot) if less_label else make(p) - hot) * over(counts)


def slope_rounded(make: Callable[[Any], Any]) -> Change:
    """The derivative of an activation rounded."""
    return lambda step, dy, y, x: dy * make(step.right(np.ones_like(dy), y, x))


for name, make in NARROW.items():
    rounded_term.way(f"p of the loss in {name}", cross_entropy)(loss_of(p_rounded(make, less_label=False)))
    rounded_term.way(f"p less the label in {name}", cross_entropy)(loss_of(p_rounded(make, less_label=True)))
    rounded_term.way(f"the slope of an activation in {name}", *ACTIVATIONS)(slope_rounded(make))
    rounded_term.way(f"x̂ of a norm in {name}", layer_norm)(norm_with_rounded(make, means_too=False))
    rounded_term.way(f"x̂ of a norm and its mean in {name}", layer_norm)(norm_with_rounded(make, means_too=True))
