"""The memory that new tensors need, held against the machine's before any of it is asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

from nezha_np.families.config import Config
from nezha_np.families.parameters import embeddings_shapes, layer_shapes, pretraining_task, task_shapes

# Where the operating system does not say through Python how much memory there is (Windows): more than a machine has.
UNKNOWN = 2**42
OBJECT = 1024  # bytes that a tensor takes besides its numbers: names, headers, entries of dicts


def machine_memory() -> int:
    """Return the bytes of memory that this machine has.

    Examples
    --------
    >>> machine_memory() > 2**20
    True
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return UNKNOWN


def check_memory(name: str, needed: int) -> None:
    """Check that so many bytes of tensors can be asked for.

    Parameters
    ----------
    name : str
        The argument that asks for them, for an error.
    needed : int
        The bytes.

    Raises
    ------
    ValueError
        If the machine has fewer; the message names both numbers.

    Examples
    --------
    >>> check_memory("n", 8)
    """
    there = machine_memory()
    if needed > there:
        raise ValueError(
            f"{name}: expected tensors that fit into this machine's memory of {there:,} bytes, got tensors of "
            f"{needed:,} bytes"
        )


def bytes_of_new_model(config: Config, head: str | None, itemsize: int) -> int:
    """Count the bytes of the tensors that `nezha_np.init` makes, from the shapes of one layer.

    Parameters
    ----------
    config : Config
        The configuration. A layer with pruned heads counts as a whole one.
    head : str or None
        The task head that is added.
    itemsize : int
        The bytes of a number.

    Returns
    -------
    int
        The bytes.

    Examples
    --------
    >>> from nezha_np.families.nezha import NezhaConfig
    >>> round(bytes_of_new_model(NezhaConfig(), None, 4) / 10**6)
    410
    """
    tasks = {pretraining_task(config), head} - {"forward", None}
    others = embeddings_shapes(config)
    for task in tasks:
        others |= task_shapes(config, str(task))
    layer = layer_shapes(config.replace(pruned_heads={}), 0)
    return _bytes(others.values(), itemsize) + config.num_hidden_layers * _bytes(layer.values(), itemsize)


def _bytes(shapes: Iterable[tuple[int, ...]], itemsize: int) -> int:
    return sum(OBJECT + math.prod(shape) * itemsize for shape in shapes)
