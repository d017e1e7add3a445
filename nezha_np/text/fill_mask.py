"""Fill the masks of a text: from text to the likeliest word pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.checks import check_integer
from nezha_np.layers.softmax import softmax
from nezha_np.model.heads import masked_lm
from nezha_np.text.defaults import choose_model
from nezha_np.text.encode import encode
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def fill_mask(
    text: str,
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    top_k: int = 5,
    mask_token: str = "[MASK]",
) -> list[list[tuple[str, int, float]]]:
    """Predict the word pieces that are masked in a text.

    Parameters
    ----------
    text : str
        A text with one ``[MASK]`` or more.
    weights : Weights, optional
        A model with a language-model head; None: the one that ships with the package.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    top_k : int
        How many word pieces to return for each mask.
    mask_token : str
        The mask token, where the tokenizer has another name for it.

    Returns
    -------
    list of list of (str, int, float)
        For each ``[MASK]`` the likeliest word pieces, the likeliest first: token, id and probability.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If the text has no ``[MASK]``; `top_k` is less than 1 or more than the size of the vocabulary; there is no
        tokenizer, or it does not fit the weights; or the weights have no language-model head.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from.

    Examples
    --------
    >>> import nezha_np as nz
    >>> [[(token, id, probability), *_]] = nz.fill_mask("房间很[MASK]净。")
    >>> token, round(probability, 2)
    ('干', 0.98)
    """
    if not isinstance(text, str):
        raise TypeError(f"text: expected a str, got {type(text).__name__}")
    weights, tokenizer = choose_model(weights, tokenizer)
    top_k = check_integer("top_k", top_k, least=1, most=weights.config.vocab_size)
    if not isinstance(mask_token, str):
        raise TypeError(f"mask_token: expected a str, got {type(mask_token).__name__}")
    batch: dict[str, Any] = dict(encode(tokenizer, [text]))
    highest, mask_id = batch["input_ids"].max(initial=0), tokenizer.token_to_id(mask_token)
    if mask_id is None and mask_token != "[MASK]":
        raise ValueError(f"mask_token: expected a token of the vocabulary, got {mask_token!r}")
    if mask_id is None or highest >= weights.config.vocab_size:
        wrong = f"one without {mask_token}" if mask_id is None else f"id {highest}"
        most = weights.config.vocab_size - 1
        raise ValueError(f"tokenizer: expected {mask_token} and ids from 0 to {most}, got {wrong}")
    masked = np.flatnonzero(batch["input_ids"][0] == mask_id)
    if not masked.size:
        raise ValueError(f"text: expected at least one {mask_token}, got {text!r}")
    logits: np.ndarray = to_numpy(masked_lm(weights, **batch).logits)[0, masked].astype(np.float64)  # (masks, V)
    probs = to_numpy(softmax(logits))
    best = np.argsort(-probs, axis=-1, kind="stable")[:, :top_k]
    return [
        [(tokenizer.id_to_token(int(index)) or "", int(index), float(row[index])) for index in order]
        for row, order in zip(probs, best, strict=True)
    ]
