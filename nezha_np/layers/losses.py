"""The losses (transformers: CrossEntropyLoss, MSELoss, BCEWithLogitsLoss, each with its mean).

    cross_entropy(z, y)     = mean over the labels y ≠ ignore_index of  log Σ_c exp(z_c) − z_y
    mse(p, t)               = mean of (p − t)²
    bce_with_logits(z, t)   = mean of  max(z, 0) − z t + log(1 + exp(−|z|))

They are computed in float32 at least, and return an array without axes in that dtype.

Dimension letters: C classes; ``…`` any leading axes.
"""

from __future__ import annotations

import math

from nezha_np.arrays import Array, as_array, device_of, in_statistics_dtype, namespace
from nezha_np.layers.activations import sigmoid
from nezha_np.layers.linear import flat_rows
from nezha_np.layers.softmax import softmax
from nezha_np.mechanism import gradient_of, primitive

IGNORE_INDEX = -100  # the label of a token that a loss does not count


@primitive
def cross_entropy(logits: Array, labels: Array, *, ignore_index: int = IGNORE_INDEX) -> Array:
    """Average the negative log-probability of the right class.

    Parameters
    ----------
    logits : (…, C) float array
        Scores before the softmax.
    labels : (…,) array of int
        The right classes, from 0 to ``C - 1``, or `ignore_index`.
    ignore_index : int
        The label that is left out. Over no labels at all the mean is NaN, as in the reference.

    Returns
    -------
    () float array
        The mean over the labels that count.

    Examples
    --------
    >>> import numpy as np
    >>> print(cross_entropy(np.array([[0.0, 0.0], [9.0, 0.0]]), np.array([1, -100])).round(4))  # log 2
    0.6931
    """
    xp = namespace(logits)
    counts, flat_labels = _labels_that_count(logits, labels, ignore_index)
    rows = in_statistics_dtype(flat_rows(logits))  # (n, C)
    rows = rows - xp.max(rows, axis=-1, keepdims=True)
    right = xp.take_along_axis(rows, flat_labels[:, None], axis=-1)[:, 0]  # (n)
    losses = xp.log(xp.sum(xp.exp(rows), axis=-1)) - right  # (n)
    total = xp.sum(xp.where(counts, losses, xp.zeros_like(losses)))
    return _mean_or_nan(total, _how_many(counts, total))


def _labels_that_count(logits: Array, labels: Array, ignore_index: int) -> tuple[Array, Array]:
    xp = namespace(logits)
    flat = xp.reshape(labels, (math.prod(labels.shape),))
    counts = flat != ignore_index
    return counts, xp.where(counts, flat, xp.zeros_like(flat))


def _how_many(counts: Array, total: Array) -> Array:
    return namespace(counts).sum(namespace(counts).astype(counts, total.dtype))


def _mean_or_nan(total: Array, count: Array) -> Array:
    xp = namespace(count)
    return as_array(xp.where(count == 0, xp.full_like(total, math.nan), total / _at_least_one(count)))


def _at_least_one(count: Array) -> Array:
    xp = namespace(count)
    return xp.where(count == 0, xp.ones_like(count), count)


@gradient_of(cross_entropy)
def cross_entropy_gradient(
    dloss: Array, loss: Array, logits: Array, labels: Array, *, ignore_index: int = IGNORE_INDEX
) -> Array:
    """d/dz_c of log Σ exp(z) − z_y is softmax(z)_c − [c = y]; over n labels that count each has weight 1/n, others 0.

    Over no labels at all the gradient is 0 though the loss is NaN, as in the reference.

    Parameters
    ----------
    dloss : () float array
        The gradient of what is differentiated by this loss: 1 where it is the loss itself.
    loss, logits, labels, ignore_index
        The result and the arguments of `cross_entropy`.

    Returns
    -------
    dlogits : (…, C) float array
        The gradient with respect to `logits`.
    """
    xp = namespace(logits)
    counts, flat_labels = _labels_that_count(logits, labels, ignore_index)
    probs = softmax(in_statistics_dtype(flat_rows(logits)))  # (n, C)
    classes = xp.arange(probs.shape[-1], dtype=flat_labels.dtype, device=device_of(logits))
    right = xp.astype(classes[None, :] == flat_labels[:, None], probs.dtype)  # (n, C), one-hot
    share = xp.astype(counts, probs.dtype) * (dloss / _at_least_one(_how_many(counts, probs)))  # (n)
    return xp.astype(xp.reshape((probs - right) * share[:, None], logits.shape), logits.dtype, copy=False)


