"""Data parallelism: several processes compute a step together, each the rows of the batch that are its share.

All processes hold the same weights. In each step

    1. every process makes its rows of the batch
    2. the labels of all are counted, since the loss is a mean over them        a few integers are summed
    3. every process computes the shares of its rows in the gradients          accumulation.py
    4. the shares are summed                                                    one flat buffer, in place
    5. every process makes the same step with the sum

So N processes equal one that has the whole batch, up to the rounding of the sum: the labels are counted over all of
it, and each row has the dropout masks that it has in the whole batch, however many processes there are.

What sums is an argument: MPI (`nezha_np.training.mpi`), or threads, or nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nezha_np.arrays import Array, device_of, namespace
from nezha_np.training.accumulation import Batch, count_labels, rows_of
from nezha_np.training.known_files import differences


def _nothing_to_add(buffer: Any) -> None:
    """The sum over one process."""


def _same(value: Any) -> Any:
    return value


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes that compute a step together, as one of them sees them.

    Attributes
    ----------
    rank : int
        The number of this process, from 0 on. The one with the number 0 writes files and reports.
    size : int
        N, how many they are.
    sum_in_place : callable
        Takes an array, which it replaces by the sum of those of all processes. All call it, with equal shapes, and all
        get the same bits.
    broadcast : callable
        Takes any value and returns that of process 0. All call it.

    Examples
    --------
    >>> alone = Processes()
    >>> alone.rank, alone.size, alone.broadcast("a value")
    (0, 1, 'a value')
    """

    rank: int = 0
    size: int = 1
    sum_in_place: Callable[[Any], object] = _nothing_to_add
    broadcast: Callable[[Any], Any] = _same


ALONE = Processes()


def share_of(rows: int, processes: Processes) -> tuple[int, int]:
    """Return which rows of a part of a batch a process computes.

    Parameters
    ----------
    rows : int
        How many rows the part has.
    processes : Processes
        The processes.

    Returns
    -------
    first, after : int
        The first row, and the one after the last; the same where there are more processes than rows left.

    Examples
    --------
    >>> [share_of(8, Processes(rank, 3)) for rank in range(3)]
    [(0, 2), (2, 5), (5, 8)]
    """
    return rows * processes.rank // processes.size, rows * (processes.rank + 1) // processes.size


def rows_of_process(part: Mapping[str, Any], processes: Processes) -> dict[str, Any]:
    """Return the rows of a part of a batch that a process computes, padded as the whole part is.

    Parameters
    ----------
    part : mapping of str to array
        The part.
    processes : Processes
        The processes.

    Returns
    -------
    dict of str to array
        The share of each array.

    Examples
    --------
    >>> import numpy as np
    >>> rows_of_process({"labels": np.array([1, 0, 1])}, Processes(1, 2))
    {'labels': array([0, 1])}
    """
    return {name: array[slice(*share_of(len(array), processes))] for name, array in part.items()}


@contextlib.contextmanager
def after_process_0(processes: Processes) -> Iterator[None]:
    """Let process 0 run the block first, and the others when it has: it writes the files that they read.

    Parameters
    ----------
    processes : Processes
        The processes; all run the block.

    Examples
    --------
    >>> with after_process_0(Processes()):
    ...     print("files are written, or read")
    files are written, or read
    """
    if processes.rank:
        processes.broadcast(None)
    yield
    if not processes.rank:
        processes.broadcast(None)


def check_alike(values: Mapping[str, Any], processes: Processes) -> None:
    """Check that what a run depends on is the same in all processes.

    Parameters
    ----------
    values : mapping of str to object
        What it depends on, by name.
    processes : Processes
        The processes; all call this.

    Raises
    ------
    ValueError
        If a value is not that of process 0.

    Examples
    --------
    >>> check_alike({"step": 100}, Processes(1, 2, broadcast=lambda value: {"step": 200}))
    Traceback (most recent call last):
    ...
    ValueError: step: expected 200, as process 0 has, got 100: all processes need the same files and the same folder
    """
    for name, first, value in differences(processes.broadcast(dict(values)), dict(values)):
        raise ValueError(
            f"{name}: expected {first}, as process 0 has, got {value}: all processes need the same files and the same "
            "folder"
        )


def count_together(
    head: Callable[..., Any], parts: Sequence[Batch], processes: Processes
) -> tuple[dict[str, int], list[tuple[int, int]]]:
    """Count the labels of a batch over all processes, and find where in it the rows of this process stand.

    Parameters
    ----------
    head : callable
        The head.
    parts : sequence of mapping
        The rows of this process of each part of the batch; every process has as many parts.
    processes : Processes
        The processes.

    Returns
    -------
    counts : dict of str to int
        As `nezha_np.training.accumulation.count_labels`, of all processes together.
    places : list of (int, int)
        For each part, how many of its rows other processes have before these, and how many these are.

    Examples
    --------
    >>> import nezha_np as nz
    >>> count_together(nz.masked_lm, [{"labels": [[-100, 7], [8, 9]]}], Processes())
    ({'loss': 3}, [(0, 2)])
    """
    own = count_labels(head, parts)
    rows = [rows_of(head, part) for part in parts]
    numbers = np.zeros((len(own) + len(parts), processes.size), np.int64)  # a column for each process
    numbers[:, processes.rank] = [*own.values(), *rows]
    processes.sum_in_place(numbers)
    counts = dict(zip(own, numbers[: len(own)].sum(axis=1).tolist(), strict=True))
    before = numbers[len(own) :, : processes.rank].sum(axis=1).tolist()
    return counts, list(zip(before, rows, strict=True))


def sum_shares(
    losses: Mapping[str, float], gradients: dict[str, Array], weights: Mapping[str, Array], processes: Processes
) -> tuple[dict[str, float], dict[str, Array]]:
    """Sum the shares of all processes in losses and gradients.

    Parameters
    ----------
    losses : mapping of str to float
        The shares of this process in the losses.
    gradients : dict of str to float array
        The shares of this process in the gradients; it is emptied, so that they are not held twice. A process without
        rows has none.
    weights : mapping of str to float array
        The weights, whose names and shapes all processes know.
    processes : Processes
        The processes.

    Returns
    -------
    losses : dict of str to float
        The losses of the whole batch.
    gradients : dict of str to float array
        Its gradients: views of one flat array.

    Examples
    --------
    >>> import numpy as np
    >>> sum_shares({"loss": 2.0}, {"x": np.ones(2)}, {"x": np.zeros(2), "y": np.zeros(3)}, Processes())
    ({'loss': 2.0}, {'x': array([1., 1.])})
    """
    names = sorted(weights)
    numbers = np.array([*losses.values(), *(name in gradients for name in names)], np.float64)
    processes.sum_in_place(numbers)
    summed = dict(zip(losses, numbers[: len(losses)].tolist(), strict=True))
    # The loss does not depend on every weight; which ones it depends on, a process without rows cannot know.
    present = [name for name, holders in zip(names, numbers[len(losses) :], strict=True) if holders]
    shapes = {name: tuple(weights[name].shape) for name in present}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    some = weights[present[0]]
    xp = namespace(some)
    flat: Any = xp.empty(sum(sizes.values()), dtype=some.dtype, device=device_of(some))
    found, first = {}, 0
    for name in present:
        piece = flat[first : first + sizes[name]]
        piece[...] = xp.reshape(gradients.pop(name), (-1,)) if name in gradients else 0
        found[name] = xp.reshape(piece, shapes[name])
        first += sizes[name]
    processes.sum_in_place(flat)
    return summed, found
