"""Measuring a process from outside and from within: its time, and its peak memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# The environment variables that thread pools read when they start.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


class Finished(NamedTuple):
    """What was measured of a process that has ended."""

    printed: str
    seconds: float
    peak_mb: float
    errors: str  # what it wrote to stderr


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a new process: the number of threads of each library, and no access to a model hub.

    Modules are compiled once and kept, as those of an installed package are, whatever this process was told.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"HF_HUB_OFFLINE": "1"}


def run_python(code: str, arguments: list[str], threads: int, options: Sequence[str] = ()) -> Finished:
    """Run Python code in a process of its own; `options` are Python's.

    The peak memory that the system reports for a child is at least the memory of its parent when it was started. So the
    parent must be small, and do anything that takes much memory in another process too.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        start = time.perf_counter()
        command = [sys.executable, *options, "-c", code, *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, env=environment(threads))
        errors = process.stderr.read().decode(errors="replace")  # until the process ends
        process.stderr.close()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)  # so that nothing waits for the process again
        output.seek(0)
        if process.returncode:
            raise SystemExit(f"a process ended with {process.returncode}:\n{errors}")
        return Finished(output.read(), seconds, usage.ru_maxrss * 1024 / 1e6, errors)


def save_random_nezha(folder: str, threads: int, **config: int) -> None:
    """Draw a NEZHA and save it, in a process of its own: this one stays small, and frees no large blocks."""
    code = "import json, sys, nezha_np as nz; nz.init(nz.NezhaConfig(**json.loads(sys.argv[2]))).save(sys.argv[1])"
    run_python(code, [folder, json.dumps(config)], threads)


def memory_mb() -> float:
    """Return the memory that this process uses now."""
    return _status("VmRSS")


def peak_mb() -> float:
    """Return the peak memory of this process; not ru_maxrss, which starts with the peak of its parent."""
    return _status("VmHWM")


def peak_of(pid: int) -> float | None:
    """Return the peak memory of a process, or None if there is none of this number."""
    try:
        return _status("VmHWM", pid)
    except (OSError, TypeError):  # it has ended
        return None


def _status(name: str, pid: int | str = "self") -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024 / 1e6
