"""The page of `nezha_np.explain`: its numbers are the model's, its texts are only texts, and it stands alone.

What it looks like in a browser is in test_explain_browser.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import run_examples

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.explanation.explain import DRAWING, LONGEST, PAGE, SMALL, STEPS, TOP, pack
from nezha_np.families.family import family_of
from nezha_np.mechanism import View
from nezha_np.pages.page import SHARED

ROOT = Path(__file__).parents[1]
TEXT = "房间很[MASK]净。"
THIRTY = "这家酒店的房间很[MASK]净，早餐也很好吃，下次来还会再住这里！"  # with [CLS] and [SEP]
SCALED = {"content": "content_scores", "position": "position_scores"}

CONFIGS = {
    "nezha": nz.NezhaConfig(vocab_size=7000, hidden_size=24, num_attention_heads=3, num_hidden_layers=2),
    "nezha, clipped": nz.NezhaConfig(
        vocab_size=7000, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, max_relative_position=2
    ),
    "nezha, a decoder": nz.NezhaConfig(
        vocab_size=7000, hidden_size=16, num_attention_heads=2, num_hidden_layers=2, is_decoder=True
    ),
    "bert, absolute": nz.BertConfig(vocab_size=7000, hidden_size=24, num_attention_heads=3, num_hidden_layers=2),
    "bert, relative_key": nz.BertConfig(
        vocab_size=7000,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        position_embedding_type="relative_key",
    ),
    "bert, relative_key_query": nz.BertConfig(
        vocab_size=7000,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        position_embedding_type="relative_key_query",
    ),
    "convbert": nz.ConvBertConfig(
        vocab_size=7000,
        hidden_size=24,
        num_attention_heads=4,
        num_hidden_layers=2,
        embedding_size=8,
        conv_kernel_size=5,
    ),
}
CONFIGS = {name: config.replace(intermediate_size=12) for name, config in CONFIGS.items()}


def model(config: Any, seed: int = 0) -> nz.Weights:
    """Draw weights that all matter: those of `init` are so small that attention is uniform."""
    generator = np.random.default_rng(seed)
    tensors = {
        name: (0.4 * generator.normal(size=array.shape) + name.endswith("LayerNorm.weight")).astype("float32")
        for name, array in nz.init(config).items()
    }
    return nz.Weights(tensors, config)


@pytest.fixture(scope="module")
def tokenizer():
    return nz.load_tokenizer()


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda name: name)
def pass_and_page(request, tokenizer):
    """Run a small model of a family: its weights, the trace of its own pass, and what stands in the page."""
    weights = model(CONFIGS[request.param])
    batch = nz.encode(tokenizer, THIRTY)
    with nz.trace() as t:
        out = nz.forward(weights, **batch, output_hidden_states=True)
    return weights, t, out, read(nz.explain(THIRTY, weights, tokenizer))


def read(page: str) -> dict[str, Any]:
    """Read the data in a page."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(data)


