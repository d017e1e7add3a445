"""Every kernel of training is its definition, faster: masks bit by bit, gradients within what kernels may differ."""

from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
from cases import EVERY_LABELLED_HEAD, cases, each_array, weights_for
from hypothesis import given
from hypothesis import strategies as st
from test_kernels import (
    DTYPES,
    TOLERANCES,
    arrays,
    assert_equal_to_its_definition,
    largest,
    small_blocks,
    threads_of_blas,
)
from tiers import examples

import nezha_np as nz
from nezha_np import threads
from nezha_np.kernels import numpy as kernels
from nezha_np.kernels import numpy_gradients
from nezha_np.layers.activations import gelu
from nezha_np.layers.addition import add
from nezha_np.layers.attention import attention_probs, content_context, content_scores
from nezha_np.layers.dropout import dropout_mask, rescale
from nezha_np.layers.embedding import embedding
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.losses import cross_entropy
from nezha_np.layers.relative_position import position_context, position_scores, relative_position_table
from nezha_np.mechanism.gradient_sums import RowSums
from nezha_np.training import adamw, bert_adam, lamb
from nezha_np.training.accumulation import gradient_shares


@contextmanager
def in_parts(blocks, count):
    """Work in small blocks, divided among so many threads."""
    with blocks, threads_of_blas(count), threads.BLAS_THREADS.held_to_one():
        yield


PARTS = st.builds(in_parts, small_blocks(), st.integers(1, 3))


def assert_new(found, given):
    """The walk back writes sums into what a kernel returns: nothing else may hold it."""
    own = [part.rows if isinstance(part, RowSums) else part for part in found if part is not None]
    for index, one in enumerate(own):
        assert one.flags.writeable
        others = own[:index] + [array for array in given if isinstance(array, np.ndarray)]
        assert not any(np.shares_memory(one, other) for other in others)


def assert_gradient_equals_its_definition(layer, dy, y, *arguments, **options):
    """Run the gradient of a layer by its kernel and by its definition, on arrays that cannot be written to."""
    for array in (dy, y, *arguments):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    kernel = kernels.GRADIENT_KERNELS[layer][0]
    found = kernel(dy, y, *arguments, **options)
    expected = layer.gradient(dy, y, *arguments, **options)
    if not isinstance(expected, tuple):
        found, expected = (found,), (expected,)
    assert_new(found, (dy, y, *arguments))
    if layer in kernels.OVER_DY and isinstance(dy, np.ndarray):
        over = dy.copy()
        beside = kernel(over, y, *arguments, **options)
        assert kernel(over, y, *arguments, **options, out=over) is over
        np.testing.assert_array_equal(over, beside)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is None:
            assert ours is None
            continue
        ours = ours.dense() if isinstance(ours, RowSums) else ours
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        atol = TOLERANCES[dy.dtype.name] * max(largest(dy, theirs), 1e-30)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def attention_arrays(data, dtype):
    """Draw scores, and a mask that masks some keys, all of some row, or nothing."""
    batch, heads, queries, keys = (data.draw(st.integers(1, most)) for most in (3, 3, 6, 7))
    scores = data.draw(arrays((batch, heads, queries, keys), dtype, scale=4.0))
    kept = np.random.default_rng(data.draw(st.integers(0, 99))).random((data.draw(st.sampled_from([1, batch])), keys))
    mask = np.where(kept < 0.4, np.finfo(dtype).min, 0.0).astype(dtype)[:, None, None, :]
    return scores, data.draw(st.sampled_from([None, mask]))


@given(data=st.data(), dtype=DTYPES, parts=PARTS)
def test_attention_probs_equal_their_definition(data, dtype, parts):
    scores, mask = attention_arrays(data, dtype)
    with parts, np.errstate(over="ignore"):
        assert_equal_to_its_definition(attention_probs, scores, mask, scale=0.3)
        probs = attention_probs.definition(scores, mask, scale=0.3)
        dy = data.draw(arrays(scores.shape, dtype))
        assert_gradient_equals_its_definition(attention_probs, dy, probs, scores, mask, scale=0.3)


@given(data=st.data(), scale=st.sampled_from([1e-20, 0.01, 1.0, 3.0, 100.0]), parts=PARTS)
def test_the_gradient_of_gelu_equals_its_definition(data, scale, parts):
    shape = data.draw(st.sampled_from([(0,), (1,), (7,), (3, 50), (2, 3, 4), (2, 0, 3)]))
    x = data.draw(arrays(shape, "float32", scale=scale))
    with parts:
        y = kernels.gelu_kernel(x)
        assert_gradient_equals_its_definition(gelu, data.draw(arrays(shape, "float32")), y, x)


