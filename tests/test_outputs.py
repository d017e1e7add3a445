"""The results of the model and of the heads are indexed and unpacked as tuples and dicts are."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

import nezha_np as nz

IDS = [[2, 318, 3]]


@pytest.fixture(scope="module")
def weights():
    return nz.load()


def test_a_result_unpacks_into_what_was_asked_for_in_the_reference_s_order(weights):
    out = nz.masked_lm(weights, IDS, labels=[[-100, 318, -100]], output_attentions=True)
    loss, logits, attentions = out
    assert (loss, logits, attentions) == (out.loss, out.logits, out.attentions) == out.to_tuple()
    assert out[0] is loss
    assert out[-1] is attentions
    assert out[:2] == (loss, logits)
    assert out["logits"] is logits
    assert len(out) == 3
    (logits,) = nz.masked_lm(weights, IDS)
    assert logits.shape == (1, 3, 7000)


def test_the_hidden_states_of_a_decoder_stand_before_its_cache_as_in_the_reference(weights):
    config = weights.config.replace(is_decoder=True)
    out = nz.forward(weights, IDS, config=config, output_hidden_states=True)
    last, _, hidden_states, cache = out
    assert last is out.last_hidden_state
    assert hidden_states is out.hidden_states
    assert cache is out.past_key_values


def test_a_field_that_was_not_asked_for_is_not_there(weights):
    out = nz.forward(weights, IDS)
    assert "last_hidden_state" in out
    for name in ("attentions", "to_tuple", 0):
        assert name not in out
    for wrong in ("attentions", "to_tuple"):
        with pytest.raises(KeyError, match=wrong):
            out[wrong]
    with pytest.raises(IndexError):
        out[2]


def test_results_are_exported_types():
    kinds = {nz.ModelOutput, nz.HeadOutput, nz.PretrainingOutput, nz.QuestionAnsweringOutput, nz.CausalLMOutput}
    assert all(dataclasses.is_dataclass(kind) and kind.__name__ in nz.__all__ for kind in kinds)


def test_a_result_does_not_import_jax():
    code = "import sys, nezha_np as nz; nz.forward(nz.load(), [[2, 3]]); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
