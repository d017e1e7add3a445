"""Which model a file of changed tensors belongs to: the **base**, whose other tensors stay as they are.

``changes.safetensors`` says it in its metadata: where the base is, and the SHA-256 of its files. So changes are never
put into another model, or into the same one after it was trained on. `nezha_np.weights.changes` writes such a file,
`nezha_np.weights.checkpoint` reads it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from nezha_np.checks import printable
from nezha_np.weights.formats.safetensors import read_metadata

CHANGES = "changes.safetensors"
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"  # the models that come with the package


def hash_files(files: Sequence[Path]) -> str:
    """Return the SHA-256 of files, one after another.

    Examples
    --------
    >>> hash_files([])[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def describe_base(folder: Path, base: Path, files: Sequence[Path]) -> dict[str, str]:
    """Return the metadata that say which model is the base of changes.

    Parameters
    ----------
    folder : Path
        The folder of the changes.
    base : Path
        The base, as `nezha_np.load` takes it.
    files : sequence of Path
        Its files of tensors.

    Returns
    -------
    dict of str to str
        ``shipped``, the name of a model that comes with the package, or else ``base``, the way to it from `folder`; and
        ``base_sha256``.

    Raises
    ------
    ValueError
        If there is no way from one to the other, because they are on different drives.

    Examples
    --------
    >>> shipped = CHECKPOINTS / "nezha-tiny-zh"
    >>> describe_base(Path("sentiment"), shipped, [shipped / "vocab.txt"])["shipped"]
    'nezha-tiny-zh'
    """
    base = base.resolve()
    if base.parent == CHECKPOINTS.resolve():
        where = {"shipped": base.name}
    else:
        try:
            where = {"base": Path(os.path.relpath(base, folder.resolve())).as_posix()}
        except ValueError:
            raise ValueError(f"folder: expected one on the drive of the model {base}, got {folder}") from None
    return {**where, "base_sha256": hash_files(files)}


def find_base(file: Path) -> Path:
    """Return where the base of changes is.

    Parameters
    ----------
    file : Path
        The file of the changes.

    Returns
    -------
    Path
        A folder or a file of tensors.

    Raises
    ------
    ValueError
        If the file does not say it.

    Examples
    --------
    >>> find_base(CHECKPOINTS / "nezha-tiny-zh" / "model.safetensors")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...: expected metadata that name the model whose tensors were changed, got none
    """
    metadata = read_metadata(file)
    shipped, base = metadata.get("shipped"), metadata.get("base")
    if shipped is not None and PurePosixPath(shipped).parts == (shipped,) and shipped != "..":
        found = CHECKPOINTS / shipped
    elif base and not PurePosixPath(base).is_absolute() and not set(base) & set("\\:\0"):
        found = file.parent / base
    else:
        got = "none" if shipped is None and base is None else printable(repr(shipped if base is None else base))
        raise ValueError(f"{file}: expected metadata that name the model whose tensors were changed, got {got}")
    if not found.exists():
        raise FileNotFoundError(f"{file}: expected the model whose tensors were changed in {found}, found none there")
    return found


def check_base(file: Path, files: Sequence[Path]) -> None:
    """Check that a model is the base of changes.

    Parameters
    ----------
    file : Path
        The file of the changes.
    files : sequence of Path
        The model's files of tensors.

    Raises
    ------
    ValueError
        If it is another model.
    """
    wanted, found = read_metadata(file).get("base_sha256"), hash_files(files)
    if found != wanted:
        raise ValueError(
            f"{file}: expected the model whose tensors were changed, with SHA-256 {printable(wanted)}, got another one "
            f"in {files[0].parent}, with {found}"
        )
