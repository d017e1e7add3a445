"""Windows and macOS, as far as another system can stand in for them: files in use, locks, names, what is missing."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from other_systems import UNIX, is_in_use, windows

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.files.partial_file import PartialFile
from nezha_np.jobs import vectors
from nezha_np.oracle import standard
from nezha_np.training import lamb
from nezha_np.training.loop import first_step
from nezha_np.training.run_folder import load_step, save_step, saved_steps
from nezha_np.weights.checkpoint import list_files

__all__ = ["windows"]  # a fixture is used by its name
ROOT = Path(__file__).parents[1]
SHIPPED = nz.weights.checkpoint.SHIPPED
CONFIG = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1, intermediate_size=6)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def run(capfd, *arguments: object, status: int = 0) -> str:
    """Run a command and return what it printed: on stdout where it works, else its one line on stderr."""
    assert main([str(argument) for argument in arguments]) == status
    printed = capfd.readouterr()
    assert status == 0 or (printed.out == "" and printed.err.startswith("nezha-np: ") and printed.err.count("\n") == 1)
    return printed.err if status else printed.out


# ------------------------------------------------------------------------------------------------------ files in use


def test_the_stand_in_refuses_what_is_open_and_what_is_mapped(windows, tmp_path):
    file, other = tmp_path / "file", tmp_path / "other"
    np.save(tmp_path / "mapped.npy", np.zeros(4))
    array = np.load(tmp_path / "mapped.npy", mmap_mode="r")
    other.touch()
    with file.open("wb"):
        for change in (
            file.unlink,
            lambda: file.replace(other),
            lambda: other.replace(file),
            lambda: os.rename(file, other),
        ):
            with pytest.raises(PermissionError):
                change()
    with pytest.raises(PermissionError):
        (tmp_path / "mapped.npy").unlink()
    del array
    (tmp_path / "mapped.npy").unlink()
    file.replace(other)


def test_weights_are_saved_and_replaced_together_or_not_at_all(windows, tmp_path):
    first, second = nz.init(CONFIG), nz.init(CONFIG.replace(layer_norm_eps=1e-3), seed=1)
    first.save(tmp_path)
    before = contents(tmp_path)
    weights = nz.load(tmp_path)
    assert is_in_use(tmp_path / "model.safetensors")
    with pytest.raises(PermissionError, match="expected a file that can be replaced") as refused:
        second.save(tmp_path)
    message = str(refused.value)
    assert message.startswith(str(tmp_path / "model.safetensors")) and "nothing was changed" in message
    assert "weights were loaded from is open as long as they are in use: write to another place" in message
    assert contents(tmp_path) == before
    weights.save(tmp_path / "other")
    del weights
    gc.collect()
    second.save(tmp_path)
    assert nz.load(tmp_path).config.layer_norm_eps == 1e-3
    weights = nz.load(tmp_path, dtype="float64")  # converted, so that the file is not mapped
    weights.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "other"}


def test_a_refused_file_takes_back_those_that_were_new_and_those_that_were_replaced(windows, tmp_path):
    (tmp_path / "b").write_text("old b")
    (tmp_path / "c").write_text("old c")

    def write(folder: Path) -> None:
        (folder / "new" / "inner").mkdir(parents=True)
        for name, text in (("a", "1"), ("b", "22"), ("new/inner/d", "22"), ("c", "333")):  # the largest is moved last
            (folder / name).write_text(text)

    with (tmp_path / "c").open(), pytest.raises(PermissionError, match="expected a file that can be replaced"):
        nz.files.atomic.write_atomically(tmp_path, write)
    assert contents(tmp_path) == {"b": b"old b", "c": b"old c"}
    nz.files.atomic.write_atomically(tmp_path, write)
    assert contents(tmp_path) == {"a": b"1", "b": b"22", "c": b"333", "new/inner/d": b"22"}


def test_convert_explain_and_the_tokenizer_write_and_replace(windows, capfd, tmp_path):
    for options in ([], ["--force"]):
        run(capfd, "convert", SHIPPED, tmp_path / "out", *options)
        run(capfd, "explain", "房间很[MASK]净。", "-o", tmp_path / "page.html", *options)
        nz.save_vocabulary(nz.load_tokenizer(), tmp_path / "tokenizer")
    weights = nz.load(tmp_path / "out", dtype=None)
    before = contents(tmp_path)
    message = run(capfd, "convert", SHIPPED, tmp_path / "out", "--force", "--dtype", "float32", status=2)
    assert f"{tmp_path / 'out' / 'model.safetensors'}: expected a file that can be replaced" in message
    assert contents(tmp_path) == before and weights.dtype == np.float16


def test_golden_bundles_are_recorded_and_the_set_is_replaced_together_or_not_at_all(
    windows, capfd, tmp_path, monkeypatch
):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (tmp_path / "inputs.json").write_text('{"input_ids": [[2, 5, 3]]}')
    one = ["golden", "record", "--model", tmp_path / "config.json", "--inputs", tmp_path / "inputs.json"]
    run(capfd, *one, "--tolerances", "none", "-o", tmp_path / "one.safetensors")
    few = ("nezha-forward-relu", "nezha-forward-eps")  # quick ones
    monkeypatch.setattr(standard, "STANDARD", tuple(found for found in standard.STANDARD if found.name in few))
    run(capfd, "golden", "record", "--all", tmp_path / "all")
    names = [f"{name}.safetensors" for name in standard.names()]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted(names)
    (tmp_path / "all" / names[0]).write_bytes(b"older")
    bundle = nz.oracle.load(tmp_path / "all" / names[1])
    before = contents(tmp_path)
    with pytest.raises(PermissionError, match=rf"{names[1]}: expected a file that can be replaced"):
        nz.oracle.record_all(tmp_path / "all")
    assert contents(tmp_path) == before and bundle.head
    del bundle
    gc.collect()
    nz.oracle.record_all(tmp_path / "all")
    assert nz.oracle.load(tmp_path / "all" / names[0]).head


def test_a_saved_step_that_weights_are_mapped_from_is_removed_later(windows, tmp_path):
    for number in (1, 2):
        save_step(tmp_path, dataclasses.replace(first_step(nz.init(CONFIG), lamb), number=number), keep=2)
    mapped = load_step(saved_steps(tmp_path)[0])
    save_step(tmp_path, dataclasses.replace(mapped, number=3), keep=1)
    names = [f"step-0000000{number}" for number in (1, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    before = contents(tmp_path / names[0])
    with pytest.raises(PermissionError):
        save_step(tmp_path, mapped, keep=2)  # over the step whose files it is made of
    assert contents(tmp_path / names[0]) == before
    del mapped
    gc.collect()
    save_step(tmp_path, load_step(tmp_path / names[1], dtype="float64"), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == names[1:]


@pytest.fixture
def texts(tmp_path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("房间\n价格\n好\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("format", ["npy", "safetensors", "jsonl"])
def test_embed_finishes_its_file(windows, capfd, tmp_path, texts, format):
    out = tmp_path / f"v.{format}"
    run(capfd, "embed", texts, "-o", out)
    first = out.read_bytes()
    run(capfd, "embed", texts, "-o", out, "--force")
    assert out.read_bytes() == first and len(contents(tmp_path)) == 2


def test_embed_goes_on_after_an_interruption_and_leaves_nothing_without_rows(
    windows, capfd, tmp_path, texts, monkeypatch
):
    command = ["embed", texts, "-o", tmp_path / "v.npy", "--batch-size", "1"]
    calls = iter(range(100))

    def embed_sorted(*arguments, original=vectors.embed_sorted, **options):
        if next(calls) in (0, 2):
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(vectors, "embed_sorted", embed_sorted)
    assert "nothing is done" in run(capfd, *command, status=130)
    assert {*contents(tmp_path)} == {"texts.txt"}
    assert "1 lines are done" in run(capfd, *command, status=130)
    assert {*contents(tmp_path)} == {"texts.txt", "v.npy.partial", "v.npy.partial.json"}
    run(capfd, *command)
    assert {*contents(tmp_path)} == {"texts.txt", "v.npy"}
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), nz.embed(["房间", "价格", "好"]), rtol=0, atol=1e-5)


def test_embed_may_replace_the_file_that_it_reads(windows, capfd, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "好", "id": 7}\n', encoding="utf-8")
    run(capfd, "embed", path, "-o", path, "--force")
    assert {*json.loads(path.read_text(encoding="utf-8"))} == {"text", "id", "embedding"}
    assert {*contents(tmp_path)} == {"texts.jsonl"}


def test_embed_loses_no_row_where_its_file_cannot_be_replaced(windows, capfd, tmp_path, texts):
    np.save(tmp_path / "v.npy", np.zeros(3))
    command = ["embed", texts, "-o", tmp_path / "v.npy", "--force"]
    array = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert "3 lines are done, in" in run(capfd, *command, status=2)
    assert not array.any() and {*contents(tmp_path)} == {"texts.txt", "v.npy", "v.npy.partial", "v.npy.partial.json"}
    del array
    run(capfd, *command)
    assert np.load(tmp_path / "v.npy").shape == (3, 256) and {*contents(tmp_path)} == {"texts.txt", "v.npy"}


def test_a_file_that_another_program_reads_for_a_moment_is_replaced_a_moment_later(capfd, tmp_path, texts, monkeypatch):
    refused = iter([True, True, False] * 20)

    def scanned(source, target, original=os.replace):
        if next(refused):
            raise PermissionError(13, "Access is denied", str(source))
        original(source, target)

    monkeypatch.setattr(os, "replace", scanned)
    run(capfd, "embed", texts, "-o", tmp_path / "v.npy")
    nz.init(CONFIG).save(tmp_path / "model")
    assert {*contents(tmp_path)} == {"texts.txt", "v.npy", "model/config.json", "model/model.safetensors"}


def test_two_runs_do_not_write_one_file_where_there_are_locks(windows, tmp_path):
    with PartialFile(tmp_path / "v", {}, header=b"head") as first:
        if windows == "msvcrt":
            with pytest.raises(BlockingIOError, match="expected to be the only one to write it, but another run does"):
                PartialFile(tmp_path / "v", {}, header=b"head")
        first.append(b"rows", rows=1, digest="")
        first.finish(b"HEAD")
    assert (tmp_path / "v").read_bytes() == b"HEADrows"


# --------------------------------------------------------------------------------------- what other systems do not have


def test_the_package_and_its_tests_are_imported_where_what_unix_alone_has_is_missing():
    code = f"""
