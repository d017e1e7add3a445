"""From texts to arrays: batches of token ids, cut and padded."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

import numpy as np

from nezha_np.arrays import is_array, to_numpy
from nezha_np.checks import check_switches
from nezha_np.text.batch import Batch, DescribedBatch, Settings, SettingsOfMore, Texts
from nezha_np.text.padding import Padding, PaddingStrategy, choose_padding
from nezha_np.text.rows import encode_rows
from nezha_np.text.truncation import Side, Strategy, choose_truncation

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@overload
def encode(tokenizer: Tokenizer, texts: Texts, pairs: Texts | None = None, **settings: Unpack[Settings]) -> Batch: ...


@overload
def encode(
    tokenizer: Tokenizer, texts: Texts, pairs: Texts | None = None, **settings: Unpack[SettingsOfMore]
) -> DescribedBatch: ...


def encode(
    tokenizer: Tokenizer,
    texts: Texts,
    pairs: Texts | None = None,
    *,
    max_length: int | None = None,
    padding: bool | PaddingStrategy | None = None,
    pad_to_multiple_of: int | None = None,
    padding_side: Side | None = None,
    truncation: bool | Strategy | None = None,
    truncation_side: Side | None = None,
    stride: int | None = None,
    is_split_into_words: bool = False,
    add_special_tokens: bool = True,
    return_overflowing_tokens: bool = False,
    return_offsets_mapping: bool = False,
    return_special_tokens_mask: bool = False,
    return_word_ids: bool = False,
    return_sequence_ids: bool = False,
) -> Batch | DescribedBatch:
    """Turn texts into the arrays that `forward` takes: ``nz.forward(weights, **encode(tokenizer, texts))``.

    The arguments are those of the reference's fast tokenizers, and so are the numbers. None means what the tokenizer is
    set to (``enable_truncation``, ``enable_padding``), else what is named below. The tokenizer is never changed, so
    that threads may share it. (One that has such settings is copied in each call, which takes a few milliseconds.)

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Its pad token is the one that its own padding is set to, else ``[PAD]``.
    texts : str or list of str
        B texts; one str is a batch of one. With `is_split_into_words`: lists of words, or one such list.
    pairs : str or list of str, optional
        B second texts, one for each of the first.
    max_length : int, optional
        The largest number of tokens in a row, special tokens included. None: no text is cut.
    padding : bool or {"longest", "max_length", "do_not_pad"}, optional
        To which length rows are padded; True is "longest", and so is None. False is "do_not_pad": the rows must be of
        one length already, because the result is always arrays.
    pad_to_multiple_of : int, optional
        The length of padded rows is rounded up to a multiple of this.
    padding_side : {"right", "left"}, optional
        Where the pad tokens stand. None: where the tokenizer's files say, else on the right.
    truncation : bool or {"longest_first", "only_first", "only_second", "do_not_truncate"}, optional
        What is cut where a row is longer than `max_length`. True is "longest_first": of a pair, the longer text is cut
        to the length of the shorter, then both alike. None is that too, where there is a `max_length`. False is
        "do_not_truncate".
    truncation_side : {"right", "left"}, optional
        The side on which a text loses tokens. None: the one that the tokenizer's files name, else the right.
    stride : int, optional
        How many tokens two neighbouring windows of a text share. None: 0.
    is_split_into_words : bool
        Whether the texts are lists of words. Offsets are then those in the word.
    add_special_tokens : bool
        Whether ``[CLS]`` and ``[SEP]`` are added.
    return_overflowing_tokens : bool
        Whether what is cut off follows in further rows, as windows of at most `max_length` tokens; and whether
        ``overflow_to_sample_mapping`` is returned.
    return_offsets_mapping, return_special_tokens_mask, return_word_ids, return_sequence_ids : bool
        Whether ``offset_mapping``, ``special_tokens_mask``, ``word_ids`` or ``sequence_ids`` is returned.

    Returns
    -------
    dict of (B, L) int64 arrays
        ``input_ids``; ``attention_mask``, 1 for tokens and 0 for padding; ``token_type_ids``, 1 for the tokens of the
        second text and the ``[SEP]`` after it, else 0. L is the length of the longest row; the others are padded.

        Where it is asked for also: ``offset_mapping``, (B, L, 2), where the characters of a token begin and end in its
        text, 0 and 0 for special tokens and padding; ``special_tokens_mask``, 1 for tokens that were added, padding
        too; ``word_ids``, the word of its text that a token belongs to, and ``sequence_ids``, 0 or 1 for its text,
        both -1 for special tokens and padding; ``overflow_to_sample_mapping``, (B,), the text that each row is a part
        of. `forward` does not take these: ``batch.pop("offset_mapping")``.

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        There are no texts, or not as many pairs as texts; a text has a lone surrogate; `max_length` has no room for
        the special tokens, or is missing where rows are cut or padded to it; a text is too short to lose all that is
        too much; `stride` is as long as a window; rows are of several lengths and not padded; or rows must be padded
        and the tokenizer has no pad token.

    Warns
    -----
    UserWarning
        `max_length` has no effect, because rows are neither cut nor padded to it.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> batch = encode(tokenizer, ["你好", "好"], ["好", "好"])
    >>> batch["input_ids"]
    array([[   2,  318, 1161,    3, 1161,    3],
           [   2, 1161,    3, 1161,    3,    0]])
    >>> batch["token_type_ids"]
    array([[0, 0, 0, 0, 1, 1],
           [0, 0, 0, 1, 1, 0]])
    >>> batch = encode(
    ...     tokenizer, "房间很干净", max_length=5, stride=1, return_overflowing_tokens=True, return_offsets_mapping=True
    ... )
    >>> batch["offset_mapping"][:, :, 0]
    array([[0, 0, 1, 2, 0],
           [0, 2, 3, 4, 0]])
    """
    check_tokenizer(tokenizer)
    check_switches(
        is_split_into_words=is_split_into_words,
        add_special_tokens=add_special_tokens,
        return_overflowing_tokens=return_overflowing_tokens,
        return_offsets_mapping=return_offsets_mapping,
        return_special_tokens_mask=return_special_tokens_mask,
        return_word_ids=return_word_ids,
        return_sequence_ids=return_sequence_ids,
    )
    inputs = _check_inputs(texts, pairs, is_split_into_words)
    cut = choose_truncation(
        tokenizer,
        pairs is not None,
        add_special_tokens,
        truncation=truncation,
        max_length=max_length,
        stride=stride,
        side=truncation_side,
    )
    padded = choose_padding(
        tokenizer, cut, padding=padding, max_length=max_length, multiple=pad_to_multiple_of, side=padding_side
    )
    if max_length is not None and cut.max_length is None and padding != "max_length":
        warnings.warn("max_length has no effect: rows are neither cut nor padded to it", stacklevel=2)
    extras = {
        "offset_mapping": return_offsets_mapping,
        "special_tokens_mask": return_special_tokens_mask,
        "word_ids": return_word_ids,
        "sequence_ids": return_sequence_ids,
    }
    arrays, samples, _ = encode_rows(
        tokenizer,
        inputs,
        cut,
        padded,
        [name for name, wanted in extras.items() if wanted],
        special=add_special_tokens,
        words=is_split_into_words,
        overflow=return_overflowing_tokens,
    )
    if return_overflowing_tokens:
        arrays["overflow_to_sample_mapping"] = samples
    return cast(DescribedBatch, arrays)


def encode_and_cut(
    tokenizer: Tokenizer, inputs: list[Any], max_length: int | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Turn texts into arrays that are padded on the right, and say which of them are cut.

    `encode` describes the arguments and checks them.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.
    inputs : list of str, or list of tuple of str
        B texts, or B pairs of texts.
    max_length : int or None
        The largest number of tokens in a row.

    Returns
    -------
    batch : dict of (B, L) int64 arrays
        What `encode` returns.
    cut : (B,) bool array
        Whether a row has lost tokens.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> batch, cut = encode_and_cut(load_tokenizer(), ["你好", "好"], 3)
    >>> batch["input_ids"].shape, cut
    ((2, 3), array([ True, False]))
    """
    pair = isinstance(inputs[0], tuple)
    truncation = choose_truncation(tokenizer, pair, True, max_length=max_length, stride=0)
    arrays, _, cut = encode_rows(tokenizer, inputs, truncation, Padding())
    return arrays, cut


