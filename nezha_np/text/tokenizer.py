"""Text to arrays: a tokenizer from vocab.txt or tokenizer.json, padded batches from it, and a folder of it.

From a vocab.txt comes the tokenizer that transformers' BertTokenizerFast makes of it: clean the text, make
every Chinese character a word of its own, split at white space and punctuation, then cut each word, from its
start, into the longest pieces that the vocabulary knows (WordPiece). `never_split` and `do_basic_tokenize`, which
that class ignores, do what they do in BertTokenizer. docs/tokenizers.md says where those two classes differ.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.files.atomic import write_atomically
from nezha_np.weights.checkpoint import SHIPPED

if TYPE_CHECKING:
    from tokenizers import AddedToken, Encoding, Tokenizer
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

SPECIAL_TOKENS = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}


def load_tokenizer(
    path: str | os.PathLike[str] | None = None,
    *,
    do_lower_case: bool | None = None,
    strip_accents: bool | None = None,
    tokenize_chinese_chars: bool | None = None,
    do_basic_tokenize: bool | None = None,
    never_split: Collection[str] | None = None,
    unk_token: str | None = None,
    sep_token: str | None = None,
    pad_token: str | None = None,
    cls_token: str | None = None,
    mask_token: str | None = None,
) -> Tokenizer:
    """Load a tokenizer.

    Truncation and padding stored in a tokenizer.json are dropped: `encode` sees to both per call. Only a pad
    token with a name other than ``[PAD]`` is kept, where the library keeps it: in ``tokenizer.padding``.

    Parameters
    ----------
    path : str or path-like, optional
        A folder with tokenizer.json, else with vocab.txt; or such a file itself. What goes with a vocab.txt
        (the settings below, added tokens) is read from the tokenizer_config.json beside it where there is one;
        the reference's defaults stand for the rest. A tokenizer.json says it all itself; only the name of the
        pad token is looked up beside it. None: the shipped tokenizer.
    do_lower_case : bool, optional
        Whether text is put in lower case. Here and below None means what tokenizer_config.json says, else the
        reference's default, which here is True. No setting goes with a tokenizer.json.
    strip_accents : bool, optional
        Whether accents (combining marks) are dropped; where it is said nowhere: if text is put in lower case.
    tokenize_chinese_chars : bool, optional
        Whether each Chinese character is a word of its own; True where it is said nowhere.
    do_basic_tokenize : bool, optional
        False: text comes with spaces between its words, is not cleaned and not put in lower case, and these
        words are cut into pieces as they are. True where it is said nowhere.
    never_split : collection of str, optional
        Words that keep their accents and are not split at punctuation where they stand between spaces; and that
        are looked up whole, so that one which the vocabulary lacks is the unknown token. The text is put in
        lower case first, if it is: then only words in lower case can be found.
    unk_token, sep_token, pad_token, cls_token, mask_token : str, optional
        Names of the special tokens; ``[UNK]`` and so on where they are said nowhere.

    Returns
    -------
    tokenizers.Tokenizer
        Token ids are line numbers of vocab.txt, counted from 0.

    Raises
    ------
    FileNotFoundError
        The path does not exist, or the folder holds neither file.
    TypeError
        An argument has a wrong type.
    ValueError
        A file is not UTF-8, not JSON or not a tokenizer; a setting in tokenizer_config.json has a wrong type; the
        vocabulary lacks special tokens, which are named; settings came for a tokenizer.json.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> load_tokenizer().encode("房间很[MASK]净。").tokens
    ['[CLS]', '房', '间', '很', '[MASK]', '净', '。', '[SEP]']
    >>> load_tokenizer().encode("ok GPU").tokens
    ['[CLS]', 'ok', 'gpu', '[SEP]']
    >>> load_tokenizer(do_lower_case=False).encode("ok GPU").tokens
    ['[CLS]', 'ok', '[UNK]', '[SEP]']
    """
    settings = _checked_settings(
        do_lower_case=do_lower_case,
        strip_accents=strip_accents,
        tokenize_chinese_chars=tokenize_chinese_chars,
        do_basic_tokenize=do_basic_tokenize,
        never_split=never_split,
        unk_token=unk_token,
        sep_token=sep_token,
        pad_token=pad_token,
        cls_token=cls_token,
        mask_token=mask_token,
    )
    from tokenizers import Tokenizer

    file = _tokenizer_file(path)
    config = _read_config(file.with_name("tokenizer_config.json")) | settings
    if file.suffix == ".json":
        if settings:
            name, value = next(iter(settings.items()))
            raise ValueError(f"{name}: expected None beside {file}, which says it all itself, got {value!r}")
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
    >>> from nezha_np.text.tokenizer import encode, load_tokenizer
    >>> batch = encode(load_tokenizer(), ["你好", "好"], ["好", "好"])
    >>> batch["input_ids"]
    array([[   2,  318, 1161,    3, 1161,    3],
           [   2, 1161,    3, 1161,    3,    0]])
    >>> batch["token_type_ids"]
    array([[0, 0, 0, 0, 1, 1],
           [0, 0, 0, 1, 1, 0]])
    """
    _check_tokenizer(tokenizer)
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


