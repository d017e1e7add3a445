"""Mistakes in losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import selection
from nezha_np.layers.addition import add
from nezha_np.layers.losses import IGNORE_INDEX, average, bce_with_logits, cross_entropy, mse
from nezha_np.oracle.mistakes.mistake import NEZHA_AND_BERT, Mistake, first, mistake, second
from nezha_np.oracle.replay import Change, Step

LOSSES: list[Mistake] = []

# ------------------------------------------------------------------------------------------ what counts, and how often

counting_ignored = mistake(
    LOSSES,
    "loss counting −100",
    does="labels of −100 are counted, in the number that is divided by, or as a class",
    right="to leave them out of both",
)


def count_of(labels: Any, ignore_index: int) -> Any:
    """Count the labels that are not left out."""
    return (labels != ignore_index).sum()


@counting_ignored.way("in the number", cross_entropy)
def over_all_labels(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
    """Divided by the number of all labels."""
    total = step.right(logits, labels, ignore_index=ignore_index) * count_of(labels, ignore_index)
    return total / labels.size


def ignored_as(number: Callable[[Any], int]) -> Change:
    """A class in place of the label that is left out."""

    def change(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        return step.right(logits, np.where(labels == ignore_index, number(logits), labels))

    return change


counting_ignored.way("as class 0", cross_entropy)(ignored_as(lambda logits: 0))
counting_ignored.way("as the last class", cross_entropy)(ignored_as(lambda logits: int(logits.shape[-1]) - 1))

summed = mistake(
    LOSSES,
    "loss summed instead of averaged",
    does="the loss is a sum",
    right="the mean over the labels that count, or over all numbers",
)


@summed.way("", cross_entropy)
def sum_over_labels(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
    """Not divided."""
    return step.right(logits, labels, ignore_index=ignore_index) * count_of(labels, ignore_index)


@summed.way("", mse, bce_with_logits)
def sum_over_all(step: Step, predictions: Any, targets: Any) -> Any:
    """The sum over all elements."""
    return step.right(predictions, targets) * predictions.size


@summed.way("", average)
def sum_of_both(step: Step, x: Any, y: Any) -> Any:
    """The sum of two losses."""
    return x + y


@summed.way("over the labels of a text", mse, bce_with_logits)
def sum_over_a_text(step: Step, predictions: Any, targets: Any) -> Any:
    """The mean over the texts of a sum over the labels."""
    return step.right(predictions, targets) * predictions.shape[-1]


by_text = mistake(
    LOSSES,
    "loss averaged by text",
    does="the loss is the mean of each text's mean",
    right="the mean over all labels of the batch",
)


@by_text.way("", cross_entropy)
def mean_of_means(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """The mean of each text's mean."""
    if labels.ndim < 2:
        raise ValueError("a text has one label")
    means = [step.right(x, y, **options) for x, y in zip(logits, labels, strict=True)]
    return np.nanmean(np.array(means))


# -------------------------------------------------------------------------------------------------------------- shifts

not_shifted = mistake(
    LOSSES,
    "causal loss not shifted",
    does="each token's logits are compared with its own label, or the one before",
    right="to compare them with the next token's",
    families=NEZHA_AND_BERT,
)


def input_labels(step: Step) -> Any:
    """Return the labels of the inputs, of a decoder."""
    if not step.config.is_decoder:
        raise ValueError("this is no causal loss")
    return np.asarray(step.inputs["labels"])


not_shifted.way("all tokens", selection.all_but_last_token)(first)


@not_shifted.way("all tokens", cross_entropy)
def own_labels(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """Each token's own label."""
    return step.right(logits, input_labels(step), **options)


@not_shifted.way("the other way", cross_entropy)
@not_shifted.way("all but the last", cross_entropy)
def labels_but_the_last(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """All labels but the last one's."""
    return step.right(logits, input_labels(step)[:, :-1], **options)


@not_shifted.way("the other way", selection.all_but_last_token)
def all_but_first_token(step: Step, x: Any) -> Any:
    """All tokens but the first."""
    return x[:, 1:]


shifted = mistake(
    LOSSES,
    "loss shifted",
    does="each token's logits are compared with the next token's label, as in a decoder",
    right="to compare them with its own label",
)


@shifted.way("", cross_entropy)
def next_labels(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """Each token's logits with the next token's label, as in a decoder."""
    if labels.ndim < 2 or step.config.is_decoder:
        raise ValueError("the loss is shifted rightly, or cannot be")
    return step.right(logits[:, :-1], labels[:, 1:], **options)


# ------------------------------------------------------------------------------------------------------ sums of losses

averaged = mistake(
    LOSSES,
    "losses averaged",
    does="the two losses of pretraining are averaged, or one is left out",
    right="their sum",
    families=NEZHA_AND_BERT,
)


@averaged.way("", add, at="loss")
def mean_of_both(step: Step, x: Any, y: Any) -> Any:
    """The mean of two losses."""
    return (x + y) / 2.0


averaged.way("of the words alone", add, at="loss")(first)
averaged.way("of the sentences alone", add, at="loss")(second)

halved = mistake(
    LOSSES,
    "squared error halved",
    does="the regression's loss has a factor of 1/2",
    right="the mean of (p − t)²",
)


@halved.way("", mse)
def half(step: Step, predictions: Any, targets: Any) -> Any:
    """Half of the mean."""
    return step.right(predictions, targets) / 2.0
