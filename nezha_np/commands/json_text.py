"""JSON that a command reads, from a file or from an option, and JSON that it prints for other programs."""

from __future__ import annotations

import codecs
import json
import math
from pathlib import Path
from typing import Any

from nezha_np.checks import as_codes, check_fetched
from nezha_np.files.text_encoding import decode_utf8


def parse_json(text: str, name: str, expected: str) -> Any:
    """Parse JSON.

    Parameters
    ----------
    text : str
        The JSON.
    name : str
        What to call it in an error: an option, or a file.
    expected : str
        What the error says was expected.

    Returns
    -------
    object
        The value.

    Raises
    ------
    ValueError
        If the text is not JSON.

    Examples
    --------
    >>> parse_json("[1", "--labels", "JSON such as [[-100, 7]]")
    Traceback (most recent call last):
    ...
    ValueError: --labels: expected JSON such as [[-100, 7]], got text that is not JSON: Expecting ',' delimiter: \
line 1 column 3 (char 2)
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected {expected}, got text that is not JSON: {error}") from None


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : Path
        The file, in UTF-8.
    expected : str
        What an error says was expected in it.

    Returns
    -------
    object
        The value.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not JSON in UTF-8.

    Examples
    --------
    >>> read_json(Path("nowhere.json"), "a list")
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere.json: expected a JSON file, found no such file
    """
    if not path.exists() or path.is_dir():  # it may be a pipe, as a shell makes of <(…)
        raise FileNotFoundError(f"{path}: expected a JSON file, found no such file")
    content = path.read_bytes()
    check_fetched(path, content[:64])
    content = content.removeprefix(codecs.BOM_UTF8)  # PowerShell writes a byte-order mark
    return parse_json(decode_utf8(content, str(path), path), str(path), expected)


def format_json(value: Any) -> str:
    """Write JSON that every reader takes: NaN and infinities, which the standard does not have, become null.

    Characters that a terminal would obey are written as codes.

    Parameters
    ----------
    value : object
        Dicts, lists, tuples, strings, numbers.

    Returns
    -------
    str
        The JSON, indented.

    Examples
    --------
    >>> print(format_json({"largest": float("nan")}))
    {
      "largest": null
    }
    """
    return as_codes(json.dumps(_without_infinities(value), ensure_ascii=False, allow_nan=False, indent=2))


def _without_infinities(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_infinities(part) for key, part in value.items()}
        case list() | tuple():
            return [_without_infinities(part) for part in value]
        case float() if not math.isfinite(value):
            return None
    return value
