"""Which tokens of a row remain where it is too long, and the windows that hold the others.

The library's own truncation is not used, because it also builds an encoding of everything that it cuts off: for a pair,
one for every combination of the two texts' parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nezha_np.checks import check_integer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NO_LENGTH = (
    2**62
)  # that a tokenizer is set to be cut at, where it has a side alone: the library knows no side without one
STRATEGIES = ("longest_first", "only_first", "only_second", "do_not_truncate")
SIDES = ("right", "left")
Strategy = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]
Side = Literal["right", "left"]


@dataclasses.dataclass(frozen=True)
class Truncation:
    """How rows are cut.

    Attributes
    ----------
    strategy : str
        Which text of a pair loses tokens, one of `STRATEGIES`.
    max_length : int or None
        The largest number of tokens in a row, special tokens included; None: no row is cut.
    stride : int
        How many tokens two neighbouring windows of a text share.
    side : str
        Where a text loses tokens.
    """

    strategy: str = "do_not_truncate"
    max_length: int | None = None
    stride: int = 0
    side: str = "right"


def choose_truncation(
    tokenizer: Tokenizer,
    pair: bool,
    special: bool,
    *,
    truncation: bool | Strategy | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    side: Side | None = None,
) -> Truncation:
    """Check the arguments of `encode` that say how rows are cut, and fill in what the tokenizer is set to.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer, whose own truncation stands where the call says nothing.
    pair : bool
        Whether there are second texts.
    special : bool
        Whether special tokens are added.
    truncation, max_length, stride, side
        The arguments of `encode`; `side` is its `truncation_side`.

    Returns
    -------
    Truncation
        How rows are cut.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong; the message names it.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> choose_truncation(tokenizer, False, True, max_length=8)
    Truncation(strategy='longest_first', max_length=8, stride=0, side='right')
    >>> tokenizer.enable_truncation(16, stride=2, direction="left")
    >>> choose_truncation(tokenizer, False, True, stride=3)
    Truncation(strategy='longest_first', max_length=16, stride=3, side='left')
    """
    own = own_truncation(tokenizer)
    if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int | np.integer)):
        raise TypeError(f"max_length: expected an int or None, got {type(max_length).__name__}")
    if truncation is not None and not isinstance(truncation, bool):
        check_choice("truncation", truncation, STRATEGIES, "a bool, None, ")
    stride = check_integer("stride", own.get("stride", 0) if stride is None else stride, least=0)
    chosen_side = check_choice("truncation_side", own.get("direction", "right") if side is None else side, SIDES)
    length = own.get("max_length") if max_length is None else int(max_length)
    if truncation is None:
        strategy: str = own.get("strategy", "do_not_truncate" if length is None else "longest_first")
    elif isinstance(truncation, bool):
        strategy = "longest_first" if truncation else "do_not_truncate"
    else:
        strategy = truncation
    if strategy == "do_not_truncate":
        return Truncation()
    if length is None:
        raise ValueError(f"max_length: expected an int, because truncation is {truncation!r}, got None")
    if length < (added := tokenizer.num_special_tokens_to_add(pair) if special else 0):
        raise ValueError(f"max_length: expected at least {added}, the special tokens, got {length}")
    # As the reference does, which counts the special tokens of one text, whatever is encoded.
    most = length - tokenizer.num_special_tokens_to_add(False)
    if stride > most >= 0:
        raise ValueError(f"stride: expected at most {most}, max_length without the special tokens, got {stride}")
    return Truncation(strategy, length, stride, chosen_side)


def own_truncation(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what a tokenizer is set to: its direction alone where it is cut at no length.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.

    Returns
    -------
    dict
        Its `truncation`.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> tokenizer.enable_truncation(NO_LENGTH, direction="left")
    >>> own_truncation(tokenizer)
    {'direction': 'left'}
    """
    own: dict[str, Any] = tokenizer.truncation or {}
    return {"direction": own["direction"]} if own.get("max_length") == NO_LENGTH else own


