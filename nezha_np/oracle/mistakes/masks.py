"""Mistakes in attention masks: padding and causal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.attention import attention_probs
from nezha_np.layers.masks import additive_mask
from nezha_np.oracle.differences import NEVER
from nezha_np.oracle.mistakes.mistake import Evidence, Mistake, Ways
from nezha_np.oracle.replay import At, Change, Changes, Step


def is_attended(mask: Any) -> Any:
    """Where an additive mask lets a query attend to a key."""
    return mask > NEVER


def made_otherwise(alter: Callable[..., Any]) -> Change:
    """Alter the additive mask."""
    return lambda step, *arguments, **options: alter(step.right(*arguments, **options))


def before_softmax(alter: Callable[..., Any]) -> Change:
    """Alter the mask where it is added."""

    def change(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        if mask is None:
            raise ValueError("there is no mask")
        return step.right(scores, alter(mask), scale=scale)

    return change


def padding_inverted(step: Step, weight: Any, attended: Any, **options: Any) -> Any:
    """1 taken for padding."""
    if attended is None:
        raise ValueError("there is no padding mask")
    return step.right(weight, 1.0 - attended, **options)


def scores_multiplied(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The scores of masked keys set to 0."""
    if mask is None:
        raise ValueError("there is no mask")
    return step.right(scores * is_attended(mask), None, scale=scale)


