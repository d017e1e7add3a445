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

// A sum over the threads of a block that have the same place in their warps, which all of these get. It adds up warp
// after warp, so its order is the same on each run.
__device__ float column_sum(float value) {
    __shared__ float of_thread[1024];
    of_thread[threadIdx.x] = value;
    __syncthreads();
    value = of_thread[threadIdx.x % 32];
    for (int thread = threadIdx.x % 32 + 32; thread < blockDim.x; thread += 32) value += of_thread[thread];
    __syncthreads();  // the next call writes there
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

// dx = dy * (Phi(x) + x * phi(x)), dx may be dy.
extern "C" __global__ void gelu_gradient(
    number* dx, const number* dy, const number* x, long long rows, long long width
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            float value = load(x, row * width + column);
            float probability = 0.5f * (1.0f + erff(value * 0.70710678118654752f));
            float density = expf(-0.5f * value * value) * 0.39894228040143268f;
            store(dx, row * width + column, load(dy, row * width + column) * (probability + value * density));
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

// With g = gamma * dy and n = (x - mean) / deviation: dx = (g - mean(g) - n * mean(g * n)) / deviation. Mean and 1 /
// deviation of each row are kept for the sums over rows, which follow.
extern "C" __global__ void normalise_gradient(
    number* dx, float* statistics, const number* dy, const number* x, const number* gamma, double eps, long long rows,
    long long width
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const number* row_x = x + row * width;
        auto slope = [=](long long column) { return load(dy, row * width + column) * load(gamma, column); };
        float sum = 0.0f, squares = 0.0f, slopes = 0.0f, along = 0.0f;
        for (long long column = threadIdx.x; column < width; column += blockDim.x) sum += load(row_x, column);
        float mean = block_sum(sum) / width;
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            float centred = load(row_x, column) - mean;
            squares += centred * centred;
            slopes += slope(column);
            along += slope(column) * centred;
        }
        float factor = 1.0f / sqrtf(block_sum(squares) / width + (float)eps);
        slopes = block_sum(slopes) / width;
        along = block_sum(along) * factor / width;
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            float normalised = (load(row_x, column) - mean) * factor;
            store(dx, row * width + column, (slope(column) - slopes - normalised * along) * factor);
        }
        if (threadIdx.x == 0) {
            statistics[2 * row] = mean;
            statistics[2 * row + 1] = factor;
        }
    }
}

// The gradients of gamma and beta are sums over all rows, made in two steps: here those over some rows at a time, then
// theirs by `sum_parts`. There is no atomic addition, and which rows and which warps are added up in which order does
// not depend on the grid: so the bits are the same on each run. A block takes 32 columns, a warp of it every eighth row
// (fewer warps where there are few columns). `rows` counts blocks.
extern "C" __global__ void normalise_sums(
    float* parts, const number* dy, const number* x, const float* statistics, long long tokens, long long tokens_of_part,
    long long rows, long long width
) {
    long long groups = (width + 31) / 32;
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        long long part = row / groups, column = row % groups * 32 + threadIdx.x % 32;
        long long token = part * tokens_of_part + threadIdx.x / 32, end = (part + 1) * tokens_of_part;
        float of_gamma = 0.0f, of_beta = 0.0f;
        for (; token < end && token < tokens && column < width; token += blockDim.x / 32) {
            float slope = load(dy, token * width + column);
            of_beta += slope;
            of_gamma += slope * (load(x, token * width + column) - statistics[2 * token]) * statistics[2 * token + 1];
        }
        of_gamma = column_sum(of_gamma);
        of_beta = column_sum(of_beta);
        if (threadIdx.x < 32 && column < width) {
            parts[2 * part * width + column] = of_gamma;
            parts[(2 * part + 1) * width + column] = of_beta;
        }
    }
}

