"""Measure the time of a token in long texts, and the memory beyond the weights: one text, NEZHA at base size.

python benchmarks/long_text.py [--lengths 128 2048] [--repeats 3] [--threads 2] [--json PATH]

Each length has a process of its own, because the peak memory of a process never decreases. The file of the weights is
mapped into memory: every weight is read before the memory is measured, so that none counts as memory of the forward
pass. The reference is not measured: its position table for 4096 tokens takes 4 GB in each layer.
`--layers 1 --repeats 1` is a quick trial run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contest import add_threads_option, time_once
from machine import Target, add_json_option, report, table
from processes import memory_mb, peak_mb, run_python

import nezha_np as nz

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
BASE_LAYERS = 12
PEAK_LIMITS = {2048: 300, 4096: 300}  # MB beyond the weights
ONE_LENGTH = "import sys; sys.path.insert(0, sys.argv.pop(1)); import long_text; long_text.one_length(*sys.argv[1:])"


def one_length(folder: str, length: str, repeats: str) -> None:
    """Measure one length; runs in a process of its own and prints JSON."""
    weights = nz.load(folder)
    for array in weights.values():
        array.sum()
    before = memory_mb()
    ids = np.random.default_rng(0).integers(5, weights.config.vocab_size, (1, int(length)))
    nz.forward(weights, ids[:, :16])  # fills the caches; their memory is counted, and small
    seconds = [time_once(lambda: nz.forward(weights, ids)) for _ in range(int(repeats))]
    print(json.dumps({"seconds": seconds, "weights_mb": before, "peak_beyond_weights_mb": peak_mb() - before}))


def measure(folder: str, length: int, repeats: int, threads: int) -> dict[str, Any]:
    here = str(Path(__file__).parent)
    found = json.loads(run_python(ONE_LENGTH, [here, folder, str(length), str(repeats)], threads).printed)
    median = statistics.median(found["seconds"])
    return {"length": length, "median_seconds": median, "milliseconds_per_token": 1000 * median / length, **found}


def row(result: dict[str, Any]) -> list[str]:
    return [
        f"1 × {result['length']}",
        f"{1000 * result['median_seconds']:.0f} ms",
        f"{result['milliseconds_per_token']:.2f} ms",
        f"{result['peak_beyond_weights_mb']:.0f} MB",
    ]


def targets(results: list[dict[str, Any]]) -> list[Target]:
    peaks = {result["length"]: result["peak_beyond_weights_mb"] for result in results}
    return [
        Target(f"peak beyond the weights, 1 × {length}, MB", peaks.get(length), limit)
        for length, limit in PEAK_LIMITS.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=BASE_LAYERS)
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()

    results = []
    with tempfile.TemporaryDirectory() as folder:
        nz.init(nz.NezhaConfig(num_hidden_layers=options.layers)).save(folder)
        for length in options.lengths:
            results.append(measure(folder, length, options.repeats, options.threads))
            print(" ".join(row(results[-1])), flush=True)
    print(f"\n{options.layers} layers, 768 wide, float32, threads: {options.threads}, median of {options.repeats}\n")
    print(
        table(["batch × length", "one pass", "a token", "peak beyond the weights"], [row(result) for result in results])
    )
    settings = {"layers": options.layers, "threads": options.threads, "repeats": options.repeats}
    complete = options.layers == BASE_LAYERS
    if not complete:
        print("The targets are for base size, and were not looked at.")
    report(options.json, "long_text", settings, results, targets(results) if complete else [])


if __name__ == "__main__":
    main()
