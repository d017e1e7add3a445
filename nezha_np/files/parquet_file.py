"""Parquet by pyarrow: rows are read as lines of JSON, and lines of JSON are written as rows.

So whatever reads and writes JSON Lines reads and writes Parquet too. pyarrow is imported where a file is Parquet.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from nezha_np.files import text_lines
from nezha_np.files.text_lines import Line, read_lines

FORMATS = (*text_lines.FORMATS, "parquet")
KEY = "line"  # the column of the number of a row's line, from 1 on
ROWS = 1024  # that are read at once


def format_of(name: str) -> str:
    """Tell the format of an input by its name.

    Parameters
    ----------
    name : str
        The name of a file, or another one.

    Returns
    -------
    str
        One of `FORMATS`.

    Examples
    --------
    >>> [format_of(name) for name in ("texts.txt", "texts.ndjson", "texts.parquet")]
    ['lines', 'jsonl', 'parquet']
    """
    suffixes = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
    return suffixes.get(Path(name).suffix.lower(), "lines")


def read_lines_or_rows(stream: BinaryIO, name: str, *, format: str) -> Iterator[Line]:
    """Read a stream line by line, or Parquet row by row, each row as a line of JSON.

    Parameters
    ----------
    stream : binary file
        The input.
    name : str
        How an error names it.
    format : str
        One of `FORMATS`.

    Yields
    ------
    Line
        The lines; a row has all columns, and what JSON does not know as text.

    Raises
    ------
    ModuleNotFoundError
        If pyarrow is missing.
    ValueError
        If the input is no Parquet, or a stream that has no end to begin with.

    Examples
    --------
    >>> import io
    >>> [line.raw for line in read_lines_or_rows(io.BytesIO(b"one\\ntwo"), "texts", format="lines")]
    [b'one\\n', b'two']
    """
    if format != "parquet":
        yield from read_lines(stream, name, format=format)
        return
    if not stream.seekable():
        raise ValueError(f"input: expected a file, because Parquet is read from its end, got {name}")
    _, parquet = import_pyarrow()
    number = 0
    try:
        for batch in parquet.ParquetFile(stream).iter_batches(batch_size=ROWS):
            yield from rows_as_lines(batch, name, number)
            number += batch.num_rows
    except ValueError as error:  # pyarrow's errors of files are some
        raise ValueError(f"{name}: expected Parquet, got something else: {error}") from None


def rows_as_lines(batch: Any, name: str, before: int) -> Iterator[Line]:
    """Turn rows into lines of JSON.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        The rows.
    name : str
        How an error names the input.
    before : int
        How many rows stand before them.

    Yields
    ------
    Line
        The lines; a row has all columns, and what JSON does not know as text.

    Examples
    --------
    >>> import pyarrow
    >>> [line] = rows_as_lines(pyarrow.RecordBatch.from_pylist([{"text": "房间"}]), "texts.parquet", 6)
    >>> line.name, line.raw.decode()
    ('texts.parquet, row 7', '{"text": "房间"}\\n')
    """
    for number, row in enumerate(batch.to_pylist(), start=before + 1):
        yield Line(f"{name}, row {number}", f"{json.dumps(row, ensure_ascii=False, default=str)}\n".encode())


def write_lines_as_rows(path: Path, parts: Iterable[bytes], columns: Mapping[str, Any]) -> None:
    """Write lines of JSON as the rows of a Parquet file.

    Parameters
    ----------
    path : Path
        The file.
    parts : iterable of bytes
        The lines, some at a time: a row group each.
    columns : mapping of str to type
        The fields that are written: ``str``, ``int``, ``float``, a dataclass of these, or ``list[…]``. The number of
        the line stands before them, as `KEY`.

    Raises
    ------
    ModuleNotFoundError
        If pyarrow is missing.
    OSError, ValueError
        If the file cannot be written.
    """
    arrow, parquet = import_pyarrow()
    schema = arrow.schema([(name, _type(arrow, kind)) for name, kind in {KEY: int, **columns}.items()])
    number = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for part in parts:
            rows = []
            for line in part.splitlines():
                number += 1
                rows.append(json.loads(line) | {KEY: number})
            writer.write_table(arrow.Table.from_pylist(rows, schema=schema))


def check_columns(columns: Iterable[str]) -> None:
    """Check that no column has the name of the line's number, and that pyarrow is there.

    Examples
    --------
    >>> check_columns(["line"])
    Traceback (most recent call last):
    ...
    ValueError: field: expected another name than 'line', which is that of the line's number, got that
    """
    if KEY in columns:
        raise ValueError(f"field: expected another name than {KEY!r}, which is that of the line's number, got that")
    import_pyarrow()


def _type(arrow: Any, kind: Any) -> Any:
    """Return pyarrow's type of a type of Python."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return arrow.struct([(field.name, _type(arrow, hints[field.name])) for field in dataclasses.fields(kind)])
    if typing.get_origin(kind) is list:
        return arrow.list_(_type(arrow, typing.get_args(kind)[0]))
    return {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}[kind]


def import_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow, and its module of Parquet.

    Returns
    -------
    tuple of modules
        Both.

    Raises
    ------
    ModuleNotFoundError
        If it is missing; the message says how to install it.

    Examples
    --------
    >>> [module.__name__ for module in import_pyarrow()]
    ['pyarrow', 'pyarrow.parquet']
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('Parquet needs pyarrow: pip install "nezha-np[parquet]"', name="pyarrow") from error
    return pyarrow, pyarrow.parquet
