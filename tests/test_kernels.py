"""Every kernel is its definition, faster; and the threads that it starts leave no trace."""

import contextlib
import contextvars
import functools
import inspect
import multiprocessing
import os
import platform
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import ValuesView
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pytest
from cases import EVERY_HEAD, Case, arrays_of, cases, each_array, weights_for
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits
from tiers import examples

import nezha_np as nz
from nezha_np import threads
from nezha_np.kernels import numpy as kernels
from nezha_np.kernels import numpy_attention, numpy_blocks, numpy_half, numpy_rows
from nezha_np.layers.activations import ACTIVATIONS, gelu
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.relative_position import relative_position_table
from nezha_np.mechanism import View
from nezha_np.mechanism.layer import side_by_side
from nezha_np.model import model
from nezha_np.narrow import float16, matrix

TOLERANCES = {"float32": 2e-6, "float64": 1e-12}  # relative to the largest number that goes in or comes out
DTYPES = st.sampled_from(sorted(TOLERANCES))


def largest(*arrays):
    return max(float(np.abs(array).max(initial=0.0, where=np.isfinite(array))) for array in arrays)


def assert_equal_to_its_definition(layer, x, *arguments, **options):
    """Run a layer by its kernel and by its definition, on arrays that cannot be written to."""
    for argument in (x, *arguments, *options.values()):
        held = argument.weights.values() if isinstance(argument, View) else argument
        for array in held if isinstance(held, (tuple, ValuesView)) else (held,):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
    found = kernels.KERNELS[layer][0](x, *arguments, **options)
    with nz.definitions():
        expected = layer.definition(x, *arguments, **options)
    pairs = [(found, expected)]
    if isinstance(expected, tuple):  # context, probabilities, keys and values
        assert found[1] is None and expected[1] is None
        pairs = [(found[0], expected[0]), *zip(found[2], expected[2], strict=True)]
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        atol = TOLERANCES[x.dtype.name] * max(largest(x, theirs), 1e-30)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


@st.composite
def arrays(draw, shape, dtype, *, scale=1.0):
    """Draw an array of normal numbers: contiguous, turned, or each second of a larger one."""
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    layout = draw(st.sampled_from(["contiguous", "turned", "strided"]))
    if layout == "turned":
        return (scale * generator.normal(size=shape[::-1])).astype(dtype).T
    if layout == "strided":
        return (scale * generator.normal(size=[2 * size for size in shape])).astype(dtype)[
            (slice(None, None, 2),) * len(shape)
        ]
    return (scale * generator.normal(size=shape)).astype(dtype)


@st.composite
def small_blocks(draw):
    """Draw sizes of blocks that small arrays have several of."""
    return mock.patch.multiple(
        numpy_blocks,
        BLOCK=draw(st.integers(1, 40)),
        SCORES=draw(st.integers(1, 200)),
        SCORES_OF_TEXTS=draw(st.integers(1, 2000)),
        QUERIES=draw(st.integers(1, 6)),
        ROWS=draw(st.integers(1, 6)),
        NUMBERS=draw(st.integers(1, 40)),
        PRODUCTS=draw(st.integers(1, 200)),
        TURNED=draw(st.integers(0, 20)),
        TURNED_NUMBERS=draw(st.integers(1, 40)),
    )


# ---------------------------------------------------------------------------------------------------- kernel by kernel


@given(data=st.data(), scale=st.sampled_from([0.01, 1.0, 3.0, 100.0]))
def test_gelu_equals_its_definition(data, scale):
    shape = data.draw(st.sampled_from([(0,), (1,), (7,), (3, 50), (2, 3, 4), (2, 0, 3)]))
    x = data.draw(arrays(shape, "float32", scale=scale))
    with data.draw(st.one_of(small_blocks(), st.just(nullcontext()))):
        assert_equal_to_its_definition(gelu, x)


def test_gelu_is_within_its_promise_of_the_erf_form_wherever_float32_reaches():
    x = np.concatenate(
        [np.linspace(-12, 12, 2_000_001), np.geomspace(1e-30, 1e30, 1001), -np.geomspace(1e-30, 1e30, 1001)]
    )
    x = x.astype("float32")
    exact = gelu.definition(x.astype("float64"))
    assert np.abs(kernels.gelu_kernel(x) - exact)[np.abs(x) <= 1].max() < 2.5e-7
    assert (np.abs(kernels.gelu_kernel(x) - exact) <= 2.5e-7 * np.maximum(1, np.abs(x))).all()


def test_gelu_keeps_nan_and_infinity_as_its_definition_does():
    x = np.array([np.nan, np.inf, -np.inf], "float32")
    with np.errstate(invalid="ignore"):
        assert np.array_equal(kernels.gelu_kernel(x), gelu.definition(x), equal_nan=True)


