"""Mistakes before the optimiser: gradients of a step, their accumulation, the loss scale, dropout masks.

In place of the stage ``gradients`` a change takes the step alone, ``change(step)``, and returns loss and gradients.
"""

from __future__ import annotations

from typing import Any

from nezha_np.oracle.bounded import Bounded
from nezha_np.oracle.mistakes.step_mistake import StepMistake, step_mistake
from nezha_np.oracle.training_steps import Numbers, StepNumbers, clipped_by, right_norm

OF_TRAINING: list[StepMistake] = []
LossAndGradients = tuple[Bounded, Numbers]


def scaled(gradients: Numbers, factor: float) -> Numbers:
    """Multiply all gradients by a number."""
    return {name: gradient * factor for name, gradient in gradients.items()}


# --------------------------------------------------------------------------------------------------------- accumulation

averaged = step_mistake(
    OF_TRAINING,
    "accumulated loss averaged by parts",
    does="each part of a batch, or each text, counts as much as any other",
    right="the mean over all labels of the batch: a part counts by how many labels it has",
)


@averaged.way("mean of the parts' means", "gradients")
def mean_over_parts(step: StepNumbers) -> LossAndGradients:
    """Σ gᵢ / k."""
    if step.recipe.accumulation_steps < 2:
        raise ValueError("nothing is accumulated")
    return step.walk(step, averaged="over parts")


@averaged.way("mean over texts", "gradients")
def mean_over_texts(step: StepNumbers) -> LossAndGradients:
    """The mean of each text's mean."""
    if step.recipe.dropout_seed is not None:
        raise ValueError("texts alone have other dropout masks")
    return step.walk(step, parts="texts", averaged="over parts")


over_tokens = step_mistake(
    OF_TRAINING,
    "loss averaged over all tokens",
    does="the sum over the tokens that have a label is divided by the number of all tokens",
    right="the mean over the tokens that have a label",
)


@over_tokens.way("padding too", "gradients")
def mean_over_tokens(step: StepNumbers) -> LossAndGradients:
    """Σ / (B L)."""
    return step.walk(step, averaged="over tokens")


@over_tokens.way("without padding", "gradients")
def mean_over_attended(step: StepNumbers) -> LossAndGradients:
    """Σ / Σ mask."""
    return step.walk(step, averaged="over attended tokens")


not_divided = step_mistake(
    OF_TRAINING,
    "accumulated gradients summed",
    does="the gradients of the parts' own means are added up",
    right="to weigh each part by its labels, so that the sum is the gradient of the batch's mean",
)


@not_divided.way("", "gradients")
def summed_over_parts(step: StepNumbers) -> LossAndGradients:
    """Σ gᵢ."""
    if step.recipe.accumulation_steps < 2:
        raise ValueError("nothing is accumulated")
    return step.walk(step, averaged="summed")


one_part = step_mistake(
    OF_TRAINING,
    "gradients of one part alone",
    does="the gradients of one part are those of the step: the others are overwritten",
    right="the sum over all parts",
)


@one_part.way("the last", "gradients")
def last_part(step: StepNumbers) -> LossAndGradients:
    """Those of the last part, as a batch of its own."""
    return step.walk(step, parts="last")


@one_part.way("the first", "gradients")
def first_part(step: StepNumbers) -> LossAndGradients:
    """Those of the first part, as a batch of its own."""
    return step.walk(step, parts="first")


@one_part.way("the last, by its share", "gradients")
def share_of_last(step: StepNumbers) -> LossAndGradients:
    """Its share in the sum, without the others'."""
    return step.walk(step)[0], step.walk(step, parts="last", averaged="over all labels")[1]


@one_part.way("the first, by its share", "gradients")
def share_of_first(step: StepNumbers) -> LossAndGradients:
    """Its share in the sum, without the others'."""
    return step.walk(step)[0], step.walk(step, parts="first", averaged="over all labels")[1]


kept = step_mistake(
    OF_TRAINING,
    "gradients not set to zero",
    does="the gradients of the steps before are still in those of this one",
    right="to begin each step with none",
)


