"""Configurations: the reference's fields and defaults, its config.json both ways, and no wrong value anywhere."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.families.config import FrozenDict, config_from_dict, read_config
from nezha_np.layers.activations import ACTIVATIONS

transformers = pytest.importorskip("transformers", reason="its configurations are the reference")

AUTHORS_OWN = Path(__file__).parents[2] / "shared" / "data" / "nezha-cn-base-vocab" / "config.json"

KINDS = (nz.NezhaConfig, nz.BertConfig, nz.ConvBertConfig)


def fields_of(kind: type[nz.families.config.Config]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name != "extra"]


def theirs_of(kind: type[nz.families.config.Config]) -> type:
    return getattr(transformers, kind.__name__)


SIZES = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "num_labels",
]
RATES = ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"]
NUMBERS = ["initializer_range", "layer_norm_eps"]
SWITCHES = ["use_cache", "is_decoder", "add_cross_attention", "tie_word_embeddings"]
TOKENS = ["pad_token_id", "bos_token_id", "eos_token_id"]

# One other value for each field than its default.
SHARED = {
    "vocab_size": 300,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 5,
    "hidden_act": "tanh",
    "hidden_dropout_prob": 0.25,
    "attention_probs_dropout_prob": 0.5,
    "max_position_embeddings": 64,
    "type_vocab_size": 3,
    "initializer_range": 0.5,
    "layer_norm_eps": 1e-5,
    "classifier_dropout": 0.75,
    "pad_token_id": None,
    "bos_token_id": 101,
    "eos_token_id": 102,
    "use_cache": False,
    "tie_word_embeddings": False,
    "id2label": {0: "差", 1: "中", 2: "好"},
    "label2id": {"差": 0, "中": 1, "好": 2},
    "problem_type": "regression",
    "architectures": ["SomeModel"],
}
OF_DECODERS = {"is_decoder": True, "add_cross_attention": True, "pruned_heads": {1: [0, 2]}}
OTHERS = {
    nz.NezhaConfig: SHARED | OF_DECODERS | {"max_relative_position": 7},
    nz.BertConfig: SHARED | OF_DECODERS | {"position_embedding_type": "relative_key_query"},
    nz.ConvBertConfig: SHARED
    | {
        "intermediate_size": 9,
        "embedding_size": 5,
        "head_ratio": 4,
        "conv_kernel_size": 3,
        "num_groups": 3,
        "summary_type": "mean",
        "summary_use_proj": True,
        "summary_activation": "tanh",
        "summary_first_dropout": 0.125,
        "summary_last_dropout": 0.375,
    },
}
EVERY_FIELD = [(kind, name) for kind in KINDS for name in OTHERS[kind]]


def plain(value):
    """Make what a configuration holds comparable with what the reference holds."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


# What the reference's SequenceSummary takes where the configuration does not say it.
SUMMARY = {
    "summary_type": "last",
    "summary_use_proj": False,
    "summary_activation": None,
    "summary_first_dropout": 0.0,
    "summary_last_dropout": 0.0,
}
# ConvBERT's configuration has no such key in the reference, but is told it like every other one.
UNSAID = SUMMARY | {"use_cache": True}


def assert_same_fields(ours: nz.families.config.Config, theirs: object) -> None:
    assert ours.model_type == theirs.model_type
    for name in fields_of(type(ours)):
        said = getattr(theirs, name, UNSAID[name]) if type(ours) is nz.ConvBertConfig and name in UNSAID else None
        assert plain(getattr(ours, name)) == plain(getattr(theirs, name, said)), name


