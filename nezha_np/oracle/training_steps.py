"""Training steps stage by stage: what a bundle records of them, and what the doctor computes again from their numbers.

Step t, from 1 on, makes in this order, by the recipe of the bundle:

    loss            of the batch
    gradients       of the weights, after accumulation and without the loss scale
    norm            ‖g‖ of all gradients together
    clipped         g · c / max(‖g‖, c)
    learning_rate   η of this step
    first_moment    m = β₁ m + (1 − β₁) g
    second_moment   v = β₂ v + (1 − β₂) g²
    update          u = m̂ / (√v̂ + ε) + λ x
    trust_ratio     ρ, of LAMB
    weights         x − η ρ u
    step            t

Those of a tensor are `steps/t/STAGE/NAME`. Each is a function of what stands before it, so a mistake is another
function in its place. All run on `Bounded` numbers: each result says how far another implementation's may be from it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nezha_np.oracle.bounded import SINGLE, Bounded, constant, norm_of_all, power
from nezha_np.oracle.recipe import Recipe
from nezha_np.training.optimizers.lamb import LARGEST_RATIO

TORCH_EPSILON = 1e-6  # what torch.nn.utils.clip_grad_norm_ adds to the norm; in float32 it is taken for a rounding
EXACT = 1e-30  # a bound that comes from the smallest numbers of a dtype alone
Numbers = dict[str, Bounded]
# What `StepNumbers.walk` computes: loss and gradients of the step's batch, the right ones or others.
Walk = Callable[..., tuple[Bounded, Numbers]]


@dataclasses.dataclass(eq=False)
class StepNumbers:
    """All numbers of one step, filled in stage by stage.

    Attributes
    ----------
    recipe : Recipe
        The recipe.
    t : int
        The number of the step, from 1 on.
    weights : dict of str to Bounded
        x of every tensor before the step.
    before : StepNumbers or None
        The step before.
    walk : callable
        ``walk(numbers, **options)``: loss and gradients, as `nezha_np.oracle.step_passes` makes them.
    loss, norm, learning_rate : Bounded
        As the stages of these names.
    gradients, clipped, first, second, updates, ratios, new : dict of str to Bounded
        As the stages, by tensor.
    """

    recipe: Recipe
    t: int
    weights: Numbers
    before: StepNumbers | None
    walk: Walk
    unit: float
    loss: Bounded | None = None
    norm: Any = None
    learning_rate: Any = None
    step: Any = None
    gradients: Numbers = dataclasses.field(default_factory=dict)
    clipped: Numbers = dataclasses.field(default_factory=dict)
    first: Numbers = dataclasses.field(default_factory=dict)
    second: Numbers = dataclasses.field(default_factory=dict)
    updates: Numbers = dataclasses.field(default_factory=dict)
    ratios: Numbers = dataclasses.field(default_factory=dict)
    new: Numbers = dataclasses.field(default_factory=dict)

    def constant(self, number: float) -> Bounded:
        """Give a number of the recipe."""
        return constant(number, self.unit)

    def first_before(self, name: str) -> Bounded | float:
        """Return m before the step, 0 before the first."""
        return 0.0 if self.before is None else self.before.first[name]

    def second_before(self, name: str) -> Bounded | float:
        """Return v before the step, 0 before the first."""
        return 0.0 if self.before is None else self.before.second[name]

    def decay(self, name: str) -> float:
        """Return λ, 0 for a tensor that is not decayed."""
        return self.recipe.weight_decay if name in self.recipe.decayed else 0.0


Stage = Callable[[StepNumbers, str], Bounded]
StageChanges = Mapping[str, Callable[..., Any]]


def right_norm(step: StepNumbers, name: str = "") -> Bounded:
    """‖g‖ of all gradients together."""
    return norm_of_all(step.gradients[key] for key in sorted(step.gradients))


def right_clipped(step: StepNumbers, name: str) -> Bounded:
    """g · c / max(‖g‖, c)."""
    return clipped_by(step, step.gradients[name], step.norm)


def clipped_by(step: StepNumbers, g: Bounded, norm: Bounded) -> Bounded:
    """Shorten an array where a norm is larger than the recipe's."""
    most = step.recipe.clip_norm
    if norm.value + norm.error < most:
        return g
    factor = (step.constant(most) / norm).at_most(1.0)
    if step.unit >= SINGLE:  # PyTorch divides by ‖g‖ + 1e-6
        factor = Bounded(factor.value, factor.error + TORCH_EPSILON / norm.value * factor.value, step.unit)
    return g * factor if norm.value > most else Bounded(g.value, (g * factor).error, g.unit)


