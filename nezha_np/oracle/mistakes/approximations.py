"""Functions that are approximated, or are others: exponentials, roots, error functions, GELU by a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import activations
from nezha_np.layers.attention import attention_probs
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.span_convolution import convolution_kernels
from nezha_np.mechanism import Layer
from nezha_np.oracle.mistakes.mistake import Evidence, Mistake, Ways, mistake
from nezha_np.oracle.mistakes.narrowing import narrow
from nezha_np.oracle.replay import Changes, Step

APPROXIMATIONS: list[Mistake] = []
Function = Callable[[Any], Any]

# --------------------------------------------------------------------------------------------------------- exponentials

another_exponential = mistake(
    APPROXIMATIONS,
    "softmax of another exponential",
    does="the exponential is approximated, has another base, or its sum has another summand",
    right="exp(x − maximum) over the sum of these",
)


def quotient(exponential: Function, more: float = 0.0) -> Changes:
    """A softmax of another exponential, with something more in the denominator."""

    def softmax(x: Any) -> Any:
        power = exponential(np.maximum(x - x.max(axis=-1, keepdims=True), -700.0))
        total: Any = power / (power.sum(axis=-1, keepdims=True) + more)
        return total

    def probs(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
        logits = np.asarray(scores * scale, np.float64)
        return softmax(logits if mask is None else np.maximum(logits + mask, -1e30)).astype(scores.dtype)

    def kernels(step: Step, scores: Any, *, size: int) -> Any:
        return softmax(scores.reshape(*scores.shape[:2], -1, size))

    return {attention_probs: probs, convolution_kernels: kernels}


def schraudolph(shift: int) -> Function:
    """Schraudolph's exponential (1999): a float32 whose bits are a line in x."""

    def function(x: Any) -> Any:
        bits = np.maximum(x * (2.0**23 / math.log(2.0)) + (127 * 2**23 - shift), 0.0)
        return bits.astype(np.int64).astype(np.int32).view(np.float32).astype(np.float64)

    return function


def by_powers_of_two(coefficients: tuple[float, ...]) -> Function:
    """2^⌊y⌋ times a polynomial in what is left of y = x / ln 2."""

    def function(x: Any) -> Any:
        y = x / math.log(2.0)
        part = y - np.floor(y)
        return np.ldexp(np.polyval(coefficients[::-1], part), np.floor(y).astype(int))

    return function


def schraudolph_in_float32(shift: int) -> Function:
    """The same, computed in float32: its bits are whole multiples of a power of 2."""

    def function(x: Any) -> Any:
        line = np.asarray(x, np.float32) * np.float32(2.0**23 / math.log(2.0)) + np.float32(127 * 2**23 - shift)
        return np.maximum(line, 0.0).astype(np.int64).astype(np.int32).view(np.float32).astype(np.float64)

    return function


def of_limit(n: int) -> Function:
    """(1 + x/n)^n, 0 where this is no number above 0."""
    return lambda x: np.maximum(1.0 + x / n, 0.0) ** n


for shift in (0, 366393, 486411, 298765):
    another_exponential.add_way(
        f"a float32's bits as a line, moved by {shift}, in float32", quotient(schraudolph_in_float32(shift))
    )
TAYLOR = tuple(math.log(2.0) ** power / math.factorial(power) for power in range(6))
for shift in (0, 366393, 486411, 298765, 60801 * 8, 545947):
    another_exponential.add_way(f"a float32's bits as a line, moved by {shift}", quotient(schraudolph(shift)))
for degree in (1, 2, 3, 4):
    another_exponential.add_way(
        f"2^y with {degree + 1} terms of its series", quotient(by_powers_of_two(TAYLOR[: degree + 1]))
    )
another_exponential.add_way("2^y with 1 + f for its fraction", quotient(by_powers_of_two((1.0, 1.0))))
for power in (4, 5, 6, 7, 8, 9, 10, 12):
    another_exponential.add_way(f"(1 + x/{2**power})^{2**power}", quotient(of_limit(2**power)))
