"""Files that weights are mapped from: whether they are still what was loaded.

A mapped file is read whenever its tensors are used. If another program writes into it, the tensors are other numbers;
if it is cut short, the system ends the process that reads what is gone. So each pass first compares the size of the
file, and the time of its last change, with what they were at `load`, which takes some microseconds. A file that was
replaced or removed is another one, or none: the mapping keeps the old one, and nothing is wrong.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from nezha_np.narrow.matrix import NarrowMatrix


class MappedFile(NamedTuple):
    """A file, and its status when it was loaded."""

    path: Path
    status: os.stat_result


_loaded: WeakKeyDictionary[mmap.mmap, MappedFile] = WeakKeyDictionary()


def mapping_under(array: Any) -> mmap.mmap | None:
    """Return the mapped file in which the numbers of an array lie, if they lie in one.

    Parameters
    ----------
    array : array
        Of any library.

    Returns
    -------
    mmap or None
        The mapping.

    Examples
    --------
    >>> mapping_under(np.zeros(3)) is None
    True
    """
    base: object = array.kept if isinstance(array, NarrowMatrix) else array
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    return base if isinstance(base, mmap.mmap) else None


def remember(file: MappedFile, arrays: Iterable[np.ndarray]) -> None:
    """Remember from which file arrays are mapped.

    Parameters
    ----------
    file : MappedFile
        The file, with its status from before it was read.
    arrays : iterable of array
        Its tensors, some of which may be copies.

    Examples
    --------
    >>> remember(MappedFile(Path("x"), os.stat(".")), [np.zeros(3)])  # not mapped: nothing to remember
    """
    for mapping in filter(None, map(mapping_under, arrays)):
        _loaded[mapping] = file


def files_under(tensors: Mapping[str, Any]) -> tuple[MappedFile, ...]:
    """List the files that `load` mapped and that tensors lie in.

    Parameters
    ----------
    tensors : mapping of str to array
        The tensors.

    Returns
    -------
    tuple of MappedFile
        Each once.

    Examples
    --------
    >>> files_under({"x": np.zeros(3)})
    ()
    """
    mappings = {id(found): found for array in tensors.values() if (found := mapping_under(array)) is not None}
    return tuple(_loaded[mapping] for mapping in mappings.values() if mapping in _loaded)


def check_unchanged(files: Iterable[MappedFile]) -> None:
    """Check that files are as they were when they were loaded.

    Parameters
    ----------
    files : iterable of MappedFile
        The files.

    Raises
    ------
    ValueError
        If one was changed in place; the message names it and says what to do.

    Examples
    --------
    >>> check_unchanged(())
    """
    for path, loaded in files:
        try:
            now = os.stat(path)
        except OSError:  # removed, or where nothing can be read any more: the mapping keeps what was loaded
            continue
        same_file = (now.st_dev, now.st_ino) == (loaded.st_dev, loaded.st_ino)
        if same_file and (now.st_size, now.st_mtime_ns) != (loaded.st_size, loaded.st_mtime_ns):
            size = f", of {now.st_size} bytes in place of {loaded.st_size}" if now.st_size != loaded.st_size else ""
            raise ValueError(
                f"weights: expected {path} as it was loaded, got one that was changed in place since{size}: load it "
                "again, and replace files by moving others there, or load with mmap=False"
            )
