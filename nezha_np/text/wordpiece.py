"""A WordPiece tokenizer from a vocabulary and its settings, and the settings of a tokenizer.

The tokenizer is the one that transformers' BertTokenizerFast makes of a vocab.txt. It works in three steps:

    normalise      clean the text, put spaces around every Chinese character, put it in lower case, strip accents
    pre-tokenise   split it into words, at white space and at punctuation
    WordPiece      cut each word, from its start, into the longest pieces that the vocabulary has

`never_split` and `do_basic_tokenize`, which that class ignores, do what they do in BertTokenizer. docs/tokenizers.md
says where those two classes differ.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nezha_np.files.text_encoding import read_utf8
from nezha_np.text.added_tokens import Tokens, add_tokens, check_special_tokens
from nezha_np.text.decode import cleans_up
from nezha_np.text.rows import without_truncation_and_padding
from nezha_np.text.tokenizer_config import get_never_split, get_setting

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

# The first of the private-use characters that stand for words of never_split while a text is normalised.
FIRST_PLACEHOLDER = 0xF0000
MOST_GAPS = 10**6


def make_tokenizer(file: Path, config: dict[str, Any], tokens: Tokens) -> Tokenizer:
    """Make a tokenizer of a vocabulary and its settings.

    Parameters
    ----------
    file : Path
        A vocab.txt: a token in each line; its id is the number of the line, from 0.
    config : dict
        What tokenizer_config.json holds, and the settings of the call, which go first.
    tokens : Tokens
        Its special and added tokens; those for the unknown, for the start and for the end must be among them.

    Returns
    -------
    tokenizers.Tokenizer
        The tokenizer.

    Raises
    ------
    ValueError
        The file is not UTF-8, a setting has a wrong type, or the vocabulary lacks special tokens, which are named.

    Examples
    --------
    >>> from nezha_np.weights.checkpoint import SHIPPED
    >>> tokens = Tokens({"unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]"}, [], [])
    >>> make_tokenizer(SHIPPED / "vocab.txt", {"do_lower_case": False}, tokens).encode("ok GPU").tokens
    ['[CLS]', 'ok', '[UNK]', '[SEP]']
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    # Split at newlines alone: str.splitlines also splits at U+2028 and the like, which may stand in tokens.
    vocabulary = {token: line for line, token in enumerate(read_utf8(file).removesuffix("\n").split("\n"))}
    if none := [key for key in ("unk_token", "sep_token", "cls_token") if key not in tokens.named]:
        raise ValueError(f"path: expected a name for {none[0]} with {file}, got null")
    unk, sep, cls = (str(tokens.named[f"{name}_token"]) for name in ("unk", "sep", "cls"))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unk))
    check_special_tokens(tokenizer, tokens, file)
    never_split = get_never_split(config)
    normalizer = _make_normalizer(
        never_split,
        vocabulary,
        handle_chinese_chars=get_setting(config, "tokenize_chinese_chars", bool, True),
        strip_accents=get_setting(config, "strip_accents", bool, None),
        lowercase=get_setting(config, "do_lower_case", bool, True),
    )
    if get_setting(config, "do_basic_tokenize", bool, True):
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, _make_pre_tokenizer(never_split)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    add_tokens(tokenizer, tokens, file)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (cls, sep)],
    )
    return tokenizer


