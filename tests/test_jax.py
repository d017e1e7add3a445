"""JAX runs the same definitions: as they come, compiled by `jax.jit`, and under its own gradient."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from cases import EVERY_HEAD, EVERY_LABELLED_HEAD, arrays_of
from pages import run_examples

import nezha_np as nz

jax = pytest.importorskip("jax", reason="JAX is not installed: it is the extra [jax]")
pytest_plugins = "pytest_nezha_np"  # the fixture nezha_golden, where the package is not installed

SIZES = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 6,
    "max_position_embeddings": 8,
    "pad_token_id": 0,
}
# The length of a head's name chooses between these, so that each is seen with several heads.
BERT_KINDS, ACTS = nz.families.bert.POSITION_KINDS, ("relu", "silu", "tanh")
ATOL = 1e-10


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)  # which take longer than all that is computed here
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def config_for(family, head, kind=None):
    options = {"hidden_act": ACTS[len(head) % 3]}
    if family == "nezha":
        options |= {"max_relative_position": 2, "is_decoder": head == "causal_lm"}
    elif family == "bert":
        options |= {"position_embedding_type": kind or BERT_KINDS[len(head) % 3], "is_decoder": head == "causal_lm"}
    else:
        options |= {"embedding_size": 6, "conv_kernel_size": 3, "num_groups": 2, "head_ratio": 1}
    return nz.families.family.FAMILIES[family].config(
        **SIZES, **options, num_labels=2 if head == "question_answering" else 3
    )


def arguments_for(head, config):
    """Make the arguments that every head takes, and its labels: two texts of five tokens, the second all masked.

    All heads have the same shapes, for which JAX compiles each operation once.
    """
    generator = np.random.default_rng(3)
    shape = (1, 2, 5) if head == "multiple_choice" else (2, 5)
    mask = np.ones(shape, np.int64)
    mask[..., 0, 3:] = mask[..., 1, :] = 0
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
    return inputs | labels.get(head, {"labels": np.array([1, 0])[: shape[0]]})


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
def test_every_head_computes_what_it_computes_in_numpy(family, head):
    config = config_for(family, head)
    arrays, inputs = weights_for(head, config), arguments_for(head, config)
    options = {"config": config, "output_hidden_states": True, "output_attentions": True}
    expected = arrays_of(getattr(nz, head)(arrays, **inputs, **options))
    found = arrays_of(getattr(nz, head)(to_jax(arrays), **inputs, **options))  # ids, masks and labels stay NumPy's
    assert all(isinstance(array, jax.Array) for array in found.values())
    assert_same(found, expected)


def test_a_result_is_a_pytree_that_compiled_functions_return_and_others_take():
    config = config_for("nezha", "masked_lm")
    weights, inputs = to_jax(weights_for("masked_lm", config)), arguments_for("masked_lm", config)
    out = jax.jit(lambda weights: nz.masked_lm(weights, config=config, output_attentions=True, **inputs))(weights)
    assert isinstance(out, nz.HeadOutput)
    loss, logits, attentions = out
    leaves = jax.tree.leaves(out)
    assert [id(leaf) for leaf in leaves] == [id(array) for array in (loss, logits, *attentions)]
    doubled = jax.jit(lambda out: jax.tree.map(lambda array: 2 * array, out))(out)
    assert isinstance(doubled, nz.HeadOutput)
    assert doubled.hidden_states is None
    np.testing.assert_array_equal(doubled.logits, 2 * logits)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(out)]
    assert paths == [".loss", ".logits", ".attentions[0]"]
    for head in ("forward", "pretraining", "question_answering", "causal_lm"):
        config = config_for("nezha", head)
        weights, inputs = to_jax(weights_for(head, config)), arguments_for(head, config)
        out = getattr(nz, head)(weights, config=config, **inputs)
        assert [id(leaf) for leaf in jax.tree.leaves(out)] == [id(leaf) for leaf in jax.tree.leaves(tuple(out))]


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
def test_compiled_too_and_so_are_our_gradients_and_those_that_jax_finds_by_itself(family, head):
    config = config_for(family, head)
    arrays, inputs = weights_for(head, config), arguments_for(head, config)
    function = getattr(nz, head)

    def run(weights, inputs):
        out, gradients = nz.value_and_grad(function)(weights, config=config, **inputs)
        return arrays_of(out), gradients

    def loss(weights, inputs):
        return function(weights, config=config, **inputs).loss

    @jax.jit
    def compiled(weights, inputs):
        return *run(weights, inputs), jax.grad(loss)(weights, inputs)

    out, ours, theirs = compiled(to_jax(arrays), to_jax(inputs))
    expected_out, expected = run(arrays, inputs)
    assert_same(out, expected_out)
    assert_same(ours, expected)
    # The row of the padding id is among them: look-ups give it no gradient, the decoder does.
    assert "embeddings.word_embeddings.weight" in expected and (inputs["input_ids"] == config.pad_token_id).any()
    unused = {name: np.zeros_like(array) for name, array in arrays.items() if name not in expected}
    assert_same(theirs, expected | unused)


@pytest.mark.parametrize("kind", ["nezha", *BERT_KINDS, "convbert"])
def test_compiled_for_any_input_the_model_computes_what_it_computes_in_numpy(kind):
    config = config_for("bert" if kind in BERT_KINDS else kind, "forward", kind)
    arrays, inputs = weights_for("forward", config), arguments_for("forward", config)
    inputs["inputs_embeds"] = arrays["embeddings.word_embeddings.weight"][inputs.pop("input_ids")]
    if config.learns_positions:
        inputs["position_ids"] = np.array([[4, 0, 1, 2, 3]])

    def run(weights, inputs):
        return arrays_of(nz.forward(weights, **inputs, config=config, output_attentions=True))

    assert_same(jax.jit(run)(to_jax(arrays), to_jax(inputs)), run(arrays, inputs))


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
    for start, stop in ((0, 3), (3, 5)):
        part, cache = step(weights, jax.numpy.asarray(ids[:, start:stop]), cache)
        logits.append(np.asarray(part))
    np.testing.assert_allclose(np.concatenate(logits, axis=1), expected, atol=ATOL)


def test_weights_that_a_compiled_function_closes_over_still_work_outside_of_it():
    config = config_for("nezha", "forward")
    arrays = weights_for("forward", config)
    weights = nz.Weights(to_jax(arrays), config)
    ids = arguments_for("forward", config)["input_ids"]
    expected = nz.forward(arrays, ids, config=config).last_hidden_state
    compiled = jax.jit(lambda ids: nz.forward(weights, ids).last_hidden_state)
    # The table of positions is made while JAX traces, and what JAX traces must not be kept with the weights.
    np.testing.assert_allclose(compiled(jax.numpy.asarray(ids)), expected, atol=ATOL)
    np.testing.assert_allclose(nz.forward(weights, ids).last_hidden_state, expected, atol=ATOL)
    np.testing.assert_allclose(compiled(jax.numpy.asarray(ids)), expected, atol=ATOL)


@pytest.mark.parametrize("ids_are", ["an argument", "a list inside"])
def test_the_shipped_model_runs_in_float32_where_jax_has_32_bits_alone(ids_are):
    arrays, config = nz.load(), nz.load().config
    ids = np.random.default_rng(0).integers(5, 7000, (2, 9))
    expected = nz.masked_lm(arrays, ids, labels=ids)

    def run(weights, ids):
        out = nz.masked_lm(weights, ids, labels=ids, config=config)
        return out.loss, out.logits

    # Ids become int64 with other libraries, which JAX would warn of here; a warning is an error in these tests.
    jax.config.update("jax_enable_x64", False)
    if ids_are == "an argument":
        loss, logits = jax.jit(run)(to_jax(arrays), jax.numpy.asarray(ids))
    else:
        loss, logits = jax.jit(lambda weights: run(weights, ids.tolist()))(to_jax(arrays))
    assert logits.dtype == loss.dtype == np.float32
    assert np.abs(np.asarray(logits) - expected.logits).max() < 1e-4
    assert float(loss) == pytest.approx(float(expected.loss), rel=1e-5)


def test_the_page_about_other_libraries_does_what_it_says():
    jax.config.update("jax_enable_x64", False)
    found = run_examples("other_libraries.md", "JAX")
    arrays, ids, labels = nz.load(), [[2, 318, 4, 3]], [[-100, -100, 1161, -100]]
    expected = nz.masked_lm(arrays, ids, labels=labels)
    assert np.abs(np.asarray(found["logits"]) - expected.logits).max() < 1e-4
    assert float(found["loss"]) == pytest.approx(float(expected.loss), rel=1e-5)
    assert set(found["gradients"]) == set(arrays) == set(found["weights"])
    assert found["step"](found["weights"], found["ids"], found["labels"])[0] < found["loss"]


def test_weights_as_such_are_no_argument_of_a_compiled_function():
    weights = nz.Weights(to_jax(nz.load()), nz.load().config)
    with pytest.raises(TypeError, match="expected Weights or a mapping"):
        jax.jit(lambda weights: nz.forward(weights, [[2, 3]]).last_hidden_state)(weights)


def test_on_several_devices_weights_are_an_argument_and_are_not_closed_over():
    code = """
