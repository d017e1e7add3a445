"""Several processes train as one that has the whole batch, up to the rounding of a sum."""

import itertools

import numpy as np
import pytest
from cases import EVERY_LABELLED_HEAD
from together import run_together

import nezha_np as nz
from nezha_np.training import LossScale, adamw, first_step, lamb, train
from nezha_np.training.accumulation import rows_of
from nezha_np.training.data_parallel import ALONE, Processes, share_of

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


def rows(head, parts, processes):
    """The rows of a process of each part."""
    found = []
    for part in parts:
        shared = slice(*share_of(rows_of(head, part), processes))
        found.append({name: value[shared] if hasattr(value, "shape") else value for name, value in part.items()})
    return found


def of_step(number):
    """A batch in two parts, which have other labels in every step."""
    labels = np.roll(LABELS, number, axis=1)
    return [{"input_ids": IDS[:2], "labels": labels[:2]}, {"input_ids": IDS[2:], "labels": labels[2:]}]


def train_as(processes, dtype):
    """Train with dropout, and return the last step."""
    start = first_step(nz.init(CONFIG, dtype=dtype), lamb)
    steps = train(
        start, nz.masked_lm, lambda n: rows(nz.masked_lm, of_step(n), processes), lamb,
        steps=4, learning_rate=1e-2, processes=processes,
    )  # fmt: skip
    return list(steps)[-1]


def assert_equal(found, expected, tolerance):
    largest = max(float(np.abs(array).max()) for array in expected.weights.values())
    for name, array in expected.weights.items():
        np.testing.assert_allclose(found.weights[name], array, rtol=0, atol=tolerance * largest, err_msg=name)
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
        batch = rows(function, [whole], processes)
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
            step, nz.masked_lm, lambda n: rows(nz.masked_lm, of_step(n), processes), adamw,
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
