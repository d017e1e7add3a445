"""Files that appear under their names only once they are complete: a failure leaves what was there before."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

from nezha_np.files.temporary import MOVING, PREFIX, UNDOING, temporary_folder

WAITS = (0.03, 0.1, 0.2)  # seconds between two tries to replace a file


def check_target(target: Path, *, force: bool) -> None:
    """Refuse to write a file where something would be lost.

    Parameters
    ----------
    target : Path
        The file that is to be written.
    force : bool
        Whether it may replace a file.

    Raises
    ------
    FileNotFoundError
        If the folder of `target` does not exist.
    FileExistsError
        If `target` is a file and `force` is False, or it is something other than a file.

    Examples
    --------
    >>> check_target(Path("/"), force=True)
    Traceback (most recent call last):
    ...
    FileExistsError: /: expected a new file, found something that is no file
    """
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: expected a folder to write into, found no {target.parent}")
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{target}: expected a new file, found something that is no file")
    if target.exists() and not force:
        raise FileExistsError(f"{target}: expected a new file, found one; --force replaces it")


def resolve_target(target: Path, *, force: bool) -> Path:
    """Check a file that is to be written, and follow a symbolic link, so that the link itself is not replaced.

    Parameters
    ----------
    target : Path
        The file that is to be written.
    force : bool
        Whether it may replace a file.

    Returns
    -------
    Path
        `target`, or the file that the link leads to.

    Raises
    ------
    FileNotFoundError, FileExistsError
        As `check_target` does.

    Examples
    --------
    >>> resolve_target(Path("new.npy"), force=False).name
    'new.npy'
    """
    check_target(target, force=force)
    return _behind_links(target) if target.is_symlink() else target


def _behind_links(link: Path) -> Path:
    """Return what a link leads to in the end, which need not be there."""
    try:
        found = link.resolve()
    except RuntimeError:  # until Python 3.13: links that lead back to themselves
        found = link
    if found.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(link))
    return found


def write_atomically(folder: Path, write: Callable[[Path], object], *, new: Collection[str] = ()) -> None:
    """Write files into a temporary folder, and move them to their places once all are complete.

    Each file is moved in one step, so that a reader finds the old file or the new one, and never half of one. Either
    all files are moved, or none: where one cannot be, those before it are put back. Where a run is killed between two
    of these steps, `nezha_np.files.temporary.check_whole` says so, and the next run that writes there ends what it
    began.

    Parameters
    ----------
    folder : Path
        Where the files belong; it is made if it does not exist.
    write : callable
        Is called with the path of an empty folder, and writes the files into it, or into folders that it makes there.
    new : collection of str
        The names of files that replace nothing. Of several runs that write one at the same time the first has written
        it, and the others end with an error. Every other file is replaced: there the last run has written it.

    Raises
    ------
    FileExistsError
        If a file of `new` is there by now; then all files are as they were.
    OSError
        If a file cannot be written or moved; then all files are as they were, and no folder is left that was not there.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> write_atomically(folder, lambda temporary: (temporary / "note.txt").write_text("done"))
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Inside `folder`, because files can be moved in one step only within one file system.
        with temporary_folder(folder) as temporary:
            try:
                write(temporary / "files")
            except OSError as error:
                if error.errno is not None and error.filename is None:  # a failed write names no file
                    error.filename = max((temporary / "files").iterdir(), key=os.path.getmtime, default=folder)
                raise
            _move_all(temporary / "files", folder, before=temporary / "before", new=new)
    except BaseException as error:
        for place in missing:
            with contextlib.suppress(OSError):  # it holds something by now
                place.rmdir()
        if isinstance(error, OSError):
            _name_target(error, folder)
        raise


