"""Mistakes in the second half of an optimiser: the decay, the trust ratio, the learning rate.

A change is called as the stage in whose place it stands: ``change(step, name)``.
"""

from __future__ import annotations

import numpy as np

from nezha_np.oracle.bounded import Bounded, norm_of_all
from nezha_np.oracle.mistakes.optimizers import update_without_decay
from nezha_np.oracle.mistakes.step_mistake import TIED, StepMistake, step_mistake
from nezha_np.oracle.rounding import ARITHMETICS, rounded
from nezha_np.oracle.training_steps import (
    Stage,
    StepNumbers,
    make_update,
    moved,
    nezha_ratio,
    paper_ratio,
    ratio,
    right_ratio,
    right_weights,
)

OF_UPDATES: list[StepMistake] = []
LAMB = ("lamb",)

# --------------------------------------------------------------------------------------------------------- weight decay

everywhere = step_mistake(
    OF_UPDATES,
    "decay on norms and biases",
    does="tensors are decayed that should not be",
    right="to decay neither norms nor biases",
)


def is_bias(name: str) -> bool:
    """Whether a tensor is a bias."""
    return name.endswith("bias")


@everywhere.way("all tensors", "update")
def all_decayed(step: StepNumbers, name: str) -> Bounded:
    """λ for every tensor."""
    return make_update(step, name, decay=step.recipe.weight_decay)


@everywhere.way("norms' weights", "update")
def norms_decayed(step: StepNumbers, name: str) -> Bounded:
    """λ for all but biases."""
    return make_update(step, name, decay=0.0 if is_bias(name) else step.recipe.weight_decay)


@everywhere.way("biases of linear layers", "update")
def biases_decayed(step: StepNumbers, name: str) -> Bounded:
    """λ for all but norms."""
    return make_update(step, name, decay=0.0 if "LayerNorm" in name else step.recipe.weight_decay)


undecayed = step_mistake(
    OF_UPDATES,
    "weight decay missing",
    does="no tensor is decayed",
    right="to decay matrices by λ x",
)
undecayed.way("", "update")(update_without_decay)


@undecayed.way("of the embeddings", "update")
def embeddings_not_decayed(step: StepNumbers, name: str) -> Bounded:
    """No λ x of embeddings."""
    return make_update(step, name, decay=0.0 if name.startswith("embeddings.") else None)


late_decay = step_mistake(
    OF_UPDATES,
    "decay after the update",
    does="the new weights are decayed, (x − η r)(1 − η λ)",
    right="to decay the weights before the step: x − η r − η λ x",
    optimizers=("adamw", "bert_adam"),
)
late_decay.way("", "update")(update_without_decay)


@late_decay.way("", "weights")
def decayed_late(step: StepNumbers, name: str) -> Bounded:
    """(X − η r)(1 − η λ)."""
    decay = step.decay(name)
    without = moved(step, name, make_update(step, name, decay=0.0))
    return without - without * decay * step.learning_rate if decay else without


unscaled_decay = step_mistake(
    OF_UPDATES,
    "decay without the learning rate",
    does="λ x is subtracted as it is",
    right="η λ x: the decay is a part of the update",
)


@unscaled_decay.way("", "weights")
def decayed_whole(step: StepNumbers, name: str) -> Bounded:
    """X − η ρ r − λ x."""
    decay = step.decay(name)
    without = moved(step, name, make_update(step, name, decay=0.0))
    return without - step.weights[name] * decay if decay else without


unscaled_decay.way("", "update")(update_without_decay)

outside_ratio = step_mistake(
    OF_UPDATES,
    "decay outside of the trust ratio",
    does="the decay is subtracted without the trust ratio",
    right="ρ (r + λ x)",
    optimizers=LAMB,
)


@outside_ratio.way("", "weights")
@outside_ratio.way("with the ratio of the update alone", "weights")
def decayed_outside(step: StepNumbers, name: str) -> Bounded:
    """X − η (ρ r + λ x)."""
    decay = step.decay(name)
    without = moved(step, name, make_update(step, name, decay=0.0))
    return without - step.weights[name] * decay * step.learning_rate if decay else without


