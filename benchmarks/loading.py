"""Time what happens before the first forward pass: importing the package, and loading a base-size file of 410 MB.

python benchmarks/loading.py [--repeats 7] [--json PATH]

The last row of the first table is a whole process of `nezha-np fill-mask` with the shipped model, from the start of
Python to its end; the rows before it are timed from within, without the start of Python. The second table divides
``import nezha_np`` among those whose modules it runs, by ``python -X importtime``, which makes every import slower.
This process stays small, because the peak memory that the system reports for a child is at least that of its parent.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from contest import add_threads_option
from machine import Target, add_json_option, report, table
from processes import run_python, save_random_nezha

IMPORT, NUMPY = "import nezha_np", "import numpy"
COMMAND = "nezha-np fill-mask, the whole process"
FIRST_ANSWER = 0.35  # seconds
PACKAGES, REST = ("numpy", "nezha_np"), "Python's own"
# Each runs in a process of its own. Only the code after the start of the clock is timed.
LOADS = {
    "nezha_np.load": "import nezha_np; {start}; weights = nezha_np.load(sys.argv[1])",
    "nezha_np.load, every weight summed": (
        "import nezha_np; {start}; weights = nezha_np.load(sys.argv[1]); [array.sum() for array in weights.values()]"
    ),
    "safetensors.numpy.load_file": (
        "import safetensors.numpy; {start}; weights = safetensors.numpy.load_file(sys.argv[1] + '/model.safetensors')"
    ),
}
START = "import sys, time; start = time.perf_counter()"
HERE = Path(__file__).parent
PRINT = f"seconds = time.perf_counter() - start; sys.path.insert(0, {str(HERE)!r}); import processes; " + (
    "print(seconds, processes.peak_mb())"
)


def measure(folder: str, repeats: int, threads: int) -> list[dict[str, Any]]:
    codes = {code: f"{START}; {code}; {PRINT}" for code in (NUMPY, IMPORT)}
    codes |= {name: f"{code.format(start=START)}; {PRINT}" for name, code in LOADS.items()}
    found: dict[str, list[list[float]]] = {name: [] for name in codes}
    for _ in range(repeats):
        for name, code in codes.items():
            printed = run_python(code, [folder], threads).printed
            found[name].append([float(number) for number in printed.split()])
        command = run_python("from nezha_np.cli import main; main()", ["fill-mask", "房间很[MASK]净。"], threads)
        found.setdefault(COMMAND, []).append([command.seconds, command.peak_mb])
    results = []
    for name, pairs in found.items():
        seconds, peaks = zip(*pairs, strict=True)
        medians = {"median_seconds": statistics.median(seconds), "median_peak_mb": statistics.median(peaks)}
        results.append({"what": name, **medians, "seconds": seconds, "peak_mb": peaks})
    return results


def measure_imports(repeats: int, threads: int) -> dict[str, dict[str, float]]:
    """Return how many modules `import nezha_np` runs and their milliseconds, by the package that they belong to."""
    runs = []
    for _ in range(repeats):
        modules, milliseconds = Counter(), Counter()
        errors = run_python(IMPORT, [], threads, ["-X", "importtime"]).errors
        for microseconds, package in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)", errors, re.MULTILINE):
            owner = package if package in PACKAGES else REST
            modules[owner] += 1
            milliseconds[owner] += int(microseconds) / 1000
        runs.append(milliseconds)
    return {
        owner: {"modules": modules[owner], "median_ms": statistics.median(run[owner] for run in runs)}
        for owner in (*PACKAGES, REST)
    }


def row(result: dict[str, Any]) -> list[str]:
    return [result["what"], f"{1000 * result['median_seconds']:.1f} ms", f"{result['median_peak_mb']:.0f} MB"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        save_random_nezha(folder, options.threads)
        size = (Path(folder) / "model.safetensors").stat().st_size / 1e6
        results = measure(folder, options.repeats, options.threads)
    imports = measure_imports(options.repeats, options.threads)
    print(f"base size, float32, {size:.0f} MB, median of {options.repeats}, each a process of its own\n")
    print(table(["", "time", "peak memory of the process"], [row(result) for result in results]))
    parts = [[owner, f"{part['modules']}", f"{part['median_ms']:.0f} ms"] for owner, part in imports.items()]
    print("\n" + table(["import nezha_np, whose modules", "how many", "in them alone"], parts))
    settings = {"repeats": options.repeats, "threads": options.threads, "file_mb": round(size), "imports": imports}
    first = next(result["median_seconds"] for result in results if result["what"] == COMMAND)
    report(options.json, "loading", settings, results, [Target(COMMAND, first, FIRST_ANSWER)])


if __name__ == "__main__":
    main()
