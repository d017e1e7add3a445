"""LAMB: Adam whose step has, for each tensor, the length of the tensor (You et al. 2020, algorithm 2).

    r = m̂ / (√v̂ + ε)        u = r + λ x        x ← x − η ρ u        ρ = ‖x‖ / ‖u‖

with the corrected moments of `moments`. **ρ**, the trust ratio, is one number for each tensor: every tensor moves by η
of its own length. Adam's step has about the same length for all: what is right for one layer is too much for another,
and the larger the batch, and with it η, the sooner training breaks there. ρ is 1 where one of the two norms is 0.

NEZHA's authors trained with LAMB, and their code differs from the paper; ``variant="nezha"`` is their code:

    ρ = clip(‖x‖ / ‖m̂ / √(v̂ + ε) + λ x‖, 0, 10)

with ε under the root, and with decay for every tensor, although u has no decay for norms and biases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nezha_np.arrays import Array, namespace
from nezha_np.mechanism.layer import sweep
from nezha_np.training.clipping import sum_of_squares
from nezha_np.training.optimizers.moments import decays as decays_weight
from nezha_np.training.optimizers.moments import step_tensors
from nezha_np.training.optimizers.state import OptimizerState, zero_state

VARIANTS = ("paper", "nezha")
LARGEST_RATIO = 10.0  # the largest ρ of NEZHA's authors

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
    eps: float = 1e-6,
    variant: str = "paper",
    decays: Callable[[str], bool] = decays_weight,
    donate: bool = False,
) -> tuple[Any, OptimizerState]:
    """Make one step of LAMB.

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
        ε.
    variant : "paper" or "nezha"
        Whose trust ratio.
    decays : callable
        Says of a name whether its tensor is decayed. By default norms and biases are not.

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
    The step is 0.1 of the length of x, whatever the length of its gradient:

    >>> import numpy as np
    >>> from nezha_np.training import lamb
    >>> weights = {"x": np.array([3.0, 4.0])}
    >>> state = lamb.init(weights)
    >>> new, state = lamb.step(weights, {"x": np.array([1e-3, 0.0])}, state, learning_rate=0.1, weight_decay=0.0)
    >>> new["x"].round(3)
    array([2.5, 4. ])
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")

    def new_tensor(name: str, x: Array, m: Array, v: Array, steps: int, out: Array | None) -> Array:
        sqrt = namespace(v).sqrt
        decay = weight_decay if decays(name) else 0.0

        def update(x: Array, m: Array, v: Array) -> tuple[Array]:
            m_hat, v_hat = m / (1.0 - beta1**steps), v / (1.0 - beta2**steps)
            return (m_hat / (sqrt(v_hat) + eps) + decay * x,)

        def compared(x: Array, m: Array, v: Array) -> tuple[Array]:
            m_hat, v_hat = m / (1.0 - beta1**steps), v / (1.0 - beta2**steps)
            return (m_hat / sqrt(v_hat + eps) + weight_decay * x,)

        (u,) = sweep(update, x, m, v)
        ratio = (
            trust_ratio(x, u) if variant == "paper" else trust_ratio(x, *sweep(compared, x, m, v), most=LARGEST_RATIO)
        )
        return sweep(lambda x, u: (x - learning_rate * ratio * u,), x, u, out=(out,))[0]

    numbers = {"learning_rate": learning_rate, "weight_decay": weight_decay, "eps": eps}
    return step_tensors(weights, gradients, state, new_tensor, donate=donate, beta1=beta1, beta2=beta2, **numbers)


def trust_ratio(x: Array, u: Array, *, most: float | None = None) -> Array:
    """ρ = ‖x‖ / ‖u‖, and 1 where one of the two is 0.

    Parameters
    ----------
    x : float array
        The tensor.
    u : float array, of the same shape
        The update that its length is compared with.
    most : float, optional
        The largest ratio; None: there is none.

    Returns
    -------
    () float array
        The trust ratio.

    Examples
    --------
    >>> import numpy as np
    >>> float(trust_ratio(np.array([3.0, 4.0]), np.array([0.0, 2.0])))
    2.5
    """
    xp = namespace(x)
    length, step_length = xp.sqrt(sum_of_squares(x)), xp.sqrt(sum_of_squares(u))
    one = xp.ones_like(length)
    ratio = length / xp.where(step_length > 0, step_length, one)
    if most is not None:
        ratio = xp.where(ratio > most, most * one, ratio)
    return xp.where((length > 0) & (step_length > 0), ratio, one)
