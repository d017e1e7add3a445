"""``nezha-np choose``: find the choice that fits each question."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import nezha_np as nz
from nezha_np.commands import Subparsers
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
    parser.set_defaults(run=run, aliases={"input": "FILE", "output_format": "--format"})


def run(options: argparse.Namespace) -> int:
    """Choose for each question."""
    from nezha_np.commands.task_lines import load_model, run_task
    from nezha_np.jobs.records import TaskOfLines

    weights = load_model(options.model)

    def chosen(records: Sequence[dict[str, Any]]) -> list[list[nz.Choice]]:
        return nz.choose(
            [record[options.question_field] for record in records],
            [record[options.choices_field] for record in records],
            weights,
            contexts=None if options.context_field is None else [record[options.context_field] for record in records],
            top_k=options.top_k,
            batch_size=options.batch_size,
            max_length=options.max_length,
        )

    context = () if options.context_field is None else (options.context_field,)
    fields = (options.question_field, *context, options.choices_field)

    def shown(one: nz.Choice) -> str:
        return f"{one.text} {one.score:.3f}"

    run_task(TaskOfLines(fields, options.result, chosen, shown, list[nz.Choice], several=True), options)
    return SUCCESS
