"""NEZHA's saved position tables: some files hold a table for each layer, though it is computed.

A saved table has for each query and key a vector, (L, L, D), which depends on their distance alone: so its first row
and its last hold every vector. The rows are compared with the table that the model computes. One that differs was made
with another K, or by another formula, and the file is refused; so no model is silently another than the one saved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nezha_np.families.family import SavedTensor
from nezha_np.layers.relative_position import relative_position_table

SAVED_TABLES = "**.relative_positions_encoding.positions_encoding"
# The reference computes its tables in float32: an angle of up to 2K radians is off by some units in its last place.
ANGLE_ERROR = 2.0**-22
ROUNDING = {"F64": 0.0, "F32": 0.0, "F16": 2.0**-11, "BF16": 2.0**-8}  # of numbers up to 1
MOST_DISTANCES = 1024  # the largest K that is tried, to say which one a table was made with


def check_saved_table(name: str, saved: SavedTensor, config: Any) -> None:
    """Refuse a saved table of relative positions that is not the one which the model computes.

    Parameters
    ----------
    name : str
        The name of the tensor in its file.
    saved : SavedTensor
        The table.
    config : NezhaConfig
        The configuration.

    Raises
    ------
    ValueError
        If its shape or its numbers are those of another table; the message says which K would fit, if any does.
    """
    size, reach = config.head_size, config.max_relative_position
    length = saved.shape[0] if saved.shape else 0
    if saved.shape != (length, length, size) or not length or saved.dtype not in ROUNDING:
        raise ValueError(
            f"expected a table of relative positions of shape (length, length, {size}), as "
            f"hidden_size / num_attention_heads in config.json says, got {saved.dtype} {saved.shape} for {name}"
        )
    rows = {query: saved.read(query) for query in (0, length - 1)}
    difference = largest_difference(rows, size, reach)
    if not difference <= allowed_difference(reach, saved.dtype):  # written so that NaN is refused too
        fitting = _fitting_reach(rows, size, saved.dtype)
        advice = "what made this file computes positions in another way"
        if fitting is not None:
            advice = f'it is that of "max_relative_position": {fitting}, which belongs into config.json'
        raise ValueError(
            f"expected the table of relative positions for max_relative_position {reach}, got another "
            f"for {name}, with a largest difference of {difference:.3g}: {advice}"
        )


def allowed_difference(reach: int, dtype: str) -> float:
    """Return how far a table with this K, saved in this dtype, may be from the one in float64.

    Examples
    --------
    >>> allowed_difference(64, "F32") < 1e-4 < allowed_difference(64, "F16")
    True
    """
    return (2 * reach + 1) * ANGLE_ERROR + ROUNDING[dtype]


def largest_difference(rows: Mapping[int, np.ndarray], size: int, reach: int) -> float:
    """Return the largest difference of saved rows, (L, D) by query, from those of a table with this K.

    Examples
    --------
    >>> table = relative_position_table(np.zeros(1), head_size=4, max_relative_position=2)
    >>> largest_difference({0: table[[2, 3, 4, 4]]}, 4, 2)  # the distances 0, 1, 2 and 3, which is clipped to 2
    0.0
    """
    table: Any = relative_position_table(np.zeros(1), head_size=size, max_relative_position=reach)
    differences = []
    for query, row in rows.items():
        distance = np.clip(np.arange(len(row)) - query, -reach, reach)
        differences.append(float(np.max(np.abs(row - table[distance + reach]))))
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def _fitting_reach(rows: Mapping[int, np.ndarray], size: int, dtype: str) -> int | None:
    """Find the K that a table was made with: at distance 0 stands row K of the table."""
    table: Any = relative_position_table(np.zeros(1), head_size=size, max_relative_position=MOST_DISTANCES)
    near = np.abs(table[1 : MOST_DISTANCES + 1] - rows[0][0]).max(axis=-1)
    reach = int(np.argmin(near)) + 1
    return reach if largest_difference(rows, size, reach) <= allowed_difference(reach, dtype) else None
