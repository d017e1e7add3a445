"""`run_corpus`: a task over a file of texts that may be larger than memory, in several processes."""

from __future__ import annotations

import builtins
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nezha_np.checks import check_integer, check_path
from nezha_np.files.parquet_file import format_of
from nezha_np.jobs.compute import compute_shard
from nezha_np.jobs.manifest import ERRORS, Manifest, begin, collect_errors, make_manifest
from nezha_np.jobs.processes import TRIES, run_in_processes
from nezha_np.jobs.shards import cut_source
from nezha_np.jobs.tasks import open_task, shard_size

ON_ERROR = ("stop", "record")
SHARD_LINES = 65536


def run_corpus(
    task: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    shard_lines: int = SHARD_LINES,
    on_error: str = "stop",
    restart: bool = False,
    input_format: str | None = None,
    output_format: str | None = None,
    progress: Callable[[int, int], object] | None = None,
    **options: Any,
) -> list[Path]:
    """Run a task over a file of texts, shard by shard; a job that was killed goes on when it is run again.

    The file is cut into shards. The results of each are written to a file of its own in the folder `out`, which appears
    when it is complete; ``manifest.json`` says what they were made with. They are the same, bit for bit, as those of
    the command of the task in one process with one thread, and ``nezha-np join`` makes one file of them.

    Parameters
    ----------
    task : {"embed", "classify", "tag", "answer", "fill_mask"}
        What is done.
    source : path
        The file: a text in each line, or JSON Lines.
    out : path
        The folder of the results; it is made if it does not exist.
    model : path, optional
        A checkpoint with its tokenizer; None: the shipped model of the task.
    workers : int, optional
        How many processes, with one thread each, compute; None: this process computes, with the threads that it has.
    shard_lines : int
        How many lines a shard has. It is rounded up to whole windows of 32 batches.
    on_error : {"stop", "record"}
        What is done with a line that gives an error, such as one that is too long for the model. "stop": the error is
        raised. "record": the line gets a row of NaN, or null in place of its result, and ``errors.jsonl`` says which
        line it is and what is wrong.
    restart : bool
        Throw away what `out` holds of another job.
    input_format : {"lines", "jsonl"}, optional
        None: by the name of `source`: jsonl for .jsonl and .ndjson.
    output_format : {"npy", "safetensors", "jsonl"}, optional
        Of vectors; None: npy. The others are written as jsonl.
    progress : callable, optional
        Is called with the number of lines that are done, and of all.
    **options
        Those of `nezha_np.embed`, `nezha_np.classify` and so on, and the fields of JSON Lines: ``field``,
        ``pair_field``, ``question_field``, ``context_field``, ``result``.

    Returns
    -------
    list of Path
        The files of the results, in the order of the lines.

    Raises
    ------
    OSError
        If a file cannot be read or written, or a worker died several times.
    TypeError
        If an argument has a wrong type, or is no option of the task.
    ValueError
        If an argument has a wrong value, a line gives an error, the source has changed, or `out` holds another job; the
        message says what differs.

    Examples
    --------
    >>> import tempfile
    >>> import nezha_np as nz
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "texts.txt").write_text("房间\\n价格\\n", encoding="utf-8")
    >>> [part.name for part in nz.run_corpus("embed", folder / "texts.txt", folder / "vectors", normalize=True)]
    ['part-00000.npy']
    """
    source, out = check_path(source, "source"), check_path(out, "out")
    path = None if model is None else str(check_path(model, "model"))
    if workers is not None:
        workers = check_integer("workers", workers, least=1)
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error: expected one of {', '.join(ON_ERROR)}, got {on_error!r}")
    if input_format is None:
        input_format = format_of(source.name)
    options = {name: value.item() if hasattr(value, "item") else value for name, value in options.items()}  # JSON's
    opened = open_task(task, path, input_format=input_format, output_format=output_format, options=options)
    lines = shard_size(shard_lines, opened.batch_size)
    manifest = make_manifest(opened, lines, cut_source(source, format=input_format, shard_lines=lines))
    begin(out, source, manifest, restart=restart)

    heard = _Heard(source, manifest, manifest.missing(out), progress)
    try:
        if workers is None:
            for number in heard.missing:
                heard.begin(number)
                compute_shard(
                    opened, source, out, manifest, number, record=on_error == "record", report=heard.lines_done
                )
        elif heard.missing:
            job = {
                "task": task,
                "source": str(source),
                "out": str(out),
                "model": path,
                "input_format": input_format,
                "output_format": output_format,
                "record": on_error == "record",
                "options": options,
            }
            run_in_processes(heard.missing, job, workers, heard.hear)
    except (OSError, TypeError, ValueError, MemoryError, RuntimeError) as error:
        kinds = (OSError, TypeError, ValueError, MemoryError, RuntimeError)
        kind = next(kind for kind in kinds if isinstance(error, kind))
        raise kind(f"{str(error) or type(error).__name__}; {how_far(out, manifest)}") from error
    if noted := collect_errors(out, manifest.shards):
        warnings.warn(f"{noted:,} lines gave errors, which {out / ERRORS} names", stacklevel=2)
    return [out / manifest.part(number) for number in range(len(manifest.shards))]


def how_far(out: Path, manifest: Manifest) -> str:
    """Say how much of a job is done, and how it goes on.

    Examples
    --------
    >>> how_far(Path("vectors"), Manifest({}, 64, "npy", []))
    '0 of 0 shards are done, in vectors: run again, it goes on with the others'
    """
    count = len(manifest.shards)
    done = count - len(manifest.missing(out))
    return f"{done:,} of {count:,} shards are done, in {out}: run again, it goes on with the others"


class _Heard:
    """What is known of the shards that are computed: it counts lines, warns once, and raises what stops a job."""

    def __init__(
        self, source: Path, manifest: Manifest, missing: Sequence[int], progress: Callable[[int, int], object] | None
    ) -> None:
        self.source, self.shards, self.missing, self.progress = source, manifest.shards, missing, progress
        self.all = sum(shard.lines for shard in self.shards)
        self.done = self.all - sum(self.shards[number].lines for number in missing)
        self.under_way: dict[int, int] = {}  # lines of shards that are not complete
        self.said_cut = False

    def begin(self, number: int) -> None:
        self.done += sum(self.under_way.values())
        self.under_way = {number: 0}

    def lines_done(self, lines: int, cut: str | None) -> None:
        (number,) = self.under_way
        self.hear(number, {"lines": lines, "cut": cut})

    def hear(self, number: int, said: dict[str, Any]) -> None:
        match said:
            case {"lines": int(lines), "cut": cut}:
                self.under_way[number] = self.under_way.get(number, 0) + lines
                if cut and not self.said_cut:
                    self.said_cut = True
                    warnings.warn(f"{cut}: cut, as the folder of the model says; max_length sets another", stacklevel=5)
            case {"done": _}:
                self.done += self.under_way.pop(number, 0)
            case {"error": kind, "message": message}:
                raise getattr(builtins, kind)(message)
            case {"died": status, "tries": tries}:
                self.under_way.pop(number, None)  # it is computed from its beginning again
                if tries == TRIES:
                    shard = self.shards[number]
                    raise ChildProcessError(
                        f"{self.source}, lines {shard.row + 1:,} to {shard.row + shard.lines:,}: expected a worker to "
                        f"compute them, but {tries} ended before, the last one "
                        + (f"by signal {-status}" if status < 0 else f"with status {status}")
                    )
        if self.progress is not None:
            self.progress(self.done + sum(self.under_way.values()), self.all)
