"""Mistakes in attention: scale, softmax, attention heads, the cache and cross-attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.attention import (
    append_keys,
    attention_probs,
    content_scores,
    mask_heads,
    merge_heads,
    split_heads,
)
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.layers.relative_position import position_scores
from nezha_np.layers.softmax import softmax
from nezha_np.layers.span_convolution import convolution_kernels
from nezha_np.model import model
from nezha_np.oracle.mistakes.mistake import NEZHA_AND_BERT, Evidence, Mistake, Ways, first, mistake
from nezha_np.oracle.mistakes.narrowing import HALF, narrow, recognise_rounding
from nezha_np.oracle.replay import At, Change, Changes, Step

ATTENTION: list[Mistake] = []

# --------------------------------------------------------------------------------------------------------------- scale

scale_missing = mistake(
    ATTENTION,
    "scale missing",
    does="the scores are not divided before the softmax",
    right="to divide them by √D, D being the size of a head",
)


def with_scale(factor: Callable[[Step, float], float]) -> Changes:
    """Another factor of the scores."""
    return {
        attention_probs: lambda step, scores, mask=None, *, scale: step.right(scores, mask, scale=factor(step, scale))
    }


def with_scale_of_scores(factor: Callable[[Any], float]) -> Changes:
    """A factor that depends on the scores' shape."""
    return {attention_probs: lambda step, scores, mask=None, *, scale: step.right(scores, mask, scale=factor(scores))}


UNSCALED = with_scale(lambda step, scale: 1.0)
scale_missing.add_way("", UNSCALED)

another_scale = mistake(
    ATTENTION,
    "another scale",
    does="the scores are divided by D, by √H or by another number",
    right="√D, D being the size of a head",
)


def head_scale(step: Step) -> float:
    """Return 1/√D."""
    return 1.0 / math.sqrt(step.config.head_size)


def has_position_term(step: Step) -> bool:
    """Whether the scores have a position term."""
    kind = getattr(step.config, "position_embedding_type", "absolute")
    return bool(step.config.model_type == "nezha" or (kind != "absolute" and "cross" not in step.name))


def scaled(step: Step, *arguments: Any, **options: Any) -> Any:
    """The result divided by √D."""
    return step.right(*arguments, **options) * head_scale(step)


def keys_scaled(step: Step, *arguments: Any, **options: Any) -> Any:
    """The keys divided by √D, of a model that has no position term."""
    if has_position_term(step):
        raise ValueError("the position term would not be divided")
    return step.right(*arguments, **options) * head_scale(step)


another_scale.add_way("doubled: by D", with_scale(lambda step, scale: scale * scale))
another_scale.add_way("by √H", with_scale(lambda step, scale: 1.0 / math.sqrt(step.config.hidden_size)))
another_scale.add_way("by √N", with_scale(lambda step, scale: 1.0 / math.sqrt(step.config.attention_heads)))
another_scale.add_way("multiplied", with_scale(lambda step, scale: 1.0 / scale))
another_scale.add_way("by D − 1", with_scale(lambda step, scale: 1.0 / max(1.0, step.config.head_size - 1.0)))
another_scale.add_way("by √(D − 1)", with_scale(lambda step, scale: max(1.0, step.config.head_size - 1.0) ** -0.5))
another_scale.add_way("by √(D + 1)", with_scale(lambda step, scale: (step.config.head_size + 1.0) ** -0.5))
another_scale.add_way("by √(2D)", with_scale(lambda step, scale: (2.0 * step.config.head_size) ** -0.5))
another_scale.add_way("by √(3D)", with_scale(lambda step, scale: (3.0 * step.config.head_size) ** -0.5))
another_scale.add_way("by 2√D", with_scale(lambda step, scale: scale / 2.0))
another_scale.add_way("by √D / 2", with_scale(lambda step, scale: scale * 2.0))
another_scale.add_way("by the fourth root of D", with_scale(lambda step, scale: scale**0.5))
another_scale.add_way("by H", with_scale(lambda step, scale: 1.0 / step.config.hidden_size))
another_scale.add_way("by 8, that of heads of 64", with_scale(lambda step, scale: 0.125))
another_scale.add_way("by √S", with_scale_of_scores(lambda scores: scores.shape[-1] ** -0.5))
another_scale.add_way("by ln 2 · √D", with_scale(lambda step, scale: scale / math.log(2.0)))
another_scale.add_way("by √D / ln 2", with_scale(lambda step, scale: scale * math.log(2.0)))


