"""What the doctor reports: the step, the mistakes that make their numbers, and what else there is to say."""

from __future__ import annotations

import dataclasses

import numpy as np

from nezha_np.oracle.step_names import STEPS

MOST_WAYS = 4  # of one mistake that are listed


@dataclasses.dataclass(frozen=True)
class Finding:
    """A mistake that makes their numbers.

    Attributes
    ----------
    name, sentence : str
        The mistake.
    way : str
        In which way it is made, "" where there is one alone.
    only : str or None
        The one step at which it is made, or a pattern of several, where it is not made at all such steps.
    before, after : float
        The largest difference of the step without and with the mistake; infinite where the shapes differ, NaN where
        theirs are.
    unexplained : int
        How many steps are not theirs under the mistake: further mistakes, or steps at which they do not make it.
    or_else : tuple of str
        Other ways to make it that make the same numbers.
    """

    name: str
    sentence: str
    way: str
    only: str | None
    before: float
    after: float
    unexplained: int
    or_else: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where it is made, in words to follow its name; where steps are left unexplained, it may be elsewhere too."""
        alone = "" if self.unexplained else " alone"
        return f" (in {self.only}{alone})" if self.only else ""


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the doctor says.

    Attributes
    ----------
    step : str or None
        The first step that does not follow from their inputs to it; None: all do.
    findings : tuple of Finding
        The mistakes that make their numbers, those that explain most of what follows first; () where none does.
    differing : tuple of str
        All steps that do not follow from their inputs to them.
    seen : tuple of str
        How the first step's numbers differ, a sentence each.
    notes : tuple of str
        What else there is to say.
    agrees : bool
        Whether every step follows from their inputs to it, and all that was compared is within the tolerances.
    """

    step: str | None
    findings: tuple[Finding, ...]
    differing: tuple[str, ...]
    seen: tuple[str, ...]
    notes: tuple[str, ...]
    agrees: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the mistakes, each once."""
        return tuple(dict.fromkeys(finding.name for finding in self.findings))

    @property
    def together(self) -> bool:
        """Whether several mistakes make the same numbers and explain as much: the numbers do not tell which it is."""
        if self.step is None or len(self.names) < 2:
            return False
        return self.step.startswith(STEPS) or len({finding.unexplained for finding in self.findings}) == 1

    def __str__(self) -> str:
        lines = []
        if self.step is not None:
            lines.append(f"{self.step} is the first that does not follow from your inputs to it")
        if self.together:
            lines.append(f"one of {len(self.names)} mistakes, which make the same numbers here:")
        for finding in self.findings:
            made = f"{finding.name}{f', {finding.way}' if finding.way else ''}"
            lines += [
                f"mistake: {made}{finding.place}",
                f"  {finding.sentence}.",
                *(f"  or, with the same numbers: {way}" for way in finding.or_else),
                f"  with it {_falls(finding)}{_whats_left(finding.unexplained)}",
            ]
        if self.step is not None and not self.findings:
            lines.append("not in the catalogue of mistakes. What can be seen:")
            lines += [f"  {line}" for line in self.seen]
        return "\n".join([*lines, *self.notes])


def _falls(finding: Finding) -> str:
    if np.isnan(finding.before):
        return f"your NaN are made, and the other numbers to {finding.after:.2e}"
    if np.isinf(finding.before):  # nothing can be subtracted from an array of another shape
        return f"the shape is yours, and the difference {finding.after:.2e}"
    return f"the difference falls from {finding.before:.2e} to {finding.after:.2e}"


def _whats_left(unexplained: int) -> str:
    if not unexplained:
        return "; it explains every step that differs"
    return f"; {unexplained} {'step is' if unexplained == 1 else 'steps are'} still not yours"


def best_of_each(found: list[Finding]) -> list[Finding]:
    """Choose the best finding of each mistake, those first that leave least unexplained.

    A finding at one step alone is left out where one at all steps of its mistake explains as much.
    """
    best: dict[str, Finding] = {}
    for finding in sorted(found, key=rank):
        first = best.setdefault(finding.name, finding)
        ways = (first.way, *first.or_else)
        if rank(finding) == rank(first) and finding.way not in ways and len(ways) < MOST_WAYS:
            best[finding.name] = dataclasses.replace(first, or_else=(*first.or_else, finding.way))
    at_all_steps = [finding.unexplained for finding in best.values() if finding.only is None]
    return [
        finding
        for finding in best.values()
        if finding.only is None or finding.unexplained < min(at_all_steps, default=1 << 30)
    ]


def rank(finding: Finding) -> tuple[int, int, float]:
    """Return a key that sorts first what leaves least unexplained, is made at most steps, and comes closest."""
    steps = 0 if finding.only is None else 1 if "*" in finding.only else 2
    return finding.unexplained, steps, float(f"{finding.after:.2g}")
