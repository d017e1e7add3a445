// NEZHA's forward pass (Wei et al. 2019) for one text, in plain JavaScript: from token ids to the guesses for each token.
// Every step records its result under the name that it has in `nezha_np.trace()`, so that the arrays can be compared.
//
// An array is { shape, data }, its numbers row after row in a Float32Array; sums are made in float64, as JavaScript's
// numbers are. Weights are tensors by name, a matrix is (out, in). What `nezha_np` writes with a batch axis in front has
// none here: `forward` adds it, always 1, to what it records.
//
// Letters: L tokens, H features, N heads, D = H / N features of a head, F neurons, K the farthest distance, V word pieces.
// Indices: i query, j key.

// ------------------------------------------------------------------------------------------------ arrays

export const zeros = (...shape) => ({ shape, data: new Float32Array(shape.reduce((size, axis) => size * axis, 1)) });

// A row of the last axis.
export function row(x, index) {
  const width = x.shape.at(-1);
  return x.data.subarray(index * width, (index + 1) * width);
}

function add(x, y) {
  return { shape: x.shape, data: x.data.map((value, at) => value + y.data[at]) };
}

// ------------------------------------------------------------------------------------------------ layers

// y = x Wᵀ + b                                                                    (L, I), (O, I), (O,) -> (L, O)
//
// Nearly all time is spent here. Four tokens and two outputs are computed together, so that each number that is read
// serves several products; a block that reaches beyond the last token computes the last one again.
export function linear(x, weight, bias) {
  const [L, I] = x.shape;
  const O = weight.shape[0];
  const y = zeros(L, O);
  const [from, w, to] = [Float64Array.from(x.data), weight.data, y.data];
  for (let first = 0; first < L; first += 4) {
    const [t0, t1, t2, t3] = [0, 1, 2, 3].map((step) => Math.min(first + step, L - 1));
    for (let o = 0; o < O; o += 2) {
      const p = Math.min(o + 1, O - 1);
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
      for (let i = 0; i < I; i++) {
        const v = w[o * I + i], u = w[p * I + i];
        const x0 = from[t0 * I + i], x1 = from[t1 * I + i], x2 = from[t2 * I + i], x3 = from[t3 * I + i];
        a0 += v * x0; a1 += v * x1; a2 += v * x2; a3 += v * x3;
        b0 += u * x0; b1 += u * x1; b2 += u * x2; b3 += u * x3;
      }
      const forO = bias.data[o], forP = bias.data[p];
      to[t0 * O + o] = a0 + forO; to[t1 * O + o] = a1 + forO; to[t2 * O + o] = a2 + forO; to[t3 * O + o] = a3 + forO;
      to[t0 * O + p] = b0 + forP; to[t1 * O + p] = b1 + forP; to[t2 * O + p] = b2 + forP; to[t3 * O + p] = b3 + forP;
    }
  }
  return y;
}

// μ = mean(x)    σ² = mean((x − μ)²)    y = γ (x − μ) / √(σ² + ε) + β             (L, H) -> (L, H)
export function layerNorm(x, weight, bias, eps) {
  const [L, H] = x.shape;
  const y = zeros(L, H);
  for (let t = 0; t < L; t++) {
    const from = row(x, t);
    const to = row(y, t);
    const mean = from.reduce((sum, value) => sum + value, 0) / H;
    const variance = from.reduce((sum, value) => sum + (value - mean) ** 2, 0) / H;
    const deviation = Math.sqrt(variance + eps);
    for (let h = 0; h < H; h++) to[h] = (weight.data[h] * (from[h] - mean)) / deviation + bias.data[h];
  }
  return y;
}

function polynomial(x, coefficients) { // the highest power first
  let value = coefficients[0];
  for (let at = 1; at < coefficients.length; at++) value = value * x + coefficients[at];
  return value;
}

// Numerators and denominators of Cody 1969, rounded to float64: erf(x) = x P(x²)/Q(x²) up to 0.46875, and beyond it
// erf(x) = 1 − exp(−x²) P(x)/Q(x).
const INNER = [
  [0.18577770618460315, 3.1611237438705655, 113.86415415105016, 377.485237685302, 3209.3775891384694],
  [1, 23.601290952344122, 244.02463793444417, 1282.6165260773723, 2844.236833439171],
];
const OUTER = [
  [2.1531153547440383e-8, 0.5641884969886701, 8.883149794388377, 66.11919063714163, 298.6351381974001,
    881.952221241769, 1712.0476126340707, 2051.0783778260716, 1230.3393547979972],
  [1, 15.744926110709835, 117.6939508913125, 537.1811018620099, 1621.3895745666903,
    3290.7992357334597, 4362.619090143247, 3439.3676741437216, 1230.3393548037495],
];

// The error function, 2/√π ∫₀ˣ exp(−t²) dt
export function erf(x) {
  const size = Math.abs(x);
  if (size <= 0.46875) return (x * polynomial(x * x, INNER[0])) / polynomial(x * x, INNER[1]);
  if (size > 6) return Math.sign(x); // to the last bit
  return Math.sign(x) * (1 - (Math.exp(-x * x) * polynomial(size, OUTER[0])) / polynomial(size, OUTER[1]));
}

