"""The contract of a family: everything that differs between NEZHA, BERT and ConvBERT. The rest of the model is shared.

                          NEZHA                     BERT                          ConvBERT
    positions             a fixed vector for each   a learned vector for each     a learned vector for each
                          distance, added to keys   position, added to the        position, added to the
                          and values                token; or for each            token
                                                    distance, in the scores
                                                    (relative_key …)
    self-attention        num_attention_heads       num_attention_heads           num_attention_heads / γ, and
                                                                                  as many span-based convolutions
    embeddings            H features                H features                    E features, then a map to H
    feed-forward          linear                    linear                        linear, or linear in groups
    summary of a text     pooler                    pooler                        the first token; for a choice
                                                                                  the last
    decoder               yes                       yes                           no
    pretraining,          yes                       yes                           no
    next sentence
    language model        cls.predictions           cls.predictions               generator_predictions, with E
                                                                                  features
    masked padding        has no effect             has no effect                 is read by the convolutions

The papers: Wei et al. 2019, Devlin et al. 2019, Jiang et al. 2020.

A family is one file: its configuration, its functions, its tensors, and one `Family` that lists them. What NEZHA and
BERT have in common, and ConvBERT partly, stands in `nezha_np.families.shared`, and each file names what it takes from
there. `register` adds a family, at run time too: loading, drawing, saving, inspecting, pruning, all tasks and gradients
then work for it. docs/howto/add_a_family.md adds RoFormer.

The functions are made of layers alone, like the composites of `nezha_np.model`: what no layer makes has no gradient.

A table gives the shape of each tensor in dimension letters: V vocabulary, T token types, M positions, R = 2M − 1
distances, H hidden, E embedding, A features of all heads of a layer, D head size, F feed-forward, N heads, C classes,
and those that a configuration adds in `Config.dimensions` (ConvBERT: G groups, k kernel size); a product or a quotient
of these, and numbers for themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from nezha_np.arrays import Array
from nezha_np.mechanism import View

if TYPE_CHECKING:
    from nezha_np.families.config import Config


Table: TypeAlias = dict[str, str]  # the name of a tensor -> its shape in dimension letters
Tensors: TypeAlias = Table | Callable[[Any], Table]  # a table, or what makes it from the configuration


class SavedTensor(Protocol):
    """A tensor of a file that is computed and not loaded, as a check of `Family.computed` may look at it.

    Attributes
    ----------
    shape : tuple of int
        Its shape.
    dtype : str
        Its dtype, by safetensors' names: "F32".
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> str:
        """Its dtype, by safetensors' names."""

    def read(self, index: int) -> np.ndarray:
        """Read the part at an index of the first axis, in float64."""


Check: TypeAlias = Callable[[str, SavedTensor, Any], None]

# What old files hold though it is computed: the ids of positions and of token types.
COMPUTED: dict[str, Check | None] = {"embeddings.position_ids": None, "embeddings.token_type_ids": None}


