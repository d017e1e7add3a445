"""Shards of a Parquet file: rows, read from the row groups that hold them.

A shard holds whole windows, as that of a file of lines does, and a row group what its writer put into it. So a shard
may begin in the middle of a row group: it reads that one from its beginning, and leaves out the rows before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from nezha_np.files.parquet_file import import_pyarrow, rows_as_lines
from nezha_np.files.text_lines import Line

BLOCK = 1 << 20  # bytes that are read at once


def cut_rows(source: Path, shard_lines: int) -> Iterator[tuple[int, int, int, int, str]]:
    """Cut a Parquet file into shards.

    Parameters
    ----------
    source : Path
        The file.
    shard_lines : int
        How many rows a shard has; the last one may have fewer.

    Yields
    ------
    row, rows : int
        How many rows stand before the shard, and how many it has.
    first, end : int
        Its first row group, and the one after its last.
    sha256 : str
        The hash of the bytes of these row groups, and of the end of the file, which says what they mean.

    Raises
    ------
    ModuleNotFoundError
        If pyarrow is missing.
    ValueError
        If the file is no Parquet.
    """
    with source.open("rb") as stream:
        metadata = _metadata(stream, source)
        ends = [0]
        for group in range(metadata.num_row_groups):
            ends.append(ends[-1] + metadata.row_group(group).num_rows)
        hashes = _Hashes(stream, metadata)
        for row in range(0, ends[-1], shard_lines):
            end = min(row + shard_lines, ends[-1])
            groups = [group for group in range(len(ends) - 1) if ends[group] < end and ends[group + 1] > row]
            yield row, end - row, groups[0], groups[-1] + 1, hashes.of(range(groups[0], groups[-1] + 1))


def read_rows(source: Path, row: int, rows: int, groups: Sequence[int], named: str) -> Iterator[Line]:
    """Read rows of a Parquet file, each as a line of JSON.

    Parameters
    ----------
    source : Path
        The file.
    row, rows : int
        How many rows of the file stand before them, and how many they are.
    groups : sequence of int
        The row groups that hold them.
    named : str
        How errors name the file.

    Yields
    ------
    Line
        The rows.
    """
    _, parquet = import_pyarrow()
    with source.open("rb") as stream:
        file = parquet.ParquetFile(stream)
        before = sum(file.metadata.row_group(group).num_rows for group in range(groups[0]))
        for batch in file.iter_batches(batch_size=1024, row_groups=list(groups)):
            start, stop = max(row - before, 0), min(row + rows - before, batch.num_rows)
            if start < stop:
                yield from rows_as_lines(batch.slice(start, stop - start), named, before + start)
            before += batch.num_rows
            if before >= row + rows:
                return


def hash_of_groups(source: Path, groups: Sequence[int]) -> str:
    """Return the hash of row groups, as `cut_rows` does; "" if the file has no such row groups any more."""
    with source.open("rb") as stream:
        try:
            metadata = _metadata(stream, source)
        except ValueError:
            return ""
        return _Hashes(stream, metadata).of(groups) if metadata.num_row_groups >= groups[-1] + 1 else ""


class _Hashes:
    """The hashes of row groups, each of which is read once."""

    def __init__(self, stream: BinaryIO, metadata: Any) -> None:
        self.stream, self.metadata = stream, metadata
        size = stream.seek(0, 2)
        self.end = _hash(stream, size - metadata.serialized_size - 8, size)
        self.known: dict[int, str] = {}

    def of(self, groups: Sequence[int]) -> str:
        for group in groups:
            if group not in self.known:
                start, end = _place(self.metadata.row_group(group))
                self.known[group] = _hash(self.stream, start, end)
        self.known = {group: self.known[group] for group in groups}  # the next shard begins in the last of them
        return hashlib.sha256(json.dumps([self.end, *self.known.values()]).encode()).hexdigest()


def _place(group: Any) -> tuple[int, int]:
    """Return the first byte of a row group, and the one after its last."""
    columns = [group.column(number) for number in range(group.num_columns)]
    starts = [
        column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset for column in columns
    ]
    sizes = [column.total_compressed_size for column in columns]
    return min(starts, default=0), max((start + size for start, size in zip(starts, sizes, strict=True)), default=0)


def _hash(stream: BinaryIO, start: int, end: int) -> str:
    stream.seek(start)
    digest, rest = hashlib.sha256(), end - start
    while rest > 0 and (block := stream.read(min(rest, BLOCK))):
        digest.update(block)
        rest -= len(block)
    return digest.hexdigest()


def _metadata(stream: BinaryIO, source: Path) -> Any:
    _, parquet = import_pyarrow()
    try:
        return parquet.read_metadata(stream)
    except ValueError as error:  # pyarrow's errors of files are some
        raise ValueError(f"{source}: expected Parquet, got something else: {error}") from None
