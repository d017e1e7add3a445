"""Tasks on texts with models that were fine-tuned here, against the reference that reads their folders."""

from __future__ import annotations

import json
import random

import pytest
from pipelines import pipeline, read_by_the_reference, their_tokenizer, tokenizer

import nezha_np as nz
from nezha_np.training.finetune import finetune

pytestmark = pytest.mark.exhaustive
PLACES, PEOPLE = ["北京", "上海", "广州", "成都"], ["李明", "王芳", "张三"]
TOPICS = {
    "体育": ["球队赢了比赛", "他跑得最快", "决赛在今晚"],
    "财经": ["股市今天上涨", "银行降低利率", "公司利润下降"],
}
FILLING = "天气很好，大家都很高兴。"
INFERENCE = "这句话是关于{}的。"


def answers(chooser):
    place = chooser.choice(PLACES)
    return {"question": "他在哪里？", "context": f"昨天{chooser.choice(PEOPLE)}在{place}开会。", "answer": place}


def choices(chooser):
    topic, other = chooser.sample(sorted(TOPICS), 2)
    some = [chooser.choice(TOPICS[topic]), *chooser.sample(TOPICS[other], 2)]
    right = some[0]
    chooser.shuffle(some)
    return {"question": f"哪个是{topic}？", "context": "新闻", "choices": some, "label": some.index(right)}


def inference(chooser):
    topic, named = chooser.choice(sorted(TOPICS)), chooser.choice(sorted(TOPICS))
    label = "entailment" if topic == named else "contradiction"
    return {"text": chooser.choice(TOPICS[topic]), "text_pair": INFERENCE.format(named), "label": label}


def tags(chooser):
    before = FILLING * chooser.randrange(3)
    text = f"{before}{chooser.choice(PEOPLE)}在{chooser.choice(PLACES)}，{FILLING}"
    labels = [*"O" * len(before), "B-PER", "I-PER", "O", "B-LOC", "I-LOC"]
    return {"tokens": list(text), "labels": labels + ["O"] * (len(text) - len(labels))}


