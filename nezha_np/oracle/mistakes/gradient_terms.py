"""Terms of a gradient's formula that are left out, exchanged or taken over another axis; see `gradients_of_layers`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers import activations
from nezha_np.layers.activations import gelu, gelu_new, relu, silu, tanh
from nezha_np.layers.addition import add
from nezha_np.layers.attention import (
    append_keys,
    attention_probs,
    content_context,
    content_scores,
    mask_heads,
    merge_heads,
    split_heads,
)
from nezha_np.layers.embedding import embedding
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.losses import IGNORE_INDEX, average, bce_with_logits, cross_entropy, mse
from nezha_np.layers.relative_position import position_context, position_scores
from nezha_np.layers.selection import all_but_last_token, by_choice, column, first_token
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
    of_weight: Callable[[Any, Any, Any, Any], Any] | None = None, of_bias: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Another gradient of weight or bias: of dy, x̂, y and the weight; of dy, x̂ and the weight."""

    def change(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        dx, dweight, dbias = step.right(dy, y, x, weight, bias, eps=eps)
        normalised = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
        other = dweight if of_weight is None else of_weight(dy, normalised, y, weight)
        return dx, other, dbias if of_bias is None else of_bias(dy, normalised, weight)

    return change


of_norm_parameters = mistake(
    GRADIENT_TERMS,
    "gradient of a norm's weight or bias",
    does="the sums over the tokens of dy x̂ and dy have another factor",
    right="Σ dy x̂ and Σ dy over all texts and tokens",
)
for way, changed in (
    ("weight: Σ dy y", norm_parameters(lambda dy, n, y, w: flat_rows(dy * y).sum(axis=0))),
    ("weight: Σ dy", norm_parameters(lambda dy, n, y, w: flat_rows(dy).sum(axis=0))),
    ("weight: Σ γ dy", norm_parameters(lambda dy, n, y, w: flat_rows(dy * w).sum(axis=0))),
    ("weight: Σ γ dy x̂", norm_parameters(lambda dy, n, y, w: flat_rows(dy * w * n).sum(axis=0))),
    ("weight: divided by γ", norm_parameters(lambda dy, n, y, w: flat_rows(dy * n).sum(axis=0) / w)),
    ("bias: Σ γ dy", norm_parameters(None, lambda dy, n, w: flat_rows(dy * w).sum(axis=0))),
    ("bias: Σ dy x̂", norm_parameters(None, lambda dy, n, w: flat_rows(dy * n).sum(axis=0))),
    ("both: exchanged", norm_parameters(
        lambda dy, n, y, w: flat_rows(dy).sum(axis=0), lambda dy, n, w: flat_rows(dy * n).sum(axis=0))),
    ("both: times γ", norm_parameters(
        lambda dy, n, y, w: flat_rows(dy * w * n).sum(axis=0), lambda dy, n, w: flat_rows(dy * w).sum(axis=0))),
):  # fmt: skip
    of_norm_parameters.way(way, layer_norm)(changed)


@of_norm_parameters.way("weight: Σ dy (x − mean), not divided", layer_norm)
def not_divided(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The deviation left out of x̂."""
    dx, _, dbias = step.right(dy, y, x, weight, bias, eps=eps)
    return dx, flat_rows(dy * (x - x.mean(axis=-1, keepdims=True))).sum(axis=0), dbias


@of_norm_parameters.way("weight: Σ dy x / σ, the mean not subtracted", layer_norm)
def not_centred(step: Step, dy: Any, y: Any, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The mean left in x̂."""
    dx, _, dbias = step.right(dy, y, x, weight, bias, eps=eps)
    return dx, flat_rows(dy * x / np.sqrt(x.var(axis=-1, keepdims=True) + eps)).sum(axis=0), dbias


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


def less(
    axis: int | tuple[int, ...], reduced: Callable[..., Any] = np.sum, *, sign: float = -1.0
) -> Callable[[Any, Any], Any]:
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

of_recomputed = mistake(
    GRADIENT_TERMS,
    "gradient of other probabilities",
    does="the walk back makes the probabilities again, and otherwise than the pass did: without mask or scale",
    right="those of the pass",
)


def recomputed(remade: Callable[[Any, Any, float], Any]) -> Callable[..., Any]:
    """The gradient of softmax at other probabilities: those of other scores, of scores, mask and scale."""

    def change(step: Step, dy: Any, y: Any, scores: Any, mask: Any = None, *, scale: float) -> Any:
        if mask is None:
            raise ValueError("there is no mask")
        z = remade(scores, np.maximum(mask, -1e30), scale)
        p = np.exp(z - z.max(axis=-1, keepdims=True))
        p = p / p.sum(axis=-1, keepdims=True)
        return step.right(dy, p, scores, mask, scale=scale)

    return change


def causal_alone(z: Any) -> Any:
    """Keys after their query left out, and nothing else."""
    queries, keys = z.shape[-2:]
    return np.where(np.arange(keys)[None] - np.arange(queries)[:, None] <= keys - queries, z, -1e30)


for way, remade in (
    ("without the mask", lambda scores, mask, scale: scores * scale),
    ("without the scale", lambda scores, mask, scale: scores + mask),
    ("without mask and scale", lambda scores, mask, scale: scores),
    ("with the scale twice", lambda scores, mask, scale: scores * scale * scale + mask),
    ("with a causal mask alone", lambda scores, mask, scale: causal_alone(scores * scale)),
    ("with a causal mask besides", lambda scores, mask, scale: causal_alone(scores * scale + mask)),
    ("with the first text's mask", lambda scores, mask, scale: scores * scale + mask[:1]),
    ("with a mask of −1", lambda scores, mask, scale: scores * scale + np.maximum(mask, -1.0)),
    ("with a mask of −10", lambda scores, mask, scale: scores * scale + np.maximum(mask, -10.0)),
):
    of_recomputed.way(way, attention_probs)(recomputed(remade))

of_head_mask = mistake(
    GRADIENT_TERMS,
    "gradient of masked heads",
    does="the gradient of the probabilities is not multiplied by the mask of the heads, or twice",
    right="dy times the mask of each head",
)


def heads_of(factor: Callable[[Any], Any]) -> Callable[..., Any]:
    """The gradient times another number for each head, made of the mask."""
    return lambda step, dy, y, probs, mask: (dy * factor(mask)[:, None, None], step.right(dy, y, probs, mask)[1])


of_head_mask.way("not multiplied", mask_heads)(heads_of(np.ones_like))
of_head_mask.way("twice", mask_heads)(heads_of(lambda mask: mask * mask))
of_head_mask.way("where the mask is not 0", mask_heads)(heads_of(lambda mask: (mask != 0.0) * 1.0))
of_head_mask.way("none", mask_heads)(heads_of(np.zeros_like))

of_cache = mistake(
    GRADIENT_TERMS,
    "gradient of cached keys",
    does="the gradient of keys or values is cut at the wrong place between cache and new ones",
    right="the last ones belong to the new keys and values, the first to the cache",
)


def cut(new: Callable[[Any, int], Any]) -> Callable[..., Any]:
    """Another gradient of the new ones: of dy and how many they are."""

    def change(step: Step, dy: Any, y: Any, past: Any, of_new: Any) -> Any:
        made = new(dy, of_new.shape[2])
        if made.shape != of_new.shape:
            raise ValueError("the cache is too short")
        return step.right(dy, y, past, of_new)[0], made

    return change


AT_KEYS: dict[str, str | tuple[str, ...]] = {"": (), ", of keys": "**.all_k", ", of values": "**.all_v"}
for where, patterns in AT_KEYS.items():
    for way, new in (
        ("the first ones", lambda dy, count: dy[:, :, :count]),
        ("in reverse", lambda dy, count: dy[:, :, ::-1][:, :, :count]),
        ("one too early", lambda dy, count: dy[:, :, -count - 1 : -1]),
        ("none", lambda dy, count: 0.0 * dy[:, :, -count:]),
        ("the last one for all", lambda dy, count: np.repeat(dy[:, :, -1:], count, axis=2)),
        ("the cache's sum besides", lambda dy, count: dy[:, :, -count:] + dy[:, :, :-count].sum(axis=2, keepdims=True)),
    ):
        of_cache.way(f"{way}{where}", append_keys, at=patterns)(cut(new))

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


def fitting(right: tuple[Any, ...], *made: Any) -> tuple[Any, ...]:
    """Check that what was made can be a gradient: there may be more keys than queries."""
    if any(of_right.shape != part.shape for of_right, part in zip(right, made, strict=True)):
        raise ValueError("queries and keys are not equally many")
    return made


def of_scores(dq: Callable[..., Any] | None = None, dk: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Other gradients of queries and keys: of dy, q and k."""

    def change(step: Step, dy: Any, y: Any, q: Any, k: Any) -> Any:
        right = step.right(dy, y, q, k)
        return fitting(right, right[0] if dq is None else dq(dy, q, k), right[1] if dk is None else dk(dy, q, k))

    return change


def of_context(dp: Callable[..., Any] | None = None, dv: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Other gradients of probabilities and values: of dy, probs and v."""

    def change(step: Step, dy: Any, y: Any, probs: Any, v: Any) -> Any:
        right = step.right(dy, y, probs, v)
        return fitting(
            right, right[0] if dp is None else dp(dy, probs, v), right[1] if dv is None else dv(dy, probs, v)
        )

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
of_products.way("dv a mean over the heads", content_context)(
    of_context(dv=lambda dy, probs, v: np.broadcast_to((turned(probs) @ dy).mean(axis=1, keepdims=True), v.shape))
)
of_products.way("dv a sum over the heads", content_context)(
    of_context(dv=lambda dy, probs, v: np.broadcast_to((turned(probs) @ dy).sum(axis=1, keepdims=True), v.shape))
)
of_products.way("dv of the probabilities where they are largest", content_context)(
    of_context(dv=lambda dy, probs, v: turned(np.where(probs == probs.max(axis=-1, keepdims=True), probs, 0.0)) @ dy)
)
of_products.way("dprobs and dv exchanged", content_context)(
    of_context(lambda dy, probs, v: turned(probs) @ dy, lambda dy, probs, v: dy @ turned(v))
)
of_products.way("dk a mean over the heads", content_scores)(
    of_scores(dk=lambda dy, q, k: np.broadcast_to((turned(dy) @ q).mean(axis=1, keepdims=True), k.shape))
)
of_products.way("dk a sum over the heads", content_scores)(
    of_scores(dk=lambda dy, q, k: np.broadcast_to((turned(dy) @ q).sum(axis=1, keepdims=True), k.shape))
)
of_products.way("dprobs = 0", content_context)(of_context(lambda dy, probs, v: 0.0 * probs))

# -------------------------------------------------------------------------------------------------------- linear layers


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


def unmapped(dy: Any, weight: Any) -> Any:
    """The first features of dy, as many as the matrix takes; zeros beyond."""
    missing = max(0, weight.shape[1] - weight.shape[0])
    return np.pad(dy[..., : weight.shape[1]], [(0, 0)] * (dy.ndim - 1) + [(0, missing)])


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
of_linear.way("dx = dy, as if there were no matrix", linear)(linear_of(dx=lambda dy, weight: unmapped(dy, weight)))
of_linear.way("dx = dy |W|", linear)(linear_of(dx=lambda dy, weight: dy @ np.abs(weight)))
of_linear.way("dx = Σ dy for each", linear)(
    linear_of(dx=lambda dy, weight: np.repeat(dy.sum(axis=-1, keepdims=True), weight.shape[1], axis=-1))
)
of_linear.way("dW = |dy|ᵀ x", linear)(linear_of(lambda dy, x, y, weight: outer(np.abs(dy), x)))
of_linear.way("dW = Σ dy for each", linear)(
    linear_of(lambda dy, x, y, weight: np.repeat(flat_rows(dy).sum(axis=0)[:, None], weight.shape[1], axis=1))
)
of_linear.way("dW = W", linear)(linear_of(lambda dy, x, y, weight: weight))
of_linear.way("dW = dyᵀ dy", linear)(linear_of(square(lambda dy, x, y, weight: outer(dy, dy))))
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

of_losses_sum = mistake(
    GRADIENT_TERMS,
    "gradient of several losses",
    does="the gradients of two losses that are added or averaged have other weights, or one of them gets none",
    right="1 for each loss of a sum, 1/2 for each of a mean",
)


def losses_weighted(of_first: float, of_second: float) -> Callable[..., Any]:
    """Other weights of the two losses, where the pass has added or averaged them."""
    return lambda step, dz, z, x, y: (of_first * dz + 0.0 * x, of_second * dz + 0.0 * y)


for way, of_first, of_second in (
    ("half for each", 0.5, 0.5),
    ("1 for each", 1.0, 1.0),
    ("2 for each", 2.0, 2.0),
    ("a quarter for each", 0.25, 0.25),
    ("the second gets none", 1.0, 0.0),
    ("the first gets none", 0.0, 1.0),
    ("half for the first alone", 0.5, 0.0),
    ("half for the second alone", 0.0, 0.5),
    ("half for the first, 1 for the second", 0.5, 1.0),
    ("1 for the first, half for the second", 1.0, 0.5),
    ("2 for the first, 1 for the second", 2.0, 1.0),
    ("1 for the first, 2 for the second", 1.0, 2.0),
    ("the second negated", 1.0, -1.0),
):
    of_losses_sum.way(way, add, average, at="loss")(losses_weighted(of_first, of_second))

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
    ("the right class alone", lambda p, hot, counts, C: (p - 1.0) * hot * over(counts)),
    ("the other classes alone", lambda p, hot, counts, C: p * (1.0 - hot) * over(counts)),
    ("log p in place of p", lambda p, hot, counts, C: (np.log(p) - hot) * over(counts)),
    ("p² in place of p", lambda p, hot, counts, C: (p * p - hot) * over(counts)),
    ("−[c = y] / p", lambda p, hot, counts, C: -hot / p * over(counts)),
    ("the softmax's gradient once more", lambda p, hot, counts, C: (
        p * (p - hot - (p * (p - hot)).sum(axis=-1, keepdims=True)) * over(counts))),
    ("the sigmoid's gradient once more, of the right class", lambda p, hot, counts, C: (
        (p - hot) * (p * (1.0 - p) * hot).sum(axis=-1, keepdims=True) * over(counts))),
    ("focal loss: times (1 − p_y)²", lambda p, hot, counts, C: (
        (p - hot) * (1.0 - (p * hot).sum(axis=-1, keepdims=True)) ** 2 * over(counts))),
    ("times −log p_y, the loss squared", lambda p, hot, counts, C: (
        -(p - hot) * np.log((p * hot).sum(axis=-1, keepdims=True) + 1.0 - counts) * over(counts))),
    ("times p_y, not its logarithm", lambda p, hot, counts, C: (
        (p - hot) * (p * hot).sum(axis=-1, keepdims=True) * over(counts))),
    ("the row before's labels", lambda p, hot, counts, C: (p - np.roll(hot, 1, axis=0)) * over(counts)),
    ("the next row's labels", lambda p, hot, counts, C: (p - np.roll(hot, -1, axis=0)) * over(counts)),
    ("label 0 taken for ignored", lambda p, hot, counts, C: (p - hot) * over(counts & (hot[:, :1] == 0.0))),
    ("label 0 left out of the sum", lambda p, hot, counts, C: (p - hot) * (hot[:, :1] == 0.0) * over(counts)),
    ("the last label alone", lambda p, hot, counts, C: (
        (p - hot) * over(counts * (counts[::-1].cumsum(axis=0)[::-1] == 1)))),
    ("the first label alone, over all", lambda p, hot, counts, C: (
        (p - hot) * over(counts) * (counts.cumsum(axis=0) == 1))),
    ("the last label alone, over all", lambda p, hot, counts, C: (
        (p - hot) * over(counts) * (counts[::-1].cumsum(axis=0)[::-1] == 1))),
    ("over one label more", lambda p, hot, counts, C: (p - hot) * counts / (counts.sum() + 1.0)),
    ("over the square root of the labels", lambda p, hot, counts, C: (p - hot) * counts / np.sqrt(counts.sum())),
    ("the first label alone", lambda p, hot, counts, C: (p - hot) * over(counts * (counts.cumsum(axis=0) == 1))),
):  # fmt: skip
    of_loss.way(way, cross_entropy)(loss_of(of_logits))


def of_logits_and_labels(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Another gradient of the logits themselves: of z and the one-hot labels, over the labels that count."""

    def change(step: Step, dloss: Any, loss: Any, logits: Any, labels: Any, *, ignore_index: int = IGNORE_INDEX) -> Any:
        flat = np.asarray(labels).reshape(-1)
        z = np.asarray(logits, np.float64).reshape(len(flat), -1)
        counts = (flat != ignore_index)[:, None]
        hot = (np.arange(z.shape[-1]) == flat[:, None]) * 1.0
        return np.asarray((function(z, hot) * over(counts) * float(dloss)).reshape(logits.shape), logits.dtype)

    return change


for way, of_z in (
    ("z in place of p", lambda z, hot: z - hot),
    ("a sigmoid in place of softmax", lambda z, hot: 1.0 / (1.0 + np.exp(-z)) - hot),
    ("exp(z) in place of p", lambda z, hot: np.exp(z) - hot),
    ("exp(z − max) in place of p", lambda z, hot: np.exp(z - z.max(axis=-1, keepdims=True)) - hot),
    ("the largest class in place of p", lambda z, hot: (z == z.max(axis=-1, keepdims=True)) - hot),
    ("softmax over the tokens", lambda z, hot: (
        np.exp(z - z.max(axis=0)) / np.exp(z - z.max(axis=0)).sum(axis=0) - hot)),
    ("1 / C in place of p", lambda z, hot: 1.0 / z.shape[-1] - hot),
    ("a margin of 1 (hinge)", lambda z, hot: (
        (z - (z * hot).sum(axis=-1, keepdims=True) + 1.0 > 0.0) * (1.0 - hot))),
):  # fmt: skip
    of_loss.way(way, cross_entropy)(of_logits_and_labels(of_z))


def by_text(rows: Any) -> Any:
    """Labels that count in each text, for each of its rows: (B, L) -> (B·L, 1)."""
    return np.repeat(np.maximum(1, rows.sum(axis=-1)), rows.shape[-1])[:, None]


@of_loss.way("the mean of each text's mean", cross_entropy)
def mean_of_means(step: Step, dloss: Any, loss: Any, logits: Any, labels: Any, **options: Any) -> Any:
    """Divided by the labels of its text and by the number of texts."""
    if logits.ndim < 3:
        raise ValueError("there is one label for each text")
    counts = np.asarray(labels) != options.get("ignore_index", IGNORE_INDEX)
    own = step.right(dloss, loss, logits, labels, **options)
    with_labels = max(1, int(counts.any(axis=-1).sum()))
    return own * (counts.sum() / (by_text(counts).reshape(*counts.shape, 1) * with_labels))


def rows_of_texts(index: Any) -> Callable[..., Any]:
    """The gradient of the labels of some texts alone."""

    def change(step: Step, dloss: Any, loss: Any, logits: Any, labels: Any, **options: Any) -> Any:
        kept = np.zeros(len(logits))
        kept[index] = 1.0
        own = step.right(dloss, loss, logits, labels, **options)
        return own * kept.reshape(-1, *[1] * (own.ndim - 1))

    return change


for way, index in (
    ("the first text's labels", slice(0, 1)),
    ("the last text's labels", slice(-1, None)),
    ("all but the first text's labels", slice(1, None)),
    ("all but the last text's labels", slice(0, -1)),
):
    of_loss.way(way, cross_entropy, mse, bce_with_logits)(rows_of_texts(index))


@of_loss.way("t − p", mse, bce_with_logits, cross_entropy)
def negated(step: Step, dloss: Any, loss: Any, x: Any, labels: Any, **options: Any) -> Any:
    """The other sign."""
    return -step.right(dloss, loss, x, labels, **options)


def numbers_of(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Another gradient of a loss of numbers: of predictions and targets, over how many there are."""
    return lambda step, dloss, loss, x, t: function(x, t) / x.size * float(dloss)


def p_of(z: Any) -> Any:
    """The sigmoid."""
    return sigmoid_of(z, 1.0)


for way, of_numbers in (
    ("the sign of p − t", lambda x, t: np.sign(x - t)),
    ("p − t itself, clipped to 1 (Huber)", lambda x, t: np.clip(x - t, -1.0, 1.0)),
    ("2 p alone", lambda x, t: 2.0 * x),
    ("the square of p − t", lambda x, t: (x - t) ** 2),
    ("4 (p − t)³", lambda x, t: 4.0 * (x - t) ** 3),
    ("summed over the texts", lambda x, t: 2.0 * (x - t) * x.size),
    ("over the texts alone", lambda x, t: 2.0 * (x - t) * (x.size / len(x))),
    ("over the labels of a text alone", lambda x, t: 2.0 * (x - t) * len(x)),
    ("not averaged, and without 2", lambda x, t: (x - t) * x.size),
    ("over the texts alone, and without 2", lambda x, t: (x - t) * (x.size / len(x))),
):
    of_loss.way(f"{way}, of numbers", mse)(numbers_of(of_numbers))
for way, of_numbers in (
    ("times p (1 − p)", lambda z, t: (p_of(z) - t) * p_of(z) * (1.0 - p_of(z))),
    ("over p (1 − p)", lambda z, t: (p_of(z) - t) / (p_of(z) * (1.0 - p_of(z)))),
    ("z in place of p", lambda z, t: z - t),
    ("p alone", lambda z, t: p_of(z)),
    ("the targets alone", lambda z, t: -t),
    ("labels of 1 alone", lambda z, t: (p_of(z) - t) * t),
    ("labels of 0 alone", lambda z, t: (p_of(z) - t) * (1.0 - t)),
    ("log p in place of p", lambda z, t: np.log(p_of(z)) - t),
    ("tanh in place of the sigmoid", lambda z, t: np.tanh(z) - t),
    ("a softmax in place of the sigmoid", lambda z, t: (
        np.exp(z - z.max(axis=-1, keepdims=True)) / np.exp(z - z.max(axis=-1, keepdims=True)).sum(-1, keepdims=True)
        - t)),
    ("p rounded to 0 or 1", lambda z, t: (z > 0.0) - t),
    ("twice", lambda z, t: 2.0 * (p_of(z) - t)),
    ("summed over the texts", lambda z, t: (p_of(z) - t) * z.size),
    ("over the texts alone", lambda z, t: (p_of(z) - t) * (z.size / len(z))),
    ("over the labels of a text alone", lambda z, t: (p_of(z) - t) * len(z)),
):  # fmt: skip
    of_loss.way(f"{way}, of several labels", bce_with_logits)(numbers_of(of_numbers))

of_shift = mistake(
    GRADIENT_TERMS,
    "gradient of shifted logits",
    does="the gradient of logits that were shifted, cut into columns or grouped goes back to another place",
    right="to the place that the numbers came from",
)
for way, put_back in (
    ("to the next token", lambda dy: np.pad(dy, ((0, 0), (1, 0), (0, 0)))),
    ("the last repeated", lambda dy: np.concatenate([dy, dy[:, -1:]], axis=1)),
    ("to the token before", lambda dy: np.pad(dy[:, 1:], ((0, 0), (0, 2), (0, 0)))),
    ("none to the first token", lambda dy: np.pad(dy[:, 1:], ((0, 0), (1, 1), (0, 0)))),
):
    of_shift.way(way, all_but_last_token)(lambda step, dy, y, x, put_back=put_back: put_back(dy))


@of_shift.way("start and end exchanged", column)
def other_column(step: Step, dy: Any, y: Any, x: Any, *, index: int) -> Any:
    """The other of two columns."""
    return step.right(dy, y, x, index=x.shape[-1] - 1 - index)


@of_shift.way("to both columns", column)
def both_columns(step: Step, dy: Any, y: Any, x: Any, *, index: int) -> Any:
    """Every column."""
    return np.repeat(dy[..., None], x.shape[-1], axis=-1)


@of_shift.way("choices of a question apart", by_choice)
def choices_apart(step: Step, dy: Any, y: Any, x: Any, *, choices: int) -> Any:
    """Choices first, then questions."""
    return dy.T.reshape(x.shape)


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
of_pooler.way("the second", first_token)(to_tokens(lambda length: np.eye(length)[min(1, length - 1)]))
of_pooler.way("all but the first", first_token)(to_tokens(lambda length: 1.0 - np.eye(length)[0]))
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
