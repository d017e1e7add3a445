"""Families of functions that the kernels know, and of others: with kernels they are what they are by definitions."""

import contextlib
import dataclasses
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
import test_cupy_kernels as on_cupy
import test_kernels as on_numpy
from cases import Case, arrays_of, cases, each_array, weights_for
from hypothesis import given, settings
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.arrays import asarray_like, namespace
from nezha_np.families.bert import BERT, BertConfig
from nezha_np.families.config import Config
from nezha_np.families.family import FAMILIES, register, table_of
from nezha_np.families.nezha import NEZHA
from nezha_np.families.shared import plain_context, plain_scores
from nezha_np.kernels import numpy as kernels
from nezha_np.kernels import numpy_blocks
from nezha_np.layers.addition import add
from nezha_np.layers.attention import content_scores
from nezha_np.mechanism import View, composite, constant
from nezha_np.model import model


@contextlib.contextmanager
def registered(*families):
    """Register families, and leave the registry as it was."""
    with mock.patch.dict(FAMILIES):
        for family in families:
            register(family)
        yield


def test_the_registry_asks_for_what_it_needs():
    @dataclasses.dataclass(frozen=True)
    class Nameless(Config):
        pass

    with pytest.raises(ValueError, match=r"^family: expected a configuration with a model_type, got Nameless$"):
        register(dataclasses.replace(BERT, config=Nameless))
    with pytest.raises(ValueError, match=r"^family: expected at least one prefix of tensor names for BERT, got none$"):
        register(dataclasses.replace(BERT, prefixes=()))
    with pytest.raises(ValueError, match=r"^family: expected the tasks of BERT to begin with forward, got \[\]$"):
        register(dataclasses.replace(BERT, tasks={}))
    assert list(FAMILIES) == ["nezha", "bert", "convbert"]


# ------------------------------------------------------------------------------ every kind of scores with every context


@dataclasses.dataclass(frozen=True)
class MixedConfig(BertConfig):
    """BERT's and NEZHA's, so that every function of the two can be put together."""

    model_type: ClassVar[str] = "mixed"

    max_relative_position: int = 3


@constant
def alibi_bias(like, *, heads, queries, keys, past):
    """−slope · distance, with a slope for each head (ALiBi: Press et al. 2022): (1, N, Q, S)."""
    distance = np.abs(np.arange(queries)[:, None] + past - np.arange(keys))
    slopes = 2.0 ** (-8.0 * np.arange(1, heads + 1) / heads)
    return asarray_like(like, (-slopes[:, None, None] * distance)[None])


def alibi_scores(q, k, w, *, table, past, cross):
    content = content_scores(q, k, name="content_scores")
    bias = alibi_bias(q, heads=q.shape[1], queries=q.shape[2], keys=k.shape[2], past=past, name="alibi")
    return add(content, bias, name="scores")


@composite
def scores_across_texts(q, k, w, *, table, past, cross):
    """Look at the other texts of a batch: each text has the queries of the first one too."""
    return content_scores(add(q, namespace(q).concat([q[:1, ...]] * q.shape[0], axis=0)), k)


def twice_the_context(probs, v, *, table, past):
    context = plain_context(probs, v, table=None, past=past)
    return add(context, context, name="twice")


def twice_the_query(x, query, w):
    return add(query, query, name="twice_the_query")


SCORES = {
    "plain": plain_scores,
    "bert": BERT.scores,
    "nezha": NEZHA.scores,
    "alibi": alibi_scores,
    "across texts": scores_across_texts,
}
CONTEXTS = {"plain": plain_context, "nezha": NEZHA.context, "twice": twice_the_context}
EVERY_MIXTURE = [(scores, context) for scores in SCORES for context in CONTEXTS]
KNOWN = [("plain", "plain"), ("bert", "plain"), ("nezha", "plain"), ("nezha", "nezha")]


def mixture(scores, context, *, beside=False):
    def attention(config):
        wide = {"output.dense.weight": "H 2*A"} if beside else {}
        return table_of(BERT.self_attention, config) | wide

    return dataclasses.replace(
        BERT,
        config=MixedConfig,
        title="a mixture",
        scores=SCORES[scores],
        context=CONTEXTS[context],
        position_table=NEZHA.position_table,
        beside_heads=twice_the_query if beside else None,
        texts_apart=scores != "across texts",
        self_attention=attention,
        prefixes=("mixed",),
    )


@st.composite
def mixtures(draw, task, scores, context):
    """Draw a family of one kind of scores and one of context, weights and the arguments of a call."""
    beside = draw(st.booleans())
    kind = draw(st.sampled_from(["absolute", "relative_key", "relative_key_query"]))
    case = draw(cases(task, "bert", hidden_from=8, labelled=False, cross=False if beside else None))
    head_size = case.config.head_size  # cases draws even ones, as NEZHA's table needs them
    assert head_size % 2 == 0
    config = MixedConfig(**vars(case.config) | {"position_embedding_type": kind})
    inputs = {name: value for name, value in case.inputs.items() if name != "position_ids"}
    return mixture(scores, context, beside=beside), Case(config, case.seed, inputs)


