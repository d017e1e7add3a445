"""``nezha-np golden``: golden bundles.

``record`` makes them, ``check`` compares arrays with one, ``report`` draws that as a page, ``attribute`` says where
precision is lost, and ``show`` lists what one holds.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nezha_np as nz
from nezha_np.checks import DTYPES, listed, printable
from nezha_np.commands import Subparsers
from nezha_np.commands.comparison import add_comparison_options, add_masked_option, matching_options, read_bundle
from nezha_np.commands.document import output_file, write_document
from nezha_np.commands.exit_status import DIFFERENT, SUCCESS
from nezha_np.commands.json_text import format_json, parse_json, read_json
from nezha_np.commands.output import print_lines, write_text
from nezha_np.commands.parser import nearest, typed_names, typed_text
from nezha_np.commands.step_options import STEP_OPTIONS, add_step_options, step_options
from nezha_np.families.config import Config, read_config
from nezha_np.files.atomic import resolve_target
from nezha_np.mechanism.summary import format_table
from nezha_np.model.tasks import TASKS, Task
from nezha_np.weights.checkpoint import SHIPPED, list_files
from nezha_np.weights.other_files import is_index

if TYPE_CHECKING:
    from nezha_np.oracle import Bundle, Comparison

# The options of `record` that go with one bundle and not with --all, by their names in the parsed options.
OF_ONE_BUNDLE = (
    "output_file", "model", "head", "text", "pair", "inputs", "labels", "seed", "dtype", "output", "tolerances",
    "stored_weights",
    *STEP_OPTIONS,
)  # fmt: skip
TOLERANCES: dict[str, str | None] = {"measured": "measured", "quick": "quick", "none": None}  # as the oracle takes them


def add(commands: Subparsers) -> None:
    """Add the parser of ``golden``, with those of its five subcommands."""
    parser = commands.add_parser(
        "golden",
        help="record golden bundles, and check other implementations with them",
        description="Record golden bundles, check other implementations with them, draw a report of what differs, and "
        "list what a bundle holds.",
        epilog="example: nezha-np golden show golden.safetensors",
    )
    kinds = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_record(kinds)

    check = kinds.add_parser(
        "check",
        help="compare arrays with a bundle",
        description="Compare arrays with a bundle, in the order in which they are made, and list those that differ. "
        "The exit status is 0 where all agree, 1 where something differs, 2 after an error.",
        epilog="example: nezha-np golden check golden.safetensors theirs.safetensors --verbose",
    )
    add_comparison_options(check)
    add_masked_option(check)
    check.add_argument("--tolerance", type=float, metavar="X", help="largest difference over largest number, for all")
    check.add_argument("--verbose", action="store_true", help="list the arrays that agree too")
    check.set_defaults(run=run_check, aliases={"names": "--names"})

    report = kinds.add_parser(
        "report",
        help="draw a page of what differs, and why",
        description="Make one self-contained HTML page that shows where arrays differ from a bundle's, and what the "
        "doctor says. The exit status is 0 where all is right, 1 where something is wrong, 2 after an error.",
        epilog="example: nezha-np golden report golden.safetensors theirs.safetensors -o report.html",
    )
    add_comparison_options(report, json=False)
    add_masked_option(report)
    report.add_argument("-o", "--output", required=True, metavar="OUT", help="the page; - for standard output")
    report.add_argument("--model", metavar="PATH", help="the checkpoint, where the bundle neither holds nor finds it")
    report.add_argument("--force", action="store_true", help="replace OUT if it is there")
    report.set_defaults(run=run_report, aliases={"names": "--names"})

    attribute = kinds.add_parser(
        "attribute",
        help="say which steps of a quantised port lose the precision",
        description="List the steps whose own error costs most at the end of the pass: what each is off by, what it "
        "adds itself, what came with its inputs, and for linear layers in int8 the parts of weights and activations.",
        epilog="example: nezha-np golden attribute golden.safetensors int8.safetensors",
    )
    add_comparison_options(attribute)
    attribute.add_argument(
        "--model", metavar="PATH", help="the checkpoint, where the bundle neither holds nor finds it"
    )
    attribute.add_argument(
        "--verbose", action="store_true", help="list every step, in the order in which they are made"
    )
    attribute.set_defaults(run=run_attribute, aliases={"names": "--names"})

    show = kinds.add_parser(
        "show",
        help="say what a bundle holds",
        description="List the configuration, the inputs and the arrays of a bundle, with their tolerances.",
        epilog="example: nezha-np golden show golden.safetensors",
    )
    show.add_argument("bundle", metavar="BUNDLE", help="a golden bundle")
    show.set_defaults(run=run_show)


def _add_record(kinds: Subparsers) -> None:
    parser = kinds.add_parser(
        "record",
        help="record a pass",
        description="Record a pass of the model, every number of it, in one safetensors file.",
        epilog="example: nezha-np golden record --text 房间很干净。 -o golden.safetensors",
    )
    parser.add_argument("-o", dest="output_file", metavar="OUT", help="a .safetensors file")
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="a checkpoint, or a config.json for random weights; the shipped model if left out",
    )
    parser.add_argument("--head", metavar="HEAD", help=f"{', '.join(TASKS)} (forward)")
    parser.add_argument(
        "--text", type=typed_text, nargs="+", metavar="TEXT", help="texts, for the checkpoint's tokenizer"
    )
    parser.add_argument(
        "--pair", type=typed_text, nargs="+", metavar="TEXT", help="a second text for each of the first"
    )
    parser.add_argument(
        "--inputs", metavar="FILE", help="the head's arguments by name: a .json, .npz or .safetensors file"
    )
    parser.add_argument("--labels", metavar="JSON", help="labels, with which the gradients are recorded too")
    parser.add_argument("--seed", type=int, metavar="N", help="the seed of the random weights, any integer (0)")
    parser.add_argument("--dtype", choices=DTYPES, help="what to compute in (float64)")
    parser.add_argument("--output", action="append", metavar="PATTERN", help="intermediates to keep, all if left out")
    parser.add_argument(
        "--tolerances",
        choices=tuple(TOLERANCES),
        help="how the tolerances are found: by many rounded passes, by one, or not at all (measured)",
    )
    parser.add_argument(
        "--stored-weights",
        choices=("inside", "float16", "hash"),
        help="what the bundle has of the weights: all of them, all of them rounded to float16 before the pass, or a "
        "checkpoint's SHA-256 (hash; of random weights the seed)",
    )
    add_step_options(parser)
    parser.add_argument("--all", metavar="DIR", help="record the standard set into a folder instead")
    parser.add_argument("--force", action="store_true", help="replace the bundles that are there")
    parser.set_defaults(run=run_record, aliases={"folder": "--all", "texts": "--text", "pairs": "--pair"})


# ------------------------------------------------------------------------------------------------------------- record


def run_record(options: argparse.Namespace) -> int:
    """Record one bundle, or the standard set, and print what was written."""
    print_lines(_record_one(options) if options.all is None else _record_all(options))
    return SUCCESS


def _record_all(options: argparse.Namespace) -> Iterator[str]:
    from nezha_np.commands.progress import shown_steps

    if others := [name for name in OF_ONE_BUNDLE if getattr(options, name) is not None]:
        raise ValueError(f"--all: expected no other option with it, got {listed([_option(name) for name in others])}")
    if not options.force:
        _check_no_bundle_is_replaced(Path(options.all))
    with shown_steps("bundles") as progress:
        paths = nz.oracle.record_all(options.all, progress=progress, replace=options.force)
    for path in paths:
        yield f"{path}  {path.stat().st_size:,} bytes"


def _check_no_bundle_is_replaced(folder: Path) -> None:
    from nezha_np.oracle.standard import names

    if found := [name for name in names() if (folder / f"{name}.safetensors").exists()]:
        raise FileExistsError(
            f"--all: expected a folder without bundles of the standard set, found {listed(found, 3)} in {folder}; "
            "--force replaces them"
        )


def _option(name: str) -> str:
    return {"output_file": "-o"}.get(name, f"--{name.replace('_', '-')}")


def _record_one(options: argparse.Namespace) -> Iterator[str]:
    from nezha_np.commands.progress import shown_steps

    if options.output_file is None:
        raise ValueError("-o: expected the name of a new file, or --all with a folder, got neither")
    target = _target(Path(options.output_file), force=options.force)
    task = _task(options.head or "forward")
    model = _model(options.model)
    if options.seed is not None and not isinstance(model, Config):
        raise ValueError("--seed: expected with a config.json as --model, whose weights are drawn, got it without one")
    tolerances: dict[str, Any] = {}  # the oracle's own choice where the option is left out
    if options.tolerances is not None:
        tolerances["tolerances"] = TOLERANCES[options.tolerances]
    inputs = _inputs_and_labels(options, model, task)
    with shown_steps("passes") as progress:
        bundle = nz.oracle.record(
            model,
            head=task.name,
            seed=options.seed or 0,
            dtype=options.dtype or "float64",
            output=options.output,
            stored_weights=options.stored_weights,
            path=target,
            replace=options.force,
            progress=progress,
            **tolerances,
            **step_options(options),
            **inputs,
        )
    yield f"{options.output_file}  {_counts(bundle)}, {target.stat().st_size:,} bytes"


def _target(path: Path, *, force: bool) -> Path:
    """Check where a bundle is to be written before it is computed; its folder is made if need be."""
    if path.suffix != ".safetensors":
        raise ValueError(f"-o: expected a name that ends in .safetensors, got {path}")
    return resolve_target(path, force=force) if path.exists() or path.is_symlink() else path


def _task(name: str) -> Task:
    if name not in TASKS:
        raise ValueError(f"--head: expected one of {', '.join(TASKS)}, got {name!r}{nearest(name, TASKS)}")
    return TASKS[name]


def _model(path: str | None) -> Config | Path:
    """Return the checkpoint's path, or the configuration where the option names a file of one."""
    if path is None:
        return SHIPPED
    if Path(path).suffix == ".json" and not is_index(path):
        return read_config(path)
    list_files(path, name="--model")
    return Path(path)


