"""What several families have in common: attention by content, task heads on BERT's pattern, and their tensors.

NEZHA and BERT take all of it; ConvBERT takes the embeddings, the attention and what classifies tokens. A family names
what it takes from here, so that its own file says what it is.
"""

from __future__ import annotations

from typing import Any

from nezha_np.arrays import Array
from nezha_np.families.family import FamilyTask, Table, norm, with_bias
from nezha_np.layers.activations import activation
from nezha_np.layers.attention import content_context, content_scores
from nezha_np.layers.dropout import dropout
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.mechanism import View, composite

# ------------------------------------------------------------------------------------------------ attention by content


def plain_scores(q: Array, k: Array, w: View, *, table: Array | None, past: int, cross: bool) -> Array:
    """Score by content alone: q · k, (B, N, Q, S)."""
    scores: Array = content_scores(q, k, name="content_scores")
    return scores


def plain_context(probs: Array, v: Array, *, table: Array | None, past: int) -> Array:
    """Average the values: Σ prob · v, (B, N, Q, D)."""
    context: Array = content_context(probs, v, name="context")
    return context


# ----------------------------------------------------------------------------------------------------------- task heads


@composite
def transform(x: Array, w: View) -> Array:
    """Prepare hidden states for the decoder: linear, activation, norm, (B, L, H) -> (B, L, E)."""
    x = activation(w.config.hidden_act)(linear(x, w["dense.weight"], w["dense.bias"]), name="transform_act_fn")
    x = layer_norm(x, w["LayerNorm.weight"], w["LayerNorm.bias"], eps=w.config.layer_norm_eps)
    return x


@composite
def predictions(x: Array, w: View) -> Array:
    """Compute the logits of the vocabulary, (B, L, H) -> (B, L, V); the matrix is the word embeddings where tied."""
    logits: Array = linear(transform(x, w.at("transform")), w["decoder.weight"], w["bias"], name="decoder")
    return logits


def language_model(x: Array, w: View) -> Array:
    """Compute the logits of the vocabulary for every token: (B, L, H) -> (B, L, V)."""
    logits: Array = predictions(x, w.at("cls.predictions"))
    return logits


def classifier_dropout(x: Array, w: View, *, name: str = "dropout") -> Array:
    """Drop features before a classifier, at the rate of `classifier_dropout`."""
    config = w.config
    rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    x = dropout(x, rate=rate, name=name)
    return x


@composite
def classifier(x: Array, w: View) -> Array:
    """Compute the logits of the classes of a text or a token, after dropout: (…, H) -> (…, C)."""
    logits: Array = linear(classifier_dropout(x, w), w["classifier.weight"], w["classifier.bias"])
    return logits


def pooled_classifier(x: Array, pooled: Array | None, w: View) -> Array:
    """Compute the logits of the classes of a text from the pooler's output: (B, H) -> (B, C)."""
    assert pooled is not None  # the task's table asks for the pooler's tensors
    return classifier(pooled, w)


# ------------------------------------------------------------------------------------------------------------- tensors


def embeddings(config: Any) -> Table:
    """List the tensors of embeddings without positions, and of the map that follows them where E is not H."""
    tables = {
        "embeddings.word_embeddings.weight": "V E",
        "embeddings.token_type_embeddings.weight": "T E",
        **norm("embeddings.LayerNorm", "E"),
    }
    return tables if config.embedding_size == config.hidden_size else tables | with_bias("embeddings_project", "H", "E")


POSITIONS = {"embeddings.position_embeddings.weight": "M E"}

# Of self-attention or cross-attention, with its residual output.
ATTENTION = {
    **with_bias("self.query", "A", "H"),
    **with_bias("self.key", "A", "H"),
    **with_bias("self.value", "A", "H"),
    **with_bias("output.dense", "H", "A"),
    **norm("output.LayerNorm", "H"),
}

FEED_FORWARD = {
    **with_bias("intermediate.dense", "F", "H"),
    **with_bias("output.dense", "H", "F"),
    **norm("output.LayerNorm", "H"),
}

POOLER = with_bias("pooler.dense", "H", "H")

LANGUAGE_MODEL = {
    **with_bias("cls.predictions.transform.dense", "E", "H"),
    **norm("cls.predictions.transform.LayerNorm", "E"),
    "cls.predictions.decoder.weight": "V E",
    "cls.predictions.bias": "V",
}
DECODER = "cls.predictions.decoder.weight"
SECOND_NAMES = {"cls.predictions.decoder.bias": "cls.predictions.bias"}

NEXT_SENTENCE = with_bias("cls.seq_relationship", "2", "H")
TOKEN_CLASSIFIER = with_bias("classifier", "C", "H")
QUESTION_ANSWERING = with_bias("qa_outputs", "2", "H")


def tasks_on_a_pooler(reference: str, *, causal_lm: str) -> dict[str, FamilyTask]:
    """List the eight tasks of a family with a pooler, after the model itself.

    Parameters
    ----------
    reference : str
        What the names of the reference's classes begin with.
    causal_lm : str
        The reference's class for `causal_lm`, whose name is not made like the others.

    Returns
    -------
    dict of str to FamilyTask
        The tasks.

    Examples
    --------
    >>> tasks_on_a_pooler("Bert", causal_lm="BertLMHeadModel")["masked_lm"].reference
    'BertForMaskedLM'
    """
    return {
        "forward": FamilyTask(f"{reference}Model"),
        "pretraining": FamilyTask(f"{reference}ForPreTraining", POOLER | LANGUAGE_MODEL | NEXT_SENTENCE),
        "masked_lm": FamilyTask(f"{reference}ForMaskedLM", LANGUAGE_MODEL),
        "next_sentence_prediction": FamilyTask(f"{reference}ForNextSentencePrediction", POOLER | NEXT_SENTENCE),
        "sequence_classification": FamilyTask(f"{reference}ForSequenceClassification", POOLER | TOKEN_CLASSIFIER),
        "multiple_choice": FamilyTask(f"{reference}ForMultipleChoice", POOLER | with_bias("classifier", "1", "H")),
        "token_classification": FamilyTask(f"{reference}ForTokenClassification", TOKEN_CLASSIFIER),
        "question_answering": FamilyTask(f"{reference}ForQuestionAnswering", QUESTION_ANSWERING),
        "causal_lm": FamilyTask(causal_lm, LANGUAGE_MODEL),
    }
