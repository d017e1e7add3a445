"""Text to arrays: a tokenizer from vocab.txt or tokenizer.json, and padded batches from it.

From a vocab.txt comes the tokenizer that transformers' BertTokenizerFast makes of it: clean the text, make
every Chinese character a word of its own, split at white space and punctuation, then cut each word, from its
start, into the longest pieces that the vocabulary knows (WordPiece).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.checkpoint import SHIPPED

if TYPE_CHECKING:
    from tokenizers import AddedToken, Encoding, Tokenizer

SPECIAL_TOKENS = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}


def load_tokenizer(path: str | os.PathLike[str] | None = None) -> Tokenizer:
    """Load a tokenizer.

    Truncation and padding stored in a tokenizer.json are dropped: `encode` sees to both per call. Only a pad
    token with a name other than ``[PAD]`` is kept, where the library keeps it: in ``tokenizer.padding``.

    Parameters
    ----------
    path : str or path-like, optional
        A folder with tokenizer.json, else with vocab.txt; or such a file itself. What goes with a vocab.txt
        (case, accents, Chinese characters, special and added tokens) is read from the tokenizer_config.json
        beside it where there is one; the reference's defaults stand for the rest. A tokenizer.json says
        it all itself; only the name of the pad token is looked up beside it. None: the shipped tokenizer.

    Returns
    -------
    tokenizers.Tokenizer
        Token ids are line numbers of vocab.txt, counted from 0.

    Raises
    ------
    FileNotFoundError
        The path does not exist, or the folder holds neither file.
    ValueError
        A file is not UTF-8, not JSON or not a tokenizer; a setting has a wrong type; the vocabulary lacks
        special tokens, which are named.

    Examples
    --------
    >>> from nezha_np.tokenizer import load_tokenizer
    >>> load_tokenizer().encode("房间很[MASK]净。").tokens
    ['[CLS]', '房', '间', '很', '[MASK]', '净', '。', '[SEP]']
    """
    from tokenizers import Tokenizer

    file = _tokenizer_file(path)
    config = _read_config(file.with_name("tokenizer_config.json"))
    if file.suffix == ".json":
        text = _read_text(file)
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library raises no narrower class
            raise ValueError(f"path: {file} is not a tokenizer.json: {error}") from error
    else:
        tokenizer = _tokenizer_from_vocabulary(file, config)
    stored = tokenizer.padding or {}
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pad = _token(config.get("pad_token"), "pad_token", stored.get("pad_token", "[PAD]")).content
    if pad != "[PAD]" and tokenizer.token_to_id(pad) is not None:
        tokenizer.enable_padding(pad_token=pad, pad_id=tokenizer.token_to_id(pad))
    return tokenizer


def encode(
    tokenizer: Tokenizer,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None = None,
    *,
    max_length: int | None = None,
) -> dict[str, np.ndarray]:
    """Turn texts into the arrays that `forward` takes: ``nz.forward(weights, **encode(tokenizer, texts))``.

    The tokenizer is not changed, not even for a moment, and what it is itself set to truncate or pad to has
    no effect. (Where it has such settings, each call works on a copy, which takes a few milliseconds.)

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Its pad token is the one it is set to pad with, else ``[PAD]``.
    texts : str or list of str
        B texts; one str is a batch of one.
    pairs : str or list of str, optional
        B second texts, one for each of the first.
    max_length : int, optional
        The longest row allowed, special tokens included. Texts are cut at their ends; of a pair, the longer
        one down to the other, then both alike (the reference's 'longest_first'). None: no cut.

    Returns
    -------
    dict of (B, L) int64 arrays
        ``input_ids``; ``attention_mask``, 1 for tokens and 0 for padding; ``token_type_ids``, 1 for the
        second text and its end. L is the length of the longest row; the others are padded on the right.

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        No texts, not as many pairs as texts, a text with a lone surrogate, max_length without room for the
        special tokens, or rows to pad and no pad token.

    Examples
    --------
    >>> from nezha_np.tokenizer import encode, load_tokenizer
    >>> batch = encode(load_tokenizer(), ["你好", "好"], ["好", "好"])
    >>> batch["input_ids"]
    array([[   2,  318, 1161,    3, 1161,    3],
           [   2, 1161,    3, 1161,    3,    0]])
    >>> batch["token_type_ids"]
    array([[0, 0, 0, 0, 1, 1],
           [0, 0, 0, 1, 1, 0]])
    """
    from tokenizers import Tokenizer

    if not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"tokenizer: expected a tokenizers.Tokenizer, got {type(tokenizer).__name__}")
    firsts = _texts("texts", texts)
    seconds = None if pairs is None else _texts("pairs", pairs)
    if seconds is not None and len(seconds) != len(firsts):
        raise ValueError(f"pairs: expected one for each of the {len(firsts)} texts, got {len(seconds)}")
    _check_max_length(max_length, tokenizer.num_special_tokens_to_add(seconds is not None))

    inputs: list[Any] = firsts if seconds is None else list(zip(firsts, seconds, strict=True))
    encodings = _without_settings(tokenizer).encode_batch(inputs)
    kept = [_kept_positions(encoding, max_length) for encoding in encodings]
    lengths = np.array([len(positions) for positions in kept])
    attention_mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    input_ids = np.full_like(attention_mask, 0 if attention_mask.all() else _pad_id(tokenizer))
    token_type_ids = np.zeros_like(attention_mask)
    for row, (encoding, positions) in enumerate(zip(encodings, kept, strict=True)):
        input_ids[row, : len(positions)] = np.array(encoding.ids, dtype=np.int64)[positions]
        token_type_ids[row, : len(positions)] = np.array(encoding.type_ids, dtype=np.int64)[positions]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}


def _tokenizer_file(path: str | os.PathLike[str] | None) -> Path:
    if not isinstance(path, str | os.PathLike | None):
        raise TypeError(f"path: expected a str, a path or None, got {type(path).__name__}")
    where = SHIPPED if path is None else Path(path)
    if not where.exists():
        raise FileNotFoundError(f"path: {where} does not exist")
    if not where.is_dir():
        return where
    for file in (where / "tokenizer.json", where / "vocab.txt"):
        if file.is_file():
            return file
    raise FileNotFoundError(f"path: expected tokenizer.json or vocab.txt in {where}, found neither")


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"path: expected UTF-8 in {file}: {error}") from error


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"path: {file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"path: expected a JSON object in {file}, got {type(config).__name__}")
    return config


def _tokenizer_from_vocabulary(file: Path, config: dict[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    # Split at newlines alone: str.splitlines also splits at U+2028 and the like, which may stand in tokens.
    vocabulary = {token: line for line, token in enumerate(_read_text(file).removesuffix("\n").split("\n"))}
    special = [_token(config.get(key), key, default) for key, default in SPECIAL_TOKENS.items()]
    unk, sep, _, cls, _ = [token.content for token in special]
    listed = _listed_tokens(config)
    known = vocabulary.keys() | {token.content for token in listed}
    if missing := [token.content for token in special if token.content not in known]:
        raise ValueError(f"path: expected {file} to hold the special tokens, it lacks {', '.join(missing)}")

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unk))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,  # not a setting: the reference's fast tokenizer always cleans
        handle_chinese_chars=_setting(config, "tokenize_chinese_chars", bool, True),
        strip_accents=_setting(config, "strip_accents", bool, None),
        lowercase=_setting(config, "do_lower_case", bool, True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    key = "additional_special_tokens"
    _add(tokenizer, listed, special + [_token(entry, key) for entry in _setting(config, key, list, [])])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (cls, sep)],
    )
    return tokenizer


def _add(tokenizer: Tokenizer, listed: list[AddedToken], special: list[AddedToken]) -> None:
    """Have tokens found in a text before it is split; those listed by id keep the flags listed there."""
    tokens = {token.content: token for token in listed}
    for token in special:
        tokens.setdefault(token.content, token).special = True
    for token in tokens.values():
        if token.special:
            tokenizer.add_special_tokens([token])
        else:
            tokenizer.add_tokens([token])


def _setting(config: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = default if config.get(key) is None else config[key]
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"path: expected {kind.__name__} for {key} in tokenizer_config.json, got {value!r}")
    return value


def _listed_tokens(config: dict[str, Any]) -> list[AddedToken]:
    key = "added_tokens_decoder"
    by_id = _setting(config, key, dict, {})
    in_order = sorted(by_id, key=lambda id: (len(id), id))  # ids are strings here: "9" before "10"
    return [_token(by_id[id], key) for id in in_order]


def _token(entry: Any, key: str, default: str | None = None) -> AddedToken:
    """A token as tokenizer_config.json gives it: by its name alone, or by an object with name and flags."""
    from tokenizers import AddedToken

    given = default if entry is None else entry
    fields: dict[str, Any] = given if isinstance(given, dict) else {"content": given, "special": True}
    if not isinstance(fields.get("content"), str) or not fields["content"]:
        raise ValueError(f"path: expected a token for {key} in tokenizer_config.json, got {entry!r}")
    flags = {flag: bool(fields.get(flag)) for flag in ("single_word", "lstrip", "rstrip", "special")}
    normalized = bool(fields.get("normalized", not flags["special"]))  # the reference's default
    return AddedToken(fields["content"], normalized=normalized, **flags)


def _texts(name: str, value: str | Sequence[str]) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        raise TypeError(f"{name}: expected a str or a list of str, got {type(value).__name__}")
    if not texts:
        raise ValueError(f"{name}: expected at least one text, got an empty list")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{index}]: expected a str, got {type(text).__name__}")
        try:  # a lone surrogate: the library's versions differ in what they make of it
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name}[{index}]: expected valid Unicode: {error}") from error
    return list(texts)


def _check_max_length(max_length: int | None, special: int) -> None:
    if max_length is None:
        return
    if isinstance(max_length, bool) or not isinstance(max_length, int | np.integer):
        raise TypeError(f"max_length: expected an int or None, got {type(max_length).__name__}")
    if max_length < special:
        raise ValueError(f"max_length: expected at least {special}, the special tokens, got {max_length}")


def _without_settings(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer itself, or a copy of it where it is set to truncate or to pad."""
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    if hasattr(tokenizer, "encode_special_tokens"):  # since 0.15.1; not part of to_str
        copy.encode_special_tokens = tokenizer.encode_special_tokens
    return copy


def _kept_positions(encoding: Encoding, max_length: int | None) -> np.ndarray:
    """Where the tokens stand that stay in a row: what the library's 'longest_first' truncation leaves.

    The library's own also builds what it cuts off; of a pair, every combination of the two texts' pieces.
    """
    if max_length is None or len(encoding) <= max_length:
        return np.arange(len(encoding))
    # A special token that stands in a text belongs to the text, and may be cut.
    added, first, second = (
        [position for position, sequence in enumerate(encoding.sequence_ids) if sequence == wanted]
        for wanted in (None, 0, 1)
    )
    room = max_length - len(added)
    shorter = min(len(first), len(second), room // 2)
    longer = room - shorter
    kept = (longer, shorter) if len(first) > len(second) else (shorter, longer)
    return np.sort(added + first[: kept[0]] + second[: kept[1]])


def _pad_id(tokenizer: Tokenizer) -> int:
    pad_id: int | None = tokenizer.padding["pad_id"] if tokenizer.padding else tokenizer.token_to_id("[PAD]")
    if pad_id is None:
        raise ValueError("tokenizer: expected a [PAD] to fill short rows; name one with enable_padding")
    return pad_id
