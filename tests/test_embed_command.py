"""`nezha-np embed`: what it reads and writes, and that no vector is lost or mixed up, whatever happens on the way."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.commands import embed_lines as engine
from nezha_np.commands import progress
from nezha_np.commands.exit_status import Stopped
from nezha_np.files import partial_file
from nezha_np.files.partial_file import PartialFile
from nezha_np.files.text_lines import Line
from nezha_np.files.vector_file import FORMATS, ROOM, file_header
from nezha_np.jobs import line_windows, vectors
from nezha_np.signals import Signalled

ROOT = Path(__file__).parents[1]
TEXTS = [
    "房间很干净。",
    "价格",
    "",
    "The hotel is very good, 价格也便宜",
    " ",
    "早餐一般，但是服务很热情",
    "好",
    "ok",
    "电脑",
]
SIZE = 8  # of a vector


def save_model(folder: Path, config: nz.families.config.Config, **options) -> Path:
    """Save a small model with the shipped tokenizer."""
    nz.init(config, **options).save(folder)
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(nz.weights.checkpoint.SHIPPED / name, folder)
    return folder


SIZES = {"vocab_size": 7000, "hidden_size": SIZE, "num_attention_heads": 2, "num_hidden_layers": 1}
SMALL = {**SIZES, "intermediate_size": 6, "max_position_embeddings": 40, "initializer_range": 0.5}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(save_model(tmp_path_factory.mktemp("models") / "nezha", nz.NezhaConfig(**SMALL)))


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    return str(save_model(tmp_path_factory.mktemp("models") / "bert", nz.BertConfig(**SMALL)))


@pytest.fixture
def texts(tmp_path) -> Path:
    return written(tmp_path / "texts.txt", TEXTS)


def written(path: Path, lines: list[str]) -> Path:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def succeed(capsysbinary, *arguments: object) -> bytes:
    """Run a command that works and is silent; return what it printed."""
    assert main(["embed", *map(str, arguments)]) == 0
    printed = capsysbinary.readouterr()
    assert printed.err == b""
    return printed.out


def go_on(capsysbinary, rows: int, *arguments: object) -> None:
    """Run a command that goes on after some rows."""
    assert main(["embed", *map(str, arguments)]) == 0
    printed = capsysbinary.readouterr()
    assert printed.out == b"" and f"holds {rows} lines: going on after them" in printed.err.decode()


def fail(capsysbinary, *arguments: object, status: int = 2) -> str:
    """Run a command that fails and return its one line on stderr."""
    assert main(["embed", *map(str, arguments)]) == status
    printed = capsysbinary.readouterr()
    error = printed.err.decode()
    assert printed.out == b"" and error.startswith("nezha-np: ") and error.count("\n") == 1 and error.endswith("\n")
    return error


def read(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".safetensors":
        (tensor,) = safetensors.numpy.load_file(path).items()
        assert tensor[0] == "embeddings"
        return tensor[1]
    rows = [json.loads(line)["embedding"] for line in path.read_bytes().splitlines()]
    return np.array(rows, np.float32).reshape(len(rows), SIZE)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def type_in(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def break_at(monkeypatch, window: int, error: BaseException) -> None:
    """Have something happen before a window of lines is embedded."""
    count = iter(range(10**9))

    def embed_sorted(*arguments, original=nz.text.embed.embed_sorted, **options):
        if next(count) == window:
            raise error
        return original(*arguments, **options)

    monkeypatch.setattr(vectors, "embed_sorted", embed_sorted)


# ------------------------------------------------------------------------------------------------- reading and writing


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("format", FORMATS)
def test_the_file_holds_what_embed_returns_for_each_line(capsysbinary, tmp_path, model, texts, format, batch_size):
    out = tmp_path / f"vectors.{format}"
    assert succeed(capsysbinary, texts, "-o", out, "--model", model, "--batch-size", batch_size) == b""
    found = read(out)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), SIZE)
    np.testing.assert_allclose(found, nz.embed(TEXTS, nz.load(model)), rtol=0, atol=1e-6)
    assert files(tmp_path) == {"texts.txt", out.name}


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--pooling", "cls"], {"pooling": "cls"}),
        (["--pooling", "pooler", "--normalize"], {"pooling": "pooler", "normalize": True}),
        (["--normalize"], {"normalize": True}),
        (["--max-length", "4"], {"max_length": 4}),
    ],
)
def test_options_are_those_of_embed(capsysbinary, tmp_path, model, texts, arguments, options):
    succeed(capsysbinary, texts, "-o", tmp_path / "v.npy", "--model", model, *arguments)
    found = read(tmp_path / "v.npy")
    np.testing.assert_allclose(found, nz.embed(TEXTS, nz.load(model), **options), rtol=0, atol=1e-6)
    assert not np.allclose(found, nz.embed(TEXTS, nz.load(model)), atol=1e-3)


def test_without_a_model_it_is_the_shipped_one(capsysbinary, tmp_path, texts):
    succeed(capsysbinary, texts, "-o", tmp_path / "v.npy")
    np.testing.assert_allclose(read(tmp_path / "v.npy"), nz.embed(TEXTS), rtol=0, atol=1e-5)


def test_the_three_formats_hold_the_same_numbers_to_the_last_bit(capsysbinary, tmp_path, model, texts):
    for format in FORMATS:
        succeed(capsysbinary, texts, "-o", tmp_path / f"v.{format}", "--model", model)
        succeed(capsysbinary, texts, "-o", tmp_path / f"as-{format}", "--format", format, "--model", model)
        assert (tmp_path / f"as-{format}").read_bytes() == (tmp_path / f"v.{format}").read_bytes()
        assert np.array_equal(read(tmp_path / f"v.{format}"), read(tmp_path / "v.npy"))
    assert np.array_equal(np.load(tmp_path / "v.npy", mmap_mode="r"), read(tmp_path / "v.npy"))


@pytest.mark.parametrize("rows", [0, 1, 10**9, 10**15])
@pytest.mark.parametrize("width", [1, 768, 10**6])
def test_the_room_for_a_header_is_enough(rows, width):
    for format in ("npy", "safetensors"):
        assert len(file_header(format, rows, width)) == ROOM and ROOM % 64 == 0
    stream = io.BytesIO(file_header("npy", rows, width)[8:])
    assert np.lib.format.read_array_header_1_0(stream) == ((rows, width), False, np.dtype("<f4"))
    header = json.loads(file_header("safetensors", rows, width)[8:])
    assert header == {"embeddings": {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, 4 * rows * width]}}


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_standard_input_becomes_json_lines_on_standard_output(capsysbinary, monkeypatch, model, texts, arguments):
    type_in(monkeypatch, texts.read_bytes())
    printed = succeed(capsysbinary, *arguments, "--model", model, "--batch-size", 4)
    rows = [json.loads(line) for line in printed.split(b"\n")[:-1]]
    assert [row["text"] for row in rows] == TEXTS and all(list(row) == ["text", "embedding"] for row in rows)
    found = np.array([row["embedding"] for row in rows])
    np.testing.assert_allclose(found, nz.embed(TEXTS, nz.load(model)), rtol=0, atol=1e-6)
    assert "房间" in printed.decode()


@pytest.mark.parametrize("arguments", [["rows.jsonl"], ["rows.ndjson"], ["rows", "--input-format", "jsonl"]])
def test_json_lines_are_strings_or_objects_which_come_back_with_their_vectors(
    capsysbinary, tmp_path, monkeypatch, model, arguments
):
    monkeypatch.chdir(tmp_path)
    rows = ["房间", {"text": "价格", "id": 7, "more": [1.5, None]}, {"embedding": "old", "text": "\u2028好\n"}]
    written(Path(arguments[0]), [json.dumps(row) for row in rows])
    printed = succeed(capsysbinary, *arguments, "--model", model)
    found = [json.loads(line) for line in printed.splitlines()]
    assert [list(row) for row in found] == [
        ["text", "embedding"],
        ["text", "id", "more", "embedding"],
        ["embedding", "text"],
    ]
    assert found[0]["text"] == "房间" and {**found[1], "embedding": 0} == {**rows[1], "embedding": 0}
    vectors = nz.embed(["房间", "价格", "\u2028好\n"], nz.load(model))
    np.testing.assert_allclose([row["embedding"] for row in found], vectors, rtol=0, atol=1e-6)


def test_field_says_where_in_an_object_the_text_stands(capsysbinary, tmp_path, model):
    rows = written(tmp_path / "rows.jsonl", ['{"text": "no", "review": "房间"}', '"好"'])
    printed = succeed(capsysbinary, rows, "--field", "review", "--model", model)
    first, second = map(json.loads, printed.splitlines())
    assert list(first) == ["text", "review", "embedding"] and list(second) == ["review", "embedding"]
    expected = nz.embed(["房间", "好"], nz.load(model))
    np.testing.assert_allclose([first["embedding"], second["embedding"]], expected, rtol=0, atol=1e-6)


def test_what_stands_beside_a_text_comes_back_even_if_it_is_odd(capsysbinary, tmp_path, model):
    row = '{"text": "好", "half": "\\ud800", "nan": NaN, "large": 123456789012345678901234567890}'
    printed = succeed(capsysbinary, written(tmp_path / "rows.jsonl", [row]), "--model", model)
    found, given = json.loads(printed), json.loads(row)
    assert (found["half"], found["large"], str(found["nan"])) == (given["half"], given["large"], "nan")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"\n", [""]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n\r\n", ["a", "b", ""]),
        (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
        ("a\u2028b\x0b\x0c\x85c\rd\n".encode(), ["a\u2028b\x0b\x0c\x85c\rd"]),
        (b" a \n\t\n", [" a ", "\t"]),
        (b'{"text": "a"}\n', ['{"text": "a"}']),
    ],
)
def test_each_line_is_one_text_an_empty_one_too(capsysbinary, tmp_path, model, content, expected):
    (tmp_path / "texts").write_bytes(content)
    printed = succeed(capsysbinary, tmp_path / "texts", "--model", model)
    assert [json.loads(line)["text"] for line in printed.splitlines()] == expected


def test_empty_lines_at_the_end_of_json_lines_are_left_out(capsysbinary, tmp_path, model):
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf"a"\r\n"b"\n\n \n')
    assert succeed(capsysbinary, tmp_path / "rows.jsonl", "--model", model).count(b"\n") == 2


@pytest.mark.parametrize("format", FORMATS)
def test_no_line_is_no_row(capsysbinary, tmp_path, monkeypatch, model, format):
    type_in(monkeypatch, b"")
    succeed(capsysbinary, "-o", tmp_path / f"v.{format}", "--model", model)
    assert read(tmp_path / f"v.{format}").shape == (0, SIZE) and files(tmp_path) == {f"v.{format}"}


# -------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("t.txt", b"\xff", "expected UTF-8, got byte 0xff at place 0; convert the file, for example by: iconv -f ENCO"),
        ("t.txt", "好".encode()[:2], "got what seems to be GBK (byte 0xe5 at place 0)"),
        (
            "t.txt",
            "房间很干净".encode("gbk"),
            "expected UTF-8, got what seems to be GBK (byte 0xb7 at place 0); convert",
        ),
        (
            "t.jsonl",
            '{"text": "房间"}'.encode("gbk"),
            "expected UTF-8, got what seems to be GBK (byte 0xb7 at place 10)",
        ),
        ("t.txt", ("好" * 39).encode(), "expected at most 40 tokens, because the model has no more positions, got 41"),
        ("t.jsonl", b"no", "expected JSON, got something else"),
        ("t.jsonl", b'"a" "b"', "expected JSON, got something else"),
        ("t.jsonl", b"[" * 100_000, "expected JSON, got something else"),
        ("t.jsonl", b" ", "expected JSON, got an empty line"),
        ("t.jsonl", b"3", "expected a string or an object, got int"),
        ("t.jsonl", b'["a"]', "expected a string or an object, got list"),
        ("t.jsonl", b"{}", "expected an object with a string as 'text', got one with nothing in it"),
        ("t.jsonl", b'{"Text": "a", "id": 1}', "a string as 'text', got one with 'Text', 'id'"),
        ("t.jsonl", b'{"text": null}', "a string as 'text', got one where it is NoneType"),
        ("t.jsonl", b'"\\ud800"', "expected valid Unicode"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_what_came_before_is_kept(capsysbinary, tmp_path, bert, name, line, message):
    good = '"好"' if name.endswith("jsonl") else "好"
    source, out = tmp_path / name, tmp_path / "v.npy"
    source.write_bytes(f"{good}\n".encode() * 6 + line + f"\n{good}\n".encode())
    run = [source, "-o", out, "--model", bert, "--batch-size", 2]
    error = fail(capsysbinary, *run)
    assert f"{source}, line 7: " in error and message in error
    assert f"6 lines are done, in {out}.partial: the same command goes on after them" in error
    assert files(tmp_path) == {name, "v.npy.partial", "v.npy.partial.json"}

    source.write_bytes(f"{good}\n".encode() * 8)  # the line is put right
    go_on(capsysbinary, 6, *run)
    assert files(tmp_path) == {name, "v.npy"}
    np.testing.assert_allclose(read(out), nz.embed(["好"] * 8, nz.load(bert)), rtol=0, atol=1e-6)


def test_a_first_line_that_is_wrong_leaves_nothing(capsysbinary, tmp_path, model):
    source = tmp_path / "t.txt"
    source.write_bytes(b"\xff\n")
    error = fail(capsysbinary, source, "-o", tmp_path / "v.npy", "--model", model)
    assert "t.txt, line 1: expected UTF-8, got byte 0xff at place 0; convert the file, for example by: iconv" in error
    assert error.endswith("; nothing is done\n") and files(tmp_path) == {"t.txt"}
    assert "t.txt, line 1: expected UTF-8, got byte 0xff" in fail(capsysbinary, source, "--model", model)


@pytest.mark.parametrize("text", ["two rooms\n", "房间 two\r\n价格\r\n"])
@pytest.mark.parametrize(
    ("codec", "name"), [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"), ("gbk", "GBK")]
)
def test_texts_of_another_encoding_are_named_with_the_command_that_converts_them(
    capsysbinary, monkeypatch, tmp_path, model, text, codec, name
):
    if codec == "gbk" and text.isascii():
        pytest.skip("ASCII is the same in GBK and in UTF-8")
    source = tmp_path / "my texts.txt"
    source.write_bytes(text.encode(codec))
    error = fail(capsysbinary, source, "--model", model)
    assert f"{source}, line 1: expected UTF-8, got what seems to be {name}" in error
    command = shlex.join(["iconv", "-f", name, "-t", "UTF-8", str(source)])
    assert f"convert the file, for example by: {command} > " in error
    type_in(monkeypatch, source.read_bytes())
    error = fail(capsysbinary, "--model", model)
    assert f"standard input, line 1: expected UTF-8, got what seems to be {name}" in error
    assert error.endswith(f"for example by: iconv -f {name} -t UTF-8\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.txt", "-o", "v.npy"], "No such file or directory: 'nowhere.txt'"),
        ([".", "-o", "v.npy"], "Is a directory: '.'"),
        (["t.txt", "-o", "nowhere/v.npy"], "nowhere/v.npy: expected a folder to write into, found no nowhere"),
        (["t.txt", "-o", "folder.npy"], "folder.npy: expected a new file, found something that is no file"),
        (["t.txt", "-o", "/dev/null", "--format", "npy", "--force"], "/dev/null: expected a new file, found something"),
        (["t.txt", "-o", "v"], "output: expected a name that ends in .npy, .safetensors, .jsonl, or --format, got v"),
        (["t.txt", "-o", "v.npz"], "output: expected a name that ends in .npy"),
        (["t.txt", "--format", "npy"], "format: expected jsonl, which alone can go to standard output, got npy"),
        (["t.txt", "-o", "-", "--format", "npy"], "format: expected jsonl"),
        (["t.txt", "--field", "embedding"], "field: expected another name than 'embedding', which is the vector's"),
        (["t.txt", "-o", "v.npy", "--batch-size", "0"], "--batch-size: expected a number from 1 on, got 0"),
        (["t.txt", "-o", "v.npy", "--pooling", "sum"], "--pooling: expected one of mean, cls, pooler, max, "),
        (["t.txt", "-o", "v.npy", "--max-length", "1"], "--max-length: expected at least 2, the special tokens, got 1"),
        (["t.txt", "-o", "v.npy", "--model", "nowhere"], "--model: expected a folder or a"),
        (["t.txt", "-o", "t.txt", "--format", "npy"], "t.txt: expected a new file, found one; --force replaces it"),
    ],
)
def test_what_cannot_begin_says_so_and_leaves_nothing(capsysbinary, tmp_path, monkeypatch, model, arguments, message):
    monkeypatch.chdir(tmp_path)
    written(Path("t.txt"), TEXTS)
    Path("folder.npy").mkdir()
    if "--model" not in arguments:
        arguments = [*arguments, "--model", model]
    assert message in fail(capsysbinary, *arguments)
    assert files(tmp_path) == {"t.txt", "folder.npy"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "csv"], "argument --format: invalid choice: 'csv'"),
        (["--batch-size", "many"], "argument --batch-size: invalid int value: 'many'"),
        (["a", "b"], "unrecognized arguments: b"),
    ],
)
def test_wrong_arguments_are_one_line_on_stderr(capsysbinary, arguments, message):
    with pytest.raises(SystemExit) as exit:
        main(["embed", *arguments])
    printed = capsysbinary.readouterr()
    assert exit.value.code == 2 and printed.out == b"" and printed.err.count(b"\n") == 1
    assert message in printed.err.decode()


def test_an_existing_file_is_replaced_by_force_alone_and_only_by_a_complete_one(
    capsysbinary, tmp_path, monkeypatch, model, texts
):
    out = tmp_path / "v.npy"
    out.write_bytes(b"mine")
    run = [texts, "-o", out, "--model", model, "--batch-size", 4]
    assert "v.npy: expected a new file, found one; --force replaces it" in fail(capsysbinary, *run)
    with monkeypatch.context() as patch:
        break_at(patch, 1, MemoryError("no more"))
        fail(capsysbinary, *run, "--force")
    assert out.read_bytes() == b"mine" and "v.npy.partial" in files(tmp_path)
    go_on(capsysbinary, 4, *run, "--force")  # which does not throw away what is done
    assert read(out).shape == (len(TEXTS), SIZE) and files(tmp_path) == {"texts.txt", "v.npy"}


def test_a_file_that_comes_in_the_meantime_is_not_lost(capsysbinary, tmp_path, monkeypatch, model, texts):
    out = tmp_path / "v.npy"
    run = [texts, "-o", out, "--model", model, "--batch-size", 2]

    def embed_sorted(*arguments, original=nz.text.embed.embed_sorted, **options):
        out.write_bytes(b"mine")
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(vectors, "embed_sorted", embed_sorted)
        error = fail(capsysbinary, *run)
    assert "--force replaces it; 9 lines are done" in error and out.read_bytes() == b"mine"
    go_on(capsysbinary, 9, *run, "--force")
    assert read(out).shape == (len(TEXTS), SIZE)


def test_a_link_stays_a_link_to_the_new_file(capsysbinary, tmp_path, model, texts):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "v.npy").write_bytes(b"old")
    (tmp_path / "v.npy").symlink_to(tmp_path / "data" / "v.npy")
    succeed(capsysbinary, texts, "-o", tmp_path / "v.npy", "--model", model, "--force")
    assert (tmp_path / "v.npy").is_symlink() and read(tmp_path / "data" / "v.npy").shape == (len(TEXTS), SIZE)


# ------------------------------------------------------------------------------------------------------------ going on

STOPS = [
    (KeyboardInterrupt(), 130, "interrupted"),
    (Signalled(signal.SIGTERM), 143, "interrupted"),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
    (MemoryError(), 2, "MemoryError"),
]


@pytest.mark.one_in(13)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("stop", "status", "message"), STOPS, ids=["SIGINT", "SIGTERM", "disk", "memory"])
@pytest.mark.parametrize("family", ["nezha", "convbert"])
def test_a_run_that_stops_and_goes_on_writes_the_same_file_byte_for_byte(
    capsysbinary, tmp_path, monkeypatch, texts, family, stop, status, message, format
):
    model = save_model(tmp_path / "model", nz.families.family.FAMILIES[family].config(**SMALL))
    whole, out = tmp_path / f"whole.{format}", tmp_path / f"v.{format}"
    run = [texts, "--model", model, "--batch-size", 2]
    succeed(capsysbinary, *run, "-o", whole)
    done = 0
    for window, rows in (1, 2), (0, 0), (1, 4):  # after one window, at once, after one more: one is left
        with monkeypatch.context() as patch:
            break_at(patch, window, stop)
            error = fail(capsysbinary, *run, "-o", out, status=status) if not done else stopped(capsysbinary, run, out)
        done += rows
        assert message in error and f"{done} lines are done, in {out}.partial: the same command goes on" in error
        assert not out.exists()
    go_on(capsysbinary, done, *run, "-o", out)
    assert out.read_bytes() == whole.read_bytes()
    assert files(tmp_path) == {"texts.txt", "model", whole.name, out.name}


def stopped(capsysbinary, run: list[object], out: Path) -> str:
    """Run a command that goes on, and stops once more."""
    assert main(["embed", *map(str, run), "-o", str(out)]) != 0
    first, second = capsysbinary.readouterr().err.decode().splitlines()
    assert "going on after them" in first
    return second


# Python itself leaves a file open where it is interrupted between opening it and the first step of `with`.
@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_between_any_two_steps_of_writing_loses_and_mixes_nothing(tmp_path, monkeypatch, model, texts):
    monkeypatch.setattr(partial_file, "SECONDS", 0.0)  # it saves after every window
    whole, out = tmp_path / "whole.jsonl", tmp_path / "v.jsonl"
    run = {"model": model, "batch_size": 2}
    engine.embed_lines(str(texts), str(whole), **run)

    def interrupted_after(steps: int) -> bool:
        """Run it, and interrupt it once, after some lines of partial_file.py."""
        left = steps

        def trace(frame, event, _):
            nonlocal left
            if frame.f_code.co_filename != partial_file.__file__:
                return None
            if event == "line":
                left -= 1
                if left == -1:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            engine.embed_lines(str(texts), str(out), **run)
        except Stopped as stopped:
            assert stopped.status == 130
        finally:
            sys.settrace(before)
        return left < 0

    steps = 0
    while interrupted_after(steps):
        if not out.exists():  # the last step of all comes after the file is in its place
            engine.embed_lines(str(texts), str(out), **run)
        assert out.read_bytes() == whole.read_bytes(), f"interrupted after {steps} steps"
        out.unlink()
        steps += 1
    assert steps > 100


@pytest.fixture
def partial(capsysbinary, tmp_path, monkeypatch, model, texts):
    """Leave a partial file of four rows; return the command that made it."""
    run = [texts, "-o", tmp_path / "v.npy", "--model", model, "--batch-size", 4]
    with monkeypatch.context() as patch:
        break_at(patch, 1, KeyboardInterrupt())
        fail(capsysbinary, *run, status=130)
    return run


def test_what_was_written_and_not_saved_is_written_again(capsysbinary, tmp_path, partial):
    with (tmp_path / "v.npy.partial").open("ab") as file:  # as when the process is killed before it has saved
        file.write(b"half a row" * 1000)
    go_on(capsysbinary, 4, *partial)
    found = (tmp_path / "v.npy").read_bytes()
    succeed(capsysbinary, *partial, "--force")
    assert (tmp_path / "v.npy").read_bytes() == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--pooling", "cls"], "made with pooling 'cls', got 4 made with 'mean'"),
        (["--normalize"], "made with normalize True, got 4 made with False"),
        (["--max-length", "5"], "made with --max-length 5, got 4 made with None"),
        (["--batch-size", "3"], "made with --batch-size 3, got 4 made with 4"),
        (["--input-format", "jsonl"], "made with --input-format 'jsonl', got 4 made with 'lines'"),
        (["--format", "safetensors"], "made with --format 'safetensors', got 4 made with 'npy'"),
        (["--field", "review"], "made with field 'review', got 4 made with 'text'"),
    ],
)
def test_other_settings_are_not_mixed_in(capsysbinary, tmp_path, partial, change, message):
    before = (tmp_path / "v.npy.partial").read_bytes()
    error = fail(capsysbinary, *partial, *change)
    assert message in error and "--restart throws them away" in error
    assert (tmp_path / "v.npy.partial").read_bytes() == before
    go_on(capsysbinary, 4, *partial)


def test_another_model_is_not_mixed_in_and_the_same_one_elsewhere_is(capsysbinary, tmp_path, partial, model):
    place = partial.index(model)
    other = save_model(tmp_path / "other", nz.NezhaConfig(**SMALL), seed=1)
    assert "made with model '" in fail(capsysbinary, *partial[:place], other, *partial[place + 1 :])
    cased = shutil.copytree(model, tmp_path / "cased")
    (cased / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert "made with tokenizer '" in fail(capsysbinary, *partial[:place], cased, *partial[place + 1 :])
    elsewhere = shutil.copytree(model, tmp_path / "elsewhere")
    go_on(capsysbinary, 4, *partial[:place], elsewhere, *partial[place + 1 :])


def test_another_version_is_not_mixed_in(capsysbinary, partial, monkeypatch):
    monkeypatch.setattr(nz, "__version__", "999")
    assert "made with nezha_np '999', got 4 made with" in fail(capsysbinary, *partial)


@pytest.mark.parametrize("lines", [["other", *TEXTS[1:]], TEXTS[:3], [], [TEXTS[0], TEXTS[0], *TEXTS[1:]]])
def test_other_lines_are_not_mixed_in(capsysbinary, tmp_path, partial, texts, lines):
    written(texts, lines)
    assert "v.npy.partial: expected the 4 lines that it was made of, got others" in fail(capsysbinary, *partial)
    succeed(capsysbinary, *partial, "--restart")
    expected = nz.embed(lines, nz.load(partial[4]))
    np.testing.assert_allclose(read(tmp_path / "v.npy"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lines", [TEXTS[:4], [*TEXTS[:4], "new", "lines"]])
def test_lines_that_were_not_done_may_have_changed(capsysbinary, tmp_path, monkeypatch, partial, lines):
    type_in(monkeypatch, written(tmp_path / "new", lines).read_bytes())
    go_on(capsysbinary, 4, "-", *partial[1:])  # and the same lines may come from elsewhere
    np.testing.assert_allclose(read(tmp_path / "v.npy"), nz.embed(lines, nz.load(partial[4])), rtol=0, atol=1e-6)


@pytest.mark.parametrize("state", ["", "[]", '{"rows": 4}', "[" * 100_000, '{"rows": "4", "settings": {}, "bytes": 9}'])
def test_a_state_that_is_none_is_refused(capsysbinary, tmp_path, partial, state):
    (tmp_path / "v.npy.partial.json").write_text(state)
    assert "v.npy.partial.json: expected the state of a partial file, got something else" in fail(
        capsysbinary, *partial
    )
    succeed(capsysbinary, *partial, "--restart")


def test_a_partial_file_that_says_nothing_of_itself_or_lost_bytes_is_refused(capsysbinary, tmp_path, partial):
    file, state = tmp_path / "v.npy.partial", tmp_path / "v.npy.partial.json"
    kept = state.read_bytes()
    state.unlink()
    assert "v.npy.partial: expected v.npy.partial.json beside it" in fail(capsysbinary, *partial)
    state.write_bytes(kept)
    file.write_bytes(file.read_bytes()[:-1])
    assert f"expected at least {ROOM + 4 * 4 * SIZE} bytes, got {ROOM + 4 * 4 * SIZE - 1}" in fail(
        capsysbinary, *partial
    )
    file.unlink()  # the words without the rows are nothing to lose
    succeed(capsysbinary, *partial)


def test_two_runs_do_not_write_one_file(capsysbinary, tmp_path, model, texts):
    pytest.importorskip("fcntl", reason="this system has no such locks")
    run = [texts, "-o", tmp_path / "v.npy", "--model", model]
    with PartialFile(tmp_path / "v.npy", {}, header=b"") as first:
        assert "v.npy.partial: expected to be the only one to write it, but another run does" in fail(
            capsysbinary, *run
        )
        first.append(b"rows", rows=1, digest="")
        first.finish(b"")
    assert (tmp_path / "v.npy").read_bytes() == b"rows"


@pytest.mark.parametrize("begun_anew", [False, True])
def test_a_file_that_another_run_has_just_finished_is_not_written_to(tmp_path, monkeypatch, begun_anew):
    fcntl = pytest.importorskip("fcntl", reason="this system has no such locks")
    first = PartialFile(tmp_path / "v", {}, header=b"")
    first.append(b"rows", rows=1, digest="")

    def flock(file, how, original=fcntl.flock):
        first.finish(b"")  # between the second's opening and locking
        if begun_anew:
            (tmp_path / "v.partial").touch()
        original(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(BlockingIOError, match="expected to be the only one"):
        PartialFile(tmp_path / "v", {}, header=b"", force=True)
    assert (tmp_path / "v").read_bytes() == b"rows"


def test_a_disk_that_fills_up_while_saving_keeps_what_was_saved_before(tmp_path, monkeypatch):
    file = PartialFile(tmp_path / "v", {}, header=b"")
    monkeypatch.setattr(partial_file, "SECONDS", 0.0)
    file.append(b"a", rows=1, digest="1")
    monkeypatch.setattr(partial_file, "SECONDS", 1e9)
    file.append(b"b", rows=1, digest="2")

    def full(*_, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(json, "dump", full)
        file.close()
    assert (file.rows, file.saved_rows) == (2, 1) and files(tmp_path) == {"v.partial", "v.partial.json"}
    with PartialFile(tmp_path / "v", {}, header=b"") as again:
        assert (again.rows, again.digest) == (1, "1")
        again.append(b"c", rows=1, digest="3")
        again.finish(b"")
    assert (tmp_path / "v").read_bytes() == b"ac"


# ---------------------------------------------------------------------------------------------- as a process of its own


def start(arguments: list[object], *, before: str = "", **options) -> subprocess.Popen[bytes]:
    """Start the command, by a shell that does something else before."""
    command = ["bash", "-c", f'{before} exec "$@"', "bash"]
    command += [sys.executable, "-m", "nezha_np.cli", "embed", *map(str, arguments)]
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.fixture
def answering_interrupts():
    """Have new processes answer SIGINT, which they do not where this one was started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "status"),
    [("SIGINT", 130), ("SIGTERM", 143), ("SIGKILL", -9)],  # Windows has no SIGKILL
)
def test_a_process_that_gets_a_signal_can_be_gone_on_with(answering_interrupts, tmp_path, model, texts, name, status):
    out, partial = tmp_path / "v.npy", tmp_path / "v.npy.partial"
    run = ["-o", out, "--model", model, "--batch-size", 2]
    process = start(run, stdin=subprocess.PIPE)
    process.stdin.write(texts.read_bytes())
    process.stdin.flush()
    until = time.monotonic() + 60
    while not partial.exists() or partial.stat().st_size < ROOM + 6 * 4 * SIZE:  # two windows; the third one waits
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"two windows were not written: {process.communicate()[1].decode()}")
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    _, error = process.communicate()
    assert process.returncode == status and not out.exists()
    if name != "SIGKILL":
        assert error.decode() == (
            f"nezha-np: interrupted; 6 lines are done, in {partial}: the same command goes on after them\n"
        )
    again = start([texts, *run])
    _, error = again.communicate(timeout=60)
    assert again.returncode == 0
    assert (b"going on after them" in error) == (name != "SIGKILL")  # what it wrote had not been saved yet
    np.testing.assert_allclose(read(out), nz.embed(TEXTS, nz.load(model)), rtol=0, atol=1e-6)
    assert files(tmp_path) == {"texts.txt", "v.npy"}


