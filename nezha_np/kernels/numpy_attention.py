"""NumPy's kernel for self-attention: blocks of heads and queries, so that no (B, N, Q, S) array is ever made.

Short texts have few scores: a block holds the heads of several texts, so that NumPy is called less often.

Dimension letters as in `nezha_np.model.model`; T the texts of a block, G the heads of all of them, W the distances from
its queries to its near keys, K the largest distance that has a row of its own.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from nezha_np.arrays import same_dtype
from nezha_np.families.family import family_of
from nezha_np.kernels import numpy_blocks
from nezha_np.kernels.known import AddedRows, added_rows
from nezha_np.layers.span_convolution import join_features
from nezha_np.mechanism import View
from nezha_np.model.arguments import KeysAndValues
from nezha_np.model.model import queries_keys_values
from nezha_np.threads import part_of, share_out

# ---------------------------------------------------------------------------------------------------------- attention


def self_attention_kernel(
    x: np.ndarray,
    w: View,
    *,
    table: np.ndarray | None,
    mask: np.ndarray | None = None,
    head_mask: np.ndarray | None = None,
    states: np.ndarray | None = None,
    past: KeysAndValues | None = None,
    position: int = 0,
    returns_probs: bool = True,
) -> Any:
    """Attend in blocks of texts, heads and queries: their scores stay in cache from the product to the context.

    Parameters
    ----------
    x, w, table, mask, head_mask, states, past, position, returns_probs
        As for `nezha_np.model.model.self_attention`.

    Returns
    -------
    tuple, or NotImplemented
        Context, None, and keys and values. Declined where the probabilities are asked for, which are never all there at
        once; where dtypes differ; and where `known` does not know how the family attends.
    """
    rows = added_rows(w, table=table, cross=states is not None)
    if rows is None or returns_probs or not same_dtype(x, w["query.weight"], *rows, states, head_mask):
        return NotImplemented
    heads = queries_keys_values(x, w, states=states, past=past)
    query, q, k, v = map(np.asarray, heads)  # arrays of NumPy already: no copies
    context = context_of(q, k, v, mask, head_mask, rows, position)
    beside_heads = family_of(w.config).beside_heads
    if beside_heads is not None:
        return join_features(context, beside_heads(x, query, w)), None, (k, v)
    return context, None, (k, v)


def first_token_attention(
    x: np.ndarray, w: View, *, table: np.ndarray | None, mask: np.ndarray | None, head_mask: np.ndarray | None
) -> Any:
    """Attend from the first token of each text alone.

    Parameters
    ----------
    x, w, table, mask, head_mask
        As for `nezha_np.model.model.self_attention`.

    Returns
    -------
    (B, 1, N·D) array, or NotImplemented
        The context of the first tokens. Declined as by `self_attention_kernel`, and where something is computed beside
        the heads, which may read the other queries.
    """
    rows = added_rows(w, table=table, cross=False)
    beside = family_of(w.config).beside_heads is not None
    if rows is None or beside or not same_dtype(x, w["query.weight"], *rows, head_mask):
        return NotImplemented
    _, q, k, v = map(np.asarray, queries_keys_values(x[:, :1], w, states=x, past=None))
    return context_of(q, k, v, None if mask is None else mask[:, :, :1], head_mask, rows, 0)


def context_of(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    head_mask: np.ndarray | None,
    rows: AddedRows,
    position: int,
) -> np.ndarray:
    """Compute the context of all heads, (B, Q, N·D), the heads divided among threads; the arguments are of `attend`."""
    batch, heads, queries, size = q.shape
    flat = np.empty((batch * queries, heads * size), q.dtype, order="F" if heads_by_feature(q) else "C")
    context: np.ndarray = flat.reshape(batch, queries, heads * size)
    by_head = context.reshape(batch, queries, heads, size).swapaxes(1, 2)  # (B, N, Q, D), a view

    def run(part: int, parts: int) -> None:
        own = (slice(None), part_of(q.shape[1], part, parts))  # of the heads
        attend(q[own], k[own], v[own], mask, rows, position, out=by_head[own])

    share_out(min(q.shape[1], q.shape[0] * q.shape[2] // numpy_blocks.TOKENS), run)
    if head_mask is not None:
        by_head *= head_mask[:, None, None]
    return context


def heads_by_feature(q: np.ndarray) -> bool:
    """Say whether queries, or their context, (B, N, Q, D), lie in memory feature by feature, as those of few tokens do.

    Such heads are multiplied one by one: to put their rows one below the other would copy them.
    """
    return q.strides[-1] > q.itemsize


def attend(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    rows: AddedRows,
    position: int,
    *,
    out: np.ndarray,
) -> None:
    """Go through queries, texts and heads, block by block.

    Parameters
    ----------
    q, k, v : (B, N, Q, D), (B, N, S, D) and (B, N, S, D) array
        Queries, keys and values.
    mask : (B or 1, 1, Q or 1, S) array or None
        The additive mask.
    rows : AddedRows
        The rows that are added to keys and to values by their distance from the query: NEZHA has both, the same ones,
        BERT's relative keys have the first, and others none.
    position : int
        Where the first query stands.
    out : (B, N, Q, D) array
        Gets the context.
    """
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    step = min(queries, numpy_blocks.QUERIES)
    scores = heads * step * keys  # of a text
    together = math.ceil(heads / min(heads, math.ceil(scores / numpy_blocks.SCORES)))
    texts = min(batch, max(1, numpy_blocks.SCORES_OF_TEXTS // scores))  # T
    for start in range(0, queries, step):
        own = slice(start, min(start + step, queries))
        room = Room.of(texts * together, own.stop - start, keys, position + start, rows.to_keys, q.dtype)
        for text in range(0, batch, texts):
            some = slice(text, text + texts)
            added = None if mask is None else mask if len(mask) == 1 else mask[some]  # (T or 1, 1, Q or 1, S)
            if added is not None and added.shape[2] > 1:
                added = added[:, :, own]
            for first in range(0, heads, together):
                of = some, slice(first, first + together)
                attend_block(q[*of, own], k[of], v[of], added, rows, room, out=out[*of, own])


class Room(NamedTuple):
    """Memory for the blocks of some queries, and which keys have which rows of the table of positions.

    A key is near if it is at most K away from one of the queries. Every query has the distance −K, row 0 of the table,
    to the keys before the near ones, and the distance K, row 2K, to those after them. Between Q queries and the near
    keys there are W = near + Q − 1 distances. `scored` and `summed` have a column for each of them, and one more, which
    makes `by_key` a view of them. `columns` are the columns of distances that have a row of their own, and `rows` are
    these rows; the columns before them have row 0, those after them row 2K.
    """

    scores: np.ndarray  # (G, Q, S)
    scored: np.ndarray  # (G, Q, W + 1): of each query, the scores by distance
    summed: np.ndarray  # (G, Q, W + 1): the probabilities by distance, 0 where it has no key at that distance
    ones: np.ndarray  # (S or W + 1, 1), whichever is more
    least: float  # of a sum of exponentials: what underflows is nothing beside it
    most: float  # of a sum of exponentials: far from overflow, with the values too
    before: slice  # of the keys
    near: slice
    after: slice
    columns: slice  # of the distances
    rows: slice  # of the table

    @staticmethod
    def of(heads: int, queries: int, keys: int, position: int, table: Any, dtype: Any) -> Room:
        """Make room for so many heads, queries and keys; the first query stands at `position`."""
        reach = 0 if table is None else len(table) // 2  # K
        first = min(max(position - reach, 0), keys)
        last = min(max(position + queries + reach, first), keys)
        nearest = first - (position + queries - 1)  # the distance of column 0
        number = np.finfo(dtype)
        low, high = max(nearest, -reach), min(last - 1 - position, reach)
        shape = (heads, queries, 0 if table is None or first == last else last - first + queries)
        return Room(
            scores=np.empty((heads, queries, keys), dtype),
            scored=np.empty(shape, dtype),
            summed=np.zeros(shape, dtype),
            ones=np.ones((max(keys, shape[-1]), 1), dtype),
            least=float(number.smallest_normal / number.eps**2),
            most=float(number.max * number.eps),
            before=slice(0, first),
            near=slice(first, last),
            after=slice(last, keys),
            columns=slice(low - nearest, high - nearest + 1),
            rows=slice(low + reach, high + reach + 1),
        )


def by_key(by_distance: np.ndarray, keys: int) -> np.ndarray:
    """View columns of distances as keys, (G, Q, W + 1) -> (G, Q, keys): query i's begin at column Q − 1 − i."""
    heads, queries, width = by_distance.shape
    flat = by_distance.reshape(heads, queries * width)[:, queries - 1 : -1]
    return flat.reshape(heads, queries, width - 1)[:, :, :keys]