def check_tokenizer(tokenizer: Any) -> None:
    """Check that an argument is a tokenizer.

    Parameters
    ----------
    tokenizer : object
        The argument.

    Raises
    ------
    TypeError
        It is not a tokenizers.Tokenizer.

    Examples
    --------
    >>> check_tokenizer("vocab.txt")
    Traceback (most recent call last):
    ...
    TypeError: tokenizer: expected a tokenizers.Tokenizer, got str
    """
    from tokenizers import Tokenizer

    if not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"tokenizer: expected a tokenizers.Tokenizer, got {type(tokenizer).__name__}")


def check_text(name: str, text: Any) -> None:
    """Check one text.

    Parameters
    ----------
    name : str
        What to call the text in an error.
    text : object
        The argument.

    Raises
    ------
    TypeError
        It is not a str.
    ValueError
        It has a lone surrogate, so that it is not valid Unicode.

    Examples
    --------
    >>> check_text("texts[3]", 5)
    Traceback (most recent call last):
    ...
    TypeError: texts[3]: expected a str, got int
    """
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a str, got {type(text).__name__}")
    try:  # versions of the tokenizers library differ in what they make of a lone surrogate
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: expected valid Unicode: {error}") from error


def check_ids(name: str, value: Any) -> np.ndarray:
    """Check token ids.

    Parameters
    ----------
    name : str
        What to call the ids in an error.
    value : array of integers, of any library, list of int, or int
        The ids.

    Returns
    -------
    array
        The ids, as NumPy's array.

    Raises
    ------
    TypeError
        They are not integers.
    ValueError
        They are rows of different lengths.

    Examples
    --------
    >>> check_ids("ids", [2, 3])
    array([2, 3])
    """
    try:
        ids = to_numpy(value) if is_array(value) else np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected rows of one length: {error}") from error
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {ids.dtype if ids.ndim else type(value).__name__}")
    return ids


