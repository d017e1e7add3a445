"""A batch in parts has the gradients of the whole, for every head; the loss scale changes none of them."""

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.training import LossScale, accumulate

CONFIG = nz.NezhaConfig(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=16,
    max_relative_position=4,
    num_labels=3,
)
IDS = np.array([[2, 10, 11, 3], [2, 12, 3, 0], [2, 13, 14, 3]])
MASK = np.where(IDS == 0, 0, 1)
TOKENS = np.array([[-100, 10, 11, -100], [-100, 5, -100, -100], [-100, -100, -100, -100]])

# The arguments of each head; labels of the rows differ in number, and the last row has none where that can be.
BATCHES = {
    nz.masked_lm: {"labels": TOKENS},
    nz.pretraining: {"labels": TOKENS, "next_sentence_label": np.array([1, 0, -100])},
    nz.next_sentence_prediction: {"labels": np.array([1, 0, -100])},
    nz.sequence_classification: {"labels": np.array([2, 0, -100])},
    nz.token_classification: {"labels": np.where(TOKENS < 0, -100, TOKENS % 3)},
    nz.question_answering: {"start_positions": np.array([1, 0, 9]), "end_positions": np.array([2, 9, 9])},
}


def batch_of(head, rows):
    """Some rows of the batch of a head."""
    whole = {"input_ids": IDS, "attention_mask": MASK, **BATCHES[head]}
    return {name: array[rows] for name, array in whole.items()}


@pytest.mark.parametrize("head", BATCHES, ids=lambda head: head.__name__)
def test_a_batch_in_parts_has_the_loss_and_the_gradients_of_the_whole(head):
    weights = nz.init(CONFIG, head=head.__name__, dtype="float64")
    out, whole = nz.value_and_grad(head)(weights, **batch_of(head, slice(None)))
    losses, gradients = accumulate(head, weights, [batch_of(head, [0]), batch_of(head, [1]), batch_of(head, [2])])
    loss = sum(losses.values()) / (2 if head is nz.question_answering else 1)  # its loss is an average
    assert loss == pytest.approx(float(out.loss), abs=1e-12)
    assert gradients.keys() == whole.keys()
    for name, gradient in whole.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=0, atol=1e-13, err_msg=name)


def test_the_labels_of_a_decoder_are_counted_where_a_token_comes_before():
    config = CONFIG.replace(is_decoder=True)
    weights = nz.init(config, head="causal_lm", dtype="float64")
    labels = np.where(MASK == 0, -100, IDS)
    out, whole = nz.value_and_grad(nz.causal_lm)(weights, IDS, attention_mask=MASK, labels=labels)
    parts = [{"input_ids": IDS[row], "attention_mask": MASK[row], "labels": labels[row]} for row in ([0], [1, 2])]
    losses, gradients = accumulate(nz.causal_lm, weights, parts)
    assert losses["loss"] == pytest.approx(float(out.loss), abs=1e-12)
    for name, gradient in whole.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=0, atol=1e-13, err_msg=name)


def test_a_loss_scale_leaves_the_gradients_as_they_are():
    weights = nz.init(CONFIG)
    batch = batch_of(nz.masked_lm, slice(None))
    _, plain = accumulate(nz.masked_lm, weights, [batch])
    _, scaled = accumulate(nz.masked_lm, weights, [batch], loss_scale=2.0**20)
    for name, gradient in plain.items():
        np.testing.assert_array_equal(scaled[name], gradient, err_msg=name)  # a power of two rounds nothing


def test_a_loss_scale_brings_back_the_gradients_that_vanish_in_float16():
    weights = nz.init(CONFIG)
    part, counts = [batch_of(nz.masked_lm, slice(None))], {"loss": 3 * 2**20}  # a small part of a large batch
    _, right = accumulate(nz.masked_lm, weights, part, counts=counts)
    half = weights.to(dtype="float16")
    _, without = accumulate(nz.masked_lm, half, part, counts=counts)
    _, with_scale = accumulate(nz.masked_lm, half, part, counts=counts, loss_scale=2.0**20)
    name = "encoder.layer.0.intermediate.dense.weight"
    assert with_scale[name].dtype == np.float32
    assert not np.any(without[name])
    np.testing.assert_allclose(with_scale[name], right[name], rtol=0, atol=0.01 * np.abs(right[name]).max())


def test_a_loss_scale_that_is_too_large_gives_gradients_that_are_not_finite():
    with np.errstate(over="ignore", invalid="ignore"):
        _, gradients = accumulate(
            nz.masked_lm, nz.init(CONFIG).to(dtype="float16"), [batch_of(nz.masked_lm, slice(None))], loss_scale=2.0**32
        )
    assert not all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_the_loss_scale_doubles_after_finite_steps_and_halves_after_two_that_are_not():
    scale = LossScale()
    assert scale.scale == 2.0**32
    for _ in range(999):
        scale = scale.after(finite=True)
    assert scale.scale == 2.0**32
    scale = scale.after(finite=True)
    assert scale.scale == 2.0**33
    scale = scale.after(finite=False)
    assert scale.scale == 2.0**33
    scale = scale.after(finite=True).after(finite=False)  # not in a row: as TensorFlow counts
    assert scale.scale == 2.0**32
    assert LossScale(1.0, backoff_steps=1).after(finite=False).scale == 1.0
