"""Fine-tuning from files: every task learns, bad lines are named, a killed run ends with the same bits."""

import dataclasses
import json
import random
import shutil
from unittest import mock

import numpy as np
import pytest
from killed_runs import run_and_kill

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.training.accumulation import accumulate
from nezha_np.training.examples import names_of_labels, read_examples
from nezha_np.training.features import TASKS, Settings, stack
from nezha_np.training.finetune import finetune, parts_of_one_length, predict
from nezha_np.training.metrics import answer_scores, entities, entity_f1
from nezha_np.training.run_folder import save_model
from nezha_np.training.schedule import warmup_polynomial_decay
from nezha_np.weights.checkpoint import SHIPPED

GOOD, BAD = ["房间很干净", "早餐很好吃", "服务热情"], ["房间很脏", "早餐难吃", "服务太差"]


def classify_lines(count):
    chooser = random.Random(0)
    rows = [(chooser.choice(GOOD), "good") if number % 2 else (chooser.choice(BAD), "bad") for number in range(count)]
    return "".join(f"{text}{'。' * (number % 3)}\t{label}\n" for number, (text, label) in enumerate(rows))


def pair_lines(count):
    chooser = random.Random(0)
    rows = []
    for number in range(count):
        one, other = chooser.sample([*GOOD, *BAD], 2)
        rows.append(f"{one}\t{one if number % 2 else other}\t{number % 2}\n")
    return "".join(rows)


def tag_lines(count):
    chooser = random.Random(0)
    texts = []
    for _ in range(count):
        name, place = chooser.choice(["李明", "王芳"]), chooser.choice(["北京", "上海"])
        tags = ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]
        texts.append("".join(f"{token}\t{tag}\n" for token, tag in zip(f"{name}在{place}", tags, strict=True)))
    return "\n".join(texts)


def answer_lines(count):
    chooser = random.Random(0)
    rows = []
    for _ in range(count):
        place = chooser.choice(["北京", "上海", "广州"])
        rows.append({"question": "他在哪里？", "context": f"昨天他在{place}开会。", "answer": place})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def choose_lines(count):
    chooser = random.Random(0)
    rows = []
    for number in range(count):
        choices = [chooser.choice(GOOD), *chooser.sample(BAD, 1 + number % 2)]
        right = choices[0]
        chooser.shuffle(choices)
        rows.append({"question": "哪个好？", "context": "评论", "choices": choices, "label": choices.index(right)})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


LINES = {
    "classify": ("train.tsv", classify_lines),
    "pairs": ("train.tsv", pair_lines),
    "tag": ("train.tsv", tag_lines),
    "answer": ("train.jsonl", answer_lines),
    "choose": ("train.jsonl", choose_lines),
}


