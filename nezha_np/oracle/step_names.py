"""The names of the arrays of training steps: ``steps/NUMBER/STAGE``, and ``steps/NUMBER/STAGE/NAME`` of a tensor."""

from __future__ import annotations

STEPS = "steps/"
# What is measured by passes in each dtype; the tolerances of all others follow from these, element by element.
MEASURED = ("loss", "gradients", "norm", "clipped", "trust_ratio")
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
