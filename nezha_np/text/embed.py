"""Sentence embeddings: one vector for each text.

A text's vector is the mean of the last hidden states of its tokens, the last hidden state of its first token, or the
pooler's output (Reimers and Gurevych 2019, section 3; ``Pooling`` and ``Normalize`` of sentence-transformers).

Dimension letters: n texts, B batch, L length, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nezha_np.arrays import Array, asarray_like, in_statistics_dtype, namespace, to_numpy
from nezha_np.checks import check_integer
from nezha_np.families.family import family_of
from nezha_np.model.model import forward
from nezha_np.model.outputs import ModelOutput
from nezha_np.text.defaults import choose_model
from nezha_np.text.encode import check_text, encode
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

POOLINGS = ("mean", "cls", "pooler")
SHORTEST = 1e-12  # a vector that is shorter is divided by this number, as torch.nn.functional.normalize does


def embed(
    texts: str | Sequence[str],
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    pooling: str = "mean",
    normalize: bool = False,
    batch_size: int = 32,
    max_length: int | None = None,
) -> np.ndarray:
    """Turn each text into one vector.

    Parameters
    ----------
    texts : str or list of str
        n texts; one str is one text.
    weights : Weights, optional
        The model; None: the one that ships with the package.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    pooling : str
        "mean": the mean of the last hidden states of all tokens, special tokens included. "cls": the last hidden
        state of the first token. "pooler": the pooler's output.
    normalize : bool
        Scale each vector to norm 1, so that the dot product of two is their cosine similarity.
    batch_size : int
        How many texts go through the model together. Texts are sorted by length first, which saves padding; not for
        ConvBERT, whose convolution reads the padding, so that a text's vector depends on the other texts of its batch.
    max_length : int, optional
        The largest number of tokens of a text, special tokens included; longer texts are cut. None: no text is cut.

    Returns
    -------
    (n, H) NumPy array
        A vector for each text, in the order of the texts; float64 for float64 weights, else float32. For no texts
        (0, H).

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If a text has no token, or more tokens than a model with learned positions has positions; an option has a value
        that is not listed above; `pooling` is "pooler" and the weights have no pooler; there is no tokenizer, or it
        does not fit the weights.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from.

    Examples
    --------
    >>> import nezha_np as nz
    >>> clean, cleaner, book = nz.embed(["房间很干净。", "房间非常干净，很舒服。", "这本书不好看"], normalize=True)
    >>> bool(clean @ cleaner > clean @ book)
    True
    """
    weights, tokenizer = choose_model(weights, tokenizer)
    options: dict[str, Any] = {"pooling": pooling, "normalize": normalize, "max_length": max_length}
    check_options(weights, tokenizer, batch_size=batch_size, **options)
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, (list, tuple)):
        raise TypeError(f"texts: expected a str or a list of str, got {type(texts).__name__}")
    for index, text in enumerate(texts):
        check_text(f"texts[{index}]", text)

    order = list(range(len(texts)))
    if not family_of(weights.config).reads_padding:  # else sorting would change the vectors
        order.sort(key=lambda index: len(texts[index]), reverse=True)  # the longest first: errors come early
    dtype = to_numpy(in_statistics_dtype(weights.word_embeddings[:1, :1])).dtype
    vectors = np.empty((len(texts), weights.config.hidden_size), dtype)
    for start in range(0, len(texts), int(batch_size)):
        chosen = order[start : start + int(batch_size)]
        names = [f"texts[{index}]" for index in chosen]
        vectors[chosen] = embed_batch([texts[index] for index in chosen], names, weights, tokenizer, **options)
    return vectors


def check_options(
    weights: Weights, tokenizer: Tokenizer, *, pooling: str, normalize: bool, batch_size: int, max_length: int | None
) -> None:
    """Check the options of `embed`.

    Parameters
    ----------
    weights : Weights
        The model.
    tokenizer : tokenizers.Tokenizer
        Its tokenizer.
    pooling, normalize, batch_size, max_length
        The options of `embed`, which describes them.

    Raises
    ------
    TypeError
        If an option has a wrong type.
    ValueError
        If an option has a wrong value; `embed` says which.

    Examples
    --------
    >>> import nezha_np as nz
    >>> options = {"normalize": True, "batch_size": 32, "max_length": None}
    >>> check_options(nz.load(), nz.load_tokenizer(), pooling="max", **options)
    Traceback (most recent call last):
    ...
    ValueError: pooling: expected one of mean, cls, pooler, got 'max'
    """
    if not isinstance(pooling, str):
        raise TypeError(f"pooling: expected a str, got {type(pooling).__name__}")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, got {pooling!r}")
    if pooling == "pooler" and not weights.has_pooler:
        raise ValueError("pooling: expected mean or cls, because the weights have no pooler, got 'pooler'")
    if not isinstance(normalize, (bool, np.bool_)):
        raise TypeError(f"normalize: expected True or False, got {normalize!r}")
    check_integer("batch_size", batch_size, least=1)
    encode(tokenizer, "", max_length=max_length)  # checks both, also where there are no texts


def embed_batch(
    texts: Sequence[str],
    names: Sequence[str],
    weights: Weights,
    tokenizer: Tokenizer,
    *,
    pooling: str,
    normalize: bool,
    max_length: int | None,
) -> np.ndarray:
    """Turn one batch of texts into vectors; the options are those of `embed`, and were checked before.

    Parameters
    ----------
    texts : sequence of str
        B texts, at least one; `check_text` was called on each.
    names : sequence of str
        What to call each of them in an error.
    weights : Weights
        The model.
    tokenizer : tokenizers.Tokenizer
        Its tokenizer.
    pooling, normalize, max_length
        The options of `embed`.

    Returns
    -------
    (B, H) NumPy array
        A vector for each text.

    Raises
    ------
    ValueError
        If a text has no token or too many, or the tokenizer does not fit the weights.

    Examples
    --------
    >>> import nezha_np as nz
    >>> options = {"pooling": "cls", "normalize": False, "max_length": None}
    >>> embed_batch(["房间", "很干净。"], ["line 1", "line 2"], nz.load(), nz.load_tokenizer(), **options).shape
    (2, 128)
    """
    batch: dict[str, Any] = dict(encode(tokenizer, list(texts), max_length=max_length))
    _check_lengths(names, batch["attention_mask"].sum(axis=1), weights.config.longest_text)
    highest = batch["input_ids"].max()
    if highest >= weights.config.vocab_size:
        raise ValueError(f"tokenizer: expected ids from 0 to {weights.config.vocab_size - 1}, got id {highest}")
    # Pooling runs on the device of the weights, so that a GPU sends back one vector for each text.
    vectors = to_numpy(_pool(forward(weights, **batch), batch["attention_mask"], pooling))
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), SHORTEST) if normalize else vectors


def _check_lengths(names: Sequence[str], lengths: np.ndarray, most: int | None) -> None:
    for name, length in zip(names, lengths, strict=True):
        if length == 0:
            raise ValueError(f"{name}: expected at least one token, got none")
        if most is not None and length > most:
            raise ValueError(
                f"{name}: expected at most {most} tokens, because the model has no more positions, got {length}; "
                f"max_length cuts longer texts"
            )


def _pool(out: ModelOutput, attention_mask: np.ndarray, pooling: str) -> Array:
    if pooling == "pooler":
        assert out.pooler_output is not None  # check_options asks for a pooler
        return in_statistics_dtype(out.pooler_output)
    if pooling == "cls":
        return in_statistics_dtype(out.last_hidden_state[:, 0, :])
    x = in_statistics_dtype(out.last_hidden_state)  # (B, L, H)
    xp, mask = namespace(x), asarray_like(x, attention_mask[:, :, None])  # (B, L, 1)
    mean: Array = xp.sum(x * mask, axis=1) / xp.sum(mask, axis=1)
    return mean