def _check_inputs(texts: Any, pairs: Any, words: bool) -> list[Any]:
    """Check texts and pairs, and put them into the library's form."""
    first_texts = _check_texts("texts", texts, words)
    if pairs is None:
        return first_texts
    second_texts = _check_texts("pairs", pairs, words)
    if len(second_texts) != len(first_texts):
        raise ValueError(f"pairs: expected one for each of the {len(first_texts)} texts, got {len(second_texts)}")
    return list(zip(first_texts, second_texts, strict=True))


def _check_texts(name: str, value: Any, words: bool) -> list[Any]:
    expected = "a list of words or a list of such lists" if words else "a str or a list of str"
    if not isinstance(value, list | tuple) and (words or not isinstance(value, str)):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    if not value and not isinstance(value, str):
        raise ValueError(f"{name}: expected at least one text, got an empty list")
    one = isinstance(value, str) or (words and isinstance(value[0], str))
    texts = [value] if one else list(value)
    for index, text in enumerate(texts):
        if not words:
            check_text(f"{name}[{index}]", text)
            continue
        if not isinstance(text, list | tuple):
            raise TypeError(f"{name}[{index}]: expected a list of words, got {type(text).__name__}")
        for place, word in enumerate(text):
            check_text(f"{name}[{place}]" if one else f"{name}[{index}][{place}]", word)
    return [list(text) for text in texts] if words else texts
