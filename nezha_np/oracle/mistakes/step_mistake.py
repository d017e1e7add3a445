"""What a mistake of a training step is: functions in place of some stages of `nezha_np.oracle.training_steps`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from nezha_np.oracle.recipe import Recipe
from nezha_np.oracle.training_steps import StageChanges

OPTIMIZERS = ("lamb", "adamw", "bert_adam")
CORRECTED = ("lamb", "adamw")  # they divide the moments by 1 − βᵗ
TIED = "embeddings.word_embeddings.weight"  # what the decoder of a language model shares
AnyStage = TypeVar("AnyStage", bound=Callable[..., Any])


@dataclasses.dataclass(eq=False)
class StepMistake:
    """One mistake.

    Attributes
    ----------
    name : str
        A short name.
    does, right : str
        What a port that makes it does, and what is right, to be read after "right is".
    optimizers : tuple of str
        The optimisers with which it can be made.
    variant : str or None
        The one variant of LAMB with which it can be made; None: both.
    ways : dict of str to (dict of str to functions)
        For each way to make it, what is computed in place of which stages.
    """

    name: str
    does: str
    right: str
    optimizers: tuple[str, ...] = OPTIMIZERS
    variant: str | None = None
    ways: dict[str, StageChanges] = dataclasses.field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """What is done and what is right, without a full stop."""
        return f"{self.does}; right is {self.right}"

    def fits(self, recipe: Recipe) -> bool:
        """Whether it can be made with a recipe."""
        return recipe.optimizer in self.optimizers and self.variant in (None, recipe.variant)

    def way(self, name: str, *stages: str) -> Callable[[AnyStage], AnyStage]:
        """Register the decorated function as a way to make the mistake, or as a part of it.

        Parameters
        ----------
        name : str
            Which way it is, "" where there is one alone.
        *stages : str
            The stages that it replaces.

        Returns
        -------
        callable
            A decorator that returns the function as it is.
        """

        def register(function: AnyStage) -> AnyStage:
            self.ways[name] = {**self.ways.get(name, {}), **dict.fromkeys(stages, function)}
            return function

        return register


def step_mistake(
    part: list[StepMistake],
    name: str,
    *,
    does: str,
    right: str,
    optimizers: tuple[str, ...] = OPTIMIZERS,
    variant: str | None = None,
) -> StepMistake:
    """Write a mistake down in a part of the catalogue, to which its ways are added below it.

    Parameters
    ----------
    part : list of StepMistake
        The part of the catalogue. Of mistakes that explain as much, the first is named first.
    name, does, right, optimizers, variant
        As `StepMistake` has them.

    Returns
    -------
    StepMistake
        Without ways.

    Examples
    --------
    >>> step_mistake([], "decay missing", does="nothing decays", right="to decay").sentence
    'nothing decays; right is to decay'
    """
    part.append(StepMistake(name, does, right, optimizers, variant))
    return part[-1]
