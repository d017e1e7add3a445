"""``nz.inside``: experiments on a pass, held to what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import nezha_np as nz
from nezha_np.oracle import standard

FAMILIES = {"nezha": standard.NEZHA, "bert": standard.BERT, "convbert": standard.CONVBERT}
CLEAN = {"input_ids": np.array([[2, 5, 7, 4, 3], [2, 6, 8, 4, 3]])}
CORRUPTED = {"input_ids": np.array([[2, 9, 7, 4, 3], [2, 9, 8, 4, 3]])}
LABELS = np.array([[-100, -100, -100, 7, -100], [-100, -100, -100, 9, -100]])


def answer(out):
    return out.logits[:, 3, 7]


@pytest.fixture(params=FAMILIES, scope="module")
def weights(request):
    return standard.lively_weights(FAMILIES[request.param], "masked_lm")


# ----------------------------------------------------------------------------------------------------------- patching


def test_all_of_the_answer_comes_back_where_the_texts_differ_and_none_before_it_is_read(weights):
    back = nz.inside.patch_activations(nz.masked_lm, weights, CLEAN, CORRUPTED, answer, names="embeddings")
    np.testing.assert_allclose(back["embeddings"], [0.0, 1.0, 0.0, 0.0, 0.0], rtol=0, atol=1e-9)
    last = nz.inside.patch_activations(nz.masked_lm, weights, CLEAN, CORRUPTED, answer, names="encoder")["encoder"]
    np.testing.assert_allclose(last, [0.0, 0.0, 0.0, 1.0, 0.0], rtol=0, atol=1e-9)  # the head reads one token


def test_patching_is_a_pass_with_one_tokens_vectors_of_another_one(weights):
    name = "encoder.layer.0.attention.self.v"
    found = nz.inside.patch_activations(nz.masked_lm, weights, CLEAN, CORRUPTED, answer, names=name)[name]
    with nz.trace() as clean:
        best = answer(nz.masked_lm(weights, **CLEAN)).mean()
    worst = answer(nz.masked_lm(weights, **CORRUPTED)).mean()

    def second_token(v):
        v = v.copy()
        v[:, :, 1] = clean[name][:, :, 1]
        return v

    with nz.intervene({name: second_token}):
        between = answer(nz.masked_lm(weights, **CORRUPTED)).mean()
    assert found[1] == pytest.approx((between - worst) / (best - worst), rel=1e-9)
    assert found.shape == (5,) and found[2] == pytest.approx(0.0, abs=1e-9)


def test_by_its_values_alone_a_head_reaches_no_earlier_step_and_by_the_end_all_that_it_reaches(weights):
    arguments = nz.masked_lm, weights, CLEAN, CORRUPTED, answer
    earlier = nz.inside.patch_path(*arguments, sender=(1, 0), receiver="encoder.layer.0.output")
    assert earlier == pytest.approx(0.0, abs=1e-9)
    name = "encoder.layer.1.attention.self.context"
    with nz.trace() as clean:
        best = answer(nz.masked_lm(weights, **CLEAN)).mean()
    worst = answer(nz.masked_lm(weights, **CORRUPTED)).mean()
    with nz.intervene({name: nz.inside.patching.patch_head(clean[name], 0)}):
        between = answer(nz.masked_lm(weights, **CORRUPTED)).mean()
    whole = nz.inside.patch_path(*arguments, sender=(1, 0), receiver="encoder")  # the last layer: no head comes after
    assert whole == pytest.approx((between - worst) / (best - worst), rel=1e-9)


def test_texts_that_are_answered_alike_are_refused(weights):
    with pytest.raises(ValueError, match="corrupted: expected texts that the model answers otherwise"):
        nz.inside.patch_activations(nz.masked_lm, weights, CLEAN, CLEAN, answer)
    with pytest.raises(ValueError, match=r"names: expected a pattern of names of the pass, got 'layer\.\*'"):
        nz.inside.patch_activations(nz.masked_lm, weights, CLEAN, CORRUPTED, answer, names="layer.*")
    with pytest.raises(ValueError, match="sender: expected a layer from 0 to 1, got 2"):
        nz.inside.patch_path(nz.masked_lm, weights, CLEAN, CORRUPTED, answer, sender=(2, 0), receiver="encoder")
    with pytest.raises(ValueError, match="receiver: expected the name of an array of the pass, got 'layer'"):
        nz.inside.patch_path(nz.masked_lm, weights, CLEAN, CORRUPTED, answer, sender=(0, 0), receiver="layer")
    with pytest.raises(ValueError, match=r"metric: expected it to return a number .* got shape \(2, 5\)"):
        nz.inside.patch_activations(nz.masked_lm, weights, CLEAN, CORRUPTED, lambda out: out.logits[:, :, 0])


# ----------------------------------------------------------------------------------------------------------- ablation


def test_without_a_head_is_what_the_head_mask_does():
    weights = standard.lively_weights(standard.NEZHA, "masked_lm")
    changes = nz.inside.ablate_heads(nz.masked_lm, weights, CLEAN, answer)
    heads = weights.config.num_attention_heads
    with_all = answer(nz.masked_lm(weights, **CLEAN)).mean()
    for layer, number in np.ndindex(changes.shape):
        mask = np.ones((2, heads))
        mask[layer, number] = 0.0
        without = answer(nz.masked_lm(weights, **CLEAN, head_mask=mask)).mean()
        assert changes[layer, number] == pytest.approx(without - with_all, abs=1e-10)


def test_the_mean_of_a_text_takes_the_place_of_what_a_head_fetched_and_padding_has_no_part_in_it(weights):
    padded = {"input_ids": [[2, 5, 7, 3, 0, 0]], "attention_mask": [[1, 1, 1, 1, 0, 0]]}
    name = "encoder.layer.1.attention.self.context"
    with nz.trace() as t:
        with_all = answer(nz.masked_lm(weights, **padded))
    context = t[name].copy()
    context[:, 1] = context[:, 1, :4].mean(axis=1, keepdims=True)
    with nz.intervene({name: context}):
        without = answer(nz.masked_lm(weights, **padded))
    changes = nz.inside.ablate_heads(nz.masked_lm, weights, padded, answer, means_of=padded)
    assert changes[1, 1] == pytest.approx(float((without - with_all).mean()), abs=1e-10)


# ---------------------------------------------------------------------------------------------------------- gradients


def test_importance_is_the_slope_of_the_loss_with_the_factor_of_a_head(weights):
    texts = [{"input_ids": CLEAN["input_ids"][row : row + 1], "labels": LABELS[row : row + 1]} for row in (0, 1)]
    found = nz.inside.head_importance(nz.masked_lm, weights, texts)
    for layer, number in ((0, 0), (1, 1)):
        slopes = []
        for text in texts:
            nudged = []
            for step in (1e-5, -1e-5):
                mask = np.ones(found.shape)
                mask[layer, number] += step
                nudged.append(float(nz.masked_lm(weights, **text, head_mask=mask).loss))
            slopes.append(abs(nudged[0] - nudged[1]) / 2e-5)
        assert found[layer, number] == pytest.approx(np.mean(slopes), rel=1e-6, abs=1e-9)
    normalized = nz.inside.head_importance(nz.masked_lm, weights, texts, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(normalized, axis=1), 1.0, rtol=1e-12)
    with pytest.raises(ValueError, match="texts: expected one at least, got none"):
        nz.inside.head_importance(nz.masked_lm, weights, [])


def test_pruned_layers_of_unequal_heads_are_refused():
    weights = standard.lively_weights(standard.NEZHA, "masked_lm").prune_heads({0: [1]})
    with pytest.raises(ValueError, match=r"weights: expected layers of equally many heads, got \[\d, \d\]"):
        nz.inside.ablate_heads(nz.masked_lm, weights, CLEAN, answer)


def test_gradient_times_input_is_the_slope_of_the_loss_with_the_length_of_a_vector(weights):
    found = nz.inside.gradient_times_input(nz.masked_lm, weights, **CLEAN, labels=LABELS)
    words = weights["embeddings.word_embeddings.weight"][CLEAN["input_ids"]]
    for row, token in ((0, 1), (1, 3)):
        losses = []
        for factor in (1.0 + 1e-6, 1.0 - 1e-6):
            scaled = words.copy()
            scaled[row, token] *= factor
            losses.append(float(nz.masked_lm(weights, inputs_embeds=scaled, labels=LABELS).loss))
        assert found[row, token] == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_integrated_gradients_are_complete(weights):
    baseline = np.array([[2, 4, 4, 4, 3], [2, 4, 4, 4, 3]])
    loss, without = (float(nz.masked_lm(weights, ids, labels=LABELS).loss) for ids in (CLEAN["input_ids"], baseline))
    added = nz.inside.integrated_gradients(
        nz.masked_lm, weights, **CLEAN, baseline_ids=baseline, labels=LABELS, points=60
    )
    assert added.shape == (2, 5) and not added[:, [0, 3, 4]].any()  # what is the same in both adds nothing
    assert added.sum() == pytest.approx(loss - without, abs=1e-6)
    with pytest.raises(ValueError, match=r"baseline_ids: expected the shape \(2, 5\) of input_ids, got \(1, 2\)"):
        nz.inside.integrated_gradients(nz.masked_lm, weights, **CLEAN, baseline_ids=[[2, 3]], labels=LABELS)
    with pytest.raises(ValueError, match="points: expected a number from 1 on, got 0"):
        nz.inside.integrated_gradients(nz.masked_lm, weights, **CLEAN, baseline_ids=baseline, points=0)


# ------------------------------------------------------------------------------------------------- rollout and the lens

probabilities = arrays(np.float64, (2, 1, 2, 3, 3), elements=st.floats(0.01, 1.0)).map(
    lambda x: x / x.sum(axis=-1, keepdims=True)
)


@given(probabilities, st.floats(0.0, 1.0))
@settings(max_examples=25)
def test_rollout_mixes_the_vectors_of_the_layer_before(attentions, residual):
    rollout = nz.inside.attention_rollout(list(attentions), residual=residual)
    np.testing.assert_allclose(rollout.sum(axis=-1), 1.0, rtol=1e-9)
    first, second = (residual * np.eye(3) + (1.0 - residual) * probs[0].mean(axis=0) for probs in attentions)
    np.testing.assert_allclose(rollout[0, 0], first, rtol=1e-9)
    np.testing.assert_allclose(rollout[1, 0], second @ first, rtol=1e-9)


def test_a_rollout_of_no_layers_or_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"attentions: expected arrays of shape \(B, N, L, L\).*, got \[\]"):
        nz.inside.attention_rollout([])
    with pytest.raises(ValueError, match=r"got \[\(1, 2, 3\)\]"):
        nz.inside.attention_rollout([np.ones((1, 2, 3))])
    with pytest.raises(ValueError, match="residual: expected a number from 0 to 1, got 2"):
        nz.inside.attention_rollout([np.ones((1, 1, 1, 1))], residual=2)


def test_the_lens_on_the_last_hidden_states_is_the_models_answer(weights):
    out = nz.forward(weights, **CLEAN, output_hidden_states=True)
    logits = list(nz.inside.logit_lens(weights, out.hidden_states))
    assert len(logits) == 3
    np.testing.assert_allclose(logits[-1], nz.masked_lm(weights, **CLEAN).logits, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(logits[0].shape, logits[-1].shape)
    with pytest.raises(ValueError, match="masked_lm needs tensors that the weights do not have"):
        nz.inside.logit_lens(standard.lively_weights(weights.config, "forward"), out.hidden_states)
