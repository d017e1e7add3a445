"""Replays: the pass of a bundle run again on another implementation's numbers, rightly or with a mistake.

A replay takes each step from *their* inputs to it, as far as they are known: every result that they have replaces the
one just computed, and the pass goes on with theirs. What is computed differs from what they have by the fault of this
one step alone, not by what came before it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import numpy as np

from nezha_np.arrays import is_array, to_numpy
from nezha_np.layers.masks import additive_mask
from nezha_np.mechanism import Layer, Trace, definitions, recording
from nezha_np.mechanism.patterns import matches
from nezha_np.model.tasks import TASKS
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.passes import order_of_gradients
from nezha_np.oracle.rounding import Arithmetic, Rounded, rounded_result
from nezha_np.weights.weights import Weights


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A call of a layer that a mistake changes.

    Attributes
    ----------
    name : str
        The trace name of its result, for example ``encoder.layer.0.attention.self.probs``.
    right : callable
        The layer's definition (for a change of a gradient: the gradient).
    weights : Weights
        All weights.
    inputs : dict
        The arguments of the head.
    """

    name: str
    right: Callable[..., Any]
    weights: Weights
    inputs: Mapping[str, Any]

    @property
    def config(self) -> Any:
        """The configuration."""
        return self.weights.config


Change = Callable[..., Any]  # change(step, *arguments, **options) in place of definition(*arguments, **options)
Changes = Mapping[Layer, Change]
Call = tuple[Layer, tuple[Any, ...], dict[str, Any]]
CANNOT = (ValueError, IndexError, KeyError)  # what a change raises where it cannot be made


@dataclasses.dataclass(frozen=True)
class At:
    """A change of some steps of a layer alone: those whose names fit a pattern, or one of several.

    Examples
    --------
    >>> at_residuals = At("**.residual", lambda step, x, y: x)
    >>> [at_residuals.acts_at(name) for name in ("encoder.layer.0.output.residual", "embeddings.sum")]
    [True, False]
    """

    patterns: str | tuple[str, ...]
    change: Change

    def acts_at(self, name: str) -> bool:
        """Whether it changes the step of a name."""
        return matches(name, (self.patterns,) if isinstance(self.patterns, str) else self.patterns)

    def __call__(self, step: Step, *arguments: Any, **options: Any) -> Any:
        """Compute the step."""
        return self.change(step, *arguments, **options)


class Reached(Exception):
    """The replay has made the array that it was to make."""


