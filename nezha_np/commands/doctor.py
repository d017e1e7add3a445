"""``nezha-np doctor``: say what another implementation does wrong."""

from __future__ import annotations

import argparse
import dataclasses

import nezha_np as nz
from nezha_np.commands import Subparsers
from nezha_np.commands.comparison import add_comparison_options, add_masked_option, matching_options, read_bundle
from nezha_np.commands.exit_status import DIFFERENT, SUCCESS
from nezha_np.commands.json_text import format_json
from nezha_np.commands.output import print_lines, write_text
from nezha_np.commands.parser import typed_names


def add(commands: Subparsers) -> None:
    """Add the parser of ``doctor``."""
    parser = commands.add_parser(
        "doctor",
        help="say what an implementation does wrong",
        description="Find the first step that does not follow from its inputs, and the mistake that makes its numbers. "
        "The exit status is 0 where all is right, 1 where something is wrong, 2 after an error.",
        epilog="example: nezha-np doctor golden.safetensors theirs.safetensors",
    )
    add_comparison_options(parser)
    add_masked_option(parser)
    parser.add_argument("--model", metavar="PATH", help="the checkpoint, where the bundle neither holds nor finds it")
    parser.set_defaults(run=run, aliases={"names": "--names"})


def run(options: argparse.Namespace) -> int:
    """Print the diagnosis; succeed where every step is right and all numbers are within their tolerances."""
    from nezha_np.commands.progress import shown_steps

    bundle = read_bundle(options.bundle)
    matching = {**matching_options(options), "ignore_masked": options.ignore_masked}
    with shown_steps("trials") as progress:
        found = nz.oracle.diagnose(bundle, options.theirs, weights=options.model, progress=progress, **matching)
    if options.json:
        write_text(format_json({"agrees": found.agrees, **dataclasses.asdict(found)}))
    else:
        print_lines([typed_names(str(found), options)])
    return SUCCESS if found.agrees else DIFFERENT
