"""``nezha-np fill-mask``: fill the gaps of texts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

import nezha_np as nz
from nezha_np.checks import printable
from nezha_np.commands import Subparsers
from nezha_np.commands.corpus import add_job_options, is_job, run_job
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.output import print_lines
from nezha_np.commands.parser import typed_text
from nezha_np.commands.task_options import add_options

# No options for one text.
OF_FILES = (
    *("output", "input_format", "format", "field", "result", "force", "progress"),
    *("workers", "shard_lines", "on_error", "restart"),
)


def add(commands: Subparsers) -> None:
    """Add the parser of ``fill-mask``."""
    parser = commands.add_parser(
        "fill-mask",
        help="fill the gaps of texts",
        description="Print the most probable characters for each gap of a text, with their probabilities; or fill the "
        "gaps of each line of a file, and write each with the finished texts.",
        epilog='example: nezha-np fill-mask "房间很[MASK]净。" --top-k 3',
    )
    add_options(
        parser,
        input="a text with one [MASK] or more; or a file of them, one a line, or JSON Lines",
        result="fillings",
        model="a checkpoint with its tokenizer; the shipped model if left out",
        name="TEXT|FILE",
        type=text_or_file,
    )
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="how many characters for each gap (5)")
    parser.add_argument(
        "--mask-token", type=typed_text, default="[MASK]", metavar="TOKEN", help="what stands for a gap ([MASK])"
    )
    parser.add_argument("--max-length", type=int, metavar="N", help="cut each text after N tokens")
    parser.add_argument(
        "--field", type=typed_text, default="text", metavar="NAME", help="where in a JSON object the text stands (text)"
    )
    add_job_options(parser)
    parser.set_defaults(run=run, aliases={"texts": "text", "input": "FILE", "output_format": "--format"})


def run(options: argparse.Namespace) -> int:
    """Print the most probable tokens for each gap of a text, or write those of each line of a file."""
    if is_text(options.file, options.mask_token):
        for option in OF_FILES:
            if getattr(options, option) != options.parser.get_default(option):
                raise ValueError(f"{option}: expected with it a file of texts, or standard input, got one text")
        print_lines(_lines(options))
        return SUCCESS

    how = {
        "field": options.field,
        "result": options.result,
        "top_k": options.top_k,
        "mask_token": options.mask_token,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
    }
    if is_job(options):
        return run_job("fill_mask", options, output_format=options.format, **how)
    from nezha_np.commands.task_lines import load_model, run_task
    from nezha_np.jobs.records import fill_mask_records

    run_task(fill_mask_records(load_model(options.model), **how), options)
    return SUCCESS


def text_or_file(word: str) -> str:
    """Return a word of the command line: the name of a file as it is, and a text as it was typed.

    Examples
    --------
    >>> text_or_file("\\udce5\\udcb9\\udcb2")  # as it comes where LC_ALL=C
    '干'
    """
    return word if os.path.exists(word) else typed_text(word)


def is_text(word: str | None, mask_token: str) -> bool:
    """Tell whether a word is a text, and not the name of a file; None and "-" are standard input.

    Examples
    --------
    >>> is_text("房间很[MASK]净。", "[MASK]"), is_text(None, "[MASK]"), is_text("-", "[MASK]")
    (True, False, False)
    """
    if word is None or word == "-":
        return False
    return mask_token in word or not os.path.exists(word) or os.path.isdir(word)


def _lines(options: argparse.Namespace) -> Iterator[str]:
    gaps = nz.fill_mask(
        options.file,
        None if options.model is None else nz.load(options.model),
        top_k=options.top_k,
        mask_token=options.mask_token,
        batch_size=options.batch_size,
        max_length=options.max_length,
    )
    for index, candidates in enumerate(gaps):
        if index:
            yield ""  # between two gaps
        for token, _, probability in candidates:
            yield printable(f"{token} {probability:.3f}")