@another_scale.recogniser
def fitted_scale(evidence: Evidence) -> Ways:
    """Recognise any other number: by how much a score more raises the logarithm of a probability."""
    if evidence.layer is not attention_probs:
        return {}
    scores, *mask = evidence.arguments
    may = np.broadcast_to(mask[0] > -5e4 if mask and mask[0] is not None else True, scores.shape)
    use = may & (evidence.theirs > 1e-6)
    if not use.any() or (use.sum(axis=-1) < 2).all():
        return {}
    count = np.maximum(use.sum(axis=-1, keepdims=True), 1)
    logits = np.where(use, np.log(np.where(use, evidence.theirs, 1.0)), 0.0)
    x = np.where(use, scores - np.where(use, scores, 0.0).sum(axis=-1, keepdims=True) / count, 0.0)
    y = np.where(use, logits - logits.sum(axis=-1, keepdims=True) / count, 0.0)
    if not (x * x).sum() > 0.0:
        return {}
    factor = float((x * y).sum() / (x * x).sum())
    return {f"multiplied by {factor:.4g}": with_scale(lambda step, scale: factor)}


another_scale.way("in the queries too", split_heads, at="**.q")(scaled)
another_scale.way("in the keys too", split_heads, at="**.k")(keys_scaled)

content_alone_scaled = mistake(
    ATTENTION,
    "scale applied before the position term",
    does="the content term alone is divided by √D",
    right="to divide the sum of content and position term",
    families=NEZHA_AND_BERT,
    indivisible=True,
)


def content_scaled(step: Step, *arguments: Any, **options: Any) -> Any:
    """The content term divided by √D, of a model that has a position term too."""
    if not has_position_term(step):
        raise ValueError("there is no position term")
    return step.right(*arguments, **options) * head_scale(step)


content_alone_scaled.add_way("in the content term", {content_scores: content_scaled, **UNSCALED})
content_alone_scaled.add_way("in the keys", {split_heads: At("**.k", content_scaled), **UNSCALED})


@content_alone_scaled.way("in the sum", add, at="**.scores")
def first_summand_scaled(step: Step, x: Any, y: Any) -> Any:
    """The content term divided where it is added."""
    return step.right(x * head_scale(step), y)


