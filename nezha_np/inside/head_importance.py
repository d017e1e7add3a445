"""How much the loss depends on each head.

With a factor ξ_h on the probabilities of head h, 1 in a pass as it is:

    I_h = E_x |∂L(x) / ∂ξ_h|

the expectation over texts (Michel, Levy & Neubig 2019, "Are sixteen heads really better than one?",
https://arxiv.org/abs/1905.10650, section 4.1). It is the slope at 1 of what happens at 0, where the head is off
(`ablate_heads`), and one walk back gives it for all heads.

Dimension letters: N heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.mechanism import value_and_grad
from nezha_np.weights.weights import Weights


def head_importance(
    head: Callable[..., Any], weights: Weights, texts: Iterable[Mapping[str, Any]], *, normalize: bool = False
) -> np.ndarray:
    """Average over texts how steeply the loss changes with the factor of each head.

    Parameters
    ----------
    head : callable
        A head with a loss: ``nz.masked_lm``.
    weights : Weights
        The weights.
    texts : iterable of mapping
        For each text the arguments of the head, its labels among them: batches of one. Of a larger batch the loss is
        one mean, within which the texts' slopes may cancel.
    normalize : bool, optional
        Whether to divide the importances of each layer by their root of the sum of squares, as the authors do.

    Returns
    -------
    (layers, N) float64 array
        The importances.

    Raises
    ------
    ValueError
        If there are no texts, or the layers do not have equally many heads because some were pruned.

    Examples
    --------
    >>> import nezha_np as nz
    >>> text = {"input_ids": [[2, 318, 4, 3]], "labels": [[-100, -100, 427, -100]]}
    >>> nz.inside.head_importance(nz.masked_lm, nz.load(), [text]).shape
    (4, 8)
    """
    counts = heads_of_layers(weights)
    shape = len(counts), counts[0]
    run, total, number = value_and_grad(head, intermediates=True), np.zeros(shape), 0
    for text in texts:
        _, gradients = run(weights, **text, head_mask=np.ones(shape))
        total += np.abs([to_numpy(gradients[f"head_mask.{layer}"]).astype(np.float64) for layer in range(shape[0])])
        number += 1
    if not number:
        raise ValueError("texts: expected one at least, got none")
    found = total / number
    sizes = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.where(sizes == 0.0, 1.0, sizes) if normalize else found


def heads_of_layers(weights: Weights) -> list[int]:
    """Return how many heads each layer has.

    Parameters
    ----------
    weights : Weights
        The weights.

    Returns
    -------
    list of int
        The number of heads of each layer.

    Raises
    ------
    ValueError
        If they differ, because heads of some layers were pruned.

    Examples
    --------
    >>> import nezha_np as nz
    >>> heads_of_layers(nz.load())
    [8, 8, 8, 8]
    """
    config = weights.config
    queries = [weights[f"encoder.layer.{layer}.attention.self.query.bias"] for layer in range(config.num_hidden_layers)]
    counts = [bias.shape[0] // config.head_size for bias in queries]
    if len(set(counts)) > 1:
        raise ValueError(f"weights: expected layers of equally many heads, got {counts}: some were pruned")
    return counts
