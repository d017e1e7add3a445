"""Time passes of models that are mapped from files, with freed memory kept in the process and without.

python benchmarks/freed_memory.py [--shapes shipped:1x32 shipped:1x106 base:1x32 base:1x128] [--rounds 5] [--threads 2]

nezha_np/kernels/numpy_memory.py says why it matters. Each turn is a process of its own, because what the C library has
learned it does not forget. The model of base size has random weights, which another process has drawn and saved: a
process that draws weights itself frees large blocks, and so would measure nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from typing import Any

from contest import add_threads_option
from machine import add_json_option, report, table
from processes import run_python, save_random_nezha

SHAPES = (
    "shipped:1x32",
    "shipped:1x64",
    "shipped:1x106",
    "shipped:1x200",
    "base:1x32",
    "base:1x64",
    "base:1x128",
    "base:8x128",
)
PASSES = """
import resource, statistics, sys, time
import numpy as np
from nezha_np.kernels import numpy_memory
path, rows, length, kept = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "kept"
if not kept:
    numpy_memory.LARGEST = 1  # before the kernels are imported, by the first pass
import nezha_np as nz
weights, ids = nz.load(path or None), np.random.default_rng(0).integers(5, 1000, (rows, length))
for _ in range(3):
    nz.forward(weights, ids)
seconds, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_minflt
while len(seconds) < 9 or sum(seconds) < 0.5:
    start = time.perf_counter()
    nz.forward(weights, ids)
    seconds.append(time.perf_counter() - start)
print(statistics.median(seconds), (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / len(seconds))
"""
WAYS = ("given back", "kept")


def measure(shape: str, base: str, rounds: int, threads: int) -> dict[str, Any]:
    """Let the two ways take turns with one shape, "base:1x128" for example."""
    model, _, size = shape.partition(":")
    turns: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            printed = run_python(PASSES, [base if model == "base" else "", *size.split("x"), way], threads).printed
            turns[way].append([float(number) for number in printed.split()])
    found: dict[str, Any] = {"shape": shape}
    for way, pairs in turns.items():
        seconds, faults = zip(*pairs, strict=True)
        found[way] = {"median_seconds": statistics.median(seconds), "page_faults": statistics.median(faults)}
    return found


def row(found: dict[str, Any]) -> list[str]:
    times = [1000 * found[way]["median_seconds"] for way in WAYS]
    faults = [f"{found[way]['page_faults']:,.0f}" for way in WAYS]
    return [found["shape"], *(f"{time:.1f} ms" for time in times), f"{times[1] / times[0]:.2f}", *faults]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        save_random_nezha(base, options.threads, vocab_size=1000)
        results = [measure(shape, base, options.rounds, options.threads) for shape in options.shapes]
    headings = ["model and shape", *WAYS, "kept / given back", "page faults, given back", "page faults, kept"]
    print(table(headings, [row(found) for found in results]))
    report(options.json, "freed_memory", {"rounds": options.rounds, "threads": options.threads}, results)


if __name__ == "__main__":
    main()
