"""Build the notebooks from their text sources, and run them.

python notebooks/build.py            all of them
python notebooks/build.py 03 04      those whose names start with 03 or 04
python notebooks/build.py --chinese  the Chinese ones alone, of what is there: nothing is run

A source, notebooks/source/NN_name.md, is a notebook in Jupytext's Markdown format: each ```python block is a code cell,
except in a region (from <!-- #region --> to <!-- #endregion -->), which is one cell of text. The exercises are such a
region. The code of their answers, inside <details>, stays text in the notebook and runs after the notebook, in the same
kernel; what it prints must be the ```text block that follows it. `--answers` writes these ```text blocks into the
sources.

Notebooks 11 and 12 train models for some minutes. Their first cell has all sizes, and takes small ones where the
variable NEZHA_NOTEBOOKS_SHORT is set: so the tests run every line in seconds (`--short` runs them so, and writes
nothing). The outputs that are committed come from a run at full size.

Each notebook has a Chinese twin, NN_name.zh.ipynb. Its source, notebooks/source/NN_name.zh.md, has the text alone, and
a line <!-- code --> where the English source has a block of code, in the same order. The code and its outputs are taken
from the English notebook, so they cannot differ.
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
PYTHON = re.compile(r"^```python\n.*?^```\n(?:\n```text\n.*?^```\n)?", flags=re.MULTILINE | re.DOTALL)
HINT = "<details><summary>Hint</summary>"
CODE = "<!-- code -->\n"  # in a Chinese source, in place of a block of code and of what it prints
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
    """List the English sources, in the order of their numbers."""
    return sorted(path for path in SOURCES.glob("[0-9][0-9]*_*.md") if not path.stem.endswith(".zh"))


def chinese_of(source: Path) -> Path:
    """Return the path of the Chinese text of a source."""
    return source.with_suffix(".zh.md")


def notebook_of(source: Path) -> Path:
    """Return the path of the notebook that is built from a source."""
    return FOLDER / f"{source.stem}.ipynb"


def answers_of(text: str) -> list[Answer]:
    """List the answers of a source; each Python block inside <details> must be followed by what it prints.

    A hint is folded too, and has no code.
    """
    found = []
    for details in DETAILS.findall(text):
        if details.startswith(HINT):
            continue
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


def woven(chinese: str, english: str) -> str:
    """Put the blocks of code of an English source into the Chinese text, each where a line says so."""
    blocks = PYTHON.findall(english)
    found = chinese.count(CODE)
    if found != len(blocks):
        raise ValueError(f"expected {len(blocks)} lines {CODE.strip()}, one for each block of code, got {found}")
    left = iter(blocks)
    return re.sub(f"^{CODE}", lambda _: next(left), chinese, flags=re.MULTILINE)


def code_of(notebook: Any) -> list[str | None]:
    """List the code of the cells of a notebook; a cell of text is None."""
    return [cell.source if cell.cell_type == "code" else None for cell in notebook.cells]


def chinese_notebook(source: Path) -> Any:
    """Make the Chinese twin of a notebook: its text, with the code and the outputs of the English notebook."""
    chinese, english = (path.read_text(encoding="utf-8") for path in (chinese_of(source), source))
    notebook, built = unrun_notebook(woven(chinese, english)), nbformat.read(notebook_of(source), as_version=4)
    if code_of(notebook) != code_of(built):
        raise ValueError(f"{chinese_of(source).name}: expected text and code in the order of the English notebook")
    for cell, twin in zip(notebook.cells, built.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = twin.outputs, twin.execution_count
    return notebook


def write_notebook(notebook: Any, path: Path) -> None:
    """Write a notebook as JSON whose keys are in order."""
    nbformat.validate(notebook)
    written = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True)
    path.write_text(written + "\n", encoding="utf-8")
    print(f"{path.name}: {len(written.encode()) // 1000} KB")


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
    parser.add_argument("--chinese", action="store_true", help="make the Chinese notebooks alone, and run nothing")
    parser.add_argument("--short", action="store_true", help="run at the small sizes of the tests, and write nothing")
    arguments = parser.parse_args()
    for source in sources():
        if arguments.names and not source.name.startswith(tuple(arguments.names)):
            continue
        if arguments.chinese:
            write_notebook(chinese_notebook(source), notebook_of(chinese_of(source)))
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
        if arguments.short:
            print(f"{source.name}: runs")
            continue
        write_notebook(notebook, notebook_of(source))
        write_notebook(chinese_notebook(source), notebook_of(chinese_of(source)))


if __name__ == "__main__":
    main()
