"""Mistakes in relative positions: NEZHA's table, and BERT's learned distances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.addition import add
from nezha_np.layers.masks import given
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.layers.relative_position import collect, position_context, position_scores, relative_position_table
from nezha_np.oracle.mistakes.embeddings import past_of, positions_from
from nezha_np.oracle.mistakes.mistake import BERT, ENOUGH, NEZHA, Evidence, Mistake, Ways, first, nothing
from nezha_np.oracle.mistakes.sinusoids import frequencies, halves, in_turn
from nezha_np.oracle.replay import At, Change, Changes, Step


def by_vectors(vector_of: Callable[[Any, Any], Any], *, past_counts: bool = True) -> Changes:
    """Take other vectors: `vector_of` distance, key − query, and the table."""

    def vectors(table: Any, queries: int, keys: int, past: int = 0) -> Any:
        distance = np.arange(keys)[None, :] - np.arange(queries)[:, None] - (past if past_counts else 0)
        return vector_of(distance, table)  # (Q, S, D)

    def scores(step: Step, q: Any, table: Any, *, keys: int, past: int = 0) -> Any:
        return np.einsum("bnqd,qsd->bnqs", q, vectors(table, q.shape[2], keys, past))

    def context(step: Step, probs: Any, table: Any, *, past: int = 0) -> Any:
        return np.einsum("bnqs,qsd->bnqd", probs, vectors(table, probs.shape[2], probs.shape[3], past))

    return {position_scores: scores, position_context: context}


def by_rows(row_of: Callable[[Any, int], Any], **options: bool) -> Changes:
    """Take another row of the table: `row_of` distance, key − query, and K."""
    return by_vectors(lambda distance, table: table[row_of(distance, table.shape[0] // 2)], **options)


def clipped(distance: Any, reach: int) -> Any:
    """The right row."""
    return np.clip(distance, -reach, reach) + reach


def within_reach(step: Step, *arguments: Any, **options: Any) -> Any:
    """The position term without the rows of −K and K, where what is beyond them goes too."""
    return step.right(arguments[0], np.pad(arguments[1][1:-1], ((1, 1), (0, 0))), **options)


def with_table(make: Callable[[Any, int, int], Any]) -> Changes:
    """Another table, made from the configuration, K and D."""
    return {given: At("relative_positions", lambda step, table: make(step.config, table.shape[0] // 2, table.shape[1]))}


def with_angles(
    make: Callable[..., np.ndarray], frequency: Callable[[int], Any] = frequencies, **options: Any
) -> Changes:
    """Another arrangement of sines and cosines, or other frequencies."""
    return with_table(lambda config, K, D: make(np.arange(2 * K + 1)[:, None] * frequency(D), **options))


def with_reach(reach: Callable[[Any], int]) -> Changes:
    """The table of another K."""
    return with_table(
        lambda config, K, D: relative_position_table(np.zeros(1), head_size=D, max_relative_position=reach(config))
    )


def fitted_table(evidence: Evidence) -> Ways:
    """Recognise a table of other numbers: theirs itself, or fitted to the position terms by least squares."""
    if evidence.step.name == "relative_positions":
        return {} if float32_table(evidence) else evidence.instead(evidence.theirs)
    if evidence.layer is position_scores:
        table = table_of_scores(evidence)
    elif evidence.layer is position_context:
        probs, right = evidence.arguments
        buckets = collect(probs, rows=len(right), past=evidence.options.get("past", 0))
        table = least_squares(buckets.reshape(-1, len(right)), evidence.theirs.reshape(-1, right.shape[1]))
    else:
        table = None
    if table is None:
        return {}
    change: Change = lambda step, x, right, **options: step.right(x, table, **options)  # noqa: E731
    return {"": {position_scores: change, position_context: change}}


def least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Solve x · table = y, where there are enough equations."""
    table, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    return table if len(np.unique(x, axis=0)) >= rank + ENOUGH else None


