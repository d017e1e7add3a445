"""What a run knows its files by: the SHA-256 of what is in them, not their names or places.

So a run goes on with files that were moved or renamed, and not with others of the same name. Reading a file once more
takes little time beside training on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nezha_np.checks import check_path
from nezha_np.weights.base import hash_files
from nezha_np.weights.checkpoint import SHIPPED, list_files
from nezha_np.weights.convert import TOKENIZER_FILES
from nezha_np.weights.sentence_files import transformer_folder

MOST = 60  # characters of a value in a message


def known_file(path: str | Path) -> dict[str, str]:
    """Return what a run notes of a file that it reads.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict of str to str
        ``name``, for people, and ``sha256``, which it is known by.

    Examples
    --------
    >>> known_file(SHIPPED / "vocab.txt")["name"]
    'vocab.txt'
    """
    file = check_path(path)
    return {"name": file.name, "sha256": hash_files([file])}


def known_model(path: str | Path | None, *, weights: bool = True) -> dict[str, str]:
    """Return what a run notes of the model that it begins with: of its tensors, its configuration and its tokenizer.

    Parameters
    ----------
    path : str, Path or None
        The model; None: the shipped one.
    weights : bool
        Whether the tensors and their configuration are read. False: the tokenizer alone.

    Returns
    -------
    dict of str to str
        ``name``, for people, and ``sha256``, which it is known by.

    Examples
    --------
    >>> known_model(None)["name"]
    'nezha-tiny-zh'
    >>> known_model(None) == known_model(None, weights=False)
    False
    """
    origin = SHIPPED if path is None else check_path(path, "model")
    tensors = list_files(path, name="model") if weights else []
    others = [tensors[0].with_name("config.json")] if weights else []
    folder = transformer_folder(origin) if origin.is_dir() else origin.parent
    others += [folder / name for name in TOKENIZER_FILES]
    return {
        "name": origin.resolve().name,
        "sha256": hash_files([*tensors, *(file for file in others if file.is_file())]),
    }


def differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Compare the options of a run with those that it is to go on with.

    Parameters
    ----------
    before, now : object
        The options as JSON holds them: numbers, texts, lists, and mappings by name.
    name : str
        The name of the option that they are.

    Yields
    ------
    name, before, now : str
        Of each option that differs its name, and both values as a message shows them; of a mapping such as a
        configuration, only what differs in it.

    Examples
    --------
    >>> before = {"seed": 0, "config": {"model_type": "bert", "hidden_size": 8}}
    >>> list(differences(before, {"seed": 0, "config": {"model_type": "bert", "hidden_size": 9}}))
    [('config.hidden_size', '8', '9')]
    """
    if _is_known(now):
        if not _is_same(before, now):
            yield name, _shown(before), _shown(now)
    elif isinstance(before, Mapping) and isinstance(now, Mapping) and not _is_known(before):
        for key in {**before, **now}:
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now) and any(map(_is_known, now)):
        for one, other in zip(before, now, strict=True):
            yield from differences(one, other, name)
    elif before != now:
        yield name, _shown(before), _shown(now)


def _is_known(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"name", "sha256"}


def _is_same(before: Any, now: Mapping[str, str]) -> bool:
    """Compare by the SHA-256; a run of an earlier version noted the name alone, and none of the shipped model."""
    if _is_known(before):
        return bool(before["sha256"] == now["sha256"])
    return bool((SHIPPED.name if before is None else before) == now["name"])


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if _is_known(value):
        return f"{value['name']} with SHA-256 {value['sha256'][:12]}…"
    text = ", ".join(map(_shown, value)) if isinstance(value, list) else repr(value)
    return text if len(text) <= MOST else f"{text[:MOST]}…"
