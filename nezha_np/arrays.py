"""The only file that tells array libraries apart.

A layer takes its namespace from its arguments, ``xp = namespace(x)``, and makes new arrays in their library and on
their device, ``asarray_like(x, values)``: so the same lines run on NumPy, CuPy, JAX, torch and any library of the
array-API standard (2024.12), and nothing lands on a default device by accident.

The file has over 400 lines, because nothing that knows a library may stand elsewhere; more than half are docstrings.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np

from nezha_np.narrow.matrix import NarrowMatrix


class Array(Protocol):
    """An array of the library that the weights belong to: NumPy, CuPy, PyTorch, JAX, or another one of the standard.

    It lists what all of these have, and nothing else, so that an editor completes it and a type checker knows the
    results of this package. Whoever needs more of one library says which: ``np.asarray(out.logits).argmax(-1)``.

    Attributes
    ----------
    shape : tuple of int
        The sizes of its axes.
    ndim : int
        The number of its axes.
    dtype : dtype
        The type of its elements, a dtype of its library.
    device : device
        Where it lies, a device of its library. An array that JAX is tracing has none (`device_of`).

    Notes
    -----
    Indexing, arithmetic and comparisons are those of the array-API standard, element by element, and return arrays.
    `len` and iteration over the first axis are not in the standard, but in each of the four libraries; the layers of
    this package do without them.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its axes."""

    @property
    def ndim(self) -> int:
        """The number of its axes."""

    @property
    def dtype(self) -> Any:
        """The type of its elements."""

    @property
    def device(self) -> Any:
        """Where it lies."""

    def __getitem__(self, key: Any, /) -> Array: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...

    def __add__(self, other: Any, /) -> Array: ...
    def __radd__(self, other: Any, /) -> Array: ...
    def __sub__(self, other: Any, /) -> Array: ...
    def __rsub__(self, other: Any, /) -> Array: ...
    def __mul__(self, other: Any, /) -> Array: ...
    def __rmul__(self, other: Any, /) -> Array: ...
    def __truediv__(self, other: Any, /) -> Array: ...
    def __rtruediv__(self, other: Any, /) -> Array: ...
    def __matmul__(self, other: Any, /) -> Array: ...
    def __pow__(self, other: Any, /) -> Array: ...
    def __neg__(self) -> Array: ...
    def __invert__(self) -> Array: ...
    def __and__(self, other: Any, /) -> Array: ...
    def __or__(self, other: Any, /) -> Array: ...

    def __eq__(self, other: object, /) -> Any: ...  # an array, but `object` says bool, and so do torch's types
    def __ne__(self, other: object, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Array: ...
    def __le__(self, other: Any, /) -> Array: ...
    def __gt__(self, other: Any, /) -> Array: ...
    def __ge__(self, other: Any, /) -> Array: ...

    def __bool__(self) -> bool: ...
    def __int__(self) -> int: ...
    def __float__(self) -> float: ...


class Namespace(Protocol):
    """The functions of an array library under the names that the array-API standard gives them.

    Attributes
    ----------
    float32, float64 : dtype
        Two of its dtypes.
    isdtype : callable
        Says whether a dtype is of a kind.
    finfo : callable
        Describes a float dtype.
    """

    float32: Any
    float64: Any
    isdtype: Callable[..., bool]
    finfo: Callable[..., Any]

    def __getattr__(self, name: str, /) -> Callable[..., Array]:
        """Return one of the other functions; those that the layers use return one array each."""


# These two do not speak the standard by themselves: array_api_compat wraps them. It is imported only when one of
# their arrays is seen, because its import costs more than the whole of this package.
_WRAPPED = ("cupy", "torch")
# These say that they speak it, and lack parts that every layer uses: mlx has no devices, sparse no indices of arrays.
_FALL_SHORT = ("mlx", "sparse")
# NumPy's own kinds with rules of their own, which would be lost or change a result: what is masked, `*` of matrices.
_NOT_PLAIN = ("MaskedArray", "matrix")


def library(array: Any) -> str:
    """Return the name of the library that an array belongs to.

    Parameters
    ----------
    array : array
        An array, or any other value.

    Returns
    -------
    str
        ``"numpy"``, ``"cupy"``, ``"torch"``, ``"jax"``, ``"array_api_strict"`` …

    Examples
    --------
    >>> import numpy as np
    >>> library(np.zeros(3))
    'numpy'
    """
    if isinstance(array, NarrowMatrix):
        return "numpy"
    name = type(array).__module__.partition(".")[0]
    return "jax" if name == "jaxlib" else name


@functools.cache
def _wrapped_namespace(name: str) -> Namespace:
    try:
        return cast(Namespace, importlib.import_module(f"array_api_compat.{name}"))
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("array_api_compat"):
            raise
        raise ModuleNotFoundError(
            f"arrays of {name} need the package array-api-compat: pip install array-api-compat", name="array_api_compat"
        ) from None


def namespace(array: Any) -> Namespace:
    """Return the array-API namespace of an array.

    Parameters
    ----------
    array : array
        An array of any library.

    Returns
    -------
    Namespace
        The functions of that library under their names in the array-API standard.

    Raises
    ------
    ModuleNotFoundError
        If it is an array of PyTorch or CuPy, and array-api-compat is not installed.
    TypeError
        If the argument is not an array.

    Examples
    --------
    >>> import numpy as np
    >>> namespace(np.zeros(3)).__name__
    'numpy'
    """
    if isinstance(array, (np.ndarray, np.generic)):
        return cast(Namespace, np)
    if (name := library(array)) in _WRAPPED:
        return _wrapped_namespace(name)
    if hasattr(array, "__array_namespace__") and name not in _FALL_SHORT:
        return cast(Namespace, array.__array_namespace__())
    raise TypeError(
        f"expected an array of a library that speaks the array-API standard, got {kind_of(array)}{conversion(array)}"
    )


def is_array(value: Any) -> bool:
    """Say whether a value is an array of any library.

    Parameters
    ----------
    value : object
        Any value.

    Returns
    -------
    bool
        True for arrays and for NumPy's scalars; not for NumPy's masked arrays and matrices.

    Examples
    --------
    >>> import numpy as np
    >>> is_array(np.zeros(3)), is_array([0, 0, 0])
    (True, False)
    """
    if isinstance(value, (np.ndarray, np.generic)):
        return type(value).__name__ not in _NOT_PLAIN
    name = library(value)
    return name in _WRAPPED or (hasattr(value, "__array_namespace__") and name not in _FALL_SHORT)


def has_kind(array: Array, kind: str) -> bool:
    """Say whether an array's dtype is of a kind of the standard.

    Parameters
    ----------
    array : array
        The array.
    kind : str
        ``"real floating"``, ``"integral"``, ``"bool"`` …

    Returns
    -------
    bool
        Whether it is.

    Examples
    --------
    >>> import numpy as np
    >>> has_kind(np.zeros(3), "real floating"), has_kind(np.zeros(3), "integral")
    (True, False)
    """
    return bool(namespace(array).isdtype(array.dtype, kind))


def device_of(array: Array) -> Any:
    """Return the device of an array.

    Parameters
    ----------
    array : array
        The array.

    Returns
    -------
    device or None
        A device of its library; None where the library is tracing the array, which has no device yet.

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
        The array that gives the library and the device.
    values : array_like
        A number, a list, a NumPy array, or an array of the same library.
    dtype : dtype or str, optional
        The dtype of the new array; None: that of `array`.

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

    JAX has 32 bits only, unless it is configured to have 64: "int64" is its int32 then, because asking it for an int64
    would make it warn.

    Parameters
    ----------
    array : array
        Any array of the library.
    name : str
        The name that the standard gives to the dtype.

    Returns
    -------
    dtype
        The dtype of the library.

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

    Parameters
    ----------
    array : float array
        The array that is summed.

    Returns
    -------
    dtype
        The array's own, or float32 where it is narrower.

    Examples
    --------
    >>> import numpy as np
    >>> statistics_dtype(np.zeros(3, "float16")) == np.float32, statistics_dtype(np.zeros(3, "float64")) == np.float64
    (True, True)
    """
    xp = namespace(array)
    return array.dtype if array.dtype in (xp.float32, xp.float64) else xp.float32


def in_statistics_dtype(array: Array) -> Array:
    """Convert an array to its statistics dtype.

    Parameters
    ----------
    array : float array
        The array.

    Returns
    -------
    float array
        The array in the dtype of `statistics_dtype`; the array itself where it has this dtype already.

    Examples
    --------
    >>> import numpy as np
    >>> in_statistics_dtype(np.ones(2, "float16"))
    array([1., 1.], dtype=float32)
    """
    return namespace(array).astype(array, statistics_dtype(array), copy=False)


def to_numpy(array: Any) -> np.ndarray:
    """Copy an array of any library to the host, for files and text; never inside a forward pass.

    Parameters
    ----------
    array : array
        The array.

    Returns
    -------
    numpy.ndarray
        The same numbers; a NumPy array is returned as it is.

    Examples
    --------
    >>> import numpy as np
    >>> to_numpy(np.ones(2))
    array([1., 1.])
    """
    name = library(array)
    host: np.ndarray
    if name == "cupy":
        host = array.get()
    elif name == "torch":
        host = array.detach().cpu().numpy()
    elif name == "array_api_strict":  # its conversion refuses every device but its first, as a GPU's would
        xp = namespace(array)
        host = np.asarray(xp.asarray(array, device=xp.Device("CPU_DEVICE")))
    else:
        host = np.asarray(array)
    return host


def share_memory(one: Array, other: Array) -> bool:
    """Say whether two arrays are the same numbers in the same memory, so that nothing need be compared.

    Parameters
    ----------
    one, other : array
        The arrays.

    Returns
    -------
    bool
        Whether they are; False where their library does not tell.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones(2)
    >>> share_memory(x, x[:]), share_memory(x, x[::-1]), share_memory(x, x.copy())
    (True, False, False)
    """
    place = {"numpy": _place_in_numpy, "cupy": _place_in_cupy, "torch": _place_in_torch}.get(library(one))
    if place is None or type(one) is not type(other):
        return one is other
    return one.shape == other.shape and one.dtype == other.dtype and bool(place(one) == place(other))


def _place_in_numpy(array: Any) -> Any:
    held = _held(array)
    return held.__array_interface__["data"][0], held.strides


def _held(array: Any) -> Any:
    """Return NumPy's array that holds the numbers."""
    return array.kept if isinstance(array, NarrowMatrix) else array


