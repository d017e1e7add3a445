"""What holds without any reference."""

import itertools
import threading
import tracemalloc

import numpy as np
import pytest
from cases import (
    EVERY_HEAD,
    EVERY_LABELLED_HEAD,
    LONGEST,
    Case,
    arrays_of,
    cases,
    each_array,
    weights_for,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from tiers import examples

import nezha_np as nz
from nezha_np.layers.attention import attention_probs, attention_probs_gradient, mask_heads_gradient
from nezha_np.layers.embedding import embedding_gradient
from nezha_np.layers.grouped_linear import grouped_linear, grouped_linear_gradient
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear, linear_gradient
from nezha_np.layers.relative_key import key_distance_scores_gradient, query_distance_scores_gradient
from nezha_np.layers.selection import mean_of_tokens
from nezha_np.layers.span_convolution import (
    convolution_kernels,
    convolution_kernels_gradient,
    dynamic_convolution_gradient,
    separable_convolution_gradient,
)

POSITIONS = (
    "nezha",
    *nz.families.bert.POSITION_KINDS,
)  # all ways to know where a token stands, in families with a decoder


@st.composite
def cases_with(draw, positions, head, **options):
    """Draw a case of NEZHA, or of BERT with one kind of positions."""
    if positions == "nezha":
        return draw(cases(head, "nezha", **options))
    case = draw(cases(head, "bert", **options))
    if positions != "absolute":
        case.inputs.pop("position_ids", None)
    return Case(case.config.replace(position_embedding_type=positions), case.seed, case.inputs)


def only_row(row, inputs):
    """Take one row of a batch out of everything that has rows."""
    everywhere = {name: inputs[name] for name in ("head_mask",) if name in inputs}
    cut = {name: value[row : row + 1] if isinstance(value, list) else value for name, value in inputs.items()}
    return each_array(lambda array: array[row : row + 1], cut) | everywhere


def run(head, weights, inputs, **changes):
    return getattr(nz, head)(weights, **{**inputs, **changes})


@pytest.mark.parametrize("positions", POSITIONS)
@examples(20)
@given(data=st.data())
def test_padding_does_not_change_what_is_not_padded(positions, data):
    case = data.draw(cases_with(positions, "forward", decoder=False, from_ids=True))
    weights, inputs = weights_for("forward", case), case.inputs
    most = 4 if positions == "nezha" else LONGEST - inputs["input_ids"].shape[1]  # BERT has learned no more positions
    extra = data.draw(st.integers(0, most))
    ids = inputs["input_ids"]
    mask = inputs.get("attention_mask", np.ones_like(ids))
    if mask.ndim == 3:
        mask = mask[:, 0]
    short = run("forward", weights, inputs, attention_mask=mask)
    padding = ((0, 0), (0, extra))
    longer = {"input_ids": np.pad(ids, padding, constant_values=1), "attention_mask": np.pad(mask, padding)}
    longer |= {name: np.pad(inputs[name], padding) for name in ("token_type_ids", "position_ids") if name in inputs}
    long = run("forward", weights, inputs, **longer)
    sees_a_key = mask.any(axis=1)  # a row that sees none attends to its padding too, uniformly
    found = long.last_hidden_state[sees_a_key, : ids.shape[1]]
    np.testing.assert_allclose(found, short.last_hidden_state[sees_a_key], atol=1e-10)


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@examples(15, quick=4)
@given(data=st.data())
def test_rows_of_a_batch_do_not_see_each_other(family, head, data):
    case = data.draw(cases(head, family, labelled=False, reference=False))
    weights, inputs = weights_for(head, case), case.inputs
    whole = arrays_of(run(head, weights, inputs))
    batch = next(len(inputs[name]) for name in ("input_ids", "inputs_embeds") if name in inputs)
    for row in range(batch):
        alone = arrays_of(run(head, weights, only_row(row, inputs)))
        for name, array in alone.items():
            if head == "multiple_choice" and name != "logits":
                continue  # the others have a row for each choice
            np.testing.assert_allclose(array, whole[name][row : row + 1], atol=1e-10, err_msg=name)


@pytest.mark.parametrize("positions", POSITIONS)
@examples(30)
@given(data=st.data())
def test_steps_with_a_cache_equal_the_full_pass_wherever_a_token_may_attend_to_a_key(positions, data):
    case = data.draw(cases_with(positions, "causal_lm", labelled=False, from_ids=True))
    names = ("input_ids", "token_type_ids", "position_ids", "head_mask", "encoder_hidden_states")
    inputs = {name: value for name, value in case.inputs.items() if name in names}
    whole = ("head_mask", "encoder_hidden_states")
    batch, length = inputs["input_ids"].shape
    generator = np.random.default_rng(case.seed)
    mask = generator.integers(0, 2, (batch, length)) if data.draw(st.booleans()) else np.ones((batch, length), np.int64)
    weights = weights_for("causal_lm", case)
    full = nz.causal_lm(weights, attention_mask=mask, **inputs)
    cuts = sorted({0, length, *data.draw(st.lists(st.integers(1, length), max_size=3))})
    cache, logits = None, []
    for start, stop in itertools.pairwise(cuts):
        part = {k: v if k in whole else v[:, start:stop] for k, v in inputs.items()}
        out = nz.causal_lm(weights, attention_mask=mask[:, :stop], past_key_values=cache, **part)
        cache = out.past_key_values
        logits.append(out.logits)
    may_attend = np.cumsum(mask, axis=1) > 0
    np.testing.assert_allclose(np.concatenate(logits, axis=1)[may_attend], full.logits[may_attend], atol=1e-10)


@pytest.mark.parametrize("positions", POSITIONS)
@examples(20)
@given(data=st.data(), encoded=st.integers(1, LONGEST + 3))
def test_cross_attention_takes_any_encoder_length_and_the_same_with_a_cache(positions, data, encoded):
    case = data.draw(cases_with(positions, "forward", decoder=True, cross=True, from_ids=True))
    weights = weights_for("forward", case)
    ids = case.inputs["input_ids"]
    generator = np.random.default_rng(case.seed)
    states = generator.normal(size=(ids.shape[0], encoded, case.config.hidden_size))
    options = {"encoder_hidden_states": states, "encoder_attention_mask": generator.integers(0, 2, states.shape[:2])}
    full = nz.forward(weights, ids, **options, output_attentions=True)
    assert full.cross_attentions[0].shape == (ids.shape[0], case.config.num_attention_heads, ids.shape[1], encoded)
    if ids.shape[1] > 1:
        cut = data.draw(st.integers(1, ids.shape[1] - 1))
        first = nz.forward(weights, ids[:, :cut], **options)
        second = nz.forward(weights, ids[:, cut:], **options, past_key_values=first.past_key_values)
        np.testing.assert_allclose(second.last_hidden_state, full.last_hidden_state[:, cut:], atol=1e-10)
        others = tuple((*layer[:2], layer[2] + 1.0, layer[3]) for layer in first.past_key_values)
        reused = nz.forward(weights, ids[:, cut:], **options, past_key_values=others)
        assert np.array_equal(reused.past_key_values[0][2], others[0][2])  # the cache's keys, not made again
        own = tuple(layer[:2] for layer in first.past_key_values)  # without the encoder's keys they are made again
        again = nz.forward(weights, ids[:, cut:], **options, past_key_values=own)
        np.testing.assert_allclose(again.last_hidden_state, full.last_hidden_state[:, cut:], atol=1e-10)


@pytest.mark.parametrize("positions", POSITIONS)
@examples(15)
@given(data=st.data())
def test_an_encoder_takes_a_prefix_of_keys_and_values(positions, data):
    case = data.draw(cases_with(positions, "forward", decoder=False, from_ids=True))
    weights, config = weights_for("forward", case), case.config
    ids = case.inputs["input_ids"][:, : LONGEST - 3]
    # Behind a prefix distances are what they were; absolute positions are counted from its first token, unless given.
    where = {"position_ids": [list(range(ids.shape[1]))]} if config.learns_positions else {}
    generator = np.random.default_rng(case.seed)
    shapes = [(ids.shape[0], config.heads(layer), 3, config.head_size) for layer in range(config.num_hidden_layers)]
    prefix = tuple((generator.normal(size=shape), generator.normal(size=shape)) for shape in shapes)
    out = nz.forward(weights, ids, past_key_values=prefix, output_attentions=True, **where)
    assert out.attentions[0].shape[-1] == 3 + ids.shape[1] and out.past_key_values is None
    hidden = np.concatenate([np.zeros((ids.shape[0], 3)), np.ones(ids.shape)], axis=1)
    without = nz.forward(weights, ids, past_key_values=prefix, attention_mask=hidden, **where)
    # A masked prefix is no prefix.
    np.testing.assert_allclose(without.last_hidden_state, nz.forward(weights, ids).last_hidden_state, atol=1e-10)


def test_a_text_may_be_longer_than_max_position_embeddings():
    config = nz.NezhaConfig(
        vocab_size=9,
        hidden_size=8,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=4,
        max_position_embeddings=4,
    )
    weights = nz.init(config, dtype="float64")
    ids = np.random.default_rng(0).integers(0, 9, (1, 700))
    assert nz.forward(weights, ids).last_hidden_state.shape == (1, 700, 8)


def test_beyond_the_distance_k_all_distances_look_alike():
    config = nz.NezhaConfig(
        vocab_size=9,
        hidden_size=8,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=4,
        max_relative_position=3,
    )
    weights = nz.init(config, dtype="float64")
    with nz.trace() as t:
        nz.forward(weights, np.ones((1, 12), int))
    scores = t["encoder.layer.0.attention.self.position_scores"][0, 0]
    for query in range(12):
        far = scores[query, min(12, query + 3) :]
        assert np.ptp(far) < 1e-15 if far.size else True
    assert len(np.unique(scores[6].round(12))) == 7  # 2K + 1


@examples(30)
@given(data=st.data())
def test_a_bert_that_is_told_where_each_token_stands_reads_them_in_any_order(data):
    case = data.draw(cases_with("absolute", "forward", decoder=False, from_ids=True))
    weights = weights_for("forward", case)
    batch, length = case.inputs["input_ids"].shape
    ids = {name: case.inputs[name] for name in ("input_ids", "token_type_ids") if name in case.inputs}
    ids["position_ids"] = np.tile(np.arange(length), (batch, 1))
    order = np.random.default_rng(case.seed).permutation(length)
    plain = nz.forward(weights, ids["input_ids"], token_type_ids=ids.get("token_type_ids")).last_hidden_state
    shuffled = nz.forward(weights, **{name: value[:, order] for name, value in ids.items()}).last_hidden_state
    np.testing.assert_allclose(shuffled, plain[:, order], atol=1e-10)


@pytest.mark.parametrize("positions", nz.families.bert.POSITION_KINDS)
@examples(15)
@given(data=st.data())
def test_a_bert_whose_position_vectors_are_zero_does_not_know_where_a_token_stands(positions, data):
    case = data.draw(cases_with(positions, "forward", decoder=False, from_ids=True))
    weights = weights_for("forward", case)
    vectors = ("position_embeddings.weight", "distance_embedding.weight")
    blind = nz.Weights(
        {name: np.zeros_like(array) if name.endswith(vectors) else array for name, array in weights.items()},
        case.config,
    )
    ids = case.inputs["input_ids"]
    order = np.random.default_rng(case.seed).permutation(ids.shape[1])
    plain, shuffled = nz.forward(blind, ids).last_hidden_state, nz.forward(blind, ids[:, order]).last_hidden_state
    np.testing.assert_allclose(shuffled, plain[:, order], atol=1e-10)


@examples(30)
@given(data=st.data())
def test_without_its_heads_a_convbert_layer_sees_half_a_kernel_to_either_side(data):
    case = data.draw(cases("forward", "convbert", from_ids=False))
    weights, config = weights_for("forward", case), case.config
    vectors = case.inputs["inputs_embeds"]
    heads_off = {"head_mask": np.zeros(config.attention_heads), "output_hidden_states": True}
    changed = data.draw(st.integers(0, vectors.shape[1] - 1))
    others = vectors.copy()
    others[:, changed] += np.random.default_rng(case.seed).normal(size=vectors.shape[2])
    plain = nz.forward(weights, inputs_embeds=vectors, **heads_off).hidden_states
    other = nz.forward(weights, inputs_embeds=others, **heads_off).hidden_states
    distance = np.abs(np.arange(vectors.shape[1]) - changed)
    for layer in range(config.num_hidden_layers + 1):
        reach = layer * (config.conv_kernel_size // 2)
        assert np.array_equal(plain[layer][:, distance > reach], other[layer][:, distance > reach])
    # Both ends of the reach are seen. (Two features after a norm are often ±1, whatever came before.)
    if config.hidden_size > 2 and config.embedding_size > 2:
        ends = distance == config.conv_kernel_size // 2
        assert (plain[1][:, ends] != other[1][:, ends]).any(axis=(0, 2)).all()


@examples(30)
@given(case=cases("forward", "convbert", from_ids=True), extra=st.integers(1, 4))
def test_in_the_first_convbert_layer_padding_reaches_half_a_kernel_and_no_further(case, extra):
    weights, ids = weights_for("forward", case), case.inputs["input_ids"][:, : LONGEST - 4]
    batch, length = ids.shape
    padding = ((0, 0), (0, extra))
    plain = nz.forward(weights, ids, output_hidden_states=True).hidden_states[1]
    padded = nz.forward(
        weights,
        np.pad(ids, padding, constant_values=1),
        attention_mask=np.pad(np.ones((batch, length)), padding),
        output_hidden_states=True,
    ).hidden_states[1]
    untouched = max(0, length - case.config.conv_kernel_size // 2)
    np.testing.assert_allclose(padded[:, :untouched], plain[:, :untouched], atol=1e-10)


@examples(30)
@given(case=cases("forward", "convbert"))
def test_a_convbert_kernel_is_an_average_and_one_of_size_1_the_value_itself(case):
    weights = weights_for("forward", case)
    with nz.trace() as t:
        nz.forward(weights, **case.inputs)
    for layer in range(case.config.num_hidden_layers):
        at = f"encoder.layer.{layer}.attention.self"
        kernels, values, context = (t[f"{at}.{name}"] for name in ("conv_kernels", "conv_out_layer", "conv_context"))
        assert kernels.shape == (*values.shape[:2], case.config.attention_heads, case.config.conv_kernel_size)
        assert (kernels >= 0).all()
        np.testing.assert_allclose(kernels.sum(axis=-1), 1.0, atol=1e-12)
        assert (np.abs(context) <= np.abs(values).max(axis=(1, 2), keepdims=True) + 1e-12).all()
        if case.config.conv_kernel_size == 1:
            np.testing.assert_allclose(context, values, atol=1e-12)


@given(
    groups=st.integers(1, 4),
    inward=st.integers(1, 3),
    outward=st.integers(1, 3),
    axes=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_linear_layer_in_groups_is_a_linear_layer_whose_matrix_has_blocks(groups, inward, outward, axes, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(*(2, 3)[: axes - 1], groups * inward))
    weight = generator.normal(size=(groups, inward, outward))
    bias = generator.normal(size=(groups * outward,))
    blocks = np.zeros((groups * outward, groups * inward))  # (out, in), as a linear layer has it
    for group in range(groups):
        rows = slice(group * outward, (group + 1) * outward)
        blocks[rows, group * inward : (group + 1) * inward] = weight[group].T
    np.testing.assert_allclose(grouped_linear(x, weight, bias), linear(x, blocks, bias), atol=1e-12)


def test_a_row_with_everything_masked_attends_uniformly():
    for dtype in ("float16", "float32", "float64"):
        weights = nz.load(dtype=dtype)
        out = nz.forward(weights, [[2, 5, 3]], attention_mask=[[0, 0, 0]], output_attentions=True)
        for probs in out.attentions:
            np.testing.assert_allclose(probs, 1 / 3, rtol=1e-3 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@examples(10, quick=2)
@given(data=st.data())
def test_inputs_and_weights_are_never_written_to(family, head, data):
    case = data.draw(cases(head, family, reference=False))
    weights = weights_for(head, case)
    arrays = list(weights.values())
    each_array(arrays.append, case.inputs)
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    run(head, weights, case.inputs)
    if head != "forward":
        nz.value_and_grad(getattr(nz, head), dropout_seed=1)(weights, **case.inputs)
    assert all(np.array_equal(one, other, equal_nan=True) for one, other in zip(arrays, before, strict=True))


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
@examples(10, quick=2)
@given(data=st.data())
def test_gradients_equal_finite_differences_with_dropout_too(family, head, data):
    case = data.draw(cases(head, family, hidden_from=8, reference=False))
    smooth = case.config.replace(  # a kink of relu or selu has no derivative to compare with
        hidden_act="gelu" if case.config.hidden_act in ("relu", "selu") else case.config.hidden_act,
        layer_norm_eps=1e-3,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.1,
    )
    for name in ("attention_mask", "encoder_attention_mask"):
        # Where every key is masked, the minimum swallows the scores: uniform whatever they are, which no derivative of
        # the formula knows (nor does the reference's).
        if name in case.inputs:
            case.inputs[name][..., 0] = 1
    case = Case(smooth, case.seed, case.inputs)
    weights = weights_for(head, case)
    function = nz.value_and_grad(getattr(nz, head), dropout_seed=(3, data.draw(st.integers(0, 9))))
    out, gradients = function(weights, **case.inputs)
    assume(np.isfinite(out.loss))
    generator = np.random.default_rng(case.seed)
    direction = {name: generator.normal(size=array.shape) for name, array in weights.items()}
    if "input_ids" in case.inputs and smooth.pad_token_id is not None:
        # Look-ups of the padding row get no gradient by convention, so this row is not moved.
        direction["embeddings.word_embeddings.weight"][smooth.pad_token_id] = 0.0

    def loss_at(step):
        there = {name: array + step * direction[name] for name, array in weights.items()}
        return function(nz.Weights(there, smooth), **case.inputs)[0].loss

    h = 1e-4  # and a stencil of fourth order, because a norm over a few features bends sharply
    slope = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h)
    expected = sum(float(np.sum(gradient * direction[name])) for name, gradient in gradients.items())
    assert slope == pytest.approx(expected, rel=1e-5, abs=1e-6)


@examples(10, quick=1)
@given(seed=st.integers(0, 1000))
def test_dropout_depends_on_seed_and_step_and_on_nothing_else(seed):
    weights = nz.load(dtype="float64")
    config = weights.config.replace(hidden_dropout_prob=0.5)
    ids, labels = [[2, 7, 3]], [[-100, 7, -100]]

    def logits(dropout_seed):
        out, _ = nz.value_and_grad(nz.masked_lm, dropout_seed)(weights, ids, labels=labels, config=config)
        return out.logits

    assert np.array_equal(logits(seed), logits(seed))
    assert np.array_equal(logits(seed), logits((seed, 0)))
    assert not np.array_equal(logits((seed, 0)), logits((seed, 1)))
    assert not np.array_equal(logits(seed), logits(seed + 1))
    with nz.definitions():
        assert np.array_equal(logits(None), nz.masked_lm(weights, ids, config=config).logits)


@pytest.mark.parametrize(("family", "head"), EVERY_HEAD)
@examples(5, quick=2)
@given(data=st.data())
def test_tracing_and_taping_do_not_change_a_result(family, head, data):
    case = data.draw(cases(head, family, reference=False))
    weights = weights_for(head, case)
    with nz.trace():
        traced = arrays_of(run(head, weights, case.inputs))
    with nz.definitions():  # by which a trace is made, and a tape where they are wanted
        plain = arrays_of(run(head, weights, case.inputs))
        run_taped = nz.value_and_grad(getattr(nz, head))
        taped = traced if head == "forward" else arrays_of(run_taped(weights, **case.inputs)[0])
    for name, array in plain.items():
        assert np.array_equal(array, traced[name], equal_nan=True), name
        assert np.array_equal(array, taped[name], equal_nan=True), name


def test_threads_do_not_see_each_others_traces():
    weights = nz.load()
    found = {}

    def work(index):
        with nz.trace() as t:
            nz.forward(weights, [[2, 5 + index, 3]])
        found[index] = t["embeddings.word_embeddings"][0, 1]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table = weights["embeddings.word_embeddings.weight"]
    assert all(np.array_equal(found[index], table[5 + index]) for index in range(8))


@pytest.mark.parametrize("positions", POSITIONS)
def test_no_array_of_every_pair_of_positions_and_every_feature_is_ever_built(positions):
    length, head_size = 160, 64
    sizes = {"vocab_size": 9, "hidden_size": head_size, "num_attention_heads": 1, "num_hidden_layers": 2}
    sizes |= {"intermediate_size": 8, "max_position_embeddings": length}
    config = nz.NezhaConfig(**sizes)
    if positions != "nezha":
        config = nz.BertConfig(position_embedding_type=positions, **sizes)
    weights = nz.init(config, dtype="float64")
    ids = np.ones((1, length), int)
    function = nz.value_and_grad(nz.masked_lm)
    function(weights, ids, labels=ids)  # tables that are kept, and modules that are imported, are there from now on
    for call in (lambda: nz.forward(weights, ids), lambda: function(weights, ids, labels=ids)):
        tracemalloc.start()
        try:
            call()
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < length * length * head_size * 8  # bytes of one such array; a tape of all there is keeps less


@pytest.mark.parametrize(("family", "head"), EVERY_LABELLED_HEAD)
def test_an_array_under_two_names_gets_a_gradient_under_each(family, head):
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2}
    if family == "convbert":
        sizes |= {"embedding_size": 8, "pad_token_id": 0}
    config = nz.families.family.FAMILIES[family].config(**sizes, intermediate_size=8)
    apart = dict(nz.init(config, head=head, dtype="float64"))
    zeros = np.zeros(8)
    shared = {name: zeros if array.shape == (8,) and name.endswith("bias") else array for name, array in apart.items()}
    ids = [[[2, 5, 3]]] if head == "multiple_choice" else [[2, 5, 3]]
    labels = {
        "pretraining": {"labels": [[1, 2, 3]], "next_sentence_label": [1]},
        "question_answering": {"start_positions": [1], "end_positions": [2]},
        "next_sentence_prediction": {"labels": [1]},
        "sequence_classification": {"labels": [1]},
        "multiple_choice": {"labels": [0]},
    }.get(head, {"labels": [[1, 0, 1]]})
    if head == "causal_lm":
        config = config.replace(is_decoder=True)
    function = nz.value_and_grad(getattr(nz, head))
    _, expected = function(apart, ids, config=config, **labels)
    _, found = function(shared, ids, config=config, **labels)
    assert set(found) == set(expected)
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[name], atol=1e-15, err_msg=name)


@pytest.mark.parametrize("positions", POSITIONS)
def test_cross_attention_keeps_its_heads_and_so_no_head_mask_fits_a_decoder_that_lost_one_in_each_layer(positions):
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2}
    sizes |= {"intermediate_size": 8, "is_decoder": True}
    config = (
        nz.NezhaConfig(**sizes) if positions == "nezha" else nz.BertConfig(position_embedding_type=positions, **sizes)
    )
    lost = {0: [1], 1: [0]}
    nz.forward(nz.init(config).prune_heads(lost), [[2, 5, 3]], head_mask=[1])  # without cross-attention, one fits
    weights = nz.init(config.replace(add_cross_attention=True)).prune_heads(lost)
    options = {"encoder_hidden_states": np.ones((1, 4, 8)), "output_attentions": True}
    out = nz.forward(weights, [[2, 5, 3]], **options)
    assert [probs.shape[1] for probs in (*out.attentions, *out.cross_attentions)] == [1, 1, 2, 2]
    for head_mask in ([1], [1, 1], [[1], [1]], [[1, 1], [1, 1]]):
        with pytest.raises(ValueError, match=r"^head_mask: expected None, because layers differ in their heads, got "):
            nz.forward(weights, [[2, 5, 3]], head_mask=head_mask, **options)


def test_statistics_of_float16_weights_are_not_computed_in_float16():
    generator = np.random.default_rng(0)
    x = (500 + 300 * generator.normal(size=(4, 256))).astype("float16")  # whose squares overflow float16
    exact = layer_norm(x.astype("float64"), np.ones(256), np.zeros(256), eps=1e-12)
    found = layer_norm(x, np.ones(256, "float16"), np.zeros(256, "float16"), eps=1e-12)
    assert np.abs(found - exact).max() < 2e-3  # one rounding to float16


@pytest.mark.parametrize(
    "probabilities",
    [
        pytest.param(lambda scores: attention_probs(scores, scale=0.12345), id="attention"),
        pytest.param(lambda scores: convolution_kernels(scores[0] / 8, size=8), id="a convolution's kernels"),
    ],
)
def test_probabilities_of_float16_scores_are_rounded_to_float16_once(probabilities):
    scores = (30 * np.random.default_rng(0).normal(size=(1, 1, 50, 8))).astype("float16")
    found, exact = probabilities(scores), probabilities(scores.astype("float64"))
    assert found.dtype == np.float16
    seen = exact > 1e-3  # where float16 has all its digits
    error = np.abs(found - exact)[seen] / exact[seen]
    assert error.max() < 2**-11 * 1.01


@pytest.mark.parametrize(
    "gradient",
    [
        pytest.param(lambda dy, y: attention_probs_gradient(dy, y, y, scale=0.12345), id="attention"),
        pytest.param(lambda dy, y: convolution_kernels_gradient(dy, y, y, size=8), id="a convolution's kernels"),
    ],
)
def test_the_gradient_of_float16_scores_is_rounded_to_float16_once(gradient):
    generator = np.random.default_rng(0)
    dy, y = generator.normal(size=(1, 50, 1, 8)), generator.dirichlet(np.ones(8), size=(1, 50, 1))
    dy, y = dy.astype("float16"), y.astype("float16")
    found, exact = gradient(dy, y), gradient(dy.astype("float64"), y.astype("float64"))
    assert found.dtype == np.float16
    seen = np.abs(exact) > 1e-3
    error = np.abs((found - exact)[seen] / exact[seen])
    assert error.max() < 2**-11 * 1.01


def ones(*shape):
    return np.ones(shape, "float16")  # which a sum in float16 stops counting at 2048


BY_PAIR = ones(5000, 2, 3, 3)  # (B, N, Q, S)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            lambda: linear_gradient(ones(5000, 2), None, ones(5000, 3), ones(2, 3), ones(2))[2],
            5000,
            id="the bias of a linear layer",
        ),
        pytest.param(
            lambda: grouped_linear_gradient(ones(5000, 2), None, ones(5000, 2), ones(2, 1, 1), ones(2))[2],
            5000,
            id="the bias of a grouped linear layer",
        ),
        pytest.param(
            lambda: embedding_gradient(ones(1, 5000, 3), None, np.zeros((1, 5000), int), ones(2, 3))[1],
            [[5000], [0]],
            id="a row of an embedding",
        ),
        pytest.param(
            lambda: query_distance_scores_gradient(BY_PAIR, None, ones(5000, 2, 3, 4), ones(5, 4), keys=3)[1],
            [[10000], [20000], [30000], [20000], [10000]],
            id="the distances seen from the queries",
        ),
        pytest.param(
            lambda: key_distance_scores_gradient(BY_PAIR, None, ones(5000, 2, 3, 4), ones(5, 4), queries=3)[1],
            [[10000], [20000], [30000], [20000], [10000]],
            id="the distances seen from the keys",
        ),
        pytest.param(
            lambda: separable_convolution_gradient(
                ones(50, 100, 2), None, ones(50, 100, 3), ones(3, 1, 1), ones(2, 3, 1), ones(2, 1)
            )[1],
            10000,
            id="the depthwise numbers of a convolution",
        ),
        pytest.param(
            lambda: separable_convolution_gradient(
                ones(50, 100, 2), None, ones(50, 100, 3), ones(3, 1, 1), ones(2, 3, 1), ones(2, 1)
            )[3],
            5000,
            id="the bias of a convolution",
        ),
        pytest.param(
            lambda: dynamic_convolution_gradient(
                300 * ones(1, 1, 2), None, np.array([[[300, -299]]], "float16"), ones(1, 1, 1, 1)
            )[1],
            300,
            id="the kernels of a convolution, whose products overflow float16",
        ),
        pytest.param(
            lambda: mask_heads_gradient(ones(5000, 2, 1, 1), None, ones(5000, 2, 1, 1), ones(2))[1],
            5000,
            id="the head mask",
        ),
        pytest.param(lambda: mean_of_tokens(ones(1, 5000, 2)), 1, id="the mean of all tokens"),
    ],
)
def test_a_sum_over_float16_numbers_is_rounded_to_float16_once(found, expected):
    found = found()
    assert found.dtype == np.float16
    assert (found == np.asarray(expected)).all(), found