def obey_config(tokenizer: Tokenizer, config: dict[str, Any], *, all_settings: bool) -> None:
    """Let a tokenizer from a tokenizer.json normalise a text as tokenizer_config.json says, where the two disagree.

    The reference is BertTokenizerFast.__init__. A normaliser of another kind than BertNormalizer stays as it is.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer, which is changed.
    config : dict
        What tokenizer_config.json holds.
    all_settings : bool
        Whether a setting that it does not hold has BertTokenizerFast's default; False: it stays as it is.

    Raises
    ------
    ValueError
        A setting has a wrong type.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer()
    >>> obey_config(tokenizer, {"do_lower_case": False}, all_settings=False)
    >>> tokenizer.encode("ok GPU").tokens
    ['[CLS]', 'ok', '[UNK]', '[SEP]']
    """
    from tokenizers import normalizers

    stored = tokenizer.normalizer
    if not isinstance(stored, normalizers.BertNormalizer):
        return
    settings = (("lowercase", "do_lower_case", True), ("strip_accents", "strip_accents", None))
    steps: dict[str, Any] = {
        step: get_setting(config, key, bool, default) if all_settings or key in config else getattr(stored, step)
        for step, key, default in (*settings, ("handle_chinese_chars", "tokenize_chinese_chars", True))
    }
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=stored.clean_text, **steps)


def describe_tokenizer(tokenizer: Tokenizer, state: dict[str, Any], mask_token: str | None) -> dict[str, Any]:
    """Say in the words of tokenizer_config.json what a tokenizer is set to: the inverse of `make_tokenizer`.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        A WordPiece tokenizer.
    state : dict
        What its ``to_str`` gives, read as JSON.
    mask_token : str or None
        The name of the mask token; None: ``[MASK]``, else the only further special token.

    Returns
    -------
    dict
        What tokenizer_config.json is to hold.

    Raises
    ------
    ValueError
        The mask token cannot be told from other special tokens.

    Examples
    --------
    >>> import json
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> tokenizer = load_tokenizer(do_lower_case=False, never_split=["ok!"])
    >>> config = describe_tokenizer(tokenizer, json.loads(tokenizer.to_str()), None)
    >>> config["do_lower_case"], config["never_split"], config["mask_token"]
    (False, ['ok!'], '[MASK]')
    """
    normalizer = state["normalizer"] or {}
    steps = normalizer.get("normalizers") or [normalizer]
    strip_accents = [step.get("strip_accents") for step in steps]
    ends = without_truncation_and_padding(tokenizer).encode("").tokens or ["[CLS]"]
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
        "strip_accents": strip_accents[0] if len(steps) == 1 else any(strip_accents),
        "tokenize_chinese_chars": any(step.get("handle_chinese_chars") for step in steps),
        "do_basic_tokenize": state["normalizer"] is not None,
        "never_split": _read_never_split(state) or None,
        "clean_up_tokenization_spaces": cleans_up(tokenizer),
        "padding_side": (tokenizer.padding or {}).get("direction", "right"),
        "truncation_side": (tokenizer.truncation or {}).get("direction", "right"),
        **names,
        "mask_token": mask_token,
        "additional_special_tokens": [token for token in further if token != mask_token],
        "added_tokens_decoder": {
            str(token["id"]): {flag: token[flag] for flag in flags} for token in state["added_tokens"]
        },
    }


def vocabulary_lines(vocabulary: dict[str, int]) -> list[str]:
    """Return the lines of vocab.txt.

    Parameters
    ----------
    vocabulary : dict
        The id of each token.

    Returns
    -------
    list of str
        A token for each id from 0 to the last. An id without a token gets the last token: of equal lines the last
        counts, so that the file is read back as the same vocabulary.

    Raises
    ------
    ValueError
        The ids have more than a million gaps.

    Examples
    --------
    >>> vocabulary_lines({"a": 0, "b": 2})
    ['a', 'b', 'b']
    """
    by_id = {id: token for token, id in vocabulary.items()}
    last = max(by_id, default=-1)
    if last - len(by_id) > MOST_GAPS:
        raise ValueError(
            f"tokenizer: expected at most {MOST_GAPS:,} ids without a token, which vocab.txt fills with lines, got "
            f"{last + 1 - len(by_id):,} below the id {last:,} of {by_id[last]!r}"
        )
    return [by_id.get(id, by_id[last]) for id in range(last + 1)]


