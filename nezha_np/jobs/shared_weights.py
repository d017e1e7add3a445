"""The weights of a job that loading would convert in each worker, converted once: all workers map one file.

A file in another dtype than float32, one that is deflated, or one whose rows do not follow one another becomes new
arrays when it is loaded, and each process would have its own. Mapped pages are those of all processes of a machine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from nezha_np.arrays import to_numpy
from nezha_np.files.temporary import temporary_folder
from nezha_np.weights.checkpoint import SHIPPED, list_files, read_config_beside
from nezha_np.weights.formats.entry import map_tensors
from nezha_np.weights.formats.safetensors import read_header, write_tensors
from nezha_np.weights.mapped_files import mapping_under
from nezha_np.weights.weights import Weights

SMALL_PART = 16  # copies of less than one in so many bytes are left to the workers


@contextlib.contextmanager
def shared_weights(weights: Weights, out: Path) -> Iterator[tuple[str | None, Callable[[], None]]]:
    """Save weights for the workers of a job, if they were converted; the file is gone at the end of the job.

    Parameters
    ----------
    weights : Weights
        The weights.
    out : Path
        The folder of the job: what all workers see.

    Yields
    ------
    path : str or None
        The file; None: the weights are mapped already, and workers load them as they are.
    keep : callable
        Says that the job lives. Other machines may not see its lock, and take what is a day old for left behind.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    arrays = {name: np.ascontiguousarray(to_numpy(array)) for name, array in weights.items()}
    copied = sum(array.nbytes for array in arrays.values() if mapping_under(array) is None)
    if copied * SMALL_PART < sum(array.nbytes for array in arrays.values()):
        yield None, lambda: None
        return
    with temporary_folder(out) as folder:
        file = folder / "files" / "weights.safetensors"
        write_tensors(file, arrays)
        yield str(file), lambda: os.utime(file)


def read_shared(file: Path, model: str | None, head: str) -> Weights:
    """Map the weights that `shared_weights` has saved.

    Parameters
    ----------
    file : Path
        The file.
    model : str or None
        The checkpoint that they are of, whose configuration and tokenizer are read there; None: the shipped one.
    head : str
        The head beside the shipped model.

    Returns
    -------
    Weights
        What `nezha_np.load` returns for `model`, without a copy.

    Examples
    --------
    >>> import tempfile
    >>> import nezha_np as nz
    >>> with shared_weights(nz.load(), Path(tempfile.mkdtemp())) as (file, keep):
    ...     weights = read_shared(Path(file), None, "")
    >>> weights, mapping_under(weights["pooler.dense.weight"]) is not None
    (Weights(nezha, 77 tensors, 3,975,386 parameters, float32), True)
    """
    folder = SHIPPED / head if model is None else Path(model)
    files = list_files(folder)
    source = files[0].parent if folder.is_file() else folder
    return Weights(map_tensors(file, read_header(file)), read_config_beside(files[0]), source=source)
