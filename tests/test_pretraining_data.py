"""The data of pre-training: laws of masking, of pairs, and of the batches of a corpus."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.randomness import uniform
from nezha_np.training.corpus import Corpus, make_corpus, read_corpus
from nezha_np.training.data import SpecialIds, make_batch, order_of, passages, special_ids
from nezha_np.training.masking import mask_words
from nezha_np.training.pairs import draw_pair

SPECIAL = SpecialIds(pad=0, cls=1, sep=2, mask=3)
FIRST_ID = 4  # of the tokens that are not special
keys = st.tuples(st.integers(0, 1000))


@st.composite
def sequences(draw):
    """Tokens and their words, special tokens between them."""
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=40))
    words = [number for number, length in enumerate(lengths) for _ in range(length)]
    at = draw(st.integers(0, len(words)))
    words = [-1, *words[:at], -1, *words[at:], -1]
    return np.arange(FIRST_ID, FIRST_ID + len(words)), np.array(words)


@given(sequence=sequences(), key=keys, rate=st.sampled_from([0.01, 0.15, 0.5, 1.0]), most=st.integers(6, 20))
def test_words_are_masked_whole_within_the_rate_and_no_special_token_is(sequence, key, rate, most):
    ids, words = sequence
    masked, labels = mask_words(ids, words, mask_id=3, replacements=range(500, 600), key=key, rate=rate, most=most)
    chosen = labels != -100
    limit = min(most, max(1, round(ids.size * rate)))
    assert not chosen[words < 0].any()
    for word in range(words.max() + 1):
        assert len(set(chosen[words == word])) == 1  # all of a word, or none
    shortest = min(Counter(words[words >= 0].tolist()).values())
    assert 1 <= chosen.sum() <= max(limit, shortest)
    np.testing.assert_array_equal(labels[chosen], ids[chosen])
    np.testing.assert_array_equal(masked[~chosen], ids[~chosen])
    kept = masked[chosen] == ids[chosen]
    assert np.all(kept | (masked[chosen] == 3) | (masked[chosen] >= 500))
    again = mask_words(ids, words, mask_id=3, replacements=range(500, 600), key=key, rate=rate, most=most)
    np.testing.assert_array_equal(again, (masked, labels))


def test_of_the_labelled_tokens_80_percent_are_masked_10_replaced_and_10_kept():
    kinds = Counter()
    ids, words = np.arange(4, 104), np.arange(100)
    for number in range(400):
        masked, labels = mask_words(ids, words, mask_id=3, replacements=range(500, 600), key=(number,))
        chosen = labels != -100
        assert chosen.sum() == 15
        kinds["masked"] += int((masked[chosen] == 3).sum())
        kinds["replaced"] += int((masked[chosen] >= 500).sum())
        kinds["kept"] += int((masked[chosen] == ids[chosen]).sum())
    assert kinds.total() == 6000
    # Four standard deviations of 6,000 draws.
    assert abs(kinds["masked"] / 6000 - 0.8) < 0.021
    assert abs(kinds["replaced"] / 6000 - 0.1) < 0.016
    assert abs(kinds["kept"] / 6000 - 0.1) < 0.016


def test_at_most_20_tokens_of_a_sequence_are_masked_and_none_where_none_may_be():
    _, labels = mask_words(np.arange(200), np.arange(200), mask_id=3, replacements=[7], key=(0,))
    assert (labels != -100).sum() == 20
    for length, count in ((3, 1), (10, 2), (12, 2), (37, 6), (100, 15)):  # 15 %, rounded
        _, labels = mask_words(np.arange(length), np.arange(length), mask_id=3, replacements=[7], key=(0,))
        assert (labels != -100).sum() == count
    ids, labels = mask_words([1, 2], [-1, -1], mask_id=3, replacements=[7], key=(0,))
    assert ids.tolist() == [1, 2] and set(labels.tolist()) == {-100}
    _, labels = mask_words(np.arange(30), np.zeros(30, int), mask_id=3, replacements=[7], key=(0,))
    assert set(labels.tolist()) == {-100}  # one word, longer than 20


@st.composite
def layouts(draw):
    """Starts of sentences and documents, a passage of one document, and room."""
    documents = draw(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=2, max_size=4))
    starts = np.cumsum([0, *(length for document in documents for length in document)])
    bounds = np.cumsum([0, *map(len, documents)])
    own = draw(st.integers(0, len(documents) - 1))
    first = draw(st.integers(bounds[own], bounds[own + 1] - 1))
    after = draw(st.integers(first + 1, bounds[own + 1]))
    return starts, bounds, own, (first, after), draw(st.integers(2, 30))


@given(layout=layouts(), key=keys)
def test_a_pair_fits_b_follows_a_or_is_of_another_document(layout, key):
    starts, bounds, own, passage, room = layout
    pair = draw_pair(starts, bounds, passage, room=room, key=key)
    (a, a_stop), (b, b_stop) = pair.first, pair.second
    assert a < a_stop and b < b_stop and pair.tokens <= room
    inside = (starts[passage[0]], starts[passage[1]])
    assert inside[0] <= a and a_stop <= inside[1]
    if pair.label == 0:
        assert a_stop <= b and b_stop <= inside[1]
        assert passage[1] - passage[0] > 1
    else:
        document = (starts[bounds[own]], starts[bounds[own + 1]])
        assert b >= document[1] or b_stop <= document[0]
        assert any(starts[bounds[d]] <= b and b_stop <= starts[bounds[d + 1]] for d in range(len(bounds) - 1))
    assert draw_pair(starts, bounds, passage, room=room, key=key) == pair


def test_half_of_the_pairs_are_random_and_one_in_ten_is_short():
    starts, bounds = np.arange(0, 1001, 5), np.array([0, 100, 150, 200])
    pairs = [draw_pair(starts, bounds, (20, 40), room=60, key=(number,)) for number in range(4000)]
    randoms = sum(pair.label for pair in pairs) / len(pairs)
    assert abs(randoms - 0.5) < 0.032  # four standard deviations
    # A pair that is not made short is full, unless its random B stands at the end of a document.
    following = [pair for pair in pairs if not pair.label]
    short = sum(pair.tokens < 55 for pair in following) / len(following)
    assert abs(short - 0.1 * 53 / 59) < 0.026
    assert all(pair.second[0] >= 500 for pair in pairs if pair.label)


@given(layout=layouts(), key=keys)
def test_a_pair_of_a_passage_has_the_room_filled_and_drops_no_sentence_that_is_needed_for_it(layout, key):
    starts, bounds, _, _, room = layout
    corpus = Corpus(np.zeros(starts[-1], np.int32), np.ones(starts[-1], np.uint8), starts, bounds, 9)
    for first, after in passages(corpus, room + 3).tolist() if room > 2 else []:
        pair = draw_pair(starts, bounds, (first, after), room=room, key=(*key, first))
        # The second draw is the length of a short pair, the first whether the pair is one.
        if uniform(6, *key, first, "pair")[0] >= 0.1 and pair.label == 0:
            assert pair.tokens == min(room, starts[after] - starts[first])


def test_where_a_sentence_is_longer_than_the_room_a_and_a_random_b_have_half_each():
    starts, bounds = np.arange(0, 2001, 200), np.array([0, 3, 6, 10])
    for number in range(50):
        pair = draw_pair(starts, bounds, (1, 2), room=125, key=(number,))
        lengths = [stop - start for start, stop in (pair.first, pair.second)]
        assert pair.label == 1 and abs(lengths[0] - lengths[1]) <= 1


def test_the_longer_text_of_a_pair_is_cut_token_by_token_at_both_ends():
    starts, bounds = np.array([0, 40, 50, 60]), np.array([0, 2, 3])
    for number in range(20):  # where both are equal, the second is cut, as the authors do
        pair = draw_pair(starts, bounds, (0, 2), room=17, key=(number,))
        if pair.tokens == 17:
            assert pair.first[1] - pair.first[0] == 9 and pair.second[1] - pair.second[0] == 8
    fronts = []
    for number in range(200):
        pair = draw_pair(starts, bounds, (0, 2), room=18, key=(number,))
        if pair.tokens == 18 and pair.label == 0:
            assert pair.first[1] - pair.first[0] == 9 and pair.second[1] - pair.second[0] == 9
            fronts.append(pair.first[0])
    assert 14 < np.mean(fronts) < 17 and len(set(fronts)) > 5  # 31 tokens are lost, at the front half of them


def some_corpus(seed=0, documents=7, vocab_size=60):
    generator = np.random.default_rng(seed)
    lengths = [generator.integers(1, 12, size=generator.integers(1, 9)) for _ in range(documents)]
    sentences = np.cumsum([0, *np.concatenate(lengths)])
    tokens = generator.integers(FIRST_ID, vocab_size, size=sentences[-1]).astype(np.int32)
    begins = (generator.random(sentences[-1]) < 0.6).astype(np.uint8)
    return Corpus(tokens, begins, sentences, np.cumsum([0, *map(len, lengths)]), vocab_size)


@given(seed=st.integers(0, 50), max_length=st.integers(5, 40))
def test_passages_are_all_sentences_once_and_in_order(seed, max_length):
    corpus = some_corpus(seed)
    cut = passages(corpus, max_length)
    assert cut[0, 0] == 0 and cut[-1, 1] == corpus.sentences.size - 1
    np.testing.assert_array_equal(cut[1:, 0], cut[:-1, 1])
    assert set(corpus.documents[1:].tolist()) <= set(cut[:, 1].tolist())  # none crosses the end of a document
    lengths = corpus.sentences[cut[:, 1] - 1] - corpus.sentences[cut[:, 0]]
    assert np.all(lengths < max_length - 3)  # without its last sentence no passage is full


@given(count=st.integers(1, 50), window=st.integers(1, 60), epoch=st.integers(0, 3))
def test_an_epoch_has_every_passage_once_and_another_order_each_time(count, window, epoch):
    order = order_of(epoch, count, seed=1, window=window)
    assert sorted(order.tolist()) == list(range(count))
    if count > 20 and window > 5:
        assert order.tolist() != order_of(epoch + 1, count, seed=1, window=window).tolist()


@given(seed=st.integers(0, 20), step=st.integers(0, 30), whole_words=st.booleans())
@settings(deadline=None)
def test_a_batch_is_made_of_pairs_with_special_tokens_padding_and_labels(seed, step, whole_words):
    corpus = some_corpus(seed, documents=12)
    batch = make_batch(corpus, step, SPECIAL, batch_size=4, max_length=24, seed=seed, whole_words=whole_words)
    for row in range(4):
        ids, labels = batch["input_ids"][row], batch["labels"][row]
        length = int(batch["attention_mask"][row].sum())
        original = np.where(labels != -100, labels, ids)
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (24 - length)
        assert original[0] == SPECIAL.cls and original[length - 1] == SPECIAL.sep
        assert np.all(ids[length:] == SPECIAL.pad) and np.all(labels[length:] == -100)
        assert (original == SPECIAL.sep).sum() == 2 and not np.isin(labels, [0, 1, 2, 3]).any()
        (first, _) = np.flatnonzero(original == SPECIAL.sep)
        assert batch["token_type_ids"][row].tolist() == [0] * (first + 1) + [1] * (length - first - 1) + [0] * (
            24 - length
        )
        assert 1 <= (labels != -100).sum() <= 20
    again = make_batch(corpus, step, SPECIAL, batch_size=4, max_length=24, seed=seed, whole_words=whole_words)
    assert all(np.array_equal(again[name], array) for name, array in batch.items())


@pytest.mark.parametrize("whole_words", [False, True])
def test_the_words_of_both_texts_are_masked_whole_or_token_by_token(whole_words):
    """Each sentence is one word of four tokens."""
    starts = np.arange(0, 401, 4)
    corpus = Corpus(np.arange(4, 404), (np.arange(400) % 4 == 0).astype(int), starts, np.arange(0, 101, 10), 404)
    torn = np.zeros(2, int)
    for step in range(10):
        batch = make_batch(corpus, step, SPECIAL, batch_size=2, max_length=43, rate=0.3, whole_words=whole_words)
        for labels, types in zip(batch["labels"], batch["token_type_ids"], strict=True):
            for kind in (0, 1):
                masked = Counter((labels[(types == kind) & (labels != -100)] // 4).tolist())
                torn[kind] += sum(count < 4 for count in masked.values())
    assert np.all(torn == 0) if whole_words else np.all(torn > 0)


def test_masks_are_drawn_anew_in_each_epoch():
    corpus = some_corpus(documents=30)
    steps = len(passages(corpus, 24)) // 4
    seen = {}
    for step in range(2 * steps):
        batch = make_batch(corpus, step, SPECIAL, batch_size=4, max_length=24)
        for row in range(4):
            original = np.where(batch["labels"][row] != -100, batch["labels"][row], batch["input_ids"][row])
            seen.setdefault(original.tobytes(), set()).add(batch["labels"][row].tobytes())
    assert max(len(masks) for masks in seen.values()) > 1


def test_the_same_batch_on_every_machine():
    batch = make_batch(some_corpus(), 3, SPECIAL, batch_size=3, max_length=20, seed=5)
    content = b"".join(array.astype("<i8").tobytes() for array in batch.values())
    assert hashlib.sha256(content).hexdigest()[:16] == "26d9bb1995f56080"


TEXT = "研究生命起源。\n房间很干净。\n\n\n总理会见外宾 play\n"


def segmenter(text):
    """Two characters a word; Latin letters one by one, so that pieces stand where a word does not begin."""
    return [text[at : at + 2] for at in range(0, len(text), 2)]


def test_a_corpus_has_the_tokens_the_words_the_sentences_and_the_documents(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    tokenizer = nz.load_tokenizer()
    corpus = make_corpus([tmp_path / "a.txt"], tmp_path / "corpus", tokenizer, segmenter=segmenter)
    sentences = ["研究生命起源。", "房间很干净。", "总理会见外宾 play"]
    expected = [tokenizer.encode(text, add_special_tokens=False) for text in sentences]
    assert corpus.tokens.tolist() == [token for encoding in expected for token in encoding.ids]
    assert np.diff(corpus.sentences).tolist() == [len(encoding.ids) for encoding in expected]
    assert corpus.documents.tolist() == [0, 2, 3]
    assert corpus.begins_word[:7].tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert read_corpus(tmp_path / "corpus").begins_word.tolist() == corpus.begins_word.tolist()


def test_json_lines_make_the_same_corpus_a_document_a_line(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    documents = ["研究生命起源。\n\n房间很干净。", {"text": "总理会见外宾 play"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents), encoding="utf-8")
    plain = make_corpus([tmp_path / "a.txt"], tmp_path / "plain", nz.load_tokenizer())
    lines = make_corpus([tmp_path / "a.jsonl"], tmp_path / "lines", nz.load_tokenizer())
    assert plain.tokens.tolist() == lines.tokens.tolist() and plain.documents.tolist() == lines.documents.tolist()


def test_bad_data_is_named_by_its_line_and_an_old_corpus_stays(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    make_corpus([tmp_path / "a.txt"], tmp_path / "corpus", nz.load_tokenizer())
    before = {file.name: file.read_bytes() for file in (tmp_path / "corpus").iterdir()}
    (tmp_path / "b.txt").write_bytes("好。\n".encode() + b"\xff\xfe\n")
    with pytest.raises(ValueError, match=r"b\.txt, line 2"):
        make_corpus([tmp_path / "b.txt"], tmp_path / "corpus", nz.load_tokenizer())
    with pytest.raises(
        ValueError, match=r"a\.txt, line 1: expected words that are the text when they are put together"
    ):
        make_corpus([tmp_path / "a.txt"], tmp_path / "corpus", nz.load_tokenizer(), segmenter=lambda text: ["研究"])
    with pytest.raises(FileNotFoundError, match="expected a text file, found none at"):
        make_corpus([tmp_path / "c.txt"], tmp_path / "corpus", nz.load_tokenizer())
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected one sentence at least, found none"):
        make_corpus([tmp_path / "empty.txt"], tmp_path / "corpus", nz.load_tokenizer())
    assert {file.name: file.read_bytes() for file in (tmp_path / "corpus").iterdir()} == before


def test_a_batch_of_the_shipped_tokenizer_runs_through_the_model(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT * 3, encoding="utf-8")
    tokenizer = nz.load_tokenizer()
    corpus = make_corpus([tmp_path / "a.txt"], tmp_path / "corpus", tokenizer)
    batch = make_batch(corpus, 0, special_ids(tokenizer), batch_size=2, max_length=16)
    assert np.isfinite(nz.pretraining(nz.load(), **batch).loss)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mask_words([1, 2], [0], mask_id=3, replacements=[5], key=(0,)), r"words: expected .* shape \(2,\)"),
        (
            lambda: mask_words([1], [0], mask_id=3, replacements=[5], key=(0,), rate=0.0),
            "rate: expected a number above",
        ),
        (lambda: draw_pair([0, 3], [0, 1], (0, 1), room=9, key=(0,)), "documents: expected two at least"),
        (
            lambda: draw_pair([0, 3, 4], [0, 1, 2], (0, 1), room=1, key=(0,)),
            "room: expected two tokens at least, got 1",
        ),
        (lambda: passages(some_corpus(), 4), "max_length: expected a number from 5 on, got 4"),
        (
            lambda: make_batch(some_corpus(), 0, SPECIAL, batch_size=999, max_length=9),
            "batch_size: expected at most [0-9]+, the passages of the corpus, got 999",
        ),
    ],
)
def test_a_wrong_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
