"""The report: one page that shows where another implementation's numbers part from a bundle's.

`report` compares, asks the doctor, and puts what both say into ``report.html``, whose style and script are
``report.css`` and ``report.js`` (`nezha_np.pages`): the model as a diagram in which each step has the colour of its
error, the errors in the order in which the numbers are made, where in an array they are, and the mistake's code beside
the right one.

An error is shown in units of what rounding explains:

        level = log₁₀(|theirs − golden| / tolerance)          0: just what is allowed, 3: a thousand times that

A map of an array has a byte for each cell, the largest level in it (`pack_levels`); arrays of more than `ROWS` rows or
`COLUMNS` columns have cells of several numbers.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.families.family import family_of
from nezha_np.oracle.alignment import Theirs
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.comparison import Comparison, Row, compare_with_masked, taken
from nezha_np.oracle.description import OF_KEYS, axes_of
from nezha_np.oracle.diagnosis import Diagnosis, Finding
from nezha_np.oracle.differences import difference, is_additive_mask
from nezha_np.oracle.doctor import Doctor
from nezha_np.oracle.mistakes import GRADIENT_MISTAKES, MISTAKES
from nezha_np.oracle.progress import Count, Progress, check_progress
from nezha_np.oracle.replay import At, Replay, replay
from nezha_np.oracle.rounding import ARITHMETICS, inputs_in, weights_in
from nezha_np.oracle.step_tolerances import allowed_differences
from nezha_np.oracle.tolerances import quick_tolerances
from nezha_np.pages.page import fill_page
from nezha_np.weights.weights import Weights

PAGE = Path(__file__).with_name("report.html")
ROWS, COLUMNS = 64, 96  # of a map: more are too fine to see
MAPS = 3_000_000  # bytes of maps in a page; the arrays that differ come first
LOWEST, HIGHEST = -3.0, 9.0  # levels that are told apart
LAYER = "encoder.layer."


def report(
    bundle: Bundle | str | Path,
    theirs: Mapping[str, Any] | Callable[..., Any] | Bundle | str | Path,
    *,
    weights: Weights | str | Path | None = None,
    rename: Mapping[str, str] | None = None,
    names: str | None = None,
    transposed: bool = False,
    dtype: str | None = None,
    ignore_masked: bool = False,
    progress: Progress | None = None,
) -> str:
    """Write a page that shows where another implementation's numbers part from a bundle's, and why.

    Parameters
    ----------
    bundle : Bundle or path
        The golden pass.
    theirs, rename, names, transposed, dtype, ignore_masked
        As for `nezha_np.oracle.compare`.
    weights, progress
        As for `nezha_np.oracle.diagnose`.

    Returns
    -------
    str
        HTML, to be written as UTF-8: one self-contained page.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        As `nezha_np.oracle.compare` and `nezha_np.oracle.diagnose` do.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    >>> bundle = nz.oracle.record(nz.init(config), [[2, 3]], token_type_ids=[[0, 1]])
    >>> with nz.trace() as theirs:
    ...     out = nz.forward(nz.init(config), [[2, 3]])
    >>> page = nz.oracle.report(bundle, theirs)
    >>> page[:15], "token types ignored" in page
    ('<!doctype html>', True)
    """
    shown = compute(
        bundle,
        theirs,
        weights=weights,
        rename=rename,
        names=names,
        transposed=transposed,
        dtype=dtype,
        ignore_masked=ignore_masked,
        progress=progress,
    )
    return fill(shown)


def fill(shown: Mapping[str, Any]) -> str:
    """Make the page of what `compute` returns.

    Parameters
    ----------
    shown : mapping
        What the page shows.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> fill({"title": "forward of BERT", "verdict": "the array agrees"})[:15]
    '<!doctype html>'
    """
    return fill_page(PAGE, f"{shown['title']}: {shown['verdict']}", shown)


def compute(
    bundle: Bundle | str | Path,
    theirs: Mapping[str, Any] | Callable[..., Any] | Bundle | str | Path,
    *,
    weights: Weights | str | Path | None = None,
    ignore_masked: bool = False,
    progress: Progress | None = None,
    **matching: Any,
) -> dict[str, Any]:
    """Compute what the page shows.

    Parameters
    ----------
    bundle, theirs, weights, ignore_masked, progress, **matching
        The arguments of `report`, which describes them.

    Returns
    -------
    dict
        The data of the page, which can be written as JSON.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2, num_hidden_layers=1)
    >>> bundle = nz.oracle.record(config, [[2, 3]])
    >>> compute(bundle, {"embeddings": bundle.trace["embeddings"].astype("float32")})["verdict"]
    'the array agrees within the tolerances of float32'
    """
    check_progress(progress)
    bundle, aligned = taken(bundle, theirs, ignore_masked=ignore_masked, **matching)
    own = bundle.weights(weights)
    if bundle.tolerances_by is None:
        bundle = dataclasses.replace(bundle, tolerances=quick_tolerances(bundle, own), tolerances_by="quick")
    compared = compare_with_masked(bundle, aligned)
    diagnosis = Doctor(bundle, own, aligned, Count(progress)).diagnosis()
    replayed = _golden_replay(bundle, own)
    named = _given_names(bundle, compared)
    steps = list(_steps(bundle, compared, {named.get(name, name) for name in diagnosis.differing}, named, replayed))
    _add_maps(steps, bundle, aligned)
    verdict, *more = compared.summary().split("\n")
    return {
        "title": f"{bundle.head} of {family_of(bundle.config).title}",
        "verdict": verdict,
        "agrees": compared.agrees and diagnosis.agrees,
        "dtype": compared.dtype,
        "notes": more,
        "model": {
            "layers": bundle.config.num_hidden_layers,
            "hidden_size": bundle.config.hidden_size,
            "heads": bundle.config.num_attention_heads,
        },
        "doctor": _words(diagnosis, named),
        "step": named.get(diagnosis.step or "", diagnosis.step),
        "findings": [_finding(finding) for finding in diagnosis.findings],
        "steps": steps,
        "layers": _layers(replayed, steps),
        "masked": _masked(bundle),
    }


def _words(diagnosis: Diagnosis, named: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what the doctor says besides the mistakes, which the page shows with their code, and its notes."""
    alone = dataclasses.replace(diagnosis, findings=(), notes=())
    words = str(alone).split("\n") if diagnosis.step is not None else []
    if diagnosis.findings:
        words = words[:1]
    given = named.get(diagnosis.step or "")
    called = [f"{diagnosis.step} is {given}"] if given else []
    return {"words": words, "notes": [*called, *diagnosis.notes]}


