"""Mistakes in the terms that relative positions add to scores and context: left out, doubled, of another distance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.layers.relative_position import position_context, position_scores
from nezha_np.oracle.mistakes.distances import by_rows, clipped, distances
from nezha_np.oracle.mistakes.embeddings import past_of, positions_from
from nezha_np.oracle.mistakes.mistake import (
    NEZHA,
    NEZHA_AND_BERT,
    Evidence,
    Mistake,
    Near,
    Sites,
    Ways,
    first,
    mistake,
    nothing,
)
from nezha_np.oracle.replay import At, Call, Changes, Step

POSITION_TERMS: list[Mistake] = []
SCORES, CONTEXT = "**.scores", "**.self.context"

# --------------------------------------------------------------------------------------------------------------- terms

missing_in_keys = mistake(
    POSITION_TERMS,
    "position term missing in keys",
    does="the scores are q · k alone",
    right="to add the position term, q · t",
    families=NEZHA,
)
missing_in_keys.way("left out", position_scores)(nothing)
missing_in_keys.way("computed, not added", add, at=SCORES)(first)

missing_in_values = mistake(
    POSITION_TERMS,
    "position term missing in values",
    does="the context is made of the values alone",
    right="to add the relative positions to the values too",
    families=NEZHA,
)
missing_in_values.way("left out", position_context)(nothing)
missing_in_values.way("computed, not added", add, at=CONTEXT)(first)

missing_in_both = mistake(
    POSITION_TERMS,
    "position terms missing",
    does="no relative position enters attention",
    right="to add them to keys and to values",
    families=NEZHA,
)
missing_in_both.way("left out", position_scores, position_context)(nothing)
missing_in_both.way("computed, not added", add, at=(SCORES, CONTEXT))(first)

doubled = mistake(
    POSITION_TERMS,
    "position term doubled",
    does="the position term counts twice in the scores or in the context",
    right="to add it once",
    families=NEZHA_AND_BERT,
)


def twice(step: Step, *arguments: Any, **options: Any) -> Any:
    """The result times 2."""
    return 2.0 * step.right(*arguments, **options)


def added_twice(step: Step, x: Any, y: Any) -> Any:
    """The second summand times 2."""
    return step.right(x, 2.0 * y)


doubled.way("in keys", position_scores)(twice)
doubled.way("in values", position_context)(twice)
doubled.way("in both", position_scores, position_context)(twice)
doubled.way("added twice to the scores", add, at=SCORES)(added_twice)
doubled.way("added twice to the context", add, at=CONTEXT)(added_twice)
doubled.way("added twice to both", add, at=(SCORES, CONTEXT))(added_twice)

term_of_keys = mistake(
    POSITION_TERMS,
    "position term of the keys",
    does="the position term of the scores is made of the keys, k · t",
    right="that of the queries, q · t",
    families=NEZHA,
)


def made_of_keys(call: Call, others: Mapping[str, Any], name: str) -> np.ndarray | None:
    """Make k · t in place of q · t: the key that is scored, by its distance from the query; None: it cannot be."""
    scope = name.rpartition(".")[0]
    k = others.get(f"{scope}.all_k", others.get(f"{scope}.k"))
    _, (q, table), options = call
    keys, past = options["keys"], options.get("past", 0)
    if k is None or k.shape[2] != keys:
        return None
    distance = distances(q.shape[2], keys, past)
    found: np.ndarray = np.einsum("bnsd,qsd->bnqs", k, table[clipped(distance, len(table) // 2)])
    return found


@term_of_keys.recogniser
def recognise_term_of_keys(evidence: Evidence) -> Ways:
    """Recognise k · t where the scores' term is known."""
    if evidence.layer is not position_scores:
        return {}
    call = evidence.layer, evidence.arguments, dict(evidence.options)
    made = made_of_keys(call, evidence.others, evidence.step.name)
    return {} if made is None else evidence.replace_result(made)


@term_of_keys.near_the_fault
def term_of_keys_between(sites: Sites) -> Near:
    """Each such term between their arrays."""
    for name, call in sites.calls.items():
        made = made_of_keys(call, sites.others, name) if call[0] is position_scores else None
        if made is not None:
            yield "", {position_scores: At(name, lambda step, *arguments, made=made, **options: made)}


of_another_factor = mistake(
    POSITION_TERMS,
    "position term of another factor",
    does="the position term is subtracted, or multiplied or divided by √D, where it is added",
    right="to add it as it is, and to divide the sum of both terms by √D",
    families=NEZHA_AND_BERT,
)


def added_times(factor: Callable[[Step], float]) -> Callable[..., Any]:
    """The second summand times a factor."""
    return lambda step, x, y: step.right(x, factor(step) * y)


FACTORS: dict[str, Callable[[Step], float]] = {
    "multiplied by √D": lambda step: float(step.config.head_size) ** 0.5,
    "divided by √D": lambda step: float(step.config.head_size) ** -0.5,
    "multiplied by D": lambda step: float(step.config.head_size),
    "divided by D": lambda step: 1.0 / step.config.head_size,
    "subtracted": lambda step: -1.0,
    "halved": lambda step: 0.5,
}
for way, of_term in FACTORS.items():
    of_another_factor.way(f"{way} in the scores", add, at=SCORES)(added_times(of_term))
    of_another_factor.way(f"{way} in the context", add, at=CONTEXT)(added_times(of_term))
    if way in ("subtracted", "halved"):
        of_another_factor.way(f"{way} in both", add, at=(SCORES, CONTEXT))(added_times(of_term))