@pytest.mark.parametrize("task", ["forward", "masked_lm"])
@pytest.mark.parametrize(("scores", "context"), EVERY_MIXTURE)
@settings(max_examples=15)
@given(data=st.data(), dtype=st.sampled_from(["float32", "float64"]), blocks=on_numpy.small_blocks())
def test_numpys_kernels_compute_what_the_definitions_of_any_family_compute(scores, context, task, data, dtype, blocks):
    family, case = data.draw(mixtures(task, scores, context))
    inputs = each_array(lambda array: array.astype(dtype) if array.dtype == np.float64 else array, case.inputs)
    parts = data.draw(st.integers(1, 3))
    with registered(family):
        weights = weights_for(task, case, dtype)
        with blocks, mock.patch.object(numpy_blocks, "TOKENS", 1), on_numpy.threads_of_blas(parts):
            fast = arrays_of(getattr(nz, task)(weights, **inputs))
        with nz.definitions():
            plain = arrays_of(getattr(nz, task)(weights, **inputs))
    assert fast.keys() == plain.keys()
    for name, array in plain.items():
        atol = {"float32": 1e-5, "float64": 1e-12}[dtype] * max(1.0, np.abs(array).max(initial=0.0))
        np.testing.assert_allclose(fast[name], array, rtol=0, atol=atol, err_msg=name)


@on_cupy.with_the_stand_in
@pytest.mark.parametrize("task", ["forward", "masked_lm"])
@pytest.mark.parametrize(("scores", "context"), EVERY_MIXTURE)
@settings(max_examples=3)
@given(data=st.data())
def test_cupys_kernels_compute_what_the_definitions_of_any_family_compute(scores, context, task, data):
    family, case = data.draw(mixtures(task, scores, context))
    config = case.config.replace(layer_norm_eps=1e-3)
    names = ("inputs_embeds", "encoder_hidden_states", "past_key_values")
    floats = {name: case.inputs[name] for name in names if name in case.inputs}
    floats = each_array(lambda array: array.astype("float32"), floats)
    exact = case.inputs | each_array(lambda array: array.astype(float), floats)
    stand_ins = {"cupy": on_cupy.StandIn(), "array_api_compat.cupy": on_cupy.Namespace()}
    with registered(family):
        weights = weights_for(task, Case(config, case.seed, {}), "float32")
        with nz.definitions():
            expected = arrays_of(getattr(nz, task)(weights.to(dtype="float64"), **exact))
        with on_cupy.kernels_with(stand_ins) as there:
            moved = case.inputs | each_array(there.cupy.asarray, floats)
            found = arrays_of(getattr(nz, task)(on_cupy.moved(there, weights), **moved))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        atol = 1e-5 * max(1.0, np.abs(array).max(initial=0.0))
        np.testing.assert_allclose(on_cupy.host(found[name]), array, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(("scores", "context"), EVERY_MIXTURE)
def test_the_kernels_of_attention_take_the_functions_that_they_know_and_no_others(scores, context):
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    with registered(mixture(scores, context)):
        weights = nz.init(MixedConfig(**sizes, position_embedding_type="relative_key"), dtype="float64")
        w, x = View(weights).at("encoder.layer.0.attention.self"), np.ones((1, 3, 8))
        found = kernels.self_attention_kernel(x, w, table=model.cached_table(weights), returns_probs=False)
    assert (found is not NotImplemented) == ((scores, context) in KNOWN)


def test_a_feed_forward_with_groups_in_its_second_half_alone_is_left_to_the_definition():
    @dataclasses.dataclass(frozen=True)
    class GroupedConfig(BertConfig):
        model_type: ClassVar[str] = "grouped"

    tables = table_of(BERT.feed_forward, None) | {"output.dense.weight": "2 3 4"}
    with registered(dataclasses.replace(BERT, config=GroupedConfig, feed_forward=tables)):
        sizes = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 6}
        weights = nz.init(GroupedConfig(**sizes), dtype="float64")
        found = nz.forward(weights, [[1, 2, 3]]).last_hidden_state
        with nz.definitions():
            expected = nz.forward(weights, [[1, 2, 3]]).last_hidden_state
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_batch_is_divided_only_where_the_family_computes_texts_apart():
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    with registered(mixture("across texts", "plain")):
        weights = nz.init(MixedConfig(**sizes, initializer_range=1.0), dtype="float64")
        ids = np.arange(12).reshape(4, 3) % 9
        with mock.patch.object(numpy_blocks, "TOKENS", 1), on_numpy.threads_of_blas(2):
            found = nz.forward(weights, ids).last_hidden_state
        with nz.definitions():
            expected = nz.forward(weights, ids).last_hidden_state
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
