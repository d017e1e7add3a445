"""The encoding of text files: UTF-8 is read; what another one seems to be is said, with the command that converts it.

Files of Windows programs are often GBK or UTF-16, or begin with a byte-order mark. Read as if they were UTF-8 without a
mark, they give an error at best, and other tokens at worst.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
from pathlib import Path

from nezha_np.checks import check_fetched

# UTF-32 goes first, because its little-endian mark begins with that of UTF-16. The names are those of iconv.
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
# How many bytes of a file are looked at to recognise its encoding.
SAMPLE = 1 << 16
# A text seems to be GBK if this share of its characters beyond ASCII is in GB 2312's rows of punctuation and of Chinese
# characters. In text of other encodings few are.
GB_2312_SHARE = 0.9


def read_utf8(path: str | os.PathLike[str]) -> str:
    """Read a text file that is UTF-8 without a byte-order mark.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    str
        Its text, line ends as ``\\n``.

    Raises
    ------
    ValueError
        The file begins with a byte-order mark or is not UTF-8. The message names the file, what it seems to be, and the
        command that converts it.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "vocab.txt"
    >>> _ = file.write_bytes("[PAD]\\r\\n房\\r\\n".encode())
    >>> read_utf8(file)
    '[PAD]\\n房\\n'
    """
    content = Path(path).read_bytes()
    check_fetched(Path(path), content)
    if content.startswith(codecs.BOM_UTF8):
        raise ValueError(
            f"{path}: expected UTF-8 without a byte-order mark, got one (bytes EF BB BF) at its start; remove it, for "
            f"example by: tail -c +4{_from_file_to_file(path)}"
        )
    return decode_utf8(content, str(path), path).replace("\r\n", "\n").replace("\r", "\n")


def decode_utf8(content: bytes, name: str, path: str | os.PathLike[str] | None = None) -> str:
    """Decode UTF-8, and refuse other encodings by their names.

    Parameters
    ----------
    content : bytes
        A file, or a part of it that begins and ends with a character. A byte-order mark of UTF-8 is a character.
    name : str
        What to call the content in an error, such as ``"texts.txt, line 3"``.
    path : str or path-like, optional
        The file, for the command that converts it. None: it has no path, as standard input has none.

    Returns
    -------
    str
        The text.

    Raises
    ------
    ValueError
        The content is not UTF-8, or seems to be UTF-16 or UTF-32.

    Examples
    --------
    >>> decode_utf8("房间".encode("gbk"), "line 1", "a.txt")
    Traceback (most recent call last):
    ...
    ValueError: line 1: expected UTF-8, got what seems to be GBK (byte 0xb7 at place 0); convert the file, for example
    by: iconv -f GBK -t UTF-8 a.txt > converted-a.txt
    """
    seems = recognise_encoding(content)
    got = f"what seems to be {seems}"
    if seems is None or not seems.startswith(
        "UTF"
    ):  # ASCII text in UTF-16 without a mark is valid UTF-8, with NUL bytes
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            place = f"byte 0x{content[error.start]:02x} at place {error.start}"
            got = f"{got} ({place})" if seems else place
    command = f"iconv -f {seems or 'ENCODING'} -t UTF-8{'' if path is None else _from_file_to_file(path)}"
    raise ValueError(f"{name}: expected UTF-8, got {got}; convert the file, for example by: {command}")


def recognise_encoding(content: bytes) -> str | None:
    """Say which encoding other than UTF-8 a text seems to have.

    Parameters
    ----------
    content : bytes
        The beginning of the text, or all of it. The last character may be cut.

    Returns
    -------
    str or None
        "UTF-16" or "UTF-32" with a byte-order mark, "UTF-16LE" or "UTF-16BE" without one, "GBK"; the names are those of
        the program iconv. None: none of these, which may be UTF-8 or any other encoding.

    Examples
    --------
    >>> recognise_encoding("房间".encode("utf-16")), recognise_encoding(b"two rooms\\n".decode().encode("utf-16-be"))
    ('UTF-16', 'UTF-16BE')
    >>> recognise_encoding("二 rooms".encode("gbk")), recognise_encoding("二 rooms".encode())
    ('GBK', None)
    >>> recognise_encoding("déjà vu".encode("latin-1")) is None
    True
    """
    sample = content[:SAMPLE]
    for mark, encoding in MARKS:
        if sample.startswith(mark):
            return encoding
    # The characters up to U+00FF, such as spaces and line ends, have a NUL byte in UTF-16: all on the same side.
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd >= 1 and even == 0 and _is_text(sample, "utf-16-le"):
        return "UTF-16LE"
    if even >= 1 and odd == 0 and _is_text(sample, "utf-16-be"):
        return "UTF-16BE"
    return "GBK" if _seems_gbk(sample) else None


def _is_text(sample: bytes, encoding: str) -> bool:
    """Return whether a sample with NUL bytes is text in this encoding: more plausible than what it is in UTF-8."""
    text = sample[: len(sample) // 2 * 2].decode(encoding, errors="replace")
    try:  # a text of UTF-8 may hold NUL characters, but not many
        if sample.decode().count("\0") < max(2, len(sample) / 4):
            return False
    except UnicodeDecodeError:
        pass
    return text.count("\ufffd") * 20 <= len(text)


def _seems_gbk(sample: bytes) -> bool:
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.end == len(sample):
            return False  # UTF-8, its last character cut
    else:
        return False
    pairs = re.findall(rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]|[\x80-\xff]", sample)
    # GB 2312: rows 1 to 3 are punctuation and full-width letters, rows 16 to 87 Chinese characters.
    common = [pair for pair in pairs if re.fullmatch(rb"[\xa1-\xa3\xb0-\xf7][\xa1-\xfe]", pair)]
    return len(common) >= GB_2312_SHARE * len(pairs)


def _from_file_to_file(path: str | os.PathLike[str]) -> str:
    """Return the end of a shell's command that reads a file and writes another one beside it."""
    file = Path(path)
    return f" {shlex.quote(str(file))} > {shlex.quote(str(file.with_name(f'converted-{file.name}')))}"
