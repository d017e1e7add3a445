"""Layers: the decorators that make a layer of a function, and the choice between its kernel and its definition."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from nezha_np.arrays import Array, is_array, library
from nezha_np.mechanism.recorder import Recorder, active_recorder

Function: TypeAlias = Callable[..., Any]
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


class Layer(Protocol):
    """A function with one of the decorators of this file.

    Attributes
    ----------
    definition : callable
        The function as it is written.
    gradient : callable or None
        The gradient of a primitive; None where it has none.
    reads : tuple of bool, or None
        Of the result and of each argument, whether the gradient reads its numbers; None: it may read all.
    checkpointed : bool
        Whether `checkpointed` marks it.
    """

    __name__: str
    definition: Function
    gradient: Function | None
    reads: tuple[bool, ...] | None
    checkpointed: bool

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run the layer."""


class ArrayLayer(Layer, Protocol):
    """A primitive or a constant layer: it takes what its definition takes, and ``name=``, and returns one array."""

    definition: Callable[..., Array]

    def __call__(self, *arguments: Any, **options: Any) -> Array:
        """Run the layer."""


class CompositeLayer(Layer, Protocol[P, R_co]):
    """A composite: it takes and returns what its definition does."""

    def __call__(self, *arguments: P.args, **options: P.kwargs) -> R_co:
        """Run the layer."""


Kernel: TypeAlias = tuple[Function, tuple[Any, ...]]  # and the dtypes it serves
# How a recorder is asked for the result of a call: (recorder, layer, arguments, options, name) -> result.
_Ask: TypeAlias = Callable[[Recorder, Layer, tuple[Any, ...], dict[str, Any], str | None], Any]

# array type -> layer -> kernel, and the same for gradients
_kernels: dict[type, Mapping[Layer, Kernel]] = {}
_gradient_kernels: dict[type, Mapping[Layer, Kernel]] = {}
# array type -> the layers whose gradient's kernel takes ``out=``, which may be dy
_over_dy: dict[type, Set[Layer]] = {}
# array type -> the context in which the kernels want a pass and its walk back to run
_whole_passes: dict[type, Callable[[bool], AbstractContextManager[Any]]] = {}
# array type -> how the kernels apply a function of elements to arrays: sweep(function, *arrays)
_sweeps: dict[type, Callable[..., tuple[Any, ...]]] = {}
# array type -> how the kernels run several passes: side_by_side(passes) yields what each of them returns
_side_by_side: dict[type, Callable[[Sequence[Callable[[], Any]]], Iterator[Any]]] = {}


def _kernels_for(array: Any) -> Mapping[Layer, Kernel]:
    module = f"nezha_np.kernels.{library(array)}"
    try:
        kernels: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        kernels = None
    _gradient_kernels.setdefault(type(array), getattr(kernels, "GRADIENT_KERNELS", {}))
    _over_dy.setdefault(type(array), getattr(kernels, "OVER_DY", frozenset()))
    _whole_passes.setdefault(type(array), getattr(kernels, "WHOLE_PASS", nullcontext))
    _sweeps.setdefault(type(array), getattr(kernels, "SWEEP", _sweep_at_once))
    _side_by_side.setdefault(type(array), getattr(kernels, "SIDE_BY_SIDE", one_by_one))
    return _kernels.setdefault(type(array), getattr(kernels, "KERNELS", {}))


def _layer(definition: Function, ask: _Ask) -> Layer:
    @functools.wraps(definition)
    def call(*arguments: Any, name: str | None = None, **options: Any) -> Any:
        recorder = active_recorder()
        if recorder is not None:
            return ask(recorder, layer, arguments, options, name)
        first = arguments[0] if arguments else None
        kernels = _kernels.get(type(first))
        if kernels is None:
            kernels = _kernels_for(first)
        if first is not None and layer in kernels:
            kernel, dtypes = kernels[layer]
            if first.dtype in dtypes and (result := kernel(*arguments, **options)) is not NotImplemented:
                return result
        return definition(*arguments, **options)

    layer = cast(Layer, call)
    layer.definition, layer.gradient, layer.reads, layer.checkpointed = definition, None, None, False
    return layer


