"""The engine of the commands from texts to answers: it reads records line by line and writes each with its result.

Lines go through the model some at a time, sorted by length, so memory does not grow with the input, and little padding
is needed. A file appears once it is complete.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import nezha_np as nz
from nezha_np.checks import check_integer
from nezha_np.commands.embed_lines import open_input
from nezha_np.commands.output import write_bytes
from nezha_np.commands.progress import Progress
from nezha_np.files.atomic import resolve_target, write_atomically
from nezha_np.files.text_lines import Line, parse_record, read_lines

TOGETHER = 32  # batches that are read, and sorted by length, together
Record = dict[str, Any]
PART = re.compile(r"\A(texts|pairs|questions|contexts|choices)\[(?P<number>\d+)\]")


@dataclasses.dataclass(frozen=True)
class TaskOfLines:
    """What a command does with records.

    Attributes
    ----------
    fields : tuple of str
        The fields of a record that it reads; the columns of a line. The last one may have several columns.
    result : str
        The field that it adds.
    run : callable
        Turns records into a list of results for each: dataclasses, or lists of them.
    shown : callable
        Turns one of these results into words, for lines.
    several : bool
        Whether the last field is a list.
    """

    fields: tuple[str, ...]
    result: str
    run: Callable[[Sequence[Record]], Sequence[Sequence[Any]]]
    shown: Callable[[Any], str]
    several: bool = False


def load_model(path: str | None) -> nz.Weights | None:
    """Load the model of ``--model``; None: the task's own."""
    return None if path is None else nz.load(path)


def run_task(task: TaskOfLines, options: argparse.Namespace) -> None:
    """Read records, run the task on them, and write them.

    Parameters
    ----------
    task : TaskOfLines
        What is done.
    options : argparse.Namespace
        Those of `nezha_np.commands.task_options`.

    Raises
    ------
    OSError, TypeError, ValueError
        If something is wrong; the message names the line.
    """
    check_integer("batch_size", options.batch_size, least=1)
    task.run([])  # a wrong option is an error before anything is read
    target = None if options.output in (None, "-") else resolve_target(Path(options.output), force=options.force)
    with open_input(options.file) as (stream, name), Progress(stream, wanted=options.progress) as progress:
        lines = _written_lines(task, options, stream, name, progress)
        if target is None:
            for data in lines:
                if not write_bytes(data):
                    return  # nobody reads what would follow
        else:
            file: Path = target
            write_atomically(file.parent, lambda folder: _write(folder / file.name, lines))


def _write(file: Path, parts: Iterator[bytes]) -> None:
    with file.open("wb") as stream:
        for data in parts:
            stream.write(data)


def _written_lines(
    task: TaskOfLines, options: argparse.Namespace, stream: BinaryIO, name: str, progress: Progress
) -> Iterator[bytes]:
    """Yield the lines of the output, some at a time."""
    form = options.input_format
    if form is None:
        form = "jsonl" if Path(name).suffix.lower() in (".jsonl", ".ndjson") else "lines"
    lines = read_lines(stream, name, format=form)
    while some := list(itertools.islice(lines, options.batch_size * TOGETHER)):
        records = [parse_record(line, format=form, fields=task.fields, several=task.several) for line in some]
        for line, record in zip(some, records, strict=True):
            if options.format != "lines" and task.result in record:
                raise ValueError(
                    f"{line.name}: expected an object without {task.result!r}, which the result is to be, got one with "
                    "it: --result gives the result another name"
                )
        with _lines_named(some):
            results = task.run(records)
        rows = zip(records, results, strict=True)
        yield "".join(_as_line(task, record, found, options.format) + "\n" for record, found in rows).encode()
        progress.add(len(some))


def _as_line(task: TaskOfLines, record: Record, found: Sequence[Any], format: str | None) -> str:
    if format == "lines":
        return "\t".join(" ".join(task.shown(one).split()) for one in found)
    return json.dumps(record | {task.result: _as_json(found)}, ensure_ascii=False)


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


@contextlib.contextmanager
def _lines_named(lines: Sequence[Line]) -> Iterator[None]:
    """Have an error name the line that its text is from."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if match := PART.match(str(error)):
            where = lines[int(match["number"])].name
            raise type(error)(f"{where}{str(error)[match.end() :]}") from None
        raise
