"""Metrics of the tasks: accuracy, F1 of entities, exact match and F1 of answers.

F1 is the harmonic mean of precision P and recall R, 2 P R / (P + R).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nezha_np.text.entities import entities

# What the script of CMRC 2018 removes, and what it counts as one: a Chinese character, or a word of another script.
MARKS = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
PART = re.compile(r"[\u4e00-\u9fa5]|[^\W\u4e00-\u9fa5]+(?:[.,'][^\W\u4e00-\u9fa5]+)*|[^\w\s]")


def accuracy(predicted: Sequence[object], right: Sequence[object]) -> float:
    """Return the part of predictions that are right.

    Examples
    --------
    >>> accuracy([1, 0, 2, 2], [1, 0, 0, 2])
    0.75
    """
    return sum(one == other for one, other in zip(predicted, right, strict=True)) / len(right)


def entity_f1(predicted: Iterable[Sequence[str]], right: Iterable[Sequence[str]]) -> float:
    """Return F1 over the entities of all texts: an entity counts where kind, start and stop are right.

    Examples
    --------
    >>> round(entity_f1([["B-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "B-LOC"]]), 3)
    0.5
    """
    hits = guesses = wanted = 0
    for ours, theirs in zip(predicted, right, strict=True):
        one, other = set(entities(ours)), set(entities(theirs))
        hits, guesses, wanted = hits + len(one & other), guesses + len(one), wanted + len(other)
    return 2 * hits / (guesses + wanted) if guesses + wanted else 1.0


def answer_scores(predicted: Sequence[str], right: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Return exact match and F1 of answers, as the script of CMRC 2018 measures them, without Chinese punctuation.

    F1 is that of the longest part that both have: consecutive characters, where a number or a word of another script
    counts as one. Where several answers are right, the one that scores best counts.

    Examples
    --------
    >>> answer_scores(["北京市", "上海"], [["北京"], ["上海。", "上海市"]])
    (0.5, 0.9)
    """
    exact, overlap = 0.0, 0.0
    for answer, answers in zip(predicted, right, strict=True):
        ours, every = _without_marks(answer), [_without_marks(one) for one in answers]
        exact += ours in every
        overlap += max(_overlap(PART.findall(ours), PART.findall(theirs)) for theirs in every)
    return exact / len(right), overlap / len(right)


def _overlap(ours: list[str], theirs: list[str]) -> float:
    common = _longest_common(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else float(ours == theirs)


def _without_marks(text: str) -> str:
    return text.lower().strip().translate(MARKS).strip()


def _longest_common(one: list[str], other: list[str]) -> int:
    best, before = 0, [0] * (len(other) + 1)
    for part in one:
        row = [0]
        row += [before[index] + 1 if part == theirs else 0 for index, theirs in enumerate(other)]
        best, before = max(best, *row), row
    return best
