"""Heads that are removed, and vocabularies that grow or shrink: as the reference does it, and kept by files."""

import json

import numpy as np
import pytest
from cases import FAMILIES, Case, arrays_of, cases, heads_to_prune, weights_for
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples

import nezha_np as nz


def small(family, **changes):
    return nz.families.family.FAMILIES[family].config(
        vocab_size=12, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=8, **changes
    )


@pytest.mark.parametrize("family", ["nezha", "bert"])
@examples(30)
@given(data=st.data())
def test_pruned_heads_are_those_of_the_reference_in_two_steps_too(family, data):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    reference = pytest.importorskip("reference", reason="the reference is transformers 4.37.2")
    case = data.draw(cases("pretraining", family, decoder=False, pruned=False))
    case.inputs.pop("head_mask", None)  # of a layer that has lost heads the reference takes none
    # The reference copies what it keeps into new layers of float32: the numbers are drawn in it, so none is rounded.
    model = reference.reference_model("pretraining", case.config, case.seed, torch.float32).double()
    reference.take_our_table(model, case.config)
    weights = reference.our_weights(model, case.config)
    for _ in range(2):
        heads = data.draw(heads_to_prune(case.config.num_attention_heads, case.config.num_hidden_layers))
        both = {
            layer: {*heads.get(layer, []), *weights.config.pruned_heads.get(layer, ())}
            for layer in range(case.config.num_hidden_layers)
        }
        if any(len(gone) == case.config.num_attention_heads for gone in both.values()):
            continue
        weights = weights.prune_heads(heads)
        model.prune_heads(heads)
        model.double()
    ours = nz.pretraining(weights, **case.inputs)
    with torch.no_grad():
        theirs = reference.run_reference(model, "pretraining", case.inputs)
    np.testing.assert_allclose(ours.prediction_logits, theirs.prediction_logits.numpy(), atol=1e-10)
    expected = {layer: sorted(gone) for layer, gone in model.config.pruned_heads.items() if gone}
    assert {layer: list(gone) for layer, gone in weights.config.pruned_heads.items() if gone} == expected


@pytest.mark.parametrize(
    ("written", "pruned"),
    [({"-1": [0]}, {1: (0,)}), ({"-2": [0, -1], "1": [1]}, {0: (0, 2), 1: (1,)}), ({"-1": [0], "1": [1]}, {1: (0, 1)})],
)
def test_negative_numbers_of_layers_and_heads_count_from_the_end_as_in_the_reference(tmp_path, written, pruned):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    reference = pytest.importorskip("reference", reason="the reference is transformers 4.37.2")
    config = small("bert")
    model = reference.reference_model("forward", config, 0)
    heads = {int(layer): heads for layer, heads in written.items()}
    model.prune_heads(heads)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["pruned_heads"] == written
    weights = nz.load(tmp_path, dtype="float64")
    assert weights.config.pruned_heads == pruned
    ids = [[2, 3, 4]]
    with torch.no_grad():
        theirs = model.double()(torch.tensor(ids)).last_hidden_state
    np.testing.assert_allclose(nz.forward(weights, ids).last_hidden_state, theirs.numpy(), atol=1e-10)


@pytest.mark.parametrize("family", ["nezha", "bert"])
@examples(20)
@given(data=st.data())
def test_a_pruned_head_is_one_that_is_switched_off(family, data):
    case = data.draw(cases("forward", family, decoder=False, pruned=False))
    config, weights = case.config, weights_for("forward", case)
    heads = data.draw(heads_to_prune(config.num_attention_heads, config.num_hidden_layers))
    mask = np.ones((config.num_hidden_layers, config.num_attention_heads))
    for layer, gone in heads.items():
        mask[layer, gone] = 0.0
    inputs = {name: value for name, value in case.inputs.items() if name not in ("head_mask", "output_attentions")}
    switched_off = arrays_of(nz.forward(weights, **inputs, head_mask=mask))
    pruned = arrays_of(nz.forward(weights.prune_heads(heads), **inputs))
    for name, array in pruned.items():
        np.testing.assert_allclose(array, switched_off[name], atol=1e-10, err_msg=name)


