"""Write the table of docs/tasks.md, and draw its plot, from the JSON file of tasks.py; the plot needs matplotlib.

python benchmarks/tasks_page.py [--results benchmarks/results]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import describe, table, target_table
from plot import INK, REPOSITORY, read
from tasks import STARTS, rows, targets

PAGE = REPOSITORY / "docs" / "tasks.md"
PLOT = REPOSITORY / "docs" / "tasks.svg"
PART = re.compile(r"(?<=<!-- made by benchmarks/tasks_page.py -->\n).*?(?=<!-- end -->)", re.DOTALL)
# Names in the JSON file, names and colours in the plot; the colours are safe for colour-blind readers.
BARS = {
    "majority": ("majority", "#b3b3b3"),
    "characters": ("bag of characters", "#e69f00"),
    "random": ("network, random weights", "#56b4e9"),
    "pretrained": ("network, pre-trained", "#0072b2"),
}


def made_part(content: Mapping[str, Any]) -> str:
    """Return what stands between the marks of the page: the figures, the targets, what was trained how, the machine."""
    results = content["results"]
    return (
        f"\n{table(*rows(results))}\n\n{target_table(targets(results))}\n\n{table(*settings_rows(results))}\n\n"
        f"Added to, the last time, on {describe(content['machine'])}.\n\n"
    )


def settings_rows(results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the rows of what was trained how: examples, what of those that are scored was seen, options."""
    headings = [
        "task",
        "trained on",
        "seen by pre-training",
        "seen by fine-tuning",
        "seeds: pre-trained and random",
        "epochs",
        "learning rate",
    ]
    body = []
    for result in results:
        used = result["settings"]
        trained = f"{result['trained']:,}" + (f" (limit {used['limit']:,})" if used["limit"] else "")
        counts = [f"{result[name]:,}" for name in ("in_pretraining", "in_training")]
        seeds = " and ".join(str(len(result["seeds"][start])) for start in STARTS if start in result["seeds"])
        options = [seeds or "–", str(used["epochs"]), f"{used['learning_rate']:g}"]
        body.append([result["task"], trained, *counts, *options])
    return headings, body


def page_with(page: str, content: Mapping[str, Any]) -> str:
    """Return the page with the part that is made."""
    if not PART.search(page):
        raise SystemExit(f"{PAGE}: expected the marks of the part that is made, found none")
    return PART.sub(lambda _: made_part(content), page)


def draw(content: Mapping[str, Any], output: Path) -> None:
    """Draw a group of bars for each task; the line on a bar goes from the lowest seed to the highest."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = content["results"]
    with plt.rc_context({"font.size": 10, "text.color": INK, "axes.edgecolor": INK, "svg.hashsalt": "nezha_np"}):
        figure, axes = plt.subplots(figsize=(10.5, 3.9), layout="constrained", facecolor="white")
        width = 0.8 / len(BARS)
        for index, (who, (label, colour)) in enumerate(BARS.items()):
            places = [place + (index - (len(BARS) - 1) / 2) * width for place in range(len(results))]
            seeds = [result["scores"].get(who, {}).get("all", {}).get(result["metric"], [0.0]) for result in results]
            means = [statistics.mean(values) for values in seeds]
            spread = [
                [mean - min(values) for mean, values in zip(means, seeds, strict=True)],
                [max(values) - mean for mean, values in zip(means, seeds, strict=True)],
            ]
            axes.bar(places, means, 0.92 * width, yerr=spread, color=colour, label=label, ecolor=INK)
        axes.set_xticks(range(len(results)), [f"{result['task']}\n{result['metric']}" for result in results])
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, 1.15)
        axes.legend(loc="upper center", ncols=len(BARS), frameon=False, fontsize=9)
        beside = output.with_name(f".{output.name}.new")
        try:
            kind = output.suffix.lstrip(".")
            figure.savefig(beside, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
            os.replace(beside, output)
        finally:
            beside.unlink(missing_ok=True)
            plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks" / "results")
    content = read(parser.parse_args().results, "tasks")
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), content), encoding="utf-8", newline="\n")
    draw(content, PLOT)


if __name__ == "__main__":
    main()
