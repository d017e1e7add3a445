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
from typing import TYPE_CHECKING, Any

from nezha_np.arrays import Array
from nezha_np.mechanism import View

if TYPE_CHECKING:
    from nezha_np.families.config import Config


Table = dict[str, str]  # the name of a tensor -> its shape in dimension letters


@dataclasses.dataclass(frozen=True)
class Family:
    """One of the three: its functions, then its tensors.

    Attributes
    ----------
    config : type
        The class of its configurations; its `model_type` names the family in a ``config.json``.
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

    config: type[Config]
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


FAMILIES: dict[str, Family] = {}  # by the `model_type` of their configurations


def register(family: Family) -> Family:
    """Add a family to `FAMILIES`, by the `model_type` of its configurations.

    Parameters
    ----------
    family : Family
        The family.

    Returns
    -------
    Family
        The same.
    """
    FAMILIES[family.config.model_type] = family
    return family


def family_of(config: Config) -> Family:
    """Return the family of a configuration.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> family_of(NezhaConfig()).title
    'NEZHA'
    """
    return FAMILIES[config.model_type]


# ------------------------------------------------------------------------------------------------------- the tensors


def with_bias(name: str, out: str, features: str) -> Table:
    """List the two tensors of a linear layer: the matrix is (out, in)."""
    return {f"{name}.weight": f"{out} {features}", f"{name}.bias": out}


def norm(name: str, features: str) -> Table:
    """List the two tensors of a layer normalisation."""
    return {f"{name}.weight": features, f"{name}.bias": features}
