"""Several processes train as one that has the whole batch, up to the rounding of a sum."""

import itertools
import json
import shutil

import numpy as np
import pytest
from cases import EVERY_LABELLED_HEAD
from together import run_together

import nezha_np as nz
from nezha_np.arrays import to_numpy
from nezha_np.cli import main
from nezha_np.training import LossScale, adamw, first_step, lamb, train
from nezha_np.training.data_parallel import ALONE, Processes, check_alike, rows_of_process, share_of
from nezha_np.training.finetune import finetune
from nezha_np.training.mpi import LAUNCHERS, launched
from nezha_np.training.pretrain import pretrain
from nezha_np.weights.checkpoint import SHIPPED

CONFIG = nz.NezhaConfig(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=16,
    max_relative_position=4,
)
IDS = np.random.default_rng(0).integers(5, 30, (5, 7))
LABELS = np.where(np.random.default_rng(1).random((5, 7)) < 0.3, IDS, -100)


def of_step(number):
    """A batch in two parts, which have other labels in every step."""
    labels = np.roll(LABELS, number, axis=1)
    return [{"input_ids": IDS[:2], "labels": labels[:2]}, {"input_ids": IDS[2:], "labels": labels[2:]}]


def train_as(processes, dtype, convert=np.asarray):
    """Train with dropout, and return the last step."""
    weights = {name: convert(array) for name, array in nz.init(CONFIG, dtype=dtype).items()}
    start = first_step(nz.Weights(weights, CONFIG), lamb)
    steps = train(
        start, nz.masked_lm, lambda n: [rows_of_process(part, processes) for part in of_step(n)], lamb,
        steps=4, learning_rate=1e-2, processes=processes,
    )  # fmt: skip
    return list(steps)[-1]


def assert_equal(found, expected, tolerance):
    largest = max(float(np.abs(array).max()) for array in expected.weights.values())
    for name, array in expected.weights.items():
        ours = to_numpy(found.weights[name])
        np.testing.assert_allclose(ours, array, rtol=0, atol=tolerance * largest, err_msg=name)
    assert found.losses == pytest.approx(expected.losses, abs=tolerance * 10)
    assert found.norm == pytest.approx(expected.norm, rel=tolerance * 10)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("size", [2, 3, 4])  # with 4 the first part has no row for some
def test_processes_train_as_one_with_the_same_batch_and_the_same_dropout(size, dtype, tolerance):
    expected = train_as(ALONE, dtype)
    steps = run_together(size, lambda processes: train_as(processes, dtype))
    for step in steps:
        assert_equal(step, expected, tolerance)
        for name, array in steps[0].weights.items():
            assert np.array_equal(array, step.weights[name])


FAMILIES = {"nezha": nz.NezhaConfig, "bert": nz.BertConfig, "convbert": nz.ConvBertConfig}
CLASSES = np.array([1, 0, -100, 1, 0])
LABELS_OF = {
    "pretraining": {"labels": LABELS, "next_sentence_label": CLASSES},
    "masked_lm": {"labels": LABELS},
    "causal_lm": {"labels": LABELS},
    "token_classification": {"labels": np.where(LABELS < 0, -100, LABELS % 2)},
    "question_answering": {"start_positions": np.array([0, 3, 9, 1, 2]), "end_positions": np.array([1, 9, 9, 4, 2])},
    "multiple_choice": {"labels": np.array([1, 0, 1, 1, 0])},
}


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
@pytest.mark.one_in(2)
def test_every_head_has_the_gradients_of_the_whole_batch(family, head):
    config = FAMILIES[family](
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=16, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3,
        is_decoder=head == "causal_lm", **({"embedding_size": 8} if family == "convbert" else {}),
    )  # fmt: skip
    weights, function = nz.init(config, head=head, dtype="float64"), getattr(nz, head)
    ids = np.stack([IDS, IDS[::-1]], axis=1) if head == "multiple_choice" else IDS
    whole = {"input_ids": ids, "attention_mask": np.where(ids % 7, 1, 0), **LABELS_OF.get(head, {"labels": CLASSES})}

    def gradients(processes):
        batch = [rows_of_process(whole, processes)]
        (step,) = train(
            first_step(weights, Kept), function, lambda n: batch, Kept, steps=1, learning_rate=0.0, clip_norm=1e9,
            processes=processes,
        )  # fmt: skip
        return step.losses, step.state

    losses, expected = gradients(ALONE)
    for found_losses, found in run_together(3, gradients):
        assert found_losses == pytest.approx(losses, abs=1e-12)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            np.testing.assert_allclose(found[name], gradient, rtol=0, atol=1e-12, err_msg=name)


class Kept:
    """An optimiser that keeps the gradients."""

    @staticmethod
    def init(weights):
        return {}

    @staticmethod
    def step(weights, gradients, state, *, learning_rate):
        return weights, gradients


def test_a_step_that_overflows_in_one_process_is_left_out_by_all():
    def train_halved(processes):
        step = first_step(nz.init(CONFIG), adamw, LossScale(2.0**32, backoff_steps=1))
        steps = train(
            step, nz.masked_lm, lambda n: [rows_of_process(part, processes) for part in of_step(n)], adamw,
            steps=20, learning_rate=1e-3, processes=processes,
        )  # fmt: skip
        return [(one.skipped, one.loss_scale.scale) for one in steps]

    one, other = run_together(2, train_halved)
    assert one == other
    assert one[0][0] and not one[-1][0]


