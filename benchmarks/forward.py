"""Time one forward pass at base size against the reference, ONNX Runtime, and the model's matrix products alone.

python benchmarks/forward.py [--shapes 1x16 8x128] [--repeats 7] [--threads 2] [--json PATH]

`--definitions` also times nezha_np without kernels, `--undivided` with kernels but without its own threads, `--by-row`
with few tokens kept row by row. Products of few rows are asked for in the way that is faster, W xᵀ. All have
the same weights, ids, attention mask of ones and number of threads. Their results must agree before they are timed, and
they take turns in one process (contest.py). If onnxruntime or onnx is not installed, the others run without it.
`--layers 1 --repeats 1` is a quick trial run.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
from contest import Run, add_threads_option, geometric_mean, set_threads, take_turns
from machine import Target, add_json_option, report, table
from rivals import Answer, Inputs, onnx_answer, reference_answer, reference_model, why_no_onnx

import nezha_np as nz
from nezha_np.kernels import numpy_blocks

SHAPES = ((1, 16), (1, 128), (8, 128), (1, 512), (4, 512))  # batch × length
BASE_LAYERS = 12
AGREEMENT = 1e-4  # of the largest: the reference computes NEZHA's position table in float32
# The columns; "products" are the matrix products alone.
PRODUCTS, REFERENCE, ONNX, OURS = "products", "reference", "ONNX Runtime", "nezha_np"
DEFINITIONS, UNDIVIDED, BY_ROW = "definitions", "undivided", "by row"


def matrix_products(weights: nz.Weights, batch: int, length: int) -> Callable[[], None]:
    """Make a function that computes only the model's matrix products, with every layer's weights."""
    config = weights.config
    rows, heads, size = batch * length, config.num_attention_heads, config.head_size
    distances = 2 * config.max_relative_position + 1
    x = {width: np.ones((rows, width), "float32") for width in (config.hidden_size, config.intermediate_size)}
    q = np.ones((batch, heads, length, size), "float32")
    probs = np.ones((batch, heads, length, length), "float32")
    buckets, table = np.ones((batch, heads, length, distances), "float32"), np.ones((distances, size), "float32")
    columns = {width: np.ascontiguousarray(vectors.T) for width, vectors in x.items()}
    matrices = [array for name, array in weights.items() if "encoder" in name and array.ndim == 2]

    def run() -> None:
        for matrix in matrices:
            if rows <= numpy_blocks.FEW:
                matrix @ columns[matrix.shape[1]]
            else:
                x[matrix.shape[1]] @ matrix.T
        for _ in range(config.num_hidden_layers):
            q @ np.matrix_transpose(q)
            q @ table.T
            probs @ q
            buckets @ table

    return run


def our_answer(weights: nz.Weights, way: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Answer:
    def answer(inputs: Inputs) -> np.ndarray:
        with way():
            return nz.forward(weights, **inputs).last_hidden_state

    return answer


def undivided() -> AbstractContextManager[Any]:
    """Use only BLAS's own threads, as if threadpoolctl were not installed."""
    return mock.patch.object(numpy_blocks, "TOKENS", sys.maxsize)


def by_row() -> AbstractContextManager[Any]:
    """Keep few tokens row by row, as others are."""
    return mock.patch.object(numpy_blocks, "FEW", 0)


def differences(answers: dict[str, Answer], inputs: Inputs) -> dict[str, float]:
    """Return each one's difference from the reference, relative to the largest value; raise if it is too large."""
    expected = answers[REFERENCE](inputs)
    found = {}
    for name, answer in answers.items():
        if name != REFERENCE:
            found[name] = float(np.abs(answer(inputs) - expected).max() / np.abs(expected).max())
            if not found[name] <= AGREEMENT:
                raise SystemExit(f"{name} is {found[name]:.1e} from the reference: nothing is timed that is wrong")
    return found


def measure(
    weights: nz.Weights, model: Any, shape: tuple[int, int], options: argparse.Namespace, *, with_onnx: bool
) -> dict[str, Any]:
    """Check and time one shape."""
    ids = np.random.default_rng(0).integers(5, weights.config.vocab_size, shape)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    answers = {REFERENCE: reference_answer(model)}
    if with_onnx:
        answers[ONNX] = onnx_answer(model, inputs, options.threads)
    answers[OURS] = our_answer(weights)
    if options.definitions:
        answers[DEFINITIONS] = our_answer(weights, nz.definitions)
    if options.undivided:
        answers[UNDIVIDED] = our_answer(weights, undivided)
    if options.by_row:
        answers[BY_ROW] = our_answer(weights, by_row)
    found = differences(answers, inputs)
    runs: dict[str, Run] = {PRODUCTS: matrix_products(weights, *shape)}
    runs |= {name: functools.partial(answer, inputs) for name, answer in answers.items()}
    seconds = take_turns(runs, options.repeats)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {name: medians[OURS] / median for name, median in medians.items() if name != OURS}
    return {
        "batch": shape[0],
        "length": shape[1],
        "median_seconds": medians,
        "ratio_of_ours": ratios,
        "difference_from_reference": found,
        "seconds": seconds,
    }


