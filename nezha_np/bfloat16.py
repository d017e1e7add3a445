"""Matrices that are kept in bfloat16 and computed with in float32: half the memory of float32, and its range.

bfloat16 is the upper half of the bits of a float32: sign, exponent and 7 of 23 bits of the fraction. NumPy does not
have it, and ml_dtypes, which adds it, computes each number by itself. Here nothing is computed in bfloat16: a matrix
keeps its 16 bits, and NumPy's functions get its numbers in float32, tile by tile where it is multiplied. So the result
is that of the float32 model whose weights were rounded to bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
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
    with np.errstate(over="ignore"):  # of float64
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rest = bits & np.uint32(0xFFFF)
    up = (rest > 0x8000) | ((rest == 0x8000) & ((bits & np.uint32(0x10000)) != 0))
    upper = (bits >> np.uint32(16)).astype(np.uint16)
    rounded = upper + up  # the carry goes from the fraction into the exponent, as it should
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(is_nan, upper | np.uint16(0x40), rounded).astype(np.uint16).reshape(np.shape(values))


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
        if ufunc is np.matmul and method == "__call__" and options.keys() <= {"out"}:
            out = options.get("out", (None,))[0]
            if (product := _multiply(*inputs, out=out)) is not None:
                return product
        return getattr(ufunc, method)(*map(_in_float32, inputs), **options)

    def __array_function__(self, function: Callable[..., Any], types: Any, inputs: Any, options: Any) -> Any:
        """Run another of NumPy's functions: of some rows, or of the whole matrix in float32."""
        if function is np.take and options.get("axis") == 0 and inputs[0] is self:
            return widened(np.take(self.bits, *inputs[1:], **options))
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


def _in_float32(value: Any) -> Any:
    """Read the matrices in nested tuples, lists and dicts."""
    if isinstance(value, Bfloat16):
        return widened(value.bits)
    if isinstance(value, (tuple, list)):
        return type(value)(map(_in_float32, value))
    return {key: _in_float32(item) for key, item in value.items()} if isinstance(value, dict) else value


def _multiply(x: Any, y: Any, *, out: np.ndarray | None) -> np.ndarray | None:
    """Multiply a matrix in bfloat16 by one in float32 tile by tile: W y, or x Wᵀ. None: it is another product."""
    if isinstance(y, Bfloat16):
        product = None if out is None else out.T
        turned = _multiply(y.T, x.T, out=product) if isinstance(x, np.ndarray) and x.ndim == 2 else None
        return None if turned is None else turned.T if out is None else out
    suits = isinstance(y, np.ndarray) and y.ndim == 2 and y.dtype == np.float32 and x.bits.flags.c_contiguous
    if not suits or x.shape[1] != len(y) or (out is not None and out.dtype != np.float32):
        return None
    if out is None:
        out = np.empty((len(x), y.shape[1]), np.float32)
    step = max(1, TILE // max(1, x.shape[1]))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        np.matmul(widened(x.bits[rows]), y, out=out[rows])
    return out
