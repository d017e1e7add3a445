"""Checks of plain arguments: an integer, an option that is on or off, a path, a dtype, a device.

An error names the argument, what was expected, and what came.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MOST_LEVELS = 100  # of JSON
DTYPES = ("float16", "float32", "float64")  # the dtypes that weights may have
KEPT_DTYPES = ("bfloat16", *DTYPES)  # and those that a file or memory may keep them in
GIT_LFS = b"version https://git-lfs"  # how the pointers begin that Git LFS puts in the place of large files
# Characters that do not stand for themselves on a terminal: controls, controls of the direction, separators of lines,
# halves of characters.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def check_switches(**switches: Any) -> None:
    """Check options that are True, False or None.

    Parameters
    ----------
    **switches : bool or None
        The options by name.

    Raises
    ------
    TypeError
        If one of them is something else.

    Examples
    --------
    >>> check_switches(use_cache="no")
    Traceback (most recent call last):
    ...
    TypeError: use_cache: expected True, False or None, got 'no'
    """
    for name, value in switches.items():
        if value is not None and not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}: expected True, False or None, got {value!r}")


def check_integer(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Check an option that is an integer.

    Parameters
    ----------
    name : str
        The name of the argument, for an error.
    value : int
        The option, a Python or a NumPy integer.
    least, most : int, optional
        The smallest and the largest value that are allowed; None: there is no limit.

    Returns
    -------
    int
        The option as a Python integer.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it lies outside the limits.

    Examples
    --------
    >>> check_integer("top_k", 0, least=1)
    Traceback (most recent call last):
    ...
    ValueError: top_k: expected a number from 1 on, got 0
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if (least is not None and value < least) or (most is not None and value > most):
        bounds = f"from {least} on" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: expected a number {bounds}, got {shortened(int(value))}")
    return int(value)


def shortened(value: int) -> str:
    """Write a number for an error, not more of it than can be read.

    Parameters
    ----------
    value : int
        The number.

    Returns
    -------
    str
        Its digits, or how long it is.

    Examples
    --------
    >>> shortened(12), shortened(10**5000)
    ('12', 'a number of 16610 bits')
    """
    return str(value) if abs(value) < 10**40 else f"a number of {value.bit_length()} bits"


def parse_json(text: str) -> Any:
    """Read JSON, of no more levels than error messages and copies of it can have.

    Parameters
    ----------
    text : str
        The text.

    Returns
    -------
    object
        What it says.

    Raises
    ------
    ValueError
        If it is not JSON, or lists and objects stand inside of one another in more than `MOST_LEVELS` levels.

    Examples
    --------
    >>> parse_json('{"vocab_size": 9}')
    {'vocab_size': 9}
    """
    deep = f"expected at most {MOST_LEVELS} levels of lists and objects inside of one another, got more"
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(deep) from None
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [item for each in level for item in _items(each)]
    if level:
        raise ValueError(deep)
    return value


def _items(value: Any) -> Any:
    """Return what stands in a list or an object of JSON."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def printable(text: object) -> str:
    """Write a text that comes out of a file so that it can be printed: a name could move the cursor or hide a line.

    Parameters
    ----------
    text : object
        The text, or what has one.

    Returns
    -------
    str
        The same with codes in the place of control characters.

    Examples
    --------
    >>> print(printable("\\x1b[2Jpooler\\n"))
    \\x1b[2Jpooler\\n
    """
    return CONTROLS.sub(lambda match: repr(match[0])[1:-1], str(text))


