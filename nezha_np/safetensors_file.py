"""Safetensors files, mapped into memory: no weight is read before it is used, and none is copied.

A file is eight bytes with the header's length (little-endian), the header in JSON, and the data. The safetensors library
checks the header (its length, every dtype, shape and range: no overlap, no gap, nothing outside the file) without
reading the data; its NumPy loader however copies every tensor, so the arrays are made here, on a mapping of the file.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# What the arrays of each dtype of the format are; bfloat16, which NumPy does not have, as its 16 bits.
DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor as the header describes it: its dtype (the format's name), shape, and bytes from `start` to `stop`."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


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
    ValueError
        If the file breaks a promise of the format; the message names the file and says which.

    Examples
    --------
    >>> import nezha_np as nz
    >>> read_header(nz.weights.SHIPPED / "model.safetensors")["nezha.pooler.dense.bias"].shape
    (128,)
    """
    import safetensors  # here, because most of a short script's life is spent importing

    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a safetensors file, found no such file")
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path}: expected a safetensors file, got one that breaks the format: {error}") from None
    header.pop("__metadata__", None)
    return {
        name: Entry(entry["dtype"], tuple(entry["shape"]), *(8 + length + offset for offset in entry["data_offsets"]))
        for name, entry in header.items()
    }


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in the header")
    return found


def map_tensors(path: Path, entries: Mapping[str, Entry]) -> dict[str, np.ndarray]:
    """Map the tensors of a safetensors file into memory.

    Parameters
    ----------
    path : Path
        The file.
    entries : mapping of str to Entry
        The tensors that are wanted, from `read_header`.

    Returns
    -------
    dict of str to array
        Read-only arrays on the mapped file, in the dtypes of the file; bfloat16 becomes float32, because NumPy does not
        have it. A tensor that does not lie on a multiple of its element's size is copied.

    Examples
    --------
    >>> import nezha_np as nz
    >>> path = nz.weights.SHIPPED / "model.safetensors"
    >>> map_tensors(path, read_header(path))["nezha.pooler.dense.bias"].dtype
    dtype('float16')
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    tensors = {}
    for name, entry in entries.items():
        dtype = DTYPES[entry.dtype]
        count = (entry.stop - entry.start) // dtype.itemsize
        array = np.frombuffer(mapped, dtype, count, entry.start).reshape(entry.shape)
        if entry.dtype == "BF16":
            array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
        elif not array.flags.aligned:
            array = array.copy()
        array.flags.writeable = False
        tensors[name] = array
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file beside its place and move it there: a failure leaves what was there before.

    Parameters
    ----------
    path : Path
        The file.
    tensors : mapping of str to array
        The tensors.

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

    def write(file: Path) -> None:
        # transformers refuses a file whose metadata does not say for which framework it was written.
        contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        safetensors.numpy.save_file(contiguous, file, metadata={"format": "pt"})

    write_beside(path, write)


def write_beside(path: Path, write: Any) -> None:
    """Let `write` write a file beside `path`, then move it into place.

    Parameters
    ----------
    path : Path
        Where the file belongs.
    write : callable
        Is given the path of an empty file to fill.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_beside(path, lambda file: file.write_text("done"))
    >>> path.read_text()
    'done'
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    beside = Path(name)
    try:
        write(beside)
        # mkstemp makes private files; a saved model is as readable as any other new file.
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o666 & ~mask)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