def _golden_replay(bundle: Bundle, weights: Weights) -> Replay | None:
    """Run the golden pass once more, for which layer makes each step, and of what; None where there is no pass."""
    if not bundle.trace:
        return None
    exact = ARITHMETICS["float64"]
    return replay(bundle, weights_in(weights, exact), inputs_in(bundle.inputs, exact), {})


# -------------------------------------------------------------------------------------------------------------- steps


def place_of(name: str) -> tuple[str, str, str, str]:
    """Say where in the diagram an array stands: in which pass, block and part, and what it is called there.

    Examples
    --------
    >>> place_of("encoder.layer.3.attention.self.q"), place_of("gradients/pooler.dense.bias")
    (('forward', 'layer 3', 'attention.self', 'q'), ('backward', 'pooler', 'dense', 'bias'))
    >>> place_of("outputs/logits"), place_of("steps/2/clipped/pooler.dense.bias")
    (('forward', 'outputs', '', 'logits'), ('step 2', 'clipped', 'pooler', 'pooler.dense.bias'))
    """
    group, slash, rest = name.partition("/")
    if group == "steps" and slash:
        number, _, stage = rest.partition("/")
        stage, _, tensor = stage.partition("/")
        return f"step {number}", stage, tensor.partition(".")[0], tensor or stage
    if group == "outputs" and slash:
        return "forward", "outputs", "", rest
    direction, path = ("backward", rest) if group == "gradients" and slash else ("forward", name)
    if path.startswith(LAYER):
        layer, _, path = path.removeprefix(LAYER).partition(".")
        block = f"layer {layer}"
        path = path or "result"
    else:
        block, _, path = path.partition(".")
        path = path or block
    part, _, short = path.rpartition(".")
    return direction, block, part, short


def level_of(absolute: float, tolerance: float) -> float:
    """Return the level of a difference.

    Examples
    --------
    >>> level_of(1e-3, 1e-6), level_of(0.0, 1e-6), level_of(1.0, 0.0), level_of(float("nan"), 1.0)
    (3.0, -3.0, 9.0, 9.0)
    """
    if absolute == 0.0 or tolerance == math.inf:
        return LOWEST
    if not math.isfinite(absolute) or not tolerance > 0.0:
        return HIGHEST
    return round(min(max(math.log10(absolute / tolerance), LOWEST), HIGHEST), 3)


