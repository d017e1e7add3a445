"""The tables of `benchmarks/training.py`, and the section of docs/benchmarks.md that is made of its file.

python benchmarks/training_tables.py    writes the section anew, from benchmarks/results/training*.json, one a machine
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from machine import Target, describe, table, target_table

REFERENCE, OURS, ALL_LOGITS = "reference", "nezha_np", "all logits"
LAMB_REFERENCE, LAMB_OURS = "LAMB in torch", "nezha_np, LAMB"
PRODUCTS_REFERENCE, PRODUCTS = "torch's products", "NumPy's products"
CHECKPOINTED = "checkpoint_layers"
BEGIN, END = "<!-- made by benchmarks/training.py: begin -->", "<!-- end -->"
THIRD = 1 / 3
REPOSITORY = Path(__file__).parents[1]
RESULTS, PAGE = REPOSITORY / "benchmarks" / "results" / "training.json", REPOSITORY / "docs" / "benchmarks.md"


def time_table(results: list[dict[str, Any]]) -> str:
    """Make the table of times: whole steps with AdamW and with LAMB."""
    headings = ["shape", REFERENCE, OURS, "ratio", ALL_LOGITS, "ratio", LAMB_REFERENCE, LAMB_OURS, "ratio"]
    rows = []
    for result in results:
        medians = result["median_seconds"]
        cells = [result["shape"]]
        for name in (REFERENCE, OURS, ALL_LOGITS, LAMB_REFERENCE, LAMB_OURS):
            cells.append(f"{medians[name]:.2f} s")
            if name in (OURS, ALL_LOGITS, LAMB_OURS):
                cells.append(f"{result['ratios'][name]:.2f}")
        rows.append(cells)
    return table(headings, rows)


def products_table(results: list[dict[str, Any]]) -> str:
    """Make the table of what the layers' products alone take, and of what a step with AdamW takes beyond them."""
    headings = ["shape", PRODUCTS_REFERENCE, PRODUCTS, "ratio", "the rest, reference", "the rest, nezha_np", "ratio"]
    rows = []
    for result in results:
        medians = result["median_seconds"]
        products = [medians[name] for name in (PRODUCTS_REFERENCE, PRODUCTS)]
        rest = [medians[name] - each for name, each in zip((REFERENCE, OURS), products, strict=True)]
        cells = [[*(f"{each:.2f} s" for each in pair), f"{pair[1] / pair[0]:.2f}"] for pair in (products, rest)]
        rows.append([result["shape"], *cells[0], *cells[1]])
    return table(headings, rows)


def memory_table(results: list[dict[str, Any]]) -> str:
    """Make the table of peak memory."""
    headings = [
        "shape",
        "what",
        REFERENCE,
        OURS,
        ALL_LOGITS,
        CHECKPOINTED,
        "ours / reference",
        "checkpointed / reference",
    ]
    rows = []
    for result in results:
        for what, key in (("forward and backward", "forward_and_backward_mb"), ("with AdamW", "step_mb")):
            found = {who: result[who][key] for who in (REFERENCE, OURS, ALL_LOGITS, CHECKPOINTED) if who in result}
            sizes = [f"{found[who]:.0f} MB" if who in found else "not run" for who in headings[2:6]]
            ratios = [f"{found[who] / found[REFERENCE]:.2f}" for who in (OURS, CHECKPOINTED)]
            rows.append([result["shape"], what, *sizes, *ratios])
    return table(headings, rows)


def targets(times: list[dict[str, Any]], memory: list[dict[str, Any]]) -> list[Target]:
    """List what is wanted, with what was found."""
    found = [
        Target(f"time, {name}, {result['shape']}", result["ratios"][name], 1.0)
        for result in times
        for name in (OURS, LAMB_OURS)
    ]
    key = "forward_and_backward_mb"
    for result in memory:
        for who, limit in ((OURS, 1.0), (CHECKPOINTED, THIRD)):
            ratio = result[who][key] / result[REFERENCE][key]
            found.append(Target(f"memory, {who}, {result['shape']}", ratio, limit))
        step = result[OURS]["step_mb"] / result[REFERENCE]["step_mb"]
        found.append(Target(f"memory with AdamW, {OURS}, {result['shape']}", step, 1.0))
    return found


def section(content: dict[str, Any]) -> str:
    """Make the text between the marks of the page, from what the file holds."""
    results = content["results"]
    judged = targets(results["time"], results["memory"])
    settings = content["settings"]
    threads, repeats = settings["threads"], settings["repeats"]
    parts = [f"{describe(content['machine'])}; threads: {threads}, times: median of {repeats}."]
    parts += [time_table(results["time"])] if results["time"] else []
    if all(PRODUCTS in result["median_seconds"] for result in results["time"]) and results["time"]:
        parts.append(products_table(results["time"]))
    parts += [memory_table(results["memory"])] if results["memory"] else []
    return "\n\n".join([*parts, target_table(judged)])


def with_section(page: str, text: str, begin: str = BEGIN) -> str:
    """Put a text between the marks of a page."""
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}"


def sections() -> str:
    """Make the text of all machines: training.json, then the files of others, such as training_intel.json."""
    files = sorted(RESULTS.parent.glob("training*.json"))
    return "\n\n".join(section(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def write_page(page: Path = PAGE) -> None:
    """Write the section of the page anew."""
    page.write_text(with_section(page.read_text(encoding="utf-8"), sections()), encoding="utf-8")


if __name__ == "__main__":
    write_page()
