"""Mistakes that ConvBERT alone can have: its kernels, its span and its groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import span_convolution
from nezha_np.layers.attention import split_heads
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.softmax import softmax
from nezha_np.oracle.mistakes.attention import with_scale
from nezha_np.oracle.mistakes.mistake import CONVBERT, Mistake, first, second
from nezha_np.oracle.replay import Changes, Step


def one_sided(side: str) -> Changes:
    """Kernels over the tokens up to each (side left), or from each on."""

    def padded(x: Any, size: int, where: str) -> Any:
        width = (size // 2, 0) if where == "left" else (0, size // 2)
        return np.pad(x, ((0, 0), width, *((0, 0),) * (x.ndim - 2)))

    other = {"left": "right", "right": "left"}[side]

    def inside(y: Any, length: int) -> Any:
        return y[:, :length] if side == "left" else y[:, -length:]

    def span(step: Step, x: Any, depthwise: Any, *rest: Any) -> Any:
        return inside(step.right(padded(x, depthwise.shape[2], side), depthwise, *rest), x.shape[1])

    def dynamic(step: Step, values: Any, kernels: Any) -> Any:
        size = kernels.shape[-1]
        return inside(step.right(padded(values, size, side), padded(kernels, size, other)), values.shape[1])

    return {span_convolution.separable_convolution: span, span_convolution.dynamic_convolution: dynamic}


def kernels_by(bend: Callable[[Any], Any], *, turned: bool = False) -> Changes:
    """Kernels made otherwise of the scores (B, L, N, k), or of scores read as (B, L, k, N)."""

    def change(step: Step, scores: Any, *, size: int) -> Any:
        shape = (*scores.shape[:2], -1, size) if not turned else (*scores.shape[:2], size, scores.shape[2] // size)
        cut = scores.reshape(shape)
        return bend(np.swapaxes(cut, 2, 3) if turned else cut)

    return {span_convolution.convolution_kernels: change}


def over_axis(axis: int) -> Callable[[Any], Any]:
    """The softmax over another axis than the last."""
    return lambda x: np.moveaxis(softmax(np.moveaxis(x, axis, -1)), -1, axis)


def unmasked(step: Step, x: Any) -> Any:
    """Zeros for the tokens that are masked."""
    mask = np.asarray(step.inputs["attention_mask"])
    if mask.ndim != 2:
        raise ValueError("the mask is one for each query")
    return x * (mask[:, :, None] != 0)


def interleaved_groups(step: Step, x: Any, weight: Any, bias: Any) -> Any:
    """Feature i in group i mod G."""
    groups = weight.shape[0]
    return step.right(in_groups(x, groups), weight, bias)


def in_groups(x: Any, groups: int) -> Any:
    """Bring every G-th feature together."""
    return np.swapaxes(x.reshape(*x.shape[:-1], -1, groups), -1, -2).reshape(x.shape)


def shuffled_groups(step: Step, x: Any, weight: Any, bias: Any) -> Any:
    """Results put together feature by feature, not group by group."""
    y = step.right(x, weight, bias * 0.0)
    return in_groups(y, weight.shape[2]) + bias


def all_heads(step: Step) -> int:
    """Return the size of a head where head_ratio is ignored."""
    config = step.config
    features = config.attention_heads * config.head_size
    if features % config.num_attention_heads or config.num_attention_heads == config.attention_heads:
        raise ValueError("the features cannot be cut into so many heads")
    return features // config.num_attention_heads


SPAN, DYNAMIC = span_convolution.separable_convolution, span_convolution.dynamic_convolution
FLIPPED: Changes = {
    SPAN: lambda step, x, depthwise, *rest: step.right(x, depthwise[:, :, ::-1], *rest),
    DYNAMIC: lambda step, values, kernels: step.right(values, kernels[..., ::-1]),
}

OF_CONVBERT = (
    Mistake(
        "kernel reversed",
        "a kernel's first number weighs the token after; right is the token before (a cross-correlation)",
        {
            "both": FLIPPED,
            "of the span": {SPAN: FLIPPED[SPAN]},
            "of the dynamic convolution": {DYNAMIC: FLIPPED[DYNAMIC]},
        },
        CONVBERT,
    ),
    Mistake(
        "kernels not softmaxed",
        "the scores themselves are taken for kernels; right is a softmax of the k scores of each",
        {"": kernels_by(lambda x: x)},
        CONVBERT,
    ),
    Mistake(
        "kernels softmaxed over the wrong axis",
        "kernels sum to 1 over kernels or tokens, or are cut as (k, N); right is to cut scores into N kernels of k "
        "numbers, each of which sums to 1",
        {
            "over the kernels": kernels_by(over_axis(2)),
            "over the tokens": kernels_by(over_axis(1)),
            "over all": kernels_by(lambda x: softmax(x.reshape(*x.shape[:2], -1)).reshape(x.shape)),
            "cut as (k, N)": kernels_by(softmax, turned=True),
        },
        CONVBERT,
    ),
    Mistake(
        "span not multiplied by the query",
        "kernels are made of the span or of the query alone, or of their sum; right is their product",
        {
            "the span alone": {span_convolution.multiply: first},
            "the query alone": {span_convolution.multiply: second},
            "their sum": {span_convolution.multiply: lambda step, x, y: x + y},
        },
        CONVBERT,
    ),
    Mistake(
        "convolution padded on one side",
        "a kernel covers the tokens up to each, or from each on; right is as many before as after",
        {
            f"{side}{which}": {layer: one_sided(side)[layer] for layer in layers}
            for side in ("left", "right")
            for which, layers in (("", (SPAN, DYNAMIC)), (", of the span", (SPAN,)), (", dynamic", (DYNAMIC,)))
        },
        CONVBERT,
    ),
    Mistake(
        "padding left out of the convolutions",
        "the port sets masked tokens to zero before the convolutions; the reference's convolutions ignore the mask, "
        "and read padding like text",
        {
            "": {
                SPAN: lambda step, x, *rest: step.right(unmasked(step, x), *rest),
                DYNAMIC: lambda step, values, kernels: step.right(unmasked(step, values), kernels),
            }
        },
        CONVBERT,
    ),
    Mistake(
        "heads and convolutions joined in the wrong order",
        "the features of the convolutions are put first; right are those of the attention heads first",
        {"": {span_convolution.join_features: lambda step, x, y: step.right(y, x)}},
        CONVBERT,
    ),
    Mistake(
        "head_ratio ignored",
        "the features are cut into num_attention_heads heads; right are num_attention_heads // head_ratio of them",
        {
            "": {
                split_heads: lambda step, x, *, head_size: step.right(x, head_size=all_heads(step)),
                **with_scale(lambda step, scale: 1.0 / math.sqrt(all_heads(step))),
            }
        },
        CONVBERT,
    ),
    Mistake(
        "groups in turn",
        "a grouped linear layer takes every G-th feature for a group, or gives results back so; right are runs of "
        "features",
        {
            "taken so": {grouped_linear: interleaved_groups},
            "given back so": {grouped_linear: shuffled_groups},
        },
        CONVBERT,
    ),
)
