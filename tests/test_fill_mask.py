"""`nz.fill_mask`: the fill-mask pipeline of transformers on the same models, for one text and for several."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipelines import FAMILIES, LONG, WORDS, models, pipeline, small_config, tokenizer
from tiers import examples

import nezha_np as nz

gapped = st.tuples(
    st.lists(st.sampled_from([*WORDS, "[MASK]"]), max_size=20), st.lists(st.sampled_from(WORDS), max_size=5)
).map(lambda parts: "".join([*parts[0], "[MASK]", *parts[1]]))


@functools.cache
def fillers(family):
    weights, model = models("masked_lm", small_config(family))
    return weights, pipeline("FillMaskPipeline", model)


def plain(text):
    return "".join(text.lower().split())


def assert_gaps(found, expected):
    """Compare the word pieces of each gap of a text; the pipeline has no list of gaps where there is one."""
    for one, other in zip(found, [expected] if len(found) == 1 else expected, strict=True):
        assert [filling.id for filling in one] == [filling["token"] for filling in other]
        for filling, theirs in zip(one, other, strict=True):
            assert filling.score == pytest.approx(theirs["score"], abs=1e-5)
            assert filling.token.removeprefix("##") in theirs["token_str"] or theirs["token_str"] == ""


@given(some=st.lists(gapped, min_size=1, max_size=4), family=st.sampled_from(sorted(FAMILIES)), top_k=st.integers(1, 9))
@examples(30, quick=6)
def test_word_pieces_and_scores_are_those_of_the_pipeline(some, family, top_k):
    weights, theirs = fillers(family)
    found = nz.fill_mask(some, weights, tokenizer(), top_k=top_k, batch_size=3)
    for one, text in zip(found, some, strict=True):
        assert_gaps(one, theirs(text, top_k=top_k))
        alone = nz.fill_mask(text, weights, tokenizer(), top_k=top_k)
        assert [[filling.text for filling in gap] for gap in alone] == [
            [filling.text for filling in gap] for gap in one
        ]


def test_a_text_of_5000_characters_is_filled_as_in_the_pipeline():
    config = small_config(max_position_embeddings=5100, num_hidden_layers=1)
    weights, model = models("masked_lm", config, dtype="float32")
    text = f"{LONG[:2500]}[MASK]{LONG[2500:]}"
    (found,) = nz.fill_mask([text], weights, tokenizer())
    assert_gaps(found, pipeline("FillMaskPipeline", model)(text))


def test_the_finished_text_is_the_text_with_the_word_piece_in_the_place_of_its_mask():
    weights, theirs = fillers("bert")
    text = "房间很[MASK]净，早餐也[MASK]好。"
    for number, gap in enumerate(nz.fill_mask(text, weights, tokenizer(), top_k=7)):
        for filling, other in zip(gap, theirs(text, top_k=7)[number], strict=True):
            assert plain(filling.text) == plain(other["sequence"].replace("[CLS]", "").replace("[SEP]", ""))
            before, after = ("房间很", "净，早餐也[MASK]好。") if number == 0 else ("房间很[MASK]净，早餐也", "好。")
            assert filling.text == f"{before}{filling.token.removeprefix('##')}{after}"


def test_a_piece_that_continues_a_word_is_written_behind_it_without_the_space_before_the_mask():
    tokens = {filling.token: filling.text for filling in nz.fill_mask("walk [MASK] 😀", top_k=7000)[0]}
    pieces = [token for token in tokens if token.startswith("##") and token.isascii()]
    assert pieces and all(tokens[piece] == f"walk{piece[2:]} 😀" for piece in pieces)
    assert tokens["好"] == "walk 好 😀"


def test_a_filling_unpacks_as_token_id_and_score():
    ((best, *_),) = nz.fill_mask("房间很[MASK]净。")
    token, index, score = best
    assert (token, index, score) == (best.token, best.id, best.score) == (best[0], best[1], best[2])
    assert best.text == "房间很干净。" and "Filling(token='干'" in repr(best)


def test_no_text_gives_no_result_and_a_text_without_a_mask_is_named():
    assert nz.fill_mask([]) == []
    with pytest.raises(ValueError, match=r"^texts\[1\]: expected at least one \[MASK\], got '房间'"):
        nz.fill_mask(["很[MASK]", "房间"])
    with pytest.raises(ValueError, match=r"^texts: expected at least one \[MASK\], got '房间'"):
        nz.fill_mask("房间")


def test_a_mask_behind_the_cut_gets_no_word_pieces():
    whole, (cut,) = nz.fill_mask("好[MASK]净"), nz.fill_mask(["好[MASK]净" + "好" * 20 + "[MASK]"], max_length=5)
    assert [filling.id for filling in cut[0]] == [filling.id for filling in whole[0]] and len(cut) == 1
