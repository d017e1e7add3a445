"""From texts to arrays: padded batches of token ids, and which ids are special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.arrays import is_array, to_numpy
from nezha_np.text.long_texts import PIECE, encode_in_pieces, find_boundaries

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


def encode(
    tokenizer: Tokenizer,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None = None,
    *,
    max_length: int | None = None,
) -> dict[str, np.ndarray]:
    """Turn texts into the arrays that `forward` takes: ``nz.forward(weights, **encode(tokenizer, texts))``.

    The tokenizer's own truncation and padding have no effect, and the tokenizer is never changed, so that threads may
    share it. (A tokenizer that has such settings is copied in each call, which takes a few milliseconds.)

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Its pad token is the one that its own padding is set to, else ``[PAD]``.
    texts : str or list of str
        B texts; one str is a batch of one.
    pairs : str or list of str, optional
        B second texts, one for each of the first.
    max_length : int, optional
        The largest number of tokens in a row, special tokens included. Longer texts lose tokens at their ends; of a
        pair, the longer text is cut to the length of the shorter, then both alike (the reference's 'longest_first').
        None: no text is cut.

    Returns
    -------
    dict of (B, L) int64 arrays
        ``input_ids``; ``attention_mask``, 1 for tokens and 0 for padding; ``token_type_ids``, 1 for the tokens of the
        second text and the ``[SEP]`` after it, else 0. L is the length of the longest row; the others are padded on
        the right.

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        There are no texts, or not as many pairs as texts; a text has a lone surrogate; `max_length` has no room for
        the special tokens; or rows must be padded and the tokenizer has no pad token.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> batch = encode(load_tokenizer(), ["你好", "好"], ["好", "好"])
    >>> batch["input_ids"]
    array([[   2,  318, 1161,    3, 1161,    3],
           [   2, 1161,    3, 1161,    3,    0]])
    >>> batch["token_type_ids"]
    array([[0, 0, 0, 0, 1, 1],
           [0, 0, 0, 1, 1, 0]])
    """
    check_tokenizer(tokenizer)
    first_texts = _check_texts("texts", texts)
    second_texts = None if pairs is None else _check_texts("pairs", pairs)
    if second_texts is not None and len(second_texts) != len(first_texts):
        raise ValueError(f"pairs: expected one for each of the {len(first_texts)} texts, got {len(second_texts)}")
    _check_max_length(max_length, tokenizer.num_special_tokens_to_add(second_texts is not None))

    inputs: list[Any] = first_texts if second_texts is None else list(zip(first_texts, second_texts, strict=True))
    return encode_and_cut(tokenizer, inputs, max_length)[0]


def encode_and_cut(
    tokenizer: Tokenizer, inputs: list[Any], max_length: int | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Turn texts into arrays, and say which of them are cut; `encode` describes the arguments and checks them.

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
    plain = without_truncation_and_padding(tokenizer)
    rows: dict[int, tuple[np.ndarray, np.ndarray, bool]] = {}  # ids, type ids, and whether tokens are lost
    long = [row for row, text in enumerate(inputs) if isinstance(text, str) and len(text) > PIECE]
    if long and (boundaries := find_boundaries(plain)) is not None:
        rows = {row: encode_in_pieces(plain, inputs[row], boundaries, max_length) for row in long}
    others = [row for row in range(len(inputs)) if row not in rows]
    for row, encoding in zip(others, plain.encode_batch([inputs[row] for row in others]), strict=True):
        positions = _truncate(encoding, max_length)
        ids, type_ids = (np.array(values, np.int64)[positions] for values in (encoding.ids, encoding.type_ids))
        rows[row] = ids, type_ids, len(positions) < len(encoding)
    lengths = np.array([len(rows[row][0]) for row in range(len(inputs))])
    attention_mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)  # (B, L)
    input_ids = np.full_like(attention_mask, 0 if attention_mask.all() else _pad_id(tokenizer))
    token_type_ids = np.zeros_like(attention_mask)
    for row, (ids, type_ids, _) in rows.items():
        input_ids[row, : len(ids)] = ids
        token_type_ids[row, : len(ids)] = type_ids
    batch = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
    return batch, np.array([rows[row][2] for row in range(len(inputs))])


def get_special_tokens_mask(
    tokenizer: Tokenizer,
    token_ids_0: Any,
    token_ids_1: Any = None,
    already_has_special_tokens: bool = False,
) -> np.ndarray:
    """Mark the special tokens of a row of ids: 1 for a special token, 0 for a token of a text.

    The reference is PreTrainedTokenizer.get_special_tokens_mask.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer that the ids belong to.
    token_ids_0 : array of integers or list of int
        The ids of a text without special tokens, (L,). With `already_has_special_tokens`: ids of any shape, such as
        ``input_ids`` from `encode`.
    token_ids_1 : array of integers or list of int, optional
        The ids of the second text of a pair, (L2,).
    already_has_special_tokens : bool
        False: the mask is that of the row ``[CLS] A [SEP]`` or ``[CLS] A [SEP] B [SEP]`` which is made of the texts;
        only the number of ids matters. True: each id is looked up, so that ``[PAD]``, ``[MASK]``, ``[UNK]`` and added
        special tokens are marked too.

    Returns
    -------
    int64 array
        (L + 2,), for a pair (L + L2 + 3,); with `already_has_special_tokens`, the shape of `token_ids_0`.

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        The ids have a wrong shape; `token_ids_1` comes with `already_has_special_tokens`; or the tokenizer does not
        make rows like ``[CLS] A [SEP] B [SEP]``.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> get_special_tokens_mask(tokenizer, [318, 1161], [1161])
    array([1, 0, 0, 1, 0, 1])
    >>> batch = encode(tokenizer, ["你好", "好"])
    >>> get_special_tokens_mask(tokenizer, batch["input_ids"], already_has_special_tokens=True)
    array([[1, 0, 0, 1],
           [1, 0, 1, 1]])
    """
    check_tokenizer(tokenizer)
    if not isinstance(already_has_special_tokens, bool):
        got = type(already_has_special_tokens).__name__
        raise TypeError(f"already_has_special_tokens: expected a bool, got {got}")
    first_ids = check_ids("token_ids_0", token_ids_0)
    second_ids = None if token_ids_1 is None else check_ids("token_ids_1", token_ids_1)
    if already_has_special_tokens:
        if second_ids is not None:
            raise ValueError("token_ids_1: expected None, since token_ids_0 already has special tokens, got ids")
        special = [id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special]
        return np.isin(first_ids, special).astype(np.int64)
    mask = [1]
    for name, ids in (("token_ids_0", first_ids), ("token_ids_1", second_ids)):
        if ids is not None:
            if ids.ndim != 1:
                raise ValueError(f"{name}: expected shape (L,), got {ids.shape}")
            mask += [0] * len(ids) + [1]
    if (added := tokenizer.num_special_tokens_to_add(second_ids is not None)) != 2 + (second_ids is not None):
        raise ValueError(f"tokenizer: expected one that adds [CLS] A [SEP] B [SEP], got one that adds {added} tokens")
    return np.array(mask, dtype=np.int64)


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


def _check_texts(name: str, value: str | Sequence[str]) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        raise TypeError(f"{name}: expected a str or a list of str, got {type(value).__name__}")
    if not texts:
        raise ValueError(f"{name}: expected at least one text, got an empty list")
    for index, text in enumerate(texts):
        check_text(f"{name}[{index}]", text)
    return list(texts)


def _check_max_length(max_length: int | None, special: int) -> None:
    if max_length is None:
        return
    if isinstance(max_length, bool) or not isinstance(max_length, int | np.integer):
        raise TypeError(f"max_length: expected an int or None, got {type(max_length).__name__}")
    if max_length < special:
        raise ValueError(f"max_length: expected at least {special}, the special tokens, got {max_length}")


def _truncate(encoding: Encoding, max_length: int | None) -> np.ndarray:
    """Return the positions of the tokens that remain in a row, as the library's 'longest_first' truncation leaves them.

    The library's own truncation is not used, because it also builds an encoding of everything that it cuts off; for a
    pair, one for every combination of the two texts' parts.
    """
    if max_length is None or len(encoding) <= max_length:
        return np.arange(len(encoding))
    # A special token that is written in a text belongs to that text, and may be cut.
    added, first, second = (
        [position for position, sequence in enumerate(encoding.sequence_ids) if sequence == wanted]
        for wanted in (None, 0, 1)
    )
    room = max_length - len(added)
    shorter = min(len(first), len(second), room // 2)
    longer = room - shorter
    first_length, second_length = (longer, shorter) if len(first) > len(second) else (shorter, longer)
    return np.sort(added + first[:first_length] + second[:second_length])


def _pad_id(tokenizer: Tokenizer) -> int:
    pad_id: int | None = tokenizer.padding["pad_id"] if tokenizer.padding else tokenizer.token_to_id("[PAD]")
    if pad_id is None:
        raise ValueError("tokenizer: expected a [PAD] to fill short rows; name one with enable_padding")
    return pad_id
