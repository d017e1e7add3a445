"""How far rounding may lead in training steps: some arrays are measured, the others follow from these.

Loss, gradients, norm, clipped gradients and trust ratios are measured as every array of a pass is: all steps are made
again in each dtype, with every result nudged, so what the roundings of one step do to the next is in it. Moments,
updates and weights get a tolerance for each element, by the rules of `nezha_np.oracle.bounded`, from those of the
clipped gradients and the trust ratios.

In float16 and bfloat16 the passes are in that dtype. Weights, moments and the step of the optimiser are in float32, as
in every mixed precision: in float16 an update would change nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.oracle.bounded import Bounded
from nezha_np.oracle.differences import largest
from nezha_np.oracle.recipe import NUMBERS
from nezha_np.oracle.rounding import ARITHMETICS, Arithmetic
from nezha_np.oracle.step_names import is_derived, stage_of
from nezha_np.oracle.step_passes import Passes
from nezha_np.oracle.training_steps import (
    Stage,
    StepNumbers,
    largest_part,
    right_norm,
    right_ratio,
    right_update,
    run_steps,
)
from nezha_np.randomness import uniform
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from nezha_np.oracle.bundle import Bundle

MARGIN_OF_A_SUM = 4.0  # the margin of all that is measured, 6, makes of a fourth of √n units more than √n


def unit_of(dtype: str) -> float:
    """Return ε of what an optimiser is computed in, where the passes are in a dtype.

    Examples
    --------
    >>> unit_of("float16") == unit_of("float32")
    True
    """
    return min(ARITHMETICS[dtype].epsilon, ARITHMETICS["float32"].epsilon)


def rerun_steps(
    bundle: Bundle, weights: Weights, arithmetic: Arithmetic, nudge: int = 0, *, margin: float = 0.0
) -> dict[str, np.ndarray]:
    """Make the steps of a bundle again in a dtype: every array of them by its name.

    Parameters
    ----------
    bundle : Bundle
        The bundle; of its arrays the clipped gradients are read, and those where there is a margin.
    weights : Weights
        Its weights.
    arithmetic : Arithmetic
        The dtype.
    nudge : int
        The number of the nudge.
    margin : float
        Of a nudged pass, how many times its differences from the golden gradients those of others may be. An element
        of the first moment that may be 0 as far as these go gets any update that is possible: eight passes may
        all have the same sign there, and another implementation the other one.

    Returns
    -------
    dict of str to array
        Under ``steps/…``.
    """
    if bundle.training is None:
        return {}
    if arithmetic.computed_in == "float16":  # NumPy's own products of float16 matrices are slow
        arithmetic = dataclasses.replace(arithmetic, computed_in="float32")
    unit = unit_of(arithmetic.name)
    own = np.float64 if arithmetic.name == "float64" else np.float32
    start = {name: Bounded(np.asarray(array, own), 0.0, unit) for name, array in weights.items()}
    passes = Passes(bundle.head, bundle.config, bundle.batches, arithmetic, nudge)
    recipe, changes = bundle.training, {}
    if nudge:
        changes = {"norm": _summed_otherwise("norm", right_norm, nudge)}
        changes["trust_ratio"] = _summed_otherwise("trust_ratio", right_ratio, nudge)
    if nudge and margin:
        changes["update"] = _any_where_unknown(nudge)
    if nudge % 2 and own is np.float32:  # others have float32's 0.999, and from it 1 − 0.999
        numbers: dict[str, Any] = {name: np.float32(getattr(recipe, name)) for name in NUMBERS}
        recipe = dataclasses.replace(recipe, **numbers)

    def settle(name: str, value: Bounded) -> Bounded:
        if not (nudge and margin and stage_of(name) in ("clipped", "weights")):
            return value
        if stage_of(name) == "weights":  # from which the next step begins
            return Bounded(value.value, 0.0, unit)
        golden = bundle.steps.get(name.removeprefix("steps/"), value.value)
        least = arithmetic.epsilon * largest(np.abs(golden))
        return Bounded(value.value, margin * max(largest(np.abs(value.value - golden)), least), unit)

    with np.errstate(all="ignore"):
        made = run_steps(recipe, start, passes, unit=unit, settle=settle, changes=changes)
    return {name: np.asarray(value.value, own) for name, value in made.items()}


def _any_where_unknown(nudge: int) -> Stage:
    """Give the elements of an update whose sign is that of a rounding any number that they may be."""

    def update(step: StepNumbers, name: str) -> Bounded:
        right, m = right_update(step, name), step.first[name]
        drawn = 2.0 * uniform(np.size(m.value), 1, nudge, step.t, "update", name).reshape(np.shape(m.value)) - 1.0
        most, decayed = largest_part(step), step.weights[name].value * step.decay(name)
        other = decayed + np.clip(right.value - decayed + drawn * right.error, -most, most)
        unknown = (np.abs(m.value) <= m.error) & (m.value != 0.0)  # nothing is looked up: 0 in every dtype
        return Bounded(np.where(unknown, other, right.value).astype(right.value.dtype), right.error, right.unit)

    return update


def _summed_otherwise(stage: str, right: Stage, nudge: int) -> Stage:
    """Nudge a stage that is a norm: a sum of n squares in one loop rounds by up to about √n units, NumPy's by fewer."""

    def nudged(step: StepNumbers, name: str = "") -> Bounded:
        found, sizes = right(step, name), step.gradients if not name else {name: step.gradients[name]}
        if found.value == 1.0:  # the ratio of a tensor of zeros, which is no quotient
            return found
        units = math.sqrt(sum(np.size(array.value) for array in sizes.values())) / MARGIN_OF_A_SUM
        moved = 1.0 + (2.0 * float(uniform(1, nudge, step.t, stage, name)[0]) - 1.0) * units * step.unit
        return Bounded(found.value * np.asarray(moved, found.value.dtype), found.error, found.unit)

    return nudged


