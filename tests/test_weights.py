"""Weights: what may be loaded and what is refused, what is saved, what is drawn; and transformers on the other side."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import mmap
import os
import re
import statistics
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import array_api_strict as strict
import numpy as np
import pytest
import safetensors.numpy
from test_array_libraries import on_gpu

import nezha_np as nz
from nezha_np.arrays import kind_of
from nezha_np.checks import DTYPES
from nezha_np.families.family import family_of
from nezha_np.families.parameters import backbone_shapes, every_task, pooler_shapes, task_shapes, tasks_of
from nezha_np.layers.relative_position import relative_position_table
from nezha_np.weights.checkpoint import list_files
from nezha_np.weights.formats.entry import map_tensors
from nezha_np.weights.formats.safetensors import read_header
from nezha_np.weights.weights import as_weights

torch = pytest.importorskip("torch", reason="what is saved is read by the reference, which is PyTorch's")
transformers = pytest.importorskip("transformers", reason="what is saved is read by the reference")
transformers.logging.set_verbosity_error()  # it warns of every tensor that a head does not use

CONFIG = nz.NezhaConfig(
    vocab_size=11,
    hidden_size=8,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=6,
    max_position_embeddings=16,
    max_relative_position=3,
    num_labels=3,
)
EMBEDDING = "embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
IDS = np.array([[2, 5, 7, 3, 1], [2, 4, 9, 10, 3]])
SIZES = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 6,
    "max_position_embeddings": 16,
    "num_labels": 3,
}
KINDS = {
    "nezha": CONFIG,
    "bert": nz.BertConfig(**SIZES),
    "bert with relative_key": nz.BertConfig(**SIZES, position_embedding_type="relative_key"),
    "bert with relative_key_query": nz.BertConfig(**SIZES, position_embedding_type="relative_key_query"),
    "convbert": nz.ConvBertConfig(**SIZES, embedding_size=6, conv_kernel_size=3),
    "convbert in groups": nz.ConvBertConfig(
        **SIZES, embedding_size=8, head_ratio=1, num_groups=2, summary_use_proj=True
    ),
}
EVERY_HEAD = [(kind, head) for kind, config in KINDS.items() for head in (None, *tasks_of(config))]
HEADS = every_task()
FREE_HEADS = [head for head in HEADS if head != "question_answering"]  # whose shape does not depend on num_labels


def filled(config: nz.NezhaConfig = CONFIG, head: str | None = None, dtype: str = "float32") -> nz.Weights:
    """Make weights with every tensor filled with numbers that matter."""
    generator = np.random.default_rng(0)
    drawn = nz.init(config, head)
    return nz.Weights({name: generator.normal(size=array.shape).astype(dtype) for name, array in drawn.items()}, config)


def put(folder: Path, tensors: Mapping[str, np.ndarray], config: nz.NezhaConfig = CONFIG, padding: int = 0) -> Path:
    """Write a checkpoint by hand: these tensors under these names, the header longer by some spaces."""
    folder.mkdir(exist_ok=True)
    content = safetensors.numpy.save(dict(tensors))
    length = struct.unpack("<Q", content[:8])[0]
    header = content[8 : 8 + length] + b" " * padding
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    return folder


def put_raw(
    folder: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]], config: nz.NezhaConfig = CONFIG
) -> Path:
    """Write a checkpoint of any dtypes of the format: for each name its dtype, shape and bytes."""
    folder.mkdir(exist_ok=True)
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    return folder


def put_shards(folder: Path, *shards: Mapping[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    places = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        safetensors.numpy.save_file(dict(shard), folder / file)
        places |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()), encoding="utf-8")
    return folder


def assert_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    """Check that names, dtypes, shapes and every bit are the same."""
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


def owner(array: np.ndarray) -> object:
    """Return what an array's memory belongs to."""
    base = array
    while isinstance(base, (np.ndarray, memoryview)):
        base = base.obj if isinstance(base, memoryview) else base.base
    return base


# -------------------------------------------------------------------------------------------------------------- paths


def test_a_folder_a_file_and_shards_give_the_same_weights(tmp_path):
    weights = filled()
    folder = put(tmp_path / "whole", weights)
    for path in (folder, str(folder), folder / "model.safetensors", str(folder / "model.safetensors")):
        loaded = nz.load(path)
        assert_same(loaded, weights)
        assert loaded.config == CONFIG and loaded.source == folder
    items = list(weights.items())
    shards = put_shards(tmp_path / "shards", dict(items[:7]), dict(items[7:20]), dict(items[20:]))
    assert_same(nz.load(shards), weights)
    assert [file.name for file in list_files(shards)] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]


def test_a_file_of_any_name_is_read_with_the_config_beside_it(tmp_path):
    folder = put(tmp_path, filled())
    (folder / "model.safetensors").rename(folder / "学生.safetensors")
    assert_same(nz.load(folder / "学生.safetensors"), filled())
    with pytest.raises(FileNotFoundError, match=r"expected model\.safetensors or .*, name it: 学生\.safetensors$"):
        nz.load(folder)


def test_links_are_followed_as_a_hubs_cache_lays_them(tmp_path):
    blobs = put(tmp_path / "blobs", filled())
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name, blob in (("model.safetensors", "0a1b"), ("config.json", "2c3d")):
        (blobs / name).rename(blobs / blob)
        (snapshot / name).symlink_to(Path("..") / "blobs" / blob)
    (tmp_path / "link").symlink_to(snapshot, target_is_directory=True)
    for path in (snapshot, snapshot / "model.safetensors", tmp_path / "link"):
        assert_same(nz.load(path), filled())
    before = (blobs / "0a1b").read_bytes()
    filled(dtype="float16").save(snapshot)
    assert (blobs / "0a1b").read_bytes() == before and not (snapshot / "model.safetensors").is_symlink()
    assert nz.load(snapshot, dtype=None).dtype == np.float16


def test_without_a_path_the_shipped_model_is_loaded():
    weights = nz.load()
    assert weights.source == nz.weights.checkpoint.SHIPPED and len(weights) == 77 and weights.dtype == np.float32