def targets(results: list[dict[str, Any]]) -> list[Target]:
    """Return the targets for all five shapes together."""
    by_shape = {(result["batch"], result["length"]): result["ratio_of_ours"] for result in results}

    def mean(name: str) -> float | None:
        ratios = [ratios[name] for ratios in by_shape.values() if name in ratios]
        return geometric_mean(ratios) if len(ratios) == len(by_shape) else None

    return [
        Target("ours / reference, worst shape", max(ratios[REFERENCE] for ratios in by_shape.values()), 1.0),
        Target("ours / reference, geometric mean", mean(REFERENCE), 0.85),
        Target("ours / ONNX Runtime, geometric mean", mean(ONNX), 1.0),
        Target("ours / products, 8 × 128", by_shape[8, 128][PRODUCTS], 1.17),
        Target("ours / products, 4 × 512", by_shape[4, 512][PRODUCTS], 1.6),
    ]


def rows(results: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Make the rows of the table: milliseconds, then our time divided by that of each other contestant."""
    measured = results[0]["median_seconds"]
    names = [PRODUCTS, REFERENCE, ONNX, OURS, *(name for name in (DEFINITIONS, UNDIVIDED, BY_ROW) if name in measured)]
    others = [name for name in names if name != OURS]

    def cells(columns: list[str], one: Callable[[str], str]) -> list[str]:
        return [one(name) if name in measured else "not run" for name in columns]

    body = []
    for result in results:
        seconds, ratios = result["median_seconds"], result["ratio_of_ours"]
        milliseconds = cells(names, lambda name, seconds=seconds: f"{1000 * seconds[name]:.0f} ms")
        figures = cells(others, lambda name, ratios=ratios: f"{ratios[name]:.2f}")
        body.append([f"{result['batch']} × {result['length']}", *milliseconds, *figures])
    means = cells(others, lambda name: f"{geometric_mean(result['ratio_of_ours'][name] for result in results):.2f}")
    body.append(["geometric mean", *("" for _ in names), *means])
    return ["batch × length", *names, *(f"ours / {name}" for name in others)], body


def shape_of(text: str) -> tuple[int, int]:
    """Read "8x128"; argparse reports the ValueError of a wrong shape."""
    batch, length = map(int, text.split("x"))
    return batch, length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=shape_of, nargs="+", default=list(SHAPES), help="such as 1x16 8x128")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--layers", type=int, default=BASE_LAYERS)
    parser.add_argument("--definitions", action="store_true", help="time nezha_np without its kernels too")
    parser.add_argument("--undivided", action="store_true", help="time nezha_np without threads of its own too")
    parser.add_argument("--by-row", action="store_true", help="time nezha_np with few tokens kept row by row too")
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()

    set_threads(options.threads)
    weights = nz.init(nz.NezhaConfig(num_hidden_layers=options.layers))
    model = reference_model(weights)
    missing = why_no_onnx()
    results = []
    for shape in options.shapes:
        result = measure(weights, model, shape, options, with_onnx=missing is None)
        milliseconds = (f"{name} {1000 * value:.0f} ms" for name, value in result["median_seconds"].items())
        print(f"{shape[0]} × {shape[1]}: {', '.join(milliseconds)}", flush=True)
        results.append(result)

    largest = max(max(result["difference_from_reference"].values()) for result in results)
    print(
        f"\n{options.layers} layers, 768 wide, float32, threads: {options.threads}, median of {options.repeats}\n"
        f"products: the matrix products alone; largest relative difference from the reference: {largest:.1e}\n"
    )
    print(table(*rows(results)))
    if missing:
        print(f"ONNX Runtime was not run: {missing}")
    complete = options.layers == BASE_LAYERS and set(options.shapes) >= set(SHAPES)
    if not complete:
        print("The targets are for all five shapes at base size, and were not looked at.")
    settings = {"layers": options.layers, "threads": options.threads, "repeats": options.repeats}
    judged = [result for result in results if (result["batch"], result["length"]) in SHAPES]
    report(options.json, "forward", settings, results, targets(judged) if complete else [])


if __name__ == "__main__":
    main()