@pytest.mark.parametrize("family", ["nezha", "bert"])
def test_a_second_pruning_counts_the_heads_as_they_were_numbered_first(family):
    config = small(family).replace(hidden_size=24, num_attention_heads=6)
    weights = nz.init(config, dtype="float64")
    twice = weights.prune_heads({0: [1, 3]}).prune_heads({0: [4, 1], 1: [5]})
    assert dict(twice.config.pruned_heads) == {0: (1, 3, 4), 1: (5,)}
    for layer, left in ((0, [0, 2, 5]), (1, [0, 1, 2, 3, 4])):
        rows = np.concatenate([np.arange(4 * head, 4 * head + 4) for head in left])
        at = f"encoder.layer.{layer}.attention"
        for part in ("query", "key", "value"):
            for kind in ("weight", "bias"):
                name = f"{at}.self.{part}.{kind}"
                np.testing.assert_array_equal(twice[name], weights[name][rows], err_msg=name)
        name = f"{at}.output.dense.weight"
        np.testing.assert_array_equal(twice[name], weights[name][:, rows])
    at_once = weights.prune_heads({0: [1, 3, 4], 1: [5]})
    assert twice.config == at_once.config and all(np.array_equal(twice[name], at_once[name]) for name in at_once)


@pytest.mark.parametrize("family", ["nezha", "bert"])
def test_pruned_weights_save_and_load_again_here_and_in_the_reference(family, tmp_path):
    weights = nz.init(small(family), dtype="float64").prune_heads({0: [2, 0], 1: []}).prune_heads({1: [1], 0: [2]})
    assert weights.config.pruned_heads[0] == (0, 2) and weights.config.pruned_heads[1] == (1,)
    weights.save(tmp_path)
    again = nz.load(tmp_path, dtype="float64")
    assert again.config.pruned_heads == weights.config.pruned_heads
    expected = nz.forward(weights, [[2, 3]]).last_hidden_state
    assert np.array_equal(nz.forward(again, [[2, 3]]).last_hidden_state, expected)
    transformers = pytest.importorskip("transformers", reason="the reference is transformers 4.37.2")
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    kind = {"nezha": transformers.NezhaModel, "bert": transformers.BertModel}[family]
    model = kind.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        theirs = model(torch.tensor([[2, 3]])).last_hidden_state.numpy()
    np.testing.assert_allclose(theirs, expected, atol=1e-5)


@examples(10)
@given(data=st.data())
def test_pruned_weights_of_a_decoder_with_cross_attention_lose_heads_of_self_attention_alone(data):
    case = data.draw(cases("forward", "bert", decoder=True, cross=True, from_ids=True, pruned=False))
    heads = data.draw(heads_to_prune(case.config.num_attention_heads, case.config.num_hidden_layers))
    case.inputs.pop("head_mask", None)
    weights = weights_for("forward", case).prune_heads(heads)
    out = nz.forward(weights, **{**case.inputs, "output_attentions": True})
    for layer, (own, cross) in enumerate(zip(out.attentions, out.cross_attentions, strict=True)):
        assert own.shape[1] == case.config.num_attention_heads - len(set(heads.get(layer, [])))
        assert cross.shape[1] == case.config.num_attention_heads