def right_rate(step: StepNumbers, name: str = "") -> Bounded:
    """η of this step."""
    return step.constant(step.recipe.learning_rates[step.t - 1])


def right_first(step: StepNumbers, name: str) -> Bounded:
    """β₁ m + (1 − β₁) g."""
    return mean(step.first_before(name), step.clipped[name], step.constant(step.recipe.beta1))


def right_second(step: StepNumbers, name: str) -> Bounded:
    """β₂ v + (1 − β₂) g²."""
    g = step.clipped[name]
    return mean(step.second_before(name), g * g, step.constant(step.recipe.beta2))


def mean(before: Bounded | float, new: Bounded, beta: Bounded) -> Bounded:
    """Give the moving mean β a + (1 − β) b."""
    part = new * (1.0 - beta)
    return part if isinstance(before, float) else before * beta + part


def correct(step: StepNumbers, moment: Bounded, beta: float, t: int) -> Bounded:
    """Divide a moment by 1 − βᵗ."""
    return moment / (1.0 - power(beta, t, step.unit))


def eps_outside(v: Bounded, eps: Bounded) -> Bounded:
    """√v + ε."""
    return v.sqrt() + eps


def eps_under(v: Bounded, eps: Bounded) -> Bounded:
    """√(v + ε)."""
    return (v + eps).sqrt()


def make_update(
    step: StepNumbers,
    name: str,
    *,
    first: bool | None = None,
    second: bool | None = None,
    t: int | None = None,
    root: Callable[[Bounded, Bounded], Bounded] = eps_outside,
    eps: float | None = None,
    decay: float | None = None,
) -> Bounded:
    """Give u = m̂ / (√v̂ + ε) + λ x, or one of its neighbours.

    Parameters
    ----------
    step : StepNumbers
        The step.
    name : str
        The tensor.
    first, second : bool, optional
        Whether m and v are corrected; None: as the optimiser does.
    t : int, optional
        The number of the step for the correction.
    root : callable
        Makes the denominator of v̂ and ε.
    eps, decay : float, optional
        ε and λ.
    """
    recipe = step.recipe
    corrects, t = recipe.optimizer != "bert_adam", step.t if t is None else t
    m, v = step.first[name], step.second[name]
    if corrects if first is None else first:
        m = correct(step, m, recipe.beta1, t)
    if corrects if second is None else second:
        v = correct(step, v, recipe.beta2, t)
    u = m / root(v, step.constant(recipe.eps if eps is None else eps))
    if first is None and second is None and t == step.t:
        u = u.of_size(largest_part(step))
    decay = step.decay(name) if decay is None else decay
    return u + step.weights[name] * decay if decay else u


def largest_part(step: StepNumbers) -> float:
    """Return the most that |m̂| / √v̂ can be, whatever the gradients were.

    m = Σ aᵢ gᵢ and v = Σ bᵢ gᵢ², so m² ≤ v Σ aᵢ² / bᵢ (Cauchy–Schwarz). Of an element whose gradient is 0 but for
    roundings, nothing else is known.
    """
    recipe = step.recipe
    of_first, of_second = ([(1.0 - beta) * beta**k for k in range(step.t)] for beta in (recipe.beta1, recipe.beta2))
    if not all(of_second):
        return math.inf
    most = math.sqrt(sum(a * a / b for a, b in zip(of_first, of_second, strict=True)))
    if recipe.optimizer != "bert_adam":
        most *= math.sqrt(1.0 - recipe.beta2**step.t) / (1.0 - recipe.beta1**step.t)
    return float(most * (1.0 + step.constant(recipe.beta2).error / (1.0 - recipe.beta2)))


def right_update(step: StepNumbers, name: str) -> Bounded:
    """m̂ / (√v̂ + ε) + λ x."""
    return make_update(step, name)


def right_ratio(step: StepNumbers, name: str) -> Bounded:
    """ρ of LAMB: ‖x‖ / ‖u‖, or that of NEZHA's authors."""
    return paper_ratio(step, name) if step.recipe.variant == "paper" else nezha_ratio(step, name)


def paper_ratio(step: StepNumbers, name: str) -> Bounded:
    """‖x‖ / ‖u‖."""
    return ratio(step.weights[name].norm(), step.updates[name].norm())


