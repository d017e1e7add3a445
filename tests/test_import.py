"""`import nezha_np` loads what a forward pass needs, and the names of the other rooms when they are asked for."""

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import nezha_np as nz

LOADED = {
    "arrays",
    "checks",
    "families",
    "files",
    "layers",
    "mechanism",
    "model",
    "narrow",
    "randomness",
    "threads",
    "weights",
}


def printed_by(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_import_loads_the_rooms_up_to_the_model_and_no_tokenizer():
    modules = printed_by("import sys, nezha_np; print(*sys.modules)")
    assert {name.split(".")[1] for name in modules if name.startswith("nezha_np.")} == LOADED
    assert {"tokenizers", "concurrent.futures", "asyncio", "tempfile"}.isdisjoint(modules)


def test_a_forward_pass_loads_the_kernels_besides_and_a_task_its_own_module():
    code = "import sys, nezha_np as nz; nz.forward(nz.load(), [[2, 3]]); {}print(*sys.modules)"
    modules = set(printed_by(code.format("")))
    assert {name.split(".")[1] for name in modules if name.startswith("nezha_np.")} == LOADED | {"kernels"}
    more = {name for name in set(printed_by(code.format("nz.tag; "))) - modules if name.startswith("nezha_np.")}
    assert "nezha_np.text.tag" in more and "nezha_np.text.answer" not in more


def test_what_is_loaded_later_is_what_type_checkers_see():
    module = ast.parse(Path(nz.__file__).read_text(encoding="utf-8"))
    (block,) = (part for part in module.body if isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING")
    seen = {
        alias.name: statement.module.removeprefix("nezha_np").removeprefix(".")
        for statement in block.body
        for alias in statement.names
    }
    assert seen == nz.LOADED_LATER | {"inside": "", "oracle": ""}


@pytest.mark.parametrize("name", sorted(nz.LOADED_LATER))
def test_a_name_that_is_loaded_later_is_the_one_of_its_module(name):
    value = getattr(nz, name)
    assert value is getattr(importlib.import_module(f"nezha_np.{nz.LOADED_LATER[name]}"), name)
    assert vars(nz)[name] is value and name in dir(nz) and name in nz.__all__


def test_a_star_import_has_every_public_name():
    names = printed_by("from nezha_np import *; print(*(name for name in dir() if not name.startswith('__')))")
    assert sorted(names) == sorted(nz.__all__)


def test_results_are_pickled_by_a_process_that_has_loaded_none_of_their_modules():
    label = nz.Label("positive", 0.75)
    code = f"import pickle; print(pickle.loads({pickle.dumps(label)!r}).label)"
    assert printed_by(code) == ["positive"]


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'nezha_np' has no attribute 'tga'"):
        nz.tga  # noqa: B018
