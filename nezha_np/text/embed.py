"""Sentence embeddings: one vector for each text.

The transformer makes a vector of each token, `nezha_np.text.pooling` one of all of them, and the steps of
`nezha_np.text.sentence_model` the text's. For a model of sentence-transformers its folder says how
(`nezha_np.text.sentence_folder`).

Dimension letters: n texts, B batch, L length, H hidden size.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nezha_np.arrays import in_statistics_dtype, to_numpy
from nezha_np.checks import check_integer
from nezha_np.families.family import family_of
from nezha_np.model.arguments import Inputs, check_call
from nezha_np.model.model import backbone
from nezha_np.text.defaults import choose_model
from nezha_np.text.encode import encode, encode_and_cut
from nezha_np.text.pooling import OF_FIRST_TOKEN, pool
from nezha_np.text.sentence_folder import choose_sentence_model
from nezha_np.text.sentence_model import SentenceModel, apply_steps, vector_size
from nezha_np.text.sorted_batches import check_row, check_texts, group_by_length, side_by_side_if_small
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def embed(
    texts: str | Iterable[str],
    weights: Weights | None = None,
    tokenizer: Tokenizer | None = None,
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    prompt: str | None = None,
) -> np.ndarray:
    """Turn each text into one vector.

    Where the folder of the weights is one of sentence-transformers (it holds ``modules.json``), the vectors are those
    of sentence-transformers: an option that is None is what the folder says, and one that is given wins over it.

    Parameters
    ----------
    texts : str or iterable of str
        n texts: a list, an array of texts, a generator; one str is one text.
    weights : Weights, optional
        The model; None: the one that ships with the package.
    tokenizer : tokenizers.Tokenizer, optional
        Its tokenizer; None: the one in the folder that the weights were loaded from.
    pooling : str, optional
        What makes one vector of the last hidden states of a text's tokens. "mean": their mean, special tokens included.
        "cls": the first of them. "lasttoken": the last. "max": the largest of each feature. "mean_sqrt_len_tokens":
        their sum, divided by the root of their number. "weightedmean": their mean, weighted by their places 1, 2, ….
        "pooler": the pooler's output. Several, joined by + ("cls+mean"): their vectors, one after the other. None: what
        the folder says, else "mean".
    normalize : bool, optional
        Scale each vector to norm 1, so that the dot product of two is their cosine similarity. None: what the folder
        says, else False.
    batch_size : int
        How many texts go through the model together. Texts are sorted by length first, which saves padding; not for
        ConvBERT, whose convolution reads the padding, so that a text's vector depends on the other texts of its batch.
    max_length : int, optional
        The largest number of tokens of a text, special tokens included; longer texts are cut. None: what the folder
        says, such as its ``max_seq_length``, and a text that is cut gives a UserWarning; without ``modules.json`` what
        the tokenizer is set to (``enable_truncation``), else no text is cut.
    prompt : str, optional
        What is put before each text. None: the default prompt of the folder, which few have.

    Returns
    -------
    (n, H) NumPy array
        A vector for each text, in the order of the texts; float64 for float64 weights, else float32. For no texts
        (0, H). Joined poolings and a Dense of the folder make vectors of other sizes than H.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If a text has no token, or more tokens than a model with learned positions has positions; an option has a value
        that is not listed above; `pooling` is "pooler" and the weights have no pooler; there is no tokenizer, or it
        does not fit the weights; the folder asks for what is not implemented, such as another module, which is named.
    FileNotFoundError
        If there is no tokenizer in the folder that the weights were loaded from, or its ``modules.json`` names a file
        that is missing.

    Examples
    --------
    >>> import nezha_np as nz
    >>> clean, cleaner, book = nz.embed(["房间很干净。", "房间非常干净，很舒服。", "这本书不好看"], normalize=True)
    >>> bool(clean @ cleaner > clean @ book)
    True
    """
    weights, tokenizer = choose_model(weights, tokenizer)
    model = choose_sentence_model(weights, pooling=pooling, normalize=normalize, max_length=max_length, prompt=prompt)
    check_options(tokenizer, model, batch_size=batch_size)
    texts = check_texts("texts", texts)

    names = [f"texts[{index}]" for index in range(len(texts))]
    vectors, cut = embed_sorted(texts, names, weights, tokenizer, model, int(batch_size))
    if model.cut_by and cut.any():
        warnings.warn(
            f"texts are cut after {model.max_length} tokens, {model.cut_by}: max_length sets another", stacklevel=2
        )
    return vectors


def check_options(tokenizer: Tokenizer, model: SentenceModel, *, batch_size: int) -> None:
    """Check what `embed` does not find out without texts.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.
    model : SentenceModel
        How texts become vectors.
    batch_size : int
        How many texts go through the model together.

    Raises
    ------
    TypeError
        If an option has a wrong type.
    ValueError
        If an option has a wrong value.

    Examples
    --------
    >>> import nezha_np as nz
    >>> check_options(nz.load_tokenizer(), SentenceModel(max_length=1), batch_size=32)
    Traceback (most recent call last):
    ...
    ValueError: max_length: expected at least 2, the special tokens, got 1
    """
    check_integer("batch_size", batch_size, least=1)
    encode(tokenizer, "", max_length=model.max_length, stride=0, padding=False)


def embed_sorted(
    texts: Sequence[str],
    names: Sequence[str],
    weights: Weights,
    tokenizer: Tokenizer,
    model: SentenceModel,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn texts into vectors, in batches of texts of similar length; the options were checked before.

    Parameters
    ----------
    texts, names, weights, tokenizer, model
        As for `embed_batch`.
    batch_size : int
        How many texts go through the model together.

    Returns
    -------
    vectors : (n, H) NumPy array
        A vector for each text, in the order of the texts.
    cut : (n,) bool NumPy array
        Which texts have more tokens than the model's `max_length`.

    Examples
    --------
    >>> import nezha_np as nz
    >>> model = SentenceModel(pooling=("cls",), max_length=4)
    >>> names = ["line 1", "line 2", "line 3"]
    >>> vectors, cut = embed_sorted(["房间", "很干净。", "好"], names, nz.load(), nz.load_tokenizer(), model, 2)
    >>> vectors.shape, cut
    ((3, 256), array([False,  True, False]))
    """
    batches: Iterable[list[int]]
    most = model.max_length or sys.maxsize  # tokens of a text
    if family_of(weights.config).reads_padding:  # sorting would change the vectors
        batches = ([*range(len(texts))[start : start + batch_size]] for start in range(0, len(texts), batch_size))
    else:
        batches = group_by_length([min(len(text), most) for text in texts], batch_size, same=False)
    dtype = to_numpy(in_statistics_dtype(weights.word_embeddings[:1, :1])).dtype
    vectors = np.empty((len(texts), vector_size(model, weights.config.hidden_size)), dtype)
    cut = np.zeros(len(texts), bool)

    def run(chosen: list[int]) -> tuple[list[int], tuple[np.ndarray, np.ndarray]]:
        batch, called = [texts[index] for index in chosen], [names[index] for index in chosen]
        return chosen, embed_batch(batch, called, weights, tokenizer, model)

    batches = list(batches)
    most_characters = max((sum(min(len(texts[index]), most) for index in chosen) for chosen in batches), default=0)
    passes = [functools.partial(run, chosen) for chosen in batches]
    for chosen, (found, too_long) in side_by_side_if_small(weights, most_characters, passes):
        vectors[chosen], cut[chosen] = found, too_long
    return vectors, cut


