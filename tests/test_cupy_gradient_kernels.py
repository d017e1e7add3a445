"""The kernels for CuPy of gradients are their definitions: on a GPU, or on the CPU as test_cupy_kernels says."""

import argparse
import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import test_cupy_kernels as on_cupy
from cases import EVERY_LABELLED_HEAD, cases, each_array, weights_for
from hypothesis import given
from hypothesis import strategies as st
from test_cupy_kernels import DTYPES, LAYOUTS, SEEDS, WIDTHS, close, drawn, host, laid_out, moved, small, weights_of
from tiers import examples

import nezha_np as nz
from nezha_np.layers.activations import gelu
from nezha_np.layers.attention import attention_probs
from nezha_np.layers.embedding import embedding
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.losses import cross_entropy
from nezha_np.layers.relative_position import position_context, position_scores, relative_position_table

kernels = on_cupy.kernels


def assert_gradient_equals_its_definition(kernels, layer, dtype, layout, dy, y, *arguments, **options):
    """Run the gradient of a layer by its kernel and by its definition in float64; an argument may be read or not."""
    given_ = (dy, y, *arguments)
    there = [None if array is None else laid_out(kernels, array, layout) for array in given_]
    found = kernels.GRADIENT_KERNELS[layer][0](*there, **options)
    exact = [array.astype(float) if array is not None and array.dtype.kind == "f" else array for array in given_]
    expected = layer.gradient(*exact, **options)
    found, expected = (part if isinstance(part, tuple) else (part,) for part in (found, expected))
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is None:
            assert ours is None
        else:
            close(ours, theirs, dtype, dy, *arguments[:1])
    found = [part for part in found if part is not None]
    # The walk back writes sums into what a kernel returns: nothing else may hold it, and no argument has changed.
    for index, one in enumerate(found):
        others = [array for array in (*found[:index], *there) if array is not None]
        assert not any(np.shares_memory(host(one), host(other)) for other in others)
    assert all(np.array_equal(host(one), array) for one, array in zip(there, given_, strict=True) if one is not None)
    return found


def assert_writes_over(kernels, layer, found, dy, *others, **options):
    """Let a kernel write its result over dy: it is what it returns beside it. It cannot write where rows are apart."""
    kernel, there = kernels.GRADIENT_KERNELS[layer][0], [kernels.cupy.asarray(array) for array in others]
    over = kernels.cupy.asarray(dy)
    assert kernel(over, *there, **options, out=over) is over
    assert np.array_equal(host(over), host(found))
    apart = laid_out(kernels, dy, "strided")
    beside = kernel(apart, *there, **options, out=apart)
    assert np.array_equal(host(beside), host(found)) and np.array_equal(host(apart), dy)


@examples(25)
@given(dtype=DTYPES, layout=LAYOUTS, seed=SEEDS, rows=st.integers(0, 5), width=WIDTHS, scale=st.floats(0.01, 30.0))
def test_the_gradient_of_gelu(kernels, dtype, layout, seed, rows, width, scale):
    x, dy = drawn(seed, (rows, width), dtype, scale), drawn(seed + 1, (rows, width), dtype)
    y = gelu.definition(x)
    (found,) = assert_gradient_equals_its_definition(kernels, gelu, dtype, layout, dy, y, x)
    if rows and width > 1:
        assert_writes_over(kernels, gelu, found, dy, y, x)


def test_the_gradient_of_gelu_at_zero_of_the_largest_numbers_of_nan_and_of_one_number(kernels):
    x = np.array([0.0, 1e-45, 20.0, -20.0, 1e30, -1e30, np.nan], "float32")
    there = kernels.cupy.asarray(x)
    found = kernels.gelu_gradient_kernel(kernels.cupy.asarray(np.ones_like(x)), there, there)
    np.testing.assert_allclose(host(found), [0.5, 0.5, 1.0, 0.0, 1.0, 0.0, np.nan], atol=1e-7)
    one = np.array(1.0, "float32")
    there = kernels.cupy.asarray(one)
    close(kernels.gelu_gradient_kernel(there, there, there), gelu.gradient(one, one, one), "float32")


TOKENS = st.one_of(st.integers(0, 5), st.sampled_from([63, 64, 65, 130]))


