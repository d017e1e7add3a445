"""The exercises of the notebooks: a right answer passes, a known mistake is told, and every exercise is asked."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
_spec = importlib.util.spec_from_file_location("exercises", NOTEBOOKS / "exercises.py")
exercises = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(exercises)

ASKED = re.compile(r'^answer = \.\.\.\ncheck\("([^"]*)", answer\)$', flags=re.MULTILINE)
CHINESE = re.compile("[\u4e00-\u9fff]")
EXERCISES = exercises.EXERCISES
MISTAKES = [(number, *mistake) for number, exercise in EXERCISES.items() for mistake in exercise.mistakes]


def verdict(number, answer):
    return exercises.verdict(EXERCISES[number], answer)


def test_every_exercise_is_asked_in_its_notebook_and_its_folded_answer_is_right():
    found = {}
    for source in NOTEBOOKS.glob("source/*[a-z].md"):
        text = source.read_text(encoding="utf-8")
        for number in ASKED.findall(text):
            assert source.name.split("_")[0] == number.split(".")[0] and number not in found
            found[number] = f"{number}: {exercises.RIGHT}\n" in text
    assert set(found) == set(EXERCISES) and all(found.values())


def test_what_is_expected_is_right_and_dots_are_no_answer_yet(capsys):
    for number, exercise in EXERCISES.items():
        assert verdict(number, ...) == f"{exercises.UNANSWERED}: {exercise.form}"
        if not callable(exercise.expected):
            assert verdict(number, exercise.expected) == exercises.RIGHT
    exercises.check("02.3", [45, 10, 11, 12, 11, 10, 45])
    assert capsys.readouterr().out == f"02.3: {exercises.RIGHT}\n"


@pytest.mark.parametrize(("number", "mistake", "why"), MISTAKES)
def test_a_known_mistake_is_told(number, mistake, why):
    assert verdict(number, mistake) == f"{exercises.NOT_YET}: {why}"


def test_every_message_is_in_english_and_in_chinese():
    messages = [exercise.form for exercise in EXERCISES.values()] + [why for _, _, why in MISTAKES]
    for message in messages:
        english, _, chinese = message.rpartition(" · ")
        assert english and CHINESE.search(chinese)


def test_other_wrong_answers_are_told_by_their_shape_or_by_how_many_numbers_are_right():
    assert "expected · 应为 shape (7,), got · 却是 shape (2,)" in verdict("02.3", [1, 2])
    assert "got · 却是 list" in verdict("02.3", [[1], [1, 2]])
    assert "6 of 7 are right" in verdict("02.3", [44, 10, 11, 12, 11, 10, 45])
    assert verdict("04.1", 0.1) == f"{exercises.NOT_YET}: {EXERCISES['04.1'].form}"
    assert verdict("09.1", "query").startswith(exercises.NOT_YET)


@pytest.mark.parametrize(
    ("number", "right", "wrong"),
    [
        ("01b.1", ["##es", "##est", "lo", "low"], ["##st", "lo"]),
        ("01b.2", ("abcde", {"ab", "abc", "##cde", "##d", "##e"}), ("abc", {"abc"})),
        ("01b.2", ("abcde", ["ab", "abc", "##cde", "##d", "##e"]), ("xyz", {"a"})),
        ("02.1", np.array([0.9841, 0.0012, 0.0489, 0.0001]), [0.984, 0.5, 0.5, 0.5]),
        ("03.3", 1e-16, 0.5),
        ("06.3", [0.69, 0.59, 0.37], "sampling"),
        ("08.1", np.float32(2e-7), [0.0, 0.0]),
    ],
)
def test_answers_that_a_function_judges(number, right, wrong):
    assert verdict(number, right) == exercises.RIGHT
    assert verdict(number, wrong) == f"{exercises.NOT_YET}: {EXERCISES[number].form}"
