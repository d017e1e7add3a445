"""Mistakes before the optimiser: gradients of a step, their accumulation, the loss scale, dropout masks, clipping.

In place of the stage ``gradients`` a change takes the step alone, ``change(step)``, and returns loss and gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nezha_np.oracle.bounded import Bounded, norm_of_all
from nezha_np.oracle.mistakes.step_mistake import StepMistake, step_mistake
from nezha_np.oracle.training_steps import Numbers, StepNumbers, clipped_by, mean, moved, right_norm

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


kept = step_mistake(
    OF_TRAINING,
    "gradients not set to zero",
    does="the gradients of the steps before are still in those of this one",
    right="to begin each step with none",
)


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


# ------------------------------------------------------------------------------------------------------------- clipping

not_clipped = step_mistake(
    OF_TRAINING,
    "gradients not clipped",
    does="the moments are made of the gradients as they are",
    right="to clip them by their global norm before the step",
)
clipped_late = step_mistake(
    OF_TRAINING,
    "clipped after the step",
    does="gradients are clipped when the step has used them",
    right="to clip them before the step",
)


@not_clipped.way("", "clipped")
@clipped_late.way("", "clipped")
def unclipped(step: StepNumbers, name: str) -> Bounded:
    """G."""
    return step.gradients[name]


@not_clipped.way("though it is computed", "first_moment")
@clipped_late.way("though it is computed", "first_moment")
def first_of_unclipped(step: StepNumbers, name: str) -> Bounded:
    """M of g."""
    return mean(step.first_before(name), step.gradients[name], step.constant(step.recipe.beta1))


@not_clipped.way("though it is computed", "second_moment")
@clipped_late.way("though it is computed", "second_moment")
def second_of_unclipped(step: StepNumbers, name: str) -> Bounded:
    """V of g."""
    g = step.gradients[name]
    return mean(step.second_before(name), g * g, step.constant(step.recipe.beta2))


of_the_update = step_mistake(
    OF_TRAINING,
    "update clipped in place of the gradients",
    does="the update is shortened to the largest norm, each tensor or all together",
    right="to clip the gradients before the moments are made",
)


@of_the_update.way("all together", "clipped")
@of_the_update.way("each tensor", "clipped")
def gradient_as_it_is(step: StepNumbers, name: str) -> Bounded:
    """G."""
    return step.gradients[name]


@of_the_update.way("all together", "weights")
def all_updates_clipped(step: StepNumbers, name: str) -> Bounded:
    """X − η ρ u c / max(‖u‖, c) of all tensors."""
    return moved(step, name, clipped_by(step, step.updates[name], norm_of_all(step.updates.values())))


@of_the_update.way("each tensor", "weights")
def each_update_clipped(step: StepNumbers, name: str) -> Bounded:
    """X − η ρ u c / max(‖u‖, c) of the tensor."""
    return moved(step, name, clipped_by(step, step.updates[name], step.updates[name].norm()))


by_tensor = step_mistake(
    OF_TRAINING,
    "clipped by tensor",
    does="each gradient is shortened by its own norm",
    right="all by one factor, from the norm of all together",
)


@by_tensor.way("", "clipped")
def clipped_by_own_norm(step: StepNumbers, name: str) -> Bounded:
    """G c / max(‖g‖, c) with the tensor's own norm."""
    return clipped_by(step, step.gradients[name], step.gradients[name].norm())


by_value = step_mistake(
    OF_TRAINING,
    "clipped by value",
    does="each element is cut to −c … c",
    right="to shorten all by one factor, which keeps the direction",
)


@by_value.way("", "clipped")
def clipped_elements(step: StepNumbers, name: str) -> Bounded:
    """Each element from −c to c."""
    g, most = step.gradients[name], step.recipe.clip_norm
    return Bounded(np.clip(g.value, -most, most), g.error, g.unit)


always = step_mistake(
    OF_TRAINING,
    "gradients always scaled to the norm",
    does="gradients are divided by their norm where it is smaller than c too",
    right="to leave them as they are there",
)


@always.way("", "clipped")
def normalised(step: StepNumbers, name: str) -> Bounded:
    """G c / ‖g‖."""
    norm: Bounded = step.norm
    return step.gradients[name] * (step.constant(step.recipe.clip_norm) / norm)


with_eps = step_mistake(
    OF_TRAINING,
    "clipping with an epsilon",
    does="the gradients are multiplied by c / (‖g‖ + 1e-6), as in torch.nn.utils.clip_grad_norm_",
    right="c / ‖g‖; in float32 this is taken for a rounding",
)


@with_eps.way("", "clipped")
def clipped_as_torch(step: StepNumbers, name: str) -> Bounded:
    """G min(1, c / (‖g‖ + 1e-6))."""
    norm: Bounded = step.norm
    factor = (step.constant(step.recipe.clip_norm) / (norm + 1e-6)).at_most(1.0)
    return step.gradients[name] * factor


squared = step_mistake(
    OF_TRAINING,
    "norm without its root",
    does="the norm of the gradients is the sum of their squares",
    right="its square root",
)


@squared.way("", "norm")
def sum_of_squares(step: StepNumbers, name: str) -> Bounded:
    """‖g‖²."""
    norm = right_norm(step, name)
    return norm * norm


of_norms = step_mistake(
    OF_TRAINING,
    "norms added up",
    does="the norm of all gradients is the sum of the tensors' norms",
    right="the root of the sum of their squares",
)


@of_norms.way("", "norm")
def sum_of_norms(step: StepNumbers, name: str) -> Bounded:
    """Σ ‖gᵢ‖."""
    norms = [step.gradients[key].norm() for key in sorted(step.gradients)]
    total = norms[0]
    for norm in norms[1:]:
        total = total + norm
    return total
