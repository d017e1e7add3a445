"""What a mistake is, how its ways are registered, what is known of a step where one is recognised.

A mistake is written down once, where the functions that make it stand:

    reversed_distance = mistake(POSITIONS, "name", does="what is done", right="what is right")

    @reversed_distance.way("which way", layer, at="**.scores")
    def change(step, *arguments, **options): ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np

from nezha_np.families import FAMILIES, bert, convbert, nezha
from nezha_np.mechanism import Layer
from nezha_np.mechanism.patterns import matches
from nezha_np.oracle.replay import At, Call, Change, Changes, Step
from nezha_np.weights.weights import Weights

NEZHA, BERT, CONVBERT = ((family.config.model_type,) for family in (nezha.NEZHA, bert.BERT, convbert.CONVBERT))
ALL = (*NEZHA, *BERT, *CONVBERT)
NEZHA_AND_BERT = (*NEZHA, *BERT)  # they have decoders, caches, cross-attention and a pooler
WITH_LEARNED_POSITIONS = tuple(name for name in ALL if "position_embeddings" in FAMILIES[name].marks)
# The linear layers that make a language model's logits.
LM_DECODERS = tuple(dict.fromkeys(FAMILIES[name].decoder.removesuffix(".weight") for name in ALL))
LAYER = "encoder.layer."
ENOUGH = 4  # how many more equations than unknowns make a fit evidence

Ways = Mapping[str, Changes]  # by which way
AnyChange = TypeVar("AnyChange", bound=Change)


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a step that differs from theirs.

    Attributes
    ----------
    step : Step
        The step.
    layer, arguments, options
        The primitive that makes it, and how it is called.
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
        """Whether a value differs from theirs by no more than rounding explains, or by so many times that."""
        return bool((np.abs(value - self.theirs) <= margin * self.allowed).all())

    def replace_result(self, value: np.ndarray, way: str = "") -> Ways:
        """Return the change that makes a value at this step."""
        return {way: {self.layer: At(self.step.name, lambda step, *arguments, **options: value)}}


Recogniser = Callable[[Evidence], Ways]


@dataclasses.dataclass(frozen=True, eq=False)
class Sites:
    """What is known of the steps that lie between their arrays, where these are few.

    Attributes
    ----------
    step : str
        The step that differs from theirs, the last of them.
    layer : Layer or None
        What makes it; None: several primitives do.
    right : array
        What it makes.
    calls : dict of str to (layer, arguments, options)
        How each of these steps was called.
    made : dict of str to array
        What each made.
    others : dict of str to array
        What was made before the step, by their numbers where they have them, the latest first.
    weights : Weights
        All weights.
    """

    step: str
    layer: Layer | None
    right: np.ndarray
    calls: Mapping[str, Call]
    made: Mapping[str, np.ndarray]
    others: Mapping[str, np.ndarray]
    weights: Weights


Near = Iterator[tuple[str, Changes]]


@dataclasses.dataclass(eq=False)
class Mistake:
    """One mistake.

    Attributes
    ----------
    name : str
        A short name.
    does, right : str
        What a port that makes it does, and what is right, to be read after "right is".
    families : tuple of str
        The families in which it can be made.
    indivisible : bool
        Whether all its changes belong together: a part of them alone is another mistake.
    of_rounding : bool
        Whether it is a matter of rounding, and so cannot move a step by more than a part of its largest number.
    fits_any_numbers : bool
        Whether what is fitted has so many free numbers that it comes close to nearly anything: then a difference of a
        few roundings is not enough.
    across_texts : tuple of str
        Patterns of the ways in which a text's numbers depend on the other texts of the batch.
    ways : dict of str to (dict of layers to functions)
        The changes of each way to make it; the key says which way, "" where there is one alone.
    recognise : callable or None
        ``recognise(evidence)``: ways in which it may have been made, fitted to their numbers; {} where there is none.
    near : callable or None
        ``near(sites)``: ways to make it at the steps between their arrays; they depend on what these steps are.
    """

    name: str
    does: str
    right: str
    families: tuple[str, ...] = ALL
    indivisible: bool = False
    of_rounding: bool = False
    fits_any_numbers: bool = False
    across_texts: tuple[str, ...] = ()
    ways: dict[str, Changes] = dataclasses.field(default_factory=dict)
    recognise: Recogniser | None = None
    near: Callable[[Sites], Near] | None = None

    @property
    def sentence(self) -> str:
        """What is done and what is right, without a full stop."""
        return f"{self.does}; right is {self.right}"

    def acts_text_by_text(self, way: str, changes: Changes) -> bool:
        """Whether what a way makes of a text depends on no other text; what is fitted is fitted to all of them."""
        return self.ways.get(way) is changes and not matches(way, self.across_texts)

    def way(self, name: str, *layers: Layer, at: str | tuple[str, ...] = ()) -> Callable[[AnyChange], AnyChange]:
        """Register the decorated function as a way to make the mistake, or as a part of it.

        Parameters
        ----------
        name : str
            Which way it is, "" where there is one alone. Functions of one name make one way together.
        *layers : layers
            The layers whose definitions it replaces.
        at : str or tuple of str
            Patterns of the steps that it changes; (): all steps of these layers.

        Returns
        -------
        callable
            A decorator that returns the function as it is.
        """

        def register(change: AnyChange) -> AnyChange:
            self.add_way(name, dict.fromkeys(layers, At(at, change) if at else change))
            return change

        return register

    def add_way(self, name: str, changes: Changes) -> None:
        """Register changes that were put together, as a way or as a part of it."""
        self.ways[name] = {**self.ways.get(name, {}), **changes}

    def recogniser(self, function: Recogniser) -> Recogniser:
        """Register the decorated function as what recognises the mistake by their numbers."""
        self.recognise = function
        return function

    def near_the_fault(self, function: Callable[[Sites], Near]) -> Callable[[Sites], Near]:
        """Register the decorated function as what lists ways to make the mistake at steps between their arrays."""
        self.near = function
        return function


def mistake(
    part: list[Mistake],
    name: str,
    *,
    does: str,
    right: str,
    families: tuple[str, ...] = ALL,
    indivisible: bool = False,
    of_rounding: bool = False,
    fits_any_numbers: bool = False,
    across_texts: tuple[str, ...] = (),
) -> Mistake:
    """Write a mistake down in a part of the catalogue, to which its ways are added below it.

    Parameters
    ----------
    part : list of Mistake
        The part of the catalogue. The order in which mistakes are written down decides where two explain as much.
    name, does, right, families, indivisible, of_rounding, fits_any_numbers, across_texts
        As `Mistake` has them.

    Returns
    -------
    Mistake
        Without ways.

    Examples
    --------
    >>> from nezha_np.layers.layer_norm import layer_norm
    >>> norms = []
    >>> missing = mistake(norms, "norm missing", does="a layer_norm is left out", right="to apply it")
    >>> @missing.way("", layer_norm)
    ... def unchanged(step, x, *rest, **options):
    ...     return x
    >>> norms[0].sentence, [layer.__name__ for layer in norms[0].ways[""]]
    ('a layer_norm is left out; right is to apply it', ['layer_norm'])
    """
    part.append(Mistake(name, does, right, families, indivisible, of_rounding, fits_any_numbers, across_texts))
    return part[-1]


def nothing(step: Step, *arguments: Any, **options: Any) -> Any:
    """Zeros in place of the result."""
    return np.zeros_like(step.right(*arguments, **options))


def first(step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """The first argument as it is."""
    return x


def second(step: Step, x: Any, y: Any, *rest: Any, **options: Any) -> Any:
    """The second argument as it is."""
    return y


def of_every_layer(name: str) -> str:
    """Make a pattern of the same step of every layer.

    Examples
    --------
    >>> of_every_layer("encoder.layer.0.output.dense"), of_every_layer("pooler.dense")
    ('encoder.layer.*.output.dense', 'pooler.dense')
    """
    if not name.startswith(LAYER):
        return name
    return f"{LAYER}*.{name.removeprefix(LAYER).partition('.')[2]}"
