"""What hostile files ask for and odd arguments bring: an error of the contract, in one sentence, and no more memory."""

from __future__ import annotations

import base64
import json
import shutil
import struct

import numpy as np
import pytest
from cpu_seconds import within

import nezha_np as nz
from nezha_np.checks import CONTROLS
from nezha_np.cli import main
from nezha_np.oracle.bundle_document import KEY
from nezha_np.weights.checkpoint import SHIPPED
from nezha_np.weights.formats.entry import map_tensors
from nezha_np.weights.formats.safetensors import read_header, read_metadata, write_tensors

CONFIG = nz.BertConfig(
    vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, type_vocab_size=2
)
FORGED = "\x1b[2J\nforged"  # a name that clears the screen and makes a line of its own

# ----------------------------------------------------------------------------------------------------------- arguments


def holds_itself():
    items: list[object] = []
    items.append(items)
    return items


def deep(levels=1100):
    items: list[object] = []
    for _ in range(levels):
        items = [items]
    return items


@pytest.mark.parametrize("argument", ["input_ids", "attention_mask", "token_type_ids", "position_ids", "head_mask"])
@pytest.mark.parametrize("value", [holds_itself(), deep(), range(2**62)], ids=["itself", "deep", "long"])
def test_lists_without_end_and_a_range_larger_than_memory_are_refused_by_name(argument, value):
    with pytest.raises(ValueError, match=f"^{argument}: expected "):
        nz.forward(nz.init(CONFIG), **({"input_ids": [[2, 3]]} | {argument: value}))


def test_a_view_of_memory_with_several_axes_is_a_mask_and_a_masked_array_is_none():
    weights, mask = nz.init(CONFIG), np.array([[1, 0]])
    right = nz.forward(weights, [[2, 3]], attention_mask=mask)
    found = nz.forward(weights, [[2, 3]], attention_mask=memoryview(mask))
    np.testing.assert_array_equal(found.last_hidden_state, right.last_hidden_state)
    with pytest.raises(TypeError, match=r"attention_mask: .*, got numpy.MaskedArray: pass x\.filled\(value\)"):
        nz.forward(weights, [[2, 3]], attention_mask=np.ma.masked_array(mask, [[False, True]]))


@pytest.mark.parametrize("value", [holds_itself(), deep()], ids=["itself", "deep"])
def test_arrays_of_a_port_in_lists_without_end_are_refused_by_name(value):
    bundle = nz.oracle.record(CONFIG, [[2, 3]], tolerances=None)
    with pytest.raises(ValueError, match=r"^embeddings: expected at most 16 levels of tuples"):
        nz.oracle.compare(bundle, {"embeddings": value}, tolerance=1)


def test_masked_arrays_in_lists_and_those_that_are_recorded_or_put_into_a_pass_are_refused():
    weights, ids = nz.init(CONFIG), np.ma.masked_array([2, 3], [False, True])
    with pytest.raises(TypeError, match=r"^input_ids: .*MaskedArray"):
        nz.forward(weights, [ids])
    with pytest.raises(TypeError, match=r"^input_ids: .*MaskedArray"):
        nz.oracle.record(CONFIG, ids[None], tolerances=None)
    probs = np.ma.masked_array(np.ones((1, 2, 2, 2), np.float32))
    with nz.intervene({"encoder.layer.0.attention.self.probs": probs}), pytest.raises(TypeError, match="MaskedArray"):
        nz.forward(weights, [[2, 3]])


# ------------------------------------------------------------------------------------------------------------- bundles


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "b.safetensors"
    nz.oracle.record(CONFIG, [[2, 3]], tolerances=None).save(path)
    return path


def change(path, tensors=None, **changes):
    """Write a bundle again with other tensors and another document, without checksums, as another program may."""
    document = json.loads(read_metadata(path)[KEY])
    del document["crc32"], document["document_crc32"]
    for key, value in changes.items():
        document[key] = document[key] + value if isinstance(value, list) else document[key] | value
    arrays = {name: np.array(array) for name, array in map_tensors(path, read_header(path)).items()}
    write_tensors(path, arrays | (tensors or {}), {KEY: json.dumps(document)})
    return path


def test_an_input_in_a_thousand_levels_is_refused(bundle):
    change(bundle, {"inputs/" + "a." * 1500 + "0": np.zeros(1)})
    with pytest.raises(ValueError, match=r"b\.safetensors: expected inputs by the names of arguments"):
        nz.oracle.load(bundle)


def test_an_input_that_is_no_argument_is_refused_when_the_bundle_is_read(bundle):
    with pytest.raises(ValueError, match=r"b\.safetensors: expected arguments of forward as inputs, got other"):
        nz.oracle.load(change(bundle, {"inputs/other": np.zeros(1)}))