class Replay(Trace):
    """A pass that goes on with their numbers.

    Parameters
    ----------
    weights, inputs
        Those of the pass.
    theirs : mapping of str to array
        Their results by trace names.
    changes : mapping of layers to functions
        What is computed in place of some layers: a mistake.
    only : str, optional
        The one step that is changed, or a pattern of several; None: every step of these layers.
    steps : collection of str, optional
        The steps that are computed, and may be changed; what they have of the others is taken as it is. None: all.
    target : str, optional
        Where to stop; None: at the end.
    arithmetic : Arithmetic, optional
        The dtype to round every result to; None: as NumPy computes it.
    nudge : int
        With a number other than 0 results are also moved by a random part of a unit in their last place.
    right : Replay, optional
        The same replay without a change: what it made of the same arrays is not computed again.
    by_kernels : bool
        Whether what is not changed is computed by the kernels: their numbers differ by roundings.

    Attributes
    ----------
    made : dict of str to array
        What each step made of their numbers, in the order of the pass.
    calls : dict of str to (layer, arguments, options)
        How each primitive was called.
    sources : dict of str to tuple of str
        The steps whose results a step was made of.
    around : dict of str to tuple of str
        The composites that a step is inside of.
    layers : dict of str to set of layers
        The layers that made a step; two composites may have one name.
    changed, refused : list of str
        The steps at which a change acted, and those at which it cannot be made.
    """

    def __init__(
        self,
        weights: Weights,
        inputs: Mapping[str, Any],
        theirs: Mapping[str, np.ndarray],
        *,
        changes: Changes | None = None,
        only: str | None = None,
        steps: Collection[str] | None = None,
        target: str | None = None,
        arithmetic: Arithmetic | None = None,
        nudge: int = 0,
        right: Replay | None = None,
        by_kernels: bool = False,
    ) -> None:
        super().__init__()
        self.right, self.by_kernels = right, by_kernels
        self.arithmetic, self.nudge = arithmetic, nudge
        self.weights, self.inputs, self.theirs = weights, inputs, theirs
        self.changes, self.only, self.steps, self.target = changes or {}, only, steps, target
        self.made: dict[str, np.ndarray] = {}
        self.calls: dict[str, Call] = {}
        self.sources: dict[str, tuple[str, ...]] = {}
        self.around: dict[str, tuple[str, ...]] = {}
        self.layers: dict[str, set[Layer]] = {}
        self.changed: list[str] = []
        self.refused: list[str] = []
        self._inside: tuple[str, ...] = ()
        self._latest_name: dict[int, str] = {}  # of an array, by its identity

    def compute(self, name: str, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make a result, by the change where there is one."""
        if self._is_taken(name):
            return self.theirs[name]
        self.calls[name] = layer, arguments, options
        self.layers.setdefault(name, set()).add(layer)
        self.around[name] = self._inside
        self.sources[name] = tuple(
            self._latest_name[id(argument)] for argument in arguments if id(argument) in self._latest_name
        )
        right = self.right if self.right is not None and self.right.layers.get(name) == {layer} else None
        if right is not None and not self._is_changed(name, layer) and right.was_called(name, arguments, options):
            return right.made[name]
        result = self._result(name, layer, arguments, options)
        if right is not None and same_numbers(result, right.made[name]):
            return right.made[name]  # a change that makes the same numbers: what follows is known too
        if self.arithmetic is None or layer is additive_mask or any(result is argument for argument in arguments):
            return result
        return rounded_result(result, name, self.arithmetic, self.nudge)

    def compose(self, name: str, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make the results of a composite, by the change where there is one."""
        self.layers.setdefault(name, set()).add(layer)
        outer, self._inside = self._inside, (*self._inside, name)
        try:
            result = self._result(name, layer, arguments, options)
        finally:
            self._inside = outer
        first = result[0] if isinstance(result, tuple) else result
        source = self._latest_name.get(id(first), name)
        if source != name:
            self.sources.setdefault(name, (source,))
            self.around.setdefault(name, self._inside)
        return result

    def was_called(self, name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> bool:
        """Whether a step was made of these very arrays, and of the same options."""
        _, own, own_options = self.calls[name]
        if len(own) != len(arguments) or own_options.keys() != options.keys():
            return False
        pairs = [*zip(own, arguments, strict=True), *((own_options[key], options[key]) for key in options)]
        return all(x is y or (not is_array(x) and not is_array(y) and bool(x == y)) for x, y in pairs)

    def _is_taken(self, name: str) -> bool:
        return self.steps is not None and name not in self.steps and name in self.theirs

    def _result(self, name: str, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not self._is_changed(name, layer):
            return self._right_result(layer, arguments, options)
        change, before = self.changes[layer], len(self.changed)
        self.changed.append(name)  # what a changed composite calls is not what the right one called
        try:
            result = change(Step(name, layer.definition, self.weights, self.inputs), *arguments, **options)
            return self._in_the_dtype_of_the_pass(name, result) if self.by_kernels else result
        except CANNOT:
            del self.changed[before:]
            self.refused.append(name)
            return layer.definition(*arguments, **options)

    def _in_the_dtype_of_the_pass(self, name: str, result: Any) -> Any:
        """Round what a change computed in float64: with float32 weights every step after it would take much longer."""
        right = None if self.right is None else self.right.made.get(name)
        if right is None or not is_array(result) or result.dtype != np.float64 or right.dtype != np.float32:
            return result
        return result.astype(np.float32)

    def _right_result(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self.by_kernels and layer.gradient is not None:  # a primitive: of a composite each step is wanted
            return self.by_kernel(layer, arguments, options)
        return layer.definition(*arguments, **options)

    def _is_changed(self, name: str, layer: Layer) -> bool:
        change = self.changes.get(layer)
        return (
            change is not None
            and (self.only is None or matches(name, (self.only,)))
            and (self.steps is None or name in self.steps)
            and not (isinstance(change, At) and not change.acts_at(name))
        )

    def keep(self, name: str, array: Any) -> Any:
        """Note what was made, and go on with theirs."""
        self.made.setdefault(name, array)  # two composites may have one name: the inner one makes it
        if name == self.target:
            raise Reached
        array = self.theirs.get(name, array)
        self._latest_name[id(array)] = name
        return array

    def steps_to(self, name: str) -> set[str]:
        """List the steps that make a result of their last arrays before it, and the composites around these."""
        found, open_ends = {name}, [name]
        while open_ends:
            for source in self.sources.get(open_ends.pop(), ()):
                if source not in self.theirs and source not in found:
                    found.add(source)
                    open_ends.append(source)
        return found.union(*(self.around.get(step, ()) for step in found))

    def is_made_of(self, name: str, step: str) -> bool:
        """Whether a result is made of another one, by steps that they do not have."""
        sources = self.sources.get(name, ())
        return step in sources or any(self.is_made_of(source, step) for source in sources if source not in self.theirs)


def same_numbers(x: Any, y: Any) -> bool:
    """Whether two arrays have the same numbers; most that differ do so in their first feature already.

    Examples
    --------
    >>> same_numbers(np.ones((2, 3)), np.ones((2, 3))), same_numbers(np.ones((2, 3)), np.zeros((2, 3)))
    (True, False)
    >>> same_numbers(np.ones(()), np.ones(()))
    True
    """
    return np.array_equal(np.atleast_1d(x)[..., :1], np.atleast_1d(y)[..., :1]) and np.array_equal(x, y)


def replay(
    bundle: Bundle, weights: Weights, inputs: Mapping[str, Any], theirs: Mapping[str, np.ndarray], **options: Any
) -> Replay:
    """Run a bundle's head in a replay: what was made of their numbers is in its `made`."""
    recorder = Replay(weights, inputs, theirs, **options)
    with np.errstate(all="ignore"), recording(recorder), contextlib.suppress(Reached):
        TASKS[bundle.head].function(weights, **inputs)
    return recorder


class GradientReplay(Rounded):
    """A taped pass whose walk back goes on with their gradients; results and gradients are rounded to a dtype.

    The pass is taped once, and walked back again for each mistake: what a walk makes of the same numbers as the right
    one is taken from that.
    """

    def __init__(
        self,
        weights: Weights,
        inputs: Mapping[str, Any],
        theirs: Mapping[str, np.ndarray],
        arithmetic: Arithmetic,
        *,
        changes: Changes | None = None,
        nudge: int = 0,
        dropout_seed: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(arithmetic, nudge, dropout_seed)
        self.weights, self.inputs, self.theirs, self.changes = weights, inputs, theirs, changes or {}
        self.only: str | None = None
        self.right_at: Collection[str] = ()
        self.made_gradients: dict[str, np.ndarray] = {}
        self.right: dict[
            int, tuple[Any, Any]
        ] = {}  # of a result, by its identity: its gradient, and what is made of it
        self.acted = False

    @functools.cached_property
    def _names(self) -> dict[int, list[str]]:
        """The names of each array, by its identity; asked for once the pass is taped."""
        names: dict[int, list[str]] = {}
        for name, array in self.arrays.items():
            names.setdefault(id(array), []).append(name)
        return names

    def compute_gradient(
        self, dy: Any, result: Any, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Make the gradients of a layer's arguments, by the change where there is one."""
        change = self.changes.get(layer)
        names = [] if change is None else self.names_of(result)
        if change is not None and self._acts_at(change, names):
            step = Step(names[0], cast(Any, layer.gradient), self.weights, self.inputs)
            with contextlib.suppress(*CANNOT):
                parts = change(step, dy, result, *arguments, **options)
                self.acted = True
                return parts
        known = self.right.get(id(result))
        if known is not None and (not self.acted or known[0] is dy):
            return known[1]
        parts = super().compute_gradient(dy, result, layer, arguments, options)
        if not self.acted:
            self.right[id(result)] = dy, parts
        return parts

    def _acts_at(self, change: Change, names: list[str]) -> bool:
        """Whether a change is made at the step of these names."""
        if self.only is not None and not any(matches(name, (self.only,)) for name in names):
            return False
        if not set(names).isdisjoint(self.right_at):
            return False
        return not isinstance(change, At) or any(map(change.acts_at, names))

    def keep_gradient(self, dy: Any, result: Any) -> Any:
        """Note what was made, and go on with theirs."""
        names = self.names_of(result)
        self.made_gradients |= dict.fromkeys(names, dy)
        return next((self.theirs[name] for name in names if name in self.theirs), dy)

    def names_of(self, array: Any) -> list[str]:
        """List the names of an array."""
        return self._names.get(id(array), [])

    def with_mistake(
        self, changes: Changes | None = None, only: str | None = None, right_at: Collection[str] = ()
    ) -> GradientReplay:
        """Return a recorder of the same tape that walks back once, with a mistake; several may walk at the same time.

        Parameters
        ----------
        changes : mapping of layers to functions, optional
            What is computed in place of some gradients.
        only : str, optional
            The one step at which it is, or a pattern of several; None: at every step of these layers.
        right_at : collection of str
            The steps at which it is not.

        Returns
        -------
        GradientReplay
            The recorder. What it makes of the same numbers as the right walk it takes from that, and adds to it.
        """
        walker = copy.copy(self)
        walker.changes, walker.only, walker.right_at = changes or {}, only, right_at
        walker.made_gradients, walker.acted = {}, False
        return walker

    def walk(
        self,
        loss: Any,
        changes: Changes | None = None,
        only: str | None = None,
        right_at: Collection[str] = (),
    ) -> dict[str, np.ndarray]:
        """Walk back with a mistake: what each step makes of theirs, in the order of the walk.

        Parameters
        ----------
        loss : () array
            The loss, a result of this tape.
        changes, only, right_at
            As for `with_mistake`.

        Returns
        -------
        dict of str to array
            The gradients.
        """
        walker = self.with_mistake(changes, only, right_at)
        with np.errstate(all="ignore"), definitions():
            found = walker.walk_back(loss)
        made = {**found, **walker.made_gradients}
        return {name: to_numpy(made[name]) for name in order_of_gradients(self) if name in made}


def tape_gradients(
    bundle: Bundle,
    weights: Weights,
    inputs: Mapping[str, Any],
    theirs: Mapping[str, np.ndarray],
    arithmetic: Arithmetic,
    **options: Any,
) -> tuple[GradientReplay, Any]:
    """Tape a bundle's pass, to be walked back on their gradients; and the loss that the walk begins at."""
    recorder = GradientReplay(weights, inputs, theirs, arithmetic, **options)
    with np.errstate(all="ignore"), recording(recorder):
        out = TASKS[bundle.head].function(weights, **inputs)
    return recorder, out.loss


def replay_gradients(
    bundle: Bundle,
    weights: Weights,
    inputs: Mapping[str, Any],
    theirs: Mapping[str, np.ndarray],
    arithmetic: Arithmetic,
    *,
    changes: Changes | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Walk back on their gradients: what each step makes of theirs, in the order of the walk."""
    recorder, loss = tape_gradients(bundle, weights, inputs, theirs, arithmetic, **options)
    return recorder.walk(loss, changes)
