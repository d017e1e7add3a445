"""What differs between the three families; the rest of the model is the same for all.

                          NEZHA                     BERT                          ConvBERT
    where am I?           a fixed vector for each   a learned vector for each     a learned vector for each
                          distance, added to keys   position, added to the word;  position, added to the word
                          and values                or for each distance, in
                                                    the scores (relative_key …)
    self-attention        num_attention_heads       num_attention_heads           num_attention_heads / γ, and
                                                                                  as many span-based convolutions
    embeddings            H features                H features                    E features, then a map to H
    feed-forward          linear                    linear                        linear, or linear in groups
    a text in a vector    pooler                    pooler                        the first token; for a choice
                                                                                  the last
    decoder               yes                       yes                           no
    pretraining head,     yes                       yes                           no
    next sentence
    language model        cls.predictions           cls.predictions               generator_predictions, with E
                                                                                  features
    masked padding        has no effect             has no effect                 is read by the convolutions

The papers: Wei et al. 2019, Devlin et al. 2019, Jiang et al. 2020. A `Family` says it as data: functions where the
computation differs, tables where the tensors do. The functions are written with the layers, like the composites of
`nezha_np.model` and `nezha_np.heads` that call them.

A table gives the shape of each tensor in dimension letters: V vocabulary, T token types, M positions, R = 2M − 1
distances, H hidden, E embedding, A features of all heads of a layer, D head size, F feed-forward, G groups, k kernel
size, N heads, C classes; a product or a quotient of these, and numbers for themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from nezha_np.arrays import Array
from nezha_np.config import Config
from nezha_np.layers.activations import activation, gelu
from nezha_np.layers.addition import add
from nezha_np.layers.attention import content_context, content_scores
from nezha_np.layers.dropout import dropout
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.layers.relative_position import position_context, position_scores, relative_position_table
from nezha_np.layers.selection import first_token, last_token, mean_of_tokens
from nezha_np.layers.span_convolution import (
    convolution_kernels,
    dynamic_convolution,
    multiply,
    separable_convolution,
)
from nezha_np.mechanism import View, composite

Table = dict[str, str]  # the name of a tensor -> its shape in dimension letters


@dataclasses.dataclass(frozen=True)
class Family:
    """One of the three: its functions, then its tensors.

    Attributes
    ----------
    title : str
        What people call it.
    position_table : callable or None
        Makes the table of relative positions beside a weight, from the configuration.
    scores : callable
        Scores the keys for the queries, by content and by position.
    context : callable
        Averages the values by the probabilities.
    beside_heads : callable or None
        What is computed from the hidden states beside the attention heads, and joined to what they saw.
    language_model, text_classifier, choice_scorer : callable
        Three heads, from the last hidden states and, where there is a pooler, its output.
    embeddings, self_attention, feed_forward : callable
        The tables of these parts, from the configuration. Cross-attention is like NEZHA's attention.
    pooler : dict of str to str
        The table of the pooler, empty where the family has none.
    reads_padding : bool
        Whether padding changes what is computed for the tokens beside it, though it is masked.
    decodes : bool
        Whether it can be a decoder.
    heads : callable
        For each head that the family has the table of what it needs besides embeddings and encoder.
    decoder : str
        The matrix of the language model, which is the word embeddings where the two are tied.
    second_names : dict of str to str
        Other names that the reference has for a tensor.
    architectures : dict of str to str
        The reference's class for each head, and for none ("forward").
    """

    title: str
    position_table: Callable[[Array, Any], Array] | None
    scores: Callable[..., Array]
    context: Callable[..., Array]
    beside_heads: Callable[[Array, Array, View], Array] | None
    language_model: Callable[[Array, View], Array]
    text_classifier: Callable[[Array, Array | None, View], Array]
    choice_scorer: Callable[[Array, Array | None, View], Array]
    embeddings: Callable[[Any], Table]
    self_attention: Callable[[Any], Table]
    feed_forward: Callable[[Any], Table]
    pooler: Table
    reads_padding: bool
    decodes: bool
    heads: Callable[[Any], dict[str, Table]]
    decoder: str
    second_names: dict[str, str]
    architectures: dict[str, str]


def family_of(config: Config) -> Family:
    """Return the family of a configuration.

    Examples
    --------
    >>> from nezha_np.config import NezhaConfig
    >>> family_of(NezhaConfig()).title
    'NEZHA'
    """
    return FAMILIES[config.model_type]


# ------------------------------------------------------------------------------------------------- NEZHA's attention


def nezha_position_table(weight: Array, config: Any) -> Array:
    """Make the table of functional relative positions, (2K + 1, D)."""
    return relative_position_table(
        weight, head_size=config.head_size, max_relative_position=config.max_relative_position
    )


def nezha_scores(q: Array, k: Array, w: View, *, table: Array, past: int, cross: bool) -> Array:
    """Score by content and by functional relative position: q · (k + t), (B, N, Q, S)."""
    content = content_scores(q, k, name="content_scores")
    position = position_scores(q, table, keys=k.shape[2], past=past, name="position_scores")
    return add(content, position, name="scores")


def nezha_context(probs: Array, v: Array, *, table: Array, past: int) -> Array:
    """Average the values and the functional relative positions: Σ prob · (v + t), (B, N, Q, D)."""
    content = content_context(probs, v, name="content_context")
    position = position_context(probs, table, past=past, name="position_context")
    return add(content, position, name="context")


# -------------------------------------------------------------------------------------------------- BERT's attention


def bert_scores(q: Array, k: Array, w: View, *, table: None, past: int, cross: bool) -> Array:
    """Score by content; relative kinds add a learned vector for the distance, in self-attention alone, (B, N, Q, S)."""
    content = content_scores(q, k, name="content_scores")
    if cross or w.config.position_embedding_type == "absolute":
        return content
    distances = w["distance_embedding.weight"]
    if w.config.position_embedding_type == "relative_key":
        position = query_distance_scores(q, distances, keys=k.shape[2], past=past, name="position_scores")
    else:
        position = add(
            query_distance_scores(q, distances, keys=k.shape[2], past=past, name="query_position_scores"),
            key_distance_scores(k, distances, queries=q.shape[2], past=past, name="key_position_scores"),
            name="position_scores",
        )
    return add(content, position, name="scores")


def plain_context(probs: Array, v: Array, *, table: None, past: int) -> Array:
    """Average the values: Σ prob · v, (B, N, Q, D)."""
    return content_context(probs, v, name="context")


# ---------------------------------------------------------------------------------------------- ConvBERT's attention


def plain_scores(q: Array, k: Array, w: View, *, table: None, past: int, cross: bool) -> Array:
    """Score by content alone: q · k, (B, N, Q, S)."""
    return content_scores(q, k, name="content_scores")


def span_convolution(x: Array, query: Array, w: View) -> Array:
    """Average the neighbours of each token by kernels made of its span and its query: (B, L, H) -> (B, L, A)."""
    span = separable_convolution(
        x,
        w["key_conv_attn_layer.depthwise.weight"],
        w["key_conv_attn_layer.pointwise.weight"],
        w["key_conv_attn_layer.bias"],
        name="key_conv_attn_layer",
    )
    asked = multiply(span, query, name="conv_attn")
    scores = linear(asked, w["conv_kernel_layer.weight"], w["conv_kernel_layer.bias"])  # (B, L, N·k)
    kernels = convolution_kernels(scores, size=w.config.conv_kernel_size, name="conv_kernels")  # (B, L, N, k)
    values = linear(x, w["conv_out_layer.weight"], w["conv_out_layer.bias"])  # (B, L, A)
    return dynamic_convolution(values, kernels, name="conv_context")


# --------------------------------------------------------------------------------------- heads of NEZHA and of BERT


@composite
def transform(x: Array, w: View) -> Array:
    """Prepare hidden states for the decoder: linear, activation, norm, (B, L, H) -> (B, L, H)."""
    x = activation(w.config.hidden_act)(linear(x, w["dense.weight"], w["dense.bias"]), name="transform_act_fn")
    return layer_norm(x, w["LayerNorm.weight"], w["LayerNorm.bias"], eps=w.config.layer_norm_eps)


@composite
def predictions(x: Array, w: View) -> Array:
    """Score every word piece for every token: (B, L, H) -> (B, L, V); the matrix is the word embeddings where tied."""
    return linear(transform(x, w.at("transform")), w["decoder.weight"], w["bias"], name="decoder")


def bert_language_model(x: Array, w: View) -> Array:
    """Score every word piece for every token: (B, L, H) -> (B, L, V)."""
    return predictions(x, w.at("cls.predictions"))


def classifier_dropout(x: Array, w: View, *, name: str = "dropout") -> Array:
    """Drop features before a classifier, at the rate of `classifier_dropout`."""
    config = w.config
    rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    return dropout(x, rate=rate, name=name)


@composite
def classifier(x: Array, w: View) -> Array:
    """Score the classes of a text or a token, after dropout: (…, H) -> (…, C)."""
    return linear(classifier_dropout(x, w), w["classifier.weight"], w["classifier.bias"])


def pooled_classifier(x: Array, pooled: Array | None, w: View) -> Array:
    """Score the classes of a text by the pooler's output: (B, H) -> (B, C)."""
    return classifier(pooled, w)


