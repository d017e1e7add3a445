"""How two arrays differ, in words: at which tokens or heads, and whether one is a simple function of the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from nezha_np.oracle.differences import difference, is_additive_mask

# What the axes of an array are, by how many it has.
AXES = {
    1: ("feature",),
    2: ("text", "feature"),
    3: ("text", "token", "feature"),
    4: ("text", "head", "token", "feature"),
}
OF_KEYS = ("content_scores", "position_scores", "scores", "probs", "masked_probs", "dropout")  # (B, N, Q, S)
QUERIES_FOR_KEYS = (0, 1, 3, 2)


def axes_of(name: str, dimensions: int) -> tuple[str, ...]:
    """Say what the axes of an array are; those of training steps are weights, and have no texts.

    Examples
    --------
    >>> axes_of("pooler.dense", 2), axes_of("steps/1/weights/pooler.dense.weight", 2)
    (('text', 'feature'), ('row', 'column'))
    """
    if name.startswith("steps/"):
        return {1: ("element",), 2: ("row", "column")}.get(dimensions, ())
    return AXES.get(dimensions, ())


def has_square_scores(name: str, array: np.ndarray) -> bool:
    """Whether an array has scores of as many queries as keys: then exchanging the two is a mistake, not a layout.

    Examples
    --------
    >>> has_square_scores("encoder.layer.0.attention.self.probs", np.zeros((1, 2, 5, 5)))
    True
    """
    return array.ndim == 4 and name.rpartition(".")[2] in OF_KEYS and array.shape[2] == array.shape[3]


def describe_difference(name: str, right: np.ndarray, theirs: np.ndarray, allowed: float) -> Iterator[str]:
    """Say how two arrays differ, a sentence each.

    Parameters
    ----------
    name : str
        The step.
    right, theirs : array
        What it makes, and what they have.
    allowed : float
        The largest difference that rounding explains.

    Examples
    --------
    >>> right = np.arange(24.0).reshape(1, 2, 3, 4)
    >>> theirs = right * np.array([1.0, 2.0])[:, None, None]
    >>> for line in describe_difference("encoder.layer.0.attention.self.q", right, theirs, 1e-6):
    ...     print(line)
    12 of 24 numbers differ, by up to 23
    they differ at head 1 alone
    where they differ, yours are 2 times the right ones
    """
    right, theirs = np.asarray(right, np.float64), np.asarray(theirs, np.float64)
    if right.shape != theirs.shape:
        yield f"it has shape {theirs.shape}, expected {right.shape}"
        if right.size == theirs.size and (difference(name, right, theirs.reshape(right.shape)) <= allowed).all():
            yield f"yours are the right ones: reshape them to {right.shape}"
        yield from _axes(name, right, theirs, allowed)
        return
    if strange := int((~np.isfinite(theirs) & np.isfinite(right)).sum()):
        where = [int(index) for index in np.argwhere(~np.isfinite(theirs) & np.isfinite(right))[0]]
        are = "is" if strange == 1 else "are"
        yield f"{strange} of {theirs.size} numbers {are} NaN or infinite, the first at {where}"
    apart = difference(name, right, theirs)
    wrong = apart > allowed
    finite = wrong & np.isfinite(theirs) & np.isfinite(right)
    if not finite.any():
        return
    differ = "number differs" if wrong.size == 1 else "numbers differ"
    yield f"{int(wrong.sum())} of {wrong.size} {differ}, by up to {apart[finite].max():.3g}"
    yield from _where(name, wrong)
    with np.errstate(all="ignore"):
        yield from list(_how(name, right, theirs, finite, allowed))
    yield from _axes(name, right, theirs, allowed)


def _where(name: str, wrong: np.ndarray) -> Iterator[str]:
    """Name the texts, heads, tokens, features or distances at which they differ, where it is not all of them."""
    axes = axes_of(name, wrong.ndim)
    if wrong.ndim == 4 and is_additive_mask(name):
        axes = ("text", "head", "query", "key")
    elif wrong.ndim == 4 and name.rpartition(".")[2] in OF_KEYS:
        axes = ("text", "head", "query", "key")
        distances = np.arange(wrong.shape[3])[None, :] - np.arange(wrong.shape[2])[:, None]
        found = sorted(set(distances[wrong.any(axis=(0, 1))].tolist()))
        if len(found) < len(np.unique(distances)):
            yield f"they differ at distance {_listed(found)} (key − query) alone"
    for axis, what in enumerate(axes):
        at = np.flatnonzero(wrong.any(axis=tuple(other for other in range(wrong.ndim) if other != axis)))
        if len(at) < wrong.shape[axis]:
            yield f"they differ at {what} {_listed(at.tolist())} alone"


def _axes(name: str, right: np.ndarray, theirs: np.ndarray, allowed: float) -> Iterator[str]:
    """Say in which other order of their axes the right numbers would be theirs, the first of several."""
    if sorted(right.shape) != sorted(theirs.shape):
        return
    for order in list(itertools.permutations(range(right.ndim)))[1:]:
        turned = right.transpose(order)
        if turned.shape == theirs.shape and bool((difference(name, turned, theirs) <= allowed).all()):
            if order == QUERIES_FOR_KEYS and has_square_scores(name, right):
                yield "yours are the right ones with queries and keys exchanged"
            else:
                yield f"yours are the right ones with axes in the order {order}: transposed=True takes them so"
            return


def _listed(numbers: list[int]) -> str:
    """Write numbers, those that follow one another as a range."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return ", ".join(words[:8]) + (", …" if len(words) > 8 else "")


def _how(name: str, right: np.ndarray, theirs: np.ndarray, finite: np.ndarray, allowed: float) -> Iterator[str]:
    """Say whether theirs are a multiple of the right numbers, these and a constant, zeros, or in other places."""
    a, b = right[finite], theirs[finite]
    if not b.any():
        yield "where they differ, yours are 0"
        return
    factor = float(a @ b / (a @ a)) if a.any() else 0.0
    if np.abs(b - factor * a).max() <= allowed * max(1.0, abs(factor)):
        yield f"where they differ, yours are {factor:.6g} times the right ones"
    offset = float(np.mean(b - a))
    if a.size > 1 and np.abs(b - a - offset).max() <= allowed:
        yield f"where they differ, yours are the right ones and {offset:.6g}"
    axes = axes_of(name, right.ndim)
    for axis, what in enumerate(axes):
        if right.shape[axis] < 2:
            continue
        order = _order(np.moveaxis(right, axis, 0), np.moveaxis(theirs, axis, 0), allowed)
        if order is not None:
            yield f"yours are the right ones with the {what}s in the order {_listed(order)}"
    if finite.all() and np.abs(np.sort(right, axis=None) - np.sort(theirs, axis=None)).max() <= allowed:
        yield "yours are the same numbers in other places"


def _order(right: np.ndarray, theirs: np.ndarray, allowed: float) -> list[int] | None:
    """Find the order of the first axis in which `right` becomes `theirs`."""
    order: list[int] = []
    for part in theirs:
        fits = [index for index in range(len(right)) if np.abs(right[index] - part).max() <= allowed]
        if not fits:
            return None
        order.append(next((index for index in fits if index not in order), fits[0]))
    return order if sorted(order) == list(range(len(right))) and order != sorted(order) else None
