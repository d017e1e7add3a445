"""Classify texts: from texts to the names of their classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.checks import check_integer
from nezha_np.families.config import Config
from nezha_np.layers.softmax import softmax
from nezha_np.model.heads import sequence_classification
from nezha_np.text.defaults import choose_model
from nezha_np.text.sorted_batches import check_as_many, check_texts, check_top_k, make_rows, run_in_batches
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Label:
    """A class of a text.

    Attributes
    ----------
    label : str
        Its name, as ``id2label`` of the configuration says.
    score : float
        Its probability; the number itself for a regression.

    Examples
    --------
    >>> import nezha_np as nz
    >>> nz.Label("positive", 0.75)
    Label(label='positive', score=0.75)
    """

    label: str
    score: float


def classify(
    texts: str | Iterable[str],
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    pairs: str | Iterable[str] | None = None,
    top_k: int | None = 1,
    batch_size: int = 32,
    max_length: int | None = None,
) -> list[list[Label]]:
    """Classify texts, or pairs of texts.

    The reference is the text-classification pipeline of transformers.

    Parameters
    ----------
    texts : str or iterable of str
        n texts; one str is one text.
    weights : Weights, optional
        A model with a head for sequence_classification; None: the one for Chinese reviews, positive or negative, that
        ships with the package.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    pairs : str or iterable of str, optional
        A second text for each text.
    top_k : int, optional
        How many classes to return for each text, if it has so many; None: all.
    batch_size : int
        How many texts go through the model together. Texts are sorted by length first.
    max_length : int, optional
        The largest number of tokens of a text, or of a pair, special tokens included; longer ones are cut. None: no
        text is cut.

    Returns
    -------
    list of list of Label
        For each text its classes, the one with the highest score first. ``problem_type`` of the configuration says what
        the scores are: probabilities that add up to 1 (single_label_classification), independent probabilities
        (multi_label_classification), or the numbers of the model (regression). Where it says nothing, one class has a
        probability by itself, and several add up to 1.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If there is not one pair for each text; a text has more tokens than a model with learned positions has
        positions; the weights have no such head; there is no tokenizer, or it does not fit the weights.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from.

    Examples
    --------
    >>> import nezha_np as nz
    >>> [best.label for best, *_ in nz.classify(["房间很干净，服务也好。", "又脏又吵，不会再来。"])]
    ['positive', 'negative']
    """
    weights, tokenizer = choose_model(weights, tokenizer, head="sentiment")
    weights.require("sequence_classification")
    top_k, batch_size = check_top_k(top_k), check_integer("batch_size", batch_size, least=1)
    firsts = check_texts("texts", texts)
    seconds = None if pairs is None else check_texts("pairs", pairs)
    if seconds is not None:
        check_as_many("pairs", seconds, firsts)
    rows = make_rows(tokenizer, firsts, seconds, max_length=max_length)
    names = [f"texts[{index}]" for index in range(len(firsts))]
    found: dict[int, list[Label]] = {}
    for chosen, out in run_in_batches(sequence_classification, weights, rows, names, batch_size=batch_size):
        scores = class_scores(to_numpy(out.logits).astype(np.float64), weights.config)  # (B, C)
        found |= {index: best_labels(row, weights.config, top_k) for index, row in zip(chosen, scores, strict=True)}
    return [found[index] for index in range(len(firsts))]


def class_scores(logits: np.ndarray, config: Config) -> np.ndarray:
    """Turn the logits of classes into scores, as the problem's type says.

    Parameters
    ----------
    logits : (B, C) array
        The logits.
    config : Config
        Its `problem_type` says whether the classes exclude each other, or are numbers.

    Returns
    -------
    (B, C) array
        Probabilities, or the numbers of a regression.

    Examples
    --------
    >>> import nezha_np as nz
    >>> class_scores(np.array([[0.0, 0.0]]), nz.BertConfig(num_labels=2)).tolist()
    [[0.5, 0.5]]
    """
    if config.problem_type == "regression":
        return logits
    if config.problem_type == "multi_label_classification" or logits.shape[-1] == 1:
        return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))  # the sigmoid, without overflow
    return to_numpy(softmax(logits))


def best_labels(scores: np.ndarray, config: Config, top_k: int | None) -> list[Label]:
    """Name the classes of a text, the one with the highest score first.

    Parameters
    ----------
    scores : (C,) array
        The scores.
    config : Config
        Its `id2label` has the names.
    top_k : int or None
        How many; None: all.

    Returns
    -------
    list of Label
        The classes.

    Examples
    --------
    >>> import nezha_np as nz
    >>> best_labels(np.array([0.25, 0.75]), nz.BertConfig(id2label={0: "no", 1: "yes"}), 1)
    [Label(label='yes', score=0.75)]
    """
    names = config.id2label or {}
    order = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return [Label(names[index], float(scores[index])) for index in order]
