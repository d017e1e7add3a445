"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2; torch.optim.AdamW).

    x ← x − η (m̂ / (√v̂ + ε) + λ x)

with the corrected moments of `moments`. **Decoupled**: the decay λ x does not enter the moments. Were it added to the
gradient, it would be divided by √v̂, and a tensor with large gradients would hardly decay at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nezha_np.arrays import Array, namespace
from nezha_np.mechanism.layer import sweep
from nezha_np.training.optimizers.moments import decays as decays_weight
from nezha_np.training.optimizers.moments import step_tensors
from nezha_np.training.optimizers.state import OptimizerState, zero_state

init = zero_state


def step(
    weights: Mapping[str, Array],
    gradients: Mapping[str, Array],
    state: OptimizerState,
    *,
    learning_rate: float,
    weight_decay: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decays: Callable[[str], bool] = decays_weight,
    donate: bool = False,
) -> tuple[Any, OptimizerState]:
    """Make one step of AdamW.

    Parameters
    ----------
    weights : Weights or mapping of str to float array
        The tensors.
    gradients : mapping of str to float array
        The gradients by name, as `nezha_np.value_and_grad` returns them. A tensor without one stays as it is.
    state : OptimizerState
        What ``init(weights)`` or the step before returned.
    learning_rate : float
        η.
    weight_decay : float
        λ.
    beta1, beta2 : float
        β₁ and β₂.
    eps : float
        ε, outside of the root.
    decays : callable
        Says of a name whether its tensor is decayed. By default norms and biases are not; torch decays every tensor
        of a group.

    donate : bool
        Whether the caller gives away the arrays of `weights` and `state`, which get the new numbers in place then, with
        the same bits. Afterwards only what is returned may be used: `weights`, `state`, and whatever shares memory with
        them, hold other numbers; if the step is interrupted, some old and some new ones. Arrays that cannot be written
        to, that are mapped from a file, or that share memory with another of them are copied instead (`moments`).

    Returns
    -------
    weights : Weights, or dict of str to float array
        The new tensors; without `donate` nothing is written into the old ones.
    state : OptimizerState
        The new state.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from nezha_np.training import adamw
    >>> weights = {"x": np.array([1.0, -2.0])}
    >>> new, state = adamw.step(weights, {"x": np.array([3.0, 0.0])}, adamw.init(weights), learning_rate=0.1)
    >>> new["x"].round(4), state.steps
    (array([ 0.899, -1.998]), 1)
    """

    def new_tensor(name: str, x: Array, m: Array, v: Array, steps: int, out: Array | None) -> Array:
        decay = weight_decay if decays(name) else 0.0

        def rule(x: Array, m: Array, v: Array) -> tuple[Array]:
            m_hat, v_hat = m / (1.0 - beta1**steps), v / (1.0 - beta2**steps)
            return (x - learning_rate * (m_hat / (namespace(v).sqrt(v_hat) + eps) + decay * x),)

        return sweep(rule, x, m, v, out=(out,))[0]

    numbers = {"learning_rate": learning_rate, "weight_decay": weight_decay, "eps": eps}
    return step_tensors(weights, gradients, state, new_tensor, donate=donate, beta1=beta1, beta2=beta2, **numbers)
