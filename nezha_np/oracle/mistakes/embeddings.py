"""Mistakes in the embeddings: word pieces, token types and absolute positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.layers.addition import add
from nezha_np.layers.embedding import embedding
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.oracle.mistakes.mistake import (
    NEZHA_AND_BERT,
    WITH_LEARNED_POSITIONS,
    Evidence,
    Mistake,
    Ways,
    first,
    mistake,
    nothing,
)
from nezha_np.oracle.mistakes.narrowing import narrow
from nezha_np.oracle.mistakes.sinusoids import frequencies, halves, interleaved
from nezha_np.oracle.replay import At, Changes, Step

EMBEDDINGS: list[Mistake] = []
WORDS, TYPES = "embeddings.word_embeddings", "embeddings.token_type_embeddings"
POSITIONS = "embeddings.position_embeddings"
MOST_LOOKED_UP = 10**8  # tokens times rows

# --------------------------------------------------------------------------------------------------------- token types

token_types_ignored = mistake(
    EMBEDDINGS,
    "token types ignored",
    does="every token gets the first token type, another one, or none",
    right="the row of its own token_type_id",
    across_texts=("those of the first text for all",),
)


@token_types_ignored.way("all of type 0", embedding, at=TYPES)
def one_token_type(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Every token of the first type."""
    return step.right(np.zeros_like(ids), weight, **options)


token_types_ignored.way("left out", embedding, at=TYPES)(nothing)


