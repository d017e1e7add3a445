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
from nezha_np.config import FrozenDict, config_from_dict, read_config
from nezha_np.layers.activations import ACTIVATIONS

transformers = pytest.importorskip("transformers", reason="its configurations are the reference")

AUTHORS_OWN = Path(__file__).parents[2] / "shared" / "data" / "nezha-cn-base-vocab" / "config.json"

FIELDS = [field.name for field in dataclasses.fields(nz.NezhaConfig) if field.name != "extra"]
SIZES = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "max_relative_position",
    "type_vocab_size",
    "num_labels",
]
RATES = ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"]
NUMBERS = ["initializer_range", "layer_norm_eps"]
SWITCHES = ["use_cache", "is_decoder", "add_cross_attention", "tie_word_embeddings"]
TOKENS = ["pad_token_id", "bos_token_id", "eos_token_id"]

# One other value for each field than its default.
OTHERS = {
    "vocab_size": 300,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 5,
    "hidden_act": "tanh",
    "hidden_dropout_prob": 0.25,
    "attention_probs_dropout_prob": 0.5,
    "max_position_embeddings": 64,
    "max_relative_position": 7,
    "type_vocab_size": 3,
    "initializer_range": 0.5,
    "layer_norm_eps": 1e-5,
    "classifier_dropout": None,
    "pad_token_id": None,
    "bos_token_id": 101,
    "eos_token_id": 102,
    "use_cache": False,
    "is_decoder": True,
    "add_cross_attention": True,
    "tie_word_embeddings": False,
    "pruned_heads": {1: [0, 2]},
    "id2label": {0: "差", 1: "中", 2: "好"},
    "label2id": {"差": 0, "中": 1, "好": 2},
    "problem_type": "regression",
    "architectures": ["NezhaForMaskedLM"],
}


