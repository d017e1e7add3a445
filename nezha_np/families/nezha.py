"""NEZHA (Wei et al. 2019): a BERT whose attention adds a fixed vector for each distance to keys and values."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from nezha_np.arrays import Array
from nezha_np.checks import check_integer
from nezha_np.families.config import Config
from nezha_np.families.family import Family, Table, norm, register, with_bias
from nezha_np.layers.activations import activation
from nezha_np.layers.addition import add
from nezha_np.layers.attention import content_context, content_scores
from nezha_np.layers.dropout import dropout
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.relative_position import position_context, position_scores, relative_position_table
from nezha_np.mechanism import View, composite


@dataclasses.dataclass(frozen=True)
class NezhaConfig(Config):
    """The configuration of a NEZHA model (transformers NezhaConfig), checked when it is made.

    Parameters
    ----------
    max_relative_position : int
        K, the distance beyond which all distances look alike.
    **shared
        The fields of `Config`. `num_attention_heads` divides `hidden_size` into heads of an even size, and
        `max_position_embeddings` limits the reference alone: functional positions work at any length.

    Raises
    ------
    TypeError
        If a field has a wrong type.
    ValueError
        If a field has a value that no model can have; the message names the field.

    Examples
    --------
    >>> config = NezhaConfig(hidden_size=128, num_attention_heads=4, num_labels=3)
    >>> config.head_size, config.id2label[2]
    (32, 'LABEL_2')
    >>> config.replace(is_decoder=True).is_decoder
    True
    """

    model_type: ClassVar[str] = "nezha"

    vocab_size: int = 21128
    max_relative_position: int = 64
    classifier_dropout: float | None = 0.1
    bos_token_id: int | None = 2
    eos_token_id: int | None = 3

    @property
    def longest_text(self) -> None:
        """Functional positions work at any length."""
        return None

    def _check_family(self) -> None:
        self._set("max_relative_position", check_integer("max_relative_position", self.max_relative_position, least=1))
        self._check_heads(of_even_size="each sine has its cosine")


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


def nezha_embeddings(config: Any) -> Table:
    """List what NEZHA's embeddings are made of: no positions."""
    return {
        "embeddings.word_embeddings.weight": "V H",
        "embeddings.token_type_embeddings.weight": "T H",
        **norm("embeddings.LayerNorm", "H"),
    }


def nezha_attention(config: Any) -> Table:
    """List what self-attention (or cross-attention) and its residual end are made of."""
    return {
        **with_bias("self.query", "A", "H"),
        **with_bias("self.key", "A", "H"),
        **with_bias("self.value", "A", "H"),
        **with_bias("output.dense", "H", "A"),
        **norm("output.LayerNorm", "H"),
    }


def plain_feed_forward(config: Any) -> Table:
    """List what the feed-forward is made of."""
    return {
        **with_bias("intermediate.dense", "F", "H"),
        **with_bias("output.dense", "H", "F"),
        **norm("output.LayerNorm", "H"),
    }


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


# --------------------------------------------------------------------------------------------------- the three of them

NEZHA = register(
    Family(
        config=NezhaConfig,
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
)
