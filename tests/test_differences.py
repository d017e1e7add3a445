"""docs/differences.md, line by line: what the reference does, and what is done here."""

import numpy as np
import pytest
import safetensors.numpy

import nezha_np as nz

torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
reference = pytest.importorskip("reference", reason="the reference is transformers 4.37.2")
transformers = reference.transformers

SIZES = {
    "vocab_size": 9,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 6,
    "max_position_embeddings": 8,
}
CONFIG = nz.NezhaConfig(**SIZES, max_relative_position=3)
BERT = nz.BertConfig(**SIZES)
CONVBERT = nz.ConvBertConfig(**SIZES, embedding_size=6, conv_kernel_size=3)
CONFIGS = [pytest.param(config, id=config.model_type) for config in (CONFIG, BERT, CONVBERT)]
RELATIVE = ("relative_key", "relative_key_query")
IDS = np.array([[1, 4, 5, 7, 2]])
STATES = np.linspace(-1.0, 1.0, 5 * 8).reshape(1, 5, 8)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def both(config, head="forward"):
    model = reference.reference_model(head, config, seed=0)
    return model, reference.our_weights(model, config)


def theirs_of(config, head="forward", **others):
    """Make the reference's model with configuration fields that ours refuses."""
    torch.manual_seed(0)  # other tests use the same random generator
    kind = getattr(transformers, type(config).__name__)
    model = getattr(transformers, nz.families.family.family_of(config).tasks[head].reference)
    return model(kind(**config.to_dict() | others)).eval()


# --------------------------------------------------------------------------------------------------------------- NEZHA


def test_cached_decoding_raises_there_and_equals_the_full_pass_here():
    model, weights = both(CONFIG.replace(is_decoder=True))
    full = model(torch.tensor(IDS))
    first = model(torch.tensor(IDS[:, :3]), use_cache=True)
    with pytest.raises(RuntimeError):
        model(torch.tensor(IDS[:, 3:]), past_key_values=first.past_key_values)
    ours = nz.forward(weights, IDS[:, :3])
    rest = nz.forward(weights, IDS[:, 3:], past_key_values=ours.past_key_values)
    np.testing.assert_allclose(rest.last_hidden_state, full.last_hidden_state[:, 3:], atol=1e-12)


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


def test_multiple_choice_prints_there_and_is_quiet_here(capsys):
    model, weights = both(CONFIG, "multiple_choice")
    model(torch.tensor(IDS[None]))
    assert capsys.readouterr().out
    nz.multiple_choice(weights, IDS[None])
    assert not capsys.readouterr().out


def test_position_ids_are_no_argument_there_and_refused_by_name_here():
    model, weights = both(CONFIG)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        model(torch.tensor(IDS), position_ids=torch.tensor(IDS * 0))
    with pytest.raises(ValueError, match=r"^position_ids: expected None, because this nezha model's positions are rel"):
        nz.forward(weights, IDS, position_ids=IDS * 0)


# --------------------------------------------------------------------------------------------------- all of the three


@pytest.mark.parametrize("config", CONFIGS)
def test_a_fully_masked_row_in_float16_is_nan_there_and_uniform_here(config):
    model = reference.reference_model("forward", config, seed=0)
    for layer, value in (("query", 30.0), ("key", -30.0)):  # adding the minimum to such scores overflows
        getattr(model.encoder.layer[0].attention.self, layer).weight.data.fill_(0.0)
        getattr(model.encoder.layer[0].attention.self, layer).bias.data.fill_(value)
    weights = reference.our_weights(model, config)
    mask = np.zeros_like(IDS)
    theirs = model.half()(torch.tensor(IDS), attention_mask=torch.tensor(mask), output_attentions=True)
    assert torch.isnan(theirs.attentions[0]).any()
    ours = nz.forward(weights.to(dtype="float16"), IDS, attention_mask=mask, output_attentions=True)
    np.testing.assert_allclose(ours.attentions[0], 1 / 5, rtol=1e-3)


@pytest.mark.parametrize("config", CONFIGS)
def test_selu_raises_there_and_works_here(config, monkeypatch):
    monkeypatch.delitem(transformers.activations.ACT2FN, "selu")  # the tests have added it
    config = config.replace(hidden_act="selu")
    with pytest.raises(KeyError):
        theirs_of(config)
    assert nz.forward(nz.init(config), IDS).last_hidden_state.shape == (1, 5, 8)


