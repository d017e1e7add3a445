"""Records to answers: what the commands from texts to answers, and the shards of a corpus, compute of some lines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nezha_np.checks import as_codes, check_integer, printable
from nezha_np.files.text_lines import Line, parse_record
from nezha_np.text.answer import Answer, answer
from nezha_np.text.choose import Choice, choose
from nezha_np.text.classify import Label, classify
from nezha_np.text.fill_mask import Filling, fill_mask
from nezha_np.text.tag import Entity, tag
from nezha_np.text.zero_shot import classify_by_description
from nezha_np.weights.weights import Weights

Record = dict[str, Any]
PART = re.compile(r"\A(texts|pairs|questions|contexts|choices)\[(?P<number>\d+)\]")


@dataclasses.dataclass(frozen=True)
class TaskOfLines:
    """What is done with records.

    Attributes
    ----------
    fields : tuple of str
        The fields of a record that it reads; the columns of a line. The last one may have several columns.
    result : str
        The field that it adds.
    run : callable
        Turns records into a list of results for each: dataclasses, or lists of them.
    shown : callable
        Turns one of these results into words, for lines.
    found : type
        What is found in a record, as the type of a column.
    several : bool
        Whether the last field is a list.
    """

    fields: tuple[str, ...]
    result: str
    run: Callable[[Sequence[Record]], Sequence[Sequence[Any]]]
    shown: Callable[[Any], str]
    found: Any = list[str]
    several: bool = False

    @property
    def columns(self) -> dict[str, Any]:
        """The fields that it reads and the one that it adds, with their types."""
        fields: dict[str, Any] = dict.fromkeys(self.fields, str)
        if self.several:
            fields[self.fields[-1]] = list[str]
        return fields | {self.result: self.found}


def classify_records(
    weights: Weights | None,
    *,
    field: str = "text",
    pair_field: str | None = None,
    result: str = "labels",
    top_k: int = 1,
    batch_size: int = 32,
    max_length: int | None = None,
    labels: Sequence[str] | None = None,
    template: str | None = None,
    multi_label: bool = False,
) -> TaskOfLines:
    """Make the task that classifies the texts of records.

    Parameters
    ----------
    weights : Weights or None
        The model; None: that of `nezha_np.classify`.
    field, pair_field : str
        The fields of the text, and of a second one; None: there is none.
    result : str
        The field that it adds.
    top_k, batch_size, max_length
        As `nezha_np.classify` takes them.
    labels, template, multi_label
        As `nezha_np.classify_by_description` takes them, which is called where there are labels.

    Returns
    -------
    TaskOfLines
        The task.

    Raises
    ------
    ValueError
        If an option is given that means nothing with labels, or without.

    Examples
    --------
    >>> task = classify_records(None)
    >>> data = run_on_lines(task, [Line("line 1", "房间很干净".encode())], input_format="lines", output_format="lines")
    >>> data.decode()[:8]
    'positive'
    """

    if labels is None and (template is not None or multi_label):
        raise ValueError(f"{'multi_label' if template is None else 'template'}: expected labels= with it, got none")
    if labels is not None and pair_field is not None:
        raise ValueError(f"pair_field: expected none where labels= is given, got {pair_field!r}")

    def classified(records: Sequence[Record]) -> list[list[Label]]:
        texts = [record[field] for record in records]
        if labels is not None:
            best = check_integer("top_k", top_k, least=1)
            found = classify_by_description(
                texts,
                labels,
                weights,
                multi_label=multi_label,
                batch_size=batch_size,
                max_length=max_length,
                **({} if template is None else {"template": template}),
            )
            return [some[:best] for some in found]
        return classify(
            texts,
            weights,
            pairs=None if pair_field is None else [record[pair_field] for record in records],
            top_k=top_k,
            batch_size=batch_size,
            max_length=max_length,
        )

    fields = (field,) if pair_field is None else (field, pair_field)
    return TaskOfLines(fields, result, classified, lambda one: f"{one.label} {one.score:.3f}", list[Label])


def fill_mask_records(
    weights: Weights | None,
    *,
    field: str = "text",
    result: str = "fillings",
    top_k: int = 5,
    mask_token: str = "[MASK]",
    batch_size: int = 32,
    max_length: int | None = None,
) -> TaskOfLines:
    """Make the task that fills the gaps in the texts of records.

    Parameters
    ----------
    weights : Weights or None
        The model; None: that of `nezha_np.fill_mask`.
    field : str
        The field of the text.
    result : str
        The field that it adds.
    top_k, mask_token, batch_size, max_length
        As `nezha_np.fill_mask` takes them.

    Returns
    -------
    TaskOfLines
        The task; each of its results is a list, the fillings of a gap.

    Examples
    --------
    >>> task = fill_mask_records(None, top_k=1)
    >>> lines = [Line("line 1", "房间很[MASK]净。".encode())]
    >>> run_on_lines(task, lines, input_format="lines", output_format="lines").decode()
    '干 0.984\\n'
    """

    def filled(records: Sequence[Record]) -> list[list[list[Filling]]]:
        return fill_mask(
            [record[field] for record in records],
            weights,
            top_k=top_k,
            mask_token=mask_token,
            batch_size=batch_size,
            max_length=max_length,
        )

    def shown(gap: Sequence[Filling]) -> str:
        return " ".join(f"{token} {probability:.3f}" for token, _, probability in gap)

    return TaskOfLines((field,), result, filled, shown, list[list[Filling]])


def tag_records(
    weights: Weights | None,
    *,
    field: str = "text",
    result: str = "entities",
    aggregation: Any = "first",
    batch_size: int = 32,
    max_length: int | None = None,
    stride: int = 128,
) -> TaskOfLines:
    """Make the task that finds the entities in the texts of records.

    Parameters
    ----------
    weights : Weights or None
        The model; None: that of `nezha_np.tag`.
    field : str
        The field of the text.
    result : str
        The field that it adds.
    aggregation, batch_size, max_length, stride
        As `nezha_np.tag` takes them.

    Returns
    -------
    TaskOfLines
        The task.

    Examples
    --------
    >>> task = tag_records(None)
    >>> lines = [Line("line 1", "周恩来在北京。".encode())]
    >>> run_on_lines(task, lines, input_format="lines", output_format="lines").decode()
    'PER 周恩来\\tLOC 北京\\n'
    """

    def tagged(records: Sequence[Record]) -> list[list[Entity]]:
        return tag(
            [record[field] for record in records],
            weights,
            aggregation=aggregation,
            batch_size=batch_size,
            max_length=max_length,
            stride=stride,
        )

    return TaskOfLines((field,), result, tagged, lambda one: f"{one.label} {one.text}", list[Entity])


def answer_records(
    weights: Weights | None,
    *,
    question_field: str = "question",
    context_field: str = "context",
    result: str = "answers",
    top_k: int = 1,
    max_answer_tokens: int = 30,
    impossible: bool = False,
    batch_size: int = 32,
    max_length: int | None = None,
    stride: int = 128,
) -> TaskOfLines:
    """Make the task that answers the questions of records.

    Parameters
    ----------
    weights : Weights or None
        The model; None: none ships with the package, and the task says so.
    question_field, context_field : str
        The fields of the question and of the text that holds its answer.
    result : str
        The field that it adds.
    top_k, max_answer_tokens, impossible, batch_size, max_length, stride
        As `nezha_np.answer` takes them.

    Returns
    -------
    TaskOfLines
        The task.

    Examples
    --------
    >>> answer_records(None).fields
    ('question', 'context')
    """

    def answered(records: Sequence[Record]) -> list[list[Answer]]:
        return answer(
            [record[question_field] for record in records],
            [record[context_field] for record in records],
            weights,
            stride=stride,
            max_answer_tokens=max_answer_tokens,
            top_k=top_k,
            impossible=impossible,
            batch_size=batch_size,
            max_length=max_length,
        )

    fields = (question_field, context_field)
    return TaskOfLines(fields, result, answered, lambda one: f"{one.text} {one.score:.3f}", list[Answer])


def choose_records(
    weights: Weights | None,
    *,
    question_field: str = "question",
    choices_field: str = "choices",
    context_field: str | None = None,
    result: str = "chosen",
    top_k: int = 1,
    batch_size: int = 32,
    max_length: int | None = None,
) -> TaskOfLines:
    """Make the task that finds the choices that fit the questions of records.

    Parameters
    ----------
    weights : Weights or None
        The model; None: none ships with the package, and the task says so.
    question_field, choices_field : str
        The fields of the question and of the list of its choices.
    context_field : str, optional
        The field of the text that the question is about; None: there is none.
    result : str
        The field that it adds.
    top_k, batch_size, max_length
        As `nezha_np.choose` takes them.

    Returns
    -------
    TaskOfLines
        The task.

    Examples
    --------
    >>> choose_records(None, context_field="text").fields
    ('question', 'text', 'choices')
    """

    def chosen(records: Sequence[Record]) -> list[list[Choice]]:
        return choose(
            [record[question_field] for record in records],
            [record[choices_field] for record in records],
            weights,
            contexts=None if context_field is None else [record[context_field] for record in records],
            top_k=top_k,
            batch_size=batch_size,
            max_length=max_length,
        )

    context = () if context_field is None else (context_field,)
    fields = (question_field, *context, choices_field)
    return TaskOfLines(fields, result, chosen, lambda one: f"{one.text} {one.score:.3f}", list[Choice], several=True)


def run_on_lines(
    task: TaskOfLines, lines: Sequence[Line], *, input_format: str, output_format: str | None = None
) -> bytes:
    """Run a task on lines, and make the lines of its results.

    Parameters
    ----------
    task : TaskOfLines
        What is done.
    lines : sequence of Line
        The lines of the input, which go through the model sorted by length.
    input_format : str
        "lines" or "jsonl".
    output_format : str, optional
        "lines": the results alone; else JSON Lines, each record with its results.

    Returns
    -------
    bytes
        A line for each line.

    Raises
    ------
    TypeError, ValueError
        If something is wrong; the message names the line.

    Examples
    --------
    >>> task = TaskOfLines(("text",), "labels", lambda records: [[] for _ in records], str)
    >>> run_on_lines(task, [Line("line 1", b"one")], input_format="lines")
    b'{"text": "one", "labels": []}\\n'
    """
    records = [parse_record(line, format=input_format, fields=task.fields, several=task.several) for line in lines]
    for line, record in zip(lines, records, strict=True):
        if output_format != "lines" and task.result in record:
            raise ValueError(
                f"{line.name}: expected an object without {task.result!r}, which the result is to be, got one with "
                "it: --result gives the result another name"
            )
    with _lines_named(lines):
        results = task.run(records)
    rows = zip(records, results, strict=True)
    return "".join(_as_line(task, record, found, output_format) + "\n" for record, found in rows).encode()


def _as_line(task: TaskOfLines, record: Record, found: Sequence[Any], format: str | None) -> str:
    if format == "lines":
        return "\t".join(printable(" ".join(task.shown(one).split())) for one in found)
    return as_codes(json.dumps(record | {task.result: _as_json(found)}, ensure_ascii=False))


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


@contextlib.contextmanager
def _lines_named(lines: Sequence[Line]) -> Iterator[None]:
    """Have an error name the line that its text is from."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if match := PART.match(str(error)):
            where = lines[int(match["number"])].name
            raise type(error)(f"{where}{str(error)[match.end() :]}") from None
        raise
