"""A checkpoint is loaded with a head that it does not have: what is missing is drawn, the rest stays."""

import warnings

import numpy as np
import pytest

import nezha_np as nz

pytestmark = pytest.mark.filterwarnings("ignore:.* drawn with seed:nezha_np.HeadWarning")

CONFIG = nz.BertConfig(
    vocab_size=11, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=4, num_labels=3
)


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of a pre-trained model, and one of a text classifier with three classes."""
    nz.init(CONFIG, seed=1).save(tmp_path / "pretrained")
    nz.init(CONFIG, head="sequence_classification", seed=1).save(tmp_path / "classifier")
    return tmp_path


@pytest.mark.parametrize("head", ["sequence_classification", "token_classification", "question_answering"])
def test_a_missing_head_is_the_one_that_init_draws(folder, head):
    weights = nz.load(folder / "pretrained", head=head, seed=5)
    drawn = nz.init(CONFIG, head=head, seed=5)
    pretrained = nz.load(folder / "pretrained")
    for name, array in weights.items():
        np.testing.assert_array_equal(array, (pretrained if name in pretrained else drawn)[name], err_msg=name)
    assert weights.keys() == drawn.keys()
    assert weights.config.architectures == drawn.config.architectures


def test_a_trained_head_stays_and_another_number_of_classes_or_another_task_draws_it_anew(folder):
    trained = nz.load(folder / "classifier")
    again = nz.load(folder / "classifier", head="sequence_classification", seed=5)
    np.testing.assert_array_equal(again["classifier.weight"], trained["classifier.weight"])
    five = nz.load(folder / "classifier", head="sequence_classification", num_labels=5, seed=5)
    assert five["classifier.weight"].shape == (5, 8) and five.config.num_labels == 5
    tags = nz.load(folder / "classifier", head="token_classification", seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nz.token_classification(tags, [[2, 4, 3]])  # no warning: the head is this task's now
    assert not np.array_equal(tags["classifier.weight"], trained["classifier.weight"])


def test_what_is_drawn_is_named_in_a_warning_and_a_trained_head_gives_none(folder):
    with pytest.warns(nz.HeadWarning, match=r"for question_answering: qa_outputs\.weight, qa_outputs\.bias drawn"):
        nz.load(folder / "pretrained", head="question_answering", seed=5)
    with pytest.warns(nz.HeadWarning, match=r"for token_classification: classifier\.bias, classifier\.weight drawn"):
        nz.load(folder / "classifier", head="token_classification", dtype="float64")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nz.load(folder / "classifier", head="sequence_classification", dtype="float64")


def test_classes_may_be_named_and_are_saved_with_the_head(folder):
    weights = nz.load(folder / "pretrained", head="sequence_classification", id2label=["bad", "good"])
    weights.save(folder / "named")
    loaded = nz.load(folder / "named", head="sequence_classification")
    assert loaded.config.id2label == {0: "bad", 1: "good"} and loaded.config.label2id == {"bad": 0, "good": 1}
    np.testing.assert_array_equal(loaded["classifier.weight"], weights["classifier.weight"])


def test_a_pooler_that_is_missing_is_drawn_too(folder):
    tensors = {name: array for name, array in nz.load(folder / "pretrained").items() if "pooler" not in name}
    nz.Weights(tensors, CONFIG).save(folder / "without_pooler")
    weights = nz.load(folder / "without_pooler", head="sequence_classification", dtype="float64")
    assert weights["pooler.dense.weight"].dtype == np.float64
    assert nz.sequence_classification(weights, [[2, 4, 3]]).logits.shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "classification"}, "head: expected one of pretraining, .* or None, got 'classification'"),
        ({"num_labels": 3}, "num_labels, id2label: expected a head with them, got head=None"),
        ({"head": "token_classification", "num_labels": 0}, "num_labels: expected a number from 1 on, got 0"),
        ({"head": "token_classification", "num_labels": 2, "id2label": ["O"]}, "num_labels"),
        ({"head": "token_classification", "id2label": "OBI"}, "id2label"),
        ({"head": "token_classification", "seed": 0.5}, "seed: expected an integer, got 0.5"),
    ],
)
def test_a_wrong_argument_is_named(folder, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        nz.load(folder / "pretrained", **options)