@content_alone_scaled.way("in the sum", attention_probs)
def sum_not_scaled(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The sum of both terms as it is, of a model that has a position term."""
    if not has_position_term(step):
        raise ValueError("there is no position term")
    return step.right(scores, mask, scale=1.0)


scaled_early = mistake(
    ATTENTION,
    "scale applied early",
    does="queries, keys or scores are divided by √D already, and not again: the probabilities are right, and nothing "
    "has to be mended",
    right="this array without the division: leave it out, or compare it after a multiplication",
    indivisible=True,
)
scaled_early.add_way("in the queries", {split_heads: At("**.q", scaled), **UNSCALED})
scaled_early.add_way("in the keys", {split_heads: At("**.k", keys_scaled), **UNSCALED})
scaled_early.way("in the scores", content_scores, position_scores, query_distance_scores, key_distance_scores)(scaled)
scaled_early.add_way("in the scores", UNSCALED)

scores_transposed = mistake(
    ATTENTION,
    "scores transposed",
    does="the scores have a row for each key, k · q",
    right="a row for each query, with its scores for all keys, q · k",
)


def transposed(step: Step, *arguments: Any, **options: Any) -> Any:
    """Scores with queries and keys exchanged, where there are as many of them."""
    scores = step.right(*arguments, **options)
    if scores.shape[-1] != scores.shape[-2]:
        raise ValueError("queries and keys are not equally many")
    return np.swapaxes(scores, -1, -2)


scores_transposed.way("in the content term", content_scores)(transposed)
scores_transposed.way("in both terms", content_scores, position_scores, query_distance_scores, key_distance_scores)(
    transposed
)
scores_transposed.way("in the sum", add, at="**.scores")(transposed)

# ------------------------------------------------------------------------------------------------------------- softmax

wrong_axis = mistake(
    ATTENTION,
    "softmax over the wrong axis",
    does="probabilities sum to 1 over queries, heads or texts",
    right="over the keys, the last axis",
    across_texts=("over the texts",),
)


def softmax_over(axis: int) -> Change:
    """Probabilities that sum to 1 over another axis."""

    def change(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        logits = scores * scale if mask is None else scores * scale + mask
        probs: Any = softmax(np.moveaxis(logits, axis, -1))
        return np.moveaxis(probs, -1, axis)

    return change


wrong_axis.way("over the queries", attention_probs)(softmax_over(-2))
wrong_axis.way("over the heads", attention_probs)(softmax_over(-3))
wrong_axis.way("over the texts", attention_probs)(softmax_over(0))

narrow_softmax = mistake(
    ATTENTION,
    "softmax in half precision",
    does="the softmax is computed, or its result is stored, in a narrower dtype than the port's own",
    right="float32 at least, and a result in the port's dtype",
)


def softmax_in(dtype: str, *, of_rounded: bool = True) -> Changes:
    """Probabilities, and what they are made of too, rounded to a dtype."""

    def probs(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        if not of_rounded:
            return narrow(step.right(scores, mask, scale=scale), dtype)
        rounded: Any = softmax(narrow(scores * scale if mask is None else scores * scale + mask, dtype))
        return narrow(rounded, dtype)

    def kernels(step: Step, scores: Any, *, size: int) -> Any:
        return narrow(step.right(narrow(scores, dtype) if of_rounded else scores, size=size), dtype)

    return {attention_probs: probs, convolution_kernels: kernels}


for dtype in HALF:
    narrow_softmax.add_way(f"in {dtype}", softmax_in(dtype))
for dtype in HALF:
    narrow_softmax.add_way(f"its result in {dtype}", softmax_in(dtype, of_rounded=False))


@narrow_softmax.recogniser
def rounded_softmax(evidence: Evidence) -> Ways:
    """Recognise a softmax in half precision, whichever way its ties were rounded."""
    if evidence.layer not in (attention_probs, convolution_kernels):
        return {}

    def make(dtype: str) -> Any:
        return softmax_in(dtype)[evidence.layer](evidence.step, *evidence.arguments, **evidence.options)

    return recognise_rounding(evidence, make)


# ----------------------------------------------------------------------------------------------------- attention heads

heads_split = mistake(
    ATTENTION,
    "heads split in the wrong order",
    does="features are cut into heads in another order",
    right="(B, L, N·D) → (B, L, N, D) → (B, N, L, D)",
)
heads_merged = mistake(
    ATTENTION,
    "heads merged in the wrong order",
    does="heads are put side by side in another order",
    right="(B, N, L, D) → (B, L, N, D) → (B, L, N·D)",
)


@heads_split.way("D before N", split_heads)
def features_first(step: Step, x: Any, *, head_size: int) -> Any:
    """(B, L, D, N) in place of (B, L, N, D)."""
    return x.reshape(*x.shape[:2], head_size, -1).transpose(0, 3, 1, 2)


@heads_split.way("without transposing", split_heads)
def split_without_transposing(step: Step, x: Any, *, head_size: int) -> Any:
    """A reshape to (B, N, L, D) alone."""
    return x.reshape(x.shape[0], -1, x.shape[1], head_size)


@heads_merged.way("without transposing", merge_heads)
def merged_without_transposing(step: Step, x: Any) -> Any:
    """A reshape to (B, L, N·D) alone."""
    return x.reshape(x.shape[0], x.shape[2], -1)


@heads_merged.way("D before N", merge_heads)
def merged_features_first(step: Step, x: Any) -> Any:
    """The inverse of `features_first`."""
    return x.transpose(0, 2, 3, 1).reshape(x.shape[0], x.shape[2], -1)


heads_split.add_way(
    "D before N, and merged so",
    {split_heads: features_first, merge_heads: merged_features_first},
)
heads_split.add_way(
    "without transposing, and merged so",
    {split_heads: split_without_transposing, merge_heads: merged_without_transposing},
)

mask_ignored = mistake(
    ATTENTION,
    "head mask ignored",
    does="the head mask is left out, or turned round",
    right="to multiply the probabilities by it",
)
mask_ignored.way("", mask_heads)(first)


@mask_ignored.way("turned round", mask_heads)
def mask_turned_round(step: Step, probs: Any, mask: Any) -> Any:
    """1 for a head that is left out."""
    return step.right(probs, 1.0 - mask)


# --------------------------------------------------------------------------------------------------------------- cache

new_keys_first = mistake(
    ATTENTION,
    "new keys before the cache",
    does="the keys and values of this call are put before those of the cache",
    right="to put them after these",
    families=NEZHA_AND_BERT,
)


@new_keys_first.way("", append_keys)
def cache_appended(step: Step, past: Any, new: Any) -> Any:
    """The new tokens, and then the cached ones."""
    return np.concatenate([new, past], axis=2)


cache_mixed_up = mistake(
    ATTENTION,
    "cache mixed up",
    does="a layer takes what the cache has for another one, or keys for values",
    right="past_key_values[i], which has the keys and then the values of layer i",
    families=NEZHA_AND_BERT,
)


def cached_at(place: Callable[[int, int, int], tuple[int, int]]) -> Changes:
    """Another array of the cache: its layer and place, of the right ones and the number of layers."""

    def change(step: Step, past: Any, new: Any) -> Any:
        caches = step.inputs["past_key_values"]
        index = int(step.name.removeprefix("encoder.layer.").partition(".")[0])
        layer, which = place(index, 0 if step.name.endswith("all_k") else 1, len(caches))
        return step.right(np.asarray(caches[layer][which]), new)

    return {append_keys: change}


cache_mixed_up.add_way("keys and values swapped", cached_at(lambda layer, which, layers: (layer, 1 - which)))
cache_mixed_up.add_way("of the first layer", cached_at(lambda layer, which, layers: (0, which)))
cache_mixed_up.add_way("of the last layer", cached_at(lambda layer, which, layers: (layers - 1, which)))
cache_mixed_up.add_way("of the next layer", cached_at(lambda layer, which, layers: ((layer + 1) % layers, which)))
cache_mixed_up.add_way("of the layer before", cached_at(lambda layer, which, layers: (layer - 1, which)))
cache_mixed_up.add_way("layers in reverse", cached_at(lambda layer, which, layers: (layers - 1 - layer, which)))
cache_mixed_up.add_way("keys in place of values", cached_at(lambda layer, which, layers: (layer, 0)))

overwritten = mistake(
    ATTENTION,
    "cache overwritten",
    does="new keys or values are written over some of the cache, or next to their place",
    right="to put them after all of the cache, which stays as it is",
    families=NEZHA_AND_BERT,
)


def written_at(place: Callable[[int, int], int]) -> Callable[..., Any]:
    """New entries written into an array of zeros and the cache: of P and L the place."""

    def change(step: Step, past: Any, new: Any) -> Any:
        before, length = past.shape[2], new.shape[2]
        at = place(before, length)
        if at < 0:
            raise ValueError("the cache is too short")
        whole = np.zeros_like(step.right(past, new))
        whole[:, :, :before] = past
        whole[:, :, at : at + length] = new[:, :, : whole.shape[2] - at]
        return whole

    return change


overwritten.way("from the start on", append_keys)(written_at(lambda past, new: 0))
overwritten.way("from its last entry on", append_keys)(written_at(lambda past, new: past - 1))
overwritten.way("one entry too late", append_keys)(written_at(lambda past, new: past + 1))


@overwritten.way("its last entry by the first new one", append_keys)
def last_overwritten(step: Step, past: Any, new: Any) -> Any:
    """The cache's last entry is that of the first new token too."""
    return step.right(np.concatenate([past[:, :, :-1], new[:, :, :1]], axis=2), new)


@overwritten.way("its first entry left at 0", append_keys)
def first_lost(step: Step, past: Any, new: Any) -> Any:
    """The first entry of the cache is lost."""
    return step.right(np.concatenate([0.0 * past[:, :, :1], past[:, :, 1:]], axis=2), new)


@overwritten.way("its last entry left at 0", append_keys)
def last_lost(step: Step, past: Any, new: Any) -> Any:
    """The last entry of the cache is lost."""
    return step.right(np.concatenate([past[:, :, :-1], 0.0 * past[:, :, -1:]], axis=2), new)


# ----------------------------------------------------------------------------------------------------- cross-attention

cross_to_itself = mistake(
    ATTENTION,
    "cross-attention to itself",
    does="cross-attention takes keys and values from the decoder's own tokens",
    right="to take them from the encoder's states",
    families=NEZHA_AND_BERT,
)


@cross_to_itself.way("", model.self_attention)
def without_states(step: Step, x: Any, w: Any, *, states: Any = None, **options: Any) -> Any:
    """Cross-attention that looks at the decoder's own tokens."""
    if states is None:
        raise ValueError("this is no cross-attention")
    return step.right(x, w, **options)
