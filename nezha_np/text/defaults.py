"""The model and the tokenizer of a call that leaves them out."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from nezha_np.text.tokenizer import load_tokenizer
from nezha_np.weights.checkpoint import load
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@functools.cache
def shipped_weights() -> Weights:
    """Load the model that ships with the package, once.

    Examples
    --------
    >>> shipped_weights()
    Weights(nezha, 77 tensors, 1,730,138 parameters, float32)
    """
    return load()


def choose_model(weights: Weights | None, tokenizer: Tokenizer | None) -> tuple[Weights, Tokenizer]:
    """Choose what was left out: the shipped model, and the tokenizer in the folder that the weights came from.

    Parameters
    ----------
    weights : Weights or None
        The weights; None: the model that ships with the package.
    tokenizer : tokenizers.Tokenizer or None
        Its tokenizer; None: the one in the folder that the weights were loaded from.

    Returns
    -------
    Weights, tokenizers.Tokenizer
        What was given or chosen.

    Raises
    ------
    TypeError
        If the weights are no `Weights`.
    ValueError
        If there is no tokenizer, and the weights were not loaded from a folder.
    FileNotFoundError
        If there is no tokenizer in that folder.

    Examples
    --------
    >>> weights, tokenizer = choose_model(None, None)
    >>> weights.config.vocab_size == tokenizer.get_vocab_size()
    True
    """
    if weights is None:
        weights = shipped_weights()
    if not isinstance(weights, Weights):
        raise TypeError(f"weights: expected Weights or None, got {type(weights).__name__}")
    if tokenizer is None:
        if weights.source is None:
            raise ValueError("tokenizer: expected one, because the weights were not loaded from a folder, got None")
        tokenizer = _tokenizer_of(weights.source)
    return weights, tokenizer


@functools.lru_cache(maxsize=4)
def _tokenizer_of(folder: Any) -> Tokenizer:
    return load_tokenizer(folder)
