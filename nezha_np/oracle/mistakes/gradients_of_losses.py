"""Mistakes that are made walking back through the losses and the pooler, as those of `gradients_of_layers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nezha_np.arrays import in_statistics_dtype, namespace
from nezha_np.layers.losses import IGNORE_INDEX, bce_with_logits, cross_entropy, mse
from nezha_np.layers.selection import first_token
from nezha_np.oracle.mistakes.mistake import Mistake, mistake
from nezha_np.oracle.replay import Changes, Step

GRADIENTS_OF_LOSSES: list[Mistake] = []


def count_labels(logits: Any, labels: Any) -> Any:
    """Count the labels that are not −100, in the dtype of statistics."""
    xp = namespace(logits)
    return xp.sum(in_statistics_dtype(xp.astype(labels != IGNORE_INDEX, logits.dtype)))


over_all_labels = mistake(
    GRADIENTS_OF_LOSSES,
    "gradient of the loss over all labels",
    does="the loss's gradient is divided by all labels",
    right="to divide by those that are not −100",
)


@over_all_labels.way("", cross_entropy)
def ignored_labels_count(step: Step, dloss: Any, loss: Any, logits: Any, labels: Any, **options: Any) -> Any:
    """Divided by all labels, those of −100 among them."""
    return step.right(dloss, loss, logits, labels, **options) * (count_labels(logits, labels) / labels.size)


not_averaged = mistake(
    GRADIENTS_OF_LOSSES,
    "gradient of the loss not averaged",
    does="the loss's gradient is not divided by the number of labels",
    right="to divide by it",
)


@not_averaged.way("", cross_entropy)
def sum_over_labels(step: Step, dloss: Any, loss: Any, logits: Any, labels: Any, **options: Any) -> Any:
    """Not divided by the number of labels that count."""
    return step.right(dloss, loss, logits, labels, **options) * count_labels(logits, labels)


def loss_times(factor: Callable[[Any], float]) -> Changes:
    """The gradient of the loss, and with it every other, multiplied by a number that its first argument may say."""

    def change(step: Step, dloss: Any, loss: Any, x: Any, labels: Any, **options: Any) -> Any:
        return step.right(dloss, loss, x, labels, **options) * factor(x)

    return dict.fromkeys((cross_entropy, mse, bce_with_logits), change)


of_another_sign = mistake(
    GRADIENTS_OF_LOSSES,
    "gradient of another sign",
    does="every gradient is negated, that of −loss or of a step of descent",
    right="that of the loss",
)
of_another_sign.add_way("", loss_times(lambda logits: -1.0))

by_batch = mistake(
    GRADIENTS_OF_LOSSES,
    "gradient scaled by the batch",
    does="every gradient is divided by the number of texts, or multiplied by it",
    right="that of the loss, which is a mean already",
)
by_batch.add_way("divided", loss_times(lambda logits: 1.0 / int(logits.shape[0])))
by_batch.add_way("multiplied", loss_times(lambda logits: float(logits.shape[0])))

of_scaled_loss = mistake(
    GRADIENTS_OF_LOSSES,
    "gradient of a scaled loss",
    does="every gradient is that of the loss times a constant, as half precision is trained with",
    right="to divide by it again",
)
of_scaled_loss.add_way("by 1024", loss_times(lambda logits: 1024.0))
of_scaled_loss.add_way("by 65536", loss_times(lambda logits: 65536.0))

without_two = mistake(
    GRADIENTS_OF_LOSSES,
    "gradient of mse without 2",
    does="the gradient of the squared error lacks the factor 2",
    right="2 (p − t) over the number of elements",
)


@without_two.way("", mse)
def half_of_mse(step: Step, dloss: Any, loss: Any, predictions: Any, targets: Any) -> Any:
    """The factor 2 left out."""
    return step.right(dloss, loss, predictions, targets) / 2.0


of_first_token = mistake(
    GRADIENTS_OF_LOSSES,
    "gradient of the first token",
    does="the pooler's gradient is given to every token",
    right="to give it to the first alone",
)


@of_first_token.way("", first_token)
def first_token_everywhere(step: Step, dy: Any, y: Any, x: Any) -> Any:
    """The gradient given to every token."""
    return namespace(x).zeros_like(x) + dy[:, None, :]
