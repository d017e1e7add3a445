"""The README's tables of what is supported: every cell, with every head, is run; what is not supported is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from cases import HEADS, arrays_of
from make_readme_tables import READMES, table_in, table_of_heads

import nezha_np as nz

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")

SIZES = {"vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 8}
CONFIGS = {
    "NEZHA": nz.NezhaConfig(**SIZES, max_position_embeddings=8),
    "BERT": nz.BertConfig(**SIZES, max_position_embeddings=8),
    "BERT, absolute positions": nz.BertConfig(**SIZES, max_position_embeddings=8),
    "BERT, relative positions": nz.BertConfig(
        **SIZES, max_position_embeddings=8, position_embedding_type="relative_key_query"
    ),
    "ConvBERT": nz.ConvBertConfig(**SIZES, max_position_embeddings=8, embedding_size=6, num_groups=2),
}
IDS = np.array([[2, 5, 7, 3], [2, 6, 3, 4]])
LABELS = {
    "pretraining": {"labels": IDS, "next_sentence_label": [0, 1]},
    "next_sentence_prediction": {"labels": [0, 1]},
    "sequence_classification": {"labels": [0, 1]},
    "multiple_choice": {"labels": [1]},
    "token_classification": {"labels": IDS % 2},
    "question_answering": {"start_positions": [0, 1], "end_positions": [2, 1]},
}


def table(first):
    """Read the table of the README whose first column is called `first`."""
    rows = [
        [cell.strip() for cell in line.strip()[1:-1].split("|")]
        for line in re.search(rf"^\| {first} \|.*?\n\n", README, flags=re.MULTILINE | re.DOTALL).group().splitlines()
        if line
    ]
    return [(row[0], dict(zip(rows[0][1:], row[1:], strict=True))) for row in rows[2:]]


CELLS = [(head.strip("`"), title, row[title]) for head, row in table("head") for title in ("NEZHA", "BERT", "ConvBERT")]
OF = {(head, title): says == "yes" for head, title, says in CELLS}  # which family has which head


def weights_for(config, head):
    drawn = nz.init(config, head=None if head == "forward" else head, dtype="float64")
    generator = np.random.default_rng(0)
    return nz.Weights({name: 0.5 * generator.normal(size=array.shape) for name, array in drawn.items()}, drawn.config)


def run(head, weights, ids=IDS, **inputs):
    """Run a head; multiple choice takes both rows as the choices of one text."""
    if head == "causal_lm" and not weights.config.is_decoder:
        weights = nz.Weights(weights, weights.config.replace(is_decoder=True))
    if head == "multiple_choice":
        fold = ("attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
        inputs = {name: value[None] if name in fold else value for name, value in inputs.items()}
        ids = None if ids is None else ids[None]
    return getattr(nz, head)(weights, ids, **inputs)


def first(output):
    """Return the first array that a head computes."""
    return next(array for name, array in arrays_of(output).items() if name != "loss")


def attended(head, weights, **inputs):
    return run(head, weights, output_attentions=True, **inputs).attentions[0]


# ------------------------------------------------------------ an option: how a cell of the table is run, and what holds


def mask_by_key(head, weights):
    mask = np.array([[1, 1, 0, 1], [1, 1, 1, 0]])
    probs = attended(head, weights, attention_mask=mask)
    assert not probs[0, :, :, 2].any() and not probs[1, :, :, 3].any() and probs[1, :, 2:, 2].all()


def mask_by_query(head, weights):
    mask = np.ones((2, 4, 4))
    mask[:, 2, 1] = 0
    inputs = {"attention_mask": mask}
    probs = attended(head, weights, **inputs)
    assert not probs[:, :, 2, 1].any() and probs[:, :, 3, :2].all()


def token_types(head, weights):
    types = np.array([[0, 0, 1, 1], [0, 1, 1, 1]])
    zeros = first(run(head, weights, token_type_ids=0 * types))
    assert np.array_equal(zeros, first(run(head, weights)))
    assert not np.allclose(zeros, first(run(head, weights, token_type_ids=types)))


def positions(head, weights):
    ids = np.broadcast_to(np.arange(4), (2, 4))
    counted = first(run(head, weights, position_ids=ids))
    assert np.array_equal(counted, first(run(head, weights)))
    assert not np.allclose(counted, first(run(head, weights, position_ids=ids[:, ::-1])))


def head_mask(head, weights):
    ones = np.ones((2, weights.config.attention_heads))
    assert np.allclose(first(run(head, weights, head_mask=ones)), first(run(head, weights)))
    assert not np.allclose(first(run(head, weights, head_mask=0 * ones[0])), first(run(head, weights)))


def embeds(head, weights):
    vectors = weights.word_embeddings[IDS]
    assert np.array_equal(first(run(head, weights, None, inputs_embeds=vectors)), first(run(head, weights)))


def attentions(head, weights):
    found = run(head, weights, output_attentions=True).attentions
    assert [array.shape for array in found] == [(2, weights.config.attention_heads, 4, 4)] * 2
    assert np.allclose(found[1].sum(axis=-1), 1.0)


def hidden_states(head, weights):
    found = run(head, weights, output_hidden_states=True).hidden_states
    assert [array.shape for array in found] == [(2, 4, 16)] * 3


def long_texts(head, weights):
    assert np.isfinite(first(run(head, weights, np.tile(IDS, 3)))).all()


def decoder(head, weights):
    probs = attended(head, nz.Weights(weights, weights.config.replace(is_decoder=True)))
    assert not np.triu(probs, 1).any() and np.tril(probs)[..., 3, :].all()


def cache(head, weights):
    config = weights.config.replace(is_decoder=not isinstance(weights.config, nz.ConvBertConfig))
    weights = nz.Weights(weights, config)
    shape = (2, config.attention_heads, 3, config.head_size)
    past = tuple((np.ones(shape), np.ones(shape)) for _ in range(2))
    assert attended(head, weights, past_key_values=past).shape == (2, config.attention_heads, 4, 7)
    if head in ("forward", "causal_lm"):
        whole, part = run(head, weights), run(head, weights, IDS[:, :3])
        again = run(head, weights, IDS[:, 3:], past_key_values=part.past_key_values)
        assert np.allclose(first(again), first(whole)[:, 3:], atol=1e-12)


def cross_attention(head, weights):
    if isinstance(weights.config, nz.ConvBertConfig):
        run(head, weights, encoder_hidden_states=np.ones((2, 3, 16)))
    config = weights.config.replace(is_decoder=True, add_cross_attention=True)
    weights = weights_for(config, head)
    states = np.random.default_rng(1).normal(size=(2, 3, 16))
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    seen = first(run(head, weights, encoder_hidden_states=states, encoder_attention_mask=mask))
    changed = np.where(mask[:, :, None] == 0, states + 1, states)
    assert np.array_equal(seen, first(run(head, weights, encoder_hidden_states=changed, encoder_attention_mask=mask)))
    assert not np.allclose(seen, first(run(head, weights, encoder_hidden_states=-states, encoder_attention_mask=mask)))


def generation(head, weights):
    if isinstance(weights.config, nz.ConvBertConfig):
        nz.generate(weights, IDS)
    if head == "causal_lm":
        config = weights.config.replace(is_decoder=True)
        found = nz.generate(weights, IDS, max_new_tokens=3, eos_token_id=[], config=config)
        assert found.shape == (2, 7) and np.array_equal(found[:, :4], IDS)
        last = nz.causal_lm(weights, found[:, :6], config=config).logits[:, -1]
        assert np.array_equal(found[:, 6], last.argmax(axis=-1))


def pruning(head, weights):
    assert attended(head, weights.prune_heads({0: [1]})).shape[1] == 3


def resizing(head, weights):
    larger = weights.resize_token_embeddings(14)
    assert np.allclose(first(run(head, larger))[..., :2], first(run(head, weights))[..., :2])


def gradients(head, weights):
    if head == "forward":  # which has no loss
        return
    labels = LABELS.get(head, {"labels": IDS})
    losses = []
    for seed in (None, 1):
        out, found = nz.value_and_grad(lambda one, **inputs: run(head, one, **inputs), seed)(weights, **labels)
        losses.append(float(out.loss))
        assert all(np.isfinite(gradient).all() for gradient in found.values())
        assert found["embeddings.word_embeddings.weight"].any()
    assert losses[0] != losses[1]


def tracing(head, weights):
    with nz.trace() as t:
        out = run(head, weights)
    assert any(array is first(out) for array in t.values())
    assert t["encoder.layer.1.attention.self.probs"].shape == (2, weights.config.attention_heads, 4, 4)


def intervening(head, weights):
    with nz.intervene({"encoder.layer.1": 0.0}), nz.trace() as t:
        run(head, weights)
    assert not t["encoder.layer.1"].any() and t["encoder.layer.0"].any()


OPTIONS = {
    "`attention_mask` (B, S)": mask_by_key,
    "`attention_mask` (B, L, S)": mask_by_query,
    "`token_type_ids`": token_types,
    "`position_ids`": positions,
    "`head_mask`": head_mask,
    "`inputs_embeds`": embeds,
    "`output_attentions`": attentions,
    "`output_hidden_states`": hidden_states,
    "texts longer than `max_position_embeddings`": long_texts,
    "`is_decoder`: causal mask": decoder,
    "`past_key_values`": cache,
    "`encoder_hidden_states`, `encoder_attention_mask`": cross_attention,
    "`generate`": generation,
    "`prune_heads`": pruning,
    "`resize_token_embeddings`": resizing,
    "`value_and_grad`, with dropout": gradients,
    "`trace`": tracing,
    "`intervene`": intervening,
}
REFUSALS = {  # of the options that not every family has: how the message starts
    "`position_ids`": "position_ids: expected None, because ",
    "texts longer than `max_position_embeddings`": "input_ids: expected at most max_position_embeddings ",
    "`is_decoder`: causal mask": "is_decoder: expected False, because ",
    "`past_key_values`": "past_key_values: expected None, because ",
    "`encoder_hidden_states`, `encoder_attention_mask`": "encoder_hidden_states: expected None, because ",
    "`generate`": "causal_lm: expected a model with this head, ",
    "`prune_heads`": "heads: expected none, because ",
}


# -------------------------------------------------------------------------------------------------------- the tables


def test_the_tables_name_every_head_and_every_option_that_is_tested_here():
    assert {head for head, _, _ in CELLS} == set(HEADS)
    assert {option for option, _ in table("option")} == set(OPTIONS)
    assert {says for _, _, says in CELLS} == {"yes", "no"}
    assert {says for _, row in table("option") for says in row.values()} == {"yes", "no"}
    assert {option for option, row in table("option") if "no" in row.values()} == set(REFUSALS)


@pytest.mark.parametrize("name", READMES)
def test_the_table_of_heads_is_what_the_registry_of_tasks_says(name):
    text = (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    assert table_in(text) == table_of_heads(READMES[name]), "python tools/make_readme_tables.py makes it"


@pytest.mark.parametrize(("head", "title", "says"), CELLS)
def test_a_family_has_the_heads_of_the_table_and_refuses_the_others(head, title, says):
    config = CONFIGS[title]
    if says == "yes":
        labels = {} if head == "forward" else LABELS.get(head, {"labels": IDS})
        out = run(head, weights_for(config, head), **labels)
        assert head == "forward" or np.isfinite(out.loss)
    else:
        with pytest.raises(ValueError, match=f"{head}: expected a model with this head, got {title}"):
            getattr(nz, head)(weights_for(config, "masked_lm"), IDS)


@pytest.mark.one_in(11)
@pytest.mark.parametrize(
    ("option", "title", "head", "says"),
    [
        (option, title, head, says)
        for option, row in table("option")
        for title, says in row.items()
        for head in HEADS
        if OF[head, title.partition(",")[0]]
    ],
)
def test_every_head_takes_the_options_of_the_table_and_refuses_the_others(option, title, head, says):
    if head == "multiple_choice" and option == "`attention_mask` (B, L, S)":
        pytest.skip("its masks have an axis of choices in this place")
    weights = weights_for(CONFIGS[title], head)
    if says == "yes":
        OPTIONS[option](head, weights)
    else:
        with pytest.raises(ValueError, match=f"^{REFUSALS[option]}"):
            OPTIONS[option](head, weights)
