"""Mistakes in linear layers: their weights, and the arithmetic of matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import span_convolution
from nezha_np.layers.attention import content_context, content_scores
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.oracle.mistakes.mistake import ENOUGH, LM_DECODERS, Evidence, Mistake, Ways, mistake
from nezha_np.oracle.mistakes.narrowing import narrow
from nezha_np.oracle.replay import At, Changes, Step

LINEAR: list[Mistake] = []
LEAST_SPREAD = 0.02  # of what the right results have, or another matrix is no explanation
PRODUCTS = (linear, grouped_linear, content_scores, content_context)

# ------------------------------------------------------------------------------------------------------------- weights

transposed = mistake(
    LINEAR,
    "weight transposed",
    does="a matrix is read in the wrong order",
    right="(out, in) for linear layers, and (in, out) for each group of ConvBERT's grouped ones",
)


@transposed.way("", linear)
def read_as_in_out(step: Step, x: Any, weight: Any, *bias: Any) -> Any:
    """The matrix read as (in, out)."""
    return step.right(x, weight.reshape(weight.shape[::-1]).T, *bias)


@transposed.way("", grouped_linear)
def groups_read_as_out_in(step: Step, x: Any, weight: Any, bias: Any) -> Any:
    """The matrix of each group read as (out, in)."""
    groups, into, out = weight.shape
    return step.right(x, weight.reshape(groups, out, into).transpose(0, 2, 1), bias)


swapped = mistake(
    LINEAR,
    "query, key or value swapped",
    does="a linear layer of attention has the weights of another one",
    right="for query, key and value to have their own weights each",
)


def taken_from(**others: str) -> Changes:
    """Weight and bias of query, key or value taken from another of them."""

    def change(step: Step, x: Any, *right: Any) -> Any:
        scope, _, which = step.name.rpartition(".")
        names = (f"{scope}.{others[which]}.{part}" for part in ("weight", "bias"))
        return step.right(x, *(step.weights[name] for name in names))

    return {linear: At(tuple(f"**.self.{which}" for which in others), change)}


swapped.add_way("query and key", taken_from(query="key", key="query"))
swapped.add_way("key and value", taken_from(key="value", value="key"))
swapped.add_way("query and value", taken_from(query="value", value="query"))
swapped.add_way("key, value, query for query, key, value", taken_from(query="key", key="value", value="query"))
swapped.add_way("value, query, key for query, key, value", taken_from(query="value", key="query", value="key"))

of_another_layer = mistake(
    LINEAR,
    "weights of another layer",
    does="a layer of the encoder has the weights of another one",
    right="for each layer to have its own",
)


def of_layer(other: Callable[[int, Step], int]) -> Changes:
    """Weight and bias of another layer of the encoder, where there is one."""

    def change(step: Step, x: Any, *right: Any, **options: Any) -> Any:
        start, _, rest = step.name.partition("encoder.layer.")
        index, _, module = rest.partition(".")
        if start or not module:
            return step.right(x, *right, **options)
        names = (f"encoder.layer.{other(int(index), step)}.{module}.{part}" for part in ("weight", "bias"))
        theirs = [step.weights.get(name) for name in names]
        fit = all(y is not None and y.shape == z.shape for y, z in zip(theirs, right, strict=False))
        return step.right(x, *(theirs if fit else right), **options)

    return dict.fromkeys((linear, grouped_linear, layer_norm), change)


of_another_layer.add_way("of the first", of_layer(lambda index, step: 0))
of_another_layer.add_way("of the last", of_layer(lambda index, step: int(step.config.num_hidden_layers) - 1))
of_another_layer.add_way("of the next", of_layer(lambda index, step: index + 1))
of_another_layer.add_way("of the one before", of_layer(lambda index, step: index - 1))

bias_missing = mistake(
    LINEAR, "bias missing", does="a linear layer leaves out its bias", right="to add it to every result"
)
bias_twice = mistake(LINEAR, "bias added twice", does="a linear layer adds its bias two times", right="to add it once")


def bias_times(factor: float) -> Changes:
    """The bias of every layer that has one, multiplied."""

    def change(step: Step, *arguments: Any) -> Any:
        *others, bias = arguments
        if bias is None:
            raise ValueError("there is no bias")
        return step.right(*others, bias * factor)

    return dict.fromkeys((linear, grouped_linear, span_convolution.separable_convolution), change)


bias_missing.add_way("", bias_times(0.0))
bias_twice.add_way("", bias_times(2.0))

# ------------------------------------------------------------------------------------------- weights fitted to numbers

another_bias = mistake(
    LINEAR,
    "another bias",
    does="a linear layer adds other numbers than its bias, the same to every result",
    right="the checkpoint's bias",
    fits_any_numbers=True,
)


def fitted_bias(evidence: Evidence) -> np.ndarray | None:
    """Fit a bias, where there are different rows, and return what it makes: every row has the same numbers added."""
    if evidence.layer not in (linear, grouped_linear):
        return None
    if count_rows(evidence) < 2:
        return None
    features = evidence.right.shape[-1]
    made: np.ndarray = evidence.right + (evidence.theirs - evidence.right).reshape(-1, features).mean(axis=0)
    return made


@another_bias.recogniser
def recognise_bias(evidence: Evidence) -> Ways:
    """Recognise another bias."""
    value = fitted_bias(evidence)
    return {} if value is None else evidence.replace_result(value)


another_weight = mistake(
    LINEAR,
    "another weight",
    does="a linear layer's results are another linear map of its inputs",
    right="the map that the checkpoint's weights make",
    fits_any_numbers=True,
)


def fitted_weight(evidence: Evidence) -> np.ndarray | None:
    """Fit matrix and bias by least squares, where there are enough different rows, and return what they make."""
    if evidence.layer is not linear or count_rows(evidence) < rows_to_fit(evidence):
        return None
    x = evidence.arguments[0]
    features = np.concatenate([x.reshape(-1, x.shape[-1]), np.ones((x[..., 0].size, 1))], axis=1)
    matrix = np.linalg.lstsq(features, evidence.theirs.reshape(len(features), -1), rcond=None)[0]
    made: np.ndarray = (features @ matrix).reshape(evidence.theirs.shape)
    return made


def spread(y: np.ndarray) -> float:
    """Return how much results differ from one row to another, the root mean square."""
    rows = y.reshape(-1, y.shape[-1])
    return float(np.sqrt(((rows - rows.mean(axis=0)) ** 2).mean()))


def another_matrix(evidence: Evidence, *, of_decoders: bool) -> Ways:
    """Recognise another matrix, where another bias is not enough: of a language model's decoder, or of any other."""
    value, of_bias = fitted_weight(evidence), fitted_bias(evidence)
    if value is None or of_bias is None or (evidence.step.name in LM_DECODERS) is not of_decoders:
        return {}
    if spread(evidence.theirs) < LEAST_SPREAD * spread(evidence.right):
        return {}  # results that are nearly the same for all inputs are explained by any numbers that are nearly 0
    return {} if evidence.is_explained_by(of_bias) else evidence.replace_result(value)


