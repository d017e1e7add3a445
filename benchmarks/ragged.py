"""Time the embedding of texts of mixed length, nz.embed against the reference, for NEZHA and BERT at base size.

python benchmarks/ragged.py [--texts 512] [--repeats 1] [--threads 2] [--json PATH]

The reference gets padded batches of 32 in the order of the input. Both have the same random weights and tokenizer, cut
texts at 512 tokens, take the mean of the tokens' last hidden states, and are timed from texts to vectors. At full size
this takes a quarter of an hour; `--layers 1 --texts 64` is a quick trial run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from contest import PAUSE, add_threads_option, set_threads
from machine import Target, add_json_option, report, table
from rivals import reference_model
from texts import mixed_texts
from tokenizers import Tokenizer

import nezha_np as nz

BATCH = 32
MOST_TOKENS = 512  # the number of BERT's positions
BASE_LAYERS = 12
RATIO, DIFFERENCE = 1.8, 1e-5
FAMILIES = {"NEZHA": nz.NezhaConfig, "BERT": nz.BertConfig}
Embed = Callable[[list[str]], np.ndarray]


def reference_embed(model: torch.nn.Module, tokenizer: Tokenizer) -> Embed:
    def embed(texts: list[str]) -> np.ndarray:
        vectors = []
        for start in range(0, len(texts), BATCH):
            arrays = nz.encode(tokenizer, texts[start : start + BATCH], max_length=MOST_TOKENS)
            batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
            with torch.inference_mode():
                mask = batch["attention_mask"][:, :, None]
                hidden = model(**batch).last_hidden_state
                vectors.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
        return np.concatenate(vectors)

    return embed


def measure(family: str, texts: list[str], tokenizer: Tokenizer, options: argparse.Namespace) -> dict[str, Any]:
    weights = nz.init(FAMILIES[family](num_hidden_layers=options.layers))
    contestants: dict[str, Embed] = {
        "reference": reference_embed(reference_model(weights), tokenizer),
        "nezha_np": lambda given: nz.embed(given, weights, tokenizer, max_length=MOST_TOKENS),
    }
    for embed in contestants.values():
        embed(texts[:BATCH])  # fills the caches
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    vectors = {}
    for _ in range(options.repeats):
        for name, embed in contestants.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            vectors[name] = embed(texts)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "family": family,
        "texts_per_second": {name: len(texts) / median for name, median in medians.items()},
        "ratio": medians["reference"] / medians["nezha_np"],
        "largest_difference": float(np.abs(vectors["nezha_np"] - vectors["reference"]).max()),
        "seconds": seconds,
    }


def row(result: dict[str, Any]) -> list[str]:
    speeds = result["texts_per_second"]
    figures = [f"{speeds['reference']:.2f}", f"{speeds['nezha_np']:.2f}", f"{result['ratio']:.2f}"]
    return [result["family"], *figures, f"{result['largest_difference']:.1e}"]


def targets(results: list[dict[str, Any]]) -> list[Target]:
    found = []
    for result in results:
        family = result["family"]
        found.append(Target(f"{family}: nezha_np / reference, texts a second", result["ratio"], RATIO, at_least=True))
        found.append(Target(f"{family}: largest difference of vectors", result["largest_difference"], DIFFERENCE))
    return found


def lengths_of(texts: list[str], tokenizer: Tokenizer) -> np.ndarray:
    return nz.encode(tokenizer, texts, max_length=MOST_TOKENS)["attention_mask"].sum(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--layers", type=int, default=BASE_LAYERS)
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()

    set_threads(options.threads)
    tokenizer = nz.load_tokenizer()
    texts, source = mixed_texts(options.texts, tokenizer)
    lengths = lengths_of(texts, tokenizer)
    padded = sum(lengths[start : start + BATCH].max() * BATCH for start in range(0, len(texts), BATCH))
    print(
        f"{len(texts)} texts ({source}) of {lengths.min()} to {lengths.max()} tokens, median {np.median(lengths):.0f}; "
        f"batches of {BATCH} in the given order hold {padded / lengths.sum():.2f} times as many with padding"
    )
    results = []
    for family in FAMILIES:
        results.append(measure(family, texts, tokenizer, options))
        print(" ".join(row(results[-1])), flush=True)
    print(f"\n{options.layers} layers, 768 wide, float32, threads: {options.threads}, median of {options.repeats}\n")
    headings = ["texts a second", "reference", "nezha_np", "nezha_np / reference", "largest difference"]
    print(table(headings, [row(result) for result in results]))
    complete = options.layers == BASE_LAYERS and options.texts >= 512
    if not complete:
        print("The targets are for 512 texts at base size, and were not looked at.")
    settings = {name: getattr(options, name) for name in ("texts", "repeats", "layers", "threads")}
    settings |= {"source": source, "tokens": int(lengths.sum()), "tokens_with_padding": int(padded)}
    report(options.json, "ragged", settings, results, targets(results) if complete else [])


if __name__ == "__main__":
    main()
