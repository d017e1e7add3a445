"""`run_corpus`: a task over a file of texts that may be larger than memory, in several processes."""

from __future__ import annotations

import builtins
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nezha_np.checks import check_integer, check_path
from nezha_np.files.parquet_file import format_of
from nezha_np.jobs.compute import compute_shard
from nezha_np.jobs.manifest import ERRORS, Manifest, begin, collect_errors, make_manifest
from nezha_np.jobs.processes import run_in_processes
from nezha_np.jobs.shards import cut_source
from nezha_np.jobs.shared_weights import shared_weights
from nezha_np.jobs.tasks import Task, open_task, shard_size

ON_ERROR = ("stop", "record")
SHARD_LINES = 65536
PATIENCE = 60.0  # seconds after which what one machine writes is seen by all: some shared folders take a while


def run_corpus(
    task: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
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
    task : {"embed", "classify", "tag", "answer", "choose", "fill_mask"}
        What is done.
    source : path
        The file: a text in each line, JSON Lines, or Parquet.
    out : path
        The folder of the results; it is made if it does not exist.
    model : path, optional
        A checkpoint with its tokenizer; None: the shipped model of the task.
    workers : int, optional
        How many processes, with one thread each, compute; None: this process computes, with the threads that it has.
    cluster : str, optional
        The address of a Dask scheduler that is running, such as ``"tcp://host:8786"``, whose workers compute. They have
        this package, one thread of BLAS each, and `source`, `out` and `model` under the same paths.
    shard_lines : int
        How many lines a shard has. It is rounded up to whole windows of 32 batches.
    on_error : {"stop", "record"}
        What is done with a line that gives an error, such as one that is too long for the model. "stop": the error is
        raised. "record": the line gets a row of NaN, or null in place of its result, and ``errors.jsonl`` says which
        line it is and what is wrong.
    restart : bool
        Throw away what `out` holds of another job.
    input_format : {"lines", "jsonl", "parquet"}, optional
        None: by the name of `source`: jsonl for .jsonl and .ndjson, parquet for .parquet.
    output_format : {"npy", "safetensors", "jsonl"}, optional
        Of vectors; None: npy. The others are written as jsonl.
    progress : callable, optional
        Is called with the number of lines that are done, and of all.
    **options
        Those of `nezha_np.embed`, `nezha_np.classify` and so on, and the fields of JSON Lines: ``field``,
        ``pair_field``, ``question_field``, ``context_field``, ``choices_field``, ``result``.

    Returns
    -------
    list of Path
        The files of the results, in the order of the lines.

    Raises
    ------
    OSError
        If a file cannot be read or written, a worker died several times, or the scheduler does not answer.
    ModuleNotFoundError
        If `cluster` is given and Dask is missing.
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
    if workers is not None:
        workers = check_integer("workers", workers, least=1)
    if workers is not None and cluster is not None:
        raise ValueError(f"workers: expected none where cluster= is given, got {workers}")
    if cluster is not None and not isinstance(cluster, str):
        raise TypeError(f"cluster: expected the address of a Dask scheduler, got {type(cluster).__name__}")
    if cluster is not None:
        from nezha_np.jobs.cluster import check_address, run_on_cluster

        check_address(cluster)
    job, manifest, opened = begin_job(
        task,
        source,
        out,
        model=model,
        shard_lines=shard_lines,
        on_error=on_error,
        restart=restart,
        input_format=input_format,
        output_format=output_format,
        **options,
    )
    source, out = Path(source), Path(out)
    heard = _Heard(source, manifest, manifest.missing(out), progress)
    try:
        if workers is None and cluster is None:
            for number in heard.missing:
                heard.begin(number)
                compute_shard(opened, source, out, manifest, number, record=job["record"], report=heard.lines_done)
        elif heard.missing:
            with shared_weights(opened.weights, out) as (shared, keep):

                def hear(number: int, said: dict[str, Any]) -> None:
                    keep()
                    heard.hear(number, said)

                job["shared"] = shared
                if cluster is None:
                    run_in_processes(heard.missing, job, workers or 1, hear)
                else:
                    paths = [name for name in ("source", "out", "model", "shared") if job[name] is not None]
                    places = {name: os.path.abspath(str(job[name])) for name in paths}
                    run_on_cluster(heard.missing, job | places, cluster, hear)
                    _see_all(out, manifest)
    except (OSError, TypeError, ValueError, MemoryError, RuntimeError) as error:
        kinds = (OSError, TypeError, ValueError, MemoryError, RuntimeError)
        kind = next(kind for kind in kinds if isinstance(error, kind))
        raise kind(f"{str(error) or type(error).__name__}; {how_far(out, manifest)}") from error
    if noted := collect_errors(out, manifest.shards):
        warnings.warn(f"{noted:,} lines gave errors, which {out / ERRORS} names", stacklevel=2)
    return [out / manifest.part(number) for number in range(len(manifest.shards))]


def begin_job(
    task: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    shard_lines: int = SHARD_LINES,
    on_error: str = "stop",
    restart: bool = False,
    input_format: str | None = None,
    output_format: str | None = None,
    **options: Any,
) -> tuple[dict[str, Any], Manifest, Task]:
    """Begin a job, or find out what is missing of it, and compute nothing: for an engine that this package has not.

    Parameters
    ----------
    task, source, out, model, shard_lines, on_error, restart, input_format, output_format, **options
        As `run_corpus` takes them.

    Returns
    -------
    job : dict
        What a worker is told: `nezha_np.jobs.worker.open_job` takes it.
    manifest : Manifest
        The job, which is in `out` now.
    opened : Task
        What is done.

    Raises
    ------
    OSError, TypeError, ValueError, ImportError
        As `run_corpus` does before it computes.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "texts.txt").write_text("房间\\n价格\\n", encoding="utf-8")
    >>> job, manifest, _ = begin_job("embed", folder / "texts.txt", folder / "vectors")
    >>> manifest.missing(folder / "vectors")
    [0]
    """
    source, out = check_path(source, "source"), check_path(out, "out")
    path = None if model is None else str(check_path(model, "model"))
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error: expected one of {', '.join(ON_ERROR)}, got {on_error!r}")
    if input_format is None:
        input_format = format_of(source.name)
    options = {name: value.item() if hasattr(value, "item") else value for name, value in options.items()}  # JSON's
    opened = open_task(task, path, input_format=input_format, output_format=output_format, options=options)
    lines = shard_size(shard_lines, opened.batch_size)
    manifest = make_manifest(opened, lines, cut_source(source, format=input_format, shard_lines=lines))
    begin(out, source, manifest, restart=restart)
    job = {
        "task": task,
        "run": os.urandom(8).hex(),
        "source": str(source),
        "named": str(source),
        "out": str(out),
        "model": path,
        "shared": None,
        "input_format": input_format,
        "output_format": output_format,
        "record": on_error == "record",
        "options": options,
    }
    return job, manifest, opened


def _see_all(out: Path, manifest: Manifest) -> None:
    """Wait until this machine, too, sees the parts that others have written."""
    end = time.monotonic() + PATIENCE
    while missing := manifest.missing(out):
        os.listdir(out)  # has a network folder ask its server
        if time.monotonic() > end:
            raise FileNotFoundError(
                f"{out / manifest.part(missing[0])}: expected the part that a worker has written, found none: "
                f"{out} must be a folder that all machines share"
            )
        time.sleep(0.1)


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
                    warnings.warn(f"{cut}, as all longer lines will be; max_length sets another", stacklevel=5)
            case {"begun": _}:
                self.under_way[number] = 0
            case {"done": _}:
                self.under_way.pop(number, None)
                self.done += self.shards[number].lines
            case {"error": kind, "message": message}:
                raise getattr(builtins, kind)(message)
            case {"died": status, "tries": tries, "last": last}:
                self.under_way.pop(number, None)  # it is computed from its beginning again
                if last:
                    shard = self.shards[number]
                    how = "" if status is None else f"with status {status}"
                    if status is not None and status < 0:
                        how = f"by signal {-status}"
                    raise ChildProcessError(
                        f"{self.source}, lines {shard.row + 1:,} to {shard.row + shard.lines:,}: expected a worker to "
                        f"compute them, but {tries} ended before{how and f', the last one {how}'}"
                    )
        if self.progress is not None:
            self.progress(self.done + sum(self.under_way.values()), self.all)
