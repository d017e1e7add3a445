"""Recording a JAX model: the arrays that a function returns, nested as they are, under the names of our traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import is_array, to_numpy
from nezha_np.oracle.alignment import check_names, renamed, without_prefix

CALL = "__call__"  # what Flax calls the result of a module


def capture_jax(
    function: Callable[..., Any],
    *inputs: Any,
    rename: Mapping[str, str] | None = None,
    names: str | None = None,
    **kwargs: Any,
) -> dict[str, np.ndarray]:
    """Call a function of JAX, compiled or not, and name the arrays that it returns.

    JAX computes pure functions: what is to be seen, they return. A port returns its intermediates in a dict; a module
    of Flax does with ``module.apply(..., capture_intermediates=True, mutable=["intermediates"])``.

    Parameters
    ----------
    function : callable
        It returns arrays in mappings, tuples and lists, one within another. What is no array, None for example, is left
        out.
    *inputs, **kwargs
        What it takes: a bundle's inputs as they are.
    rename, names
        As for `nezha_np.oracle.compare`.

    Returns
    -------
    dict of str to array
        Each array by the keys on the way to it, with dots between them and without the prefix of a model. Of what Flax
        captured, ``__call__`` and the number of the call are left out: the first array of a module is its result, that
        of a second call is ``name_2``. bfloat16 becomes float32.

    Raises
    ------
    TypeError
        If it returns no arrays.

    Examples
    --------
    >>> import numpy as np
    >>> def port(input_ids):
    ...     return {"encoder": {"layer": [{"output": np.ones(2)}]}}
    >>> capture_jax(port, input_ids=[[2, 3]])
    {'encoder.layer.0.output': array([1., 1.])}
    """
    table = check_names(rename, names)
    captured: dict[str, np.ndarray] = {}
    for path, array in _leaves(function(*inputs, **kwargs), ()):
        name = _name(path)
        if name not in captured and name:
            ours = without_prefix(renamed(without_prefix(name), table))
            captured[ours] = _to_numpy(array)
    if not captured:
        raise TypeError("function: expected one that returns arrays in a mapping, got one that returns none")
    return captured


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    """List the arrays of nested mappings, tuples and lists, with the keys on the way to each."""
    if is_array(value):
        return [(path, value)]
    parts = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (tuple, list)) else ()
    )
    return [leaf for key, part in parts for leaf in _leaves(part, (*path, str(key)))]


def _name(path: tuple[str, ...]) -> str:
    """Name an array by its path; of a module of Flax, the first array of each call.

    Examples
    --------
    >>> _name(("encoder", "layer", "0", "__call__", "0", "0")), _name(("dense", "__call__", "1"))
    ('encoder.layer.0', 'dense_2')
    """
    if CALL not in path:
        return ".".join(path)
    place = path.index(CALL)
    call, inside = int(path[place + 1]), path[place + 2 :]
    if any(part != "0" for part in inside):
        return ""
    module = ".".join(path[:place])
    return module if call == 0 or not module else f"{module}_{call + 1}"


def _to_numpy(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float32) if str(array.dtype) == "bfloat16" else to_numpy(array)
