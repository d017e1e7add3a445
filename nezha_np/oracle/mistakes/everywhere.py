"""Mistakes that can be made at every step: dropout left on, weights rounded."""

from __future__ import annotations

from typing import Any

import numpy as np

from nezha_np.layers.activations import gelu, gelu_new, relu, selu, silu, tanh
from nezha_np.layers.addition import add
from nezha_np.layers.attention import (
    append_keys,
    attention_probs,
    content_context,
    content_scores,
    merge_heads,
    split_heads,
)
from nezha_np.layers.embedding import embedding
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.layers.relative_position import position_context, position_scores
from nezha_np.layers.selection import first_token, last_token
from nezha_np.layers.span_convolution import (
    convolution_kernels,
    dynamic_convolution,
    join_features,
    multiply,
    separable_convolution,
)
from nezha_np.mechanism import Layer
from nezha_np.oracle.mistakes.mistake import Evidence, Mistake, Ways, mistake
from nezha_np.oracle.mistakes.narrowing import HALF, narrow, recognise_rounding
from nezha_np.oracle.replay import At, Changes, Step

EVERYWHERE: list[Mistake] = []
MOST_TRIED = 80  # arrays of one shape
# How many of a layer's arguments are arrays that are computed.
INPUTS: dict[Layer, int] = {
    linear: 1,
    grouped_linear: 1,
    layer_norm: 1,
    add: 2,
    split_heads: 1,
    append_keys: 2,
    content_scores: 2,
    position_scores: 1,
    query_distance_scores: 1,
    key_distance_scores: 1,
    attention_probs: 1,
    content_context: 2,
    position_context: 1,
    merge_heads: 1,
    separable_convolution: 1,
    multiply: 2,
    convolution_kernels: 1,
    dynamic_convolution: 2,
    join_features: 2,
    first_token: 1,
    last_token: 1,
    **dict.fromkeys((gelu, gelu_new, relu, silu, selu, tanh), 1),
}
WITH_WEIGHTS = (
    embedding,
    layer_norm,
    linear,
    grouped_linear,
    separable_convolution,
    query_distance_scores,
    key_distance_scores,
)

# ------------------------------------------------------------------------------------------------------------- dropout

dropout_left_on = mistake(
    EVERYWHERE,
    "dropout left on",
    does="numbers are set to 0 at random, and the others scaled up",
    right="to apply dropout in training alone (model.eval())",
    fits_any_numbers=True,
)


@dropout_left_on.recogniser
def dropped(evidence: Evidence) -> Ways:
    """Recognise dropout: each number is 0 or c times the right one, perhaps with the residual added."""
    added: Any = 0.0
    right, theirs = evidence.right, evidence.theirs
    if evidence.layer is add and evidence.step.name.endswith("residual"):
        right, added = evidence.arguments
        theirs = theirs - added
    zero = (np.abs(theirs) <= evidence.allowed) & (np.abs(right) > 2.0 * evidence.allowed)
    scaled_up = ~zero & (right != 0.0) & (np.abs(right) >= np.median(np.abs(right)))
    if not zero.any() or not scaled_up.any():
        return {}
    factor = float(np.median(theirs[scaled_up] / right[scaled_up]))
    if not 1.01 < factor < 20.0:
        return {}
    made = factor * right
    return evidence.replace_result(np.where(np.abs(theirs) < np.abs(theirs - made), 0.0, made) + added)


# ------------------------------------------------------------------------------------------------------- another input

wrong_input = mistake(
    EVERYWHERE,
    "another input",
    does="a step takes another array than its own, or one more: one made before it, or an input",
    right="its own",
)


@wrong_input.recogniser
def another_input(evidence: Evidence) -> Ways:
    """Recognise another array in place of an argument of the layer: one made earlier, or an input."""
    found: dict[str, Changes] = {}
    own_arguments = evidence.arguments[: INPUTS.get(evidence.layer, 0)]
    arrays = {**evidence.others, **float_inputs(evidence.step)}
    for place, own in enumerate(own_arguments):
        own_name = next((name for name, array in arrays.items() if array is own or same(array, own)), "its own input")
        alike = [name for name, array in arrays.items() if array.shape == own.shape and array.dtype.kind == "f"]
        early = [name for name in alike[MOST_TRIED:] if name.startswith("embeddings")]
        for name in (*alike[:MOST_TRIED], *early):
            other = arrays[name]
            if same(other, own):
                continue
            if makes_theirs(evidence, *evidence.arguments[:place], other, *evidence.arguments[place + 1 :]):
                found[f"{name} in place of {own_name}"] = instead_of(evidence, place, other)
                break  # of several that are alike, the latest
    if evidence.layer in (add, layer_norm):  # a sum, or what is taken of one, may have a summand more
        own, *rest = evidence.arguments
        for name, array in arrays.items():
            if array.shape != own.shape or array.dtype.kind != "f":
                continue
            if makes_theirs(evidence, own + array, *rest):
                found[f"{name} added besides"] = instead_of(evidence, 0, own + array)
                break
    return found


def makes_theirs(evidence: Evidence, *arguments: Any) -> bool:
    """Whether a step makes their numbers of other arguments, about: larger ones have larger roundings."""
    with np.errstate(all="ignore"):  # numbers that no port would put there
        return evidence.is_explained_by(evidence.step.right(*arguments, **evidence.options), margin=4.0)


def float_inputs(step: Step) -> dict[str, np.ndarray]:
    """List the float arrays among the inputs: states of an encoder, and the cache by layer and place."""
    arrays = {name: array for name, array in step.inputs.items() if isinstance(array, np.ndarray)}
    for layer, of_layer in enumerate(step.inputs.get("past_key_values") or ()):
        arrays |= {f"past_key_values[{layer}][{place}]": np.asarray(array) for place, array in enumerate(of_layer)}
    return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}


def same(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two arrays have the same numbers."""
    return x is y or (x.shape == y.shape and bool((x == y).all()))


def instead_of(evidence: Evidence, place: int, other: np.ndarray) -> Changes:
    """Give the layer of this step another array."""

    def change(step: Step, *arguments: Any, **options: Any) -> Any:
        return step.right(*arguments[:place], other, *arguments[place + 1 :], **options)

    return {evidence.layer: At(evidence.step.name, change)}


# ------------------------------------------------------------------------------------------------------------ rounding

weights_rounded = mistake(
    EVERYWHERE,
    "weights rounded",
    does="weights are rounded to a narrower dtype than the port computes in (a checkpoint saved in half precision)",
    right="to take the checkpoint's numbers in its dtype",
    of_rounding=True,
)


def of_rounded_weights(dtype: str) -> Changes:
    """The weights of every layer that has some rounded to a dtype."""

    def change(step: Step, x: Any, *weights: Any, **options: Any) -> Any:
        rounded = (None if weight is None else narrow(weight, dtype) for weight in weights)
        return step.right(x, *rounded, **options)

    return dict.fromkeys(WITH_WEIGHTS, change)


for dtype in HALF:
    weights_rounded.add_way(dtype, of_rounded_weights(dtype))

narrow_result = mistake(
    EVERYWHERE,
    "result in half precision",
    does="a step computes in a narrower dtype than the rest of the port, or stores its result in one",
    right="the dtype of the port",
)


@narrow_result.recogniser
def rounded_result(evidence: Evidence) -> Ways:
    """Recognise a result in half precision, of a step that is no softmax."""
    if evidence.layer in (attention_probs, convolution_kernels):
        return {}
    return recognise_rounding(evidence, lambda dtype: narrow(evidence.right, dtype))
