"""Examples of a task from a file: tab-separated, or JSON Lines. What is wrong is named by file and line.

    task       fields of JSON Lines                    columns of a tab-separated file
    classify   text, label                             the same
    pairs      text, text_pair, label                  the same
    tag        tokens, labels                          a token and its label; an empty line after each text
    answer     question, context, answer, start        the same; start may be left out
    choose     question, context, choices, label       question, context, label, choice, choice …

``start`` is the character of the context where the answer begins. It may be left out where the answer occurs once.
Of several answers, as SQuAD has them, the first is trained on, and the example has all of them as ``right``.
The label of `choose` counts from 0. In a tab-separated file without a header the label of `classify` and `pairs` is the
first or the last column: that which has fewer different values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nezha_np.checks import check_path, listed, what_stands_at
from nezha_np.files.text_lines import Line, parse_line, read_lines

Example = dict[str, Any]
FIELDS = {
    "classify": ("text", "label"),
    "pairs": ("text", "text_pair", "label"),
    "tag": ("tokens", "labels"),
    "answer": ("question", "context", "answer", "start"),
    "choose": ("question", "context", "choices", "label"),
}
# Names that other data sets have for these fields.
OTHER_NAMES = {
    "text": ("sentence", "text_a", "text1", "sentence1", "premise", "question1", "review"),
    "text_pair": ("text_b", "text2", "sentence2", "hypothesis", "question2"),
    "label": ("class", "answer_index"),
    "tokens": ("words",),
    "labels": ("tags", "ner_tags"),
    "context": ("passage", "paragraph"),
    "choices": ("options",),
    "answer": ("answers",),
    "start": ("answer_start",),
}


def read_examples(path: str | Path, task: str, *, name: str = "path") -> list[Example]:
    """Read the examples of a task.

    Parameters
    ----------
    path : str or Path
        A file whose name ends in ``.jsonl`` or ``.json``: JSON Lines. Any other: tab-separated.
    task : str
        One of `FIELDS`.
    name : str
        How errors name the argument `path`.

    Returns
    -------
    list of dict
        The examples, with the fields of the task. Labels are texts; of `choose` an integer.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line is not an example of the task, or there is none; the message names the line.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "train.tsv"
    >>> _ = file.write_text("很好\\tgood\\n不好\\tbad\\n很差\\tbad\\n", encoding="utf-8")
    >>> read_examples(file, "classify")[0]
    {'text': '很好', 'label': 'good'}
    """
    if task not in FIELDS:
        raise ValueError(f"task: expected one of {', '.join(FIELDS)}, got {task!r}")
    file = check_path(path, name)
    if not file.is_file():
        raise FileNotFoundError(f"{name}: expected a file of examples, found {what_stands_at(file)}")
    with file.open("rb") as stream:
        if file.suffix in (".jsonl", ".json"):
            found = [_of_json(line, task) for line in read_lines(stream, str(file), format="jsonl") if line.raw.strip()]
        elif task == "tag":
            found = list(_tagged(read_lines(stream, str(file), format="lines")))
        else:
            rows = [(line.name, _fields(line)) for line in read_lines(stream, str(file), format="lines")]
            found = _of_rows([(name, row) for name, row in rows if row != [""]], task)
    if not found:
        raise ValueError(f"{name}: expected one example at least, found none in {file}")
    return found


def read_and_hold_out(
    task: str, examples: str | Path, held_out: str | Path | None
) -> tuple[list[Example], list[Example]]:
    """Read what is trained on and what is measured on: a file of its own, or every tenth example.

    Parameters
    ----------
    task : str
        One of `FIELDS`.
    examples : str or Path
        The file of the examples.
    held_out : str, Path or None
        The file to measure on; None: every tenth example of the other one, which is then not trained on.

    Returns
    -------
    trained, held_out : list of dict
        The examples of both.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    ValueError
        If a line is not an example, there are too few, all have one class, or a held-out class is not trained.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "train.tsv"
    >>> _ = file.write_text("很好\\tgood\\n很差\\tbad\\n" * 10, encoding="utf-8")
    >>> [len(part) for part in read_and_hold_out("classify", file, None)]
    [18, 2]
    """
    found = read_examples(examples, task, name="examples")
    if held_out is not None:
        trained, measured = found, read_examples(held_out, task, name="held_out")
    elif len(found) < 10:
        raise ValueError(
            f"examples: expected ten at least, so that every tenth is held out, found {len(found)} in {examples}; "
            "held_out may name a file to measure on"
        )
    else:
        trained, measured = [one for number, one in enumerate(found) if number % 10 != 9], found[9::10]
    labels = names_of_labels(trained, task)
    if len(labels) == 1:  # a head of one label would be trained as a regression
        raise ValueError(f"examples: expected two classes at least, found only {labels[0]} in {examples}")
    if others := [name for name in names_of_labels(measured, task) if name not in labels]:
        where = "held_out" if held_out is not None else "examples, every tenth of which is held out"
        raise ValueError(f"{where}: expected labels that are trained ({listed(labels)}), got {listed(others)}")
    return trained, measured


def _fields(line: Line) -> list[str]:
    text, _ = parse_line(line, format="lines", field="text")
    return text.split("\t")


def _tagged(lines: Iterator[Line]) -> Iterator[Example]:
    """Gather the lines of each text: a token and its label, until an empty line."""
    tokens: list[str] = []
    labels: list[str] = []
    for line in lines:
        row = _fields(line)
        if row == [""]:
            if tokens:
                yield {"tokens": tokens, "labels": labels}
            tokens, labels = [], []
        elif len(row) == 2 and row[0] and row[1].strip():
            tokens.append(row[0])
            labels.append(row[1].strip())
        else:
            raise ValueError(f"{line.name}: expected a token, a tab and a label, or an empty line, got {row!r}")
    if tokens:
        yield {"tokens": tokens, "labels": labels}


def _of_rows(rows: list[tuple[str, list[str]]], task: str) -> list[Example]:
    """Make examples of tab-separated rows; a first row with the names of fields is a header."""
    if not rows:
        return []
    known = {other: field for field, others in OTHER_NAMES.items() for other in others}
    header = [known.get(name.strip().lower(), name.strip().lower()) for name in rows[0][1]]
    wanted = FIELDS[task]
    if set(header) >= {*wanted} - {"start", "choices"}:
        columns, rows = header[:3] if task == "choose" else header, rows[1:]  # after the third stand the choices
    elif task == "choose":
        columns = ["question", "context", "label"]
    elif task == "answer":
        columns = list(wanted)[: len(rows[0][1])]
    else:
        columns = _label_first_or_last(rows, wanted)
    return [_of_row(name, row, columns, task) for name, row in rows]


def _label_first_or_last(rows: list[tuple[str, list[str]]], wanted: tuple[str, ...]) -> list[str]:
    texts = [field for field in wanted if field != "label"]
    first, last = ({row[end] for _, row in rows} for end in (0, -1))
    return ["label", *texts] if len(first) < len(last) else [*texts, "label"]


def _of_row(name: str, row: list[str], columns: Sequence[str], task: str) -> Example:
    if task == "choose" and "choices" not in columns:
        if len(row) < len(columns) + 2:
            raise ValueError(f"{name}: expected question, text, label and two choices at least, got {len(row)} fields")
        record: Mapping[str, Any] = {**dict(zip(columns, row, strict=False)), "choices": row[len(columns) :]}
    elif len(row) != len(columns):
        raise ValueError(f"{name}: expected {len(columns)} fields ({', '.join(columns)}), got {len(row)}")
    else:
        record = dict(zip(columns, row, strict=True))
    return _checked(name, record, task)


def _of_json(line: Line, task: str) -> Example:
    text, _ = parse_line(line, format="lines", field="text")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{line.name}: expected JSON, got something else: {error}; each example stands in a line of its own"
        ) from None
    if not isinstance(record, dict):
        raise ValueError(f"{line.name}: expected an object, got {type(record).__name__}")
    named = dict(record)
    for field in FIELDS[task]:
        for other in OTHER_NAMES.get(field, ()):
            if field not in named and other in record:
                named[field] = record[other]
    if task != "answer":
        return _checked(line.name, named, task)
    answers = named.get("answer")  # SQuAD's: a list, or lists by name; the first one is trained on
    if isinstance(answers, dict):
        texts, starts = (_as_list(answers.get(field)) for field in ("text", "answer_start"))
        answers = [{"text": one, "answer_start": start} for one, start in zip_longest(texts, starts)]
    if not isinstance(answers, list) or not all(isinstance(one, dict) for one in answers):
        return _checked(line.name, named, task)
    first = answers[0] if answers else {}
    example = _checked(line.name, named | {"answer": first.get("text"), "start": first.get("answer_start")}, task)
    texts = [one["text"] for one in answers if one.get("text") and isinstance(one["text"], str)]
    return example | ({"right": texts} if len(texts) > 1 else {})


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _checked(name: str, record: Mapping[str, Any], task: str) -> Example:
    """Check the fields of an example; labels become texts."""
    missing = [field for field in FIELDS[task] if record.get(field) in (None, "", []) and field != "start"]
    if missing:
        raise ValueError(f"{name}: expected {', '.join(FIELDS[task])}, found no {missing[0]}")
    example = {field: record[field] for field in FIELDS[task] if field in record}
    for field in ("text", "text_pair", "question", "context", "answer"):
        if field in example and not isinstance(example[field], str):
            raise ValueError(f"{name}: expected a text as {field}, got {type(example[field]).__name__}")
    if task in ("classify", "pairs"):
        example["label"] = _label(name, example["label"])
    if task == "tag":
        _check_tags(name, example)
    if task == "answer":
        example["start"] = _start(name, example)
    if task == "choose":
        _check_choices(name, example)
    return example


def _label(name: str, label: Any) -> str:
    if isinstance(label, bool) or not isinstance(label, (str, int)) or not str(label).strip():
        raise ValueError(f"{name}: expected a name or an integer as label, got {label!r}")
    return str(label).strip()


def _check_tags(name: str, example: Example) -> None:
    tokens, labels = example["tokens"], example["labels"]
    if not isinstance(tokens, list) or not all(isinstance(token, str) and token for token in tokens):
        raise ValueError(f"{name}: expected a list of texts as tokens, got {tokens!r:.60}")
    if not isinstance(labels, list) or len(labels) != len(tokens):
        count = len(labels) if isinstance(labels, list) else labels
        raise ValueError(f"{name}: expected a label for each of {len(tokens)} tokens, got {count!r}")
    example["labels"] = [_label(name, label) for label in labels]


def _start(name: str, example: Example) -> int:
    context, answer, start = example["context"], example["answer"], example.get("start")
    if start in (None, ""):
        return _only_place(name, context, answer)
    place = _integer(start)
    if place is None:
        raise ValueError(f"{name}: expected an integer as start, got {start!r}")
    if not 0 <= place < len(context):
        raise ValueError(f"{name}: expected a start from 0 to {len(context) - 1}, in the context, got {place}")
    if not context.startswith(answer, place):
        found = context[place : place + len(answer)]
        raise ValueError(
            f"{name}: expected the answer {answer!r:.40} at character {place} of the context, got {found!r:.40}"
        )
    return place


def _only_place(name: str, context: str, answer: str) -> int:
    """Find where an answer stands that has no start: it is there once, else nobody knows which place is meant."""
    first = context.find(answer)
    if first < 0:
        raise ValueError(
            f"{name}: expected an answer that stands in the context, got {answer!r:.40}, which does not: it has to be "
            "there letter by letter"
        )
    if (second := context.find(answer, first + 1)) >= 0:
        raise ValueError(
            f"{name}: expected a start, because the answer {answer!r:.40} stands in the context more than once, at "
            f"characters {first} and {second}, got none: start says which of them is meant, counted from 0"
        )
    return first


def _integer(value: Any) -> int | None:
    """Read an integer, or the digits of one; None where it is something else."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def _check_choices(name: str, example: Example) -> None:
    choices = example["choices"]
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) for one in choices):
        raise ValueError(f"{name}: expected two texts at least as choices, got {choices!r:.60}")
    label = _integer(example["label"])
    if label is None:
        label = choices.index(example["label"]) if example["label"] in choices else -1
    if not 0 <= label < len(choices):
        raise ValueError(f"{name}: expected a choice from 0 to {len(choices) - 1} as label, got {example['label']!r}")
    example["label"] = label


def names_of_labels(examples: Sequence[Example], task: str) -> list[str]:
    """List the different labels of examples: numbers by their size, O first of tags, names by the alphabet.

    Parameters
    ----------
    examples : sequence of dict
        The examples.
    task : str
        The task; of "answer" and "choose" there are none.

    Returns
    -------
    list of str
        The labels.

    Examples
    --------
    >>> names_of_labels([{"label": "10"}, {"label": "9"}], "classify")
    ['9', '10']
    """
    if task == "tag":
        names = {label for example in examples for label in example["labels"]}
        return sorted(names, key=lambda name: (name != "O", name))
    if task not in ("classify", "pairs"):
        return []
    names = {example["label"] for example in examples}
    numbers = all(re.fullmatch(r"-?\d{1,18}", name) for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))