@another_weight.recogniser
def recognise_weight(evidence: Evidence) -> Ways:
    """Recognise another matrix of a layer that is no decoder."""
    return another_matrix(evidence, of_decoders=False)


def rows_to_fit(evidence: Evidence) -> int:
    """Return how many different rows tell another matrix from any numbers: with fewer, some matrix makes them all."""
    return int(evidence.arguments[0].shape[-1]) + 1 + ENOUGH


def count_rows(evidence: Evidence) -> int:
    """Count the different rows that a layer is applied to."""
    x = evidence.arguments[0]
    return len(np.unique(x.reshape(-1, x.shape[-1]), axis=0))


def too_few_rows(evidence: Evidence) -> str | None:
    """Say that another matrix may have made their numbers, where all are wrong and too few to tell."""
    if evidence.layer is not linear:
        return None
    rows, needed = count_rows(evidence), rows_to_fit(evidence)
    if rows >= needed:
        return None
    if not (np.abs(evidence.theirs - evidence.right) > evidence.allowed).any(axis=-1).all():
        return None
    what = "an untied decoder" if evidence.step.name in LM_DECODERS else "another matrix"
    return f"{what} may have made them: that takes {needed} different tokens to tell, and these are {rows}"


# ---------------------------------------------------------------------------------------------------------- arithmetic

narrower_products = mistake(
    LINEAR,
    "matrix products in a narrower dtype",
    does="matrix products round their factors to fewer digits, as TPUs and GPUs do unless told otherwise",
    right="to take them as they are",
    of_rounding=True,
)


def narrowed(bits: int) -> Changes:
    """Both factors of matrix products rounded to a number of binary digits."""

    def rounded(x: Any) -> Any:
        mantissa, exponent = np.frexp(x)
        return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)

    def change(step: Step, x: Any, y: Any, *rest: Any) -> Any:
        return step.right(rounded(x), rounded(y), *rest)

    return dict.fromkeys(PRODUCTS, change)


narrower_products.add_way("bfloat16", narrowed(8))
narrower_products.add_way("TF32 or float16", narrowed(11))

float16_sums = mistake(
    LINEAR,
    "float16 accumulation",
    does="the products of a matrix product are summed up in float16",
    right="to sum them in float32, and to round the sum",
    of_rounding=True,
)


def summed_in_float16(*, fused: bool) -> Changes:
    """Products added one after another, each sum rounded to float16; `fused`: the product itself is not."""
    wide = np.float32 if fused else np.float16

    def product(x: Any, y: Any) -> np.ndarray:
        x, y = x.astype(np.float16), y.astype(np.float16)
        total = np.zeros((*x.shape[:-1], y.shape[-1]), np.float16)
        for index in range(x.shape[-1]):
            product = x[..., index, None].astype(wide) * y[..., None, index, :].astype(wide)
            total = (total + product).astype(np.float16)
        return total.astype(np.float64)

    def of_rows(step: Step, x: Any, weight: Any, bias: Any = 0.0) -> Any:
        return (product(x.reshape(-1, x.shape[-1]), weight.T) + bias).reshape(*x.shape[:-1], -1)

    return {
        linear: of_rows,
        content_scores: lambda step, q, k: product(q, np.swapaxes(k, -1, -2)),
        content_context: lambda step, probs, v: product(probs, v),
    }


float16_sums.add_way("product and sum rounded", summed_in_float16(fused=False))
float16_sums.add_way("sum rounded", summed_in_float16(fused=True))


def summed_in_tiles(size: int, *, of_rounded: bool) -> Changes:
    """Products of tiles of features in float32, whose sums are rounded to float16 one after another."""

    def change(step: Step, x: Any, weight: Any, bias: Any = 0.0) -> Any:
        if x.shape[-1] <= size:
            raise ValueError("there is one tile alone")
        if of_rounded:
            x, weight = narrow(x, "float16"), narrow(weight, "float16")
        total = np.zeros((*x.shape[:-1], len(weight)))
        for at in range(0, x.shape[-1], size):
            total = narrow(total + x[..., at : at + size] @ weight[:, at : at + size].T, "float16")
        return total + (0.0 if bias is None else bias)

    return {linear: change}


for size in (4, 8, 16, 32, 64):
    float16_sums.add_way(f"in tiles of {size}", summed_in_tiles(size, of_rounded=False))
    float16_sums.add_way(f"in tiles of {size}, of factors in float16", summed_in_tiles(size, of_rounded=True))
