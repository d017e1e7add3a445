"""``nezha-np classify``: name the classes of texts."""

from __future__ import annotations

import argparse

from nezha_np.commands import Subparsers
from nezha_np.commands.corpus import add_job_options, is_job, run_job
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.parser import typed_text
from nezha_np.commands.task_options import add_options
from nezha_np.text.zero_shot import TEMPLATE


def add(commands: Subparsers) -> None:
    """Add the parser of ``classify``."""
    parser = commands.add_parser(
        "classify",
        help="name the classes of texts",
        description="Name the class of each text, or of each pair of texts, with its probability. With --labels a "
        "model of inference says which of these labels fits.",
        epilog="example: nezha-np classify reviews.txt -o classes.jsonl",
    )
    add_options(
        parser,
        input="texts, one a line (pairs: with a tab between them), or JSON Lines",
        result="labels",
        model="a checkpoint with its tokenizer; the shipped model of reviews if left out",
    )
    parser.add_argument("--top-k", type=int, default=1, metavar="K", help="classes of each text (1)")
    parser.add_argument("--max-length", type=int, metavar="N", help="cut each text after N tokens")
    parser.add_argument(
        "--field", type=typed_text, default="text", metavar="NAME", help="where in a JSON object the text stands (text)"
    )
    parser.add_argument(
        "--pair-field", type=typed_text, metavar="NAME", help="classify pairs: where the second text stands"
    )
    parser.add_argument(
        "--labels",
        type=typed_text,
        metavar="A,B,…",
        help="labels that the model, one of inference, was not trained for",
    )
    parser.add_argument(
        "--template", type=typed_text, metavar="TEXT", help=f"with --labels: the sentence made of one ({TEMPLATE})"
    )
    parser.add_argument(
        "--multi-label", action="store_true", help="with --labels: several may fit, each has a probability by itself"
    )
    add_job_options(parser)
    parser.set_defaults(run=run, aliases={"input": "FILE", "output_format": "--format"})


def run(options: argparse.Namespace) -> int:
    """Classify the texts."""
    how = {
        "field": options.field,
        "pair_field": options.pair_field,
        "result": options.result,
        "top_k": options.top_k,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
        "labels": None if options.labels is None else [label.strip() for label in options.labels.split(",")],
        "template": options.template,
        "multi_label": options.multi_label,
    }
    if how["labels"] is not None and not all(how["labels"]):
        raise ValueError(f"labels: expected labels with commas between them, got {options.labels!r}")
    if is_job(options):
        return run_job("classify", options, output_format=options.format, **how)
    from nezha_np.commands.task_lines import load_model, run_task
    from nezha_np.jobs.records import classify_records

    run_task(classify_records(load_model(options.model), **how), options)
    return SUCCESS