def written(folder: Path, values: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


# ----------------------------------------------------------------------------------------------- the reference's fields


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_the_reference_is_there_with_its_default(kind):
    assert_same_fields(kind(), theirs_of(kind)())


@pytest.mark.parametrize(("kind", "count"), [(nz.NezhaConfig, 18), (nz.BertConfig, 16), (nz.ConvBertConfig, 20)])
def test_what_the_reference_lets_one_say_by_name_is_a_field(kind, count):
    signature = set(inspect.signature(theirs_of(kind).__init__).parameters) - {"self", "kwargs"}
    assert len(signature) == count and signature <= set(fields_of(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_other_values_mean_the_same_here_and_in_the_reference(kind):
    assert_same_fields(kind(**OTHERS[kind]), theirs_of(kind)(**OTHERS[kind]))
    assert_same_fields(kind(num_labels=5), theirs_of(kind)(num_labels=5))
    no_convbert = OF_DECODERS if kind is nz.ConvBertConfig else {}
    assert set(OTHERS[kind]) | set(no_convbert) == set(fields_of(kind)) - {"num_labels"}
    default = kind()
    assert not [name for name, value in OTHERS[kind].items() if plain(getattr(default, name)) == value]


def test_the_summary_of_convbert_that_nobody_speaks_of_is_the_references():
    summary = transformers.modeling_utils.SequenceSummary(transformers.ConvBertConfig(hidden_size=8))
    assert summary.summary_type == SUMMARY["summary_type"]
    for part in (summary.summary, summary.activation, summary.first_dropout, summary.last_dropout):
        assert type(part).__name__ == "Identity"
    assert {name: getattr(nz.ConvBertConfig(), name) for name in SUMMARY} == SUMMARY


# --------------------------------------------------------------------------------------------------------- config.json


EVERY_KIND_WITH_OPTIONS = [
    pytest.param(kind, options, id=f"{kind.model_type}-{name}")
    for kind in KINDS
    for name, options in {"defaults": {}, "all-others": OTHERS[kind], "num_labels": {"num_labels": 4}}.items()
]


@pytest.mark.parametrize(("kind", "options"), EVERY_KIND_WITH_OPTIONS)
def test_transformers_reads_what_we_write_to_equal_fields(tmp_path, kind, options):
    config = kind(**options)
    path = written(tmp_path, config.to_dict())
    theirs = theirs_of(kind).from_pretrained(tmp_path)
    assert_same_fields(config, theirs)
    assert_same_fields(config, transformers.AutoConfig.from_pretrained(tmp_path))
    assert read_config(path) == config
    assert config_from_dict(theirs.to_dict()).replace(extra={}) == config


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_write_has_no_key_that_the_reference_does_not_write(kind):
    known = set(theirs_of(kind)(**OTHERS[kind]).to_dict())
    if kind is nz.ConvBertConfig:  # which takes them from config.json and has no default for them
        known |= set(UNSAID)
    for config in (kind(), kind(**OTHERS[kind]), kind(num_labels=5)):
        assert set(config.to_dict()) <= known
    extra = config_from_dict({"model_type": kind.model_type, "finetuning_task": "新闻"}).to_dict()
    assert set(extra) - set(kind().to_dict()) == {"finetuning_task"}


@pytest.mark.parametrize("use_diff", [True, False], ids=["differences-alone", "everything"])
@pytest.mark.parametrize(("kind", "options"), EVERY_KIND_WITH_OPTIONS)
def test_we_read_what_transformers_writes_to_equal_fields(tmp_path, kind, options, use_diff):
    theirs = theirs_of(kind)(**options, torch_dtype="float16", finetuning_task="新闻")
    theirs.to_json_file(tmp_path / "config.json", use_diff=use_diff)
    ours = read_config(tmp_path / "config.json")
    assert type(ours) is kind
    assert_same_fields(ours, theirs)
    assert ours.extra["torch_dtype"] == "float16" and ours.extra["finetuning_task"] == "新闻"


@pytest.mark.parametrize("family", nz.families.family.FAMILIES)
def test_unknown_keys_survive_reading_and_writing(tmp_path, family):
    values = {"model_type": family, "directionality": "bidi", "extra": [1], "task_specific_params": {"a": {"b": None}}}
    config = read_config(written(tmp_path, values))
    assert config.extra == {key: value for key, value in values.items() if key != "model_type"}
    assert {key: config.to_dict()[key] for key in values} == values
    assert read_config(written(tmp_path, config.to_dict())) == config


def test_the_authors_own_config_is_read_and_nothing_of_it_is_lost(tmp_path):
    if not AUTHORS_OWN.exists():
        pytest.skip(f"the authors' own config.json is not beside this checkout ({AUTHORS_OWN})")
    values = json.loads(AUTHORS_OWN.read_text(encoding="utf-8"))
    assert "model_type" not in values
    config = read_config(AUTHORS_OWN)
    assert config == nz.NezhaConfig(extra={"use_relative_position": True})
    assert values.items() <= config.to_dict().items()
    assert read_config(written(tmp_path, config.to_dict())) == config


def test_the_shipped_config_is_the_references_format():
    assert_same_fields(
        read_config(nz.weights.checkpoint.SHIPPED / "config.json"),
        transformers.NezhaConfig.from_pretrained(nz.weights.checkpoint.SHIPPED),
    )


RATE = st.floats(0, 1, exclude_max=True)
ACTIVATION = st.sampled_from(sorted(ACTIVATIONS))


@st.composite
def configurations(draw: st.DrawFn, kind: type[nz.families.config.Config]) -> nz.families.config.Config:
    """Draw any configuration of a family."""
    known = [*fields_of(kind), "model_type"]
    heads, size = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    labels = draw(st.lists(st.text(max_size=4), min_size=1, max_size=5, unique=True))
    options = {
        "vocab_size": draw(st.integers(3, 100)),
        "hidden_size": 2 * heads * size,
        "num_attention_heads": heads,
        "num_hidden_layers": draw(st.integers(1, 4)),
        "hidden_dropout_prob": draw(RATE),
        "classifier_dropout": draw(st.none() | RATE),
        "hidden_act": draw(ACTIVATION),
        "layer_norm_eps": draw(st.floats(0, 1)),
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": draw(st.none() | st.integers(0, 2)),
        "eos_token_id": draw(st.none() | st.integers(0, 2)),
        "id2label": dict(enumerate(labels)),
        "problem_type": draw(st.sampled_from([None, *nz.families.config.PROBLEM_TYPES])),
        "extra": draw(
            st.dictionaries(
                st.text().filter(lambda key: key not in known),
                st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=3),
            )
        ),
    }
    if kind is nz.ConvBertConfig:
        options |= {
            "embedding_size": draw(st.integers(1, 9)),
            "head_ratio": draw(st.sampled_from([1, heads, heads + 1])),
            "conv_kernel_size": draw(st.sampled_from([1, 3, 9])),
            "num_groups": draw(st.sampled_from([1, 2])),
            "intermediate_size": 2 * draw(st.integers(1, 9)),
            "summary_type": draw(st.sampled_from(nz.families.convbert.SUMMARIES)),
            "summary_use_proj": draw(st.booleans()),
            "summary_activation": draw(st.none() | ACTIVATION),
            "summary_first_dropout": draw(RATE),
        }
    else:
        options |= {"pruned_heads": {0: list(range(1, heads))}, "is_decoder": draw(st.booleans())}
        options["add_cross_attention"] = options["is_decoder"] and draw(st.booleans())
    if kind is nz.BertConfig:
        options["position_embedding_type"] = draw(st.sampled_from(nz.families.bert.POSITION_KINDS))
    if kind is nz.NezhaConfig:
        options["max_relative_position"] = draw(st.integers(1, 100))
    return kind(**options)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_configuration_survives_json_pickling_copying_and_the_reference(kind, data):
    config = data.draw(configurations(kind))
    for again in (
        config_from_dict(json.loads(json.dumps(config.to_dict()))),
        pickle.loads(pickle.dumps(config)),
        copy.deepcopy(config),
        config.replace(),
        eval(repr(config), vars(nz)),  # a configuration shows how it is made
    ):
        assert type(again) is kind and again == config and hash(again) == hash(config)
    options = {name: value for name, value in config.to_dict().items() if name in fields_of(kind)}
    assert_same_fields(config, theirs_of(kind)(**options))


@pytest.mark.parametrize("kind", KINDS)
def test_id2label_decides_over_num_labels_as_in_the_reference(kind):
    values = {"model_type": kind.model_type, "num_labels": 7, "id2label": {"0": "a", "1": "b", "2": "c"}}
    assert config_from_dict(values).num_labels == theirs_of(kind)(**values).num_labels == 3


@pytest.mark.parametrize("kind", KINDS)
def test_nulls_where_the_reference_writes_nulls_are_read(kind):
    values = dict.fromkeys(["problem_type", "architectures", "id2label", "label2id", "num_labels", "pad_token_id"])
    config = config_from_dict({"model_type": kind.model_type, **values})
    assert config == kind(pad_token_id=None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_type_chooses_the_family_whatever_else_is_said(kind):
    others = {"max_relative_position": 5, "position_embedding_type": "absolute", "conv_kernel_size": 3}
    config = config_from_dict({"model_type": kind.model_type, **others})
    assert type(config) is kind
    assert config.extra == {key: value for key, value in others.items() if key not in fields_of(kind)}


@pytest.mark.parametrize("key", ["max_relative_position", "use_relative_position"])
def test_a_config_without_model_type_is_nezha_where_it_speaks_of_relative_positions(key):
    assert type(config_from_dict({key: 64})) is nz.NezhaConfig
    assert type(config_from_dict({key: 64, "model_type": None})) is nz.NezhaConfig
    assert type(config_from_dict({key: 64, "conv_kernel_size": 9})) is nz.NezhaConfig


def test_a_config_without_model_type_is_convbert_where_it_speaks_of_convolutions():
    assert config_from_dict({"conv_kernel_size": 9, "lr": 2}) == nz.ConvBertConfig(extra={"lr": 2})
    assert type(config_from_dict({"conv_kernel_size": 3, "model_type": None})) is nz.ConvBertConfig


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"hidden_size": 768},
        {"model_type": None},
        {"position_embedding_type": "absolute", "architectures": ["BertForMaskedLM"]},
    ],
    ids=str,
)
def test_a_config_that_says_nothing_of_its_family_is_refused(values):
    keys = r"model_type \(nezha, bert, convbert\), or max_relative_position or use_relative_position .*, or conv_kernel"
    with pytest.raises(ValueError, match=rf"^config: expected {keys}_size \(ConvBERT\), got none of them$"):
        config_from_dict(values)


