"""What all subcommands have in common: consoles, signals, exit statuses, how an error names an option, and the help."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import nezha_np as nz
import nezha_np.cli
import nezha_np_command
from nezha_np.cli import main
from nezha_np.commands import output
from nezha_np.commands.parser import Parser, typed_names

ROOT = Path(__file__).parents[1]
CONFIG = nz.NezhaConfig(vocab_size=7000, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=6)
TEXT = "房间很[MASK]净。"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write what every subcommand can read: a checkpoint, texts, a bundle, and arrays, right and wrong."""
    folder = tmp_path_factory.mktemp("files")
    nz.init(CONFIG).save(folder / "模型")
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(nz.weights.checkpoint.SHIPPED / name, folder / "模型")
    for name, head in (("答", "question_answering"), ("选", "multiple_choice")):
        nz.init(CONFIG, head).save(folder / name)
        for file in ("vocab.txt", "tokenizer_config.json"):
            shutil.copy(nz.weights.checkpoint.SHIPPED / file, folder / name)
    (folder / "questions.tsv").write_text("谁？\t房间\t价格\n", encoding="utf-8")
    (folder / "asked.jsonl").write_text('{"question": "谁？", "context": "房间很干净"}\n', encoding="utf-8")
    (folder / "texts.txt").write_text("房间\n价格\n\n早餐\n电脑\n", encoding="utf-8")
    nz.run_corpus("embed", folder / "texts.txt", folder / "job", model=folder / "模型")
    (folder / "tags.tsv").write_text("房\tB\n间\tI\n\n" * 10, encoding="utf-8")
    (folder / "measured").mkdir()
    (folder / "measured" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n', encoding="utf-8")
    bundle = nz.oracle.record(CONFIG, [[2, 5, 3]], tolerances="quick", path=folder / "golden.safetensors")
    theirs = {name: np.array(array, "float32", order="C") for name, array in bundle.trace.items()}
    safetensors.numpy.save_file(theirs, folder / "theirs.safetensors")
    theirs["encoder.layer.0.intermediate.dense"] += 1
    safetensors.numpy.save_file(theirs, folder / "wrong.safetensors")
    return folder


# A call of each subcommand, and its exit status.
CALLS = {
    "fill-mask": (["fill-mask", TEXT, "--model", str(nz.weights.checkpoint.SHIPPED)], 0),
    "explain": (["explain", TEXT, "-o", "-", "--model", "模型"], 0),
    "classify": (["classify", "texts.txt", "--model", str(nz.weights.checkpoint.SHIPPED / "sentiment")], 0),
    "tag": (["tag", "texts.txt", "--model", str(nz.weights.checkpoint.SHIPPED / "names")], 0),
    "answer": (["answer", "asked.jsonl", "--model", "答"], 0),
    "choose": (["choose", "questions.tsv", "--model", "选"], 0),
    "embed": (["embed", "texts.txt", "--model", "模型"], 0),
    "join": (["join", "job", "-o", "joined.npy"], 0),
    "pretrain": (["pretrain", "texts.txt", "-o", "run", "--model", "模型", "--steps", "1", "--batch-size", "1"], 0),
    "finetune": (
        ["finetune", "tags.tsv", "--task", "tag", "-o", "run", "--model", "模型", "--epochs", "1", "--batch-size", "9"],
        0,
    ),
    "plot": (["plot", "measured", "-o", "-"], 0),
    "inspect": (["inspect", "模型"], 0),
    "convert": (["convert", "模型", "out", "--force"], 0),
    "golden record": (
        ["golden", "record", "--text", "房间", "--tolerances", "none", "-o", "o.safetensors", "--force"],
        0,
    ),
    "golden check": (["golden", "check", "golden.safetensors", "theirs.safetensors", "--verbose"], 0),
    "golden report": (
        ["golden", "report", "golden.safetensors", "theirs.safetensors", "-o", "page.html", "--force"],
        0,
    ),
    "golden attribute": (["golden", "attribute", "golden.safetensors", "theirs.safetensors", "--verbose"], 0),
    "golden show": (["golden", "show", "golden.safetensors"], 0),
    "doctor": (["doctor", "golden.safetensors", "wrong.safetensors"], 1),
}


def copied(folder: Path, to: Path) -> Path:
    """Copy what the calls read, so that each may write beside it."""
    return shutil.copytree(folder, to, dirs_exist_ok=True)


UTF_8 = {"explain", "classify", "tag", "answer", "choose", "embed", "plot"}  # what other programs read
TRAINING = {"pretrain", "finetune"}


def leaves(parser: Parser) -> dict[str, Parser]:
    """Return the parser of each command that can be run, by its name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {
                f"{name} {rest}".strip(): leaf
                for name, below in action.choices.items()
                for rest, leaf in leaves(below).items()
            }
    return {"": parser}


LEAVES = leaves(nezha_np.cli._parser())


def error(capsys, *arguments: str) -> str:
    """Run a command that fails with status 2: its one line on stderr."""
    try:
        status = main(arguments)
    except SystemExit as exit:
        status = exit.code
    printed = capsys.readouterr()
    assert status == 2 and printed.out == "" and printed.err.count("\n") == 1, printed
    return printed.err


def test_the_calls_here_are_of_every_subcommand():
    assert CALLS.keys() == LEAVES.keys()


# ------------------------------------------------------------------------------------------------------------ consoles


class Console(io.TextIOWrapper):
    """A console, or a file that output is redirected to, of an encoding."""

    def __init__(self, encoding: str) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding, newline="", write_through=True)


@pytest.mark.parametrize("encoding", ["cp936", "cp1252", "ascii"])
@pytest.mark.parametrize("command", CALLS)
def test_every_subcommand_prints_on_a_console_that_lacks_characters(folder, tmp_path, monkeypatch, command, encoding):
    monkeypatch.chdir(copied(folder, tmp_path))
    out, err = Console(encoding), Console(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    arguments, status = CALLS[command]
    assert main(arguments) == status, err.bytes.getvalue()
    assert err.bytes.getvalue() == b"" or command in TRAINING  # which print there what they measure
    text = out.bytes.getvalue().decode("utf-8" if command in UTF_8 else encoding)
    if command in UTF_8:
        assert ("<svg" if command == "plot" else "房间") in text
    if command == "fill-mask":
        assert text.splitlines()[0] == {"cp936": "干 0.984"}.get(encoding, "\\u5e72 0.984")
    if command == "golden check":
        assert text.splitlines()[-1].split()[:5] == ["+", "pooler", "1", {"ascii": "x"}.get(encoding, "×"), "8"]


@pytest.mark.parametrize("command", ["golden check", "doctor"])
def test_json_is_utf_8_whatever_the_console(folder, monkeypatch, tmp_path, command):
    theirs = nz.oracle.load(folder / "golden.safetensors").trace["pooler"].astype("float32")
    safetensors.numpy.save_file({"pooler": theirs, "多余": theirs}, tmp_path / "theirs.safetensors")
    out = Console("cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    arguments = [*command.split(), str(folder / "golden.safetensors"), str(tmp_path / "theirs.safetensors"), "--json"]
    assert main(arguments) == 0
    assert "多余" in out.bytes.getvalue().decode("utf-8")
    json.loads(out.bytes.getvalue())


@pytest.mark.parametrize("command", LEAVES)
def test_the_help_and_an_error_print_on_a_console_that_lacks_characters(monkeypatch, command):
    out, err = Console("ascii"), Console("cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) as exit:
        main([*command.split(), "--help"])
    assert exit.value.code == 0 and b"example: nezha-np" in out.bytes.getvalue()
    with pytest.raises(SystemExit) as exit:
        main([*command.split(), "--干✓"])
    assert exit.value.code == 2 and err.bytes.getvalue().count(b"\n") == 1


def test_an_output_without_bytes_as_a_notebook_has_takes_text(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    output.write_text("干")
    assert out.getvalue() == "干\n"


def test_without_a_standard_error_nothing_of_an_error_is_printed_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["fill-mask", "no gap"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_an_error_of_the_help_too():
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "nezha_np", "embed", "--help"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (2, b"nezha-np: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("arguments", [["golden", "record", "--help"], ["--version"], ["inspect"]], ids=" ".join)
def test_a_pipe_that_is_closed_is_no_error_of_the_help_either(arguments):
    command = ["bash", "-c", 'set -o pipefail; "$@" | true', "bash", sys.executable, "-m", "nezha_np", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


# ------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", CALLS)
def test_every_subcommand_answers_a_signal_with_one_line_and_leaves_nothing(
    folder, tmp_path, monkeypatch, capsys, command, number, status
):
    """The signal comes when the subcommand opens its first file of tensors or numbers, or while it writes one."""

    def stop(*arguments, **options):
        signal.raise_signal(number)
        raise AssertionError("the signal was not answered")

    def stop_writing(tensors, path, **options):
        path.write_bytes(b"half of it")
        stop()

    monkeypatch.chdir(copied(folder, tmp_path))
    (tmp_path / "out").mkdir()
    before = set(tmp_path.rglob("*"))
    if command in ("convert", "golden record"):
        monkeypatch.setattr("safetensors.numpy.save_file", stop_writing)
    elif command == "join":
        monkeypatch.setattr("shutil.copyfileobj", stop)
    elif command == "plot":
        monkeypatch.setattr("nezha_np.training.measurements.Metrics.read", stop)
    else:
        monkeypatch.setattr("safetensors.safe_open", stop)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background
    try:
        assert main(CALLS[command][0]) == status
    finally:
        signal.signal(signal.SIGINT, handler)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == "nezha-np: interrupted\n"
    left = {path for path in set(tmp_path.rglob("*")) - before if tmp_path / "run" not in (path, *path.parents)}
    assert left == set()  # the folder of a training run holds what it can go on from


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_signal_that_is_ignored_stays_ignored_and_handlers_come_back(monkeypatch, capsys):
    def during(*arguments, **options):
        signal.raise_signal(signal.SIGHUP)
        return [[("干", 0, 1.0)]]

    monkeypatch.setattr(nz, "fill_mask", during)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert main(["fill-mask", TEXT]) == 0 and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert main(["fill-mask", TEXT]) == 129 and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert capsys.readouterr() == ("干 1.000\n", "nezha-np: interrupted\n")


# ------------------------------------------------------------------------------------------------------- exit statuses


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (OSError(28, "No space left on device"), "nezha-np: [Errno 28] No space left on device"),
        (MemoryError("Unable to allocate 9 GiB"), "nezha-np: out of memory: Unable to allocate 9 GiB"),
        (MemoryError(), "nezha-np: out of memory"),
        (ModuleNotFoundError("No module named 'cupy'"), "nezha-np: No module named 'cupy'"),
    ],
)
def test_a_fault_is_one_line_and_status_2(monkeypatch, capsys, raised, line):
    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr(nz, "fill_mask", fail)
    assert error(capsys, "fill-mask", TEXT) == f"{line}\n"


def test_a_mistake_of_the_package_is_status_2_too_and_says_where_it_is(monkeypatch, capsys):
    def fail(*arguments, **options):
        raise KeyError("pooler")

    monkeypatch.setattr(nz, "fill_mask", fail)
    assert main(["fill-mask", TEXT]) == 2  # 1 is for a difference
    printed = capsys.readouterr().err
    assert "in fail" in printed and printed.splitlines()[-1].startswith(
        "nezha-np: KeyError: 'pooler'; this is a mistake"
    )


def test_a_warning_is_one_line(monkeypatch, capsys):
    def warn(*arguments, **options):
        warnings.warn("slow\nhere", stacklevel=1)
        return [[("干", 0, 1.0)]]

    monkeypatch.setattr(nz, "fill_mask", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["fill-mask", TEXT]) == 0
    assert capsys.readouterr() == ("干 1.000\n", "nezha-np: warning: slow here\n")


# --------------------------------------------------------------------------- how an error names options, and the help


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fill-mask", TEXT, "--top-k", "0"], "--top-k: expected a number from 1 to 7000, got 0"),
        (["fill-mask", TEXT, "--model", "nowhere"], "--model: expected a folder"),
        (["fill-mask", "texts.txt"], "texts.txt, line 1: expected at least one [MASK], got '房间'"),
        (["explain", TEXT, "-o", "-", "--model", "nowhere"], "--model: expected a folder"),
        (["embed", "texts.txt", "--max-length", "1"], "--max-length: expected at least 2"),
        (["embed", "texts.txt", "--batch-size", "0"], "--batch-size: expected a number from 1 on, got 0"),
        (["embed", "texts.txt", "-o", "vectors.txt"], "--output: expected a name that ends in"),
        (["embed", "texts.txt", "--format", "npy"], "--format: expected jsonl"),
        (["embed", "texts.txt", "--field", "embedding"], "--field: expected another name"),
        (["convert", "nowhere", "out"], "SRC: expected a folder"),
        (["convert", "模型", "texts.txt"], "DST: expected a folder"),
        (["golden", "record", "--text", "a", "-o", "o.safetensors", "--output", "x"], "--output: expected a pattern"),
        (
            ["golden", "record", "--text", "a", "-o", "o.npz"],
            "-o: expected a name that ends in .safetensors, got o.npz",
        ),
        (
            ["golden", "record", "--text", "a", "-o", "o.safetensors", "--head", "masked-lm"],
            "; did you mean masked_lm?",
        ),
        (["golden", "record", "--text", "a", "-o", "golden.safetensors"], "found one; --force replaces it"),
        (
            ["golden", "record", "--text", "a", "--pair", "b", "c", "-o", "o.safetensors"],
            "--pair: expected one for each",
        ),
        (["golden"], "required: COMMAND, one of record, check, report, attribute, show"),
        (["golden", "record", "--all", "texts.txt"], "--all: expected a folder, found a file"),
        (["golden", "check", "golden.safetensors", "theirs.safetensors", "--tolerance", "-1"], "--tolerance: expected"),
        (["golden", "check", "golden.safetensors", "theirs.safetensors", "--names", "x"], "--names: expected one of"),
        (["golden", "check", "golden.safetensors", "texts.txt"], "THEIRS: expected a .safetensors or a .npz file"),
        (["doctor", "golden.safetensors", "nowhere.npz"], "THEIRS: expected a file of arrays"),
    ],
)
def test_an_error_names_what_was_typed(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(folder)
    assert message in error(capsys, *arguments)


def test_a_text_names_options_wherever_a_name_is_one_of_python_alone():
    options = argparse.Namespace(
        names={name: f"--{name.replace('_', '-')}" for name in ("text", "dtype", "max_length", "tolerances")},
        aliases={},
    )
    for text, expected in (
        ("text, pair: expected one", "--text, pair: expected one"),
        ("float16 is a guess: dtype= says what it is", "float16 is a guess: --dtype says what it is"),
        ("dtype='bfloat16' is for a pass in it", "--dtype bfloat16 is for a pass in it"),
        ("recorded with tolerances=None", "recorded with --tolerances none"),
        ("more tokens than max_length", "more tokens than --max-length"),
        ("expected a text, got 'a dtype=x b'", "expected a text, got 'a dtype=x b'"),
        ("max_length.txt, line 3: a text of no dtype", "max_length.txt, line 3: a text of no dtype"),
    ):
        assert typed_names(text, options) == expected


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["fill_mask"], "fill-mask"),
        (["INSPECT"], "inspect"),
        (["golden", "shwo"], "show"),
        (["embed", "--batchsize", "3"], "--batch-size"),
        (["embed", "--normalise"], "--normalize"),
        (["embed", "--max_length", "5"], "--max-length"),
        (["embed", "-model", "nezha"], "--model"),
        (["explain", TEXT, "--outptu=page.html"], "--output"),
        (["--verison"], "--version"),
        (["convert", "a", "b", "--dtype", "flaot16"], "float16"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest_one(capsys, arguments, meant):
    assert error(capsys, *arguments).endswith(f"; did you mean {meant}?\n")


@pytest.mark.parametrize(
    "arguments", [["serve"], ["inspect", "a", "b"], ["embed", "--xyz"], ["embed", "-1"], ["golden", "check", "a"]]
)
def test_a_word_that_is_near_to_none_is_answered_without(capsys, arguments):
    assert "did you mean" not in error(capsys, *arguments)


@pytest.mark.parametrize("command", LEAVES)
def test_the_help_is_whole_and_its_example_is_one(command):
    leaf = LEAVES[command]
    assert leaf.description and all(action.help for action in leaf._actions)
    program, *arguments = shlex.split(leaf.epilog.removeprefix("example: "))
    options = nezha_np.cli._parser().parse_args(arguments)
    assert program == "nezha-np" and options.parser.prog == f"nezha-np {command}"


INTERRUPTED_IMPORT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "nezha_np.cli":
            signal.raise_signal(int(sys.argv[1]))
sys.meta_path.insert(0, Finder())
import nezha_np_command
sys.exit(nezha_np_command.main())
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_comes_while_the_package_is_imported_is_one_line_too(number, status):
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, str(int(number))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"nezha-np: interrupted\n")


INTERRUPTED_PACKAGE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "nezha_np.families":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    "words", [["-m", "nezha_np"], ["-mnezha_np", "fill-mask"], ["-X", "utf8", "-m", "nezha_np", "-h"]]
)
def test_an_interrupt_while_python_imports_the_package_of_the_module_is_one_line_too(tmp_path, words):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_PACKAGE)
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, env=variables)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"nezha-np: interrupted\n")


def test_a_program_that_imports_the_package_keeps_its_own_answer_to_an_interrupt(tmp_path):
    (tmp_path / "program.py").write_text(
        "import signal, sys\nbefore = signal.getsignal(signal.SIGINT)\nimport nezha_np\n"
        "sys.exit(signal.getsignal(signal.SIGINT) is not before)"
    )
    command = [sys.executable, "-m", "program", "nezha_np"]
    assert subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0


INTERRUPTED_AGAIN = """
import signal, sys
import nezha_np.cli, nezha_np_command
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background
def run():
    if sys.argv[1] == "while it is answered":
        raise KeyboardInterrupt
    return 130
nezha_np.cli.main = run
status = nezha_np_command.main()
if sys.argv[1] == "while Python ends":
    signal.raise_signal(signal.SIGINT)
sys.exit(status)
"""


@pytest.mark.parametrize("when", ["while it is answered", "while Python ends"])
def test_a_second_interrupt_is_no_traceback(when):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_AGAIN, when], cwd=ROOT, capture_output=True)
    assert done.returncode and (done.stdout, done.stderr) == (b"", b"")


def test_the_script_runs_the_command_line_and_gives_the_signals_back(monkeypatch, capsys):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(sys, "argv", ["nezha-np", "fill-mask", TEXT, "--top-k", "1"])
    assert nezha_np_command.main() == 0 and capsys.readouterr().out == "干 0.984\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"nezha-np": "nezha_np_command:main"}


# ---------------------------------------------------------------------------------------------- text that is no UTF-8


@pytest.mark.parametrize(
    "arguments", [["fill-mask"], ["explain", "-o", "-"], ["golden", "record", "-o", "a.safetensors", "--text"]]
)
def test_a_text_in_another_encoding_is_refused_with_advice(capsys, arguments):
    word = "房间[MASK]".encode("gbk").decode("utf-8", "surrogateescape")
    assert "expected text in UTF-8, got '\\udcb7" in error(capsys, *arguments, word)


def test_a_text_in_utf_8_is_read_where_the_locale_has_no_encoding_for_it():
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "nezha_np", "fill-mask", TEXT.encode(), "--top-k", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env={**os.environ, **variables})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\u5e72 0.984\n", b"")


@pytest.mark.parametrize(
    ("content", "encoding"), [("房间\n价格\n".encode("gbk"), "GBK"), ("hi\nall\n".encode("utf-16"), "UTF-16")]
)
def test_standard_input_in_another_encoding_is_named_with_the_command_that_converts_it(
    folder, monkeypatch, capsys, content, encoding
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    message = error(capsys, "embed", "--model", str(folder / "模型"))
    assert message.startswith(f"nezha-np: standard input, line 1: expected UTF-8, got what seems to be {encoding}")
    assert f"iconv -f {encoding} -t UTF-8" in message


def test_a_json_file_may_begin_with_a_byte_order_mark_as_powershell_writes_it(folder, tmp_path, capsys):
    (tmp_path / "renames.json").write_bytes(b"\xef\xbb\xbf{}")
    files = [str(folder / "golden.safetensors"), str(folder / "theirs.safetensors")]
    assert main(["golden", "check", *files, "--rename", str(tmp_path / "renames.json")]) == 0


def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(nz.weights.checkpoint.SHIPPED), ""]) == 2
    assert "DST: expected a path, got an empty text" in capsys.readouterr().err
    assert main(["pretrain", "text.txt", "-o", ""]) == 2
    assert "--output: expected a path, got an empty text" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_mask_token_that_the_vocabulary_lacks_is_named(capsys):
    assert main(["fill-mask", "X", "--mask-token", "X"]) == 2
    assert "--mask-token: expected a token of the vocabulary, got 'X'" in capsys.readouterr().err


def test_a_prompt_in_bytes_of_another_encoding_is_refused_and_not_dropped(tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("好\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["embed", str(tmp_path / "texts.txt"), "--prompt", "\udcff"])
    assert "--prompt: expected text in UTF-8" in capsys.readouterr().err


def test_a_batch_size_without_end_takes_all_lines(tmp_path, capsysbinary):
    (tmp_path / "texts.txt").write_text("好\n", encoding="utf-8")
    assert main(["embed", str(tmp_path / "texts.txt"), "--batch-size", str(10**20)]) == 0
    assert capsysbinary.readouterr().out.count(b"\n") == 1