@pytest.mark.exhaustive
def test_a_file_that_may_not_grow_is_an_error_that_loses_nothing(tmp_path, model, texts):
    written(texts, TEXTS * 100)
    run = [texts, "-o", tmp_path / "v.npy", "--model", model, "--batch-size", 2]
    limited = start(run, before="ulimit -f 10;")  # of 1024 bytes
    _, error = limited.communicate(timeout=60)
    room, rows = (10 * 1024 - ROOM) // (4 * SIZE), 0
    while rows + line_windows.window_size(rows, 2) <= room:
        rows += line_windows.window_size(rows, 2)
    assert limited.returncode == 2 and f"File too large; {rows} lines are done, in ".encode() in error
    again = start(run)
    _, error = again.communicate(timeout=60)
    assert again.returncode == 0 and f"holds {rows} lines: going on".encode() in error
    np.testing.assert_allclose(read(tmp_path / "v.npy")[:9], nz.embed(TEXTS, nz.load(model)), rtol=0, atol=1e-6)
    assert read(tmp_path / "v.npy").shape == (900, SIZE)


def shell(line: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "nezha_np.cli", "embed", *map(str, arguments)]
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {line}', "bash", *command], cwd=ROOT, capture_output=True
    )


def test_a_reader_that_has_seen_enough_is_no_error(model, texts):
    done = shell("--batch-size 1 | head -c 20", written(texts, TEXTS * 50), "--model", model)
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", 20)