@given(data=st.data(), dtype=DTYPES, blocks=small_blocks())
def test_layer_norm_equals_its_definition(data, dtype, blocks):
    shape = (*data.draw(st.sampled_from([(), (1,), (5,), (2, 3), (0,)])), data.draw(st.integers(8, 40)))
    x = data.draw(arrays(shape, dtype))
    weight, bias = data.draw(arrays(shape[-1:], dtype)), data.draw(arrays(shape[-1:], dtype))
    with blocks:
        assert_equal_to_its_definition(layer_norm, x, weight, bias, eps=data.draw(st.sampled_from([1e-12, 1e-5])))


@pytest.mark.parametrize("dtype", sorted(TOLERANCES))
@pytest.mark.parametrize("value", [0.0, 1.0, 3.0, 100.0])
def test_layer_norm_of_constant_rows_is_its_bias_as_in_its_definition(dtype, value):
    x, weight, bias = np.full((2, 768), value, dtype), np.ones(768, dtype), np.arange(768, dtype=dtype)
    assert np.array_equal(kernels.layer_norm_kernel(x, weight, bias, eps=1e-12), np.stack([bias, bias]))
    assert_equal_to_its_definition(layer_norm, x, weight, bias, eps=1e-12)


@pytest.mark.parametrize("mean", [10.0, 1000.0])
def test_layer_norm_of_rows_far_from_zero_is_as_near_to_the_exact_result_as_its_definition(mean):
    x = (mean + np.random.default_rng(0).normal(size=(50, 768))).astype("float32")
    ones, zeros = np.ones(768, "float32"), np.zeros(768, "float32")
    exact = layer_norm.definition(x.astype("float64"), ones, zeros, eps=1e-12)
    ours = np.abs(kernels.layer_norm_kernel(x, ones, zeros, eps=1e-12) - exact).max()
    assert ours <= 1.1 * np.abs(layer_norm.definition(x, ones, zeros, eps=1e-12) - exact).max()


@given(data=st.data(), dtype=DTYPES, with_bias=st.booleans())
def test_linear_equals_its_definition(data, dtype, with_bias):
    out, features = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    x = data.draw(arrays((*data.draw(st.sampled_from([(), (4,), (2, 3), (0, 2)])), features), dtype))
    weight = data.draw(arrays((out, features), dtype))
    assert_equal_to_its_definition(linear, x, weight, data.draw(arrays((out,), dtype)) if with_bias else None)


@st.composite
def layers(draw, **options):
    """Draw a family, options and weights, and return the view of a layer, hidden states and a generator."""
    dtype = draw(DTYPES)
    case = draw(cases("forward", hidden_from=8, pruned=False, **options))
    config = case.config.replace(hidden_act=draw(st.sampled_from(sorted(ACTIVATIONS))))
    weights = weights_for("forward", Case(config, case.seed, {}), dtype)
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 12)), config.hidden_size)
    return View(weights).at("encoder.layer.0"), draw(arrays(shape, dtype)), np.random.default_rng(case.seed)


@given(drawn=layers(), blocks=small_blocks())
def test_feed_forward_equals_its_definition(drawn, blocks):
    w, x, _ = drawn
    if w["intermediate.dense.weight"].ndim != 2:  # in groups
        assert kernels.feed_forward_kernel(x, w) is NotImplemented
        return
    with blocks:
        assert_equal_to_its_definition(model.feed_forward, x, w)


@given(drawn=layers(), blocks=small_blocks(), data=st.data())
def test_residual_output_equals_its_definition(drawn, blocks, data):
    w, x, _ = drawn
    if w["output.dense.weight"].ndim != 2:
        return
    inner = data.draw(arrays((*x.shape[:2], w["output.dense.weight"].shape[1]), x.dtype))
    with blocks:
        assert_equal_to_its_definition(model.residual_output, inner, x, w.at("output"))


