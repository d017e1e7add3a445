"""``nz.intervene``: named intermediates are replaced, under trace, under kernels and under value_and_grad."""

from __future__ import annotations

import numpy as np
import pytest
from cases import EVERY_HEAD
from hypothesis import given
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.layers.addition import add
from nezha_np.layers.masks import as_constant
from nezha_np.mechanism import gradient_of, primitive
from nezha_np.mechanism.interventions import may_fit_below
from nezha_np.mechanism.patterns import matches
from nezha_np.oracle import standard

LABELS = [[-100, 7, 9, -100], [4, -100, -100, -100]]
IDS = [[2, 5, 7, 3], [2, 6, 3, 0]]


@primitive
def halve(x):
    return 0.5 * x


@gradient_of(halve)
def halve_gradient(dy, y, x):
    return 0.5 * dy


@pytest.fixture(scope="module")
def weights():
    return standard.lively_weights(standard.NEZHA, "masked_lm")


def traced(head, weights, inputs):
    with nz.trace() as t:
        getattr(nz, head)(weights, **inputs)
    return t


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
def test_each_array_of_a_pass_is_replaced_by_what_a_function_makes_of_it(family, head):
    config = {"nezha": standard.NEZHA, "bert": standard.BERT, "convbert": standard.CONVBERT}[family]
    config = config.replace(is_decoder=True) if head == "causal_lm" else config
    weights = standard.lively_weights(config, head)
    inputs = standard.choices(config) if head == "multiple_choice" else standard.pairs(config)
    plain = traced(head, weights, inputs)
    floats = [name for name in plain if plain[name].dtype.kind == "f" and name != "attention_mask"]
    for name in floats:
        with nz.intervene({name: lambda x: 0.5 * x}):
            changed = traced(head, weights, inputs)
        np.testing.assert_array_equal(changed[name], 0.5 * plain[name])
        before = list(plain)[: list(plain).index(name)]
        same = [earlier for earlier in before if plain[earlier] is not plain[name]]
        assert all(np.array_equal(changed[earlier], plain[earlier]) for earlier in same), name


@pytest.mark.parametrize("name", ["embeddings", "encoder.layer.0.attention.self.probs", "encoder.layer.1", "pooler"])
def test_kernels_make_the_numbers_of_definitions_around_what_is_replaced(name):
    weights = standard.lively_weights(standard.NEZHA, "forward")
    inputs = standard.pairs(standard.NEZHA)
    with nz.intervene({name: lambda x: 0.5 * x}):
        fast = nz.forward(weights, **inputs)
    with nz.definitions(), nz.intervene({name: lambda x: 0.5 * x}):
        slow = nz.forward(weights, **inputs)
    assert not np.allclose(fast.pooler_output, nz.forward(weights, **inputs).pooler_output, atol=1e-3)
    np.testing.assert_allclose(fast.pooler_output, slow.pooler_output, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast.last_hidden_state, slow.last_hidden_state, rtol=0, atol=1e-12)


def test_an_array_stands_in_the_place_of_another_one_repeated_along_its_axes(weights):
    vector = np.arange(standard.NEZHA.hidden_size, dtype=np.float32)
    with nz.intervene({"encoder.layer.0": vector, "encoder.layer.1.attention.output.dense": 0.0}), nz.trace() as t:
        nz.forward(weights, IDS)
    assert (t["encoder.layer.0"] == vector).all() and t["encoder.layer.0"].dtype == np.float64
    assert t["encoder.layer.0"].shape == t["encoder.layer.1"].shape
    np.testing.assert_array_equal(t["encoder.layer.1.attention.output.residual"], t["encoder.layer.0"])


def test_an_array_with_several_names_is_changed_once_by_each_pattern(weights):
    plain = traced("forward", weights, {"input_ids": IDS})
    with nz.intervene({"encoder.layer.0.output**": lambda x: x + 1.0, "encoder.layer.0": lambda x: 2.0 * x}):
        changed = traced("forward", weights, {"input_ids": IDS})
    assert plain["encoder.layer.0.output.LayerNorm"] is plain["encoder.layer.0"]
    np.testing.assert_array_equal(changed["encoder.layer.0"], 2.0 * changed["encoder.layer.0.output"])
    dense = plain["encoder.layer.0.output.dense"] + 1.0
    np.testing.assert_array_equal(changed["encoder.layer.0.output.dense"], dense)
    residual = dense + changed["encoder.layer.0.attention.output"] + 1.0
    np.testing.assert_array_equal(changed["encoder.layer.0.output.residual"], residual)


def test_blocks_inside_each_other_act_one_after_the_other(weights):
    with nz.intervene({"encoder": 3.0}), nz.intervene({"encoder": lambda x: x + 1.0}):
        assert (nz.forward(weights, IDS).last_hidden_state == 4.0).all()
    with nz.intervene({"encoder": 3.0}):
        assert (nz.forward(weights, IDS).last_hidden_state == 3.0).all()
    assert not (nz.forward(weights, IDS).last_hidden_state == 3.0).any()


def test_it_acts_in_every_pass_of_a_block_and_of_another_model(weights):
    other = standard.lively_weights(standard.BERT, "masked_lm")
    with nz.intervene({"**.word_embeddings": 0.0}):
        first, second = nz.masked_lm(weights, [[5, 6]]), nz.masked_lm(weights, [[7, 8]])
        third, fourth = nz.masked_lm(other, [[5, 6]]), nz.masked_lm(other, [[7, 8]])
    np.testing.assert_array_equal(first.logits, second.logits)
    np.testing.assert_array_equal(third.logits, fourth.logits)


