"""Mistakes in layer_norm, and in the residual that is added before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.dropout import dropout
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.model import model
from nezha_np.oracle.mistakes.mistake import ENOUGH, Evidence, Mistake, Ways, first, mistake
from nezha_np.oracle.replay import At, Changes, Step

NORMS: list[Mistake] = []


def written(eps: float) -> str:
    """Write an ε as Python does: 1e-5."""
    return f"{eps:g}".replace("e-0", "e-")


# -------------------------------------------------------------------------------------------------------------- norms

another_eps = mistake(
    NORMS,
    "another layer_norm_eps",
    does="layer_norm is computed with another ε than the configuration's",
    right="its layer_norm_eps, or 1e-12 where a configuration says nothing",
)


def with_eps(eps: float) -> Changes:
    """Another ε."""
    return {layer_norm: lambda step, x, weight, bias, **options: step.right(x, weight, bias, eps=eps)}


for number in (1e-5, 1e-6, 1e-12, 1e-3, 1e-7, 1e-8, 1e-10, 1e-4, 1e-2, 1e-1, 0.0):
    another_eps.add_way(written(number), with_eps(number))


@another_eps.recogniser
def fitted_eps(evidence: Evidence) -> Ways:
    """Recognise any other ε: by it each token is divided by √((σ² + ε′) / (σ² + ε)) more."""
    if evidence.layer is not layer_norm:
        return {}
    x, _, bias = evidence.arguments
    right, theirs = evidence.right - bias, evidence.theirs - bias
    with np.errstate(all="ignore"):
        divided = (right * right).sum(axis=-1) / (right * theirs).sum(axis=-1)
    variance = x.var(axis=-1)
    found = np.median(divided**2 * (variance + evidence.options["eps"]) - variance)
    if not np.isfinite(found) or found <= 0.0:
        return {}
    return {written(eps): with_eps(eps) for eps in (float(f"{found:.1g}"), float(f"{found:.2g}"), float(found))}


eps_outside = mistake(
    NORMS,
    "ε outside the root",
    does="layer_norm divides by √variance + ε, or by √(variance + ε²)",
    right="√(variance + ε)",
)


def with_deviation(deviation: Callable[[Any, float], Any]) -> Changes:
    """Divide by another deviation: of the variance and ε."""

    def change(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        return (x - x.mean(axis=-1, keepdims=True)) / deviation(x.var(axis=-1, keepdims=True), eps) * weight + bias

    return {layer_norm: change}


def added_outside(number: float) -> Changes:
    """Another ε, added to the deviation."""
    return with_deviation(lambda variance, eps: np.sqrt(variance) + number)


eps_outside.add_way("the configuration's", with_deviation(lambda variance, eps: np.sqrt(variance) + eps))
for number in (1e-5, 1e-6):
    eps_outside.add_way(written(number), added_outside(number))
eps_outside.add_way("squared", with_deviation(lambda variance, eps: np.sqrt(variance + eps * eps)))

variance_of_a_sample = mistake(
    NORMS,
    "variance with n − 1",
    does="layer_norm's variance is divided by H − 1",
    right="H, the mean over all features",
)


@variance_of_a_sample.way("", layer_norm)
def divided_by_one_less(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The sum of squares divided by H − 1."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)
    return centred / np.sqrt(variance + eps) * weight + bias


without_mean = mistake(
    NORMS,
    "norm without the mean",
    does="layer_norm divides by the root mean square (RMSNorm)",
    right="to subtract the mean first",
)


@without_mean.way("", layer_norm)
def rms_norm(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """Divide by the root of the mean square."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight + bias


over_tokens = mistake(
    NORMS,
    "norm over the tokens",
    does="layer_norm takes mean and variance over the tokens of a text",
    right="to take them over the features of a token",
)


