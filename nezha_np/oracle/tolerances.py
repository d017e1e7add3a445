"""How far rounding alone may lead away from a golden pass: measured in every dtype, or estimated by one pass."""

from __future__ import annotations

import dataclasses

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.layers import losses
from nezha_np.mechanism import Tape
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.differences import difference, is_additive_mask, largest, magnitude
from nezha_np.oracle.passes import gradients_of, outputs_of, run
from nezha_np.oracle.rounding import ARITHMETICS, Arithmetic, Rounded, inputs_in, weights_in
from nezha_np.weights.weights import Weights

Tolerances = dict[str, dict[str, float]]  # by dtype and name
NUDGES = range(8)  # one pass rounded as it is, and seven that are nudged
# How much more than what these passes show is still taken for rounding: right ports were seen to need 4.3.
MARGIN = 6.0
# One pass shows less than the worst of eight: over the standard set at least a fifth of it.
QUICK_MARGIN = 30.0
OF_A_MASK = 0.5  # the tolerance of an additive mask, in every dtype: 0 or never is all that it says


def measure_tolerances(bundle: Bundle, weights: Weights, logits: float) -> Tolerances:
    """Run a bundle's pass in each dtype, and find how far its roundings lead: the largest difference for each name.

    Parameters
    ----------
    bundle : Bundle
        The pass; its tolerances are not read.
    weights : Weights
        Its weights.
    logits : float
        The largest logit that a cross-entropy is taken of.

    Returns
    -------
    dict of str to dict of str to float
        For each dtype a tolerance for each of `Bundle.arrays`.
    """
    golden = bundle.arrays
    found = {}
    for name, arithmetic in ARITHMETICS.items():
        worst = dict.fromkeys(map(id, golden.values()), 0.0)  # by array: one of several names has one tolerance
        for nudge in NUDGES if name != "float64" else (0,):
            rounded = rerun(bundle, weights, arithmetic, nudge)
            for key, array in golden.items():
                worst[id(array)] = max(worst[id(array)], largest(difference(key, array, rounded[key])))
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

    The pass is nudged, and its differences are divided by the distance between two numbers of its dtype: so many units
    of each other dtype are allowed there. That holds as long as roundings are small: what they do where a softmax
    saturates or a number leaves the range of float16 is not in it.

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
    golden = bundle.arrays
    # A golden pass in float16 is off by roundings of float16 itself: those of float32 say nothing of it.
    arithmetic = ARITHMETICS["float16" if bundle.dtype == "float16" else "float32"]
    tape, rounded = rounded_pass(bundle, weights, arithmetic, nudge=1)
    logits = largest_logit(tape)
    units: dict[int, float] = {}  # by array: one of several names has one tolerance
    for key, array in golden.items():
        unit = largest(difference(key, array, rounded[key])) / arithmetic.epsilon
        units[id(array)] = max(units.get(id(array), 0.0), unit, _scale(key, array, logits))
    least = ARITHMETICS[bundle.dtype].epsilon if bundle.dtype != "float64" else 0.0  # the golden numbers' own roundings
    return {
        name: {
            key: OF_A_MASK
            if is_additive_mask(key)
            else _short(QUICK_MARGIN * (max(to.epsilon, least) * units[id(array)] + to.smallest))
            for key, array in golden.items()
        }
        for name, to in ARITHMETICS.items()
    }


def largest_logit(tape: Tape) -> float:
    """Return the largest logit that a cross-entropy is taken of.

    The loss is a difference of logits: where it is much smaller than they are, their roundings are its roundings.
    """
    logits = (arguments[0] for layer, arguments, _, _ in tape.calls if layer is losses.cross_entropy)
    return max((largest(magnitude("logits", to_numpy(of_loss))) for of_loss in logits), default=0.0)


def _scale(name: str, array: np.ndarray, logits: float) -> float:
    """Return the largest of the numbers that an array is made of by one step, where it is a loss, else its own."""
    is_loss = array.shape == () and not name.startswith("gradients/")
    return max(largest(magnitude(name, array)), logits if is_loss else 0.0)


def rounded_pass(
    bundle: Bundle, weights: Weights, arithmetic: Arithmetic, nudge: int = 0
) -> tuple[Tape, dict[str, np.ndarray]]:
    """Run a bundle's pass with results rounded to a dtype: its tape, and everything that `Bundle.arrays` has.

    A pass in float16 is one in float32 whose results are rounded to float16: NumPy's own products of float16 matrices
    take minutes for a large model, and round no more.
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
    }


def rerun(bundle: Bundle, weights: Weights, arithmetic: Arithmetic, nudge: int = 0) -> dict[str, np.ndarray]:
    """Run a bundle's pass with results rounded to a dtype, and return everything that `Bundle.arrays` has."""
    return rounded_pass(bundle, weights, arithmetic, nudge)[1]


def _short(number: float) -> float:
    """Round up to three digits: a tolerance says no more."""
    return float(f"{number * 1.005:.3g}")
