"""Patterns of names: one language, wherever some of the names of a pass are meant.

    *     any text within a part of a name: it stops at a dot, and at the slash of a group such as gradients/
    **    any text at all, dots and slashes included

    encoder.layer.*.output        encoder.layer.0.output, encoder.layer.11.output; not encoder.layer.0.attention.output
    encoder.layer.0.**            everything below the first layer
    **.probs                      the attention probabilities of every layer

Every other character stands for itself. `nezha_np.trace`, `nezha_np.oracle.record`, the renames of
`nezha_np.oracle.compare`, the doctor and the command line take these patterns.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

STARS = re.compile(r"(\*\*|\*)")


def check_patterns(argument: str, value: Any) -> tuple[str, ...]:
    """Check an argument that is one pattern or a sequence of patterns.

    Parameters
    ----------
    argument : str
        The name of the argument, for an error.
    value : str or sequence of str
        The patterns.

    Returns
    -------
    tuple of str
        The patterns.

    Raises
    ------
    TypeError
        If the value is neither.

    Examples
    --------
    >>> check_patterns("output", "**.probs")
    ('**.probs',)
    """
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, Sequence) or not all(isinstance(pattern, str) for pattern in found):
        raise TypeError(f"{argument}: expected a pattern or a sequence of patterns, got {value!r}")
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn a pattern into a regular expression with a group for each ``*`` and each ``**``.

    Parameters
    ----------
    pattern : str
        The pattern.

    Returns
    -------
    re.Pattern
        To be used with ``fullmatch``.

    Examples
    --------
    >>> compile_pattern("layer.*.attention.**").fullmatch("layer.3.attention.self.q").groups()
    ('3', 'self.q')
    """
    texts = {"**": "(.*)", "*": "([^./]*)"}
    parts = STARS.split(pattern)
    return re.compile("".join(texts.get(part) or re.escape(part) for part in parts), re.DOTALL)


def count_stars(pattern: str) -> int:
    """Count the stars of a pattern, a double one as one.

    Parameters
    ----------
    pattern : str
        The pattern.

    Returns
    -------
    int
        The number of ``*`` and ``**``.

    Examples
    --------
    >>> count_stars("layer.*.attention.**")
    2
    """
    return len(STARS.findall(pattern))


def fill_stars(pattern: str, texts: Sequence[str]) -> str:
    """Put texts in the place of a pattern's stars.

    Parameters
    ----------
    pattern : str
        The pattern.
    texts : sequence of str
        What its stars stand for, as many as there are stars or more, in their order.

    Returns
    -------
    str
        The name.

    Examples
    --------
    >>> found = compile_pattern("blocks.*.attn.**").fullmatch("blocks.3.attn.q.weight")
    >>> fill_stars("encoder.layer.*.attention.self.**", found.groups())
    'encoder.layer.3.attention.self.q.weight'
    """
    left = iter(texts)
    return STARS.sub(lambda _: next(left), pattern)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Say whether a name fits one of some patterns.

    Parameters
    ----------
    name : str
        The name.
    patterns : sequence of str
        The patterns.

    Returns
    -------
    bool
        Whether one of them fits the whole name.

    Examples
    --------
    >>> names = ("encoder.layer.0.output", "encoder.layer.0.attention.output")
    >>> [matches(name, ["encoder.layer.*.output"]) for name in names]
    [True, False]
    >>> [matches(name, ["**.output"]) for name in names]
    [True, True]
    """
    return any(compile_pattern(pattern).fullmatch(name) for pattern in patterns)
