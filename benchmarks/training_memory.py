"""Measure the peak memory of a training step: forward and backward alone, and with the optimiser's step.

`benchmarks/training.py` runs it. Each contestant has a process of its own, because the peak memory of a process never
decreases. Of forward and backward what counts is the memory beyond that of libraries, weights and moments; with the
optimiser the memory beyond that of libraries and weights. The reference and nezha_np train the masked language model
with dropout and AdamW; `nezha_np` computes logits of labelled tokens alone, as its loop does, and writes weights and
moments in place.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from contest import Run
from processes import memory_mb, peak_mb, run_python
from training_tables import ALL_LOGITS, CHECKPOINTED, OURS, REFERENCE

import nezha_np as nz
from nezha_np.training import adamw

CONTESTANTS = (REFERENCE, OURS, ALL_LOGITS, CHECKPOINTED)
CONFIGS = {
    "base": nz.NezhaConfig(),
    "tiny": nz.NezhaConfig(  # whatever size ships with the package: figures of different days can be compared
        vocab_size=7000, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512
    ),
}
MASKED = 0.15
ONE = "import sys; sys.path.insert(0, sys.argv.pop(1)); import training_memory; training_memory.one(*sys.argv[1:])"


def some_batch(config: Any, rows: int, length: int) -> dict[str, np.ndarray]:
    """Make ids, a part of them labelled."""
    generator = np.random.default_rng(0)
    ids = generator.integers(5, config.vocab_size, (rows, length))
    return {"input_ids": ids, "labels": np.where(generator.random(ids.shape) < MASKED, ids, -100)}


def parts_of_shape(name: str) -> tuple[Any, int, int]:
    """Read a shape, "base:8x128" for example: configuration, rows and length."""
    kind, _, shape = name.partition(":")
    rows, length = map(int, shape.split("x"))
    return CONFIGS[kind], rows, length


def forget_peak() -> None:
    """Let the peak memory of this process begin anew from what it uses now."""
    Path("/proc/self/clear_refs").write_text("5")


def one(shape: str, who: str) -> None:
    """Measure one contestant; runs in a process of its own and prints JSON."""
    config, rows, length = parts_of_shape(shape)
    batch = some_batch(config, rows, length)
    forward_and_backward, step, make_moments = (reference if who == REFERENCE else ours)(config, batch, who)
    loaded = memory_mb()
    make_moments()
    before = memory_mb()
    forget_peak()
    forward_and_backward()
    peak = peak_mb()
    step()
    found = {"forward_and_backward_mb": peak - before, "step_mb": peak_mb() - loaded, "loaded_mb": loaded}
    print(json.dumps(found))


def reference(config: Any, batch: dict[str, np.ndarray], who: str) -> tuple[Run, Run, Run]:
    """Return the reference's forward and backward pass, its step, and what makes its moments."""
    import torch
    import transformers

    model = transformers.NezhaForMaskedLM(transformers.NezhaConfig(**config.to_dict()))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
    inputs = {name: torch.tensor(array) for name, array in batch.items()}

    def make_moments() -> None:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()

    return lambda: model(**inputs).loss.backward(), optimizer.step, make_moments


def ours(config: Any, batch: dict[str, np.ndarray], who: str) -> tuple[Run, Run, Run]:
    """Return nezha_np's forward and backward pass, its step, and what makes its moments."""
    weights = nz.init(config)
    for array in weights.values():
        array.flags.writeable = True  # as the weights are after the first step; a copy would leave memory behind
    run = nz.value_and_grad(nz.masked_lm, dropout_seed=(0, 1), checkpoint_layers=who == CHECKPOINTED)
    options = {} if who == ALL_LOGITS else {"labelled_only": True}
    now: dict[str, Any] = {"weights": weights}

    def forward_and_backward() -> None:
        _, now["gradients"] = run(now["weights"], **batch, **options)

    def step() -> None:
        now["weights"], now["state"] = adamw.step(
            now.pop("weights"), now.pop("gradients"), now.pop("state"), learning_rate=1e-5, donate=True
        )

    def make_moments() -> None:
        now["state"] = adamw.init(now["weights"])
        now["gradients"] = {name: np.zeros_like(array) for name, array in now["weights"].items()}
        step()

    return forward_and_backward, step, make_moments


def measure_memory(shape: str, threads: int) -> dict[str, Any]:
    """Measure all contestants at one shape."""
    here = str(Path(__file__).parent)
    found = {
        who: json.loads(run_python(ONE, [here, shape, who], threads).printed.splitlines()[-1]) for who in CONTESTANTS
    }
    return {"shape": shape, **found}