import sys, jax, jax.numpy as jnp, numpy as np, nezha_np as nz
from jax.sharding import Mesh, NamedSharding, PartitionSpec
arrays = nz.load()
weights = {name: jnp.asarray(array) for name, array in arrays.items()}
ids = np.array([[2, 318, 4, 3], [2, 4, 318, 3]])
expected = nz.masked_lm(arrays, ids).logits

def predict(weights, ids):
    return nz.masked_lm(weights, ids, config=arrays.config).logits

mesh = Mesh(np.array(jax.devices()), ("batch",))
shards = jax.device_put(jnp.asarray(ids), NamedSharding(mesh, PartitionSpec("batch")))
everywhere = jax.device_put(weights, NamedSharding(mesh, PartitionSpec()))
of_pmap = jax.pmap(predict, in_axes=(None, 0))(weights, jnp.asarray(ids)[:, None])[:, 0]
for logits in (of_pmap, jax.jit(predict)(everywhere, shards)):
    np.testing.assert_allclose(logits, expected, atol=1e-4)
for closes_over in (jax.pmap(lambda ids: predict(weights, ids)), jax.jit(lambda ids: predict(weights, ids))):
    try:
        closes_over(jnp.asarray(ids)[:, None] if len(sys.argv) == 1 else shards)
    except ValueError as error:
        print("incompatible devices" in str(error))
    sys.argv.append("shards")
