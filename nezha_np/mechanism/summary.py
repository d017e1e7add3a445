"""Tables of plain text: the arrays of a trace, a bundle or a checkpoint, one line for each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from nezha_np.checks import printable


def format_table(rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Write rows below one another, each column as wide as its widest cell.

    Parameters
    ----------
    rows : iterable of sequences of str
        The rows, the heading first; a row may have fewer cells.
    right : sequence of int
        The columns that are aligned to the right.

    Returns
    -------
    str
        A line for each row, without spaces at its end; codes in the place of control characters.

    Examples
    --------
    >>> print(format_table([("tensor", "bytes"), ("bias", "512"), ("weight", "65,536")], right=[1]))
    tensor   bytes
    bias       512
    weight  65,536
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    columns = max(map(len, rows), default=0)
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(columns)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    )


def min_max_mean_norm(values: np.ndarray) -> tuple[float, ...]:
    """Describe an array by four numbers, computed in float64 and scaled, so that the sums do not overflow.

    Parameters
    ----------
    values : numpy.ndarray
        The array.

    Returns
    -------
    tuple of float
        Minimum, maximum, mean and Euclidean norm; () for an array without elements.
    """
    if not values.size:
        return ()
    values = values.astype("float64")
    with np.errstate(all="ignore"):
        least, most = float(values.min()), float(values.max())
        scale = max(abs(least), abs(most))
        scaled = values / scale if 0.0 < scale < math.inf else values
        scale = scale if 0.0 < scale < math.inf else 1.0
        return least, most, float(scaled.mean()) * scale, float((scaled * scaled).sum() ** 0.5) * scale
