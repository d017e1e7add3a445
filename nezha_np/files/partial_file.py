"""A file that takes long to write: it appears under its name once it is complete, and can be resumed until then.

While ``OUT`` is written, and after an interruption, there are two files next to it:

- ``OUT.partial`` holds the rows;
- ``OUT.partial.json``, the saved state, holds how many rows are done and how many bytes they take, the settings that
  they were made with, and a hash of the input that they were made from.

A run with other settings does not append to these rows. About once a second the file is saved: first the rows are
flushed to the disk, then the state is replaced in one step. So the state never counts a row that is not on the disk;
bytes that it does not count are cut off when the file is resumed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from nezha_np.files.atomic import check_target, replace
from nezha_np.files.lock import try_lock

SECONDS = 1.0  # at least, between two saves


@dataclasses.dataclass(frozen=True)
class _Done:
    """How far the file is: one object, replaced in one step, because an interruption may come between any two steps."""

    rows: int
    bytes: int
    digest: str | None


class PartialFile:
    """The partial file of `target`, opened to begin it or to resume it.

    Parameters
    ----------
    target : Path
        Where the complete file belongs.
    settings : mapping of str to (str, int, bool or None)
        Everything besides the input that the bytes of a row depend on.
    header : bytes
        The beginning of the file; `finish` replaces it by another of the same length.
    force : bool
        Whether `target` may exist already; `finish` then replaces it.
    restart : bool
        Whether to throw away the rows that an earlier run has left behind.

    Attributes
    ----------
    rows : int
        How many rows are written.
    saved_rows : int
        How many of them are saved: a later run finds them, whatever happens to this one.
    digest : str or None
        The hash of the input up to the last row, as it was given to `append`.

    Raises
    ------
    OSError
        If `target` exists, cannot be a file, or is being written by another run.
    ValueError
        If an earlier run has left rows that were made with other settings, or a file that is no partial file.

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
        except BaseException:  # what an earlier run has left stays as it is
            self._file.close()
            raise
        try:
            if not self._done.rows:
                self._save()  # before the first row: rows without saved state cannot be resumed
                self._file.truncate(0)
                _write_all(self._file, header)
            self._file.truncate(self._done.bytes)
            self._file.seek(self._done.bytes)
        except BaseException:
            self.close()
            raise

    @property
    def rows(self) -> int:
        """How many rows are written."""
        return self._done.rows

    @property
    def digest(self) -> str | None:
        """The hash of the input up to the last row, as it was given to `append`."""
        return self._done.digest

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, data: bytes, *, rows: int, digest: str) -> None:
        """Append rows; save them if the last save is a second ago.

        Parameters
        ----------
        data : bytes
            The rows.
        rows : int
            How many they are.
        digest : str
            A hash of the input up to the last of them.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        _write_all(self._file, data)
        self._done = _Done(self._done.rows + rows, self._done.bytes + len(data), digest)
        if time.monotonic() - self._saved_at >= SECONDS:
            self._save()

    def close(self) -> None:
        """Save the rows, so that a later run can resume; a file without rows is removed.

        Where saving fails, on a full disk for example, `saved_rows` says how many rows were saved before.
        """
        if self._file.closed:
            return
        with self._file, contextlib.suppress(OSError):
            if self.rows:
                self._save()
            else:
                self._while_open(self.path.unlink)
                self.state_path.unlink(missing_ok=True)

    def finish(self, header: bytes) -> None:
        """Replace the header and move the file to its place.

        Parameters
        ----------
        header : bytes
            The final header, as long as the first one.

        Raises
        ------
        OSError
            If it cannot be written, or there is a file at its place by now that may not be replaced.
        """
        self._file.seek(0)
        _write_all(self._file, header)
        self._save()  # all rows: if the file cannot be moved to its place, none is lost
        check_target(self.target, force=self._force)  # another file may have appeared there in the meantime
        self._while_open(lambda: replace(self.path, self.target))
        self.state_path.unlink(missing_ok=True)
        self._file.close()

    def _while_open(self, change: Callable[[], object]) -> None:
        """Move or remove the file while it is open and locked, so that no other run can begin to write it before.

        Windows refuses that. Then the file is closed before: there another run that opens it now only has the change
        refused once more.
        """
        try:
            change()
        except PermissionError:
            self._file.close()
            change()

    def _save(self) -> None:
        done = self._done
        os.fsync(self._file.fileno())
        state = {"settings": self._settings, "rows": done.rows, "bytes": done.bytes, "input": done.digest}
        new = self.state_path.with_name(self.state_path.name + ".new")
        try:
            with new.open("w", encoding="utf-8", newline="\n") as file:
                json.dump(state, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            replace(new, self.state_path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self.saved_rows, self._saved_at = done.rows, time.monotonic()

    def _read_state(self) -> None:
        """Read the state that an earlier run has saved, and check that this run can resume it."""
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
    """Open a file for writing and lock it, so that no other run writes it at the same time."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
    try:
        if try_lock(file, path) is False:
            raise BlockingIOError(f"{path}: expected to be the only one to write it, but another run does")
    except BaseException:
        file.close()
        raise
    return file


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Write all bytes to an unbuffered file, which may take fewer at a time.

    A buffer would try to write the rest once more when the file is closed, and would fail once more.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
