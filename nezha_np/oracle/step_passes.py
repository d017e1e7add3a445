"""The passes of training steps: loss and gradients of a batch, part by part, in a dtype, rightly or with a mistake."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.mechanism import Layer, Tape, definitions, recording
from nezha_np.model.tasks import TASKS
from nezha_np.oracle.bounded import Bounded
from nezha_np.oracle.passes import order_of_gradients
from nezha_np.oracle.replay import Changes, GradientReplay
from nezha_np.oracle.rounding import ARITHMETICS, Arithmetic, as_computed, inputs_in
from nezha_np.oracle.training_steps import Numbers, StepNumbers
from nezha_np.training.accumulation import count_labels
from nezha_np.weights.weights import Weights

Part = Mapping[str, Any]
Batches = tuple[tuple[dict[str, Any], ...], ...]  # of each step its parts


@dataclasses.dataclass(frozen=True, eq=False)
class Passes:
    """What makes loss and gradients of a step.

    Attributes
    ----------
    head : str
        The task.
    config : configuration
        That of the weights.
    batches : tuple of tuple of dict
        Of each step the parts of its batch.
    arithmetic : Arithmetic
        What the passes are computed in; gradients are float32 at least.
    nudge : int
        As for `Rounded`.
    tolerance : callable
        How far another implementation's loss and gradients may be from these, by the names of their arrays.
    """

    head: str
    config: Any
    batches: Batches
    arithmetic: Arithmetic
    nudge: int = 0
    tolerance: Callable[[str], float] = lambda name: 0.0

    def __call__(
        self,
        step: StepNumbers,
        *,
        weights: Numbers | None = None,
        parts: str = "all",
        masks_of: Callable[[int], int | None] = lambda number: number,
        same_masks: bool = False,
        averaged: str = "over labels",
        changes: Changes | None = None,
    ) -> tuple[Bounded, Numbers]:
        """Compute loss and gradients.

        Parameters
        ----------
        step : StepNumbers
            The step.
        weights : dict of str to Bounded, optional
            Other weights than those before the step.
        parts : str
            Which parts of the batch: "all", "first", "last", or "texts", each text as a part of its own.
        masks_of : callable
            Takes the number of steps before this one, and says whose dropout masks are used; None: no dropout.
        same_masks : bool
            Whether every part has the dropout masks of the first.
        averaged : str
            How the parts are put together: "over labels", by how many labels each has; "over parts", by their plain
            mean; "summed"; "over all labels", those of the parts that are not taken too; "over tokens" or "over
            attended tokens", by all tokens of the batch or those of the attention mask, with a label or without.
        changes : mapping of layers to functions, optional
            A mistake of the walk back.

        Returns
        -------
        loss : Bounded
            The loss.
        gradients : dict of str to Bounded
            Those of the weights.
        """
        recipe, head = step.recipe, TASKS[self.head].function
        taken = self._taken(step, parts)
        counted = self._taken(step, "all") if averaged == "over all labels" else taken
        whole, of_step = count_labels(head, [part for _, part in counted]), masks_of(step.t - 1)
        if "tokens" in averaged:
            whole = dict.fromkeys(whole, count_tokens((part for _, part in taken), attended="attended" in averaged))
        owns = [count_labels(head, [part]) for _, part in taken]
        with_labels = {name: max(1, sum(own[name] > 0 for own in owns)) for name in whole}
        held = step.weights if weights is None else weights
        tensors = {name: as_computed(np.asarray(value.value), self.arithmetic) for name, value in held.items()}
        loss, gradients = 0.0, dict[str, np.ndarray]()
        for (index, part), own in zip(taken, owns, strict=True):
            shares = {name: own[name] / (whole[name] or 1) for name in own}
            if averaged in ("over parts", "summed"):
                shares = {name: 1.0 / with_labels[name] if averaged == "over parts" else 1.0 for name in own}
            shares = {name: share if own[name] else 0.0 for name, share in shares.items()}
            seed = None
            if recipe.dropout_seed is not None and of_step is not None:
                seed = (recipe.dropout_seed, of_step, *([index] if index and not same_masks else []))
            part_loss, found = self._part(tensors, part, seed, shares, recipe.loss_scale, changes)
            loss += part_loss
            for name, gradient in found.items():
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
        unit = max(step.unit, ARITHMETICS["float64"].epsilon)
        at = f"steps/{step.t}"
        return Bounded(np.asarray(loss), self.tolerance(f"{at}/loss"), unit), {
            name: Bounded(array, self.tolerance(f"{at}/gradients/{name}"), unit) for name, array in gradients.items()
        }

    def layers(self, weights: Numbers) -> set[Layer]:
        """List the layers that a pass calls."""
        exact = {name: np.asarray(value.value, np.float64) for name, value in weights.items()}
        tape = Tape(None)
        with np.errstate(all="ignore"), recording(tape):
            TASKS[self.head].function(Weights(exact, self.config), **inputs_in(self.batches[0][0], self.arithmetic))
        return {call.layer for call in tape.calls}

    def _taken(self, step: StepNumbers, parts: str) -> list[tuple[int, Part]]:
        """List parts of the step's batch with their numbers."""
        taken: list[tuple[int, Part]] = list(enumerate(self.batches[step.t - 1]))
        if parts == "texts":
            return list(enumerate(text for _, part in taken for text in divided(part, count_texts(part))))
        return {"all": taken, "first": taken[:1], "last": taken[-1:]}[parts]

    def _part(
        self,
        tensors: Mapping[str, np.ndarray],
        part: Part,
        seed: tuple[int, ...] | None,
        shares: Mapping[str, float],
        loss_scale: float,
        changes: Changes | None,
    ) -> tuple[float, dict[str, np.ndarray]]:
        """Compute the shares of a part in loss and gradients."""
        weights, inputs = Weights(dict(tensors), self.config), inputs_in(part, self.arithmetic)
        tape = GradientReplay(
            weights, inputs, {}, self.arithmetic, changes=changes, nudge=self.nudge, dropout_seed=seed
        )
        with np.errstate(all="ignore"):
            with recording(tape):
                out = TASKS[self.head].function(weights, **inputs)
            scales = {name: share * loss_scale for name, share in shares.items()}
            with definitions():
                gradients = tape.walk_back(out.loss, scales=scales)
            losses = [share * float(tape[name]) for name, share in shares.items() if share]
            loss = sum(losses) / (2.0 if self.head == "question_answering" else 1.0)
            ordered = (name for name in order_of_gradients(tape) if name in gradients)
            return loss, {name: _widened(gradients[name]) / loss_scale for name in ordered}


