"""The passes of training steps: loss and gradients of a batch, part by part, in a dtype, rightly or with a mistake."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.mechanism import definitions, recording
from nezha_np.model.tasks import TASKS
from nezha_np.oracle.bounded import Bounded
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
        parts: Sequence[Part] | None = None,
        masks_of: Callable[[int], int | None] = lambda number: number,
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
        parts : sequence of mapping, optional
            Other parts of the batch.
        masks_of : callable
            Takes the number of steps before this one, and says whose dropout masks are used; None: no dropout.
        averaged : str
            How the parts are put together: "over labels", by how many labels each has; "over parts", by their plain mean;
            "summed".
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
        parts = self.batches[step.t - 1] if parts is None else parts
        whole, of_step = count_labels(head, parts), masks_of(step.t - 1)
        held = step.weights if weights is None else weights
        tensors = {name: as_computed(np.asarray(value.value), self.arithmetic) for name, value in held.items()}
        loss, gradients = 0.0, {}
        for index, part in enumerate(parts):
            own = count_labels(head, [part])
            shares = dict.fromkeys(own, 1.0 if averaged == "summed" else 1.0 / len(parts))
            if averaged == "over labels":
                shares = {name: own[name] / whole[name] if own[name] else 0.0 for name in own}
            seed = None
            if recipe.dropout_seed is not None and of_step is not None:
                seed = (recipe.dropout_seed, of_step, *([index] if index else []))
            part_loss, found = self._part(tensors, part, seed, shares, recipe.loss_scale, changes)
            loss += part_loss
            for name, gradient in found.items():
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
        unit = max(step.unit, ARITHMETICS["float64"].epsilon)
        at = f"steps/{step.t}"
        return Bounded(np.asarray(loss), self.tolerance(f"{at}/loss"), unit), {
            name: Bounded(array, self.tolerance(f"{at}/gradients/{name}"), unit) for name, array in gradients.items()
        }

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
            return loss, {name: _widened(gradient) / loss_scale for name, gradient in gradients.items()}


def _widened(array: Any) -> np.ndarray:
    array = to_numpy(array)
    return array.astype(np.float32) if array.dtype == np.float16 else array
