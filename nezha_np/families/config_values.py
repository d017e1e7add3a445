"""What the fields of a configuration may be: numbers, mappings, labels and pruned heads, checked and immutable."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nezha_np.checks import check_integer, shortened

MOST = 2**31 - 1  # of any size: no axis of a tensor is longer
LARGE = 1e30  # for a number that is no size: it is computed with in float32, which ends at 3e38
MOST_LAYERS = 10**4  # ten times the deepest transformers
MOST_NAMES_MADE = 10**6  # of labels: LABEL_0, LABEL_1 …; more of them must come with their names
MOST_NAMES_MADE_OF_A_FILE = 10**4  # a few bytes of a file ask for them, where the million would take seconds


class FrozenDict(dict[Any, Any]):
    """A dict that cannot be changed after it is made: the mappings of a frozen dataclass."""

    def _refuse(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("a configuration cannot be changed: make another with config.replace(...)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[Any, Any]]]:
        return FrozenDict, (dict(self),)


def check_number(name: str, value: Any, below: float = LARGE) -> float:
    """Check that a field is a number from 0 to less than `below`, and return it as a float.

    Examples
    --------
    >>> check_number("hidden_dropout_prob", 0, below=1)
    0.0
    """
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not 0 <= value < below:  # written so that NaN is refused too
        got = shortened(value) if isinstance(value, int) else value
        raise ValueError(f"{name}: expected a number from 0 to less than {below:g}, got {got}")
    return float(value)


def numbered(name: str, value: Any) -> dict[int, Any]:
    """Turn the keys of a mapping, which JSON makes strings, into integers again.

    Examples
    --------
    >>> numbered("id2label", {"0": "B", "1": "I"})
    {0: 'B', 1: 'I'}
    """
    items = check_mapping(name, value).items()
    try:
        return {int(key) if isinstance(key, str) else operator.index(key): item for key, item in items}
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected whole numbers as keys, got {list(value)}") from None


def check_mapping(name: str, value: Any) -> Mapping[Any, Any]:
    """Check that a field is a mapping, and return it.

    Examples
    --------
    >>> check_mapping("extra", {"directionality": "bidi"})
    {'directionality': 'bidi'}
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(value).__name__}")
    return value


def check_labels(num_labels: Any, id2label: Any, label2id: Any) -> tuple[int, FrozenDict, FrozenDict]:
    """Check the three fields about labels, and make those that are None of the others.

    Files also have a list of the names, and texts in the place of numbers.

    Examples
    --------
    >>> check_labels(2, None, None)
    (2, {0: 'LABEL_0', 1: 'LABEL_1'}, {'LABEL_0': 0, 'LABEL_1': 1})
    >>> check_labels(None, ["bad", "good"], {"bad": "0", "good": "1"})
    (2, {0: 'bad', 1: 'good'}, {'bad': 0, 'good': 1})
    """
    if num_labels is not None:
        most = MOST if id2label is not None else MOST_NAMES_MADE
        num_labels = check_integer("num_labels", num_labels, least=1, most=most)
    if id2label is None:
        names = {index: f"LABEL_{index}" for index in range(2 if num_labels is None else num_labels)}
    else:
        id2label = dict(enumerate(id2label)) if isinstance(id2label, (list, tuple)) else id2label
        names = {index: _name_of_label(label, index) for index, label in numbered("id2label", id2label).items()}
    if not names:
        raise ValueError("id2label: expected at least one label, got none")
    if num_labels not in (None, len(names)):
        raise ValueError(f"num_labels: expected one for each entry of id2label ({len(names)}), got {num_labels}")
    if label2id is None:
        numbers = {label: index for index, label in names.items()}
    else:
        named = check_mapping("label2id", label2id)
        numbers = {str(label): _number_of_label(label, index) for label, index in named.items()}
    return len(names), FrozenDict(names), FrozenDict(numbers)


def _name_of_label(label: Any, index: int) -> str:
    """Return the name of a label, which must be a text that a file can hold."""
    name = str(label)
    if re.search("[\ud800-\udfff]", name):
        raise ValueError(f"id2label: expected whole characters, got half of a surrogate pair in {name!r} ({index})")
    return name


def _number_of_label(label: Any, index: Any) -> int:
    """Check the number of a label, which may be a text."""
    if isinstance(index, str):
        try:
            index = int(index)
        except ValueError:
            raise ValueError(f"label2id: expected a whole number for each label, got {index!r} for {label!r}") from None
    return check_integer("label2id", index)


def check_pruned_heads(pruned_heads: Any, layers: int, heads: int) -> FrozenDict:
    """Check which heads each layer has lost: some, but not all. Negative numbers count from the end.

    Examples
    --------
    >>> check_pruned_heads({"0": [3, 1], "-1": [-4]}, layers=2, heads=4)
    {0: (1, 3), 1: (0,)}
    """
    pruned: dict[int, set[int]] = {}
    for layer, lost in numbered("pruned_heads", pruned_heads).items():
        if not isinstance(lost, Iterable):
            raise TypeError(f"pruned_heads: expected a list of heads for each layer, got {layer}: {lost!r}")
        given = sorted({check_integer("pruned_heads", head) for head in lost})
        gone = pruned.setdefault(layer % layers, set())
        gone.update(head % heads for head in given)
        in_range = -layers <= layer < layers and all(-heads <= head < heads for head in given)
        if not in_range or len(gone) == heads:
            raise ValueError(
                f"pruned_heads: expected some but not all of the {heads} heads of a layer from 0 to {layers - 1}, got "
                f"{layer}: {given}"
            )
    return FrozenDict({layer: tuple(sorted(gone)) for layer, gone in pruned.items()})


def check_tokens(name: str, value: Any) -> int | tuple[int, ...] | None:
    """Check a field that holds the id of a token, or several; None: there is none.

    Examples
    --------
    >>> check_tokens("eos_token_id", 3), check_tokens("eos_token_id", [2, 3])
    (3, (2, 3))
    """
    if isinstance(value, (list, tuple)):
        return tuple(check_integer(name, each, least=0, most=MOST) for each in value)
    return None if value is None else check_integer(name, value, least=0, most=MOST)
