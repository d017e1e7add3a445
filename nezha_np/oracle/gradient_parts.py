"""One gradient by itself: made of their last gradients before it, and the part that comes back through each call.

A walk back through the whole pass says what every gradient should be. To try a mistake at one of them takes only the
calls between it and their last gradients: one or two, where they have all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.mechanism import Layer, definitions
from nezha_np.mechanism.calls import Call
from nezha_np.oracle.replay import Changes, GradientReplay


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """What one call gives to a gradient.

    Attributes
    ----------
    site : str
        The name of the call's result.
    layer : layer
        What was called.
    place : int
        Which of its arguments the gradient belongs to.
    array : array
        The part.
    """

    site: str
    layer: Layer
    place: int
    array: np.ndarray


class GradientParts:
    """The calls that make one gradient of their last gradients before it.

    Parameters
    ----------
    recorder : GradientReplay
        The taped pass.
    loss : () array
        The loss, where every walk begins.
    step : str
        The name of an array or a weight.

    Attributes
    ----------
    sites : dict of str to layer
        The names of the results of these calls, in the order of the walk.
    direct : dict of str to layer
        Those of these calls that get the array itself.
    uses : list of (str, layer, int)
        The arguments of these calls that a gradient goes back to: the site, what is called, and which argument it is.
    """

    def __init__(self, recorder: GradientReplay, loss: Any, step: str) -> None:
        self.recorder, self.step = recorder, step
        self.number = recorder.identities.find(self._array(step))
        self._given: dict[int, Any] = {}  # the gradients that a walk begins with, by number
        self._calls = self._calls_between(loss)
        self.uses = [
            (recorder.names_of(call.result)[0], call.layer, place)
            for call in self._calls
            for place, number in enumerate(call.numbers)
            if number is not None and number not in recorder.constants
        ]
        self.direct = {
            recorder.names_of(call.result)[0]: call.layer for call in self._calls if self.number in call.numbers
        }
        self.sites = {recorder.names_of(call.result)[0]: call.layer for call in self._calls}

    def _calls_between(self, loss: Any) -> list[Call]:
        recorder, wanted, found = self.recorder, {self.number}, set()
        first = recorder.identities.find(loss)
        for index, call in enumerate(recorder.calls):  # results come after their arguments
            if not isinstance(call, Call) or wanted.isdisjoint(call.numbers):
                continue
            found.add(index)
            theirs = [recorder.theirs[name] for name in recorder.names_of(call.result) if name in recorder.theirs]
            if theirs:
                self._given[call.number] = theirs[0]
            elif call.number == first:
                self._given[call.number] = np.ones_like(loss)
            else:
                wanted.add(call.number)
        return [call for index in sorted(found, reverse=True) if isinstance(call := recorder.calls[index], Call)]

    def goes_on_without(self, site: str, names: Collection[str]) -> bool:
        """Whether the gradient of an argument of a call goes on to none of these arrays and weights."""
        others = {self.recorder.identities.find(self._array(name)) for name in names}
        return any(
            others.isdisjoint(self._reached(number))
            for call in self._calls
            for number in call.numbers
            if site in self.recorder.names_of(call.result) and number is not None
            if number not in self.recorder.constants
        )

    def _reached(self, number: int) -> set[int]:
        """List the numbers of all arrays that a gradient goes on to, its own among them."""
        reached = {number}
        for call in reversed(self.recorder.calls):  # arguments come before their results
            if isinstance(call, Call) and call.number in reached:
                reached.update(own for own in call.numbers if own is not None)
        return reached

    def _array(self, name: str) -> Any:
        recorder = self.recorder
        return recorder.held[name] if name in recorder.held else recorder.arrays[name]

    def parts(self, changes: Changes | None = None, only: str | None = None) -> list[Part]:
        """Make the gradient, part by part, with a mistake; see `GradientReplay.with_mistake`."""
        recorder, sums, found = self.recorder.with_mistake(changes, only), dict(self._given), []
        with np.errstate(all="ignore"), definitions():
            for call in self._calls:
                if (dy := sums.get(call.number)) is None:
                    continue
                made = recorder.compute_gradient(dy, call.result, call.layer, call.arguments, call.options)
                parts = made if isinstance(made, tuple) else (made,)
                for place, (number, part) in enumerate(zip(call.numbers, parts, strict=False)):
                    if part is None or number is None:
                        continue
                    if number == self.number:
                        found.append(Part(recorder.names_of(call.result)[0], call.layer, place, to_numpy(part)))
                    elif number not in self._given:
                        sums[number] = sums[number] + part if number in sums else part
        return found

    def gradient(self, changes: Changes | None = None, only: str | None = None) -> np.ndarray | None:
        """Make the gradient with a mistake; None where no part of it is made."""
        parts = self.parts(changes, only)
        return None if not parts else np.asarray(sum(part.array for part in parts))