@examples(300)
@given(drawn=layers(), blocks=small_blocks(), data=st.data())
def test_self_attention_equals_its_definition(drawn, blocks, data):
    w, x, generator = drawn
    config, dtype = w.config, x.dtype
    batch, queries, _ = x.shape
    own = w.at("attention.self")
    kind = getattr(config, "position_embedding_type", None)
    past, states, position = None, None, 0
    cached = (batch, config.attention_heads, data.draw(st.integers(0, 9)), config.head_size)
    source = data.draw(st.sampled_from(["itself", "cache", "encoder", "cached encoder"]))
    too_long = kind == "relative_key" and queries + cached[2] > config.max_position_embeddings
    if config.model_type == "convbert" or too_long:
        source = "itself"
    if "cache" in source:
        past = tuple(generator.normal(size=cached).astype(dtype) for _ in range(2))
        position = cached[2]
    if "encoder" in source:
        states = generator.normal(size=(batch, cached[2] + 1, config.hidden_size)).astype(dtype)
        position = data.draw(st.integers(0, 20))
        kind = None
    keys = queries if source == "itself" else cached[2] + {"cache": queries, "encoder": 1, "cached encoder": 0}[source]
    if keys == 0:  # nothing to attend to: a maximum of nothing
        return
    mask = None
    if data.draw(st.booleans()):
        shape = (data.draw(st.sampled_from([1, batch])), 1, data.draw(st.sampled_from([1, queries])), keys)
        masked = generator.random(shape) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
        mask = masked * np.finfo(dtype).min
    table = None
    if config.model_type == "nezha":
        reach = data.draw(st.integers(0, 12))
        table = relative_position_table(x, head_size=config.head_size, max_relative_position=reach)
    options = {
        "table": table,
        "mask": mask,
        "head_mask": generator.random(config.attention_heads).astype(dtype) if data.draw(st.booleans()) else None,
        "states": states,
        "past": past,
        "position": position,
    }
    assert kernels.self_attention_kernel(x, own, **options, returns_probs=True) is NotImplemented
    if kind == "relative_key_query":
        assert kernels.self_attention_kernel(x, own, **options, returns_probs=False) is NotImplemented
        return
    with blocks:
        assert_equal_to_its_definition(model.self_attention, x, own, **options, returns_probs=False)


@pytest.mark.parametrize("dtype", sorted(TOLERANCES))
@pytest.mark.parametrize("score", [1.0, -1.0, 300.0, -300.0, 3000.0, -3000.0])
def test_scores_whose_exponentials_leave_the_range_of_the_dtype_are_attended_to_as_by_definition(dtype, score):
    config = nz.BertConfig(vocab_size=9, hidden_size=16, num_attention_heads=4, num_hidden_layers=1)
    place = "encoder.layer.0.attention.self"
    biases = {"query": 1.0, "key": score / 2}  # their product is 4 · score / 2 / √4
    tensors = {f"{place}.{name}.bias": np.full(16, number, dtype) for name, number in biases.items()}
    w = View(nz.Weights({**nz.init(config, dtype=dtype), **tensors}, config)).at(place)
    x = np.random.default_rng(0).normal(size=(3, 5, 16)).astype(dtype)
    options = {"table": None, "mask": None, "returns_probs": False}
    with np.errstate(over="raise", invalid="raise"):
        assert_equal_to_its_definition(model.self_attention, x, w, **options)


def test_a_block_holds_the_heads_of_several_short_texts_and_of_one_long_text(monkeypatch):
    weights, blocks = nz.load(), []

    def attend_block(q, *arguments, original=numpy_attention.attend_block, **options):
        blocks.append(q.shape[:2])
        original(q, *arguments, **options)

    monkeypatch.setattr(numpy_attention, "attend_block", attend_block)
    heads, layers = weights.config.num_attention_heads, weights.config.num_hidden_layers
    for texts, length, expected in ((5, 8, [(5, heads)]), (2, 100, [(1, heads)] * 2)):
        blocks.clear()
        nz.forward(weights, np.full((texts, length), 9))
        assert blocks == expected * layers


@pytest.mark.parametrize("family", ["nezha", "bert"])
def test_the_last_layer_computes_the_first_token_alone_where_no_other_is_read(family):
    make = {"nezha": nz.NezhaConfig, "bert": nz.BertConfig}[family]
    config = make(vocab_size=50, hidden_size=8, num_attention_heads=2, num_hidden_layers=3, intermediate_size=6)
    shapes = []

    def feed_forward(x, w):
        shapes.append(x.shape[:2])
        return kernels.feed_forward_kernel(x, w)

    ids = np.random.default_rng(0).integers(1, 50, (4, 7))
    whole, first = [(4, 7)] * 3, [(4, 7), (4, 7), (4, 1)]
    with mock.patch.dict(kernels.KERNELS, {model.feed_forward: (feed_forward, kernels.FLOATS)}):
        for head, options, expected in (
            ("sequence_classification", {}, first),
            ("next_sentence_prediction", {}, first),
            ("sequence_classification", {"output_hidden_states": True}, whole),
            ("sequence_classification", {"output_attentions": True}, whole),
            ("token_classification", {}, whole),
            ("forward", {}, whole),
        ):
            shapes.clear()
            getattr(nz, head)(nz.init(config, None if head == "forward" else head), ids, **options)
            assert shapes == expected, (head, options)


def test_dtypes_that_differ_are_left_to_the_definition():
    x, wide, matrix = np.ones((2, 3), "float32"), np.ones(3), np.ones((4, 3), "float32")
    assert kernels.linear_kernel(x, matrix.astype("float64")) is NotImplemented
    assert kernels.linear_kernel(x, matrix, np.ones(4)) is NotImplemented
    assert kernels.layer_norm_kernel(x, wide, wide, eps=1e-12) is NotImplemented


