"""What ``golden check`` and ``doctor`` share: their options, and how a bundle and a file of renames are read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nezha_np as nz
from nezha_np.checks import DTYPES
from nezha_np.commands.json_text import read_json

if TYPE_CHECKING:
    from nezha_np.oracle import Bundle


def add_comparison_options(parser: argparse.ArgumentParser, *, json: bool = True) -> None:
    """Add the arguments BUNDLE and THEIRS, and the options of a comparison.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the subcommand.
    json : bool
        Whether it can print JSON.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> add_comparison_options(parser)
    >>> parser.parse_args(["golden.safetensors", "theirs.npz"]).theirs
    'theirs.npz'
    """
    parser.add_argument("bundle", metavar="BUNDLE", help="a golden bundle")
    parser.add_argument(
        "theirs", metavar="THEIRS", help="the implementation's arrays, a .safetensors or .npz file, or a bundle"
    )
    parser.add_argument(
        "--rename",
        metavar="FILE",
        help="a JSON object from their names to ours; * is any text within a part of a name, ** any text",
    )
    parser.add_argument(
        "--names",
        dest="name_table",
        metavar="PACKAGE",
        help="a table of renames that ships with nezha_np, such as bert4torch or paddlenlp; an unknown one lists all",
    )
    parser.add_argument("--transposed", action="store_true", help="accept arrays whose axes are in another order")
    parser.add_argument(
        "--dtype", choices=(*DTYPES, "bfloat16"), help="what they compute in; found from their arrays if left out"
    )
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def add_masked_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves out masked tokens.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        The parser of the subcommand.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> add_masked_option(parser)
    >>> parser.parse_args(["--ignore-masked"]).ignore_masked
    True
    """
    parser.add_argument(
        "--ignore-masked", action="store_true", help="leave out the numbers of masked tokens, which nothing else reads"
    )


def matching_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `nezha_np.oracle.compare` and `nezha_np.oracle.diagnose` take from these options.

    Parameters
    ----------
    options : argparse.Namespace
        The parsed options.

    Returns
    -------
    dict
        The arguments `rename`, `names`, `transposed` and `dtype`.

    Raises
    ------
    FileNotFoundError
        If the file of renames is missing.
    ValueError
        If it is not a JSON object of strings.
    """
    return {
        "rename": read_renames(options.rename),
        "names": options.name_table,
        "transposed": options.transposed,
        "dtype": options.dtype,
    }


def read_renames(path: str | None) -> dict[str, str] | None:
    """Read the file of renames.

    Parameters
    ----------
    path : str or None
        The file; None: there is none.

    Returns
    -------
    dict of str to str, or None
        From the names of the other implementation to those of the bundle.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If it is not a JSON object of strings.
    """
    if path is None:
        return None
    table = read_json(Path(path), "a JSON object from their names to ours")
    if not isinstance(table, dict) or not all(isinstance(ours, str) for ours in table.values()):
        raise ValueError(f"{path}: expected a JSON object from their names to ours, got something else")
    return table


def read_bundle(path: str) -> Bundle:
    """Read a golden bundle.

    Parameters
    ----------
    path : str
        A ``.safetensors`` file.

    Returns
    -------
    Bundle
        The bundle.

    Raises
    ------
    OSError
        If there is no such file, or it is a folder.
    ValueError
        If it is not a bundle.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path}: expected a golden bundle, a .safetensors file, got a folder")
    return nz.oracle.load(path)
