"""Pre-training from text files: killed at any moment, the same call ends with the same bits."""

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
from nezha_np.training.corpus import make_corpus
from nezha_np.training.data import make_batch, special_ids
from nezha_np.training.evaluation import masked_accuracy
from nezha_np.training.pretrain import Batches, pretrain
from nezha_np.training.run_folder import only_run
from nezha_np.weights.convert import TOKENIZER_FILES

SENTENCES = ["房间很干净。", "早餐也很好吃。", "服务员态度非常差!", "交通方便。", "总理会见外宾。", "下次还会再来。"]
CONFIG = {
    "model_type": "nezha",
    "vocab_size": 7000,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 32,
    "max_relative_position": 8,
}


@pytest.fixture
def text(tmp_path):
    """A file of twelve documents, and a configuration beside it."""
    chooser = random.Random(0)
    documents = ["\n".join(chooser.choice(SENTENCES) for _ in range(chooser.randint(2, 6))) for _ in range(12)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return tmp_path


def command(folder, run, *more):
    return [
        "pretrain",
        str(folder / "text.txt"),
        "-o",
        str(folder / run),
        "--config",
        str(folder / "config.json"),
        *("--steps", "12", "--batch-size", "4", "--parts", "2", "--max-length", "24"),
        *("--save-every", "2", "--measure-every", "3", *more),
    ]


def bits(folder):
    return {name: array.tobytes() for name, array in nz.load(folder).items()}


@pytest.mark.exhaustive
def test_a_run_that_is_killed_goes_on_by_the_same_command_and_ends_with_the_same_bits(text, capsys):
    assert main(command(text, "through")) == 0
    assert run_and_kill(command(text, "killed"), text / "killed", most=40, kills=20) == 20
    assert bits(text / "killed") == bits(text / "through")
    lines = [(text / run / "metrics.jsonl").read_text() for run in ("killed", "through")]
    assert lines[0] == lines[1]
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == [3, 6, 9, 12]


@pytest.mark.parametrize("options", [["--mixed-precision"], ["--optimizer", "adamw"]], ids=["mixed", "adamw"])
def test_layers_that_are_computed_twice_change_no_bit_and_a_run_may_go_on_without(options, text):
    short = ["--steps", "3", "--warmup-steps", "0", "--save-every", "1", *options]
    assert main([*command(text, "through"), *short]) == 0
    with mock.patch("nezha_np.training.loop.accumulate", wraps=accumulate) as computed:
        assert main([*command(text, "twice"), *short, "--checkpoint-layers"]) == 0
    assert [call.kwargs["checkpoint_layers"] for call in computed.call_args_list] == [True] * 3
    assert bits(text / "twice") == bits(text / "through")
    shutil.rmtree(text / "twice" / "step-00000003")
    assert main([*command(text, "twice"), *short]) == 0
    assert bits(text / "twice") == bits(text / "through")


def test_a_model_learns_a_text_that_repeats_itself_and_is_measured_on_another(text):
    measured = []
    config = nz.NezhaConfig(**{name: value for name, value in CONFIG.items() if name != "model_type"})
    weights = pretrain(
        [text / "text.txt"],
        text / "run",
        config=config.replace(hidden_size=32, intermediate_size=64, hidden_dropout_prob=0.0),
        held_out=[text / "text.txt"],
        steps=60,
        batch_size=8,
        max_length=24,
        optimizer="adamw",
        learning_rate=0.02,
        measure_every=1,
        save_every=30,
        report=measured.append,
    )
    assert measured[-1]["loss"] < measured[0]["loss"] / 2
    assert [line["step"] for line in measured if "held_out_accuracy" in line] == [30, 60]
    assert measured[-1]["held_out_accuracy"] > 0.1
    loaded = nz.load(text / "run")
    assert all(np.array_equal(array, weights[name]) for name, array in loaded.items())
    assert nz.load_tokenizer(text / "run").token_to_id("[MASK]") == 4


def test_words_of_a_segmenter_are_masked_whole(text):
    seen = []

    def segmenter(sentence):
        seen.append(sentence)
        return [sentence[:2], sentence[2:]]

    pretrain([text / "text.txt"], text / "run", segmenter=segmenter, steps=1, batch_size=2, max_length=16)
    assert set(seen) <= set(SENTENCES)
    assert json.loads((text / "run" / "run.json").read_text())["whole_words"] is True


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "0"], "--steps: expected a number from 1 on, got 0"),
        (["--parts", "3"], "--parts: expected a divisor of the batch size, 4, got 3"),
        (["--batch-size", "400"], "--batch-size: expected at most"),
        (["--optimizer", "adam"], "invalid choice: 'adam'"),
        (["--model", "no_such_folder"], "no_such_folder"),
        (["--learning-rate", "-1"], "learning-rate: expected a finite number from 0 on, got -1.0"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(text, more, message, capsys):
    try:
        status = main(command(text, "run", *more))
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1 and message in error


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--learning-rate", "-1"], "learning-rate: expected a finite number"),
        (["--warmup-steps", "12"], "warmup-steps: expected a number from 0 to 11, got 12"),
        (["--max-length", "4"], "max-length: expected a number from 5 on, got 4"),
    ],
)
def test_a_wrong_number_is_named_before_texts_are_cut_into_tokens(text, more, message, capsys):
    assert main(command(text, "run", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (text / "run").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            nz.NezhaConfig(vocab_size=6999, hidden_size=8, num_attention_heads=1),
            "expected a vocab_size of 7000 at least",
        ),
        (
            nz.ConvBertConfig(vocab_size=7000, hidden_size=32, num_attention_heads=2),
            "pretraining: expected a model with",
        ),
        (
            nz.BertConfig(vocab_size=7000, hidden_size=8, num_attention_heads=1, max_position_embeddings=64),
            "^max_length: expected at most 64, the positions of the model, got 128$",
        ),
    ],
)
def test_a_model_that_the_text_cannot_train_is_named_before_it_is_cut_into_tokens(config, message, text):
    with pytest.raises(ValueError, match=message):
        pretrain([text / "text.txt"], text / "run", config=config, steps=1)
    assert not (text / "run" / "corpus").exists()


