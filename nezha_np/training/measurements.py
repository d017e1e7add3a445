"""The small files of a run: its measurements, line by line, and its options, as JSON that a kill leaves whole."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nezha_np.checks import parse_json
from nezha_np.files.atomic import write_atomically


class Metrics:
    """Measurements of a run: a line of JSON for each measured step.

    Parameters
    ----------
    file : Path
        The file. Lines of later steps than `number`, which a killed run left, are removed from it.
    number : int
        The step that the run goes on from.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> Metrics(file, 0).add({"step": 1, "loss": 2.5})
    >>> file.read_text()
    '{"step": 1, "loss": 2.5}\\n'
    """

    def __init__(self, file: Path, number: int) -> None:
        self._file = file
        lines = [line for line in self.read(file) if line["step"] <= number]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        _write_text(file, text)

    def add(self, values: Mapping[str, Any]) -> None:
        """Append a line.

        Parameters
        ----------
        values : mapping of str to number
            What was measured; ``step`` among it. What is not finite is written as null.
        """
        # JSON has no NaN, which is the norm of a step that was left out.
        finite = {name: None if isinstance(one, float) and not math.isfinite(one) else one
                  for name, one in values.items()}  # fmt: skip
        with self._file.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(finite) + "\n")

    @staticmethod
    def read(file: Path) -> list[dict[str, Any]]:
        """Read the complete lines of a file of measurements; none where there is no file.

        Parameters
        ----------
        file : Path
            The file.

        Returns
        -------
        list of dict
            The measurements.

        Raises
        ------
        ValueError
            If a line is not JSON, or has no step.
        """
        found = []
        with contextlib.suppress(FileNotFoundError), file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.endswith("\n"):  # the last one of a killed run may be cut
                    found.append(_parse(file, line))
                    if type(step := found[-1].get("step")) is not int:
                        raise ValueError(f"{file}, line {number}: expected a step, an integer, got {step!r}")
        return found


def read_json(file: Path) -> dict[str, Any]:
    """Read an object that `write_json` wrote.

    Parameters
    ----------
    file : Path
        The file.

    Returns
    -------
    dict of str to object
        The object.

    Raises
    ------
    ValueError
        If the file holds something else.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "run.json"
    >>> write_json(file, {"seed": 0})
    >>> read_json(file)
    {'seed': 0}
    """
    return _parse(file, file.read_text(encoding="utf-8"))


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write an object beside its place, and move it there.

    Parameters
    ----------
    file : Path
        The file.
    values : mapping of str to object
        What JSON can hold.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "run.json"
    >>> write_json(file, {"seed": 0})
    >>> file.read_text()
    '{\\n  "seed": 0\\n}\\n'
    """
    _write_text(file, json.dumps(values, indent=2) + "\n")


def _parse(file: Path, text: str) -> dict[str, Any]:
    """Read what `write_json` or `Metrics` wrote; an error names the file."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ValueError(
            f"{file}: expected what a run writes into it, got something that is not JSON: {error}"
        ) from None
    if not isinstance(values, dict):
        raise ValueError(f"{file}: expected what a run writes into it, a JSON object, got {type(values).__name__}")
    return values


def _write_text(file: Path, text: str) -> None:
    write_atomically(file.parent, lambda folder: (folder / file.name).write_text(text, encoding="utf-8", newline="\n"))
