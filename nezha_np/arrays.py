"""The only file that tells array libraries apart.

A layer takes its namespace from its arguments, ``xp = namespace(x)``, and makes new arrays beside them,
``asarray_like(x, values)``: so the same lines run on NumPy, CuPy, JAX, torch and any library of the array-API standard
(2024.12), and nothing lands on a default device by accident.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from typing import Any, Protocol, TypeAlias

import numpy as np


class Array(Protocol):
    """An array of whichever library the weights belong to: what NumPy's, CuPy's, JAX's and torch's have in common.

    Attributes
    ----------
    shape : tuple of int
        The sizes of its axes.
    ndim : int
        How many axes it has.
    dtype
        What it holds, a dtype of its library.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""

    @property
    def ndim(self) -> int:
        """How many axes it has."""

    @property
    def dtype(self) -> Any:
        """What it holds, a dtype of its library."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __add__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __rsub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __rmul__(self, other: Any, /) -> Any: ...
    def __truediv__(self, other: Any, /) -> Any: ...
    def __rtruediv__(self, other: Any, /) -> Any: ...
    def __matmul__(self, other: Any, /) -> Any: ...
    def __pow__(self, other: Any, /) -> Any: ...
    def __neg__(self) -> Any: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __le__(self, other: Any, /) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __ge__(self, other: Any, /) -> Any: ...
    def __float__(self) -> float: ...


Namespace: TypeAlias = Any

# These two do not speak the standard by themselves: array_api_compat wraps them. It is imported only when one of
# their arrays is seen, because its import costs more than the whole of this package.
_WRAPPED = ("cupy", "torch")


def library(array: Array) -> str:
    """Return the name of the library an array belongs to: ``"numpy"``, ``"cupy"``, ``"array_api_strict"`` …

    Examples
    --------
    >>> import numpy as np
    >>> library(np.zeros(3))
    'numpy'
    """
    name = type(array).__module__.partition(".")[0]
    return "jax" if name == "jaxlib" else name


@functools.cache
def _wrapped_namespace(name: str) -> Namespace:
    return importlib.import_module(f"array_api_compat.{name}")


def namespace(array: Array) -> Namespace:
    """Return the array-API namespace of an array.

    Parameters
    ----------
    array : array
        An array of any library.

    Returns
    -------
    module
        The functions of that library under their names in the array-API standard.

    Raises
    ------
    TypeError
        If the argument is not an array.

    Examples
    --------
    >>> import numpy as np
    >>> namespace(np.zeros(3)).__name__
    'numpy'
    """
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    if (name := library(array)) in _WRAPPED:
        return _wrapped_namespace(name)
    if hasattr(array, "__array_namespace__"):
        return array.__array_namespace__()
    raise TypeError(f"expected an array of a library that speaks the array-API standard, got {type(array).__name__}")


def is_array(value: Any) -> bool:
    """Say whether a value is an array of any library.

    Examples
    --------
    >>> import numpy as np
    >>> is_array(np.zeros(3)), is_array([0, 0, 0])
    (True, False)
    """
    return (
        isinstance(value, (np.ndarray, np.generic))
        or hasattr(value, "__array_namespace__")
        or library(value) in _WRAPPED
    )


def has_kind(array: Array, kind: str) -> bool:
    """Say whether an array's dtype is of a kind of the standard: ``"real floating"``, ``"integral"``, ``"bool"``.

    Examples
    --------
    >>> import numpy as np
    >>> has_kind(np.zeros(3), "real floating"), has_kind(np.zeros(3), "integral")
    (True, False)
    """
    return bool(namespace(array).isdtype(array.dtype, kind))


def device_of(array: Array) -> Any:
    """Return the device of an array; None for one that is being traced by its library and has none yet.

    Examples
    --------
    >>> import numpy as np
    >>> device_of(np.zeros(2))
    'cpu'
    """
    return getattr(array, "device", None)


def asarray_like(array: Array, values: Any, dtype: Any = None) -> Array:
    """Make an array of `values` in the library and on the device of `array`.

    Parameters
    ----------
    array : array
        The neighbour: it gives the library and the device.
    values : array_like
        A number, a list, a NumPy array, or an array of the same library.
    dtype : dtype or str, optional
        What the new array holds; None: the dtype of `array`.

    Returns
    -------
    array
        The new array.

    Examples
    --------
    >>> import numpy as np
    >>> asarray_like(np.zeros(2, "float32"), [1, 2])
    array([1., 2.], dtype=float32)
    """
    if dtype is None:
        dtype = array.dtype
    elif isinstance(dtype, str):
        dtype = dtype_named(array, dtype)
    return namespace(array).asarray(values, dtype=dtype, device=device_of(array))


def dtype_named(array: Array, name: str) -> Any:
    """Return the dtype of that name in the library of an array.

    JAX has 32 bits only, unless it was told to have 64: "int64" is its int32 then, and naming int64 would make it warn.

    Examples
    --------
    >>> import numpy as np
    >>> dtype_named(np.zeros(2), "int64") == np.int64
    True
    """
    if library(array) == "jax":
        return importlib.import_module("jax").dtypes.canonicalize_dtype(name)
    return getattr(namespace(array), name)


def statistics_dtype(array: Array) -> Any:
    """Return the dtype for sums over many elements (norms, softmax, losses): never less than float32.

    In float16 the additive mask's minimum overflows, and a row with everything masked becomes NaN.

    Examples
    --------
    >>> import numpy as np
    >>> statistics_dtype(np.zeros(3, "float16")) == np.float32, statistics_dtype(np.zeros(3, "float64")) == np.float64
    (True, True)
    """
    xp = namespace(array)
    return array.dtype if array.dtype in (xp.float32, xp.float64) else xp.float32


def in_statistics_dtype(array: Array) -> Array:
    """Convert an array to its statistics dtype; an array that has it already is returned as it is.

    Examples
    --------
    >>> import numpy as np
    >>> in_statistics_dtype(np.ones(2, "float16"))
    array([1., 1.], dtype=float32)
    """
    return namespace(array).astype(array, statistics_dtype(array), copy=False)


def to_numpy(array: Array) -> np.ndarray:
    """Bring an array of any library to NumPy: for files and for text, never inside a forward pass.

    Examples
    --------
    >>> import numpy as np
    >>> to_numpy(np.ones(2))
    array([1., 1.])
    """
    name = library(array)
    if name == "cupy":
        return array.get()
    if name == "torch":
        return array.detach().cpu().numpy()
    if name == "array_api_strict":  # its conversion refuses every device but its first, as a GPU's would
        xp = namespace(array)
        return np.asarray(xp.asarray(array, device=xp.Device("CPU_DEVICE")))
    return np.asarray(array)


def as_array(value: Array) -> Array:
    """Return the array without axes that NumPy made a scalar of; any other array as it is.

    Examples
    --------
    >>> import numpy as np
    >>> as_array(np.mean(np.ones(3)))
    array(1.)
    """
    return np.asarray(value) if isinstance(value, np.generic) else value


def detached(array: Array) -> Array:
    """Return an array with the same numbers that a library's own autograd does not look behind.

    Libraries without an autograd return the array itself, as do torch and JAX where nothing is being differentiated.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones(2)
    >>> detached(x) is x
    True
    """
    if isinstance(array, np.ndarray):  # the most frequent one, without a detour
        return array
    name = library(array)
    if name == "torch":
        return array.detach() if array.requires_grad else array
    if name == "jax":
        return importlib.import_module("jax").lax.stop_gradient(array)
    return array


def sum_rows(indices: Array, rows: Array, count: int) -> Array:
    """Add up rows that share an index: the scatter-add, which the standard does not have.

    Parameters
    ----------
    indices : (n,) array of int
        Where each row goes, from 0 to ``count - 1``.
    rows : (n, H) array
        The rows.
    count : int
        The number of rows of the result.

    Returns
    -------
    (count, H) array
        ``result[i]`` is the sum of all ``rows[j]`` with ``indices[j] == i``.

    Examples
    --------
    >>> import numpy as np
    >>> sum_rows(np.array([2, 0, 2]), np.array([[1.0], [2.0], [3.0]]), 3)
    array([[2.],
           [0.],
           [4.]])
    """
    xp = namespace(rows)
    name = library(rows)
    total = xp.zeros((count, rows.shape[1]), dtype=rows.dtype, device=device_of(rows))
    if name == "jax":
        return total.at[indices].add(rows)
    if name == "torch":
        return total.index_add(0, indices, rows)
    if name in ("numpy", "cupy"):
        importlib.import_module(name).add.at(total, indices, rows)
        return total
    # What the standard can say: a product with the one-hot rows, (count, n) @ (n, H).
    places = xp.arange(count, dtype=indices.dtype, device=device_of(rows))
    one_hot = xp.astype(places[:, None] == indices[None, :], rows.dtype)
    return xp.matmul(one_hot, rows)


DTYPES = ("float16", "float32", "float64")  # what weights may have


def kind_of(value: Any) -> str:
    """Name the type of a value for an error: of an array with its library and dtype.

    Examples
    --------
    >>> import numpy as np
    >>> kind_of(np.zeros(2)), kind_of([1])
    ('numpy.ndarray of float64', 'list')
    """
    kind = type(value)
    return f"{library(value)}.{kind.__name__} of {value.dtype}" if is_array(value) else kind.__name__


def check_dtype(dtype: Any) -> str:
    """Return the name of a dtype that weights may have.

    Examples
    --------
    >>> import numpy as np
    >>> check_dtype(np.float32)
    'float32'
    """
    try:
        name = None if dtype is None else np.dtype(dtype).name  # which takes None for float64
    except (TypeError, ValueError):
        name = str(dtype).rpartition(".")[2]  # other libraries' dtypes say "torch.float32"
    if name not in DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    return name


def check_device(device: str | None) -> int | None:
    """Return the number of the GPU that a device names, None where it names none; refuse what is no device.

    Examples
    --------
    >>> check_device("cpu")
    """
    if device is None or device == "cpu":
        return None
    if not isinstance(device, str):
        raise TypeError(f"device: expected 'cpu', 'cuda' or 'cuda:1', got {device!r}")
    match = re.fullmatch(r"cuda(?::([0-9]+))?", device)
    if match is None:
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:1', got {device!r}")
    if importlib.util.find_spec("cupy") is None:
        raise ModuleNotFoundError(
            f"device: {device!r} needs CuPy: pip install 'nezha-np[cuda12]' or 'nezha-np[cuda13]'", name="cupy"
        )
    return int(match[1] or 0)