@over_tokens.way("", layer_norm)
def norm_of_each_feature(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """Mean and variance of a feature over the tokens of a text."""
    if x.ndim < 3:
        raise ValueError("there is one token alone")
    deviation = np.sqrt(x.var(axis=-2, keepdims=True) + eps)
    return (x - x.mean(axis=-2, keepdims=True)) / deviation * weight + bias


another_weight_or_bias = mistake(
    NORMS,
    "another weight or bias of a norm",
    does="layer_norm multiplies by other numbers than its weight, or adds others than its bias",
    right="to take the checkpoint's (old files call them gamma and beta)",
    fits_any_numbers=True,
)


@another_weight_or_bias.way("both left at 1 and 0", layer_norm)
def without_weight_and_bias(step: Step, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """Neither weight nor bias."""
    return step.right(x, np.ones_like(weight), np.zeros_like(bias), **options)


@another_weight_or_bias.way("weight left at 1", layer_norm)
def without_weight(step: Step, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """The bias alone."""
    return step.right(x, np.ones_like(weight), bias, **options)


@another_weight_or_bias.way("bias left at 0", layer_norm)
def without_bias(step: Step, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """The weight alone."""
    return step.right(x, weight, np.zeros_like(bias), **options)


@another_weight_or_bias.way("1 + weight", layer_norm)
def with_one_more(step: Step, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """The weight taken for a difference from 1."""
    return step.right(x, 1.0 + weight, bias, **options)


@another_weight_or_bias.way("weight and bias exchanged", layer_norm)
def exchanged(step: Step, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """The bias for the weight, and the weight for the bias."""
    return step.right(x, bias, weight, **options)


@another_weight_or_bias.way("the bias added before the weight multiplies", layer_norm)
def bias_first(step: Step, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """(x̂ + bias) · weight."""
    return (step.right(x, np.ones_like(weight), np.zeros_like(bias), **options) + bias) * weight


@another_weight_or_bias.way("of the layer's other norm", layer_norm)
def of_the_other_norm(step: Step, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """Weight and bias of the other norm of a layer."""
    ends = (".attention.output.LayerNorm", ".output.LayerNorm")
    own, other = ends if step.name.endswith(ends[0]) else ends[::-1]
    if not step.name.startswith("encoder.layer.") or "crossattention" in step.name:
        return step.right(x, weight, bias, **options)
    scope = step.name.removesuffix(own) + other
    return step.right(x, step.weights[f"{scope}.weight"], step.weights[f"{scope}.bias"], **options)


@another_weight_or_bias.recogniser
def fitted_norm(evidence: Evidence) -> Ways:
    """Recognise another weight and bias of a norm: each feature is one linear function of the normalised numbers."""
    if evidence.layer is not layer_norm:
        return {}
    x, weight, _ = evidence.arguments
    normalised = evidence.step.right(x, np.ones_like(weight), np.zeros_like(weight), **evidence.options)
    rows, theirs = normalised.reshape(-1, x.shape[-1]), evidence.theirs.reshape(-1, x.shape[-1])
    if len(np.unique(rows, axis=0)) < 2 + ENOUGH:
        return {}
    across = rows - rows.mean(axis=0)
    slope = (across * theirs).sum(axis=0) / (across * across).sum(axis=0)
    return evidence.replace_result(normalised * slope + (theirs.mean(axis=0) - slope * rows.mean(axis=0)))


applied_twice = mistake(
    NORMS, "norm applied twice", does="a layer_norm is applied to its own result again", right="to apply it once"
)


@applied_twice.way("", layer_norm)
def norm_of_norm(step: Step, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """The norm of the norm."""
    return step.right(step.right(x, weight, bias, **options), weight, bias, **options)


@applied_twice.way("without weight and bias the second time", layer_norm)
def plain_norm_of_norm(step: Step, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """The norm's result normalised."""
    return step.right(step.right(x, weight, bias, **options), np.ones_like(weight), np.zeros_like(bias), **options)


def norm_at_the_end(eps: float | None) -> Callable[..., Any]:
    """A norm without weight and bias of what the encoder returns."""

    def change(step: Step, x: Any, w: Any, **options: Any) -> Any:
        last, *rest = step.right(x, w, **options)
        ones = np.ones_like(last[0, 0])
        least = w.config.layer_norm_eps if eps is None else eps
        return layer_norm.definition(last, ones, 0.0 * ones, eps=least), *rest

    return change


applied_twice.way("after the last layer", model.encoder)(norm_at_the_end(None))
applied_twice.way("after the last layer, with ε = 1e-5", model.encoder)(norm_at_the_end(1e-5))


in_groups = mistake(
    NORMS,
    "norm in groups",
    does="mean and variance are taken of groups of features, as in a group norm",
    right="to take them over all features of a token",
)


def norm_of_groups(size: Callable[[Step, int], int], own_eps: float | None = None) -> Callable[..., Any]:
    """Mean and variance of groups of neighbouring features, with ε or another one."""

    def change(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        count, group = x.shape[-1], size(step, x.shape[-1])
        if not 1 < group < count or count % group:
            raise ValueError("there are no such groups")
        y = x.reshape(*x.shape[:-1], -1, group)
        least = eps if own_eps is None else own_eps
        y = (y - y.mean(axis=-1, keepdims=True)) / np.sqrt(y.var(axis=-1, keepdims=True) + least)
        return y.reshape(x.shape) * weight + bias

    return change


def so_many_parts(parts: int) -> Callable[[Step, int], int]:
    """Groups of a part of the features each."""
    return lambda step, count: count // parts


def so_many_features(features: int) -> Callable[[Step, int], int]:
    """Groups of so many features."""
    return lambda step, count: features


GROUPS: dict[str, Callable[[Step, int], int]] = {
    "of a head each": lambda step, count: int(step.config.head_size),
    **{f"{parts} of them": so_many_parts(parts) for parts in (2, 4, 8, 32)},
    **{f"of {features} features": so_many_features(features) for features in (4, 8, 16, 64, 128, 256)},
}
for way, size in GROUPS.items():
    in_groups.way(way, layer_norm)(norm_of_groups(size))
    in_groups.way(f"{way}, with ε = 1e-5", layer_norm)(norm_of_groups(size, 1e-5))

norm_missing = mistake(NORMS, "norm missing", does="a layer_norm of the model is left out", right="to apply it")
norm_missing.way("", layer_norm)(first)

# ---------------------------------------------------------------------------------------------------------- residuals

norm_first = mistake(
    NORMS,
    "norm before the residual",
    does="the norm is taken of the block's result, or of its input (pre-norm), and the two are added afterwards",
    right="the norm of their sum (post-norm)",
)


def normalise(x: Any, w: Any) -> Any:
    """Apply the norm that a view has."""
    return layer_norm(x, w["LayerNorm.weight"], w["LayerNorm.bias"], eps=w.config.layer_norm_eps)


@norm_first.way("of the block's result", model.residual_output)
def norm_before_residual(step: Step, x: Any, residual: Any, w: Any) -> Any:
    """The end of a block as x + norm(dense(…))."""
    x = dropout(model.dense(x, w), rate=w.config.hidden_dropout_prob)
    return add(normalise(x, w), residual, name="residual")


def pre_norm_end(x: Any, residual: Any, w: Any) -> Any:
    """The end of a block whose norm was at its beginning."""
    x = dropout(model.dense(x, w), rate=w.config.hidden_dropout_prob, name="output.dropout")
    return add(x, residual, name="output.residual")


@norm_first.way("of its input", model.attention)
def pre_norm_attention(step: Step, x: Any, w: Any, **options: Any) -> Any:
    """x + attention(norm(x))."""
    context, probs, keys_and_values = model.self_attention(normalise(x, w.at("output")), w.at("self"), **options)
    return pre_norm_end(context, x, w.at("output")), probs, keys_and_values


@norm_first.way("of its input", model.feed_forward)
def pre_norm_feed_forward(step: Step, x: Any, w: Any) -> Any:
    """x + feed_forward(norm(x))."""
    wide = model.intermediate(normalise(x, w.at("output")), w.at("intermediate"))
    return pre_norm_end(wide, x, w.at("output"))


residual_missing = mistake(
    NORMS,
    "residual missing",
    does="what came into a block is not added to its result before the norm",
    right="the norm of their sum",
)
residual_missing.way("", add, at="**.residual")(first)

residual_scaled = mistake(
    NORMS,
    "residual scaled",
    does="a block's result and what came into it are added with other factors than 1",
    right="their sum",
)


def of_both(of_block: float, of_residual: float) -> Changes:
    """A block's result and the residual, each multiplied by a factor."""
    return {add: At("**.residual", lambda step, x, y: step.right(of_block * x, of_residual * y))}


residual_scaled.add_way("residual added twice", of_both(1.0, 2.0))
residual_scaled.add_way("sum divided by √2", of_both(0.5**0.5, 0.5**0.5))
residual_scaled.add_way("residual divided by √2", of_both(1.0, 0.5**0.5))
residual_scaled.add_way("residual halved", of_both(1.0, 0.5))
residual_scaled.add_way("sum halved", of_both(0.5, 0.5))
residual_scaled.add_way("result added twice", of_both(2.0, 1.0))


@residual_scaled.recogniser
def fitted_factors(evidence: Evidence) -> Ways:
    """Recognise a sum of other multiples of a block's result and the residual."""
    if evidence.layer is not add or not evidence.step.name.endswith(".residual"):
        return {}
    x, y = evidence.arguments
    parts = np.stack([x.ravel(), y.ravel()], axis=1)
    if len(parts) < 2 + ENOUGH:
        return {}
    of_block, of_residual = (
        float(f"{factor:.5g}") for factor in np.linalg.lstsq(parts, evidence.theirs.ravel(), rcond=None)[0]
    )
    return {f"{of_block:.3g} · result + {of_residual:.3g} · residual": of_both(of_block, of_residual)}