@pytest.mark.parametrize("path", [5, 5.0, b"folder", ["folder"], True])
def test_a_path_of_a_wrong_type_is_refused(path):
    with pytest.raises(TypeError, match=r"^path: expected a path, got (int|float|bytes|list|bool)$"):
        nz.load(path)
    with pytest.raises(TypeError, match=r"^path: expected a path, got "):
        filled().save(path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"^path: expected a folder or a file that ends in .*, found no .*nowhere"
    ):
        nz.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"^path: expected model\.safetensors or .*, found none of them in "):
        nz.load(tmp_path)
    put(tmp_path, filled())
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json: expected a config\.json, found no such file"):
        nz.load(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    for name in ("model.h5", "model.json", "model"):
        (tmp_path / name).write_bytes(b"{}")
        with pytest.raises(ValueError, match=r"^path: expected a folder or a file that ends in .*, got "):
            nz.load(tmp_path / name)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"weight_map": []}',
        b'{"weight_map": null}',
        b'{"weight_map": {}}',
        b'{"weight_map": {"a": "../outside.safetensors"}}',
        b'{"weight_map": {"a": "/etc/passwd"}}',
        b'{"weight_map": {"a": "sub/model.safetensors"}}',
        b'{"a":' * 100_000,
    ],
    ids=lambda index: index[:40].decode(errors="replace"),
)
def test_a_broken_index_of_shards_is_refused_with_its_name(tmp_path, index):
    folder = put_shards(tmp_path, filled())
    (folder / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json: expected ") as caught:
        nz.load(folder)
    assert type(caught.value) is ValueError


def test_a_missing_shard_is_named(tmp_path):
    items = list(filled().items())
    folder = put_shards(tmp_path, dict(items[:5]), dict(items[5:]))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected all shards .*, missing model-00002-of-00002\.safetensors$"):
        nz.load(folder)


def test_a_tensor_that_stands_in_two_shards_is_refused(tmp_path):
    folder = put_shards(tmp_path, filled(), {"nezha.pooler.dense.bias": np.zeros(8, np.float32)})
    with pytest.raises(ValueError, match=r"expected one tensor for pooler\.dense\.bias, got .* and nezha\.pooler"):
        nz.load(folder)


# -------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("prefix", ["nezha.", "bert.", ""])
@pytest.mark.parametrize("norms", [("weight", "bias"), ("gamma", "beta")], ids=["new-norms", "old-norms"])
def test_prefixes_and_old_names_of_norms_go(tmp_path, prefix, norms):
    weights = filled(head="sequence_classification")
    renamed = {}
    for name, array in weights.items():
        if "LayerNorm" in name:
            stem, _, kind = name.rpartition(".")
            name = f"{stem}.{norms[kind == 'bias']}"
        renamed[name if name.startswith(("cls.", "classifier.")) else prefix + name] = array
    assert_same(nz.load(put(tmp_path, renamed)), weights)


def test_only_the_norms_gamma_and_beta_are_renamed(tmp_path):
    own = {"adapter.gamma": np.ones(2, np.float32), "bert.extra.nezha.beta": np.ones(3, np.float32)}
    assert_same(nz.load(put(tmp_path, {**filled(), **own})), {
        **filled(), "adapter.gamma": own["adapter.gamma"], "extra.nezha.beta": own["bert.extra.nezha.beta"]
    })  # fmt: skip


def test_two_tensors_for_one_name_are_refused(tmp_path):
    doubled = {**filled(), "bert.embeddings.LayerNorm.gamma": np.ones(8, np.float32)}
    with pytest.raises(ValueError, match=r"expected one tensor for embeddings\.LayerNorm\.weight, got .* and "):
        nz.load(put(tmp_path, doubled))


@pytest.mark.parametrize("held", ["left out", "matrix", "matrix and bias", "bias under the decoder alone"])
def test_a_tied_decoder_is_the_embedding_however_the_file_holds_it(tmp_path, held):
    weights = filled()
    tensors = dict(weights)
    if held.startswith("matrix"):
        tensors[DECODER] = tensors[EMBEDDING].copy()
    if held == "matrix and bias":
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    if held.startswith("bias"):
        tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")
    loaded = nz.load(put(tmp_path, tensors))
    assert_same(loaded, weights)
    assert loaded[DECODER] is loaded[EMBEDDING] and DECODER in loaded and DECODER not in list(loaded)
    assert loaded["cls.predictions.decoder.bias"] is loaded["cls.predictions.bias"]
    np.testing.assert_array_equal(nz.masked_lm(loaded, IDS).logits, nz.masked_lm(weights, IDS).logits)


def test_a_tied_decoder_alone_is_the_embedding(tmp_path):
    weights = filled()
    tensors = dict(weights)
    tensors[DECODER] = tensors.pop(EMBEDDING)
    assert_same(nz.load(put(tmp_path, tensors)), weights)


def test_an_untied_decoder_is_its_own(tmp_path):
    config = CONFIG.replace(tie_word_embeddings=False)
    weights = filled(config)
    assert DECODER in list(weights)
    tensors = {name.replace("predictions.bias", "predictions.decoder.bias"): array for name, array in weights.items()}
    for held in (tensors, weights):
        loaded = nz.load(put(tmp_path, held, config))
        assert_same(loaded, weights)
        assert loaded[DECODER].tobytes() != loaded[EMBEDDING].tobytes()
        assert loaded["cls.predictions.decoder.bias"] is loaded["cls.predictions.bias"]


def test_an_untied_decoder_that_is_missing_is_named_by_the_head_that_needs_it(tmp_path):
    config = CONFIG.replace(tie_word_embeddings=False)
    tensors = {name: array for name, array in filled(config).items() if name != DECODER}
    loaded = nz.load(put(tmp_path, tensors, config))
    assert nz.forward(loaded, IDS).last_hidden_state.shape == (2, 5, 8)
    with pytest.raises(ValueError, match=rf"^masked_lm needs tensors that the weights do not have: {DECODER}$"):
        nz.masked_lm(loaded, IDS)


def test_what_is_computed_is_dropped_and_unknown_floats_are_kept(tmp_path):
    name = "encoder.layer.0.attention.self.relative_positions_encoding.positions_encoding"
    table = relative_position_table(np.zeros(1, np.float32), head_size=4, max_relative_position=3)
    table = table[np.clip(np.arange(16) - np.arange(16)[:, None], -3, 3) + 3]
    more = {
        "embeddings.position_ids": np.arange(16)[None],
        "nezha.embeddings.token_type_ids": np.zeros((1, 16), np.int64),
        name: table,
        f"bert.{name.replace('layer.0', 'layer.1')}": table,
        "global_step": np.array(1_000_000),
        "bert.adapter.scale": np.array(0.5, np.float32),
        "cls.extra.weight": np.ones((2, 0), np.float32),
    }
    kept = {"adapter.scale": more["bert.adapter.scale"], "cls.extra.weight": more["cls.extra.weight"]}
    weights = filled()
    loaded = nz.load(put(tmp_path, {**weights, **more}))
    assert_same(loaded, {**weights, **kept})
    loaded.save(tmp_path / "again")
    assert_same(nz.load(tmp_path / "again"), {**weights, **kept})


# ------------------------------------------------------------------------------------------------------------- dtypes

VALUES = np.array(
    [0.0, -0.0, 1.0, -1.5, 0.333251953125, 6.103515625e-05, 65280.0, np.inf]
)  # exact in every dtype but BF16


def bytes_of(array: np.ndarray, kind: str) -> bytes:
    """Convert to a dtype of the format; to BF16 by rounding float32 to its upper 16 bits."""
    if kind == "BF16":
        bits = array.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return array.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[kind]).tobytes()