# ------------------------------------------------------------------------------------------------- ConvBERT's heads


@composite
def generator_predictions(x: Array, w: View) -> Array:
    """Prepare hidden states for the decoder: linear, gelu whatever the model has, norm, (B, L, H) -> (B, L, E)."""
    x = gelu(linear(x, w["dense.weight"], w["dense.bias"]), name="activation")
    return layer_norm(x, w["LayerNorm.weight"], w["LayerNorm.bias"], eps=w.config.layer_norm_eps)


def convbert_language_model(x: Array, w: View) -> Array:
    """Score every word piece for every token: (B, L, H) -> (B, L, V); the matrix is the word embeddings where tied."""
    x = generator_predictions(x, w.at("generator_predictions"))
    return linear(x, w["generator_lm_head.weight"], w["generator_lm_head.bias"], name="generator_lm_head")


@composite
def classification_head(x: Array, w: View) -> Array:
    """Score the classes of a text by its first token, after a linear layer and an activation: (B, L, H) -> (B, C)."""
    x = classifier_dropout(first_token(x), w)
    x = activation(w.config.hidden_act)(linear(x, w["dense.weight"], w["dense.bias"]), name="activation")
    return linear(classifier_dropout(x, w, name="dropout_2"), w["out_proj.weight"], w["out_proj.bias"])


