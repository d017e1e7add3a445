"""The page that adds RoFormer at run time: its code runs, and all works for the family as for the reference."""

import contextlib
import re
from unittest import mock

import numpy as np
import pytest
from cases import Case, arrays_of, cases, weights_for
from hypothesis import given
from hypothesis import strategies as st
from pages import DOCS

import nezha_np as nz
import nezha_np.cli
from nezha_np.families.config import config_from_dict
from nezha_np.families.family import FAMILIES

TOKENS = ("input_ids", "inputs_embeds")
PAGE = DOCS / "howto" / "add_a_family.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Run the page's code; its family is registered as long as the tests of this file that ask for it run."""
    code = "".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S))
    assert code.count("\n") < 100
    names = {"__name__": "page"}
    with mock.patch.dict(FAMILIES), contextlib.chdir(tmp_path_factory.mktemp("page")):
        exec(compile(code, PAGE.name, "exec"), names)
        yield names
    assert "roformer" not in FAMILIES


# ------------------------------------------------------------------------------- RoFormer, against the reference


def as_roformer(config, embedding_size):
    """Make a RoFormer's configuration of a BERT's."""
    values = config.to_dict() | {"model_type": "roformer", "embedding_size": embedding_size}
    del values["position_embedding_type"]
    return config_from_dict(values)


@st.composite
def roformers(draw, task):
    """Draw a small RoFormer and the arguments of a call, as `cases` draws BERT's."""
    case = draw(cases(task, "bert", cross=False, labelled=False, caches=False))
    size = draw(st.sampled_from([3, 8])) if "input_ids" in case.inputs else case.config.hidden_size
    case.inputs.pop("position_ids", None)
    if task == "masked_lm":
        generator = np.random.default_rng(case.seed)
        shape = next(np.shape(case.inputs[key])[:2] for key in TOKENS if key in case.inputs)
        case.inputs["labels"] = np.where(
            generator.random(shape) < 0.3, -100, generator.integers(0, case.config.vocab_size, shape)
        )
        case.inputs["labels"][0, 0] = 0  # over no labels the loss is NaN
    return Case(as_roformer(case.config, size), case.seed, case.inputs)


def reference_roformer(task, case):
    """Make the reference's model with every parameter filled, and hand its parameters over under our names."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    from reference import our_name, reference_model, torch

    reference, table = reference_model(task, case.config, case.seed), "encoder.embed_positions.weight"
    named = {our_name(name): parameter for name, parameter in reference.named_parameters()}
    exact = FAMILIES["roformer"].position_table(np.zeros(1), case.config)
    named.pop(table).data = torch.tensor(exact)  # which the reference rounds to float32
    return reference, named, nz.Weights({name: value.detach().numpy() for name, value in named.items()}, case.config)


@pytest.mark.parametrize("task", ["forward", "masked_lm"])
@given(data=st.data())
def test_roformer_is_the_references(page, task, data):
    case = data.draw(roformers(task))
    reference, _, weights = reference_roformer(task, case)
    from reference import run_reference

    expected = run_reference(reference, task, case.inputs)
    for switched in (contextlib.nullcontext, nz.definitions):
        with switched():
            out = getattr(nz, task)(weights, **case.inputs)
        for name, array in arrays_of(out).items():
            field, _, index = name.partition(".")
            if field == "past_key_values":  # our keys are not turned yet
                continue
            theirs = expected[field] if not index else expected[field][int(index)]
            np.testing.assert_allclose(array, theirs.detach().numpy(), rtol=0, atol=1e-10, err_msg=name)


@given(data=st.data())
def test_roformers_gradients_are_the_references(page, data):
    case = data.draw(roformers("masked_lm"))
    reference, named, weights = reference_roformer("masked_lm", case)
    from reference import run_reference

    run_reference(reference, "masked_lm", case.inputs).loss.backward()
    _, gradients = nz.value_and_grad(nz.masked_lm)(weights, **case.inputs)
    theirs = {name: parameter.grad.numpy() for name, parameter in named.items() if parameter.grad is not None}
    assert gradients.keys() == theirs.keys()
    for name, gradient in theirs.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=0, atol=1e-9, err_msg=name)


@given(data=st.data())
def test_roformer_decoded_step_by_step_is_the_whole_pass(page, data):
    case = data.draw(cases("causal_lm", "bert", labelled=False, from_ids=True, decoder=True, cross=False))
    weights = weights_for("causal_lm", Case(as_roformer(case.config, 6), case.seed, {}))
    ids = case.inputs["input_ids"]
    whole = nz.causal_lm(weights, ids).logits
    cut = data.draw(st.integers(0, ids.shape[1] - 1))
    cache, found = None, []
    for part in ([ids[:, :cut]] if cut else []) + [ids[:, [column]] for column in range(cut, ids.shape[1])]:
        out = nz.causal_lm(weights, part, past_key_values=cache, use_cache=True)
        cache, found = out.past_key_values, [*found, out.logits]
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole, rtol=0, atol=1e-11 * max(1, np.abs(whole).max()))


def test_roformer_is_drawn_saved_loaded_inspected_and_pruned(page, tmp_path, capsys):
    config = page["config"].replace(tie_word_embeddings=False)
    weights = nz.init(config, seed=3)
    assert weights["embeddings_project.weight"].shape == (16, 12) and weights.config.architectures == (
        "RoFormerForMaskedLM",
    )
    weights.save(tmp_path)
    assert "roformer.embeddings.word_embeddings.weight" in (tmp_path / "model.safetensors").read_bytes()[:9000].decode(
        errors="replace"
    )
    loaded = nz.load(tmp_path)
    assert type(loaded.config) is page["RoFormerConfig"] and loaded.keys() == weights.keys()
    assert all(np.array_equal(loaded[name], array) for name, array in weights.items())
    assert nezha_np.cli.main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "masked_lm: complete" in printed and "causal_lm: complete" in printed and "wrong model_type" not in printed
    pruned = weights.prune_heads({0: [0]})
    assert pruned["encoder.layer.0.attention.self.query.weight"].shape == (8, 16)
    assert nz.forward(pruned, [[1, 2]]).last_hidden_state.shape == (1, 2, 16)
    assert nz.forward(weights.resize_token_embeddings(120), [[110]]).last_hidden_state.shape == (1, 1, 16)
    with pytest.raises(
        ValueError, match="question_answering: expected a model with this head, got RoFormer, which has"
    ):
        nz.question_answering(weights, [[1, 2]])
    with pytest.raises(ValueError, match="rotary_value: expected one of False, got True"):
        config.replace(rotary_value=True)


def test_a_roformer_checkpoint_of_the_references_is_read_and_told_from_other_families(page, tmp_path):
    from safetensors.numpy import save_file

    weights = nz.init(page["config"])
    names = {f"roformer.{name}" if "cls" not in name else name: array for name, array in weights.items()}
    names["roformer.encoder.embed_positions.weight"] = np.zeros((1536, 8), "float32")  # it is computed
    weights.save(tmp_path)
    save_file(names, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert nz.load(tmp_path).keys() == weights.keys()
    nz.BertConfig(vocab_size=100).to_dict()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    message = (
        'looks like RoFormer, because there is .*, which BERT has not: set "model_type": "roformer" in config.json'
    )
    with pytest.raises(ValueError, match=message):
        nz.load(tmp_path)
