"""A parameter's gradient is a sum over texts and tokens: some of them left out, or a mean in its place.

It is linear in dy, so each such mistake is the right gradient of another dy: zeros where something is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.span_convolution import separable_convolution
from nezha_np.mechanism import Layer
from nezha_np.oracle.mistakes.mistake import Mistake, mistake
from nezha_np.oracle.replay import Change, Step

GRADIENTS_OF_PARAMETERS: list[Mistake] = []
Rows = Callable[[Any], Any]  # of dy, another dy

of_part = mistake(
    GRADIENTS_OF_PARAMETERS,
    "gradient of a part of the batch",
    does="the gradient of a matrix, a norm's weight or a bias counts some texts or tokens alone, or none, or is a mean",
    right="the sum over all texts and tokens",
)


def kept(index: slice, axis: int) -> Rows:
    """Texts (axis 0) or tokens (axis 1) of these numbers alone."""

    def of(dy: Any) -> Any:
        if dy.ndim < axis + 2:
            raise ValueError("there is no such axis")
        chosen = np.zeros(dy.shape[axis])
        chosen[index] = 1.0
        return dy * chosen.reshape(-1, *[1] * (dy.ndim - axis - 1))

    return of


def kept_rows(index: slice) -> Rows:
    """Rows of these numbers alone, counted through all texts."""

    def of(dy: Any) -> Any:
        rows = dy.reshape(-1, dy.shape[-1])
        chosen = np.zeros((len(rows), 1))
        chosen[index] = 1.0
        return (rows * chosen).reshape(dy.shape)

    return of


def over(count: Callable[[tuple[int, ...]], int]) -> Rows:
    """Divided by how many there are: of the shape of dy without its features."""

    def of(dy: Any) -> Any:
        return dy / count(dy.shape[:-1])

    return of


ROWS: dict[str, Rows] = {
    "the first text": kept(slice(0, 1), 0),
    "the last text": kept(slice(-1, None), 0),
    "all but the first text": kept(slice(1, None), 0),
    "all but the last text": kept(slice(0, -1), 0),
    "the first token": kept(slice(0, 1), 1),
    "the last token": kept(slice(-1, None), 1),
    "all but the first token": kept(slice(1, None), 1),
    "all but the last token": kept(slice(0, -1), 1),
    "the first row": kept_rows(slice(0, 1)),
    "the last row": kept_rows(slice(-1, None)),
    "all but the first row": kept_rows(slice(1, None)),
    "all but the last row": kept_rows(slice(0, -1)),
    "the mean over texts": over(lambda shape: shape[0]),
    "the mean over tokens": over(lambda shape: shape[-1]),
    "the mean over texts and tokens": over(lambda shape: int(np.prod(shape))),
    "twice": lambda dy: 2.0 * dy,
    "none": lambda dy: 0.0 * dy,
}
# What the parameters of a layer are called, and their places among its arguments.
PARAMETERS: dict[Layer, dict[str, tuple[int, ...]]] = {
    linear: {"matrix": (1,), "bias": (2,), "matrix and bias": (1, 2)},
    layer_norm: {"norm's weight": (1,), "norm's bias": (2,), "norm's weight and bias": (1, 2)},
    grouped_linear: {"groups' matrix": (1,), "groups' bias": (2,), "groups' matrix and bias": (1, 2)},
    separable_convolution: {
        "depthwise kernel": (1,),
        "pointwise kernel": (2,),
        "convolution's bias": (3,),
        "both kernels": (1, 2),
        "both kernels and bias": (1, 2, 3),
    },
}


def at_places(places: tuple[int, ...], rows: Rows) -> Change:
    """The right gradient, that of some arguments of another dy."""

    def change(step: Step, dy: Any, y: Any, *arguments: Any, **options: Any) -> Any:
        own = step.right(dy, y, *arguments, **options)
        other = step.right(rows(dy), y, *arguments, **options)
        return tuple(other[place] if place in places else part for place, part in enumerate(own))

    return change


for layer, named in PARAMETERS.items():
    for parameters, places in named.items():
        for way, rows in ROWS.items():
            of_part.way(f"{way}, {parameters}", layer)(at_places(places, rows))
