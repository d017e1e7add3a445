"""Texts from a stream, line by line: plain lines, or JSON Lines.

Every line is one text, and so one row of the result: an empty line of plain text is an empty text. Only a newline ends
a line; the other characters that Unicode counts as line ends may be part of a text.
"""

from __future__ import annotations

import codecs
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from nezha_np.files.text_encoding import decode_utf8

FORMATS = ("lines", "jsonl")


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the input.

    Attributes
    ----------
    name : str
        How an error names it: the input and the number of the line.
    raw : bytes
        Its bytes, with the line end.
    file : str, optional
        The file that it is from, where it is from one.
    """

    name: str
    raw: bytes
    file: str | None = None


def read_lines(stream: BinaryIO, name: str, *, format: str) -> Iterator[Line]:
    """Read a stream line by line.

    Parameters
    ----------
    stream : binary file
        The input.
    name : str
        How an error names the input: a file's path, or another name.
    format : str
        "lines", or "jsonl", whose empty lines at the end are left out.

    Yields
    ------
    Line
        Each line, unchanged.

    Examples
    --------
    >>> import io
    >>> [line.name for line in read_lines(io.BytesIO("一\\n二".encode()), "poem.txt", format="lines")]
    ['poem.txt, line 1', 'poem.txt, line 2']
    """
    empty = None
    file = name if Path(name).is_file() else None
    for number, raw in enumerate(stream, start=1):
        line = Line(f"{name}, line {number}", raw, file)
        if format == "jsonl" and not raw.strip():
            empty = empty or line
            continue
        if empty is not None:  # it was not at the end: `parse_line` refuses it
            yield empty
        yield line


def parse_line(line: Line, *, format: str, field: str) -> tuple[str, dict[str, Any]]:
    """Return the text of a line.

    Parameters
    ----------
    line : Line
        The line.
    format : str
        "lines": the line is the text. "jsonl": the line is JSON, a string or an object.
    field : str
        The field of an object that holds the text.

    Returns
    -------
    text : str
        The text.
    record : dict
        The object of the line; for a text without an object, one with the text as its only field.

    Raises
    ------
    ValueError
        If the line is not UTF-8, not JSON, or has no text in its field; the message names the line. Where it seems to
        be UTF-16 or GBK, the message says so, and names the command that converts the file.

    Examples
    --------
    >>> parse_line(Line("line 7", b'{"id": 3, "text": "hello"}'), format="jsonl", field="text")
    ('hello', {'id': 3, 'text': 'hello'})
    """
    content = _content(line)
    if format == "lines":
        return content, {field: content}
    value = _value(line, content)
    if isinstance(value, str):
        return value, {field: value}
    if not isinstance(value, dict):
        raise ValueError(f"{line.name}: expected a string or an object, got {type(value).__name__}")
    _check_field(line, value, field, str, "a string")
    return value[field], value


def parse_record(line: Line, *, format: str, fields: Sequence[str], several: bool = False) -> dict[str, Any]:
    """Return the texts of a line by their names.

    Parameters
    ----------
    line : Line
        The line.
    format : str
        "lines": the line has a column for each field, with tabs between them; where there is one field, the line is the
        text. "jsonl": the line is an object.
    fields : sequence of str
        The names of the texts.
    several : bool
        Whether the last field is a list of texts, the columns that remain.

    Returns
    -------
    dict
        The object of the line.

    Raises
    ------
    ValueError
        As `parse_line`; or the line has other columns.

    Examples
    --------
    >>> line = Line("line 7", b"who?\\tyou\\tI")
    >>> parse_record(line, format="lines", fields=["question", "choices"], several=True)
    {'question': 'who?', 'choices': ['you', 'I']}
    """
    if len(fields) == 1 and not several:
        return parse_line(line, format=format, field=fields[0])[1]
    content = _content(line)
    if format == "lines":
        columns = content.split("\t")
        if len(columns) < len(fields) or (len(columns) > len(fields) and not several):
            more = " …" if several else ""
            raise ValueError(
                f"{line.name}: expected columns with tabs between them, {', '.join(fields)}{more}, got {len(columns)}"
            )
        if several:
            columns[len(fields) - 1 :] = [columns[len(fields) - 1 :]]  # type: ignore[list-item]
        return dict(zip(fields, columns, strict=True))
    value = _value(line, content)
    if not isinstance(value, dict):
        raise ValueError(f"{line.name}: expected an object, got {type(value).__name__}")
    for field in fields:
        if several and field == fields[-1]:
            _check_field(line, value, field, list, "a list of strings")
        else:
            _check_field(line, value, field, str, "a string")
    return value


def _content(line: Line) -> str:
    # Some programs write a byte order mark at the beginning of a file; it is not part of the text.
    content = decode_utf8(line.raw.removeprefix(codecs.BOM_UTF8), line.name, line.file)
    return content.removesuffix("\n").removesuffix("\r")


def _value(line: Line, content: str) -> Any:
    if not content.strip():
        raise ValueError(f"{line.name}: expected JSON, got an empty line")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{line.name}: expected JSON, got something else: {error}") from None


def _check_field(line: Line, value: dict[str, Any], field: str, kind: type, expected: str) -> None:
    if not isinstance(value.get(field), kind):
        found = (
            f"one where it is {type(value[field]).__name__}" if field in value else f"one with {_some_fields(value)}"
        )
        raise ValueError(f"{line.name}: expected an object with {expected} as {field!r}, got {found}")


def _some_fields(value: dict[str, Any]) -> str:
    names = [repr(key) for key in value]
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "") if names else "nothing in it"