def _given_names(bundle: Bundle, compared: Comparison) -> dict[str, str]:
    """Give for each array that was not given the name by which the same numbers were."""
    arrays = bundle.arrays
    given = {id(arrays[row.name]): row.name for row in reversed(compared.rows)}
    return {name: given[id(arrays[name])] for name in compared.missing if id(arrays[name]) in given}


def _steps(
    bundle: Bundle, compared: Comparison, differing: set[str], named: Mapping[str, str], replayed: Replay | None
) -> Iterator[dict[str, Any]]:
    """List the bundle's arrays in the order in which they are made, with what was found of each."""
    rows = {row.name: row for row in compared.rows}
    in_trace = {id(array): name for name, array in reversed(bundle.trace.items())}
    for name, golden in bundle.arrays.items():
        group, block, part, short = place_of(name)
        step = {
            "name": name,
            "group": group,
            "block": block,
            "part": part,
            "short": short,
            "shape": list(golden.shape),
            "wrong": name in differing,
            "given_as": named.get(name),
            **_layer_and_sources(name if name in bundle.trace else in_trace.get(id(golden), name), replayed),
        }
        if name in rows:
            step |= _compared(rows[name])
        yield step


def _layer_and_sources(name: str, replayed: Replay | None) -> dict[str, Any]:
    if replayed is None or name not in replayed.made:
        return {"layer": None, "sources": []}
    layer = replayed.calls[name][0].__name__ if name in replayed.calls else None
    return {"layer": layer, "sources": list(replayed.sources.get(name, ()))}


def _compared(row: Row) -> dict[str, Any]:
    same_shape = row.their_shape == row.shape
    return {
        "theirs": row.their_name,
        "their_shape": list(row.their_shape),
        "agrees": row.agrees,
        "telling": row.telling,
        "level": level_of(row.absolute, row.tolerance) if same_shape else HIGHEST,
        "absolute": f"{row.absolute:.3g}",
        "relative": f"{row.relative:.3g}",
        "tolerance": f"{row.tolerance:.3g}",
        "where": list(row.where),
        "is": f"{row.theirs:.8g}",
        "expected": f"{row.golden:.8g}",
    }


# --------------------------------------------------------------------------------------------------------------- maps


def _add_maps(steps: list[dict[str, Any]], bundle: Bundle, aligned: Theirs) -> None:
    """Add to each step the map of its errors, as far as there is room: first to those that differ."""
    allowed, left = allowed_differences(bundle, aligned.dtype, aligned.names), MAPS
    compared = [step for step in steps if step["name"] in aligned.arrays and step["shape"]]
    for step in sorted(compared, key=lambda step: step["agrees"]):
        name = step["name"]
        levels = levels_of(difference(name, bundle.arrays[name], aligned.arrays[name]), allowed[name])
        packed = pack_levels(levels)
        if len(packed["data"]) <= left:
            left -= len(packed["data"])
            step["map"] = {**packed, "axes": _axes(name, levels.ndim, bundle)}


def _axes(name: str, dimensions: int, bundle: Bundle) -> list[str]:
    """Say what the axes of an array are; those of a parameter's gradient are a weight's."""
    path = name.removeprefix("gradients/").removeprefix("outputs/")
    if path != name and path not in bundle.trace and name.startswith("gradients/"):
        return list(axes_of("steps/", dimensions)) or ["axis"] * dimensions
    of_keys = path.rpartition(".")[2] in OF_KEYS or is_additive_mask(path)
    if dimensions == 4 and (of_keys or path.startswith(("attentions", "cross_attentions"))):
        return ["text", "head", "query", "key"]
    return list(axes_of(name, dimensions)) or ["axis"] * dimensions


def levels_of(apart: np.ndarray, allowed: Any) -> np.ndarray:
    """Return the level of each number of an array, -inf where there is no difference.

    Examples
    --------
    >>> levels_of(np.array([0.0, 1e-6, 1e-3]), 1e-6)
    array([-inf,   0.,   3.])
    """
    with np.errstate(all="ignore"):
        levels: np.ndarray = np.log10(apart / allowed)
    levels = np.where(np.isnan(levels) | (levels == np.inf), HIGHEST, levels)
    return np.where(apart == 0.0, -np.inf, levels)


