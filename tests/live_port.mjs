// Run the JavaScript model in Node.js: node tests/live_port.mjs JOB
//
// JOB is a JSON file: { carried, passes: [{ ids, change, path }], texts, tokens }, where `carried` is a file of what
// nezha_np.explanation.live.live.carry_model returns. The arrays of each pass are written to its path, as safetensors;
// the ids of each text, as JSON, to `tokens`.

import { readFileSync, writeFileSync } from "node:fs";
import { forward } from "../nezha_np/explanation/live/nezha.mjs";
import { fromBase64, readTensors, writeTensors } from "../nezha_np/explanation/live/safetensors.mjs";
import { makeTokenizer, tokenize } from "../nezha_np/explanation/live/wordpiece.mjs";

const read = (path) => JSON.parse(readFileSync(path, "utf8"));
const job = read(process.argv[2]);
const carried = read(job.carried);
const weights = readTensors(fromBase64(carried.weights));
for (const { ids, change, path } of job.passes ?? []) {
  const arrays = forward(weights, carried.config, ids, ids.map(() => 0), change);
  writeFileSync(path, writeTensors({ ...arrays, "outputs/logits": arrays["cls.predictions"] }));
}
if (job.texts) {
  const tokenizer = makeTokenizer(carried.tokenizer);
  writeFileSync(job.tokens, JSON.stringify(job.texts.map((text) => tokenize(text, tokenizer).map(({ id }) => id))));
}