def nezha_ratio(step: StepNumbers, name: str, most: float = LARGEST_RATIO, **options: Any) -> Bounded:
    """‖x‖ / ‖m̂ / √(v̂ + ε) + λ x‖, from 0 to 10."""
    options = {"root": eps_under, "decay": step.recipe.weight_decay, **options}
    u = make_update(step, name, **options)
    return ratio(step.weights[name].norm(), u.norm()).at_most(most)


def ratio(length: Bounded, step_length: Bounded) -> Bounded:
    """‖x‖ / ‖u‖, 1 where one of the two is 0, and without a bound where one of them may be 0."""
    if length.value == 0 or step_length.value == 0:
        known = (length if length.value == 0 else step_length).error <= EXACT
        return Bounded(np.ones_like(length.value), 0.0 if known else np.inf, length.unit)
    found = length / step_length
    return found if length.error < length.value else Bounded(found.value, np.inf, length.unit)


def right_weights(step: StepNumbers, name: str) -> Bounded:
    """x − η ρ u."""
    return moved(step, name, step.updates[name])


def moved(step: StepNumbers, name: str, u: Bounded) -> Bounded:
    """Give x − η ρ u for another u."""
    if name in step.ratios:
        u = u * step.ratios[name]
    rate: Bounded = step.learning_rate
    return step.weights[name] - u * rate


def right_count(step: StepNumbers, name: str = "") -> Bounded:
    """t."""
    return Bounded(np.array(float(step.t)), 0.0, step.unit)


# The stages after the gradients: the attribute of `StepNumbers` that holds each, the function, whether by tensor.
STAGES: dict[str, tuple[str, Stage, bool]] = {
    "norm": ("norm", right_norm, False),
    "clipped": ("clipped", right_clipped, True),
    "learning_rate": ("learning_rate", right_rate, False),
    "first_moment": ("first", right_first, True),
    "second_moment": ("second", right_second, True),
    "update": ("updates", right_update, True),
    "trust_ratio": ("ratios", right_ratio, True),
    "weights": ("new", right_weights, True),
    "step": ("step", right_count, False),
}


class Reached(Exception):
    """The steps have made the array that they were to make."""


def run_steps(
    recipe: Recipe,
    weights: Mapping[str, Bounded],
    walk: Walk,
    *,
    unit: float,
    settle: Callable[[str, Bounded], Bounded] = lambda name, made: made,
    changes: StageChanges | None = None,
    until: str | None = None,
) -> dict[str, Bounded]:
    """Make all steps of a recipe, stage by stage.

    Parameters
    ----------
    recipe : Recipe
        The recipe.
    weights : mapping of str to Bounded
        The weights before the first step.
    walk : callable
        Loss and gradients of a step, as `StepNumbers.walk`.
    unit : float
        ε of the dtype that the optimiser is computed in.
    settle : callable
        What to go on with: takes the name of a result and the result.
    changes : mapping of str to callable, optional
        Functions in place of stages: a mistake. That of ``gradients`` takes the step alone, and returns the loss and
        the gradients.
    until : str, optional
        Where to stop.

    Returns
    -------
    dict of str to Bounded
        What each stage made, in order: of ``loss``, ``gradients/NAME`` … below ``steps/t/``.
    """
    changes, made = changes or {}, {}
    current, before = dict(weights), None

    def keep(name: str, value: Bounded) -> Bounded:
        made[name] = value
        if name == until:
            raise Reached
        return settle(name, value)

    try:
        for t in range(1, recipe.steps + 1):
            step = StepNumbers(recipe, t, current, before, walk, unit)
            at = f"steps/{t}"
            loss, gradients = changes["gradients"](step) if "gradients" in changes else walk(step)
            step.loss = keep(f"{at}/loss", loss)
            step.gradients = {name: keep(f"{at}/gradients/{name}", value) for name, value in gradients.items()}
            for stage, (attribute, right, by_tensor) in STAGES.items():
                if stage == "trust_ratio" and recipe.optimizer != "lamb":
                    continue
                function = changes.get(stage, right)
                if by_tensor:
                    held = getattr(step, attribute)
                    for name in step.gradients:
                        held[name] = keep(f"{at}/{stage}/{name}", function(step, name))
                else:
                    setattr(step, attribute, keep(f"{at}/{stage}", function(step, "")))
            current, before = {**current, **step.new}, step
    except Reached:
        pass
    return made
