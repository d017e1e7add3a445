"""Classify texts by descriptions of the classes, with a model that was trained for inference alone.

Such a model tells whether a second text follows from a first one. The second text here is a sentence about a class
("这句话是关于体育的。"), so classes need no training of their own.

Dimension letters: n texts, m labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.checks import check_integer, check_switches
from nezha_np.families.config import Config
from nezha_np.layers.softmax import softmax
from nezha_np.model.heads import sequence_classification
from nezha_np.text.classify import Label
from nezha_np.text.defaults import choose_trained_model
from nezha_np.text.sorted_batches import check_texts, make_rows, run_in_batches
from nezha_np.text.truncation import Strategy
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEMPLATE = "这句话是关于{}的。"
ENTAILMENT, CONTRADICTION = ("entail", "蕴含", "蕴涵"), ("contradict", "矛盾")  # how the names of the classes begin


def classify_by_description(
    texts: str | Iterable[str],
    labels: Iterable[str],
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    template: str = TEMPLATE,
    multi_label: bool = False,
    batch_size: int = 32,
    max_length: int | None = None,
) -> list[list[Label]]:
    """Classify texts by labels that the model has not been trained for.

    The reference is the zero-shot-classification pipeline of transformers.

    Parameters
    ----------
    texts : str or iterable of str
        n texts; one str is one text.
    labels : iterable of str
        m labels, the same for all texts.
    weights : Weights
        A model with a head for sequence_classification that was trained for inference: it has a class whose name in
        ``id2label`` begins with "entail", "蕴含" or "蕴涵". None ships with the package.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    template : str
        The sentence that is made of each label, which takes the place of ``{}``.
    multi_label : bool
        Whether several labels may fit a text: each then has a probability by itself, that of entailment against
        contradiction. False: those of all labels add up to 1.
    batch_size : int
        How many pairs of a text and a label go through the model together. They are sorted by length first.
    max_length : int, optional
        The largest number of tokens of a pair, special tokens included; of longer ones the text is cut. None: none
        is cut.

    Returns
    -------
    list of list of Label
        For each text all labels, the most probable first.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If there are no weights, or they have no class of entailment, or no head; there are no labels, or the template
        has no place for one; a pair has more tokens than a model with learned positions has positions; there is no
        tokenizer, or it does not fit the weights.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from.

    Examples
    --------
    >>> import nezha_np as nz
    >>> config = nz.load().config.replace(num_labels=2, id2label={0: "no", 1: "entailment"}, label2id=None)
    >>> weights = nz.init(config, "sequence_classification")  # not trained
    >>> (found,) = nz.classify_by_description("球队赢了。", ["体育", "财经"], weights, nz.load_tokenizer())
    >>> sorted(label.label for label in found), round(sum(label.score for label in found), 6)
    (['体育', '财经'], 1.0)
    """
    weights, tokenizer = choose_trained_model(
        weights, tokenizer, task="sequence_classification", trained_by="nezha-np finetune --task pairs"
    )
    entailment, contradiction = _classes_of_inference(weights.config)
    check_switches(multi_label=multi_label)
    batch_size = check_integer("batch_size", batch_size, least=1)
    firsts = check_texts("texts", texts)
    if isinstance(labels, str):
        raise TypeError("labels: expected a list of str, got str")
    wanted = check_texts("labels", labels)
    if not wanted:
        raise ValueError("labels: expected at least one label, got none")
    if not isinstance(template, str):
        raise TypeError(f"template: expected a str, got {type(template).__name__}")
    if "{}" not in template:
        raise ValueError(f"template: expected a sentence with {{}} where the label stands, got {template!r}")

    hypotheses = [template.replace("{}", label) for label in wanted]
    pairs = [(text, hypothesis) for text in firsts for hypothesis in hypotheses]
    cut: Strategy | None = None if max_length is None else "only_first"
    rows = make_rows(tokenizer, *zip(*pairs, strict=True), max_length=max_length, truncation=cut) if pairs else []
    names = [f"texts[{index}] with {label!r}" for index in range(len(firsts)) for label in wanted]
    logits = np.zeros((len(pairs), 2))
    for chosen, out in run_in_batches(sequence_classification, weights, rows, names, batch_size=batch_size):
        logits[chosen] = to_numpy(out.logits)[:, [contradiction, entailment]]
    by_text = logits.reshape(len(firsts), len(wanted), 2)
    if multi_label or len(wanted) == 1:
        scores = to_numpy(softmax(by_text))[..., 1]  # (n, m)
    else:
        scores = to_numpy(softmax(by_text[..., 1]))
    order = np.argsort(-scores, axis=-1, kind="stable")
    return [
        [Label(wanted[index], float(row[index])) for index in best.tolist()]
        for row, best in zip(scores, order, strict=True)
    ]


def _classes_of_inference(config: Config) -> tuple[int, int]:
    """Find the numbers of the classes of entailment and of contradiction."""
    names: Mapping[int, str] = config.id2label or {}
    found = [
        next((index for index, name in sorted(names.items()) if name.lower().startswith(begins)), None)
        for begins in (ENTAILMENT, CONTRADICTION)
    ]
    entailment, contradiction = found
    if entailment is None or len(names) < 2:
        raise ValueError(
            "weights: expected a model of inference, with a class whose name in id2label begins with entail, 蕴含 or "
            f"蕴涵, got one with {', '.join(names.values())}"
        )
    if contradiction is None:  # as in the reference
        contradiction = max(names) if entailment == 0 else 0
    return entailment, contradiction