@pytest.mark.exhaustive
def test_an_activation_of_the_callers_sees_the_whole_batch_once_for_each_layer():
    seen = []

    def act(x):
        seen.append(x.shape)
        return x - x.mean(axis=-2, keepdims=True)

    weights = nz.load(dtype="float64")
    config = weights.config.replace(hidden_act=act)
    with threads_of_blas(2):
        found = nz.forward(weights, BATCH, config=config).last_hidden_state
    assert seen == [(4, 300, config.intermediate_size)] * config.num_hidden_layers
    with nz.definitions():
        expected = nz.forward(weights, BATCH, config=config).last_hidden_state
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * largest(expected))


# ------------------------------------------------------------------------------------------------------------- float16

HALF_ULP = 2.0**-11  # of a number in float16, relative to it


def every_half():
    return np.arange(2**16, dtype=np.uint16).view(np.float16)


@pytest.mark.parametrize("numbers", ["all", "finite"])
@pytest.mark.parametrize("turned", [False, True])
def test_every_number_of_float16_is_the_same_in_float32(numbers, turned):
    x = every_half()
    x = np.where(np.isfinite(x), x, np.float16(0)) if numbers == "finite" else x
    x = x.reshape(256, 256).T if turned else x
    found = float16.widened(x)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    assert np.array_equal(found, x.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(x))


def assert_rounded_once(layer, x, *arguments, **options):
    """Hold a kernel's result in float16 to what the definition gives in float32 for the same numbers."""
    found = kernels.KERNELS[layer][0](x, *arguments, **options)
    wide = [None if array is None else array.astype(np.float32) for array in (x, *arguments)]
    exact = layer.definition(*wide, **options)
    assert found.dtype == np.float16 and found.shape == exact.shape
    close = HALF_ULP * np.abs(exact) + TOLERANCES["float32"] * largest(*[one for one in wide if one is not None], exact)
    assert (np.abs(found - exact) <= close + 2.0**-25).all()  # the last: half of the smallest number


@given(data=st.data(), with_bias=st.booleans(), tile=st.sampled_from([1, 20, 2**20]))
def test_linear_in_float16_is_rounded_once_from_float32(data, with_bias, tile):
    out, features = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    x = data.draw(arrays((*data.draw(st.sampled_from([(), (4,), (2, 3), (0, 2)])), features), "float16"))
    weight = data.draw(arrays((out, features), "float16"))
    with mock.patch.object(matrix, "TILE", tile), mock.patch.object(float16, "SMALL", 1):
        assert_rounded_once(linear, x, weight, data.draw(arrays((out,), "float16")) if with_bias else None)


@given(data=st.data(), scale=st.sampled_from([0.01, 1.0, 100.0]))
def test_gelu_and_norms_in_float16_are_rounded_once_from_float32(data, scale):
    x = data.draw(arrays((3, data.draw(st.integers(8, 40))), "float16", scale=scale))
    assert_rounded_once(gelu, x)
    weight, bias = data.draw(arrays(x.shape[-1:], "float16")), data.draw(arrays(x.shape[-1:], "float16"))
    assert_rounded_once(layer_norm, x, weight, bias, eps=1e-12)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@examples(20, quick=4)
@given(data=st.data(), parts=st.integers(1, 2))
def test_a_pass_in_float16_is_nearer_to_the_exact_one_than_by_definitions(family, head, data, parts):
    case = data.draw(cases(head, family, hidden_from=8, reference=False))
    weights = weights_for(head, case, "float16")
    inputs = each_array(lambda array: array.astype("float16") if array.dtype == np.float64 else array, case.inputs)
    with mock.patch.object(numpy_blocks, "TOKENS", 1), threads_of_blas(parts):
        fast = arrays_of(getattr(nz, head)(weights, **inputs))
    with nz.definitions():
        plain = arrays_of(getattr(nz, head)(weights, **inputs))
        wide = each_array(lambda array: array.astype("float64") if array.dtype == np.float16 else array, inputs)
        exact = arrays_of(getattr(nz, head)(weights.to(dtype="float64"), **wide))
    assert fast.keys() == plain.keys()
    for name, array in exact.items():
        assert fast[name].dtype == plain[name].dtype and fast[name].shape == plain[name].shape, name
        assert np.array_equal(np.isnan(fast[name]), np.isnan(array)), name  # a loss without any label
        by_kernels, by_definitions = largest(fast[name] - array), largest(plain[name] - array)
        assert by_kernels <= 1.5 * by_definitions + 4 * HALF_ULP * max(1.0, largest(array)), name


def test_the_callers_activation_gets_float16_and_so_do_functions_of_an_unknown_family():
    weights, seen = nz.load(dtype="float16"), set()

    def act(x):
        seen.add(x.dtype.name)
        return x

    nz.forward(weights, [[2, 3, 4]], config=weights.config.replace(hidden_act=act))
    assert seen == {"float16"}
    with mock.patch.object(numpy_half, "SCORES", {}):
        view = weights.at("encoder")
        assert (
            numpy_half.encoder_kernel(np.zeros((1, 2, 128), "float16"), view, table=None, call=None) is NotImplemented
        )