import importlib, os, pathlib, pkgutil, signal, sys
for name in ("SIGKILL", "SIGXFSZ", "SIGHUP", "SIGALRM", "alarm", "setitimer", "pthread_kill"):
    if hasattr(signal, name):
        delattr(signal, name)
import nezha_np, pytest, numpy, hypothesis, safetensors.numpy, tokenizers, multiprocessing, subprocess
for name in ("fork", "getuid", "geteuid", "sched_getaffinity", "mkfifo", "chown", "killpg", "setsid", "uname"):
    if hasattr(os, name):
        delattr(os, name)
missing = {UNIX!r} + ("torch", "transformers", "jax", "array_api_compat", "selenium")
for name in missing:
    sys.modules[name] = None
for module in pkgutil.walk_packages(nezha_np.__path__, "nezha_np."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        assert error.name in ("cupy", "array_api_compat"), error
sys.path[:0] = ["tests", "tools"]
for path in sorted(pathlib.Path("tests").glob("test_*.py")):
    try:
        importlib.import_module(path.stem)
    except pytest.skip.Exception:
        pass
    print(path.stem)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(list((ROOT / "tests").glob("test_*.py")))


def test_names_that_are_made_are_names_on_every_system():
    names = [f"{name}.safetensors" for name in standard.names()]
    assert len({name.casefold() for name in names}) == len(names)
    reserved = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = tracked.stdout.splitlines() if tracked.returncode == 0 else []  # what is not in a checkout has no list
    assert len({file.casefold() for file in files}) == len(files)
    for file in [*names, *files]:
        for part in file.split("/"):
            assert not re.search(r'[<>:"\\|?*\x00-\x1f]|[ .]$', part) and not reserved.match(part), file


@pytest.mark.parametrize(
    "name", [r"sub\model.safetensors", r"..\model.safetensors", "C:model.safetensors", "../model.safetensors"]
)
def test_an_index_of_shards_names_files_in_its_folder_on_every_system(tmp_path, name):
    assert PureWindowsPath(name).name != name
    text = json.dumps({"weight_map": {"x": name}})
    (tmp_path / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="expected the names of files in the same folder"):
        list_files(tmp_path)
