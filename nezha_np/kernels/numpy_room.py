"""Room for the gradients of large weights, apart from where a pass makes and drops its other arrays.

A gradient of a weight stays, and what is made between two of them goes: side by side on the heap they leave holes,
which the system does not get back and the next array does not fit into. So gradients are put one behind the other into
chunks that are large enough for an allocator to take them from the system by themselves (glibc does from 32 MiB on).
What of a chunk is not written to takes no memory; a gradient that is kept by itself keeps its chunk.

The tape of a whole pass is much larger than the gradients, which fit into the holes that it leaves: so this is for
`checkpoint_layers` alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

CHUNK = 2**26  # bytes
LARGE = 2**20  # bytes: smaller arrays fit into the holes


class Room:
    """Chunks of memory, each handed out from its beginning to its end.

    Examples
    --------
    >>> room = Room()
    >>> one, other = room.empty((1024, 512), np.dtype("float32")), room.empty((512, 512), np.dtype("float32"))
    >>> one.base is other.base
    True
    """

    def __init__(self) -> None:
        self.free: Any = np.empty(0, np.uint8)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """Return an array that is not filled yet.

        Parameters
        ----------
        shape : tuple of int
            Its shape.
        dtype : dtype
            Its dtype.

        Returns
        -------
        array
            One of its own where it is small, or so large that it is a chunk by itself.
        """
        size = math.prod(shape) * dtype.itemsize
        if not LARGE <= size <= CHUNK // 2:
            return np.empty(shape, dtype)
        if size > len(self.free):
            self.free = np.empty(CHUNK, np.uint8)
        taken, self.free = self.free[:size], self.free[-(-size // 64) * 64 :]  # lines of the cache are of 64 bytes
        array: np.ndarray = taken.view(dtype).reshape(shape)
        return array


_room: ContextVar[Room | None] = ContextVar("nezha_np_room", default=None)  # of the pass that is under way


@contextmanager
def room_for_gradients() -> Iterator[None]:
    """Put the gradients of weights into chunks until the block ends.

    Yields
    ------
    None
        Nothing.
    """
    token = _room.set(Room())
    try:
        yield
    finally:
        _room.reset(token)


def empty_gradient(weight: np.ndarray) -> np.ndarray:
    """Return an array for the gradient of a weight.

    Parameters
    ----------
    weight : array
        The weight, which gives shape and dtype.

    Returns
    -------
    array
        The array, not filled yet.
    """
    room = _room.get()
    return np.empty(weight.shape, weight.dtype) if room is None else room.empty(weight.shape, weight.dtype)
