"""What a wrong gradient's numbers say where no formula makes them: multiples, clipped or rounded numbers, parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from nezha_np.oracle.mistakes.mistake import Mistake, mistake
from nezha_np.oracle.mistakes.narrowing import HALF, narrow
from nezha_np.oracle.rounding import ARITHMETICS

GRADIENT_NUMBERS: list[Mistake] = []
MANY = 4  # numbers for each factor that is fitted


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
    value : array or None
        The weight whose gradient it is; None, where it is not one of a weight.
    """

    right: np.ndarray
    theirs: np.ndarray
    allowed: float
    all_right: Mapping[str, np.ndarray]
    all_theirs: Mapping[str, np.ndarray]
    value: np.ndarray | None = None


Fit = Callable[[GradientEvidence], dict[str, np.ndarray]]  # by which way, the numbers that it makes
FITS: list[tuple[Mistake, Fit]] = []


def fit(of: Mistake) -> Callable[[Fit], Fit]:
    """Register the decorated function as what fits a mistake to the numbers of a gradient."""

    def register(function: Fit) -> Fit:
        FITS.append((of, function))
        return function

    return register


stopped = mistake(
    GRADIENT_NUMBERS,
    "gradient stopped",
    does="no gradient comes to an array or a weight, or to anything before it: detached, frozen, or kept as a buffer",
    right="the gradient of the loss",
)


@fit(stopped)
def nothing_comes(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Recognise zeros alone."""
    return {} if evidence.theirs.any() else {"all of it is 0": evidence.theirs}


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
    of_all = float(np.sqrt(sum((evidence.all_theirs[name] ** 2).sum() for name in shared)))
    clipped = factor_of(evidence.right, evidence.theirs) * evidence.right
    if len(shared) > 1 and is_round(of_all):
        return {f"to a norm of {of_all:.2g}": clipped}
    own = float(np.linalg.norm(evidence.theirs))
    return (
        {f"each by itself, to a norm of {own:.2g}": clipped}
        if own < np.linalg.norm(evidence.right) and is_round(own)
        else {}
    )


def is_round(norm: float) -> bool:
    """Whether a norm is a number of two digits."""
    return norm > 0.0 and abs(norm - float(f"{norm:.2g}")) <= 1e-5 * norm


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


def is_plain(factor: float) -> bool:
    """Whether a factor is a whole number, one over a whole number, or a power of ten: few numbers tell no other."""
    size = abs(factor)
    return 1e-6 < size < 1e6 and any(abs(x - round(x)) <= 1e-6 * x for x in (size, 1.0 / size) if x >= 0.999)


@fit(multiplied)
def multiple(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Recognise a multiple."""
    factor = factor_of(evidence.right, evidence.theirs)
    if not evidence.theirs.any() or abs(factor - 1.0) < 1e-3:
        return {}
    if evidence.right.size < 4 and not is_plain(factor):
        return {}
    return {f"by {factor:.5g}": factor * evidence.right}


decayed = mistake(
    GRADIENT_NUMBERS,
    "gradient with weight decay",
    does="a multiple of the weight, or of its sign, is added to its gradient",
    right="the gradient of the loss; the optimiser decays weights, or the loss says so",
)


@fit(decayed)
def weight_added(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Recognise a multiple of the weight in what differs."""
    found: dict[str, np.ndarray] = {}
    if evidence.value is None or evidence.right.size < 4:
        return found
    for what, added in (("weight", evidence.value), ("sign", np.sign(evidence.value))):
        factor = factor_of(np.asarray(added, np.float64), evidence.theirs - evidence.right)
        if factor != 0.0:
            found[f"{factor:.4g} times the {what}"] = evidence.right + factor * added
    return found


function_of = mistake(
    GRADIENT_NUMBERS,
    "gradient after a function of its own numbers",
    does="a gradient is given after something was made of it: signs, absolute values, squares, a mean subtracted",
    right="the gradient itself",
)


@fit(function_of)
def functions(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Try what is made of gradients."""
    right = evidence.right
    if right.size < 4:
        return {}
    found = {
        "its sign": np.sign(right),
        "its absolute value": np.abs(right),
        "its square": right * right,
        "over its largest number": right / max(float(np.abs(right).max()), 1e-300),
        "positive numbers alone": np.maximum(right, 0.0),
        "negative numbers alone": np.minimum(right, 0.0),
        "the mean of all subtracted": right - right.mean(),
    }
    for axis in range(right.ndim):
        found[f"the mean along axis {axis} subtracted"] = right - right.mean(axis=axis, keepdims=True)
        found[f"summed up along axis {axis}"] = np.cumsum(right, axis=axis)
    return found


dropped = mistake(
    GRADIENT_NUMBERS,
    "gradient with dropout",
    does="numbers of a gradient are 0 at random, and the others scaled up, though the pass has no dropout",
    right="the masks of the pass, and none where it has none",
)


@fit(dropped)
def dropout(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Recognise numbers that are 0 or one multiple of the right ones."""
    right, theirs = evidence.right, evidence.theirs
    seen = np.abs(right) > 20.0 * evidence.allowed
    zero = seen & (np.abs(theirs) <= evidence.allowed)
    others = seen & ~zero
    if not zero.any() or others.sum() < 8 or zero.sum() > 0.9 * seen.sum():
        return {}
    factor = factor_of(right[others], theirs[others])
    return {f"and a factor of {factor:.4g}": np.where(zero, 0.0, factor * right)} if factor > 1.01 else {}


of_each = mistake(
    GRADIENT_NUMBERS,
    "gradient multiplied by a number for each part",
    does="a gradient has another factor for each text, token, head or feature",
    right="the gradient itself",
)


@fit(of_each)
def factors_of_parts(evidence: GradientEvidence) -> dict[str, np.ndarray]:
    """Recognise a factor along one axis, with many numbers for each factor."""
    right, theirs, found = evidence.right, evidence.theirs, {}
    for axis in range(right.ndim if right.ndim > 1 else 0):
        others = tuple(other for other in range(right.ndim) if other != axis)
        size = (right * right).sum(axis=others, keepdims=True)
        if right.size < MANY * right.shape[axis] or (size == 0.0).any():
            continue
        factors = (right * theirs).sum(axis=others, keepdims=True) / size
        said = ", ".join(f"{factor:.4g}" for factor in factors.ravel()[:4])
        found[f"along axis {axis}: {said}{', …' if factors.size > 4 else ''}"] = factors * right
    return found


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