def _inputs_and_labels(options: argparse.Namespace, model: Config | Path, task: Task) -> dict[str, Any]:
    """Return the arguments of the task by name: texts as ids, or what a file holds; then the labels."""
    if (options.text is None) == (options.inputs is None):
        got = "neither" if options.text is None else "both"
        raise ValueError(f"--text, --inputs: expected one of them, got {got}")
    inputs = _encode_texts(options, model) if options.inputs is None else _read_inputs(options, task)
    if options.labels is not None:
        if "labels" in inputs:
            raise ValueError(f"--labels: expected none, because {options.inputs} has labels, got some")
        inputs["labels"] = parse_json(options.labels, "--labels", "JSON such as [[-100, 7]]")
        if "labels" not in task.labels:
            raise ValueError(f"--labels: expected a --head with a loss that takes labels, got {task.name}")
    return inputs


def _encode_texts(options: argparse.Namespace, model: Config | Path) -> dict[str, Any]:
    if isinstance(model, Config):
        raise ValueError("--text: expected a checkpoint with its tokenizer as --model, got a configuration alone")
    folder = model.parent if model.is_file() else model
    return dict(nz.encode(nz.load_tokenizer(folder), options.text, options.pair))


def _read_inputs(options: argparse.Namespace, task: Task) -> dict[str, Any]:
    if options.pair is not None:
        raise ValueError("--pair: expected with --text, got it without")
    inputs = _read_arrays(Path(options.inputs))
    if unknown := [name for name in inputs if name not in task.arguments]:
        raise ValueError(f"{options.inputs}: expected the names of arguments of {task.name}, got {listed(unknown, 5)}")
    return inputs


