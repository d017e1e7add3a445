"""Mistakes in BERT's learned distances, relative_key and relative_key_query."""

from __future__ import annotations

from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.oracle.mistakes.mistake import BERT, Mistake, first, mistake, nothing
from nezha_np.oracle.replay import Step

LEARNED_DISTANCES: list[Mistake] = []

reversed_distance = mistake(
    LEARNED_DISTANCES,
    "learned distance reversed",
    does="the row of distance_embedding is taken by key − query",
    right="query − key",
    families=BERT,
)


@reversed_distance.way("", query_distance_scores, key_distance_scores)
def rows_reversed(step: Step, x: Any, weight: Any, **options: Any) -> Any:
    """Distances counted from key to query."""
    return step.right(x, weight[::-1], **options)


reversed_distance.way("for the queries", query_distance_scores)(rows_reversed)
reversed_distance.way("for the keys", key_distance_scores)(rows_reversed)

distance_off = mistake(
    LEARNED_DISTANCES,
    "learned distance off by one",
    does="the row of distance_embedding is the next one",
    right="the row max_position_embeddings − 1 for distance 0",
    families=BERT,
)


@distance_off.way("", query_distance_scores, key_distance_scores)
def next_distance(step: Step, x: Any, weight: Any, **options: Any) -> Any:
    """The row of the next distance."""
    return step.right(x, np.roll(weight, -1, axis=0), **options)


distances_missing = mistake(
    LEARNED_DISTANCES,
    "learned distances missing",
    does="the scores have no term for the distance, or not the keys' one",
    right="the queries' term for relative_key, and both terms for relative_key_query",
    families=BERT,
)
distances_missing.way("both", query_distance_scores, key_distance_scores)(nothing)
distances_missing.way("the keys'", key_distance_scores)(nothing)
distances_missing.way("the queries'", query_distance_scores)(nothing)
distances_missing.way("computed, not added", add, at="**.scores")(first)
