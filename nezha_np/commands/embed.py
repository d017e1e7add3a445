"""``nezha-np embed``: turn a corpus of texts into a file of vectors."""

from __future__ import annotations

import argparse

from nezha_np.commands import Subparsers
from nezha_np.commands.corpus import add_job_options, is_job, run_job
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.parser import typed_text
from nezha_np.files import parquet_file, vector_file
from nezha_np.text.pooling import POOLINGS


def add(commands: Subparsers) -> None:
    """Add the parser of ``embed``."""
    parser = commands.add_parser(
        "embed",
        help="turn texts into vectors",
        description="Turn texts into vectors, one for each line. Interrupted, it leaves OUT.partial, and the same "
        "command goes on from there.",
        epilog="example: nezha-np embed texts.txt -o vectors.npy --model nezha --normalize",
    )
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="texts, one a line, or JSON Lines; standard input if left out"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a .npy, .safetensors or .jsonl file, or a folder (its name ends in /); JSON Lines on standard output if "
        "left out",
    )
    parser.add_argument(
        "--model", metavar="PATH", help="a checkpoint with its tokenizer; the shipped model if left out"
    )
    parser.add_argument(
        "--pooling",
        metavar="NAME",
        help=f"what makes one vector of a text's tokens: {', '.join(POOLINGS)}, or several, joined by +; if left out, "
        "what the folder of the model says, else mean",
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="scale each vector to length 1, or do not; if left out, what the folder of the model says, else not",
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts that are embedded together (32)")
    parser.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="cut each text after N tokens; if left out, what the folder of the model says, else no text is cut",
    )
    parser.add_argument(
        "--prompt",
        type=typed_text,
        metavar="TEXT",
        help="put this before each text; if left out, the default prompt of the model's folder, if it has one",
    )
    parser.add_argument(
        "--input-format",
        choices=parquet_file.FORMATS,
        help="by the name of FILE if left out: jsonl for .jsonl, .ndjson; parquet for .parquet",
    )
    parser.add_argument(
        "--field",
        type=typed_text,
        default="text",
        metavar="NAME",
        help="where in a JSON object the text stands (text)",
    )
    parser.add_argument("--format", choices=vector_file.FORMATS, help="of OUT; by its name if left out")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is there")
    parser.add_argument(
        "--restart", action="store_true", help="begin anew, and throw away what OUT.partial, or the folder OUT, holds"
    )
    parser.add_argument("--progress", action="store_true", help="show progress even where stderr is no terminal")
    add_job_options(parser, restart=False)
    parser.set_defaults(run=run, aliases={"input": "FILE", "output_format": "--format"})


def run(options: argparse.Namespace) -> int:
    """Embed the texts, batch by batch."""
    how = {
        "pooling": options.pooling,
        "normalize": options.normalize,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
        "prompt": options.prompt,
        "field": options.field,
    }
    if is_job(options, restart=False):
        return run_job("embed", options, output_format=options.format, **how)
    from nezha_np.commands.embed_lines import embed_lines

    embed_lines(
        options.file,
        options.output,
        model=options.model,
        **how,
        input_format=options.input_format,
        output_format=options.format,
        force=options.force,
        restart=options.restart,
        progress=options.progress,
    )
    return SUCCESS
