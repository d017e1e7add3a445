"""Ids to text: `decode` and `batch_decode` give what transformers' BertTokenizerFast gives."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples
from tokenizers import Tokenizer

import nezha_np as nz
from nezha_np.text.decode import keep_spaces
from nezha_np.weights.checkpoint import SHIPPED

OPTIONS = [
    {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
    for skip, clean in product((False, True), (None, False, True))
]
WORDS = [
    "it",
    "'",
    "s",
    "t",
    "m",
    "ve",
    "re",
    "n't",
    "isn",
    ".",
    "?",
    "!",
    ",",
    "good",
    "房",
    "间",
    "，",
    "##s",
    "[MASK]",
]


@pytest.fixture(scope="module")
def tokenizer():
    return nz.load_tokenizer()


@pytest.fixture(scope="module")
def reference():
    try:
        from transformers import BertTokenizerFast
    except ImportError:
        pytest.skip("transformers 4.37.2 pins tokenizers below 0.19")
    return BertTokenizerFast.from_pretrained(SHIPPED)


@examples(150)
@given(words=st.lists(st.sampled_from(WORDS), max_size=12))
def test_a_text_is_that_of_the_reference(tokenizer, reference, words):
    ids = [id for word in words for id in tokenizer.encode(word, add_special_tokens=False).ids]
    for options in OPTIONS:
        assert nz.decode(tokenizer, ids, **options) == reference.decode(ids, **options)


@examples(100)
@given(ids=st.lists(st.integers(0, 7100), max_size=12))
def test_any_ids_give_the_reference_s_text(tokenizer, reference, ids):
    for options in OPTIONS:
        assert nz.decode(tokenizer, ids, **options) == reference.decode(ids, **options)


def test_spaces_are_cleaned_up(tokenizer):
    ids = nz.encode(tokenizer, ["it isn't, he's, I'm, we've, they're: \"ok\" ! ?"])["input_ids"][0]
    cleaned = "[CLS] it isn't, he's, i'm, we've, they're : \" ok \"!? [SEP]"
    spaced = cleaned.replace("'", " ' ")
    assert nz.decode(tokenizer, ids) == cleaned
    assert nz.decode(tokenizer, ids, clean_up_tokenization_spaces=False) == spaced
    assert nz.decode(tokenizer, ids, skip_special_tokens=True) == cleaned[6:-6]


def test_a_batch_gives_a_text_for_each_row(tokenizer, reference):
    batch = nz.encode(tokenizer, ["好 , it's", "房间很[MASK]净。", ""])
    for options in OPTIONS:
        texts = nz.batch_decode(tokenizer, batch["input_ids"], **options)
        assert texts == reference.batch_decode(batch["input_ids"], **options)
    assert nz.batch_decode(tokenizer, batch["input_ids"], skip_special_tokens=True) == [
        "好, it's",
        "房 间 很 净 。",
        "",
    ]


def test_ids_come_in_any_form(tokenizer):
    row = tokenizer.encode("你好").ids
    forms = [row, tuple(row), np.array(row), np.array(row, dtype=np.uint16), np.array(row, dtype=np.int32)]
    for form in [*forms, [np.int64(index) for index in row]]:
        assert nz.decode(tokenizer, form) == "[CLS] 你 好 [SEP]"
    for form in (row[1], np.int64(row[1]), np.array(row[1])):
        assert nz.decode(tokenizer, form) == "你"
    assert nz.decode(tokenizer, []) == nz.decode(tokenizer, np.array([])) == ""
    assert nz.batch_decode(tokenizer, [row, row[1:2]]) == ["[CLS] 你 好 [SEP]", "你"]
    assert nz.batch_decode(tokenizer, ()) == []


def test_ids_of_another_array_library_are_decoded(tokenizer):
    torch = pytest.importorskip("torch")
    ids = torch.tensor([tokenizer.encode("你好").ids])
    assert nz.batch_decode(tokenizer, ids) == ["[CLS] 你 好 [SEP]"]
    assert nz.decode(tokenizer, ids[0]) == "[CLS] 你 好 [SEP]"


def test_the_decoder_stays_what_it_is_when_spaces_are_kept(tokenizer, reference):
    copy = Tokenizer.from_str(tokenizer.to_str())
    keep_spaces(copy)
    keep_spaces(copy)
    ids = copy.encode("isn't it ! 房间 unbelievable").ids
    assert copy.decode(ids) == tokenizer.decode(ids)
    assert nz.decode(copy, ids) == reference.decode(ids, clean_up_tokenization_spaces=False)
    assert nz.decode(copy, ids, clean_up_tokenization_spaces=True) == reference.decode(ids)
    copy = Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()) | {"decoder": None}))
    keep_spaces(copy)
    assert nz.decode(copy, ids) == " ".join(copy.encode("isn't it ! 房间 unbelievable").tokens)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[2, 3]],), ValueError, r"^ids: expected one row, of shape \(L,\), got shape \(1, 2\); batch_decode"),
        (([[2], [2, 3]],), ValueError, "^ids: expected rows of one length"),
        (([2, -100],), ValueError, "^ids: expected ids from 0 to 4294967295, got -100 at place 1"),
        (([2**32],), ValueError, "^ids: expected ids from 0 to 4294967295, got 4294967296 at place 0"),
        (([2.0],), TypeError, "^ids: expected integers, got float64"),
        (([True],), TypeError, "^ids: expected integers, got bool"),
        (("房",), TypeError, "^ids: expected integers, got str"),
        ((None,), TypeError, "^ids: expected integers, got NoneType"),
        (([2], {"skip_special_tokens": 1}), TypeError, "^skip_special_tokens: expected a bool, got int"),
        (([2], {"skip_special_tokens": None}), TypeError, "^skip_special_tokens: expected a bool, got NoneType"),
        (
            ([2], {"clean_up_tokenization_spaces": 0}),
            TypeError,
            "clean_up_tokenization_spaces: expected a bool or None",
        ),
    ],
    ids=str,
)
def test_bad_arguments_are_named(tokenizer, arguments, error, message):
    ids, options = (*arguments, {})[:2]
    with pytest.raises(error, match=message):
        nz.decode(tokenizer, ids, **options)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (np.array([2, 3]), ValueError, r"^rows: expected ids of shape \(B, L\), got shape \(2,\)"),
        (np.zeros((2, 2)), TypeError, "^rows: expected integers, got float64"),
        ("房", TypeError, "^rows: expected integers, got str"),
        ([[2], [-1]], ValueError, r"^rows\[1\]: expected ids from 0 to 4294967295, got -1 at place 0"),
        ([[2], "x"], TypeError, r"^rows\[1\]: expected integers, got str"),
    ],
    ids=str,
)
def test_bad_rows_are_named(tokenizer, rows, error, message):
    with pytest.raises(error, match=message):
        nz.batch_decode(tokenizer, rows)


def test_another_kind_of_tokenizer_is_refused():
    with pytest.raises(TypeError, match=r"^tokenizer: expected a tokenizers\.Tokenizer, got str"):
        nz.decode("vocab.txt", [2])
