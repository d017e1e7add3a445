"""What a head is for: the answer without it.

The context that head h of a layer has fetched, c_h = Σ_j prob_h(i, j) v_j, is replaced

    by zero:  c_h ← 0
    by mean:  c_h ← the mean of c_h over all tokens of some texts

and the rest of the pass goes on. By zero the layers after it get numbers that they never met in training; by the mean
they get what the head says of any text, and lack what it says of this one (Michel, Levy & Neubig 2019, "Are sixteen
heads really better than one?", https://arxiv.org/abs/1905.10650; Wang et al. 2022, "Interpretability in the wild",
https://arxiv.org/abs/2211.00593, appendix on mean ablation).

Dimension letters: B batch, L length, N heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import Array, asarray_like, device_of, is_array, namespace, to_numpy
from nezha_np.inside.head_importance import heads_of_layers
from nezha_np.mechanism import intervene, trace
from nezha_np.weights.weights import Weights

Metric = Callable[[Any], Any]  # of what a head returns: one number, or one for each text
CONTEXT = "encoder.layer.{}.attention.self.context"  # (B, N, L, D)


def ablate_heads(
    head: Callable[..., Any],
    weights: Weights,
    inputs: Mapping[str, Any],
    metric: Metric,
    *,
    means_of: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Measure how the answer changes without each head, one at a time.

    Parameters
    ----------
    head : callable
        ``nz.masked_lm``, ``nz.forward``, any head.
    weights : Weights
        The weights.
    inputs : mapping of str to object
        The arguments of the head.
    metric : callable
        Takes what the head returns, and returns a number, or one for each text, whose mean is taken.
    means_of : mapping of str to object, optional
        The arguments of the head for texts whose mean context takes the place of a head's. Padding tokens, where its
        ``attention_mask`` has 0, are left out of the mean. None: zero does.

    Returns
    -------
    (layers, N) float64 array
        The metric without the head, less the metric with it.

    Raises
    ------
    ValueError
        If the layers do not have equally many heads because some were pruned.

    Examples
    --------
    >>> import nezha_np as nz
    >>> inputs = {"input_ids": [[2, 318, 4, 3]]}
    >>> changes = nz.inside.ablate_heads(nz.masked_lm, nz.load(), inputs, lambda out: out.logits[:, 2, 427])
    >>> changes.shape
    (4, 8)
    """
    counts = heads_of_layers(weights)
    with_all = measured(metric, head(weights, **inputs))
    means = [None] * len(counts) if means_of is None else _mean_contexts(head, weights, means_of, len(counts))
    found = np.zeros((len(counts), counts[0]))
    for layer, mean in enumerate(means):
        for number in range(counts[layer]):
            with intervene({CONTEXT.format(layer): without_head(number, mean)}):
                found[layer, number] = measured(metric, head(weights, **inputs)) - with_all
    return found


def without_head(number: int, mean: Array | None = None) -> Callable[[Array], Array]:
    """Make a function for `nezha_np.intervene` that replaces what one head has fetched.

    Parameters
    ----------
    number : int
        The head.
    mean : (N, 1, D) float array, optional
        What takes its place; None: zero.

    Returns
    -------
    callable
        From a context (B, N, L, D) to another one.

    Examples
    --------
    >>> import numpy as np
    >>> without_head(1)(np.ones((1, 2, 1, 1))).ravel()
    array([1., 0.])
    """

    def change(context: Array) -> Array:
        xp = namespace(context)
        is_head = (xp.arange(context.shape[1], device=device_of(context)) == number)[:, None, None]  # (N, 1, 1)
        return xp.where(is_head, xp.zeros_like(context) if mean is None else asarray_like(context, mean), context)

    return change


def measured(metric: Metric, out: Any) -> float:
    """Take a metric of what a head returned: the mean, where it has a number for each text.

    Parameters
    ----------
    metric : callable
        The metric.
    out : object
        What the head returned.

    Returns
    -------
    float
        The number.

    Raises
    ------
    ValueError
        If the metric returns an array of more than one axis.

    Examples
    --------
    >>> import numpy as np
    >>> measured(lambda out: out, np.array([1.0, 3.0]))
    2.0
    """
    found = metric(out)
    values = to_numpy(found) if is_array(found) else np.asarray(found)
    if values.ndim > 1:
        raise ValueError(f"metric: expected it to return a number or one for each text, got shape {values.shape}")
    return float(values.astype(np.float64).mean())


def _mean_contexts(
    head: Callable[..., Any], weights: Weights, inputs: Mapping[str, Any], layers: int
) -> list[np.ndarray]:
    """Average the contexts of each layer over the tokens that are not padding: (N, 1, D) each."""
    with trace(output=CONTEXT.format("*")) as t:
        head(weights, **inputs)
    contexts = [to_numpy(t[CONTEXT.format(layer)]).astype(np.float64) for layer in range(layers)]
    batch, _, length, _ = contexts[0].shape
    mask = np.asarray(inputs.get("attention_mask", np.ones((batch, length))))
    token = np.broadcast_to(mask != 0, (batch, length))[:, None, :, None]  # (B, 1, L, 1)
    return [np.sum(context * token, axis=(0, 2))[:, None, :] / token.sum() for context in contexts]
