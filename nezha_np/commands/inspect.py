"""``nezha-np inspect``: say what a checkpoint holds, and for which tasks it is complete."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from nezha_np.checks import printable
from nezha_np.commands import Subparsers
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.output import print_lines
from nezha_np.families.config import Config
from nezha_np.families.own_code import own_code
from nezha_np.families.parameters import Shapes, backbone_shapes
from nezha_np.families.trained_head import trained_as_another
from nezha_np.mechanism.summary import format_table
from nezha_np.model.tasks import TASKS
from nezha_np.text.sentence_folder import read_sentence_model
from nezha_np.text.sentence_model import SentenceModel, vector_size
from nezha_np.weights.checkpoint import list_files, read_config_beside, read_headers
from nezha_np.weights.formats.entry import FLOATS, Entry
from nezha_np.weights.names import every_name, wrong_family
from nezha_np.weights.prefixes import without_outer_prefix
from nezha_np.weights.second_names import TwoNames, keep_one_name, two_names
from nezha_np.weights.tensor_checks import check_layers, describe_unused, unused_tensors


def add(commands: Subparsers) -> None:
    """Add the parser of ``inspect``."""
    parser = commands.add_parser(
        "inspect",
        help="say what a checkpoint holds",
        description="List the configuration and the tensors of a checkpoint, and say for which tasks it is complete.",
        epilog="example: nezha-np inspect nezha",
    )
    parser.add_argument("path", nargs="?", help="a folder or a file of weights; the shipped model if left out")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the configuration, a table of the tensors, and what each task lacks."""
    print_lines(map(printable, _lines(options.path)))
    return SUCCESS


def _lines(path: str | None) -> Iterator[str]:
    """Make the lines from the headers of the files; of the tensors, those with two names alone are read."""
    files = list_files(path)
    config = read_config_beside(files[0])
    headers, prefix = without_outer_prefix(read_headers(files))
    every = every_name(headers)
    twice = list(two_names(every, config))
    named = keep_one_name(every, twice, config)
    entries = {name: entry for name, (_, _, entry) in named.items()}

    yield f"{config.model_type} in {files[0].parent}"
    yield ""
    for key, value in config.to_dict().items():
        yield f"{key}: {value}"
    yield ""
    rows = [("tensor", "shape", "dtype", "bytes")]
    for name, entry in entries.items():
        rows.append((name, " x ".join(map(str, entry.shape)), entry.dtype, f"{entry.nbytes:,}"))
    yield from format_table(rows, right=[3]).split("\n")
    yield ""
    parameters = sum(math.prod(entry.shape) for entry in entries.values())
    total = sum(entry.nbytes for entry in entries.values())
    yield f"{len(entries)} tensors, {parameters:,} parameters, {total:,} bytes"
    if prefix:
        yield f"taken off the names: {prefix}"
    names_in_files = [raw for header in headers.values() for raw in header]
    different = [both for both in twice if both.difference != 0]
    raw_names = {raw for both in different for raw in (both.raw_first, both.raw_second)}
    left_out = sorted(set(names_in_files) - {raw for _, raw, _ in named.values()} - raw_names)
    if left_out:
        yield f"not needed, because computed or tied: {', '.join(left_out)}"
    yield from map(_what_is_used, different)
    yield ""
    if message := wrong_family(names_in_files, config):
        yield f"wrong model_type: {message}"
    try:
        check_layers(named, config)
    except ValueError as error:
        yield f"wrong num_hidden_layers: {str(error).removeprefix('weights: ')}"
        return
    if unused := unused_tensors((name for name in entries if entries[name].dtype in FLOATS), config):
        yield describe_unused(unused)
    if code := own_code(config):
        yield code
    for name, needed in _needed_tensors(config):
        wrong = _what_is_wrong(entries, needed)
        other = "" if wrong or name == "forward" else trained_as_another(config, name)
        yield f"{name}: {wrong or 'complete'}{other and f', but {other}'}"
    if path is not None:
        yield from _how_texts_are_embedded(Path(path) if Path(path).is_dir() else files[0].parent, config)


def _how_texts_are_embedded(folder: Path, config: Config) -> Iterator[str]:
    """Say what a folder of sentence-transformers makes of a text."""
    try:
        model = read_sentence_model(folder, config)
        size = vector_size(model, config.hidden_size)
    except (OSError, ValueError) as error:
        yield f"embed: refused: {error}"
        return
    if model != SentenceModel():
        steps = "".join(f", then {step.kind}" for step in model.steps)
        prompt = f"; {model.prompt!r} goes before each text" if model.prompt else ""
        yield f"embed: vectors of {size} numbers, pooling {'+'.join(model.pooling)}{steps}{prompt}"
        yield f"embed: texts are cut after {model.max_length} tokens, {model.cut_by}"


def _what_is_used(both: TwoNames) -> str:
    """Say which of two names with different numbers is used, or why `load` refuses them."""
    if both.refusal:
        return f"refused: {both.refusal}"
    return (
        f"two names of one tensor, {both.raw_first} and {both.raw_second}, differ by up to {both.difference:.3g}: "
        f"{both.raw_second} is used, as in the reference"
    )


def _needed_tensors(config: Config) -> Iterator[tuple[str, Shapes]]:
    """Yield each task of the family, and the tensors that `forward` needs, or that the task needs besides those."""
    for name, task in TASKS.items():
        if config.model_type in task.families:
            yield name, backbone_shapes(config) if name == "forward" else task.tensors(config)


def _what_is_wrong(found: Mapping[str, Entry], needed: Shapes) -> str:
    """Say which tensors are missing, and which have another shape or are not floating-point numbers, if any."""
    missing = [name for name in needed if name not in found]
    wrong = [
        f"{name} is {found[name].dtype} {found[name].shape} instead of floats {shape}"
        for name, shape in needed.items()
        if name in found and (found[name].shape != shape or found[name].dtype not in FLOATS)
    ]
    problems = [f"missing {', '.join(missing)}"] if missing else []
    return "; ".join(problems + wrong)
