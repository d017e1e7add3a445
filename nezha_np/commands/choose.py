"""``nezha-np choose``: find the choice that fits each question."""

from __future__ import annotations

import argparse

from nezha_np.commands import Subparsers
from nezha_np.commands.corpus import add_job_options, is_job, run_job
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.parser import typed_text
from nezha_np.commands.task_options import add_options


def add(commands: Subparsers) -> None:
    """Add the parser of ``choose``."""
    parser = commands.add_parser(
        "choose",
        help="find the choice that fits a question",
        description="Find the choice that fits each question best, with its probability.",
        epilog="example: nezha-np choose questions.jsonl --model my_model --context-field context",
    )
    add_options(
        parser,
        input="a question and its choices in each line, with tabs between them, or JSON Lines",
        result="chosen",
        model="a checkpoint with its tokenizer, trained by nezha-np finetune --task choose; none is shipped",
    )
    parser.add_argument("--top-k", type=int, default=1, metavar="K", help="choices of each question (1)")
    parser.add_argument("--max-length", type=int, metavar="N", help="cut each pair after N tokens")
    parser.add_argument(
        "--question-field", type=typed_text, default="question", metavar="NAME", help="of a JSON object (question)"
    )
    parser.add_argument(
        "--choices-field", type=typed_text, default="choices", metavar="NAME", help="of a JSON object: a list (choices)"
    )
    parser.add_argument(
        "--context-field",
        type=typed_text,
        metavar="NAME",
        help="of a JSON object, and the second column of a line: the text that the question is about; none if left out",
    )
    add_job_options(parser)
    parser.set_defaults(run=run, aliases={"input": "FILE", "output_format": "--format"})


def run(options: argparse.Namespace) -> int:
    """Choose for each question."""
    how = {
        "question_field": options.question_field,
        "choices_field": options.choices_field,
        "context_field": options.context_field,
        "result": options.result,
        "top_k": options.top_k,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
    }
    if is_job(options):
        return run_job("choose", options, output_format=options.format, **how)
    from nezha_np.commands.task_lines import load_model, run_task
    from nezha_np.jobs.records import choose_records

    run_task(choose_records(load_model(options.model), **how), options)
    return SUCCESS
