"""How good a language model is on text that it was not trained on: loss and accuracy over its masked tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.layers.losses import IGNORE_INDEX
from nezha_np.model.heads import pretraining


def masked_accuracy(
    weights: Any, batches: Iterable[Mapping[str, Any]], head: Callable[..., Any] = pretraining
) -> dict[str, float]:
    """Measure a model on batches with masked tokens, without dropout.

    Parameters
    ----------
    weights : Weights
        The model.
    batches : iterable of mapping of str to array
        Arguments of the head, ``labels`` among them.
    head : callable
        ``nezha_np.pretraining``, or ``nezha_np.masked_lm``.

    Returns
    -------
    dict of str to float
        ``loss``, the mean cross-entropy over all masked tokens; ``accuracy``, the part of them whose most probable
        token is right; and ``next_sentence_accuracy``, where there are pairs.

    Raises
    ------
    ValueError
        If no token is masked.

    Examples
    --------
    >>> import nezha_np as nz
    >>> ids = nz.load_tokenizer().encode("房间很[MASK]净。").ids
    >>> labels = [nz.load_tokenizer().token_to_id("干") if token == 4 else -100 for token in ids]
    >>> masked_accuracy(nz.load(), [{"input_ids": [ids], "labels": [labels]}], nz.masked_lm)["accuracy"]
    1.0
    """
    total, right, count, pairs, pairs_right = 0.0, 0, 0, 0, 0
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if "label" not in name}
        labels = np.asarray(batch["labels"])
        out = head(weights, **inputs, labels=labels, labelled_only=True)
        logits = to_numpy(out.logits if head is not pretraining else out.prediction_logits).astype(np.float64)
        wanted = labels[labels != IGNORE_INDEX]
        largest = logits.max(axis=-1)
        log_sums = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=-1))
        total += float((log_sums - logits[np.arange(wanted.size), wanted]).sum())
        right += int((logits.argmax(axis=-1) == wanted).sum())
        count += wanted.size
        if "next_sentence_label" in batch:
            chosen = to_numpy(out.seq_relationship_logits).argmax(axis=-1)
            pairs_right += int((chosen == np.asarray(batch["next_sentence_label"])).sum())
            pairs += chosen.size
    if not count:
        raise ValueError("batches: expected a masked token at least, found none")
    found = {"loss": total / count, "accuracy": right / count}
    return found | ({"next_sentence_accuracy": pairs_right / pairs} if pairs else {})
