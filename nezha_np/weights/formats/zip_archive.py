"""Zip archives: where the files in them lie. What is stored can be mapped into memory, what is deflated is inflated.

An archive that two readers could read differently is refused: the format lets bytes stand before it and after it, and
says in two or three places how many files there are, what they are called and where their directory lies.
"""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import BinaryIO

from nezha_np.weights.formats.entry import MOST_EXPANDED, Deflated, Entry, Stored

# The header of each file: signature, 22 bytes that the archive's directory repeats, lengths of the two fields after it.
LOCAL_HEADER = struct.Struct("<4s22xHH")
# The end of an archive: signature, the number of this disk and of the directory's, the files on this one and on all,
# size and place of the directory, the length of a comment. A number of ones stands in the record of zip64 before it.
END = struct.Struct("<4sHHHHLLH")
END_64 = struct.Struct("<4sQ4xLLQQQQ")
LOCATOR_64 = struct.Struct("<4sLQL")
LONGEST_GAP = 24  # bytes after a file: its sizes once more, where they were not known when it was begun


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
        If the archive is broken or could be read in two ways, holds two files of one name or files that overlap, one
        that is encrypted or compressed by something else than deflate, or such that would take far more bytes than the
        archive.

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
        _check_end(file, count=len(files), directory=end)
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
            if file.read(name_length) != info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437"):
                raise ValueError(f"the zip archive calls {name} by another name where it lies")
            start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
            stop, size = start + info.compress_size, info.file_size
            stored = info.compress_type == zipfile.ZIP_STORED
            if (stored and size != info.compress_size) or stop > end:
                raise ValueError(f"the zip archive has no {size} bytes for {name}")
            if stored:
                places[name] = Entry("U8", (size,), start, stop, stored=Stored(start, stop, info.CRC))
            else:
                places[name] = Entry("U8", (size,), 0, size, deflated=Deflated(start, stop, size, info.CRC))
            taken.append((info.header_offset, stop))
    inflated = sum(entry.nbytes for entry in places.values() if entry.deflated is not None)
    if inflated > 2 * end + MOST_EXPANDED:
        raise ValueError(f"its compressed files would take {inflated:,} bytes, in a file of {end:,}")
    taken.sort()
    if any(start < stop for (_, stop), (start, _) in itertools.pairwise(taken)):
        raise ValueError("the zip archive holds files that overlap")
    gaps = [start - stop for (_, stop), (start, _) in itertools.pairwise([(0, 0), *taken, (end, end)])]
    if max(gaps) > LONGEST_GAP or gaps[0]:
        raise ValueError("the zip archive holds bytes that belong to none of its files")
    return places


def _check_end(file: BinaryIO, *, count: int, directory: int) -> None:
    """Check the records at the end of an archive, in which `count` files and the place of the directory were found."""
    file.seek(directory)
    rest = file.read()
    at, size = rest.find(b"PK\x05\x06"), directory + len(rest)
    if rest.count(b"PK\x05\x06") != 1 or len(rest) < at + END.size:
        raise ValueError("the zip archive ends more than once, as two do that were put together")
    place = directory + at
    _, disk, disk_of_directory, here, files, length, start, comment = END.unpack_from(rest, at)
    said, end = [(disk, disk_of_directory, here, files, length, start)], place
    file.seek(max(place - LOCATOR_64.size - END_64.size, 0))
    before = file.read(END_64.size + LOCATOR_64.size)
    if len(before) == END_64.size + LOCATOR_64.size and before[END_64.size :].startswith(b"PK\x06\x07"):
        signature, _, *numbers = END_64.unpack_from(before)
        end = place - len(before)
        if signature != b"PK\x06\x06" or LOCATOR_64.unpack_from(before, END_64.size)[1:] != (0, end, 1):
            raise ValueError("the zip archive has no record of zip64 where it says")
        said.append(tuple(numbers))
    right = (0, 0, count, count, end - directory, directory)
    # In the shorter record ones stand for a number that is in the longer one.
    ones = (2**16 - 1,) * 4 + (2**32 - 1,) * 2 if len(said) == 2 else (None,) * 6
    if any(number not in (one, true) for number, one, true in zip(said[0], ones, right, strict=True)) or (
        said[-1] != right and len(said) == 2
    ):
        raise ValueError("the zip archive has other files or another place than its end says, or is one of several")
    if place + END.size + comment != size:
        raise ValueError("the zip archive does not stop where its end says")
