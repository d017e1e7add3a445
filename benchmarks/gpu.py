"""Check every head and its gradients on a GPU against NumPy on the CPU, then time a forward pass against the reference.

python benchmarks/gpu.py [--families nezha bert convbert] [--shapes 1x128 32x128 8x512] [--repeats 30] [--json PATH]

This needs CuPy and a CUDA device. With PyTorch for CUDA and transformers 4.37.2 it also times the reference, in eager
mode, on the same GPU with the same weights, ids and mask. At the end it times masked_lm with all gradients, with our
kernels and without. TF32 is off for both. A time is from the call until the
device has finished (cudaDeviceSynchronize, which waits for both libraries); the runs take turns, and medians are
compared. "host" is the time until the call returns; during the rest of the time only the device works.

torch.profiler counts the launches for both: it records every kernel of the process, whichever library launched it. It
also counts copies to the host, of which there must be none.

Exit status: 0 if everything agrees, 1 if a result differs too much from NumPy's or the reference's, 2 if there is no
GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import importlib.util
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nezha_np as nz
from nezha_np.families.family import FAMILIES, family_of
from nezha_np.families.parameters import backbone_shapes, pooler_shapes, task_shapes

TOLERANCES = {"float32": 1e-4, "float16": 1e-2}  # relative to the largest number
SHAPES = ("1x128", "32x128", "8x512")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=sorted(FAMILIES), default=["nezha", "bert", "convbert"])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="BATCHxLENGTH")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--layers", type=int, default=12, help="fewer make a quick try")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures there too")
    options = parser.parse_args()

    os.environ["CUPY_TF32"] = "0"
    if (reason := why_no_gpu()) is not None:
        print(f"There is no GPU to run on: {reason}")
        return 2
    missing = why_no_reference()
    report: dict[str, Any] = {
        "machine": machine(),
        "reference": missing or "transformers 4.37.2",
        "checks": [],
        "times": [],
    }
    for name, value in report["machine"].items():
        print(f"{name}: {value}")
    if missing:
        print(f"reference: not timed, {missing}")

    print(f"\n{'family':<9} {'head':<35} {'dtype':<8} {'off by':>9} {'at most':>8}   largest number = 1")
    for check in itertools.chain(checks(options), gradient_checks(options)):
        report["checks"].append(check)
        verdict = "" if check["good"] else "   TOO FAR"
        line = f"{check['family']:<9} {check['head']:<35} {check['dtype']:<8} {check['difference']:9.1e}"
        print(f"{line} {check['tolerance']:8.0e}{verdict}", flush=True)

    titles = f"{'ms':>8} {'host':>8} {'launches':>9} {'to host':>8} {'of the reference':>17}"
    print(f"\n{'family':<9} {'shape':<8} {'dtype':<8} {'run':<22} {titles}")
    rows = times(options, with_reference=missing is None), gradient_times(options, with_counts=missing is None)
    for row in itertools.chain.from_iterable(rows):
        report["times"].append(row)
        counts = ["-" if row[name] is None else row[name] for name in ("launches", "copies_to_host")]
        ratio = "-" if row["of_reference"] is None else f"{row['of_reference']:.2f}"
        figures = f"{row['ms']:8.2f} {row['host_ms']:8.2f} {counts[0]:>9} {counts[1]:>8} {ratio:>17}"
        print(f"{row['family']:<9} {row['shape']:<8} {row['dtype']:<8} {row['run']:<22} {figures}", flush=True)

    if options.json is not None:
        write(options.json, report)
    far = [check for check in report["checks"] if not check["good"]]
    far += [row for row in report["times"] if not row["good"]]
    return 1 if far else 0


def why_no_gpu() -> str | None:
    """Return the reason why nothing can run here, or None."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed."
    try:
        import cupy

        return None if cupy.cuda.runtime.getDeviceCount() else "CuPy finds no CUDA device."
    except Exception as error:  # no driver, or one that is too old: they raise different errors
        return f"{error}".splitlines()[0]


def why_no_reference() -> str | None:
    """Return the reason why the reference cannot be timed here, or None."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    import torch
    import transformers

    if transformers.__version__ != "4.37.2":
        return f"transformers is {transformers.__version__}, not 4.37.2"
    return None if torch.cuda.is_available() else "PyTorch finds no CUDA device"


def machine() -> dict[str, str]:
    """Describe the GPU and the versions of the libraries."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    found = {
        "date": datetime.date.today().isoformat(),
        "card": properties["name"].decode(),
        "CUDA": f"runtime {cupy.cuda.runtime.runtimeGetVersion()}, driver {cupy.cuda.runtime.driverGetVersion()}",
        "CuPy": cupy.__version__,
        "nezha_np": nz.__version__,
    }
    if importlib.util.find_spec("torch") is not None:
        import torch

        found["torch"] = torch.__version__
    return found


# ------------------------------------------------------------------------------------------------- models and inputs


