"""Passes in a narrower arithmetic: what rounding alone may change.

An implementation in float32, float16 or bfloat16 is right when it differs from the golden numbers by no more than its
roundings. How much that is depends on the model and the input, so it is measured: the pass is run in that arithmetic,
and run again with every result nudged by up to a unit in its last place, because another
implementation adds in another order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.layers import losses
from nezha_np.layers.masks import additive_mask
from nezha_np.mechanism import Layer, Tape
from nezha_np.narrow.bfloat16 import round_to_bits, widened
from nezha_np.randomness import uniform
from nezha_np.weights.weights import Weights


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """A dtype of results.

    Attributes
    ----------
    name : str
        The dtype.
    computed_in : str
        What NumPy computes it in.
    epsilon : float
        The distance from 1 to the next number.
    largest, smallest : float
        Its largest number, and the smallest above 0.
    """

    name: str
    computed_in: str
    epsilon: float
    largest: float
    smallest: float


ARITHMETICS = {
    arithmetic.name: arithmetic
    for arithmetic in (
        Arithmetic("float64", "float64", 2.0**-52, float(np.finfo(np.float64).max), 2.0**-1074),
        Arithmetic("float32", "float32", 2.0**-23, float(np.finfo(np.float32).max), 2.0**-149),
        Arithmetic("float16", "float16", 2.0**-10, 65504.0, 2.0**-24),
        Arithmetic("bfloat16", "float32", 2.0**-7, (2.0 - 2.0**-7) * 2.0**127, 2.0**-133),
    )
}

# PyTorch's vectorised exponential is right to 20 units in the last place, and its cross-entropy takes two: with the
# margin of `nezha_np.oracle.tolerances` this number covers them. The exact one's error is half a unit.
EXPONENTIAL = 8.0


def rounded(values: np.ndarray, arithmetic: Arithmetic) -> np.ndarray:
    """Round floats to a dtype, without a change of their own; what is beyond its largest number becomes it.

    Examples
    --------
    >>> rounded(np.array([1.001, 1.01, 1e9]), ARITHMETICS["bfloat16"])
    array([1.00000000e+00, 1.00781250e+00, 9.98244352e+08])
    """
    if values.dtype.kind != "f" or (arithmetic.name in ("float64", "float32") and values.dtype == arithmetic.name):
        return values
    if arithmetic.name in ("float16", "bfloat16"):
        most = min(arithmetic.largest, float(np.finfo(values.dtype).max))
        values = np.clip(values, -most, most)
    if arithmetic.name == "bfloat16":
        return np.where(np.isfinite(values), widened(round_to_bits(values)), values).astype(values.dtype)
    with np.errstate(over="ignore"):  # the minimum of a float64 mask
        return values.astype(arithmetic.name).astype(values.dtype)


def as_computed(values: np.ndarray, arithmetic: Arithmetic) -> np.ndarray:
    """Round floats to a dtype, and give them the one that NumPy computes it in."""
    if values.dtype.kind != "f":
        return values
    return rounded(values, arithmetic).astype(arithmetic.computed_in)


def weights_in(weights: Weights, arithmetic: Arithmetic) -> Weights:
    """Round weights to a dtype."""
    return Weights({name: as_computed(to_numpy(array), arithmetic) for name, array in weights.items()}, weights.config)


def inputs_in(inputs: Mapping[str, Any], arithmetic: Arithmetic) -> dict[str, Any]:
    """Round the float arrays among the arguments of a head to a dtype."""

    def converted(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(converted, value))
        return as_computed(value, arithmetic) if isinstance(value, np.ndarray) else value

    return {name: converted(value) for name, value in inputs.items()}


class Rounded(Tape):
    """A tape whose results are rounded to a dtype one by one; with a nudge, each is also moved by a random part of it.

    An additive mask is not: its minimum means never, and is the minimum of whatever dtype it is in.
    """

    def __init__(self, arithmetic: Arithmetic, nudge: int = 0, dropout_seed: tuple[int, ...] | None = None) -> None:
        super().__init__(dropout_seed)
        self.arithmetic, self.nudge = arithmetic, nudge

    def compute(self, name: str, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make the result of a layer, and round it."""
        result = super().compute(name, layer, arguments, options)
        if layer is additive_mask or any(result is argument for argument in arguments):
            return result
        return rounded_result(result, name, self.arithmetic, self.nudge)

    def compute_gradient(
        self, dy: Any, result: Any, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Make the gradients of a layer's arguments, and round them."""
        parts = super().compute_gradient(dy, result, layer, arguments, options)
        if layer is losses.cross_entropy and self.nudge:
            parts = with_another_exponential(
                parts, dy, *arguments, **options, arithmetic=self.arithmetic, nudge=self.nudge
            )
        parts = parts if isinstance(parts, tuple) else (parts,)
        return tuple(
            None if part is None else rounded_result(part, f"{layer.__name__}.{index}", self.arithmetic, self.nudge)
            for index, part in enumerate(parts)
        )


def with_another_exponential(
    dlogits: Any,
    dloss: Any,
    logits: Any,
    labels: Any,
    *,
    ignore_index: int = losses.IGNORE_INDEX,
    arithmetic: Arithmetic,
    nudge: int,
) -> np.ndarray:
    """Nudge the gradient of a cross-entropy, (p − [c = y]) · dloss / n, as another exponential would.

    Its probabilities p are moved by up to `EXPONENTIAL` units of float32 each, and all of a row by as much together.
    Where p is near 1, what is left of p − 1 is much smaller than that: to nudge the result by a unit of its own would
    say nothing of it.

    Parameters
    ----------
    dlogits : (…, C) array
        The gradient.
    dloss, logits, labels, ignore_index
        What it was made of, as for `nezha_np.layers.losses.cross_entropy_gradient`.
    arithmetic : Arithmetic
        The dtype of the pass.
    nudge : int
        The number of the nudge.

    Returns
    -------
    (…, C) array
        The nudged gradient, not rounded yet.
    """
    values = to_numpy(dlogits)
    flat_labels = to_numpy(labels).reshape(-1)
    rows = np.flatnonzero(flat_labels != ignore_index)
    p = values.reshape(len(flat_labels), values.shape[-1]).astype(np.float64)
    p[rows, flat_labels[rows]] += float(dloss) / max(len(rows), 1)
    of_each = uniform(values.size, nudge, "exponential").reshape(p.shape) * 2.0 - 1.0
    of_sum = uniform(len(p), nudge, "sum of exponentials") * 2.0 - 1.0  # by which all p of a row are divided
    unit = min(arithmetic.epsilon, ARITHMETICS["float32"].epsilon)
    moved = p * (of_each + of_sum[:, None]) * EXPONENTIAL * unit
    return np.asarray(values + moved.reshape(values.shape), values.dtype)


def rounded_result(array: Any, name: str, arithmetic: Arithmetic, nudge: int) -> np.ndarray:
    """Round a result to a dtype; with a nudge move each number before by up to a unit in its last place."""
    values = to_numpy(array)
    if values.dtype.kind != "f":
        return values
    if nudge:
        moved = uniform(values.size, nudge, name).reshape(values.shape) * 2.0 - 1.0
        values = (values * (1.0 + moved * arithmetic.epsilon)).astype(values.dtype)
    return rounded(values, arithmetic)
