"""Numbers that were rounded to a narrower dtype than the port computes in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nezha_np.oracle.mistakes.mistake import Evidence, Ways
from nezha_np.oracle.rounding import ARITHMETICS, rounded

HALF = ("float16", "bfloat16")


def narrow(x: np.ndarray, dtype: str) -> np.ndarray:
    """Round to a dtype."""
    return rounded(x, ARITHMETICS[dtype])


def recognise_rounding(evidence: Evidence, make: Callable[[str], np.ndarray]) -> Ways:
    """Recognise results that all are numbers of a narrow dtype, and within a few units of what is made in it.

    Where a number lies between two of the dtype, the port may round to either: so they are not the same. A number of
    bfloat16 is one of float16 too, and not the other way round: so bfloat16 is asked first.
    """
    theirs, largest = evidence.theirs, float(np.abs(evidence.right).max())
    for dtype in reversed(HALF):
        unit = ARITHMETICS[dtype].epsilon
        if evidence.allowed > largest * unit / 8.0 or (narrow(theirs, dtype) != theirs).any():
            continue
        made = make(dtype)
        if (np.abs(theirs - made) <= 4.0 * unit * np.abs(made) + 1e-7).all():
            return evidence.replace_result(theirs, f"in {dtype}")
    return {}
