"""``nezha-np classify``: name the classes of texts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import nezha_np as nz
from nezha_np.checks import check_integer
from nezha_np.commands import Subparsers
from nezha_np.commands.exit_status import SUCCESS
from nezha_np.commands.parser import typed_text
from nezha_np.commands.task_options import add_options
from nezha_np.text.zero_shot import TEMPLATE

Classified: TypeAlias = Callable[[Sequence[dict[str, Any]]], list[list[nz.Label]]]


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
    parser.set_defaults(run=run, aliases={"input": "FILE", "output_format": "--format"})


def run(options: argparse.Namespace) -> int:
    """Classify the texts."""
    from nezha_np.commands.task_lines import TaskOfLines, run_task

    pair = () if options.pair_field is None else (options.pair_field,)
    found = _by_class(options) if options.labels is None else _by_description(options)
    shown = TaskOfLines((options.field, *pair), options.result, found, lambda one: f"{one.label} {one.score:.3f}")
    run_task(shown, options)
    return SUCCESS


def _by_class(options: argparse.Namespace) -> Classified:
    """Classify by the classes that the model was trained for."""
    from nezha_np.commands.task_lines import load_model

    for option in ("template", "multi_label"):
        if getattr(options, option) != options.parser.get_default(option):
            raise ValueError(f"{option}: expected labels= with it, got none")
    weights = load_model(options.model)

    def classified(records: Sequence[dict[str, Any]]) -> list[list[nz.Label]]:
        return nz.classify(
            [record[options.field] for record in records],
            weights,
            pairs=None if options.pair_field is None else [record[options.pair_field] for record in records],
            top_k=options.top_k,
            batch_size=options.batch_size,
            max_length=options.max_length,
        )

    return classified


def _by_description(options: argparse.Namespace) -> Classified:
    """Classify by labels."""
    from nezha_np.commands.task_lines import load_model

    if options.pair_field is not None:
        raise ValueError(f"pair_field: expected none where labels= is given, got {options.pair_field!r}")
    labels = [label.strip() for label in options.labels.split(",")]
    if not all(labels):
        raise ValueError(f"labels: expected labels with commas between them, got {options.labels!r}")
    weights, top_k = load_model(options.model), check_integer("top_k", options.top_k, least=1)

    def classified(records: Sequence[dict[str, Any]]) -> list[list[nz.Label]]:
        found = nz.classify_by_description(
            [record[options.field] for record in records],
            labels,
            weights,
            template=TEMPLATE if options.template is None else options.template,
            multi_label=options.multi_label,
            batch_size=options.batch_size,
            max_length=options.max_length,
        )
        return [best[:top_k] for best in found]

    return classified