def total(x: np.ndarray, ones: np.ndarray) -> np.ndarray:
    """Sum the last axis by BLAS: (…, Q, S) -> (…, Q, 1); `ones` are S or more."""
    sums: np.ndarray = x @ ones[: x.shape[-1]]
    return sums


def attend_block(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    rows: AddedRows,
    room: Room,
    *,
    out: np.ndarray,
    shifted: bool = False,
) -> None:
    """Compute the context of one block, (T, N, Q, D), with some of the heads; T·N of them are the G of `Room`.

    Softmax's division by the sum comes last: it is made for D features, and not for S probabilities. Its subtraction of
    the largest score keeps exponentials within the range of the dtype. Most scores are small enough without it, and the
    sums tell whether they are: if not, the block is computed again, `shifted`.
    """
    heads, size = q.shape[:2], q.shape[-1]
    unscaled, q = q, np.multiply(q, 1.0 / math.sqrt(size), order="K" if heads_by_feature(q) else "C")
    scores = room.scores[: math.prod(heads)]  # (G, Q, S)
    by_text = scores.reshape(*heads, *scores.shape[1:])  # (T, N, Q, S), a view
    np.matmul(q, np.matrix_transpose(k), out=by_text)
    if rows.to_keys is not None:
        add_position_scores(scores, q, rows.to_keys, room)
    if mask is not None:
        by_text += mask
    if shifted:
        scores -= scores.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):
        np.exp(scores, out=scores)
        sums = total(by_text, room.ones)  # (T, N, Q, 1)
    if not shifted and not room.least < sums.min() <= sums.max() < room.most:  # one that is NaN is neither
        attend_block(unscaled, k, v, mask, rows, room, out=out, shifted=True)
        return
    context = np.matmul(by_text, v, out=np.empty_like(q))  # (T, N, Q, D)
    if rows.to_values is not None:
        add_position_context(context, scores, rows.to_values, room)
    np.divide(context, sums, out=out)


