"""Rows of one length: how many tokens are filled in, which, and on which side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nezha_np.checks import check_integer
from nezha_np.text.truncation import SIDES, Side, Truncation, check_choice

if TYPE_CHECKING:
    from tokenizers import Tokenizer

STRATEGIES = ("longest", "max_length", "do_not_pad")
PaddingStrategy = Literal["longest", "max_length", "do_not_pad"]
# What stands in a padded place; input_ids have the pad token there, token_type_ids its type.
FILL = {"special_tokens_mask": 1, "offset_mapping": 0, "word_ids": -1, "sequence_ids": -1}


@dataclasses.dataclass(frozen=True)
class Padding:
    """How rows are padded.

    Attributes
    ----------
    length : int or None
        The least length of a row; None: that of the longest one.
    multiple : int or None
        What the length is a multiple of.
    side : str
        Where the pad tokens stand.
    pads : bool
        Whether rows are padded at all.
    """

    length: int | None = None
    multiple: int | None = None
    side: str = "right"
    pads: bool = True


def choose_padding(
    tokenizer: Tokenizer,
    truncation: Truncation,
    *,
    padding: bool | PaddingStrategy | None = None,
    max_length: int | None = None,
    multiple: int | None = None,
    side: Side | None = None,
) -> Padding:
    """Check the arguments of `encode` that say how rows are padded, and fill in what the tokenizer is set to.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer, whose own padding stands where the call says nothing.
    truncation : Truncation
        How rows are cut.
    padding, max_length, multiple, side
        The arguments of `encode`; `multiple` is its `pad_to_multiple_of`, `side` its `padding_side`.

    Returns
    -------
    Padding
        How rows are padded.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong; the message names it.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> choose_padding(load_tokenizer(), Truncation(), padding="max_length", max_length=8, side="left")
    Padding(length=8, multiple=None, side='left', pads=True)
    """
    own: dict[str, Any] = tokenizer.padding or {}
    if padding is not None and not isinstance(padding, bool):
        check_choice("padding", padding, STRATEGIES, "a bool, None, ")
    multiple = own.get("pad_to_multiple_of") or None if multiple is None else multiple
    if multiple is not None:
        multiple = check_integer("pad_to_multiple_of", multiple, least=1)
    chosen_side = check_choice("padding_side", own.get("direction", "right") if side is None else side, SIDES)
    if padding in (False, "do_not_pad"):
        return Padding(pads=False)
    length = own.get("length")
    if padding == "max_length":
        length = next((found for found in (max_length, length, truncation.max_length) if found is not None), None)
        if length is None:
            raise ValueError("max_length: expected an int, because padding is 'max_length', got None")
        length = check_integer("max_length", length, least=0)
    elif padding is not None:
        length = None
    if multiple and truncation.max_length is not None and truncation.max_length % multiple:
        raise ValueError(
            f"pad_to_multiple_of: expected a divisor of max_length, {truncation.max_length}, because rows are cut "
            f"to it, got {multiple}"
        )
    return Padding(length, multiple, chosen_side)


def padded_length(padding: Padding, lengths: Sequence[int], longest: int) -> int:
    """Compute the length of all rows.

    Parameters
    ----------
    padding : Padding
        How rows are padded.
    lengths : sequence of int
        The length of each row.
    longest : int
        The length of the longest one; windows of what was cut off do not count.

    Returns
    -------
    int
        The length.

    Raises
    ------
    ValueError
        Rows have several lengths, so that they make no array.

    Examples
    --------
    >>> padded_length(Padding(multiple=8), [5, 9], 9)
    16
    """
    if padding.pads:
        length = longest if padding.length is None else padding.length
        length += -length % (padding.multiple or 1)
    else:
        length = lengths[0]
    lengths = [max(own, length) for own in lengths] if padding.pads else lengths
    least, most = min(lengths), max(lengths)
    if least < most:
        raise ValueError(
            f"padding: expected rows of one length, which make an array, got rows of {least} to {most} tokens; "
            "padding=True pads to the longest, truncation and max_length cut"
        )
    return most


def pad_rows(
    tokenizer: Tokenizer, columns: dict[str, list[np.ndarray]], padding: Padding, longest: int
) -> dict[str, np.ndarray]:
    """Stack rows into arrays of one length, and make the attention mask.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer, which says what the pad token is.
    columns : dict of str to list of (L,) or (L, 2) array
        Under each name what it holds for each row.
    padding : Padding
        How rows are padded.
    longest : int
        The length of the longest row; windows of what was cut off do not count.

    Returns
    -------
    dict of str to (B, L) or (B, L, 2) int64 array
        The arrays.

    Raises
    ------
    ValueError
        Rows have several lengths; or they must be padded and the tokenizer has no pad token.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> rows = [np.array([2, 318, 3]), np.array([2, 3])]
    >>> pad_rows(load_tokenizer(), {"input_ids": rows}, Padding(side="left"), 3)["input_ids"]
    array([[  2, 318,   3],
           [  0,   2,   3]])
    """
    lengths = np.array([len(row) for row in columns["input_ids"]])
    length = padded_length(padding, lengths.tolist(), longest)
    own = np.arange(length) < lengths[:, None]  # (B, L)
    if padding.side == "left":
        own = own[:, ::-1]
    arrays = {}
    for name, rows in columns.items():
        fill = 0 if own.all() else _fill(tokenizer, name)
        arrays[name] = np.full(own.shape + rows[0].shape[1:], fill, np.int64)
        arrays[name][own] = np.concatenate(rows)
        if name == "input_ids":
            arrays["attention_mask"] = own.astype(np.int64)
    return arrays


def _fill(tokenizer: Tokenizer, name: str) -> int:
    """Return what stands in a padded place of an array."""
    if name not in ("input_ids", "token_type_ids"):
        return FILL[name]
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id" if name == "input_ids" else "pad_type_id"])
    if name == "token_type_ids":
        return 0
    pad_id: int | None = tokenizer.token_to_id("[PAD]")
    if pad_id is None:
        raise ValueError("tokenizer: expected a [PAD] to fill short rows; name one with enable_padding")
    return pad_id
