"""Install the function of docs/howto/serve.md, count its size, and time a cold start, up to the first answer.

python benchmarks/function_start.py [--repeats 5] [--layers 12] [--threads 2] [--json PATH]

pip installs the folder by the command of the page. Each process sees this folder and Python's own library alone. The
files were read just before, so they come from the system's cache. This process stays small, because the peak memory
that the system reports for a child is at least that of its parent. `--layers 1 --repeats 1` is a quick trial run.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from answers_tables import starts_table
from contest import add_threads_option
from installed import REPOSITORY, total_mb
from machine import add_json_option, at_least, report
from processes import run_python
from served import HANDLER, PAGE, program

BASE_LAYERS = 12
ALONE = ("-I", "-S")  # no packages but those of the folder
PREPARE = """
import sys
sys.path.insert(0, sys.argv[1])
import nezha_np as nz
config = nz.BertConfig(num_hidden_layers=int(sys.argv[3]), num_labels=2)
nz.init(config, head="sequence_classification").save(sys.argv[2])
nz.save_vocabulary(nz.load_tokenizer(), sys.argv[2])
"""
START = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import classify
event = {"body": json.dumps({"text": "房间很干净，早餐也好吃。"})}
first = classify.handler(event, None)
start = time.perf_counter()
second = classify.handler(event, None)
assert first == second and first["statusCode"] == 200, first
print(time.perf_counter() - start)
"""


def packages() -> list[str]:
    """Return what the page's command installs into the folder, without what its function requires beyond that."""
    (words,) = re.findall(r"^pip install --no-deps --target function (.+)$", PAGE.read_text(encoding="utf-8"), re.M)
    return shlex.split(words)


def install(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *packages()]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    (folder / "classify.py").write_text(program(HANDLER), encoding="utf-8")


def measure(folder: Path, model: Path | None, repeats: int, threads: int) -> dict[str, Any]:
    os.environ.pop("MODEL", None)
    if model is not None:
        os.environ["MODEL"] = str(model)
    runs = [run_python(START, [str(folder)], threads, ALONE) for _ in range(repeats + 1)][
        1:
    ]  # the first fills the cache
    return {
        "median_seconds": statistics.median(run.seconds for run in runs),
        "median_seconds_of_a_further_answer": statistics.median(float(run.printed) for run in runs),
        "median_peak_mb": statistics.median(run.peak_mb for run in runs),
        "model_mb": 0.0 if model is None else total_mb(model.rglob("*")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=at_least(1), default=5)
    parser.add_argument("--layers", type=at_least(1), default=BASE_LAYERS, help="of the model of base size")
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as work:
        folder, model = Path(work, "function"), Path(work, "model")
        install(folder)
        sizes = {path.name: total_mb([path, *path.rglob("*")]) for path in folder.iterdir()}
        run_python(PREPARE, [str(folder), str(model), str(options.layers)], options.threads, ALONE)
        results = {
            "the shipped model": measure(folder, None, options.repeats, options.threads),
            f"BERT, {options.layers} layers of 768": measure(folder, model, options.repeats, options.threads),
        }

    print(f"The folder has {sum(sizes.values()):.0f} MB, with the shipped model; threads: {options.threads}\n")
    print(starts_table(results))
    settings = {"layers": options.layers, "threads": options.threads, "repeats": options.repeats}
    report(options.json, "function_start", settings, {"starts": results, "folder_mb": sizes})


if __name__ == "__main__":
    main()
