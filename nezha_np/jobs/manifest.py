"""The manifest of a job, ``manifest.json`` in its folder: what it computes, of which lines, and with which model.

It is written before anything is computed. A later run of the same job finds there that it is the same, and computes
what is missing: ``part-00042.npy`` is there once the shard 42 is done.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nezha_np.files.atomic import write_atomically
from nezha_np.files.temporary import PREFIX, temporary_folder
from nezha_np.jobs.shards import Shard, differing_lines
from nezha_np.jobs.tasks import Task

NAME = "manifest.json"
ERRORS = "errors.jsonl"
OF_A_JOB = re.compile(r"part-\d{5,}\.(npy|safetensors|jsonl)|errors(-\d{5,})?\.jsonl")  # with its manifest
FORMAT = 1  # of the manifest


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a job is.

    Attributes
    ----------
    made_with : dict
        Everything besides the lines that its results depend on: the task and its options, hashes of the model and of
        its tokenizer, versions.
    shard_lines : int
        How many lines a shard has.
    output_format : str
        The suffix of its parts.
    shards : list of Shard
        The parts of the source.
    width : int
        How many numbers a vector has; 0: the results are no vectors.
    """

    made_with: dict[str, Any]
    shard_lines: int
    output_format: str
    shards: list[Shard]
    width: int = 0

    def part(self, number: int) -> str:
        """Return the name of the file of a shard."""
        return f"part-{number:05}.{self.output_format}"

    def missing(self, out: Path) -> list[int]:
        """List the shards that are not done."""
        return [number for number in range(len(self.shards)) if not (out / self.part(number)).exists()]


def errors_of(number: int) -> str:
    """Return the name of the file that holds the errors of a shard.

    Examples
    --------
    >>> errors_of(42)
    'errors-00042.jsonl'
    """
    return f"errors-{number:05}.jsonl"


def make_manifest(task: Task, shard_lines: int, shards: list[Shard]) -> Manifest:
    """Make the manifest of a job.

    Examples
    --------
    >>> from nezha_np.jobs.tasks import open_task
    >>> task = open_task("embed", None, input_format="lines", output_format=None, options={})
    >>> make_manifest(task, 65536, []).part(42)
    'part-00042.npy'
    """
    # As it will be read again: JSON has no tuples, and no numbers of NumPy.
    made_with = json.loads(json.dumps(task.identity, default=lambda value: value.item()))
    return Manifest(made_with, shard_lines, task.output_format, shards, task.width)


def read_manifest(out: Path) -> Manifest | None:
    """Read the manifest of a folder.

    Parameters
    ----------
    out : Path
        The folder of a job.

    Returns
    -------
    Manifest or None
        The manifest; None: there is none.

    Raises
    ------
    ValueError
        If it is something else.

    Examples
    --------
    >>> read_manifest(Path("no_such_folder")) is None
    True
    """
    path = out / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError
        shards = [Shard(**one) for one in found["shards"]]
        made_with, lines = dict(found["made_with"]), int(found["shard_lines"])
        return Manifest(made_with, lines, str(found["output_format"]), shards, int(found["width"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):  # the last: int(1e400)
        raise ValueError(
            f"{path}: expected the manifest of a job, got something else; restart=True begins anew"
        ) from None


def begin(out: Path, source: Path, manifest: Manifest, *, restart: bool) -> None:
    """Begin a job in a folder, or check that the job that was begun there is the same.

    Parameters
    ----------
    out : Path
        The folder; it is made if it does not exist.
    source : Path
        The file of lines, to name it in errors.
    manifest : Manifest
        What the job is.
    restart : bool
        Whether to throw away what is there of another job.

    Raises
    ------
    OSError
        If the folder cannot be made or written into.
    ValueError
        If it holds another job, and the message says what differs, or something else than a job.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "job"
    >>> begin(out, Path("texts.txt"), Manifest({"task": "embed"}, 64, "npy", []), restart=False)
    >>> begin(out, Path("texts.txt"), Manifest({"task": "tag"}, 64, "npy", []), restart=False)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...manifest.json: expected a job with task 'tag', got one with 'embed'; restart=True begins anew
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: expected a folder for the parts of a job, found something that is no folder")
    if restart and (out / NAME).exists():
        _clear(out)
    elif (before := read_manifest(out)) is not None:
        _check_same(out / NAME, source, manifest, before)
        with temporary_folder(out):  # removes what a killed run has left
            return
    elif out.exists() and (others := [path.name for path in out.iterdir() if not path.name.startswith(PREFIX)]):
        raise ValueError(
            f"{out}: expected a new folder, or that of a job, found one with {min(others)} and no {NAME}: name another"
        )
    if not _write(out, manifest) and (first := read_manifest(out)) is not None:
        _check_same(out / NAME, source, manifest, first)


def _check_same(path: Path, source: Path, now: Manifest, before: Manifest) -> None:
    wanted_all = now.made_with | {"shard_lines": now.shard_lines}
    found_all = before.made_with | {"shard_lines": before.shard_lines}
    for key in dict.fromkeys((*wanted_all, *found_all)):
        wanted, found = wanted_all.get(key), found_all.get(key)
        if wanted != found:
            raise ValueError(
                f"{path}: expected a job with {key} {wanted!r}, got one with {found!r}; restart=True begins anew"
            )
    if where := differing_lines(now.shards, [dataclasses.asdict(shard) for shard in before.shards]):
        raise ValueError(
            f"{source}: expected the lines that the job in {path.parent} was begun with, got others from {where} on; "
            "restart=True begins anew"
        )


def _write(out: Path, manifest: Manifest) -> bool:
    """Write a manifest, unless another run that began in the same moment was the first; return whether it is ours."""
    content = {"format": FORMAT} | dataclasses.asdict(manifest)
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    try:
        write_atomically(
            out, lambda folder: (folder / NAME).write_text(text, encoding="utf-8", newline="\n"), new=(NAME,)
        )
    except FileExistsError:
        return False
    return True


def _clear(out: Path) -> None:
    """Remove what belongs to a job, and nothing else; its manifest last, so that what is left is a job until then."""
    for path in out.iterdir():
        if OF_A_JOB.fullmatch(path.name):
            path.unlink()
    (out / NAME).unlink()


def collect_errors(out: Path, shards: Sequence[Shard]) -> int:
    """Join the errors of all shards into ``errors.jsonl``; return how many there are.

    Examples
    --------
    >>> collect_errors(Path("no_such_folder"), [])
    0
    """
    parts = [path for path in (out / errors_of(number) for number in range(len(shards))) if path.exists()]
    if not parts:
        return 0
    data = b"".join(path.read_bytes() for path in parts)
    write_atomically(out, lambda folder: (folder / ERRORS).write_bytes(data))
    return data.count(b"\n")