def test_dtypes_that_differ_are_left_to_the_definition_in_float16_too():
    x, wide, matrix = np.ones((2, 3), "float16"), np.ones(3), np.ones((4, 3), "float32")
    assert numpy_half.linear_kernel(x, matrix) is NotImplemented
    assert numpy_half.layer_norm_kernel(x, wide, wide, eps=1e-12) is NotImplemented


def test_a_pass_in_float16_takes_no_memory_for_weights_in_float32():
    config = nz.BertConfig(
        vocab_size=50, hidden_size=256, num_attention_heads=4, num_hidden_layers=6, intermediate_size=1024
    )
    weights = nz.init(config, dtype="float16")
    nz.forward(weights, [[2, 3]])
    tracemalloc.start()
    try:
        nz.forward(weights, [[2, 3]])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    largest_two = 2 * 4 * 256 * 1024  # bytes in float32
    assert peak < 1.5 * largest_two < sum(array.nbytes for array in weights.values())


# ------------------------------------------------------------------------------------------------------- a whole pass


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@examples(30, quick=4)
@given(data=st.data(), dtype=DTYPES, blocks=small_blocks(), parts=st.integers(1, 3), divided=st.booleans())
def test_a_pass_with_kernels_is_the_pass_by_definitions(family, head, data, dtype, blocks, parts, divided):
    case = data.draw(cases(head, family, hidden_from=8, reference=False))
    weights = weights_for(head, case, dtype)
    inputs = each_array(lambda array: array.astype(dtype) if array.dtype == np.float64 else array, case.inputs)
    tokens = 1 if divided else numpy_blocks.TOKENS  # or kept feature by feature
    with blocks, mock.patch.object(numpy_blocks, "TOKENS", tokens), threads_of_blas(parts):
        fast = arrays_of(getattr(nz, head)(weights, **inputs))
    with nz.definitions():
        plain = arrays_of(getattr(nz, head)(weights, **inputs))
    assert fast.keys() == plain.keys()
    for name, array in plain.items():
        assert fast[name].dtype == array.dtype == dtype, name
        atol = {"float32": 1e-5, "float64": 1e-12}[dtype] * max(1.0, largest(array))
        np.testing.assert_allclose(fast[name], array, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("shape", [(1, 2), (2, 9), (8, 16), (numpy_blocks.FEW, 1), (1, numpy_blocks.FEW + 1)])
def test_few_tokens_are_kept_feature_by_feature_inside_and_come_back_row_by_row(shape):
    config = nz.BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, is_decoder=True)
    weights, seen = nz.init(config), []

    def watched(x, w, original=model.feed_forward):
        seen.append(numpy_blocks.by_feature(x.reshape(-1, 16)))
        return original(x, w)

    with mock.patch.object(model, "feed_forward", watched):
        out = nz.forward(weights, np.ones(shape, int), output_hidden_states=True)
    assert seen == [np.prod(shape) <= numpy_blocks.FEW] * 2
    held = [out.last_hidden_state, *out.hidden_states, *(array for layer in out.past_key_values for array in layer)]
    assert not seen[0] or all(array.flags.c_contiguous for array in held)


@pytest.mark.parametrize("dtype", sorted(TOLERANCES))
@pytest.mark.parametrize("features", [1, 7, 9, 18, 768])
@pytest.mark.parametrize("value", [0.0, 1.0, 3.0, 100.0])
def test_rows_that_are_kept_feature_by_feature_are_normalised_as_others(dtype, features, value):
    rows = np.random.default_rng(0).normal(size=(5, features)).astype(dtype)
    rows[1] = value
    weight, bias = rows[2].copy(), rows[3].copy()
    x = np.asfortranarray(rows)
    numpy_rows.normalise_in_place(x, weight, bias, 1e-12)
    expected = layer_norm.definition(rows, weight, bias, eps=1e-12)
    np.testing.assert_allclose(x, expected, rtol=0, atol=TOLERANCES[dtype] * max(1.0, largest(expected)))
    assert np.array_equal(x[1], bias)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("make", [nz.NezhaConfig, nz.BertConfig, nz.ConvBertConfig])
