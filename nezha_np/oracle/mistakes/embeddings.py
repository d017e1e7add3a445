"""Mistakes in the embeddings: words, token types and absolute positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.embedding import embedding
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.oracle.mistakes.mistake import WITH_LEARNED_POSITIONS, Evidence, Mistake, Ways, nothing
from nezha_np.oracle.mistakes.sinusoids import frequencies, halves, in_turn
from nezha_np.oracle.replay import At, Changes, Step

WORDS, TYPES = "embeddings.word_embeddings", "embeddings.token_type_embeddings"


def one_token_type(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Every token of the first type."""
    return step.right(np.zeros_like(ids), weight, **options)


def other_token_type(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """The types turned round."""
    return step.right(weight.shape[0] - 1 - ids, weight, **options)


def past_of(step: Step) -> int:
    """Return the number of tokens in the cache."""
    past = step.inputs.get("past_key_values")
    return 0 if past is None else int(np.shape(past[0][0])[2])


def sinusoids(step: Step, x: Any, *, joined: bool) -> np.ndarray:
    """Make Vaswani's absolute positions for (B, L, H): sines and cosines in turn, or in two halves."""
    length, features = x.shape[-2:]
    angle = np.arange(past_of(step), past_of(step) + length)[:, None] * frequencies(features + features % 2)
    return (halves(angle) if joined else in_turn(angle))[:, :features]


def learned_positions(step: Step, x: Any) -> np.ndarray:
    """Take the absolute positions that a checkpoint of BERT's relative kinds holds, and does not use."""
    if step.config.learns_positions:
        raise ValueError("absolute positions belong to this model")
    return step.weights["embeddings.position_embeddings.weight"][past_of(step) :][: x.shape[-2]]


def absolute_positions(make: Callable[..., np.ndarray], **options: Any) -> dict[str, Changes]:
    """Add positions to the sum of embeddings, or to it where it goes into the norm."""
    return {
        "in the sum": {add: At("embeddings.sum", lambda step, x, y: step.right(x, y) + make(step, x, **options))},
        "before the norm": {
            layer_norm: At(
                "embeddings.LayerNorm",
                lambda step, x, *rest, eps: step.right(x + make(step, x, **options), *rest, eps=eps),
            )
        },
    }


def fitted_positions(evidence: Evidence) -> Ways:
    """Recognise absolute positions: every text has the same numbers added."""
    if evidence.step.name != "embeddings.sum" or len(evidence.right) < 2:
        return {}
    added = (evidence.theirs - evidence.right).mean(axis=0)
    return evidence.instead(evidence.right + added)


def positions_from(count: Callable[[Step, Any], Any]) -> Changes:
    """Count position ids in another way."""
    return {
        embedding: At(
            "position_embeddings",
            lambda step, ids, weight, **options: step.right(count(step, ids), weight, **options),
        )
    }


def positions_of_tokens(step: Step, ids: Any) -> Any:
    """RoBERTa's way: tokens that are no padding are counted, from padding_idx + 1."""
    padding = step.config.pad_token_id or 0
    words = np.asarray(step.inputs["input_ids"]).reshape(ids.shape) != padding
    return np.cumsum(words, axis=1) * words + padding


def words_scaled(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Vectors times √H, as Vaswani's have them."""
    return step.right(ids, weight, **options) * math.sqrt(weight.shape[1])


def other_row(offset: int) -> Changes:
    """Look every id up in the row so many further on."""
    return {
        embedding: At(
            WORDS,
            lambda step, ids, weight, **options: step.right((ids + offset) % weight.shape[0], weight, **options),
        )
    }


def padding_is_zero(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Zeros for the padding id, whatever its row holds."""
    if step.config.pad_token_id is None:
        raise ValueError("there is no padding id")
    return np.where((ids == step.config.pad_token_id)[..., None], 0.0, step.right(ids, weight, **options))


EMBEDDINGS = (
    Mistake(
        "token types ignored",
        "every token gets the first token type, another one, or none; each should get the row of its own token_type_id",
        {
            "all of type 0": {embedding: At(TYPES, one_token_type)},
            "left out": {embedding: At(TYPES, nothing)},
            "turned round": {embedding: At(TYPES, other_token_type)},
        },
    ),
    Mistake(
        "absolute positions added",
        "the port adds positions to the words; this model's positions are relative, and enter attention alone",
        {
            f"{name} {way}".strip(): changes
            for name, make, options in (
                ("sines and cosines in turn,", sinusoids, {"joined": False}),
                ("sines before cosines,", sinusoids, {"joined": True}),
                ("the checkpoint's,", learned_positions, {}),
            )
            for way, changes in absolute_positions(make, **options).items()
        },
        ("nezha", "bert"),
        fitted_positions,
    ),
    Mistake(
        "absolute positions missing",
        "the port adds no position to the words; each word gets the row of its place added",
        {"": {embedding: At("position_embeddings", nothing)}},
        WITH_LEARNED_POSITIONS,
    ),
    Mistake(
        "position ids off by one",
        "positions are counted from another number; the first token stands at 0, padding is counted like words",
        {
            "from 1": positions_from(lambda step, ids: ids + 1),
            "from padding_idx + 1": positions_from(lambda step, ids: ids + 1 + (step.config.pad_token_id or 0)),
            "tokens alone, from padding_idx + 1": positions_from(positions_of_tokens),
        },
        WITH_LEARNED_POSITIONS,
    ),
    Mistake(
        "word embeddings scaled",
        "word embeddings are multiplied by √H, as in the first Transformer; this model takes them as they are",
        {"": {embedding: At(WORDS, words_scaled)}},
    ),
    Mistake(
        "word ids off by one",
        "a word gets the row beside its own (a vocabulary counted from 1, or with an entry more); its row is that of "
        "its id, counted from 0",
        {"row id − 1": other_row(-1), "row id + 1": other_row(1)},
    ),
    Mistake(
        "padding embedding set to zero",
        "the padding id gets zeros; it should be looked up like every other id, for it has a row of its own",
        {"": {embedding: At(WORDS, padding_is_zero)}},
    ),
)
