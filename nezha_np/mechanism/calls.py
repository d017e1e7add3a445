"""What a tape keeps of a call, until the walk back has passed it."""

from __future__ import annotations

from typing import Any, NamedTuple

from nezha_np.mechanism.layer import Layer


class Unread(NamedTuple):
    """What a tape keeps of an array whose numbers no gradient reads."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)


class Call(NamedTuple):
    """A call of a primitive on a tape."""

    layer: Layer
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    result: Any
    numbers: tuple[int | None, ...]  # those of the arguments; None: no gradient goes to it
    number: int  # that of the result


class Checkpoint(NamedTuple):
    """A call of a composite whose own calls were not kept: it runs again when the walk back comes to it."""

    layer: Layer
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    scope: str
    numbers: tuple[int | None, ...]  # those of the arrays of its result
    result: None = None  # which is not held
