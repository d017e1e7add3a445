"""``nz.intervene``: a pass whose named intermediates are replaced while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nezha_np.arrays import Array
from nezha_np.checks import listed
from nezha_np.mechanism.interventions import Intervention, active_interventions, intervening, may_fit_below
from nezha_np.mechanism.layer import Layer
from nezha_np.mechanism.recorder import kernels_run_here, recording
from nezha_np.mechanism.trace import Trace
from nezha_np.mechanism.view import view_among


class Intervening(Trace):
    """A recorder that records nothing, and makes interventions in every pass inside its block.

    Parameters
    ----------
    interventions : tuple of Intervention
        What it replaces.
    kernels : bool
        Whether layers in which nothing is replaced run by their kernels, where they have one.
    """

    exclusive = False  # a trace and a tape inside its block make the interventions themselves

    def __init__(self, interventions: tuple[Intervention, ...], *, kernels: bool) -> None:
        super().__init__(output=(), interventions=interventions)
        self.kernels = kernels

    def composite(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Any:
        """Run a composite, by its kernel where nothing in it is replaced.

        Parameters
        ----------
        layer, arguments, options, name
            As for `Recorder.primitive`.

        Returns
        -------
        array or tuple
            The result.
        """
        view = view_among(arguments)
        if view is not None:
            if self.kernels and not any(may_fit_below(one.pattern, view.prefix) for one in self.interventions):
                return self.by_kernel(layer, arguments, options)
            if view.weights is not self.held:  # the pass of another model
                self.parameters = {}
        return super().composite(layer, arguments, options, name)

    def keep(self, name: str, array: Array) -> Array:
        """Record nothing: a block may have several passes.

        Parameters
        ----------
        name, array
            As for `Trace.keep`.

        Returns
        -------
        array
            The array.
        """
        return array


@contextmanager
def intervene(changes: Mapping[str, Any], *, stop_gradient: bool = False) -> Iterator[None]:
    """Replace named intermediates while passes run: x ← f(x), and the pass goes on with what replaces them.

    It acts in every pass of any head inside the block: alone, in `nezha_np.trace`, which then records the new arrays,
    and in `nezha_np.value_and_grad`. Layers in which nothing is replaced still run by their kernels.

    Parameters
    ----------
    changes : mapping of str to (callable or array_like)
        By patterns of trace names, ``*`` for any text within a part of a name, ``**`` for any text with dots too
        (`nezha_np.mechanism.patterns`): a function that takes the array and returns another one of the same shape, or
        what stands in its place: an array that can be repeated along its axes to this shape, or a number. Those that
        fit one name act one after the other. An array with several names, as the result of a layer has, is changed
        once by each.
    stop_gradient : bool, optional
        Under `value_and_grad` the gradient passes through a function as through any part of the model, so it is to be
        made of layers: those of `nezha_np.layers`, of `nezha_np.inside`, or primitives of your own. True: it stops
        where the function has acted, which then may be any function. It always stops at an array.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    TypeError
        If `changes` is no mapping with patterns as keys, `stop_gradient` is no bool, or a function returns no array.
    ValueError
        If the new array has another shape; under `value_and_grad`, if a function without `stop_gradient` returns an
        array that no layer made. At the end of the block, if a pattern fitted no name of any pass.

    Notes
    -----
    What a function does with layers is traced too, under the name that it replaces and ``.intervention``. Two calls of
    one layer in it need a ``name=`` each. Enter ``nz.definitions()`` outside of the block, not inside. The golden
    bundles of `nezha_np.oracle` are passes of the model as it is: `record` refuses to run in the block.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights, ids = nz.load(), [[2, 318, 3]]
    >>> plain = nz.forward(weights, ids).pooler_output

    A layer that adds nothing:

    >>> with nz.intervene({"encoder.layer.1.output.dense": 0.0}):
    ...     out = nz.forward(weights, ids)
    >>> bool(abs(out.pooler_output - plain).max() > 0.01)
    True

    The content of another text, patched in at the second token:

    >>> with nz.trace() as other:
    ...     _ = nz.forward(weights, [[2, 427, 3]])
    >>> def second_token_of_other(x):
    ...     x = x.copy()
    ...     x[:, 1] = other["encoder.layer.2"][:, 1]
    ...     return x
    >>> with nz.intervene({"encoder.layer.2": second_token_of_other}), nz.trace() as patched:
    ...     _ = nz.forward(weights, ids)
    >>> bool((patched["encoder.layer.2"][:, 1] == other["encoder.layer.2"][:, 1]).all())
    True
    """
    if not isinstance(changes, Mapping) or not all(isinstance(pattern, str) for pattern in changes):
        raise TypeError(f"changes: expected a mapping from patterns to functions or arrays, got {changes!r:.200}")
    if not isinstance(stop_gradient, bool):
        raise TypeError(f"stop_gradient: expected True or False, got {stop_gradient!r}")
    own = tuple(Intervention(pattern, change, stop_gradient=stop_gradient) for pattern, change in changes.items())
    kernels = kernels_run_here()
    with intervening(own), recording(Intervening(active_interventions(), kernels=kernels)):
        yield
    if idle := [intervention.pattern for intervention in own if not intervention.acted]:
        raise ValueError(
            f"intervene: expected patterns that fit names of a pass inside the block, got {listed(idle)}, which fit "
            "none; nz.trace() lists the names"
        )
