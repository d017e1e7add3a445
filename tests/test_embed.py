"""`nz.embed`: one vector for each text, whatever the batches, the family, the dtype or the array library."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples

import nezha_np as nz
from nezha_np.text.pooling import POOLINGS

TEXTS = [
    "房间很干净。",
    "价格",
    "",
    "The hotel is very good, 价格也便宜，下次还会来。",
    " ",
    "早餐一般，但是服务很热情",
]
FAMILIES = {"nezha": nz.NezhaConfig, "bert": nz.BertConfig, "convbert": nz.ConvBertConfig}


@functools.cache
def tokenizer():
    return nz.load_tokenizer()


@functools.cache
def model(family="nezha", dtype="float64", **options):
    """Make a small model for the shipped tokenizer, with weights large enough for texts to differ."""
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 12}
    config = FAMILIES[family](vocab_size=7000, initializer_range=0.5, max_position_embeddings=40, **sizes, **options)
    return nz.init(config, dtype=dtype)


def alone(text, weights, pooling):
    """Embed one text by itself, step by step: without padding there is nothing to go wrong."""
    out = nz.forward(weights, **nz.encode(tokenizer(), text))
    x = out.last_hidden_state[0]  # (L, H)
    return {
        "mean": lambda: x.mean(axis=0),
        "cls": lambda: x[0],
        "pooler": lambda: out.pooler_output[0],
        "max": lambda: x.max(axis=0),
        "mean_sqrt_len_tokens": lambda: x.sum(axis=0) / np.sqrt(len(x)),
        "weightedmean": lambda: np.average(x, axis=0, weights=np.arange(1, len(x) + 1)),
        "lasttoken": lambda: x[-1],
    }[pooling]()


def embed(texts, weights=None, **options):
    return nz.embed(texts, model() if weights is None else weights, tokenizer(), **options)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", ["nezha", "bert"])
def test_each_text_gets_what_it_would_get_alone(family, pooling):
    weights = model(family)
    expected = np.stack([alone(text, weights, pooling) for text in TEXTS])
    found = embed(TEXTS, weights, pooling=pooling)
    assert isinstance(found, np.ndarray) and found.shape == (len(TEXTS), 8) and found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    normalized = embed(TEXTS, weights, pooling=pooling, normalize=True)
    np.testing.assert_allclose(normalized, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-12)


@given(
    texts=st.lists(st.text(st.sampled_from("房间很干净。ab 好"), max_size=30), max_size=9),
    batch_size=st.integers(1, 10),
    family=st.sampled_from(["nezha", "bert"]),
)
@examples(40)
def test_batches_and_order_change_nothing(texts, batch_size, family):
    weights = model(family)
    found = embed(texts, weights, batch_size=batch_size)
    assert found.shape == (len(texts), 8)
    for text, vector in zip(texts, found, strict=True):
        np.testing.assert_allclose(vector, alone(text, weights, "mean"), rtol=0, atol=1e-12)
    np.testing.assert_allclose(embed(texts[::-1], weights), found[::-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_convberts_texts_stay_in_the_batches_they_were_given_in(pooling):
    weights = model("convbert", conv_kernel_size=3)
    expected = []
    for start in (0, 2, 4):
        batch = nz.encode(tokenizer(), TEXTS[start : start + 2])
        states, mask = nz.forward(weights, **batch).last_hidden_state, batch["attention_mask"][:, :, None]
        expected.append((states * mask).sum(1) / mask.sum(1) if pooling == "mean" else states[:, 0])
    found = embed(TEXTS, weights, pooling=pooling, batch_size=2)
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-12)
    if pooling == "mean":  # padding is not averaged over, but it is seen: so the batches do matter
        assert not np.allclose(found, embed(TEXTS, weights, batch_size=1), atol=1e-6)


def test_one_text_is_one_row_and_no_text_is_no_row():
    assert embed("房间").shape == (1, 8) and np.array_equal(embed("房间"), embed(["房间"]))
    for dtype in ("float32", "float64"):
        nothing = embed([], model(dtype=dtype))
        assert nothing.shape == (0, 8) and nothing.dtype == dtype
    assert embed(tuple(TEXTS)).shape == (len(TEXTS), 8)
    for texts in (iter(TEXTS), np.array(TEXTS), np.array(TEXTS, object), dict.fromkeys(TEXTS).keys()):
        assert np.array_equal(embed(texts), embed(TEXTS))


def test_the_shipped_model_and_its_tokenizer_are_what_is_left_out():
    weights = nz.load()
    expected = nz.embed(TEXTS, weights, nz.load_tokenizer())
    assert expected.shape == (len(TEXTS), 256) and expected.dtype == np.float32
    assert np.array_equal(nz.embed(TEXTS), expected) and np.array_equal(nz.embed(TEXTS, weights), expected)


def test_half_precision_is_pooled_in_float32():
    weights = model(dtype="float16")
    batch = nz.encode(tokenizer(), TEXTS)
    states = nz.forward(weights, **batch).last_hidden_state
    assert states.dtype == np.float16
    for pooling in POOLINGS:
        found = embed(TEXTS, weights, pooling=pooling)
        assert found.dtype == np.float32
        if pooling == "mean":
            mask = batch["attention_mask"][:, :, None]
            expected = (states.astype(np.float64) * mask).sum(1) / mask.sum(1)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_vectors_of_half_precision_are_normalised_in_float32(pooling):
    weights = model(dtype="float16")
    plain, found = (embed(TEXTS, weights, pooling=pooling, normalize=normalize) for normalize in (False, True))
    assert found.dtype == np.float32
    expected = plain.astype(np.float64) / np.linalg.norm(plain.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_normalising_a_vector_of_almost_no_length_follows_the_references_rule():
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    for size in (0.0, 1e-13, 1e-12, 1e-11, 1e20):
        tensors = {name: np.array(array) for name, array in model().items()}
        tensors["encoder.layer.1.output.LayerNorm.weight"][:] = size  # the last thing that happens to a hidden state
        weights = nz.Weights(tensors, model().config)
        expected = torch.nn.functional.normalize(torch.tensor(embed(TEXTS, weights)), p=2, dim=1)
        np.testing.assert_allclose(embed(TEXTS, weights, normalize=True), expected, rtol=1e-12)


def test_max_length_cuts_and_nothing_else_does():
    long = "房间很干净，" * 100  # 602 tokens, more than the 40 of the configuration, which do not bind NEZHA
    np.testing.assert_allclose(embed(long)[0], alone(long, model(), "mean"), rtol=0, atol=1e-12)
    np.testing.assert_allclose(embed(long, max_length=8), embed("房间很干净，"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["bert", "convbert"])
def test_a_text_longer_than_a_models_positions_is_named_and_not_cut(family):
    weights = model(family)
    texts = ["好" * 38, "好", "好" * 39, "好"]
    with pytest.raises(
        ValueError, match=r"texts\[2\]: expected at most 40 tokens, because the model has no more .* got 41; max_length"
    ):
        embed(texts, weights, batch_size=2)
    with pytest.raises(ValueError, match=r"texts\[2\]: expected at most 40 tokens"):
        embed(texts, weights, max_length=41)
    assert embed(texts, weights, max_length=40).shape == (4, 8)


def test_an_array_library_of_another_device_is_read_back_once_for_each_batch(monkeypatch):
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is the GPU's stand-in")
    device = strict.Device("device1")
    strict_weights = nz.Weights(
        {name: strict.asarray(np.asarray(array), device=device) for name, array in model().items()}, model().config
    )
    shapes = []

    def watched(array, original=nz.text.embed.to_numpy):
        shapes.append(array.shape)
        return original(array)

    monkeypatch.setattr(nz.text.embed, "to_numpy", watched)
    for pooling in POOLINGS:
        shapes.clear()
        found = nz.embed(TEXTS, strict_weights, tokenizer(), pooling=pooling, normalize=True, batch_size=4)
        assert type(found) is np.ndarray
        assert sorted(shapes) == [(1, 1), (2, 8), (4, 8)]  # one number for its dtype, and one vector for each text
        np.testing.assert_allclose(found, embed(TEXTS, pooling=pooling, normalize=True), rtol=0, atol=1e-12)


def test_a_tokenizer_that_is_set_to_cut_is_obeyed_and_padding_changes_nothing():
    set_up = nz.load_tokenizer()
    set_up.enable_truncation(4)
    set_up.enable_padding(length=20)
    np.testing.assert_allclose(nz.embed(TEXTS, model(), set_up), embed(TEXTS, max_length=4), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        nz.embed(TEXTS, model(), set_up, max_length=6), embed(TEXTS, max_length=6), rtol=0, atol=1e-12
    )


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (None, TypeError, "texts: expected a str or a list of str, got NoneType"),
        (b"bytes", TypeError, "texts: expected a str or a list of str, got bytes"),
        ({"a": 1}, TypeError, "texts: expected a str or a list of str, got dict"),
        (iter(["a", 5]), TypeError, r"texts\[1\]: expected a str, got int"),
        (np.array([["a"]]), TypeError, r"texts\[0\]: expected a str, got ndarray"),
        (np.array("a"), TypeError, r"texts: expected a str or a list of str, got ndarray"),
        (["a", None], TypeError, r"texts\[1\]: expected a str, got NoneType"),
        ([["a", "b"]], TypeError, r"texts\[0\]: expected a str, got list"),
        (["a", "b", "\ud800"], ValueError, r"texts\[2\]: expected valid Unicode"),
    ],
)
def test_what_are_no_texts_is_refused(texts, error, message):
    with pytest.raises(error, match=f"^{message}"):
        embed(texts, batch_size=1)


@pytest.mark.parametrize("texts", [[], ["好"]])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pooling": "sum"}, ValueError, "pooling: expected one of mean, cls, .*, or several joined by .*, got 'sum'"),
        (
            {"pooling": "mean+"},
            ValueError,
            "pooling: expected one of .*, or several joined by .*, got 'mean",
        ),
        ({"pooling": ["mean"]}, TypeError, "pooling: expected a str or None, got list"),
        ({"normalize": "l2"}, TypeError, "normalize: expected True, False or None, got 'l2'"),
        ({"normalize": 1}, TypeError, "normalize: expected True, False or None, got 1"),
        ({"prompt": b"query: "}, TypeError, "prompt: expected a str or None, got bytes"),
        ({"batch_size": 0}, ValueError, "batch_size: expected a number from 1 on, got 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size: expected an integer, got 2.0"),
        ({"batch_size": True}, TypeError, "batch_size: expected an integer, got True"),
        ({"max_length": 1}, ValueError, "max_length: expected at least 2, the special tokens, got 1"),
        ({"max_length": "10"}, TypeError, "max_length: expected an int or None, got str"),
    ],
)
def test_wrong_options_are_refused_even_without_a_text(texts, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        embed(texts, **options)


def test_a_model_without_a_pooler_serves_the_other_poolings():
    bare = nz.Weights({name: a for name, a in model().items() if not name.startswith("pooler.")}, model().config)
    for weights in (bare, model("convbert")):
        assert embed(TEXTS, weights).shape == (len(TEXTS), 8)
        with pytest.raises(ValueError, match=r"pooling: expected mean, cls, .* because the weights have no pooler"):
            embed([], weights, pooling="pooler")


def test_weights_and_tokenizer_must_be_there_and_fit():
    with pytest.raises(TypeError, match="weights: expected Weights or None, got dict"):
        nz.embed(TEXTS, dict(model()))
    with pytest.raises(ValueError, match="tokenizer: expected one, because the weights were not loaded from a folder"):
        nz.embed(TEXTS, model())
    with pytest.raises(TypeError, match=r"tokenizer: expected a tokenizers.Tokenizer, got str"):
        nz.embed(TEXTS, model(), "vocab.txt")
    small = nz.init(model().config.replace(vocab_size=50))
    with pytest.raises(
        ValueError, match=r"tokenizer: expected ids from 0 to 49, got id [0-9]+: this vocabulary belongs"
    ):
        nz.embed(TEXTS, small, tokenizer())


def test_a_text_without_a_single_token_is_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers

    bare = Tokenizer(models.WordPiece({"[UNK]": 0, "[PAD]": 1, "a": 2}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    assert nz.embed(["a", "a b"], model(), bare).shape == (2, 8)
    for texts in (["a", ""], [""]):
        with pytest.raises(ValueError, match=rf"texts\[{len(texts) - 1}\]: expected at least one token, got none"):
            nz.embed(texts, model(), bare)
