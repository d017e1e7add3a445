"""``nezha-np finetune``: train a model for a task."""

from __future__ import annotations

import argparse
from typing import Any

from nezha_np.commands import OPTIMIZERS, Subparsers
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.output import print_lines, print_message

TASKS = ("classify", "pairs", "tag", "answer", "choose")


def add(commands: Subparsers) -> None:
    """Add the parser of ``finetune``."""
    parser = commands.add_parser(
        "finetune",
        help="train a model for a task",
        description="Train a model for a task, on tab-separated examples or JSON Lines. The head that it lacks is "
        "drawn. Interrupted or killed, the same command goes on from the last epoch, to the same bits.",
        epilog="example: nezha-np finetune train.tsv -o sentiment --task classify --held-out dev.tsv",
    )
    parser.add_argument("examples", metavar="FILE", help="what to train on: tab-separated, or JSON Lines (.jsonl)")
    parser.add_argument("-o", "--output", required=True, metavar="RUN", help="the folder of the run, and of the model")
    parser.add_argument("--task", required=True, choices=TASKS, help="what the examples are of")
    parser.add_argument(
        "--held-out", "--dev", metavar="FILE", help="what to measure on; every tenth example of FILE if left out"
    )
    parser.add_argument("--model", metavar="PATH", help="a folder with the model; the shipped model if left out")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="the largest number of epochs (3)")
    parser.add_argument(
        "--patience", type=int, default=2, metavar="N", help="end after N epochs without a better model (2)"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="examples of a batch (32)")
    parser.add_argument("--max-length", type=int, default=128, metavar="N", help="tokens of a sequence (128)")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw", help="the optimiser (adamw)")
    parser.add_argument("--learning-rate", type=float, metavar="X", help="the largest one; by the model's width")
    parser.add_argument("--weight-decay", type=float, default=0.01, metavar="X", help="(0.01)")
    parser.add_argument("--dropout", type=float, metavar="X", help="the rate of every dropout; the configuration's")
    parser.add_argument(
        "--freeze", nargs="+", default=[], metavar="PATTERN", help="names of tensors to leave as they are"
    )
    parser.add_argument(
        "--save-changes",
        action="store_true",
        help="save only the tensors that were changed, to go with the model, in the dtype of its file: of a model in "
        "float16 they are rounded to it before they are measured",
    )
    parser.add_argument(
        "--checkpoint-layers", action="store_true", help="compute layers twice, for less memory; the same numbers"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="any integer; everything random depends on it (0)"
    )
    parser.set_defaults(run=run, aliases={"folder": "--output"})


def run(options: argparse.Namespace) -> int:
    """Train, print what is measured on standard error, and the folder of the model at the end."""
    from nezha_np.training.finetune import finetune
    from nezha_np.training.mpi import mpi_processes

    finetune(
        options.task,
        options.examples,
        options.output,
        held_out=options.held_out,
        model=options.model,
        epochs=options.epochs,
        patience=options.patience,
        batch_size=options.batch_size,
        max_length=options.max_length,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        freeze=options.freeze,
        save_changes=options.save_changes,
        dropout=options.dropout,
        checkpoint_layers=options.checkpoint_layers,
        seed=options.seed,
        report=_report,
        processes=mpi_processes(),
    )
    print_lines([f"{options.output}: the best model"])
    return SUCCESS


def _report(values: Any) -> None:
    numbers = ", ".join(
        f"{name} {value:.4g}" for name, value in values.items() if name not in ("step", "epoch") and value is not None
    )
    print_message(f"epoch {values['epoch']}: {numbers}")
