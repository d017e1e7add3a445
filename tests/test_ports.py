"""Implementations that were checked: the page names each, and those of the tests' own requirements are run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PORTS = ROOT / "benchmarks" / "ports"


def names():
    return sorted(path.stem.removesuffix("_port") for path in PORTS.glob("*_port.py"))


def test_the_page_has_a_command_for_each_port():
    page = (ROOT / "docs" / "ports.md").read_text(encoding="utf-8")
    commands = [line for line in page.splitlines() if "benchmarks/ports/check.py " in line and "python " in line]
    assert all(any(name in line.split() for line in commands) for name in names())


@pytest.mark.exhaustive
@pytest.mark.parametrize(("port", "needs"), [("transformers", "transformers"), ("onnxruntime", "onnxruntime")])
def test_a_port_is_checked_by_its_command(port, needs):
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed: it is in the extra [benchmarks]")
    command = [sys.executable, PORTS / "check.py", port, "--bundle", "bert-forward-relative_key"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=300)
    first, second = ended.stdout.splitlines()
    assert first.startswith(port) and second.endswith(" arrays agree within the tolerances of float32")