another_exponential.add_way("2^x in place of e^x", quotient(lambda x: 2.0**x))
another_exponential.add_way("1 more in the denominator", quotient(np.exp, 1.0))
for more in (1e-6, 1e-5, 1e-4, 1e-3, 1e-9):
    another_exponential.add_way(f"{more:g} more in the denominator".replace("e-0", "e-"), quotient(np.exp, more))
another_exponential.add_way("10^x in place of e^x", quotient(lambda x: 10.0**x))


def cut_off(least: float) -> Function:
    """The exponential, 0 below a number."""
    return lambda x: np.where(x < least, 0.0, np.exp(x))


for least in (-8.0, -10.0, -16.0, -20.0, -32.0):
    another_exponential.add_way(f"0 below {least:g}".replace("-", "−"), quotient(cut_off(least)))


@another_exponential.way("sigmoid in place of softmax", attention_probs)
def sigmoid_probs(step: Step, scores: Any, mask: Any = None, *, scale: float) -> Any:
    """Each score by itself."""
    logits = scores * scale if mask is None else np.maximum(scores * scale + mask, -700.0)
    return activations.sigmoid(logits)


# ---------------------------------------------------------------------------------------------------------------- roots

another_root = mistake(
    APPROXIMATIONS,
    "norm with another deviation",
    does="layer_norm's deviation is approximated, or computed in a narrower dtype",
    right="√(variance + ε), with mean and variance in float32 at least",
)


def with_inverse(inverse: Function) -> Changes:
    """Another function for 1/√x."""

    def change(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        centred = np.asarray(x - x.mean(axis=-1, keepdims=True), np.float64)
        variance = (centred * centred).mean(axis=-1, keepdims=True) + eps
        return (centred * inverse(variance) * weight + bias).astype(x.dtype)

    return {layer_norm: change}


def fast_inverse_root(steps: int) -> Function:
    """Quake III's 1/√x: half of the bits from a number, then steps of Newton's method."""

    def function(x: Any) -> Any:
        bits = np.asarray(x, np.float32).view(np.int32)
        y = (0x5F3759DF - (bits >> 1)).astype(np.int32).view(np.float32).astype(np.float64)
        for _ in range(steps):
            y = y * (1.5 - 0.5 * x * y * y)
        return y

    return function


def of_few_bits(bits: int) -> Function:
    """1/√x with its first bits alone, cut off or rounded."""

    def function(x: Any) -> Any:
        mantissa, exponent = np.frexp(1.0 / np.sqrt(x))
        return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)

    return function


def cut_to_bits(bits: int) -> Function:
    """1/√x with the bits after the first cut off."""

    def function(x: Any) -> Any:
        mantissa, exponent = np.frexp(1.0 / np.sqrt(x))
        return np.ldexp(np.floor(np.ldexp(mantissa, bits)), exponent - bits)

    return function


for steps in (0, 1, 2):
    another_root.add_way(
        f"by the bits of a float32 and {steps} steps of Newton's method", with_inverse(fast_inverse_root(steps))
    )
for bits in (8, 10, 11, 12, 13, 14):
    another_root.add_way(f"1/√x rounded to {bits} bits", with_inverse(of_few_bits(bits)))
    another_root.add_way(f"1/√x cut off after {bits} bits", with_inverse(cut_to_bits(bits)))


