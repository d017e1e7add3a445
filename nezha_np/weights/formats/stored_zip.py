"""Zip archives whose files are stored without compression, so that each can be mapped into memory where it lies."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

# The header of each file: signature, 22 bytes that the archive's directory repeats, lengths of the two fields after it.
LOCAL_HEADER = struct.Struct("<4s22xHH")


def stored_files(path: Path, *, compressed: str) -> dict[str, tuple[int, int]]:
    """Find the files of a zip archive.

    Parameters
    ----------
    path : Path
        The archive.
    compressed : str
        What the error for an archive that holds compressed files advises.

    Returns
    -------
    dict of str to (int, int)
        For each file of the archive where its bytes start and stop, counted from the beginning of the archive.

    Raises
    ------
    ValueError
        If the archive is broken, holds two files of one name or files that overlap, or one that is compressed or
        encrypted.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> path = Path(tempfile.mkdtemp()) / "x.zip"
    >>> with zipfile.ZipFile(path, "w") as archive:
    ...     archive.writestr("a", "text")
    >>> stored_files(path, compressed="write it anew")
    {'a': (31, 35)}
    """
    import zipfile  # here, because most checkpoints are not zip archives

    places = {}
    taken = []  # the bytes of each file with its header
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                files, end = archive.infolist(), archive.start_dir
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, struct.error) as error:
            raise ValueError(f"the zip archive is broken or cut short: {error}") from None
        for info in files:
            name = info.filename
            if name in places:
                raise ValueError(f"the zip archive holds {name} twice")
            if info.flag_bits & 1 or info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"the zip archive holds {name} compressed or encrypted: {compressed}")
            file.seek(max(info.header_offset, 0))  # it may be negative where the archive is cut short
            header = file.read(LOCAL_HEADER.size)
            if info.header_offset < 0 or len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
                raise ValueError(f"the zip archive has no {name} where its directory says")
            _, name_length, extra_length = LOCAL_HEADER.unpack(header)
            start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
            if info.file_size != info.compress_size or start + info.file_size > end:
                raise ValueError(f"the zip archive has no {info.file_size} bytes for {name}")
            places[name] = (start, start + info.file_size)
            taken.append((info.header_offset, start + info.file_size))
    taken.sort()
    if any(start < stop for (_, stop), (start, _) in itertools.pairwise(taken)):
        raise ValueError("the zip archive holds files that overlap")
    return places
