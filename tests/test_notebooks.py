"""The notebooks: they run top to bottom, have every picture and every answer, and equal their text sources.

The Chinese ones have the code and the outputs of the English ones, and their text says the same.
"""

import base64
import importlib.util
import io
import re
from pathlib import Path

import pytest

NEEDED = 'the notebooks need it: pip install ".[notebooks]"'
pytest.importorskip("ipykernel", reason=NEEDED)
pytest.importorskip("array_api_strict", reason=NEEDED)
pytest.importorskip("jupytext", reason=NEEDED)
MarkdownIt = pytest.importorskip("markdown_it", reason=NEEDED).MarkdownIt
nbformat = pytest.importorskip("nbformat", reason=NEEDED)
nbclient = pytest.importorskip("nbclient", reason=NEEDED)
ft2font = pytest.importorskip("matplotlib.ft2font", reason=NEEDED)
Image = pytest.importorskip("PIL.Image", reason=NEEDED)

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
_spec = importlib.util.spec_from_file_location("build_notebooks", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

SOURCES = build.sources()
FONT = NOTEBOOKS / "fonts" / "notebooks-cjk.otf"
PICTURE = re.compile(r"^\s*pictures\.(?:heat|lines|panels|bars|links|points|show)\(", flags=re.MULTILINE)
CHINESE = re.compile("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
SAME_IN_BOTH_LANGUAGES = {
    "formulas of lines of their own": r"\$\$.*?\$\$",
    "formulas": r"(?<!\$)\$[^$\n]+\$",
    "signs of formulas in plain text": "[\u0370-\u03ff\u1d40\u2200-\u22ff²√×]",
    "code": r"`[^`\n]+`",
    "links": r"\]\(([^)\s]+)\)",
    "tags": r"</?\w+>",
    "headings": r"^#+ ",
    "items": r"^(?:- |\d+\. |\*\*\d\.\*\* )",
    "cells of tables": r"^\|.*\|$",
    "bold words": r"\*\*",
}
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])\d(?:[\d.,]*\d)?")
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def text_of(source):
    return source.read_text(encoding="utf-8")


def committed(source):
    return nbformat.read(build.notebook_of(source), as_version=4)


def check_pictures(notebook):
    """Check that every call that draws has one picture of more than one colour; return how many there are."""
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        shown = [
            {**output.data, **output.metadata["image/png"]}
            for output in cell.outputs
            if "image/png" in output.get("data", {})
        ]
        assert len(shown) == len(PICTURE.findall(cell.source)), cell.source
        for picture in shown:
            assert len(picture["text/plain"]) >= 20, (
                cell.source
            )  # a description, for readers who cannot see the picture
            image = Image.open(io.BytesIO(base64.b64decode(picture["image/png"]))).convert("RGB")
            assert picture["alt"] == picture["text/plain"] and image.width == 2 * picture["width"]
            assert min(image.size) > 100 and len(image.getcolors(image.width * image.height)) > 4
        count += len(shown)
    return count


def test_every_source_has_its_notebook_and_every_notebook_its_source():
    numbers = [source.name.split("_")[0] for source in SOURCES]
    own = [number for number in numbers if number.isdecimal()]  # 01b follows 01, and takes no number of its own
    assert own == [f"{number:02}" for number in range(1, len(own) + 1)] and len(own) >= 9
    both = [path for source in SOURCES for path in (source, build.chinese_of(source))]
    assert sorted(NOTEBOOKS.glob("*.ipynb")) == sorted(map(build.notebook_of, both))
    assert sorted(build.SOURCES.iterdir()) == sorted(both)


