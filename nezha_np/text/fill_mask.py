"""Fill the masks of texts: from text to the likeliest word pieces, and to the finished text."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.checks import check_integer
from nezha_np.layers.losses import IGNORE_INDEX
from nezha_np.layers.softmax import softmax
from nezha_np.model.heads import masked_lm
from nezha_np.text.defaults import choose_model
from nezha_np.text.encode import check_tokenizer
from nezha_np.text.sorted_batches import check_texts, make_rows, run_in_batches
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Filling:
    """A word piece that may stand in the place of a mask; it unpacks and indexes as token, id and score.

    Attributes
    ----------
    token : str
        The word piece.
    id : int
        Its id.
    score : float
        Its probability.
    text : str
        The text with the word piece in the place of this mask; other masks stay.

    Examples
    --------
    >>> import nezha_np as nz
    >>> filling = nz.Filling("干", 2045, 0.75, "房间很干净。")
    >>> token, id, score = filling
    >>> token, id, score, filling.text
    ('干', 2045, 0.75, '房间很干净。')
    """

    token: str
    id: int
    score: float
    text: str

    def __iter__(self) -> Iterator[Any]:
        return iter((self.token, self.id, self.score))

    def __getitem__(self, index: int) -> Any:
        return (self.token, self.id, self.score)[index]


@overload
def fill_mask(  # type: ignore[overload-overlap]  # a str is an iterable of str, too
    texts: str,
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    top_k: int = 5,
    mask_token: str = "[MASK]",
    batch_size: int = 32,
    max_length: int | None = None,
) -> list[list[Filling]]: ...


@overload
def fill_mask(
    texts: Iterable[str],
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    top_k: int = 5,
    mask_token: str = "[MASK]",
    batch_size: int = 32,
    max_length: int | None = None,
) -> list[list[list[Filling]]]: ...


def fill_mask(
    texts: str | Iterable[str],
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    top_k: int = 5,
    mask_token: str = "[MASK]",
    batch_size: int = 32,
    max_length: int | None = None,
) -> list[list[Filling]] | list[list[list[Filling]]]:
    """Predict the word pieces that are masked in a text, or in each of several texts.

    The reference is the fill-mask pipeline of transformers.

    Parameters
    ----------
    texts : str or iterable of str
        A text, or n texts, with one ``[MASK]`` or more.
    weights : Weights, optional
        A model with a language-model head; None: the one that ships with the package.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    top_k : int
        How many word pieces to return for each mask.
    mask_token : str
        The mask token, where the tokenizer has another name for it.
    batch_size : int
        How many texts go through the model together. Texts are sorted by length first.
    max_length : int, optional
        The largest number of tokens of a text, special tokens included; longer texts are cut, and a mask behind the cut
        counts as none. None: no text is cut.

    Returns
    -------
    list of list of Filling
        For each ``[MASK]`` of the text the likeliest word pieces, the likeliest first, each with the text that it
        makes. Of several texts, such a list for each.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If a text has no ``[MASK]``, or more tokens than a model with learned positions has positions; `top_k` is less
        than 1 or more than the size of the vocabulary; there is no tokenizer, or it does not fit the weights; or the
        weights have no language-model head.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from.

    Examples
    --------
    >>> import nezha_np as nz
    >>> [[(token, id, score), *_]] = nz.fill_mask("房间很[MASK]净。")
    >>> token, round(score, 2)
    ('干', 0.98)
    >>> [gaps[0][0].text for gaps in nz.fill_mask(["房间很[MASK]净。", "性价[MASK]很高"])]
    ['房间很干净。', '性价比很高']
    """
    weights, tokenizer = choose_model(weights, tokenizer)
    check_tokenizer(tokenizer)
    top_k = check_integer("top_k", top_k, least=1, most=weights.config.vocab_size)
    batch_size = check_integer("batch_size", batch_size, least=1)
    asked = check_texts("texts", texts)
    mask_id = _mask_id(tokenizer, mask_token)
    rows = make_rows(tokenizer, asked, max_length=max_length, offsets=True)
    places = [row.pop("offset_mapping")[row["input_ids"] == mask_id] for row in rows]  # (masks, 2) each
    names = ["texts"] if isinstance(texts, str) else [f"texts[{index}]" for index in range(len(asked))]
    for name, text, spans in zip(names, asked, places, strict=True):
        if not len(spans):
            raise ValueError(f"{name}: expected at least one {mask_token}, got {text!r}")
    for row in rows:  # the head computes the logits of labelled tokens alone; what the labels are does not matter
        row["labels"] = np.where(row["input_ids"] == mask_id, mask_id, IGNORE_INDEX)
    found: dict[int, list[list[Filling]]] = {}
    head = functools.partial(masked_lm, labelled_only=True)
    for chosen, out in run_in_batches(head, weights, rows, names, batch_size=batch_size):
        logits = to_numpy(out.logits).astype(np.float64)  # (masks, V), of the first text, then of the second …
        first = 0
        for index in chosen:
            spans = places[index].tolist()
            found[index] = [
                _best(tokenizer, asked[index], span, scores, top_k, mask_token)
                for span, scores in zip(spans, to_numpy(softmax(logits[first : first + len(spans)])), strict=True)
            ]
            first += len(spans)
    return found[0] if isinstance(texts, str) else [found[index] for index in range(len(asked))]


def _mask_id(tokenizer: Tokenizer, mask_token: str) -> int:
    if not isinstance(mask_token, str):
        raise TypeError(f"mask_token: expected a str, got {type(mask_token).__name__}")
    mask_id: int | None = tokenizer.token_to_id(mask_token)
    if mask_id is None and mask_token != "[MASK]":
        raise ValueError(f"mask_token: expected a token of the vocabulary, got {mask_token!r}")
    if mask_id is None:
        raise ValueError(
            "tokenizer: expected one with [MASK], got one without [MASK]; mask_token gives it another name"
        )
    return mask_id


def _best(
    tokenizer: Tokenizer, text: str, span: Sequence[int], scores: np.ndarray, top_k: int, mask_token: str
) -> list[Filling]:
    order: Sequence[int] = np.argsort(-scores, kind="stable")[:top_k].tolist()
    tokens = [tokenizer.id_to_token(index) or "" for index in order]
    return [
        Filling(token, index, float(scores[index]), _finished(tokenizer, text, span, token, mask_token))
        for token, index in zip(tokens, order, strict=True)
    ]


def _finished(tokenizer: Tokenizer, text: str, span: Sequence[int], token: str, mask_token: str) -> str:
    """Put a word piece in the place of a mask; one that continues a word is joined to the text before it."""
    start, end = span
    before, inside = text[:start], text[start:end]
    prefix = getattr(tokenizer.model, "continuing_subword_prefix", None)
    if prefix and token.startswith(prefix) and len(token) > len(prefix):
        return before.rstrip() + token.removeprefix(prefix) + text[end:]
    # The mask token of some tokenizers takes the spaces beside it.
    return before + (inside.replace(mask_token, token) if mask_token in inside else token) + text[end:]