def _read_arrays(path: Path) -> dict[str, Any]:
    """Read JSON lists, or arrays, by name; a cache is stored as ``past_key_values.0.0`` and so on."""
    from nezha_np.oracle.nesting import nested
    from nezha_np.weights.formats import npz, safetensors
    from nezha_np.weights.formats.entry import map_tensors

    if path.suffix == ".json":
        values = read_json(path, "a JSON object of inputs by name")
        if not isinstance(values, dict):
            raise ValueError(f"{path}: expected a JSON object of inputs by name, got a {type(values).__name__}")
        return values
    reader = {".safetensors": safetensors, ".npz": npz}.get(path.suffix)
    if reader is None:
        raise ValueError(f"--inputs: expected a .json, .npz or .safetensors file, got {path}")
    arrays: dict[str, Any] = dict(map_tensors(path, reader.read_header(path)))
    values = {name: bool(array) if array.dtype == bool and not array.shape else array for name, array in arrays.items()}
    cache = {name: value for name, value in values.items() if re.fullmatch(r"past_key_values\.\d+\.\d+", name)}
    return {name: value for name, value in values.items() if name not in cache} | nested(cache)


# -------------------------------------------------------------------------------------------------------------- check


def run_check(options: argparse.Namespace) -> int:
    """Print whether a file of arrays agrees with a bundle, where it first differs, and a table of what differs."""
    found = nz.oracle.compare(
        read_bundle(options.bundle),
        options.theirs,
        tolerance=options.tolerance,
        ignore_masked=options.ignore_masked,
        **matching_options(options),
    )
    if options.json:
        write_text(format_json(found.to_dict()))
    else:
        print_lines(typed_names(line, options) for line in _report(found, verbose=options.verbose))
    return SUCCESS if found.agrees else DIFFERENT


def _report(found: Comparison, *, verbose: bool) -> Iterator[str]:
    yield found.summary()
    if verbose or not found.agrees:
        yield ""
        yield found.table(differing=not verbose)
    if not found.agrees:
        yield ""
        yield "nezha-np doctor BUNDLE THEIRS says which step is wrong, and which mistake makes these numbers"