def write(folder, task, count=60):
    name, lines = LINES[task]
    (folder / name).write_text(lines(count), encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("task", ["classify", "tag", "answer", "choose"])
def test_a_model_learns_the_task_and_its_folder_holds_the_best_one(task, tmp_path):
    measured = []
    weights = finetune(
        task,
        write(tmp_path, task),
        tmp_path / "run",
        epochs=4,
        batch_size=8,
        max_length=32,
        learning_rate=2e-3,
        report=measured.append,
    )
    metric = TASKS[task].metric
    assert max(line[metric] for line in measured) >= 0.9, measured
    loaded = nz.load(tmp_path / "run")
    assert all(np.array_equal(array, weights[name]) for name, array in loaded.items())
    loaded.require(TASKS[task].head.__name__)
    examples = read_examples(write(tmp_path, task), task)
    settings = Settings(nz.load_tokenizer(tmp_path / "run"), 32, tuple(names_of_labels(examples, task)))
    features = TASKS[task].features(examples[9::10], settings)
    scores = TASKS[task].scores(predict(loaded, TASKS[task], features, settings, 0), examples[9::10])
    assert scores[metric] == max(line[metric] for line in measured)


def test_what_was_fine_tuned_is_read_by_the_reference(tmp_path):
    transformers = pytest.importorskip("transformers", reason="it is the reference")
    weights = finetune("pairs", write(tmp_path, "pairs"), tmp_path / "run", epochs=1, max_length=32)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").eval()
    assert model.config.id2label == {0: "0", 1: "1"}
    import torch

    batch = nz.encode(nz.load_tokenizer(tmp_path / "run"), ["房间很脏"], ["房间很脏"])
    with torch.no_grad():
        theirs = model(**{name: torch.tensor(array) for name, array in batch.items()}).logits.numpy()
    np.testing.assert_allclose(nz.sequence_classification(weights, **batch).logits, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("scripted", "best"),
    [([0.5, 0.9, 0.7, 0.9, 1.0, 1.0], 2), ([0.5, 0.5, 0.6, 0.5, 0.7, 0.6], 5), ([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], 1)],
)
def test_the_first_best_model_is_kept_and_the_run_ends_after_two_epochs_without_a_better_one(scripted, best, tmp_path):
    seen, scores = [], iter(scripted)

    def predict_and_note(weights, *arguments):
        seen.append({name: array.copy() for name, array in weights.items()})
        return predict(weights, *arguments)

    task = dataclasses.replace(TASKS["classify"], scores=lambda predicted, examples: {"accuracy": next(scores)})
    options = {"epochs": 6, "batch_size": 16, "max_length": 16}
    with (
        mock.patch.dict(TASKS, classify=task),
        mock.patch("nezha_np.training.finetune.predict", predict_and_note),
    ):
        weights = finetune("classify", write(tmp_path, "classify", 20), tmp_path / "run", **options)
    assert len(seen) == min(best + 2, 6)
    assert all(np.array_equal(array, weights[name]) for name, array in seen[best - 1].items())


def test_frozen_tensors_are_those_of_the_model_and_a_run_with_others_is_refused(tmp_path):
    file, options = write(tmp_path, "classify", 20), {"epochs": 1, "max_length": 16}
    frozen = ["embeddings.**", "encoder.layer.[0-2].**", "encoder.layer.0.**"]
    with pytest.raises(ValueError, match=r"freeze: .* got encoder\.layer\.\[0-2\]\.\*\*, which fits none"):
        finetune("classify", file, tmp_path / "run", freeze=frozen, **options)
    assert not (tmp_path / "run").exists()
    command = ["finetune", str(file), "-o", str(tmp_path / "run"), "--task", "classify", "--epochs", "1"]
    assert main([*command, "--max-length", "16", "--freeze", "embeddings.**", "encoder.layer.0.**"]) == 0
    before, after = nz.load(), nz.load(tmp_path / "run")
    for name, array in before.items():
        if name.startswith(("embeddings.", "encoder.")):
            stays = name.startswith(("embeddings.", "encoder.layer.0."))
            assert np.array_equal(array, after[name]) == stays, name
    with pytest.raises(ValueError, match=r"freeze: 'embeddings\.\*\*', 'encoder\.layer\.0\.\*\*' in the run, none now"):
        finetune("classify", file, tmp_path / "run", **options)


def test_dropout_may_have_a_rate_of_its_own_and_measuring_has_none(tmp_path):
    file, options = write(tmp_path, "classify", 20), {"epochs": 1, "max_length": 16, "learning_rate": 0.0}
    losses = {}
    for dropout in (0.0, 0.5):
        lines = []
        folder = tmp_path / f"run-{dropout}"
        weights = finetune("classify", file, folder, dropout=dropout, report=lines.append, **options)
        assert {weights.config.hidden_dropout_prob, weights.config.classifier_dropout} == {dropout}
        losses[dropout] = lines[0]
    assert losses[0.0]["loss"] != losses[0.5]["loss"] and losses[0.0]["accuracy"] == losses[0.5]["accuracy"]
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="dropout: expected a number from 0 to below 1, got"):
            finetune("classify", file, tmp_path / "wrong", dropout=wrong)
    assert not (tmp_path / "wrong").exists()


