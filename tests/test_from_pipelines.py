"""docs/howto/from_pipelines.md: each line here gives what the line of the pipeline beside it gives."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
from pipelines import models, pipeline, small_config, tokenizer

import nezha_np as nz

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "from_pipelines.md"
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
PIPELINES = {
    "text-classification": ("TextClassificationPipeline", "sequence_classification", ["bad", "good", "neither"]),
    "token-classification": ("TokenClassificationPipeline", "token_classification", NAMES),
    "question-answering": ("QuestionAnsweringPipeline", "question_answering", None),
    "zero-shot-classification": (
        "ZeroShotClassificationPipeline",
        "sequence_classification",
        ["contradiction", "neutral", "entailment"],
    ),
    "fill-mask": ("FillMaskPipeline", "masked_lm", None),
    "feature-extraction": ("FeatureExtractionPipeline", "forward", None),
}
GIVEN = {
    "texts": ["房间很干净。", "the Hotel is unaffable，早餐也好 😀", "12"],
    "others": ["很好", "playing", "房间"],
    "gaps": ["房间很[MASK]净。", "早[MASK]"],
    "questions": ["早餐几点？", "在哪里？"],
    "contexts": ["早餐七点开始，在一楼的餐厅。" * 60, "酒店在北京。"],
    "labels": ["体育", "travel", "酒店"],
    "template": "这句话是关于{}的。",
}


def rows():
    """Read the table: the task of each row, and the lines of the pipeline and of this package."""
    found, task = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| ") else []
        if len(cells) == 3 and cells[1].startswith("`"):
            task = cells[0].split("`")[1] if cells[0].startswith("`") else task
            found.append((task, cells[1].strip("`"), cells[2].strip("`")))
    return found


@functools.cache
def loaded(task):
    name, head, labels = PIPELINES[task]
    options = {} if labels is None else {"id2label": dict(enumerate(labels))}
    weights, model = models(head, small_config("nezha", max_position_embeddings=1000, **options))
    return weights, pipeline(name, model)


def numbers_and_names(result):
    """Take the results of either side apart: what was found, and its numbers."""
    if isinstance(result, list | tuple):
        parts = [numbers_and_names(one) for one in result]
        return [name for names, _ in parts for name in names], [number for _, some in parts for number in some]
    if isinstance(result, np.ndarray):
        return [], result.ravel().tolist()
    if isinstance(result, dict) and "labels" in result:  # of zero-shot
        return [(label, None, None) for label in result["labels"]], result["scores"]
    fields = result if isinstance(result, dict) else dataclasses.asdict(result)
    what = next(
        fields[name] for name in ("label", "entity_group", "entity", "id", "token", "answer", "text") if name in fields
    )
    return [(what, fields.get("start"), fields.get("end"))], [float(fields["score"])]


@pytest.mark.parametrize(("task", "theirs", "ours"), rows(), ids=str)
def test_each_line_gives_the_numbers_of_the_pipeline_beside_it(task, theirs, ours):
    weights, pipe = loaded(task)
    given = GIVEN | {"weights": weights, "tok": tokenizer(), "pipe": pipe, "nz": nz, "np": np}
    expected_names, expected = numbers_and_names(eval(theirs, dict(given)))
    names, found = numbers_and_names(eval(ours, dict(given)))
    assert names == expected_names
    assert found == pytest.approx(expected, abs=1e-5) and found


def test_the_table_has_every_pipeline_that_a_task_here_answers():
    assert {task for task, _, _ in rows()} == set(PIPELINES)
