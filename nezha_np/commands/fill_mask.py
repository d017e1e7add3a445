"""``nezha-np fill-mask``: fill the gaps of a text."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import nezha_np as nz
from nezha_np.commands import Subparsers
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.output import print_lines
from nezha_np.commands.parser import typed_text


def add(commands: Subparsers) -> None:
    """Add the parser of ``fill-mask``."""
    parser = commands.add_parser(
        "fill-mask",
        help="fill the gaps of a text",
        description="Print the most probable characters for each gap of a text, with their probabilities.",
        epilog='example: nezha-np fill-mask "房间很[MASK]净。" --top-k 3',
    )
    parser.add_argument("text", type=typed_text, help="a text with one [MASK] or more")
    parser.add_argument(
        "--model", metavar="PATH", help="a checkpoint with its tokenizer; the shipped model if left out"
    )
    parser.add_argument(
        "--top-k", type=int, default=5, metavar="K", help="how many characters to print for each gap (5)"
    )
    parser.add_argument(
        "--mask-token", type=typed_text, default="[MASK]", metavar="TOKEN", help="what stands for a gap ([MASK])"
    )
    parser.set_defaults(run=run, aliases={"texts": "text"})


def run(options: argparse.Namespace) -> int:
    """Print the most probable tokens for each gap."""
    print_lines(_lines(options))
    return SUCCESS


def _lines(options: argparse.Namespace) -> Iterator[str]:
    weights = None if options.model is None else nz.load(options.model)
    gaps = nz.fill_mask(options.text, weights, top_k=options.top_k, mask_token=options.mask_token)
    for index, candidates in enumerate(gaps):
        if index:
            yield ""  # between two gaps
        for token, _, probability in candidates:
            yield f"{token} {probability:.3f}"
