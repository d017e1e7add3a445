"""Make the notebooks out of their text sources, and run them; needs nbformat, nbclient and ipykernel.

python notebooks/build.py            all of them
python notebooks/build.py 03 04      those whose names begin so

A source, notebooks/source/NN_name.md, is Markdown. Each ```python block is a code cell, but for those inside
<details>, which are answers to exercises: they stay text in the notebook, and are run after it, in the same kernel;
what they print must be the ```text block that follows them. `--answers` writes these ```text blocks into the sources.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import nbclient
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FOLDER = Path(__file__).parent
SOURCES = FOLDER / "source"
BLOCK = re.compile(r"^```python\n(.*?)^```\n", flags=re.MULTILINE | re.DOTALL)
DETAILS = re.compile(r"^<details>.*?^</details>\n", flags=re.MULTILINE | re.DOTALL)
ANSWER = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```\n", flags=re.MULTILINE | re.DOTALL)
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
    """Return where the notebook of a source is."""
    return FOLDER / f"{source.stem}.ipynb"


def answers_of(text: str) -> list[Answer]:
    """List the answers of a source; each Python block inside <details> must be followed by what it prints."""
    found = []
    for details in DETAILS.findall(text):
        answers = ANSWER.findall(details)
        if not answers or len(answers) != len(BLOCK.findall(details)):
            raise ValueError(f"expected a text block after each Python block of an answer, got {details}")
        found += [Answer(code.rstrip("\n"), printed) for code, printed in answers]
    return found


def cells_of(text: str) -> list[tuple[str, str]]:
    """Cut a source into cells: ("markdown" or "code", text)."""
    answers = [match.span() for match in DETAILS.finditer(text)]
    cells, start = [], 0
    for match in BLOCK.finditer(text):
        if any(first <= match.start() < last for first, last in answers):
            continue
        cells += [("markdown", text[start : match.start()].strip()), ("code", match[1].rstrip("\n"))]
        start = match.end()
    cells.append(("markdown", text[start:].strip()))
    return [(kind, body) for kind, body in cells if body]


def unrun_notebook(text: str) -> Any:
    """Make a notebook without outputs; nothing in it depends on the machine or the time."""
    make = {"markdown": new_markdown_cell, "code": new_code_cell}
    cells = [make[kind](body, id=f"cell-{index:02d}") for index, (kind, body) in enumerate(cells_of(text))]
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return new_notebook(cells=cells, metadata=metadata)


def run(text: str) -> tuple[Any, list[str]]:
    """Run a source top to bottom in a fresh kernel; return the notebook with outputs, and what each answer printed."""
    notebook = unrun_notebook(text)
    own = len(notebook.cells)
    notebook.cells += [new_code_cell(answer.code) for answer in answers_of(text)]
    client = nbclient.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(env={**os.environ, **ENVIRONMENT})
    printed = [
        "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for cell in notebook.cells[own:]
    ]
    del notebook.cells[own:]
    notebook.metadata = unrun_notebook(text).metadata  # the kernel adds its version
    return notebook, printed


def write_answers(text: str, printed: list[str]) -> str:
    """Put what the answers printed into the source."""
    left = iter(printed)

    def in_details(details: re.Match[str]) -> str:
        return ANSWER.sub(lambda answer: f"```python\n{answer[1]}```\n\n```text\n{next(left)}```\n", details[0])

    return DETAILS.sub(in_details, text)


def main() -> None:
    """Build what was asked for."""
    parser = argparse.ArgumentParser(description="Make the notebooks out of their sources, and run them.")
    parser.add_argument("names", nargs="*", help="how the names begin; none: all")
    parser.add_argument("--answers", action="store_true", help="write what the answers print into the sources")
    arguments = parser.parse_args()
    for source in sources():
        if arguments.names and not source.name.startswith(tuple(arguments.names)):
            continue
        text = source.read_text(encoding="utf-8")
        notebook, printed = run(text)
        expected = [answer.printed for answer in answers_of(text)]
        if arguments.answers and printed != expected:
            text = write_answers(text, printed)
            source.write_text(text, encoding="utf-8")
            for cell, new in zip(notebook.cells, unrun_notebook(text).cells, strict=True):
                cell.source = new.source
        elif printed != expected:
            raise SystemExit(f"{source.name}: the answers print {printed}, the source says {expected}")
        nbformat.validate(notebook)
        written = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True)
        notebook_of(source).write_text(written + "\n", encoding="utf-8")
        print(f"{notebook_of(source).name}: {len(written.encode()) // 1000} KB")


if __name__ == "__main__":
    main()
