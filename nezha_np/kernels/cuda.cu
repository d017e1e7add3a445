// The kernels for CuPy in CUDA C. `cuda.py` compiles them, with NUMBER as float or __half, and launches them.
//
// A block of threads works on one row (a token, or a query of one head), so nothing is shared between blocks and no sum
// depends on the order in which they run. All sums are made in float. Pointers that may be missing are 0. Scalars are
// long long and double, which is what CuPy makes of int and float; a row times its width may exceed 2^31.

#include <cuda_fp16.h>

using number = NUMBER;  // what the arrays hold, float or __half; what is computed is float

__device__ float load(const float* x, long long i) { return x[i]; }
__device__ float load(const __half* x, long long i) { return __half2float(x[i]); }
__device__ void store(float* x, long long i, float value) { x[i] = value; }
__device__ void store(__half* x, long long i, float value) { x[i] = __float2half_rn(value); }

// --------------------------------------------- a sum or a maximum over all threads of a block, which all of them get

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
