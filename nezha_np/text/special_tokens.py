"""The special tokens of rows of ids: adding them, their token types, and which ids they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.text.encode import check_ids, check_tokenizer
from nezha_np.text.rows import without_truncation_and_padding

if TYPE_CHECKING:
    from tokenizers import Tokenizer


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
    >>> from nezha_np.text.encode import encode
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
    if already_has_special_tokens:
        if token_ids_1 is not None:
            raise ValueError("token_ids_1: expected None, since token_ids_0 already has special tokens, got ids")
        special = [id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special]
        return np.isin(check_ids("token_ids_0", token_ids_0), special).astype(np.int64)
    mask = [1]
    for ids in _check_texts(tokenizer, token_ids_0, token_ids_1):
        mask += [0] * len(ids) + [1]
    return np.array(mask, dtype=np.int64)


def build_inputs_with_special_tokens(tokenizer: Tokenizer, token_ids_0: Any, token_ids_1: Any = None) -> np.ndarray:
    """Put the special tokens around the ids of a text, or of a pair of texts.

    The reference is BertTokenizerFast.build_inputs_with_special_tokens.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer that the ids belong to.
    token_ids_0 : array of integers or list of int
        The ids of a text without special tokens, (L,).
    token_ids_1 : array of integers or list of int, optional
        The ids of the second text of a pair, (L2,).

    Returns
    -------
    int64 array
        ``[CLS] A [SEP]``, (L + 2,), or ``[CLS] A [SEP] B [SEP]``, (L + L2 + 3,).

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        The ids have a wrong shape; or the tokenizer does not make rows like ``[CLS] A [SEP] B [SEP]``.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> build_inputs_with_special_tokens(load_tokenizer(), [318, 1161], [1161])
    array([   2,  318, 1161,    3, 1161,    3])
    """
    check_tokenizer(tokenizer)
    texts = _check_texts(tokenizer, token_ids_0, token_ids_1)
    first, *ends = without_truncation_and_padding(tokenizer).encode(*[""] * len(texts)).ids
    row = [np.array([first])]
    for ids, end in zip(texts, ends, strict=True):
        row += [ids, np.array([end])]
    return np.concatenate(row).astype(np.int64)


def create_token_type_ids_from_sequences(tokenizer: Tokenizer, token_ids_0: Any, token_ids_1: Any = None) -> np.ndarray:
    """Make the token types of the row that `build_inputs_with_special_tokens` makes: 0, from the second text on 1.

    The reference is BertTokenizerFast.create_token_type_ids_from_sequences.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer that the ids belong to.
    token_ids_0 : array of integers or list of int
        The ids of a text without special tokens, (L,); only their number matters.
    token_ids_1 : array of integers or list of int, optional
        The ids of the second text of a pair, (L2,).

    Returns
    -------
    int64 array
        (L + 2,), for a pair (L + L2 + 3,).

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        The ids have a wrong shape; or the tokenizer does not make rows like ``[CLS] A [SEP] B [SEP]``.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> create_token_type_ids_from_sequences(load_tokenizer(), [318, 1161], [1161])
    array([0, 0, 0, 0, 1, 1])
    """
    check_tokenizer(tokenizer)
    first, *second = _check_texts(tokenizer, token_ids_0, token_ids_1)
    return np.repeat(np.arange(2), [len(first) + 2, sum(len(ids) + 1 for ids in second)])


def _check_texts(tokenizer: Tokenizer, token_ids_0: Any, token_ids_1: Any) -> list[np.ndarray]:
    """Check the ids of a text or a pair of texts, and that [CLS] stands before them and a [SEP] after each."""
    given = {"token_ids_0": token_ids_0} | ({} if token_ids_1 is None else {"token_ids_1": token_ids_1})
    texts = {name: check_ids(name, value) for name, value in given.items()}
    for name, ids in texts.items():
        if ids.ndim != 1:
            raise ValueError(f"{name}: expected shape (L,), got {ids.shape}")
    if (added := tokenizer.num_special_tokens_to_add(len(texts) == 2)) != 1 + len(texts):
        raise ValueError(f"tokenizer: expected one that adds [CLS] A [SEP] B [SEP], got one that adds {added} tokens")
    return list(texts.values())