@pytest.mark.parametrize("config", CONFIGS)
def test_labels_out_of_range_are_an_index_error_there_and_named_here(config):
    model, weights = both(config, "token_classification")
    labels = np.full_like(IDS, 7)
    with pytest.raises(IndexError):
        model(torch.tensor(IDS), labels=torch.tensor(labels))
    with pytest.raises(ValueError, match="labels: expected values from 0 to 1 or -100, got 7"):
        nz.token_classification(weights, IDS, labels=labels)


@pytest.mark.parametrize("config", [BERT, CONVBERT], ids=["bert", "convbert"])
def test_positions_out_of_range_are_an_index_error_there_and_named_here(config):
    model, weights = both(config)
    for position in (8, -1):
        positions = np.full_like(IDS, position)
        with pytest.raises(IndexError):
            model(torch.tensor(IDS), position_ids=torch.tensor(positions))
        with pytest.raises(ValueError, match=f"^position_ids: expected values from 0 to 7, got {position}$"):
            nz.forward(weights, IDS, position_ids=positions)


@pytest.mark.parametrize("config", [BERT, CONVBERT], ids=["bert", "convbert"])
def test_more_tokens_than_learned_positions_raise_on_both_sides_and_are_named_here(config):
    model, weights = both(config)
    ids = np.ones((1, 9), int)
    with pytest.raises(RuntimeError, match="size"):
        model(torch.tensor(ids))
    with pytest.raises(
        ValueError, match=r"^input_ids: expected at most max_position_embeddings \(8\) tokens, .* got 9$"
    ):
        nz.forward(weights, ids)


@pytest.mark.parametrize("config", [CONFIG, BERT], ids=["nezha", "bert"])
def test_encoder_states_are_ignored_there_and_refused_here(config):
    model, weights = both(config)
    theirs = model(torch.tensor(IDS), encoder_hidden_states=torch.tensor(STATES)).last_hidden_state
    assert torch.equal(theirs, model(torch.tensor(IDS)).last_hidden_state)
    with pytest.raises(ValueError, match="encoder_hidden_states"):
        nz.forward(weights, IDS, encoder_hidden_states=STATES)


@pytest.mark.parametrize("config", CONFIGS)
def test_new_weights_reach_beyond_two_sigma_there_and_not_here(config):
    config = config.replace(vocab_size=5000)
    theirs = theirs_of(config).embeddings.word_embeddings.weight
    assert theirs.abs().max() > 2.5 * config.initializer_range
    assert np.abs(nz.init(config)["embeddings.word_embeddings.weight"]).max() <= 2 * config.initializer_range


@pytest.mark.parametrize("config", CONFIGS)
def test_integer_labels_of_any_width_mean_one_class_here(config):
    model, weights = both(config.replace(num_labels=3), "sequence_classification")
    with pytest.raises((RuntimeError, ValueError)):  # several labels, of a wrong shape
        model(torch.tensor(IDS), labels=torch.tensor([1], dtype=torch.int8))
    expected = nz.sequence_classification(weights, IDS, labels=[1]).loss
    assert nz.sequence_classification(weights, IDS, labels=np.array([1], np.int8)).loss == expected
    labels = torch.tensor([1], dtype=torch.int32)
    model, _ = both(config.replace(num_labels=3), "sequence_classification")
    with pytest.raises(RuntimeError):
        model(torch.tensor(IDS), labels=labels)
    assert nz.sequence_classification(weights, IDS, labels=labels.numpy()).loss == expected