def test_options_may_be_numbers_of_numpy_and_switches_are_checked(text):
    numbers = {"learning_rate": np.float32(1e-3), "seed": np.int64(1), "save_every": np.int64(1)}
    pretrain([text / "text.txt"], text / "run", steps=1, batch_size=2, max_length=16, **numbers)
    assert json.loads((text / "run" / "run.json").read_text(encoding="utf-8"))["seed"] == 1
    for name in ("mixed_precision", "checkpoint_layers"):
        with pytest.raises(TypeError, match=f"^{name}: expected True, False or None, got 'no'$"):
            pretrain([text / "text.txt"], text / "other", steps=1, **{name: "no"})


def test_a_run_with_other_options_is_not_gone_on_with(text, capsys):
    assert main(command(text, "run")) == 0
    assert main(command(text, "run", "--seed", "1")) == 2
    error = capsys.readouterr().err
    assert "run: expected the options that this run was started with, got others: seed: 0 in the run, 1 now. " in error


def test_of_another_configuration_only_what_differs_is_told(text, capsys):
    assert main([*command(text, "run"), "--steps", "2", "--warmup-steps", "0"]) == 0
    (text / "config.json").write_text(json.dumps(CONFIG | {"hidden_size": 16}), encoding="utf-8")
    capsys.readouterr()
    assert main([*command(text, "run"), "--steps", "2", "--warmup-steps", "1"]) == 2
    assert "got others: --warmup-steps: 0 in the run, 1 now; config.hidden_size: 8 in the run, 16 now. Start it" in (
        capsys.readouterr().err
    )


def test_a_run_knows_its_texts_and_its_model_by_what_is_in_them(text, capsys):
    short = ["--steps", "2", "--warmup-steps", "0", "--held-out", str(text / "held_out.txt")]
    shutil.copy(text / "text.txt", text / "held_out.txt")
    words = command(text, "run", *short)
    assert main(words) == 0
    before = bits(text / "run")
    moved = (text / "text.txt").rename(text / "moved.txt")
    assert main([str(moved) if word.endswith("/text.txt") else word for word in words]) == 0
    assert bits(text / "run") == before
    for name, option in (("text.txt", "texts"), ("held_out.txt", "--held-out")):
        (text / "text.txt").write_bytes(moved.read_bytes())
        (text / name).write_text("交通方便。\n\n" * 9, encoding="utf-8")
        assert main(words) == 2
        error = capsys.readouterr().err
        assert f"got others: {option}: {name} with SHA-256 " in error and error.count("SHA-256") == 2
        (text / "held_out.txt").write_bytes(moved.read_bytes())
    (text / "tokenizer").mkdir()
    for name in TOKENIZER_FILES:
        if (text / "run" / name).is_file():
            shutil.copy(text / "run" / name, text / "tokenizer")
    (text / "text.txt").write_bytes(moved.read_bytes())
    assert main([*words, "--model", str(text / "tokenizer")]) == 0  # the same one, and the weights are new
    vocabulary = (text / "tokenizer" / "vocab.txt").read_text(encoding="utf-8")
    (text / "tokenizer" / "vocab.txt").write_text(vocabulary.replace("\n好\n", "\n𠀀\n"), encoding="utf-8")
    assert main([*words, "--model", str(text / "tokenizer")]) == 2
    assert "got others: model: nezha-tiny-zh with SHA-256 " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["TEXT", "--held-out"])
