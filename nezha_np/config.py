"""Configurations: immutable dataclasses that read and write the reference's ``config.json``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from nezha_np.layers.activations import ACTIVATIONS

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


class FrozenDict(dict[Any, Any]):
    """A dict that cannot be changed after it is made: the mappings of a frozen dataclass."""

    def _refuse(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("a configuration cannot be changed: make another with config.replace(...)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[Any, Any]]]:
        return FrozenDict, (dict(self),)


@dataclasses.dataclass(frozen=True)
class NezhaConfig:
    """The configuration of a NEZHA model (transformers NezhaConfig), checked when it is made.

    Parameters
    ----------
    vocab_size : int
        V, the number of word pieces.
    hidden_size : int
        H, the features of a token.
    num_hidden_layers : int
        The number of encoder layers.
    num_attention_heads : int
        N; it divides `hidden_size` into heads of an even size D.
    intermediate_size : int
        F, the width of the feed-forward's middle.
    hidden_act : str or callable
        The activation: "gelu", "gelu_new", "relu", "silu" or "swish", "selu", "tanh", or a function of one array.
    hidden_dropout_prob, attention_probs_dropout_prob : float
        Dropout rates while training, from 0 to less than 1.
    max_position_embeddings : int
        The longest text the reference takes. Functional positions have no such limit: any length works here.
    max_relative_position : int
        K, the distance beyond which all distances look alike.
    type_vocab_size : int
        The number of token types.
    initializer_range : float
        The standard deviation of the normal distribution that `nezha_np.init` truncates.
    layer_norm_eps : float
        ε of the layer normalisations.
    classifier_dropout : float or None
        The dropout rate before a classifier; None: `hidden_dropout_prob`.
    pad_token_id, bos_token_id, eos_token_id : int or None
        Ids of special tokens. The row of the padding id gets no gradient from look-ups.
    use_cache : bool
        Whether a decoder returns its keys and values.
    is_decoder : bool
        Whether a token attends to itself and those before it alone.
    add_cross_attention : bool
        Whether a decoder's layers attend to an encoder too.
    tie_word_embeddings : bool
        Whether the language-model head uses the word embeddings as its matrix.
    pruned_heads : mapping of int to sequence of int
        The heads that each layer has lost.
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
    >>> config = NezhaConfig(hidden_size=128, num_attention_heads=4, num_labels=3)
    >>> config.head_size, config.id2label[2]
    (32, 'LABEL_2')
    >>> config.replace(is_decoder=True).is_decoder
    True
    """

    model_type: ClassVar[str] = "nezha"

    vocab_size: int = 21128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str | Callable[[Any], Any] = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    max_relative_position: int = 64
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    classifier_dropout: float | None = 0.1
    pad_token_id: int | None = 0
    bos_token_id: int | None = 2
    eos_token_id: int | None = 3
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
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "max_relative_position",
            "type_vocab_size",
        ):
            _check_whole(name, getattr(self, name), least=1)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if not (name == "classifier_dropout" and self.classifier_dropout is None):
                _check_number(name, getattr(self, name), "from 0 to less than 1", lambda value: 0.0 <= value < 1.0)
        for name in ("initializer_range", "layer_norm_eps"):
            _check_number(name, getattr(self, name), "not negative", lambda value: 0.0 <= value < float("inf"))
        for name in ("use_cache", "is_decoder", "add_cross_attention", "tie_word_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name))
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id: expected an id from 0 to {self.vocab_size - 1} or None, got {self.pad_token_id}"
            )
        if self.hidden_size % self.num_attention_heads or self.head_size % 2:
            raise ValueError(
                "hidden_size: expected a multiple of num_attention_heads with an even quotient (each sine has its cosine), "
                f"got hidden_size {self.hidden_size} and num_attention_heads {self.num_attention_heads}"
            )
        if not callable(self.hidden_act) and self.hidden_act not in ACTIVATIONS:
            names = ", ".join(ACTIVATIONS)
            raise ValueError(f"hidden_act: expected one of {names}, or a function, got {self.hidden_act!r}")
        if self.add_cross_attention and not self.is_decoder:
            raise ValueError("add_cross_attention: expected is_decoder=True with it, got is_decoder=False")
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise ValueError(f"problem_type: expected one of {', '.join(PROBLEM_TYPES)} or None, got {self.problem_type!r}")
        self._set_labels()
        self._set_pruned_heads()
        if isinstance(self.architectures, str):
            raise TypeError(f"architectures: expected a list of class names or None, got {self.architectures!r}")
        if self.architectures is not None:
            object.__setattr__(self, "architectures", tuple(self.architectures))
        object.__setattr__(self, "extra", FrozenDict(_mapping("extra", self.extra)))

    def _set_labels(self) -> None:
        if self.num_labels is not None:
            _check_whole("num_labels", self.num_labels, least=1)
        if self.id2label is None:
            id2label = {index: f"LABEL_{index}" for index in range(2 if self.num_labels is None else self.num_labels)}
        else:
            try:
                id2label = {int(index): str(label) for index, label in _mapping("id2label", self.id2label).items()}
            except ValueError:
                raise ValueError(f"id2label: expected whole numbers as keys, got {list(self.id2label)}") from None
        if not id2label or (self.num_labels is not None and self.num_labels != len(id2label)):
            raise ValueError(f"num_labels: expected one for each entry of id2label ({len(id2label)}), got {self.num_labels}")
        label2id = {label: index for index, label in id2label.items()} if self.label2id is None else self.label2id
        object.__setattr__(self, "num_labels", len(id2label))
        object.__setattr__(self, "id2label", FrozenDict(id2label))
        object.__setattr__(self, "label2id", FrozenDict(_mapping("label2id", label2id)))

    def _set_pruned_heads(self) -> None:
        pruned = {}
        for layer, heads in _mapping("pruned_heads", self.pruned_heads).items():
            gone = tuple(sorted({int(head) for head in heads}))
            if not 0 <= int(layer) < self.num_hidden_layers or not set(gone) < set(range(self.num_attention_heads)):
                raise ValueError(
                    f"pruned_heads: expected some but not all of the {self.num_attention_heads} heads of a layer from 0 to "
                    f"{self.num_hidden_layers - 1}, got {layer}: {list(heads)}"
                )
            pruned[int(layer)] = gone
        object.__setattr__(self, "pruned_heads", FrozenDict(pruned))

    @property
    def head_size(self) -> int:
        """D, the features of a head."""
        return self.hidden_size // self.num_attention_heads

    def heads(self, layer: int) -> int:
        """Return the number of heads that a layer still has."""
        return self.num_attention_heads - len(self.pruned_heads.get(layer, ()))

    def replace(self, **changes: Any) -> NezhaConfig:
        """Make a configuration that differs in some fields; a new `num_labels` brings new label names.

        Examples
        --------
        >>> NezhaConfig().replace(num_labels=5).num_labels
        5
        """
        if "num_labels" in changes and "id2label" not in changes:
            changes |= {"id2label": None, "label2id": changes.get("label2id")}
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
        >>> NezhaConfig().to_dict()["model_type"]
        'nezha'
        """
        if not isinstance(self.hidden_act, str):
            raise ValueError(f"hidden_act: expected a name to write into config.json, got {self.hidden_act!r}")
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["extra"], fields["num_labels"]  # id2label says how many, as in the reference's files
        values = {"model_type": self.model_type, **dict(self.extra), **fields}
        values["pruned_heads"] = {layer: list(heads) for layer, heads in self.pruned_heads.items()}
        values["architectures"] = None if self.architectures is None else list(self.architectures)
        return {key: dict(value) if isinstance(value, FrozenDict) else value for key, value in values.items()}


