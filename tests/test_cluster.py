"""Jobs on a Dask cluster: the rules and the bytes of jobs in processes, whatever happens to workers and drivers."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
from corpora import JOB, LINES, SHARD, contents, embed, fail, make_models, succeed, write_texts

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.jobs import cluster as jobs_on_a_cluster
from nezha_np.jobs.processes import ONE_THREAD

dask = pytest.importorskip("dask", reason="Dask is not installed")
distributed = pytest.importorskip("distributed", reason="Dask is not installed")
# On ports that are free, as each test process has a cluster of its own.
LOOPBACK = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, env=ONE_THREAD, **LOOPBACK) as cluster:
        yield cluster


@pytest.fixture
def address(cluster) -> str:
    return cluster.scheduler_address


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    """Work in a folder with a file of lines; return the folder."""
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path)
    return tmp_path


@pytest.mark.parametrize("task", ["embed", "classify"])
def test_two_workers_write_what_one_process_writes(capsys, models, corpus, address, task):
    model = models / ("nezha" if task == "embed" else task)
    succeed(capsys, task, "texts.txt", "-o", "whole/", "--model", model, *JOB)
    succeed(capsys, task, "texts.txt", "-o", "job", "--model", model, *JOB, "--cluster", address)
    assert len(contents(Path("whole"))) == 7 and contents(Path("job")) == contents(Path("whole"))


def test_progress_comes_to_all_lines_and_never_beyond(models, corpus, address, monkeypatch):
    seen = []
    embed(models, cluster=address, progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (LINES, LINES) and all(0 <= done <= LINES for done, _ in seen)


def test_shards_are_asked_for_some_at_a_time(models, corpus, address, monkeypatch):
    monkeypatch.setattr(jobs_on_a_cluster, "ASKED", 1)
    ends, asked = itertools.count(1), []
    submit = distributed.Client.submit

    def submit_one(client, function, call, names, **options):
        asked.append(names["number"])
        return submit(client, function, call, names, **options)

    def done(lines, all_lines):
        if lines and lines % SHARD == 0:
            assert len(asked) <= next(ends) + 2

    monkeypatch.setattr(distributed.Client, "submit", submit_one)
    embed(models, cluster=address, progress=done)
    assert asked == [0, 1, 2, 3, 4, 5]


def test_what_a_worker_is_sent_does_not_grow_with_the_model_or_the_texts(models, corpus, address, monkeypatch):
    sizes = []
    submit = distributed.Client.submit

    def submit_one(client, function, *arguments, **options):
        sizes.append(len(distributed.protocol.pickle.dumps((function, arguments))))
        return submit(client, function, *arguments, **options)

    monkeypatch.setattr(distributed.Client, "submit", submit_one)
    embed(models, cluster=address)
    assert len(sizes) == 6 and max(sizes) < 1500


# --------------------------------------------------------------------------------------------------------------- faults


def die_once(mark):
    """In a worker: be killed in the middle of the next shard, unless another one was already."""
    from nezha_np.jobs import compute

    def next_window(lines, most, original=compute.next_window):
        window = original(lines, most)
        if not window:
            with contextlib.suppress(FileExistsError):  # the other worker, which may be here at the same time
                os.mkdir(mark)
                os.kill(os.getpid(), signal.SIGKILL)
        return window

    compute.next_window = next_window


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_the_shard_of_a_worker_that_is_killed_is_computed_by_another(models, corpus):
    embed(models, "whole")
    with distributed.LocalCluster(n_workers=2, env=ONE_THREAD, **LOOPBACK) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            client.run(die_once, str(corpus / "killed"))
        embed(models, cluster=cluster.scheduler_address)
    assert Path("killed").exists() and contents(Path("job")) == contents(Path("whole"))


@pytest.mark.exhaustive
def test_workers_that_always_die_end_the_job_with_one_message(models, corpus, monkeypatch):
    monkeypatch.setattr(jobs_on_a_cluster, "BY_NAME", "__import__('os')._exit(9)")
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):  # not 3, which takes longer
        cluster = distributed.LocalCluster(n_workers=1, **LOOPBACK)
    with (
        cluster,
        pytest.raises(OSError, match=r"texts\.txt, lines \d+ to \d+: expected a worker .* 2 ended before; 0 "),
    ):
        embed(models, cluster=cluster.scheduler_address)
    assert contents(Path("job")).keys() == {"manifest.json"}


DRIVER = """
import os, signal, sys
import nezha_np as nz
from nezha_np.jobs import run_corpus


