"""Time a forward pass with weights in float16 and bfloat16 on a CPU against one in float32, NEZHA at base size.

python benchmarks/half.py [--repeats 5] [--threads 2] [--layers 12] [--definitions] [--json PATH]

`--definitions` also times the definitions in float16, which NumPy computes number by number: it takes minutes.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
from contest import Run, add_threads_option, set_threads, take_turns
from machine import Target, add_json_option, report, table

import nezha_np as nz

SHAPES = ((1, 1), (1, 8), (1, 128), (8, 128))
NARROW = ("float16", "bfloat16")
BASE_LAYERS = 12
MOST = 3.0  # times float32
AT_MANY_TOKENS = 1.3


def measure(weights: dict[str, nz.Weights], shape: tuple[int, int], options: argparse.Namespace) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(5, weights["float32"].config.vocab_size, shape)
    runs: dict[str, Run] = {
        dtype: (lambda of_dtype=of_dtype: nz.forward(of_dtype, ids)) for dtype, of_dtype in weights.items()
    }
    if options.definitions:

        def by_definitions() -> object:
            with nz.definitions():
                return nz.forward(weights["float16"], ids)

        runs["float16, definitions"] = by_definitions
    seconds = take_turns(runs, options.repeats)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {name: median / medians["float32"] for name, median in medians.items()}
    return {"batch": shape[0], "length": shape[1], "median_seconds": medians, "ratio": ratios, "seconds": seconds}


def row(result: dict[str, Any]) -> list[str]:
    times = [f"{1000 * seconds:.0f} ms" for seconds in result["median_seconds"].values()]
    return [f"{result['batch']} × {result['length']}", *times, *(f"{result['ratio'][name]:.2f}" for name in NARROW)]


def targets(results: list[dict[str, Any]]) -> list[Target]:
    worst = max(result["ratio"]["float16"] for result in results)
    most = [Target(f"{name} / float32, 8 × 128", results[-1]["ratio"][name], AT_MANY_TOKENS) for name in NARROW]
    return [Target("float16 / float32, worst shape", worst, MOST), *most]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", type=int, default=BASE_LAYERS)
    parser.add_argument("--definitions", action="store_true")
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()

    set_threads(options.threads)
    wide = nz.init(nz.NezhaConfig(num_hidden_layers=options.layers))
    weights = {"float32": wide, **{name: wide.to(dtype=name) for name in NARROW}}
    results = [measure(weights, shape, options) for shape in SHAPES]
    headings = ["batch × length", *results[0]["median_seconds"], *(f"{name} / float32" for name in NARROW)]
    print(table(headings, [row(one) for one in results]))
    memory = {name: round(sum(array.nbytes for array in of.values()) / 1e6) for name, of in weights.items()}
    print("\nmemory of the weights, MB:", ", ".join(f"{name} {size}" for name, size in memory.items()))
    settings = {name: getattr(options, name) for name in ("repeats", "layers", "threads")}
    complete = options.layers == BASE_LAYERS
    settings["memory_mb"] = memory
    report(options.json, "half", settings, results, targets(results) if complete else [])


if __name__ == "__main__":
    main()
