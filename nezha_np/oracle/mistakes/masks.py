"""Mistakes in attention masks: padding and causal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.attention import attention_probs
from nezha_np.layers.masks import additive_mask
from nezha_np.oracle.differences import NEVER
from nezha_np.oracle.mistakes.mistake import NEZHA_AND_BERT, Evidence, Mistake, Ways, mistake
from nezha_np.oracle.replay import At, Change, Changes, Step

MASKS: list[Mistake] = []


def is_attended(mask: Any) -> Any:
    """Where an additive mask lets a query attend to a key."""
    return mask > NEVER


def of_mask(alter: Callable[..., Any]) -> Change:
    """Alter the additive mask where it is made."""
    return lambda step, *arguments, **options: alter(step.right(*arguments, **options))


def before_softmax(alter: Callable[..., Any]) -> Change:
    """Alter the mask where it is added."""

    def change(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        if mask is None:
            raise ValueError("there is no mask")
        return step.right(scores, alter(mask), scale=scale)

    return change


# ------------------------------------------------------------------------------------------------------------- padding

inverted = mistake(
    MASKS,
    "mask inverted",
    does="masked and attended keys are exchanged",
    right="1 for a key that is attended to, 0 for one that is not",
    across_texts=("**",),  # it is refused where nothing is masked
)
inverted.way("", additive_mask)(of_mask(lambda mask: np.where(is_attended(mask), mask.min() * 1.0, 0.0)))


@inverted.way("of the padding", additive_mask)
def padding_inverted(step: Step, weight: Any, attended: Any, **options: Any) -> Any:
    """1 taken for padding."""
    if attended is None:
        raise ValueError("there is no padding mask")
    return step.right(weight, 1.0 - attended, **options)


multiplied = mistake(
    MASKS,
    "mask multiplied",
    does="the mask of 0 and 1 is multiplied with scores or probabilities, or added as it is",
    right="to make it additive, (1 − mask) · minimum, and to add it before the softmax",
)


@multiplied.way("with the scores", attention_probs)
def scores_multiplied(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The scores of masked keys set to 0."""
    if mask is None:
        raise ValueError("there is no mask")
    return step.right(scores * is_attended(mask), None, scale=scale)


