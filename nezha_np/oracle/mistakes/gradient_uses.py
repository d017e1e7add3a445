"""An array that is used in several places gets a gradient from each: one of them left out, or counted otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from nezha_np.mechanism import Layer
from nezha_np.mechanism.patterns import matches
from nezha_np.oracle.mistakes.mistake import ENOUGH, Mistake, mistake
from nezha_np.oracle.replay import Changes, Step

GRADIENT_USES: list[Mistake] = []
FACTORS = {0.0: "nothing of", 2.0: "twice", 0.5: "half of", -1.0: "minus"}
MOST_USES = 8  # whose factors are fitted together

OF_USES = mistake(
    GRADIENT_USES,
    "gradient of one of several uses",
    does="what one use of an array gives to its gradient is left out (detached, overwritten), or counted otherwise",
    right="the sum of what all its uses give",
)


class Use(NamedTuple):
    """One use of an array, and by how much its part is multiplied.

    Attributes
    ----------
    site : str
        The name of the result of the call that uses it, or a pattern of several.
    layer : layer
        What is called.
    place : int
        Which argument of the call it is.
    factor : float
        By how much its part is multiplied.
    """

    site: str
    layer: Layer
    place: int
    factor: float


def nearest(factor: float) -> float:
    """Return the plain number that is nearest to a factor."""
    return min((1.0, *FACTORS), key=lambda number: abs(number - factor))


def uses_that_make(theirs: np.ndarray, uses: Iterable[tuple[str, Layer, int, np.ndarray]]) -> tuple[Use, ...]:
    """Fit a factor to what each use gives; () where these are no plain numbers.

    Examples
    --------
    >>> from nezha_np.layers.addition import add
    >>> from nezha_np.layers.linear import linear
    >>> x, y = np.linspace(0, 1, 12), np.linspace(0, 1, 12) ** 2
    >>> [use.factor for use in uses_that_make(2 * y, [("a", add, 0, x), ("b", linear, 0, y)])]
    [0.0, 2.0]
    """
    given = list(uses)
    if not 1 < len(given) <= MOST_USES or theirs.size < ENOUGH * len(given):
        return ()
    columns = np.stack([array.ravel() for _, _, _, array in given], axis=-1)
    factors = np.linalg.lstsq(columns, theirs.ravel(), rcond=None)[0]
    plain = [nearest(float(factor)) for factor in factors]
    if len(set(plain)) == 1 or np.abs(plain - factors).max() > 0.02:
        return ()
    return tuple(
        Use(site, layer, place, factor)
        for (site, layer, place, _), factor in zip(given, plain, strict=True)
        if factor != 1.0
    )


def said_of(uses: Iterable[Use]) -> str:
    """Say in words what is left of each.

    Examples
    --------
    >>> from nezha_np.layers.linear import linear
    >>> said_of([Use("encoder.layer.0.attention.self.value", linear, 0, 0.0)])
    'nothing of what comes back through encoder.layer.0.attention.self.value'
    """
    return ", ".join(f"{FACTORS[use.factor]} what comes back through {use.site}" for use in uses)


def changes_of(uses: Iterable[Use]) -> Changes:
    """Multiply the parts of these uses."""
    every = list(uses)

    def change(step: Step, dy: Any, y: Any, *arguments: Any, **options: Any) -> Any:
        own = step.right(dy, y, *arguments, **options)
        parts = list(own) if isinstance(own, tuple) else [own]
        for use in every:
            if use.place < len(parts) and parts[use.place] is not None and matches(step.name, (use.site,)):
                parts[use.place] = use.factor * parts[use.place]
        return tuple(parts)

    return {use.layer: change for use in every}


def in_every_layer(uses: Iterable[Use], prefix: str) -> Iterator[Use]:
    """The same uses in every layer of the encoder.

    Examples
    --------
    >>> from nezha_np.layers.linear import linear
    >>> next(in_every_layer([Use("encoder.layer.0.output.dense", linear, 0, 0.0)], "encoder.layer.")).site
    'encoder.layer.*.output.dense'
    """
    for use in uses:
        rest = use.site.removeprefix(prefix)
        yield use if rest == use.site else use._replace(site=f"{prefix}*.{rest.partition('.')[2]}")
