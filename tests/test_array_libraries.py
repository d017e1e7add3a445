"""The same lines run on every array library: on array-api-strict's second device, a GPU's stand-in, torch and CuPy."""

import importlib.util

import numpy as np
import pytest
from cases import EVERY_HEAD, EVERY_LABELLED_HEAD, LONGEST, arrays_of, cases, each_array, weights_for
from hypothesis import given
from hypothesis import strategies as st
from pages import run_examples
from tiers import examples

import nezha_np as nz
from nezha_np.arrays import asarray_like, library, namespace, sum_rows, to_numpy
from nezha_np.oracle import standard

strict = pytest.importorskip("array_api_strict", reason="array-api-strict is the GPU's stand-in")


@pytest.fixture(autouse=True, scope="module")
def the_standard_of_2024_and_nothing_else():
    strict.set_array_api_strict_flags(api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False)
    yield
    strict.reset_array_api_strict_flags()


def to_strict(array):
    return strict.asarray(array, device=strict.Device("device1"))


def to_cupy(array):
    import cupy

    return cupy.asarray(array)


def on_gpu():
    try:
        import cupy

        return cupy.cuda.runtime.getDeviceCount() > 0
    except Exception as error:  # CuPy missing, or no driver, or no device: each is a reason of its own
        on_gpu.reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return False


on_gpu.reason = "CuPy finds no CUDA device"


def to_torch(array):
    import torch

    return torch.tensor(np.array(array))


LIBRARIES = [
    pytest.param(to_strict, id="strict-device1"),
    # By way of array_api_compat, as CuPy's arrays go.
    pytest.param(
        to_torch,
        id="torch",
        marks=pytest.mark.skipif(
            not all(map(importlib.util.find_spec, ("torch", "array_api_compat"))),
            reason="torch or array-api-compat is not installed",
        ),
    ),
    pytest.param(to_cupy, id="cupy", marks=[pytest.mark.gpu, pytest.mark.skipif(not on_gpu(), reason=on_gpu.reason)]),
]


def moved(move, weights, inputs):
    """Move the weights, and those inputs that must be where the weights are; masks, ids and labels stay NumPy."""
    names = ("inputs_embeds", "encoder_hidden_states", "past_key_values")
    there = each_array(move, {name: value for name, value in inputs.items() if name in names})
    return nz.Weights({name: move(array) for name, array in weights.items()}, weights.config), inputs | there


def forbid_reading_back(monkeypatch, array):
    """Make every hidden synchronisation raise: a truth value, a number or a NumPy array made of a device array."""

    def refuse(self, *arguments):
        raise AssertionError("a device array was read back inside a forward pass")

    for method in ("__bool__", "__float__", "__int__", "__index__", "__complex__", "__array__"):
        if hasattr(type(array), method):
            monkeypatch.setattr(type(array), method, refuse)


