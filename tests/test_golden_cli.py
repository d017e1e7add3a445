"""``nezha-np golden`` and ``nezha-np doctor``: what they print, and their exit statuses 0, 1 and 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.model.tasks import TASKS
from nezha_np.oracle import standard
from nezha_np.oracle.bundle import Bundle

CONFIG = nz.NezhaConfig(vocab_size=11, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=6)
IDS, LABELS = [[2, 5, 3]], [[-100, 7, 1]]
GOLDEN = "nezha-masked_lm-holes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write a golden bundle, and what three ports made: a right one, one with another GELU, one with NaN."""
    folder = tmp_path_factory.mktemp("golden")
    bundle = nz.oracle.record_standard(GOLDEN)
    bundle.save(folder / "golden.safetensors")
    weights, wrong = bundle.weights().to(dtype="float32"), bundle.config.replace(hidden_act="gelu_new")
    for name, config in (("right", bundle.config), ("wrong", wrong)):
        with nz.trace() as t:
            nz.masked_lm(weights, **bundle.inputs, config=config)
        save(folder / f"{name}.safetensors", dict(t))
        np.savez(folder / f"{name}.npz", **t)
        safetensors.numpy.save_file(
            {f"model::{key}": np.array(value) for key, value in t.items()}, folder / f"{name}_renamed.safetensors"
        )
        if name == "right":
            broken = {key: np.array(value) for key, value in t.items()}
            broken["encoder.layer.0"][1, 2, 3] = np.nan
            save(folder / "nan.safetensors", broken)
            save(folder / "transposed.safetensors", {"encoder.layer.0": np.swapaxes(broken["encoder.layer.1"], 1, 2)})
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (folder / "inputs.json").write_text(json.dumps({"input_ids": IDS, "output_attentions": True}))
    return folder


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    safetensors.numpy.save_file({name: np.array(array, order="C") for name, array in arrays.items()}, path)


def run(capsys, *arguments: object) -> tuple[int, str]:
    """Run a command that says nothing on stderr: its exit status, and what it printed."""
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert printed.err == ""
    return status, printed.out


