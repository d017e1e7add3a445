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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nezha_np as nz
from nezha_np.checks import check_integer, listed
from nezha_np.families.parameters import backbone_shapes, task_shapes, tasks_of
from nezha_np.training.run_folder import MODELS, save_model
from nezha_np.weights.checkpoint import list_files
from nezha_np.weights.weights import Weights

NOISE = 0.5  # of E, in standard deviations of the matrix
# The tensors of heads that say something of a class: so many rows as there are classes, before and after.
OF_CLASSES = {
    f"{head}.{end}" for head in ("cls.seq_relationship", "classifier", "qa_outputs") for end in ("weight", "bias")
}
OF_VOCABULARY = ("cls.predictions.bias", "cls.predictions.decoder.bias")


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


def check(weights: Weights, feed_forward: int) -> None:
    """Check that every tensor is one of those that `grown` knows how to widen."""
    config = weights.config
    if config.model_type not in ("nezha", "bert") or any(config.pruned_heads.values()):
        found = "pruned heads" if config.model_type in ("nezha", "bert") else config.model_type
        raise ValueError(f"FROM: expected a NEZHA or a BERT with all its heads, got {found}")
    of_tasks = {name for task in tasks_of(config) for name in task_shapes(config, task)}
    known = backbone_shapes(config).keys() | of_tasks | {"cls.predictions.decoder.weight", *OF_VOCABULARY}
    if unknown := [name for name in weights if name not in known]:
        raise ValueError(f"FROM: expected tensors of embeddings, encoder and known heads, got {listed(unknown)}")
    check_integer("--feed-forward", feed_forward, least=1, most=config.intermediate_size)


def grown(weights: Weights, feed_forward: int, seed: int) -> Weights:
    """Return weights that are twice as wide, with `feed_forward` inner units."""
    check(weights, feed_forward)
    generator = np.random.default_rng(seed if seed >= 0 else [1, -seed])  # NumPy itself takes no negative seed
    config = weights.config
    tensors: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        array = np.asarray(value, np.float32)
        if ".intermediate.dense." in name:
            array = array[kept_units(weights, name.split(".intermediate.")[0], feed_forward)]
            tensors[name] = array if array.ndim == 1 else split_inputs(array, generator)
        elif name.endswith(".output.dense.weight") and "attention." not in name:
            tensors[name] = twice(array[:, kept_units(weights, name.split(".output.")[0], feed_forward)])
        elif name == "cls.predictions.decoder.weight" or ("embeddings" in name and array.ndim == 2):
            tensors[name] = np.concatenate([array, array], axis=1)
        elif name in OF_VOCABULARY:
            tensors[name] = array
        elif name in OF_CLASSES:  # what reads the wide states
            tensors[name] = array if array.ndim == 1 else split_inputs(array, generator)
        elif array.ndim == 1:
            tensors[name] = twice(array)
        else:
            tensors[name] = twice(split_inputs(array, generator))
        if name.startswith("cls.predictions.transform.LayerNorm."):
            tensors[name] /= 2  # the matrix of the decoder is read with (h, h) too
    wide = dataclasses.replace(
        config,
        hidden_size=2 * config.hidden_size,
        num_attention_heads=2 * config.num_attention_heads,
        intermediate_size=feed_forward,
    )
    return Weights(tensors, wide)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FROM", type=Path)
    parser.add_argument("target", metavar="TO", type=Path)
    parser.add_argument("--feed-forward", metavar="F", type=int, help="inner units; as many as there are")
    parser.add_argument("--seed", metavar="N", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        list_files(given.source, name="FROM")
        if given.target.exists() and not given.target.is_dir():
            raise FileExistsError(f"TO: expected a new folder, found a file: {given.target}")
        if saved := [name for name in MODELS if (given.target / name).exists()]:
            raise FileExistsError(f"TO: expected a new folder, found {saved[0]} of a model in {given.target}")
        weights = nz.load(given.source, dtype="float32")
        inner = weights.config.intermediate_size if given.feed_forward is None else given.feed_forward
        wide = grown(weights, inner, given.seed)
        given.target.mkdir(parents=True, exist_ok=True)
        save_model(given.target, wide, given.source)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from None
    print(given.target, wide)


if __name__ == "__main__":
    main()
