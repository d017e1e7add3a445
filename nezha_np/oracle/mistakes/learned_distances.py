"""Mistakes in BERT's learned distances, relative_key and relative_key_query."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.oracle.mistakes.distances import distances
from nezha_np.oracle.mistakes.mistake import BERT, Evidence, Mistake, Near, Sites, Ways, first, mistake, nothing
from nezha_np.oracle.replay import At, Call, Changes, Step

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


def by_learned_rows(row_of: Callable[[Any, int], Any]) -> Changes:
    """Take another row of distance_embedding: `row_of` distance, query − key, and M."""

    def rows(weight: Any, queries: int, keys: int, past: int) -> Any:
        most = (weight.shape[0] + 1) // 2
        distance = -distances(queries, keys, past)
        row = row_of(distance, most)
        if (row == distance + most - 1).all() or row.min() < 0 or row.max() >= weight.shape[0]:
            raise ValueError("these are the rows, or there are no such rows")
        return weight[row]

    def of_queries(step: Step, q: Any, weight: Any, *, keys: int, past: int = 0) -> Any:
        return np.einsum("bnqd,qsd->bnqs", q, rows(weight, q.shape[2], keys, past))

    def of_keys(step: Step, k: Any, weight: Any, *, queries: int, past: int = 0) -> Any:
        return np.einsum("bnsd,qsd->bnqs", k, rows(weight, queries, k.shape[2], past))

    return {query_distance_scores: of_queries, key_distance_scores: of_keys}


def of_distance(function: Callable[[Any], Any]) -> Callable[[Any, int], Any]:
    """The row of another distance."""
    return lambda distance, most: function(distance) + most - 1


def clipped_at(reach: int) -> Callable[[Any], Any]:
    """Distances no larger than this."""
    return lambda distance: np.clip(distance, -reach, reach)


another_distance = mistake(
    LEARNED_DISTANCES,
    "another learned distance",
    does="the row of distance_embedding is that of another distance",
    right="the row query − key + max_position_embeddings − 1",
    families=BERT,
)
DISTANCES: dict[str, Callable[[Any, int], Any]] = {
    "max_position_embeddings − 1 not added, negative ones from the end": lambda distance, most: (
        distance % (2 * most - 1)
    ),
    "max_position_embeddings − 1 not added, |distance|": lambda distance, most: np.abs(distance),
    "max_position_embeddings − 1 not added, negative ones as 0": lambda distance, most: np.maximum(distance, 0),
    "modulo max_position_embeddings": lambda distance, most: distance % most,
    "|distance|": of_distance(np.abs),
    "−|distance|": of_distance(lambda distance: -np.abs(distance)),
    "one less": of_distance(lambda distance: distance - 1),
    "0 for keys before": of_distance(lambda distance: np.minimum(distance, 0)),
    "0 for keys after": of_distance(lambda distance: np.maximum(distance, 0)),
    "0 for all": of_distance(lambda distance: 0 * distance),
    "half of it": of_distance(lambda distance: distance // 2),
    "the last query's for all": of_distance(lambda distance: np.broadcast_to(distance[-1:], distance.shape)),
    "the first query's for all": of_distance(lambda distance: np.broadcast_to(distance[:1], distance.shape)),
    "the last key's for all": of_distance(lambda distance: np.broadcast_to(distance[:, -1:], distance.shape)),
    "the first key's for all": of_distance(lambda distance: np.broadcast_to(distance[:, :1], distance.shape)),
}
for reach in (1, 2, 3, 4, 5, 8, 16, 32, 64, 128):
    DISTANCES[f"clipped at ±{reach}"] = of_distance(clipped_at(reach))
for way, row_of in DISTANCES.items():
    another_distance.add_way(way, by_learned_rows(row_of))

other_side = mistake(
    LEARNED_DISTANCES,
    "learned distances of the other side",
    does="the distances' term of the queries is made of the keys, or that of the keys of the queries",
    right="q_i · E[i − j] for the queries, and k_j · E[i − j] for the keys",
    families=BERT,
)


def made_of_other_side(call: Call, others: Mapping[str, Any], name: str) -> tuple[str, Any] | None:
    """Make k · E in place of q · E, or the other way round; None: it cannot be made."""
    layer, arguments, options = call
    scope, past = name.rpartition(".")[0], options.get("past", 0)
    q, k = others.get(f"{scope}.q"), others.get(f"{scope}.all_k", others.get(f"{scope}.k"))
    if layer not in (query_distance_scores, key_distance_scores) or q is None or k is None:
        return None
    weight = arguments[1]
    if layer is query_distance_scores:
        return "of the keys", key_distance_scores.definition(k, weight, queries=q.shape[2], past=past)
    return "of the queries", query_distance_scores.definition(q, weight, keys=k.shape[2], past=past)


@other_side.recogniser
def of_other_side(evidence: Evidence) -> Ways:
    """Recognise k · E in place of q · E, or the other way round."""
    call = evidence.layer, evidence.arguments, dict(evidence.options)
    found = made_of_other_side(call, evidence.others, evidence.step.name)
    if found is None or not evidence.is_explained_by(found[1]):
        return {}
    return evidence.replace_result(found[1], found[0])


@other_side.near_the_fault
def of_other_side_between(sites: Sites) -> Near:
    """Each such term between their arrays."""
    for name, call in sites.calls.items():
        found = made_of_other_side(call, sites.others, name)
        if found is not None:
            way, made = found
            yield way, {call[0]: At(name, lambda step, *arguments, made=made, **options: made)}


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
