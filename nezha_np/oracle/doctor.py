"""The doctor: which step another implementation gets wrong, and which mistake makes its numbers.

Each step is computed from *their* inputs to it. The first whose result is not theirs is the fault; it is computed again
under every mistake of the catalogue (`nezha_np.oracle.mistakes`), and those that make their numbers are named. Where
none does, the doctor says so, and how the numbers differ: at which tokens, heads, distances or features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.checks import listed
from nezha_np.layers import losses
from nezha_np.layers.dropout import unchanged
from nezha_np.oracle.alignment import Theirs, align, of_trace, steps_of_outputs
from nezha_np.oracle.bundle import Bundle, load_bundle
from nezha_np.oracle.closeness import apart, root_mean_square
from nezha_np.oracle.comparison import compare_aligned, describe_row
from nezha_np.oracle.description import describe_difference
from nezha_np.oracle.diagnosis import Diagnosis, Finding, best_of_each
from nezha_np.oracle.differences import NEVER, difference, is_additive_mask, largest, largest_difference, magnitude
from nezha_np.oracle.gradient_doctor import diagnose_gradients
from nezha_np.oracle.masked_tokens import masked_tokens, of_masked, without_masked
from nezha_np.oracle.mistakes import MISTAKES, Evidence, Mistake, Sites, too_few_rows
from nezha_np.oracle.progress import Count, Progress, check_progress
from nezha_np.oracle.replay import CANNOT, Changes, Replay, Step, replay
from nezha_np.oracle.rounding import ARITHMETICS, Arithmetic, inputs_in, weights_in
from nezha_np.oracle.search import COPIES, FAR, Contradicted, Search, Trial
from nezha_np.oracle.step_doctor import diagnose_steps
from nezha_np.oracle.tolerances import MARGIN, OF_A_MASK, quick_tolerances
from nezha_np.weights.weights import Weights

NUDGES = (0, 1, 2)  # passes that measure rounding: 0 as it is, the others with results moved in their last place
LEAST = float(np.finfo(np.float32).min)


def diagnose(
    bundle: Bundle | str | Path,
    theirs: Mapping[str, Any] | Bundle | str | Path,
    *,
    weights: Weights | str | Path | None = None,
    rename: Mapping[str, str] | None = None,
    names: str | None = None,
    transposed: bool = False,
    dtype: str | None = None,
    ignore_masked: bool = False,
    progress: Progress | None = None,
) -> Diagnosis:
    """Find out what another implementation does wrong.

    Parameters
    ----------
    bundle : Bundle or path
        The golden pass.
    theirs : mapping of str to array, Bundle, or path
        Their arrays, some or all; the more of them, the sharper the answer.
    weights : Weights, str or Path, optional
        The weights, or their checkpoint, where the bundle does not have them.
    rename, names, transposed, dtype, ignore_masked
        As for `nezha_np.oracle.compare`.
    progress : callable, optional
        Is told how far it is: called with the number of trials that are done and of all, ``progress=print`` for
        example. A large model takes minutes.

    Returns
    -------
    Diagnosis
        Prints as what the doctor says.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        If an argument is wrong, or the two have nothing in common; the message names it.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    >>> weights = nz.init(config)
    >>> bundle = nz.oracle.record(weights, [[2, 3]], token_type_ids=[[0, 1]])
    >>> with nz.trace() as theirs:
    ...     out = nz.forward(weights, [[2, 3]])
    >>> print(nz.oracle.diagnose(bundle, theirs).names)
    ('token types ignored',)
    """
    check_progress(progress)
    bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    found = align(bundle, theirs, rename=rename, names=names, transposed=transposed, dtype=dtype)
    if ignore_masked:
        found = dataclasses.replace(found, arrays=without_masked(bundle, found.arrays))
    own = bundle.weights(weights)
    if bundle.tolerances_by is None:
        bundle = dataclasses.replace(bundle, tolerances=quick_tolerances(bundle, own), tolerances_by="quick")
    return Doctor(bundle, own, found, Count(progress)).diagnosis()


def _trials(mistakes: Iterable[Mistake]) -> list[Trial]:
    """List every way of making each mistake."""
    return [(mistake, way, changes) for mistake in mistakes for way, changes in mistake.ways.items()]


class Doctor:
    """One consultation: the golden pass, their arrays in float64, and how much rounding explains of each step."""

    def __init__(
        self, bundle: Bundle, weights: Weights, theirs: Theirs, count: Count, notes: tuple[str, ...] = ()
    ) -> None:
        self.bundle, self.aligned, self.count, self.notes = bundle, theirs, count, notes
        self.arithmetic: Arithmetic = ARITHMETICS[theirs.dtype]
        exact, self.exact_weights = ARITHMETICS["float64"], weights
        # NumPy multiplies float16 matrices slowly; in float32 with rounded results the numbers are the same.
        fast = "float32" if theirs.dtype == "float16" else self.arithmetic.computed_in
        self.fast = dataclasses.replace(self.arithmetic, computed_in=fast)
        # What they have was rounded to their dtype; from there on everything is exact.
        self.rounded_weights = weights_in(weights, self.fast)
        self.rounded_inputs = inputs_in(bundle.inputs, self.fast)
        self.weights, self.inputs = weights_in(self.rounded_weights, exact), inputs_in(self.rounded_inputs, exact)
        taken = of_trace(bundle, theirs.arrays)
        self.theirs = {name: self._in_float64(name, array) for name, array in taken.items()}
        self.replayed = self.replay(self.theirs)
        self.made = self.replayed.made
        self.allowed, self.noise = self.rounding(self.made, self.theirs)
        self.differing = self.differing_of(self.made, self.allowed)

    def _in_float64(self, name: str, array: np.ndarray) -> np.ndarray:
        """Bring an array to float64; what means never in a mask is float32's minimum, whatever they write for it."""
        if array.dtype.kind != "f":
            return array
        array = array.astype(np.float64)
        return np.where(array <= NEVER, LEAST, array) if is_additive_mask(name) else array

    def in_their_dtype(self, name: str, array: np.ndarray) -> np.ndarray:
        """Give an array the dtype that NumPy computes theirs in."""
        array = np.maximum(array, LEAST) if is_additive_mask(name) else array
        with np.errstate(over="ignore"):
            return array.astype(self.fast.computed_in)

    def replay(self, theirs: Mapping[str, np.ndarray], **options: Any) -> Replay:
        """Run the pass on their numbers in float64."""
        return replay(self.bundle, self.weights, self.inputs, theirs, **options)

    def rounding(
        self, made: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], **options: Any
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Measure how much rounding explains of what was made of theirs: at most, and typically."""
        in_their_dtype = {name: self.in_their_dtype(name, array) for name, array in theirs.items()}
        epsilon = self.arithmetic.epsilon
        allowed = {name: epsilon * self._scale(name, array) for name, array in made.items()}
        typical = {name: epsilon / 4.0 * root_mean_square(magnitude(name, array)) for name, array in made.items()}
        for nudge in NUDGES:
            rounded = self.replay_in_their_dtype(in_their_dtype, arithmetic=self.fast, nudge=nudge, **options).made
            for name, array in made.items():
                found = apart(name, array, rounded.get(name))
                allowed[name] = max(allowed[name], found.most)
                typical[name] = max(typical[name], found.typical)
        # Masks are not rounded: all that is in them means attended to or never.
        allowed = {name: OF_A_MASK if is_additive_mask(name) else MARGIN * value for name, value in allowed.items()}
        return allowed, {name: max(value, allowed[name] / (8.0 * MARGIN)) for name, value in typical.items()}

    def rounding_of(
        self, step: str, made: np.ndarray, theirs: Mapping[str, np.ndarray], **options: Any
    ) -> tuple[float, float]:
        """Measure how much rounding explains of one step that a mistake makes."""
        allowed, typical = self.rounding({step: made}, theirs, **options)
        return allowed[step], typical[step]

    def replay_in_their_dtype(self, theirs: Mapping[str, np.ndarray], **options: Any) -> Replay:
        """Run the pass on their numbers in their dtype."""
        return replay(self.bundle, self.rounded_weights, self.rounded_inputs, theirs, **options)

    def _scale(self, name: str, made: np.ndarray) -> float:
        """Return the largest number of a step; for a cross-entropy, of its logits too, which may be larger."""
        layer, arguments, _ = self.replayed.calls.get(name, (None, (), {}))
        logits = arguments[0] if layer is losses.cross_entropy else np.zeros(0)
        return max(largest(magnitude(name, made)), largest(magnitude(name, logits)))

    def differing_of(
        self,
        made: Mapping[str, Any],
        allowed: Mapping[str, float],
        theirs: Mapping[str, np.ndarray] | None = None,
    ) -> list[str]:
        """List the steps whose results are not theirs, by more than rounding."""
        return [
            name
            for name, array in (self.theirs if theirs is None else theirs).items()
            if name not in made or not largest_difference(name, made[name], array) <= allowed[name]
        ]

    def diagnosis(self) -> Diagnosis:
        """Name the first step that does not follow from their inputs to it, and the mistakes that explain it."""
        notes = (*self.notes, *self._notes())
        if not self.differing and self.aligned.wrong_shape:
            return self._of_shapes(notes)
        if self.differing:
            return self._of_step(notes)
        exact = (self.weights, self.inputs)
        return (
            diagnose_gradients(self.bundle, *exact, self.aligned, notes, self.count)
            or diagnose_steps(self.bundle, self.exact_weights, self.aligned, notes, self.count)
            or self._all_right(notes)
        )

    def _of_step(self, notes: tuple[str, ...]) -> Diagnosis:
        """Diagnose the first step that differs, unless it is a matter of names or of masked tokens."""
        others = self._without_misnamed() or self._without_masked()
        step = self.differing[0]
        steps, evidence = self.replayed.steps_to(step), self._evidence(step)
        found = tuple(self._findings(step, steps, evidence))
        if others is not None and not any(finding.unexplained == 0 for finding in found):
            return dataclasses.replace(others.diagnosis(), agrees=False)
        seen = tuple(self._seen(step, steps, evidence))
        return Diagnosis(step, found, tuple(self.differing), seen, notes)

    def _without(self, arrays: Mapping[str, np.ndarray], note: str) -> Doctor:
        """Consult again on fewer or other arrays of theirs, and say why."""
        names = {name: self.aligned.names[name] for name in arrays}
        aligned = dataclasses.replace(self.aligned, arrays=dict(arrays), names=names)
        return Doctor(self.bundle, self.exact_weights, aligned, self.count, (*self.notes, note))

    def _without_misnamed(self) -> Doctor | None:
        """Leave out the first step that differs where what follows from the right one is theirs; None: it is not so.

        They call another number so: logits before their bias is added, for example. What follows has to tell the two
        apart: it is theirs with the right number, and with their own number it is not.
        """
        step = self.differing[0]
        rest = {name: array for name, array in self.theirs.items() if name != step}
        replayed = self.replay(rest)
        wrong = set(self.differing_of(replayed.made, self.allowed, rest))
        telling = set(self.differing) - wrong
        following = [name for name in rest if name in telling and replayed.is_made_of(name, step)]
        if not following or len(wrong) >= len(self.differing):
            return None
        same = {name for name, array in self.bundle.arrays.items() if array is self.bundle.trace[step]}
        left = {name: array for name, array in self.aligned.arrays.items() if name != step}
        left = {name: array for name, array in left.items() if name not in same or name in following}
        note = (
            f"{step} of yours is another number than the bundle's, but {following[0]}, which follows from it, is "
            "right: a matter of names, and left out"
        )
        others = self._without(left, note)
        # Their number may be large, and roundings too that were measured with it: without it they are smaller.
        return others if set(following).isdisjoint(others.differing) else None

    def _without_masked(self) -> Doctor | None:
        """Leave out masked tokens where theirs differ at these alone; None: it is not so."""
        masked = masked_tokens(self.bundle)
        if masked is None:
            return None
        step = self.differing[0]
        where = of_masked(step, self.theirs[step], masked)
        if where is None or (difference(step, self.made[step], self.theirs[step])[~where] > self.allowed[step]).any():
            return None
        note = (
            "yours differ at masked tokens alone, which nothing else reads: ignore_masked=True (--ignore-masked) "
            "leaves them out"
        )
        others = self._without(without_masked(self.bundle, self.aligned.arrays), note)
        return None if others.differing else others

    def _notes(self) -> list[str]:
        notes = []
        if unfit := list(self.aligned.wrong_shape):
            notes.append(f"of another shape than expected, and not looked at: {listed(unfit, 5)}")
        for order in dict.fromkeys(self.aligned.axes.values()):
            turned = [name for name, axes in self.aligned.axes.items() if axes == order]
            notes.append(f"taken with axes in the order {order}: {listed(turned, 5)}")
        if self.aligned.unknown:
            notes.append(f"not in the bundle, and left out: {listed(self.aligned.unknown)}")
        for their, why in self.aligned.idle.items():
            notes.append(f"the rename of {their!r} changes nothing: it {why}")
        if self.aligned.dtype_by == "bits":
            notes.append(f"{self.aligned.dtype} is a guess, by the bits of your arrays: dtype= says what it is")
        return notes

    def _of_this_family(self) -> list[Mistake]:
        return [mistake for mistake in MISTAKES if self.bundle.config.model_type in mistake.families]

    def _findings(self, step: str, steps: Collection[str], evidence: Evidence | None) -> list[Finding]:
        """Compute the step under every mistake, and list those that make their numbers.

        What is fitted to their numbers (a trained table, a dropout's mask) is tried where nothing exact makes them.
        """
        layers = set().union(*(self.replayed.layers.get(name, ()) for name in steps))
        search = Search(self, step, steps)
        size = magnitude(step, self.made[step])
        possible = [
            mistake
            for mistake in self._of_this_family()
            if not (mistake.of_rounding and search.before.most > largest(size) / 4.0)
        ]
        trials = [trial for trial in _trials(possible) if not layers.isdisjoint(trial[2])]
        found = search.at_all_steps([trial for trial in trials if not trial[0].of_rounding], self.count)
        if not any(finding.unexplained == 0 for finding in found):  # arithmetic of few bits takes long to imitate
            found += search.at_all_steps([trial for trial in trials if trial[0].of_rounding], self.count)
        if not any(finding.unexplained == 0 for finding in found):
            found += search.at_some_steps(self.count)
        fixed = [mistake for mistake in possible if not mistake.fits_any_numbers]
        found = found or self._recognised(search, fixed, evidence)
        found = found or search.near_the_fault(possible, self._sites(step, steps), self.count)
        if not found:
            found = self._recognised(search, [mistake for mistake in possible if mistake.fits_any_numbers], evidence)
        return best_of_each(found)

    def _recognised(self, search: Search, mistakes: list[Mistake], evidence: Evidence | None) -> list[Finding]:
        """List the findings of mistakes that are recognised by their numbers."""
        if evidence is None:
            return []
        found = []
        for mistake in self.count.each(mistakes):
            fitted = {} if mistake.recognise is None else mistake.recognise(evidence)
            for way, changes in fitted.items():
                found += search.fitted(mistake, way, changes, self.count)
        return found

    def _sites(self, step: str, steps: Collection[str]) -> Sites | None:
        """Return what is known of the steps between their arrays; None where these are many."""
        calls = {name: call for name, call in self.replayed.calls.items() if name in steps}
        if len([name for name, (layer, _, _) in calls.items() if layer not in COPIES]) > FAR:
            return None
        layer = self.replayed.calls[step][0] if step in self.replayed.calls else None
        made = {name: array for name, array in self.made.items() if name in steps}
        others = dict(reversed([(before, self.theirs.get(before, array)) for before, array in self.before(step)]))
        return Sites(step, layer, self.made[step], calls, made, others, self.weights)

    def _of_shapes(self, notes: tuple[str, ...]) -> Diagnosis:
        """Name the first array of another shape, where all that could be looked at is right."""
        step, array = next(iter(self.aligned.wrong_shape.items()))
        allowed = self.bundle.tolerances[self.arithmetic.name][step]
        seen = describe_difference(step, self.bundle.arrays[step], array, allowed)
        found = [
            finding
            for trial in self.count.each(_trials(self._of_this_family()))
            for finding in self._shaped_so(*trial, step, allowed)
        ]
        return Diagnosis(step, tuple(best_of_each(found)), tuple(self.aligned.wrong_shape), tuple(seen), notes)

    def _shaped_so(self, mistake: Mistake, way: str, changes: Changes, step: str, allowed: float) -> Iterator[Finding]:
        """Try a change on an array of another shape: it must give that shape and keep right what is right."""
        try:
            made = self.replay(self.theirs, changes=changes).made
        except CANNOT:
            return
        left = dict(self.aligned.wrong_shape)
        after = largest_difference(step, made.get(step), left[step])
        if after > allowed or self.differing_of(made, self.allowed):
            return
        unexplained = sum(made[name].shape != array.shape for name, array in left.items() if name in made)
        yield Finding(mistake.name, mistake.sentence, way, None, np.inf, after, unexplained)

    def _seen(self, step: str, steps: Collection[str], evidence: Evidence | None) -> Iterator[str]:
        """Say how a step differs from theirs, and what cannot be told from so little."""
        yield from describe_difference(step, self.made[step], self.theirs[step], self.allowed[step])
        if evidence is not None and (untold := too_few_rows(evidence)):
            yield untold
        between = [name for name in self.made if name in steps and name in self.bundle.trace]
        if len(between) > FAR:
            yield (
                f"{len(between) - 1} steps lie between your last arrays before it and this one: "
                f"{between[len(between) // 2]} of yours would tell in which half of them it is"
            )

    def before(self, step: str) -> Iterator[tuple[str, np.ndarray]]:
        """List what was made before a step."""
        for name, array in self.made.items():
            if name == step:
                return
            yield name, array

    def left(self, changes: Changes, only: str | None) -> int | None:
        """Count the steps that differ with a mistake too, beyond its own roundings; None: it cannot be made wholly.

        Raises
        ------
        Contradicted
            If a step that is right would be wrong with it.
        """
        try:
            done = self.replay(self.theirs, changes=changes, only=only)
            if done.refused and len(changes) > 1 and only is None:
                return None
            made = done.made
            left = self.differing_of(made, self.allowed)
            if left:
                own = {name: made[name] for name in left if name in made}
                left = self.differing_of(
                    made, self.allowed | self.rounding(own, self.theirs, changes=changes, only=only)[0]
                )
        except CANNOT:
            return len(self.differing)
        if any(name in made and name not in self.differing for name in left):
            raise Contradicted
        return len(left)

    def _evidence(self, step: str) -> Evidence | None:
        """Return what is known of the primitive that makes a step, None where there is none."""
        name = step
        while name not in self.replayed.calls or self.replayed.calls[name][0] is unchanged:
            sources = self.replayed.sources.get(name, ())
            if not sources or sources[0] in self.theirs:
                break
            name = sources[0]
        if name not in self.replayed.calls:
            return None
        if not np.isfinite(self.theirs[step]).all() or not self.theirs[step].any():
            return None  # nothing can be fitted to NaN or zeros
        layer, arguments, options = self.replayed.calls[name]
        return Evidence(
            Step(name, layer.definition, self.weights, self.inputs),
            layer,
            arguments,
            options,
            self.made[step],
            self.theirs[step],
            self.allowed[step],
            dict(reversed([(before, self.theirs.get(before, made)) for before, made in self.before(step)])),
        )

    def _all_right(self, notes: tuple[str, ...]) -> Diagnosis:
        """Every step follows from their inputs to it; say whether all is within the tolerances too."""
        if not self.aligned.arrays:
            return Diagnosis(None, (), (), (), ("nothing of yours could be compared", *notes))
        row = compare_aligned(self.bundle, self.aligned).first
        said = "every step follows from your inputs to it"
        if row is not None and row.name.startswith("outputs/") and row.name not in steps_of_outputs(self.bundle):
            said = (
                f"every step that was compared follows from your inputs to it, but {describe_row(row)}: the bundle was "
                "recorded without the step that makes it, so what comes after its last step was not examined"
            )
        elif row is not None:
            said += (
                ", but roundings have added up, or your weights or inputs are others than the bundle's: "
                f"{describe_row(row)}"
            )
        return Diagnosis(None, (), (), (), (said, *notes), agrees=row is None)
