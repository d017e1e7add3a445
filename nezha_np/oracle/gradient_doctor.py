"""The doctor of the walk back: which gradient does not follow from theirs before it, and which mistake makes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from nezha_np.oracle.alignment import Theirs
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.closeness import Apart, apart, is_rounding
from nezha_np.oracle.description import describe_difference
from nezha_np.oracle.diagnosis import Diagnosis, Finding, rank
from nezha_np.oracle.differences import largest, largest_difference, magnitude
from nezha_np.oracle.mistakes import FITS, GRADIENT_MISTAKES, GradientEvidence
from nezha_np.oracle.progress import Count
from nezha_np.oracle.replay import replay_gradients, tape_gradients
from nezha_np.oracle.rounding import ARITHMETICS, inputs_in, weights_in
from nezha_np.oracle.tolerances import MARGIN
from nezha_np.weights.weights import Weights

NUDGES = (0, 1, 2)
GROUP = "gradients/"
FIT = 20.0  # by how much a fit to the numbers themselves has to make the difference smaller
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
    recorder, loss = tape_gradients(bundle, weights, inputs, gradients, ARITHMETICS["float64"])
    made = recorder.walk(loss)
    allowed, noise = allowed_of_gradients(bundle, weights, inputs, theirs.dtype, made, gradients)

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
    before = apart(step, made[step], gradients[step])
    size = max(largest(magnitude(step, made[step])), TINY)
    findings = []

    def explains(trial: np.ndarray | None, margin: float = 1.0) -> Apart | None:
        """What a trial leaves, where rounding explains it: larger gradients have larger roundings."""
        left = apart(step, trial, gradients[step])
        if trial is None or not left.most < before.most / 2.0:
            return None
        grown = max(1.0, largest(magnitude(step, trial)) / size)
        near = is_rounding(left, before, noise[step] * grown)
        return left if left.most <= allowed[step] * grown and near and before.typical > margin * left.typical else None

    possible = [mistake for mistake in GRADIENT_MISTAKES if bundle.config.model_type in mistake.families]
    trials = [(mistake, way, changes) for mistake in possible for way, changes in mistake.ways.items()]
    for mistake, way, changes in count.each(trials):
        trial = recorder.walk(loss, changes)
        if (left := explains(trial.get(step))) is not None:
            unexplained = len(differing({**made, **trial}))
            findings.append(Finding(mistake.name, mistake.sentence, way, None, before.most, left.most, unexplained))
    if not findings:
        of_weights = [{name: of[name] for name in weights if name in of} for of in (made, gradients)]
        evidence = GradientEvidence(made[step], gradients[step], allowed[step], *of_weights)
        for mistake, function in FITS:
            for way, numbers in function(evidence).items():
                if (left := explains(numbers, FIT)) is not None:
                    others = len(wrong) - 1
                    findings.append(Finding(mistake.name, mistake.sentence, way, None, before.most, left.most, others))
            if findings:
                break
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
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure how much rounding explains of each gradient: at most, and typically.

    The walk back starts from the bundle's forward pass, and theirs from their own, whose roundings count too: so it is
    the bundle's tolerance at least.
    """
    arithmetic = ARITHMETICS[dtype]
    if arithmetic.computed_in == "float16":  # NumPy's own products of float16 matrices are slow
        arithmetic = dataclasses.replace(arithmetic, computed_in="float32")
    suggested = bundle.tolerances[dtype]
    allowed = {name: suggested.get(f"{GROUP}{name}", 0.0) for name in made}
    typical = {name: value / (8.0 * MARGIN) for name, value in allowed.items()}
    rounded_weights, rounded_inputs = weights_in(weights, arithmetic), inputs_in(inputs, arithmetic)
    rounded_theirs = {name: array.astype(arithmetic.computed_in) for name, array in theirs.items()}
    for nudge in NUDGES:
        rounded = replay_gradients(bundle, rounded_weights, rounded_inputs, rounded_theirs, arithmetic, nudge=nudge)
        for name, array in made.items():
            rounding = apart(name, array, rounded[name])
            least = arithmetic.epsilon * largest(magnitude(name, array))
            allowed[name] = max(allowed[name], MARGIN * max(rounding.most, least))
            typical[name] = max(typical[name], rounding.typical, least / 8.0)
    return allowed, typical
