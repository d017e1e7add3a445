"""Choose between answers: which of several choices fits a question best."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.checks import check_integer
from nezha_np.families.family import family_of
from nezha_np.layers.softmax import softmax
from nezha_np.model.heads import multiple_choice
from nezha_np.text.defaults import choose_trained_model
from nezha_np.text.sorted_batches import (
    check_as_many,
    check_texts,
    check_texts_of_all,
    check_top_k,
    make_rows,
    run_in_batches,
)
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice of a question.

    Attributes
    ----------
    text : str
        The choice.
    index : int
        Its number among the choices of its question, from 0.
    score : float
        Its probability among them.

    Examples
    --------
    >>> import nezha_np as nz
    >>> nz.Choice("北京", 1, 0.75)
    Choice(text='北京', index=1, score=0.75)
    """

    text: str
    index: int
    score: float


def choose(
    questions: str | Iterable[str],
    choices: Iterable[Sequence[str]],
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    contexts: str | Iterable[str] | None = None,
    top_k: int | None = 1,
    batch_size: int = 32,
    max_length: int | None = None,
) -> list[list[Choice]]:
    """Find the choice that fits each question best.

    The reference is NezhaForMultipleChoice on pairs of the question and each choice. With a context the pairs are those
    of `nezha-np finetune --task choose`: the context, and the question with the choice behind it.

    Parameters
    ----------
    questions : str or iterable of str
        n questions; one str is one question.
    choices : iterable of sequences of str
        The choices of each question; for one str as the question, its choices.
    weights : Weights
        A model with a head for multiple_choice; none ships with the package.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    contexts : str or iterable of str, optional
        A text for each question, in which the answer stands; one str is that of all questions.
    top_k : int, optional
        How many choices to return for each question, if it has so many; None: all.
    batch_size : int
        How many choices go through the model together. They are sorted by length first.
    max_length : int, optional
        The largest number of tokens of a pair, special tokens included; longer ones are cut. None: none is cut.

    Returns
    -------
    list of list of Choice
        For each question its choices, the most probable first.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If there are no weights; a question has no choice; there are not as many choices or contexts as questions; a
        pair has more tokens than a model with learned positions has positions; the weights have no such head; there is
        no tokenizer, or it does not fit the weights.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from.

    Examples
    --------
    >>> import nezha_np as nz
    >>> weights = nz.init(nz.load().config, "multiple_choice")  # not trained
    >>> ((best,),) = nz.choose("早餐几点开始？", ["七点。", "在一楼。"], weights, nz.load_tokenizer())
    >>> best.text in ("七点。", "在一楼。")
    True
    """
    weights, tokenizer = choose_trained_model(
        weights, tokenizer, task="multiple_choice", trained_by="nezha-np finetune --task choose"
    )
    top_k, batch_size = check_top_k(top_k), check_integer("batch_size", batch_size, least=1)
    asked = check_texts("questions", questions)
    offered = _check_choices(choices, one=isinstance(questions, str))
    check_as_many("choices", offered, asked, "questions")
    before = [None] * len(asked) if contexts is None else check_texts_of_all("contexts", contexts, asked, "questions")

    firsts: list[str] = []
    seconds: list[str] = []
    names: list[str] = []
    groups: list[list[int]] = []
    for number, (context, question, some) in enumerate(zip(before, asked, offered, strict=True)):
        groups.append(list(range(len(firsts), len(firsts) + len(some))))
        firsts += [question if context is None else context] * len(some)
        seconds += list(some) if context is None else [question + choice for choice in some]
        names += [f"choices[{number}][{index}]" for index in range(len(some))]
    rows = make_rows(tokenizer, firsts, seconds, max_length=max_length)
    logits = np.zeros(len(rows))
    # A model that reads the padding scores the choices of a question as it was trained to: padded to one length.
    together = groups if family_of(weights.config).reads_padding else None
    pad_id = tokenizer.padding["pad_id"] if tokenizer.padding else tokenizer.token_to_id("[PAD]")
    runs = run_in_batches(_score, weights, rows, names, batch_size=batch_size, groups=together, pad_id=pad_id)
    for chosen, out in runs:
        logits[chosen] = to_numpy(out.logits)[:, 0]
    return [_best(some, logits[group], top_k) for some, group in zip(offered, groups, strict=True)]


def _score(weights: Weights, **batch: Any) -> Any:
    """Score pairs, each as the only choice of a question: a score does not depend on the other choices."""
    return multiple_choice(weights, **{name: array[:, None] for name, array in batch.items()})


def _best(choices: Sequence[str], logits: np.ndarray, top_k: int | None) -> list[Choice]:
    scores = to_numpy(softmax(logits))
    order = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return [Choice(choices[index], index, float(scores[index])) for index in order]


def _check_choices(choices: Any, *, one: bool) -> list[list[str]]:
    if isinstance(choices, str | bytes | dict) or not isinstance(choices, Iterable):
        raise TypeError(f"choices: expected a list of choices for each question, got {type(choices).__name__}")
    offered = list(choices)
    if one and all(isinstance(choice, str) for choice in offered):
        offered = [offered]
    found = []
    for number, some in enumerate(offered):
        if isinstance(some, str):
            raise TypeError(f"choices[{number}]: expected the list of the choices of a question, got str")
        found.append(check_texts(f"choices[{number}]", some))
        if not found[-1]:
            raise ValueError(f"choices[{number}]: expected at least one choice, got none")
    return found
