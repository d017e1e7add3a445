"""Checkpoints: from the files of a folder to `Weights`."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.arrays import check_device, check_dtype
from nezha_np.checks import check_path, listed
from nezha_np.families.config import Config, read_config
from nezha_np.families.family import family_of
from nezha_np.families.parameters import backbone_shapes, task_shapes, tasks_of
from nezha_np.layers.relative_position import relative_position_table
from nezha_np.weights.formats import READERS, SUFFIXES
from nezha_np.weights.formats.entry import FLOATS, Entry, map_tensors
from nezha_np.weights.names import name_tensors, position_tables, wrong_family
from nezha_np.weights.weights import Weights

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "nezha-tiny-zh"  # the small model that comes with the package

# The files that a folder's tensors may be in: the first that is there, or else that of which there are shards.
LOOKED_FOR = ("model.safetensors", "pytorch_model.bin")
Headers = Mapping[Path, Mapping[str, Entry]]


def load(path: str | Path | None = None, dtype: Any = "float32", device: str = "cpu") -> Weights:
    """Load a checkpoint.

    Parameters
    ----------
    path : str or Path, optional
        A folder with ``config.json`` and the tensors: ``model.safetensors`` or else ``pytorch_model.bin``, or shards of
        one with its index (``model.safetensors.index.json``). Or a file that ends in .safetensors, .bin, .pt, .pth or
        .npz, with ``config.json`` in the same folder. None: the small model that ships with the package.
    dtype : str or dtype, optional
        "float16", "float32" or "float64". None keeps that of the file, in which all tensors must then have the same
        (bfloat16 becomes float32).
    device : str
        "cpu", "cuda" or "cuda:1".

    Returns
    -------
    Weights
        The tensors under the reference's names without prefix, also where the file has TensorFlow's names. The file is
        mapped into memory: where neither dtype nor device changes, only tensors whose rows do not follow one another
        are copied. Tensors that do not belong to the model are loaded too if they are floats (F16, BF16, F32, F64).
        Saved tables of relative positions are compared with the computed one and left out.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message names it.
    ModuleNotFoundError
        If the device is a GPU and CuPy is not installed.
    TypeError
        If an argument has a wrong type.
    ValueError
        If a file breaks its format, or is a pickle that would call anything but what makes tensors; if the tensors are
        those of another family than the configuration's; if a tensor is missing, has another shape than the
        configuration says, or does not hold floats; if a saved table of relative positions is not the computed one. The
        message names what is wrong. The tensors of a task head are checked when the task is called.

    Examples
    --------
    >>> import nezha_np as nz
    >>> nz.load()
    Weights(nezha, 77 tensors, 1,730,138 parameters, float32)
    """
    check_device(device)  # a wrong device or dtype is refused before any file is read
    name = None if dtype is None else check_dtype(dtype)
    files = list_files(path)
    folder = files[0].parent
    config = read_config_beside(files[0])
    headers = read_headers(files)
    raw_names = [raw for header in headers.values() for raw in header]
    if message := wrong_family(raw_names, config):
        raise ValueError(f"{folder}: {message}")
    named = name_tensors(headers, config)
    known = {*backbone_shapes(config), *(key for head in tasks_of(config) for key in task_shapes(config, head))}
    floats = {key: source for key, source in named.items() if source[2].dtype in FLOATS}
    if wrong := [f"{key} ({named[key][2].dtype})" for key in known & (named.keys() - floats.keys())]:
        raise ValueError(f"{folder}: expected tensors of floats, got {listed(sorted(wrong))}")
    if family_of(config).position_table is not None:
        _compare_position_tables(headers, config)
    mapped = {
        file: map_tensors(file, {key: entry for key, (source, _, entry) in floats.items() if source == file})
        for file in files
    }
    tensors = {key: _converted(mapped[file][key], name) for key, (file, _, _) in floats.items()}
    try:
        weights = Weights(tensors, config, source=folder)
    except (TypeError, ValueError) as error:
        mixed = name is None and len({array.dtype for array in tensors.values()}) > 1
        advice = ": give a dtype, and all are converted to it" if mixed else ""
        raise ValueError(f"{folder}: {error}{advice}") from None
    return weights if device == "cpu" else weights.to(device=device)


def _converted(array: np.ndarray, dtype: str | None) -> np.ndarray:
    """Convert to a dtype, and to rows that follow one another: matrix products of another order round differently."""
    if array.dtype == (dtype or array.dtype) and array.flags.c_contiguous:
        return array
    array = array.astype(dtype or array.dtype, order="C")
    array.flags.writeable = False
    return array


def read_headers(files: list[Path]) -> dict[Path, dict[str, Entry]]:
    """Find the tensors of each file, with the reader of its format; their numbers are not read.

    Parameters
    ----------
    files : list of Path
        The files.

    Returns
    -------
    dict of Path to (dict of str to Entry)
        For each file its tensors, by their names in the file.

    Raises
    ------
    ValueError
        If a file breaks its format; the message names the file.

    Examples
    --------
    >>> headers = read_headers(list_files(None))
    >>> [len(header) for header in headers.values()]
    [77]
    """
    readers = {file: importlib.import_module(f"nezha_np.weights.formats.{READERS[file.suffix]}") for file in files}
    return {file: reader.read_header(file) for file, reader in readers.items()}


def read_config_beside(file: Path) -> Config:
    """Read the ``config.json`` in the folder of a checkpoint's file.

    Parameters
    ----------
    file : Path
        A file of tensors.

    Returns
    -------
    Config
        The configuration.

    Raises
    ------
    FileNotFoundError
        If there is none; the message says what to do.
    ValueError
        If it is not the configuration of a model.

    Examples
    --------
    >>> read_config_beside(list_files(None)[0]).model_type
    'nezha'
    """
    path = file.with_name("config.json")
    if not path.is_file():
        others = sorted(other.name for other in file.parent.glob("*config.json") if "tokenizer" not in other.name)
        advice = f"rename {others[0]}" if others else "put the one that the model was published with there"
        raise FileNotFoundError(f"{path}: expected a config.json, found no such file: {advice}")
    return read_config(path)


def list_files(path: str | Path | None, *, name: str = "path") -> list[Path]:
    """List the files that hold a checkpoint's tensors.

    Parameters
    ----------
    path : str or Path, optional
        What `load` takes.
    name : str
        The argument that errors name.

    Returns
    -------
    list of Path
        One file, or the shards.

    Raises
    ------
    FileNotFoundError
        If there is no such path, no checkpoint in it, or a shard is missing.
    ValueError
        If the file is of another format, or the index of the shards is not one.

    Examples
    --------
    >>> [file.name for file in list_files(None)]
    ['model.safetensors']
    """
    folder = SHIPPED if path is None else check_path(path, name)
    if folder.is_file():
        if folder.suffix not in READERS:
            raise ValueError(f"{name}: expected a folder or a file that ends in {SUFFIXES}, got {folder}")
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: expected a folder or a file that ends in {SUFFIXES}, found no {folder}")
    for file in LOOKED_FOR:
        single, index = folder / file, folder / f"{file}.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            return _list_shards(index)
    raise FileNotFoundError(
        f"{name}: expected {' or '.join(LOOKED_FOR)} or the index of one's shards, found none of them in "
        f"{folder}{_advice(folder)}"
    )


def _advice(folder: Path) -> str:
    """Say what to do with a folder that holds none of the files that are looked for."""
    names = sorted(file.name for file in folder.iterdir())
    if others := [name for name in names if Path(name).suffix in READERS]:
        return f": to load one of its files, name it: {listed(others)}"
    if any(".ckpt.data-" in name for name in names):
        return ": a checkpoint of TensorFlow can be loaded once its variables are in an .npz file, under their names"
    return ""


def _list_shards(index: Path) -> list[Path]:
    """List the files of tensors that an index of shards names."""
    folder = index.parent
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{index}: expected a JSON object with a weight_map from tensors to files") from None
    if not names or any(Path(name).name != name for name in names):
        raise ValueError(f"{index}: expected the names of files in the same folder, got {listed(names)}")
    if any(Path(name).suffix not in READERS for name in names):
        raise ValueError(f"{index}: expected files that end in {SUFFIXES}, got {listed(names)}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{index}: expected all shards in the same folder, missing {listed(missing)}")
    return [folder / name for name in names]


# ---------------------------------------------------------------------------------------------- saved position tables

# The reference computes its tables in float32: an angle of up to 2K radians is off by some units in its last place.
ANGLE_ERROR = 2.0**-22
ROUNDING = {"F64": 0.0, "F32": 0.0, "F16": 2.0**-11, "BF16": 2.0**-8}  # of numbers up to 1
MOST_DISTANCES = 1024  # how far K is looked for that a table was made with


def _compare_position_tables(headers: Headers, config: Any) -> None:
    """Refuse a saved table of relative positions that is not the one which the model computes.

    A table has for each query and key a vector, (L, L, D), which depends on their distance alone; so the first row and
    the last hold every one. Each of the layers has a table; all are compared.
    """
    size, reach = config.head_size, config.max_relative_position
    for file, header in headers.items():
        for name in position_tables(header):
            entry = header[name]
            length = entry.shape[0] if entry.shape else 0
            if entry.shape != (length, length, size) or not length or entry.dtype not in FLOATS:
                raise ValueError(
                    f"{file}: expected a table of relative positions of shape (length, length, {size}), as "
                    f"hidden_size / num_attention_heads in config.json says, got {entry.dtype} {entry.shape} for {name}"
                )
            ends = (0, length - 1)
            rows = map_tensors(file, {f"{name}[{query}]": entry.at(query) for query in ends})
            saved = {query: rows[f"{name}[{query}]"].astype(np.float64) for query in ends}
            difference = _difference(saved, size, reach)
            if not difference <= _allowed(reach, entry.dtype):  # written so that NaN is refused too
                fitting = _fitting_reach(saved, size, entry.dtype)
                advice = "what made this file computes positions in another way"
                if fitting is not None:
                    advice = f'it is that of "max_relative_position": {fitting}, which belongs into config.json'
                raise ValueError(
                    f"{file}: expected the table of relative positions for max_relative_position {reach}, got another "
                    f"for {name}, with a largest difference of {difference:.3g}: {advice}"
                )


def _allowed(reach: int, dtype: str) -> float:
    return (2 * reach + 1) * ANGLE_ERROR + ROUNDING[dtype]


def _difference(saved: Mapping[int, np.ndarray], size: int, reach: int) -> float:
    """Return the largest difference of rows, by query, from those of a table with this K."""
    table = relative_position_table(np.zeros(1), head_size=size, max_relative_position=reach)
    differences = []
    for query, row in saved.items():
        distance = np.clip(np.arange(len(row)) - query, -reach, reach)
        differences.append(float(np.max(np.abs(row - table[distance + reach]))))
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def _fitting_reach(saved: Mapping[int, np.ndarray], size: int, dtype: str) -> int | None:
    """Find the K that a table was made with: at distance 0 stands row K of the table."""
    table = relative_position_table(np.zeros(1), head_size=size, max_relative_position=MOST_DISTANCES)
    near = np.abs(table[1 : MOST_DISTANCES + 1] - saved[0][0]).max(axis=-1)
    reach = int(np.argmin(near)) + 1
    return reach if _difference(saved, size, reach) <= _allowed(reach, dtype) else None