# ----------------------------------------------------------------------------------------------------------- distances

reversed_distance = mistake(
    POSITION_TERMS,
    "relative distance reversed",
    does="the distance is taken as query − key",
    right="key − query",
    families=NEZHA,
)
reversed_distance.add_way("", by_rows(lambda distance, K: clipped(-distance, K)))

without_sign = mistake(
    POSITION_TERMS,
    "relative distance without its sign",
    does="keys before and after the query look alike",
    right="the row clip(key − query, −K, K) + K",
    families=NEZHA,
)
without_sign.add_way("|distance| + K", by_rows(lambda distance, K: clipped(np.abs(distance), K)))
without_sign.add_way("|distance|", by_rows(lambda distance, K: np.minimum(np.abs(distance), K)))

distance_off = mistake(
    POSITION_TERMS,
    "relative distance off",
    does="the distance is moved by one, scaled, or cut before it is looked up",
    right="key − query",
    families=NEZHA,
)


def of_other_distance(function: Callable[[Any], Any]) -> Callable[[Any, int], Any]:
    """The row of another distance."""
    return lambda distance, K: clipped(function(distance), K)


for way, other in (
    ("key − query + 1", lambda distance: distance + 1),
    ("key − query − 1", lambda distance: distance - 1),
    ("query − key + 1", lambda distance: 1 - distance),
    ("query − key − 1", lambda distance: -1 - distance),
    ("twice the distance", lambda distance: 2 * distance),
    ("half of the distance", lambda distance: distance // 2),
    ("0 for keys before", lambda distance: np.maximum(distance, 0)),
    ("0 for keys after", lambda distance: np.minimum(distance, 0)),
    ("−|distance|", lambda distance: -np.abs(distance)),
    ("the key's position", lambda distance: np.broadcast_to(np.arange(distance.shape[1]), distance.shape)),
    ("the query's position", lambda distance: np.broadcast_to(np.arange(distance.shape[0])[:, None], distance.shape)),
    ("0 for all", lambda distance: 0 * distance),
    ("the last query's for all", lambda distance: np.broadcast_to(distance[-1:], distance.shape)),
    ("the first query's for all", lambda distance: np.broadcast_to(distance[:1], distance.shape)),
):
    distance_off.add_way(way, by_rows(of_other_distance(other)))

in_one_term = mistake(
    POSITION_TERMS,
    "relative distance reversed in one term",
    does="keys or values take the distance as query − key, the other term rightly",
    right="key − query in both",
    families=NEZHA,
)
for which, layer in (("in keys", position_scores), ("in values", position_context)):
    in_one_term.add_way(which, {layer: by_rows(lambda distance, K: clipped(-distance, K))[layer]})

cached_elsewhere = mistake(
    POSITION_TERMS,
    "cached queries at another position",
    does="the first query of a call is taken to stand at 0, or next to its position",
    right="P, after the P tokens of the cache",
    families=NEZHA_AND_BERT,
)


def counted_from(position: Callable[[int], int]) -> Changes:
    """The first query at another position than P, the number of tokens in the cache."""

    def elsewhere(step: Step, x: Any, table: Any, *, past: int = 0, **options: Any) -> Any:
        return step.right(x, table, past=position(check_cached(past)), **options)

    return {
        **dict.fromkeys((position_scores, position_context, query_distance_scores, key_distance_scores), elsewhere),
        **positions_from(lambda step, ids: ids + position(check_cached(past_of(step))) - past_of(step)),
    }


def check_cached(past: int) -> int:
    """Check that there are tokens in a cache."""
    if past == 0:
        raise ValueError("there is no cache")
    return past


cached_elsewhere.add_way("from 0", counted_from(lambda past: 0))
cached_elsewhere.add_way("from P − 1", counted_from(lambda past: past - 1))
cached_elsewhere.add_way("from P + 1", counted_from(lambda past: past + 1))

clip_off = mistake(
    POSITION_TERMS,
    "clip off by one",
    does="distances are clipped one too early",
    right="to clip them at −K and K",
    families=NEZHA,
)
clip_off.add_way("at K − 1", by_rows(lambda distance, K: np.clip(distance, 1 - K, K - 1) + K))
clip_off.add_way("at K − 1 to the right", by_rows(lambda distance, K: np.clip(distance, -K, K - 1) + K))
clip_off.add_way("at K − 1 to the left", by_rows(lambda distance, K: np.clip(distance, 1 - K, K) + K))


@clip_off.way("no term from K on", position_scores, position_context)
def within_reach(step: Step, *arguments: Any, **options: Any) -> Any:
    """The position term without the rows of −K and K, where what is beyond them goes too."""
    return step.right(arguments[0], np.pad(arguments[1][1:-1], ((1, 1), (0, 0))), **options)
