"""Kernels for CuPy: what a GPU would do in many small launches is done in a few.

    self_attention       products by cuBLAS; between them one launch each for: bias and heads of q, of k, of v; scale,
                         position, mask, softmax and the sums by distance; both parts of the context, token by token
    residual_output      bias, residual and norm in one launch, in place of the product
    intermediate         bias and gelu in one launch, in place of the product
    attention_probs, position_context, layer_norm, gelu, linear
                         the same launches, for the layers that are called by themselves

They are CUDA C, compiled when the first array of a dtype arrives, and launched on the current stream. Nothing is read
back and nothing waits: the host only queues work. All sums are made in float32, in float16 too; float64 runs by
definitions.

A block of threads works on one row (a token, or a query of one head), so nothing is shared between blocks and no sum
depends on the order in which they run.

Dimension letters as in `nezha_np.model`; R = 2K + 1 rows of a table of positions.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import cupy
import numpy as np

from nezha_np.arrays import Array
from nezha_np.families.bert import bert_scores
from nezha_np.families.family import family_of
from nezha_np.layers.activations import activation, gelu
from nezha_np.layers.attention import attention_probs
from nezha_np.layers.grouped_linear import grouped_linear
from nezha_np.layers.layer_norm import layer_norm
from nezha_np.layers.linear import linear
from nezha_np.layers.relative_position import position_context
from nezha_np.layers.span_convolution import join_features
from nezha_np.mechanism import Kernel, Layer, View
from nezha_np.model import model
from nezha_np.model.arguments import KeysAndValues

# ---------------------------------------------------------------------------------------------------------- CUDA C

# Pointers that may be missing are 0. Scalars are long long and double, which is what CuPy makes of int and float; a row
# times its width may exceed 2^31.
SOURCE = r"""
#include <cuda_fp16.h>

using number = NUMBER;  // what the arrays hold, float or __half; what is computed is float

__device__ float load(const float* x, long long i) { return x[i]; }
__device__ float load(const __half* x, long long i) { return __half2float(x[i]); }
__device__ void store(float* x, long long i, float value) { x[i] = value; }
__device__ void store(__half* x, long long i, float value) { x[i] = __float2half_rn(value); }

// ------------------------------------------------------------------ one number of all threads of a block, for all

__device__ float block_sum(float value) {
    __shared__ float of_warp[32];
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warp[0];
    for (int warp = 1; warp < blockDim.x / 32; ++warp) value += of_warp[warp];
    __syncthreads();  // the next call writes there
    return value;
}

__device__ float block_max(float value) {
    __shared__ float of_warp[32];
    for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = of_warp[0];
    for (int warp = 1; warp < blockDim.x / 32; ++warp) value = fmaxf(value, of_warp[warp]);
    __syncthreads();
    return value;
}

// ---------------------------------------------------------------------------------- y = gelu(x + bias), y may be x

extern "C" __global__ void bias_gelu(
    number* y, const number* x, const number* bias, long long rows, long long width
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            float value = load(x, row * width + column);
            if (bias) value += load(bias, column);
            store(y, row * width + column, 0.5f * value * (1.0f + erff(value * 0.70710678118654752f)));
        }
    }
}

// ------------------------------------------------------------- y = norm(x + bias + residual), y may be x, not residual

extern "C" __global__ void normalise(
    number* y, const number* x, const number* bias, const number* residual, const number* gamma, const number* beta,
    double eps, long long rows, long long width
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        // The sum is made anew in each of three sweeps: from cache, and unlike y it is never rounded to float16.
        auto summed = [=](long long column) {
            float value = load(x, row * width + column);
            if (bias) value += load(bias, column);
            if (residual) value += load(residual, row * width + column);
            return value;
        };
        float sum = 0.0f, squares = 0.0f;
        for (long long column = threadIdx.x; column < width; column += blockDim.x) sum += summed(column);
        float mean = block_sum(sum) / width;
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            float centred = summed(column) - mean;
            squares += centred * centred;
        }
        float deviation = sqrtf(block_sum(squares) / width + (float)eps);
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            float normalised = (summed(column) - mean) / deviation;
            store(y, row * width + column, normalised * load(gamma, column) + load(beta, column));
        }
    }
}

// --------------------------------------------------------------------------------- attention, one query of one head

__device__ long long clip(long long value, long long low, long long high) {
    return value < low ? low : value > high ? high : value;
}

