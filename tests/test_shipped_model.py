"""The model that ships with the package, against the reference, on real sentences."""

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.weights.checkpoint import SHIPPED

SENTENCES = [
    "房间很[MASK]净。",
    "性价[MASK]很高",
    "酒店的服务太[MASK]了。",
    "新华社[MASK]京一月一日电",
    "这本书的内容很[MASK]富，值得一读。",
    "早餐[MASK]般，但是服务[MASK]很热情。",
    "电脑的屏幕很[MASK]晰，就是有点[MASK]。",
    "中国人民[MASK]行今天公布了新的利率。",
    "质量不错，物流也很[MASK]，下次还会[MASK]。",
    "全国各[MASK]人民喜迎新年",
    "The hotel is [MASK] good, 价格也便宜。",
    "手机的[MASK]池用了2天就没[MASK]了！",
]


@pytest.mark.exhaustive
def test_predictions_equal_the_references_on_a_dozen_sentences():
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    transformers = pytest.importorskip("transformers", reason="the reference is transformers 4.37.2")
    model, loading = transformers.NezhaForPreTraining.from_pretrained(
        SHIPPED, torch_dtype=torch.float32, output_loading_info=True
    )
    assert not any(loading.values())
    model.float()
    their_tokenizer = transformers.BertTokenizerFast.from_pretrained(SHIPPED)
    weights, tokenizer = nz.load(), nz.load_tokenizer()
    for sentence in SENTENCES:
        batch = nz.encode(tokenizer, [sentence])
        theirs = their_tokenizer(sentence, return_tensors="pt")
        assert batch["input_ids"].tolist() == theirs["input_ids"].tolist()
        with torch.no_grad():
            expected = model.eval()(**theirs)
        found = nz.pretraining(weights, **batch)
        np.testing.assert_allclose(found.prediction_logits, expected.prediction_logits, atol=2e-4)
        np.testing.assert_allclose(found.seq_relationship_logits, expected.seq_relationship_logits, atol=2e-4)
        probs = torch.softmax(expected.prediction_logits[0].double(), dim=-1)
        gaps = [index for index, token in enumerate(batch["input_ids"][0]) if token == tokenizer.token_to_id("[MASK]")]
        for gap, candidates in zip(gaps, nz.fill_mask(sentence), strict=True):
            top = torch.topk(probs[gap], 5)
            assert [index for _, index, _ in candidates] == top.indices.tolist()
            np.testing.assert_allclose([p for _, _, p in candidates], top.values, atol=1e-5)


@pytest.mark.parametrize(
    ("sentence", "token", "probability"),
    [("房间很[MASK]净。", "干", 0.984), ("性价[MASK]很高", "比", 0.996), ("新华社[MASK]京一月一日电", "北", 0.910)],
)
def test_it_fills_gaps_as_its_model_card_says(sentence, token, probability):
    (candidates,) = nz.fill_mask(sentence)
    assert candidates[0][0] == token and candidates[0][2] == pytest.approx(probability, abs=2e-3)


def test_a_model_finds_the_tokenizer_in_the_folder_it_came_from(tmp_path):
    weights = nz.load()
    assert nz.fill_mask("房间很[MASK]净。", weights) == nz.fill_mask("房间很[MASK]净。", weights, nz.load_tokenizer())
    with pytest.raises(ValueError, match="tokenizer: expected one"):
        nz.fill_mask("房间很[MASK]净。", nz.Weights(dict(weights), weights.config))


def test_it_is_small_and_the_numbers_of_its_card_are_its_own():
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    weights, size = nz.load(dtype="float16"), (SHIPPED / "model.safetensors").stat().st_size
    assert size <= 8_000_000
    assert f"{sum(array.size for array in weights.values()):,} parameters" in " ".join(card.split())
    config = weights.config
    assert f"{config.num_hidden_layers} layers, {config.hidden_size} wide, {config.num_attention_heads} heads" in card


def test_a_gap_may_go_by_another_name(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    vocabulary = (SHIPPED / "vocab.txt").read_text(encoding="utf-8")
    (tmp_path / "vocab.txt").write_text(vocabulary.replace("[MASK]", "<gap>"), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"mask_token": "<gap>"}', encoding="utf-8")
    weights = nz.load(tmp_path)
    assert nz.fill_mask("房间很<gap>净。", weights, mask_token="<gap>") == nz.fill_mask("房间很[MASK]净。")
    with pytest.raises(ValueError, match=r"^tokenizer: expected one with \[MASK\], got one without"):
        nz.fill_mask("房间很[MASK]净。", weights)


def loaded_beside(name):
    """Load what ships beside the model, which is small and leaves the embeddings as they are."""
    folder = SHIPPED / name
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2_000_000
    weights, shared = nz.load(folder), "embeddings.word_embeddings.weight"
    assert np.array_equal(weights[shared], nz.load()[shared])
    return weights, nz.load_tokenizer(folder)


def test_sentiment_ships_beside_it_and_tells_praise_from_complaint():
    weights, tokenizer = loaded_beside("sentiment")
    texts = ["房间很干净，早餐也好吃。", "太脏了，再也不来了。", "这本书很无聊，浪费时间。", "物流很快，质量不错"]
    logits = nz.sequence_classification(weights, **nz.encode(tokenizer, texts)).logits
    found = [weights.config.id2label[int(row.argmax())] for row in logits]
    assert found == ["positive", "negative", "negative", "positive"]


def test_names_ship_beside_it_and_people_and_places_are_found():
    weights, tokenizer = loaded_beside("names")
    batch = nz.encode(tokenizer, ["江泽民主席在北京会见了美国总统克林顿。"])
    tags = [weights.config.id2label[int(row.argmax())] for row in nz.token_classification(weights, **batch).logits[0]]
    tokens = [tokenizer.id_to_token(int(token)) for token in batch["input_ids"][0]]
    found = [(token, tag) for token, tag in zip(tokens[1:-1], tags[1:-1], strict=True) if tag != "O"]
    assert "".join(token for token, _ in found) == "江泽民北京美国克林顿"
    people, places = ["B-PER", "I-PER", "I-PER"], ["B-LOC", "I-LOC"]
    assert [tag for _, tag in found] == [*people, *places, *places, *people]
