"""The command line: what it prints, and that an error is one line on stderr, exit status 2, and no traceback."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import nezha_np as nz
import nezha_np.cli
from nezha_np.cli import main

ROOT = Path(__file__).parents[1]
TEXT = "房间很[MASK]净。"
SMALL = nz.NezhaConfig(vocab_size=11, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Copy the shipped model, in float32."""
    folder = tmp_path_factory.mktemp("models") / "学生"
    nz.load().save(folder)
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(nz.weights.checkpoint.SHIPPED / name, folder)
    return folder


def lines(capsys, *arguments: str) -> list[str]:
    """Run a command that works and return what it printed."""
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out.splitlines()


def error(capsys, *arguments: str) -> str:
    """Run a command that fails and return its one line on stderr."""
    try:
        status = main(arguments)
    except SystemExit as exit:  # what argparse finds wrong
        status = exit.code
    printed = capsys.readouterr()
    assert status == 2 and printed.out == ""
    assert printed.err.count("\n") == 1 and printed.err.endswith("\n") and printed.err.startswith("nezha-np")
    assert "Traceback" not in printed.err
    return printed.err


def run(
    arguments: Sequence[str | bytes], shell_tail: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "nezha_np.cli", *arguments]
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"} | environment
    options = {"cwd": ROOT, "env": variables, "capture_output": True, "timeout": 60}
    if shell_tail:
        return subprocess.run(["bash", "-c", f'set -o pipefail; "$@" {shell_tail}', "bash", *command], **options)
    return subprocess.run(command, **options)


# ---------------------------------------------------------------------------------------------------------- fill-mask


def test_fill_mask_prints_five_characters_with_their_probabilities(capsys):
    printed = lines(capsys, "fill-mask", TEXT)
    assert len(printed) == 5 and all(re.fullmatch(r"\S 0\.\d{3}", line) for line in printed)
    assert printed[0] == "干 0.984"
    probabilities = [float(line.split()[1]) for line in printed]
    assert probabilities == sorted(probabilities, reverse=True)


def test_fill_mask_prints_what_fill_mask_returns(capsys):
    expected = [f"{token} {probability:.3f}" for token, _, probability in nz.fill_mask(TEXT)[0]]
    assert lines(capsys, "fill-mask", TEXT) == expected


def test_two_gaps_are_separated_by_an_empty_line(capsys):
    printed = lines(capsys, "fill-mask", "房间很[MASK]净，性价[MASK]很高。")
    assert len(printed) == 11 and printed[5] == "" and printed.count("") == 1
    assert printed[0].startswith("干 ") and printed[6].startswith("比 ")


@pytest.mark.parametrize("count", [1, 3, 7000])
def test_top_k_says_how_many(capsys, count):
    assert len(lines(capsys, "fill-mask", TEXT, "--top-k", str(count))) == count


def test_model_says_which_checkpoint(capsys, checkpoint):
    for path in (checkpoint, checkpoint / "model.safetensors"):
        assert lines(capsys, "fill-mask", "--model", str(path), TEXT) == lines(capsys, "fill-mask", TEXT)
    weights = dict(nz.load())
    bias = weights["cls.predictions.bias"] = np.array(weights["cls.predictions.bias"])
    bias[nz.load_tokenizer().token_to_id("安")] += 100
    nz.Weights(weights, nz.load().config).save(checkpoint.parent / "other")
    shutil.copy(checkpoint / "vocab.txt", checkpoint.parent / "other")
    assert lines(capsys, "fill-mask", TEXT, "--model", str(checkpoint.parent / "other"))[0] == "安 1.000"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["房间很干净。"], "text: expected at least one [MASK], got '房间很干净。'"),
        ([""], "text: expected at least one [MASK], got ''"),
        ([TEXT, "--top-k", "0"], "nezha-np: --top-k: expected a number from 1 to 7000, got 0"),
        ([TEXT, "--top-k", "7001"], "nezha-np: --top-k: expected a number from 1 to 7000, got 7001"),
        ([TEXT, "--top-k", "five"], "argument --top-k: invalid int value: 'five'"),
        ([TEXT, "--model", "nowhere"], "nezha-np: --model: expected a folder or a file that ends in .safetensors"),
        ([TEXT, "more"], "unrecognized arguments: more"),
        ([TEXT, "-o", "out.jsonl"], "--output: expected with it a file of texts, or standard input, got one text"),
        ([TEXT, "--format", "jsonl"], "--format: expected with it a file of texts"),
    ],
)
def test_fill_mask_says_in_one_line_what_is_wrong(capsys, arguments, message):
    assert message in error(capsys, "fill-mask", *arguments)


