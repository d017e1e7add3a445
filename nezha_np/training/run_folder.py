"""The folder of a run: its saved steps, each complete or not there at all, and its measurements.

| in the folder | what it holds |
| --- | --- |
| ``run.json`` | the options that the run was started with |
| ``run.lock`` | while it goes on: it keeps other runs out |
| ``step-00000100/`` | a saved step: a model that `nezha_np.load` reads, ``optimizer.safetensors``, ``step.json`` |
| ``metrics.jsonl`` | what was measured, a line for each step that was measured |
| ``metrics.svg`` | a picture of it, at the end (`nezha_np.training.plot`) |

A step is written into a hidden folder, which gets its name once it is complete. So a run may be killed at any moment,
and goes on from its last saved step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nezha_np.files.lock import try_lock
from nezha_np.training.known_files import differences
from nezha_np.training.loop import Step
from nezha_np.training.loss_scale import LossScale
from nezha_np.training.measurements import read_json, write_json
from nezha_np.training.optimizers.state import load_state, save_state
from nezha_np.weights.base import CHANGES
from nezha_np.weights.changes import save_changes
from nezha_np.weights.checkpoint import SHIPPED, load
from nezha_np.weights.convert import TOKENIZER_FILES
from nezha_np.weights.sentence_files import transformer_folder
from nezha_np.weights.weights import Weights

MODELS = ("model.safetensors", CHANGES, "model.safetensors.index.json", "pytorch_model.bin")
STEP_FILES = ("step.json", "optimizer.safetensors", "config.json", "model.safetensors")
STEP = re.compile(r"step-(\d{8,})")
LOCK = "run.lock"
MOST = 5  # options that a message names
CORPORA = ("corpus", "held_out")  # the folders of the texts in tokens, which depend on the options


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Make the folder of a run, and let no other run write to it until this one ends.

    Parameters
    ----------
    folder : Path
        The folder of the run, which need not be there.

    Raises
    ------
    ValueError
        If a file is in its place or in the way to it, or another run writes to it.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "run"
    >>> with only_run(folder):
    ...     [path.name for path in folder.iterdir()]
    ['run.lock']
    >>> list(folder.iterdir())
    []
    """
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"folder: expected a folder, found a file: {place}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("ab", buffering=0) as lock:
        if try_lock(lock, path) is False:  # None: this file system has no locks
            raise ValueError(f"{folder}: expected to be the only run that writes to it, but another one does")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file
                path.unlink()
    with contextlib.suppress(OSError):  # there another run that has opened it since keeps it
        path.unlink(missing_ok=True)


def save_step(folder: Path, step: Step, *, keep: int) -> Path:
    """Save a step, and remove the oldest ones.

    Parameters
    ----------
    folder : Path
        The folder of the run, which is there.
    step : Step
        The step.
    keep : int
        How many steps to keep, this one included.

    Returns
    -------
    Path
        The folder of the step.

    Raises
    ------
    OSError
        If it cannot be written; the steps before are still there then.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import nezha_np as nz
    >>> from nezha_np.training import lamb
    >>> from nezha_np.training.loop import first_step
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> save_step(folder, first_step(nz.load(), lamb), keep=1).name
    'step-00000000'
    """
    target = folder / f"step-{step.number:08d}"
    hidden = folder / f".{target.name}"
    for left in (*folder.glob(".step-*"), *folder.glob(".removed-*")):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        step.weights.save(hidden)
        save_state(step.state, hidden / "optimizer.safetensors")
        values = {
            "number": step.number,
            "loss_scale": None if step.loss_scale is None else dataclasses.asdict(step.loss_scale),
        }
        write_json(hidden / "step.json", values)
        if target.exists():
            _remove(target)
        hidden.rename(target)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    for old in saved_steps(folder)[:-keep]:
        with contextlib.suppress(PermissionError):  # Windows: weights are mapped from it; it goes with a later step
            _remove(old)
    return target


def _remove(step: Path) -> None:
    """Remove a saved step. It loses its name first: a step that has its name is complete."""
    shutil.rmtree(step.rename(step.with_name(f".removed-{step.name}")), ignore_errors=True)