"""
    options = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **options}, check=True
    )
    assert done.stdout == "True\nTrue\n", done.stderr


def test_a_port_in_jax_returns_its_intermediates_and_is_checked_by_the_fixture(nezha_golden):
    bundle = nz.oracle.record_standard("nezha-masked_lm-holes", tolerances="quick")
    weights, jnp = bundle.weights(), jax.numpy

    @jax.jit
    def port(input_ids, token_type_ids, eps, **others):
        words = jnp.asarray(weights["embeddings.word_embeddings.weight"])[input_ids]
        types = jnp.asarray(weights["embeddings.token_type_embeddings.weight"])[token_type_ids]
        x = words + types
        centred = x - x.mean(-1, keepdims=True)
        norm = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        norm = norm * weights["embeddings.LayerNorm.weight"] + weights["embeddings.LayerNorm.bias"]
        embeddings = {"word_embeddings": words, "token_type_embeddings": types, "sum": x, "norm": norm}
        return {"nezha": {"embeddings": embeddings}, "nothing": None}

    captured = functools.partial(nz.oracle.capture_jax, port, rename={"embeddings.norm": "embeddings.LayerNorm"})
    comparison = nezha_golden(functools.partial(captured, eps=bundle.config.layer_norm_eps), bundle)
    assert [row.name for row in comparison.rows] == [
        f"embeddings.{name}" for name in ("word_embeddings", "token_type_embeddings", "sum", "LayerNorm")
    ]
    with pytest.raises(pytest.fail.Exception, match=r"the doctor: embeddings\.LayerNorm is the first that does not"):
        nezha_golden(functools.partial(captured, eps=1e-1), bundle)


def test_what_flax_captured_goes_by_its_modules():
    one = jax.numpy.ones(2)
    captured = {"dense": {"__call__": (one, 2 * one)}, "attention": {"__call__": ((3 * one, 4 * one),)},
                "__call__": (one,)}  # fmt: skip
    found = nz.oracle.capture_jax(lambda: {"bert": captured}, names="flax")
    assert {name: float(array[0]) for name, array in found.items() if name != "bert"} == {
        "dense": 1.0,
        "dense_2": 2.0,
        "attention": 3.0,
    }
    with pytest.raises(
        TypeError, match=r"^function: expected one that returns arrays in a mapping, got one that returns"
    ):
        nz.oracle.capture_jax(lambda: {"nothing": None})
