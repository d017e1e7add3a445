"""Checkpoints: from the files of a folder to `Weights`."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from nezha_np.checks import (
    KEPT_DTYPES,
    check_device,
    check_dtype,
    check_path,
    check_switches,
    listed,
    parse_json,
    printable,
)
from nezha_np.families.config import Config, read_config
from nezha_np.families.family import family_of
from nezha_np.families.own_code import own_code
from nezha_np.families.parameters import aliases, backbone_shapes, task_shapes, tasks_of
from nezha_np.families.trained_head import HeadWarning
from nezha_np.files.temporary import check_whole
from nezha_np.files.text_encoding import read_utf8
from nezha_np.mechanism.patterns import matches
from nezha_np.narrow.bfloat16 import NAME as BFLOAT16
from nezha_np.narrow.matrix import kept_in_bfloat16
from nezha_np.weights.base import CHANGES, CHECKPOINTS, check_base, find_base
from nezha_np.weights.formats import READERS, SUFFIXES
from nezha_np.weights.formats.entry import FLOATS, Entry, map_tensors
from nezha_np.weights.mapped_files import MappedFile, remember
from nezha_np.weights.names import name_tensor, name_tensors, without_prefix, wrong_family
from nezha_np.weights.new_head import with_head
from nezha_np.weights.other_files import advice_for_file, advice_for_folder, advice_for_part, is_index
from nezha_np.weights.prefixes import without_outer_prefix
from nezha_np.weights.sentence_files import transformer_folder
from nezha_np.weights.tensor_checks import check_layers, describe_unused, unused_tensors
from nezha_np.weights.weights import Weights

SHIPPED = CHECKPOINTS / "nezha-tiny-zh"  # the small model that comes with the package

# The files that a folder's tensors may be in: the first that is there, or else that of which there are shards.
LOOKED_FOR = ("model.safetensors", "pytorch_model.bin")
Headers = Mapping[Path, Mapping[str, Entry]]


def load(
    path: str | Path | None = None,
    dtype: Any = "float32",
    device: str = "cpu",
    *,
    head: str | None = None,
    num_labels: int | None = None,
    id2label: Mapping[int, str] | Sequence[str] | None = None,
    seed: int = 0,
    mmap: bool = True,
) -> Weights:
    """Load a checkpoint.

    Parameters
    ----------
    path : str or Path, optional
        A folder with ``config.json`` and the tensors: ``model.safetensors`` or else ``pytorch_model.bin``, or shards of
        one with its index (``model.safetensors.index.json``). Or an index, or a file that ends in .safetensors, .bin,
        .pt, .pth, .ckpt or .npz, with ``config.json`` in the same folder. In a folder of
        sentence-transformers, what ``modules.json`` names as its transformer. Or a folder with changes of a model
        (`nezha_np.weights.changes`), whose other tensors are loaded too. None: the small model that ships with the
        package.
    dtype : str or dtype, optional
        "float16" or "bfloat16" (on a CPU they save memory, and no time), "float32" or "float64". None keeps that of the
        file, in which all tensors must then have the same (bfloat16 becomes float32). With "bfloat16" matrices are kept
        in 16 bits, and all is computed in float32 with the rounded numbers.
    device : str
        "cpu", "cuda" or "cuda:1".
    head : str, optional
        A task head, such as "sequence_classification", to train it from these weights. What the checkpoint lacks of it
        is drawn with `seed`, as `nezha_np.init` draws it; so is a head with another number of classes than are asked
        for, and a classifier that was trained for another task, as ``architectures`` says. A HeadWarning names what is
        drawn. None: the checkpoint as it is.
    num_labels : int, optional
        The number of classes of the head; None: the number of `id2label`, or that of the configuration.
    id2label : mapping of int to str, or sequence of str, optional
        The names of the classes; None: those of the configuration, where their number is the same.
    seed : int
        The seed of what is drawn.
    mmap : bool
        False: the files are read into memory. By default they are mapped, so that no tensor is read before it is used,
        and processes that load the same files share one copy of them. Then a file must not be changed in place while
        the weights are in use: each pass first looks whether it was, and raises a ValueError. A change during a pass
        is not seen: other bytes are other weights, and where a file is cut short, the system ends the process (SIGBUS)
        that reads what is gone. To replace it is safe: write another file and move it there, as `Weights.save` and
        ``nezha-np convert`` do.

    Returns
    -------
    Weights
        The tensors under the reference's names without prefix, also where the file has TensorFlow's names. The file is
        mapped into memory: where neither dtype nor device changes, only tensors whose rows do not follow one another
        are copied. Tensors that do not belong to the model are loaded too if they are floats (F16, BF16, F32, F64);
        where they are of its embeddings, encoder or pooler, a UserWarning names them: another model was trained. One
        also names code of its own that ``auto_map`` of the configuration names, which is never run. Saved
        tables of relative positions are compared with the computed one and left out, and so is a tied decoder
        with the word embeddings. Of two names of a bias with different numbers ``cls.predictions.decoder.bias`` is
        used, as the reference does.

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
        configuration says, or does not hold floats; if a saved table of relative positions is not the computed one, or
        a tied decoder not the word embeddings. The message names what is wrong. The tensors of a task head are checked
        when the task is called.

    Examples
    --------
    >>> import nezha_np as nz
    >>> nz.load()
    Weights(nezha, 77 tensors, 3,975,386 parameters, float32)
    """
    if head is None and (num_labels is not None or id2label is not None):
        raise ValueError("num_labels, id2label: expected a head with them, got head=None")
    check_switches(mmap=mmap)
    name = None if dtype is None else check_dtype(dtype, KEPT_DTYPES)  # a wrong one is refused before a file is read
    if name == BFLOAT16 and device != "cpu":
        raise ValueError(f"dtype: expected another one than bfloat16 with device={device!r}, got {dtype!r}")
    check_device(device)
    files = list_files(path)
    folder = files[0].parent
    config = read_config_beside(files[0])
    # Before they are read, so that a later change is seen; absolute, for the working folder may change.
    loaded = {file: MappedFile(file.absolute(), file.stat()) for file in files}
    headers, _ = without_outer_prefix(read_headers(files))
    raw_names = [raw for header in headers.values() for raw in header]
    if message := wrong_family(raw_names, config):
        raise ValueError(f"{folder}: {message}")
    named = name_tensors(headers, config)
    try:
        check_layers(named, config)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}{advice_for_part(files)}") from None
    known = {*backbone_shapes(config), *(key for task in tasks_of(config) for key in task_shapes(config, task))}
    floats = {key: source for key, source in named.items() if source[2].dtype in FLOATS}
    if wrong := [f"{key} ({named[key][2].dtype})" for key in known & (named.keys() - floats.keys())]:
        raise ValueError(f"{folder}: expected tensors of floats, got {listed(sorted(wrong))}")
    _check_computed(headers, config)
    mapped = {
        file: map_tensors(
            file,
            {key: entry for key, (at, _, entry) in floats.items() if at == file},
            mapped=bool(mmap),
            bfloat16=name == BFLOAT16,
        )
        for file in files
    }
    for file, watched in loaded.items():
        remember(watched, mapped[file].values())
    tensors = {key: _converted(mapped[file][key], name) for key, (file, _, _) in floats.items()}
    try:
        weights = Weights(tensors, config, source=folder if path is None or Path(path).is_file() else Path(path))
    except (TypeError, ValueError) as error:
        mixed = name is None and len({array.dtype for array in tensors.values()}) > 1
        advice = ": give a dtype, and all are converted to it" if mixed else ""
        if not known & named.keys():
            advice = f"; no tensor of the model is there, but {listed(raw_names, most=3) or 'none at all'}"
        raise ValueError(f"{folder}: {error}{advice or advice_for_part(files)}") from None
    if unused := unused_tensors(floats, config):
        warnings.warn(f"{folder}: {describe_unused(unused)}", stacklevel=2)
    if code := own_code(config):
        warnings.warn(f"{folder}: {printable(code)}", stacklevel=2)
    if head is not None:
        read, weights = weights, with_head(weights, head, num_labels=num_labels, id2label=id2label, seed=seed)
        if drawn := [name for name in weights if name not in read or weights[name] is not read[name]]:
            warnings.warn(
                f"{folder}: no trained head for {head}: {listed(drawn)} drawn with seed {seed}, to be trained",
                HeadWarning,
                stacklevel=2,
            )
    return weights if device == "cpu" else weights.to(device=device)


def _converted(array: Any, dtype: str | None) -> Any:
    """Convert to a dtype, and to rows that follow one another: matrix products of another order round differently."""
    if dtype == BFLOAT16:
        return kept_in_bfloat16(array)
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
    headers = {file: reader.read_header(file) for file, reader in readers.items()}
    return _with_changes(headers) if files[0].name == CHANGES else headers


def _with_changes(headers: Headers) -> dict[Path, dict[str, Entry]]:
    """Leave out the tensors of a base that were changed, under their second names too."""
    (file, changes), *others = headers.items()
    second_names = aliases(read_config_beside(file))
    changed = {named[0] for raw, entry in changes.items() if (named := name_tensor(raw, entry))}
    base, _ = without_outer_prefix(dict(others))
    kept = {}
    for other, header in base.items():
        names = {raw: named[0] for raw, entry in header.items() if (named := name_tensor(raw, entry))}
        kept[other] = {
            raw: entry
            for raw, entry in header.items()
            if raw not in names or second_names.get(names[raw], names[raw]) not in changed
        }
    return {file: dict(changes), **kept}


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
        If it is not the configuration of a model, or a run was killed while it moved files there.

    Examples
    --------
    >>> read_config_beside(list_files(None)[0]).model_type
    'nezha'
    """
    path = file.with_name("config.json")
    check_whole(file.parent)
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"{path}: expected a config.json, found a link that leads to no file: fetch it again")
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
    found = SHIPPED if path is None else check_path(path, name)
    changes = found if found.name == CHANGES else found / CHANGES
    whole = any((changes.parent / f"{file}{end}").is_file() for file in LOOKED_FOR for end in ("", ".index.json"))
    if not changes.is_file() or (whole and changes != found):
        return _list_whole(found, name)
    base = _list_whole(find_base(changes), name)
    check_base(changes, base)
    return [changes, *base]


