"""Numbers of few bits: a result in a narrower type at one place, int8 and int4 weights, int8 and fp8 products.

A port that computes so on purpose is told in which arithmetic its numbers would agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import activations
from nezha_np.layers.addition import add
from nezha_np.layers.attention import attention_probs, content_context, content_scores, merge_heads, split_heads
from nezha_np.layers.embedding import embedding
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.mechanism import Layer
from nezha_np.oracle.mistakes.mistake import Evidence, Mistake, Ways, mistake
from nezha_np.oracle.mistakes.narrowing import HALF, narrow
from nezha_np.oracle.replay import At, Changes, Step

COARSE_NUMBERS: list[Mistake] = []
Coarse = Callable[[Any], Any]

# -------------------------------------------------------------------------------------------------------------- formats


def of_bits(mantissa: int, least: int, most: float) -> Coarse:
    """Floats of so many binary digits, from 2^least on below which they are evenly spaced, up to a largest number."""

    def rounded(x: Any) -> Any:
        _, exponent = np.frexp(x)
        unit = np.ldexp(1.0, np.maximum(exponent - 1, least) - mantissa)
        return np.clip(np.round(x / unit) * unit, -most, most)

    return rounded


FLOATS: dict[str, Coarse] = {
    "float16": lambda x: narrow(x, "float16"),
    "bfloat16": lambda x: narrow(x, "bfloat16"),
    "TF32": of_bits(10, -126, 3e38),
    "fp8 e4m3": of_bits(3, -6, 448.0),
    "fp8 e5m2": of_bits(2, -14, 57344.0),
}


def integers(bits: int, axes: Callable[[Any], tuple[int, ...]]) -> Coarse:
    """Integers of so many bits times a scale, that of the largest number over some axes: symmetric quantisation."""
    most = 2 ** (bits - 1) - 1

    def rounded(x: Any) -> Any:
        largest = np.abs(x).max(axis=axes(x), keepdims=True)
        scale = np.where(largest == 0.0, 1.0, largest / most)
        return np.clip(np.round(x / scale), -most, most) * scale

    return rounded


def unsigned(axes: Callable[[Any], tuple[int, ...]]) -> Coarse:
    """Integers from 0 to 255 with a scale and a zero point: asymmetric quantisation, 0 among its numbers."""

    def rounded(x: Any) -> Any:
        low = np.minimum(x.min(axis=axes(x), keepdims=True), 0.0)
        high = np.maximum(x.max(axis=axes(x), keepdims=True), 0.0)
        scale = np.where(high == low, 1.0, (high - low) / 255.0)
        zero = np.round(-low / scale)
        return (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale

    return rounded


def in_groups(size: int, bits: int) -> Coarse:
    """Integers with a scale for each group of neighbours in a row."""
    of_group = integers(bits, lambda x: (x.ndim - 1,))

    def rounded(x: Any) -> Any:
        if x.shape[-1] % size:
            raise ValueError("the groups are not full")
        return of_group(x.reshape(*x.shape[:-1], -1, size)).reshape(x.shape)

    return rounded


def whole(x: np.ndarray) -> tuple[int, ...]:
    """All axes: one scale."""
    return tuple(range(x.ndim))


def last(x: np.ndarray) -> tuple[int, ...]:
    """The last axis: a scale for each row, an output of a weight or a token."""
    return (x.ndim - 1,)


# ------------------------------------------------------------------------------------------------- results at one place

narrow_place = mistake(
    COARSE_NUMBERS,
    "results of few bits",
    does="results of one kind of step are rounded to a narrower type than the port's: with it the port agrees",
    right="the dtype of the port, or to compare in the narrower one",
    of_rounding=True,
    across_texts=(
        "**in int8",
        "**in uint8 with a zero point",
    ),
)
ACTIVATIONS: tuple[Layer, ...] = (activations.gelu, activations.gelu_new, activations.relu, activations.silu)
PLACES: dict[str, tuple[tuple[Layer, ...], tuple[str, ...]]] = {
    "linear layers": ((linear, grouped_linear), ("encoder.**",)),
    "scores": ((content_scores, add), ("**.content_scores", "**.scores")),
    "sums of scores": ((add,), ("**.scores",)),
    "probabilities": ((attention_probs,), ("**",)),
    "context": ((merge_heads,), ("**",)),
    "activations": (ACTIVATIONS, ("encoder.**",)),
    "residuals": ((add,), ("**.residual",)),
    "norms": ((layer_norm,), ("**",)),
    "embeddings": ((embedding,), ("**",)),
    "queries, keys and values": ((split_heads,), ("**",)),
    "keys and values": ((split_heads,), ("**.self.k", "**.self.v")),
    "keys": ((split_heads,), ("**.self.k",)),
    "values": ((split_heads,), ("**.self.v",)),
    "every step": ((linear, grouped_linear, content_scores, content_context, attention_probs, add, layer_norm,
                    *ACTIVATIONS), ("**",)),
}  # fmt: skip


def result_rounded(coarse: Coarse) -> Callable[..., Any]:
    """A result, rounded."""
    return lambda step, *arguments, **options: coarse(step.right(*arguments, **options))


RESULTS: dict[str, Coarse] = {
    **FLOATS,
    "int8": integers(8, whole),
    "int8 with a scale for each row": integers(8, last),
    "uint8 with a zero point": unsigned(whole),
}
for place, (layers, patterns) in PLACES.items():
    for name, coarse in RESULTS.items():
        if place == "probabilities" and name in HALF:
            continue  # softmax in half precision
        narrow_place.add_way(f"{place} in {name}", dict.fromkeys(layers, At(patterns, result_rounded(coarse))))


def in_steps_of(count: int, rounded: Coarse = np.round) -> Coarse:
    """Numbers from 0 to 1 in so many steps."""
    return lambda x: rounded(x * count) / count


for count in (255, 256, 127, 128, 65535):
    narrow_place.add_way(f"probabilities in steps of 1/{count}", {attention_probs: result_rounded(in_steps_of(count))})
    narrow_place.add_way(
        f"probabilities cut off to steps of 1/{count}", {attention_probs: result_rounded(in_steps_of(count, np.floor))}
    )


def scores_divided_first(coarse: Coarse) -> Changes:
    """Scores that are scaled, rounded and then masked."""
    return {
        attention_probs: lambda step, scores, mask=None, *, scale: step.right(coarse(scores * scale), mask, scale=1.0)
    }


for name in ("float16", "bfloat16", "TF32"):
    narrow_place.add_way(f"scaled scores in {name}", scores_divided_first(FLOATS[name]))

# -------------------------------------------------------------------------------------------- linear layers of few bits

quantised = mistake(
    COARSE_NUMBERS,
    "quantised linear layers",
    does="weights or activations of linear layers are integers or floats of few bits with a scale: with these the port "
    "agrees",
    right="the checkpoint's weights as they are, or to compare with a tolerance for the quantisation",
    of_rounding=True,
    across_texts=(
        "**activations int8 per tensor",
        "**activations uint8 per tensor",
    ),
)


def factors_rounded(of_x: Coarse | None, of_weight: Coarse | None) -> Changes:
    """Both factors of linear layers rounded."""

    def change(step: Step, x: Any, weight: Any, *rest: Any) -> Any:
        own = weight if of_weight is None else of_weight(weight)
        return step.right(x if of_x is None else of_x(x), own, *rest)

    return {linear: change}


def zero_point_forgotten(axes: Callable[[Any], tuple[int, ...]], *, of_zero: bool) -> Coarse:
    """Integers from 0 to 255 with a zero point that is not subtracted again; `of_zero`: 0 is among the numbers."""

    def rounded(x: Any) -> Any:
        low, high = x.min(axis=axes(x), keepdims=True), x.max(axis=axes(x), keepdims=True)
        low, high = (np.minimum(low, 0.0), np.maximum(high, 0.0)) if of_zero else (low, high)
        scale = np.where(high == low, 1.0, (high - low) / 255.0)
        return np.clip(np.round(x / scale) - np.round(low / scale), 0, 255) * scale

    return rounded


wrong_zero = mistake(
    COARSE_NUMBERS,
    "zero point forgotten",
    does="linear layers take 8-bit integers from 0 to 255 without their zero point",
    right="to subtract it before the product, or the sum of the weights times it afterwards",
    across_texts=("activations per tensor**",),
)
for of_zero, which in ((False, "of the numbers alone"), (True, "of the numbers and 0")):
    for axes, what in ((whole, "per tensor"), (last, "in rows")):
        wrong_zero.add_way(
            f"activations {what}, {which}", factors_rounded(zero_point_forgotten(axes, of_zero=of_zero), None)
        )
        wrong_zero.add_way(
            f"weights {what}, {which}", factors_rounded(None, zero_point_forgotten(axes, of_zero=of_zero))
        )

WEIGHTS: dict[str, Coarse] = {
    "int8 per tensor": integers(8, whole),
    "int8 per channel": integers(8, last),
    "uint8 per tensor": unsigned(whole),
    "uint8 per channel": unsigned(last),
    "int4 per tensor": integers(4, whole),
    "int4 per channel": integers(4, last),
    "fp8 e4m3": FLOATS["fp8 e4m3"],
    "fp8 e5m2": FLOATS["fp8 e5m2"],
    **{f"int4 in groups of {size}": in_groups(size, 4) for size in (8, 16, 32, 64, 128)},
}
INPUTS: dict[str, Coarse] = {
    "int8 per tensor": integers(8, whole),
    "int8 per token": integers(8, last),
    "uint8 per tensor": unsigned(whole),
    "uint8 per token": unsigned(last),
    "fp8 e4m3": FLOATS["fp8 e4m3"],
    "fp8 e5m2": FLOATS["fp8 e5m2"],
}
for of_weight, coarse in WEIGHTS.items():
    quantised.add_way(f"weights {of_weight}", factors_rounded(None, coarse))
for of_x, coarse in INPUTS.items():
    quantised.add_way(f"activations {of_x}", factors_rounded(coarse, None))
for of_weight in ("int8 per tensor", "int8 per channel", "fp8 e4m3"):
    for of_x in INPUTS:
        quantised.add_way(f"weights {of_weight}, activations {of_x}", factors_rounded(INPUTS[of_x], WEIGHTS[of_weight]))


@quantised.way("embeddings int8 per tensor", embedding)
def coarse_table(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """A table of vectors in int8."""
    return step.right(ids, integers(8, whole)(weight), **options)


@quantised.way("embeddings int8 per row", embedding)
def coarse_rows(step: Step, ids: Any, weight: Any, **options: Any) -> Any:
    """A table of vectors in int8, with a scale for each row."""
    return step.right(ids, integers(8, last)(weight), **options)


@quantised.recogniser
def close_weight(evidence: Evidence) -> Ways:
    """Recognise numbers that all are whole multiples of one scale, no further away than half of it."""
    right, theirs = evidence.right, evidence.theirs
    values = np.unique(theirs)
    if evidence.layer is not linear or not 8 <= len(values) <= theirs.size / 2:
        return {}
    scale = float(np.median(np.diff(values)))
    multiples = theirs / scale
    on_grid = np.abs(multiples - np.round(multiples)) * scale <= evidence.allowed
    if not on_grid.all() or (np.abs(theirs - right) > 0.75 * scale).any() or scale < 16.0 * evidence.allowed:
        return {}
    return evidence.replace_result(theirs, f"its results multiples of {scale:.3g}")
