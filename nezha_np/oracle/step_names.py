"""The names of the arrays of training steps: ``steps/NUMBER/STAGE``, and ``steps/NUMBER/STAGE/NAME`` of a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STEPS = "steps/"
# What is measured by passes in each dtype; the tolerances of all others follow from these, element by element.
MEASURED = ("loss", "gradients", "norm", "clipped", "trust_ratio")
BY_TENSOR = ("gradients", "clipped", "first_moment", "second_moment", "update", "trust_ratio", "weights")
# The stages in the order in which they are made.
STAGE_NAMES = (
    "loss",
    "gradients",
    "norm",
    "clipped",
    "learning_rate",
    "first_moment",
    "second_moment",
    "update",
    "trust_ratio",
    "weights",
    "step",
)


def stage_of(name: str) -> str:
    """Return the stage of an array of a step.

    Examples
    --------
    >>> stage_of("steps/2/first_moment/pooler.dense.weight"), stage_of("steps/1/loss")
    ('first_moment', 'loss')
    """
    return name.split("/")[2]


def is_derived(name: str) -> bool:
    """Whether the tolerance of an array follows from others, element by element.

    Examples
    --------
    >>> is_derived("steps/2/update/pooler.dense.weight"), is_derived("steps/1/loss"), is_derived("outputs/loss")
    (True, False, False)
    """
    return name.startswith("steps/") and stage_of(name) not in MEASURED


def check_steps(arrays: Mapping[str, Any], steps: int, *, with_ratios: bool) -> None:
    """Check that every stage of every step is there, and each array of a tensor in its shape.

    Parameters
    ----------
    arrays : mapping of str to array
        The arrays by their names below ``steps/``.
    steps : int
        How many steps.
    with_ratios : bool
        Whether there are trust ratios.

    Raises
    ------
    ValueError
        If one is missing, or has another shape; the message names it.

    Examples
    --------
    >>> check_steps({"1/weights/x": None}, 1, with_ratios=False)
    Traceback (most recent call last):
    ...
    ValueError: expected every number of a training step, found no steps/1/loss
    """
    tensors = [name.removeprefix("1/weights/") for name in arrays if name.startswith("1/weights/")]
    for number in range(1, steps + 1):
        for stage in STAGE_NAMES:
            if stage == "trust_ratio" and not with_ratios:
                continue
            for tensor in tensors if stage in BY_TENSOR else [""]:
                name = f"{number}/{stage}/{tensor}".rstrip("/")
                if name not in arrays:
                    raise ValueError(f"expected every number of a training step, found no {STEPS}{name}")
                shape = arrays[f"1/weights/{tensor}"].shape if tensor and stage != "trust_ratio" else ()
                if arrays[name].shape != shape or arrays[name].dtype.kind != "f":
                    got = f"{arrays[name].dtype} {arrays[name].shape}"
                    raise ValueError(f"expected floats of shape {shape} for {STEPS}{name}, got {got}")
