"""Terms of a gradient's formula that are left out, exchanged or taken over another axis; see `gradients_of_layers`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import activations
from nezha_np.layers.activations import gelu, gelu_new, relu, silu, tanh
from nezha_np.layers.addition import add
from nezha_np.layers.attention import attention_probs, content_context, content_scores, merge_heads, split_heads
from nezha_np.layers.embedding import embedding
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.losses import IGNORE_INDEX, bce_with_logits, cross_entropy, mse
from nezha_np.layers.relative_position import position_context, position_scores
from nezha_np.layers.selection import first_token
from nezha_np.oracle.mistakes.mistake import Mistake, mistake
from nezha_np.oracle.replay import Step

GRADIENT_TERMS: list[Mistake] = []


def flat_rows(x: Any) -> Any:
    """(…, H) -> (n, H)."""
    return x.reshape(-1, x.shape[-1])


# ---------------------------------------------------------------------------------------------------------- activations

of_activation = mistake(
    GRADIENT_TERMS,
    "gradient of an activation",
    does="the derivative of an activation lacks a term, or is that of another function or another number",
    right="Φ(x) + x φ(x) for GELU, 1 − y² for tanh",
)


def phi(x: Any) -> Any:
    """φ, the normal density."""
    return np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def cdf(x: Any) -> Any:
    """Φ, the normal distribution."""
    return np.asarray(0.5 * (1.0 + activations.erf(np.asarray(x, np.float64) / math.sqrt(2.0))), np.asarray(x).dtype)


def sigmoid_of(x: Any, factor: float) -> Any:
    """The sigmoid of a multiple."""
    return np.asarray(activations.sigmoid(factor * np.asarray(x)))


def gelu_tanh_slope(x: Any) -> Any:
    """The slope of GELU's tanh approximation without the derivative of its inner function."""
    inner = np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1.0 + inner)


SLOPES: dict[str, Callable[[Any, Any], Any]] = {
    "GELU without x φ(x)": lambda x, y: cdf(x),
    "GELU without Φ(x)": lambda x, y: x * phi(x),
    "GELU with −x φ(x)": lambda x, y: cdf(x) - x * phi(x),
    "GELU with φ(x) in place of x φ(x)": lambda x, y: cdf(x) + phi(x),
    "GELU with x² φ(x)": lambda x, y: cdf(x) + x * x * phi(x),
    "GELU with a density without √(2π)": lambda x, y: cdf(x) + x * np.exp(-0.5 * x * x),
    "GELU with exp(−x²)": lambda x, y: cdf(x) + x * np.exp(-x * x) / math.sqrt(2.0 * math.pi),
    "GELU with √π in its density": lambda x, y: cdf(x) + x * np.exp(-0.5 * x * x) / math.sqrt(math.pi),
    "GELU's Φ halved twice": lambda x, y: 0.5 * cdf(x) + x * phi(x),
    "GELU with φ of the result": lambda x, y: cdf(x) + x * phi(y),
    "GELU of its result": lambda x, y: cdf(y) + y * phi(y),
    "that of x · sigmoid(1.702 x)": lambda x, y: (
        sigmoid_of(x, 1.702) * (1.0 + 1.702 * x * (1.0 - sigmoid_of(x, 1.702)))
    ),
    "that of silu": lambda x, y: sigmoid_of(x, 1.0) * (1.0 + x * (1.0 - sigmoid_of(x, 1.0))),
    "that of relu": lambda x, y: (x > 0.0) * 1.0,
    "that of tanh": lambda x, y: 1.0 - np.tanh(x) ** 2,
    "half of tanh's sum alone": lambda x, y: gelu_tanh_slope(x),
    "1": lambda x, y: np.ones_like(x),
    "the result over the number": lambda x, y: y / np.where(x == 0.0, 1.0, x),
    "the result itself": lambda x, y: y,
}


