"""The block diagrams of the documentation show what the code does."""

import re
from pathlib import Path

import pytest

import nezha_np as nz

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import make_diagrams

    return make_diagrams


def test_each_diagram_is_what_the_tool_draws(tool):
    for name, text in tool.diagrams().items():
        assert (ROOT / "docs" / "_static" / name).read_text(encoding="utf-8") == text, (
            f"{name}: run python tools/make_diagrams.py"
        )


def test_a_layers_diagram_has_every_array_of_a_layer_once(tool):
    for family, config in tool.CONFIGS.items():
        with nz.trace() as t:
            nz.forward(nz.init(config), **tool.INPUTS)
        drawn = [block.name for block in tool.layer_blocks(family)]
        arrays = {id(t[name]) for name in t if name.startswith(("embeddings.", "encoder.layer.0"))}
        assert len(drawn) == len(set(drawn))
        assert arrays <= {id(t[name]) for name in drawn}


def test_every_arrow_and_every_link_of_a_diagram_has_an_end(tool):
    modules = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    for text in tool.diagrams().values():
        links = re.findall(r'href="\.\./api/(\w+)\.html#([\w.]+)"', text)
        assert links and all((ROOT / "docs" / "api" / f"{page}.md").exists() for page, _ in links)
        assert all(anchor.rpartition(".")[0] in modules for _, anchor in links)


@pytest.mark.parametrize("page", ["how_nezha_works", "how_nezha_works.zh"])
def test_every_formula_of_the_explanation_has_a_picture_before_the_next_heading(page):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE):
        *_, after = re.split(r"^\$\$.*?\$\$$", section, flags=re.MULTILINE | re.DOTALL)
        assert after == section or re.search(r"^!\[", after, flags=re.MULTILINE), section


def test_every_picture_of_a_formula_is_shown_and_follows_the_readers_light_or_dark_style(monkeypatch):
    pytest.importorskip("matplotlib", reason='the tool needs it: pip install ".[notebooks]"')
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import make_formula_pictures as tool

    shown = (ROOT / "docs" / "how_nezha_works.md").read_text(encoding="utf-8")
    assert {path.stem for path in tool.FOLDER.glob("*")} == set(tool.PICTURES)
    for name in tool.PICTURES:
        svg = (tool.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
        assert f"](_static/formulas/{name}.svg)" in shown and len(svg) < 50_000
        assert "prefers-color-scheme: dark" in svg and not any(
            colour in svg for colour in (tool.PAPER, "#000000; fill")
        )
