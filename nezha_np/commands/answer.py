"""``nezha-np answer``: find the answers to questions in texts."""

from __future__ import annotations

import argparse

from nezha_np.commands import Subparsers
from nezha_np.commands.corpus import add_job_options, is_job, run_job
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.parser import typed_text
from nezha_np.commands.task_options import add_options


def add(commands: Subparsers) -> None:
    """Add the parser of ``answer``."""
    parser = commands.add_parser(
        "answer",
        help="find the answers to questions in texts",
        description="Find the part of a text that answers each question. Long texts are read in windows.",
        epilog="example: nezha-np answer questions.jsonl --model my_model -o answers.jsonl",
    )
    add_options(
        parser,
        input="a question and its text in each line, with a tab between them, or JSON Lines",
        result="answers",
        model="a checkpoint with its tokenizer, trained by nezha-np finetune --task answer; none is shipped",
    )
    parser.add_argument("--top-k", type=int, default=1, metavar="K", help="answers to each question (1)")
    parser.add_argument("--max-answer-tokens", type=int, default=30, metavar="N", help="the longest answer (30)")
    parser.add_argument("--impossible", action="store_true", help="an empty answer may be the best")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of a window (384, or as the model has)")
    parser.add_argument("--stride", type=int, default=128, metavar="N", help="tokens that two windows share (128)")
    parser.add_argument(
        "--question-field", type=typed_text, default="question", metavar="NAME", help="of a JSON object (question)"
    )
    parser.add_argument(
        "--context-field", type=typed_text, default="context", metavar="NAME", help="of a JSON object (context)"
    )
    add_job_options(parser)
    parser.set_defaults(run=run, aliases={"input": "FILE", "output_format": "--format"})


def run(options: argparse.Namespace) -> int:
    """Answer the questions."""
    how = {
        "question_field": options.question_field,
        "context_field": options.context_field,
        "result": options.result,
        "top_k": options.top_k,
        "max_answer_tokens": options.max_answer_tokens,
        "impossible": options.impossible,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
        "stride": options.stride,
    }
    if is_job(options):
        return run_job("answer", options, output_format=options.format, **how)
    from nezha_np.commands.task_lines import load_model, run_task
    from nezha_np.jobs.records import answer_records

    run_task(answer_records(load_model(options.model), **how), options)
    return SUCCESS