def _move_all(source: Path, folder: Path, *, before: Path, new: Collection[str]) -> None:
    """Move all files below a folder to the same places below another one, or none; `before` is an empty folder."""
    source.stat()  # it raises where the folder is gone, in which rglob would find nothing
    # The largest last: it is not copied, and it is the one that other programs have open.
    files = [file for file in source.rglob("*") if not file.is_dir()]
    names = [file.relative_to(source) for file in sorted(files, key=lambda file: (file.stat().st_size, str(file)))]
    made: list[Path] = []
    moving, undoing = before.with_name(MOVING), before.with_name(UNDOING)
    try:
        if len(names) > 1:
            moving.touch()
        for name in names:
            target = folder / name
            for place in [folder / inner for inner in reversed(name.parents) if not (folder / inner).exists()]:
                place.mkdir()
                made.append(place)
            if name.as_posix() in new:
                _move_new(source / name, target)
                continue
            if name != names[-1] and os.path.lexists(target):
                (before / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(target, before / name, follow_symlinks=False)
            _replace(source / name, target)
        moving.unlink(missing_ok=True)
    except BaseException:
        if moving.exists():
            moving.replace(undoing)
        # Linked and not yet removed here, where it was interrupted between the two, is moved too.
        moved = [name for name in names if not (source / name).exists() or _are_one(source / name, folder / name)]
        for name in moved if len(moved) < len(names) else []:
            if os.path.lexists(before / name):
                (before / name).replace(folder / name)
            else:
                (folder / name).unlink()
        for place in reversed(made) if len(moved) < len(names) else []:
            place.rmdir()
        undoing.unlink(missing_ok=True)
        raise


def replace(file: Path, target: Path) -> None:
    """Move a file to where another may be, in one step.

    Windows refuses it while another program reads one of them, as programs that look for viruses do as soon as a file
    is written. So it is tried again for a third of a second.

    Parameters
    ----------
    file : Path
        The file.
    target : Path
        Its new path.

    Raises
    ------
    OSError
        If it cannot be moved.

    Examples
    --------
    >>> import tempfile
    >>> old, new = Path(tempfile.mkdtemp()) / "old", Path(tempfile.mkdtemp()) / "new"
    >>> old.touch()
    >>> replace(old, new)
    >>> old.exists(), new.exists()
    (False, True)
    """
    for wait in WAITS:
        try:
            file.replace(target)
        except PermissionError:
            time.sleep(wait)
        else:
            return
    file.replace(target)


def _replace(file: Path, target: Path) -> None:
    try:
        replace(file, target)
    except PermissionError as error:
        if not target.is_file():
            raise
        raise PermissionError(
            f"{target}: expected a file that can be replaced, but the system refuses it ({error.strerror}); nothing "
            "was changed. On Windows a file cannot be replaced while it is open, and one that weights were loaded from "
            "is open as long as they are in use: write to another place, or close what uses it"
        ) from None


def _move_new(file: Path, target: Path) -> None:
    """Move a file to where none may be, in one step: of two runs only one does it."""
    try:
        os.link(file, target)  # it replaces nothing, as moving does
    except FileExistsError:
        pass
    except (OSError, AttributeError):  # a file system, or a system, without links
        if not os.path.lexists(target):
            replace(file, target)
            return
    else:
        file.unlink()
        return
    raise FileExistsError(f"{target}: expected a new file, found one that another run has written in the meantime")


def _are_one(file: Path, target: Path) -> bool:
    return target.exists() and target.samefile(file)


def _name_target(error: OSError, folder: Path) -> None:
    """Have an error name the files that were to be written, and not the temporary ones, which are gone."""
    if error.errno is None:  # it has a message of its own
        return

    def named(found: object) -> str:
        path = Path(os.fsdecode(found)) if isinstance(found, str | bytes | os.PathLike) else folder
        hidden = [index for index, part in enumerate(path.parts) if part.startswith(PREFIX)]
        return str(folder.joinpath(*path.parts[hidden[-1] + 2 :]) if hidden else path)  # 2: with ``files`` in it

    second = error.filename2
    error.filename = named(error.filename)
    del error.filename2
    if second is not None and named(second) != error.filename:
        error.filename2 = named(second)