def error(capsys, *arguments: object) -> str:
    """Run a command that fails with status 2: its one line on stderr."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as exit:  # what argparse finds wrong
        status = exit.code
    printed = capsys.readouterr()
    assert status == 2 and printed.out == ""
    assert printed.err.count("\n") == 1 and printed.err.startswith("nezha-np") and "Traceback" not in printed.err
    return printed.err


# ------------------------------------------------------------------------------------------------------ golden record


@pytest.mark.exhaustive
def test_record_takes_texts_for_the_shipped_model(capsys, tmp_path):
    out = tmp_path / "text.safetensors"
    status, printed = run(capsys, "golden", "record", "--text", "房间很干净。", "你好", "-o", out)
    assert status == 0
    assert printed.startswith(f"{out}  137 intermediates, 2 outputs, 0 gradients, ")
    bundle = nz.oracle.load(out)
    expected = nz.encode(nz.load_tokenizer(), ["房间很干净。", "你好"])
    assert {name: array.tolist() for name, array in bundle.inputs.items()} == {
        name: array.tolist() for name, array in expected.items()
    }
    assert bundle.recipe["name"] == "nezha-tiny-zh" and bundle.head == "forward"


def test_record_takes_pairs_a_checkpoint_a_head_patterns_and_a_dtype(capsys, tmp_path):
    out = tmp_path / "pair.safetensors"
    options = ("--head", "next_sentence_prediction", "--dtype", "float32", "--output", "pooler", "--output", "**.probs")
    model = ("--model", nz.weights.checkpoint.SHIPPED)
    status, _ = run(capsys, "golden", "record", "--text", "你好", "--pair", "很好", *options, *model, "-o", out)
    bundle = nz.oracle.load(out)
    assert status == 0 and bundle.dtype == "float32" and bundle.head == "next_sentence_prediction"
    assert bundle.inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    assert list(bundle.trace)[-1] == "pooler" and len(bundle.trace) == 5


@pytest.mark.exhaustive
def test_record_draws_the_weights_of_a_configuration(capsys, folder, tmp_path):
    out = tmp_path / "drawn.safetensors"
    arguments = (
        "--model",
        folder / "config.json",
        "--seed",
        "4",
        "--head",
        "masked_lm",
        "--labels",
        json.dumps(LABELS),
    )
    assert run(capsys, "golden", "record", *arguments, "--inputs", folder / "inputs.json", "-o", out)[0] == 0
    bundle = nz.oracle.load(out)
    assert bundle.recipe == {"kind": "init", "seed": 4, "head": "masked_lm"} and bundle.gradients
    same = nz.oracle.record(CONFIG, IDS, head="masked_lm", labels=LABELS, seed=4, output_attentions=True)
    assert all(np.array_equal(bundle.arrays[name], same.arrays[name]) for name in same.arrays)


def test_record_stores_weights_as_it_is_told(capsys, folder, tmp_path):
    out = tmp_path / "half.safetensors"
    arguments = (
        "--model",
        folder / "config.json",
        "--inputs",
        folder / "inputs.json",
        "--tolerances",
        "none",
        "-o",
        out,
    )
    assert run(capsys, "golden", "record", *arguments, "--stored-weights", "float16")[0] == 0
    bundle = nz.oracle.load(out)
    assert bundle.recipe == {"kind": "inside"} and bundle.tensors["pooler.dense.weight"].dtype == "float16"
    assert "--stored-weights: expected 'hash' with the path of a checkpoint" in error(
        capsys, "golden", "record", *arguments, "--force", "--stored-weights", "hash"
    )


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_record_takes_inputs_from_files_of_arrays_caches_too(capsys, folder, tmp_path, suffix):
    decoder, out = CONFIG.replace(is_decoder=True), tmp_path / "out.safetensors"
    (tmp_path / "config.json").write_text(json.dumps(decoder.to_dict()))
    cache = np.linspace(-1, 1, 16).reshape(1, 2, 2, 4)
    arrays = {"input_ids": np.array(IDS), "past_key_values.0.0": cache, "past_key_values.0.1": -cache,
              "use_cache": np.array(True)}  # fmt: skip
    (np.savez(tmp_path / "in.npz", **arrays) if suffix == ".npz" else save(tmp_path / "in.safetensors", arrays))
    options = ("--model", tmp_path / "config.json", "--inputs", tmp_path / f"in{suffix}", "-o", out)
    assert run(capsys, "golden", "record", *options)[0] == 0
    bundle = nz.oracle.load(out)
    assert bundle.inputs["use_cache"] is True and np.array_equal(bundle.inputs["past_key_values"][0][1], -cache)
    assert bundle.outputs["past_key_values.0.0"].shape == (1, 2, 5, 4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {}),
        (["--tolerances", "measured"], {"tolerances": "measured"}),
        (["--tolerances", "quick"], {"tolerances": "quick"}),
        (["--tolerances", "none"], {"tolerances": None}),
    ],
)
def test_record_passes_tolerances_on_only_where_they_are_asked_for(monkeypatch, tmp_path, options, expected):
    passed = {}

    def record(weights, *, path, **others):
        passed.update({name: value for name, value in others.items() if name == "tolerances"})
        Path(path).touch()
        return SimpleNamespace(trace={}, outputs={}, gradients={}, training=None)

    monkeypatch.setattr(nz.oracle, "record", record)
    out = str(tmp_path / "a.safetensors")
    assert main(["golden", "record", "--text", "你好", "-o", out, *options]) == 0 and passed == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--step", "adamw"], "--learning-rate: expected with --step adamw: a number, or one for each step, got none"),
        (["--steps", "2"], "--steps: expected with --step for the optimiser of training steps, got it without"),
        (
            ["--step", "lamb", "--learning-rate", "0.1"],
            "--step: expected a head that has a loss, such as masked_lm, got forward",
        ),
        (["--step", "lamb", "--learning-rate", "-1"], "--learning-rate: expected a finite number from 0 on, got -1.0"),
        (["--dropout-seed", "1"], "--dropout-seed: expected with --step for the optimiser"),
        (["--clipnorm", "1"], "did you mean --clip-norm?"),
    ],
)
def test_a_wrong_option_of_training_steps_is_named_as_it_is_typed(words, message, capsys, tmp_path):
    try:
        status = main(["golden", "record", "--text", "好", "-o", str(tmp_path / "bundle.safetensors"), *words])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1 and message in error


def test_record_makes_training_steps_and_show_and_doctor_know_them(capsys, tmp_path):
    inputs, model, out = tmp_path / "inputs.json", tmp_path / "config.json", tmp_path / "steps.safetensors"
    inputs.write_text('{"input_ids": [[2, 5, 7, 3]], "labels": [[-100, 6, -100, -100]]}', encoding="utf-8")
    sizes = {
        "vocab_size": 9,
        "hidden_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    model.write_text(json.dumps(nz.BertConfig(**sizes).to_dict()), encoding="utf-8")
    words = ["--model", model, "--head", "masked_lm", "--inputs", inputs, "--tolerances", "quick", "-o", out]
    steps = ["--step", "lamb", "--steps", "2", "--learning-rate", "1e-3", "2e-3", "--variant", "nezha"]
    status, printed = run(capsys, "golden", "record", *words, *steps)
    assert status == 0 and "arrays of 2 training steps" in printed
    bundle = nz.oracle.load(out)
    assert bundle.training.learning_rates == (1e-3, 2e-3, 2e-3) and bundle.training.variant == "nezha"
    status, printed = run(capsys, "golden", "show", out)
    assert status == 0 and "training.optimizer: lamb" in printed and "by element" in printed
    theirs = {f"steps/{name}": array for name, array in bundle.steps.items()}
    wrong = next(name for name in theirs if name.startswith("steps/2/weights/"))
    np.savez(tmp_path / "theirs.npz", **(theirs | {wrong: theirs[wrong] + 1.0}))
    status, printed = run(capsys, "golden", "check", out, tmp_path / "theirs.npz")
    assert status == 1 and wrong in printed
    status, printed = run(capsys, "doctor", out, tmp_path / "theirs.npz")
    assert status == 1 and printed.startswith(wrong)


def test_help_of_record_names_every_task(capsys):
    with pytest.raises(SystemExit):
        main(["golden", "record", "--help"])
    words = set(capsys.readouterr().out.replace(",", " ").split())
    assert set(TASKS) <= words


def test_record_all_writes_the_standard_set(capsys, tmp_path, monkeypatch):
    few = tuple(one for one in standard.STANDARD if one.name in ("nezha-forward", "convbert-question_answering"))
    monkeypatch.setattr(standard, "STANDARD", few)  # all of them: tests/test_bundles.py
    status, printed = run(capsys, "golden", "record", "--all", tmp_path / "set")
    assert status == 0
    files = sorted((tmp_path / "set").iterdir())
    assert [file.name for file in files] == ["convbert-question_answering.safetensors", "nezha-forward.safetensors"]
    assert [line.split("  ")[0] for line in printed.splitlines()] == [str(file) for file in reversed(files)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "-o: expected the name of a new file, or --all with a folder, got neither"),
        (["-o", "a.safetensors"], "--text, --inputs: expected one of them, got neither"),
        (
            ["-o", "a.safetensors", "--text", "a", "--inputs", "b.json"],
            "--text, --inputs: expected one of them, got both",
        ),
        (["-o", "a.npz", "--text", "a"], "-o: expected a name that ends in .safetensors, got a.npz"),
        (["-o", "a.safetensors", "--text", "a", "--head", "dance"], "head: expected one of forward, pretraining"),
        (
            ["-o", "a.safetensors", "--text", "a", "--model", "nowhere"],
            "--model: expected a folder or a file that ends in",
        ),
        (["-o", "a.safetensors", "--text", "a", "--tolerances", "x"], "argument --tolerances: invalid choice: 'x'"),
        (["--all", "set", "--tolerances", "quick"], "--all: expected no other option with it, got --tolerances"),
        (["-o", "a.safetensors", "--text", "a", "--seed", "1"], "--seed: expected with a config.json as --model"),
        (["-o", "a.safetensors", "--text", "a", "--seed", "one"], "argument --seed: invalid int value: 'one'"),
        (["-o", "a.safetensors", "--text", "a", "--dtype", "float8"], "argument --dtype: invalid choice: 'float8'"),
        (
            ["-o", "a.safetensors", "--text", "a", "--labels", "[1,"],
            "--labels: expected JSON such as [[-100, 7]], got text",
        ),
        (
            ["-o", "a.safetensors", "--text", "a", "--labels", "[[1]]", "--head", "masked_lm"],
            "labels: expected shape (1, 3)",
        ),
        (
            ["-o", "a.safetensors", "--text", "a", "--head", "causal_lm"],
            "causal_lm: expected a config with is_decoder=True",
        ),
        (
            ["-o", "a.safetensors", "--text", "a", "--labels", "[[1]]"],
            "--labels: expected a --head with a loss that takes labels, got forward",
        ),
        (
            ["-o", "a.safetensors", "--text", "a", "--labels", "[1]", "--head", "question_answering"],
            "--labels: expected a --head with a loss that takes labels, got question_answering",
        ),
        (["-o", "a.safetensors", "--inputs", "b.json", "--pair", "c"], "--pair: expected with --text, got it without"),
        (["-o", "a.safetensors", "--inputs", "b.json"], "b.json: expected a JSON file, found no such file"),
        (["-o", "a.safetensors", "--inputs", "b.npz"], "b.npz: expected an .npz file, found no such file"),
        (
            ["-o", "a.safetensors", "--inputs", "b.txt"],
            "--inputs: expected a .json, .npz or .safetensors file, got b.txt",
        ),
        (["--all", "set", "--text", "a"], "--all: expected no other option with it, got --text"),
        (["--all", "set", "-o", "a.safetensors"], "--all: expected no other option with it, got -o"),
        (["--everything"], "unrecognized arguments: --everything"),
    ],
)
def test_record_says_in_one_line_what_is_wrong(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in error(capsys, "golden", "record", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a JSON object of inputs by name, got text that is not JSON"),
        ("[1]", "expected a JSON object of inputs by name, got a list"),
        ('{"input_ids": [[2]], "path": "x", "seed": 3}', "expected the names of arguments of forward, got path, seed"),
        ('{"input_ids": [[2], [3, 4]]}', "input_ids: expected rows of the same length"),
        ('{"input_ids": [["a"]]}', "input_ids: expected numbers"),
        (b"\xff\xfe", "expected UTF-8, got what seems to be UTF-16; convert the file"),
    ],
)
def test_inputs_of_no_use_are_refused(capsys, folder, tmp_path, content, message):
    (tmp_path / "inputs.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments = (
        "--model",
        folder / "config.json",
        "--inputs",
        tmp_path / "inputs.json",
        "-o",
        tmp_path / "a.safetensors",
    )
    assert message in error(capsys, "golden", "record", *arguments)


def test_record_replaces_a_bundle_by_force_alone(capsys, folder, tmp_path, monkeypatch):
    out, link = tmp_path / "new" / "out.safetensors", tmp_path / "link.safetensors"
    arguments = ("golden", "record", "--text", "房间", "--tolerances", "none")
    assert run(capsys, *arguments, "-o", out)[0] == 0  # its folder is made
    link.symlink_to(out)
    before = out.read_bytes()
    monkeypatch.setattr("nezha_np.oracle.record", lambda *_, **__: pytest.fail("it has begun to compute"))
    for path in (out, link):
        assert f"{path}: expected a new file, found one; --force replaces it" in error(capsys, *arguments, "-o", path)
    monkeypatch.undo()
    assert run(capsys, "golden", "record", "--text", "价格", *arguments[4:], "-o", link, "--force")[0] == 0
    assert link.is_symlink() and out.read_bytes() != before


def test_a_bundle_that_appears_while_one_is_recorded_is_left_as_it_is(capsys, tmp_path, monkeypatch):
    out, save = tmp_path / "out.safetensors", Bundle.save

    def save_after_another(*arguments, **options):
        out.write_bytes(b"theirs")
        save(*arguments, **options)

    monkeypatch.setattr(Bundle, "save", save_after_another)
    arguments = ("golden", "record", "--text", "房间", "--tolerances", "none", "-o", out)
    assert f"{out}: expected a new file, found one that another run has written" in error(capsys, *arguments)
    assert out.read_bytes() == b"theirs" and list(tmp_path.iterdir()) == [out]
    with pytest.raises(FileExistsError, match="path: expected a new file, found "):
        nz.oracle.record(None, [[2, 5]], tolerances=None, path=out, replace=False)
    monkeypatch.undo()
    bundle = nz.oracle.record(None, [[2, 5]], tolerances=None)
    monkeypatch.setattr(standard, "record_standard", lambda name: bundle)
    (tmp_path / f"{GOLDEN}.safetensors").write_bytes(b"theirs")
    with pytest.raises(FileExistsError, match="expected a new file, found one"):
        nz.oracle.record_all(tmp_path, replace=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_record_all_replaces_bundles_by_force_alone(capsys, tmp_path, monkeypatch):
    (tmp_path / f"{GOLDEN}.safetensors").write_bytes(b"mine")
    monkeypatch.setattr("nezha_np.oracle.record_all", lambda folder, **_: [tmp_path / f"{GOLDEN}.safetensors"])
    message = error(capsys, "golden", "record", "--all", tmp_path)
    assert f"--all: expected a folder without bundles of the standard set, found {GOLDEN} in {tmp_path}" in message
    assert run(capsys, "golden", "record", "--all", tmp_path, "--force")[0] == 0


def test_labels_twice_are_refused(capsys, folder, tmp_path):
    (tmp_path / "inputs.json").write_text(json.dumps({"input_ids": IDS, "labels": LABELS}))
    arguments = ("--model", folder / "config.json", "--head", "masked_lm", "--inputs", tmp_path / "inputs.json")
    once, twice = (*arguments, "-o", tmp_path / "a.safetensors"), ("--labels", json.dumps(LABELS))
    assert run(capsys, "golden", "record", *once)[0] == 0
    assert "--labels: expected none, because" in error(capsys, "golden", "record", *once, *twice, "--force")


# ------------------------------------------------------------------------------------------------------- golden check


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_check_of_a_right_port_prints_a_summary_with_verbose_a_table_and_returns_0(capsys, folder, suffix):
    arguments = ("golden", "check", folder / "golden.safetensors", folder / f"right{suffix}")
    status, summary = run(capsys, *arguments)
    assert status == 0 and "✓" not in summary and len(summary.splitlines()) < 5
    status, printed = run(capsys, *arguments, "--verbose")
    assert status == 0 and printed.startswith(summary)
    lines = printed.splitlines()
    count = len(nz.oracle.load(folder / "golden.safetensors").trace)
    assert lines[0] == f"all {count} arrays agree within the tolerances of float32"
    heading = next(index for index, line in enumerate(lines) if line.split()[:2] == ["name", "shape"])
    assert lines[heading].split() == ["name", "shape", "absolute", "relative", "tolerance", "where"]
    assert len(lines) == heading + 1 + count and all(line.startswith("✓") for line in lines[heading + 1 :])


def test_check_compares_two_bundles_by_all_their_names(capsys, folder, tmp_path):
    golden, other = folder / "golden.safetensors", tmp_path / "other.safetensors"
    bundle = nz.oracle.record_standard(GOLDEN, "float32")
    bundle.save(other)
    status, printed = run(capsys, "golden", "check", golden, other)
    assert status == 0
    assert printed.splitlines()[0] == f"all {len(bundle.arrays)} arrays agree within the tolerances of float32"


def test_check_refuses_a_bundle_of_theirs_in_which_a_bit_was_flipped(capsys, folder, tmp_path):
    golden, other = folder / "golden.safetensors", tmp_path / "other.safetensors"
    content = bytearray(golden.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    said = error(capsys, "golden", "check", golden, other)
    assert f"{other}: expected the numbers that were recorded, with CRC-32" in said and "was changed or damaged" in said


def test_check_of_a_wrong_port_names_the_first_array_before_the_table_and_returns_1(capsys, folder):
    status, printed = run(capsys, "golden", "check", folder / "golden.safetensors", folder / "wrong.safetensors")
    assert status == 1
    first = "encoder.layer.0.intermediate.intermediate_act_fn"
    assert printed.splitlines()[1].startswith(f"the first, in the order in which they are made: {first} differs by ")
    wrong = [line for line in printed.splitlines() if line.startswith("✗")]
    assert wrong[0].split()[1] == first and len(wrong) > 10 and "✓" not in printed
    assert printed.splitlines()[-1].startswith("nezha-np doctor BUNDLE THEIRS says which step is wrong")
    _, every = run(capsys, "golden", "check", folder / "golden.safetensors", folder / "wrong.safetensors", "--verbose")
    assert [line for line in every.splitlines() if line.startswith("✗")] == wrong and "✓" in every


def test_check_prints_json_that_any_reader_takes(capsys, folder):
    for name, expected in (("right", 0), ("wrong", 1), ("nan", 1)):
        arguments = (folder / "golden.safetensors", folder / f"{name}.safetensors", "--json")
        status, printed = run(capsys, "golden", "check", *arguments)
        found = json.loads(printed, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
        assert status == expected and found["agrees"] is (expected == 0) and found["dtype"] == "float32"
    assert (
        found["first"] == "encoder.layer.0"
        and next(row for row in found["rows"] if not row["agrees"])["absolute"] is None
    )


def test_check_takes_renames_other_orders_of_axes_a_dtype_and_a_tolerance(capsys, folder, tmp_path):
    golden = folder / "golden.safetensors"
    theirs = nz.oracle.load(golden).trace
    save(tmp_path / "theirs.safetensors", {"blocks.1": theirs["encoder.layer.1"].swapaxes(1, 2).astype("float32")})
    (tmp_path / "rename.json").write_text('{"blocks.*": "encoder.layer.*"}')
    arguments = ("golden", "check", golden, tmp_path / "theirs.safetensors", "--rename", tmp_path / "rename.json")
    assert run(capsys, *arguments)[0] == 1
    assert run(capsys, *arguments, "--transposed")[0] == 0
    assert run(capsys, *arguments, "--transposed", "--dtype", "float64")[0] == 1
    assert run(capsys, *arguments, "--transposed", "--tolerance", "1e-6")[0] == 0
    assert run(capsys, *arguments, "--transposed", "--tolerance", "0")[0] == 1


def test_nan_in_theirs_is_a_difference_and_its_place_is_named(capsys, folder):
    status, printed = run(capsys, "golden", "check", folder / "golden.safetensors", folder / "nan.safetensors")
    assert status == 1 and "encoder.layer.0 differs: at [1, 2, 3] it is nan, expected" in printed.splitlines()[1]


def test_another_shape_is_a_difference_and_both_are_named(capsys, folder, tmp_path):
    save(tmp_path / "theirs.safetensors", {"encoder.layer.0": np.zeros((3, 7, 15), "float32")})
    status, printed = run(capsys, "golden", "check", folder / "golden.safetensors", tmp_path / "theirs.safetensors")
    assert status == 1 and "encoder.layer.0 has shape (3, 7, 15), expected (3, 7, 16)" in printed.splitlines()[1]


@pytest.fixture
def bad(folder, tmp_path) -> Path:
    """Put files of every sort into a folder that cannot be compared."""
    golden = (folder / "golden.safetensors").read_bytes()
    (tmp_path / "golden.safetensors").write_bytes(golden)
    (tmp_path / "cut.safetensors").write_bytes(golden[: len(golden) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "theirs.txt").write_text("numbers")
    save(tmp_path / "useless.safetensors", {"block1.q": np.zeros(3), "block1.k": np.zeros(3)})
    save(tmp_path / "nothing.safetensors", {})
    save(
        tmp_path / "twice.safetensors",
        {"nezha.pooler": np.zeros(3), "encoder": np.zeros(3), "bert.encoder": np.zeros(3)},
    )
    (tmp_path / "rename.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    return tmp_path


@pytest.mark.parametrize("command", [("golden", "check"), ("doctor",)])
@pytest.mark.parametrize(
    ("bundle", "theirs", "options", "message"),
    [
        ("nowhere.safetensors", "golden.safetensors", (), "expected a safetensors file, found no such file"),
        ("cut.safetensors", "golden.safetensors", (), "expected a safetensors file, got one that breaks the format"),
        ("empty.safetensors", "golden.safetensors", (), "expected a safetensors file, got one that breaks the format"),
        ("useless.safetensors", "golden.safetensors", (), "expected a golden bundle, got a safetensors file without"),
        ("golden.safetensors", "nowhere.safetensors", (), "THEIRS: expected a file of arrays, found no"),
        ("golden.safetensors", "theirs.txt", (), "THEIRS: expected a .safetensors or a .npz file, got"),
        ("golden.safetensors", "cut.safetensors", (), "expected a safetensors file, got one that breaks the format"),
        ("golden.safetensors", "useless.safetensors", (), "got block1.k, block1.q: give a table of renames"),
        ("golden.safetensors", "nothing.safetensors", (), "THEIRS: expected some of the bundle's names"),
        ("golden.safetensors", "twice.safetensors", (), "THEIRS: expected one array for encoder, got"),
        (
            "golden.safetensors",
            "golden.safetensors",
            ("--rename", "nowhere.json"),
            "expected a JSON file, found no such file",
        ),
        (
            "golden.safetensors",
            "golden.safetensors",
            ("--rename", "rename.json"),
            "expected a JSON object from their names",
        ),
        (
            "golden.safetensors",
            "golden.safetensors",
            ("--rename", "list.json"),
            "expected a JSON object from their names",
        ),
        (
            "golden.safetensors",
            "golden.safetensors",
            ("--dtype", "float8"),
            "argument --dtype: invalid choice: 'float8'",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_sentence_and_status_2(
    capsys, bad, monkeypatch, command, bundle, theirs, options, message
):
    monkeypatch.chdir(bad)
    assert message in error(capsys, *command, bundle, theirs, *options)


@pytest.mark.parametrize("tolerance", ["-1", "nan", "inf", "much"])
def test_a_tolerance_of_no_use_is_refused(capsys, folder, tolerance):
    golden = folder / "golden.safetensors"
    assert "tolerance: " in error(capsys, "golden", "check", golden, golden, f"--tolerance={tolerance}")


# -------------------------------------------------------------------------------------------------------- golden show


def test_show_says_what_a_bundle_holds(capsys, folder):
    status, printed = run(capsys, "golden", "show", folder / "golden.safetensors")
    bundle = nz.oracle.load(folder / "golden.safetensors")
    lines = printed.splitlines()
    assert status == 0
    assert lines[0].startswith(f"masked_lm of nezha, computed in float64 by nezha_np {nz.__version__}, numpy ")
    assert lines[1] == f"weights: inside, {len(bundle.tensors)} tensors"
    assert "hidden_size: 16" in lines
    assert any(line.split() == ["attention_mask", "3", "×", "7", "int64"] for line in lines)
    for name in bundle.arrays:
        assert any(line.startswith(f"{name} ") for line in lines), name
    assert lines[-1].startswith(f"{len(bundle.trace)} intermediates, 2 outputs, {len(bundle.gradients)} gradients, ")


def test_show_says_where_weights_come_from(capsys, tmp_path):
    out = tmp_path / "bundle.safetensors"
    nz.oracle.record(CONFIG, IDS, seed=6, head="question_answering", path=out)
    assert (
        "weights: drawn by nezha_np.init with seed 6, head question_answering" in run(capsys, "golden", "show", out)[1]
    )
    nz.oracle.record(None, IDS, path=out, output="pooler", use_cache=False)
    status, printed = run(capsys, "golden", "show", out)
    assert status == 0 and "weights: those of the checkpoint nezha-tiny-zh, SHA-256 e06ce70d" in printed
    assert any(line.split() == ["use_cache", "False"] for line in printed.splitlines())


@pytest.mark.parametrize("arguments", [("golden", "show", "."), ("golden", "check", ".", "."), ("doctor", ".", ".")])
def test_a_folder_is_said_to_be_no_bundle(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert ".: expected a golden bundle, a .safetensors file, got a folder" in error(capsys, *arguments)


# ------------------------------------------------------------------------------------------------------------- doctor


def test_the_doctor_names_the_mistake_and_returns_1(capsys, folder):
    status, printed = run(capsys, "doctor", folder / "golden.safetensors", folder / "wrong.safetensors")
    assert status == 1 and "tanh GELU for erf" in printed
    assert printed.startswith("encoder.layer.0.intermediate.intermediate_act_fn is the first")


def test_the_doctor_finds_a_right_port_healthy_and_returns_0(capsys, folder):
    status, printed = run(capsys, "doctor", folder / "golden.safetensors", folder / "right.npz")
    assert status == 0 and "every step follows from your inputs to it" in printed


def test_the_doctor_prints_json_that_any_reader_takes(capsys, folder):
    for name, expected in (("wrong", 1), ("nan", 1), ("right", 0)):
        arguments = ("doctor", folder / "golden.safetensors", folder / f"{name}.safetensors", "--json")
        status, printed = run(capsys, *arguments)
        found = json.loads(printed, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
        assert status == expected and found["agrees"] is (expected == 0)
        if name == "wrong":
            assert found["findings"][0]["name"] == "tanh GELU for erf"
            assert found["step"] == "encoder.layer.0.intermediate.intermediate_act_fn"


def test_the_doctor_asks_for_a_checkpoint_that_is_not_the_shipped_one(capsys, tmp_path):
    nz.init(CONFIG).save(tmp_path / "model")
    bundle = nz.oracle.record(tmp_path / "model", IDS, path=tmp_path / "golden.safetensors")
    save(
        tmp_path / "theirs.safetensors",
        {name: bundle.trace[name].astype("float32") for name in ("embeddings", "pooler")},
    )
    arguments = ("doctor", tmp_path / "golden.safetensors", tmp_path / "theirs.safetensors")
    assert "--model: expected the one that the bundle was recorded with" in error(capsys, *arguments)
    assert run(capsys, *arguments, "--model", tmp_path / "model")[0] == 0


# ---------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    "arguments", [["golden"], ["golden", "dance"], ["golden", "check"], ["doctor"], ["golden", "show"]]
)
def test_incomplete_commands_are_one_sentence_and_status_2(capsys, arguments):
    assert "argument" in error(capsys, *arguments)


def test_a_process_has_the_exit_status_and_other_commands_do_not_import_the_oracle(folder):
    command = [sys.executable, "-m", "nezha_np.cli", "golden", "check", str(folder / "golden.safetensors")]
    for name, status in (("right.npz", 0), ("wrong.npz", 1), ("none.npz", 2)):
        assert subprocess.run([*command, str(folder / name)], capture_output=True).returncode == status
    code = (
        "import sys; from nezha_np.cli import main; main(['fill-mask', '很[MASK]']); "
        "print('nezha_np.oracle' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "False"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_table_of_renames_may_come_through_a_pipe(tmp_path):
    bundle = tmp_path / "bundle.safetensors"
    nz.oracle.record(nz.load(), input_ids=[[2, 5, 3]], tolerances="quick").save(bundle)
    os.mkfifo(tmp_path / "renames")
    writer = threading.Thread(target=lambda: (tmp_path / "renames").write_text("{}", encoding="utf-8"))
    writer.start()
    assert main(["golden", "check", str(bundle), str(bundle), "--rename", str(tmp_path / "renames")]) == 0
    writer.join()
