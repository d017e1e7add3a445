"""NEZHA (Wei et al. 2019): a BERT whose attention adds a fixed vector for each distance to keys and values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from nezha_np.arrays import Array
from nezha_np.checks import check_integer
from nezha_np.families import shared
from nezha_np.families.config import Config
from nezha_np.families.family import COMPUTED, Family
from nezha_np.families.nezha_saved_tables import SAVED_TABLES, check_saved_table
from nezha_np.layers.addition import add
from nezha_np.layers.attention import content_context, content_scores
from nezha_np.layers.relative_position import position_context, position_scores, relative_position_table
from nezha_np.mechanism import View

FARTHEST = 2**16  # K: the table is computed, (2K + 1, D), so no file bounds it; attention has no room for such texts


@dataclasses.dataclass(frozen=True)
class NezhaConfig(Config):
    """The configuration of a NEZHA model (transformers NezhaConfig), checked when it is made.

    Parameters
    ----------
    max_relative_position : int
        K, up to 65536: all distances beyond it count as K, and those before −K as −K.
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
    eos_token_id: int | Sequence[int] | None = 3

    @property
    def longest_text(self) -> None:
        """Functional positions work at any length."""
        return None

    def check_family(self) -> None:
        """Check K, the size of a head, and that no file asks for NEZHA without relative positions."""
        reach = check_integer("max_relative_position", self.max_relative_position, least=1, most=FARTHEST)
        self.set_field("max_relative_position", reach)
        self.check_heads(of_even_size="each sine has its cosine")
        if self.extra.get("use_relative_position") is False:
            raise ValueError("use_relative_position: expected true, because NEZHA's positions are relative, got false")


# ------------------------------------------------------------------------------------------------- NEZHA's attention


def nezha_position_table(weight: Array, config: Any) -> Array:
    """Make the table of functional relative positions, (2K + 1, D), in the library and on the device of a weight."""
    return relative_position_table(
        weight, head_size=config.head_size, max_relative_position=config.max_relative_position
    )


def nezha_scores(q: Array, k: Array, w: View, *, table: Array, past: int, cross: bool) -> Array:
    """Score by content and by functional relative position: q · (k + t), (B, N, Q, S)."""
    content = content_scores(q, k, name="content_scores")
    position = position_scores(q, table, keys=k.shape[2], past=past, name="position_scores")
    scores: Array = add(content, position, name="scores")
    return scores


def nezha_context(probs: Array, v: Array, *, table: Array, past: int) -> Array:
    """Average the values and the functional relative positions: Σ prob · (v + t), (B, N, Q, D)."""
    content = content_context(probs, v, name="content_context")
    position = position_context(probs, table, past=past, name="position_context")
    context: Array = add(content, position, name="context")
    return context


# ---------------------------------------------------------------------------------------------------------- the family

NEZHA = Family(
    config=NezhaConfig,
    title="NEZHA",
    scores=nezha_scores,
    context=nezha_context,
    position_table=nezha_position_table,
    texts_apart=True,
    language_model=shared.language_model,
    text_classifier=shared.pooled_classifier,
    choice_scorer=shared.pooled_classifier,
    embeddings=shared.embeddings,
    self_attention=shared.ATTENTION,
    feed_forward=shared.FEED_FORWARD,
    pooler=shared.POOLER,
    tasks=shared.tasks_on_a_pooler("Nezha", causal_lm="NezhaForMaskedLM"),
    decoder=shared.DECODER,
    second_names=shared.SECOND_NAMES,
    prefixes=("nezha", "bert"),  # the authors' files say bert
    config_keys=("max_relative_position", "use_relative_position"),
    config_hint="and max_relative_position (64 in the authors' models)",
    computed=COMPUTED | {SAVED_TABLES: check_saved_table},
)
