"""``nz.trace``: every intermediate of a pass under its name, in order; a table of them; patterns; no cost outside."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from cases import EVERY_HEAD

import nezha_np as nz
from nezha_np import mechanism
from nezha_np.oracle import standard

# What a trace of one layer holds, line by line as the model computes it; {} is the layer.
WORDS = ["embeddings.word_embeddings", "embeddings.token_type_embeddings", "embeddings.sum"]
POSITIONS = ["embeddings.position_embeddings", "embeddings.sum_with_positions"]
AFTER_WORDS = ["embeddings.LayerNorm", "embeddings.dropout", "embeddings"]
QUERIES_KEYS_VALUES = [f"{{}}attention.self.{name}" for name in ("query", "q", "key", "k", "value", "v")]
SCORES = {
    "nezha": ["content_scores", "position_scores", "scores"],
    "absolute": ["content_scores"],
    "relative_key": ["content_scores", "position_scores", "scores"],
    "relative_key_query": [
        "content_scores", "query_position_scores", "key_position_scores", "position_scores", "scores",
    ],
    "convbert": ["content_scores"],
}  # fmt: skip
CONTEXT = {"nezha": ["content_context", "position_context", "context"]}
CONVOLUTION = [
    "key_conv_attn_layer", "conv_attn", "conv_kernel_layer", "conv_kernels", "conv_out_layer", "conv_context", "joined",
]  # fmt: skip
AFTER_ATTENTION = [
    "{}attention.self",
    *(f"{{}}attention.output.{name}" for name in ("dense", "dropout", "residual", "LayerNorm")),
    "{}attention.output",
    "{}attention",
    *(f"{{}}intermediate.{name}" for name in ("dense", "intermediate_act_fn")),
    "{}intermediate",
    *(f"{{}}output.{name}" for name in ("dense", "dropout", "residual", "LayerNorm")),
    "{}output",
    "{layer}",
]
LANGUAGE_MODEL = [
    *(f"cls.predictions.transform.{name}" for name in ("dense", "transform_act_fn", "LayerNorm")),
    "cls.predictions.transform", "cls.predictions.decoder", "cls.predictions",
]  # fmt: skip
ENDS = ["qa_outputs", "start_logits", "end_logits", "start_loss", "end_loss", "loss"]
POOLER = ["pooler.first_token", "pooler.dense", "pooler.activation", "pooler"]
KINDS = {
    "nezha": standard.NEZHA,
    "absolute": standard.BERT,
    "relative_key": standard.BERT.replace(position_embedding_type="relative_key"),
    "relative_key_query": standard.BERT.replace(position_embedding_type="relative_key_query"),
    "convbert": standard.CONVBERT,
}


def names_of_a_model(kind: str) -> list[str]:
    """List the names of embeddings and encoder."""
    names = ["attention_mask", *WORDS, *(POSITIONS if kind in ("absolute", "convbert") else []), *AFTER_WORDS]
    names += {"nezha": ["relative_positions"], "convbert": ["embeddings_project"]}.get(kind, [])
    inner = [*SCORES[kind], "probs", "dropout", *CONTEXT.get(kind, ["context"]), "merged"]
    inner += CONVOLUTION if kind == "convbert" else []
    for layer in range(2):
        of_layer = [*QUERIES_KEYS_VALUES, *(f"{{}}attention.self.{name}" for name in inner), *AFTER_ATTENTION]
        path = f"encoder.layer.{layer}"
        names += [path if name == "{layer}" else name.format(f"{path}.") for name in of_layer]
    return [*names, "encoder"]


def trace_of(head: str, config, output=None, **inputs):
    """Trace a head on lively weights and pairs of texts."""
    weights = standard.lively_weights(config, head)
    given = standard.choices(config) if head == "multiple_choice" else standard.pairs(config)
    given = {**given, **standard.labels_of(head, config, given), **inputs}
    with nz.trace(output) as t:
        out = getattr(nz, head)(weights, **given)
    return t, out, weights, given


@pytest.mark.parametrize("kind", KINDS)
def test_a_forward_pass_has_these_intermediates_in_this_order(kind):
    t, *_ = trace_of("forward", KINDS[kind])
    assert list(t) == names_of_a_model(kind) + ([] if kind == "convbert" else POOLER)


@pytest.mark.parametrize(
    ("family", "head", "names"),
    [
        ("nezha", "masked_lm", [*LANGUAGE_MODEL, "loss"]),
        ("nezha", "pretraining", [*POOLER, *LANGUAGE_MODEL, "cls.seq_relationship", "masked_lm_loss",
                                  "next_sentence_loss", "loss"]),
        ("absolute", "next_sentence_prediction", [*POOLER, "cls.seq_relationship", "loss"]),
        ("nezha", "sequence_classification", [*POOLER, "dropout", "classifier", "loss"]),
        ("absolute", "multiple_choice", [*POOLER, "dropout", "classifier", "logits", "loss"]),
        ("nezha", "token_classification", ["dropout", "classifier", "loss"]),
        ("absolute", "question_answering", ENDS),
        ("convbert", "masked_lm", ["generator_predictions.dense", "generator_predictions.activation",
                                   "generator_predictions.LayerNorm", "generator_predictions", "generator_lm_head",
                                   "loss"]),
        ("convbert", "sequence_classification", ["classifier.first_token", "classifier.dropout", "classifier.dense",
                                                 "classifier.activation", "classifier.dropout_2", "classifier.out_proj",
                                                 "classifier", "loss"]),
        ("convbert", "multiple_choice", ["sequence_summary.last_token", "sequence_summary.first_dropout",
                                         "sequence_summary.last_dropout", "sequence_summary", "classifier", "logits",
                                         "loss"]),
        ("convbert", "question_answering", ENDS),
    ],
)  # fmt: skip
def test_a_head_adds_these(family, head, names):
    t, *_ = trace_of(head, KINDS[family])
    assert list(t) == names_of_a_model(family) + names


def test_a_decoder_adds_its_cache_the_encoders_states_and_cross_attention():
    one = next(one for one in standard.STANDARD if one.name == "nezha-forward-cross_cache")
    with nz.trace() as t:
        nz.forward(standard.lively_weights(one.config), **one.inputs)
    names = list(t)
    past = [f"past_key_values.0.{name}" for name in ("key", "value", "cross_key", "cross_value")]
    assert names[:7] == ["encoder_hidden_states", "encoder_attention_mask", *past, "attention_mask"]
    self, cross = "encoder.layer.0.attention.self.", "encoder.layer.0.crossattention.self."
    assert names.index(self + "v") + 1 == names.index(self + "all_k") == names.index(self + "all_v") - 1
    assert cross + "q" in t and cross + "k" not in t  # keys and values came with the cache
    for name in ("content_scores", "position_scores", "probs", "content_context", "position_context"):
        assert names.index(self + name) < names.index(cross + name)
    assert t[cross + "probs"].shape == (3, 2, 2, standard.ENCODED)


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
def test_every_head_of_every_family_can_be_traced_and_its_outputs_are_in_the_trace(family, head):
    config = {"nezha": standard.NEZHA, "bert": standard.BERT, "convbert": standard.CONVBERT}[family]
    config = config.replace(is_decoder=head == "causal_lm")
    t, out, weights, inputs = trace_of(head, config, output_hidden_states=True, output_attentions=True)
    if head != "forward":
        assert t["loss"] is out.loss
    assert out.hidden_states[-1] is t["encoder"] and t["encoder.layer.1.attention.self.probs"] is out.attentions[1]
    arrays = {id(array) for array in t.values()}
    for name in (
        "logits",
        "prediction_logits",
        "seq_relationship_logits",
        "start_logits",
        "end_logits",
        "pooler_output",
    ):
        assert getattr(out, name, None) is None or id(getattr(out, name)) in arrays, name
    plain = getattr(nz, head)(weights, **inputs)  # the trace has not changed what is computed
    for name in ("loss", "logits", "last_hidden_state"):
        if getattr(out, name, None) is not None:
            np.testing.assert_allclose(getattr(plain, name), getattr(out, name), rtol=0, atol=1e-12)


def test_the_intermediates_are_what_their_names_say():
    t, out, weights, inputs = trace_of("masked_lm", standard.NEZHA)
    of_layer = "encoder.layer.0."
    w = weights.at("encoder.layer.0")

    def is_equal(name, expected):
        np.testing.assert_allclose(t[name], expected, rtol=0, atol=1e-12, err_msg=name)

    def norm(x, name):
        centred = x - x.mean(axis=-1, keepdims=True)
        return (
            centred / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-12) * weights[name + ".weight"]
            + weights[name + ".bias"]
        )

    is_equal("embeddings.word_embeddings", weights["embeddings.word_embeddings.weight"][inputs["input_ids"]])
    is_equal("embeddings.sum", t["embeddings.word_embeddings"] + t["embeddings.token_type_embeddings"])
    is_equal("embeddings.LayerNorm", norm(t["embeddings.sum"], "embeddings.LayerNorm"))
    assert t["attention_mask"].shape == (3, 1, 1, 7) and (t["attention_mask"][0] == 0).all()
    q, k, v = (t[f"{of_layer}attention.self.{name}"] for name in "qkv")  # (B, N, L, D)
    is_equal(
        of_layer + "attention.self.query",
        t["embeddings"] @ w["attention.self.query.weight"].T + w["attention.self.query.bias"],
    )
    is_equal(of_layer + "attention.self.q", t[of_layer + "attention.self.query"].reshape(3, 7, 2, 8).swapaxes(1, 2))
    is_equal(of_layer + "attention.self.content_scores", q @ k.swapaxes(2, 3))  # before they are divided by √D
    place = np.arange(7)
    relative = t["relative_positions"][np.clip(place[None, :] - place[:, None], -3, 3) + 3]  # (Q, S, D)
    is_equal(of_layer + "attention.self.position_scores", np.einsum("bnqd,qsd->bnqs", q, relative))
    scores = t[of_layer + "attention.self.content_scores"] + t[of_layer + "attention.self.position_scores"]
    is_equal(of_layer + "attention.self.scores", scores)
    exponentials = np.exp(scores / np.sqrt(8) + np.maximum(t["attention_mask"], -1e6))
    probs = exponentials / exponentials.sum(axis=-1, keepdims=True)
    is_equal(of_layer + "attention.self.probs", probs)
    is_equal(of_layer + "attention.self.content_context", probs @ v)
    is_equal(of_layer + "attention.self.position_context", np.einsum("bnqs,qsd->bnqd", probs, relative))
    context = t[of_layer + "attention.self.content_context"] + t[of_layer + "attention.self.position_context"]
    is_equal(of_layer + "attention.self", context.swapaxes(1, 2).reshape(3, 7, 16))
    is_equal(of_layer + "attention.output.residual", t[of_layer + "attention.output.dense"] + t["embeddings"])
    is_equal(
        of_layer + "attention", norm(t[of_layer + "attention.output.residual"], of_layer + "attention.output.LayerNorm")
    )
    before = t[of_layer + "attention"] @ w["intermediate.dense.weight"].T + w["intermediate.dense.bias"]
    is_equal(of_layer + "intermediate.dense", before)
    assert t[of_layer + "intermediate.intermediate_act_fn"] is t[of_layer + "intermediate"]
    is_equal("encoder", t["encoder.layer.1"])
    assert t["cls.predictions"] is out.logits and t["loss"] is out.loss


# ----------------------------------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("output", "count"),
    [
        ("encoder.layer.*.attention.self.probs", 2),
        ("encoder.layer.1", 1),
        ("encoder.layer.*", 2),
        ("encoder.layer.*.output", 2),  # and not those of the attention, which are a part deeper
        (["pooler", "**.probs"], 3),
        ("encoder.layer.1.**", 30),
        ("**", 75),
        ("nothing", 0),
        ([], 0),
    ],
)
def test_patterns_choose_what_is_recorded(output, count):
    every, *_ = trace_of("forward", standard.NEZHA)
    t, *_ = trace_of("forward", standard.NEZHA, output)
    assert len(t) == count
    assert list(t) == [name for name in every if name in t]
    assert all(np.array_equal(t[name], every[name]) for name in t)


def test_what_fits_no_pattern_is_let_go_while_the_pass_goes_on(monkeypatch):
    alive, kept = [], mechanism.Trace.keep

    def keep(self, name, array):
        if name.endswith("content_scores"):
            alive.append(weakref.ref(array))
        if name == "encoder.layer.1.attention.self.query":  # by then the first layer's scores are not needed any more
            gc.collect()
            alive.append(alive[0]() is None)
        return kept(self, name, array)

    monkeypatch.setattr(mechanism.Trace, "keep", keep)
    trace_of("forward", standard.NEZHA, "pooler")
    assert alive[1] is True


@pytest.mark.parametrize("output", [3, [3], {"pooler": 1}, b"pooler"])
def test_patterns_that_are_none_are_refused(output):
    with pytest.raises(TypeError, match="output: expected a pattern or a sequence of patterns, got"):
        nz.trace(output)


def test_a_trace_is_a_mapping_that_cannot_be_written_to():
    t, *_ = trace_of("forward", standard.BERT)
    assert dict(t) == dict(t.items()) and len(t) == len(list(t)) and "pooler" in t and "dance" not in t
    with pytest.raises(KeyError):
        t["dance"]
    with pytest.raises(TypeError):
        t["pooler"] = t["encoder"]


# ------------------------------------------------------------------------------------------------------------ summary


def test_summary_is_a_table_with_a_row_for_each_array():
    t, *_ = trace_of("masked_lm", standard.NEZHA)
    heading, *rows = t.summary().splitlines()
    assert heading.split() == ["name", "shape", "dtype", "min", "max", "mean", "norm"]
    assert [row.split()[0] for row in rows] == list(t)
    probs = next(row for row in rows if row.startswith("encoder.layer.0.attention.self.probs"))
    array = t["encoder.layer.0.attention.self.probs"]
    numbers = [f"{number:.4g}" for number in (array.min(), array.max(), array.mean(), np.linalg.norm(array))]
    assert probs.split()[1:] == ["3", "×", "2", "×", "7", "×", "7", "float64", *numbers]
    assert rows[-1].split()[:3] == ["loss", "()", "float64"]


def test_summary_takes_float16_infinities_and_nothing_at_all():
    config = standard.NEZHA
    weights = standard.lively_weights(config).to(dtype="float16")
    with nz.trace("embeddings.*") as t:
        nz.forward(weights, **standard.pairs(config))
    assert all("float16" in row for row in t.summary().splitlines()[1:])
    with nz.trace("nothing") as t:
        nz.forward(weights, **standard.pairs(config))
    assert t.summary() == "name  shape  dtype  min  max  mean  norm"
    t.arrays["strange"] = np.array([np.inf, np.nan])
    assert t.summary().splitlines()[1].split()[:4] == ["strange", "2", "float64", "nan"]
    t.arrays["empty"] = np.zeros((0, 3))
    assert t.summary().splitlines()[2].split() == ["empty", "0", "×", "3", "float64"]
    least = float(np.finfo("float64").min)  # of which two are too much for float64
    t.arrays["mask"] = np.array([least, least, 0.0])
    assert t.summary().splitlines()[3].split()[3:] == ["-1.798e+308", "0", "-1.198e+308", "inf"]
    t.arrays = {"zeros": np.zeros(2, "float16")}
    assert t.summary().splitlines()[1].split() == ["zeros", "2", "float16", "0", "0", "0", "0"]


# --------------------------------------------------------------------------------------------------- outside a trace


ROOM = str(Path(mechanism.__file__).parent)


def calls_in_the_mechanism(function) -> int:
    """Count the calls of functions of the mechanism."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(ROOM)

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_outside_a_trace_a_layer_costs_one_call_and_one_look_at_a_variable():
    weights, inputs = standard.lively_weights(standard.NEZHA), standard.pairs(standard.NEZHA)
    x = np.ones((1, 2))
    from nezha_np.layers.addition import add

    add(x, x)  # which looks for the kernels of NumPy, once
    assert calls_in_the_mechanism(lambda: add(x, x)) == 1
    with nz.trace():
        assert calls_in_the_mechanism(lambda: add(x, x)) > 3
    nz.forward(weights, **inputs)
    outside = calls_in_the_mechanism(lambda: nz.forward(weights, **inputs))
    with nz.trace():
        inside = calls_in_the_mechanism(lambda: nz.forward(weights, **inputs))
    assert inside > 2 * outside


def test_outside_a_trace_nothing_is_recorded_or_named(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("a trace was at work")

    for name in ("keep", "full_name", "compute", "compose", "primitive", "composite"):
        monkeypatch.setattr(mechanism.Trace, name, refuse)
    nz.forward(standard.lively_weights(standard.NEZHA), **standard.pairs(standard.NEZHA))
    assert mechanism.recorder._active.get() is None


def test_after_the_block_the_trace_stays_as_it_is():
    weights, inputs = standard.lively_weights(standard.BERT), standard.pairs(standard.BERT)
    with nz.trace() as t:
        nz.forward(weights, **inputs)
    before = dict(t)
    nz.forward(weights, **inputs)
    assert list(t) == list(before) and all(t[name] is before[name] for name in t)
