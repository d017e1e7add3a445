"""The default model and the default tokenizer of a call."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from nezha_np.text.tokenizer import load_tokenizer
from nezha_np.weights.checkpoint import SHIPPED, load
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@functools.cache
def shipped_weights(head: str = "") -> Weights:
    """Load the model that ships with the package; later calls return the same weights.

    Parameters
    ----------
    head : str
        The task head that ships beside it: "sentiment" or "names"; "": the model itself.

    Returns
    -------
    Weights
        The weights.

    Examples
    --------
    >>> shipped_weights()
    Weights(nezha, 77 tensors, 3,975,386 parameters, float32)
    """
    return load(SHIPPED / head) if head else load()


def choose_model(weights: Weights | None, tokenizer: Tokenizer | None, *, head: str = "") -> tuple[Weights, Tokenizer]:
    """Fill in the defaults: the shipped model, and the tokenizer in the folder that the weights were loaded from.

    Parameters
    ----------
    weights : Weights or None
        The weights; None: the model that ships with the package.
    tokenizer : tokenizers.Tokenizer or None
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    head : str
        The task head beside the shipped model that is the default; "": the model itself.

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
        weights = shipped_weights(head)
    if not isinstance(weights, Weights):
        raise TypeError(f"weights: expected Weights or None, got {type(weights).__name__}")
    if tokenizer is None:
        if weights.source is None:
            raise ValueError("tokenizer: expected one, because the weights were not loaded from a folder, got None")
        tokenizer = load_tokenizer_once(weights.source)
    return weights, tokenizer


@functools.lru_cache(maxsize=4)
def load_tokenizer_once(folder: str | os.PathLike[str]) -> Tokenizer:
    """Load a tokenizer; later calls with the same folder return the same one.

    Parameters
    ----------
    folder : path
        Its folder.

    Returns
    -------
    tokenizers.Tokenizer
        The tokenizer.

    Examples
    --------
    >>> load_tokenizer_once(SHIPPED) is load_tokenizer_once(SHIPPED)
    True
    """
    return load_tokenizer(folder)


def choose_trained_model(
    weights: Weights | None, tokenizer: Tokenizer | None, *, task: str, trained_by: str
) -> tuple[Weights, Tokenizer]:
    """Fill in the default of the tokenizer for a task that no shipped model was trained for.

    Parameters
    ----------
    weights, tokenizer
        As for `choose_model`.
    task : str
        The task, such as "question_answering".
    trained_by : str
        What trains a model for it.

    Returns
    -------
    tuple of (Weights, tokenizers.Tokenizer)
        The arguments, or the default.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        As in `choose_model`; and a ValueError without weights, or if they lack a tensor of the head.

    Examples
    --------
    >>> choose_trained_model(None, None, task="question_answering", trained_by="nezha-np finetune --task answer")
    Traceback (most recent call last):
    ...
    ValueError: weights: expected a model that was trained for question_answering, got None, and none ships with the \
package; nezha-np finetune --task answer trains one
    """
    if weights is None:
        raise ValueError(
            f"weights: expected a model that was trained for {task}, got None, and none ships with the package; "
            f"{trained_by} trains one"
        )
    weights, tokenizer = choose_model(weights, tokenizer)
    weights.require(task)
    return weights, tokenizer