# ---------------------------------------------------------------------------------------------------------- trust ratio

of_all = step_mistake(
    OF_UPDATES,
    "trust ratio of all parameters",
    does="one trust ratio is made of all tensors together",
    right="one for each tensor",
    optimizers=LAMB,
)


@of_all.way("", "trust_ratio")
def ratio_of_all(step: StepNumbers, name: str) -> Bounded:
    """‖x‖ / ‖u‖ of all tensors."""
    lengths = norm_of_all(step.weights[key] for key in step.updates)
    found = ratio(lengths, norm_of_all(step.updates.values()))
    return found.at_most(10.0) if step.recipe.variant == "nezha" else found


no_ratio = step_mistake(
    OF_UPDATES,
    "trust ratio missing",
    does="ρ is 1",
    right="‖x‖ / ‖u‖ for each tensor",
    optimizers=LAMB,
)


@no_ratio.way("", "trust_ratio")
def ratio_one(step: StepNumbers, name: str) -> Bounded:
    """1."""
    return Bounded(np.ones(()), 0.0, step.unit)


inverted = step_mistake(
    OF_UPDATES,
    "trust ratio inverted",
    does="ρ is ‖u‖ / ‖x‖",
    right="‖x‖ / ‖u‖",
    optimizers=LAMB,
)


@inverted.way("", "trust_ratio")
def ratio_inverted(step: StepNumbers, name: str) -> Bounded:
    """1 / ρ."""
    return Bounded(np.ones(()), 0.0, step.unit) / right_ratio(step, name)


without_decay = step_mistake(
    OF_UPDATES,
    "trust ratio of the update without decay",
    does="the ratio's denominator lacks λ x",
    right="‖r + λ x‖",
    optimizers=LAMB,
)


@without_decay.way("", "trust_ratio")
@outside_ratio.way("with the ratio of the update alone", "trust_ratio")
def ratio_without_decay(step: StepNumbers, name: str) -> Bounded:
    """‖x‖ / ‖r‖."""
    if step.recipe.variant == "nezha":
        return nezha_ratio(step, name, decay=0.0)
    return ratio(step.weights[name].norm(), make_update(step, name, decay=0.0).norm())


unclipped = step_mistake(
    OF_UPDATES,
    "trust ratio not clipped",
    does="the trust ratio may be larger than 10",
    right="10 at most, as NEZHA's authors have it",
    optimizers=LAMB,
    variant="nezha",
)


@unclipped.way("", "trust_ratio")
def ratio_without_limit(step: StepNumbers, name: str) -> Bounded:
    """Larger than 10 too."""
    return nezha_ratio(step, name, most=np.inf)


clipped_ratio = step_mistake(
    OF_UPDATES,
    "trust ratio clipped",
    does="the trust ratio is at most 10",
    right="the paper's, which has no limit",
    optimizers=LAMB,
    variant="paper",
)


@clipped_ratio.way("", "trust_ratio")
def ratio_up_to_ten(step: StepNumbers, name: str) -> Bounded:
    """At most 10."""
    return paper_ratio(step, name).at_most(10.0)


zero_ratio = step_mistake(
    OF_UPDATES,
    "trust ratio 0 of a tensor of zeros",
    does="ρ is ‖x‖ / ‖u‖ where x is 0 too, so a bias that begins at 0 stays there",
    right="1 where one of the norms is 0",
    optimizers=LAMB,
)


@zero_ratio.way("", "trust_ratio")
def ratio_of_zeros(step: StepNumbers, name: str) -> Bounded:
    """0 where x is 0."""
    x = step.weights[name].norm()
    return x if x.value == 0.0 else right_ratio(step, name)


other_variant = step_mistake(
    OF_UPDATES,
    "trust ratio of the other variant",
    does="the trust ratio is the paper's where that of NEZHA's authors is meant, or the other way",
    right="that of the recipe's variant",
    optimizers=LAMB,
)


