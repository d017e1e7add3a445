"""Checkpoints people have: PyTorch's and NumPy's files, older names, saved tables, and one family taken for another."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.families.bert import BertConfig
from nezha_np.families.config import Config
from nezha_np.families.convbert import ConvBertConfig
from nezha_np.families.parameters import backbone_shapes, pretraining_shapes
from nezha_np.layers.relative_position import relative_position_table
from nezha_np.weights.checkpoint import list_files, read_headers
from nezha_np.weights.formats.entry import Deflated, Entry, map_tensors
from nezha_np.weights.formats.npz import read_header as read_npz_header
from nezha_np.weights.names import name_tensor, wrong_family

SIZES: dict[str, Any] = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 6,
    "max_position_embeddings": 16,
}
CONFIGS: dict[str, Config] = {
    "nezha": nz.NezhaConfig(**SIZES, max_relative_position=3),
    "bert": BertConfig(**SIZES),
    "convbert": ConvBertConfig(**SIZES, embedding_size=4, head_ratio=1, conv_kernel_size=3, pad_token_id=0),
    "convbert-groups": ConvBertConfig(**SIZES, embedding_size=8, head_ratio=2, conv_kernel_size=3, num_groups=2),
}
NEZHA = CONFIGS["nezha"]
TABLE = "encoder.layer.{}.attention.self.relative_positions_encoding.positions_encoding"


def filled(config: Config = NEZHA, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Fill every tensor that a model is pretrained with by numbers that matter."""
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=shape).astype(dtype) for name, shape in pretraining_shapes(config).items()}


def prefixed(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {
        prefix + name if name.startswith(("embeddings", "encoder.", "pooler.")) else name: array
        for name, array in tensors.items()
    }


def put_config(folder: Path, config: Config | Mapping[str, Any] = NEZHA) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = config.to_dict() if isinstance(config, Config) else dict(config)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def put(folder: Path, tensors: Mapping[str, np.ndarray], config: Config | Mapping[str, Any] = NEZHA) -> Path:
    """Write a checkpoint of safetensors under these names."""
    put_config(folder, config)
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()}
    safetensors.numpy.save_file(contiguous, folder / "model.safetensors")
    return folder


def put_npz(folder: Path, tensors: Mapping[str, np.ndarray], config: Config = NEZHA, name: str = "model.npz") -> Path:
    put_config(folder, config)
    np.savez(folder / name, **tensors)
    return folder / name


def put_torch(
    folder: Path, tensors: Mapping[str, Any], config: Config = NEZHA, name: str = "pytorch_model.bin"
) -> Path:
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    put_config(folder, config)
    torch.save({key: torch.as_tensor(value) for key, value in tensors.items()}, folder / name)
    return folder / name


