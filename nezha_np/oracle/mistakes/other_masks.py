"""Masks that are another function of the mask: of another text, moved, along the other axis, made of the ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.attention import attention_probs, merge_heads
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.masks import additive_mask
from nezha_np.oracle.mistakes.embeddings import past_of
from nezha_np.oracle.mistakes.masks import is_attended
from nezha_np.oracle.mistakes.mistake import ALL, Mistake, mistake
from nezha_np.oracle.replay import Step

OTHER_MASKS: list[Mistake] = []
Attended = Callable[[Step, Any], Any]  # of where a key may be attended to, (B or 1, 1, Q or 1, S)

other_mask = mistake(
    OTHER_MASKS,
    "mask of other keys",
    does="the keys that are attended to are another function of the mask, or of the inputs",
    right="those at which the attention mask of the same text has 1",
    across_texts=("**text**",),
)


def masking_by(way: str, attended: Attended) -> None:
    """Another function of where a key may be attended to: in the mask, or where it is added to the scores."""

    def in_the_mask(step: Step, weight: Any, *arguments: Any, **options: Any) -> Any:
        mask = step.right(weight, *arguments, **options)
        may = attended(step, is_attended(mask))
        return np.where(may, 0.0, np.finfo(mask.dtype).min)

    def in_the_scores(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        if "crossattention" in step.name:
            raise ValueError("these are the keys of another text")
        may = np.ones((1, 1, 1, scores.shape[-1]), bool) if mask is None else is_attended(mask)
        minimum = np.finfo(scores.dtype).min
        return step.right(scores, np.where(attended(step, may), 0.0, minimum), scale=scale)

    other_mask.add_way(way, {additive_mask: in_the_mask})
    other_mask.add_way(f"{way}, in the scores", {attention_probs: in_the_scores})


def need(condition: Any) -> None:
    """Check that a mask can be made so."""
    if not condition:
        raise ValueError("this mask cannot be made so")


def of_text(index: int) -> Attended:
    """One text's mask for the whole batch."""

    def attended(step: Step, may: Any) -> Any:
        need(len(may) > 1)
        return np.broadcast_to(may[index][None], may.shape)

    return attended


def of_other_text(step: Step, may: Any) -> Any:
    """The mask of the next text."""
    need(len(may) > 1)
    return np.roll(may, -1, axis=0)


def reversed_texts(step: Step, may: Any) -> Any:
    """The masks of the texts from the last to the first."""
    need(len(may) > 1)
    return may[::-1]


def along_queries(step: Step, may: Any) -> Any:
    """The mask along the queries in place of the keys."""
    if may.shape[-2] == 1:
        may = np.repeat(may, may.shape[-1], axis=-2)
    return np.swapaxes(may, -1, -2)


def of_both(step: Step, may: Any) -> Any:
    """The mask along the keys and along the queries too."""
    need(may.shape[-2] == 1)
    return may & np.swapaxes(may, -1, -2)


def moved(by: int, beyond: bool | None) -> Attended:
    """The mask of the key before, or after; what comes in at the end is attended to, or not; None: as the other end."""

    def attended(step: Step, may: Any) -> Any:
        turned = np.roll(may, by, axis=-1)
        if beyond is not None:
            turned[..., slice(None, by) if by > 0 else slice(by, None)] = beyond
        return turned

    return attended


def first_of_its_count(step: Step, may: Any) -> Any:
    """As many keys as the mask counts, from the first on."""
    return np.arange(may.shape[-1]) < may.sum(axis=-1, keepdims=True)


def last_of_its_count(step: Step, may: Any) -> Any:
    """As many keys as the mask counts, up to the last."""
    return np.arange(may.shape[-1]) >= may.shape[-1] - may.sum(axis=-1, keepdims=True)


def up_to_the_last(step: Step, may: Any) -> Any:
    """All keys up to the last that is attended to."""
    return np.flip(np.logical_or.accumulate(np.flip(may, axis=-1), axis=-1), axis=-1)


def up_to_the_first_hole(step: Step, may: Any) -> Any:
    """The keys before the first that is masked."""
    return np.logical_and.accumulate(may, axis=-1)


