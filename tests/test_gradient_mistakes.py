"""Every mistake of walking back is planted, the forward pass being right; the doctor names the first wrong gradient."""

import numpy as np
import pytest
from test_doctor import planted_ways

import nezha_np as nz
from nezha_np.oracle.mistakes import GRADIENT_MISTAKES
from nezha_np.oracle.replay import replay_gradients
from nezha_np.oracle.rounding import ARITHMETICS, inputs_in, weights_in
from nezha_np.randomness import uniform

SIZES = {
    "vocab_size": 19,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
    "num_labels": 3,
}
INPUTS = {
    "input_ids": [[2, 5, 9, 5, 3, 0], [2, 7, 8, 3, 11, 3]],
    "attention_mask": [[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]],  # padding is attended to: its gradient is not 0
    "token_type_ids": [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]],
}
WORDS = [[-100, 4, -100, 6, -100, -100], [-100, -100, 8, -100, 1, -100]]
WAYS = [(mistake, way) for mistake in GRADIENT_MISTAKES for way in planted_ways(mistake)]


def lively(config, head):
    """Weights whose biases and norms matter too."""
    drawn = nz.init(config, head if head != "masked_lm" else None, dtype="float64")
    tensors = {}
    for name, array in drawn.items():
        draw = uniform(array.size, 1, name).reshape(array.shape) * 2.0 - 1.0
        tensors[name] = (1.0 + 0.3 * draw) if name.endswith("LayerNorm.weight") else 0.5 * draw
    return nz.Weights(tensors, drawn.config)


def make_bundles():
    """One bundle for each family and loss at which one of the mistakes shows, by what they are."""
    nezha, bert = (
        kind(**SIZES, **own)
        for kind, own in ((nz.NezhaConfig, {"max_relative_position": 3}), (nz.BertConfig, {"hidden_act": "gelu"}))
    )
    regression = nezha.replace(problem_type="regression")
    numbers = [[0.5, 1.0, -1.0], [0.0, 0.25, 2.0]]
    return {
        what: nz.oracle.record(lively(config, head), head=head, **INPUTS, **labels)
        for what, config, head, labels in (
            ("NEZHA, masked_lm", nezha, "masked_lm", {"labels": WORDS}),
            ("BERT, pretraining", bert, "pretraining", {"labels": WORDS, "next_sentence_label": [0, 1]}),
            (
                "NEZHA, regression",
                regression,
                "sequence_classification",
                {"labels": numbers},
            ),
        )
    }


@pytest.fixture(scope="module")
def bundles():
    return list(make_bundles().values())


def plant(bundle, changes, arithmetic):
    """Walk back with a mistake: the gradients of a port that has it, in its dtype."""
    weights, inputs = weights_in(bundle.weights(), arithmetic), inputs_in(bundle.inputs, arithmetic)
    made = replay_gradients(bundle, weights, inputs, {}, arithmetic, changes=changes)
    return {f"gradients/{name}": array.astype(arithmetic.computed_in) for name, array in made.items()}


@pytest.mark.one_in(41)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("mistake", "way"), WAYS, ids=[f"{mistake.name} {way}".strip() for mistake, way in WAYS])
def test_a_planted_mistake_of_walking_back_is_named(bundles, mistake, way, dtype):
    if (way, dtype) == ("by 65536", "float16"):
        pytest.skip("float16 has no number as large")
    named = 0
    for bundle in bundles:
        theirs = plant(bundle, mistake.ways[way], ARITHMETICS[dtype])
        diagnosis = nz.oracle.diagnose(bundle, theirs, dtype=dtype)
        if diagnosis.step is None:
            continue  # no gradient of theirs is beyond rounding: this model has no such layer, or float16 hides it
        assert diagnosis.step.startswith("gradients/")
        assert mistake.name in diagnosis.names, str(diagnosis)
        assert (mistake.name, way) in [(finding.name, finding.way) for finding in diagnosis.findings]
        named += 1
    assert named or dtype == "float16"


@pytest.mark.one_in(3)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_right_gradients_have_no_mistake(bundles, dtype):
    for bundle in bundles:
        diagnosis = nz.oracle.diagnose(bundle, plant(bundle, {}, ARITHMETICS[dtype]), dtype=dtype)
        assert diagnosis.step is None, str(diagnosis)


def test_the_first_wrong_gradient_is_named_where_no_mistake_of_the_catalogue_makes_it(bundles):
    bundle = bundles[0]
    theirs = plant(bundle, {}, ARITHMETICS["float32"])
    step = "gradients/encoder.layer.1.attention.self.context"
    theirs = theirs | {step: theirs[step] + np.float32(0.5)}
    diagnosis = nz.oracle.diagnose(bundle, theirs)
    assert diagnosis.step == step
    assert diagnosis.findings == ()
    assert "not in the catalogue" in str(diagnosis)
    assert "the right ones and 0.5" in str(diagnosis)


def test_gradients_of_weights_alone_are_enough_to_name_the_first_wrong_one(bundles):
    bundle = bundles[0]
    mistake = next(mistake for mistake in GRADIENT_MISTAKES if mistake.name == "gradient of tanh GELU")
    theirs = plant(bundle, mistake.ways[""], ARITHMETICS["float32"])
    of_weights = {name: array for name, array in theirs.items() if name.endswith((".weight", ".bias"))}
    diagnosis = nz.oracle.diagnose(bundle, of_weights)
    assert diagnosis.names[0] == "gradient of tanh GELU"
