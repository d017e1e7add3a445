"""What a user of the installed package sees: its public names, and what pyproject.toml says of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
from package_page import LINK, absolute_links

import nezha_np as nz

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_dir_offers_public_names_only():
    public_rooms = {"families", "inside", "mechanism", "oracle"}
    assert set(dir(nz)) == {*nz.__all__, "__version__", *public_rooms} and dir(nz) == sorted(dir(nz))
    assert nz.__all__ == sorted(nz.__all__)
    for name in dir(nz):
        assert getattr(nz, name) is not None
    for room in public_rooms:
        assert getattr(nz, room).__all__ or room == "families"
    assert not {"importlib", "Any", "TYPE_CHECKING", "annotations"} & set(dir(nz))


def test_the_types_of_results_are_public():
    weights, ids = nz.load(), [[2, 318, 3]]
    with nz.trace() as recorded:
        out = nz.forward(weights, ids)
    decoder = weights.config.replace(is_decoder=True)
    answers = nz.init(weights.config, "question_answering")
    assert type(out) is nz.ModelOutput and type(recorded) is nz.Trace and isinstance(weights.config, nz.Config)
    assert type(nz.masked_lm(weights, ids)) is nz.HeadOutput
    assert type(nz.pretraining(weights, ids)) is nz.PretrainingOutput
    assert type(nz.causal_lm(weights, ids, config=decoder)) is nz.CausalLMOutput
    assert type(nz.question_answering(answers, ids)) is nz.QuestionAnsweringOutput


def test_softmax_is_public():
    assert np.array_equal(nz.softmax(np.array([[0.0, 0.0], [1e4, -1e4]])), [[0.5, 0.5], [1.0, 0.0]])


def test_rooms_above_the_model_are_loaded_when_they_are_asked_for():
    code = "import sys, nezha_np; dir(nezha_np); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    late = ("nezha_np.oracle", "nezha_np.explanation", "nezha_np.commands", "nezha_np.training", "tqdm", "argparse")
    assert [name for name in done.stdout.split() if name.startswith(late)] == []


def test_the_classifiers_say_that_it_is_a_plugin_of_pytest_and_where_it_was_run():
    classifiers = PROJECT["classifiers"]
    assert "Framework :: Pytest" in classifiers and PROJECT["entry-points"]["pytest11"]
    systems = [classifier for classifier in classifiers if classifier.startswith("Operating System")]
    assert systems == ["Operating System :: POSIX :: Linux"]  # no other has been tried


def test_the_page_of_the_package_links_to_files_of_the_repository():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = absolute_links(readme, "https://example.org/nezha_np/", "v1.2.3")
    targets = [(match["image"], match["target"]) for match in LINK.finditer(page)]
    assert len(targets) == len(LINK.findall(readme)) > 20
    assert all(target.startswith("https://") for _, target in targets)
    kinds = {"": "blob", "!": "raw"}
    own = [(image, target) for image, target in targets if target.startswith("https://example.org/")]
    for image, target in own:
        path = target.removeprefix(f"https://example.org/nezha_np/{kinds[image]}/v1.2.3/").partition("#")[0]
        assert (ROOT / path).exists(), target
    assert {image for image, _ in own} == {"", "!"}
    code = re.compile(r"^```.*?^```", flags=re.MULTILINE | re.DOTALL)
    assert code.findall(page) == code.findall(readme)


def test_links_that_lead_elsewhere_and_code_stay():
    for text in ("[a](https://arxiv.org/abs/1)", "[a](#below)", "```\n[a](b.md)\n```", "x[0](y z)"):
        assert absolute_links(text, "https://example.org", "v1") == text
    assert absolute_links("[a](b.md#c)", "https://example.org", "v1") == "[a](https://example.org/blob/v1/b.md#c)"