def test_an_output_that_is_full_or_closed_is_an_error(model, texts):
    done = shell(">&-", texts, "--model", model)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1) and b"standard output is closed" in done.stderr
    done = shell("<&-", "--model", model)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1) and b"standard input is closed" in done.stderr
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    done = shell("> /dev/full", texts, "--model", model)
    assert (done.returncode, done.stderr) == (2, b"nezha-np: [Errno 28] No space left on device\n")


def test_an_output_of_another_encoding_still_gets_utf_8(model, texts, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = shell("", texts, "--model", model)
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == TEXTS and "房间".encode() in done.stdout


@pytest.mark.parametrize("stderr", ["2>&-", "2> /dev/full"])
def test_a_stderr_that_is_closed_or_full_stops_nothing(tmp_path, model, texts, stderr):
    if stderr.endswith("/dev/full") and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    done = shell(stderr, texts, "-o", tmp_path / "v.npy", "--model", model, "--progress")
    assert (done.returncode, done.stdout) == (0, b"") and read(tmp_path / "v.npy").shape == (len(TEXTS), SIZE)


# ------------------------------------------------------------------------------------------------- progress and memory


def states(shown: str) -> list[tuple[str, str]]:
    """Take tqdm's states of the bar apart: the percentage, and the lines that are done."""
    return re.findall(r"(\d+)%\|[^|]*\|[^|]*, ([\d,]+) lines\]", shown)


def test_progress_is_shown_where_it_is_wanted(capsysbinary, monkeypatch, tmp_path, model, texts):
    run = [texts, "-o", tmp_path / "v.npy", "--model", model, "--batch-size", 2, "--force"]
    assert main(["embed", *map(str, run), "--progress"]) == 0
    (line,) = capsysbinary.readouterr().err.decode().splitlines()  # a short run: its end alone
    assert line.startswith("100%|") and states(line) == [("100", "9")]
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    assert main(["embed", *map(str, run), "--progress"]) == 0
    begin, *found = capsysbinary.readouterr().err.decode().splitlines()
    assert begin.startswith("0%|")
    assert [states(line) for line in found] == [[("22", "2")], [("88", "6")], [("100", "9")], [("100", "9")]]
    succeed(capsysbinary, *run)


def test_progress_of_a_pipe_counts_lines_without_a_percentage(capsysbinary, monkeypatch, tmp_path, model, texts):
    type_in(monkeypatch, texts.read_bytes())
    assert main(["embed", "-o", str(tmp_path / "v.npy"), "--model", model, "--progress"]) == 0
    (line,) = capsysbinary.readouterr().err.decode().splitlines()
    assert line.startswith("9 lines [") and "%" not in line


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_progress_stays_in_one_line_and_a_short_run_shows_none(
    capsysbinary, monkeypatch, tmp_path, model, texts
):
    run = ["embed", str(texts), "-o", str(tmp_path / "v.npy"), "--model", model, "--batch-size", "2", "--force"]
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "QUIET_SECONDS", 1e9)
    assert main(run) == 0 and sys.stderr.getvalue() == ""
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.0)
    assert main(run) == 0
    shown = sys.stderr.getvalue()
    assert shown.count("\n") == 1 and shown.endswith("\n") and shown.startswith("\r")
    assert [done for _, done in states(shown)] == ["2", "6", "9", "9"]
    type_in(monkeypatch, texts.read_bytes())  # nobody knows how much of it there is
    assert main(["embed", *run[2:]]) == 0 and "%" not in sys.stderr.getvalue().removeprefix(shown)


