"""The default model and the default tokenizer of a call."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from nezha_np.text.tokenizer import load_tokenizer
from nezha_np.weights.checkpoint import load
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@functools.cache
def shipped_weights() -> Weights:
    """Load the model that ships with the package; later calls return the same weights.

    Returns
    -------
    Weights
        The weights.

    Examples
    --------
    >>> shipped_weights()
    Weights(nezha, 77 tensors, 3,975,386 parameters, float32)
    """
    return load()


def choose_model(weights: Weights | None, tokenizer: Tokenizer | None) -> tuple[Weights, Tokenizer]:
    """Fill in the defaults: the shipped model, and the tokenizer in the folder that the weights were loaded from.

    Parameters
    ----------
    weights : Weights or None
        The weights; None: the model that ships with the package.
    tokenizer : tokenizers.Tokenizer or None
        Its tokenizer; None: the one in the folder that the weights were loaded from.

    Returns
    -------
    tuple of (Weights, tokenizers.Tokenizer)
        The arguments, or their defaults.

    Raises
    ------
    TypeError
        If `weights` is not `Weights`.
    ValueError
        If `tokenizer` is None and the weights were not loaded from a folder.
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
        tokenizer = _load_tokenizer_once(weights.source)
    return weights, tokenizer


@functools.lru_cache(maxsize=4)
def _load_tokenizer_once(folder: str | os.PathLike[str]) -> Tokenizer:
    return load_tokenizer(folder)
