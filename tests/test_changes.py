"""Folders of changed tensors: the base with them in place, for every command, and no other base."""

import json
import shutil
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.training.finetune import finetune, predict
from nezha_np.weights.base import CHECKPOINTS
from nezha_np.weights.changes import save_changes

SIZES = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
CONFIGS = {"nezha": nz.NezhaConfig(**SIZES, max_relative_position=4), "bert": nz.BertConfig(**SIZES)}
TOP = "encoder.layer.1."


def changed(weights, names, amount=0.5):
    tensors = {name: array + np.float32(amount) if name in names else array for name, array in weights.items()}
    return nz.Weights(tensors, weights.config)


def make_base(folder, family="nezha", dtype="float32", task="pretraining"):
    nz.init(CONFIGS[family], task, seed=3).to(dtype=dtype).save(folder)
    return nz.load(folder)


def assert_same(one, other):
    assert sorted(one) == sorted(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_folder_is_the_base_with_the_changed_tensors_in_place(family, dtype, tmp_path):
    base = make_base(tmp_path / "base", family, dtype)
    with pytest.warns(nz.HeadWarning, match="drawn with seed 0"):
        with_head = nz.load(tmp_path / "base", head="token_classification", id2label=["O", "B-PER", "I-PER"])
    trained = changed(with_head, {name for name in base if name.startswith(TOP)})
    names = save_changes(trained, tmp_path / "names", tmp_path / "base")
    assert {name for name in names if not name.startswith(TOP)} == {"classifier.weight", "classifier.bias"}
    stored = load_file(tmp_path / "names" / "changes.safetensors")
    assert sorted(stored) == sorted(names) and {str(array.dtype) for array in stored.values()} == {dtype}
    loaded = nz.load(tmp_path / "names", dtype=None)
    assert str(loaded.dtype) == dtype and loaded.config.id2label == {0: "O", 1: "B-PER", 2: "I-PER"}
    assert_same(loaded, trained.to(dtype=dtype))
    assert_same(nz.load(tmp_path / "names" / "changes.safetensors", dtype=None), loaded)


def test_a_tensor_with_two_names_in_the_base_is_changed_under_both(tmp_path):
    base = make_base(tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    tensors["cls.predictions.decoder.weight"] = tensors["nezha.embeddings.word_embeddings.weight"].copy()
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].copy()
    save_file({f"outer.{name}": array for name, array in tensors.items()}, file, metadata={"format": "pt"})
    names = {"embeddings.word_embeddings.weight", "cls.predictions.bias"}
    trained = changed(base, names)
    assert set(save_changes(trained, tmp_path / "changes", tmp_path / "base")) == names
    assert_same(nz.load(tmp_path / "changes"), trained)


def test_another_base_is_refused_and_so_is_one_that_is_not_there(tmp_path):
    base = make_base(tmp_path / "base")
    trained = changed(base, {"pooler.dense.bias"})
    save_changes(trained, tmp_path / "changes", tmp_path / "base")
    shutil.copytree(tmp_path, tmp_path / "moved")  # both together may be moved
    assert_same(nz.load(tmp_path / "moved" / "changes"), trained)
    changed(base, {"pooler.dense.weight"}).save(tmp_path / "base")
    with pytest.raises(ValueError, match=r"changes\.safetensors: .* with SHA-256 [0-9a-f]{64}, got another one in"):
        nz.load(tmp_path / "changes")
    assert main(["inspect", str(tmp_path / "changes")]) == 2
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(FileNotFoundError, match=r"expected the model whose tensors were changed in .*base, found none"):
        nz.load(tmp_path / "changes")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"shipped": "../nezha-tiny-zh"},
        {"shipped": ".."},
        {"base": "/etc"},
        {"base": "\\\\host\\share"},
        {"base": ""},
    ],
)
def test_metadata_that_name_no_base_are_refused(metadata, tmp_path):
    save_file({"pooler.dense.bias": np.zeros(8, np.float32)}, tmp_path / "changes.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="expected metadata that name the model whose tensors were changed, got"):
        nz.load(tmp_path)


def test_changes_are_of_a_whole_model_that_has_no_tensor_more(tmp_path):
    base = make_base(tmp_path / "base")
    save_changes(changed(base, {"pooler.dense.bias"}), tmp_path / "one", tmp_path / "base")
    with pytest.raises(ValueError, match="base: expected a whole model, got changes of one"):
        save_changes(base, tmp_path / "two", tmp_path / "one")
    backbone = nz.Weights({name: array for name, array in base.items() if not name.startswith("cls.")}, base.config)
    with pytest.raises(
        ValueError, match=r"weights: expected every tensor of the base, found no cls\.predictions\.bias"
    ):
        save_changes(backbone, tmp_path / "two", tmp_path / "base")
    with pytest.raises(ValueError, match=r"path: expected a folder, got .*two\.safetensors"):
        save_changes(base, tmp_path / "two.safetensors", tmp_path / "base")
    file = tmp_path / "one" / "changes.safetensors"
    tensors, loop = load_file(file), {"base": ".", "base_sha256": "0"}
    save_file(tensors, file, metadata=loop)
    with pytest.raises(FileNotFoundError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        nz.load(tmp_path / "one")


def test_converting_a_folder_of_changes_makes_a_whole_model_and_inspect_lists_every_tensor_once(tmp_path, capsys):
    trained = changed(make_base(tmp_path / "base"), {"pooler.dense.bias"})
    save_changes(trained, tmp_path / "changes", tmp_path / "base")
    assert main(["convert", str(tmp_path / "changes"), str(tmp_path / "whole")]) == 0
    assert_same(nz.load(tmp_path / "whole"), trained)
    assert sorted(file.name for file in (tmp_path / "whole").iterdir()) == ["config.json", "model.safetensors"]
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "changes")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("pooler.dense.bias ")]) == 1
    assert any(line.startswith(f"{len(trained)} tensors, ") for line in lines)


