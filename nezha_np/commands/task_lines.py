"""The engine of the commands from texts to answers: it reads records line by line and writes each with its result.

Lines go through the model some at a time, sorted by length, so memory does not grow with the input, and little padding
is needed. A file appears once it is complete.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import nezha_np as nz
from nezha_np.checks import check_integer
from nezha_np.commands.embed_lines import open_input
from nezha_np.commands.output import write_bytes
from nezha_np.commands.progress import Progress
from nezha_np.files.atomic import resolve_target, write_atomically
from nezha_np.files.parquet_file import check_columns, format_of, read_lines_or_rows, write_lines_as_rows
from nezha_np.jobs.line_windows import next_window, whole_window
from nezha_np.jobs.records import TaskOfLines, run_on_lines


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
    rows = options.format == "parquet" or (options.format is None and format_of(options.output or "") == "parquet")
    if rows and target is None:
        raise ValueError("output: expected a file for Parquet, got standard output")
    if rows:
        check_columns(task.columns)
    with open_input(options.file) as (stream, name), Progress(stream, wanted=options.progress) as progress:
        lines = _written_lines(task, options, stream, name, progress)
        if target is None:
            for data in lines:
                if not write_bytes(data):
                    return  # nobody reads what would follow
        else:
            file: Path = target
            columns = task.columns if rows else None
            new = () if options.force else (file.name,)
            write_atomically(file.parent, lambda folder: _write(folder / file.name, lines, columns), new=new)


def _write(file: Path, parts: Iterator[bytes], columns: dict[str, Any] | None) -> None:
    if columns is not None:
        write_lines_as_rows(file, parts, columns)
        return
    with file.open("wb") as stream:
        for data in parts:
            stream.write(data)


def _written_lines(
    task: TaskOfLines, options: argparse.Namespace, stream: BinaryIO, name: str, progress: Progress
) -> Iterator[bytes]:
    """Yield the lines of the output, some at a time."""
    form = format_of(name) if options.input_format is None else options.input_format
    lines = read_lines_or_rows(stream, name, format=form)
    row = 0
    while some := next_window(lines, whole_window(row, options.batch_size)):
        yield run_on_lines(task, some, input_format=form, output_format=options.format)
        row += len(some)
        progress.add(len(some))
