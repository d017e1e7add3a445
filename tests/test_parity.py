"""The whole of it on a page: every head, with every option, is what the PyTorch reference computes."""

import dataclasses

import numpy as np
import pytest
from cases import EVERY_HEAD, EVERY_LABELLED_HEAD, cases, each_array
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples

import nezha_np as nz

torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
reference = pytest.importorskip("reference", reason="the reference is transformers 4.37.2")


def assert_same(ours, theirs, tolerance):
    """Compare every field, within a tolerance relative to the largest number (at least 1)."""
    for name, expected in theirs.items():
        if name == "past_key_values":
            expected = tuple(array for layer in expected for array in layer)
        found = getattr(ours, name, None)
        if name == "past_key_values":
            if found is None:  # the reference's masked LM returns no cache
                continue
            found = tuple(array for layer in found for array in layer)
        for one, other in zip(as_tuple(found), as_tuple(expected), strict=True):
            assert_close(one, other.detach().numpy(), tolerance, name)


def assert_close(one, other, tolerance, name):
    assert one.shape == other.shape, name
    largest = max(1.0, np.abs(other[np.isfinite(other)]).max(initial=0.0))
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * largest, equal_nan=True, err_msg=name)


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@examples(60, quick=6)
@given(data=st.data())
def test_every_head_equals_the_reference_in_float64(family, head, data):
    case = data.draw(cases(head, family))
    model = reference.reference_model(head, case.config, case.seed, pooler=case.pooler or family == "convbert")
    weights = reference.our_weights(model, case.config)
    with torch.no_grad():
        theirs = reference.run_reference(model, head, case.inputs)
    ours = getattr(nz, head)(weights, **case.inputs)
    assert_same(ours, theirs, 1e-10)
    order = [name for name in theirs if name in vars(ours)]
    if (family, head) != ("nezha", "causal_lm"):  # whose loss is put at the end by `run_reference`
        assert [name for name in vars(ours) if name in order] == order
    # The reference has no class of its own for NEZHA's causal head, and BERT's returns no cache beside a loss.
    more = {"past_key_values", "cross_attentions"} if head == "causal_lm" else set()
    for field in dataclasses.fields(ours):
        assert field.name in {*theirs, *more} or getattr(ours, field.name) is None, field.name


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@examples(60, quick=4)
@given(data=st.data())
def test_every_head_equals_the_reference_in_float32(family, head, data):
    case = data.draw(cases(head, family, hidden_from=8))
    model = reference.reference_model(head, case.config, case.seed, torch.float32)
    weights = reference.our_weights(model, case.config)
    floats = each_array(lambda array: array.astype("f4") if array.dtype == np.float64 else array, case.inputs)
    with torch.no_grad():
        theirs = reference.run_reference(model, head, floats)
    assert_same(getattr(nz, head)(weights, **floats), theirs, 1e-5)


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
@examples(60, quick=7)
@given(data=st.data())
def test_every_gradient_equals_autograd_through_the_reference_with_dropout_too(family, head, data):
    case = data.draw(cases(head, family))
    model = reference.reference_model(head, case.config, case.seed)
    weights = reference.our_weights(model, case.config)
    dropout_seed = data.draw(st.sampled_from([None, (5, 7)]))
    if dropout_seed is not None:
        reference.drop_as_we_do(model, *dropout_seed)
    theirs = reference.run_reference(model, head, case.inputs)
    theirs.loss.backward()
    ours, gradients = nz.value_and_grad(getattr(nz, head), dropout_seed)(weights, **case.inputs)
    assert_same(ours, theirs, 1e-10)
    expected = {
        reference.our_name(name): value.grad for name, value in model.named_parameters() if value.grad is not None
    }
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name].numpy(), 1e-9, name)


@examples(20)
@given(data=st.data())
def test_the_reference_itself_computes_the_table_in_float32_and_is_up_to_9e_6_away(data):
    head_size, reach = data.draw(st.sampled_from([(64, 127), (64, 64), (32, 64), (8, 3)]))
    module = reference.transformers.models.nezha.modeling_nezha.NezhaRelativePositionsEncoding(
        2 * reach + 2, head_size, reach
    )
    theirs = module.positions_encoding[0, :reach].numpy()  # the rows of the distances from 0 to K − 1
    ours = nz.layers.relative_position.relative_position_table(
        np.zeros(1, "float64"), head_size=head_size, max_relative_position=reach
    )
    difference = np.abs(theirs - ours[reach : 2 * reach]).max()
    assert 0 < difference < 1e-5
