"""Time a job over a corpus: one process with two threads, two workers, two workers of Dask; and the memory of each.

python benchmarks/corpus.py [--lines 1000000] [--characters 12] [--json PATH]

Texts are the beginnings of reviews, short ones, so that a million of them takes minutes: longer texts take longer in
all engines alike. Each engine runs with a tenth of the lines too: what memory grows by between the two grows with the
input, and the rate between the two leaves out the start of processes. A run is a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from machine import Target, add_json_option, report, table
from processes import peak_of, run_python
from texts import mixed_texts

import nezha_np as nz

WORKERS = 2
POLL_SECONDS = 0.2
ENGINES = {
    "threads": f"one process, {WORKERS} threads",
    "processes": f"--workers {WORKERS}",
    "cluster": f"--cluster, {WORKERS} workers",
}
HERE = Path(__file__).parent
CODE = f"import sys; sys.path.insert(0, {str(HERE)!r}); import corpus; corpus.run(*sys.argv[1:])"


# ----------------------------------------------------------------------------------------- in the process of an engine


def run(engine: str, source: str, out: str, shard_lines: str) -> None:
    """Run the job and print what was measured."""
    found: dict[str, Any] = {}
    with _engine(engine) as (options, workers):
        sent = _sent()
        with _watched(workers) as peaks:
            start = time.perf_counter()
            parts = nz.run_corpus("embed", source, out, shard_lines=int(shard_lines), **options)
            found["seconds"] = time.perf_counter() - start
        found["loopback_bytes"] = _sent() - sent
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes())
    found |= {"peak_mb": [round(peak) for peak in peaks.values()], "shards": len(parts), "sha256": digest.hexdigest()}
    print(json.dumps(found))


@contextmanager
def _engine(engine: str) -> Iterator[tuple[dict[str, Any], Callable[[], list[int]]]]:
    """Yield the options of the job, and a function that lists the processes that compute."""
    if engine == "threads":
        yield {}, lambda: [os.getpid()]
    elif engine == "processes":
        yield {"workers": WORKERS}, _children
    else:
        from distributed import Client, LocalCluster

        from nezha_np.jobs.processes import ONE_THREAD

        place = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
        with LocalCluster(n_workers=WORKERS, threads_per_worker=1, env=ONE_THREAD, **place) as cluster:
            with Client(cluster, set_as_default=False) as client:
                pids = list(client.run(os.getpid).values())
            yield {"cluster": cluster.scheduler_address}, lambda: pids


def _children() -> list[int]:
    """List the processes that threads of this one have started."""
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found += [int(pid) for pid in path.read_text(encoding="ascii").split()]
    return found


@contextmanager
def _watched(workers: Callable[[], list[int]]) -> Iterator[dict[int, float]]:
    """Yield the peak memory of each process that computes, which a thread writes down until the end."""
    peaks: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            for pid in workers():
                if (peak := peak_of(pid)) is not None:
                    peaks[pid] = peak

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _sent() -> int:
    """Return how many bytes this machine has sent to itself over the network."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    return 0


# ------------------------------------------------------------------------------------------------------ in the parent


def write_source(path: Path, lines: int, characters: int) -> str:
    """Write texts, one a line; return a phrase that says where they come from."""
    texts, source = mixed_texts(min(lines, 10_000), nz.load_tokenizer())
    starts = [" ".join(text.split())[:characters] for text in texts]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number in range(lines):
            file.write(starts[number % len(starts)] + "\n")
    return f"the first {characters} characters of {source}"


def task_message(source: Path, out: Path) -> int:
    """Return how many bytes the scheduler is sent of a shard, besides Dask's own."""
    from nezha_np.jobs.cluster import BY_NAME
    from nezha_np.jobs.run_corpus import begin_job

    job, _, _ = begin_job("embed", source, out)
    return len(pickle.dumps((eval, BY_NAME, {"job": job, "number": 0})))


