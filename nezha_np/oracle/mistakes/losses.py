"""Mistakes in losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import selection
from nezha_np.layers.addition import add
from nezha_np.layers.losses import IGNORE_INDEX, average, bce_with_logits, cross_entropy, mse
from nezha_np.layers.softmax import softmax
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


# ------------------------------------------------------------------------------------------------------ another loss

smoothed = mistake(
    LOSSES,
    "labels smoothed",
    does="the loss takes (1 − ε) of the right class and ε of all classes, as in training with label smoothing",
    right="the right class alone",
)


def all_classes(logits: Any, labels: Any, ignore_index: int) -> Any:
    """The mean over the labels that count of the mean of −log p over all classes."""
    rows = np.asarray(logits, np.float64).reshape(-1, logits.shape[-1])
    rows = rows - rows.max(axis=-1, keepdims=True)
    logs = rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return -logs[np.asarray(labels).reshape(-1) != ignore_index].mean()


def smoothed_by(epsilon: float) -> Change:
    """Label smoothing of ε."""

    def change(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        right = step.right(logits, labels, ignore_index=ignore_index)
        return (1.0 - epsilon) * right + epsilon * all_classes(logits, labels, ignore_index)

    return change


for epsilon in (0.1, 0.05, 0.2, 0.01, 0.15, 0.25, 0.3):
    smoothed.way(f"ε = {epsilon:g}", cross_entropy)(smoothed_by(epsilon))

another_loss = mistake(
    LOSSES,
    "another loss",
    does="the loss is another function of logits and labels",
    right="the mean of −log p, or of (p − t)²",
)


@another_loss.way("log₂", cross_entropy, bce_with_logits)
def in_bits(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """Logarithms of base 2."""
    return step.right(logits, labels, **options) / math.log(2.0)


@another_loss.way("log₁₀", cross_entropy, bce_with_logits)
def in_digits(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """Logarithms of base 10."""
    return step.right(logits, labels, **options) / math.log(10.0)


@another_loss.way("of another sign", cross_entropy, mse, bce_with_logits)
def negated(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """Mean log p in place of its negative."""
    return -step.right(logits, labels, **options)


@another_loss.way("of probabilities taken for logits", cross_entropy)
def of_probabilities(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """A softmax of the softmax."""
    return step.right(softmax(logits), labels, **options)


@another_loss.way("a perplexity", cross_entropy)
def perplexity(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
    """The exponential of the loss."""
    return np.exp(step.right(logits, labels, **options))


@another_loss.way("absolute error", mse)
def absolute_error(step: Step, predictions: Any, targets: Any) -> Any:
    """The mean of |p − t|."""
    return np.abs(predictions - targets).mean()


@another_loss.way("root of the mean square", mse)
def root_of_mean(step: Step, predictions: Any, targets: Any) -> Any:
    """The root of the squared error."""
    return np.sqrt(step.right(predictions, targets))


@another_loss.way("Huber's", mse)
def huber(step: Step, predictions: Any, targets: Any) -> Any:
    """Half of the square up to 1, and a line beyond."""
    apart = np.abs(predictions - targets)
    return np.where(apart < 1.0, 0.5 * apart * apart, apart - 0.5).mean()


@another_loss.way("squared error of the logits", bce_with_logits)
def square_of_logits(step: Step, logits: Any, targets: Any) -> Any:
    """(z − t)² in place of a cross-entropy."""
    return ((logits - targets) ** 2).mean()


other_labels = mistake(
    LOSSES,
    "other labels",
    does="the loss takes other labels than those that are given",
    right="the label of each text or token as it is",
)


def labels_by(function: Callable[[Any, int], Any]) -> Change:
    """Other classes: of the labels and how many classes there are."""

    def change(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        classes = int(logits.shape[-1])
        other = np.where(labels == ignore_index, ignore_index, function(labels, classes))
        if (other == labels).all():
            raise ValueError("these are the labels")
        return step.right(logits, other, ignore_index=ignore_index)

    return change


other_labels.way("inverted, C − 1 − label", cross_entropy)(labels_by(lambda labels, classes: classes - 1 - labels))
other_labels.way("next-sentence labels inverted", cross_entropy, at="next_sentence_loss")(
    labels_by(lambda labels, classes: classes - 1 - labels)
)
other_labels.way("label + 1", cross_entropy)(labels_by(lambda labels, classes: (labels + 1) % classes))
other_labels.way("label − 1", cross_entropy)(labels_by(lambda labels, classes: (labels - 1) % classes))
other_labels.way("in reverse order", cross_entropy)(labels_by(lambda labels, classes: labels[::-1]))
other_labels.way("0 for all", cross_entropy)(labels_by(lambda labels, classes: 0 * labels))