def backwards(step: Step, may: Any) -> Any:
    """The mask read from its end."""
    return may[..., ::-1]


def padding_ids(step: Step) -> Any:
    """Return where an id is no padding, (B, 1, 1, L)."""
    need(step.config.pad_token_id is not None and step.inputs.get("input_ids") is not None)
    ids = np.asarray(step.inputs["input_ids"])
    need(ids.ndim == 2)
    return (ids != step.config.pad_token_id)[:, None, None, :]


def not_padding(step: Step, may: Any) -> Any:
    """The keys whose id is not that of padding."""
    return padding_ids(step) & np.ones_like(may)


def and_not_padding(step: Step, may: Any) -> Any:
    """The keys that are attended to, without those of the padding id."""
    return may & padding_ids(step)


def or_not_padding(step: Step, may: Any) -> Any:
    """The keys that are attended to, and all whose id is not that of padding."""
    return may | padding_ids(step)


def token_types(step: Step) -> Any:
    """Return the token types, (B, L)."""
    types = step.inputs.get("token_type_ids")
    need(types is not None)
    found = np.asarray(types)
    need(found.ndim == 2)
    return found


def of_own_type(step: Step, may: Any) -> Any:
    """The keys of the query's own token type."""
    types = token_types(step)
    return may & (types[:, None, :, None] == types[:, None, None, :])


def of_types(step: Step, may: Any) -> Any:
    """The token types in place of the mask."""
    return np.broadcast_to(token_types(step)[:, None, None, :] != 0, (len(token_types(step)), *may.shape[1:]))


def not_itself(step: Step, may: Any) -> Any:
    """All but the token itself."""
    return may & ~np.eye(may.shape[-1], dtype=bool)


def without(index: int) -> Attended:
    """All but one key of each text."""

    def attended(step: Step, may: Any) -> Any:
        return may & (np.arange(may.shape[-1]) != index % may.shape[-1])

    return attended