def test_layers_that_are_computed_twice_change_no_bit(tmp_path):
    write(tmp_path, "classify", 20)
    once = ["--epochs", "1"]
    assert main([*command(tmp_path, "through"), *once]) == 0
    with mock.patch("nezha_np.training.loop.accumulate", wraps=accumulate) as computed:
        assert main([*command(tmp_path, "twice"), *once, "--checkpoint-layers"]) == 0
    assert {call.kwargs["checkpoint_layers"] for call in computed.call_args_list} == {True}
    after = nz.load(tmp_path / "twice")
    for name, array in nz.load(tmp_path / "through").items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


def test_options_may_be_numbers_of_numpy_and_switches_are_checked(tmp_path):
    file = write(tmp_path, "classify", 20)
    numbers = {
        "epochs": np.int64(1),
        "learning_rate": np.float32(1e-3),
        "dropout": np.float32(0.5),
        "seed": np.int64(2),
    }
    finetune("classify", file, tmp_path / "run", max_length=16, **numbers)
    options = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert (options["epochs"], options["seed"], options["dropout"]) == (1, 2, 0.5)
    with pytest.raises(TypeError, match=r"^checkpoint_layers: expected True, False or None, got 'no'$"):
        finetune("classify", file, tmp_path / "run", checkpoint_layers="no")