// Sum the probabilities of one query by distance: bucket r is of the keys with clip(key - position, -K, K) + K = r.
// Between the first and the last bucket each has one key at most; only these two are sums.
__device__ void collect_row(number* buckets, const number* probs, long long position, long long reach, long long keys) {
    long long near = clip(position - reach + 1, 0, keys);  // all keys before it are in the first bucket
    long long far = clip(position + reach, 0, keys);       // it and all keys after it are in the last bucket
    if (reach == 0) near = far = keys;                     // where the first is the last
    float before = 0.0f, after = 0.0f;
    for (long long key = threadIdx.x; key < near; key += blockDim.x) before += load(probs, key);
    for (long long key = far + threadIdx.x; key < keys; key += blockDim.x) after += load(probs, key);
    before = block_sum(before);
    after = block_sum(after);
    for (long long bucket = threadIdx.x; bucket <= 2 * reach; bucket += blockDim.x) {
        long long key = position + bucket - reach;
        float only = 0 <= key && key < keys ? load(probs, key) : 0.0f;
        store(buckets, bucket, bucket == 0 ? before : bucket == 2 * reach ? after : only);
    }
}

extern "C" __global__ void collect(
    number* buckets, const number* probs, long long queries, long long past, long long reach, long long rows,
    long long keys
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        collect_row(buckets + row * (2 * reach + 1), probs + row * keys, past + row % queries, reach, keys);
    }
}

// probs = softmax(scale * (scores + by_row spread over the keys) + mask) * of_head, and buckets = collect(probs).
// probs may be scores: in the last sweep a thread writes only where it alone still reads.
extern "C" __global__ void softmax(
    number* probs, number* buckets, const number* scores, const number* by_row, const float* mask,
    const number* of_head, double scale, long long mask_by_text, long long mask_by_query, long long heads,
    long long queries, long long past, long long reach, long long rows, long long keys
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        long long query = row % queries, head = row / queries % heads, text = row / queries / heads;
        const number* row_scores = scores + row * keys;
        const number* of_distance = by_row + row * (2 * reach + 1);
        const float* row_mask = mask + text * mask_by_text + query * mask_by_query;
        auto logit = [=](long long key) {
            float score = load(row_scores, key);
            if (by_row) score += load(of_distance, clip(key - past - query, -reach, reach) + reach);
            score *= (float)scale;
            return mask ? score + row_mask[key] : score;
        };
        float largest = logit(0), sum = 0.0f;
        for (long long key = threadIdx.x; key < keys; key += blockDim.x) largest = fmaxf(largest, logit(key));
        largest = block_max(largest);
        for (long long key = threadIdx.x; key < keys; key += blockDim.x) sum += expf(logit(key) - largest);
        sum = block_sum(sum);
        float factor = of_head ? load(of_head, head) : 1.0f;
        for (long long key = threadIdx.x; key < keys; key += blockDim.x) {
            store(probs, row * keys + key, expf(logit(key) - largest) / sum * factor);
        }
        if (buckets) {
            __syncthreads();  // the row is complete
            collect_row(buckets + row * (2 * reach + 1), probs + row * keys, past + query, reach, keys);
        }
    }
}

// ------------------------------------------------------------------- from token by token to head by head, and back

// x + bias, (B, L, N * D), is written where the strides say: (B, N, L, D), or (B, N, D, L) for keys. Within a token 32
// bits are enough, and their division is much faster.
extern "C" __global__ void split_heads(
    number* y, const number* x, const number* bias, long long length, long long head_size, long long by_head,
    long long by_token, long long by_feature, long long rows, long long width
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        long long start = row / length * length * width + row % length * by_token;
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            int head = (int)column / (int)head_size, feature = (int)column % (int)head_size;
            float value = load(x, row * width + column);
            if (bias) value += load(bias, column);
            store(y, start + head * by_head + feature * by_feature, value);
        }
    }
}

