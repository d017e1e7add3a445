"""`nz.choose`: the reference's multiple-choice models, question by question."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import FAMILIES, LONG, models, small_config, texts, their_tokenizer, tokenizer
from tiers import examples

import nezha_np as nz

QUESTIONS = ["早餐几点开始？", "", "Where is it?"]
CHOICES = [["七点", "八点半", "不知道"], ["一"], ["in the hotel 😀", ""]]


@functools.cache
def choosers(family):
    return models("multiple_choice", small_config(family))


def probabilities(model, firsts, seconds):
    """Run the reference as its documentation does: the choices of a question, padded to one length."""
    import torch

    batch = their_tokenizer()(firsts, seconds, padding=True, return_tensors="pt")
    return torch.softmax(model(**{name: ids[None] for name, ids in batch.items()}).logits[0], 0).numpy()


def assert_choices(found, choices, expected):
    assert sorted(choice.index for choice in found) == list(range(len(choices)))
    assert [choice.score for choice in found] == sorted((choice.score for choice in found), reverse=True)
    for choice in found:
        assert choice.text == choices[choice.index]
        assert choice.score == pytest.approx(expected[choice.index], abs=1e-5)


@given(
    asked=st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=4)), min_size=1, max_size=3),
    family=st.sampled_from(sorted(FAMILIES)),
    batch_size=st.integers(1, 5),
)
@examples(30, quick=6)
def test_probabilities_of_choices_are_those_of_the_reference(asked, family, batch_size):
    weights, model = choosers(family)
    questions, choices = [question for question, _ in asked], [some for _, some in asked]
    found = nz.choose(questions, choices, weights, tokenizer(), top_k=None, batch_size=batch_size)
    for one, question, some in zip(found, questions, choices, strict=True):
        assert_choices(one, some, probabilities(model, [question] * len(some), some))


@pytest.mark.parametrize("contexts", [LONG[:900], ["早餐七点开始。", "", "It is here."]])
def test_with_a_context_the_pairs_are_those_of_fine_tuning(contexts):
    config = small_config("nezha", max_position_embeddings=1000)
    weights, model = models("multiple_choice", config)
    found = nz.choose(QUESTIONS, CHOICES, weights, tokenizer(), contexts=contexts, top_k=None)
    each = [contexts] * 3 if isinstance(contexts, str) else contexts
    for one, question, some, context in zip(found, QUESTIONS, CHOICES, each, strict=True):
        expected = probabilities(model, [context] * len(some), [question + choice for choice in some])
        assert_choices(one, some, expected)


def test_the_best_choice_comes_first_and_alone():
    weights, _ = choosers("bert")
    every = nz.choose(QUESTIONS, CHOICES, weights, tokenizer(), top_k=None)
    assert nz.choose(QUESTIONS, CHOICES, weights, tokenizer()) == [some[:1] for some in every]
    ((best,),) = nz.choose(QUESTIONS[0], CHOICES[0], weights, tokenizer())
    assert (best.text, best.index) == (every[0][0].text, every[0][0].index)
    assert nz.choose(iter(QUESTIONS), map(np.array, CHOICES), weights, tokenizer(), top_k=None) == every
    assert nz.choose([], [], weights, tokenizer()) == []


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "weights: expected a model that was trained for multiple_choice, got None", {"weights": None}),
        (ValueError, "multiple_choice needs tensors that the weights do not have", {"weights": nz.load()}),
        (ValueError, "choices: expected one for each of the 3 questions, got 2", {"choices": CHOICES[:2]}),
        (ValueError, "choices[1]: expected at least one choice, got none", {"choices": [["a"], [], ["b"]]}),
        (TypeError, "choices: expected a list of choices for each question, got str", {"choices": "七点"}),
        (
            TypeError,
            "choices[0]: expected the list of the choices of a question, got str",
            {"choices": ["a", "b", "c"]},
        ),
        (TypeError, "choices[2][0]: expected a str, got int", {"choices": [["a"], ["b"], [3]]}),
        (ValueError, "contexts: expected one for each of the 3 questions, got 1", {"contexts": ["一"]}),
        (ValueError, "choices[0][1]: expected at most 400 tokens", {"choices": [["a", "好" * 500], ["b"], ["c"]]}),
    ],
)
def test_a_wrong_argument_is_refused_by_name(error, message, arguments):
    weights = nz.init(small_config(), "multiple_choice")
    given = {"questions": QUESTIONS, "choices": CHOICES, "weights": weights, "tokenizer": tokenizer()} | arguments
    with pytest.raises(error) as caught:
        nz.choose(**given)
    assert message in str(caught.value)
