"""Where a tensor lies in a file, and arrays on a mapping of the file: what the readers of all formats return."""

from __future__ import annotations

import dataclasses
import math
import mmap
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.checks import printable
from nezha_np.narrow.bfloat16 import widened
from nezha_np.narrow.matrix import BFLOAT16, NarrowMatrix

# NumPy's dtypes by safetensors' names. NumPy does not have bfloat16: its 16 bits are read as an integer.
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


# The tensors of a file may take more bytes than the file, because they are deflated in it or repeat one another: twice
# as many and so many more. Otherwise a small file could ask for any amount of memory.
MOST_EXPANDED = 2**30


@dataclasses.dataclass(frozen=True)
class Deflated:
    """A part of a file that deflate compressed: from byte `start` to byte `stop`; `size` and `crc` once inflated."""

    start: int
    stop: int
    size: int
    crc: int

    def inflate(self, file: mmap.mmap | bytes, most: int | None = None) -> bytes:
        """Return the inflated bytes, or the first `most` of them.

        Raises
        ------
        ValueError
            If they are broken, or of another number.
        """
        wanted = self.size if most is None else min(most, self.size)
        # Deflate never takes much more bytes than it gives, so that of a large part its beginning is enough for a few.
        compressed = file[self.start : min(self.stop, self.start + wanted + wanted // 1000 + 1024)]
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            found = inflater.decompress(compressed, wanted + 1)
        except zlib.error as error:
            raise ValueError(f"the compressed bytes are broken: {error}") from None
        if not (len(found) > wanted or (len(found) == self.size and inflater.eof)) or len(found) > self.size:
            raise ValueError(f"expected {self.size} bytes once they are inflated, got others")
        if wanted == self.size and zlib.crc32(found) != self.crc:
            raise ValueError("the compressed bytes are broken: their checksum is another")
        return found[:wanted]


@dataclasses.dataclass(frozen=True)
class Stored:
    """A part of a file that has a checksum, of the bytes as they are: from byte `start` to byte `stop`."""

    start: int
    stop: int
    crc: int

    def check(self, file: mmap.mmap | bytes) -> None:
        """Check the bytes.

        Raises
        ------
        ValueError
            If their checksum is another.
        """
        with memoryview(file) as held:
            if zlib.crc32(held[self.start : self.stop]) != self.crc:
                raise ValueError("the bytes are broken: their checksum is another; fetch or save it again")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor as a file describes it.

    Attributes
    ----------
    dtype : str
        What it holds, by safetensors' names.
    shape : tuple of int
        The sizes of its axes.
    start, stop : int
        Its bytes in the file, or in what is inflated; with strides, the span from the first element to the last.
    strides : tuple of int or None
        For each axis the number of elements from one index to the next. None: rows follow one another without gaps.
    deflated : Deflated or None
        The part of the file to inflate; None: the bytes are in the file as they are.
    stored : Stored or None
        The part of the file that has a checksum, if the file's writer has made one and it is compared.

    Examples
    --------
    >>> Entry("F32", (2, 3), 0, 24).transposed(1, 0)
    Entry(dtype='F32', shape=(3, 2), start=0, stop=24, strides=(1, 3))
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    strides: tuple[int, ...] | None = None
    deflated: Deflated | None = dataclasses.field(default=None, repr=False)
    stored: Stored | None = dataclasses.field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        """The bytes of all elements."""
        if self.strides is None or self.dtype not in DTYPES:
            return self.stop - self.start
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def at(self, index: int) -> Entry:
        """Return the entry of the part at an index of the first axis; a part has no checksum."""
        strides = row_strides(self.shape) if self.strides is None else self.strides
        size = DTYPES[self.dtype].itemsize
        start = self.start + index * strides[0] * size
        shape, rest = self.shape[1:], strides[1:]
        reach = sum((length - 1) * step for length, step in zip(shape, rest, strict=True))
        return dataclasses.replace(
            self,
            shape=shape,
            start=start,
            stop=start + (reach + 1) * size,
            strides=None if self.strides is None else rest,
            stored=None,
        )

    def transposed(self, *axes: int) -> Entry:
        """Return an entry of the same bytes with the axes in another order."""
        strides = row_strides(self.shape) if self.strides is None else self.strides
        return dataclasses.replace(
            self, shape=tuple(self.shape[axis] for axis in axes), strides=tuple(strides[axis] for axis in axes)
        )

    def with_last_axis(self) -> Entry:
        """Return an entry of the same bytes with one more axis, of size 1."""
        strides = None if self.strides is None else (*self.strides, 1)
        return dataclasses.replace(self, shape=(*self.shape, 1), strides=strides)


def row_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of rows that follow one another without gaps.

    Examples
    --------
    >>> row_strides((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def map_tensors(
    path: Path, entries: Mapping[str, Entry], *, mapped: bool = True, bfloat16: bool = False
) -> dict[str, Any]:
    """Map the tensors of a file into memory.

    Parameters
    ----------
    path : Path
        The file.
    entries : mapping of str to Entry
        The tensors to map, as the reader of the file's format describes them.
    mapped : bool
        False: the file is read into memory instead.
    bfloat16 : bool
        Whether matrices in bfloat16 are mapped too, as `nezha_np.narrow.matrix.NarrowMatrix`.

    Returns
    -------
    dict of str to array
        Read-only arrays on the mapped file, in the dtypes of the file; bfloat16 becomes float32, because NumPy does not
        have it, but for what `bfloat16` asks for. A tensor whose start is not aligned to the size of its elements is
        copied, and a deflated one inflated.

    Raises
    ------
    ValueError
        If bytes have another checksum, deflated ones are broken, or NumPy cannot hold a tensor: it has no such dtype
        (F8, for example) or shape. The message names the tensor.

    Examples
    --------
    >>> import nezha_np as nz
    >>> from nezha_np.weights.formats.safetensors import read_header
    >>> path = nz.weights.checkpoint.SHIPPED / "model.safetensors"
    >>> map_tensors(path, read_header(path))["nezha.pooler.dense.bias"].dtype
    dtype('float16')
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if mapped else file.read()
    # What follows would read what is gone.
    if any(entry.stop > len(content) for entry in entries.values() if entry.deflated is None):
        raise ValueError(f"{path}: expected the file as its header says, got a shorter one: it was changed meanwhile")
    tensors: dict[str, Any] = {}
    inflated: dict[Deflated, bytes] = {}
    for name, entry in entries.items():
        if entry.dtype not in DTYPES:
            raise ValueError(f"{path}: expected one of {', '.join(DTYPES)}, got {entry.dtype} for {printable(name)}")
        dtype = DTYPES[entry.dtype]
        held: mmap.mmap | bytes = content
        if entry.deflated is not None:
            if entry.deflated not in inflated:
                inflated[entry.deflated] = _inflated(path, name, entry.deflated, content)
            held = inflated[entry.deflated]
        if entry.stored is not None:
            try:
                entry.stored.check(content)
            except ValueError as error:
                raise ValueError(f"{path}: expected the tensor {printable(name)} as it was written: {error}") from None
        array = np.frombuffer(held, dtype, (entry.stop - entry.start) // dtype.itemsize, entry.start)
        keep = bfloat16 and entry.dtype == "BF16" and len(entry.shape) == 2 and entry.strides is None
        if entry.dtype == "BF16" and not keep:
            array = widened(array)
        elif not array.flags.aligned:
            array = array.copy()
        try:
            if entry.strides is None:
                array = array.reshape(entry.shape)
            else:
                steps = [step * array.itemsize for step in entry.strides]
                array = np.lib.stride_tricks.as_strided(array, entry.shape, steps, writeable=False)
        except ValueError:  # more than 64 axes, or an axis of size 0 and an enormous one
            raise ValueError(
                f"{path}: expected a shape that NumPy can hold, got {entry.shape} for {printable(name)}"
            ) from None
        array.flags.writeable = False
        tensors[name] = NarrowMatrix(array, BFLOAT16) if keep else array
    return tensors


def _inflated(path: Path, name: str, deflated: Deflated, mapped: mmap.mmap | bytes) -> bytes:
    try:
        return deflated.inflate(mapped)
    except ValueError as error:
        raise ValueError(f"{path}: expected a compressed tensor {printable(name)}, got another: {error}") from None


def first_bytes(file: mmap.mmap | bytes, entry: Entry, most: int) -> bytes:
    """Read the first bytes of what an entry describes.

    Parameters
    ----------
    file : mmap
        The mapped file.
    entry : Entry
        Bytes of the file.
    most : int
        How many to read.

    Returns
    -------
    bytes
        They; fewer where the entry has no more.

    Raises
    ------
    ValueError
        If they are deflated and broken.
    """
    if entry.deflated is not None:
        return entry.deflated.inflate(file, most)
    return file[entry.start : min(entry.stop, entry.start + most)]
