"""Faults of a machine, such as a full disk or a killed run: one line, exit status 2, and nothing half made is left."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.files import atomic, lock, temporary
from nezha_np.files.atomic import write_atomically
from nezha_np.files.partial_file import PartialFile
from nezha_np.files.temporary import LOCK, PREFIX
from nezha_np.oracle import standard
from nezha_np.training import lamb
from nezha_np.training.loop import first_step
from nezha_np.training.run_folder import save_step
from nezha_np.weights.formats.safetensors import _as_os_error, write_tensors

ROOT = Path(__file__).parents[1]
SHIPPED = nz.weights.checkpoint.SHIPPED
CONFIG = nz.BertConfig(vocab_size=999, hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=6)
LARGEST = 10_000  # bytes of a file on the small disk


@contextlib.contextmanager
def small_disk():
    """Let no file grow beyond `LARGEST`: a write then fails as it does on a full disk, with another number."""
    resource = pytest.importorskip("resource", reason="this system does not limit the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Read all files below a folder, and name its folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def fail(capsys, *arguments: object) -> str:
    """Run a command that fails by a fault, and return its one line on stderr."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("nezha-np: ") and printed.err.count("\n") == 1
    return printed.err


@pytest.fixture
def folder(tmp_path) -> Path:
    """Make a folder with a configuration, inputs, texts, and a small set of standard bundles."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (tmp_path / "inputs.json").write_text('{"input_ids": [[2, 5, 3]]}')
    (tmp_path / "texts.txt").write_text("好\n" * 300, encoding="utf-8")
    return tmp_path


COMMANDS = {
    "convert": ["convert", SHIPPED, "{out}"],
    "convert to a file": ["convert", SHIPPED, "{out}/deep/model.safetensors", "--dtype", "float32"],
    "golden record": [
        "golden",
        "record",
        "--inputs",
        "inputs.json",
        "--tolerances",
        "none",
        "-o",
        "{out}/x.safetensors",
    ],
    "golden record --all": ["golden", "record", "--all", "{out}"],
    "explain": ["explain", "房间很[MASK]净。", "-o", "page.html"],
    "embed": ["embed", "texts.txt", "-o", "v.npy", "--batch-size", "4"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_leaves_nothing(capsys, monkeypatch, folder, name):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(standard, "STANDARD", standard.STANDARD[:1])
    monkeypatch.setattr(
        standard, "record_standard", lambda name: nz.oracle.record(nz.init(CONFIG), [[2]], tolerances=None)
    )
    before = contents(folder)
    with small_disk():
        message = fail(capsys, *(str(word).format(out="new/out") for word in COMMANDS[name]))
    assert "File too large" in message and PREFIX not in message
    if name == "embed":  # whose rows are kept, all that the disk took
        assert re.search(r"File too large; \d+ lines are done, in v\.npy\.partial", message)
        assert {*contents(folder)} - {*before} == {"v.npy.partial", "v.npy.partial.json"}
        return
    assert re.search(r"\[Errno 27\] File too large: '(new/out/(deep/)?\S+\.safetensors|page\.html)'$", message.strip())
    assert contents(folder) == before


def test_a_full_disk_leaves_an_older_checkpoint_bundle_and_tokenizer(folder):
    small, large = nz.init(CONFIG.replace(vocab_size=9)), nz.init(CONFIG, seed=1)
    small.save(folder / "model")
    nz.oracle.record(small, [[2]], tolerances=None).save(folder / "x.safetensors")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("mine")
    before = contents(folder)
    bundle = nz.oracle.record(large, [[2]], tolerances=None)
    with small_disk():
        for write in (
            lambda: large.save(folder / "model"),
            lambda: bundle.save(folder / "x.safetensors"),
            lambda: nz.save_vocabulary(nz.load_tokenizer(), folder / "tokenizer"),
        ):
            with pytest.raises(OSError, match="File too large: '") as full:
                write()
            assert full.value.errno == errno.EFBIG and str(folder) in full.value.filename
    assert contents(folder) == before


def test_a_full_disk_leaves_the_saved_steps_of_a_run(tmp_path):
    save_step(tmp_path, first_step(nz.init(CONFIG.replace(vocab_size=9)), lamb), keep=1)
    (tmp_path / ".step-00000009").mkdir()  # of a run that was killed
    before = contents(tmp_path / "step-00000000")
    with small_disk(), pytest.raises(OSError, match="File too large: '"):
        save_step(tmp_path, dataclasses.replace(first_step(nz.init(CONFIG), lamb), number=1), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000000"]
    assert contents(tmp_path / "step-00000000") == before


def test_embed_that_cannot_even_begin_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="No space left"):
        PartialFile(tmp_path / "v", {}, header=b"head")
    assert contents(tmp_path) == {}


def test_the_librarys_error_becomes_pythons_own(tmp_path):
    error = _as_os_error(
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"), tmp_path
    )
    assert (error.errno, error.strerror, error.filename) == (errno.ENOSPC, "No space left on device", str(tmp_path))
    assert str(_as_os_error(Exception("odd"), tmp_path)) == f"{tmp_path}: odd"
    with pytest.raises(FileNotFoundError):
        write_tensors(tmp_path / "nowhere" / "x.safetensors", {"x": np.zeros(2)})


def test_a_file_in_a_folder_of_the_folder_is_named_by_its_place(tmp_path):
    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        with small_disk():
            (folder / "inner" / "large").write_bytes(bytes(2 * LARGEST))

    def open_in_a_folder_that_is_not_there(folder: Path) -> None:
        (folder / "inner" / "large").write_bytes(b"")

    with pytest.raises(FileNotFoundError) as missing:
        write_atomically(tmp_path, lambda folder: write_atomically(folder, open_in_a_folder_that_is_not_there))
    assert missing.value.filename == str(tmp_path / "inner" / "large")
    with pytest.raises(OSError, match="File too large: '"):
        write_atomically(tmp_path, write)
    assert contents(tmp_path) == {}


def test_a_folder_that_goes_away_and_one_that_cannot_be_written_to_are_named(tmp_path, monkeypatch):
    def remove(folder: Path) -> None:
        (folder / "a").write_text("a")
        folder.parent.parent.rename(tmp_path / "elsewhere")

    with pytest.raises(FileNotFoundError) as gone:
        write_atomically(tmp_path / "folder", remove)
    assert str(gone.value) == f"[Errno 2] No such file or directory: '{tmp_path / 'folder'}'"

    def refused(path, *mode, original=os.mkdir):
        if PREFIX in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        original(path, *mode)

    monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(PermissionError) as denied:
        write_atomically(tmp_path / "new" / "folder", lambda folder: None)
    assert str(denied.value) == f"[Errno 13] Permission denied: '{tmp_path / 'new' / 'folder'}'"
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_who_may_read_what_is_written_is_what_the_system_says_of_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        nz.init(CONFIG).save(tmp_path / "new" / "model")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*")}
    assert modes == {"model": 0o750, "config.json": 0o640, "model.safetensors": 0o640}


def test_a_folder_that_another_run_has_used_in_the_meantime_stays(tmp_path):
    def fail(folder: Path) -> None:
        (tmp_path / "new" / "theirs").write_text("theirs")
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_atomically(tmp_path / "new", fail)
    assert contents(tmp_path) == {"new": None, "new/theirs": b"theirs"}


# -------------------------------------------------------------------------------------------------------- killed runs

WRITER = """
import pathlib, sys, time
from nezha_np.files.atomic import write_atomically

