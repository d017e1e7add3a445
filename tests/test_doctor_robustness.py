"""The doctor has a word for every dump: it never fails, and never blames what it has not seen."""

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.oracle.standard import record_standard


@pytest.fixture(scope="module")
def bundle():
    return record_standard("nezha-pretraining")


def noisy(array, seed=0):
    return (array + 0.01 * np.random.default_rng(seed).normal(size=array.shape)).astype("float32")


def test_each_step_alone_may_be_wrong_in_a_full_dump(bundle):
    right = {name: array.astype("float32") for name, array in bundle.trace.items() if "attention_mask" not in name}
    for name in list(right)[::7]:
        diagnosis = nz.oracle.diagnose(bundle, right | {name: noisy(bundle.trace[name])})
        assert diagnosis.step is not None, name
        assert "not in the catalogue" in str(diagnosis) or diagnosis.findings


def test_each_step_alone_may_be_all_that_there_is(bundle):
    for name in [name for name in bundle.trace if name.startswith(("encoder", "cls", "pooler"))][::9]:
        assert nz.oracle.diagnose(bundle, {name: noisy(bundle.trace[name])}).step == name


def test_the_output_of_a_layer_alone_may_be_wrong_or_nan(bundle):
    name = "encoder.layer.0.output"
    assert nz.oracle.diagnose(bundle, {name: noisy(bundle.trace[name])}).step == name
    lost = np.full_like(bundle.trace[name], np.nan)
    assert "NaN" in str(nz.oracle.diagnose(bundle, {name: lost}))


def test_of_arrays_that_cannot_be_compared_nothing_is_said(bundle):
    said = str(nz.oracle.diagnose(bundle, {"encoder.layer.1.output": bundle.trace["encoder.layer.1.output"][:1]}))
    assert said.startswith("nothing of yours could be compared")
    assert "has shape" in said
