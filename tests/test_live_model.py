"""The model of the live page, in JavaScript: every array is that of `nezha_np`, and so is every token.

It runs in Node.js; that it does the same in a browser is in test_live_browser.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sentences import SENTENCES

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.explanation.live.live import DRAWING, MOST_PARAMETERS, PAGE, PORT, carry_model
from nezha_np.families import nezha
from nezha_np.layers.relative_position import position_context, position_scores, relative_position_table

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js")
TEXT = "房间很[MASK]净。"
SMALL = nz.NezhaConfig(
    vocab_size=7000,
    hidden_size=24,
    num_attention_heads=3,
    num_hidden_layers=2,
    intermediate_size=13,
    max_relative_position=3,
)
# Their category has changed since the tokenizers library's tables were made: the JavaScript engine knows the newer one.
CHANGED = {"\u166d", "\u1734", "\u1885", "\u1886"}


def run_node(folder: Path, carried: dict[str, Any], **job: Any) -> None:
    """Run tests/live_port.mjs on a model that goes into a page."""
    (folder / "carried.json").write_text(json.dumps(carried), encoding="utf-8")
    (folder / "job.json").write_text(json.dumps({"carried": str(folder / "carried.json"), **job}), encoding="utf-8")
    script = Path(__file__).with_name("live_port.mjs")
    done = subprocess.run(["node", script, folder / "job.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def rounded(weights: nz.Weights) -> nz.Weights:
    """The weights as the page carries them: rounded to float16, computed with in float32."""
    return weights.to(dtype="float16").to(dtype="float32")


@pytest.fixture(scope="module")
def small() -> nz.Weights:
    """A model whose texts reach beyond its farthest distance, with every tensor filled."""
    numbers = np.random.default_rng(0)
    drawn = nz.init(SMALL)
    return rounded(nz.Weights({name: numbers.normal(0.0, 0.3, array.shape) for name, array in drawn.items()}, SMALL))


# ---------------------------------------------------------------------------------------------------------- the arrays


@needs_node
def test_every_array_of_a_pass_agrees_with_a_golden_bundle(tmp_path, small):
    shipped = nz.load()
    ids = {"shipped": nz.encode(nz.load_tokenizer(), TEXT)["input_ids"][0].tolist(), "small": [2, 9, 8, 7, 5, 6, 4, 3]}
    for name, weights in (("shipped", shipped), ("small", small)):
        theirs = tmp_path / f"{name}.safetensors"
        run_node(tmp_path, carry_model(weights, nz.load_tokenizer()), passes=[{"ids": ids[name], "path": str(theirs)}])
        bundle = nz.oracle.record(weights, [ids[name]], head="masked_lm", tolerances="quick")
        comparison = nz.oracle.compare(bundle, theirs)
        assert comparison and comparison.dtype == "float32", comparison.summary()
        assert {row.name for row in comparison.rows} >= set(bundle.trace), name
        assert not comparison.missing and not comparison.unknown, name


@needs_node
def test_what_is_taken_away_from_the_model_is_gone_as_in_the_python_layers(tmp_path, small, monkeypatch):
    ids = [2, 9, 8, 7, 5, 6, 4, 3]
    changes = {
        "heads": {"headsOff": {"0": [1], "1": [0, 2]}},
        "reach": {"reach": 1},
        "keys": {"inKeys": False},
        "values": {"inValues": False},
    }
    passes = [{"ids": ids, "change": change, "path": str(tmp_path / name)} for name, change in changes.items()]
    run_node(tmp_path, carry_model(small, nz.load_tokenizer()), passes=passes)

    def logits(**arguments: Any) -> np.ndarray:
        with nz.definitions():
            return nz.masked_lm(nz.Weights(dict(small), SMALL), [ids], **arguments).logits

    def of_reach_one(weight, **settings):
        return relative_position_table(weight, **settings)[np.clip(np.arange(7), 2, 4)]

    expected = {"heads": logits(head_mask=[[1, 0, 1], [0, 1, 0]])}
    with monkeypatch.context() as patch:
        patch.setattr(nezha, "relative_position_table", of_reach_one)
        expected["reach"] = logits()
    with monkeypatch.context() as patch:
        patch.setattr(nezha, "position_scores", lambda q, table, **rest: position_scores(q, 0 * table, **rest))
        expected["keys"] = logits()
    with monkeypatch.context() as patch:
        patch.setattr(
            nezha, "position_context", lambda probs, table, **rest: position_context(probs, 0 * table, **rest)
        )
        expected["values"] = logits()
    plain = logits()
    for name, wanted in expected.items():
        got = load_file(tmp_path / name)["cls.predictions"]
        largest = np.abs(wanted).max()
        assert np.abs(got - wanted).max() < 1e-5 * largest < 0.01 * np.abs(plain - wanted).max(), name


# ---------------------------------------------------------------------------------------------------------- the tokens


def some_texts(count: int) -> list[str]:
    """Draw texts of words, Chinese, accents, controls, special tokens, and all characters of Unicode 3.2."""
    draw = random.Random(0)
    of_3_2 = unicodedata.ucd_3_2_0
    every = [chr(code) for code in range(0x30000) if of_3_2.category(chr(code)) not in ("Cn", "Cs")]
    every = [character for character in every if character not in CHANGED]
    common = [
        *"的一是不了在人有我他 aeionstAEIÉéüñçΣσςİıß。，！？ \t\n-_+$0123456789",
        "[MASK]",
        "[UNK]",
        "[mask]",
        "##",
        "\ufffd",
    ]
    words = [word for sentence in SENTENCES for word in sentence.split()]
    kinds = (common, every, words)
    return ["".join(draw.choice(draw.choice(kinds)) for _ in range(draw.randrange(25))) for _ in range(count)]


@needs_node
def test_a_thousand_texts_have_the_tokens_that_encode_gives_them(tmp_path):
    tokenizer = nz.load_tokenizer()
    texts = [*SENTENCES, TEXT, "", "a" * 100, "a" * 101, "é" * 101, "Σίσυφος", "\ud55c\uae00", *some_texts(1000)]
    run_node(tmp_path, carry_model(), texts=texts, tokens=str(tmp_path / "tokens.json"))
    theirs = json.loads((tmp_path / "tokens.json").read_text(encoding="utf-8"))
    for text, ids in zip(texts, theirs, strict=True):
        assert ids == nz.encode(tokenizer, text)["input_ids"][0].tolist(), ascii(text)


@needs_node
@pytest.mark.parametrize(
    "settings", [{"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}], ids=str
)
def test_a_tokenizer_with_other_settings_is_followed(tmp_path, settings):
    tokenizer = nz.load_tokenizer(nz.weights.checkpoint.SHIPPED / "vocab.txt", **settings)
    texts = ["OK ok Été été 房间ok很好", *some_texts(60)]
    run_node(tmp_path, carry_model(None, tokenizer), texts=texts, tokens=str(tmp_path / "tokens.json"))
    theirs = json.loads((tmp_path / "tokens.json").read_text(encoding="utf-8"))
    assert theirs == [nz.encode(tokenizer, text)["input_ids"][0].tolist() for text in texts]


# ---------------------------------------------------------------------------------------------- what is carried, or not


def test_the_shipped_model_is_carried_without_a_loss(tmp_path):
    (tmp_path / "carried").write_bytes(base64.b64decode(carry_model()["weights"]))
    shipped, carried = nz.load(), load_file(tmp_path / "carried")
    assert set(shipped) - set(carried) == {
        "pooler.dense.bias",
        "pooler.dense.weight",
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
    }
    assert all(np.array_equal(shipped[name], array.astype(np.float32)) for name, array in carried.items())


def test_the_files_of_the_port_are_modules_that_export_functions():
    for path in PORT:
        assert "\nexport function " in path.read_text(encoding="utf-8"), path.name


def test_the_command_writes_one_file_with_model_and_scripts_that_loads_nothing(tmp_path, capsys):
    path = tmp_path / "page.html"
    assert main(["explain", TEXT, "--live", "-o", str(path)]) == 0
    page = path.read_text(encoding="utf-8")
    assert page == nz.explain(TEXT, live=True) and len(page.encode()) < 12_000_000
    script = page.split("<script>")[1].partition("</script>")[0]
    for file in (*PORT, DRAWING, PAGE.with_suffix(".js")):
        assert file.read_text(encoding="utf-8").replace("\nexport ", "\n") in script, file.name
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{hashed}';" in page
    assert set(re.findall(r"\bhttps?://[^\s\"']*", page)) == {
        "http://www.w3.org/2000/svg",  # a name, not an address
        "https://huggingface.co/docs/safetensors",  # in a comment
    }
    for writes_html in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch("):
        assert writes_html not in script


def test_a_live_page_of_a_pair_and_a_live_that_is_no_switch_are_refused():
    with pytest.raises(ValueError, match=r"^pair: expected None with live, .*, got '好'$"):
        nz.explain(TEXT, pair="好", live=True)
    with pytest.raises(TypeError, match=r"^live: "):
        nz.explain(TEXT, live="yes")
    with pytest.raises(TypeError, match=r"^text: expected a str, got int"):
        nz.explain(5, live=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (nz.BertConfig(vocab_size=7000, hidden_size=8, num_attention_heads=2), "a NEZHA encoder, .*, got bert"),
        (SMALL.replace(is_decoder=True), "a NEZHA encoder, .*, got a decoder"),
        (SMALL.replace(hidden_act="relu"), "gelu and all heads, .*, got hidden_act 'relu'"),
        (SMALL.replace(tie_word_embeddings=False), "tied to the word embeddings, got one of its own"),
        (SMALL.replace(vocab_size=10), "^tokenizer: expected a vocabulary of at most 10, "),
    ],
)
def test_a_model_that_the_page_cannot_compute_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        carry_model(nz.init(config), nz.load_tokenizer())


def test_weights_that_are_too_large_too_many_or_without_a_head_are_refused(small, monkeypatch):
    tokenizer = nz.load_tokenizer()
    name = "encoder.layer.0.output.dense.bias"
    with pytest.raises(ValueError, match=f"^weights: expected numbers that float16 can hold, got others in {name}$"):
        carry_model(nz.Weights({**small, name: small[name] + np.float32(1e5)}, SMALL), tokenizer)
    with pytest.raises(ValueError, match=r"cls\.predictions"):
        carry_model(nz.Weights({n: a for n, a in small.items() if not n.startswith("cls.")}, SMALL), tokenizer)
    assert sum(array.size for array in nz.load().values()) < MOST_PARAMETERS
    monkeypatch.setattr(sys.modules[carry_model.__module__], "MOST_PARAMETERS", 1000)
    with pytest.raises(ValueError, match=r"^weights: expected at most 1,000 parameters in a page, got "):
        carry_model(small, tokenizer)
