"""Files as people have them: other prefixes, other formats, files that were never fetched, texts made to deceive."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_checkpoint import CONFIGS, NEZHA, assert_same, filled, prefixed, put, put_npz, put_torch, tensorflow_name

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.families.parameters import task_shapes
from nezha_np.weights.checkpoint import read_headers
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