def _make_normalizer(
    never_split: list[str],
    vocabulary: Collection[str],
    *,
    handle_chinese_chars: bool,
    strip_accents: bool | None,
    lowercase: bool,
) -> Normalizer:
    """Make what changes a text before it is split.

    Words of `never_split` must keep their accents, so each is replaced by a placeholder, a private-use character, while
    accents are stripped. The text itself holds none of these, because cleaning drops private-use characters, and
    neither does a vocabulary. Words between spaces are replaced before accents are stripped, and again after it,
    because stripping may make more of them. Words that the vocabulary has are put back at the end. A word that it lacks
    is replaced where it stands at punctuation too, and is not put back, so that it becomes the unknown token.
    """
    from tokenizers import Regex, normalizers, pre_tokenizers

    def bert(**steps: bool | None) -> Normalizer:
        off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
        options: dict[str, Any] = off | steps
        return normalizers.BertNormalizer(**options)

    strips = lowercase if strip_accents is None else strip_accents
    strip = bert(strip_accents=strips)
    cleaned = {"clean_text": True, "handle_chinese_chars": handle_chinese_chars, "lowercase": lowercase}
    if all(word in vocabulary and strip.normalize_str(word) == word for word in never_split):
        return bert(**cleaned, strip_accents=strip_accents)  # cleaning is no setting in the reference's fast tokenizer

    placeholders = {word: chr(FIRST_PLACEHOLDER + index) for index, word in enumerate(never_split)}
    split = pre_tokenizers.BertPreTokenizer()
    between_spaces = [
        normalizers.Replace(Regex(f"(?<![^ ]){_escape(word)}(?![^ ])"), placeholder)
        for word, placeholder in placeholders.items()
    ]
    other = f"[^ {_punctuation()}]"
    at_punctuation = [
        normalizers.Replace(Regex(f"(?<!{other}){_escape(word)}(?!{other})"), placeholder)
        for word, placeholder in placeholders.items()
        if word not in vocabulary and len(split.pre_tokenize_str(word)) == 1
    ]
    put_back = [
        normalizers.Replace(placeholder, word) for word, placeholder in placeholders.items() if word in vocabulary
    ]
    compose = [normalizers.NFC()] if strips else []
    return normalizers.Sequence(
        [bert(**cleaned), *compose, *between_spaces, strip, *between_spaces, *at_punctuation, *put_back]
    )


def _make_pre_tokenizer(never_split: list[str]) -> PreTokenizer:
    """Make what splits a text into words."""
    from tokenizers import Regex, pre_tokenizers

    if not never_split:
        return pre_tokenizers.BertPreTokenizer()
    # Split as BertPreTokenizer does; but what stands between two spaces and is a word of never_split stays one word.
    pattern = rf"\A(?:{'|'.join(map(_escape, never_split))})\z|[{_punctuation()}]"
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), split])


def _escape(text: str) -> str:
    """Write each character by its number, so that none is an operator and `_read_never_split` can read it back."""
    return "".join(rf"\x{{{ord(character):x}}}" for character in text)


def _read_never_split(state: dict[str, Any]) -> list[str]:
    """Read the words of never_split back from the pattern that `_make_pre_tokenizer` wrote."""
    try:
        pattern = state["pre_tokenizer"]["pretokenizers"][1]["pattern"]["Regex"]
    except (KeyError, IndexError, TypeError):
        return []
    found = re.match(r"\\A\(\?:([^)]*)\)", pattern)
    escaped = found[1].split("|") if found else []
    return ["".join(chr(int(number, 16)) for number in re.findall(r"\\x\{(\w+)\}", word)) for word in escaped]


@functools.cache
def _punctuation() -> str:
    """Return the characters at which the library splits words, as they stand in a regular expression's brackets."""
    from tokenizers.pre_tokenizers import BertPreTokenizer

    # A text of all characters, with a letter between any two: punctuation comes out as a word of one character. The
    # library knows no punctuation from U+20000 on.
    characters = "x".join(chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000)
    words = {word for word, _ in BertPreTokenizer().pre_tokenize_str(f"x{characters}x")}
    return _escape("".join(sorted(word for word in words if len(word) == 1 and word != "x")))
