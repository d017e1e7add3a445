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

from nezha_np.arrays import Array, in_statistics_dtype, namespace, own_memory
from nezha_np.checks import check_finite, listed
from nezha_np.mechanism.layer import sweep, whole_pass, written
from nezha_np.training.optimizers.state import OptimizerState, check_state
from nezha_np.weights.weights import Weights

# name, x, m and v after the step, how many steps were made with this one, where to write x after the step -> it
NewTensor = Callable[[str, Array, Array, Array, int, Array | None], Array]


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
    donate: bool = False,
    beta1: float,
    beta2: float,
    **options: float,
) -> tuple[Any, OptimizerState]:
    """Make one step: new moments of each tensor that has a gradient, and from them the new tensor.

    With `donate` an array gets its new numbers in place where `nezha_np.arrays.own_memory` says that this changes
    nothing else. A new one is made, as without it, for an array that cannot be written to, that is mapped from a file,
    which the step must not change, that is another library's memory, or that shares memory with another of these
    tensors, moments and gradients, as under two names. So weights that `load` mapped from a file are copied by the
    first step and written in place by the next. JAX's arrays are always new: it writes into none.

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
    donate : bool
        Whether the arrays of `weights` and `state` may be written to.
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
    >>> rule = lambda name, x, m, v, steps, out: x - m
    >>> step_tensors(x, x, zero_state(x), rule, beta1=0.9, beta2=0.999)[0]
    {'x': array([0.9, 0.9])}
    """
    for name, value in {"beta1": beta1, "beta2": beta2}.items():
        check_finite(name, value, below=1.0)
    for name, value in options.items():
        check_finite(name, value)
    check_gradients(weights, gradients)
    check_state(state, weights)
    if not isinstance(donate, bool):
        raise TypeError(f"donate: expected True or False, got {donate!r}")
    steps = state.steps + 1
    tensors, first, second = dict(weights), dict(state.first_moments), dict(state.second_moments)

    def new_moments(g: Array, m: Array, v: Array) -> tuple[Array, Array]:
        return beta1 * m + (1.0 - beta1) * g, beta2 * v + (1.0 - beta2) * (g * g)

    own = _own(tensors, first, second, gradients) if donate else [set()] * 3
    with whole_pass(weights):
        for name, gradient in gradients.items():
            x, g = in_statistics_dtype(tensors[name]), in_statistics_dtype(gradient)
            out = [
                moments[name] if name in writable and moments[name].dtype == g.dtype else None
                for moments, writable in zip((first, second), own[1:3], strict=True)
            ]
            first[name], second[name] = sweep(new_moments, g, first[name], second[name], out=out)
            target = tensors[name] if name in own[0] else None
            new = new_tensor(name, x, first[name], second[name], steps, target if x is target else None)
            new = namespace(new).astype(new, tensors[name].dtype, copy=False)
            (tensors[name],) = written((new,), (target,))
    made = Weights(tensors, weights.config, source=weights.source) if isinstance(weights, Weights) else tensors
    return made, OptimizerState(steps, first, second)


def _own(*named: Mapping[str, Array]) -> list[set[str]]:
    """List the names, in each mapping, of the arrays that may be written to."""
    arrays = [(index, name, array) for index, mapping in enumerate(named) for name, array in mapping.items()]
    found: list[set[str]] = [set() for _ in named]
    for (index, name, _), own in zip(arrays, own_memory([array for *_, array in arrays]), strict=True):
        if own:
            found[index].add(name)
    return found


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
