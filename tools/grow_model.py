"""Make a model twice as wide that computes the same: python tools/grow_model.py FROM TO [--feed-forward F]

Source: Chen, Goodfellow, Shlens 2016, "Net2Net: Accelerating Learning via Knowledge Transfer"; for BERT: Chen et al.
2022, "bert2BERT". Every hidden state h becomes (h, h), and every head of the attention comes twice. What reads h has
its matrix W replaced by (W / 2 + E, W / 2 - E), which gives the same output for any E; with a random E the two halves
receive different gradients, so that training makes something new of them. A LayerNorm of (h, h) is the LayerNorm of h,
twice. `--feed-forward` keeps so many inner units of the feed-forward layers, those with the largest weights.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

import nezha_np as nz
from nezha_np.training.run_folder import save_model
from nezha_np.weights.weights import Weights

NOISE = 0.5  # of E, in standard deviations of the matrix


def twice(array: np.ndarray) -> np.ndarray:
    """Repeat the first axis: (H, …) to (2 H, …)."""
    return np.concatenate([array, array], axis=0)


def split_inputs(matrix: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(out, H) to (out, 2 H): halves that add up to the matrix."""
    half = matrix / 2
    noise = generator.normal(scale=NOISE * float(half.std()), size=half.shape).astype(matrix.dtype)
    return np.concatenate([half + noise, half - noise], axis=1)


def kept_units(weights: Any, layer: str, count: int) -> np.ndarray:
    """The inner units of a feed-forward layer with the largest weights, in their order."""
    inner = np.asarray(weights[f"{layer}.intermediate.dense.weight"])  # (F, H)
    outer = np.asarray(weights[f"{layer}.output.dense.weight"])  # (H, F)
    size = np.linalg.norm(inner, axis=1) * np.linalg.norm(outer, axis=0)
    return np.sort(np.argsort(size)[::-1][:count])


def grown(weights: Any, feed_forward: int, seed: int) -> Weights:
    """Return weights that are twice as wide, with `feed_forward` inner units."""
    generator = np.random.default_rng(seed)
    config = weights.config
    tensors: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        array = np.asarray(value, np.float32)
        if ".intermediate.dense." in name:
            array = array[kept_units(weights, name.split(".intermediate.")[0], feed_forward)]
            tensors[name] = array if array.ndim == 1 else split_inputs(array, generator)
        elif name.endswith(".output.dense.weight") and ".attention." not in name:
            tensors[name] = twice(array[:, kept_units(weights, name.split(".output.")[0], feed_forward)])
        elif "embeddings" in name and array.ndim == 2:
            tensors[name] = np.concatenate([array, array], axis=1)
        elif name in {"cls.predictions.bias", "cls.seq_relationship.bias"}:
            tensors[name] = array
        elif name == "cls.seq_relationship.weight":
            tensors[name] = split_inputs(array, generator)
        elif array.ndim == 1:
            tensors[name] = twice(array)
        else:
            tensors[name] = twice(split_inputs(array, generator))
    tensors["cls.predictions.transform.LayerNorm.weight"] /= 2  # the tied matrix is read with (h, h) too
    tensors["cls.predictions.transform.LayerNorm.bias"] /= 2
    wide = dataclasses.replace(
        config,
        hidden_size=2 * config.hidden_size,
        num_attention_heads=2 * config.num_attention_heads,
        intermediate_size=feed_forward,
    )
    return Weights(tensors, wide)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FROM", type=Path)
    parser.add_argument("target", metavar="TO", type=Path)
    parser.add_argument("--feed-forward", metavar="F", type=int, help="inner units; as many as there are")
    parser.add_argument("--seed", metavar="N", type=int, default=0)
    given = parser.parse_args()
    weights = nz.load(given.source, dtype="float32")
    wide = grown(weights, given.feed_forward or weights.config.intermediate_size, given.seed)
    given.target.mkdir(parents=True, exist_ok=True)
    save_model(given.target, wide, given.source)
    print(given.target, wide)


if __name__ == "__main__":
    main()
