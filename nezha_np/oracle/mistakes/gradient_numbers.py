"""What a wrong gradient's numbers say where no formula makes them: multiples, clipped or rounded numbers, parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from nezha_np.oracle.mistakes.mistake import Mistake, mistake
from nezha_np.oracle.mistakes.narrowing import HALF, narrow
from nezha_np.oracle.rounding import ARITHMETICS

GRADIENT_NUMBERS: list[Mistake] = []


@dataclasses.dataclass(frozen=True, eq=False)
class GradientEvidence:
    """What is known of a gradient that differs from theirs.

    Attributes
    ----------
    right, theirs : array
        What follows from theirs before it, and what they have.
    allowed : float
        The largest difference that rounding explains.
    all_right, all_theirs : dict of str to array
        All gradients of weights.
    """

    right: np.ndarray
    theirs: np.ndarray
    allowed: float
    all_right: Mapping[str, np.ndarray]
    all_theirs: Mapping[str, np.ndarray]


Fit = Callable[[GradientEvidence], dict[str, np.ndarray]]  # by which way, the numbers that it makes
FITS: list[tuple[Mistake, Fit]] = []


def fit(of: Mistake) -> Callable[[Fit], Fit]:
    """Register the decorated function as what fits a mistake to the numbers of a gradient."""

    def register(function: Fit) -> Fit:
        FITS.append((of, function))
        return function

    return register


clipped = mistake(
    GRADIENT_NUMBERS,
    "gradients clipped",
    does="the gradients are those after clipping, by their norm or each number by itself",
    right="the gradients before it",
)


@fit(clipped)
def clipped_numbers(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Recognise gradients that were multiplied so that their norm is a round number, or cut off at a number."""
    most = float(np.abs(evidence.theirs).max(initial=0.0))
    if 0.0 < most < np.abs(evidence.right).max() and (np.abs(evidence.theirs) >= 0.999999 * most).sum() > 1:
        return {f"at ±{most:.4g}": np.clip(evidence.right, -most, most)}
    shared = [name for name in evidence.all_theirs if name in evidence.all_right]
    norm = float(np.sqrt(sum((evidence.all_theirs[name] ** 2).sum() for name in shared)))
    if len(shared) < 2 or not norm > 0.0 or abs(norm - float(f"{norm:.2g}")) > 1e-4 * norm:
        return {}
    factor = factor_of(evidence.right, evidence.theirs)
    return {f"to a norm of {norm:.2g}": factor * evidence.right}


multiplied = mistake(
    GRADIENT_NUMBERS,
    "gradient multiplied by a number",
    does="a gradient is a multiple of what it should be",
    right="the gradient itself",
)


def factor_of(right: np.ndarray, theirs: np.ndarray) -> float:
    """Return the multiple of the right numbers that comes closest."""
    size = float((right * right).sum())
    return float((right * theirs).sum()) / size if size > 0.0 else 0.0


@fit(multiplied)
def multiple(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Recognise a multiple."""
    factor = factor_of(evidence.right, evidence.theirs)
    if evidence.right.size < 4 or factor == 0.0 or abs(factor - 1.0) < 1e-3:
        return {}
    return {f"by {factor:.5g}": factor * evidence.right}


rounded_gradient = mistake(
    GRADIENT_NUMBERS,
    "gradient in half precision",
    does="a gradient is computed or kept in a narrower dtype than the port's own",
    right="the port's dtype",
)


@fit(rounded_gradient)
def rounded_numbers(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Recognise numbers of a narrow dtype, none further from the right one than two of its units."""
    for dtype in HALF:
        unit = ARITHMETICS[dtype].epsilon
        if (narrow(evidence.theirs, dtype) != evidence.theirs).any():
            continue
        if (np.abs(evidence.theirs - evidence.right) <= 2.0 * unit * np.abs(evidence.right) + evidence.allowed).all():
            return {f"in {dtype}": evidence.theirs}
    return {}


in_part = mistake(
    GRADIENT_NUMBERS,
    "gradient of some numbers missing",
    does="a part of a gradient is 0: of some texts, tokens, rows or columns",
    right="to compute all of it",
)


@fit(in_part)
def zeros_in_part(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Recognise zeros in whole parts along one axis."""
    wrong = np.abs(evidence.theirs - evidence.right) > evidence.allowed
    if not wrong.any() or evidence.theirs[wrong].any():
        return {}
    for axis in range(wrong.ndim):
        others = tuple(other for other in range(wrong.ndim) if other != axis)
        parts = wrong.any(axis=others)
        if not parts.all():
            at = ", ".join(map(str, np.flatnonzero(parts)[:6]))
            return {f"at {at} of axis {axis}": np.where(np.expand_dims(parts, others), 0.0, evidence.right)}
    return {"all of it": 0.0 * evidence.right}


in_order = mistake(
    GRADIENT_NUMBERS,
    "gradient in another order",
    does="the numbers of a gradient are those of other texts, tokens, rows or columns, or of another order of its axes",
    right="each in its own place",
)


@fit(in_order)
def other_places(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Recognise axes that were exchanged or read otherwise, and one part's numbers for all."""
    right, found = evidence.right, {}
    if right.ndim < 2 or right.size < 8:
        return {}
    for first in range(right.ndim):
        for second in range(first + 1, right.ndim):
            turned = np.swapaxes(right, first, second)
            found[f"axes {first} and {second} exchanged"] = turned.reshape(right.shape)
            shape = turned.shape
            found[f"axes {first} and {second} exchanged otherwise"] = np.swapaxes(right.reshape(shape), first, second)
    for axis in range(right.ndim):
        if right.shape[axis] > 1:
            found[f"the first's for all along axis {axis}"] = np.broadcast_to(
                np.take(right, [0], axis=axis), right.shape
            )
            found[f"in reverse along axis {axis}"] = np.flip(right, axis)
            found[f"the next one's along axis {axis}"] = np.roll(right, -1, axis)
            found[f"the one's before along axis {axis}"] = np.roll(right, 1, axis)
            found[f"the mean for all along axis {axis}"] = np.broadcast_to(
                right.mean(axis=axis, keepdims=True), right.shape
            )
    return found
