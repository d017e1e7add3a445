"""The command line: `fill-mask`, `explain`, `embed`, `inspect`, `convert`, `golden` and `doctor` of ``nezha-np``."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import nezha_np
from nezha_np.arrays import DTYPES
from nezha_np.commands.embed import OutputError, Stopped, embed_lines
from nezha_np.explanation.explain import explain
from nezha_np.families.parameters import Shapes, backbone_shapes, task_shapes, tasks_of
from nezha_np.files import text_lines, vector_file
from nezha_np.files.atomic import resolve_target, write_atomically
from nezha_np.mechanism.summary import format_table
from nezha_np.text.embed import POOLINGS
from nezha_np.text.fill_mask import fill_mask
from nezha_np.weights.checkpoint import list_files, load, read_config_beside, read_headers
from nezha_np.weights.convert import convert, describe
from nezha_np.weights.formats.entry import FLOATS, Entry
from nezha_np.weights.names import name_tensors, wrong_family


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after ``nezha-np``; None: those of this process.

    Returns
    -------
    int
        The exit status: 0; 1 where a comparison found a difference; 2 after an error, which is one line on stderr; 130
        or 143 after SIGINT or SIGTERM.

    Examples
    --------
    >>> main(["fill-mask", "房间很[MASK]净。", "--top-k", "1"])
    干 0.826
    0
    """
    options = _parser().parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):  # a terminal that cannot show a character shows its code
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if "stream" in options:  # which writes while it goes on
            return options.stream(options)
        lines = list(options.run(options))
    except (OSError, TypeError, ValueError, ImportError) as error:
        return _fail("nezha-np", error)
    try:
        print(*lines, sep="\n", flush=True)
    except OSError as error:
        _drop_output()
        if not isinstance(error, BrokenPipeError):  # a reader that has seen enough, `head` for example, is no error
            return _fail("nezha-np", error)
    return options.status


