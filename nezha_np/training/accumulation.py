"""Gradient accumulation: the gradients of a batch that is divided, into parts that fit into memory or among machines.

The loss of a batch is a mean over its labels, or a sum of such means. With nᵢ labels in part i, of N in all,

    loss = Σᵢ (nᵢ / N) lossᵢ        g = Σᵢ (nᵢ / N) gᵢ

The plain mean of the gᵢ is the gradient of another loss wherever the nᵢ differ, as they do where tokens are masked at
random. So each part needs to know N before it is walked back; then its gradients are **shares** that only have to be
added. The loss of `nezha_np.pretraining` is a mean over masked tokens plus a mean over pairs: each has its own N.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from nezha_np.arrays import Array, in_statistics_dtype
from nezha_np.layers.losses import IGNORE_INDEX
from nezha_np.mechanism import definitions, recording
from nezha_np.mechanism.interventions import active_interventions
from nezha_np.mechanism.layer import whole_pass
from nezha_np.mechanism.recorder import kernels_run_here
from nezha_np.mechanism.tape import Tape

Batch = Mapping[str, Any]

# Where a head's loss is a sum of means: the name of each in a trace, and the argument that has its labels.
PARTIAL_LOSSES = {
    "pretraining": {"masked_lm_loss": "labels", "next_sentence_loss": "next_sentence_label"},
    "question_answering": {"start_loss": "start_positions", "end_loss": "end_positions"},
}


def partial_losses(head: Callable[..., Any]) -> dict[str, str]:
    """Return the means that a head's loss is made of, and the argument that has the labels of each.

    Examples
    --------
    >>> import nezha_np as nz
    >>> partial_losses(nz.masked_lm)
    {'loss': 'labels'}
    """
    return PARTIAL_LOSSES.get(head.__name__, {"loss": "labels"})


def rows_of(head: Callable[..., Any], part: Batch) -> int:
    """Return how many rows a part of a batch has.

    Examples
    --------
    >>> import nezha_np as nz
    >>> rows_of(nz.masked_lm, {"input_ids": [[2, 4, 3]], "labels": [[-100, 7, -100]]})
    1
    """
    return len(part[next(iter(partial_losses(head).values()))])


def count_labels(head: Callable[..., Any], batches: Iterable[Batch]) -> dict[str, int]:
    """Count what each mean of a head's loss is a mean over.

    Parameters
    ----------
    head : callable
        The head.
    batches : iterable of mapping
        Arguments of the head, as keywords.

    Returns
    -------
    dict of str to int
        For each mean, by its name in a trace, the number of labels that are not -100; of labels that are numbers, as
        in a regression, all.

    Examples
    --------
    >>> import nezha_np as nz
    >>> count_labels(nz.masked_lm, [{"labels": [[-100, 7, 8]]}, {"labels": [[-100, -100, 9]]}])
    {'loss': 3}
    """
    counts = dict.fromkeys(partial_losses(head), 0)
    for batch in batches:
        for name, argument in partial_losses(head).items():
            counts[name] += int(_counts(head.__name__, np.asarray(batch[argument]), batch).sum())
    return counts


def _counts(head: str, labels: np.ndarray, batch: Batch) -> np.ndarray:
    """Say of each label whether the loss counts it."""
    counted: np.ndarray
    if labels.dtype.kind not in "iu":  # numbers to be predicted
        counted = np.ones(labels.shape, bool)
    elif head == "question_answering":  # a position after the last token is not counted
        tokens = batch.get("input_ids")
        counted = labels < np.shape(batch["inputs_embeds"] if tokens is None else tokens)[1]
    else:
        counted = (labels[:, 1:] if head == "causal_lm" else labels) != IGNORE_INDEX
    return counted


def gradient_shares(
    head: Callable[..., Any],
    weights: Any,
    batch: Batch,
    *,
    counts: Mapping[str, int] | None = None,
    dropout_seed: tuple[int, ...] | None = None,
    dropout_rows: tuple[int, int] | None = None,
    loss_scale: float = 1.0,
    checkpoint_layers: bool = False,
    frozen: Collection[str] = (),
) -> tuple[dict[str, float], dict[str, Array]]:
    """Compute loss and gradients of a part of a batch, as shares of those of the whole batch.

    Parameters
    ----------
    head : callable
        The head.
    weights : Weights
        The weights, in the dtype that the pass is computed in.
    batch : mapping of str to array_like
        The arguments of the head for this part, labels too, as keywords.
    counts : mapping of str to int, optional
        What `count_labels` returns for the whole batch; None: this part is the whole.
    dropout_seed : tuple of int, optional
        Seed and step, as for `nezha_np.value_and_grad`, and whatever else is to tell masks apart; None: no dropout.
    dropout_rows : (int, int), optional
        Where this part is some rows of what `dropout_seed` is for: how many rows come before them, and how many they
        are. They have the dropout masks that they have in the whole.
    loss_scale : float
        What the loss is multiplied by before the walk back, and the gradients are divided by after it.
    checkpoint_layers : bool
        As for `nezha_np.value_and_grad`.
    frozen : collection of str
        Names of tensors that have no gradient. The walk back does not go down to them.

    Returns
    -------
    losses : dict of str to float
        The share of each mean in the loss of the whole batch.
    gradients : dict of str to float array
        The shares of the gradients by name, in float32 at least. They are not finite where `loss_scale` was too large.

    Examples
    --------
    >>> import nezha_np as nz
    >>> losses, gradients = gradient_shares(nz.masked_lm, nz.load(), {"input_ids": [[2, 4, 3]], "labels": [[2, 9, 3]]})
    >>> list(losses), gradients["cls.predictions.bias"].shape
    (['loss'], (7000,))
    """
    own = count_labels(head, [batch])
    whole = own if counts is None else counts
    shares = {name: own[name] / whole[name] if own[name] else 0.0 for name in own}
    kernels = kernels_run_here()
    tape = Tape(
        dropout_seed,
        tuple(own),
        kernels=kernels,
        checkpoint_layers=checkpoint_layers,
        dropout_rows=dropout_rows,
        interventions=active_interventions(),
    )
    with whole_pass(weights, checkpoint_layers=checkpoint_layers) if kernels else nullcontext():
        with recording(tape):
            loss = head(weights, **batch).loss  # and nothing else of what it returns: its logits may be large
        # The mean over no labels is NaN, its gradient is 0.
        losses = {name: share * float(tape[name]) if share else 0.0 for name, share in shares.items()}
        with definitions():
            scales = {name: share * loss_scale for name, share in shares.items()}
            gradients = tape.walk_back(loss, scales=scales, unwanted=frozen)
    for name in gradients if loss_scale != 1.0 else ():
        gradients[name] = in_statistics_dtype(gradients[name]) / loss_scale
    return losses, {name: in_statistics_dtype(gradient) for name, gradient in gradients.items()}


def accumulate(
    head: Callable[..., Any],
    weights: Any,
    parts: Sequence[Batch],
    *,
    counts: Mapping[str, int] | None = None,
    dropout_seeds: Sequence[tuple[int, ...]] | None = None,
    dropout_rows: Sequence[tuple[int, int]] | None = None,
    loss_scale: float = 1.0,
    checkpoint_layers: bool = False,
    frozen: Collection[str] = (),
) -> tuple[dict[str, float], dict[str, Array]]:
    """Compute loss and gradients of a batch, part by part; only the sum of their gradients is held.

    Parameters
    ----------
    head, weights, counts, loss_scale, checkpoint_layers, frozen
        As for `gradient_shares`; without `counts` the parts are the whole batch.
    parts : sequence of mapping of str to array_like
        The parts of the batch; one at least. One without rows has nothing to add.
    dropout_seeds : sequence of tuple of int, optional
        The `dropout_seed` of each part; None: no dropout.
    dropout_rows : sequence of (int, int), optional
        The `dropout_rows` of each part; None: each part is the whole of what its seed is for.

    Returns
    -------
    losses : dict of str to float
        The means that the loss is the sum of, by name; of question_answering, the average.
    gradients : dict of str to float array
        The gradients by name, in float32 at least.

    Raises
    ------
    ValueError
        If there is no part.

    Examples
    --------
    >>> import nezha_np as nz
    >>> parts = [{"input_ids": [[2, 4, 3]], "labels": [[2, 9, 3]]}, {"input_ids": [[2, 5]], "labels": [[-100, 7]]}]
    >>> losses, gradients = accumulate(nz.masked_lm, nz.load(), parts)
    >>> list(losses), gradients["cls.predictions.bias"].shape
    (['loss'], (7000,))
    """
    if not parts:
        raise ValueError("parts: expected one at least, got none")
    counts = count_labels(head, parts) if counts is None else counts
    losses: dict[str, float] = dict.fromkeys(counts, 0.0)
    total: dict[str, Array] = {}
    for index, part in enumerate(parts):
        if not rows_of(head, part):  # where a batch is divided among more processes than it has rows
            continue
        seed = None if dropout_seeds is None else dropout_seeds[index]
        rows = None if dropout_rows is None else dropout_rows[index]
        shares, gradients = gradient_shares(
            head,
            weights,
            part,
            counts=counts,
            dropout_seed=seed,
            dropout_rows=rows,
            loss_scale=loss_scale,
            checkpoint_layers=checkpoint_layers,
            frozen=frozen,
        )
        losses = {name: loss + shares[name] for name, loss in losses.items()}
        for name in list(gradients):  # each is let go as soon as it is added
            gradient = gradients.pop(name)
            total[name] = total[name] + gradient if name in total else gradient
    return losses, total
