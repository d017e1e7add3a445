"""Layers: the decorators that make a function one, and which kernel runs in place of its definition."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, cast

from nezha_np.arrays import Array, library
from nezha_np.mechanism.recorder import Recorder, active_recorder

Function: TypeAlias = Callable[..., Any]


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


Kernel: TypeAlias = tuple[Function, tuple[Any, ...]]  # and the dtypes it serves
# How a recorder is asked for the result of a call: (recorder, layer, arguments, options, name) -> result.
_Ask: TypeAlias = Callable[[Recorder, Layer, tuple[Any, ...], dict[str, Any], str | None], Any]

_kernels: dict[type, Mapping[Layer, Kernel]] = {}  # array type -> layer -> kernel


def _kernels_for(array: Array) -> Mapping[Layer, Kernel]:
    module = f"nezha_np.kernels.{library(array)}"
    try:
        found: Mapping[Layer, Kernel] = importlib.import_module(module).KERNELS
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        found = {}
    return _kernels.setdefault(type(array), found)


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


def primitive(definition: Function) -> Layer:
    """Make a function a layer that returns one array, and that trace and tape do not look inside.

    Parameters
    ----------
    definition : callable
        Takes arrays by position, options by keyword; its gradient is put beside it with `gradient_of`.

    Returns
    -------
    Layer
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
    return _layer(definition, lambda recorder, *call: recorder.primitive(*call))


def composite(definition: Function) -> Layer:
    """Make a function a layer that is made of other layers.

    Parameters
    ----------
    definition : callable
        Takes arrays and a `View` of the weights by position; returns an array, or a tuple with an array first, which
        is recorded under the view's prefix.

    Returns
    -------
    Layer
        Takes what the definition takes.
    """
    return _layer(definition, lambda recorder, *call: recorder.composite(*call))


def constant(definition: Function) -> Layer:
    """Make a function a layer whose result no gradient passes through: a mask, a table, an array of the caller's.

    Parameters
    ----------
    definition : callable
        Returns one array.

    Returns
    -------
    Layer
        Takes what the definition takes, and ``name=``, the name of the result in its scope.
    """
    return _layer(definition, lambda recorder, *call: recorder.constant(*call))


def gradient_of(layer: Layer) -> Callable[[Function], Function]:
    """Put a gradient beside its primitive.

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
