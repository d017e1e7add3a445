"""The one mechanism: a model that is written once can be run, run faster, traced and differentiated.

A layer is a plain function with a decorator. A **primitive** returns one array and has its gradient beside it::

    @primitive
    def add(x, y): ...

    @gradient_of(add)
    def add_gradient(dz, z, x, y): ...

A **composite** is made of other layers and takes a view of the weights, ``w.at("attention.self")``. A **constant**
makes arrays that nothing is differentiated by: masks, tables, the caller's inputs. A call of a layer does one of four
things:

1. run its definition, the function as it is written;
2. run a faster kernel that `nezha_np.kernels` holds for it and for the array's library;
3. inside ``with trace() as t``: run the definition and record the result under its full name;
4. under `value_and_grad`: do the same on a tape, which is then walked backwards through the gradients.

Trace and tape live in a context variable, so threads do not see each other's.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral
from typing import Any, Protocol, cast

import numpy as np

from nezha_np.arrays import Array, has_kind, is_array, library, namespace, to_numpy
from nezha_np.tables import aligned

Function = Callable[..., Any]


class Layer(Protocol):
    """A function with a decorator of this file: its `definition` as written, and its `gradient` where it has one."""

    __name__: str
    definition: Function
    gradient: Function | None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run the layer."""


class View:
    """The weights below one prefix, as a composite sees them: ``w["query.weight"]``, ``w.at("output")``."""

    __slots__ = ("prefix", "weights")

    def __init__(self, weights: Any, prefix: str = "") -> None:
        self.weights, self.prefix = weights, prefix

    @property
    def config(self) -> Any:
        """The configuration of the weights."""
        return self.weights.config

    def __getitem__(self, name: str) -> Array:
        return self.weights[self.prefix + name]

    def at(self, path: str) -> View:
        """Return the view of what lies below `path`."""
        return View(self.weights, f"{self.prefix}{path}.")


# ------------------------------------------------------------------------------------------ layers and their kernels

Kernel = tuple[Function, tuple[Any, ...]]  # and the dtypes it serves

_recorder: ContextVar[Any] = ContextVar("nezha_np_recorder", default=None)
_kernels: dict[type, Mapping[Layer, Kernel]] = {}  # array type -> layer -> kernel


def _kernels_for(array: Array) -> Mapping[Layer, Kernel]:
    module = f"nezha_np.kernels.{library(array)}"
    try:
        found = importlib.import_module(module).KERNELS
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        found = {}
    return _kernels.setdefault(type(array), found)


def _layer(definition: Function, record: str) -> Layer:
    @functools.wraps(definition)
    def call(*arguments: Any, name: str | None = None, **options: Any) -> Any:
        recorder = _recorder.get()
        if recorder is not None:
            return getattr(recorder, record)(layer, arguments, options, name)
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
    """Make a function a layer that returns one array, and that trace and tape do not look inside."""
    return _layer(definition, "primitive")


def composite(definition: Function) -> Layer:
    """Make a function a layer that is made of other layers; the first array that it returns carries its name."""
    return _layer(definition, "composite")


def constant(definition: Function) -> Layer:
    """Make a function a layer whose result no gradient passes through."""
    return _layer(definition, "constant")


def gradient_of(layer: Layer) -> Callable[[Function], Function]:
    """Put a gradient beside its primitive.

    The gradient is called as ``gradient(dy, y, *arguments, **options)`` and returns one array for each argument that
    has one, None for an argument that has none; a single array is the first argument's.
    """

    def register(gradient: Function) -> Function:
        layer.gradient = gradient
        return gradient

    return register


# -------------------------------------------------------------------------------------------------- recording a pass