def write(folder):
    (folder / "model.safetensors").write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()

write_atomically(pathlib.Path(sys.argv[1]), write)
"""


@pytest.fixture
def writer(tmp_path):
    """Start a process that writes into a folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline().strip() == b"writing"
    yield process
    process.kill()
    process.communicate()


def test_what_a_killed_run_left_is_removed_by_the_next_and_what_a_living_one_has_is_not(tmp_path, writer):
    write_atomically(tmp_path, lambda folder: (folder / "mine").write_text("mine"))
    (theirs,) = tmp_path.glob(f"{PREFIX}*")
    assert (theirs / "files" / "model.safetensors").read_bytes() == b"half"
    writer.kill()
    writer.wait()
    write_atomically(tmp_path, lambda folder: (folder / "mine").write_text("again"))
    assert contents(tmp_path) == {"mine": b"again"}


def test_a_run_that_ends_moves_its_file_though_another_run_has_looked_for_abandoned_ones(tmp_path, writer):
    write_atomically(tmp_path, lambda folder: (folder / "mine").write_text("mine"))
    writer.communicate()
    assert contents(tmp_path) == {"mine": b"mine", "model.safetensors": b"half"}


@pytest.mark.parametrize("whose", ["another machine's", "without a lock file", "on a file system without locks"])
def test_what_nobody_can_be_asked_about_is_removed_a_day_later(tmp_path, monkeypatch, whose):
    theirs = tmp_path / f"{PREFIX}theirs"
    (theirs / "files").mkdir(parents=True)
    (theirs / "files" / "model.safetensors").write_bytes(b"half")
    if whose != "without a lock file":
        (theirs / LOCK).write_bytes(b"another" if whose.startswith("another") else temporary._machine())
    if whose.startswith("on a"):
        monkeypatch.setattr(temporary, "try_lock", lambda file, path: None)
    write_atomically(tmp_path, lambda folder: None)
    assert (theirs / "files" / "model.safetensors").exists()
    long_ago = time.time() - 2 * temporary.DAY
    for path in (theirs / "files" / "model.safetensors", theirs / "files", *theirs.glob(LOCK)):
        os.utime(path, (long_ago, long_ago))
    write_atomically(tmp_path, lambda folder: None)
    assert theirs.exists()  # something in it is new
    os.utime(theirs, (long_ago, long_ago))
    write_atomically(tmp_path, lambda folder: None)
    assert contents(tmp_path) == {}


