"""The files of a sentence-transformers folder: ``modules.json``, which lists its modules, and what lies beside it.

    modules.json                       the modules, in the order in which they run, each with its folder
    config_sentence_transformers.json  prompts
    sentence_bert_config.json          max_seq_length and do_lower_case; beside the transformer's config.json
    1_Pooling/config.json              how the tokens' vectors become one
    2_Dense/…                          a linear map and its activation; other modules alike

The transformer is in the folder itself or in a folder of its own, such as ``0_Transformer``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path, PurePosixPath
from typing import Any

from nezha_np.checks import parse_json
from nezha_np.files.text_encoding import read_utf8

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
# The settings of the transformer; sentence-transformers reads the first that is there.
TRANSFORMER_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
MODULE_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")
LIBRARY = "sentence_transformers."


@dataclasses.dataclass(frozen=True)
class Module:
    """An entry of ``modules.json``.

    Attributes
    ----------
    type : str
        Its class, as the file names it.
    path : str
        Its folder, relative to that of the file; "" is that folder itself.
    """

    type: str
    path: str

    @property
    def kind(self) -> str:
        """The name of the class where it is the library's, else the whole name."""
        return self.type.rpartition(".")[2] if self.type.startswith(LIBRARY) else self.type


def read_json(file: Path) -> Any:
    """Read a file of JSON.

    Parameters
    ----------
    file : Path
        The file.

    Returns
    -------
    object
        What it holds.

    Raises
    ------
    ValueError
        If it is not JSON in UTF-8; the message names the file.

    Examples
    --------
    >>> from nezha_np.weights.checkpoint import SHIPPED
    >>> read_json(SHIPPED / "config.json")["model_type"]
    'nezha'
    """
    text = read_utf8(file)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON: {error}") from None


def read_settings(file: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Parameters
    ----------
    file : Path
        The file, which need not be there.

    Returns
    -------
    dict
        What it holds; nothing where there is no file.

    Raises
    ------
    ValueError
        If it holds something else; the message names the file.

    Examples
    --------
    >>> read_settings(Path("nowhere/config.json"))
    {}
    """
    if not file.is_file():
        return {}
    values = read_json(file)
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected a JSON object, got {type(values).__name__}")
    return values


def read_modules(folder: Path) -> tuple[Module, ...]:
    """Read the ``modules.json`` of a folder.

    Parameters
    ----------
    folder : Path
        The folder.

    Returns
    -------
    tuple of Module
        Its modules, in order; none where there is no such file.

    Raises
    ------
    ValueError
        If the file is not a list of modules, or names a folder outside of its own.

    Examples
    --------
    >>> from nezha_np.weights.checkpoint import SHIPPED
    >>> read_modules(SHIPPED)
    ()
    """
    file = folder / MODULES
    if not file.is_file():
        return ()
    entries = read_json(file)
    if not isinstance(entries, list) or not entries:
        got = "an empty one" if entries == [] else type(entries).__name__
        raise ValueError(f"{file}: expected a list of modules, got {got}")
    modules = []
    for entry in entries:
        kind, path = (entry.get("type"), entry.get("path", "")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(path, str):
            raise ValueError(f"{file}: expected modules with a type and a path, got {entry!r}")
        parts = PurePosixPath(path.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in path:
            raise ValueError(f"{file}: expected paths inside its folder, got {path!r}")
        modules.append(Module(kind, path))
    return tuple(modules)


def transformer_folder(folder: Path) -> Path:
    """Return where the transformer of a folder is: the folder itself, or the one that its ``modules.json`` names.

    Parameters
    ----------
    folder : Path
        A folder.

    Returns
    -------
    Path
        The folder with the transformer's files.

    Raises
    ------
    FileNotFoundError
        If ``modules.json`` names a folder that is not there.
    ValueError
        If ``modules.json`` is not a list of modules.

    Examples
    --------
    >>> from nezha_np.weights.checkpoint import SHIPPED
    >>> transformer_folder(SHIPPED) == SHIPPED
    True
    """
    for module in read_modules(folder):
        if module.kind == "Transformer":
            if not (folder / module.path).is_dir():
                raise FileNotFoundError(f"{folder / MODULES}: expected the folder {module.path}, found no such folder")
            return folder / module.path
    return folder


def sentence_files(folder: Path) -> dict[str, bytes]:
    """Read the files that make a sentence model of a transformer.

    Parameters
    ----------
    folder : Path
        A folder.

    Returns
    -------
    dict of str to bytes
        The files by their names beside the transformer's files, where ``modules.json`` leads to the transformer as it
        would in a folder that sentence-transformers writes today. Nothing where there is no ``modules.json``.

    Examples
    --------
    >>> from nezha_np.weights.checkpoint import SHIPPED
    >>> sentence_files(SHIPPED)
    {}
    """
    modules = read_modules(folder)
    if not modules:
        return {}
    origin = transformer_folder(folder)
    entries = [
        entry | {"path": ""} if folder / module.path == origin else entry
        for entry, module in zip(read_json(folder / MODULES), modules, strict=True)
    ]
    places = {PROMPTS: folder / PROMPTS} | {name: origin / name for name in TRANSFORMER_SETTINGS}
    for module in modules:
        if module.kind != "Transformer" and module.path:
            places |= {f"{module.path}/{name}": folder / module.path / name for name in MODULE_FILES}
    found = {name: file.read_bytes() for name, file in places.items() if file.is_file()}
    return found | {MODULES: (json.dumps(entries, indent=2) + "\n").encode()}
