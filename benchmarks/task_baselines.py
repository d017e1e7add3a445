"""What the fine-tuned networks are compared with: the majority class, and a bag of characters; needs scikit-learn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Example = dict[str, Any]
Predictions = dict[int, list[Any]]  # as nezha_np.training.finetune.predict returns them
CLAUSE = re.compile(r"[^，。！？；：、,!?;:]+")
MOST_ITERATIONS = 300


def majority(task: str, train: Sequence[Example], scored: Sequence[Example]) -> Predictions:
    """Predict what is most frequent: the class, the tag, the number of the choice; of answers the first clause."""
    if task == "answer":
        spans = [next(CLAUSE.finditer(example["context"])).span() for example in scored]
        return {number: [(0.0, span)] for number, span in enumerate(spans)}
    if task == "tag":
        most = _most_frequent(tag for example in train for tag in example["labels"])
        return {number: [[most] * len(example["labels"])] for number, example in enumerate(scored)}
    most = _most_frequent(example["label"] for example in train)
    return {number: [most] for number in range(len(scored))}


def _most_frequent(labels: Any) -> Any:
    return Counter(labels).most_common(1)[0][0]


def bag_of_characters(task: str, train: Sequence[Example], scored: Sequence[Example]) -> Predictions:
    """Predict by a logistic regression on characters.

    Of two texts, or of a question with a text that may answer it, there are three bags: the characters of both, and
    those of one alone. Names are tagged by each character and its two neighbours on each side.
    """
    return {"answer": _clauses, "tag": _windows, "choose": _choices}.get(task, _texts)(train, scored)


def _fit(bags: Sequence[Mapping[str, float]], labels: Sequence[Any]) -> tuple[Any, Any]:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(DictVectorizer(), LogisticRegression(max_iter=MOST_ITERATIONS, random_state=0))
    model.fit(bags, labels)
    return model, list(model.classes_)


def bag(text: str, other: str | None = None) -> dict[str, float]:
    """Count the characters of a text, or those that two texts share and those of one alone."""
    if other is None:
        return dict(Counter(text))
    one, two = Counter(text), Counter(other)
    bags = {"both": one & two, "first": one - two, "second": two - one}
    counts = {f"{name} {char}": count for name, found in bags.items() for char, count in found.items()}
    return counts | {"part both": 2 * (one & two).total() / max(1, (one + two).total())}


def _texts(train: Sequence[Example], scored: Sequence[Example]) -> Predictions:
    model, _ = _fit([bag(one["text"], one.get("text_pair")) for one in train], [one["label"] for one in train])
    found = model.predict([bag(one["text"], one.get("text_pair")) for one in scored])
    return {number: [label] for number, label in enumerate(found.tolist())}


def _windows(train: Sequence[Example], scored: Sequence[Example]) -> Predictions:
    """Tag each character by those around it: stochastic descent, for there are two millions."""
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    hasher = FeatureHasher(2**18, input_type="string")

    def features(examples: Sequence[Example]) -> Any:
        rows = []
        for example in examples:
            padded = ["", "", *example["tokens"], "", ""]
            for index in range(len(example["tokens"])):
                part = padded[index : index + 5]
                pairs = [f"{place}{part[place]}{part[place + 1]}" for place in range(4)]
                rows.append([f"{place}{char}" for place, char in enumerate(part)] + pairs)
        return hasher.transform(rows)

    model = SGDClassifier("log_loss", alpha=1e-6, max_iter=10, tol=None, random_state=0)
    model.fit(features(train), [tag for example in train for tag in example["labels"]])
    tags = iter(model.predict(features(scored)).tolist())
    return {number: [[next(tags) for _ in example["tokens"]]] for number, example in enumerate(scored)}


def _best(model: Any, classes: list[Any], bags: Sequence[Mapping[str, float]]) -> tuple[int, float]:
    chances = model.predict_proba(bags)[:, classes.index(True)]
    return int(np.argmax(chances)), float(chances.max())


def _clauses(train: Sequence[Example], scored: Sequence[Example]) -> Predictions:
    """Answer by the clause of the text that is most probably the one with the answer."""
    bags, labels = [], []
    for example in train:
        for clause in CLAUSE.finditer(example["context"]):
            bags.append(bag(clause[0], example["question"]))
            labels.append(clause.start() <= example["start"] < clause.end())
    model, classes = _fit(bags, labels)
    found = {}
    for number, example in enumerate(scored):
        clauses = list(CLAUSE.finditer(example["context"]))
        best, chance = _best(model, classes, [bag(clause[0], example["question"]) for clause in clauses])
        found[number] = [(chance, clauses[best].span())]
    return found


def _choices(train: Sequence[Example], scored: Sequence[Example]) -> Predictions:
    """Choose the choice that is most probably right."""

    def bags(example: Example) -> list[dict[str, float]]:
        return [bag(choice, example["context"]) for choice in example["choices"]]

    rows = [row for example in train for row in bags(example)]
    labels = [index == example["label"] for example in train for index in range(len(example["choices"]))]
    model, classes = _fit(rows, labels)
    return {number: [_best(model, classes, bags(example))[0]] for number, example in enumerate(scored)}


BASELINES: dict[str, Callable[[str, Sequence[Example], Sequence[Example]], Predictions]] = {
    "majority": majority,
    "characters": bag_of_characters,
}