@each_source
def test_a_notebook_is_its_source_and_its_outputs_and_nothing_else(source):
    found, expected = committed(source), build.unrun_notebook(text_of(source))
    nbformat.validate(found)
    assert found.metadata == expected.metadata
    assert [(cell.id, cell.cell_type, cell.source, cell.metadata) for cell in found.cells] == [
        (cell.id, cell.cell_type, cell.source, cell.metadata) for cell in expected.cells
    ]
    outputs = [output for cell in found.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert "small sizes" not in "".join(output.get("text", "") for output in outputs)  # those of the tests
    # No trace of the machine on which it was run: no path, no time.
    written = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert not re.search(r"site-packages|/home/|/root/|/tmp/|/Users/|\\Users\\|\d\d:\d\d:\d\d", written)


@each_source
def test_a_notebook_as_committed_has_every_picture_and_is_small(source):
    assert check_pictures(committed(source)) >= 4
    assert build.notebook_of(source).stat().st_size < 400_000


@each_source
def test_a_notebook_ends_with_three_exercises_and_their_folded_hints_and_answers(source):
    before, exercises = text_of(source).split("\n## Exercises\n")
    assert re.findall(r"^\*\*(\d)\.\*\* ", exercises, flags=re.MULTILINE) == ["1", "2", "3"]
    folded = build.DETAILS.findall(exercises)
    assert "<details>" not in before and [details.startswith(build.HINT) for details in folded] == 3 * [True, False]
    assert len(build.answers_of(text_of(source))) == 3


@each_source
def test_a_notebook_runs_top_to_bottom_and_its_answers_print_what_they_say(source):
    text = text_of(source)
    notebook, printed = build.run(text, short=True)  # raises where a cell fails: an assertion or a missing glyph
    assert printed == [answer.printed for answer in build.answers_of(text)]
    assert check_pictures(notebook) >= 4


# ----------------------------------------------------------------------------------------------------- in Chinese


@each_source
def test_a_chinese_notebook_has_the_code_and_the_outputs_of_the_english_one(source):
    english, chinese = committed(source), committed(build.chinese_of(source))
    assert chinese == build.chinese_notebook(source)
    assert [cell.id for cell in chinese.cells] == [cell.id for cell in english.cells]
    assert [cell for cell in chinese.cells if cell.cell_type == "code"] == [
        cell for cell in english.cells if cell.cell_type == "code"
    ]


def text_cells(path):
    return [cell.source for cell in committed(path).cells if cell.cell_type == "markdown"]


@each_source
def test_the_chinese_text_has_the_formulas_the_names_the_numbers_and_the_form_of_the_english_one(source):
    def found_in(what, text):
        found = re.findall(SAME_IN_BOTH_LANGUAGES[what], text.replace(".zh.", "."), flags=re.MULTILINE | re.DOTALL)
        return [row.count("|") for row in found] if what == "cells of tables" else sorted(found)

    def numbers_in(text):
        return set(NUMBER.findall(text.replace("4 million", "400 万")))

    for english, chinese in zip(text_cells(source), text_cells(build.chinese_of(source)), strict=True):
        assert CHINESE.search(chinese), chinese
        for what in SAME_IN_BOTH_LANGUAGES:
            assert found_in(what, chinese) == found_in(what, english), (what, chinese)
        assert numbers_in(english) <= numbers_in(chinese), chinese


@each_source
def test_no_emphasis_of_the_chinese_text_is_left_as_asterisks(source):
    """A sign of Chinese punctuation within bold words, and a character beside them, would leave the asterisks."""
    for text in text_cells(build.chinese_of(source)):
        inline = [token for token in MarkdownIt().enable("table").parse(text) if token.type == "inline"]
        assert not [child.content for token in inline for child in token.children if "**" in child.content], text


def test_a_chinese_text_with_another_number_of_blocks_of_code_is_refused():
    with pytest.raises(ValueError, match="one for each block of code"):
        build.woven("# 题目\n", "# Title\n\n```python\nprint(1)\n```\n")


# ------------------------------------------------------------------------------------------------- what is refused


def test_a_character_that_the_font_lacks_stops_the_run():
    draw = 'import pictures\n\nalt = "A line that rises to the right."\n'
    draw += 'pictures.lines([0, 1], {"a": [0, 1]}, title="TITLE", xlabel="", ylabel="", alt=alt)\n'
    notebook, _ = build.run(f"```python\n{draw.replace('TITLE', '房间很干净。')}```\n")
    assert check_pictures(notebook) == 1
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="Glyph"):
        build.run(f"```python\n{draw.replace('TITLE', '龘')}```\n")


def test_an_answer_without_what_it_prints_is_refused():
    with pytest.raises(ValueError, match="text block"):
        build.answers_of("<details><summary>Answer</summary>\n\n```python\nprint(1)\n```\n\n</details>\n")


def test_the_font_is_small_and_has_a_licence_and_every_chinese_character_of_the_notebooks():
    assert FONT.stat().st_size < 300_000
    assert "SIL OPEN FONT LICENSE Version 1.1" in (FONT.parent / "OFL.txt").read_text(encoding="utf-8")
    has = ft2font.FT2Font(str(FONT)).get_charmap()
    missing = {
        character for source in SOURCES for character in CHINESE.findall(text_of(source)) if ord(character) not in has
    }
    assert not missing