def test_nezha_without_relative_positions_is_refused():
    for values in ({"use_relative_position": False}, {"use_relative_position": False, "model_type": "nezha"}):
        with pytest.raises(ValueError, match=r"^use_relative_position: expected true, .* got false$"):
            config_from_dict(values)
    assert type(config_from_dict({"use_relative_position": False, "model_type": "bert"})) is nz.BertConfig


@pytest.mark.parametrize("family", ["bart", "", 5, ["nezha"]])
def test_an_unknown_family_is_refused_by_name(family, tmp_path):
    with pytest.raises(ValueError, match=r"^model_type: expected one of nezha, bert, convbert, got "):
        config_from_dict({"model_type": family})
    path = written(tmp_path, {"model_type": family})
    with pytest.raises(ValueError, match=r"config\.json: model_type: ") as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path)) and repr(family) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"nezha"',
        b'{"model_type": "nezha",}',
        b'{"model_type": "\xff\xfe"}',
        b'{"a":' * 100_000,
        b'{"model_type": "nezha", "vocab_size": ' + b"1" * 5000 + b"}",
        b'{"model_type": "nezha", "vocab_size": "21128"}',
        b'{"model_type": "nezha", "layer_norm_eps": NaN}',
        b'{"model_type": "nezha", "hidden_size": 768.0}',
        b'{"model_type": "bert", "position_embedding_type": null}',
        b'{"model_type": "convbert", "conv_kernel_size": 8}',
        b'{"model_type": "convbert", "is_decoder": true}',
    ],
    ids=lambda content: content[:24].decode(errors="replace"),
)
def test_a_malformed_config_json_is_refused_with_the_name_of_the_file(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_config(path)
    assert type(caught.value) is ValueError and str(caught.value).startswith(f"{path}: ")


def test_a_missing_config_json_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: expected a config.json, found no such file"):
        read_config(tmp_path / "config.json")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_config(tmp_path)


# ---------------------------------------------------------------------------------------------------------- unchanging


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_cannot_be_changed(kind):
    config = kind()
    for name in [*fields_of(kind), "extra", "something"]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, name, None)
    for changing in (
        lambda labels: labels.update({0: "a"}),
        lambda labels: labels.pop(0),
        lambda labels: labels.popitem(),
        lambda labels: labels.clear(),
        lambda labels: labels.setdefault(9, "a"),
        lambda labels: labels.__setitem__(0, "a"),
        lambda labels: labels.__delitem__(0),
        lambda labels: labels.__ior__({0: "a"}),
    ):
        for mapping in (config.id2label, config.label2id, config.pruned_heads, config.extra):
            with pytest.raises(TypeError, match=r"config\.replace"):
                changing(mapping)
    assert config == kind()


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_shares_nothing_with_what_it_was_made_of_or_what_it_gives_out(kind):
    nested, labels, names = {"a": [1]}, {0: "a", 1: "b"}, ["SomeModel"]
    pruned = {} if kind is nz.ConvBertConfig else {0: [1]}
    config = kind(id2label=labels, architectures=names, pruned_heads=pruned, extra={"nested": nested})
    before = copy.deepcopy(config)
    nested["a"].append(2), labels.clear(), names.clear(), pruned.setdefault(0, []).append(2)
    given_out = config.to_dict()
    given_out["nested"]["a"].append(3), given_out["id2label"].clear(), given_out["pruned_heads"].setdefault(0, [3])
    assert config == before and config.to_dict() != given_out


