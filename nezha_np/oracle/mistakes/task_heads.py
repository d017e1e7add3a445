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
    across_texts=("**text**",),
)
another_summary = mistake(
    TASK_HEADS,
    "summary of the first token",
    does="a choice is summarised by another token than summary_type says",
    right="the token of summary_type, by default the last",
    families=CONVBERT,
    across_texts=("**text**",),
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


def unmasked(step: Step, x: Any) -> Any:
    """Where tokens are attended to, (B, L)."""
    mask = np.asarray(step.inputs["attention_mask"])
    if mask.size != x.shape[0] * x.shape[1]:
        raise ValueError("the mask has no number for each token")
    return mask.reshape(x.shape[:2]) != 0


def mean_of_unmasked(step: Step, x: Any) -> Any:
    """The mean of the tokens that are attended to."""
    may = unmasked(step, x)[:, :, None]
    return (x * may).sum(axis=1) / np.maximum(may.sum(axis=1), 1)


def masked_sum_over_all(step: Step, x: Any) -> Any:
    """The sum of the tokens that are attended to over the number of all."""
    return (x * unmasked(step, x)[:, :, None]).mean(axis=1)


def last_of_unmasked(step: Step, x: Any) -> Any:
    """The last token that is attended to."""
    may = unmasked(step, x)
    return x[np.arange(len(x)), x.shape[1] - 1 - may[:, ::-1].argmax(axis=1)]


def largest_of_unmasked(step: Step, x: Any) -> Any:
    """The maximum over the tokens that are attended to."""
    return np.where(unmasked(step, x)[:, :, None], x, -np.inf).max(axis=1)


def first_rows(step: Step, x: Any) -> Any:
    """The first B rows of (B · L, H)."""
    return x.reshape(-1, x.shape[-1])[: len(x)]


def strided_rows(step: Step, x: Any) -> Any:
    """Row L · text of (L, B) in place of (B, L)."""
    return x.transpose(1, 0, 2).reshape(x.shape)[:, 0]


def token_at(index: int) -> Callable[..., Any]:
    """A token of another number."""

    def change(step: Step, x: Any) -> Any:
        if not -x.shape[1] <= index < x.shape[1]:
            raise ValueError("there is no such token")
        return x[:, index]

    return change


OTHER_TOKENS: dict[str, Callable[..., Any]] = {
    "second token": token_at(1),
    "third token": token_at(2),
    "last token but one": token_at(-2),
    "last token that is attended to": last_of_unmasked,
    "mean of those attended to": mean_of_unmasked,
    "sum of those attended to, over all": masked_sum_over_all,
    "sum of all": lambda step, x: x.sum(axis=1),
    "maximum of all": lambda step, x: x.max(axis=1),
    "maximum of those attended to": largest_of_unmasked,
    "mean without the first": lambda step, x: x[:, 1:].mean(axis=1),
    "mean of first and last": lambda step, x: (x[:, 0] + x[:, -1]) / 2.0,
    "first rows of all texts": first_rows,
    "texts and tokens read in another order": strided_rows,
    "first text's for all": lambda step, x: np.broadcast_to(x[:1, 0], x[:, 0].shape),
}
for way, of_tokens in OTHER_TOKENS.items():
    another_token.way(way, selection.first_token)(of_tokens)
    another_summary.way(way, selection.last_token)(of_tokens)

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


@ends_swapped.way("columns read as halves of each text", selection.column)
def halves_of_text(step: Step, x: Any, *, index: int) -> Any:
    """(B, 2, L) in place of (B, L, 2)."""
    return x.reshape(x.shape[0], x.shape[2], x.shape[1])[:, index]


@ends_swapped.way("the start's for both", selection.column)
def start_for_both(step: Step, x: Any, *, index: int) -> Any:
    """The first column always."""
    return step.right(x, index=0)


logits_masked = mistake(
    TASK_HEADS,
    "logits of masked tokens set",
    does="logits of masked tokens are set to a number, or one is added to them",
    right="to leave them as they are",
)


def set_to(number: float, *, added: bool) -> Callable[..., Any]:
    """Another number for masked tokens, or one more."""

    def change(step: Step, *arguments: Any, **options: Any) -> Any:
        y = step.right(*arguments, **options)
        mask = np.asarray(step.inputs["attention_mask"])
        if y.ndim < 2 or mask.shape != y.shape[:2] or (mask != 0).all():
            raise ValueError("there is no masked token")
        may = (mask != 0).reshape(mask.shape + (1,) * (y.ndim - 2))
        return np.where(may, y, y + number if added else number)

    return change


TOKEN_LOGITS = ("classifier", "qa_outputs", *LM_DECODERS)
for number in (-1e4, -1e9, -1e30, -100.0, 0.0):
    for added in (False, True) if number else (False,):
        way = f"{number:g} {'added' if added else 'in their place'}".replace("e+0", "e").replace("e+", "e")
        logits_masked.add_way(
            way.replace("-", "−"),
            {selection.column: set_to(number, added=added)},
        )
        logits_masked.add_way(
            f"{way}, of the linear layer".replace("-", "−"),
            {linear: At(TOKEN_LOGITS, set_to(number, added=added))},
        )


@logits_masked.recogniser
def any_number(evidence: Evidence) -> Ways:
    """Recognise any other number, of start and end of an answer."""
    mask = np.asarray(evidence.step.inputs.get("attention_mask"))
    if evidence.layer is not selection.column or mask.shape != evidence.right.shape or (mask != 0).all():
        return {}
    of_masked, right = evidence.theirs[mask == 0], evidence.right[mask == 0]
    number, more = float(np.median(of_masked)), float(np.median(of_masked - right))
    return {
        f"{number:.6g} in their place": {selection.column: set_to(number, added=False)},
        f"{more:.6g} added": {selection.column: set_to(more, added=True)},
    }


regrouped = mistake(
    TASK_HEADS,
    "choices grouped otherwise",
    does="the scores of the choices are put into texts in another order",
    right="(B·C, 1) → (B, C): the choices of a text follow one another",
    across_texts=("**",),
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
