"""What a file is, by how it begins: for errors about files whose names say something else."""

from __future__ import annotations

import struct
from pathlib import Path

from nezha_np.weights.formats import READERS

# How files begin, what they are, and what their names should end in; without an end they are not read here.
BEGINNINGS = (
    (b"\x89HDF\r\n", "a file of Keras (HDF5)", ""),
    (b"GGUF", "a file of llama.cpp (GGUF)", ""),
    (b"\x1f\x8b", "a gzip archive", ""),
    (b"7z\xbc\xaf", "a 7-Zip archive", ""),
    (b"Rar!", "a RAR archive", ""),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a file of torch.save in its older format", ".bin"),
)


def recognise(path: Path) -> tuple[str, str] | None:
    """Say what a file seems to be.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    (str, str) or None
        What it is, and the end of the names of such files, empty where they are not read; None: it is not known.

    Examples
    --------
    >>> import nezha_np as nz
    >>> recognise(nz.weights.checkpoint.SHIPPED / "model.safetensors")
    ('a safetensors file', '.safetensors')
    >>> recognise(nz.weights.checkpoint.SHIPPED / "vocab.txt")
    """
    with path.open("rb") as file:
        start = file.read(4096)
    for beginning, kind, end in BEGINNINGS:
        if start.startswith(beginning):
            return kind, end
    if start.startswith(b"PK\x03\x04"):
        # The first file in the archive is named after 30 bytes.
        if b"/data.pkl" in start:
            return "a file of torch.save", ".bin"
        return ("an .npz file", ".npz") if b".npy" in start[:300] else ("a zip archive", "")
    if start[257:262] == b"ustar":
        return "a tar archive", ""
    if len(start) > 9 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] < path.stat().st_size:
        return "a safetensors file", ".safetensors"
    if start and len(start) < 1000 and start.isascii() and start.decode().replace("\n", " ").isprintable():
        return f"a short text, {start[:60].decode()!r}", ""  # a server's answer, such as "Entry not found"
    return None


def looks_like(path: Path) -> str:
    """Say in the end of an error what a file seems to be, where its name says something else.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        The end, with a semicolon before it; empty where the name is right or the file not known.

    Examples
    --------
    >>> import nezha_np as nz
    >>> looks_like(nz.weights.checkpoint.SHIPPED / "model.safetensors")
    ''
    """
    kind, end = recognise(path) or ("", "")
    if not kind or READERS.get(path.suffix) == READERS.get(end, ""):
        return ""
    return f"; it looks like {kind}" + (f": if it is, give it a name that ends in {end}" if end else "")