@examples(30)
@given(
    dtype=DTYPES, layout=LAYOUTS, seed=SEEDS, tokens=TOKENS, width=WIDTHS, mean=st.floats(-3.0, 3.0), part=st.booleans()
)
def test_the_gradients_of_layer_norm(kernels, dtype, layout, seed, tokens, width, mean, part):
    if tokens > 5:
        width = min(width, 70)  # the stand-in takes its time for each thread
    x = drawn(seed, (tokens, width), dtype) + np.dtype(dtype).type(mean)
    x[:, : min(width, 2)] += np.array([4.0, -4.0], dtype)[:width]  # a norm of equal numbers would amplify a rounding
    dy = drawn(seed + 1, x.shape, dtype)
    gamma, beta = drawn(seed + 2, width, dtype), drawn(seed + 3, width, dtype)
    with pytest.MonkeyPatch.context() as patch:
        if part:
            patch.setattr(sys.modules["nezha_np.kernels.cupy_gradients"], "TOKENS", 2)
        assert_gradient_equals_its_definition(kernels, layer_norm, dtype, layout, dy, None, x, gamma, beta, eps=1e-5)


@pytest.mark.parametrize("shape", [(7,), (1, 1, 7), (2, 3, 33), (2, 0, 5)])
def test_the_gradients_of_layer_norm_have_the_shapes_of_what_they_are_of(kernels, shape):
    x, dy = drawn(0, shape, "float32"), drawn(1, shape, "float32")
    gamma, beta = drawn(2, shape[-1], "float32"), drawn(3, shape[-1], "float32")
    arguments = dy, None, x, gamma, beta
    assert_gradient_equals_its_definition(kernels, layer_norm, "float32", "contiguous", *arguments, eps=1e-5)


@examples(25)
@given(
    dtype=DTYPES,
    layout=LAYOUTS,
    seed=SEEDS,
    shape=st.tuples(st.integers(0, 3), st.sampled_from([1, 2, 7, 60])),
    width=st.integers(1, 40),
    count=st.sampled_from([1, 2, 9, 300]),
    integers=st.sampled_from(["int32", "int64"]),
    padding_idx=st.sampled_from([None, 0, 1]),
    part=st.sampled_from([2, 64]),
)
def test_the_gradient_of_embedding(kernels, dtype, layout, seed, shape, width, count, integers, padding_idx, part):
    ids = np.random.default_rng(seed).integers(0, count, shape).astype(integers)
    # Each number is small beside the sum of many: float16 would round it off.
    dy, table = drawn(seed + 1, (*shape, width), dtype, 0.1) + np.dtype(dtype).type(1), np.zeros((count, width), dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["nezha_np.kernels.cupy_gradients"], "TOKENS", part)
        arguments = dtype, layout, dy, None, ids, table
        assert_gradient_equals_its_definition(kernels, embedding, *arguments, padding_idx=padding_idx)


def test_ids_that_are_out_of_range_are_wrapped_as_the_look_up_wraps_them(kernels):
    dy, table = drawn(0, (4, 3), "float32"), np.zeros((5, 3), "float32")
    there = [kernels.cupy.asarray(array) for array in (dy, np.array([-1, 4, 7, 2]), table)]
    _, found = kernels.embedding_gradient_kernel(there[0], None, *there[1:])
    _, expected = embedding.gradient(dy.astype(float), None, np.array([4, 4, 2, 2]), table.astype(float))
    close(found, expected, "float32", dy)


def test_the_sums_over_tokens_have_the_same_bits_on_each_run_and_for_any_number_of_blocks(kernels, monkeypatch):
    x, dy, ones = drawn(0, (300, 33), "float32"), drawn(1, (300, 33), "float32"), np.ones(33, "float32")
    ids, table = np.random.default_rng(2).integers(0, 3, 300), np.zeros((3, 33), "float32")

    def run():
        there = [kernels.cupy.asarray(array) for array in (dy, x, x, ones, ones)]
        of_table = [kernels.cupy.asarray(array) for array in (dy, dy, ids, table)]
        found = kernels.layer_norm_gradient_kernel(*there, eps=1e-5), kernels.embedding_gradient_kernel(*of_table)[1:]
        return [host(part) for parts in found for part in parts]

    first = run()
    for blocks in (kernels.cuda.BLOCKS, 3):
        monkeypatch.setattr(kernels.cuda, "BLOCKS", blocks)
        assert all(np.array_equal(one, other) for one, other in zip(first, run(), strict=True))
    assert "atomicAdd" not in kernels.cuda.SOURCE.read_text(encoding="utf-8")


@examples(25)
@given(dtype=DTYPES, layout=LAYOUTS, seed=SEEDS, shape=st.tuples(*[st.integers(1, 3)] * 3), keys=WIDTHS)
def test_the_gradient_of_attention_probs(kernels, dtype, layout, seed, shape, keys):
    shape = (*shape, keys)
    y = attention_probs.definition(drawn(seed, shape, "float32", 4.0), scale=1.0).astype(dtype)
    dy, scores = drawn(seed + 1, shape, dtype), np.zeros(shape, dtype)
    options = {"scale": 0.3}
    arguments = dtype, layout, dy, y, scores
    (found,) = assert_gradient_equals_its_definition(kernels, attention_probs, *arguments, None, **options)
    if keys > 1:
        assert_writes_over(kernels, attention_probs, found, dy, y, scores, **options)