def _widened(array: Any) -> np.ndarray:
    values: np.ndarray = to_numpy(array)
    return values.astype(np.float32) if values.dtype == np.float16 else values


def count_texts(batch: Part) -> int:
    """Count the texts of a batch.

    Examples
    --------
    >>> count_texts({"input_ids": np.array([[2, 3], [2, 4]])})
    2
    """
    return len(np.asarray(batch["input_ids"] if batch.get("input_ids") is not None else batch["inputs_embeds"]))


def count_tokens(parts: Iterable[Part], *, attended: bool) -> int:
    """Count the tokens of parts whose tokens have labels, all or those of the attention mask.

    Examples
    --------
    >>> count_tokens([{"input_ids": np.array([[2, 3]]), "labels": np.array([[-100, 3]])}], attended=False)
    2
    """
    total = 0
    for part in parts:
        mask = part.get("attention_mask") if attended else np.ones_like(part["input_ids"])
        labels = part.get("labels")
        if mask is None or labels is None or np.shape(labels) != np.shape(mask):
            raise ValueError("expected labels, and a mask, of every token")
        total += int(np.asarray(mask).sum())
    return total


def divided(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """Divide a batch by its texts.

    Examples
    --------
    >>> divided({"input_ids": np.array([[2, 3], [2, 4]]), "output_attentions": True}, 2)[1]
    {'input_ids': array([[2, 4]]), 'output_attentions': True}
    """
    if parts == 1:
        return [dict(batch)]
    if any(isinstance(value, tuple) for value in batch.values()):
        raise ValueError("accumulation_steps: expected 1 with past_key_values, which are not divided, got more")
    rows = count_texts(batch)
    if rows < parts:
        raise ValueError(f"accumulation_steps: expected at most the {rows} texts of a batch, got {parts}")
    cuts = [index * rows // parts for index in range(parts + 1)]

    def cut(name: str, value: Any, low: int, high: int) -> Any:
        array = np.asarray(value)
        return array[low:high] if array.ndim and len(array) == rows and name != "head_mask" else value

    return [
        {name: cut(name, value, low, high) for name, value in batch.items()} for low, high in itertools.pairwise(cuts)
    ]
