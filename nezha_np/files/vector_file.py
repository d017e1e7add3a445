"""Files of vectors that are written row by row: ``.npy``, safetensors, and JSON Lines.

The first two begin with a header that holds the number of rows, which is known only at the end. So the header has a
fixed length, filled up with blanks as both formats allow, and is replaced in place when the last row is written.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from nezha_np.checks import as_codes

FORMATS = ("npy", "safetensors", "jsonl")
TENSOR = "embeddings"  # the name of the tensor in a safetensors file
FIELD = "embedding"  # the field of a vector in a line of JSON
ROOM = 192  # the length of a header in bytes: enough for 20-digit numbers, and a multiple of 64, as .npy needs


def file_header(format: str, rows: int, width: int) -> bytes:
    """Make the header of a file, of the same length for any number of rows.

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
    """Make the bytes of rows.

    Parameters
    ----------
    format : str
        "npy", "safetensors" or "jsonl".
    vectors : (B, H) array
        The vectors; they are written as float32.
    records : sequence of dict
        For "jsonl": the object of each line, to which the vector is added as the field "embedding", in place of one of
        that name. Not used for the other formats.

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
    # The shortest decimals that give the same float32: half as long as those of float64.
    decimals = vectors.astype(np.float32).astype(str)
    return b"".join(
        _as_line(record | {FIELD: list(map(float, row))})
        for record, row in zip(records, decimals.tolist(), strict=True)
    )


def _as_line(record: dict[str, Any]) -> bytes:
    return (as_codes(json.dumps(record, ensure_ascii=False)) + "\n").encode()