@primitive
def mse(predictions: Array, targets: Array) -> Array:
    """Average the squared differences.

    Parameters
    ----------
    predictions, targets : float array
        Two arrays of the same shape.

    Returns
    -------
    () float array
        The mean over all elements.

    Examples
    --------
    >>> import numpy as np
    >>> mse(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    array(2.)
    """
    difference = in_statistics_dtype(predictions) - in_statistics_dtype(targets)
    return as_array(namespace(predictions).mean(difference * difference))


@gradient_of(mse)
def mse_gradient(dloss: Array, loss: Array, predictions: Array, targets: Array) -> Array:
    """2 (p − t) / n for n elements.

    Parameters
    ----------
    dloss : () float array
        The gradient of what is differentiated by this loss: 1 where it is the loss itself.
    loss, predictions, targets
        The result and the arguments of `mse`.

    Returns
    -------
    dpredictions : float array
        The gradient with respect to `predictions`, of their shape; targets have none.
    """
    difference = in_statistics_dtype(predictions) - in_statistics_dtype(targets)
    share = dloss * (2.0 / math.prod(predictions.shape))
    return namespace(predictions).astype(difference * share, predictions.dtype, copy=False)


@primitive
def bce_with_logits(logits: Array, targets: Array) -> Array:
    """Average the binary cross-entropy of independent labels, from scores before the sigmoid.

    Parameters
    ----------
    logits, targets : float array
        Two arrays of the same shape; targets are probabilities, most often 0 and 1.

    Returns
    -------
    () float array
        The mean over all elements.

    Examples
    --------
    >>> import numpy as np
    >>> print(bce_with_logits(np.array([0.0, 100.0]), np.array([1.0, 1.0])).round(4))  # (log 2 + 0) / 2
    0.3466
    """
    xp = namespace(logits)
    z, t = in_statistics_dtype(logits), in_statistics_dtype(targets)
    positive = xp.where(z > 0, z, xp.zeros_like(z))
    return as_array(xp.mean(positive - z * t + xp.log1p(xp.exp(-xp.abs(z)))))


@gradient_of(bce_with_logits)
def bce_with_logits_gradient(dloss: Array, loss: Array, logits: Array, targets: Array) -> Array:
    """(sigmoid(z) − t) / n for n elements.

    Parameters
    ----------
    dloss : () float array
        The gradient of what is differentiated by this loss: 1 where it is the loss itself.
    loss, logits, targets
        The result and the arguments of `bce_with_logits`.

    Returns
    -------
    dlogits : float array
        The gradient with respect to `logits`, of their shape; targets have none.
    """
    xp = namespace(logits)
    z, t = in_statistics_dtype(logits), in_statistics_dtype(targets)
    return xp.astype((sigmoid(z) - t) * (dloss * (1.0 / math.prod(logits.shape))), logits.dtype, copy=False)


@primitive
def average(x: Array, y: Array) -> Array:
    """Average the two losses of question answering, of start and end.

    Parameters
    ----------
    x, y : () float array
        The losses.

    Returns
    -------
    () float array
        ``(x + y) / 2``.

    Examples
    --------
    >>> import numpy as np
    >>> average(np.array(1.0), np.array(2.0))
    array(1.5)
    """
    return as_array((x + y) / 2.0)


@gradient_of(average)
def average_gradient(dz: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """dx = dy = dz / 2.

    Parameters
    ----------
    dz : () float array
        The gradient of the loss with respect to `z`.
    z, x, y
        The result and the arguments of `average`.

    Returns
    -------
    dx, dy : () float array
        The gradients with respect to `x` and `y`.
    """
    return dz / 2.0, dz / 2.0