def value_of(raw: bytes, kind: str) -> np.ndarray:
    if kind == "BF16":
        return np.array([struct.unpack("<f", b"\0\0" + raw[i : i + 2])[0] for i in range(0, len(raw), 2)])
    return np.frombuffer(raw, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[kind]).astype(np.float64)


@pytest.mark.parametrize("kind", ["F16", "BF16", "F32", "F64"])
@pytest.mark.parametrize("dtype", [*DTYPES, None])
def test_every_dtype_of_a_file_is_converted_to_the_asked_one_by_value(tmp_path, kind, dtype):
    raw = {name: (kind, array.shape, bytes_of(array, kind)) for name, array in filled(dtype="float64").items()}
    raw["probe"] = (kind, VALUES.shape, bytes_of(VALUES, kind))
    loaded = nz.load(put_raw(tmp_path, raw), dtype=dtype)
    own = {"F16": "float16", "BF16": "float32", "F32": "float32", "F64": "float64"}[kind]
    assert {array.dtype.name for array in loaded.values()} == {loaded.dtype.name} == {dtype or own}
    for name, (_, shape, content) in raw.items():
        expected = value_of(content, kind).reshape(shape).astype(dtype or own)
        assert loaded[name].tobytes() == expected.tobytes(), name


def test_bfloat16_is_read_by_its_bit_patterns(tmp_path):
    patterns = np.arange(0, 2**16, dtype="<u2")
    raw = {name: ("F32", array.shape, array.tobytes()) for name, array in filled().items()}
    raw["all"] = ("BF16", (2**16,), patterns.tobytes())
    found = nz.load(put_raw(tmp_path, raw), dtype=None)["all"]
    assert (found.view(np.uint32) == patterns.astype(np.uint32) << 16).all()
    expected = torch.tensor(patterns.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(found, expected)


def test_a_value_too_large_for_the_asked_dtype_warns(tmp_path):
    tensors = {**filled(), "large": np.array([1e6], np.float32)}
    with pytest.warns(RuntimeWarning, match="overflow"):
        assert nz.load(put(tmp_path, tensors), dtype="float16")["large"] == np.inf


def test_mixed_dtypes_are_converted_to_one_or_refused(tmp_path):
    mixed = dict(filled())
    mixed["pooler.dense.bias"] = mixed["pooler.dense.bias"].astype(np.float16)
    folder = put(tmp_path, mixed)
    assert {array.dtype for array in nz.load(folder).values()} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match=r"expected one dtype, got float32 for .* and float16 for pooler\.dense\.bias"):
        nz.load(folder, dtype=None)


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("f4"), "f4", torch.float32, strict.float32])
def test_a_dtype_may_be_given_by_name_or_as_any_librarys(dtype):
    assert nz.load(dtype=dtype).dtype == np.float32
    assert nz.init(CONFIG, dtype=dtype).dtype == np.float32
    assert filled(dtype="float64").to(dtype=dtype).dtype == np.float32


@pytest.mark.parametrize("dtype", ["int64", 5, [], {}, object, "float128", torch.int8, {"a": 1}, ""])
def test_other_dtypes_are_refused(dtype):
    for call in (lambda: nz.load(dtype=dtype), lambda: nz.init(CONFIG, dtype=dtype), lambda: filled().to(dtype=dtype)):
        with pytest.raises(ValueError, match=r"^dtype: expected one of (bfloat16, )?float16, float32, float64, got "):
            call()


def test_drawing_needs_a_dtype():
    with pytest.raises(ValueError, match=r"^dtype: expected one of .*, got None"):
        nz.init(CONFIG, dtype=None)


# ---------------------------------------------------------------------------------------------------- what is refused


def test_every_missing_tensor_of_embeddings_and_encoder_is_refused_by_name(tmp_path):
    for name in backbone_shapes(CONFIG):
        tensors = {key: array for key, array in filled().items() if key != name}
        if name == EMBEDDING:
            tensors.pop(DECODER, None)
        folder = put(tmp_path, {f"nezha.{key}": array for key, array in tensors.items()})
        with pytest.raises(ValueError, match=f"expected all tensors of embeddings.* missing {name}$") as caught:
            nz.load(folder)
        assert str(folder) in str(caught.value)


@pytest.mark.exhaustive
def test_every_wrong_shape_is_refused_with_both_shapes(tmp_path):
    for name, shape in (backbone_shapes(CONFIG) | {"pooler.dense.weight": (8, 8), "pooler.dense.bias": (8,)}).items():
        wrong = (*shape[:-1], shape[-1] + 1)
        folder = put(tmp_path, {**filled(), name: np.zeros(wrong, np.float32)})
        with pytest.raises(ValueError) as caught:
            nz.load(folder)
        assert f"{name} {wrong} instead of {shape}" in str(caught.value)


@pytest.mark.parametrize("head", HEADS)
def test_a_wrong_shape_in_a_head_is_refused_by_the_head(head):
    config = CONFIG.replace(is_decoder=head == "causal_lm")
    weights = filled(config, head)
    inputs = {"input_ids": IDS[:, None] if head == "multiple_choice" else IDS}
    for name, shape in task_shapes(CONFIG, head).items():
        if name.startswith("pooler."):
            continue  # refused when the weights are made
        tensors = {**weights, name: np.zeros((*shape[:-1], shape[-1] + 1), np.float32)}
        with pytest.raises(ValueError, match=rf"{name} \(.*\) instead of "):
            getattr(nz, head)(nz.Weights(tensors, config), **inputs)


@pytest.mark.parametrize("head", HEADS)
def test_a_missing_tensor_of_a_head_is_named_by_the_head(head):
    config = CONFIG.replace(is_decoder=head == "causal_lm")
    weights = filled(config, head)
    inputs = {"input_ids": IDS[:, None] if head == "multiple_choice" else IDS}
    for missing in task_shapes(CONFIG, head):
        tensors = {name: array for name, array in weights.items() if name != missing}
        if missing.startswith("pooler."):
            tensors = {name: array for name, array in tensors.items() if not name.startswith("pooler.")}
        with pytest.raises(ValueError, match=f"^{head} needs tensors that the weights do not have: .*{missing}"):
            getattr(nz, head)(nz.Weights(tensors, config), **inputs)