def test_a_model_of_gigabytes_is_not_drawn_because_a_bundle_says_so(bundle):
    changed = nz.oracle.load(change(bundle, config={"vocab_size": 2 * 10**8}))
    with within(1.0), pytest.raises(ValueError, match="weights: expected a model of at most 4,294,967,296 bytes"):
        changed.weights()


@pytest.mark.parametrize("group", ["trace", "outputs"])
def test_an_array_that_no_pass_makes_is_named_by_the_doctor(bundle, tmp_path, capsys, group):
    theirs = shutil.copy(bundle, tmp_path / "theirs.safetensors")
    change(bundle, {f"{group}/{FORGED}": np.ones(3)}, **{group: [FORGED]})
    assert main(["doctor", str(bundle), str(theirs)]) == 2
    error = capsys.readouterr().err
    assert "got others too: " in error and error.count("\n") == 1 and "\x1b" not in error


@pytest.mark.parametrize(
    "changes",
    [
        {"versions": {FORGED: FORGED}},
        {"weights": {"kind": "checkpoint", "name": FORGED, "sha256": "0" * 64}},
        {"config": {f"x{FORGED}": FORGED, "id2label": {"0": FORGED}}},
    ],
    ids=["versions", "weights", "config"],
)
def test_what_a_bundle_says_is_printed_on_lines_that_are_the_commands(bundle, capsys, changes):
    assert main(["golden", "show", str(change(bundle, **changes))]) == 0
    printed = capsys.readouterr().out
    assert "\\x1b[2J\\nforged" in printed and "\x1b" not in printed and "\nforged" not in printed


# ---------------------------------------------------------------------------------------------------------- tokenizers


def put_tokenizer(folder, **parts):
    state = json.loads(nz.load_tokenizer().to_str())
    (folder / "tokenizer.json").write_text(json.dumps(state | parts), encoding="utf-8")
    return folder


def template(token):
    return {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {},
    }


def map_that_claims(size):
    content = base64.b64encode(struct.pack("<I", size) + bytes(16)).decode()
    return {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": content}]}


def added(*contents):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    return [{"id": 7000 + index, "content": one, "normalized": True} | flags for index, one in enumerate(contents)]


WORD_LEVEL = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[X]"}
BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "[X]"}
UNIGRAM = {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": None}
LONG = r"added tokens of .* with 256 characters at most, got 10000"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"post_processor": template("[NOPE]")}, r"under special_tokens, got none for \[NOPE\]"),
        ({"post_processor": template(["[CLS]"])}, r"under special_tokens, got none for \['\[CLS\]'\]"),
        ({"model": WORD_LEVEL, "added_tokens": [], "post_processor": None}, r"it lacks \[X\]"),
        ({"model": BPE, "added_tokens": [], "post_processor": None}, r"it lacks \[X\]"),
        ({"model": UNIGRAM, "added_tokens": [], "post_processor": None}, r"expected an unk_id"),
        ({"normalizer": map_that_claims(2**32 - 4)}, r"precompiled_charsmap of 20 bytes .* claims 4294967292"),
        ({"normalizer": map_that_claims(3)}, r"precompiled_charsmap of 20 bytes .* claims 3"),
        ({"added_tokens": added("长" * 10_000)}, LONG),
        ({"added_tokens": 1.5}, "is not a tokenizer.json"),
        ({"added_tokens": added(*(f"{index:0250}" for index in range(200)))}, r"fewer or shorter added tokens"),
    ],
)
def test_what_the_library_of_tokenizers_would_not_survive_is_refused_before_it(tmp_path, parts, said):
    with within(1.0), pytest.raises(ValueError, match=said) as caught:
        nz.load_tokenizer(put_tokenizer(tmp_path, **parts))
    assert str(caught.value).startswith("path: ") and str(tmp_path / "tokenizer.json") in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_tokens_that_change_between_special_and_not_at_each_step_are_refused(tmp_path, name):
    """4,000 of them took 12 seconds, and 20,000 took minutes."""
    tokens = [one | {"special": index % 2 == 0} for index, one in enumerate(added(*map(str, range(4000))))]
    put_tokenizer(tmp_path, **({"added_tokens": tokens} if name == "tokenizer.json" else {}))
    decoder = {"added_tokens_decoder": {str(one["id"]): one for one in tokens}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(decoder if name == "tokenizer_config.json" else {}))
    with (
        within(1.0),
        pytest.raises(ValueError, match=r"^path: .* special tokens .* in one row, got \d+ "),
    ):
        nz.load_tokenizer(tmp_path)


