"""``nezha-np join``: make one file of the parts of a job."""

from __future__ import annotations

import argparse
from pathlib import Path

from nezha_np.commands import Subparsers
from nezha_np.commands.exit_status import SUCCESS


def add(commands: Subparsers) -> None:
    """Add the parser of ``join``."""
    parser = commands.add_parser(
        "join",
        help="make one file of the parts of a job",
        description="Make one file of the parts that a command with --workers has written into a folder.",
        epilog="example: nezha-np join vectors/ -o vectors.npy",
    )
    parser.add_argument("folder", metavar="FOLDER", help="the folder of a job that is complete")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write, of the parts' format")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    parser.set_defaults(run=run, aliases={"out": "FOLDER"})


def run(options: argparse.Namespace) -> int:
    """Join the parts."""
    from nezha_np.jobs.join import join

    join(Path(options.folder), Path(options.output), force=options.force)
    return SUCCESS