@pytest.mark.parametrize("config", CONFIGS)
def test_integer_labels_for_several_labels_raise_there_and_work_here(config):
    config = config.replace(num_labels=3, problem_type="multi_label_classification")
    model, weights = both(config, "sequence_classification")
    with pytest.raises(RuntimeError):
        model(torch.tensor(IDS), labels=torch.tensor([[1, 0, 1]]))
    found = nz.sequence_classification(weights, IDS, labels=[[1, 0, 1]]).loss
    assert found == nz.sequence_classification(weights, IDS, labels=[[1.0, 0.0, 1.0]]).loss


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", ["attention_mask", "token_type_ids"])
def test_a_mask_or_token_types_of_one_row_are_broadcast_there_and_refused_here(config, name):
    model, weights = both(config)
    ids, row = np.repeat(IDS, 2, axis=0), np.array([[1, 1, 1, 0, 0]])
    theirs = model(torch.tensor(ids), **{name: torch.tensor(row)}).last_hidden_state
    with pytest.raises(ValueError, match=rf"^{name}: expected shape \(2, 5\), got \(1, 5\)"):
        nz.forward(weights, ids, **{name: row})
    ours = nz.forward(weights, ids, **{name: np.repeat(row, 2, axis=0)}).last_hidden_state
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", [BERT, CONVBERT], ids=["bert", "convbert"])
def test_positions_of_one_row_are_broadcast_there_and_here(config):
    model, weights = both(config)
    ids, row = np.repeat(IDS, 2, axis=0), np.array([[3, 2, 1, 0, 7]])
    theirs = model(torch.tensor(ids), position_ids=torch.tensor(row)).last_hidden_state
    ours = nz.forward(weights, ids, position_ids=row).last_hidden_state
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", CONFIGS)
def test_an_additive_mask_is_taken_there_and_refused_here(config):
    model, weights = both(config)
    mask = np.array([[0.0, 0.0, 0.0, -10000.0, -10000.0]])
    theirs = model(torch.tensor(IDS), attention_mask=torch.tensor(mask)).last_hidden_state.numpy()
    meant = nz.forward(weights, IDS, attention_mask=[[1, 1, 1, 0, 0]]).last_hidden_state
    assert not np.allclose(theirs, meant, rtol=0, atol=0.01)
    with pytest.raises(ValueError, match="attention_mask: expected values from 0"):
        nz.forward(weights, IDS, attention_mask=mask)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_config_asks_for_attentions_there_and_the_call_does_here(config):
    config = nz.families.config.config_from_dict({**config.to_dict(), "output_attentions": True})
    model, weights = both(config)
    assert model(torch.tensor(IDS)).attentions is not None
    assert config.extra["output_attentions"] and nz.forward(weights, IDS).attentions is None


@pytest.mark.parametrize("config", CONFIGS)
def test_other_activations_work_there_and_as_functions_here(config):
    theirs = theirs_of(config, hidden_act="sigmoid")
    assert theirs(torch.tensor(IDS)).last_hidden_state.shape == (1, 5, 8)
    with pytest.raises(ValueError, match="hidden_act: expected one of"):
        config.replace(hidden_act="sigmoid")
    config = config.replace(hidden_act=lambda x: 1.0 / (1.0 + np.exp(-x)))
    assert nz.forward(nz.init(config), IDS).last_hidden_state.shape == (1, 5, 8)


@pytest.mark.parametrize(
    ("saved", "read", "keys", "message"),
    [
        (BERT, CONFIG, "unexpected_keys", "superfluous embeddings.position_embeddings.weight$"),
        (CONFIG, BERT, "missing_keys", "missing embeddings.position_embeddings.weight$"),
    ],
    ids=["bert as nezha", "nezha as bert"],
)
def test_tensors_of_another_family_are_a_warning_there_and_refused_here(tmp_path, saved, read, keys, message):
    weights = nz.init(saved)
    weights.save(tmp_path)
    kind = getattr(transformers, type(read).__name__.replace("Config", "Model"))
    config = getattr(transformers, type(read).__name__)(**read.to_dict())
    _, loading = kind.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert any("position_embeddings" in key for key in loading[keys])
    with pytest.raises(ValueError, match=f"^weights: expected .*, {message}"):
        nz.forward(weights, IDS, config=read)


def test_a_tied_decoder_that_is_not_the_embeddings_replaces_them_there_and_is_refused_here(tmp_path):
    _, weights = both(CONFIG, "masked_lm")
    table, decoder = "embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    weights.save(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors[decoder] = 2 * weights[table]
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    for kind, factor in ((transformers.NezhaForMaskedLM, 2), (transformers.NezhaModel, 1)):
        used = kind.from_pretrained(tmp_path).get_input_embeddings().weight.numpy()
        np.testing.assert_allclose(used, factor * weights[table], rtol=1e-6)
    with pytest.raises(ValueError, match="expected the same numbers under both names of one tensor"):
        nz.load(tmp_path)


def test_a_classifier_of_texts_reads_tokens_without_a_word_there_and_with_a_warning_here(tmp_path):
    config = CONFIG.replace(architectures=("NezhaForSequenceClassification",))
    nz.Weights(both(config, "sequence_classification")[1], config).save(tmp_path)
    model, loading = transformers.NezhaForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"]
    reference.take_our_table(model.eval(), CONFIG, torch.float32)
    with pytest.warns(nz.HeadWarning):
        logits = nz.token_classification(nz.load(tmp_path), IDS).logits
    np.testing.assert_allclose(logits, model(torch.tensor(IDS)).logits.numpy(), atol=1e-4)