// gelu(x) = x Φ(x) = ½ x (1 + erf(x / √2))                                        any shape
export function gelu(x) {
  return { shape: x.shape, data: x.data.map((value) => 0.5 * value * (1 + erf(value / Math.SQRT2))) };
}

// softmax(z)_c = exp(z_c) / Σ_c exp(z_c), of the numbers of one row
export function softmax(z) {
  const most = z.reduce((larger, value) => Math.max(larger, value), Number.NEGATIVE_INFINITY); // none overflows
  const exponentials = Float64Array.from(z, (value) => Math.exp(value - most));
  const total = exponentials.reduce((sum, value) => sum + value, 0);
  return exponentials.map((value) => value / total);
}

// ------------------------------------------------------------------------------------------------ relative positions

// T[r, 2m] = sin(r / 10000^(2m/D))    T[r, 2m + 1] = cos(r / 10000^(2m/D))        r = 0 … 2K -> (2K + 1, D)
export function positionTable(D, K) {
  const table = zeros(2 * K + 1, D);
  for (let r = 0; r <= 2 * K; r++) {
    for (let m = 0; m < D / 2; m++) {
      const angle = r * 10000 ** ((-2 * m) / D);
      row(table, r)[2 * m] = Math.sin(angle);
      row(table, r)[2 * m + 1] = Math.cos(angle);
    }
  }
  return table;
}

// The row of T for a query i and a key j: their distance j − i, at most `reach` to either side, counted from −K.
const rowOf = (i, j, reach, K) => Math.min(Math.max(j - i, -reach), reach) + K;

// ------------------------------------------------------------------------------------------------ attention

// (L, N·D) -> (N, L, D), and back
function splitHeads(x, N) {
  const [L, H] = x.shape;
  const D = H / N;
  const split = zeros(N, L, D);
  for (let t = 0; t < L; t++) for (let n = 0; n < N; n++) row(split, n * L + t).set(row(x, t).subarray(n * D, (n + 1) * D));
  return split;
}

function mergeHeads(x) {
  const [N, L, D] = x.shape;
  const merged = zeros(L, N * D);
  for (let t = 0; t < L; t++) for (let n = 0; n < N; n++) row(merged, t).set(row(x, n * L + t), n * D);
  return merged;
}

// score(n, i, j) = q_i · the row at(n, i, j) of the vectors            (N, L, D), (…, D) -> (N, L, L)
function scoreBy(q, vectors, at) {
  const [N, L, D] = q.shape;
  const scores = zeros(N, L, L);
  for (let n = 0; n < N; n++) {
    for (let i = 0; i < L; i++) {
      for (let j = 0; j < L; j++) {
        const query = (n * L + i) * D, key = at(n, i, j) * D;
        let sum = 0;
        for (let d = 0; d < D; d++) sum += q.data[query + d] * vectors.data[key + d];
        scores.data[(n * L + i) * L + j] = sum;
      }
    }
  }
  return scores;
}

// context(n, i) = Σ_j prob(n, i, j) · the row at(n, i, j) of the vectors          (N, L, L), (…, D) -> (N, L, D)
function averageBy(probs, vectors, at) {
  const [N, L] = probs.shape;
  const D = vectors.shape.at(-1);
  const context = zeros(N, L, D);
  const sum = new Float64Array(D);
  for (let n = 0; n < N; n++) {
    for (let i = 0; i < L; i++) {
      sum.fill(0);
      for (let j = 0; j < L; j++) {
        const prob = probs.data[(n * L + i) * L + j], value = at(n, i, j) * D;
        for (let d = 0; d < D; d++) sum[d] += prob * vectors.data[value + d];
      }
      row(context, n * L + i).set(sum);
    }
  }
  return context;
}

// prob(n, i, ·) = softmax(score(n, i, ·) / √D)                                    (N, L, L) -> (N, L, L)
function attentionProbs(scores, D) {
  const [N, L] = scores.shape;
  const probs = zeros(N, L, L);
  for (let at = 0; at < N * L; at++) row(probs, at).set(softmax(row(scores, at).map((score) => score / Math.sqrt(D))));
  return probs;
}

//     score(i, j) = (q_i · k_j + q_i · t_ij) / √D         context(i) = Σ_j prob(i, j) · (v_j + t_ij)
//
// with t_ij = T[rowOf(i, j)]: the two sums of NEZHA, in their content and their position part. (L, H) -> (L, H)
function selfAttention(x, w, { config, table, headsOff, reach, inKeys, inValues }, record) {
  const N = config.num_attention_heads;
  const [L, H] = x.shape;
  const D = H / N;
  const map = (name) => record(name, linear(x, w(`${name}.weight`), w(`${name}.bias`)));
  const q = record("q", splitHeads(map("query"), N));
  const k = record("k", splitHeads(map("key"), N));
  const v = record("v", splitHeads(map("value"), N));
  const ofKey = (n, _, j) => n * L + j;
  const ofDistance = (_, i, j) => rowOf(i, j, reach, config.max_relative_position);

  const content = record("content_scores", scoreBy(q, k, ofKey));
  const position = record("position_scores", inKeys ? scoreBy(q, table, ofDistance) : zeros(N, L, L));
  const scores = record("scores", add(content, position));
  let probs = record("probs", attentionProbs(scores, D));
  record("dropout", probs);
  if (headsOff.length) {
    probs = { shape: probs.shape, data: probs.data.slice() };
    for (const n of headsOff) probs.data.fill(0, n * L * L, (n + 1) * L * L);
    record("masked_probs", probs);
  }
  const ofContent = record("content_context", averageBy(probs, v, ofKey));
  const ofPosition = record("position_context", inValues ? averageBy(probs, table, ofDistance) : zeros(N, L, D));
  return record("", record("merged", mergeHeads(record("context", add(ofContent, ofPosition)))));
}