def test_half_a_pooler_is_refused_and_none_is_allowed():
    tensors = dict(filled())
    bias = tensors.pop("pooler.dense.bias")
    with pytest.raises(
        ValueError, match=r"^weights: expected all tensors of .* and pooler, missing pooler\.dense\.bias$"
    ):
        nz.Weights(tensors, CONFIG)
    del tensors["pooler.dense.weight"]
    assert nz.forward(nz.Weights(tensors, CONFIG), IDS).pooler_output is None
    with pytest.raises(ValueError, match=r"missing pooler\.dense\.weight$"):
        nz.Weights({**tensors, "pooler.dense.bias": bias}, CONFIG)


@pytest.mark.parametrize("kind", ["I64", "U8", "BOOL", "F8_E4M3"])
@pytest.mark.parametrize("name", ["encoder.layer.1.output.dense.bias", "classifier.bias", "pooler.dense.weight"])
def test_a_wrong_type_is_refused_by_name(tmp_path, kind, name):
    weights = filled(head="token_classification")
    raw = {key: ("F32", array.shape, array.tobytes()) for key, array in weights.items()}
    shape, size = weights[name].shape, 8 if kind == "I64" else 1
    raw[name] = (kind, shape, bytes(size * weights[name].size))
    folder = put_raw(tmp_path, raw)
    with pytest.raises(ValueError, match=rf"expected tensors of floats, got {name} \({kind}\)$") as caught:
        nz.load(folder)
    assert str(folder) in str(caught.value)


def test_unknown_tensors_that_are_no_floats_are_dropped_even_where_numpy_lacks_their_dtype(tmp_path):
    raw = {key: ("F32", array.shape, array.tobytes()) for key, array in filled().items()}
    raw |= {"scale": ("F8_E4M3", (4,), bytes(4)), "steps": ("I64", (1,), bytes(8)), "on": ("BOOL", (), b"\1")}
    assert_same(nz.load(put_raw(tmp_path, raw)), filled())


def test_a_long_list_of_missing_tensors_is_cut_short(tmp_path):
    with pytest.raises(ValueError, match=r"missing embeddings\.word_embeddings\.weight, .* and 16 more$"):
        nz.load(put(tmp_path, {"cls.predictions.bias": np.zeros(11, np.float32)}))


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "", "cpu:0", "cuda:1 "])
def test_an_unknown_device_is_refused_before_anything_is_read(tmp_path, device):
    with pytest.raises(ValueError, match=r"^device: expected 'cpu', 'cuda' or 'cuda:1', got "):
        nz.load(tmp_path / "nowhere", device=device)
    with pytest.raises(ValueError, match=r"^device: expected "):
        filled().to(device=device)


@pytest.mark.parametrize("device", [0, ["cuda"], torch.device("cpu")])
def test_a_device_of_a_wrong_type_is_refused(device):
    with pytest.raises(TypeError, match=r"^device: expected 'cpu', 'cuda' or 'cuda:1', got "):
        filled().to(device=device)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed here: nothing is missing")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_without_cupy_says_what_to_install(tmp_path, device):
    for call in (lambda: filled().to(device=device), lambda: nz.load(device=device)):
        with pytest.raises(
            ModuleNotFoundError, match=rf'^device: .{device}. needs CuPy: pip install "nezha-np\[cuda12\]"'
        ):
            call()


def test_a_gpu_is_chosen_by_its_number(monkeypatch):
    chosen = []
    device = lambda number: contextlib.nullcontext(chosen.append(number))  # noqa: E731
    fake = SimpleNamespace(
        cuda=SimpleNamespace(Device=device), asarray=np.copy, __spec__=importlib.util.spec_from_loader("cupy", None)
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    for name, number in (("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)):
        there = filled().to(device=name)
        assert set(chosen) == {number} and len(chosen) == len(filled())
        assert_same(there, filled())
        chosen.clear()


@pytest.mark.gpu
@pytest.mark.skipif(not on_gpu(), reason=on_gpu.reason)
def test_weights_go_to_a_gpu_and_come_back(tmp_path):
    filled().save(tmp_path)
    there = nz.load(tmp_path, device="cuda")
    assert {nz.arrays.library(array) for array in there.values()} == {"cupy"}
    assert_same(there.to(device="cpu"), filled())
    assert_same(there.to(dtype="float16").to(device="cpu"), filled().to(dtype="float16"))
    there.save(tmp_path)
    assert_same(nz.load(tmp_path), filled())


# ------------------------------------------------------------------------------------------------- mapped, not copied


def test_loading_maps_the_file_where_nothing_is_converted(tmp_path):
    filled().save(tmp_path)
    for dtype in ("float32", None):
        arrays = list(nz.load(tmp_path, dtype=dtype).values())
        assert {type(owner(array)) for array in arrays} == {mmap.mmap} and len(
            {id(owner(array)) for array in arrays}
        ) == 1
        assert not any(array.flags.owndata or array.flags.writeable for array in arrays)
        assert not any(np.shares_memory(array, other) for array in arrays for other in arrays if array is not other)


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is read can be changed there too, a mapped one cannot")
def test_a_file_that_was_not_mapped_may_be_changed_and_cut_while_its_weights_are_in_use(tmp_path):
    filled().save(tmp_path)
    loaded = nz.load(tmp_path, mmap=False)
    assert not any(isinstance(owner(array), mmap.mmap) or array.flags.writeable for array in loaded.values())
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.write(bytes(10_000))
        file.truncate(20)
    assert_same(loaded, filled())
    with pytest.raises(TypeError, match="mmap: expected True, False or None, got 'no'"):
        nz.load(tmp_path, mmap="no")


CHANGED_IN_PLACE = {
    "cut short": lambda path: os.truncate(path, 20_000),
    "written over": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
}
PASSES = {
    "forward": lambda weights: nz.forward(weights, [[2, 5]]),
    "of a plain mapping": lambda weights: nz.forward(dict(weights), [[2, 5]], config=weights.config),
    "a head": lambda weights: nz.masked_lm(weights, [[2, 5]]),
    "a gradient": lambda weights: nz.value_and_grad(nz.masked_lm)(weights, [[2, 5]], labels=[[2, 5]]),
    "of fewer heads": lambda weights: nz.forward(weights.prune_heads({}), [[2, 5]]),
}


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is mapped cannot be changed there")
@pytest.mark.parametrize("change", CHANGED_IN_PLACE)
def test_a_pass_refuses_weights_whose_mapped_file_was_changed_in_place(tmp_path, monkeypatch, change):
    filled().save(tmp_path)
    monkeypatch.chdir(tmp_path)
    loaded, copied = nz.load("."), nz.load(".", dtype="float64")
    monkeypatch.chdir("/")
    PASSES["forward"](loaded)
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))  # so that the time differs, whatever the clock's steps
    CHANGED_IN_PLACE[change](tmp_path / "model.safetensors")
    for run in PASSES.values():
        with pytest.raises(ValueError, match=r"model\.safetensors as it was loaded, got one that was changed in place"):
            run(loaded)
    PASSES["forward"](copied)


def test_weights_whose_mapped_file_was_replaced_or_removed_stay_what_they_were(tmp_path):
    filled().save(tmp_path)
    loaded = nz.load(tmp_path)
    nz.init(CONFIG, seed=1).save(tmp_path / "other")
    with contextlib.suppress(PermissionError):  # Windows refuses, and so it stays what it was there too
        (tmp_path / "other" / "model.safetensors").replace(tmp_path / "model.safetensors")
    assert_same(loaded, filled())
    PASSES["forward"](loaded)
    with contextlib.suppress(PermissionError):
        (tmp_path / "model.safetensors").unlink()
    PASSES["forward"](loaded)


def test_a_file_that_is_cut_between_its_header_and_its_numbers_is_refused_by_name(tmp_path):
    filled().save(tmp_path)
    path = tmp_path / "model.safetensors"
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-8])
    for mapped in (True, False):
        with pytest.raises(ValueError, match=r"model\.safetensors: .* as its header says, got a shorter"):
            map_tensors(path, header, mapped=mapped)


