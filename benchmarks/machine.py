"""What every benchmark reports: the machine, its table, its targets, and its JSON file."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LIBRARIES = ("numpy", "torch", "transformers", "onnxruntime", "scikit-learn")


class Target(NamedTuple):
    """A number that a benchmark should reach."""

    name: str
    value: float | None  # None: not measured
    limit: float
    at_least: bool = False  # else at most

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "met" if (self.value >= self.limit if self.at_least else self.value <= self.limit) else "not met"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def facts() -> dict[str, Any]:
    """Return what the figures depend on, and nothing that identifies the machine."""
    processor = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*:\s*(.+)$", processor, re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": model[1] if model else platform.machine(),
        "avx512": " avx512f " in processor,
        "cores": cores(),
        "memory_gb": round(memory / 1e9),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "blas": blas_name(),
        "date": datetime.date.today().isoformat(),
    }


def version(name: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def blas_name() -> str:
    """Return name and version of the BLAS that NumPy was built with, and the processor that OpenBLAS has detected."""
    import numpy as np  # imported here: a process that measures its children's memory must stay small
    from threadpoolctl import threadpool_info

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    kernels = {found["architecture"] for found in threadpool_info() if found["internal_api"] == "openblas"}
    return f"{blas['name']} {blas['version']}" + "".join(f" ({name} kernels)" for name in sorted(kernels))


def describe(found: dict[str, Any]) -> str:
    """Return the facts as one line."""
    libraries = [f"{name} {found[name]}" for name in LIBRARIES if found.get(name)]
    vectors = "with AVX-512" if found["avx512"] else "without AVX-512"
    processor = f"{found['cores']} cores of {found['cpu']}, {vectors}, {found['memory_gb']} GB"
    return ", ".join([processor, f"Python {found['python']}", *libraries, found["blas"], found["date"]])


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table with columns aligned in the text too: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(aligned)} |"

    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join(map(line, [headings, rule, *rows]))


def target_table(targets: Sequence[Target]) -> str:
    """Make the table of targets, each with the measured value."""
    rows = []
    for target in targets:
        found = "–" if target.value is None else f"{target.value:.3g}"
        bound = f"{'at least' if target.at_least else 'at most'} {target.limit:g}"
        rows.append([target.name, found, bound, target.verdict])
    return table(["target", "found", "wanted", ""], rows)


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads an integer that is not smaller."""

    def read(word: str) -> int:
        number = int(word)
        if number < least:
            raise argparse.ArgumentTypeError(f"expected a number from {least} on, got {word}")
        return number

    read.__name__ = "integer"  # for the message where it is none
    return read


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures to this file too")


def report(
    path: Path | None, benchmark: str, settings: dict[str, Any], results: Any, targets: Sequence[Target] = ()
) -> None:
    """Print targets and machine, and write everything as JSON if there is a path."""
    found = facts()
    if targets:
        print(f"\n{target_table(targets)}")
    print(f"\n{describe(found)}")
    if path is not None:
        judged = [target._asdict() | {"verdict": target.verdict} for target in targets]
        content = {"benchmark": benchmark, "machine": found, "settings": settings, "results": results}
        write_json(path, content | {"targets": judged})


def write_json(path: Path, content: Any) -> None:
    """Write to a temporary file and move it into place: an old file is replaced completely or not at all."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
