"""docs/differences.md, line by line: what the reference does, and what is done here."""

import numpy as np
import pytest

import nezha_np as nz

torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
reference = pytest.importorskip("reference", reason="the reference is transformers 4.37.2")
transformers = reference.transformers

CONFIG = nz.NezhaConfig(
    vocab_size=9,
    hidden_size=8,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=6,
    max_position_embeddings=8,
    max_relative_position=3,
)
IDS = np.array([[1, 4, 5, 7, 2]])


def both(config, head="forward"):
    model = reference.reference_model(head, config, seed=0)
    return model, reference.our_weights(model, config)


def test_cached_decoding_raises_there_and_equals_the_full_pass_here():
    model, weights = both(CONFIG.replace(is_decoder=True))
    full = model(torch.tensor(IDS))
    first = model(torch.tensor(IDS[:, :3]), use_cache=True)
    with pytest.raises(RuntimeError):
        model(torch.tensor(IDS[:, 3:]), past_key_values=first.past_key_values)
    ours = nz.forward(weights, IDS[:, :3])
    rest = nz.forward(weights, IDS[:, 3:], past_key_values=ours.past_key_values)
    np.testing.assert_allclose(rest.last_hidden_state, full.last_hidden_state[:, 3:].detach(), atol=1e-12)


def test_cross_attention_of_different_lengths_raises_there_and_works_here():
    model, weights = both(CONFIG.replace(is_decoder=True, add_cross_attention=True))
    states = np.random.default_rng(0).normal(size=(1, 3, 8))
    with pytest.raises(RuntimeError):
        model(torch.tensor(IDS), encoder_hidden_states=torch.tensor(states))
    assert nz.forward(weights, IDS, encoder_hidden_states=states).last_hidden_state.shape == (1, 5, 8)


def test_long_texts_raise_there_and_work_here():
    model, weights = both(CONFIG)
    ids = np.ones((1, 20), int)
    with pytest.raises(RuntimeError):
        model(torch.tensor(ids))
    assert nz.forward(weights, ids).last_hidden_state.shape == (1, 20, 8)


def test_loading_in_another_dtype_raises_there_and_works_here(tmp_path):
    nz.init(CONFIG).save(tmp_path)
    before = torch.get_default_dtype()
    try:
        with pytest.raises(RuntimeError):
            transformers.NezhaModel.from_pretrained(tmp_path, torch_dtype=torch.float64)
        assert torch.get_default_dtype() != before
    finally:
        torch.set_default_dtype(before)
    assert nz.load(tmp_path, dtype="float64").dtype == np.float64


def test_a_fully_masked_row_in_float16_is_nan_there_and_uniform_here():
    model = reference.reference_model("forward", CONFIG, seed=0)
    model.encoder.layer[0].attention.self.query.weight.data *= 100  # scores of tens, which the minimum has no room for
    weights = reference.our_weights(model, CONFIG)
    mask = np.zeros_like(IDS)
    theirs = model.half()(torch.tensor(IDS), attention_mask=torch.tensor(mask), output_attentions=True)
    assert torch.isnan(theirs.attentions[0]).any()
    ours = nz.forward(weights.to(dtype="float16"), IDS, attention_mask=mask, output_attentions=True)
    np.testing.assert_allclose(ours.attentions[0], 1 / 5, rtol=1e-3)


def test_selu_raises_there_and_works_here():
    config = CONFIG.replace(hidden_act="selu")
    with pytest.raises(KeyError):
        transformers.NezhaModel(transformers.NezhaConfig(**config.to_dict()))
    assert nz.forward(nz.init(config), IDS).last_hidden_state.shape == (1, 5, 8)


def test_multiple_choice_prints_there_and_is_quiet_here(capsys):
    model, weights = both(CONFIG, "multiple_choice")
    model(torch.tensor(IDS[None]))
    assert capsys.readouterr().out
    nz.multiple_choice(weights, IDS[None])
    assert not capsys.readouterr().out


def test_labels_out_of_range_are_an_index_error_there_and_named_here():
    model, weights = both(CONFIG, "token_classification")
    labels = np.full_like(IDS, 7)
    with pytest.raises(IndexError):
        model(torch.tensor(IDS), labels=torch.tensor(labels))
    with pytest.raises(ValueError, match="labels: expected values from 0 to 1 or -100, got 7"):
        nz.token_classification(weights, IDS, labels=labels)


