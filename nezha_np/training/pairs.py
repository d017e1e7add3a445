"""Pairs for next-sentence prediction, as BERT makes them (Devlin et al. 2019, appendix A.2; ``create_instances``).

A passage, consecutive sentences of a document, is cut at a random sentence into A and B. In half of the cases B is
replaced by sentences of another document: the label is then 1, "random", else 0, "next". One passage in ten is made
short, because a model that has seen full ones only fails on short text. What is too long is cut: while both together
have too many tokens, the longer one loses its first or its last token, by turns of a coin.

A and B are ranges of one row of tokens, so a pair is made without copying any. The authors' code puts the sentences
that a random B displaced back into the document, for the next passage; here passages are the same in every epoch, and
what was displaced in one epoch stays in another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from nezha_np.randomness import uniform

NEXT, RANDOM = 0, 1  # the labels, as transformers numbers them
SHORT = 0.1  # the part of the passages that are made short


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two ranges of tokens and what the second one is.

    Attributes
    ----------
    first, second : (int, int)
        Start and stop of A and B in the row of tokens.
    label : int
        0: B follows A. 1: B was drawn from another document.

    Examples
    --------
    >>> Pair((0, 3), (3, 7), 0).tokens
    7
    """

    first: tuple[int, int]
    second: tuple[int, int]
    label: int

    @property
    def tokens(self) -> int:
        """The number of tokens of both."""
        return self.first[1] - self.first[0] + self.second[1] - self.second[0]


def draw_pair(
    starts: Sequence[int] | np.ndarray,
    documents: Sequence[int] | np.ndarray,
    passage: tuple[int, int],
    *,
    room: int,
    key: tuple[object, ...],
) -> Pair:
    """Make a pair of one passage.

    Parameters
    ----------
    starts : (S + 1,) int array_like
        Where each sentence starts in the row of tokens, and where the last one ends.
    documents : (D + 1,) int array_like
        The first sentence of each document, and the number of sentences. At least two documents.
    passage : (int, int)
        Its first sentence, and the one after its last: both of one document.
    room : int
        The most tokens that A and B may have together, at least 2.
    key : tuple of str or int
        The random stream: a seed, an epoch, the number of the passage. The same key makes the same pair.

    Returns
    -------
    Pair
        A and B, with one token each at least.

    Raises
    ------
    ValueError
        If there are fewer than two documents, or room for fewer than two tokens.

    Examples
    --------
    Two documents, of three sentences and of one:

    >>> draw_pair([0, 4, 6, 9, 15], [0, 3, 4], (0, 3), room=12, key=(4,))
    Pair(first=(0, 4), second=(9, 15), label=1)
    >>> draw_pair([0, 4, 6, 9, 15], [0, 3, 4], (0, 3), room=12, key=(1,))
    Pair(first=(0, 4), second=(4, 9), label=0)
    """
    if len(documents) < 3:
        raise ValueError(
            f"documents: expected two at least, for half of the pairs need another, got {len(documents) - 1}"
        )
    if room < 2:
        raise ValueError(f"room: expected two tokens at least, got {room}")
    short, length, cut, coin, other, start = uniform(6, *key, "pair")
    target = 2 + int(length * (room - 1)) if short < SHORT else room
    first, after = passage
    while after - first > 2 and starts[after - 1] - starts[first] >= target:  # a short one has fewer sentences
        after -= 1
    middle = first + 1 + int(cut * (after - first - 1)) if after - first > 1 else after
    a = (int(starts[first]), int(starts[middle]))
    if after - first > 1 and coin < 0.5:
        b, label = (a[1], int(starts[after])), NEXT
    else:
        own = int(np.searchsorted(documents, first, side="right")) - 1
        drawn = int(other * (len(documents) - 2))
        drawn += drawn >= own  # any document but the own one
        begin, end = int(documents[drawn]), int(documents[drawn + 1])
        begin += int(start * (end - begin))
        # Whole sentences, one at least: where A alone is too long, both are cut to about the same length.
        full = int(np.searchsorted(starts, starts[begin] + target - (a[1] - a[0]), side="left"))
        b, label = (int(starts[begin]), int(starts[min(max(full, begin + 1), end)])), RANDOM
    return _cut(a, b, target, label, key)


def _cut(a: tuple[int, int], b: tuple[int, int], most: int, label: int, key: tuple[object, ...]) -> Pair:
    """Shorten the longer of two ranges, token by token, at its front or its back; where both are equal, the second."""
    more = (a[1] - a[0]) - (b[1] - b[0])
    excess = max(0, Pair(a, b, label).tokens - most)
    from_front = uniform(excess, *key, "cut") < 0.5
    turn = np.arange(excess) - abs(more)  # from 0 on they are equal, and take turns
    of_first = np.where(turn < 0, more > 0, turn % 2 == 1)

    def cut(start: int, stop: int, loses: np.ndarray) -> tuple[int, int]:
        return start + int((loses & from_front).sum()), stop - int((loses & ~from_front).sum())

    return Pair(cut(*a, of_first), cut(*b, ~of_first), label)