def test_what_goes_on_counts_the_lines_before_it(capsysbinary, partial):
    assert main(["embed", *map(str, partial), "--progress"]) == 0
    going_on, line = capsysbinary.readouterr().err.decode().splitlines()
    assert "holds 4 lines" in going_on and states(line) == [("100", "9")]


def test_a_run_that_stops_ends_its_bar_before_its_error(capsysbinary, monkeypatch, tmp_path, model, texts):
    break_at(monkeypatch, 2, KeyboardInterrupt())
    run = [texts, "-o", tmp_path / "v.npy", "--model", model, "--batch-size", 2]
    assert main(["embed", *map(str, run), "--progress"]) == 130
    bar, error = capsysbinary.readouterr().err.decode().splitlines()
    assert [done for _, done in states(bar)] == ["6"] and error.startswith("nezha-np: interrupted; 6 lines are done")


def test_tqdm_is_imported_only_where_a_bar_may_be_shown(tmp_path, texts):
    code = "import sys; from nezha_np.cli import main; main(sys.argv[1:]); print('tqdm' in sys.modules)"
    for option, expected in (["--force"], b"False\n"), (["--force", "--progress"], b"True\n"):
        command = [sys.executable, "-c", code, "embed", str(texts), "-o", str(tmp_path / "v.npy"), *option]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        assert done.stdout == expected


