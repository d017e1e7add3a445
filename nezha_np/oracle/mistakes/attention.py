"""Mistakes in attention: scale, softmax, heads, the cache and cross-attention."""

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
from nezha_np.oracle.mistakes.mistake import Evidence, Mistake, Ways, first
from nezha_np.oracle.mistakes.narrowing import HALF, narrow, recognised_as_rounded
from nezha_np.oracle.replay import At, Change, Changes, Step


def with_scale(factor: Callable[[Step, float], float]) -> Changes:
    """Another factor of the scores."""
    return {
        attention_probs: lambda step, scores, mask=None, *, scale: step.right(scores, mask, scale=factor(step, scale))
    }


UNSCALED = with_scale(lambda step, scale: 1.0)


def head_scale(step: Step) -> float:
    """Return 1/√D."""
    return 1.0 / math.sqrt(step.config.head_size)


def has_position_term(step: Step) -> bool:
    """Whether the scores have a position term."""
    kind = getattr(step.config, "position_embedding_type", "absolute")
    return step.config.model_type == "nezha" or (kind != "absolute" and "cross" not in step.name)


def content_scaled(step: Step, *arguments: Any, **options: Any) -> Any:
    """The content term divided by √D, of a model that has a position term too."""
    if not has_position_term(step):
        raise ValueError("there is no position term")
    return step.right(*arguments, **options) * head_scale(step)


