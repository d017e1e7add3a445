"""Which part of a pass makes its answer: activations of one text are put into the pass of another one.

Two texts of one length differ where it matters, and the model answers them differently: m(clean), m(corrupted). A part
x of the corrupted pass is replaced by that of the clean one. How much of the answer comes back with it is

    r(x) = (m(corrupted with clean x) − m(corrupted)) / (m(clean) − m(corrupted))

0 where x does not matter, 1 where it is all that does (Vig et al. 2020, "Investigating gender bias in language models
using causal mediation analysis", https://arxiv.org/abs/2004.12265; Meng et al. 2022, "Locating and editing factual
associations in GPT", https://arxiv.org/abs/2202.05262).

By which way it matters is asked by a second pass: what the sender changes at one receiver alone, while all other heads
stay as in the corrupted pass, is put into the corrupted pass (Wang et al. 2022, "Interpretability in the wild",
https://arxiv.org/abs/2211.00593).

Dimension letters: B batch, L length, N heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import Array, device_of, namespace
from nezha_np.inside.ablation import CONTEXT, Metric, measured
from nezha_np.mechanism import Trace, intervene, trace
from nezha_np.weights.weights import Weights

Change = Callable[[Array], Array]


def patch_activations(
    head: Callable[..., Any],
    weights: Weights,
    clean: Mapping[str, Any],
    corrupted: Mapping[str, Any],
    metric: Metric,
    *,
    names: str = "encoder.layer.*",
) -> dict[str, np.ndarray]:
    """Put each token's activations of a clean pass into a corrupted one, one layer and one position at a time.

    Parameters
    ----------
    head : callable
        ``nz.masked_lm``, ``nz.forward``, any head.
    weights : Weights
        The weights.
    clean, corrupted : mapping of str to object
        The arguments of the head for both, arrays of the same shapes.
    metric : callable
        Takes what the head returns, and returns a number, or one for each text, whose mean is taken.
    names : str, optional
        A pattern of the activations, arrays of shape (B, L, …), or (B, N, L, …) in attention.

    Returns
    -------
    dict of str to (L,) float64 array
        By name, for each position: which part of the clean answer comes back.

    Raises
    ------
    ValueError
        If the answers to both are the same, or the activations have other shapes.

    Examples
    --------
    >>> import nezha_np as nz
    >>> clean, corrupted = {"input_ids": [[2, 318, 4, 3]]}, {"input_ids": [[2, 427, 4, 3]]}
    >>> back = nz.inside.patch_activations(
    ...     nz.masked_lm, nz.load(), clean, corrupted, lambda out: out.logits[:, 2, 5]
    ... )
    >>> list(back)[0], back["encoder.layer.0"].shape
    ('encoder.layer.0', (4,))
    """
    activations, best = _pass(head, weights, clean, metric, names)
    others, worst = _pass(head, weights, corrupted, metric, names)
    _check_answers(best, worst)
    found = {}
    for name, array in activations.items():
        if array.shape != others[name].shape or array.ndim < 3:
            shapes = f"{tuple(array.shape)} and {tuple(others[name].shape)}"
            raise ValueError(f"names: expected arrays (B, L, …) of one shape in both passes, got {shapes} for {name}")
        length = array.shape[_axis_of_tokens(array)]
        found[name] = np.zeros(length)
        for position in range(length):
            with intervene({name: patch_position(array, position)}):
                found[name][position] = (measured(metric, head(weights, **corrupted)) - worst) / (best - worst)
    return found


def patch_path(
    head: Callable[..., Any],
    weights: Weights,
    clean: Mapping[str, Any],
    corrupted: Mapping[str, Any],
    metric: Metric,
    *,
    sender: tuple[int, int],
    receiver: str,
) -> float:
    """Measure how much one head matters by what one later activation reads of it.

    Parameters
    ----------
    head, weights, clean, corrupted, metric
        As for `patch_activations`.
    sender : (int, int)
        The layer and the number of the head whose context is that of the clean pass.
    receiver : str
        The name of an activation after it, ``encoder.layer.3.attention.self.q`` for example. Between the two all other
        heads stay as in the corrupted pass.

    Returns
    -------
    float
        Which part of the clean answer comes back by this way.

    Raises
    ------
    ValueError
        If the answers to both are the same, or no pass makes an array of the receiver's name.

    Examples
    --------
    >>> import nezha_np as nz
    >>> clean, corrupted = {"input_ids": [[2, 318, 4, 3]]}, {"input_ids": [[2, 427, 4, 3]]}
    >>> back = nz.inside.patch_path(
    ...     nz.masked_lm, nz.load(), clean, corrupted, lambda out: out.logits[:, 2, 5],
    ...     sender=(0, 1), receiver="encoder.layer.3.attention.self.v",
    ... )
    >>> isinstance(back, float)
    True
    """
    contexts = CONTEXT.format("*")
    activations, best = _pass(head, weights, clean, metric, contexts)
    others, worst = _pass(head, weights, corrupted, metric, contexts)
    _check_answers(best, worst)
    layer, number = sender
    name = CONTEXT.format(layer)
    if name not in activations:
        raise ValueError(f"sender: expected a layer from 0 to {len(activations) - 1}, got {layer}")
    changes: dict[str, Any] = dict(others)
    changes[name] = patch_head(activations[name], number)
    with intervene(changes), trace(output=receiver) as t:
        head(weights, **corrupted)
    if receiver not in t:
        raise ValueError(f"receiver: expected the name of an array of the pass, got {receiver!r}")
    with intervene({receiver: t[receiver]}):
        return (measured(metric, head(weights, **corrupted)) - worst) / (best - worst)


def patch_position(source: Array, position: int) -> Change:
    """Make a function for `nezha_np.intervene` that takes one token's vectors from another pass.

    Parameters
    ----------
    source : (B, L, …) or (B, N, L, D) float array
        The activation in the other pass.
    position : int
        The token.

    Returns
    -------
    callable
        From an activation to another one.

    Examples
    --------
    >>> import numpy as np
    >>> patch_position(np.ones((1, 3, 1)), 1)(np.zeros((1, 3, 1))).ravel()
    array([0., 1., 0.])
    """
    return _patch(source, position, _axis_of_tokens(source))


def patch_head(source: Array, number: int) -> Change:
    """Make a function for `nezha_np.intervene` that takes one head's vectors from another pass.

    Parameters
    ----------
    source : (B, N, L, D) float array
        The activation in the other pass.
    number : int
        The head.

    Returns
    -------
    callable
        From an activation to another one.

    Examples
    --------
    >>> import numpy as np
    >>> patch_head(np.ones((1, 2, 1, 1)), 1)(np.zeros((1, 2, 1, 1))).ravel()
    array([0., 1.])
    """
    return _patch(source, number, 1)


def _patch(source: Array, index: int, axis: int) -> Change:
    def change(x: Array) -> Array:
        xp = namespace(x)
        shape = [1] * x.ndim
        shape[axis] = x.shape[axis]
        chosen = xp.reshape(xp.arange(x.shape[axis], device=device_of(x)) == index, tuple(shape))
        return xp.where(chosen, source, x)

    return change


def _axis_of_tokens(array: Array) -> int:
    return 2 if array.ndim == 4 else 1


def _pass(
    head: Callable[..., Any], weights: Weights, inputs: Mapping[str, Any], metric: Metric, names: str
) -> tuple[Trace, float]:
    """Run a head: the activations whose names fit, and the answer."""
    with trace(output=names) as t:
        out = head(weights, **inputs)
    if not t:
        raise ValueError(f"names: expected a pattern of names of the pass, got {names!r}, which fits none")
    return t, measured(metric, out)


def _check_answers(best: float, worst: float) -> None:
    if best == worst:
        raise ValueError(f"corrupted: expected texts that the model answers otherwise than the clean ones, got {worst}")
