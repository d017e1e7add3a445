"""A head with its gradients: a pass on a tape, and the walk back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from numbers import Integral
from typing import Any, ParamSpec, Protocol, TypeVar

from nezha_np.arrays import Array
from nezha_np.mechanism.interventions import active_interventions
from nezha_np.mechanism.layer import whole_pass
from nezha_np.mechanism.recorder import definitions, kernels_run_here, recording
from nezha_np.mechanism.tape import Tape


class WithLoss(Protocol):
    """What a head returns: an object with a loss."""

    @property
    def loss(self) -> Array | None:
        """The loss, an array without axes; None where the head got no labels."""


P = ParamSpec("P")
Output = TypeVar("Output", bound=WithLoss)


def value_and_grad(
    head: Callable[P, Output],
    dropout_seed: int | tuple[int, int] | None = None,
    *,
    intermediates: bool = False,
    checkpoint_layers: bool = False,
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
    checkpoint_layers : bool, optional
        Whether to keep only the input of each layer of the encoder, and to run the layer again on the way back: the
        same gradients bit by bit, in half of the memory, for one more forward pass.

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
        If `head` is not callable, `dropout_seed` is not an integer, a pair of integers or None, or `intermediates`
        or `checkpoint_layers` is not a bool.
    ValueError
        If both are True. When the returned function is called, if the head returned no loss, because it got no labels.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> out, gradients = nz.value_and_grad(nz.masked_lm)(weights, [[2, 5, 3]], labels=[[-100, 7, -100]])
    >>> gradients["encoder.layer.0.output.dense.bias"].shape
    (256,)
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
    if not isinstance(checkpoint_layers, bool):
        raise TypeError(f"checkpoint_layers: expected True or False, got {checkpoint_layers!r}")
    if intermediates and checkpoint_layers:
        raise ValueError("checkpoint_layers: expected False with intermediates=True, for which all arrays are held")

    @functools.wraps(head)
    def run(*arguments: P.args, **options: P.kwargs) -> tuple[Output, dict[str, Array]]:
        kernels = not intermediates and kernels_run_here()
        output = None if intermediates else ()
        tape = Tape(
            seed_and_step,
            output,
            kernels=kernels,
            checkpoint_layers=checkpoint_layers,
            interventions=active_interventions(),
        )
        weights: Any = arguments[0] if arguments else options.get("weights")
        with whole_pass(weights, checkpoint_layers=checkpoint_layers) if kernels else nullcontext():
            with recording(tape):
                out = head(*arguments, **options)
            loss = getattr(out, "loss", None)
            if loss is None:
                raise ValueError(f"value_and_grad: {getattr(head, '__name__', head)} returned no loss: give it labels")
            with definitions():
                gradients = tape.walk_back(loss, intermediates=intermediates)
        return out, {tape.given_names.get(name, name): gradient for name, gradient in gradients.items()}

    return run
