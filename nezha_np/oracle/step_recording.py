"""Recording training steps into a bundle: their batches, their recipe, and every number of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nezha_np.checks import check_integer, listed
from nezha_np.mechanism.patterns import check_patterns, matches
from nezha_np.model.tasks import TASKS
from nezha_np.oracle.recipe import Recipe, make_recipe, optimizer_name
from nezha_np.oracle.step_names import stage_of
from nezha_np.oracle.step_passes import divided

MOST_BYTES = 2 * 2**30  # what the arrays of the steps of one bundle may take
BY_TENSOR = ("gradients", "clipped", "first_moment", "second_moment", "update", "weights")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be recorded of training steps.

    Attributes
    ----------
    recipe : Recipe or None
        The recipe; None: no steps.
    batches : list of list of mapping
        Of each step the parts of its batch.
    patterns : tuple of str or None
        The tensors whose arrays are kept; None: all.
    """

    recipe: Recipe | None = None
    batches: Sequence[Sequence[Mapping[str, Any]]] = ()
    patterns: tuple[str, ...] | None = None


# The arguments of `record` that go with `step`, and what they are where nobody gave them.
ALONE = {
    "steps": 1,
    "learning_rate": None,
    "clip_norm": 1.0,
    "accumulation_steps": 1,
    "loss_scale": 1.0,
    "dropout_seed": None,
    "batches": None,
    "parameters": None,
}


def plan_steps(
    step: Any,
    weights: Mapping[str, Any],
    head: str,
    inputs: Mapping[str, Any],
    options: Mapping[str, Any],
    parameters: Any,
    asked: Mapping[str, Any],
) -> Plan:
    """Check the arguments of `record` that are about training steps.

    Parameters
    ----------
    step, weights, head, inputs, parameters
        As for `record`.
    options : mapping
        The options of the optimiser.
    asked : mapping
        The others of `ALONE`.

    Raises
    ------
    TypeError, ValueError
        If one of them is wrong, or given without `step`.

    Examples
    --------
    >>> plan_steps(None, {}, "masked_lm", {}, {"eps": 1e-6}, None, {})
    Traceback (most recent call last):
    ...
    TypeError: eps: expected with step= for the optimiser of training steps, got it without
    """
    given = {**options, **{key: value for key, value in asked.items() if value != ALONE[key]}}
    if parameters is not None:
        given["parameters"] = parameters
    if step is None:
        if given:
            raise TypeError(
                f"{next(iter(given))}: expected with step= for the optimiser of training steps, got it without"
            )
        return Plan()
    if asked["learning_rate"] is None:
        raise TypeError(
            f"learning_rate: expected with step='{optimizer_name(step)}': a number, or one for each step, got none"
        )
    recipe_of = {key: asked[key] for key in ("learning_rate", "clip_norm", "loss_scale", "dropout_seed")}
    recipe = make_recipe(step, asked["steps"], options, list(weights), **recipe_of)
    batches = make_batches(asked["batches"], inputs, recipe.steps, asked["accumulation_steps"])
    check_batches(batches, head)
    recipe = dataclasses.replace(recipe, accumulation_steps=max(map(len, batches)))
    patterns = None if parameters is None else tuple(check_patterns("parameters", parameters))
    check_size(recipe.steps, weights, patterns)
    return Plan(recipe, batches, patterns)


def make_batches(batches: Any, inputs: Mapping[str, Any], steps: int, accumulation_steps: int) -> list[list[Any]]:
    """List of each step the parts of its batch: rows are divided where a batch comes as one.

    Parameters
    ----------
    batches : sequence or None
        Of each step a batch, a mapping of the head's arguments, or a sequence of its parts; None: the inputs.
    inputs : mapping
        The arguments of the head.
    steps : int
        How many steps.
    accumulation_steps : int
        Into how many parts a batch is divided.

    Examples
    --------
    >>> make_batches(None, {"input_ids": np.array([[2, 3], [2, 4]])}, 1, 2)
    [[{'input_ids': array([[2, 3]])}, {'input_ids': array([[2, 4]])}]]
    """
    check_integer("accumulation_steps", accumulation_steps, least=1)
    if batches is None:
        return [divided(inputs, accumulation_steps)] * steps
    if not isinstance(batches, Sequence) or isinstance(batches, str) or len(batches) != steps:
        got = len(batches) if isinstance(batches, Sequence) else type(batches).__name__
        raise ValueError(f"batches: expected a batch for each of {steps} steps, got {got}")
    return [divided(batch, accumulation_steps) if isinstance(batch, Mapping) else list(batch) for batch in batches]


