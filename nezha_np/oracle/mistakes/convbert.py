"""Mistakes that ConvBERT alone can have: its kernels, its span and its groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.attention import split_heads
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.softmax import softmax
from nezha_np.layers.span_convolution import (
    convolution_kernels,
    dynamic_convolution,
    join_features,
    multiply,
    separable_convolution,
)
from nezha_np.oracle.mistakes.attention import with_scale
from nezha_np.oracle.mistakes.mistake import CONVBERT, Mistake, first, mistake, second
from nezha_np.oracle.replay import Changes, Step

OF_CONVBERT: list[Mistake] = []

# ------------------------------------------------------------------------------------------------------------- kernels

reversed_kernel = mistake(
    OF_CONVBERT,
    "kernel reversed",
    does="a kernel's first number weighs the token after",
    right="the token before (a cross-correlation)",
    families=CONVBERT,
)


@reversed_kernel.way("both", separable_convolution)
def span_reversed(step: Step, x: Any, depthwise: Any, *rest: Any) -> Any:
    """The depthwise kernels read backwards."""
    return step.right(x, depthwise[:, :, ::-1], *rest)


@reversed_kernel.way("both", dynamic_convolution)
def dynamic_reversed(step: Step, values: Any, kernels: Any) -> Any:
    """The kernels of each token read backwards."""
    return step.right(values, kernels[..., ::-1])


reversed_kernel.way("of the span", separable_convolution)(span_reversed)
reversed_kernel.way("of the dynamic convolution", dynamic_convolution)(dynamic_reversed)


def kernels_by(function: Callable[[Any], Any], *, turned: bool = False) -> Changes:
    """Kernels made otherwise of the scores (B, L, N, k), or of scores read as (B, L, k, N)."""

    def change(step: Step, scores: Any, *, size: int) -> Any:
        shape = (*scores.shape[:2], -1, size) if not turned else (*scores.shape[:2], size, scores.shape[2] // size)
        cut = scores.reshape(shape)
        return function(np.swapaxes(cut, 2, 3) if turned else cut)

    return {convolution_kernels: change}


def softmax_over(axis: int) -> Callable[[Any], Any]:
    """The softmax over another axis than the last."""

    def function(x: Any) -> Any:
        probs: Any = softmax(np.moveaxis(x, axis, -1))
        return np.moveaxis(probs, -1, axis)

    return function


def softmax_over_all(x: Any) -> Any:
    """The softmax over all scores of a token."""
    probs: Any = softmax(x.reshape(*x.shape[:2], -1))
    return probs.reshape(x.shape)


not_softmaxed = mistake(
    OF_CONVBERT,
    "kernels not softmaxed",
    does="the scores themselves are taken for kernels",
    right="a softmax of the k scores of each",
    families=CONVBERT,
)
not_softmaxed.add_way("", kernels_by(lambda x: x))

wrong_axis = mistake(
    OF_CONVBERT,
    "kernels softmaxed over the wrong axis",
    does="kernels sum to 1 over kernels or tokens, or are cut as (k, N)",
    right="to cut scores into N kernels of k numbers, each of which sums to 1",
    families=CONVBERT,
)
wrong_axis.add_way("over the kernels", kernels_by(softmax_over(2)))
wrong_axis.add_way("over the tokens", kernels_by(softmax_over(1)))
wrong_axis.add_way("over all", kernels_by(softmax_over_all))
wrong_axis.add_way("cut as (k, N)", kernels_by(softmax, turned=True))

not_multiplied = mistake(
    OF_CONVBERT,
    "span not multiplied by the query",
    does="kernels are made of the span or of the query alone, or of their sum",
    right="their product",
    families=CONVBERT,
)
not_multiplied.way("the span alone", multiply)(first)
not_multiplied.way("the query alone", multiply)(second)


@not_multiplied.way("their sum", multiply)
def their_sum(step: Step, x: Any, y: Any) -> Any:
    """The sum of span and query."""
    return x + y


# ------------------------------------------------------------------------------------------------------------- padding

one_sided = mistake(
    OF_CONVBERT,
    "convolution padded on one side",
    does="a kernel covers the tokens up to each, or from each on",
    right="as many before as after",
    families=CONVBERT,
)


def kernels_to_one_side(side: str) -> Changes:
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

    return {separable_convolution: span, dynamic_convolution: dynamic}


for side in ("left", "right"):
    both = kernels_to_one_side(side)
    one_sided.add_way(side, both)
    one_sided.add_way(f"{side}, of the span", {separable_convolution: both[separable_convolution]})
    one_sided.add_way(f"{side}, dynamic", {dynamic_convolution: both[dynamic_convolution]})

padding_left_out = mistake(
    OF_CONVBERT,
    "padding left out of the convolutions",
    does="the port sets masked tokens to zero before the convolutions",
    right="to read padding like text, because the reference's convolutions ignore the mask",
    families=CONVBERT,
)


def unmasked(step: Step, x: Any) -> Any:
    """Zeros for the tokens that are masked."""
    mask = np.asarray(step.inputs["attention_mask"])
    if mask.ndim != 2:
        raise ValueError("the mask is one for each query")
    return x * (mask[:, :, None] != 0)


@padding_left_out.way("", separable_convolution, dynamic_convolution)
def of_unmasked(step: Step, x: Any, *rest: Any) -> Any:
    """A convolution of the tokens that are not masked."""
    return step.right(unmasked(step, x), *rest)


# --------------------------------------------------------------------------------------------- heads, features, groups

joined_otherwise = mistake(
    OF_CONVBERT,
    "heads and convolutions joined in the wrong order",
    does="the features of the convolutions are put first",
    right="to put those of the attention heads first",
    families=CONVBERT,
)


@joined_otherwise.way("", join_features)
def convolutions_first(step: Step, x: Any, y: Any) -> Any:
    """The features of the convolutions, and then those of the heads."""
    return step.right(y, x)


ratio_ignored = mistake(
    OF_CONVBERT,
    "head_ratio ignored",
    does="the features are cut into num_attention_heads heads",
    right="to cut them into num_attention_heads // head_ratio",
    families=CONVBERT,
)


def size_without_ratio(step: Step) -> int:
    """Return the size of an attention head where head_ratio is ignored."""
    config = step.config
    heads, features = int(config.num_attention_heads), int(config.attention_heads * config.head_size)
    if features % heads or heads == config.attention_heads:
        raise ValueError("the features cannot be cut into so many heads")
    return features // heads


@ratio_ignored.way("", split_heads)
def split_into_all(step: Step, x: Any, *, head_size: int) -> Any:
    """The features cut into num_attention_heads heads."""
    return step.right(x, head_size=size_without_ratio(step))


ratio_ignored.add_way("", with_scale(lambda step, scale: 1.0 / math.sqrt(size_without_ratio(step))))

interleaved = mistake(
    OF_CONVBERT,
    "groups in turn",
    does="a grouped linear layer takes every G-th feature for a group, or returns its results in this order",
    right="to take features that follow one another for a group",
    families=CONVBERT,
)


def in_groups(x: Any, groups: int) -> Any:
    """Bring every G-th feature together."""
    return np.swapaxes(x.reshape(*x.shape[:-1], -1, groups), -1, -2).reshape(x.shape)


@interleaved.way("taken so", grouped_linear)
def groups_of_every_gth(step: Step, x: Any, weight: Any, bias: Any) -> Any:
    """Feature i in group i mod G."""
    return step.right(in_groups(x, weight.shape[0]), weight, bias)


@interleaved.way("given back so", grouped_linear)
def results_in_turn(step: Step, x: Any, weight: Any, bias: Any) -> Any:
    """Results put together feature by feature, not group by group."""
    y = step.right(x, weight, bias * 0.0)
    return in_groups(y, weight.shape[2]) + bias


# ------------------------------------------------------------------------------------------------- windows and layouts

window_off = mistake(
    OF_CONVBERT,
    "window of a convolution off",
    does="the window of k tokens is moved, or what lies beyond the ends is not 0",
    right="(k − 1)/2 tokens before and after each, and zeros beyond both ends",
    families=CONVBERT,
)


def in_window(x: Any, size: int, at: int, mode: str) -> list[Any]:
    """List the neighbour at each place of a kernel, the window moved by some tokens."""
    half, length = size // 2, x.shape[1]
    width = ((0, 0), (half + abs(at), half + abs(at)), *((0, 0),) * (x.ndim - 2))
    wide = np.pad(x, width, mode=mode)  # type: ignore[call-overload]
    return [wide[:, abs(at) + at + j : abs(at) + at + j + length] for j in range(size)]


def with_window(at: int, mode: str = "constant") -> Changes:
    """Convolutions whose window is moved, or padded otherwise."""

    def span(step: Step, x: Any, depthwise: Any, pointwise: Any, bias: Any) -> Any:
        neighbours = in_window(x, depthwise.shape[2], at, mode)
        z = sum(neighbour * depthwise[:, 0, j] for j, neighbour in enumerate(neighbours))
        return z @ pointwise[:, :, 0].T + bias[:, 0]

    def dynamic(step: Step, values: Any, kernels: Any) -> Any:
        by_kernel = values.reshape(*kernels.shape[:3], -1)
        neighbours = in_window(by_kernel, kernels.shape[-1], at, mode)
        total: Any = sum(kernels[..., j, None] * neighbour for j, neighbour in enumerate(neighbours))
        return total.reshape(values.shape)

    return {separable_convolution: span, dynamic_convolution: dynamic}


for way, window in (
    ("one token later", with_window(1)),
    ("one token earlier", with_window(-1)),
    ("the edges repeated", with_window(0, "edge")),
    ("mirrored at the edges", with_window(0, "reflect")),
    ("going round to the other end", with_window(0, "wrap")),
):
    window_off.add_way(way, window)
    window_off.add_way(f"{way}, of the span", {separable_convolution: window[separable_convolution]})
    window_off.add_way(f"{way}, dynamic", {dynamic_convolution: window[dynamic_convolution]})

laid_out_otherwise = mistake(
    OF_CONVBERT,
    "convolution laid out otherwise",
    does="windows, kernels or matrices of a convolution are read in the order of other axes",
    right="windows of (k, N, D) for each token, pointwise weights (out, in)",
    families=CONVBERT,
)


@laid_out_otherwise.way("windows read as (N·D, k) and cut as (k, N·D)", dynamic_convolution)
def im2col_mixed(step: Step, values: Any, kernels: Any) -> Any:
    """What unfold returns, features before places, cut as if places came first."""
    size = kernels.shape[-1]
    windows = np.stack(in_window(values, size, 0, "constant"), axis=-1)  # (B, L, N·D, k)
    mixed = windows.reshape(*values.shape[:2], size, *kernels.shape[2:3], -1)
    return np.einsum("blnk,blknd->blnd", kernels, mixed).reshape(values.shape)


@laid_out_otherwise.way("windows read as (k, N·D) and cut as (N, D, k)", dynamic_convolution)
def im2col_mixed_otherwise(step: Step, values: Any, kernels: Any) -> Any:
    """Places before features, cut as unfold returns them."""
    size = kernels.shape[-1]
    windows = np.stack(in_window(values, size, 0, "constant"), axis=2)  # (B, L, k, N·D)
    mixed = windows.reshape(*values.shape[:2], kernels.shape[2], -1, size)
    return np.einsum("blnk,blndk->blnd", kernels, mixed).reshape(values.shape)


@laid_out_otherwise.way("features cut as (D, N)", dynamic_convolution)
def features_before_kernels(step: Step, values: Any, kernels: Any) -> Any:
    """Feature i for kernel i mod N."""
    count = kernels.shape[2]
    y = step.right(in_groups(values, count), kernels)
    return in_groups(y, y.shape[-1] // count)


@laid_out_otherwise.way("pointwise weights read as (in, out)", separable_convolution)
def pointwise_transposed(step: Step, x: Any, depthwise: Any, pointwise: Any, *rest: Any) -> Any:
    """The pointwise matrix written column by column."""
    out, into = pointwise.shape[:2]
    return step.right(x, depthwise, pointwise.reshape(into, out, 1).transpose(1, 0, 2), *rest)


@laid_out_otherwise.way("depthwise weights read as (k, H)", separable_convolution)
def depthwise_transposed(step: Step, x: Any, depthwise: Any, *rest: Any) -> Any:
    """The depthwise kernels written place by place."""
    features, _, size = depthwise.shape
    return step.right(x, depthwise.reshape(size, features).T[:, None, :], *rest)


@laid_out_otherwise.way("heads and convolutions joined one by one", join_features)
def joined_by_head(step: Step, x: Any, y: Any) -> Any:
    """A head of attention, then one of convolutions, in turn."""
    heads = int(step.config.attention_heads)
    both = np.stack([array.reshape(*array.shape[:-1], heads, -1) for array in (x, y)], axis=-2)
    return both.reshape(*x.shape[:-1], -1)


@laid_out_otherwise.way("features of both joined one by one", join_features)
def joined_by_feature(step: Step, x: Any, y: Any) -> Any:
    """A feature of attention, then one of convolutions, in turn."""
    return np.stack([x, y], axis=-1).reshape(*x.shape[:-1], -1)


# --------------------------------------------------------------------------------------------------- parts left out

half_of_it = mistake(
    OF_CONVBERT,
    "separable convolution in another order",
    does="the depthwise or the pointwise half is left out, or the pointwise half comes first",
    right="the depthwise kernels of all features first, and then the pointwise matrix",
    families=CONVBERT,
)


@half_of_it.way("depthwise left out", separable_convolution)
def pointwise_alone(step: Step, x: Any, depthwise: Any, pointwise: Any, bias: Any) -> Any:
    """The matrix alone."""
    return x @ pointwise[:, :, 0].T + bias[:, 0]


def of_kernels(x: Any, kernels: Any) -> Any:
    """A depthwise convolution."""
    neighbours = in_window(x, kernels.shape[2], 0, "constant")
    return sum(neighbour * kernels[:, 0, j] for j, neighbour in enumerate(neighbours))


@half_of_it.way("pointwise first, with the first kernels", separable_convolution)
def pointwise_first(step: Step, x: Any, depthwise: Any, pointwise: Any, bias: Any) -> Any:
    """The matrix, and then as many kernels as it has results."""
    return of_kernels(x @ pointwise[:, :, 0].T, depthwise[: len(pointwise)]) + bias[:, 0]


@half_of_it.way("pointwise left out", separable_convolution)
def depthwise_alone(step: Step, x: Any, depthwise: Any, pointwise: Any, bias: Any) -> Any:
    """The kernels of the first features alone."""
    return of_kernels(x, depthwise)[..., : len(pointwise)] + bias[:, 0]


def with_a_function(function: Callable[[Any], Any]) -> Callable[..., Any]:
    """Something between both halves."""

    def change(step: Step, x: Any, depthwise: Any, pointwise: Any, bias: Any) -> Any:
        return function(of_kernels(x, depthwise)) @ pointwise[:, :, 0].T + bias[:, 0]

    return change


half_of_it.way("ReLU between both", separable_convolution)(with_a_function(lambda z: np.maximum(z, 0.0)))
half_of_it.way("the input added between both", separable_convolution)(
    lambda step, x, depthwise, pointwise, bias: (of_kernels(x, depthwise) + x) @ pointwise[:, :, 0].T + bias[:, 0]
)


def joined_as(parts: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[..., Any]:
    """Other features side by side: of those of heads and convolutions."""
    return lambda step, x, y: np.concatenate(parts(x, y), axis=-1)


added_up = mistake(
    OF_CONVBERT,
    "heads and convolutions added up",
    does="the features of attention heads and convolutions are added, or one of them is taken twice",
    right="to put those of the attention heads first, and then those of the convolutions",
    families=CONVBERT,
)
for way, put_together in (
    ("their sum twice", lambda x, y: (x + y, x + y)),
    ("their mean twice", lambda x, y: ((x + y) / 2.0, (x + y) / 2.0)),
    ("the heads twice", lambda x, y: (x, x)),
    ("the convolutions twice", lambda x, y: (y, y)),
    ("the convolutions left at 0", lambda x, y: (x, 0.0 * y)),
    ("the heads left at 0", lambda x, y: (0.0 * x, y)),
    ("the convolutions added to the heads", lambda x, y: (x + y, y)),
    ("the heads added to the convolutions", lambda x, y: (x, x + y)),
):
    added_up.way(way, join_features)(joined_as(put_together))

scaled_kernels = mistake(
    OF_CONVBERT,
    "kernels of scaled scores",
    does="the scores of the kernels, or the products that they are made of, are multiplied or divided by a number",
    right="to make them of the product of span and query as it is",
    families=CONVBERT,
)
for way, of_scores in (
    ("divided by √D", lambda step, size: step.config.head_size**-0.5),
    ("multiplied by √D", lambda step, size: step.config.head_size**0.5),
    ("divided by √k", lambda step, size: size**-0.5),
    ("divided by k", lambda step, size: 1.0 / size),
    ("divided by D", lambda step, size: 1.0 / step.config.head_size),
):
    scaled_kernels.way(f"scores {way}", convolution_kernels)(
        lambda step, scores, size, of_scores=of_scores: step.right(scores * of_scores(step, size), size=size)
    )
    if "k" not in way:
        scaled_kernels.way(f"products {way}", multiply)(
            lambda step, x, y, of_scores=of_scores: step.right(x, y) * of_scores(step, 1)
        )
