"""Trials on one text of the batch: those that come no closer to its numbers come no closer to all.

A text's numbers depend on no other text, and nor does what most mistakes make of them. So a trial first runs on the
text in which theirs differ most, which takes a part of the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.oracle.closeness import Apart, alike, apart
from nezha_np.oracle.differences import difference
from nezha_np.oracle.replay import Replay, replay

if TYPE_CHECKING:
    from nezha_np.oracle.doctor import Doctor

TEXTS = ("input_ids", "inputs_embeds")  # the inputs whose first axis is that of the texts: one of them is given
OF_ALL_TEXTS = ("head_mask",)  # the inputs that have no such axis
SAME = 1.0 / 16.0  # of the difference in question: how far a text by itself may be from the same text in the batch


class OneText:
    """One text of a batch in the port's dtype, and the right pass over it.

    Parameters
    ----------
    doctor : Doctor
        The consultation.
    known : dict of str to array
        What is known before a step, of all texts.
    right : Replay
        The right pass over all texts, to the step.
    theirs : array
        Their numbers of the step.

    Raises
    ------
    ValueError
        If there is one text alone, or the step is not made text by text.
    """

    def __init__(self, doctor: Doctor, known: Mapping[str, np.ndarray], right: Replay, theirs: np.ndarray) -> None:
        self.doctor, self.step, self.steps = doctor, str(right.target), right.steps
        inputs, made = doctor.rounded_inputs, right.made[self.step]
        self.texts = len(next(inputs[name] for name in TEXTS if inputs.get(name) is not None))
        if self.texts == 1 or not made.ndim or len(made) % self.texts:
            raise ValueError("the step is not made text by text")
        differences = difference(self.step, made, theirs).reshape(self.texts, -1).max(axis=1)
        self.text = int(differences.argmax())
        self.inputs = {name: self._of_input(name, value) for name, value in inputs.items()}
        of_one = self._replay({}).made  # with the shapes that the arrays of one text have
        self.known = {name: self._of_text(array, of_one[name]) for name, array in known.items()}
        self.right = self.replay()
        of_all, self.theirs = (self._of_text(array, of_one[self.step]) for array in (made, theirs))
        if not apart(self.step, self.right.made[self.step], of_all).most <= SAME * differences.max():
            raise ValueError("a text by itself has other numbers than in the batch")

    def replay(self, **options: Any) -> Replay:
        """Make the step for this text."""
        return self._replay(self.known, steps=self.steps, target=self.step, by_kernels=True, **options)

    def left(self, done: Replay) -> Apart:
        """Say how far a trial is from all of their numbers at least, if it is so far from this text's."""
        left = apart(self.step, done.made.get(self.step), self.theirs)
        return Apart(left.most, left.typical / math.sqrt(self.texts))

    def alike(self, done: Replay) -> float:
        """Say how much what a trial changes looks like what differs."""
        return alike(self.step, done.made.get(self.step), self.right.made[self.step], self.theirs)

    def _replay(self, known: Mapping[str, np.ndarray], **options: Any) -> Replay:
        return replay(self.doctor.bundle, self.doctor.rounded_weights, self.inputs, known, **options)

    def _of_input(self, name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._of_input(name, item) for item in value)
        if name in OF_ALL_TEXTS or not isinstance(value, np.ndarray) or not value.ndim or len(value) != self.texts:
            return value
        return value[self.text : self.text + 1]

    def _of_text(self, array: np.ndarray, of_one: np.ndarray) -> np.ndarray:
        """Take the rows of this text: several for each text, where it has choices."""
        if array.shape == of_one.shape:
            return array
        if array.shape != (self.texts * len(of_one), *of_one.shape[1:]):
            raise ValueError(f"expected the numbers of {self.texts} texts, got shape {array.shape}")
        return array[self.text * len(of_one) : (self.text + 1) * len(of_one)]