def test_a_model_without_a_language_model_head_or_a_tokenizer_is_refused(capsys, tmp_path, checkpoint):
    weights = {name: array for name, array in nz.load().items() if not name.startswith("cls.")}
    nz.Weights(weights, nz.load().config).save(tmp_path)
    assert "vocab.txt" in error(capsys, "fill-mask", TEXT, "--model", str(tmp_path))
    shutil.copy(checkpoint / "vocab.txt", tmp_path)
    message = error(capsys, "fill-mask", TEXT, "--model", str(tmp_path))
    assert "masked_lm needs tensors that the weights do not have: cls.predictions." in message


# ------------------------------------------------------------------------------------------------------------ inspect


def test_inspect_says_what_the_shipped_model_holds(capsys):
    printed = lines(capsys, "inspect")
    assert printed == lines(capsys, "inspect", str(nz.weights.checkpoint.SHIPPED))
    assert printed[0] == f"nezha in {nz.weights.checkpoint.SHIPPED}"
    for key, value in nz.load().config.to_dict().items():
        assert f"{key}: {value}" in printed
    assert "77 tensors, 3,975,386 parameters, 7,950,772 bytes" in printed
    assert {"forward: complete", "pretraining: complete", "masked_lm: complete", "causal_lm: complete"} <= set(printed)
    assert "sequence_classification: missing classifier.weight, classifier.bias" in printed
    assert "question_answering: missing qa_outputs.weight, qa_outputs.bias" in printed
    assert {line.split(":")[0] for line in printed[-9:]} == {"forward", *nz.families.parameters.every_task()}


def test_inspect_lists_every_tensor_with_shape_dtype_and_bytes(capsys):
    table = [re.split(r"  +", line) for line in lines(capsys, "inspect")]
    assert ["tensor", "shape", "dtype", "bytes"] in table
    for name, array in nz.load(dtype=None).items():
        assert [name, " x ".join(map(str, array.shape)), "F16", f"{array.nbytes:,}"] in table


def test_inspect_says_which_heads_a_model_without_a_pooler_cannot_serve(capsys, tmp_path):
    weights = {name: array for name, array in nz.init(SMALL).items() if not name.startswith("pooler.")}
    nz.Weights(weights, SMALL).save(tmp_path)
    printed = lines(capsys, "inspect", str(tmp_path))
    assert "forward: complete" in printed and "masked_lm: complete" in printed
    for head in ("pretraining", "next_sentence_prediction"):
        assert f"{head}: missing pooler.dense.weight, pooler.dense.bias" in printed
    assert (
        "multiple_choice: missing pooler.dense.weight, pooler.dense.bias, classifier.weight, classifier.bias" in printed
    )


def test_inspect_reads_shards_and_says_what_it_leaves_out(capsys, tmp_path):
    import safetensors.numpy

    tensors = {f"bert.{name}" if not name.startswith("cls.") else name: array for name, array in nz.init(SMALL).items()}
    tensors["bert.embeddings.position_ids"] = np.arange(512)[None]
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].copy()
    tensors["steps"] = np.array(5)
    names = list(tensors)
    for file, part in (("a.safetensors", names[:9]), ("b.safetensors", names[9:])):
        safetensors.numpy.save_file({name: tensors[name] for name in part}, tmp_path / file)
    index = {name: "a.safetensors" if name in names[:9] else "b.safetensors" for name in names}
    (tmp_path / "model.safetensors.index.json").write_text(str({"weight_map": index}).replace("'", '"'))
    nz.init(SMALL).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "config.json", tmp_path)
    printed = lines(capsys, "inspect", str(tmp_path))
    assert (
        "not needed, because computed or tied: bert.embeddings.position_ids, cls.predictions.decoder.weight" in printed
    )
    assert any(line.startswith("steps ") and "I64" in line for line in printed)
    assert "pretraining: complete" in printed


def test_inspect_says_what_has_a_wrong_shape_or_type(capsys, tmp_path):
    import safetensors.numpy

    tensors = dict(nz.init(SMALL))
    tensors["embeddings.LayerNorm.bias"] = np.zeros(9, np.float32)
    tensors["cls.predictions.bias"] = np.zeros(11, np.int8)
    nz.init(SMALL).save(tmp_path)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    printed = lines(capsys, "inspect", str(tmp_path))
    assert "forward: embeddings.LayerNorm.bias is F32 (9,) instead of floats (8,)" in printed
    assert "masked_lm: cls.predictions.bias is I8 (11,) instead of floats (11,)" in printed


def test_inspect_reads_a_header_without_the_data(capsys, tmp_path):
    nz.init(SMALL).save(tmp_path)
    before = lines(capsys, "inspect", str(tmp_path))
    size = (tmp_path / "model.safetensors").stat().st_size
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(size - 400)
        file.write(b"\xff" * 400)
    assert lines(capsys, "inspect", str(tmp_path)) == before