# ---------------------------------------------------------------------------------------------------------------- BERT


@pytest.mark.parametrize("kind", RELATIVE)
def test_cached_chunks_at_learned_distances_are_wrong_there_and_equal_the_full_pass_here(kind):
    model, weights = both(BERT.replace(is_decoder=True, position_embedding_type=kind))
    full = model(torch.tensor(IDS)).last_hidden_state.numpy()

    def rest(cut):
        theirs = model(torch.tensor(IDS[:, :cut]), use_cache=True).past_key_values
        ours = nz.forward(weights, IDS[:, :cut]).past_key_values
        return (
            model(torch.tensor(IDS[:, cut:]), past_key_values=theirs).last_hidden_state.numpy(),
            nz.forward(weights, IDS[:, cut:], past_key_values=ours).last_hidden_state,
        )

    theirs, ours = rest(2)
    np.testing.assert_allclose(ours, full[:, 2:], rtol=0, atol=1e-12)
    assert np.abs(theirs - full[:, 2:]).max() > 0.05
    theirs, ours = rest(4)  # a single token is right in the reference too
    np.testing.assert_allclose(ours, full[:, 4:], rtol=0, atol=1e-12)
    np.testing.assert_allclose(theirs, full[:, 4:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", RELATIVE)
def test_longer_distances_than_learned_ones_are_an_index_error_there_and_named_here(kind):
    model, weights = both(BERT.replace(is_decoder=True, position_embedding_type=kind))
    ids = np.ones((1, 9), int)
    with pytest.raises(IndexError):
        model(torch.tensor(ids), token_type_ids=torch.tensor(ids * 0))
    with pytest.raises(
        ValueError, match=r"^input_ids: expected at most max_position_embeddings \(8\) tokens, .* got 9$"
    ):
        nz.forward(weights, ids)
    theirs = model(torch.tensor(ids[:, :8]), use_cache=True).past_key_values
    with pytest.raises(IndexError):
        model(torch.tensor([[1]]), token_type_ids=torch.tensor([[0]]), past_key_values=theirs)
    with pytest.raises(ValueError, match=r"^input_ids: expected .* got 1 after 8 of the cache$"):
        nz.forward(weights, [[1]], past_key_values=nz.forward(weights, ids[:, :8]).past_key_values)


@pytest.mark.parametrize("kind", RELATIVE)
def test_position_ids_beside_learned_distances_are_ignored_there_and_refused_here(kind):
    model, weights = both(BERT.replace(position_embedding_type=kind))
    theirs = model(torch.tensor(IDS), position_ids=torch.tensor(IDS[:, ::-1].copy())).last_hidden_state
    assert torch.equal(theirs, model(torch.tensor(IDS)).last_hidden_state)
    with pytest.raises(
        ValueError, match=r"^position_ids: expected None, because this bert model's positions are relat"
    ):
        nz.forward(weights, IDS, position_ids=IDS)


def test_beside_labels_there_is_no_cache_there_and_there_is_one_here():
    model, weights = both(BERT.replace(is_decoder=True), "causal_lm")
    assert model(torch.tensor(IDS), use_cache=True).past_key_values is not None
    assert model(torch.tensor(IDS), labels=torch.tensor(IDS), use_cache=True).past_key_values is None
    ours = nz.causal_lm(weights, IDS, labels=IDS)
    assert ours.loss.shape == () and len(ours.past_key_values) == 2
    assert nz.causal_lm(weights, IDS, labels=IDS, use_cache=False).past_key_values is None


@pytest.mark.parametrize("config", [CONFIG, BERT], ids=["nezha", "bert"])
def test_a_causal_model_that_is_no_decoder_sees_what_follows_there_and_is_refused_here(config):
    model, weights = both(config, "causal_lm")
    theirs = model(torch.tensor(IDS)).logits
    assert not torch.allclose(theirs[:, 0], model(torch.tensor(IDS[:, :1])).logits[:, 0])
    with pytest.raises(ValueError, match=r"^causal_lm: expected a config with is_decoder=True, got False"):
        nz.causal_lm(weights, IDS)


def test_beside_an_encoder_a_cache_of_self_attention_alone_is_wrong_there_and_right_here():
    model, weights = both(BERT.replace(is_decoder=True, add_cross_attention=True))
    states = STATES[:, :4]
    full = model(torch.tensor(IDS), encoder_hidden_states=torch.tensor(states)).last_hidden_state.numpy()
    theirs = model(torch.tensor(IDS[:, :4]), encoder_hidden_states=torch.tensor(states), use_cache=True)
    ours = nz.forward(weights, IDS[:, :4], encoder_hidden_states=states)
    for arrays, as_full in ((4, True), (2, False)):
        past = [layer[:arrays] for layer in theirs.past_key_values]
        last = model(torch.tensor(IDS[:, 4:]), encoder_hidden_states=torch.tensor(states), past_key_values=past)
        assert np.allclose(last.last_hidden_state.numpy(), full[:, 4:], rtol=0, atol=1e-12) == as_full
        past = [layer[:arrays] for layer in ours.past_key_values]
        last = nz.forward(weights, IDS[:, 4:], encoder_hidden_states=states, past_key_values=past)
        np.testing.assert_allclose(last.last_hidden_state, full[:, 4:], rtol=0, atol=1e-12)


ROOMY = BERT.replace(is_decoder=True, max_position_embeddings=16, pad_token_id=0)
TEN = {"max_new_tokens": 10, "eos_token_id": 10**6}  # an id that no token has: all ten are generated


def generate_there(model, ids, **options):
    return model.generate(torch.tensor(ids), do_sample=False, **TEN, **options).tolist()


def generate_here(weights, ids, **options):
    return nz.generate(weights, ids, **TEN | {"eos_token_id": []}, **options).tolist()


def test_generate_drops_token_types_there_and_uses_them_here():
    model, weights = both(ROOMY, "causal_lm")
    plain = generate_there(model, IDS)
    assert generate_there(model, IDS, token_type_ids=torch.ones((1, 5), dtype=torch.int64)) == plain
    assert generate_here(weights, IDS) == plain != generate_here(weights, IDS, token_type_ids=np.ones((1, 5), int))


def test_generate_drops_an_encoder_there_and_attends_to_it_here():
    model, weights = both(ROOMY.replace(add_cross_attention=True), "causal_lm")
    plain = generate_there(model, IDS)
    assert generate_there(model, IDS, encoder_hidden_states=torch.tensor(STATES)) == plain
    assert generate_here(weights, IDS) == plain != generate_here(weights, IDS, encoder_hidden_states=STATES)


def test_generate_guesses_a_mask_from_padding_ids_there_and_not_here():
    model, weights = both(ROOMY, "causal_lm")
    ids = np.array([[0, 0, 4, 5, 7]])
    guessed, every = (ids != 0).astype(np.int64), np.ones_like(ids)
    as_guessed, as_every = (generate_there(model, ids, attention_mask=torch.tensor(mask)) for mask in (guessed, every))
    assert generate_there(model, ids) == as_guessed == generate_here(weights, ids, attention_mask=guessed)
    assert generate_here(weights, ids) == as_every != as_guessed


# ------------------------------------------------------------------------------------------------------------ ConvBERT


def test_a_decoder_sees_what_follows_there_and_is_refused_here():
    model = theirs_of(CONVBERT, is_decoder=True, initializer_range=0.5)
    changed = IDS.copy()
    changed[0, -1] = 6
    one, other = (model(torch.tensor(ids)).last_hidden_state[0, -2] for ids in (IDS, changed))
    assert (one - other).abs().max() > 0.01
    with pytest.raises(
        ValueError, match=r"^is_decoder: expected False, because ConvBERT is an encoder: its convolution"
    ):
        CONVBERT.replace(is_decoder=True)
    for name, value in (("encoder_hidden_states", STATES), ("past_key_values", ()), ("use_cache", True)):
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            model(torch.tensor(IDS), **{name: value})
        with pytest.raises(ValueError, match=f"^{name}: expected None, because ConvBERT is no decoder"):
            nz.forward(nz.init(CONVBERT), IDS, **{name: value})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("conv_kernel_size", {"conv_kernel_size": 4}),
        ("num_groups", {"num_groups": 4}),
        ("hidden_size", {"hidden_size": 6, "head_ratio": 1}),
        ("pruned_heads", {"pruned_heads": {0: [0]}, "head_ratio": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sizes_that_do_not_fit_raise_when_the_model_is_run_there_and_when_it_is_described_here(field, values):
    model = theirs_of(CONVBERT, **values)
    with pytest.raises(RuntimeError, match=r"size|shape"):
        model(torch.tensor(IDS))
    with pytest.raises(ValueError, match=f"^{field}: expected "):
        CONVBERT.replace(**values)


def test_a_summary_to_labels_raises_when_it_is_run_there_and_is_refused_here():
    model = theirs_of(CONVBERT, "multiple_choice", summary_use_proj=True, summary_proj_to_labels=True)
    with pytest.raises(RuntimeError, match="shapes"):
        model(torch.tensor(IDS[None]))
    with pytest.raises(ValueError, match=r"^summary_proj_to_labels: expected false"):
        CONVBERT.replace(summary_use_proj=True, extra={"summary_proj_to_labels": True})


def test_linear_layers_in_groups_are_never_drawn_there_and_drawn_here():
    config = CONVBERT.replace(num_groups=2)
    model = theirs_of(config)
    for parameter in model.parameters():
        parameter.data.fill_(7.0)
    model.apply(model._init_weights)
    kept = {name for name, value in model.named_parameters() if (value == 7.0).all()}
    in_groups = {
        f"encoder.layer.{layer}.{part}.dense.{kind}"
        for layer in (0, 1)
        for part in ("intermediate", "output")
        for kind in ("weight", "bias")
    }
    assert in_groups <= kept
    assert not {name for name in kept if "LayerNorm" in name or name.endswith("query.weight")}
    drawn = nz.init(config)
    for name in in_groups:
        largest = np.abs(drawn[name]).max()
        assert largest == 0 if name.endswith("bias") else 0 < largest <= 2 * config.initializer_range


# --------------------------------------------------------------------------- the same in both, and perhaps surprising

PADDED, MASK = np.array([[1, 4, 5, 7, 2, 3, 3]]), np.array([[1, 1, 1, 1, 1, 0, 0]])


@pytest.mark.parametrize("config", CONFIGS)
def test_padding_changes_the_tokens_near_it_in_convbert_alone_there_and_here(config):
    model, weights = both(config)
    theirs = model(torch.tensor(PADDED), attention_mask=torch.tensor(MASK)).last_hidden_state.numpy()
    ours = nz.forward(weights, PADDED, attention_mask=MASK).last_hidden_state
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    difference = np.abs(ours[:, :5] - nz.forward(weights, IDS).last_hidden_state).max()
    assert difference > 0.1 if config is CONVBERT else difference < 1e-12


def test_a_choice_of_convbert_is_read_by_its_last_token_padding_or_not_there_and_here():
    model, weights = both(CONVBERT, "multiple_choice")
    scores = []
    for padding in (3, 6):
        padded = np.where(MASK == 1, PADDED, padding)[None]
        theirs = model(torch.tensor(padded), attention_mask=torch.tensor(MASK[None])).logits.numpy()
        ours = nz.multiple_choice(weights, padded, attention_mask=MASK[None], output_hidden_states=True)
        np.testing.assert_allclose(ours.logits, theirs, rtol=0, atol=1e-10)
        last = ours.hidden_states[-1][:, -1] @ weights["classifier.weight"].T + weights["classifier.bias"]
        np.testing.assert_allclose(ours.logits, last, rtol=0, atol=1e-12)
        scores.append(float(ours.logits[0, 0]))
    assert abs(scores[0] - scores[1]) > 0.1


@pytest.mark.parametrize("config", CONFIGS)
def test_a_loss_over_no_labels_is_nan_and_its_gradient_0_there_and_here(config):
    model, weights = both(config, "masked_lm")
    labels = np.full_like(IDS, -100)
    with torch.enable_grad():
        theirs = model(torch.tensor(IDS), labels=torch.tensor(labels)).loss
        theirs.backward()
    ours, gradients = nz.value_and_grad(nz.masked_lm)(weights, IDS, labels=labels)
    assert torch.isnan(theirs) and np.isnan(ours.loss)
    assert not any(value.grad.any() for value in model.parameters() if value.grad is not None)
    assert gradients and not any(gradient.any() for gradient in gradients.values())


def test_the_head_mask_of_convbert_has_the_heads_that_the_ratio_leaves_there_and_here():
    model, weights = both(CONVBERT.replace(num_attention_heads=4))  # head_ratio 2
    theirs = model(torch.tensor(IDS), head_mask=torch.tensor([0.0, 0.5])).last_hidden_state
    ours = nz.forward(weights, IDS, head_mask=[0.0, 0.5]).last_hidden_state
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    with pytest.raises(RuntimeError, match="size"):
        model(torch.tensor(IDS), head_mask=torch.ones(4))
    with pytest.raises(ValueError, match=r"^head_mask: expected shape \(2,\), got \(4,\)$"):
        nz.forward(weights, IDS, head_mask=np.ones(4))
