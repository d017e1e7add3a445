"""Windows: the lines that are read, and sorted by length, together.

Windows begin at multiples of `WINDOW` batches, whatever stands before them. So a shard of a corpus that begins there
has the windows, and so the batches, of a run over the whole corpus, and the same results bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

from nezha_np.files.text_lines import Line

WINDOW = 32  # batches of a window
LONGEST_WINDOW = 1 << 22  # bytes of the lines of a window, after which it ends


def window_size(row: int, batch_size: int) -> int:
    """Return how many lines the window that begins with a row may have.

    The first windows are smaller, so that the first results come soon. From then on windows begin at multiples of one
    number of rows. With batches of one text nothing is sorted.

    Examples
    --------
    >>> [window_size(row, 10) for row in (0, 10, 30, 70, 150, 310, 320, 640)]
    [10, 20, 40, 80, 160, 10, 320, 320]
    """
    if batch_size == 1:
        return 1
    return min(row + batch_size, whole_window(row, batch_size))


def whole_window(row: int, batch_size: int) -> int:
    """Return how many lines there are from a row to the next multiple of `WINDOW` batches.

    Examples
    --------
    >>> whole_window(0, 10), whole_window(300, 10)
    (320, 20)
    """
    whole = batch_size * WINDOW
    return whole - row % whole


def next_window(lines: Iterator[Line], most: int) -> list[Line]:
    """Read the lines of the next window.

    Parameters
    ----------
    lines : iterator of Line
        The lines; as many as are needed are taken.
    most : int
        How many lines the window may have. It ends earlier where its lines are long.

    Returns
    -------
    list of Line
        The lines; none at the end.

    Examples
    --------
    >>> lines = iter([Line("line 1", b"a"), Line("line 2", b"b"), Line("line 3", b"c")])
    >>> [len(next_window(lines, 2)) for _ in range(3)]
    [2, 1, 0]
    """
    window: list[Line] = []
    size = 0
    while len(window) < most and size < LONGEST_WINDOW and (line := next(lines, None)) is not None:
        window.append(line)
        size += len(line.raw)
    return window
