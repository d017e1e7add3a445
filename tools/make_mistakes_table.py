"""Plant every mistake of the catalogue in a pass, and write down what the doctor says.

    python tools/make_mistakes_table.py [--new] [--list]

writes docs/mistakes.md. The tests plant the same mistakes, in more bundles. With --new the entries of mistakes that the
page has, with the same sentence and ways, stay as they are; with --list besides, those that it does not have are listed
with their ways, and not planted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import nezha_np as nz
from nezha_np.oracle.mistakes import GRADIENT_MISTAKES, PARTS, STEP_MISTAKES
from nezha_np.oracle.rounding import ARITHMETICS

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))  # the tests plant the same mistakes

import test_gradient_mistakes  # noqa: E402
import test_step_mistakes  # noqa: E402
from test_doctor import OWN_NUMBERS, UNSEEN, bundle_of, bundles_for, of_other_layers, plant, planted_ways  # noqa: E402

PAGE = REPOSITORY / "docs" / "mistakes.md"
MOST_IN_FLOAT16 = 6  # bundles: float16's own roundings hide a mistake in all of them, or in few
LISTED = "Tried, and not yet planted for this page:"
HEADING = "| way | shows at | float32 | float16 |\n| --- | --- | --- | --- |"
TOP = """# The mistakes that the doctor knows

`nezha-np doctor` names the mistake that makes another implementation's numbers. This is its catalogue: what each
mistake is, in which ways it is made, and what the doctor says of a pass in which it was planted: all steps computed in
float32 or in float16, with the mistake and with roundings of their own. *Shows at* is the first step that is wrong; the
two numbers are its largest difference from the right result, and from that under the mistake. Where several mistakes
make the same numbers all are named, those first that explain most of what follows. A dash: the mistake moves no step by
more than the dtype's roundings (in float16: in the first six bundles that it can be planted in). Of a mistake with more
than four ways two were planted, and the others are listed. What is recognised by fitting (dropout, another table or
weight) was planted with random numbers.

The bundles are those of the standard set, which `nezha-np golden record --all` writes.
`python tools/make_mistakes_table.py` writes this page anew.
"""
GRADIENTS = """## Gradients

These are made walking back: the forward pass is right, and the first wrong gradient is named, of an intermediate array
or of a weight. They were planted in the bundles of `tests/test_gradient_mistakes.py`, which have two layers.
"""
STEP_HEADING = "| way | shows at | named in |\n| --- | --- | --- |"
STEPS = """## Training steps

These are made in a training step, from the loss to the new weights, by a port whose pass is right. They were
planted in the bundles of `tests/test_step_mistakes.py`: LAMB, that of NEZHA's authors, AdamW and BERT's Adam,
three steps each, with a recipe that clips, accumulates, scales the loss and has dropout, and with one that only
accumulates. *Shows at* is the first number that does not follow from the port's own before it. The last column
has the dtype, and the mistakes that make the same numbers there: the doctor says that it is one of them. The
mistakes of the section before are tried at the gradients of a step too.
"""


def first_seen(mistake, changes, dtype):
    """The first bundle in which the doctor sees a mistake, and what it says."""
    tried = 0
    for name in bundles_for(mistake):
        theirs = plant(bundle_of(name), changes, dtype)
        if theirs is not None and mistake.name == "layers left out":
            theirs = of_other_layers(theirs, next(way for way, made in mistake.ways.items() if made is changes))
        if theirs is not None and (dtype != "float16" or tried < MOST_IN_FLOAT16):
            tried += 1
            diagnosis = nz.oracle.diagnose(bundle_of(name), theirs, dtype=dtype)
            if diagnosis.step is not None:
                return name, diagnosis
    return None


def said(mistake, found):
    """What the doctor says, in the cell of a table."""
    if found is None:
        return "—"
    _, diagnosis = found
    if not diagnosis.findings:
        return "not in the catalogue"
    finding = next((one for one in diagnosis.findings if one.name == mistake.name), diagnosis.findings[0])
    others = [name for name in diagnosis.names if name != mistake.name]
    words = "named" if finding.name == mistake.name else "not named"
    if others:
        words += (", first" if diagnosis.names[0] == mistake.name else "") + ", with " + ", ".join(others)
    before = "another shape" if np.isinf(finding.before) else f"{finding.before:.1e}".replace("nan", "NaN")
    return f"{words}: {before} → {finding.after:.1e}"


def rows_of(mistake):
    """The rows of a mistake's table, one for each way to make it."""
    fitted = {what: changes for what, (name, changes) in OWN_NUMBERS.items() if name == mistake.name}
    planted = {way: mistake.ways[way] for way in planted_ways(mistake)}
    for way, changes in {**planted, **fitted}.items():
        found = {dtype: first_seen(mistake, changes, dtype) for dtype in ("float32", "float16")}
        if (mistake.name, way) in UNSEEN:
            found["float64"] = first_seen(mistake, changes, "float64")
        shown = found["float32"] or found.get("float64")
        where = f"`{shown[1].step}` of {shown[0]}" if shown else ""
        float32 = said(mistake, found["float32"])
        if "float64" in found:
            float32 += f"; in float64 {said(mistake, found['float64'])}"
        yield f"| {way or 'as it says'} | {where} | {float32} | {said(mistake, found['float16'])} |"


