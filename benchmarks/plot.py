"""Draw the plot of the docs from the JSON files of forward.py and long_text.py; needs matplotlib.

python benchmarks/plot.py [--results benchmarks/results] [--output docs/benchmarks.svg]
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
# Names in the JSON file, names and colours in the plot; the colours are safe for colour-blind readers.
BARS = {
    "nezha_np": ("nezha_np", "#0072b2"),
    "ONNX Runtime": ("ONNX Runtime", "#e69f00"),
    "products": ("matrix products alone", "#b3b3b3"),
}
INK = "#333333"  # on a white background, so that it is equally readable on light and dark pages


def read(folder: Path, name: str) -> dict[str, Any]:
    file = folder / f"{name}.json"
    if not file.is_file():
        raise SystemExit(f"{file} is missing: python benchmarks/{name}.py --json {file}")
    return json.loads(file.read_text(encoding="utf-8"))


def draw(forward: dict[str, Any], long_text: dict[str, Any], output: Path) -> None:
    """Draw both panels; the suffix of the output gives the file format."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlesize": 11,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.hashsalt": "nezha_np",  # the same figures give the same file
    }
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(10.5, 3.9), width_ratios=[1.7, 1], layout="constrained", facecolor="white"
        )
        draw_ratios(left, forward["results"])
        draw_growth(right, long_text["results"])
        kind = output.suffix.lstrip(".")
        output.parent.mkdir(parents=True, exist_ok=True)
        beside = output.with_name(f".{output.name}.new")
        try:
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(beside, format=kind, dpi=150, metadata=metadata)
            os.replace(beside, output)
        finally:
            beside.unlink(missing_ok=True)
            plt.close(figure)


def draw_ratios(axes: Any, results: list[dict[str, Any]]) -> None:
    """Draw bars for each shape, relative to the reference, which is a line."""
    present = [name for name in BARS if all(name in result["median_seconds"] for result in results)]
    width = 0.8 / len(present)
    for index, name in enumerate(present):
        label, colour = BARS[name]
        ratios = [result["median_seconds"][name] / result["median_seconds"]["reference"] for result in results]
        places = [shape + (index - (len(present) - 1) / 2) * width for shape in range(len(results))]
        drawn = axes.bar(places, ratios, 0.92 * width, color=colour, label=label)
        if name == "nezha_np":
            # Inside the bars: above them they would cover the line of the reference.
            axes.bar_label(drawn, fmt="%.2f", fontsize=8.5, padding=-12, color="white")
    axes.axhline(1, color=INK, linewidth=1, linestyle="--", zorder=0.5, label="reference: transformers, eager")
    names = [
        f"{result['batch']} × {result['length']}\n{1000 * result['median_seconds']['reference']:,.0f} ms"
        for result in results
    ]
    axes.set_xticks(range(len(results)), names)
    axes.tick_params(axis="x", length=0)
    highest = max(axes.get_ylim()[1], 1.15)
    axes.set_ylim(0, 1.28 * highest)  # room for the legend
    axes.set(xlabel="batch × length in tokens, and the reference's time", ylabel="time / reference's time")
    axes.set_title("One forward pass, base size, float32, CPU: lower is better", loc="left")
    axes.legend(loc="upper center", ncols=2, frameon=False, fontsize=9)


def draw_growth(axes: Any, results: list[dict[str, Any]]) -> None:
    """Draw lines: the time of a token against the length of the text, of ours and of the reference where it ran."""
    for name, label, colour in (("reference", "reference", INK), ("nezha_np", *BARS["nezha_np"])):
        measured = [result for result in results if result[name] is not None]
        times = [result[name]["milliseconds_per_token"] for result in measured]
        lengths = [result["length"] for result in measured]
        axes.plot(lengths, times, marker="o", markersize=5, color=colour, clip_on=False, label=label)
    axes.set_xscale("log", base=2)
    lengths = [result["length"] for result in results]
    axes.set_xticks(lengths, [str(length) for length in lengths], rotation=45)
    axes.minorticks_off()
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set(xlabel="length of one text in tokens", ylabel="milliseconds a token")
    axes.set_title("One long text", loc="left")
    axes.legend(loc="upper left", frameon=False, fontsize=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks" / "results")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "benchmarks.svg", help=".svg or .png")
    options = parser.parse_args()
    draw(read(options.results, "forward"), read(options.results, "long_text"), options.output)


if __name__ == "__main__":
    main()
