"""Our definitions, run on PyTorch's tensors, are as good a model as the reference: autograd says the same of both."""

import numpy as np
import pytest
from cases import EVERY_LABELLED_HEAD, cases, each_array
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples

import nezha_np as nz

torch = pytest.importorskip("torch", reason="autograd is PyTorch's")
reference = pytest.importorskip("reference", reason="the reference is transformers 4.37.2")
pytest.importorskip("array_api_compat", reason="torch's tensors speak the standard by way of it")


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
@examples(20, quick=3)
@given(data=st.data())
def test_autograd_through_our_definitions_equals_autograd_through_the_reference(family, head, data):
    case = data.draw(cases(head, family))
    model = reference.reference_model(head, case.config, case.seed)
    theirs = reference.run_reference(model, head, case.inputs)
    theirs.loss.backward()
    expected = {reference.our_name(name): value.grad for name, value in model.named_parameters()}
    expected = {name: gradient for name, gradient in expected.items() if gradient is not None}

    arrays = reference.our_weights(model, case.config)
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    ours = getattr(nz, head)(tensors, config=case.config, **each_array(torch.tensor, case.inputs))
    ours.loss.backward()
    found = {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}

    assert_close(ours.loss.detach(), theirs.loss.detach(), "loss")
    assert set(found) == set(expected)
    for name, gradient in found.items():
        assert_close(gradient, expected[name], name)


def assert_close(one, other, name):
    """Compare within 1e-8 of the largest number (at least 1)."""
    assert one.shape == other.shape and one.dtype == other.dtype == torch.float64, name
    largest = max(1.0, np.abs(other.numpy()).max(initial=0.0, where=np.isfinite(other.numpy())))
    np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=1e-8 * largest, err_msg=name)


@pytest.mark.parametrize("padding", [None, 0])
def test_look_ups_of_the_padding_id_get_no_gradient_from_autograd_and_its_decoder_row_does(padding):
    config = nz.NezhaConfig(
        vocab_size=5,
        hidden_size=4,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=3,
        pad_token_id=padding,
        tie_word_embeddings=False,
    )
    arrays = nz.init(config, dtype="float64", seed=1)
    tensors = {name: torch.tensor(np.array(array), requires_grad=True) for name, array in arrays.items()}
    nz.masked_lm(tensors, [[0, 2, 0]], labels=[[1, 2, 3]], config=config).loss.backward()
    looked_up = tensors["embeddings.word_embeddings.weight"].grad.abs().sum(dim=1) > 0
    assert looked_up.tolist() == [padding is None, False, True, False, False]
    assert (tensors["cls.predictions.decoder.weight"].grad[0] != 0).all()
