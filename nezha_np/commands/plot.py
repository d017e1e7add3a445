"""``nezha-np plot``: draw what was measured of a training run."""

from __future__ import annotations

import argparse

from nezha_np.commands import Subparsers
from nezha_np.commands.document import output_file, write_document
from nezha_np.commands.exit_status import SUCCESS


def add(commands: Subparsers) -> None:
    """Add the parser of ``plot``."""
    parser = commands.add_parser(
        "plot",
        help="draw what was measured of a training run",
        description="Draw the losses, what was measured on held-out data, the learning rate and the norm of the "
        "gradients of a run over its steps, as SVG. The run may still go on; when it ends it draws the same itself.",
        epilog="example: nezha-np plot run -o curves.svg",
    )
    parser.add_argument("folder", metavar="RUN", help="the folder of a run of pretrain or finetune")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the picture; - for standard output")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the picture, to a file or to standard output."""
    from nezha_np.training.plot import plot_run

    path = output_file(options)
    write_document(plot_run(options.folder), path, force=options.force)
    return SUCCESS