def check_choice(name: str, value: object, choices: Sequence[str], others: str = "") -> str:
    """Check that an argument is one of some names.

    Parameters
    ----------
    name : str
        The argument's name.
    value : object
        The argument.
    choices : sequence of str
        The names.
    others : str
        What it may be besides.

    Returns
    -------
    str
        The argument.

    Raises
    ------
    TypeError, ValueError
        It is none of them.

    Examples
    --------
    >>> check_choice("padding_side", "middle", ("right", "left"))
    Traceback (most recent call last):
    ...
    ValueError: padding_side: expected 'right' or 'left', got 'middle'
    """
    listed = others + " or ".join(map(repr, choices))
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected {listed}, got {type(value).__name__}")
    if value not in choices:
        raise ValueError(f"{name}: expected {listed}, got {value!r}")
    return value


def cut_row(sequence_ids: np.ndarray, truncation: Truncation, name: str, *, overflow: bool) -> list[np.ndarray]:
    """Cut a row that is longer than `max_length`.

    Parameters
    ----------
    sequence_ids : (L,) array of int
        Which text each token belongs to: 0, 1, or -1 for an added token. A special token that is written in a text
        belongs to that text, and may be cut.
    truncation : Truncation
        How it is cut.
    name : str
        What to call the row in an error.
    overflow : bool
        Whether windows of what is cut off follow.

    Returns
    -------
    list of array of int
        The positions of the tokens of each window, in the library's order: what remains of the row; each further part
        of the first text with each part of the second; the first part of the first with the further ones of the
        second.

    Raises
    ------
    ValueError
        The text that is to be cut is too short for it; or the stride is as long as a window.

    Examples
    --------
    >>> row = np.array([-1, 0, 0, 0, 0, 0, -1])
    >>> [window.tolist() for window in cut_row(row, Truncation("only_first", 5, 1), "texts[0]", overflow=True)]
    [[0, 1, 2, 3, 6], [0, 3, 4, 5, 6]]
    """
    added, first, second = (np.flatnonzero(sequence_ids == which) for which in (-1, 0, 1))
    assert truncation.max_length is not None
    room = truncation.max_length - len(added)
    keep = _lengths(len(first), len(second), room, truncation.strategy, name)
    parts = [
        [text[start:stop] for start, stop in _parts(len(text), most, truncation, name)]
        for text, most in zip((first, second), keep, strict=True)
    ]
    chosen = [(parts[0][0], parts[1][0])]
    if overflow:
        chosen += [(one, other) for one in parts[0][1:] for other in parts[1]]
        chosen += [(parts[0][0], other) for other in parts[1][1:]]
    return [np.sort(np.concatenate([added, one, other])) for one, other in chosen]


def _lengths(first: int, second: int, room: int, strategy: str, name: str) -> tuple[int, int]:
    """Say how many tokens of each text of a row remain, as the library does."""
    if room == 0:
        return 0, 0
    if strategy == "longest_first":
        shorter = min(first, second, room // 2)
        longer = room - shorter
        return (longer, shorter) if first > second else (shorter, longer)
    remain = room - second if strategy == "only_first" else room - first
    if remain <= 0 or (strategy == "only_second" and not second):
        which = "first" if strategy == "only_first" else "second"
        raise ValueError(
            f"truncation: expected a {which} text that can lose all that is too much, because {strategy!r} cuts no "
            f"other, got {name} with {first} and {second} tokens, and room for {room}"
        )
    return (remain, second) if strategy == "only_first" else (first, remain)


def _parts(length: int, most: int, truncation: Truncation, name: str) -> list[tuple[int, int]]:
    """Divide a text into parts of `most` tokens, beginning where it is not cut."""
    if most >= length:
        return [(0, length)]
    if most == 0:  # the library gives the whole text as what is cut off
        return [(0, 0), (0, length)]
    if truncation.stride >= most:
        raise ValueError(
            f"stride: expected less than {most}, the tokens of a window of {name} without the special tokens and the "
            f"other text, got {truncation.stride}"
        )
    step = most - truncation.stride
    if truncation.side == "right":
        starts = range(0, length - truncation.stride, step)
        return [(start, min(start + most, length)) for start in starts]
    stops = range(length, truncation.stride, -step)
    return [(max(stop - most, 0), stop) for stop in stops]
