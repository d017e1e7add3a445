"""Time passes of the JavaScript model of the live page, in Node.js, as it runs after each key that is typed.

python benchmarks/live_page.py [--lengths 1 8 16 32 48] [--repeats 15] [--json PATH]

needs Node.js, whose engine is Chromium's. The model is the one that ships with the package, carried as in a page. Every
pass computes all arrays that the page shows. Beside it stands `nezha_np.forward` of the same ids, in one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from machine import Target, add_json_option, report, table
from processes import run_python

import nezha_np as nz
from nezha_np.explanation.live import live

MODULES = Path(live.__file__).parent
TYPING = 50.0  # milliseconds, for the sentence of `TYPED` tokens
TYPED = 8
SCRIPT = """
import { readFileSync } from "node:fs";
const [modules, path, lengths, repeats] = process.argv.slice(1);
const { forward } = await import(`${modules}/nezha.mjs`);
const { fromBase64, readTensors } = await import(`${modules}/safetensors.mjs`);
const carried = JSON.parse(readFileSync(path, "utf8"));
const weights = readTensors(fromBase64(carried.weights));
const found = JSON.parse(lengths).map((length) => {
  const ids = Array.from({ length }, (_, place) => 10 + ((37 * place) % 1000));
  const times = [];
  for (let turn = -5; turn < Number(repeats); turn += 1) {
    const start = performance.now();
    forward(weights, carried.config, ids, ids.map(() => 0), {});
    if (turn >= 0) times.push(performance.now() - start);
  }
  return times;
});
console.log(JSON.stringify(found));
"""
NUMPY = """
import json, sys, time
import nezha_np as nz
weights, found = nz.load(), []
for length in json.loads(sys.argv[1]):
    ids, times = [[10 + 37 * place % 1000 for place in range(length)]], []
    for turn in range(-5, int(sys.argv[2])):
        start = time.perf_counter()
        nz.forward(weights, ids)
        if turn >= 0:
            times.append(1000 * (time.perf_counter() - start))
    found.append(times)
print(json.dumps(found))
"""


def measure(lengths: list[int], repeats: int) -> list[dict[str, Any]]:
    """Time both for each number of tokens."""
    arguments = [json.dumps(lengths), str(repeats)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "carried.json"
        path.write_text(json.dumps(live.carry_model(nz.load(), nz.load_tokenizer())), encoding="utf-8")
        command = ["node", "--input-type=module", "-e", SCRIPT, MODULES.as_uri(), str(path), *arguments]
        browser = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    numpy = json.loads(run_python(NUMPY, arguments, threads=1).printed)
    return [
        {"tokens": length, "javascript_ms": statistics.median(js), "numpy_ms": statistics.median(np)}
        for length, js, np in zip(lengths, browser, numpy, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", nargs="+", type=int, default=[1, TYPED, 16, 32, 48])
    parser.add_argument("--repeats", type=int, default=15)
    add_json_option(parser)
    options = parser.parse_args()
    results = measure(options.lengths, options.repeats)
    rows = [
        [f"{found['tokens']}", *(f"{found[key]:.1f} ms" for key in ("javascript_ms", "numpy_ms"))] for found in results
    ]
    print(table(["tokens", "JavaScript", "nezha_np, 1 thread"], rows))
    typed = next((found["javascript_ms"] for found in results if found["tokens"] == TYPED), None)
    target = Target(f"{TYPED} tokens in JavaScript, milliseconds", typed, TYPING)
    report(options.json, "live_page", {"repeats": options.repeats}, results, [target])


if __name__ == "__main__":
    main()
