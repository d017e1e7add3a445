"""Pooling: from the last hidden states of a text's tokens to one vector.

With the tokens t = 1 … n of a text and their last hidden states x_t:

    cls                   x_1
    max                   max_t x_t, for each feature
    mean                  Σ_t x_t / n
    mean_sqrt_len_tokens  Σ_t x_t / √n
    weightedmean          Σ_t t x_t / Σ_t t                                (Muennighoff 2022)
    lasttoken             x_n
    pooler                the pooler's output, tanh(W x_1 + b)

The names are those of ``Pooling`` of sentence-transformers 2.7.0 (Reimers and Gurevych 2019, section 3), which has no
pooler.

Dimension letters: B batch, L length, H hidden size.
"""

from __future__ import annotations

import numpy as np

from nezha_np.arrays import Array, asarray_like, in_statistics_dtype, namespace
from nezha_np.model.outputs import ModelOutput

POOLINGS = ("mean", "cls", "pooler", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
OF_FIRST_TOKEN = frozenset({"cls", "pooler"})  # which read no other token
PADDING = -1e9  # what the maximum sees in the place of a token that does not count
FEWEST = 1e-9  # a smaller number of tokens, which is none, is replaced by this one


def parse_pooling(pooling: str) -> tuple[str, ...]:
    """Return the parts of a pooling, whose vectors are joined.

    Parameters
    ----------
    pooling : str
        One of `POOLINGS`, or several, joined by +.

    Returns
    -------
    tuple of str
        The parts.

    Raises
    ------
    TypeError
        If it is no str.
    ValueError
        If a part is not one of `POOLINGS`.

    Examples
    --------
    >>> parse_pooling("cls+mean")
    ('cls', 'mean')
    """
    if not isinstance(pooling, str):
        raise TypeError(f"pooling: expected a str or None, got {type(pooling).__name__}")
    parts = tuple(pooling.split("+"))
    if any(part not in POOLINGS for part in parts):
        raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, or several joined by +, got {pooling!r}")
    return parts


def pool(out: ModelOutput, mask: np.ndarray, poolings: tuple[str, ...]) -> Array:
    """Pool each text of a batch.

    Parameters
    ----------
    out : ModelOutput
        What the model makes of the batch.
    mask : (B, L) int64 NumPy array
        1 for the tokens that count, and 0 for the others.
    poolings : tuple of str
        Which of `POOLINGS`.

    Returns
    -------
    (B, H · number of poolings) float array
        The vectors, in the library and on the device of the hidden states, and in float32 at least.

    Examples
    --------
    >>> import nezha_np as nz
    >>> batch = nz.encode(nz.load_tokenizer(), ["房间", "很干净。"])
    >>> pool(nz.forward(nz.load(), **batch), batch["attention_mask"], ("mean", "max")).shape
    (2, 512)
    """
    vectors = [_pool(out, mask, pooling) for pooling in poolings]
    return vectors[0] if len(vectors) == 1 else namespace(vectors[0]).concat(vectors, axis=1)


def _pool(out: ModelOutput, mask: np.ndarray, pooling: str) -> Array:
    if pooling == "pooler":
        assert out.pooler_output is not None  # `choose_sentence_model` asks for a pooler
        return in_statistics_dtype(out.pooler_output)
    if pooling == "cls":
        return in_statistics_dtype(out.last_hidden_state[:, 0, :])
    x = in_statistics_dtype(out.last_hidden_state)  # (B, L, H)
    xp = namespace(x)
    if pooling == "max":
        largest: Array = xp.max(xp.where(asarray_like(x, mask[:, :, None]) > 0, x, asarray_like(x, PADDING)), axis=1)
        return largest
    length = mask.shape[1]
    if pooling == "weightedmean":
        mask = mask * np.arange(1, length + 1)
    if pooling == "lasttoken":  # the last token that counts; of no tokens the mask makes a vector of zeros
        last = length - 1 - np.argmax(mask[:, ::-1] > 0, axis=1)
        mask = mask * (np.arange(length) == last[:, None])
    weights = asarray_like(x, mask[:, :, None])  # (B, L, 1)
    total: Array = xp.sum(x * weights, axis=1)
    if pooling == "lasttoken":
        return total
    count = np.maximum(mask.sum(axis=1, keepdims=True), FEWEST)
    return total / asarray_like(x, np.sqrt(count) if pooling == "mean_sqrt_len_tokens" else count)