@multiplied.way("with the probabilities", attention_probs)
def probs_multiplied(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The probabilities of masked keys set to 0, after the softmax."""
    if mask is None:
        raise ValueError("there is no mask")
    return step.right(scores, None, scale=scale) * is_attended(mask)


multiplied.way("added as it is", additive_mask)(of_mask(lambda mask: is_attended(mask) * 1.0))
multiplied.way("added as it is, to the scores", attention_probs)(before_softmax(lambda mask: is_attended(mask) * 1.0))
multiplied.way("added, less 1", additive_mask)(of_mask(lambda mask: is_attended(mask) - 1.0))
multiplied.way("added, less 1, to the scores", attention_probs)(before_softmax(lambda mask: is_attended(mask) - 1.0))

# --------------------------------------------------------------------------------------------- the number that is added

WEAKEST = -5.0  # a number that is larger masks nothing

another_number = mistake(
    MASKS,
    "mask of −1e4",
    does="masked scores get a number like −10000 added",
    right="the dtype's minimum, with which a row is uniform where every key is masked",
)


def least(mask: Any, number: float) -> Any:
    """Another number where the mask says never."""
    return np.where(is_attended(mask), mask, number)


def where_added(number: float) -> Changes:
    """Another number where a mask that is right is added."""
    return {attention_probs: before_softmax(lambda mask: least(mask, number))}


def of_number(number: float) -> Changes:
    """Another number where the mask says never, in the mask and where it is added."""
    return {additive_mask: of_mask(lambda mask: least(mask, number)), **where_added(number)}


for way, value in (("", -1e4), ("−1e9", -1e9), ("−1000", -1e3), ("−100", -1e2), ("−10", -1e1)):
    another_number.add_way(way, of_number(value))
    another_number.add_way(f"{way or '−1e4'} where it is added", where_added(value))


@another_number.recogniser
def fitted_number(evidence: Evidence) -> Ways:
    """Recognise any other number, in the mask or in the probabilities."""
    if evidence.layer is additive_mask:
        found = evidence.theirs[~is_attended(evidence.right)]
    elif evidence.layer is attention_probs and len(evidence.arguments) == 2 and evidence.arguments[1] is not None:
        found = added_to_masked(evidence)
    else:
        return {}
    number = float(np.median(found)) if found.size else 0.0
    if number > WEAKEST:
        return {}
    return {"": of_number(number) if evidence.layer is additive_mask else where_added(number)}


def added_to_masked(evidence: Evidence) -> np.ndarray:
    """Take what was added to each masked score: how much lower its probability's logarithm lies than it should."""
    scores, mask = evidence.arguments
    never = np.broadcast_to(~is_attended(mask), scores.shape)
    with np.errstate(all="ignore"):  # a probability of 0, and a row with every key masked
        logits = np.log(evidence.theirs) - scores * evidence.options["scale"]
        attended = np.where(never, -np.inf, logits).max(axis=-1, keepdims=True)
        added = (logits - attended)[never]
    finite: np.ndarray = added[np.isfinite(added)]
    return finite


infinite = mistake(
    MASKS,
    "mask of −∞",
    does="masked scores get −∞ added, and a row with every key masked is NaN",
    right="the dtype's minimum, with which it is uniform",
)
infinite.add_way("", of_number(-np.inf))
infinite.add_way("where it is added", where_added(-np.inf))


@infinite.way("its NaN set to 0", attention_probs)
def not_numbers_as_zero(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Probabilities of 0 where every key is masked."""
    if mask is None or is_attended(mask).any(axis=-1).all():
        raise ValueError("no row has every key masked")
    return np.where(is_attended(mask).any(axis=-1, keepdims=True), step.right(scores, mask, scale=scale), 0.0)


@infinite.way("padding and causal mask added", attention_probs)
def minima_added(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Padding mask and causal mask each made additive, and added: twice the minimum is −∞."""
    padding = np.asarray(step.inputs["attention_mask"])
    if mask is None or "cross" in step.name or not step.config.is_decoder or padding.ndim != 2:
        raise ValueError("there are no two masks")
    queries, keys = scores.shape[-2:]
    later = np.arange(keys)[None, :] > np.arange(queries)[:, None] + (keys - queries)
    twice = (padding[:, None, None, :] == 0) & later
    return step.right(scores, np.where(twice, -np.inf, mask), scale=scale)


missing = mistake(
    MASKS,
    "mask missing",
    does="no mask is added to the scores, and padding is attended to",
    right="to mask it",
)
missing.way("", additive_mask)(of_mask(np.zeros_like))
missing.way("made, and not added", attention_probs)(before_softmax(lambda mask: None))


@missing.way("of the padding", additive_mask)
def without_padding(step: Step, weight: Any, attended: Any, **options: Any) -> Any:
    """The causal mask alone, where there is one."""
    shape = np.shape(step.right(weight, attended, **options))
    return np.broadcast_to(step.right(weight, None, **options), shape)


before_positions = mistake(
    MASKS,
    "mask before the position term",
    does="masked scores are set to a number before the position term is added",
    right="to add the mask after both terms",
    families=NEZHA_AND_BERT,
)


def masked_before(number: float, *, again: bool = False) -> Changes:
    """The content term of masked keys set to a number before the position term is added; the mask added too or not."""

    def change(step: Step, x: Any, y: Any) -> Any:
        return step.right(np.where(attended_in(step, x), x, number), y)

    without_mask: Changes = {} if again else {attention_probs: before_softmax(lambda mask: None)}
    return {add: At("**.scores", change), **without_mask}


def attended_in(step: Step, scores: Any) -> Any:
    """Where a query may attend to a key, by the head's arguments."""
    cross = "crossattention" in step.name
    padding = step.inputs.get("encoder_attention_mask" if cross else "attention_mask")
    queries, keys = scores.shape[-2:]
    may = np.ones((1, 1, 1, keys), dtype=bool)
    if padding is not None:
        padding = np.asarray(padding)
        may = (padding[:, None, None, :] if padding.ndim == 2 else padding[:, None]) != 0
    if step.config.is_decoder and not cross and (padding is None or padding.ndim == 2):
        may = may & (np.arange(keys)[None, :] <= np.arange(queries)[:, None] + (keys - queries))
    return may


before_positions.add_way("−∞", masked_before(-np.inf))
before_positions.add_way("−1e4", masked_before(-1e4))
before_positions.add_way("−1e4, and the mask added too", masked_before(-1e4, again=True))


@before_positions.recogniser
def number_before(evidence: Evidence) -> Ways:
    """Recognise any number in the scores of masked keys."""
    if evidence.layer is not add or not evidence.step.name.endswith(".scores"):
        return {}
    never = ~np.broadcast_to(attended_in(evidence.step, evidence.right), evidence.right.shape)
    if not never.any():
        return {}
    number = float(np.median((evidence.theirs - evidence.arguments[1])[never]))
    if not number < -100.0:
        return {}
    way = f"{number:.3g}".replace("e+0", "e").replace("e+", "e").replace("-", "−")
    number = float(f"{number:.4g}") if number > NEVER else number
    return {way: masked_before(number), f"{way}, and the mask added too": masked_before(number, again=True)}


# -------------------------------------------------------------------------------------------------------------- causal


def causal_by(may_attend: Callable[[Any, Any, int], Any]) -> Changes:
    """Another rule for a decoder: of key and query, counted from 0, and the number of tokens in the cache."""

    def change(step: Step, weight: Any, attended: Any, *, queries: int, keys: int, causal: bool) -> Any:
        if not causal or (attended is not None and attended.ndim == 3):
            raise ValueError("this mask is not causal")
        full = step.right(weight, attended, queries=queries, keys=keys, causal=False)
        may = may_attend(np.arange(keys)[None, :], np.arange(queries)[:, None], keys - queries)
        return np.where(np.broadcast_to(may, (queries, keys)), full, np.finfo(full.dtype).min)

    return {additive_mask: change}


causal_missing = mistake(
    MASKS,
    "causal mask missing",
    does="a decoder's token attends to later ones",
    right="to attend to itself and earlier ones alone",
    families=NEZHA_AND_BERT,
)
causal_missing.add_way("", causal_by(lambda key, query, past: key >= 0))

causal_in_an_encoder = mistake(
    MASKS,
    "causal mask in an encoder",
    does="an encoder's token attends to itself and earlier ones alone",
    right="to attend to all tokens",
)


@causal_in_an_encoder.way("", additive_mask)
def mask_of_a_decoder(step: Step, weight: Any, attended: Any, *, causal: bool, **options: Any) -> Any:
    """The mask of a decoder."""
    if causal or step.config.is_decoder:
        raise ValueError("the model is a decoder")
    return step.right(weight, attended, causal=True, **options)


@causal_in_an_encoder.way("", attention_probs)
def causal_before_softmax(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The later keys masked where the mask is added."""
    if step.config.is_decoder:
        raise ValueError("the model is a decoder")
    mask = np.zeros(1) if mask is None else mask
    minimum = np.finfo(scores.dtype).min if is_attended(mask).all() else mask.min()
    later = np.triu(np.ones(scores.shape[-2:], dtype=bool), k=1)
    return step.right(scores, np.where(later, minimum, mask), scale=scale)


causal_off = mistake(
    MASKS,
    "causal mask off by one",
    does="a decoder's token attends to the next one, or not to itself, or the cache's tokens are not counted",
    right="to attend to itself and all before it, those of the cache too",
    families=NEZHA_AND_BERT,
)
causal_off.add_way("the next one too", causal_by(lambda key, query, past: key <= query + past + 1))
causal_off.add_way("not to itself", causal_by(lambda key, query, past: key < query + past))
causal_off.add_way("without the cache", causal_by(lambda key, query, past: key <= query))
causal_off.add_way("those after it in place of those before", causal_by(lambda key, query, past: key >= query + past))
