"""Tables of names that ship with the package: what other code bases call the steps of the model.

Each is a file of `names/`: from their names to ours, patterns both, and with what it was checked.
"""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

from nezha_np.mechanism import Tape, definitions, recording
from nezha_np.model.tasks import TASKS

FOLDER = Path(__file__).parent / "names"


def name_tables() -> tuple[str, ...]:
    """List the tables of names that ship with the package.

    Returns
    -------
    tuple of str
        What ``names=`` of `nezha_np.oracle.compare` takes.

    Examples
    --------
    >>> "paddlenlp" in name_tables()
    True
    """
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def name_table(name: str | None) -> dict[str, str]:
    """Read a table of names.

    Parameters
    ----------
    name : str or None
        One of `name_tables`; None: none.

    Returns
    -------
    dict of str to str
        Our names for theirs, as ``rename=`` of `nezha_np.oracle.compare` takes them.

    Raises
    ------
    ValueError
        If there is no such table.

    Examples
    --------
    >>> name_table("bert4torch")["encoderLayer.*.multiHeadAttention.q"]
    'encoder.layer.*.attention.self.query'
    """
    if name is None:
        return {}
    if name not in name_tables():
        raise ValueError(f"names: expected one of {', '.join(name_tables())}, got {name!r}")
    table = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    names: dict[str, str] = table["names"]
    return names


@functools.cache
def every_name() -> frozenset[str]:
    """Return the names of every intermediate and weight of every family and head: those of the standard set.

    Examples
    --------
    >>> {"qa_outputs", "relative_positions", "embeddings.LayerNorm.bias"} <= every_name()
    True
    """
    from nezha_np.oracle.standard import STANDARD  # here, because they are needed for an error alone
    from nezha_np.oracle.standard_inputs import lively_weights

    found: set[str] = set()
    for one in STANDARD:
        weights, tape = lively_weights(one.config, one.head), Tape(None)
        with definitions(), recording(tape):
            TASKS[one.head].function(weights, **one.inputs)
        found |= {*tape.arrays, *weights}
    return frozenset(found)
