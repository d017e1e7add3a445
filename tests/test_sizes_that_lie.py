"""A number in a file is held against what the file has: a wrong one is refused at once, and asks for no memory."""

import contextlib
import io
import json
import shutil
from unittest import mock

import numpy as np
import pytest
from cpu_seconds import within
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.families.config import read_config
from nezha_np.families.nezha import FARTHEST
from nezha_np.oracle.bundle_document import KEY
from nezha_np.text.wordpiece import vocabulary_lines
from nezha_np.weights import memory
from nezha_np.weights.checkpoint import SHIPPED
from nezha_np.weights.convert import convert
from nezha_np.weights.formats.entry import map_tensors
from nezha_np.weights.formats.safetensors import read_header, read_metadata, write_tensors

SMALL = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 16,
}
CONFIGS = {
    "nezha": nz.NezhaConfig(**SMALL),
    "bert": nz.BertConfig(**SMALL),
    "convbert": nz.ConvBertConfig(**SMALL, embedding_size=8),
}
HUGE = 199999999999999999999


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Make a checkpoint of each family."""
    found = {}
    for family, config in CONFIGS.items():
        found[family] = tmp_path_factory.mktemp(family)
        nz.init(config, head="token_classification").save(found[family])
    return found


def at_once():
    return within(1.0)


def lie(folder, **values):
    """Put values into the config.json of a folder."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")
    return folder


def copy(folder, place):
    return shutil.copytree(folder, place / "copy")


def nested(levels):
    return '{"a":' * levels + "1" + "}" * levels


# ------------------------------------------------------------------------------------------------------ configurations

NUMBERS = st.one_of(
    st.sampled_from([-1, 0, 1, True, False, 2**31 - 1, 2**31, 2**63, HUGE, 10**400, 1.5, -0.1, 1e308]),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), None, "3", [1], [2**40], {}, {"0": 1}, {"-1": [0]}]),
    st.integers(-3, 40),
    st.integers(),
    st.floats(),
)


