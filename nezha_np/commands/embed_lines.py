"""The engine of ``nezha-np embed``: it reads texts from a stream and writes their vectors, however many there are.

Lines are read window by window. The texts of a window are sorted by length and go through the model batch by batch, so
that little time goes to padding; their vectors are written in the order of the lines. So memory does not grow with the
input. Only complete windows are written, and a run that resumes a partial file makes the same windows as an
uninterrupted run: the file is the same, byte for byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nezha_np.checks import check_fetched
from nezha_np.commands.exit_status import Stopped, status_of
from nezha_np.commands.output import print_message, write_bytes
from nezha_np.commands.progress import Progress
from nezha_np.files.atomic import resolve_target
from nezha_np.files.parquet_file import format_of, read_lines_or_rows
from nezha_np.files.partial_file import PartialFile
from nezha_np.files.text_lines import Line
from nezha_np.files.vector_file import FORMATS
from nezha_np.jobs.line_windows import next_window
from nezha_np.jobs.tasks import Task, open_task
from nezha_np.signals import ignored_signals

Windows = Iterator[tuple[list[Line], bytes]]  # the lines of each window, and their vectors as they are written


def embed_lines(
    source: str | None,
    target: str | None,
    *,
    model: str | None = None,
    pooling: str | None = None,
    normalize: bool | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    prompt: str | None = None,
    input_format: str | None = None,
    output_format: str | None = None,
    field: str = "text",
    force: bool = False,
    restart: bool = False,
    progress: bool = False,
) -> None:
    """Read texts and write their vectors.

    Parameters
    ----------
    source : str or None
        A file; "-" or None: standard input.
    target : str or None
        The file to write, which appears once it is complete; until then there is a `PartialFile`. "-" or None: JSON
        Lines to standard output, until its reader closes it.
    model : str or None
        A checkpoint with its tokenizer; None: the shipped model.
    pooling, normalize, batch_size, max_length, prompt
        What `nezha_np.embed` takes.
    input_format : str or None
        "lines", "jsonl" or "parquet"; None: by the name of `source`.
    output_format : str or None
        "npy", "safetensors" or "jsonl"; None: by the name of `target`.
    field : str
        Where in a JSON object the text stands.
    force, restart : bool
        Whether `target` may be replaced; whether to throw away what an earlier run has left behind.
    progress : bool
        Show progress on stderr even if that is no terminal.

    Raises
    ------
    OSError, TypeError, ValueError, ImportError
        If it cannot begin, or something goes wrong on the way to standard output; the message names it.
    Stopped
        If it is interrupted, or something goes wrong on the way to a file, which can then be resumed.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "texts.txt").write_text("房间\\n价格\\n", encoding="utf-8")
    >>> embed_lines(str(folder / "texts.txt"), str(folder / "vectors.npy"))
    >>> np.load(folder / "vectors.npy").shape
    (2, 256)
    """
    path = None if target in (None, "-") else Path(str(target))
    output_format = _output_format(path, output_format)
    try:
        if path is not None:
            path = resolve_target(path, force=force)
        with open_input(source) as (stream, name):
            if input_format is None:
                input_format = format_of(name)
            options = {"pooling": pooling, "normalize": normalize, "batch_size": batch_size, "max_length": max_length}
            options |= {"prompt": prompt, "field": field}
            task = open_task("embed", model, input_format=input_format, output_format=output_format, options=options)
            lines = read_lines_or_rows(stream, name, format=input_format)
            if path is None:
                windows = _embed_windows(lines, task)
                _write_to_stdout(windows, Progress(stream, wanted=progress))
                return

            def last_header(rows: int) -> bytes:
                if name == source:  # a file: it may be `target`, and Windows does not replace a file that is open
                    stream.close()
                return task.header(rows)

            with PartialFile(path, task.identity, header=task.header(0), force=force, restart=restart) as file:
                digest = _skip_done_lines(lines, file)
                shown = Progress(stream, wanted=progress, lines=file.rows)
                windows = _embed_windows(lines, task, row=file.rows)
                _write_to_file(windows, file, digest, shown, last_header)
    except KeyboardInterrupt as interrupt:
        raise Stopped("interrupted", status_of(interrupt)) from None


def _embed_windows(lines: Iterator[Line], task: Task, row: int = 0) -> Windows:
    """Yield window after window, from that which begins with a row; say once that the folder lets texts be cut."""
    said = False
    while window := next_window(lines, task.window_size(row)):
        row += len(window)
        data, cut = task.compute(window)
        if cut and not said:
            print_message(f"nezha-np: {cut}, as all longer lines will be; --max-length sets another")
            said = True
        yield window, data


def _write_to_stdout(windows: Windows, progress: Progress) -> None:
    if sys.stdout is None:
        raise ValueError("output: expected a file, because standard output is closed, got none")
    with progress:
        for window, data in windows:
            if not write_bytes(data):
                return  # nobody reads what would follow
            progress.add(len(window))


def _write_to_file(
    windows: Windows, file: PartialFile, digest: Any, progress: Progress, header: Callable[[int], bytes]
) -> None:
    """Append the windows and finish the file; `digest` is the hash of the lines before them."""
    try:
        with progress:
            for window, data in windows:
                for line in window:
                    digest.update(line.raw)
                file.append(data, rows=len(window), digest=digest.hexdigest())
                progress.add(len(window))
        # All rows are written: an interruption now would only keep them from their place.
        with ignored_signals():
            file.finish(header(file.rows))
    except (OSError, TypeError, ValueError, MemoryError, KeyboardInterrupt) as error:
        file.close()
        what = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        how = f"{file.saved_rows:,} lines are done, in {file.path}: the same command goes on after them"
        raise Stopped(f"{what}; {how if file.saved_rows else 'nothing is done'}", status_of(error)) from error


def _skip_done_lines(lines: Iterator[Line], file: PartialFile) -> Any:
    """Skip the lines whose rows the partial file holds, check that they are unchanged, and return their hash.

    The lines after them may be others than in the run before.
    """
    digest = hashlib.sha256()
    for line in itertools.islice(lines, file.rows):
        digest.update(line.raw)
    if file.rows:
        if digest.hexdigest() != file.digest:
            raise ValueError(
                f"{file.path}: expected the {file.rows:,} lines that it was made of, got others; --restart begins anew"
            )
        print_message(f"nezha-np: {file.path} holds {file.rows:,} lines: going on after them")
    return digest


def _output_format(path: Path | None, format: str | None) -> str:
    """Return the format of the output: the one that is asked for, or the one that the file's name says."""
    if path is None:
        if format not in (None, "jsonl"):
            raise ValueError(f"format: expected jsonl, which alone can go to standard output, got {format}")
        return "jsonl"
    found = format or path.suffix.lower().removeprefix(".")
    if found not in FORMATS:
        raise ValueError(
            f"output: expected a name that ends in {', '.join('.' + name for name in FORMATS)}, or --format, got {path}"
        )
    return found


@contextlib.contextmanager
def open_input(source: str | None) -> Iterator[tuple[BinaryIO, str]]:
    """Open the input of a command: a file, or standard input; yield it with its name for errors."""
    if source is not None and source != "-":
        if Path(source).is_file():  # a pipe has no beginning to look at
            check_fetched(Path(source))
        with open(source, "rb") as file:
            yield file, source
    elif sys.stdin is None:
        raise ValueError("input: expected a file, because standard input is closed, got none")
    else:
        yield sys.stdin.buffer, "standard input"
