"""Folders of sentence-transformers with small random models: `nz.init` makes the same numbers on every machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import nezha_np as nz

SIZE = 8  # of a hidden state
TEXTS = ["房间很干净。", "  价格 Très bien ", "The hotel is very good, 价格也便宜，下次还会来。" * 2, "早餐"]
SIZES = {"vocab_size": 7000, "hidden_size": SIZE, "num_attention_heads": 2, "num_hidden_layers": 2}
SIZES |= {"intermediate_size": 8, "max_position_embeddings": 40, "initializer_range": 0.5}
CONFIG = nz.BertConfig(**SIZES)
LIBRARY = "sentence_transformers.models."


def write_json(file: Path, value: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")


def write_modules(folder: Path, *modules: tuple[str, str]) -> None:
    """Write ``modules.json``: (type, path) for each module."""
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": kind if "." in kind else LIBRARY + kind}
        for index, (kind, path) in enumerate(modules)
    ]
    write_json(folder / "modules.json", entries)


def write_transformer(folder: Path, config=CONFIG, **settings) -> Path:
    """Write a transformer, its tokenizer, and ``sentence_bert_config.json`` where there are settings."""
    nz.init(config).save(folder)
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(nz.weights.checkpoint.SHIPPED / name, folder)
    if settings:
        write_json(folder / "sentence_bert_config.json", settings)
    return folder


def write_pooling(folder: Path, *switches: str, **values) -> None:
    """Write ``1_Pooling/config.json`` with these switches on and the others off."""
    names = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    on = {f"pooling_mode_{name}": name in switches for name in names}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": SIZE, **on, **values})


def write_tensors(folder: Path, scale: float = 1.0, **shapes: tuple[int, ...]) -> None:
    """Write ``pytorch_model.bin``'s twin: tensors of a rule that everybody can repeat."""
    tensors = {
        name.replace("__", "."): np.sin(np.arange(1, np.prod(shape) + 1, dtype=np.float64)).reshape(shape) * scale
        for name, shape in shapes.items()
    }
    save_file({name: np.asarray(array, np.float32) for name, array in tensors.items()}, folder / "model.safetensors")


def make_dense(folder: Path, size: int = SIZE, activation: str = "activation.Tanh", out: int = 4) -> Path:
    """Write a folder whose vectors go through a Dense."""
    write_transformer(folder, max_seq_length=16, do_lower_case=False)
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
    write_pooling(folder, "mean_tokens")
    settings = {"in_features": size, "out_features": out, "bias": True}
    write_json(folder / "2_Dense" / "config.json", settings | {"activation_function": f"torch.nn.modules.{activation}"})
    write_tensors(folder / "2_Dense", linear__weight=(out, size), linear__bias=(out,))
    return folder


def make_plain(folder: Path, switches=(), normalize: bool = False, config=CONFIG, **values) -> Path:
    """Write a folder of a transformer and a pooling."""
    write_transformer(folder, config, max_seq_length=16, do_lower_case=False)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if normalize else [])]
    write_modules(folder, *modules)
    write_pooling(folder, *switches, **values)
    return folder
