"""Files of vectors that are written row by row: ``.npy``, safetensors, and JSON Lines.

The first two begin with a header that says how many rows there are. Room is kept for it, because only the end knows:
both formats allow a header to be filled up with blanks.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

FORMATS = ("npy", "safetensors", "jsonl")
TENSOR, FIELD = "embeddings", "embedding"  # what they are called in a safetensors file, and what each is in a line
ROOM = 192  # bytes: more than either header needs with 20-digit numbers, and a multiple of 64, as .npy wants it


def file_header(format: str, rows: int, width: int) -> bytes:
    """Make the beginning of a file: as long for few rows as for many.

    Parameters
    ----------
    format : str
        "npy", "safetensors" or "jsonl".
    rows, width : int
        The shape of the float32 array that follows.

    Returns
    -------
    bytes
        The header; a JSON Lines file has none.

    Examples
    --------
    >>> file_header("npy", 2, 3)[:67]
    b"\\x93NUMPY\\x01\\x00\\xb6\\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}"
    >>> {len(file_header("safetensors", rows, 384)) for rows in (0, 1, 10**12)}
    {192}
    """
    if format == "npy":
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width})}}"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", ROOM - 10) + text.encode().ljust(ROOM - 11) + b"\n"
    if format == "safetensors":
        entry = {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, 4 * rows * width]}
        text = json.dumps({TENSOR: entry}, separators=(",", ":"))
        return struct.pack("<Q", ROOM - 8) + text.encode().ljust(ROOM - 8)
    return b""


def rows_as_bytes(format: str, vectors: np.ndarray, records: Sequence[dict[str, Any]]) -> bytes:
    """Make the bytes of some rows.

    Parameters
    ----------
    format : str
        "npy", "safetensors" or "jsonl".
    vectors : (B, H) array
        The vectors; they are written as float32.
    records : sequence of dict
        For "jsonl", the object that each vector is added to, as "embedding"; one that has that field gets it replaced.

    Returns
    -------
    bytes
        The rows.

    Examples
    --------
    >>> print(rows_as_bytes("jsonl", np.array([[0.1, -2]]), [{"text": "好"}]).decode(), end="")
    {"text": "好", "embedding": [0.1, -2.0]}
    """
    if format != "jsonl":
        return vectors.astype("<f4").tobytes()
    # The shortest decimals that are the same float32: half the length of those that float64 would need.
    decimals = vectors.astype(np.float32).astype(str)
    return b"".join(
        _as_line(record | {FIELD: list(map(float, row))})
        for record, row in zip(records, decimals.tolist(), strict=True)
    )


def _as_line(record: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # a field beside the text may hold half a character, which has no UTF-8
        return (json.dumps(record) + "\n").encode()
