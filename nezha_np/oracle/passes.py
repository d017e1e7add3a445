"""One pass of a head on a tape, and its walk back: what a bundle records of them, and in which order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.mechanism import Tape, definitions, recording
from nezha_np.model.tasks import TASKS
from nezha_np.oracle.nesting import flattened
from nezha_np.weights.weights import Weights


def run(tape: Tape, head: str, weights: Weights, inputs: Mapping[str, Any]) -> tuple[Tape, Any]:
    """Run a head on a tape; overflow and the like are for the comparison to find."""
    with np.errstate(all="ignore"), recording(tape):
        return tape, TASKS[head].function(weights, **inputs)


def outputs_of(out: Any) -> dict[str, np.ndarray]:
    """List what a head returned, each array by its name."""
    fields = {field.name: getattr(out, field.name) for field in dataclasses.fields(out)}
    return {name: to_numpy(array) for name, array in flattened(fields).items()}


def in_order(outputs: dict[str, np.ndarray], trace: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Put outputs in the order in which they are made, that of the intermediates that they are."""
    made = {id(array): place for place, array in enumerate(trace.values())}
    return dict(sorted(outputs.items(), key=lambda item: made.get(id(item[1]), len(made))))


def gradients_of(tape: Tape, out: Any) -> dict[str, np.ndarray]:
    """Walk back from the loss, if there is one: gradients in the order in which the walk completes them."""
    loss = getattr(out, "loss", None)
    if loss is None:
        return {}
    with np.errstate(all="ignore"), definitions():
        found = tape.walk_back(loss, intermediates=True)
    return {name: to_numpy(found[name]) for name in order_of_gradients(tape) if name in found}


def order_of_gradients(tape: Tape) -> list[str]:
    """List names as the walk back completes them: a result's when it reaches its layer, a weight's at its first use."""
    names: dict[int, list[str]] = {}
    for name, array in tape.arrays.items():
        names.setdefault(id(array), []).append(name)
    first_use: dict[int, int] = {}
    for index, call in enumerate(tape.calls):
        for argument in call.arguments:
            if id(argument) in tape.parameters:
                first_use.setdefault(id(argument), index)
    order: list[str] = []
    for index in range(len(tape.calls) - 1, -1, -1):
        call = tape.calls[index]
        order += names.get(id(call.result), [])
        order += [tape.parameters[id(argument)] for argument in call.arguments if first_use.get(id(argument)) == index]
    made = set(order)
    return order + [name for name in tape.arrays if name not in made]
