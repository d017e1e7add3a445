"""Jobs over a corpus: the results of one run, bit for bit, whatever happens to the processes on the way."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from corpora import BATCH, JOB, LINES, SHARD, SMALL, WHOLE, contents, embed, fail, make_models, succeed, write_texts

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.files.atomic import write_atomically
from nezha_np.files.temporary import PREFIX
from nezha_np.jobs import compute, line_windows, processes
from nezha_np.jobs.join import join
from nezha_np.jobs.manifest import read_manifest
from nezha_np.jobs.shards import cut_source, read_shard
from nezha_np.jobs.tasks import shard_size
from nezha_np.jobs.worker import open_job
from nezha_np.weights.checkpoint import SHIPPED
from nezha_np.weights.mapped_files import mapping_under

NEEDS_SIGKILL = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    """Work in a folder with a file of lines; return the folder."""
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path)
    return tmp_path


def test_two_workers_write_what_one_run_of_the_command_writes(capsys, models, corpus):
    for name in ("a.npy", "a.safetensors", "a.jsonl"):
        form = name.partition(".")[2]
        succeed(capsys, "embed", "texts.txt", "-o", name, "--model", models / "nezha", *WHOLE)
        where = f"{form}s/"
        workers = ["--workers", 2] if form == "npy" else []
        succeed(
            capsys, "embed", "texts.txt", "-o", where, "--model", models / "nezha", "--format", form, *JOB, *workers
        )
        assert sorted(path.name for path in Path(where).iterdir()) == [
            "manifest.json",
            *(f"part-{number:05}.{form}" for number in range(6)),
        ]
        succeed(capsys, "join", where, "-o", f"joined.{form}")
        assert Path(f"joined.{form}").read_bytes() == Path(name).read_bytes()
    assert np.load("npys/part-00005.npy").shape == (7, 8)


@pytest.mark.parametrize("task", ["classify", "tag", "answer", "choose"])
def test_records_are_those_of_the_command(capsys, models, corpus, task):
    source = corpus / "texts.jsonl"
    lines = Path("texts.txt").read_text(encoding="utf-8").split("\n")[:-1]
    records = "".join(
        json.dumps({"id": number, "review": line, "choices": [line, "好"]}) + "\n" for number, line in enumerate(lines)
    )
    source.write_text(records + "\n \n", encoding="utf-8")  # empty lines at the end are no lines
    fields = ["--field", "review"]
    if task in ("answer", "choose"):
        fields = ["--question-field", "review", "--context-field", "review", "--max-length", "40"]
    arguments = [task, source, "--model", models / task, *fields]
    succeed(capsys, *arguments, *WHOLE, "-o", "whole.jsonl")
    succeed(capsys, *arguments, *JOB, "-o", "job", "--workers", 2)
    succeed(capsys, "join", "job", "-o", "joined.jsonl")
    assert Path("joined.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert Path("joined.jsonl").read_bytes().count(b"\n") == LINES


def test_gaps_are_filled_and_texts_are_classified_by_labels(models, corpus):
    Path("gaps.txt").write_text("房间很[MASK]净。\n[MASK]格[MASK]\n", encoding="utf-8")
    assert main(["fill-mask", "gaps.txt", "-o", "gaps/", "--top-k", "1"]) == 0
    (part,) = nz.run_corpus("fill_mask", "gaps.txt", "gaps", top_k=1)
    rows = [json.loads(line) for line in part.read_text(encoding="utf-8").splitlines()]
    assert rows[0]["fillings"][0][0]["token"] == "干" and [len(row["fillings"]) for row in rows] == [1, 2]
    config = nz.BertConfig(**SMALL, id2label={0: "no", 1: "entailment"})
    nz.init(config, "sequence_classification").save("inference")
    for file in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(SHIPPED / file, "inference")
    (part,) = nz.run_corpus("classify", "gaps.txt", "labels", model="inference", labels=["体育", "财经"], top_k=2)
    found = nz.classify_by_description(["房间很[MASK]净。", "[MASK]格[MASK]"], ["体育", "财经"], nz.load("inference"))
    for line, labels in zip(part.read_text(encoding="utf-8").splitlines(), found, strict=True):
        assert [one["label"] for one in json.loads(line)["labels"]] == [label.label for label in labels]


def test_long_lines_end_windows_early_in_a_shard_as_in_the_whole(capsys, models, corpus, monkeypatch):
    monkeypatch.setattr(line_windows, "LONGEST_WINDOW", 300)
    succeed(capsys, "embed", "texts.txt", "-o", "a.npy", "--model", models / "nezha", *WHOLE)
    embed(models)
    join(Path("job"), Path("b.npy"))
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


def test_a_shard_has_whole_windows():
    assert [shard_size(lines, 2) for lines in (1, 64, 65, 200)] == [64, 64, 128, 256]
    with pytest.raises(ValueError, match="shard_lines: expected a number from 1 on, got 0"):
        shard_size(0, 2)


def test_a_file_without_lines_is_a_job_without_parts(capsys, models, corpus):
    Path("none.txt").write_bytes(b"")
    assert embed(models, source="none.txt", workers=2) == []
    succeed(capsys, "join", "job", "-o", "v.npy")
    assert np.load("v.npy").shape == (0, 8)


def test_a_job_that_is_complete_computes_nothing_again(models, corpus, monkeypatch):
    parts = embed(models)
    before = [path.stat().st_mtime_ns for path in parts]
    monkeypatch.setattr(processes, "start_worker", lambda: pytest.fail("nothing is missing"))
    assert [path.stat().st_mtime_ns for path in embed(models, workers=2)] == before
    assert [path.name for path in parts] == [f"part-{number:05}.npy" for number in range(6)]


# -------------------------------------------------------------------------------------------------------------- Parquet


def write_parquet(rows: int, *, row_group_size: int = 50, name: str = "texts.parquet") -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = Path("texts.txt").read_text(encoding="utf-8").split("\n")[:rows]
    table = arrow.table({"id": range(rows), "text": lines})
    parquet.write_table(table, name, row_group_size=row_group_size, compression="zstd")


@pytest.mark.parametrize("row_group_size", [50, 1000, SHARD])
def test_rows_of_parquet_are_cut_into_shards_whatever_their_row_groups(capsys, models, corpus, row_group_size):
    write_parquet(LINES, row_group_size=row_group_size)
    succeed(capsys, "embed", "texts.parquet", "-o", "a.npy", "--model", models / "nezha", *WHOLE)
    succeed(capsys, "embed", "texts.parquet", "-o", "job", "--model", models / "nezha", *JOB, "--workers", 2)
    assert [np.load(path).shape[0] for path in sorted(Path("job").glob("part-*"))] == [SHARD] * 5 + [7]
    succeed(capsys, "join", "job", "-o", "b.npy")
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


def test_records_of_parquet_are_those_of_the_command_and_a_bad_row_is_named(capsys, models, corpus):
    lines = Path("texts.txt").read_text(encoding="utf-8").split("\n")
    lines[70] = "好" * 50
    Path("texts.txt").write_text("\n".join(lines), encoding="utf-8", newline="\n")
    write_parquet(LINES)
    assert "texts.parquet, row 71: expected at most 40 tokens" in fail(
        capsys, "classify", "texts.parquet", "-o", "job", "--model", models / "classify", *JOB, "--workers", 1
    )
    with pytest.warns(UserWarning, match="1 lines gave errors"):
        nz.run_corpus(
            "classify",
            "texts.parquet",
            "job",
            model=models / "classify",
            batch_size=2,
            shard_lines=64,
            on_error="record",
        )
    assert json.loads(Path("job/errors.jsonl").read_bytes())["line"] == 71
    lines[70] = "好"
    Path("texts.txt").write_text("\n".join(lines), encoding="utf-8", newline="\n")
    write_parquet(LINES)
    succeed(capsys, "classify", "texts.parquet", "-o", "a.jsonl", "--model", models / "classify", *WHOLE)
    succeed(capsys, "classify", "texts.parquet", "-o", "good/", "--model", models / "classify", *JOB)
    succeed(capsys, "join", "good", "-o", "b.jsonl")
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()


def test_a_parquet_file_that_changed_is_refused_by_its_rows(models, corpus):
    write_parquet(LINES)
    embed(models, source="texts.parquet")
    lines = Path("texts.txt").read_text(encoding="utf-8").split("\n")
    lines[130] = "X"
    Path("texts.txt").write_text("\n".join(lines), encoding="utf-8", newline="\n")
    write_parquet(LINES)
    with pytest.raises(
        ValueError, match=r"texts.parquet: expected the lines that the job .* was begun with, got others"
    ):
        embed(models, source="texts.parquet")


def test_a_parquet_file_that_changes_under_way_is_refused(models, corpus):
    write_parquet(LINES)

    def progress(done: int, lines: int) -> None:
        write_parquet(100)

    with pytest.raises(
        ValueError, match=r"lines 65 to 128 as they were .*; 0 of 6|lines 1 to 64 as they were .*; 0 of 6"
    ):
        embed(models, source="texts.parquet", progress=progress)


def test_a_parquet_file_may_be_empty_or_something_else(models, corpus):
    write_parquet(0)
    assert embed(models, source="texts.parquet") == []
    Path("none.parquet").write_bytes(b"a\nb\n")
    with pytest.raises(ValueError, match=r"none.parquet: expected Parquet, got something else"):
        embed(models, "other", source="none.parquet")
    assert not Path("other").exists()


# --------------------------------------------------------------------------------------------------------------- faults


# A worker that is killed in the middle of a shard, which happens once.
DYING = """
import json, os, signal, sys

