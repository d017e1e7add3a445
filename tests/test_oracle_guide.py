"""docs/oracle.md: its examples run, print what it shows, and mend the broken port in three steps."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nezha_np as nz

pytest.importorskip("torch", reason="the broken port is PyTorch's")
pytest_plugins = "pytester"
DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(python|text|diff)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])-?\d[\d.,]*(e[-+]?\d+)?(?![\w.]*\w)")


def blocks(*sections):
    """List the blocks of some sections: kind and content."""
    page = (DOCS / "oracle.md").read_text(encoding="utf-8")
    found = []
    for section in sections:
        (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
        found += BLOCK.findall(body)
    return found


def without_numbers(text):
    """Blank the numbers, which another machine rounds in another way, and with them the widths of columns."""
    return re.sub(r"[ ]+", " ", NUMBER.sub("#", text)).strip()


def printed(code, names):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, "oracle.md", "exec"), names)
    return said.getvalue()


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the port in it, from which modules are imported."""
    shutil.copy(DOCS / "broken_port.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("broken_port", None)


def mend(path, diff):
    """Apply a diff of one line for another."""
    lines = diff.splitlines()
    (old,), (new,) = ([line[1:] for line in lines if line[0] == sign] for sign in "-+")
    source = path.read_text(encoding="utf-8")
    assert source.count(f"{old}\n") == 1
    path.write_text(source.replace(f"{old}\n", f"{new}\n"), encoding="utf-8")
    sys.modules.pop("broken_port", None)
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)


STEPS = ("Trace", "Record", "Check", "A broken port, corrected in three steps", "A report")


@pytest.mark.exhaustive
def test_the_guide_says_what_its_examples_print_and_mends_the_port_in_three_steps(workplace):
    names, check, said, steps = {}, "", "", 1
    for kind, body in blocks(*STEPS):
        if kind == "python":
            check, said = body, printed(body, names)
        elif kind == "diff":
            mend(workplace / "broken_port.py", body)
            said, steps = printed(check, names), steps + 1
        else:
            assert without_numbers(said) == without_numbers(body)
    assert steps == 3
    assert "all 193 arrays agree" in (workplace / "report.html").read_text(encoding="utf-8")
    assert nz.oracle.compare(names["bundle"], names["theirs"])
    assert nz.oracle.diagnose(names["bundle"], names["theirs"]).step is None
    in_half = nz.oracle.capture_torch(  # as the page says below
        names["port"].bfloat16(), **names["bundle"].inputs, gradients=True, rename=names["OUR_NAMES"]
    )
    comparison = nz.oracle.compare(names["bundle"], in_half)
    assert comparison and comparison.dtype == "bfloat16"


@pytest.mark.exhaustive
def test_the_guide_says_where_a_port_in_int8_loses_its_precision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the example saves its bundle
    names, said = {}, ""
    for kind, body in blocks("Trace", "Record", "Where a quantised port loses it"):
        if kind == "python":
            said = printed(body, names).rstrip()
    (*_, (_, shown)) = blocks("Where a quantised port loses it")
    (first, *_, headings, _), (found_first, *_) = shown.rstrip().splitlines()[:5], said.splitlines()
    assert without_numbers(found_first) == without_numbers(first)
    assert headings.split() == said.splitlines()[3].split()
    assert said.count("onnxruntime: weights") == 12 and said.count("left 0%") >= 8


@pytest.mark.exhaustive
def test_the_fixture_fails_as_the_guide_says(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(nz.__file__).parents[1]))
    shutil.copy(DOCS / "broken_port.py", pytester.path / "my_port.py")
    (_, code), (_, _), (_, shown) = blocks("In your own tests")
    pytester.makepyfile(test_my_port=code)
    result = pytester.runpytest_subprocess("-p", "pytest_nezha_np")
    result.assert_outcomes(failed=1)
    assert without_numbers(shown) in without_numbers(result.stdout.str())


@pytest.mark.exhaustive
def test_a_port_that_is_a_process_passes_as_the_guide_says(pytester, monkeypatch):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++ to compile docs/port.cpp with")
    monkeypatch.setenv("PYTHONPATH", str(Path(nz.__file__).parents[1]))
    subprocess.run([compiler, "-O2", "-std=c++17", "-o", pytester.path / "port", DOCS / "port.cpp"], check=True)
    (_, _), (_, code), (_, _) = blocks("In your own tests")
    pytester.makepyfile(code)
    pytester.runpytest_subprocess("-p", "pytest_nezha_np").assert_outcomes(passed=1)


def test_the_fixture_takes_the_standard_bundle_that_the_guide_names():
    page = (DOCS / "oracle.md").read_text(encoding="utf-8")
    (name,) = re.findall(r'nezha_golden\(port, "([^"]+)"\)', page)
    assert name in nz.oracle.standard.names()
