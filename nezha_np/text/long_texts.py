"""Tokenising a long text piece by piece, no further than its cut; the ids are those of the whole text.

The tokenizers library needs hundreds of bytes for each character of a text, and answers no signal before it has read
all of it. So a long text is split where that changes nothing: before a character that ends the word before it, whatever
stands around, and that no added token holds. Nothing that a WordPiece tokenizer does then crosses this place:

    normalise     each character for itself, or with the combining marks after it; none of these characters is a mark
    added tokens  a token that crossed the place would hold the character
    WordPiece     each word for itself

A word that is too long for WordPiece is the unknown token, however long it is: its middle is left out before.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECE = 4096  # characters; a piece is longer where there is no place to split
MOST_PIECES = 16  # that are tokenised in one call
SPACES = " \t\n\u3000"
PUNCTUATION = string.punctuation + "，。！？；：、（）《》「」『』【】…—“”‘’"
FIRST_CHINESE, LAST_CHINESE = "\u4e00", "\u9fff"


def find_boundaries(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Find the characters before which a text may be split.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Any tokenizer.

    Returns
    -------
    re.Pattern or None
        Finds such a character; None: the tokenizer has parts of which it is not known where a text may be split.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> find_boundaries(load_tokenizer()).search("hôtel-club").start()
    5
    """
    from tokenizers import models, normalizers, pre_tokenizers

    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    if not isinstance(tokenizer.model, models.WordPiece) or (
        normalizer is not None and not isinstance(normalizer, normalizers.BertNormalizer)
    ):
        return None
    added = tokenizer.get_added_tokens_decoder().values()
    held = {character for content in _contents(tokenizer) for character in content}
    characters = SPACES
    chinese = False
    if isinstance(pre_tokenizer, pre_tokenizers.BertPreTokenizer):
        if not any(token.single_word for token in added):  # such a token sees the character after it
            characters += PUNCTUATION
            chinese = normalizer is not None and normalizer.handle_chinese_chars and " " not in held
    elif not isinstance(pre_tokenizer, pre_tokenizers.WhitespaceSplit):
        return None
    if " " in held:
        characters = characters.translate(dict.fromkeys(map(ord, SPACES)))
    found = "".join(re.escape(character) for character in characters if character not in held)
    if chinese and not any(FIRST_CHINESE <= character <= LAST_CHINESE for character in held):
        found += f"{FIRST_CHINESE}-{LAST_CHINESE}"
    return re.compile(f"[{found}]") if found else None


def shorten_words(tokenizer: Tokenizer, text: str) -> str:
    """Leave out the middle of each run of ASCII letters and digits that makes its word the unknown token anyway.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        A tokenizer for which `find_boundaries` finds something.
    text : str
        A text.

    Returns
    -------
    str
        A text with the same ids. Where an added token is made of letters and digits alone, the same text.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> len(shorten_words(load_tokenizer(), f"so {'long' * 1_000_000} a word"))
    224
    """
    contents = _contents(tokenizer)
    if any(content.isascii() and content.isalnum() for content in contents):
        return text
    # An added token may take a part of the run at either end; what remains is still too long.
    kept = tokenizer.model.max_input_chars_per_word + max(map(len, contents), default=0) + 1
    return re.sub(rf"[A-Za-z0-9]{{{2 * kept},}}", lambda run: run[0][:kept] + run[0][-kept:], text)


def _contents(tokenizer: Tokenizer) -> list[str]:
    """Return what added tokens are looked for: as they are, and, where they are, in the normalised text."""
    added = tokenizer.get_added_tokens_decoder().values()
    contents = [token.content for token in added]
    if tokenizer.normalizer is not None:
        contents += [tokenizer.normalizer.normalize_str(token.content) for token in added if token.normalized]
    return contents


def encode_in_pieces(
    tokenizer: Tokenizer, text: str, boundaries: re.Pattern[str], max_length: int | None, special: bool = True
) -> dict[str, np.ndarray]:
    """Tokenise a long text, no further than it is needed.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        A tokenizer that neither truncates nor pads.
    text : str
        The text.
    boundaries : re.Pattern
        What `find_boundaries` found for the tokenizer.
    max_length : int or None
        The largest number of tokens that are needed, special tokens included; None: all of them. A text that has more
        has more here too.
    special : bool
        Whether special tokens are added.

    Returns
    -------
    dict of str to (L,) int64 array
        For each token: ``input_ids``; ``token_type_ids``; ``sequence_ids``, -1 for a token that was added, else 0;
        ``special_tokens_mask``, 1 for a token that was added, else 0.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> row = encode_in_pieces(tokenizer, "好" * 1_000_000, find_boundaries(tokenizer), 4)
    >>> 4 < len(row["input_ids"]) < 5000
    True
    """
    room = None if max_length is None else max_length - (tokenizer.num_special_tokens_to_add(False) if special else 0)
    text = shorten_words(tokenizer, text)
    found, count = [np.empty(0, np.int64)], 0
    framed = tokenizer.encode("", add_special_tokens=special)  # the special tokens
    before = len(framed)
    for pieces in _pieces(text, boundaries):
        for encoding in tokenizer.encode_batch(pieces, add_special_tokens=False):
            found.append(np.array(encoding.ids, np.int64))
            count += len(encoding)
            if len(encoding) and 0 not in framed.sequence_ids:
                encoding.truncate(1)
                # one token of the text, and the special tokens around it
                framed = tokenizer.post_process(encoding, add_special_tokens=special)
                before = framed.sequence_ids.index(0)
        if room is not None and count > room:
            break
    ids = np.concatenate(found)
    frame, types = np.array(framed.ids, np.int64), np.array(framed.type_ids, np.int64)
    own = np.full(len(ids), types[before] if count else 0)
    added = np.array([1] * before + [0] * len(ids) + [1] * (len(frame) - before - 1), np.int64)
    return {
        "input_ids": np.concatenate([frame[:before], ids, frame[before + 1 :]]),
        "token_type_ids": np.concatenate([types[:before], own, types[before + 1 :]]),
        "sequence_ids": -added,
        "special_tokens_mask": added,
    }


def _pieces(text: str, boundaries: re.Pattern[str]) -> Iterator[list[str]]:
    """Split a text at boundaries; first one piece, which mostly is enough for a text that is cut, then more at once."""
    start, most = 0, 1
    while start < len(text):
        pieces: list[str] = []
        while start < len(text) and len(pieces) < most:
            boundary = boundaries.search(text, start + PIECE)
            end = boundary.start() if boundary else len(text)
            pieces.append(text[start:end])
            start = end
        yield pieces
        most = min(2 * most, MOST_PIECES)
