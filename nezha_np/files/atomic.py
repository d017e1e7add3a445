"""Files that are written beside their places and moved there: a failure leaves what was there before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path


def check_target(target: Path, *, force: bool) -> None:
    """Refuse to write where something is that would be lost.

    Raises
    ------
    FileNotFoundError
        If there is no folder for it.
    FileExistsError
        If there is a file and `force` is not given, or something other than a file.

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
    """Refuse as `check_target` does, and return what is to be written: the file that a link leads to, not the link.

    Examples
    --------
    >>> resolve_target(Path("new.npy"), force=False).name
    'new.npy'
    """
    check_target(target, force=force)
    return target.resolve() if target.is_symlink() else target


def write_atomically(folder: Path, write: Callable[[Path], object]) -> None:
    """Write files beside their places and move them there once all are written: a failure leaves what was there.

    Parameters
    ----------
    folder : Path
        Where the files belong; it is made if need be.
    write : callable
        Is given the path of an empty folder to write them into.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> write_atomically(folder, lambda beside: (beside / "note.txt").write_text("done"))
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".nezha-np-", dir=folder) as beside:
        write(Path(beside))
        for file in sorted(Path(beside).iterdir()):
            file.replace(folder / file.name)
