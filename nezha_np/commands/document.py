"""A text that a subcommand makes as a whole, a page or a picture: to the file of ``-o``, or to standard output."""

from __future__ import annotations

import argparse
from pathlib import Path

from nezha_np.checks import check_path
from nezha_np.commands.output import print_lines, write_text
from nezha_np.files.atomic import resolve_target, write_atomically


def output_file(options: argparse.Namespace) -> Path | None:
    """Find where the text is to be written, before it is made.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed options, `output` and `force` among them.

    Returns
    -------
    Path or None
        The file; None for ``-``, standard output.

    Raises
    ------
    FileNotFoundError, FileExistsError
        As `nezha_np.files.atomic.resolve_target` does.
    ValueError
        If the name is empty.

    Examples
    --------
    >>> output_file(argparse.Namespace(output="-", force=False)) is None
    True
    """
    return None if options.output == "-" else resolve_target(check_path(options.output, "output"), force=options.force)


def write_document(text: str, path: Path | None, *, force: bool) -> None:
    """Write the text, and say where it is.

    Parameters
    ----------
    text : str
        The text; it ends in a line feed.
    path : Path or None
        What `output_file` returned.
    force : bool
        Whether it may replace a file, one that another run has written in the meantime too.

    Raises
    ------
    OSError
        If the file cannot be written, or another run has written it.

    Examples
    --------
    >>> write_document("<p>one</p>\\n", None, force=False)
    <p>one</p>
    """
    if path is None:
        write_text(text.removesuffix("\n"))
        return
    name, data = path.name, text.encode()
    new = () if force else (name,)
    write_atomically(path.parent, lambda folder: (folder / name).write_bytes(data), new=new)
    print_lines([f"wrote {path}: {len(data):,} bytes"])
