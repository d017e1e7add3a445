"""One shard: its lines are computed window by window, and its file appears once it is complete."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from nezha_np.checks import as_codes
from nezha_np.files.atomic import write_atomically
from nezha_np.files.text_lines import Line
from nezha_np.jobs.line_windows import next_window
from nezha_np.jobs.manifest import Manifest, errors_of
from nezha_np.jobs.shards import read_shard
from nezha_np.jobs.tasks import Task

Errors = list[dict[str, object]]


def compute_shard(
    task: Task,
    source: Path,
    out: Path,
    manifest: Manifest,
    number: int,
    *,
    named: str | None = None,
    record: bool = False,
    report: Callable[[int, str | None], object] = lambda lines, cut: None,
) -> None:
    """Compute a shard and write its file; to do it twice is harmless.

    Parameters
    ----------
    task : Task
        What is done.
    source : Path
        The file of lines.
    out : Path
        The folder of the job.
    manifest : Manifest
        The job.
    number : int
        Which shard.
    named : str, optional
        How errors name the file; None: by `source`.
    record : bool
        Whether a line that gives an error is noted, and its row left empty; else the error is raised.
    report : callable
        Is called after each window, with the number of its lines and the first line that was cut, if one was.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    TypeError, ValueError
        If a line gives an error, or the source has changed.

    Examples
    --------
    >>> import tempfile
    >>> from nezha_np.jobs.manifest import make_manifest
    >>> from nezha_np.jobs.shards import cut_source
    >>> from nezha_np.jobs.tasks import open_task
    >>> out = Path(tempfile.mkdtemp())
    >>> _ = (out / "texts.txt").write_text("房间", encoding="utf-8")
    >>> task = open_task("classify", None, input_format="lines", output_format=None, options={})
    >>> shards = cut_source(out / "texts.txt", format="lines", shard_lines=1024)
    >>> compute_shard(task, out / "texts.txt", out, make_manifest(task, 1024, shards), 0)
    >>> (out / "part-00000.jsonl").exists()
    True
    """
    shard = manifest.shards[number]
    named = str(source) if named is None else named
    errors: Errors = []

    def write(file: Path) -> None:
        stream: BinaryIO
        with file.open("wb") as stream:
            stream.write(task.header(shard.lines))
            lines, row = read_shard(source, shard, named, format=task.input_format), shard.row
            while window := next_window(lines, task.window_size(row)):
                data, cut = _compute(task, window, named, errors if record else None)
                stream.write(data)
                row += len(window)
                report(len(window), cut)
            stream.flush()
            os.fsync(stream.fileno())
            if errors:  # before the part: that it is there means that the shard is done
                noted = "".join(as_codes(json.dumps(error, ensure_ascii=False)) + "\n" for error in errors)
                write_atomically(out, lambda folder: (folder / errors_of(number)).write_bytes(noted.encode()))

    write_atomically(out, lambda folder: write(folder / manifest.part(number)))


def _compute(task: Task, window: Sequence[Line], source: str, errors: Errors | None) -> tuple[bytes, str | None]:
    """Compute a window; where errors are noted, without the lines that give one."""
    bad: dict[int, dict[str, object]] = {}
    while True:
        good = [line for index, line in enumerate(window) if index not in bad]
        try:
            data, cut = task.compute(good) if good else (b"", None)
            break
        except (TypeError, ValueError) as error:
            match = re.match(re.escape(source) + r", (?:line|row) (\d+)", str(error))
            index = next((i for i, line in enumerate(window) if match and line.name == match[0]), None)
            if errors is None or match is None or index is None or index in bad:
                raise
            message = str(error)[match.end() :].removeprefix(": ")
            bad[index] = {"file": source, "line": int(match[1]), "message": message}
    if errors is None or not bad:
        return data, cut
    errors += [bad[index] for index in sorted(bad)]
    rows = iter(task.rows(data))
    return b"".join(_in_place(task, rows, len(window), bad)), cut


def _in_place(task: Task, rows: Iterator[bytes], count: int, bad: dict[int, dict[str, object]]) -> Iterator[bytes]:
    for index in range(count):
        yield task.missing if index in bad else next(rows)
