"""A head on the tensors of another one warns; a saved config.json says of head and dtype what is so."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import safetensors.numpy

import nezha_np as nz
import nezha_np.cli
from nezha_np.families.family import family_of
from nezha_np.families.parameters import tasks_of
from nezha_np.families.trained_head import tasks_of_class, trained_as_another
from nezha_np.model.tasks import TASKS

SIZES = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 6,
    "max_position_embeddings": 16,
    "num_labels": 1,  # a classifier of choices has one label too: so all three have tensors of the same shapes
}
CONFIGS = {
    "nezha": nz.NezhaConfig(**SIZES, max_relative_position=3),
    "bert": nz.BertConfig(**SIZES),
    "convbert": nz.ConvBertConfig(**SIZES, embedding_size=8, conv_kernel_size=3),
}
BERT = CONFIGS["bert"]
CLASSIFIERS = ("sequence_classification", "multiple_choice", "token_classification")
IDS = [[2, 5, 7, 3]]


def call(weights, head, config=None):
    ids = [IDS] if head == "multiple_choice" else IDS
    config = (config or weights.config).replace(is_decoder=head == "causal_lm")
    return TASKS[head].function(weights, ids, config=config)


@pytest.mark.parametrize("family", ["nezha", "bert"])
@pytest.mark.parametrize("trained", CLASSIFIERS)
@pytest.mark.parametrize("head", CLASSIFIERS)
def test_a_classifier_that_was_trained_as_another_one_warns(family, trained, head):
    weights = nz.init(CONFIGS[family], head=trained)
    if head == trained:
        call(weights, head)
        return
    reference = family_of(CONFIGS[family]).tasks[trained].reference
    with pytest.warns(nz.HeadWarning) as caught:
        call(weights, head)
    assert [warning.filename for warning in caught] == [__file__]  # the line of the caller, not one of the package
    assert str(caught[0].message).startswith(
        f"{head}: classifier.weight, classifier.bias were trained for {trained} ({reference}), as architectures"
    )
    call(weights, head, config=weights.config.replace(architectures=None))  # as the message advises
    with pytest.warns(nz.HeadWarning):
        call(dict(weights), head, config=weights.config)


def test_convberts_classifiers_of_tokens_and_of_choices_are_told_apart():
    weights = nz.init(CONFIGS["convbert"], head="token_classification")
    with pytest.warns(nz.HeadWarning, match="were trained for token_classification"):
        nz.multiple_choice(weights, [IDS])
    assert trained_as_another(weights.config, "sequence_classification") == ""  # its tensors have other names


@pytest.mark.parametrize("family", CONFIGS)
def test_no_head_of_drawn_weights_warns_on_its_own_tensors(family):
    for head in tasks_of(CONFIGS[family]):
        call(nz.init(CONFIGS[family], head=head), head)


@pytest.mark.parametrize(
    ("trained", "heads"),
    [
        ("pretraining", ("masked_lm", "next_sentence_prediction", "causal_lm")),
        ("masked_lm", ("causal_lm", "pretraining", "next_sentence_prediction")),
        ("causal_lm", ("masked_lm",)),
        ("next_sentence_prediction", ("pretraining", "masked_lm")),
        ("question_answering", ("masked_lm",)),
        ("forward", ("masked_lm", "next_sentence_prediction")),
    ],
)
@pytest.mark.parametrize("family", ["nezha", "bert"])
def test_heads_that_compute_the_same_with_the_tensors_they_share_do_not_warn(family, trained, heads):
    reference = family_of(CONFIGS[family]).tasks[trained].reference
    drawn = nz.init(CONFIGS[family])
    weights = nz.Weights(drawn, drawn.config.replace(architectures=(reference,)))
    for head in heads:
        call(weights, head)


def test_a_configuration_that_says_nothing_or_names_an_unknown_class_does_not_warn():
    drawn = nz.init(BERT, head="sequence_classification")
    for names in (None, (), ("BertModel",), ("BertCrfForNer",), ("MyBert", "Net")):
        nz.token_classification(nz.Weights(drawn, drawn.config.replace(architectures=names)), IDS)
    both = ("BertForSequenceClassification", "BertForTokenClassification")
    nz.token_classification(nz.Weights(drawn, drawn.config.replace(architectures=both)), IDS)


def test_a_class_is_known_by_the_end_of_its_name_whoever_wrote_it():
    nezha = CONFIGS["nezha"]
    assert tasks_of_class(nezha, "BertForSequenceClassification") == ("sequence_classification",)
    assert tasks_of_class(nezha, "TFNeZhaForTokenClassification") == ("token_classification",)
    assert tasks_of_class(nezha, "NezhaForMaskedLM") == ("masked_lm", "causal_lm")
    assert tasks_of_class(BERT, "BertLMHeadModel") == ("causal_lm",)
    assert tasks_of_class(BERT, "BertModel") == ("forward",)
    assert tasks_of_class(BERT, "BertForMaskedLMAndMore") == ()


def test_a_head_warns_once_for_each_place_of_its_call():
    weights = nz.init(BERT, head="sequence_classification")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            nz.token_classification(weights, IDS)
        nz.token_classification(weights, IDS)
    assert len(caught) == 2


def test_the_reference_trains_what_the_warning_says(tmp_path):
    """A text classifier of the reference: its own head is equal to ours and silent, the others warn."""
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    transformers = pytest.importorskip("transformers", reason="it is the reference")
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES)).eval()
    model.save_pretrained(tmp_path)
    weights = nz.load(tmp_path)
    with torch.no_grad():
        expected = model(torch.tensor(IDS)).logits.numpy()
    assert np.abs(nz.sequence_classification(weights, IDS).logits - expected).max() < 1e-5
    with pytest.warns(nz.HeadWarning, match=r"\(BertForSequenceClassification\)"):
        nz.token_classification(weights, IDS)


def test_inspect_says_which_head_was_trained(tmp_path, capsys):
    nz.init(BERT, head="sequence_classification").save(tmp_path)
    nezha_np.cli.main(["inspect", str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    assert "sequence_classification: complete" in printed and "masked_lm: complete" in printed
    for head in ("token_classification", "multiple_choice"):
        assert (
            f"{head}: complete, but classifier.weight, classifier.bias were trained for sequence_classification "
            "(BertForSequenceClassification)"
        ) in printed


# --------------------------------------------------------------------------------------- what is written is what is so


def write_config(folder, values):
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("how", ["save", "convert"])
def test_a_saved_config_names_the_dtype_of_its_tensors_once(tmp_path, dtype, how):
    """transformers 5 writes dtype, and reads it before torch_dtype; both versions read torch_dtype."""
    source, target = tmp_path / "source", tmp_path / "target"
    nz.init(BERT, dtype="float16").save(source)
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    stale = {"dtype": "float16", "torch_dtype": "bfloat16", "_num_labels": 7, "quantization_config": {"bits": 8}}
    write_config(source, values | stale | {"finetuning_task": "x"})
    if how == "save":
        nz.load(source, dtype=dtype).save(target)
    else:
        assert nezha_np.cli.main(["convert", str(source), str(target), "--dtype", dtype]) == 0
    written = json.loads((target / "config.json").read_text(encoding="utf-8"))
    assert {key: written.get(key) for key in stale} == dict.fromkeys(stale) | {"torch_dtype": dtype}
    assert written["finetuning_task"] == "x" and len(written["id2label"]) == 1
    tensors = safetensors.numpy.load_file(target / "model.safetensors")
    assert {array.dtype.name for array in tensors.values()} == {dtype}


def test_a_saved_config_names_no_class_whose_tensors_are_gone(tmp_path):
    weights = nz.init(BERT, head="sequence_classification")

    def saved(kept, names=weights.config.architectures):
        tensors = {name: array for name, array in weights.items() if kept(name)}
        nz.Weights(tensors, weights.config.replace(architectures=names)).save(tmp_path)
        return json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["architectures"]

    assert saved(lambda name: True) == ["BertForSequenceClassification"]
    assert saved(lambda name: not name.startswith("classifier")) == ["BertForPreTraining"]
    assert saved(lambda name: not name.startswith(("classifier", "cls"))) == ["BertModel"]
    assert saved(lambda name: not name.startswith("cls"), ("BertForMaskedLM", "MyBert")) == ["MyBert"]
    assert saved(lambda name: True, ("BertModel",)) == ["BertModel"]


def test_sizes_that_change_are_written(tmp_path):
    weights = nz.init(BERT.replace(num_labels=4), head="sequence_classification")
    weights.resize_token_embeddings(13).prune_heads({0: [1]}).save(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert (written["vocab_size"], written["pruned_heads"], len(written["id2label"])) == (13, {"0": [1]}, 4)
