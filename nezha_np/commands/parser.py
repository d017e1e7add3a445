"""The parser of the command line: an error is one line, which names options as they are typed, and the nearest one."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from nezha_np.commands.exit_status import ERROR
from nezha_np.commands.output import print_lines, print_message
from nezha_np.commands.together import take_the_word

# What functions of the package call the argument that is, or that comes with, the checkpoint of `--model`.
OF_MODEL = ("path", "weights", "checkpoint", "tokenizer")


class Parser(argparse.ArgumentParser):
    """A parser whose subparsers are of its kind.

    It notes how each of its arguments is typed, and gives that to the options as `names`: the functions of the package
    name an argument as Python does (``top_k``), and an error of the command line as it is typed there (``--top-k``).
    A subcommand that calls one of them by another name says so: ``set_defaults(aliases={"folder": "--output"})``.

    Examples
    --------
    >>> parser = Parser(prog="count")
    >>> _ = parser.add_argument("--top-k", type=int)
    >>> parser.set_defaults(run=print)
    >>> parser.parse_args([]).names["top_k"]
    '--top-k'
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.names: dict[str, str] = {}
        self._typed: list[str] = []  # every option, in every way of typing it
        self._words: list[str] = []
        self._commands: Iterable[str] = ()
        super().__init__(*arguments, **options)

    def add_subparsers(self, **options: Any) -> Any:
        """Add commands, and note them: an error lists them where none is typed."""
        commands = super().add_subparsers(**options)
        self._commands = commands.choices
        return commands

    def set_defaults(self, **defaults: Any) -> None:
        """Set defaults, and with them this parser, which is found there when the subcommand is known."""
        super().set_defaults(**{"parser": self, "names": self.names, "aliases": {}, **defaults})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and note how each argument is typed, by its long option if it has one, and the words of this call.

        An error names the option that a wrong word is nearest to.
        """
        for action in self._actions:  # those of groups too
            typed = action.option_strings
            self.names[action.dest] = max(typed, key=len) if typed else str(action.metavar or action.dest)
        self._typed = [option for action in self._actions for option in action.option_strings]
        self._words = list(args or [])
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print one line on standard error and exit."""
        if message.endswith(": COMMAND"):
            message += f", one of {', '.join(self._commands)}"
        raise SystemExit(fail(self.prog, message + self._nearest_option()))

    def _nearest_option(self) -> str:
        for word in self._words:
            name = word.partition("=")[0]
            is_option = re.match(r"--?[^\W\d]\w", name) and name[:2] not in self._typed
            if is_option and not any(option.startswith(name) for option in self._typed):
                return nearest(name, self._typed)
        return ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += nearest(str(value), map(str, action.choices or ()))
            raise

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print the help or the version as every other output: on any console, and for ``head`` too."""
        print_lines([message.removesuffix("\n")])


def typed_text(word: str) -> str:
    """Return a word of the command line as the text that was typed, whose bytes are UTF-8 in every locale.

    Parameters
    ----------
    word : str
        The word, in which Python marks the bytes that the console's encoding does not have.

    Returns
    -------
    str
        The text.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is not UTF-8.

    Examples
    --------
    >>> typed_text("\\udce5\\udcb9\\udcb2")  # as it comes where LC_ALL=C
    '干'
    """
    try:
        return word.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        raise argparse.ArgumentTypeError(
            f"expected text in UTF-8, got {word!a}: let the console send UTF-8 (a locale such as C.UTF-8)"
        ) from None


def nearest(word: str, choices: Iterable[str]) -> str:
    """Name the choice that somebody has probably meant.

    Parameters
    ----------
    word : str
        What was typed.
    choices : iterable of str
        What may be typed.

    Returns
    -------
    str
        The end of an error; empty where no choice is near.

    Examples
    --------
    >>> nearest("fill_mask", ["fill-mask", "inspect"]), nearest("train", ["fill-mask", "inspect"])
    ('; did you mean fill-mask?', '')
    """
    found = difflib.get_close_matches(word.lower(), list(choices), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def typed_names(text: str, options: argparse.Namespace) -> str:
    """Name the arguments of Python in a text as they are typed on the command line.

    These are the names at its beginning (``top_k: expected …``), those with a value (``transposed=True takes …``), and
    inside of it those with an underscore, which are words of Python alone.

    Parameters
    ----------
    text : str
        An error of a function of the package, or what it says.
    options : argparse.Namespace
        What `Parser` parsed.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> options = argparse.Namespace(names={"top_k": "--top-k", "transposed": "--transposed"}, aliases={})
    >>> typed_names("top_k: expected a number from 1 to 7, got 0", options)
    '--top-k: expected a number from 1 to 7, got 0'
    >>> typed_names("expected shape (2, 3): transposed=True takes axes in another order", options)
    'expected shape (2, 3): --transposed takes axes in another order'
    """
    of_model = dict.fromkeys(OF_MODEL, options.names["model"]) if "model" in options.names else {}
    names: Mapping[str, str] = {**of_model, **options.names, **options.aliases}

    def at_the_beginning(match: re.Match[str]) -> str:
        return re.sub(r"\w+", lambda name: names.get(name[0], name[0]), match[0])

    def with_a_value(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"].strip("'")
        if name not in names:
            return match[0]
        value = {"True": "", "None": "none"}.get(value, value)
        return f"{names[name]} {value}".rstrip()

    def inside(match: re.Match[str]) -> str:
        return names.get(match[0], match[0])

    text = re.sub(r"\A\w+(\[\d+\])?(, \w+)*(?=: )", at_the_beginning, text)
    text = re.sub(r"(?<![\w-])(?P<name>[a-z]\w*)=(?P<value>True|None|'[\w.]*'|(?=\s))", with_a_value, text)
    return re.sub(r"(?<![\w./'-])[a-z]+(_[a-z]+)+(?![\w./'-])", inside, text)


def fail(program: str, error: object, status: int = ERROR) -> int:
    """Print an error as one line on standard error.

    Parameters
    ----------
    program : str
        The command that it is of.
    error : object
        Its text is what is printed.
    status : int
        The exit status.

    Returns
    -------
    int
        The exit status.
    """
    place = take_the_word(status)
    print_message(f"{program}: {place}{' '.join(str(error).split())}")
    return status


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse all words; what is too much is an error of the subcommand, which knows its options.

    Parameters
    ----------
    parser : Parser
        The parser, with a subcommand's parser below it.
    arguments : sequence of str
        The words.

    Returns
    -------
    argparse.Namespace
        The options, among them `run`, which the subcommand has set.

    Raises
    ------
    SystemExit
        If they are wrong, and after the help; an error has been printed.
    """
    options: argparse.Namespace
    options, others = parser.parse_known_args(arguments)
    if others:
        options.parser.error(f"unrecognized arguments: {' '.join(others)}")
    return options
