"""Every kernel is its definition, faster."""

import numpy as np
import pytest
from cases import EVERY_HEAD, Case, arrays_of, cases, weights_for
from hypothesis import given, settings
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.kernels.numpy import BLOCK, KERNELS
from nezha_np.layers.activations import gelu

TOLERANCES = {"float32": 2e-6, "float64": 1e-12}  # relative to the largest number that goes in or comes out


@pytest.mark.parametrize("dtype", [dtype.name for dtype in KERNELS[gelu][1]])
@given(
    size=st.one_of(st.integers(0, 50), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])),
    scale=st.sampled_from([0.01, 1.0, 3.0, 100.0]),
    stride=st.integers(1, 3),
    turned=st.booleans(),
    seed=st.integers(0, 99),
)
def test_gelu_equals_its_definition_for_any_shape_and_stride(dtype, size, scale, stride, turned, seed):
    x = (scale * np.random.default_rng(seed).normal(size=(2, size * stride))).astype(dtype)[:, ::stride]
    x = x.T if turned else x
    before = x.copy()
    found, expected = KERNELS[gelu][0](x), gelu.definition(x)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert np.abs(found - expected).max(initial=0.0) <= TOLERANCES[dtype] * np.abs(x).max(initial=1e-30)
    assert np.array_equal(x, before)


def test_gelu_keeps_nan_and_infinity_as_its_definition_does():
    x = np.array([np.nan, np.inf, -np.inf], "float32")
    with np.errstate(invalid="ignore"):
        assert np.array_equal(KERNELS[gelu][0](x), gelu.definition(x), equal_nan=True)


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@settings(max_examples=10)
@given(data=st.data())
def test_a_pass_with_kernels_is_the_pass_by_definitions(family, head, data):
    case = data.draw(cases(head, family, hidden_from=8))
    case = Case(case.config.replace(hidden_act="gelu"), case.seed, case.inputs)
    weights = weights_for(head, case, "float32")
    inputs = {
        name: value.astype(np.float32) if getattr(value, "dtype", None) == np.float64 else value
        for name, value in case.inputs.items()
    }
    fast = arrays_of(getattr(nz, head)(weights, **inputs))
    with nz.definitions():
        plain = arrays_of(getattr(nz, head)(weights, **inputs))
    for name, array in plain.items():
        assert fast[name].dtype == array.dtype == np.float32, name
        largest = max(1.0, np.abs(array).max(initial=0.0, where=np.isfinite(array)))
        np.testing.assert_allclose(fast[name], array, rtol=0, atol=1e-5 * largest, err_msg=name)
