"""A family that is registered at run time: everything works for it, and a kernel that does not know it declines."""

import contextlib
import dataclasses
import re
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
import test_cupy_kernels as on_cupy
from cases import LONGEST, Case, arrays_of, cases, weights_for
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import DOCS

import nezha_np as nz
import nezha_np.cli
from nezha_np.arrays import asarray_like, namespace
from nezha_np.families.bert import BERT
from nezha_np.families.config import Config, config_from_dict
from nezha_np.families.convbert import CONVBERT
from nezha_np.families.family import FAMILIES, register
from nezha_np.families.nezha import NEZHA
from nezha_np.families.shared import plain_context, plain_scores
from nezha_np.kernels import numpy as kernels
from nezha_np.kernels import numpy_blocks
from nezha_np.layers.addition import add
from nezha_np.layers.attention import content_scores
from nezha_np.layers.masks import as_constant
from nezha_np.mechanism import View
from nezha_np.model import model

TOKENS = ("input_ids", "inputs_embeds")
PAGE = DOCS / "howto" / "add_a_family.md"


@contextlib.contextmanager
def registered(*families):
    """Register families, and leave the registry as it was."""
    with mock.patch.dict(FAMILIES):
        for family in families:
            register(family)
        yield


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


@st.composite
def roformers(draw, task):
    """Draw a small RoFormer and the arguments of a call, as `cases` draws BERT's."""
    case = draw(cases(task, "bert", cross=False, labelled=False))
    values = case.config.to_dict() | {"model_type": "roformer"}
    del values["position_embedding_type"]
    from_ids = "input_ids" in case.inputs
    values["embedding_size"] = draw(st.sampled_from([3, 8])) if from_ids else case.config.hidden_size
    case.inputs.pop("position_ids", None)
    if task == "masked_lm":
        generator, shape = (
            np.random.default_rng(case.seed),
            next(iter(case.inputs[key] for key in TOKENS if key in case.inputs)).shape[:2],
        )
        case.inputs["labels"] = np.where(
            generator.random(shape) < 0.3, -100, generator.integers(0, case.config.vocab_size, shape)
        )
        case.inputs["labels"][0, 0] = 0  # over no labels the loss is NaN
    return Case(config_from_dict(values), case.seed, case.inputs)


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
