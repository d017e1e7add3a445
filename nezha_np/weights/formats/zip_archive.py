"""Zip archives: where the files in them lie. What is stored can be mapped into memory, what is deflated is inflated."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

from nezha_np.weights.formats.entry import MOST_EXPANDED, Deflated, Entry

# The header of each file: signature, 22 bytes that the archive's directory repeats, lengths of the two fields after it.
LOCAL_HEADER = struct.Struct("<4s22xHH")


def files_in_archive(path: Path) -> dict[str, Entry]:
    """Find the files of a zip archive.

    Parameters
    ----------
    path : Path
        The archive.

    Returns
    -------
    dict of str to Entry
        For each file of the archive its bytes.

    Raises
    ------
    ValueError
        If the archive is broken, holds two files of one name or files that overlap, one that is encrypted or compressed
        by something else than deflate, or such that would take far more bytes than the archive.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> path = Path(tempfile.mkdtemp()) / "x.zip"
    >>> with zipfile.ZipFile(path, "w") as archive:
    ...     archive.writestr("a", "text")
    >>> files_in_archive(path)
    {'a': Entry(dtype='U8', shape=(4,), start=31, stop=35, strides=None)}
    """
    import zipfile  # here, because most checkpoints are not zip archives

    places: dict[str, Entry] = {}
    taken = []  # the bytes of each file with its header
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                files, end = archive.infolist(), archive.start_dir
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, struct.error) as error:
            raise ValueError(f"the zip archive is broken or cut short ({error}): fetch or save it again") from None
        for info in files:
            name = info.filename
            if name in places:
                raise ValueError(f"the zip archive holds {name} twice")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(
                    f"the zip archive holds {name} encrypted, or compressed by something else than deflate"
                )
            file.seek(max(info.header_offset, 0))  # it may be negative where the archive is cut short
            header = file.read(LOCAL_HEADER.size)
            if info.header_offset < 0 or len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
                raise ValueError(f"the zip archive has no {name} where its directory says")
            _, name_length, extra_length = LOCAL_HEADER.unpack(header)
            start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
            stop, size = start + info.compress_size, info.file_size
            stored = info.compress_type == zipfile.ZIP_STORED
            if (stored and size != info.compress_size) or stop > end:
                raise ValueError(f"the zip archive has no {size} bytes for {name}")
            if stored:
                places[name] = Entry("U8", (size,), start, stop)
            else:
                places[name] = Entry("U8", (size,), 0, size, deflated=Deflated(start, stop, size, info.CRC))
            taken.append((info.header_offset, stop))
    inflated = sum(entry.nbytes for entry in places.values() if entry.deflated is not None)
    if inflated > 2 * end + MOST_EXPANDED:
        raise ValueError(f"its compressed files would take {inflated:,} bytes, in a file of {end:,}")
    taken.sort()
    if any(start < stop for (_, stop), (start, _) in itertools.pairwise(taken)):
        raise ValueError("the zip archive holds files that overlap")
    return places
