"""What the tolerances of a golden bundle cost: the time of `nezha_np.oracle.record` with each choice of them.

    python benchmarks/tolerances.py            # times, for the shipped model
    python benchmarks/tolerances.py --ratios   # and how wide the quick ones are beside the measured ones, a few minutes

Times are medians of interleaved runs, with one BLAS thread.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")

import argparse
import statistics
import time

import numpy as np

import nezha_np as nz
from nezha_np.oracle.standard import names, record_standard

CHOICES = ("measured", "quick", None)
TEXTS = ["房间很干净，早餐也不错，下次还会再来。"] * 4
NEEDED = 4.3 / 6.0  # of the measured tolerances; right ports were seen to need no more


def measure_times(repeats: int) -> dict[str | None, float]:
    """Time a recording of masked_lm with each choice, its gradients included."""
    weights, batch = nz.load(), nz.encode(nz.load_tokenizer(), TEXTS)
    times: dict[str | None, list[float]] = {choice: [] for choice in CHOICES}
    for _ in range(repeats):
        for choice in CHOICES:
            start = time.perf_counter()
            nz.oracle.record(weights, head="masked_lm", **batch, labels=batch["input_ids"], tolerances=choice)
            times[choice].append(time.perf_counter() - start)
    return {choice: statistics.median(seconds) for choice, seconds in times.items()}


def measure_ratios() -> dict[str, list[float]]:
    """Divide the quick tolerances of the standard bundles by the measured ones, dtype by dtype."""
    ratios: dict[str, list[float]] = {}
    for name in names():
        measured, quick = (record_standard(name, tolerances=choice) for choice in ("measured", "quick"))
        for dtype, tolerances in measured.tolerances.items():
            ratios.setdefault(dtype, []).extend(
                quick.tolerances[dtype][key] / allowed
                for key, allowed in tolerances.items()
                if not key.endswith("attention_mask")
            )
    return ratios


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ratios", action="store_true")
    options = parser.parse_args()
    for choice, seconds in measure_times(options.repeats).items():
        print(f"tolerances={choice!r}: {seconds:.2f} s")
    if options.ratios:
        for dtype, found in measure_ratios().items():
            print(
                f"quick / measured in {dtype}: {min(found):.2f} to {max(found):.0f}, median {np.median(found):.1f}; "
                f"{100.0 * np.mean(np.array(found) >= NEEDED):.1f} % are {NEEDED:.2f} or more"
            )


if __name__ == "__main__":
    main()