def plain(value):
    """Make what a configuration holds comparable with what the reference holds."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def assert_same_fields(ours: nz.NezhaConfig, theirs: object) -> None:
    for name in FIELDS:
        assert plain(getattr(ours, name)) == plain(getattr(theirs, name)), name


def written(folder: Path, values: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


# ----------------------------------------------------------------------------------------------- the reference's fields


def test_every_field_of_the_reference_is_there_with_its_default():
    assert_same_fields(nz.NezhaConfig(), transformers.NezhaConfig())
    assert nz.NezhaConfig.model_type == transformers.NezhaConfig.model_type


def test_what_the_reference_lets_one_say_by_name_is_a_field():
    signature = set(inspect.signature(transformers.NezhaConfig.__init__).parameters) - {"self", "kwargs"}
    assert len(signature) == 18 and signature <= set(FIELDS)


def test_other_values_mean_the_same_here_and_in_the_reference():
    assert_same_fields(nz.NezhaConfig(**OTHERS), transformers.NezhaConfig(**OTHERS))
    assert set(OTHERS) == set(FIELDS) - {"num_labels"}
    assert_same_fields(nz.NezhaConfig(num_labels=5), transformers.NezhaConfig(num_labels=5))


# --------------------------------------------------------------------------------------------------------- config.json


@pytest.mark.parametrize("options", [{}, OTHERS, {"num_labels": 4}], ids=["defaults", "all-others", "num_labels"])
def test_transformers_reads_what_we_write_to_equal_fields(tmp_path, options):
    config = nz.NezhaConfig(**options)
    path = written(tmp_path, config.to_dict())
    assert_same_fields(config, transformers.NezhaConfig.from_pretrained(tmp_path))
    assert read_config(path) == config


@pytest.mark.parametrize("use_diff", [True, False], ids=["differences-alone", "everything"])
@pytest.mark.parametrize("options", [{}, OTHERS, {"num_labels": 4}], ids=["defaults", "all-others", "num_labels"])
def test_we_read_what_transformers_writes_to_equal_fields(tmp_path, options, use_diff):
    theirs = transformers.NezhaConfig(**options, torch_dtype="float16", finetuning_task="新闻")
    theirs.to_json_file(tmp_path / "config.json", use_diff=use_diff)
    ours = read_config(tmp_path / "config.json")
    assert_same_fields(ours, theirs)
    assert ours.extra["torch_dtype"] == "float16" and ours.extra["finetuning_task"] == "新闻"


def test_unknown_keys_survive_reading_and_writing(tmp_path):
    values = {"model_type": "nezha", "directionality": "bidi", "extra": [1], "task_specific_params": {"a": {"b": None}}}
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
        read_config(nz.checkpoint.SHIPPED / "config.json"),
        transformers.NezhaConfig.from_pretrained(nz.checkpoint.SHIPPED),
    )


@given(
    layers=st.integers(1, 4),
    heads=st.integers(1, 4),
    half=st.integers(1, 8),
    labels=st.lists(st.text(max_size=4), min_size=1, max_size=5, unique=True),
    rate=st.floats(0, 1, exclude_max=True),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    extra=st.dictionaries(
        st.text().filter(lambda key: key not in [*FIELDS, "model_type"]),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=3),
    ),
)
def test_any_configuration_survives_json(layers, heads, half, labels, rate, activation, extra):
    config = nz.NezhaConfig(
        hidden_size=2 * heads * half,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        hidden_dropout_prob=rate,
        hidden_act=activation,
        id2label=dict(enumerate(labels)),
        pruned_heads={0: list(range(1, heads))},
        extra=extra,
    )
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_id2label_decides_over_num_labels_as_in_the_reference():
    values = {"model_type": "nezha", "num_labels": 7, "id2label": {"0": "a", "1": "b", "2": "c"}}
    assert config_from_dict(values).num_labels == transformers.NezhaConfig(**values).num_labels == 3


def test_nulls_where_the_reference_writes_nulls_are_read():
    values = dict.fromkeys(["problem_type", "architectures", "id2label", "label2id", "num_labels", "pad_token_id"])
    config = config_from_dict({"model_type": "nezha", **values})
    assert config == nz.NezhaConfig(pad_token_id=None)


@pytest.mark.parametrize("key", ["max_relative_position", "use_relative_position"])
def test_a_config_without_model_type_is_nezha_where_it_speaks_of_relative_positions(key):
    assert type(config_from_dict({key: 64})) is nz.NezhaConfig
    assert type(config_from_dict({key: 64, "model_type": None})) is nz.NezhaConfig


def test_a_config_that_says_nothing_of_its_family_is_refused():
    with pytest.raises(ValueError, match=r"^config: expected model_type, or max_relative_position"):
        config_from_dict({"hidden_size": 768})


@pytest.mark.parametrize("family", ["bart", "", 5, ["nezha"]])
def test_an_unknown_family_is_refused_by_name(family, tmp_path):
    with pytest.raises(ValueError, match=r"^model_type: expected one of nezha.*, got "):
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


def test_a_config_cannot_be_changed():
    config = nz.NezhaConfig()
    for name in [*FIELDS, "extra", "something"]:
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
    assert config == nz.NezhaConfig()


def test_a_config_shares_nothing_with_what_it_was_made_of_or_what_it_gives_out():
    nested, labels, names, pruned = {"a": [1]}, {0: "a", 1: "b"}, ["NezhaModel"], {0: [1]}
    config = nz.NezhaConfig(id2label=labels, architectures=names, pruned_heads=pruned, extra={"nested": nested})
    before = copy.deepcopy(config)
    nested["a"].append(2), labels.clear(), names.clear(), pruned[0].append(2)
    given_out = config.to_dict()
    given_out["nested"]["a"].append(3), given_out["id2label"].clear(), given_out["pruned_heads"][0].clear()
    assert config == before and config.to_dict() != given_out


@pytest.mark.parametrize("options", [{}, OTHERS, {"extra": {"a": [1]}}], ids=["defaults", "others", "extra"])
def test_equal_configs_hash_equal(options):
    one, other = nz.NezhaConfig(**options), nz.NezhaConfig(**copy.deepcopy(options))
    assert one == other and hash(one) == hash(other) and len({one, other}) == 1


@pytest.mark.parametrize("name", OTHERS)
def test_configs_that_differ_in_one_field_are_not_equal(name):
    base = nz.NezhaConfig(is_decoder=True) if name == "add_cross_attention" else nz.NezhaConfig()
    assert base.replace(**{name: OTHERS[name]}) != base


def test_configs_are_pickled_and_copied():
    config = nz.NezhaConfig(**OTHERS, extra={"a": [1]})
    for again in (pickle.loads(pickle.dumps(config)), copy.copy(config), copy.deepcopy(config)):
        assert again == config and hash(again) == hash(config)
        assert isinstance(again.id2label, FrozenDict) and isinstance(again.extra, FrozenDict)


# -------------------------------------------------------------------------------------------------------------- replace


def test_replace_changes_what_it_is_told_and_nothing_else():
    config = nz.NezhaConfig(**OTHERS, extra={"a": 1})
    changed = config.replace(vocab_size=301, is_decoder=False, add_cross_attention=False)
    assert (changed.vocab_size, changed.is_decoder, changed.add_cross_attention) == (301, False, False)
    assert changed.replace(vocab_size=300, is_decoder=True, add_cross_attention=True) == config
    assert config == nz.NezhaConfig(**OTHERS, extra={"a": 1})


def test_another_number_of_labels_brings_new_names_as_in_the_reference():
    theirs = transformers.NezhaConfig(id2label=OTHERS["id2label"])
    ours = nz.NezhaConfig(id2label=OTHERS["id2label"])
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


# ---------------------------------------------------------------------------------------------------------- bad values

BAD = [
    *[(name, value, ValueError) for name in SIZES for value in (0, -1, np.int64(-1))],
    *[(name, value, TypeError) for name in SIZES for value in ("8", 8.0, True, [8], b"8", np.float32(8))],
    *[(name, None, TypeError) for name in SIZES if name != "num_labels"],
    *[(name, value, ValueError) for name in RATES for value in (-0.1, 1, 1.0, 1.5, float("nan"), float("inf"))],
    *[(name, value, TypeError) for name in RATES for value in ("0.1", True, [0.1])],
    *[(name, None, TypeError) for name in RATES if name != "classifier_dropout"],
    *[(name, value, ValueError) for name in NUMBERS for value in (-1e-9, float("nan"), float("inf"), 10**400)],
    *[(name, value, TypeError) for name in NUMBERS for value in ("0.02", None, False, [0.02], 1j)],
    *[(name, value, TypeError) for name in SWITCHES for value in (0, 1, None, "true", [])],
    *[(name, value, TypeError) for name in TOKENS for value in ("0", 0.0, True, [0])],
    *[(name, -1, ValueError) for name in TOKENS],
    ("pad_token_id", 21128, ValueError),
    ("hidden_size", 770, ValueError),  # not a multiple of 12 heads
    ("hidden_size", 12 * 3, ValueError),  # heads of an odd size
    *[("hidden_act", value, ValueError) for value in ("gelu_fast", "", None, 5, ["gelu"], {"gelu": 1})],
    ("add_cross_attention", True, ValueError),  # without is_decoder
    *[("problem_type", value, ValueError) for value in ("", "classification", 1, ["regression"])],
    *[("pruned_heads", value, TypeError) for value in (None, 5, [0], "0", {0: 1}, {0: "1"}, {0: ["1"]}, {0: [1.0]})],
    *[("pruned_heads", value, ValueError) for value in ({12: [0]}, {-1: [0]}, {0: [12]}, {0: [-1]}, {0: range(12)})],
    *[("pruned_heads", value, ValueError) for value in ({"a": [0]}, {0.5: [0]}, {None: [0]})],
    *[("id2label", value, TypeError) for value in (5, "ab", ["a", "b"])],
    *[("id2label", value, ValueError) for value in ({}, {"a": "b"}, {None: "a"}, {0.5: "a"})],
    *[("label2id", value, TypeError) for value in (5, "ab", ["a", "b"], {"a": "0"}, {"a": None}, {"a": 0.5})],
    *[("architectures", value, TypeError) for value in (5, "NezhaModel", [5], {"NezhaModel": 1})],
    *[("extra", value, TypeError) for value in (None, 5, ["a"], "a")],
    *[("extra", {name: 1}, ValueError) for name in ("vocab_size", "num_labels", "model_type")],
]


@pytest.mark.parametrize(("name", "value", "error"), BAD, ids=lambda value: repr(value)[:24])
def test_a_bad_value_is_refused_with_the_name_of_its_field(name, value, error):
    with pytest.raises(error) as caught:
        nz.NezhaConfig(**{name: value})
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{name}: expected ") and ", got " in str(caught.value)


def test_every_field_has_bad_values():
    assert {name for name, _, _ in BAD} == {*FIELDS, "extra"}


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


def test_heads_counts_the_heads_that_a_layer_still_has():
    config = nz.NezhaConfig(pruned_heads={"1": [3, 0, 3]})
    assert (config.head_size, config.heads(0), config.heads(1)) == (64, 12, 10)
    assert config.pruned_heads == {1: (0, 3)}