def as_codes(text: str) -> str:
    """Write control characters, and halves of characters, in JSON as JSON's codes: it says the same.

    Parameters
    ----------
    text : str
        JSON, of one line or more.

    Returns
    -------
    str
        The JSON, which a terminal shows as it is and UTF-8 can encode.

    Examples
    --------
    >>> as_codes('"\x7f"')
    '"\\\\u007f"'
    """
    return CONTROLS.sub(lambda match: "\n" if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def check_finite(name: str, value: Any, *, below: float = math.inf) -> float:
    """Check an option that is a finite number, not below 0.

    Parameters
    ----------
    name : str
        The name of the argument, for an error.
    value : float
        The option.
    below : float
        What it must be smaller than.

    Returns
    -------
    float
        The option.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is outside its range.

    Examples
    --------
    >>> check_finite("beta1", 1.0, below=1.0)
    Traceback (most recent call last):
    ...
    ValueError: beta1: expected a number from 0 to below 1, got 1.0
    """
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    if not 0.0 <= number < below:
        wanted = "a finite number from 0 on" if below == math.inf else f"a number from 0 to below {below:g}"
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return number


def listed(names: list[str], most: int = 20) -> str:
    """List names for an error, not more of them than can be read.

    Parameters
    ----------
    names : list of str
        The names.
    most : int
        How many of them to list; the others are counted.

    Returns
    -------
    str
        The names, with commas between them, and codes in the place of control characters.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    return ", ".join(map(printable, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_path(path: Any, name: str = "path") -> Path:
    """Check a path.

    Parameters
    ----------
    path : str or os.PathLike
        The path.
    name : str
        The name of the argument, for an error.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    TypeError
        If it is no path.
    ValueError
        If it is an empty text, as a variable of a shell is that was never set: Python takes it for the current folder.

    Examples
    --------
    >>> check_path("folder").name
    'folder'
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name}: expected a path, got {type(path).__name__}")
    if path == "":
        raise ValueError(f"{name}: expected a path, got an empty text")
    return Path(path)


def what_stands_at(path: Path) -> str:
    """Say what stands in a place where a file is missing, for an error: ``found …``.

    Parameters
    ----------
    path : Path
        The place.

    Returns
    -------
    str
        The words.

    Examples
    --------
    >>> what_stands_at(Path("no_such_file"))
    'none at no_such_file'
    """
    if path.is_dir():
        return f"a folder: {path}"
    return f"something else: {path}" if path.exists() else f"none at {path}"


def check_fetched(path: Path, start: bytes | None = None) -> None:
    """Check that a file is what its name says, and not something that was downloaded in its place.

    Parameters
    ----------
    path : Path
        A file that exists.
    start : bytes, optional
        How it begins; None: that is read.

    Raises
    ------
    ValueError
        If it is a pointer of Git LFS or a web page.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "vocab.txt"
    >>> _ = path.write_text("version https://git-lfs.github.com/spec/v1")
    >>> check_fetched(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...: expected the file itself, got a Git LFS pointer, which stands for it: fetch it (git lfs pull)
    """
    if start is None:
        with path.open("rb") as file:
            start = file.read(64)
    expected = f"{path}: expected the file itself, got"
    if start.startswith(GIT_LFS):
        raise ValueError(f"{expected} a Git LFS pointer, which stands for it: fetch it (git lfs pull)")
    if start[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise ValueError(f"{expected} a web page (HTML): download the file, not the page that shows it")


def check_dtype(dtype: Any, names: Sequence[str] = DTYPES) -> str:
    """Check a dtype that weights shall have.

    Parameters
    ----------
    dtype : dtype or str
        A dtype of any library, or the name of one.
    names : sequence of str
        Those that it may be.

    Returns
    -------
    str
        Its name.

    Raises
    ------
    ValueError
        If it is another one.

    Examples
    --------
    >>> import numpy as np
    >>> check_dtype(np.float32)
    'float32'
    """
    try:
        name = None if dtype is None else str(np.dtype(dtype).name)  # np.dtype takes None for float64
    except (TypeError, ValueError):
        name = str(dtype).rpartition(".")[2]  # other libraries' dtypes say "torch.float32"
    if name is None or name not in names:
        raise ValueError(f"dtype: expected one of {', '.join(names)}, got {dtype!r}")
    return name


def check_device(device: str | None) -> int | None:
    """Check a device that weights shall lie on.

    Parameters
    ----------
    device : str or None
        ``"cpu"``, ``"cuda"``, ``"cuda:1"`` …; None: the CPU.

    Returns
    -------
    int or None
        The number of the GPU; None for the CPU.

    Raises
    ------
    TypeError
        If it is no text.
    ValueError
        If it is no such device.
    ModuleNotFoundError
        If it is a GPU, and CuPy is not installed.

    Examples
    --------
    >>> check_device("cpu")
    """
    if device is None or device == "cpu":
        return None
    if not isinstance(device, str):
        raise TypeError(f"device: expected 'cpu', 'cuda' or 'cuda:1', got {device!r}")
    match = re.fullmatch(r"cuda(?::([0-9]+))?", device)
    if match is None:
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:1', got {device!r}")
    if importlib.util.find_spec("cupy") is None:
        raise ModuleNotFoundError(
            f'device: {device!r} needs CuPy: pip install "nezha-np[cuda12]" or "nezha-np[cuda13]"', name="cupy"
        )
    return int(match[1] or 0)