def get_special_tokens_mask(
    tokenizer: Tokenizer,
    token_ids_0: Any,
    token_ids_1: Any = None,
    already_has_special_tokens: bool = False,
) -> np.ndarray:
    """Say which ids of a row are special tokens: 1 for those, 0 for the ids of a text.

    The reference is PreTrainedTokenizer.get_special_tokens_mask.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        Where the special tokens are looked up.
    token_ids_0 : array of integers or list of int
        The ids of a text, (L,). Or, with special tokens in it already, of any shape: a row, or the whole batch that
        `encode` gave.
    token_ids_1 : array of integers or list of int, optional
        The ids of the second text of a pair, (L2,).
    already_has_special_tokens : bool
        False: the ids are those of the texts alone, and the mask is that of the row ``[CLS] A [SEP] B [SEP]`` which
        is made of them; what they are does not matter. True: each id is looked up, so that 1 stands at ``[PAD]``,
        ``[MASK]``, ``[UNK]`` and at added special tokens too.

    Returns
    -------
    int64 array
        (L + 2,), for a pair (L + L2 + 3,); or, with special tokens in it already, of the shape of `token_ids_0`.

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        The ids have a wrong shape; there is a second text though the first is said to be a whole row; or the
        tokenizer does not make rows like ``[CLS] A [SEP] B [SEP]``.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import encode, get_special_tokens_mask, load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> get_special_tokens_mask(tokenizer, [318, 1161], [1161])
    array([1, 0, 0, 1, 0, 1])
    >>> batch = encode(tokenizer, ["你好", "好"])
    >>> get_special_tokens_mask(tokenizer, batch["input_ids"], already_has_special_tokens=True)
    array([[1, 0, 0, 1],
           [1, 0, 1, 1]])
    """
    _check_tokenizer(tokenizer)
    if not isinstance(already_has_special_tokens, bool):
        got = type(already_has_special_tokens).__name__
        raise TypeError(f"already_has_special_tokens: expected a bool, got {got}")
    first = _ids("token_ids_0", token_ids_0)
    second = None if token_ids_1 is None else _ids("token_ids_1", token_ids_1)
    if already_has_special_tokens:
        if second is not None:
            raise ValueError("token_ids_1: expected None, since token_ids_0 already has special tokens, got ids")
        special = [id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special]
        return np.isin(first, special).astype(np.int64)
    mask = [1]
    for name, ids in (("token_ids_0", first), ("token_ids_1", second)):
        if ids is not None:
            if ids.ndim != 1:
                raise ValueError(f"{name}: expected shape (L,), got {ids.shape}")
            mask += [0] * len(ids) + [1]
    if (added := tokenizer.num_special_tokens_to_add(second is not None)) != 2 + (second is not None):
        raise ValueError(f"tokenizer: expected one that adds [CLS] A [SEP] B [SEP], got one that adds {added} tokens")
    return np.array(mask, dtype=np.int64)


