"""Mistakes in layer_norm, and in what is added before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.dropout import dropout
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.model import model
from nezha_np.oracle.mistakes.mistake import ENOUGH, Evidence, Mistake, Ways, first
from nezha_np.oracle.replay import At, Changes, Step


def with_eps(eps: float) -> Changes:
    """Another ε."""
    return {layer_norm: lambda step, x, weight, bias, **options: step.right(x, weight, bias, eps=eps)}


def variance_of_a_sample(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """The sum of squares divided by H − 1."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)
    return centred / np.sqrt(variance + eps) * weight + bias


def eps_outside(eps: float | None = None) -> Changes:
    """ε added to the deviation, the configuration's or another."""
    return with_deviation(lambda variance, own: np.sqrt(variance) + (own if eps is None else eps))


def with_deviation(deviation: Callable[[Any, float], Any]) -> Changes:
    """Divide by another deviation: of the variance and ε."""

    def change(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
        return (x - x.mean(axis=-1, keepdims=True)) / deviation(x.var(axis=-1, keepdims=True), eps) * weight + bias

    return {layer_norm: change}


def of_the_other_norm(step: Step, x: Any, weight: Any, bias: Any, **options: Any) -> Any:
    """Weight and bias of the other norm of a layer."""
    ends = (".attention.output.LayerNorm", ".output.LayerNorm")
    own, other = ends if step.name.endswith(ends[0]) else ends[::-1]
    if not step.name.startswith("encoder.layer.") or "crossattention" in step.name:
        return step.right(x, weight, bias, **options)
    scope = step.name.removesuffix(own) + other
    return step.right(x, step.weights[f"{scope}.weight"], step.weights[f"{scope}.bias"], **options)


def mean_kept(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """RMSNorm: divided by the root of the mean square."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight + bias


def over_the_tokens(step: Step, x: Any, weight: Any, bias: Any, *, eps: float) -> Any:
    """Mean and variance of a feature over the tokens of a text."""
    if x.ndim < 3:
        raise ValueError("there is one token alone")
    deviation = np.sqrt(x.var(axis=-2, keepdims=True) + eps)
    return (x - x.mean(axis=-2, keepdims=True)) / deviation * weight + bias


def fitted_norm(evidence: Evidence) -> Ways:
    """Recognise another weight and bias of a norm: of each feature all tokens lie on one line."""
    if evidence.layer is not layer_norm:
        return {}
    x, weight, _ = evidence.arguments
    normalised = evidence.step.right(x, np.ones_like(weight), np.zeros_like(weight), **evidence.options)
    rows, theirs = normalised.reshape(-1, x.shape[-1]), evidence.theirs.reshape(-1, x.shape[-1])
    if len(np.unique(rows, axis=0)) < 2 + ENOUGH:
        return {}
    across = rows - rows.mean(axis=0)
    slope = (across * theirs).sum(axis=0) / (across * across).sum(axis=0)
    return evidence.instead(normalised * slope + (theirs.mean(axis=0) - slope * rows.mean(axis=0)))


def of_both(x_factor: float, y_factor: float) -> Changes:
    """Both parts of a residual multiplied."""
    return {add: At(".residual", lambda step, x, y: step.right(x_factor * x, y_factor * y))}


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


def normalise(x: Any, w: Any) -> Any:
    """Apply the norm that a view has."""
    return layer_norm(x, w["LayerNorm.weight"], w["LayerNorm.bias"], eps=w.config.layer_norm_eps)


def norm_before_residual(step: Step, x: Any, residual: Any, w: Any) -> Any:
    """The end of a block as x + norm(dense(…))."""
    x = dropout(model.dense(x, w), rate=w.config.hidden_dropout_prob)
    return add(normalise(x, w), residual, name="residual")


def pre_norm_end(x: Any, residual: Any, w: Any) -> Any:
    """The end of a block whose norm was at its beginning."""
    x = dropout(model.dense(x, w), rate=w.config.hidden_dropout_prob, name="output.dropout")
    return add(x, residual, name="output.residual")


def pre_norm_attention(step: Step, x: Any, w: Any, **options: Any) -> Any:
    """x + attention(norm(x))."""
    context, probs, keys_and_values = model.self_attention(normalise(x, w.at("output")), w.at("self"), **options)
    return pre_norm_end(context, x, w.at("output")), probs, keys_and_values


def pre_norm_feed_forward(step: Step, x: Any, w: Any) -> Any:
    """x + feed_forward(norm(x))."""
    wide = model.intermediate(normalise(x, w.at("output")), w.at("intermediate"))
    return pre_norm_end(wide, x, w.at("output"))


NORMS = (
    Mistake(
        "another layer_norm_eps",
        "layer_norm is computed with another ε than the configuration's (where a configuration says nothing, it is "
        "1e-12)",
        {f"{eps:g}".replace("e-0", "e-"): with_eps(eps) for eps in (1e-5, 1e-6, 1e-12, 1e-3)},
    ),
    Mistake(
        "ε outside the root",
        "layer_norm divides by √variance + ε, or by √(variance + ε²); right is √(variance + ε)",
        {
            "the configuration's": eps_outside(),
            **{f"{eps:g}".replace("e-0", "e-"): eps_outside(eps) for eps in (1e-5, 1e-6)},
            "squared": with_deviation(lambda variance, eps: np.sqrt(variance + eps * eps)),
        },
    ),
    Mistake(
        "variance with n − 1",
        "layer_norm's variance is divided by H − 1; right is H, the mean over all features",
        {"": {layer_norm: variance_of_a_sample}},
    ),
    Mistake(
        "norm without the mean",
        "layer_norm divides by the root mean square (RMSNorm); right is to subtract the mean first",
        {"": {layer_norm: mean_kept}},
    ),
    Mistake(
        "norm over the tokens",
        "layer_norm takes mean and variance over the tokens of a text; right are those over the features of a token",
        {"": {layer_norm: over_the_tokens}},
    ),
    Mistake(
        "another weight or bias of a norm",
        "layer_norm multiplies by other numbers than its weight, or adds others than its bias; right are the "
        "checkpoint's (old files call them gamma and beta)",
        {
            "both left at 1 and 0": {
                layer_norm: lambda step, x, weight, bias, **options: step.right(
                    x, np.ones_like(weight), np.zeros_like(bias), **options
                )
            },
            "weight left at 1": {
                layer_norm: lambda step, x, weight, bias, **options: step.right(
                    x, np.ones_like(weight), bias, **options
                )
            },
            "bias left at 0": {
                layer_norm: lambda step, x, weight, bias, **options: step.right(
                    x, weight, np.zeros_like(bias), **options
                )
            },
            "1 + weight": {
                layer_norm: lambda step, x, weight, bias, **options: step.right(x, 1.0 + weight, bias, **options)
            },
            "weight and bias exchanged": {
                layer_norm: lambda step, x, weight, bias, **options: step.right(x, bias, weight, **options)
            },
            "of the layer's other norm": {layer_norm: of_the_other_norm},
        },
        recognise=fitted_norm,
    ),
    Mistake(
        "norm missing",
        "a layer_norm of the model is left out",
        {"": {layer_norm: first}},
    ),
    Mistake(
        "norm before the residual",
        "the norm is taken of the block's result, or of its input (pre-norm), and the two are added afterwards; right "
        "is the norm of their sum",
        {
            "of the block's result": {model.residual_output: norm_before_residual},
            "of its input": {model.attention: pre_norm_attention, model.feed_forward: pre_norm_feed_forward},
        },
    ),
    Mistake(
        "residual missing",
        "what came into a block is not added to its result before the norm",
        {"": {add: At(".residual", first)}},
    ),
    Mistake(
        "residual scaled",
        "a block's result and what came into it are added with other factors than 1; right is their sum",
        {
            "residual added twice": of_both(1.0, 2.0),
            "sum divided by √2": of_both(0.5**0.5, 0.5**0.5),
            "residual divided by √2": of_both(1.0, 0.5**0.5),
            "residual halved": of_both(1.0, 0.5),
            "sum halved": of_both(0.5, 0.5),
            "result added twice": of_both(2.0, 1.0),
        },
        recognise=fitted_factors,
    ),
)
