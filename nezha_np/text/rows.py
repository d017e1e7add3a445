"""From texts to rows of tokens: tokenise, cut, stack."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.text.long_texts import PIECE, encode_in_pieces, find_boundaries
from nezha_np.text.padding import Padding, pad_rows
from nezha_np.text.truncation import Truncation, cut_row

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


def encode_rows(
    tokenizer: Tokenizer,
    inputs: list[Any],
    truncation: Truncation,
    padding: Padding,
    extras: Collection[str] = (),
    *,
    special: bool = True,
    words: bool = False,
    overflow: bool = False,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Turn texts into arrays; `encode` describes the arguments and checks them.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.
    inputs : list of str, list of list of str, or list of tuple of two of these
        Texts, or pairs of texts.
    truncation, padding
        How rows are cut and padded.
    extras : collection of str
        The names of further arrays.
    special : bool
        Whether special tokens are added.
    words : bool
        Whether texts are lists of words.
    overflow : bool
        Whether windows of what is cut off follow each row.

    Returns
    -------
    arrays : dict of str to (B, L) or (B, L, 2) int64 array
        What `encode` returns.
    samples : (B,) int64 array
        The number of the text that each row is a part of.
    cut : (B,) bool array
        Whether the text of a row has lost tokens.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> arrays, _, _ = encode_rows(load_tokenizer(), ["你好"], Truncation(), Padding(), ["word_ids"])
    >>> arrays["word_ids"]
    array([[-1,  0,  1, -1]])
    """
    names = ["input_ids", "token_type_ids", *extras]
    found = _tokenize(tokenizer, inputs, truncation, names, special=special, words=words, overflow=overflow)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    samples: list[int] = []
    cut: list[bool] = []
    longest = 0  # windows of what was cut off do not count, as in the reference
    for sample, row in enumerate(found):
        length = len(row["input_ids"])
        windows = [np.arange(length)]
        if truncation.max_length is not None and length > truncation.max_length:
            windows = cut_row(row["sequence_ids"], truncation, f"texts[{sample}]", overflow=overflow)
        longest = max(longest, len(windows[0]))
        for positions in windows:
            samples.append(sample)
            cut.append(len(windows[0]) < length)
            for name, rows in columns.items():
                rows.append(row[name][positions])
    return pad_rows(tokenizer, columns, padding, longest), np.array(samples, np.int64), np.array(cut)


def _tokenize(
    tokenizer: Tokenizer,
    inputs: list[Any],
    truncation: Truncation,
    names: list[str],
    *,
    special: bool,
    words: bool,
    overflow: bool,
) -> list[dict[str, np.ndarray]]:
    """Read what is wanted of the tokens of each text, before it is cut; of a long text no more than is needed."""
    plain = without_truncation_and_padding(tokenizer)
    rows: dict[int, dict[str, np.ndarray]] = {}
    if not words and not {"offset_mapping", "word_ids"} & set(names):
        long = [row for row, text in enumerate(inputs) if isinstance(text, str) and len(text) > PIECE]
        if long and (boundaries := find_boundaries(plain)) is not None:
            most = None if overflow or truncation.side == "left" else truncation.max_length
            rows = {row: encode_in_pieces(plain, inputs[row], boundaries, most, special) for row in long}
    others = [row for row in range(len(inputs)) if row not in rows]
    encodings = plain.encode_batch([inputs[row] for row in others], is_pretokenized=words, add_special_tokens=special)
    for row, encoding in zip(others, encodings, strict=True):
        rows[row] = {name: _read(encoding, name) for name in names}
        if truncation.max_length is not None and len(encoding) > truncation.max_length:
            rows[row]["sequence_ids"] = _read(encoding, "sequence_ids")
    return [rows[row] for row in range(len(inputs))]


def _read(encoding: Encoding, name: str) -> np.ndarray:
    """Return what an encoding holds for each token, -1 for None."""
    if name == "offset_mapping":
        return np.array(encoding.offsets, np.int64).reshape(-1, 2)
    if name in ("word_ids", "sequence_ids"):
        return np.array([-1 if index is None else index for index in getattr(encoding, name)], np.int64)
    return np.array(getattr(encoding, {"input_ids": "ids", "token_type_ids": "type_ids"}.get(name, name)), np.int64)


def without_truncation_and_padding(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer, or, where it is set to truncate or to pad, a copy that is not.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Any tokenizer; it is not changed.

    Returns
    -------
    tokenizers.Tokenizer
        One that gives the same tokens, all of them, and nothing else.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> without_truncation_and_padding(tokenizer) is tokenizer
    True
    >>> tokenizer.enable_padding(length=8)
    >>> without_truncation_and_padding(tokenizer).encode("好").tokens
    ['[CLS]', '好', '[SEP]']
    """
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    if hasattr(tokenizer, "encode_special_tokens"):  # since 0.15.1; not part of to_str
        copy.encode_special_tokens = tokenizer.encode_special_tokens
    return copy
