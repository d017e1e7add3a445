"""Every intermediate array of one pass by its full name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from nezha_np.arrays import Array, to_numpy
from nezha_np.mechanism.identities import reference
from nezha_np.mechanism.interventions import SCOPE, Intervention, active_interventions
from nezha_np.mechanism.layer import Layer
from nezha_np.mechanism.patterns import check_patterns, matches
from nezha_np.mechanism.recorder import nothing_recorded, recording
from nezha_np.mechanism.summary import format_table, min_max_mean_norm
from nezha_np.mechanism.view import view_among


class Trace(Mapping[str, Array]):
    """Every intermediate of one pass by its full name, in the order in which they were made.

    A recorder that does more than record overrides `compute` and `compose`, which make the result of a layer, or
    `keep`, which records it and returns what the pass continues with: those of `nezha_np.oracle` do so.

    Parameters
    ----------
    output : tuple of str, optional
        Patterns like ``encoder.layer.*.output``: arrays whose names fit none of them are not recorded. None: all are.
    interventions : tuple of Intervention
        What replaces some arrays before they are recorded.

    Examples
    --------
    >>> import nezha_np as nz
    >>> with nz.trace() as t:
    ...     out = nz.forward(nz.load(), [[2, 318, 3]])
    >>> isinstance(t, nz.Trace), t["pooler"].shape
    (True, (1, 256))
    """

    exclusive = True
    kernels = False

    def __init__(self, output: tuple[str, ...] | None = None, *, interventions: tuple[Intervention, ...] = ()) -> None:
        self.output = output
        self.interventions = interventions
        # identity of an array that replaces another -> how to find it, and what has acted on it
        self.intervened: dict[int, tuple[Callable[[], Any], tuple[Intervention, ...]]] = {}
        self.arrays: dict[str, Array] = {}
        self.made_by: dict[str, int] = {}  # name -> identity of its array, also where it is not recorded
        self.parameters: dict[int, str] = {}  # identity of a weight -> its name
        self.held: Mapping[str, Array] = {}  # the weights, held, so that no other array can take their identities
        self.given_names: Mapping[str, str] = {}  # name of a weight -> the one in the mapping that the caller gave
        self.scope = ""

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def summary(self) -> str:
        """Describe what was recorded.

        Returns
        -------
        str
            A table with a row for each array: name, shape, dtype, and min, max, mean and norm, computed in float64.
        """
        rows: list[tuple[str, ...]] = [("name", "shape", "dtype", "min", "max", "mean", "norm")]
        for name, array in self.arrays.items():
            values = to_numpy(array)
            shape, dtype = " × ".join(map(str, values.shape)) or "()", str(values.dtype)
            rows.append((name, shape, dtype, *(f"{number:.4g}" for number in min_max_mean_norm(values))))
        return format_table(rows, right=(3, 4, 5, 6))

    def full_name(self, layer: Layer, arguments: tuple[Any, ...], name: str | None) -> str:
        """Name a result.

        Parameters
        ----------
        layer, arguments, name
            As for `Recorder.primitive`.

        Returns
        -------
        str
            Scope and `name`, else the parent of the layer's first parameter, else scope and the layer's own name.
        """
        if name is None:
            for argument in arguments:
                if id(argument) in self.parameters:
                    return self.parameters[id(argument)].rpartition(".")[0]
        return self.scope + (name or layer.__name__)

    def compute(self, name: str, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make the result of a primitive or a constant layer, by its kernel where kernels are used.

        Parameters
        ----------
        name : str
            The full name of the result.
        layer, arguments, options
            As for `Recorder.primitive`.

        Returns
        -------
        array
            The result.
        """
        return self.by_kernel(layer, arguments, options) if self.kernels else layer.definition(*arguments, **options)

    def by_kernel(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Run a layer as it runs where nothing is recorded: by its kernel, where it has one.

        Parameters
        ----------
        layer, arguments, options
            As for `Recorder.primitive`.

        Returns
        -------
        array or tuple
            The result.
        """
        with nothing_recorded():
            return layer(*arguments, **options)

    def compose(self, name: str, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Make the result of a composite.

        Parameters
        ----------
        name : str
            The full name of its first array.
        layer, arguments, options
            As for `Recorder.primitive`.

        Returns
        -------
        array or tuple
            The result.
        """
        return layer.definition(*arguments, **options)

    def keep(self, name: str, array: Array) -> Array:
        """Record an array. An array may have several names; a name has one array.

        Parameters
        ----------
        name : str
            Its full name.
        array : array
            The array.

        Returns
        -------
        array
            What the pass continues with: the array.

        Raises
        ------
        ValueError
            If another array was recorded under this name.
        """
        if self.made_by.setdefault(name, id(array)) != id(array):
            raise ValueError(f"{name} was recorded twice: a trace or a tape covers one forward pass")
        if self.output is None or matches(name, self.output):
            self.arrays[name] = array
        return array

    def primitive(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Array:
        """Run a primitive and record its result.

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
        self.note(layer, arguments, options, result)
        return self.keep(full_name, self.intervene(full_name, result))

    constant = primitive

    def note(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], result: Array) -> None:
        """Note a call of a primitive, before anything replaces its result: a trace needs nothing of it.

        Parameters
        ----------
        layer, arguments, options
            As for `Recorder.primitive`.
        result : array
            The result.
        """

    def intervene(self, name: str, array: Array) -> Array:
        """Make the interventions at a name; one that has made the array under another name does not act again.

        Parameters
        ----------
        name : str
            The full name of the array.
        array : array
            The array.

        Returns
        -------
        array
            What the pass continues with.
        """
        for intervention in self.interventions:
            if intervention.fits(name):
                find, acted = self.intervened.get(id(array), (None, ()))
                acted = acted if find is not None and find() is array else ()
                if intervention not in acted:
                    array = self.replace(intervention, name, array)
                    self.intervened[id(array)] = reference(array), (*acted, intervention)
        return array

    def replace(self, intervention: Intervention, name: str, array: Array) -> Array:
        """Make an intervention: the layers of its function are recorded below the name.

        Parameters
        ----------
        intervention : Intervention
            The intervention.
        name, array
            As for `intervene`.

        Returns
        -------
        array
            What replaces the array.
        """
        outer = self.scope, self.interventions
        self.scope, self.interventions = f"{name}.{SCOPE}.", ()  # none acts on what another one does
        try:
            return intervention.replace(name, array)
        finally:
            self.scope, self.interventions = outer

    def composite(self, layer: Layer, arguments: tuple[Any, ...], options: dict[str, Any], name: str | None) -> Any:
        """Run a composite in the scope of its view, and record its first array under the view's prefix.

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
        if view is None:
            return layer.definition(*arguments, **options)
        if not self.parameters:
            self.parameters = {id(array): parameter for parameter, array in view.weights.items()}
            self.held = view.weights
            self.given_names = getattr(view.weights, "given_names", {})
        full_name = view.prefix.removesuffix(".")
        outer, self.scope = self.scope, view.prefix
        try:
            result = self.compose(full_name, layer, arguments, options)
        finally:
            self.scope = outer
        if not full_name:
            return result
        if isinstance(result, tuple):
            return self.keep(full_name, self.intervene(full_name, result[0])), *result[1:]
        return self.keep(full_name, self.intervene(full_name, result))

    def dropout_key(self, name: str) -> tuple[Any, ...] | None:
        """Return the key of the random stream of a dropout layer.

        Parameters
        ----------
        name : str
            The name of the layer in its scope.

        Returns
        -------
        None
            A trace has no dropout.
        """
        return None

    def dropout_start(self, size: int) -> int:
        """Return where in its stream the mask of a dropout layer begins.

        Parameters
        ----------
        size : int
            How many elements the mask has.

        Returns
        -------
        int
            0.
        """
        return 0


def trace(output: str | Sequence[str] | None = None) -> AbstractContextManager[Trace]:
    """Record every intermediate of one forward pass, of any head, by its full name.

    Parameters
    ----------
    output : str or sequence of str, optional
        Patterns of the names to record, so that a pass of a large model need not hold every intermediate: ``*`` is any
        text within a part of a name, ``**`` any text with dots too (`nezha_np.mechanism.patterns`). None: all names.

    Returns
    -------
    context manager
        Its value is a read-only mapping from names to arrays, in the order in which they were made, with a method
        `summary`. It covers one pass: a second one inside the same block raises ValueError.

    Raises
    ------
    TypeError
        If `output` is neither a string nor a sequence of strings.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.load()
    >>> with nz.trace() as t:
    ...     out = nz.forward(weights, [[2, 3, 4]])
    >>> t["encoder.layer.0.attention.self.probs"].shape
    (1, 8, 3, 3)
    >>> with nz.trace(output="encoder.layer.*") as t:
    ...     out = nz.forward(weights, [[2, 3, 4]])
    >>> list(t)
    ['encoder.layer.0', 'encoder.layer.1', 'encoder.layer.2', 'encoder.layer.3']
    >>> print(t.summary()[:38])
    name             shape        dtype
    """
    patterns = None if output is None else check_patterns("output", output)
    return recording(Trace(patterns, interventions=active_interventions()))
