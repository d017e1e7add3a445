"""Gradient accumulation: the gradient of a batch that does not fit into memory, from the gradients of its parts.

    g = Σᵢ nᵢ gᵢ / Σᵢ nᵢ

The loss of part i is a mean over nᵢ labelled tokens (or nᵢ texts). So the mean over the whole batch weighs each part by
what it counts. The plain mean of the gᵢ is the gradient of another loss wherever the nᵢ differ, as they do where tokens
are masked at random.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nezha_np.arrays import Array, in_statistics_dtype


def mean_gradients(parts: Iterable[tuple[Mapping[str, Array], float]]) -> dict[str, Array]:
    """Return the gradients of a whole batch from those of its parts.

    Parameters
    ----------
    parts : iterable of (mapping of str to float array, float)
        For each part its gradients by name, and n, what its loss is a mean over: the number of its labels, for most
        losses. The parts may be made one after another: only their sum is held.

    Returns
    -------
    dict of str to float array
        The gradients of the mean loss, in float32 at least. A name that a part does not have counts as zero there.

    Raises
    ------
    ValueError
        If no part has labels.

    Examples
    --------
    >>> import numpy as np
    >>> mean_gradients([({"x": np.array([1.0])}, 3), ({"x": np.array([5.0])}, 1)])
    {'x': array([2.])}
    """
    total: dict[str, Array] = {}
    count = 0.0
    for gradients, n in parts:
        count += n
        if n > 0:  # the loss of a part without labels is a mean over nothing, NaN
            for name, gradient in gradients.items():
                part = n * in_statistics_dtype(gradient)
                total[name] = part if name not in total else total[name] + part
    if count <= 0:
        raise ValueError("parts: expected one with labels at least, got none")
    return {name: gradient / count for name, gradient in total.items()}
