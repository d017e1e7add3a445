"""`nz.answer`: the pipeline of transformers, with windows and impossible answers, and what differs."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import LONG, models, pipeline, small_config, texts, tokenizer
from tiers import examples

import nezha_np as nz

real = texts.filter(lambda text: bool(tokenizer().encode(text, add_special_tokens=False).ids))
short = st.text(st.sampled_from("房间很?where 早"), min_size=1, max_size=8).filter(str.strip)


@functools.cache
def answerers(family):
    weights, model = models("question_answering", small_config(family))
    return weights, pipeline("QuestionAnsweringPipeline", model)


def whole_words(text, start, end):
    """Extend a span to whole words of the text: the pipeline knows no more of a word than its window has."""
    encoding = tokenizer().encode(text, add_special_tokens=False)
    for word in set(encoding.word_ids):
        first, last = encoding.word_to_chars(word)
        if first < end and last > start:
            start, end = min(start, first), max(end, last)
    return start, end


def expected_answers(theirs, question, context, **options):
    """Return the pipeline's answers, each once, without spans whose score is 0, which end before they start."""
    found = theirs(question=question, context=context, **options)
    best = {}
    for one in [found] if isinstance(found, dict) else found:
        if one["answer"] == "" and one["start"] == one["end"] == 0:
            place = (0, 0)
        elif one["score"] == 0 or one["end"] <= one["start"]:
            continue
        else:
            place = whole_words(context, one["start"], one["end"])
        best[place] = max(best.get(place, 0.0), one["score"])
    return best


def assert_answers(found, context, expected):
    """Compare answers with those of the pipeline: it finds fewer where it has found one twice."""
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    places = {(one.start, one.end): one for one in found}
    assert len(places) == len(found) >= len(expected) and list(places)[: len(expected)] == list(expected)
    for place, score in expected.items():
        assert places[place].score == pytest.approx(score, abs=1e-5)
    for one in found:
        assert one.text == context[one.start : one.end]


@given(
    some=st.lists(st.tuples(short, real), min_size=1, max_size=3),
    family=st.sampled_from(["nezha", "bert", "convbert"]),
    top_k=st.sampled_from([1, 1, 3, 9]),
    most=st.integers(1, 40),
    impossible=st.booleans(),
    window=st.sampled_from([(384, 128), (40, 10), (24, 3)]),
)
@examples(60, quick=12)
def test_answers_are_those_of_the_pipeline(some, family, top_k, most, impossible, window):
    weights, theirs = answerers(family)
    size, stride = window
    found = nz.answer(
        [question for question, _ in some], [context for _, context in some], weights, tokenizer(), stride=stride,
        max_answer_tokens=most, top_k=top_k, impossible=impossible, max_length=size, batch_size=3,
    )  # fmt: skip
    for one, (question, context) in zip(found, some, strict=True):
        expected = expected_answers(
            theirs, question, context, top_k=top_k, max_answer_len=most, max_seq_len=size, doc_stride=stride,
            handle_impossible_answer=impossible,
        )  # fmt: skip
        assert_answers(one, context, expected)


@pytest.mark.parametrize("impossible", [False, True])
def test_a_text_of_5000_characters_is_answered_as_in_the_pipeline(impossible):
    weights, theirs = answerers("nezha")
    for question in ("早餐好吃吗？", "Is the hotel unaffable?"):
        (found,) = nz.answer(question, LONG, weights, tokenizer(), top_k=5, max_answer_tokens=15, impossible=impossible)
        assert_answers(
            found, LONG, expected_answers(theirs, question, LONG, top_k=5, handle_impossible_answer=impossible)
        )
        assert len(found) == 5


def test_a_text_without_tokens_has_no_answer_or_the_impossible_one():
    weights, _ = answerers("bert")
    assert nz.answer(["谁？"] * 2, ["", " \n"], weights, tokenizer(), top_k=3) == [[], []]
    for (found,) in nz.answer(["谁？"] * 2, ["", " \n"], weights, tokenizer(), impossible=True):
        assert (found.text, found.start, found.end) == ("", 0, 0) and found.score == pytest.approx(1.0)


def test_more_answers_than_a_text_has_spans_are_those_spans_and_none_ends_before_it_starts():
    weights, theirs = answerers("bert")
    (found,) = nz.answer("谁？", "早餐", weights, tokenizer(), top_k=9)
    assert sorted((one.start, one.end) for one in found) == [(0, 1), (0, 2), (1, 2)]
    assert any(one["score"] == 0 for one in theirs(question="谁？", context="早餐", top_k=9))


def test_one_text_may_stand_for_all_questions_and_an_empty_question_is_asked():
    weights, _ = answerers("bert")
    questions, context = ["谁？", "", "几点？"], "早餐七点开始，在一楼。"
    found = nz.answer(questions, context, weights, tokenizer())
    alone = [nz.answer(question, [context], weights, tokenizer())[0] for question in questions]
    for one, other in zip(found, alone, strict=True):
        assert (one[0].start, one[0].end) == (other[0].start, other[0].end)
        assert one[0].score == pytest.approx(other[0].score, abs=1e-12)
    assert nz.answer([], [], weights, tokenizer()) == nz.answer([], context, weights, tokenizer()) == []
    assert nz.answer(iter(questions), np.array([context] * 3), weights, tokenizer()) == found


def test_a_question_is_cut_to_half_of_a_window():
    weights, _ = answerers("bert")
    context = "早餐七点开始，在一楼。" * 9
    found = nz.answer("问" * 500, context, weights, tokenizer(), max_length=40)
    assert found == nz.answer("问" * 20, context, weights, tokenizer(), max_length=40)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "weights: expected a model that was trained for question_answering, got None", {"weights": None}),
        (ValueError, "question_answering needs tensors that the weights do not have", {"weights": nz.load()}),
        (ValueError, "contexts: expected one for each of the 1 questions, got 2", {"contexts": ["a", "b"]}),
        (TypeError, "contexts: expected a str or a list of str, got NoneType", {"contexts": None}),
        (ValueError, "stride: expected a number from 0 on, got -1", {"stride": -1}),
        (ValueError, "max_answer_tokens: expected a number from 1 on, got 0", {"max_answer_tokens": 0}),
        (ValueError, "top_k: expected a number from 1 on, got 0", {"top_k": 0}),
        (TypeError, "top_k: expected an integer, got None", {"top_k": None}),
        (TypeError, "impossible: expected True, False or None, got 'no'", {"impossible": "no"}),
        (ValueError, "max_length: expected a number from 8 on, got 7", {"max_length": 7}),
        (ValueError, "questions[0]: expected at most 400 tokens", {"contexts": "好" * 900, "max_length": 500}),
    ],
)
def test_a_wrong_argument_is_refused_by_name(error, message, arguments):
    weights = nz.init(small_config(), "question_answering")
    given = {"questions": "谁？", "contexts": "房间", "weights": weights, "tokenizer": tokenizer()} | arguments
    with pytest.raises(error) as caught:
        nz.answer(**given)
    assert message in str(caught.value)
