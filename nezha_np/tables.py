"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Write rows below one another, each column as wide as its widest cell.

    Parameters
    ----------
    rows : iterable of sequences of str
        The rows, the heading first; a row may have fewer cells.
    right : sequence of int
        The columns that are flush right.

    Returns
    -------
    str
        A line for each row, without spaces at its end.

    Examples
    --------
    >>> print(aligned([("tensor", "bytes"), ("bias", "512"), ("weight", "65,536")], right=[1]))
    tensor   bytes
    bias       512
    weight  65,536
    """
    rows = list(rows)
    columns = max(map(len, rows), default=0)
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(columns)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    )