def first_gradient_seen(bundles, changes, dtype):
    """The first bundle in which the doctor sees a mistake of walking back, and what it says."""
    for what, bundle in bundles.items():
        theirs = test_gradient_mistakes.plant(bundle, changes, ARITHMETICS[dtype])
        diagnosis = nz.oracle.diagnose(bundle, theirs, dtype=dtype)
        if diagnosis.step is not None:
            return what, diagnosis
    return None


def rows_of_gradients(mistake, bundles):
    """The rows of the table of a mistake of walking back."""
    for way in planted_ways(mistake):
        changes = mistake.ways[way]
        found = {dtype: first_gradient_seen(bundles, changes, dtype) for dtype in ("float32", "float16")}
        what, diagnosis = found["float32"]
        where = f"`{diagnosis.step.removeprefix('gradients/')}` of {what}"
        float32, float16 = (said(mistake, found[dtype]) for dtype in ("float32", "float16"))
        yield f"| {way or 'as it says'} | {where} | {float32} | {float16} |"


def rows_of_steps(mistake):
    """The rows of the table of a mistake of a training step: where each way shows first."""
    for way in mistake.ways:
        for bundle, theirs in test_step_mistakes.planted(mistake, way):
            diagnosis = nz.oracle.diagnose(bundle, theirs)
            if diagnosis.step is not None:
                break
        recipe = bundle.training
        optimizer = recipe.optimizer if recipe.variant is None else f"{recipe.optimizer}, {recipe.variant}"
        dtype = str(next(iter(theirs.values())).dtype)
        named = said(mistake, (optimizer, diagnosis))
        yield f"| {way or 'as it says'} | `{diagnosis.step}` of {optimizer} | {dtype}: {named} |"


def lines_of_steps():
    """The section of training steps."""
    lines = [STEPS]
    for mistake in STEP_MISTAKES:
        only = "" if len(mistake.optimizers) == 3 else f" ({', '.join(mistake.optimizers)})"
        only = only if mistake.variant is None else f" (lamb, {mistake.variant})"
        lines += [f"**{mistake.name}**{only}: {mistake.sentence}.\n", STEP_HEADING, *rows_of_steps(mistake), ""]
    return lines


def further(mistake):
    """The ways that were not planted, in a line."""
    others = [way for way in mistake.ways if way not in planted_ways(mistake)]
    return [f"It is tried too: {'; '.join(others)}.", ""] if others else []


def entry(mistake, families, rows):
    """The lines of a mistake."""
    lines = [f"**{mistake.name}**{families}: {mistake.sentence}.\n"]
    if "--list" in sys.argv:
        ways = "; ".join(way or "as it says" for way in mistake.ways)
        return [*lines, *([f"{LISTED} {ways}.", ""] if ways else [])]
    table = list(rows())
    return [*lines, *([HEADING, *table, ""] if table else []), *further(mistake)]


def known_entries():
    """The entries that the page has, by the first line of each."""
    found, first = {}, None
    for line in PAGE.read_text(encoding="utf-8").split("\n"):
        if line.startswith(("**", "## ")):
            first = line if line.startswith("**") else None
        if first is not None:
            found.setdefault(first, []).append(line)
    return found


def kept(known, mistake, families):
    """The lines of an entry of the page where it has all ways of the mistake; None: it is to be written."""
    lines = known.get(f"**{mistake.name}**{families}: {mistake.sentence}.")
    ways = [f"| {way or 'as it says'} |" for way in planted_ways(mistake)]
    if lines is None or any(line.startswith(LISTED) for line in lines):
        return None
    planted = [line for line in lines if line.startswith("| ")][2:]
    if not all(any(line.startswith(way) for line in lines) for way in ways) and not ("--list" in sys.argv and planted):
        return None
    text = [line for line in lines if not line.startswith("It is tried too")]
    while text and not text[-1]:
        text.pop()
    others = [way for way in mistake.ways if not any(line.startswith(f"| {way or 'as it says'} |") for line in lines)]
    return [*text, "", *([f"It is tried too: {'; '.join(others)}.", ""] if others else [])]


def main():
    known = known_entries() if "--new" in sys.argv else {}
    lines = [TOP]
    for part, mistakes in PARTS.items():
        lines.append(f"## {part}\n")
        for mistake in mistakes:
            families = "" if len(mistake.families) == 3 else f" ({', '.join(mistake.families)})"
            lines += kept(known, mistake, families) or entry(
                mistake, families, lambda mistake=mistake: rows_of(mistake)
            )
    lines.append(GRADIENTS)
    bundles = test_gradient_mistakes.make_bundles()
    for mistake in GRADIENT_MISTAKES:
        lines += kept(known, mistake, "") or entry(
            mistake, "", lambda mistake=mistake: rows_of_gradients(mistake, bundles)
        )
    old = PAGE.read_text(encoding="utf-8")
    lines += [old[old.index(STEPS) :]] if "--new" in sys.argv and STEPS in old else lines_of_steps()
    PAGE.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
