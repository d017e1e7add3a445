"""Each layer by itself: its numbers, and its gradient against finite differences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.layers import (
    activations,
    attention,
    embedding,
    layer_norm,
    linear,
    losses,
    relative_key,
    relative_position,
    selection,
    span_convolution,
)
from nezha_np.layers.addition import add
from nezha_np.layers.dropout import dropout_mask, rescale
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.randomness import uniform

GENERATOR = np.random.default_rng(0)


def some(*shape):
    return GENERATOR.normal(size=shape)


TABLE = relative_position.relative_position_table(np.zeros(1), head_size=4, max_relative_position=2)
IDS = np.array([[1, 0, 3], [3, 3, 2]])

# Every primitive: arguments and options; integers and tables are not differentiated by.
PRIMITIVES = [
    (linear.linear, (some(2, 3, 4), some(5, 4), some(5)), {}),
    (linear.linear, (some(3, 4), some(5, 4)), {}),
    (grouped_linear, (some(2, 3, 4), some(2, 2, 3), some(6)), {}),
    (add, (some(2, 3), some(2, 3)), {}),
    (layer_norm.layer_norm, (some(2, 3, 4), some(4), some(4)), {"eps": 1e-5}),
    *((activation, (some(3, 4),), {}) for activation in dict.fromkeys(activations.ACTIVATIONS.values())),
    (embedding.embedding, (IDS, some(4, 5)), {}),
    (attention.split_heads, (some(2, 3, 8),), {"head_size": 4}),
    (attention.merge_heads, (some(2, 3, 5, 4),), {}),
    (attention.append_keys, (some(2, 3, 1, 4), some(2, 3, 5, 4)), {}),
    (attention.content_scores, (some(2, 3, 5, 4), some(2, 3, 6, 4)), {}),
    (attention.attention_probs, (some(2, 3, 5, 6),), {"scale": 0.7}),
    (attention.attention_probs, (some(2, 3, 5, 6), np.where(some(2, 1, 5, 6) > 1, -1e300, 0.0)), {"scale": 0.7}),
    (attention.mask_heads, (some(2, 3, 5, 6), some(3)), {}),
    (attention.content_context, (some(2, 3, 5, 6), some(2, 3, 6, 4)), {}),
    (relative_position.position_scores, (some(2, 3, 5, 4), TABLE), {"keys": 7, "past": 2}),
    (relative_position.position_context, (some(2, 3, 5, 7), TABLE), {"past": 2}),
    (relative_key.query_distance_scores, (some(2, 3, 5, 4), some(15, 4)), {"keys": 7, "past": 2}),
    (relative_key.key_distance_scores, (some(2, 3, 7, 4), some(15, 4)), {"queries": 5, "past": 2}),
    (span_convolution.separable_convolution, (some(2, 4, 3), some(3, 1, 5), some(6, 3, 1), some(6, 1)), {}),
    (span_convolution.multiply, (some(2, 3), some(2, 3)), {}),
    (span_convolution.convolution_kernels, (some(2, 4, 6),), {"size": 3}),
    (span_convolution.dynamic_convolution, (some(2, 4, 6), some(2, 4, 3, 5)), {}),
    (span_convolution.join_features, (some(2, 3, 4), some(2, 3, 5)), {}),
    (selection.first_token, (some(2, 3, 4),), {}),
    (selection.last_token, (some(2, 3, 4),), {}),
    (selection.some_tokens, (some(2, 3, 4), np.array([1, 5])), {}),
    (selection.mean_of_tokens, (some(2, 3, 4),), {}),
    (selection.all_but_last_token, (some(2, 3, 4),), {}),
    (selection.column, (some(2, 3, 2),), {"index": 1}),
    (selection.by_choice, (some(6, 1),), {"choices": 3}),
    (losses.cross_entropy, (some(2, 3, 4), np.array([[1, -100, 3], [0, 0, 2]])), {}),
    (losses.mse, (some(2, 3), some(2, 3)), {}),
    (losses.bce_with_logits, (some(2, 3), uniform(6, "t").reshape(2, 3)), {}),
    (losses.average, (some(), some()), {}),
    (rescale, (some(2, 3), some(2, 3)), {}),
]


@pytest.mark.parametrize(("layer", "arguments", "options"), PRIMITIVES, ids=lambda part: getattr(part, "__name__", ""))
def test_the_gradient_of_every_primitive_equals_finite_differences(layer, arguments, options):
    y = layer.definition(*arguments, **options)
    dy = some(*np.shape(y))
    parts = layer.gradient(dy, y, *arguments, **options)
    checked = 0
    for index, part in enumerate(parts if isinstance(parts, tuple) else (parts,)):
        if part is None:
            continue
        direction = some(*np.shape(arguments[index]))
        sides = []
        for sign in (1, -1):
            changed = list(arguments)
            changed[index] = arguments[index] + sign * 1e-6 * direction
            sides.append(np.sum(dy * layer.definition(*changed, **options)))
        assert part.shape == np.shape(arguments[index])
        assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(np.sum(part * direction), rel=1e-6, abs=1e-8)
        checked += 1
    assert checked


def test_every_primitive_of_the_package_is_in_this_list():
    import pkgutil

    found = set()
    for module in pkgutil.iter_modules(nz.layers.__path__, "nezha_np.layers."):
        names = vars(__import__(module.name, fromlist=["_"]))
        found |= {value for value in names.values() if hasattr(value, "definition") and value.gradient is not None}
    assert found == {layer for layer, _, _ in PRIMITIVES}


@given(st.floats(-30, 30))
def test_erf_is_within_1e_15_in_float64_and_2e_7_in_float32(x):
    assert abs(float(activations.erf(np.asarray(x))) - math.erf(x)) <= 1e-15
    narrow = np.asarray(x, "float32")
    assert abs(float(activations.erf(narrow)) - math.erf(float(narrow))) <= 2e-7


@pytest.mark.parametrize("activation", sorted(activations.ACTIVATIONS))
def test_activations_stay_finite_far_out(activation):
    for dtype in ("float16", "float32", "float64"):
        x = np.array([-1e4, -300.0, 0.0, 300.0, 1e4], dtype)
        layer = activations.ACTIVATIONS[activation]
        assert np.isfinite(layer(x)).all()
        assert np.isfinite(layer.gradient(np.ones_like(x), layer(x), x)).all()


@given(
    queries=st.integers(1, 9),
    keys=st.integers(1, 12),
    past=st.integers(-12, 15),
    reach=st.integers(0, 16),
    seed=st.integers(0, 99),
)
def test_spread_and_collect_are_the_formula_and_each_others_transpose(queries, keys, past, reach, seed):
    generator = np.random.default_rng(seed)
    rows = 2 * reach + 1
    distance = np.arange(keys)[None, :] - np.arange(queries)[:, None] - past
    row = np.clip(distance, -reach, reach) + reach
    by_row = generator.normal(size=(2, 1, queries, rows))
    by_key = generator.normal(size=(2, 1, queries, keys))
    spread = relative_position.spread(by_row, keys=keys, past=past)
    collected = relative_position.collect(by_key, rows=rows, past=past)
    expected = np.take_along_axis(by_row, np.broadcast_to(row, by_key.shape), axis=-1)
    assert np.array_equal(spread, expected)
    assert np.sum(spread * by_key) == pytest.approx(np.sum(by_row * collected), abs=1e-9)


def test_the_table_interleaves_sines_and_cosines_of_row_numbers():
    table = relative_position.relative_position_table(np.zeros(1), head_size=6, max_relative_position=4)
    for row in range(9):
        for pair in range(3):
            angle = row / 10000 ** (2 * pair / 6)
            assert table[row, 2 * pair] == pytest.approx(math.sin(angle), abs=1e-15)
            assert table[row, 2 * pair + 1] == pytest.approx(math.cos(angle), abs=1e-15)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_a_dropout_mask_is_zero_as_often_as_its_rate_says_and_keeps_the_mean(rate):
    mask = dropout_mask(np.ones((100, 100)), rate=rate, key=(1, 2, "name"))
    assert set(np.unique(mask)) == {0.0, 1 / (1 - rate)}
    assert np.mean(mask == 0) == pytest.approx(rate, abs=0.02)
    assert np.mean(mask) == pytest.approx(1.0, abs=0.03)


def test_losses_over_no_labels_are_nan_and_their_gradient_is_zero():
    logits, labels = some(2, 3), np.array([-100, -100])
    assert np.isnan(losses.cross_entropy(logits, labels))
    assert not losses.cross_entropy_gradient(np.asarray(1.0), None, logits, labels).any()


def test_losses_do_not_overflow():
    huge = np.array([[1e4, -1e4]], "float32")
    assert losses.cross_entropy(huge, np.array([1])) == 2e4
    assert losses.bce_with_logits(huge, np.array([[0.0, 1.0]], "float32")) == 1e4
