"""Time greedy generation with a cache against the reference's `generate`, BERT at base size as a decoder.

python benchmarks/generation.py [--prompts 1x16 1x128] [--new 32] [--repeats 5] [--threads 2] [--json PATH]

Both have the same weights and prompts, add as many tokens, and must choose the same ones. A step of one token
reads every weight once: *weights alone* is the product of each matrix with one vector, and the vocabulary's.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from typing import Any

import numpy as np
import torch
import transformers
from contest import Run, add_threads_option, set_threads, take_turns
from forward import shape_of
from machine import Target, add_json_option, report, table

import nezha_np as nz

PROMPTS = ((1, 16), (1, 128), (4, 16))  # batch × length
BASE_LAYERS = 12
ALONE, REFERENCE, OURS = "weights alone", "reference", "nezha_np"


def reference_decoder(weights: nz.Weights) -> torch.nn.Module:
    """Make the reference's decoder with our weights."""
    model = transformers.BertLMHeadModel(transformers.BertConfig(**weights.config.to_dict())).eval()
    state = {
        f"bert.{key}" if not key.startswith("cls.") else key: torch.tensor(array) for key, array in weights.items()
    }
    missing, unknown = model.load_state_dict(state, strict=False)
    kept = {key for key, _ in model.named_parameters()} & set(missing)
    more = [key for key in unknown if "pooler" not in key and "seq_relationship" not in key]  # of pre-training
    if kept or more:
        raise ValueError(f"the reference has {sorted(kept)}, which we have not, and no place for {more}")
    return model


def measure(
    weights: nz.Weights, model: torch.nn.Module, shape: tuple[int, int], options: argparse.Namespace
) -> dict[str, Any]:
    """Check and time one shape of prompts."""
    ids = np.random.default_rng(0).integers(5, weights.config.vocab_size, shape)
    prompt, mask = torch.tensor(ids), torch.ones(shape, dtype=torch.int64)
    ends = {"max_new_tokens": options.new, "pad_token_id": 0}

    def reference() -> np.ndarray:
        with torch.inference_mode():
            found = model.generate(prompt, attention_mask=mask, do_sample=False, eos_token_id=None, **ends)
        return np.asarray(found)

    def ours() -> np.ndarray:
        return np.asarray(nz.generate(weights, ids, eos_token_id=[], **ends))

    if not np.array_equal(reference(), ours()):
        raise SystemExit("the two choose other tokens: nothing is timed that is wrong")
    matrices = [
        array for name, array in weights.items() if array.ndim == 2 and name.startswith(("encoder", "cls.predictions"))
    ]
    matrices.append(weights["embeddings.word_embeddings.weight"])
    vectors = {matrix.shape[1]: np.ones((shape[0], matrix.shape[1]), matrix.dtype) for matrix in matrices}

    def alone() -> None:
        for _ in range(options.new):
            for matrix in matrices:
                vectors[matrix.shape[1]] @ matrix.T

    runs: dict[str, Run] = {ALONE: alone, REFERENCE: reference, OURS: ours}
    seconds = take_turns(runs, options.repeats)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    rate = {name: shape[0] * options.new / median for name, median in medians.items()}
    return {"batch": shape[0], "length": shape[1], "tokens_a_second": rate, "seconds": seconds}


def row(result: dict[str, Any]) -> list[str]:
    rate = result["tokens_a_second"]
    figures = [f"{rate[name]:.0f}" for name in (ALONE, REFERENCE, OURS)]
    return [f"{result['batch']} × {result['length']}", *figures, f"{rate[OURS] / rate[REFERENCE]:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=shape_of, nargs="+", default=list(PROMPTS), help="such as 1x16 4x16")
    parser.add_argument("--new", type=int, default=32, help="tokens that are added to each prompt (32)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", type=int, default=BASE_LAYERS)
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()

    warnings.simplefilter("ignore")  # of the reference: it advises generation parameters in a file
    set_threads(options.threads)
    config = nz.BertConfig(num_hidden_layers=options.layers, vocab_size=21128, is_decoder=True)
    weights = nz.init(config, head="causal_lm")
    model = reference_decoder(weights)
    results = [measure(weights, model, shape, options) for shape in options.prompts]
    print(f"tokens a second, {options.new} new tokens a prompt, threads: {options.threads}\n")
    print(table(["prompts", ALONE, REFERENCE, OURS, f"{OURS} / {REFERENCE}"], [row(result) for result in results]))
    worst = min(result["tokens_a_second"][OURS] / result["tokens_a_second"][REFERENCE] for result in results)
    settings = {name: getattr(options, name) for name in ("new", "repeats", "layers", "threads")}
    complete = options.layers == BASE_LAYERS
    wanted = [Target("tokens a second, nezha_np / reference, worst", worst, 1.5, at_least=True)]
    report(options.json, "generation", settings, results, wanted if complete else [])


if __name__ == "__main__":
    main()
