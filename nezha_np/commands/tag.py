"""``nezha-np tag``: find the entities in texts."""

from __future__ import annotations

import argparse

from nezha_np.commands import Subparsers
from nezha_np.commands.corpus import add_job_options, is_job, run_job
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.parser import typed_text
from nezha_np.commands.task_options import add_options
from nezha_np.text.tag import AGGREGATIONS


def add(commands: Subparsers) -> None:
    """Add the parser of ``tag``."""
    parser = commands.add_parser(
        "tag",
        help="find entities in texts",
        description="Find the entities in each text: their labels, their places in characters and their probabilities.",
        epilog="example: nezha-np tag news.txt -o entities.jsonl",
    )
    add_options(
        parser,
        input="texts, one a line, or JSON Lines",
        result="entities",
        model="a checkpoint with its tokenizer; the shipped model of Chinese names if left out",
    )
    parser.add_argument(
        "--aggregation",
        choices=("none", *AGGREGATIONS),
        default="first",
        help="what makes entities of tokens; none: each token by itself (first)",
    )
    parser.add_argument("--max-length", type=int, metavar="N", help="read long texts in windows of N tokens")
    parser.add_argument("--stride", type=int, default=128, metavar="N", help="tokens that two windows share (128)")
    parser.add_argument(
        "--field", type=typed_text, default="text", metavar="NAME", help="where in a JSON object the text stands (text)"
    )
    add_job_options(parser)
    parser.set_defaults(run=run, aliases={"input": "FILE", "output_format": "--format"})


def run(options: argparse.Namespace) -> int:
    """Tag the texts."""
    how = {
        "field": options.field,
        "result": options.result,
        "aggregation": None if options.aggregation == "none" else options.aggregation,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
        "stride": options.stride,
    }
    if is_job(options):
        return run_job("tag", options, output_format=options.format, **how)
    from nezha_np.commands.task_lines import load_model, run_task
    from nezha_np.jobs.records import tag_records

    run_task(tag_records(load_model(options.model), **how), options)
    return SUCCESS