def probs_multiplied(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The probabilities of masked keys set to 0, after the softmax."""
    if mask is None:
        raise ValueError("there is no mask")
    return step.right(scores, None, scale=scale) * is_attended(mask)


def minima_added(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Padding mask and causal mask each made additive, and added: twice the minimum is −∞."""
    padding = np.asarray(step.inputs["attention_mask"])
    if mask is None or "cross" in step.name or not step.config.is_decoder or padding.ndim != 2:
        raise ValueError("there are no two masks")
    queries, keys = scores.shape[-2:]
    later = np.arange(keys)[None, :] > np.arange(queries)[:, None] + (keys - queries)
    twice = (padding[:, None, None, :] == 0) & later
    return step.right(scores, np.where(twice, -np.inf, mask), scale=scale)


def causal_by(may_attend: Callable[[Any, Any, int], Any]) -> Changes:
    """Another rule for a decoder: of key and query, counted from 0, and the number of tokens in the cache."""

    def change(step: Step, weight: Any, attended: Any, *, queries: int, keys: int, causal: bool) -> Any:
        if not causal or (attended is not None and attended.ndim == 3):
            raise ValueError("this mask is not causal")
        full = step.right(weight, attended, queries=queries, keys=keys, causal=False)
        may = may_attend(np.arange(keys)[None, :], np.arange(queries)[:, None], keys - queries)
        return np.where(may, full, np.finfo(full.dtype).min)

    return {additive_mask: change}


def causal_in_an_encoder(step: Step, weight: Any, attended: Any, *, causal: bool, **options: Any) -> Any:
    """The mask of a decoder."""
    if causal or step.config.is_decoder:
        raise ValueError("the model is a decoder")
    return step.right(weight, attended, causal=True, **options)


def causal_before_softmax(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """The later keys masked where the mask is added."""
    if step.config.is_decoder:
        raise ValueError("the model is a decoder")
    mask = np.zeros(1) if mask is None else mask
    minimum = np.finfo(scores.dtype).min if is_attended(mask).all() else mask.min()
    later = np.triu(np.ones(scores.shape[-2:], dtype=bool), k=1)
    return step.right(scores, np.where(later, minimum, mask), scale=scale)


def masked_before(number: float, *, again: bool = False) -> Changes:
    """The content term of masked keys set to a number before the position term is added; the mask added too or not."""
    return {
        add: At(".scores", lambda step, x, y: step.right(np.where(attended_in(step, x), x, number), y)),
        **({} if again else {attention_probs: before_softmax(lambda mask: None)}),
    }


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


def least(mask: Any, number: float) -> Any:
    """Another number where the mask says never."""
    return np.where(is_attended(mask), mask, number)


def of_number(number: float) -> Changes:
    """Another number where the mask says never, in the mask or where it is added."""
    return {
        additive_mask: made_otherwise(lambda mask: least(mask, number)),
        attention_probs: before_softmax(lambda mask: least(mask, number)),
    }


def another_number(evidence: Evidence) -> Ways:
    """Recognise any other number, in the mask or in the probabilities."""
    if evidence.layer is additive_mask:
        found = evidence.theirs[~is_attended(evidence.right)]
    elif evidence.layer is attention_probs and len(evidence.arguments) == 2 and evidence.arguments[1] is not None:
        found = added_to_masked(evidence)
    else:
        return {}
    return {"": of_number(float(np.median(found)))} if found.size else {}


def added_to_masked(evidence: Evidence) -> np.ndarray:
    """Take what was added to each masked score: how much lower its probability's logarithm lies than it should."""
    scores, mask = evidence.arguments
    never = np.broadcast_to(~is_attended(mask), scores.shape)
    with np.errstate(all="ignore"):  # a probability of 0, and a row with every key masked
        logits = np.log(evidence.theirs) - scores * evidence.options["scale"]
        attended = np.where(never, -np.inf, logits).max(axis=-1, keepdims=True)
        added = (logits - attended)[never]
    return added[np.isfinite(added)]


MASKS = (
    Mistake(
        "mask inverted",
        "masked and attended keys are exchanged; right is 1 for a key that is attended to, 0 for one that is not",
        {
            "": {additive_mask: made_otherwise(lambda mask: np.where(is_attended(mask), mask.min() * 1.0, 0.0))},
            "of the padding": {additive_mask: padding_inverted},
        },
    ),
    Mistake(
        "mask multiplied",
        "the mask of 0 and 1 is multiplied with scores or probabilities, or added as it is; right is to make it "
        "additive, (1 − mask) · minimum, and to add it before the softmax",
        {
            "with the scores": {attention_probs: scores_multiplied},
            "with the probabilities": {attention_probs: probs_multiplied},
            "added as it is": {additive_mask: made_otherwise(lambda mask: is_attended(mask) * 1.0)},
            "added as it is, to the scores": {attention_probs: before_softmax(lambda mask: is_attended(mask) * 1.0)},
        },
    ),
    Mistake(
        "mask of −1e4",
        "masked scores get a number like −10000 added; right is the dtype's minimum, with which a row is uniform "
        "where every key is masked",
        {
            name: of_number(number)
            for name, number in (("", -1e4), ("−1e9", -1e9), ("−1000", -1e3), ("−100", -1e2), ("−10", -1e1))
        },
        recognise=another_number,
    ),
    Mistake(
        "mask of −∞",
        "masked scores get −∞ added, and a row with every key masked is NaN; right is the dtype's minimum, with which "
        "it is uniform",
        {
            "": of_number(-np.inf),
            "padding and causal mask added": {attention_probs: minima_added},
        },
    ),
    Mistake(
        "mask missing",
        "no mask is added to the scores, and padding is attended to; right is to mask it",
        {
            "": {
                additive_mask: made_otherwise(np.zeros_like),
                attention_probs: before_softmax(lambda mask: None),
            },
            "of the padding": {
                additive_mask: lambda step, weight, attended, **options: step.right(weight, None, **options)
            },
        },
    ),
    Mistake(
        "mask before the position term",
        "masked scores are set to a number before the position term is added; right is to add the mask after both "
        "terms",
        {
            "−∞": masked_before(-np.inf),
            "−1e4": masked_before(-1e4),
            "−1e4, and the mask added too": masked_before(-1e4, again=True),
        },
        ("nezha", "bert"),
        number_before,
    ),
    Mistake(
        "causal mask missing",
        "a decoder's token attends to later ones; right is itself and earlier ones alone",
        {"": causal_by(lambda key, query, past: key >= 0)},
        ("nezha", "bert"),
    ),
    Mistake(
        "causal mask in an encoder",
        "an encoder's token attends to itself and earlier ones alone; right is to all tokens",
        {"": {additive_mask: causal_in_an_encoder, attention_probs: causal_before_softmax}},
    ),
    Mistake(
        "causal mask off by one",
        "a decoder's token attends to the next one, or not to itself, or the cache's tokens are not counted; right is "
        "itself and all before it, those of the cache too",
        {
            "the next one too": causal_by(lambda key, query, past: key <= query + past + 1),
            "not to itself": causal_by(lambda key, query, past: key < query + past),
            "without the cache": causal_by(lambda key, query, past: key <= query),
            "those after it in place of those before": causal_by(lambda key, query, past: key >= query + past),
        },
        ("nezha", "bert"),
    ),
)
