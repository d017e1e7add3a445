"""PyTorch's files (``pytorch_model.bin``), read without PyTorch and without running what is in them.

`torch.save` writes the numbers of tensors, their storages, one after another, and a pickle that says how the tensors
lie in them. Since PyTorch 1.6 the container is a zip archive; before, it was a row of pickles, followed by the
storages. Here the two containers are opened, and it is found where in the file each tensor lies. `pickle_machine` reads
the pickle, `torch_tensors` says what its calls mean. What is large in the file stays there: only places are computed.
"""

from __future__ import annotations

import io
import itertools
import mmap
import reprlib
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nezha_np.checks import check_fetched, listed, printable
from nezha_np.weights.formats.entry import DTYPES, MOST_EXPANDED, Entry, first_bytes
from nezha_np.weights.formats.pickle_machine import Other, Refused, shown
from nezha_np.weights.formats.recognition import looks_like
from nezha_np.weights.formats.torch_tensors import Tensor, TensorMachine
from nezha_np.weights.formats.zip_archive import files_in_archive

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # what the first pickle of an older file holds
PROTOCOL = 1001  # what the second pickle holds
# Views may take so many times the bytes of the file, as where all layers share one's tensors, and so many more, for a
# small mask or table that one number is expanded to.
MOST_REPEATED = 64
ROOM = 2**24
# Where checkpoints of training scripts keep the model, next to its optimiser for example.
INNER = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")


