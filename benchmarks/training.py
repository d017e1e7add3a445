"""Time one training step, forward, backward and optimiser, against the reference with torch's autograd.

python benchmarks/training.py [--shapes base:8x128 base:1x512 tiny:64x128] [--repeats 5] [--threads 2] [--json PATH]

Both train the masked language model with dropout and AdamW, from the same weights, ids and labels; torch's is its fused
one. Before they are timed their gradients without dropout must agree. "all logits" is nezha_np without
`labelled_only`: the reference computes the logits of all tokens. They take turns in one process (contest.py).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from contest import Run, add_threads_option, set_threads, take_turns
from machine import Target, add_json_option, report, table

import nezha_np as nz
from nezha_np.training import adamw

CONFIGS = {
    "base": nz.NezhaConfig(),
    "tiny": nz.load().config.replace(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1),
}
SHAPES = ("base:8x128", "base:1x512", "tiny:64x128")
MASKED = 0.15
AGREEMENT = 1e-4  # of the largest gradient
REFERENCE, OURS, ALL_LOGITS = "reference", "nezha_np", "all logits"


def reference_model(weights: nz.Weights) -> torch.nn.Module:
    """Make the reference's masked language model with our weights."""
    config = transformers.NezhaConfig(**weights.config.to_dict())
    model = transformers.NezhaForMaskedLM(config)
    state = {f"nezha.{name}": torch.tensor(array) for name, array in weights.items()}
    state |= {name: torch.tensor(array) for name, array in weights.items() if name.startswith("cls.")}
    model.load_state_dict({name: array for name, array in state.items() if name in model.state_dict()}, strict=False)
    return model


def check(weights: nz.Weights, model: torch.nn.Module, batch: dict[str, np.ndarray]) -> float:
    """Return the largest difference of the gradients, relative to the largest one; stop where it is too large."""
    model.eval()
    model.zero_grad()
    model(**{name: torch.tensor(array) for name, array in batch.items()}).loss.backward()
    _, gradients = nz.value_and_grad(nz.masked_lm)(weights, **batch)
    largest = max(float(np.abs(gradient).max()) for gradient in gradients.values())
    worst = 0.0
    for name, parameter in model.named_parameters():
        ours = gradients[name.removeprefix("nezha.")]
        worst = max(worst, float(np.abs(ours - parameter.grad.numpy()).max()) / largest)
    if not worst <= AGREEMENT:
        raise SystemExit(f"a gradient is {worst:.1e} from the reference's: nothing is timed that is wrong")
    return worst


def reference_step(model: torch.nn.Module, batch: dict[str, np.ndarray]) -> Run:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
    inputs = {name: torch.tensor(array) for name, array in batch.items()}

    def run() -> None:
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()

    return run


def our_step(weights: nz.Weights, batch: dict[str, np.ndarray], *, labelled_only: bool) -> Run:
    run_head = nz.value_and_grad(nz.masked_lm, dropout_seed=(0, 1))
    now: list[Any] = [weights, adamw.init(weights)]

    def run() -> None:
        _, gradients = run_head(now[0], **batch, labelled_only=labelled_only)
        now[:] = adamw.step(now[0], gradients, now[1], learning_rate=1e-5)

    return run


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Check and time one shape, "base:8x128" for example."""
    kind, _, shape = name.partition(":")
    rows, length = map(int, shape.split("x"))
    weights = nz.init(CONFIGS[kind])
    generator = np.random.default_rng(0)
    ids = generator.integers(5, weights.config.vocab_size, (rows, length))
    batch = {"input_ids": ids, "labels": np.where(generator.random(ids.shape) < MASKED, ids, -100)}
    model = reference_model(weights)
    difference = check(weights, model, batch)
    make: dict[str, Callable[[], Run]] = {
        REFERENCE: lambda: reference_step(model, batch),
        OURS: lambda: our_step(weights, batch, labelled_only=True),
        ALL_LOGITS: lambda: our_step(weights, batch, labelled_only=False),
    }
    seconds = take_turns({each: one() for each, one in make.items()}, repeats)
    medians = {each: statistics.median(times) for each, times in seconds.items()}
    return {
        "shape": name,
        "median_seconds": medians,
        "ratio_of_ours": {each: medians[OURS] / medians[each] for each in medians if each != OURS},
        "all_logits_to_reference": medians[ALL_LOGITS] / medians[REFERENCE],
        "difference_of_gradients": difference,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), help="such as base:8x128")
    parser.add_argument("--repeats", type=int, default=5)
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()
    set_threads(options.threads)
    results = [measure(name, options.repeats) for name in options.shapes]
    body = []
    for result in results:
        medians = result["median_seconds"]
        body.append(
            [
                result["shape"],
                *(f"{medians[name]:.2f} s" for name in (REFERENCE, OURS, ALL_LOGITS)),
                f"{result['ratio_of_ours'][REFERENCE]:.2f}",
                f"{result['all_logits_to_reference']:.2f}",
            ]
        )
    print(table(["shape", REFERENCE, OURS, ALL_LOGITS, "ours / reference", "all logits / reference"], body))
    judged = [
        Target(f"ours / reference, {result['shape']}", result["ratio_of_ours"][REFERENCE], 1.0) for result in results
    ]
    report(options.json, "training", {"threads": options.threads, "repeats": options.repeats}, results, judged)


if __name__ == "__main__":
    main()