def add_position_scores(scores: np.ndarray, q: np.ndarray, table: Any, room: Room) -> None:
    """Add each query's products, (…, Q, D), with the rows of the table to its keys, (G, Q, S)."""
    if room.scored.size:
        scored, columns = room.scored[: len(scores)], room.columns
        flat = scored.reshape(-1, scored.shape[-1])[:, columns]  # (G·Q, distances)
        rows = table[room.rows].T  # (D, distances)
        if heads_by_feature(q):
            np.matmul(q, rows, out=flat.reshape(*q.shape[:-1], -1))
        else:
            np.matmul(q.reshape(-1, q.shape[-1]), rows, out=flat)  # one product for all heads
        scored[:, :, : columns.start] = scored[:, :, columns.start, None]
        scored[:, :, columns.stop :] = scored[:, :, columns.stop - 1, None]
        near = scores[:, :, room.near]
        near += by_key(scored, near.shape[-1])
    for keys, row in ((room.before, table[:1]), (room.after, table[-1:])):
        if keys.start < keys.stop:
            scores[:, :, keys] += (q @ row.T).reshape(*scores.shape[:2], 1)


def add_position_context(context: np.ndarray, probs: np.ndarray, table: Any, room: Room) -> None:
    """Add to (…, Q, D) the rows of the table, weighted by the numbers at their distances, (G, Q, S).

    These are not divided by their sum yet.
    """
    edges = [probs[:, :, room.before]], [probs[:, :, room.after]]
    if room.summed.size:
        summed, columns = room.summed[: len(probs)], room.columns
        near = probs[:, :, room.near]
        by_key(summed, near.shape[-1])[...] = near
        rows, own = table[room.rows], summed[:, :, columns]  # (distances, D), (G, Q, distances)
        if heads_by_feature(context):
            context += np.matmul(own.reshape(*context.shape[:-1], -1), rows, out=np.empty_like(context))
        else:
            flat = summed.reshape(-1, summed.shape[-1])
            context += (flat[:, columns] @ rows).reshape(context.shape)
        edges[0].append(summed[:, :, : columns.start])
        edges[1].append(summed[:, :, columns.stop :])
    for parts, row in zip(edges, (table[0], table[-1]), strict=True):
        for part in parts:
            if part.shape[-1]:
                sums = total(part, room.ones).reshape(*context.shape[:-1], 1)
                context += np.multiply(sums, row, out=np.empty_like(context))