def save_vocabulary(
    tokenizer: Tokenizer, folder: str | os.PathLike[str], *, mask_token: str | None = None
) -> tuple[str, str]:
    """Write vocab.txt and tokenizer_config.json, which `load_tokenizer` and transformers' tokenizers read.

    The files are read back before they are moved into place: what `load_tokenizer` makes of them is equal to the
    tokenizer, but for what it is set to truncate or pad to. (BertTokenizerFast ignores `never_split` and
    `do_basic_tokenize`; BertTokenizer does not.)

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        One that `load_tokenizer` made, or another WordPiece tokenizer with the parts of BertTokenizerFast.
    folder : str or path-like
        Where to write the two files; it is made if need be. Files with these names are replaced.
    mask_token : str, optional
        The name of the mask token, which a tokenizer does not know. None: ``[MASK]``, else the only further
        special token.

    Returns
    -------
    tuple of str
        The paths of vocab.txt and tokenizer_config.json.

    Raises
    ------
    TypeError
        An argument has a wrong type.
    ValueError
        The tokenizer is more or other than the two files can say; its mask token cannot be told; or the folder holds a
        tokenizer.json, which would be read in their place.

    Examples
    --------
    >>> import tempfile
    >>> from nezha_np.text.tokenizer import load_tokenizer, save_vocabulary
    >>> tokenizer, folder = load_tokenizer(do_lower_case=False), tempfile.mkdtemp()
    >>> vocabulary, config = save_vocabulary(tokenizer, folder)
    >>> load_tokenizer(folder).to_str() == load_tokenizer(vocabulary).to_str() == tokenizer.to_str()
    True
    """
    _check_tokenizer(tokenizer)
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"folder: expected a str or a path, got {type(folder).__name__}")
    if not isinstance(mask_token, str | None):
        raise TypeError(f"mask_token: expected a str or None, got {type(mask_token).__name__}")
    where = Path(folder)
    if where.exists() and not where.is_dir():
        raise ValueError(f"folder: expected a folder, got the file {where}")
    if (where / "tokenizer.json").exists():
        raise ValueError(f"folder: expected one without tokenizer.json, which is read before vocab.txt, got {where}")

    state = json.loads(_without_settings(tokenizer).to_str())
    if state["model"].get("type") != "WordPiece":
        raise ValueError(f"tokenizer: expected a WordPiece model, got {state['model'].get('type')}")
    config = _config_of(tokenizer, state, mask_token)
    lines = _lines_of(state["model"]["vocab"])

    def write(beside: Path) -> None:
        (beside / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (beside / "tokenizer_config.json").write_text(text, encoding="utf-8")
        read_back = json.loads(_without_settings(load_tokenizer(beside)).to_str())
        if other := [part for part in state if read_back.get(part) != state[part]]:
            raise ValueError(
                "tokenizer: expected one that vocab.txt and tokenizer_config.json can describe, got another "
                + ", ".join(other)
            )

    write_atomically(where, write)
    return str(where / "vocab.txt"), str(where / "tokenizer_config.json")


def _checked_settings(**given: Any) -> dict[str, Any]:
    """Return the settings that are not None."""
    settings = {name: value for name, value in given.items() if value is not None}
    for name, value in settings.items():
        if name == "never_split":
            if isinstance(value, str) or not isinstance(value, Collection):
                raise TypeError(f"{name}: expected a collection of str, got {type(value).__name__}")
            for entry in value:
                if not isinstance(entry, str):
                    raise TypeError(f"{name}: expected a collection of str, got one with {type(entry).__name__} in it")
        elif name in SPECIAL_TOKENS:
            if not isinstance(value, str):
                raise TypeError(f"{name}: expected a str or None, got {type(value).__name__}")
            if not value:
                raise ValueError(f"{name}: expected a name, got ''")
        elif not isinstance(value, bool):
            raise TypeError(f"{name}: expected a bool or None, got {type(value).__name__}")
    if "never_split" in settings:
        settings["never_split"] = list(settings["never_split"])
    return settings


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
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    # Split at newlines alone: str.splitlines also splits at U+2028 and the like, which may stand in tokens.
    vocabulary = {token: line for line, token in enumerate(_read_text(file).removesuffix("\n").split("\n"))}
    special = [_token(config.get(key), key, default) for key, default in SPECIAL_TOKENS.items()]
    unk, sep, _, cls, _ = [token.content for token in special]
    listed = _listed_tokens(config)
    known = vocabulary.keys() | {token.content for token in listed}
    if missing := [token.content for token in special if token.content not in known]:
        raise ValueError(f"path: expected {file} to hold the special tokens, it lacks {', '.join(missing)}")

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unk))
    whole = _never_split(config)
    normalizer = _normalizer(
        whole,
        vocabulary,
        handle_chinese_chars=_setting(config, "tokenize_chinese_chars", bool, True),
        strip_accents=_setting(config, "strip_accents", bool, None),
        lowercase=_setting(config, "do_lower_case", bool, True),
    )
    if _setting(config, "do_basic_tokenize", bool, True):
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, _pre_tokenizer(whole)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    key = "additional_special_tokens"
    _add(tokenizer, listed, special + [_token(entry, key) for entry in _setting(config, key, list, [])])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (cls, sep)],
    )
    return tokenizer