@examples(30)
@given(
    dtype=DTYPES,
    layout=LAYOUTS,
    seed=SEEDS,
    shape=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 9)),
    keys=WIDTHS,
    reach=st.sampled_from([0, 1, 2, 5, 64]),
    past=st.integers(0, 300),
)
def test_the_position_scores_and_the_gradients_of_both_position_terms(
    kernels, dtype, layout, seed, shape, keys, reach, past
):
    table = relative_position_table(np.zeros(1, dtype), head_size=4, max_relative_position=reach)
    q, by_key = drawn(seed, (*shape, 4), dtype), drawn(seed + 1, (*shape, keys), dtype)
    there = laid_out(kernels, q, layout), laid_out(kernels, table, layout)
    found = kernels.KERNELS[position_scores][0](*there, keys=keys, past=past)
    expected = position_scores.definition(q.astype(float), table.astype(float), keys=keys, past=past)
    close(found, expected, dtype, q)
    many = by_key / np.dtype(dtype).type(keys)  # as probabilities are: their sum is no larger for more keys
    options = {"past": past}
    of_scores = position_scores, dtype, layout, many, None, q, table
    assert_gradient_equals_its_definition(kernels, *of_scores, keys=keys, **options)
    of_context = position_context, dtype, layout, q, None, many, table
    assert_gradient_equals_its_definition(kernels, *of_context, **options)


@examples(25)
@given(
    dtype=DTYPES,
    layout=LAYOUTS,
    seed=SEEDS,
    rows=st.integers(0, 5),
    classes=WIDTHS,
    scale=st.sampled_from([1.0, 100.0]),
    counted=st.sampled_from([0.0, 0.5, 1.0]),
    ignore_index=st.sampled_from([-100, 0]),
    dloss=st.sampled_from([1.0, 1024.0]),
)
def test_the_gradient_of_cross_entropy(
    kernels, dtype, layout, seed, rows, classes, scale, counted, ignore_index, dloss
):
    generator = np.random.default_rng(seed)
    labels = np.where(generator.random(rows) < counted, generator.integers(0, classes, rows), ignore_index)
    logits, dloss = drawn(seed, (rows, classes), dtype, scale), np.array(dloss, "float32")
    there = [kernels.cupy.asarray(dloss), None, laid_out(kernels, logits, layout), kernels.cupy.asarray(labels)]
    found = kernels.GRADIENT_KERNELS[cross_entropy][0](*there, ignore_index=ignore_index)
    expected = cross_entropy.gradient(dloss, None, logits.astype(float), labels, ignore_index=ignore_index)
    close(found, expected, dtype, dloss / max(1, rows))
    assert np.array_equal(host(there[2]), logits) and np.array_equal(host(there[3]), labels)


def test_gradients_of_other_dtypes_are_left_to_the_definition(kernels):
    single, half = (kernels.cupy.asarray(np.ones((1, 1, 3, 3), dtype)) for dtype in ("float32", "float16"))
    vector, table = (kernels.cupy.asarray(np.ones(shape, "float16")) for shape in (3, (5, 3)))
    double, labels = kernels.cupy.asarray(np.ones((1, 3))), kernels.cupy.asarray(np.ones(1, "int64"))
    refused = [
        kernels.gelu_gradient_kernel(single, half, half),
        kernels.layer_norm_gradient_kernel(single, single, single, vector, vector, eps=1e-5),
        kernels.embedding_gradient_kernel(single, single, single, table),
        kernels.cross_entropy_gradient_kernel(single, single, double, labels),
        kernels.attention_probs_gradient_kernel(single, half, half, scale=1.0),
        kernels.position_scores_gradient_kernel(single, single, single, table, keys=3),
        kernels.position_context_gradient_kernel(single, single, single, table),
    ]
    assert all(one is NotImplemented for one in refused)
    for layer, (_, dtypes) in kernels.GRADIENT_KERNELS.items():
        assert [dtype.name for dtype in dtypes] == ["float32", "float16"][: 1 if layer is cross_entropy else 2]


# ------------------------------------------------------------------------------------------------------- whole models


