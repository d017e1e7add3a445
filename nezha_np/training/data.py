"""Batches of a corpus: the batch of any step, made of a seed alone.

    step → the passages of its batch → pairs → masked tokens → arrays

A **passage** is a run of sentences of one document that fills a sequence. In each epoch passages come in another order,
with other pairs and other masks. Everything is drawn from (seed, epoch, passage), so a run that is stopped goes on with
the same batches, and several machines make different parts of one batch without talking to each other.

Passages are shuffled in windows: the windows in a random order, and the passages of each. So neighbours in a batch come
from one part of the file, which is read from the disk once.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nezha_np.checks import check_integer
from nezha_np.randomness import uniform
from nezha_np.training.corpus import Corpus
from nezha_np.training.masking import NO_LABEL, mask_words
from nezha_np.training.pairs import draw_pair

WINDOW = 65_536  # passages that are shuffled together


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """The ids of the special tokens of a tokenizer.

    Attributes
    ----------
    pad, cls, sep, mask : int
        [PAD], [CLS], [SEP] and [MASK].

    Examples
    --------
    >>> import nezha_np as nz
    >>> special_ids(nz.load_tokenizer())
    SpecialIds(pad=0, cls=2, sep=3, mask=4)
    """

    pad: int
    cls: int
    sep: int
    mask: int


def special_ids(tokenizer: Any) -> SpecialIds:
    """Look up the special tokens that a batch needs.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.

    Returns
    -------
    SpecialIds
        Their ids.

    Raises
    ------
    ValueError
        If the tokenizer lacks one of them.

    Examples
    --------
    >>> import nezha_np as nz
    >>> special_ids(nz.load_tokenizer()).mask
    4
    """
    ids = {name: tokenizer.token_to_id(f"[{name.upper()}]") for name in ("pad", "cls", "sep", "mask")}
    for name, number in ids.items():
        if number is None:
            raise ValueError(f"tokenizer: expected a vocabulary with [{name.upper()}], found none")
    return SpecialIds(**ids)


def passages(corpus: Corpus, max_length: int) -> np.ndarray:
    """Cut the documents of a corpus into passages: sentences that together fill a sequence.

    Parameters
    ----------
    corpus : Corpus
        The corpus.
    max_length : int
        The length of a sequence, three special tokens among them.

    Returns
    -------
    (P, 2) int64 array
        The first sentence of each passage, and the one after its last.

    Raises
    ------
    ValueError
        If `max_length` has no room for two tokens.

    Examples
    --------
    >>> import numpy as np
    >>> corpus = Corpus(np.arange(9), np.ones(9), np.array([0, 4, 6, 9]), np.array([0, 2, 3]), 100)
    >>> passages(corpus, max_length=8).tolist()
    [[0, 2], [2, 3]]
    """
    room = check_integer("max_length", max_length, least=5) - 3
    starts, found = np.asarray(corpus.sentences), []
    for first, after in zip(corpus.documents[:-1].tolist(), corpus.documents[1:].tolist(), strict=True):
        while first < after:
            # The first sentence with which the passage is full ends it, as in the authors' code.
            full = int(np.searchsorted(starts, starts[first] + room, side="left"))
            last = min(max(full, first + 1), after)
            found.append((first, last))
            first = last
    return np.array(found, np.int64).reshape(-1, 2)


def order_of(epoch: int, count: int, seed: int, window: int = WINDOW) -> np.ndarray:
    """Return the order of the passages of an epoch: windows are shuffled, and the passages of each.

    Parameters
    ----------
    epoch : int
        The epoch, from 0 on.
    count : int
        How many passages there are.
    seed : int
        The seed.
    window : int
        How many passages are shuffled together.

    Returns
    -------
    (count,) int64 array
        The numbers of the passages.

    Examples
    --------
    >>> order_of(0, 6, seed=0, window=3)
    array([5, 3, 4, 2, 0, 1])
    """
    firsts = np.arange(0, count, window)
    parts = []
    for first in firsts[np.argsort(uniform(firsts.size, seed, epoch, "windows"), kind="stable")].tolist():
        size = min(window, count - first)
        parts.append(first + np.argsort(uniform(size, seed, epoch, first, "window"), kind="stable"))
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def make_batch(
    corpus: Corpus,
    step: int,
    special: SpecialIds,
    *,
    batch_size: int,
    max_length: int,
    seed: int = 0,
    whole_words: bool = True,
    rate: float = 0.15,
    most: int = 20,
    cut: np.ndarray | None = None,
    order: np.ndarray | None = None,
    rows: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Make the batch of one step, for `nezha_np.pretraining`.

    Parameters
    ----------
    corpus : Corpus
        The corpus; two documents at least.
    step : int
        The number of the step, from 0 on. An epoch has as many steps as there are full batches.
    special : SpecialIds
        What `special_ids` found.
    batch_size : int
        B.
    max_length : int
        L, the length of each sequence.
    seed : int
        Everything random depends on it, and on the step.
    whole_words : bool
        Whether the tokens of a word are masked together; False: each token by itself.
    rate, most
        As for `mask_words`.
    cut : (P, 2) int array, optional
        ``passages(corpus, max_length)``, where they are needed again and again.
    order : (P,) int array, optional
        ``order_of(epoch, P, seed)`` of the epoch of this step.
    rows : (int, int), optional
        The first row to make, and the one after the last; None: all. They are what they are in the whole batch.

    Returns
    -------
    dict of str to int64 array
        ``input_ids``, ``attention_mask``, ``token_type_ids`` and ``labels``, of shape (B, L), and
        ``next_sentence_label``, of shape (B,).

    Raises
    ------
    ValueError
        If the corpus has fewer passages than a batch has rows, or fewer than two documents.

    Examples
    --------
    >>> import numpy as np
    >>> tokens, sentences = np.arange(10, 30), np.arange(0, 21, 4)
    >>> corpus = Corpus(tokens, np.ones(20), sentences, np.array([0, 2, 5]), 40)
    >>> batch = make_batch(corpus, 0, SpecialIds(0, 2, 3, 4), batch_size=2, max_length=12)
    >>> {name: array.shape for name, array in batch.items()} # doctest: +NORMALIZE_WHITESPACE
    {'input_ids': (2, 12), 'attention_mask': (2, 12), 'token_type_ids': (2, 12), 'labels': (2, 12),
     'next_sentence_label': (2,)}
    """
    check_integer("step", step, least=0)
    check_integer("batch_size", batch_size, least=1)
    cut = passages(corpus, max_length) if cut is None else cut
    each_epoch = len(cut) // batch_size
    if not each_epoch:
        raise ValueError(f"batch_size: expected at most {len(cut)}, the passages of the corpus, got {batch_size}")
    epoch, index = divmod(step, each_epoch)
    order = order_of(epoch, len(cut), seed) if order is None else order
    first_row, after_row = (0, batch_size) if rows is None else rows
    numbers = order[index * batch_size + first_row : index * batch_size + after_row]
    shape = (numbers.size, max_length)
    batch = {
        "input_ids": np.full(shape, special.pad, np.int64),
        "attention_mask": np.zeros(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
        "labels": np.full(shape, NO_LABEL, np.int64),
        "next_sentence_label": np.zeros(numbers.size, np.int64),
    }
    replacements = np.setdiff1d(np.arange(corpus.vocab_size), dataclasses.astuple(special))
    for row, number in enumerate(numbers.tolist()):
        key = (seed, epoch, number)
        first, after = cut[number].tolist()
        pair = draw_pair(corpus.sentences, corpus.documents, (first, after), room=max_length - 3, key=key)
        a, b = slice(*pair.first), slice(*pair.second)
        ids = np.concatenate(
            ([special.cls], corpus.tokens[a], [special.sep], corpus.tokens[b], [special.sep]), dtype=np.int64
        )
        words = np.concatenate(([-1], _words(corpus, a, whole_words), [-1], _words(corpus, b, whole_words), [-1]))
        second = words[: a.stop - a.start + 2].size  # [CLS] A [SEP]
        words[second:-1] += words[:second].max() + 1
        masked, labels = mask_words(
            ids, words, mask_id=special.mask, replacements=replacements, key=key, rate=rate, most=most
        )
        batch["input_ids"][row, : ids.size] = masked
        batch["attention_mask"][row, : ids.size] = 1
        batch["token_type_ids"][row, second : ids.size] = 1
        batch["labels"][row, : ids.size] = labels
        batch["next_sentence_label"][row] = pair.label
    return batch


def _words(corpus: Corpus, tokens: slice, whole_words: bool) -> np.ndarray:
    """Number the words of a range of tokens from 0 on; a word that the range cuts is a word of its own there."""
    if not whole_words:
        return np.arange(tokens.stop - tokens.start)
    begins = np.asarray(corpus.begins_word[tokens], np.int64)
    begins[0] = 1
    return np.cumsum(begins) - 1
