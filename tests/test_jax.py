"""JAX runs the same definitions: as they come, compiled by `jax.jit`, and under its own gradient."""

import contextlib

import numpy as np
import pytest
from cases import EVERY_HEAD, EVERY_LABELLED_HEAD, arrays_of

import nezha_np as nz

jax = pytest.importorskip("jax", reason="JAX is not installed: it is the extra [jax]")

SIZES = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 6,
    "max_position_embeddings": 8,
    "pad_token_id": 0,
}
# The head's name chooses between BERT's kinds of positions, so that each is seen with several heads.
BERT_KINDS = nz.config.POSITION_KINDS
ATOL = 1e-10


@contextlib.contextmanager
def x64(enabled):
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", enabled)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.fixture(autouse=True)
def float64():
    with x64(True):
        yield


def config_for(family, head, kind=None):
    options = {"hidden_act": "gelu", "is_decoder": head == "causal_lm"} if family != "convbert" else {}
    if family == "nezha":
        options |= {"max_relative_position": 2}
    elif family == "bert":
        options |= {"position_embedding_type": kind or BERT_KINDS[len(head) % 3]}
    else:
        options |= {"embedding_size": 6, "conv_kernel_size": 3, "num_groups": 2, "head_ratio": 1}
    return nz.config.FAMILIES[family](**SIZES, **options, num_labels=2 if head == "question_answering" else 3)


def arguments_for(head, config, batch=2, length=5):
    """Make the arguments that every head takes, and its labels; a row of the mask sees no key."""
    generator = np.random.default_rng(3)
    shape = (batch, 2, length) if head == "multiple_choice" else (batch, length)
    mask = np.ones(shape, np.int64)
    mask[0, ..., 3:] = 0
    mask[-1] = 0
    inputs = {
        "input_ids": generator.integers(0, config.vocab_size, shape),
        "token_type_ids": generator.integers(0, 2, shape),
        "attention_mask": mask,
        "head_mask": generator.random(config.attention_heads),
    }
    words = np.where(generator.random(shape) < 0.3, -100, generator.integers(0, 11, shape))
    labels = {
        "forward": {},
        "pretraining": {"labels": words, "next_sentence_label": np.array([0, 1])},
        "masked_lm": {"labels": words},
        "causal_lm": {"labels": words},
        "token_classification": {"labels": np.where(words > 2, 1, words)},
        "question_answering": {"start_positions": np.array([1, 9]), "end_positions": np.array([2, 4])},
    }
    return inputs | labels.get(head, {"labels": np.array([1, 0])})


def weights_for(head, config):
    """Draw weights, and make every one of them a number that matters."""
    generator = np.random.default_rng(4)
    drawn = nz.init(config, head=None if head == "forward" else head)
    return {
        name: 0.4 * generator.normal(size=array.shape) + name.endswith("LayerNorm.weight")
        for name, array in drawn.items()
    }


def to_jax(arrays):
    return {name: jax.numpy.asarray(array) for name, array in arrays.items()}


def assert_same(found, expected, atol=ATOL):
    assert set(found) == set(expected)
    for name, array in found.items():
        assert array.shape == expected[name].shape, name
        np.testing.assert_allclose(np.asarray(array), expected[name], rtol=atol, atol=atol, err_msg=name)


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
def test_every_head_computes_what_it_computes_in_numpy_as_it_comes_and_compiled(family, head):
    config = config_for(family, head)
    arrays, inputs = weights_for(head, config), arguments_for(head, config)
    options = {"config": config, "output_hidden_states": True, "output_attentions": True}

    def run(weights, inputs):
        return arrays_of(getattr(nz, head)(weights, **inputs, **options))

    expected = run(arrays, inputs)
    assert_same(run(to_jax(arrays), inputs), expected)  # ids, masks and labels may stay NumPy's
    assert_same(jax.jit(run)(to_jax(arrays), to_jax(inputs)), expected)


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
def test_our_gradients_are_there_what_they_are_in_numpy_and_jax_finds_the_same_by_itself(family, head):
    config = config_for(family, head)
    arrays, inputs = weights_for(head, config), arguments_for(head, config)
    function = getattr(nz, head)
    out, expected = nz.value_and_grad(function)(arrays, config=config, **inputs)

    @jax.jit
    def ours(weights, inputs):
        out, gradients = nz.value_and_grad(function)(weights, config=config, **inputs)
        return out.loss, gradients

    @jax.jit
    def theirs(weights, inputs):
        return jax.value_and_grad(lambda weights: function(weights, config=config, **inputs).loss)(weights)

    loss, found = ours(to_jax(arrays), to_jax(inputs))
    assert loss == pytest.approx(float(out.loss), abs=ATOL)
    assert_same(found, expected)
    loss, found = theirs(to_jax(arrays), to_jax(inputs))
    assert loss == pytest.approx(float(out.loss), abs=ATOL)
    unused = {name: np.zeros_like(array) for name, array in arrays.items() if name not in expected}
    assert_same(found, expected | unused)
    if "embeddings.word_embeddings.weight" in unused:
        pytest.fail("the loss depends on the words")