def test_what_is_no_text_file_is_named_by_its_argument(option, text, capsys):
    (text / "folder").mkdir()
    for name, message in (("folder", "found a folder: "), ("missing", "found none at ")):
        files = [str(text / name)] if option == "TEXT" else [str(text / "text.txt"), option, str(text / name)]
        assert main(["pretrain", *files, "-o", str(text / "run")]) == 2
        assert f"{option}: expected a text file, {message}{text / name}\n" in capsys.readouterr().err
    assert not (text / "run").exists()


def test_a_file_that_a_run_lacks_is_named_with_what_to_do(text, capsys):
    assert main(command(text, "run")) == 0
    for name in ("tokens", "sentences"):
        file = text / "run" / "corpus" / f"{name}.bin"
        file.rename(text / "away")
        capsys.readouterr()
        assert main(command(text, "run")) == 2
        error = capsys.readouterr().err
        assert f"{file}: expected what corpus.json tells of, found no such file; remove {file.parent}" in error
        (text / "away").rename(file)
    for name in ("step.json", "optimizer.safetensors", "model.safetensors", "config.json"):
        file = text / "run" / "step-00000012" / name
        file.rename(text / "away")
        assert main(command(text, "run")) == 2
        error = capsys.readouterr().err
        assert f"{file.parent}: expected a saved step of a run, found no {name} in it; remove the folder, and" in error
        (text / "away").rename(file)
    for model in (*(text / "run").glob("model.*"), text / "run" / "run.json"):
        model.unlink()
    assert main(command(text, "run")) == 2
    error = capsys.readouterr().err
    assert "run.json: expected the options of the run whose step-00000012 is there, found no such file" in error


def test_a_text_that_cannot_be_read_is_named_by_its_line(text, capsys):
    (text / "text.txt").write_bytes("好。\n".encode() + b"\xff\n")
    assert main(command(text, "run")) == 2
    assert "text.txt, line 2" in capsys.readouterr().err
    assert not (text / "run" / "corpus").exists()


def test_held_out_text_is_measured_wherever_the_run_is_saved(text):
    measured = []
    config = nz.NezhaConfig(**{name: value for name, value in CONFIG.items() if name != "model_type"})
    options = {"steps": 8, "batch_size": 2, "max_length": 24, "measure_every": 3, "save_every": 4, "config": config}
    texts = [text / "text.txt"]
    pretrain(texts, text / "run", held_out=texts, report=measured.append, **options)
    assert [line["step"] for line in measured] == [3, 4, 6, 8]
    assert [line["step"] for line in measured if "held_out_loss" in line] == [4, 8]


@pytest.mark.parametrize("argument", ["texts", "held_out"])
def test_one_file_in_place_of_a_list_is_named(argument, text):
    for one in (str(text / "text.txt"), text / "text.txt"):
        files = {"texts": [text / "text.txt"], argument: one}
        with pytest.raises(TypeError, match=rf"{argument}: expected a list of files, got "):
            pretrain(folder=text / "run", **files)
    assert not (text / "run").exists()


def test_the_parts_of_a_batch_are_the_batch(text):
    tokenizer = nz.load_tokenizer()
    corpus = make_corpus([text / "text.txt"], text / "corpus", tokenizer)
    whole, parts = (Batches(corpus, special_ids(tokenizer), 4, parts, 24, 0, False) for parts in (1, 2))
    for step in range(3):
        (one,), both = whole(step), parts(step)
        assert all(part["labelled_only"] for part in both)
        for name, array in make_batch(corpus, step, special_ids(tokenizer), batch_size=4, max_length=24).items():
            np.testing.assert_array_equal(one[name], array)
            np.testing.assert_array_equal(np.concatenate([part[name] for part in both]), array)


