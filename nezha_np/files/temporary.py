"""Temporary folders beside the files that are written: what a killed run leaves there, the next run removes.

A temporary folder is called ``.nezha-np-…`` and holds ``lock``, ``files`` and ``before``. While its run lives, ``lock``
is locked. A number of a process would say less: numbers are used again, and a shared folder is written by several
machines. Nor does the lock say all: some network folders keep locks to each machine. So ``lock`` holds the machine's
name, once it is locked. A folder is removed if this machine made it and it is locked no more; or if nobody is seen to
lock it, and nothing in it was changed for a day.

While several files are moved from it, one after another, it holds a mark. Where a run was killed then, some files are
new and others old: readers refuse them, and the next run that writes there moves the others first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nezha_np.files.lock import try_lock

PREFIX = ".nezha-np-"
LOCK = "lock"
MOVING, UNDOING = "moving", "undoing"  # marks: ``files`` are moved to their places; those of ``before`` are moved back
DAY = 86400.0  # seconds

# Those of this process, which are in use: a network folder may give a process a lock that the process itself has.
_own: set[Path] = set()


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder in a folder, and remove it at the end; remove those of runs that were killed.

    Parameters
    ----------
    parent : Path
        A folder.

    Yields
    ------
    Path
        The new folder; it holds two empty ones, ``files`` and ``before``.

    Raises
    ------
    OSError
        If it cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> parent = Path(tempfile.mkdtemp())
    >>> with temporary_folder(parent) as folder:
    ...     sorted(path.name for path in folder.iterdir())
    ['before', 'files', 'lock']
    >>> list(parent.iterdir())
    []
    """
    for other in sorted(parent.glob(f"{PREFIX}*")):
        if other.absolute() not in _own:
            _remove_abandoned(other)
    folder = parent / f"{PREFIX}{os.urandom(8).hex()}"
    folder.mkdir()  # not tempfile.mkdtemp: on Windows its files are their owner's alone, also after they are moved
    own = folder.absolute()
    _own.add(own)
    try:
        with (folder / LOCK).open("xb", buffering=0) as lock:
            if try_lock(lock, folder / LOCK):
                lock.write(_machine())  # after locking: whoever reads this machine's name can ask for the lock
            for name in ("files", "before"):
                (folder / name).mkdir()
            yield folder
    finally:
        _own.discard(own)
        _remove(folder)


def check_whole(folder: Path) -> None:
    """Check that no run was killed, or is at work, while it moved several files into a folder.

    Parameters
    ----------
    folder : Path
        The folder.

    Raises
    ------
    ValueError
        If one was; the message says what to do.

    Examples
    --------
    >>> check_whole(Path("no_such_folder"))
    """
    for temporary in folder.glob(f"{PREFIX}*"):
        if left := _to_be_moved(temporary):
            raise ValueError(
                f"{folder}: expected files that belong together, found a run that is moving them, or was killed while "
                f"it did: if none is running, write them again, or move {left[0].name} and what else is in "
                f"{left[0].parent} into {folder}, and remove {temporary}"
            )


def _to_be_moved(temporary: Path) -> list[Path]:
    """List the files that a run has begun to move, and has not moved yet."""
    for mark, place in ((UNDOING, "before"), (MOVING, "files")):
        if (temporary / mark).exists():
            return sorted(path for path in (temporary / place).rglob("*") if not path.is_dir())
    return []


def _finish(temporary: Path) -> None:
    """Move the files that a killed run has not moved."""
    for file in _to_be_moved(temporary):
        target = temporary.parent.joinpath(*file.relative_to(temporary).parts[1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)


def _remove_abandoned(folder: Path) -> None:
    """Remove a temporary folder whose run has ended. Nothing that goes wrong with it stops the run that looks."""
    with contextlib.suppress(OSError):
        old = _age(folder) > DAY
        if (folder / LOCK).exists():
            lock: BinaryIO
            with (folder / LOCK).open("r+b", buffering=0) as lock:
                ours = lock.read() == _machine()  # read before locking, as it is written after
                locked = try_lock(lock, folder / LOCK)
                if not (ours and locked) and not (old and locked is not False):
                    return
                _finish(folder)
                _remove_files(folder)
        elif not old:  # its run is just making it, or was killed while it did
            return
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a temporary folder, the lock last: if this is interrupted, the next run sees that its run has ended."""
    with contextlib.suppress(OSError):
        _remove_files(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_files(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path, ignore_errors=True)


def _age(folder: Path) -> float:
    """Return for how many seconds nothing in a folder was changed."""
    return time.time() - max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _machine() -> bytes:
    import socket  # here, because most runs write nothing

    return socket.gethostname().encode(errors="replace")