@pytest.mark.parametrize("move", LIBRARIES)
@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@examples(10, quick=2)
@given(data=st.data())
def test_every_head_computes_there_what_it_computes_in_numpy(move, family, head, data):
    case = data.draw(cases(head, family, reference=False))
    weights = weights_for(head, case)
    expected = arrays_of(getattr(nz, head)(weights, **case.inputs))
    there, inputs = moved(move, weights, case.inputs)
    with pytest.MonkeyPatch.context() as patch:
        if library(there.word_embeddings) == "array_api_strict":
            forbid_reading_back(patch, there.word_embeddings)
        found = arrays_of(getattr(nz, head)(there, **inputs))
    assert set(found) == set(expected)
    for name, array in found.items():
        assert array.device == there.word_embeddings.device, name
        np.testing.assert_allclose(to_numpy(array), expected[name], rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("move", LIBRARIES)
@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
@examples(10, quick=1)
@given(data=st.data())
def test_every_gradient_is_there_what_it_is_in_numpy(move, family, head, data):
    case = data.draw(cases(head, family, reference=False))
    case.inputs["config"] = case.config.replace(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    weights = weights_for(head, case)
    function = nz.value_and_grad(getattr(nz, head), dropout_seed=(5, 7))
    _, expected = function(weights, **case.inputs)
    there, inputs = moved(move, weights, case.inputs)
    with pytest.MonkeyPatch.context() as patch:
        if library(there.word_embeddings) == "array_api_strict":
            forbid_reading_back(patch, there.word_embeddings)
        _, found = function(there, **inputs)
    assert set(found) == set(expected)
    for name, array in found.items():
        assert array.device == there.word_embeddings.device, name
        np.testing.assert_allclose(to_numpy(array), expected[name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_reading_back_would_be_noticed():
    array = to_strict(np.ones(1))
    with pytest.MonkeyPatch.context() as patch:
        forbid_reading_back(patch, array)
        for read_back in (bool, float, int):
            with pytest.raises(AssertionError, match="read back"):
                read_back(array)


@pytest.mark.parametrize("move", LIBRARIES)
@pytest.mark.parametrize("family", ["nezha", "bert"])
@examples(15, quick=4)
@given(data=st.data())
def test_a_cache_works_there_too(move, family, data):
    case = data.draw(cases("causal_lm", family, labelled=False, from_ids=True))
    ids = case.inputs["input_ids"][:, : LONGEST - 1]
    next_ids = np.ones((ids.shape[0], 1), np.int64)
    weights = weights_for("causal_lm", case)
    expected = nz.causal_lm(weights, np.concatenate([ids, next_ids], axis=1)).logits[:, -1:]
    there, _ = moved(move, weights, {})
    whole = nz.causal_lm(there, ids)
    again = nz.causal_lm(there, next_ids, past_key_values=whole.past_key_values)
    assert again.logits.device == there.word_embeddings.device
    assert again.past_key_values[0][0].shape[2] == ids.shape[1] + 1
    np.testing.assert_allclose(to_numpy(again.logits), expected, atol=1e-10)


@pytest.mark.parametrize("move", LIBRARIES)
def test_the_shipped_model_computes_there_what_it_computes_in_numpy(move):
    weights = nz.load()
    ids = np.random.default_rng(0).integers(5, 7000, (2, 9))
    expected = nz.pretraining(weights, ids)
    there, _ = moved(move, weights, {})
    found = nz.pretraining(there, ids)
    assert np.abs(to_numpy(found.prediction_logits) - expected.prediction_logits).max() < 1e-4


@pytest.mark.parametrize("move", LIBRARIES)
def test_rows_that_share_an_index_are_added_up_there(move):
    rows, indices = np.arange(8.0).reshape(4, 2), np.array([2, 0, 2, 1])
    found = sum_rows(move(indices), move(rows), 4)
    assert to_numpy(found).tolist() == [[2.0, 3.0], [6.0, 7.0], [4.0, 6.0], [0.0, 0.0]]


@pytest.mark.parametrize("move", LIBRARIES)
def test_a_new_array_lands_beside_its_neighbour(move):
    neighbour = move(np.zeros(2, "float32"))
    found = asarray_like(neighbour, np.array([1.0, 2.0]))
    assert found.device == neighbour.device and found.dtype == neighbour.dtype
    assert namespace(found) is not np


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@examples(10, quick=2)
@given(data=st.data())
def test_float16_is_finite_and_near_float32_even_with_rows_that_see_no_key(family, head, data):
    case = data.draw(cases(head, family, hidden_from=8))
    case.inputs["config"] = case.config.replace(layer_norm_eps=1e-3)  # else 8 features amplify a rounding without limit
    ids = case.inputs.pop("inputs_embeds", None)
    if ids is not None:
        case.inputs["input_ids"] = np.ones(ids.shape[:-1], np.int64)
    for name in ("encoder_hidden_states", "encoder_attention_mask"):
        case.inputs.pop(name, None)
    if "past_key_values" in case.inputs:  # in float16, as a cache comes out of such a pass; of self-attention alone
        past = tuple(layer[:2] for layer in case.inputs["past_key_values"])
        case.inputs |= each_array(lambda array: array.astype("float16"), {"past_key_values": past})
    for name in ("attention_mask", "head_mask"):  # both passes get the same masks: 0.7099 and 0.7101 are one in float16
        if case.inputs.get(name) is not None:
            case.inputs[name] = np.asarray(case.inputs[name]).astype("float16").astype("float64")
    half = weights_for(head, case, "float16")
    exact = arrays_of(getattr(nz, head)(half.to(dtype="float64"), **case.inputs))
    for name, array in arrays_of(getattr(nz, head)(half, **case.inputs)).items():
        if name != "loss":
            assert array.dtype == np.float16, name
            assert np.isfinite(array).all(), name
            largest = max(1.0, np.abs(exact[name]).max())
            assert np.abs(array - exact[name]).max() <= 0.05 * largest, name


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
@examples(10, quick=2)
@given(data=st.data())
def test_autograd_through_our_definitions_equals_our_gradients(family, head, data):
    pytest.importorskip("torch", reason="autograd is PyTorch's")
    pytest.importorskip("array_api_compat", reason="torch's tensors speak the standard by way of it")
    case = data.draw(cases(head, family, reference=False))
    there, inputs = moved(to_torch, weights_for(head, case), case.inputs)
    _, gradients = nz.value_and_grad(getattr(nz, head))(there, **inputs)
    for array in there.values():
        array.requires_grad_(True)
    getattr(nz, head)(there, **inputs).loss.backward()
    found = {name: array.grad for name, array in there.items() if array.grad is not None}
    assert set(found) == set(gradients)  # a weight that the loss does not depend on is in neither
    for name, gradient in gradients.items():
        np.testing.assert_allclose(to_numpy(found[name]), to_numpy(gradient), atol=1e-9, err_msg=name)


def test_the_page_about_other_libraries_does_with_torch_what_it_says():
    pytest.importorskip("torch", reason="the page's section is about PyTorch")
    pytest.importorskip("array_api_compat", reason="torch's tensors speak the standard by way of it")
    found = run_examples("other_libraries.md", "PyTorch")
    arrays, ids, labels = nz.load(), [[2, 318, 4, 3]], [[-100, -100, 1161, -100]]
    out, gradients = nz.value_and_grad(nz.masked_lm)(arrays, ids, labels=labels)
    assert np.abs(to_numpy(found["logits"]) - out.logits).max() < 1e-4
    expected = gradients["encoder.layer.0.attention.self.query.weight"]
    assert np.abs(to_numpy(found["gradient"]) - expected).max() < 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not on_gpu(), reason=on_gpu.reason)
def test_the_page_about_other_libraries_does_with_cupy_what_it_says():
    found = run_examples("other_libraries.md", "CuPy")
    assert np.abs(found["on_the_host"] - nz.masked_lm(nz.load(), [[2, 318, 4, 3]]).logits).max() < 1e-4


@pytest.mark.parametrize("move", LIBRARIES)
def test_interventions_and_experiments_find_there_what_they_find_in_numpy(move):
    here = standard.lively_weights(standard.NEZHA, "masked_lm")
    there, _ = moved(move, here, {})
    clean, corrupted = {"input_ids": [[2, 5, 4, 3]]}, {"input_ids": [[2, 9, 4, 3]]}
    labels, baseline = [[-100, -100, 7, -100]], [[2, 4, 4, 3]]

    def experiments(weights):
        def answer(out):
            return out.logits[:, 2, 7]

        run = nz.masked_lm, weights
        yield from nz.inside.patch_activations(*run, clean, corrupted, answer).values()
        yield nz.inside.patch_path(*run, clean, corrupted, answer, sender=(0, 1), receiver="encoder")
        yield nz.inside.ablate_heads(*run, clean, answer, means_of=corrupted)
        yield nz.inside.head_importance(*run, [{**clean, "labels": labels}])
        yield nz.inside.integrated_gradients(*run, **clean, baseline_ids=baseline, labels=labels, points=3)
        out = nz.forward(weights, **clean, output_attentions=True, output_hidden_states=True)
        yield nz.inside.attention_rollout(out.attentions)
        yield to_numpy(next(nz.inside.logit_lens(weights, out.hidden_states)))

    for found, expected in zip(experiments(there), experiments(here), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