def read_header(path: Path) -> dict[str, Entry]:
    """Find the tensors of a file that `torch.save` wrote; nothing in the file is run.

    Parameters
    ----------
    path : Path
        The file: a dictionary of tensors (a ``state_dict``), or a dictionary that holds one under a name in `INNER`,
        such as ``state_dict`` or ``model``. Where several do, the first is read, and a warning says so. Values that are
        no tensors are left out.

    Returns
    -------
    dict of str to Entry
        The tensors; `start` and `stop` count from the beginning of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file breaks the format, if it would call anything but what makes tensors, storages and OrderedDicts, or
        if it was written before PyTorch 0.1.10 (a tar archive) or on a big-endian machine. The message names the file.

    Examples
    --------
    A file that would run a command, with PyTorch and pickle:

    >>> import pickle, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "pytorch_model.bin"
    >>> _ = path.write_bytes(b"cos\\nsystem\\n(S'rm -r *'\\ntR.")
    >>> read_header(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: ...: expected tensors alone, got a pickle that would call os.system('rm -r *'): refused, nothing was run
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of torch.save, found no such file")
    check_fetched(path)
    with path.open("rb") as file:
        start = file.read(512)
        if not start:
            raise ValueError(f"{path}: expected a file of torch.save, got an empty one")
        if start[257:262] == b"ustar":
            raise ValueError(
                f"{path}: expected a file of torch.save, got a tar archive, from before PyTorch 0.1.10: load and save "
                "it again with PyTorch"
            )
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        value, starts = _read_zip(path, mapped) if start.startswith(b"PK") else _read_pickles(mapped)
        tensors = _find_tensors(value, path)
        entries = {name: _entry(tensor, starts) for name, tensor in tensors.items()}
        _check_repetition(entries, size=len(mapped))
    except Refused as error:
        advice = "; save its state_dict alone, with PyTorch" if error.makes_object else ""
        raise ValueError(f"{path}: expected tensors alone, got {error}: refused, nothing was run{advice}") from None
    except (ValueError, DeprecationWarning) as error:  # pickletools warns of odd escapes, which may be an error
        why = f"{printable(error)}{looks_like(path)}"
        raise ValueError(f"{path}: expected a file of torch.save, got one that breaks the format: {why}") from None
    return entries


# --------------------------------------------------------------------------------------------------- the two containers


def _read_zip(path: Path, mapped: mmap.mmap) -> tuple[Any, dict[str, Entry]]:
    """Read a zip archive: what its pickle holds, and where each storage starts and stops."""
    places = files_in_archive(path)
    pickles = [name for name in places if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"expected one data.pkl in the zip archive, found {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in places:
        raise ValueError("what torch.jit.save wrote is a program, so load it with PyTorch and save its state_dict")
    if order := places.get(f"{folder}byteorder"):
        _check_little_endian(first_bytes(mapped, order, 100) == b"little")
    description = places[pickles[0]]
    value = TensorMachine().run(io.BytesIO(first_bytes(mapped, description, description.nbytes)))
    data = f"{folder}data/"
    return value, {name.removeprefix(data): place for name, place in places.items() if name.startswith(data)}


def _read_pickles(mapped: mmap.mmap) -> tuple[Any, dict[str, Entry]]:
    """Read the older format: what its pickle holds, and where each storage starts and stops.

    Five pickles stand one after another (magic number, version, system, tensors, keys of storages), then the storages.
    """
    if TensorMachine().run(mapped) != MAGIC_NUMBER:
        raise ValueError(
            "it holds a pickle that torch.save did not write; if you trust it, load it with Python and write its "
            "arrays with numpy.savez"
        )
    if TensorMachine().run(mapped) != PROTOCOL:
        raise ValueError(f"expected version {PROTOCOL}")
    system = TensorMachine().run(mapped)
    if not isinstance(system, dict):
        raise ValueError("it does not say on what machine it was written")
    _check_little_endian(system.get("little_endian") is True)
    machine = TensorMachine()
    value, storages = machine.run(mapped), machine.storages
    keys = TensorMachine().run(mapped)
    places = {}
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in storages or key in places:
            raise ValueError(f"expected the storages of the tensors, each once, got {reprlib.repr(key)}")
        size = storages[key].total
        elements = mapped.read(8)
        start = mapped.tell()
        if len(elements) < 8 or start + size > len(mapped):
            raise ValueError(f"it is cut short at storage {key}")
        if struct.unpack("<q", elements)[0] * DTYPES[storages[key].dtype].itemsize != size:
            raise ValueError(f"storage {key} has another size than its tensors say")
        places[key] = Entry("U8", (size,), start, start + size)
        mapped.seek(start + size)
    return value, places


def _check_little_endian(is_little: bool) -> None:
    if not is_little:
        raise ValueError("its numbers are big-endian: load it with PyTorch and save it on a little-endian machine")


# ---------------------------------------------------------------------------------------------------------- the tensors


def _find_tensors(value: Any, path: Path) -> dict[str, Tensor]:
    """Find the dictionary of tensors in what a pickle holds.

    The dictionaries under the names in `INNER` come first: a loss or a counter beside them may be a tensor too.
    """
    if not isinstance(value, dict):
        kind = "a tensor" if isinstance(value, Tensor) else _contents(value) or f"a {type(value).__name__}"
        raise ValueError(f"expected a dictionary of tensors, got {kind}")
    distinct = {id(item): item for item in value.values()}  # many names may stand for one large dictionary
    held = {key: _tensors_of(item) for key, item in distinct.items()}
    inner = {name: held[id(item)] for name, item in value.items()}
    likely = {name: inner[name] for name in INNER if inner.get(name)}
    if likely:
        first = next(iter(likely))
        chosen = likely[first]
        # Another model of the same names is, for example, the average of its weights over the training.
        alike = {key for key, some in held.items() if some.keys() == chosen.keys() and some != chosen}
        others = [name for name in likely if likely[name] != chosen]
        others += [shown(name) for name, item in value.items() if id(item) in alike and name not in likely]
        if others:
            warnings.warn(
                f"{path}: there are tensors under {first} and under {listed(others)}: those under {first} are read; "
                "to have others, save them alone, with PyTorch",
                stacklevel=2,
            )
        return chosen
    found = _tensors_of(value)
    if not value or len(found) > max(map(len, inner.values())):
        return found
    if _is_numpy(next(iter(value.values()))) and not any(inner.values()):
        raise ValueError("expected a dictionary of tensors, got one of NumPy's arrays: write them with numpy.savez")
    said = {key: _contents(item) for key, item in distinct.items()}
    keys = [shown(key) if index < 20 else "" for index, key in enumerate(value)]
    keys = [
        f"{key} ({what})" if (what := said[id(value[name])]) else key for key, name in zip(keys, value, strict=True)
    ]
    raise ValueError(f"expected a dictionary of tensors, or one under {' or '.join(INNER)}, got {listed(keys)}")


def _tensors_of(value: Any) -> dict[str, Tensor]:
    """Return the tensors that a dictionary holds under names, or none."""
    items = value.items() if isinstance(value, dict) else ()
    return {name: tensor for name, tensor in items if isinstance(tensor, Tensor) and isinstance(name, str)}


def _contents(value: Any) -> str:
    """Say what a value holds that could be meant as weights, or nothing."""
    if tensors := len(_tensors_of(value)):
        return f"{tensors} tensor{'s' * (tensors > 1)}"
    if not isinstance(value, dict):
        return ("of NumPy" if _is_numpy(value) else value.kind) if isinstance(value, Other) else ""
    for name, inner in itertools.islice(value.items(), 5):
        if _is_numpy(inner):
            return "arrays of NumPy, no tensors"
        if isinstance(inner, dict) and any(isinstance(item, Tensor) for item in itertools.islice(inner.values(), 5)):
            return f"tensors under {shown(name)} in it"
    return ""


def _is_numpy(value: Any) -> bool:
    return isinstance(value, Other) and value.kind.startswith("numpy.")


def _entry(tensor: Tensor, places: Mapping[str, Entry]) -> Entry:
    """Say where in the file a tensor lies."""
    storage = tensor.storage
    place = places.get(storage.key)
    if place is None or place.nbytes != storage.total:
        held = "none" if place is None else f"{place.nbytes} of them"
        raise ValueError(f"expected {storage.total} bytes for storage {shown(storage.key)}, found {held}")
    start, stop = place.start + tensor.first, place.start + tensor.last
    return Entry(tensor.dtype, tensor.shape, start, stop, tensor.strides, place.deflated)


def _check_repetition(entries: Mapping[str, Entry], *, size: int) -> None:
    """Refuse views that repeat their storages until they take far more memory than the file has bytes."""
    total = sum(entry.nbytes for entry in entries.values())
    if total > 2 * size + min(MOST_EXPANDED, MOST_REPEATED * size + ROOM):
        raise ValueError(f"its views repeat their storages until they take {total:,} bytes, in a file of {size:,}")
