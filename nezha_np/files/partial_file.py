"""A file that takes long to write: it grows beside its place, is moved there once it is complete, and can be resumed.

Beside ``OUT`` stand, while it is written and after an interruption, ``OUT.partial`` with the rows and
``OUT.partial.json``, which says how many of them are done, what they were made with, and a hash of the input they were
made of. Nothing is added to rows that were made with anything else. What is written is saved about once a second:
first the rows, then, in one step, the file that says they are there. So it never promises a row that is not there, and
bytes beyond what it promises are cut off.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from nezha_np.files.atomic import check_target

SECONDS = 1.0  # between two times of saving


@dataclasses.dataclass(frozen=True)
class _Done:
    """How far a file is, in one piece, because an interruption may come between any two steps."""

    rows: int
    bytes: int
    digest: str | None


class PartialFile:
    """Open the partial file of `target`, to begin it or to go on with it.

    Parameters
    ----------
    target : Path
        Where the complete file belongs.
    settings : mapping of str to (str, int, bool or None)
        All that the bytes of a row depend on besides the input.
    header : bytes
        What the file begins with; `finish` replaces it by as many bytes.
    force : bool
        Whether `target` may be there already; it is replaced by `finish`.
    restart : bool
        Whether to throw away what an earlier run has left.

    Attributes
    ----------
    rows : int
        How many rows are written.
    saved_rows : int
        How many of them a later run will find, whatever happens to this one.
    digest : str or None
        What came with the last of them: a hash of the input so far.

    Raises
    ------
    OSError
        If `target` exists, is no place for a file, or another run is writing it.
    ValueError
        If an earlier run has left rows that were made with other settings, or something that is no partial file.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "rows"
    >>> with PartialFile(target, {"size": 1}, header=b"0:") as file:
    ...     file.append(b"a", rows=1, digest="…")
    >>> target.exists()
    False
    >>> with PartialFile(target, {"size": 1}, header=b"0:") as file:
    ...     file.append(b"b", rows=1, digest="…")
    ...     file.finish(b"2:")
    >>> target.read_bytes()
    b'2:ab'
    """

    def __init__(
        self,
        target: Path,
        settings: Mapping[str, Any],
        *,
        header: bytes,
        force: bool = False,
        restart: bool = False,
    ) -> None:
        check_target(target, force=force)
        self.target = target
        self.path = target.with_name(target.name + ".partial")
        self.state_path = target.with_name(target.name + ".partial.json")
        self._done = _Done(0, len(header), None)
        self.saved_rows = 0
        self._settings, self._header, self._force = dict(settings), header, force
        self._saved_at = -SECONDS
        self._file = _open_alone(self.path)
        try:
            if not restart:
                self._read_state()
            if not self._done.rows:
                self._save()  # before the first byte: rows without a word on what they are are nobody's
                self._file.truncate(0)
                _write_all(self._file, header)
            self._file.truncate(self._done.bytes)
            self._file.seek(self._done.bytes)
        except BaseException:
            self._file.close()
            raise

    @property
    def rows(self) -> int:
        """How many rows are written."""
        return self._done.rows

    @property
    def digest(self) -> str | None:
        """What came with the last of them: a hash of the input so far."""
        return self._done.digest

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, data: bytes, *, rows: int, digest: str) -> None:
        """Add rows; `digest` is a hash of the input up to them."""
        _write_all(self._file, data)
        self._done = _Done(self._done.rows + rows, self._done.bytes + len(data), digest)
        if time.monotonic() - self._saved_at >= SECONDS:
            self._save()

    def close(self) -> None:
        """Save what is written, for a later run to go on from, or remove what has no row yet.

        Where that fails, on a full disk for example, `saved_rows` says how many rows were saved before.
        """
        if self._file.closed:
            return
        with self._file, contextlib.suppress(OSError):
            if self.rows:
                self._save()
            else:
                self.path.unlink()
                self.state_path.unlink(missing_ok=True)

    def finish(self, header: bytes) -> None:
        """Replace the header and move the file into its place."""
        self._file.seek(0)
        _write_all(self._file, header)
        os.fsync(self._file.fileno())
        check_target(self.target, force=self._force)  # which may have come in the meantime
        self.path.replace(self.target)
        self.state_path.unlink(missing_ok=True)
        self._file.close()

    def _save(self) -> None:
        done = self._done
        os.fsync(self._file.fileno())
        state = {"settings": self._settings, "rows": done.rows, "bytes": done.bytes, "input": done.digest}
        beside = self.state_path.with_name(self.state_path.name + ".new")
        try:
            with beside.open("w", encoding="utf-8") as file:
                json.dump(state, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.state_path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        self.saved_rows, self._saved_at = done.rows, time.monotonic()

    def _read_state(self) -> None:
        """Take up what an earlier run has left, if it goes with this one."""
        size = os.fstat(self._file.fileno()).st_size
        if not size:
            return
        try:
            state = json.loads(self.state_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(
                f"{self.path}: expected {self.state_path.name} beside it, which says what it holds, found none; "
                f"--restart overwrites it"
            ) from None
        except (ValueError, RecursionError):
            state = None
        match state:
            case {"settings": dict(settings), "rows": int(rows), "bytes": int(length), "input": str() | None as digest}:
                pass
            case _:
                raise ValueError(
                    f"{self.state_path}: expected the state of a partial file, got something else; "
                    f"--restart begins anew"
                )
        if not rows:
            return
        for key, value in self._settings.items():
            if settings.get(key) != value:
                raise ValueError(
                    f"{self.path}: expected rows made with {key} {value!r}, got {rows:,} made with "
                    f"{settings.get(key)!r}; --restart throws them away"
                )
        if size < length:
            raise ValueError(f"{self.path}: expected at least {length} bytes, got {size}; --restart begins anew")
        self._done, self.saved_rows = _Done(rows, length, digest), rows


def _open_alone(path: Path) -> BinaryIO:
    """Open a file to write to it, which no other run does at the same time."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
    try:
        _lock(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # a system without these locks
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run may have finished between our opening and locking: then this is its complete file.
        alone = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
    except BlockingIOError:
        alone = False
    except OSError:  # a file system without locks
        return
    if not alone:
        raise BlockingIOError(f"{path}: expected to be the only one to write it, but another run does")


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Write without a buffer, which would try once more, and fail once more, when the file is closed."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
