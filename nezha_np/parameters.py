"""The names and shapes of a model's tensors: one table, which loading, drawing, saving and inspecting all read.

A shape is written in dimension letters: V vocabulary, T token types, H hidden, A the features of all heads of a layer
(H, or less where heads were pruned), F feed-forward, C classes, and numbers for themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nezha_np.config import NezhaConfig

EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "V H",
    "embeddings.token_type_embeddings.weight": "T H",
    "embeddings.LayerNorm.weight": "H",
    "embeddings.LayerNorm.bias": "H",
}

ATTENTION = {
    "self.query.weight": "A H",
    "self.query.bias": "A",
    "self.key.weight": "A H",
    "self.key.bias": "A",
    "self.value.weight": "A H",
    "self.value.bias": "A",
    "output.dense.weight": "H A",
    "output.dense.bias": "H",
    "output.LayerNorm.weight": "H",
    "output.LayerNorm.bias": "H",
}

FEED_FORWARD = {
    "intermediate.dense.weight": "F H",
    "intermediate.dense.bias": "F",
    "output.dense.weight": "H F",
    "output.dense.bias": "H",
    "output.LayerNorm.weight": "H",
    "output.LayerNorm.bias": "H",
}

POOLER = {"pooler.dense.weight": "H H", "pooler.dense.bias": "H"}

LANGUAGE_MODEL = {
    "cls.predictions.transform.dense.weight": "H H",
    "cls.predictions.transform.dense.bias": "H",
    "cls.predictions.transform.LayerNorm.weight": "H",
    "cls.predictions.transform.LayerNorm.bias": "H",
    "cls.predictions.decoder.weight": "V H",
    "cls.predictions.bias": "V",
}

NEXT_SENTENCE = {"cls.seq_relationship.weight": "2 H", "cls.seq_relationship.bias": "2"}

CLASSIFIER = {"classifier.weight": "C H", "classifier.bias": "C"}
CHOICE = {"classifier.weight": "1 H", "classifier.bias": "1"}
SPAN = {"qa_outputs.weight": "2 H", "qa_outputs.bias": "2"}

# What each head needs besides embeddings and encoder, and the reference's name for the two together.
HEADS: dict[str, dict[str, str]] = {
    "pretraining": POOLER | LANGUAGE_MODEL | NEXT_SENTENCE,
    "masked_lm": LANGUAGE_MODEL,
    "next_sentence_prediction": POOLER | NEXT_SENTENCE,
    "sequence_classification": POOLER | CLASSIFIER,
    "multiple_choice": POOLER | CHOICE,
    "token_classification": CLASSIFIER,
    "question_answering": SPAN,
    "causal_lm": LANGUAGE_MODEL,
}

ARCHITECTURES = {
    "pretraining": "NezhaForPreTraining",
    "masked_lm": "NezhaForMaskedLM",
    "next_sentence_prediction": "NezhaForNextSentencePrediction",
    "sequence_classification": "NezhaForSequenceClassification",
    "multiple_choice": "NezhaForMultipleChoice",
    "token_classification": "NezhaForTokenClassification",
    "question_answering": "NezhaForQuestionAnswering",
    "causal_lm": "NezhaForMaskedLM",
}

Shapes = dict[str, tuple[int, ...]]


def backbone_shapes(config: NezhaConfig) -> Shapes:
    """Return the name and the shape of every tensor of embeddings and encoder.

    Examples
    --------
    >>> shapes = backbone_shapes(NezhaConfig())
    >>> shapes["encoder.layer.11.intermediate.dense.weight"]
    (3072, 768)
    """
    shapes = _shapes(config, EMBEDDINGS)
    for index in range(config.num_hidden_layers):
        layer = f"encoder.layer.{index}."
        shapes |= _shapes(config, ATTENTION, heads=config.heads(index), prefix=layer + "attention.")
        if config.add_cross_attention:  # whose heads are never pruned
            shapes |= _shapes(config, ATTENTION, prefix=layer + "crossattention.")
        shapes |= _shapes(config, FEED_FORWARD, prefix=layer)
    return shapes


def pooler_shapes(config: NezhaConfig) -> Shapes:
    """Return the name and the shape of the pooler's tensors.

    Examples
    --------
    >>> pooler_shapes(NezhaConfig())
    {'pooler.dense.weight': (768, 768), 'pooler.dense.bias': (768,)}
    """
    return _shapes(config, POOLER)


def head_shapes(config: NezhaConfig, head: str) -> Shapes:
    """Return the name and the shape of every tensor that a head needs besides embeddings and encoder.

    Examples
    --------
    >>> head_shapes(NezhaConfig(num_labels=3), "token_classification")
    {'classifier.weight': (3, 768), 'classifier.bias': (3,)}
    """
    second = aliases(config)
    return _shapes(config, {name: letters for name, letters in HEADS[head].items() if name not in second})


def _shapes(config: NezhaConfig, table: dict[str, str], *, heads: int | None = None, prefix: str = "") -> Shapes:
    size = {
        "V": config.vocab_size,
        "T": config.type_vocab_size,
        "H": config.hidden_size,
        "A": (config.num_attention_heads if heads is None else heads) * config.head_size,
        "F": config.intermediate_size,
        "C": config.num_labels or 0,
    }
    return {
        prefix + name: tuple(size[letter] if letter in size else int(letter) for letter in letters.split())
        for name, letters in table.items()
    }


def aliases(config: NezhaConfig) -> dict[str, str]:
    """Return the second names of tensors: a tied decoder's matrix, and its bias, which is one tensor in any model.

    Examples
    --------
    >>> aliases(NezhaConfig())["cls.predictions.decoder.weight"]
    'embeddings.word_embeddings.weight'
    """
    names = {"cls.predictions.decoder.bias": "cls.predictions.bias"}
    if config.tie_word_embeddings:
        names["cls.predictions.decoder.weight"] = "embeddings.word_embeddings.weight"
    return names


def without_aliases(named: Mapping[str, Any], config: NezhaConfig) -> dict[str, Any]:
    """Keep one name for each tensor, its own; where it goes by a second name alone, it gets its own.

    Examples
    --------
    >>> without_aliases({"cls.predictions.decoder.bias": 1}, NezhaConfig())
    {'cls.predictions.bias': 1}
    """
    kept = dict(named)
    for alias, name in aliases(config).items():
        if alias in kept:
            kept.setdefault(name, kept[alias])
            del kept[alias]
    return kept


def is_backbone(name: str) -> bool:
    """Say whether a tensor belongs to embeddings, encoder or pooler, not to a head.

    Examples
    --------
    >>> is_backbone("pooler.dense.bias"), is_backbone("classifier.bias")
    (True, False)
    """
    return name.startswith(("embeddings.", "encoder.", "pooler."))
