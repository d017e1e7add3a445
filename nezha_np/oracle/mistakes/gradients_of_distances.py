"""Mistakes that are made walking back through relative positions, learned or fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.layers.relative_position import position_context, position_scores
from nezha_np.oracle.mistakes.mistake import BERT, NEZHA, Mistake, mistake
from nezha_np.oracle.replay import Change, Step

GRADIENTS_OF_DISTANCES: list[Mistake] = []
LEARNED = {"of the queries": query_distance_scores, "of the keys": key_distance_scores}

of_learned = mistake(
    GRADIENTS_OF_DISTANCES,
    "gradient of learned distances",
    does="the table of distances, or its factors, queries and keys, get the gradient of other rows, or of some pairs",
    right="dE[i − j + M − 1] = Σ ds_ij q_i over texts, heads and pairs, dq_i = Σ ds_ij E[i − j + M − 1]",
    families=BERT,
)


def table_of(function: Callable[[Any, Any, Any], Any]) -> Change:
    """Another gradient of the table: of the right one, of ds (B, N, Q, S), and of a function of another ds."""

    def change(step: Step, dy: Any, y: Any, x: Any, weight: Any, **options: Any) -> Any:
        dx, dweight = step.right(dy, y, x, weight, **options)

        def of(other: Any, of_x: Any = x) -> Any:
            return step.right(other, y, of_x, weight, **options)[1]

        return dx, function(dweight, dy, of)

    return change


def input_of(function: Callable[[Any, Any, Callable[..., Any]], Any]) -> Change:
    """Another gradient of queries or keys: of the right one, of ds, and of a function of another ds and table."""

    def change(step: Step, dy: Any, y: Any, x: Any, weight: Any, **options: Any) -> Any:
        dx, dweight = step.right(dy, y, x, weight, **options)

        def of(other: Any, table: Any = weight) -> Any:
            return step.right(other, y, x, table, **options)[0]

        return function(dx, weight, lambda other=dy, table=weight: of(other, table)), dweight

    return change


def part_of(dy: Any, axis: int, index: Any) -> Any:
    """Ds at some texts, heads, queries or keys alone."""
    kept = np.zeros(dy.shape[axis])
    kept[index] = 1.0
    return dy * np.expand_dims(kept, [other for other in range(dy.ndim) if other != axis])


def last_of_each_distance(dy: Any, *, first: bool = False) -> Any:
    """Ds at the last pair of each distance alone, in the order of queries and then keys; or at the first."""
    queries, keys = dy.shape[-2:]
    distance = np.arange(queries)[:, None] - np.arange(keys)[None, :]
    kept = np.zeros((queries, keys))
    for one in np.unique(distance):
        places = np.argwhere(distance == one)
        kept[tuple(places[0 if first else -1])] = 1.0
    return dy * kept


def how_many(dy: Any, dweight: Any) -> Any:
    """How many pairs of query and key each row of the table has, 1 at least: (2M - 1, 1)."""
    queries, keys = dy.shape[-2:]
    rows = np.arange(queries)[:, None] - np.arange(keys)[None, :] + keys - queries + len(dweight) // 2
    return np.maximum(1, np.bincount(rows.ravel(), minlength=len(dweight)))[:, None]


OF_TABLE: dict[str, Callable[..., Any]] = {
    "none": lambda own, dy, of: 0.0 * own,
    "at the reversed rows": lambda own, dy, of: own[::-1],
    "at the next row": lambda own, dy, of: np.roll(own, 1, axis=0),
    "at the row before": lambda own, dy, of: np.roll(own, -1, axis=0),
    "negated": lambda own, dy, of: -own,
    "the last pair of each distance": lambda own, dy, of: of(last_of_each_distance(dy)),
    "the last pair of each distance, of the last text and head": lambda own, dy, of: of(
        last_of_each_distance(part_of(part_of(dy, 0, -1), 1, -1))
    ),
    "the last pair of each distance, of the last text": lambda own, dy, of: of(
        last_of_each_distance(part_of(dy, 0, -1))
    ),
    "the first pair of each distance": lambda own, dy, of: of(last_of_each_distance(dy, first=True)),
    "the first head": lambda own, dy, of: of(part_of(dy, 1, 0)),
    "the last head": lambda own, dy, of: of(part_of(dy, 1, -1)),
    "all but the first head": lambda own, dy, of: of(part_of(dy, 1, slice(1, None))),
    "the first text": lambda own, dy, of: of(part_of(dy, 0, 0)),
    "the last text": lambda own, dy, of: of(part_of(dy, 0, -1)),
    "all but the first text": lambda own, dy, of: of(part_of(dy, 0, slice(1, None))),
    "the first query": lambda own, dy, of: of(part_of(dy, 2, 0)),
    "the last query": lambda own, dy, of: of(part_of(dy, 2, -1)),
    "keys before their query": lambda own, dy, of: of(np.tril(dy, -1)),
    "keys up to their query": lambda own, dy, of: of(np.tril(dy)),
    "keys from their query on": lambda own, dy, of: of(np.triu(dy)),
    "all but distance 0": lambda own, dy, of: own * (np.arange(len(own)) != len(own) // 2)[:, None],
    "the mean over texts": lambda own, dy, of: own / dy.shape[0],
    "the mean over heads": lambda own, dy, of: own / dy.shape[1],
    "the mean over texts and heads": lambda own, dy, of: own / (dy.shape[0] * dy.shape[1]),
    "the mean over the pairs of a distance": lambda own, dy, of: own / how_many(dy, own),
    "the mean over texts, heads and pairs": lambda own, dy, of: own / (how_many(dy, own) * dy.shape[0] * dy.shape[1]),
    "dsᵀ in place of ds": lambda own, dy, of: of(np.swapaxes(dy, -1, -2)),
}
OF_INPUT: dict[str, Callable[..., Any]] = {
    "x gets none": lambda own, table, of: 0.0 * own,
    "x of the reversed table": lambda own, table, of: of(table=table[::-1]),
    "x of the next row": lambda own, table, of: of(table=np.roll(table, -1, axis=0)),
    "x of the row before": lambda own, table, of: of(table=np.roll(table, 1, axis=0)),
    "x negated": lambda own, table, of: -own,
    "x over √D": lambda own, table, of: own / np.sqrt(own.shape[-1]),
}
for where, layer in LEARNED.items():
    for way, of_table in OF_TABLE.items():
        of_learned.way(f"{way}, {where}", layer)(table_of(of_table))
    for way, of_input in OF_INPUT.items():
        of_learned.way(f"{way}, {where}", layer)(input_of(of_input))
for way, of_table in OF_TABLE.items():
    of_learned.way(f"{way}, of both", *LEARNED.values())(table_of(of_table))

of_far = mistake(
    GRADIENTS_OF_DISTANCES,
    "gradient of far distances",
    does="distances of K and more, which share a row, get no gradient, or the far ones of one side alone do",
    right="the gradient of the row that they share",
    families=NEZHA,
)


def distances_of(pairs: Any, past: int) -> Any:
    """Key less query, as the pass counts them: (Q, S)."""
    queries, keys = pairs.shape[-2:]
    return np.arange(keys)[None, :] - np.arange(queries)[:, None] - past


def kept_at(which: Callable[[Any, int], Any]) -> tuple[Change, Change]:
    """The gradients of queries and of probabilities of some distances alone."""

    def of_scores(step: Step, dy: Any, y: Any, q: Any, table: Any, *, keys: int, past: int = 0) -> Any:
        kept = dy * which(distances_of(dy, past), len(table) // 2)
        return step.right(kept, y, q, table, keys=keys, past=past)

    def of_context(step: Step, dy: Any, y: Any, probs: Any, table: Any, *, past: int = 0) -> Any:
        own = step.right(dy, y, probs, table, past=past)
        return own * which(distances_of(own, past), len(table) // 2)

    return of_scores, of_context


for way, which in (
    ("beyond K", lambda distance, K: np.abs(distance) <= K),
    ("from K on", lambda distance, K: np.abs(distance) < K),
    ("beyond K after the query", lambda distance, K: distance <= K),
    ("beyond K before the query", lambda distance, K: distance >= -K),
    ("of 0", lambda distance, K: distance != 0),
    ("after the query", lambda distance, K: distance <= 0),
    ("before the query", lambda distance, K: distance >= 0),
):
    of_scores, of_context = kept_at(which)
    of_far.way(f"{way}, in keys", position_scores)(of_scores)
    of_far.way(f"{way}, in values", position_context)(of_context)
    of_far.way(f"{way}, in both", position_scores)(of_scores)
    of_far.way(f"{way}, in both", position_context)(of_context)