def test_the_bytes_of_a_weight_are_those_of_the_file(tmp_path):
    filled().save(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    loaded = nz.load(tmp_path)
    start = min(array.ctypes.data for array in loaded.values())
    entries = read_header(tmp_path / "model.safetensors")
    first = min(entry.start for entry in entries.values())
    for name, array in loaded.items():
        entry = entries[name if name.startswith("cls.") else f"nezha.{name}"]
        assert array.ctypes.data - start == entry.start - first and array.tobytes() == content[entry.start : entry.stop]


@pytest.mark.parametrize("padding", range(1, 8))
def test_unaligned_tensors_are_loaded_right(tmp_path, padding):
    weights = filled()
    header = (put(tmp_path, weights) / "model.safetensors").read_bytes()[:8]
    assert struct.unpack("<Q", header)[0] % 8 == 0
    loaded = nz.load(put(tmp_path, weights, padding=padding))
    assert_same(loaded, weights)
    assert all(array.flags.aligned and not array.flags.writeable for array in loaded.values())
    assert {isinstance(owner(array), mmap.mmap) for array in loaded.values()} == {padding == 4}
    assert_same(nz.load(tmp_path, dtype="float64"), weights.to(dtype="float64"))


def test_weights_cannot_be_written_to(tmp_path):
    filled().save(tmp_path)
    for weights in (nz.load(tmp_path), nz.load(tmp_path, dtype="float64"), nz.init(CONFIG)):
        for array in weights.values():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
        with pytest.raises(TypeError, match="item assignment"):
            weights[EMBEDDING] = np.zeros((11, 8))
        with pytest.raises(TypeError, match="item deletion"):
            del weights[EMBEDDING]


def test_a_weight_is_the_same_array_each_time_it_is_asked_for(tmp_path):
    filled().save(tmp_path)
    weights = nz.load(tmp_path)
    for name in weights:
        assert weights[name] is weights[name] is dict(weights)[name]
    assert weights.at("encoder.layer.0.output.dense")["bias"] is weights["encoder.layer.0.output.dense.bias"]
    assert weights[DECODER] is weights[EMBEDDING] is weights.word_embeddings


def test_converting_to_what_they_are_shares_every_weight():
    weights = filled()
    for same in (
        weights.to(),
        weights.to(dtype="float32"),
        weights.to(device="cpu"),
        weights.to(device="cpu", dtype="f4"),
    ):
        assert all(same[name] is weights[name] for name in weights)
    half = weights.to(dtype="float16")
    assert half.dtype == np.float16 and half.config is weights.config and half.source is weights.source
    assert_same(half, {name: array.astype(np.float16) for name, array in weights.items()})
    assert_same(weights, filled())


def test_weights_of_another_library_come_home_to_the_cpu():
    weights = filled()
    device = strict.Device("device1")
    there = nz.Weights({name: strict.asarray(array, device=device) for name, array in weights.items()}, CONFIG)
    assert_same(there.to(device="cpu"), weights)
    assert_same(there.to(dtype="float64", device="cpu"), weights.to(dtype="float64"))


# ------------------------------------------------------------------------------------------------- Weights themselves


def test_a_plain_dict_with_a_config_works_in_place_of_weights():
    weights = filled()
    out = nz.forward(dict(weights), IDS, config=CONFIG)
    np.testing.assert_array_equal(out.last_hidden_state, nz.forward(weights, IDS).last_hidden_state)
    with pytest.raises(
        TypeError, match=r"^config: expected a configuration, because weights is a plain mapping, got None"
    ):
        nz.forward(dict(weights), IDS)
    with pytest.raises(TypeError, match=r"^weights: expected Weights or a mapping from names to arrays, got list"):
        nz.forward([1], IDS)
    with pytest.raises(TypeError, match=r"^config: expected a NezhaConfig, a BertConfig or a ConvBertConfig, got dict"):
        nz.forward(dict(weights), IDS, config={})
    with pytest.raises(TypeError, match=r"^tensors: expected a mapping from names to arrays, got list"):
        nz.Weights([1], CONFIG)


def test_a_tied_decoder_in_a_plain_dict_is_one_weight_with_the_embedding():
    tensors = dict(filled())
    tensors[DECODER], tensors["cls.predictions.decoder.bias"] = tensors[EMBEDDING], tensors["cls.predictions.bias"]
    weights = nz.Weights(tensors, CONFIG)
    assert set(weights) == set(filled())
    _, gradients = nz.value_and_grad(nz.masked_lm)(tensors, IDS, labels=IDS, config=CONFIG)
    _, expected = nz.value_and_grad(nz.masked_lm)(filled(), IDS, labels=IDS)
    renamed = {"cls.predictions.bias": "cls.predictions.decoder.bias"}  # the name that the reference takes of the two
    assert_same(gradients, {renamed.get(name, name): array for name, array in expected.items()})


def test_another_config_in_a_call_replaces_the_weights_own():
    weights = filled()
    decoder = CONFIG.replace(is_decoder=True)
    assert as_weights(weights, None) is as_weights(weights, CONFIG) is weights
    expected = nz.forward(nz.Weights(weights, decoder), IDS).last_hidden_state
    np.testing.assert_array_equal(nz.forward(weights, IDS, config=decoder).last_hidden_state, expected)
    assert np.abs(expected - nz.forward(weights, IDS).last_hidden_state).max() > 0.01
    with pytest.raises(ValueError, match=r"^weights: expected the shapes of the configuration, got "):
        nz.forward(weights, IDS, config=CONFIG.replace(vocab_size=12))


@pytest.mark.parametrize("value", [[[1.0]], None, 1.0, np.zeros((11, 8), np.int64), np.zeros((11, 8), complex)])
def test_what_is_no_array_of_floats_is_refused_by_name(value):
    kind = re.escape(kind_of(value))
    with pytest.raises(TypeError, match=rf"^weights: expected arrays of floats, got {kind} for {EMBEDDING}$"):
        nz.Weights({**filled(), EMBEDDING: value}, CONFIG)


def test_mixed_dtypes_and_mixed_devices_are_refused_by_name():
    tensors = dict(filled())
    with pytest.raises(ValueError, match=r"^weights: expected one dtype, got float32 .* and float64 for more$"):
        nz.Weights({**tensors, "more": np.zeros(1)}, CONFIG)
    moved = {name: strict.asarray(array) for name, array in tensors.items()}
    moved["pooler.dense.bias"] = strict.asarray(tensors["pooler.dense.bias"], device=strict.Device("device1"))
    with pytest.raises(ValueError, match=r"^weights: expected one device, got .* for pooler\.dense\.bias$"):
        nz.Weights(moved, CONFIG)


def test_weights_are_a_mapping():
    weights = filled()
    assert isinstance(weights, Mapping) and len(weights) == len(list(weights)) == len(dict(weights))
    assert EMBEDDING in weights and "classifier.weight" not in weights and weights.get("classifier.weight") is None
    with pytest.raises(KeyError, match="classifier"):
        weights["classifier.weight"]
    count = sum(array.size for array in weights.values())
    assert repr(weights) == f"Weights(nezha, {len(weights)} tensors, {count:,} parameters, float32)"


# -------------------------------------------------------------------------------------------------------------- saving


@pytest.mark.one_in(11)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "head"), EVERY_HEAD)
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path, kind, head, dtype):
    weights = filled(KINDS[kind], head, dtype)
    weights.save(tmp_path / "new" / "folder")
    loaded = nz.load(tmp_path / "new" / "folder", dtype=None)
    assert_same(loaded, weights)
    assert type(loaded.config) is type(weights.config) and loaded.config.extra["torch_dtype"] == dtype
    labels = {"num_labels": 2} if head == "question_answering" else {}  # a beginning and an end
    assert loaded.config.replace(architectures=None, extra={}) == KINDS[kind].replace(**labels)
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == ["config.json", "model.safetensors"]