@pytest.mark.parametrize("kind", KINDS)
def test_equal_configs_hash_equal(kind):
    for options in ({}, OTHERS[kind], {"extra": {"a": [1]}}):
        one, other = kind(**options), kind(**copy.deepcopy(options))
        assert one == other and hash(one) == hash(other) and len({one, other}) == 1


@pytest.mark.parametrize(("kind", "name"), EVERY_FIELD)
def test_configs_that_differ_in_one_field_are_not_equal(kind, name):
    base = kind(is_decoder=True) if name == "add_cross_attention" else kind(intermediate_size=24)
    assert base.replace(**{name: OTHERS[kind][name]}) != base


def test_configs_of_different_families_are_not_equal():
    assert len({kind() for kind in KINDS}) == 3
    assert nz.BertConfig() != nz.ConvBertConfig(pad_token_id=0, bos_token_id=None, eos_token_id=None)


@pytest.mark.parametrize("kind", KINDS)
def test_configs_are_pickled_and_copied(kind):
    config = kind(**OTHERS[kind], extra={"a": [1]})
    for again in (pickle.loads(pickle.dumps(config)), copy.copy(config), copy.deepcopy(config)):
        assert type(again) is kind and again == config and hash(again) == hash(config)
        assert isinstance(again.id2label, FrozenDict) and isinstance(again.extra, FrozenDict)