def _never_split(config: dict[str, Any]) -> list[str]:
    entries = _setting(config, "never_split", list, [])
    if not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f"path: expected a list of str for never_split in tokenizer_config.json, got {entries!r}")
    for entry in entries:
        check_text("never_split", entry)
    return sorted({entry for entry in entries if entry})


def _normalizer(
    whole: list[str],
    vocabulary: Collection[str],
    *,
    handle_chinese_chars: bool,
    strip_accents: bool | None,
    lowercase: bool,
) -> Normalizer:
    """What is done to a text before it is split; words that are never split are kept from it by marks.

    A mark is a private-use character: cleaning drops those from the text, so that only ours are there, and no
    vocabulary holds them. Words between spaces are marked before accents are stripped, and again after it, when more
    words may have come to equal one. A word that the vocabulary lacks is also marked where it stands at punctuation,
    and keeps its mark: this is how it becomes the unknown token.
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    def bert(**steps: bool | None) -> Normalizer:
        options = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
        return normalizers.BertNormalizer(**options | steps)

    strips = lowercase if strip_accents is None else strip_accents
    strip = bert(strip_accents=strips)
    cleaned = {"clean_text": True, "handle_chinese_chars": handle_chinese_chars, "lowercase": lowercase}
    if all(word in vocabulary and strip.normalize_str(word) == word for word in whole):
        return bert(**cleaned, strip_accents=strip_accents)  # cleaning is no setting in the reference's fast tokenizer

    marks = {word: chr(0xF0000 + index) for index, word in enumerate(whole)}
    split = pre_tokenizers.BertPreTokenizer()
    between_spaces = [
        normalizers.Replace(Regex(f"(?<![^ ]){_escaped(word)}(?![^ ])"), mark) for word, mark in marks.items()
    ]
    at_punctuation = [
        normalizers.Replace(Regex(f"(?<![^ {_punctuation()}]){_escaped(word)}(?![^ {_punctuation()}])"), mark)
        for word, mark in marks.items()
        if word not in vocabulary and len(split.pre_tokenize_str(word)) == 1
    ]
    back = [normalizers.Replace(mark, word) for word, mark in marks.items() if word in vocabulary]
    composed = [normalizers.NFC()] if strips else []
    return normalizers.Sequence(
        [bert(**cleaned), *composed, *between_spaces, strip, *between_spaces, *at_punctuation, *back]
    )


def _pre_tokenizer(whole: list[str]) -> PreTokenizer:
    """What splits a text into words."""
    from tokenizers import Regex, pre_tokenizers

    if not whole:
        return pre_tokenizers.BertPreTokenizer()
    # What BertPreTokenizer does, but for words that are a whole piece of what stands between spaces.
    pattern = rf"\A(?:{'|'.join(map(_escaped, whole))})\z|[{_punctuation()}]"
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), split])


def _escaped(text: str) -> str:
    """Write every character by its number: nothing in it is an operator, and `_words_of` can read it back."""
    return "".join(rf"\x{{{ord(character):x}}}" for character in text)


def _words_of(state: dict[str, Any]) -> list[str]:
    """Return what `_pre_tokenizer` was given, from what it made."""
    try:
        pattern = state["pre_tokenizer"]["pretokenizers"][1]["pattern"]["Regex"]
    except (KeyError, IndexError, TypeError):
        return []
    whole = re.match(r"\\A\(\?:([^)]*)\)", pattern)
    words = whole[1].split("|") if whole else []
    return ["".join(chr(int(number, 16)) for number in re.findall(r"\\x\{(\w+)\}", word)) for word in words]


@functools.cache
def _punctuation() -> str:
    """Return the characters at which the library splits words, as they stand in a regular expression's brackets."""
    from tokenizers.pre_tokenizers import BertPreTokenizer

    # It knows none from U+20000 on. With a letter between any two, all other characters are in longer words.
    characters = "x".join(chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000)
    words = {word for word, _ in BertPreTokenizer().pre_tokenize_str(f"x{characters}x")}
    return _escaped("".join(sorted(word for word in words if len(word) == 1 and word != "x")))