def test_dropout_is_the_same_there_compiled_too():
    config = config_for("nezha", "masked_lm").replace(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    arrays, inputs = weights_for("masked_lm", config), arguments_for("masked_lm", config)
    function = nz.value_and_grad(nz.masked_lm, dropout_seed=(5, 7))
    _, expected = function(arrays, config=config, **inputs)
    found = jax.jit(lambda weights: function(weights, config=config, **inputs)[1])(to_jax(arrays))
    assert_same(found, expected)


@pytest.mark.parametrize("kind", ["nezha", *BERT_KINDS])
def test_a_compiled_step_with_a_cache_equals_the_full_pass(kind):
    config = config_for("nezha" if kind == "nezha" else "bert", "causal_lm", kind)
    arrays = weights_for("causal_lm", config)
    ids = arguments_for("causal_lm", config)["input_ids"]
    expected = nz.causal_lm(arrays, ids, config=config).logits

    @jax.jit
    def step(weights, ids, cache):
        out = nz.causal_lm(weights, ids, past_key_values=cache, config=config)
        return out.logits, out.past_key_values

    weights, cache, logits = to_jax(arrays), None, []
    for start, stop in ((0, 2), (2, 3), (3, 5)):
        part, cache = step(weights, jax.numpy.asarray(ids[:, start:stop]), cache)
        logits.append(np.asarray(part))
    np.testing.assert_allclose(np.concatenate(logits, axis=1), expected, atol=ATOL)


def test_weights_that_a_compiled_function_closes_over_still_work_outside_of_it():
    config = config_for("nezha", "forward")
    arrays = weights_for("forward", config)
    weights = nz.Weights(to_jax(arrays), config)
    ids = np.array([[1, 2, 3]])
    expected = nz.forward(arrays, ids, config=config).last_hidden_state
    compiled = jax.jit(lambda ids: nz.forward(weights, ids).last_hidden_state)
    # The table of positions is made while JAX traces, and what JAX traces must not be kept with the weights.
    np.testing.assert_allclose(compiled(jax.numpy.asarray(ids)), expected, atol=ATOL)
    np.testing.assert_allclose(nz.forward(weights, ids).last_hidden_state, expected, atol=ATOL)
    np.testing.assert_allclose(compiled(jax.numpy.asarray(ids)), expected, atol=ATOL)


def test_a_new_array_lands_on_the_device_of_its_neighbour_and_ids_are_integers_of_jax():
    weights = nz.Weights(to_jax(nz.load()), nz.load().config)
    out = nz.forward(weights, [[2, 3]])
    assert isinstance(out.last_hidden_state, jax.Array)
    assert out.last_hidden_state.device == weights.word_embeddings.device


@pytest.mark.parametrize("compiled", [False, True])
def test_the_shipped_model_runs_in_float32_where_jax_has_32_bits_alone(compiled):
    with x64(False):
        arrays, config = nz.load(), nz.load().config
        ids = np.random.default_rng(0).integers(5, 7000, (2, 9))
        expected = nz.masked_lm(arrays, ids, labels=ids)

        def run(weights, ids):
            out = nz.masked_lm(weights, ids, labels=ids, config=config)
            return out.loss, out.logits

        weights = to_jax(arrays)
        # NumPy's ids are int64, which JAX would warn of, and a warning is an error here.
        loss, logits = jax.jit(run)(weights, jax.numpy.asarray(ids)) if compiled else run(weights, ids)
        assert logits.dtype == loss.dtype == np.float32
        assert np.abs(np.asarray(logits) - expected.logits).max() < 1e-4
        assert float(loss) == pytest.approx(float(expected.loss), rel=1e-5)


def test_weights_as_such_are_no_argument_of_a_compiled_function():
    weights = nz.Weights(to_jax(nz.load()), nz.load().config)
    with pytest.raises(TypeError, match="expected Weights or a mapping"):
        jax.jit(lambda weights: nz.forward(weights, [[2, 3]]).last_hidden_state)(weights)
