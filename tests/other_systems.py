"""A stand-in for Windows: a file that is open or mapped cannot be moved, replaced or removed, and there is no fcntl."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

# Modules of Unix alone.
UNIX = ("fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")


def is_in_use(path: object) -> bool:
    """Say whether this process has a file, or one in a folder, open or mapped."""
    text = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.basename(path))
    used = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the descriptor of iterdir itself
            used.append(os.readlink(descriptor))
    used += [line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines()]
    return any(other == text or other.startswith(text + os.sep) for other in used)


def forbid_changes_of_files_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have moving, replacing and removing refused as on Windows."""
    if not os.path.exists("/proc/self/maps"):
        pytest.skip("this system has no /proc, which says what is open")

    def guarded(change, paths):
        def guard(*arguments, dir_fd=None, **options):
            full = [
                os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path) if dir_fd else path for path in arguments
            ]
            for path in full[:paths]:
                if is_in_use(path):
                    raise PermissionError(13, "The process cannot access the file: another process uses it", str(path))
            return change(*full, **options)

        return guard

    for name, paths in (("replace", 2), ("rename", 2), ("unlink", 1), ("remove", 1)):
        monkeypatch.setattr(os, name, guarded(getattr(os, name), paths))


def locks_of_windows() -> ModuleType:
    """Make a module msvcrt that locks a byte as Windows does, as far as two files of one process see it."""
    import fcntl

    module = ModuleType("msvcrt")
    module.LK_NBLCK = 2

    def locking(descriptor: int, mode: int, size: int) -> None:
        assert (mode, size) == (module.LK_NBLCK, 1) and os.lseek(descriptor, 0, os.SEEK_CUR) < 2**31
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    module.locking = locking
    return module


@pytest.fixture(params=["msvcrt", "no locks"])
def windows(request, monkeypatch):
    """Behave as Windows does with files: with its locks, and on a file system that has none."""
    locks = locks_of_windows()
    forbid_changes_of_files_in_use(monkeypatch)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", locks if request.param == "msvcrt" else None)
    return request.param
