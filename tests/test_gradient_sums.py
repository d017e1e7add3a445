"""Parts of a gradient are summed in place only where nothing else holds the array."""

import dataclasses

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.layers.linear import linear
from nezha_np.layers.masks import as_constant
from nezha_np.mechanism import View, composite, gradient_of, primitive
from nezha_np.mechanism.gradient_sums import GradientSums, RowSums


@dataclasses.dataclass
class Output:
    """What a head returns."""

    loss: object


@primitive
def half_square(x):
    """A loss."""
    return np.asarray((x * x).sum() / 2.0)


@gradient_of(half_square)
def half_square_gradient(dy, y, x):
    """It is x itself, here the very array."""
    return x


@pytest.mark.parametrize("checkpoint_layers", [False, True])
def test_what_the_definition_of_a_gradient_returns_is_never_written_to(checkpoint_layers):
    """A weight is its own gradient by one use; a kernel adds the part of another use."""

    @composite
    def model(w):
        x = as_constant(np.ones((3, 8), "float32"), name="x")
        y = linear(x, w["dense.weight"], w["dense.bias"])
        return total(half_square(w["dense.weight"], name="one"), half_square(y, name="other"))

    @primitive
    def total(x, y):
        return np.asarray(x + y)

    @gradient_of(total)
    def total_gradient(dz, z, x, y):
        return dz, dz

    def head(weights):
        return Output(model(View(weights, "pooler.")))

    weights = nz.init(nz.NezhaConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    before = {name: array.copy() for name, array in weights.items()}
    for array in weights.values():
        array.flags.writeable = True
    run = nz.value_and_grad(head, checkpoint_layers=checkpoint_layers)
    _, first = run(weights)
    kept = {name: array.copy() for name, array in first.items()}
    _, second = run(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, before[name])
    with nz.definitions():
        _, expected = run(weights)
    for name in expected:
        np.testing.assert_array_equal(first[name], kept[name])
        np.testing.assert_array_equal(second[name], kept[name])
        np.testing.assert_allclose(kept[name], expected[name], rtol=1e-5)


@pytest.mark.parametrize("order", ["rows first", "rows last", "rows twice"])
@pytest.mark.parametrize("new", [True, False])
def test_rows_and_arrays_are_summed_in_any_order(order, new):
    array, rows = np.arange(8.0).reshape(4, 2), RowSums(np.array([3, 1]), np.array([[1.0, 2.0], [3.0, 4.0]]), 4)
    parts = {"rows first": [rows, array], "rows last": [array, rows], "rows twice": [rows, rows]}[order]
    expected = sum(part.dense() if part is rows else part.copy() for part in parts)
    before = array.copy()
    gradients = GradientSums(0, np.array(1.0), keeps=False)
    for part in parts:
        gradients.add(1, part, new=True if part is rows else new)
    found, own = gradients.take(1)
    np.testing.assert_array_equal(found, expected)
    assert own and gradients.take(1) == (None, False)
    if not new:
        np.testing.assert_array_equal(array, before)


def test_a_gradient_that_is_still_held_may_not_be_written_over():
    gradients = GradientSums(0, np.array(1.0), keeps=True)
    gradients.add(1, np.ones(2), new=False)
    assert gradients.take(1)[1] is gradients.take(1)[1] is False


def test_a_gradient_that_goes_to_another_array_stays_ones_own():
    gradients, part = GradientSums(0, np.array(1.0), keeps=False), np.ones(2)
    gradients.add(1, part, new=True)
    gradients.rename(1, 2)
    gradients.rename(1, 3)
    assert gradients.take(1) == gradients.take(3) == (None, False)
    found, own = gradients.take(2)
    assert found is part and own
