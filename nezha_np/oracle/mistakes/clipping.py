"""Mistakes of clipping: the norm of the gradients, and what is made shorter by it.

A change is called as the stage in whose place it stands: ``change(step, name)``.
"""

from __future__ import annotations

import numpy as np

from nezha_np.oracle.bounded import Bounded, norm_of_all
from nezha_np.oracle.mistakes.step_mistake import TIED, StepMistake, step_mistake
from nezha_np.oracle.training_steps import StepNumbers, clipped_by, mean, moved, right_norm

OF_CLIPPING: list[StepMistake] = []

not_clipped = step_mistake(
    OF_CLIPPING,
    "gradients not clipped",
    does="the moments are made of the gradients as they are",
    right="to clip them by their global norm before the step",
)
clipped_late = step_mistake(
    OF_CLIPPING,
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
    OF_CLIPPING,
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
    OF_CLIPPING,
    "clipped by tensor",
    does="each gradient is shortened by its own norm",
    right="all by one factor, from the norm of all together",
)


@by_tensor.way("", "clipped")
def clipped_by_own_norm(step: StepNumbers, name: str) -> Bounded:
    """G c / max(‖g‖, c) with the tensor's own norm."""
    return clipped_by(step, step.gradients[name], step.gradients[name].norm())


by_value = step_mistake(
    OF_CLIPPING,
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
    OF_CLIPPING,
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
    OF_CLIPPING,
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
    OF_CLIPPING,
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
    OF_CLIPPING,
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


largest = step_mistake(
    OF_CLIPPING,
    "largest gradient taken for the norm",
    does="the norm of the gradients is the largest of their numbers (norm_type=inf)",
    right="the root of the sum of their squares",
)


@largest.way("", "norm")
def largest_number(step: StepNumbers, name: str) -> Bounded:
    """Max |g|."""
    most = [(np.abs(g.value).max(), np.max(g.error + np.zeros_like(g.value))) for g in step.gradients.values()]
    return Bounded(np.asarray(max(value for value, _ in most)), max(error for _, error in most), step.unit)


tied_twice = step_mistake(
    OF_CLIPPING,
    "tied matrix twice in the norm",
    does="the gradient of the word embeddings is in the norm twice, under each of the matrix's names",
    right="each tensor once",
)


@tied_twice.way("", "norm")
def norm_with_tied_twice(step: StepNumbers, name: str) -> Bounded:
    """√(‖g‖² + ‖g of the word embeddings‖²)."""
    return norm_of_all([*(step.gradients[key] for key in sorted(step.gradients)), step.gradients[TIED]])
