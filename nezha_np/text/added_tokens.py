"""The special and the added tokens of a tokenizer: a text is searched for them before it is split.

They stand in up to four files: tokenizer_config.json, special_tokens_map.json, added_tokens.json and tokenizer.json.
Which file counts, and in which order tokens are added, decides ids and flags; the order here is that of the reference,
PreTrainedTokenizerBase._from_pretrained and PreTrainedTokenizerFast.__init__.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nezha_np.text.declarations import check_kinds
from nezha_np.text.encode import check_text
from nezha_np.text.tokenizer_config import SPECIAL_TOKENS, get_setting, read_object

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

# In the order in which the reference adds them.
ATTRIBUTES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FURTHER = "additional_special_tokens"
FURTHER_OF_TRANSFORMERS_5 = "extra_special_tokens"


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What the files of a tokenizer say of its special and added tokens.

    Attributes
    ----------
    named : dict
        The special tokens by their settings; a str where a file gives no flags.
    further : list of str or AddedToken
        The special tokens without a setting of their own.
    added : list of AddedToken
        The added tokens, ordered by id.
    """

    named: dict[str, str | AddedToken]
    further: list[str | AddedToken]
    added: list[AddedToken]

    @property
    def special(self) -> list[str | AddedToken]:
        """All special tokens, in the order in which they are added: of equal ones in `further` the last one counts."""
        by_name: dict[str, str | AddedToken] = {}
        for token in self.named.values():
            by_name.setdefault(str(token), token)
        return [*by_name.values(), *(token for token in self.further if str(token) not in by_name)]

    @property
    def all(self) -> list[str | AddedToken]:
        """All special and added tokens."""
        return [*self.special, *(token.content for token in self.added)]


def read_tokens(
    file: Path,
    config: dict[str, Any],
    settings: Mapping[str, Any],
    defaults: Mapping[str, str],
    stored: Mapping[int, AddedToken],
) -> Tokens:
    """Read what the files of a tokenizer say of its special and added tokens.

    Parameters
    ----------
    file : Path
        Its vocab.txt or tokenizer.json, beside which the others stand.
    config : dict
        What tokenizer_config.json holds. With an ``added_tokens_decoder`` in it special_tokens_map.json and
        added_tokens.json do not count, as in the reference: both were written before there was one.
    settings : mapping
        The settings of the call, which go first.
    defaults : mapping
        The names of the special tokens that no file names; a file that says null says that there is none.
    stored : mapping
        The added tokens of a tokenizer.json, by id.

    Returns
    -------
    Tokens
        The tokens.

    Raises
    ------
    ValueError
        A file is not UTF-8, not JSON or not an object, or something in it is not a token.

    Examples
    --------
    >>> config = {"additional_special_tokens": ["<f>"], "added_tokens_decoder": {"9": {"content": "<e>"}}}
    >>> tokens = read_tokens(Path("nowhere/vocab.txt"), config, {}, {"mask_token": "[MASK]"}, {})
    >>> tokens.special, [token.content for token in tokens.added]
    (['[MASK]', '<f>'], ['<e>'])
    """
    values = {**config, **settings}
    if get_setting(config, "added_tokens_decoder", dict, None) is not None:
        by_id = _read_decoder(config["added_tokens_decoder"])
        flags = {token.content: token for token in by_id.values()}
    else:
        values |= _read_special_tokens_map(file.with_name("special_tokens_map.json"), values, settings)
        by_id = _read_added_tokens(file.with_name("added_tokens.json"), values)
        by_id |= stored
        flags = {token.content: token for token in stored.values()}
    named: dict[str, str | AddedToken] = {}
    for key in ATTRIBUTES:
        entry = values.get(key, defaults.get(key))
        if entry is not None:
            token = get_token(entry, key)
            named[key] = flags.get(str(token), token)
    further = [get_token(entry, FURTHER) for entry in get_setting(values, FURTHER, list, [])]
    extra = values.get(FURTHER_OF_TRANSFORMERS_5) or []
    extra = list(extra.values()) if isinstance(extra, dict) else extra
    further += [get_token(entry, FURTHER_OF_TRANSFORMERS_5) for entry in _as_list(extra, FURTHER_OF_TRANSFORMERS_5)]
    return Tokens(named, further, [by_id[id] for id in sorted(by_id)])


def add_tokens(tokenizer: Tokenizer, tokens: Tokens, file: Path) -> None:
    """Let a tokenizer find the tokens in a text before it is split.

    Those that its vocabulary lacks get ids after the last one.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer, which is changed.
    tokens : Tokens
        The tokens.
    file : Path
        The file that the tokenizer comes from, for errors.

    Raises
    ------
    ValueError
        A token is to be looked for in normalised text, and normalising leaves nothing of it.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> add_tokens(tokenizer, Tokens({}, ["<e>"], []), Path("vocab.txt"))
    >>> tokenizer.encode("<e>好").tokens, tokenizer.token_to_id("<e>")
    (['[CLS]', '<e>', '好', '[SEP]'], 7000)
    """
    special = tokens.special
    names = {str(token) for token in special}
    present = {token.content for token in [*tokenizer.get_added_tokens_decoder().values(), *tokens.added]}
    new: list[str | AddedToken] = list(tokens.added)
    # A token that is given with its flags replaces one that has other flags.
    new += [token for token in special if (token not in present if isinstance(token, str) else token not in new)]

    def is_special(token: str | AddedToken) -> bool:
        return str(token) in names or (not isinstance(token, str) and token.special)

    check_kinds(map(is_special, new), file)
    # Together as far as possible: the library prepares its search anew after each call.
    for as_special, group in itertools.groupby(new, key=is_special):
        (tokenizer.add_special_tokens if as_special else tokenizer.add_tokens)(list(group))
    for token in tokenizer.get_added_tokens_decoder().values():
        # The library would find nothing everywhere in a text, and end the process in the middle of a character.
        if token.normalized and tokenizer.normalizer and not tokenizer.normalizer.normalize_str(token.content):
            raise ValueError(
                f"path: expected added tokens for {file} of which normalising leaves something, got {token.content!r}"
            )


