"""A matrix that is kept in 16 bits and computed with in float32.

Nothing is computed in 16 bits: NumPy's functions get the matrix in float32, tile by tile where it is multiplied. So the
result is that of the float32 model whose weights were rounded. ml_dtypes, which adds bfloat16 to NumPy, computes each
number by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nezha_np.narrow import bfloat16, float16
from nezha_np.narrow.tiles import TILE, Widen, tiles, widened_by
from nezha_np.threads import BLAS_THREADS, part_of, share_out

TILE_OF_MANY = 2**22  # numbers in a tile for many columns: with fewer rows their products are slow
MANY = 32  # columns; the tiles of a product with fewer are not divided among threads: to wake these takes as long
SHARED = 2**18  # the fewest numbers of a matrix that a thread is started for


class Format(NamedTuple):
    """How numbers are kept in 16 bits.

    Attributes
    ----------
    name : str
        What the dtype is called.
    kept : dtype
        NumPy's dtype of what is kept.
    widen : callable
        ``widen(kept, out)`` writes the numbers into an array of float32 of the same shape.
    """

    name: str
    kept: np.dtype[Any]
    widen: Widen


BFLOAT16 = Format(bfloat16.NAME, np.dtype(np.uint16), bfloat16.widen)
FLOAT16 = Format("float16", np.dtype(np.float16), float16.widen)


class NarrowMatrix(np.lib.mixins.NDArrayOperatorsMixin):
    """A matrix in 16 bits that NumPy's functions take for one in float32.

    Parameters
    ----------
    kept : (rows, columns) array
        The 16 bits of each number; they are not copied.
    form : Format
        The format that they are in.

    Attributes
    ----------
    kept, form
        The arguments.
    dtype : dtype
        float32, which its numbers are read in.
    device : str
        ``"cpu"``, as NumPy's arrays say.

    Raises
    ------
    ValueError
        If there are not two axes, or the dtype is not what the format keeps.

    Examples
    --------
    >>> matrix = NarrowMatrix(np.array([[1.0, 2.0], [3.0, 4.0]], "float16"), FLOAT16)
    >>> np.ones((1, 2), "float32") @ matrix.T
    array([[3., 7.]], dtype=float32)
    >>> matrix.nbytes, matrix[0], np.asarray(matrix).dtype
    (8, array([1., 2.], dtype=float32), dtype('float32'))
    """

    dtype = np.dtype(np.float32)
    device = "cpu"

    def __init__(self, kept: np.ndarray, form: Format) -> None:
        if kept.ndim != 2 or kept.dtype != form.kept:
            raise ValueError(f"kept: expected a matrix of {form.kept}, got shape {kept.shape} and {kept.dtype}")
        self.kept, self.form = kept, form

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of rows and of columns."""
        return self.kept.shape

    @property
    def ndim(self) -> int:
        """The number of axes, 2."""
        return self.kept.ndim

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return self.kept.size

    @property
    def nbytes(self) -> int:
        """The bytes that they take, two each."""
        return self.kept.nbytes

    @property
    def T(self) -> NarrowMatrix:
        """The transposed matrix, of the same memory."""
        return NarrowMatrix(self.kept.T, self.form)

    def __len__(self) -> int:
        return len(self.kept)

    def __bool__(self) -> bool:
        return bool(widened_by(self.form.widen, self.kept))  # NumPy's error, where there is more than one number

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a narrow matrix has no {name}: np.asarray(matrix) makes NumPy's array of it, in float32")

    def __repr__(self) -> str:
        return f"NarrowMatrix({self.form.name}, {widened_by(self.form.widen, self.kept)!r})"

    def __getitem__(self, key: Any) -> Any:
        found = self.kept[key]
        return NarrowMatrix(found, self.form) if found.ndim == 2 else widened_by(self.form.widen, found)[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a narrow matrix is read by a copy: expected copy=None or True, got False")
        return widened_by(self.form.widen, self.kept).astype(self.dtype if dtype is None else dtype, copy=False)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """Return NumPy, whose functions take such a matrix."""
        return np

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Run one of NumPy's functions of elements, or a matrix product, in float32."""
        if any(isinstance(out, NarrowMatrix) for out in options.get("out", ())):
            raise TypeError("out: expected an array of NumPy, got a narrow matrix, which is read-only")
        if ufunc is np.matmul and method == "__call__" and options.keys() <= {"out"}:
            out = options.get("out", (None,))[0]
            if (product := _multiply(*inputs, out=out)) is not None:
                return product
        return getattr(ufunc, method)(*map(_in_float32, inputs), **_in_float32(options))

    def __array_function__(self, function: Callable[..., Any], types: Any, inputs: Any, options: Any) -> Any:
        """Run another of NumPy's functions: of some rows, or of the whole matrix in float32."""
        rows = inputs[1] if function is np.take and len(inputs) == 2 and options == {"axis": 0} else None
        if rows is not None and not isinstance(rows, NarrowMatrix):
            return widened_by(self.form.widen, np.take(self.kept, rows, axis=0))
        if function is np.matrix_transpose:
            return self.T
        if function in (np.shape, np.ndim, np.size):
            return function(self.kept, *inputs[1:], **options)
        return function(*_in_float32(inputs), **_in_float32(options))


def kept_in_bfloat16(array: Any) -> Any:
    """Round a tensor to bfloat16, and keep a matrix in it; a vector, or a tensor of more axes, stays in float32.

    Parameters
    ----------
    array : float array or NarrowMatrix
        The tensor.

    Returns
    -------
    NarrowMatrix, or float32 array
        The rounded tensor, read-only.

    Examples
    --------
    >>> kept_in_bfloat16(np.array([1.005]))
    array([1.0078125], dtype=float32)
    >>> type(kept_in_bfloat16(np.ones((2, 2)))).__name__
    'NarrowMatrix'
    """
    if isinstance(array, NarrowMatrix) and array.form == BFLOAT16:
        return array
    bits = bfloat16.round_to_bits(np.asarray(array))
    bits.flags.writeable = False
    if bits.ndim == 2:
        return NarrowMatrix(bits, BFLOAT16)
    numbers = bfloat16.widened(bits)
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
    >>> matrix = kept_in_bfloat16(np.ones((1, 1)))
    >>> is_kept_in_bfloat16({"a": matrix, "bias": np.ones(1)}), is_kept_in_bfloat16({"a": matrix, "b": np.ones((1, 1))})
    (True, False)
    """
    matrices = [array for array in tensors.values() if array.ndim == 2]
    return bool(matrices) and all(isinstance(one, NarrowMatrix) and one.form == BFLOAT16 for one in matrices)


def _in_float32(value: Any) -> Any:
    """Read the matrices in nested tuples, lists and dicts; what is read cannot be written to."""
    if isinstance(value, NarrowMatrix):
        numbers = np.asarray(value)
        numbers.flags.writeable = False
        return numbers
    if isinstance(value, (tuple, list)):
        return type(value)(map(_in_float32, value))
    return {key: _in_float32(item) for key, item in value.items()} if isinstance(value, dict) else value


# ---------------------------------------------------------------------------------------------------------- products


def _multiply(x: Any, y: Any, *, out: np.ndarray | None) -> np.ndarray | None:
    """Multiply a narrow matrix by one in float32 tile by tile: W y, x Wᵀ, or x W. None: it is another product."""
    if isinstance(y, NarrowMatrix):
        turned = _multiply(y.T, x.T, out=None if out is None else out.T) if isinstance(x, np.ndarray) else None
        return turned if turned is None else turned.T if out is None else out
    if not (isinstance(y, np.ndarray) and y.ndim == 2 and y.dtype == np.float32 and x.shape[1] == len(y)):
        return None
    if out is None:
        out = np.empty((len(x), y.shape[1]), np.float32)
    elif out.dtype != np.float32 or out.shape != (len(x), y.shape[1]) or np.may_share_memory(out, y):
        return None
    if not x.kept.flags.c_contiguous:  # then the transposed matrix lies by rows
        _add_products(x.T, y, out)
    elif y.shape[1] < MANY or x.size < 2 * SHARED:
        _multiply_rows(x, y, out, slice(0, len(x)))
    else:
        with BLAS_THREADS.held_in_a_pass():
            share_out(
                min(len(x), x.size // SHARED),
                lambda part, parts: _multiply_rows(x, y, out, part_of(len(x), part, parts)),
            )
    return out


def _numbers_for(y: np.ndarray) -> int:
    """Say how many numbers are in a tile that is multiplied by `y`."""
    return TILE if y.shape[1] < MANY else TILE_OF_MANY


def _multiply_rows(x: NarrowMatrix, y: np.ndarray, out: np.ndarray, own: slice) -> None:
    """Write some rows of x y."""
    cut = tiles((own.stop - own.start, x.shape[1]), _numbers_for(y), own.start)
    room = np.empty((cut[0].stop - own.start if cut else 0, x.shape[1]), np.float32)
    for rows in cut:
        np.matmul(_widened_into(room, x, rows), y, out=out[rows])


def _add_products(x: NarrowMatrix, y: np.ndarray, out: np.ndarray) -> None:
    """Write xᵀ y: the sum over tiles of rows of both."""
    out[...] = 0.0
    cut = tiles(x.shape, _numbers_for(y))
    room = np.empty((cut[0].stop if cut else 0, x.shape[1]), np.float32)
    for rows in cut:
        out += _widened_into(room, x, rows).T @ y[rows]


def _widened_into(room: np.ndarray, x: NarrowMatrix, rows: slice) -> np.ndarray:
    """Write some rows in float32 into the beginning of `room`, in pieces: a format may need as much memory besides."""
    numbers, kept = room[: rows.stop - rows.start], x.kept[rows]
    for piece in tiles(kept.shape, TILE):
        x.form.widen(kept[piece], numbers[piece])
    return numbers
