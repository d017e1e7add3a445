"""Kernels for NumPy: work in blocks that stay in cache, in place, and touch memory once.

    encoder           the batch in parts, one for each thread, with BLAS held to one thread
    self_attention    scores, softmax and context in blocks of heads and queries: no (B, N, Q, S) array is ever made
    feed_forward      tiles of rows: widen, bend, map back, add, normalise
    residual_output   bias, residual and norm in one sweep over the product
    linear            the bias in place
    layer_norm        in place, its sums of squares by BLAS
    gelu              in float32, half the sweeps of the erf form

A sweep over numbers that lie in a core's second-level cache takes a tenth of a nanosecond each, over memory eight
times that; and a call of NumPy takes a microsecond, several where two threads pass the interpreter to and fro. So a
block is as large as that cache allows. Tiles of rows are larger, for the sake of the products: the third-level cache
holds them.

Dimension letters as in `nezha_np.model`; G the heads of a block, W the distances from its queries to its near keys.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from nezha_np.families.bert import bert_scores
from nezha_np.families.family import family_of
from nezha_np.kernels.threads import BLAS_THREADS, part_of, share_out
from nezha_np.layers.activations import activation, gelu
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import flat_rows, linear
from nezha_np.layers.span_convolution import join_features
from nezha_np.mechanism import Kernel, Layer, View
from nezha_np.model import model
from nezha_np.model.arguments import Call, KeysAndValues

BLOCK = 65536  # numbers: 256 KiB of float32, three of which fit into a second-level cache of 1 MiB
SCORES = 131072  # scores in a block of several heads, with as many distances beside them; one head may have more
QUERIES = 128  # the most queries in a block: many enough for fast products, few enough for few distances
ROWS = 512  # rows in a tile: with fewer, products are slow
TOKENS = 256  # the fewest tokens that a thread is started for


def blocks(rows: int, width: int) -> list[slice]:
    """Cut rows of `width` numbers into blocks."""
    step = max(1, BLOCK // max(1, width))
    return [slice(start, start + step) for start in range(0, rows, step)]


def same_dtype(*arrays: np.ndarray | None) -> bool:
    """Say whether all arrays hold the same kind of numbers."""
    return len({array.dtype for array in arrays if array is not None}) == 1


# ------------------------------------------------------------------------------------------------- linear, activation


def linear_kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> Any:
    """Add the bias in place; dtypes that differ are left to the definition.

    Examples
    --------
    >>> linear_kernel(np.ones((1, 2)), np.ones((3, 2)), np.arange(3.0))
    array([[2., 3., 4.]])
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    source = flat_rows(x)
    y = np.empty((len(source), len(weight)), x.dtype)

    def run(part: int, parts: int) -> None:
        rows = part_of(len(source), part, parts)
        np.matmul(source[rows], weight.T, out=y[rows])
        if bias is not None:
            y[rows] += bias

    share_out(len(source) // TOKENS, run)
    return y.reshape(*x.shape[:-1], len(weight))


# 2 Φ(x) = 1 + tanh(x p(x²)) with p(s) = P₀ + P₁ s + P₂ / (s + P₃ + P₄ / (s + P₅)), fitted to the erf form: the fit is
# within 1.2e-7 of gelu. For s ≥ 0 this p has no pole, and it grows with s, so that nothing has to be cut off.
P = (
    1.2425251660700045, 0.0172844326533398, -4.544546328533287, -7.177766768322406, 538.3195537073351,
    30.940479502142306,
)  # fmt: skip


def gelu_in_place(x: np.ndarray, s: np.ndarray, p: np.ndarray) -> None:
    """Bend a block of float32; `s` and `p` are two more blocks to work in."""
    with np.errstate(over="ignore"):  # of x² and of x p(x²), where tanh is ±1
        np.multiply(x, x, out=s)
        np.add(s, P[5], out=p)
        np.divide(P[4], p, out=p)
        p += s
        p += P[3]
        np.divide(P[2], p, out=p)
        s *= P[1]
        p += s
        p += P[0]
        p *= x
        np.tanh(p, out=p)
        p += 1.0
        x *= 0.5
        x *= p


def activate_in_place(x: np.ndarray, bias: np.ndarray | None, function: Layer) -> None:
    """Add a bias, if there is one, to (rows, F) and apply an activation, block by block."""
    fast = function is gelu and x.dtype == np.float32
    pieces = blocks(*x.shape)
    room = np.empty((2, *x[pieces[0]].shape), x.dtype) if fast and pieces else None
    for rows in pieces:
        block = x[rows]
        if bias is not None:
            block += bias
        if room is None:
            block[...] = function(block)
        else:
            gelu_in_place(block, *room[:, : len(block)])


def gelu_kernel(x: np.ndarray) -> np.ndarray:
    """Compute gelu in float32 by a tanh whose argument is a fraction.

    Examples
    --------
    >>> gelu_kernel(np.array([-1.0, 0.0, 1.0], "float32")).round(4)
    array([-0.1587,  0.    ,  0.8413], dtype=float32)
    """
    y = np.array(x, order="C")
    activate_in_place(flat_rows(y) if y.ndim > 1 else y.reshape(-1, 1), None, gelu)
    return y


# ------------------------------------------------------------------------------------- norm, and the end of each block


def normalise_in_place(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> None:
    """Normalise a block of rows, (rows, H)."""
    x -= x.mean(axis=-1, keepdims=True)  # (rows, 1)
    variance = np.vecdot(x, x)[:, None] / x.shape[1]
    x /= np.sqrt(variance + eps)
    x *= weight
    x += bias


def layer_norm_kernel(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float) -> Any:
    """Normalise block by block.

    Examples
    --------
    >>> layer_norm_kernel(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), eps=1e-12)
    array([[-1.,  1.]])
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    y = np.array(x, order="C")
    flat = flat_rows(y)
    for rows in blocks(*flat.shape):
        normalise_in_place(flat[rows], weight, bias, eps)
    return y


def finish_in_place(y: np.ndarray, residual: np.ndarray, w: View) -> None:
    """Add bias and residual to the product of a block's end, and normalise: (rows, H)."""
    for rows in blocks(*y.shape):
        block = y[rows]
        block += w["dense.bias"]
        block += residual[rows]
        normalise_in_place(block, w["LayerNorm.weight"], w["LayerNorm.bias"], w.config.layer_norm_eps)


def residual_output_kernel(x: np.ndarray, residual: np.ndarray, w: View) -> Any:
    """Map back, then bias, residual and norm in one sweep."""
    weight = w["dense.weight"]
    if weight.ndim != 2 or not same_dtype(x, residual, weight):  # in groups
        return NotImplemented
    source, residual_rows = flat_rows(x), flat_rows(residual)
    y = np.empty_like(residual_rows, order="C")

    def run(part: int, parts: int) -> None:
        rows = part_of(len(source), part, parts)
        np.matmul(source[rows], weight.T, out=y[rows])
        finish_in_place(y[rows], residual_rows[rows], w)

    share_out(len(source) // TOKENS, run)
    return y.reshape(residual.shape)


def feed_forward_kernel(x: np.ndarray, w: View) -> Any:
    """Work through tiles of rows, so that the F features of the middle are made and used in cache."""
    wide, narrow = w["intermediate.dense.weight"], w["output.dense.weight"]
    # An activation of the caller's is shown (B, L, F), and not tiles of it.
    if wide.ndim != 2 or not same_dtype(x, wide) or callable(w.config.hidden_act):
        return NotImplemented
    source, function = flat_rows(x), activation(w.config.hidden_act)
    y = np.empty_like(source, order="C")

    def run(part: int, parts: int) -> None:
        own = part_of(len(source), part, parts)
        middle = np.empty((min(ROWS, own.stop - own.start), len(wide)), x.dtype)
        for start in range(own.start, own.stop, ROWS):
            tile = slice(start, min(start + ROWS, own.stop))
            bent = middle[: tile.stop - start]  # (rows, F)
            np.matmul(source[tile], wide.T, out=bent)
            activate_in_place(bent, w["intermediate.dense.bias"], function)
            np.matmul(bent, narrow.T, out=y[tile])
            finish_in_place(y[tile], source[tile], w.at("output"))

    share_out(len(source) // TOKENS, run)
    return y.reshape(x.shape)


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
    """Attend in blocks of heads and queries of one text: their scores stay in cache from the product to the context."""
    config, family = w.config, family_of(w.config)
    learned = family.scores is bert_scores and states is None and config.position_embedding_type
    if (
        returns_probs
        or learned == "relative_key_query"
        or not same_dtype(x, w["query.weight"], table, states, head_mask)
    ):
        return NotImplemented
    score_rows, value_rows = table, table
    if learned == "relative_key":  # its distances count from key to query
        score_rows = w["distance_embedding.weight"][::-1]

    query, q, k, v = model.queries_keys_values(x, w, states=states, past=past)
    context = np.empty(query.shape, x.dtype)  # (B, Q, N·D)
    by_head = context.reshape(*query.shape[:2], *q.shape[1::2]).swapaxes(1, 2)  # (B, N, Q, D), a view

    def run(part: int, parts: int) -> None:
        own = (slice(None), part_of(q.shape[1], part, parts))  # of the heads
        attend(q[own], k[own], v[own], mask, score_rows, value_rows, position, out=by_head[own])

    share_out(min(q.shape[1], q.shape[0] * q.shape[2] // TOKENS), run)
    if head_mask is not None:
        by_head *= head_mask[:, None, None]
    if family.beside_heads is not None:
        context = join_features(context, family.beside_heads(x, query, w))
    return context, None, (k, v)


def attend(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    score_rows: np.ndarray | None,
    value_rows: np.ndarray | None,
    position: int,
    *,
    out: np.ndarray,
) -> None:
    """Go through queries, texts and heads, block by block, and write the context, (B, N, Q, D), to `out`.

    `mask` is (B or 1, 1, Q or 1, S). `score_rows` and `value_rows` are the rows, (2K + 1, D), that are added to keys
    and to values by their distance from the query: NEZHA has both, the same ones, BERT's relative keys have the first,
    and others none. `position` is that of the first query.
    """
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    step = min(queries, QUERIES)
    blocks_of_heads = min(heads, math.ceil(heads * step * keys / SCORES))
    together = math.ceil(heads / blocks_of_heads)  # G
    for start in range(0, queries, step):
        rows = slice(start, min(start + step, queries))
        room = Room.of(together, rows.stop - start, keys, position + start, score_rows, q.dtype)
        for text in range(batch):
            added = None if mask is None else mask[text % len(mask)]  # (1, Q or 1, S)
            if added is not None and added.shape[1] > 1:
                added = added[:, rows]
            for first in range(0, heads, together):
                group = slice(first, first + together)
                attend_block(
                    q[text, group, rows],
                    k[text, group],
                    v[text, group],
                    added,
                    score_rows,
                    value_rows,
                    room,
                    out=out[text, group, rows],
                )


class Room(NamedTuple):
    """Memory for the blocks of some queries, and how their keys stand to the table of positions.

    Only some of the keys are near: at most K away from one of the queries. From those before them every query has the
    distance −K, row 0 of the table; from those after them K, row 2K. From Q queries to the near keys there are
    W = near + Q − 1 distances. `scored` and `summed` have a column for each, and one more, which makes `by_key` a view
    of them. `columns` are those of the distances that have a row of their own, and `rows` these rows; the columns
    before them have row 0, those after them row 2K.
    """

    scores: np.ndarray  # (G, Q, S)
    scored: np.ndarray  # (G, Q, W + 1): of each query, the scores by distance
    summed: np.ndarray  # (G, Q, W + 1): the probabilities by distance, 0 where it has no key at that distance
    before: slice  # of the keys
    near: slice
    after: slice
    columns: slice  # of the distances
    rows: slice  # of the table

    @staticmethod
    def of(heads: int, queries: int, keys: int, position: int, table: np.ndarray | None, dtype: np.dtype) -> Room:
        """Make room for `heads` and `queries`, the first of which is at `position`."""
        reach = 0 if table is None else len(table) // 2  # K
        first = min(max(position - reach, 0), keys)
        last = min(max(position + queries + reach, first), keys)
        nearest = first - (position + queries - 1)  # the distance of column 0
        low, high = max(nearest, -reach), min(last - 1 - position, reach)
        shape = (heads, queries, 0 if table is None or first == last else last - first + queries)
        return Room(
            scores=np.empty((heads, queries, keys), dtype),
            scored=np.empty(shape, dtype),
            summed=np.zeros(shape, dtype),
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


def total(x: np.ndarray) -> np.ndarray:
    """Sum the last axis by BLAS: (G, Q, S) -> (G, Q, 1)."""
    return x @ np.ones((x.shape[-1], 1), x.dtype)


def attend_block(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    score_rows: np.ndarray | None,
    value_rows: np.ndarray | None,
    room: Room,
    *,
    out: np.ndarray,
) -> None:
    """Compute the context of one block, (G, Q, D); the probabilities are divided by their sum last of all."""
    q = q * (1.0 / math.sqrt(q.shape[-1]))
    scores = np.matmul(q, np.matrix_transpose(k), out=room.scores[: len(q)])  # (G, Q, S)
    if score_rows is not None:
        add_position_scores(scores, q, score_rows, room)
    if mask is not None:
        scores += mask
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    context = scores @ v  # (G, Q, D)
    if value_rows is not None:
        add_position_context(context, scores, value_rows, room)
    np.divide(context, total(scores), out=out)


def add_position_scores(scores: np.ndarray, q: np.ndarray, table: np.ndarray, room: Room) -> None:
    """Add each query's products with the rows of the table to its keys."""
    if room.scored.size:
        scored, columns = room.scored[: len(q)], room.columns
        np.matmul(q, table[room.rows].T, out=scored[:, :, columns])
        scored[:, :, : columns.start] = scored[:, :, columns.start, None]
        scored[:, :, columns.stop :] = scored[:, :, columns.stop - 1, None]
        near = scores[:, :, room.near]
        near += by_key(scored, near.shape[-1])
    for keys, row in ((room.before, table[:1]), (room.after, table[-1:])):
        if keys.start < keys.stop:
            scores[:, :, keys] += q @ row.T


def add_position_context(context: np.ndarray, probs: np.ndarray, table: np.ndarray, room: Room) -> None:
    """Add the rows of the table, averaged by the probabilities at their distances."""
    edges = [probs[:, :, room.before]], [probs[:, :, room.after]]
    if room.summed.size:
        summed, columns = room.summed[: len(probs)], room.columns
        near = probs[:, :, room.near]
        by_key(summed, near.shape[-1])[...] = near
        context += summed[:, :, columns] @ table[room.rows]
        edges[0].append(summed[:, :, : columns.start])
        edges[1].append(summed[:, :, columns.stop :])
    for parts, row in zip(edges, (table[0], table[-1]), strict=True):
        for part in parts:
            if part.shape[-1]:
                context += total(part) * row


# ------------------------------------------------------------------------------------------------------------ encoder


def encoder_kernel(x: np.ndarray, w: View, *, table: np.ndarray | None, call: Call) -> Any:
    """Divide the batch among threads, each with one thread of BLAS; each runs all layers on its part."""
    texts, tokens = len(x), x.shape[0] * x.shape[1]
    call = dataclasses.replace(call, mask=needed(call.mask), states_mask=needed(call.states_mask))
    # An activation of the caller's is shown the whole batch, once at a time.
    if tokens < 2 * TOKENS or callable(w.config.hidden_act):
        return model.encoder.definition(x, w, table=table, call=call)

    def run(part: int, parts: int) -> Any:
        rows = part_of(texts, part, parts)
        return model.encoder.definition(x[rows], w, table=table, call=some_of(call, rows))

    with BLAS_THREADS.held_to_one() as threads:
        # Parts of the same size, or no parts: then each layer divides its rows, or its heads, among the threads.
        even = texts % min(threads, texts) == 0 or texts >= 4 * threads
        x, hidden_states, *others = joined(share_out(min(texts, tokens // TOKENS) if even else 1, run))
    return x, (*hidden_states[:-1], x) if hidden_states else (), *others


def needed(mask: np.ndarray | None) -> np.ndarray | None:
    """Leave out a mask that masks nothing."""
    return mask if mask is not None and mask.any() else None


def some_of(call: Call, texts: slice) -> Call:
    """Take the arguments for some texts of a batch."""

    def cut(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(cut(item) for item in value)
        return value if value is None or len(value) == 1 else value[texts]

    return dataclasses.replace(
        call,
        mask=cut(call.mask),
        states=cut(call.states),
        states_mask=cut(call.states_mask),
        caches=[cut(arrays) for arrays in call.caches],
    )


def joined(parts: list[Any]) -> Any:
    """Put what the encoder returned for parts of a batch together again."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], tuple):
        return tuple(joined(list(items)) for items in zip(*parts, strict=True))
    return None if parts[0] is None else np.concatenate(parts)


FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
KERNELS: dict[Layer, Kernel] = {
    linear: (linear_kernel, FLOATS),
    gelu: (gelu_kernel, FLOATS[:1]),
    layer_norm: (layer_norm_kernel, FLOATS),
    model.residual_output: (residual_output_kernel, FLOATS),
    model.feed_forward: (feed_forward_kernel, FLOATS),
    model.self_attention: (self_attention_kernel, FLOATS),
    model.encoder: (encoder_kernel, FLOATS),
}
