"""The command ``nezha-np``: it joins the subcommands of `nezha_np.commands`, and makes one line of every error."""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import nezha_np
from nezha_np.commands import (
    answer,
    choose,
    classify,
    convert,
    doctor,
    embed,
    explain,
    fill_mask,
    finetune,
    golden,
    inspect,
    join,
    plot,
    pretrain,
    tag,
)
from nezha_np.commands.exit_status import ERROR, Stopped, status_of
from nezha_np.commands.output import print_message
from nezha_np.commands.parser import Parser, fail, parse, typed_names
from nezha_np.commands.together import begin_together, end_together, take_the_word
from nezha_np.signals import raised_signals

PROGRAM = "nezha-np"
# In the order in which --help lists them.
COMMANDS = (
    fill_mask,
    classify,
    tag,
    answer,
    choose,
    embed,
    join,
    explain,
    pretrain,
    finetune,
    plot,
    inspect,
    convert,
    golden,
    doctor,
)


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
        or 143 after SIGINT or SIGTERM, which is one line too.

    Examples
    --------
    >>> main(["fill-mask", "房间很[MASK]净。", "--top-k", "1"])
    干 0.984
    0
    """
    try:
        with raised_signals(), warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]  # it needs the text alone
            return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt as interrupt:
        return fail(PROGRAM, "interrupted", status_of(interrupt))


def _run(arguments: Sequence[str]) -> int:
    options = argparse.Namespace(names={}, aliases={})
    try:
        status = begin_together(arguments)
        if status is not None:
            return status
        options = _parsed(arguments)
        run: Callable[[argparse.Namespace], int] = options.run
        status = run(options)
        end_together()
        return status
    except (Stopped, OSError, TypeError, ValueError, ImportError, FloatingPointError) as error:
        return fail(PROGRAM, typed_names(str(error), options), status_of(error))
    except MemoryError as error:
        return fail(PROGRAM, f"out of memory: {error}".rstrip(": "), status_of(error))
    except Exception as error:  # a mistake of this package: its place is needed to mend it, and 1 means a difference
        take_the_word(ERROR)
        print_message(traceback.format_exc().rstrip())
        return fail(PROGRAM, f"{type(error).__name__}: {error}; this is a mistake in nezha-np, please report it")


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    try:
        return parse(_parser(), arguments)
    except SystemExit as end:
        if not end.code:  # after the help all processes end well, as after a command
            end_together()
        raise


def _show_warning(message: Warning | str, *place: Any) -> None:
    print_message(f"{PROGRAM}: warning: {' '.join(str(message).split())}")


def _parser() -> Parser:
    parser = Parser(prog=PROGRAM, description="NEZHA, BERT and ConvBERT as explicit array functions.")
    parser.add_argument("--version", action="version", version=f"nezha-np {nezha_np.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