def test_a_lock_is_none_where_the_file_system_has_none(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="this system has no such locks")

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        assert lock.try_lock(file, tmp_path / "file") is None
    write_atomically(tmp_path, lambda folder: (folder / "mine").write_text("mine"))
    assert (tmp_path / "mine").read_text() == "mine"


def _save_and_be_killed(folder, move):
    """Save in another process, which is killed before one of its moves."""
    moves = 0

    def replace(*paths, original=atomic._replace):
        nonlocal moves
        moves += 1
        if moves == move:
            os._exit(9)
        original(*paths)

    child = os.fork()
    if not child:
        atomic._replace = replace
        nz.init(CONFIG, seed=1).save(folder)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("move", [1, 2])
def test_a_reader_refuses_what_a_run_was_killed_in_and_the_next_run_ends_it(tmp_path, move):
    nz.init(CONFIG.replace(vocab_size=9)).save(tmp_path)
    _save_and_be_killed(tmp_path, move)
    with pytest.raises(ValueError, match=rf"^{tmp_path}: expected files that belong together, .*killed .* remove "):
        nz.load(tmp_path)
    write_atomically(tmp_path, lambda folder: (folder / "note").write_text("mine"))
    assert sorted(contents(tmp_path)) == ["config.json", "model.safetensors", "note"]
    np.testing.assert_array_equal(nz.load(tmp_path).word_embeddings, nz.init(CONFIG, seed=1).word_embeddings)


def test_what_a_killed_run_was_putting_back_is_put_back(tmp_path):
    theirs = tmp_path / f"{PREFIX}theirs"
    (theirs / "before").mkdir(parents=True)
    (theirs / "before" / "config.json").write_text("old")
    (theirs / LOCK).write_bytes(temporary._machine())
    (theirs / temporary.UNDOING).touch()
    (tmp_path / "config.json").write_text("new")
    with pytest.raises(ValueError, match="expected files that belong together"):
        temporary.check_whole(tmp_path)
    write_atomically(tmp_path, lambda folder: None)
    assert contents(tmp_path) == {"config.json": b"old"}


# -------------------------------------------------------------------------------------------------------- several runs