def with_slope(slope: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Another derivative, of x and y."""
    return lambda step, dy, y, x: dy * slope(x, y)


for way, slope in SLOPES.items():
    of_activation.way(way, gelu, gelu_new, relu, silu)(with_slope(slope))
of_activation.way("1 − y for tanh", tanh)(with_slope(lambda x, y: 1.0 - y))
of_activation.way("1 − tanh(y)² for tanh", tanh)(with_slope(lambda x, y: 1.0 - np.tanh(y) ** 2))
of_activation.way("1 + y² for tanh", tanh)(with_slope(lambda x, y: 1.0 + y * y))
of_activation.way("y (1 − y) for tanh", tanh)(with_slope(lambda x, y: y * (1.0 - y)))
of_activation.way("(1 − y²)² for tanh", tanh)(with_slope(lambda x, y: (1.0 - y * y) ** 2))
of_activation.way("1 for tanh", tanh)(with_slope(lambda x, y: np.ones_like(x)))
of_activation.way("y for tanh", tanh)(with_slope(lambda x, y: y))

# ---------------------------------------------------------------------------------------------------------------- norms

of_norm_terms = mistake(
    GRADIENT_TERMS,
    "gradient of layer_norm without a term",
    does="a term or factor of layer_norm's gradient is left out, or taken over another axis",
    right="(γ dy − mean(γ dy) − x̂ mean(γ dy x̂)) / √(σ² + ε)",
)


def norm_of(
    *,
    mean: bool = True,
    along: bool = True,
    divided: bool = True,
    weighted: bool = True,
    axis: int = -1,
    power: float = 1.0,
    summed: bool = False,
    sign: float = 1.0,
    of_sample: bool = False,
) -> Callable[..., Any]:
    """The gradient of layer_norm with some of its terms alone."""

    def change(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        _, dweight, dbias = step.right(dy, y, x, weight, bias, eps=eps)
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
        normalised, g = centred / deviation, dy * weight if weighted else dy
        reduced = np.sum if summed else np.mean
        dx = g
        if mean:
            dx = dx - reduced(g, axis=axis, keepdims=True)
        if along:
            less = x.shape[-1] / (x.shape[-1] - 1.0) if of_sample else 1.0
            dx = dx - sign * less * normalised * reduced(g * normalised, axis=axis, keepdims=True)
        return dx / deviation**power if divided else dx, dweight, dbias

    return change


for way, changed in (
    ("the mean of γ dy", norm_of(mean=False)),
    ("the part along x̂", norm_of(along=False)),
    ("both means", norm_of(mean=False, along=False)),
    ("1/σ", norm_of(divided=False)),
    ("γ", norm_of(weighted=False)),
    ("both means and 1/σ", norm_of(mean=False, along=False, divided=False)),
    ("both means, 1/σ and γ", norm_of(mean=False, along=False, divided=False, weighted=False)),
    ("both means and γ", norm_of(mean=False, along=False, weighted=False)),
    ("1/σ and γ", norm_of(divided=False, weighted=False)),
    ("nothing, but divided by the variance", norm_of(power=2.0)),
    ("nothing, but sums in place of means", norm_of(summed=True)),
    ("nothing, but means over the tokens", norm_of(axis=-2)),
    ("nothing, but the part along x̂ added", norm_of(sign=-1.0)),
    ("nothing, but n − 1 for n", norm_of(of_sample=True)),
    ("nothing, but the part along x̂ twice", norm_of(sign=2.0)),
    ("nothing, but the part along x̂ halved", norm_of(sign=0.5)),
):
    of_norm_terms.way(f"without {way}" if "nothing" not in way else way.removeprefix("nothing, but "), layer_norm)(
        changed
    )


def norm_parameters(
    of_weight: Callable[[Any, Any, Any, Any], Any] | None = None, of_bias: Callable[[Any], Any] | None = None
) -> Callable[..., Any]:
    """Another gradient of weight or bias: of dy, x̂, y and the right one; of dy."""

    def change(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        dx, dweight, dbias = step.right(dy, y, x, weight, bias, eps=eps)
        normalised = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
        other = dweight if of_weight is None else of_weight(dy, normalised, y, weight)
        return dx, other, dbias if of_bias is None else of_bias(dy)

    return change


of_norm_parameters = mistake(
    GRADIENT_TERMS,
    "gradient of a norm's weight or bias",
    does="the sums over the tokens of dy x̂ and dy have another factor or other tokens",
    right="Σ dy x̂ and Σ dy over all texts and tokens",
)
for way, changed in (
    ("weight: Σ dy y", norm_parameters(lambda dy, n, y, w: flat_rows(dy * y).sum(axis=0))),
    ("weight: Σ dy", norm_parameters(lambda dy, n, y, w: flat_rows(dy).sum(axis=0))),
    ("weight: Σ γ dy x̂", norm_parameters(lambda dy, n, y, w: flat_rows(dy * w * n).sum(axis=0))),
    ("weight: the mean", norm_parameters(lambda dy, n, y, w: flat_rows(dy * n).mean(axis=0))),
    ("weight: the first text", norm_parameters(lambda dy, n, y, w: flat_rows((dy * n)[:1]).sum(axis=0))),
    ("weight: the last text", norm_parameters(lambda dy, n, y, w: flat_rows((dy * n)[-1:]).sum(axis=0))),
    ("weight: none", norm_parameters(lambda dy, n, y, w: 0.0 * w)),
    ("bias: the mean", norm_parameters(None, lambda dy: flat_rows(dy).mean(axis=0))),
    ("bias: the first text", norm_parameters(None, lambda dy: flat_rows(dy[:1]).sum(axis=0))),
    ("bias: the last text", norm_parameters(None, lambda dy: flat_rows(dy[-1:]).sum(axis=0))),
    ("bias: none", norm_parameters(None, lambda dy: 0.0 * flat_rows(dy).sum(axis=0))),
    (
        "both: the mean",
        norm_parameters(lambda dy, n, y, w: flat_rows(dy * n).mean(axis=0), lambda dy: flat_rows(dy).mean(axis=0)),
    ),
    (
        "both: the mean over texts",
        norm_parameters(
            lambda dy, n, y, w: flat_rows(dy * n).sum(axis=0) / len(dy), lambda dy: flat_rows(dy).sum(axis=0) / len(dy)
        ),
    ),
    ("both: none", norm_parameters(lambda dy, n, y, w: 0.0 * w, lambda dy: 0.0 * flat_rows(dy).sum(axis=0))),
):
    of_norm_parameters.way(way, layer_norm)(changed)

# -------------------------------------------------------------------------------------------------------------- softmax

of_softmax_terms = mistake(
    GRADIENT_TERMS,
    "gradient of softmax over another axis",
    does="the sum in softmax's gradient goes over another axis, is a mean, or has another sign or factor",
    right="y · (dy − Σ dy · y), summed over the keys",
)


def softmax_of(inner: Callable[[Any, Any], Any], factor: Callable[[float], float] = float) -> Callable[..., Any]:
    """Another gradient of the softmax: of dy and y, times a factor made of the scale."""

    def change(step: Step, dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float) -> Any:
        return inner(dy, y) * factor(scale)

    return change


def less(axis: int, reduced: Callable[..., Any] = np.sum, *, sign: float = -1.0) -> Callable[[Any, Any], Any]:
    """The gradient y · (dy − Σ dy y) with another axis, mean or sign."""
    return lambda dy, y: y * (dy + sign * reduced(dy * y, axis=axis, keepdims=True))


for way, changed in (
    ("over the queries", softmax_of(less(-2))),
    ("over the heads", softmax_of(less(1))),
    ("over the texts", softmax_of(less(0))),
    ("a mean in place of the sum", softmax_of(less(-1, np.mean))),
    ("the sum added", softmax_of(less(-1, sign=1.0))),
    ("Σ dy in place of Σ dy · y", softmax_of(lambda dy, y: y * (dy - dy.sum(axis=-1, keepdims=True)))),
    ("the mean of dy in place of Σ dy · y", softmax_of(lambda dy, y: y * (dy - dy.mean(axis=-1, keepdims=True)))),
    ("without the factor y", softmax_of(lambda dy, y: dy - (dy * y).sum(axis=-1, keepdims=True))),
    ("y² in the sum", softmax_of(lambda dy, y: y * (dy - (dy * y * y).sum(axis=-1, keepdims=True)))),
    ("y alone once more", softmax_of(lambda dy, y: y * (dy - y * (dy * y).sum(axis=-1, keepdims=True)))),
    ("none: dy itself", softmax_of(lambda dy, y: dy)),
    ("with the scale twice", softmax_of(less(-1), lambda scale: scale * scale)),
    ("divided by the scale", softmax_of(less(-1), lambda scale: 1.0 / scale)),
    ("without the sum and scale", softmax_of(lambda dy, y: dy * y, lambda scale: 1.0)),
):
    of_softmax_terms.way(way, attention_probs)(changed)

# ------------------------------------------------------------------------------------------------------------- products

of_products = mistake(
    GRADIENT_TERMS,
    "gradient of a product",
    does="a gradient of q · k or of probabilities times values takes another factor, or lacks a transpose",
    right="dq = ds k, dk = dsᵀ q, dprobs = dy vᵀ, dv = probsᵀ dy",
)


def turned(x: Any) -> Any:
    """The last two axes exchanged."""
    return np.swapaxes(x, -1, -2)


def check_square(x: Any) -> None:
    """Check that there are as many queries as keys."""
    if x.shape[-1] != x.shape[-2]:
        raise ValueError("queries and keys are not equally many")


def of_scores(dq: Callable[..., Any] | None = None, dk: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Other gradients of queries and keys: of dy, q and k."""

    def change(step: Step, dy: Any, y: Any, q: Any, k: Any) -> Any:
        check_square(dy)
        right = step.right(dy, y, q, k)
        return right[0] if dq is None else dq(dy, q, k), right[1] if dk is None else dk(dy, q, k)

    return change


def of_context(dp: Callable[..., Any] | None = None, dv: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Other gradients of probabilities and values: of dy, probs and v."""

    def change(step: Step, dy: Any, y: Any, probs: Any, v: Any) -> Any:
        check_square(probs)
        right = step.right(dy, y, probs, v)
        return right[0] if dp is None else dp(dy, probs, v), right[1] if dv is None else dv(dy, probs, v)

    return change


of_products.way("dq and dk exchanged", content_scores)(
    of_scores(lambda dy, q, k: turned(dy) @ q, lambda dy, q, k: dy @ k)
)
of_products.way("dk = ds q", content_scores)(of_scores(dk=lambda dy, q, k: dy @ q))
of_products.way("dk = dsᵀ k", content_scores)(of_scores(dk=lambda dy, q, k: turned(dy) @ k))
of_products.way("dk = ds k", content_scores)(of_scores(dk=lambda dy, q, k: dy @ k))
of_products.way("dk = 0", content_scores)(of_scores(dk=lambda dy, q, k: 0.0 * k))
of_products.way("dq = dsᵀ k", content_scores)(of_scores(lambda dy, q, k: turned(dy) @ k))
of_products.way("dq = ds q", content_scores)(of_scores(lambda dy, q, k: dy @ q))
of_products.way("dq = 0", content_scores)(of_scores(lambda dy, q, k: 0.0 * q))
of_products.way("both with dsᵀ", content_scores)(of_scores(lambda dy, q, k: turned(dy) @ k, lambda dy, q, k: dy @ q))
of_products.way("dq with √D", content_scores)(of_scores(lambda dy, q, k: dy @ k / math.sqrt(q.shape[-1])))
of_products.way("dk with √D", content_scores)(of_scores(dk=lambda dy, q, k: turned(dy) @ q / math.sqrt(q.shape[-1])))
of_products.way("both with √D", content_scores)(
    of_scores(
        lambda dy, q, k: dy @ k / math.sqrt(q.shape[-1]), lambda dy, q, k: turned(dy) @ q / math.sqrt(q.shape[-1])
    )
)
of_products.way("dv = probs dy", content_context)(of_context(dv=lambda dy, probs, v: probs @ dy))
of_products.way("dv = dy", content_context)(of_context(dv=lambda dy, probs, v: dy))
of_products.way("dv = 0", content_context)(of_context(dv=lambda dy, probs, v: 0.0 * v))
of_products.way("dprobs = v dyᵀ", content_context)(of_context(lambda dy, probs, v: v @ turned(dy)))
of_products.way("dprobs = dy dyᵀ", content_context)(of_context(lambda dy, probs, v: dy @ turned(dy)))
of_products.way("dprobs = 0", content_context)(of_context(lambda dy, probs, v: 0.0 * probs))

# -------------------------------------------------------------------------------------------------------- linear layers

of_part = mistake(
    GRADIENT_TERMS,
    "gradient of a part of the batch",
    does="the gradient of a matrix or a bias counts some texts or tokens alone, or none",
    right="the sum over all texts and tokens",
)


def linear_of(
    dweight: Callable[[Any, Any, Any, Any], Any] | None = None,
    dbias: Callable[[Any], Any] | None = None,
    dx: Callable[[Any, Any], Any] | None = None,
) -> Callable[..., Any]:
    """Other gradients of a linear layer: of dy, x, y and W; of dy; of dy and W."""

    def change(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any) -> Any:
        own = step.right(dy, y, x, weight, bias)
        return (
            own[0] if dx is None else dx(dy, weight),
            own[1] if dweight is None else dweight(dy, x, y, weight),
            own[2] if dbias is None or own[2] is None else dbias(dy),
        )

    return change


def outer(dy: Any, x: Any) -> Any:
    """Σ dy xᵀ over all rows."""
    return flat_rows(dy).T @ flat_rows(x)


def part(index: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The gradients of matrix and bias of a part of the rows alone."""

    def taken(x: Any) -> Any:
        if x.ndim < 2 or (isinstance(index, tuple) and x.ndim < 3):
            raise ValueError("there is no such part")
        return x[index]

    return lambda dy, x, y, weight: outer(taken(dy), taken(x)), lambda dy: flat_rows(taken(dy)).sum(axis=0)


PARTS_OF_ROWS: dict[str, Any] = {
    "the first text": slice(0, 1),
    "the last text": slice(-1, None),
    "all but the first text": slice(1, None),
    "all but the last text": slice(0, -1),
    "the first token": (slice(None), slice(0, 1)),
    "the last token": (slice(None), slice(-1, None)),
    "all but the first token": (slice(None), slice(1, None)),
    "all but the last token": (slice(None), slice(0, -1)),
}
for way, index in PARTS_OF_ROWS.items():
    of_matrix, of_bias = part(index)
    of_part.way(f"{way}, matrix", linear)(linear_of(of_matrix))
    of_part.way(f"{way}, bias", linear)(linear_of(None, of_bias))
    of_part.way(f"{way}, matrix and bias", linear)(linear_of(of_matrix, of_bias))
of_part.way("none, matrix", linear)(linear_of(lambda dy, x, y, weight: 0.0 * weight))
of_part.way("none, bias", linear)(linear_of(None, lambda dy: 0.0 * flat_rows(dy).sum(axis=0)))
of_part.way("none, matrix and bias", linear)(
    linear_of(lambda dy, x, y, weight: 0.0 * weight, lambda dy: 0.0 * flat_rows(dy).sum(axis=0))
)
of_part.way("the mean over texts, matrix", linear)(linear_of(lambda dy, x, y, weight: outer(dy, x) / len(dy)))
of_part.way("the mean over texts, bias", linear)(linear_of(None, lambda dy: flat_rows(dy).sum(axis=0) / len(dy)))
of_part.way("the mean over texts, matrix and bias", linear)(
    linear_of(lambda dy, x, y, weight: outer(dy, x) / len(dy), lambda dy: flat_rows(dy).sum(axis=0) / len(dy))
)
of_part.way("the mean over texts and tokens, matrix", linear)(
    linear_of(lambda dy, x, y, weight: outer(dy, x) / len(flat_rows(dy)))
)
of_part.way("none, dx", linear)(linear_of(dx=lambda dy, weight: 0.0 * (dy @ weight)))

of_linear = mistake(
    GRADIENT_TERMS,
    "gradient of a matrix of other factors",
    does="dW or dx of a linear layer is made of other arrays than dy and x, or has another sign",
    right="dW = dyᵀ x, dx = dy W",
)


def square(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a square matrix alone."""

    def of_square(dy: Any, x: Any, y: Any, weight: Any) -> Any:
        if weight.shape[0] != weight.shape[1]:
            return outer(dy, x)
        return function(dy, x, y, weight)

    return of_square


of_linear.way("dW = dyᵀ y", linear)(linear_of(square(lambda dy, x, y, weight: outer(dy, y))))
of_linear.way("dW = −dyᵀ x", linear)(linear_of(lambda dy, x, y, weight: -outer(dy, x)))
of_linear.way("dW with weight decay of 0.01", linear)(linear_of(lambda dy, x, y, weight: outer(dy, x) + 0.01 * weight))
of_linear.way("dx = −dy W", linear)(linear_of(dx=lambda dy, weight: -(dy @ weight)))
of_linear.way("db = Σ dy y", linear)(
    lambda step, dy, y, x, weight, bias: (
        *step.right(dy, y, x, weight, bias)[:2],
        flat_rows(dy * y).sum(axis=0),
    )
)

# ----------------------------------------------------------------------------------------------------------- embeddings

of_rows = mistake(
    GRADIENT_TERMS,
    "gradient of an embedding's rows",
    does="the rows of an embedding get the gradients of some look-ups alone, their mean, or none",
    right="for each row the sum over all its look-ups",
)


def rows_of(function: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    """Another gradient of the rows: of the right one, of dy and of the ids."""

    def change(step: Step, dy: Any, y: Any, ids: Any, weight: Any, **options: Any) -> Any:
        _, dweight = step.right(dy, y, ids, weight, **options)
        return None, function(dweight, dy, np.broadcast_to(np.asarray(ids), np.shape(dy)[:-1]))

    return change


def counted(dweight: Any, dy: Any, ids: Any) -> Any:
    """The mean over the look-ups of each row."""
    count = np.bincount(np.asarray(ids).ravel(), minlength=len(dweight))
    return dweight / np.maximum(count, 1)[:, None]


def added(dweight: Any, dy: Any, ids: Any) -> Any:
    """The sums over the look-ups that are given."""
    found = np.zeros_like(dweight)
    np.add.at(found, np.asarray(ids).ravel(), flat_rows(dy))
    return found


def first_only(dweight: Any, dy: Any, ids: Any) -> Any:
    """The first look-up of each row alone."""
    found, flat = np.zeros_like(dweight), np.asarray(ids).ravel()
    rows, at = np.unique(flat, return_index=True)
    found[rows] = flat_rows(dy)[at]
    return found


for way, function in (
    ("the mean of the look-ups", counted),
    ("the first look-up", first_only),
    ("the first text", lambda dweight, dy, ids: added(dweight, dy[:1], ids[:1])),
    ("the last text", lambda dweight, dy, ids: added(dweight, dy[-1:], ids[-1:])),
    ("none", lambda dweight, dy, ids: 0.0 * dweight),
    ("the mean over all tokens", lambda dweight, dy, ids: dweight / max(1, ids.size)),
    ("the mean over texts", lambda dweight, dy, ids: dweight / len(dy)),
):
    of_rows.way(way, embedding)(rows_of(function))
    of_rows.way(f"{way}, of the token types", embedding, at="embeddings.token_type_embeddings")(rows_of(function))
    of_rows.way(f"{way}, of the words", embedding, at="embeddings.word_embeddings")(rows_of(function))

# ---------------------------------------------------------------------------------------------------- sums, heads, loss

of_sum = mistake(
    GRADIENT_TERMS,
    "gradient of a sum",
    does="one summand of a sum gets no gradient, or another part of it",
    right="dz for both",
)


def sum_of(of_x: float, of_y: float) -> Callable[..., Any]:
    """The gradients of both summands times a factor each."""
    return lambda step, dz, z, x, y: tuple(
        factor * part for factor, part in zip((of_x, of_y), step.right(dz, z, x, y), strict=True)
    )


for way, of_x, of_y in (
    ("the block's result gets none", 0.0, 1.0),
    ("the residual gets none", 1.0, 0.0),
    ("half for each", 0.5, 0.5),
    ("twice for each", 2.0, 2.0),
    ("the residual negated", 1.0, -1.0),
    ("the block's result twice", 2.0, 1.0),
):
    of_sum.way(f"{way}, in residuals", add, at="**.residual")(sum_of(of_x, of_y))
for way, of_x, of_y in (("content term gets none", 0.0, 1.0), ("position term gets none", 1.0, 0.0)):
    of_sum.way(f"{way}, in scores", add, at="**.scores")(sum_of(of_x, of_y))
    of_sum.way(f"{way}, in the context", add, at="**.context")(sum_of(of_x, of_y))
of_sum.way("the words get none", add, at="embeddings.sum")(sum_of(0.0, 1.0))
of_sum.way("the token types get none", add, at="embeddings.sum")(sum_of(1.0, 0.0))

of_heads = mistake(
    GRADIENT_TERMS,
    "gradient of heads in another order",
    does="the gradient is split or merged into heads in another order than the pass did it",
    right="the inverse of what the pass did",
)


@of_heads.way("merged without transposing", split_heads)
def merged_without_transposing(step: Step, dy: Any, y: Any, x: Any, *, head_size: int) -> Any:
    """A reshape of (B, N, L, D) alone."""
    return dy.reshape(x.shape)


@of_heads.way("split without transposing", merge_heads)
def split_without_transposing(step: Step, dy: Any, y: Any, x: Any) -> Any:
    """A reshape to (B, N, L, D) alone."""
    return dy.reshape(x.shape)


@of_heads.way("D before N, merged", split_heads)
def features_first(step: Step, dy: Any, y: Any, x: Any, *, head_size: int) -> Any:
    """(B, L, D, N) in place of (B, L, N, D)."""
    return dy.transpose(0, 2, 3, 1).reshape(x.shape)


@of_heads.way("the first head's for all, merged", split_heads)
def of_first_head(step: Step, dy: Any, y: Any, x: Any, *, head_size: int) -> Any:
    """The gradient of the first head for all heads."""
    return step.right(np.broadcast_to(dy[:, :1], dy.shape), y, x, head_size=head_size)


of_loss = mistake(
    GRADIENT_TERMS,
    "gradient of the loss without a term",
    does="the loss's gradient lacks p or the one-hot label, counts labels of −100, or has another factor",
    right="(p − [c = y]) / n for each label that counts, 0 for the others",
)


def loss_of(function: Callable[[Any, Any, Any, int], Any]) -> Callable[..., Any]:
    """Another gradient: of p, the one-hot labels, where labels count, and how many classes there are; times dloss."""

    def change(step: Step, dloss: Any, loss: Any, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        flat = np.asarray(labels).reshape(-1)
        rows = np.asarray(logits, np.float64).reshape(len(flat), -1)
        p = np.exp(rows - rows.max(axis=-1, keepdims=True))
        p = p / p.sum(axis=-1, keepdims=True)
        counts = (flat != ignore_index)[:, None]
        hot = (np.arange(p.shape[-1]) == flat[:, None]) * 1.0
        found = function(p, hot, counts, int(p.shape[-1])) * float(dloss)
        return np.asarray(found.reshape(logits.shape), logits.dtype)

    return change


def over(counts: Any) -> Any:
    """1/n for labels that count, 0 for the others."""
    return counts / max(1.0, float(counts.sum()))


def smoothed(epsilon: float) -> Callable[..., Any]:
    """The gradient with label smoothing."""
    return lambda p, hot, counts, C: (p - (1.0 - epsilon) * hot - epsilon / C) * over(counts)


for way, of_logits in (
    ("p alone", lambda p, hot, counts, C: p * over(counts)),
    ("the label alone", lambda p, hot, counts, C: -hot * over(counts)),
    ("p + [c = y]", lambda p, hot, counts, C: (p + hot) * over(counts)),
    ("ignored labels too: p there", lambda p, hot, counts, C: (p - hot) / max(1.0, float(counts.sum()))),
    ("ignored labels too, over all", lambda p, hot, counts, C: (p - hot) / len(p)),
    ("times p (1 − p)", lambda p, hot, counts, C: (p - hot) * p * (1.0 - p) * over(counts)),
    ("over the number of classes", lambda p, hot, counts, C: (p - hot) * over(counts) / C),
    ("the last class for ignored labels", lambda p, hot, counts, C: (
        p - np.where(counts, hot, np.eye(C)[-1])) / max(1.0, float(counts.sum()))),
    ("the first class for ignored labels", lambda p, hot, counts, C: (
        p - np.where(counts, hot, np.eye(C)[0])) / max(1.0, float(counts.sum()))),
    ("log₂", lambda p, hot, counts, C: (p - hot) * over(counts) / math.log(2.0)),
    ("ε = 0.1 of smoothing", smoothed(0.1)),
    ("ε = 0.05 of smoothing", smoothed(0.05)),
    ("the first label alone", lambda p, hot, counts, C: (p - hot) * over(counts * (counts.cumsum(axis=0) == 1))),
):  # fmt: skip
    of_loss.way(way, cross_entropy)(loss_of(of_logits))


@of_loss.way("the sign of p − t", mse)
def sign_of_mse(step: Step, dloss: Any, loss: Any, predictions: Any, targets: Any) -> Any:
    """The gradient of the absolute error."""
    return np.sign(predictions - targets) / predictions.size * float(dloss)


@of_loss.way("t − p", mse, bce_with_logits, cross_entropy)
def negated(step: Step, dloss: Any, loss: Any, x: Any, labels: Any, **options: Any) -> Any:
    """The other sign."""
    return -step.right(dloss, loss, x, labels, **options)


@of_loss.way("summed over the texts", mse, bce_with_logits)
def not_averaged(step: Step, dloss: Any, loss: Any, x: Any, labels: Any, **options: Any) -> Any:
    """Not divided by the number of elements."""
    return step.right(dloss, loss, x, labels, **options) * x.size


of_pooler = mistake(
    GRADIENT_TERMS,
    "gradient of another token",
    does="the pooler's gradient goes to another token than the first, or is divided among them",
    right="to the first token alone",
)


def to_tokens(share: Callable[[int], Any]) -> Callable[..., Any]:
    """The gradient for each token: of how many there are, a share for each."""
    return lambda step, dy, y, x: dy[:, None, :] * np.asarray(share(x.shape[1]))[None, :, None]


of_pooler.way("the last", first_token)(to_tokens(lambda length: np.eye(length)[-1]))
of_pooler.way("the mean of all", first_token)(to_tokens(lambda length: np.full(length, 1.0 / length)))
of_pooler.way("none", first_token)(to_tokens(np.zeros))

of_position_terms = mistake(
    GRADIENT_TERMS,
    "gradient of the position term reversed",
    does="the gradient through the relative positions takes rows of another distance",
    right="the row of key − query, as in the pass",
)


def reversed_rows(step: Step, dy: Any, y: Any, x: Any, table: Any, **options: Any) -> Any:
    """The rows of query − key."""
    return step.right(dy, y, x, table[::-1], **options)


def negated_term(step: Step, dy: Any, y: Any, x: Any, table: Any, **options: Any) -> Any:
    """The gradient with another sign."""
    return -step.right(dy, y, x, table, **options)


def doubled_term(step: Step, dy: Any, y: Any, x: Any, table: Any, **options: Any) -> Any:
    """The next row."""
    return step.right(dy, y, x, np.roll(table, -1, axis=0), **options)


for way, layers in (("in keys", (position_scores,)), ("in values", (position_context,)),
                    ("in both", (position_scores, position_context))):  # fmt: skip
    of_position_terms.way(way, *layers)(reversed_rows)
    of_position_terms.way(f"{way}, negated", *layers)(negated_term)
    of_position_terms.way(f"{way}, the next row", *layers)(doubled_term)
