"""The tasks that a job over a corpus can do, and the model of each, opened once in a process."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.checks import check_integer
from nezha_np.files.parquet_file import FORMATS, import_pyarrow
from nezha_np.files.text_lines import Line
from nezha_np.files.vector_file import FIELD, file_header
from nezha_np.files.vector_file import FORMATS as VECTOR_FORMATS
from nezha_np.jobs.line_windows import WINDOW, whole_window, window_size
from nezha_np.jobs.records import (
    TaskOfLines,
    answer_records,
    choose_records,
    classify_records,
    fill_mask_records,
    run_on_lines,
    tag_records,
)
from nezha_np.jobs.shared_weights import read_shared
from nezha_np.jobs.vectors import embed_window, identify_model, identify_sentence_model
from nezha_np.text.defaults import choose_model
from nezha_np.text.embed import check_options
from nezha_np.text.sentence_folder import choose_sentence_model
from nezha_np.text.sentence_model import vector_size
from nezha_np.weights.checkpoint import load
from nezha_np.weights.weights import Weights

# The tasks from records to answers, and the head that ships beside the model for each, if one does.
RECORD_TASKS: Mapping[str, tuple[Callable[..., TaskOfLines], str]] = {
    "classify": (classify_records, "sentiment"),
    "tag": (tag_records, "names"),
    "answer": (answer_records, ""),
    "choose": (choose_records, ""),
    "fill_mask": (fill_mask_records, ""),
}
TASKS = ("embed", *RECORD_TASKS)
SHARED = {"window": WINDOW, "numpy": np.__version__}  # of the identity of every task


@dataclasses.dataclass(frozen=True)
class Task:
    """What a job does with the lines of a corpus.

    Attributes
    ----------
    weights : Weights
        The model.
    identity : dict
        Everything besides the lines that the bytes of a result depend on, as JSON has it.
    input_format : str
        The format of the corpus.
    output_format : str
        The format of the results, which is the suffix of their files.
    batch_size : int
        How many texts go through the model together.
    window_size : callable
        How many lines the window that begins with a row may have.
    compute : callable
        Turns the lines of a window into bytes, and says which line is the first that was cut because the model's folder
        says so. An error that is of one line begins with its name.
    header : callable
        The beginning of a file with so many rows.
    missing : bytes
        What stands in the place of a line that gave an error.
    width : int
        How many numbers a vector has; 0: the results are no vectors.
    """

    weights: Weights
    identity: dict[str, Any]
    input_format: str
    output_format: str
    batch_size: int
    window_size: Callable[[int], int]
    compute: Callable[[Sequence[Line]], tuple[bytes, str | None]]
    header: Callable[[int], bytes]
    missing: bytes
    width: int = 0

    def rows(self, data: bytes) -> list[bytes]:
        """Divide the bytes of a window into those of its lines."""
        if self.output_format == "jsonl":
            return data.splitlines(keepends=True)
        size = len(self.missing)
        return [data[start : start + size] for start in range(0, len(data), size)]


def open_task(
    name: str,
    model: str | None,
    *,
    input_format: str,
    output_format: str | None,
    options: Mapping[str, Any],
    shared: str | None = None,
) -> Task:
    """Load the model of a task, and check its options.

    Parameters
    ----------
    name : str
        One of `TASKS`.
    model : str or None
        A checkpoint with its tokenizer; None: the shipped model of the task.
    input_format : str
        "lines", "jsonl" or "parquet".
    output_format : str or None
        For "embed" one of `nezha_np.files.vector_file.FORMATS`, None: "npy"; for the others "jsonl" or None.
    options : mapping
        Those of the task.
    shared : str, optional
        The file of `nezha_np.jobs.shared_weights` with the weights of `model`; None: they are loaded from there.

    Returns
    -------
    Task
        The task.

    Raises
    ------
    OSError, TypeError, ValueError, ImportError
        If the model cannot be loaded, or an option is wrong; the message names it.

    Examples
    --------
    >>> task = open_task("classify", None, input_format="lines", output_format=None, options={"top_k": 1})
    >>> task.compute([Line("line 1", "房间很干净".encode())])[0].decode()[:57]
    '{"text": "房间很干净", "labels": [{"label": "positive", "score'
    """
    if name not in TASKS:
        raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {name!r}")
    if input_format not in FORMATS:
        raise ValueError(f"input_format: expected one of {', '.join(FORMATS)}, got {input_format!r}")
    if input_format == "parquet":
        import_pyarrow()
    formats = VECTOR_FORMATS if name == "embed" else ("jsonl",)
    output_format = output_format or formats[0]
    if output_format not in formats:
        raise ValueError(f"output_format: expected {', '.join(formats)}, got {output_format!r}")
    builder = _vectors if name == "embed" else RECORD_TASKS[name][0]
    known = [one.name for one in inspect.signature(builder).parameters.values() if one.kind == one.KEYWORD_ONLY]
    if wrong := [option for option in options if option not in known]:
        raise TypeError(f"{wrong[0]}: expected an option of {name}, one of {', '.join(known)}, got this one")
    weights: Weights | None = None
    if shared is not None:
        weights = read_shared(Path(shared), model, "" if name == "embed" else RECORD_TASKS[name][1])
    elif model is not None:
        weights = load(model)
    if name == "embed":
        return _vectors(weights, input_format, output_format, **options)
    return _records(name, weights, input_format, options)


def _vectors(
    weights: Weights | None,
    input_format: str,
    output_format: str,
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    prompt: str | None = None,
    field: str = "text",
) -> Task:
    weights, tokenizer = choose_model(weights, None)
    how = choose_sentence_model(weights, pooling=pooling, normalize=normalize, max_length=max_length, prompt=prompt)
    check_options(tokenizer, how, batch_size=batch_size)
    if output_format == "jsonl" and field == FIELD:
        raise ValueError(f"field: expected another name than {FIELD!r}, which is the vector's, got that")
    settings = {
        "batch_size": batch_size,
        "input_format": input_format,
        "field": field,
        "output_format": output_format,
    }
    width = vector_size(how, weights.config.hidden_size)
    none = b'{"%s": null}\n' % FIELD.encode() if output_format == "jsonl" else np.full(width, np.nan, "<f4").tobytes()
    return Task(
        weights,
        {"task": "embed"} | identify_sentence_model(weights, tokenizer, how) | settings | SHARED,
        input_format,
        output_format,
        batch_size,
        lambda row: window_size(row, batch_size),
        functools.partial(embed_window, weights=weights, tokenizer=tokenizer, how=how, settings=settings),
        lambda rows: file_header(output_format, rows, width),
        none,
        width,
    )


def _records(name: str, weights: Weights | None, input_format: str, options: Mapping[str, Any]) -> Task:
    builder, head = RECORD_TASKS[name]
    bound = inspect.signature(builder).bind(weights, **options)
    bound.apply_defaults()
    settings = {option: value for option, value in bound.arguments.items() if option != "weights"}
    batch_size = check_integer("batch_size", settings["batch_size"], least=1)
    task = builder(weights, **options)
    task.run([])  # a wrong option, or a model that is missing, is an error before anything is read
    chosen, tokenizer = choose_model(weights, None, head=head)
    identity = {"task": name} | identify_model(chosen, tokenizer) | settings
    return Task(
        chosen,
        identity | {"input_format": input_format, "output_format": "jsonl"} | SHARED,
        input_format,
        "jsonl",
        batch_size,
        lambda row: whole_window(row, batch_size),
        lambda lines: (run_on_lines(task, lines, input_format=input_format), None),
        lambda rows: b"",
        (json.dumps({task.result: None}, ensure_ascii=False) + "\n").encode(),
    )


def shard_size(shard_lines: int, batch_size: int) -> int:
    """Return how many lines a shard has: whole windows, so that a job has the batches of a single run.

    Parameters
    ----------
    shard_lines : int
        How many are asked for.
    batch_size : int
        How many texts go through the model together.

    Returns
    -------
    int
        The next multiple of a window's lines.

    Raises
    ------
    TypeError, ValueError
        If `shard_lines` is no number from 1 on.

    Examples
    --------
    >>> shard_size(65536, 32), shard_size(1000, 48)
    (65536, 1536)
    """
    shard_lines = check_integer("shard_lines", shard_lines, least=1)
    whole = min(batch_size * WINDOW, sys.maxsize)
    return -(-shard_lines // whole) * whole
