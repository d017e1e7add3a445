"""Checks of ids, masks, labels and float inputs, which are then moved to the library and device of the weights.

Ids, masks and labels may be lists or NumPy arrays: they are checked before any transfer. Arrays that are on the device
already are checked by shape and dtype alone, because reading their values would make the host wait for the device.
Float inputs that the model computes with must be arrays of the weights' library already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nezha_np.arrays import (
    Array,
    asarray_like,
    conversion,
    device_of,
    dtype_named,
    has_kind,
    is_array,
    kind_of,
    library,
    namespace,
    refuse_masked,
)

MOST_AXES = 64  # that NumPy has; a list may hold itself
Shape = tuple[int | None, ...]  # None: any size from 1 on


def check_integers(
    name: str, value: Any, like: Array, shape: Shape, *, below: int | None, ignored: int | None = None
) -> Array:
    """Check ids or class labels, and move them to the library and device of the weights.

    Parameters
    ----------
    name : str
        The name of the argument, for an error.
    value : array_like of int
        Lists, a NumPy array, or an array of the library of `like`.
    like : array
        Any weight.
    shape : tuple of (int or None)
        The expected shape.
    below : int or None
        Every value lies from 0 to ``below - 1``; None: any value is allowed.
    ignored : int, optional
        A value that is allowed too.

    Returns
    -------
    array of int64
        The checked values.

    Raises
    ------
    TypeError
        If they are not integers, or belong to another array library.
    ValueError
        If shape or values are not as expected.

    Examples
    --------
    >>> import numpy as np
    >>> check_integers("input_ids", [[1, 2]], np.zeros(1), (None, None), below=3)
    array([[1, 2]])
    """
    array = input_array(name, value, like)
    if not has_kind(array, "integral"):
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    _check_shape(name, array, shape)
    if isinstance(array, np.ndarray) and array.size and below is not None:
        allowed = (array >= 0) & (array < below)
        also = ""
        if ignored is not None:
            allowed |= array == ignored
            also = f" or {ignored}"
        _refuse_values(name, array, ~allowed, f"values from 0 to {below - 1}{also}")
    return _moved(name, array, like, "int64")


def check_numbers(name: str, value: Any, like: Array, shape: Shape, *, from_0_to_1: bool = False) -> Array:
    """Check numbers (a mask, targets of a regression), and move them to the library, device and dtype of the weights.

    Parameters
    ----------
    name : str
        The name of the argument, for an error.
    value : array_like
        Lists, a NumPy array, or an array of the library of `like`; integers and booleans count as numbers.
    like : array
        Any weight.
    shape : tuple of (int or None)
        The expected shape.
    from_0_to_1 : bool
        Whether values below 0 or above 1 are refused.

    Returns
    -------
    float array
        The checked values.

    Raises
    ------
    TypeError
        If they are not real numbers, or belong to another array library.
    ValueError
        If shape or values are not as expected.

    Examples
    --------
    >>> import numpy as np
    >>> check_numbers("attention_mask", [[1, 0]], np.zeros(1, "float32"), (None, None), from_0_to_1=True)
    array([[1., 0.]], dtype=float32)
    """
    array = input_array(name, value, like)
    if not any(has_kind(array, kind) for kind in ("bool", "integral", "real floating")):
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    _check_shape(name, array, shape)
    if isinstance(array, np.ndarray) and from_0_to_1:  # written so that NaN is refused too
        _refuse_values(name, array, ~((array >= 0) & (array <= 1)), "values from 0 (left out) to 1 (attended to)")
    return _moved(name, array, like, like.dtype)


def check_floats(name: str, value: Any, like: Array, shape: Shape) -> Array:
    """Check a float input that the model computes with: it belongs to the weights' library already.

    Parameters
    ----------
    name, value, like, shape
        As for `check_numbers`; no lists.

    Returns
    -------
    float array
        The checked values, in the dtype of the weights.

    Raises
    ------
    TypeError
        If it is not a float array of that library.
    ValueError
        If its shape is not as expected.

    Examples
    --------
    >>> import numpy as np
    >>> check_floats("inputs_embeds", np.zeros((1, 2, 3)), np.zeros(1), (None, None, 3)).shape
    (1, 2, 3)
    """
    _refuse_all_but_floats(name, value, like)
    _check_shape(name, value, shape)
    return _moved(name, value, like, like.dtype)


def which_tokens(input_ids: Any, inputs_embeds: Any) -> str:
    """Say which of the two arguments was passed.

    Parameters
    ----------
    input_ids, inputs_embeds : array_like or None
        The arguments.

    Returns
    -------
    str
        The name of the one that is not None.

    Raises
    ------
    ValueError
        If both are None, or none is.

    Examples
    --------
    >>> which_tokens([[1, 2]], None)
    'input_ids'
    """
    if (input_ids is None) == (inputs_embeds is None):
        both = "neither" if input_ids is None else "both"
        raise ValueError(f"input_ids: expected either input_ids or inputs_embeds, got {both}")
    return "input_ids" if inputs_embeds is None else "inputs_embeds"


def fold_choices(name: str, value: Any, like: Array, rows: tuple[int, int] | None) -> tuple[Array, tuple[int, int]]:
    """Fold the axis of the choices into the batch: (B, C, …) -> (B·C, …).

    Parameters
    ----------
    name : str
        The name of the argument.
    value : (B, C, …) array_like
        The argument.
    like : array
        Any weight.
    rows : (int, int) or None
        The expected (B, C); None: any.

    Returns
    -------
    folded : (B·C, …) array
        The argument, folded.
    rows : (int, int)
        B and C.

    Raises
    ------
    TypeError
        If the argument is no array_like, or float vectors are not an array of the weights' library.
    ValueError
        If its shape is not as expected.

    Examples
    --------
    >>> import numpy as np
    >>> fold_choices("attention_mask", [[[1, 0], [1, 1]]], np.zeros(1), (1, 2))
    (array([[1, 0],
           [1, 1]]), (1, 2))
    """
    if name == "inputs_embeds":  # lists of them are refused here, where they would become an array
        _refuse_all_but_floats(name, value, like)
    array = value if name == "inputs_embeds" else input_array(name, value, like)
    shape = tuple(array.shape)
    axes = 4 if name == "inputs_embeds" else 3
    if (len(shape) != axes if rows is None else len(shape) < axes) or rows not in (None, shape[:2]):
        batch, choices = rows or ("batch", "choices")
        hidden = ", hidden" if axes == 4 else ""
        raise ValueError(f"{name}: expected shape ({batch}, {choices}, length{hidden}), got {shape}")
    return namespace(array).reshape(array, (shape[0] * shape[1], *shape[2:])), (shape[0], shape[1])


def count_axes(value: Any) -> int:
    """Count the axes of an array or of nested lists.

    Parameters
    ----------
    value : array_like
        The array or the lists.

    Returns
    -------
    int
        The number of axes; 0 for a number.

    Examples
    --------
    >>> count_axes([[1, 2], [3, 4]])
    2
    """
    axes = 0
    while isinstance(value, Sequence) and not isinstance(value, (str, bytes, memoryview)) and axes <= MOST_AXES:
        axes += 1
        if not len(value):
            return axes
        value = value[0]
    return axes + (len(value.shape) if is_array(value) or isinstance(value, memoryview) else 0)


def count_rows(value: Any) -> int:
    """Count the rows of an array or of nested lists.

    Parameters
    ----------
    value : array_like
        The array or the lists.

    Returns
    -------
    int
        The number of rows; 0 for a number.

    Examples
    --------
    >>> count_rows([[1, 2], [3, 4]])
    2
    """
    if is_array(value) or isinstance(value, memoryview):
        return value.shape[0] if value.shape else 0
    return len(value) if count_axes(value) else 0


def input_array(name: str, value: Any, like: Array) -> Array:
    """Make an array of a value: one of NumPy, on the host, unless it is one of the weights' library already.

    Parameters
    ----------
    name : str
        The name of the argument, for an error.
    value : array_like
        Lists, a NumPy array, or an array of the library of `like`.
    like : array
        Any weight.

    Returns
    -------
    array
        The values; their dtype is not checked.

    Raises
    ------
    TypeError
        If the value is no array_like, or belongs to another array library.
    ValueError
        If it is lists that make no array of numbers.

    Examples
    --------
    >>> import numpy as np
    >>> input_array("input_ids", [[1, 2]], np.zeros(1))
    array([[1, 2]])
    """
    if is_array(value) and not isinstance(value, (np.ndarray, np.generic)):
        if library(value) != library(like):
            lists = "lists or numpy" if library(like) == "numpy" else f"lists, NumPy or {library(like)}"
            raise TypeError(f"{name}: expected {lists} arrays, got {kind_of(value)}{conversion(value)}")
        device_array: Array = value
        return device_array
    if isinstance(value, (str, bytes)) or not (is_array(value) or isinstance(value, (Sequence, int, float))):
        advice = ": nezha_np.encode makes ids of texts" if isinstance(value, str) else conversion(value)
        raise TypeError(f"{name}: expected an array or lists of numbers, got {kind_of(value)}{advice}")
    refuse_masked(name, value)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RuntimeError):  # the last: lists of another device's arrays
        raise ValueError(
            f"{name}: expected rows of the same length, got lists of different lengths or no numbers"
        ) from None
    except MemoryError:  # a range, for example, which takes none itself
        raise ValueError(f"{name}: expected numbers that fit into memory, got {len(value):,} rows of them") from None
    if array.dtype.kind not in "biufc" and not is_array(value):
        _refuse_items(name, array)
    if not array.size and array.dtype == np.float64:
        array = array.astype(np.int64)  # empty lists hold no floats
    return array


def _refuse_items(name: str, array: np.ndarray) -> None:
    """Raise the error for lists that NumPy found no type of numbers for: name the first item that is no number."""
    for item in array.flat:
        if not isinstance(item, (int, float)):
            item = item.item() if isinstance(item, np.generic) else item
            advice = ": nezha_np.encode makes ids of texts" if isinstance(item, str) else ""
            raise TypeError(f"{name}: expected numbers in the lists, got {kind_of(item)}{advice}")
    raise ValueError(f"{name}: expected numbers of 64 bits, got {max(array.flat, key=abs)}")


def _refuse_values(name: str, array: np.ndarray, refused: np.ndarray, expected: str) -> None:
    if refused.any():
        raise ValueError(f"{name}: expected {expected}, got {array[refused].flat[0]}")


def _refuse_all_but_floats(name: str, value: Any, like: Array) -> None:
    if not is_array(value) or library(value) != library(like) or not has_kind(value, "real floating"):
        raise TypeError(
            f"{name}: expected a float array of {library(like)}, as the weights are, got {kind_of(value)}"
            f"{conversion(value) if library(like) == 'numpy' else ''}"
        )


def _check_shape(name: str, array: Array, shape: Shape) -> None:
    fits = len(array.shape) == len(shape) and all(
        size >= 1 if expected is None else size == expected for size, expected in zip(array.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join("any" if size is None else str(size) for size in shape) + ("," if len(shape) == 1 else "")
        hint = ""
        if len(array.shape) == len(shape) - 1 and name == "input_ids":
            hint = ": add an axis for the batch"
        elif len(array.shape) == len(shape) and 0 in array.shape:
            hint = ": nothing in it"
        raise ValueError(f"{name}: expected shape ({expected}), got {tuple(array.shape)}{hint}")


def _moved(name: str, array: Array, like: Array, dtype: Any) -> Array:
    if isinstance(array, np.ndarray):
        return asarray_like(like, array, dtype)
    here, there = device_of(array), device_of(like)
    if here != there and None not in (here, there):
        raise ValueError(f"{name}: expected an array on {there}, as the weights are, got one on {here}")
    xp = namespace(array)
    return xp.astype(array, dtype_named(array, dtype) if isinstance(dtype, str) else dtype, copy=False)