def _config_of(tokenizer: Tokenizer, state: dict[str, Any], mask_token: str | None) -> dict[str, Any]:
    """Return what tokenizer_config.json has to say about a tokenizer."""
    normalizer = state["normalizer"] or {}
    steps = normalizer.get("normalizers") or [normalizer]
    stripping = [step.get("strip_accents") for step in steps]
    ends = _without_settings(tokenizer).encode("").tokens or ["[CLS]"]
    names = {
        "unk_token": state["model"].get("unk_token", "[UNK]"),
        "sep_token": ends[-1],
        "pad_token": tokenizer.padding["pad_token"] if tokenizer.padding else "[PAD]",
        "cls_token": ends[0],
    }
    special = [token["content"] for token in state["added_tokens"] if token["special"]]
    further = [token for token in special if token not in names.values()]
    if mask_token is None:
        mask_token = further[0] if len(further) == 1 else "[MASK]"
        if mask_token not in further:
            raise ValueError(f"mask_token: expected one of {further}, since none of them is [MASK], got None")
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": any(step.get("lowercase") for step in steps),
        "strip_accents": stripping[0] if len(steps) == 1 else any(stripping),
        "tokenize_chinese_chars": any(step.get("handle_chinese_chars") for step in steps),
        "do_basic_tokenize": state["normalizer"] is not None,
        "never_split": _words_of(state) or None,
        **names,
        "mask_token": mask_token,
        "additional_special_tokens": [token for token in further if token != mask_token],
        "added_tokens_decoder": {
            str(token["id"]): {flag: token[flag] for flag in flags} for token in state["added_tokens"]
        },
    }


def _lines_of(vocabulary: dict[str, int]) -> list[str]:
    """Return the lines of vocab.txt. Of equal lines the last counts, so the last token can fill gaps between ids."""
    by_id = {id: token for token, id in vocabulary.items()}
    last = max(by_id, default=-1)
    return [by_id.get(id, by_id[last]) for id in range(last + 1)]


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


def _check_tokenizer(tokenizer: Any) -> None:
    from tokenizers import Tokenizer

    if not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"tokenizer: expected a tokenizers.Tokenizer, got {type(tokenizer).__name__}")


def _texts(name: str, value: str | Sequence[str]) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        raise TypeError(f"{name}: expected a str or a list of str, got {type(value).__name__}")
    if not texts:
        raise ValueError(f"{name}: expected at least one text, got an empty list")
    for index, text in enumerate(texts):
        check_text(f"{name}[{index}]", text)
    return list(texts)


def check_text(name: str, text: Any) -> None:
    """Check one text.

    Examples
    --------
    >>> check_text("texts[3]", 5)
    Traceback (most recent call last):
    ...
    TypeError: texts[3]: expected a str, got int
    """
    if not isinstance(text, str):
        raise TypeError(f"{name}: expected a str, got {type(text).__name__}")
    try:  # a lone surrogate, half a character: the library's versions differ in what they make of it
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: expected valid Unicode: {error}") from error


def _ids(name: str, value: Any) -> np.ndarray:
    try:
        ids = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected rows of one length: {error}") from error
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {ids.dtype if ids.ndim else type(value).__name__}")
    return ids


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
