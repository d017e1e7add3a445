"""The recipe of recorded training steps: the optimiser and every number that a step depends on besides its batch."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nezha_np.checks import check_finite, check_integer, listed
from nezha_np.training.loop import OPTIMIZERS
from nezha_np.training.optimizers.moments import decays as decays_weight

# What the `step` functions of the optimisers take and a recipe holds.
NUMBERS = ("weight_decay", "beta1", "beta2", "eps")
OPTIONS = (*NUMBERS, "variant", "decays")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the steps of a bundle were made.

    Attributes
    ----------
    optimizer : str
        "lamb", "adamw" or "bert_adam".
    steps : int
        How many steps.
    learning_rates : tuple of float
        η of each step, and of the one after the last.
    weight_decay, beta1, beta2, eps : float
        λ, β₁, β₂ and ε.
    variant : str or None
        Of LAMB: "paper" or "nezha".
    clip_norm : float
        The largest global norm of the gradients.
    loss_scale : float
        What the loss is multiplied by before the walk back, and the gradients are divided by after it.
    dropout_seed : int or None
        The seed of the dropout masks; None: no dropout.
    decayed : tuple of str
        The names of the tensors that are decayed.
    accumulation_steps : int
        Of how many parts the gradients are accumulated, the most that a batch has.

    Examples
    --------
    >>> recipe = make_recipe("adamw", 2, {"weight_decay": 0.1}, ["pooler.dense.bias"], learning_rate=1e-3)
    >>> recipe.eps, recipe.decayed
    (1e-08, ())
    """

    optimizer: str
    steps: int
    learning_rates: tuple[float, ...]
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    variant: str | None
    clip_norm: float
    loss_scale: float
    dropout_seed: int | None
    decayed: tuple[str, ...]
    accumulation_steps: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


def optimizer_name(step: Any) -> str:
    """Find the name of an optimiser, which may be given by its module.

    Examples
    --------
    >>> from nezha_np.training import lamb
    >>> optimizer_name(lamb), optimizer_name("adamw")
    ('lamb', 'adamw')
    """
    found = next((name for name, module in OPTIMIZERS.items() if step is module or step == name), None)
    if found is None:
        got = repr(step) if isinstance(step, str) else getattr(step, "__name__", type(step).__name__)
        names = ", ".join(OPTIMIZERS)
        raise ValueError(f"step: expected one of {names}, the modules of nezha_np.training or their names, got {got}")
    return found


def make_recipe(
    step: Any,
    steps: int,
    options: Mapping[str, Any],
    names: Sequence[str],
    *,
    learning_rate: float | Sequence[float] | Callable[[int], float],
    clip_norm: float = 1.0,
    loss_scale: float = 1.0,
    dropout_seed: int | None = None,
) -> Recipe:
    """Check the arguments of the steps, and make the recipe.

    Parameters
    ----------
    step : module or str
        The optimiser.
    steps : int
        How many steps.
    options : mapping of str to object
        The optimiser's options, those of `OPTIONS` that it takes.
    names : sequence of str
        The names of the tensors.
    learning_rate, clip_norm, loss_scale, dropout_seed
        As for `nezha_np.oracle.record`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong; the message names it.

    Examples
    --------
    >>> make_recipe("lamb", 2, {}, [], learning_rate=lambda steps: 0.1 * steps).learning_rates
    (0.0, 0.1, 0.2)
    """
    name = optimizer_name(step)
    steps = check_integer("steps", steps, least=1)
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(OPTIMIZERS[name].step).parameters.items()
        if key in OPTIONS
    }
    if unknown := sorted(set(options) - set(defaults)):
        raise TypeError(f"{unknown[0]}: expected options of {name}, {listed(list(defaults))}, got another")
    chosen = {**defaults, **options}
    numbers = {
        key: check_finite(key, chosen[key], below=1.0 if key.startswith("beta") else math.inf) for key in NUMBERS
    }
    variant, decays = chosen.get("variant"), chosen.get("decays", decays_weight)
    if name == "lamb" and variant not in ("paper", "nezha"):
        raise ValueError(f"variant: expected one of paper, nezha, got {variant!r}")
    if not callable(decays):
        raise TypeError(f"decays: expected a function of a name, got {type(decays).__name__}")
    if check_finite("loss_scale", loss_scale) == 0.0:
        raise ValueError("loss_scale: expected a number above 0, got 0")
    if dropout_seed is not None:
        dropout_seed = check_integer("dropout_seed", dropout_seed)
    return Recipe(
        optimizer=name,
        steps=steps,
        learning_rates=_rates(learning_rate, steps),
        weight_decay=float(numbers["weight_decay"]),
        beta1=float(numbers["beta1"]),
        beta2=float(numbers["beta2"]),
        eps=float(numbers["eps"]),
        variant=variant,
        clip_norm=float(check_finite("clip_norm", clip_norm)),
        loss_scale=float(loss_scale),
        dropout_seed=dropout_seed,
        decayed=tuple(key for key in names if decays(key)),
    )


def _rates(learning_rate: Any, steps: int) -> tuple[float, ...]:
    """Return the rate of each step, and of the one after the last: ports are off by one."""
    if callable(learning_rate):
        rates = [learning_rate(number) for number in range(steps + 1)]
    elif isinstance(learning_rate, Sequence) and not isinstance(learning_rate, str):
        rates = list(learning_rate)
        if len(rates) not in (steps, steps + 1):
            raise ValueError(f"learning_rate: expected a rate for each of {steps} steps, got {len(rates)}")
        rates += rates[-1:] * (steps + 1 - len(rates))
    else:
        rates = [learning_rate] * (steps + 1)
    return tuple(float(check_finite("learning_rate", rate)) for rate in rates)


def recipe_from_dict(values: Any) -> Recipe:
    """Read a recipe from the document of a bundle.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> recipe_from_dict({"optimizer": "sgd"})
    Traceback (most recent call last):
    ...
    ValueError: expected a recipe of training steps under training, got {'optimizer': 'sgd'}
    """
    fields = {field.name for field in dataclasses.fields(Recipe)}
    if isinstance(values, dict) and fields <= values.keys():
        held = {key: values[key] for key in fields}
        rates, decayed, seed = held["learning_rates"], held["decayed"], held["dropout_seed"]
        numbers = [held[key] for key in (*NUMBERS, "clip_norm", "loss_scale")]
        if (
            held["optimizer"] in tuple(OPTIMIZERS)
            and held["variant"] in ((None,) if held["optimizer"] != "lamb" else ("paper", "nezha"))
            and type(held["steps"]) is int
            and held["steps"] >= 1
            and type(held["accumulation_steps"]) is int
            and held["accumulation_steps"] >= 1
            and isinstance(rates, list)
            and len(rates) == held["steps"] + 1
            and isinstance(decayed, list)
            and all(isinstance(name, str) for name in decayed)
            and all(_is_number(number) for number in [*numbers, *rates])
            and held["loss_scale"] > 0
            and (seed is None or type(seed) is int)
        ):
            held |= {"learning_rates": tuple(map(float, rates)), "decayed": tuple(decayed)}
            return Recipe(**held)
    raise ValueError(f"expected a recipe of training steps under training, got {str(values)[:200]}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