def statistics_in(dtype: str, *, of_squares: bool) -> Changes:
    """Mean and variance in a narrower dtype."""

    def change(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        x = np.asarray(x, np.float64)
        mean = narrow(x.mean(axis=-1, keepdims=True), dtype)
        if of_squares:
            variance = narrow((x * x).mean(axis=-1, keepdims=True), dtype) - narrow(mean * mean, dtype)
        else:
            variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
        return (x - mean) / np.sqrt(np.maximum(narrow(variance, dtype), 0.0) + eps) * weight + bias

    return {layer_norm: change}


for dtype in ("float16", "bfloat16"):
    another_root.add_way(f"mean and variance in {dtype}", statistics_in(dtype, of_squares=False))
    another_root.add_way(f"E[x²] − E[x]² in {dtype}", statistics_in(dtype, of_squares=True))


def all_in(dtype: str) -> Changes:
    """Everything before the weight in a narrower dtype."""

    def change(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        x = narrow(np.asarray(x, np.float64), dtype)
        centred = narrow(x - narrow(x.mean(axis=-1, keepdims=True), dtype), dtype)
        variance = narrow(narrow(centred * centred, dtype).mean(axis=-1, keepdims=True), dtype)
        return centred / np.sqrt(variance + eps) * weight + bias

    return {layer_norm: change}


for dtype in ("float16", "bfloat16"):
    another_root.add_way(f"x, mean and variance in {dtype}", all_in(dtype))


@another_root.way("variance about 0", layer_norm)
def about_zero(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The mean subtracted, and divided by the root of the mean square before that."""
    square = (x * x).mean(axis=-1, keepdims=True)
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(square + eps) * weight + bias


@another_root.way("mean absolute deviation", layer_norm)
def absolute_deviation(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The mean of absolute differences in place of the root of the mean square."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / (np.abs(centred).mean(axis=-1, keepdims=True) + eps) * weight + bias


@another_root.way("divided by the variance, without the root", layer_norm)
def by_variance(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The variance in place of the deviation."""
    return (x - x.mean(axis=-1, keepdims=True)) / (x.var(axis=-1, keepdims=True) + eps) * weight + bias


@another_root.way("not divided", layer_norm)
def centred_alone(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The mean subtracted, and nothing divided."""
    return (x - x.mean(axis=-1, keepdims=True)) * weight + bias


@another_root.way("mean and deviation of the first token, or text, for all", layer_norm)
def of_first(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The statistics of the first token for all tokens of a text."""
    if x.ndim < 3:
        raise ValueError("there is one token alone")
    first = x[:, :1]
    deviation = np.sqrt(first.var(axis=-1, keepdims=True) + eps)
    return (x - first.mean(axis=-1, keepdims=True)) / deviation * weight + bias


@another_root.way("mean and deviation of a whole text", layer_norm)
def of_text(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The statistics over tokens and features."""
    if x.ndim < 3:
        raise ValueError("there is one token alone")
    deviation = np.sqrt(x.var(axis=(-1, -2), keepdims=True) + eps)
    return (x - x.mean(axis=(-1, -2), keepdims=True)) / deviation * weight + bias


@another_root.recogniser
def deviation_of_each(evidence: Evidence) -> Ways:
    """Recognise rows that are the normalised ones times a factor near 1 each, and moved a little: other statistics."""
    if evidence.layer is not layer_norm:
        return {}
    x, weight, bias = evidence.arguments
    normalised = evidence.step.right(x, np.ones_like(weight), np.zeros_like(bias), **evidence.options) * weight
    moved = evidence.theirs - bias
    ones = np.broadcast_to(weight, normalised.shape)
    a11, a12, a22 = ((p * q).sum(-1) for p, q in ((normalised, normalised), (normalised, ones), (ones, ones)))
    b1, b2 = (normalised * moved).sum(-1), (ones * moved).sum(-1)
    whole = a11 * a22 - a12 * a12
    if x.shape[-1] < 8 or (whole <= 0.0).any():
        return {}
    slope, offset = (b1 * a22 - b2 * a12) / whole, (b2 * a11 - b1 * a12) / whole
    if np.abs(slope - 1.0).max() > 0.05 or np.abs(offset).max() > 0.05:
        return {}
    made = normalised * slope[..., None] + offset[..., None] * weight + bias
    return evidence.replace_result(made, f"factors up to {np.abs(slope - 1.0).max():.2g} from 1")


# ---------------------------------------------------------------------------------------------------------- activations

approximated = mistake(
    APPROXIMATIONS,
    "activation approximated",
    does="an activation is computed by an approximation or a table, or is another function of the same numbers",
    right="the configuration's hidden_act, in the port's own precision",
)
ALL_ACTIVATIONS: tuple[Layer, ...] = (
    activations.gelu, activations.gelu_new, activations.relu, activations.silu, activations.selu
)  # fmt: skip


def instead(function: Function) -> Changes:
    """Another function in place of every activation but tanh."""
    return dict.fromkeys(ALL_ACTIVATIONS, lambda step, x: function(x))


def gelu_of(erf: Function) -> Function:
    """GELU with another error function, of x ≥ 0."""
    return lambda x: 0.5 * x * (1.0 + np.sign(x) * erf(np.abs(x) / math.sqrt(2.0)))


def rational(p: float, *coefficients: float) -> Function:
    """Abramowitz and Stegun 7.1.25 and 7.1.26: 1 − (a₁ t + a₂ t² + …) exp(−x²) with t = 1/(1 + p x)."""

    def erf(x: Any) -> Any:
        t = 1.0 / (1.0 + p * x)
        return 1.0 - np.polyval((*coefficients[::-1], 0.0), t) * np.exp(-x * x)

    return erf


def power_of_sum(power: int, *coefficients: float) -> Function:
    """Abramowitz and Stegun 7.1.27 and 7.1.28: 1 − 1/(1 + a₁ x + a₂ x² + …)^n."""
    return lambda x: 1.0 - 1.0 / np.polyval((*coefficients[::-1], 1.0), x) ** power


def winitzki(x: Any) -> Any:
    """Winitzki's error function, a = 0.147."""
    square = x * x
    root: Any = np.sqrt(1.0 - np.exp(-square * (4.0 / math.pi + 0.147 * square) / (1.0 + 0.147 * square)))
    return root


def i_bert(x: Any) -> Any:
    """I-BERT's polynomial for the error function."""
    bounded: Any = -0.2888 * (np.minimum(x, 1.769) - 1.769) ** 2 + 1.0
    return bounded


ERRORS: dict[str, Function] = {
    "7.1.25": rational(0.47047, 0.3480242, -0.0958798, 0.7478556),
    "7.1.26": rational(0.3275911, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429),
    "7.1.27": power_of_sum(4, 0.278393, 0.230389, 0.000972, 0.078108),
    "7.1.28": power_of_sum(16, 0.0705230784, 0.0422820123, 0.0092705272, 0.0001520143, 0.0002765672, 0.0000430638),
}
for name, error in ERRORS.items():
    approximated.add_way(f"error function of Abramowitz and Stegun {name}", instead(gelu_of(error)))
approximated.add_way("error function of Winitzki", instead(gelu_of(winitzki)))
approximated.add_way("error function of I-BERT", instead(gelu_of(i_bert)))


def gelu_of_tanh(inner: float, cubic: float) -> Function:
    """The tanh approximation with other numbers."""
    return lambda x: 0.5 * x * (1.0 + np.tanh(inner * (x + cubic * x**3)))


def hard_swish(x: Any) -> Any:
    """x · min(max(x + 3, 0), 6) / 6."""
    return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0


OTHERS: dict[str, Function] = {
    "tanh without the cubic term": gelu_of_tanh(math.sqrt(2.0 / math.pi), 0.0),
    "tanh with 0.44715": gelu_of_tanh(math.sqrt(2.0 / math.pi), 0.44715),
    "tanh with 0.8": gelu_of_tanh(0.8, 0.044715),
    "tanh with 2/π, not its root": gelu_of_tanh(2.0 / math.pi, 0.044715),
    "hard swish": hard_swish,
    "x · sigmoid(1.7 x)": lambda x: x * activations.sigmoid(1.7 * x),
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "leaky relu of 0.01": lambda x: np.where(x < 0.0, 0.01 * x, x),
    "elu": lambda x: np.where(x < 0.0, np.expm1(np.minimum(x, 0.0)), x),
    "softplus": lambda x: np.logaddexp(x, 0.0),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0.0)),
    "relu squared": lambda x: np.maximum(x, 0.0) ** 2,
    "the sigmoid": activations.sigmoid,
    "the error function alone": lambda x: np.asarray(activations.erf(x / math.sqrt(2.0))),
    "Φ(x) alone": lambda x: np.asarray(0.5 * (1.0 + activations.erf(x / math.sqrt(2.0)))),
    "without 1/2": lambda x: np.asarray(x * (1.0 + activations.erf(x / math.sqrt(2.0)))),
    "of −x": lambda x: np.asarray(-0.5 * x * (1.0 + activations.erf(-x / math.sqrt(2.0)))),
    "of |x|": lambda x: np.asarray(0.5 * np.abs(x) * (1.0 + activations.erf(np.abs(x) / math.sqrt(2.0)))),
}
for name, function in OTHERS.items():
    approximated.add_way(name, instead(function))


def twice(step: Step, x: Any) -> Any:
    """The activation of the activation."""
    return step.right(step.right(x))


approximated.add_way("applied twice", dict.fromkeys(ALL_ACTIVATIONS, twice))


def bounded(most: float) -> Callable[..., Any]:
    """The activation of numbers that are cut off at ±most."""
    return lambda step, x: step.right(np.clip(x, -most, most))


def cut_below(least: float) -> Callable[..., Any]:
    """0 below a number, and the numbers themselves above as many."""
    return lambda step, x: np.where(x < -least, 0.0, np.where(x > least, x, step.right(x)))


for most in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0):
    approximated.add_way(f"of numbers cut off at ±{most:g}", dict.fromkeys(ALL_ACTIVATIONS, bounded(most)))
    approximated.add_way(f"0 or x beyond ±{most:g}", dict.fromkeys(ALL_ACTIVATIONS, cut_below(most)))


def from_a_table(entries: int, rounded: Function, most: float) -> Callable[..., Any]:
    """The activation of x rounded to one of so many entries for each unit; 0 or x beyond ±most."""

    def change(step: Step, x: Any) -> Any:
        made = step.right(rounded(x * entries) / entries)
        return np.where(np.abs(x) > most, np.maximum(x, 0.0), made)

    return change


ROUNDED: dict[str, Function] = {"the nearest": np.round, "the one below": np.floor}
for entries, (which, rounded), most in itertools.product(
    (8, 16, 32, 64, 100, 128, 256), ROUNDED.items(), (4.0, 8.0, math.inf)
):
    if most == 4.0 or entries in (16, 32, 64):
        beyond = "" if most == math.inf else f", 0 or x beyond ±{most:g}"
        approximated.add_way(
            f"a table of {entries} entries a unit, {which}{beyond}",
            dict.fromkeys(ALL_ACTIVATIONS, from_a_table(entries, rounded, most)),
        )


@approximated.recogniser
def function_of_its_own(evidence: Evidence) -> Ways:
    """Recognise a function of each number alone: what differs depends on the number smoothly, and on nothing else."""
    if evidence.layer not in (*ALL_ACTIVATIONS, activations.tanh) or evidence.right.size < 200:
        return {}
    x, off = evidence.arguments[0].ravel(), (evidence.theirs - evidence.right).ravel()
    order = np.argsort(x)
    x, off = x[order], off[order]
    inside = slice(1, -1)
    part = (x[inside] - x[:-2]) / np.maximum(x[2:] - x[:-2], 1e-300)
    between = off[:-2] + part * (off[2:] - off[:-2])  # what its neighbours say
    if np.sqrt(np.mean((off[inside] - between) ** 2)) > 0.05 * np.sqrt(np.mean(off**2)):
        return {}
    return evidence.replace_result(evidence.theirs, f"a function of its own, up to {np.abs(off).max():.2g} away")
