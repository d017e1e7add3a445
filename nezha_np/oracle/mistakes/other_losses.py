"""Losses of other labels or of another weighting: divided by other counts, focal, with a temperature, in few bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.activations import sigmoid
from nezha_np.layers.losses import IGNORE_INDEX, average, bce_with_logits, cross_entropy, mse
from nezha_np.oracle.mistakes.mistake import Mistake, first, mistake, second
from nezha_np.oracle.mistakes.narrowing import HALF, narrow
from nezha_np.oracle.replay import Change, Step

OTHER_LOSSES: list[Mistake] = []


def logarithms(logits: Any) -> Any:
    """The logarithm of the softmax, (n, C) in float64."""
    rows = np.asarray(logits, np.float64).reshape(-1, logits.shape[-1])
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


def of_labels(logits: Any, labels: Any, ignore_index: int) -> tuple[Any, Any]:
    """Return −log p of the label that counts, and where there is one, for each row."""
    flat = np.asarray(labels).reshape(-1)
    counts = flat != ignore_index
    own = np.take_along_axis(logarithms(logits), np.where(counts, flat, 0)[:, None], axis=-1)[:, 0]
    return -own, counts


# ------------------------------------------------------------------------------------------------------ divided by what

divided_otherwise = mistake(
    OTHER_LOSSES,
    "loss divided by another number",
    does="the sum of the losses is divided by another number than that of the labels that count",
    right="the mean over the labels that count",
)


def divided_by(count: Callable[[Step, Any, Any], float]) -> Change:
    """The sum over another number: of the step, the labels, and where they count."""

    def change(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        losses, counts = of_labels(logits, labels, ignore_index)
        return np.asarray(losses[counts].sum() / count(step, labels, counts))

    return change


def mask_of_tokens(step: Step, labels: Any) -> Any:
    """Return the attention mask, (B, L), where each token has a label."""
    mask = np.asarray(step.inputs["attention_mask"])
    if mask.ndim != 2 or np.ndim(labels) != 2:
        raise ValueError("tokens have no labels, or no mask of their own")
    return mask


def attended_tokens(step: Step, labels: Any, counts: Any) -> float:
    """Count the tokens that are attended to."""
    return float((mask_of_tokens(step, labels) != 0).sum())


divided_otherwise.way("that of the texts", cross_entropy)(divided_by(lambda step, labels, counts: len(labels)))
divided_otherwise.way("one more", cross_entropy)(divided_by(lambda step, labels, counts: counts.sum() + 1.0))
divided_otherwise.way("one less", cross_entropy)(divided_by(lambda step, labels, counts: counts.sum() - 1.0))
divided_otherwise.way("that of the tokens attended to", cross_entropy)(divided_by(attended_tokens))
divided_otherwise.way("that of the tokens of a text", cross_entropy)(
    divided_by(lambda step, labels, counts: labels.shape[-1])
)
divided_otherwise.way("that of the classes", cross_entropy)(
    lambda step, logits, labels, **options: step.right(logits, labels, **options) / logits.shape[-1]
)

# -------------------------------------------------------------------------------------------------------- which labels

other_ones_counted = mistake(
    OTHER_LOSSES,
    "other labels counted",
    does="labels that count are left out, or each is compared with the logits of another token",
    right="every label that is not −100, with the logits of its own token",
)


def without(left_out: Callable[[Step, Any, Any], Any]) -> Change:
    """Some labels left out: of the step, the logits and the labels."""

    def change(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        labels = np.asarray(labels)
        other = np.where(left_out(step, logits, labels), ignore_index, labels)
        if (other == labels).all():
            raise ValueError("none is left out")
        return step.right(logits, other, ignore_index=ignore_index)

    return change


def is_masked(step: Step, logits: Any, labels: Any) -> Any:
    """Where a token is masked, as many of them as there are labels."""
    mask = mask_of_tokens(step, labels)
    return mask[:, -labels.shape[1] :] == 0


def is_padding(step: Step, logits: Any, labels: Any) -> Any:
    """Where a label is the id of padding."""
    return labels == (step.config.pad_token_id or 0)


def is_unchanged(step: Step, logits: Any, labels: Any) -> Any:
    """Where a label is the token that was read."""
    return labels == np.asarray(step.inputs["input_ids"])[:, -labels.shape[-1] :]


def is_last_token(step: Step, logits: Any, labels: Any) -> Any:
    """The last token of each text."""
    if labels.ndim != 2:
        raise ValueError("tokens have no labels")
    return np.arange(labels.shape[1]) == labels.shape[1] - 1


def is_of_last_text(step: Step, logits: Any, labels: Any) -> Any:
    """The labels of the last text."""
    text = np.arange(len(labels)).reshape(-1, *(1,) * (labels.ndim - 1))
    return text == len(labels) - 1


other_ones_counted.way("0 left out", cross_entropy)(without(lambda step, logits, labels: labels == 0))
other_ones_counted.way("the id of padding left out", cross_entropy)(without(is_padding))
other_ones_counted.way("those of masked tokens left out", cross_entropy)(without(is_masked))
other_ones_counted.way("those that are read left out", cross_entropy)(without(is_unchanged))
other_ones_counted.way("the last token's left out", cross_entropy)(without(is_last_token))
other_ones_counted.way("the first token's left out", cross_entropy)(
    without(lambda step, logits, labels: is_last_token(step, logits, labels)[::-1])
)
other_ones_counted.way("the last text's left out", cross_entropy)(without(is_of_last_text))


def moved_further(by: int) -> Change:
    """Labels of a decoder that are moved again."""

    def change(step: Step, logits: Any, labels: Any, **options: Any) -> Any:
        if not step.config.is_decoder or labels.ndim < 2 or labels.shape[1] <= abs(by):
            raise ValueError("this is no causal loss")
        if by > 0:
            return step.right(logits[:, :-by], labels[:, by:], **options)
        return step.right(logits[:, -by:], labels[:, :by], **options)

    return change


other_ones_counted.way("of a decoder, moved twice", cross_entropy)(moved_further(1))
other_ones_counted.way("of a decoder, moved three times", cross_entropy)(moved_further(2))
other_ones_counted.way("of a decoder, moved twice the other way", cross_entropy)(moved_further(-2))

# ---------------------------------------------------------------------------------------------------- another weighting

weighted = mistake(
    OTHER_LOSSES,
    "loss of other weights",
    does="the loss of each label is weighted, or the logits are divided by a temperature",
    right="the mean of −log p",
)


def of_each(function: Callable[[Any], Any]) -> Change:
    """The mean of a function of −log p."""

    def change(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        losses, counts = of_labels(logits, labels, ignore_index)
        return np.asarray(function(losses[counts]).mean())

    return change


def focal(gamma: float, factor: float) -> Callable[[Any], Any]:
    """The focal loss of −log p."""
    return lambda loss: factor * loss * (1.0 - np.exp(-loss)) ** gamma


for gamma in (1.0, 2.0, 3.0, 5.0):
    weighted.way(f"focal, (1 − p)^{gamma:g}", cross_entropy)(of_each(focal(gamma, 1.0)))
    weighted.way(f"focal, a quarter of (1 − p)^{gamma:g}", cross_entropy)(of_each(focal(gamma, 0.25)))
weighted.way("1 − p", cross_entropy)(of_each(lambda loss: 1.0 - np.exp(-loss)))
weighted.way("the root", cross_entropy)(of_each(np.sqrt))
weighted.way("the square", cross_entropy)(of_each(np.square))
for temperature in (2.0, 0.5, 4.0, 0.1, 10.0, 0.05, 0.07):
    weighted.way(f"a temperature of {temperature:g}", cross_entropy)(
        lambda step, logits, labels, temperature=temperature, **options: step.right(
            logits / temperature, labels, **options
        )
    )
for factor in (1e-4, 1e-3, 1e-2):
    weighted.way(f"{factor:g} · log² of the sum added", cross_entropy)(
        lambda step, logits, labels, factor=factor, ignore_index=IGNORE_INDEX: (
            step.right(logits, labels, ignore_index=ignore_index)
            + factor * (sum_of(logits) ** 2)[np.asarray(labels).reshape(-1) != ignore_index].mean()
        )
    )


def sum_of(logits: Any) -> Any:
    """The logarithm of the sum of exponentials of each row."""
    rows = np.asarray(logits, np.float64).reshape(-1, logits.shape[-1])
    most = rows.max(axis=-1)
    return most + np.log(np.exp(rows - most[:, None]).sum(axis=-1))


def against(rest: Callable[[Any], Any]) -> Change:
    """Another number in place of the logarithm of the sum."""

    def change(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        rows, flat = np.asarray(logits, np.float64).reshape(-1, logits.shape[-1]), np.asarray(labels).reshape(-1)
        counts = flat != ignore_index
        own = np.take_along_axis(rows, np.where(counts, flat, 0)[:, None], axis=-1)[:, 0]
        return np.asarray((rest(rows) - own)[counts].mean())

    return change


weighted.way("the maximum in place of the logarithm of the sum", cross_entropy)(against(lambda rows: rows.max(axis=-1)))
weighted.way("the logit alone", cross_entropy)(against(lambda rows: 0.0 * rows[:, 0]))
weighted.way("the sum without its maximum, not added back", cross_entropy)(
    against(lambda rows: sum_of(rows) - rows.max(axis=-1))
)

# ------------------------------------------------------------------------------------------ several labels, regression

several = mistake(
    OTHER_LOSSES,
    "another loss of several labels",
    does="the loss of several labels is a softmax's, or counts the labels of one kind alone",
    right="the mean of the binary cross-entropy over texts and labels",
)


def log_sigmoid(z: Any) -> Any:
    """log σ(z)."""
    return -np.logaddexp(0.0, -z)


several.way("cross-entropy of a softmax, summed over the labels", bce_with_logits)(
    lambda step, z, t: -(t * logarithms(z).reshape(z.shape)).sum(axis=-1).mean()
)
several.way("cross-entropy of a softmax, averaged", bce_with_logits)(
    lambda step, z, t: -(t * logarithms(z).reshape(z.shape)).mean()
)
several.way("cross-entropy of a softmax, over the labels of a text", bce_with_logits)(
    lambda step, z, t: -((t * logarithms(z).reshape(z.shape)).sum(axis=-1) / np.maximum(t.sum(axis=-1), 1.0)).mean()
)
several.way("labels of 1 alone", bce_with_logits)(lambda step, z, t: -(t * log_sigmoid(z)).mean())
several.way("labels of 0 alone", bce_with_logits)(lambda step, z, t: -((1.0 - t) * log_sigmoid(-z)).mean())
several.way("labels of 1 alone, over their number", bce_with_logits)(
    lambda step, z, t: -(t * log_sigmoid(z)).sum() / np.maximum(t.sum(), 1.0)
)
several.way("of probabilities taken for logits", bce_with_logits)(
    lambda step, z, t: step.right(np.asarray(sigmoid(z)), t)
)
several.way("labels inverted", bce_with_logits)(lambda step, z, t: step.right(z, 1.0 - t))
several.way("squared error of the probabilities", bce_with_logits)(
    lambda step, z, t: ((np.asarray(sigmoid(z)) - t) ** 2).mean()
)
several.way("squared error of the logits", bce_with_logits)(lambda step, z, t: ((z - t) ** 2).mean())

regression = mistake(
    OTHER_LOSSES,
    "another squared error",
    does="the regression compares each prediction with every target, or divides by another number",
    right="the mean of (p − t)² over texts and labels",
)


@regression.way("each prediction with every target", mse)
def all_with_all(step: Step, predictions: Any, targets: Any) -> Any:
    """(B, 1) − (B,), which is (B, B)."""
    if predictions.size != len(predictions):
        raise ValueError("a text has several labels")
    return ((predictions.reshape(-1, 1) - targets.reshape(1, -1)) ** 2).mean()


regression.way("of the means", mse)(lambda step, p, t: (p.mean() - t.mean()) ** 2)
regression.way("p² − t²", mse)(lambda step, p, t: (p * p - t * t).mean())
regression.way("p − t", mse)(lambda step, p, t: (p - t).mean())
regression.way("of predictions after a sigmoid", mse)(lambda step, p, t: step.right(np.asarray(sigmoid(p)), t))
regression.way("of predictions after tanh", mse)(lambda step, p, t: step.right(np.tanh(p), t))
regression.way("over the number of texts, less one", mse)(
    lambda step, p, t: step.right(p, t) * len(p) / max(len(p) - 1.0, 1.0)
)

one_of_two = mistake(
    OTHER_LOSSES,
    "one of two losses",
    does="of the losses of start and end one alone is taken, or they are put together otherwise",
    right="their mean",
)
one_of_two.way("the start's", average)(first)
one_of_two.way("the end's", average)(second)
one_of_two.way("their product", average)(lambda step, x, y: x * y)
one_of_two.way("the larger one", average)(lambda step, x, y: np.maximum(x, y))

# ------------------------------------------------------------------------------------------------------------ few bits

narrow_loss = mistake(
    OTHER_LOSSES,
    "loss in half precision",
    does="the loss is computed of rounded logits, or its numbers are rounded",
    right="float32 at least",
)


def rounded_to(dtype: str, *, logits_too: bool, each: bool, mean: bool) -> Change:
    """Logits, the loss of each label, and their mean rounded, or some of them."""

    def change(step: Step, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        losses, counts = of_labels(narrow(logits, dtype) if logits_too else logits, labels, ignore_index)
        losses = narrow(losses[counts], dtype) if each else losses[counts]
        return np.asarray(narrow(losses.mean(keepdims=True), dtype)[0] if mean else losses.mean())

    return change


for dtype in HALF:
    narrow_loss.way(f"logits in {dtype}", cross_entropy)(rounded_to(dtype, logits_too=True, each=False, mean=False))
    narrow_loss.way(f"logits and the loss of each label in {dtype}", cross_entropy)(
        rounded_to(dtype, logits_too=True, each=True, mean=False)
    )
    narrow_loss.way(f"the loss of each label in {dtype}", cross_entropy)(
        rounded_to(dtype, logits_too=False, each=True, mean=False)
    )
    narrow_loss.way(f"logits and loss in {dtype}", cross_entropy)(
        rounded_to(dtype, logits_too=True, each=True, mean=True)
    )
    narrow_loss.way(f"the loss in {dtype}", cross_entropy)(rounded_to(dtype, logits_too=False, each=False, mean=True))