def table_of_scores(evidence: Evidence) -> np.ndarray | None:
    """Fit each row of the table to the scores at its distance."""
    q, right = evidence.arguments
    keys, past = evidence.options["keys"], evidence.options.get("past", 0)
    distance = np.arange(keys)[None, :] - np.arange(q.shape[2])[:, None] - past
    row, table, surplus = clipped(distance, len(right) // 2), np.array(right), 0
    for index in np.unique(row):
        query, key = np.nonzero(row == index)
        asked = np.moveaxis(q[:, :, query], 3, 0).reshape(q.shape[3], -1).T  # (equations, D)
        answered = evidence.theirs[:, :, query, key].reshape(-1)
        table[index] = np.linalg.lstsq(asked, answered, rcond=None)[0]
        surplus += max(0, len(np.unique(asked, axis=0)) - q.shape[3])
    return table if surplus >= ENOUGH else None


def float32_table(evidence: Evidence) -> Ways:
    """Recognise a table whose angles were computed in float32: they are rounded, the larger the more."""
    if evidence.step.name != "relative_positions":
        return {}
    angle = np.arange(len(evidence.right))[:, None]
    if (np.abs(evidence.theirs - evidence.right) > 2.0**-22 * (1.0 + angle)).any():
        return {}
    return evidence.instead(evidence.theirs)


def flipped_distances(step: Step, x: Any, weight: Any, **options: Any) -> Any:
    """Distances counted from key to query."""
    return step.right(x, weight[::-1], **options)


def next_distance(step: Step, x: Any, weight: Any, **options: Any) -> Any:
    """The row of the next distance."""
    return step.right(x, np.roll(weight, -1, axis=0), **options)


def of_both(change: Change) -> Changes:
    """Change both terms of BERT's learned distances."""
    return {query_distance_scores: change, key_distance_scores: change}


def always(reach: int) -> Callable[[Any], int]:
    """The same K for every configuration."""
    return lambda config: reach


def positive(number: int) -> int:
    """A divisor."""
    if number < 1:
        raise ValueError("the heads are too small")
    return number


REACHES: dict[str, Callable[[Any], int]] = {
    **{f"K = {reach}": always(reach) for reach in (64, 128, 127, 16, 32, 8, 256, 512)},
    "K = max_position_embeddings": lambda config: config.max_position_embeddings,
    "K = max_position_embeddings − 1": lambda config: config.max_position_embeddings - 1,
    "K + 1": lambda config: config.max_relative_position + 1,
    "K − 1": lambda config: max(1, config.max_relative_position - 1),
    "2K": lambda config: 2 * config.max_relative_position,
}

POSITIONS = (
    Mistake(
        "position term missing in keys",
        "the scores are q · k alone; NEZHA adds the position term, q · t",
        {
            "left out": {position_scores: nothing},
            "computed, not added": {add: At(".scores", first)},
        },
        NEZHA,
    ),
    Mistake(
        "position term missing in values",
        "the context is made of the values alone; NEZHA adds the relative positions to the values too",
        {
            "left out": {position_context: nothing},
            "computed, not added": {add: At("attention.self.context", first)},
        },
        NEZHA,
    ),
    Mistake(
        "position terms missing",
        "no relative position enters attention; NEZHA adds them to keys and to values",
        {
            "left out": {
                position_scores: nothing,
                position_context: nothing,
            },
            "computed, not added": {add: At((".scores", "attention.self.context"), first)},
        },
        NEZHA,
    ),
    Mistake(
        "relative distance reversed",
        "the distance is query − key; it is key − query",
        {"": by_rows(lambda distance, K: clipped(-distance, K))},
        NEZHA,
    ),
    Mistake(
        "relative distance without its sign",
        "keys before and after the query look alike; the row is clip(key − query, −K, K) + K",
        {
            "|distance| + K": by_rows(lambda distance, K: clipped(np.abs(distance), K)),
            "|distance|": by_rows(lambda distance, K: np.minimum(np.abs(distance), K)),
        },
        NEZHA,
    ),
    Mistake(
        "clip off by one",
        "distances are clipped one too early; they are clipped at −K and K",
        {
            "at K − 1": by_rows(lambda distance, K: np.clip(distance, 1 - K, K - 1) + K),
            "at K − 1 to the right": by_rows(lambda distance, K: np.clip(distance, -K, K - 1) + K),
            "at K − 1 to the left": by_rows(lambda distance, K: np.clip(distance, 1 - K, K) + K),
            "no term from K on": {
                position_scores: within_reach,
                position_context: within_reach,
            },
        },
        NEZHA,
    ),
    Mistake(
        "row of the table off",
        "the distance is not counted from row K; its row is clip(key − query, −K, K) + K",
        {
            "by −1": by_rows(lambda distance, K: np.maximum(clipped(distance, K) - 1, 0)),
            "by 1": by_rows(lambda distance, K: np.minimum(clipped(distance, K) + 1, 2 * K)),
            "K not added": by_rows(lambda distance, K: np.clip(distance, -K, K)),
            "negative ones cut off": by_rows(lambda distance, K: np.clip(distance, 0, 2 * K)),
        },
        NEZHA,
    ),
    Mistake(
        "K from another config",
        "the table is that of another max_relative_position",
        {name: with_reach(reach) for name, reach in REACHES.items()},
        NEZHA,
    ),
    Mistake(
        "sine and cosine halves concatenated",
        "the table has all sines and then all cosines, or each cosine before its sine; they stand in turn, sine first",
        {
            "sines, then cosines": with_angles(halves),
            "cosines, then sines": with_angles(halves, cosine_first=True),
            "in turn, cosine first": with_angles(in_turn, cosine_first=True),
        },
        NEZHA,
    ),
    Mistake(
        "other wavelengths in the table",
        "the table's angles are row / 10000^(2i/D), with i from 0 to D/2 − 1 and rows from 0 to 2K",
        {
            "exponent i/D": with_angles(in_turn, lambda size: 10000.0 ** (-np.arange(size // 2) / size)),
            "exponent i/(D/2 − 1)": with_angles(
                in_turn, lambda size: 10000.0 ** (-np.arange(size // 2) / positive(size // 2 - 1))
            ),
            "rows from 1": with_table(lambda config, K, D: in_turn(np.arange(1, 2 * K + 2)[:, None] * frequencies(D))),
        },
        NEZHA,
    ),
    Mistake(
        "angles of the distance itself",
        "sine and cosine are of key − query, as in the paper's formula; the authors' code, with which the checkpoints "
        "were trained, clips it and counts it from 0: they are of clip(key − query, −K, K) + K",
        {
            "clipped": with_table(lambda config, K, D: in_turn(np.arange(-K, K + 1)[:, None] * frequencies(D))),
            "not clipped": by_vectors(
                lambda distance, table: in_turn(distance[:, :, None] * frequencies(table.shape[1]))
            ),
        },
        NEZHA,
    ),
    Mistake(
        "table computed in float32",
        "the table's angles are computed in float32, as in transformers, and are 1e-5 away; NEZHA's authors do it "
        "in float64 and round the table",
        {},
        NEZHA,
        float32_table,
    ),
    Mistake(
        "table trained instead of fixed",
        "the relative positions have other numbers; they are sines and cosines, are not trained, and in no checkpoint",
        {},
        NEZHA,
        fitted_table,
    ),
    Mistake(
        "cached queries counted from 0",
        "the first query of a call is taken to stand at 0; it stands after the tokens of the cache",
        {
            "": {
                **by_rows(clipped, past_counts=False),
                **of_both(lambda step, x, weight, *, past=0, **options: step.right(x, weight, **options)),
                **positions_from(lambda step, ids: ids - past_of(step)),
            }
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "learned distance reversed",
        "the row of distance_embedding is that of key − query; it is that of query − key",
        {
            "": of_both(flipped_distances),
            "for the queries": {query_distance_scores: flipped_distances},
            "for the keys": {key_distance_scores: flipped_distances},
        },
        BERT,
    ),
    Mistake(
        "learned distance off by one",
        "the row of distance_embedding is the next one; distance 0 has the row max_position_embeddings − 1",
        {"": of_both(next_distance)},
        BERT,
    ),
    Mistake(
        "learned distances missing",
        "the scores have no term for the distance, or not the keys' one; relative_key has the queries', "
        "relative_key_query both",
        {
            "both": of_both(nothing),
            "the keys'": {key_distance_scores: nothing},
            "the queries'": {query_distance_scores: nothing},
            "computed, not added": {add: At(".scores", first)},
        },
        BERT,
    ),
)