// total = the sum of all parts, by column. A block takes 32 columns; `rows` counts blocks.
extern "C" __global__ void sum_parts(
    number* total, const float* parts, long long count, long long rows, long long width
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        long long column = row * 32 + threadIdx.x % 32;
        float sum = 0.0f;
        for (long long part = threadIdx.x / 32; part < count && column < width; part += blockDim.x / 32) {
            sum += parts[part * width + column];
        }
        sum = column_sum(sum);
        if (threadIdx.x < 32 && column < width) store(total, column, sum);
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

// dscores = scale * probs * (dy - sum(probs * dy)), dscores may be dy.
extern "C" __global__ void softmax_gradient(
    number* dscores, const number* dy, const number* probs, double scale, long long rows, long long keys
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const number *row_dy = dy + row * keys, *row_probs = probs + row * keys;
        float sum = 0.0f;
        for (long long key = threadIdx.x; key < keys; key += blockDim.x) sum += load(row_probs, key) * load(row_dy, key);
        sum = block_sum(sum);
        for (long long key = threadIdx.x; key < keys; key += blockDim.x) {
            store(dscores, row * keys + key, load(row_probs, key) * (load(row_dy, key) - sum) * (float)scale);
        }
    }
}

// by_key = by_row spread over the keys by their distance: the transpose of `collect`.
extern "C" __global__ void spread(
    number* by_key, const number* by_row, long long queries, long long past, long long reach, long long rows,
    long long keys
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const number* of_distance = by_row + row * (2 * reach + 1);
        long long position = past + row % queries;
        for (long long key = threadIdx.x; key < keys; key += blockDim.x) {
            store(by_key, row * keys + key, load(of_distance, clip(key - position, -reach, reach) + reach));
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

// ----------------------------------------------- the gradient of an embedding: dtable[v] = the sum of the dy with id v

// Tokens are in the order of their ids, so those of one id follow each other: `ids` are the sorted ids, and the token
// at a place is order[place]. Frequent ids, such as the type of a token, have thousands of tokens. So here those of one
// id within some places are added up, which is written at the first of them; then `embedding_rows` adds up these sums.
extern "C" __global__ void embedding_sums(
    float* sums, const number* dy, const long long* order, const long long* ids, long long places_of_part,
    long long rows, long long width
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        long long id = ids[row], end = row + 1;
        if (row % places_of_part && ids[row - 1] == id) continue;  // another block adds it
        while (end < rows && end % places_of_part && ids[end] == id) ++end;
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            float sum = 0.0f;
            for (long long place = row; place < end; ++place) sum += load(dy, order[place] * width + column);
            sums[row * width + column] = sum;
        }
    }
}

// dtable is all 0 before. The padding id, or -1, gets nothing.
extern "C" __global__ void embedding_rows(
    number* dtable, const float* sums, const long long* ids, long long padding, long long places_of_part,
    long long rows, long long width
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        long long id = ids[row], next = (row / places_of_part + 1) * places_of_part;
        if (id == padding || (row > 0 && ids[row - 1] == id)) continue;
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            float sum = sums[row * width + column];
            for (long long place = next; place < rows && ids[place] == id; place += places_of_part) {
                sum += sums[place * width + column];
            }
            store(dtable, id * width + column, sum);
        }
    }
}

// ------------------------------------------- dlogits = (softmax(logits) - one-hot(label)) * share, and 0 where ignored

extern "C" __global__ void cross_entropy_gradient(
    number* dlogits, const number* logits, const long long* labels, const float* share, long long ignored,
    long long rows, long long width
) {
    for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
        const number* row_logits = logits + row * width;
        float largest = load(row_logits, 0), sum = 0.0f;
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            largest = fmaxf(largest, load(row_logits, column));
        }
        largest = block_max(largest);
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            sum += expf(load(row_logits, column) - largest);
        }
        sum = block_sum(sum);
        float factor = (labels[row] == ignored ? 0.0f : 1.0f) * share[0];
        for (long long column = threadIdx.x; column < width; column += blockDim.x) {
            float right = column == labels[row] ? 1.0f : 0.0f;
            store(dlogits, row * width + column, (expf(load(row_logits, column) - largest) / sum - right) * factor);
        }
    }
}
