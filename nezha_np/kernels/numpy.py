"""Kernels for NumPy: work in blocks that stay in cache, in place, and touch memory once.

    encoder           the batch in parts, one for each thread, with BLAS held to one thread       here
    self_attention    scores, softmax and context in blocks of heads and queries                  numpy_attention
    feed_forward      tiles of rows: intermediate product, activation, output product, norm       numpy_rows
    residual_output   bias, residual and norm in one sweep over the product                       numpy_rows
    linear            the bias in place                                                           numpy_rows
    layer_norm        in place, its sums of squares by BLAS                                       numpy_rows
    gelu              in float32, half the sweeps of the erf form                                 numpy_rows
    gradients         and the primitives that a tape records, block by block                      numpy_gradients
    of attention      the same                                                         numpy_attention_gradients
    memory            freed blocks stay with the process                                           numpy_memory
    room              where the gradients of large weights stand, with checkpoint_layers        numpy_room

For float16 encoder, linear, layer_norm and gelu compute in float32, by the kernels above, and round once: numpy_half.

`numpy_blocks` says how large a block is, `known` what a kernel may assume of a family. Dimension letters as in
`nezha_np.model.model`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from nezha_np.families.family import family_of
from nezha_np.kernels import numpy_blocks, numpy_half
from nezha_np.kernels.numpy_attention import first_token_attention, self_attention_kernel
from nezha_np.kernels.numpy_attention_gradients import (
    attention_probs_gradient_kernel,
    attention_probs_kernel,
    content_context_gradient_kernel,
    content_context_kernel,
    content_scores_gradient_kernel,
    content_scores_kernel,
    position_context_gradient_kernel,
    position_context_kernel,
    position_scores_gradient_kernel,
    position_scores_kernel,
)
from nezha_np.kernels.numpy_gradients import (
    add_kernel,
    cross_entropy_gradient_kernel,
    dropout_mask_kernel,
    embedding_gradient_kernel,
    gelu_gradient_kernel,
    grouped_linear_gradient_kernel,
    grouped_linear_kernel,
    layer_norm_gradient_kernel,
    linear_gradient_kernel,
    rescale_gradient_kernel,
    rescale_kernel,
)
from nezha_np.kernels.numpy_half import HALF
from nezha_np.kernels.numpy_memory import keep_freed_memory
from nezha_np.kernels.numpy_room import room_for_gradients
from nezha_np.kernels.numpy_rows import (
    feed_forward_kernel,
    gelu_kernel,
    layer_norm_kernel,
    linear_kernel,
    residual_output_kernel,
)
from nezha_np.layers.activations import gelu
from nezha_np.layers.addition import add
from nezha_np.layers.attention import attention_probs, content_context, content_scores
from nezha_np.layers.dropout import dropout_mask, rescale
from nezha_np.layers.embedding import embedding
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import flat_rows, linear
from nezha_np.layers.losses import cross_entropy
from nezha_np.layers.relative_position import position_context, position_scores
from nezha_np.mechanism import Kernel, Layer, View
from nezha_np.model import model
from nezha_np.model.arguments import Call
from nezha_np.narrow.matrix import NarrowMatrix
from nezha_np.threads import BLAS_THREADS, Result, part_of, share_out


def encoder_kernel(x: np.ndarray, w: View, *, table: np.ndarray | None, call: Call) -> Any:
    """Divide the batch among threads, each with one thread of BLAS; each runs all layers on its part.

    Parameters
    ----------
    x, w, table, call
        As for `nezha_np.model.model.encoder`.

    Returns
    -------
    tuple
        What the definition returns; of the last hidden states the first token alone, where the call reads no other.
        Few tokens are kept feature by feature from the first layer to the last (`numpy_blocks.by_feature`).
        The batch is not divided where it is small, where the family does not promise to compute each text without
        regard to the others, and for a user-supplied activation, which gets the whole batch in one call.
    """
    texts, tokens = len(x), x.shape[0] * x.shape[1]
    call = dataclasses.replace(call, mask=needed(call.mask), states_mask=needed(call.states_mask))
    undivided = callable(w.config.hidden_act) or not family_of(w.config).texts_apart
    few = 1 < tokens <= numpy_blocks.FEW and tokens < 2 * numpy_blocks.TOKENS
    if few and not undivided and family_of(w.config).beside_heads is None:
        rows = np.asarray(flat_rows(x), order="F")
        with held_for_tiles(w, call):
            return row_by_row(all_layers(rows.reshape(x.shape), w, table=table, call=call))
    if undivided or tokens < 2 * numpy_blocks.TOKENS:
        with held_for_tiles(w, call):
            return all_layers(x, w, table=table, call=call)

    def run(part: int, parts: int) -> Any:
        rows = part_of(texts, part, parts)
        return all_layers(x[rows], w, table=table, call=some_of(call, rows))

    with BLAS_THREADS.held_to_one() as threads:
        # Parts of the same size, or no parts: then each layer divides its rows, or its heads, among the threads.
        even = texts % min(threads, texts) == 0 or texts >= 4 * threads
        x, hidden_states, *others = joined(share_out(min(texts, tokens // numpy_blocks.TOKENS) if even else 1, run))
    return x, (*hidden_states[:-1], x) if hidden_states else (), *others


def all_layers(x: Any, w: View, *, table: np.ndarray | None, call: Call) -> Any:
    """Run all layers; where the first token alone is read, the last layer computes no other.

    Of the other tokens that layer needs keys and values, which are a quarter of its products.
    """
    returned = call.returns_hidden_states or call.returns_attentions or call.returns_cache
    inside = call.states is None and all(past is None for past in call.caches) and not callable(w.config.hidden_act)
    if not call.first_token_alone or returned or not inside or not call.caches:
        return model.encoder.definition(x, w, table=table, call=call)
    before = dataclasses.replace(call, head_masks=call.head_masks[:-1], caches=call.caches[:-1])
    x, *nothing = model.encoder.definition(x, w, table=table, call=before)
    last, attention = w.at(f"layer.{len(before.caches)}"), w.at(f"layer.{len(before.caches)}.attention")
    mask: Any = call.mask
    head_mask: Any = call.head_masks[-1]
    context = first_token_attention(x, attention.at("self"), table=table, mask=mask, head_mask=head_mask)
    if context is NotImplemented:
        x, *_ = model.encoder_layer(x, last, table=table, call=call, head_mask=head_mask, past=None)
    else:
        x = model.feed_forward(model.residual_output(context, x[:, :1], attention.at("output")), last)
    return x, *nothing


def held_for_tiles(w: View, call: Call) -> AbstractContextManager[object]:
    """Hold BLAS to one thread where matrices are widened tile by tile: the tiles are divided among threads."""
    narrow = bool(call.caches) and isinstance(w["layer.0.attention.self.query.weight"], NarrowMatrix)
    return BLAS_THREADS.held_in_a_pass() if narrow else nullcontext()


def row_by_row(value: Any) -> Any:
    """Put the arrays of nested tuples into the order that others expect, row by row."""
    if isinstance(value, tuple):
        return tuple(row_by_row(item) for item in value)
    return None if value is None else np.ascontiguousarray(value)


def needed(mask: Any) -> Any:
    """Leave out a mask that masks nothing: a sweep less for each layer."""
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


def either(kernel: Any, half_kernel: Any) -> Any:
    """Join the kernel for float32 and float64 with that for float16."""
    return lambda x, *arguments, **options: (half_kernel if x.dtype == HALF else kernel)(x, *arguments, **options)


@contextmanager
def whole_pass(checkpoint_layers: bool) -> Iterator[None]:
    """Hold BLAS to one thread, so that each kernel divides its own work; with little else, put gradients together."""
    with BLAS_THREADS.held_to_one(), room_for_gradients() if checkpoint_layers else nullcontext():
        yield


def side_by_side(passes: Sequence[Callable[[], Result]]) -> Iterator[Result]:
    """Run as many passes at once as there are threads, each in one thread; the last, if it is alone, in all of them.

    Parameters
    ----------
    passes : sequence of callable
        As for `nezha_np.mechanism.layer.side_by_side`.

    Yields
    ------
    object
        What each pass returns, in order.
    """
    done = 0
    while done < len(passes) - 1:
        with BLAS_THREADS.held_to_one() as threads:
            some = passes[done : done + AHEAD * threads]
            results = run_all(some)
        done += len(some)
        yield from results
    for one in passes[done:]:
        yield one()


def run_all(passes: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run passes in the threads that are free: each takes the next when it has done one."""
    results: dict[int, Result] = {}
    left = iter(range(len(passes)))  # `next` of it is atomic

    def run(part: int, parts: int) -> None:
        for index in left:
            results[index] = passes[index]()

    share_out(len(passes), run)
    return [results[index] for index in range(len(passes))]


