"""Recording a golden bundle: one pass by definitions, its walk back, and the tolerances for other implementations."""

from __future__ import annotations

import math
import os
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nezha_np
from nezha_np.arrays import is_array, kind_of, refuse_masked, to_numpy
from nezha_np.checks import check_dtype, check_integer, check_switches, listed
from nezha_np.families.config import Config
from nezha_np.mechanism import Tape
from nezha_np.mechanism.interventions import active_interventions
from nezha_np.mechanism.patterns import check_patterns, matches
from nezha_np.model.tasks import TASKS
from nezha_np.oracle.bundle import Bundle, bundle_path, checkpoint_hash
from nezha_np.oracle.bundle_document import TOLERANCES_BY
from nezha_np.oracle.passes import gradients_of, in_order, outputs_of, run
from nezha_np.oracle.progress import Progress, check_progress
from nezha_np.oracle.recipe import OPTIONS
from nezha_np.oracle.rounding import ARITHMETICS
from nezha_np.oracle.step_recording import kept_steps, plan_steps
from nezha_np.oracle.step_tolerances import rerun_steps
from nezha_np.oracle.tolerances import largest_logit, measure_tolerances, quick_tolerances
from nezha_np.weights.checkpoint import SHIPPED, load
from nezha_np.weights.init import init
from nezha_np.weights.weights import Weights

STORED_WEIGHTS = ("inside", "float16", "hash")
LARGE_FILE = 500_000_000  # bytes from which on `record` warns


