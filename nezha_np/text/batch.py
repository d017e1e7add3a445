"""The types of what `encode` takes and returns, for type checkers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

from nezha_np.text.padding import PaddingStrategy
from nezha_np.text.truncation import Side, Strategy

Texts = str | Sequence[str] | Sequence[Sequence[str]]
Integers = npt.NDArray[np.int64]


class Batch(TypedDict):
    """What `encode` returns: the arguments of `forward` and of most task heads, all (B, L).

    Attributes
    ----------
    input_ids, attention_mask, token_type_ids : (B, L) int64 array
        The tokens, 1 for tokens and 0 for padding, and the types of the tokens.

    Examples
    --------
    >>> import nezha_np as nz
    >>> batch: nz.Batch = nz.encode(nz.load_tokenizer(), "房间")
    >>> nz.forward(nz.load(), **batch).last_hidden_state.shape
    (1, 4, 256)
    """

    input_ids: Integers
    attention_mask: Integers
    token_type_ids: Integers


class DescribedBatch(Batch):
    """What `encode` returns where more is asked for; each of these is there if its argument is True.

    Attributes
    ----------
    offset_mapping : (B, L, 2) int64 array
        Where the characters of a token begin and end.
    special_tokens_mask, word_ids, sequence_ids : (B, L) int64 array
        1 for tokens that were added; the word and the text of a token, or -1.
    overflow_to_sample_mapping : (B,) int64 array
        The text that each row is a part of.

    Examples
    --------
    >>> import nezha_np as nz
    >>> batch: nz.DescribedBatch = nz.encode(nz.load_tokenizer(), "房间", return_word_ids=True)
    >>> batch.pop("word_ids")
    array([[-1,  0,  1, -1]])
    """

    offset_mapping: NotRequired[Integers]
    special_tokens_mask: NotRequired[Integers]
    word_ids: NotRequired[Integers]
    sequence_ids: NotRequired[Integers]
    overflow_to_sample_mapping: NotRequired[Integers]


class Settings(TypedDict, total=False):
    """The arguments of `encode` that change the rows, and not which arrays there are."""

    max_length: int | None
    padding: bool | PaddingStrategy | None
    pad_to_multiple_of: int | None
    padding_side: Side | None
    truncation: bool | Strategy | None
    truncation_side: Side | None
    stride: int | None
    is_split_into_words: bool
    add_special_tokens: bool


class SettingsOfMore(Settings, total=False):
    """All arguments of `encode` with a name."""

    return_overflowing_tokens: bool
    return_offsets_mapping: bool
    return_special_tokens_mask: bool
    return_word_ids: bool
    return_sequence_ids: bool