def check_special_tokens(tokenizer: Tokenizer, tokens: Tokens, file: Path) -> None:
    """Check that a tokenizer has its special tokens.

    The reference gives a missing one an id after the last one, which no model was trained with.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer, before tokens are added.
    tokens : Tokens
        Its special and added tokens.
    file : Path
        The file that it comes from.

    Raises
    ------
    ValueError
        The unknown token is not in the vocabulary, or another token with a setting is neither there nor among the added
        tokens.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> check_special_tokens(load_tokenizer(), Tokens({"mask_token": "<mask>"}, [], []), Path("vocab.txt"))
    Traceback (most recent call last):
    ...
    ValueError: path: expected vocab.txt to hold the special tokens, it lacks <mask>
    """
    from tokenizers import models

    added = {token.content for token in tokens.added}
    names = [str(tokens.named[key]) for key in SPECIAL_TOKENS if key in tokens.named]
    missing = [name for name in names if name not in added and tokenizer.token_to_id(name) is None]
    model = tokenizer.model
    if isinstance(model, models.WordPiece) and model.token_to_id(model.unk_token) is None:
        missing = list(dict.fromkeys([model.unk_token, *missing]))  # an added token is not found for an unknown word
    if missing:
        raise ValueError(f"path: expected {file} to hold the special tokens, it lacks {', '.join(missing)}")


def get_token(entry: Any, key: str, *, file: str = "tokenizer_config.json", special: bool = False) -> str | AddedToken:
    """Make a token of what a file says of it.

    Parameters
    ----------
    entry : str, dict or AddedToken
        The token's name, or an object with its name and flags.
    key : str
        The name of the setting, for errors.
    file : str
        The name of the file, for errors.
    special : bool
        Whether an object that does not say so is special.

    Returns
    -------
    str or tokenizers.AddedToken
        The name alone, or the token, with the reference's defaults for the flags that are not set.

    Raises
    ------
    ValueError
        It has no name.

    Examples
    --------
    >>> get_token("[MASK]", "mask_token")
    '[MASK]'
    >>> token = get_token({"content": "[E1]", "lstrip": True}, "mask_token")
    >>> token.content, token.lstrip, token.normalized, token.special
    ('[E1]', True, True, False)
    """
    from tokenizers import AddedToken

    if isinstance(entry, AddedToken):
        return entry
    content = entry.get("content") if isinstance(entry, dict) else entry
    if not isinstance(content, str) or not content:
        raise ValueError(f"path: expected a token for {key} in {file}, got {entry!r}")
    check_text(f"path: {key} in {file}", content)
    return _with_flags(entry, special) if isinstance(entry, dict) else content


def _with_flags(entry: dict[str, Any], special: bool = False) -> AddedToken:
    from tokenizers import AddedToken

    flags = {flag: bool(entry.get(flag)) for flag in ("single_word", "lstrip", "rstrip")}
    flags["special"] = bool(entry.get("special", special))
    return AddedToken(entry["content"], normalized=bool(entry.get("normalized", not flags["special"])), **flags)


def _read_decoder(entries: dict[str, Any]) -> dict[int, AddedToken]:
    key = "added_tokens_decoder"
    by_id = {}
    for id, entry in entries.items():
        if not id.isdecimal():
            raise ValueError(f"path: expected ids as the keys of {key} in tokenizer_config.json, got {id!r}")
        if not isinstance(entry, dict):
            raise ValueError(f"path: expected objects in {key} in tokenizer_config.json, got {entry!r}")
        get_token(entry, key)
        by_id[int(id)] = _with_flags(entry)
    return by_id


def _read_special_tokens_map(file: Path, values: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read special_tokens_map.json, which goes before tokenizer_config.json, but adds to its further tokens."""
    result: dict[str, Any] = {}
    for key, value in read_object(file).items():
        if key in settings or key not in (*ATTRIBUTES, FURTHER):
            continue
        if key == FURTHER:
            further = list(get_setting(values, key, list, []))
            for entry in _as_list(value, key, file.name):
                token = get_token(entry, key, file=file.name, special=True)
                if token not in further:
                    further.append(token)
            result[key] = further
        else:
            result[key] = None if value is None else get_token(value, key, file=file.name, special=True)
    return result


def _read_added_tokens(file: Path, values: dict[str, Any]) -> dict[int, AddedToken]:
    """Read added_tokens.json: an object with the id of each token. Special are those that the other files name."""
    from tokenizers import AddedToken

    # As in the reference an object with flags of tokenizer_config.json does not count here, only its name alone would.
    entries = [values.get(key) for key in ATTRIBUTES] + get_setting(values, FURTHER, list, [])
    special = {str(entry) for entry in entries if isinstance(entry, str | AddedToken)}
    by_id = {}
    for content, id in read_object(file).items():
        if isinstance(id, bool) or not isinstance(id, int) or id < 0:
            raise ValueError(f"path: expected the id of {content!r} in {file}, got {id!r}")
        name = str(get_token(content, "a key", file=file.name))
        by_id[id] = AddedToken(name, normalized=name not in special, special=name in special)
    return by_id


def _as_list(value: Any, key: str, file: str = "tokenizer_config.json") -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"path: expected a list for {key} in {file}, got {value!r}")
    return value
