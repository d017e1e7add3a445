"""Folders of tokenizers: whichever files are there, texts get the ids of transformers' AutoTokenizer."""

from __future__ import annotations

import json
import random

import pytest
from tokenizers import AddedToken, Tokenizer

from nezha_np.families.bert import BertConfig
from nezha_np.text.decode import decode
from nezha_np.text.encode import encode
from nezha_np.text.tokenizer import load_tokenizer, save_vocabulary
from nezha_np.text.tokenizer_class import BERT_CLASSES, CLASS_OF_MODEL
from nezha_np.text.windows import window_size

VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("hi", "##i", "e", "<", ">", "ok", "OK", "École", "École".lower(), "ecole", "房间", "房", "间", "!"),
    *("'", "isn", "t", "it", "<m>", "x"),
]
TEXT = "<e> hi<F>OK École [MASK]房间! <m>"
TEXTS = [TEXT, "a<E>b <m>e", "[mask] hi <f><e>hi", "isn't it!", "  <e>  hi <bos> ok", "<x>房间<e>间", "hi hi"]
SPECIAL = {"special": True, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
BERT = {"tokenizer_class": "BertTokenizer"}
# The ids of TEXT after the defaults: "<e>" in three tokens, "<f>" in three, of which "f" is unknown, "ok", "ecole".
PLAIN = [2, 8, 7, 9, 5, 8, 1, 9, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3]


def token(content, **flags):
    """A token as special_tokens_map.json holds it."""
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False} | flags


def saved(content, **flags):
    """A token as older tokenizer_config.json files hold it."""
    return {"__type": "AddedToken"} | token(content, **flags)


def write(folder, files):
    for place in (folder, folder / "base"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "vocab.txt").write_text("".join(f"{line}\n" for line in VOCABULARY), encoding="utf-8", newline="")
    for name, content in files.items():
        if content is None:
            (folder / name).unlink()
        elif name == "tokenizer.json":
            content(folder / name)
        else:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def tokenizer_json(*added, **settings):
    """What writes a tokenizer.json with these settings and these added tokens."""

    def save(file):
        tokenizer = load_tokenizer(file.parent / "base", **settings)
        for content, flags in added:
            flags = dict(flags)
            add = tokenizer.add_special_tokens if flags.pop("special", False) else tokenizer.add_tokens
            add([AddedToken(content, **flags)])
        tokenizer.save(str(file))

    return save