def unpack(packed: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Undo the rounding as the page does; also return how far off a value of each block may be."""
    numbers = np.frombuffer(base64.b64decode(packed["data"]), f"<u{packed['bits'] // 8}").reshape(packed["shape"])
    blocks = (-1, *[1] * (numbers.ndim - 1))
    low, step = (np.reshape(packed[name], blocks) for name in ("low", "step"))
    return low + step * numbers, step / 2 * (1 + 1e-9) + 1e-12


def assert_rounded(packed: dict[str, Any], array: np.ndarray) -> None:
    """Hold that what stands in the page is an array, to the rounding that the page states."""
    values, off = unpack(packed)
    assert values.shape == array.shape
    ranges = [block.max() - block.min() for block in array.astype(np.float64)]
    np.testing.assert_allclose(packed["step"], np.array(ranges) / (2 ** packed["bits"] - 1), rtol=1e-5, atol=1e-12)
    assert (np.abs(values - array) <= off + 1e-6 * np.abs(array)).all()


# --------------------------------------------------------------------------------------------------------- the numbers


def test_the_attention_in_the_page_is_that_of_the_trace_of_every_family(pass_and_page):
    weights, t, _, shown = pass_and_page
    scale = np.sqrt(weights.config.head_size)
    assert len(shown["layers"]) == weights.config.num_hidden_layers and shown["bits"] == 16
    for index, layer in enumerate(shown["layers"]):
        at = f"encoder.layer.{index}.attention.self."
        assert_rounded(layer["probs"], t[at + "probs"][0])
        assert ("position" in layer) == (at + "position_scores" in t)
        for part in SCALED.keys() & layer.keys():
            assert_rounded(layer[part], t[at + SCALED[part]][0] / scale)


def test_content_and_position_add_up_to_the_scores_whose_softmax_is_the_probability(pass_and_page):
    weights, t, _, shown = pass_and_page
    causal = np.tri(len(shown["ids"]), dtype=bool) | (not weights.config.is_decoder)
    for index, layer in enumerate(shown["layers"]):
        parts = [unpack(layer[part]) for part in SCALED if part in layer]
        scores, off = sum(values for values, _ in parts), sum(off for _, off in parts)
        at = f"encoder.layer.{index}.attention.self."
        expected = t[at + ("scores" if "position" in layer else "content_scores")][0] / np.sqrt(
            weights.config.head_size
        )
        assert (np.abs(scores - expected) <= off + 1e-5).all()
        exp = np.where(causal, np.exp(scores - scores.max(axis=-1, keepdims=True)), 0.0)
        probs, off_probs = unpack(layer["probs"])
        np.testing.assert_allclose(exp / exp.sum(axis=-1, keepdims=True), probs, atol=2 * off.max() + off_probs.max())


def test_the_families_have_a_position_part_a_context_in_two_parts_or_kernels(pass_and_page):
    weights, t, _, shown = pass_and_page
    config = weights.config
    kind = getattr(config, "position_embedding_type", "absolute")
    relative = config.model_type == "nezha" or kind != "absolute"
    assert shown["model"]["adds_positions"] == config.learns_positions
    assert shown["model"]["learns_distances"] == (kind != "absolute")
    assert shown["model"]["keys_score_distances"] == (kind == "relative_key_query")
    for index, layer in enumerate(shown["layers"]):
        at = f"encoder.layer.{index}.attention.self."
        assert ("position" in layer) == relative
        assert ("context" in layer) == (config.model_type == "nezha")
        assert ("kernels" in layer) == (config.model_type == "convbert")
        if "context" in layer:
            norms = [np.linalg.norm(t[f"{at}{part}_context"][0], axis=-1) for part in ("content", "position")]
            assert_rounded(layer["context"], np.stack(norms, axis=-1))
        if "kernels" in layer:
            assert_rounded(layer["kernels"], t[at + "conv_kernels"][0].swapaxes(0, 1))


def test_the_parts_of_the_embeddings_are_those_of_the_trace(pass_and_page):
    weights, t, _, shown = pass_and_page
    parts = ["word", "token type", *["position"] * weights.config.learns_positions, "sum", "norm"]
    assert [part["part"] for part in shown["embeddings"]] == [
        *parts,
        *["projection"] * (weights.config.model_type == "convbert"),
    ]
    for part in shown["embeddings"]:
        assert_rounded(part["values"], t[part["name"]][0])
        np.testing.assert_allclose(part["norms"], np.linalg.norm(t[part["name"]][0], axis=-1), atol=1e-4)
    by_part = {part["part"]: unpack(part["values"])[0] for part in shown["embeddings"]}
    added = sum(by_part[part] for part in parts[:-2])
    np.testing.assert_allclose(added, by_part["sum"], atol=0.05)  # four roundings to 1/255


def test_norms_and_cosines_are_those_of_the_hidden_states(pass_and_page):
    _, _, out, shown = pass_and_page
    states = np.stack([state[0] for state in out.hidden_states]).astype(np.float64)
    norms = np.linalg.norm(states, axis=-1)
    np.testing.assert_allclose(shown["norms"], norms, atol=1e-4)
    cosines = (states[1:] * states[:-1]).sum(axis=-1) / norms[1:] / norms[:-1]
    np.testing.assert_allclose(shown["cosines"], cosines, atol=1e-4)


def test_the_two_steps_of_a_layer_lead_from_one_hidden_state_to_the_next(pass_and_page):
    weights, t, out, shown = pass_and_page
    assert len(shown["steps"]) == weights.config.num_hidden_layers and list(STEPS) == ["attention", "feed-forward"]
    for index, layer in enumerate(shown["steps"]):
        at = f"encoder.layer.{index}."
        x, z = out.hidden_states[index][0].astype(float), out.hidden_states[index + 1][0].astype(float)
        y = t[at + "attention.output.LayerNorm"][0].astype(float)
        for step, before, after in (("attention", x, y), ("feed-forward", y, z)):
            added = t[at + STEPS[step][0]][0].astype(float)
            lengths = [np.linalg.norm(array, axis=-1) for array in (added, before, after)]
            np.testing.assert_allclose(layer[step]["added"], lengths[0] / lengths[1], atol=1e-4)
            cosines = (before * after).sum(axis=-1) / lengths[1] / lengths[2]
            np.testing.assert_allclose(layer[step]["cosines"], cosines, atol=1e-4)
            # What was added is all that the step did before the norm.
            w = weights[at + ("attention." if step == "attention" else "") + "output.LayerNorm.weight"]
            b = weights[at + ("attention." if step == "attention" else "") + "output.LayerNorm.bias"]
            total = before + added
            normal = (total - total.mean(axis=-1, keepdims=True)) / total.std(axis=-1, keepdims=True)
            np.testing.assert_allclose(normal * w + b, after, atol=1e-4)


def test_the_feed_forward_network_of_the_first_layer_turns_an_unknown_character_most():
    first = read(nz.explain("房间龘很干净"))["steps"][0]["feed-forward"]
    assert first["added"].index(max(first["added"])) == 3 and max(first["added"]) > 2
    assert first["cosines"].index(min(first["cosines"])) == 3 and min(first["cosines"]) < 0.5


def test_each_token_says_which_piece_of_the_text_it_stands_for(tokenizer):
    shown = read(nz.explain("Nice 龘房\U0001f600", pair="龘[MASK]"))
    assert shown["tokens"] == [
        *("[CLS]", "n", "##ice", "[UNK]", "房", "[UNK]", "[SEP]"),
        *("[UNK]", "[MASK]", "[SEP]"),
    ]
    assert shown["written"] == [None, "N", "ice", "龘", "房", "\U0001f600", None, "龘", "[MASK]", None]
    assert shown["unknown"] == "[UNK]"
    tokenizer = nz.load_tokenizer()
    tokenizer.enable_truncation(max_length=4)
    shown = read(nz.explain("龘" * 9, tokenizer=tokenizer))
    assert (shown["tokens"], shown["written"]) == (["[CLS]", "[UNK]", "[UNK]", "[SEP]"], [None, "龘", "龘", None])


def test_the_guesses_after_a_layer_are_those_of_a_model_that_ends_there(pass_and_page, tokenizer):
    weights, _, _, shown = pass_and_page
    assert len(shown["lens"]) == weights.config.num_hidden_layers + 1
    for layers in range(1, weights.config.num_hidden_layers + 1):
        config = weights.config.replace(num_hidden_layers=layers)
        logits = nz.masked_lm(nz.Weights(dict(weights), config), **nz.encode(tokenizer, THIRTY)).logits[0]
        exp = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
        probs = exp / exp.sum(axis=-1, keepdims=True)
        for token, guesses in enumerate(shown["lens"][layers]):
            best = np.sort(probs[token])[::-1][:TOP]
            np.testing.assert_allclose([prob for _, prob in guesses], best, atol=1e-4)
            np.testing.assert_allclose([prob for _, prob in guesses], probs[token][[i for i, _ in guesses]], atol=1e-4)


def test_the_last_guess_for_a_gap_is_what_fill_mask_says():
    shown = read(nz.explain(TEXT))
    expected = [(index, round(probability, 4)) for _, index, probability in nz.fill_mask(TEXT)[0]]
    guesses = shown["lens"][-1][shown["tokens"].index("[MASK]")]
    assert [index for index, _ in guesses] == [index for index, _ in expected]
    np.testing.assert_allclose([p for _, p in guesses], [p for _, p in expected], atol=1.01e-4)
    assert [shown["pieces"][str(index)] for index, _ in guesses] == [token for token, _, _ in nz.fill_mask(TEXT)[0]]


def test_the_guesses_after_the_embeddings_are_the_heads_of_the_embeddings():
    weights = nz.load()
    batch = nz.encode(nz.load_tokenizer(), TEXT)
    first = nz.forward(weights, **batch, output_hidden_states=True).hidden_states[0]
    logits = family_of(weights.config).language_model(first, View(weights))[0]
    assert [guesses[0][0] for guesses in read(nz.explain(TEXT))["lens"][0]] == logits.argmax(axis=-1).tolist()


def test_tokens_ids_and_types_are_those_of_the_tokenizer_for_a_pair_too(tokenizer):
    batch = nz.encode(tokenizer, "房间很好", "很干净")
    shown = read(nz.explain("房间很好", pair="很干净"))
    assert shown["ids"] == batch["input_ids"][0].tolist() and shown["types"] == batch["token_type_ids"][0].tolist()
    assert shown["tokens"] == ["[CLS]", *"房间很好", "[SEP]", *"很干净", "[SEP]"]
    assert shown["pair"] == "很干净" and read(nz.explain("房间很好"))["pair"] is None


def test_layers_with_pruned_heads_show_those_that_are_left(tokenizer):
    weights = model(CONFIGS["nezha"]).prune_heads({1: [0, 2]})
    with nz.trace() as t:
        nz.forward(weights, **nz.encode(tokenizer, TEXT))
    shown = read(nz.explain(TEXT, weights, tokenizer))
    assert [layer["probs"]["shape"] for layer in shown["layers"]] == [[3, 8, 8], [1, 8, 8]]
    assert_rounded(shown["layers"][1]["position"], t["encoder.layer.1.attention.self.position_scores"][0] / np.sqrt(8))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_weights_of_another_dtype_are_shown_as_they_compute(tokenizer, dtype):
    weights = nz.load(dtype=dtype)
    with nz.trace() as t:
        nz.forward(weights, **nz.encode(tokenizer, TEXT))
    shown = read(nz.explain(TEXT, weights, tokenizer))
    assert shown["model"]["dtype"] == dtype
    assert_rounded(shown["layers"][3]["probs"], t["encoder.layer.3.attention.self.probs"][0])


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=4), st.sampled_from([8, 16])
)
def test_rounding_is_half_a_step_off_at_most_and_a_step_is_the_range_over_all_numbers(rows, bits):
    array = np.array(rows)
    packed = pack(array, bits)
    values, off = unpack(packed)
    assert (np.abs(values - array) <= off + 1e-9 * np.abs(array).max()).all()
    expected = (array.max(axis=1) - array.min(axis=1)) / (2**bits - 1)
    assert packed["step"] == expected.tolist() and packed["low"] == array.min(axis=1).tolist()


# ------------------------------------------------------------------------------------------------------------ its size


@pytest.mark.exhaustive
@pytest.mark.parametrize(("layers", "heads", "bits"), [(12, 12, 16), (24, 16, 8)], ids=["base", "large"])
def test_thirty_tokens_take_less_than_two_megabytes_with_as_many_heads_as_published_models_have(
    tokenizer, layers, heads, bits
):
    config = nz.NezhaConfig(
        vocab_size=7000,
        hidden_size=heads * 4,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=4,
    )
    page = nz.explain(THIRTY, model(config), tokenizer)
    shown = read(page)
    assert len(shown["ids"]) == 30 and shown["bits"] == shown["layers"][0]["probs"]["bits"] == bits
    strips = 4 * 30 * (heads * 64 - heads * 4) * 4 / 3  # those of heads of 64 features, which published models have
    assert len(page.encode()) + strips < 2_000_000


def test_attention_that_takes_more_in_sixteen_bits_is_rounded_to_eight(monkeypatch):
    assert SMALL == 1_500_000
    monkeypatch.setattr("nezha_np.explanation.explain.SMALL", 1000)
    shown = read(nz.explain(TEXT))
    assert shown["bits"] == 8 and {packed["bits"] for layer in shown["layers"] for packed in layer.values()} == {8}


def test_the_page_of_a_short_text_is_small_and_always_the_same():
    page = nz.explain(TEXT)
    assert len(page.encode()) < 120_000 and page == nz.explain(TEXT)


# ----------------------------------------------------------------------------------------------- its texts, and itself


class Elements(HTMLParser):
    """List the elements of a page as a browser finds them, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!--<script>",
    "</title><svg onload=alert(1)>",
    "{{data}} {{title}} {{script_hash}}",
    "&lt;b&gt; &amp; \"'`",
    "\\u003c \\ </ScRiPt >",
    "行\u2028分\u2029隔",
    "${alert(1)}",
]