@kept.way("those that were clipped", "gradients")
def with_clipped_before(step: StepNumbers) -> LossAndGradients:
    """G and the clipped ones before it, where clipping writes into the gradients themselves."""
    loss, gradients = step.walk(step)
    if step.before is None:
        return loss, gradients
    return loss, {name: gradient + step.before.clipped[name] for name, gradient in gradients.items()}


@kept.way("", "gradients")
def with_those_before(step: StepNumbers) -> LossAndGradients:
    """G and all before it."""
    loss, gradients = step.walk(step)
    if step.before is None:
        return loss, gradients
    return loss, {name: gradient + step.before.gradients[name] for name, gradient in gradients.items()}


stale = step_mistake(
    OF_TRAINING,
    "gradients at old weights",
    does="the pass runs on weights of an earlier step: a copy in half precision that was not made anew",
    right="the weights that the step before made",
)


@stale.way("one step behind", "gradients")
def at_weights_before(step: StepNumbers) -> LossAndGradients:
    """Those at the weights before the step before."""
    return step.walk(step, weights=step.weights if step.before is None else step.before.weights)


@stale.way("those of the beginning", "gradients")
def at_first_weights(step: StepNumbers) -> LossAndGradients:
    """Those at the first weights."""
    first = step
    while first.before is not None:
        first = first.before
    return step.walk(step, weights=first.weights)


# ---------------------------------------------------------------------------------------------- loss scale and dropout

scale_left = step_mistake(
    OF_TRAINING,
    "loss scale not divided out",
    does="the gradients are those of the scaled loss",
    right="to divide them by the loss scale before they are clipped",
)


@scale_left.way("", "gradients")
def times_scale(step: StepNumbers) -> LossAndGradients:
    """S g."""
    loss, gradients = step.walk(step)
    return loss, scaled(gradients, _scale(step))


@scale_left.way("before they are clipped", "norm")
def norm_of_scaled(step: StepNumbers, name: str) -> Bounded:
    """‖s g‖."""
    return right_norm(step, name) * _scale(step)


@scale_left.way("before they are clipped", "clipped")
def clipped_scaled(step: StepNumbers, name: str) -> Bounded:
    """S g, clipped, and then divided by s."""
    return clipped_by(step, step.gradients[name] * _scale(step), step.norm) / _scale(step)


@scale_left.way("twice", "gradients")
def divided_twice(step: StepNumbers) -> LossAndGradients:
    """G / s."""
    loss, gradients = step.walk(step)
    return loss, scaled(gradients, 1.0 / _scale(step))


def _scale(step: StepNumbers) -> float:
    if step.recipe.loss_scale == 1.0:
        raise ValueError("the loss is not scaled")
    return step.recipe.loss_scale


other_masks = step_mistake(
    OF_TRAINING,
    "dropout mask of another step",
    does="dropout is that of another step, or is missing",
    right="masks by seed, number of steps made before, part and name of the layer",
)


def _masks(step: StepNumbers, masks_of: Any) -> LossAndGradients:
    if step.recipe.dropout_seed is None:
        raise ValueError("there is no dropout")
    return step.walk(step, masks_of=masks_of)


@other_masks.way("of the next", "gradients")
def masks_of_the_next(step: StepNumbers) -> LossAndGradients:
    """Those of the next step: counted from 1."""
    return _masks(step, lambda number: number + 1)


@other_masks.way("of the one before", "gradients")
def masks_of_the_one_before(step: StepNumbers) -> LossAndGradients:
    """Those of the step before."""
    return _masks(step, lambda number: max(number - 1, 0))


@other_masks.way("of the first, always", "gradients")
def masks_of_the_first(step: StepNumbers) -> LossAndGradients:
    """Those of the first step."""
    return _masks(step, lambda number: 0)


@other_masks.way("none", "gradients")
def no_masks(step: StepNumbers) -> LossAndGradients:
    """No dropout."""
    return _masks(step, lambda number: None)


@other_masks.way("the same for every part", "gradients")
def masks_of_the_first_part(step: StepNumbers) -> LossAndGradients:
    """Those of the first part for all parts."""
    if step.recipe.dropout_seed is None or step.recipe.accumulation_steps < 2:
        raise ValueError("there is no dropout, or one part")
    return step.walk(step, same_masks=True)