// x + more, (B, N, L, D), is written token by token, (B, L, N * D).
extern "C" __global__ void merge_heads(
    number* y, const number* x, const number* more, long long length, long long head_size, long long rows,
    long long width
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        long long start = row / length * length * width + row % length * head_size;
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            int head = (int)column / (int)head_size, feature = (int)column % (int)head_size;
            long long i = start + head * length * head_size + feature;
            store(y, row * width + column, load(x, i) + (more ? load(more, i) : 0.0f));
        }
    }
}
"""
FUNCTIONS = ("bias_gelu", "normalise", "collect", "softmax", "split_heads", "merge_heads")
NUMBERS = {np.dtype(np.float32): "float", np.dtype(np.float16): "__half"}
THREADS = 256  # in a block at most; a warp is 32
BLOCKS = 2**31 - 1  # in a grid at most; of more rows a block takes several


@functools.cache
def compiled(dtype: np.dtype) -> dict[str, Any]:
    """Compile the source for arrays of one dtype; CuPy does so when a kernel is first launched on a device.

    Parameters
    ----------
    dtype : dtype
        A key of `NUMBERS`.

    Returns
    -------
    dict of str to cupy.RawKernel
        The kernels by name.
    """
    module = cupy.RawModule(code=SOURCE, options=("-std=c++17", f"-DNUMBER={NUMBERS[dtype]}"))
    return {name: module.get_function(name) for name in FUNCTIONS}


def launch(name: str, arrays: tuple[Array, ...], *scalars: int | float, rows: int, width: int) -> None:
    """Queue a kernel on the current stream, with a block of threads for each row.

    Parameters
    ----------
    name : str
        One of `FUNCTIONS`.
    arrays : tuple of (array or None)
        Its arrays. What it writes to is contiguous already; of the others, those that are not are copied.
    scalars : int or float
        What follows them.
    rows, width : int
        The last two arguments.
    """
    if rows and width:  # CUDA knows no empty grid
        threads = min(THREADS, -(-width // 32) * 32)
        pointers = [0 if array is None else contiguous(array) for array in arrays]
        compiled(arrays[0].dtype)[name]((min(rows, BLOCKS),), (threads,), (*pointers, *scalars, rows, width))


def contiguous(x: Array) -> Array:
    """Return an array whose rows follow each other in memory: itself where they do."""
    return x if x.flags.c_contiguous else cupy.ascontiguousarray(x)


def count_rows(x: Array) -> int:
    """Count the rows of all axes but the last."""
    return math.prod(x.shape[:-1])


def flat_rows(x: Array) -> Array:
    """Fold all axes but the last: (…, H) -> (rows, H)."""
    return x.reshape(count_rows(x), x.shape[-1])


def same_dtype(*arrays: Array | None) -> bool:
    """Say whether all arrays hold the same kind of numbers, which is what the kernels expect."""
    return len({array.dtype for array in arrays if array is not None}) == 1


# ------------------------------------------------------------------------------------------------------------- layers


def product(x: Array, weight: Array) -> Array:
    """Multiply all rows by a matrix, by cuBLAS: (…, I), (O, I) -> (rows, O), a new contiguous array."""
    return contiguous(cupy.dot(flat_rows(x), weight.T))


def linear_kernel(x: Array, weight: Array, bias: Array | None = None) -> Any:
    """Add the bias in place of the product.

    Parameters
    ----------
    x, weight, bias : array
        As for `linear`.

    Returns
    -------
    (…, O) array
        ``x @ weight.T + bias``.
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    y = product(x, weight)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0])


def gelu_kernel(x: Array) -> Array:
    """Compute gelu in one launch.

    Parameters
    ----------
    x : array
        Any shape.

    Returns
    -------
    array
        x Φ(x), by the erf of the device.
    """
    y = cupy.empty(x.shape, x.dtype)
    rows, width = (count_rows(x), x.shape[-1]) if x.ndim else (1, 1)
    launch("bias_gelu", (y, x, None), rows=rows, width=width)
    return y


def layer_norm_kernel(x: Array, weight: Array, bias: Array, *, eps: float) -> Any:
    """Normalise in one launch.

    Parameters
    ----------
    x, weight, bias, eps
        As for `layer_norm`.

    Returns
    -------
    (…, H) array
        The normalised tokens.
    """
    if not same_dtype(x, weight, bias):
        return NotImplemented
    y = cupy.empty(x.shape, x.dtype)
    launch("normalise", (y, x, None, None, weight, bias), float(eps), rows=count_rows(x), width=x.shape[-1])
    return y


def dense(x: Array, w: View) -> tuple[Array, Array | None]:
    """Map each token without the bias, which is returned beside: a later launch adds it.

    Parameters
    ----------
    x : (…, I) array
        The tokens.
    w : View
        Of ``dense.weight``, in groups or not, and ``dense.bias``.

    Returns
    -------
    y : (rows, O) array
        New and contiguous: it may be written to.
    bias : (O,) array or None
        None where it is in y already.
    """
    weight, bias = w["dense.weight"], w["dense.bias"]
    if weight.ndim == 3:
        y = grouped_linear(x, weight, bias)
        return contiguous(flat_rows(y)), None
    return product(x, weight), bias


