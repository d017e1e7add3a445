"""Every mistake of walking back is planted, the forward pass being right; the doctor names the first wrong gradient."""

import functools

import numpy as np
import pytest
from test_doctor import planted_ways
from test_kernels import threads_of_blas

import nezha_np as nz
from nezha_np.layers.linear import linear
from nezha_np.oracle import search
from nezha_np.oracle.mistakes import GRADIENT_MISTAKES
from nezha_np.oracle.mistakes.gradient_uses import OF_USES, Use, changes_of
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
CHOICES = {name: [rows] for name, rows in INPUTS.items()}
WORDS = [[-100, 4, -100, 6, -100, -100], [-100, -100, 8, -100, 1, -100]]
ENOUGH = 2  # bundles in which a mistake is planted
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
    learned = bert.replace(position_embedding_type="relative_key_query", num_attention_heads=4)
    convbert = nz.ConvBertConfig(
        **{**SIZES, "num_attention_heads": 4}, embedding_size=8, num_groups=2, conv_kernel_size=3, head_ratio=1
    )
    regression, several, decoder = (
        nezha.replace(problem_type="regression"),
        nezha.replace(problem_type="multi_label_classification"),
        nezha.replace(is_decoder=True),
    )
    numbers = [[0.5, 1.0, -1.0], [0.0, 0.25, 2.0]]
    return {
        what: nz.oracle.record(lively(config, head), head=head, tolerances="quick", **{**INPUTS, **own})
        for what, config, head, own in (
            ("NEZHA, masked_lm", nezha, "masked_lm", {"labels": WORDS}),
            ("BERT, pretraining", bert, "pretraining", {"labels": WORDS, "next_sentence_label": [0, 1]}),
            (
                "NEZHA, regression",
                regression,
                "sequence_classification",
                {"labels": numbers},
            ),
            (
                "NEZHA, several labels",
                several,
                "sequence_classification",
                {"labels": [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]},
            ),
            (
                "NEZHA, question_answering",
                nezha,
                "question_answering",
                {"start_positions": [1, 2], "end_positions": [3, 3]},
            ),
            ("NEZHA, causal_lm", decoder, "causal_lm", {"labels": WORDS, "head_mask": [0.5, 1.0], **cache(decoder)}),
            ("NEZHA, multiple_choice", nezha, "multiple_choice", {"labels": [0], **CHOICES}),
            ("BERT, learned distances", learned, "masked_lm", {"labels": WORDS}),
            ("ConvBERT, masked_lm", convbert, "masked_lm", {"labels": WORDS}),
        )
    }