def _list_whole(folder: Path, name: str) -> list[Path]:
    """List the files of a whole model."""
    expected = f"{name}: expected a folder or a file that ends in {SUFFIXES}"
    if folder.is_file():
        if is_index(folder):
            return _list_shards(folder)
        if folder.suffix not in READERS:
            raise ValueError(f"{expected}, got {folder}{advice_for_file(folder)}")
        return [folder]
    if not folder.is_dir():
        raise FileNotFoundError(f"{expected}, found no {folder}{advice_for_file(folder)}")
    folder = transformer_folder(folder)
    for file in LOOKED_FOR:
        single, index = folder / file, folder / f"{file}.index.json"
        if single.is_file():
            return [single]
        if index.is_file():
            return _list_shards(index)
    raise FileNotFoundError(
        f"{name}: expected {' or '.join(LOOKED_FOR)} or the index of one's shards, found none of them in "
        f"{folder}{advice_for_folder(folder)}"
    )


def _list_shards(index: Path) -> list[Path]:
    """List the files of tensors that an index of shards names."""
    folder = index.parent
    text = read_utf8(index)
    try:
        names = sorted({str(name) for name in parse_json(text)["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index}: expected a JSON object with a weight_map from tensors to files") from None
    if not names or any(PureWindowsPath(name).name != name for name in names):
        raise ValueError(f"{index}: expected the names of files in the same folder, got {listed(names)}")
    if any(Path(name).suffix not in READERS for name in names):
        raise ValueError(f"{index}: expected files that end in {SUFFIXES}, got {listed(names)}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{index}: expected all shards in the same folder, missing {listed(missing)}")
    return [folder / name for name in names]


# ----------------------------------------------------------------------------------------------------- computed tensors


@dataclasses.dataclass(frozen=True)
class _Saved:
    """A tensor of a file that is computed (`nezha_np.families.family.SavedTensor`), read row by row."""

    file: Path
    entry: Entry

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    @property
    def dtype(self) -> str:
        return self.entry.dtype

    @functools.cached_property
    def _inflated(self) -> np.ndarray:
        mapped: np.ndarray = map_tensors(self.file, {"": self.entry})[""]
        return mapped

    def read(self, index: int) -> np.ndarray:
        if self.entry.deflated is not None:
            row: np.ndarray = self._inflated[index]
            return row.astype(np.float64)
        mapped: np.ndarray = map_tensors(self.file, {"": self.entry.at(index)})[""]
        return mapped.astype(np.float64)


def _check_computed(headers: Headers, config: Config) -> None:
    """Let the family check the saved tensors that it computes itself: they must be equal to the computed ones."""
    checks = {pattern: check for pattern, check in family_of(config).computed.items() if check is not None}
    for file, header in headers.items():
        for raw, entry in header.items():
            for pattern, check in checks.items():
                if matches(without_prefix(raw), (pattern,)):
                    try:
                        check(raw, _Saved(file, entry), config)
                    except ValueError as error:
                        raise ValueError(f"{file}: {printable(error)}") from None
