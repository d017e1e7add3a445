"""The picture of a run: what was measured is drawn where it belongs, and nothing else is."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.training.finetune import finetune
from nezha_np.training.measurements import Metrics
from nezha_np.training.plot import WIDTH, plot_metrics, plot_run
from nezha_np.training.pretrain import pretrain

SVG = "{http://www.w3.org/2000/svg}"


def drawn(picture: str) -> tuple[ET.Element, list[list[tuple[float, float]]], list[tuple[float, float]]]:
    """Read a picture: its root, its lines as points, and its dots; all are inside of it."""
    root = ET.fromstring(picture)
    lines = [
        [tuple(map(float, point.split())) for point in path.get("d")[1:].split("L")]
        for path in root.iter(f"{SVG}path")
        if path.get("stroke-width")
    ]
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in root.iter(f"{SVG}circle")]
    for x, y in [*dots, *(point for line in lines for point in line)]:
        assert 0 <= x <= WIDTH and 0 <= y <= float(root.get("height"))
    return root, lines, dots


def texts(root: ET.Element) -> list[str]:
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_a_smaller_number_is_lower_and_a_later_step_is_further_right():
    _, (line,), dots = drawn(plot_metrics([{"step": n, "loss": loss} for n, loss in ((10, 9.0), (20, 3.0), (40, 6.0))]))
    (x1, y1), (x2, y2), (x3, y3) = line
    assert x2 - x1 == pytest.approx((x3 - x2) / 2, abs=0.2) and y1 < y3 < y2
    assert y2 - y3 == pytest.approx(y3 - y1, abs=0.2) and dots == line


@pytest.mark.parametrize("measured", [[], [{"step": 1, "loss": None, "norm": None}]])
def test_a_run_without_a_number_says_so(measured):
    root, lines, dots = drawn(plot_metrics(measured))
    assert texts(root) == ["Nothing was measured yet."] and not lines and not dots


def test_one_step_is_a_dot_in_the_middle_of_each_panel():
    root, lines, dots = drawn(plot_metrics([{"step": 7, "loss": 2.0, "learning_rate": 0.0}]))
    assert not lines and len(dots) == 2 and len({x for x, _ in dots}) == 1
    assert "7" in texts(root) and "learning rate" in texts(root)


def test_a_number_that_is_missing_is_a_gap_and_a_step_that_was_left_out_a_grey_line():
    measured = [{"step": n, "norm": None if n in (3, 5) else 1.0 + n, "skipped": n in (3, 5)} for n in range(1, 8)]
    root, lines, dots = drawn(plot_metrics(measured))
    assert [len(line) for line in lines] == [2, 2] and len(dots) == 5  # that of step 4 stands alone
    assert len([path for path in root.iter(f"{SVG}path") if path.get("stroke") == "#999999"]) == 2
    assert "step; at each grey line a step was left out" in texts(root)


def test_what_is_measured_less_often_is_a_line_without_gaps():
    measured = [
        {"step": n, "loss": 1 / n} | ({"held_out_accuracy": n / 10} if n % 3 == 0 else {}) for n in range(1, 10)
    ]
    root, lines, _ = drawn(plot_metrics(measured))
    assert [len(line) for line in lines] == [9, 3]
    assert {"loss", "held out, from 0 to 1", "held out accuracy"} <= {*texts(root)}


def test_numbers_that_span_more_than_a_hundredfold_have_a_logarithmic_axis():
    root, (line,), _ = drawn(plot_metrics([{"step": n, "loss_scale": 2.0 ** (32 - n)} for n in range(11)]))
    falls = [after[1] - before[1] for before, after in itertools.pairwise(line)]
    assert max(falls) - min(falls) <= 0.2 and "1e+09" in texts(root)


def test_a_name_that_is_not_known_has_a_panel_of_its_own_and_is_no_markup():
    root, lines, _ = drawn(plot_metrics([{"step": n, "<b>&speed": n, "note": "fast", "on": True} for n in (1, 2)]))
    assert "<b>&speed" in texts(root) and len(lines) == 1


def test_a_long_run_is_a_small_picture_that_keeps_its_peaks():
    measured = [{"step": n, "loss": 50.0 if n == 12_345 else math.sin(n)} for n in range(100_000)]
    picture = plot_metrics(measured)
    _, (line,), _ = drawn(picture)
    assert len(picture) < 40_000
    highest = min(line, key=lambda point: point[1])
    assert highest[1] < sorted(y for _, y in line)[1] - 80 and line == sorted(line, key=lambda point: int(point[0]))


numbers = st.none() | st.floats() | st.integers(-(10**9), 10**9)
names = st.sampled_from(["loss", "held_out_loss", "accuracy", "norm", "learning_rate", "loss_scale", "seconds"])


@given(st.lists(st.dictionaries(names, numbers), max_size=6))
def test_whatever_was_measured_is_drawn(measured):
    drawn(plot_metrics([{"step": n, **values} for n, values in enumerate(measured, 1)]))


# ------------------------------------------------------------------------------------------------------------- of runs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = nz.NezhaConfig(vocab_size=7000, hidden_size=8, num_attention_heads=2, num_hidden_layers=1,
                            intermediate_size=6)  # fmt: skip
    nz.init(config).save(folder)
    nz.save_vocabulary(nz.load_tokenizer(), folder)
    return folder


def test_a_pre_training_run_draws_itself_and_a_run_that_goes_on_draws_the_same(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("房间很干净。\n早餐也好。\n\n总理会见外宾。\n", encoding="utf-8")
    options = {"model": model, "steps": 4, "batch_size": 1, "max_length": 16, "measure_every": 1, "save_every": 2}

    def stop(values):
        if values["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain([text], tmp_path / "stopped", report=stop, **options)
    assert not (tmp_path / "stopped" / "metrics.svg").exists()
    assert "at step 3" in plot_run(tmp_path / "stopped")
    for run in ("stopped", "through"):
        pretrain([text], tmp_path / run, **options)
    pictures = [(tmp_path / run / "metrics.svg").read_text(encoding="utf-8") for run in ("stopped", "through")]
    assert pictures[0] == pictures[1] == plot_run(tmp_path / "through")
    assert re.search(r"learning_rate: 0.* at step 1, .* at step 4", pictures[0])


def test_a_fine_tuning_run_draws_itself(model, tmp_path):
    (tmp_path / "train.tsv").write_text("很好\tgood\n不好\tbad\n" * 10, encoding="utf-8")
    finetune("classify", tmp_path / "train.tsv", tmp_path / "run", model=model, epochs=2, batch_size=9)
    picture = (tmp_path / "run" / "metrics.svg").read_text(encoding="utf-8")
    assert picture == plot_run(tmp_path / "run") and "accuracy" in texts(ET.fromstring(picture))


def test_the_command_writes_a_picture_and_replaces_none(tmp_path, capsys):
    Metrics(tmp_path / "metrics.jsonl", 0).add({"step": 1, "loss": 2.5})
    out = tmp_path / "curves.svg"
    assert main(["plot", str(tmp_path), "-o", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == plot_run(tmp_path)
    assert capsys.readouterr().out == f"wrote {out}: {out.stat().st_size:,} bytes\n"
    assert main(["plot", str(tmp_path), "-o", str(out)]) == 2 and "--force replaces it" in capsys.readouterr().err
    assert main(["plot", str(tmp_path), "-o", str(out), "--force"]) == 0


def test_an_output_without_a_name_is_refused(tmp_path, capsys):
    for command in (["plot", str(tmp_path)], ["explain", "好"]):
        assert main([*command, "-o", ""]) == 2
        assert "--output: expected a path, got an empty text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "RUN: expected the folder of a run, found no metrics.jsonl in"),
        ('{"loss": 1}\n', "metrics.jsonl, line 1: expected a step, an integer, got None"),
        ("[1]\n", "metrics.jsonl: expected what a run writes into it, a JSON object, got list"),
    ],
)
def test_a_folder_that_holds_no_run_or_a_damaged_one_is_named(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content, encoding="utf-8")
    assert main(["plot", str(tmp_path), "-o", "-"]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.out == ""