def test_a_file_is_saved_with_its_config_beside_it(tmp_path):
    filled().save(str(tmp_path / "学生.safetensors"))
    assert sorted(os.listdir(tmp_path)) == ["config.json", "学生.safetensors"]
    assert_same(nz.load(tmp_path / "学生.safetensors"), filled())
    (tmp_path / "v1.safetensors").mkdir()
    filled().save(tmp_path / "v1.safetensors")
    assert_same(nz.load(tmp_path / "v1.safetensors"), filled())


def test_unknown_keys_of_the_config_are_saved_too(tmp_path):
    config = CONFIG.replace(extra={"directionality": "bidi", "tokenizer_class": "BertTokenizer"})
    nz.Weights(filled(), config).save(tmp_path)
    assert config.extra.items() <= nz.load(tmp_path).config.extra.items()


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        filled().save(tmp_path / folder)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no mapped file: tests/test_other_systems.py")
def test_saving_onto_the_mapped_folder_works(tmp_path):
    filled().save(tmp_path)
    weights = nz.load(tmp_path)
    weights.save(tmp_path)
    assert_same(weights, filled())
    assert_same(nz.load(tmp_path), filled())
    weights.to(dtype="float16").save(tmp_path)
    assert_same(weights, filled())  # still those of the file that was replaced
    assert_same(nz.load(tmp_path, dtype=None), filled().to(dtype="float16"))


def test_a_failed_save_leaves_the_old_files_and_no_litter(tmp_path, monkeypatch):
    filled().save(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail_midway(tensors, filename, metadata=None):
        Path(filename).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail_midway)
    with pytest.raises(OSError, match="the disk is full"):
        filled(dtype="float16").save(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_config_that_cannot_be_written_leaves_the_old_files(tmp_path, monkeypatch):
    filled().save(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"^hidden_act: expected a name"):
        nz.Weights(filled(), CONFIG.replace(hidden_act=np.tanh)).save(tmp_path)
    monkeypatch.setattr(Path, "write_text", lambda *arguments, **options: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        filled(dtype="float16").save(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_saving_where_a_file_is_in_the_way_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file"):
        filled().save(tmp_path / "file")


def test_weights_of_another_library_are_saved(tmp_path):
    device = strict.Device("device1")
    nz.Weights({name: strict.asarray(array, device=device) for name, array in filled().items()}, CONFIG).save(tmp_path)
    assert_same(nz.load(tmp_path), filled())


# -------------------------------------------------------------------------------------------------------- transformers


def reference_of(kind: str, head: str | None) -> type:
    return getattr(transformers, family_of(KINDS[kind]).tasks[head or "forward"].reference)


def make_reference(config: nz.families.config.Config, kind: str, head: str | None) -> torch.nn.Module:
    """Make a reference model with every parameter filled: its grouped layers have none to begin with."""
    torch.manual_seed(0)
    model = reference_of(kind, head)(getattr(transformers, type(config).__name__)(**config.to_dict()))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def parameters_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """List the reference's parameters under our names."""
    prefix = f"{model.config.model_type}."
    buffers = dict(model.named_buffers())
    return {
        name.removeprefix(prefix): value.numpy() for name, value in model.state_dict().items() if name not in buffers
    }


def config_for(kind: str, head: str | None, tied: bool = True) -> nz.families.config.Config:
    decoder = head == "causal_lm"
    labels = {"num_labels": 2} if head == "question_answering" else {}
    return KINDS[kind].replace(is_decoder=decoder, add_cross_attention=decoder, tie_word_embeddings=tied, **labels)


def shapes_for(config: nz.families.config.Config, head: str | None) -> dict[str, tuple[int, ...]]:
    """List what the reference's class for a head is made of."""
    return backbone_shapes(config) | (pooler_shapes(config) if head is None else task_shapes(config, head))


def first_logits(head: str | None, model, weights: nz.Weights) -> tuple[np.ndarray, np.ndarray]:
    ids = IDS[:, None].repeat(2, axis=1) if head == "multiple_choice" else IDS
    with torch.no_grad():
        theirs = model.eval()(torch.tensor(ids))[0]
    out = nz.forward(weights, ids) if head is None else getattr(nz, head)(weights, ids)
    names = ("last_hidden_state", "prediction_logits", "start_logits", "logits")
    return theirs.numpy(), next(getattr(out, name) for name in names if hasattr(out, name))


@pytest.mark.one_in(11)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("kind", "head"), EVERY_HEAD)
def test_transformers_reads_what_we_save_with_nothing_missing(tmp_path, kind, head, tied):
    config = config_for(kind, head, tied)
    weights = filled(config, head)
    weights.save(tmp_path)
    model, loading = reference_of(kind, head).from_pretrained(tmp_path, output_loading_info=True)
    assert loading["missing_keys"] == loading["mismatched_keys"] == loading["error_msgs"] == []
    parameters = parameters_of(model)
    for name in shapes_for(config, head):
        assert parameters[name].tobytes() == weights[name].tobytes(), name
    theirs, ours = first_logits(head, model, weights)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head", ["question_answering", "multiple_choice", "next_sentence_prediction"])
def test_transformers_reads_heads_with_a_number_of_their_own_whatever_the_labels_are(tmp_path, kind, head):
    if head not in tasks_of(KINDS[kind]):
        pytest.skip(f"{kind} has no {head}")
    weights = filled(KINDS[kind].replace(num_labels=3), head)
    weights.save(tmp_path)
    _, loading = reference_of(kind, head).from_pretrained(tmp_path, output_loading_info=True)
    assert loading["missing_keys"] == loading["mismatched_keys"] == loading["error_msgs"] == []


@pytest.mark.one_in(11)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("kind", "head"), EVERY_HEAD)
def test_a_model_of_one_head_is_saved_for_its_class_with_nothing_left_over(tmp_path, kind, head, tied):
    config = config_for(kind, head, tied)
    every = filled(config, head)
    weights = nz.Weights({name: every[name] for name in shapes_for(config, head)}, config)
    weights.save(tmp_path)
    assert nz.load(tmp_path).config.architectures == (reference_of(kind, head).__name__,)
    _, loading = reference_of(kind, head).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())