def test_it_runs_in_a_thread_where_signals_cannot_be_answered(capsysbinary, tmp_path, model, texts):
    statuses = []
    run = ["embed", str(texts), "-o", str(tmp_path / "v.npy"), "--model", model]
    thread = threading.Thread(target=lambda: statuses.append(main(run)))
    thread.start()
    thread.join()
    assert statuses == [0] and read(tmp_path / "v.npy").shape == (len(TEXTS), SIZE)


def test_signals_are_answered_as_before_once_it_is_done(capsysbinary, tmp_path, model, texts):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    succeed(capsysbinary, texts, "-o", tmp_path / "v.npy", "--model", model)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_texts_of_one_length_go_through_the_model_together_and_come_back_in_order(
    capsysbinary, tmp_path, monkeypatch, model
):
    shapes = []

    def embed_batch(texts, *arguments, original=nz.text.embed.embed_batch):
        shapes.append({len(text) for text in texts})
        return original(texts, *arguments)

    lines = ["好" * length for length in (3, 1, *[1, 5, 9, 5, 9, 1] * 8)]
    with monkeypatch.context() as patch:
        patch.setattr(nz.text.embed, "embed_batch", embed_batch)
        succeed(
            capsysbinary, written(tmp_path / "t", lines), "-o", tmp_path / "v.npy", "--model", model, "--batch-size", 2
        )
    assert len(shapes) == 25 and sum(len(lengths) > 1 for lengths in shapes) <= 1 + 2 * 5  # of windows of 2, 4, 8, …
    expected = nz.embed(lines, nz.load(model))
    np.testing.assert_allclose(read(tmp_path / "v.npy"), expected, rtol=0, atol=1e-6)


