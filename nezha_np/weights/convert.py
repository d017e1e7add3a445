"""Converting checkpoints: what `load` reads becomes ``model.safetensors`` and ``config.json``, for transformers too."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nezha_np.checks import KEPT_DTYPES, check_dtype, check_path, listed
from nezha_np.files.atomic import write_atomically
from nezha_np.weights.checkpoint import LOOKED_FOR, list_files, load, read_headers
from nezha_np.weights.names import name_tensors
from nezha_np.weights.prefixes import without_outer_prefix
from nezha_np.weights.saving import file_to_write
from nezha_np.weights.sentence_files import sentence_files

# The files of a tokenizer: with these in its folder, a converted checkpoint can be used for texts.
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
        The file of tensors that was written; its ``config.json`` is in the same folder.
    bytes_before, bytes_after : int
        The sizes of these files.
    dtypes_before : tuple of str
        The dtypes of the floats in the sources, by safetensors' names.
    dtype : str
        The dtype of the tensors that were written.
    tensors : int
        How many there are.
    dropped : tuple of str
        The names of the tensors in the sources that were left out, because they are computed, tied, the optimiser's,
        or do not hold floats.
    copied : tuple of str
        The names of the files of the tokenizer, and of those that make the transformer a sentence model
        (sentence-transformers); none where they are in the destination's folder already.
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

    Of a folder of sentence-transformers the other modules are copied too, and the transformer is put where
    sentence-transformers puts it today: beside ``modules.json``.

    Parameters
    ----------
    source : str or Path
        What `nezha_np.load` takes.
    destination : str or Path
        A folder, which is made if it is not there, or a ``.safetensors`` file. All files are written under another path
        and then moved, so that a failure leaves what was there before. In the source's own folder ``config.json`` is
        replaced.
    dtype : str or dtype, optional
        "bfloat16", "float16", "float32" or "float64"; None: that of the source (bfloat16 becomes float32).
    force : bool
        Whether to write into a folder that holds another checkpoint, and to replace the files of the same names there.

    Returns
    -------
    Conversion
        What was done.

    Raises
    ------
    FileExistsError
        If `force` is False and the destination's folder, which is not the source's, holds tensors, ``config.json`` or a
        file of the tokenizer already, or the destination is a file that exists; or if a file is where a folder is
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
    origin, target = check_path(source, "source"), check_path(destination, "destination")
    dtype = None if dtype is None else check_dtype(dtype, KEPT_DTYPES)
    target = file_to_write(target, "destination")
    sources = list_files(origin, name="source")
    if target.exists() and any(file.samefile(target) for file in sources):
        raise ValueError(f"destination: expected another place than the source's, got its own file {target}")
    in_place = target.parent.is_dir() and target.parent.samefile(sources[0].parent)
    copied = {} if in_place else _other_files(origin if origin.is_dir() else origin.parent, sources[0].parent)
    others = [] if in_place else ["config.json", *copied, *LOOKED_FOR, *INDEXES]
    new = () if force else (target.name, *others)
    _check_nothing_is_replaced(target.parent, new)
    bytes_before = sum(file.stat().st_size for file in sources)
    weights = load(origin, dtype=dtype)
    headers, _ = without_outer_prefix(read_headers(sources))
    named = name_tensors(headers, weights.config)
    loaded = {(file, raw): entry for name, (file, raw, entry) in named.items() if name in weights}

    def write(folder: Path) -> None:
        weights.save(folder / target.name)
        for name, content in copied.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    write_atomically(target.parent, write, new=new)
    return Conversion(
        sources=tuple(sources),
        destination=target,
        bytes_before=bytes_before,
        bytes_after=target.stat().st_size,
        dtypes_before=tuple(sorted({entry.dtype for entry in loaded.values()})),
        dtype=str(weights.dtype),
        tensors=len(weights),
        dropped=tuple(raw for file, header in headers.items() for raw in header if (file, raw) not in loaded),
        copied=tuple(copied),
    )


def _other_files(folder: Path, transformer: Path) -> dict[str, bytes]:
    """Read the files of the tokenizer, and of what makes a sentence model of the transformer."""
    files = {name: transformer / name for name in TOKENIZER_FILES}
    return {name: file.read_bytes() for name, file in files.items() if file.is_file()} | sentence_files(folder)


def _check_nothing_is_replaced(folder: Path, names: Iterable[str]) -> None:
    """Refuse to write files into a folder that holds files of these names."""
    if found := sorted(name for name in set(names) if (folder / name).exists()):
        raise FileExistsError(
            f"destination: expected a folder without a checkpoint, found {listed(found)} in {folder}; force=True "
            "replaces what has the same name"
        )


def describe(conversion: Conversion) -> Iterator[str]:
    """Describe in lines what a conversion did.

    Parameters
    ----------
    conversion : Conversion
        What `convert` returned.

    Yields
    ------
    str
        A line.

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
        # One name for all layers: twelve lines for twelve tables of positions would say no more.
        counts = collections.Counter(re.sub(r"(?<=[._])\d+(?=[./])", "*", name) for name in conversion.dropped)
        names = [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
        yield f"dropped, because computed, tied or no weights: {listed(names)}"
    where = conversion.destination
    yield f"wrote {where}: {conversion.bytes_after:,} bytes, {conversion.tensors} tensors in {conversion.dtype}"
    yield f"wrote {where.with_name('config.json')}"
    if conversion.copied:
        yield f"copied {', '.join(conversion.copied)}"