def test_a_model_that_stands_in_the_folder_is_not_replaced(tmp_path):
    file = write(tmp_path, "classify", 20)
    nz.load().save(tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    for save_changes in (False, True):
        with pytest.raises(
            FileExistsError, match=r"model: expected a new folder, .*, found model\.safetensors of a model"
        ):
            finetune("classify", file, tmp_path / "model", epochs=1, max_length=16, save_changes=save_changes)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


def test_changes_of_changes_are_refused_before_the_training(tmp_path):
    file, options = write(tmp_path, "classify", 20), {"epochs": 1, "max_length": 16, "save_changes": True}
    finetune("classify", file, tmp_path / "changes", freeze="embeddings.**", **options)
    with pytest.raises(ValueError, match=r"^model: expected a whole model, got changes of one: .*; nezha-np convert"):
        finetune("classify", file, tmp_path / "more", model=tmp_path / "changes", **options)
    assert not (tmp_path / "more").exists()


def test_a_run_knows_its_examples_by_what_is_in_them(tmp_path):
    options = {"epochs": 1, "max_length": 16}
    file = write(tmp_path, "classify", 20)
    weights = finetune("classify", file, tmp_path / "run", **options)
    moved = file.rename(tmp_path / "other.tsv")
    again = finetune("classify", moved, tmp_path / "run", **options)
    assert all(np.array_equal(array, again[name]) for name, array in weights.items())
    write(tmp_path, "classify", 20).write_text(classify_lines(20).replace("房间很脏", "房间很小"), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"got others: files: train\.tsv with SHA-256 \w{12}… in the run, train\.tsv with"
    ):
        finetune("classify", file, tmp_path / "run", **options)
    with pytest.raises(ValueError, match=r"got others: files: none in the run, other\.tsv with SHA-256 \w{12}… now"):
        finetune("classify", moved, tmp_path / "run", held_out=moved, **options)


def test_a_run_knows_its_model_by_weights_configuration_and_tokenizer_wherever_they_are(tmp_path):
    options = {"epochs": 1, "max_length": 16, "freeze": "embeddings.**"}
    file = write(tmp_path, "classify", 20)
    model = tmp_path / "here" / "model"
    small_model(model)
    finetune("classify", file, tmp_path / "run", model=model, **options)
    moved = shutil.move(model, tmp_path / "moved")
    assert finetune("classify", file, tmp_path / "run", model=moved, **options)
    for changed in ("weights", "config.json", "vocab.txt"):
        small_model(model, seed=int(changed == "weights"))
        if changed != "weights":
            text = (model / changed).read_text(encoding="utf-8")
            (model / changed).write_text(text.replace("0.1", "0.2").replace("\n好\n", "\n𠀀\n"), encoding="utf-8")
        with pytest.raises(
            ValueError, match=r"got others: model: model with SHA-256 \w{12}… in the run, model with SHA"
        ):
            finetune("classify", file, tmp_path / "run", model=model, **options)
    with pytest.raises(
        ValueError, match=r"got others: model: model with SHA-256 .* in the run, nezha-tiny-zh with SHA-256"
    ):
        finetune("classify", file, tmp_path / "run", **options)


def test_of_a_folder_of_sentence_transformers_the_tokenizer_of_its_transformer_is_known_and_copied(tmp_path):
    modules = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    small_model(tmp_path / "model" / "0_Transformer")
    (tmp_path / "model" / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    options = {"model": tmp_path / "model", "epochs": 1, "max_length": 16}
    file = write(tmp_path, "classify", 20)
    finetune("classify", file, tmp_path / "run", **options)
    assert nz.load_tokenizer(tmp_path / "run").token_to_id("[MASK]") == 4
    vocabulary = tmp_path / "model" / "0_Transformer" / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text(encoding="utf-8").replace("\n好\n", "\n𠀀\n"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"got others: model: model with SHA-256"):
        finetune("classify", file, tmp_path / "run", **options)


def small_model(folder, seed=0):
    config = nz.NezhaConfig(7000, 16, 1, 2, 24, max_position_embeddings=32, max_relative_position=4)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, nz.init(config, seed=seed), None)
    shutil.copy(SHIPPED / "vocab.txt", folder)


def test_a_run_of_an_earlier_version_which_noted_names_goes_on_by_names(tmp_path):
    options = {"epochs": 1, "max_length": 16}
    finetune("classify", write(tmp_path, "classify", 20), tmp_path / "run", **options)
    noted = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert noted["files"][0]["name"] == "train.tsv" and noted["model"]["name"] == "nezha-tiny-zh"
    earlier = noted | {"files": ["train.tsv", None], "model": None}
    (tmp_path / "run" / "run.json").write_text(json.dumps(earlier), encoding="utf-8")
    assert finetune("classify", tmp_path / "train.tsv", tmp_path / "run", **options)
    other = write(tmp_path, "classify", 20).rename(tmp_path / "other.tsv")
    with pytest.raises(ValueError, match=r"got others: files: 'train\.tsv' in the run, other\.tsv with SHA-256"):
        finetune("classify", other, tmp_path / "run", **options)


@pytest.mark.parametrize("place", ["FILE", "--held-out"])
def test_what_is_no_file_of_examples_is_named_by_its_argument(place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "classify", 20)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.tsv").touch()
    for file, message in (
        ("folder", "expected a file of examples, found a folder: folder"),
        ("missing", "expected a file of examples, found none at missing"),
        ("empty.tsv", "expected one example at least, found none in empty.tsv"),
    ):
        files = [file] if place == "FILE" else ["train.tsv", place, file]
        assert main(["finetune", *files, "-o", "run", "--task", "classify"]) == 2
        assert capsys.readouterr().err == f"nezha-np: {place}: {message}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("held_out", [True, False])
def test_texts_that_are_longer_than_the_model_takes_are_refused_before_the_training(held_out, tmp_path, capsys):
    config = nz.BertConfig(7000, 8, 1, 2, 12, max_position_embeddings=16)
    model, short = tmp_path / "model", write(tmp_path, "classify", 20)
    model.mkdir()
    save_model(model, nz.init(config), None)
    shutil.copy(SHIPPED / "vocab.txt", model)
    assert main(["finetune", str(short), "-o", str(tmp_path / "ok"), "--task", "classify", "--model", str(model)]) == 0
    long = tmp_path / "long.tsv"
    long.write_text(short.read_text(encoding="utf-8") + f"{'好' * 20}\tgood\n", encoding="utf-8")
    files = [str(short), "--held-out", str(long)] if held_out else [str(long)]
    capsys.readouterr()
    assert main(["finetune", *files, "-o", str(tmp_path / "run"), "--task", "classify", "--model", str(model)]) == 2
    message = "--max-length: expected at most 16, the positions of the model, got 128, and a text of 22 tokens\n"
    assert capsys.readouterr().err.endswith(message)
    words = ["--task", "classify", "--model", str(model), "--max-length", "16"]
    assert main(["finetune", *files, "-o", str(tmp_path / "run"), *words]) == 0


def test_a_file_in_the_place_of_the_run_is_named(tmp_path, capsys):
    file = write(tmp_path, "classify", 20)
    assert main(["finetune", str(file), "-o", str(file), "--task", "classify"]) == 2
    assert f"--output: expected a folder, found a file: {file}" in capsys.readouterr().err


def test_measurements_of_another_task_are_named_with_their_line(tmp_path):
    file, options = write(tmp_path, "classify", 20), {"epochs": 1, "max_length": 16}
    finetune("classify", file, tmp_path / "run", **options)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "f1": 0.5}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1: expected accuracy, a number, found none"):
        finetune("classify", file, tmp_path / "run", **options)