def convbert_text_classifier(x: Array, pooled: None, w: View) -> Array:
    """Score the classes of a text by the last hidden states: (B, L, H) -> (B, C)."""
    return classification_head(x, w.at("classifier"))


@composite
def sequence_summary(x: Array, w: View) -> Array:
    """Summarise a text as ``summary_type`` says: (B, L, H) -> (B, H) (transformers SequenceSummary)."""
    config = w.config
    of_tokens = {"first": first_token, "mean": mean_of_tokens}.get(config.summary_type, last_token)
    x = dropout(of_tokens(x), rate=config.summary_first_dropout, name="first_dropout")
    if config.summary_use_proj:
        x = linear(x, w["summary.weight"], w["summary.bias"])
    if config.summary_activation is not None:
        x = activation(config.summary_activation)(x, name="activation")
    return dropout(x, rate=config.summary_last_dropout, name="last_dropout")


def convbert_choice_scorer(x: Array, pooled: None, w: View) -> Array:
    """Score a choice by its summary: (B, L, H) -> (B, 1)."""
    x = sequence_summary(x, w.at("sequence_summary"))
    return linear(x, w["classifier.weight"], w["classifier.bias"])


# ------------------------------------------------------------------------------------------------------- the tensors


def with_bias(name: str, out: str, features: str) -> Table:
    """List the two tensors of a linear layer: the matrix is (out, in)."""
    return {f"{name}.weight": f"{out} {features}", f"{name}.bias": out}