def embed_batch(
    texts: Sequence[str], names: Sequence[str], weights: Weights, tokenizer: Tokenizer, model: SentenceModel
) -> tuple[np.ndarray, np.ndarray]:
    """Turn one batch of texts into vectors; the options were checked before.

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
    model : SentenceModel
        How texts become vectors.

    Returns
    -------
    vectors : (B, H) NumPy array
        A vector for each text.
    cut : (B,) bool NumPy array
        Which texts have more tokens than the model's `max_length`.

    Raises
    ------
    ValueError
        If a text has no token or too many, or the tokenizer does not fit the weights.

    Examples
    --------
    >>> import nezha_np as nz
    >>> model = SentenceModel(pooling=("cls",), max_length=4)
    >>> vectors, cut = embed_batch(["房间", "很干净。"], ["line 1", "line 2"], nz.load(), nz.load_tokenizer(), model)
    >>> vectors.shape, cut
    ((2, 256), array([False,  True]))
    """
    arrays, cut = encode_and_cut(tokenizer, [model.prepare(text) for text in texts], model.max_length)
    mask = arrays["attention_mask"]  # (B, L)
    for name, ids, real in zip(names, arrays["input_ids"], mask == 1, strict=True):
        check_row(name, ids[real], weights.config)
    inputs = Inputs(attention_mask=mask, token_type_ids=arrays["token_type_ids"])
    call = check_call(weights, "embed", arrays["input_ids"], inputs)
    call = dataclasses.replace(call, first_token_alone=OF_FIRST_TOKEN.issuperset(model.pooling))
    out = backbone(weights, call, pooled="pooler" in model.pooling)
    if model.prompt is not None and not model.include_prompt:
        # [CLS] and the prompt; the reference counts its tokens where it stands alone
        alone = dataclasses.replace(model, prompt=None).prepare(model.prompt)
        counted, _ = encode_and_cut(tokenizer, [alone], model.max_length)
        mask = mask * (np.arange(mask.shape[1]) >= counted["input_ids"].shape[1] - 1)
    # Pooling runs on the device of the weights, so that a GPU sends back one vector for each text.
    return apply_steps(model.steps, to_numpy(pool(out, mask, model.pooling))), cut
