"""Generation: each step is a full pass, a row is continued as it is alone, and BERT's is the reference's."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from cases import cases, weights_for
from hypothesis import assume, given
from hypothesis import strategies as st
from tiers import examples

import nezha_np as nz
from nezha_np.arrays import library, to_numpy
from nezha_np.model.generation import sample

CONFIG = nz.NezhaConfig(
    vocab_size=11,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=6,
    max_position_embeddings=8,
    max_relative_position=3,
    is_decoder=True,
)
IDS = [[2, 3, 4], [5, 6, 3]]  # B = 2, L = 3
NEVER: list[int] = []  # no id ends a row
SAMPLED = [[6, 8, 0, 10, 1, 10, 6, 6], [5, 4, 8, 3, 9, 6, 1, 0]]


MOST = 5  # tokens of a BERT prompt here: of its 12 positions some are left for the new tokens


def weights_of(config=CONFIG, dtype="float64"):
    generator = np.random.default_rng(0)
    tensors = {
        name: (0.4 * generator.normal(size=array.shape) + name.endswith("LayerNorm.weight")).astype(dtype)
        for name, array in nz.init(config).items()
    }
    return nz.Weights(tensors, config)


@st.composite
def prompts(draw, *, hidden_from=2, cross=False, padded=None):
    """Draw weights, ids, and what goes with them: a mask of padding on the left, token types, encoder states."""
    case = draw(cases("causal_lm", hidden_from=hidden_from, labelled=False, decoder=True, cross=cross, from_ids=True))
    case.config = case.config.replace(eos_token_id=None)
    generator = np.random.default_rng(case.seed)
    longest = MOST if case.config.model_type == "bert" else None  # which leaves positions for the new tokens
    ids = case.inputs["input_ids"][:, :longest]
    options = {name: case.inputs[name][:, :longest] for name in ("token_type_ids",) if name in case.inputs}
    if draw(st.booleans()) if padded is None else padded:
        padding = generator.integers(0, ids.shape[1], len(ids))  # one token at least is left
        options["attention_mask"] = (np.arange(ids.shape[1]) >= padding[:, None]).astype(np.int64)
    if cross:
        encoded = draw(st.integers(1, 6))
        options["encoder_hidden_states"] = generator.normal(size=(len(ids), encoded, case.config.hidden_size))
        if draw(st.booleans()):
            options["encoder_attention_mask"] = generator.integers(0, 2, (len(ids), encoded))
    return weights_for("causal_lm", case), ids, options


def only(options, row):
    """Return what goes with one row."""
    return {name: value[row : row + 1] for name, value in options.items()}


# ----------------------------------------------------------------------------------------------------- what must hold


@pytest.mark.parametrize("cross", [False, True], ids=["alone", "with-an-encoder"])
@examples(40, quick=5)
@given(data=st.data())
def test_each_greedy_token_is_the_likeliest_after_a_full_pass_with_a_cache_and_without(cross, data):
    weights, ids, options = data.draw(prompts(cross=cross))
    expected, grown = ids, dict(options)
    for _ in range(5):
        logits = nz.causal_lm(weights, expected, **grown).logits[:, -1]
        expected = np.concatenate([expected, logits.argmax(axis=-1)[:, None]], axis=1)
        if "attention_mask" in grown:
            grown["attention_mask"] = np.pad(grown["attention_mask"], ((0, 0), (0, 1)), constant_values=1)
        if "token_type_ids" in grown:
            grown["token_type_ids"] = np.pad(grown["token_type_ids"], ((0, 0), (0, 1)), mode="edge")
    for use_cache in (True, False, None):
        found = nz.generate(weights, ids, max_new_tokens=5, use_cache=use_cache, **options)
        assert found.dtype == np.int64
        assert found.tolist() == expected.tolist()


@examples(40)
@given(asked=prompts(hidden_from=8))
def test_the_logits_of_each_step_with_a_cache_are_those_of_the_full_pass(asked):
    weights, ids, options = asked
    text = nz.generate(weights, ids, max_new_tokens=5, **options)
    new = ((0, 0), (0, 5))
    if "attention_mask" in options:
        options["attention_mask"] = np.pad(options["attention_mask"], new, constant_values=1)
    if "token_type_ids" in options:
        options["token_type_ids"] = np.pad(options["token_type_ids"], new, mode="edge")
    full = nz.causal_lm(weights, text, **options).logits
    past, start = None, 0
    for stop in range(ids.shape[1], text.shape[1]):
        part = {
            name: value[:, start:stop] if name == "token_type_ids" else value[:, :stop]
            for name, value in options.items()
        }
        out = nz.causal_lm(weights, text[:, start:stop], past_key_values=past, **part)
        largest = max(1.0, np.abs(full[:, stop - 1]).max())
        np.testing.assert_allclose(out.logits[:, -1], full[:, stop - 1], rtol=0, atol=1e-12 * largest)
        past, start = out.past_key_values, stop


@examples(20)
@given(asked=prompts())
def test_the_logits_of_the_last_token_alone_are_those_of_all_tokens(asked):
    weights, ids, options = asked
    full, out = (nz.causal_lm(weights, ids, **options, last_only=last_only) for last_only in (False, True))
    largest = max(1.0, np.abs(full.logits).max())
    np.testing.assert_allclose(out.logits, full.logits[:, -1], rtol=0, atol=1e-12 * largest)
    assert len(out.past_key_values) == len(full.past_key_values)


def test_the_logits_of_the_last_token_alone_have_no_loss():
    weights = nz.init(nz.BertConfig(**TINY, is_decoder=True))
    with pytest.raises(ValueError, match=r"last_only: expected False with labels, .* got True"):
        nz.causal_lm(weights, [[2, 3]], labels=[[2, 3]], last_only=True)
    with pytest.raises(TypeError, match="last_only: expected True, False or None, got 1"):
        nz.causal_lm(weights, [[2, 3]], last_only=1)


def test_a_step_computes_the_logits_of_one_token_of_each_prompt(monkeypatch):
    weights = nz.init(nz.BertConfig(**TINY, is_decoder=True))
    shapes = []

    def spied(*arguments, **options):
        out = nz.causal_lm(*arguments, **options)
        shapes.append(out.logits.shape)
        return out

    monkeypatch.setattr("nezha_np.model.generation.causal_lm", spied)
    nz.generate(weights, [[2, 4, 5], [2, 6, 7]], max_new_tokens=2, eos_token_id=[])
    assert shapes == [(2, weights.config.vocab_size)] * 2


@given(asked=prompts(padded=True))
def test_a_row_padded_on_the_left_is_continued_as_it_is_alone_where_positions_are_relative(asked):
    weights, ids, options = asked
    assume(not weights.config.learns_positions)
    found = nz.generate(weights, ids, max_new_tokens=4, **options)
    mask = options.pop("attention_mask", np.ones_like(ids))
    for row, padding in enumerate((mask == 0).sum(axis=1)):
        alone = only({name: value[:, padding:] for name, value in {"input_ids": ids, **options}.items()}, row)
        assert found[row : row + 1, padding:].tolist() == nz.generate(weights, **alone, max_new_tokens=4).tolist()


@given(asked=prompts(padded=True), as_arrays=st.booleans())
def test_lists_of_different_lengths_are_padded_on_the_left(asked, as_arrays):
    weights, ids, options = asked
    mask = options["attention_mask"]
    mask[-1] = 1  # else the longest list is shorter than the rows
    ids = np.where(mask, ids, 1)
    if "token_type_ids" in options:
        options["token_type_ids"] *= mask
    whole = nz.generate(weights, ids, max_new_tokens=4, pad_token_id=1, **options)
    del options["attention_mask"]
    lists = {
        name: [row[keep] if as_arrays else row[keep].tolist() for row, keep in zip(value, mask == 1, strict=True)]
        for name, value in {"input_ids": ids, **options}.items()
    }
    found = nz.generate(weights, **lists, max_new_tokens=4, pad_token_id=1)
    assert found.tolist() == whole.tolist()


@examples(60)
@given(asked=prompts(), data=st.data())
def test_a_row_ends_after_an_end_is_filled_and_does_not_change_the_others(asked, data):
    weights, ids, options = asked
    vocabulary = weights.config.vocab_size
    ends = data.draw(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=3))
    options |= {"temperature": data.draw(st.sampled_from([0.0, 1.0])), "seed": data.draw(st.integers(-3, 3))}
    free = nz.generate(weights, ids, max_new_tokens=7, **options)
    pad = data.draw(st.sampled_from([None, vocabulary - 1]))
    found = nz.generate(weights, ids, max_new_tokens=7, eos_token_id=ends, pad_token_id=pad, **options)
    if len(ends) == 1:
        for one in (ends[0], np.int32(ends[0]), tuple(ends), np.array(ends)):
            again = nz.generate(weights, ids, max_new_tokens=7, eos_token_id=one, pad_token_id=pad, **options)
            assert again.tolist() == found.tolist()

    if pad is None:
        pad = ends[0] if weights.config.pad_token_id is None else weights.config.pad_token_id
    expected, longest = free.copy(), 0
    for row in expected:
        new = row[ids.shape[1] :]
        length = next((step + 1 for step, token in enumerate(new) if token in ends), 7)
        new[length:] = pad
        longest = max(longest, length)
    assert found.tolist() == expected[:, : ids.shape[1] + longest].tolist()


def test_none_takes_the_ends_and_the_padding_of_the_configuration_and_an_empty_list_none():
    weights = weights_of()
    free = nz.generate(weights, IDS, eos_token_id=NEVER)
    assert free.shape == (2, 3 + 20)
    row, token = free[0, 3:], int(free[0, 4])
    others = weights.config.replace(eos_token_id=token, pad_token_id=9)
    found = nz.generate(weights, IDS, config=others)
    assert found.tolist() == nz.generate(weights, IDS, eos_token_id=token, pad_token_id=9).tolist()
    assert found[0, 3:5].tolist()[-1] == token and (found[0, 3 + row.tolist().index(token) + 1 :] == 9).all()
    assert nz.generate(weights, IDS, eos_token_id=NEVER, config=others).tolist() == free.tolist()
    assert nz.generate(weights, IDS, config=others.replace(eos_token_id=None)).tolist() == free.tolist()
    without = others.replace(pad_token_id=None)
    filled = nz.generate(weights, IDS, config=without)[0, 3 + row.tolist().index(token) :]
    assert set(filled.tolist()) == {token}


def test_a_configuration_with_several_ends_stops_at_any_of_them_and_comes_back_from_its_file(tmp_path):
    weights = weights_of()
    free = nz.generate(weights, IDS, eos_token_id=NEVER)[:, 3:]
    ends = [int(free[0, 1]), int(free[1, 2])]
    several = nz.Weights(dict(weights), CONFIG.replace(eos_token_id=ends))
    found = nz.generate(several, IDS, pad_token_id=9)
    assert found.tolist() == nz.generate(weights, IDS, eos_token_id=ends, pad_token_id=9).tolist()
    assert found.shape[1] < 3 + free.shape[1]
    several.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["eos_token_id"] == ends
    assert nz.load(tmp_path).config.eos_token_id == tuple(ends)
    with pytest.raises(ValueError, match=r"eos_token_id: expected an id from 0 to 10, .* and 11 in the configuration"):
        nz.generate(weights, IDS, config=CONFIG.replace(eos_token_id=[3, 11]))


def test_the_code_of_the_documentation_runs_and_does_what_is_said():
    text = (Path(__file__).parents[1] / "docs" / "generation.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names = {}
    exec(compile("\n".join(blocks), "generation.md", "exec"), names)
    assert names["ids"].shape == (2, 16) and names["ids"][0, :4].tolist() == [0, 0, 0, 0]
    assert len(names["texts"]) == 2 and names["one"].shape[0] == 2


def test_the_default_end_of_nezha_is_sep_in_the_model_that_comes_with_the_package():
    assert nz.load_tokenizer().token_to_id("[SEP]") == nz.load().config.eos_token_id == nz.NezhaConfig().eos_token_id


def test_a_plain_mapping_works_with_a_configuration_and_nothing_given_is_changed():
    weights = weights_of()
    ids, mask = np.array(IDS), np.array([[0, 1, 1], [1, 1, 1]])
    before = ids.copy(), mask.copy()
    found = nz.generate(dict(weights), ids, attention_mask=mask, config=weights.config, eos_token_id=NEVER)
    assert found.tolist() == nz.generate(weights, ids, attention_mask=mask, eos_token_id=NEVER).tolist()
    assert np.array_equal(ids, before[0]) and np.array_equal(mask, before[1])


def test_nezha_generates_beyond_max_position_embeddings():
    assert nz.generate(weights_of(), IDS, max_new_tokens=40, eos_token_id=NEVER).shape == (2, 43)


def test_a_trace_covers_one_step_and_refuses_a_second():
    weights = weights_of()
    with nz.trace() as t:
        nz.generate(weights, IDS, max_new_tokens=1)
    assert t["encoder.layer.0.attention.self.probs"].shape == (2, 2, 3, 3)
    with pytest.raises(ValueError, match="a trace or a tape covers one forward pass"), nz.trace():
        nz.generate(weights, IDS, max_new_tokens=2, eos_token_id=NEVER)


# ----------------------------------------------------------------------------------------------------------- sampling


@examples(30)
@given(asked=prompts(), seed=st.integers(0, 2**64), top_k=st.integers(1, 4), use_cache=st.booleans())
def test_draws_are_the_same_again_whatever_rows_come_after(asked, seed, top_k, use_cache):
    weights, ids, options = asked
    sampling = {"temperature": 1.5, "top_k": top_k, "seed": seed, "max_new_tokens": 5}
    found = nz.generate(weights, ids, **sampling, **options)
    again = nz.generate(weights, ids, **sampling, **options, use_cache=use_cache)
    assert found.tolist() == again.tolist()
    first = nz.generate(weights, ids[:1], **sampling, **only(options, 0))
    assert found[:1].tolist() == first.tolist()


def test_equal_prompts_and_other_seeds_are_drawn_for_anew():
    weights = weights_of()
    options = {"temperature": 5.0, "max_new_tokens": 30, "eos_token_id": NEVER}
    one, other = nz.generate(weights, [[2, 3, 4]] * 2, **options)
    assert one.tolist() != other.tolist()
    assert one.tolist() != nz.generate(weights, [[2, 3, 4]], **options, seed=1)[0].tolist()
    assert len(set(one[3:].tolist())) > 3


def test_a_sampled_text_is_this_one():
    """Weights and draws are the same on every machine: these ids are written down."""
    weights = nz.init(CONFIG.replace(initializer_range=0.4), dtype="float64")
    found = nz.generate(weights, IDS, temperature=1.0, max_new_tokens=8, eos_token_id=NEVER, seed=7)
    assert found[:, 3:].tolist() == SAMPLED


@examples(30)
@given(asked=prompts(), temperature=st.sampled_from([1e-9, 1e-320, 2.0]))
def test_the_likeliest_alone_or_next_to_no_temperature_is_greedy(asked, temperature):
    weights, ids, options = asked
    greedy = nz.generate(weights, ids, max_new_tokens=4, top_k=2, **options)
    assert greedy.tolist() == nz.generate(weights, ids, max_new_tokens=4, **options).tolist()
    top_k = 1 if temperature > 1 else 1000  # more than V are all
    found = nz.generate(weights, ids, max_new_tokens=4, temperature=temperature, top_k=top_k, **options)
    assert found.tolist() == greedy.tolist()


@examples(40)
@given(data=st.data())
def test_draws_laid_out_evenly_fall_as_the_reference_weighs_tokens(data):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    process = pytest.importorskip("transformers.generation.logits_process", reason="the reference is transformers")
    size = data.draw(st.integers(1, 9))
    numbers = st.sampled_from([-3.0, -0.5, 0.0, 0.25, 1.0, 4.0])  # with equals among them
    logits = np.array(data.draw(st.lists(numbers, min_size=size, max_size=size)))
    temperature = data.draw(st.sampled_from([0.3, 1.0, 2.5]))
    top_k = data.draw(st.none() | st.integers(1, size))
    scores = process.TemperatureLogitsWarper(temperature)(None, torch.tensor(logits[None]))
    if top_k is not None:
        scores = process.TopKLogitsWarper(top_k)(None, scores)
    expected = torch.softmax(scores, dim=-1).numpy()[0]
    draws = (np.arange(5000) + 0.5) / 5000
    found = sample(np.tile(logits, (5000, 1)), draws, temperature=temperature, top_k=top_k)
    assert (np.diff(found) >= 0).all()
    np.testing.assert_allclose(np.bincount(found, minlength=size) / 5000, expected, rtol=0, atol=1.01 / 5000)


@given(data=st.data(), count=st.integers(1, 200))
def test_the_largest_draw_takes_the_last_token_that_is_possible_and_the_smallest_the_first(data, count):
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    logits = generator.normal(size=(2, count)) * 10
    possible = generator.random((2, count)) < 0.5
    possible[:, generator.integers(0, count)] = True
    logits = np.where(possible, logits - logits.max(axis=1, keepdims=True), -np.inf)
    logits = np.maximum(logits, np.where(possible, -30.0, -np.inf))  # a share that rounding does not swallow
    last, first = (sample(logits, np.full(2, draw), temperature=1.0) for draw in (1 - 2.0**-53, 0.0))
    assert first.tolist() == [np.flatnonzero(row)[0] for row in possible]
    assert last.tolist() == [np.flatnonzero(row)[-1] for row in possible]


# -------------------------------------------------------------------------------------------------- the reference's own


@examples(30)
@given(case=cases("causal_lm", "nezha", labelled=False, cross=False, from_ids=True))
def test_nezha_generates_what_the_references_full_passes_say(case):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    reference = pytest.importorskip("reference", reason="the reference is transformers 4.37.2")
    case.config = case.config.replace(eos_token_id=None)
    ids = case.inputs["input_ids"][:, :8]  # the reference has max_position_embeddings, 12, positions
    options = {name: value[:, :8] for name, value in case.inputs.items() if name == "token_type_ids"}
    model = reference.reference_model("causal_lm", case.config, case.seed)
    weights = reference.our_weights(model, case.config)
    found = nz.generate(weights, ids, max_new_tokens=5, **options)
    assert found[:, : ids.shape[1]].tolist() == ids.tolist()
    for stop in range(ids.shape[1], found.shape[1]):
        types = {
            name: torch.tensor(np.pad(value, ((0, 0), (0, 5)), "edge")[:, :stop]) for name, value in options.items()
        }
        with torch.no_grad():  # cached steps raise
            logits = model(torch.tensor(found[:, :stop]), **types).logits[:, -1]
        assert found[:, stop].tolist() == logits.argmax(dim=-1).tolist()


POSITIONS = ("absolute", "relative_key", "relative_key_query")
LONGEST = 14


@st.composite
def bert_decoders(draw, *, cross=False):
    """Draw a BERT decoder of the reference, every parameter filled, and our configuration."""
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    transformers = pytest.importorskip("reference", reason="the reference is transformers 4.37.2").transformers
    heads = draw(st.integers(1, 3))
    values = {
        "vocab_size": draw(st.integers(3, 20)),
        "hidden_size": heads * draw(st.sampled_from([4, 6])),
        "num_hidden_layers": draw(st.integers(1, 2)),
        "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(1, 12)),
        "hidden_act": draw(st.sampled_from(["gelu", "relu", "silu"])),
        "max_position_embeddings": LONGEST,
        "position_embedding_type": draw(st.sampled_from(POSITIONS)),
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": draw(st.sampled_from([0, None])),
        "is_decoder": True,
        "add_cross_attention": cross,
    }
    model = transformers.BertLMHeadModel(transformers.BertConfig(**values)).eval()
    return fill(model, draw(st.integers(0, 2**32 - 1))), nz.BertConfig(**values), torch


def fill(model, seed):
    """Give every parameter numbers that matter, in float64, norms around 1."""
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(seed)
    for parameter in model.parameters():
        values = 0.4 * generator.normal(size=parameter.shape) + (parameter.data.numpy() == 1.0)
        parameter.data = torch.tensor(values)
    return model


def our_weights(model, config):
    names = {name.removeprefix("bert."): value.detach().numpy() for name, value in model.named_parameters()}
    return nz.Weights(
        {name.replace("predictions.decoder.bias", "predictions.bias"): value for name, value in names.items()}, config
    )


@examples(80)
@given(data=st.data())
def test_bert_generates_what_the_reference_generates(data):
    model, config, torch = data.draw(bert_decoders())
    weights = our_weights(model, config)
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    batch, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    new = data.draw(st.integers(1, LONGEST - length + 1))  # as many as there are positions for
    ids = generator.integers(0, config.vocab_size, (batch, length))
    mask = (np.arange(length) >= generator.integers(0, length, batch)[:, None]).astype(np.int64)
    ends = data.draw(st.sampled_from([[1], [1, 2], list(range(1, config.vocab_size, 2)), []]))
    pad = data.draw(st.sampled_from([{}, {"pad_token_id": config.vocab_size - 1}]))
    with torch.no_grad():
        theirs = model.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            max_new_tokens=new,
            eos_token_id=ends or -1,
            **pad,
        )
    options = {"attention_mask": mask, "max_new_tokens": new, "eos_token_id": ends, **pad}
    if data.draw(st.booleans()):  # as in a config.json, where several ids are a list
        del options["eos_token_id"]
        weights = nz.Weights(dict(weights), config.replace(eos_token_id=ends))
    for use_cache in (True, False):
        assert nz.generate(weights, ids, **options, use_cache=use_cache).tolist() == theirs.tolist()
    if len({*mask.sum(axis=1)}) > 1 and mask.all(axis=1).any():
        rows = [row[keep] for row, keep in zip(ids, mask.astype(bool), strict=True)]
        del options["attention_mask"]
        new_ids = nz.generate(weights, rows, **options)[:, length:]
        assert new_ids.tolist() == theirs[:, length:].tolist()


@examples(40)
@given(data=st.data())
def test_bert_with_an_encoder_generates_what_the_reference_generates(data):
    model, config, torch = data.draw(bert_decoders(cross=True))
    transformers = pytest.importorskip("reference").transformers
    values = {**model.config.to_dict(), "is_decoder": False, "add_cross_attention": False}
    encoder = fill(transformers.BertModel(transformers.BertConfig(**values), add_pooling_layer=False).eval(), 1)
    both = transformers.EncoderDecoderModel(encoder=encoder, decoder=model)
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    batch, encoded, new = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    ids = torch.tensor(generator.integers(0, config.vocab_size, (batch, encoded)))
    mask = torch.tensor(generator.integers(0, 2, (batch, encoded)))
    with torch.no_grad():
        states = encoder(ids, attention_mask=mask).last_hidden_state
        theirs = both.generate(
            ids,
            attention_mask=mask,
            decoder_start_token_id=2,
            do_sample=False,
            max_new_tokens=new,
            eos_token_id=1,
            pad_token_id=0,
        )
    found = nz.generate(
        our_weights(model, config),
        [[2]] * batch,
        encoder_hidden_states=states.numpy(),
        encoder_attention_mask=mask.numpy(),
        max_new_tokens=new,
        eos_token_id=1,
        pad_token_id=0,
    )
    assert found.tolist() == theirs.tolist()


@pytest.mark.parametrize("kind", POSITIONS)
def test_bert_has_room_for_one_token_more_than_it_has_positions(kind):
    config = nz.BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=6,
        max_position_embeddings=8,
        position_embedding_type=kind,
        is_decoder=True,
    )
    weights = nz.init(config)
    for use_cache in (True, False):
        assert nz.generate(weights, IDS, max_new_tokens=6, use_cache=use_cache).shape == (2, 9)
    message = "max_new_tokens: expected at most 6 after 3 tokens, because max_position_embeddings is 8, got 7"
    with pytest.raises(ValueError, match=message):
        nz.generate(weights, IDS, max_new_tokens=7)
    with pytest.raises(ValueError, match=r"input_ids: expected at most max_position_embeddings \(8\) tokens"):
        nz.generate(weights, [[1] * 9])


def test_token_types_are_ignored_there_and_matter_here():
    config = nz.BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=6,
        is_decoder=True,
    )
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    transformers = pytest.importorskip("reference", reason="the reference is transformers 4.37.2").transformers
    model = fill(transformers.BertLMHeadModel(transformers.BertConfig(**config.to_dict())).eval(), 0)
    ids, types = torch.tensor(IDS), torch.ones((2, 3), dtype=torch.int64)
    plain = model.generate(ids, max_new_tokens=9).tolist()
    assert model.generate(ids, token_type_ids=types, max_new_tokens=9).tolist() == plain
    weights = our_weights(model, config)
    assert nz.generate(weights, IDS, max_new_tokens=9).tolist() == plain
    assert nz.generate(weights, IDS, max_new_tokens=9, token_type_ids=types.numpy()).tolist() != plain


# ---------------------------------------------------------------------------------------------------- array libraries


def to_strict(array):
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is the GPU's stand-in")
    return strict.asarray(array, device=strict.Device("device1"))


def to_torch(array):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("array_api_compat", reason="torch's tensors speak the standard by way of it")
    return torch.tensor(np.array(array))


def to_cupy(array):
    import cupy

    return cupy.asarray(array)


def no_gpu():
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed"
    import cupy

    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return str(error)


LIBRARIES = [
    pytest.param(to_strict, id="strict-device1"),
    pytest.param(to_torch, id="torch"),
    pytest.param(to_cupy, id="cupy", marks=[pytest.mark.gpu, pytest.mark.skipif(bool(no_gpu()), reason=str(no_gpu()))]),
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("move", LIBRARIES)
@pytest.mark.parametrize("cross", [False, True], ids=["alone", "with-an-encoder"])
@examples(15, quick=5)
@given(data=st.data())
def test_ids_are_generated_there_as_in_numpy_and_stay_there(move, cross, data):
    weights, ids, options = data.draw(prompts(cross=cross))
    options |= {"temperature": data.draw(st.sampled_from([0.0, 1.0])), "max_new_tokens": 4, "eos_token_id": 3}
    expected = nz.generate(weights, ids, **options)
    there = nz.Weights({name: move(array) for name, array in weights.items()}, weights.config)
    if cross:
        options["encoder_hidden_states"] = move(options["encoder_hidden_states"])
    all_there = {name: move(value) if isinstance(value, np.ndarray) else value for name, value in options.items()}
    for given_ids, given_options in ((ids, options), (move(ids), all_there)):
        found = nz.generate(there, given_ids, **given_options)
        assert library(found) == library(there.word_embeddings) and found.device == there.word_embeddings.device
        assert to_numpy(found).dtype == np.int64 and to_numpy(found).tolist() == expected.tolist()


def test_ids_and_masks_that_are_on_a_device_are_checked_too():
    weights = weights_of()
    there = nz.Weights({name: to_strict(array) for name, array in weights.items()}, weights.config)
    with pytest.raises(ValueError, match="input_ids: expected values from 0 to 10, got 11"):
        nz.generate(there, to_strict([[2, 11]]))
    with pytest.raises(ValueError, match="attention_mask: expected values from 0"):
        nz.generate(there, to_strict([[2, 3]]), attention_mask=to_strict([[3, 1]]))
    with pytest.raises(ValueError, match="token_type_ids: expected values from 0 to 1, got 2"):
        nz.generate(there, to_strict([[2, 3]]), token_type_ids=to_strict([[0, 2]]))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_narrower_weights_generate_too(dtype):
    found = nz.generate(weights_of(dtype=dtype), IDS, temperature=1.0, eos_token_id=NEVER)
    assert found.shape == (2, 23) and ((found >= 0) & (found < 11)).all()


# ---------------------------------------------------------------------------------------------------- what is refused

STATES = np.zeros((2, 4, 8))
TINY = {
    "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4,
    "max_position_embeddings": 8,
}  # fmt: skip


def bad(what, error, message, **arguments):
    return pytest.param(error, message, arguments, id=f"{next(iter(arguments))}: {what}")


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        bad("zero", ValueError, "max_new_tokens: expected a number from 1 on, got 0", max_new_tokens=0),
        bad("a float", TypeError, "max_new_tokens: expected an integer, got 2.0", max_new_tokens=2.0),
        bad("a bool", TypeError, "max_new_tokens: expected an integer, got True", max_new_tokens=True),
        bad("None", TypeError, "max_new_tokens: expected an integer, got None", max_new_tokens=None),
        bad("negative", ValueError, "temperature: expected a number from 0 on, got -0.1", temperature=-0.1),
        bad("NaN", ValueError, "temperature: expected a number from 0 on, got nan", temperature=np.nan),
        bad("infinite", ValueError, "temperature: expected a number from 0 on, got inf", temperature=np.inf),
        bad("text", TypeError, "temperature: expected a number, got '1'", temperature="1"),
        bad("a bool", TypeError, "temperature: expected a number, got True", temperature=True),
        bad("zero", ValueError, "top_k: expected a number from 1 on, got 0", top_k=0),
        bad("a float", TypeError, "top_k: expected an integer, got 2.0", top_k=2.0),
        bad("no axis", TypeError, "eos_token_id: expected an integer, got array(3)", eos_token_id=np.array(3)),
        bad("a float", TypeError, "seed: expected an integer, got 0.5", seed=0.5),
        bad("None", TypeError, "seed: expected an integer, got None", seed=None),
        bad("beyond V", ValueError, "eos_token_id: expected a number from 0 to 10, got 11", eos_token_id=11),
        bad("negative", ValueError, "eos_token_id: expected a number from 0 to 10, got -1", eos_token_id=-1),
        bad("one of them", ValueError, "eos_token_id: expected a number from 0 to 10, got 11", eos_token_id=[3, 11]),
        bad("text", TypeError, "eos_token_id: expected an integer, got '[SEP]'", eos_token_id="[SEP]"),
        bad("a float in a list", TypeError, "eos_token_id: expected an integer, got 3.0", eos_token_id=[3.0]),
        bad("beyond V", ValueError, "pad_token_id: expected a number from 0 to 10, got 11", pad_token_id=11),
        bad("a float", TypeError, "pad_token_id: expected an integer, got 0.0", pad_token_id=0.0),
        bad("text", TypeError, "use_cache: expected True, False or None, got 'no'", use_cache="no"),
        bad("beyond V", ValueError, "input_ids: expected values from 0 to 10, got 11", input_ids=[[2, 11]]),
        bad(
            "beyond V, padded", ValueError, "input_ids: expected values from 0 to 10, got 11", input_ids=[[2, 11], [1]]
        ),
        bad("one axis", ValueError, "add an axis for the batch", input_ids=[2, 3]),
        bad("an empty prompt", ValueError, "input_ids: expected shape (any, any), got (1, 0)", input_ids=[[]]),
        bad(
            "an empty one of two",
            ValueError,
            "at least one token in each prompt, got none in row 1",
            input_ids=[[2], []],
        ),
        bad("no prompts", ValueError, "input_ids: expected shape (any, any), got (0,)", input_ids=[]),
        bad("floats", TypeError, "input_ids: expected integers, got float64", input_ids=[[2.0, 3.0]]),
        bad("floats, padded", TypeError, "input_ids: expected integers, got float64", input_ids=[[2.0, 3.0], [1.0]]),
        bad(
            "deeper lists", ValueError, "input_ids: expected rows of the same length", input_ids=[[[2], [3, 4]], [[2]]]
        ),
        bad("texts", TypeError, "input_ids: expected numbers in the lists, got", input_ids=["房间", "好"]),
        bad("None", TypeError, "input_ids: expected an array or lists of numbers, got NoneType", input_ids=None),
        bad(
            "a shorter one",
            ValueError,
            "attention_mask: expected shape (2, 3), got (2, 2)",
            attention_mask=[[1, 1]] * 2,
        ),
        bad("three axes", ValueError, "attention_mask: expected shape (2, 3), got", attention_mask=np.ones((2, 3, 3))),
        bad("a row of zeros", ValueError, "got 0 at the end of row 1", attention_mask=[[1, 1, 1], [0, 0, 0]]),
        bad(
            "padding on the right",
            ValueError,
            "attention_mask: expected padding on the left, because a new token comes after the last column, got 0 at "
            "the end of row 0: pass input_ids as lists of different lengths, without a mask",
            attention_mask=[[1, 1, 0], [1, 1, 1]],
        ),
        bad(
            "with lists of different lengths",
            ValueError,
            "attention_mask: expected None, because lists of different lengths are padded and masked here, got list",
            attention_mask=[[0, 1], [1, 1]],
            input_ids=[[3], [4, 5]],
        ),
        bad(
            "beyond its types",
            ValueError,
            "token_type_ids: expected values from 0 to 1, got 2",
            token_type_ids=[[2] * 3] * 2,
        ),
        bad(
            "another length",
            ValueError,
            "token_type_ids: expected shape (2, 3), got (2, 2)",
            token_type_ids=[[0, 0]] * 2,
        ),
        bad(
            "not the prompts' lengths",
            ValueError,
            "token_type_ids: expected lists as long as the prompts, [1, 2], got list",
            token_type_ids=[[0, 0], [0, 0]],
            input_ids=[[3], [4, 5]],
        ),
        bad("no cross-attention", ValueError, "encoder_hidden_states: expected a config", encoder_hidden_states=STATES),
        bad(
            "three axes",
            ValueError,
            "encoder_attention_mask: expected shape (2, any), got 3 axes",
            encoder_attention_mask=np.ones((2, 3, 4)),
            encoder_hidden_states=STATES,
            config=CONFIG.replace(add_cross_attention=True),
        ),
        bad(
            "an encoder's",
            ValueError,
            "expected a config with is_decoder=True",
            config=CONFIG.replace(is_decoder=False),
        ),
        bad(
            "an end beyond V",
            ValueError,
            "eos_token_id: expected an id from 0 to 10, or an empty list for none, got None, and 11 in the "
            "configuration",
            config=CONFIG.replace(eos_token_id=11),
        ),
        bad("not there", TypeError, "unexpected keyword argument 'num_beams'", num_beams=2),
    ],
)
def test_a_wrong_argument_is_refused_and_named(error, message, arguments):
    config = arguments.get("config", CONFIG)
    with pytest.raises(error, match=re.escape(message)):
        nz.generate(weights_of(config), **{"input_ids": IDS, **arguments})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(temperature, value):
    weights = weights_of()
    bias = np.zeros(11)
    bias[4] = value
    broken = nz.Weights({**weights, "cls.predictions.bias": bias}, CONFIG)
    with pytest.raises(ValueError, match=f"weights: expected finite logits, got {value} for token 0 after prompt 0"):
        nz.generate(broken, IDS, temperature=temperature)


def test_convbert_is_no_decoder():
    config = nz.ConvBertConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(ValueError, match="causal_lm"):
        nz.generate(nz.init(config), IDS)


def test_weights_without_a_language_model_head_are_named():
    weights = weights_of()
    backbone = nz.Weights({k: v for k, v in weights.items() if not k.startswith("cls.")}, CONFIG)
    with pytest.raises(ValueError, match=r"cls\.predictions"):
        nz.generate(backbone, IDS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (nz.ConvBertConfig(**TINY), "causal_lm: expected a model with this head, got ConvBERT"),
        (nz.BertConfig(**TINY), "causal_lm: expected a config with is_decoder=True, got False"),
    ],
)
def test_what_is_no_decoder_is_refused_before_anything_else_is_looked_at(config, message):
    with pytest.raises(ValueError, match=message):
        nz.generate(nz.init(config), [[2, 3, 4]], max_new_tokens=100)