def residual_output_kernel(x: Array, residual: Array, w: View) -> Any:
    """Map back, then bias, residual and norm in one launch.

    Parameters
    ----------
    x, residual, w
        As for `nezha_np.model.residual_output`.

    Returns
    -------
    (B, L, H) array
        The end of a block.
    """
    if not same_dtype(x, residual, w["dense.weight"]):
        return NotImplemented
    y, bias = dense(x, w)
    norm = w["LayerNorm.weight"], w["LayerNorm.bias"]
    rows, width = y.shape
    launch("normalise", (y, y, bias, residual, *norm), float(w.config.layer_norm_eps), rows=rows, width=width)
    return y.reshape(residual.shape)


def intermediate_kernel(x: Array, w: View) -> Any:
    """Widen each token, then bias and gelu in one launch; other activations have no kernel.

    Parameters
    ----------
    x, w
        As for `nezha_np.model.intermediate`.

    Returns
    -------
    (B, L, F) array
        The middle of the feed-forward.
    """
    if activation(w.config.hidden_act) is not gelu or not same_dtype(x, w["dense.weight"]):
        return NotImplemented
    y, bias = dense(x, w)
    rows, width = y.shape
    launch("bias_gelu", (y, y, bias), rows=rows, width=width)
    return y.reshape(*x.shape[:-1], width)


# ---------------------------------------------------------------------------------------------------------- attention


