"""Names of what is nested: the arrays of a cache, the arguments of the batches of training steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

MOST_LEVELS = 16  # of tuples inside of one another; a cache has two
MOST_PARTS = 10**6  # lists may repeat one another


def flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    """Name each array of nested tuples by its place in them; what is None is left out.

    Examples
    --------
    >>> flattened({"use_cache": True, "past_key_values": ((1, 2), (3, 4)), "labels": None})
    {'use_cache': True, 'past_key_values.0.0': 1, 'past_key_values.0.1': 2, 'past_key_values.1.0': 3, \
'past_key_values.1.1': 4}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, (tuple, list)):
            found |= flattened({f"{name}.{index}": part for index, part in enumerate(value)})
        elif value is not None:
            found[name] = value
    return found


def named(returned: Any) -> dict[str, Any]:
    """List what a function returns by name, or by number where it has no names.

    Examples
    --------
    >>> named({"logits": 1}), named((1, 2)), named(3)
    ({'logits': 1}, {'0': 1, '1': 2}, {'0': 3})
    """
    if isinstance(returned, Mapping):
        return dict(returned)
    if dataclasses.is_dataclass(returned):
        return {field.name: getattr(returned, field.name) for field in dataclasses.fields(returned)}
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):
        return dict(zip(returned._fields, returned, strict=True))
    parts = returned if isinstance(returned, (tuple, list)) else (returned,)
    return {str(index): part for index, part in enumerate(parts)}


def check_levels(name: str, value: Any) -> None:
    """Check that tuples and lists stand inside of one another in no more levels than arrays are named by.

    Examples
    --------
    >>> check_levels("past_key_values", ((1, 2), (3, 4)))
    """
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [part for each in level if isinstance(each, (tuple, list)) for part in each]
        if len(level) > MOST_PARTS:
            break
    if any(isinstance(each, (tuple, list)) for each in level):
        raise ValueError(f"{name}: expected at most {MOST_LEVELS} levels of tuples inside of one another, got more")


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put back into tuples what `flattened` named.

    Examples
    --------
    >>> nested({"past_key_values.0.0": 1, "past_key_values.0.1": 2})
    {'past_key_values': ((1, 2),)}
    """
    if deep := [name for name in values if name.count(".") > MOST_LEVELS]:
        raise ValueError(f"expected names of at most {MOST_LEVELS} levels, got one of {deep[0].count('.')}")
    groups: dict[str, dict[str, Any]] = {}
    found: dict[str, Any] = {}
    for name, value in values.items():
        head, dot, rest = name.partition(".")
        if dot:
            groups.setdefault(head, {})[rest] = value
        else:
            found[name] = value
    for name, parts in groups.items():
        found[name] = tuple(part for _, part in sorted(nested(parts).items(), key=lambda item: int(item[0])))
    return found


def by_step_and_part(batches: Iterable[Iterable[Mapping[str, Any]]]) -> dict[str, np.ndarray]:
    """Name the arguments in each batch by step, from 1 on, and part, from 0 on; switches are arrays here.

    Examples
    --------
    >>> by_step_and_part([[{"input_ids": np.array([[2]])}]])
    {'1/0/input_ids': array([[2]])}
    """
    return {
        f"{number}/{part}/{name}": np.asarray(value)
        for number, parts in enumerate(batches, start=1)
        for part, arguments in enumerate(parts)
        for name, value in flattened(arguments).items()
    }


def batches_of(values: Mapping[str, np.ndarray], steps: int) -> tuple[tuple[dict[str, Any], ...], ...]:
    """Put batches together of what `by_step_and_part` named.

    Examples
    --------
    >>> batches_of({"1/0/input_ids": np.array([[2]])}, 1)
    (({'input_ids': array([[2]])},),)
    """
    found: list[list[dict[str, Any]]] = [[] for _ in range(steps)]
    for name, array in values.items():
        place = name.split("/")
        if len(place) != 3 or not (place[0].isdecimal() and place[1].isdecimal() and 1 <= int(place[0]) <= steps):
            raise ValueError(f"expected batches by step and part, such as batches/1/0/input_ids, got batches/{name}")
        parts, index = found[int(place[0]) - 1], int(place[1])
        if index >= len(values):
            raise ValueError(f"expected parts that are counted from 0 on, got batches/{name}")
        parts += [{} for _ in range(index + 1 - len(parts))]
        parts[index][place[2]] = bool(array) if array.dtype == bool and not array.shape else array
    if not all(parts and all(parts) for parts in found):
        raise ValueError(f"expected a batch for each of {steps} training steps, found none for some")
    return tuple(tuple(nested(part) for part in parts) for parts in found)