def gradient_by_kernel(
    layer: Layer, dy: Array, result: Array, arguments: tuple[Any, ...], options: dict[str, Any], *, spare: bool = False
) -> tuple[Any, ...] | None:
    """Run the gradient of a layer by its kernel, where there is one that accepts the call.

    Parameters
    ----------
    layer : Layer
        The layer.
    dy, result : array
        The gradient of the loss with respect to the layer's result, and the result.
    arguments : tuple
        What the layer was called with by position.
    options : dict of str to object
        What it was called with by keyword.
    spare : bool
        Whether nothing needs `dy` afterwards: a kernel that can will write its result over it.

    Returns
    -------
    tuple or None
        What the gradient returns, as a tuple: arrays that nothing else holds. None where no kernel made it.
    """
    kind = type(dy)
    if kind not in _gradient_kernels:
        _kernels_for(dy)
    kernel, dtypes = _gradient_kernels[kind].get(layer, (None, ()))
    if kernel is None or dy.dtype not in dtypes:
        return None
    if spare and layer in _over_dy[kind]:
        options = {**options, "out": dy}
    found = kernel(dy, result, *arguments, **options)
    if found is NotImplemented:
        return None
    return found if isinstance(found, tuple) else (found,)


def whole_pass(weights: Any, *, checkpoint_layers: bool = False) -> AbstractContextManager[Any]:
    """Return the context in which the kernels want a pass and its walk back to run, to share out threads for example.

    Parameters
    ----------
    weights : mapping of str to array, or anything else
        The weights, whose library says which kernels run.
    checkpoint_layers : bool
        Whether layers run again on the way back, so that most of what is held are gradients of weights.

    Returns
    -------
    context manager
        One that does nothing where the kernels ask for none, and for what is not a mapping to arrays.
    """
    array = next(iter(weights.values()), None) if isinstance(weights, Mapping) else None
    if not is_array(array):
        return nullcontext()
    if type(array) not in _whole_passes:
        _kernels_for(array)
    return _whole_passes[type(array)](checkpoint_layers)


def _sweep_at_once(
    function: Callable[..., tuple[Any, ...]], *arrays: Any, out: Sequence[Any] | None = None
) -> tuple[Any, ...]:
    return written(function(*arrays), out)


def written(values: tuple[Any, ...], out: Sequence[Any] | None) -> tuple[Any, ...]:
    """Write arrays into others of the same shape and dtype, where there are any, and return those that hold them.

    Parameters
    ----------
    values : tuple of array
        The arrays.
    out : sequence of (array or None), or None
        Where to write each; None: nowhere.

    Returns
    -------
    tuple of array
        The arrays of `out`, and those of `values` that have none.
    """
    if out is None:
        return values
    for value, target in zip(values, out, strict=True):
        if target is not None and target is not value:
            target[...] = value
    return tuple(value if target is None else target for value, target in zip(values, out, strict=True))


def sweeps_in_blocks(array: Array) -> bool:
    """Say whether `sweep` writes into `out` block by block: otherwise it makes whole new arrays, and copies them there.

    Parameters
    ----------
    array : array
        One of those that would be swept.

    Returns
    -------
    bool
        Whether the kernels of its library have a way of their own.

    Examples
    --------
    >>> import numpy as np
    >>> sweeps_in_blocks(np.ones(2))
    True
    """
    if type(array) not in _sweeps:
        _kernels_for(array)
    return _sweeps[type(array)] is not _sweep_at_once


def sweep(
    function: Callable[..., tuple[Array, ...]], *arrays: Array, out: Sequence[Array | None] | None = None
) -> tuple[Array, ...]:
    """Apply a function of elements to large arrays, by the kernels of their library, where they have a faster way.

    NumPy's go through the arrays block by block, so that what the function makes on its way stays in cache, and divide
    the blocks among threads inside `whole_pass`. The numbers are the same, bit by bit. Nothing is recorded of it: it is
    for what is computed outside of a pass, such as an optimiser's step.

    Parameters
    ----------
    function : callable
        Takes as many arrays, of one shape, and returns a tuple of arrays of this shape. Each element of them depends
        on the elements in the same place alone.
    *arrays : array
        The arrays, one at least.
    out : sequence of (array or None), optional
        For each array of the result one to write it into, of its shape and dtype; it may be one of `arrays`. None: a
        new array.

    Returns
    -------
    tuple of array
        What ``function(*arrays)`` returns.

    Examples
    --------
    >>> import numpy as np
    >>> sweep(lambda x, y: (x + y, x * y), np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    (array([4., 6.]), array([3., 8.]))
    """
    if active_recorder() is not None:
        return written(function(*arrays), out)
    kind = type(arrays[0])
    if kind not in _sweeps:
        _kernels_for(arrays[0])
    return _sweeps[kind](function, *arrays, out=out)


def one_by_one(passes: Sequence[Callable[[], R]]) -> Iterator[R]:
    """Run passes one after the other, each when its result is asked for.

    Parameters
    ----------
    passes : sequence of callable
        What is run; each with its inputs bound.

    Yields
    ------
    object
        What each pass returns, in order.

    Examples
    --------
    >>> list(one_by_one([lambda: "one", lambda: "two"]))
    ['one', 'two']
    """
    return (run() for run in passes)


