"""A trace that can be walked backwards: one reverse walk gives the gradients of all weights, by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nezha_np.arrays import Array, has_kind, is_array, namespace
from nezha_np.mechanism.calls import Call, Checkpoint, Unread
from nezha_np.mechanism.gradient_sums import GradientSums
from nezha_np.mechanism.identities import Identities
from nezha_np.mechanism.interventions import Intervention
from nezha_np.mechanism.layer import Layer, gradient_by_kernel
from nezha_np.mechanism.recorder import nothing_recorded, recording
from nezha_np.mechanism.trace import Trace


class Tape(Trace):
    """A trace that also records the calls, which the walk back needs.

    With `output` it is not there to be looked at: it keeps the numbers that gradients read, and lets each go when the
    walk back has passed it. Then it can be walked back once.

    Parameters
    ----------
    dropout_seed : tuple of int or None
        Seed and step of the dropout masks, and whatever else is to tell them apart; None: no dropout.
    output : tuple of str, optional
        As for `Trace`.
    kernels : bool
        Whether layers and gradients run by their kernels, where they have one. What is read and recorded is made by
        definitions.
    checkpoint_layers : bool
        Whether composites that are `checkpointed` keep their arguments alone, and run again when the walk back comes
        to them (Chen et al. 2016, "Training deep nets with sublinear memory cost"): one more forward pass, to the same
        bits. It needs an `output`, which fits no name in them.
    dropout_rows : (int, int), optional
        For a pass over some rows of a batch: how many rows come before them, and how many they are. They have the
        dropout masks that they have in the whole batch.
    """

    def __init__(
        self,
        dropout_seed: tuple[int, ...] | None,
        output: tuple[str, ...] | None = None,
        *,
        kernels: bool = False,
        checkpoint_layers: bool = False,
        dropout_rows: tuple[int, int] | None = None,
        interventions: tuple[Intervention, ...] = (),
    ) -> None:
        super().__init__(output, interventions=interventions)
        self.dropout_seed = dropout_seed
        self.dropout_rows = dropout_rows
        self.kernels = kernels
        self.checkpoint_layers = checkpoint_layers
        self.calls: list[Call | Checkpoint] = []
        self.identities = Identities()
        self.constants: set[int] = set()  # numbers of arrays
        self.within_checkpoint = False  # where nothing is recorded by name
        self.keeps_calls = True

    def primitive(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Array:
        """Run a primitive and record the call.

        Parameters
        ----------
        layer, arguments, options, name
            As for `Recorder.primitive`.

        Returns
        -------
        array
            The result.

        Raises
        ------
        ValueError
            If it got a float array by keyword, or one that no layer made: the gradient would be lost.
        """
        where = f"{layer.__name__} in {self.scope or 'the model'}"
        if any(map(_is_float_array, options.values())):
            raise ValueError(f"{where} got a float array by keyword: its gradient would be lost. Pass it by position")
        numbers = tuple(self.number_of(argument) for argument in arguments)
        pairs = zip(arguments, numbers, strict=True)
        if any(number is None and _is_float_array(argument) for argument, number in pairs):
            raise ValueError(
                f"{where} got a float array that no layer made: its gradient would be lost. "
                "Make it by a primitive or a constant layer"
            )
        return super().primitive(layer, arguments, options, name)

    def note(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], result: Array) -> None:
        """Record a call of a primitive.

        Parameters
        ----------
        layer, arguments, options, result
            As for `Trace.note`.
        """
        # A layer that changes nothing returns its argument: the walk back has nothing to do for it.
        if any(result is argument for argument in arguments):
            return
        numbers = tuple(self.number_of(argument) for argument in arguments)
        number = self.identities.add(result)
        if self.keeps_calls:
            kept, *others = self._read(layer, (result, *arguments))
            self.calls.append(Call(layer, tuple(others), options, kept, numbers, number))

    def replace(self, intervention: Intervention, name: str, array: Array) -> Array:
        """Make an intervention: what its function does with layers is recorded, unless the gradient is to stop there.

        Parameters
        ----------
        intervention, name, array
            As for `Trace.replace`.

        Returns
        -------
        array
            What replaces the array.

        Raises
        ------
        ValueError
            If the gradient is to pass through a function, and no layer made what it returns.
        """
        if intervention.stops_gradient:
            with nothing_recorded():
                result = super().replace(intervention, name, array)
            return self._constant(result)
        result = super().replace(intervention, name, array)
        if self.number_of(result) is None and _is_float_array(result):
            raise ValueError(
                f"intervene: expected the function of {intervention.pattern!r} to make its result by layers, got an "
                f"array at {name} that none made: its gradient would be lost. Make it by layers, or stop the gradient "
                "there by stop_gradient=True"
            )
        return result

    def _constant(self, array: Array) -> Array:
        """Number an array as one that no gradient passes through; one that has a number is given another object."""
        if self.number_of(array) is not None:
            array = array[...]
        self.constants.add(self.identities.add(array))
        return array

    def _read(self, layer: Layer, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        """Leave out the numbers of a layer's result and arguments that its gradient does not read."""
        if self.output is None or layer.reads is None:
            return arrays
        reads = (*layer.reads, *[True] * len(arrays))
        return tuple(
            array if read or not _is_float_array(array) else Unread(tuple(array.shape), array.dtype)
            for array, read in zip(arrays, reads, strict=False)
        )

    def constant(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Array:
        """Run a constant layer and record its result.

        Parameters
        ----------
        layer, arguments, options, name
            As for `Recorder.primitive`.

        Returns
        -------
        array
            The result.
        """
        full_name = self.full_name(layer, arguments, name)
        # One array may have been passed for two inputs: each has a gradient of its own.
        result = self._constant(self.compute(full_name, layer, arguments, options))
        replaced = self.intervene(full_name, result)
        return self.keep(full_name, result if replaced is result else self._constant(replaced))

    def number_of(self, array: Any) -> int | None:
        """Return the number of an array that a layer made, or of a weight.

        Parameters
        ----------
        array : array
            The array, or any other value.

        Returns
        -------
        int or None
            The number; None for any other value.
        """
        return self.identities.add(array) if id(array) in self.parameters else self.identities.find(array)

    def keep(self, name: str, array: Array) -> Array:
        """Record an array by its name; not in a composite that runs twice.

        Parameters
        ----------
        name, array
            As for `Trace.keep`.

        Returns
        -------
        array
            What the pass continues with: the array.
        """
        return array if self.within_checkpoint else super().keep(name, array)

    def compose(self, name: str, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make the result of a composite; of one that is a checkpoint keep the arguments alone.

        Parameters
        ----------
        name, layer, arguments, options
            As for `Trace.compose`.

        Returns
        -------
        array or tuple
            The result.
        """
        if not (self.checkpoint_layers and layer.checkpointed) or self.within_checkpoint:
            return super().compose(name, layer, arguments, options)
        with self._checkpoint(keeps_calls=False):
            result = super().compose(name, layer, arguments, options)
        numbers = tuple(self.number_of(array) for array in _flat(result))
        self.calls.append(Checkpoint(layer, arguments, options, self.scope, numbers))
        return result

    @contextmanager
    def _checkpoint(self, *, keeps_calls: bool) -> Iterator[None]:
        self.within_checkpoint, self.keeps_calls = True, keeps_calls
        try:
            yield
        finally:
            self.within_checkpoint, self.keeps_calls = False, True

    def dropout_key(self, name: str) -> tuple[Any, ...] | None:
        """Return the key of the random stream of a dropout layer.

        Parameters
        ----------
        name : str
            The name of the layer in its scope.

        Returns
        -------
        tuple or None
            Seed, step and full name; None where there is no seed.
        """
        return None if self.dropout_seed is None else (*self.dropout_seed, self.scope + name)

    def dropout_start(self, size: int) -> int:
        """Return where in its stream the mask of a dropout layer begins.

        Parameters
        ----------
        size : int
            How many elements the mask has; each row of the batch has as many.

        Returns
        -------
        int
            How many numbers belong to the rows of the batch before those of this pass.
        """
        if self.dropout_rows is None:
            return 0
        before, rows = self.dropout_rows
        return before * (size // rows)

    def compute_gradient(
        self, dy: Array, result: Array, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """Compute the gradients of a layer's arguments by their definition.

        Parameters
        ----------
        dy : array
            The gradient of its result.
        result : array
            Its result.
        layer, arguments, options
            As for `Recorder.primitive`.

        Returns
        -------
        array, or tuple of (array or None)
            The gradient of the first argument, or those of several.

        Raises
        ------
        ValueError
            If the layer has no gradient.
        """
        if layer.gradient is None:
            raise ValueError(f"{layer.__name__} has no gradient: register one with mechanism.gradient_of")
        return layer.gradient(dy, result, *arguments, **options)

    def keep_gradient(self, dy: Array, result: Array) -> Array:
        """Return the gradient of a result that the walk back continues with.

        Parameters
        ----------
        dy : array
            The gradient, the sum of all its parts.
        result : array
            The result.

        Returns
        -------
        array
            The gradient as it is.
        """
        return dy

    def walk_back(
        self,
        loss: Array,
        *,
        intermediates: bool = False,
        scales: Mapping[str, float] | None = None,
        unwanted: Collection[str] = (),
    ) -> dict[str, Array]:
        """Compute all gradients of a loss.

        Parameters
        ----------
        loss : () array
            The loss, a result of this tape.
        intermediates : bool
            Whether to return the gradients of the intermediates too.
        scales : mapping of str to float, optional
            Factors by the names of results of this tape: the gradient of such a result is multiplied by its factor
            before the walk goes on. ``{"loss": 1024.0}`` scales all gradients.
        unwanted : collection of str
            Names of weights whose gradients are not returned. The walk ends where it would come to these alone.

        Returns
        -------
        dict of str to array
            The gradients of the weights that the loss depends on, by name.

        Raises
        ------
        ValueError
            If no layer made the loss, or a layer has no gradient.
        """
        first = self.identities.find(loss)
        if first is None or first in self.constants or id(loss) in self.parameters:
            raise ValueError("value_and_grad: expected a loss that a layer made, got another array")
        gradients = GradientSums(first, namespace(loss).ones_like(loss), keeps=intermediates)
        factors = {self.identities.add(self.arrays[name]): factor for name, factor in (scales or {}).items()}
        wanted = {name: array for name, array in self.held.items() if name not in unwanted}
        last = self._first_call_with(map(self.identities.find, wanted.values())) if unwanted else 0
        if self.output is None:
            for call in reversed(self.calls[last:]):
                self._step_back(call, gradients, factors, intermediates)
        while self.output is not None and len(self.calls) > last:
            self._step_back(self.calls.pop(), gradients, factors, intermediates)
        numbers = {name: self.identities.find(array) for name, array in wanted.items()}
        if intermediates:
            numbers |= {name: self.identities.find(array) for name, array in self.arrays.items()}
        return {name: gradients.found[number] for name, number in numbers.items() if number in gradients.found}

    def _first_call_with(self, numbers: Iterable[int | None]) -> int:
        """Return the place of the first call that gets one of some weights; a checkpoint may get any."""
        looked_for = {number for number in numbers if number is not None}
        for place, call in enumerate(self.calls):
            if isinstance(call, Checkpoint) or not looked_for.isdisjoint(call.numbers):
                return place
        return len(self.calls)

    def _step_back(
        self, call: Call | Checkpoint, gradients: GradientSums, factors: dict[int, float], intermediates: bool
    ) -> None:
        """Go back over a call: from the gradient of its result to those of its arguments."""
        if isinstance(call, Checkpoint):
            self._run_again(call, gradients)
            return
        dy, own = gradients.take(call.number)
        if dy is None:
            return
        if call.number in factors:
            dy, own = dy * factors[call.number], False
        dy = self.keep_gradient(dy, call.result)
        parts = None
        if self.kernels:
            parts = gradient_by_kernel(call.layer, dy, call.result, call.arguments, call.options, spare=own)
        new = parts is not None
        if parts is None:
            parts = self.compute_gradient(dy, call.result, call.layer, call.arguments, call.options)
        for number, part in zip(call.numbers, parts if isinstance(parts, tuple) else (parts,), strict=False):
            if part is not None and number is not None and (intermediates or number not in self.constants):
                gradients.add(number, part, new=new)

    def _run_again(self, call: Checkpoint, gradients: GradientSums) -> None:
        """Run a composite again: its calls come onto the tape, and the gradients of its results go on to the new ones.

        The walk back, which comes to these calls next, needs nothing else.
        """
        if gradients.found.keys().isdisjoint(call.numbers):
            return
        outer, self.scope = self.scope, call.scope
        try:
            with recording(self), self._checkpoint(keeps_calls=True):
                result = call.layer.definition(*call.arguments, **call.options)
        finally:
            self.scope = outer
        for number, array in zip(call.numbers, _flat(result), strict=True):
            if number in gradients.found:
                gradients.rename(number, self.identities.add(array))


def _flat(result: Any) -> list[Any]:
    """List the arrays in the result of a composite."""
    if isinstance(result, tuple):
        return [array for part in result for array in _flat(part)]
    return [result]


def _is_float_array(value: Any) -> bool:
    return is_array(value) and has_kind(value, "real floating")