def check_batches(batches: Sequence[Sequence[Mapping[str, Any]]], head: str) -> None:
    """Check that every part has labels, and nothing that the head does not take.

    Raises
    ------
    ValueError
        If a step has no part, or a part lacks labels.

    Examples
    --------
    >>> check_batches((({"input_ids": np.array([[2]])},),), "masked_lm")
    Traceback (most recent call last):
    ...
    ValueError: step: expected labels for masked_lm, whose loss is trained, got none in the batch of step 1
    """
    task = TASKS[head]
    for number, parts in enumerate(batches, start=1):
        if not parts:
            raise ValueError(f"batches: expected one part at least in the batch of step {number}, got none")
        for part in parts:
            if unknown := [name for name in part if name not in task.arguments]:
                raise ValueError(
                    f"batches: expected arguments of {head} in that of step {number}, got {listed(unknown)}"
                )
            if not task.labels:
                raise ValueError(f"step: expected a head that has a loss, such as masked_lm, got {head}")
            if any(name not in part for name in task.labels):
                raise ValueError(
                    f"step: expected {' and '.join(task.labels)} for {head}, whose loss is trained, got none in the "
                    f"batch of step {number}"
                )


def kept_steps(made: Mapping[str, np.ndarray], patterns: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Take the arrays of the tensors whose names fit, under their names below ``steps/``, and bound their size.

    Raises
    ------
    ValueError
        If no tensor fits, or they take more than `MOST_BYTES`.

    Examples
    --------
    >>> made = {"steps/1/loss": np.ones(()), "steps/1/weights/a": np.ones(2), "steps/1/weights/b": np.ones(2)}
    >>> list(kept_steps(made, ["a"]))
    ['1/loss', '1/weights/a']
    """
    kept = {
        name.removeprefix("steps/"): array
        for name, array in made.items()
        if patterns is None or name.count("/") < 3 or matches(name.split("/", 3)[3], list(patterns))
    }
    if made and not any(stage_of(f"steps/{name}") == "weights" for name in kept):
        raise ValueError(
            f"parameters: expected a pattern that fits a tensor with a gradient, got {listed(list(patterns or ()))}"
        )
    size = sum(array.nbytes for array in kept.values())
    if size > MOST_BYTES:
        raise ValueError(size_error(size))
    return kept


def check_size(steps: int, weights: Mapping[str, Any], patterns: Sequence[str] | None) -> None:
    """Refuse steps that would take more than `MOST_BYTES` before they are made.

    Examples
    --------
    >>> check_size(2, {"x": np.zeros((2, 3))}, None)
    """
    size = sum(
        steps * len(BY_TENSOR) * max(array.nbytes, 4 * array.size)
        for name, array in weights.items()
        if patterns is None or matches(name, list(patterns))
    )
    if size > MOST_BYTES:
        raise ValueError(size_error(size))


def size_error(size: int) -> str:
    """Say that steps take too much, and what takes less.

    Examples
    --------
    >>> size_error(3 * 2**30)
    'steps: expected arrays of 2.0 GiB at most in a bundle, got 3.0 GiB: fewer steps, parameters= and dtype= take less'
    """
    gib = size / 2**30
    return f"steps: expected arrays of {MOST_BYTES / 2**30:.1f} GiB at most in a bundle, got {gib:.1f} GiB: " + (
        "fewer steps, parameters= and dtype= take less"
    )
