"""What an optimiser remembers from one step to the next: two moments of each tensor, and how many steps it has made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from nezha_np.arrays import Array, asarray_like, in_statistics_dtype, namespace, to_numpy
from nezha_np.checks import check_integer, check_path, listed
from nezha_np.files.atomic import write_atomically
from nezha_np.weights.formats.entry import map_tensors
from nezha_np.weights.formats.safetensors import read_header, read_metadata, write_tensors

FIRST, SECOND = "first_moment.", "second_moment."  # the names in the file are these and the tensor's


@dataclasses.dataclass(frozen=True, eq=False)
class OptimizerState:
    """The state of `lamb`, `adamw` or `bert_adam`.

    Attributes
    ----------
    steps : int
        How many steps were made.
    first_moments : mapping of str to float array
        m of each tensor: the moving mean of its gradients.
    second_moments : mapping of str to float array
        v of each tensor: the moving mean of the squares of its gradients.

    Examples
    --------
    >>> import numpy as np
    >>> zero_state({"x": np.ones(2)})
    OptimizerState(steps=0, first_moments={'x': array([0., 0.])}, second_moments={'x': array([0., 0.])})
    """

    steps: int
    first_moments: Mapping[str, Array]
    second_moments: Mapping[str, Array]


def zero_state(weights: Mapping[str, Array]) -> OptimizerState:
    """Return the state before the first step: zeros in the shape of each tensor, in float32 at least.

    In float16 the square of a gradient below 2e-4 would be zero, so moments are never kept in it.

    Parameters
    ----------
    weights : Weights or mapping of str to float array
        The tensors that will be trained.

    Returns
    -------
    OptimizerState
        The state, in the library and on the device of the weights.

    Examples
    --------
    >>> import numpy as np
    >>> zero_state({"x": np.ones(2, "float16")}).first_moments["x"].dtype
    dtype('float32')
    """

    def zeros() -> dict[str, Array]:
        return {name: namespace(array).zeros_like(in_statistics_dtype(array)) for name, array in weights.items()}

    return OptimizerState(0, zeros(), zeros())


def save_state(state: OptimizerState, path: str | Path) -> None:
    """Write a state to a safetensors file, beside its place first, so that a failure leaves the old file.

    Parameters
    ----------
    state : OptimizerState
        The state.
    path : str or Path
        The file. ``first_moment.NAME`` and ``second_moment.NAME`` are its tensors; ``steps`` stands in its metadata.

    Raises
    ------
    OSError
        If it cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "state.safetensors"
    >>> save_state(zero_state({"x": np.ones(2)}), path)
    >>> load_state(path).first_moments
    {'x': array([0., 0.])}
    """
    file = check_path(path)
    arrays = {FIRST + name: to_numpy(array) for name, array in state.first_moments.items()}
    arrays |= {SECOND + name: to_numpy(array) for name, array in state.second_moments.items()}
    metadata = {"steps": str(state.steps)}
    write_atomically(file.parent, lambda folder: write_tensors(folder / file.name, arrays, metadata))


def load_state(path: str | Path, weights: Mapping[str, Array] | None = None) -> OptimizerState:
    """Read a state that `save_state` wrote.

    Parameters
    ----------
    path : str or Path
        The file.
    weights : Weights or mapping of str to float array, optional
        The tensors that it belongs to: names and shapes are compared, and the moments go to their library and device.
        None: NumPy arrays, as they are in the file.

    Returns
    -------
    OptimizerState
        The state.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no optimiser's state, or that of other weights.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "state.safetensors"
    >>> save_state(zero_state({"x": np.ones(2)}), path)
    >>> load_state(path, {"y": np.ones(2)}) # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...state.safetensors: expected the moments of y, of shape (2,), found none
    """
    file = check_path(path)
    entries = read_header(file)
    steps = read_metadata(file).get("steps", "")
    if not steps.isdecimal() or not all(name.startswith((FIRST, SECOND)) for name in entries):
        raise ValueError(f"{file}: expected the state of an optimiser, found tensors of another kind: {_some(entries)}")
    # Read and let go: the file may be replaced by the next state while this one is in use.
    tensors = {name: array.copy() for name, array in map_tensors(file, entries).items()}
    first = {name.removeprefix(FIRST): array for name, array in tensors.items() if name.startswith(FIRST)}
    second = {name.removeprefix(SECOND): array for name, array in tensors.items() if name.startswith(SECOND)}
    state = OptimizerState(int(steps), first, second)
    if weights is None:
        return state
    try:
        check_state(state, weights)
    except ValueError as error:
        raise ValueError(f"{file}: {str(error).removeprefix('state: ')}") from None

    def moved(moments: Mapping[str, Array]) -> dict[str, Array]:
        return {name: asarray_like(in_statistics_dtype(array), moments[name]) for name, array in weights.items()}

    return OptimizerState(state.steps, moved(first), moved(second))


def check_state(state: OptimizerState, weights: Mapping[str, Array]) -> None:
    """Check that a state is that of these weights.

    Parameters
    ----------
    state : OptimizerState
        The state.
    weights : mapping of str to float array
        The tensors.

    Raises
    ------
    TypeError
        If `state` is no state.
    ValueError
        If a tensor has no moments, moments have no tensor, or shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> check_state(zero_state({"x": np.ones(2)}), {"x": np.ones(3)})
    Traceback (most recent call last):
    ...
    ValueError: state: expected the moments of x, of shape (3,), found (2,)
    """
    if not isinstance(state, OptimizerState):
        raise TypeError(f"state: expected an OptimizerState, which init makes, got {type(state).__name__}")
    check_integer("state.steps", state.steps, least=0)
    for moments in (state.first_moments, state.second_moments):
        for name, array in weights.items():
            shape = tuple(moments[name].shape) if name in moments else None
            if shape != tuple(array.shape):
                found = "none" if shape is None else shape
                raise ValueError(f"state: expected the moments of {name}, of shape {tuple(array.shape)}, found {found}")
        if extra := moments.keys() - weights.keys():
            raise ValueError(f"state: expected moments of the weights only, found those of {listed(sorted(extra))}")


def _some(names: Mapping[str, object]) -> str:
    return listed(sorted(names), most=3) or "none"