@pytest.fixture(params=["with links", "without links"])
def links(request, monkeypatch):
    """Let the system have hard links, or none."""

    def unsupported(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if request.param == "without links":
        monkeypatch.setattr(os, "link", unsupported)


@pytest.mark.usefixtures("links")
def test_of_two_runs_that_explain_to_one_file_the_first_wins_and_the_other_says_so(capsys, tmp_path, monkeypatch):
    page = tmp_path / "page.html"

    def compute(*_, **options):
        page.write_text("theirs")  # another run, which was faster
        return "<p>ours</p>"

    monkeypatch.setattr(nz, "explain", compute)
    message = fail(capsys, "explain", "房间", "-o", page)
    assert f"{page}: expected a new file, found one that another run has written in the meantime" in message
    assert contents(tmp_path) == {"page.html": b"theirs"}
    assert main(["explain", "房间", "-o", str(page), "--force"]) == 0 and page.read_text() == "<p>ours</p>"


@pytest.mark.usefixtures("links")
def test_of_two_runs_that_convert_into_one_folder_the_first_wins_and_the_other_changes_nothing(
    capsys, tmp_path, monkeypatch
):
    nz.init(CONFIG).save(tmp_path / "source")
    target = tmp_path / "target"
    module = importlib.import_module("nezha_np.weights.convert")

    def load(*arguments, original=nz.load, **options):
        nz.init(CONFIG, seed=1).save(target)  # another run, which was faster
        return original(*arguments, **options)

    monkeypatch.setattr(module, "load", load)
    message = fail(capsys, "convert", tmp_path / "source", target)
    assert "expected a new file, found one that another run has written in the meantime" in message
    assert sorted(contents(target)) == ["config.json", "model.safetensors"]
    np.testing.assert_array_equal(nz.load(target).word_embeddings, nz.init(CONFIG, seed=1).word_embeddings)


def test_a_run_that_is_interrupted_while_it_moves_new_files_leaves_none(tmp_path, monkeypatch):
    def unlink(path, *, original=Path.unlink, **options):
        if path.name == "b" and path.parent.name == "files":
            raise KeyboardInterrupt
        original(path, **options)

    def write(folder: Path) -> None:
        for size, name in enumerate("abc"):
            (folder / name).write_bytes(bytes(size))

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path, write, new=("a", "b", "c"))
    assert contents(tmp_path) == {}


# ------------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_cannot_be_read_is_one_line(capsys, tmp_path, name):
    if not os.path.exists("/proc/self/mem"):
        pytest.skip("this system has no file that cannot be read")
    nz.init(CONFIG).save(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/proc/self/mem")
    message = fail(capsys, "inspect", tmp_path)
    assert "Input/output error" in message or f"{tmp_path / name}: expected a file that can be read" in message


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_that_lead_back_to_themselves_are_an_error_of_the_system(tmp_path, capsys):
    (tmp_path / "page.html").symlink_to("page.html")
    assert "page.html" in fail(capsys, "explain", "好", "-o", tmp_path / "page.html")
    assert "page.html" in fail(capsys, "explain", "好", "-o", tmp_path / "page.html", "--force")
    assert (tmp_path / "page.html").is_symlink()


def test_a_thread_leaves_the_folders_of_other_threads_alone_where_a_process_gets_its_own_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(
        temporary, "try_lock", lambda file, path: True
    )  # as locks of POSIX are, in some network folders
    with temporary.temporary_folder(tmp_path) as one, temporary.temporary_folder(tmp_path) as other:
        assert one.exists() and other.exists()
    assert not list(tmp_path.iterdir())


def test_what_an_interrupted_removal_leaves_the_next_run_removes(tmp_path, monkeypatch):
    def interrupted(path, **options):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), temporary.temporary_folder(tmp_path) as folder:
        (folder / "files" / "half").write_text("of it")
        monkeypatch.setattr(temporary.shutil, "rmtree", interrupted)
    monkeypatch.undo()
    assert (folder / LOCK).exists()
    with temporary.temporary_folder(tmp_path):
        assert not folder.exists()
