"""``nezha-np convert``: write a checkpoint as safetensors and ``config.json``."""

from __future__ import annotations

import argparse

from nezha_np.checks import KEPT_DTYPES
from nezha_np.commands import Subparsers
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.output import print_lines


def add(commands: Subparsers) -> None:
    """Add the parser of ``convert``."""
    parser = commands.add_parser(
        "convert",
        help="write a checkpoint as safetensors and config.json",
        description="Write a checkpoint as safetensors and config.json, with the files of its tokenizer.",
        epilog="example: nezha-np convert NeZha_Chinese_PyTorch nezha",
    )
    parser.add_argument("source", metavar="SRC", help="a folder or a file of weights, PyTorch's and NumPy's too")
    parser.add_argument("destination", metavar="DST", help="a folder or a .safetensors file")
    parser.add_argument("--dtype", choices=KEPT_DTYPES, help="of the new file; that of SRC if left out")
    parser.add_argument("--force", action="store_true", help="replace the checkpoint that DST holds already")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert the checkpoint and print what was read, written and left out."""
    from nezha_np.weights.convert import convert, describe

    print_lines(describe(convert(options.source, options.destination, options.dtype, force=options.force)))
    return SUCCESS