@dataclasses.dataclass(frozen=True)
class FamilyTask:
    """What one task is in a family.

    Attributes
    ----------
    reference : str
        The reference's class.
    tensors : dict of str to str, or callable
        The table of what the task needs besides embeddings and encoder, or a function that makes it from the
        configuration.
    """

    reference: str
    tensors: Tensors = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models: what it is called, what it computes, its tensors, its files, and what kernels may assume.

    Attributes
    ----------
    config : type
        The class of its configurations; its ``model_type`` names the family in a ``config.json``.
    title : str
        What people call it.
    scores : callable
        ``scores(q, k, w, *, table, past, cross)``: the scores (B, N, Q, S) of all keys for each query, not yet divided
        by √D. It gets queries and keys before anything is done to them, and the view of the attention's weights: a
        family with rotary positions turns them here. The first query stands at position `past`, the first key at 0;
        `cross` says that the keys are an encoder's.
    context : callable
        ``context(probs, v, *, table, past)``: the context (B, N, Q, D) of each query, by the probabilities.
    beside_heads : callable or None
        ``beside_heads(x, query, w)``: what is computed beside the attention heads, from the hidden states (B, L, H) and
        the queries (B, L, N·D); its features are appended to the context.
    position_table : callable or None
        ``position_table(weight, config)``: the constant that `scores` and `context` get as `table`, in the library, on
        the device and in the dtype of the weight. It is made once for each `Weights`. None: there is no table.
    texts_apart : bool
        Whether `scores`, `context` and `beside_heads` compute each text of a batch without regard to the others. Only
        then may a kernel divide a batch among threads. Kernels assume nothing else: they know the functions of this
        package by identity (`nezha_np.kernels.known`) and leave every other one to the definitions.
    language_model : callable
        ``language_model(x, w)``: the logits of the vocabulary, from the last hidden states.
    text_classifier, choice_scorer : callable
        ``f(x, pooled, w)``: the logits of a text's classes, and of one choice, from the last hidden states and the
        pooler's output (None where there is no pooler).
    reads_padding : bool
        Whether padding changes what is computed for the tokens next to it, though it is masked.
    decodes : bool
        Whether it can be a decoder.
    embeddings, self_attention, feed_forward : dict of str to str, or callable
        The tables of these parts, or functions that make them from the configuration. Names of attention and
        feed-forward are those below a layer. Cross-attention has the tensors of `nezha_np.families.shared.ATTENTION`.
    pooler : dict of str to str
        The table of the pooler, empty where the family has none.
    tasks : mapping of str to FamilyTask
        The tasks that the family has, ``forward`` first (it needs no tensors besides), those of decoders last.
    decoder : str
        The matrix of the language model, which is the word embeddings where the two are tied.
    second_names : dict of str to str
        Other names that the reference has for a tensor.
    prefixes : tuple of str
        What stands before the names of its tensors in files, without the dot; the first one is written.
    config_keys : tuple of str
        The keys that tell that a ``config.json`` without ``model_type`` is this family's.
    config_hint : str
        What such a file needs besides ``model_type``: for the error that says that tensors look like this family's, and
        not like those of the family in config.json.
    recognised_by : tuple of str
        Parts of tensor names (what stands between two dots) that each of its checkpoints has.
    marks : tuple of str
        Parts of tensor names that some of its models have and other models have not. Weights with one that their
        configuration does not ask for are refused: to leave it out would silently compute something else. A checkpoint
        with one that the family does not list is not taken for the family's.
    computed : mapping of str to (callable or None)
        Patterns (`nezha_np.mechanism.patterns`) of the tensors that files hold though they are computed: they are
        dropped when a file is read. Before that ``check(name, saved, config)`` looks at the tensor, a `SavedTensor`,
        and raises ValueError if it is not what the model computes; None: it is dropped unseen.
    """

    config: type[Config]
    title: str

    scores: Callable[..., Array]
    context: Callable[..., Array]
    beside_heads: Callable[[Array, Array, View], Array] | None = None
    position_table: Callable[[Array, Any], Array] | None = None
    texts_apart: bool = False
    language_model: Callable[[Array, View], Array]
    text_classifier: Callable[[Array, Array | None, View], Array]
    choice_scorer: Callable[[Array, Array | None, View], Array]
    reads_padding: bool = False
    decodes: bool = True

    embeddings: Tensors
    self_attention: Tensors
    feed_forward: Tensors
    pooler: Table
    tasks: Mapping[str, FamilyTask]
    decoder: str
    second_names: dict[str, str] = dataclasses.field(default_factory=dict)

    prefixes: tuple[str, ...]
    config_keys: tuple[str, ...] = ()
    config_hint: str = ""
    recognised_by: tuple[str, ...] = ("word_embeddings",)
    marks: tuple[str, ...] = ()
    computed: Mapping[str, Check | None] = dataclasses.field(default_factory=lambda: COMPUTED)


FAMILIES: dict[str, Family] = {}  # by the `model_type` of their configurations


def register(family: Family) -> Family:
    """Add a family to `FAMILIES`, by the ``model_type`` of its configurations; one that had this name is replaced.

    Parameters
    ----------
    family : Family
        The family.

    Returns
    -------
    Family
        The same.

    Raises
    ------
    ValueError
        If the configuration has no ``model_type``, the family no prefix, or its tasks do not begin with ``forward``.

    Examples
    --------
    >>> from nezha_np.families.nezha import NEZHA
    >>> register(NEZHA) is NEZHA
    True
    """
    name = getattr(family.config, "model_type", None)
    if not isinstance(name, str):
        raise ValueError(f"family: expected a configuration with a model_type, got {family.config.__name__}")
    if not family.prefixes:
        raise ValueError(f"family: expected at least one prefix of tensor names for {family.title}, got none")
    if next(iter(family.tasks), None) != "forward":
        raise ValueError(
            f"family: expected the tasks of {family.title} to begin with forward, got {list(family.tasks)}"
        )
    FAMILIES[name] = family
    return family


def family_of(config: Config) -> Family:
    """Return the family of a configuration.

    Parameters
    ----------
    config : Config
        The configuration.

    Returns
    -------
    Family
        Its family.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> family_of(NezhaConfig()).title
    'NEZHA'
    """
    return FAMILIES[config.model_type]


def every_prefix() -> tuple[str, ...]:
    """List what may stand before the names of tensors in files: the prefixes of all families.

    Returns
    -------
    tuple of str
        The prefixes, without a dot.

    Examples
    --------
    >>> every_prefix()[:3]
    ('nezha', 'bert', 'convbert')
    """
    return tuple(dict.fromkeys(prefix for family in FAMILIES.values() for prefix in family.prefixes))


# ------------------------------------------------------------------------------------------------------- the tensors


def table_of(tensors: Tensors, config: Config) -> Table:
    """Return a table that is given as it is, or by a function of the configuration.

    Parameters
    ----------
    tensors : dict of str to str, or callable
        The table, or the function.
    config : Config
        The configuration.

    Returns
    -------
    dict of str to str
        The table.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> table_of(lambda config: with_bias("classifier", "C", "H"), NezhaConfig())
    {'classifier.weight': 'C H', 'classifier.bias': 'C'}
    """
    return tensors(config) if callable(tensors) else tensors


def with_bias(name: str, out: str, features: str) -> Table:
    """List the two tensors of a linear layer: the matrix is (out, in).

    Parameters
    ----------
    name : str
        The name of the layer.
    out, features : str
        How many features come out and go in, in dimension letters.

    Returns
    -------
    dict of str to str
        The table.

    Examples
    --------
    >>> with_bias("pooler.dense", "H", "H")
    {'pooler.dense.weight': 'H H', 'pooler.dense.bias': 'H'}
    """
    return {f"{name}.weight": f"{out} {features}", f"{name}.bias": out}


def norm(name: str, features: str) -> Table:
    """List the two tensors of a layer normalisation.

    Parameters
    ----------
    name : str
        The name of the layer.
    features : str
        How many features it normalises, in dimension letters.

    Returns
    -------
    dict of str to str
        The table.

    Examples
    --------
    >>> norm("embeddings.LayerNorm", "E")
    {'embeddings.LayerNorm.weight': 'E', 'embeddings.LayerNorm.bias': 'E'}
    """
    return {f"{name}.weight": features, f"{name}.bias": features}
