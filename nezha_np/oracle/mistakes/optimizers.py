"""Mistakes in the first half of an optimiser: its moments, their correction, ε.

A change is called as the stage in whose place it stands: ``change(step, name)``.
"""

from __future__ import annotations

import numpy as np

from nezha_np.oracle.bounded import Bounded, power
from nezha_np.oracle.mistakes.step_mistake import CORRECTED, StepMistake, step_mistake
from nezha_np.oracle.training_steps import Stage, StepNumbers, eps_under, make_update, mean

OF_OPTIMIZERS: list[StepMistake] = []

# -------------------------------------------------------------------------------------------------------------- moments

coupled = step_mistake(
    OF_OPTIMIZERS,
    "decay coupled into the gradient",
    does="λ x is added to the gradient (L2), so it enters the moments and is divided by √v̂",
    right="decoupled decay: λ x is added to the update",
)


def with_l2(step: StepNumbers, name: str) -> Bounded:
    """Give g + λ x."""
    decay = step.decay(name)
    return step.clipped[name] + step.weights[name] * decay if decay else step.clipped[name]


@coupled.way("in place of the decay", "first_moment")
@coupled.way("beside the decay", "first_moment")
def first_with_l2(step: StepNumbers, name: str) -> Bounded:
    """M of g + λ x."""
    return mean(step.first_before(name), with_l2(step, name), step.constant(step.recipe.beta1))


@coupled.way("in place of the decay", "second_moment")
@coupled.way("beside the decay", "second_moment")
def second_with_l2(step: StepNumbers, name: str) -> Bounded:
    """V of g + λ x."""
    g = with_l2(step, name)
    return mean(step.second_before(name), g * g, step.constant(step.recipe.beta2))


@coupled.way("in place of the decay", "update")
def update_without_decay(step: StepNumbers, name: str) -> Bounded:
    """No λ x."""
    return make_update(step, name, decay=0.0)


exchanged = step_mistake(
    OF_OPTIMIZERS,
    "betas exchanged",
    does="β₂ is taken for the gradients' mean and β₁ for that of their squares",
    right="β₁ for m and β₂ for v",
)


@exchanged.way("", "first_moment")
def first_by_beta2(step: StepNumbers, name: str) -> Bounded:
    """β₂ m + (1 − β₂) g."""
    return mean(step.first_before(name), step.clipped[name], step.constant(step.recipe.beta2))


@exchanged.way("", "second_moment")
def second_by_beta1(step: StepNumbers, name: str) -> Bounded:
    """β₁ v + (1 − β₁) g²."""
    g = step.clipped[name]
    return mean(step.second_before(name), g * g, step.constant(step.recipe.beta1))


summed = step_mistake(
    OF_OPTIMIZERS,
    "moments without 1 − β",
    does="the new part of a moment is not multiplied by 1 − β, as in SGD's momentum",
    right="β m + (1 − β) g",
)


@summed.way("", "first_moment")
@summed.way("of m alone", "first_moment")
def first_summed(step: StepNumbers, name: str) -> Bounded:
    """β₁ m + g."""
    before, g = step.first_before(name), step.clipped[name]
    return g if isinstance(before, float) else before * step.recipe.beta1 + g


@summed.way("", "second_moment")
def second_summed(step: StepNumbers, name: str) -> Bounded:
    """β₂ v + g²."""
    before, g = step.second_before(name), step.clipped[name]
    return g * g if isinstance(before, float) else before * step.recipe.beta2 + g * g


forgotten = step_mistake(
    OF_OPTIMIZERS,
    "moments not carried between steps",
    does="each step begins with moments of 0, as of an optimiser that is made anew",
    right="to go on with the moments of the step before",
)


@forgotten.way("and the count begins anew", "first_moment")
@forgotten.way("though the count goes on", "first_moment")
def first_anew(step: StepNumbers, name: str) -> Bounded:
    """(1 − β₁) g."""
    return mean(0.0, step.clipped[name], step.constant(step.recipe.beta1))


@forgotten.way("and the count begins anew", "second_moment")
@forgotten.way("though the count goes on", "second_moment")
def second_anew(step: StepNumbers, name: str) -> Bounded:
    """(1 − β₂) g²."""
    g = step.clipped[name]
    return mean(0.0, g * g, step.constant(step.recipe.beta2))


# ------------------------------------------------------------------------------------------------------ bias correction

uncorrected = step_mistake(
    OF_OPTIMIZERS,
    "bias correction missing",
    does="the moments are taken as they are",
    right="to divide them by 1 − βᵗ",
    optimizers=CORRECTED,
)


@uncorrected.way("of both", "update")
def no_correction(step: StepNumbers, name: str) -> Bounded:
    """M / (√v + ε)."""
    return make_update(step, name, first=False, second=False)


@uncorrected.way("of m", "update")
def second_corrected(step: StepNumbers, name: str) -> Bounded:
    """M / (√v̂ + ε)."""
    return make_update(step, name, first=False)