@token_types_ignored.way("all of type 1", embedding, at=TYPES)
def last_token_type(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Every token of the last type."""
    return step.right(np.full_like(ids, weight.shape[0] - 1), weight, **options)


@token_types_ignored.way("those of the first text for all", embedding, at=TYPES)
def types_of_first(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """The token types of the first text for the whole batch."""
    if len(ids) < 2:
        raise ValueError("there is one text alone")
    return step.right(np.broadcast_to(ids[:1], ids.shape), weight, **options)


@token_types_ignored.way("turned round", embedding, at=TYPES)
def other_token_type(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """The last type for the first, and so on."""
    return step.right(weight.shape[0] - 1 - ids, weight, **options)


# ------------------------------------------------------------------------------------------------- absolute positions

positions_added = mistake(
    EMBEDDINGS,
    "absolute positions added",
    does="the port adds absolute positions to the word embeddings",
    right="to add none: this model's positions are relative, and enter attention alone",
    families=NEZHA_AND_BERT,
    fits_any_numbers=True,
)


def past_of(step: Step) -> int:
    """Return the number of tokens in the cache."""
    past = step.inputs.get("past_key_values")
    return 0 if past is None else int(np.shape(past[0][0])[2])


def sinusoids(step: Step, x: Any, *, joined: bool) -> np.ndarray:
    """Make Vaswani's absolute positions for (B, L, H): each sine before its cosine, or two halves."""
    length, features = x.shape[-2:]
    angle = np.arange(past_of(step), past_of(step) + length)[:, None] * frequencies(features + features % 2)
    return (halves(angle) if joined else interleaved(angle))[:, :features]


def learned_positions(step: Step, x: Any) -> np.ndarray:
    """Take the absolute positions that a checkpoint of BERT's relative kinds holds, and does not use."""
    if step.config.learns_positions:
        raise ValueError("absolute positions belong to this model")
    table = to_numpy(step.weights["embeddings.position_embeddings.weight"])
    return table[past_of(step) :][: x.shape[-2]]


def adding_positions(make: Callable[..., np.ndarray], **options: Any) -> Iterator[tuple[str, Changes]]:
    """Add positions to the sum of embeddings, or to it where it goes into the norm."""

    def in_the_sum(step: Step, x: Any, y: Any) -> Any:
        return step.right(x, y) + make(step, x, **options)

    def before_the_norm(step: Step, x: Any, *rest: Any, eps: float) -> Any:
        return step.right(x + make(step, x, **options), *rest, eps=eps)

    yield "in the sum", {add: At("embeddings.sum", in_the_sum)}
    yield "before the norm", {layer_norm: At("embeddings.LayerNorm", before_the_norm)}


for which, changes_of in (
    ("sines and cosines in turn", adding_positions(sinusoids, joined=False)),
    ("sines before cosines", adding_positions(sinusoids, joined=True)),
    ("the checkpoint's", adding_positions(learned_positions)),
):
    for where, changes in changes_of:
        positions_added.add_way(f"{which}, {where}", changes)


@positions_added.recogniser
def fitted_positions(evidence: Evidence) -> Ways:
    """Recognise absolute positions: every text has the same numbers added."""
    if evidence.step.name != "embeddings.sum" or len(evidence.right) < 2:
        return {}
    added = (evidence.theirs - evidence.right).mean(axis=0)
    return evidence.replace_result(evidence.right + added)


positions_missing = mistake(
    EMBEDDINGS,
    "absolute positions missing",
    does="the port adds no position to the word embeddings",
    right="to add to each the row of its position",
    families=WITH_LEARNED_POSITIONS,
)
positions_missing.way("", embedding, at=POSITIONS)(nothing)

positions_missing.way("looked up, not added", add, at="embeddings.sum_with_positions")(first)
token_types_ignored.way("looked up, not added", add, at="embeddings.sum")(first)

fixed_positions = mistake(
    EMBEDDINGS,
    "fixed positions for learned ones",
    does="positions are sines and cosines, as in the first Transformer",
    right="to add to each word embedding the row of its position",
    families=WITH_LEARNED_POSITIONS,
)


def waves_of(*, joined: bool) -> Callable[..., Any]:
    """Sines and cosines of the position ids."""

    def change(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
        features = weight.shape[1]
        angle = np.asarray(ids)[..., None] * frequencies(features + features % 2)
        return (halves(angle) if joined else interleaved(angle))[..., :features]

    return change


fixed_positions.way("sines and cosines in turn", embedding, at=POSITIONS)(waves_of(joined=False))
fixed_positions.way("sines before cosines", embedding, at=POSITIONS)(waves_of(joined=True))

after_the_norm = mistake(
    EMBEDDINGS,
    "embeddings added after the norm",
    does="the norm is taken before all embeddings are added up, and the others are added to its result",
    right="the norm of the sum of all",
)


def vectors_of(which: str) -> Callable[[Step, Any], Any]:
    """The vectors of token types or positions, for (B, L, E)."""

    def types(step: Step, x: Any) -> Any:
        table = to_numpy(step.weights["embeddings.token_type_embeddings.weight"])
        ids = step.inputs.get("token_type_ids")
        return table[np.zeros(x.shape[:2], int) if ids is None else np.asarray(ids).reshape(x.shape[:2])]

    def positions(step: Step, x: Any) -> Any:
        if not step.config.learns_positions:
            raise ValueError("there are no absolute positions")
        table, ids = to_numpy(step.weights["embeddings.position_embeddings.weight"]), step.inputs.get("position_ids")
        ids = np.arange(past_of(step), past_of(step) + x.shape[1])[None] if ids is None else np.asarray(ids)
        return np.broadcast_to(table[ids], x.shape)

    both = {"types": types, "positions": positions, "both": lambda step, x: types(step, x) + positions(step, x)}
    return both[which]


def added_after(which: str) -> Callable[..., Any]:
    """The norm of the other embeddings, and these vectors added to it."""
    of = vectors_of(which)
    return lambda step, x, *rest, **options: step.right(x - of(step, x), *rest, **options) + of(step, x)


for way, which in (("token types", "types"), ("positions", "positions"), ("token types and positions", "both")):
    after_the_norm.way(way, layer_norm, at="embeddings.LayerNorm")(added_after(which))

positions_off = mistake(
    EMBEDDINGS,
    "position ids off by one",
    does="positions are counted from another number",
    right="to count from 0, and padding like every other token",
    families=WITH_LEARNED_POSITIONS,
    across_texts=(
        "over the whole batch",
        "by text in place of token",
    ),
)


def positions_from(count: Callable[[Step, Any], Any]) -> Changes:
    """Count position ids in another way."""

    def change(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
        return step.right(count(step, ids), weight, **options)

    return {embedding: At(POSITIONS, change)}


def positions_of_tokens(step: Step, ids: Any) -> Any:
    """RoBERTa's way: tokens that are no padding are counted, from padding_idx + 1."""
    padding = step.config.pad_token_id or 0
    tokens = np.asarray(step.inputs["input_ids"]).reshape(ids.shape) != padding
    return np.cumsum(tokens, axis=1) * tokens + padding


positions_off.add_way("from 1", positions_from(lambda step, ids: ids + 1))
positions_off.add_way(
    "from padding_idx + 1", positions_from(lambda step, ids: ids + 1 + (step.config.pad_token_id or 0))
)
positions_off.add_way("tokens alone, from padding_idx + 1", positions_from(positions_of_tokens))

positions_off.add_way(
    "over the whole batch",
    positions_from(lambda step, ids: np.arange(ids.size).reshape(ids.shape) % step.config.max_position_embeddings),
)
positions_off.add_way("0 for all", positions_from(lambda step, ids: 0 * ids))
positions_off.add_way("from the last to the first", positions_from(lambda step, ids: np.flip(ids, axis=-1)))
positions_off.add_way("by text in place of token", positions_from(lambda step, ids: by_text(ids)))


def by_text(ids: Any) -> Any:
    """The number of the text for each of its tokens."""
    return np.broadcast_to(np.arange(ids.shape[0])[:, None], ids.shape)


def counted_by_mask(step: Step, ids: Any) -> Any:
    """The number of tokens before that are attended to."""
    mask = np.asarray(step.inputs["attention_mask"])
    if mask.ndim != 2 or mask.shape[1] != np.shape(ids)[-1]:
        raise ValueError("the mask has no number for each token")
    return np.maximum(np.cumsum(mask != 0, axis=1) - 1, 0)


def given_ignored(step: Step, ids: Any) -> Any:
    """Counted from 0, whatever the position ids say."""
    if step.inputs.get("position_ids") is None:
        raise ValueError("no position ids are given")
    return np.broadcast_to(past_of(step) + np.arange(np.shape(ids)[-1]), np.shape(ids))


positions_off.add_way("by the attention mask", positions_from(counted_by_mask))
positions_off.add_way("position_ids ignored", positions_from(given_ignored))


@positions_off.way("from 0 again with each token type", embedding, at=POSITIONS)
def of_each_type(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Positions that start anew with the second part of a pair."""
    types = np.asarray(step.inputs["token_type_ids"])
    first = np.where((types != 0).any(axis=1), (types != 0).argmax(axis=1), types.shape[1])[:, None]
    return step.right(np.where(ids >= first, ids - first, ids), weight, **options)


# --------------------------------------------------------------------------------------------------------- word pieces

words_multiplied = mistake(
    EMBEDDINGS,
    "word embeddings scaled",
    does="word embeddings are multiplied by √H, as in the first Transformer",
    right="to take them as they are",
)


@words_multiplied.way("", embedding, at=WORDS)
def times_the_root(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Vectors times √H, as Vaswani's have them."""
    return step.right(ids, weight, **options) * math.sqrt(weight.shape[1])


ids_off = mistake(
    EMBEDDINGS,
    "word ids off by one",
    does="a word piece gets the row next to its own (a vocabulary counted from 1, or with an entry more)",
    right="the row of its id, counted from 0",
)


def row_moved_by(offset: int) -> Changes:
    """Look every id up in the row so many further on."""

    def change(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
        return step.right((ids + offset) % weight.shape[0], weight, **options)

    return {embedding: At(WORDS, change)}


ids_off.add_way("row id − 1", row_moved_by(-1))
ids_off.add_way("row id + 1", row_moved_by(1))

ids_wrapped = mistake(
    EMBEDDINGS,
    "ids in a narrow integer",
    does="ids are kept in an integer type that is too small for the vocabulary, or cut off at a number",
    right="int32 or wider",
)


def ids_by(function: Callable[[Any, int], Any]) -> Changes:
    """Look up another id: of the ids and V."""

    def change(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
        other = function(np.asarray(ids, np.int64), int(weight.shape[0]))
        if (other == ids).all() or (other < -weight.shape[0]).any() or (other >= weight.shape[0]).any():
            raise ValueError("no id is changed, or there is no such row")
        return step.right(np.asarray(other % weight.shape[0]), weight, **options)

    return {embedding: At(WORDS, change)}


def last_bits(bits: int) -> Callable[[Any, int], Any]:
    """The remainder of a power of 2."""
    return lambda ids, V: ids % 2**bits


def signed(bits: int, least: int) -> Callable[[Any, int], Any]:
    """The two's complement of the last bits, negative numbers as `least` at least."""
    return lambda ids, V: np.maximum((ids + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1), least)


def at_most(number: int) -> Callable[[Any, int], Any]:
    """Larger ids as this one."""
    return lambda ids, V: np.minimum(ids, number)


def ids_in(dtype: str) -> Callable[[Any, int], Any]:
    """Ids in floats of few digits."""
    return lambda ids, V: narrow(ids * 1.0, dtype).astype(int)


for bits in (4, 8, 10, 12, 16):
    ids_wrapped.add_way(f"the last {bits} bits", ids_by(last_bits(bits)))
for bits in (4, 8, 16):
    ids_wrapped.add_way(f"int{bits}, negative ones from the end", ids_by(signed(bits, -(2**bits))))
    ids_wrapped.add_way(f"int{bits}, negative ones as 0", ids_by(signed(bits, 0)))
    ids_wrapped.add_way(f"at most {2 ** (bits - 1) - 1}", ids_by(at_most(2 ** (bits - 1) - 1)))
for dtype in ("float16", "bfloat16"):
    ids_wrapped.add_way(f"rounded to {dtype}", ids_by(ids_in(dtype)))

other_rows = mistake(
    EMBEDDINGS,
    "another row looked up",
    does="some ids get the rows of others",
    right="the row of each id",
)


@other_rows.recogniser
def rows_of_others(evidence: Evidence) -> Ways:
    """Recognise rows of the table that belong to other ids."""
    if evidence.layer is not embedding:
        return {}
    ids, weight = np.asarray(evidence.arguments[0]), np.asarray(evidence.arguments[1])
    theirs = evidence.theirs.reshape(-1, weight.shape[1])
    flat = np.broadcast_to(ids, evidence.theirs.shape[:-1]).ravel()
    if len(theirs) * len(weight) > MOST_LOOKED_UP:
        return {}
    squares = (weight * weight).sum(axis=1)
    found = (squares - 2.0 * (theirs @ weight.T)).argmin(axis=1)
    found = np.where((np.abs(weight[flat] - theirs) <= evidence.allowed).all(axis=1), flat, found)
    made = weight[found].reshape(evidence.theirs.shape)
    if (found == flat).all() or not evidence.is_explained_by(made):
        return {}
    pairs = list(dict.fromkeys((int(own), int(other)) for own, other in zip(flat, found, strict=True) if own != other))
    said = ", ".join(f"{other} for {own}" for own, other in pairs[:5])
    return evidence.replace_result(made, f"{said}{' …' if len(pairs) > 5 else ''}")


padding_zero = mistake(
    EMBEDDINGS,
    "padding embedding set to zero",
    does="the padding id gets zeros",
    right="to look it up like every other id, because it has a row of its own",
)


@padding_zero.way("", embedding, at=WORDS)
def zeros_for_padding(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """Zeros for the padding id, whatever its row holds."""
    if step.config.pad_token_id is None:
        raise ValueError("there is no padding id")
    return np.where((ids == step.config.pad_token_id)[..., None], 0.0, step.right(ids, weight, **options))
