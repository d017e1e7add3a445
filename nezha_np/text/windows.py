"""Windows of long texts: parts that overlap, each a whole row with its special tokens.

A window may begin with another text, as a question stands before each part of the text that is to answer it.

Dimension letters: T tokens of the text, L length of a window.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from nezha_np.checks import check_integer
from nezha_np.families.config import Config
from nezha_np.text.sorted_batches import Row
from nezha_np.text.truncation import own_truncation

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LEAST = 8  # tokens of a window: special tokens, half of it for the text before, and something of the text


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a text.

    Attributes
    ----------
    row : dict of (L,) int64 arrays
        What `nezha_np.forward` takes.
    tokens : (L,) int64 array
        Which token of the text stands at each place; -1 for the text before it and for special tokens.
    """

    row: Row
    tokens: np.ndarray


@dataclasses.dataclass(frozen=True)
class WindowedText:
    """A text in windows.

    Attributes
    ----------
    windows : list of Window
        The windows, from left to right.
    characters : (T, 2) int64 array
        Where each token begins and ends in the text.
    words : (T,) int64 array
        The word that each token belongs to.
    """

    windows: list[Window]
    characters: np.ndarray
    words: np.ndarray


def make_windows(
    tokenizer: Tokenizer,
    text: str,
    before: str | None = None,
    *,
    size: int | None,
    stride: int,
    half_at_most: bool = False,
) -> WindowedText:
    """Divide a text into windows.

    They are those of the reference's fast tokenizers (``stride``, ``return_overflowing_tokens``).

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        One that neither truncates nor pads.
    text : str
        The text.
    before : str, optional
        The text that each window begins with. Where it is longer than half of a window, it is cut to that.
    size : int or None
        The largest number of tokens of a window; None: the text is one window.
    stride : int
        How many tokens of the text two neighbouring windows share. Where a window has no more of the text than that, it
        is half of them.
    half_at_most : bool
        Whether neighbours never share more than half of the text's tokens in a window.

    Returns
    -------
    WindowedText
        The windows; one for an empty text.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> found = make_windows(load_tokenizer(), "房间很干净", "好", size=8, stride=1)
    >>> [window.tokens.tolist() for window in found.windows]
    [[-1, -1, -1, 0, 1, 2, 3, -1], [-1, -1, -1, 3, 4, -1]]
    """
    inner = tokenizer.encode(text, add_special_tokens=False)
    asked = None if before is None else tokenizer.encode(before, add_special_tokens=False)
    characters = np.array(inner.offsets, np.int64).reshape(-1, 2)
    words = np.array([-1 if word is None else word for word in inner.word_ids], np.int64)
    step = 0
    if size is not None:
        if asked is not None:
            asked.truncate(size // 2)
        room = size - tokenizer.num_special_tokens_to_add(asked is not None) - (0 if asked is None else len(asked))
        shared = min(stride, room // 2) if half_at_most or stride >= room else stride
        step = room - shared
        if len(inner) > room:
            inner.truncate(room, stride=shared)
    windows = []
    for number, part in enumerate([inner, *inner.overflowing]):
        framed = tokenizer.post_process(part) if asked is None else tokenizer.post_process(asked, part)
        inside = np.array([index == (asked is not None) for index in framed.sequence_ids], bool)
        tokens = np.full(len(framed), -1, np.int64)
        tokens[inside] = number * step + np.arange(inside.sum())
        row = {
            "input_ids": np.array(framed.ids, np.int64),
            "attention_mask": np.ones(len(framed), np.int64),
            "token_type_ids": np.array(framed.type_ids, np.int64),
        }
        windows.append(Window(row, tokens))
    return WindowedText(windows, characters, words)


def window_size(
    max_length: int | None, tokenizer: Tokenizer, config: Config, *, default: int | None = None
) -> int | None:
    """Choose how many tokens a window has.

    Parameters
    ----------
    max_length : int or None
        What the call says; None: what the tokenizer is set to be cut at, else the default.
    tokenizer : tokenizers.Tokenizer
        The tokenizer.
    config : Config
        The model with learned positions has no longer windows than these by default.
    default : int, optional
        The default; None: as many as the model has positions.

    Returns
    -------
    int or None
        The number; None: any.

    Examples
    --------
    >>> import nezha_np as nz
    >>> [window_size(None, nz.load_tokenizer(), config) for config in (nz.BertConfig(), nz.NezhaConfig())]
    [512, None]
    """
    if max_length is not None:
        return check_integer("max_length", max_length, least=LEAST)
    if (length := own_truncation(tokenizer).get("max_length")) is not None:
        return max(LEAST, int(length))
    known = [size for size in (default, config.longest_text) if size is not None]
    return min(known, default=None)