# -------------------------------------------------------------------------------------------------------------- replace


@pytest.mark.parametrize("kind", KINDS)
def test_replace_changes_what_it_is_told_and_nothing_else(kind):
    config = kind(**OTHERS[kind], extra={"a": 1})
    changes = {"vocab_size": 301, "tie_word_embeddings": True}
    if kind is not nz.ConvBertConfig:
        changes |= {"is_decoder": False, "add_cross_attention": False}
    changed = config.replace(**changes)
    assert type(changed) is kind and {name: getattr(changed, name) for name in changes} == changes
    assert changed.replace(**{name: OTHERS[kind][name] for name in changes}) == config
    assert config == kind(**OTHERS[kind], extra={"a": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_labels_brings_new_names_as_in_the_reference(kind):
    theirs = theirs_of(kind)(id2label=SHARED["id2label"])
    ours = kind(id2label=SHARED["id2label"])
    for count in (3, 5, 1):
        theirs.num_labels = count
        ours = ours.replace(num_labels=count)
        assert ours.num_labels == count
        assert ours.id2label == theirs.id2label
        assert ours.label2id == {label: index for index, label in theirs.id2label.items()}


def test_other_labels_bring_their_number():
    config = nz.NezhaConfig(num_labels=5).replace(id2label={0: "坏", 1: "好"})
    assert (config.num_labels, config.label2id) == (2, {"坏": 0, "好": 1})
    assert config.replace(id2label=None).num_labels == 2
    with pytest.raises(ValueError, match=r"^num_labels: "):
        config.replace(id2label={0: "a"}, num_labels=2)


def test_replace_checks_the_new_values():
    with pytest.raises(ValueError, match=r"^vocab_size: "):
        nz.NezhaConfig().replace(vocab_size=0)
    with pytest.raises(TypeError, match="no_such_field"):
        nz.NezhaConfig().replace(no_such_field=1)
    with pytest.raises(TypeError, match="max_relative_position"):
        nz.BertConfig().replace(max_relative_position=1)
    with pytest.raises(ValueError, match=r"^num_groups: "):
        nz.ConvBertConfig().replace(num_groups=5)


# ---------------------------------------------------------------------------------------------------------- bad values

BAD: list[tuple[str, object, type[Exception]]] = [  # in every family
    *[(name, value, ValueError) for name in SIZES for value in (0, -1, np.int64(-1))],
    *[(name, value, TypeError) for name in SIZES for value in ("8", 8.0, True, [8], b"8", np.float32(8))],
    *[(name, None, TypeError) for name in SIZES if name != "num_labels"],
    *[(name, value, ValueError) for name in RATES for value in (-0.1, 1, 1.0, 1.5, float("nan"), float("inf"))],
    *[(name, value, TypeError) for name in RATES for value in ("0.1", True, [0.1])],
    *[(name, None, TypeError) for name in RATES if name != "classifier_dropout"],
    *[(name, value, ValueError) for name in NUMBERS for value in (-1e-9, float("nan"), float("inf"), 10**400)],
    *[(name, value, TypeError) for name in NUMBERS for value in ("0.02", None, False, [0.02], 1j)],
    *[(name, value, TypeError) for name in SWITCHES for value in (0, 1, None, "true", [])],
    *[(name, value, TypeError) for name in TOKENS for value in ("0", 0.0, True, ["0"])],
    *[(name, [0], TypeError) for name in TOKENS if name != "eos_token_id"],
    *[(name, -1, ValueError) for name in TOKENS],
    ("pad_token_id", 30522, ValueError),
    ("hidden_size", 770, ValueError),  # not a multiple of 12 heads
    *[("hidden_act", value, ValueError) for value in ("gelu_fast", "", None, 5, ["gelu"], {"gelu": 1})],
    ("add_cross_attention", True, ValueError),  # without is_decoder
    *[("problem_type", value, ValueError) for value in ("", "classification", 1, ["regression"])],
    ("num_attention_heads", 10, ValueError),  # nor a ConvBERT's of 5 heads and 5 convolutions
    *[("pruned_heads", value, TypeError) for value in (None, 5, [0], "0", {0: 1}, {0: "1"}, {0: ["1"]}, {0: [1.0]})],
    *[("pruned_heads", value, ValueError) for value in ({12: [0]}, {-13: [0]}, {0: [12]}, {0: [-13]}, {0: range(12)})],
    *[("pruned_heads", value, ValueError) for value in ({"a": [0]}, {0.5: [0]}, {None: [0]})],
    *[("id2label", value, TypeError) for value in (5, "ab", {"a"})],
    *[("id2label", value, ValueError) for value in ({}, {"a": "b"}, {None: "a"}, {0.5: "a"})],
    *[("label2id", value, TypeError) for value in (5, "ab", ["a", "b"], {"a": None}, {"a": 0.5})],
    *[("architectures", value, TypeError) for value in (5, "SomeModel", [5], {"SomeModel": 1})],
    *[("extra", value, TypeError) for value in (None, 5, ["a"], "a")],
    *[("extra", {name: 1}, ValueError) for name in ("vocab_size", "num_labels", "model_type")],
]


def wrong_sizes(*names: str) -> list[tuple[str, object, type[Exception]]]:
    return [
        *[(name, value, ValueError) for name in names for value in (0, -1, np.int64(-1))],
        *[(name, value, TypeError) for name in names for value in ("8", 8.0, True, [8], b"8", np.float32(8), None)],
    ]


def wrong_rates(*names: str) -> list[tuple[str, object, type[Exception]]]:
    return [
        *[(name, value, ValueError) for name in names for value in (-0.1, 1, 1.5, float("nan"), float("inf"))],
        *[(name, value, TypeError) for name in names for value in ("0.1", True, [0.1], None)],
    ]


OWN: dict[type[nz.families.config.Config], list[tuple[str, object, type[Exception]]]] = {  # in one family
    nz.NezhaConfig: [
        *wrong_sizes("max_relative_position"),
        ("hidden_size", 12 * 3, ValueError),  # heads of an odd size
        ("pad_token_id", 21128, ValueError),
    ],
    nz.BertConfig: [
        *[
            ("position_embedding_type", value, ValueError)
            for value in ("relative", "", "Absolute", None, 5, ["absolute"], {"absolute": 1}, True)
        ],
    ],
    nz.ConvBertConfig: [
        *wrong_sizes("embedding_size", "head_ratio", "conv_kernel_size", "num_groups"),
        ("conv_kernel_size", 2, ValueError),  # an even number
        ("conv_kernel_size", 10, ValueError),
        ("num_groups", 5, ValueError),  # divides neither
        ("num_groups", 1024, ValueError),  # divides the middle alone
        ("num_groups", 9, ValueError),
        ("hidden_size", 6 * 63, ValueError),  # heads and convolutions of 31 features each make 62
        ("hidden_size", 6, ValueError),
        ("is_decoder", True, ValueError),
        ("pruned_heads", {0: [1]}, ValueError),
        *wrong_rates("summary_first_dropout", "summary_last_dropout"),
        *[("summary_use_proj", value, TypeError) for value in (0, 1, None, "true", [])],
        *[("summary_type", value, ValueError) for value in ("attn", "max", "", None, 5, ["last"], {"last": 1})],
        *[("summary_activation", value, ValueError) for value in ("sigmoid", 5, ["tanh"], np.tanh, False)],
    ],
}
EVERY_BAD = [(kind, *row) for kind in KINDS for row in [*BAD, *OWN[kind]]]


@pytest.mark.parametrize(("kind", "name", "value", "error"), EVERY_BAD, ids=lambda value: repr(value)[:24])
def test_a_bad_value_is_refused_with_the_name_of_its_field(kind, name, value, error):
    with pytest.raises(error) as caught:
        kind(**{name: value})
    assert type(caught.value) is error
    said = "hidden_size" if name == "num_attention_heads" and value == 10 else name  # which the heads do not divide
    assert str(caught.value).startswith(f"{said}: expected ") and ", got " in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_bad_values(kind):
    assert {name for one, name, _, _ in EVERY_BAD if one is kind} == {*fields_of(kind), "extra"}


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (r"^hidden_size: expected a multiple of 12, .* head_ratio 2 makes of 12, got 770$", {"hidden_size": 770}),
        (r"^hidden_size: expected a multiple of 6, .* head_ratio 4 makes of 12, got 16$", {
            "hidden_size": 16, "head_ratio": 4,
        }),
        (r"^hidden_size: expected a multiple of 2, .* head_ratio 99 makes of 12, got 5$", {
            "hidden_size": 5, "head_ratio": 99,
        }),
        (r"^conv_kernel_size: expected an odd number, .* got 4$", {"conv_kernel_size": 4}),
        (r"^num_groups: expected a divisor of hidden_size 768, got 5$", {"num_groups": 5}),
        (r"^num_groups: expected a divisor of intermediate_size 5, got 2$", {"num_groups": 2, "intermediate_size": 5}),
        (r"^is_decoder: expected False, because ConvBERT is an encoder: .* got True$", {"is_decoder": True}),
        (r"^is_decoder: expected False", {"is_decoder": True, "add_cross_attention": True}),
        (r"^add_cross_attention: expected is_decoder=True with it", {"add_cross_attention": True}),
        (r"^pruned_heads: expected none, .* got \{1: \(0,\)\}$", {"pruned_heads": {1: [0]}}),
        (r"^summary_type: expected one of last, first, mean, cls_index, got 'attn'$", {"summary_type": "attn"}),
        (r"^summary_activation: expected one of None, gelu, .* got 'mish'$", {"summary_activation": "mish"}),
        (r"^summary_proj_to_labels: expected false, .* got true$", {
            "summary_use_proj": True, "extra": {"summary_proj_to_labels": True},
        }),
    ],
)  # fmt: skip
def test_convbert_says_what_its_parts_need(message, options):
    with pytest.raises(ValueError, match=message):
        nz.ConvBertConfig(**options)