def pack_levels(levels: np.ndarray) -> dict[str, Any]:
    """Write levels as bytes, in base64, for each map the largest level of each cell.

    0 stands for no difference, 1 to 255 for the levels from -3 to 9. The last two axes are rows and columns of a map;
    the axes before them count the maps.

    Parameters
    ----------
    levels : (…, rows, columns) or (columns,) float array
        The levels.

    Returns
    -------
    dict
        ``shape``, that of the array; ``cells``, rows and columns of a map; and ``data``.

    Examples
    --------
    >>> pack_levels(np.array([[-np.inf, 0.0], [3.0, 9.0]]))
    {'shape': [2, 2], 'cells': [2, 2], 'data': 'AEGA/w=='}
    """
    import base64

    shape = levels.shape
    maps = levels.reshape(-1, *(1, 1, *shape)[-2:])
    for axis, most in ((1, ROWS), (2, COLUMNS)):
        if maps.shape[axis] > most:
            starts = np.linspace(0, maps.shape[axis], most, endpoint=False).astype(int)
            maps = np.maximum.reduceat(maps, starts, axis=axis)
    clipped = np.clip((maps - LOWEST) / (HIGHEST - LOWEST), 0.0, 1.0)
    numbers = np.where(maps == -np.inf, 0, 1 + np.rint(254 * clipped)).astype(np.uint8)
    return {"shape": list(shape), "cells": list(maps.shape[1:]), "data": base64.b64encode(numbers.tobytes()).decode()}


def _masked(bundle: Bundle) -> list[list[int]]:
    """List for each text the tokens that nobody attends to; [] where the inputs have no mask of tokens."""
    mask = bundle.inputs.get("attention_mask")
    if not isinstance(mask, np.ndarray) or mask.ndim != 2:
        return []
    return [np.flatnonzero(row == 0).tolist() for row in mask]


# --------------------------------------------------------------------------------------------------------------- code


def _finding(finding: Finding) -> dict[str, Any]:
    """Describe a mistake: its sentence, and what it computes beside what is right."""
    known = {mistake.name: mistake for mistake in (*MISTAKES, *GRADIENT_MISTAKES)}.get(finding.name)
    changes = {} if known is None else known.ways.get(finding.way, {})
    backward = known in GRADIENT_MISTAKES
    code = []
    for layer, change in changes.items():
        theirs = code_of(change.change if isinstance(change, At) else change)
        right = code_of(layer.gradient if backward and layer.gradient is not None else layer.definition)
        if theirs is not None and right is not None:
            code.append({"layer": layer.__name__, "right": right, "theirs": theirs})
    does, _, right_is = finding.sentence.partition("; right is ")
    return {
        "name": finding.name,
        "way": finding.way,
        "place": finding.place,
        "does": does,
        "right": right_is,
        "effect": _effect(finding),
        "code": code,
    }


def _effect(finding: Finding) -> str:
    """Say what the mistake explains, as the doctor does."""
    alone = Diagnosis("step", (finding,), (), (), ())
    return str(alone).rpartition("\n")[2].strip()


def _layers(replayed: Replay | None, steps: list[dict[str, Any]]) -> dict[str, dict[str, str | None]]:
    """Give for each layer that makes a step the text above its file, with its formula, and its definition."""
    found: dict[str, dict[str, str | None]] = {}
    if replayed is None:
        return found
    shown = {step["layer"] for step in steps}
    for layer, _, _ in replayed.calls.values():
        if layer.__name__ in shown and layer.__name__ not in found:
            above = sys.modules[layer.definition.__module__].__doc__
            found[layer.__name__] = {"text": inspect.cleandoc(above or ""), "code": code_of(layer.definition)}
    return found


def code_of(function: Callable[..., Any]) -> str | None:
    """Return the source of a function without its decorators and its docstring; None where it is no ``def``.

    Examples
    --------
    >>> print(code_of(level_of).split(":")[0])
    def level_of(absolute
    >>> code_of(len) is None, code_of(lambda x: x) is None
    (True, True)
    """
    try:
        source = textwrap.dedent(inspect.getsource(function))
        (node, *_) = ast.parse(source).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    if not isinstance(node, ast.FunctionDef):
        return None
    lines = source.splitlines()
    first = node.body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1
    head = lines[node.lineno - 1 : (first.lineno - 1 if has_docstring else node.end_lineno)]
    rest = lines[first.end_lineno or 0 : node.end_lineno] if has_docstring else []
    return "\n".join([*head, *rest])
