"""The tensors that fine-tuning changed: a small folder beside a model that many tasks share.

    in the folder                 what it holds
    ``changes.safetensors``       the tensors that are new or have other numbers, and which model is the base
    ``config.json``               the configuration with the names of the classes

`nezha_np.load` of the folder returns the base with these tensors in place, and refuses another base. What is frozen
while a model is fine-tuned takes no room here: that is a fourth of a model or less, where only its top is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nezha_np.arrays import Array, to_numpy
from nezha_np.checks import check_path, listed
from nezha_np.files.atomic import write_atomically
from nezha_np.weights.base import CHANGES, describe_base
from nezha_np.weights.checkpoint import SHIPPED, list_files, load, read_headers
from nezha_np.weights.formats.entry import FLOATS
from nezha_np.weights.formats.safetensors import write_tensors
from nezha_np.weights.saving import config_text, file_to_write
from nezha_np.weights.weights import Weights


def save_changes(weights: Weights, path: str | Path, base: str | Path | None = None) -> list[str]:
    """Save the tensors that a model has and its base has not, or with other numbers.

    Parameters
    ----------
    weights : Weights
        The model. It is saved in the dtype of the base's files, so in float16 where they are.
    path : str or Path
        The folder, which is made if it is not there.
    base : str or Path, optional
        What it was trained from, as `nezha_np.load` takes it; None: the shipped model. Its place is kept as the way to
        it from the folder.

    Returns
    -------
    list of str
        The names of the tensors that were saved.

    Raises
    ------
    FileNotFoundError
        If there is no base.
    ValueError
        If the base has tensors that `weights` lacks, or is itself a folder of changes.

    Examples
    --------
    >>> import tempfile
    >>> import nezha_np as nz
    >>> config = nz.load().config.replace(id2label={0: "bad", 1: "good"})
    >>> weights = nz.Weights({**nz.init(config, "sequence_classification"), **nz.load()}, config)
    >>> folder = tempfile.mkdtemp()
    >>> save_changes(weights, folder)
    ['classifier.weight', 'classifier.bias']
    >>> nz.load(folder).config.id2label[1]
    'good'
    """
    folder, origin = check_path(path), SHIPPED if base is None else check_path(base, "base")
    files = files_of_whole_model("base", origin)
    if file_to_write(folder).parent != folder:
        raise ValueError(f"path: expected a folder, got {folder}")
    before = load(origin, dtype=dtype_of_changes(files))
    if lacking := sorted(before.keys() - weights.keys()):
        raise ValueError(f"weights: expected every tensor of the base, found no {listed(lacking, most=3)}")
    now = weights.to(dtype=str(before.dtype), device="cpu")
    changed = {name: to_numpy(array) for name, array in now.items() if not _is_same(name, to_numpy(array), before)}
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", **describe_base(folder, origin, files)}

    def write(temporary: Path) -> None:
        write_tensors(temporary / CHANGES, changed, metadata)
        text = config_text(now, weights.config)
        (temporary / "config.json").write_text(text, encoding="utf-8", newline="\n")

    write_atomically(folder, write)
    return list(changed)


def files_of_whole_model(name: str, path: str | Path | None) -> list[Path]:
    """Find the files of tensors of a model to which changes can belong.

    Parameters
    ----------
    name : str
        The name of the argument, for an error.
    path : str, Path or None
        The model; None: the shipped one.

    Returns
    -------
    list of Path
        Its files.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If these are changes of another model themselves.

    Examples
    --------
    >>> [file.name for file in files_of_whole_model("base", SHIPPED)]
    ['model.safetensors']
    """
    files = list_files(path, name=name)
    if files[0].name == CHANGES:
        raise ValueError(
            f"{name}: expected a whole model, got changes of one: {files[0]}; nezha-np convert makes it whole"
        )
    return files


def dtype_of_changes(files: Sequence[Path]) -> str:
    """Return the dtype in which changes of a model are saved: that of its files, where all their tensors have one.

    Parameters
    ----------
    files : sequence of Path
        The model's files of tensors.

    Returns
    -------
    str
        The dtype; "float32" where the files have several, or one that NumPy has not.

    Examples
    --------
    >>> dtype_of_changes(files_of_whole_model("base", SHIPPED))
    'float16'
    """
    headers = read_headers(list(files)).values()
    dtypes = {entry.dtype for header in headers for entry in header.values()} & set(FLOATS)
    if len(dtypes) != 1:
        return "float32"
    return {"F16": "float16", "F64": "float64"}.get(dtypes.pop(), "float32")


def _is_same(name: str, array: np.ndarray, before: Mapping[str, Array]) -> bool:
    """Say whether the base has a tensor with the same numbers."""
    return name in before and np.array_equal(array, to_numpy(before[name]))
