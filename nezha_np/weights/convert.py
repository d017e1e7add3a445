"""Converting checkpoints: whatever `load` reads becomes safetensors and ``config.json``, as transformers reads them."""

from __future__ import annotations

import collections
import dataclasses
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nezha_np.arrays import check_dtype
from nezha_np.checks import check_path, listed
from nezha_np.files.atomic import write_atomically
from nezha_np.weights.checkpoint import LOOKED_FOR, READERS, list_files, load, read_headers
from nezha_np.weights.names import name_tensors

# What a tokenizer is in: with these beside it, a converted checkpoint takes texts.
TOKENIZER_FILES = (
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
INDEXES = tuple(f"{file}.index.json" for file in LOOKED_FOR)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes
    ----------
    sources : tuple of Path
        The files that were read.
    destination : Path
        The file of tensors that was written, beside its ``config.json``.
    bytes_before, bytes_after : int
        The sizes of these files.
    dtypes_before : tuple of str
        The dtypes of the floats in the sources, by safetensors' names.
    dtype : str
        The dtype of the tensors that were written.
    tensors : int
        How many there are.
    dropped : tuple of str
        The names of the tensors in the sources that were left out: computed, tied, the optimiser's, or no floats.
    copied : tuple of str
        The names of the tokenizer's files; none where they are in the destination's folder already.
    """

    sources: tuple[Path, ...]
    destination: Path
    bytes_before: int
    bytes_after: int
    dtypes_before: tuple[str, ...]
    dtype: str
    tensors: int
    dropped: tuple[str, ...]
    copied: tuple[str, ...]


def convert(source: str | Path, destination: str | Path, dtype: Any = None, *, force: bool = False) -> Conversion:
    """Convert a checkpoint to safetensors and ``config.json``, and copy its tokenizer.

    Parameters
    ----------
    source : str or Path
        What `nezha_np.load` takes.
    destination : str or Path
        A folder, which is made if need be, or a ``.safetensors`` file. All files are written beside their places and
        moved there, so that a failure leaves what was there. In the source's own folder ``config.json`` is replaced.
    dtype : str or dtype, optional
        "float16", "float32" or "float64"; None: the source's (bfloat16 becomes float32).
    force : bool
        Whether to write into a folder that holds another checkpoint, and replace what has the same name there.

    Returns
    -------
    Conversion
        What was done.

    Raises
    ------
    FileExistsError
        If the destination's folder is not the source's and holds tensors, ``config.json`` or a file of the tokenizer
        already, or the destination a file of tensors, and `force` is not given; or if a file is where a folder is
        needed.
    FileNotFoundError
        If a file of the source is missing; the message names it.
    TypeError
        If an argument has a wrong type.
    ValueError
        If `load` refuses the source, or the destination is the source's own file.

    Examples
    --------
    >>> import tempfile
    >>> import nezha_np as nz
    >>> done = convert(nz.weights.checkpoint.SHIPPED, tempfile.mkdtemp(), dtype="float32")
    >>> done.tensors, done.copied
    (77, ('vocab.txt', 'tokenizer_config.json'))
    """
    origin, place = check_path(source, "source"), check_path(destination, "destination")
    dtype = None if dtype is None else check_dtype(dtype)
    if place.suffix in READERS and not place.is_dir():
        if place.suffix != ".safetensors":
            raise ValueError(f"destination: expected a folder or a .safetensors file, got {place}")
        place, name = place.parent, place.name
    else:
        name = "model.safetensors"
    for folder in (place, *place.parents):
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(
                f"destination: expected a folder or a .safetensors file, found a file in the way: {folder}"
            )
    sources = list_files(origin, name="source")
    if (place / name).exists() and any(file.samefile(place / name) for file in sources):
        raise ValueError(f"destination: expected another place than the source's, got its own file {place / name}")
    home = sources[0].parent
    in_place = place.is_dir() and place.samefile(home)
    copied = () if in_place else tuple(file for file in TOKENIZER_FILES if (home / file).is_file())
    if not force:
        _refuse_replacing(place, {name} if in_place else {name, "config.json", *copied, *LOOKED_FOR, *INDEXES})
    bytes_before = sum(file.stat().st_size for file in sources)
    weights = load(origin, dtype=dtype)
    headers = read_headers(sources)
    named = name_tensors(headers, weights.config)
    kept = {(file, raw): entry for key, (file, raw, entry) in named.items() if key in weights}
    raw_names = [(file, raw) for file, header in headers.items() for raw in header]

    def write(beside: Path) -> None:
        weights.save(beside / name)
        for file in copied:
            shutil.copyfile(home / file, beside / file)

    write_atomically(place, write)
    return Conversion(
        sources=tuple(sources),
        destination=place / name,
        bytes_before=bytes_before,
        bytes_after=(place / name).stat().st_size,
        dtypes_before=tuple(sorted({entry.dtype for entry in kept.values()})),
        dtype=str(weights.dtype),
        tensors=len(weights),
        dropped=tuple(raw for file, raw in raw_names if (file, raw) not in kept),
        copied=copied,
    )


def _refuse_replacing(folder: Path, names: Iterable[str]) -> None:
    if found := sorted(name for name in names if (folder / name).exists()):
        raise FileExistsError(
            f"destination: expected a folder without a checkpoint, found {listed(found)} in {folder}; force (--force) "
            "replaces what has the same name"
        )


def describe(conversion: Conversion) -> Iterator[str]:
    """Say in lines what a conversion did.

    Examples
    --------
    >>> import tempfile
    >>> import nezha_np as nz
    >>> for line in describe(convert(nz.weights.checkpoint.SHIPPED, tempfile.mkdtemp())):
    ...     print(line)  # doctest: +ELLIPSIS
    read ...model.safetensors: ... bytes, F16
    wrote ...model.safetensors: ... bytes, 77 tensors in float16
    wrote ...config.json
    copied vocab.txt, tokenizer_config.json
    """
    sources = listed([str(file) for file in conversion.sources], most=1)
    yield f"read {sources}: {conversion.bytes_before:,} bytes, {', '.join(conversion.dtypes_before)}"
    if conversion.dropped:
        # One name for all layers: the twelfth table of positions says nothing new.
        counts = collections.Counter(re.sub(r"(?<=[._])\d+(?=[./])", "*", name) for name in conversion.dropped)
        names = [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
        yield f"dropped, because computed, tied or no weights: {listed(names)}"
    where = conversion.destination
    yield f"wrote {where}: {conversion.bytes_after:,} bytes, {conversion.tensors} tensors in {conversion.dtype}"
    yield f"wrote {where.with_name('config.json')}"
    if conversion.copied:
        yield f"copied {', '.join(conversion.copied)}"