def break_file(folder: Path, name: str, content: bytes | None) -> None:
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", None, "expected model.safetensors or pytorch_model.bin or the index of one's"),
        ("model.safetensors", b"", "expected a safetensors file, got one that breaks the format"),
        ("model.safetensors", b"\xff" * 100, "expected a safetensors file, got one that breaks the format"),
        ("config.json", None, "expected a config.json, found no such file"),
        ("config.json", b"{\n\n", "expected JSON, got a file that is not"),
        ("config.json", b'{"model_type": "bart"}', "model_type: expected one of nezha"),
        ("config.json", b'{"model_type": "nezha", "hidden_size": 7}', "hidden_size: expected a multiple of"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "fill-mask"])
def test_a_broken_checkpoint_is_one_line_on_stderr(capsys, tmp_path, command, name, content, message):
    nz.init(SMALL).save(tmp_path)
    break_file(tmp_path, name, content)
    arguments = [str(tmp_path)] if command == "inspect" else [TEXT, "--model", str(tmp_path)]
    found = error(capsys, command, *arguments)
    assert message in found and str(tmp_path) in found


def test_a_missing_path_is_one_line_on_stderr(capsys, tmp_path):
    missing = str(tmp_path / "no\nwhere")
    assert "found no" in error(capsys, "inspect", missing)


# ------------------------------------------------------------------------------------------------- the command as such


@pytest.mark.parametrize("command", ["train", "", "fill_mask", "INSPECT"])
def test_an_unknown_command_is_one_line_on_stderr(capsys, command):
    assert "argument COMMAND: invalid choice" in error(capsys, command)


def test_no_command_and_unknown_options_are_one_line_on_stderr(capsys):
    assert "the following arguments are required: COMMAND" in error(capsys)
    assert "unrecognized arguments: --all a b" in error(capsys, "inspect", "--all", "path", "a\nb")


@pytest.mark.parametrize(
    "command",
    [[], *([name] for name in ("fill-mask", "explain", "embed", "inspect", "convert", "golden", "doctor"))],
    ids=" ".join,
)
def test_help_says_how_to_call_it(capsys, command):
    with pytest.raises(SystemExit) as exit:
        main([*command, "--help"])
    printed = capsys.readouterr()
    assert exit.value.code == 0 and printed.err == "" and printed.out.startswith("usage: nezha-np ")


def test_a_command_imports_nothing_that_only_others_need():
    code = (
        "import sys; from nezha_np.cli import main; main(['fill-mask', '很[MASK]']); "
        "print(*(name for name in sys.modules if name.startswith('nezha_np.') or name == 'tqdm'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert {"nezha_np.commands.embed", "nezha_np.commands.golden"} <= set(loaded)  # their parsers
    others = (
        "nezha_np.oracle", "nezha_np.explanation", "nezha_np.commands.embed_lines", "nezha_np.commands.progress",
        "nezha_np.files.partial_file", "nezha_np.weights.convert", "nezha_np.weights.formats.torch",
        "nezha_np.weights.formats.npz", "tqdm",
    )  # fmt: skip
    assert [name for name in loaded if name.startswith(others)] == []


@pytest.mark.parametrize("command", nezha_np.cli.COMMANDS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_file_of_a_command_adds_it_under_its_name(command):
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    command.add(commands)
    assert list(commands.choices) == [command.__name__.rpartition(".")[2].replace("_", "-")]


def test_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0 and capsys.readouterr().out == f"nezha-np {nz.__version__}\n"


def test_a_process_of_its_own_prints_the_same_and_exits_the_same(capsys):
    done = run(["fill-mask", TEXT], PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == lines(capsys, "fill-mask", TEXT)
    failed = run(["fill-mask", "no gap"])
    assert (failed.returncode, failed.stdout) == (2, b"")
    assert failed.stderr == b"nezha-np: text: expected at least one [MASK], got 'no gap'\n"


@pytest.mark.parametrize("tail", ["| head -1", "| true"])
def test_a_pipe_that_is_closed_early_gives_no_traceback(tail):
    done = run(["fill-mask", TEXT, "--top-k", "7000"], tail, PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == ("干 0.984\n" if "head" in tail else "")


def test_an_output_that_is_closed_or_full_gives_no_traceback():
    done = run(["fill-mask", TEXT], ">&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    done = run(["fill-mask", TEXT], "> /dev/full")
    assert (done.returncode, done.stderr) == (2, b"nezha-np: [Errno 28] No space left on device\n")


def test_an_output_that_cannot_show_chinese_gets_codes():
    done = run(["fill-mask", TEXT], PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[0] == rb"\u5e72 0.984"
    failed = run(["fill-mask", "没有"], PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert failed.returncode == 2 and rb"\u6ca1\u6709" in failed.stderr and failed.stderr.count(b"\n") == 1


def test_a_text_that_is_no_text_in_the_terminals_encoding_gives_no_traceback():
    done = run(["fill-mask", b"\xff\xfe[MASK]"], PYTHONUTF8="1")
    assert b"Traceback" not in done.stderr
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and done.stdout == b""
