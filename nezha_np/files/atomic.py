"""Files that appear under their names only once they are complete: a failure leaves what was there before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path


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
    return target.resolve() if target.is_symlink() else target


def write_atomically(folder: Path, write: Callable[[Path], object]) -> None:
    """Write files into a temporary folder, and move them to their places once all are complete.

    Each file is moved in one step, so that a reader finds the old file or the new one, and never half of one.

    Parameters
    ----------
    folder : Path
        Where the files belong; it is made if it does not exist.
    write : callable
        Is called with the path of an empty folder, and writes the files into it.

    Raises
    ------
    OSError
        If a file cannot be written; then none is moved.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> write_atomically(folder, lambda temporary: (temporary / "note.txt").write_text("done"))
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Inside `folder`, because files can be moved in one step only within one file system.
    with tempfile.TemporaryDirectory(prefix=".nezha-np-", dir=folder) as temporary:
        write(Path(temporary))
        for file in sorted(Path(temporary).iterdir()):
            file.replace(folder / file.name)
