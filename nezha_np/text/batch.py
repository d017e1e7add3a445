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
    """What `encode` returns: the arguments of `forward` and of most task heads, all (B, L)."""

    input_ids: Integers
    attention_mask: Integers
    token_type_ids: Integers


class DescribedBatch(Batch):
    """What `encode` returns where more is asked for; each of these is there if its argument is True."""

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