def record(
    weights: Weights | Config | str | Path | None,
    input_ids: Any = None,
    *,
    head: str = "forward",
    seed: int = 0,
    dtype: Any = "float64",
    output: Any = None,
    gradients: bool = True,
    tolerances: str | None = "measured",
    stored_weights: str | None = None,
    path: str | Path | None = None,
    replace: bool = True,
    progress: Progress | None = None,
    step: Any = None,
    steps: int = 1,
    learning_rate: float | Sequence[float] | Callable[[int], float] | None = None,
    clip_norm: float = 1.0,
    accumulation_steps: int = 1,
    loss_scale: float = 1.0,
    dropout_seed: int | None = None,
    batches: Sequence[Any] | None = None,
    parameters: Any = None,
    **inputs: Any,
) -> Bundle:
    """Record a pass as a golden bundle, and training steps after it.

    Parameters
    ----------
    weights : Weights, configuration, str, Path or None
        Weights, which the bundle will hold; or a configuration, whose weights `nezha_np.init` samples from the seed,
        the same on any machine; or the path of a checkpoint, of which the bundle holds the hash; None: the model that
        ships with the package.
    input_ids, **inputs
        What the task takes, labels among it, as lists or arrays; with a loss the gradients are recorded too. With
        `step` the options of the optimiser stand among them: ``weight_decay``, ``beta1``, ``beta2``, ``eps``,
        ``decays``, of LAMB ``variant``.
    head : str
        "forward", "masked_lm", "pretraining" …: a public function of `nezha_np`.
    seed : int
        The seed of `init`.
    dtype : str or dtype
        What to compute in: "float64", "float32" or "float16".
    output : str or sequence of str, optional
        Patterns of the intermediates to record, as for `nezha_np.trace`: ``*`` stands for any text within a part of a
        name, ``**`` for any text; None: all. Outputs and gradients are all recorded.
    gradients : bool
        Whether to record gradients where there is a loss.
    tolerances : str or None
        How to find out how far rounding alone leads away from each array in float64, float32, float16 and bfloat16.
        "measured": by 25 more passes, rounded to these dtypes. "quick": by one more pass in float32, whose roundings
        are scaled to the other dtypes; wider, and without what a narrow range does to float16 (`docs/bundles.md` says
        what it promises). None: not at all; then `nezha_np.oracle.compare` needs a ``tolerance=``.
    stored_weights : str, optional
        What the bundle has of the weights: "inside", all of them; "float16", all of them, rounded to float16 before the
        pass, which is computed with exactly these; "hash", the SHA-256 of a checkpoint. None: as `weights` says above.
    path : str or Path, optional
        Where to save the bundle: a name that ends in ``.safetensors``.
    replace : bool
        False: a file of this name is left as it is, also one that appears while the bundle is recorded.
    progress : callable, optional
        Is told how far it is: called with the number of passes that are done and of all, ``progress=print`` for
        example.
    step : module or str, optional
        The optimiser of training steps, `lamb`, `adamw` or `bert_adam` of `nezha_np.training`, or its name; None: no
        steps are recorded.
    steps : int
        How many training steps. Each takes about six times the bytes of the weights, all at most 2 GiB.
    learning_rate : float, sequence of float, or callable
        The learning rate: one, that of each step, or a function of how many steps were made.
    clip_norm : float
        The largest global norm of the gradients; they are clipped to it before the step.
    accumulation_steps : int
        Into how many parts a batch is divided, whose gradients are accumulated before a step.
    loss_scale : float
        What the loss is multiplied by before the walk back, and the gradients are divided by after it.
    dropout_seed : int, optional
        The seed of the dropout masks in training steps; None: no dropout.
    batches : sequence, optional
        Of each step the arguments of the head as a mapping, or a sequence of mappings, whose gradients are accumulated;
        None: every step has those that are given here. Without `input_ids` the recorded pass is that of the first.
    parameters : str or sequence of str, optional
        Patterns of the tensors whose arrays are recorded at each step; None: all.

    Returns
    -------
    Bundle
        What was recorded.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If an argument is wrong; the message names it.
    FileExistsError
        If there is a file of the name, and `replace` is False.

    Warns
    -----
    UserWarning
        Before the pass, if weights and their gradients make a file of more than half a gigabyte.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    >>> bundle = nz.oracle.record(config, [[2, 3]], head="masked_lm", labels=[[-100, 4]])
    >>> list(bundle.gradients)[:3]
    ['loss', 'cls.predictions.decoder', 'cls.predictions']
    >>> from nezha_np.training import lamb
    >>> inputs = {"head": "masked_lm", "labels": [[-100, 4]]}
    >>> bundle = nz.oracle.record(config, [[2, 3]], **inputs, step=lamb, steps=2, learning_rate=1e-3)
    >>> list(bundle.steps)[:2]
    ['1/loss', '1/gradients/cls.predictions.bias']
    """
    if active_interventions():
        raise ValueError("record: expected no nz.intervene around it: a bundle is a pass of the model as it is")
    if head not in tuple(TASKS):
        raise ValueError(f"head: expected one of {', '.join(TASKS)}, got {head!r}")
    if "config" in inputs:
        raise TypeError(
            "config: expected none, because weights bring their own: give nezha_np.Weights(weights, config)"
        )
    name, patterns = check_dtype(dtype), None if output is None else check_patterns("output", output)
    check_switches(gradients=gradients, replace=replace)
    if tolerances not in TOLERANCES_BY:
        raise ValueError(f"tolerances: expected 'measured', 'quick' or None, got {tolerances!r}")
    check_progress(progress)
    if path is not None:
        path = bundle_path(path)
        if not replace and path.exists():
            raise FileExistsError(f"path: expected a new file, found {path}, and replace is False")
    if stored_weights not in (None, *STORED_WEIGHTS):
        raise ValueError(f"stored_weights: expected {', '.join(STORED_WEIGHTS)} or None, got {stored_weights!r}")
    weights, recipe = _weights_and_recipe(weights, head, check_integer("seed", seed), name)
    if stored_weights == "hash" and recipe["kind"] != "checkpoint":
        raise ValueError("stored_weights: expected 'hash' with the path of a checkpoint as weights, got it without one")
    if stored_weights in ("inside", "float16"):
        recipe = {"kind": "inside"}
    if stored_weights == "float16":
        weights = weights.to(dtype="float16").to(dtype=name)
    options = {key: inputs.pop(key) for key in OPTIONS if key in inputs}
    arguments = {"input_ids": input_ids, **inputs}
    inputs = {key: _as_input(key, value, name) for key, value in arguments.items() if value is not None}
    asked = {"steps": steps, "learning_rate": learning_rate, "clip_norm": clip_norm, "loss_scale": loss_scale}
    asked |= {"accumulation_steps": accumulation_steps, "dropout_seed": dropout_seed, "batches": batches}
    plan = plan_steps(step, weights, head, inputs, options, parameters, asked)
    of_steps = tuple(
        tuple({key: _as_input(key, value, name) for key, value in part.items() if value is not None} for part in parts)
        for parts in plan.batches
    )
    inputs = inputs or (dict(of_steps[0][0]) if of_steps else {})
    with_gradients = gradients and any(key in inputs for key in TASKS[head].labels)
    _warn_of_a_large_file(weights, recipe, stored_weights, name, with_gradients=with_gradients)
    tape, out = run(Tape(None), head, weights, inputs)
    trace = {key: to_numpy(array) for key, array in tape.items()}
    outputs = in_order(outputs_of(out), trace)
    if patterns is not None:
        trace = {key: array for key, array in trace.items() if matches(key, patterns)}
        if not trace:
            raise ValueError(f"output: expected a pattern that fits an intermediate, got {listed(list(patterns))}")
    bundle = Bundle(
        head=head,
        config=weights.config,
        inputs=inputs,
        trace=trace,
        outputs=outputs,
        gradients=gradients_of(tape, out) if gradients else {},
        tolerances={},
        recipe=recipe,
        dtype=name,
        versions={"nezha_np": nezha_np.__version__, "numpy": np.__version__, "python": platform.python_version()},
        tensors=_stored(weights, stored_weights) if recipe["kind"] == "inside" else None,
        tolerances_by=tolerances,
        training=plan.recipe,
        batches=of_steps,
    )
    bundle.steps.update(kept_steps(rerun_steps(bundle, weights, ARITHMETICS[name]), plan.patterns))
    if tolerances == "measured":
        bundle.tolerances.update(measure_tolerances(bundle, weights, largest_logit(tape), progress))
    elif tolerances == "quick":
        bundle.tolerances.update(quick_tolerances(bundle, weights))
    if path is not None:
        bundle.save(path, replace=replace)
    return bundle