FAMILIES: dict[str, type[NezhaConfig]] = {"nezha": NezhaConfig}


def config_from_dict(values: Mapping[str, Any]) -> NezhaConfig:
    """Make a configuration from what a ``config.json`` holds.

    Parameters
    ----------
    values : mapping
        The keys of the file. ``model_type`` chooses the family; a file without it (the authors' own has none) is NEZHA's
        where it has ``max_relative_position`` or ``use_relative_position``.

    Returns
    -------
    NezhaConfig
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
    values = dict(_mapping("config", values))
    family = values.pop("model_type", None)
    if family is None:
        if not {"max_relative_position", "use_relative_position"} & set(values):
            raise ValueError(
                "config: expected model_type, or max_relative_position or use_relative_position as NEZHA's own files have, "
                "got neither"
            )
        family = "nezha"
    if family not in FAMILIES:
        raise ValueError(f"model_type: expected one of {', '.join(FAMILIES)}, got {family!r}")
    kind = FAMILIES[family]
    known = {field.name for field in dataclasses.fields(kind)} - {"extra"}
    fields = {key: value for key, value in values.items() if key in known}
    for key in ("id2label", "label2id", "pruned_heads"):
        if fields.get(key, "") is None:
            del fields[key]
    if fields.get("id2label") is not None:
        fields.pop("num_labels", None)  # the names decide, as in the reference
    return kind(**fields, extra={key: value for key, value in values.items() if key not in known})


def read_config(path: str | Path) -> NezhaConfig:
    """Read a ``config.json``.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    NezhaConfig
        The configuration.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a JSON object, or not a configuration; the message names the file.

    Examples
    --------
    >>> import nezha_np as nz
    >>> read_config(nz.weights.SHIPPED / "config.json").num_hidden_layers
    4
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a config.json, found no such file")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got a file that is not: {error}") from None
    try:
        return config_from_dict(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _check_whole(name: str, value: Any, least: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name}: expected a number from {least} on, got {value}")


def _check_number(name: str, value: Any, expected: str, is_right: Callable[[float], bool]) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not is_right(value):
        raise ValueError(f"{name}: expected a number {expected}, got {value}")


def _mapping(name: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(value).__name__}")
    return value
