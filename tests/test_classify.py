"""`nz.classify` and `nz.classify_by_description`: the reference's pipelines on the same models, and what differs."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import FAMILIES, LONG, fine_tuned, models, pipeline, small_config, texts, tokenizer
from tiers import examples

import nezha_np as nz

PROBLEMS = {
    "one class of several": {"num_labels": 3, "problem_type": "single_label_classification"},
    "several classes": {"num_labels": 3, "problem_type": "multi_label_classification"},
    "one class by itself": {"num_labels": 1},
    "no type": {"num_labels": 4},
    "names": {"id2label": {0: "差", 1: "中", 2: "好"}},
}


@functools.cache
def classifiers(family, problem):
    weights, model = models("sequence_classification", small_config(family, **PROBLEMS[problem]))
    return weights, pipeline("TextClassificationPipeline", model)


def assert_labels(found, expected, atol=1e-5):
    """Compare labels and scores; labels whose scores are equal may stand in either order."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other["score"], abs=atol)
        same = [label["label"] for label in expected if abs(label["score"] - other["score"]) < atol]
        assert one.label in same


@given(data=st.data(), some=st.lists(texts, min_size=1, max_size=4), family=st.sampled_from(sorted(FAMILIES)))
@examples(40)
def test_labels_and_scores_are_those_of_the_pipeline(data, some, family):
    weights, theirs = classifiers(family, data.draw(st.sampled_from(sorted(PROBLEMS))))
    top_k = data.draw(st.sampled_from([None, 1, 2, 9]))
    found = nz.classify(some, weights, tokenizer(), top_k=top_k, batch_size=data.draw(st.integers(1, 5)))
    for one, other in zip(found, theirs(some, top_k=top_k), strict=True):
        assert_labels(one, other)


@given(
    pairs=st.lists(st.tuples(texts, texts.filter(bool)), min_size=1, max_size=4),
    family=st.sampled_from(["bert", "nezha"]),
)
@examples(20, quick=4)
def test_pairs_are_those_of_the_pipeline(pairs, family):
    weights, theirs = classifiers(family, "names")
    found = nz.classify(
        [one for one, _ in pairs], weights, tokenizer(), pairs=[other for _, other in pairs], top_k=None
    )
    for one, (text, pair) in zip(found, pairs, strict=True):
        assert_labels(one, theirs({"text": text, "text_pair": pair}, top_k=None))


def test_an_empty_second_text_makes_a_pair_which_the_pipeline_forgets():
    weights, theirs = classifiers("bert", "names")
    (found,) = nz.classify("房间", weights, tokenizer(), pairs="", top_k=None)
    logits = nz.sequence_classification(weights, **nz.encode(tokenizer(), "房间", "")).logits[0]
    np.testing.assert_allclose([one.score for one in found], sorted(nz.softmax(logits))[::-1], atol=1e-12)
    assert theirs({"text": "房间", "text_pair": ""}, top_k=None) == theirs({"text": "房间"}, top_k=None)


def test_a_text_of_5000_characters_is_classified_as_in_the_pipeline():
    config = small_config(num_labels=3, max_position_embeddings=5100, num_hidden_layers=1)
    weights, model = models("sequence_classification", config, dtype="float32")
    theirs = pipeline("TextClassificationPipeline", model)
    found = nz.classify(["房间", LONG, ""], weights, tokenizer(), top_k=None)
    for one, text in zip(found, ["房间", LONG, ""], strict=True):
        assert_labels(one, theirs(text, top_k=None))


def test_the_shipped_classifier_is_the_default_and_equals_the_pipeline(tmp_path):
    reviews = ["房间很干净，服务也好。", "又脏又吵，不会再来。", "", "The hotel 😀", "早餐一般"]
    weights, model = fine_tuned("sentiment", "NezhaForSequenceClassification", tmp_path)
    theirs = pipeline("TextClassificationPipeline", model)(reviews, top_k=None)
    for found in (nz.classify(reviews, top_k=None), nz.classify(reviews, weights, top_k=None)):
        for one, other in zip(found, theirs, strict=True):
            assert_labels(one, other)


