"""Files as people have them: other prefixes, other formats, files that were never fetched, texts made to deceive."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from test_checkpoint import (
    CONFIGS,
    NEZHA,
    assert_same,
    filled,
    prefixed,
    put,
    put_config,
    put_npz,
    put_torch,
    tensorflow_name,
)

import nezha_np as nz
from nezha_np.checks import CONTROLS, listed, printable
from nezha_np.cli import main
from nezha_np.commands.json_text import format_json
from nezha_np.families.config import config_from_dict
from nezha_np.families.parameters import task_shapes
from nezha_np.weights.checkpoint import SHIPPED, read_headers
from nezha_np.weights.convert import convert
from nezha_np.weights.prefixes import without_outer_prefix

# ------------------------------------------------------------------------------------- what stands before all names

HEAD = {name: np.full(shape, 0.25, "float32") for name, shape in task_shapes(NEZHA, "sequence_classification").items()}


@pytest.mark.parametrize(
    ("of_model", "of_head"),
    [
        ("model.", "model."),  # a class with self.model, all of it in one more
        ("model.nezha.", "model."),  # a framework that holds the model with its head
        ("model.bert.", "model."),
        ("module.model.", "module.model."),
        ("_orig_mod.model.bert.", "_orig_mod.model."),
        ("model.module.bert.", "model.module."),
        ("0.auto_model.", ""),  # sentence-transformers
        ("bert_model.", ""),  # a class with self.bert_model and self.classifier
        ("encoder.", ""),
        ("model.encoder.", "model."),
        ("学生.", "学生."),
    ],
)
def test_a_prefix_of_any_name_is_taken_off(tmp_path, capsys, of_model, of_head):
    tensors = filled() | HEAD
    theirs = {
        (of_model if name.startswith(("embeddings.", "encoder.", "pooler.")) else of_head) + name: array
        for name, array in tensors.items()
    }
    folder = put(tmp_path / "theirs", theirs)
    weights = nz.load(folder)
    assert_same(weights, tensors)
    ids = [[1, 2, 3]]
    expected = nz.sequence_classification(nz.load(put(tmp_path / "ours", prefixed(tensors, "nezha."))), ids).logits
    assert nz.sequence_classification(weights, ids).logits.tobytes() == expected.tobytes()
    assert main(["inspect", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "taken off the names: " in said and "sequence_classification: complete" in said
    done = convert(folder, tmp_path / "converted")
    assert_same(nz.load(tmp_path / "converted"), weights)
    assert done.tensors == len(tensors) and done.dropped == ()


@pytest.mark.parametrize("prefix", ["", "nezha.", "bert.", "module.bert.", "module._orig_mod."])
def test_a_prefix_that_names_have_anyway_is_not_called_another(tmp_path, prefix):
    [file] = [put(tmp_path, prefixed(filled(), prefix) | {"x.embeddings.word_embeddings.weight": np.ones(3, "f4")})]
    headers = read_headers([file / "model.safetensors"])
    assert without_outer_prefix(headers) == (headers, "")


def test_prefixes_are_taken_off_tensorflows_names_and_shards_too(tmp_path):
    tensors = {name: array for name, array in filled().items() if not name.startswith("cls.")}
    slashed = dict(tensorflow_name(name, array, None) for name, array in tensors.items())
    theirs = {f"student/{name}": array for name, array in slashed.items()}
    assert_same(nz.load(put_npz(tmp_path / "tensorflow", theirs)), tensors)
    names = sorted(tensors, reverse=True)  # the word embeddings are not in the first shard
    middle = len(names) // 2
    for number, part in enumerate((names[:middle], names[middle:]), 1):
        folder = put(tmp_path / "shards", {f"model.{name}": tensors[name] for name in part})
        (folder / "model.safetensors").rename(folder / f"model-{number}.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same(nz.load(folder), tensors)


def test_two_models_or_one_of_another_kind_in_a_file_are_refused_by_their_prefixes(tmp_path):
    tensors = {name: array for name, array in filled().items() if not name.startswith("cls.")}
    two = prefixed(tensors, "query.") | prefixed(tensors, "passage.bert.")
    with pytest.raises(
        ValueError, match=r"tensors of one model, got those of 2, which begin with passage\.bert\., query\."
    ):
        nz.load(put(tmp_path, two))
    # RoBERTa's positions begin at 2: as a BERT it would compute something else.
    bert = filled(CONFIGS["bert"])
    with pytest.raises(
        ValueError, match=r"expected the tensors of a model of nezha, bert, convbert.*begin with roberta\."
    ):
        nz.load(put(tmp_path, prefixed(bert, "roberta."), CONFIGS["bert"]))
    twice = prefixed(tensors, "model.") | {"pooler.dense.bias": tensors["pooler.dense.bias"]}
    with pytest.raises(
        ValueError, match=r"one tensor for pooler\.dense\.bias, got model\.pooler.* and pooler\.dense\.bias"
    ):
        nz.load(put(tmp_path, twice))
    assert nz.load(put_torch(tmp_path, prefixed(tensors, "model.bert."))).keys() == tensors.keys()


# -------------------------------------------------------------------------------------------- what was never fetched

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 1234\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>model.safetensors</title></head></html>\n"


@pytest.mark.parametrize(("content", "said"), [(POINTER, "a Git LFS pointer, .*git lfs pull"), (PAGE, "a web page")])
def test_what_stands_for_a_file_that_was_not_fetched_is_named_wherever_it_is_read(tmp_path, capsys, content, said):
    """Every file of a folder can be such a pointer: tensors, their index, settings, vocabulary, bundles, texts."""

    def check(name: str, read) -> None:
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(SHIPPED, folder)
        (folder / name).write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"^{re.escape(str(folder / name))}: expected the file itself, got {said}"
        ):
            read(folder)

    for name in ("model.safetensors", "config.json"):
        check(name, nz.load)
    for name in ("x.bin", "x.pt", "x.npz", "x.ckpt"):
        check(name, lambda folder, name=name: nz.load(folder / name))
    for name in ("vocab.txt", "tokenizer_config.json"):
        check(name, nz.load_tokenizer)
    check("tokenizer.json", nz.load_tokenizer)
    check("golden.safetensors", lambda folder: nz.oracle.load(folder / "golden.safetensors"))
    folder = put(tmp_path / "shards", filled())
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"model\.safetensors\.index\.json: expected the file itself, got {said}"):
        nz.load(folder)
    (tmp_path / "texts.txt").write_bytes(content)
    (tmp_path / "inputs.json").write_bytes(content)
    for words in (
        ["embed", "texts.txt", "-o", "vectors.npy"],
        ["golden", "record", "--inputs", "inputs.json", "-o", "x.safetensors"],
    ):
        words = [str(tmp_path / word) if "." in word else word for word in words]
        assert main(words) == 2
        assert re.search(f": expected the file itself, got {said}", capsys.readouterr().err)


# ----------------------------------------------------------------------------------------------------- other formats


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tf_model.h5", r"a file of Keras; transformers 4 with TensorFlow makes another of it: .*from_tf=True"),
        ("flax_model.msgpack", r"a file of Flax; transformers 4 with Flax makes another of it: .*from_flax=True"),
        ("model_state.pdparams", "a file of PaddlePaddle, with other names and transposed matrices; look for"),
        ("model.onnx", "a graph for ONNX Runtime; load the checkpoint that it was made from"),
        ("openvino_model.xml", "a graph for OpenVINO; load the checkpoint that it was made from"),
        ("model.gguf", r"a file of llama\.cpp, mostly of rounded numbers; load the checkpoint"),
        ("model.zip", "an archive; unpack it"),
        ("model.safetensors.incomplete", "a download that did not finish; download it again"),
    ],
)
def test_a_file_of_another_format_is_named_with_what_to_do(tmp_path, name, said):
    put_config(tmp_path)
    (tmp_path / name).write_bytes(bytes(100))
    (tmp_path / "openvino_model.bin").write_bytes(bytes(100))
    with pytest.raises(FileNotFoundError, match=rf"found none of them in .*: {re.escape(name)} is {said}"):
        nz.load(tmp_path)
    with pytest.raises(ValueError, match=rf"^path: expected a folder or a file that ends in .*, got .*: it is {said}"):
        nz.load(tmp_path / name)


def test_a_checkpoint_of_tensorflow_is_named_by_any_of_its_files_and_by_their_common_name(tmp_path):
    put_config(tmp_path)
    for end in ("index", "meta", "data-00000-of-00001"):
        (tmp_path / f"bert_model.ckpt.{end}").write_bytes(bytes(100))
    said = r"a checkpoint of TensorFlow can be loaded once its variables are in an \.npz file, under their names$"
    for path in (
        tmp_path,
        *(tmp_path / f"bert_model.ckpt{end}" for end in ("", ".index", ".meta", ".data-00000-of-00001")),
    ):
        with pytest.raises((FileNotFoundError, ValueError), match=said):
            nz.load(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(100), r"a file of Keras \(HDF5\)$"),
        (b"GGUF\3\0\0\0" + bytes(100), r"a file of llama\.cpp \(GGUF\)$"),
        (b"\x1f\x8b\x08" + bytes(100), "a gzip archive$"),
        (bytes(257) + b"ustar" + bytes(300), "a tar archive$"),
    ],
)
@pytest.mark.parametrize("name", ["x.safetensors", "x.npz", "x.bin"])
def test_a_file_under_a_name_of_another_format_is_named_by_what_it_is(tmp_path, name, content, kind):
    put_config(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: expected .*(looks like|got) {kind.rstrip('$')}"):
        nz.load(tmp_path / name)


def test_a_file_of_a_format_that_is_read_says_which_name_it_should_have(tmp_path):
    tensors = put(tmp_path / "a", filled()) / "model.safetensors"
    arrays = put_npz(tmp_path / "a", filled())
    for file, end in ((tensors, ".safetensors"), (arrays, ".npz")):
        for other in ("x.bin", "x.npz", "x.safetensors"):
            if not other.endswith(end):
                shutil.copy(file, tmp_path / "a" / other)
                with pytest.raises(
                    ValueError, match=rf"it looks like an? .*: if it is, give it a name that ends in \{end}$"
                ):
                    nz.load(tmp_path / "a" / other)
        shutil.copy(file, tmp_path / "a" / "weights.backup")
        with pytest.raises(ValueError, match=rf"; if it is, give it a name that ends in \{end}$"):
            nz.load(tmp_path / "a" / "weights.backup")


def test_a_checkpoint_of_a_training_framework_is_read_by_its_name(tmp_path):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    put_config(tmp_path)
    state = {name: torch.as_tensor(array) for name, array in prefixed(filled(), "model.nezha.").items()}
    torch.save({"state_dict": state, "epoch": 3, "loss": torch.tensor(0.5)}, tmp_path / "last.ckpt")
    assert_same(nz.load(tmp_path / "last.ckpt"), filled())


def test_what_a_file_of_pytorch_holds_instead_of_tensors_is_said(tmp_path):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    file = put_config(tmp_path) / "pytorch_model.bin"
    state = {name: torch.as_tensor(array) for name, array in filled().items()}
    eighth = {name: value.to(torch.float8_e4m3fn) for name, value in state.items()}
    for value, said in (
        (
            {name: value.numpy() for name, value in state.items()},
            r"one of NumPy's arrays: write them with numpy\.savez$",
        ),
        ({"model": {"encoder": state}, "step": 3}, r"got 'model' \(tensors under 'encoder' in it\), 'step'$"),
        (torch.nn.Linear(2, 2), r"nothing was run; save its state_dict alone, with PyTorch$"),
        (eighth, r"expected tensors of torch\.float64, .*, got torch\.float8_e4m3fn$"),
        (
            {"bert_" + name.replace(".", "_"): value for name, value in state.items()},
            r" is there, but bert_\w+, .* more$",
        ),
    ):
        torch.save(value, file)
        with pytest.raises(ValueError, match=said):
            nz.load(file)
    file.write_bytes(pickle.dumps(filled()))
    with pytest.raises(
        ValueError, match=r"that torch\.save did not write; if you trust it, load it with Python and write"
    ):
        nz.load(file)


def test_what_else_a_folder_holds_or_a_path_may_mean_is_said(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r": it is empty$"):
        nz.load(tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / "onnx").mkdir()
    with pytest.raises(FileNotFoundError, match=r": it holds README\.md, onnx$"):
        nz.load(tmp_path)
    (tmp_path / "model.pkl").touch()
    with pytest.raises(
        FileNotFoundError, match=r": model\.pkl is a pickle of Python; if you trust it, load it with Python"
    ):
        nz.load(tmp_path)
    (put_config(tmp_path) / "model.safetensors").write_bytes(b"Entry not found")
    with pytest.raises(ValueError, match=r"; it looks like a short text, 'Entry not found'$"):
        nz.load(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("bert-base-chinese", "somebody/nezha-cn-base"):
        with pytest.raises(
            FileNotFoundError, match=r": nothing is downloaded here; if it is the name of a published model"
        ):
            nz.load(name)


# ------------------------------------------------------------------------------------------------ variants and shards


def shards(folder: Path, names: list[str], index: str) -> Path:
    """Write a checkpoint in as many shards as names, and their index."""
    tensors = filled()
    for number, name in enumerate(names):
        part = {key: array for place, (key, array) in enumerate(tensors.items()) if place % len(names) == number}
        (put(folder, part) / "model.safetensors").rename(folder / name)
    weight_map = {key: names[place % len(names)] for place, key in enumerate(tensors)}
    (folder / index).write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize(
    ("shard", "index"),
    [
        # transformers writes the first, diffusers and newer tools the second
        ("model.fp16-0000{}-of-00002.safetensors", "model.safetensors.index.fp16.json"),
        ("model-0000{}-of-00002.fp16.safetensors", "model.fp16.safetensors.index.json"),
    ],
)
def test_shards_of_a_variant_are_loaded_by_their_index(tmp_path, shard, index):
    names = [shard.format(number) for number in (1, 2)]
    folder = shards(tmp_path, names, index)
    with pytest.raises(FileNotFoundError, match=rf": to load shards, name their index: {re.escape(index)}$"):
        nz.load(folder)
    assert_same(nz.load(folder / index), filled())
    assert main(["inspect", str(folder / index)]) == 0
    with pytest.raises(
        ValueError, match=rf"missing .*: {re.escape(names[1])} is one of 2 shards; name their folder or"
    ):
        nz.load(folder / names[1])
    (folder / index).unlink()
    with pytest.raises(
        FileNotFoundError, match=r": there are shards without their index: model.*\.safetensors\.index\.json$"
    ):
        nz.load(folder)


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "pytorch_model.fp16.bin", "model.int8.safetensors"])
def test_a_variant_is_named(tmp_path, name):
    folder = put(tmp_path, filled())
    (folder / "model.safetensors").rename(folder / name)
    for beside in ("training_args.bin", "optimizer.pt", "rng_state_0.pth", "scheduler.pt"):
        (folder / beside).touch()
    with pytest.raises(FileNotFoundError, match=rf": to load one of its files, name it: {re.escape(name)}$"):
        nz.load(folder)


def test_an_adapter_and_a_folder_of_checkpoints_are_named(tmp_path):
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(
        FileNotFoundError, match=r": adapter_model\.safetensors is an adapter of PEFT, .*merge_and_unload"
    ):
        nz.load(tmp_path)
    put(tmp_path / "runs" / "checkpoint-500", filled())
    with pytest.raises(FileNotFoundError, match=r": to load a checkpoint in it, name its folder: checkpoint-500$"):
        nz.load(tmp_path / "runs")


def test_a_tokenizer_is_found_beside_a_file_of_tensors_or_an_index(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    index = folder / "model.safetensors.index.fp16.json"
    index.write_text('{"weight_map": {"a": "model.fp16.safetensors"}}')
    ids = nz.encode(nz.load_tokenizer(), "房间")["input_ids"].tolist()
    for path in (folder / "model.fp16.safetensors", index):
        assert nz.encode(nz.load_tokenizer(path), "房间")["input_ids"].tolist() == ids
        assert main(["fill-mask", "房间很[MASK]净。", "--top-k", "1", "--model", str(path)]) == 0
        bundle = str(tmp_path / f"{path.name}.safetensors")
        words = ["--model", str(path), "--text", "房间", "--tolerances", "none", "-o", bundle]
        assert main(["golden", "record", *words]) == 0


# ------------------------------------------------------------------------------------------- paths that lead elsewhere


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "/etc/outside.safetensors",
        "inner/outside.safetensors",
        "..",
        ".",
        "",
        "./x.safetensors",
    ],
)
def test_an_index_that_names_a_file_of_another_folder_is_refused_before_it_is_opened(tmp_path, name):
    outside = put(tmp_path, filled()) / "model.safetensors"
    outside.rename(tmp_path / "outside.safetensors")
    folder = put_config(tmp_path / "folder")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(
        ValueError, match=r"index\.json: expected (the names of files in the same folder|files that end)"
    ):
        nz.load(folder)


def test_links_are_followed_as_in_a_cache_of_models(tmp_path):
    """In the cache of Hugging Face the files of a model are links to ../../blobs, whose names are hashes."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    shutil.copytree(SHIPPED, blobs)
    for number, file in enumerate(sorted(blobs.iterdir())):
        blob = file.rename(blobs / f"{number:064x}")
        try:
            (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
        except OSError:
            pytest.skip("this system lets no user make links")
    assert_same(nz.load(snapshot), nz.load())
    assert nz.encode(nz.load_tokenizer(snapshot), "房间")["input_ids"].shape == (1, 4)
    done = convert(snapshot, tmp_path / "converted")
    assert done.copied == ("vocab.txt", "tokenizer_config.json")
    assert not (tmp_path / "converted" / "vocab.txt").is_symlink()
    (snapshot / "model.safetensors").resolve().unlink()
    with pytest.raises(FileNotFoundError, match=r": these links lead to no file: model\.safetensors$"):
        nz.load(snapshot)


# ------------------------------------------------------------------------------------------------ texts made to deceive

DECEIT = "x\x1b[2K\x1b[1A\x9b31m\x7f\u202egnp.\u2066\ud800\n4 tensors\r"
ESCAPED = r"x\x1b[2K\x1b[1A\x9b31m\x7f\u202egnp.\u2066\ud800\n4 tensors\r"


def test_control_characters_are_written_as_codes_and_all_other_text_stays():
    assert printable(DECEIT) == ESCAPED
    assert listed([DECEIT, "干"]) == f"{ESCAPED}, 干"
    assert printable("房间很干净。 e\u0301 👩\u200d👩 ｱ\u3000") == "房间很干净。 e\u0301 👩\u200d👩 ｱ\u3000"


def test_inspect_prints_no_control_characters_out_of_a_file(tmp_path, capsys):
    name = DECEIT.replace("\ud800", "")
    config = NEZHA.replace(id2label={0: name, 1: "b"}, extra={"by": name, name: 1})
    folder = put(
        tmp_path,
        filled() | {name: np.ones(2, "float32"), f"{name}.embeddings.position_ids": np.ones(2, "float32")},
        config,
    )
    assert main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert CONTROLS.findall(out.replace("\n", "")) == []
    assert out.count(ESCAPED.replace(r"\ud800", "")) >= 4  # in the table, the list of names, the configuration twice
    assert not any(line.startswith("4 tensors") for line in out.splitlines())
    convert(folder, tmp_path / "converted")
    assert main(["convert", str(folder), str(tmp_path / "again")]) == 0
    assert CONTROLS.findall(capsys.readouterr().out.replace("\n", "")) == []


def messages(tmp_path: Path) -> Iterator[Callable[[], object]]:
    """Yield calls that are refused with a name out of a file in the message."""
    name = DECEIT.replace("\ud800", "")
    one = np.ones(2, "float32")
    yield lambda: nz.load(put(tmp_path / "twice", prefixed(filled(), "model.") | {f"model.{name}": one, name: one}))
    yield lambda: nz.load(put(tmp_path / "two", {f"{name}{n}.embeddings.word_embeddings.weight": one for n in "12"}))
    yield lambda: nz.load(put_npz(tmp_path / "npz", {name.replace("\x1b", "é"): np.array([{}], dtype=object)}))
    index = {"weight_map": {"a": f"{name}.h5"}}
    folder = put_config(tmp_path / "index")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    yield lambda: nz.load(folder)
    strange = put(tmp_path / "strange", filled() | {f"{name}.position_embeddings.weight": one})
    yield lambda: nz.load(strange)
    yield lambda: nz.load(put(tmp_path / "config", filled(), {**NEZHA.to_dict(), "hidden_act": name}))


def test_errors_print_no_control_characters_out_of_a_file(tmp_path):
    for call in messages(tmp_path):
        with pytest.raises(ValueError) as caught:
            call()
        assert CONTROLS.findall(str(caught.value)) == [] and r"\x9b" in str(caught.value), caught.value


def test_commands_print_no_control_characters_out_of_a_vocabulary_or_a_bundle(tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8")
    (folder / "vocab.txt").write_text(vocabulary.replace("\n干\n", "\n干\x1b[31m\u202e\n"), encoding="utf-8")
    assert main(["fill-mask", "房间很[MASK]净。", "--top-k", "1", "--model", str(folder)]) == 0
    assert capsys.readouterr().out == "干\\x1b[31m\\u202e 0.984\n"
    bundle = nz.oracle.record(NEZHA, [[2, 3]], tolerances=None)
    theirs = {**bundle.arrays, "x\x9b2J\u2066": np.ones(2)}
    bundle.save(tmp_path / "golden.safetensors")
    np.savez(tmp_path / "theirs.npz", **theirs)
    files = [str(tmp_path / name) for name in ("golden.safetensors", "theirs.npz")]
    for more in ([], ["--json"], ["--verbose"]):
        main(["golden", "check", *files, "--tolerance", "1e-5", *more])
        out = capsys.readouterr().out
        assert CONTROLS.findall(out.replace("\n", "")) == []
        assert r"\x9b" in out or r"\u009b" in out
    assert json.loads(format_json({"x\x9b\u2066": "\x1b\n"})) == {"x\x9b\u2066": "\x1b\n"}


# ------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("id2label", [{"0": "差", "1": "好"}, {0: "差", 1: "好"}, ["差", "好"], ("差", "好")])
@pytest.mark.parametrize("label2id", [None, {"差": 0, "好": 1}, {"差": "0", "好": "1"}, {"差": " 0", "好": "+1"}])
def test_labels_may_be_a_list_and_their_numbers_texts(id2label, label2id):
    values = {**NEZHA.to_dict(), "id2label": id2label, "label2id": label2id, "num_labels": 2}
    config = config_from_dict(json.loads(json.dumps(values, ensure_ascii=False)))
    assert config == NEZHA.replace(id2label={0: "差", 1: "好"})
    assert (config.id2label, config.label2id) == ({0: "差", 1: "好"}, {"差": 0, "好": 1})
    written = config.to_dict()  # as the reference reads them
    assert (written["id2label"], written["label2id"]) == ({0: "差", 1: "好"}, {"差": 0, "好": 1})


@pytest.mark.parametrize("number", ["差", "", "0.5", "1" * 5000])
def test_a_label_whose_number_is_none_is_named(number):
    with pytest.raises(ValueError, match=r"^label2id: expected a whole number for each label, got '.*' for '差'$"):
        NEZHA.replace(label2id={"差": number})