TASKS = {
    "answer": (answers, "NezhaForQuestionAnswering"),
    "choose": (choices, "NezhaForMultipleChoice"),
    "pairs": (inference, "NezhaForSequenceClassification"),
    "tag": (tags, "NezhaForTokenClassification"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Fine-tune the shipped model for a task, once, and read the folder here and by the reference."""
    made = {}

    def train(task):
        if task not in made:
            folder, chooser = tmp_path_factory.mktemp(task), random.Random(0)
            lines = [json.dumps(TASKS[task][0](chooser), ensure_ascii=False) + "\n" for _ in range(64)]
            (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")
            measured = []
            options = {"epochs": 6, "batch_size": 8, "max_length": 48, "learning_rate": 2e-3}
            finetune(task, folder / "train.jsonl", folder / "run", report=measured.append, **options)
            assert max(value for line in measured for value in line.values() if isinstance(value, float)) >= 0.8
            weights = nz.load(folder / "run")
            made[task] = weights, read_by_the_reference(TASKS[task][1], weights, folder / "run")
        return made[task]

    return train


def in_a_long_text(sentence, before, after):
    return FILLING * before + sentence + FILLING * after


CONTEXTS = {
    "short": "昨天李明在成都开会。",
    "at the end of a window": in_a_long_text("昨天李明在成都开会。", 30, 60),
    "in the last window": in_a_long_text("昨天李明在成都开会。", 100, 1),
    "no answer": FILLING * 3,
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("impossible", [False, True])
@pytest.mark.parametrize(("size", "stride"), [(384, 128), (64, 20)])
def test_a_reader_gives_the_answers_of_the_pipeline(trained, context, impossible, size, stride):
    weights, model = trained("answer")
    theirs = pipeline("QuestionAnsweringPipeline", model)
    question = "他在哪里？"
    (found,) = nz.answer(
        question, context, weights, tokenizer(), top_k=3, max_answer_tokens=15, impossible=impossible, stride=stride,
        max_length=size,
    )  # fmt: skip
    expected = theirs(
        question=question, context=context, top_k=12, handle_impossible_answer=impossible, max_seq_len=size,
        doc_stride=stride,
    )  # fmt: skip
    best = {}
    for one in expected:
        best.setdefault((one["start"], one["end"]), one["score"])  # of overlapping windows: ours stand once
    for one, (place, score) in zip(found, best.items(), strict=False):
        assert (one.start, one.end) == place and one.score == pytest.approx(score, abs=1e-5)
    if "成都" in context:
        assert found[0].text == "成都"


def test_a_chooser_gives_the_probabilities_of_the_reference(trained):
    import torch

    weights, model = trained("choose")
    chooser = random.Random(1)
    asked = [choices(chooser) for _ in range(6)]
    found = nz.choose(
        [one["question"] for one in asked], [one["choices"] for one in asked], weights, tokenizer(),
        contexts=[one["context"] for one in asked], top_k=None,
    )  # fmt: skip
    for one, question in zip(found, asked, strict=True):
        seconds = [question["question"] + choice for choice in question["choices"]]
        batch = their_tokenizer()([question["context"]] * 3, seconds, padding=True, return_tensors="pt")
        expected = torch.softmax(model(**{name: ids[None] for name, ids in batch.items()}).logits[0], 0).tolist()
        assert [choice.score for choice in one] == pytest.approx([expected[c.index] for c in one], abs=1e-5)
    assert sum(one[0].index == question["label"] for one, question in zip(found, asked, strict=True)) >= 5


@pytest.mark.parametrize("several", [False, True])
def test_a_model_of_inference_gives_the_scores_of_the_pipeline(trained, several):
    weights, model = trained("pairs")
    theirs = pipeline("ZeroShotClassificationPipeline", model)
    texts = ["决赛在今晚", "银行降低利率", FILLING * 30]
    found = nz.classify_by_description(texts, sorted(TOPICS), weights, tokenizer(), multi_label=several)
    for text, one in zip(texts, found, strict=True):
        other = theirs(text, sorted(TOPICS), multi_label=several, hypothesis_template=INFERENCE)
        assert [label.label for label in one] == other["labels"]
        assert [label.score for label in one] == pytest.approx(other["scores"], abs=1e-5)
    assert [one[0].label for one in found[:2]] == ["体育", "财经"]


@pytest.mark.parametrize("aggregation", [None, "simple", "first", "average", "max"])
def test_a_tagger_gives_the_entities_of_the_pipeline(trained, aggregation):
    weights, model = trained("tag")
    theirs = pipeline("TokenClassificationPipeline", model)
    text = f"李明在上海，{FILLING}王芳在成都，hotel 12，{FILLING * 20}张三在北京，"
    (found,) = nz.tag(text, weights, tokenizer(), aggregation=aggregation)
    expected = theirs(text, aggregation_strategy=aggregation or "none")
    kind = "entity_group" if aggregation else "entity"
    assert [(e.label, e.start, e.end) for e in found] == [(one[kind], one["start"], one["end"]) for one in expected]
    assert [e.score for e in found] == pytest.approx([float(one["score"]) for one in expected], abs=1e-5)
    if aggregation is not None:
        assert {"李明", "北京"} <= {entity.text for entity in found}


@pytest.mark.parametrize(("size", "stride"), [(40, 12), (64, 20), (128, 32)])
def test_windows_find_the_entities_that_the_pipeline_finds_with_its_stride(trained, size, stride):
    weights, model = trained("tag")
    theirs = pipeline("TokenClassificationPipeline", model, stride=stride, aggregation_strategy="first")
    theirs.tokenizer = type(their_tokenizer()).from_pretrained(their_tokenizer().name_or_path, model_max_length=size)
    text = "".join(f"{person}在{place}，{FILLING}" for person in PEOPLE for place in PLACES)
    (found,) = nz.tag(text, weights, tokenizer(), max_length=size, stride=stride)
    places = [(entity.label, entity.start, entity.end) for entity in found]
    assert places == [(one["entity_group"], one["start"], one["end"]) for one in theirs(text)]
    assert len(places) == 2 * len(PEOPLE) * len(PLACES)
