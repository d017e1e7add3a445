"""Mistakes in the pooler and the heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np import families
from nezha_np.layers import activations, selection
from nezha_np.layers.linear import linear
from nezha_np.layers.softmax import softmax
from nezha_np.oracle.mistakes.linear import another_decoder
from nezha_np.oracle.mistakes.mistake import CONVBERT, DECODERS, Mistake, first
from nezha_np.oracle.replay import At, Changes


def as_probabilities(bend: Callable[[Any], Any]) -> Changes:
    """Logits after a softmax."""
    heads = (*DECODERS, "classifier", "seq_relationship", "qa_outputs", "out_proj")
    return {linear: At(heads, lambda step, *arguments: bend(step.right(*arguments)))}


HEADS = (
    Mistake(
        "pooler without tanh",
        "the pooler's linear layer is not followed by tanh",
        {"": {activations.tanh: At("pooler.activation", first)}},
        ("nezha", "bert"),
    ),
    Mistake(
        "pooler of another token",
        "another token than the first, [CLS], or the mean of all, goes into the pooler or the classifier",
        {
            "last token": {selection.first_token: lambda step, x: x[:, -1, :]},
            "mean of all": {selection.first_token: lambda step, x: x.mean(axis=1)},
        },
    ),
    Mistake(
        "summary of the first token",
        "a choice is summarised by another token than summary_type says; ConvBERT's default is the last",
        {
            "first token": {selection.last_token: lambda step, x: x[:, 0, :]},
            "mean of all": {selection.last_token: lambda step, x: x.mean(axis=1)},
        },
        CONVBERT,
    ),
    Mistake(
        "decoder untied",
        "the logits are another linear map of the same hidden states; the decoder's matrix is the word embeddings",
        {},
        recognise=another_decoder,
    ),
    Mistake(
        "transform of the language model missing",
        "the decoder follows the last layer; linear layer, activation and norm of the transform come between",
        {"": {families.transform: first}},
        ("nezha", "bert"),
    ),
    Mistake(
        "probabilities for logits",
        "logits are returned after a softmax; they are what comes before it",
        {
            "softmax": as_probabilities(softmax),
            "log softmax": as_probabilities(lambda x: np.log(softmax(x))),
        },
    ),
    Mistake(
        "start and end swapped",
        "the first column of qa_outputs scores the end of the answer; it scores the start",
        {"": {selection.column: lambda step, x, *, index: step.right(x, index=1 - index)}},
    ),
)
