"""NumPy's ``.npz`` files: zip archives of arrays. Checkpoints of TensorFlow can be converted to them."""

from __future__ import annotations

import dataclasses
import io
import math
import mmap
from pathlib import Path

import numpy as np

from nezha_np.checks import check_fetched, printable
from nezha_np.weights.formats.entry import DTYPES, Entry, first_bytes, row_strides
from nezha_np.weights.formats.recognition import looks_like
from nezha_np.weights.formats.zip_archive import files_in_archive

LONGEST_HEADER = 2**17  # of an array; NumPy reads none that has more than 10,000 characters
NAMES = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}


def read_header(path: Path) -> dict[str, Entry]:
    """Find the arrays of an ``.npz`` file, as `numpy.savez` or `numpy.savez_compressed` writes it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to Entry
        The arrays. A dtype for which safetensors has no name goes by NumPy's name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is broken, or holds Python objects, which are never read.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "x.npz"
    >>> np.savez(path, **{"bert/pooler/dense/bias": np.zeros(3)})
    >>> read_header(path)["bert/pooler/dense/bias"].shape
    (3,)
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an .npz file, found no such file")
    check_fetched(path)
    entries = {}
    try:
        places = files_in_archive(path)
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            for name, place in places.items():
                try:
                    entry = _read_array_header(mapped, place)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
                if (array := name.removesuffix(".npy")) in entries:
                    raise ValueError(f"the zip archive holds both {array} and {array}.npy, which are one name")
                entries[array] = entry
    except ValueError as error:
        raise ValueError(
            f"{path}: expected an .npz file as numpy.savez writes it, got another: {printable(error)}{looks_like(path)}"
        ) from None
    return entries


def _read_array_header(mapped: mmap.mmap, place: Entry) -> Entry:
    """Read the header with which the bytes of an array begin."""
    file = io.BytesIO(first_bytes(mapped, place, LONGEST_HEADER))
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"expected version 1.0 or 2.0 of the array format, got {version[0]}.{version[1]}")
    try:
        shape, by_columns, dtype = readers[version](file)
    except Exception:  # NumPy gives the header to Python's parser and tokenizer, which raise errors of many types
        raise ValueError("expected the header of an array") from None
    start, stop = place.start + file.tell(), place.stop
    if dtype.hasobject:
        raise ValueError("expected numbers, got pickled Python objects, which are never read")
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != stop - start:
        raise ValueError(f"expected the bytes of {dtype} {shape}, got {stop - start}")
    strides = None
    if by_columns and len(shape) > 1 and 0 not in shape:
        strides = row_strides(shape[::-1])[::-1]
    return dataclasses.replace(place, dtype=NAMES.get(dtype, str(dtype)), shape=shape, start=start, strides=strides)
