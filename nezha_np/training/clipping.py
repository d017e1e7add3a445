"""Clipping by the global norm (Pascanu, Mikolov and Bengio 2013; tf.clip_by_global_norm).

    ‖g‖ = √(Σ over all tensors of the squares of all elements)        g ← g · c / max(‖g‖, c)

All gradients are shortened by one factor, so the direction stays. BERT and NEZHA clip to c = 1 before the step.
"""

from __future__ import annotations

from collections.abc import Mapping

from nezha_np.arrays import Array, in_statistics_dtype, namespace, own_memory
from nezha_np.checks import check_finite
from nezha_np.mechanism.layer import sweep


def global_norm(gradients: Mapping[str, Array]) -> Array:
    """Return the norm of all gradients together.

    Parameters
    ----------
    gradients : mapping of str to float array
        The gradients by name; at least one.

    Returns
    -------
    () float array
        The norm, in float32 at least. It is not finite where one of the gradients is not.

    Raises
    ------
    ValueError
        If there is no gradient.

    Examples
    --------
    >>> import numpy as np
    >>> float(global_norm({"x": np.array([3.0]), "y": np.array([4.0])}))
    5.0
    """
    if not gradients:
        raise ValueError("gradients: expected one at least, got none")
    squares = []
    for name in sorted(gradients):  # one order of the sum, and so the same bits, whatever order the mapping has
        squares.append(sum_of_squares(in_statistics_dtype(gradients[name])))
    xp = namespace(squares[0])
    return xp.sqrt(xp.sum(xp.stack(squares)))


def sum_of_squares(x: Array) -> Array:
    """Σ x², added up in the order of the indices.

    A sum's last bits depend on its order. NumPy's own order is that of the memory: of two equal arrays, one by rows and
    one by columns, the sums differ.

    Parameters
    ----------
    x : float array
        The array, of any shape.

    Returns
    -------
    () float array
        The sum, in x's dtype.

    Examples
    --------
    >>> import numpy as np
    >>> float(sum_of_squares(np.array([[3.0], [4.0]])))
    25.0
    """
    xp = namespace(x)
    in_order = xp.reshape(x, (-1,))
    return xp.sum(in_order * in_order)


def clip_by_global_norm(
    gradients: Mapping[str, Array], most: float = 1.0, *, donate: bool = False
) -> tuple[dict[str, Array], Array]:
    """Shorten all gradients by one factor, where their global norm is larger than `most`.

    Parameters
    ----------
    gradients : mapping of str to float array
        The gradients by name.
    most : float
        c, the largest norm.
    donate : bool
        Whether the caller gives the gradients away: they may be shortened in place, as by an optimiser's ``donate``.

    Returns
    -------
    gradients : dict of str to float array
        The clipped gradients; as they were where the norm is not finite: whoever trains skips that step.
    norm : () float array
        The norm before.

    Raises
    ------
    ValueError
        If there is no gradient, or `most` is not a finite number from 0 on.

    Examples
    --------
    >>> import numpy as np
    >>> clipped, norm = clip_by_global_norm({"x": np.array([3.0]), "y": np.array([4.0])})
    >>> clipped["x"], float(norm)
    (array([0.6]), 5.0)
    """
    check_finite("most", most)
    norm = global_norm(gradients)
    xp = namespace(norm)
    too_long = (norm > most) & xp.isfinite(norm)
    factor = xp.where(too_long, most / xp.where(too_long, norm, xp.ones_like(norm)), xp.ones_like(norm))
    clipped = {}
    own = own_memory(list(gradients.values())) if donate else [False] * len(gradients)
    for (name, gradient), writable in zip(gradients.items(), own, strict=True):
        clipped[name] = _shorten(gradient, factor, gradient if writable else None)
    return clipped, norm


def _shorten(gradient: Array, factor: Array, out: Array | None) -> Array:
    def shortened(g: Array) -> tuple[Array]:
        return (namespace(g).astype(in_statistics_dtype(g) * factor, g.dtype, copy=False),)

    return sweep(shortened, gradient, out=(out,))[0]
