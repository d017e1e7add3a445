"""Tag texts: from texts to the entities in them, with their places."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.checks import check_integer
from nezha_np.layers.softmax import softmax
from nezha_np.model.heads import token_classification
from nezha_np.text.defaults import choose_model
from nezha_np.text.encode import check_tokenizer
from nezha_np.text.entities import OUTSIDE, entities
from nezha_np.text.rows import without_truncation_and_padding
from nezha_np.text.sorted_batches import Row, check_texts, run_in_batches
from nezha_np.text.windows import WindowedText, make_windows, window_size
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Aggregation = Literal["simple", "first", "average", "max"]
AGGREGATIONS = ("simple", "first", "average", "max")


@dataclasses.dataclass(frozen=True)
class Entity:
    """A part of a text with a label.

    Attributes
    ----------
    label : str
        Its kind, such as "PER": the tag without B-, I-, E- or S-; without aggregation, the tag of the token.
    text : str
        The part of the text.
    start, end : int
        Its first character, and the one after its last.
    score : float
        Its probability: the mean of those of its words, or of its tokens.

    Examples
    --------
    >>> import nezha_np as nz
    >>> nz.Entity("LOC", "北京", 2, 4, 0.75)
    Entity(label='LOC', text='北京', start=2, end=4, score=0.75)
    """

    label: str
    text: str
    start: int
    end: int
    score: float


def tag(
    texts: str | Iterable[str],
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    aggregation: Aggregation | None = "first",
    batch_size: int = 32,
    max_length: int | None = None,
    stride: int = 128,
) -> list[list[Entity]]:
    """Find entities in texts: names of people, places and organisations, or what else a model was trained for.

    The reference is the token-classification pipeline of transformers.

    Parameters
    ----------
    texts : str or iterable of str
        n texts; one str is one text.
    weights : Weights, optional
        A model with a head for token_classification; None: the one for Chinese names that ships with the package.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    aggregation : {"first", "average", "max", "simple"} or None
        What makes entities of tokens. A word has the tag of its first token ("first"), of the mean of its tokens'
        probabilities ("average"), or of its token that is surest ("max"); neighbouring words with tags of one kind are
        an entity. "simple": so are neighbouring tokens, whatever the words. None: each token by itself. Tags are read
        as BIO, BIOES, BMES, BILOU or IO; what has the tag O is left out.
    batch_size : int
        How many windows go through the model together. They are sorted by length first.
    max_length : int, optional
        The largest number of tokens of a window, special tokens included. Longer texts are read in windows that
        overlap: each token has the tag of the window in which it stands farther from the end. None: what the tokenizer
        is set to be cut at, else as many as the model has positions, which for NEZHA is any number.
    stride : int
        How many tokens neighbouring windows share.

    Returns
    -------
    list of list of Entity
        For each text its entities, from left to right.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If an option has a value that is not listed above; the weights have no such head; there is no tokenizer, or it
        does not fit the weights.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from.

    Examples
    --------
    >>> import nezha_np as nz
    >>> (found,) = nz.tag("周恩来在北京会见了外宾。")
    >>> [(entity.label, entity.text, entity.start, entity.end) for entity in found]
    [('PER', '周恩来', 0, 3), ('LOC', '北京', 4, 6)]
    """
    weights, tokenizer = choose_model(weights, tokenizer, head="names")
    check_tokenizer(tokenizer)
    weights.require("token_classification")
    if aggregation is not None and aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation: expected one of {', '.join(AGGREGATIONS)} or None, got {aggregation!r}")
    batch_size = check_integer("batch_size", batch_size, least=1)
    stride = check_integer("stride", stride, least=0)
    asked = check_texts("texts", texts)
    size = window_size(max_length, tokenizer, weights.config)
    plain = without_truncation_and_padding(tokenizer)
    windowed = [make_windows(plain, text, size=size, stride=stride) for text in asked]

    rows: list[Row] = []
    names: list[str] = []
    places: list[tuple[int, int]] = []  # the text and the window of each row
    for number, text in enumerate(windowed):
        for index, window in enumerate(text.windows if len(text.words) else []):
            rows.append(window.row)
            names.append(f"texts[{number}]")
            places.append((number, index))
    classes = weights.config.num_labels or 0
    probs = [np.zeros((len(text.words), classes)) for text in windowed]  # (T, C) each
    for chosen, out in run_in_batches(token_classification, weights, rows, names, batch_size=batch_size):
        batch = to_numpy(softmax(to_numpy(out.logits).astype(np.float64)))  # (B, L, C)
        for row, scores in zip(chosen, batch, strict=True):
            number, index = places[row]
            tokens = windowed[number].windows[index].tokens
            own = np.flatnonzero(_own(windowed[number], index))
            probs[number][tokens[own]] = scores[own]
    labels = weights.config.id2label or {}
    return [
        _entities(text, found.characters, found.words, scores, [labels[index] for index in range(classes)], aggregation)
        for text, found, scores in zip(asked, windowed, probs, strict=True)
    ]


def _own(text: WindowedText, index: int) -> np.ndarray:
    """Mark the tokens of a window that are nearer to its middle than to that of a neighbour which has them too."""
    tokens = text.windows[index].tokens
    first, end = 0, len(text.words)
    if index:
        first = _middle(text, index - 1)
    if index + 1 < len(text.windows):
        end = _middle(text, index)
    return (tokens >= first) & (tokens < end)


def _middle(text: WindowedText, index: int) -> int:
    """Return the token in the middle of what a window and the next one share."""
    last, first = text.windows[index].tokens.max(), text.windows[index + 1].tokens
    return int((last + 1 + first[first >= 0].min()) // 2)


def _entities(
    text: str,
    characters: np.ndarray,
    words: np.ndarray,
    probs: np.ndarray,
    labels: Sequence[str],
    aggregation: Aggregation | None,
) -> list[Entity]:
    """Make entities of the probabilities of tokens."""
    if not len(words):
        return []
    begins = np.r_[True, words[1:] != words[:-1]]
    if aggregation in (None, "simple"):
        begins[:] = True
    firsts = np.flatnonzero(begins)
    ends = np.r_[firsts[1:], len(words)]  # one after the last token of each word
    if aggregation == "average":
        probs = np.add.reduceat(probs, firsts) / (ends - firsts)[:, None]
    elif aggregation == "max":
        surest = probs.max(axis=1)
        chosen = [first + int(surest[first:end].argmax()) for first, end in zip(firsts, ends, strict=True)]
        probs = probs[chosen]
    else:
        probs = probs[firsts]
    best, scores = probs.argmax(axis=1), probs.max(axis=1)
    tags = [labels[index] for index in best]
    if aggregation is None:
        spans = [(label, index, index + 1) for index, label in enumerate(tags) if label != OUTSIDE]
    else:
        spans = entities(tags)
    found = []
    for kind, first, stop in spans:
        start, end = int(characters[firsts[first], 0]), int(characters[ends[stop - 1] - 1, 1])
        found.append(Entity(kind, text[start:end], start, end, float(scores[first:stop].mean())))
    return found
