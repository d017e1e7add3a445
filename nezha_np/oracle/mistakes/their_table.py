"""Their table of relative positions, fitted to their numbers, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nezha_np.layers.masks import as_constant
from nezha_np.layers.relative_position import collect, position_context, position_scores
from nezha_np.oracle.mistakes.distances import clipped, distances
from nezha_np.oracle.mistakes.mistake import ENOUGH, Evidence
from nezha_np.oracle.mistakes.sinusoids import halves, interleaved
from nezha_np.oracle.replay import At, Change, Changes

# The arrangements of sines and cosines that a table may have, by what they are called after its base.
ARRANGEMENTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": interleaved,
    ", cosine first": lambda angle: interleaved(angle, cosine_first=True),
    ", sines, then cosines": halves,
    ", cosines, then sines": lambda angle: halves(angle, cosine_first=True),
}

# ------------------------------------------------------------------------------------------------------ fit the table


def their_table(evidence: Evidence) -> np.ndarray | None:
    """Return their table: itself, or fitted to the position terms by least squares, NaN in rows of no distance."""
    if evidence.step.name == "relative_positions":
        return None if is_float32_table(evidence) else evidence.theirs
    if evidence.layer is position_scores:
        return table_of_scores(evidence)
    if evidence.layer is position_context:
        probs, right = evidence.arguments
        buckets = np.asarray(collect(probs, rows=len(right), past=evidence.options.get("past", 0)))
        return least_squares(buckets.reshape(-1, len(right)), evidence.theirs.reshape(-1, right.shape[1]))
    return None


def right_table(evidence: Evidence) -> np.ndarray:
    """Return the right table, of a step that makes it or takes it."""
    table: np.ndarray = evidence.right if evidence.layer is as_constant else evidence.arguments[1]
    return table


def is_float32_table(evidence: Evidence) -> bool:
    """Whether they have the right table with angles computed in float32: the larger these, the larger the rounding."""
    angle = np.arange(len(evidence.right))[:, None]
    return bool((np.abs(evidence.theirs - evidence.right) <= 2.0**-22 * (1.0 + angle)).all())


def table_of_scores(evidence: Evidence) -> np.ndarray | None:
    """Fit each row of the table to the scores at its distance."""
    q, right = evidence.arguments
    distance = distances(q.shape[2], evidence.options["keys"], evidence.options.get("past", 0))
    row, table, surplus = clipped(distance, len(right) // 2), np.full_like(right, np.nan), 0
    for index in np.unique(row):
        query, key = np.nonzero(row == index)
        queries = np.moveaxis(q[:, :, query], 3, 0).reshape(q.shape[3], -1).T  # (equations, D)
        scores = evidence.theirs[:, :, query, key].reshape(-1)
        table[index] = np.linalg.lstsq(queries, scores, rcond=None)[0]
        surplus += max(0, len(np.unique(queries, axis=0)) - q.shape[3])
    return table if surplus >= ENOUGH else None


def least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Solve x · table = y, where there are enough equations."""
    table, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    table[~x.any(axis=0)] = np.nan
    return table if len(np.unique(x, axis=0)) >= rank + ENOUGH else None


# ---------------------------------------------------------------------------------------------------- try another table


def of_table(evidence: Evidence, table: np.ndarray) -> Changes:
    """Another table where it is made, or in both position terms."""
    if evidence.layer is as_constant:
        return {as_constant: At(evidence.step.name, lambda step, right: table)}
    change: Change = lambda step, x, right, **options: step.right(x, table, **options)  # noqa: E731
    return {position_scores: change, position_context: change}


def table_explains(evidence: Evidence, table: np.ndarray) -> bool:
    """Whether a table makes their numbers."""
    x = evidence.arguments[0]
    made = table if evidence.layer is as_constant else evidence.step.right(x, table, **evidence.options)
    return evidence.is_explained_by(made)


# ------------------------------------------------------------------------------------------- angles of sine and cosine


def angles_by_row(table: np.ndarray, arrange: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """Return by how much the angle of each pair grows from row to row; None where they are no sines and cosines."""
    size = table.shape[1]
    # An arrangement of the angles 0 says which columns are sines.
    sines = np.flatnonzero(arrange(np.zeros(size // 2)) == 0.0)
    cosines = np.flatnonzero(arrange(np.zeros(size // 2)) == 1.0)
    sine, cosine = table[:, sines], table[:, cosines]
    if size % 2 or not np.abs(np.nanmedian(sine * sine + cosine * cosine, axis=0) - 1.0).max() < 0.05:
        return None
    turned = np.diff(np.arctan2(sine, cosine), axis=0)
    turned = turned[~np.isnan(turned[:, 0])]
    return np.median((turned + np.pi) % (2.0 * np.pi) - np.pi, axis=0) if len(turned) else None


def bases(step: np.ndarray) -> list[float]:
    """Estimate the base of base^(−2i/D), and round it to 1, 2 and 3 digits; [] where the angles have none."""
    place = np.arange(len(step)) / len(step)
    known = (step > 1e-9) & (place > 0)
    if not known.any() or abs(step[0] - 1.0) > 1e-2:
        return []
    # Rounding moves a small angle by a larger part of it: such an angle weighs less.
    weight = step[known] ** 2
    exponent = -(weight * np.log(step[known]) * place[known]).sum() / (weight * place[known] ** 2).sum()
    base = np.exp(np.clip(exponent, -100.0, 100.0))
    return [float(f"{base:.{digits}e}") for digits in range(3)]
