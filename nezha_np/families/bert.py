"""BERT (Devlin et al. 2019): a learned vector for each position, or for each distance."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from nezha_np.arrays import Array
from nezha_np.families.config import Config
from nezha_np.families.family import Table, register
from nezha_np.families.nezha import NEZHA, nezha_attention, nezha_embeddings
from nezha_np.layers.addition import add
from nezha_np.layers.attention import content_context, content_scores
from nezha_np.layers.relative_key import key_distance_scores, query_distance_scores
from nezha_np.mechanism import View

POSITION_KINDS = ("absolute", "relative_key", "relative_key_query")


@dataclasses.dataclass(frozen=True)
class BertConfig(Config):
    """The configuration of a BERT model (transformers BertConfig), checked when it is made.

    Parameters
    ----------
    position_embedding_type : str
        "absolute": a learned vector for each position, added to the words. "relative_key" and "relative_key_query": a
        learned vector for each distance, scored against the query, or against query and key.
    **shared
        The fields of `Config`.

    Raises
    ------
    TypeError
        If a field has a wrong type.
    ValueError
        If a field has a value that no model can have; the message names the field.

    Examples
    --------
    >>> BertConfig(position_embedding_type="relative_key").model_type
    'bert'
    """

    model_type: ClassVar[str] = "bert"

    position_embedding_type: str = "absolute"

    @property
    def learns_positions(self) -> bool:
        """Whether each position of a text has a learned vector, which is added to its word."""
        return self.position_embedding_type == "absolute"

    def _check_family(self) -> None:
        self._check_heads()
        self._choose("position_embedding_type", POSITION_KINDS)


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


def bert_embeddings(config: Any) -> Table:
    """List what BERT's embeddings are made of; relative kinds have the positions too, and do not use them."""
    return nezha_embeddings(config) | {"embeddings.position_embeddings.weight": "M H"}


def bert_attention(config: Any) -> Table:
    """List what BERT's self-attention is made of: relative kinds have a vector for each distance."""
    if config.position_embedding_type == "absolute":
        return nezha_attention(config)
    return nezha_attention(config) | {"self.distance_embedding.weight": "R D"}


BERT = register(
    dataclasses.replace(
        NEZHA,
        config=BertConfig,
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
)
