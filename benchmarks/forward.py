"""Time one forward pass at base size against the reference and against its matrix products alone, interleaved.

python benchmarks/forward.py [--batch 8] [--length 128] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import transformers

import nezha_np as nz


def matrix_products(weights: nz.Weights, batch: int, length: int) -> Callable[[], None]:
    """Make a function that does the model's matrix products and nothing else, with every layer's weights."""
    config = weights.config
    rows, heads, size = batch * length, config.num_attention_heads, config.head_size
    distances = 2 * config.max_relative_position + 1
    x = {width: np.ones((rows, width), "float32") for width in (config.hidden_size, config.intermediate_size)}
    q = np.ones((batch, heads, length, size), "float32")
    probs = np.ones((batch, heads, length, length), "float32")
    buckets, table = np.ones((batch, heads, length, distances), "float32"), np.ones((distances, size), "float32")
    matrices = [array for name, array in weights.items() if "encoder" in name and array.ndim == 2]

    def run() -> None:
        for matrix in matrices:
            x[matrix.shape[1]] @ matrix.T
        for _ in range(config.num_hidden_layers):
            q @ np.matrix_transpose(q)
            q @ table.T
            probs @ q
            buckets @ table

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    config = nz.NezhaConfig()
    weights = nz.init(config)
    model = transformers.NezhaModel(transformers.NezhaConfig(**config.to_dict())).eval()
    ids = np.random.default_rng(0).integers(5, config.vocab_size, (options.batch, options.length))
    mask = np.ones_like(ids)
    tensors = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def reference() -> None:
        with torch.inference_mode():
            model(**tensors)

    def by_definitions() -> None:
        with nz.definitions():
            nz.forward(weights, ids, attention_mask=mask)

    runs = {
        "matrix products alone": matrix_products(weights, options.batch, options.length),
        "reference": reference,
        "nezha_np": lambda: nz.forward(weights, ids, attention_mask=mask),
        "nezha_np, no kernels": by_definitions,
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(options.repeats + 1):  # the first round warms up
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    print(f"base size, float32, batch {options.batch}, length {options.length}, median of {options.repeats}")
    for name, seconds in medians.items():
        print(f"{name:<22} {1000 * seconds:7.0f} ms   {seconds / medians['reference']:.2f} of the reference")


if __name__ == "__main__":
    main()
