"""The programs of docs/howto/serve.md, as they stand on the page, and clients for its service."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from processes import environment

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "serve.md"
SERVICE, HANDLER = "FastAPI(", "def handler("
STARTED = re.compile(r"running on http://127\.0\.0\.1:(\d+)")


def program(words: str) -> str:
    """Return the block of Python of the page that has these words."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if words in block)
    return found


class Service(NamedTuple):
    """A service that runs: its process, the port on which it listens, and what it printed until then."""

    process: subprocess.Popen[str]
    port: int
    printed: list[str]


@contextlib.contextmanager
def running_service(folder: Path, threads: int, model: str | None = None) -> Iterator[Service]:
    """Start the service of the page on a free port of the loopback interface; end it as a supervisor does.

    What it printed is complete after the block.
    """
    (folder / "service.py").write_text(program(SERVICE), encoding="utf-8")
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", "0", "--no-access-log"]
    variables = environment(threads) | ({"MODEL": model} if model else {})
    with subprocess.Popen(command, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True) as process:
        printed = []
        try:
            for line in process.stderr:
                printed.append(line)
                if found := STARTED.search(line):
                    break
            else:
                raise SystemExit(f"the service did not start:\n{''.join(printed)}")
            yield Service(process, int(found[1]), printed)
        finally:
            process.send_signal(signal.SIGTERM)
            printed += process.communicate(timeout=60)[1].splitlines(keepends=True)


def ask(connection: http.client.HTTPConnection, body: str | bytes) -> tuple[int, str]:
    """Send one request; return status and body of the answer."""
    connection.request("POST", "/classify", body, {"Content-Type": "application/json"})
    with connection.getresponse() as response:
        return response.status, response.read().decode()


class Load(NamedTuple):
    """What clients saw: for each text its status, answer and seconds; and the seconds of all."""

    statuses: list[int]
    answers: list[Any]
    seconds: list[float]
    whole: float


def put_load(port: int, texts: Sequence[str], clients: int) -> Load:
    """Let clients send the texts, each client one after the other over a connection of its own."""
    waiting = collections.deque(range(len(texts)))
    found: dict[int, tuple[int, str, float]] = {}

    def client() -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
            connection.connect()
            together.wait()
            with contextlib.suppress(IndexError):  # until no text waits
                while True:
                    index = waiting.popleft()
                    start = time.perf_counter()
                    answer = ask(connection, json.dumps({"text": texts[index]}))
                    found[index] = (*answer, time.perf_counter() - start)

    together = threading.Barrier(clients + 1)
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    together.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    whole = time.perf_counter() - start
    statuses, answers, seconds = zip(*(found[index] for index in range(len(texts))), strict=True)
    return Load(list(statuses), [json.loads(answer) for answer in answers], list(seconds), whole)


def largest_difference(answer: list[dict[str, Any]], alone: list[Any]) -> float:
    """Return the largest difference between the scores of a service and those of `nz.classify` for the text alone."""
    scores, wanted = ({label["label"]: label["score"] for label in found} for found in (answer, map(vars, alone)))
    if scores.keys() != wanted.keys():
        raise SystemExit(f"expected the classes {sorted(wanted)}, got {sorted(scores)}")
    return max(abs(scores[name] - wanted[name]) for name in wanted)