def test_a_label_that_only_the_tenth_examples_have_is_named_with_what_to_do(tmp_path):
    lines = [f"房间{number}\t{'rare' if number == 9 else 'ab'[number % 2]}\n" for number in range(10)]
    (tmp_path / "train.tsv").write_text("".join(lines), encoding="utf-8")
    message = r"^examples, every tenth of which is held out: expected labels that are trained \(a, b\), got rare$"
    with pytest.raises(ValueError, match=message):
        finetune("classify", tmp_path / "train.tsv", tmp_path / "run")


@pytest.mark.parametrize("form", ["tsv", "jsonl", "squad"])
def test_an_answer_that_stands_twice_needs_a_start_which_says_which_one_is_meant(form, tmp_path):
    asked = {"question": "谁？", "context": "他在家，她在家。"}
    record = asked | {"answer": "在家"}
    row = {
        "tsv": "\t".join(record.values()),
        "jsonl": json.dumps(record),
        "squad": json.dumps(asked | {"answers": [{"text": "在家"}]}),
    }[form]
    file = tmp_path / f"train.{'tsv' if form == 'tsv' else 'jsonl'}"
    file.write_text(f"{row}\n", encoding="utf-8")
    message = r"line 1: expected a start, because the answer '在家' .* more than once, at characters 1 and 5, got none"
    with pytest.raises(ValueError, match=message):
        read_examples(file, "answer")
    with_start = {
        "tsv": f"{row}\t5",
        "jsonl": json.dumps(record | {"start": 5}),
        "squad": json.dumps(asked | {"answers": [{"text": "在家", "answer_start": 5}]}),
    }[form]
    file.write_text(f"{with_start}\n", encoding="utf-8")
    assert [one["start"] for one in read_examples(file, "answer")] == [5]


def test_places_of_an_answer_may_overlap(tmp_path):
    (tmp_path / "train.tsv").write_text("几个？\t哈哈哈\t哈哈\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 1: .* more than once, at characters 0 and 1"):
        read_examples(tmp_path / "train.tsv", "answer")


def test_every_tenth_example_is_held_out_and_the_rate_grows_for_a_tenth_of_the_steps(tmp_path):
    with mock.patch(
        "nezha_np.training.finetune.warmup_polynomial_decay", side_effect=warmup_polynomial_decay
    ) as schedule:
        finetune("classify", write(tmp_path, "classify", 40), tmp_path / "run", epochs=1, batch_size=3, max_length=16)
    options = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert (options["examples"], options["held_out"]) == (36, 4)
    expected = {"learning_rate": 5e-5 * 768 / 256, "warmup_steps": 1, "total_steps": 12}
    assert [call.args for call in schedule.call_args_list] == [(number,) for number in range(12)]
    assert all(call.kwargs == expected for call in schedule.call_args_list)


def command(folder, run):
    return [
        "finetune",
        str(folder / "train.tsv"),
        "-o",
        str(folder / run),
        *("--task", "classify", "--epochs", "4", "--patience", "4", "--batch-size", "16", "--max-length", "16"),
    ]


