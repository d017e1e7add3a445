"""The doctor of the walk back: which gradient does not follow from theirs before it, and which mistake makes it."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from nezha_np.oracle.alignment import Theirs
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.description import describe_difference
from nezha_np.oracle.diagnosis import Diagnosis, Finding, rank
from nezha_np.oracle.differences import largest, largest_difference, magnitude
from nezha_np.oracle.mistakes import GRADIENT_MISTAKES
from nezha_np.oracle.progress import Count
from nezha_np.oracle.replay import replay_gradients
from nezha_np.oracle.rounding import ARITHMETICS, inputs_in, weights_in
from nezha_np.oracle.tolerances import MARGIN
from nezha_np.weights.weights import Weights

NUDGES = (0, 1, 2)
GROUP = "gradients/"
TINY = float(np.finfo(np.float64).tiny)


def diagnose_gradients(
    bundle: Bundle,
    weights: Weights,
    inputs: Mapping[str, Any],
    theirs: Theirs,
    notes: tuple[str, ...],
    count: Count,
) -> Diagnosis | None:
    """Find the first gradient that does not follow from theirs, where the forward pass is right.

    Parameters
    ----------
    bundle : Bundle
        The golden pass.
    weights, inputs
        Those of the pass, rounded to their dtype and in float64.
    theirs : Theirs
        Their arrays, gradients among them.
    notes : tuple of str
        What else the diagnosis is to say.
    count : Count
        Counts the trials.

    Returns
    -------
    Diagnosis or None
        None where every gradient follows, or there are none.
    """
    gradients = {
        name.removeprefix(GROUP): array.astype(np.float64)
        for name, array in theirs.arrays.items()
        if name.startswith(GROUP)
    }
    if not gradients or not bundle.gradients:
        return None
    exact = ARITHMETICS["float64"]
    made = replay_gradients(bundle, weights, inputs, gradients, exact)
    allowed = allowed_of_gradients(bundle, weights, inputs, theirs.dtype, made, gradients)

    def differing(of: Mapping[str, Any]) -> list[str]:
        return [
            name
            for name in made
            if name in gradients and not largest_difference(name, of[name], gradients[name]) <= allowed[name]
        ]

    wrong = differing(made)
    if not wrong:
        return None
    step = wrong[0]
    before = largest_difference(step, made[step], gradients[step])
    findings = []
    possible = [mistake for mistake in GRADIENT_MISTAKES if bundle.config.model_type in mistake.families]
    trials = [(mistake, way, changes) for mistake in possible for way, changes in mistake.ways.items()]
    for mistake, way, changes in count.each(trials):
        trial = replay_gradients(bundle, weights, inputs, gradients, exact, changes=changes)
        if step not in trial:
            continue
        after = largest_difference(step, trial[step], gradients[step])
        sizes = (max(largest(magnitude(step, of[step])), TINY) for of in (trial, made))
        grown = max(1.0, operator.truediv(*sizes))  # larger gradients have larger roundings
        if after <= allowed[step] * grown and after < before / 2:
            left = len(differing({**made, **trial}))
            findings.append(Finding(mistake.name, mistake.sentence, way, None, before, after, left))
    findings.sort(key=rank)
    seen = tuple(describe_difference(step, made[step], gradients[step], allowed[step]))
    return Diagnosis(f"{GROUP}{step}", tuple(findings), tuple(GROUP + name for name in wrong), seen, notes)


def allowed_of_gradients(
    bundle: Bundle,
    weights: Weights,
    inputs: Mapping[str, Any],
    dtype: str,
    made: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """Measure how much rounding explains of each gradient.

    The walk back starts from the bundle's forward pass, and theirs from their own, whose roundings count too: so it is
    the bundle's tolerance at least.
    """
    arithmetic = ARITHMETICS[dtype]
    if arithmetic.computed_in == "float16":  # NumPy's own products of float16 matrices are slow
        arithmetic = dataclasses.replace(arithmetic, computed_in="float32")
    suggested = bundle.tolerances[dtype]
    allowed = {name: suggested.get(f"{GROUP}{name}", 0.0) for name in made}
    rounded_weights, rounded_inputs = weights_in(weights, arithmetic), inputs_in(inputs, arithmetic)
    rounded_theirs = {name: array.astype(arithmetic.computed_in) for name, array in theirs.items()}
    for nudge in NUDGES:
        rounded = replay_gradients(bundle, rounded_weights, rounded_inputs, rounded_theirs, arithmetic, nudge=nudge)
        for name, array in made.items():
            rounding = largest_difference(name, array, rounded[name])
            least = arithmetic.epsilon * largest(magnitude(name, array))
            allowed[name] = max(allowed[name], MARGIN * max(rounding, least))
    return allowed