@uncorrected.way("of v", "update")
def first_corrected(step: StepNumbers, name: str) -> Bounded:
    """m̂ / (√v + ε)."""
    return make_update(step, name, second=False)


corrected = step_mistake(
    OF_OPTIMIZERS,
    "bias correction made",
    does="the moments are divided by 1 − βᵗ",
    right="to take them as they are, as BERT's authors do",
    optimizers=("bert_adam",),
)


@corrected.way("", "update")
def both_corrected(step: StepNumbers, name: str) -> Bounded:
    """m̂ / (√v̂ + ε)."""
    return make_update(step, name, first=True, second=True)


counted = step_mistake(
    OF_OPTIMIZERS,
    "wrong step count",
    does="the bias correction takes another t",
    right="to count steps of the optimiser from 1 on",
    optimizers=CORRECTED,
)


@counted.way("from 0", "update")
def one_behind(step: StepNumbers, name: str) -> Bounded:
    """T − 1, which divides by 0 at first."""
    return make_update(step, name, t=step.t - 1)


@counted.way("from 0", "step")
def count_from_zero(step: StepNumbers, name: str) -> Bounded:
    """T − 1."""
    return Bounded(np.array(step.t - 1.0), 0.0, step.unit)


@counted.way("from 2", "update")
def one_ahead(step: StepNumbers, name: str) -> Bounded:
    """T + 1."""
    return make_update(step, name, t=step.t + 1)


@counted.way("always 1", "update")
@forgotten.way("and the count begins anew", "update")
def always_first(step: StepNumbers, name: str) -> Bounded:
    """1."""
    return make_update(step, name, t=1)


@counted.way("of the parts of batches", "update")
def of_parts(step: StepNumbers, name: str) -> Bounded:
    """T times the parts of a batch."""
    parts = step.recipe.accumulation_steps
    if parts < 2:
        raise ValueError("nothing is accumulated")
    return make_update(step, name, t=step.t * parts)


miscounted = step_mistake(
    OF_OPTIMIZERS,
    "step count off by one",
    does="the count of steps is another, though the correction has the right one",
    right="how many steps were made, this one too",
)


@miscounted.way("one less", "step")
def counted_before(step: StepNumbers, name: str) -> Bounded:
    """T − 1."""
    return Bounded(np.array(step.t - 1.0), 0.0, step.unit)


@miscounted.way("one more", "step")
def counted_after(step: StepNumbers, name: str) -> Bounded:
    """T + 1."""
    return Bounded(np.array(step.t + 1.0), 0.0, step.unit)


# -------------------------------------------------------------------------------------------------------------------- ε

under = step_mistake(
    OF_OPTIMIZERS,
    "epsilon under the root",
    does="the denominator is √(v + ε)",
    right="√v + ε",
)


@under.way("", "update")
def update_eps_under(step: StepNumbers, name: str) -> Bounded:
    """√(v̂ + ε)."""
    return make_update(step, name, root=eps_under)


@under.way("before the correction", "update")
def eps_under_uncorrected(step: StepNumbers, name: str) -> Bounded:
    """√(v + ε) / √(1 − β₂ᵗ)."""
    if step.recipe.optimizer not in CORRECTED:
        raise ValueError("nothing is corrected")
    correction = (1.0 - power(step.recipe.beta2, step.t, step.unit)).sqrt()
    return make_update(step, name, second=False, root=lambda v, eps: (v + eps).sqrt() / correction)


before_correction = step_mistake(
    OF_OPTIMIZERS,
    "epsilon before the correction",
    does="ε is added to √v before its bias is corrected, as in TensorFlow's Adam",
    right="√(v / (1 − β₂ᵗ)) + ε",
    optimizers=CORRECTED,
)


@before_correction.way("", "update")
def update_of_tensorflow(step: StepNumbers, name: str) -> Bounded:
    """(√v + ε) / √(1 − β₂ᵗ)."""
    correction = (1.0 - power(step.recipe.beta2, step.t, step.unit)).sqrt()
    return make_update(step, name, second=False, root=lambda v, eps: (v.sqrt() + eps) / correction)


another_eps = step_mistake(
    OF_OPTIMIZERS,
    "another epsilon of the optimiser",
    does="ε is another: PyTorch's Adam has 1e-8, BERT's and LAMB 1e-6, Keras's 1e-7",
    right="that of the recipe",
)


def update_with_eps(eps: float) -> Stage:
    """An update with another ε."""

    def update(step: StepNumbers, name: str) -> Bounded:
        if step.recipe.eps == eps:
            raise ValueError("it is that of the recipe")
        return make_update(step, name, eps=eps)

    return update


for value in (1e-8, 1e-7, 1e-6, 0.0):
    another_eps.ways[f"{value:g}"] = {"update": update_with_eps(value)}