sys.path[:] = json.loads(sys.stdin.readline())
from nezha_np.jobs import compute
from nezha_np.jobs.worker import main

windows = 0


def next_window(lines, most, original=compute.next_window):
    global windows
    windows += 1
    if windows == 4 and not os.path.exists("killed"):
        os.mkdir("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    return original(lines, most)


compute.next_window = next_window
main()
"""


@NEEDS_SIGKILL
def test_a_worker_that_is_killed_is_replaced_and_the_bytes_are_the_same(models, corpus, monkeypatch):
    embed(models, "whole")
    monkeypatch.setattr(processes, "PROGRAM", DYING)
    seen: list[int] = []
    embed(models, workers=1, progress=lambda done, lines: seen.append(done))
    assert Path("killed").exists() and seen[-1] == LINES and seen != sorted(seen)  # the lines of a shard count anew
    assert contents(Path("job")) == contents(Path("whole"))


def test_workers_that_always_die_end_the_job_with_one_message(capsys, models, corpus, monkeypatch):
    monkeypatch.setattr(processes, "PROGRAM", "import os, sys; sys.stdin.readline(); os._exit(9)")
    message = fail(capsys, "embed", "texts.txt", "-o", "job", "--model", models / "nezha", *JOB, "--workers", 1)
    assert re.search(
        r"texts\.txt, lines 1 to 64: expected a worker to compute them, but 3 ended before, the last one with status "
        r"9; 0 of 6 shards are done, in job: run again",
        message,
    )
    monkeypatch.undo()


DRIVER = """
import os, signal, sys
import nezha_np as nz
from nezha_np.jobs import processes

asked = []


def ask(pool, process, number, original=processes._Pool.ask):
    asked.append(number)
    if len(asked) == 4:  # the other worker is in the middle of a shard, or waits here
        os.kill(os.getpid(), signal.SIGKILL)
    return original(pool, process, number)


processes._Pool.ask = ask
nz.run_corpus("embed", "texts.txt", "job", model=sys.argv[1], batch_size=2, shard_lines=64, workers=2)
"""


@NEEDS_SIGKILL
def test_after_a_driver_is_killed_a_rerun_computes_only_what_is_missing(models, corpus, monkeypatch):
    embed(models, "whole")
    command = [sys.executable, "-c", DRIVER, str(models / "nezha")]
    # The workers have the driver's standard error, so this ends when they have ended.
    killed = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    assert (killed.returncode, killed.stderr) == (-signal.SIGKILL, b"")
    manifest = read_manifest(Path("job"))
    missing = manifest.missing(Path("job"))
    assert 3 <= len(missing) <= 4
    computed = []

    def compute_shard(task, source, out, manifest, number, original=compute.compute_shard, **options):
        computed.append(number)
        return original(task, source, out, manifest, number, **options)

    monkeypatch.setattr("nezha_np.jobs.run_corpus.compute_shard", compute_shard)
    embed(models)
    assert computed == missing and contents(Path("job")) == contents(Path("whole"))


def test_a_bad_row_stops_the_job_or_is_noted(capsys, models, corpus):
    lines = Path("texts.txt").read_bytes().splitlines(keepends=True)
    good = lines[:]
    lines[70], lines[75], lines[200] = "好".encode() * 50 + b"\n", b"\xff\n", "价".encode() * 99 + b"\n"
    Path("texts.txt").write_bytes(b"".join(lines))
    arguments = ["embed", "texts.txt", "-o", "job", "--model", models / "bert", *JOB, "--workers", "2"]
    message = fail(capsys, *arguments)
    assert re.search(r"texts\.txt, line (71|76|201): expected .*; \d of 6 shards are done, in job: run again", message)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main([*map(str, arguments), "--on-error", "record"]) == 0
    errors = [json.loads(line) for line in Path("job/errors.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(error["file"], error["line"]) for error in errors] == [("texts.txt", number) for number in (71, 76, 201)]
    assert errors[0]["message"].startswith("expected at most 40 tokens") and "UTF-8" in errors[1]["message"]
    assert all(set(error) == {"file", "line", "message"} for error in errors)
    assert "warning: 3 lines gave errors, which job/errors.jsonl names" in capsys.readouterr().err.replace(os.sep, "/")
    vectors = np.concatenate([np.load(path) for path in sorted(Path("job").glob("part-*"))])
    assert np.flatnonzero(np.isnan(vectors).any(axis=1)).tolist() == [70, 75, 200]
    rows = [number for number in range(LINES) if number not in (70, 75, 200)]
    texts = [line.decode().rstrip("\n") for line in good]
    expected = nz.embed(texts, nz.load(models / "bert"))
    np.testing.assert_allclose(vectors[rows], expected[rows], rtol=0, atol=1e-6)


def test_a_bad_record_has_null_in_place_of_its_result(models, corpus):
    Path("some.jsonl").write_text('{"text": "好"}\nno JSON\n"价格"\n\n{"text": 5}\n', encoding="utf-8")
    with pytest.warns(UserWarning, match="3 lines gave errors"):
        (part,) = nz.run_corpus("classify", "some.jsonl", "job", model=models / "classify", on_error="record")
    rows = [json.loads(line) for line in part.read_text(encoding="utf-8").splitlines()]
    assert [row["labels"] is None for row in rows] == [False, True, False, True, True]
    assert [json.loads(line)["line"] for line in Path("job/errors.jsonl").read_bytes().splitlines()] == [2, 4, 5]


def test_a_stale_temporary_file_is_removed_and_not_taken_for_a_part(models, corpus):
    embed(models, "whole")
    embed(models)
    Path("job/part-00002.npy").unlink()
    stale = Path("job") / f"{PREFIX}0123"
    (stale / "files").mkdir(parents=True)
    (stale / "files" / "part-00002.npy").write_bytes(b"half")
    os.utime(stale / "files" / "part-00002.npy", (0, 0))
    for path in (stale / "files", stale):
        os.utime(path, (0, 0))
    embed(models)
    assert contents(Path("job")) == contents(Path("whole"))


def test_another_job_in_the_folder_is_refused_by_what_differs_until_it_is_begun_anew(capsys, models, corpus):
    embed(models)
    for options, message in (
        ({"model": "bert"}, "expected a job with model '"),
        ({"pooling": "cls"}, "expected a job with pooling 'cls', got one with 'mean'; restart=True begins anew"),
        ({"shard_lines": 128}, "expected a job with shard_lines 128, got one with 64"),
        ({"batch_size": 1}, "expected a job with "),
        ({"output_format": "jsonl"}, "expected a job with output_format 'jsonl', got one with 'npy'"),
    ):
        with pytest.raises(ValueError, match=f"manifest.json: {re.escape(message)}"):
            embed(models, **options)
    with pytest.raises(ValueError, match="expected a job with task 'classify', got one with 'embed'"):
        nz.run_corpus("classify", "texts.txt", "job", model=models / "classify")
    arguments = ["embed", "texts.txt", "-o", "job/", "--model", models / "bert", *JOB]
    assert "--restart begins anew" in fail(capsys, *arguments)
    Path("job/part-1.txt").write_bytes(b"mine")
    succeed(capsys, *arguments, "--restart")
    assert Path("job/part-1.txt").read_bytes() == b"mine"  # not one of a job's
    Path("job/part-1.txt").unlink()
    embed(models, "other", model="bert")
    assert contents(Path("job")) == contents(Path("other"))
    Path("job/manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"manifest\.json: expected the manifest of a job, got something else"):
        embed(models)


def test_of_two_jobs_that_begin_in_the_same_moment_the_second_is_refused(models, corpus, monkeypatch):
    def overtaken(folder, write, **options):
        monkeypatch.undo()
        monkeypatch.chdir(corpus)
        embed(models, pooling="cls")
        write_atomically(folder, write, **options)

    monkeypatch.setattr("nezha_np.jobs.manifest.write_atomically", overtaken)
    with pytest.raises(ValueError, match="expected a job with pooling 'mean', got one with 'cls'"):
        embed(models)
    assert read_manifest(Path("job")).made_with["pooling"] == "cls"


def test_a_worker_that_finds_another_model_refuses_it(models, corpus, monkeypatch):
    shutil.copytree(models / "nezha", "model")

    def start_worker(original=processes.start_worker):
        nz.init(nz.NezhaConfig(**SMALL), seed=9).save("model")
        return original()

    monkeypatch.setattr(processes, "start_worker", start_worker)
    with pytest.raises(ValueError, match=r"model: expected '\w+', which the job was begun with, got '\w+' in a worker"):
        nz.run_corpus("embed", "texts.txt", "job", model="model", workers=1)
    assert read_manifest(Path("job")).missing(Path("job")) == [0]


@pytest.mark.parametrize("change", ["a line in the middle", "a line more", "a line less"])
def test_a_source_that_changed_is_refused(models, corpus, change):
    embed(models)
    Path("job/part-00003.npy").unlink()
    lines = Path("texts.txt").read_bytes().splitlines(keepends=True)
    if change == "a line in the middle":
        lines[70] = b"X\n"
    Path("texts.txt").write_bytes(b"".join(lines[:-1] if "less" in change else lines) + b"1\n" * ("more" in change))
    first = "65 to 128" if "middle" in change else "321 to 32"
    with pytest.raises(ValueError, match=f"texts.txt: expected the lines that .* others from lines {first}"):
        embed(models)
    assert not Path("job/part-00003.npy").exists()
    embed(models, restart=True)


def test_a_source_that_changes_under_way_is_refused(models, corpus):
    changed = Path("texts.txt").read_bytes()[:-3] + b"XX\n"  # in the last shard

    def progress(done: int, lines: int) -> None:
        if done >= SHARD and Path("texts.txt").read_bytes() != changed:
            Path("texts.txt").write_bytes(changed)

    with pytest.raises(ValueError, match=r"lines 321 to 327 as they were .*; 5 of 6 shards are done, in job"):
        embed(models, progress=progress)


def test_a_source_that_changes_while_a_shard_is_read_is_refused(corpus):
    source = corpus / "long.txt"
    source.write_bytes((b"a" * 9999 + b"\n") * 50)
    (shard,) = cut_source(source, format="lines", shard_lines=SHARD)
    lines = read_shard(source, shard)
    next(lines)  # what was read of the beginning was as it should be
    source.write_bytes((b"a" * 9999 + b"\n") * 49 + b"b" * 9999 + b"\n")
    with pytest.raises(ValueError, match="lines 1 to 50 as they were when the job was begun, got others"):
        list(lines)


FULL = """
import resource, sys
from nezha_np.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # what a part of 64 vectors needs is more
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_ends_the_job_with_one_line_and_a_rerun_goes_on(capsys, models, corpus, monkeypatch):
    pytest.importorskip("resource", reason="this system has no limit for the size of a file")
    embed(models, "whole")
    embed(models)
    Path("job/part-00000.npy").unlink()
    Path("job/part-00005.npy").unlink()  # the last, of 7 vectors, is small enough
    arguments = ["embed", "texts.txt", "-o", "job", "--model", models / "nezha", *JOB, "--workers", 2]
    command = [sys.executable, "-c", FULL, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        rf"nezha-np: \[Errno {errno.EFBIG}\] File too large: 'job/part-00000\.npy'; [45] of 6 shards are done, in job: "
        r"run again, it goes on with the others\n",
        done.stderr,
    )
    succeed(capsys, *arguments)
    assert contents(Path("job")) == contents(Path("whole"))


def test_an_interruption_says_how_to_go_on_and_ends_the_workers(capsys, models, corpus, monkeypatch):
    started = []

    def start_worker(original=processes.start_worker):
        started.append(original())
        return started[-1]

    def interrupted(numbers, job, workers, hear, original=processes.run_in_processes):
        def heard(number, said):
            raise KeyboardInterrupt

        original(numbers, job, workers, heard)

    monkeypatch.setattr(processes, "start_worker", start_worker)
    monkeypatch.setattr("nezha_np.jobs.run_corpus.run_in_processes", interrupted)
    arguments = ["embed", "texts.txt", "-o", "job", "--model", models / "nezha", *JOB, "--workers", 2]
    assert main(list(map(str, arguments))) == 130
    message = "nezha-np: interrupted: the same command goes on with the shards that job lacks\n"
    assert capsys.readouterr().err == message
    assert started and all(process.poll() is not None for process in started)


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "texts.txt", "--workers", "2"], "--output: expected a folder, which --workers needs, got standard"),
        (["embed", "texts.txt", "--workers", "2", "-o", "v.npy"], "--output: expected a folder, which --workers needs"),
        (["embed", "--workers", "2", "-o", "job"], "FILE: expected a file, which can be cut into shards"),
        (["embed", "nowhere.txt", "-o", "job/"], "nowhere.txt"),
        (["embed", ".", "-o", "job/"], "expected a file, which can be cut into shards, found something else"),
        (["embed", "texts.txt", "--workers", "0", "-o", "job"], "--workers: expected a number from 1 on, got 0"),
        (["embed", "texts.txt", "-o", "job/", "--shard-lines", "0"], "--shard-lines: expected a number from 1 on"),
        (["embed", "texts.txt", "-o", "v.npy", "--shard-lines", "64"], "--shard-lines: expected --workers, --cluster"),
        (["classify", "texts.txt", "-o", "v.jsonl", "--on-error", "stop"], "--on-error: expected --workers, --cluster"),
        (["tag", "texts.txt", "-o", "v.jsonl", "--restart"], "--restart: expected --workers, --cluster or"),
        (["tag", "texts.txt", "-o", "job/", "--force"], "--force: expected --restart"),
        (["tag", "texts.txt", "-o", "job/", "--format", "lines"], "--format: expected jsonl, got 'lines'"),
        (["classify", "texts.txt", "-o", "job/", "--top-k", "0"], "--top-k: expected a number from 1 on, got 0"),
        (["answer", "texts.txt", "-o", "job/"], "--model: expected a model that was trained for question_answering"),
        (["embed", "texts.txt", "-o", "texts.txt/"], "expected a folder for the parts of a job, found something"),
        (["embed", "texts.txt", "-o", "own/", "--restart"], "that of a job, found one with mine.txt"),
        (["embed", "texts.txt", "-o", "own/"], "expected a new folder, or that of a job, found one with mine.txt"),
        (["join", "own", "-o", "v.npy"], "own: expected the folder of a job, found no manifest.json in it"),
    ],
)
def test_what_cannot_begin_is_one_line_and_leaves_nothing(capsys, corpus, arguments, message):
    Path("own").mkdir()
    Path("own/mine.txt").write_bytes(b"")
    assert message in fail(capsys, *arguments)
    assert sorted(path.name for path in corpus.rglob("*")) == ["mine.txt", "own", "texts.txt"]


