"""The loop: batch, gradients, clipping, a step of the optimiser, again and again.

    gradients of the batch, by shares of its parts        accumulation.py
    summed over all processes, where there are several    data_parallel.py
    a step whose gradients are not finite is left out     loss_scale.py
    clip them by their global norm                        clipping.py
    learning rate of this step                            schedule.py
    new weights and new state                             optimizers/

**Mixed precision**: the weights that are trained stay in float32, the pass is computed with a copy of them in float16.
An update is often a ten-thousandth of its weight: in float16, whose step is a thousandth, it would change nothing.

A step depends on the weights, the state and its number alone, so a run that goes on from a saved step comes to the same
bits.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from nezha_np.arrays import Array
from nezha_np.checks import check_finite, check_integer, check_switches, listed
from nezha_np.mechanism.patterns import check_patterns, matches
from nezha_np.training.accumulation import Batch, accumulate
from nezha_np.training.clipping import clip_by_global_norm
from nezha_np.training.data_parallel import ALONE, Processes, count_together, sum_shares
from nezha_np.training.loss_scale import LossScale
from nezha_np.training.optimizers import adamw, bert_adam, lamb
from nezha_np.training.optimizers.state import OptimizerState
from nezha_np.weights.weights import Weights


class Optimizer(Protocol):
    """An optimiser: a module of `nezha_np.training.optimizers`, or any object with these two functions."""

    def init(self, weights: Weights, /) -> OptimizerState:
        """Return the state before the first step."""

    def step(
        self,
        weights: Weights,
        gradients: dict[str, Array],
        state: OptimizerState,
        /,
        *,
        learning_rate: float,
        **options: Any,
    ) -> tuple[Weights, OptimizerState]:
        """Return weights and state after one more step."""


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """Where a run stands, and what its last step was.

    Attributes
    ----------
    number : int
        How many steps were made, those that were left out too.
    weights : Weights
        The weights.
    state : OptimizerState
        The state of the optimiser.
    loss_scale : LossScale or None
        The loss scale of the next step; None without mixed precision.
    losses : dict of str to float
        The means that the loss of the last step is the sum of.
    norm : float
        The global norm of its gradients before they were clipped; NaN or inf where they were not finite.
    learning_rate : float
        Its learning rate.
    skipped : bool
        Whether it was left out, because its gradients were not finite.
    """

    number: int
    weights: Weights
    state: OptimizerState
    loss_scale: LossScale | None = None
    losses: dict[str, float] = dataclasses.field(default_factory=dict)
    norm: float = 0.0
    learning_rate: float = 0.0
    skipped: bool = False


OPTIMIZERS: dict[str, Any] = {"lamb": lamb, "adamw": adamw, "bert_adam": bert_adam}


def optimizer_named(name: str) -> Optimizer:
    """Return an optimiser by its name.

    Parameters
    ----------
    name : str
        One of `OPTIMIZERS`.

    Returns
    -------
    module
        The optimiser.

    Raises
    ------
    ValueError
        If there is none of this name.

    Examples
    --------
    >>> optimizer_named("adam")
    Traceback (most recent call last):
    ...
    ValueError: optimizer: expected one of lamb, adamw, bert_adam, got 'adam'
    """
    if name not in tuple(OPTIMIZERS):
        raise ValueError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}, got {name!r}")
    found: Optimizer = OPTIMIZERS[name]
    return found


def first_step(weights: Weights, optimizer: Optimizer, loss_scale: LossScale | None = None) -> Step:
    """Return where a run stands before its first step.

    Parameters
    ----------
    weights : Weights
        The weights to begin with, in float32 or float64.
    optimizer : module
        `lamb`, `adamw` or `bert_adam`.
    loss_scale : LossScale, optional
        The loss scale to begin with; None: without mixed precision.

    Returns
    -------
    Step
        The step with the number 0.

    Raises
    ------
    ValueError
        If the weights are in float16.

    Examples
    --------
    >>> import nezha_np as nz
    >>> from nezha_np.training import lamb
    >>> first_step(nz.load(), lamb).number
    0
    """
    if (dtype := str(weights.dtype).rpartition(".")[2]).endswith("float16"):  # bfloat16 too: small steps would be lost
        raise ValueError(
            f"weights: expected float32 or float64 to train, got {dtype}; a loss scale computes in float16"
        )
    return Step(0, weights, optimizer.init(weights), loss_scale)


def train(
    start: Step,
    head: Callable[..., Any],
    batches: Callable[[int], Sequence[Batch]],
    optimizer: Optimizer,
    *,
    steps: int,
    learning_rate: float | Callable[[int], float],
    clip_norm: float = 1.0,
    dropout_seed: int | None = 0,
    checkpoint_layers: bool = False,
    freeze: str | Sequence[str] = (),
    processes: Processes = ALONE,
    **options: Any,
) -> Iterator[Step]:
    """Train, one step after another.

    Parameters
    ----------
    start : Step
        What `first_step` returned, or a step of an earlier run.
    head : callable
        A head with a loss, ``nz.pretraining`` for example.
    batches : callable
        Takes the number of a step, from 0 on, and returns its batch: a sequence of parts, each a mapping with the
        arguments of the head. A batch that fits into memory is one part.
    optimizer : module
        `lamb`, `adamw` or `bert_adam`.
    steps : int
        The number of the last step.
    learning_rate : float or callable
        The rate, or a function of how many steps were made.
    clip_norm : float
        The largest global norm of the gradients.
    dropout_seed : int or None
        The seed of the dropout masks; None: no dropout.
    checkpoint_layers : bool
        As for `nezha_np.value_and_grad`: less memory for one more forward pass, and the same bits.
    freeze : str or sequence of str
        Patterns of names: tensors that fit one stay as they are, and count in no norm of gradients.
    processes : Processes
        The processes that train together. `batches` returns the rows of this one then, of each part of the batch; they
        may be none. All other arguments are the same in every process, and so is what is yielded.
    **options
        Options of the optimiser: ``weight_decay``, ``eps`` … With ``donate=True`` the caller gives away the arrays of
        `start`, and those of each step once it asks for the next one; whoever keeps earlier steps must not.

    Yields
    ------
    Step
        The run after each step.

    Raises
    ------
    FloatingPointError
        If gradients are not finite without mixed precision, or although the loss scale is 1.
    ValueError
        If a pattern of `freeze` fits no tensor, or together they fit all.

    Examples
    --------
    >>> import nezha_np as nz
    >>> from nezha_np.training import adamw
    >>> batch = {"input_ids": [[2, 4, 11, 3]], "labels": [[-100, 10, -100, -100]]}
    >>> start = first_step(nz.load(), adamw)
    >>> losses = [step.losses["loss"] for step in train(
    ...     start, nz.masked_lm, lambda number: [batch], adamw, steps=3, learning_rate=1e-3, dropout_seed=None
    ... )]
    >>> losses[2] < losses[0]
    True
    """
    check_integer("steps", steps, least=0)
    check_switches(checkpoint_layers=checkpoint_layers)
    check_finite("clip_norm", clip_norm)
    if dropout_seed is not None:
        check_integer("dropout_seed", dropout_seed)
    run = _Run(
        head,
        batches,
        optimizer,
        learning_rate,
        clip_norm,
        dropout_seed,
        checkpoint_layers,
        frozen_names(start.weights, freeze),
        processes,
        options,
    )
    step = start
    del start  # its weights are not held any longer than its step is
    while step.number < steps:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found in the norm of the gradients
            step = _next_step(step, run)
        yield step


def frozen_names(weights: Weights, freeze: str | Sequence[str]) -> frozenset[str]:
    """Find the tensors that are not trained.

    Parameters
    ----------
    weights : Weights
        The weights.
    freeze : str or sequence of str
        Patterns of names.

    Returns
    -------
    frozenset of str
        The names that fit one of the patterns.

    Raises
    ------
    TypeError
        If `freeze` is neither a pattern nor a sequence of patterns.
    ValueError
        If a pattern fits no tensor, or together they fit all.

    Examples
    --------
    >>> import nezha_np as nz
    >>> sorted(frozen_names(nz.load(), "embeddings.*_embeddings.weight"))
    ['embeddings.token_type_embeddings.weight', 'embeddings.word_embeddings.weight']
    >>> frozen_names(nz.load(), "embedding.**")
    Traceback (most recent call last):
    ...
    ValueError: freeze: expected patterns that fit names of tensors, got embedding.**, which fits none
    """
    patterns = check_patterns("freeze", freeze)
    if idle := [pattern for pattern in patterns if not any(matches(name, (pattern,)) for name in weights)]:
        raise ValueError(f"freeze: expected patterns that fit names of tensors, got {listed(idle)}, which fits none")
    found = frozenset(name for name in weights if matches(name, patterns))
    if len(found) == len(weights):
        raise ValueError(
            f"freeze: expected a tensor at least that is trained, got {listed([*patterns])}, which fit all"
        )
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """What is the same in all steps of a run: the arguments of `train`, and the names of the tensors that stay."""

    head: Callable[..., Any]
    batches: Callable[[int], Sequence[Batch]]
    optimizer: Optimizer
    learning_rate: float | Callable[[int], float]
    clip_norm: float
    dropout_seed: int | None
    checkpoint_layers: bool
    frozen: frozenset[str]
    processes: Processes
    options: dict[str, Any]


def _next_step(step: Step, run: _Run) -> Step:
    number, scale = step.number, step.loss_scale
    parts = run.batches(number)
    losses, gradients = _gradients(step, parts, run)
    clipped, global_norm = clip_by_global_norm(gradients, run.clip_norm, donate=True)
    norm = float(global_norm)
    rate = float(run.learning_rate(number)) if callable(run.learning_rate) else run.learning_rate
    finite = math.isfinite(norm)
    if not finite and (scale is None or scale.scale == 1.0):
        raise FloatingPointError(
            f"step {number + 1}: expected finite gradients, got a global norm of {norm}; "
            "a smaller learning_rate may help"
        )
    new, state = step.weights, step.state
    if finite:
        new, state = run.optimizer.step(step.weights, clipped, step.state, learning_rate=rate, **run.options)
    after = None if scale is None else scale.after(finite=finite)
    return Step(number + 1, new, state, after, losses, norm, rate, skipped=not finite)


def _gradients(step: Step, parts: Sequence[Batch], run: _Run) -> tuple[dict[str, float], dict[str, Array]]:
    """Return losses and gradients of a batch, of all processes together, before they are clipped."""
    seed, scale, processes = run.dropout_seed, step.loss_scale, run.processes
    # Each part has dropout masks of its own; those of the first are what `value_and_grad` has for the step.
    seeds = None if seed is None else [(seed, step.number, *([i] if i else [])) for i in range(len(parts))]
    counts, places = (None, None) if processes.size == 1 else count_together(run.head, parts, processes)
    losses, gradients = accumulate(
        run.head,
        step.weights if scale is None else step.weights.to(dtype="float16"),
        parts,
        counts=counts,
        dropout_seeds=seeds,
        dropout_rows=places,
        loss_scale=1.0 if scale is None else scale.scale,
        checkpoint_layers=run.checkpoint_layers,
        frozen=run.frozen,
    )
    if processes.size == 1:
        return losses, gradients
    return sum_shares(losses, gradients, step.weights, processes)