keep_freed_memory()  # once, before the first pass

AHEAD = 16  # passes for each thread, whose results wait for their turn
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
KERNELS: dict[Layer, Kernel] = {
    linear: (either(linear_kernel, numpy_half.linear_kernel), (*FLOATS, HALF)),
    gelu: (either(gelu_kernel, numpy_half.gelu_kernel), (FLOATS[0], HALF)),
    layer_norm: (either(layer_norm_kernel, numpy_half.layer_norm_kernel), (*FLOATS, HALF)),
    model.residual_output: (residual_output_kernel, FLOATS),
    model.feed_forward: (feed_forward_kernel, FLOATS),
    model.self_attention: (self_attention_kernel, FLOATS),
    model.encoder: (either(encoder_kernel, numpy_half.encoder_kernel), (*FLOATS, HALF)),
    attention_probs: (attention_probs_kernel, FLOATS),
    add: (add_kernel, FLOATS),
    grouped_linear: (grouped_linear_kernel, FLOATS),
    content_scores: (content_scores_kernel, FLOATS),
    content_context: (content_context_kernel, FLOATS),
    position_scores: (position_scores_kernel, FLOATS),
    position_context: (position_context_kernel, FLOATS),
    rescale: (rescale_kernel, FLOATS),
    dropout_mask: (dropout_mask_kernel, FLOATS),
}
GRADIENT_KERNELS: dict[Layer, Kernel] = {
    attention_probs: (attention_probs_gradient_kernel, FLOATS),
    cross_entropy: (cross_entropy_gradient_kernel, FLOATS),
    embedding: (embedding_gradient_kernel, FLOATS),
    gelu: (gelu_gradient_kernel, FLOATS[:1]),
    layer_norm: (layer_norm_gradient_kernel, FLOATS),
    linear: (linear_gradient_kernel, FLOATS),
    grouped_linear: (grouped_linear_gradient_kernel, FLOATS),
    content_scores: (content_scores_gradient_kernel, FLOATS),
    content_context: (content_context_gradient_kernel, FLOATS),
    position_scores: (position_scores_gradient_kernel, FLOATS),
    position_context: (position_context_gradient_kernel, FLOATS),
    rescale: (rescale_gradient_kernel, FLOATS),
}
# These take ``out=``, which may be dy.
OVER_DY = frozenset({attention_probs, gelu, rescale})
# For a pass that a tape records, and its walk back.
WHOLE_PASS = whole_pass
# For passes that have nothing to do with each other.
SIDE_BY_SIDE = side_by_side
SWEEP = numpy_blocks.sweep_blocks
