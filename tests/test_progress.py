"""How far a long run of the oracle is: a function is told in Python, a bar shows it on a terminal, and else nothing."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.commands import progress as bars
from nezha_np.oracle import standard
from nezha_np.oracle.progress import Count

SIZES = {"vocab_size": 9, "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 3}
CONFIG = nz.BertConfig(**SIZES, initializer_range=1.0)
FEW = tuple(one for one in standard.STANDARD if one.name in ("nezha-forward", "convbert-question_answering"))


class Told(list):
    """A function that notes what it is told."""

    def __call__(self, done: int, steps: int) -> None:
        self.append((done, steps))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def files(tmp_path) -> Path:
    """Write a bundle, and arrays of a port that takes another activation, and that has a wrong gradient."""
    ids, labels = [[2, 3, 5]], [[4, -100, 1]]
    bundle = nz.oracle.record(CONFIG, ids, head="masked_lm", labels=labels, tolerances="quick")
    bundle.save(tmp_path / "golden.safetensors")
    with nz.trace() as theirs:
        nz.masked_lm(bundle.weights(), ids, labels=labels, config=CONFIG.replace(hidden_act="gelu_new"))
    contiguous = {name: np.array(array, "float32", order="C") for name, array in theirs.items()}
    safetensors.numpy.save_file(contiguous, tmp_path / "theirs.safetensors")
    gradients = {f"gradients/{name}": np.array(array, "float32", order="C") for name, array in bundle.gradients.items()}
    gradients["gradients/cls.predictions.bias"] = gradients["gradients/cls.predictions.bias"] * 2
    safetensors.numpy.save_file(gradients, tmp_path / "gradients.safetensors")
    return tmp_path


def is_whole(told: Told) -> bool:
    """Say whether what was told grows from nothing to everything."""
    return told[0][0] == 0 and told[-1][0] == told[-1][1] > 0 and told == sorted(told)


def test_record_tells_of_its_26_passes_and_says_nothing_unasked(capsys):
    told = Told()
    nz.oracle.record(CONFIG, [[2, 3]], progress=told)
    assert told == [(done, 25) for done in range(26)]
    nz.oracle.record(CONFIG, [[2, 3]], tolerances="quick", progress=told)
    nz.oracle.record(CONFIG, [[2, 3]], tolerances="quick")
    assert len(told) == 26 and capsys.readouterr() == ("", "")


def test_record_all_tells_of_its_bundles(tmp_path, monkeypatch):
    told = Told()
    monkeypatch.setattr(standard, "STANDARD", FEW)
    nz.oracle.record_all(tmp_path, progress=told)
    assert told == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize("theirs", ["theirs", "gradients"])
def test_the_doctor_tells_of_its_trials_and_says_the_same(files, theirs, capsys):
    told, arguments = Told(), (files / "golden.safetensors", files / f"{theirs}.safetensors")
    with_progress = nz.oracle.diagnose(*arguments, progress=told)
    assert is_whole(told) and told[-1][1] > 20
    assert str(with_progress) == str(nz.oracle.diagnose(*arguments)) and not with_progress.agrees
    assert capsys.readouterr() == ("", "")


def test_steps_that_are_left_out_count_as_done_after_an_error_too():
    told = Told()
    count = Count(told)
    for step in count.each([0, 1]):
        for inner in count.each([0, 1, 2]):
            if inner == step:
                break
    assert told[-1] == (8, 8) and is_whole(told)


@pytest.mark.parametrize("call", ["record", "record_all", "diagnose"])
def test_a_progress_that_is_no_function_is_refused(files, call):
    arguments = {
        "record": (CONFIG, [[2]]),
        "record_all": (files / "set",),
        "diagnose": (files / "golden.safetensors", files / "theirs.safetensors"),
    }
    with pytest.raises(TypeError, match=r"^progress: expected a function of two integers, such as print, or None, got"):
        getattr(nz.oracle, call)(*arguments[call], progress=True)


@pytest.mark.parametrize(
    ("arguments", "unit", "status"),
    [
        (["golden", "record", "--text", "房间", "--output", "pooler", "-o", "o.safetensors"], r" 25/25 \[.* passes", 0),
        (["golden", "record", "--all", "set"], r" 2/2 \[.* bundles", 0),
        (["doctor", "golden.safetensors", "theirs.safetensors"], r" (\d\d+)/\1 \[.* trials", 1),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_a_terminal_sees_a_bar_that_is_gone_at_the_end(files, monkeypatch, arguments, unit, status):
    monkeypatch.chdir(files)
    monkeypatch.setattr(standard, "STANDARD", FEW)
    monkeypatch.setattr(bars, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(bars, "TERMINAL_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(arguments) == status
    shown = sys.stderr.getvalue()
    assert re.search(unit, shown)
    assert "\n" not in shown and shown.rpartition("\r")[0].rpartition("\r")[2].strip() == ""


def test_elsewhere_nothing_is_shown(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    monkeypatch.setattr(bars, "QUIET_SECONDS", 0.0)
    assert main(["doctor", "golden.safetensors", "theirs.safetensors"]) == 1
    assert capsys.readouterr().err == ""
