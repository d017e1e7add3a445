"""Sines and cosines in the arrangements that tables of positions have."""

from __future__ import annotations

import numpy as np


def frequencies(size: int, base: float = 10000.0) -> np.ndarray:
    """1 / 10000^(2i/D), or of another base."""
    numbers: np.ndarray = base ** (-np.arange(0, size, 2) / size)
    return numbers


def interleaved(angle: np.ndarray, *, cosine_first: bool = False) -> np.ndarray:
    """Sine and cosine in turn: sin, cos, sin, cos, …."""
    pair = (np.cos(angle), np.sin(angle)) if cosine_first else (np.sin(angle), np.cos(angle))
    return np.stack(pair, axis=-1).reshape(*angle.shape[:-1], -1)


def halves(angle: np.ndarray, *, cosine_first: bool = False) -> np.ndarray:
    """All sines, then all cosines."""
    pair = (np.cos(angle), np.sin(angle)) if cosine_first else (np.sin(angle), np.cos(angle))
    return np.concatenate(pair, axis=-1)
