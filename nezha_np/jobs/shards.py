"""Shards: a file of lines, cut at line ends into parts that are computed one by one; or of Parquet, cut at rows.

A part holds whole windows (`nezha_np.jobs.line_windows`). Its hash says later whether the file is still the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nezha_np.checks import check_fetched
from nezha_np.files.text_lines import Line
from nezha_np.jobs.row_shards import cut_rows, hash_of_groups, read_rows

BLOCK = 1 << 20  # bytes that are read at once


@dataclasses.dataclass(frozen=True)
class Shard:
    """A part of a file of lines, or of rows.

    Attributes
    ----------
    row : int
        How many lines stand before it.
    lines : int
        How many lines it has.
    start, end : int
        Its first byte, and the one after its last; of Parquet, its first row group and the one after its last.
    sha256 : str
        The hash of these bytes.
    """

    row: int
    lines: int
    start: int
    end: int
    sha256: str


def cut_source(source: Path, *, format: str, shard_lines: int) -> list[Shard]:
    """Cut a file into shards.

    Parameters
    ----------
    source : Path
        The file.
    format : str
        "lines"; "jsonl", whose empty lines at the end are left out; or "parquet".
    shard_lines : int
        How many lines a shard has; the last one may have fewer.

    Returns
    -------
    list of Shard
        The shards; none for a file without lines.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    ValueError
        If it is something else than a file, or a page or pointer in its place.

    Examples
    --------
    >>> import tempfile
    >>> source = Path(tempfile.mkdtemp()) / "texts.txt"
    >>> _ = source.write_bytes(b"one\\ntwo\\nthree")
    >>> shards = cut_source(source, format="lines", shard_lines=2)
    >>> [(shard.row, shard.lines, shard.start, shard.end) for shard in shards]
    [(0, 2, 0, 8), (2, 1, 8, 13)]
    """
    source.stat()
    if not source.is_file():
        raise ValueError(f"{source}: expected a file, which can be cut into shards, found something else")
    check_fetched(source)
    if format == "parquet":
        return [Shard(*part) for part in cut_rows(source, shard_lines)]
    shards: list[Shard] = []
    with source.open("rb") as stream:
        content_end = _content_end(stream) if format == "jsonl" else None
        stream.seek(0)
        row = start = lines = 0
        end, digest = 0, hashlib.sha256()
        for raw in stream:
            if content_end is not None and end >= content_end:
                break
            digest.update(raw)
            lines, end = lines + 1, end + len(raw)
            if lines == shard_lines:
                shards.append(Shard(row, lines, start, end, digest.hexdigest()))
                row, start, lines, digest = row + lines, end, 0, hashlib.sha256()
        if lines:
            shards.append(Shard(row, lines, start, end, digest.hexdigest()))
    return shards


def _content_end(stream: BinaryIO) -> int:
    """Return where the white space at the end of a file begins."""
    end = stream.seek(0, 2)
    while end:
        begin = max(end - BLOCK, 0)
        stream.seek(begin)
        if block := stream.read(end - begin).rstrip():
            return begin + len(block)
        end = begin
    return 0


def read_shard(source: Path, shard: Shard, named: str | None = None, *, format: str = "lines") -> Iterator[Line]:
    """Read the lines of a shard, and check that they are those that it was cut from.

    Parameters
    ----------
    source : Path
        The file.
    shard : Shard
        Its part.
    named : str, optional
        How errors name the file; None: by `source`.
    format : str
        That of the file, as `cut_source` takes it.

    Yields
    ------
    Line
        Each line.

    Raises
    ------
    ValueError
        Before the first line, or after the last one, if the file has changed.

    Examples
    --------
    >>> import tempfile
    >>> source = Path(tempfile.mkdtemp()) / "texts.txt"
    >>> _ = source.write_bytes(b"one\\ntwo\\nthree")
    >>> second = cut_source(source, format="lines", shard_lines=2)[1]
    >>> [(line.name.rpartition(", ")[2], line.raw) for line in read_shard(source, second)]
    [('line 3', b'three')]
    """
    named = str(source) if named is None else named
    changed = (
        f"{named}: expected lines {shard.row + 1:,} to {shard.row + shard.lines:,} as they were when the job was "
        "begun, got others: a file that a job reads may not change; restart=True begins anew"
    )
    if format == "parquet":
        groups = range(shard.start, shard.end)
        if hash_of_groups(source, groups) != shard.sha256:
            raise ValueError(changed)
        yield from read_rows(source, shard.row, shard.lines, groups, named)
        if hash_of_groups(source, groups) != shard.sha256:  # it has changed since
            raise ValueError(changed)
        return
    with source.open("rb") as stream:
        # A line of a file that has changed may be no line at all: so the bytes are checked before they are read.
        stream.seek(shard.start)
        rest, digest = shard.end - shard.start, hashlib.sha256()
        while rest and (block := stream.read(min(rest, BLOCK))):
            digest.update(block)
            rest -= len(block)
        if digest.hexdigest() != shard.sha256:
            raise ValueError(changed)
        stream.seek(shard.start)
        digest = hashlib.sha256()
        for number in range(shard.row + 1, shard.row + shard.lines + 1):
            raw = stream.readline()
            digest.update(raw)
            yield Line(f"{named}, line {number}", raw, named)
        if digest.hexdigest() != shard.sha256:  # it has changed since
            raise ValueError(changed)


def differing_lines(now: list[Shard], then: list[dict[str, Any]]) -> str | None:
    """Say where a file differs from the shards that a job was begun with; None: nowhere.

    Parameters
    ----------
    now : list of Shard
        Those of the file.
    then : list of dict
        Those of the job, as its manifest holds them.

    Returns
    -------
    str or None
        The first lines that differ.

    Examples
    --------
    >>> shards = [Shard(0, 2, 0, 8, "a"), Shard(2, 1, 8, 13, "b")]
    >>> then = [dataclasses.asdict(shard) for shard in shards]
    >>> differing_lines(shards, then), differing_lines(shards[:1], then)
    (None, 'lines 3 to 3')
    """
    found = [dataclasses.asdict(shard) for shard in now]
    for one, other in itertools.zip_longest(found, then):
        if one != other:
            where = one or other
            return f"lines {where['row'] + 1:,} to {where['row'] + where['lines']:,}"
    return None
