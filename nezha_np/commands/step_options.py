"""The options of ``golden record`` that are about training steps."""

from __future__ import annotations

import argparse
from typing import Any

from nezha_np.commands import OPTIMIZERS

# The options that are passed on as they are, by their names in the parsed options.
STEP_OPTIONS = (
    "step",
    "steps",
    "learning_rate",
    "weight_decay",
    "variant",
    "clip_norm",
    "accumulation_steps",
    "loss_scale",
    "dropout_seed",
    "parameters",
)


def add_step_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of training steps.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the subcommand.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> add_step_options(parser)
    >>> step_options(parser.parse_args(["--step", "adamw", "--learning-rate", "0.001"]))
    {'step': 'adamw', 'learning_rate': 0.001}
    """
    group = parser.add_argument_group("training steps after the pass, with --labels or labels in --inputs")
    group.add_argument("--step", choices=OPTIMIZERS, help="the optimiser; without it no steps")
    group.add_argument("--steps", type=int, metavar="N", help="how many (1)")
    group.add_argument("--learning-rate", type=float, nargs="+", metavar="X", help="of all steps, or of each")
    group.add_argument("--weight-decay", type=float, metavar="X", help="of all but norms and biases (0.01)")
    group.add_argument("--variant", choices=("paper", "nezha"), help="of lamb (paper)")
    group.add_argument("--clip-norm", type=float, metavar="X", help="the largest global norm of the gradients (1)")
    group.add_argument("--accumulation-steps", type=int, metavar="N", help="parts that a batch is divided into (1)")
    group.add_argument("--loss-scale", type=float, metavar="X", help="a factor of the loss, divided out again (1)")
    group.add_argument(
        "--dropout-seed", type=int, metavar="N", help="any integer, the seed of dropout masks; none if left out"
    )
    group.add_argument("--parameters", action="append", metavar="PATTERN", help="tensors to keep, all if left out")


def step_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `nezha_np.oracle.record` takes from these options.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed options.

    Returns
    -------
    dict
        Those that were given.
    """
    given = {name: getattr(options, name) for name in STEP_OPTIONS if getattr(options, name) is not None}
    if len(given.get("learning_rate", [])) == 1:
        (given["learning_rate"],) = given["learning_rate"]
    return given
