"""Memory that was freed stays with the process, so that the next block does not have to ask the system for it.

The C library of Linux (glibc) asks the system for each block of more than 128 KB, and gives it back when it is freed.
Each page of such a block is filled with zeros when it is first written to, some microseconds for 4 KiB: kernels that
make the same arrays in every layer would spend up to a quarter of a pass on it. The library keeps blocks of up to 32 MB
as soon as one of that size has been freed (mallopt(3), M_MMAP_THRESHOLD). In a process that has drawn random weights
this has happened, in one that maps a file it has not.
"""

from __future__ import annotations

import numpy as np

LARGEST = 2**25 - 2**16  # bytes; the library does not learn from a block of more than 32 MiB


def keep_freed_memory() -> None:
    """Free one large block, which was never written to and so never took memory.

    From then on up to twice as much stays with the process when it is freed. Where the library's limits are set, by the
    environment variables MALLOC_MMAP_THRESHOLD_ or MALLOC_TRIM_THRESHOLD_, it learns nothing: Dask sets the latter for
    its workers. Other C libraries do not learn either.

    Examples
    --------
    >>> keep_freed_memory()
    """
    np.empty(LARGEST, np.uint8)