def _place_in_cupy(array: Any) -> Any:
    return array.data.ptr, array.strides


def _place_in_torch(array: Any) -> Any:
    try:
        return array.device, array.data_ptr(), array.stride()
    except RuntimeError:  # a tensor that torch is tracing has no memory
        return id(array)


def own_memory(arrays: Sequence[Array]) -> list[bool]:
    """Say of each array whether new numbers may be written into it: its memory is its own, and no file's.

    Parameters
    ----------
    arrays : sequence of array
        Arrays of one library.

    Returns
    -------
    list of bool
        True for an array of NumPy, CuPy or PyTorch that can be written to, whose memory its library has made (not a
        file that is mapped into memory, nor another library's), that torch is not differentiating, and that shares
        none with another of `arrays`. False for JAX's, which are never written to, and for other libraries'.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.zeros(4)
    >>> own_memory([np.zeros(2), x[:3], x[2:], np.frombuffer(bytearray(8))])
    [True, False, False, False]
    """
    spans = [_span(array) for array in arrays]
    own = [span is not None and _is_own(array) for array, span in zip(arrays, spans, strict=True)]
    end, last = 0, 0
    for start, stop, index in sorted((*span, index) for index, span in enumerate(spans) if span is not None):
        if start < min(end, stop):
            own[index] = own[last] = False
        if stop > end:
            end, last = stop, index
    return own


