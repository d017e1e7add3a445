"""What all subcommands have in common: consoles, signals, exit statuses, how an error names an option, and the help."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import nezha_np as nz
import nezha_np.cli
from nezha_np.cli import main
from nezha_np.commands import output
from nezha_np.commands.parser import Parser, typed_names

ROOT = Path(__file__).parents[1]
CONFIG = nz.NezhaConfig(vocab_size=7000, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=6)
TEXT = "房间很[MASK]净。"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write what every subcommand can read: a checkpoint, texts, a bundle, and arrays, right and wrong."""
    folder = tmp_path_factory.mktemp("files")
    nz.init(CONFIG).save(folder / "模型")
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(nz.weights.checkpoint.SHIPPED / name, folder / "模型")
    (folder / "texts.txt").write_text("房间\n价格\n", encoding="utf-8")
    bundle = nz.oracle.record(CONFIG, [[2, 5, 3]], tolerances="quick", path=folder / "golden.safetensors")
    theirs = {name: np.array(array, "float32") for name, array in bundle.trace.items()}
    safetensors.numpy.save_file(theirs, folder / "theirs.safetensors")
    theirs["encoder.layer.0.intermediate.dense"] += 1
    safetensors.numpy.save_file(theirs, folder / "wrong.safetensors")
    return folder


# A call of each subcommand, and its exit status.
CALLS = {
    "fill-mask": (["fill-mask", TEXT], 0),
    "explain": (["explain", TEXT, "-o", "-", "--model", "模型"], 0),
    "embed": (["embed", "texts.txt", "--model", "模型"], 0),
    "inspect": (["inspect", "模型"], 0),
    "convert": (["convert", "模型", "out", "--force"], 0),
    "golden record": (["golden", "record", "--text", "房间", "--tolerances", "none", "-o", "o.safetensors", "--force"], 0),
    "golden check": (["golden", "check", "golden.safetensors", "theirs.safetensors", "--verbose"], 0),
    "golden show": (["golden", "show", "golden.safetensors"], 0),
    "doctor": (["doctor", "golden.safetensors", "wrong.safetensors"], 1),
}
UTF_8 = {"explain", "embed"}  # what other programs read


def leaves(parser: Parser) -> dict[str, Parser]:
    """Return the parser of each command that can be run, by its name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {
                f"{name} {rest}".strip(): leaf
                for name, below in action.choices.items()
                for rest, leaf in leaves(below).items()
            }
    return {"": parser}


LEAVES = leaves(nezha_np.cli._parser())


def error(capsys, *arguments: str) -> str:
    """Run a command that fails with status 2: its one line on stderr."""
    try:
        status = main(arguments)
    except SystemExit as exit:
        status = exit.code
    printed = capsys.readouterr()
    assert status == 2 and printed.out == "" and printed.err.count("\n") == 1, printed
    return printed.err


def test_the_calls_here_are_of_every_subcommand():
    assert CALLS.keys() == LEAVES.keys()


# ------------------------------------------------------------------------------------------------------------ consoles


class Console(io.TextIOWrapper):
    """A console, or a file that output is redirected to, of an encoding."""

    def __init__(self, encoding: str) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, newline="", write_through=True)


@pytest.mark.parametrize("encoding", ["cp936", "cp1252", "ascii"])
@pytest.mark.parametrize("command", CALLS)
def test_every_subcommand_prints_on_a_console_that_lacks_characters(folder, monkeypatch, command, encoding):
    monkeypatch.chdir(folder)
    out, err = Console(encoding), Console(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    arguments, status = CALLS[command]
    assert main(arguments) == status, err.bytes.getvalue()
    assert err.bytes.getvalue() == b""
    text = out.bytes.getvalue().decode("utf-8" if command in UTF_8 else encoding)
    if command in UTF_8:
        assert "房间" in text
    if command == "fill-mask":
        assert text.splitlines()[0] == {"cp936": "干 0.826"}.get(encoding, "\\u5e72 0.826")
    if command == "golden check":
        times = {"ascii": "x"}.get(encoding, "×")
        assert f"+  embeddings                                          1 {times} 3 {times} 8 " in text


@pytest.mark.parametrize("command", ["golden check", "doctor"])
def test_json_is_utf_8_whatever_the_console(folder, monkeypatch, tmp_path, command):
    theirs = nz.oracle.load(folder / "golden.safetensors").trace["pooler"].astype("float32")
    safetensors.numpy.save_file({"pooler": theirs, "多余": theirs}, tmp_path / "theirs.safetensors")
    out = Console("cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    arguments = [*command.split(), str(folder / "golden.safetensors"), str(tmp_path / "theirs.safetensors"), "--json"]
    assert main(arguments) == 0
    assert "多余" in out.bytes.getvalue().decode("utf-8")
    json.loads(out.bytes.getvalue())


@pytest.mark.parametrize("command", LEAVES)
def test_the_help_and_an_error_print_on_a_console_that_lacks_characters(monkeypatch, command):
    out, err = Console("ascii"), Console("cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) as exit:
        main([*command.split(), "--help"])
    assert exit.value.code == 0 and b"example: nezha-np" in out.bytes.getvalue()
    with pytest.raises(SystemExit) as exit:
        main([*command.split(), "--干✓"])
    assert exit.value.code == 2 and err.bytes.getvalue().count(b"\n") == 1


def test_an_output_without_bytes_as_a_notebook_has_takes_text(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    output.write_text("干")
    assert out.getvalue() == "干\n"


def test_without_a_standard_error_nothing_of_an_error_is_printed_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["fill-mask", "no gap"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("arguments", [["golden", "record", "--help"], ["--version"], ["inspect"]], ids=" ".join)
def test_a_pipe_that_is_closed_is_no_error_of_the_help_either(arguments):
    command = ["bash", "-c", 'set -o pipefail; "$@" | true', "bash", sys.executable, "-m", "nezha_np", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


# ------------------------------------------------------------------------------------------------------------- signals

# Runs a subcommand and sends a signal to its own process at the first call of a layer, or of what writes or reads.
SIGNALLED = textwrap.dedent("""
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored
    number, status = int(sys.argv[1]), None
    import nezha_np.cli
    from nezha_np.mechanism import layer
    from nezha_np.weights.formats import safetensors
    import nezha_np.commands.golden, nezha_np.commands.inspect
    def stop(*arguments, **options):
        signal.raise_signal(number)
        raise AssertionError("the signal was not answered")
""")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", CALLS)
def test_every_subcommand_answers_a_signal_with_one_line_and_leaves_nothing(
    folder, tmp_path, monkeypatch, capsys, command, number, status
):
    def stop(*arguments, **options):
        signal.raise_signal(number)
        raise AssertionError("the signal was not answered")

    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    before = {path.name for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    # Reading the header of a file of tensors: all subcommands do that. `convert` is stopped while it writes.
    if command == "convert":
        monkeypatch.setattr("nezha_np.weights.convert.write_safetensors", stop, raising=False)
        monkeypatch.setattr("safetensors.numpy.save_file", stop)
    monkeypatch.setattr("nezha_np.weights.formats.safetensors.read_header", stop)
    try:
        assert main(CALLS[command][0]) == status
    finally:
        signal.signal(signal.SIGINT, handler)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == "nezha-np: interrupted\n"
    assert {path.name for path in tmp_path.iterdir()} == before
