"""The doctor of training steps: which number of which step does not follow from theirs, and which mistake makes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nezha_np.oracle.alignment import Theirs
from nezha_np.oracle.bounded import Bounded
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.description import describe_difference
from nezha_np.oracle.diagnosis import Diagnosis, Finding, rank
from nezha_np.oracle.differences import difference, largest, worst_place
from nezha_np.oracle.mistakes import GRADIENT_MISTAKES, STEP_MISTAKES
from nezha_np.oracle.progress import Count
from nezha_np.oracle.replay import CANNOT
from nezha_np.oracle.rounding import ARITHMETICS
from nezha_np.oracle.step_names import STEPS, stage_of
from nezha_np.oracle.step_passes import Passes
from nezha_np.oracle.step_tolerances import unit_of
from nezha_np.oracle.training_steps import Numbers, StageChanges, StepNumbers, run_steps
from nezha_np.weights.weights import Weights

OF_THE_PASS = (
    "the pass makes loss and gradients: give its intermediate arrays too, which are looked at first, "
    "and see that your port drops out nothing where the recipe has no dropout_seed"
)


def diagnose_steps(
    bundle: Bundle, weights: Weights, theirs: Theirs, notes: tuple[str, ...], count: Count
) -> Diagnosis | None:
    """Find the first number of a training step that does not follow from theirs before it.

    Parameters
    ----------
    bundle : Bundle
        The golden steps.
    weights : Weights
        The weights before the first, in float64.
    theirs : Theirs
        Their arrays, those of steps among them.
    notes : tuple of str
        What else the diagnosis is to say.
    count : Count
        Counts the trials.

    Returns
    -------
    Diagnosis or None
        None where every number follows, or there are none.
    """
    own = {name: array.astype(np.float64) for name, array in theirs.arrays.items() if name.startswith(STEPS)}
    if bundle.training is None or not own:
        return None
    return _StepDoctor(bundle, weights, own, theirs.dtype).diagnosis(notes, count)


class _StepDoctor:
    """One consultation: their numbers, and what each stage makes of them."""

    def __init__(self, bundle: Bundle, weights: Weights, theirs: Mapping[str, np.ndarray], dtype: str) -> None:
        assert bundle.training is not None
        self.bundle, self.theirs, self.recipe = bundle, theirs, bundle.training
        self.unit = unit_of(dtype)
        tolerances = bundle.tolerances[dtype]
        self.start = {name: Bounded(np.asarray(array, np.float64), 0.0, self.unit) for name, array in weights.items()}
        self.passes = Passes(
            bundle.head,
            bundle.config,
            bundle.batches,
            ARITHMETICS["float64"],
            tolerance=lambda name: tolerances.get(name, self._of_all(tolerances, name)),
        )
        self.walked: dict[int, tuple[Bounded, Numbers]] = {}  # what the right pass of a step makes of their weights
        self.settled: set[int] = set()  # the steps of which they gave every gradient
        self.asked = 0  # the step of the number that is asked for, 0: all are
        self.made = self.run({})
        self.settled = {
            t
            for t, (_, gradients) in self.walked.items()
            if all(f"{STEPS}{t}/gradients/{name}" in self.theirs for name in gradients)
        }
        self.differing = [name for name in self.made if not self.agrees(name, self.made[name])]

    @staticmethod
    def _of_all(tolerances: Mapping[str, float], name: str) -> float:
        """Return the largest tolerance of a stage: for tensors whose arrays are not in the bundle."""
        stage = name.rpartition("/")[0]
        return max((value for key, value in tolerances.items() if key.startswith(f"{stage}/")), default=0.0)

    def settle(self, name: str, made: Bounded) -> Bounded:
        """Go on with theirs, which are what they are."""
        return Bounded(self.theirs[name], 0.0, self.unit) if name in self.theirs else made

    def walk(self, step: StepNumbers, **options: Any) -> tuple[Bounded, Numbers]:
        """Compute loss and gradients; the right ones once, where a mistake cannot have changed the weights.

        Of an earlier step than is asked for, theirs take the place of whatever a mistake makes.
        """
        if step.t < self.asked and step.t in self.settled:
            return self.walked[step.t]
        names = [name.removeprefix(f"{STEPS}{step.t - 1}/weights/") for name in self.theirs]
        is_theirs = step.t == 1 or set(step.before.gradients if step.before else ()) <= set(names)
        if options or not is_theirs:
            return self.passes(step, **options)
        if step.t not in self.walked:
            self.walked[step.t] = self.passes(step)
        return self.walked[step.t]

    def run(self, changes: StageChanges, until: str | None = None) -> dict[str, Bounded]:
        """Make all steps on their numbers, rightly or with a mistake."""
        self.asked = int(until.split("/")[1]) if until else 0
        with np.errstate(all="ignore"):
            return run_steps(
                self.recipe, self.start, self.walk, unit=self.unit, settle=self.settle, changes=changes, until=until
            )

    def agrees(self, name: str, made: Bounded) -> bool:
        """Whether theirs is what was made, as far as rounding goes; what they do not have is."""
        if name not in self.theirs:
            return True
        apart = difference(name, np.asarray(made.value), self.theirs[name])
        return bool((apart <= np.where(np.isnan(made.error), 0.0, made.error)).all())

    def diagnosis(self, notes: tuple[str, ...], count: Count) -> Diagnosis | None:
        """Name the first number that does not follow, and the mistakes that explain most of what does not."""
        if not self.differing:
            return None
        step = self.differing[0]
        findings = [
            finding
            for name, sentence, way, changes in count.each(self.trials(step))
            if (finding := self.finding(step, name, sentence, way, changes)) is not None
        ]
        least = min((finding.unexplained for finding in findings), default=0)
        findings = sorted((finding for finding in findings if finding.unexplained == least), key=rank)
        right = self.made[step]
        allowed = largest(np.asarray(right.error)[np.isfinite(right.error)])
        seen = tuple(describe_difference(step, np.asarray(right.value), self.theirs[step], allowed))
        if not findings and stage_of(step) in ("loss", "gradients"):
            seen += (OF_THE_PASS,)
        return Diagnosis(step, tuple(findings), tuple(self.differing), seen, notes)

    def trials(self, step: str) -> list[tuple[str, str, str, StageChanges]]:
        """List every way of making each mistake that may move this number."""
        given = any(name.startswith(f"{STEPS}{step.split('/')[1]}/gradients/") for name in self.theirs)
        after_them = given and stage_of(step) not in ("loss", "gradients")
        found: list[tuple[str, str, str, StageChanges]] = [
            (mistake.name, mistake.sentence, way, changes)
            for mistake in STEP_MISTAKES
            if mistake.fits(self.recipe)
            for way, changes in mistake.ways.items()
            if not (after_them and list(changes) == ["gradients"])  # theirs take the place of what it makes
        ]
        if stage_of(step) == "gradients" or not given:
            called = self.passes.layers(self.start)
            for mistake in GRADIENT_MISTAKES:
                if mistake.of_rounding:
                    continue
                for way, changes in mistake.ways.items():
                    if not called.isdisjoint(changes):
                        walked = {"gradients": lambda step, changes=changes: step.walk(step, changes=changes)}
                        found.append((mistake.name, mistake.sentence, way, walked))
        return found

    def finding(self, step: str, name: str, sentence: str, way: str, changes: StageChanges) -> Finding | None:
        """Try a mistake: it must make their number, and is judged by how many others are not theirs under it.

        One under which no fewer numbers are not theirs than without it makes their number by chance.
        """
        try:
            made = self.run(changes, until=step)[step]
            before, after = (self.apart(step, value) for value in (self.made[step], made))
            if not after < before / 2 or not self.agrees(step, made):
                return None
            left = sum(not self.agrees(key, value) for key, value in self.run(changes).items())
        except CANNOT:
            return None
        if left >= len(self.differing):
            return None
        return Finding(name, sentence, way, None, before if np.isfinite(before) else np.nan, after, left)

    def apart(self, step: str, made: Bounded) -> float:
        """Return the difference of theirs from what was made, where it speaks most against what is right.

        It is not the largest: that may be a rounding of a large number.
        """
        right = self.made[step]
        of_right = difference(step, np.asarray(right.value), self.theirs[step])
        place = worst_place(of_right, np.broadcast_to(right.error, of_right.shape))
        return float(difference(step, np.asarray(made.value), self.theirs[step]).flat[place])