@pytest.mark.exhaustive
def test_a_run_that_is_killed_goes_on_by_the_same_command_and_ends_with_the_same_bits(tmp_path):
    write(tmp_path, "classify")
    assert main(command(tmp_path, "through")) == 0
    assert run_and_kill(command(tmp_path, "killed"), tmp_path / "killed", most=40, kills=10) == 10
    bits = [{name: array.tobytes() for name, array in nz.load(tmp_path / run).items()} for run in ("killed", "through")]
    assert bits[0] == bits[1]


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("classify", "好\tgood\n坏\n", r"train\.tsv, line 2: expected 2 fields \(text, label\), got 1"),
        ("classify", "好\tgood\n\tbad\n", r"train\.tsv, line 2: expected text, label, found no text"),
        ("pairs", "好\t坏\n", r"train\.tsv, line 1: expected 3 fields \(text, text_pair, label\), got 2"),
        ("tag", "好\tO\n坏 O\n", r"train\.tsv, line 2: expected a token, a tab and a label, or an empty line"),
        (
            "answer",
            "谁？\t他在家。\t她\n",
            r"train\.tsv, line 1: expected an answer that stands in the context, got '她'",
        ),
        (
            "answer",
            "谁？\t他在家。\t他\t2\n",
            r"line 1: expected the answer '他' at character 2 of the context, got '家'",
        ),
        (
            "choose",
            "谁？\t他在家。\t0\t他\n",
            r"line 1: expected question, text, label and two choices at least, got 4",
        ),
        ("choose", "谁？\t他在家。\t2\t他\t她\n", r"line 1: expected a choice from 0 to 1 as label, got '2'"),
        ("classify", "\n\n", r"^examples: expected one example at least, found none in .*train\.tsv$"),
    ],
)
def test_a_line_that_is_no_example_is_named_and_nothing_is_written(task, text, message, tmp_path):
    (tmp_path / "train.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        finetune(task, tmp_path / "train.tsv", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("classify", '["好"]', "expected an object, got list"),
        ("classify", '{"text": "好"}', "expected text, label, found no label"),
        ("classify", '{"text": 3, "label": "x"}', "expected a text as text, got int"),
        ("classify", '{"text": "好", "label": 1.5}', "expected a name or an integer as label, got 1.5"),
        ("tag", '{"tokens": ["好", "坏"], "labels": ["O"]}', "expected a label for each of 2 tokens, got 1"),
        ("classify", "好", "expected JSON, got something else"),
        ("classify", '{"text": "好", "label": " "}', "expected a name or an integer as label, got ' '"),
        ("tag", '{"tokens": [], "labels": []}', "expected tokens, labels, found no tokens"),
        ("answer", '{"question": "谁", "context": "他", "answers": []}', "found no answer"),
        (
            "answer",
            '{"question": "谁", "context": "他", "answer": "他", "start": 1e999}',
            "integer as start, got inf",
        ),
        (
            "answer",
            '{"question": "谁", "context": "他", "answer": "他", "start": -1}',
            "a start from 0 to 0, in the .* got -1",
        ),
        (
            "answer",
            '{"question": "谁", "context": "他", "answer": "他", "start": 1}',
            "a start from 0 to 0, in the .* got 1",
        ),
        (
            "classify",
            '[\n{"text": "好", "label": "x"}]',
            "line 1: expected JSON, .*; each example stands in a line of its",
        ),
        ("answer", '{"question": "谁", "context": "他", "answer": "他", "start": 0.5}', "integer as start, got 0.5"),
        ("choose", '{"question": "谁", "context": "他", "choices": ["甲", "乙"], "label": 0.9}', "as label, got 0.9"),
    ],
)
def test_a_line_of_json_that_is_no_example_is_named(task, line, message, tmp_path):
    (tmp_path / "train.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_examples(tmp_path / "train.jsonl", task)


def test_the_label_may_stand_first_or_last_and_columns_may_have_names(tmp_path):
    file = tmp_path / "train.tsv"
    for text in ("1\t好\n0\t坏\n1\t很好\n", "好\t1\n坏\t0\n很好\t1\n", "label\tsentence\n1\t好\n0\t坏\n1\t很好\n"):
        file.write_text(text, encoding="utf-8")
        assert read_examples(file, "classify")[0] == {"text": "好", "label": "1"}


def test_a_tag_is_read_without_the_spaces_around_it(tmp_path):
    (tmp_path / "train.tsv").write_text("李\tB-A \r\n \t O\r\n", encoding="utf-8", newline="")
    assert read_examples(tmp_path / "train.tsv", "tag") == [{"tokens": ["李", " "], "labels": ["B-A", "O"]}]


def test_the_columns_of_choices_may_have_names(tmp_path):
    file = tmp_path / "train.tsv"
    file.write_text("question\tcontext\tlabel\tchoice\tchoice\n谁？\t他在家。\t1\t我\t他\n", encoding="utf-8")
    assert read_examples(file, "choose") == [
        {"question": "谁？", "context": "他在家。", "choices": ["我", "他"], "label": 1}
    ]


def test_labels_have_one_order_whatever_they_look_like():
    for names in (["1", "-2", "01"], ["--5", "1"], ["9" * 5000, "1"]):
        order = names_of_labels([{"label": name} for name in names], "classify")
        assert order == names_of_labels([{"label": name} for name in reversed(names)], "classify")
        assert sorted(order) == sorted(names)
    assert names_of_labels([{"label": name} for name in ("1", "-2", "01", "10")], "classify") == ["-2", "01", "1", "10"]


def test_a_single_class_is_refused_for_its_head_would_be_a_regression(tmp_path):
    (tmp_path / "train.tsv").write_text("好\tgood\n" * 20, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^examples: expected two classes at least, found only good in .*train\.tsv$"):
        finetune("classify", tmp_path / "train.tsv", tmp_path / "run")


def test_a_wrong_number_is_named_before_anything_is_written(tmp_path):
    for wrong in ({"learning_rate": -1.0}, {"weight_decay": float("nan")}):
        with pytest.raises(ValueError, match=rf"{next(iter(wrong))}: expected a finite number from 0 on"):
            finetune("classify", write(tmp_path, "classify"), tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_answers_of_squad_and_fields_of_other_names_are_read(tmp_path):
    file = tmp_path / "train.jsonl"
    row = {"question": "谁？", "context": "他在家。", "answers": {"text": ["家", "在家"], "answer_start": [2, 1]}}
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    example = {"question": "谁？", "context": "他在家。", "answer": "家", "start": 2}
    assert read_examples(file, "answer") == [example | {"right": ["家", "在家"]}]
    answers = [{"text": text, "answer_start": start} for text, start in (("家", 2), ("在家", 1))]
    file.write_text(json.dumps(row | {"answers": answers}) + "\n", encoding="utf-8")
    assert read_examples(file, "answer") == [example | {"right": ["家", "在家"]}]
    file.write_text(json.dumps(row | {"answers": {"text": "家", "answer_start": 2}}) + "\n", encoding="utf-8")
    assert read_examples(file, "answer") == [example]
    file.write_text('{"premise": "好", "hypothesis": "坏", "label": "neutral"}\n', encoding="utf-8")
    assert read_examples(file, "pairs") == [{"text": "好", "text_pair": "坏", "label": "neutral"}]


def test_a_label_that_is_not_trained_is_refused_in_the_held_out_examples(tmp_path):
    write(tmp_path, "classify")
    (tmp_path / "dev.tsv").write_text("好\tgood\n坏\tterrible\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"held_out: expected labels that are trained \(bad, good\), got terrible"):
        finetune("classify", tmp_path / "train.tsv", tmp_path / "run", held_out=tmp_path / "dev.tsv")


def test_labels_stand_on_the_first_piece_of_a_token_and_a_long_text_is_cut(tmp_path):
    tokenizer = nz.load_tokenizer()
    examples = [{"tokens": ["playing", " ", "好", "坏"], "labels": ["A", "B", "C", "D"]}]
    (feature,) = TASKS["tag"].features(examples, Settings(tokenizer, 64, ("A", "B", "C", "D")))
    pieces = len(tokenizer.encode("playing", add_special_tokens=False).ids)
    assert feature.arrays["labels"].tolist() == [-100, 0, *[-100] * (pieces - 1), 1, 2, 3, -100]
    (feature,) = TASKS["tag"].features(examples, Settings(tokenizer, pieces + 3, ("A", "B", "C", "D")))
    assert feature.length == pieces + 3 and feature.arrays["labels"].max() == 1


def test_a_long_context_becomes_windows_and_the_answer_is_where_it_is_whole():
    tokenizer = nz.load_tokenizer()
    context = "早餐很好吃。" * 10 + "他在北京开会。" + "早餐很好吃。" * 10
    example = {"question": "他在哪里？", "context": context, "answer": "北京", "start": context.index("北京")}
    features = TASKS["answer"].features([example], Settings(tokenizer, 48, stride=8))
    assert len(features) > 3
    found = [feature for feature in features if feature.arrays["start_positions"] > 0]
    assert 1 <= len(found) < len(features)
    for feature in found:
        start, end = int(feature.arrays["start_positions"]), int(feature.arrays["end_positions"])
        begin, stop = feature.characters[start][0], feature.characters[end][1]
        assert context[begin:stop] == "北京"
    seen = {span for feature in features for span in feature.characters if span[1] > span[0]}
    assert seen == set(tokenizer.encode(context, add_special_tokens=False).offsets)


def test_short_windows_share_half_of_their_tokens_at_most():
    example = {"question": "他在哪里？", "context": "早餐很好吃。" * 50, "answer": "早餐", "start": 0}
    features = TASKS["answer"].features([example], Settings(nz.load_tokenizer(), 48))
    assert len(features) <= 2 * 300 // (48 - 3 - 5) + 1


def test_the_loss_of_answers_is_the_average_of_start_and_end_as_the_head_computes_it(tmp_path):
    measured = []
    rows = answer_lines(9) + answer_lines(1)
    (tmp_path / "train.jsonl").write_text(rows, encoding="utf-8")
    options = {"epochs": 1, "batch_size": 9, "learning_rate": 0.0, "report": measured.append}
    weights = finetune("answer", tmp_path / "train.jsonl", tmp_path / "run", **options)
    examples = read_examples(tmp_path / "train.jsonl", "answer")[:9]
    batch = stack(TASKS["answer"].features(examples, Settings(nz.load_tokenizer(), 128)), 0)
    # Dropout makes a difference; a sum would be twice as much.
    assert measured[0]["loss"] == pytest.approx(float(nz.question_answering(weights, **batch).loss), rel=0.2)


def test_parts_have_one_length_and_one_number_of_choices_and_padding_is_not_attended():
    tokenizer = nz.load_tokenizer()
    examples = [{"text": "好" * length, "label": "x"} for length in (1, 30, 2, 28)]
    features = TASKS["classify"].features(examples, Settings(tokenizer, 64, ("x",)))
    parts = list(parts_of_one_length(features))
    assert [sorted(feature.length for feature in part) for part in parts] == [[3, 4], [30, 32]]
    batch = stack(parts[0], 0)
    assert batch["attention_mask"].sum(axis=1).tolist() == [3, 4] and batch["labels"].shape == (2,)


def test_entities_are_those_of_conlleval():
    assert entities(["B-A", "I-A", "I-B", "O", "I-A"]) == [("A", 0, 2), ("B", 2, 3), ("A", 4, 5)]
    assert entities(["S-A", "B-A", "E-A", "I-A"]) == [("A", 0, 1), ("A", 1, 3), ("A", 3, 4)]
    assert entities(["nr", "nr", "O", "ns"]) == [("nr", 0, 2), ("ns", 3, 4)]
    assert entity_f1([["O", "O"]], [["O", "O"]]) == 1.0
    assert entity_f1([["B-A", "O"]], [["B-A", "I-A"]]) == 0.0


def test_answers_are_measured_by_characters_and_foreign_words_without_punctuation():
    assert answer_scores(["“北京”"], [["北京。"]]) == (1.0, 1.0)
    assert answer_scores(["他说…好"], [["他说好"]])[0] == 0.0  # the script has "……" in its list, and tests characters
    assert answer_scores(["北京", "上海"], [["在北京", "北京"], ["广州", "海"]]) == (
        0.5,
        pytest.approx((1 + 2 / 3) / 2),
    )
    assert answer_scores(["1,000 Free Fonts"], [["1000 free fonts"]]) == (0.0, pytest.approx(2 / 3))  # a word is a part
    assert answer_scores(["2001年"], [["2002年"]]) == (0.0, 0.5)
    exact, f1 = answer_scores(["在北京开会"], [["北京"]])
    assert exact == 0.0 and f1 == pytest.approx(4 / 7)