def by_head(x: Array, bias: Array | None, shape: tuple[int, int, int], *, turned: bool = False) -> Array:
    """Add the bias of a product, and put it head by head.

    Parameters
    ----------
    x : (B·L, N·D) array
        A product.
    bias : (N·D,) array or None
        Its bias; None: it is in it already.
    shape : (B, L, D)
        What its two axes are made of.
    turned : bool
        Put the features before the tokens. Keys are multiplied so, and CuPy would copy them to turn them.

    Returns
    -------
    (B, N, L, D) array, or (B, N, D, L)
        The heads.
    """
    (batch, length, size), width = shape, x.shape[1]
    axes, by_token, by_feature = ((size, length), 1, length) if turned else ((length, size), size, 1)
    y = cupy.empty((batch, width // size, *axes), x.dtype)
    strides = length * size, by_token, by_feature
    launch("split_heads", (y, x, bias), length, size, *strides, rows=batch * length, width=width)
    return y


def by_token(x: Array, more: Array | None) -> Array:
    """Put what the heads saw token by token: (B, N, L, D) + (B, N, L, D) -> (B, L, N·D)."""
    batch, heads, length, size = x.shape
    y = cupy.empty((batch, length, heads * size), x.dtype)
    launch("merge_heads", (y, x, more), length, size, rows=batch * length, width=heads * size)
    return y


def fits(mask: Array | None, scores: Array) -> bool:
    """Say whether a mask is one that the kernel reads: (B or 1, 1, Q or 1, S) in float32, or none."""
    if mask is None:
        return True
    batch, _, queries, keys = scores.shape
    shapes = [(texts, 1, rows, keys) for texts in (1, batch) for rows in (1, queries)]
    return mask.shape in shapes and mask.dtype == np.float32


def softmax(
    scores: Array,
    mask: Array | None,
    *,
    scale: float,
    out: Array,
    by_row: Array | None = None,
    buckets: Array | None = None,
    of_head: Array | None = None,
    past: int = 0,
) -> None:
    """Turn scores into probabilities, and sum these by distance, in one launch.

    Parameters
    ----------
    scores : (B, N, Q, S) array
        The content term.
    mask : (B or 1, 1, Q or 1, S) float32 array or None
        The additive mask.
    scale : float
        1/√D.
    out : (B, N, Q, S) array
        Gets the probabilities; it may be `scores`.
    by_row : (B·N·Q, R) array or None
        The position term: for each query a number for each row of the table.
    buckets : (B·N·Q, R) array or None
        Gets the sums of the probabilities by distance.
    of_head : (N,) array or None
        A factor for each head.
    past : int
        The position of the first query.
    """
    batch, heads, queries, keys = scores.shape
    reach = next((array.shape[1] // 2 for array in (by_row, buckets) if array is not None), 0)
    if mask is None:
        by_text = by_query = 0
    else:
        by_query = keys if mask.shape[2] > 1 else 0
        by_text = mask.shape[2] * keys if mask.shape[0] > 1 else 0
    arrays = out, buckets, scores, by_row, mask, of_head
    places = by_text, by_query, heads, queries, past, reach
    launch("softmax", arrays, float(scale), *places, rows=batch * heads * queries, width=keys)


def attention_probs_kernel(scores: Array, mask: Array | None = None, *, scale: float) -> Any:
    """Scale, mask and softmax in one launch.

    Parameters
    ----------
    scores, mask, scale
        As for `attention_probs`.

    Returns
    -------
    (B, N, Q, S) array
        The probabilities.
    """
    if not fits(mask, scores):
        return NotImplemented  # a mask in float64 would be cut
    probs = cupy.empty(scores.shape, scores.dtype)
    softmax(scores, mask, scale=scale, out=probs)
    return probs


def position_context_kernel(probs: Array, table: Array, *, past: int = 0) -> Any:
    """Sum by distance in one launch, then one product.

    Parameters
    ----------
    probs, table, past
        As for `position_context`.

    Returns
    -------
    (B, N, Q, D) array
        The position term of the context.
    """
    if not same_dtype(probs, table):
        return NotImplemented
    batch, heads, queries, keys = probs.shape
    rows = batch * heads * queries
    buckets = cupy.empty((rows, table.shape[0]), probs.dtype)
    launch("collect", (buckets, probs), queries, past, table.shape[0] // 2, rows=rows, width=keys)
    return cupy.dot(buckets, table).reshape(batch, heads, queries, table.shape[1])


def self_attention_kernel(
    x: Array,
    w: View,
    *,
    table: Array | None,
    mask: Array | None = None,
    head_mask: Array | None = None,
    states: Array | None = None,
    past: KeysAndValues | None = None,
    position: int = 0,
    returns_probs: bool = True,
) -> Any:
    """Attend with one launch between the products; BERT's ``relative_key_query`` has no kernel.

    Parameters
    ----------
    x, w, table, mask, head_mask, states, past, position, returns_probs
        As for `nezha_np.model.self_attention`.

    Returns
    -------
    tuple
        Context, probabilities or None, and keys and values.
    """
    config, family = w.config, family_of(w.config)
    learned = family.scores is bert_scores and states is None and config.position_embedding_type
    given = table, head_mask, states, *(past or ())
    if learned == "relative_key_query" or not same_dtype(x, w["query.weight"], *given):
        return NotImplemented
    size, (batch, queries, _) = config.head_size, x.shape

    if family.beside_heads is None:
        query, bias = product(x, w["query.weight"]), w["query.bias"]
    else:  # the convolutions need it with its bias, token by token
        query, bias = flat_rows(linear(x, w["query.weight"], w["query.bias"])), None
    q = by_head(query, bias, (batch, queries, size))  # (B, N, Q, D)
    if states is not None and past is not None:
        keys, v = past[0].swapaxes(2, 3), past[1]  # (B, N, D, S), (B, N, S, D)
    else:
        source = x if states is None else states
        shape = batch, source.shape[1], size
        keys = by_head(product(source, w["key.weight"]), w["key.bias"], shape, turned=True)
        v = by_head(product(source, w["value.weight"]), w["value.bias"], shape)
        if past is not None:
            keys = cupy.concatenate([past[0].swapaxes(2, 3), keys], axis=3)
            v = cupy.concatenate([past[1], v], axis=2)

    probs = contiguous(cupy.matmul(q, keys))  # (B, N, Q, S), the scores yet
    if not fits(mask, probs):
        return NotImplemented
    score_rows = table
    if learned == "relative_key":  # those of the distances that occur; they count from key to query
        distances, count = w["distance_embedding.weight"], keys.shape[3]
        middle = distances.shape[0] // 2
        score_rows = distances[middle - count + 1 : middle + count][::-1]
    by_row = None if score_rows is None else contiguous(cupy.dot(flat_rows(q), score_rows.T))  # (B·N·Q, R)
    buckets = None if table is None else cupy.empty((count_rows(q), table.shape[0]), x.dtype)
    scale = 1.0 / math.sqrt(size)
    softmax(probs, mask, scale=scale, out=probs, by_row=by_row, buckets=buckets, of_head=head_mask, past=position)

    content = contiguous(cupy.matmul(probs, v))  # (B, N, Q, D)
    context = by_token(content, None if buckets is None else cupy.dot(buckets, table))
    if family.beside_heads is not None:
        context = join_features(context, family.beside_heads(x, query.reshape(batch, queries, -1), w))
    return context, probs if returns_probs else None, (keys.swapaxes(2, 3), v)


FLOATS = tuple(NUMBERS)
KERNELS: dict[Layer, Kernel] = {
    linear: (linear_kernel, FLOATS),
    gelu: (gelu_kernel, FLOATS),
    layer_norm: (layer_norm_kernel, FLOATS),
    attention_probs: (attention_probs_kernel, FLOATS),
    position_context: (position_context_kernel, FLOATS),
    model.self_attention: (self_attention_kernel, FLOATS),
    model.residual_output: (residual_output_kernel, FLOATS),
    model.intermediate: (intermediate_kernel, FLOATS),
}