def norm(name: str, features: str) -> Table:
    """List the two tensors of a layer normalisation."""
    return {f"{name}.weight": features, f"{name}.bias": features}


def nezha_embeddings(config: Any) -> Table:
    """List what NEZHA's embeddings are made of: no positions."""
    return {
        "embeddings.word_embeddings.weight": "V H",
        "embeddings.token_type_embeddings.weight": "T H",
        **norm("embeddings.LayerNorm", "H"),
    }


def bert_embeddings(config: Any) -> Table:
    """List what BERT's embeddings are made of; relative kinds have the positions too, and do not use them."""
    return nezha_embeddings(config) | {"embeddings.position_embeddings.weight": "M H"}


def convbert_embeddings(config: Any) -> Table:
    """List what ConvBERT's embeddings are made of."""
    tables = {
        "embeddings.word_embeddings.weight": "V E",
        "embeddings.position_embeddings.weight": "M E",
        "embeddings.token_type_embeddings.weight": "T E",
        **norm("embeddings.LayerNorm", "E"),
    }
    return tables if config.embedding_size == config.hidden_size else tables | with_bias("embeddings_project", "H", "E")


def nezha_attention(config: Any) -> Table:
    """List what self-attention (or cross-attention) and its residual end are made of."""
    return {
        **with_bias("self.query", "A", "H"),
        **with_bias("self.key", "A", "H"),
        **with_bias("self.value", "A", "H"),
        **with_bias("output.dense", "H", "A"),
        **norm("output.LayerNorm", "H"),
    }


def bert_attention(config: Any) -> Table:
    """List what BERT's self-attention is made of: relative kinds have a vector for each distance."""
    if config.position_embedding_type == "absolute":
        return nezha_attention(config)
    return nezha_attention(config) | {"self.distance_embedding.weight": "R D"}


def convbert_attention(config: Any) -> Table:
    """List what ConvBERT's mixed attention is made of."""
    return {
        **nezha_attention(config),
        "self.key_conv_attn_layer.depthwise.weight": "H 1 k",
        "self.key_conv_attn_layer.pointwise.weight": "A H 1",
        "self.key_conv_attn_layer.bias": "A 1",
        **with_bias("self.conv_kernel_layer", "N*k", "A"),
        **with_bias("self.conv_out_layer", "A", "H"),
        **with_bias("output.dense", "H", "H"),
    }


def plain_feed_forward(config: Any) -> Table:
    """List what the feed-forward is made of."""
    return {
        **with_bias("intermediate.dense", "F", "H"),
        **with_bias("output.dense", "H", "F"),
        **norm("output.LayerNorm", "H"),
    }


def convbert_feed_forward(config: Any) -> Table:
    """List what ConvBERT's feed-forward is made of: with groups, a small (in, out) matrix for each."""
    if config.num_groups == 1:
        return plain_feed_forward(config)
    groups = {"intermediate.dense.weight": "G H/G F/G", "output.dense.weight": "G F/G H/G"}
    return plain_feed_forward(config) | groups


POOLER = with_bias("pooler.dense", "H", "H")

LANGUAGE_MODEL = {
    **with_bias("cls.predictions.transform.dense", "H", "H"),
    **norm("cls.predictions.transform.LayerNorm", "H"),
    "cls.predictions.decoder.weight": "V H",
    "cls.predictions.bias": "V",
}

NEXT_SENTENCE = with_bias("cls.seq_relationship", "2", "H")


