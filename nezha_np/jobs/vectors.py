"""Lines to vectors: what ``nezha-np embed`` and a shard of a corpus compute of a window."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import nezha_np
from nezha_np.arrays import to_numpy
from nezha_np.files.text_lines import Line, parse_line
from nezha_np.files.vector_file import rows_as_bytes
from nezha_np.text.embed import embed_sorted
from nezha_np.text.encode import check_text
from nezha_np.text.sentence_model import SentenceModel
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def embed_window(
    window: Sequence[Line], weights: Weights, tokenizer: Tokenizer, how: SentenceModel, settings: Mapping[str, Any]
) -> tuple[bytes, str | None]:
    """Turn the lines of a window into vectors.

    Parameters
    ----------
    window : sequence of Line
        The lines.
    weights, tokenizer, how
        The model, and how its texts become vectors.
    settings : mapping
        "batch_size", "input_format", "output_format" and "field", as `nezha_np.jobs.tasks.open_task` takes them.

    Returns
    -------
    rows : bytes
        The vectors, as they are written.
    cut : str or None
        The first line that was cut because the folder of the model says so, and what the folder says.

    Examples
    --------
    >>> import nezha_np as nz
    >>> settings = {"batch_size": 32, "input_format": "lines", "output_format": "npy", "field": "text"}
    >>> rows, cut = embed_window([Line("line 1", b"ok")], nz.load(), nz.load_tokenizer(), SentenceModel(), settings)
    >>> len(rows), cut
    (1024, None)
    """
    texts, records = [], []
    for line in window:
        text, record = parse_line(line, format=settings["input_format"], field=settings["field"])
        check_text(line.name, text)
        texts.append(text)
        records.append(record)
    names = [line.name for line in window]
    vectors, cut = embed_sorted(texts, names, weights, tokenizer, how, min(settings["batch_size"], sys.maxsize))
    rows = rows_as_bytes(settings["output_format"], vectors, records)
    if not (how.cut_by and cut.any()):
        return rows, None
    return rows, f"{names[int(cut.argmax())]}: cut after {how.max_length} tokens, {how.cut_by}"


def identify_model(weights: Weights, tokenizer: Tokenizer, more: Iterable[tuple[str, Any]] = ()) -> dict[str, str]:
    """Say by their content which model and tokenizer these are, wherever their files lie.

    Parameters
    ----------
    weights, tokenizer
        The model.
    more : iterable of (str, array)
        Further arrays of the model.

    Returns
    -------
    dict of str
        The version of the package, and hashes.

    Examples
    --------
    >>> import nezha_np as nz
    >>> sorted(identify_model(nz.load(), nz.load_tokenizer()))
    ['model', 'nezha_np', 'tokenizer']
    """
    model = hashlib.sha256(json.dumps(weights.config.to_dict(), sort_keys=True, default=repr).encode())
    for name, value in (*((name, weights[name]) for name in sorted(weights)), *more):
        array = np.ascontiguousarray(to_numpy(value))
        model.update(f"{name} {array.dtype} {array.shape}".encode())
        model.update(array.data)
    return {
        "nezha_np": nezha_np.__version__,
        "model": model.hexdigest()[:16],
        "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest()[:16],
    }


def identify_sentence_model(weights: Weights, tokenizer: Tokenizer, how: SentenceModel) -> dict[str, Any]:
    """Say which model, tokenizer and settings these are: everything besides the text that its vector depends on.

    Parameters
    ----------
    weights, tokenizer, how
        The model, and how its texts become vectors.

    Returns
    -------
    dict
        Settings, and hashes.

    Examples
    --------
    >>> import nezha_np as nz
    >>> found = identify_sentence_model(nz.load(), nz.load_tokenizer(), SentenceModel())
    >>> found["pooling"], found["normalize"], found["max_length"]
    ('mean', False, None)
    """
    settings = {field.name: getattr(how, field.name) for field in dataclasses.fields(how)}
    steps = [f"{step.kind} {step.activation} {step.residual}" for step in settings.pop("steps")]
    arrays = ((name, array) for step in how.steps for name, array in sorted(step.arrays.items()))
    del settings["cut_by"]
    return (
        settings
        | {
            "pooling": "+".join(how.pooling),
            "normalize": any(step.kind == "Normalize" for step in how.steps),
            "steps": steps,
        }
        | identify_model(weights, tokenizer, arrays)
    )
