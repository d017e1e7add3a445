"""The tables of names that ship: what other code bases call the steps of the model."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.oracle.alignment import check_names, renamed, without_prefix
from nezha_np.oracle.name_tables import FOLDER, every_name, name_table

ROOT = Path(__file__).parents[1]
TABLES = nz.oracle.name_tables()
# What each code base calls a step, and what we call it.
EXAMPLES = {
    "transformers": ("bert.encoder.layer.1.attention.self.query", "encoder.layer.1.attention.self.query"),
    "huawei": ("bert.encoder.layer.0.attention.output.dense", "encoder.layer.0.attention.output.dense"),
    "pytorch_pretrained_bert": ("bert.embeddings.LayerNorm", "embeddings.LayerNorm"),
    "bert4torch": ("encoderLayer.1.feedForward.outputDense", "encoder.layer.1.output.dense"),
    "paddlenlp": ("bert.encoder.layers.1.self_attn.q_proj", "encoder.layer.1.attention.self.query"),
    "kerashub": ("transformer_layer_1.self_attention_layer.query", "encoder.layer.1.attention.self.q"),
    "tensorflow": ("bert.encoder.layer_._1.attention.self.key", "encoder.layer.1.attention.self.key"),
    "flax": ("bert.encoder.layer.1.output.LayerNorm.scale", "encoder.layer.1.output.LayerNorm.weight"),
    "tinygrad": ("lm_transform", "cls.predictions.transform.dense"),
    "transformers_onnx": ("encoder.layer.1.output.Add", "encoder.layer.1.output.residual"),
    "ctranslate2": ("last_hidden_state", "last_hidden_state"),
}


def ours(name: str, table: str) -> str:
    """Give our name for theirs."""
    rename = check_names(None, table)
    return without_prefix(
        renamed(name, rename) if renamed(name, rename) != name else renamed(without_prefix(name), rename)
    )


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_an_example_says_what_it_was_checked_with_and_begins_with_what_one_must_know(table):
    text = (FOLDER / f"{table}.toml").read_text(encoding="utf-8")
    assert text.startswith("# ") and set(tomllib.loads(text)) == {"package", "checked", "names"}
    their, our = EXAMPLES[table]
    assert ours(their, table) == our


@pytest.mark.exhaustive
@pytest.mark.parametrize("table", TABLES)
def test_our_names_in_a_table_are_names_of_some_bundle(table):
    known = {"**.weight"}
    for our in set(name_table(table).values()) - known:
        below = tuple(name for name in every_name() if f"{name}.".startswith(f"{our.replace('*', '0')}."))
        assert below, our


def test_the_guide_names_every_table():
    text = (ROOT / "docs" / "oracle.md").read_text(encoding="utf-8")
    assert all(f"`{table}`" in text for table in TABLES)


@pytest.fixture(scope="module")
def bundle():
    return nz.oracle.record_standard("nezha-forward", tolerances="quick")


def test_compare_and_the_doctor_take_the_name_of_a_table_and_renames_come_before_it(bundle):
    query = bundle.trace["encoder.layer.1.attention.self.query"]
    theirs = {"encoderLayer.1.multiHeadAttention.q": query, "encoderLayer.1.mine": query}
    rename = {"encoderLayer.*.mine": "encoder.layer.*.attention.self.key"}
    found = nz.oracle.compare(bundle, theirs, names="bert4torch", rename=rename)
    assert [(row.name.rpartition(".")[2], row.agrees) for row in found.rows] == [("query", True), ("key", False)]
    assert not found.idle  # what a table has for other heads is nobody's mistake
    del theirs["encoderLayer.1.mine"]
    assert nz.oracle.diagnose(bundle, theirs, names="bert4torch").agrees


def test_an_unknown_table_is_refused_with_the_names_of_all(bundle):
    with pytest.raises(ValueError, match=r"^names: expected one of bert4torch, ctranslate2, .*, got 'pytorch'$"):
        nz.oracle.compare(bundle, {"embeddings": np.zeros(1)}, names="pytorch")


def test_one_table_of_renames_serves_bundles_without_the_head(bundle):
    rename = {
        "emb": "embeddings",
        "lm.*": "cls.predictions.*",
        "qa": "qa_outputs",
        "cross.*": "encoder.layer.*.crossattention",
    }
    found = nz.oracle.compare(bundle, {"emb": bundle.trace["embeddings"]}, rename=rename)
    assert found and set(found.idle) == {"lm.*", "qa", "cross.*"}
    assert found.idle["qa"] == "fits none of your names, and the bundle has none such"
    with pytest.raises(
        ValueError, match=r"^rename: expected names of theirs or of the bundle, got neither in 'qa' for"
    ):
        nz.oracle.compare(bundle, {"emb": bundle.trace["embeddings"]}, rename={**rename, "qa": "qa_output"})
