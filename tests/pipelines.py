"""What the tests of tasks have in common: texts, small models for the shipped tokenizer, the reference's pipelines."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.weights.checkpoint import SHIPPED

FAMILIES = {"nezha": nz.NezhaConfig, "bert": nz.BertConfig, "convbert": nz.ConvBertConfig}
WORDS = [
    "房间",
    "很干净。",
    "早餐",
    "playing",
    "hotels",
    " ",
    "12，",
    "😀",
    "unaffable",
    "the Hotel",
    "[UNK]",
    "\n",
    "“好”",
]
texts = st.lists(st.sampled_from(WORDS), max_size=40).map("".join)
# 5,000 characters, some of them no tokens, some together one.
LONG = ("房间很干净，早餐也好吃。😀 The hotel is unaffable, 12 playing! " * 200)[:5000]


@functools.cache
def tokenizer() -> Any:
    return nz.load_tokenizer()


@functools.cache
def their_tokenizer() -> Any:
    transformers = pytest.importorskip("transformers", reason="the reference is transformers 4.37.2")
    # Without a limit of its own: the pipelines of tags leave out what is behind it.
    return transformers.BertTokenizerFast.from_pretrained(SHIPPED, model_max_length=10**6)


def small_config(family: str = "bert", **options: Any) -> nz.Config:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 12}
    return FAMILIES[family](**({"vocab_size": 7000, "max_position_embeddings": 400} | sizes | options))


def models(head: str, config: nz.Config, seed: int = 0, dtype: str = "float64") -> tuple[nz.Weights, Any]:
    """Make a model with random weights, here and in the reference."""
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    pytest.importorskip("transformers", reason="the reference is transformers 4.37.2")
    from reference import our_weights, reference_model

    theirs = reference_model(head, config, seed, getattr(torch, dtype))
    theirs.requires_grad_(False)
    return our_weights(theirs, config), theirs


def fine_tuned(name: str, head: str, folder: Any) -> tuple[nz.Weights, Any]:
    """Load a head that ships with the package, here and in the reference."""
    weights = nz.load(SHIPPED / name)
    weights.save(folder)
    return weights, read_by_the_reference(head, weights, folder)


def read_by_the_reference(head: str, weights: nz.Weights, folder: Any) -> Any:
    """Load a folder that was written by this package with the reference."""
    pytest.importorskip("torch", reason="the reference is PyTorch's")
    transformers = pytest.importorskip("transformers", reason="the reference is transformers 4.37.2")
    from reference import take_our_table

    theirs = getattr(transformers, head).from_pretrained(folder).eval()
    take_our_table(theirs, weights.config, theirs.dtype)
    return theirs.requires_grad_(False)


def pipeline(name: str, model: Any, **options: Any) -> Any:
    import transformers

    return getattr(transformers, name)(model=model, tokenizer=their_tokenizer(), framework="pt", **options)
