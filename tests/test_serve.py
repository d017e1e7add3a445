"""The page on serving: its service under load, at its limits and at its end, and its function for a cloud.

The service's tests need FastAPI and uvicorn, which `.ci/run docs-site` installs.
"""

import asyncio
import contextlib
import http.client
import importlib.metadata
import json
import re
import signal
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import nezha_np as nz

ROOT = Path(__file__).parents[1]
GOOD = {"text": "房间很干净，服务也好。"}


@pytest.fixture(autouse=True)
def _benchmarks_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delenv("MODEL", raising=False)


def run_block(name, words, changes=()):
    """Run a program of the page as a module, with some words replaced."""
    from served import program

    module, code = types.ModuleType(name), program(words)
    for old, new in changes:
        assert old in code
        code = code.replace(old, new)
    exec(compile(code, f"{name}.py", "exec"), module.__dict__)
    return module


def needs_fastapi():
    for library in ("fastapi", "uvicorn"):
        pytest.importorskip(library, reason=f"{library} is not installed: `.ci/run docs-site` runs this")


def wait_until(happened):
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Running:
    """The service in this process, whose parts a test may replace."""

    def __init__(self, waiting, changes):
        import uvicorn
        from served import SERVICE

        self.module = run_block("service", SERVICE, changes)
        if waiting is not None:
            self.module.queue = asyncio.Queue(waiting)
        self.server = uvicorn.Server(uvicorn.Config(self.module.app, port=0, ws="none", log_config=None))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        wait_until(lambda: self.server.started or not self.thread.is_alive())
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def ask(self, body):
        """Return status, headers and text of an answer."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            body = json.dumps(body) if isinstance(body, dict) else body
            connection.request("POST", "/classify", body, {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                return response.status, dict(response.getheaders()), response.read().decode()

    def stop(self):
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def start():
    needs_fastapi()
    running = []

    def begin(waiting=None, changes=()):
        running.append(Running(waiting, changes))
        return running[-1]

    yield begin
    for service in running:
        service.stop()


def difference(answer, text):
    from served import largest_difference

    return largest_difference(json.loads(answer), nz.classify([text], top_k=None, max_length=512)[0])


class Gate:
    """Stands before `nz.classify`, which computes when it is opened."""

    def __init__(self, monkeypatch):
        self.reached, self.opened, self.calls = threading.Event(), threading.Event(), []
        self.classify = nz.classify
        monkeypatch.setattr(nz, "classify", self)

    def __call__(self, texts, *arguments, **options):
        self.calls.append(list(texts))
        self.reached.set()
        assert self.opened.wait(60)
        return self.classify(texts, *arguments, **options)


# ------------------------------------------------------------------------------------------------------- the service


def test_each_of_eight_clients_gets_what_classify_says_of_its_text_alone(tmp_path):
    needs_fastapi()
    from served import largest_difference, put_load, running_service
    from texts import mixed_texts

    texts = [*mixed_texts(60, nz.load_tokenizer())[0], "a", "😀", " ", "好" * 10_000]
    with running_service(tmp_path, threads=1) as service:
        load = put_load(service.port, texts, clients=8)
    assert load.statuses == [200] * len(texts)
    for text, answer in zip(texts, load.answers, strict=True):
        assert largest_difference(answer, nz.classify([text], top_k=None, max_length=512)[0]) < 1e-5
        assert answer == sorted(answer, key=lambda label: -label["score"]) and len(answer) == 2
    printed = "".join(service.printed)
    assert "Application shutdown complete" in printed and "Traceback" not in printed
    assert service.process.returncode in (0, -signal.SIGTERM)  # versions of uvicorn differ


def test_texts_that_wait_are_computed_together_and_a_full_queue_refuses_at_once(start, monkeypatch):
    service, gate = start(waiting=3), Gate(monkeypatch)
    texts = ["房间很旧", "早餐好吃" * 50, "吵", "服务热情，下次还来。"]
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(service.ask, {"text": texts[0]})]
        assert gate.reached.wait(60)
        for waiting, text in enumerate(texts[1:], start=1):
            answers.append(pool.submit(service.ask, {"text": text}))
            wait_until(lambda waiting=waiting: service.module.queue.qsize() == waiting)
        status, headers, body = service.ask(GOOD)  # is answered while all others wait
        gate.opened.set()
        assert status == 503 and headers["retry-after"] == "1" and "waiting" in json.loads(body)["detail"]
        found = [answer.result(60) for answer in answers]
    assert gate.calls == [texts[:1], texts[1:]]
    monkeypatch.undo()
    for text, (status, _, body) in zip(texts, found, strict=True):
        assert status == 200 and difference(body, text) < 1e-5
    assert service.ask(GOOD)[0] == 200


def test_a_service_that_is_stopped_answers_what_it_has(start, monkeypatch):
    service, gate = start(), Gate(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(service.ask, GOOD)]
        assert gate.reached.wait(60)
        answers.append(pool.submit(service.ask, GOOD))
        wait_until(lambda: service.module.queue.qsize() == 1)
        service.server.should_exit = True
        gate.opened.set()
        assert [answer.result(60)[0] for answer in answers] == [200, 200]
    service.stop()
    with pytest.raises(ConnectionError):
        service.ask(GOOD)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"text": ""}, "at least 1 character"),
        ({"text": "好" * 100_000}, "at most 10000 characters"),
        ({"text": 5}, "valid string"),
        ({"text": None}, "valid string"),
        ({"text": ["好"]}, "valid string"),
        ({"texts": "好"}, "required"),
        ({"text": "好", "top_k": 1}, "not permitted"),
        ('{"text": "\\ud800"}', "valid string"),
        ("[]", "valid"),
        ("", "required"),
        ("房间很干净".encode(), "JSON"),
        (b'{"text": "\xff"}', "parsing"),
        ("[" * 100_000, "parsing"),
    ],
    ids=lambda value: str(value)[:20] if not isinstance(value, bytes) else "bytes",
)
def test_a_bad_request_is_refused_with_its_reason_and_the_service_lives_on(start, body, reason):
    service = start()
    status, headers, answer = service.ask(body)
    assert status in (400, 422) and headers["content-type"] == "application/json"
    assert reason in answer and "Traceback" not in answer and len(answer) < 500
    assert service.ask(GOOD)[0] == 200


def test_a_failure_is_told_to_the_requests_of_its_batch_and_to_no_other(start, monkeypatch, caplog):
    service = start()

    def fail(*arguments, **options):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(nz, "classify", fail)
        status, _, answer = service.ask(GOOD)
    assert status == 500 and answer == "Internal Server Error"
    wait_until(lambda: "a bug" in caplog.text)  # for whoever runs the service; it is written after the answer
    status, _, answer = service.ask(GOOD)
    assert status == 200 and difference(answer, GOOD["text"]) < 1e-5


def test_a_client_that_goes_away_does_not_disturb_the_others(start, monkeypatch):
    service, gate = start(), Gate(monkeypatch)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", service.port)) as gone:
        gone.request("POST", "/classify", json.dumps(GOOD), {"Content-Type": "application/json"})
        assert gate.reached.wait(60)
    gate.opened.set()
    assert service.ask(GOOD)[0] == 200


def test_with_the_changes_that_the_page_names_the_service_finds_entities(start):
    service = start(changes=[("nz.classify", "nz.tag"), (" top_k=None,", ""), ("nz.Label", "nz.Entity")])
    text = "周恩来在北京会见了外宾。"
    status, _, answer = service.ask({"text": text})
    wanted = [vars(entity) for entity in nz.tag([text])[0]]
    found = json.loads(answer)
    assert status == 200 and [entity["text"] for entity in found] == ["周恩来", "北京"]
    assert [entity | {"score": 0} for entity in found] == [entity | {"score": 0} for entity in wanted]
    assert all(abs(one["score"] - two["score"]) < 1e-5 for one, two in zip(found, wanted, strict=True))


def test_the_benchmark_prints_what_the_page_says(capsys, monkeypatch, tmp_path):
    needs_fastapi()
    import serve

    monkeypatch.setattr(serve, "set_threads", lambda count: None)  # for the rest of this process
    path = tmp_path / "serve.json"
    arguments = ["serve.py", "--requests", "12", "--clients", "1", "4", "--threads", "1", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    serve.main()
    header = capsys.readouterr().out.splitlines()[2]
    assert [cell.strip() for cell in header.strip("| ").split("|")] == [
        "clients", "texts a second", "p50", "p99", "refused (503)"
    ]  # fmt: skip
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    assert [row["clients"] for row in results["rows"]] == [1, 4] and results["largest_difference"] < 1e-5
    assert all(row["refused"] == 0 and 0 < row["p50_seconds"] <= row["p99_seconds"] for row in results["rows"])


# ------------------------------------------------------------------------------------------------------ the function


@pytest.mark.parametrize(
    "body", [None, "", "{", "[]", "5", '"text"', "{}", '{"text": ""}', '{"text": 5}', '{"text": "\\ud800"}',
             json.dumps({"text": "好" * 100_000})]
)  # fmt: skip
def test_the_function_refuses_a_bad_event(body):
    from served import HANDLER

    function = run_block("classify", HANDLER)
    answer = function.handler({} if body is None else {"body": body}, None)
    assert answer["statusCode"] == 422 and "expected JSON" in answer["body"]


def test_the_function_says_what_classify_says():
    from served import HANDLER

    function = run_block("classify", HANDLER)
    answer = function.handler({"body": json.dumps(GOOD)}, None)
    assert answer["statusCode"] == 200 and difference(answer["body"], GOOD["text"]) == 0


def test_the_function_runs_with_the_packages_that_the_page_installs_and_no_others(tmp_path):
    from function_start import ALONE, packages
    from served import HANDLER, program

    (tmp_path / "nezha_np").symlink_to(ROOT / "nezha_np")
    here, *others = packages()
    assert here == "."
    for name in others:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files if file.parts[0] not in ("..", "__pycache__")}:
            (tmp_path / top).symlink_to(distribution.locate_file(top))
    (tmp_path / "classify.py").write_text(program(HANDLER), encoding="utf-8")
    code = "import json, sys; sys.path.insert(0, sys.argv[1]); import classify; print(json.dumps(classify.handler("
    code += "{'body': sys.argv[2]}, None)))"
    command = [sys.executable, *ALONE, "-c", code, str(tmp_path), json.dumps(GOOD)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["statusCode"] == 200 and difference(answer["body"], GOOD["text"]) < 1e-5


def test_the_page_names_each_package_that_is_needed_at_run_time():
    import tomllib

    from function_start import packages

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.match(r"\w+", words)[0] for words in project["dependencies"]}
    assert {".", *required} - set(packages()) == {"tqdm"}  # the bars of the commands