def derived_tolerances(bundle: Bundle, dtype: str) -> dict[str, np.ndarray]:
    """Give a tolerance to each element of the arrays that an optimiser makes.

    Parameters
    ----------
    bundle : Bundle
        The bundle, with tolerances.
    dtype : str
        What an implementation computes its passes in.

    Returns
    -------
    dict of str to array
        For each derived array of `Bundle.arrays` the largest difference of each element.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    >>> bundle = nz.oracle.record(
    ...     config, [[2, 3]], head="masked_lm", labels=[[-100, 4]], step="adamw", steps=1, learning_rate=1e-3
    ... )
    >>> derived_tolerances(bundle, "float32")["steps/1/weights/embeddings.LayerNorm.weight"].shape
    (4,)
    """
    recipe, golden = bundle.training, bundle.steps
    if recipe is None:
        return {}
    unit, measured = unit_of(dtype), bundle.tolerances[dtype]
    names = [name.removeprefix("1/clipped/") for name in golden if name.startswith("1/clipped/")]

    def with_tolerance(name: str) -> Bounded:
        return Bounded(golden[name.removeprefix("steps/")].astype(np.float64), measured[name], unit)

    def settle(name: str, made: Bounded) -> Bounded:
        if not is_derived(name):
            return with_tolerance(name)
        found = golden.get(name.removeprefix("steps/"))
        return made if found is None else Bounded(found.astype(np.float64), made.error, unit)

    def recorded(step: StepNumbers, stage: str, name: str) -> Bounded:
        return with_tolerance(f"steps/{step.t}/{stage}/{name}" if name else f"steps/{step.t}/{stage}")

    def walk(step: StepNumbers) -> tuple[Bounded, dict[str, Bounded]]:
        return recorded(step, "loss", ""), {name: recorded(step, "gradients", name) for name in names}

    start = {name: Bounded(_before_first_step(golden, name), 0.0, unit) for name in names}
    # What is measured is not computed again.
    changes = {
        "norm": lambda step, name: recorded(step, "norm", name),
        "clipped": lambda step, name: recorded(step, "clipped", name),
        "trust_ratio": lambda step, name: recorded(step, "trust_ratio", name),
    }
    with np.errstate(all="ignore"):
        made = run_steps(recipe, start, walk, unit=unit, settle=settle, changes=changes)
    return {
        name: np.broadcast_to(np.asarray(value.error, np.float64), np.shape(value.value))
        for name, value in made.items()
        if is_derived(name)
    }


def _before_first_step(golden: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Return a tensor before the first step: the file may not hold it."""
    u, ratio = golden[f"1/update/{name}"].astype(np.float64), golden.get(f"1/trust_ratio/{name}", np.ones(()))
    return np.asarray(golden[f"1/weights/{name}"] + golden["1/learning_rate"] * ratio * u, np.float64)


def allowed_differences(bundle: Bundle, dtype: str, names: Collection[str]) -> dict[str, float | np.ndarray]:
    """Return the largest difference that rounding explains of each array; for derived ones, of each element.

    Parameters
    ----------
    bundle : Bundle
        The bundle, with tolerances.
    dtype : str
        What an implementation computes in.
    names : collection of str
        The arrays that are asked for.

    Returns
    -------
    dict of str to float or array
        For each of `Bundle.arrays`, or for those alone that are asked for.
    """
    derived = derived_tolerances(bundle, dtype) if any(map(is_derived, names)) else {}
    return {**bundle.tolerances[dtype], **derived}
