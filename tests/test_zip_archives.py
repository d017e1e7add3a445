"""Zip archives, as ``.npz`` and ``.bin`` files are: one that is broken, or that two readers could read differently."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from nezha_np.weights.formats import npz, torch
from nezha_np.weights.formats.entry import map_tensors
from nezha_np.weights.formats.zip_archive import files_in_archive

END = b"PK\x05\x06"


@pytest.fixture
def path(tmp_path):
    """Write an archive of two arrays."""
    np.savez(tmp_path / "x.npz", a=np.arange(300.0), b=np.ones((2, 3), np.float32))
    return tmp_path / "x.npz"


def load(path):
    return map_tensors(path, npz.read_header(path))


def test_every_bit_of_an_array_is_held_against_its_checksum(path):
    content = path.read_bytes()
    first = npz.read_header(path)["a"].start
    assert load(path)["a"][1] == 1.0
    for place, bit in ((first, 1), (first + 8 * 299, 128)):
        path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        with pytest.raises(ValueError, match=r"x\.npz: expected the tensor a as it was written: .* is another"):
            load(path)


def test_a_file_that_its_own_header_calls_otherwise_is_refused(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"a.npy", b"z.npy", 1))
    with pytest.raises(ValueError, match=r"x\.npz: .*the zip archive calls a\.npy by another name where it lies"):
        load(path)


def test_an_array_that_has_its_name_twice_is_refused(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a", archive.read("b.npy"))
    with pytest.raises(ValueError, match=r"x\.npz: .* holds both a and a\.npy, which are one name"):
        load(path)


def other(value):
    """Write another archive, of one array."""
    file = io.BytesIO()
    np.savez(file, a=value)
    return file.getvalue()


def with_end(content, **changes):
    """Change numbers of the record at the end."""
    names = ("disk", "disk_of_directory", "here", "files", "length", "start", "comment")
    place = content.rindex(END)
    numbers = dict(zip(names, struct.unpack("<HHHHLLH", content[place + 4 : place + 22]), strict=True))
    numbers = {name: numbers[name] + changes.get(name, 0) for name in names}
    return content[: place + 4] + struct.pack("<HHHHLLH", *numbers.values()) + content[place + 22 :]


def moved(content, by):
    """Write the archive as it is where so many bytes stand before it, with the places in it counted from those."""
    changed = bytearray(with_end(content, start=by))
    for place in [place for place in range(len(content)) if content[place : place + 4] == b"PK\x01\x02"]:
        changed[place + 42 : place + 46] = struct.pack(
            "<L", by + struct.unpack("<L", content[place + 42 : place + 46])[0]
        )
    return bytes(changed)


AMBIGUOUS = {
    "two archives": lambda content: content + other(np.zeros(3)),
    "two archives, the places in the second counted from the first": lambda content: (
        content + moved(other(np.zeros(3)), len(content))
    ),
    "an archive in the comment": lambda content: (
        with_end(content, comment=len(other(np.zeros(3)))) + moved(other(np.zeros(3)), len(content))
    ),
    "a second end in the comment": lambda content: with_end(content, comment=22) + content[-22:],
    "an end in the comment that is none of the file": lambda content: (
        with_end(content, comment=25) + content[-22:] + b"abc"
    ),
    "bytes before": lambda content: b"PK\x03\x04" + bytes(60) + content,
    "bytes before, which the places count": lambda content: b"PK\x03\x04" + bytes(60) + moved(content, 64),
    "bytes after": lambda content: content + b"junk",
    "several disks": lambda content: with_end(content, disk=1, disk_of_directory=1),
    "fewer files on this disk": lambda content: with_end(content, here=-1),
    "fewer files": lambda content: with_end(content, files=-1, here=-1),
    "more files": lambda content: with_end(content, files=1),
    "another place of the directory": lambda content: with_end(content, start=-10),
}


@pytest.mark.parametrize("way", AMBIGUOUS)
def test_what_two_readers_could_read_differently_is_refused(path, way):
    content = path.read_bytes()
    path.write_bytes(AMBIGUOUS[way](content))
    with pytest.raises(ValueError, match=r"x\.npz: .*the zip archive"):
        load(path)
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"x\.bin: .*the zip archive"):
        torch.read_header(path.with_suffix(".bin"))


def test_archives_with_the_records_of_zip64_a_comment_or_sizes_after_the_files_are_read(path, monkeypatch):
    class NoSeek(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise io.UnsupportedOperation

        def tell(self):
            raise io.UnsupportedOperation

    file = NoSeek()
    with monkeypatch.context() as patch, zipfile.ZipFile(file, "w") as archive:
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        for name in ("a", "b"):
            with archive.open(name, "w", force_zip64=True) as one:
                one.write(b"some bytes")
        archive.comment = b"a comment"
        archive.close()
    assert b"PK\x06\x06" in file.getvalue() and b"PK\x07\x08" in file.getvalue()
    path.write_bytes(file.getvalue())
    assert list(files_in_archive(path)) == ["a", "b"]
    number = file.getvalue().index(b"PK\x06\x06") + 24
    path.write_bytes(file.getvalue()[:number] + b"\x03" + file.getvalue()[number + 1 :])
    with pytest.raises(ValueError, match="the zip archive"):
        files_in_archive(path)
