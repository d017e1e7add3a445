"""Mistakes in the pooler and the heads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.families import shared
from nezha_np.layers import activations, selection
from nezha_np.layers.linear import linear
from nezha_np.layers.softmax import softmax
from nezha_np.model import model
from nezha_np.oracle.mistakes.linear import another_decoder
from nezha_np.oracle.mistakes.mistake import CONVBERT, DECODERS, Mistake, first
from nezha_np.oracle.mistakes.narrowing import HALF, narrow
from nezha_np.oracle.replay import At, Change, Changes

LAST = (*DECODERS, "classifier", "seq_relationship", "qa_outputs", "out_proj")  # the layers that make logits


def as_probabilities(bend: Callable[[Any], Any]) -> Changes:
    """Logits after a softmax, or another function."""
    return {linear: At(LAST, lambda step, *arguments: bend(step.right(*arguments)))}


def in_place(function: Any) -> Change:
    """Another function of the first argument."""
    definition = getattr(function, "definition", function)
    return lambda step, x, *rest: definition(x)


HEADS = (
    Mistake(
        "pooler without tanh",
        "the pooler's linear layer is followed by nothing, or by another function; right is tanh",
        {
            "": {activations.tanh: At("pooler.activation", first)},
            **{
                f"{function.__name__} in its place": {activations.tanh: At("pooler.activation", in_place(function))}
                for function in (activations.gelu, activations.gelu_new, activations.relu, activations.sigmoid)
            },
        },
        ("nezha", "bert"),
    ),
    Mistake(
        "pooler left out",
        "a classifier reads the first token's hidden state as it is; right is to put it through the pooler first, a "
        "linear layer and tanh",
        {"": {model.pooler: lambda step, x, w: x[:, 0, :]}},
        ("nezha", "bert"),
    ),
    Mistake(
        "pooler of another token",
        "another token, or the mean of all, goes into the pooler or the classifier; right is the first token, [CLS]",
        {
            "last token": {selection.first_token: lambda step, x: x[:, -1, :]},
            "mean of all": {selection.first_token: lambda step, x: x.mean(axis=1)},
            "every token": {selection.first_token: first},
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
        "the logits are another linear map of the hidden states; right is the word embeddings as the decoder's matrix",
        {},
        recognise=another_decoder,
    ),
    Mistake(
        "transform of the language model missing",
        "the decoder reads the last layer; right is to put linear layer, activation and norm of the transform between",
        {"": {shared.transform: first}},
        ("nezha", "bert"),
    ),
    Mistake(
        "probabilities for logits",
        "logits are returned after a softmax; right is what comes before it",
        {
            "softmax": as_probabilities(softmax),
            "log softmax": as_probabilities(lambda x: np.log(softmax(x))),
        },
    ),
    Mistake(
        "logits in half precision",
        "the logits are rounded to a narrower dtype than the port's own; right is to keep them as they are",
        {f"in {dtype}": as_probabilities(functools.partial(narrow, dtype=dtype)) for dtype in HALF},
    ),
    Mistake(
        "start and end swapped",
        "the first column of qa_outputs is taken for the end of the answer; right is its start",
        {"": {selection.column: lambda step, x, *, index: step.right(x, index=1 - index)}},
    ),
)
