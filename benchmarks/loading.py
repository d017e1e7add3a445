"""Time what comes before the first answer: importing the package, and loading a base-size file of 410 MB.

python benchmarks/loading.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import nezha_np as nz

IMPORT = "import time; start = time.perf_counter(); import nezha_np; print(time.perf_counter() - start)"
# Not resource.getrusage, whose peak a new process inherits from the one that started it.
PEAK = "import re; peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024"

LOADS = {
    "nezha_np.load": "import nezha_np; {start}; weights = nezha_np.load({folder!r})",
    "nezha_np.load, every weight summed": (
        "import nezha_np; {start}; weights = nezha_np.load({folder!r}); [array.sum() for array in weights.values()]"
    ),
    "safetensors.numpy.load_file": (
        "import safetensors.numpy; {start}; weights = safetensors.numpy.load_file({folder!r} + '/model.safetensors')"
    ),
}


def run(code: str) -> list[float]:
    """Run Python code in a process of its own and read the numbers that it prints."""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return [float(number) for number in printed.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats

    seconds = statistics.median(run(IMPORT)[0] for _ in range(repeats))
    print(f"{'import nezha_np':<36} {1000 * seconds:7.0f} ms")
    with tempfile.TemporaryDirectory() as folder:
        nz.init(nz.NezhaConfig()).save(folder)
        size = (Path(folder) / "model.safetensors").stat().st_size / 1e6
        print(f"base size, float32, {size:.0f} MB, median of {repeats}")
        found: dict[str, list[list[float]]] = {name: [] for name in LOADS}
        for _ in range(repeats):
            for name, code in LOADS.items():
                timed = code.format(start="import time; start = time.perf_counter()", folder=folder)
                found[name].append(run(f"{timed}; seconds = time.perf_counter() - start; {PEAK}; print(seconds, peak)"))
        for name, pairs in found.items():
            seconds, peak = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"{name:<36} {1000 * seconds:7.1f} ms   peak memory of the process {peak:.0f} MB")


if __name__ == "__main__":
    main()
