"""Time a whole process, from `python -c` to the first hidden state at base size, and count what has to be installed.

python benchmarks/cold_start.py [--repeats 5] [--threads 2] [--json PATH]

Each process imports its library, loads weights from the same folder and runs 1 × 16 ids. The file was written and read
just before, so it comes from the system's cache, not from a disk. This process stays small (it imports NumPy only at
the end), because the peak memory that the system reports for a child is at least that of its parent.
`--layers 1 --repeats 1` is a quick trial run.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from typing import Any

from contest import add_threads_option
from installed import installed_sizes, our_requirements
from machine import Target, add_json_option, report, table
from processes import run_python, save_random_nezha

BASE_LAYERS = 12
STARTS = {
    "reference": """
import sys, torch, transformers
model = transformers.NezhaModel.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    print(float(model(torch.arange(100, 116)[None]).last_hidden_state[0, 0, 0]))
""",
    "nezha_np": """
import sys, numpy as np, nezha_np as nz
weights = nz.load(sys.argv[1])
print(float(nz.forward(weights, np.arange(100, 116)[None]).last_hidden_state[0, 0, 0]))
""",
}
TIME_LIMIT, MEMORY_LIMIT = 0.12, 0.35


def measure(folder: str, repeats: int, threads: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in STARTS}
    peaks: dict[str, list[float]] = {name: [] for name in STARTS}
    for index in range(repeats + 1):  # the first round fills the system's cache, and is not counted
        answers = []
        for name, code in STARTS.items():
            finished = run_python(code, [folder], threads)
            answers.append(float(finished.printed))
            if index:
                seconds[name].append(finished.seconds)
                peaks[name].append(finished.peak_mb)
        if not math.isclose(*answers, abs_tol=1e-4):
            raise SystemExit(f"the hidden states differ: {answers}")
    return {
        "median_seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "median_peak_mb": {name: statistics.median(found) for name, found in peaks.items()},
        "seconds": seconds,
        "peak_mb": peaks,
    }


def ratio(figures: dict[str, float]) -> float:
    return figures["nezha_np"] / figures["reference"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", type=int, default=BASE_LAYERS)
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        save_random_nezha(folder, options.threads, num_hidden_layers=options.layers)
        result = measure(folder, options.repeats, options.threads)
    packages = {
        "nezha_np": installed_sizes(our_requirements()),
        "reference": installed_sizes(["torch", "transformers"]),
    }
    result["installed_mb"] = packages
    sizes = {name: sum(found.values()) for name, found in packages.items()}
    times, peaks = result["median_seconds"], result["median_peak_mb"]

    print(f"{options.layers} layers, 768 wide, float32, threads: {options.threads}, median of {options.repeats}\n")
    rows = [
        ["from start to end", *(f"{times[name]:.2f} s" for name in STARTS), f"{ratio(times):.3f}"],
        ["peak memory", *(f"{peaks[name]:.0f} MB" for name in STARTS), f"{ratio(peaks):.3f}"],
        ["installed", *(f"{sizes[name]:.0f} MB" for name in STARTS), f"{ratio(sizes):.3f}"],
    ]
    print(table(["", *STARTS, "nezha_np / reference"], rows))
    for name, found in packages.items():
        parts = (f"{package} {size:.1f}" for package, size in sorted(found.items(), key=lambda item: -item[1]))
        print(f"\nInstalled for {name}, MB: {', '.join(parts)}")
    settings = {"layers": options.layers, "threads": options.threads, "repeats": options.repeats}
    targets = [
        Target("nezha_np / reference, time", ratio(times), TIME_LIMIT),
        Target("nezha_np / reference, peak memory", ratio(peaks), MEMORY_LIMIT),
    ]
    complete = options.layers == BASE_LAYERS
    if not complete:
        print("\nThe targets are for base size, and were not looked at.")
    report(options.json, "cold_start", settings, result, targets if complete else [])


if __name__ == "__main__":
    main()
