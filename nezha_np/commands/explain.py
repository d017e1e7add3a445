"""``nezha-np explain``: write a page that shows what the model computes for a text."""

from __future__ import annotations

import argparse

import nezha_np as nz
from nezha_np.commands import Subparsers
from nezha_np.commands.document import output_file, write_document
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.parser import typed_text


def add(commands: Subparsers) -> None:
    """Add the parser of ``explain``."""
    parser = commands.add_parser(
        "explain",
        help="make a page that shows a text's way through the model",
        description="Make one self-contained HTML page that shows what the model computes for a text, layer by layer.",
        epilog='example: nezha-np explain "房间很[MASK]净。" -o page.html',
    )
    parser.add_argument("text", type=typed_text, help="a text, with [MASK] for a gap or without")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the page; - for standard output")
    parser.add_argument(
        "--pair", type=typed_text, metavar="TEXT", help="a second text, to be read as a pair with the first"
    )
    parser.add_argument(
        "--model", metavar="PATH", help="a checkpoint with its tokenizer; the shipped model if left out"
    )
    parser.add_argument(
        "--live", action="store_true", help="carry the model in the page, which computes what is typed there (11 MB)"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page, to a file or to standard output."""
    path = output_file(options)
    weights = None if options.model is None else nz.load(options.model)
    page = nz.explain(options.text, weights, pair=options.pair, live=options.live)
    write_document(page, path, force=options.force)
    return SUCCESS
