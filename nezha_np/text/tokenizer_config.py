"""The settings of a tokenizer: those of a call, and those that stand in its files, which are JSON objects."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from nezha_np.checks import parse_json
from nezha_np.files.text_encoding import read_utf8
from nezha_np.text.encode import check_text
from nezha_np.text.truncation import SIDES

# The special tokens by their settings, with the reference's names.
SPECIAL_TOKENS = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}


def check_settings(**settings: Any) -> dict[str, Any]:
    """Check the settings of a call, which `load_tokenizer` describes.

    Parameters
    ----------
    **settings
        The settings by name; None: the call does not set it.

    Returns
    -------
    dict
        Those that are set.

    Raises
    ------
    TypeError
        A setting has a wrong type.
    ValueError
        The name of a special token is empty.

    Examples
    --------
    >>> check_settings(do_lower_case=False, never_split=("ok!",), mask_token=None)
    {'do_lower_case': False, 'never_split': ['ok!']}
    """
    chosen = {name: value for name, value in settings.items() if value is not None}
    for name, value in chosen.items():
        if name == "never_split":
            if isinstance(value, str) or not isinstance(value, Collection):
                raise TypeError(f"{name}: expected a collection of str, got {type(value).__name__}")
            for word in value:
                if not isinstance(word, str):
                    raise TypeError(f"{name}: expected a collection of str, got one with {type(word).__name__} in it")
        elif name in SPECIAL_TOKENS:
            if not isinstance(value, str):
                raise TypeError(f"{name}: expected a str or None, got {type(value).__name__}")
            if not value:
                raise ValueError(f"{name}: expected a name, got ''")
        elif not isinstance(value, bool):
            raise TypeError(f"{name}: expected a bool or None, got {type(value).__name__}")
    if "never_split" in chosen:
        chosen["never_split"] = list(chosen["never_split"])
        for word in chosen["never_split"]:
            check_text("never_split", word)
    return chosen


def read_object(file: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object, such as tokenizer_config.json.

    Parameters
    ----------
    file : Path
        The file, which need not exist.

    Returns
    -------
    dict
        What it holds; nothing where there is no file.

    Raises
    ------
    ValueError
        The file is not UTF-8, not JSON or not an object.

    Examples
    --------
    >>> read_object(Path("nowhere/tokenizer_config.json"))
    {}
    """
    if not file.is_file():
        return {}
    text = read_utf8(file)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise ValueError(f"path: {file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"path: expected a JSON object in {file}, got {type(value).__name__}")
    return value


def get_setting(
    config: dict[str, Any], key: str, kind: type, default: Any, *, file: str = "tokenizer_config.json"
) -> Any:
    """Look up one setting and check its type.

    Parameters
    ----------
    config : dict
        What tokenizer_config.json holds, and the settings of the call, which go first.
    key : str
        The name of the setting.
    kind : type
        What its value must be.
    default : object
        Its value where it is absent or null.
    file : str
        The name of the file, for errors.

    Returns
    -------
    object
        Its value.

    Raises
    ------
    ValueError
        The value has another type.

    Examples
    --------
    >>> get_setting({"do_lower_case": None}, "do_lower_case", bool, True)
    True
    """
    value = default if config.get(key) is None else config[key]
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"path: expected {kind.__name__} for {key} in {file}, got {value!r}")
    return value


def get_side(config: dict[str, Any], key: str, default: str) -> str:
    """Look up on which side texts are padded or cut.

    Parameters
    ----------
    config : dict
        What tokenizer_config.json holds.
    key : str
        "padding_side" or "truncation_side".
    default : str
        The side where it is absent or null.

    Returns
    -------
    str
        "right" or "left".

    Raises
    ------
    ValueError
        The value is neither.

    Examples
    --------
    >>> get_side({"padding_side": "left"}, "padding_side", "right")
    'left'
    """
    side: str = get_setting(config, key, str, default)
    if side not in SIDES:
        raise ValueError(f"path: expected 'right' or 'left' for {key} in tokenizer_config.json, got {side!r}")
    return side


def get_never_split(config: dict[str, Any]) -> list[str]:
    """Look up the words that are never split.

    Parameters
    ----------
    config : dict
        What tokenizer_config.json holds, and the settings of the call.

    Returns
    -------
    list of str
        The words, sorted, each once.

    Raises
    ------
    ValueError
        The setting is not a list of str, or a word is not valid Unicode.

    Examples
    --------
    >>> get_never_split({"never_split": ["ok!", "a-b", "ok!"]})
    ['a-b', 'ok!']
    """
    words = get_setting(config, "never_split", list, [])
    if not all(isinstance(word, str) for word in words):
        raise ValueError(f"path: expected a list of str for never_split in tokenizer_config.json, got {words!r}")
    for word in words:
        check_text("path: never_split in tokenizer_config.json", word)
    return sorted({word for word in words if word})
