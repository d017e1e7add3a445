"""What a mistake is, what is known of a step where one is recognised, and what several parts share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nezha_np.families import FAMILIES, bert, convbert, nezha
from nezha_np.mechanism import Layer
from nezha_np.oracle.replay import At, Changes, Step

Ways = Mapping[str, Changes]  # by which way


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a step that is not theirs.

    Attributes
    ----------
    step : Step
        The step.
    layer, arguments, options
        The primitive that makes it, and what from.
    right, theirs : array
        What it makes, and what they have.
    allowed : float
        The largest difference that rounding explains.
    others : dict of str to array
        What was made before it, by their numbers where they have them, the latest first.
    """

    step: Step
    layer: Layer
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    right: np.ndarray
    theirs: np.ndarray
    allowed: float
    others: Mapping[str, np.ndarray]

    def is_explained_by(self, value: Any, margin: float = 1.0) -> bool:
        """Whether a value is theirs, but for what rounding explains, or so many times that."""
        return bool((np.abs(value - self.theirs) <= margin * self.allowed).all())

    def instead(self, value: np.ndarray, way: str = "") -> Ways:
        """Return the change that makes a value at this step."""
        return {way: {self.layer: At(self.step.name, lambda step, *arguments, **options: value)}}


@dataclasses.dataclass(frozen=True, eq=False)
class Mistake:
    """One mistake.

    Attributes
    ----------
    name : str
        A short name.
    sentence : str
        What is done, and what is right.
    ways : dict of str to (dict of layers to functions)
        The changes of each way to make it; the key says which way, "" where there is one alone.
    families : tuple of str
        Where it can be made.
    recognise : callable, optional
        ``recognise(evidence)``: ways in which it may have been made, fitted to their numbers; {} where there is none.
    whole : bool
        Whether it is this mistake only where all its changes are made, and a part of them is another one.
    of_rounding : bool
        Whether it is a matter of rounding, and so cannot move a step by more than a part of its largest number.
    """

    name: str
    sentence: str
    ways: Ways
    families: tuple[str, ...] = tuple(FAMILIES)
    recognise: Callable[[Evidence], Ways] | None = None
    whole: bool = False
    of_rounding: bool = False


NEZHA, BERT, CONVBERT = ((family.config.model_type,) for family in (nezha.NEZHA, bert.BERT, convbert.CONVBERT))
WITH_LEARNED_POSITIONS = tuple(name for name, family in FAMILIES.items() if "position_embeddings" in family.marks)
DECODERS = tuple(dict.fromkeys(family.decoder.removesuffix(".weight") for family in FAMILIES.values()))
ENOUGH = 4  # how many more equations than unknowns make a fit evidence


def nothing(step: Step, *arguments: Any, **options: Any) -> Any:
    """Zeros in place of the result."""
    return np.zeros_like(step.right(*arguments, **options))


def first(step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """The first argument as it is."""
    return x


def second(step: Step, x: Any, y: Any, *rest: Any, **options: Any) -> Any:
    """The second argument as it is."""
    return y
