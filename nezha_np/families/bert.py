"""BERT (Devlin et al. 2019): a learned vector for each position, or for each distance."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from nezha_np.arrays import Array
from nezha_np.families import shared
from nezha_np.families.config import Config
from nezha_np.families.family import Family, Table
from nezha_np.layers.addition import add
from nezha_np.layers.attention import content_scores
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

    def check_family(self) -> None:
        """Check the size of a head and the kind of positions."""
        self.check_heads()
        self.check_choice("position_embedding_type", POSITION_KINDS)


# -------------------------------------------------------------------------------------------------- BERT's attention


def bert_scores(q: Array, k: Array, w: View, *, table: Array | None, past: int, cross: bool) -> Array:
    """Score by content; relative kinds add a learned vector for the distance, in self-attention alone, (B, N, Q, S)."""
    content: Array = content_scores(q, k, name="content_scores")
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
    scores: Array = add(content, position, name="scores")
    return scores


# ------------------------------------------------------------------------------------------------------------- tensors


def bert_embeddings(config: Any) -> Table:
    """List the tensors of BERT's embeddings; relative kinds have the positions too, and do not use them."""
    return shared.embeddings(config) | shared.POSITIONS


def bert_attention(config: Any) -> Table:
    """List the tensors of BERT's self-attention: relative kinds have a vector for each distance."""
    if config.position_embedding_type == "absolute":
        return shared.ATTENTION
    return shared.ATTENTION | {"self.distance_embedding.weight": "R D"}


# ---------------------------------------------------------------------------------------------------------- the family

BERT = Family(
    config=BertConfig,
    title="BERT",
    scores=bert_scores,
    context=shared.plain_context,
    texts_apart=True,
    language_model=shared.language_model,
    text_classifier=shared.pooled_classifier,
    choice_scorer=shared.pooled_classifier,
    embeddings=bert_embeddings,
    self_attention=bert_attention,
    feed_forward=shared.FEED_FORWARD,
    pooler=shared.POOLER,
    tasks=shared.tasks_on_a_pooler("Bert", causal_lm="BertLMHeadModel"),
    decoder=shared.DECODER,
    second_names=shared.SECOND_NAMES,
    prefixes=("bert",),
    recognised_by=("position_embeddings",),
    marks=("position_embeddings", "distance_embedding"),
)
