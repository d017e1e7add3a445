"""The report of the oracle: its numbers are those of `compare` and of the doctor, and the page stands alone.

What it looks like in a browser is in test_report_browser.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.oracle.report import COLUMNS, HIGHEST, LOWEST, ROWS, code_of, levels_of, pack_levels, place_of

CONFIG = nz.NezhaConfig(
    vocab_size=60,
    hidden_size=24,
    num_attention_heads=3,
    num_hidden_layers=2,
    intermediate_size=32,
    max_relative_position=4,
)
IDS = np.random.default_rng(0).integers(5, 60, (2, 9))
MASK = np.array([[1] * 9, [1] * 6 + [0] * 3])


def model(config: Any = CONFIG) -> nz.Weights:
    """Draw weights that all matter: those of `init` are so small that attention is uniform."""
    generator = np.random.default_rng(1)
    tensors = {
        name: (0.3 * generator.normal(size=array.shape) + name.endswith("LayerNorm.weight")).astype("float32")
        for name, array in nz.init(config).items()
    }
    return nz.Weights(tensors, config)


@pytest.fixture(scope="module")
def bundle() -> nz.oracle.Bundle:
    return nz.oracle.record(
        model(), IDS, attention_mask=MASK, head="masked_lm", labels=np.where(MASK, IDS, -100), tolerances="quick"
    )


def port(bundle: nz.oracle.Bundle, **changes: Any) -> dict[str, np.ndarray]:
    """Run a port in float32, whose configuration may be another."""
    with nz.trace() as t:
        nz.masked_lm(bundle.weights().to(dtype="float32"), **bundle.inputs, config=bundle.config.replace(**changes))
    return dict(t)


def read(page: str) -> dict[str, Any]:
    """Read the data in a page."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(data)


@pytest.fixture(scope="module")
def shown(bundle) -> dict[str, Any]:
    return read(nz.oracle.report(bundle, port(bundle, hidden_act="gelu_new")))


# --------------------------------------------------------------------------------------------------------- the numbers


def test_every_array_of_the_bundle_is_a_step_in_its_order(bundle, shown):
    assert [step["name"] for step in shown["steps"]] == list(bundle.arrays)
    assert [step["shape"] for step in shown["steps"]] == [list(array.shape) for array in bundle.arrays.values()]


def test_what_a_step_says_is_what_compare_finds(bundle, shown):
    rows = {row.name: row for row in nz.oracle.compare(bundle, port(bundle, hidden_act="gelu_new")).rows}
    for step in shown["steps"]:
        if step["name"] not in rows:
            assert "agrees" not in step
            continue
        row = rows[step["name"]]
        assert (step["agrees"], step["telling"], step["where"]) == (row.agrees, row.telling, list(row.where))
        assert (step["level"] <= 0.0) == row.agrees
        if row.absolute:
            level = np.clip(np.log10(row.absolute / row.tolerance), LOWEST, HIGHEST)
            assert step["level"] == pytest.approx(level, abs=1e-3)


def test_what_the_doctor_says_is_there_with_the_code_of_both(bundle, shown):
    found = nz.oracle.diagnose(bundle, port(bundle, hidden_act="gelu_new"))
    assert shown["step"] == found.step == "encoder.layer.0.intermediate.intermediate_act_fn"
    assert {step["name"] for step in shown["steps"] if step["wrong"]} == set(found.differing)
    (finding,) = shown["findings"]
    assert finding["name"] == "tanh GELU for erf" and finding["effect"] in str(found)
    (code,) = finding["code"]
    assert code["right"].startswith("def gelu(") and code["theirs"].startswith("def ")


def test_a_step_names_the_layer_that_makes_it_and_what_it_is_made_of(shown):
    steps = {step["name"]: step for step in shown["steps"]}
    scores = steps["encoder.layer.0.attention.self.position_scores"]
    assert scores["layer"] == "position_scores"
    assert scores["sources"] == ["encoder.layer.0.attention.self.q", "relative_positions"]
    assert "score(i, j)" in shown["layers"]["position_scores"]["text"]
    assert shown["layers"]["position_scores"]["code"].startswith("def position_scores(")


