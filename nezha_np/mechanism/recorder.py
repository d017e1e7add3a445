"""What every call of a layer is handed to while a pass is recorded.

While no recorder is active, a layer runs its kernel or its definition. Inside ``with recording(recorder):`` the call is
handed to the recorder instead: a trace runs the definition and records the result, a tape records the call too, and
`definitions` runs the definition and records nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from nezha_np.mechanism.layer import Layer


class Recorder(Protocol):
    """It is asked for the result of each call of a layer inside ``with recording(recorder):``.

    Attributes
    ----------
    exclusive : bool
        Whether no other recorder may become active inside its block: this one would not record what that one gets.
    kernels : bool
        Whether layers run by their kernels, where they have one.
    """

    @property
    def exclusive(self) -> bool:
        """Whether no other recorder may become active inside its block."""

    @property
    def kernels(self) -> bool:
        """Whether layers run by their kernels, where they have one."""

    def primitive(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Any:
        """Run a primitive.

        Parameters
        ----------
        layer : Layer
            The layer that was called.
        arguments : tuple
            What it was called with by position.
        options : dict of str to object
            What it was called with by keyword, without ``name=``.
        name : str or None
            The ``name=`` of the call.

        Returns
        -------
        array
            The result of the call.
        """

    def composite(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Any:
        """Run a composite.

        Parameters
        ----------
        layer, arguments, options, name
            As for `primitive`.

        Returns
        -------
        array or tuple
            The result of the call: an array, or a tuple with an array first.
        """

    def constant(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Any:
        """Run a constant layer.

        Parameters
        ----------
        layer, arguments, options, name
            As for `primitive`.

        Returns
        -------
        array
            The result of the call.
        """

    def dropout_key(self, name: str) -> tuple[Any, ...] | None:
        """Return the key of the random stream of a dropout layer.

        Parameters
        ----------
        name : str
            The name of the layer in its scope.

        Returns
        -------
        tuple or None
            The key; None where there is no dropout.
        """

    def dropout_start(self, size: int) -> int:
        """Return where in its stream the mask of a dropout layer begins.

        Parameters
        ----------
        size : int
            How many elements the mask has.

        Returns
        -------
        int
            How many numbers belong to rows of the batch that this pass does not compute; 0 for a whole batch.
        """


R = TypeVar("R", bound=Recorder)
_active: ContextVar[Recorder | None] = ContextVar("nezha_np_recorder", default=None)
active_recorder = _active.get  # bound once: every call of a layer asks for it


@contextmanager
def recording(recorder: R) -> Iterator[R]:
    """Hand every call of a layer inside the block to a recorder.

    Parameters
    ----------
    recorder : Recorder
        A trace, a tape, or another recorder.

    Yields
    ------
    Recorder
        The recorder itself.

    Raises
    ------
    ValueError
        If the active recorder is exclusive: a trace or a tape would not record what this one gets.
    """
    active = _active.get()
    if active is not None and active.exclusive:
        raise ValueError(
            "trace, value_and_grad and definitions: expected none inside a trace, which would not record it"
        )
    token = _active.set(recorder)
    try:
        yield recorder
    finally:
        _active.reset(token)


class _Definitions:
    """A recorder that records nothing: its presence switches the kernels off."""

    exclusive = kernels = False

    def primitive(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Any:
        return layer.definition(*arguments, **options)

    composite = constant = primitive

    def dropout_key(self, name: str) -> None:
        return None

    def dropout_start(self, size: int) -> int:
        return 0


def kernels_run_here() -> bool:
    """Say whether layers run by their kernels, where they have one.

    Returns
    -------
    bool
        Whether no recorder is active, or one that lets kernels run.
    """
    active = _active.get()
    return active is None or active.kernels


@contextmanager
def nothing_recorded() -> Iterator[None]:
    """Hand no call of a layer inside the block to a recorder: for a kernel, which may call layers that it stands for.

    Yields
    ------
    None
        Nothing.
    """
    token = _active.set(None)
    try:
        yield
    finally:
        _active.reset(token)


def definitions() -> AbstractContextManager[Recorder]:
    """Switch the kernels off: inside ``with definitions():`` every layer runs as it is written.

    Returns
    -------
    context manager
        It holds for the thread that enters it.

    Raises
    ------
    ValueError
        When it is entered inside a trace or a tape, which would not record what runs in it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> with nz.definitions():
    ...     out = nz.forward(weights, [[2, 3]])
    """
    return recording(_Definitions())


def dropout_key(name: str) -> tuple[Any, ...] | None:
    """Return the key of the random stream of a dropout mask.

    Parameters
    ----------
    name : str
        The name of the dropout layer in its scope.

    Returns
    -------
    tuple or None
        Seed, step and full name; None where there is no dropout, because no tape with a seed is active.
    """
    recorder = _active.get()
    return None if recorder is None else recorder.dropout_key(name)


def dropout_start(size: int) -> int:
    """Return where in its random stream a dropout mask begins.

    Parameters
    ----------
    size : int
        How many elements the mask has.

    Returns
    -------
    int
        How many numbers of the stream belong to the rows of the batch before those of this pass.
    """
    recorder = _active.get()
    return 0 if recorder is None else recorder.dropout_start(size)
