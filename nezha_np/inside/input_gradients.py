"""Which tokens the loss depends on: gradient × input, and integrated gradients.

With x_j the word embedding of token j, F the loss and x′ a baseline, a text that says nothing:

    gradient × input:      a_j = Σ_h x_jh · ∂F(x) / ∂x_jh
    integrated gradients:  a_j = Σ_h (x − x′)_jh · ∫₀¹ ∂F(x′ + α (x − x′)) / ∂x_jh dα

The second has what its authors call completeness: Σ_j a_j = F(x) − F(x′) (Sundararajan, Taly & Yan 2017, "Axiomatic
attribution for deep networks", https://arxiv.org/abs/1703.01365). The integral is taken by Gauss and Legendre's rule.

Dimension letters: B batch, L length, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import Array, asarray_like, to_numpy
from nezha_np.checks import check_integer
from nezha_np.layers.embedding import embedding
from nezha_np.mechanism import value_and_grad
from nezha_np.weights.weights import Weights

WORDS = "embeddings.word_embeddings.weight"


def gradient_times_input(head: Callable[..., Any], weights: Weights, input_ids: Any, **inputs: Any) -> np.ndarray:
    """Multiply the gradient of the loss with each token's word embedding.

    Parameters
    ----------
    head : callable
        A head with a loss: ``nz.masked_lm``.
    weights : Weights
        The weights.
    input_ids : (B, L) array_like of int
        The ids of the tokens.
    **inputs
        The other arguments of the head, labels among them.

    Returns
    -------
    (B, L) float64 array
        By how much each token makes the loss larger, to first order.

    Examples
    --------
    >>> import nezha_np as nz
    >>> labels = [[-100, -100, 427, -100]]
    >>> nz.inside.gradient_times_input(nz.masked_lm, nz.load(), [[2, 318, 4, 3]], labels=labels).shape
    (1, 4)
    """
    words = _word_embeddings(weights, input_ids)
    return _sum_of_features(words, _gradient_at(head, weights, words, inputs))


def integrated_gradients(
    head: Callable[..., Any],
    weights: Weights,
    input_ids: Any,
    *,
    baseline_ids: Any,
    points: int = 32,
    **inputs: Any,
) -> np.ndarray:
    """Integrate the gradient of the loss along the straight way from a baseline's word embeddings to the text's.

    Parameters
    ----------
    head : callable
        A head with a loss.
    weights : Weights
        The weights.
    input_ids : (B, L) array_like of int
        The ids of the tokens.
    baseline_ids : (B, L) array_like of int
        The ids of the baseline: the text with [MASK] or [PAD] in place of what is asked about.
    points : int, optional
        At how many points of the way the gradient is taken, a pass and a walk back each.
    **inputs
        The other arguments of the head, labels among them.

    Returns
    -------
    (B, L) float64 array
        What each token adds to the loss; the sum is the loss of the text less that of the baseline.

    Raises
    ------
    TypeError, ValueError
        If `points` is not an integer of at least 1, or the baseline has another shape than the text.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights, labels = nz.load(), [[-100, -100, 427, -100]]
    >>> added = nz.inside.integrated_gradients(
    ...     nz.masked_lm, weights, [[2, 318, 4, 3]], baseline_ids=[[2, 4, 4, 3]], labels=labels
    ... )
    >>> loss, without = (nz.masked_lm(weights, [[2, word, 4, 3]], labels=labels).loss for word in (318, 4))
    >>> abs(float(added.sum() - (loss - without))) < 1e-4
    True
    """
    check_integer("points", points, least=1)
    words, baseline = (_word_embeddings(weights, ids) for ids in (input_ids, baseline_ids))
    if words.shape != baseline.shape:
        expected, got = tuple(words.shape[:2]), tuple(baseline.shape[:2])
        raise ValueError(f"baseline_ids: expected the shape {expected} of input_ids, got {got}")
    nodes, shares = np.polynomial.legendre.leggauss(points)  # on the way from −1 to 1
    mean = np.zeros(words.shape)
    for node, share in zip(nodes, shares, strict=True):
        alpha = float(node + 1.0) / 2.0
        mean += share / 2.0 * _gradient_at(head, weights, baseline + alpha * (words - baseline), inputs)
    return _sum_of_features(words - baseline, mean)


def _word_embeddings(weights: Weights, ids: Any) -> Array:
    """Look up the word embeddings of ids: (B, L) -> (B, L, E)."""
    return embedding(asarray_like(weights[WORDS], ids, "int64"), weights[WORDS])


def _gradient_at(head: Callable[..., Any], weights: Weights, words: Array, inputs: Mapping[str, Any]) -> np.ndarray:
    """Return the gradient of the loss with respect to vectors in place of the word embeddings."""
    _, gradients = value_and_grad(head, intermediates=True)(weights, inputs_embeds=words, **inputs)
    return _in_float64(gradients["inputs_embeds"])


def _sum_of_features(words: Array, gradient: np.ndarray) -> np.ndarray:
    """Multiply vectors and their gradients: (B, L, E) -> (B, L)."""
    found: np.ndarray = np.sum(_in_float64(words) * gradient, axis=-1)
    return found


def _in_float64(array: Array) -> np.ndarray:
    return to_numpy(array).astype(np.float64)