class _Definitions:
    """A recorder that records nothing: its presence switches the kernels off."""

    def primitive(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Any:
        return layer.definition(*arguments, **options)

    composite = constant = primitive

    def dropout_key(self, name: str) -> None:
        return None


class Trace(Mapping[str, Array]):
    """Every intermediate of one pass by its full name, in the order in which they were made.

    With `output`, patterns like ``encoder.layer.*.output``, the arrays whose names fit none of them are let go.

    A recorder that does more than record overrides `compute` and `compose` (how a layer's result is made) or `keep`
    (what happens to a result, and what the pass goes on with): `nezha_np.oracle` does.
    """

    def __init__(self, output: tuple[str, ...] | None = None) -> None:
        self.output = output
        self.arrays: dict[str, Array] = {}
        self.made_by: dict[str, int] = {}  # name -> identity of its array, for those that were let go too
        self.parameters: dict[int, str] = {}  # identity of a weight -> its name
        self.scope = ""

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def summary(self) -> str:
        """Return a table of what was recorded: name, shape, dtype, and min, max, mean and norm, taken in float64."""
        rows: list[tuple[str, ...]] = [("name", "shape", "dtype", "min", "max", "mean", "norm")]
        for name, array in self.arrays.items():
            values = to_numpy(array)
            shape, dtype = " × ".join(map(str, values.shape)) or "()", str(values.dtype)
            rows.append((name, shape, dtype, *(f"{number:.4g}" for number in _min_max_mean_norm(values))))
        return aligned(rows, right=(3, 4, 5, 6))

    def full_name(self, layer: Layer, arguments: tuple[Any, ...], name: str | None) -> str:
        """Name a result: scope and `name`, else the parent of its parameter, else scope and the layer's own name."""
        if name is None:
            for argument in arguments:
                if id(argument) in self.parameters:
                    return self.parameters[id(argument)].rpartition(".")[0]
        return self.scope + (name or layer.__name__)

    def compute(self, name: str, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make the result of a primitive or a constant, which is to have this name."""
        return layer.definition(*arguments, **options)

    def compose(self, name: str, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make the result of a composite, the first array of which is to have this name."""
        return layer.definition(*arguments, **options)

    def keep(self, name: str, array: Array) -> Array:
        """Record an array, and return what the pass goes on with. An array may have several names, a name one array."""
        if self.made_by.setdefault(name, id(array)) != id(array):
            raise ValueError(f"{name} was recorded twice: a trace or a tape covers one forward pass")
        if self.output is None or matches(name, self.output):
            self.arrays[name] = array
        return array

    def primitive(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Array:
        """Run a primitive, and record its result."""
        full_name = self.full_name(layer, arguments, name)
        return self.keep(full_name, self.compute(full_name, layer, arguments, options))

    constant = primitive

    def composite(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Any:
        """Run a composite in the scope of its view, and record its first array under the view's prefix."""
        view = next((argument for argument in arguments if isinstance(argument, View)), None)
        if view is None:
            return layer.definition(*arguments, **options)
        if not self.parameters:
            self.parameters = {id(array): parameter for parameter, array in view.weights.items()}
        full_name = view.prefix.removesuffix(".")
        outer, self.scope = self.scope, view.prefix
        try:
            result = self.compose(full_name, layer, arguments, options)
        finally:
            self.scope = outer
        if not full_name:
            return result
        if isinstance(result, tuple):
            return self.keep(full_name, result[0]), *result[1:]
        return self.keep(full_name, result)

    def dropout_key(self, name: str) -> tuple[Any, ...] | None:
        """Return what a dropout mask is drawn from, or None where there is no dropout."""
        return None


def _min_max_mean_norm(values: np.ndarray) -> tuple[float, ...]:
    """Describe an array by four numbers, without an overflow on the way: a sum of a mask's numbers would be one."""
    if not values.size:
        return ()
    values = values.astype("float64")
    with np.errstate(all="ignore"):
        least, most = float(values.min()), float(values.max())
        scale = max(abs(least), abs(most))
        scaled = values / scale if 0.0 < scale < math.inf else values
        scale = scale if 0.0 < scale < math.inf else 1.0
        return least, most, float(scaled.mean()) * scale, float((scaled * scaled).sum() ** 0.5) * scale


class Tape(Trace):
    """A trace that also keeps what the walk back needs."""

    def __init__(self, dropout_seed: tuple[int, int] | None) -> None:
        super().__init__()
        self.dropout_seed = dropout_seed
        self.calls: list[tuple[Layer, tuple[Any, ...], dict[str, Any], Array]] = []
        self.constants: dict[int, Array] = {}  # held, so that no other array can take their identity
        self.made: set[int] = set()

    def primitive(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Array:
        """Run a primitive, and put the call on the tape."""
        where = f"{layer.__name__} in {self.scope or 'the model'}"
        if any(map(_is_float_array, options.values())):
            raise ValueError(f"{where} got a float array by keyword: its gradient would be lost. Pass it by position")
        if not all(self._knows(argument) for argument in arguments if _is_float_array(argument)):
            raise ValueError(
                f"{where} got a float array that no layer made: its gradient would be lost. "
                "Make it by a primitive or a constant layer"
            )
        result = super().primitive(layer, arguments, options, name)
        # A layer that changes nothing returns its argument: the walk back passes it by.
        if not any(result is argument for argument in arguments):
            self.calls.append((layer, arguments, options, result))
            self.made.add(id(result))
        return result

    def constant(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Array:
        """Run a constant layer, and remember its result."""
        full_name = self.full_name(layer, arguments, name)
        result = self.compute(full_name, layer, arguments, options)
        if self._knows(result):  # the caller passed one array twice: each name has a gradient of its own
            result = result[...]
        result = self.keep(full_name, result)
        self.constants[id(result)] = result
        return result

    def _knows(self, array: Array) -> bool:
        return id(array) in self.made or id(array) in self.parameters or id(array) in self.constants

    def dropout_key(self, name: str) -> tuple[Any, ...] | None:
        """Return seed, step and full name."""
        return None if self.dropout_seed is None else (*self.dropout_seed, self.scope + name)

    def compute_gradient(
        self, dy: Array, result: Array, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Make the gradients of a layer's arguments, from the gradient of its result."""
        return cast(Function, layer.gradient)(dy, result, *arguments, **options)

    def keep_gradient(self, dy: Array, result: Array) -> Array:
        """Return the gradient of a result that the walk goes on with, all its parts added up."""
        return dy

    def walk_back(self, loss: Array, *, intermediates: bool = False) -> dict[str, Array]:
        """Return the gradient of `loss` by every weight it depends on, and by every intermediate if asked for."""
        if id(loss) not in self.made:
            raise ValueError("value_and_grad: expected a loss that a layer made, got another array")
        gradients = {id(loss): namespace(loss).ones_like(loss)}
        for layer, arguments, options, result in reversed(self.calls):
            dy = gradients.get(id(result)) if intermediates else gradients.pop(id(result), None)
            if dy is None:
                continue
            if layer.gradient is None:
                raise ValueError(f"{layer.__name__} has no gradient: put one beside it with mechanism.gradient_of")
            dy = self.keep_gradient(dy, result)
            parts = self.compute_gradient(dy, result, layer, arguments, options)
            for argument, part in zip(arguments, parts if isinstance(parts, tuple) else (parts,), strict=False):
                if part is not None and (intermediates or id(argument) not in self.constants):
                    before = gradients.get(id(argument))
                    gradients[id(argument)] = part if before is None else before + part
        named = {name: gradients[key] for key, name in self.parameters.items() if key in gradients}
        if intermediates:
            named |= {name: gradients[id(array)] for name, array in self.arrays.items() if id(array) in gradients}
        return named


def patterns(argument: str, value: Any) -> tuple[str, ...]:
    """Check patterns of names: one, or a sequence of them."""
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, Sequence) or not all(isinstance(pattern, str) for pattern in found):
        raise TypeError(f"{argument}: expected a pattern or a sequence of patterns, got {value!r}")
    return tuple(found)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name fits one of some patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_float_array(value: Any) -> bool:
    return is_array(value) and has_kind(value, "real floating")


@contextmanager
def recording(recorder: Any) -> Iterator[Any]:
    """Let a recorder have every call of a layer inside the block."""
    if isinstance(_recorder.get(), Trace):
        raise ValueError("trace, value_and_grad and definitions: expected none inside a trace, which would miss it")
    token = _recorder.set(recorder)
    try:
        yield recorder
    finally:
        _recorder.reset(token)


# -------------------------------------------------------------------------------------------------- the public names


def definitions() -> Any:
    """Switch the kernels off: inside ``with definitions():`` every layer runs as it is written.

    Returns
    -------
    context manager
        For this thread alone.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> with nz.definitions():
    ...     out = nz.forward(weights, [[2, 3]])
    """
    return recording(_Definitions())


def trace(output: str | Sequence[str] | None = None) -> Any:
    """Record every intermediate of one forward pass, of any head, by its full name.

    Parameters
    ----------
    output : str or sequence of str, optional
        Patterns (`fnmatch`'s: ``*`` any text, ``?`` one character, ``[ab]``) of the names to record, so that a pass of
        a large model need not hold everything: ``"encoder.layer.*.attention.self.probs"``. None: all.

    Returns
    -------
    context manager
        Its value is a read-only mapping from names to arrays, in the order in which they were made, with a method
        `summary`. It covers one pass: a second one inside the same block raises ValueError.

    Raises
    ------
    TypeError
        If `output` is no text and no sequence of texts.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> with nz.trace() as t:
    ...     out = nz.forward(weights, [[2, 3, 4]])
    >>> t["encoder.layer.0.attention.self.probs"].shape
    (1, 4, 3, 3)
    >>> with nz.trace(output="encoder.layer.?") as t:
    ...     out = nz.forward(weights, [[2, 3, 4]])
    >>> list(t)
    ['encoder.layer.0', 'encoder.layer.1', 'encoder.layer.2', 'encoder.layer.3']
    >>> print(t.summary()[:38])
    name             shape        dtype
    """
    return recording(Trace(None if output is None else patterns("output", output)))


def value_and_grad(
    head: Callable[..., Any],
    dropout_seed: int | tuple[int, int] | None = None,
    *,
    intermediates: bool = False,
) -> Callable[..., tuple[Any, dict[str, Array]]]:
    """Turn a head into a function that also returns the gradient of its loss by every weight.

    Parameters
    ----------
    head : callable
        A head with a loss, ``nz.masked_lm`` for example, or any function of weights whose result has a ``loss``.
    dropout_seed : int or (int, int), optional
        None: no dropout. A seed, or a seed and a step: dropout with the rates of the configuration, each mask drawn
        from seed, step (0 where none is given) and the full name of its layer, the same on every machine.
    intermediates : bool, optional
        Return the gradients by intermediates too, under their trace names.

    Returns
    -------
    callable
        Takes what the head takes; returns the head's output and a dict from names to gradients. The gradient of a
        weight that is used twice (the decoder tied to the embeddings) is the sum. A weight that the loss does not
        depend on has no entry.

    Raises
    ------
    TypeError
        If `head` is not callable, `dropout_seed` not an integer, a pair of them, or None, `intermediates` not a bool.
    ValueError
        When the returned function is called, if the head returned no loss, because it was given no labels.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> out, gradients = nz.value_and_grad(nz.masked_lm)(weights, [[2, 5, 3]], labels=[[-100, 7, -100]])
    >>> gradients["encoder.layer.0.output.dense.bias"].shape
    (128,)
    """
    if not callable(head):
        raise TypeError(f"head: expected a function, got {type(head).__name__}")
    seed_and_step = None
    if dropout_seed is not None:
        pair: tuple[Any, ...] = dropout_seed if isinstance(dropout_seed, tuple) else (dropout_seed, 0)
        if len(pair) != 2 or not all(isinstance(part, Integral) and not isinstance(part, bool) for part in pair):
            raise TypeError(f"dropout_seed: expected an integer, a pair of integers or None, got {dropout_seed!r}")
        seed_and_step = (int(pair[0]), int(pair[1]))
    if not isinstance(intermediates, bool):
        raise TypeError(f"intermediates: expected True or False, got {intermediates!r}")

    @functools.wraps(head)
    def run(weights: Any, *arguments: Any, **options: Any) -> tuple[Any, dict[str, Array]]:
        with recording(Tape(seed_and_step)) as tape:
            out = head(weights, *arguments, **options)
        if getattr(out, "loss", None) is None:
            raise ValueError(f"value_and_grad: {getattr(head, '__name__', head)} returned no loss: give it labels")
        with definitions():
            return out, tape.walk_back(out.loss, intermediates=intermediates)

    return run


def dropout_key(name: str) -> tuple[Any, ...] | None:
    """Return what the dropout mask called `name` is drawn from: (seed, step, full name), or None for no dropout."""
    recorder = _recorder.get()
    return None if recorder is None else recorder.dropout_key(name)