def whole_tiles(size: int) -> Attended:
    """The keys of whole tiles alone."""

    def attended(step: Step, may: Any) -> Any:
        keys = may.shape[-1]
        need(keys % size and keys > size)
        return may & (np.arange(keys) < keys // size * size)

    return attended


def without_last_tile(size: int) -> Attended:
    """The keys of all tiles but the last, full or not."""

    def attended(step: Step, may: Any) -> Any:
        keys = may.shape[-1]
        need(keys > size and keys % size == 0)  # else it is what is left of the tiles
        return may & (np.arange(keys) < keys - size)

    return attended


def of_cache(step: Step, may: Any) -> Any:
    """Every token of the cache, whatever the mask says of it."""
    past = past_of(step)
    need(0 < past < may.shape[-1])
    return may | (np.arange(may.shape[-1]) < past)


def of_new(step: Step, may: Any) -> Any:
    """Of the tokens after the cache as many as come before, whatever the mask says of them."""
    keys, past = may.shape[-1], past_of(step)
    need(0 < past < keys)
    before = np.arange(keys)[None, :] <= np.arange(may.shape[-2])[:, None] + (keys - may.shape[-2])
    return may | ((np.arange(keys) >= past) & (before | (not step.config.is_decoder)))


def not_of_cache(step: Step, may: Any) -> Any:
    """The tokens after the cache alone."""
    past = past_of(step)
    need(0 < past < may.shape[-1])
    return may & (np.arange(may.shape[-1]) >= past)


def of_two(step: Step, may: Any) -> Any:
    """Whether either the text's own mask or the next text's has 1."""
    need(len(may) > 1)
    return may | np.roll(may, -1, axis=0)


def of_any_text(step: Step, may: Any) -> Any:
    """The keys that any text of the batch attends to."""
    need(len(may) > 1)
    return np.broadcast_to(may.any(axis=0, keepdims=True), may.shape)


def of_every_text(step: Step, may: Any) -> Any:
    """The keys that all texts of the batch attend to."""
    need(len(may) > 1)
    return np.broadcast_to(may.all(axis=0, keepdims=True), may.shape)


def near(distance: int) -> Attended:
    """The keys near the query."""

    def attended(step: Step, may: Any) -> Any:
        place = np.arange(may.shape[-1])
        return may & (np.abs(place[:, None] - place) <= distance)

    return attended


masking_by("with every token of the cache", of_cache)
masking_by("with every new token", of_new)
masking_by("without the cache", not_of_cache)
masking_by("the first text's for all", of_text(0))
masking_by("the last text's for all", of_text(-1))
masking_by("the next text's", of_other_text)
masking_by("of the texts in reverse", reversed_texts)
masking_by("along the queries", along_queries)
masking_by("along the queries too", of_both)
masking_by("moved by one to the right", moved(1, beyond=True))
masking_by("moved by one to the right, the first key masked", moved(1, beyond=False))
masking_by("moved by one to the left", moved(-1, beyond=False))
masking_by("moved by one to the left, the last key attended to", moved(-1, beyond=True))
masking_by("moved by one to the right, and round", moved(1, beyond=None))
masking_by("moved by one to the left, and round", moved(-1, beyond=None))
masking_by("the first keys, as many as it has", first_of_its_count)
masking_by("the last keys, as many as it has", last_of_its_count)
masking_by("all up to the last that it has", up_to_the_last)
masking_by("all before the first that it has not", up_to_the_first_hole)
masking_by("read backwards", backwards)
masking_by("made of padding ids", not_padding)
masking_by("padding ids masked besides", and_not_padding)
masking_by("or no padding id", or_not_padding)
masking_by("of the query's own token type alone", of_own_type)
masking_by("the token types in its place", of_types)
masking_by("without the token itself", not_itself)
masking_by("without the first key", without(0))
masking_by("without the last key", without(-1))
masking_by("that of the next text too", of_two)
masking_by("those of any text", of_any_text)
masking_by("those of every text", of_every_text)
for size in (2, 4, 8, 16, 32, 64):
    masking_by(f"without what is left of tiles of {size}", whole_tiles(size))
    masking_by(f"without the last tile of {size}", without_last_tile(size))
for distance in (1, 2, 3, 4):
    masking_by(f"keys at most {distance} away", near(distance))

rows_of_masked = mistake(
    OTHER_MASKS,
    "masked queries set to zero",
    does="what masked queries attend to, or their hidden states, are set to 0",
    right="to compute it as that of every other token: the mask is for keys",
    families=ALL,
)


@rows_of_masked.way("in the probabilities", attention_probs)
def zero_rows(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Probabilities of masked queries set to 0."""
    padding = np.asarray(step.inputs["attention_mask"])
    need(padding.ndim == 2 and padding.shape[1] == scores.shape[2] and not (padding != 0).all())
    return step.right(scores, mask, scale=scale) * (padding != 0)[:, None, :, None]


def of_masked_tokens(step: Step, *arguments: Any, **options: Any) -> Any:
    """Hidden states of 0 for masked tokens."""
    y, padding = step.right(*arguments, **options), np.asarray(step.inputs["attention_mask"])
    need(padding.ndim == 2 and y.ndim == 3 and padding.shape == y.shape[:2] and not (padding != 0).all())
    return y * (padding != 0)[:, :, None]


def at_ends_of_layers(step: Step, *arguments: Any, **options: Any) -> Any:
    """The same, of the feed-forward network's norm alone."""
    need(not step.name.endswith("attention.output.LayerNorm"))
    return of_masked_tokens(step, *arguments, **options)


rows_of_masked.way("in the context", merge_heads)(of_masked_tokens)
rows_of_masked.way("after each layer", layer_norm, at="encoder.layer.*.output.LayerNorm")(at_ends_of_layers)
rows_of_masked.way("after each block", layer_norm, at="encoder.**")(of_masked_tokens)
rows_of_masked.way("in the embeddings", layer_norm, at="embeddings.LayerNorm")(of_masked_tokens)
rows_of_masked.way(
    "after embeddings and layers", layer_norm, at=("embeddings.LayerNorm", "encoder.layer.*.output.LayerNorm")
)(at_ends_of_layers)
rows_of_masked.way("in the values", linear, at="**.self.value")(of_masked_tokens)
