"""Recording a golden bundle: one pass by definitions, its walk back, and how far rounding may lead away from it."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import nezha_np
from nezha_np.arrays import check_dtype, is_array, kind_of, to_numpy
from nezha_np.checks import check_integer, check_switches, listed
from nezha_np.families.config import Config
from nezha_np.layers import losses
from nezha_np.mechanism import Tape, definitions, recording
from nezha_np.mechanism.patterns import check_patterns, matches
from nezha_np.model.tasks import TASKS
from nezha_np.oracle.bundle import Bundle, bundle_path, checkpoint_hash, flattened
from nezha_np.oracle.differences import difference, is_additive_mask, largest, magnitude
from nezha_np.oracle.rounding import ARITHMETICS, Arithmetic, Rounded, inputs_in, weights_in
from nezha_np.weights.checkpoint import SHIPPED, load
from nezha_np.weights.init import init
from nezha_np.weights.weights import Weights

NUDGES = range(8)  # one pass rounded as it is, and seven that are nudged
# How much more than what these passes show is still taken for rounding: right ports were seen to need 4.3.
MARGIN = 6.0
OF_A_MASK = 0.5  # the tolerance of an additive mask, in every dtype: 0 or never is all that it says


def record(
    weights: Weights | Config | str | Path | None,
    input_ids: Any = None,
    *,
    head: str = "forward",
    seed: int = 0,
    dtype: Any = "float64",
    output: Any = None,
    gradients: bool = True,
    path: str | Path | None = None,
    **inputs: Any,
) -> Bundle:
    """Record a pass of a head as a golden bundle.

    Parameters
    ----------
    weights : Weights, configuration, str, Path or None
        Weights, which the bundle will hold; or a configuration, whose weights `nezha_np.init` draws anywhere from the
        seed; or the path of a checkpoint, of which the bundle holds the hash; None: the model that ships with the
        package.
    input_ids, **inputs
        What the head takes, labels among it, as lists or arrays; with a loss the gradients are recorded too.
    head : str
        "forward", "masked_lm", "pretraining" …: a public function of `nezha_np`.
    seed : int
        The seed of `init`.
    dtype : str or dtype
        What to compute in: "float64", "float32" or "float16".
    output : str or sequence of str, optional
        Patterns of the intermediates to keep, as for `nezha_np.trace`; None: all. Outputs and gradients are all kept.
    gradients : bool
        Whether to record gradients where there is a loss.
    path : str or Path, optional
        Where to save the bundle: a name that ends in ``.safetensors``.

    Returns
    -------
    Bundle
        What was recorded.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If an argument is wrong; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    >>> bundle = nz.oracle.record(config, [[2, 3]], head="masked_lm", labels=[[-100, 4]])
    >>> list(bundle.gradients)[:3]
    ['loss', 'cls.predictions.decoder', 'cls.predictions']
    """
    if head not in tuple(TASKS):
        raise ValueError(f"head: expected one of {', '.join(TASKS)}, got {head!r}")
    if "config" in inputs:
        raise TypeError(
            "config: expected none, because weights bring their own: give nezha_np.Weights(weights, config)"
        )
    name, kept = check_dtype(dtype), None if output is None else check_patterns("output", output)
    check_switches(gradients=gradients)
    if path is not None:
        path = bundle_path(path)
    weights, recipe = _weights_and_recipe(weights, head, check_integer("seed", seed), name)
    arguments = {"input_ids": input_ids, **inputs}
    given = {key: _as_given(key, value, name) for key, value in arguments.items() if value is not None}
    tape, out = run(Tape(None), head, weights, given)
    trace = {key: to_numpy(array) for key, array in tape.items()}
    outputs = in_order(outputs_of(out), trace)
    if kept is not None:
        trace = {key: array for key, array in trace.items() if matches(key, kept)}
        if not trace:
            raise ValueError(f"output: expected a pattern that fits an intermediate, got {listed(list(kept))}")
    bundle = Bundle(
        head=head,
        config=weights.config,
        inputs=given,
        trace=trace,
        outputs=outputs,
        gradients=gradients_of(tape, out) if gradients else {},
        tolerances={},
        recipe=recipe,
        dtype=name,
        versions={"nezha_np": nezha_np.__version__, "numpy": np.__version__, "python": platform.python_version()},
        tensors=dict(weights) if recipe["kind"] == "inside" else None,
    )
    bundle.tolerances.update(measure_tolerances(bundle, weights, largest_logit(tape)))
    if path is not None:
        bundle.save(path)
    return bundle


def _weights_and_recipe(weights: Any, head: str, seed: int, dtype: str) -> tuple[Weights, dict[str, Any]]:
    """Bring the weights to NumPy and a dtype, and say how they can be had again."""
    if isinstance(weights, Weights):
        return weights.to(device="cpu", dtype=dtype), {"kind": "inside"}
    if isinstance(weights, Config):
        added = None if head in ("forward", "causal_lm") else head
        return init(weights, added, seed).to(dtype=dtype), {"kind": "init", "seed": seed, "head": added}
    if weights is None or isinstance(weights, (str, os.PathLike)):
        path = SHIPPED if weights is None else Path(weights)
        recipe = {"kind": "checkpoint", "sha256": checkpoint_hash(path, name="weights"), "name": path.resolve().name}
        return load(path, dtype=dtype), recipe
    raise TypeError(f"weights: expected Weights, a configuration, a path or None, got {type(weights).__name__}")


def _as_given(name: str, value: Any, dtype: str) -> Any:
    """Make arrays of lists, and bring floats to a dtype; switches stay as they are."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if name.startswith("past_key_values") and name.count(".") < 2 and isinstance(value, (tuple, list)):
        return tuple(_as_given(f"{name}.{index}", part, dtype) for index, part in enumerate(value))
    try:
        array = to_numpy(value) if is_array(value) else np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected rows of the same length, got lists of different lengths") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got {kind_of(value)}")
    return array.astype(dtype) if array.dtype.kind == "f" else array


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
    for index, (_, arguments, _, _) in enumerate(tape.calls):
        for argument in arguments:
            if id(argument) in tape.parameters:
                first_use.setdefault(id(argument), index)
    order: list[str] = []
    for index in range(len(tape.calls) - 1, -1, -1):
        _, arguments, _, result = tape.calls[index]
        order += names.get(id(result), [])
        order += [tape.parameters[id(argument)] for argument in arguments if first_use.get(id(argument)) == index]
    made = set(order)
    return order + [name for name in tape.arrays if name not in made]


