"""Attribution: which steps of a quantised or half-precision port add the error, and which only pass it on.

A port in int8 or float16 makes no mistake that has a name, and yet its result is off. Each step is computed again, in
float64, from *their* inputs to it:

    error      = theirs − golden              what the step is off by
    own        = theirs − step(their inputs)  what it adds by itself: its roundings
    inherited  = step(their inputs) − golden  what came with its inputs; error = own + inherited

All three are told as parts of the golden array, ‖·‖ / ‖golden‖, the error also as a cosine and as a signal-to-noise
ratio, 20 log₁₀(‖golden‖ / ‖error‖) dB. What an own error costs at the end depends on what follows it. So for the steps
with the largest, the golden pass is run once more with this error alone, and the end of the pass is compared:

    cost       = ‖end(golden pass + own error of this step) − golden end‖ / ‖golden end‖

The own error of a linear layer in int8 has two parts, one of the rounded weights and one of the rounded activations.
The layers of `nezha_np.layers.int8_linear` say what both would be in a known engine; the engine that comes closest is
named where it explains most of the error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.layers.int8_linear import ENGINES, dequantized, int8_linear
from nezha_np.layers.linear import linear
from nezha_np.mechanism.summary import format_table
from nezha_np.oracle.alignment import of_trace
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.comparison import taken
from nezha_np.oracle.differences import is_additive_mask
from nezha_np.oracle.progress import Count, Progress, check_progress
from nezha_np.oracle.replay import Replay, replay
from nezha_np.oracle.rounding import ARITHMETICS, inputs_in, weights_in
from nezha_np.weights.weights import Weights

QUANTILES = (0.5, 0.9, 0.99, 1.0)
COSTS = 12  # steps whose cost is measured, a pass each
EXPLAINED = 0.3  # an engine explains an error if what is left of it is a smaller part than this


@dataclasses.dataclass(frozen=True)
class Int8:
    """What 8-bit integers explain of the own error of a linear layer.

    Attributes
    ----------
    engine : str
        The engine of `nezha_np.layers.int8_linear.ENGINES` that comes closest.
    of_weights, of_activations : float
        The error of rounded weights alone and of rounded activations alone, as parts of the golden array.
    left : float
        What is left of the own error, as a part of it; 0 where theirs are exactly the engine's numbers.
    """

    engine: str
    of_weights: float
    of_activations: float
    left: float


@dataclasses.dataclass(frozen=True)
class StepError:
    """The error of a step.

    Attributes
    ----------
    name : str
        The step.
    error, own, inherited : float
        What it is off by, what it adds itself, what came with its inputs: norms, as parts of the golden array's.
    cosine : float
        Between theirs and the golden array.
    snr : float
        The signal-to-noise ratio in dB, infinite where there is no error.
    quantiles : tuple of float
        Of the absolute error, at one half, 90 %, 99 % and the largest, as parts of the largest golden number.
    cost : float or None
        What its own error alone costs at the end of the pass, as a part of what stands there; None: not measured.
    int8 : Int8 or None
        What 8-bit integers explain; None where they do not, or the step is no linear layer.
    """

    name: str
    error: float
    own: float
    inherited: float
    cosine: float
    snr: float
    quantiles: tuple[float, ...]
    cost: float | None = None
    int8: Int8 | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
    """Where a port loses its precision.

    Attributes
    ----------
    steps : tuple of StepError
        Each step that they have, in the order in which it is made.
    end : str
        The last of them that is no single number: where costs are measured.
    dtype : str
        What they compute in.
    """

    steps: tuple[StepError, ...]
    end: str
    dtype: str

    @property
    def costly(self) -> tuple[StepError, ...]:
        """The steps whose own error was followed to the end, those that cost most first."""
        measured = [(step.cost, step) for step in self.steps if step.cost is not None]
        return tuple(step for _, step in sorted(measured, key=lambda pair: -pair[0]))

    def table(self, *, every: bool = False) -> str:
        """Return a table of the steps that cost most, or of every step in the order in which it is made."""
        headings = ("name", "error", "own", "inherited", "cosine", "SNR", "99 %", "largest", "cost", "int8")
        rows: list[tuple[str, ...]] = [headings]
        for step in self.steps if every else self.costly:
            parts = (step.error, step.own, step.inherited)
            rows.append(
                (
                    step.name,
                    *(f"{part:.1e}" for part in parts),
                    f"{step.cosine:.6f}",
                    f"{step.snr:.1f} dB",
                    *(f"{part:.1e}" for part in step.quantiles[2:]),
                    "" if step.cost is None else f"{step.cost:.1e}",
                    "" if step.int8 is None else _said(step.int8),
                )
            )
        return format_table(rows, right=range(1, 9))

    def __str__(self) -> str:
        last = next(step for step in self.steps if step.name == self.end)
        lines = [
            f"{self.end} is off by {last.error:.2e} of its norm ({last.snr:.1f} dB, cosine {last.cosine:.6f}); "
            f"of this it adds {last.own:.2e} itself"
        ]
        if self.costly:
            lines += [f"the steps whose own error costs most at {self.end}, each alone:", "", self.table()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, texts and lists, for JSON; an infinite ratio is None."""
        steps = []
        for step in self.steps:
            told = dataclasses.asdict(step)
            told["snr"] = step.snr if np.isfinite(step.snr) else None
            steps.append({key: list(value) if isinstance(value, tuple) else value for key, value in told.items()})
        return {"end": self.end, "dtype": self.dtype, "quantiles": list(QUANTILES), "steps": steps}


def _said(int8: Int8) -> str:
    return f"{int8.engine}: weights {int8.of_weights:.1e}, activations {int8.of_activations:.1e}, left {int8.left:.0%}"