def test_a_tied_decoder_is_not_saved_and_an_untied_one_is(tmp_path):
    for kind, decoder in (("nezha", DECODER), ("bert", DECODER), ("convbert", "generator_lm_head.weight")):
        for tied in (True, False):
            filled(config_for(kind, "masked_lm", tied), "masked_lm").save(tmp_path)
            assert (decoder in read_header(tmp_path / "model.safetensors")) == (not tied)
            model = reference_of(kind, "masked_lm").from_pretrained(tmp_path)
            embeddings = model.get_input_embeddings().weight
            assert (model.get_output_embeddings().weight is embeddings) == tied


@pytest.mark.one_in(5)
@pytest.mark.parametrize("kind", ["nezha", "bert"])
@pytest.mark.parametrize("head", FREE_HEADS)
def test_one_file_with_every_head_serves_every_class_of_the_reference(tmp_path, kind, head):
    weights = filled(KINDS[kind], "sequence_classification" if head != "multiple_choice" else head)
    weights.save(tmp_path)
    _, loading = reference_of(kind, head).from_pretrained(tmp_path, output_loading_info=True)
    assert loading["missing_keys"] == loading["mismatched_keys"] == []


@pytest.mark.parametrize(
    ("kept", "architecture"),
    [
        (lambda name: True, "ForPreTraining"),
        (lambda name: not name.startswith(("cls.seq_relationship", "pooler")), "ForMaskedLM"),
        (lambda name: not name.startswith("cls.predictions"), "ForNextSentencePrediction"),
        (lambda name: not name.startswith("cls."), "Model"),
    ],
    ids=["pretraining", "masked-lm", "next-sentence", "model"],
)
@pytest.mark.parametrize("kind", ["nezha", "bert"])
def test_the_saved_config_names_the_references_class_for_what_is_there(tmp_path, kind, kept, architecture):
    architecture = f"{'Nezha' if kind == 'nezha' else 'Bert'}{architecture}"
    weights = nz.Weights({name: array for name, array in filled(KINDS[kind]).items() if kept(name)}, KINDS[kind])
    weights.save(tmp_path)
    assert nz.load(tmp_path).config.architectures == (architecture,)
    _, loading = getattr(transformers, architecture).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())


@pytest.mark.exhaustive
def test_a_model_of_several_heads_keeps_the_class_that_its_config_names(tmp_path):
    for kind, head in EVERY_HEAD:
        drawn = nz.init(KINDS[kind], head)
        drawn.save(tmp_path)
        named = head or ("masked_lm" if kind.startswith("convbert") else "pretraining")
        assert nz.load(tmp_path).config.architectures == (family_of(KINDS[kind]).tasks[named].reference,)
        assert_same(nz.load(tmp_path), drawn)