def measure_tolerances(bundle: Bundle, weights: Weights, logits: float) -> dict[str, dict[str, float]]:
    """Run a bundle's pass in each dtype, and see how far its roundings lead: the largest difference for each name.

    `logits` is the largest logit that a cross-entropy is taken of.
    """
    golden = bundle.arrays
    found = {}
    for name, arithmetic in ARITHMETICS.items():
        worst = dict.fromkeys(map(id, golden.values()), 0.0)  # by array: one of several names has one tolerance
        for nudge in NUDGES if name != "float64" else (0,):
            rounded = rerun(bundle, weights, arithmetic, nudge)
            for key, array in golden.items():
                worst[id(array)] = max(worst[id(array)], largest(difference(key, array, rounded[key])))
        found[name] = {
            key: OF_A_MASK
            if is_additive_mask(key)
            else _short(MARGIN * max(worst[id(array)], arithmetic.epsilon * _scale(key, array, logits)))
            for key, array in golden.items()
        }
    # A float64 pass adds up in the golden one's own order: its roundings are those of float32, smaller by as much as
    # the distance between two numbers is. What it does show is how far golden numbers in a narrower dtype are off.
    ratio = ARITHMETICS["float64"].epsilon / ARITHMETICS["float32"].epsilon
    exact = {
        key: value if is_additive_mask(key) else max(value, _short(ratio * found["float32"][key]))
        for key, value in found["float64"].items()
    }
    return found | {"float64": exact}


def largest_logit(tape: Tape) -> float:
    """Return the largest logit that a cross-entropy is taken of.

    The loss is a difference of logits: where it is much smaller than they are, their roundings are its roundings.
    """
    logits = (arguments[0] for layer, arguments, _, _ in tape.calls if layer is losses.cross_entropy)
    return max((largest(magnitude("logits", to_numpy(of_loss))) for of_loss in logits), default=0.0)


def _scale(name: str, array: np.ndarray, logits: float) -> float:
    """Return the largest of the numbers that an array is made of by one step, where it is a loss, else its own."""
    is_loss = array.shape == () and not name.startswith("gradients/")
    return max(largest(magnitude(name, array)), logits if is_loss else 0.0)


def rerun(bundle: Bundle, weights: Weights, arithmetic: Arithmetic, nudge: int = 0) -> dict[str, np.ndarray]:
    """Run a bundle's pass with results rounded to a dtype: everything that `Bundle.arrays` has.

    A pass in float16 is one in float32 whose results are rounded to float16: NumPy's own products of float16 matrices
    take minutes for a large model, and round no more.
    """
    if arithmetic.computed_in == "float16":
        arithmetic = dataclasses.replace(arithmetic, computed_in="float32")
    tape, out = run(
        Rounded(arithmetic, nudge), bundle.head, weights_in(weights, arithmetic), inputs_in(bundle.inputs, arithmetic)
    )
    gradients = gradients_of(tape, out) if bundle.gradients else {}
    return {
        **tape,
        **{f"outputs/{name}": array for name, array in outputs_of(out).items()},
        **{f"gradients/{name}": array for name, array in gradients.items()},
    }


def _short(number: float) -> float:
    """Round up to three digits: a tolerance says no more."""
    return float(f"{number * 1.005:.3g}")
