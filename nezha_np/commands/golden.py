"""What ``nezha-np golden`` and ``nezha-np doctor`` do: the lines that they print, and their exit status."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.checks import listed
from nezha_np.families.config import Config, read_config
from nezha_np.mechanism.summary import format_table
from nezha_np.model.tasks import TASKS
from nezha_np.oracle.bundle import Bundle, flattened, load_bundle, nested
from nezha_np.oracle.comparison import compare
from nezha_np.oracle.doctor import diagnose
from nezha_np.oracle.recording import record
from nezha_np.oracle.standard import record_all
from nezha_np.text.encode import encode
from nezha_np.text.tokenizer import load_tokenizer
from nezha_np.weights.checkpoint import SHIPPED, list_files
from nezha_np.weights.formats import npz as npz_file
from nezha_np.weights.formats import safetensors as safetensors_file
from nezha_np.weights.formats.entry import map_tensors

# What `record` needs and what goes with --all, by the names of the options.
OF_ONE = ("output_file", "model", "head", "text", "pair", "inputs", "labels", "seed", "dtype", "output")


def record_lines(options: argparse.Namespace) -> Iterator[str]:
    """Record a bundle, or all of the standard set, and say what was written."""
    if options.all is not None:
        if given := [name for name in OF_ONE if getattr(options, name) is not None]:
            raise ValueError(
                f"--all: expected no other option with it, got {listed([_option(name) for name in given])}"
            )
        for path in record_all(options.all):
            yield f"{path}  {path.stat().st_size:,} bytes"
        return
    if options.output_file is None:
        raise ValueError("-o: expected the name of a new file, or --all with a folder, got neither")
    head = options.head or "forward"
    model = _model(options.model)
    if options.seed is not None and not isinstance(model, Config):
        raise ValueError("--seed: expected with a config.json as --model, whose weights are drawn, got it without one")
    inputs = _inputs(options, model, head)
    if options.labels is not None:
        if "labels" in inputs:
            raise ValueError(f"--labels: expected none, because {options.inputs} has labels, got some")
        inputs["labels"] = _json(options.labels, "--labels", "JSON such as [[-100, 7]]")
        if head in TASKS and "labels" not in TASKS[head].labels:
            raise ValueError(f"--labels: expected a --head with a loss that takes labels, got {head}")
    bundle = record(
        model,
        head=head,
        seed=options.seed or 0,
        dtype=options.dtype or "float64",
        output=options.output,
        path=options.output_file,
        **inputs,
    )
    counts = f"{len(bundle.trace)} intermediates, {len(bundle.outputs)} outputs, {len(bundle.gradients)} gradients"
    yield f"{options.output_file}  {counts}, {Path(options.output_file).stat().st_size:,} bytes"


def check_lines(options: argparse.Namespace) -> Iterator[str]:
    """Compare a file of arrays with a bundle: where they part first, then a table of all."""
    found = compare(
        _bundle(options.bundle),
        options.theirs,
        rename=_rename(options.rename),
        transposed=options.transposed,
        dtype=options.dtype,
        tolerance=options.tolerance,
    )
    options.status = 0 if found.agrees else 1
    if options.json:
        yield _as_json(found.to_dict())
        return
    yield found.summary()
    yield ""
    yield found.table()


def doctor_lines(options: argparse.Namespace) -> Iterator[str]:
    """Say what an implementation does wrong; status 0 where every step is right and all numbers are in tolerance."""
    bundle, theirs, rename = _bundle(options.bundle), options.theirs, _rename(options.rename)
    how: dict[str, Any] = {"rename": rename, "transposed": options.transposed, "dtype": options.dtype}
    found = diagnose(bundle, theirs, weights=options.model, **how)
    agrees = found.step is None and compare(bundle, theirs, **how).agrees
    options.status = 0 if agrees else 1
    yield _as_json({"agrees": agrees, **dataclasses.asdict(found)}) if options.json else str(found)


def show_lines(options: argparse.Namespace) -> Iterator[str]:
    """Say what a bundle holds."""
    bundle = _bundle(options.bundle)
    made_by = ", ".join(f"{name} {version}" for name, version in bundle.versions.items())
    yield f"{bundle.head} of {bundle.config.model_type}, computed in {bundle.dtype} by {made_by}"
    yield f"weights: {_recipe(bundle)}"
    yield ""
    for key, value in bundle.config.to_dict().items():
        yield f"{key}: {value}"
    yield ""
    rows: list[tuple[str, ...]] = [("input", "shape", "dtype")]
    for name, value in flattened(bundle.inputs).items():
        rows.append((name, _shape(value), str(value.dtype)) if isinstance(value, np.ndarray) else (name, str(value)))
    yield format_table(rows)
    yield ""
    dtypes = list(bundle.tolerances)
    rows = [("array", "shape", "largest", *(f"tolerance {dtype}" for dtype in dtypes))]
    for name, array in bundle.arrays.items():
        largest = f"{np.abs(array).max():.4g}" if array.size else ""
        rows.append((name, _shape(array), largest, *(f"{bundle.tolerances[dtype][name]:.2e}" for dtype in dtypes)))
    yield format_table(rows, right=range(2, 3 + len(dtypes)))
    yield ""
    yield (
        f"{len(bundle.trace)} intermediates, {len(bundle.outputs)} outputs, {len(bundle.gradients)} gradients, "
        f"{Path(options.bundle).stat().st_size:,} bytes"
    )


def _shape(array: np.ndarray) -> str:
    return " × ".join(map(str, array.shape)) or "()"


def _recipe(bundle: Bundle) -> str:
    match bundle.recipe["kind"]:
        case "inside":
            return f"inside, {len(bundle.tensors or {})} tensors"
        case "init":
            head = f", head {bundle.recipe['head']}" if bundle.recipe["head"] else ""
            return f"drawn by nezha_np.init with seed {bundle.recipe['seed']}{head}"
    return f"those of the checkpoint {bundle.recipe['name']}, SHA-256 {bundle.recipe['sha256']}"


def _option(name: str) -> str:
    return {"output_file": "-o"}.get(name, f"--{name}")


# --------------------------------------------------------------------------------------------- what the options name


def _model(path: str | None) -> Config | Path:
    """Return the checkpoint, or the configuration where the option names a file of one."""
    if path is None:
        return SHIPPED
    if Path(path).suffix == ".json":
        return read_config(path)
    list_files(path, name="--model")
    return Path(path)


def _inputs(options: argparse.Namespace, model: Config | Path, head: str) -> dict[str, Any]:
    if (options.text is None) == (options.inputs is None):
        got = "neither" if options.text is None else "both"
        raise ValueError(f"--text, --inputs: expected one of them, got {got}")
    if options.inputs is None:
        if isinstance(model, Config):
            raise ValueError("--text: expected a checkpoint with its tokenizer as --model, got a configuration alone")
        folder = model.parent if model.is_file() else model
        return dict(encode(load_tokenizer(folder), options.text, options.pair))
    if options.pair is not None:
        raise ValueError("--pair: expected with --text, got it without")
    inputs = _read_inputs(Path(options.inputs))
    known = TASKS[head if head in TASKS else "forward"].arguments
    if unknown := [name for name in inputs if name not in known]:
        raise ValueError(f"{options.inputs}: expected the names of arguments of {head}, got {listed(unknown, 5)}")
    return inputs


def _read_inputs(path: Path) -> dict[str, Any]:
    """Read the arguments of a head: JSON lists, or arrays by name, those of a cache as ``past_key_values.0.0``, …."""
    if path.suffix == ".json":
        values = _json(_read_text(path), str(path), "a JSON object of inputs by name")
        if not isinstance(values, dict):
            raise ValueError(f"{path}: expected a JSON object of inputs by name, got a {type(values).__name__}")
        return values
    reader = {".safetensors": safetensors_file, ".npz": npz_file}.get(path.suffix)
    if reader is None:
        raise ValueError(f"--inputs: expected a .json, .npz or .safetensors file, got {path}")
    arrays: dict[str, Any] = dict(map_tensors(path, reader.read_header(path)))
    values = {name: bool(array) if array.dtype == bool and not array.shape else array for name, array in arrays.items()}
    cache = {name: value for name, value in values.items() if re.fullmatch(r"past_key_values\.\d+\.\d+", name)}
    return {name: value for name, value in values.items() if name not in cache} | nested(cache)


def _bundle(path: str) -> Bundle:
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path}: expected a golden bundle, a .safetensors file, got a folder")
    return load_bundle(path)


def _rename(path: str | None) -> dict[str, str] | None:
    if path is None:
        return None
    table = _json(_read_text(Path(path)), path, "a JSON object from their names to ours")
    if not isinstance(table, dict) or not all(isinstance(ours, str) for ours in table.values()):
        raise ValueError(f"{path}: expected a JSON object from their names to ours, got something else")
    return table


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a JSON file, found no such file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected JSON in UTF-8, got other bytes") from None


def _json(text: str, name: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: expected {expected}, got text that is not JSON: {error}") from None


def _as_json(value: Any) -> str:
    """Write JSON as its standard has it: NaN and infinities are null."""
    return json.dumps(_without_infinities(value), ensure_ascii=False, allow_nan=False, indent=2)


def _without_infinities(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_infinities(part) for key, part in value.items()}
        case list() | tuple():
            return [_without_infinities(part) for part in value]
        case float() if not math.isfinite(value):
            return None
    return value