def _span(array: Any) -> tuple[int, int] | None:
    """Return where the memory of an array begins and ends; None where its library does not tell."""
    name, array = library(array), _held(array)
    if name in ("numpy", "cupy"):
        start = stop = array.ctypes.data if name == "numpy" else array.data.ptr
        if array.size:
            for count, stride in zip(array.shape, array.strides, strict=True):
                start, stop = start + min(0, (count - 1) * stride), stop + max(0, (count - 1) * stride)
            stop += array.itemsize
        return start, stop
    if name == "torch":
        storage = array.untyped_storage()
        return storage.data_ptr(), storage.data_ptr() + storage.nbytes()
    return None


def _is_own(array: Any) -> bool:
    if isinstance(array, NarrowMatrix):  # new numbers are float32
        return False
    if library(array) == "torch":
        # A tensor that was made of another library's array has memory that PyTorch cannot resize.
        return not array.requires_grad and array.untyped_storage().resizable()
    if library(array) == "cupy":
        return True
    whole = array
    while type(whole) is np.ndarray and whole.base is not None:
        whole = whole.base
    return bool(array.flags.writeable) and type(whole) is np.ndarray


def as_array(value: Array) -> Array:
    """Return an array where NumPy made a scalar of an array without axes.

    Parameters
    ----------
    value : array or NumPy scalar
        The result of a reduction.

    Returns
    -------
    array
        An array without axes for a scalar; any other array as it is.

    Examples
    --------
    >>> import numpy as np
    >>> as_array(np.mean(np.ones(3)))
    array(1.)
    """
    return np.asarray(value) if isinstance(value, np.generic) else value