def test_the_position_kind_of_bert_is_named_with_the_others():
    expected = "^position_embedding_type: expected one of absolute, relative_key, relative_key_query, got 'rotary'$"
    with pytest.raises(ValueError, match=expected):
        nz.BertConfig(position_embedding_type="rotary")


def test_a_projection_of_the_summary_to_labels_that_is_not_used_does_not_matter():
    config = nz.ConvBertConfig(extra={"summary_proj_to_labels": True})
    assert config_from_dict(config.to_dict()) == config


def test_what_the_families_share_is_no_configuration_itself():
    expected = "^Config: expected a NezhaConfig, a BertConfig or a ConvBertConfig, got what they share$"
    for options in ({}, {"hidden_size": 24}):
        with pytest.raises(TypeError, match=expected):
            nz.families.config.Config(**options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_another_family_is_refused_by_name(kind):
    for name in {field for other in KINDS for field in fields_of(other)} - set(fields_of(kind)):
        with pytest.raises(TypeError, match=name):
            kind(**{name: 1})
        assert kind(extra={name: 1}).extra == {name: 1}


def test_labels_and_their_number_must_agree():
    with pytest.raises(ValueError, match=r"^num_labels: expected one for each entry of id2label \(2\), got 3"):
        nz.NezhaConfig(num_labels=3, id2label={0: "a", 1: "b"})


def test_numbers_of_numpy_are_numbers(tmp_path):
    config = nz.NezhaConfig(
        vocab_size=np.int64(300),
        hidden_dropout_prob=np.float32(0.5),
        layer_norm_eps=np.float64(1e-5),
        initializer_range=1,
        pad_token_id=np.int32(2),
        num_labels=np.uint8(3),
        pruned_heads={np.int64(1): [np.int64(2)]},
        label2id={"a": np.int64(0)},
    )
    expected = nz.NezhaConfig(
        vocab_size=300,
        hidden_dropout_prob=0.5,
        layer_norm_eps=1e-5,
        initializer_range=1.0,
        pad_token_id=2,
        num_labels=3,
        pruned_heads={1: [2]},
        label2id={"a": 0},
    )
    assert config == expected and hash(config) == hash(expected)
    assert read_config(written(tmp_path, config.to_dict())) == config


def test_an_activation_may_be_a_function_which_no_file_can_hold():
    config = nz.NezhaConfig(hidden_act=np.tanh)
    assert config.hidden_act is np.tanh and hash(config) == hash(nz.NezhaConfig(hidden_act=np.tanh))
    with pytest.raises(ValueError, match=r"^hidden_act: expected a name, .* got "):
        config.to_dict()


@pytest.mark.parametrize("kind", [nz.NezhaConfig, nz.BertConfig])
def test_heads_counts_the_heads_that_a_layer_still_has(kind):
    config = kind(pruned_heads={"1": [3, 0, 3]})
    assert (config.head_size, config.heads(0), config.heads(1)) == (64, 12, 10)
    assert config.pruned_heads == {1: (0, 3)}


@pytest.mark.parametrize(("ratio", "heads", "size"), [(1, 12, 32), (2, 6, 64), (5, 2, 192), (12, 1, 384), (99, 1, 384)])
def test_convbert_has_fewer_heads_by_the_ratio_as_in_the_reference(ratio, heads, size):
    config = nz.ConvBertConfig(head_ratio=ratio)
    assert (config.attention_heads, config.heads(0), config.head_size) == (heads, heads, size)
    theirs = transformers.models.convbert.modeling_convbert.ConvBertSelfAttention(
        transformers.ConvBertConfig(**config.to_dict())
    )
    assert (theirs.num_attention_heads, theirs.attention_head_size) == (heads, size)


def test_only_positions_that_are_added_to_the_words_are_learned_positions():
    assert [kind().learns_positions for kind in KINDS] == [False, True, True]
    kinds = [nz.BertConfig(position_embedding_type=kind) for kind in nz.families.bert.POSITION_KINDS]
    assert [config.learns_positions for config in kinds] == [True, False, False]


def test_what_the_reference_takes_as_none_is_none():
    config = nz.families.config.config_from_dict(
        {"model_type": "convbert", "pruned_heads": None, "summary_activation": ""}
    )
    assert config == nz.ConvBertConfig() and config.pruned_heads == {} and config.summary_activation is None
