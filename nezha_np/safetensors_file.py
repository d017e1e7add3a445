"""Safetensors files, mapped into memory: no weight is read before it is used, and none is copied.

A file is eight bytes with the header's length (little-endian), the header in JSON, and the data. The safetensors
library checks the header (its length, every dtype, shape and range: no overlap, no gap, nothing outside the file)
without reading the data. It lets three things pass that the format forbids, which are refused here: a name that stands
twice, a header that does not begin with ``{``, and descriptions in other JSON than the format's. Its NumPy loader
copies every tensor, so the arrays are made here, on a mapping of the file.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# What the arrays of each dtype of the format are; bfloat16, which NumPy does not have, as its 16 bits.
DTYPES: dict[str, np.dtype[Any]] = {
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
    >>> read_header(nz.checkpoint.SHIPPED / "model.safetensors")["nezha.pooler.dense.bias"].shape
    (128,)
    """
    import safetensors  # here, because most of a short script's life is spent importing

    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a safetensors file, found no such file")
    with path.open("rb") as file:
        try:
            with safetensors.safe_open(path, framework="numpy"):
                pass
            (length,) = struct.unpack("<Q", file.read(8))
            return _parse(file.read(length).decode(), data=8 + length)
        except (safetensors.SafetensorError, ValueError, OSError) as error:
            raise ValueError(f"{path}: expected a safetensors file, got one that breaks the format: {error}") from None


def _parse(header: str, *, data: int) -> dict[str, Entry]:
    """Read a header that the library accepted; `data` is where its offsets count from."""
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

    Raises
    ------
    ValueError
        If NumPy cannot hold a tensor: it has no such dtype (F8, for example) or shape; the message names the tensor.

    Examples
    --------
    >>> import nezha_np as nz
    >>> path = nz.checkpoint.SHIPPED / "model.safetensors"
    >>> map_tensors(path, read_header(path))["nezha.pooler.dense.bias"].dtype
    dtype('float16')
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    tensors = {}
    for name, entry in entries.items():
        if entry.dtype not in DTYPES:
            raise ValueError(f"{path}: expected one of {', '.join(DTYPES)}, got {entry.dtype} for {name}")
        dtype = DTYPES[entry.dtype]
        array = np.frombuffer(mapped, dtype, (entry.stop - entry.start) // dtype.itemsize, entry.start)
        try:
            array = array.reshape(entry.shape)
        except ValueError:  # more than 64 axes, or an axis of 0 beside an enormous one
            raise ValueError(f"{path}: expected a shape that NumPy can hold, got {entry.shape} for {name}") from None
        if entry.dtype == "BF16":
            array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
        elif not array.flags.aligned:
            array = array.copy()
        array.flags.writeable = False
        tensors[name] = array
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file that transformers reads too.

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

    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    path.touch()
    mode = path.stat().st_mode
    # transformers refuses a file whose metadata does not say for which framework it was written.
    safetensors.numpy.save_file(contiguous, path, metadata={"format": "pt"})
    path.chmod(mode)  # newer versions of the library make private files; a model is as readable as any new file


def write_beside(folder: Path, write: Callable[[Path], object]) -> None:
    """Write files beside their places and move them there once all are written: a failure leaves what was there.

    Parameters
    ----------
    folder : Path
        Where the files belong; it is made if need be.
    write : callable
        Is given the path of an empty folder to write them into.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> write_beside(folder, lambda beside: (beside / "note.txt").write_text("done"))
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".nezha-np-", dir=folder) as beside:
        write(Path(beside))
        for file in sorted(Path(beside).iterdir()):
            file.replace(folder / file.name)
