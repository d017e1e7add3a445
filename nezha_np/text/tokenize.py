"""From a text to the names of its tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from nezha_np.text.batch import Settings
from nezha_np.text.encode import check_text, check_tokenizer, encode

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def tokenize(tokenizer: Tokenizer, text: str, pair: str | None = None, **settings: Unpack[Settings]) -> list[str]:
    """Split a text into tokens, as the reference's ``tokenizer.tokenize`` does.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.
    text : str
        A text; with ``is_split_into_words=True`` a list of words.
    pair : str, optional
        A second text.
    **settings
        Those of `encode`. `add_special_tokens` and `padding` are False by default here.

    Returns
    -------
    list of str
        The tokens. A word that the vocabulary lacks is the unknown token.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong; the message names it.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenize(load_tokenizer(), "房间很[MASK]净, ok")
    ['房', '间', '很', '[MASK]', '净', ',', 'ok']
    """
    check_tokenizer(tokenizer)
    if not settings.get("is_split_into_words", False):
        for name, value in (("text", text), ("pair", pair)):
            if name == "text" or value is not None:
                check_text(name, value)
    chosen: Settings = {"add_special_tokens": False, "padding": False, **settings}
    batch = encode(tokenizer, [text], None if pair is None else [pair], **chosen)
    return [tokenizer.id_to_token(index) or "" for index in batch["input_ids"][0].tolist()]
