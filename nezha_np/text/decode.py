"""From token ids back to text.

The pieces of a word are joined, words are joined by a space, and then the spaces of English are cleaned up:
"isn ' t it ?" becomes "isn't it?".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nezha_np.text.encode import check_ids, check_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What is replaced, in this order: PreTrainedTokenizerBase.clean_up_tokenization of the reference.
SPACES = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
LARGEST_ID = 2**32 - 1  # ids are of 32 bits in the tokenizers library


def decode(
    tokenizer: Tokenizer,
    ids: Any,
    *,
    skip_special_tokens: bool = False,
    clean_up_tokenization_spaces: bool | None = None,
) -> str:
    """Turn the ids of one row into a text, as the reference's ``tokenizer.decode`` does.

    What `encode` drops does not come back: capital letters, accents, spaces between Chinese characters.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer that the ids belong to.
    ids : array of integers or list of int
        The ids, (L,); or one id. An id that belongs to no token is left out.
    skip_special_tokens : bool
        Whether special tokens, such as ``[CLS]``, ``[SEP]`` and ``[PAD]``, are left out.
    clean_up_tokenization_spaces : bool, optional
        Whether spaces before punctuation and within English contractions are removed. None: what
        tokenizer_config.json says, which `load_tokenizer` keeps; else True.

    Returns
    -------
    str
        The text.

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        The ids have a wrong shape, or one is negative.

    Examples
    --------
    >>> from nezha_np.text.encode import encode
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> row = encode(tokenizer, ["OK , it's good"])["input_ids"][0]
    >>> decode(tokenizer, row)
    "[CLS] ok, it's good [SEP]"
    >>> decode(tokenizer, row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    "ok, it ' s good"
    """
    return _decode_rows(tokenizer, {"ids": ids}, skip_special_tokens, clean_up_tokenization_spaces)[0]


def batch_decode(
    tokenizer: Tokenizer,
    rows: Any,
    *,
    skip_special_tokens: bool = False,
    clean_up_tokenization_spaces: bool | None = None,
) -> list[str]:
    """Turn rows of ids into texts, as the reference's ``tokenizer.batch_decode`` does.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer that the ids belong to.
    rows : array of integers or list of rows
        The ids, (B, L), such as ``input_ids`` from `encode`; or B rows of different lengths.
    skip_special_tokens, clean_up_tokenization_spaces : bool
        Those of `decode`.

    Returns
    -------
    list of str
        The text of each row.

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        A row has a wrong shape, or an id is negative.

    Examples
    --------
    >>> from nezha_np.text.encode import encode
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> batch = encode(tokenizer, ["你好", "好"])
    >>> batch_decode(tokenizer, batch["input_ids"], skip_special_tokens=True)
    ['你 好', '好']
    """
    several = rows
    if not isinstance(rows, list | tuple):
        several = check_ids("rows", rows)
        if several.ndim != 2:
            raise ValueError(f"rows: expected ids of shape (B, L), got shape {several.shape}")
    by_name = {f"rows[{index}]": row for index, row in enumerate(several)}
    return _decode_rows(tokenizer, by_name, skip_special_tokens, clean_up_tokenization_spaces)


def cleans_up(tokenizer: Tokenizer) -> bool:
    """Say whether a tokenizer is set to clean up spaces.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Any tokenizer.

    Returns
    -------
    bool
        False only for one from `keep_spaces`.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> cleans_up(load_tokenizer())
    True
    """
    decoder = tokenizer.decoder
    if type(decoder).__name__ != "Sequence":
        return True
    state = json.loads(decoder.__getstate__())
    return len(state["decoders"]) != 1


def keep_spaces(tokenizer: Tokenizer) -> None:
    """Set a tokenizer not to clean up spaces: tokenizer_config.json says ``"clean_up_tokenization_spaces": false``.

    The library has no such setting. It is kept in the form of the decoder, so that a copy and a file have it too: a
    sequence of one decoder does what that decoder does.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer, which is changed.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> keep_spaces(tokenizer)
    >>> cleans_up(tokenizer), decode(tokenizer, tokenizer.encode("it's").ids)
    (False, "[CLS] it ' s [SEP]")
    """
    from tokenizers import decoders

    if cleans_up(tokenizer):
        # Without a decoder the library joins tokens by spaces; so does this one, whose prefix no token has.
        decoder = tokenizer.decoder or decoders.WordPiece(prefix="\0", cleanup=False)
        tokenizer.decoder = decoders.Sequence([decoder])


def _decode_rows(tokenizer: Tokenizer, rows: dict[str, Any], skip: Any, clean: Any) -> list[str]:
    """Decode rows, each under its name in an error."""
    check_tokenizer(tokenizer)
    if not isinstance(skip, bool):
        raise TypeError(f"skip_special_tokens: expected a bool, got {type(skip).__name__}")
    if not isinstance(clean, bool | None):
        raise TypeError(f"clean_up_tokenization_spaces: expected a bool or None, got {type(clean).__name__}")
    if clean is None:
        clean = cleans_up(tokenizer)
    # The library's decoder cleans each word by itself, whatever is chosen here: "good ." becomes "good." in any case.
    texts = [tokenizer.decode(_check_row(name, row), skip_special_tokens=skip) for name, row in rows.items()]
    return [_clean_up(text) for text in texts] if clean else texts


def _check_row(name: str, ids: Any) -> list[int]:
    row = check_ids(name, ids)
    if row.ndim > 1:
        raise ValueError(
            f"{name}: expected one row, of shape (L,), got shape {row.shape}; batch_decode takes several rows"
        )
    values = [int(index) for index in row.reshape(-1)]
    for place, index in enumerate(values):
        if not 0 <= index <= LARGEST_ID:
            raise ValueError(f"{name}: expected ids from 0 to {LARGEST_ID}, got {index} at place {place}")
    return values


def _clean_up(text: str) -> str:
    for spaced in SPACES:
        text = text.replace(spaced, spaced.strip())
    return text
