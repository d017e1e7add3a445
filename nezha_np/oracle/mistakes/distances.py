"""Distances between queries and keys, and the rows of NEZHA's table that they get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.relative_position import position_context, position_scores
from nezha_np.oracle.replay import Changes, Step


def distances(queries: int, keys: int, past: int) -> np.ndarray:
    """Key − query, (Q, S), the first query being at position `past`."""
    return np.arange(keys)[None, :] - np.arange(queries)[:, None] - past


def clipped(distance: Any, reach: int) -> Any:
    """The right row: clip(distance, −K, K) + K."""
    return np.clip(distance, -reach, reach) + reach


def by_vectors(vector_of: Callable[[Any, Any], Any]) -> Changes:
    """Take other vectors: `vector_of` distance, key − query, and the table."""

    def vectors(table: Any, queries: int, keys: int, past: int = 0) -> Any:
        return vector_of(distances(queries, keys, past), table)  # (Q, S, D)

    def scores(step: Step, q: Any, table: Any, *, keys: int, past: int = 0) -> Any:
        return np.einsum("bnqd,qsd->bnqs", q, vectors(table, q.shape[2], keys, past))

    def context(step: Step, probs: Any, table: Any, *, past: int = 0) -> Any:
        return np.einsum("bnqs,qsd->bnqd", probs, vectors(table, probs.shape[2], probs.shape[3], past))

    return {position_scores: scores, position_context: context}


def by_rows(row_of: Callable[[Any, int], Any]) -> Changes:
    """Take another row of the table: `row_of` distance, key − query, and K."""
    return by_vectors(lambda distance, table: table[row_of(distance, table.shape[0] // 2)])
