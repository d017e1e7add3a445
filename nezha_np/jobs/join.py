"""One file of the parts of a job."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import BinaryIO

from nezha_np.checks import listed
from nezha_np.files.atomic import resolve_target, write_atomically
from nezha_np.files.vector_file import ROOM, file_header
from nezha_np.jobs.manifest import NAME, Manifest, read_manifest


def join(out: Path, target: Path, *, force: bool = False) -> int:
    """Write the parts of a job into one file, as the command of its task writes it in one process.

    Parameters
    ----------
    out : Path
        The folder of the job.
    target : Path
        The file to write, whose name ends as those of the parts.
    force : bool
        Whether it may replace a file.

    Returns
    -------
    int
        How many lines it has.

    Raises
    ------
    OSError
        If a file cannot be read or written, or `target` is there.
    ValueError
        If the folder holds no job, or one that is not complete, or one of another format.

    Examples
    --------
    >>> import tempfile
    >>> from nezha_np.jobs.run_corpus import run_corpus
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "texts.txt").write_text("房间\\n价格\\n", encoding="utf-8")
    >>> _ = run_corpus("embed", folder / "texts.txt", folder / "job")
    >>> join(folder / "job", folder / "vectors.npy")
    2
    """
    manifest = read_manifest(out)
    if manifest is None:
        raise FileNotFoundError(f"{out}: expected the folder of a job, found no {NAME} in it")
    if missing := manifest.missing(out):
        raise ValueError(
            f"{out}: expected all {len(manifest.shards):,} parts, got none of "
            f"{listed([manifest.part(number) for number in missing], most=3)}: run the job again, and it makes them"
        )
    if target.suffix.lower() != f".{manifest.output_format}":
        raise ValueError(
            f"output: expected a name that ends in .{manifest.output_format}, as the parts do, got {target}"
        )
    target = resolve_target(target, force=force)
    rows = sum(shard.lines for shard in manifest.shards)

    def write(file: Path) -> None:
        stream: BinaryIO
        with file.open("wb") as stream:
            if manifest.output_format != "jsonl":
                stream.write(file_header(manifest.output_format, rows, manifest.width))
            for number in range(len(manifest.shards)):
                _append(out, manifest, number, stream)

    new = () if force else (target.name,)
    write_atomically(target.parent, lambda folder: write(folder / target.name), new=new)
    return rows


def _append(out: Path, manifest: Manifest, number: int, stream: BinaryIO) -> None:
    path, lines = out / manifest.part(number), manifest.shards[number].lines
    part: BinaryIO
    with path.open("rb") as part:
        if manifest.output_format != "jsonl":
            header = file_header(manifest.output_format, lines, manifest.width)
            expected = len(header) + 4 * lines * manifest.width
            if part.read(ROOM) != header or path.stat().st_size != expected:
                raise ValueError(
                    f"{path}: expected a part of the job, {lines:,} vectors of {manifest.width:,} numbers in "
                    f"{expected:,} bytes, got something else: remove it, and run the job again"
                )
        shutil.copyfileobj(part, stream, 1 << 20)
