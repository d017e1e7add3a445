"""Under mpiexec: two and three processes train as one, fail with one message, and go on from what was saved."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nezha_np as nz
from nezha_np.cli import main
from nezha_np.weights.checkpoint import SHIPPED

HERE = Path(__file__).parent
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
LONGEST = 240  # seconds; a run that hangs fails
SENTENCES = [
    "房间很干净。",
    "早餐也很好吃。",
    "下次还会再来。",
    "总理会见外宾。",
    "双方交换了意见。",
    "会见后共进午餐。",
]


@pytest.fixture(scope="module")
def mpiexec():
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec")
    return MPIEXEC


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    documents = ["\n".join(SENTENCES[(i + j) % 6] for j in range(4)) for i in range(20)]
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    lines = [f"{text}\t{'a' if '房' in text or '早' in text else 'b'}" for text in (*SENTENCES, "房间" * 9) * 4]
    (folder / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = nz.NezhaConfig(
        vocab_size=7000, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, max_relative_position=8,
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    nz.init(config, head="pretraining").save(folder / "small")
    shutil.copy(SHIPPED / "vocab.txt", folder / "small")
    assert main(pretrain(folder, "alone")) == 0
    return folder


def pretrain(folder, run, *more):
    words = ["pretrain", folder / "text.txt", "-o", folder / run, "--config", folder / "config.json", "--steps", "6"]
    words += ["--batch-size", "7", "--max-length", "24", "--save-every", "2", "--measure-every", "3", *more]
    return [str(word) for word in words]


def finetune(folder, run):
    words = ["finetune", folder / "train.tsv", "-o", folder / run, "--task", "classify", "--model", folder / "small"]
    return [str(word) for word in (*words, "--epochs", "2", "--batch-size", "6")]


def start(size, *words, together=True):
    """Start some processes with these words after ``python -m mpi4py``, bound to the loopback interface."""
    environment = os.environ | {
        "HYDRA_IFACE": "lo",
        "UCX_NET_DEVICES": "lo",
        "FI_PROVIDER": "tcp",
        "FI_TCP_IFACE": "lo",
    }
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    command = [MPIEXEC, "-n", str(size), sys.executable, *(["-m", "mpi4py"] if together else []), *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(process):
    """Wait for the end; return the exit status and the lines of both streams."""
    try:
        out, err = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out.splitlines(), err.splitlines()


def run(size, *words, **options):
    return ended(start(size, *words, **options))


def ours(lines):
    return [line for line in lines if line.startswith("nezha-np")]


def assert_same_model(found, expected):
    found, expected = nz.load(found), nz.load(expected)
    largest = max(float(np.abs(array).max()) for array in expected.values())
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5 * largest, err_msg=name)


def failing(size, rank, step, how, *words):
    return start(size, str(HERE / "failing_process.py"), str(rank), str(step), how, *words)


def test_processes_pretrain_as_one_does_and_process_0_alone_prints(mpiexec, folder):
    status, out, err = run(2, "-m", "nezha_np", *pretrain(folder, "of 2"))
    assert status == 0, err
    assert out == [f"{folder / 'of 2'}: the model after 6 steps"]
    assert [line.partition(":")[0] for line in err] == ["step 3", "step 6"], err
    assert_same_model(folder / "of 2", folder / "alone")
    assert not (folder / "of 2" / "run.lock").exists()
    # Killed and started again in as many processes, the run ends with the same bits.
    assert ended(failing(2, 0, 3, "kill", *pretrain(folder, "again")))[0] != 0
    assert run(2, "-m", "nezha_np", *pretrain(folder, "again"))[0] == 0
    model, again = ((folder / name / "model.safetensors").read_bytes() for name in ("of 2", "again"))
    assert again == model


def test_a_run_whose_processes_die_and_raise_goes_on_with_another_number_of_them(mpiexec, folder):
    words = pretrain(folder, "failed")
    status, _, err = ended(failing(3, 1, 3, "kill", *words))
    assert status != 0
    assert not ours(err)  # the launcher says it
    assert sorted(path.name for path in (folder / "failed").glob("*step-*")) == ["step-00000002"]
    status, _, err = ended(failing(2, 1, 5, "raise", *words))
    assert status == 2
    (message,) = ours(err)
    assert message.startswith("nezha-np: process 1 of 2, on ") and message.endswith("out of memory: too much")
    status, out, err = run(3, "-m", "nezha_np", *words)
    assert (status, len(out)) == (0, 1), err
    assert_same_model(folder / "failed", folder / "alone")
    steps = [json.loads(line)["step"] for line in (folder / "failed" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 6]


def test_processes_finetune_as_one_does(mpiexec, folder, capsys):
    assert main(finetune(folder, "classes alone")) == 0
    alone = capsys.readouterr().err.splitlines()
    status, out, err = run(2, "-m", "nezha_np", *finetune(folder, "classes"))
    assert (status, len(out)) == (0, 1), err
    assert [line.partition(":")[0] for line in err] == [line.partition(":")[0] for line in alone]
    assert_same_model(folder / "classes", folder / "classes alone")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--optimizer", "adam"], "nezha-np pretrain: argument --optimizer: invalid choice: 'adam'"),
        (["--batch-size", "9999"], "nezha-np: --batch-size: expected at most"),
    ],
)
def test_a_wrong_option_is_said_once(mpiexec, folder, more, message):
    status, out, err = run(3, "-m", "nezha_np", *pretrain(folder, "wrong", *more))
    assert (status, out, len(ours(err))) == (2, [], 1), err
    assert message in ours(err)[0]


def test_processes_without_mpi4py_in_front_are_told_once_how_to_start(mpiexec, folder):
    status, out, err = run(2, "-m", "nezha_np", *pretrain(folder, "wrong start"), together=False)
    assert (status, out, len(ours(err))) == (2, [], 1), err
    assert "start them by mpiexec -n N python -m mpi4py -m nezha_np" in ours(err)[0]
    assert not (folder / "wrong start").exists()


@pytest.mark.parametrize(("number", "rank"), [(signal.SIGINT, 0), (signal.SIGTERM, 1)])
def test_a_signal_to_mpiexec_ends_all_processes_with_one_message(mpiexec, folder, number, rank):
    run_folder = folder / f"signal {rank}"
    process = failing(2, rank, 3, "wait", *pretrain(folder, run_folder.name))
    seen = []
    while process.poll() is None and "waiting" not in "".join(seen):
        seen.append(process.stderr.readline())
    process.send_signal(number)
    status, _, err = ended(process)
    assert status == 128 + number
    assert len(ours(err)) == 1 and ours(err)[0].endswith("interrupted"), err
    assert [path.name for path in run_folder.glob("*step-*")] == ["step-00000002"]


@pytest.mark.parametrize("size", [2, 3])
def test_in_float64_processes_equal_one_to_1e_12(mpiexec, size, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import pytest\n"
        "from test_data_parallel import train_as, assert_equal\n"
        "from nezha_np.training.data_parallel import ALONE\n"
        "from nezha_np.training.mpi import mpi_processes\n"
        "processes = mpi_processes()\n"
        "assert processes.size == int(sys.argv[2])\n"
        "expected = train_as(ALONE, 'float64')\n"
        "assert_equal(train_as(processes, 'float64'), expected, 1e-12)\n"
        "strict = pytest.importorskip('array_api_strict')\n"  # stands in for a GPU: summed on the host
        "on_device = lambda array: strict.asarray(array, device=strict.Device('device1'))\n"
        "assert_equal(train_as(processes, 'float64', on_device), expected, 1e-12)\n"
    )
    (tmp_path / "equal.py").write_text(code, encoding="utf-8")
    status, _, err = run(size, str(tmp_path / "equal.py"), str(HERE), str(size))
    assert status == 0, err


def test_after_the_help_all_processes_end_well_and_mpi_has_nothing_to_warn_of(mpiexec):
    status, out, err = run(2, "-m", "nezha_np", "pretrain", "--help")
    assert status == 0 and err == [] and len([line for line in out if line.startswith("usage: nezha-np pretrain")]) == 1


def test_what_was_prepared_for_several_processes_is_ended_after_the_help_and_not_after_an_error(monkeypatch):
    ended_well = []
    monkeypatch.setattr("nezha_np.cli.end_together", lambda: ended_well.append(True))
    for words, status, calls in ((["finetune", "--help"], 0, 1), (["finetune", "--task", "guess"], 2, 1)):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert (stop.value.code or 0) == status and len(ended_well) == calls