def assert_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Check that names, dtypes, shapes, order and every bit are the same."""
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name
        assert found[name].flags.c_contiguous and not found[name].flags.writeable, name


# -------------------------------------------------------------------------------------------- files of other formats


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickles"])
@pytest.mark.parametrize("family", CONFIGS)
def test_what_transformers_saves_as_pytorch_model_bin_is_loaded(tmp_path, family, zipped):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    transformers = pytest.importorskip("transformers", reason="it writes these files")
    config = CONFIGS[family]
    kind = {"nezha": "NezhaForPreTraining", "bert": "BertForPreTraining"}.get(family, "ConvBertForMaskedLM")
    model = getattr(transformers, kind)(getattr(transformers, type(config).__name__)(**config.to_dict()))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path, safe_serialization=False)
    assert [file.name for file in list_files(tmp_path)] == ["pytorch_model.bin"]
    if not zipped:
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    weights = nz.load(tmp_path)
    assert weights.config.model_type == config.model_type
    theirs = {re.sub(r"^(nezha|bert|convbert)\.", "", name): value for name, value in model.named_parameters()}
    theirs.pop("cls.predictions.decoder.bias", None)
    assert_same(weights, {name: value.detach().numpy() for name, value in theirs.items()})
    assert set(weights) == set(pretraining_shapes(config))
    assert_same(nz.load(tmp_path / "pytorch_model.bin"), weights)


def test_shards_of_pytorch_model_bin_are_loaded(tmp_path):
    transformers = pytest.importorskip("transformers", reason="it writes these files")
    model = transformers.NezhaForPreTraining(transformers.NezhaConfig(**NEZHA.to_dict()))
    model.save_pretrained(tmp_path / "shards", safe_serialization=False, max_shard_size="2KB")
    model.save_pretrained(tmp_path / "whole", safe_serialization=False)
    assert len(list_files(tmp_path / "shards")) > 2
    assert_same(nz.load(tmp_path / "shards"), nz.load(tmp_path / "whole"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "nezha.pt", "nezha.pth", "学生.bin"])
def test_a_file_of_pytorch_is_loaded_by_its_name(tmp_path, name):
    assert_same(nz.load(put_torch(tmp_path, prefixed(filled(), "bert."), name=name)), filled())


def test_safetensors_come_before_pytorch_and_both_before_nothing_else(tmp_path):
    tensors = filled()
    put_torch(tmp_path, {name: array + 1 for name, array in tensors.items()})
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "other.bin"}}')
    assert [file.name for file in list_files(tmp_path)] == ["pytorch_model.bin"]
    put(tmp_path, tensors)
    assert_same(nz.load(tmp_path), tensors)
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {"a": "pytorch_model.bin"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [file.name for file in list_files(tmp_path)] == ["pytorch_model.bin"]
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "weights.h5"}}')
    with pytest.raises(ValueError, match=r"index\.json: expected files that end in .*, got weights\.h5$"):
        list_files(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", None])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
def test_every_dtype_of_a_file_of_pytorch_is_converted_to_the_asked_one(tmp_path, kind, dtype):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    tensors = {name: torch.as_tensor(array).to(getattr(torch, kind)) for name, array in filled().items()}
    weights = nz.load(put_torch(tmp_path, tensors), dtype=dtype)
    wanted = dtype or {"bfloat16": "float32"}.get(kind, kind)
    assert_same(weights, {name: value.to(getattr(torch, wanted)).numpy() for name, value in tensors.items()})


def test_views_and_shared_storages_are_loaded_in_rows(tmp_path):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    tensors = {name: torch.as_tensor(array) for name, array in filled().items()}
    query, key = (f"encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key"))
    both = torch.randn(8, 16)
    views = {query: both[:, :8].T, key: both[:, 8:], "embeddings.LayerNorm.weight": torch.ones(1).expand(8)}
    weights = nz.load(put_torch(tmp_path, tensors | views))
    assert_same(weights, {name: value.contiguous().numpy() for name, value in (tensors | views).items()})


def test_a_file_of_pytorch_is_mapped_and_not_copied(tmp_path):
    weights = nz.load(put_torch(tmp_path, filled()))
    for array in weights.values():
        assert not array.flags.owndata


def test_a_hostile_file_is_refused_by_load(tmp_path):
    put_config(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch was-run'\ntR.")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: expected tensors alone, .* call os\.system\('touch"):
        nz.load(tmp_path)
    assert not Path("was-run").exists()


def test_what_was_not_fetched_is_named(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0a1b\nsize 1234\n"
    for name in ("model.safetensors", "pytorch_model.bin"):
        (put_config(tmp_path) / name).write_bytes(pointer)
        with pytest.raises(ValueError, match=rf"{re.escape(name)}: .*Git LFS pointer"):
            nz.load(tmp_path / name)


def test_a_folder_without_a_checkpoint_says_what_to_do(tmp_path):
    (tmp_path / "bert_model.ckpt.data-00000-of-00001").touch()
    with pytest.raises(FileNotFoundError, match=r"of TensorFlow can be loaded once its variables are in an \.npz file"):
        nz.load(tmp_path)
    (tmp_path / "nezha.npz").touch()
    (tmp_path / "nezha.pt").touch()
    with pytest.raises(FileNotFoundError, match=r"to load one of its files, name it: nezha\.npz, nezha\.pt$"):
        nz.load(tmp_path)


def test_a_missing_config_says_what_to_do(tmp_path):
    file = put_npz(tmp_path, filled())
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json: expected a config\.json, .* model was published with"):
        nz.load(file)
    (tmp_path / "tokenizer_config.json").touch()
    (tmp_path / "bert_config.json").touch()
    with pytest.raises(FileNotFoundError, match=r"found no such file: rename bert_config\.json$"):
        nz.load(file)


@pytest.mark.parametrize("family", CONFIGS)
def test_an_npz_file_is_loaded(tmp_path, family):
    config = CONFIGS[family]
    tensors = filled(config, "float64")
    tensors["embeddings.word_embeddings.weight"] = np.asfortranarray(tensors["embeddings.word_embeddings.weight"])
    others = {"global_step": np.array(5), "names": np.array(["a", "b"]), "z": np.zeros(2, complex)}
    weights = nz.load(put_npz(tmp_path, tensors | others, config), dtype=None)
    assert_same(weights, tensors)


def test_a_compressed_npz_file_is_loaded_and_each_saved_table_in_it_inflated_once(tmp_path, monkeypatch):
    turned = {"embeddings.word_embeddings.weight": np.asfortranarray(filled()["embeddings.word_embeddings.weight"])}
    tables = {TABLE.format(layer): table() for layer in range(2)}
    put_config(tmp_path)
    np.savez_compressed(tmp_path / "x.npz", **filled() | turned | tables)
    assert_same(nz.load(tmp_path / "x.npz"), filled())
    inflated = []
    right = Deflated.inflate
    monkeypatch.setattr(Deflated, "inflate", lambda self, *given: inflated.append(self) or right(self, *given))
    nz.load(tmp_path / "x.npz")
    assert len(inflated) <= 2 * len(filled() | tables)  # the header of each, and its numbers


def test_an_npz_file_that_holds_objects_is_refused(tmp_path):
    put_config(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"x\.npy: expected numbers, got pickled Python objects, which are"):
        nz.load(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", **filled() | {"embeddings.LayerNorm.bias": np.zeros(8, ">f4")})
    with pytest.raises(ValueError, match=r"expected tensors of floats, got embeddings\.LayerNorm\.bias \(>f4\)"):
        nz.load(tmp_path / "x.npz")


@pytest.mark.exhaustive
def test_an_npz_file_cut_or_changed_anywhere_is_read_or_refused_by_a_value_error(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(6.0).reshape(2, 3).T, b=np.array(5))
    content = path.read_bytes()

    def judge(content: bytes) -> bool:
        path.write_bytes(content)
        try:
            entries = read_npz_header(path)
            tensors = map_tensors(path, entries)
        except ValueError as error:
            assert str(error).startswith(f"{path}: expected ")
            return False
        assert all(tensors[name].shape == entry.shape for name, entry in entries.items())
        return True

    assert judge(content)
    assert not any(judge(content[:length]) for length in range(len(content)))
    for place in range(len(content)):
        for bits in (0xFF, 0x01, 0x10):
            judge(content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :])
    header = content.index(b"{'descr'")
    deep = b"(" * 100 + b" " * (content.index(b"\n", header) - header - 100)
    assert not judge(content[:header] + deep + content[header + len(deep) :])


def test_a_missing_npz_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected an \.npz file, found no such file"):
        read_npz_header(tmp_path / "x.npz")


# ----------------------------------------------------------------------------------------------------- TensorFlow names

TENSORFLOW = {
    "bert/embeddings/word_embeddings": "embeddings.word_embeddings.weight",
    "bert/embeddings/LayerNorm/gamma": "embeddings.LayerNorm.weight",
    "bert/encoder/layer_0/attention/self/query/kernel": "encoder.layer.0.attention.self.query.weight",
    "bert/encoder/layer_11/attention/output/LayerNorm/beta": "encoder.layer.11.attention.output.LayerNorm.bias",
    "nezha/encoder/layer_3/intermediate/dense/bias:0": "encoder.layer.3.intermediate.dense.bias",
    "bert/pooler/dense/kernel": "pooler.dense.weight",
    "cls/predictions/transform/dense/kernel": "cls.predictions.transform.dense.weight",
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
    "cls/squad/output_weights": "qa_outputs.weight",
    "output_weights": "classifier.weight",
    "output_bias": "classifier.bias",
    "electra/embeddings_project/kernel": "embeddings_project.weight",
    "electra/encoder/layer_0/attention/self/value/bias": "encoder.layer.0.attention.self.value.bias",
    "a/conv_attn_key/depthwise_kernel": "a.key_conv_attn_layer.depthwise.weight",
    "a/conv_attn_key/bias": "a.key_conv_attn_layer.bias",
    "a/conv_attn_kernel/bias": "a.conv_kernel_layer.bias",
    "a/conv_attn_point/kernel": "a.conv_out_layer.weight",
    "a/g_dense/kernel": "a.dense.weight",
    "generator_predictions/dense/kernel": "generator_predictions.dense.weight",
    "generator_predictions/output_bias": "generator_lm_head.bias",
    "generator_lm_head/bias": "generator_lm_head.bias",
}  # fmt: skip


@pytest.mark.parametrize(("raw", "name"), TENSORFLOW.items())
def test_names_of_tensorflow_become_ours(raw, name):
    assert name_tensor(raw, Entry("F32", (3,), 0, 12))[0] == name


@pytest.mark.parametrize(
    "raw",
    [
        "global_step",
        "global_step:0",
        "beta1_power",
        "bert/pooler/dense/kernel/adam_m",
        "bert/pooler/dense/kernel/adam_v:0",
        "bert/pooler/dense/kernel/Adam_1",
        "bert/pooler/dense/kernel/AdamWeightDecayOptimizer_1",
        "bert/pooler/dense/kernel/lamb_v",
        "current_loss_scale",
        "embeddings.position_ids",
        "module.bert.embeddings.token_type_ids",
        f"nezha.{TABLE.format(0)}",
    ],
)
def test_what_is_the_optimisers_or_computed_has_no_name(raw):
    assert name_tensor(raw, Entry("F32", (2, 2), 0, 16)) is None


def tensorflow_name(name: str, array: np.ndarray, groups: bool) -> tuple[str, np.ndarray]:
    """Give a tensor the authors' name and layout (transformers load_tf_weights_in_bert and …_in_convbert)."""
    convbert = groups is not None
    for old, new in (
        ("cls.predictions.bias", "cls.predictions.output_bias"),
        ("cls.seq_relationship.weight", "cls.seq_relationship.output_weights"),
        ("cls.seq_relationship.bias", "cls.seq_relationship.output_bias"),
        ("key_conv_attn_layer.depthwise.weight", "conv_attn_key.depthwise_kernel"),
        ("key_conv_attn_layer.pointwise.weight", "conv_attn_key.pointwise_kernel"),
        ("key_conv_attn_layer", "conv_attn_key"),
        ("conv_kernel_layer", "conv_attn_kernel"),
        ("conv_out_layer", "conv_attn_point"),
        ("LayerNorm.weight", "LayerNorm.gamma"),
        ("LayerNorm.bias", "LayerNorm.beta"),
        ("_embeddings.weight", "_embeddings"),
    ):
        name = name.replace(old, new)
    name = re.sub(r"layer\.(\d+)", r"layer_\1", name)
    if name.endswith("conv_attn_key.bias"):
        array = array[:, 0]
    elif name.endswith("depthwise_kernel"):
        array = array.transpose(2, 0, 1)
    elif name.endswith("pointwise_kernel"):
        array = array.transpose(2, 1, 0)
    elif name.endswith(".weight"):
        name = name.removesuffix("weight") + "kernel"
        array = array.T if array.ndim == 2 else array
    if groups:
        name = re.sub(r"(layer_\d+\.(?:intermediate|output))\.dense", r"\1.g_dense", name)
    name = name.replace(".", "/")
    if name.startswith(("embeddings", "encoder", "pooler")):
        name = ("electra/" if convbert else "bert/") + name
    return name, np.array(array, order="C")


