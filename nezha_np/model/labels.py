"""Checks of labels, which a task head's loss is computed with.

Dimension letters: B batch, L length, C classes; ``…`` any leading axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nezha_np.arrays import Array, asarray_like, has_kind, namespace, to_numpy
from nezha_np.layers.losses import IGNORE_INDEX
from nezha_np.model.inputs import check_integers, count_axes, input_array


def check_classes(name: str, labels: Any, logits: Array) -> Array:
    """Check class labels.

    Parameters
    ----------
    name : str
        The name of the argument, for an error.
    labels : (…,) array_like of int
        A class for each row of the logits, or `IGNORE_INDEX`; (B, 1) labels count as (B,).
    logits : (…, C) array
        The logits.

    Returns
    -------
    (…,) array of int64
        The checked labels.

    Raises
    ------
    TypeError, ValueError
        As for `check_integers`.

    Examples
    --------
    >>> import numpy as np
    >>> check_classes("labels", [2, -100], np.zeros((2, 3)))
    array([   2, -100])
    """
    labels = _without_last_axis(name, labels, logits, logits.ndim - 1)
    return check_integers(name, labels, logits, tuple(logits.shape[:-1]), below=logits.shape[-1], ignored=IGNORE_INDEX)


def labelled_tokens(labels: Any, x: Array, classes: int) -> tuple[Array, Array]:
    """Check the labels of tokens, and find the tokens that have one.

    Parameters
    ----------
    labels : (B, L) array_like of int
        A class for each token, or `IGNORE_INDEX`. Labels on a device are copied to the host.
    x : (B, L, H) array
        Hidden states.
    classes : int
        C.

    Returns
    -------
    numbers : (n,) array of int64
        The tokens with a label: token l of row b has the number b · L + l.
    labels : (n,) array of int64
        Their labels.

    Raises
    ------
    TypeError, ValueError
        As for `check_integers`; if there are no labels.

    Examples
    --------
    >>> import numpy as np
    >>> labelled_tokens([[-100, 7], [-100, -100]], np.zeros((2, 2, 4)), 9)
    (array([1]), array([7]))
    """
    if labels is None:
        raise ValueError("labelled_only: expected labels with it, got none")
    checked = check_integers("labels", labels, x, tuple(x.shape[:2]), below=classes, ignored=IGNORE_INDEX)
    flat = to_numpy(checked).reshape(-1)
    numbers = np.flatnonzero(flat != IGNORE_INDEX)
    return asarray_like(x, numbers, "int64"), asarray_like(x, flat[numbers], "int64")


def check_positions(name: str, value: Any, logits: Array) -> Array:
    """Check positions in a text, and clamp them to 0 … L, where L means outside, as the reference does.

    Parameters
    ----------
    name : str
        The name of the argument, for an error.
    value : (B,) or (B, 1) array_like of int
        The positions.
    logits : (B, L) array
        The logits of the tokens.

    Returns
    -------
    (B,) array of int64
        The clamped positions.

    Raises
    ------
    TypeError
        If they are not integers, or belong to another array library.
    ValueError
        If their shape is not as expected.

    Examples
    --------
    >>> import numpy as np
    >>> check_positions("start_positions", [-3, 1, 9], np.zeros((3, 4)))
    array([0, 1, 4])
    """
    value = _without_last_axis(name, value, logits, 1)
    positions = check_integers(name, value, logits, (logits.shape[0],), below=None)
    return namespace(positions).clip(positions, 0, logits.shape[1])


def are_integers(name: str, value: Any, like: Array) -> bool:
    """Say whether a value holds integers.

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
    bool
        Whether its dtype is an integer one.

    Examples
    --------
    >>> import numpy as np
    >>> are_integers("labels", [1, 0], np.zeros(1)), are_integers("labels", [1.0, 0.0], np.zeros(1))
    (True, False)
    """
    return has_kind(input_array(name, value, like), "integral")


def _without_last_axis(name: str, value: Any, like: Array, axes: int) -> Any:
    if axes == 1 and count_axes(value) == 2:
        array = input_array(name, value, like)
        if array.shape[1] == 1:
            return array[:, 0]
    return value
