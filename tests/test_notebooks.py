"""The notebooks: they run top to bottom, have every picture and every answer, and equal their text sources."""

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
PICTURE = re.compile(r"^\s*pictures\.(?:heat|lines|bars|links|points|show)\(", flags=re.MULTILINE)
CHINESE = re.compile("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
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
    numbers = [int(source.name[:2]) for source in SOURCES]
    assert numbers == list(range(1, len(SOURCES) + 1)) and len(SOURCES) >= 9
    assert sorted(NOTEBOOKS.glob("*.ipynb")) == [build.notebook_of(source) for source in SOURCES]


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
def test_a_notebook_ends_with_three_exercises_and_their_folded_answers(source):
    before, exercises = text_of(source).split("\n## Exercises\n")
    assert re.findall(r"^\*\*(\d)\.\*\* ", exercises, flags=re.MULTILINE) == ["1", "2", "3"]
    assert "<details>" not in before and len(build.DETAILS.findall(exercises)) == 3
    assert len(build.answers_of(text_of(source))) == 3


@each_source
def test_a_notebook_runs_top_to_bottom_and_its_answers_print_what_they_say(source):
    text = text_of(source)
    notebook, printed = build.run(text, short=True)  # raises where a cell fails: an assertion or a missing glyph
    assert printed == [answer.printed for answer in build.answers_of(text)]
    assert check_pictures(notebook) >= 4


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