def test_the_gradient_of_gelu_is_right_at_zero_at_the_smallest_and_at_the_largest_numbers():
    x = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-38, 1e-29, 20.0, -20.0, 1e30, -1e30], "float32")
    found = numpy_gradients.gelu_gradient_kernel(np.ones_like(x), kernels.gelu_kernel(x), x)
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 0.0, 1.0, 0.0], atol=1e-6)


@given(data=st.data(), dtype=DTYPES, padding_idx=st.sampled_from([None, 0, 3]))
def test_the_gradient_of_embedding_has_the_bits_of_its_definition(data, dtype, padding_idx):
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))
    shape = data.draw(st.sampled_from([(0,), (1, 1), (1, 5), (3, 40)]))
    ids = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, rows, shape)
    dy, weight = data.draw(arrays((*shape, columns), dtype)), data.draw(arrays((rows, columns), dtype))
    y = embedding.definition(ids, weight, padding_idx=padding_idx)
    assert_gradient_equals_its_definition(embedding, dy, y, ids, weight, padding_idx=padding_idx)
    _, part = kernels.GRADIENT_KERNELS[embedding][0](dy, y, ids, weight, padding_idx=padding_idx)
    _, expected = embedding.gradient(dy, y, ids, weight, padding_idx=padding_idx)
    np.testing.assert_array_equal(part.dense(), expected)
    assert len(part.rows) == len({*ids.flat} - {padding_idx})


@given(data=st.data(), dtype=DTYPES, parts=PARTS)
def test_the_gradient_of_layer_norm_equals_its_definition(data, dtype, parts):
    shape = (*data.draw(st.sampled_from([(), (1,), (5,), (2, 3), (0,)])), data.draw(st.integers(8, 40)))
    x, dy = data.draw(arrays(shape, dtype)), data.draw(arrays(shape, dtype))
    weight, bias = data.draw(arrays(shape[-1:], dtype)), data.draw(arrays(shape[-1:], dtype))
    y = layer_norm.definition(x, weight, bias, eps=1e-12)
    with parts:
        assert_gradient_equals_its_definition(layer_norm, dy, y, x, weight, bias, eps=1e-12)


@given(data=st.data(), dtype=DTYPES, parts=PARTS)
def test_the_gradient_of_cross_entropy_equals_its_definition(data, dtype, parts):
    rows, classes = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 20))
    logits = data.draw(arrays((rows, classes), dtype, scale=5.0))
    labels = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-2, classes, rows)
    labels = np.where(labels < 0, -100, labels)
    loss = cross_entropy.definition(logits, labels)
    with parts:
        assert_gradient_equals_its_definition(cross_entropy, np.array(0.7, dtype), loss, logits, labels)


@given(data=st.data(), dtype=DTYPES, parts=PARTS)
def test_the_gradient_of_linear_equals_its_definition(data, dtype, parts):
    rows, columns, features = (data.draw(st.integers(1, 9)) for _ in range(3))
    lead = data.draw(st.sampled_from([(rows,), (2, rows), (0,)]))
    x, dy = data.draw(arrays((*lead, features), dtype)), data.draw(arrays((*lead, columns), dtype))
    weight, bias = data.draw(arrays((columns, features), dtype)), data.draw(arrays((columns,), dtype))
    with parts:
        for arguments in ((x, weight), (x, weight, bias)):
            assert_equal_to_its_definition(linear, *arguments)
            assert_gradient_equals_its_definition(linear, dy, linear.definition(*arguments), *arguments)


@given(data=st.data(), dtype=DTYPES, parts=PARTS)
def test_a_grouped_linear_layer_and_its_gradient_equal_their_definitions(data, dtype, parts):
    groups, ins, outs = (data.draw(st.integers(1, 5)) for _ in range(3))
    lead = data.draw(st.sampled_from([(), (4,), (2, 9), (0,)]))
    x, dy = data.draw(arrays((*lead, groups * ins), dtype)), data.draw(arrays((*lead, groups * outs), dtype))
    weight, bias = data.draw(arrays((groups, ins, outs), dtype)), data.draw(arrays((groups * outs,), dtype))
    with parts:
        assert_equal_to_its_definition(grouped_linear, x, weight, bias)
        y = grouped_linear.definition(x, weight, bias)
        assert_gradient_equals_its_definition(grouped_linear, dy, y, x, weight, bias)


