"""Matrices that are kept in bfloat16 and computed with in float32: half the memory of float32, and its range.

bfloat16 is the upper half of the bits of a float32: sign, exponent and 7 of 23 bits of the fraction. NumPy does not
have it, and ml_dtypes, which adds it, computes each number by itself. Here nothing is computed in bfloat16: a matrix
keeps its 16 bits, and NumPy's functions get its numbers in float32, tile by tile where it is multiplied. So the result
is that of the float32 model whose weights were rounded to bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

NAME = "bfloat16"
TILE = 2**18  # numbers of a matrix that are widened at once, 1 MB of float32: they are read again from cache


def round_to_bits(values: np.ndarray) -> np.ndarray:
    """Round floats to bfloat16, to the nearest, ties to even.

    Parameters
    ----------
    values : float array
        Any shape.

    Returns
    -------
    uint16 array
        The bits. NaN stays NaN, and what is beyond the largest number becomes infinite.

    Examples
    --------
    >>> widened(round_to_bits(np.array([1.0, 1.005, -2.0])))
    array([ 1.       ,  1.0078125, -2.       ], dtype=float32)
    """
    found = np.empty(np.shape(values), np.uint16)
    source, flat = np.reshape(values, -1), found.reshape(-1)
    for start in range(0, source.size, TILE):  # all at once would take the memory of float64
        part = slice(start, start + TILE)
        flat[part] = _rounded(source[part])
    return found


def _rounded(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # of float64
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rest, upper = bits & np.uint32(0xFFFF), (bits >> np.uint32(16)).astype(np.uint16)
    up = (rest > 0x8000) | ((rest == 0x8000) & (upper & np.uint16(1) != 0))
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(is_nan, upper | np.uint16(0x40), upper + up)  # a carry goes from the fraction into the exponent


def widened(bits: np.ndarray) -> np.ndarray:
    """Return the numbers that bits of bfloat16 stand for.

    Parameters
    ----------
    bits : uint16 array
        Any shape.

    Returns
    -------
    float32 array
        The same numbers, rows one after the other.

    Examples
    --------
    >>> widened(np.array([0x3F80, 0xC000], "uint16"))
    array([ 1., -2.], dtype=float32)
    """
    numbers = np.empty(bits.shape, np.float32)
    np.left_shift(bits, 16, out=numbers.view(np.uint32), dtype=np.uint32, casting="unsafe")
    return numbers


class Bfloat16(np.lib.mixins.NDArrayOperatorsMixin):
    """A matrix in bfloat16 that NumPy's functions take for one in float32.

    Parameters
    ----------
    bits : (rows, columns) uint16 array
        Its bits; they are not copied.

    Attributes
    ----------
    bits : (rows, columns) uint16 array
        The bits.
    dtype : dtype
        float32, which its numbers are read in.
    device : str
        ``"cpu"``, as NumPy's arrays say.

    Raises
    ------
    ValueError
        If there are not two axes.

    Examples
    --------
    >>> matrix = Bfloat16(round_to_bits(np.array([[1.0, 2.0], [3.0, 4.0]])))
    >>> np.ones((1, 2), "float32") @ matrix.T
    array([[3., 7.]], dtype=float32)
    >>> matrix.nbytes, matrix[0], np.asarray(matrix).dtype
    (8, array([1., 2.], dtype=float32), dtype('float32'))
    """

    dtype = np.dtype(np.float32)
    device = "cpu"

    def __init__(self, bits: np.ndarray) -> None:
        if bits.ndim != 2:
            raise ValueError(f"bits: expected a matrix, got shape {bits.shape}")
        self.bits = bits

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of rows and of columns."""
        return self.bits.shape

    @property
    def ndim(self) -> int:
        """The number of axes, 2."""
        return self.bits.ndim

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.bits.size

    @property
    def nbytes(self) -> int:
        """The bytes that they take, two each."""
        return self.bits.nbytes

    @property
    def T(self) -> Bfloat16:
        """The transposed matrix, of the same memory."""
        return Bfloat16(self.bits.T)

    def __len__(self) -> int:
        return len(self.bits)

    def __bool__(self) -> bool:
        return bool(widened(self.bits))  # NumPy's error, where there is more than one number

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a matrix in bfloat16 has no {name}: np.asarray(matrix) makes NumPy's array of it, in float32"
        )

    def __repr__(self) -> str:
        return f"Bfloat16({widened(self.bits)!r})"

    def __getitem__(self, key: Any) -> Any:
        found = self.bits[key]
        return Bfloat16(found) if found.ndim == 2 else widened(found)[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a matrix in bfloat16 is read by a copy: expected copy=None or True, got False")
        return widened(self.bits).astype(self.dtype if dtype is None else dtype, copy=False)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """Return NumPy, whose functions take such a matrix."""
        return np

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Run one of NumPy's functions of elements, or a matrix product, in float32."""
        if any(isinstance(out, Bfloat16) for out in options.get("out", ())):
            raise TypeError("out: expected an array of NumPy, got a matrix in bfloat16, which is read-only")
        if ufunc is np.matmul and method == "__call__" and options.keys() <= {"out"}:
            out = options.get("out", (None,))[0]
            if (product := _multiply(*inputs, out=out)) is not None:
                return product
        return getattr(ufunc, method)(*map(_in_float32, inputs), **_in_float32(options))

    def __array_function__(self, function: Callable[..., Any], types: Any, inputs: Any, options: Any) -> Any:
        """Run another of NumPy's functions: of some rows, or of the whole matrix in float32."""
        if function is np.take and len(inputs) == 2 and options == {"axis": 0} and not isinstance(inputs[1], Bfloat16):
            return widened(np.take(self.bits, inputs[1], axis=0))
        if function is np.matrix_transpose:
            return self.T
        if function in (np.shape, np.ndim, np.size):
            return function(self.bits, *inputs[1:], **options)
        return function(*_in_float32(inputs), **_in_float32(options))


def kept_in_bfloat16(array: Any) -> Any:
    """Round a tensor to bfloat16, and keep a matrix in it; a vector, or a tensor of more axes, stays in float32.

    Parameters
    ----------
    array : float array or Bfloat16
        The tensor.

    Returns
    -------
    Bfloat16, or float32 array
        The rounded tensor.

    Examples
    --------
    >>> kept_in_bfloat16(np.array([1.005]))
    array([1.0078125], dtype=float32)
    >>> type(kept_in_bfloat16(np.ones((2, 2)))).__name__
    'Bfloat16'
    """
    if isinstance(array, Bfloat16):
        return array
    bits = round_to_bits(array)
    bits.flags.writeable = False
    if bits.ndim == 2:
        return Bfloat16(bits)
    numbers = widened(bits)
    numbers.flags.writeable = False
    return numbers


def is_kept_in_bfloat16(tensors: Mapping[str, Any]) -> bool:
    """Say whether all matrices of a model are kept in bfloat16.

    Parameters
    ----------
    tensors : mapping of str to array
        Its tensors.

    Returns
    -------
    bool
        False where one is not, as after a step of training: then they are float32 together.

    Examples
    --------
    >>> matrix = Bfloat16(np.ones((1, 1), "uint16"))
    >>> is_kept_in_bfloat16({"a": matrix, "bias": np.ones(1)}), is_kept_in_bfloat16({"a": matrix, "b": np.ones((1, 1))})
    (True, False)
    """
    matrices = [array for array in tensors.values() if array.ndim == 2]
    return bool(matrices) and all(isinstance(array, Bfloat16) for array in matrices)


def _in_float32(value: Any) -> Any:
    """Read the matrices in nested tuples, lists and dicts; what is read cannot be written to."""
    if isinstance(value, Bfloat16):
        numbers = widened(value.bits)
        numbers.flags.writeable = False
        return numbers
    if isinstance(value, (tuple, list)):
        return type(value)(map(_in_float32, value))
    return {key: _in_float32(item) for key, item in value.items()} if isinstance(value, dict) else value


def _multiply(x: Any, y: Any, *, out: np.ndarray | None) -> np.ndarray | None:
    """Multiply a matrix in bfloat16 by one in float32 tile by tile: W y, x Wᵀ, or x W. None: it is another product."""
    if isinstance(y, Bfloat16):
        turned = _multiply(y.T, x.T, out=None if out is None else out.T) if isinstance(x, np.ndarray) else None
        return turned if turned is None else turned.T if out is None else out
    if not (isinstance(y, np.ndarray) and y.ndim == 2 and y.dtype == np.float32 and x.shape[1] == len(y)):
        return None
    if out is None:
        out = np.empty((len(x), y.shape[1]), np.float32)
    elif out.dtype != np.float32 or out.shape != (len(x), y.shape[1]) or np.may_share_memory(out, y):
        return None
    by_rows = x.bits.flags.c_contiguous  # else the transposed matrix lies by rows
    step = max(1, TILE // max(1, x.shape[1] if by_rows else len(x)))
    if by_rows:
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            np.matmul(widened(x.bits[rows]), y, out=out[rows])
        return out
    out[...] = 0.0
    for start in range(0, len(y), step):
        rows = slice(start, start + step)
        out += widened(x.bits.T[rows]).T @ y[rows]
    return out