def test_half_a_character_in_a_word_that_is_never_split_is_refused_with_its_file(tmp_path):
    shutil.copy(SHIPPED / "vocab.txt", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"never_split": ["\\ud800"]}')
    with pytest.raises(ValueError, match=r"^path: never_split in tokenizer_config\.json: expected valid Unicode"):
        nz.load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer_config.json"])
def test_thousands_of_tokens_are_added_at_once(tmp_path, name):
    shutil.copy(SHIPPED / "vocab.txt", tmp_path)
    contents = [f"<{index}>" for index in range(4000)]
    ids = {content: 7000 + index for index, content in enumerate(contents)}
    value = ids if name == "added_tokens.json" else {"additional_special_tokens": contents}
    (tmp_path / name).write_text(json.dumps(value))
    with within(1.0):
        assert nz.load_tokenizer(tmp_path).token_to_id("<3999>") == 10_999


@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_long_token_is_refused_in_whichever_file_it_stands(tmp_path, name):
    shutil.copy(SHIPPED / "vocab.txt", tmp_path)
    key = {"added_tokens.json": "长" * 10_000}.get(name, "mask_token")
    (tmp_path / name).write_text(json.dumps({key: 7000 if name == "added_tokens.json" else "长" * 10_000}))
    with within(1.0), pytest.raises(ValueError, match=LONG):
        nz.load_tokenizer(tmp_path)


# -------------------------------------------------------------------------------------------------------------- output

ODD = f"{FORGED}\x85x\u202ey\x7f"
HEADS = {
    "classify": ("sequence_classification", [ODD, f"{ODD}2"]),
    "tag": ("token_classification", ["O", f"B-{ODD}", f"I-{ODD}"]),
    "answer": ("question_answering", None),
    "choose": ("multiple_choice", None),
}
RECORD = {"text": ODD, "question": ODD, "context": f"好{ODD}好", "choices": [ODD, f"{ODD}2"]}


@pytest.mark.filterwarnings("ignore::nezha_np.HeadWarning")
@pytest.mark.parametrize("form", ["lines", "jsonl"])
@pytest.mark.parametrize("command", HEADS)
def test_no_label_and_no_text_of_a_record_reaches_a_terminal_as_a_control_character(
    tmp_path, capfdbinary, command, form
):
    head, labels = HEADS[command]
    nz.load(head=head, id2label=labels).save(tmp_path)
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, tmp_path)
    (tmp_path / "records.jsonl").write_text(json.dumps(RECORD) + "\n")
    assert main([command, str(tmp_path / "records.jsonl"), "--model", str(tmp_path), "--format", form]) == 0
    printed = capfdbinary.readouterr().out.decode()
    assert CONTROLS.findall(printed.replace("\t", "")) == ["\n"] and "[2J" in printed
    if form == "jsonl":
        assert json.loads(printed).items() >= RECORD.items()


def test_a_filling_is_one_line_whatever_its_token_is(tmp_path, capsys):
    state = json.loads(nz.load_tokenizer().to_str())
    vocabulary = state["model"]["vocab"]
    state["model"]["vocab"] = {token + ODD * (index > 200): index for token, index in vocabulary.items()}
    shutil.copytree(SHIPPED, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(state))
    assert main(["fill-mask", "好[MASK]好", "--model", str(tmp_path / "model"), "--top-k", "3"]) == 0
    assert capsys.readouterr().out.count("\n") == 3


def test_half_a_character_in_a_label_is_refused_by_name_and_one_in_another_key_is_kept(tmp_path):
    with pytest.raises(ValueError, match=r"^id2label: expected whole characters, .* in '\\ud800' \(0\)$"):
        CONFIG.replace(id2label=["\ud800", "b"])
    config = CONFIG.replace(extra={"x": "\ud800"})
    nz.init(config).save(tmp_path / "model")
    assert nz.load(tmp_path / "model").config.extra["x"] == "\ud800"
    nz.oracle.record(config, [[2, 3]], tolerances=None).save(tmp_path / "b.safetensors")
    assert nz.oracle.load(tmp_path / "b.safetensors").config.extra["x"] == "\ud800"


def test_numbers_without_end_in_the_manifest_of_a_job_are_none(tmp_path, capsys):
    content = '{"format": 1, "shards": [], "made_with": {}, "shard_lines": 1e400, "output_format": "npy", "width": 3}'
    (tmp_path / "manifest.json").write_text(content)
    assert main(["join", str(tmp_path), "-o", str(tmp_path / "all.npy")]) == 2
    error = capsys.readouterr().err
    assert "expected the manifest of a job, got something else" in error and error.count("\n") == 1
