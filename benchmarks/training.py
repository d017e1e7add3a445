"""Time one training step, forward, backward and optimiser, and measure its memory, against the reference with torch.

python benchmarks/training.py [--shapes base:8x128 base:1x512 tiny:64x128] [--repeats 3] [--threads 2] [--json PATH]

Both train the masked language model with dropout, from the same weights, ids and labels. Before they are timed their
gradients without dropout must agree, and their weights after a step of AdamW and of LAMB from one gradient. AdamW is
torch's fused one, LAMB is written with torch's multi-tensor functions (training_twins.py). "all logits" is nezha_np
without `labelled_only`: the reference computes the logits of all tokens. "products" are those of a step with the
matrices of the layers alone, by NumPy and by torch. They take turns in one process (contest.py); the memory of each is
measured in a process of its own (training_memory.py).

`--only time` or `--only memory` measures one of the two, and keeps the other from the file of `--json`. After the
complete command `python benchmarks/training_tables.py` writes the section of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from contest import Run, add_threads_option, set_threads, take_turns
from machine import add_json_option, report
from training_memory import measure_memory, parts_of_shape, some_batch
from training_tables import (
    ALL_LOGITS,
    LAMB_OURS,
    LAMB_REFERENCE,
    OURS,
    PRODUCTS,
    PRODUCTS_REFERENCE,
    REFERENCE,
    memory_table,
    products_table,
    targets,
    time_table,
)
from training_twins import TorchLamb, adamw_of_torch, reference_model

import nezha_np as nz
from nezha_np.training import adamw, lamb

SHAPES = ("base:8x128", "base:1x512", "tiny:64x128")
AGREEMENT = 1e-4  # of the largest gradient
SAME_STEP = 1e-5  # of the largest weight of a tensor, after a step from the same gradient
RATE = 1e-5
BESIDE = {
    OURS: REFERENCE,
    ALL_LOGITS: REFERENCE,
    LAMB_OURS: LAMB_REFERENCE,
    PRODUCTS: PRODUCTS_REFERENCE,
}


def check_gradients(weights: nz.Weights, model: torch.nn.Module, batch: dict[str, np.ndarray]) -> float:
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


def check_step(weights: nz.Weights, model: torch.nn.Module, optimizer: Any, ours: Any) -> float:
    """Make a step from the model's gradients with both; return how far apart the weights are, and stop if too far.

    The rate is large, so that a step that is wrong can be seen in float32.
    """
    names = {name: name.removeprefix("nezha.") for name, _ in model.named_parameters()}
    gradients = {names[name]: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    new, _ = ours.step(weights, gradients, ours.init(weights), learning_rate=0.01)
    optimizer.step()
    worst = 0.0
    for name, parameter in model.named_parameters():
        theirs, mine = parameter.detach().numpy(), new[names[name]]
        worst = max(worst, float(np.abs(theirs - mine).max() / max(np.abs(theirs).max(), 1e-30)))
    if not worst <= SAME_STEP:
        raise SystemExit(f"a weight is {worst:.1e} from the reference's after a step: nothing is timed that is wrong")
    return worst


def check(weights: nz.Weights, batch: dict[str, np.ndarray]) -> dict[str, float]:
    """Compare gradients and steps before anything is timed."""
    differences = {}
    for name, ours, make in (("adamw", adamw, adamw_of_torch), ("lamb", lamb, TorchLamb)):
        model = reference_model(weights)
        if name == "adamw":
            differences["gradients"] = check_gradients(weights, model, batch)
            kept = {key: parameter.grad for key, parameter in model.named_parameters()}
        for key, parameter in model.named_parameters():
            parameter.grad = kept[key]
        differences[name] = check_step(weights, model, make(model, 0.01), ours)
    return differences


def reference_step(weights: nz.Weights, batch: dict[str, np.ndarray], make: Any) -> Run:
    model = reference_model(weights)
    model.train()
    optimizer = make(model, RATE)
    inputs = {name: torch.tensor(array) for name, array in batch.items()}

    def run() -> None:
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()

    return run


def our_step(weights: nz.Weights, batch: dict[str, np.ndarray], optimizer: Any, *, labelled_only: bool) -> Run:
    run_head = nz.value_and_grad(nz.masked_lm, dropout_seed=(0, 1))
    now: list[Any] = [weights, optimizer.init(weights)]

    def run() -> None:
        _, gradients = run_head(now[0], **batch, labelled_only=labelled_only)
        now[:] = optimizer.step(now[0], gradients, now[1], learning_rate=RATE, donate=True)

    return run


def step_products(weights: nz.Weights, rows: int, as_array: Callable[[np.ndarray], Any]) -> Run:
    """Make a function that computes a step's products with the layers' matrices: y = x Wᵀ, dx = dy W, dW = dyᵀ x."""
    matrices = [as_array(array) for name, array in weights.items() if "encoder" in name and array.ndim == 2]
    widths = {width for matrix in matrices for width in matrix.shape}
    x = {width: as_array(np.ones((rows, width), "float32")) for width in widths}

    def run() -> None:
        for matrix in matrices:
            outputs, inputs = matrix.shape
            x[inputs] @ matrix.T
            x[outputs] @ matrix
            x[outputs].T @ x[inputs]

    return run


def measure_time(name: str, repeats: int) -> dict[str, Any]:
    """Check and time one shape, "base:8x128" for example."""
    config, rows, length = parts_of_shape(name)
    weights = nz.init(config)
    batch = some_batch(config, rows, length)
    differences = check(weights, batch)
    seconds = take_turns(
        {
            REFERENCE: reference_step(weights, batch, adamw_of_torch),
            OURS: our_step(weights, batch, adamw, labelled_only=True),
            ALL_LOGITS: our_step(weights, batch, adamw, labelled_only=False),
        },
        repeats,
    )
    seconds |= take_turns(  # by themselves: weights and moments of all together would take 10 GB
        {
            LAMB_REFERENCE: reference_step(weights, batch, TorchLamb),
            LAMB_OURS: our_step(weights, batch, lamb, labelled_only=True),
        },
        repeats,
    )
    seconds |= take_turns(
        {
            PRODUCTS: step_products(weights, rows * length, np.asarray),
            PRODUCTS_REFERENCE: step_products(weights, rows * length, torch.tensor),
        },
        repeats,
    )
    medians = {each: statistics.median(times) for each, times in seconds.items()}
    return {
        "shape": name,
        "median_seconds": medians,
        "ratios": {each: medians[each] / medians[other] for each, other in BESIDE.items()},
        "differences": differences,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), help="such as base:8x128")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("time", "memory"), help="measure one of the two")
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()
    before = {"time": [], "memory": []}
    if options.only and options.json is not None and options.json.is_file():
        before = json.loads(options.json.read_text(encoding="utf-8"))["results"]
    memory, times = before["memory"], before["time"]
    if options.only != "time":  # before this process is large: its children would begin as large
        memory = [measure_memory(name, options.threads) for name in options.shapes if name.startswith("base")]
        print(memory_table(memory), end="\n\n", flush=True)
    if options.only != "memory":
        set_threads(options.threads)
        times = [measure_time(name, options.repeats) for name in options.shapes]
        print(time_table(times), products_table(times), sep="\n\n")
    settings = {"threads": options.threads, "repeats": options.repeats}
    report(options.json, "training", settings, {"time": times, "memory": memory}, targets(times, memory))


if __name__ == "__main__":
    main()