@given(data=st.data(), dtype=DTYPES, parts=PARTS, shape=st.sampled_from([(), (0,), (7,), (3, 4, 5)]))
def test_sums_and_dropout_equal_their_definitions(data, dtype, parts, shape):
    x, y, dy = (data.draw(arrays(shape, dtype)) for _ in range(3))
    with parts:
        for layer in (add, rescale):
            assert_equal_to_its_definition(layer, x, y)
        assert_gradient_equals_its_definition(rescale, dy, rescale.definition(x, y), x, y)


@given(data=st.data(), dtype=DTYPES, parts=PARTS)
def test_the_products_of_attention_equal_their_definitions(data, dtype, parts):
    batch, heads, queries, keys, size = (data.draw(st.integers(1, 4)) for _ in range(5))
    q, k = (data.draw(arrays((batch, heads, length, size), dtype)) for length in (queries, keys))
    dscores = data.draw(arrays((batch, heads, queries, keys), dtype))
    with parts:
        assert_equal_to_its_definition(content_scores, q, k)
        assert_gradient_equals_its_definition(content_scores, dscores, content_scores.definition(q, k), q, k)
        assert_equal_to_its_definition(content_context, dscores, k)
        context = content_context.definition(dscores, k)
        assert_gradient_equals_its_definition(content_context, q, context, dscores, k)


@given(data=st.data(), dtype=DTYPES, reach=st.integers(0, 9), past=st.integers(0, 5), parts=PARTS)
def test_the_position_terms_equal_their_definitions(data, dtype, reach, past, parts):
    batch, heads, queries, extra = (data.draw(st.integers(low, 4)) for low in (1, 1, 1, 0))
    keys = queries + past + extra
    table = relative_position_table(np.zeros(1, dtype), head_size=4, max_relative_position=reach)
    probs = data.draw(arrays((batch, heads, queries, keys), dtype))
    q = data.draw(arrays((batch, heads, queries, 4), dtype))
    if reach == 0:  # one row: nothing to collect
        assert kernels.position_context_kernel(probs, table, past=past) is NotImplemented
        return
    with parts:
        assert_equal_to_its_definition(position_context, probs, table, past=past)
        assert_equal_to_its_definition(position_scores, q, table, keys=keys, past=past)
        y = position_scores.definition(q, table, keys=keys, past=past)
        assert_gradient_equals_its_definition(position_scores, probs, y, q, table, keys=keys, past=past)
        y = position_context.definition(probs, table, past=past)
        assert_gradient_equals_its_definition(position_context, q, y, probs, table, past=past)


@given(
    rate=st.floats(0.001, 0.999),
    shape=st.sampled_from([(0,), (7,), (3, 4, 5)]),
    dtype=DTYPES,
    seed=st.integers(0, 9),
    start=st.integers(0, 99),
    parts=PARTS,
)
def test_dropout_masks_have_the_bits_of_their_definition(rate, shape, dtype, seed, start, parts):
    x = np.zeros(shape, dtype)
    with parts:
        found = numpy_gradients.dropout_mask_kernel(x, rate=rate, key=(seed, 0, "name"), start=start)
    expected = dropout_mask.definition(x, rate=rate, key=(seed, 0, "name"), start=start)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
