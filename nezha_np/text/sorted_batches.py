"""Batches of texts sorted by length, whose results come back in the order of the texts.

Rows of one length need no padding. So texts are encoded first, the longest go through the model first, and errors of a
text that is too long come early. A model that reads the padding (ConvBERT) gets rows of one length only, so that a
text's result does not depend on the other texts.

Dimension letters: B batch, L length.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nezha_np.checks import check_integer
from nezha_np.families.config import Config
from nezha_np.families.family import family_of
from nezha_np.layers.losses import IGNORE_INDEX
from nezha_np.mechanism.layer import one_by_one, side_by_side
from nezha_np.text.encode import check_text, encode
from nezha_np.text.truncation import Strategy
from nezha_np.weights.weights import Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Row = dict[str, np.ndarray]  # the arguments of a model for one text, (L,) each
TOGETHER = 64  # texts that are encoded, and so padded, at once
MOST_PADDING = 0.05  # of a batch that has enough tokens to keep products fast
ENOUGH_TOKENS = 512
SMALL_PASS = 2**20  # tokens times features: a pass of fewer leaves its threads waiting for each other
Result = TypeVar("Result")


def check_texts(name: str, value: Any) -> list[str]:
    """Check texts, and make a list of them.

    Parameters
    ----------
    name : str
        What to call them in an error.
    value : str, or iterable of str
        One text, or several: a list, an array of texts, a generator.

    Returns
    -------
    list of str
        The texts.

    Raises
    ------
    TypeError
        If they are something else.
    ValueError
        If one of them is not valid Unicode.

    Examples
    --------
    >>> check_texts("texts", "房间"), check_texts("texts", np.array(["房间", "价格"]))
    (['房间'], ['房间', '价格'])
    """
    if isinstance(value, str):
        value = [value]
    if isinstance(value, bytes | bytearray | dict) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{name}: expected a str or a list of str, got {type(value).__name__}")
    texts = list(value)
    for index, text in enumerate(texts):
        check_text(f"{name}[{index}]", text)
    return [str(text) for text in texts]


def check_as_many(name: str, values: Sequence[Any], wanted: Sequence[Any], what: str = "texts") -> None:
    """Check that there is one value for each text.

    Examples
    --------
    >>> check_as_many("pairs", ["a"], ["b", "c"])
    Traceback (most recent call last):
    ...
    ValueError: pairs: expected one for each of the 2 texts, got 1
    """
    if len(values) != len(wanted):
        raise ValueError(f"{name}: expected one for each of the {len(wanted)} {what}, got {len(values)}")


def check_texts_of_all(name: str, value: Any, wanted: Sequence[Any], what: str) -> list[str]:
    """Check texts of which there is one for each of something, or one str for all, and make a list of them.

    Examples
    --------
    >>> check_texts_of_all("contexts", "早餐七点开始。", ["几点？", "什么？"], "questions")
    ['早餐七点开始。', '早餐七点开始。']
    """
    texts = check_texts(name, value)
    if isinstance(value, str):
        texts *= len(wanted)
    check_as_many(name, texts, wanted, what)
    return texts


def make_rows(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int | None = None,
    truncation: Strategy | None = None,
    offsets: bool = False,
) -> list[Row]:
    """Turn texts into rows without padding.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        The tokenizer.
    texts : sequence of str
        Texts that were checked.
    pairs : sequence of str, optional
        A second text for each.
    max_length, truncation
        As for `nezha_np.encode`.
    offsets : bool
        Whether the rows have an ``offset_mapping``.

    Returns
    -------
    list of dict of (L,) int64 arrays
        A row for each text.

    Examples
    --------
    >>> import nezha_np as nz
    >>> [row["input_ids"].tolist() for row in make_rows(nz.load_tokenizer(), ["你好", "好"])]
    [[2, 318, 1161, 3], [2, 1161, 3]]
    """
    if not texts:
        encode(tokenizer, "", max_length=max_length)  # a wrong argument is an error without texts too
    lengths = [len(text) for text in texts]
    if pairs is not None:
        lengths = [length + len(pair) for length, pair in zip(lengths, pairs, strict=True)]
    rows: dict[int, Row] = {}
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    for start in range(0, len(order), TOGETHER):
        chosen = order[start : start + TOGETHER]
        batch: dict[str, Any] = dict(
            encode(
                tokenizer,
                [texts[index] for index in chosen],
                None if pairs is None else [pairs[index] for index in chosen],
                max_length=max_length,
                truncation=truncation,
                stride=0,
                padding=True,
                return_offsets_mapping=offsets,
            )
        )
        for index, *arrays in zip(chosen, *batch.values(), strict=True):
            one = dict(zip(batch, arrays, strict=True))
            real = one["attention_mask"] == 1
            rows[index] = {name: array[real] for name, array in one.items()}
    return [rows[index] for index in range(len(texts))]


def stack_rows(rows: Sequence[Row], pad_id: int) -> Row:
    """Pad rows to one length and stack them.

    Parameters
    ----------
    rows : sequence of dict of arrays
        The rows: arrays (L,), (C, L) or ().
    pad_id : int
        What ``input_ids`` are padded with; labels are padded with -100, all else with 0.

    Returns
    -------
    dict of arrays
        The arrays, with an axis before.

    Examples
    --------
    >>> batch = stack_rows([{"input_ids": np.array([2, 7, 3])}, {"input_ids": np.array([2, 3])}], pad_id=0)
    >>> batch["input_ids"].tolist()
    [[2, 7, 3], [2, 3, 0]]
    """
    length = max(row["input_ids"].shape[-1] for row in rows)
    batch: Row = {}
    for name, first in rows[0].items():
        if not first.ndim:
            batch[name] = np.stack([row[name] for row in rows])
            continue
        fill = {"input_ids": pad_id, "labels": IGNORE_INDEX}.get(name, 0)
        batch[name] = np.full((len(rows), *first.shape[:-1], length), fill, first.dtype)
        for place, row in zip(batch[name], rows, strict=True):
            place[..., : row[name].shape[-1]] = row[name]
    return batch


def run_in_batches(
    head: Callable[..., Any],
    weights: Weights,
    rows: Sequence[Row],
    names: Sequence[str],
    *,
    batch_size: int,
    groups: Iterable[Sequence[int]] | None = None,
    pad_id: int | None = None,
) -> Iterator[tuple[list[int], Any]]:
    """Run a head on rows, batch by batch.

    Parameters
    ----------
    head : callable
        A head of `nezha_np`.
    weights : Weights
        The model.
    rows : sequence of dict of (L,) arrays
        The rows, without padding.
    names : sequence of str
        What to call each row in an error.
    batch_size : int
        How many rows go through the model together.
    groups : iterable of sequences of int, optional
        The rows that go through the model together; None: those of similar length.
    pad_id : int, optional
        What rows are padded with, where the model reads the padding; None: what the configuration says.

    Yields
    ------
    chosen : list of int
        The rows of a batch.
    out : object
        What the head makes of them.

    Raises
    ------
    ValueError
        If a row has no token, or more than the model has positions, or an id that it does not have.

    Examples
    --------
    >>> import nezha_np as nz
    >>> rows = make_rows(nz.load_tokenizer(), ["你好", "早餐很好吃"])
    >>> [chosen for chosen, out in run_in_batches(nz.masked_lm, nz.load(), rows, ["a", "b"], batch_size=1)]
    [[1], [0]]
    """
    config = weights.config
    pad_id = config.pad_token_id or 0 if pad_id is None else pad_id
    for name, row in zip(names, rows, strict=True):
        check_row(name, row["input_ids"], config)
    if groups is None:
        lengths = [len(row["input_ids"]) for row in rows]
        groups = group_by_length(lengths, batch_size, same=family_of(config).reads_padding)

    def run(group: Sequence[int]) -> tuple[list[int], Any]:
        return list(group), head(weights, **stack_rows([rows[index] for index in group], pad_id))

    groups = list(groups)
    most = max((sum(rows[index]["input_ids"].size for index in group) for group in groups), default=0)
    yield from side_by_side_if_small(weights, most, [functools.partial(run, group) for group in groups])


def side_by_side_if_small(weights: Weights, tokens: int, passes: Sequence[Callable[[], Result]]) -> Iterator[Result]:
    """Run passes, several at once where they are small: the work of a large one is divided among threads better.

    Parameters
    ----------
    weights : Weights
        The model.
    tokens : int
        How many tokens the largest pass has.
    passes : sequence of callable
        What is run; each with its inputs bound.

    Yields
    ------
    object
        What each pass returns, in order.

    Examples
    --------
    >>> import nezha_np as nz
    >>> list(side_by_side_if_small(nz.load(), 512, [lambda: "one", lambda: "two"]))
    ['one', 'two']
    """
    config = weights.config
    # An activation that a user brings may not expect to be called from several threads.
    if tokens * config.hidden_size > SMALL_PASS or callable(config.hidden_act):
        return one_by_one(passes)
    return side_by_side(weights.word_embeddings, passes)


def check_row(name: str, ids: np.ndarray, config: Config) -> None:
    """Check that a model can read the tokens of a text.

    Examples
    --------
    >>> import nezha_np as nz
    >>> check_row("texts[0]", np.array([7000]), nz.load().config)
    Traceback (most recent call last):
    ...
    ValueError: tokenizer: expected ids from 0 to 6999, got id 7000: this vocabulary belongs to another model
    """
    if not ids.size:
        raise ValueError(f"{name}: expected at least one token, got none")
    if config.longest_text is not None and ids.size > config.longest_text:
        raise ValueError(
            f"{name}: expected at most {config.longest_text} tokens, because the model has no more positions, "
            f"got {ids.size}; max_length cuts longer texts"
        )
    if ids.max() >= config.vocab_size:
        raise ValueError(
            f"tokenizer: expected ids from 0 to {config.vocab_size - 1}, got id {ids.max()}: this vocabulary belongs "
            "to another model"
        )


def group_by_length(lengths: Sequence[int], batch_size: int, *, same: bool) -> Iterator[list[int]]:
    """Divide rows into batches of similar length, the longest first.

    Parameters
    ----------
    lengths : sequence of int
        The lengths of the rows.
    batch_size : int
        The largest number of rows of a batch. A batch with enough tokens ends earlier, where with a further row more
        than `MOST_PADDING` of it would be padding.
    same : bool
        Whether all rows of a batch must have one length.

    Yields
    ------
    list of int
        The rows of a batch.

    Examples
    --------
    >>> list(group_by_length([3, 9, 3, 4], 2, same=False)), list(group_by_length([3, 9, 3, 4], 2, same=True))
    ([[1, 3], [0, 2]], [[1], [3], [0, 2]])
    >>> [len(batch) for batch in group_by_length([100] * 20 + [30] * 100, 120, same=False)]
    [21, 99]
    """
    batch: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch:
            longest, whole = lengths[batch[0]], (len(batch) + 1) * lengths[batch[0]]
            padded = tokens >= ENOUGH_TOKENS and whole - tokens - lengths[index] > MOST_PADDING * whole
            if len(batch) == batch_size or padded or (same and lengths[index] != longest):
                yield batch
                batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


def check_top_k(top_k: int | None) -> int | None:
    """Check how many of the best results are wanted; None: all.

    Examples
    --------
    >>> check_top_k(None), check_top_k(3)
    (None, 3)
    """
    return None if top_k is None else check_integer("top_k", top_k, least=1)