def sum_not_scaled(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The sum of both terms as it is, of a model that has a position term."""
    if not has_position_term(step):
        raise ValueError("there is no position term")
    return step.right(scores, mask, scale=1.0)


def keys_scaled(step: Step, *arguments: Any, **options: Any) -> Any:
    """The keys divided by √D, of a model that has no position term."""
    if has_position_term(step):
        raise ValueError("the position term would not be divided")
    return step.right(*arguments, **options) * head_scale(step)


def scaled(step: Step, *arguments: Any, **options: Any) -> Any:
    """The result divided by √D."""
    return step.right(*arguments, **options) * head_scale(step)


def transposed(step: Step, *arguments: Any, **options: Any) -> Any:
    """Scores with queries and keys exchanged, where there are as many of them."""
    scores = step.right(*arguments, **options)
    if scores.shape[-1] != scores.shape[-2]:
        raise ValueError("queries and keys are not equally many")
    return np.swapaxes(scores, -1, -2)


def softmax_over(axis: int) -> Change:
    """Probabilities that sum to 1 over another axis."""

    def change(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        logits = scores * scale if mask is None else scores * scale + mask
        return np.moveaxis(softmax(np.moveaxis(logits, axis, -1)), -1, axis)

    return change


def softmax_in(dtype: str, *, of_rounded: bool = True) -> Changes:
    """Probabilities, and what they are made of too, rounded to a dtype."""

    def probs(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        if not of_rounded:
            return narrow(step.right(scores, mask, scale=scale), dtype)
        return narrow(softmax(narrow(scores * scale if mask is None else scores * scale + mask, dtype)), dtype)

    def kernels(step: Step, scores: Any, *, size: int) -> Any:
        return narrow(step.right(narrow(scores, dtype) if of_rounded else scores, size=size), dtype)

    return {attention_probs: probs, convolution_kernels: kernels}


def rounded_softmax(evidence: Evidence) -> Ways:
    """Recognise a softmax in half precision, whichever way its ties were rounded."""
    if evidence.layer not in (attention_probs, convolution_kernels):
        return {}

    def make(dtype: str) -> Any:
        return softmax_in(dtype)[evidence.layer](evidence.step, *evidence.arguments, **evidence.options)

    return recognised_as_rounded(evidence, make)


def cached_at(place: Callable[[int, int, int], tuple[int, int]]) -> Changes:
    """Another array of the cache: its layer and place, of the right ones and the number of layers."""

    def change(step: Step, past: Any, new: Any) -> Any:
        caches = step.inputs["past_key_values"]
        index = int(step.name.removeprefix("encoder.layer.").partition(".")[0])
        layer, which = place(index, 0 if step.name.endswith("all_k") else 1, len(caches))
        return step.right(np.asarray(caches[layer][which]), new)

    return {append_keys: change}


def features_in_turn(step: Step, x: Any, *, head_size: int) -> Any:
    """(B, L, D, N) in place of (B, L, N, D)."""
    return x.reshape(*x.shape[:2], head_size, -1).transpose(0, 3, 1, 2)


def merged_in_turn(step: Step, x: Any) -> Any:
    """The inverse of `features_in_turn`."""
    return x.transpose(0, 2, 3, 1).reshape(x.shape[0], x.shape[2], -1)


def split_without_transposing(step: Step, x: Any, *, head_size: int) -> Any:
    """A reshape to (B, N, L, D) alone."""
    return x.reshape(x.shape[0], -1, x.shape[1], head_size)


def merged_without_transposing(step: Step, x: Any) -> Any:
    """A reshape to (B, L, N·D) alone."""
    return x.reshape(x.shape[0], x.shape[2], -1)


def without_states(step: Step, x: Any, w: Any, *, states: Any = None, **options: Any) -> Any:
    """Cross-attention that looks at the decoder's own tokens."""
    if states is None:
        raise ValueError("this is no cross-attention")
    return step.right(x, w, **options)


ATTENTION = (
    Mistake(
        "scale missing",
        "the scores are not divided before the softmax; right is to divide them by √D, D the size of a head",
        {"": UNSCALED},
    ),
    Mistake(
        "another scale",
        "the scores are divided by D, by √H or by another number; right is √D, D the size of a head",
        {
            "doubled: by D": with_scale(lambda step, scale: scale * scale),
            "by √H": with_scale(lambda step, scale: 1.0 / math.sqrt(step.config.hidden_size)),
            "by √N": with_scale(lambda step, scale: 1.0 / math.sqrt(step.config.attention_heads)),
            "multiplied": with_scale(lambda step, scale: 1.0 / scale),
            "in the queries too": {split_heads: At(".q", scaled)},
            "in the keys too": {split_heads: At(".k", keys_scaled)},
        },
    ),
    Mistake(
        "scale applied before the position term",
        "the content term alone is divided by √D; right is to divide the sum of content and position term",
        {
            "in the content term": {content_scores: content_scaled, **UNSCALED},
            "in the keys": {split_heads: At(".k", content_scaled), **UNSCALED},
            "in the sum": {
                add: At(".scores", lambda step, x, y: step.right(x * head_scale(step), y)),
                attention_probs: sum_not_scaled,
            },
        },
        ("nezha", "bert"),
        whole=True,
    ),
    Mistake(
        "scale applied early",
        "queries, keys or scores are divided by √D already, and not again: the probabilities are right, and nothing is "
        "to be mended; leave this array out, or compare it after a multiplication",
        {
            "in the queries": {split_heads: At(".q", scaled), **UNSCALED},
            "in the keys": {split_heads: At(".k", keys_scaled), **UNSCALED},
            "in the scores": {
                content_scores: scaled,
                position_scores: scaled,
                query_distance_scores: scaled,
                key_distance_scores: scaled,
                **UNSCALED,
            },
        },
        whole=True,
    ),
    Mistake(
        "scores transposed",
        "the scores have a row for each key, k · q; right is a row for each query, with its scores for all keys, q · k",
        {
            "in the content term": {content_scores: transposed},
            "in both terms": dict.fromkeys(
                (content_scores, position_scores, query_distance_scores, key_distance_scores), transposed
            ),
            "in the sum": {add: At(".scores", transposed)},
        },
    ),
    Mistake(
        "softmax over the wrong axis",
        "probabilities sum to 1 over queries, heads or texts; right is over the keys, the last axis",
        {
            "over the queries": {attention_probs: softmax_over(-2)},
            "over the heads": {attention_probs: softmax_over(-3)},
            "over the texts": {attention_probs: softmax_over(0)},
        },
    ),
    Mistake(
        "softmax in half precision",
        "the softmax is computed, or its result is kept, in a narrower dtype than the port's own; right is float32 at "
        "least, and a result in the port's dtype",
        {
            **{f"in {dtype}": softmax_in(dtype) for dtype in HALF},
            **{f"its result in {dtype}": softmax_in(dtype, of_rounded=False) for dtype in HALF},
        },
        recognise=rounded_softmax,
    ),
    Mistake(
        "heads split in the wrong order",
        "features are cut into heads in another order; right is (B, L, N·D) → (B, L, N, D) → (B, N, L, D)",
        {
            "D before N": {split_heads: features_in_turn},
            "without transposing": {split_heads: split_without_transposing},
            "D before N, and merged so": {
                split_heads: features_in_turn,
                merge_heads: merged_in_turn,
            },
            "without transposing, and merged so": {
                split_heads: split_without_transposing,
                merge_heads: merged_without_transposing,
            },
        },
    ),
    Mistake(
        "heads merged in the wrong order",
        "heads are put side by side in another order; right is (B, N, L, D) → (B, L, N, D) → (B, L, N·D)",
        {
            "without transposing": {merge_heads: merged_without_transposing},
            "D before N": {merge_heads: merged_in_turn},
        },
    ),
    Mistake(
        "head mask ignored",
        "the head mask is left out, or turned round; right is to multiply the probabilities by it",
        {
            "": {mask_heads: first},
            "turned round": {mask_heads: lambda step, probs, mask: step.right(probs, 1.0 - mask)},
        },
    ),
    Mistake(
        "new keys before the cache",
        "the keys and values of this call are put before those of the cache; right is after them",
        {"": {append_keys: lambda step, past, new: np.concatenate([new, past], axis=2)}},
        ("nezha", "bert"),
    ),
    Mistake(
        "cache mixed up",
        "a layer takes what the cache has for another one, or keys for values; past_key_values[i] has the keys and "
        "then the values of layer i",
        {
            "keys and values swapped": cached_at(lambda layer, which, layers: (layer, 1 - which)),
            "of the first layer": cached_at(lambda layer, which, layers: (0, which)),
            "of the last layer": cached_at(lambda layer, which, layers: (layers - 1, which)),
            "of the next layer": cached_at(lambda layer, which, layers: ((layer + 1) % layers, which)),
            "of the layer before": cached_at(lambda layer, which, layers: (layer - 1, which)),
            "layers in reverse": cached_at(lambda layer, which, layers: (layers - 1 - layer, which)),
            "keys in place of values": cached_at(lambda layer, which, layers: (layer, 0)),
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "cross-attention to itself",
        "cross-attention takes keys and values from the decoder's own tokens; right are the encoder's states",
        {"": {model.self_attention: without_states}},
        ("nezha", "bert"),
    ),
)