def attribute(
    bundle: Bundle | str | Path,
    theirs: Mapping[str, Any] | Callable[..., Any] | Bundle | str | Path,
    *,
    weights: Weights | str | Path | None = None,
    rename: Mapping[str, str] | None = None,
    names: str | None = None,
    transposed: bool = False,
    dtype: str | None = None,
    progress: Progress | None = None,
) -> Attribution:
    """Find out at which steps another implementation loses its precision.

    Parameters
    ----------
    bundle : Bundle or path
        The golden pass.
    theirs, rename, names, transposed, dtype
        As for `nezha_np.oracle.compare`. Between two of their arrays several steps may lie: their errors count as one.
    weights : Weights, str or Path, optional
        The weights, or their checkpoint, where the bundle does not have them: those before quantisation.
    progress : callable, optional
        Is told how many passes are done, and of how many.

    Returns
    -------
    Attribution
        Prints as a table of the steps that cost most.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If an argument is wrong, or the two have no intermediate in common; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    >>> bundle = nz.oracle.record(nz.init(config), [[2, 3]])
    >>> names = ("encoder", "pooler.dense")
    >>> theirs = {name: bundle.trace[name].astype("float32") for name in names}
    >>> theirs["pooler.dense"] = theirs["pooler.dense"].astype("float16").astype("float32")
    >>> found = nz.oracle.attribute(bundle, theirs)
    >>> found.costly[0].name
    'pooler.dense'
    """
    check_progress(progress)
    bundle, aligned = taken(bundle, theirs, rename=rename, names=names, transposed=transposed, dtype=dtype)
    exact = ARITHMETICS["float64"]
    in_float64 = {
        name: np.asarray(array, np.float64)
        for name, array in of_trace(bundle, aligned.arrays).items()
        if not is_additive_mask(name) and array.dtype.kind == "f" and array.size
    }
    if not in_float64:
        raise ValueError("theirs: expected intermediates of the pass, got none")
    passes = _Passes(bundle, weights_in(bundle.weights(weights), exact), inputs_in(bundle.inputs, exact))
    return _attribute(passes, in_float64, aligned.dtype, Count(progress))


@dataclasses.dataclass(frozen=True, eq=False)
class _Passes:
    """The pass of a bundle, to be run again in float64."""

    bundle: Bundle
    weights: Weights
    inputs: Mapping[str, Any]

    def run(self, theirs: Mapping[str, np.ndarray]) -> Replay:
        """Run the pass, and go on with their arrays where they are given."""
        return replay(self.bundle, self.weights, self.inputs, theirs)


def _attribute(passes: _Passes, theirs: Mapping[str, np.ndarray], dtype: str, count: Count) -> Attribution:
    golden, replayed = passes.bundle.trace, passes.run(theirs)
    one_for_each = {id(golden[name]): name for name in reversed(golden) if name in theirs and name in replayed.made}
    names = [
        name for name in golden if one_for_each.get(id(golden[name])) == name
    ]  # of two names of an array the first
    own = {name: theirs[name] - replayed.made[name] for name in names}
    steps = {name: _step(name, np.asarray(golden[name], np.float64), theirs[name], own[name]) for name in names}
    end = next((name for name in reversed(names) if theirs[name].size > 1), names[-1])  # a loss would tell little
    largest = sorted((name for name in names if steps[name].own > 0.0), key=lambda name: -steps[name].own)[:COSTS]
    for name in count.each(largest):
        right = np.asarray(golden[end], np.float64)
        ended = passes.run({name: golden[name] + own[name]}).made[end] if name != end else right + own[end]
        cost = _part(ended - right, right)
        steps[name] = dataclasses.replace(steps[name], cost=cost, int8=_int8(replayed, name, golden[name], own[name]))
    return Attribution(tuple(steps.values()), end, dtype)


def _part(error: np.ndarray, golden: np.ndarray) -> float:
    """Return the norm of an error as a part of the golden array's."""
    size = float(np.linalg.norm(golden))
    return float(np.linalg.norm(error)) / size if size else float(bool(np.any(error)))


def _step(name: str, golden: np.ndarray, theirs: np.ndarray, own: np.ndarray) -> StepError:
    error = theirs - golden
    sizes = float(np.linalg.norm(golden)), float(np.linalg.norm(theirs))
    cosine = float(np.vdot(golden, theirs)) / (sizes[0] * sizes[1]) if all(sizes) else float(sizes[0] == sizes[1])
    off = _part(error, golden)
    most = float(np.abs(golden).max()) or 1.0
    return StepError(
        name,
        off,
        _part(own, golden),
        _part(error - own, golden),
        cosine,
        float(-20.0 * np.log10(off)) if off else float("inf"),
        tuple(float(part) / most for part in np.quantile(np.abs(error), QUANTILES)),
    )


def _int8(replayed: Replay, name: str, golden: np.ndarray, own: np.ndarray) -> Int8 | None:
    """Compare the own error of a linear layer with those of the engines, each on their inputs to the layer."""
    layer, arguments, _ = replayed.calls.get(name, (None, (), {}))
    if layer is not linear:
        return None
    x, weight, *bias = arguments
    right, found = linear.definition(x, weight, *bias), []
    for engine, (of_activations, of_weights) in ENGINES.items():
        parts = (
            int8_linear(x, weight, *bias, engine=engine) - right,
            linear.definition(x, dequantized(weight, of_weights), *bias) - right,
            linear.definition(dequantized(x, of_activations), weight, *bias) - right,
        )
        both, weights_alone, activations_alone = (to_numpy(part).reshape(own.shape) for part in parts)
        left = _part(own - both, own)
        found.append(Int8(engine, _part(weights_alone, golden), _part(activations_alone, golden), left))
    best = min(found, key=lambda one: one.left)
    return best if best.left < EXPLAINED else None
