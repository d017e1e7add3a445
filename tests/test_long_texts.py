"""Long texts are tokenised piece by piece, no further than their cut: the ids are those of the whole text."""

from __future__ import annotations

import _thread
import functools
import signal
import threading
import time
import tracemalloc

import numpy as np
import pytest
from cpu_seconds import within
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

import nezha_np as nz
from nezha_np.text import encode as encoding
from nezha_np.text import long_texts, rows
from nezha_np.text.long_texts import find_boundaries

ADDED = {  # none is in the vocabulary
    "plain": AddedToken("nqw", normalized=True),
    "with a space": AddedToken("z q", normalized=False),
    "with a space, normalised": AddedToken("z q", normalized=True),
    "with a space that is normalised": AddedToken("z\u3000q", normalized=True),
    "ending in a space": AddedToken("zq ", normalized=True),
    "with an accent": AddedToken("Éé", normalized=True),
    "of Chinese": AddedToken("房间", normalized=True),
    "of Chinese, as it stands": AddedToken("房间", normalized=False),
    "a single word": AddedToken("zq", single_word=True),
    "a single word, as it stands": AddedToken("zq", single_word=True, normalized=False),
    "stripping": AddedToken("<e>", lstrip=True, rstrip=True),
    "of punctuation": AddedToken("-,-", normalized=False),
    "of one character": AddedToken("，", normalized=False),
}
SETTINGS = {
    "shipped": {},
    "cased": {"do_lower_case": False},
    "accents": {"strip_accents": False},
    "Chinese is not split": {"tokenize_chinese_chars": False},
    "white space alone": {"do_basic_tokenize": False},
    "never split": {"never_split": ["z-q", "房间"]},
}


@functools.cache
def tokenizer(settings="shipped", added=()):
    made = nz.load_tokenizer(**SETTINGS[settings])
    for name in added:
        made.add_tokens([ADDED[name]])
    return made


# What may go wrong where a text is split: marks, spaces of all kinds, parts of added tokens, characters that vanish.
FRAGMENTS = [
    *"zq-,.，。房间好é É\u0301\u0338\u3000\n\t\u00a0\u200b\x00\u2028_<>[]\u0130\u1e9b\u0323\u0344",
    "z q",
    "zq",
    "nqw",
    "NQ\u0301W",
    "<e>",
    "[SEP]",
    "房间",
    "-,-",
    "한국",
    "ﬁ",
    "𠀀",
    "x" * 99,
    "X1" * 130,
]


def check(text, settings, added, piece, max_length):
    tok = tokenizer(settings, added)
    expected, was_cut = encoding.encode_and_cut(tok, [text], max_length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "PIECE", 0)
        patch.setattr(long_texts, "PIECE", piece)
        found, is_cut = encoding.encode_and_cut(tok, [text], max_length)
    for name in expected:
        assert found[name].tolist() == expected[name].tolist()
    assert is_cut.tolist() == was_cut.tolist()


@given(
    text=st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join),
    settings=st.sampled_from(sorted(SETTINGS)),
    added=st.lists(st.sampled_from(sorted(ADDED)), max_size=2, unique=True).map(tuple),
    piece=st.integers(1, 8),
    max_length=st.sampled_from([None, 2, 3, 5, 9, 40]),
)
@examples(2000, quick=300)
def test_the_ids_of_a_long_text_are_those_of_the_whole(text, settings, added, piece, max_length):
    check(text, settings, added, piece, max_length)


@pytest.mark.parametrize("added", ADDED)
def test_no_added_token_is_cut_in_two_wherever_the_text_may_be_split(added):
    text = "z q z\tq z\u3000q éÉ 房间 房 间 zq_ _zq zq房 房zq zq-zq <e>  ok  <e>-,-,-，， nqw NQW né-é-e\u0301- e-"
    for piece in range(1, 12):
        for settings in ("shipped", "cased", "accents", "Chinese is not split"):
            check(text, settings, (added,), piece, None)


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("length", [100, 101, 202, 230, 400])
def test_a_word_that_is_too_long_has_the_same_ids_without_its_middle(added, length):
    run = ("nqw1Nzq" * length)[:length]
    for text in (
        run,
        f"房{run}é",
        f"é-{run}-, {run}_",
        f"Éé{run}Éé",
        f"z {run}房 间",
        f"<e>{run}<e>[SEP]{run}\u0301[MASK]",
    ):
        for settings in ("shipped", "cased", "white space alone"):
            check(text, settings, (added,), 3, None)


def test_a_single_word_of_millions_of_letters_takes_little_time():
    with within(2):
        ids = nz.encode(tokenizer(), "ACGT" * 1_000_000, max_length=16)["input_ids"]
    assert ids.tolist() == [[2, 1, 3]]


def test_where_a_text_may_be_split_depends_on_the_tokenizer():
    def characters(tok):
        found = find_boundaries(tok)
        return None if found is None else {character for character in " \n-，房" if found.match(character)}

    assert characters(tokenizer()) == set(" \n-，房")
    assert characters(tokenizer("Chinese is not split")) == set(" \n-，")
    assert characters(tokenizer("white space alone")) == set(" \n")
    assert characters(tokenizer("shipped", ("a single word",))) == set(" \n")
    assert characters(tokenizer("shipped", ("with a space",))) == set("-，")
    assert characters(tokenizer("shipped", ("of punctuation",))) == set(" \n，房")
    assert characters(tokenizer("never split")) is None
    other = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    assert characters(other) is None
    other.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    assert characters(other) == set(" \n-，")
    other.normalizer = normalizers.NFKC()
    assert characters(other) is None
    assert characters(Tokenizer(models.BPE())) is None


def test_a_tokenizer_without_special_tokens_is_served_too(monkeypatch):
    bare = Tokenizer(models.WordPiece({"[UNK]": 0, "[PAD]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    monkeypatch.setattr(rows, "PIECE", 2)
    monkeypatch.setattr(long_texts, "PIECE", 2)
    assert nz.encode(bare, ["a b a b", "b"], max_length=3)["input_ids"].tolist() == [[2, 3, 2], [3, 1, 1]]
    assert nz.encode(bare, "    a", max_length=3)["input_ids"].tolist() == [[2]]


def test_a_line_of_millions_of_characters_is_cut_in_little_time_and_memory():
    text = "房间很干净，价格 ok, the hotel is fine. " * 80_000  # 3 million characters
    short = nz.encode(tokenizer(), text[:4000], max_length=512)
    tracemalloc.start()
    with within(5):  # tokenising all of it takes 20
        batch = nz.encode(tokenizer(), [text, text], max_length=512)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000  # bytes, without those of the library
    tracemalloc.stop()
    assert np.array_equal(batch["input_ids"], np.repeat(short["input_ids"], 2, axis=0))
    counted = nz.encode(tokenizer(), "好" * 100_000)["input_ids"]
    assert counted.shape == (1, 100_002) and set(counted[0, 1:-1]) == {tokenizer().token_to_id("好")}


@pytest.fixture
def interruptible():
    """Have SIGINT raise KeyboardInterrupt, also where a shell started the tests in its background, and ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_is_answered_while_a_long_text_is_tokenised():
    text = "好" * 3_000_000
    timer = threading.Timer(0.2, _thread.interrupt_main)
    with within(2):
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            nz.encode(tokenizer(), text)  # all of it, which takes several seconds
            time.sleep(10)
    timer.join()
