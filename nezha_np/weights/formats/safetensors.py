"""Safetensors files: where their tensors lie, and how they are written.

A file consists of the length of its header in eight bytes (little-endian), the header in JSON, and the data. The
safetensors library checks the header without reading the data: its length, every dtype, shape and range, that no two
tensors overlap, and that no byte is left between them or after them. It accepts three things that the format forbids
and that are refused here: a name that occurs twice, a header that does not begin with ``{``, and a description of a
tensor that is not as the format says. The library's NumPy loader copies every tensor. So the arrays are made by
`entry.map_tensors`, on a mapping of the file: no weight is read before it is used, and none is copied.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.checks import check_fetched, parse_json, printable
from nezha_np.weights.formats.entry import Entry
from nezha_np.weights.formats.recognition import looks_like

LONGEST_HEADER = 100_000_000  # bytes that the library accepts


def read_header(path: Path) -> dict[str, Entry]:
    """Read and check the header of a safetensors file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to Entry
        The tensors; `start` and `stop` count from the beginning of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If the file cannot be read.
    ValueError
        If the file breaks a rule of the format; the message names the file and the rule.

    Examples
    --------
    >>> import nezha_np as nz
    >>> read_header(nz.weights.checkpoint.SHIPPED / "model.safetensors")["nezha.pooler.dense.bias"].shape
    (256,)
    """
    import safetensors  # here, because the import takes a noticeable part of a short script's time

    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a safetensors file, found no such file")
    check_fetched(path)
    with path.open("rb") as file:
        try:
            with safetensors.safe_open(path, framework="numpy"):
                pass
            (length,) = struct.unpack("<Q", file.read(8))
            return _parse(file.read(length).decode(), data=8 + length)
        except OSError as error:  # a fault of the disk, which says nothing about the format
            raise OSError(f"{path}: expected a file that can be read, got an error: {error}") from None
        except (safetensors.SafetensorError, ValueError) as error:
            why = f"{printable(error)}{looks_like(path) or _cut_short(path)}"
            raise ValueError(f"{path}: expected a safetensors file, got one that breaks the format: {why}") from None


def _cut_short(path: Path) -> str:
    """Say in the end of an error how much of a file is there, where its header says that there is more."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return "; it is cut short: fetch it again"
        (length,) = struct.unpack("<Q", start)
        whole, header = 8 + length, file.read(min(length, LONGEST_HEADER))
    if not header.startswith(b"{") or length > LONGEST_HEADER:
        return ""
    if whole > size:
        return f"; it is cut short, with {size:,} of more than {whole:,} bytes: fetch it again"
    try:
        entries = parse_json(header.decode()).items()
        whole += max(int(entry["data_offsets"][1]) for name, entry in entries if name != "__metadata__")
    except (ValueError, LookupError, TypeError, OverflowError):
        return ""
    return f"; it is cut short, with {size:,} of {whole:,} bytes: fetch it again" if size < whole else ""


def _parse(header: str, *, data: int) -> dict[str, Entry]:
    """Read a header that the library accepted; its offsets count from `data`."""
    if not header.startswith("{"):
        raise ValueError("the header does not begin with {")
    entries = {}
    for name, fields in json.loads(header, object_pairs_hook=_without_duplicates).items():
        if name == "__metadata__":
            continue
        match fields:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(stop)]}:
                entries[name] = Entry(dtype, tuple(shape), data + start, data + stop)
            case _:
                raise ValueError(f"{name} is not described by dtype, shape and data_offsets")
    return entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of the pairs of a JSON object, and refuse a name that occurs twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in the header")
    return found


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file that `read_header` has accepted: texts by name.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to str
        The metadata, empty where the file has none.

    Examples
    --------
    >>> import nezha_np as nz
    >>> read_metadata(nz.weights.checkpoint.SHIPPED / "model.safetensors")
    {'format': 'pt'}
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length)).get("__metadata__") or {}


def write_tensors(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    *,
    bfloat16: bool = False,
) -> None:
    """Write a safetensors file.

    Parameters
    ----------
    path : Path
        The file.
    tensors : mapping of str to array
        The tensors.
    metadata : mapping of str to str, optional
        Texts by name. None: ``{"format": "pt"}``, because transformers refuses a file that does not name the framework
        it was written for.
    bfloat16 : bool
        Whether the tensors are the bits of bfloat16, which NumPy does not have, as integers.

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> write_tensors(path, {"x": np.zeros(3)})
    >>> read_header(path)["x"].shape
    (3,)
    """
    import safetensors.numpy

    described = {"format": "pt"} if metadata is None else dict(metadata)
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    path.touch()
    mode = path.stat().st_mode
    try:
        if bfloat16:  # the library asks NumPy for the names of dtypes
            _write_bits_of_bfloat16(path, contiguous, described)
        else:
            safetensors.numpy.save_file(contiguous, path, metadata=described)
    except safetensors.SafetensorError as error:
        raise _as_os_error(error, path) from None
    path.chmod(mode)  # newer versions of the library let only the owner read the file


def _write_bits_of_bfloat16(path: Path, bits: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    stop = 0
    for name, array in bits.items():
        start, stop = stop, stop + array.nbytes
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": (start, stop)}
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in bits.values():
            file.write(array.astype("<u2", copy=False).data)


def _as_os_error(error: Exception, path: Path) -> OSError:
    """Make Python's own error of the library's, whose text holds the system's message and number.

    Examples
    --------
    >>> _as_os_error(Exception("I/O error: No space left on device (os error 28)"), Path("x.safetensors"))
    OSError(28, 'No space left on device')
    """
    found = re.search(r"([^:]*) \(os error (\d+)\)$", str(error))
    if not found:
        return OSError(f"{path}: {error}")
    return OSError(int(found[2]), found[1].strip(), str(path), int(found[2]))  # Windows reads the number from the last
