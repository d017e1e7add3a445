"""The CUDA C of the kernels for CuPy, compiled for each dtype when its first array arrives, and launched.

Nothing is read back and nothing waits: the host only queues work on the current stream.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import cupy
import numpy as np

SOURCE = Path(__file__).with_name("cuda.cu")
FUNCTIONS = (
    *("bias_gelu", "normalise", "collect", "spread", "softmax", "split_heads", "merge_heads"),
    *("gelu_gradient", "normalise_gradient", "normalise_sums", "sum_parts", "softmax_gradient"),
    *("embedding_sums", "embedding_rows", "cross_entropy_gradient"),
)
NUMBERS = {np.dtype(np.float32): "float", np.dtype(np.float16): "__half"}
THREADS = 256  # in a block at most; a warp is 32
BLOCKS = 2**31 - 1  # in a grid at most; of more rows a block takes several


@functools.cache
def compiled(dtype: np.dtype[Any]) -> dict[str, Any]:
    """Compile the source for arrays of one dtype; CuPy does so when a kernel is first launched on a device.

    Parameters
    ----------
    dtype : dtype
        A key of `NUMBERS`.

    Returns
    -------
    dict of str to cupy.RawKernel
        The kernels by name.
    """
    module = cupy.RawModule(
        code=SOURCE.read_text(encoding="utf-8"), options=("-std=c++17", f"-DNUMBER={NUMBERS[dtype]}")
    )
    return {name: module.get_function(name) for name in FUNCTIONS}


def launch(
    name: str, arrays: tuple[Any, ...], *scalars: int | float, rows: int, width: int, dtype: np.dtype[Any] | None = None
) -> None:
    """Queue a kernel on the current stream, with a block of threads for each row.

    Parameters
    ----------
    name : str
        One of `FUNCTIONS`.
    arrays : tuple of (array or None)
        Its arrays. What it writes to is contiguous already; of the others, those that are not are copied.
    scalars : int or float
        What follows them.
    rows, width : int
        The last two arguments.
    dtype : dtype, optional
        A key of `NUMBERS`; None: that of the first array.
    """
    if rows and width:  # CUDA knows no empty grid
        threads = min(THREADS, -(-width // 32) * 32)
        pointers = [0 if array is None else contiguous(array) for array in arrays]
        compiled(dtype or arrays[0].dtype)[name]((min(rows, BLOCKS),), (threads,), (*pointers, *scalars, rows, width))


def contiguous(x: Any) -> Any:
    """Return an array whose rows follow each other in memory: the array itself where they do."""
    return x if x.flags.c_contiguous else cupy.ascontiguousarray(x)


def count_rows(x: Any) -> int:
    """Count the rows of all axes but the last."""
    return math.prod(x.shape[:-1])


def flat_rows(x: Any) -> Any:
    """Fold all axes but the last: (…, H) -> (rows, H)."""
    return x.reshape(count_rows(x), x.shape[-1])
