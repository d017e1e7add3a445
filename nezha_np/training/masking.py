"""Masking: which tokens a masked language model must guess (Devlin et al. 2019, section 3.1; NEZHA, section 2.3).

15 % of the tokens get a label. Of these 80 % become [MASK], 10 % another token, and 10 % stay what they are, so that
the model cannot know which tokens it will be asked for. Both draws are made for each token.

**Whole words**: a Chinese word is mostly two characters, and where one is masked alone the other one gives it away. So
words are drawn, and all tokens of a word are masked together. Where every token is a word of its own, this is BERT's
first way: single tokens.

The rule is that of ``create_masked_lm_predictions`` of BERT's authors: the words are shuffled, and taken while they
fit into round(0.15 L) tokens, at least 1 and at most 20.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nezha_np.checks import check_integer
from nezha_np.randomness import uniform

NO_LABEL = -100  # what cross_entropy leaves out


def mask_words(
    ids: Any,
    words: Any,
    *,
    mask_id: int,
    replacements: Sequence[int] | np.ndarray,
    key: tuple[object, ...],
    rate: float = 0.15,
    most: int = 20,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask whole words of one sequence.

    Parameters
    ----------
    ids : (L,) int array_like
        The tokens, without padding.
    words : (L,) int array_like
        The number of the word that each token belongs to; -1 for a token that must not be masked, such as [CLS].
    mask_id : int
        The id of [MASK].
    replacements : (R,) int array_like
        The ids that a token may be replaced by; BERT's authors take the whole vocabulary.
    key : tuple of str or int
        The random stream: a seed, an epoch, the number of the sequence. The same key masks the same tokens.
    rate : float
        The part of the tokens that get a label.
    most : int
        The largest number of labels.

    Returns
    -------
    ids : (L,) int64 array
        The tokens with the masks.
    labels : (L,) int64 array
        The original id where the model must guess, -100 elsewhere. At least one token has a label, unless there is
        none that may be masked, or every word is longer than `most`.

    Raises
    ------
    ValueError
        If `ids` and `words` are not of one length, or a number is outside its range.

    Examples
    --------
    >>> ids, labels = mask_words(
    ...     [2, 10, 11, 12, 13, 3], [-1, 0, 0, 1, 2, -1], mask_id=4, replacements=range(20), key=(1,), rate=0.4
    ... )
    >>> ids
    array([ 2, 10, 11,  4, 13,  3])
    >>> labels
    array([-100, -100, -100,   12,   13, -100])
    """
    ids, words = np.asarray(ids, np.int64), np.asarray(words, np.int64)
    if ids.ndim != 1 or ids.shape != words.shape:
        raise ValueError(f"words: expected one for each of ids, of shape {ids.shape}, got {words.shape}")
    check_integer("most", most, least=1)
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"rate: expected a number above 0, up to 1, got {rate!r}")
    chosen = _choose(words, min(most, max(1, round(ids.size * rate))), most, key)
    draws = uniform(2 * ids.size, *key, "replacement").reshape(2, -1)
    others = np.asarray(replacements, np.int64)
    drawn = others[(draws[1] * others.size).astype(np.int64)]
    new = np.where(draws[0] < 0.8, mask_id, np.where(draws[0] < 0.9, drawn, ids))
    return np.where(chosen, new, ids), np.where(chosen, ids, NO_LABEL)


def _choose(words: np.ndarray, count: int, most: int, key: tuple[object, ...]) -> np.ndarray:
    """Choose words, in a random order, while they fit into `count` tokens; where none fits, the shortest one."""
    numbers, lengths = np.unique(words[words >= 0], return_counts=True)
    if not numbers.size:
        return np.zeros(words.shape, bool)
    order = np.argsort(uniform(numbers.size, *key, "words"), kind="stable")
    taken, room = [], count
    for index in order:
        if lengths[index] <= room:
            taken.append(numbers[index])
            room -= lengths[index]
        if not room:
            break
    if not taken and lengths.min() <= most:
        taken.append(numbers[order[lengths[order].argmin()]])
    return np.isin(words, taken)