def save_model(folder: Path, weights: Weights, source: str | Path | None, *, changes: bool = False) -> None:
    """Make the folder of a run itself a model, with the files of its tokenizer.

    Parameters
    ----------
    folder : Path
        The folder of the run.
    weights : Weights
        The model.
    source : str, Path or None
        Where the tokenizer is: the folder of a model, or a file in it; None: the shipped model.
    changes : bool
        Whether only the tensors are saved that the model in `source` has not, or with other numbers.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import nezha_np as nz
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> save_model(folder, nz.load(), None)
    >>> nz.load_tokenizer(folder).token_to_id("[MASK]")
    4
    """
    origin = SHIPPED if source is None else Path(source)
    origin = transformer_folder(origin) if origin.is_dir() else origin.parent
    for name in TOKENIZER_FILES:
        if (origin / name).is_file() and not (folder / name).is_file():
            shutil.copyfile(origin / name, folder / name)
    if changes:
        save_changes(weights, folder, source)
    else:
        weights.save(folder)


def saved_steps(folder: Path) -> list[Path]:
    """List the saved steps of a run, the oldest first.

    Parameters
    ----------
    folder : Path
        The folder of the run.

    Returns
    -------
    list of Path
        The folders of the steps.

    Examples
    --------
    >>> saved_steps(Path("no_such_folder"))
    []
    """
    if not folder.is_dir():
        return []
    found = {int(match[1]): path for path in folder.iterdir() if (match := STEP.fullmatch(path.name))}
    return [found[number] for number in sorted(found)]


def load_step(path: Path, dtype: str = "float32") -> Step:
    """Load a saved step.

    Parameters
    ----------
    path : Path
        The folder of the step.
    dtype : str
        The dtype of the weights that are trained.

    Returns
    -------
    Step
        The step, without what was measured of it.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is not that of a step.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import nezha_np as nz
    >>> from nezha_np.training import lamb
    >>> from nezha_np.training.loop import first_step
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> load_step(save_step(folder, first_step(nz.load(), lamb), keep=1)).number
    0
    """
    if missing := [name for name in STEP_FILES if not (path / name).is_file()]:
        raise FileNotFoundError(
            f"{path}: expected a saved step of a run, found no {missing[0]} in it; remove the folder, and the run "
            "goes on from the step before it"
        )
    values = read_json(path / "step.json")
    weights = load(path, dtype=dtype)
    scale = None if values["loss_scale"] is None else LossScale(**values["loss_scale"])
    return Step(values["number"], weights, load_state(path / "optimizer.safetensors", weights), scale)


def check_options(folder: Path, options: Mapping[str, Any]) -> None:
    """Write the options of a new run, or check that a run which goes on has those that it was started with.

    A run that has saved no step has done nothing with its options: it begins anew with others, without the corpus that
    was made with those before.

    Parameters
    ----------
    folder : Path
        The folder of the run.
    options : mapping of str to object
        What the numbers of the run depend on, as JSON holds it; files as `known_file` and `known_model` note them.

    Raises
    ------
    FileExistsError
        If no run was started in the folder, and there is a model in it, which the run would replace.
    FileNotFoundError
        If there are steps of a run, and no options.
    ValueError
        If the run was started with other options; the message names them.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> check_options(folder, {"seed": 0})
    >>> (folder / "step-00000100").mkdir()
    >>> check_options(folder, {"seed": 1})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...seed: 0 in the run, 1 now. Start it with those again, or begin a new run in another folder
    """
    file = folder / "run.json"
    saved = [name for name in MODELS if (folder / name).exists()]
    if not file.is_file():
        if saved:
            raise FileExistsError(
                f"{folder}: expected a new folder, or that of a run, found {saved[0]} of a model in it"
            )
        if steps := saved_steps(folder):
            raise FileNotFoundError(
                f"{file}: expected the options of the run whose {steps[-1].name} is there, found no such file: nothing "
                "says what the run was started with; begin a new run in another folder"
            )
        write_json(file, dict(options))
        return
    before = read_json(file)
    now = json.loads(json.dumps(dict(options)))
    different = [f"{name}: {then} in the run, {given} now" for name, then, given in differences(before, now)]
    if different and not saved_steps(folder) and not saved:
        for name in CORPORA:
            shutil.rmtree(folder / name, ignore_errors=True)
        write_json(file, dict(options))
    elif different:
        shown = "; ".join([*different[:MOST], *([f"and {len(different) - MOST} more"] if different[MOST:] else [])])
        raise ValueError(
            f"{folder}: expected the options that this run was started with, got others: {shown}. Start it with "
            "those again, or begin a new run in another folder"
        )
