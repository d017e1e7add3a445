"""Converting: whatever is loaded becomes safetensors with its configuration and tokenizer, small and complete."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_checkpoint import (
    CONFIGS,
    NEZHA,
    TABLE,
    assert_same,
    filled,
    prefixed,
    put,
    put_config,
    put_npz,
    put_torch,
    table,
)

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.weights.convert import convert
from nezha_np.weights.formats.safetensors import read_header


def run(capsys, *arguments: object) -> list[str]:
    """Run the command and return what it printed."""
    assert main(["convert", *map(str, arguments)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out.splitlines()


def error(capsys, *arguments: object) -> str:
    """Run a command that fails and return its one line on stderr."""
    try:
        status = main(["convert", *map(str, arguments)])
    except SystemExit as exit:
        status = exit.code
    printed = capsys.readouterr()
    assert status == 2 and printed.out == "" and printed.err.count("\n") == 1 and printed.err.startswith("nezha-np")
    return printed.err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_same_config(found: nz.NezhaConfig, expected: nz.NezhaConfig) -> None:
    """Check that configurations are the same but for what saving adds: the class and the dtype."""
    extra = {key: value for key, value in found.extra.items() if key != "torch_dtype"}
    assert found.replace(architectures=None, extra=extra) == expected.replace(architectures=None)


@pytest.fixture
def circulating(tmp_path) -> Path:
    """Write a folder as NeZha_Chinese_PyTorch has it: bert., tables, ids, a copy of the decoder, no model_type."""
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    config = NEZHA.replace(max_position_embeddings=512)
    tensors = prefixed(filled() | {TABLE.format(layer): table(512) for layer in range(2)}, "bert.")
    tensors["bert.embeddings.position_ids"] = np.arange(512)[None]
    words = torch.as_tensor(tensors.pop("bert.embeddings.word_embeddings.weight"))
    tied = {"bert.embeddings.word_embeddings.weight": words, "cls.predictions.decoder.weight": words}
    put_torch(tmp_path / "nezha", tied | tensors)
    values = config.to_dict() | {"use_relative_position": True, "directionality": "bidi"}
    del values["model_type"]
    put_config(tmp_path / "nezha", values)
    (tmp_path / "nezha" / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"甲乙丙丁戊己"])
    )
    (tmp_path / "nezha" / "README.md").write_text("about")
    return tmp_path / "nezha"


def test_a_circulating_file_becomes_a_third_of_its_size(capsys, tmp_path, circulating):
    done = convert(circulating, tmp_path / "out")
    assert done.bytes_before > 8 * 2**20 and done.bytes_after < 20_000
    assert done.bytes_before == (circulating / "pytorch_model.bin").stat().st_size
    assert done.bytes_after == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert set(done.dropped) == {
        *(f"bert.{TABLE.format(layer)}" for layer in range(2)),
        "bert.embeddings.position_ids",
        "cls.predictions.decoder.weight",
    }
    assert sorted(os.listdir(tmp_path / "out")) == ["config.json", "model.safetensors", "vocab.txt"]
    weights = nz.load(tmp_path / "out")
    assert_same(weights, filled())
    assert_same_config(weights.config, nz.load(circulating).config)
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert values["model_type"] == "nezha" and values["directionality"] == "bidi"
    found = nz.fill_mask("甲[MASK]丙", weights)
    assert found == nz.fill_mask("甲[MASK]丙", nz.load(circulating))

    printed = run(capsys, circulating, tmp_path / "again")
    assert printed[0] == f"read {circulating / 'pytorch_model.bin'}: {done.bytes_before:,} bytes, F32"
    assert printed[1].startswith("dropped, because computed, tied or no weights: ")
    assert f"bert.{TABLE.format('*')} (2)" in printed[1] and "bert.embeddings.position_ids" in printed[1]
    assert f"wrote {tmp_path / 'again' / 'model.safetensors'}: {done.bytes_after:,} bytes, " in printed[2]
    assert printed[2].endswith(f"{len(weights)} tensors in float32")
    assert printed[3:] == [f"wrote {tmp_path / 'again' / 'config.json'}", "copied vocab.txt"]
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_transformers_reads_what_was_converted(tmp_path, circulating):
    transformers = pytest.importorskip("transformers", reason="the reference")
    convert(circulating, tmp_path / "out")
    _, loading = transformers.NezhaForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values())


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_is_converted_from_every_format(tmp_path, family):
    config, tensors = CONFIGS[family], filled(CONFIGS[family])
    for source in (
        put(tmp_path / "safetensors", tensors, config),
        put_npz(tmp_path / "npz", tensors, config),
        put_torch(tmp_path / "torch", tensors, config),
        put_torch(tmp_path / "pt", tensors, config, name="x.pt"),
    ):
        out = tmp_path / f"from {source.stem}"
        convert(source, out)
        weights = nz.load(out)
        assert_same(weights, tensors)
        assert_same_config(weights.config, config)
        assert sorted(os.listdir(out)) == ["config.json", "model.safetensors"]


def test_the_dtype_stays_unless_another_is_asked_for(tmp_path, capsys):
    for kind in ("float16", "float32", "float64"):
        source = put(tmp_path / kind, filled(dtype=kind))
        convert(source, tmp_path / "out", force=True)
        assert_same(nz.load(tmp_path / "out", dtype=None), filled(dtype=kind))
        for wanted in ("float16", "float32", "float64"):
            assert run(capsys, source, tmp_path / "out", "--force", "--dtype", wanted)[1].endswith(
                f"tensors in {wanted}"
            )
            assert_same(nz.load(tmp_path / "out", dtype=None), nz.load(source, dtype=wanted))


def test_bfloat16_becomes_float32_and_mixed_dtypes_need_one_to_be_named(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    tensors = {name: torch.as_tensor(array).bfloat16() for name, array in filled().items()}
    source = put_torch(tmp_path / "source", tensors)
    assert convert(source, tmp_path / "out").dtypes_before == ("BF16",)
    assert_same(nz.load(tmp_path / "out", dtype=None), {name: value.float().numpy() for name, value in tensors.items()})
    tensors["pooler.dense.bias"] = tensors["pooler.dense.bias"].half()
    source = put_torch(tmp_path / "source", tensors)
    assert "expected one dtype, got float32 for " in error(capsys, source, tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()
    convert(source, tmp_path / "mixed", dtype="float16")
    assert nz.load(tmp_path / "mixed", dtype=None).dtype == np.float16


def test_a_file_is_written_with_its_config_and_tokenizer_beside_it(tmp_path):
    done = convert(nz.weights.checkpoint.SHIPPED, tmp_path / "models" / "学生.safetensors", dtype="float32")
    assert sorted(os.listdir(tmp_path / "models")) == [
        "config.json", "tokenizer_config.json", "vocab.txt", "学生.safetensors"
    ]  # fmt: skip
    assert done.destination == tmp_path / "models" / "学生.safetensors"
    assert_same(nz.load(done.destination), nz.load())
    assert nz.fill_mask("房间很[MASK]净。", nz.load(done.destination)) == nz.fill_mask("房间很[MASK]净。")


def test_a_folder_is_converted_in_place_where_no_file_of_the_source_is_lost(tmp_path, circulating):
    before = contents(circulating)
    expected = nz.load(circulating)
    convert(circulating, circulating)
    after = contents(circulating)
    assert set(after) == {*before, "model.safetensors"}
    assert all(after[name] == content for name, content in before.items() if name != "config.json")
    assert_same(nz.load(circulating), expected)
    assert_same_config(nz.load(circulating).config, expected.config)


@pytest.mark.parametrize("how", ["folder", "file", "link"])
def test_the_source_is_never_overwritten(tmp_path, capsys, how):
    source = put(tmp_path / "source", filled())
    (tmp_path / "link").symlink_to(source)
    destination = {"folder": source, "file": source / "model.safetensors", "link": tmp_path / "link"}[how]
    before = contents(source)
    message = error(capsys, source, destination, "--dtype", "float16")
    assert "DST: expected another place than the source's, got its own file" in message
    assert contents(source) == before


@pytest.mark.parametrize("held", ["config.json", "vocab.txt", "pytorch_model.bin", "model.safetensors.index.json"])
def test_another_checkpoint_is_replaced_by_force_alone(tmp_path, capsys, held):
    source = put(tmp_path / "source", filled())
    shutil.copy(nz.weights.checkpoint.SHIPPED / "vocab.txt", source)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("about")
    (tmp_path / "out" / held).write_text("another's")
    before = contents(tmp_path / "out")
    for destination in (tmp_path / "out", tmp_path / "out" / "new.safetensors"):
        message = error(capsys, source, destination)
        assert "DST: expected a folder without a checkpoint, found " in message
        assert f"{held} in {tmp_path / 'out'}; --force replaces what has the same name" in message
        with pytest.raises(FileExistsError, match=r"^destination: expected a folder without a checkpoint"):
            convert(source, destination)
    assert contents(tmp_path / "out") == before
    run(capsys, source, tmp_path / "out", "--force")
    assert_same(nz.load(tmp_path / "out"), filled())
    after = contents(tmp_path / "out")
    assert {*after} == {held, "README.md", "config.json", "model.safetensors", "vocab.txt"}
    assert after["README.md"] == b"about" and after["vocab.txt"] == contents(source)["vocab.txt"]


def test_a_file_in_the_sources_own_folder_is_replaced_by_force_alone(tmp_path):
    source = put(tmp_path / "source", filled(dtype="float64"))
    shutil.copy(nz.weights.checkpoint.SHIPPED / "vocab.txt", source)
    assert convert(source, source / "half.safetensors", dtype="float16").copied == ()
    before = contents(source)
    with pytest.raises(FileExistsError, match=r"found half\.safetensors in .*source; force"):
        convert(source, source / "half.safetensors")
    assert contents(source) == before
    convert(source, source / "half.safetensors", force=True)
    assert nz.load(source / "half.safetensors", dtype=None).dtype == np.float64
    assert contents(source)["model.safetensors"] == before["model.safetensors"]


@pytest.mark.parametrize("force", [False, True])
def test_force_does_not_replace_the_tensors_that_are_read(tmp_path, force):
    source = put(tmp_path / "source", filled())
    (tmp_path / "other").mkdir()
    os.link(source / "model.safetensors", tmp_path / "other" / "model.safetensors")
    for destination in (source, tmp_path / "other"):
        with pytest.raises(ValueError, match=r"^destination: expected another place than the source's"):
            convert(source, destination, force=force)


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    source = put(tmp_path / "source", filled())
    shutil.copy(nz.weights.checkpoint.SHIPPED / "vocab.txt", source)
    put(tmp_path / "out", filled(dtype="float64"))
    before = contents(tmp_path / "out")

    def fail(*arguments: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="the disk is full"):
        convert(source, tmp_path / "out", force=True)
    assert contents(tmp_path / "out") == before and sorted(os.listdir(tmp_path / "out")) == sorted(before)


def test_converting_says_in_one_line_what_is_wrong(tmp_path, capsys):
    source = put(tmp_path / "source", filled())
    out = tmp_path / "out"
    assert "found no nowhere" in error(capsys, "nowhere", out)
    assert "expected model.safetensors or pytorch_model.bin" in error(capsys, tmp_path, out)
    assert "expected a folder or a .safetensors file, got" in error(capsys, source, tmp_path / "x.bin")
    assert "invalid choice: 'int8'" in error(capsys, source, out, "--dtype", "int8")
    assert "the following arguments are required: DST" in error(capsys, source)
    (source / "config.json").unlink()
    assert "expected a config.json, found no such file: put" in error(capsys, source, out)
    put_config(source, CONFIGS["bert"])
    assert 'set "model_type": "nezha"' in error(capsys, source, out)
    put_config(source)
    (tmp_path / "in the way").touch()
    for place in ("in the way", "in the way/model.safetensors", "in the way/in/it"):
        message = error(capsys, source, tmp_path / place)
        assert f"DST: expected a folder or a .safetensors file, found a file in the way: {tmp_path}" in message
    assert not out.exists()


def test_arguments_of_a_wrong_type_are_refused(tmp_path):
    shipped = nz.weights.checkpoint.SHIPPED
    for arguments, name in (((None, tmp_path), "source"), ((5, tmp_path), "source"), ((shipped, None), "destination")):
        with pytest.raises(TypeError, match=f"^{name}: expected a path, got "):
            convert(*arguments)
    for missing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"^source: expected "):
            convert(missing, tmp_path / "out")
    with pytest.raises(ValueError, match="dtype: expected one of"):
        convert(nz.weights.checkpoint.SHIPPED, tmp_path / "out", dtype="int8")


def test_inspect_reads_files_of_pytorch_and_says_which_family_they_look_like(capsys, circulating):
    assert main(["inspect", str(circulating)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "pretraining: complete" in printed and not any("wrong model_type" in line for line in printed)
    left_out = next(line for line in printed if line.startswith("not needed, because computed or tied: "))
    assert f"bert.{TABLE.format(0)}" in left_out
    put_config(circulating, CONFIGS["bert"])
    assert main(["inspect", str(circulating / "pytorch_model.bin")]) == 0
    printed = capsys.readouterr().out
    assert "wrong model_type: expected the tensors of BERT, as config.json says, got what looks like NEZHA" in printed
    assert "forward: missing embeddings.position_embeddings.weight\n" in printed


def test_inspect_counts_the_bytes_of_views_by_their_elements(capsys, tmp_path):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    tensors = {name: torch.as_tensor(array) for name, array in filled().items()}
    tensors["pooler.dense.weight"] = torch.zeros(8, 16)[:, ::2]
    assert main(["inspect", str(put_torch(tmp_path, tensors))]) == 0
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("pooler.dense.weight"))
    assert line.split() == ["pooler.dense.weight", "8", "x", "8", "F32", "256"]
    assert f"{sum(value.numel() for value in tensors.values()) * 4:,} bytes" in printed


def test_inspect_lists_arrays_of_dtypes_that_no_weight_has(capsys, tmp_path):
    others = {"a": np.ones((2, 3), complex).T, "b/kernel": np.ones((2, 3), complex), "c/kernel": np.array([["x", "y"]])}
    assert main(["inspect", str(put_npz(tmp_path, filled() | others))]) == 0
    printed = capsys.readouterr().out
    assert "forward: complete" in printed
    for name, shape, size in (("a", "3 x 2", 96), ("b.weight", "3 x 2", 96), ("c.weight", "2 x 1", 8)):
        line = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
        assert shape in line and line.endswith(f" {size}")


def test_what_is_written_has_the_prefix_that_transformers_looks_for(tmp_path):
    for family, config in CONFIGS.items():
        convert(put_npz(tmp_path / family, filled(config), config), tmp_path / f"new {family}")
        names = read_header(tmp_path / f"new {family}" / "model.safetensors")
        assert f"{config.model_type}.embeddings.word_embeddings.weight" in names