def test_rows_are_divided_without_a_rest_and_in_order():
    for count in range(12):
        for size in range(1, 6):
            shares = [share_of(count, Processes(rank, size)) for rank in range(size)]
            assert shares[0][0] == 0 and shares[-1][1] == count
            assert all(one[1] == other[0] for one, other in itertools.pairwise(shares))
            assert max(after - first for first, after in shares) <= -(-count // size)


SENTENCES = [
    "房间很干净。",
    "早餐也很好吃。",
    "下次还会再来。",
    "总理会见外宾。",
    "双方交换了意见。",
    "会见后共进午餐。",
]


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    documents = ["\n".join(SENTENCES[(i + j) % 6] for j in range(4)) for i in range(20)]
    (tmp_path / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    config, seen = CONFIG.replace(vocab_size=7000, max_position_embeddings=32), []

    def run(name, processes, report=None):
        return pretrain(
            [tmp_path / "text.txt"], tmp_path / name, config=config, held_out=[tmp_path / "text.txt"], steps=5,
            batch_size=7, max_length=24, save_every=1, keep=9, report=report, processes=processes,
        )  # fmt: skip

    expected = run("alone", ALONE)
    run_together(3, lambda processes: run("together", processes))
    shutil.rmtree(tmp_path / "together" / "step-00000005")
    shutil.rmtree(tmp_path / "together" / "step-00000004")
    for weights in run_together(2, lambda processes: run("together", processes, seen.append)):
        for name, array in expected.items():
            np.testing.assert_allclose(weights[name], array, rtol=0, atol=1e-5, err_msg=name)
    assert [line["step"] for line in seen] == [4, 5]  # process 0 alone reports


@pytest.mark.parametrize("task", ["classify", "choose"])
def test_processes_finetune_as_one(task, tmp_path):
    examples = [{"text": text, "label": str("会" in text)} for text in SENTENCES * 4]
    if task == "choose":
        examples = [
            {"question": text, "context": SENTENCES[0], "choices": SENTENCES[: 2 + (text < "房")], "label": 0}
            for text in SENTENCES * 4
        ]
    lines = [json.dumps(example, ensure_ascii=False) for example in examples]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    nz.init(CONFIG.replace(vocab_size=7000, max_position_embeddings=64), head="pretraining").save(tmp_path / "model")
    shutil.copy(SHIPPED / "vocab.txt", tmp_path / "model")

    def run(name, processes):
        return finetune(
            task, tmp_path / "train.jsonl", tmp_path / name, model=tmp_path / "model", epochs=2, batch_size=6,
            max_length=32, processes=processes,
        )  # fmt: skip

    expected = run("alone", ALONE)
    for weights in run_together(3, lambda processes: run("together", processes)):
        for name, array in expected.items():
            # A number that is added to all scores changes nothing: its gradient is rounding, and AdamW follows it.
            if (task, name) != ("choose", "classifier.bias"):
                np.testing.assert_allclose(weights[name], array, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("family", [nz.NezhaConfig, nz.BertConfig])
@pytest.mark.parametrize(("dtype", "rounding"), [("float64", 1e-12), ("float32", 1e-5)])
def test_the_gradient_of_the_bias_of_the_keys_is_rounding_alone(family, dtype, rounding):
    config = family(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12)
    tensors = {name: array + 0.1 for name, array in nz.init(config, head="masked_lm", dtype=dtype).items()}
    _, gradients = nz.value_and_grad(nz.masked_lm)(nz.Weights(tensors, config), IDS, labels=LABELS)
    for layer in range(2):
        key, query = (gradients[f"encoder.layer.{layer}.attention.self.{name}.bias"] for name in ("key", "query"))
        assert np.abs(key).max() < rounding * max(float(np.abs(array).max()) for array in gradients.values())
        assert np.abs(query).max() > 10 * np.abs(key).max()


def test_processes_that_read_other_files_are_told_so():
    def check(processes):
        check_alike({"seed": 0, "tokens": 50 + (processes.rank == 2)}, processes)

    with pytest.raises(ValueError, match="tokens: expected 50, as process 0 has, got 51: all processes need the same"):
        run_together(3, check)


@pytest.mark.parametrize("names", LAUNCHERS, ids=lambda names: names[0])
@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_wrong_start_of_several_processes_is_said_by_one_with_what_to_do(command, names, monkeypatch, capsys):
    words = [command, "no_such_file", "-o", "no_such_folder"]
    for rank, size in (("0", "2"), ("1", "2"), ("0", "1")):
        for name, value in zip(names, (rank, size), strict=True):
            monkeypatch.setenv(name, value)
        for found, message in ((None, 'pip install "nezha-np[mpi]"'), (object(), "python -m mpi4py -m nezha_np")):
            monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
            if (rank, size) == ("0", "1"):  # a launcher of one process changes nothing
                assert launched() == (0, 1)
                continue
            assert main(words) == 2
            error = capsys.readouterr().err
            assert (message in error and error.count("\n") == 1) if rank == "0" else not error