def test_join_refuses_parts_that_are_missing_cut_or_of_another_format(capsys, models, corpus):
    embed(models)
    assert "--output: expected a name that ends in .npy, as the parts do" in fail(
        capsys, "join", "job", "-o", "v.jsonl"
    )
    succeed(capsys, "join", "job", "-o", "v.npy")
    assert "v.npy: expected a new file, found one; --force replaces it" in fail(capsys, "join", "job", "-o", "v.npy")
    part = Path("job/part-00001.npy")
    part.write_bytes(part.read_bytes()[:-1])
    assert "part-00001.npy: expected a part of the job" in fail(capsys, "join", "job", "-o", "v.npy", "--force")
    part.unlink()
    assert "got none of part-00001.npy: run the job again" in fail(capsys, "join", "job", "-o", "v.npy", "--force")
    assert np.load("v.npy").shape == (LINES, 8)


@pytest.mark.parametrize(
    ("task", "options", "kind", "message"),
    [
        (
            "answers",
            {},
            ValueError,
            "task: expected one of embed, classify, tag, answer, choose, fill_mask, got 'answers'",
        ),
        ("embed", {"top_k": 1}, TypeError, "top_k: expected an option of embed, one of pooling, "),
        ("embed", {"on_error": "pass"}, ValueError, "on_error: expected one of stop, record, got 'pass'"),
        ("embed", {"output_format": "bin"}, ValueError, "output_format: expected npy, safetensors, jsonl, got"),
        ("embed", {"input_format": "csv"}, ValueError, "input_format: expected one of lines, jsonl, parquet, got"),
        ("embed", {"workers": True}, TypeError, "workers: expected "),
        ("embed", {"batch_size": 0}, ValueError, "batch_size: expected a number from 1 on, got 0"),
    ],
)
def test_a_wrong_argument_is_named(corpus, task, options, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        nz.run_corpus(task, "texts.txt", "job", **options)
    assert not Path("job").exists()


def test_options_may_be_numbers_of_numpy(models, corpus):
    parts = embed(models, batch_size=np.int64(BATCH), normalize=np.True_, workers=1)
    np.testing.assert_allclose(np.linalg.norm(np.load(parts[0]), axis=1), 1, atol=1e-6)


def test_progress_counts_the_lines_of_an_earlier_run(models, corpus):
    embed(models)
    Path("job/part-00001.npy").unlink()
    seen = []
    embed(models, progress=lambda *numbers: seen.append(numbers))
    assert [lines for _, lines in seen] == [LINES] * len(seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[0][0] > LINES - SHARD and seen[-1][0] == LINES


# ------------------------------------------------------------------------------------------------------ shared weights


@pytest.mark.parametrize("saved", ["float16", "pytorch_model.bin", "npz", "shipped"])
def test_weights_that_loading_converts_are_converted_once_and_mapped_by_all_workers(models, corpus, monkeypatch, saved):
    weights = nz.load(models / "nezha")
    if saved == "float16":
        weights.to(dtype="float16").save("model")
    else:
        shutil.copytree(models / "nezha", "model")
    if saved == "npz":
        tensors = {name: np.asarray(weights[name]) for name in weights}
        np.savez_compressed("model/model.npz", **tensors)
    for file in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(SHIPPED / file, "model")
    model = {"npz": "model/model.npz", "shipped": None}.get(saved, "model")
    if saved == "pytorch_model.bin":
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        Path("model/model.safetensors").unlink()
        torch.save(
            {name: torch.tensor(np.asarray(weights[name])).half() for name in weights}, "model/pytorch_model.bin"
        )
    whole = nz.run_corpus("embed", "texts.txt", "whole", model=model, batch_size=BATCH, shard_lines=SHARD)
    jobs = []

    def run_in_processes(numbers, job, workers, hear, original=processes.run_in_processes):
        task, _ = open_job(job)
        assert all(mapping_under(task.weights[name]) is not None for name in task.weights)
        assert task.weights.dtype == "float32" and Path(job["shared"]).parent.parent.parent == Path("job")
        original(numbers, job, workers, hear)
        jobs.append(job)

    monkeypatch.setattr("nezha_np.jobs.run_corpus.run_in_processes", run_in_processes)
    nz.run_corpus("embed", "texts.txt", "job", model=model, batch_size=BATCH, shard_lines=SHARD, workers=2)
    assert len(jobs) == 1 and len(whole) == 6 and contents(Path("job")) == contents(Path("whole"))


def test_weights_that_are_mapped_are_not_saved_again(models, corpus, monkeypatch):
    def run_in_processes(numbers, job, workers, hear, original=processes.run_in_processes):
        assert job["shared"] is None
        original(numbers, job, workers, hear)

    monkeypatch.setattr("nezha_np.jobs.run_corpus.run_in_processes", run_in_processes)
    assert len(embed(models, workers=1)) == 6
