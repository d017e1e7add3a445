"""A lock on an open file. The system itself takes it away when the process ends, however it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

# Windows lets no other process read a byte that is locked: so this one lies behind the data, where SQLite has its lock.
PLACE = 2**30


def try_lock(file: BinaryIO, path: Path) -> bool | None:
    """Lock a file, if no other process has locked it; closing the file unlocks it.

    Parameters
    ----------
    file : binary file
        The file, opened for writing without a buffer.
    path : Path
        Its path.

    Returns
    -------
    bool or None
        True: it is locked. False: another process has locked it, or has moved it away or removed it since it was
        opened. None: neither can be said, because the system or its file system has no locks.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "lock"
    >>> with path.open("wb", buffering=0) as first, path.open("wb", buffering=0) as second:
    ...     try_lock(first, path), try_lock(second, path)
    (True, False)
    """
    try:
        import fcntl
    except ImportError:  # Windows has another module
        return _try_lock_on_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return None
    # Between our opening and our locking another process may have unlocked the file and moved it away. On Windows it
    # could not: no file moves there while it is open.
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())


def _try_lock_on_windows(file: BinaryIO) -> bool | None:
    try:
        import msvcrt
    except ImportError:
        return None
    position = file.tell()
    file.seek(PLACE)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # on Windows alone
    except PermissionError:
        return False
    except OSError:  # the file system has no locks
        return None
    finally:
        file.seek(position)
    return True
