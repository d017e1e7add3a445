"""The best spans of tokens, by the scores of their first and of their last tokens.

Dimension letters: L tokens, A the most tokens of a span.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def best_spans(
    starts: np.ndarray, ends: np.ndarray, inside: np.ndarray, *, most: int, only_best: bool = False
) -> Iterator[tuple[float, int, int]]:
    """Find spans whose last token is not before the first and not far behind it.

    Parameters
    ----------
    starts, ends : (L,) arrays
        The scores of each token as the first and as the last one, such as logarithms of probabilities.
    inside : (L,) bool array
        The tokens that may be part of a span.
    most : int
        A, the most tokens of a span.
    only_best : bool
        Whether to stop after the best one, which is faster.

    Yields
    ------
    score : float
        The sum of both scores.
    first, last : int
        The tokens.

    Examples
    --------
    >>> starts, ends = np.array([0.0, 3.0, 1.0]), np.array([5.0, 1.0, 2.0])
    >>> next(best_spans(starts, ends, np.array([True, True, True]), most=2))
    (5.0, 0, 0)
    >>> [(first, last) for _, first, last in best_spans(starts, ends, np.array([False, True, True]), most=2)]
    [(1, 2), (1, 1), (2, 2)]
    """
    most = min(most, len(starts))
    if not inside.any():
        return
    behind = np.concatenate([np.where(inside, ends, -np.inf), np.full(most - 1, -np.inf)])
    scores = np.where(inside, starts, -np.inf)[:, None] + np.lib.stride_tricks.sliding_window_view(
        behind, most
    )  # (L, A)
    order = [scores.argmax()] if only_best else np.argsort(-scores, axis=None, kind="stable")
    for place in order:
        first, distance = divmod(int(place), most)
        score = float(scores[first, distance])
        if score == -np.inf:
            return
        yield score, first, first + distance