def cache(config):
    """Keys and values of two tokens that came before."""
    shape = (2, config.num_attention_heads, 2, config.hidden_size // config.num_attention_heads)
    draw = iter(range(2 * config.num_hidden_layers))
    one = lambda: uniform(int(np.prod(shape)), next(draw), "cache").reshape(shape) - 0.5  # noqa: E731
    layers = tuple((one(), one()) for _ in range(config.num_hidden_layers))
    return {"past_key_values": layers, "attention_mask": [[1] * 8, [1, 1, 1, 0, 1, 1, 1, 1]]}


@pytest.fixture(scope="module")
def bundles():
    return list(make_bundles().values())


@functools.cache
def right_gradients(bundle, arithmetic):
    """The gradients of a port that has no mistake."""
    return plant(bundle, {}, arithmetic)


def is_made_in(bundle, theirs, arithmetic):
    """Whether a mistake changes any gradient of this model: it may have no such layer."""
    right = right_gradients(bundle, arithmetic)
    return any((array != right[name]).any() for name, array in theirs.items())


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
    if (way, dtype) == ("GELU without x φ(x)", "float16"):
        pytest.skip("in float16 half of tanh's sum is Φ(x)")
    named = 0
    for bundle in bundles:
        theirs = plant(bundle, mistake.ways[way], ARITHMETICS[dtype])
        if named == ENOUGH or not is_made_in(bundle, theirs, ARITHMETICS[dtype]):
            continue
        diagnosis = nz.oracle.diagnose(bundle, theirs, dtype=dtype)
        if diagnosis.step is None:
            continue  # no gradient of theirs is beyond rounding: this model has no such layer, or float16 hides it
        assert diagnosis.step.startswith("gradients/")
        assert mistake.name in diagnosis.names, str(diagnosis)
        found = [finding for finding in diagnosis.findings if finding.name == mistake.name]
        assert any(way in (one.way, *one.or_else) for one in found), str(diagnosis)
        named += 1
    assert named or dtype == "float16"


def test_trials_that_run_side_by_side_find_what_they_find_one_by_one(bundles, monkeypatch):
    mistake = next(mistake for mistake in GRADIENT_MISTAKES if mistake.name == "gradient of tanh GELU")
    theirs = of_weights(plant(bundles[0], next(iter(mistake.ways.values())), ARITHMETICS["float32"]))
    one_by_one = nz.oracle.diagnose(bundles[0], theirs)
    monkeypatch.setattr(search, "WIDE", 1)
    with threads_of_blas(3):
        assert str(nz.oracle.diagnose(bundles[0], theirs)) == str(one_by_one)
    assert mistake.name in one_by_one.names


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
    diagnosis = nz.oracle.diagnose(bundle, of_weights(theirs))
    assert diagnosis.names[0] == "gradient of tanh GELU"


def of_weights(theirs):
    return {name: array for name, array in theirs.items() if name.endswith((".weight", ".bias"))}


@pytest.mark.parametrize("given", [dict, of_weights], ids=["all gradients", "those of weights"])
@pytest.mark.parametrize(("factor", "what"), [(0.0, "nothing of"), (2.0, "twice")])
def test_one_use_of_an_array_that_is_left_out_or_counted_twice_is_named(bundles, given, factor, what):
    value = Use("encoder.layer.*.attention.self.value", linear, 0, factor)
    theirs = given(plant(bundles[0], changes_of([value]), ARITHMETICS["float32"]))
    diagnosis = nz.oracle.diagnose(bundles[0], theirs)
    assert diagnosis.names == (OF_USES.name,), str(diagnosis)
    assert f"{what} what comes back through encoder.layer.*.attention.self.value" in str(diagnosis)


def changed(theirs, function, *, which=lambda name: True):
    """Their gradients of weights, some of them changed by a function of name and array."""
    return {name: function(name, array) if which(name) else array for name, array in of_weights(theirs).items()}


def noisy(name, array):
    draw = uniform(array.size, 3, name).reshape(array.shape) - 0.5
    return (array + np.abs(array).max() * draw).astype(np.float32)


def test_a_name_that_leaves_most_of_what_is_wrong_unexplained_is_not_said(bundles):
    """The first wrong gradient is a multiple of the right one, and all others are something else."""
    theirs = plant(bundles[0], {}, ARITHMETICS["float32"])
    first = nz.oracle.diagnose(bundles[0], changed(theirs, noisy)).step
    theirs = changed(theirs, lambda name, array: 0.5 * array if name == first else noisy(name, array))
    diagnosis = nz.oracle.diagnose(bundles[0], theirs)
    assert diagnosis.step == first
    assert diagnosis.findings == (), str(diagnosis)


@pytest.mark.parametrize(
    ("function", "which", "name"),
    [
        (lambda name, array: 0.0 * array, lambda name: "layer.1." not in name and "cls." not in name, "stopped"),
        (lambda name, array: 0.25 * array, lambda name: True, "multiplied by a number"),
        (lambda name, array: np.sign(array), lambda name: True, "after a function of its own numbers"),
    ],
    ids=["detached", "a quarter", "signs"],
)
def test_what_was_made_of_many_gradients_is_named(bundles, function, which, name):
    theirs = changed(plant(bundles[0], {}, ARITHMETICS["float32"]), function, which=which)
    assert nz.oracle.diagnose(bundles[0], theirs).names == (f"gradient {name}",)


def test_weight_decay_in_the_gradients_is_named_with_its_number(bundles):
    weights = bundles[0].weights()
    theirs = changed(
        plant(bundles[0], {}, ARITHMETICS["float32"]),
        lambda name, array: (array + 0.03 * weights[name.removeprefix("gradients/")]).astype(np.float32),
    )
    assert "gradient with weight decay, 0.03 times the weight" in str(nz.oracle.diagnose(bundles[0], theirs))


def test_a_mistake_that_is_made_at_nearly_all_its_steps_says_where_it_is_not(bundles):
    mistake = next(mistake for mistake in GRADIENT_MISTAKES if mistake.name == "gradient averaged over tokens")
    theirs = plant(bundles[0], mistake.ways["bias"], ARITHMETICS["float32"])
    name = "gradients/cls.predictions.bias"
    theirs[name] = plant(bundles[0], {}, ARITHMETICS["float32"])[name]
    assert "bias, but not at cls.predictions.decoder" in str(nz.oracle.diagnose(bundles[0], theirs))
