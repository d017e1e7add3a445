"""The doctor's search: one step computed under every mistake, at all places, at groups of them, at each alone.

From their logits alone each trial is a whole pass, and there are hundreds of mistakes. So a trial first runs in the
port's own dtype, by the kernels, on one text alone where it acts text by text, and takes from the right pass what is
made of the same arrays; only one that comes closer is run in float64 and asked whether rounding explains what is left.
A mistake is tried at some of its steps only where at all of them it moves the
numbers into the direction in which theirs differ.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nezha_np.families.config import Config
from nezha_np.layers.dropout import unchanged
from nezha_np.layers.masks import additive_mask, as_constant
from nezha_np.mechanism.layer import one_by_one, side_by_side
from nezha_np.oracle.closeness import Apart, alike, apart, is_rounding, root_mean_square
from nezha_np.oracle.diagnosis import Finding
from nezha_np.oracle.differences import magnitude
from nezha_np.oracle.mistakes import Mistake, Sites
from nezha_np.oracle.one_text import OneText
from nezha_np.oracle.progress import Count
from nezha_np.oracle.replay import CANNOT, Changes, Replay

if TYPE_CHECKING:
    from nezha_np.oracle.doctor import Doctor

Trial = tuple[Mistake, str, Changes]
Result = TypeVar("Result")
LAYER = "encoder.layer."
WIDE = 256  # features from which on threads compute several trials faster than one
MOST_SITES = 16  # a mistake that acts at more steps than these between their arrays is tried at all of them together
MOST_GROUPS = 8  # it is also tried at groups of steps, if there are no more groups than these
FAR = 12  # steps between their arrays in which a fault that is not in the catalogue is hard to find
INTO_THEIR_DIRECTION = 0.15  # the cosine from which on a mistake is tried at some of its steps
OF_ROUNDING = 4.0  # by how much a rounding that is theirs makes the typical difference smaller
FIT = 20.0  # how many times the roundings a difference must be in which free numbers are fitted
FAR_FIT = 5e3  # and how many where the step's own inputs are not known
COPIES = (unchanged, as_constant, additive_mask)  # they compute nothing, or nothing of the numbers before
ABSURD = 1e4  # times the largest right number: no weight makes that
CLOSE = 0.02  # other weights than the right ones make a larger part of a result another one
ENOUGH_NUMBERS = 12  # of fewer numbers roundings alone tell nothing


def groups_of(sites: list[str], layers: int) -> list[str]:
    """Make patterns of the steps that a mistake is made at: the same step of every layer, all steps of a layer.

    Examples
    --------
    >>> groups_of(["embeddings.sum", "encoder.layer.0.output.dense"], layers=2)
    ['encoder.layer.*.output.dense', 'encoder.layer.0.**']
    """
    parts = [site.removeprefix(LAYER).partition(".") for site in sites if site.startswith(LAYER)]
    alike = [f"{LAYER}*{dot}{rest}" for _, dot, rest in parts] if layers > 1 else []
    return list(dict.fromkeys([*alike, *(f"{LAYER}{index}.**" for index, _, _ in parts)]))


def as_many_at_once(config: Config, passes: Sequence[Callable[[], Result]]) -> Iterator[Result]:
    """Run passes of a model that have nothing to do with each other, in threads where it is wide enough for these.

    Examples
    --------
    >>> import nezha_np as nz
    >>> list(as_many_at_once(nz.NezhaConfig(), [lambda: "one", lambda: "two"]))
    ['one', 'two']
    """
    return side_by_side(np.ones(1), passes) if config.hidden_size >= WIDE else one_by_one(passes)


class Contradicted(Exception):
    """A step that is right would be wrong with a mistake."""


@dataclasses.dataclass(frozen=True)
class Tried:
    """A trial at all its steps that did not make their numbers: where it acts, and how much it looks like theirs."""

    trial: Trial
    sites: list[str]
    alike: float


class Search:
    """The trials of one step.

    Parameters
    ----------
    doctor : Doctor
        The consultation.
    step : str
        The first step that is not theirs.
    steps : collection of str
        The steps that make it of their last arrays before it.
    """

    def __init__(self, doctor: Doctor, step: str, steps: Collection[str]) -> None:
        self.doctor, self.step, self.steps = doctor, step, steps
        self.theirs, self.right = doctor.theirs[step], doctor.made[step]
        self.before = apart(step, self.right, self.theirs)
        self.known = {name: doctor.theirs.get(name, made) for name, made in doctor.before(step) if name not in steps}
        self.tried: list[Tried] = []
        self.quick = self._quick_pass() if len(steps) > FAR else None
        self.one_text = self._one_text()
        computed = [name for name in steps if doctor.replayed.calls.get(name, (as_constant,))[0] not in COPIES]
        self.direct = len(computed) <= 1  # the step's own inputs are known

    def _quick_pass(self) -> tuple[dict[str, np.ndarray], Replay] | None:
        """Return what is known in the port's dtype, and the right pass in it, where float64 takes longer."""
        doctor = self.doctor
        if doctor.fast.computed_in == "float64":
            return None
        known = {name: doctor.in_their_dtype(name, array) for name, array in self.known.items()}
        return known, doctor.replay_in_their_dtype(known, steps=self.steps, target=self.step, by_kernels=True)

    def _one_text(self) -> OneText | None:
        """Return one text of the batch to try mistakes on; None where the step has to be made for all."""
        if self.quick is None:
            return None
        try:
            return OneText(self.doctor, *self.quick, self.theirs)
        except CANNOT:
            return None

    def at_all_steps(self, trials: list[Trial], count: Count) -> list[Finding]:
        """Try each mistake at all its steps since their last arrays."""
        passes = [functools.partial(self._at_all_steps, trial) for trial in trials]
        tries = one_by_one(passes) if self.quick is None else as_many_at_once(self.doctor.bundle.config, passes)
        found: list[Finding] = []
        for _, (tried, findings) in zip(count.each(trials), tries, strict=True):
            self.tried += tried
            found += findings
        return found

    def _at_all_steps(self, trial: Trial) -> tuple[list[Tried], list[Finding]]:
        done = self._run(trial, None)
        if done is None or (done.refused and len(trial[2]) > 1):
            return [], []  # a part of the mistake alone would be no mistake, or a different one
        tried = []
        if done.changed and not trial[0].indivisible:
            sites = list(dict.fromkeys(done.changed))
            tried = [Tried(trial, sites, self._alike(done))]
        return tried, list(self._finding(trial, None, done))

    def at_some_steps(self, count: Count) -> list[Finding]:
        """Try those that look like theirs at groups of their steps, and at each alone."""
        found: list[Finding] = []
        hopeful = [tried for tried in self.tried if tried.alike >= INTO_THEIR_DIRECTION]
        for tried in count.each(sorted(hopeful, key=lambda tried: -tried.alike)):
            found += self._at_some_steps(tried, count)
        return found

    def _at_some_steps(self, tried: Tried, count: Count) -> list[Finding]:
        """Try a mistake at groups of its steps and at each alone, until it explains everything."""
        found: list[Finding] = []
        groups = groups_of(tried.sites, self.doctor.bundle.config.num_hidden_layers)
        places = groups if len(groups) <= MOST_GROUPS else []
        places += tried.sites if len(tried.sites) <= MOST_SITES else []
        for only in count.each(places):
            done = self._run(tried.trial, only)
            of_place = [] if done is None else list(self._finding(tried.trial, only, done))
            found += of_place
            if any(finding.unexplained == 0 for finding in of_place):
                break
        return found

    def fitted(self, mistake: Mistake, way: str, changes: Changes, count: Count) -> list[Finding]:
        """Try a change that was fitted to their numbers."""
        trial = mistake, way, changes
        noise = self.doctor.noise[self.step]
        if mistake.fits_any_numbers:
            if not self._is_plausible():
                return []
            size = root_mean_square(magnitude(self.step, self.right))
            if self.before.typical < max((FIT if self.direct else FAR_FIT) * noise, CLOSE * size):
                return []  # so small a difference may be fitted by chance, or the right numbers were rounded
        done = self._run(trial, None, quick=False)
        if done is None:
            return []
        found = list(self._finding(trial, None, done))
        if any(finding.unexplained == 0 for finding in found):
            return found
        return found + self._at_some_steps(Tried(trial, list(dict.fromkeys(done.changed)), 1.0), count)

    def _is_plausible(self) -> bool:
        """Whether their numbers may be those of another weight: memory that was never written has any."""
        most = magnitude(self.step, self.right).max(initial=0.0)
        return bool(np.isfinite(self.theirs).all() and np.abs(self.theirs).max(initial=0.0) <= ABSURD * most)

    def near_the_fault(self, mistakes: list[Mistake], sites: Sites | None, count: Count) -> list[Finding]:
        """Try what depends on the steps between their arrays, where these are few, until one explains everything."""
        if sites is None:
            return []
        trials = [
            (mistake, way, changes)
            for mistake in mistakes
            if mistake.near is not None
            for way, changes in mistake.near(sites)
        ]
        found: list[Finding] = []
        for trial in count.each(trials):
            done = self._run(trial, None, quick=False)
            of_trial = list(self._finding(trial, None, done)) if done is not None and done.changed else []
            found += of_trial
            if any(finding.unexplained == 0 for finding in of_trial):
                break
        return found

    def _run(self, trial: Trial, only: str | None, *, quick: bool = True) -> Replay | None:
        """Make the step with a mistake; None: what comes after it cannot take its result."""
        where: dict[str, Any] = {"changes": trial[2], "only": only}
        try:
            if quick and self.one_text is not None and trial[0].acts_text_by_text(*trial[1:]):
                done = self.one_text.replay(right=self.one_text.right, **where)
                if not self._is_closer(self.one_text.left(done), trial[0]):
                    return done
            where |= {"steps": self.steps, "target": self.step}
            if quick and self.quick is not None:
                known, right = self.quick
                done = self.doctor.replay_in_their_dtype(known, right=right, by_kernels=True, **where)
                if not self._is_closer(apart(self.step, done.made.get(self.step), self.theirs), trial[0]):
                    return done
            return self.doctor.replay(self.known, right=self.doctor.replayed, **where)
        except CANNOT:
            return None

    def _alike(self, done: Replay) -> float:
        """Say how much what a trial changes looks like what differs, of the texts that it was run on."""
        if self.one_text is not None and done.right is self.one_text.right:
            return self.one_text.alike(done)
        return alike(self.step, done.made.get(self.step), self.right, self.theirs)

    def _is_closer(self, left: Apart, mistake: Mistake) -> bool:
        if mistake.of_rounding:
            return left.typical < self.before.typical / OF_ROUNDING
        return left.most < self.before.most / 2.0 and left.typical < self.before.typical

    def _finding(self, trial: Trial, only: str | None, done: Replay) -> Iterator[Finding]:
        """Say that a mistake makes their numbers, where it does, and what else it leaves."""
        mistake, way, changes = trial
        made = done.made.get(self.step)
        left = apart(self.step, made, self.theirs)
        if made is None or not self._is_closer(left, mistake):
            return
        doctor, most, noise = self.doctor, self.doctor.allowed[self.step], self.doctor.noise[self.step]
        if mistake.of_rounding and self.theirs.size < ENOUGH_NUMBERS:
            return
        if not (left.most <= most and is_rounding(left, self.before, noise)):  # its own roundings may be larger
            if not mistake.of_rounding and (left.most > self.before.most / 8 or left.typical > self.before.typical / 8):
                return
            most, noise = doctor.rounding_of(
                self.step, made, self.known, changes=changes, only=only, steps=self.steps, target=self.step
            )
            if left.most > most or not (mistake.of_rounding or is_rounding(left, self.before, noise)):
                return
        try:
            unexplained = doctor.left(changes, only)
        except Contradicted:
            return
        if unexplained is None:
            return
        if mistake.of_rounding:
            yield Finding(mistake.name, mistake.sentence, way, only, self.before.typical, left.typical, unexplained)
        else:
            yield Finding(mistake.name, mistake.sentence, way, only, self.before.most, left.most, unexplained)
