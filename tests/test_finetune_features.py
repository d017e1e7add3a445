"""Features and scores of fine-tuning: those of transformers' examples, and what outputs say, written out by hand."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nezha_np as nz
from nezha_np.text.sorted_batches import TOGETHER
from nezha_np.training.features import TASKS, Feature, Settings, stack
from nezha_np.training.finetune import ShuffledBatches, predict
from nezha_np.training.metrics import entities
from nezha_np.weights.checkpoint import SHIPPED

TOKENIZER = nz.load_tokenizer()
texts = st.text("房间很干净早餐也playing 12，。", min_size=1, max_size=40).filter(str.strip)


@pytest.fixture(scope="module")
def reference():
    transformers = pytest.importorskip("transformers", reason="it is the reference")
    return transformers.BertTokenizerFast.from_pretrained(SHIPPED)


def assert_equal(feature, expected):
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        if name in feature.arrays:
            np.testing.assert_array_equal(feature.arrays[name], expected[name], err_msg=name)


@given(one=texts, other=texts, length=st.integers(8, 40))
def test_pairs_are_those_of_run_glue(reference, one, other, length):
    examples = [{"text": one, "text_pair": other, "label": "b"}]
    (feature,) = TASKS["pairs"].features(examples, Settings(TOKENIZER, length, ("a", "b")))
    assert_equal(feature, reference(one, other, max_length=length, truncation=True))
    assert feature.arrays["labels"] == 1


@given(words=st.lists(st.text("房间早playing1", min_size=1, max_size=5), min_size=1, max_size=12))
def test_tags_are_those_of_run_ner(reference, words):
    tags = ["O" if number % 2 else "B-A" for number in range(len(words))]
    (feature,) = TASKS["tag"].features([{"tokens": words, "labels": tags}], Settings(TOKENIZER, 99, ("O", "B-A")))
    expected = reference(words, is_split_into_words=True)
    assert_equal(feature, expected)
    numbers = expected.word_ids()
    first = [word is not None and word != before for word, before in zip(numbers, [None, *numbers], strict=False)]
    labels = [int(word % 2 == 0) if new else -100 for word, new in zip(numbers, first, strict=True)]
    assert feature.arrays["labels"].tolist() == labels


@given(question=texts, context=st.text("房间很干净早餐也playing12，。", min_size=3, max_size=90), data=st.data())
def test_windows_and_positions_of_answers_are_those_of_run_qa(reference, question, context, data):
    start = data.draw(st.integers(0, len(context) - 2))
    stop = data.draw(st.integers(start + 1, min(len(context), start + 8)))
    example = {"question": question, "context": context, "answer": context[start:stop], "start": start}
    features = TASKS["answer"].features([example], Settings(TOKENIZER, 90, stride=16))
    expected = reference(
        question, context, max_length=90, truncation="only_second", stride=16, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    assert len(features) == len(expected["input_ids"])
    for number, feature in enumerate(features):
        assert_equal(feature, {name: rows[number] for name, rows in expected.items()})
        spans, kinds = expected["offset_mapping"][number], expected.sequence_ids(number)
        inside = [index for index, kind in enumerate(kinds) if kind == 1]
        first = last = 0
        if spans[inside[0]][0] <= start and spans[inside[-1]][1] >= stop:
            first = max(index for index in inside if spans[index][0] <= start)
            last = min(index for index in inside if spans[index][1] >= stop)
        assert (feature.arrays["start_positions"], feature.arrays["end_positions"]) == (first, last)


@given(context=texts, question=texts, choices=st.lists(texts, min_size=2, max_size=4), length=st.integers(8, 40))
def test_choices_are_pairs_as_in_run_swag(reference, context, question, choices, length):
    example = {"question": question, "context": context, "choices": choices, "label": 1}
    (feature,) = TASKS["choose"].features([example], Settings(TOKENIZER, length))
    pairs = [[context] * len(choices), [question + choice for choice in choices]]
    assert_equal(feature, reference(*pairs, max_length=length, truncation=True, padding=True))
    assert feature.choices == len(choices) and feature.arrays["labels"] == 1


def test_many_texts_are_encoded_as_each_by_itself():
    examples = [{"text": "好" * (1 + number % 7), "label": "x"} for number in range(TOGETHER + 3)]
    features = TASKS["classify"].features(examples, Settings(TOKENIZER, 6, ("x",)))
    assert [feature.example for feature in features] == list(range(TOGETHER + 3))
    assert [feature.length for feature in features] == [min(6, 3 + number % 7) for number in range(TOGETHER + 3)]


def test_the_padding_of_tags_has_no_label():
    examples = [{"tokens": list("好" * length), "labels": ["O"] * length} for length in (1, 3)]
    batch = stack(TASKS["tag"].features(examples, Settings(TOKENIZER, 9, ("O",))), pad_id=0)
    assert batch["labels"].tolist() == [[-100, 0, -100, -100, -100], [-100, 0, 0, 0, -100]]
    assert batch["input_ids"][0, 3:].tolist() == [0, 0] and batch["attention_mask"][0].tolist() == [1, 1, 1, 0, 0]


def test_an_answer_is_a_span_of_the_context_whose_end_is_not_before_its_start_and_not_far_behind_it():
    characters = [(0, 0), (0, 0), *((number, number + 1) for number in range(60)), (0, 0)]
    feature = Feature({}, 0, characters)
    starts, ends = np.zeros((1, 63)), np.zeros((1, 63))
    starts[0, [0, 1]] = ends[0, [0, 62]] = 99.0  # [CLS], the question and [SEP] are no answers
    starts[0, 12], ends[0, 6], ends[0, 14] = 5.0, 4.0, 3.0

    def span():
        out = SimpleNamespace(start_logits=starts, end_logits=ends)
        ((_, found),) = TASKS["answer"].predictions(out, [feature], Settings(TOKENIZER, 63))
        return found

    assert span() == (10, 13)
    ends[0, 14], ends[0, 61] = 0.0, 9.0
    assert span() == (10, 60)  # 50 tokens
    ends[0, 61] = 1.0
    starts[0, 2], ends[0, 60] = 6.0, 9.0  # 59 tokens are too many
    assert span() == (10, 59)


def test_the_score_of_a_span_is_its_probability_in_its_window_so_that_windows_can_be_compared():
    features = [Feature({}, 0, [(0, 0), (0, 1), (1, 2), (0, 0)]), Feature({}, 0, [(0, 0), (2, 3), (0, 0)])]
    starts = np.array([[9.0, 3.0, 1.0, 0.0], [0.0, 2.0, 0.0, 99.0]])  # the second window is padded
    out = SimpleNamespace(start_logits=starts, end_logits=starts)
    predicted = TASKS["answer"].predictions(out, features, Settings(TOKENIZER, 4))
    assert [span for _, span in predicted] == [(0, 1), (2, 3)]
    assert max(predicted)[1] == (2, 3)  # the first has larger logits, and says that the answer is not in it
    assert predicted[1][0] == pytest.approx(2 * (2.0 - np.log(2.0 + np.exp(2.0))))


def test_of_the_windows_of_a_text_the_best_span_counts():
    examples = [
        {"context": "他在北京", "answer": "北京"},
        {"context": "他在上海", "answer": "海", "right": ["海", "上海"]},
    ]
    predicted = {0: [(1.0, (0, 1)), (2.0, (2, 4))], 1: [(5.0, (2, 4)), (4.0, (0, 1))]}
    assert TASKS["answer"].scores(predicted, examples) == {"f1": 1.0, "exact": 1.0}


def test_what_was_cut_from_a_text_counts_as_outside_of_entities():
    scores = TASKS["tag"].scores({0: [["B-A", "O"]]}, [{"labels": ["B-A", "O", "B-A", "O"]}])
    assert scores == {"f1": pytest.approx(2 / 3), "accuracy": 0.75}


@pytest.mark.parametrize(
    "tags", [["B-A", "M-A", "E-A", "S-B", "O"], ["B-A", "I-A", "L-A", "U-B", "O"], ["B-A", "I-A", "E-A", "B-B", "O"]]
)
def test_entities_are_the_same_in_every_scheme(tags):
    assert entities(tags) == [("A", 0, 3), ("B", 3, 4)]


def test_each_epoch_has_every_example_once_in_another_order_and_the_last_batch_may_be_smaller():
    features = [Feature({"input_ids": np.array([2, 5, 3]), "labels": np.array(number)}, number) for number in range(10)]
    batches = ShuffledBatches(features, 4, 0, seed=1)
    assert len(batches) == 3
    epochs = [[batches(step)[0]["labels"].tolist() for step in range(first, first + 3)] for first in (0, 3)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [4, 4, 2] and sorted(itertools.chain(*epoch)) == list(range(10))
    assert epochs[0] != epochs[1]
    assert batches(1)[0]["labels"].tolist() == epochs[0][1]  # by the number of the step alone


def test_a_long_file_that_is_sorted_by_class_is_shuffled_as_a_whole():
    classes = [Feature({"input_ids": np.array([2, 3]), "labels": np.array(label)}, 0) for label in (0, 1)]
    batches = ShuffledBatches([classes[0]] * 66_000 + [classes[1]] * 4_000, 1000, 0, seed=0)
    for step in (*range(5), *range(65, 70)):
        assert 20 < sum(int(part["labels"].sum()) for part in batches(step)) < 100


def test_predictions_are_those_of_each_example_by_itself_whatever_their_lengths():
    with pytest.warns(nz.HeadWarning, match="drawn with seed 5"):
        weights = nz.load(None, head="token_classification", id2label=["O", "A", "B"], seed=5)
    examples = [{"tokens": list("房间很干净" * size), "labels": ["O"] * 5 * size} for size in (1, 9, 2, 1, 8)]
    what, settings = TASKS["tag"], Settings(TOKENIZER, 64, ("O", "A", "B"))
    features = what.features(examples, settings)
    together = predict(weights, what, features, settings, 0)
    for number, example in enumerate(examples):
        alone = predict(weights, what, what.features([example], settings), settings, 0)
        assert together[number] == alone[0] and len(alone[0][0]) == len(example["tokens"])


def test_batches_have_about_one_length_and_every_example_once():
    lengths = np.random.default_rng(0).integers(3, 90, 1000).tolist()
    features = [
        Feature({"input_ids": np.full(length, 5), "labels": np.array(0)}, n) for n, length in enumerate(lengths)
    ]
    batches = ShuffledBatches(features, 8, 0, seed=0)
    parts = [part for step in range(125, 250) for part in batches(step)]
    tokens = sum(part["input_ids"].size for part in parts)
    assert tokens < 1.1 * sum(lengths) and len(parts) < 1.2 * len(batches)
    found = sorted(length for part in parts for length in (part["input_ids"] != 0).sum(axis=1).tolist())
    assert found == sorted(lengths)
    first = [batches(step)[0]["input_ids"].shape[1] for step in range(125)]
    assert first != sorted(first) and np.std(first[:60]) > 10  # long and short ones take turns