def side_by_side(weights: Any, passes: Sequence[Callable[[], R]]) -> Iterator[R]:
    """Run passes that have nothing to do with each other, by the kernels' library several at once.

    NumPy's run each in a thread: where passes are small, threads that share one wait for each other longer than they
    compute. The numbers are those of a pass in one thread.

    Parameters
    ----------
    weights : array
        One of the weights: it tells which library's kernels will run.
    passes : sequence of callable
        What is run; each with its inputs bound.

    Yields
    ------
    object
        What each pass returns, in order.

    Examples
    --------
    >>> import numpy as np
    >>> list(side_by_side(np.ones(1), [lambda: "one", lambda: "two"]))
    ['one', 'two']
    """
    if active_recorder() is not None:
        return one_by_one(passes)
    if type(weights) not in _side_by_side:
        _kernels_for(weights)
    return _side_by_side[type(weights)](passes)


def primitive(definition: Callable[..., Array]) -> ArrayLayer:
    """Make a function a layer that returns one array; a trace or a tape records the result, and nothing inside.

    Parameters
    ----------
    definition : callable
        Takes arrays by position, options by keyword. `gradient_of` registers its gradient.

    Returns
    -------
    ArrayLayer
        Takes what the definition takes, and ``name=``, the name of the result in its scope.

    Examples
    --------
    >>> import numpy as np
    >>> @primitive
    ... def double(x):
    ...     return 2.0 * x
    >>> double(np.ones(2), name="doubled")
    array([2., 2.])
    """
    return cast(ArrayLayer, _layer(definition, lambda recorder, *call: recorder.primitive(*call)))


def composite(definition: Callable[P, R]) -> CompositeLayer[P, R]:
    """Make a function a layer that is made of other layers.

    Parameters
    ----------
    definition : callable
        Takes arrays and a `View` of the weights by position; returns an array, or a tuple with an array first, which
        is recorded under the view's prefix.

    Returns
    -------
    CompositeLayer
        Takes what the definition takes.
    """
    return cast("CompositeLayer[P, R]", _layer(definition, lambda recorder, *call: recorder.composite(*call)))


def checkpointed(layer: CompositeLayer[P, R]) -> CompositeLayer[P, R]:
    """Mark a composite as one that a tape may run again instead of keeping what its gradients need.

    Parameters
    ----------
    layer : CompositeLayer
        The composite, one of many in a row: a layer of the encoder.

    Returns
    -------
    CompositeLayer
        The same.
    """
    layer.checkpointed = True
    return layer


def constant(definition: Callable[..., Array]) -> ArrayLayer:
    """Make a function a layer whose result no gradient passes through: a mask, a table, an input array.

    Parameters
    ----------
    definition : callable
        Returns one array.

    Returns
    -------
    ArrayLayer
        Takes what the definition takes, and ``name=``, the name of the result in its scope.
    """
    return cast(ArrayLayer, _layer(definition, lambda recorder, *call: recorder.constant(*call)))


def gradient_of(layer: Layer, *, reads: Sequence[str] | None = None) -> Callable[[Function], Function]:
    """Register the gradient of a primitive.

    Parameters
    ----------
    layer : Layer
        The primitive.
    reads : sequence of str, optional
        Which of its parameters, from the second on, the gradient reads the numbers of; of the others it may know only
        shape and dtype, and a tape that is not looked at lets them go. It binds the gradient's kernels too. None: all.

    Returns
    -------
    callable
        A decorator for the gradient, which is called as ``gradient(dy, y, *arguments, **options)`` and returns one
        array for each argument that has a gradient, None for an argument that has none; a single array is the first
        argument's.

    Raises
    ------
    ValueError
        When the gradient is registered, if `reads` has a name that is none of its parameters'.

    Examples
    --------
    >>> import numpy as np
    >>> @primitive
    ... def double(x):
    ...     return 2.0 * x
    >>> @gradient_of(double)
    ... def double_gradient(dy, y, x):
    ...     return 2.0 * dy
    >>> double.gradient(np.ones(2), None, None)
    array([2., 2.])
    """

    def register(gradient: Function) -> Function:
        names = list(inspect.signature(gradient).parameters)[1:]
        if reads is not None and (unknown := [name for name in reads if name not in names]):
            raise ValueError(f"reads: expected parameters of {gradient.__name__}, got {', '.join(unknown)}")
        layer.gradient = gradient
        layer.reads = None if reads is None else tuple(name in reads for name in names)
        return gradient

    return register