@pytest.mark.one_in(5)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [9, 12, 17])
def test_a_resized_vocabulary_keeps_the_rows_that_the_reference_keeps(family, tied, size):
    pytest.importorskip("torch", reason="the reference is PyTorch's")
    reference = pytest.importorskip("reference", reason="the reference is transformers 4.37.2")
    config = small(family, tie_word_embeddings=tied)
    model = reference.reference_model("masked_lm", config, 0)
    weights = reference.our_weights(model, config).resize_token_embeddings(size)
    model.resize_token_embeddings(size)
    theirs = {reference.our_name(name): value.detach().numpy() for name, value in model.named_parameters()}
    decoder, bias = {
        "convbert": ("generator_lm_head.weight", "generator_lm_head.bias"),
    }.get(family, ("cls.predictions.decoder.weight", "cls.predictions.bias"))
    kept = min(size, 12)
    for name in ("embeddings.word_embeddings.weight", decoder, bias):
        assert weights[name].shape[0] == size
        if name in theirs:
            assert np.array_equal(weights[name][:kept], theirs[name][:kept]), name
    assert not weights[bias][kept:].any()
    assert (weights[decoder] is weights.word_embeddings) == tied
    ids = [[0, 3, size - 1]]
    assert nz.masked_lm(weights, ids).logits.shape == (1, 3, size)
    before = nz.masked_lm(reference.our_weights(reference.reference_model("masked_lm", config, 0), config), [[3, 4]])
    after = nz.masked_lm(weights, [[3, 4]])
    np.testing.assert_allclose(after.logits[..., :kept], before.logits[..., :kept], atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_new_rows_are_those_that_init_draws_and_all_is_saved_and_loaded_again(family, tmp_path):
    config = small(family, tie_word_embeddings=False)
    weights = nz.init(config, seed=1, dtype="float64")
    larger = weights.resize_token_embeddings(20, seed=7)
    drawn = nz.init(config.replace(vocab_size=20), seed=7, dtype="float64")
    for name, array in larger.items():
        if array.shape != weights[name].shape:
            assert np.array_equal(array[:12], weights[name])
            assert np.array_equal(array[12:], drawn[name][12:])
        else:
            assert array is weights[name]
    larger.save(tmp_path)
    again = nz.load(tmp_path, dtype="float64")
    assert again.config.vocab_size == 20 and set(again) == set(larger)
    assert all(np.array_equal(again[name], array) for name, array in larger.items())
    back = larger.resize_token_embeddings(12)
    assert all(np.array_equal(back[name], array) for name, array in weights.items())


def test_surgery_works_in_every_array_library():
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is the GPU's stand-in")
    weights = nz.init(small("bert"), dtype="float64")
    device = strict.Device("device1")
    there = nz.Weights({name: strict.asarray(array, device=device) for name, array in weights.items()}, weights.config)
    for change in (
        lambda one: one.prune_heads({1: [0]}),
        lambda one: one.resize_token_embeddings(14),
        lambda one: one.resize_token_embeddings(8),
    ):
        expected = change(weights)
        for name, array in change(there).items():
            assert array.device == device
            assert np.array_equal(nz.arrays.to_numpy(array), expected[name]), name


NEZHA = nz.init(small("nezha"))

WRONG = [
    (lambda: NEZHA.prune_heads({2: [0]}), ValueError, "heads: expected some but not all of the 3 heads"),
    (lambda: NEZHA.prune_heads({0: [3]}), ValueError, "heads: expected some but not all of the 3 heads"),
    (lambda: NEZHA.prune_heads({0: [0, 1, 2]}), ValueError, "heads: expected some but not all"),
    (lambda: NEZHA.prune_heads({0: [0]}).prune_heads({0: [1, 2]}), ValueError, "heads: expected some but not"),
    (lambda: NEZHA.prune_heads({0: [0.5]}), TypeError, "heads: expected an integer, got 0.5"),
    (lambda: NEZHA.prune_heads([0]), TypeError, "heads: expected a mapping, got list"),
    (lambda: NEZHA.prune_heads({0: 1}), TypeError, "heads: expected a list of heads for each layer, got 0: 1"),
    (lambda: nz.init(small("convbert")).prune_heads({0: [0]}), ValueError, "because ConvBERT's heads and convolutions"),
    (lambda: NEZHA.resize_token_embeddings(0), ValueError, "n: expected a number from 1 on, got 0"),
    (lambda: NEZHA.resize_token_embeddings(5.0), TypeError, "n: expected an integer, got 5.0"),
    (lambda: NEZHA.resize_token_embeddings(5, seed=None), TypeError, "seed: expected an integer, got None"),
    (lambda: nz.init(small("convbert")).resize_token_embeddings(1), ValueError, "pad_token_id: expected an id from 0"),
]


@pytest.mark.parametrize(("call", "kind", "message"), WRONG)
def test_a_wrong_surgery_is_refused_with_what_was_expected_and_what_came(call, kind, message):
    with pytest.raises(kind) as error:
        call()
    assert message in str(error.value)


def test_a_case_is_not_changed_by_surgery():
    case = Case(small("nezha"), 0, {})
    weights = weights_for("forward", case)
    before = {name: array.copy() for name, array in weights.items()}
    weights.prune_heads({0: [1]})
    weights.resize_token_embeddings(20)
    assert all(np.array_equal(array, before[name]) for name, array in weights.items())
    assert weights.config == case.config
