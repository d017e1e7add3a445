"""Runs an implementation that this project did not write against bundles of the standard set, and says what differs.

    python benchmarks/ports/check.py transformers
    python benchmarks/ports/check.py onnxruntime ctranslate2 bert4torch kerashub flax

Each is a file beside this one, with what it needs in its first lines; `docs/ports.md` shows what they print.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

import nezha_np as nz
from nezha_np.oracle.alignment import align

PORTS = ("transformers", "onnxruntime", "bert4torch", "ctranslate2", "kerashub", "flax", "tensorflow", "paddlenlp")


def with_golden_padding(bundle, theirs, names):
    """Put the golden numbers in the place of theirs at masked tokens, in their arrays (B, L, …)."""
    found, real = align(bundle, theirs, names=names), bundle.inputs["attention_mask"] != 0
    return {
        name: np.where(real[..., None], array, bundle.arrays[name].astype(array.dtype))
        if array.shape[:2] == real.shape
        else array
        for name, array in found.arrays.items()
    }


def lines_of(port: str, only: str | None = None, *, real_tokens: bool = False):
    """Run a port on its bundles: a line for each."""
    module = importlib.import_module(f"{port}_port")
    yield ", ".join(f"{package} {version(package)}" for package in module.PACKAGES) or port
    for name in module.BUNDLES:
        if only not in (None, name):
            continue
        bundle = nz.oracle.record_standard(name, tolerances="quick")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what a code base prints for itself
                theirs = module.run(bundle)
        except Exception as error:
            yield f"  {name}: {type(error).__name__}: {error}"
            continue
        options = {"names": module.NAMES, "transposed": getattr(module, "TRANSPOSED", False)}
        if real_tokens and "attention_mask" in bundle.inputs:
            theirs = with_golden_padding(bundle, theirs, module.NAMES)
        comparison = nz.oracle.compare(bundle, theirs, **options)
        if comparison:
            yield f"  {name}: all {len(comparison.rows)} arrays agree within the tolerances of {comparison.dtype}"
            continue
        first, wrong = comparison.first, sum(not row.agrees for row in comparison.rows)
        yield f"  {name}: {wrong} of {len(comparison.rows)} arrays differ, first {first.name}"
        yield f"    by {first.absolute:.2e}, where rounding explains {first.tolerance:.2e}"
        found = nz.oracle.diagnose(bundle, theirs, **options)
        yield f"    the doctor: {', '.join(found.names) or 'no mistake that it knows'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ports", nargs="+", choices=PORTS, metavar="PORT", help=", ".join(PORTS))
    parser.add_argument("--bundle", help="one of the standard set, all of a port's if left out")
    parser.add_argument("--real-tokens", action="store_true", help="leave out what is made at masked tokens")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    for port in options.ports:
        for line in lines_of(port, options.bundle, real_tokens=options.real_tokens):
            print(line, flush=True)


if __name__ == "__main__":
    main()
