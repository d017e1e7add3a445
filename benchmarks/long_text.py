"""Measure how time and memory grow with the length of one text: NEZHA at base size, against the reference.

python benchmarks/long_text.py [--lengths 128 2048] [--repeats 3] [--threads 2] [--json PATH]

Each length and package has a process of its own, because the peak memory of a process never decreases, and the two take
turns. Every weight is read before the memory is measured, so that none counts as memory of the forward pass; the
reference's position tables do count. It keeps one in each layer, and where these, or what it makes them of, need more
memory than the machine has free, it is left out, and the table says why. `--layers 1 --repeats 1` is a quick trial run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contest import add_threads_option, time_once
from machine import Target, add_json_option, report, table
from processes import memory_mb, peak_mb, run_python

import nezha_np as nz

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
REPEATED = 60.0  # seconds; a pass that takes longer is made once
PEAK_LIMITS = {2048: 300, 4096: 300}  # MB beyond the weights
ONE_LENGTH = "import sys; sys.path.insert(0, sys.argv.pop(1)); import long_text; long_text.one_length(*sys.argv[1:])"

Pass = Callable[[np.ndarray], object]


# ------------------------------------------------------------------------ in the process of one length and package


def one_length(package: str, folder: str, length: str, repeats: str) -> None:
    """Measure one length; runs in a process of its own and prints JSON."""
    weights = nz.load(folder)
    ids = np.random.default_rng(0).integers(5, weights.config.vocab_size, (1, int(length)))
    run, before = (of_ours if package == "nezha_np" else of_the_reference)(weights, int(length))
    run(ids[:, :16])  # fills the caches; their memory is counted, and small
    seconds: list[float] = []
    while len(seconds) < int(repeats) and sum(seconds) < REPEATED:
        seconds.append(time_once(lambda: run(ids)))
    print(json.dumps({"seconds": seconds, "weights_mb": before, "peak_beyond_weights_mb": peak_mb() - before}))


def of_ours(weights: nz.Weights, length: int) -> tuple[Pass, float]:
    """Return our pass, and the memory that is in use before it."""
    for array in weights.values():
        array.sum()  # the file is mapped into memory
    return lambda ids: nz.forward(weights, ids), memory_mb()


def of_the_reference(weights: nz.Weights, length: int) -> tuple[Pass, float]:
    """Return the reference's pass, and the memory that is in use before it without position tables."""
    from rivals import reference_answer, reference_model

    config = dataclasses.replace(weights.config, max_position_embeddings=length)  # its tables have this length
    model = reference_model(nz.Weights(weights, config))
    answer = reference_answer(model)
    tables_mb = (
        sum(buffer.nbytes for name, buffer in model.named_buffers() if name.endswith("positions_encoding")) / 1e6
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on, not from how the tables are made
    return lambda ids: answer({"input_ids": ids}), memory_mb() - tables_mb


# --------------------------------------------------------------------------------------------- in the main process


def reference_needs_gb(config: nz.NezhaConfig, length: int) -> float:
    """Return the memory that the reference needs for its position tables, while it makes the last of them."""
    pairs = length * length
    kept = config.num_hidden_layers * pairs * (config.hidden_size // config.num_attention_heads) * 4
    one_hot = pairs * (2 * config.max_relative_position + 1) * (8 + 4)  # as 64-bit integers, and as float32
    return (kept + one_hot) / 1e9


def free_gb() -> float:
    """Return the memory that a new process can have; files that the system has cached give way to it."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e9 if found else 0.0


def measure(package: str, folder: str, length: int, repeats: int, threads: int) -> dict[str, Any]:
    here = str(Path(__file__).parent)
    printed = run_python(ONE_LENGTH, [here, package, folder, str(length), str(repeats)], threads).printed
    found = json.loads(printed)
    median = statistics.median(found["seconds"])
    return {"median_seconds": median, "milliseconds_per_token": 1000 * median / length, **found}


def row(result: dict[str, Any]) -> list[str]:
    ours, reference = result["nezha_np"], result["reference"]
    cells = [f"1 × {result['length']}", *_cells(ours)]
    if reference is None:
        return [*cells, f"needs {result['reference_needs_gb']:,.0f} GB", "–", "–"]
    return [*cells, *_cells(reference), f"{ours['median_seconds'] / reference['median_seconds']:.2f}"]


def _cells(found: dict[str, Any]) -> list[str]:
    return [f"{found['milliseconds_per_token']:.2f} ms", f"{found['peak_beyond_weights_mb']:,.0f} MB"]


def targets(results: list[dict[str, Any]]) -> list[Target]:
    peaks = {result["length"]: result["nezha_np"]["peak_beyond_weights_mb"] for result in results}
    return [
        Target(f"peak beyond the weights, 1 × {length}, MB", peaks.get(length), limit)
        for length, limit in PEAK_LIMITS.items()
    ]


def main() -> None:
    base = nz.NezhaConfig()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=base.num_hidden_layers)
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()

    config = dataclasses.replace(base, num_hidden_layers=options.layers)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        nz.init(config).save(folder)
        for length in options.lengths:
            needs = reference_needs_gb(config, length)
            once = folder, length, options.repeats, options.threads
            ours = measure("nezha_np", *once)
            reference = measure("reference", *once) if needs < free_gb() else None
            results.append(
                {"length": length, "nezha_np": ours, "reference": reference, "reference_needs_gb": round(needs, 2)}
            )
            print(" ".join(row(results[-1])), flush=True)
    print(f"\n{options.layers} layers, 768 wide, float32, threads: {options.threads}, median of {options.repeats}\n")
    headings = ["batch × length", "ours, a token", "peak", "reference, a token", "peak", "ours / reference"]
    print(table(headings, [row(result) for result in results]))
    settings = {"layers": options.layers, "threads": options.threads, "repeats": options.repeats}
    complete = config == base
    if not complete:
        print("The targets are for base size, and were not looked at.")
    report(options.json, "long_text", settings, results, targets(results) if complete else [])


if __name__ == "__main__":
    main()
