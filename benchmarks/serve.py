"""Put load on the service of docs/howto/serve.md: how many texts it answers in a second, and how soon.

python benchmarks/serve.py [--clients 1 8 100] [--requests 800] [--threads 2] [--model FOLDER] [--json PATH]

The service is the code of the page, in a process of its own on the loopback interface. The clients are threads of this
process; each sends one text after the other and waits for the answer. Every answer is compared with nz.classify of its
text alone. A client that gets 503 goes on with the next text.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from answers_tables import loads_table
from contest import add_threads_option, set_threads
from machine import add_json_option, at_least, report
from served import Load, largest_difference, put_load, running_service
from texts import mixed_texts

import nezha_np as nz

TOLERANCE = 1e-5


def summary(load: Load, clients: int) -> dict[str, Any]:
    """Return the figures of a load; the times are those of the texts that were answered."""
    seconds = [time for status, time in zip(load.statuses, load.seconds, strict=True) if status == 200]
    if unexpected := set(load.statuses) - {200, 503}:
        raise SystemExit(f"expected status 200 or 503, got {sorted(unexpected)}")
    return {
        "clients": clients,
        "texts_a_second": len(seconds) / load.whole,
        "p50_seconds": statistics.median(seconds),
        "p99_seconds": float(np.percentile(seconds, 99)),
        "refused": load.statuses.count(503),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=at_least(1), nargs="+", default=[1, 8, 100])
    parser.add_argument("--requests", type=at_least(1), default=800, help="texts of each row of the table (800)")
    parser.add_argument("--model", metavar="FOLDER", help="a classifier (the shipped one)")
    add_threads_option(parser)
    add_json_option(parser)
    options = parser.parse_args()

    texts, source = mixed_texts(options.requests, nz.load_tokenizer())
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder), options.threads, options.model) as service,
    ):
        put_load(service.port, texts[:8], 1)  # fills the caches
        loads = {clients: put_load(service.port, texts, clients) for clients in options.clients}

    set_threads(options.threads)
    model = nz.load(options.model) if options.model else None

    @functools.cache
    def alone(text: str) -> list[nz.Label]:
        return nz.classify([text], model, top_k=None, max_length=512)[0]

    difference = max(
        largest_difference(answer, alone(text))
        for load in loads.values()
        for text, status, answer in zip(texts, load.statuses, load.answers, strict=True)
        if status == 200
    )
    if difference > TOLERANCE:
        raise SystemExit(f"an answer differs by {difference:.2g} from that of the text alone")
    rows = [summary(load, clients) for clients, load in loads.items()]
    print(f"{len(texts)} texts for each row, {source}; threads of BLAS: {options.threads}\n")
    print(loads_table(rows))
    print(f"\nThe largest difference from nz.classify of a text alone is {difference:.2g}.")
    settings = {"requests": len(texts), "texts": source, "threads": options.threads, "model": bool(options.model)}
    report(options.json, "serve", settings, {"rows": rows, "largest_difference": difference})


if __name__ == "__main__":
    main()