def _weights_and_recipe(weights: Any, head: str, seed: int, dtype: str) -> tuple[Weights, dict[str, Any]]:
    """Bring the weights to NumPy and a dtype, and say how they can be made again."""
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


def _stored(weights: Weights, stored: str | None) -> dict[str, np.ndarray]:
    """Return the tensors that a bundle holds."""
    if stored == "float16":
        weights = weights.to(dtype="float16")
    return {key: to_numpy(array) for key, array in weights.items()}


def _warn_of_a_large_file(
    weights: Weights, recipe: Mapping[str, Any], stored: str | None, recorded_in: str, *, with_gradients: bool
) -> None:
    """Warn before a long pass whose file will be large, and say what makes it smaller."""
    numbers = sum(math.prod(array.shape) for array in weights.values())
    size = numbers * np.dtype(recorded_in).itemsize
    inside = 0 if recipe["kind"] != "inside" else numbers * 2 if stored == "float16" else size
    of_gradients = size if with_gradients else 0
    if inside + of_gradients <= LARGE_FILE:
        return
    parts = [f"{inside / 1e6:,.0f} MB of weights (stored_weights='float16' or 'hash' makes fewer)"] if inside else []
    parts += [f"{of_gradients / 1e6:,.0f} MB of their gradients (none without labels)"] if of_gradients else []
    warnings.warn(f"record: the bundle will hold {' and '.join(parts)}", stacklevel=3)


def _as_input(name: str, value: Any, dtype: str) -> Any:
    """Make arrays of lists, and bring floats to a dtype; switches stay as they are."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if name.startswith("past_key_values") and name.count(".") < 2 and isinstance(value, (tuple, list)):
        return tuple(_as_input(f"{name}.{index}", part, dtype) for index, part in enumerate(value))
    refuse_masked(name, value)
    try:
        array = to_numpy(value) if is_array(value) else np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected rows of the same length, got lists of different lengths") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got {kind_of(value)}")
    return array.astype(dtype) if array.dtype.kind == "f" else array
