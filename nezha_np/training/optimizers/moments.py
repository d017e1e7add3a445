"""What Adam, AdamW and LAMB have in common: the moving means of a gradient and of its square (Kingma and Ba 2015).

    m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²

Both begin at 0, so after t steps they are too small by 1 − βᵗ. The **bias correction** divides by it:

    m̂ = m / (1 − β₁ᵗ)           v̂ = v / (1 − β₂ᵗ)

m̂ / √v̂ is a gradient without a unit: its elements are about 1 where all gradients had one sign, and near 0 where they
contradicted each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nezha_np.arrays import Array, in_statistics_dtype, namespace
from nezha_np.checks import check_finite, listed
from nezha_np.mechanism.layer import sweep, whole_pass
from nezha_np.training.optimizers.state import OptimizerState, check_state
from nezha_np.weights.weights import Weights

# name, x, m and v after the step, how many steps were made with this one -> x after the step
NewTensor = Callable[[str, Array, Array, Array, int], Array]


def decays(name: str) -> bool:
    """Say whether a tensor is decayed: all but the norms' and the biases, as BERT's authors decided.

    Decay pulls a matrix towards 0. A norm's γ belongs at 1, and a bias has nothing to overfit with.

    Parameters
    ----------
    name : str
        The name of the tensor.

    Returns
    -------
    bool
        False for names with ``LayerNorm`` in them and for those that end in ``bias``.

    Examples
    --------
    >>> decays("pooler.dense.weight"), decays("pooler.dense.bias"), decays("embeddings.LayerNorm.weight")
    (True, False, False)
    """
    return "LayerNorm" not in name and not name.endswith("bias")


def step_tensors(
    weights: Mapping[str, Array],
    gradients: Mapping[str, Array],
    state: OptimizerState,
    new_tensor: NewTensor,
    *,
    beta1: float,
    beta2: float,
    **options: float,
) -> tuple[Any, OptimizerState]:
    """Make one step: new moments of each tensor that has a gradient, and from them the new tensor.

    Parameters
    ----------
    weights : Weights or mapping of str to float array
        The tensors.
    gradients : mapping of str to float array
        The gradients of the loss by name. A tensor that is not among them stays as it is, with its moments.
    state : OptimizerState
        The state.
    new_tensor : callable
        The rule of the optimiser.
    beta1, beta2 : float
        β₁ and β₂.
    **options : float
        The other numbers of the optimiser, to be checked: none may be negative.

    Returns
    -------
    weights : Weights, or dict of str to float array
        The new tensors, in the dtypes of the old ones; Weights where they came as such.
    state : OptimizerState
        The new state.

    Raises
    ------
    TypeError
        If an argument is of another type.
    ValueError
        If a number is outside its range, a gradient belongs to no tensor or has another shape, or the state is not
        that of these weights.

    Examples
    --------
    >>> import numpy as np
    >>> from nezha_np.training.optimizers.state import zero_state
    >>> x = {"x": np.ones(2)}
    >>> rule = lambda name, x, m, v, steps: x - m
    >>> step_tensors(x, x, zero_state(x), rule, beta1=0.9, beta2=0.999)[0]
    {'x': array([0.9, 0.9])}
    """
    for name, value in {"beta1": beta1, "beta2": beta2}.items():
        check_finite(name, value, below=1.0)
    for name, value in options.items():
        check_finite(name, value)
    check_gradients(weights, gradients)
    check_state(state, weights)
    steps = state.steps + 1
    tensors, first, second = dict(weights), dict(state.first_moments), dict(state.second_moments)

    def new_moments(g: Array, m: Array, v: Array) -> tuple[Array, Array]:
        return beta1 * m + (1.0 - beta1) * g, beta2 * v + (1.0 - beta2) * (g * g)

    with whole_pass(weights):
        for name, gradient in gradients.items():
            x, g = in_statistics_dtype(tensors[name]), in_statistics_dtype(gradient)
            first[name], second[name] = sweep(new_moments, g, first[name], second[name])
            new = new_tensor(name, x, first[name], second[name], steps)
            tensors[name] = namespace(new).astype(new, tensors[name].dtype, copy=False)
    made = Weights(tensors, weights.config, source=weights.source) if isinstance(weights, Weights) else tensors
    return made, OptimizerState(steps, first, second)


def check_gradients(weights: Mapping[str, Array], gradients: Mapping[str, Array]) -> None:
    """Check that each gradient belongs to a tensor and has its shape.

    Parameters
    ----------
    weights : mapping of str to float array
        The tensors.
    gradients : mapping of str to float array
        The gradients.

    Raises
    ------
    TypeError
        If one of the two is no mapping.
    ValueError
        If a gradient has no tensor or another shape.

    Examples
    --------
    >>> import numpy as np
    >>> check_gradients({"x": np.ones(2)}, {"x": np.ones(3)})
    Traceback (most recent call last):
    ...
    ValueError: gradients: expected shape (2,) for x, got (3,)
    """
    for argument, value in (("weights", weights), ("gradients", gradients)):
        if not isinstance(value, Mapping):
            raise TypeError(f"{argument}: expected a mapping from names to arrays, got {type(value).__name__}")
    if unknown := sorted(gradients.keys() - weights.keys()):
        raise ValueError(f"gradients: expected names of the weights, got also {listed(unknown)}")
    for name, gradient in gradients.items():
        if tuple(gradient.shape) != tuple(weights[name].shape):
            wanted, got = tuple(weights[name].shape), tuple(gradient.shape)
            raise ValueError(f"gradients: expected shape {wanted} for {name}, got {got}")