@pytest.mark.one_in(11)
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("as_pair", [False, True], ids=["text", "pair"])
def test_a_text_that_looks_like_html_is_a_text(text, as_pair):
    page = nz.explain("好", pair=text) if as_pair else nz.explain(text)
    plain = nz.explain("好", pair="好") if as_pair else nz.explain("好")
    assert Elements(page).found == Elements(plain).found
    shown = read(page)
    assert shown["pair" if as_pair else "text"] == text
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(data)


def test_a_word_piece_that_looks_like_html_is_a_text(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "</script><img src=x onerror=alert(1)>", "好"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    config = CONFIGS["nezha"].replace(vocab_size=len(words))
    page = nz.explain("好", model(config), nz.load_tokenizer(tmp_path))
    assert "<img" not in page and words[5] in read(page)["pieces"].values()


def test_only_the_pages_own_script_may_run_and_nothing_is_loaded():
    page = nz.explain(TEXT)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 1
    hashed = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    (policy,) = (
        attributes["content"]
        for tag, attributes in Elements(page).found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert (
        f"default-src 'none'; script-src 'sha256-{hashed}';" in policy and "unsafe-inline" not in policy.split(";")[1]
    )
    assert set(re.findall(r"\w+://[^\s\"']*", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    for tag, attributes in Elements(page).found:
        assert attributes.get("src") is None and attributes.get("href") in (None, "data:,"), tag  # no icon
    for writes_html in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert writes_html not in scripts[0]


def test_style_and_script_are_put_into_the_page_as_their_files_have_them():
    page = nz.explain(TEXT)
    styles = (SHARED.with_suffix(".css"), PAGE.with_suffix(".css"))
    scripts = (SHARED.with_suffix(".js"), DRAWING, PAGE.with_suffix(".js"))
    for files, tag in ((styles, "style"), (scripts, "script")):
        text = "".join(path.read_text(encoding="utf-8") for path in files)
        assert f"<{tag}>\n{text}</{tag}>" in page


def test_the_script_asks_for_no_family_by_its_name():
    code = re.sub(r"//.*", "", PAGE.with_name("page.js").read_text(encoding="utf-8"))
    assert not re.search("nezha|bert", code, flags=re.IGNORECASE)


def test_importing_the_package_does_not_load_the_page():
    code = (
        "import sys, nezha_np as nz; before = 'nezha_np.explanation.explain' in sys.modules; nz.explain; print(before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def test_the_package_lists_explain_and_has_no_other_late_name():
    assert "explain" in dir(nz) and callable(nz.explain)
    with pytest.raises(AttributeError, match="module 'nezha_np' has no attribute 'explian'"):
        _ = nz.explian


# --------------------------------------------------------------------------------------------------- what it cannot do


def test_weights_without_a_language_model_head_have_no_guesses(tokenizer):
    full = nz.load()
    weights = nz.Weights({name: array for name, array in full.items() if not name.startswith("cls.")}, full.config)
    shown = read(nz.explain(TEXT, weights, tokenizer))
    assert shown["lens"] is None and shown["layers"] == read(nz.explain(TEXT))["layers"]


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\u200b"])
def test_a_text_or_a_pair_without_a_token_is_refused(text):
    with pytest.raises(ValueError, match=r"^text: expected at least one token, got none in "):
        nz.explain(text)
    with pytest.raises(ValueError, match=r"^pair: expected at least one token, got none in "):
        nz.explain("好", pair=text)


def test_a_tokenizer_that_is_set_to_pad_does_so_to_no_page():
    tokenizer = nz.load_tokenizer()
    tokenizer.enable_padding(length=20)
    assert nz.explain(TEXT, tokenizer=tokenizer) == nz.explain(TEXT)
    tokenizer.enable_truncation(max_length=4)
    with pytest.raises(ValueError, match=r"^text: expected at least one token"):
        nz.explain("", tokenizer=tokenizer)


def test_a_text_of_more_tokens_than_a_page_can_show_is_refused():
    assert len(read(nz.explain("好" * (LONGEST - 2)))["ids"]) == LONGEST == 128
    with pytest.raises(
        ValueError, match=r"^text: expected at most 128 tokens, special tokens included, got 129; maps of more"
    ):
        nz.explain("好" * 127)
    with pytest.raises(ValueError, match=r"^text and pair: expected at most 128 tokens, .*, got 133; "):
        nz.explain("好" * 65, pair="好" * 65)


def test_a_text_of_more_tokens_than_the_model_has_positions_is_refused(tokenizer):
    weights = model(CONFIGS["bert, absolute"].replace(max_position_embeddings=8))
    assert len(read(nz.explain("好" * 6, weights, tokenizer))["ids"]) == 8
    with pytest.raises(
        ValueError, match=r"^text: expected at most 8 tokens, .*, got 9; the model has no more positions"
    ):
        nz.explain("好" * 7, weights, tokenizer)


def test_a_tokenizer_that_does_not_fit_the_weights_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"^tokenizer: expected ids from 0 to 9, got id 5013: this vocabulary belongs"):
        nz.explain(TEXT, model(CONFIGS["nezha"].replace(vocab_size=10)), tokenizer)


def test_weights_from_nowhere_need_a_tokenizer_and_a_folder_needs_one_inside(tmp_path):
    with pytest.raises(
        ValueError, match=r"^tokenizer: expected one, because the weights were not loaded from a folder"
    ):
        nz.explain(TEXT, model(CONFIGS["nezha"]))
    model(CONFIGS["nezha"]).save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected tokenizer\.json or vocab\.txt in "):
        nz.explain(TEXT, nz.load(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": 5}, "text: expected a str, got int"),
        ({"text": [TEXT]}, "text: expected a str, got list"),
        ({"text": "好", "pair": b"x"}, "pair: expected a str, got bytes"),
        ({"text": "好", "weights": {}}, "weights: expected Weights or None, got dict"),
        ({"text": "好", "tokenizer": "vocab.txt"}, "tokenizer: expected a tokenizers.Tokenizer, got str"),
    ],
)
def test_an_argument_of_a_wrong_type_is_a_type_error(arguments, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        nz.explain(**arguments)


def test_a_lone_surrogate_is_refused():
    with pytest.raises(ValueError, match="text: expected valid Unicode"):
        nz.explain("\ud800")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.self.content_scores"),
        ("embeddings.LayerNorm.bias", "embeddings.LayerNorm"),
        ("encoder.layer.1.output.LayerNorm.bias", "the hidden states"),
        ("cls.predictions.bias", "the language model"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_place(tokenizer, name, where, value):
    tensors = dict(model(CONFIGS["nezha"]))
    tensors[name] = np.full_like(tensors[name], value)
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            ValueError, match=rf"^weights: expected finite numbers in every layer, got .* in {re.escape(where)}$"
        ),
    ):
        nz.explain(TEXT, nz.Weights(tensors, CONFIGS["nezha"]), tokenizer)


# ---------------------------------------------------------------------------------------------------- the command line


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the command; return its exit status and what it printed on both streams."""
    try:
        status = main(["explain", *map(str, arguments)])
    except SystemExit as exit:  # what argparse finds wrong
        status = exit.code
    return status, *capsys.readouterr()


def test_the_command_writes_the_page_that_the_function_returns(capsys, tmp_path):
    path = tmp_path / "页.html"
    assert run(capsys, TEXT, "-o", path) == (0, f"wrote {path}: {path.stat().st_size:,} bytes\n", "")
    assert path.read_bytes().decode() == nz.explain(TEXT)
    assert [file.name for file in tmp_path.iterdir()] == ["页.html"]
    assert run(capsys, "房间很好", "--pair", "很干净", "--output", tmp_path / "pair.html")[0] == 0
    assert (tmp_path / "pair.html").read_bytes().decode() == nz.explain("房间很好", pair="很干净")


def test_the_command_takes_another_model_with_its_tokenizer(capsys, tmp_path):
    weights = model(CONFIGS["convbert"])
    weights.save(tmp_path / "model")
    shutil.copy(nz.weights.checkpoint.SHIPPED / "vocab.txt", tmp_path / "model")
    assert run(capsys, TEXT, "--model", tmp_path / "model", "-o", tmp_path / "page.html")[0] == 0
    assert read((tmp_path / "page.html").read_text(encoding="utf-8"))["model"]["title"] == "ConvBERT"


def test_a_file_that_is_there_is_replaced_only_by_force(capsys, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("mine")
    status, out, err = run(capsys, TEXT, "-o", path)
    assert (status, out) == (
        2,
        "",
    ) and err == f"nezha-np: {path}: expected a new file, found one; --force replaces it\n"
    assert path.read_text() == "mine"
    assert run(capsys, TEXT, "-o", path, "--force")[0] == 0
    assert path.read_bytes().decode() == nz.explain(TEXT)


def test_a_text_that_is_refused_leaves_what_was_there(capsys, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("mine")
    assert run(capsys, "", "-o", path, "--force")[0] == 2
    assert path.read_text() == "mine" and [file.name for file in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_the_target_of_a_link_is_replaced_and_not_the_link(capsys, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "page.html").write_text("old")
    (tmp_path / "link.html").symlink_to(tmp_path / "folder" / "page.html")
    assert run(capsys, TEXT, "-o", tmp_path / "link.html", "--force")[0] == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "folder" / "page.html").read_bytes().decode() == nz.explain(TEXT)


def test_a_dash_is_standard_output(capsys):
    assert run(capsys, TEXT, "-o", "-") == (0, nz.explain(TEXT), "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TEXT,), "the following arguments are required: -o/--output"),
        (("-o", "page.html"), "the following arguments are required: text"),
        (("", "-o", "page.html"), "text: expected at least one token, got none in ''"),
        (("好", "--pair", " ", "-o", "page.html"), "pair: expected at least one token, got none in ' '"),
        (("好" * 200, "-o", "page.html"), "text: expected at most 128 tokens, special tokens included, got 202"),
        ((TEXT, "-o", "nowhere/page.html"), "nowhere/page.html: expected a folder to write into, found no nowhere"),
        ((TEXT, "-o", "."), ".: expected a new file, found something that is no file"),
        (
            (TEXT, "-o", "page.html", "--model", "nowhere"),
            "--model: expected a folder or a file that ends in .safetensors",
        ),
        ((TEXT, "-o", "page.html", "--model", "bare"), "expected tokenizer.json or vocab.txt in "),
        ((TEXT, "more", "-o", "page.html"), "unrecognized arguments: more"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong_and_writes_nothing(
    capsys, tmp_path, monkeypatch, arguments, message
):
    model(CONFIGS["nezha"]).save(tmp_path / "bare")
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1) and message in err and err.startswith("nezha-np")
    assert [file.name for file in tmp_path.iterdir()] == ["bare"]


def test_help_says_how_to_call_it(capsys):
    status, out, err = run(capsys, "--help")
    assert (status, err) == (0, "") and out.startswith("usage: nezha-np explain ")


# ------------------------------------------------------------------------------------------------------------- its docs


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_examples("explain.md", "From Python")
    assert read((tmp_path / "page.html").read_text(encoding="utf-8"))["tokens"][0] == "[CLS]"


def test_the_documentation_says_what_the_code_does():
    page = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    assert f"{LONGEST} tokens" in page and f"{SMALL:,} characters" in page
    for part in ("layer=2&head=0&token=5", "&key=3", "&part=position", "&theme=dark", "feed-forward", "[UNK]", "paper"):
        assert part in page
    assert (ROOT / "docs" / "explain.png").read_bytes().startswith(b"\x89PNG")
