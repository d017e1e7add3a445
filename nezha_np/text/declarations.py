"""What a tokenizer.json declares, checked before the library reads it, which takes its word.

A map of characters that claims gigabytes ends the process, a template with a token that it does not list raises an
error that is no `Exception`, and a long added token takes time with the square of its length.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nezha_np.checks import parse_json, printable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST_TOKEN = 256  # characters of an added token
# The library adds special tokens and others apart, and prepares its search anew after each change from one kind to the
# other: of so many of them, the number of all tokens, it takes about a second.
MOST_ADDED_ANEW = 10**6
MOST_WORK = 10**7  # the sum of the squares of their lengths: some seconds, for 20,000 tokens of 20 characters


def check_lengths(contents: Iterable[str], file: Path) -> None:
    """Check that added tokens can be looked for in a reasonable time.

    Parameters
    ----------
    contents : iterable of str
        The tokens.
    file : Path
        The file that they come from, for errors.

    Raises
    ------
    ValueError
        If one of them is too long, or all together are.

    Examples
    --------
    >>> check_lengths(["[E1]", "[E2]"], Path("tokenizer.json"))
    """
    lengths = [len(content) for content in contents]
    if (longest := max(lengths, default=0)) > LONGEST_TOKEN:
        raise ValueError(
            f"path: expected added tokens of {file} with {LONGEST_TOKEN} characters at most, got {longest}"
        )
    if sum(length * length for length in lengths) > MOST_WORK:
        raise ValueError(
            f"path: expected fewer or shorter added tokens of {file}, got {len(lengths)} with {sum(lengths)} characters"
        )


def check_kinds(special: Iterable[bool], file: Path) -> None:
    """Check that added tokens can be added in a reasonable time.

    Parameters
    ----------
    special : iterable of bool
        For each token, in their order, whether it is special.
    file : Path
        The file that they come from, for errors.

    Raises
    ------
    ValueError
        If special tokens and others take turns too often.

    Examples
    --------
    >>> check_kinds([True, True, False], Path("tokenizer.json"))
    """
    kinds = list(special)
    turns = sum(one != other for one, other in itertools.pairwise(kinds))
    if turns * len(kinds) > MOST_ADDED_ANEW:
        raise ValueError(
            f"path: expected the special tokens among the added tokens of {file} in one row, got {len(kinds)} tokens "
            f"that change {turns} times between special and not"
        )


def check_declarations(text: str, file: Path) -> None:
    """Check a tokenizer.json before the library reads it.

    Parameters
    ----------
    text : str
        What the file holds.
    file : Path
        The file, for errors.

    Raises
    ------
    ValueError
        If it is not JSON, or declares what the library would not survive.

    Examples
    --------
    >>> check_declarations('{"added_tokens": [{"content": "[E1]"}]}', Path("tokenizer.json"))
    >>> check_declarations('{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}}', Path("x.json"))
    Traceback (most recent call last):
    ...
    ValueError: path: expected x.json to hold the special tokens, it lacks ?
    """
    state = parse_json(text)
    if not isinstance(state, dict):
        raise ValueError(f"path: {file} is not a tokenizer.json: expected a JSON object")
    tokens = state.get("added_tokens")
    added = [token.get("content") for token in _pieces(tokens) if isinstance(token, dict)]
    check_lengths((content for content in added if isinstance(content, str)), file)
    check_kinds((bool(token.get("special")) for token in _pieces(tokens) if isinstance(token, dict)), file)
    for part in _objects(state.get("normalizer")):
        if part.get("precompiled_charsmap"):
            _check_map(part["precompiled_charsmap"], file)
    for part in _objects(state.get("post_processor")):
        if part.get("type") == "TemplateProcessing":
            _check_template(part, file)
    model = state.get("model")
    if isinstance(model, dict):
        _check_unknown_token(model, file)


def check_at_work(tokenizer: Tokenizer, file: Path) -> None:
    """Check that a tokenizer can encode a text and a pair at all, whatever its file declares.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.
    file : Path
        The file that it comes from, for errors.

    Raises
    ------
    ValueError
        If it cannot.

    Examples
    --------
    >>> from nezha_np.text.tokenizer import load_tokenizer
    >>> check_at_work(load_tokenizer(), Path("vocab.txt"))
    """
    try:
        tokenizer.encode("a 好 \U0010ffff", "b.")
        tokenizer.encode("a 好 \U0010ffff")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        raise ValueError(f"path: expected a tokenizer that can encode a text, got {file}: {printable(error)}") from None


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects inside of a value of JSON."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _objects(item)


def _check_map(encoded: Any, file: Path) -> None:
    """Check that a map of characters has the bytes that it begins with the number of."""
    try:
        content = base64.b64decode(encoded) if isinstance(encoded, str) else b""
        (size,) = struct.unpack("<I", content[:4])
    except (binascii.Error, ValueError, struct.error):
        raise ValueError(f"path: expected a precompiled_charsmap in {file}, got none that is one") from None
    if size % 4 or size > len(content) - 4:
        raise ValueError(
            f"path: expected a precompiled_charsmap of {len(content)} bytes in {file}, got one that claims {size}"
        )


def _check_template(part: dict[str, Any], file: Path) -> None:
    """Check that a template lists the special tokens that it puts around a text."""
    listed = part.get("special_tokens")
    used = [
        piece["SpecialToken"].get("id")
        for name in ("single", "pair")
        for piece in _pieces(part.get(name))
        if isinstance(piece, dict) and isinstance(piece.get("SpecialToken"), dict)
    ]
    if missing := [token for token in used if not isinstance(listed, dict) or str(token) not in listed]:
        raise ValueError(
            f"path: expected the special tokens of the template in {file} under special_tokens, got none for "
            f"{printable(missing[0])}"
        )


def _pieces(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _check_unknown_token(model: dict[str, Any], file: Path) -> None:
    """Check that a model has its token for what is not in its vocabulary."""
    vocabulary, unknown = model.get("vocab"), model.get("unk_token")
    if model.get("type") in ("WordLevel", "BPE") and isinstance(vocabulary, dict) and isinstance(unknown, str):
        if unknown not in vocabulary:
            raise ValueError(f"path: expected {file} to hold the special tokens, it lacks {printable(unknown)}")
    elif model.get("type") == "Unigram" and model.get("unk_id") is None and not model.get("byte_fallback"):
        raise ValueError(f"path: expected an unk_id for the Unigram model of {file}, got none")
