"""Interventions: named intermediates of a pass are replaced while it runs.

What is at a name is replaced, and the pass goes on with what replaces it: x ← f(x). The gradient passes through f where
f is made of layers, and stops where an array takes the place of x.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from nezha_np.arrays import Array, as_array, asarray_like, is_array, namespace, refuse_masked
from nezha_np.mechanism.patterns import STARS, matches

SCOPE = "intervention"  # what the names of the layers of a function begin with, below the name that it replaces


class Intervention:
    """What replaces the arrays whose names fit a pattern.

    Parameters
    ----------
    pattern : str
        The pattern.
    change : callable or array_like
        A function of the array, or what stands in its place.
    stop_gradient : bool
        Whether the gradient stops at the result of a function too.

    Attributes
    ----------
    acted : bool
        Whether a name of a pass has fitted.
    """

    def __init__(self, pattern: str, change: Any, *, stop_gradient: bool = False) -> None:
        self.pattern, self.change = pattern, change
        self.stops_gradient = stop_gradient or not callable(change)
        self.acted = False

    def fits(self, name: str) -> bool:
        """Say whether it acts at a name.

        Parameters
        ----------
        name : str
            A full name.

        Returns
        -------
        bool
            Whether the pattern fits.
        """
        return matches(name, (self.pattern,))

    def replace(self, name: str, array: Array) -> Array:
        """Make what the pass goes on with.

        Parameters
        ----------
        name : str
            The full name of the array.
        array : array
            The array.

        Returns
        -------
        array
            An array of the same shape, dtype and library; the array itself where a function returns it.

        Raises
        ------
        TypeError
            If a function does not return an array of this library.
        ValueError
            If the shape is another one.
        """
        self.acted = True
        if callable(self.change):
            result = as_array(self.change(array))
            if not is_array(result) or type(result) is not type(array):
                raise TypeError(
                    f"intervene: expected the function of {self.pattern!r} to return an array like the one that it "
                    f"got, {type(array).__name__}, at {name}, got {type(result).__name__}"
                )
            fits = tuple(result.shape) == tuple(array.shape)
        else:
            refuse_masked("intervene", self.change)
            result = asarray_like(array, self.change, array.dtype)
            fits = _broadcasts(tuple(result.shape), tuple(array.shape))
            result = namespace(array).zeros_like(array) + result if fits else result
        if not fits:
            raise ValueError(
                f"intervene: expected an array of shape {tuple(array.shape)} for {self.pattern!r} at {name}, "
                f"got {tuple(result.shape)}"
            )
        return result if result.dtype == array.dtype else namespace(array).astype(result, array.dtype)


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of a shape can be repeated along its axes to make one of another shape."""
    return len(shape) <= len(target) and all(
        size in (1, wanted) for size, wanted in zip(reversed(shape), reversed(target), strict=False)
    )


@functools.lru_cache(maxsize=4096)
def _beginning(pattern: str) -> re.Pattern[str]:
    """Compile a pattern into an expression that fits each beginning of a name that the pattern fits."""
    tokens = [token for part in STARS.split(pattern) for token in ([part] if STARS.fullmatch(part) else part)]
    expressions = [{"**": ".*", "*": "[^./]*"}.get(token) or re.escape(token) for token in tokens]
    return re.compile("".join(f"(?:{one}" for one in expressions) + ")?" * len(expressions), re.DOTALL)


def may_fit_below(pattern: str, prefix: str) -> bool:
    """Say whether a pattern may fit a composite's own name, or one of those in its scope.

    Parameters
    ----------
    pattern : str
        The pattern.
    prefix : str
        The prefix of the composite's view: ``encoder.layer.0.``.

    Returns
    -------
    bool
        Whether some name that begins so fits.

    Examples
    --------
    >>> prefixes = "encoder.", "encoder.layer.1.", "encoder.layer.2."
    >>> [may_fit_below("encoder.*.1.**.probs", prefix) for prefix in prefixes]
    [True, True, False]
    >>> may_fit_below("encoder.layer.1", "encoder.layer.1."), may_fit_below("**", "embeddings.")
    (True, True)
    """
    return matches(prefix.removesuffix("."), (pattern,)) or _beginning(pattern).fullmatch(prefix) is not None


_active: ContextVar[tuple[Intervention, ...]] = ContextVar("nezha_np_interventions", default=())


def active_interventions() -> tuple[Intervention, ...]:
    """Return the interventions of the blocks that this is inside of.

    Returns
    -------
    tuple of Intervention
        Those of the outermost block first.
    """
    return _active.get()


@contextmanager
def intervening(interventions: tuple[Intervention, ...]) -> Iterator[None]:
    """Make interventions active inside the block, after those that are.

    Parameters
    ----------
    interventions : tuple of Intervention
        The interventions.

    Yields
    ------
    None
        Nothing.
    """
    token = _active.set((*_active.get(), *interventions))
    try:
        yield
    finally:
        _active.reset(token)