def test_a_fine_tuned_top_is_small_and_belongs_to_the_shipped_model(tmp_path):
    lines = [f"房间很{'干净' if number % 2 else '脏'}{'。' * (number % 5)}\t{number % 2}\n" for number in range(40)]
    (tmp_path / "train.tsv").write_text("".join(lines), encoding="utf-8")
    layers = [f"encoder.layer.{number}.**" for number in range(nz.load().config.num_hidden_layers - 1)]
    command = ["finetune", str(tmp_path / "train.tsv"), "-o", str(tmp_path / "run"), "--task", "classify"]
    options = ["--epochs", "1", "--max-length", "16", "--freeze", "embeddings.**", *layers]
    assert main([*command, *options, "--save-changes"]) == 0
    assert not (tmp_path / "run" / "model.safetensors").exists()
    whole = sum(file.stat().st_size for file in CHECKPOINTS.glob("*/model.safetensors"))
    assert (tmp_path / "run" / "changes.safetensors").stat().st_size < min(2_000_000, whole / 3)
    weights = nz.load(tmp_path / "run")
    batch = nz.encode(nz.load_tokenizer(tmp_path / "run"), ["房间很脏"])
    assert nz.sequence_classification(weights, **batch).logits.shape == (1, 2)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere" / "run")  # the shipped model is found by its name
    assert_same(nz.load(tmp_path / "elsewhere" / "run"), weights)
    with pytest.raises(ValueError, match="save_changes: True in the run, False now"):
        main_options = {"epochs": 1, "max_length": 16, "freeze": ["embeddings.**", *layers]}
        finetune("classify", tmp_path / "train.tsv", tmp_path / "elsewhere" / "run", **main_options)
    settings = json.loads((tmp_path / "elsewhere" / "run" / "config.json").read_text(encoding="utf-8"))
    assert settings["architectures"] == ["NezhaForSequenceClassification"]


def test_what_is_measured_is_the_rounded_model_that_is_saved_and_training_goes_on_without_rounding(tmp_path):
    lines = [f"房间很{'干净' if number % 2 else '脏'}\t{number % 2}\n" for number in range(20)]
    (tmp_path / "train.tsv").write_text("".join(lines), encoding="utf-8")
    options = {"epochs": 1, "max_length": 16, "batch_size": 4, "freeze": "embeddings.**"}
    seen = []

    def predict_and_note(weights, *arguments):
        seen.append({name: array.copy() for name, array in weights.items()})
        return predict(weights, *arguments)

    with mock.patch("nezha_np.training.finetune.predict", predict_and_note):
        for save_changes in (True, False):
            finetune(
                "classify", tmp_path / "train.tsv", tmp_path / str(save_changes), save_changes=save_changes, **options
            )
    rounded, exact = seen
    assert_same(nz.load(tmp_path / "True"), rounded)
    assert_same(nz.load(tmp_path / "False"), exact)
    assert any((rounded[name] != array).any() for name, array in exact.items())
    (last,) = (tmp_path / "True").glob("step-*")
    assert_same(nz.load(last), exact)


def test_what_ships_beside_the_model_is_small_and_belongs_to_it():
    for file in CHECKPOINTS.glob("*/*/changes.safetensors"):
        assert sum(one.stat().st_size for one in file.parent.iterdir()) <= 2_000_000
        weights, tokenizer = nz.load(file.parent), nz.load_tokenizer(file.parent)
        head = {"sentiment": nz.sequence_classification, "names": nz.token_classification}[file.parent.name]
        logits = head(weights, **nz.encode(tokenizer, ["江泽民在北京"])).logits
        assert logits.shape[-1] == len(weights.config.id2label)


def test_embeddings_and_as_much_of_the_lowest_layers_as_must_be_are_frozen():
    from make_shipped_tasks import PARTS, frozen

    weights = nz.init(CONFIGS["nezha"], "pretraining")

    def size(prefix):
        return 2 * sum(array.size for name, array in weights.items() if name.startswith(prefix))

    everything = size("encoder.") + size("pooler.")
    lowest = [f"encoder.layer.0.{part}.**" for part in PARTS]
    assert frozen(weights, everything) == ["embeddings.**"]
    assert frozen(weights, everything - 1) == ["embeddings.**", lowest[0]]
    assert frozen(weights, everything - size("encoder.layer.0.")) == ["embeddings.**", *lowest]