def test_held_out_loss_and_accuracies_are_those_of_the_heads():
    weights = nz.init(nz.NezhaConfig(**{name: value for name, value in CONFIG.items() if name != "model_type"}), seed=3)
    ids = np.random.default_rng(0).integers(5, 7000, (2, 3, 9))
    batches, losses, counts, pairs = [], [], [], 0
    for some, follows in zip(ids, ([0, 1, 1], [1, 1, 0]), strict=True):
        out = nz.pretraining(weights, some)
        said = out.prediction_logits.argmax(axis=-1)
        labels = np.where(some % 5 == 0, said, np.where(some % 5 < 3, (said + 1) % 7000, -100))
        batches.append({"input_ids": some, "labels": labels, "next_sentence_label": follows})
        losses.append(float(nz.masked_lm(weights, some, labels=labels).loss))
        counts.append([int((some % 5 == 0).sum()), int((labels != -100).sum())])
        pairs += int((out.seq_relationship_logits.argmax(axis=-1) == np.array(follows)).sum())
    found, (right, labelled) = masked_accuracy(weights, batches), np.sum(counts, axis=0)
    assert 0 < right < labelled < ids.size
    assert found["loss"] == pytest.approx(np.average(losses, weights=[count for _, count in counts]), rel=1e-5)
    assert found["accuracy"] == right / labelled
    assert found["next_sentence_accuracy"] == pairs / 6


def test_a_run_that_has_saved_nothing_begins_anew_with_other_options_and_texts(text, capsys):
    assert main(command(text, "run", "--batch-size", "400")) == 2
    (text / "other.txt").write_text("交通方便。\n\n" * 20, encoding="utf-8")
    other = [str(text / "other.txt") if word.endswith("text.txt") else word for word in command(text, "run")]
    assert main(other) == 0
    other[other.index("-o") + 1] = str(text / "alone")
    assert main(other) == 0
    assert bits(text / "run") == bits(text / "alone")
    capsys.readouterr()
    assert main(command(text, "run")) == 2
    assert "texts: other.txt with SHA-256 " in capsys.readouterr().err


def test_a_run_that_diverges_says_so_in_one_line(text, capsys):
    assert main(command(text, "run", "--learning-rate", "1e30", "--warmup-steps", "0", "--optimizer", "adamw")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; a smaller --learning-rate may help") and "expected finite gradients" in line


def test_two_runs_do_not_write_to_one_folder(text, capsys):
    with only_run(text / "run"):
        assert main(command(text, "run")) == 2
    assert "expected to be the only run that writes to it, but another one does" in capsys.readouterr().err
    assert main(command(text, "run")) == 0 and not (text / "run" / "run.lock").exists()


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "corpus/corpus.json", "step-00000012/step.json"])
def test_a_damaged_file_of_a_run_is_named(name, text, capsys):
    assert main(command(text, "run")) == 0
    for damaged in ("{\n", "[]\n", "[" * 100_000 + "\n", *(["{}\n"] if name == "metrics.jsonl" else [])):
        (text / "run" / name).write_text(damaged, encoding="utf-8")
        assert main(command(text, "run")) == 2
        error = capsys.readouterr().err.replace(", line 1: ", ": ")
        assert f"{(text / 'run' / name)}: expected" in error


def test_a_file_in_the_place_of_the_folder_is_named(text, capsys):
    for name in ("text.txt", "text.txt/run", "text.txt/runs/first"):
        assert main(command(text, name)) == 2
        assert f"--output: expected a folder, found a file: {text / 'text.txt'}\n" in capsys.readouterr().err


def test_of_many_options_that_differ_the_first_are_told(text, capsys):
    assert main(command(text, "run")) == 0
    (text / "train.tsv").write_text("好\tgood\n差\tbad\n" * 5, encoding="utf-8")
    capsys.readouterr()
    assert main(["finetune", str(text / "train.tsv"), "-o", str(text / "run"), "--task", "classify"]) == 2
    error = capsys.readouterr().err
    assert "got others: texts: " in error and " more. Start it with those again" in error and error.count(" now; ") == 5


@pytest.mark.parametrize("more", [[], ["--held-out"]])
def test_a_text_of_one_document_is_named_before_the_first_step(more, text, capsys):
    (text / "one.txt").write_text("房间很干净。\n早餐也很好吃。\n", encoding="utf-8")
    texts = [str(text / "text.txt")] if more else []
    options = ["--steps", "1", "--batch-size", "1", "-o", str(text / "run")]
    assert main(["pretrain", *texts, *more, str(text / "one.txt"), *options]) == 2
    assert f"two documents at least, for pairs of two texts, found one in {text / 'one.txt'}" in capsys.readouterr().err
    assert not (text / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("more", [[], ["--held-out"]])
def test_a_text_without_a_sentence_is_named(more, text, capsys):
    (text / "empty.txt").write_text("\n", encoding="utf-8")
    texts = [str(text / "text.txt")] if more else []
    assert main(["pretrain", *texts, *more, str(text / "empty.txt"), "-o", str(text / "run")]) == 2
    name = more[0] if more else "TEXT"
    assert f"{name}: expected one sentence at least, found none in {text / 'empty.txt'}" in capsys.readouterr().err
