"""``nezha-np pretrain``: train a model on plain text."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import Any

from nezha_np.commands import OPTIMIZERS, Subparsers
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.output import print_lines, print_message


def add(commands: Subparsers) -> None:
    """Add the parser of ``pretrain``."""
    parser = commands.add_parser(
        "pretrain",
        help="train a model on plain text",
        description="Train a model on plain text: a sentence a line, an empty line between documents, or JSON Lines. "
        "Interrupted or killed, the same command goes on from the last saved step, to the same bits.",
        epilog="example: nezha-np pretrain news.txt -o run --config small.json --words jieba --steps 20000",
    )
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="text files, or JSON Lines by their names, .jsonl")
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="the folder of the run, and of the model")
    parser.add_argument(
        "--model", metavar="PATH", help="a folder with the tokenizer and the weights to begin with; the shipped model"
    )
    parser.add_argument("--config", metavar="FILE", help="a config.json: begin with new weights of that configuration")
    parser.add_argument("--held-out", nargs="+", default=[], metavar="TEXT", help="text files to measure on")
    parser.add_argument(
        "--words", choices=("jieba",), help="mask whole words of this segmenter; single tokens if left out"
    )
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="how many steps to make (1000)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="sequences of a batch (32)")
    parser.add_argument("--parts", type=int, default=1, metavar="N", help="compute a batch in N parts (1)")
    parser.add_argument("--max-length", type=int, default=128, metavar="N", help="tokens of a sequence (128)")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="lamb", help="the optimiser (lamb)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, metavar="X", help="the largest one (0.001)")
    parser.add_argument("--warmup-steps", type=int, metavar="N", help="how long it grows; a tenth of all steps")
    parser.add_argument("--weight-decay", type=float, default=0.01, metavar="X", help="(0.01)")
    parser.add_argument("--clip-norm", type=float, default=1.0, metavar="X", help="largest norm of all gradients (1)")
    parser.add_argument(
        "--mixed-precision", action="store_true", help="compute in float16, for GPUs; on a CPU that is slower"
    )
    parser.add_argument(
        "--checkpoint-layers", action="store_true", help="compute layers twice, for less memory; the same numbers"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="any integer; everything random depends on it (0)"
    )
    parser.add_argument("--measure-every", type=int, default=10, metavar="N", help="steps from line to line (10)")
    parser.add_argument("--save-every", type=int, default=100, metavar="N", help="steps from save to save (100)")
    parser.add_argument("--keep", type=int, default=2, metavar="N", help="how many saved steps to keep (2)")
    parser.set_defaults(run=run, aliases={"files": "TEXT", "folder": "--output", "segmenter": "--words"})


def run(options: argparse.Namespace) -> int:
    """Train, print what is measured on standard error, and the folder of the model at the end."""
    from nezha_np.families.config import read_config
    from nezha_np.training.mpi import mpi_processes
    from nezha_np.training.pretrain import pretrain

    pretrain(
        options.texts,
        options.output,
        model=options.model,
        config=None if options.config is None else read_config(options.config),
        held_out=options.held_out,
        segmenter=None if options.words is None else _segmenter(options.words),
        steps=options.steps,
        batch_size=options.batch_size,
        parts=options.parts,
        max_length=options.max_length,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        clip_norm=options.clip_norm,
        mixed_precision=options.mixed_precision,
        checkpoint_layers=options.checkpoint_layers,
        seed=options.seed,
        measure_every=options.measure_every,
        save_every=options.save_every,
        keep=options.keep,
        report=_report,
        processes=mpi_processes(),
    )
    print_lines([f"{options.output}: the model after {options.steps} steps"])
    return SUCCESS


def _segmenter(name: str) -> Callable[[str], list[str]]:
    try:
        module: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'--words {name}: pip install "nezha-np[words]"', name=name) from error
    if name == "jieba":
        module.setLogLevel(60)  # it reports on its dictionary otherwise
    cut: Callable[[str], list[str]] = module.lcut
    return cut


def _report(values: Any) -> None:
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if name != "step")
    print_message(f"step {values['step']}: {numbers}")