def test_a_map_has_the_level_of_every_number(bundle, shown):
    theirs = port(bundle, hidden_act="gelu_new")
    step = next(step for step in shown["steps"] if step["name"] == shown["step"])
    apart = np.abs(bundle.trace[step["name"]] - theirs[step["name"]])
    wanted = levels_of(apart, bundle.tolerances["float32"][step["name"]])
    numbers = np.frombuffer(base64.b64decode(step["map"]["data"]), np.uint8).reshape(step["map"]["shape"])
    assert step["map"]["axes"] == ["text", "token", "feature"]
    levels = np.where(numbers == 0, -np.inf, LOWEST + (numbers - 1.0) / 254 * (HIGHEST - LOWEST))
    np.testing.assert_allclose(levels, np.maximum(wanted, np.where(wanted == -np.inf, -np.inf, LOWEST)), atol=0.024)


def test_a_port_that_gives_its_logits_alone_opens_at_them(bundle):
    wrong = port(bundle, hidden_act="gelu_new")["cls.predictions"]
    shown = read(nz.oracle.report(bundle, {"logits": wrong}))
    steps = {step["name"]: step for step in shown["steps"]}
    assert shown["step"] == "outputs/logits" and steps["cls.predictions"]["given_as"] == "outputs/logits"
    assert [step["name"] for step in shown["steps"] if step["wrong"]] == ["outputs/logits"]
    assert steps["outputs/logits"]["layer"] == "linear" and steps["outputs/logits"]["sources"]
    assert "cls.predictions is outputs/logits" in shown["doctor"]["notes"]


def test_a_map_of_a_mask_has_queries_and_keys(shown):
    mask = next(step for step in shown["steps"] if step["name"] == "attention_mask")
    assert mask["map"]["axes"] == ["text", "head", "query", "key"]


def test_masked_tokens_are_listed_for_each_text(shown):
    assert shown["masked"] == [[], [6, 7, 8]]


def test_a_map_of_a_large_array_has_the_largest_level_of_each_cell():
    levels = np.full((2, 3 * ROWS, 2 * COLUMNS + 5), -np.inf)
    levels[1, -1, -1] = HIGHEST
    packed = pack_levels(levels)
    numbers = np.frombuffer(base64.b64decode(packed["data"]), np.uint8).reshape(2, *packed["cells"])
    assert packed["cells"] == [ROWS, COLUMNS]
    assert numbers[1, -1, -1] == 255 and np.count_nonzero(numbers) == 1


def test_a_right_port_agrees(bundle):
    shown = read(nz.oracle.report(bundle, port(bundle)))
    assert shown["agrees"] and shown["step"] is None and not shown["findings"]
    assert shown["verdict"].startswith("all ") and shown["doctor"]["notes"][0].startswith("every step follows")


def test_an_array_of_another_shape_and_nan_are_shown(bundle):
    theirs = port(bundle)
    theirs["embeddings"] = np.swapaxes(theirs["embeddings"], 1, 2)
    theirs["encoder.layer.0.output"] = np.full_like(theirs["encoder.layer.0.output"], np.nan)
    shown = read(nz.oracle.report(bundle, theirs))
    steps = {step["name"]: step for step in shown["steps"]}
    assert steps["embeddings"]["their_shape"] == [2, 24, 9] and "map" not in steps["embeddings"]
    assert steps["encoder.layer.0.output"]["level"] == HIGHEST and not steps["encoder.layer.0.output"]["agrees"]


def test_what_differs_at_masked_tokens_alone_is_said_to_and_can_be_left_out(bundle):
    theirs = port(bundle)
    name = "encoder.layer.1.output.LayerNorm"
    theirs = {name: np.where(MASK[:, :, None] == 1, theirs[name], 0.0).astype("float32")}
    shown = read(nz.oracle.report(bundle, theirs))
    assert not shown["agrees"] and any("they differ at masked tokens alone" in note for note in shown["notes"])
    assert read(nz.oracle.report(bundle, theirs, ignore_masked=True))["agrees"]


