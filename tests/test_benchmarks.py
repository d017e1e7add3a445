"""What the benchmarks do besides timing: tables, targets, files, texts and the plot. Nothing here is timed."""

import json
import platform
import re
from pathlib import Path

import numpy as np
import pytest

import nezha_np as nz

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MIDDLE = {"products": 0.5, "reference": 1.0, "ONNX Runtime": 0.9, "nezha_np": 0.8}  # seconds


@pytest.fixture(autouse=True)
def _benchmarks_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def forward_result(batch, length, seconds=MIDDLE):
    ratios = {name: seconds["nezha_np"] / value for name, value in seconds.items() if name != "nezha_np"}
    return {"batch": batch, "length": length, "median_seconds": seconds, "ratio_of_ours": ratios}


def test_a_table_is_markdown_with_aligned_columns():
    from machine import table

    assert table(["what", "ms"], [["a", "5"], ["longer", "1200"]]).splitlines() == [
        "| what   |   ms |",
        "| ------ | ---: |",
        "| a      |    5 |",
        "| longer | 1200 |",
    ]


def test_a_target_is_met_at_its_limit_and_not_beyond():
    from machine import Target, target_table

    targets = [
        Target("slow", 0.85, 0.85),
        Target("slower", 0.86, 0.85),
        Target("fast", 1.8, 1.8, at_least=True),
        Target("less fast", 1.7, 1.8, at_least=True),
        Target("missing", None, 1.0),
    ]
    assert [target.verdict for target in targets] == ["met", "not met", "met", "not met", "not measured"]
    assert "| less fast |   1.7 | at least 1.8 |" in target_table(targets)
    assert "| missing   |     – |" in target_table(targets)


