"""A trace that can be walked backwards: one reverse walk gives the gradients of all weights, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from numbers import Integral
from typing import Any, ParamSpec, Protocol, TypeVar

from nezha_np.arrays import Array, has_kind, is_array, namespace
from nezha_np.mechanism.layer import Layer, gradient_by_kernel, whole_pass
from nezha_np.mechanism.recorder import definitions, kernels_run_here, nothing_recorded, recording
from nezha_np.mechanism.trace import Trace


class WithLoss(Protocol):
    """What a head returns: an object with a loss."""

    @property
    def loss(self) -> Array | None:
        """The loss, an array without axes; None where the head got no labels."""


P = ParamSpec("P")
Output = TypeVar("Output", bound=WithLoss)


class Tape(Trace):
    """A trace that also records the calls, which the walk back needs.

    Parameters
    ----------
    dropout_seed : tuple of int or None
        Seed and step of the dropout masks, and whatever else is to tell them apart; None: no dropout.
    kernels : bool
        Whether layers and gradients run by their kernels, where they have one. What is read and recorded is made by
        definitions.
    dropout_rows : (int, int), optional
        For a pass over some rows of a batch: how many rows come before them, and how many they are. They have the
        dropout masks that they have in the whole batch.
    """

    def __init__(
        self,
        dropout_seed: tuple[int, ...] | None,
        *,
        kernels: bool = False,
        dropout_rows: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.dropout_seed = dropout_seed
        self.dropout_rows = dropout_rows
        self.kernels = kernels
        self.calls: list[tuple[Layer, tuple[Any, ...], dict[str, Any], Array]] = []
        self.constants: dict[int, Array] = {}  # held, so that no other array can take their identity
        self.made: set[int] = set()

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
        if not all(self._knows(argument) for argument in arguments if _is_float_array(argument)):
            raise ValueError(
                f"{where} got a float array that no layer made: its gradient would be lost. "
                "Make it by a primitive or a constant layer"
            )
        result = super().primitive(layer, arguments, options, name)
        # A layer that changes nothing returns its argument: the walk back has nothing to do for it.
        if not any(result is argument for argument in arguments):
            self.calls.append((layer, arguments, options, result))
            self.made.add(id(result))
        return result

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
        result = self.compute(full_name, layer, arguments, options)
        if self._knows(result):  # one array was passed for two inputs: each name has a gradient of its own
            result = result[...]
        result = self.keep(full_name, result)
        self.constants[id(result)] = result
        return result

    def _knows(self, array: Array) -> bool:
        return id(array) in self.made or id(array) in self.parameters or id(array) in self.constants

    def compute(self, name: str, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make the result of a primitive or a constant layer, by its kernel where kernels are used.

        Parameters
        ----------
        name, layer, arguments, options
            As for `Trace.compute`.

        Returns
        -------
        array
            The result.
        """
        if self.kernels:
            with nothing_recorded():  # so the layer runs by its kernel, where it has one
                return layer(*arguments, **options)
        return super().compute(name, layer, arguments, options)

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
        """Compute the gradients of a layer's arguments.

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
        if self.kernels:
            return gradient_by_kernel(layer, layer.gradient, dy, result, arguments, options)
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
        self, loss: Array, *, intermediates: bool = False, scales: Mapping[str, float] | None = None
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

        Returns
        -------
        dict of str to array
            The gradients of the weights that the loss depends on, by name.

        Raises
        ------
        ValueError
            If no layer made the loss, or a layer has no gradient.
        """
        if id(loss) not in self.made:
            raise ValueError("value_and_grad: expected a loss that a layer made, got another array")
        gradients = {id(loss): namespace(loss).ones_like(loss)}
        factors = {id(self.arrays[name]): factor for name, factor in (scales or {}).items()}
        for layer, arguments, options, result in reversed(self.calls):
            dy = gradients.get(id(result)) if intermediates else gradients.pop(id(result), None)
            if dy is None:
                continue
            if id(result) in factors:
                dy = dy * factors[id(result)]
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


def _is_float_array(value: Any) -> bool:
    return is_array(value) and has_kind(value, "real floating")


def value_and_grad(
    head: Callable[P, Output],
    dropout_seed: int | tuple[int, int] | None = None,
    *,
    intermediates: bool = False,
) -> Callable[P, tuple[Output, dict[str, Array]]]:
    """Turn a head into a function that also returns the gradients of its loss with respect to the weights.

    Parameters
    ----------
    head : callable
        A head with a loss, ``nz.masked_lm`` for example, or any function of weights whose result has a ``loss``.
    dropout_seed : int or (int, int), optional
        None: no dropout. A seed, or a seed and a step: dropout at the rates of the configuration. Each mask is sampled
        with seed, step (0 by default) and the full name of its layer as the key, the same on every machine.
    intermediates : bool, optional
        Whether to return the gradients of the intermediates too, under their trace names.

    Returns
    -------
    callable
        Takes what the head takes; returns the head's output and a dict from names to gradients. The gradient of a
        weight that is used twice (the decoder tied to the embeddings) is the sum of both. A weight that the loss does
        not depend on has no entry. A tensor that a plain mapping holds under its second name, such as
        ``cls.predictions.decoder.bias``, has its gradient under this name.

    Raises
    ------
    TypeError
        If `head` is not callable, `dropout_seed` is not an integer, a pair of integers or None, or `intermediates` is
        not a bool.
    ValueError
        When the returned function is called, if the head returned no loss, because it got no labels.

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
    def run(*arguments: P.args, **options: P.kwargs) -> tuple[Output, dict[str, Array]]:
        kernels = not intermediates and kernels_run_here()
        weights: Any = arguments[0] if arguments else options.get("weights")
        with whole_pass(weights) if kernels else nullcontext():
            with recording(Tape(seed_and_step, kernels=kernels)) as tape:
                out = head(*arguments, **options)
            loss = getattr(out, "loss", None)
            if loss is None:
                raise ValueError(f"value_and_grad: {getattr(head, '__name__', head)} returned no loss: give it labels")
            with definitions():
                gradients = tape.walk_back(loss, intermediates=intermediates)
        return out, {tape.given_names.get(name, name): gradient for name, gradient in gradients.items()}

    return run
