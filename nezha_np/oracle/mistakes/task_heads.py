"""Mistakes in the pooler and the task heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.families import shared
from nezha_np.layers import activations, selection
from nezha_np.layers.linear import linear
from nezha_np.layers.softmax import softmax
from nezha_np.model import model
from nezha_np.oracle.mistakes.linear import another_matrix
from nezha_np.oracle.mistakes.mistake import (
    CONVBERT,
    LM_DECODERS,
    NEZHA_AND_BERT,
    Evidence,
    Mistake,
    Ways,
    first,
    mistake,
)
from nezha_np.oracle.mistakes.narrowing import HALF, narrow
from nezha_np.oracle.replay import At, Change, Changes, Step

TASK_HEADS: list[Mistake] = []
# The linear layers that make logits.
LAST = (*LM_DECODERS, "classifier", "classifier.out_proj", "cls.seq_relationship", "qa_outputs")

# -------------------------------------------------------------------------------------------------------------- pooler

without_tanh = mistake(
    TASK_HEADS,
    "pooler without tanh",
    does="the pooler's linear layer is followed by nothing, or by another function",
    right="tanh",
    families=NEZHA_AND_BERT,
)
without_tanh.way("", activations.tanh, at="pooler.activation")(first)


def of_first_argument(function: Any) -> Change:
    """Another function of the first argument."""
    definition = getattr(function, "definition", function)
    return lambda step, x, *rest: definition(x)


for function in (activations.gelu, activations.gelu_new, activations.relu, activations.sigmoid):
    without_tanh.way(f"{function.__name__} in its place", activations.tanh, at="pooler.activation")(
        of_first_argument(function)
    )

pooler_left_out = mistake(
    TASK_HEADS,
    "pooler left out",
    does="a classifier reads the first token's hidden state as it is",
    right="to put it through the pooler first, a linear layer and tanh",
    families=NEZHA_AND_BERT,
)

another_token = mistake(
    TASK_HEADS,
    "pooler of another token",
    does="another token, or the mean of all, goes into the pooler or the classifier",
    right="the first token, [CLS]",
)
another_summary = mistake(
    TASK_HEADS,
    "summary of the first token",
    does="a choice is summarised by another token than summary_type says",
    right="the token of summary_type, by default the last",
    families=CONVBERT,
)


@pooler_left_out.way("", model.pooler)
def unpooled(step: Step, x: Any, w: Any) -> Any:
    """The first token's hidden state."""
    return x[:, 0, :]


@another_token.way("last token", selection.first_token)
def last_of_all(step: Step, x: Any) -> Any:
    """The last token."""
    return x[:, -1, :]


@another_summary.way("first token", selection.last_token)
def first_of_all(step: Step, x: Any) -> Any:
    """The first token."""
    return x[:, 0, :]


@another_token.way("mean of all", selection.first_token)
@another_summary.way("mean of all", selection.last_token)
def mean_of_all(step: Step, x: Any) -> Any:
    """The mean of all tokens, padding too."""
    return x.mean(axis=1)


another_token.way("every token", selection.first_token)(first)

# ------------------------------------------------------------------------------------------------------ language model

untied = mistake(
    TASK_HEADS,
    "decoder untied",
    does="the logits are another linear map of the hidden states",
    right="the word embeddings as the decoder's matrix",
    fits_any_numbers=True,
)


@untied.recogniser
def another_decoder(evidence: Evidence) -> Ways:
    """Recognise another matrix of a decoder that is tied."""
    if not evidence.step.config.tie_word_embeddings:
        return {}
    return another_matrix(evidence, of_decoders=True)


tied = mistake(
    TASK_HEADS,
    "decoder tied",
    does="the decoder multiplies by the word embeddings",
    right="a matrix of its own: the configuration says tie_word_embeddings = false",
)


@tied.way("", linear, at=LM_DECODERS)
def by_word_embeddings(step: Step, x: Any, weight: Any, *bias: Any) -> Any:
    """The word embeddings in place of the decoder's own matrix."""
    words = step.weights["embeddings.word_embeddings.weight"]
    if step.config.tie_word_embeddings or words.shape != weight.shape:
        raise ValueError("the decoder is tied, or cannot be")
    return step.right(x, words, *bias)


another_decoder_matrix = mistake(
    TASK_HEADS,
    "another decoder",
    does="the logits are another linear map of the hidden states",
    right="that of the decoder's own matrix",
    fits_any_numbers=True,
)


@another_decoder_matrix.recogniser
def another_own_decoder(evidence: Evidence) -> Ways:
    """Recognise another matrix of a decoder that is not tied."""
    if evidence.step.config.tie_word_embeddings:
        return {}
    return another_matrix(evidence, of_decoders=True)


transform_missing = mistake(
    TASK_HEADS,
    "transform of the language model missing",
    does="the decoder reads the last layer",
    right="to put linear layer, activation and norm of the transform between",
    families=NEZHA_AND_BERT,
)
transform_missing.way("", shared.transform)(first)

# -------------------------------------------------------------------------------------------------------------- logits

probabilities = mistake(
    TASK_HEADS,
    "probabilities for logits",
    does="logits are returned after a softmax",
    right="what comes before it",
)


def logits_after(function: Callable[[Any], Any]) -> Changes:
    """Logits after a softmax, or another function."""
    return {linear: At(LAST, lambda step, *arguments: function(step.right(*arguments)))}


def log_softmax(x: Any) -> Any:
    """The logarithm of the softmax."""
    probs: Any = softmax(x)
    return np.log(probs)


probabilities.add_way("softmax", logits_after(softmax))
probabilities.add_way("log softmax", logits_after(log_softmax))

narrow_logits = mistake(
    TASK_HEADS,
    "logits in half precision",
    does="the logits are rounded to a narrower dtype than the port's own",
    right="to leave them as they are",
)


def narrowed_to(dtype: str) -> Callable[[Any], Any]:
    """Rounding to a dtype."""
    return lambda x: narrow(x, dtype)


for dtype in HALF:
    narrow_logits.add_way(f"in {dtype}", logits_after(narrowed_to(dtype)))

ends_swapped = mistake(
    TASK_HEADS,
    "start and end swapped",
    does="the first column of qa_outputs is taken for the end of the answer",
    right="to take it for its start",
)


@ends_swapped.way("", selection.column)
def other_column(step: Step, x: Any, *, index: int) -> Any:
    """The other one of two columns."""
    return step.right(x, index=1 - index)


regrouped = mistake(
    TASK_HEADS,
    "choices grouped otherwise",
    does="the scores of the choices are put into texts in another order",
    right="(B·C, 1) → (B, C): the choices of a text follow one another",
)


@regrouped.way("choice by choice", selection.by_choice)
def by_text_first(step: Step, x: Any, *, choices: int) -> Any:
    """(C, B) in place of (B, C)."""
    return x.reshape(choices, -1).T


@regrouped.way("in reverse", selection.by_choice)
def choices_reversed(step: Step, x: Any, *, choices: int) -> Any:
    """The last choice first."""
    return step.right(x, choices=choices)[:, ::-1]


classes_exchanged = mistake(
    TASK_HEADS,
    "classes in another order",
    does="the logits of the classes come in another order",
    right="class 0 first; of the next sentence, 0 for one that follows",
)


@classes_exchanged.way("in reverse", linear, at=("cls.seq_relationship", "classifier", "classifier.out_proj"))
def last_class_first(step: Step, *arguments: Any) -> Any:
    """The last class first."""
    return step.right(*arguments)[..., ::-1]
