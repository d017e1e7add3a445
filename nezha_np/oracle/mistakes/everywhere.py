"""Mistakes that can be made at every step: dropout left on, weights rounded."""

from __future__ import annotations

from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.embedding import embedding
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.layers.span_convolution import separable_convolution
from nezha_np.oracle.mistakes.mistake import Evidence, Mistake, Ways
from nezha_np.oracle.replay import Changes, Step
from nezha_np.oracle.rounding import ARITHMETICS, rounded


def dropped(evidence: Evidence) -> Ways:
    """Recognise dropout: each number is 0 or c times the right one, perhaps with the residual added."""
    added: Any = 0.0
    right, theirs = evidence.right, evidence.theirs
    if evidence.layer is add and evidence.step.name.endswith("residual"):
        right, added = evidence.arguments
        theirs = theirs - added
    gone = (np.abs(theirs) <= evidence.allowed) & (np.abs(right) > 2.0 * evidence.allowed)
    kept = ~gone & (np.abs(right) >= np.median(np.abs(right)))
    if not gone.any() or not kept.any():
        return {}
    factor = float(np.median(theirs[kept] / right[kept]))
    if not 1.01 < factor < 20.0:
        return {}
    scaled_up = factor * right
    return evidence.instead(np.where(np.abs(theirs) < np.abs(theirs - scaled_up), 0.0, scaled_up) + added)


def of_rounded_weights(dtype: str) -> Changes:
    """The weights of every layer that has some rounded to a dtype."""

    def change(step: Step, x: Any, *weights: Any, **options: Any) -> Any:
        narrow = (None if weight is None else rounded(weight, ARITHMETICS[dtype]) for weight in weights)
        return step.right(x, *narrow, **options)

    return dict.fromkeys(WITH_WEIGHTS, change)


WITH_WEIGHTS = (
    embedding,
    layer_norm,
    linear,
    grouped_linear,
    separable_convolution,
    query_distance_scores,
    key_distance_scores,
)

EVERYWHERE = (
    Mistake(
        "dropout left on",
        "numbers are set to 0 at random, and the others scaled up; dropout is for training alone (model.eval())",
        {},
        recognise=dropped,
    ),
    Mistake(
        "weights rounded",
        "weights are rounded to a narrower dtype than the port computes in (a checkpoint saved in half precision); "
        "they are those of the checkpoint, in its dtype",
        {dtype: of_rounded_weights(dtype) for dtype in ("float16", "bfloat16")},
    ),
)
