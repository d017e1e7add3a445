"""The command line: ``nezha-np fill-mask``, ``nezha-np inspect``."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

import nezha_np
from nezha_np.checkpoint import list_files, load, name_tensors
from nezha_np.config import read_config
from nezha_np.parameters import HEADS, Shapes, backbone_shapes, head_shapes
from nezha_np.safetensors_file import FLOATS, Entry, read_header
from nezha_np.text import fill_mask


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after ``nezha-np``; None: those of this process.

    Returns
    -------
    int
        The exit status: 0, or 2 after an error, which is one line on stderr.

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
        lines = list(options.run(options))
    except (OSError, TypeError, ValueError, ImportError) as error:
        return _fail("nezha-np", error)
    try:
        print(*lines, sep="\n", flush=True)
    except OSError as error:
        # What could not be written would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # a reader that has seen enough, `head` for example, is no error
            return _fail("nezha-np", error)
    return 0


def _fail(program: str, error: object) -> int:
    print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SystemExit(_fail(self.prog, message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nezha-np", description="NEZHA as explicit array functions.")
    parser.add_argument("--version", action="version", version=f"nezha-np {nezha_np.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fill = commands.add_parser("fill-mask", help="fill the gaps of a text")
    fill.add_argument("text", help="a text with one [MASK] or more")
    fill.add_argument("--model", metavar="PATH", help="a checkpoint with its tokenizer; the shipped model if left out")
    fill.add_argument("--top-k", type=int, default=5, metavar="K", help="how many characters to print for each gap (5)")
    fill.set_defaults(run=_fill_mask)

    inspect = commands.add_parser("inspect", help="say what a checkpoint holds")
    inspect.add_argument("path", nargs="?", help="a folder or a .safetensors file; the shipped model if left out")
    inspect.set_defaults(run=_inspect)
    return parser


def _fill_mask(options: argparse.Namespace) -> Iterator[str]:
    weights = None if options.model is None else load(options.model)
    for index, candidates in enumerate(fill_mask(options.text, weights, top_k=options.top_k)):
        if index:
            yield ""  # between two gaps
        for token, _, probability in candidates:
            yield f"{token} {probability:.3f}"


def _inspect(options: argparse.Namespace) -> Iterator[str]:
    files = list_files(options.path)
    config = read_config(files[0].parent / "config.json")
    headers = {file: read_header(file) for file in files}
    named = name_tensors(headers, config)

    yield f"{config.model_type} in {files[0].parent}"
    yield ""
    for key, value in config.to_dict().items():
        yield f"{key}: {value}"
    yield ""
    rows = [("tensor", "shape", "dtype", "bytes")]
    for name, (_, _, entry) in named.items():
        shape = " x ".join(map(str, entry.shape))
        rows.append((name, shape, entry.dtype, f"{entry.stop - entry.start:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for name, shape, dtype, size in rows:
        yield f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {dtype:<{widths[2]}}  {size:>{widths[3]}}"
    yield ""
    parameters = sum(math.prod(entry.shape) for _, _, entry in named.values())
    total = sum(entry.stop - entry.start for _, _, entry in named.values())
    yield f"{len(named)} tensors, {parameters:,} parameters, {total:,} bytes"
    left_out = sorted({raw for header in headers.values() for raw in header} - {raw for _, raw, _ in named.values()})
    if left_out:
        yield f"not needed, because computed or tied: {', '.join(left_out)}"
    yield ""

    found = {name: entry for name, (_, _, entry) in named.items()}
    yield f"forward: {_what_is_wrong(found, backbone_shapes(config))}"
    for head in HEADS:
        yield f"{head}: {_what_is_wrong(found, head_shapes(config, head))}"


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
