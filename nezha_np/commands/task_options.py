"""The options that the commands from texts to answers have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from nezha_np.commands.parser import typed_text
from nezha_np.files import parquet_file

FORMATS = ("jsonl", "lines", "parquet")


def add_options(
    parser: argparse.ArgumentParser,
    *,
    input: str,
    result: str,
    model: str,
    name: str = "FILE",
    type: Callable[[str], str] = str,
) -> None:
    """Add the options that these commands have in common; `name` and `type` are those of the input."""
    parser.add_argument("file", nargs="?", type=type, metavar=name, help=f"{input}; standard input if left out")
    parser.add_argument("-o", "--output", metavar="OUT", help="the file to write; standard output if left out")
    parser.add_argument("--model", metavar="PATH", help=model)
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts that go through the model (32)")
    parser.add_argument(
        "--input-format",
        choices=parquet_file.FORMATS,
        help="by the name of FILE if left out: jsonl for .jsonl, .ndjson; parquet for .parquet",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="of OUT: jsonl, each record with its result, if left out; parquet, as by the name; or results alone",
    )
    parser.add_argument(
        "--result", type=typed_text, default=result, metavar="NAME", help=f"the field of the result ({result})"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    parser.add_argument("--progress", action="store_true", help="show progress even where stderr is no terminal")
