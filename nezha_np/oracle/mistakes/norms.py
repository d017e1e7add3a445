"""Mistakes in layer_norm, and in what is added before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from nezha_np import model
from nezha_np.layers.addition import add
from nezha_np.layers.dropout import dropout
from nezha_np.layers.layer_norm import layer_norm
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
        "layer_norm is computed with another ε than the configuration's, which is 1e-12 where nothing else is said",
        {f"{eps:g}".replace("e-0", "e-"): with_eps(eps) for eps in (1e-5, 1e-6, 1e-12, 1e-3)},
    ),
    Mistake(
        "variance with n − 1",
        "layer_norm's variance is divided by H − 1; it is the mean over all H features",
        {"": {layer_norm: variance_of_a_sample}},
    ),
    Mistake(
        "norm without the mean",
        "layer_norm divides by the root mean square (RMSNorm); the mean is subtracted first",
        {"": {layer_norm: mean_kept}},
    ),
    Mistake(
        "norm over the tokens",
        "layer_norm takes mean and variance over the tokens of a text; they are taken over the features of a token",
        {"": {layer_norm: over_the_tokens}},
    ),
    Mistake(
        "another weight or bias of a norm",
        "layer_norm's weight or bias is another one than the checkpoint's (old files call them gamma and beta)",
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
        },
        recognise=fitted_norm,
    ),
    Mistake(
        "norm missing",
        "a layer_norm is left out",
        {"": {layer_norm: first}},
    ),
    Mistake(
        "norm before the residual",
        "the norm is taken of the block's result, or of its input (pre-norm), before they are added; it comes after",
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
)