def test_a_bundle_without_tolerances_gets_quick_ones_as_the_doctor_gives_it(bundle):
    bare = nz.oracle.record(bundle.weights(), IDS, tolerances=None)
    theirs = {"embeddings": bare.trace["embeddings"].astype("float32")}
    assert read(nz.oracle.report(bare, theirs))["agrees"]


def test_a_wrong_gradient_stands_in_the_backward_pass(bundle):
    name = "gradients/encoder.layer.1.output.dense.bias"
    gradients = {key: value for key, value in bundle.arrays.items() if key.startswith("gradients/")}
    theirs = {key: value.astype("float32") for key, value in gradients.items()}
    theirs[name] = 2 * theirs[name]
    shown = read(nz.oracle.report(bundle, theirs))
    wrong = [step for step in shown["steps"] if step.get("agrees") is False]
    assert [step["name"] for step in wrong] == [name]
    assert (wrong[0]["group"], wrong[0]["block"], wrong[0]["map"]["axes"]) == ("backward", "layer 1", ["element"])


def test_training_steps_are_shown_stage_by_stage():
    steps = nz.oracle.record(
        model(), IDS, head="masked_lm", labels=IDS, tolerances="quick", step=nz.training.lamb, learning_rate=1e-3
    )
    shown = read(nz.oracle.report(steps, {"steps/1/loss": steps.arrays["steps/1/loss"].astype("float32")}))
    groups = {step["group"]: None for step in shown["steps"]}
    assert list(groups) == ["forward", "backward", "step 1"]
    assert place_of("steps/1/trust_ratio/pooler.dense.bias")[1] == "trust_ratio"


# ------------------------------------------------------------------------------------------------------------ the page


def test_the_page_loads_nothing_and_allows_its_own_script_alone(bundle):
    page = nz.oracle.report(bundle, port(bundle))
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 1
    hashed = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{hashed}';" in page
    assert set(re.findall(r"\w+://[^\s\"']*", scripts[0])) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    for writes_html in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert writes_html not in scripts[0]


def test_a_name_of_theirs_is_only_a_text(bundle):
    hostile = "</script><img src=x onerror=alert(1)>"
    theirs = {hostile: bundle.trace["embeddings"].astype("float32")}
    page = nz.oracle.report(bundle, theirs, rename={hostile: "embeddings"})
    assert hostile not in page
    assert next(step for step in read(page)["steps"] if step["name"] == "embeddings")["theirs"] == hostile


def test_code_is_shown_without_decorators_and_docstring():
    shown = code_of(nz.layers.layer_norm.layer_norm.definition) or ""
    assert shown.startswith("def layer_norm(") and '"""' not in shown and "@" not in shown


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_the_page_and_its_status_says_whether_all_is_right(bundle, tmp_path, capsys):
    bundle.save(tmp_path / "golden.safetensors")
    for name, changes, status in (("right", {}, 0), ("wrong", {"hidden_act": "gelu_new"}, 1)):
        np.savez(tmp_path / f"{name}.npz", **port(bundle, **changes))
        files = [str(tmp_path / file) for file in ("golden.safetensors", f"{name}.npz")]
        assert main(["golden", "report", *files, "-o", str(tmp_path / f"{name}.html")]) == status
        assert capsys.readouterr().out.startswith(f"wrote {tmp_path / name}.html: ")
        assert read((tmp_path / f"{name}.html").read_text(encoding="utf-8"))["agrees"] is (status == 0)


def test_the_command_replaces_no_file_without_force(bundle, tmp_path, capsys):
    bundle.save(tmp_path / "golden.safetensors")
    Path(tmp_path / "page.html").write_text("mine")
    files = [str(tmp_path / "golden.safetensors")] * 2
    assert main(["golden", "report", *files, "-o", str(tmp_path / "page.html")]) == 2
    assert "--force replaces it" in capsys.readouterr().err and (tmp_path / "page.html").read_text() == "mine"