def test_windows_begin_at_multiples_of_one_number_of_rows_and_the_first_are_small():
    begins = [0]
    while begins[-1] < 2000:
        begins.append(begins[-1] + line_windows.window_size(begins[-1], 20))
    assert begins == [0, 20, 60, 140, 300, 620, 640, 1280, 1920, 2560]
    assert line_windows.window_size(700, 20) == 580  # after a window that ended early because its lines are long
    assert line_windows.window_size(0, 1) == line_windows.window_size(999, 1) == 1  # where a line is answered at once


def test_a_window_of_long_lines_ends_early(monkeypatch):
    monkeypatch.setattr(line_windows, "LONGEST_WINDOW", 10)
    lines = iter([Line(f"line {number}", b"12345") for number in range(5)])
    assert [len(line_windows.next_window(lines, 4)) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.exhaustive
@pytest.mark.parametrize("format", FORMATS)
def test_memory_does_not_grow_with_the_input(capsysbinary, tmp_path, model, format):
    def peak(count: int) -> int:
        with (tmp_path / "many.txt").open("w", encoding="utf-8") as file:
            file.writelines(f"{number % 1000:03} 好\n" for number in range(count))  # the longest batch comes early
        tracemalloc.start()
        succeed(capsysbinary, tmp_path / "many.txt", "-o", tmp_path / "v", "--format", format, *rest)
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (tmp_path / "v").stat().st_size > count * 4 * SIZE
        return largest

    rest = ["--model", model, "--batch-size", 20, "--force"]
    peak(1000)  # what is made once
    # Some windows of the largest size, and many. A buffer of 145,000 bytes is there at the peak of some runs only.
    few, many = max(peak(2500), peak(2500), peak(2500)), min(peak(20_000), peak(20_000))
    assert many < few + 150_000  # bytes; the vectors of 17,500 more lines alone would be 560,000