@pytest.mark.one_in(17)
@pytest.mark.parametrize("shard", ["10GB", "2KB"], ids=["whole", "shards"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("kind", "head"), EVERY_HEAD)
def test_we_read_what_transformers_saves(tmp_path, kind, head, tied, shard):
    config = config_for(kind, head, tied)
    model = make_reference(config, kind, head)
    model.save_pretrained(tmp_path, safe_serialization=True, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "2KB")
    weights = nz.load(tmp_path)
    parameters = parameters_of(model)
    for name, value in parameters.items():
        assert weights[name].tobytes() == value.tobytes(), name
    assert set(weights) == set(shapes_for(config, head)) <= set(parameters)
    theirs, ours = first_logits(head, model, weights)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("kind", ["nezha", "bert", "bert with relative_key_query"])
def test_a_model_with_pruned_heads_goes_both_ways(tmp_path, kind):
    model = make_reference(KINDS[kind], kind, "masked_lm")
    model.prune_heads({1: [0]})
    model.save_pretrained(tmp_path / "theirs")
    weights = nz.load(tmp_path / "theirs")
    assert weights.config.pruned_heads == {1: (0,)}
    assert weights["encoder.layer.1.attention.self.query.weight"].shape == (4, 8)
    weights.save(tmp_path / "ours")
    again, loading = reference_of(kind, "masked_lm").from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert loading["missing_keys"] == loading["mismatched_keys"] == []
    theirs, ours = first_logits("masked_lm", again, weights)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


# ------------------------------------------------------------------------------------------------------------- drawing

LARGE = nz.NezhaConfig(
    vocab_size=500,
    hidden_size=64,
    num_attention_heads=4,
    num_hidden_layers=1,
    intermediate_size=200,
    initializer_range=0.5,
)


def fingerprint(weights: nz.Weights) -> str:
    """Hash names, dtypes, shapes and every bit."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name]
        digest.update(f"{name} {array.dtype.name} {array.shape}".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


GOLDEN = {
    ("float64", 0): "e9621d5e16316397a0c3bc3d0f28f1047fe2ac71b4033efb7917706da06bc1c5",
    ("float32", 0): "7877b6523cc94d26db43dd3a3e3e90e44959a3c7172b492a235deaa509bbe00c",
    ("float16", 0): "dece17293b1f15a13b6cc9c2bb4eb1e6bb903fa22de6fe0397e088396148d3a2",
    ("float64", 2**70): "21d62d4e2eb715a1be1fbca9b09130c05378e5c26e87e67a93a1dce2fef4ba27",
}


@pytest.mark.parametrize(("dtype", "seed"), GOLDEN)
def test_drawn_weights_are_the_same_bits_on_every_machine(dtype, seed):
    assert fingerprint(nz.init(CONFIG, "question_answering", seed=seed, dtype=dtype)) == GOLDEN[dtype, seed]


@pytest.mark.parametrize("head", HEADS)
def test_a_tensor_is_the_same_whatever_head_is_drawn(head):
    plain, other = nz.init(CONFIG), nz.init(CONFIG, head)
    assert_same({name: other[name] for name in plain}, plain)
    assert set(other) == set(plain) | set(task_shapes(CONFIG, head))
    assert set(plain) == set(backbone_shapes(CONFIG)) | set(task_shapes(CONFIG, "pretraining"))
    assert {name: other[name].shape for name in task_shapes(CONFIG, head)} == task_shapes(CONFIG, head)
    assert other.config.architectures == (family_of(CONFIG).tasks[head].reference,)
    assert other.config.replace(architectures=None) == CONFIG


def test_a_tensor_is_the_same_whatever_else_the_model_has():
    deeper = nz.init(
        CONFIG.replace(num_hidden_layers=4, tie_word_embeddings=False, is_decoder=True, add_cross_attention=True)
    )
    plain = nz.init(CONFIG)
    assert_same({name: deeper[name] for name in plain}, plain)
    assert deeper[DECODER] is not deeper[EMBEDDING]


@pytest.mark.exhaustive
def test_heads_have_the_references_shapes():
    for kind, head in EVERY_HEAD:
        config = config_for(kind, head)
        drawn = nz.init(config, head)
        for name, value in parameters_of(make_reference(config, kind, head)).items():
            assert drawn[name].shape == value.shape, name
    assert nz.init(CONFIG, "multiple_choice")["classifier.weight"].shape == (1, 8)
    assert nz.init(CONFIG, "token_classification")["classifier.weight"].shape == (3, 8)
    assert nz.init(CONFIG, "question_answering")["qa_outputs.weight"].shape == (2, 8)


def test_other_seeds_and_other_names_draw_other_numbers():
    drawn = [nz.init(CONFIG, seed=seed) for seed in (0, 1, -1, np.int64(2), 2**100)]
    assert len({fingerprint(weights) for weights in drawn}) == len(drawn)
    matrices = [array.tobytes() for array in drawn[0].values() if array.any() and not (array == 1).all()]
    assert len(set(matrices)) == len(matrices) > 10
    assert fingerprint(nz.init(CONFIG, seed=np.int64(2))) == fingerprint(nz.init(CONFIG, seed=2))


def test_matrices_are_normal_and_cut_off_at_two_sigma():
    weights = nz.init(LARGE, "token_classification", dtype="float64")
    for name, array in weights.items():
        if name.endswith("LayerNorm.weight"):
            assert (array == 1).all(), name
        elif name.endswith("bias"):
            assert (array == 0).all(), name
        else:
            assert np.abs(array).max() <= 2 * LARGE.initializer_range + 1e-9, name
            assert array.std() > 0, name
    values = np.concatenate(
        [weights[EMBEDDING][1:].ravel(), weights["encoder.layer.0.intermediate.dense.weight"].ravel()]
    )
    sigma = LARGE.initializer_range
    # A normal distribution cut off at 2σ has a standard deviation of 0.8796 σ; 44,800 values stray by 0.3 % of it.
    assert values.std() == pytest.approx(0.87962566 * sigma, rel=0.015)
    assert values.mean() == pytest.approx(0, abs=0.02 * sigma)
    assert np.abs(values).max() > 1.99 * sigma
    normal = statistics.NormalDist(0, sigma)
    low, high = normal.cdf(-2 * sigma), normal.cdf(2 * sigma)
    for point in (-1.5, -1, -0.5, 0, 0.5, 1, 1.5):
        expected = (normal.cdf(point * sigma) - low) / (high - low)
        assert (values < point * sigma).mean() == pytest.approx(expected, abs=0.01)


def test_a_draw_is_the_quantile_of_its_uniform_number():
    name = "pooler.dense.weight"
    found = nz.init(LARGE, dtype="float64")[name].ravel() / LARGE.initializer_range
    uniform = nz.randomness.uniform(found.size, 0, name)
    normal = statistics.NormalDist()
    low = normal.cdf(-2)
    expected = [normal.inv_cdf(low + number * (1 - 2 * low)) for number in uniform]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("pad", [0, 4, None])
def test_the_row_of_the_padding_id_is_zero(pad):
    table = nz.init(CONFIG.replace(pad_token_id=pad))[EMBEDDING]
    assert [index for index, row in enumerate(table) if not row.any()] == ([] if pad is None else [pad])


def test_pruned_heads_are_not_drawn():
    weights = nz.init(CONFIG.replace(pruned_heads={0: [1]}))
    assert weights["encoder.layer.0.attention.self.value.weight"].shape == (4, 8)
    assert weights["encoder.layer.0.attention.output.dense.weight"].shape == (8, 4)
    assert nz.forward(weights, IDS).last_hidden_state.shape == (2, 5, 8)


@pytest.mark.parametrize("head", ["forward", "", "NezhaForMaskedLM", 5, ["masked_lm"]])
def test_an_unknown_head_is_refused(head):
    with pytest.raises(ValueError, match=r"^head: expected one of pretraining, .* or None, got "):
        nz.init(CONFIG, head)


@pytest.mark.parametrize("seed", [None, 1.0, "1", True, [1]])
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(TypeError, match=r"^seed: expected an integer, got "):
        nz.init(CONFIG, seed=seed)


def test_drawing_needs_a_config():
    with pytest.raises(
        TypeError, match=r"^config: expected a NezhaConfig, a BertConfig or a ConvBertConfig, got dict$"
    ):
        nz.init(CONFIG.to_dict())