@pytest.mark.parametrize("checkpoint_layers", [False, True])
@pytest.mark.parametrize(
    "name", ["embeddings", "encoder.layer.0.attention.self.v", "encoder.layer.1", "cls.predictions"]
)
def test_the_gradient_passes_through_what_layers_of_a_function_do(weights, name, checkpoint_layers):
    def half_and_one(x):
        return add(halve(x), as_constant(np.ones_like(x), name="ones"))

    def loss_with(parameter, step):
        moved = nz.Weights({**weights, parameter: weights[parameter] + step}, weights.config)
        return float(nz.masked_lm(moved, IDS, labels=LABELS).loss)

    with nz.intervene({name: half_and_one}):
        step = nz.value_and_grad(nz.masked_lm, checkpoint_layers=checkpoint_layers)
        _, gradients = step(weights, IDS, labels=LABELS)
        for parameter in ("embeddings.LayerNorm.bias", "encoder.layer.0.attention.self.value.bias"):
            nudge = 1e-6 * np.eye(weights[parameter].size)[0]
            measured = (loss_with(parameter, nudge) - loss_with(parameter, -nudge)) / 2e-6
            assert gradients[parameter][0] == pytest.approx(measured, rel=1e-5, abs=1e-9)


def test_the_gradient_stops_at_an_array_and_where_it_is_told_to(weights):
    step = nz.value_and_grad(nz.masked_lm)
    plain, gradients = step(weights, IDS, labels=LABELS)
    value = traced("forward", weights, {"input_ids": IDS})["encoder.layer.0"]
    for change, options in ((value, {}), (lambda x: x, {"stop_gradient": True})):
        with nz.intervene({"encoder.layer.0": change}, **options):
            out, stopped = step(weights, IDS, labels=LABELS)
        np.testing.assert_allclose(out.loss, plain.loss, rtol=1e-12)
        assert not [name for name in stopped if name.startswith("encoder.layer.0.")]
        assert "embeddings.word_embeddings.weight" in stopped  # the decoder is tied to it
        for name in (name for name in gradients if name.startswith("encoder.layer.1.")):
            np.testing.assert_allclose(stopped[name], gradients[name], rtol=0, atol=1e-12)


def test_gradients_of_intermediates_are_those_of_what_replaces_them(weights):
    with nz.intervene({"encoder.layer.1": halve}):
        _, gradients = nz.value_and_grad(nz.masked_lm, intermediates=True)(weights, IDS, labels=LABELS)
    own = gradients["encoder.layer.1.intervention.halve"]
    assert own is gradients["encoder.layer.1"]
    before = gradients["encoder.layer.1.output.LayerNorm"]
    np.testing.assert_array_equal(before, 0.5 * own)


def test_a_function_whose_gradient_would_be_lost_is_refused(weights):
    refused = pytest.raises(ValueError, match=r"by layers, got an array at encoder\.layer\.0 that none made")
    with refused, nz.intervene({"encoder.layer.0": lambda x: 2.0 * x}):
        nz.value_and_grad(nz.masked_lm)(weights, IDS, labels=LABELS)


def test_a_pattern_that_fits_no_name_is_named_at_the_end_of_the_block(weights):
    refused = pytest.raises(ValueError, match=r"got encoder\.layer\.7, which fit none")
    with refused, nz.intervene({"encoder.layer.7": 0.0, "encoder.layer.1": 0.0}):
        nz.forward(weights, IDS)
    with pytest.raises(KeyError, match="mine"), nz.intervene({"encoder.layer.7": 0.0}):  # and hides no other error
        raise KeyError("mine")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (np.ones(3), ValueError, r"shape \(2, 4, 16\) for 'embeddings' at embeddings, got \(3,\)"),
        (lambda x: x[0], ValueError, r"shape \(2, 4, 16\) for 'embeddings' at embeddings, got \(4, 16\)"),
        (lambda x: None, TypeError, "return an array like the one that it got, ndarray, at embeddings, got NoneType"),
    ],
)
def test_what_does_not_fit_is_named(weights, change, kind, message):
    with pytest.raises(kind, match=message), nz.intervene({"embeddings": change}):
        nz.forward(weights, IDS)


def test_arguments_of_another_type_are_named():
    with pytest.raises(TypeError, match=r"changes: expected a mapping .* got \['pooler'\]"), nz.intervene(["pooler"]):
        pass
    with (
        pytest.raises(TypeError, match="stop_gradient: expected True or False, got 1"),
        nz.intervene({}, stop_gradient=1),
    ):
        pass


def test_a_bundle_is_never_recorded_of_a_pass_with_interventions():
    with (
        pytest.raises(ValueError, match=r"record: expected no nz\.intervene around it"),
        nz.intervene({"encoder": 0.0}),
    ):
        nz.oracle.record(standard.NEZHA, IDS)


names = st.lists(st.sampled_from(["encoder", "layer", "0", "10", "attention", "self", "probs"]), min_size=1).map(
    ".".join
)


@given(names, st.data())
def test_a_composite_in_which_something_is_replaced_never_runs_as_a_whole(name, data):
    parts = [data.draw(st.sampled_from([part, "*", "**", part[:1] + "*"])) for part in name.split(".")]
    pattern = ".".join(parts)
    if matches(name, (pattern,)):
        for end in range(1, name.count(".") + 2):
            assert may_fit_below(pattern, ".".join(name.split(".")[:end]) + ".")
    assert not may_fit_below(f"pooler.{pattern}", f"{name}.")