@other_variant.way("", "trust_ratio")
def ratio_of_the_other(step: StepNumbers, name: str) -> Bounded:
    """The other variant's."""
    return nezha_ratio(step, name) if step.recipe.variant == "paper" else paper_ratio(step, name)


as_update = step_mistake(
    OF_UPDATES,
    "trust ratio's decay as the update's",
    does="norms and biases have no decay in the trust ratio either",
    right="decay of every tensor in the ratio, as NEZHA's authors have it",
    optimizers=LAMB,
    variant="nezha",
)


@as_update.way("", "trust_ratio")
def ratio_with_own_decay(step: StepNumbers, name: str) -> Bounded:
    """λ x for those alone that are decayed."""
    return nezha_ratio(step, name, decay=step.decay(name))


# -------------------------------------------------------------------------------------------------- learning rate, sign

off_by_one = step_mistake(
    OF_UPDATES,
    "learning rate off by one step",
    does="a step has the learning rate of the next one, or of the one before",
    right="the rate of how many steps were made before it",
)


@off_by_one.way("the next", "learning_rate")
def next_rate(step: StepNumbers, name: str) -> Bounded:
    """η of the next step."""
    return step.constant(step.recipe.learning_rates[step.t])


@off_by_one.way("the one before", "learning_rate")
def rate_before(step: StepNumbers, name: str) -> Bounded:
    """η of the step before; of the first its own."""
    return step.constant(step.recipe.learning_rates[max(step.t - 2, 0)])


fixed = step_mistake(
    OF_UPDATES,
    "learning rate without its schedule",
    does="every step has the largest learning rate",
    right="the rate of the schedule",
)


@fixed.way("", "learning_rate")
def largest_rate(step: StepNumbers, name: str) -> Bounded:
    """The largest η."""
    return step.constant(max(step.recipe.learning_rates))


uphill = step_mistake(
    OF_UPDATES,
    "step of another sign",
    does="the update is added",
    right="to subtract it",
)


@uphill.way("", "weights")
def added(step: StepNumbers, name: str) -> Bounded:
    """X + η ρ u."""
    return step.weights[name] * 2.0 - moved(step, name, step.updates[name])


# ---------------------------------------------------------------------------------------------------------- the weights

stepped_twice = step_mistake(
    OF_UPDATES,
    "tied matrix stepped twice",
    does="the word embeddings are moved twice, under each of the matrix's names",
    right="to move each tensor once",
)


@stepped_twice.way("", "weights")
def tied_moved_twice(step: StepNumbers, name: str) -> Bounded:
    """X − 2 η ρ u of the word embeddings."""
    return moved(step, name, step.updates[name] * 2.0 if name == TIED else step.updates[name])


frozen = step_mistake(
    OF_UPDATES,
    "embeddings not trained",
    does="embeddings keep their weights",
    right="to move them like all other tensors",
)


@frozen.way("the word embeddings", "weights")
def words_kept(step: StepNumbers, name: str) -> Bounded:
    """X, rounded."""
    return step.weights[name] * 1.0 if name == TIED else right_weights(step, name)


@frozen.way("all embeddings", "weights")
def embeddings_kept(step: StepNumbers, name: str) -> Bounded:
    """X, rounded."""
    return step.weights[name] * 1.0 if name.startswith("embeddings.") else right_weights(step, name)


in_half = step_mistake(
    OF_UPDATES,
    "weights kept in half precision",
    does="the new weights are rounded, so that small updates are lost",
    right="to keep them in float32, and to round a copy for the pass",
)


def rounded_weights(dtype: str) -> Stage:
    """New weights in a narrower dtype."""

    def weights(step: StepNumbers, name: str) -> Bounded:
        new = right_weights(step, name)
        made, below, above = (
            rounded(np.asarray(new.value + off, np.float64), ARITHMETICS[dtype]) for off in (0.0, -new.error, new.error)
        )
        return Bounded(made, np.maximum(above - made, made - below), new.unit)

    return weights


for dtype in ("float16", "bfloat16"):
    in_half.ways[dtype] = {"weights": rounded_weights(dtype)}
