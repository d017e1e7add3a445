"""How far rounding alone may lead away from a golden pass: measured in every dtype, or estimated by one pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.checks import listed
from nezha_np.layers import losses
from nezha_np.mechanism import Tape
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.differences import difference, is_additive_mask, largest, magnitude
from nezha_np.oracle.passes import gradients_of, outputs_of, run
from nezha_np.oracle.progress import Count, Progress
from nezha_np.oracle.rounding import ARITHMETICS, Arithmetic, Rounded, inputs_in, weights_in
from nezha_np.oracle.step_names import STEPS, is_derived
from nezha_np.oracle.step_tolerances import rerun_steps
from nezha_np.weights.weights import Weights

Tolerances = dict[str, dict[str, float]]  # by dtype and name
NUDGES = range(8)  # one pass rounded as it is, and seven that are nudged
# How much more than what these passes show is still taken for rounding: right ports were seen to need 4.3.
MARGIN = 6.0
# One pass shows less than the worst of eight: 30 times its differences are about three times the measured tolerances.
QUICK_MARGIN = 30.0
FEW = 16  # so few numbers may all come out right by chance
ALL_BUT_ZERO = 1e-12  # the largest number of an array that is 0 but for rounding
OF_A_MASK = 0.5  # the tolerance of an additive mask, in every dtype: 0 or never is all that it says


def measure_tolerances(bundle: Bundle, weights: Weights, logits: float, progress: Progress | None = None) -> Tolerances:
    """Run a bundle's pass in each dtype, and find how far its roundings lead: the largest difference for each name.

    Parameters
    ----------
    bundle : Bundle
        The pass; its tolerances are not read.
    weights : Weights
        Its weights.
    logits : float
        The largest logit that a cross-entropy is taken of.
    progress : callable or None
        Is told how many of the passes are done.

    Returns
    -------
    dict of str to dict of str to float
        For each dtype a tolerance for each of `Bundle.arrays`.
    """
    golden = {name: array for name, array in bundle.arrays.items() if not is_derived(name)}
    found, every = {}, {name: dict.fromkeys(map(id, golden.values()), 0.0) for name in ARITHMETICS}
    passes = [(name, nudge) for name in ARITHMETICS for nudge in (NUDGES if name != "float64" else (0,))]
    for name, nudge in Count(progress).each(passes):
        rounded, worst = rerun(bundle, weights, ARITHMETICS[name], nudge), every[name]
        for key, array in golden.items():  # by array: one of several names has one tolerance
            worst[id(array)] = max(worst[id(array)], largest(difference(key, array, rounded[key])))
    for name, arithmetic in ARITHMETICS.items():
        worst = every[name]
        found[name] = {
            key: OF_A_MASK
            if is_additive_mask(key)
            else _short(MARGIN * max(worst[id(array)], arithmetic.epsilon * _scale(key, array, logits)))
            for key, array in golden.items()
        }
    # A float64 pass adds up in the golden one's own order: its roundings are those of float32, smaller by as much as
    # the distance between two numbers is. What it does show is how far golden numbers in a narrower dtype are off.
    ratio = ARITHMETICS["float64"].epsilon / ARITHMETICS["float32"].epsilon
    exact = {
        key: value if is_additive_mask(key) else max(value, _short(ratio * found["float32"][key]))
        for key, value in found["float64"].items()
    }
    return found | {"float64": exact}


def quick_tolerances(bundle: Bundle, weights: Weights) -> Tolerances:
    """Run a bundle's pass once more, in float32, and scale how far its roundings lead to the other dtypes.

    The results of this pass are nudged as those of the measured ones are. Each difference from the golden numbers is
    taken in units of float32, the distance from 1 to the next number, and as many units of every dtype are allowed. So
    this takes roundings for small: what a saturated softmax or the range of float16 makes of them is not in it.

    Parameters
    ----------
    bundle : Bundle
        The pass; its tolerances are not read.
    weights : Weights
        Its weights.

    Returns
    -------
    dict of str to dict of str to float
        For each dtype a tolerance for each of `Bundle.arrays`.
    """
    # A golden pass in float16 is off by roundings of float16 itself: those of float32 say nothing of it.
    arithmetic = ARITHMETICS["float16" if bundle.dtype == "float16" else "float32"]
    tape, rounded = rounded_pass(bundle, weights, arithmetic, nudge=1)
    units = units_of_rounding(bundle, rounded, arithmetic, largest_logit(tape))
    own = 0.0 if bundle.dtype == "float64" else ARITHMETICS[bundle.dtype].epsilon  # what the golden numbers are off by
    return {
        name: {
            key: OF_A_MASK
            if is_additive_mask(key)
            else _short(QUICK_MARGIN * (max(to.epsilon, own) * units[id(array)] + to.smallest))
            for key, array in bundle.arrays.items()
            if not is_derived(key)
        }
        for name, to in ARITHMETICS.items()
    }


def units_of_rounding(
    bundle: Bundle, rounded: Mapping[str, np.ndarray], arithmetic: Arithmetic, logits: float
) -> dict[int, float]:
    """Return by how many units a rounded pass differs from the golden one, for each array by its identity.

    It is a unit of the array's largest number at least. Where an array has few numbers, a single pass may happen to be
    right in all of them: then it is also at least what most arrays have, in proportion to its largest number.
    """
    golden = {name: array for name, array in bundle.arrays.items() if not is_derived(name)}
    if others := [key for key in golden if key not in rounded]:
        raise ValueError(f"bundle: expected the arrays of a pass of its weights, got others too: {listed(others, 3)}")
    scales = {key: _scale(key, array, logits) for key, array in golden.items()}
    units: dict[int, float] = {}  # by array: one of several names has one tolerance
    for group in ("", "gradients/", STEPS):  # of the pass, of its walk back, and of the steps
        keys = [key for key in golden if _group(key) == group and not is_additive_mask(key)]
        apart = {key: largest(difference(key, golden[key], rounded[key])) / arithmetic.epsilon for key in keys}
        parts = [apart[key] / scales[key] for key in keys if scales[key] > ALL_BUT_ZERO]
        most = float(np.quantile(parts, 0.75)) if parts else 1.0
        for key in keys:
            least = scales[key] * (max(1.0, most) if golden[key].size <= FEW else 1.0)
            units[id(golden[key])] = max(units.get(id(golden[key]), 0.0), apart[key], least)
    return units


def largest_logit(tape: Tape) -> float:
    """Return the largest logit that a cross-entropy is taken of.

    The loss is a difference of logits: where it is much smaller than they are, their roundings are its roundings.
    """
    logits = (call.arguments[0] for call in tape.calls if call.layer is losses.cross_entropy)
    return max((largest(magnitude("logits", to_numpy(of_loss))) for of_loss in logits), default=0.0)


def _scale(name: str, array: np.ndarray, logits: float) -> float:
    """Return the largest of the numbers that an array is made of by one step, where it is a loss, else its own."""
    is_loss = array.shape == () and (not _group(name) or name.endswith("/loss"))
    return max(largest(magnitude(name, array)), logits if is_loss else 0.0)


def _group(name: str) -> str:
    return next((group for group in ("gradients/", STEPS) if name.startswith(group)), "")


def rounded_pass(
    bundle: Bundle, weights: Weights, arithmetic: Arithmetic, nudge: int = 0, margin: float = 0.0
) -> tuple[Tape, dict[str, np.ndarray]]:
    """Run a bundle's pass with results rounded to a dtype: its tape, and everything that `Bundle.arrays` has.

    A pass in float16 is one in float32 whose results are rounded to float16: NumPy's own products of float16 matrices
    take minutes for a large model, and round no more.
    `margin` is that of `rerun_steps`.
    """
    if arithmetic.computed_in == "float16":
        arithmetic = dataclasses.replace(arithmetic, computed_in="float32")
    tape, out = run(
        Rounded(arithmetic, nudge), bundle.head, weights_in(weights, arithmetic), inputs_in(bundle.inputs, arithmetic)
    )
    gradients = gradients_of(tape, out) if bundle.gradients else {}
    return tape, {
        **{name: to_numpy(array) for name, array in tape.items()},
        **{f"outputs/{name}": array for name, array in outputs_of(out).items()},
        **{f"gradients/{name}": array for name, array in gradients.items()},
        **rerun_steps(bundle, weights, arithmetic, nudge, margin=margin),
    }


def rerun(bundle: Bundle, weights: Weights, arithmetic: Arithmetic, nudge: int = 0) -> dict[str, np.ndarray]:
    """Run a bundle's pass with results rounded to a dtype, and return everything that `Bundle.arrays` has."""
    return rounded_pass(bundle, weights, arithmetic, nudge, MARGIN)[1]


def _short(number: float) -> float:
    """Round up to three digits: a tolerance says no more."""
    return float(f"{number * 1.005:.3g}")