def detached(array: Any) -> Array:
    """Cut an array off from the autograd of its own library, as torch's ``detach`` does.

    Parameters
    ----------
    array : array
        The array.

    Returns
    -------
    array
        The same numbers, as a constant. The array itself, where its library has no autograd (NumPy, CuPy) or is not
        differentiating it (torch).

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
    result: Array = array
    if name == "torch" and array.requires_grad:
        result = array.detach()
    elif name == "jax":
        result = importlib.import_module("jax").lax.stop_gradient(array)
    return result


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
    total: Any = xp.zeros((count, rows.shape[1]), dtype=rows.dtype, device=device_of(rows))
    if name == "jax":
        total = total.at[indices].add(rows)
    elif name == "torch":
        total = total.index_add(0, indices, rows)
    elif name in ("numpy", "cupy"):
        importlib.import_module(name).add.at(total, indices, rows)
    else:  # with functions of the standard: a product with one-hot rows, (count, n) @ (n, H)
        places = xp.arange(count, dtype=indices.dtype, device=device_of(rows))
        total = xp.matmul(xp.astype(places[:, None] == indices[None, :], rows.dtype), rows)
    return cast(Array, total)


def kind_of(value: Any) -> str:
    """Name the type of a value for an error.

    Parameters
    ----------
    value : object
        Any value.

    Returns
    -------
    str
        The name of its type; for an array with its library, and with its dtype where it can be computed with.

    Examples
    --------
    >>> import numpy as np
    >>> kind_of(np.zeros(2)), kind_of([1])
    ('numpy.ndarray of float64', 'list')
    """
    kind, name = type(value).__name__, library(value)
    if is_array(value):
        return f"{name}.{kind} of {value.dtype}"
    return f"{name}.{kind}" if hasattr(value, "shape") and name != "builtins" else kind


def conversion(value: Any) -> str:
    """Say how to make a plain array of NumPy of an array that layers cannot compute with, for the end of an error.

    Parameters
    ----------
    value : object
        Any value.

    Returns
    -------
    str
        What to do; nothing where there is nothing that can be said.

    Examples
    --------
    >>> import numpy as np
    >>> conversion(np.ma.masked_array([1])), conversion([1])
    (': pass x.filled(value)', '')
    """
    if isinstance(value, np.ndarray) and is_array(value):
        return ""
    ways = {"toarray": "x.toarray()", "todense": "x.todense()", "filled": "x.filled(value)"}
    way = next((way for name, way in ways.items() if hasattr(value, name)), None)
    if way is None and (hasattr(value, "__array__") or hasattr(value, "__dlpack__")):
        way = "np.asarray(x)"
    return "" if way is None else f": pass {way}"


def refuse_masked(name: str, value: Any) -> None:
    """Refuse what `numpy.asarray` would take the mask off: a masked array, or a list of some.

    Parameters
    ----------
    name : str
        The name of the argument, for an error.
    value : object
        Any value.

    Raises
    ------
    TypeError
        If it is masked.

    Examples
    --------
    >>> import numpy as np
    >>> refuse_masked("input_ids", [np.ma.masked_array([2, 3], [False, True])])
    Traceback (most recent call last):
    ...
    TypeError: input_ids: expected numbers without a mask, got numpy.MaskedArray: pass x.filled(value)
    """
    for one in (value, *value) if isinstance(value, (list, tuple)) else (value,):
        if type(one).__name__ == "MaskedArray":
            raise TypeError(f"{name}: expected numbers without a mask, got {kind_of(one)}{conversion(one)}")


def same_dtype(*arrays: Array | None) -> bool:
    """Say whether all arrays hold the same kind of numbers, as kernels expect it.

    Parameters
    ----------
    *arrays : array or None
        The arrays; None stands for no array.

    Returns
    -------
    bool
        Whether there is one dtype.

    Examples
    --------
    >>> import numpy as np
    >>> same_dtype(np.ones(2), None), same_dtype(np.ones(2), np.ones(2, "float32"))
    (True, False)
    """
    return len({array.dtype for array in arrays if array is not None}) == 1


_pytrees: set[type] = set()
_registering = threading.Lock()


def register_pytree(kind: type) -> None:
    """Tell JAX, where it is imported, to take the objects of a dataclass apart, so that `jax.jit` may return one.

    Parameters
    ----------
    kind : type
        The dataclass; of all its fields an object is made.

    Examples
    --------
    >>> import dataclasses
    >>> @dataclasses.dataclass
    ... class Pair:
    ...     first: float
    ...     second: float
    >>> register_pytree(Pair)
    """
    trees = sys.modules.get("jax.tree_util")
    if trees is None or kind in _pytrees:
        return
    names = [field.name for field in dataclasses.fields(kind)]

    def flatten(value: Any) -> tuple[list[tuple[Any, Any]], None]:
        return [(trees.GetAttrKey(name), getattr(value, name)) for name in names], None

    with _registering:
        if kind not in _pytrees:
            trees.register_pytree_with_keys(kind, flatten, lambda _, parts: kind(*parts))
            _pytrees.add(kind)
