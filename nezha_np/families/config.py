"""Configurations: immutable dataclasses that read and write the reference's ``config.json``.

The file has a little over 400 lines, because it describes every field; more than half are docstrings.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from nezha_np.checks import check_integer, parse_json, printable, shortened
from nezha_np.families.config_values import (
    MOST,
    MOST_LAYERS,
    MOST_NAMES_MADE_OF_A_FILE,
    FrozenDict,
    check_labels,
    check_mapping,
    check_number,
    check_pruned_heads,
    check_tokens,
)
from nezha_np.families.family import FAMILIES
from nezha_np.files.text_encoding import read_utf8
from nezha_np.layers.activations import ACTIVATIONS

SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
SWITCHES = ("use_cache", "is_decoder", "add_cross_attention", "tie_word_embeddings")
TOKENS = ("pad_token_id", "bos_token_id")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


@dataclasses.dataclass(frozen=True)
class Config:
    """What the configurations of all families share, checked when one is made.

    Parameters
    ----------
    vocab_size : int
        V, the number of word pieces.
    hidden_size : int
        H, the features of a token.
    num_hidden_layers : int
        The number of encoder layers.
    num_attention_heads : int
        N; it divides `hidden_size` into heads of size D.
    intermediate_size : int
        F, the width of the feed-forward's middle.
    hidden_act : str or callable
        The activation: "gelu", "gelu_new", "relu", "silu" or "swish", "selu", "tanh", or a function of one array.
    hidden_dropout_prob, attention_probs_dropout_prob : float
        Dropout rates while training, from 0 to less than 1.
    max_position_embeddings : int
        The longest text a model with learned positions takes.
    type_vocab_size : int
        The number of token types.
    initializer_range : float
        The standard deviation of the normal distribution that `nezha_np.init` truncates.
    layer_norm_eps : float
        ε of the layer normalisations.
    classifier_dropout : float or None
        The dropout rate before a classifier; None: `hidden_dropout_prob`.
    pad_token_id, bos_token_id : int or None
        Ids of special tokens. The row of the padding id gets no gradient from look-ups.
    eos_token_id : int, sequence of int or None
        The ids that end a generated text.
    use_cache : bool
        Whether a decoder returns its keys and values.
    is_decoder : bool
        Whether a token attends to itself and those before it alone.
    add_cross_attention : bool
        Whether a decoder's layers attend to an encoder too.
    tie_word_embeddings : bool
        Whether the language-model head uses the word embeddings as its matrix.
    pruned_heads : mapping of int to sequence of int
        The heads that each layer has lost; negative numbers count from the end.
    num_labels : int, optional
        The number of classes; None: that of `id2label`, or 2.
    id2label : mapping of int to str, optional
        Names of the classes; None: LABEL_0, LABEL_1 …
    label2id : mapping of str to int, optional
        The classes by name; None: `id2label` turned round.
    problem_type : str or None
        "regression", "single_label_classification", "multi_label_classification"; None: told by the labels.
    architectures : sequence of str or None
        The reference's class names.
    extra : mapping
        The keys of a ``config.json`` that are none of the above: kept, and written again.

    Raises
    ------
    TypeError
        If a field has a wrong type.
    ValueError
        If a field has a value that no model can have; the message names the field.

    Examples
    --------
    >>> import nezha_np as nz
    >>> isinstance(nz.load().config, nz.Config)
    True
    """

    model_type: ClassVar[str]

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str | Callable[[Any], Any] = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    classifier_dropout: float | None = None
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | Sequence[int] | None = None
    use_cache: bool = True
    is_decoder: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True
    pruned_heads: Mapping[int, Any] = dataclasses.field(default_factory=dict, hash=False)
    num_labels: int | None = None
    id2label: Mapping[int, str] | None = dataclasses.field(default=None, hash=False)
    label2id: Mapping[str, int] | None = dataclasses.field(default=None, hash=False)
    problem_type: str | None = None
    architectures: tuple[str, ...] | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in SIZES:
            most = MOST_LAYERS if name == "num_hidden_layers" else MOST
            self.set_field(name, check_integer(name, getattr(self, name), least=1, most=most))
        for name in RATES:
            if not (name == "classifier_dropout" and self.classifier_dropout is None):
                self.set_field(name, check_number(name, getattr(self, name), below=1))
        for name in ("initializer_range", "layer_norm_eps"):
            self.set_field(name, check_number(name, getattr(self, name)))
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        for name in TOKENS:
            if getattr(self, name) is not None:
                self.set_field(name, check_integer(name, getattr(self, name), least=0, most=MOST))
        self.set_field("eos_token_id", check_tokens("eos_token_id", self.eos_token_id))
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise ValueError(
                f"pad_token_id: expected an id from 0 to {self.vocab_size - 1} or None, got {self.pad_token_id}"
            )
        if not callable(self.hidden_act) and self.hidden_act not in tuple(ACTIVATIONS):
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"hidden_act: expected one of {known}, or a function, got {self.hidden_act!r}")
        if self.add_cross_attention and not self.is_decoder:
            raise ValueError("add_cross_attention: expected is_decoder=True with it, got is_decoder=False")
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            known = ", ".join(PROBLEM_TYPES)
            raise ValueError(f"problem_type: expected one of {known} or None, got {self.problem_type!r}")
        labels = check_labels(self.num_labels, self.id2label, self.label2id)
        for name, value in zip(("num_labels", "id2label", "label2id"), labels, strict=True):
            self.set_field(name, value)
        pruned = check_pruned_heads(self.pruned_heads, self.num_hidden_layers, self.num_attention_heads)
        self.set_field("pruned_heads", pruned)
        if self.architectures is not None:
            names = self.architectures
            if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
                raise TypeError(f"architectures: expected a list of class names or None, got {names!r}")
            self.set_field("architectures", tuple(names))
        if fields := [key for key in check_mapping("extra", self.extra) if key in _keys(type(self))]:
            raise ValueError(f"extra: expected keys that are no fields of the configuration, got {fields}")
        self.set_field("extra", FrozenDict(copy.deepcopy(dict(self.extra))))
        self.check_family()

    def set_field(self, name: str, value: Any) -> None:
        """Set a field while the configuration is made: the dataclass is frozen. For `check_family` alone."""
        object.__setattr__(self, name, value)

    def check_family(self) -> None:
        """Check the fields that only one family has: each family's configuration has its own."""
        raise TypeError(f"Config: expected {_any_config()}, got what they share")

    def check_heads(self, *, of_even_size: str = "") -> None:
        """Check that `num_attention_heads` divides `hidden_size`, with an even quotient for a reason that is given."""
        if self.hidden_size % self.num_attention_heads or (of_even_size and self.head_size % 2):
            even = f" with an even quotient ({of_even_size})" if of_even_size else ""
            raise ValueError(
                f"hidden_size: expected a multiple of num_attention_heads{even}, got hidden_size {self.hidden_size} "
                f"and num_attention_heads {self.num_attention_heads}"
            )

    def check_choice(self, name: str, choices: tuple[Any, ...]) -> None:
        """Check that a field is one of some values."""
        if getattr(self, name) not in choices:
            known = ", ".join(map(str, choices))
            raise ValueError(f"{name}: expected one of {known}, got {getattr(self, name)!r}")

    @property
    def attention_heads(self) -> int:
        """N, the heads of a layer that has lost none."""
        return self.num_attention_heads

    @property
    def head_size(self) -> int:
        """D, the features of a head."""
        return self.hidden_size // self.attention_heads

    @property
    def embedding_size(self) -> int:
        """E, the features of the embeddings."""
        return self.hidden_size

    @property
    def dimensions(self) -> dict[str, int]:
        """The dimension letters in which a family gives the shapes of its tensors; N and A are those of a full layer.

        See `nezha_np.families.family` for what they stand for. A family adds its own letters here.
        """
        return {
            "V": self.vocab_size,
            "T": self.type_vocab_size,
            "M": self.max_position_embeddings,
            "R": 2 * self.max_position_embeddings - 1,
            "H": self.hidden_size,
            "E": self.embedding_size,
            "N": self.attention_heads,
            "D": self.head_size,
            "A": self.attention_heads * self.head_size,
            "F": self.intermediate_size,
            "C": self.num_labels or 0,
        }

    @property
    def learns_positions(self) -> bool:
        """Whether each position of a text has a learned vector, which is added to its word."""
        return False

    @property
    def longest_text(self) -> int | None:
        """The number of tokens that a learned position or distance is there for; None: any number."""
        return self.max_position_embeddings

    def heads(self, layer: int) -> int:
        """Return the number of heads that a layer still has."""
        return self.attention_heads - len(self.pruned_heads.get(layer, ()))

    def replace(self, **changes: Any) -> Self:
        """Make a configuration that differs in some fields; another `num_labels` brings new label names.

        Examples
        --------
        >>> from nezha_np.families.nezha import NezhaConfig
        >>> NezhaConfig().replace(num_labels=5).num_labels
        5
        """
        if changes.get("num_labels", self.num_labels) != self.num_labels:
            changes = {"id2label": None} | changes
        if "id2label" in changes:
            changes = {"num_labels": None, "label2id": None} | changes
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``config.json`` holds: every field, and the keys of `extra`.

        Raises
        ------
        ValueError
            If `hidden_act` is a function, which no file can hold.

        Examples
        --------
        >>> from nezha_np.families.nezha import NezhaConfig
        >>> NezhaConfig().to_dict()["model_type"]
        'nezha'
        """
        if not isinstance(self.hidden_act, str):
            raise ValueError(f"hidden_act: expected a name, to write it into a file, got {self.hidden_act!r}")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["extra"], fields["num_labels"]  # id2label says how many, as in the reference's files
        values = {"model_type": self.model_type, **copy.deepcopy(dict(self.extra)), **fields}
        values["pruned_heads"] = {layer: list(heads) for layer, heads in self.pruned_heads.items()}
        if isinstance(self.eos_token_id, tuple):
            values["eos_token_id"] = list(self.eos_token_id)
        values["architectures"] = None if self.architectures is None else list(self.architectures)
        return {key: dict(value) if isinstance(value, FrozenDict) else value for key, value in values.items()}


def check_config(config: Any) -> None:
    """Check that an argument is a configuration.

    Raises
    ------
    TypeError
        If not.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> check_config(NezhaConfig())
    """
    if not isinstance(config, Config):
        raise TypeError(f"config: expected {_any_config()}, got {type(config).__name__}")


def _any_config() -> str:
    """Name the configurations of all families: "a NezhaConfig, a BertConfig or a ConvBertConfig"."""
    *others, last = [f"a {family.config.__name__}" for family in FAMILIES.values()]
    return f"{', '.join(others)} or {last}"


def _keys(kind: type[Config]) -> set[str]:
    """Return the keys of a config.json that a family's fields hold."""
    return {"model_type", *(field.name for field in dataclasses.fields(kind))} - {"extra"}


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Make a configuration from what a ``config.json`` holds.

    Parameters
    ----------
    values : mapping
        The keys of the file. ``model_type`` chooses the family; a file without it (the authors' own has none) is
        NEZHA's where it has ``max_relative_position`` or ``use_relative_position``, and ConvBERT's where it has
        ``conv_kernel_size``.

    Returns
    -------
    NezhaConfig, BertConfig or ConvBertConfig
        The configuration; keys that it has no field for are in ``extra``.

    Raises
    ------
    TypeError, ValueError
        If the family is not known, or a field is wrong.

    Examples
    --------
    >>> config = config_from_dict({"max_relative_position": 64, "hidden_size": 24, "directionality": "bidi"})
    >>> config.model_type, config.hidden_size, config.extra["directionality"]
    ('nezha', 24, 'bidi')
    """
    values = check_mapping("config", values)
    family = values.get("model_type")
    if family is None:
        family = next((name for name, one in FAMILIES.items() if set(one.config_keys) & set(values)), None)
        if family is None:
            keys = [f"{' or '.join(one.config_keys)} ({one.title})" for one in FAMILIES.values() if one.config_keys]
            raise ValueError(
                f"config: expected model_type ({', '.join(FAMILIES)}), or {', or '.join(keys)}, got none of them"
            )
    if family not in tuple(FAMILIES):
        raise ValueError(f"model_type: expected one of {', '.join(FAMILIES)}, got {family!r}")
    kind = FAMILIES[family].config
    known = _keys(kind)
    fields = {key: value for key, value in values.items() if key in known - {"model_type"}}
    if fields.get("pruned_heads", {}) is None:  # which the reference takes as none
        del fields["pruned_heads"]
    if fields.get("id2label") is not None:
        fields.pop("num_labels", None)  # the names decide, as in the reference
    elif isinstance(count := fields.get("num_labels"), int) and count > MOST_NAMES_MADE_OF_A_FILE:
        raise ValueError(
            f"num_labels: expected a number from 1 to {MOST_NAMES_MADE_OF_A_FILE} where id2label does not name the "
            f"labels, got {shortened(count)}"
        )
    return kind(**fields, extra={key: value for key, value in values.items() if key not in known})


def read_config(path: str | Path) -> Config:
    """Read a ``config.json``.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    NezhaConfig, BertConfig or ConvBertConfig
        The configuration.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a JSON object in UTF-8, or not a configuration; the message names the file.

    Examples
    --------
    >>> import nezha_np as nz
    >>> read_config(nz.weights.checkpoint.SHIPPED / "config.json").num_hidden_layers
    4
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a config.json, found no such file")
    text = read_utf8(path)
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got a file that is not: {error}") from None
    try:
        return config_from_dict(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {printable(error)}") from None