@pytest.mark.parametrize("family", list(CONFIGS))
@examples(300, quick=60)
@given(data=st.data())
def test_any_number_of_a_configuration_is_refused_in_a_second_or_works(folders, tmp_path_factory, family, data):
    values = json.loads((folders[family] / "config.json").read_text(encoding="utf-8"))
    key = data.draw(st.sampled_from(sorted({*values, "num_labels"} - {"model_type"})))
    values[key] = data.draw(NUMBERS)
    if key == "num_labels":
        del values["id2label"], values["label2id"]
    folder = tmp_path_factory.mktemp("lie")
    shutil.copyfile(folders[family] / "model.safetensors", folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with at_once(), contextlib.suppress(ValueError):
        nz.token_classification(nz.load(folder), [[2, 3, 1]])
    with at_once(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(["inspect", str(folder)])
    with at_once(), contextlib.suppress(ValueError), mock.patch.object(memory, "machine_memory", lambda: 2**24):
        nz.init(read_config(folder / "config.json"))


@pytest.mark.parametrize("layers", [3, 10**4, HUGE])
def test_more_layers_than_the_file_has_are_refused_before_their_tensors_are_listed(folders, tmp_path, layers, capsys):
    folder = lie(copy(folders["nezha"], tmp_path), num_hidden_layers=layers)
    message = f"expected the tensors of {layers} layers, as num_hidden_layers says, got those of 2"
    if layers > 10**4:
        message = f"num_hidden_layers: expected a number from 1 to 10000, got {layers}"
    with at_once(), pytest.raises(ValueError, match=message):
        nz.load(folder)
    with at_once(), pytest.raises(ValueError, match=message):
        convert(folder, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()
    with at_once():
        main(["inspect", str(folder)])
    out = capsys.readouterr()
    assert message in out.out + out.err


def test_tensors_of_a_dict_are_counted_too():
    weights = nz.init(CONFIGS["bert"])
    with pytest.raises(ValueError, match=r"^weights: expected the tensors of 9999 layers"):
        nz.forward(dict(weights), [[2, 3]], config=weights.config.replace(num_hidden_layers=9999))


def test_a_table_that_is_computed_has_at_most_a_size_that_can_be_computed():
    assert nz.NezhaConfig(max_relative_position=FARTHEST).max_relative_position == FARTHEST
    with pytest.raises(ValueError, match=f"max_relative_position: expected a number from 1 to {FARTHEST}, got {HUGE}"):
        nz.NezhaConfig(max_relative_position=HUGE)


def test_names_of_labels_are_made_up_for_a_million_of_them_at_most():
    with at_once(), pytest.raises(ValueError, match="num_labels: expected a number from 1 to 1000000, got 2147483647"):
        nz.BertConfig(num_labels=2**31 - 1)


def test_a_file_that_asks_for_many_labels_without_naming_them_is_refused_and_one_that_names_them_is_read(
    folders, tmp_path
):
    folder = lie(copy(folders["bert"], tmp_path), num_labels=10**6, id2label=None, label2id=None)
    with (
        at_once(),
        pytest.raises(ValueError, match=r"num_labels: .*from 1 to 10000 where id2label does not"),
    ):
        nz.load(folder)
    lie(folder, num_labels=None, id2label={str(index): f"a{index}" for index in range(10_001)})
    assert nz.load(folder).config.num_labels == 10_001


def test_a_number_that_is_too_long_to_read_is_not_printed():
    with pytest.raises(
        ValueError, match="vocab_size: expected a number from 1 to 2147483647, got a number of 16610 bits"
    ):
        nz.BertConfig(vocab_size=10**5000)


def test_many_heads_are_not_listed_to_check_those_that_are_pruned():
    with at_once(), pytest.raises(ValueError, match="hidden_size: expected a multiple of num_attention_heads"):
        nz.BertConfig(num_attention_heads=2**31 - 1, pruned_heads={0: [1]})


# -------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("field", ["vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"])
def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_asked_for(field):
    config = nz.BertConfig(**(SMALL | {field: 2**31 - 8}))
    with at_once(), mock.patch.object(memory, "machine_memory", lambda: 2**30), pytest.raises(ValueError) as error:
        nz.init(config)
    needed = memory.bytes_of_new_model(config, None, 4)
    assert str(error.value) == (
        "config: expected tensors that fit into this machine's memory of 1,073,741,824 bytes, got tensors of "
        f"{needed:,} bytes"
    )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_bytes_of_a_new_model_are_those_that_it_gets(config):
    weights = nz.init(config, head="question_answering")
    found = memory.bytes_of_new_model(config, "question_answering", 4)
    assert found == sum(array.nbytes + memory.OBJECT for array in weights.values())


def test_a_vocabulary_that_does_not_fit_into_memory_is_refused():
    with at_once(), pytest.raises(ValueError, match="n: expected tensors that fit into this machine's memory"):
        nz.init(CONFIGS["bert"]).resize_token_embeddings(2**60)


def test_where_a_system_does_not_say_its_memory_a_model_of_no_machine_is_refused_all_the_same(monkeypatch):
    monkeypatch.delattr(memory.os, "sysconf", raising=False)
    assert memory.machine_memory() == memory.UNKNOWN
    with pytest.raises(ValueError, match="fit into this machine's memory"):
        nz.init(nz.BertConfig(hidden_size=2**30, num_attention_heads=1))


# -------------------------------------------------------------------------------------------------- deep and long JSON


@pytest.mark.parametrize(
    "text", [nested(101), nested(900), nested(200_000), "[" * 100_000, '{"vocab_size": ' + "9" * 5000 + "}"]
)
def test_json_that_is_deep_or_long_is_refused_wherever_it_is_read(folders, tmp_path, text):
    folder = copy(folders["nezha"], tmp_path)
    (folder / "config.json").write_text(text, encoding="utf-8")
    with at_once(), pytest.raises(ValueError, match=r"config\.json"):
        nz.load(folder)

    tokenizer = pytest.importorskip("tokenizers") and tmp_path / "tokenizer"
    shutil.copytree(SHIPPED, tokenizer)
    (tokenizer / "tokenizer_config.json").write_text(text, encoding="utf-8")
    with at_once(), pytest.raises(ValueError, match=r"tokenizer_config\.json"):
        nz.load_tokenizer(tokenizer)
    (tokenizer / "tokenizer.json").write_text(text, encoding="utf-8")
    (tokenizer / "tokenizer_config.json").unlink()
    with at_once(), pytest.raises(ValueError, match=r"tokenizer\.json"):
        nz.load_tokenizer(tokenizer)

    index = tmp_path / "shards" / "model.safetensors.index.json"
    index.parent.mkdir()
    index.write_text(text, encoding="utf-8")
    with at_once(), pytest.raises(ValueError, match=r"model\.safetensors\.index\.json"):
        nz.load(index.parent)

    bundle = tmp_path / "bundle.safetensors"
    write_tensors(bundle, {"trace/x": np.zeros(1)}, {KEY: text})
    with at_once(), pytest.raises(ValueError, match=r"bundle\.safetensors"):
        nz.oracle.load(bundle)


def test_a_configuration_of_as_many_levels_as_are_read_can_be_written_again(folders, tmp_path):
    folder = copy(folders["nezha"], tmp_path)
    lie(folder, extra_of_mine=json.loads(nested(98)))
    weights = nz.load(folder)
    weights.save(tmp_path / "again")
    assert nz.load(tmp_path / "again").config == weights.config


# -------------------------------------------------------------------------------------------------------------- others


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": HUGE}, "num_hidden_layers: expected a number from 1 to 10000"),
        ({"num_hidden_layers": 9999}, "expected the tensors of 9999 layers, as num_hidden_layers says, got those of 1"),
        ({"vocab_size": 2**31 - 1}, "expected the shapes of the configuration"),
        ({"max_relative_position": HUGE}, "max_relative_position: expected a number from 1 to 65536"),
    ],
)
def test_sizes_in_a_bundle_are_held_against_what_it_holds(tmp_path, changes, message):
    config = nz.NezhaConfig(**(SMALL | {"num_hidden_layers": 1}))
    path = tmp_path / "bundle.safetensors"
    nz.oracle.record(nz.init(config, dtype="float64"), [[2, 3]], tolerances=None).save(path)
    document = json.loads(read_metadata(path)[KEY])
    del document["crc32"], document["document_crc32"]  # as in a file that another program wrote
    document["config"] |= changes
    tensors = {name: np.array(array) for name, array in map_tensors(path, read_header(path)).items()}
    write_tensors(path, tensors, {KEY: json.dumps(document)})
    with at_once(), pytest.raises(ValueError, match=message):
        nz.oracle.load(path).weights()


def test_ids_of_a_vocabulary_that_lie_are_not_written_as_lines():
    with at_once(), pytest.raises(ValueError, match=r"at most 1,000,000 ids without a token.* id 4,000,000,000 of 'b'"):
        vocabulary_lines({"a": 0, "b": 4_000_000_000})


def test_the_number_in_an_index_of_shards_is_no_size_that_anything_is_made_of(folders, tmp_path):
    folder = copy(folders["bert"], tmp_path)
    (folder / "model.safetensors").rename(folder / "shard.safetensors")
    header = read_header(folder / "shard.safetensors")
    index = {"metadata": {"total_size": HUGE}, "weight_map": dict.fromkeys(header, "shard.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert len(nz.load(folder)) == len(nz.load(folders["bert"]))