def drawn(config: Any, head: str | None, dtype: str) -> nz.Weights:
    """Make random weights that all affect the result: biases too, and maps that preserve the scale of their input."""
    shapes = (
        backbone_shapes(config)
        | pooler_shapes(config)
        | ({} if head in (None, "forward") else task_shapes(config, head))
    )
    generator = np.random.default_rng(0)
    tensors = {
        name: (0.03 * generator.standard_normal(shape, dtype=np.float32) + name.endswith("LayerNorm.weight")).astype(
            dtype
        )
        for name, shape in shapes.items()
    }
    return nz.Weights(tensors, config)


def arguments(head: str, config: Any, batch: int, length: int) -> dict[str, Any]:
    """Make random ids and labels, and a mask with padding and with one text that is all padding."""
    generator = np.random.default_rng(1)
    shape = (batch, 3, length) if head == "multiple_choice" else (batch, length)
    mask = np.ones(shape, np.int64)
    mask[0, ..., length // 2 :] = 0
    mask[-1] = 0
    given: dict[str, Any] = {
        "input_ids": generator.integers(5, config.vocab_size, shape),
        "attention_mask": mask,
        "token_type_ids": generator.integers(0, config.type_vocab_size, shape),
    }
    words, texts = generator.integers(0, config.vocab_size, shape), generator.integers(0, 2, batch)
    labels: dict[str, dict[str, Any]] = {
        "forward": {},
        "pretraining": {"labels": words, "next_sentence_label": texts},
        "token_classification": {"labels": generator.integers(0, config.num_labels, shape)},
        "question_answering": {"start_positions": texts, "end_positions": texts + 2},
        "masked_lm": {"labels": words},
        "causal_lm": {"labels": words},
    }
    return given | labels.get(head, {"labels": texts})


def fields(output: Any) -> dict[str, Any]:
    """List the arrays of an output by name."""
    found = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {name: value for name, value in found.items() if hasattr(value, "shape")}


# ------------------------------------------------------------------------------------------------------------ checks


def checks(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run each head in NumPy and on the GPU, in float32 and float16, and compare all that it returns."""
    for family in options.families:
        config = FAMILIES[family].config(num_hidden_layers=options.layers)
        for head in family_of(config).tasks:
            ours = config.replace(is_decoder=True) if head == "causal_lm" else config
            given = arguments(head, ours, batch=3, length=80)
            for dtype, tolerance in TOLERANCES.items():
                weights = drawn(ours, head, dtype)
                run = getattr(nz, head)
                expected = fields(run(weights.to(dtype="float32"), **given))
                found = fields(run(weights.to(device="cuda"), **given))
                difference = max(relative(found[name].get(), value) for name, value in expected.items())
                yield {
                    "family": family,
                    "head": head,
                    "dtype": dtype,
                    "difference": difference,
                    "tolerance": tolerance,
                    "good": found.keys() == expected.keys() and difference <= tolerance,
                }


def gradient_checks(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Walk back from each head's loss in NumPy and on the GPU, in float32, and compare all gradients together."""
    for family in options.families:
        config = FAMILIES[family].config(num_hidden_layers=options.layers)
        for head in family_of(config).tasks:
            if head == "forward":
                continue
            ours = config.replace(is_decoder=True) if head == "causal_lm" else config
            given, weights = arguments(head, ours, batch=3, length=80), drawn(ours, head, "float32")
            run = nz.value_and_grad(getattr(nz, head))
            (_, expected), (_, found) = run(weights, **given), run(weights.to(device="cuda"), **given)
            here = np.concatenate([expected[name].ravel() for name in sorted(expected)])
            difference = relative(joined(found), here)
            yield {
                "family": family,
                "head": f"{head}: gradients",
                "dtype": "float32",
                "difference": difference,
                "tolerance": TOLERANCES["float32"],
                "good": found.keys() == expected.keys() and difference <= TOLERANCES["float32"],
            }


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference divided by the largest number; infinity if a number is not finite."""
    found = np.asarray(found, np.float64)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# ------------------------------------------------------------------------------------------------------------- times


def times(options: argparse.Namespace, *, with_reference: bool) -> Iterator[dict[str, Any]]:
    """Time the runs of each shape in turns."""
    import cupy

    for family in options.families:
        config = FAMILIES[family].config(num_hidden_layers=options.layers)
        for dtype, tolerance in TOLERANCES.items():
            weights = drawn(config, None, dtype)
            there = weights.to(device="cuda")
            model = reference(weights, dtype) if with_reference else None
            for shape in options.shapes:
                batch, length = map(int, shape.split("x"))
                ids = np.random.default_rng(2).integers(5, config.vocab_size, (batch, length))
                runs = our_runs(there, cupy.asarray(ids), cupy.asarray(np.ones_like(ids)))
                outputs = {name: run().last_hidden_state.get() for name, run in runs.items()}
                if model is not None:
                    runs["reference"] = their_run(model, ids)
                    outputs["reference"] = runs["reference"]().last_hidden_state.float().cpu().numpy()
                # The time of a run with other results is meaningless.
                exact = outputs.get("reference", outputs["nezha_np, no kernels"])
                medians = interleaved(runs, options.repeats)
                for name, run in runs.items():
                    launches, copies = counted(run) if with_reference else (None, None)
                    seconds, until_returned = medians[name]
                    good = relative(outputs[name], exact) <= tolerance and (name == "reference" or not copies)
                    yield {
                        "family": family,
                        "shape": shape,
                        "dtype": dtype,
                        "run": name,
                        "ms": 1000 * seconds,
                        "host_ms": 1000 * until_returned,
                        "launches": launches,
                        "copies_to_host": copies,
                        "of_reference": seconds / medians["reference"][0] if with_reference else None,
                        "difference": relative(outputs[name], exact),
                        "good": good,
                    }


def our_runs(weights: nz.Weights, ids: Any, mask: Any) -> dict[str, Callable[[], Any]]:
    """Make our two runs, with and without kernels."""
    run = functools.partial(nz.forward, weights, ids, attention_mask=mask)
    return {"nezha_np": run, "nezha_np, no kernels": without_kernels(run)}


def without_kernels(run: Callable[[], Any]) -> Callable[[], Any]:
    """Make the same run by definitions."""

    def by_definitions() -> Any:
        with nz.definitions():
            return run()

    return by_definitions


def gradient_times(options: argparse.Namespace, *, with_counts: bool) -> Iterator[dict[str, Any]]:
    """Time masked_lm with all its gradients, with and without kernels, in turns; every token has a label."""
    import cupy

    for family in options.families:
        config = FAMILIES[family].config(num_hidden_layers=options.layers)
        weights = drawn(config, "masked_lm", "float32").to(device="cuda")
        for shape in options.shapes:
            ids = np.random.default_rng(2).integers(5, config.vocab_size, tuple(map(int, shape.split("x"))))
            there = cupy.asarray(ids)
            run = functools.partial(nz.value_and_grad(nz.masked_lm), weights, there, labels=there)
            runs = {"gradients": run, "gradients, no kernels": without_kernels(run)}
            outputs = {name: joined(run()[1]) for name, run in runs.items()}
            difference = relative(outputs["gradients"], outputs["gradients, no kernels"])
            medians = interleaved(runs, options.repeats)
            for name, run in runs.items():
                launches, copies = counted(run) if with_counts else (None, None)
                yield {
                    "family": family,
                    "shape": shape,
                    "dtype": "float32",
                    "run": name,
                    "ms": 1000 * medians[name][0],
                    "host_ms": 1000 * medians[name][1],
                    "launches": launches,
                    "copies_to_host": copies,
                    "of_reference": None,
                    "difference": difference,
                    "good": difference <= TOLERANCES["float32"] and not copies,
                }


def joined(gradients: dict[str, Any]) -> np.ndarray:
    """Put all gradients behind each other, on the host."""
    return np.concatenate([gradients[name].get().ravel() for name in sorted(gradients)])


def reference(weights: nz.Weights, dtype: str) -> Any:
    """Make the reference's model with our weights, on the GPU."""
    import torch
    import transformers

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    config = weights.config
    kind = getattr(transformers, family_of(config).tasks["forward"].reference)
    model = kind(getattr(transformers, type(config).__name__)(**config.to_dict()))
    tensors = {name: torch.from_numpy(np.array(array, np.float32)) for name, array in weights.items()}
    left = model.load_state_dict(tensors, strict=False)
    buffers = {name for name, _ in model.named_buffers()}
    if left.unexpected_keys or not set(left.missing_keys) <= buffers:
        raise ValueError(f"the reference's model has other tensors: {left}")
    return model.to("cuda", getattr(torch, dtype)).eval()


def their_run(model: Any, ids: np.ndarray) -> Callable[[], Any]:
    """Make the reference's run."""
    import torch

    given = {"input_ids": torch.from_numpy(ids).cuda(), "attention_mask": torch.ones(ids.shape, device="cuda")}

    def run() -> Any:
        with torch.inference_mode():
            return model(**given)

    return run


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """Return for each run the median times until the device has finished, and until the call returns."""
    import cupy

    wait = cupy.cuda.runtime.deviceSynchronize
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for repeat in range(repeats + 3):  # the first rounds compile and fill memory pools
        for name, run in runs.items():
            wait()
            start = time.perf_counter()
            output = run()
            returned = time.perf_counter()
            wait()
            done = time.perf_counter()
            del output
            if repeat >= 3:
                found[name].append((done - start, returned - start))
    return {
        name: (statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs))
        for name, pairs in found.items()
    }


def counted(run: Callable[[], Any]) -> tuple[int, int]:
    """Count the kernel launches of a run, and its copies to the host."""
    import torch

    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    on_device = [event.name for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    copies = [name for name in on_device if name.startswith(("Memcpy", "Memset"))]
    return len(on_device) - len(copies), sum("DtoH" in name for name in copies)


def write(path: Path, report: dict[str, Any]) -> None:
    """Write JSON to a temporary file in the folder and move it into place: no incomplete file is ever visible."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, path)


if __name__ == "__main__":
    sys.exit(main())
