"""Text to ids as transformers' slow tokenizers have it: BertTokenizer and ConvBertTokenizer.

Ours is equal to the fast ones on any text (test_tokenizer.py). These tests draw texts from the characters that the slow
ones make the same words of; docs/tokenizers.md counts the others and says why.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from count_tokenizer_differences import SETTINGS, difference, every_character, fast_words, slow_words
from hypothesis import assume, given
from hypothesis import strategies as st
from tiers import examples

from nezha_np.text.encode import encode
from nezha_np.text.special_tokens import get_special_tokens_mask
from nezha_np.text.tokenizer import load_tokenizer, save_vocabulary
from nezha_np.text.tokenizer_config import SPECIAL_TOKENS

SHIPPED = Path(__file__).parents[1] / "nezha_np" / "checkpoints" / "nezha-tiny-zh"
GOLDEN = json.loads((Path(__file__).parent / "data" / "tokenizer_golden.json").read_text(encoding="utf-8"))
TEXTS = [record["texts"][0] for record in GOLDEN if len(record["texts"]) == 1 and not record["pairs"]][::3]

drawn = examples(150)
# Texts made of what matters, so that they are found: letters with and without marks, scripts that decompose.
pieces = st.sampled_from(
    [*TEXTS, "[MASK]", "[SEP]", " ", "房", "间", "abc", "É", "##s", "😀", "\u3000", "が", "한국", "Σ"]
)
any_text = st.one_of(st.text(), st.lists(st.one_of(pieces, st.text(max_size=5)), max_size=6).map("".join))


@pytest.fixture(scope="module")
def slow_class():
    try:
        from transformers import BertTokenizer
    except ImportError:
        pytest.skip("transformers 4.37.2 pins tokenizers below 0.19")
    return BertTokenizer


class Both:
    """Our tokenizer and the slow one, and the texts that both are expected to read alike."""

    def __init__(self, slow_class, folder, **options):
        self.ours, self.slow = load_tokenizer(folder, **options), slow_class.from_pretrained(folder, **options)
        self.differs = functools.cache(lambda character: difference(self.slow, self.ours, character))
        lowered = options.get("do_lower_case", True)
        self.composes = not options.get("strip_accents", lowered)

    def common_characters(self, text):
        """Leave out the characters that the two read differently."""
        return "".join(character for character in text if not self.differs(character))

    def common(self, text):
        """Leave out what the two read differently, texts of several characters too."""
        text = self.common_characters(text)
        if self.composes:  # the slow one composes what is left when text is in lower case and clean
            seen = "".join(fast_words(self.ours, text))
            assume(seen == unicodedata.normalize("NFC", seen))
        # The slow one lets a special token arise where it drops a character: [MA\x00SK]
        cleaned = "".join(c for c in text if unicodedata.category(c)[0] != "C" and c != "\ufffd")
        for name in SPECIAL_TOKENS.values():
            assume(cleaned.count(name) == text.count(name))
        return text

    def assert_same(self, texts, pairs=None, max_length=None):
        cut = max_length is not None
        expected = self.slow(texts, pairs, padding=True, truncation=cut, max_length=max_length)
        batch = encode(self.ours, texts, pairs, max_length=max_length)
        for key, array in batch.items():
            np.testing.assert_array_equal(array, expected[key], err_msg=key)


@pytest.fixture(scope="module", params=SETTINGS)
def both(request, slow_class):
    return Both(slow_class, SHIPPED, **SETTINGS[request.param])


@pytest.mark.one_in(3)
@drawn
@given(text=any_text)
def test_a_text_gets_the_slow_tokenizer_s_ids(both, text):
    both.assert_same([both.common(text)])


@pytest.mark.exhaustive
@drawn
@given(rows=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=4))
def test_pairs_are_joined_and_padded_as_the_slow_tokenizer_does(both, rows):
    texts, pairs = zip(*((both.common(first), both.common(second)) for first, second in rows), strict=True)
    both.assert_same(list(texts), list(pairs))
    both.assert_same(list(texts))


@pytest.mark.exhaustive
@drawn
@given(first=any_text, second=any_text, max_length=st.integers(3, 40))
def test_pairs_are_cut_as_the_slow_tokenizer_does_but_for_the_last_token_of_ties(both, first, second, max_length):
    first, second = both.common(first), both.common(second)
    both.assert_same([first], None, max_length)
    lengths = [len(both.slow.tokenize(text)) for text in (first, second)]
    room = max_length - 3
    # Where both are cut to half of an odd room, one token is left over: the slow one gives it to the first text, the
    # fast one to the second unless the first was the longer.
    tie = room % 2 == 1 and room // 2 < lengths[0] <= lengths[1]
    kept = encode(both.ours, [first], [second], max_length=max_length)["token_type_ids"][0].tolist()
    if tie:
        cut = both.slow(first, second, truncation=True, max_length=max_length)["token_type_ids"]
        assert (kept.count(0) + 1, kept.count(1) - 1) == (cut.count(0), cut.count(1))
    else:
        both.assert_same([first], [second], max_length)


def test_special_tokens_have_the_slow_tokenizer_s_mask(both):
    first, second = ([both.ours.token_to_id(character) for character in text] for text in ("房间", "很干净"))
    for ids in ((first,), (first, second), ([], second), ([],)):
        expected = both.slow.get_special_tokens_mask(*ids)
        assert get_special_tokens_mask(both.ours, *ids).tolist() == expected
    for row in encode(both.ours, ["房[MASK]間", "[PAD] 好 [UNK] \U0001f600"], ["很", "干净[SEP]净"])["input_ids"]:
        expected = both.slow.get_special_tokens_mask(row.tolist(), already_has_special_tokens=True)
        assert get_special_tokens_mask(both.ours, row, already_has_special_tokens=True).tolist() == expected
        assert get_special_tokens_mask(both.ours, row.tolist(), None, True).tolist() == expected


def test_convbert_s_tokenizers_are_bert_s(slow_class):
    from transformers import ConvBertTokenizer, ConvBertTokenizerFast

    ours = load_tokenizer()
    fast = ConvBertTokenizerFast.from_pretrained(SHIPPED, do_lower_case=True)
    assert json.loads(fast.backend_tokenizer.to_str()) == json.loads(ours.to_str())
    both = Both(ConvBertTokenizer, SHIPPED)
    texts = [both.common_characters(text) for text in TEXTS]
    both.assert_same(texts)
    both.assert_same(texts, texts[::-1])


# What the slow tokenizers alone have


LETTERS = ["a", "b", "é", "É", "B", "が", "한", "房", "-", "'", ".", "(", "|"]
words = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=4).map("".join)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SETTINGS)
@drawn
@given(data=st.data(), entries=st.lists(words, max_size=3), known=st.lists(words, max_size=4))
def test_never_split_does_what_it_does_in_the_slow_tokenizer(tmp_path_factory, slow_class, name, data, entries, known):
    folder = tmp_path_factory.mktemp("vocabulary")
    known += data.draw(st.lists(st.sampled_from(entries), max_size=3)) if entries else []
    tokens = [*SPECIAL_TOKENS.values(), *LETTERS, *(f"##{letter}" for letter in LETTERS), *known]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in dict.fromkeys(tokens)), encoding="utf-8")
    both = Both(slow_class, folder, never_split=entries, **SETTINGS[name])
    likely = st.sampled_from([*entries, *(entry.upper() for entry in entries), " ", " ", ",", "[MASK]", "\x00"])
    text = data.draw(st.lists(likely | words, max_size=8).map("".join))
    if both.composes:
        text = unicodedata.normalize("NFC", text)
    both.assert_same([text])


@pytest.mark.exhaustive
@drawn
@given(text=any_text)
def test_words_split_beforehand_are_cut_as_the_slow_tokenizer_does(slow_class, text):
    options = {"do_basic_tokenize": False, "never_split": ["房"], "strip_accents": True}
    ours, slow = load_tokenizer(**options), slow_class.from_pretrained(SHIPPED, **options)
    # str.split also splits at four control characters that are no white space in Unicode.
    text = re.sub("[\x1c-\x1f]", "", text)
    assert ours.encode(text).ids == slow(text)["input_ids"]


@pytest.mark.parametrize("options", [{}, {"do_lower_case": False, "never_split": ["ok!", "##ing"]}], ids=str)
def test_a_saved_vocabulary_is_read_by_the_slow_tokenizer(tmp_path, slow_class, options):
    text = (SHIPPED / "vocab.txt").read_text(encoding="utf-8") + "ok!\n##ing\nOk\n"
    (tmp_path / "vocab.txt").write_text(text, encoding="utf-8")
    ours = load_tokenizer(tmp_path, **options)
    save_vocabulary(ours, tmp_path / "saved")
    slow = slow_class.from_pretrained(tmp_path / "saved")
    for text in ("ok! ok!! Ok, 房##ing ##ing", "房[MASK]间"):
        assert slow(text)["input_ids"] == ours.encode(text).ids
    assert slow.mask_token == "[MASK]"
    assert slow.all_special_ids == slow_class.from_pretrained(tmp_path).all_special_ids


# What the documentation says of the differences


@pytest.mark.exhaustive
@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the documented figures are those of Unicode 14")
def test_the_documentation_counts_the_assigned_characters_that_differ(slow_class):
    text = (Path(__file__).parents[1] / "docs" / "tokenizers.md").read_text(encoding="utf-8")
    documented = re.search(r"^\| of these, assigned \| ([\d,]+) \|", text, flags=re.MULTILINE)[1]
    # No private-use character differs: both drop them.
    assigned = (c for c in every_character() if unicodedata.category(c) not in ("Cn", "Co"))
    both = Both(slow_class, SHIPPED)
    counted = sum(difference(both.slow, both.ours, character) is not None for character in assigned)
    assert f"{counted:,}" == documented


@pytest.mark.parametrize(
    ("text", "slow", "fast"),
    [
        ("a\u0378b", ["ab"], ["a\u0378b"]),
        ("a\u0890b", ["ab"], ["a\u0890b"]),
        ("a\u0898b", ["ab"], ["a\u0898b"]),
        ("a\U0002b820b", ["a", "\U0002b820", "b"], ["a\U0002b820b"]),
        ("a\u2e5db", ["a", "\u2e5d", "b"], ["a\u2e5db"]),
        ("a\u166db", ["a\u166db"], ["a", "\u166d", "b"]),
    ],
    ids=ascii,
)
def test_the_slow_tokenizer_s_words_differ_as_documented(slow_class, text, slow, fast):
    both = Both(slow_class, SHIPPED)
    assert slow_words(both.slow, text) == slow
    assert fast_words(both.ours, text) == fast


def test_the_slow_tokenizer_composes_where_accents_are_kept(slow_class):
    both = Both(slow_class, SHIPPED, do_lower_case=False)
    assert slow_words(both.slow, "e\u0301") == ["é"]
    assert fast_words(both.ours, "e\u0301") == ["e\u0301"]


def test_a_special_token_may_arise_in_the_slow_tokenizer_where_a_character_is_dropped(slow_class):
    both = Both(slow_class, SHIPPED, do_lower_case=False)
    assert both.slow.tokenize("房 [MA\x00SK]") == ["房", "[MASK]"]
    assert "[MASK]" not in both.ours.encode("房 [MA\x00SK]").tokens


def test_str_split_knows_four_more_separators(slow_class):
    slow = slow_class.from_pretrained(SHIPPED, do_basic_tokenize=False)
    ours = load_tokenizer(do_basic_tokenize=False)
    assert slow.tokenize("房\x1c房") == ["房", "房"]
    assert ours.encode("房\x1c房").tokens[1:-1] == ["[UNK]"]


def test_words_that_are_never_split_have_no_limit_of_length_in_the_slow_tokenizer(tmp_path, slow_class):
    word = "x" * 101
    text = (SHIPPED / "vocab.txt").read_text(encoding="utf-8") + f"{word}\n"
    (tmp_path / "vocab.txt").write_text(text, encoding="utf-8")
    assert slow_class.from_pretrained(tmp_path, never_split=[word]).tokenize(word) == [word]
    assert load_tokenizer(tmp_path, never_split=[word]).encode(word).tokens[1:-1] == ["[UNK]"]