def measure(engines: list[str], folder: Path, sizes: list[int], characters: int) -> tuple[list[dict[str, Any]], str]:
    results = []
    for lines in sizes:
        source = folder / f"{lines}.txt"
        phrase = write_source(source, lines, characters)
        for engine in engines:
            out = folder / f"{engine}-{lines}"
            arguments = [engine, str(source), str(out), str(max(1024, lines // 16))]
            threads = WORKERS if engine == "threads" else 1  # of the process itself, and of workers of Dask
            found = json.loads(run_python(CODE, arguments, threads).printed.splitlines()[-1])
            results.append({"engine": engine, "lines": lines, "texts_a_second": lines / found["seconds"], **found})
            print(f"{ENGINES[engine]}, {lines:,} lines: {found['seconds']:.1f} s", file=sys.stderr, flush=True)
    return results, phrase


def rates(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return texts a second of each engine between the smaller and the larger input: without the start."""
    found = {}
    for engine in ENGINES:
        ends = [result for result in results if result["engine"] == engine]
        if len(ends) == 2:
            small, large = ends
            found[engine] = (large["lines"] - small["lines"]) / max(large["seconds"] - small["seconds"], 1e-9)
    return found


def targets(results: list[dict[str, Any]], rate: dict[str, float]) -> list[Target]:
    """Judge how two workers compare with one process of two threads, and whether memory is flat."""
    found = []
    for engine in ("processes", "cluster"):
        ratio = rate[engine] / rate["threads"] if engine in rate and "threads" in rate else None
        found.append(Target(f"{ENGINES[engine]}, times {ENGINES['threads']}", ratio, 1.5, at_least=True))
        peaks = [max(one["peak_mb"], default=0) for one in results if one["engine"] == engine]
        growth = peaks[1] / peaks[0] if len(peaks) == 2 and peaks[0] else None
        found.append(Target(f"{ENGINES[engine]}, memory with ten times the lines, times that before", growth, 1.1))
    return found


def row(result: dict[str, Any], rate: float | None, same: bool) -> list[str]:
    return [
        ENGINES[result["engine"]],
        f"{result['lines']:,}",
        f"{result['seconds']:.1f} s",
        f"{result['texts_a_second']:,.0f}",
        "" if rate is None else f"{rate:,.0f}",
        ", ".join(f"{peak:,}" for peak in result["peak_mb"]) + " MB",
        "the same" if same else "others",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--characters", type=int, default=12, help="of each text (12)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=[*ENGINES])
    add_json_option(parser)
    options = parser.parse_args()

    sizes = [max(options.lines // 10, 1), options.lines]
    with tempfile.TemporaryDirectory() as folder:
        results, phrase = measure(options.engines, Path(folder), sizes, options.characters)
        message = task_message(Path(folder) / f"{sizes[0]}.txt", Path(folder) / "message")
    rate = rates(results)
    first = {lines: next(one["sha256"] for one in results if one["lines"] == lines) for lines in sizes}
    print(f"embed, shipped model, {phrase}\n")
    head = ["", "lines", "time", "texts/s", "without the start", "peak memory of each", "bytes"]
    shown = [
        row(one, rate.get(one["engine"]) if one["lines"] == sizes[1] else None, one["sha256"] == first[one["lines"]])
        for one in results
    ]
    print(table(head, shown))
    print(f"\nof a shard the scheduler is sent {message:,} bytes, and Dask's own")
    for one in results:
        if one["engine"] == "cluster":
            each = one["loopback_bytes"] / one["shards"]
            print(f"{one['lines']:,} lines: {each / 1000:,.0f} kB a shard over the network, heartbeats and all")
    settings = {"texts": phrase, "workers": WORKERS, "task_message_bytes": message}
    settings["texts_a_second_without_the_start"] = rate
    settings["dask"] = {name: value for name, value in os.environ.items() if name.startswith("DASK_")}
    report(options.json, "corpus", settings, results, targets(results, rate))


if __name__ == "__main__":
    main()
