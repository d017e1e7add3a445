"""Mistakes in losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import selection
from nezha_np.layers.addition import add
from nezha_np.layers.losses import IGNORE_INDEX, average, bce_with_logits, cross_entropy, mse
from nezha_np.oracle.mistakes.mistake import Mistake, first, second
from nezha_np.oracle.replay import At, Change, Step


def count_of(labels: Any, ignore_index: int) -> Any:
    """Count the labels that are not left out."""
    return (labels != ignore_index).sum()


def over_all_labels(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
    """Divided by the number of all labels."""
    total = step.right(logits, labels, ignore_index=ignore_index) * count_of(labels, ignore_index)
    return total / labels.size


def summed(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
    """Not divided."""
    return step.right(logits, labels, ignore_index=ignore_index) * count_of(labels, ignore_index)


def ignored_as(number: Callable[[Any], int]) -> Change:
    """A class in place of the label that is left out."""

    def change(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        return step.right(logits, np.where(labels == ignore_index, number(logits), labels))

    return change


def averaged_by_text(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """The mean of each text's mean."""
    if labels.ndim < 2:
        raise ValueError("a text has one label")
    means = [step.right(x, y, **options) for x, y in zip(logits, labels, strict=True)]
    return np.nanmean(np.array(means))


def given_labels(step: Step) -> Any:
    """Return the labels that a decoder was given."""
    if not step.config.is_decoder:
        raise ValueError("this is no causal loss")
    return np.asarray(step.inputs["labels"])


def shifted(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """Each token's logits held against the next token's label, as in a decoder."""
    if labels.ndim < 2 or step.config.is_decoder:
        raise ValueError("the loss is shifted rightly, or cannot be")
    return step.right(logits[:, :-1], labels[:, 1:], **options)


def total(step: Step, predictions: Any, targets: Any) -> Any:
    """The sum over all elements."""
    return step.right(predictions, targets) * predictions.size


LOSSES = (
    Mistake(
        "loss counting −100",
        "labels of −100 are counted, in the number that is divided by, or as a class; right is to leave them out of "
        "both",
        {
            "in the number": {cross_entropy: over_all_labels},
            "as class 0": {cross_entropy: ignored_as(lambda logits: 0)},
            "as the last class": {cross_entropy: ignored_as(lambda logits: logits.shape[-1] - 1)},
        },
    ),
    Mistake(
        "loss summed instead of averaged",
        "the loss is a sum; right is the mean over the labels that count, or over all numbers",
        {
            "": {
                cross_entropy: summed,
                mse: total,
                bce_with_logits: total,
                average: lambda step, x, y: x + y,
            },
            "over the labels of a text": dict.fromkeys(
                (mse, bce_with_logits),
                lambda step, predictions, targets: step.right(predictions, targets) * predictions.shape[-1],
            ),
        },
    ),
    Mistake(
        "loss averaged by text",
        "the loss is the mean of each text's mean; right is the mean over all labels of the batch",
        {"": {cross_entropy: averaged_by_text}},
    ),
    Mistake(
        "causal loss not shifted",
        "each token's logits are held against its own label, or the one before; right is the next token's",
        {
            "all tokens": {
                selection.all_but_last_token: first,
                cross_entropy: lambda step, logits, labels, **options: step.right(
                    logits, given_labels(step), **options
                ),
            },
            "all but the last": {
                cross_entropy: lambda step, logits, labels, **options: step.right(
                    logits, given_labels(step)[:, :-1], **options
                )
            },
            "the other way": {
                selection.all_but_last_token: lambda step, x: x[:, 1:],
                cross_entropy: lambda step, logits, labels, **options: step.right(
                    logits, given_labels(step)[:, :-1], **options
                ),
            },
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "loss shifted",
        "each token's logits are held against the next token's label, as in a decoder; right is its own label",
        {"": {cross_entropy: shifted}},
    ),
    Mistake(
        "losses averaged",
        "the two losses of pretraining are averaged, or one is left out; right is their sum",
        {
            "": {add: At("loss", lambda step, x, y: (x + y) / 2.0)},
            "of the words alone": {add: At("loss", first)},
            "of the sentences alone": {add: At("loss", second)},
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "squared error halved",
        "the regression's loss has a factor of 1/2; right is the mean of (p − t)²",
        {"": {mse: lambda step, predictions, targets: step.right(predictions, targets) / 2.0}},
    ),
)
