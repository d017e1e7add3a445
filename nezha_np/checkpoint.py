"""Checkpoints: from the files of a folder to `Weights`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nezha_np.config import NezhaConfig, read_config
from nezha_np.inputs import as_path, dtype_name, gpu_number, listed
from nezha_np.parameters import HEADS, backbone_shapes, head_shapes, without_aliases
from nezha_np.safetensors_file import FLOATS, Entry, map_tensors, read_header
from nezha_np.weights import Weights

SHIPPED = Path(__file__).parent / "checkpoints" / "nezha-tiny-zh"  # the small model that comes with the package

# Tensors that old files hold though they are computed: ids of positions and token types, tables of positions.
COMPUTED = re.compile(r"embeddings\.(position_ids|token_type_ids)|.*\.relative_positions_encoding\.positions_encoding")


def load(path: str | Path | None = None, dtype: Any = "float32", device: str = "cpu") -> Weights:
    """Load a checkpoint.

    Parameters
    ----------
    path : str or Path, optional
        A folder with ``config.json`` and ``model.safetensors`` (or shards and ``model.safetensors.index.json``), or a
        ``.safetensors`` file with ``config.json`` beside it. None: the small model that ships with the package.
    dtype : str or dtype, optional
        "float16", "float32" or "float64". None keeps the file's, which must then be one (bfloat16 becomes float32).
    device : str
        "cpu", "cuda" or "cuda:1".

    Returns
    -------
    Weights
        The tensors under the reference's names without prefix. The file is mapped into memory: where neither dtype nor
        device changes, nothing is copied. Tensors that a file holds besides those of the model are kept if they are
        floats (F16, BF16, F32, F64).

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message names it.
    ModuleNotFoundError
        If the device is a GPU and CuPy is not installed.
    TypeError
        If an argument has a wrong type.
    ValueError
        If a file breaks its format, or a tensor is missing, has another shape than the configuration says, or is of a
        wrong type; the message names them. A head's own tensors are checked when it is called.

    Examples
    --------
    >>> import nezha_np as nz
    >>> nz.load()
    Weights(nezha, 77 tensors, 1,730,138 parameters, float32)
    """
    gpu_number(device)  # a wrong device or dtype is refused before any file is read
    name = None if dtype is None else dtype_name(dtype)
    files = list_files(path)
    folder = files[0].parent
    config = read_config(folder / "config.json")
    named = name_tensors({file: read_header(file) for file in files}, config)
    known = {*backbone_shapes(config), *(key for head in HEADS for key in head_shapes(config, head))}
    floats = {key: source for key, source in named.items() if source[2].dtype in FLOATS}
    if wrong := [f"{key} ({named[key][2].dtype})" for key in known & (named.keys() - floats.keys())]:
        raise ValueError(f"{folder}: expected tensors of floats, got {listed(sorted(wrong))}")
    mapped = {
        file: map_tensors(file, {raw: entry for source, raw, entry in floats.values() if source == file})
        for file in files
    }
    tensors = {key: _converted(mapped[file][raw], name) for key, (file, raw, _) in floats.items()}
    try:
        weights = Weights(tensors, config, source=folder)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: {error}") from None
    return weights if device == "cpu" else weights.to(device=device)


def _converted(array: np.ndarray, dtype: str | None) -> np.ndarray:
    if dtype is not None and array.dtype != dtype:
        array = array.astype(dtype)
        array.flags.writeable = False
    return array


def list_files(path: str | Path | None) -> list[Path]:
    """List the safetensors files of a checkpoint.

    Parameters
    ----------
    path : str or Path, optional
        What `load` takes.

    Returns
    -------
    list of Path
        One file, or the shards.

    Raises
    ------
    FileNotFoundError
        If there is no such path, no checkpoint in it, or a shard is missing.
    ValueError
        If the index of the shards is not one.

    Examples
    --------
    >>> [file.name for file in list_files(None)]
    ['model.safetensors']
    """
    folder = SHIPPED if path is None else as_path(path)
    if folder.is_file():
        if folder.suffix != ".safetensors":
            raise ValueError(f"path: expected a folder or a .safetensors file, got {folder}")
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"path: expected a folder or a .safetensors file, found no {folder}")
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise FileNotFoundError(
            f"path: expected model.safetensors or model.safetensors.index.json, found neither in {folder}"
        )
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{index}: expected a JSON object with a weight_map from tensors to files") from None
    if not names or any(Path(name).name != name for name in names):
        raise ValueError(f"{index}: expected the names of files in the same folder, got {listed(names)}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{index}: expected all shards in the same folder, missing {listed(missing)}")
    return [folder / name for name in names]


def name_tensors(
    headers: Mapping[Path, Mapping[str, Entry]], config: NezhaConfig
) -> dict[str, tuple[Path, str, Entry]]:
    """Give the tensors of files their names in memory.

    A prefix goes (``nezha.``, and ``bert.``, as NEZHA's authors say), ``gamma`` and ``beta`` of older files become
    ``weight`` and ``bias``, and what is computed or tied is left out.

    Parameters
    ----------
    headers : mapping of Path to (mapping of str to Entry)
        What `read_header` says of each file.
    config : NezhaConfig
        The configuration.

    Returns
    -------
    dict of str to (Path, str, Entry)
        For each name in memory the file, the name in the file, and the header's entry.

    Raises
    ------
    ValueError
        If two tensors get the same name.

    Examples
    --------
    >>> from pathlib import Path
    >>> entry = Entry("F32", (2,), 0, 8)
    >>> named = name_tensors({Path("f"): {"bert.embeddings.LayerNorm.gamma": entry}}, NezhaConfig())
    >>> list(named)
    ['embeddings.LayerNorm.weight']
    """
    named: dict[str, tuple[Path, str, Entry]] = {}
    for file, header in headers.items():
        for raw, entry in header.items():
            name = re.sub(r"^(nezha|bert)\.", "", raw)
            name = re.sub(r"(?<=LayerNorm\.)gamma$", "weight", name)
            name = re.sub(r"(?<=LayerNorm\.)beta$", "bias", name)
            if COMPUTED.fullmatch(name):
                continue
            if name in named:
                raise ValueError(f"{file}: expected one tensor for {name}, got {named[name][1]} and {raw}")
            named[name] = (file, raw, entry)
    return without_aliases(named, config)