@examples(20, quick=3)
@given(data=st.data(), dtype=DTYPES, blocks=small_blocks())
def test_the_gradients_with_kernels_are_those_by_definitions(family, head, data, dtype, blocks):
    case = data.draw(cases(head, family, hidden_from=8, reference=False))
    weights = weights_for(head, case, dtype)
    inputs = each_array(lambda array: array.astype(dtype) if array.dtype == np.float64 else array, case.inputs)
    run = nz.value_and_grad(getattr(nz, head), dropout_seed=3)
    with blocks, threads_of_blas(data.draw(st.integers(1, 3))):
        out, found = run(weights, **inputs)
    with nz.definitions():
        plain, expected = run(weights, **inputs)
    tolerance = {"float32": 2e-5, "float64": 1e-11}[dtype]
    np.testing.assert_allclose(out.loss, plain.loss, rtol=tolerance)
    assert found.keys() == expected.keys()
    scale = max(largest(*expected.values()), 1e-30)
    for name, gradient in expected.items():
        assert found[name].dtype == gradient.dtype
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("optimizer", [adamw, bert_adam, lamb], ids=lambda module: module.__name__.rpartition(".")[2])
@given(data=st.data(), dtype=DTYPES, blocks=small_blocks(), count=st.integers(1, 3))
def test_a_step_of_an_optimizer_has_the_same_bits_in_blocks(optimizer, data, dtype, blocks, count):
    shapes = {"a.weight": (5, 7), "a.bias": (13,), "none": (0, 3), "number": ()}
    weights, gradients = ({name: data.draw(arrays(shape, dtype)) for name, shape in shapes.items()} for _ in range(2))
    state = optimizer.init(weights)
    for _ in range(2):
        with blocks, threads_of_blas(count):
            found, moments = optimizer.step(weights, gradients, state, learning_rate=0.1)
            assert threads._blas().num_threads == count
        with nz.definitions():
            weights, state = optimizer.step(weights, gradients, state, learning_rate=0.1)
        pairs = ((found, weights), (moments.first_moments, state.first_moments))
        for ours, theirs in (*pairs, (moments.second_moments, state.second_moments)):
            assert ours.keys() == theirs.keys()
            for name, array in theirs.items():
                assert ours[name].dtype == array.dtype
                np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_a_pass_holds_blas_to_one_thread_until_the_walk_back_ends_and_gives_the_threads_back():
    ids, held = [[2, 5, 3]], []
    backwards = kernels.GRADIENT_KERNELS[linear][0]

    def watched(*arguments):
        held.append(threads._blas().num_threads)
        return backwards(*arguments)

    with (
        threads_of_blas(2),
        mock.patch.dict(kernels.GRADIENT_KERNELS, {linear: (watched, kernels.GRADIENT_KERNELS[linear][1])}),
    ):
        nz.value_and_grad(nz.masked_lm)(nz.load(), ids, labels=ids)
        gradient_shares(nz.masked_lm, nz.load(), {"input_ids": ids, "labels": ids})
        assert set(held) == {1} and threads._blas().num_threads == 2
        with pytest.raises(ValueError, match="returned no loss"):
            nz.value_and_grad(nz.masked_lm)(nz.load(), ids)
        assert threads._blas().num_threads == 2


def test_definitions_switch_the_kernels_of_gradients_off_and_a_trace_never_uses_them():
    def refuse(*arguments, **options):
        raise AssertionError("a kernel ran")

    refused = {layer: (refuse, dtypes) for layer, (_, dtypes) in kernels.GRADIENT_KERNELS.items()}
    ids = [[2, 5, 3]]
    run = nz.value_and_grad(nz.masked_lm)
    with mock.patch.dict(kernels.GRADIENT_KERNELS, refused):
        with nz.definitions():
            run(nz.load(), ids, labels=ids)
        nz.value_and_grad(nz.masked_lm, intermediates=True)(nz.load(), ids, labels=ids)
        with pytest.raises(AssertionError, match="a kernel ran"):
            run(nz.load(), ids, labels=ids)


@pytest.mark.parametrize(
    ("family", "head"), [pair for pair in EVERY_LABELLED_HEAD if pair[1] in ("masked_lm", "pretraining")]
)
def test_with_labelled_tokens_alone_loss_and_gradients_are_the_same(family, head):
    make = {"nezha": nz.NezhaConfig, "bert": nz.BertConfig, "convbert": nz.ConvBertConfig}[family]
    config = make(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12)
    weights = nz.init(config, dtype="float64")
    ids = np.random.default_rng(0).integers(5, 30, (2, 7))
    labels = np.where(np.arange(7) % 3 == 1, ids, -100)
    more = {"next_sentence_label": [0, 1]} if head == "pretraining" else {}
    run = nz.value_and_grad(getattr(nz, head), dropout_seed=1)
    whole, expected = run(weights, ids, labels=labels, **more)
    out, found = run(weights, ids, labels=labels, labelled_only=True, **more)
    field = "logits" if head == "masked_lm" else "prediction_logits"
    np.testing.assert_allclose(getattr(out, field), getattr(whole, field)[labels != -100], rtol=0, atol=1e-13)
    assert float(out.loss) == pytest.approx(float(whole.loss), abs=1e-13)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=1e-13, err_msg=name)


def test_labelled_tokens_alone_need_labels_and_there_may_be_none_of_them():
    weights = nz.load()
    with pytest.raises(ValueError, match="labelled_only: expected labels with it, got none"):
        nz.masked_lm(weights, [[2, 5, 3]], labelled_only=True)
    with pytest.raises(TypeError, match="labelled_only: expected True, False or None, got 'yes'"):
        nz.masked_lm(weights, [[2, 5, 3]], labelled_only="yes")
    out = nz.masked_lm(weights, [[2, 5, 3]], labels=[[-100, -100, -100]], labelled_only=True)
    assert out.logits.shape == (0, 7000) and np.isnan(out.loss)
