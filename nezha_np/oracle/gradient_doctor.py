"""The doctor of the walk back: which gradient does not follow from theirs before it, and which mistake makes it.

A mistake of the catalogue is tried at the first gradient that does not follow, of their last gradients before it. One
that makes it is then made in the whole walk, wherever it can be made, at the same step of every layer, or at one step
alone: it may turn no right gradient into a wrong one, and has to explain at least half of the wrong ones. Where none
does, the numbers themselves are asked: multiples, parts, other places, one use of several.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.checks import listed
from nezha_np.oracle.alignment import Theirs
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.closeness import Apart, apart, is_rounding
from nezha_np.oracle.description import describe_difference
from nezha_np.oracle.diagnosis import Diagnosis, Finding, best_of_each, rank
from nezha_np.oracle.differences import largest, largest_difference, magnitude
from nezha_np.oracle.gradient_parts import GradientParts
from nezha_np.oracle.mistakes import FITS, GRADIENT_MISTAKES, GradientEvidence, Mistake
from nezha_np.oracle.mistakes.gradient_numbers import Fit
from nezha_np.oracle.mistakes.gradient_uses import OF_USES, Use, changes_of, in_every_layer, said_of, uses_that_make
from nezha_np.oracle.progress import Count
from nezha_np.oracle.replay import Changes, replay_gradients, tape_gradients
from nezha_np.oracle.rounding import ARITHMETICS, inputs_in, weights_in
from nezha_np.oracle.search import LAYER, OF_ROUNDING, as_many_at_once
from nezha_np.oracle.tolerances import MARGIN
from nezha_np.weights.weights import Weights

NUDGES = (0, 1, 2)
GROUP = "gradients/"
FIT = 20.0  # by how much a fit to the numbers themselves has to make the difference smaller
ABOVE_ROUNDING = 20.0
FEW_SITES = 8  # calls at each of which a mistake is tried in any case
MOST_RIGHT = 3  # of the steps of a mistake, those at which they do not make it
TINY = float(np.finfo(np.float64).tiny)


def diagnose_gradients(
    bundle: Bundle,
    weights: Weights,
    inputs: Mapping[str, Any],
    theirs: Theirs,
    notes: tuple[str, ...],
    count: Count,
) -> Diagnosis | None:
    """Find the first gradient that does not follow from theirs, where the forward pass is right.

    Parameters
    ----------
    bundle : Bundle
        The golden pass.
    weights, inputs
        Those of the pass, rounded to their dtype and in float64.
    theirs : Theirs
        Their arrays, gradients among them.
    notes : tuple of str
        What else the diagnosis is to say.
    count : Count
        Counts the trials.

    Returns
    -------
    Diagnosis or None
        None where every gradient follows, or there are none.
    """
    gradients = {
        name.removeprefix(GROUP): array.astype(np.float64)
        for name, array in theirs.arrays.items()
        if name.startswith(GROUP)
    }
    if not gradients or not bundle.gradients:
        return None
    doctor = GradientDoctor(bundle, weights, inputs, theirs.dtype, gradients, count)
    return doctor.diagnosis(notes) if doctor.wrong else None


class GradientDoctor:
    """A consultation about gradients.

    Parameters
    ----------
    bundle, weights, inputs, count
        As for `diagnose_gradients`.
    dtype : str
        What they compute in.
    theirs : dict of str to array
        Their gradients by the names of what they belong to, in float64.
    """

    def __init__(
        self,
        bundle: Bundle,
        weights: Weights,
        inputs: Mapping[str, Any],
        dtype: str,
        theirs: Mapping[str, np.ndarray],
        count: Count,
    ) -> None:
        self.bundle, self.weights, self.theirs, self.count = bundle, weights, theirs, count
        self.recorder, self.loss = tape_gradients(bundle, weights, inputs, theirs, ARITHMETICS["float64"])
        self.made = self.recorder.walk(self.loss)
        self.allowed, self.noise = allowed_of_gradients(bundle, weights, inputs, dtype, self.made, theirs)
        self.wrong = [name for name in self.made if name in theirs and not self.agrees(name, self.made)]
        self._before: dict[str, Apart] = {}

    def before(self, name: str) -> Apart:
        """How far theirs is from the right gradient; every trial of a step is compared with it."""
        if name not in self._before:
            self._before[name] = apart(name, self.made[name], self.theirs[name])
        return self._before[name]

    def agrees(self, name: str, made: Mapping[str, np.ndarray]) -> bool:
        """Whether theirs is what was made, as far as rounding goes: larger gradients have larger roundings."""
        left = largest_difference(name, made.get(name), self.theirs[name])
        return left <= self.allowed[name] * self.grown(name, made.get(name))

    def grown(self, name: str, trial: np.ndarray | None) -> float:
        """How many times larger than the right gradient a trial is, 1 at least."""
        if trial is None or trial is self.made[name]:
            return 1.0
        right = max(largest(magnitude(name, self.made[name])), TINY)
        return max(1.0, largest(magnitude(name, trial)) / right)

    def diagnosis(self, notes: tuple[str, ...]) -> Diagnosis:
        """Name the first gradient that does not follow, and the mistakes that explain it."""
        step = self.wrong[0]
        parts = GradientParts(self.recorder, self.loss, step)
        # Many a mistake makes zeros: that nothing comes back is said first, and alone where it may begin at many calls.
        stopped = [] if self.theirs[step].any() else self.fitted(parts, FITS[:1])
        explained = any(finding.unexplained == 0 for finding in stopped) and len(parts.sites) > FEW_SITES
        findings = stopped if explained else [*stopped, *self.exact(parts)]
        findings = findings or self.of_uses(parts) or self.fitted(parts, FITS) or self.of_uses_further(parts)
        seen = tuple(describe_difference(step, self.made[step], self.theirs[step], self.allowed[step]))
        wrong = tuple(GROUP + name for name in self.wrong)
        return Diagnosis(f"{GROUP}{step}", tuple(best_of_each(self.closest(findings))), wrong, seen, notes)

    # ------------------------------------------------------------------------------------------- what explains a step

    def explains(self, name: str, trial: np.ndarray | None, margin: float = 1.0) -> Apart | None:
        """What a trial leaves of a difference, where rounding explains it."""
        before, left = self.before(name), apart(name, trial, self.theirs[name])
        if trial is None or not left.most < before.most / 2.0:
            return None
        grown = self.grown(name, trial)
        near = is_rounding(left, before, self.noise[name] * grown)
        small = left.most <= self.allowed[name] * grown
        return left if small and near and before.typical > margin * left.typical else None

    def rounded_so(self, name: str, trial: np.ndarray | None) -> Apart | None:
        """What a trial of a rounding leaves, where it is theirs: a few numbers may have been rounded the other way."""
        before, left = self.before(name), apart(name, trial, self.theirs[name])
        return left if left.typical < before.typical / OF_ROUNDING and left.most <= before.most else None

    def judged(
        self, step: str, mistake: Mistake, way: str, changes: Changes, only: str | None, left: Apart
    ) -> Finding | None:
        """Make a mistake that explains a step in the whole walk: None, where it does not explain the others."""
        unexplained = self.unexplained(mistake, changes, only)
        if not unexplained.issubset(self.wrong):  # what is right would be wrong with it
            right = self.right_sites(unexplained.difference(self.wrong), changes)
            if only is not None or not 0 < len(right) <= MOST_RIGHT:
                return None
            unexplained = self.unexplained(mistake, changes, only, right)
            if not unexplained.issubset(self.wrong):
                return None
            way = f"{way}, but not at {listed(right)}".removeprefix(", ")
        return self.finding(step, mistake, way, only, left, len(unexplained))

    def unexplained(
        self, mistake: Mistake, changes: Changes, only: str | None, right: Collection[str] = ()
    ) -> set[str]:
        """List the gradients that are not theirs with a mistake, made everywhere but at some steps."""
        made = {**self.made, **self.recorder.walk(self.loss, changes, only, right)}
        changed = {name for name, array in self.made.items() if made[name] is not array}  # the others are as they were
        names = {name for name in self.theirs if name in changed and not self.agrees(name, made)}
        names |= {name for name in self.wrong if name not in changed}
        if mistake.of_rounding:
            return {name for name in names if name not in self.wrong or self.rounded_so(name, made[name]) is None}
        return names

    def right_sites(self, names: Collection[str], changes: Changes) -> list[str]:
        """List the steps at which they do not make a mistake: what is right would be wrong with it there."""
        found: list[str] = []
        for name in self.made:
            if name in names:
                uses = GradientParts(self.recorder, self.loss, name).direct
                found += [site for site, layer in uses.items() if layer in changes]
        return list(dict.fromkeys(found))

    def finding(
        self, step: str, mistake: Mistake, way: str, only: str | None, left: Apart, unexplained: int
    ) -> Finding | None:
        """Say that a mistake makes their numbers, unless it leaves more than half of what is wrong."""
        if 2 * unexplained > len(self.wrong):
            return None
        before = self.before(step)
        falls = (before.typical, left.typical) if mistake.of_rounding else (before.most, left.most)
        return Finding(mistake.name, mistake.sentence, way, only, *falls, unexplained)

    # ------------------------------------------------------------------------------------------------- the catalogue

    def exact(self, parts: GradientParts) -> list[Finding]:
        """Try every mistake of the catalogue that is made between the step and their last gradients before it."""
        layers = set(parts.sites.values())
        trials = [
            (mistake, way, changes)
            for mistake in GRADIENT_MISTAKES
            if self.bundle.config.model_type in mistake.families
            for way, changes in mistake.ways.items()
            if not layers.isdisjoint(changes)
        ]
        passes = [functools.partial(self._tried, parts, *trial) for trial in trials]
        tries = as_many_at_once(self.bundle.config, passes)
        return [finding for _, found in zip(self.count.each(trials), tries, strict=True) for finding in found]

    def _tried(self, parts: GradientParts, mistake: Mistake, way: str, changes: Changes) -> list[Finding]:
        """Try a mistake at all its steps; where that is not it, at the same step of every layer, and at one alone."""
        step = parts.step
        sites = [site for site in self.suspects(parts) if parts.sites[site] in changes]
        explained: dict[str | None, Apart | None] = {None: self._trial(parts, mistake, changes, None)}
        findings = []
        for only in (None, *places(sites, self.bundle.config.num_hidden_layers)):
            if only is not None:
                explained[only] = explained[None] if len(sites) == 1 else self._trial(parts, mistake, changes, only)
            left = explained[only]
            if left is None:
                continue
            found = self.judged(step, mistake, way, changes, only, left)
            if found is not None:
                findings.append(found)
                if found.unexplained == 0:
                    break
        return findings

    def suspects(self, parts: GradientParts) -> list[str]:
        """List the calls at which a mistake of one call alone may be made: what comes after it in the walk is wrong."""
        if len(parts.sites) <= FEW_SITES:
            return list(parts.sites)
        right = [  # of a gradient that is 0 but for roundings, as a key's bias has it, nothing is told
            name
            for name, array in self.made.items()
            if name in self.theirs and name not in self.wrong
            if largest(magnitude(name, array)) > ABOVE_ROUNDING * self.allowed[name]
        ]
        return [site for site in parts.sites if site in parts.direct or parts.goes_on_without(site, right)]

    def _trial(self, parts: GradientParts, mistake: Mistake, changes: Changes, only: str | None) -> Apart | None:
        trial = parts.gradient(changes, only)
        return self.rounded_so(parts.step, trial) if mistake.of_rounding else self.explains(parts.step, trial)

    # --------------------------------------------------------------------------------------------------- the numbers

    def fitted(self, parts: GradientParts, fits: Collection[tuple[Mistake, Fit]]) -> list[Finding]:
        """Ask what the numbers say by themselves: of the gradient, or of one of its parts, the others being right."""
        for mistake, function in fits:
            found = []
            for where, evidence in self.evidence(parts.step, parts).items():
                for way, numbers in function(evidence).items():
                    total = self.made[parts.step] - evidence.right + numbers
                    if (left := self.explains(parts.step, total, FIT)) is None:
                        continue
                    others = sum(not self._fits(name, function) for name in self.wrong[1:])
                    one = self.finding(parts.step, mistake, f"{way}{where}", None, left, others)
                    found += [] if one is None else [one]
                if found:
                    return found
        return []

    def _fits(self, name: str, function: Any) -> bool:
        """Whether the numbers of another gradient say the same."""
        for evidence in self.evidence(name, None).values():
            for numbers in function(evidence).values():
                if self.explains(name, self.made[name] - evidence.right + numbers, FIT) is not None:
                    return True
        return False

    def evidence(self, name: str, parts: GradientParts | None) -> dict[str, GradientEvidence]:
        """What is known of a gradient, and of its parts where there are several, by where these come from."""
        all_right, all_theirs = ({n: of[n] for n in self.weights if n in of} for of in (self.made, self.theirs))
        value = to_numpy(self.weights[name]) if name in self.weights else None
        right, theirs = self.made[name], self.theirs[name]
        found = {"": GradientEvidence(right, theirs, self.allowed[name], all_right, all_theirs, value)}
        parts = GradientParts(self.recorder, self.loss, name) if parts is None else parts
        if len(parts.sites) < 2:
            return found
        of_calls = parts.parts()
        if len(of_calls) > 1:
            for part in of_calls:
                left = theirs - (right - part.array)
                evidence = GradientEvidence(part.array, left, self.allowed[name], all_right, all_theirs, value)
                found[f", of what comes through {part.site}"] = evidence
        return found

    def of_uses(self, parts: GradientParts) -> list[Finding]:
        """Ask whether one use of the array is left out, or counted twice."""
        uses = uses_that_make(self.theirs[parts.step], [dataclasses.astuple(part) for part in parts.parts()])
        return list(self._used_so(parts, uses)) if uses else []

    def of_uses_further(self, parts: GradientParts) -> list[Finding]:
        """Ask the same of every use between the step and their last gradients before it."""
        suspects = set(self.suspects(parts))
        uses = [Use(*use, factor) for use in parts.uses if use[0] in suspects for factor in (0.0, 2.0)]
        return [finding for use in self.count.each(uses) for finding in self._used_so(parts, (use,))]

    def _used_so(self, parts: GradientParts, uses: tuple[Use, ...]) -> Iterator[Finding]:
        """Try it in every layer, and then here alone."""
        left = self.explains(parts.step, parts.gradient(changes_of(uses)), FIT)
        if left is None:
            return
        for of_them in (tuple(in_every_layer(uses, LAYER)), uses):
            found = self.judged(parts.step, OF_USES, said_of(of_them), changes_of(of_them), None, left)
            if found is not None:
                yield found
                return

    @staticmethod
    def closest(findings: list[Finding]) -> list[Finding]:
        """Of roundings, which all come closer, leave those that come closest."""
        of_rounding = {mistake.name for mistake in GRADIENT_MISTAKES if mistake.of_rounding}
        least = min((finding.after for finding in findings), default=0.0)
        return sorted((f for f in findings if f.name not in of_rounding or f.after <= 2.0 * least), key=rank)


def places(sites: list[str], layers: int) -> list[str]:
    """List where a mistake may be made that is not made at all its steps: at one of every layer, in all, at one.

    Examples
    --------
    >>> places(["encoder.layer.1.output.dense", "pooler.dense"], layers=2)
    ['encoder.layer.*.output.dense', 'encoder.**', 'encoder.layer.1.output.dense', 'pooler.dense']
    """
    inside = [site.removeprefix(LAYER).partition(".")[2] for site in sites if site.startswith(LAYER)]
    groups = [f"{LAYER}*.{rest}" for rest in inside if rest] if layers > 1 else []
    return list(dict.fromkeys([*groups, *(["encoder.**"] if inside else []), *sites]))


def allowed_of_gradients(
    bundle: Bundle,
    weights: Weights,
    inputs: Mapping[str, Any],
    dtype: str,
    made: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure how much rounding explains of each gradient: at most, and typically.

    The walk back starts from the bundle's forward pass, and theirs from their own, whose roundings count too: so it is
    the bundle's tolerance at least.
    """
    arithmetic = ARITHMETICS[dtype]
    if arithmetic.computed_in == "float16":  # NumPy's own products of float16 matrices are slow
        arithmetic = dataclasses.replace(arithmetic, computed_in="float32")
    suggested = bundle.tolerances[dtype]
    allowed = {name: suggested.get(f"{GROUP}{name}", 0.0) for name in made}
    typical = {name: value / (8.0 * MARGIN) for name, value in allowed.items()}
    rounded_weights, rounded_inputs = weights_in(weights, arithmetic), inputs_in(inputs, arithmetic)
    rounded_theirs = {name: array.astype(arithmetic.computed_in) for name, array in theirs.items()}
    of_port = bundle, rounded_weights, rounded_inputs, rounded_theirs, arithmetic
    passes = [functools.partial(replay_gradients, *of_port, nudge=nudge) for nudge in NUDGES]
    for rounded in as_many_at_once(bundle.config, passes):
        for name, array in made.items():
            rounding = apart(name, array, rounded[name])
            least = arithmetic.epsilon * largest(magnitude(name, array))
            allowed[name] = max(allowed[name], MARGIN * max(rounding.most, least))
            typical[name] = max(typical[name], rounding.typical, least / 8.0)
    return allowed, typical