def hear(heard, number, said, original=run_corpus._Heard.hear):
    original(heard, number, said)
    if "done" in said:
        os.kill(os.getpid(), signal.SIGKILL)


run_corpus._Heard.hear = hear
nz.run_corpus("embed", "texts.txt", "job", model=sys.argv[1], batch_size=2, shard_lines=64, cluster=sys.argv[2])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_after_a_driver_is_killed_a_rerun_computes_only_what_is_missing(models, corpus, cluster, address):
    embed(models, "whole")
    command = [sys.executable, "-c", DRIVER, str(models / "nezha"), address]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with distributed.Client(cluster, set_as_default=False) as client:
        while any(client.processing().values()):  # what was begun is computed to its end
            time.sleep(0.1)
    there = {path.name: path.stat().st_mtime_ns for path in Path("job").glob("part-*")}
    assert there
    for name in [*there][1:]:  # so that something is missing, however fast the workers are
        Path("job", name).unlink()
    (name, when), *_ = there.items()
    embed(models, cluster=address)
    assert contents(Path("job")) == contents(Path("whole"))
    assert Path("job", name).stat().st_mtime_ns == when


def test_a_bad_row_stops_the_job_or_is_noted_as_in_processes(capsys, models, corpus, address):
    lines = Path("texts.txt").read_bytes().splitlines(keepends=True)
    lines[70], lines[200] = "好".encode() * 50 + b"\n", b"\xff\xfe\n"
    Path("texts.txt").write_bytes(b"".join(lines))
    arguments = ["embed", "texts.txt", "--model", models / "bert", *JOB]
    message = fail(capsys, *arguments, "-o", "job", "--cluster", address)
    assert re.search(r"texts\.txt, line (71|201): expected .*; \d of 6 shards are done, in job: run again", message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for out, how in (("job", ["--cluster", address]), ("whole", ["--workers", "1"])):
            assert main([*map(str, arguments), "-o", out, *how, "--on-error", "record"]) == 0
    assert contents(Path("job")) == contents(Path("whole"))
    errors = [json.loads(line) for line in Path("job/errors.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(error["file"], error["line"]) for error in errors] == [("texts.txt", 71), ("texts.txt", 201)]


def test_another_job_under_the_same_paths_is_opened_anew(models, corpus, address):
    Path("model").symlink_to(models / "nezha")
    nz.run_corpus("embed", "texts.txt", "job", model="model", cluster=address)
    Path("model").unlink()
    Path("model").symlink_to(models / "bert")
    write = Path("texts.txt").read_text(encoding="utf-8").splitlines(keepends=True)[:50]
    Path("texts.txt").write_text("".join(write), encoding="utf-8")
    for out, where in (("job", {"cluster": address, "restart": True}), ("whole", {})):
        nz.run_corpus("embed", "texts.txt", out, model="model", **where)
    assert contents(Path("job")) == contents(Path("whole"))


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cluster", "tcp://127.0.0.1:1"], "--cluster: expected a Dask scheduler that answers at tcp://127.0.0.1:1,"),
        (["--cluster", "host:8786"], "--cluster: expected the address of a Dask scheduler, such as tcp://host:8786"),
        (["--cluster", "tcp://host:x"], "--cluster: expected the address of a Dask scheduler, such as tcp://host:8786"),
        (["--cluster", "tcp://127.0.0.1:1", "--workers", "2"], "--workers: expected none where --cluster is given"),
        (["--cluster", "tcp://127.0.0.1:1", "-o", "v.npy"], "--output: expected a folder, which --cluster needs"),
    ],
)
def test_what_cannot_begin_is_one_line_and_leaves_nothing(capsys, corpus, arguments, message):
    assert message in fail(capsys, "embed", "texts.txt", "-o", "job", *arguments)
    assert [path.name for path in corpus.iterdir()] == ["texts.txt"]


def test_without_dask_the_message_says_how_to_install_it(capsys, corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    message = fail(capsys, "embed", "texts.txt", "-o", "job", "--cluster", "tcp://127.0.0.1:1")
    assert 'needs Dask: pip install "nezha-np[cluster]"' in message


def test_something_else_at_the_address_is_one_line(capsys, corpus, monkeypatch):
    monkeypatch.setattr(jobs_on_a_cluster, "CONNECT_SECONDS", 0.5)
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        assert f"answers at {address}, got none: " in fail(
            capsys, "embed", "texts.txt", "-o", "job", "--cluster", address
        )


@pytest.mark.parametrize("what", ["source", "model", "out"])
def test_a_worker_on_which_something_is_missing_says_what(models, corpus, address, monkeypatch, what):
    original = jobs_on_a_cluster.run_on_cluster

    def run_on_cluster(numbers, job, *rest):
        original(numbers, job | {what: str(corpus / "nowhere")}, *rest)

    monkeypatch.setattr(jobs_on_a_cluster, "run_on_cluster", run_on_cluster)
    with pytest.raises(
        OSError,
        match=rf"worker tcp://127\.0\.0\.1:\d+: .*nowhere: expected the {what} of the job, under the same path on "
        "every machine, found none; 0 of 6 shards are done",
    ):
        embed(models, cluster=address)


def test_a_folder_that_the_machines_do_not_share_is_found_out(models, corpus, address, monkeypatch):
    embed(models, "other")
    original = jobs_on_a_cluster.run_on_cluster

    def run_on_cluster(numbers, job, *rest):
        original(numbers, job | {"out": str(corpus / "other")}, *rest)

    monkeypatch.setattr(jobs_on_a_cluster, "run_on_cluster", run_on_cluster)
    monkeypatch.setattr("nezha_np.jobs.run_corpus.PATIENCE", 0.2)
    with pytest.raises(OSError, match=r"part-00000.npy: expected the part that a worker has written, found none: job "):
        embed(models, cluster=address)


def test_a_worker_with_another_model_or_more_threads_of_blas_says_so(models, corpus, address, cluster, monkeypatch):
    original = jobs_on_a_cluster.run_on_cluster

    def run_on_cluster(numbers, job, *rest):
        original(numbers, job | {"model": str(models / "bert")}, *rest)

    with monkeypatch.context() as changed:
        changed.setattr(jobs_on_a_cluster, "run_on_cluster", run_on_cluster)
        with pytest.raises(ValueError, match=r"worker tcp://\S+: model: expected '\w+', which the job was begun with"):
            embed(models, cluster=address)
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if not any(library["user_api"] == "blas" for library in threadpoolctl.threadpool_info()):
        pytest.skip("this BLAS does not tell its threads")
    monkeypatch.setattr(
        threadpoolctl, "threadpool_info", lambda: [{"user_api": "blas", "num_threads": 8}], raising=True
    )
    with pytest.raises(ValueError, match=r"expected one thread of BLAS, .* got 8: set OMP_NUM_THREADS=1"):
        jobs_on_a_cluster._check_threads()


WITHOUT = """
import sys

sys.modules["nezha_np"] = None
from distributed.cli.dask_worker import main

main()
"""


def test_a_worker_without_the_package_is_one_line_and_a_lost_scheduler_too(capsys, models, corpus):
    with distributed.LocalCluster(n_workers=0, **LOOPBACK) as cluster:
        address = cluster.scheduler_address
        arguments = ["embed", "texts.txt", "-o", "job", "--model", models / "nezha", *JOB, "--cluster", address]
        command = [sys.executable, "-c", WITHOUT, address, "--no-nanny", "--no-dashboard", "--nthreads", "1"]
        worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            cluster.wait_for_workers(1)
            message = fail(capsys, *arguments)
            assert "cluster: expected nezha_np on each worker, as it is here, got one that lacks it: " in message
        finally:
            worker.terminate()
            worker.wait()
        end = threading.Timer(2.0, cluster.close)
        end.start()
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            assert main([*map(str, arguments)]) == 2
        end.join()
        warned, message = capsys.readouterr().err.splitlines()
        assert "this scheduler has no workers yet: the job waits for them" in warned
        assert f"expected a Dask scheduler that answers at {address}, got none: " in message