def bert_heads(config: Any) -> dict[str, Table]:
    """List what each head of NEZHA and BERT needs besides embeddings and encoder."""
    return {
        "pretraining": POOLER | LANGUAGE_MODEL | NEXT_SENTENCE,
        "masked_lm": LANGUAGE_MODEL,
        "next_sentence_prediction": POOLER | NEXT_SENTENCE,
        "sequence_classification": POOLER | with_bias("classifier", "C", "H"),
        "multiple_choice": POOLER | with_bias("classifier", "1", "H"),
        "token_classification": with_bias("classifier", "C", "H"),
        "question_answering": with_bias("qa_outputs", "2", "H"),
        "causal_lm": LANGUAGE_MODEL,
    }


def convbert_heads(config: Any) -> dict[str, Table]:
    """List what each head of ConvBERT needs besides embeddings and encoder."""
    summary = with_bias("sequence_summary.summary", "H", "H") if config.summary_use_proj else {}
    return {
        "masked_lm": {
            **with_bias("generator_predictions.dense", "E", "H"),
            **norm("generator_predictions.LayerNorm", "E"),
            **with_bias("generator_lm_head", "V", "E"),
        },
        "sequence_classification": {
            **with_bias("classifier.dense", "H", "H"),
            **with_bias("classifier.out_proj", "C", "H"),
        },
        "multiple_choice": summary | with_bias("classifier", "1", "H"),
        "token_classification": with_bias("classifier", "C", "H"),
        "question_answering": with_bias("qa_outputs", "2", "H"),
    }


# --------------------------------------------------------------------------------------------------- the three of them

NEZHA = Family(
    title="NEZHA",
    position_table=nezha_position_table,
    scores=nezha_scores,
    context=nezha_context,
    beside_heads=None,
    language_model=bert_language_model,
    text_classifier=pooled_classifier,
    choice_scorer=pooled_classifier,
    embeddings=nezha_embeddings,
    self_attention=nezha_attention,
    feed_forward=plain_feed_forward,
    pooler=POOLER,
    reads_padding=False,
    decodes=True,
    heads=bert_heads,
    decoder="cls.predictions.decoder.weight",
    second_names={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    architectures={
        "forward": "NezhaModel",
        "pretraining": "NezhaForPreTraining",
        "masked_lm": "NezhaForMaskedLM",
        "next_sentence_prediction": "NezhaForNextSentencePrediction",
        "sequence_classification": "NezhaForSequenceClassification",
        "multiple_choice": "NezhaForMultipleChoice",
        "token_classification": "NezhaForTokenClassification",
        "question_answering": "NezhaForQuestionAnswering",
        "causal_lm": "NezhaForMaskedLM",
    },
)

BERT = dataclasses.replace(
    NEZHA,
    title="BERT",
    position_table=None,
    scores=bert_scores,
    context=plain_context,
    embeddings=bert_embeddings,
    self_attention=bert_attention,
    architectures={
        **{head: name.replace("Nezha", "Bert") for head, name in NEZHA.architectures.items()},
        "causal_lm": "BertLMHeadModel",
    },
)

CONVBERT = Family(
    title="ConvBERT",
    position_table=None,
    scores=plain_scores,
    context=plain_context,
    beside_heads=span_convolution,
    language_model=convbert_language_model,
    text_classifier=convbert_text_classifier,
    choice_scorer=convbert_choice_scorer,
    embeddings=convbert_embeddings,
    self_attention=convbert_attention,
    feed_forward=convbert_feed_forward,
    pooler={},
    reads_padding=True,
    decodes=False,
    heads=convbert_heads,
    decoder="generator_lm_head.weight",
    second_names={},
    architectures={
        "forward": "ConvBertModel",
        "masked_lm": "ConvBertForMaskedLM",
        "sequence_classification": "ConvBertForSequenceClassification",
        "multiple_choice": "ConvBertForMultipleChoice",
        "token_classification": "ConvBertForTokenClassification",
        "question_answering": "ConvBertForQuestionAnswering",
    },
)

FAMILIES = {"nezha": NEZHA, "bert": BERT, "convbert": CONVBERT}