@pytest.mark.parametrize("checkpoint_layers", [False, True])
@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
@examples(4, quick=1)
@given(data=st.data())
def test_the_gradients_of_every_head_are_those_by_definitions(kernels, family, head, checkpoint_layers, data):
    case = data.draw(cases(head, family, hidden_from=8, reference=False))
    config = case.config.replace(layer_norm_eps=1e-3, hidden_act=data.draw(st.sampled_from(["gelu", "relu"])))
    weights = nz.Weights(weights_for(head, case, "float32"), config)
    inputs = each_array(lambda array: array.astype("float32") if array.dtype == np.float64 else array, case.inputs)
    names = ("inputs_embeds", "encoder_hidden_states", "past_key_values")
    given_ = {name: value for name, value in inputs.items() if name in names}
    run = nz.value_and_grad(getattr(nz, head), dropout_seed=3, checkpoint_layers=checkpoint_layers)
    with nz.definitions():
        exact = inputs | each_array(lambda array: array.astype(float), given_)
        plain, expected = run(weights.to(dtype="float64"), **exact)
    out, found = run(moved(kernels, weights), **inputs | each_array(kernels.cupy.asarray, given_))
    assert float(host(out.loss)) == pytest.approx(float(plain.loss), rel=2e-5, abs=2e-5, nan_ok=True)
    assert found.keys() == expected.keys()
    scale = max(1e-30, *(np.abs(gradient).max(initial=0.0) for gradient in expected.values()))
    for name, gradient in expected.items():
        assert found[name].dtype == "float32"
        np.testing.assert_allclose(host(found[name]), gradient, rtol=0, atol=2e-5 * scale, err_msg=name)


@on_cupy.with_the_stand_in
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("family", ["nezha", "bert", "convbert"])
def test_the_walk_back_launches_the_kernels_of_gradients(family, dtype):
    with on_cupy.kernels_with({"cupy": on_cupy.StandIn(), "array_api_compat.cupy": on_cupy.Namespace()}) as kernels:
        weights = moved(kernels, weights_of(small(family), dtype))
        run = nz.value_and_grad(nz.masked_lm)
        on_cupy.LAUNCHES.clear()
        run(weights, [[1, 2, 3]], labels=[[1, 2, -100]])
        norms = 2 * 2 + 2  # two of each layer, one of the embeddings and one of the head
        expected = {"normalise_gradient": norms, "normalise_sums": norms, "sum_parts": norms}
        expected |= {"gelu_gradient": 2 + 1, "softmax_gradient": 2, "cross_entropy_gradient": 1}
        tables = 2 if family == "nezha" else 3  # words, types and, but for NEZHA, positions
        expected |= {"embedding_sums": tables, "embedding_rows": tables}
        expected |= {"normalise": norms, "bias_gelu": 2 + 1, "softmax": 2}  # of the pass itself
        if family == "nezha":
            expected |= {"spread": 2 * 2, "collect": 2 * 2}  # each is one term's own and the other one's gradient
        assert dict(on_cupy.LAUNCHES) == expected
        on_cupy.LAUNCHES.clear()
        with nz.definitions():
            run(weights, [[1, 2, 3]], labels=[[1, 2, -100]])
        assert not on_cupy.LAUNCHES


@on_cupy.with_the_stand_in
def test_the_benchmark_on_a_gpu_checks_heads_and_gradients_and_times_runs_with_the_same_results(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    gpu = importlib.import_module("gpu")
    to = nz.Weights.to
    options = argparse.Namespace(families=["nezha"], layers=1, shapes=["2x3"], repeats=1)
    few = types.SimpleNamespace(config=lambda **options: small("nezha").replace(**options))
    with on_cupy.kernels_with({"cupy": on_cupy.StandIn(), "array_api_compat.cupy": on_cupy.Namespace()}) as kernels:
        monkeypatch.setattr(
            nz.Weights, "to", lambda self, **o: moved(kernels, self) if "device" in o else to(self, **o)
        )
        monkeypatch.setattr(on_cupy.ndarray, "get", host)  # it compares on the host, after a pass
        monkeypatch.setattr(gpu, "FAMILIES", {"nezha": few})
        runtime = types.SimpleNamespace(deviceSynchronize=lambda: None)
        monkeypatch.setattr(kernels.cupy, "cuda", types.SimpleNamespace(runtime=runtime), raising=False)
        found = [next(gpu.checks(options)), next(gpu.gradient_checks(options))]
        times = [next(gpu.times(options, with_reference=False)), *gpu.gradient_times(options, with_counts=False)]
    assert [one["head"] for one in found] == ["forward", "pretraining: gradients"]
    assert [one["run"] for one in times] == ["nezha_np", "gradients", "gradients, no kernels"]
    assert all(one["good"] and 0.0 < one["difference"] < 1e-5 for one in found + times)