CONFIG, MAP, ADDED, JSON = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"
FOLDERS = {
    "no further file": {CONFIG: BERT},
    "added_tokens.json": {CONFIG: BERT, ADDED: {"<e>": 26, "<f>": 25}},
    "added_tokens.json with ids that leave a gap": {CONFIG: BERT, ADDED: {"<e>": 40, "<f>": 30}},
    "a token of added_tokens.json that the vocabulary has": {CONFIG: BERT, ADDED: {"<m>": 23}},
    "special tokens of special_tokens_map.json": {CONFIG: BERT, MAP: {"additional_special_tokens": ["<e>"]}},
    "special tokens with flags": {CONFIG: BERT, MAP: {"additional_special_tokens": [token("<e>", rstrip=True), "<m>"]}},
    "special tokens in both files": {
        CONFIG: BERT | {"additional_special_tokens": ["<e>"]},
        MAP: {"additional_special_tokens": [token("<F>"), "<e>"]},
    },
    "another mask token of special_tokens_map.json": {
        CONFIG: BERT | {"mask_token": "[MASK]"},
        MAP: {"mask_token": "<m>"},
    },
    "a mask token with flags": {CONFIG: BERT, MAP: {"mask_token": token("[MASK]", lstrip=True, rstrip=True)}},
    "added tokens that are special": {
        CONFIG: BERT | {"additional_special_tokens": ["<F>"]},
        MAP: {"bos_token": "<e>"},
        ADDED: {"<F>": 25, "<e>": 26},
    },
    "an added token that an object names": {
        CONFIG: BERT | {"additional_special_tokens": [saved("<f>", normalized=True)]},
        ADDED: {"<f>": 25},
    },
    "added_tokens_decoder, which the other files do not change": {
        CONFIG: BERT | {"added_tokens_decoder": {"25": token("<F>", **SPECIAL), "4": token("[MASK]", special=True)}},
        MAP: {"mask_token": "<m>"},
        ADDED: {"<e>": 25},
    },
    "bos_token and eos_token": {CONFIG: BERT | {"eos_token": "<F>", "bos_token": "<e>"}},
    "no mask token": {CONFIG: BERT | {"mask_token": None}},
    "tokenizer.json": {CONFIG: BERT, JSON: tokenizer_json()},
    "tokenizer.json, alone": {"vocab.txt": None, CONFIG: BERT, JSON: tokenizer_json(("<e>", {}))},
    "tokenizer.json against do_lower_case": {CONFIG: BERT | {"do_lower_case": False}, JSON: tokenizer_json()},
    "tokenizer.json against the default of do_lower_case": {CONFIG: BERT, JSON: tokenizer_json(do_lower_case=False)},
    "tokenizer.json against strip_accents": {CONFIG: BERT | {"strip_accents": False}, JSON: tokenizer_json()},
    "tokenizer.json against tokenize_chinese_chars": {
        CONFIG: BERT | {"tokenize_chinese_chars": False},
        JSON: tokenizer_json(),
    },
    "tokenizer.json with settings of which no file says another": {
        CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True},
        JSON: tokenizer_json(do_lower_case=False),
    },
    "tokenizer.json and added_tokens.json": {
        CONFIG: BERT,
        ADDED: {"<e>": 25, "<f>": 26},
        JSON: tokenizer_json(("<e>", {"special": True})),
    },
    "tokenizer.json and special_tokens_map.json": {
        CONFIG: BERT,
        MAP: {"additional_special_tokens": ["<e>"], "mask_token": token("[MASK]", lstrip=True)},
        JSON: tokenizer_json(("<F>", {"normalized": False})),
    },
    "tokenizer.json against added_tokens_decoder": {
        CONFIG: BERT | {"added_tokens_decoder": {"25": token("<e>", **SPECIAL | {"rstrip": True})}},
        JSON: tokenizer_json(("<e>", {"lstrip": True})),
    },
    "the class in config.json": {
        "config.json": {"model_type": "nezha", "tokenizer_class": "ConvBertTokenizer"},
        JSON: tokenizer_json(do_lower_case=False),
    },
    "the class of the model": {"config.json": {"model_type": "nezha"}, JSON: tokenizer_json(do_lower_case=False)},
}
# Those of the reference, where they are others than PLAIN.
IDS = {
    "added_tokens.json": [2, 26, 5, 25, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "added_tokens.json with ids that leave a gap": [2, 26, 5, 25, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "a token of added_tokens.json that the vocabulary has": [2, 8, 7, 9, 5, 8, 1, 9, 10, 14, 4, 16, 17, 18, 23, 3],
    "special tokens of special_tokens_map.json": [2, 25, 5, 8, 1, 9, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "special tokens with flags": [2, 25, 5, 8, 1, 9, 10, 14, 4, 16, 17, 18, 23, 3],
    "special tokens in both files": [2, 25, 5, 26, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "another mask token of special_tokens_map.json": [2, 8, 7, 9, 5, 8, 1, 9, 10, 14, 1, 1, 1, 16, 17, 18, 23, 3],
    "added tokens that are special": [2, 26, 5, 25, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "an added token that an object names": [2, 8, 7, 9, 5, 25, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "added_tokens_decoder, which the other files do not change": [2, 8, 7, 9, 5, 25, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "bos_token and eos_token": [2, 25, 5, 26, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "no mask token": [2, 8, 7, 9, 5, 8, 1, 9, 10, 14, 1, 1, 1, 16, 17, 18, 8, 1, 9, 3],
    "tokenizer.json, alone": [2, 25, 5, 8, 1, 9, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "tokenizer.json against do_lower_case": [2, 8, 7, 9, 5, 8, 1, 9, 11, 12, 4, 16, 17, 18, 8, 1, 9, 3],
    "tokenizer.json against strip_accents": [2, 8, 7, 9, 5, 8, 1, 9, 10, 13, 4, 16, 17, 18, 8, 1, 9, 3],
    "tokenizer.json against tokenize_chinese_chars": [2, 8, 7, 9, 5, 8, 1, 9, 10, 14, 4, 15, 18, 8, 1, 9, 3],
    "tokenizer.json with settings of which no file says another": [
        2,
        8,
        7,
        9,
        5,
        8,
        1,
        9,
        11,
        12,
        4,
        16,
        17,
        18,
        8,
        1,
        9,
        3,
    ],
    "tokenizer.json and added_tokens.json": [2, 25, 5, 26, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "tokenizer.json and special_tokens_map.json": [2, 26, 5, 25, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
    "tokenizer.json against added_tokens_decoder": [2, 25, 5, 8, 1, 9, 10, 14, 4, 16, 17, 18, 8, 1, 9, 3],
}


@pytest.fixture(scope="module")
def auto():
    try:
        from transformers import AutoTokenizer, logging
    except ImportError:
        pytest.skip("transformers 4.37.2 pins tokenizers below 0.19")
    logging.set_verbosity_error()
    return AutoTokenizer


def assert_as_reference(ours, reference):
    backend = json.loads(reference.backend_tokenizer.to_str())
    state = json.loads(ours.to_str())
    for part in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model"):
        assert state[part] == backend[part], part
    for text in TEXTS:
        ids = reference(text)["input_ids"]
        assert encode(ours, [text])["input_ids"][0].tolist() == ids, text
        for skip in (False, True):
            for clean in (None, False, True):
                options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
                assert decode(ours, ids, **options) == reference.decode(ids, **options)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_gives_the_reference_s_tokenizer(tmp_path, auto, name):
    folder = write(tmp_path, FOLDERS[name])
    assert_as_reference(load_tokenizer(folder), auto.from_pretrained(folder))


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_gives_the_recorded_ids(tmp_path, name):
    tokenizer = load_tokenizer(write(tmp_path, FOLDERS[name]))
    assert encode(tokenizer, [TEXT])["input_ids"][0].tolist() == IDS.get(name, PLAIN)


@pytest.mark.parametrize("suffix", ["", "Fast"])
@pytest.mark.parametrize("name", BERT_CLASSES)
def test_these_classes_are_one_in_the_reference(tmp_path, auto, name, suffix):
    folder = write(tmp_path, {CONFIG: {"tokenizer_class": name + suffix}, ADDED: {"<e>": 25}})
    assert_as_reference(load_tokenizer(folder), auto.from_pretrained(folder))


@pytest.mark.parametrize(("model", "name"), [pair for pair in CLASS_OF_MODEL.items() if pair[1] in BERT_CLASSES])
def test_these_models_have_bert_s_tokenizer_in_the_reference(tmp_path, auto, model, name):
    folder = write(tmp_path, {"config.json": {"model_type": model}})
    assert type(auto.from_pretrained(folder)).__name__ == f"{name}Fast"
    assert load_tokenizer(folder).encode(TEXT).ids == PLAIN


@pytest.mark.parametrize(("model", "name"), [pair for pair in CLASS_OF_MODEL.items() if pair[1] not in BERT_CLASSES])
def test_these_models_have_another_tokenizer(tmp_path, model, name):
    models = pytest.importorskip("transformers.models.auto.tokenization_auto")
    assert models.TOKENIZER_MAPPING_NAMES[model][0] == name
    with pytest.raises(
        ValueError, match=rf"expected a tokenizer like BertTokenizer .* got {name}, which .*config\.json names"
    ):
        load_tokenizer(write(tmp_path, {"config.json": {"model_type": model}}))


@pytest.mark.parametrize(
    "name", ["BertJapaneseTokenizer", "XLMRobertaTokenizerFast", "RoCBertTokenizer", "T5Tokenizer"]
)
@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("with_json", [False, True], ids=["vocab.txt", "tokenizer.json"])
def test_another_class_is_refused_by_its_name(tmp_path, name, file, with_json):
    files = {JSON: tokenizer_json()} if with_json else {}
    with pytest.raises(
        ValueError, match=rf"^path: .* got {name}, which .*{file} names; it makes other tokens"
    ) as error:
        load_tokenizer(write(tmp_path, files | {file: {"tokenizer_class": name}}))
    assert "write BertTokenizer there" in str(error.value)


def test_a_class_without_a_vocabulary_needs_a_tokenizer_json(tmp_path):
    folder = write(tmp_path, {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}})
    with pytest.raises(ValueError, match=r"PreTrainedTokenizerFast, which .* names; it needs a tokenizer\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize("files", [{}, {JSON: tokenizer_json()}], ids=["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("extra", [["<e>", "<F>"], {"first": "<e>", "second": "<F>"}], ids=["list", "dict"])
def test_the_special_tokens_of_transformers_5_are_those_of_its_older_name(tmp_path, auto, files, extra):
    reference = auto.from_pretrained(
        write(tmp_path / "older", files | {CONFIG: BERT | {"additional_special_tokens": ["<e>", "<F>"]}})
    )
    ours = load_tokenizer(write(tmp_path / "newer", files | {CONFIG: BERT | {"extra_special_tokens": extra}}))
    assert_as_reference(ours, reference)
    assert ours.encode(TEXT).ids[:4] == [2, 25, 5, 26]


# Cleaning up spaces


@pytest.mark.parametrize("files", [{}, {JSON: tokenizer_json()}], ids=["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("clean", [None, True, False])
def test_the_config_says_whether_spaces_are_cleaned_up(tmp_path, auto, files, clean):
    config = BERT if clean is None else BERT | {"clean_up_tokenization_spaces": clean}
    folder = write(tmp_path, files | {CONFIG: config})
    ours = load_tokenizer(folder)
    assert_as_reference(ours, auto.from_pretrained(folder))
    ids = ours.encode("isn't it!").ids[1:-1]
    assert decode(ours, ids) == ("isn ' t it!" if clean is False else "isn't it!")
    copy = Tokenizer.from_str(ours.to_str())
    assert decode(copy, ids) == decode(ours, ids)
    save_vocabulary(ours, tmp_path / "saved")
    assert decode(load_tokenizer(tmp_path / "saved"), ids) == decode(ours, ids)
    assert auto.from_pretrained(tmp_path / "saved").decode(ids) == decode(ours, ids)


# Sides

SIDES = [
    {"padding_side": "left"},
    {"truncation_side": "left"},
    {"padding_side": "left", "truncation_side": "left"},
    {"padding_side": "right", "truncation_side": "right"},
]


def padded_and_cut(file):
    """Write a tokenizer.json that pads and cuts on the left, which its file of settings may deny."""
    tokenizer = load_tokenizer(file.parent / "base")
    tokenizer.enable_padding(direction="left")
    tokenizer.enable_truncation(4, direction="left")
    tokenizer.save(str(file))


@pytest.mark.parametrize("files", [{}, {JSON: tokenizer_json()}, {JSON: padded_and_cut}], ids=["vocab", "json", "left"])
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_the_config_says_on_which_sides_texts_are_padded_and_cut(tmp_path, auto, files, sides):
    folder = write(tmp_path, files | {CONFIG: BERT | sides})
    ours, reference = load_tokenizer(folder), auto.from_pretrained(folder)
    pairs = TEXTS[1:] + TEXTS[:1]
    for options in ({}, {"max_length": 9, "truncation": True}):
        for second in (None, pairs):
            expected = reference(TEXTS, second, padding=True, return_tensors="np", **options)
            found = encode(ours, TEXTS, second, **options)
            for name, array in expected.items():
                assert found[name].tolist() == array.tolist(), name
    both = {"padding_side": "right", "truncation_side": "right", "max_length": 9}
    plain = load_tokenizer(write(tmp_path / "plain", {CONFIG: BERT}))
    assert encode(ours, TEXTS, **both)["input_ids"].tolist() == encode(plain, TEXTS, **both)["input_ids"].tolist()
    save_vocabulary(ours, tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert (again.padding, again.truncation) == (ours.padding, ours.truncation)


def test_a_side_without_a_length_cuts_nothing(tmp_path):
    tokenizer = load_tokenizer(write(tmp_path, {CONFIG: BERT | {"truncation_side": "left"}}))
    assert encode(tokenizer, "房" * 3000)["input_ids"].shape == (1, 3002)
    assert encode(tokenizer, ["房" * 30, "间"], pad_to_multiple_of=5)["input_ids"].shape == (2, 35)
    assert window_size(None, tokenizer, BertConfig()) == 512


# What is refused


def without(*tokens):
    """What writes a tokenizer.json whose vocabulary lacks these tokens."""

    def save(file):
        tokenizer_json()(file)
        state = json.loads(file.read_text(encoding="utf-8"))
        for token in tokens:
            del state["model"]["vocab"][token]
        state["added_tokens"] = [entry for entry in state["added_tokens"] if entry["content"] not in tokens]
        file.write_text(json.dumps(state), encoding="utf-8")

    return save


@pytest.mark.parametrize(
    ("files", "file", "missing"),
    [
        ({CONFIG: BERT | {"unk_token": "<unk>"}}, "vocab.txt", "<unk>"),
        ({CONFIG: BERT, MAP: {"unk_token": "<unk>"}}, "vocab.txt", "<unk>"),
        ({CONFIG: BERT, MAP: {"unk_token": "<unk>"}, ADDED: {"<unk>": 25}}, "vocab.txt", "<unk>"),
        ({CONFIG: BERT | {"unk_token": "<u>", "added_tokens_decoder": {"25": {"content": "<u>"}}}}, "vocab.txt", "<u>"),
        ({CONFIG: BERT, MAP: {"mask_token": "<mask>", "cls_token": "<s>"}}, "vocab.txt", "<s>, <mask>"),
        ({CONFIG: BERT, JSON: without("[MASK]")}, "tokenizer.json", r"\[MASK\]"),
        ({CONFIG: BERT, MAP: {"pad_token": "<pad>"}, JSON: tokenizer_json()}, "tokenizer.json", "<pad>"),
        (
            {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}, JSON: without("[UNK]")},
            "tokenizer.json",
            r"\[UNK\]",
        ),
        ({JSON: without("[UNK]")}, "tokenizer.json", r"\[UNK\]"),
        ({CONFIG: {"mask_token": "<mask>"}, JSON: tokenizer_json()}, "tokenizer.json", "<mask>"),
    ],
)
def test_special_tokens_that_the_vocabulary_lacks_are_named(tmp_path, files, file, missing):
    with pytest.raises(ValueError, match=f"^path: expected .*{file} to hold the special tokens, it lacks {missing}$"):
        load_tokenizer(write(tmp_path, files))


def test_a_missing_mask_token_may_be_an_added_one(tmp_path, auto):
    folder = write(tmp_path, {CONFIG: BERT | {"mask_token": "<mask>"}, ADDED: {"<mask>": 25}})
    ours = load_tokenizer(folder)
    assert_as_reference(ours, auto.from_pretrained(folder))
    assert ours.encode("<mask>").ids == [2, 25, 3]


@pytest.mark.parametrize("name", ["spiece.model", "sentencepiece.bpe.model", "vocab.json"])
def test_a_folder_of_another_tokenizer_is_named_by_its_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=rf"^path: .*, found {name}, of another tokenizer than BERT's$"):
        load_tokenizer(tmp_path)
    (tmp_path / CONFIG).write_text('{"tokenizer_class": "AlbertTokenizer"}', encoding="utf-8")
    with pytest.raises(ValueError, match="got AlbertTokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["\u200b", "\0", "\u0301"], ids=ascii)
@pytest.mark.parametrize("with_json", [False, True], ids=["vocab.txt", "tokenizer.json"])
def test_an_added_token_of_which_nothing_is_left_is_refused(tmp_path, content, with_json):
    files = {JSON: tokenizer_json()} if with_json else {}
    with pytest.raises(
        ValueError, match=r"^path: expected added tokens for .*\.(txt|json) of which normalising leaves"
    ):
        load_tokenizer(write(tmp_path, files | {CONFIG: BERT, ADDED: {content: 25}}))
    kept = {"additional_special_tokens": [content]}  # a special token is looked for in the text as it is
    assert load_tokenizer(write(tmp_path, files | {CONFIG: BERT | kept})).encode(f"房{content}").ids == [2, 16, 25, 3]


def test_an_id_far_beyond_the_vocabulary_is_refused(tmp_path):
    def save(file):
        tokenizer_json()(file)
        state = json.loads(file.read_text(encoding="utf-8"))
        state["model"]["vocab"]["x"] = 4_000_000_000
        file.write_text(json.dumps(state), encoding="utf-8")

    message = r"^path: expected ids from 0 to 24 for the 25 tokens of .*tokenizer\.json, got 4000000000$"
    with pytest.raises(ValueError, match=message):
        load_tokenizer(write(tmp_path, {CONFIG: BERT, JSON: save}))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (ADDED, ["<e>"], "expected a JSON object in .*added_tokens.json, got list"),
        (ADDED, {"<e>": "25"}, "expected the id of '<e>' in .*added_tokens.json, got '25'"),
        (ADDED, {"<e>": True}, "expected the id of '<e>' in .*added_tokens.json, got True"),
        (ADDED, {"<e>": -1}, "expected the id of '<e>' in .*added_tokens.json, got -1"),
        (ADDED, {"": 25}, "expected a token for a key in added_tokens.json, got ''"),
        (MAP, "<e>", "expected a JSON object in .*special_tokens_map.json, got str"),
        (MAP, {"mask_token": 4}, "expected a token for mask_token in special_tokens_map.json, got 4"),
        (MAP, {"mask_token": token("\ud800")}, "mask_token in special_tokens_map.json: expected valid Unicode"),
        (MAP, {"additional_special_tokens": "<e>"}, "a list for additional_special_tokens in special_tokens_map.json"),
        (MAP, {"additional_special_tokens": [{}]}, "a token for additional_special_tokens in special_tokens_map.json"),
        (
            CONFIG,
            {"extra_special_tokens": "<e>"},
            "a list for extra_special_tokens in tokenizer_config.json, got '<e>'",
        ),
        (CONFIG, {"added_tokens_decoder": {"x": {"content": "<e>"}}}, "ids as the keys of added_tokens_decoder .*'x'"),
        (CONFIG, {"added_tokens_decoder": {"25": "<e>"}}, "expected objects in added_tokens_decoder .* got '<e>'"),
        (
            CONFIG,
            {"additional_special_tokens": 3},
            "list for additional_special_tokens in tokenizer_config.json, got 3",
        ),
        (CONFIG, {"unk_token": None}, "expected a name for unk_token with .*vocab.txt, got null"),
        (CONFIG, {"tokenizer_class": 3}, "expected str for tokenizer_class in tokenizer_config.json, got 3"),
        (CONFIG, {"padding_side": "top"}, "'right' or 'left' for padding_side in tokenizer_config.json, got 'top'"),
        (CONFIG, {"truncation_side": 1}, "expected str for truncation_side in tokenizer_config.json, got 1"),
        (CONFIG, {"clean_up_tokenization_spaces": "no"}, "bool for clean_up_tokenization_spaces .* got 'no'"),
        ("config.json", {"tokenizer_class": 3}, "expected str for tokenizer_class in config.json, got 3"),
        ("config.json", [], "expected a JSON object in .*config.json, got list"),
    ],
    ids=str,
)
def test_a_malformed_file_is_named(tmp_path, file, content, message):
    with pytest.raises(ValueError, match=f"^path: .*{message}"):
        load_tokenizer(write(tmp_path, {file: content}))


# Drawn folders

NAMES = ["<e>", "<f>", "<F>", "<E>", "<m>", "<n>", "hi", "房间", "<bos>"]


def drawn_folder(draw):
    """The files of a folder: settings, special and added tokens with random flags in some of the files."""

    def one(name, kind):
        flags = {flag: draw.random() < 0.3 for flag in ("lstrip", "rstrip", "single_word", "normalized")}
        flags |= {"special": draw.random() < 0.5} if kind == "added" else {}
        return (saved if kind == "saved" else token)(name, **flags)

    def some(kind):
        # Without <m>, a token that has a setting too: if the list of special_tokens_map.json ended with one, the
        # reference would take the last token of added_tokens.json for it (it uses a variable of another loop).
        return [draw.choice([name, one(name, kind)]) for name in draw.sample([*NAMES[:4], *NAMES[5:8]], 2)]

    def maybe(chance, value):
        return {} if draw.random() > chance else value()

    named = [f"{name}_token" for name in ("unk", "sep", "pad", "cls", "mask")]
    config = {"tokenizer_class": draw.choice(["BertTokenizer", "ConvBertTokenizerFast", "ElectraTokenizer"])}
    for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        config |= maybe(0.4, lambda key=key: {key: draw.random() < 0.5})
    config |= maybe(0.4, lambda: {"additional_special_tokens": some("saved")})
    config |= maybe(0.3, lambda: {"mask_token": draw.choice(["[MASK]", "<m>", one("<m>", "saved"), None])})
    config |= maybe(0.2, lambda: {"bos_token": draw.choice(["<bos>", one("<bos>", "saved")])})
    decoder = {str(25 + place): one(name, "added") for place, name in enumerate(draw.sample(NAMES, 3))}
    files = {CONFIG: config | maybe(0.4, lambda: {"added_tokens_decoder": decoder})}
    ordinary = {key: f"[{key[:3].upper()}]" for key in named[:4]} | {"mask_token": draw.choice(["[MASK]", "<m>"])}
    chosen = {key: draw.choice([name, one(name, "map")]) for key, name in ordinary.items() if draw.random() < 0.6}
    chosen |= maybe(0.5, lambda: {"additional_special_tokens": some("map")}) | maybe(
        0.2, lambda: {"eos_token": "<eos>"}
    )
    files |= maybe(0.6, lambda: {MAP: chosen})
    files |= maybe(0.6, lambda: {ADDED: dict(zip(draw.sample(NAMES, 3), (26, 25, 30), strict=True))})
    stored = [(name, {"lstrip": draw.random() < 0.5, "special": draw.random() < 0.5}) for name in draw.sample(NAMES, 2)]
    return files | maybe(0.5, lambda: {JSON: tokenizer_json(*stored, do_lower_case=draw.random() < 0.5)})


@pytest.mark.parametrize(
    "seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(8, 60))]
)
def test_a_drawn_folder_gives_the_reference_s_tokenizer(tmp_path, auto, seed):
    folder = write(tmp_path, drawn_folder(random.Random(seed)))
    assert_as_reference(load_tokenizer(folder), auto.from_pretrained(folder))
