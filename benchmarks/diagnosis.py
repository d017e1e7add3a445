"""Time what the doctor needs to name a mistake in a model of base width, from little evidence and from all.

python benchmarks/diagnosis.py [--hidden 768] [--layers 2] [--threads 2] [--json PATH]

Each mistake is planted in a pass of NEZHA with a language-model head, 3 texts of up to 24 tokens, float32: in the
forward pass, of which the doctor gets the logits alone, and in the walk back, of which it gets all gradients, or those
of the weights alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from contest import add_threads_option, set_threads
from machine import Target, add_json_option, report, table

import nezha_np as nz
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.mistakes import GRADIENT_MISTAKES, MISTAKES
from nezha_np.oracle.replay import replay, replay_gradients
from nezha_np.oracle.rounding import ARITHMETICS, inputs_in, weights_in
from nezha_np.oracle.standard import lively_weights

FORWARD = ("tanh GELU for erf", "relative distance reversed")
BACKWARD = ("gradient of tanh GELU", "gradient of layer_norm")
MOST = 10.0  # seconds


def make_bundle(options: argparse.Namespace) -> Bundle:
    config = nz.NezhaConfig(
        vocab_size=500,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        intermediate_size=4 * options.hidden,
        max_position_embeddings=64,
        max_relative_position=8,
    )
    random = np.random.default_rng(0)
    ids, mask = random.integers(5, 500, (3, 24)), np.ones((3, 24), int)
    mask[1, 15:] = 0
    labels = np.where(random.random((3, 24)) < 0.3, ids, -100)
    weights = lively_weights(config, "masked_lm")
    return nz.oracle.record(
        weights, ids, head="masked_lm", attention_mask=mask, labels=labels, gradients=True, tolerances="quick"
    )


def cases(bundle: Bundle) -> Any:
    """Yield each mistake, what the doctor gets, and its arrays."""
    arithmetic = ARITHMETICS["float32"]
    of_port = weights_in(bundle.weights(), arithmetic), inputs_in(bundle.inputs, arithmetic)
    for mistake in MISTAKES:
        if mistake.name in FORWARD:
            changes = next(iter(mistake.ways.values()))
            made = replay(bundle, *of_port, {}, changes=changes, arithmetic=arithmetic, nudge=5).made
            logits = [array for name, array in made.items() if name.endswith("decoder")][-1]
            yield mistake.name, "logits alone", {"logits": logits.astype(np.float32)}
    for mistake in GRADIENT_MISTAKES:
        if mistake.name in BACKWARD:
            changes = next(iter(mistake.ways.values()))
            made = replay_gradients(bundle, *of_port, {}, arithmetic, changes=changes, nudge=5)
            every = {f"gradients/{name}": array.astype(np.float32) for name, array in made.items()}
            weights = {name: array for name, array in every.items() if name.partition("/")[2] in bundle.weights()}
            yield mistake.name, "all gradients", every
            yield mistake.name, "weights' gradients", weights


def measure(bundle: Bundle, name: str, evidence: str, theirs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    start = time.perf_counter()
    found = nz.oracle.diagnose(bundle, theirs, dtype="float32")
    seconds = time.perf_counter() - start
    return {"mistake": name, "evidence": evidence, "seconds": seconds, "named": name in found.names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=2)
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()
    set_threads(options.threads)
    bundle = make_bundle(options)
    results = [measure(bundle, *case) for case in cases(bundle)]
    rows = [
        [found["mistake"], found["evidence"], f"{found['seconds']:.1f} s", "yes" if found["named"] else "no"]
        for found in results
    ]
    print(table(["mistake", "the doctor gets", "time", "named"], rows))
    slowest = max(found["seconds"] for found in results)
    settings = {"hidden": options.hidden, "layers": options.layers, "threads": options.threads}
    report(options.json, "diagnosis", settings, results, [Target("the slowest diagnosis, seconds", slowest, MOST)])


if __name__ == "__main__":
    main()