// ------------------------------------------------------------------------------------------------ the model

// LayerNorm(x + W y + b): what a step has computed is added to what it was computed from, then normalised.
function addAndNorm(y, x, w, eps, record) {
  const added = record("dropout", record("dense", linear(y, w("dense.weight"), w("dense.bias"))));
  const sum = record("residual", add(added, x));
  return record("", record("LayerNorm", layerNorm(sum, w("LayerNorm.weight"), w("LayerNorm.bias"), eps)));
}

// LayerNorm(word[id] + type[token type])                                          (L,) -> (L, H)
function embed(ids, types, w, eps, record) {
  const take = (table, indices) => {
    const rows = zeros(indices.length, table.shape[1]);
    indices.forEach((index, t) => { row(rows, t).set(row(table, index)); });
    return rows;
  };
  const word = record("word_embeddings", take(w("word_embeddings.weight"), ids));
  const type = record("token_type_embeddings", take(w("token_type_embeddings.weight"), types));
  const sum = record("sum", add(word, type));
  const x = record("LayerNorm", layerNorm(sum, w("LayerNorm.weight"), w("LayerNorm.bias"), eps));
  return record("", record("dropout", x));
}

// Attention gathers from the tokens, the feed-forward network computes from each alone.     (L, H) -> (L, H)
function encoderLayer(x, w, call, record) {
  const eps = call.config.layer_norm_eps;
  const context = selfAttention(x, within(w, "attention.self"), call, namesWithin(record, "attention.self"));
  const attended = addAndNorm(context, x, within(w, "attention.output"), eps, namesWithin(record, "attention.output"));
  record("attention", attended);
  const inner = record("intermediate.dense", linear(attended, w("intermediate.dense.weight"), w("intermediate.dense.bias")));
  const active = record("intermediate", record("intermediate.intermediate_act_fn", gelu(inner)));
  return record("", addAndNorm(active, attended, within(w, "output"), eps, namesWithin(record, "output")));
}

// The head that fills masks: a logit for each word piece. Its matrix is that of the word embeddings. (L, H) -> (L, V)
export function languageModel(x, weights, eps, record = (_, array) => array) {
  const w = within((name) => weights[name], "cls.predictions");
  const keep = namesWithin(record, "cls.predictions");
  const dense = keep("transform.dense", linear(x, w("transform.dense.weight"), w("transform.dense.bias")));
  const active = keep("transform.transform_act_fn", gelu(dense));
  const norm = layerNorm(active, w("transform.LayerNorm.weight"), w("transform.LayerNorm.bias"), eps);
  keep("transform", keep("transform.LayerNorm", norm));
  return keep("", keep("decoder", linear(norm, weights["embeddings.word_embeddings.weight"], w("bias"))));
}

// The weights below a prefix, and a record that puts a prefix before the names.
const joined = (prefix, name) => [prefix, name].filter(Boolean).join(".");
const within = (w, prefix) => (name) => w(joined(prefix, name));
const namesWithin = (record, prefix) => (name, array) => record(joined(prefix, name), array);

// All arrays of one pass, by their names; the last, "cls.predictions", (1, L, V), are the logits.
//
// change: { headsOff: { layer: [head, …] }, reach, inKeys, inValues } says what is taken away from the model: heads give
// nothing; distances beyond `reach` count as `reach`; the position part is left out of the keys or of the values.
export function forward(weights, config, ids, types = ids.map(() => 0), change = {}) {
  const { headsOff = {}, reach = config.max_relative_position, inKeys = true, inValues = true } = change;
  const arrays = {};
  const record = (name, array) => {
    arrays[name] = { shape: [1, ...array.shape], data: array.data };
    return array;
  };
  const w = (name) => weights[name];
  let x = embed(ids, types, within(w, "embeddings"), config.layer_norm_eps, namesWithin(record, "embeddings"));
  const table = positionTable(config.hidden_size / config.num_attention_heads, config.max_relative_position);
  arrays.relative_positions = table;
  for (let index = 0; index < config.num_hidden_layers; index++) {
    const prefix = `encoder.layer.${index}`;
    const call = { config, table, headsOff: headsOff[index] ?? [], reach, inKeys, inValues };
    x = encoderLayer(x, within(w, prefix), call, namesWithin(record, prefix));
  }
  record("encoder", x);
  languageModel(x, weights, config.layer_norm_eps, record);
  return arrays;
}