def test_a_causal_model_must_be_a_decoder_here():
    weights = nz.init(CONFIG)
    with pytest.raises(ValueError, match="causal_lm: expected a config with is_decoder=True"):
        nz.causal_lm(weights, IDS)


def test_encoder_states_are_ignored_there_and_refused_here():
    model, weights = both(CONFIG)
    states = np.ones((1, 5, 8))
    theirs = model(torch.tensor(IDS), encoder_hidden_states=torch.tensor(states)).last_hidden_state
    assert torch.equal(theirs, model(torch.tensor(IDS)).last_hidden_state)
    with pytest.raises(ValueError, match="encoder_hidden_states"):
        nz.forward(weights, IDS, encoder_hidden_states=states)


def test_new_weights_reach_beyond_two_sigma_there_and_not_here():
    config = CONFIG.replace(vocab_size=5000)
    theirs = transformers.NezhaModel(transformers.NezhaConfig(**config.to_dict())).embeddings.word_embeddings.weight
    assert theirs.abs().max() > 2.5 * config.initializer_range
    assert np.abs(nz.init(config)["embeddings.word_embeddings.weight"]).max() <= 2 * config.initializer_range


def test_integer_labels_of_any_width_mean_one_class_here():
    model, weights = both(CONFIG.replace(num_labels=3), "sequence_classification")
    with pytest.raises((RuntimeError, ValueError)):  # several labels, of a wrong shape
        model(torch.tensor(IDS), labels=torch.tensor([1], dtype=torch.int8))
    expected = nz.sequence_classification(weights, IDS, labels=[1]).loss
    assert nz.sequence_classification(weights, IDS, labels=np.array([1], np.int8)).loss == expected
    labels = torch.tensor([1], dtype=torch.int32)
    model, _ = both(CONFIG.replace(num_labels=3), "sequence_classification")
    with pytest.raises(RuntimeError):
        model(torch.tensor(IDS), labels=labels)
    assert nz.sequence_classification(weights, IDS, labels=labels.numpy()).loss == expected


def test_integer_labels_for_several_labels_raise_there_and_work_here():
    config = CONFIG.replace(num_labels=3, problem_type="multi_label_classification")
    model, weights = both(config, "sequence_classification")
    with pytest.raises(RuntimeError):
        model(torch.tensor(IDS), labels=torch.tensor([[1, 0, 1]]))
    found = nz.sequence_classification(weights, IDS, labels=[[1, 0, 1]]).loss
    assert found == nz.sequence_classification(weights, IDS, labels=[[1.0, 0.0, 1.0]]).loss


def test_a_mask_of_one_row_is_broadcast_there_and_refused_here():
    model, weights = both(CONFIG)
    ids, mask = np.repeat(IDS, 2, axis=0), np.array([[1, 1, 1, 0, 0]])
    theirs = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state.detach()
    with pytest.raises(ValueError, match=r"attention_mask: expected shape \(2, 5\), got \(1, 5\)"):
        nz.forward(weights, ids, attention_mask=mask)
    ours = nz.forward(weights, ids, attention_mask=np.repeat(mask, 2, axis=0)).last_hidden_state
    np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_an_additive_mask_is_taken_there_and_refused_here():
    model, weights = both(CONFIG)
    mask = np.array([[0.0, 0.0, 0.0, -10000.0, -10000.0]])
    model(torch.tensor(IDS), attention_mask=torch.tensor(mask))
    with pytest.raises(ValueError, match="attention_mask: expected values from 0"):
        nz.forward(weights, IDS, attention_mask=mask)


def test_the_config_asks_for_attentions_there_and_the_call_does_here():
    config = nz.config.config_from_dict({**CONFIG.to_dict(), "output_attentions": True})
    model, weights = both(config)
    assert model(torch.tensor(IDS)).attentions is not None
    assert config.extra["output_attentions"] and nz.forward(weights, IDS).attentions is None


def test_other_activations_work_there_and_as_functions_here():
    theirs = transformers.NezhaModel(transformers.NezhaConfig(**{**CONFIG.to_dict(), "hidden_act": "sigmoid"}))
    assert theirs(torch.tensor(IDS)).last_hidden_state.shape == (1, 5, 8)
    with pytest.raises(ValueError, match="hidden_act: expected one of"):
        CONFIG.replace(hidden_act="sigmoid")
    config = CONFIG.replace(hidden_act=lambda x: 1.0 / (1.0 + np.exp(-x)))
    assert nz.forward(nz.init(config), IDS).last_hidden_state.shape == (1, 5, 8)
