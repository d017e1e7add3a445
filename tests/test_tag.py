"""`nz.tag`: the token-classification pipeline of transformers with every aggregation, and what differs."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import LONG, fine_tuned, models, pipeline, small_config, texts, tokenizer
from tiers import examples

import nezha_np as nz
from nezha_np.text.windows import make_windows

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SCHEMES = {"BIO": BIO, "IO": ["O", "PER", "LOC"], "kinds": ["I-PER", "I-LOC", "O"], "no names": None}
NEWS = ["周恩来在北京会见了外宾。", "", "新华社北京一月一日电 😀 记者张三、李四", "John met 王五 in New York."]


@functools.cache
def taggers(family, scheme):
    names = SCHEMES[scheme]
    options = {"num_labels": 3} if names is None else {"id2label": dict(enumerate(names))}
    weights, model = models("token_classification", small_config(family, **options))
    return weights, pipeline("TokenClassificationPipeline", model)


def assert_entities(found, text, expected):
    label = "entity" if expected and "entity" in expected[0] else "entity_group"
    ours = [(entity.label, entity.start, entity.end) for entity in found]
    assert ours == [(one[label], one["start"], one["end"]) for one in expected]
    for entity, other in zip(found, expected, strict=True):
        assert entity.score == pytest.approx(float(other["score"]), abs=1e-5)
        assert entity.text == text[entity.start : entity.end]


@given(
    some=st.lists(texts, min_size=1, max_size=4),
    family=st.sampled_from(["nezha", "bert", "convbert"]),
    scheme=st.sampled_from(sorted(SCHEMES)),
    aggregation=st.sampled_from([None, "simple", "first", "average", "max"]),
)
@examples(60, quick=12)
def test_entities_are_those_of_the_pipeline(some, family, scheme, aggregation):
    weights, theirs = taggers(family, scheme)
    found = nz.tag(some, weights, tokenizer(), aggregation=aggregation, batch_size=3)
    for one, text in zip(found, some, strict=True):
        assert_entities(one, text, theirs(text, aggregation_strategy=aggregation or "none"))


@pytest.mark.parametrize("aggregation", [None, "simple", "first", "average", "max"])
def test_the_shipped_tagger_is_the_default_and_equals_the_pipeline(tmp_path, aggregation):
    _, model = fine_tuned("names", "NezhaForTokenClassification", tmp_path)
    theirs = pipeline("TokenClassificationPipeline", model)
    for found, text in zip(nz.tag(NEWS, aggregation=aggregation), NEWS, strict=True):
        assert_entities(found, text, theirs(text, aggregation_strategy=aggregation or "none"))


def test_a_text_of_5000_characters_is_tagged_as_in_the_pipeline():
    config = small_config(max_position_embeddings=5100, num_hidden_layers=1, id2label=dict(enumerate(BIO)))
    weights, model = models("token_classification", config, dtype="float32")
    (found,) = nz.tag(LONG, weights, tokenizer())
    assert_entities(found, LONG, pipeline("TokenClassificationPipeline", model)(LONG, aggregation_strategy="first"))


def hand_made(tags_by_token, scheme):
    """Make a model that gives each token the tag that is wanted, whatever stands beside it: one-hot features."""
    names = dict(enumerate(scheme))
    config = small_config(id2label=names, hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    weights = dict(nz.init(config, "token_classification", dtype="float64"))
    for name in weights:
        if "encoder" in name and not name.endswith("LayerNorm.weight"):
            weights[name] = np.zeros_like(weights[name])  # what comes in goes out
        if name.endswith(("position_embeddings.weight", "token_type_embeddings.weight")):
            weights[name] = np.zeros_like(weights[name])
    table = np.zeros_like(weights["embeddings.word_embeddings.weight"])
    classifier = np.zeros((len(scheme), 8))
    classifier[range(len(scheme)), range(len(scheme))] = 10.0
    for token, tag in tags_by_token.items():
        table[tokenizer().token_to_id(token), scheme.index(tag)] = 1.0
    weights["embeddings.word_embeddings.weight"], weights["classifier.weight"] = table, classifier
    weights["classifier.bias"] = np.zeros(len(scheme))
    return nz.Weights(weights, config)


@pytest.mark.parametrize(
    "scheme",
    [
        ["O", "B-PER", "I-PER", "E-PER", "S-PER"],
        ["O", "B-PER", "M-PER", "E-PER", "S-PER"],
        ["O", "B-PER", "I-PER", "L-PER", "U-PER"],
    ],
)
def test_every_scheme_of_tags_makes_whole_entities_which_the_pipeline_splits(scheme):
    _, begin, inner, end, single = scheme
    weights = hand_made({"周": begin, "恩": inner, "来": end, "王": single, "在": "O"}, scheme)
    (found,) = nz.tag("周恩来王周来在", weights, tokenizer())
    assert [(entity.label, entity.text) for entity in found] == [("PER", "周恩来"), ("PER", "王"), ("PER", "周来")]


def test_a_word_with_an_invisible_character_is_a_word_of_its_own():
    weights = hand_made({"a": "B-PER", "the": "B-LOC"}, ["O", "B-PER", "B-LOC"])
    text = "a t\u200bhe"  # which the pipeline takes for a part of the word before, because it is longer than its token
    (found,) = nz.tag(text, weights, tokenizer())
    assert [(entity.label, entity.text) for entity in found] == [("PER", "a"), ("LOC", "t\u200bhe")]


@pytest.mark.parametrize("family", ["nezha", "bert", "convbert"])
def test_windows_give_each_token_one_tag_and_windows_that_see_enough_change_nothing(family):
    names = dict(enumerate(BIO))
    weights = hand_made({"周": "B-PER", "恩": "I-PER", "来": "I-PER"}, BIO)
    text = "周恩来在北京，" * 40
    (whole,) = nz.tag(text, weights, tokenizer(), max_length=390)
    for size, stride in ((20, 5), (13, 0), (8, 128), (20, 17)):
        (found,) = nz.tag(text, weights, tokenizer(), max_length=size, stride=stride)
        assert [(e.label, e.start, e.end) for e in found] == [(e.label, e.start, e.end) for e in whole]
    assert len(whole) == 40
    # Any model: a token has the tag of the window in which it stands farther from the end.
    weights = nz.init(
        small_config(family, id2label=names, initializer_range=0.9), "token_classification", dtype="float64"
    )
    (found,) = nz.tag(text, weights, tokenizer(), max_length=20, stride=8, aggregation=None)
    windows = make_windows(tokenizer(), text, size=20, stride=8).windows
    tags = {}
    for window in windows:
        logits = nz.token_classification(weights, **{name: row[None] for name, row in window.row.items()}).logits[0]
        inside = np.flatnonzero(window.tokens >= 0)
        for place in inside:
            token, depth = int(window.tokens[place]), min(place - inside[0], inside[-1] - place)
            edge = token < 6 or token > len(text) - 7
            if edge or depth >= 4:
                tags.setdefault(token, set()).add(int(logits[place].argmax()))
    by_start = {entity.start: entity.label for entity in found}
    for token in range(len(text)):
        assert by_start.get(token, "O") in {names[index] for index in tags[token]}


def test_a_text_that_is_longer_than_the_positions_is_read_whole():
    weights = hand_made({"周": "B-PER", "恩": "I-PER", "来": "I-PER"}, BIO)
    (found,) = nz.tag("很好" * 300 + "周恩来", weights, tokenizer())
    assert [(entity.text, entity.start) for entity in found] == [("周恩来", 600)]


def test_no_text_and_texts_without_tokens_have_no_entities():
    assert nz.tag([]) == [] and nz.tag(["", " \n"]) == [[], []]
    assert nz.tag(iter(NEWS)) == nz.tag(np.array(NEWS)) == nz.tag(NEWS)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (
            ValueError,
            "aggregation: expected one of simple, first, average, max or None, got 'none'",
            {"aggregation": "none"},
        ),
        (ValueError, "max_length: expected a number from 8 on, got 3", {"max_length": 3}),
        (ValueError, "stride: expected a number from 0 on, got -1", {"stride": -1}),
        (TypeError, "texts[1]: expected a str, got float", {"texts": ["房", 0.5]}),
        (ValueError, "token_classification needs tensors that the weights do not have", {"weights": nz.load()}),
        (TypeError, "tokenizer: expected a tokenizers.Tokenizer, got str", {"tokenizer": "vocab.txt"}),
    ],
)
def test_a_wrong_argument_is_refused_by_name(error, message, arguments):
    with pytest.raises(error) as caught:
        nz.tag(**({"texts": "房间"} | arguments))
    assert message in str(caught.value)