def test_json_is_moved_into_place_as_a_whole(tmp_path):
    from machine import write_json

    path = tmp_path / "new" / "results.json"
    write_json(path, {"a": "×"})
    write_json(path, {"a": "÷"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "÷"}
    with pytest.raises(ValueError, match="nan"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "÷"}
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_a_failed_move_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    import machine

    path = tmp_path / "results.json"
    machine.write_json(path, 1)

    def fail(*_):
        raise OSError("no")

    monkeypatch.setattr(machine.os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        machine.write_json(path, 2)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("results.json", "1\n")]


def test_a_report_says_on_what_it_ran_and_not_whose_it_is(tmp_path, capsys):
    from machine import Target, report

    report(tmp_path / "a.json", "a", {"layers": 1}, [{"b": 1.0}], [Target("t", 2.0, 1.0)])
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    content = json.loads(text)
    assert list(content) == ["benchmark", "machine", "settings", "results", "targets"]
    assert content["targets"] == [{"name": "t", "value": 2.0, "limit": 1.0, "at_least": False, "verdict": "not met"}]
    assert content["machine"]["numpy"] == np.__version__ and content["machine"]["cores"] >= 1
    for private in (platform.node(), str(Path.home()), str(tmp_path), str(BENCHMARKS.parent)):
        assert len(private) < 4 or private not in text
    assert "not met" in capsys.readouterr().out


def test_the_geometric_mean_does_not_care_which_is_divided():
    from contest import geometric_mean

    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert geometric_mean([0.8]) == pytest.approx(0.8)


def test_everyone_takes_a_turn_in_every_round_and_begins_in_turn(monkeypatch):
    import contest

    calls = []
    monkeypatch.setattr(contest, "PAUSE", 0.0)
    monkeypatch.setattr(contest, "one_turn", lambda run: run() or 1.0)
    seconds = contest.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"  # the first two warm up


def test_made_up_texts_are_the_same_ones_at_every_run(monkeypatch, tmp_path):
    import texts

    monkeypatch.setattr(texts, "REVIEWS", tmp_path)
    tokenizer = nz.load_tokenizer()
    made, source = texts.mixed_texts(64, tokenizer)
    assert made == texts.mixed_texts(64, tokenizer)[0] and "made-up" in source
    lengths = [len(text) for text in made]
    assert min(lengths) >= 15 and max(lengths) <= 700 and max(lengths) > 3 * np.median(lengths)
    batch = nz.encode(tokenizer, made)
    assert (batch["attention_mask"].sum(axis=1) == np.add(lengths, 2)).all()  # a token each, [CLS] and [SEP]
    assert not (batch["input_ids"] == tokenizer.token_to_id("[UNK]")).any()


def test_reviews_are_read_without_their_labels_and_come_again_where_they_are_few(monkeypatch, tmp_path):
    import texts

    (tmp_path / "dev.tsv").write_text("1\t很好\n0\t不好\u2028真的\n", encoding="utf-8")
    monkeypatch.setattr(texts, "REVIEWS", tmp_path)
    found, source = texts.mixed_texts(5, nz.load_tokenizer())
    assert sorted(found[:2]) == sorted(found[2:4]) == sorted(["很好", "不好\u2028真的"])
    assert len(found) == 5 and source == "2 ChnSenti reviews over and over"


def test_sizes_count_requirements_of_requirements():
    pytest.importorskip("packaging")
    from installed import installed_sizes, our_requirements

    sizes = installed_sizes(our_requirements())
    assert {"nezha-np", "numpy", "safetensors", "tokenizers"} <= set(sizes)
    assert 1 < sizes["nezha-np"] < 20  # the shipped model is most of it
    assert not {"torch", "transformers", "hypothesis"} & set(sizes)


def test_a_process_is_measured_and_its_failure_told():
    from processes import memory_mb, peak_mb, run_python

    finished = run_python("import os, sys; print(sys.argv[1], os.environ['OMP_NUM_THREADS'])", ["a"], 1)
    assert finished.printed == "a 1\n" and finished.peak_mb > 1
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        run_python("1 / 0", [], 1)
    assert 1 < memory_mb() <= peak_mb() + 1


def test_forward_is_judged_by_the_worst_shape_and_the_means():
    pytest.importorskip("transformers")
    from forward import SHAPES, rows, targets

    results = [forward_result(*shape) for shape in SHAPES]
    results[0] = forward_result(*SHAPES[0], MIDDLE | {"nezha_np": 1.1})
    values = [target.value for target in targets(results)]
    assert values == pytest.approx([1.1, 0.8 * (1.1 / 0.8) ** 0.2, 0.8 / 0.9 * (1.1 / 0.8) ** 0.2, 1.6, 1.6])
    headings, body = rows(results)
    assert all(len(row) == len(headings) for row in body) and body[0][0] == "1 × 16"


def test_forward_without_onnx_runtime_is_judged_by_the_rest():
    pytest.importorskip("transformers")
    from forward import SHAPES, rows, targets

    without = {name: value for name, value in MIDDLE.items() if name != "ONNX Runtime"}
    results = [forward_result(*shape, without) for shape in SHAPES]
    verdicts = [target.verdict for target in targets(results)]
    assert verdicts == ["met", "met", "not measured", "not met", "met"]
    headings, body = rows(results)
    assert [row[headings.index("ONNX Runtime")] for row in body[:-1]] == ["not run"] * len(SHAPES)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_plot_is_drawn_from_the_json_files(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    from plot import draw

    forward = {"results": [forward_result(1, 16), forward_result(8, 128)]}
    of_a_token = {"milliseconds_per_token": 1.0}
    long_text = {
        "results": [
            {"length": 128, "nezha_np": of_a_token, "reference": of_a_token},
            {"length": 256, "nezha_np": of_a_token, "reference": None},
        ]
    }
    output = tmp_path / "docs" / f"plot.{suffix}"
    draw(forward, long_text, output)
    first = output.read_bytes()
    assert first.startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")
    draw(forward, long_text, output)
    assert output.read_bytes() == first
    assert [file.name for file in output.parent.iterdir()] == [output.name]


def test_a_plot_without_its_figures_says_what_to_run(tmp_path):
    from plot import read

    with pytest.raises(SystemExit, match=r"python benchmarks/forward\.py --json"):
        read(tmp_path, "forward")


def training_content():
    times = {"reference": 2.0, "nezha_np": 1.0, "all logits": 3.0, "LAMB in torch": 2.0, "nezha_np, LAMB": 2.5}
    ratios = {"nezha_np": 0.5, "all logits": 1.5, "nezha_np, LAMB": 1.25}
    sizes = {"reference": 900.0, "nezha_np": 800.0, "all logits": 850.0, "checkpoint_layers": 290.0}
    memory = {who: {"forward_and_backward_mb": size, "step_mb": size + 100.0} for who, size in sizes.items()}
    machine = {
        "cpu": "a CPU",
        "avx512": True,
        "cores": 2,
        "memory_gb": 25,
        "python": "3.11",
        "blas": "one",
        "date": "now",
    }
    machine |= dict.fromkeys(("numpy", "torch", "transformers", "onnxruntime", "scikit-learn"), None)
    results = {
        "time": [{"shape": "base:8x128", "median_seconds": times, "ratios": ratios}],
        "memory": [{"shape": "base:8x128", **memory}],
    }
    return {"machine": machine, "settings": {"threads": 2, "repeats": 3}, "results": results}


def test_training_is_judged_by_time_and_by_memory():
    from training_tables import section, targets

    content = training_content()
    found = targets(content["results"]["time"], content["results"]["memory"])
    assert [target.verdict for target in found] == ["met", "not met", "met", "met", "met"]
    text = section(content)
    assert "| base:8x128 |" in text and "0.32" in text and "not met" in text
    content["results"]["time"] = []
    assert "LAMB" not in section(content)


def test_what_a_training_step_takes_beyond_its_products_is_shown_where_they_were_measured():
    from training_tables import OURS, PRODUCTS, PRODUCTS_REFERENCE, REFERENCE, section

    content = training_content()
    assert "the rest" not in section(content)
    medians = content["results"]["time"][0]["median_seconds"]
    medians |= {REFERENCE: 4.0, OURS: 4.5, PRODUCTS_REFERENCE: 2.0, PRODUCTS: 3.0}
    assert "| base:8x128 | 2.00 s | 3.00 s | 1.50 | 2.00 s | 1.50 s | 0.75 |" in re.sub(" +", " ", section(content))


def test_the_section_of_training_is_that_of_its_files():
    from training_tables import BEGIN, END, PAGE, sections, with_section

    page = PAGE.read_text(encoding="utf-8")
    assert with_section(page, sections()) == page
    assert with_section(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb"


@pytest.mark.parametrize("benchmark", ["answers", "serve", "function_start"])
def test_the_sections_of_tasks_are_those_of_their_files(benchmark):
    from answers_tables import BEGIN, RESULTS, SECTIONS, with_section

    speeds = {"one by one": 10.0, "nezha_np": 25.0, "batches of 32": 5.0}
    ratios = {"one by one": 2.5, "batches of 32": 5.0}
    answers = {"task": "tag", "threads": 1, "texts_per_second": speeds, "ratio_to_ours": ratios}
    load = {"clients": 8, "texts_a_second": 25.0, "p50_seconds": 0.25, "p99_seconds": 0.5, "refused": 0}
    start = {"median_seconds": 2.5, "median_seconds_of_a_further_answer": 0.25, "median_peak_mb": 9.0, "model_mb": 0.0}
    results = {
        "answers": [answers | {"same_results": 64, "largest_difference": 1e-6}],
        "serve": {"rows": [load]},
        "function_start": {"starts": {"BERT": start}, "folder_mb": {"numpy": 80.0}},
    }
    settings = {"texts": 64, "tokens": 640, "rounds": 3, "requests": 64, "threads": 2, "repeats": 5}
    page, section = SECTIONS[benchmark]
    machine = training_content()["machine"]
    made = section({"machine": machine, "settings": settings, "results": results[benchmark]})
    assert "a CPU" in made and "25" in made
    text = page.read_text(encoding="utf-8")
    assert made in with_section(text, made, BEGIN.format(benchmark))
    if (file := RESULTS.with_name(f"{benchmark}.json")).exists():
        content = json.loads(file.read_text(encoding="utf-8"))
        assert with_section(text, section(content), BEGIN.format(benchmark)) == text


def test_lamb_of_torch_makes_the_step_of_ours():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from training import check

    generator = np.random.default_rng(0)
    ids = generator.integers(5, 50, (2, 9))
    config = nz.NezhaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    batch = {"input_ids": ids, "labels": np.where(ids % 3 == 0, ids, -100)}
    differences = check(nz.init(config), batch)
    assert set(differences) == {"gradients", "adamw", "lamb"} and max(differences.values()) < 1e-5


def test_memory_of_training_is_measured_in_the_process_that_trains(capsys, monkeypatch):
    import training_memory

    monkeypatch.setattr(training_memory, "forget_peak", lambda: None)
    monkeypatch.setattr(training_memory, "memory_mb", lambda: 10.0)
    monkeypatch.setattr(training_memory, "peak_mb", lambda: 30.0)
    training_memory.one("tiny:1x8", "checkpoint_layers")
    found = json.loads(capsys.readouterr().out)
    assert found == {"forward_and_backward_mb": 20.0, "step_mb": 20.0, "loaded_mb": 10.0}


def test_answers_are_the_same_in_the_pipelines_and_a_tenth_of_a_second_is_ten_times_as_fast(monkeypatch):
    pytest.importorskip("torch", reason="the benchmark compares with the reference, on PyTorch")
    pytest.importorskip("transformers", reason="the benchmark compares with the reference's pipelines")
    import answers

    def take_turns(runs, rounds):
        assert [len(run()) for run in runs.values()] == [3] * len(runs)
        return {name: [0.1 if name == "nezha_np" else 1.0] * rounds for name in runs}

    monkeypatch.setattr(answers, "take_turns", take_turns)
    texts = ["房间很干净，服务也好。", "周恩来在北京会见了外宾。", "好"]
    results = [answers.measure(task, texts, [12, 13, 3], 1, 2) for task in answers.TASKS]
    assert [result.get("products") for result in results] == [None, None, pytest.approx(3)]
    for result in results:
        assert result["same_results"] == 3 and result["largest_difference"] < 1e-5
        assert result["texts_per_second"]["nezha_np"] == pytest.approx(30)
        assert set(result["ratio_to_ours"].values()) == {10.0}
    found = answers.targets(results, 3)
    assert len(found) == 12 and {target.verdict for target in found} == {"met"}
    assert answers.compare([("a", [0.5]), ("b", [0.5])], [("a", [0.25]), ("c", [0.0])]) == (1, 0.25)


def test_a_predicted_layer_has_the_launches_of_the_kernels_and_a_fraction_of_the_references_bytes():
    pytest.importorskip("torch", reason="the reference's launches are counted by PyTorch")
    pytest.importorskip("transformers", reason="they are those of its NEZHA")
    import roofline

    ours, theirs = (f(nz.NezhaConfig(), 8, 512) for f in (roofline.our_launches, roofline.their_launches))
    kernels = [launch.name.split(" ")[0] for launch in ours if not launch.product]
    assert sorted(kernels) == ["bias_gelu", "merge_heads", "normalise", "normalise", "softmax", *["split_heads"] * 3]
    products = [sum(launch.operations for launch in both if launch.product) for both in (ours, theirs)]
    assert products[0] < products[1]  # the sums by distance are a smaller product than a row for each pair
    of_a_dense_layer = 2 * 8 * 512 * 768 * 768
    assert [[launch.operations for launch in both].count(of_a_dense_layer) for both in (ours, theirs)] == [4, 4]
    assert sum(launch.numbers for launch in ours) < 0.5 * sum(launch.numbers for launch in theirs)
    assert roofline.seconds(ours, "H200", "float16") < roofline.seconds(ours, "H100", "float16")