def test_a_regression_gives_its_numbers_which_the_pipeline_squeezes():
    weights, model = models("sequence_classification", small_config(num_labels=1, problem_type="regression"))
    ((found,),) = nz.classify("房间", weights, tokenizer())
    theirs = pipeline("TextClassificationPipeline", model)
    (number,) = theirs("房间", top_k=1, function_to_apply="none")
    assert found.score == pytest.approx(number["score"], abs=1e-9) and found.label == "LABEL_0"
    (squeezed,) = theirs("房间", top_k=1)
    assert squeezed["score"] == pytest.approx(1 / (1 + np.exp(-found.score)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_gets_what_it_gets_alone_whatever_its_batch(family):
    weights = nz.init(small_config(family, initializer_range=0.5), "sequence_classification", dtype="float64")
    some = ["房间很干净。", "", "早餐", "a hotel", "早", "价格也便宜，下次还会来", "很好"]
    together = nz.classify(some, weights, tokenizer(), top_k=None)
    for text, found in zip(some, together, strict=True):
        (alone,) = nz.classify([text], weights, tokenizer(), top_k=None)
        assert [label.label for label in found] == [label.label for label in alone]
        np.testing.assert_allclose([one.score for one in found], [one.score for one in alone], rtol=0, atol=1e-12)


def test_any_iterable_of_texts_is_classified_and_no_text_gives_no_result():
    some = ["房间很干净", "又脏又吵"]
    expected = nz.classify(some)
    assert nz.classify(iter(some)) == nz.classify(np.array(some)) == nz.classify(tuple(some)) == expected
    ((alone,),) = nz.classify(some[0])  # a batch of one may round otherwise
    assert alone.label == expected[0][0].label and alone.score == pytest.approx(expected[0][0].score, rel=1e-5)
    assert nz.classify([]) == []


def test_max_length_cuts_and_a_text_that_is_too_long_is_named():
    weights = nz.init(small_config(max_position_embeddings=40), "sequence_classification", dtype="float64")
    assert nz.classify("好" * 50, weights, tokenizer(), max_length=12) == nz.classify("好" * 10, weights, tokenizer())
    with pytest.raises(ValueError, match=r"^texts\[1\]: expected at most 40 tokens, .* got 52; max_length cuts"):
        nz.classify(["好", "好" * 50], weights, tokenizer())


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "texts: expected a str or a list of str, got int", {"texts": 5}),
        (TypeError, "texts: expected a str or a list of str, got dict", {"texts": {"房": 1}}),
        (TypeError, "texts[1]: expected a str, got NoneType", {"texts": ["房", None]}),
        (ValueError, "pairs: expected one for each of the 2 texts, got 1", {"texts": ["房", "间"], "pairs": "好"}),
        (ValueError, "top_k: expected a number from 1 on, got 0", {"top_k": 0}),
        (TypeError, "top_k: expected an integer, got 1.0", {"top_k": 1.0}),
        (ValueError, "batch_size: expected a number from 1 on, got 0", {"batch_size": 0}),
        (TypeError, "weights: expected Weights or None, got str", {"weights": "sentiment"}),
        (ValueError, "sequence_classification needs tensors that the weights do not have", {"weights": nz.load()}),
    ],
)
def test_a_wrong_argument_is_refused_by_name(error, message, arguments):
    with pytest.raises(error) as caught:
        nz.classify(**({"texts": "房间"} | arguments))
    assert message in str(caught.value)


# --------------------------------------------------------------------------------------------------------- descriptions

INFERENCE = {0: "contradiction", 1: "neutral", 2: "entailment"}


@functools.cache
def inference(family):
    weights, model = models("sequence_classification", small_config(family, id2label=INFERENCE))
    return weights, pipeline("ZeroShotClassificationPipeline", model)


@given(
    some=st.lists(texts.filter(bool), min_size=1, max_size=3),
    labels=st.lists(st.sampled_from(["体育", "财经", "travel", "酒店"]), min_size=1, max_size=4, unique=True),
    several=st.booleans(),
    family=st.sampled_from(["bert", "nezha"]),
)
@examples(30, quick=6)
def test_descriptions_are_scored_as_in_the_pipeline(some, labels, several, family):
    weights, theirs = inference(family)
    found = nz.classify_by_description(some, labels, weights, tokenizer(), multi_label=several)
    for text, one in zip(some, found, strict=True):
        other = theirs(text, labels, multi_label=several, hypothesis_template="这句话是关于{}的。")
        pairs = zip(other["labels"], other["scores"], strict=True)
        assert_labels(one, [{"label": label, "score": score} for label, score in pairs])


def test_contradiction_is_found_by_its_name_where_the_pipeline_takes_another_class():
    names = {0: "neutral", 1: "contradiction", 2: "entailment"}
    weights, model = models("sequence_classification", small_config(id2label=names))
    theirs = pipeline("ZeroShotClassificationPipeline", model)("球队赢了", ["体育"], hypothesis_template="是{}。")
    ((found,),) = nz.classify_by_description("球队赢了", ["体育"], weights, tokenizer(), template="是{}。")
    logits = nz.sequence_classification(weights, **nz.encode(tokenizer(), "球队赢了", "是体育。")).logits[0]
    assert found.score == pytest.approx(nz.softmax(logits[[1, 2]])[1])
    assert theirs["scores"][0] == pytest.approx(nz.softmax(logits[[0, 2]])[1])


def test_chinese_names_of_the_classes_of_inference_are_known():
    english = nz.init(small_config(id2label=INFERENCE), "sequence_classification", dtype="float64")
    chinese = nz.Weights(
        dict(english), english.config.replace(id2label={0: "矛盾", 1: "中立", 2: "蕴含"}, label2id=None)
    )
    expected = nz.classify_by_description("球队赢了", ["体育", "财经"], english, tokenizer(), multi_label=True)
    assert nz.classify_by_description("球队赢了", ["体育", "财经"], chinese, tokenizer(), multi_label=True) == expected


def test_max_length_cuts_the_text_and_never_its_description():
    weights, _ = inference("bert")
    cut = nz.classify_by_description("球队赢了" * 9, ["体育"], weights, tokenizer(), max_length=16)
    assert cut == nz.classify_by_description("球队赢", ["体育"], weights, tokenizer())


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (
            ValueError,
            "weights: expected a model that was trained for sequence_classification, got None",
            {"weights": None},
        ),
        (ValueError, "labels: expected at least one label, got none", {"labels": []}),
        (TypeError, "labels: expected a list of str, got str", {"labels": "体育,财经"}),
        (ValueError, "template: expected a sentence with {} where the label stands, got '关于'", {"template": "关于"}),
        (ValueError, "weights: expected a model of inference, with a class whose name in id2label begins", {}),
        (TypeError, "multi_label: expected True, False or None, got 'no'", {"multi_label": "no"}),
    ],
)
def test_a_wrong_argument_of_descriptions_is_refused_by_name(error, message, arguments):
    names = {0: "no", 1: "yes"} if not arguments else INFERENCE
    weights = nz.init(small_config(id2label=names), "sequence_classification")
    with pytest.raises(error) as caught:
        nz.classify_by_description(
            **({"texts": "球", "labels": ["体育"], "weights": weights, "tokenizer": tokenizer()} | arguments)
        )
    assert message in str(caught.value)