@pytest.mark.parametrize("length", [3, 32, 130, 300])
def test_float32_hidden_states_stay_close_to_the_float64_definition(make, length):
    config = make(vocab_size=50, num_hidden_layers=4, hidden_size=128, num_attention_heads=4, intermediate_size=256)
    exact = nz.init(config, dtype="float64")
    ids = np.random.default_rng(0).integers(1, 50, (4, length))
    mask = np.arange(length) < [[length], [1], [length // 2], [length]]
    found = nz.forward(exact.to(dtype="float32"), ids, attention_mask=mask).last_hidden_state
    with nz.definitions():
        expected = nz.forward(exact, ids, attention_mask=mask).last_hidden_state
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


# ------------------------------------------------------------------------------------------------------------ threads


class Blas:
    """A stand-in for threadpoolctl's view of the BLAS libraries: one library, which counts its changes."""

    def __init__(self, num_threads, *others):
        self.num_threads, self.changes = num_threads, 0
        self.lib_controllers = [self, *others]

    def set_num_threads(self, count):
        self.num_threads = count
        self.changes += 1


def threads_of_blas(count):
    blas = Blas(count)
    return mock.patch.object(threads, "_blas", lambda: blas)


BATCH = np.random.default_rng(0).integers(5, 99, (4, 300))


def test_a_batch_is_divided_among_threads_and_gives_the_same():
    weights, seen = nz.load(), set()

    def watched(*arguments, **options):
        seen.add(threading.get_ident())
        return definition(*arguments, **options)

    definition = model.encoder.definition
    with threads_of_blas(4), mock.patch.object(model.encoder, "definition", watched):
        divided = nz.forward(weights, BATCH, output_hidden_states=True)
    assert len(seen) > 1
    with threads_of_blas(1):
        whole = nz.forward(weights, BATCH, output_hidden_states=True)
    for name, array in arrays_of(whole).items():
        np.testing.assert_allclose(arrays_of(divided)[name], array, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_small_passes_run_side_by_side_and_come_back_in_order_with_the_numbers_of_one_thread(count):
    weights, seen = nz.load(), []
    texts = [BATCH[:1, : 20 + 3 * index] for index in range(9)]

    def run(ids):
        seen.append(threading.get_ident())
        return nz.forward(weights, ids).last_hidden_state

    with threadpool_limits(1), threads_of_blas(1):
        expected = [run(ids) for ids in texts]
    seen.clear()
    blas = Blas(count)
    with threadpool_limits(1), mock.patch.object(threads, "_blas", lambda: blas):
        found = list(side_by_side(weights.word_embeddings, [functools.partial(run, ids) for ids in texts]))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(seen) == 9 and blas.num_threads == count
    assert (len(set(seen)) > 1) == (count > 1)


def test_what_one_of_several_passes_raises_is_raised():
    def fail():
        raise ValueError("texts[1]: no")

    with threads_of_blas(2), pytest.raises(ValueError, match=r"texts\[1\]: no"):
        list(side_by_side(np.ones(1), [lambda: 0, fail, lambda: 2]))
    assert threads._free.get() == 1


@pytest.mark.exhaustive
def test_eight_passes_at_once_are_right_and_leave_blas_its_threads():
    weights = nz.load()
    expected = nz.forward(weights, BATCH).last_hidden_state
    found, blas, held = {}, Blas(4), set()
    definition = model.encoder.definition

    def watched(*arguments, **options):
        held.add(blas.num_threads)
        return definition(*arguments, **options)

    def run(index):
        found[index] = nz.forward(weights, BATCH).last_hidden_state

    with mock.patch.object(threads, "_blas", lambda: blas), mock.patch.object(model.encoder, "definition", watched):
        runners = [threading.Thread(target=run, args=(index,)) for index in range(8)]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
    assert blas.num_threads == 4 and held == {1}
    for index in range(8):
        np.testing.assert_allclose(found[index], expected, rtol=0, atol=1e-5)


OVERLAP = """
import threading
import threadpoolctl
from nezha_np.threads import BLAS_THREADS, _blas

def counts():
    return [library.num_threads for library in _blas().lib_controllers]

def enter():
    with BLAS_THREADS.held_to_one() as share:
        seen.append((share, counts()))
        inside.set()
        leave.wait()

assert counts() == [2], counts()
seen, inside, leave = [], threading.Event(), threading.Event()
other = threading.Thread(target=enter)
with BLAS_THREADS.held_to_one() as share:  # this thread enters first, and the other leaves last
    assert (share, counts()) == (2, [1])
    other.start()
    inside.wait()
assert (seen, counts()) == ([(1, [1])], [1])
leave.set()
other.join()
assert counts() == [2], counts()
other = threading.Thread(target=enter)  # another thread alone
other.start()
other.join()
assert (seen[1], counts()) == ((2, [1]), [2])

def limit():
    with threadpoolctl.threadpool_limits(1):
        limited.append(counts())

limited = []  # a limit of the user's, in any thread, still has its effect
user = threading.Thread(target=limit)
user.start()
user.join()
assert (limited, counts()) == ([[1]], [2])
with threadpoolctl.threadpool_limits(1), BLAS_THREADS.held_to_one() as share:
    assert (share, counts()) == (1, [1])
assert counts() == [2]
threadpoolctl.threadpool_limits(2)  # this thread owns them from now on: passes divide their work all the same
with BLAS_THREADS.held_to_one() as share:
    assert (share, counts()) == (2, [1])
other = threading.Thread(target=enter)
other.start()
other.join()
assert (seen[2], counts()) == ((2, [1]), [2])
print("right")
"""


def test_the_real_blas_has_its_threads_back_whoever_enters_first_and_leaves_last():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="the package works without it, and divides nothing")
    found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    if {library.internal_api for library in found} != {"openblas"}:
        pytest.skip("NumPy's BLAS is not OpenBLAS")
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    ran = subprocess.run([sys.executable, "-c", OVERLAP], capture_output=True, text=True, env=environment)
    assert ran.stdout == "right\n", ran.stderr


FAULTS = """
import resource, numpy as np, nezha_np as nz
weights, ids = nz.load(), np.full((1, 120), 318)
for passes in (3, 10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(passes):
        nz.forward(weights, ids)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / passes)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep memory by rules of their own")
def test_a_pass_of_a_loaded_model_asks_the_system_for_no_memory_again():
    """It did for 1,900 pages of 4 KiB: half a megabyte in each of four layers, several times."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}  # Dask sets one
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, env=environment)
    assert float(ran.stdout) < 50, ran.stderr


def test_a_share_is_free_inside_and_nothing_outside():
    with threads_of_blas(4):
        with threads.BLAS_THREADS.held_to_one():
            assert threads.share_out(2, lambda part, parts: threads._free.get()) == [2, 2]
            assert threads._free.get() == 4
        with pytest.raises(KeyError), threads.BLAS_THREADS.held_to_one():
            raise KeyError
    assert threads._free.get() == 1


def test_the_library_with_the_fewest_threads_counts_and_each_gets_its_own_back():
    few = Blas(2)
    many = Blas(8, few)
    with mock.patch.object(threads, "_blas", lambda: many), threads.BlasThreads().held_to_one() as share:
        assert (share, many.num_threads, few.num_threads) == (2, 1, 1)
    assert (many.num_threads, few.num_threads) == (8, 2)


def test_a_blas_whose_threads_somebody_else_owns_is_left_alone():
    blas = Blas(4)
    blas.set_num_threads = lambda count: None
    with mock.patch.object(threads, "_blas", lambda: blas), threads.BlasThreads().held_to_one() as share:
        assert share == 1


def test_a_blas_with_threads_of_openmp_is_left_alone():
    blas = Blas(4)
    blas.threading_layer = "openmp"
    with mock.patch.object(threads, "_blas", lambda: blas), threads.BlasThreads().held_to_one() as share:
        assert (share, blas.changes) == (1, 0)


@pytest.mark.exhaustive
def test_where_no_thread_can_be_started_all_parts_run_in_this_one():
    weights = nz.load()
    expected = nz.forward(weights, BATCH).last_hidden_state
    with (
        threads_of_blas(2),
        mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")),
    ):
        found = nz.forward(weights, BATCH).last_hidden_state
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_passes_that_overlap_out_of_order_restore_the_threads_when_the_last_one_leaves():
    blas, guard = Blas(6), threads.BlasThreads()
    contexts = [contextvars.copy_context() for _ in range(2)]  # of two threads
    with mock.patch.object(threads, "_blas", lambda: blas):
        passes = [guard.held_to_one() for _ in contexts]
        shares = [context.run(held.__enter__) for context, held in zip(contexts, passes, strict=True)]
        assert (shares, blas.num_threads) == ([6, 3], 1)
        contexts[0].run(passes[0].__exit__, None, None, None)
        assert blas.num_threads == 1
        contexts[1].run(passes[1].__exit__, None, None, None)
        assert (blas.num_threads, blas.changes) == (6, 2)  # to one, and back


def test_a_limit_that_the_caller_has_set_is_kept():
    blas, guard = Blas(1), threads.BlasThreads()
    with mock.patch.object(threads, "_blas", lambda: blas), guard.held_to_one() as share:
        assert share == 1
    assert blas.num_threads == 1 and blas.changes == 0


@pytest.mark.exhaustive
def test_without_threadpoolctl_everything_runs_in_one_thread():
    weights = nz.load()
    expected = nz.forward(weights, BATCH).last_hidden_state
    threads._blas.cache_clear()
    try:
        with mock.patch.dict(sys.modules, {"threadpoolctl": None}):
            assert threads._blas() is None
            found = nz.forward(weights, BATCH).last_hidden_state
    finally:
        threads._blas.cache_clear()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_an_error_in_one_part_is_raised_and_leaves_blas_its_threads():
    blas = Blas(2)

    def broken(x, *arguments, **options):
        raise MemoryError("no room")

    with (
        mock.patch.object(threads, "_blas", lambda: blas),
        mock.patch.object(model.encoder, "definition", broken),
        pytest.raises(MemoryError, match="no room"),
    ):
        nz.forward(nz.load(), BATCH)
    assert blas.num_threads == 2
    assert not threads.BLAS_THREADS._passes


def test_an_error_in_a_part_of_another_thread_is_raised_when_all_have_ended():
    ended = []

    def run(part, parts):
        if part:
            raise MemoryError("no room")
        ended.append(part)

    with threads_of_blas(2), threads.BLAS_THREADS.held_to_one(), pytest.raises(MemoryError, match="no room"):
        threads.share_out(2, run)
    assert ended == [0]


def test_the_threads_of_a_pass_wait_for_more_work_and_end_with_it():
    before, met = threading.active_count(), set()

    def inner(part, parts):
        met.add(threading.get_ident())
        return part

    with threads_of_blas(4), threads.BLAS_THREADS.held_to_one():
        for _ in range(20):
            assert threads.share_out(2, lambda part, parts: threads.share_out(2, inner)) == [[0, 1], [0, 1]]
            assert threads.share_out(4, inner) == [0, 1, 2, 3]
        assert threading.active_count() == before + 3 and len(met) == 4  # this one and three more
    assert threading.active_count() == before
    assert threads._workers.get() is None


def test_an_interruption_while_the_threads_of_a_pass_end_leaves_none_for_the_next_work():
    blas = Blas(2)
    with mock.patch.object(threads, "_blas", lambda: blas):
        with (
            mock.patch.object(threads.Workers, "close", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
            threads.BLAS_THREADS.held_to_one(),
        ):
            pass
        assert (blas.num_threads, threads._free.get(), threads._workers.get()) == (2, 1, None)
        assert threads.share_out(2, lambda part, parts: (part, parts)) == [(0, 1)]


NEVER = ("try:", "with self.lock:")


def _lines_of_a_pass(interrupted_at):
    """Run a pass that divides its work, and interrupt it at a line of `threads.py`; return how many there are.

    Python answers a signal where a function is called or entered, or a loop goes back: never at a ``try``, nor before a
    ``with`` gives back a lock.
    """
    source, lines, main = inspect.getsource(threads).split("\n"), 0, threading.get_ident()

    def at_line(frame, event, _):
        nonlocal lines
        if event == "line" and source[frame.f_lineno - 1].strip() not in NEVER and threading.get_ident() == main:
            lines += 1
            if lines == interrupted_at:
                raise KeyboardInterrupt
        return at_line

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: at_line if frame.f_code.co_filename == threads.__file__ else None)
    try:
        with threads.BLAS_THREADS.held_to_one():
            threads.share_out(2, lambda part, parts: part)
    finally:
        sys.settrace(before)
    return lines


def test_an_interruption_at_any_line_of_a_pass_leaves_blas_its_threads():
    blas, before = Blas(2), threading.active_count()
    with mock.patch.object(threads, "_blas", lambda: blas):
        lines = _lines_of_a_pass(0)
        assert lines > 50
        for line in range(1, lines + 1):
            with contextlib.suppress(KeyboardInterrupt):
                _lines_of_a_pass(line)
            left = (blas.num_threads, threads._free.get(), threads._workers.get(), len(threads.BLAS_THREADS._passes))
            assert left == (2, 1, None, 0), line
            assert not threads.BLAS_THREADS.lock.locked()
    assert threading.active_count() == before


def test_the_next_pass_does_what_an_interrupted_one_has_left():
    """As where the interruption itself is interrupted."""
    blas, guard = Blas(2), threads.BlasThreads()
    with mock.patch.object(threads, "_blas", lambda: blas):
        lost = guard.held_to_one()
        assert (lost.__enter__(), blas.num_threads) == (2, 1)
        threads._free.set(1)
        threads._workers.set(None)
        del lost
        with guard.held_to_one() as share:
            assert (share, blas.num_threads) == (2, 1)
        assert blas.num_threads == 2


def test_the_callers_error_state_holds_in_every_thread():
    with threads_of_blas(2), threads.BLAS_THREADS.held_to_one(), np.errstate(under="raise"):
        states = threads.share_out(2, lambda part, parts: np.geterr())
    assert [state["under"] for state in states] == ["raise", "raise"]


def _forked(guard, blas, answer):
    before = len(guard._passes), blas.num_threads
    with guard.held_to_one() as share:
        answer.put((*before, share, blas.num_threads))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_during_a_pass_starts_with_all_threads():
    blas, context = Blas(2), multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    with mock.patch.object(threads, "_blas", lambda: blas), threads.BLAS_THREADS.held_to_one():
        child = context.Process(target=_forked, args=(threads.BLAS_THREADS, blas, answer))
        child.start()
        assert answer.get() == (0, 2, 2, 1)
        child.join()
    assert blas.num_threads == 2
