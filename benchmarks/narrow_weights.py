"""Time the products of a model whose matrices are kept in two bytes or one, and widened tile by tile.

python benchmarks/narrow_weights.py [--rows 1 8 128] [--layers 12] [--repeats 5] [--threads 1] [--json PATH]

The matrices are the 72 of base size, so they come from memory: 340 MB of float32. A tile of 64 rows of a matrix is
widened to float32 in a buffer that stays in cache, and multiplied there: float16 and bfloat16 as `nezha_np.narrow`
widens them, int8 by NumPy's conversion, and its products are then multiplied with a scale for each row. The package
keeps matrices in float16 and bfloat16, and not in int8, because of these figures.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from contest import add_threads_option, set_threads, take_turns
from machine import add_json_option, report, table

from nezha_np.narrow import bfloat16, float16

SIZES = [(768, 768)] * 4 + [(3072, 768), (768, 3072)]  # of a layer: (out, in)
TILE = 64  # rows of a matrix that are widened at once: 196 KB of float32
Matrices = list[np.ndarray]


def widen_int8(kept: np.ndarray, wide: np.ndarray) -> None:
    wide[:] = kept


def products(x: dict[int, np.ndarray], matrices: Matrices, widen: Callable[..., None] | None, scaled: bool) -> None:
    """Multiply every matrix with x, (in, rows), as the kernels do for few tokens: as it is, or tile by tile."""
    buffer = np.empty((TILE, max(inside for _, inside in SIZES)), np.float32)
    for matrix in matrices:
        rows, inside = matrix.shape
        of_it = x[inside]
        if widen is None:
            matrix @ of_it
            continue
        y, wide = np.empty((rows, of_it.shape[1]), np.float32), buffer.ravel()[: TILE * inside].reshape(TILE, inside)
        for start in range(0, rows, TILE):
            widen(matrix[start : start + TILE], wide)
            np.matmul(wide, of_it, out=y[start : start + TILE])
        if scaled:
            y *= np.float32(0.01)


def kept_in(dtype: str, layers: int) -> Matrices:
    """Draw all matrices in a dtype; bfloat16 is the upper half of the bits of a float32."""
    random, kept = np.random.default_rng(0), []
    for size in SIZES * layers:
        drawn = random.standard_normal(size, np.float32)
        if dtype == "bfloat16":
            drawn = (drawn.view(np.uint32) >> 16).astype(np.uint16)
        elif dtype == "int8":
            drawn = np.clip(40 * drawn, -127, 127)
        kept.append(drawn if dtype == "bfloat16" else drawn.astype(dtype))
    return kept


def measure(rows: int, kept: dict[str, Matrices], repeats: int) -> dict[str, Any]:
    random = np.random.default_rng(1)
    x = {inside: random.standard_normal((inside, rows), np.float32) for inside in (768, 3072)}
    ways: dict[str, Any] = {"float32": None, "float16": float16.widen, "bfloat16": bfloat16.widen, "int8": widen_int8}
    runs = {
        name: lambda name=name, widen=widen: products(x, kept[name], widen, scaled=name == "int8")
        for name, widen in ways.items()
    }
    seconds = take_turns(runs, repeats)
    return {"rows": rows, "median_seconds": {name: statistics.median(times) for name, times in seconds.items()}}


def row(found: dict[str, Any]) -> list[str]:
    times = found["median_seconds"]
    narrow = [name for name in times if name != "float32"]
    return [
        f"{found['rows']}",
        f"{1000 * times['float32']:.0f} ms",
        *(f"{1000 * times[name]:.0f} ms, {times[name] / times['float32']:.2f}" for name in narrow),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8, 128])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()
    set_threads(options.threads)
    kept = {dtype: kept_in(dtype, options.layers) for dtype in ("float32", "float16", "bfloat16", "int8")}
    results = [measure(rows, kept, options.repeats) for rows in options.rows]
    count = len(SIZES) * options.layers
    print(f"{count} matrices of base size, threads: {options.threads}, median of {options.repeats}\n")
    print(table(["rows", "float32", "float16", "bfloat16", "int8"], [row(found) for found in results]))
    settings = {"layers": options.layers, "repeats": options.repeats, "threads": options.threads}
    report(options.json, "narrow_weights", settings, results, [])


if __name__ == "__main__":
    main()