# ------------------------------------------------------------------------------------------------------------- report


def run_report(options: argparse.Namespace) -> int:
    """Write the page, to a file or to standard output."""
    from nezha_np.commands.progress import shown_steps
    from nezha_np.oracle.report import compute, fill

    path = output_file(options)
    with shown_steps("trials") as progress:
        shown = compute(
            read_bundle(options.bundle),
            options.theirs,
            weights=options.model,
            ignore_masked=options.ignore_masked,
            progress=progress,
            **matching_options(options),
        )
    write_document(fill(shown), path, force=options.force)
    return SUCCESS if shown["agrees"] else DIFFERENT


# ---------------------------------------------------------------------------------------------------------- attribute


def run_attribute(options: argparse.Namespace) -> int:
    """Print where precision is lost."""
    from nezha_np.commands.progress import shown_steps

    bundle, matching = read_bundle(options.bundle), matching_options(options)
    with shown_steps("passes") as progress:
        found = nz.oracle.attribute(bundle, options.theirs, weights=options.model, progress=progress, **matching)
    if options.json:
        write_text(format_json(found.to_dict()))
    else:
        lines = [str(found)] if not options.verbose else [str(found), "", "every step:", "", found.table(every=True)]
        print_lines(typed_names(line, options) for line in lines)
    return SUCCESS


# --------------------------------------------------------------------------------------------------------------- show


def run_show(options: argparse.Namespace) -> int:
    """Print what a bundle holds."""
    print_lines(_show(read_bundle(options.bundle), Path(options.bundle)))
    return SUCCESS


def _show(bundle: Bundle, path: Path) -> Iterator[str]:
    from nezha_np.oracle.nesting import flattened

    made_by = ", ".join(f"{name} {version}" for name, version in bundle.versions.items())
    yield f"{bundle.head} of {bundle.config.model_type}, computed in {bundle.dtype} by {printable(made_by)}"
    yield f"weights: {printable(_where_weights_are(bundle))}"
    yield ""
    for key, value in bundle.config.to_dict().items():
        yield printable(f"{key}: {value}")
    yield ""
    yield from _recipe(bundle)
    rows: list[tuple[str, ...]] = [("input", "shape", "dtype")]
    for name, value in flattened(bundle.inputs).items():
        rows.append((name, _shape(value), str(value.dtype)) if isinstance(value, np.ndarray) else (name, str(value)))
    yield format_table(rows)
    yield ""
    dtypes = list(bundle.tolerances)
    rows = [("array", "shape", "largest", *(f"tolerance {dtype}" for dtype in dtypes))]
    for name, array in bundle.arrays.items():
        largest = f"{np.abs(array).max():.4g}" if array.size else ""
        rows.append((name, _shape(array), largest, *(_tolerance(bundle, dtype, name) for dtype in dtypes)))
    yield format_table(rows, right=range(2, 3 + len(dtypes)))
    yield ""
    yield f"{_counts(bundle)}, {path.stat().st_size:,} bytes"


def _counts(bundle: Bundle) -> str:
    counts = f"{len(bundle.trace)} intermediates, {len(bundle.outputs)} outputs, {len(bundle.gradients)} gradients"
    if bundle.training is None:
        return counts
    steps = f"{bundle.training.steps} training step{'s' if bundle.training.steps > 1 else ''}"
    return f"{counts}, {len(bundle.steps)} arrays of {steps}"


def _recipe(bundle: Bundle) -> Iterator[str]:
    """List the numbers of the training steps."""
    if bundle.training is None:
        return
    for key, value in bundle.training.to_dict().items():
        if key == "decayed":
            value = f"{len(value)} tensors"
        yield printable(f"training.{key}: {value}")
    yield ""


def _tolerance(bundle: Bundle, dtype: str, name: str) -> str:
    found = bundle.tolerances[dtype].get(name)
    return "by element" if found is None else f"{found:.2e}"


def _shape(array: np.ndarray) -> str:
    return " × ".join(map(str, array.shape)) or "()"


def _where_weights_are(bundle: Bundle) -> str:
    match bundle.recipe["kind"]:
        case "inside":
            return f"inside, {len(bundle.tensors or {})} tensors"
        case "init":
            head = f", head {bundle.recipe['head']}" if bundle.recipe["head"] else ""
            return f"drawn by nezha_np.init with seed {bundle.recipe['seed']}{head}"
    return f"those of the checkpoint {bundle.recipe['name']}, SHA-256 {bundle.recipe['sha256']}"
