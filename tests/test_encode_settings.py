"""The settings of `encode`: each does what it does in transformers' fast tokenizer, and so do all of them together."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples
from tokenizers import Tokenizer, processors

import nezha_np as nz
from nezha_np.text.tokenizer import load_tokenizer
from nezha_np.training.features import Settings, answer_features, choice_features, tag_features, text_features

SHIPPED = Path(__file__).parents[1] / "nezha_np" / "checkpoints" / "nezha-tiny-zh"
ARGUMENTS = r"^(stride|truncation|max_length|padding|pad_to_multiple_of): "
EXTRAS = ["offset_mapping", "special_tokens_mask", "word_ids", "sequence_ids"]

FRAGMENTS = [
    "房间",
    "很",
    "unbelievable",
    "[MASK]",
    "[SEP]",
    " ",
    "，",
    "isn't",
    "é",
    "e\u0301",
    "😀",
    "\u3000",
    "\x00",
]
any_text = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4)), max_size=8).map("".join)
any_words = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4)), max_size=8)

any_settings = st.fixed_dictionaries(
    {
        "padding": st.sampled_from([True, "longest", "max_length", True, False, "do_not_pad"]),
        "truncation": st.sampled_from([True, False, "longest_first", "only_first", "only_second", "do_not_truncate"]),
        "max_length": st.one_of(st.integers(2, 24), st.integers(2, 24), st.none()),
        "stride": st.sampled_from([0, 0, 1, 2, 5]),
        "pad_to_multiple_of": st.sampled_from([None, None, 1, 2, 4, 7]),
        "add_special_tokens": st.booleans(),
        "return_overflowing_tokens": st.booleans(),
    }
)
any_side = st.sampled_from(["right", "left"])


@pytest.fixture(scope="module")
def reference():
    transformers = pytest.importorskip("transformers", reason="transformers 4.37.2 pins tokenizers below 0.19")
    return transformers.BertTokenizerFast.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def shipped():
    return load_tokenizer()


def reference_arrays(reference, texts, pairs, settings, truncation_side, padding_side):
    """What the reference returns, or what it raises; an assertion of the library comes as a BaseException."""
    reference.truncation_side, reference.padding_side = truncation_side, padding_side
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where max_length has no effect
            found = reference(
                texts,
                pairs,
                return_tensors="np",
                return_offsets_mapping=True,
                return_special_tokens_mask=True,
                **settings,
            )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return error
    arrays = dict(found)
    if arrays["input_ids"].dtype == object:
        return ValueError("rows of several lengths, which the reference puts into an array of lists")
    for name in ("word_ids", "sequence_ids"):
        rows = [getattr(found, name)(row) for row in range(len(arrays["input_ids"]))]
        arrays[name] = np.array([[-1 if index is None else index for index in row] for row in rows])
    return arrays


def our_arrays(tokenizer, texts, pairs, settings, **more):
    extras = {f"return_{'offsets_mapping' if name == 'offset_mapping' else name}": True for name in EXTRAS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nz.encode(tokenizer, texts, pairs, **settings, **extras, **more)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == np.int64
        assert array.tolist() == expected[name].tolist(), name


@pytest.mark.parametrize("split", [False, True], ids=["texts", "words"])
@pytest.mark.parametrize("paired", [False, True], ids=["alone", "pairs"])
@given(data=st.data(), settings=any_settings, truncation_side=any_side, padding_side=any_side)
@examples(600, quick=60)
def test_all_settings_together_give_the_reference_s_arrays_or_are_refused_as_it_refuses_them(
    reference, shipped, split, paired, data, settings, truncation_side, padding_side
):
    one = any_words if split else any_text
    texts = data.draw(st.lists(one, min_size=1, max_size=3))
    pairs = data.draw(st.lists(one, min_size=len(texts), max_size=len(texts))) if paired else None
    settings = settings | {"is_split_into_words": split}
    expected = reference_arrays(reference, texts, pairs, settings, truncation_side, padding_side)
    try:
        found = our_arrays(shipped, texts, pairs, settings, truncation_side=truncation_side, padding_side=padding_side)
    except ValueError as error:
        assert re.match(ARGUMENTS, str(error)), error
        # These two are refused here alone: the reference then neither cuts nor pads.
        missing = settings["max_length"] is None and "max_length: expected an int" in str(error)
        small = "the special tokens, got" in str(error)
        assert isinstance(expected, BaseException) or missing or small, error
        return
    assert not isinstance(expected, BaseException), expected
    assert_same(found, expected)


@pytest.mark.parametrize("strategy", [True, "longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("truncation_side", ["right", "left"])
def test_every_strategy_cuts_a_pair_as_the_reference_at_every_length_and_stride(
    reference, shipped, strategy, truncation_side
):
    texts, pairs = ["天地玄黄宇宙", "天"], ["日月盈昃辰宿列张", "地日月盈昃辰宿"]
    for max_length in range(4, 20):
        for stride in range(4):
            settings = {
                "padding": True,
                "truncation": strategy,
                "max_length": max_length,
                "stride": stride,
                "return_overflowing_tokens": True,
            }
            expected = reference_arrays(reference, texts, pairs, settings, truncation_side, "right")
            if isinstance(expected, BaseException):
                with pytest.raises(ValueError, match=ARGUMENTS):
                    our_arrays(shipped, texts, pairs, settings, truncation_side=truncation_side)
            else:
                found = our_arrays(shipped, texts, pairs, settings, truncation_side=truncation_side)
                assert_same(found, expected)


def test_windows_of_a_long_text_cover_it_and_share_the_stride(shipped):
    text = "房间很干净，" * 1000  # read in pieces where no offsets are wanted
    settings = {"max_length": 128, "stride": 32, "return_overflowing_tokens": True}
    batch = nz.encode(shipped, ["好", text], **settings)
    whole = nz.encode(shipped, text)["input_ids"][0, 1:-1]
    rows = [row[mask == 1][1:-1] for row, mask in zip(batch["input_ids"][1:], batch["attention_mask"][1:], strict=True)]
    assert batch["overflow_to_sample_mapping"].tolist() == [0] + [1] * len(rows)
    assert np.concatenate([rows[0], *(row[32:] for row in rows[1:])]).tolist() == whole.tolist()
    described = our_arrays(shipped, ["好", text], None, settings)
    for name, array in batch.items():
        assert described[name].tolist() == array.tolist()
    for side, end in (("left", whole[-126:]), ("right", whole[:126])):
        cut = nz.encode(shipped, text, max_length=128, truncation_side=side)["input_ids"][0]
        assert cut[1:-1].tolist() == end.tolist()
    bare = nz.encode(shipped, text, add_special_tokens=False, return_sequence_ids=True)
    assert bare["input_ids"][0].tolist() == whole.tolist()
    assert not bare["sequence_ids"].any()


def test_offsets_are_characters_and_those_of_words_count_within_the_word(shipped):
    text = "房间 😀 ok"
    batch = nz.encode(shipped, text, return_offsets_mapping=True, return_word_ids=True, add_special_tokens=False)
    assert [text[start:stop] for start, stop in batch["offset_mapping"][0]] == ["房", "间", "😀", "ok"]
    assert batch["word_ids"][0].tolist() == [0, 1, 2, 3]
    words = nz.encode(
        shipped,
        [["房间", "😀"], ["好"]],
        is_split_into_words=True,
        return_offsets_mapping=True,
        return_word_ids=True,
        return_special_tokens_mask=True,
        return_sequence_ids=True,
    )
    assert words["word_ids"].tolist() == [[-1, 0, 0, 1, -1], [-1, 0, -1, -1, -1]]
    assert words["offset_mapping"][0, 1:4].tolist() == [[0, 1], [1, 2], [0, 1]]
    assert words["special_tokens_mask"].tolist() == [[1, 0, 0, 0, 1], [1, 0, 1, 1, 1]]
    assert words["sequence_ids"].tolist() == [[-1, 0, 0, 0, -1], [-1, 0, -1, -1, -1]]
    one = nz.encode(shipped, ["房间", "😀"], ["好"], is_split_into_words=True)
    assert one["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1]]


def test_other_post_processors_have_the_library_s_windows():
    tokenizer = load_tokenizer()
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    for post_processor in (processors.BertProcessing(*ends), processors.RobertaProcessing(*ends)):
        tokenizer.post_processor = post_processor
        special = tokenizer.num_special_tokens_to_add(True)
        for max_length in range(special + 4, special + 8):
            copy = Tokenizer.from_str(tokenizer.to_str())
            copy.enable_truncation(max_length, stride=1)
            copy.enable_padding(pad_id=copy.token_to_id("[PAD]"))
            whole = copy.encode("天地玄黄宇宙", "日月盈昃")
            expected = [row.ids for row in (whole, *whole.overflowing)]
            found = nz.encode(
                tokenizer, "天地玄黄宇宙", "日月盈昃", max_length=max_length, stride=1, return_overflowing_tokens=True
            )
            assert found["input_ids"].tolist() == expected


def test_a_batch_that_is_padded_on_the_left_goes_into_generate(shipped):
    weights = nz.load()
    options = {"max_new_tokens": 3, "eos_token_id": [], "config": weights.config.replace(is_decoder=True)}
    texts = ["房间很干净", "好"]
    batch = nz.encode(shipped, texts, padding_side="left")
    together = nz.generate(weights, batch["input_ids"], attention_mask=batch["attention_mask"], **options)
    for row, text in zip(together, texts, strict=True):
        alone = nz.generate(weights, nz.encode(shipped, text)["input_ids"], **options)
        assert row[-3:].tolist() == alone[0, -3:].tolist()


# Tokens, and rows of ids


@given(first=any_text, second=st.none() | any_text.filter(bool), special=st.booleans())
@examples(200, quick=30)
def test_tokens_and_rows_of_ids_are_those_of_the_reference(reference, shipped, first, second, special):
    expected = reference.tokenize(first, second, add_special_tokens=special)
    assert nz.tokenize(shipped, first, second, add_special_tokens=special) == expected
    ids = [reference.encode(text, add_special_tokens=False) for text in (first, second) if text is not None]
    for name in ("build_inputs_with_special_tokens", "create_token_type_ids_from_sequences"):
        found = getattr(nz, name)(shipped, *ids)
        assert found.dtype == np.int64
        assert found.tolist() == getattr(reference, name)(*ids)


def test_tokens_and_rows_of_ids_take_what_encode_takes_and_refuse_the_rest_by_name(shipped):
    assert nz.tokenize(shipped, "房间好") == ["房", "间", "好"]
    assert nz.tokenize(shipped, "房间好", max_length=2, truncation_side="left") == ["间", "好"]
    assert nz.tokenize(shipped, ["房间", "好"], is_split_into_words=True) == ["房", "间", "好"]
    with pytest.raises(TypeError, match=r"^text: expected a str, got list"):
        nz.tokenize(shipped, ["房间"])
    with pytest.raises(TypeError, match=r"^pair: expected a str, got int"):
        nz.tokenize(shipped, "房间", 3)
    set_up = Tokenizer.from_str(shipped.to_str())
    set_up.enable_padding(length=9)
    bare = Tokenizer.from_str(shipped.to_str())
    bare.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    for function in (nz.build_inputs_with_special_tokens, nz.create_token_type_ids_from_sequences):
        assert function(set_up, np.array([5, 6])).tolist() == function(shipped, [5, 6]).tolist()
        assert function(shipped, [], []).shape == (3,)
        with pytest.raises(ValueError, match=r"^token_ids_1: expected shape \(L,\), got \(1, 1\)"):
            function(shipped, [5], [[6]])
        with pytest.raises(TypeError, match=r"^token_ids_0: expected integers, got float64"):
            function(shipped, [0.5])
        with pytest.raises(ValueError, match=r"^tokenizer: expected one that adds \[CLS\] A \[SEP\] B \[SEP\]"):
            function(bare, [5], [6])


# What the tokenizer is set to


def library_arrays(tokenizer, texts, pairs):
    rows = tokenizer.encode_batch(list(zip(texts, pairs, strict=True)))
    keys = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {key: np.array([getattr(row, name) for row in rows]) for key, name in keys.items()}


@given(
    rows=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=3),
    max_length=st.none() | st.integers(8, 16),
    direction=any_side,
    padding=st.none() | st.fixed_dictionaries({"length": st.none() | st.just(24), "direction": any_side}),
    multiple=st.none() | st.just(8),
)
@examples(200, quick=30)
def test_what_a_tokenizer_is_set_to_is_obeyed(shipped, rows, max_length, direction, padding, multiple):
    tokenizer = Tokenizer.from_str(shipped.to_str())
    if max_length is not None:
        tokenizer.enable_truncation(max_length, stride=1, direction=direction)
    tokenizer.enable_padding(pad_id=1, pad_type_id=1, **(padding or {}), pad_to_multiple_of=multiple)
    before = tokenizer.to_str()
    texts, pairs = map(list, zip(*rows, strict=True))
    if max_length is not None and multiple and max_length % multiple:
        with pytest.raises(ValueError, match=r"^pad_to_multiple_of: expected a divisor of max_length"):
            nz.encode(tokenizer, texts, pairs)
        return
    expected = library_arrays(tokenizer, texts, pairs)
    if any(len(row) != len(expected["input_ids"][0]) for row in expected["input_ids"]):
        return
    assert_same(nz.encode(tokenizer, texts, pairs), expected)
    assert tokenizer.to_str() == before


def test_an_argument_of_the_call_goes_before_what_the_tokenizer_is_set_to(shipped):
    tokenizer = Tokenizer.from_str(shipped.to_str())
    tokenizer.enable_truncation(6, stride=1, strategy="only_first", direction="left")
    tokenizer.enable_padding(length=12, direction="left", pad_to_multiple_of=3)
    texts = ["天地玄黄宇宙洪荒", "日月"]
    given_all = {
        "max_length": 5,
        "padding": "longest",
        "pad_to_multiple_of": 1,
        "padding_side": "right",
        "truncation": "longest_first",
        "truncation_side": "right",
        "stride": 0,
        "return_overflowing_tokens": True,
    }
    assert_same(nz.encode(tokenizer, texts, **given_all), nz.encode(shipped, texts, **given_all))
    both = nz.encode(tokenizer, texts)
    expected = nz.encode(
        shipped, texts, max_length=6, truncation_side="left", padding="max_length", padding_side="left"
    )["input_ids"]
    assert both["input_ids"].shape == (2, 12)
    assert both["input_ids"][:, 6:].tolist() == expected.tolist()
    assert nz.encode(tokenizer, texts, truncation=False, padding="longest")["input_ids"].shape == (2, 12)
    assert nz.encode(tokenizer, texts, truncation=False, padding=True, pad_to_multiple_of=4)["input_ids"].shape == (
        2,
        12,
    )


# Refused


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"padding": "long"}, ValueError, "padding: expected a bool, None, 'longest' or 'max_length' or 'do_not_pad'"),
        ({"padding": 1}, TypeError, "padding: expected a bool, None, 'longest'"),
        ({"padding": "max_length"}, ValueError, "max_length: expected an int, because padding is 'max_length'"),
        ({"padding": False}, ValueError, "padding: expected rows of one length, .* got rows of 3 to 5 tokens"),
        ({"padding": "max_length", "max_length": -1, "truncation": False}, ValueError, "max_length: expected a number"),
        (
            {"padding": "max_length", "max_length": 4, "truncation": False},
            ValueError,
            "padding: expected rows of one length, .* got rows of 4 to 5 tokens",
        ),
        ({"padding_side": "top"}, ValueError, "padding_side: expected 'right' or 'left', got 'top'"),
        ({"padding_side": True}, TypeError, "padding_side: expected 'right' or 'left', got bool"),
        ({"pad_to_multiple_of": 0}, ValueError, "pad_to_multiple_of: expected a number from 1 on, got 0"),
        (
            {"pad_to_multiple_of": 4, "max_length": 5},
            ValueError,
            "pad_to_multiple_of: expected a divisor of max_length",
        ),
        ({"truncation": "first"}, ValueError, "truncation: expected a bool, None, 'longest_first' or"),
        ({"truncation": 1}, TypeError, "truncation: expected a bool, None, 'longest_first' or"),
        ({"truncation": True}, ValueError, "max_length: expected an int, because truncation is True, got None"),
        (
            {"truncation": "only_second", "max_length": 4},
            ValueError,
            "truncation: expected a second text that can lose",
        ),
        ({"truncation_side": "end"}, ValueError, "truncation_side: expected 'right' or 'left', got 'end'"),
        ({"stride": -1}, ValueError, "stride: expected a number from 0 on, got -1"),
        ({"stride": 1.5}, TypeError, "stride: expected an integer, got 1.5"),
        ({"stride": 3, "max_length": 4}, ValueError, "stride: expected at most 2, max_length without the special"),
        (
            {"stride": 2, "max_length": 4},
            ValueError,
            r"stride: expected less than 2, the tokens of a window of texts\[0",
        ),
        ({"is_split_into_words": "yes"}, TypeError, "is_split_into_words: expected True, False"),
        ({"is_split_into_words": True, "texts": "房"}, TypeError, "texts: expected a list of words or"),
        (
            {"is_split_into_words": True, "texts": [["房"], 3]},
            TypeError,
            r"texts\[1\]: expected a list of words, got int",
        ),
        ({"is_split_into_words": True, "texts": [["房", 3]]}, TypeError, r"texts\[0\]\[1\]: expected a str, got int"),
        ({"is_split_into_words": True, "texts": ["房", None]}, TypeError, r"texts\[1\]: expected a str, got NoneType"),
        ({"is_split_into_words": True, "texts": []}, ValueError, "texts: expected at least one text"),
        ({"return_word_ids": 3}, TypeError, "return_word_ids: expected True, False"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_refused_by_name(shipped, arguments, error, message):
    with pytest.raises(error, match=f"^{message}"):
        nz.encode(shipped, **({"texts": ["房间净", "好"]} | arguments))


def test_a_max_length_that_has_no_effect_gives_a_warning(shipped):
    with pytest.warns(UserWarning, match="^max_length has no effect"):
        batch = nz.encode(shipped, "房间净", max_length=3, truncation=False)
    assert batch["input_ids"].shape == (1, 5)


def test_what_reads_texts_by_itself_has_the_same_result_whatever_side_a_tokenizer_pads_on(shipped):
    tokenizer = Tokenizer.from_str(shipped.to_str())
    tokenizer.enable_padding(length=24, direction="left", pad_to_multiple_of=8)
    texts, weights = ["房间很干净，", "好"], nz.load()
    assert np.array_equal(nz.embed(texts, weights, tokenizer), nz.embed(texts, weights, shipped))
    assert nz.explain("房间很干净。", weights, tokenizer) == nz.explain("房间很干净。", weights, shipped)
    settings = [Settings(one, 16, ("no", "yes")) for one in (tokenizer, shipped)]
    for features, example in (
        (text_features, {"text": "房间", "label": "no"}),
        (tag_features, {"tokens": ["房", "间"], "labels": ["no", "yes"]}),
        (answer_features, {"question": "房？", "context": "房间很干净", "answer": "干净", "start": 3}),
        (choice_features, {"question": "房？", "context": "间", "choices": ["净", "干净"], "label": 1}),
    ):
        (found,), (expected,) = ([*features([example], one)] for one in settings)
        for name, array in expected.arrays.items():
            assert found.arrays[name].tolist() == array.tolist()
