"""The command ``nezha-np``: it joins the subcommands of `nezha_np.commands`, and makes one line of every error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import nezha_np
from nezha_np.commands import convert, doctor, embed, explain, fill_mask, golden, inspect
from nezha_np.commands.exit_status import ERROR, Stopped

COMMANDS = (fill_mask, explain, embed, inspect, convert, golden, doctor)  # in the order in which --help lists them


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
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except Stopped as stopped:
        return _fail("nezha-np", stopped, stopped.status)
    except (OSError, TypeError, ValueError, ImportError) as error:
        return _fail("nezha-np", error)


def _fail(program: str, error: object, status: int = ERROR) -> int:
    print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SystemExit(_fail(self.prog, message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nezha-np", description="NEZHA, BERT and ConvBERT as explicit array functions.")
    parser.add_argument("--version", action="version", version=f"nezha-np {nezha_np.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
