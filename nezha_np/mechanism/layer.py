"""Layers: the decorators that make a layer of a function, and the choice between its kernel and its definition."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
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
    """

    __name__: str
    definition: Function
    gradient: Function | None

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
# array type -> the context in which the kernels want a pass and its walk back to run
_whole_passes: dict[type, Callable[[], AbstractContextManager[Any]]] = {}


def _kernels_for(array: Any) -> Mapping[Layer, Kernel]:
    module = f"nezha_np.kernels.{library(array)}"
    try:
        kernels: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        kernels = None
    _gradient_kernels.setdefault(type(array), getattr(kernels, "GRADIENT_KERNELS", {}))
    _whole_passes.setdefault(type(array), getattr(kernels, "WHOLE_PASS", nullcontext))
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
    layer.definition, layer.gradient = definition, None
    return layer


def gradient_by_kernel(
    layer: Layer, gradient: Function, dy: Array, result: Array, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """Run the gradient of a layer by its kernel, where there is one that accepts the call, else by its definition.

    Parameters
    ----------
    layer : Layer
        The layer.
    gradient : callable
        Its gradient.
    dy, result : array
        The gradient of the loss with respect to the layer's result, and the result.
    arguments : tuple
        What the layer was called with by position.
    options : dict of str to object
        What it was called with by keyword.

    Returns
    -------
    array or tuple
        What `gradient` returns.
    """
    kernels = _gradient_kernels.get(type(dy))
    if kernels is None:
        _kernels_for(dy)
        kernels = _gradient_kernels[type(dy)]
    if layer in kernels:
        kernel, dtypes = kernels[layer]
        if dy.dtype in dtypes and (found := kernel(dy, result, *arguments, **options)) is not NotImplemented:
            return found
    return gradient(dy, result, *arguments, **options)


def whole_pass(weights: Any) -> AbstractContextManager[Any]:
    """Return the context in which the kernels want a pass and its walk back to run, to share out threads for example.

    Parameters
    ----------
    weights : mapping of str to array, or anything else
        The weights, whose library says which kernels run.

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
    return _whole_passes[type(array)]()


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


def gradient_of(layer: Layer) -> Callable[[Function], Function]:
    """Register the gradient of a primitive.

    Parameters
    ----------
    layer : Layer
        The primitive.

    Returns
    -------
    callable
        A decorator for the gradient, which is called as ``gradient(dy, y, *arguments, **options)`` and returns one
        array for each argument that has a gradient, None for an argument that has none; a single array is the first
        argument's.

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
        layer.gradient = gradient
        return gradient

    return register
