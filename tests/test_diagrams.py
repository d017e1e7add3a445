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
