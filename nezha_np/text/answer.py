"""Answer questions: from a question and a text to the parts of the text that answer it.

A long text is read in windows that overlap, each with the question before it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.checks import check_integer, check_switches
from nezha_np.model.heads import question_answering
from nezha_np.text.defaults import choose_trained_model
from nezha_np.text.encode import check_tokenizer
from nezha_np.text.rows import without_truncation_and_padding
from nezha_np.text.sorted_batches import check_texts, check_texts_of_all, run_in_batches
from nezha_np.text.spans import best_spans
from nezha_np.text.windows import WindowedText, make_windows, window_size
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WINDOW = 384  # tokens, as in the reference


@dataclasses.dataclass(frozen=True)
class Answer:
    """A part of a text that answers a question.

    Attributes
    ----------
    text : str
        The answer; empty where the text does not answer the question.
    start, end : int
        Its first character in the text, and the one after its last.
    score : float
        Its probability in its window of the text.

    Examples
    --------
    >>> import nezha_np as nz
    >>> nz.Answer("北京", 2, 4, 0.75)
    Answer(text='北京', start=2, end=4, score=0.75)
    """

    text: str
    start: int
    end: int
    score: float


def answer(
    questions: str | Iterable[str],
    contexts: str | Iterable[str],
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    stride: int = 128,
    max_answer_tokens: int = 30,
    top_k: int = 1,
    impossible: bool = False,
    batch_size: int = 32,
    max_length: int | None = None,
) -> list[list[Answer]]:
    """Find the answers to questions in texts.

    The reference is the question-answering pipeline of transformers.

    Parameters
    ----------
    questions : str or iterable of str
        n questions; one str is one question.
    contexts : str or iterable of str
        A text for each question; one str is that of all questions.
    weights : Weights
        A model with a head for question_answering; none ships with the package.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    stride : int
        How many tokens of a long text neighbouring windows share.
    max_answer_tokens : int
        The most tokens of an answer.
    top_k : int
        How many answers to return for each question, if there are so many.
    impossible : bool
        Whether "no answer" may be an answer: an empty text, with the smallest probability that a window gives to it.
    batch_size : int
        How many windows go through the model together. They are sorted by length first.
    max_length : int, optional
        The largest number of tokens of a window, question and special tokens included. A question that is longer than
        half of it is cut to that. None: what the tokenizer is set to be cut at, else 384, or as many as the model has
        positions.

    Returns
    -------
    list of list of Answer
        For each question the best answers, the best first, each once. Answers are whole words. A text without tokens
        has none.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If there are no weights; there is not one text for each question; an option has a wrong value; the weights have
        no such head; there is no tokenizer, or it does not fit the weights.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.init(nz.load().config, "question_answering")  # not trained
    >>> ((found,),) = nz.answer("早餐几点开始？", "早餐七点开始。", weights, nz.load_tokenizer())
    >>> "早餐七点开始。"[found.start : found.end] == found.text
    True
    """
    weights, tokenizer = choose_trained_model(
        weights, tokenizer, task="question_answering", trained_by="nezha-np finetune --task answer"
    )
    check_tokenizer(tokenizer)
    top_k = check_integer("top_k", top_k, least=1)
    most = check_integer("max_answer_tokens", max_answer_tokens, least=1)
    stride = check_integer("stride", stride, least=0)
    batch_size = check_integer("batch_size", batch_size, least=1)
    check_switches(impossible=impossible)
    asked = check_texts("questions", questions)
    texts = check_texts_of_all("contexts", contexts, asked, "questions")
    size = window_size(max_length, tokenizer, weights.config, default=WINDOW)
    plain = without_truncation_and_padding(tokenizer)
    windowed = [
        make_windows(plain, text, question, size=size, stride=stride)
        for question, text in zip(asked, texts, strict=True)
    ]
    rows = [window.row for text in windowed for window in text.windows]
    names = [f"questions[{number}]" for number, text in enumerate(windowed) for _ in text.windows]
    logits: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for chosen, out in run_in_batches(question_answering, weights, rows, names, batch_size=batch_size):
        both = (to_numpy(array).astype(np.float64) for array in (out.start_logits, out.end_logits))
        for row, start, end in zip(chosen, *both, strict=True):
            length = len(rows[row]["input_ids"])
            logits[row] = start[:length], end[:length]
    found, first = [], 0
    for context, text in zip(texts, windowed, strict=True):
        those = [logits[row] for row in range(first, first + len(text.windows))]
        found.append(_best(context, text, those, most=most, top_k=top_k, impossible=impossible))
        first += len(text.windows)
    return found


def _best(
    context: str,
    text: WindowedText,
    logits: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    most: int,
    top_k: int,
    impossible: bool,
) -> list[Answer]:
    """Return the best answers of all windows; those of overlapping windows that are the same count once."""
    scores: dict[tuple[int, int], float] = {}
    none = math.inf
    for window, (start_logits, end_logits) in zip(text.windows, logits, strict=True):
        inside = window.tokens >= 0
        counted = inside.copy()
        counted[0] = True  # [CLS] stands for no answer
        starts, ends = (
            part - np.logaddexp.reduce(part[counted]) for part in (start_logits, end_logits)
        )  # logarithms of probabilities
        none = min(none, float(np.exp(starts[0] + ends[0])))
        here: set[tuple[int, int]] = set()
        for score, first, last in best_spans(starts, ends, inside, most=most, only_best=top_k == 1):
            place = _whole_words(text, int(window.tokens[first]), int(window.tokens[last]))
            scores[place] = max(scores.get(place, 0.0), math.exp(score))
            here.add(place)
            if len(here) == top_k:
                break
    answers = [Answer(context[start:end], start, end, score) for (start, end), score in scores.items()]
    if impossible:
        answers.append(Answer("", 0, 0, none))
    answers.sort(key=lambda one: -one.score)
    return answers[:top_k]


def _whole_words(text: WindowedText, first: int, last: int) -> tuple[int, int]:
    """Return the first character of the word of a token, and the one after the last character of another's word."""
    words = text.words
    while first > 0 and words[first - 1] == words[first] >= 0:
        first -= 1
    while last + 1 < len(words) and words[last + 1] == words[last] >= 0:
        last += 1
    return int(text.characters[first, 0]), int(text.characters[last, 1])
