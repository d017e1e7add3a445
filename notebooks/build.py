"""Build the notebooks from their text sources, and run them.

python notebooks/build.py            all of them
python notebooks/build.py 03 04      those whose names start with 03 or 04

A source, notebooks/source/NN_name.md, is a notebook in Jupytext's Markdown format: each ```python block is a code cell,
except in a region (from <!-- #region --> to <!-- #endregion -->), which is one cell of text. The exercises are such a
region. The code of their answers, inside <details>, stays text in the notebook and runs after the notebook, in the same
kernel; what it prints must be the ```text block that follows it. `--answers` writes these ```text blocks into the
sources.

Notebooks 11 and 12 train models for some minutes. Their first cell has all sizes, and takes small ones where the
variable NEZHA_NOTEBOOKS_SHORT is set: so the tests run every line in seconds (`--short` runs them so, and writes
nothing). The outputs that are committed come from a run at full size.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
import nbclient
import nbformat
from nbformat.v4 import new_code_cell

FOLDER = Path(__file__).parent
SOURCES = FOLDER / "source"
DETAILS = re.compile(r"^<details>.*?^</details>\n", flags=re.MULTILINE | re.DOTALL)
ANSWER = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```\n", flags=re.MULTILINE | re.DOTALL)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# A kernel that fails where the shipped font has no glyph, and computes on one thread.
ENVIRONMENT = {
    "PYTHONWARNINGS": "error:Glyph",
    "NEZHA_NOTEBOOKS_SHIPPED_FONT_ALONE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class Answer(NamedTuple):
    """The code of a folded answer, and what it prints."""

    code: str
    printed: str


def sources() -> list[Path]:
    """List the text sources, in the order of their numbers."""
    return sorted(SOURCES.glob("[0-9][0-9]_*.md"))


def notebook_of(source: Path) -> Path:
    """Return the path of the notebook that is built from a source."""
    return FOLDER / f"{source.stem}.ipynb"


def answers_of(text: str) -> list[Answer]:
    """List the answers of a source; each Python block inside <details> must be followed by what it prints."""
    found = []
    for details in DETAILS.findall(text):
        answers = ANSWER.findall(details)
        if not answers or len(answers) != details.count("```python\n"):
            raise ValueError(f"expected a text block after each Python block of an answer, got {details}")
        found += [Answer(code.rstrip("\n"), printed) for code, printed in answers]
    return found


def unrun_notebook(text: str) -> Any:
    """Read a source as a notebook without outputs; nothing in it depends on the machine or the time."""
    notebook = jupytext.reads(text, fmt="md")
    notebook.metadata = nbformat.from_dict(METADATA)
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index:02d}"  # in place of a random one
    return notebook


def run(text: str, *, short: bool = False) -> tuple[Any, list[str]]:
    """Run a source top to bottom in a fresh kernel; return the notebook with outputs, and what each answer printed."""
    notebook = unrun_notebook(text)
    own = len(notebook.cells)
    notebook.cells += [new_code_cell(answer.code) for answer in answers_of(text)]
    client = nbclient.NotebookClient(
        notebook,
        timeout=120 if short else 3600,  # seconds for a cell: the full size trains for minutes
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # one output for all that a cell prints, whenever the kernel sends it
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(env={**os.environ, **ENVIRONMENT, **({"NEZHA_NOTEBOOKS_SHORT": "1"} if short else {})})
    printed = [
        "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for cell in notebook.cells[own:]
    ]
    del notebook.cells[own:]
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel has added its version
    return notebook, printed


def write_answers(text: str, printed: list[str]) -> str:
    """Put what the answers printed into the source."""
    left = iter(printed)

    def in_details(details: re.Match[str]) -> str:
        return ANSWER.sub(lambda answer: f"```python\n{answer[1]}```\n\n```text\n{next(left)}```\n", details[0])

    return DETAILS.sub(in_details, text)


def main() -> None:
    """Build the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description="Build the notebooks from their sources, and run them.")
    parser.add_argument("names", nargs="*", help="how the names start; default: all notebooks")
    parser.add_argument("--answers", action="store_true", help="write what the answers print into the sources")
    parser.add_argument("--short", action="store_true", help="run at the small sizes of the tests, and write nothing")
    arguments = parser.parse_args()
    for source in sources():
        if arguments.names and not source.name.startswith(tuple(arguments.names)):
            continue
        text = source.read_text(encoding="utf-8")
        notebook, printed = run(text, short=arguments.short)
        expected = [answer.printed for answer in answers_of(text)]
        if arguments.answers and printed != expected:
            text = write_answers(text, printed)
            source.write_text(text, encoding="utf-8")
            for cell, new in zip(notebook.cells, unrun_notebook(text).cells, strict=True):
                cell.source = new.source
        elif printed != expected:
            raise SystemExit(f"{source.name}: the answers print {printed}, the source says {expected}")
        nbformat.validate(notebook)
        if arguments.short:
            print(f"{source.name}: runs")
            continue
        written = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True)
        notebook_of(source).write_text(written + "\n", encoding="utf-8")
        print(f"{notebook_of(source).name}: {len(written.encode()) // 1000} KB")


if __name__ == "__main__":
    main()
