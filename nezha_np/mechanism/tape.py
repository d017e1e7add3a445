"""A trace that can be walked backwards: one reverse walk gives the gradient by every weight, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Integral
from typing import Any

from nezha_np.arrays import Array, has_kind, is_array, namespace
from nezha_np.mechanism.layer import Layer
from nezha_np.mechanism.recorder import definitions, recording
from nezha_np.mechanism.trace import Trace


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
        if layer.gradient is None:
            raise ValueError(f"{layer.__name__} has no gradient: put one beside it with mechanism.gradient_of")
        return layer.gradient(dy, result, *arguments, **options)

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
