"""The tables of answers.py, serve.py and function_start.py, and the sections of docs that are made of their files.

python benchmarks/answers_tables.py    writes each section anew whose file is in benchmarks/results
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import describe, table
from training_tables import PAGE, REPOSITORY, RESULTS, with_section

BEGIN = "<!-- made by benchmarks/{}.py: begin -->"
SERVE_PAGE = REPOSITORY / "docs" / "howto" / "serve.md"


def answers_table(results: list[dict[str, Any]]) -> str:
    """Make the table of tasks: texts a second of each contestant, and how often the results are the same."""
    speeds = list(results[0]["texts_per_second"])
    headings = ["texts a second", *speeds, *(f"nezha_np / {name}" for name in speeds if name != "nezha_np")]
    return table([*headings, "same", "difference"], [answers_row(result) for result in results])


def answers_row(result: dict[str, Any]) -> list[str]:
    """Make the row of a task."""
    speeds = [f"{speed:.0f}" for speed in result["texts_per_second"].values()]
    ratios = [f"{ratio:.2f}" for ratio in result["ratio_to_ours"].values()]
    name = f"{result['task']}, {result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    return [name, *speeds, *ratios, str(result["same_results"]), f"{result['largest_difference']:.1e}"]


def loads_table(rows: list[dict[str, Any]]) -> str:
    """Make the table of a service under load."""
    cells = [
        [
            str(row["clients"]),
            f"{row['texts_a_second']:.0f}",
            f"{row['p50_seconds'] * 1000:.0f} ms",
            f"{row['p99_seconds'] * 1000:.0f} ms",
            str(row["refused"]),
        ]
        for row in rows
    ]
    return table(["clients", "texts a second", "p50", "p99", "refused (503)"], cells)


def starts_table(starts: dict[str, dict[str, Any]]) -> str:
    """Make the table of a function's cold starts."""
    cells = [
        [
            name,
            f"{found['median_seconds']:.2f} s",
            f"{found['median_seconds_of_a_further_answer'] * 1000:.0f} ms",
            f"{found['median_peak_mb']:.0f} MB",
            f"{found['model_mb']:.0f} MB",
        ]
        for name, found in starts.items()
    ]
    return table(["", "to the first answer", "a further answer", "peak memory", "beside the folder"], cells)


def answers_section(content: dict[str, Any]) -> str:
    """Make the section of docs/benchmarks.md."""
    settings = content["settings"]
    texts = f"{settings['texts']} texts of {settings['tokens']} tokens; median of {settings['rounds']}"
    alone = [f"{one['products']:.0f} ({one['threads']})" for one in content["results"] if "products" in one]
    products = f" Matrix products of embed alone, texts a second by threads: {', '.join(alone)}." if alone else ""
    return f"{describe(content['machine'])}; {texts}.{products}\n\n{answers_table(content['results'])}"


def loads_section(content: dict[str, Any]) -> str:
    """Make the section of docs/howto/serve.md about the service."""
    settings = content["settings"]
    how = f"{settings['requests']} texts for each row; threads of BLAS: {settings['threads']}"
    return f"{describe(content['machine'])}; {how}.\n\n{loads_table(content['results']['rows'])}"


def starts_section(content: dict[str, Any]) -> str:
    """Make the section of docs/howto/serve.md about the function."""
    settings, results = content["settings"], content["results"]
    how = f"the folder has {sum(results['folder_mb'].values()):.0f} MB; threads: {settings['threads']}"
    return (
        f"{describe(content['machine'])}; {how}; median of {settings['repeats']}.\n\n{starts_table(results['starts'])}"
    )


SECTIONS: dict[str, tuple[Path, Callable[[dict[str, Any]], str]]] = {
    "answers": (PAGE, answers_section),
    "serve": (SERVE_PAGE, loads_section),
    "function_start": (SERVE_PAGE, starts_section),
}


def write_pages(results: Path = RESULTS.parent) -> None:
    """Write the sections anew whose benchmarks have a file."""
    for benchmark, (page, section) in SECTIONS.items():
        file = results / f"{benchmark}.json"
        if file.exists():
            text = section(json.loads(file.read_text(encoding="utf-8")))
            whole = with_section(page.read_text(encoding="utf-8"), text, BEGIN.format(benchmark))
            page.write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    write_pages()