def _fail(program: str, error: object, status: int = 2) -> int:
    print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def _drop_output() -> None:
    """Forget what could not be written: it would fail once more when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SystemExit(_fail(self.prog, message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nezha-np", description="NEZHA, BERT and ConvBERT as explicit array functions.")
    parser.add_argument("--version", action="version", version=f"nezha-np {nezha_np.__version__}")
    parser.set_defaults(status=0)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fill = commands.add_parser("fill-mask", help="fill the gaps of a text")
    fill.add_argument("text", help="a text with one [MASK] or more")
    fill.add_argument("--model", metavar="PATH", help="a checkpoint with its tokenizer; the shipped model if left out")
    fill.add_argument("--top-k", type=int, default=5, metavar="K", help="how many characters to print for each gap (5)")
    fill.add_argument("--mask-token", default="[MASK]", metavar="TOKEN", help="what stands for a gap ([MASK])")
    fill.set_defaults(run=_fill_mask)

    page = commands.add_parser(
        "explain",
        help="make a page that shows a text's way through the model",
        description="Make one self-contained HTML page that shows what the model computes for a text, layer by layer.",
    )
    page.add_argument("text", help="a text, with [MASK] for a gap or without")
    page.add_argument("-o", "--output", required=True, metavar="OUT", help="the page; - for standard output")
    page.add_argument("--pair", metavar="TEXT", help="a second text, to be read as a pair with the first")
    page.add_argument("--model", metavar="PATH", help="a checkpoint with its tokenizer; the shipped model if left out")
    page.add_argument("--force", action="store_true", help="replace OUT if it is there")
    page.set_defaults(run=_explain)

    embed = commands.add_parser(
        "embed",
        help="turn texts into vectors",
        description="Turn texts into vectors, one for each line. Interrupted, it leaves OUT.partial, and the same "
        "command goes on from there.",
    )
    embed.add_argument(
        "file", nargs="?", metavar="FILE", help="texts, one a line, or JSON Lines; standard input if left out"
    )
    embed.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a .npy, .safetensors or .jsonl file; JSON Lines on standard output if left out",
    )
    embed.add_argument("--model", metavar="PATH", help="a checkpoint with its tokenizer; the shipped model if left out")
    embed.add_argument(
        "--pooling", choices=POOLINGS, default="mean", help="what makes one vector of a text's tokens (mean)"
    )
    embed.add_argument("--normalize", action="store_true", help="scale each vector to length 1")
    embed.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts that are embedded together (32)")
    embed.add_argument("--max-length", type=int, metavar="N", help="cut each text after N tokens")
    embed.add_argument(
        "--input-format", choices=text_lines.FORMATS, help="by the name of FILE if left out: jsonl for .jsonl, .ndjson"
    )
    embed.add_argument("--field", default="text", metavar="NAME", help="where in a JSON object the text stands (text)")
    embed.add_argument("--format", choices=vector_file.FORMATS, help="of OUT; by its name if left out")
    embed.add_argument("--force", action="store_true", help="replace OUT if it is there")
    embed.add_argument("--restart", action="store_true", help="begin anew, and throw away what OUT.partial holds")
    embed.add_argument("--progress", action="store_true", help="show progress even where stderr is no terminal")
    embed.set_defaults(stream=_embed)

    inspect = commands.add_parser("inspect", help="say what a checkpoint holds")
    inspect.add_argument("path", nargs="?", help="a folder or a file of weights; the shipped model if left out")
    inspect.set_defaults(run=_inspect)

    conversion = commands.add_parser("convert", help="write a checkpoint as safetensors and config.json")
    conversion.add_argument("source", metavar="SRC", help="a folder or a file of weights, PyTorch's and NumPy's too")
    conversion.add_argument("destination", metavar="DST", help="a folder or a .safetensors file")
    conversion.add_argument("--dtype", choices=DTYPES, help="of the new file; that of SRC if left out")
    conversion.add_argument("--force", action="store_true", help="replace the checkpoint that DST holds already")
    conversion.set_defaults(run=_convert)

    _add_golden(commands)
    return parser


def _add_golden(commands: Any) -> None:
    golden = commands.add_parser("golden", help="record golden bundles, and check other implementations with them")
    kinds = golden.add_subparsers(required=True, metavar="COMMAND")

    record = kinds.add_parser(
        "record",
        help="record a pass",
        description="Record a pass of the model, every number of it, in one safetensors file; a file that is there is "
        "replaced.",
    )
    record.add_argument("-o", dest="output_file", metavar="OUT", help="a .safetensors file")
    record.add_argument(
        "--model",
        metavar="PATH",
        help="a checkpoint, or a config.json, whose weights are drawn; the shipped model if left out",
    )
    record.add_argument("--head", metavar="HEAD", help="forward, masked_lm, pretraining, … (forward)")
    record.add_argument("--text", nargs="+", metavar="TEXT", help="texts, for the checkpoint's tokenizer")
    record.add_argument("--pair", nargs="+", metavar="TEXT", help="a second text for each of the first")
    record.add_argument(
        "--inputs", metavar="FILE", help="the head's arguments by name: a .json, .npz or .safetensors file"
    )
    record.add_argument("--labels", metavar="JSON", help="labels, with which the gradients are recorded too")
    record.add_argument("--seed", type=int, metavar="N", help="what weights are drawn from (0)")
    record.add_argument("--dtype", choices=DTYPES, help="what to compute in (float64)")
    record.add_argument("--output", action="append", metavar="PATTERN", help="intermediates to keep, all if left out")
    record.add_argument("--all", metavar="DIR", help="record the standard set into a folder instead")
    record.set_defaults(run=_golden("record_lines"))

    check = kinds.add_parser(
        "check",
        help="compare arrays with a bundle",
        description="Compare arrays with a bundle, in the order in which they are made. The exit status is 0 where all "
        "agree, 1 where something differs, 2 after an error.",
    )
    _add_comparison(check)
    check.add_argument("--tolerance", type=float, metavar="X", help="largest difference over largest number, for all")
    check.set_defaults(run=_golden("check_lines"))

    show = kinds.add_parser("show", help="say what a bundle holds")
    show.add_argument("bundle", metavar="BUNDLE", help="a golden bundle")
    show.set_defaults(run=_golden("show_lines"))

    doctor = commands.add_parser(
        "doctor",
        help="say what an implementation does wrong",
        description="Find the first step that does not follow from its inputs, and the mistake that makes its numbers. "
        "The exit status is 0 where all is right, 1 where something is wrong, 2 after an error.",
    )
    _add_comparison(doctor)
    doctor.add_argument("--model", metavar="PATH", help="the checkpoint, where the bundle neither holds nor finds it")
    doctor.set_defaults(run=_golden("doctor_lines"))


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a golden bundle")
    parser.add_argument(
        "theirs", metavar="THEIRS", help="the implementation's arrays, a .safetensors or .npz file, or a bundle"
    )
    parser.add_argument(
        "--rename", metavar="FILE", help="a JSON object from their names to ours; * is any part of a name"
    )
    parser.add_argument("--transposed", action="store_true", help="take arrays with their axes in whatever order fits")
    parser.add_argument(
        "--dtype", choices=(*DTYPES, "bfloat16"), help="what they compute in; seen by itself if left out"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def _golden(name: str) -> Callable[[argparse.Namespace], Iterator[str]]:
    """Return a function of `nezha_np.commands.golden`, which is imported when it runs."""

    def run(options: argparse.Namespace) -> Iterator[str]:
        return getattr(importlib.import_module("nezha_np.commands.golden"), name)(options)

    return run


def _fill_mask(options: argparse.Namespace) -> Iterator[str]:
    weights = None if options.model is None else load(options.model)
    for index, candidates in enumerate(
        fill_mask(options.text, weights, top_k=options.top_k, mask_token=options.mask_token)
    ):
        if index:
            yield ""  # between two gaps
        for token, _, probability in candidates:
            yield f"{token} {probability:.3f}"


def _explain(options: argparse.Namespace) -> Iterator[str]:
    path = None if options.output == "-" else resolve_target(Path(options.output), force=options.force)
    weights = None if options.model is None else load(options.model)
    page = explain(options.text, weights, pair=options.pair)
    if path is None:
        yield page.removesuffix("\n")
        return
    data = page.encode()
    write_atomically(path.parent, lambda beside: (beside / path.name).write_bytes(data))
    yield f"wrote {path}: {len(data):,} bytes"


def _embed(options: argparse.Namespace) -> int:
    try:
        embed_lines(
            options.file,
            options.output,
            model=options.model,
            pooling=options.pooling,
            normalize=options.normalize,
            batch_size=options.batch_size,
            max_length=options.max_length,
            input_format=options.input_format,
            output_format=options.format,
            field=options.field,
            force=options.force,
            restart=options.restart,
            progress=options.progress,
        )
    except Stopped as stopped:
        return _fail("nezha-np", stopped, stopped.status)
    except OutputError as error:
        _drop_output()
        return 0 if isinstance(error.__cause__, BrokenPipeError) else _fail("nezha-np", error.__cause__)
    return 0


def _inspect(options: argparse.Namespace) -> Iterator[str]:
    files = list_files(options.path)
    config = read_config_beside(files[0])
    headers = read_headers(files)
    named = name_tensors(headers, config)

    yield f"{config.model_type} in {files[0].parent}"
    yield ""
    for key, value in config.to_dict().items():
        yield f"{key}: {value}"
    yield ""
    rows = [("tensor", "shape", "dtype", "bytes")]
    for name, (_, _, entry) in named.items():
        shape = " x ".join(map(str, entry.shape))
        rows.append((name, shape, entry.dtype, f"{entry.nbytes:,}"))
    yield format_table(rows, right=[3])
    yield ""
    parameters = sum(math.prod(entry.shape) for _, _, entry in named.values())
    total = sum(entry.nbytes for _, _, entry in named.values())
    yield f"{len(named)} tensors, {parameters:,} parameters, {total:,} bytes"
    left_out = sorted({raw for header in headers.values() for raw in header} - {raw for _, raw, _ in named.values()})
    if left_out:
        yield f"not needed, because computed or tied: {', '.join(left_out)}"
    yield ""
    if message := wrong_family([raw for header in headers.values() for raw in header], config):
        yield f"wrong model_type: {message}"

    found = {name: entry for name, (_, _, entry) in named.items()}
    yield f"forward: {_what_is_wrong(found, backbone_shapes(config))}"
    for head in tasks_of(config):
        yield f"{head}: {_what_is_wrong(found, task_shapes(config, head))}"


def _convert(options: argparse.Namespace) -> Iterator[str]:
    return describe(convert(options.source, options.destination, options.dtype, force=options.force))


def _what_is_wrong(found: dict[str, Entry], needed: Shapes) -> str:
    missing = [name for name in needed if name not in found]
    wrong = [
        f"{name} is {found[name].dtype} {found[name].shape} instead of floats {shape}"
        for name, shape in needed.items()
        if name in found and (found[name].shape != shape or found[name].dtype not in FLOATS)
    ]
    problems = [f"missing {', '.join(missing)}"] if missing else []
    return "; ".join(problems + wrong) or "complete"


if __name__ == "__main__":
    sys.exit(main())