@pytest.mark.parametrize("form", ["npz", "safetensors"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_checkpoint_with_tensorflows_names_is_loaded(tmp_path, family, form):
    config = CONFIGS[family]
    groups = family == "convbert-groups" if family.startswith("convbert") else None
    tensors = filled(config)
    theirs = dict(tensorflow_name(name, array, groups) for name, array in tensors.items())
    slots = {f"{name}/adam_{slot}": array for name, array in theirs.items() for slot in "mv"}
    theirs |= slots | {"global_step": np.array(1_000_000), "beta1_power": np.array(0.9, np.float32)}
    path = put_npz(tmp_path, theirs, config) if form == "npz" else put(tmp_path, theirs, config)
    weights = nz.load(path)
    assert_same(weights, tensors)
    ids = np.array([[2, 5, 7, 3]])
    own = nz.Weights(tensors, config)
    np.testing.assert_array_equal(nz.masked_lm(weights, ids).logits, nz.masked_lm(own, ids).logits)


def test_the_reference_loads_the_same_convbert_of_tensorflow(tmp_path, monkeypatch):
    """Run transformers' own conversion, on a stand-in for TensorFlow that hands it our arrays."""
    import sys
    import types

    pytest.importorskip("torch", reason="the reference is PyTorch's")
    transformers = pytest.importorskip("transformers", reason="the reference")
    from transformers.models.convbert.modeling_convbert import load_tf_weights_in_convbert

    for family in ("convbert", "convbert-groups"):
        config = CONFIGS[family]
        tensors = {name: array for name, array in filled(config).items() if name in backbone_shapes(config)}
        theirs = dict(tensorflow_name(name, array, family.endswith("groups")) for name, array in tensors.items())
        reader = types.SimpleNamespace(
            list_variables=lambda path, theirs=theirs: [(name, array.shape) for name, array in theirs.items()],
            load_variable=lambda path, name, theirs=theirs: theirs[name],
        )
        monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(train=reader))
        theirs_in_numpy = put_npz(tmp_path / family, theirs, config)
        # The reference looks for the projection even where there is none.
        model = transformers.ConvBertModel(transformers.ConvBertConfig(**config.to_dict()))
        load_tf_weights_in_convbert(model, model.config, "x")
        found = {name: value.detach().numpy() for name, value in model.named_parameters()}
        ours = nz.load(theirs_in_numpy)
        assert set(found) == set(ours)
        for name, array in found.items():
            np.testing.assert_array_equal(array, ours[name], err_msg=name)


# ------------------------------------------------------------------------------------------------- prefixes of wrappers


@pytest.mark.parametrize("prefix", ["module.", "module.nezha.", "_orig_mod.module.bert.", "bert.", "nezha."])
def test_the_prefixes_of_wrappers_go(tmp_path, prefix):
    assert_same(nz.load(put(tmp_path, prefixed(filled(), prefix))), filled())


def test_the_prefix_of_convbert_goes(tmp_path):
    config = CONFIGS["convbert"]
    assert_same(nz.load(put(tmp_path, prefixed(filled(config), "convbert."), config)), filled(config))


# ------------------------------------------------------------------------------------------------ saved position tables


def table(length: int = 16, size: int = 4, reach: int = 3) -> np.ndarray:
    """Make a table as files have it, (L, L, D)."""
    rows = relative_position_table(np.zeros(1), head_size=size, max_relative_position=reach)
    position = np.arange(length)
    return rows[np.clip(position - position[:, None], -reach, reach) + reach].astype(np.float32)


def with_tables(saved: np.ndarray, layers: int = 2) -> dict[str, np.ndarray]:
    return prefixed(filled() | {TABLE.format(layer): saved for layer in range(layers)}, "bert.")


@pytest.mark.parametrize("size", [4, 64])
@pytest.mark.parametrize("reach", [1, 3, 64, 127, 500])
def test_the_references_own_table_passes(tmp_path, size, reach):
    pytest.importorskip("torch", reason="the reference is PyTorch's")
    transformers = pytest.importorskip("transformers", reason="it makes such tables")
    encoding = transformers.models.nezha.modeling_nezha.NezhaRelativePositionsEncoding
    config = NEZHA.replace(max_relative_position=reach, hidden_size=2 * size)
    saved = encoding(length=20, depth=size, max_relative_position=reach).positions_encoding
    tensors = filled(config) | {TABLE.format(0): saved.numpy()}
    assert_same(nz.load(put(tmp_path, tensors, config)), filled(config))


def test_tables_as_the_circulating_files_have_them_are_dropped(tmp_path):
    torch = pytest.importorskip("torch", reason="torch.save writes these files")
    saved = torch.as_tensor(table())
    for name, value in {
        "float32": saved,
        "float16": saved.half(),
        "bfloat16": saved.bfloat16(),
        "float64": saved.double(),
        "turned": saved.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    }.items():
        path = put_torch(tmp_path / name, with_tables(value))
        assert_same(nz.load(path), filled())
    one = put_torch(tmp_path / "one length", with_tables(torch.as_tensor(table(1))))
    assert_same(nz.load(one), filled())


def bad_tables() -> dict[str, tuple[np.ndarray, str]]:
    rows = table()
    halves = np.concatenate([rows[..., 0::2], rows[..., 1::2]], axis=-1)
    turned = rows.transpose(1, 0, 2)
    nan, one = rows.copy(), rows.copy()
    nan[0, 5, 1], one[15, 2, 3] = np.nan, one[15, 2, 3] + 0.001
    return {
        "sines and cosines in halves": (halves, "computes positions in another way"),
        "query − key": (turned, "computes positions in another way"),
        "zeros": (np.zeros_like(rows), "with a largest difference of 1: what made"),
        "not a number": (nan, "with a largest difference of nan"),
        "one number": (one, "with a largest difference of 0.001"),
        "a larger K": (table(reach=5), 'it is that of "max_relative_position": 5, which belongs into config.json'),
        "a smaller K": (table(reach=2), 'it is that of "max_relative_position": 2, which belongs into config.json'),
        "the authors' K": (table(reach=64), '"max_relative_position": 64'),
    }


@pytest.mark.parametrize(("saved", "said"), bad_tables().values(), ids=bad_tables())
def test_a_different_table_is_refused_with_the_difference(tmp_path, saved, said):
    for tensors in (with_tables(saved), with_tables(table()) | {f"bert.{TABLE.format(1)}": saved}):
        with pytest.raises(ValueError, match="expected the table of relative positions for max_relative_position 3"):
            nz.load(put(tmp_path, tensors))
    with pytest.raises(ValueError, match=re.escape(said)):
        nz.load(put(tmp_path, with_tables(saved)))


@pytest.mark.parametrize(("dtype", "rounding"), [("float64", 0.0), ("float32", 0.0), ("float16", 2.0**-11)])
@pytest.mark.parametrize("reach", [1, 3, 7])
def test_a_table_may_be_off_by_the_roundings_of_its_angles_and_of_its_dtype_and_by_no_more(
    tmp_path, reach, dtype, rounding
):
    config = NEZHA.replace(max_relative_position=reach)
    allowed = (2 * reach + 1) * 2.0**-22 + rounding  # angles of up to 2K in float32, then numbers of up to 1
    for part in (0.9, 1.1):
        saved = table(reach=reach).astype("float64")
        assert saved[-1, 0, 0] == 0.0  # the sine of 0: beside it float16 has all digits of a small difference
        saved[-1, 0, 0] = part * allowed
        folder = put(tmp_path / str(part), filled(config) | {TABLE.format(0): saved.astype(dtype)}, config)
        if part < 1:
            assert_same(nz.load(folder), filled(config))
        else:
            with pytest.raises(ValueError, match="expected the table of relative positions"):
                nz.load(folder)


@pytest.mark.parametrize(
    "saved",
    [table(size=8), table()[:15], table()[0], np.zeros((0, 0, 4), np.float32), np.zeros(()), table().astype(np.int64)],
    ids=lambda saved: f"{saved.shape} {saved.dtype}",
)
def test_a_table_of_a_wrong_shape_or_type_is_refused(tmp_path, saved):
    message = r"expected a table of relative positions of shape \(length, length, 4\), as hidden_size / num_attention"
    with pytest.raises(ValueError, match=message):
        nz.load(put(tmp_path, with_tables(saved)))


# -------------------------------------------------------------------------------------- one family taken for another


@pytest.mark.parametrize("held", ["nezha", "bert", "convbert"])
@pytest.mark.parametrize("said", ["nezha", "bert", "convbert"])
def test_one_family_taken_for_another_is_refused_with_what_to_change(tmp_path, held, said):
    titles = {"nezha": "NEZHA", "bert": "BERT", "convbert": "ConvBERT"}
    for prefix in ("", f"{held}.", "bert."):
        folder = put(tmp_path, prefixed(filled(CONFIGS[held]), prefix), CONFIGS[said])
        if held == said:
            nz.load(folder)
            continue
        with pytest.raises(ValueError) as caught:
            nz.load(folder)
        message = str(caught.value)
        assert message.startswith(f"{folder}: expected the tensors of {titles[said]}, as config.json says, got what ")
        assert f"looks like {titles[held]}, because " in message and f'set "model_type": "{held}"' in message
        assert message.endswith("in config.json")


def test_a_nezha_checkpoint_with_a_bert_config_loads_once_the_config_is_changed_as_the_message_says(tmp_path):
    values = BertConfig(**SIZES).to_dict()
    folder = put(tmp_path, prefixed(filled(), "bert."), values)
    with pytest.raises(ValueError) as caught:
        nz.load(folder)
    assert "because there is no embeddings.position_embeddings.weight" in str(caught.value)
    assert 'set "model_type": "nezha" and max_relative_position (64 in the authors' in str(caught.value)
    put_config(folder, values | {"model_type": "nezha", "max_relative_position": 3})
    assert_same(nz.load(folder), filled())


def test_tensorflows_names_tell_the_family_too(tmp_path):
    for held, said in (("nezha", "bert"), ("bert", "nezha"), ("convbert", "bert"), ("nezha", "convbert")):
        groups = False if held == "convbert" else None
        theirs = dict(tensorflow_name(name, array, groups) for name, array in filled(CONFIGS[held]).items())
        with pytest.raises(ValueError, match=f'set "model_type": "{held}"'):
            nz.load(put_npz(tmp_path, theirs, CONFIGS[said]))


def test_what_looks_like_no_family_gets_the_plain_message(tmp_path):
    tensors = {name: array for name, array in filled().items() if "word_embeddings" not in name}
    with pytest.raises(ValueError, match=r"missing embeddings\.word_embeddings\.weight$"):
        nz.load(put(tmp_path, tensors, NEZHA.replace(tie_word_embeddings=False)))
    assert wrong_family([], NEZHA) is None
    both = ["embeddings.position_embeddings.weight", "embeddings.word_embeddings.weight", TABLE.format(0)]
    assert wrong_family(both, NEZHA) is None and wrong_family(both, CONFIGS["bert"]) is None


def test_reading_headers_reads_no_data(tmp_path):
    path = put_torch(tmp_path, filled())
    before = read_headers([path])
    content = bytearray(path.read_bytes())
    for entry in before[path].values():
        content[entry.start : entry.stop] = b"\xff" * (entry.stop - entry.start)
    path.write_bytes(content)
    assert read_headers([path]) == before


# -------------------------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".npz"])
def test_weights_are_not_saved_under_the_name_of_another_format(tmp_path, suffix):
    place = tmp_path / f"x{suffix}"
    with pytest.raises(ValueError, match=r"^path: expected a folder or a \.safetensors file, got .*x\."):
        nz.init(NEZHA).save(place)
    assert not place.exists()
    place.mkdir()
    nz.init(NEZHA).save(place)
    assert_same(nz.load(place), nz.init(NEZHA))


@pytest.mark.parametrize("place", ["file", "file/in/it", "file/x.safetensors"])
def test_a_file_where_weights_need_a_folder_is_named(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(
        FileExistsError, match=r"^path: expected a folder or a \.safetensors file, found a file in .*file$"
    ):
        nz.init(NEZHA).save(tmp_path / place)


@pytest.mark.parametrize("name", ["cls/temperature", "bert/x/gamma", "/", "loss/output_weights"])
def test_a_number_with_the_name_of_a_variable_of_tensorflow_is_a_tensor_beside_the_model(tmp_path, name, capsys):
    folder = put(tmp_path, filled() | {name: np.ones((), np.float32)})
    assert len(nz.load(folder)) == len(filled()) + 1
    assert main(["inspect", str(folder)]) == 0 and "Traceback" not in capsys.readouterr().err


def test_an_npz_file_whose_arrays_share_their_place_is_refused(tmp_path):
    file = put_npz(tmp_path, filled() | {"x": np.zeros(1000), "y": np.zeros(1000)})
    content = bytearray(file.read_bytes())
    entries = [content.rindex(name) - 46 for name in (b"x.npy", b"y.npy")]  # in the directory, at the end
    first, second = (slice(entry + 42, entry + 46) for entry in entries)
    content[second] = content[first]
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"the zip archive calls y\.npy by another name where it lies"):
        nz.load(file)
